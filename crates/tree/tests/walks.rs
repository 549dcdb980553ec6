//! `walk` and `dropped` against brute force over the node store.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{Fault, Random, SESSION, Store, TREE, items, reachable};
use proptest::prelude::*;
use tree::{Bounds, Key, NodePtr, Source, Tree, Visit, Visitor, dropped, walk, walk_from};

/// Notes all that a walk meets.
#[derive(Default)]
struct Notes {
    nodes: BTreeMap<u64, NodePtr>,
    items: Vec<(Key, Vec<u8>)>,
    unreadable: Vec<(NodePtr, Bounds)>,
    /// Stop after so many items.
    most: Option<usize>,
}

impl Visitor<Fault> for Notes {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit, Fault> {
        assert!(self.nodes.insert(pointer.address, *pointer).is_none(), "a node is visited once");
        Ok(Visit::Enter)
    }

    fn item(&mut self, key: Key, value: &[u8]) -> Result<ControlFlow<()>, Fault> {
        self.items.push((key, value.to_vec()));
        Ok(if self.most == Some(self.items.len()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    fn unreadable(&mut self, pointer: &NodePtr, bounds: Bounds, _: Fault) -> Result<ControlFlow<()>, Fault> {
        self.unreadable.push((*pointer, bounds));
        Ok(ControlFlow::Continue(()))
    }
}

/// A store with the roots of some commits, each after a batch of changes.
fn history(seed: u64, batches: &[(u64, u64, u64)]) -> (Store, Vec<Option<NodePtr>>) {
    let mut random = Random(seed);
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    let mut roots = vec![None];
    for (txg, &(inserts, removals, near)) in batches.iter().enumerate() {
        let at = random.below(20_000);
        for count in 0..inserts + removals {
            let key = Key::new(1, 1, at + random.below(near));
            if count < inserts {
                let length = random.below(300) as usize;
                tree.insert(&mut store, key, &vec![txg as u8; length]).unwrap();
            } else {
                tree.remove(&mut store, key).unwrap();
            }
        }
        roots.push(tree.commit(&mut store, SESSION, 5 + txg as u64 * 3).unwrap());
    }
    (store, roots)
}

/// Items of those leaves, by key.
fn leaf_items(store: &mut Store, nodes: &BTreeMap<u64, NodePtr>) -> Vec<(Key, Vec<u8>)> {
    let mut all = Vec::new();
    for pointer in nodes.values() {
        let node = store.node(pointer).unwrap();
        all.extend(node.items().map(|(key, value)| (key, value.to_vec())));
    }
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_dropped_and_what_is_new(
        seed: u64,
        batches in prop::collection::vec((0..1500_u64, 0..1500_u64, 1..20_000_u64), 1..6),
    ) {
        let (mut store, roots) = history(seed, &batches);
        let sets: Vec<_> = roots.iter().map(|root| reachable(&mut store, *root)).collect();
        for (old, old_set) in sets.iter().enumerate() {
            for (new, new_set) in sets.iter().enumerate().skip(old) {
                let mut notes = Notes::default();
                let end = dropped(roots[old], roots[new], &mut store, &mut notes).unwrap();
                prop_assert!(end.is_continue());
                let gone: BTreeMap<_, _> =
                    old_set.iter().filter(|(at, _)| !new_set.contains_key(at)).map(|(at, node)| (*at, *node)).collect();
                prop_assert_eq!(&notes.nodes, &gone);
                prop_assert_eq!(notes.items, leaf_items(&mut store, &gone));
            }
            for min_birth in [0, 5, 8, 9, 100] {
                let mut notes = Notes::default();
                let end = walk(roots[old], min_birth, &mut store, &mut notes).unwrap();
                prop_assert!(end.is_continue());
                let newer: BTreeMap<_, _> =
                    old_set.iter().filter(|(_, node)| node.birth > min_birth).map(|(at, node)| (*at, *node)).collect();
                prop_assert_eq!(&notes.nodes, &newer);
                prop_assert_eq!(notes.items, leaf_items(&mut store, &newer));
            }
        }
    }

    /// A walk that is cut short at any item and resumed there sees every item once.
    #[test]
    fn resumes(seed: u64, piece in 1..400_usize) {
        let (mut store, roots) = history(seed, &[(1500, 0, 5000)]);
        let root = roots[1];
        let all = items(&mut store, &Tree::new(TREE, root));
        let mut seen = Vec::new();
        let mut from = Key::MIN;
        loop {
            let mut notes = Notes { most: Some(piece), ..Notes::default() };
            let end = walk_from(root, 0, from, &mut store, &mut notes).unwrap();
            from = notes.items.last().map_or(from, |(key, _)| key.next().unwrap());
            seen.extend(notes.items);
            if end.is_continue() {
                break;
            }
        }
        prop_assert_eq!(seen, all);
    }
}

/// The work of `dropped` is that of the changes: ten items changed in a tree of thousands of leaves.
#[test]
fn dropped_reads_what_changed_only() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in 0..200_000 {
        tree.insert(&mut store, Key::new(1, 1, number), &[1; 40]).unwrap();
    }
    let old = tree.commit(&mut store, SESSION, 5).unwrap();
    for number in 0..10 {
        tree.insert(&mut store, Key::new(1, 1, number * 17_000), &[2; 40]).unwrap();
    }
    let new = tree.commit(&mut store, SESSION, 6).unwrap();
    let freed = tree.take_freed().len();
    store.reads = 0;
    let mut notes = Notes::default();
    assert!(dropped(old, new, &mut store, &mut notes).unwrap().is_continue());
    assert_eq!(notes.nodes.len(), freed);
    assert!(store.reads <= 2 * freed, "{} nodes read for {freed} dropped", store.reads);
}

/// Each node in turn is unreadable: exactly the items within the reported bounds are missed.
#[test]
fn unreadable_nodes_are_reported_with_their_bounds() {
    let (mut store, roots) = history(3, &[(3000, 0, 20_000), (2000, 0, 9000)]);
    let root = roots[2];
    let all = items(&mut store, &Tree::new(TREE, root));
    let nodes = reachable(&mut store, root);
    assert!(nodes.len() > 20);
    for pointer in nodes.values() {
        store.unreadable.insert(pointer.address);
        let mut notes = Notes::default();
        assert!(walk(root, 0, &mut store, &mut notes).unwrap().is_continue());
        let [(damaged, bounds)] = notes.unreadable[..] else { panic!("one node is unreadable") };
        assert_eq!(damaged, *pointer);
        let (lost, rest): (Vec<_>, Vec<_>) =
            all.iter().cloned().partition(|(key, _)| bounds.first <= *key && *key <= bounds.last);
        assert!(!lost.is_empty());
        assert_eq!(notes.items, rest);

        // Where the visitor has no answer, the walk fails; and nothing is called dropped on guesswork.
        struct Plain;
        impl Visitor<Fault> for Plain {}
        assert_eq!(walk(root, 0, &mut store, &mut Plain), Err(Fault::Injected));
        if pointer.level > 0 && pointer.birth > 5 {
            let result = dropped(roots[1], root, &mut store, &mut Notes::default());
            assert_eq!(result, Err(Fault::Injected));
        }
        store.unreadable.clear();
    }
}

/// A visitor can stop a walk at a node, and leave subtrees out.
#[test]
fn stops_and_skips() {
    struct Once(usize);
    impl Visitor<Fault> for Once {
        fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit, Fault> {
            self.0 += 1;
            Ok(match (pointer.level, self.0) {
                (1.., _) => Visit::Enter,
                (0, 4) => Visit::Stop,
                (0, _) => Visit::Skip,
            })
        }

        fn item(&mut self, _: Key, _: &[u8]) -> Result<ControlFlow<()>, Fault> {
            panic!("no leaf was entered")
        }
    }
    let (mut store, roots) = history(3, &[(3000, 0, 20_000)]);
    let mut once = Once(0);
    assert!(walk(roots[1], 0, &mut store, &mut once).unwrap().is_break());
    assert_eq!(once.0, 4);
}
