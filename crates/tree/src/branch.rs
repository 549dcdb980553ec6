//! Branches of the open transaction group, and the arena that dirty nodes live in.

use crate::key::{KEY_SIZE, Key};
use crate::node::{ENTRY, FANOUT, HEADER_SIZE, Node, Page};
use crate::pointer::NodePtr;

/// Where a child is: on disk, or in one of the two arenas of the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Child {
    Committed(NodePtr),
    Leaf(u32),
    Branch(u32),
}

/// The latest insertions into a node, as long as each was right after (or right before) the one before it.
///
/// A full node is split where such a run goes on, so that the run's nodes are left full.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Run {
    last: usize,
    ascending: u32,
    descending: u32,
}

impl Run {
    /// So many insertions make a run. Two or three neighbours often come together in otherwise random order.
    const LENGTH: u32 = 8;

    /// Notes an insertion before entry `index`.
    #[inline]
    pub(crate) fn note(&mut self, index: usize) {
        self.ascending = if index == self.last + 1 { self.ascending + 1 } else { 0 };
        self.descending = if index == self.last { self.descending + 1 } else { 0 };
        self.last = index;
    }

    /// Whether an insertion before entry `index` of `count` looks like one of an ascending run.
    pub(crate) fn ascends(self, index: usize, count: usize) -> bool {
        index == count || (index == self.last + 1 && self.ascending >= Self::LENGTH)
    }

    /// Whether an insertion before entry `index` looks like one of a descending run.
    pub(crate) fn descends(self, index: usize) -> bool {
        index == 0 || (index == self.last && self.descending >= Self::LENGTH)
    }
}

/// A branch that may be edited. Never empty except between two steps of one operation.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) level: u8,
    /// Lower bounds of the children's keys, ascending.
    pub(crate) keys: Vec<Key>,
    pub(crate) children: Vec<Child>,
    pub(crate) run: Run,
}

impl Branch {
    pub(crate) fn new(level: u8) -> Self {
        Self {
            level,
            keys: Vec::with_capacity(FANOUT),
            children: Vec::with_capacity(FANOUT),
            run: Run::default(),
        }
    }

    /// An editable copy of a committed branch.
    pub(crate) fn copy_of(node: &Node) -> Self {
        let mut branch = Self::new(node.level());
        for (key, pointer) in node.children() {
            branch.keys.push(key);
            branch.children.push(Child::Committed(pointer));
        }
        branch
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Index of the child that `key` belongs to.
    pub(crate) fn search(&self, key: Key) -> usize {
        self.keys.partition_point(|bound| *bound <= key).saturating_sub(1)
    }

    pub(crate) fn insert(&mut self, index: usize, key: Key, child: Child) {
        self.keys.insert(index, key);
        self.children.insert(index, child);
        self.run.note(index);
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.keys.remove(index);
        self.children.remove(index);
        self.run = Run::default();
    }

    /// Adds the children of `after` to its own.
    pub(crate) fn append(&mut self, mut after: Self) {
        self.keys.append(&mut after.keys);
        self.children.append(&mut after.children);
        self.run = Run::default();
    }

    /// Adds the children of `self` after those of `before`, and becomes that.
    pub(crate) fn prepend(&mut self, mut before: Self) {
        before.keys.append(&mut self.keys);
        before.children.append(&mut self.children);
        before.run = Run::default();
        *self = before;
    }

    /// Writes entry `index` into a page.
    pub(crate) fn put_entry(page: &mut Page, index: usize, key: Key, pointer: &NodePtr) {
        let at = HEADER_SIZE + index * ENTRY;
        page[at..at + KEY_SIZE].copy_from_slice(&key.encode());
        page[at + KEY_SIZE..at + ENTRY].copy_from_slice(&pointer.encode());
    }
}

/// Dirty nodes by number. Numbers of removed ones are used again.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn add(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return id;
        }
        self.slots.push(Some(value));
        // 2^32 nodes of 16 KiB are 64 TiB of memory.
        (self.slots.len() - 1) as u32
    }

    /// Removes and returns a node; its number is free from now on.
    pub(crate) fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        self.lend(id)
    }

    /// Takes a node out while its number stays in use, until `give_back`.
    pub(crate) fn lend(&mut self, id: u32) -> T {
        self.slots[id as usize].take().expect(PRESENT)
    }

    pub(crate) fn give_back(&mut self, id: u32, value: T) {
        self.slots[id as usize] = Some(value);
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}

/// Why a number always finds its node: exactly one `Child` (or the root) holds it, and is removed or
/// overwritten by the same operation that removes the node. Nodes are lent within one operation only: a commit
/// visits each once and gives all back if it fails; two neighbours are never the same node.
const PRESENT: &str = "a child's number is in use as long as the child is reachable";

impl<T> std::ops::Index<u32> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: u32) -> &T {
        self.slots[id as usize].as_ref().expect(PRESENT)
    }
}

impl<T> std::ops::IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_mut().expect(PRESENT)
    }
}
