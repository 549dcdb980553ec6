//! Long random use of a tree with many branches: large values make it tall with few items.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Random, SESSION, Store, TREE, items, model_items, reachable};
use tree::{Key, Tree};

/// Grows, shrinks and grows again, at random places and in runs, with commits of all sizes between.
#[test]
fn branches_split_and_merge() {
    let mut random = Random(31);
    let (mut store, mut tree, mut model) = (Store::default(), Tree::new(TREE, None), BTreeMap::new());
    let mut before = BTreeMap::new();
    let mut tallest = 0;
    for round in 0..60_u64 {
        // Out of a hundred: how many operations insert.
        let inserts = if round % 20 < 9 { 95 } else { 8 };
        for _ in 0..random.below(150) {
            let start = random.below(30_000);
            let (length, up) = (random.below(40), random.below(2) == 0);
            let insert = random.below(100) < inserts;
            for step in 0..length {
                let at = if up { start + step } else { start + length - step };
                let key = Key::new(at / 5000, 1, at);
                if insert {
                    let value = vec![round as u8; 1200 + random.below(1800) as usize];
                    let old = tree.insert(&mut store, key, &value).unwrap();
                    assert_eq!(old.map(|old| old.to_vec()), model.insert(key, value));
                } else {
                    let old = tree.remove(&mut store, key).unwrap();
                    assert_eq!(old.map(|old| old.to_vec()), model.remove(&key));
                }
            }
        }
        if random.below(3) > 0 {
            continue;
        }
        tree.commit(&mut store, SESSION, 5 + round).unwrap();
        let after = reachable(&mut store, tree.root());
        let mut freed = tree.take_freed();
        freed.sort_by_key(|pointer| pointer.address);
        let gone: Vec<_> =
            before.iter().filter(|(at, _)| !after.contains_key(*at)).map(|(_, node)| *node).collect();
        assert_eq!(freed, gone);
        // Space is reused only here: the test would need gigabytes otherwise.
        for pointer in freed {
            store.nodes.remove(&pointer.address);
        }
        assert_eq!(store.nodes.len(), after.len());
        assert_eq!(items(&mut store, &tree), model_items(&model));
        let branches = after.values().filter(|pointer| pointer.level == 1).count();
        tallest = tallest.max(branches);
        before = after;
    }
    assert!(tallest >= 5, "{tallest} branches above leaves");
    let keys: Vec<_> = model.keys().copied().collect();
    for key in keys {
        tree.remove(&mut store, key).unwrap().unwrap();
    }
    assert_eq!(tree.commit(&mut store, SESSION, 1000), Ok(None));
    assert_eq!(tree.take_freed().len(), before.len());
}
