//! Insertion, removal, splits and merges.
//!
//! An edit goes down from the root to a leaf and replaces each committed node on its way by a dirty copy; the
//! path taken is kept. Splits and merges then go back up along that path.

use std::sync::Arc;

use crate::branch::{Branch, Child, Run};
use crate::error::NodeError;
use crate::key::Key;
use crate::leaf::Leaf;
use crate::node::{CAPACITY, FANOUT, MAX_VALUE, Node, SLOT};
use crate::store::{Source, fetch};
use crate::tree::{Tree, descend};
use crate::value::Value;

/// What is to be done with the key that a leaf is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intent {
    Insert,
    Remove,
}

/// A sibling that a node can be merged with.
enum Sibling<T> {
    Dirty(T),
    Committed(Arc<Node>),
}

impl Tree {
    /// Sets the value of `key`; returns the value it had.
    ///
    /// # Errors
    /// The source's, or the value is longer than [`MAX_VALUE`].
    pub fn insert<S: Source>(
        &mut self,
        source: &mut S,
        key: Key,
        value: &[u8],
    ) -> Result<Option<Value>, S::Error> {
        if value.len() > MAX_VALUE {
            let wanted = format_args!("at most {MAX_VALUE}");
            return Err(NodeError::new(0, "length of the value to insert", value.len(), wanted).into());
        }
        let Some(id) = self.open_leaf(source, key, Intent::Insert)? else {
            let mut leaf = Leaf::new();
            let room = leaf.insert(0, key, value);
            debug_assert!(room, "an empty leaf takes any item");
            self.root = Some(Child::Leaf(self.leaves.add(leaf)));
            self.dirty = true;
            return Ok(None);
        };
        self.dirty = true;
        let leaf = &mut self.leaves[id];
        match leaf.search(key) {
            Err(index) => {
                if !leaf.insert(index, key, value) {
                    self.split_leaf(id, index, key, value);
                }
                Ok(None)
            }
            Ok(index) => {
                let old = Value::from(leaf.value(index));
                let before = leaf.used();
                if leaf.replace(index, value) {
                    self.leaf_shrank(source, id, before);
                } else {
                    leaf.remove(index);
                    self.split_leaf(id, index, key, value);
                }
                Ok(Some(old))
            }
        }
    }

    /// Removes the item of `key`; returns the value it had.
    pub fn remove<S: Source>(&mut self, source: &mut S, key: Key) -> Result<Option<Value>, S::Error> {
        let Some(id) = self.open_leaf(source, key, Intent::Remove)? else { return Ok(None) };
        let leaf = &mut self.leaves[id];
        let Ok(index) = leaf.search(key) else { return Ok(None) };
        let old = Value::from(leaf.value(index));
        let before = leaf.used();
        leaf.remove(index);
        self.dirty = true;
        if leaf.len() == 0 {
            self.leaves.remove(id);
            self.child_removed(source);
        } else {
            self.leaf_shrank(source, id, before);
        }
        Ok(Some(old))
    }

    /// Makes the path to the leaf of `key` dirty and keeps it in `self.path`.
    ///
    /// `None`: the tree is empty, or the key to remove is in a leaf that is still committed and not there; then
    /// nothing has changed.
    fn open_leaf<S: Source>(
        &mut self,
        source: &mut S,
        key: Key,
        intent: Intent,
    ) -> Result<Option<u32>, S::Error> {
        self.path.clear();
        let Some(mut child) = self.root else { return Ok(None) };
        let mut checked = intent == Intent::Insert;
        loop {
            match child {
                Child::Leaf(id) => return Ok(Some(id)),
                Child::Branch(id) => {
                    let branch = &mut self.branches[id];
                    let index = branch.search(key);
                    if intent == Intent::Insert && key < branch.keys[index] {
                        // Only the first bound can be above the key. The parent's was lowered before.
                        branch.keys[index] = key;
                    }
                    self.path.push((id, index));
                    child = branch.children[index];
                }
                Child::Committed(pointer) => {
                    if !checked && descend(source, pointer, key)?.search_item(key).is_err() {
                        return Ok(None);
                    }
                    checked = true;
                    let node = fetch(source, &pointer)?;
                    child = if node.level() == 0 {
                        Child::Leaf(self.leaves.add(Leaf::copy_of(&node)))
                    } else {
                        Child::Branch(self.branches.add(Branch::copy_of(&node)))
                    };
                    self.freed.push(pointer);
                    self.dirty = true;
                    match self.path.last() {
                        Some(&(id, index)) => self.branches[id].children[index] = child,
                        None => self.root = Some(child),
                    }
                }
            }
        }
    }

    /// Splits the full leaf at the end of the path, and inserts an item before its slot `index`.
    fn split_leaf(&mut self, id: u32, index: usize, key: Key, value: &[u8]) {
        if self.share_leaf(id, index, key, value) {
            return;
        }
        let left = &mut self.leaves[id];
        let at = leaf_boundary(left, index, SLOT + value.len());
        let mut right = Leaf::new();
        // Of the items with the new one among them, the first `at` stay.
        let room = if at <= index {
            right.splice(0, left.page(), at, left.len());
            left.truncate(at);
            right.insert(index - at, key, value)
        } else {
            right.splice(0, left.page(), at - 1, left.len());
            left.truncate(at - 1);
            left.insert(index, key, value)
        };
        debug_assert!(room, "the boundary leaves room on both sides");
        let bound = right.key(0);
        let child = Child::Leaf(self.leaves.add(right));
        self.insert_child(bound, child);
    }

    /// Instead of a split, moves items of the full leaf at the end of the path to a dirty neighbour that has
    /// room, and inserts an item before slot `index`. False and no change if it can't.
    ///
    /// Keeps leaves fuller under random insertion. A committed neighbour is left alone: changing it would
    /// cost the write of one node now to spare another later.
    fn share_leaf(&mut self, id: u32, index: usize, key: Key, value: &[u8]) -> bool {
        let Some(&(parent, position)) = self.path.last() else { return false };
        let leaf = &self.leaves[id];
        let (count, used, size) = (leaf.len(), leaf.used(), SLOT + value.len());
        if leaf.run().ascends(index, count) || leaf.run().descends(index) {
            return false;
        }
        for neighbour in self.siblings(parent, position) {
            let Child::Leaf(other) = self.branches[parent].children[neighbour] else { continue };
            let other_used = self.leaves[other].used();
            if other_used > CAPACITY / 8 * 5 {
                continue;
            }
            // Items move from the end that is next to the neighbour until both hold about the same.
            let to_right = neighbour > position;
            let (mut moved, mut items) = (0, 0);
            while other_used + moved * 2 < used && items + 1 < count {
                moved += leaf.size(if to_right { count - 1 - items } else { items });
                items += 1;
            }
            let boundary = if to_right { count - items } else { items };
            let stays = if to_right { index <= boundary } else { index >= boundary };
            let (here, there) = if stays { (size, 0) } else { (0, size) };
            if used - moved + here > CAPACITY || other_used + moved + there > CAPACITY {
                continue;
            }
            let mut to = self.leaves.lend(other);
            let from = &mut self.leaves[id];
            let room = if to_right {
                to.splice(0, from.page(), boundary, count);
                from.truncate(boundary);
                if stays { from.insert(index, key, value) } else { to.insert(index - boundary, key, value) }
            } else {
                let before = to.len();
                to.splice(before, from.page(), 0, boundary);
                from.remove_first(boundary);
                if stays {
                    from.insert(index - boundary, key, value)
                } else {
                    to.insert(before + index, key, value)
                }
            };
            debug_assert!(room, "the lengths were compared above");
            let bound = if to_right { to.key(0) } else { from.key(0) };
            self.branches[parent].keys[position.max(neighbour)] = bound;
            self.leaves.give_back(other, to);
            return true;
        }
        false
    }

    /// Inserts a child right after the one that the path leads to, splitting branches as needed.
    fn insert_child(&mut self, mut bound: Key, mut child: Child) {
        while let Some((id, index)) = self.path.pop() {
            let left = &mut self.branches[id];
            let (index, count) = (index + 1, left.len());
            if count < FANOUT {
                left.insert(index, bound, child);
                return;
            }
            let at = if left.run.ascends(index, count) {
                // The rest, if there is any, makes way for the run.
                (index + 1).min(count)
            } else if left.run.descends(index - 1) {
                // The child that was split is itself the right end of the run.
                index + 1
            } else {
                count.div_ceil(2)
            };
            // Of the children with the new one among them, the first `at` stay.
            let mut right = Branch::new(left.level);
            let from = if at <= index { at } else { at - 1 };
            right.keys.extend(left.keys.drain(from..));
            right.children.extend(left.children.drain(from..));
            if at <= index {
                left.run = Run::default();
                right.insert(index - at, bound, child);
            } else {
                left.insert(index, bound, child);
            }
            bound = right.keys[0];
            child = Child::Branch(self.branches.add(right));
        }
        // The root itself was split.
        let Some(old) = self.root else { return };
        let (level, lowest) = match old {
            Child::Leaf(id) => (1, self.leaves[id].key(0)),
            Child::Branch(id) => (self.branches[id].level + 1, self.branches[id].keys[0]),
            Child::Committed(_) => return,
        };
        let mut root = Branch::new(level);
        root.insert(0, lowest, old);
        root.insert(1, bound, child);
        self.root = Some(Child::Branch(self.branches.add(root)));
    }

    /// Merges the leaf at the end of the path with a sibling if it fell low enough from `before` bytes.
    fn leaf_shrank<S: Source>(&mut self, source: &mut S, id: u32, before: usize) {
        let used = self.leaves[id].used();
        if !fell_low(before, used, CAPACITY) {
            return;
        }
        let Some(&(parent, index)) = self.path.last() else { return };
        for position in self.siblings(parent, index) {
            let sibling = match self.branches[parent].children[position] {
                Child::Leaf(other) => Sibling::Dirty(other),
                Child::Branch(_) => continue,
                // The merge can do without: an unreadable sibling must not be in the way of a removal.
                Child::Committed(pointer) => match fetch(source, &pointer) {
                    Ok(node) => Sibling::Committed(node),
                    Err(_) => continue,
                },
            };
            let other_used = match &sibling {
                Sibling::Dirty(other) => self.leaves[*other].used(),
                Sibling::Committed(node) => node.len() * SLOT + usize::from(node.header().heap),
            };
            if used + other_used > CAPACITY / 4 * 3 {
                continue;
            }
            let at = if position < index { 0 } else { self.leaves[id].len() };
            match sibling {
                Sibling::Dirty(other) => {
                    let other = self.leaves.remove(other);
                    self.leaves[id].splice(at, other.page(), 0, other.len());
                }
                Sibling::Committed(node) => self.leaves[id].splice(at, node.page(), 0, node.len()),
            }
            self.merged(parent, index, position);
            self.child_removed_from_path(source);
            return;
        }
    }

    /// As `leaf_shrank`, for the branch at the end of the path, which has lost one child. Returns whether its
    /// parent has lost a child by that.
    fn branch_shrank<S: Source>(&mut self, source: &mut S, id: u32) -> bool {
        let count = self.branches[id].len();
        if !fell_low(count + 1, count, FANOUT) {
            return false;
        }
        let Some(&(parent, index)) = self.path.last() else { return false };
        for position in self.siblings(parent, index) {
            let sibling = match self.branches[parent].children[position] {
                Child::Branch(other) => Sibling::Dirty(other),
                Child::Leaf(_) => continue,
                Child::Committed(pointer) => match fetch(source, &pointer) {
                    Ok(node) => Sibling::Committed(node),
                    Err(_) => continue,
                },
            };
            let other_count = match &sibling {
                Sibling::Dirty(other) => self.branches[*other].len(),
                Sibling::Committed(node) => node.len(),
            };
            if count + other_count > FANOUT / 4 * 3 {
                continue;
            }
            let other = match sibling {
                Sibling::Dirty(other) => self.branches.remove(other),
                Sibling::Committed(node) => Branch::copy_of(&node),
            };
            if position < index {
                self.branches[id].prepend(other);
            } else {
                self.branches[id].append(other);
            }
            self.merged(parent, index, position);
            return true;
        }
        false
    }

    /// The neighbours of a child, dirty ones first: they are in memory.
    fn siblings(&self, parent: u32, index: usize) -> impl Iterator<Item = usize> + use<> {
        let children = &self.branches[parent].children;
        let after = (index + 1 < children.len()).then_some(index + 1);
        let before = index.checked_sub(1);
        let after_is_committed = after.is_some_and(|at| matches!(children[at], Child::Committed(_)));
        let order = if after_is_committed { [before, after] } else { [after, before] };
        order.into_iter().flatten()
    }

    /// Child `index` of a branch has taken over the contents of its neighbour `position`.
    fn merged(&mut self, parent: u32, index: usize, position: usize) {
        let branch = &mut self.branches[parent];
        if let Child::Committed(pointer) = branch.children[position] {
            self.freed.push(pointer);
        }
        // The lower of the two bounds stays, with the child that was merged into.
        let lower = index.min(position);
        branch.children[lower] = branch.children[index];
        branch.remove(lower + 1);
    }

    /// Removes the child that the path leads to, then empty branches upwards.
    fn child_removed<S: Source>(&mut self, source: &mut S) {
        while let Some(&(id, index)) = self.path.last() {
            self.branches[id].remove(index);
            if self.branches[id].len() > 0 {
                self.child_removed_from_path(source);
                return;
            }
            self.branches.remove(id);
            self.path.pop();
        }
        self.root = None;
    }

    /// The branch at the end of the path has lost a child but is not empty: merges upwards, lowers the root.
    fn child_removed_from_path<S: Source>(&mut self, source: &mut S) {
        while let Some((id, _)) = self.path.pop() {
            if !self.branch_shrank(source, id) {
                break;
            }
        }
        while let Some(Child::Branch(id)) = self.root
            && self.branches[id].len() == 1
        {
            self.root = Some(self.branches[id].children[0]);
            self.branches.remove(id);
        }
    }
}

/// Whether a node of `capacity` is less than a quarter full and has just lost another sixteenth.
///
/// Looking for a merge at these steps only keeps a run of removals from asking for the same sibling each time.
fn fell_low(before: usize, now: usize, capacity: usize) -> bool {
    let step = capacity / 16;
    now < capacity / 4 && now / step < before / step
}

/// Where to split a full leaf that an item of `size` bytes goes into before slot `index`: how many items, the new
/// one counted, are to stay. At least 1, and one less than there are at most; both sides fit.
fn leaf_boundary(leaf: &Leaf, index: usize, size: usize) -> usize {
    let count = leaf.len();
    let total = leaf.used() + size;
    let size_at = |item: usize| match item.cmp(&index) {
        std::cmp::Ordering::Less => leaf.size(item),
        std::cmp::Ordering::Equal => size,
        std::cmp::Ordering::Greater => leaf.size(item - 1),
    };
    let candidates = if leaf.run().ascends(index, count) {
        [index + 1, index]
    } else if leaf.run().descends(index) {
        [index, index + 1]
    } else {
        [0, 0]
    };
    for at in candidates {
        let left: usize = if at == 0 || at > count { 0 } else { (0..at).map(size_at).sum() };
        if left > 0 && left <= CAPACITY && total - left <= CAPACITY {
            return at;
        }
    }
    // The boundary nearest to the middle. No item is longer than a quarter of a leaf, so both sides fit.
    let mut left = 0;
    for at in 1..=count {
        let with = left + size_at(at - 1);
        if with * 2 >= total {
            return if at > 1 && total - left * 2 < with * 2 - total { at - 1 } else { at };
        }
        left = with;
    }
    count
}
