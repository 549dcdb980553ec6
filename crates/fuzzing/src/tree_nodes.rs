//! A node of a tree, and a tree whose root it is.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tree::{Expected, Key, MAGIC, NODE_SIZE, Node, NodeError, NodePtr, Sink, Source, Tree, TreeId, VERSION};
use xxhash_rust::xxh3::xxh3_64;

const ID: TreeId = TreeId { pool: 7, tree: 9 };

/// Nodes by address.
#[derive(Default)]
struct Store(BTreeMap<u64, Arc<Node>>);

impl Source for Store {
    type Error = NodeError;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, NodeError> {
        let node = self.0.values().next().expect("the root").clone();
        match self.0.get(&pointer.address) {
            Some(node) => Ok(Arc::clone(node)),
            // Any child is said to be the root, which the tree must not believe.
            None => Node::parse(node.bytes().into(), &Expected::new(7, *pointer)).map(Arc::new),
        }
    }
}

impl Sink for Store {
    type Error = NodeError;

    fn allocate(&mut self) -> Result<u64, NodeError> {
        let last = self.0.keys().next_back().copied().unwrap_or(0);
        Ok((1..=self.0.len() as u64 + 1)
            .map(|step| last.wrapping_add(step))
            .find(|at| !self.0.contains_key(at))
            .expect("there is room"))
    }

    fn write(&mut self, pointer: NodePtr, node: Arc<Node>) -> Result<(), NodeError> {
        self.0.insert(pointer.address, node);
        Ok(())
    }
}

/// A node as it comes, and with magic, version and self checksum made right.
pub fn run(data: &[u8]) {
    let _ = Node::parse(data.into(), &Expected::default());
    let mut bytes = data.to_vec();
    bytes.resize(NODE_SIZE, 0);
    // Short inputs lie at both ends, where entries and values are.
    if data.len() < NODE_SIZE {
        let half = data.len() / 2;
        bytes[half..].fill(0);
        bytes[NODE_SIZE - (data.len() - half)..].copy_from_slice(&data[half..]);
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[11] = 0;
    bytes[56..96].fill(0);
    let checksum = xxh3_64(&bytes);
    bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
    let Ok(node) = Node::parse(bytes.clone().into(), &Expected::default()) else { return };
    assert_eq!(node.bytes(), bytes);
    let keys: Vec<Key> =
        node.items().map(|(key, _)| key).chain(node.children().map(|(key, _)| key)).collect();
    assert_eq!(keys.len(), node.len());
    assert!(keys.is_sorted_by(|a, b| a < b));
    let root = node.pointer();
    let items: BTreeMap<Key, Vec<u8>> = node.items().map(|(key, value)| (key, value.to_vec())).collect();
    let mut store = Store(BTreeMap::from([(root.address, Arc::new(node))]));
    let mut tree = Tree::new(ID, Some(root));
    if root.level > 0 {
        // Its children are not there.
        let _ = tree.get(&mut store, keys[0]);
        let _ = tree.insert(&mut store, keys[0], b"value");
        return;
    }
    use_leaf(&mut tree, &mut store, items);
}

/// Reads and changes a tree that is one leaf, against a model.
fn use_leaf(tree: &mut Tree, store: &mut Store, mut model: BTreeMap<Key, Vec<u8>>) {
    let all = |tree: &Tree, store: &mut Store| {
        let mut found = BTreeMap::new();
        tree.scan(store, Key::MIN, Key::MAX, |key, value| {
            found.insert(key, value.to_vec());
            Ok(ControlFlow::Continue(()))
        })
        .expect("all nodes are there");
        found
    };
    assert_eq!(all(tree, store), model);
    let keys: Vec<Key> = model.keys().copied().collect();
    for (index, key) in keys.iter().enumerate() {
        if index % 3 == 0 {
            tree.remove(store, *key).expect("all nodes are there");
            model.remove(key);
        } else if index % 3 == 1 {
            let value = vec![index as u8; index * 37 % 300];
            tree.insert(store, *key, &value).expect("all nodes are there");
            model.insert(*key, value);
        }
    }
    for number in 0..40 {
        let key = Key::new(number * 0x0123_4567, 3, number);
        let value = vec![number as u8; (number * 97 % 4000) as usize];
        tree.insert(store, key, &value).expect("all nodes are there");
        model.insert(key, value);
    }
    assert_eq!(all(tree, store), model);
    let mut out = Store(store.0.clone());
    tree.commit(&mut out, 1, u64::MAX).expect("a commit to memory");
    assert_eq!(all(tree, &mut out), model);
}
