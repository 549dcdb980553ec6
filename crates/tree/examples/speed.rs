//! Times the tree in memory on one core: `cargo run --release -p tree --example speed [ITEMS]`.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tree::{Expected, Key, NODE_SIZE, Node, NodeError, NodePtr, Sink, Source, Tree, TreeId};

/// All committed nodes, parsed.
#[derive(Default)]
struct Memory {
    nodes: HashMap<u64, Arc<Node>>,
    next: u64,
}

impl Source for Memory {
    type Error = NodeError;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, NodeError> {
        Ok(Arc::clone(&self.nodes[&pointer.address]))
    }
}

impl Sink for Memory {
    type Error = NodeError;

    fn allocate(&mut self) -> Result<u64, NodeError> {
        self.next += NODE_SIZE as u64;
        Ok(self.next)
    }

    fn write(&mut self, pointer: NodePtr, node: Arc<Node>) -> Result<(), NodeError> {
        self.nodes.insert(pointer.address, node);
        Ok(())
    }
}

fn report(what: &str, time: Duration, count: usize, unit: &str) {
    println!("{what:<52} {:>8.0} ns a {unit}", time.as_nanos() as f64 / count as f64);
}

/// A permutation of 0..2^20 and beyond that has no order (odd multiplier modulo a power of two).
fn scattered(number: u64, bits: u32) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)
}

fn main() -> Result<(), NodeError> {
    let items: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let bits = items.next_power_of_two().trailing_zeros() + 20;
    let value = [0x5a; 48];
    let identity = TreeId { pool: 1, tree: 2 };
    let key = |number: u64| Key::new(number >> 16, 1, number & 0xffff);
    let full =
        |nodes: usize| items as f64 * (21 + value.len()) as f64 / (nodes as f64 * NODE_SIZE as f64) * 100.0;

    let mut store = Memory::default();
    let mut tree = Tree::new(identity, None);
    let start = Instant::now();
    for number in 0..items {
        tree.insert(&mut store, key(number), &value)?;
    }
    report("insert, ascending", start.elapsed(), items as usize, "item");
    println!("{:<52} {:>7.1} %", "  nodes full", full(tree.dirty_nodes()));

    let count = tree.dirty_nodes();
    let start = Instant::now();
    tree.commit(&mut store, 1, 10)?;
    report("commit", start.elapsed(), count, "node");

    let start = Instant::now();
    let mut seen = 0;
    tree.scan(&mut store, Key::MIN, Key::MAX, |_, value| {
        seen += value.len();
        Ok(ControlFlow::Continue(()))
    })?;
    report("scan, committed", start.elapsed(), items as usize, "item");
    assert_eq!(seen, items as usize * value.len());

    let start = Instant::now();
    for number in 0..items {
        tree.remove(&mut store, key(number))?;
    }
    report("remove, ascending, committed before", start.elapsed(), items as usize, "item");
    assert!(tree.is_empty());

    let mut tree = Tree::new(identity, None);
    let start = Instant::now();
    for number in 0..items {
        tree.insert(&mut store, key(scattered(number, bits)), &value)?;
    }
    report("insert, random", start.elapsed(), items as usize, "item");
    println!("{:<52} {:>7.1} %", "  nodes full", full(tree.dirty_nodes()));
    let start = Instant::now();
    let again = items.min(200_000);
    for number in items..items + again {
        tree.insert(&mut store, key(scattered(number, bits)), &value)?;
    }
    report("insert, random, into the full tree", start.elapsed(), again as usize, "item");

    let start = Instant::now();
    for number in 0..items {
        tree.get_with(&mut store, key(scattered(number * 7 % items, bits)), |_| ())?;
    }
    report("get, random, dirty", start.elapsed(), items as usize, "item");
    let count = tree.dirty_nodes();
    let start = Instant::now();
    tree.commit(&mut store, 1, 20)?;
    report("commit", start.elapsed(), count, "node");
    let start = Instant::now();
    for number in 0..items {
        let found = tree.get(&mut store, key(scattered(number * 7 % items, bits)))?;
        assert!(found.is_some());
    }
    report("get, random, committed", start.elapsed(), items as usize, "item");

    let start = Instant::now();
    let touched = items.min(1000);
    for number in 0..touched {
        tree.insert(&mut store, key(scattered(number * 991 % items, bits)), &value)?;
    }
    report("replace, random, each in another committed leaf", start.elapsed(), touched as usize, "item");
    tree.commit(&mut store, 1, 30)?;

    let nodes: Vec<_> =
        store.nodes.values().take(2000).map(|node| (node.pointer(), node.bytes().into())).collect();
    let (count, start) = (nodes.len(), Instant::now());
    for (pointer, bytes) in nodes {
        Node::parse(bytes, &Expected::new(1, pointer))?;
    }
    report("parse", start.elapsed(), count, "node");

    let start = Instant::now();
    for number in 0..items {
        tree.remove(&mut store, key(scattered(number, bits)))?;
    }
    report("remove, random", start.elapsed(), items as usize, "item");
    println!(
        "{:<52} {:>7.1} %",
        "  nodes full afterwards",
        full(tree.dirty_nodes()) * again as f64 / items as f64
    );
    Ok(())
}
