//! Leaves of the open transaction group: pages of the on-disk form, edited in place.
//!
//! Slots grow up from the header, values grow down from the end. A value that is removed or outgrown leaves
//! garbage in the heap; the page is compacted when the room is needed, and before it is committed.

use std::sync::Arc;

use crate::branch::Run;
use crate::bytes::{get_u16, put_u16};
use crate::key::{KEY_SIZE, Key};
use crate::node::{
    CAPACITY, HEADER_SIZE, NODE_SIZE, Node, Page, SLOT, copy_page, entry_key, search, slot_range, slot_value,
    zero_page,
};

/// A leaf that may be edited. The header part of its page is not kept up.
#[derive(Debug)]
pub(crate) struct Leaf {
    page: Box<Page>,
    count: usize,
    /// Where the heap starts.
    heap: usize,
    /// Bytes of the heap that no slot refers to.
    garbage: usize,
    run: Run,
}

impl Leaf {
    pub(crate) fn new() -> Self {
        Self { page: zero_page(), count: 0, heap: NODE_SIZE, garbage: 0, run: Run::default() }
    }

    /// An editable copy of a committed leaf.
    pub(crate) fn copy_of(node: &Node) -> Self {
        Self::of_page(copy_page(node.page()), node)
    }

    /// Takes back a leaf whose commit failed.
    pub(crate) fn unseal(node: Arc<Node>) -> Self {
        match Arc::try_unwrap(node) {
            Ok(node) => {
                let (count, heap) = (node.len(), NODE_SIZE - usize::from(node.header().heap));
                Self { page: node.into_page(), count, heap, garbage: 0, run: Run::default() }
            }
            Err(shared) => Self::copy_of(&shared),
        }
    }

    fn of_page(page: Box<Page>, node: &Node) -> Self {
        let heap = NODE_SIZE - usize::from(node.header().heap);
        Self { page, count: node.len(), heap, garbage: 0, run: Run::default() }
    }

    /// The page, compacted, and the length of its heap.
    pub(crate) fn into_page(mut self) -> (Box<Page>, usize) {
        if self.garbage > 0 {
            self.compact();
        }
        (self.page, NODE_SIZE - self.heap)
    }

    pub(crate) fn page(&self) -> &Page {
        &self.page
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Bytes that entries and values take, without garbage; at most `CAPACITY`.
    pub(crate) fn used(&self) -> usize {
        self.count * SLOT + NODE_SIZE - self.heap - self.garbage
    }

    pub(crate) fn search(&self, key: Key) -> Result<usize, usize> {
        search(&self.page, SLOT, self.count, key)
    }

    pub(crate) fn key(&self, index: usize) -> Key {
        entry_key(&self.page, SLOT, index)
    }

    pub(crate) fn value(&self, index: usize) -> &[u8] {
        slot_value(&self.page, index)
    }

    /// Bytes that item `index` takes.
    pub(crate) fn size(&self, index: usize) -> usize {
        SLOT + slot_range(&self.page, index).1
    }

    pub(crate) fn run(&self) -> Run {
        self.run
    }

    /// Inserts an item before slot `index`; false and no change if there is no room.
    #[must_use]
    pub(crate) fn insert(&mut self, index: usize, key: Key, value: &[u8]) -> bool {
        if !self.reserve(SLOT + value.len()) {
            return false;
        }
        let at = HEADER_SIZE + index * SLOT;
        let end = HEADER_SIZE + self.count * SLOT;
        self.page.copy_within(at..end, at + SLOT);
        self.put_slot(index, key, value);
        self.count += 1;
        self.run.note(index);
        true
    }

    /// Gives slot `index` another value; false and no change if there is no room.
    #[must_use]
    pub(crate) fn replace(&mut self, index: usize, value: &[u8]) -> bool {
        let (offset, length) = slot_range(&self.page, index);
        if value.len() <= length {
            self.page[offset..offset + value.len()].copy_from_slice(value);
            put_u16(&mut *self.page, HEADER_SIZE + index * SLOT + KEY_SIZE + 2, value.len() as u16);
            self.garbage += length - value.len();
            return true;
        }
        if self.used() - length + value.len() > CAPACITY {
            return false;
        }
        let key = self.key(index);
        // The old value becomes garbage first, so that compaction may reclaim it.
        self.garbage += length;
        put_u16(&mut *self.page, HEADER_SIZE + index * SLOT + KEY_SIZE + 2, 0);
        let room = self.reserve(value.len());
        debug_assert!(room, "the lengths were compared above");
        self.put_slot(index, key, value);
        true
    }

    /// Removes slot `index`.
    pub(crate) fn remove(&mut self, index: usize) {
        let (_, length) = slot_range(&self.page, index);
        self.garbage += length;
        let at = HEADER_SIZE + index * SLOT;
        let end = HEADER_SIZE + self.count * SLOT;
        self.page.copy_within(at + SLOT..end, at);
        self.count -= 1;
        self.run = Run::default();
        if self.count == 0 {
            self.clear();
        }
    }

    /// Removes the slots from `index` on.
    pub(crate) fn truncate(&mut self, index: usize) {
        for slot in index..self.count {
            self.garbage += slot_range(&self.page, slot).1;
        }
        self.count = index;
        self.run = Run::default();
        if index == 0 {
            self.clear();
        }
    }

    /// Removes the first `items` slots, which are not all.
    pub(crate) fn remove_first(&mut self, items: usize) {
        for slot in 0..items {
            self.garbage += slot_range(&self.page, slot).1;
        }
        let end = HEADER_SIZE + self.count * SLOT;
        self.page.copy_within(HEADER_SIZE + items * SLOT..end, HEADER_SIZE);
        self.count -= items;
        self.run = Run::default();
    }

    /// Inserts items `from..to` of another page before slot `index`.
    ///
    /// The caller has made sure that they fit, and that keys stay in order.
    pub(crate) fn splice(&mut self, index: usize, page: &Page, from: usize, to: usize) {
        let items = to - from;
        let values: usize = (from..to).map(|slot| slot_range(page, slot).1).sum();
        let room = self.reserve(items * SLOT + values);
        debug_assert!(room, "the caller compared the lengths");
        let at = HEADER_SIZE + index * SLOT;
        let end = HEADER_SIZE + self.count * SLOT;
        self.page.copy_within(at..end, at + items * SLOT);
        for slot in from..to {
            self.put_slot(index + slot - from, entry_key(page, SLOT, slot), slot_value(page, slot));
        }
        self.count += items;
        self.run = Run::default();
    }

    /// Makes `bytes` free between slots and heap; false if there are not that many.
    fn reserve(&mut self, bytes: usize) -> bool {
        let free = self.heap - HEADER_SIZE - self.count * SLOT;
        if free >= bytes {
            return true;
        }
        if free + self.garbage < bytes {
            return false;
        }
        self.compact();
        true
    }

    /// Writes a slot and its value. There is room.
    fn put_slot(&mut self, index: usize, key: Key, value: &[u8]) {
        self.heap -= value.len();
        let mut slot = [0; SLOT];
        slot[..KEY_SIZE].copy_from_slice(&key.encode());
        put_u16(&mut slot, KEY_SIZE, self.heap as u16);
        put_u16(&mut slot, KEY_SIZE + 2, value.len() as u16);
        let at = HEADER_SIZE + index * SLOT;
        self.page[at..at + SLOT].copy_from_slice(&slot);
        self.page[self.heap..self.heap + value.len()].copy_from_slice(value);
    }

    /// Packs the values, in the order of their keys.
    fn compact(&mut self) {
        let old = copy_page(&self.page);
        let mut heap = NODE_SIZE;
        for index in 0..self.count {
            let at = HEADER_SIZE + index * SLOT + KEY_SIZE;
            let length = usize::from(get_u16(&*old, at + 2));
            heap -= length;
            self.page[heap..heap + length].copy_from_slice(slot_value(&old, index));
            put_u16(&mut *self.page, at, heap as u16);
        }
        self.heap = heap;
        self.garbage = 0;
    }

    fn clear(&mut self) {
        self.heap = NODE_SIZE;
        self.garbage = 0;
    }
}
