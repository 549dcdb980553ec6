//! The tree against a `BTreeMap`, through commits, reopening, abandoning and failing commits.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use common::{Fault, Random, SESSION, Store, TREE, items, model_items, reachable};
use proptest::prelude::*;
use tree::{Key, NodePtr, Tree};

type Model = BTreeMap<Key, Vec<u8>>;

/// A run of like operations; a single one hardly ever splits a node.
#[derive(Clone, Debug)]
enum Step {
    Ascending { start: u64, count: u64, length: usize },
    Descending { start: u64, count: u64, length: usize },
    Random { seed: u64, count: u64, longest: usize },
    RemoveRange { start: u64, count: u64 },
    RemoveRandom { seed: u64, count: u64 },
    Resize { start: u64, count: u64, length: usize },
    Commit,
    FailingCommit { after: usize },
    Reopen,
    Abandon,
    Ask { key: u64 },
}

/// Keys of few objects and kinds, so that runs meet.
fn key(number: u64) -> Key {
    Key::new(number / 997 % 5, (number / 331 % 3) as u8, number % 4096)
}

fn value(key: Key, length: usize, salt: u64) -> Vec<u8> {
    let mut random = Random(key.offset ^ salt << 20);
    (0..length).map(|_| random.next() as u8).collect()
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..120_usize, 2 => 120..1000_usize, 1 => 1000..=4000_usize]
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..5000_u64;
    let count = 1..600_u64;
    prop_oneof![
        3 => (number.clone(), count.clone(), length()).prop_map(|(start, count, length)| Step::Ascending { start, count, length }),
        2 => (number.clone(), count.clone(), length()).prop_map(|(start, count, length)| Step::Descending { start, count, length }),
        3 => (any::<u64>(), count.clone(), length()).prop_map(|(seed, count, longest)| Step::Random { seed, count, longest }),
        3 => (number.clone(), 1..2000_u64).prop_map(|(start, count)| Step::RemoveRange { start, count }),
        2 => (any::<u64>(), 1..2000_u64).prop_map(|(seed, count)| Step::RemoveRandom { seed, count }),
        2 => (number.clone(), count, length()).prop_map(|(start, count, length)| Step::Resize { start, count, length }),
        4 => Just(Step::Commit),
        2 => (0..40_usize).prop_map(|after| Step::FailingCommit { after }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Abandon),
        4 => number.prop_map(|key| Step::Ask { key }),
    ]
}

struct World {
    store: Store,
    tree: Tree,
    model: Model,
    /// Root and contents of every commit.
    history: Vec<(Option<NodePtr>, Model)>,
    txg: u64,
}

impl World {
    fn new() -> Self {
        Self {
            store: Store::default(),
            tree: Tree::new(TREE, None),
            model: Model::new(),
            history: vec![(None, Model::new())],
            txg: 10,
        }
    }

    fn insert(&mut self, key: Key, value: Vec<u8>) {
        let old = self.tree.insert(&mut self.store, key, &value).unwrap();
        assert_eq!(old.map(|old| old.to_vec()), self.model.insert(key, value));
    }

    fn remove(&mut self, key: Key) {
        let old = self.tree.remove(&mut self.store, key).unwrap();
        assert_eq!(old.map(|old| old.to_vec()), self.model.remove(&key));
    }

    fn commit(&mut self) {
        self.txg += 1;
        let old = self.tree.root();
        let promised = self.tree.dirty_nodes();
        let written = self.store.writes;
        let root = self.tree.commit(&mut self.store, SESSION, self.txg).unwrap();
        assert_eq!(self.store.writes - written, promised);
        assert_eq!(root, self.tree.root());
        assert!(!self.tree.is_dirty() && self.tree.dirty_nodes() == 0);

        let before = reachable(&mut self.store, old);
        let after = reachable(&mut self.store, root);
        let mut freed: Vec<_> = self.tree.take_freed();
        freed.sort_by_key(|pointer| pointer.address);
        let gone: Vec<_> = before.values().filter(|old| !after.contains_key(&old.address)).copied().collect();
        assert_eq!(freed, gone, "freed is what only the old root reaches");
        for pointer in after.values().filter(|new| !before.contains_key(&new.address)) {
            assert_eq!(pointer.birth, self.txg);
        }
        self.history.push((root, self.model.clone()));
    }

    fn ask(&mut self, key: Key) {
        let model = &self.model;
        let got = self.tree.get(&mut self.store, key).unwrap();
        assert_eq!(got.as_deref(), model.get(&key).map(Vec::as_slice));
        let next = self.tree.next(&mut self.store, key).unwrap();
        let wanted = model.range(key..).next().map(|(key, value)| (*key, value.clone()));
        assert_eq!(next.map(|(key, value)| (key, value.to_vec())), wanted);
        let last = self.tree.last_before(&mut self.store, key).unwrap();
        let wanted = model.range(..key).next_back().map(|(key, value)| (*key, value.clone()));
        assert_eq!(last.map(|(key, value)| (key, value.to_vec())), wanted);

        let to = Key::new(key.object, key.kind, key.offset + 100);
        let wanted: Vec<_> = model.range(key..=to).map(|(key, _)| *key).collect();
        let mut keys = Vec::new();
        let mut note = |key, _: &[u8]| {
            keys.push(key);
            Ok(ControlFlow::Continue(()))
        };
        self.tree.scan(&mut self.store, key, to, &mut note).unwrap();
        assert_eq!(keys, wanted);
        keys.clear();
        let mut note = |key, _: &[u8]| {
            keys.insert(0, key);
            Ok(ControlFlow::Continue(()))
        };
        self.tree.scan_back(&mut self.store, key, to, &mut note).unwrap();
        assert_eq!(keys, wanted);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Ascending { start, count, length } => {
                (start..start + count)
                    .for_each(|number| self.insert(key(number), value(key(number), length, start)));
            }
            Step::Descending { start, count, length } => {
                for number in (start..start + count).rev() {
                    self.insert(key(number), value(key(number), length, start));
                }
            }
            Step::Random { seed, count, longest } => {
                let mut random = Random(seed);
                for _ in 0..count {
                    let key = key(random.below(5000));
                    let length = random.below(longest as u64 + 1) as usize;
                    self.insert(key, value(key, length, seed));
                }
            }
            Step::RemoveRange { start, count } => {
                for number in start..start + count {
                    self.remove(key(number));
                }
            }
            Step::RemoveRandom { seed, count } => {
                let mut random = Random(seed);
                (0..count).for_each(|_| self.remove(key(random.below(5000))));
            }
            Step::Resize { start, count, length } => {
                let keys: Vec<_> =
                    self.model.range(key(start)..).map(|(key, _)| *key).take(count as usize).collect();
                for key in keys {
                    self.insert(key, value(key, length, start));
                }
            }
            Step::Commit => self.commit(),
            Step::FailingCommit { after } => {
                let dirty = (self.tree.is_dirty(), self.tree.dirty_nodes());
                let root = self.tree.root();
                self.store.fail_after = Some(after);
                // A failed commit uses up its transaction group's number here; in a pool it would not.
                self.txg += 1;
                let result = self.tree.commit(&mut self.store, SESSION, self.txg);
                self.store.fail_after = None;
                if let Ok(root) = result {
                    assert!(dirty.1 * 2 <= after);
                    self.tree.take_freed();
                    self.history.push((root, self.model.clone()));
                } else {
                    assert_eq!(result, Err(Fault::Injected));
                    assert_eq!((self.tree.is_dirty(), self.tree.dirty_nodes()), dirty);
                    assert_eq!(self.tree.root(), root);
                }
            }
            Step::Reopen => {
                self.commit();
                self.tree = Tree::new(TREE, self.tree.root());
            }
            Step::Abandon => {
                self.tree.abandon();
                assert!(self.tree.take_freed().is_empty());
                self.model = self.history.last().unwrap().1.clone();
            }
            Step::Ask { key: number } => self.ask(key(number)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        prop_assert_eq!(items(&mut world.store, &world.tree), model_items(&world.model));
        world.commit();
        // Every root ever committed still shows what it showed.
        for (root, model) in &world.history {
            let old = Tree::new(TREE, *root);
            prop_assert_eq!(items(&mut world.store, &old), model_items(model));
        }
        // Emptied, nothing is left.
        let keys: Vec<_> = world.model.keys().copied().collect();
        for key in keys {
 world.remove(key);
 }
        prop_assert!(world.tree.is_empty());
        prop_assert_eq!(world.tree.dirty_nodes(), 0);
        world.commit();
        prop_assert_eq!(world.tree.root(), None);
    }
}
