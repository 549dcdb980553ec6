//! Errors from outside: a commit that fails at any call can be repeated or abandoned, an unreadable node
//! spoils nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Fault, Random, SESSION, Store, TREE, items, model_items, reachable};
use tree::{Key, NodeError, Tree};

type Model = BTreeMap<Key, Vec<u8>>;

/// Inserts, replaces and removes at random, in tree and model alike.
fn change(store: &mut Store, tree: &mut Tree, model: &mut Model, random: &mut Random, count: u64) {
    for _ in 0..count {
        let key = Key::new(random.below(3), 1, random.below(4000));
        if random.below(4) == 0 {
            tree.remove(store, key).unwrap();
            model.remove(&key);
        } else {
            let value = vec![random.next() as u8; random.below(400) as usize];
            tree.insert(store, key, &value).unwrap();
            model.insert(key, value);
        }
    }
}

#[test]
fn a_commit_that_fails_anywhere_is_retryable() {
    let mut random = Random(11);
    let (mut store, mut tree, mut model) = (Store::default(), Tree::new(TREE, None), Model::new());
    change(&mut store, &mut tree, &mut model, &mut random, 6000);
    let first = tree.commit(&mut store, SESSION, 20).unwrap();
    let first_items = model_items(&model);
    let first_nodes = reachable(&mut store, first);
    assert!(tree.take_freed().is_empty());

    let mut calls = 0;
    for fail_after in 0.. {
        // The tree gets other changes between two attempts, too.
        change(&mut store, &mut tree, &mut model, &mut random, 3);
        let dirty = tree.dirty_nodes();
        store.fail_after = Some(fail_after);
        let result = tree.commit(&mut store, SESSION, 21);
        store.fail_after = None;
        if result.is_ok() {
            calls = fail_after;
            break;
        }
        assert_eq!(tree.root(), first);
        assert!(tree.is_dirty());
        assert_eq!(tree.dirty_nodes(), dirty);
        if fail_after % 8 == 0 {
            assert_eq!(items(&mut store, &tree), model_items(&model));
            assert_eq!(items(&mut store, &Tree::new(TREE, first)), first_items);
        }
    }
    assert!(calls > 100, "two calls for each node");
    assert_eq!(items(&mut store, &tree), model_items(&model));
    let after = reachable(&mut store, tree.root());
    let mut freed = tree.take_freed();
    freed.sort_by_key(|pointer| pointer.address);
    let gone: Vec<_> =
        first_nodes.values().filter(|old| !after.contains_key(&old.address)).copied().collect();
    assert_eq!(freed, gone);
}

#[test]
fn a_failed_commit_can_be_abandoned() {
    let mut random = Random(12);
    let (mut store, mut tree, mut model) = (Store::default(), Tree::new(TREE, None), Model::new());
    change(&mut store, &mut tree, &mut model, &mut random, 5000);
    tree.commit(&mut store, SESSION, 20).unwrap();
    change(&mut store, &mut tree, &mut model.clone(), &mut random, 50);
    // What this commit freed must survive that the next transaction group is abandoned.
    tree.commit(&mut store, SESSION, 21).unwrap();
    let kept = items(&mut store, &tree);
    change(&mut store, &mut tree, &mut model, &mut random, 50);
    store.fail_after = Some(5);
    assert_eq!(tree.commit(&mut store, SESSION, 22), Err(Fault::Injected));
    store.fail_after = None;
    tree.abandon();
    assert!(!tree.is_dirty());
    assert_eq!(tree.dirty_nodes(), 0);
    assert_eq!(items(&mut store, &tree), kept);
    let freed = tree.take_freed();
    assert!(!freed.is_empty());
    assert!(freed.iter().all(|pointer| pointer.birth == 20));
}

/// With any one node unreadable, operations elsewhere work, those that need it fail and change nothing, and
/// once it is readable again everything is there.
#[test]
fn unreadable_nodes_spoil_nothing() {
    let mut random = Random(13);
    let (mut store, mut tree, mut model) = (Store::default(), Tree::new(TREE, None), Model::new());
    change(&mut store, &mut tree, &mut model, &mut random, 8000);
    let root = tree.commit(&mut store, SESSION, 20).unwrap();
    let nodes: Vec<_> = reachable(&mut store, root).into_keys().collect();
    let (count, mut failures) = (nodes.len(), 0);
    for address in nodes {
        let (mut tree, mut model) = (Tree::new(TREE, root), model.clone());
        store.unreadable.insert(address);
        let (mut failed, mut done) = (0, 0);
        for _ in 0..300 {
            let key = Key::new(random.below(3), 1, random.below(4000));
            let value = vec![7; random.below(1500) as usize];
            let result = match random.below(3) {
                0 => tree.remove(&mut store, key).inspect(|_| drop(model.remove(&key))),
                1 => tree.get(&mut store, key),
                _ => tree.insert(&mut store, key, &value).inspect(|_| drop(model.insert(key, value.clone()))),
            };
            if result.is_ok() { done += 1 } else { failed += 1 }
        }
        // All need the root; hardly any needs a certain leaf.
        assert_eq!(root.is_some_and(|root| root.address == address), done == 0);
        failures += failed;
        store.unreadable.clear();
        assert_eq!(items(&mut store, &tree), model_items(&model));
        let before = reachable(&mut store, root);
        tree.commit(&mut store, SESSION, 21).unwrap();
        assert_eq!(items(&mut store, &tree), model_items(&model));
        let after = reachable(&mut store, tree.root());
        let mut freed = tree.take_freed();
        freed.sort_by_key(|pointer| pointer.address);
        let gone: Vec<_> = before.values().filter(|old| !after.contains_key(&old.address)).copied().collect();
        assert_eq!(freed, gone);
    }
    assert!(failures > count, "the damage was met: {failures} failures with {count} nodes");
}

#[test]
fn a_value_that_is_too_long_is_refused() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    tree.insert(&mut store, Key::MIN, &[1; 4000]).unwrap();
    let Err(Fault::Node(NodeError { found, wanted, .. })) = tree.insert(&mut store, Key::MIN, &[1; 4001])
    else {
        panic!("4001 bytes were taken")
    };
    assert_eq!((found.as_str(), wanted.as_str()), ("4001", "at most 4000"));
    assert_eq!(tree.get(&mut store, Key::MIN).unwrap().unwrap(), [1; 4000][..]);
}

#[test]
fn a_clean_tree_asks_the_sink_for_nothing() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    store.fail_after = Some(0);
    assert_eq!(tree.commit(&mut store, SESSION, 9), Ok(None));
    assert_eq!(tree.remove(&mut store, Key::MIN), Ok(None));
    assert!(!tree.is_dirty());
}
