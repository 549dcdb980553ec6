//! A node store in memory that never overwrites, and what several tests do with it.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use tree::{Expected, Key, Node, NodeError, NodePtr, Sink, Source, Tree, TreeId};

pub const POOL: u64 = 0x1122_3344_5566_7788;
pub const TREE: TreeId = TreeId { pool: POOL, tree: 7 };
pub const SESSION: u64 = 0xfeed;

#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Node(NodeError),
    Missing(u64),
    /// An error that was asked for.
    Injected,
}

impl From<NodeError> for Fault {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

/// Committed nodes by address, as bytes: every read parses them anew.
#[derive(Default)]
pub struct Store {
    pub nodes: BTreeMap<u64, Box<[u8]>>,
    pub next: u64,
    /// So many calls to the sink succeed before one fails.
    pub fail_after: Option<usize>,
    /// Reads of these addresses fail.
    pub unreadable: BTreeSet<u64>,
    pub reads: usize,
    pub writes: usize,
}

impl Store {
    pub fn step(&mut self) -> Result<(), Fault> {
        match &mut self.fail_after {
            Some(0) => Err(Fault::Injected),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Source for Store {
    type Error = Fault;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, Fault> {
        self.reads += 1;
        if self.unreadable.contains(&pointer.address) {
            return Err(Fault::Injected);
        }
        let bytes = self.nodes.get(&pointer.address).ok_or(Fault::Missing(pointer.address))?;
        Ok(Arc::new(Node::parse(bytes.clone(), &Expected::new(POOL, *pointer))?))
    }
}

impl Sink for Store {
    type Error = Fault;

    fn allocate(&mut self) -> Result<u64, Fault> {
        self.step()?;
        self.next += 1;
        Ok(self.next * 0x4000)
    }

    fn write(&mut self, pointer: NodePtr, node: Arc<Node>) -> Result<(), Fault> {
        self.step()?;
        self.writes += 1;
        assert_eq!(pointer.address, self.next * 0x4000, "a node is written where it was allocated");
        let parsed = Node::parse(node.bytes().into(), &Expected::new(POOL, pointer)).unwrap();
        assert_eq!(parsed, *node);
        for (_, child) in node.children() {
            assert!(self.nodes.contains_key(&child.address), "children come before their parents");
        }
        let before = self.nodes.insert(pointer.address, node.bytes().into());
        assert!(before.is_none(), "a committed node is never rewritten");
        Ok(())
    }
}

/// All nodes under a committed root. Checks that keys lie within the bounds that the parents give.
pub fn reachable(store: &mut Store, root: Option<NodePtr>) -> BTreeMap<u64, NodePtr> {
    fn visit(
        store: &mut Store,
        pointer: NodePtr,
        low: Key,
        high: Option<Key>,
        all: &mut BTreeMap<u64, NodePtr>,
    ) {
        assert!(all.insert(pointer.address, pointer).is_none(), "a node has one parent");
        let node = store.node(&pointer).unwrap();
        let inside = |key: Key| assert!(key >= low && high.is_none_or(|high| key < high));
        node.items().for_each(|(key, _)| inside(key));
        let children: Vec<_> = node.children().collect();
        for (index, &(key, child)) in children.iter().enumerate() {
            inside(key);
            let next = children.get(index + 1).map(|next| next.0).or(high);
            visit(store, child, key, next, all);
        }
    }
    let mut all = BTreeMap::new();
    if let Some(root) = root {
        visit(store, root, Key::MIN, None, &mut all);
    }
    all
}

/// All items of a tree.
pub fn items(store: &mut Store, tree: &Tree) -> Vec<(Key, Vec<u8>)> {
    let mut all = Vec::new();
    tree.scan(store, Key::MIN, Key::MAX, |key, value| {
        all.push((key, value.to_vec()));
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    all
}

/// The same from a model.
pub fn model_items(model: &BTreeMap<Key, Vec<u8>>) -> Vec<(Key, Vec<u8>)> {
    model.iter().map(|(key, value)| (*key, value.clone())).collect()
}

/// A small generator of numbers that look random (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
