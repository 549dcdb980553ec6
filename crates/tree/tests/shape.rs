//! How full nodes are, and how many are left, after the usual patterns of use.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, SESSION, Store, TREE, items, reachable};
use tree::{Key, NODE_SIZE, Source, Tree};

/// Mean share of the leaves that items take, of a committed tree.
fn fill(store: &mut Store, tree: &Tree) -> f64 {
    let (mut used, mut leaves) = (0, 0);
    for pointer in reachable(store, tree.root()).values().filter(|pointer| pointer.level == 0) {
        let node = store.node(pointer).unwrap();
        used += node.items().map(|(_, value)| 21 + value.len()).sum::<usize>();
        leaves += 1;
    }
    used as f64 / (leaves * (NODE_SIZE - 96)) as f64
}

#[test]
fn ascending_inserts_fill_the_leaves() {
    for length in [0, 32, 100, 500, 4000] {
        let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
        for number in 0..8_000_000 / (80 + length as u64) {
            tree.insert(&mut store, Key::new(1, 1, number), &vec![1; length]).unwrap();
            if number % 5000 == 4999 {
                tree.commit(&mut store, SESSION, number).unwrap();
            }
        }
        tree.commit(&mut store, SESSION, u64::MAX).unwrap();
        let fill = fill(&mut store, &tree);
        assert!(fill > 0.95, "values of {length}: {fill}");
    }
}

/// Several objects grow at once, in the middle of the tree.
#[test]
fn interleaved_ascending_inserts_fill_the_leaves() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in 0..20_000 {
        for object in 0..7 {
            tree.insert(&mut store, Key::new(object, 1, number), &[1; 40]).unwrap();
        }
    }
    tree.commit(&mut store, SESSION, 5).unwrap();
    let fill = fill(&mut store, &tree);
    assert!(fill > 0.95, "{fill}");
}

#[test]
fn descending_inserts_fill_the_leaves() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in (0..100_000).rev() {
        tree.insert(&mut store, Key::new(1, 1, number), &[1; 40]).unwrap();
    }
    tree.commit(&mut store, SESSION, 5).unwrap();
    let fill = fill(&mut store, &tree);
    assert!(fill > 0.95, "{fill}");
}

#[test]
fn random_inserts_leave_the_leaves_two_thirds_full() {
    let mut random = Random(5);
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in 0..200_000 {
        tree.insert(&mut store, Key::new(random.next(), 1, 0), &[1; 40]).unwrap();
        if number % 20_000 == 19_999 {
            tree.commit(&mut store, SESSION, number).unwrap();
            let fill = fill(&mut store, &tree);
            assert!(fill > 0.65, "{fill} after {number}");
        }
    }
}

/// Whatever the order of removal, the nodes go with the items.
#[test]
fn removals_leave_few_nodes() {
    for order in 0..3 {
        let mut random = Random(6);
        let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
        let mut keys: Vec<_> = (0..100_000).map(|number| Key::new(number / 1000, 1, number)).collect();
        for key in &keys {
            tree.insert(&mut store, *key, &[1; 40]).unwrap();
        }
        tree.commit(&mut store, SESSION, 5).unwrap();
        let full = reachable(&mut store, tree.root()).len();
        match order {
            0 => {}
            1 => keys.reverse(),
            _ => keys.sort_by_cached_key(|_| random.next()),
        }
        let mut most_reads = 0;
        for (count, key) in keys.iter().enumerate() {
            store.reads = 0;
            assert!(tree.remove(&mut store, *key).unwrap().is_some());
            most_reads = most_reads.max(store.reads);
            if count % 9973 == 0 {
                tree.commit(&mut store, SESSION, 6 + count as u64).unwrap();
                let left = reachable(&mut store, tree.root()).len();
                // No two neighbours are both under a quarter full.
                let bound = full * (keys.len() - count) * 8 / keys.len() + 4;
                assert!(left <= bound.min(full), "{left} nodes of {full} after {count} removals");
            }
        }
        assert!(most_reads < 20, "a removal reads one path and some siblings, not {most_reads} nodes");
        assert!(tree.is_empty());
        assert_eq!(tree.dirty_nodes(), 0);
        assert_eq!(tree.commit(&mut store, SESSION, 1_000_000), Ok(None));
    }
}

/// Values of the greatest length among tiny ones, at every position of a leaf.
#[test]
fn big_values_split_anywhere() {
    let mut random = Random(7);
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    let mut wanted = std::collections::BTreeMap::new();
    for round in 0..4000_u64 {
        let length = if random.below(3) == 0 { 4000 - random.below(3) } else { random.below(40) };
        let key = Key::new(1, 0, random.below(1500));
        let value = vec![round as u8; length as usize];
        tree.insert(&mut store, key, &value).unwrap();
        wanted.insert(key, value);
        if round % 512 == 0 {
            tree.commit(&mut store, SESSION, 5 + round).unwrap();
        }
    }
    tree.commit(&mut store, SESSION, 5000).unwrap();
    assert_eq!(items(&mut store, &tree), wanted.into_iter().collect::<Vec<_>>());
}

/// The lowest and the highest key are keys like any other.
#[test]
fn extreme_keys() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    tree.insert(&mut store, Key::MAX, b"last").unwrap();
    tree.insert(&mut store, Key::MIN, b"first").unwrap();
    for number in 0..3000 {
        tree.insert(&mut store, Key::new(5, 5, number), &[0; 64]).unwrap();
    }
    tree.commit(&mut store, SESSION, 5).unwrap();
    assert_eq!(&*tree.get(&mut store, Key::MAX).unwrap().unwrap(), b"last");
    assert_eq!(&*tree.get(&mut store, Key::MIN).unwrap().unwrap(), b"first");
    assert_eq!(tree.next(&mut store, Key::new(6, 0, 0)).unwrap().unwrap().0, Key::MAX);
    assert_eq!(tree.last_before(&mut store, Key::new(5, 5, 0)).unwrap().unwrap().0, Key::MIN);
    assert_eq!(tree.last_before(&mut store, Key::MIN).unwrap(), None);
    assert_eq!(tree.last_before(&mut store, Key::MAX).unwrap().unwrap().0, Key::new(5, 5, 2999));
    assert_eq!((Key::MAX.next(), Key::MIN.previous()), (None, None));
    assert_eq!(Key::new(1, 255, u64::MAX).next(), Some(Key::new(2, 0, 0)));
    assert_eq!(Key::new(2, 0, 0).previous(), Some(Key::new(1, 255, u64::MAX)));
}
