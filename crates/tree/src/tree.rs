//! The tree handle: lookups, scans, commit.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::branch::{Arena, Branch, Child};
use crate::key::Key;
use crate::leaf::Leaf;
use crate::node::{Header, Node, zero_page};
use crate::pointer::NodePtr;
use crate::store::{Sink, Source, fetch};
use crate::value::Value;

/// Which tree of which pool; written into every node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TreeId {
    /// Pool id.
    pub pool: u64,
    /// Tree id, unique within the pool.
    pub tree: u64,
}

/// A tree: its committed root, and what the open transaction group has changed since.
///
/// Every method that takes a [`Source`] fails with its error if a node that is needed can't be had. The tree then
/// holds what it held, though more of it may be dirty, and may be used on.
#[derive(Debug)]
pub struct Tree {
    pub(crate) identity: TreeId,
    pub(crate) committed: Option<NodePtr>,
    /// The root as of now; `None` for an empty tree.
    pub(crate) root: Option<Child>,
    pub(crate) leaves: Arena<Leaf>,
    pub(crate) branches: Arena<Branch>,
    /// Committed nodes that were replaced or emptied and not yet handed out.
    pub(crate) freed: Vec<NodePtr>,
    /// How many of `freed` belong to transaction groups that are committed.
    freed_for_good: usize,
    /// Something changed since the last commit, be it only that the tree was emptied.
    pub(crate) dirty: bool,
    /// Scratch of `edit`: the dirty branches from the root down, each with the index of the child taken.
    pub(crate) path: Vec<(u32, usize)>,
}

impl Tree {
    /// The tree with the committed root `root`; `None` is an empty tree.
    pub fn new(identity: TreeId, root: Option<NodePtr>) -> Self {
        Self {
            identity,
            committed: root,
            root: root.map(Child::Committed),
            leaves: Arena::new(),
            branches: Arena::new(),
            freed: Vec::new(),
            freed_for_good: 0,
            dirty: false,
            path: Vec::new(),
        }
    }

    /// Which tree this is.
    pub fn identity(&self) -> TreeId {
        self.identity
    }

    /// The root as of the last commit.
    pub fn root(&self) -> Option<NodePtr> {
        self.committed
    }

    /// Whether the tree holds no item, uncommitted changes included.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether a commit has anything to do.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// How many nodes a commit would write now: the number of addresses it will ask for.
    pub fn dirty_nodes(&self) -> usize {
        self.leaves.len() + self.branches.len()
    }

    /// The value of `key`.
    pub fn get<S: Source>(&self, source: &mut S, key: Key) -> Result<Option<Value>, S::Error> {
        self.get_with(source, key, |value| Value::from(value))
    }

    /// What `f` makes of the value of `key`; not called if there is none.
    pub fn get_with<S: Source, T>(
        &self,
        source: &mut S,
        key: Key,
        f: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, S::Error> {
        let Some(mut child) = self.root else { return Ok(None) };
        loop {
            match child {
                Child::Branch(id) => {
                    let branch = &self.branches[id];
                    child = branch.children[branch.search(key)];
                }
                Child::Leaf(id) => {
                    let leaf = &self.leaves[id];
                    return Ok(leaf.search(key).ok().map(|index| f(leaf.value(index))));
                }
                Child::Committed(pointer) => {
                    let leaf = descend(source, pointer, key)?;
                    return Ok(leaf.search_item(key).ok().map(|index| f(leaf.item(index).1)));
                }
            }
        }
    }

    /// The first item whose key is `at_or_after` or more.
    pub fn next<S: Source>(
        &self,
        source: &mut S,
        at_or_after: Key,
    ) -> Result<Option<(Key, Value)>, S::Error> {
        let mut found = None;
        self.scan(source, at_or_after, Key::MAX, |key, value| {
            found = Some((key, Value::from(value)));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The last item whose key is less than `before`.
    pub fn last_before<S: Source>(
        &self,
        source: &mut S,
        before: Key,
    ) -> Result<Option<(Key, Value)>, S::Error> {
        let Some(to) = before.previous() else { return Ok(None) };
        let mut found = None;
        self.scan_back(source, Key::MIN, to, |key, value| {
            found = Some((key, Value::from(value)));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Calls `f` for every item from `from` to `to`, both included, in ascending order, until it breaks or fails.
    pub fn scan<S: Source>(
        &self,
        source: &mut S,
        from: Key,
        to: Key,
        mut f: impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, S::Error>,
    ) -> Result<(), S::Error> {
        if let Some(root) = self.root
            && from <= to
        {
            let _ = self.scan_child(source, root, Range { from, to, back: false }, &mut f)?;
        }
        Ok(())
    }

    /// As [`Tree::scan`], in descending order.
    pub fn scan_back<S: Source>(
        &self,
        source: &mut S,
        from: Key,
        to: Key,
        mut f: impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, S::Error>,
    ) -> Result<(), S::Error> {
        if let Some(root) = self.root
            && from <= to
        {
            let _ = self.scan_child(source, root, Range { from, to, back: true }, &mut f)?;
        }
        Ok(())
    }

    /// Scans one subtree. Recursion is bounded by the level of the root.
    fn scan_child<S: Source>(
        &self,
        source: &mut S,
        child: Child,
        range: Range,
        f: &mut impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, S::Error>,
    ) -> Result<ControlFlow<()>, S::Error> {
        match child {
            Child::Branch(id) => {
                let branch = &self.branches[id];
                let (first, last) = (branch.search(range.from), branch.search(range.to));
                for index in range.indices(first, last + 1) {
                    if self.scan_child(source, branch.children[index], range, f)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Child::Leaf(id) => {
                let leaf = &self.leaves[id];
                let first = leaf.search(range.from).unwrap_or_else(|at| at);
                let end = leaf.search(range.to).map_or_else(|at| at, |at| at + 1);
                for index in range.indices(first, end) {
                    if f(leaf.key(index), leaf.value(index))?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Child::Committed(pointer) => return scan_committed(source, pointer, range, f),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Writes every dirty node, children first, as of transaction group `txg` and session `session`; returns the
    /// new root. A clean tree returns its root without a call.
    ///
    /// Addresses are asked for in the order of the nodes' keys, one by one, each followed by its write.
    /// `txg` must not be less than that of any commit before, and more if the root before is kept: `dropped`
    /// tells two roots of a tree apart by their births.
    ///
    /// # Errors
    /// The sink's. The tree is then as dirty as before the call and may be changed, committed again or
    /// abandoned; nothing refers to the addresses that the sink gave out during the call.
    pub fn commit<K: Sink>(
        &mut self,
        sink: &mut K,
        session: u64,
        txg: u64,
    ) -> Result<Option<NodePtr>, K::Error> {
        if !self.dirty {
            return Ok(self.committed);
        }
        let mut sealed = Vec::with_capacity(self.leaves.len());
        let stamp = Stamp { session, txg };
        let root = match self.root.map(|root| self.write_child(root, sink, stamp, &mut sealed)).transpose() {
            Ok(root) => root,
            Err(error) => {
                for (id, node) in sealed {
                    self.leaves.give_back(id, Leaf::unseal(node));
                }
                return Err(error);
            }
        };
        self.committed = root;
        self.freed_for_good = self.freed.len();
        self.reset();
        Ok(root)
    }

    /// Writes one subtree. Leaves give their pages to the nodes; branches stay as they are until all is written.
    fn write_child<K: Sink>(
        &mut self,
        child: Child,
        sink: &mut K,
        stamp: Stamp,
        sealed: &mut Vec<(u32, Arc<Node>)>,
    ) -> Result<NodePtr, K::Error> {
        let TreeId { pool, tree } = self.identity;
        let header = |level, count: usize, heap: usize, address| Header {
            level,
            count: count as u16,
            heap: heap as u16,
            pool,
            tree,
            session: stamp.session,
            birth: stamp.txg,
            address,
        };
        match child {
            Child::Committed(pointer) => Ok(pointer),
            Child::Leaf(id) => {
                let address = sink.allocate()?;
                let leaf = self.leaves.lend(id);
                let count = leaf.len();
                let (page, heap) = leaf.into_page();
                let (pointer, node) = Node::seal(page, header(0, count, heap, address));
                sealed.push((id, Arc::clone(&node)));
                sink.write(pointer, node)?;
                Ok(pointer)
            }
            Child::Branch(id) => {
                let mut page = zero_page();
                let count = self.branches[id].len();
                for index in 0..count {
                    let child = self.branches[id].children[index];
                    let pointer = self.write_child(child, sink, stamp, sealed)?;
                    Branch::put_entry(&mut page, index, self.branches[id].keys[index], &pointer);
                }
                let address = sink.allocate()?;
                let (pointer, node) = Node::seal(page, header(self.branches[id].level, count, 0, address));
                sink.write(pointer, node)?;
                Ok(pointer)
            }
        }
    }

    /// Committed nodes that are no longer part of the tree, each exactly once: call it after a commit.
    ///
    /// Between commits it also returns what the open transaction group has replaced so far, and the caller must
    /// forget these if it then abandons the group.
    pub fn take_freed(&mut self) -> Vec<NodePtr> {
        self.freed_for_good = 0;
        std::mem::take(&mut self.freed)
    }

    /// Drops all changes since the last commit.
    pub fn abandon(&mut self) {
        self.freed.truncate(self.freed_for_good);
        self.reset();
    }

    /// Makes the tree clean at its committed root.
    fn reset(&mut self) {
        self.root = self.committed.map(Child::Committed);
        self.leaves.clear();
        self.branches.clear();
        self.dirty = false;
    }
}

/// What a commit writes into every node.
#[derive(Clone, Copy)]
struct Stamp {
    session: u64,
    txg: u64,
}

/// The keys of a scan, both ends included, and its direction.
#[derive(Clone, Copy)]
struct Range {
    from: Key,
    to: Key,
    back: bool,
}

impl Range {
    /// `first..end` in the direction of the scan.
    fn indices(self, first: usize, end: usize) -> impl Iterator<Item = usize> {
        let back = self.back;
        (first..end).map(move |index| if back { first + end - 1 - index } else { index })
    }
}

/// The committed leaf that `key` belongs to.
pub(crate) fn descend<S: Source>(
    source: &mut S,
    mut pointer: NodePtr,
    key: Key,
) -> Result<Arc<Node>, S::Error> {
    loop {
        let node = fetch(source, &pointer)?;
        if node.level() == 0 {
            return Ok(node);
        }
        pointer = node.child(node.search_child(key)).1;
    }
}

fn scan_committed<S: Source>(
    source: &mut S,
    pointer: NodePtr,
    range: Range,
    f: &mut impl FnMut(Key, &[u8]) -> Result<ControlFlow<()>, S::Error>,
) -> Result<ControlFlow<()>, S::Error> {
    let node = fetch(source, &pointer)?;
    if node.level() == 0 {
        let first = node.search_item(range.from).unwrap_or_else(|at| at);
        let end = node.search_item(range.to).map_or_else(|at| at, |at| at + 1);
        for index in range.indices(first, end) {
            let (key, value) = node.item(index);
            if f(key, value)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    } else {
        let (first, last) = (node.search_child(range.from), node.search_child(range.to));
        for index in range.indices(first, last + 1) {
            if scan_committed(source, node.child(index).1, range, f)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}
