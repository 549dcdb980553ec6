//! Node bytes that are not what they should be: refused with the right words, or harmless.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Fault, POOL, Random, SESSION, Store, TREE, reachable};
use proptest::prelude::*;
use tree::{
    Expected, HEADER_SIZE, Key, NODE_SIZE, Node, NodeError, NodePtr, POINTER_SIZE, Source, Tree, Visitor,
    walk,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A store with a committed tree of one branch and some dozen leaves.
fn sample() -> (Store, NodePtr) {
    let mut random = Random(21);
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in 0..1500 {
        let length = if number % 7 == 0 { 4000 } else { random.below(100) };
        tree.insert(&mut store, Key::new(number % 3, 1, number * 16), &vec![number as u8; length as usize])
            .unwrap();
    }
    for number in 0..700 {
        // Garbage in heaps, so that commits have compacted some.
        tree.remove(&mut store, Key::new(number % 3, 1, number * 16)).unwrap();
    }
    let root = tree.commit(&mut store, SESSION, 9).unwrap().unwrap();
    assert!(root.level >= 1);
    (store, root)
}

/// Makes the self checksum right, and returns the pointer that fits the bytes.
fn reseal(bytes: &mut [u8]) -> NodePtr {
    bytes[56..64].fill(0);
    let own = xxh3_64(bytes);
    bytes[56..64].copy_from_slice(&own.to_le_bytes());
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    NodePtr {
        address: number(48),
        birth: number(40),
        checksum: xxh3_128(bytes).to_le_bytes(),
        level: bytes[10],
    }
}

fn parse(bytes: &[u8], pointer: NodePtr) -> Result<Node, NodeError> {
    Node::parse(bytes.into(), &Expected::new(POOL, pointer))
}

#[test]
fn damage_is_named() {
    let (store, root) = sample();
    let leaf = store.nodes.values().find(|node| node[10] == 0 && node[12] > 20).unwrap();
    let branch = &store.nodes[&root.address];
    let heap = NODE_SIZE - usize::from(u16::from_le_bytes([leaf[14], leaf[15]]));
    let slots_end = HEADER_SIZE + usize::from(u16::from_le_bytes([leaf[12], leaf[13]])) * 21;
    assert!(slots_end < heap);
    let entry = HEADER_SIZE + 57;
    // Node, offset, xor, and the field that must be named.
    let cases: &[(&[u8], usize, u8, &str)] = &[
        (leaf, 0, 1, "magic"),
        (leaf, 8, 2, "format version"),
        (leaf, 11, 1, "reserved byte 11"),
        (leaf, 13, 0x80, "item count"),
        (leaf, 14, 1, "unused byte|sum of value lengths"),
        (leaf, 15, 0x80, "heap length"),
        (leaf, 64, 1, "unused byte 64"),
        (leaf, 95, 1, "unused byte 95"),
        (leaf, slots_end, 1, "unused byte"),
        (leaf, heap - 1, 1, "unused byte"),
        (leaf, HEADER_SIZE + 21 + 7, 0x80, "key 2"),
        (leaf, HEADER_SIZE + 18, 0x80, "range of value 0"),
        (leaf, HEADER_SIZE + 20, 0x40, "length of value 0"),
        (leaf, HEADER_SIZE + 19, 1, "sum of value lengths|range of value 0|length of value 0"),
        (branch, 14, 1, "heap length"),
        (branch, entry + 7, 0x80, "key 2"),
        (branch, entry + 17 + 8, 0x10, "birth of child 1"),
        (branch, entry + 17 + 8, 9, "child 1: birth in the pointer"),
        (branch, entry + 17 + 32, 1, "level of child 1"),
        (branch, entry + 17 + 32, 0x80, "child 1: level in the pointer"),
        (branch, entry + 17 + 39, 1, "child 1: reserved byte of the pointer"),
    ];
    for &(node, offset, xor, field) in cases {
        let mut bytes = node.to_vec();
        bytes[offset] ^= xor;
        let pointer = reseal(&mut bytes);
        let error = parse(&bytes, pointer).expect_err(field);
        assert!(field.split('|').any(|field| error.field.contains(field)), "{error}, but damaged: {field}");
        assert_eq!(error.address, pointer.address);
    }

    let good = reseal(&mut leaf.to_vec());
    let refused = |bytes: &[u8], expected: Expected, field: &str| {
        let error = Node::parse(bytes.into(), &expected).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    };
    let expected = Expected::new(POOL, good);
    let with = |pointer| Expected { pointer: Some(pointer), ..expected };
    refused(&leaf[1..], expected, "length of the node");
    refused(&[], expected, "length of the node");
    refused(leaf, Expected { pool: Some(1), ..expected }, "pool id");
    refused(leaf, Expected { tree: Some(1), ..expected }, "tree id");
    refused(leaf, with(NodePtr { level: 1, ..good }), "level");
    refused(leaf, with(NodePtr { birth: 8, ..good }), "birth");
    refused(leaf, with(NodePtr { address: 3, ..good }), "own address");
    refused(leaf, with(NodePtr { checksum: [0; 16], ..good }), "checksum");
    let mut bytes = leaf.to_vec();
    bytes[NODE_SIZE - 1] ^= 1;
    refused(&bytes, Expected::default(), "self checksum");
    refused(&bytes, expected, "checksum");

    // Without any damage, with and without a parent.
    let node = Node::parse(leaf.clone(), &Expected { tree: Some(TREE.tree), ..expected }).unwrap();
    assert_eq!(node.pointer(), good);
    assert_eq!((node.header().session, node.header().birth), (SESSION, 9));
    assert_eq!(Node::parse(leaf.clone(), &Expected::default()).unwrap(), node);
    assert_eq!(node.into_bytes(), *leaf);
}

/// The format, byte by byte: what is written today must be readable forever.
#[test]
fn nodes_are_laid_out_as_documented() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    tree.insert(&mut store, Key::new(0x0102, 3, 0x0405), b"later").unwrap();
    tree.insert(&mut store, Key::new(0x0102, 3, 0x0404), b"first!").unwrap();
    let root = tree.commit(&mut store, SESSION, 0x99).unwrap().unwrap();
    let mut leaf = vec![0; NODE_SIZE];
    let mut put = |at: usize, bytes: &[u8]| leaf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"CofrNode");
    put(8, &[1, 0, 0, 0, 2, 0, 11, 0]);
    put(16, &POOL.to_le_bytes());
    put(24, &TREE.tree.to_le_bytes());
    put(32, &SESSION.to_le_bytes());
    put(40, &[0x99]);
    put(48, &root.address.to_le_bytes());
    put(96, &[2, 1, 0, 0, 0, 0, 0, 0, 3, 4, 4, 0, 0, 0, 0, 0, 0, 0xf5, 0x3f, 6, 0]);
    put(117, &[2, 1, 0, 0, 0, 0, 0, 0, 3, 5, 4, 0, 0, 0, 0, 0, 0, 0xfb, 0x3f, 5, 0]);
    put(16373, b"first!later");
    assert_eq!(reseal(&mut leaf), root);
    assert!(*store.nodes[&root.address] == *leaf);

    let mut pointer = [0; POINTER_SIZE];
    pointer[..8].copy_from_slice(&root.address.to_le_bytes());
    pointer[8] = 0x99;
    pointer[16..32].copy_from_slice(&root.checksum);
    assert_eq!(root.encode(), pointer);

    // A root over two leaves.
    for number in 0..5 {
        tree.insert(&mut store, Key::new(7, 3, number), &[0; 4000]).unwrap();
    }
    let root = tree.commit(&mut store, SESSION, 0x9a).unwrap().unwrap();
    let branch = store.node(&root).unwrap();
    let children: Vec<_> = branch.children().collect();
    assert_eq!((branch.level(), children.len()), (1, 2));
    let mut wanted = store.nodes[&children[0].1.address][..HEADER_SIZE].to_vec();
    wanted.resize(NODE_SIZE, 0);
    wanted[10..16].copy_from_slice(&[1, 0, 2, 0, 0, 0]);
    wanted[48..56].copy_from_slice(&root.address.to_le_bytes());
    for (index, (key, pointer)) in children.iter().enumerate() {
        let at = HEADER_SIZE + index * 57;
        wanted[at..at + 17].copy_from_slice(&key.encode());
        wanted[at + 17..at + 57].copy_from_slice(&pointer.encode());
    }
    assert_eq!(reseal(&mut wanted), root);
    assert!(*branch.bytes() == *wanted);
}

/// Two values share bytes and others are nobody's, while all lengths add up.
#[test]
fn overlapping_values_are_refused() {
    let (mut store, mut tree) = (Store::default(), Tree::new(TREE, None));
    for number in 0..3 {
        tree.insert(&mut store, Key::new(1, 1, number), &[1; 100]).unwrap();
    }
    let root = tree.commit(&mut store, SESSION, 9).unwrap().unwrap();
    let mut bytes = store.nodes[&root.address].to_vec();
    let offset = u16::from_le_bytes([bytes[HEADER_SIZE + 17], bytes[HEADER_SIZE + 18]]);
    bytes[HEADER_SIZE + 17..HEADER_SIZE + 19].copy_from_slice(&(offset - 1).to_le_bytes());
    let pointer = reseal(&mut bytes);
    assert_eq!(parse(&bytes, pointer).unwrap_err().field, "bytes of the heap that values cover");
}

/// Gives one node whatever the pointer asks for, so that damage gets past the parent's checksum.
struct Forged {
    store: Store,
    node: Arc<Node>,
}

impl Source for Forged {
    type Error = Fault;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, Fault> {
        if pointer.address == self.node.header().address {
            return Ok(Arc::clone(&self.node));
        }
        self.store.node(pointer)
    }
}

/// Uses every operation on a tree that has a forged node; errors are fine.
fn use_forged(forged: &mut Forged, root: NodePtr, seed: u64) {
    struct Nothing;
    impl Visitor<Fault> for Nothing {}

    let mut random = Random(seed);
    let mut tree = Tree::new(TREE, Some(root));
    let mut keys: Vec<Key> = forged.node.items().map(|(key, _)| key).collect();
    keys.extend(forged.node.children().map(|(key, _)| key));
    keys.extend((0..20).map(|_| Key::new(random.below(4), 1, random.below(24_000))));
    let _ = walk(Some(root), 0, forged, &mut Nothing);
    let _ = tree.scan(forged, Key::MIN, Key::MAX, |_, _| Ok(ControlFlow::Continue(())));
    let _ = tree.scan_back(forged, Key::MIN, Key::MAX, |_, _| Ok(ControlFlow::Continue(())));
    for key in keys {
        let _ = tree.get(forged, key);
        let _ = tree.next(forged, key);
        let _ = tree.last_before(forged, key);
        let _ = match random.below(3) {
            0 => tree.insert(forged, key, &vec![1; random.below(4001) as usize]),
            1 => tree.insert(forged, key.next().unwrap_or(key), &[]),
            _ => tree.remove(forged, key),
        };
    }
    let _ = tree.scan(forged, Key::MIN, Key::MAX, |_, _| Ok(ControlFlow::Continue(())));
    /// Takes anything.
    struct Void(u64);
    impl tree::Sink for Void {
        type Error = Fault;
        fn allocate(&mut self) -> Result<u64, Fault> {
            self.0 += 1;
            Ok(self.0)
        }
        fn write(&mut self, _: NodePtr, _: Arc<Node>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let _ = tree.commit(&mut Void(1 << 60), SESSION, 1 << 60);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    /// Bytes changed at random, checksums made right again.
    #[test]
    fn mutated_nodes_are_refused_or_safe(
        which: prop::sample::Index,
        changes in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<u8>()), 1..3),
        seed: u64,
    ) {
        thread_local!(static SAMPLE: (BTreeMap<u64, Box<[u8]>>, NodePtr) = {
            let (store, root) = sample();
            (store.nodes, root)
        });
        SAMPLE.with(|(nodes, root)| {
            let address = *nodes.keys().nth(which.index(nodes.len())).unwrap();
            let mut bytes = nodes[&address].to_vec();
            for (area, at, value) in &changes {
                // Mostly where it matters: header, first entries, anywhere.
                let at = match area {
                    0 => 8 + at.index(8),
                    1 => HEADER_SIZE + at.index(2 * 57),
                    2 => HEADER_SIZE + at.index(2000),
                    _ => at.index(NODE_SIZE),
                };
                bytes[at] ^= 1 << (value % 8);
            }
            let pointer = reseal(&mut bytes);
            let Ok(node) = parse(&bytes, pointer) else { return Ok(()) };
            prop_assert_eq!(node.items().count() + node.children().count(), node.len());
            prop_assert_eq!(node.bytes(), &bytes[..]);
            if pointer.address == address {
                let store = Store { nodes: nodes.clone(), ..Store::default() };
                let mut forged = Forged { store, node: Arc::new(node) };
                let root = if root.address == address { pointer } else { *root };
                use_forged(&mut forged, root, seed);
            }
            Ok(())
        })?;
    }

    /// Bytes that were never a node.
    #[test]
    fn garbage_is_refused(length in 0..20_000_usize, seed: u64, whole: bool) {
        let mut random = Random(seed);
        let mut bytes: Vec<u8> = (0..if whole { NODE_SIZE } else { length }).map(|_| random.next() as u8).collect();
        if whole {
            bytes[..10].copy_from_slice(b"CofrNode\x01\x00");
            bytes[11] = 0;
            bytes[10] %= 3;
            bytes[13] %= 4;
            bytes[64..96].fill(0);
            reseal(&mut bytes);
        }
        prop_assert!(Node::parse(bytes.into(), &Expected::default()).is_err());
    }

    #[test]
    fn pointers_are_refused_or_come_back(bytes in prop::collection::vec(any::<u8>(), POINTER_SIZE), mask: u64) {
        let mut bytes: [u8; POINTER_SIZE] = bytes.try_into().unwrap();
        for (at, byte) in bytes.iter_mut().enumerate() {
            if mask >> at & 1 == 1 {
                *byte = 0;
            }
        }
        if let Ok(pointer) = NodePtr::decode(&bytes) {
            prop_assert_eq!(pointer.encode(), bytes);
        }
        if let Ok(root) = NodePtr::decode_root(&bytes) {
            prop_assert_eq!(NodePtr::encode_root(root.as_ref()), bytes);
        }
    }
}

/// A source that returns another node than asked for is found out.
#[test]
fn a_source_that_lies_is_found_out() {
    struct Liar(Store, NodePtr);
    impl Source for Liar {
        type Error = Fault;
        fn node(&mut self, _: &NodePtr) -> Result<Arc<Node>, Fault> {
            self.0.node(&self.1)
        }
    }
    let (mut store, root) = sample();
    let all = reachable(&mut store, Some(root));
    let other = *all.values().find(|pointer| pointer.level == root.level - 1).unwrap();
    let tree = Tree::new(TREE, Some(other));
    let error = tree.get(&mut Liar(store, root), Key::MIN).unwrap_err();
    assert!(matches!(error, Fault::Node(error) if error.field == "what the node source returned"));
}
