//! Times the tree in memory on one core: `cargo run --release -p tree --example speed [ITEMS]`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tree::{Expected, Key, NODE_SIZE, Node, NodeError, NodePtr, Sink, Source, Tree, TreeId};

/// All committed nodes, parsed; the address is the index, so that next to nothing but the tree is timed.
#[derive(Default)]
struct Memory {
    nodes: Vec<Arc<Node>>,
}

impl Source for Memory {
    type Error = NodeError;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, NodeError> {
        Ok(Arc::clone(&self.nodes[pointer.address as usize]))
    }
}

impl Sink for Memory {
    type Error = NodeError;

    fn allocate(&mut self) -> Result<u64, NodeError> {
        Ok(self.nodes.len() as u64)
    }

    fn write(&mut self, _: NodePtr, node: Arc<Node>) -> Result<(), NodeError> {
        self.nodes.push(node);
        Ok(())
    }
}

fn report(what: &str, time: Duration, count: usize, unit: &str) {
    println!("{what:<52} {:>8.0} ns a {unit}", time.as_nanos() as f64 / count as f64);
}

/// The `number`th of the numbers below `1 << bits` in a random order, with few repeats (splitmix64).
fn scattered(number: u64, bits: u32) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> (64 - bits)
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
        store.nodes.iter().take(2000).map(|node| (node.pointer(), node.bytes().into())).collect();
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
