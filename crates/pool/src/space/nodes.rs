//! Which nodes of a metadata chunk are live.
//!
//! The bitmap is written with each transaction group that changed it, into one of two slots at the chunk's
//! beginning; what it says is anchored by checksum in the chunk's item (or, for system chunks, in the uberblock).
//! Slot format, little-endian: magic `CDBITMAP`, pool guid u64, session u64, txg u64, chunk address u64, number of
//! nodes u64, zeros up to byte 64, then one bit per node, least significant first.

use std::ops::Range;

use tree::NODE_SIZE;

use super::Deferred;
use crate::types::{Guid, Logical, Session, Txg};

/// Nodes at a chunk's beginning that the two bitmap slots take.
pub(crate) const SLOT_NODES: u64 = 2;

const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"CDBITMAP";

/// The most nodes one bitmap can describe.
pub(crate) const NODES_MAX: u64 = ((NODE_SIZE - HEADER) * 8) as u64;

/// The nodes of one metadata or system chunk.
#[derive(Clone, Debug)]
pub(crate) struct NodeSpace {
    nodes: u64,
    /// Live as of the open transaction group: what the bitmap on disk says.
    live: Vec<u64>,
    /// Live, or waiting for older roots to be forgotten.
    taken: Vec<u64>,
    live_count: u64,
    taken_count: u64,
    cursor: u64,
    deferred: Deferred<u64>,
    /// `live` is not what was last written.
    pub(crate) dirty: bool,
}

fn bit(words: &[u64], index: u64) -> bool {
    words[(index / 64) as usize] >> (index % 64) & 1 == 1
}

impl NodeSpace {
    /// A chunk of so many logical bytes with no node in it.
    pub(crate) fn new(chunk_bytes: u64) -> Self {
        let nodes = (chunk_bytes / NODE_SIZE as u64).min(NODES_MAX);
        let words = vec![0; nodes.div_ceil(64) as usize];
        Self {
            nodes,
            live: words.clone(),
            taken: words,
            live_count: 0,
            taken_count: 0,
            cursor: SLOT_NODES,
            deferred: Deferred::default(),
            dirty: true,
        }
    }

    /// Bytes of a slot that hold something, whole sectors.
    pub(crate) fn slot_bytes(&self) -> usize {
        (HEADER + self.nodes.div_ceil(8) as usize).next_multiple_of(crate::SECTOR as usize).min(NODE_SIZE)
    }

    /// The slot's contents.
    pub(crate) fn encode(&self, pool: Guid, session: Session, txg: Txg, chunk: Logical) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.slot_bytes());
        bytes.extend_from_slice(MAGIC);
        for value in [pool.0, session.0, txg.0, chunk.0, self.nodes] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.resize(HEADER, 0);
        self.live.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.resize(self.slot_bytes(), 0);
        bytes
    }

    /// Takes over a slot whose checksum was right; false when it is not this chunk's.
    pub(crate) fn load(&mut self, bytes: &[u8], pool: Guid, chunk: Logical) -> bool {
        let word = |at: usize| {
            bytes
                .get(at..at + 8)
                .map_or(0, |b| b.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte)))
        };
        if bytes.len() != self.slot_bytes()
            || &bytes[..8] != MAGIC
            || word(8) != pool.0
            || word(32) != chunk.0
            || word(40) != self.nodes
        {
            return false;
        }
        for (index, live) in self.live.iter_mut().enumerate() {
            *live = word(HEADER + index * 8);
        }
        let tail = self.nodes % 64;
        if tail > 0
            && let Some(last) = self.live.last_mut()
        {
            *last &= (1 << tail) - 1;
        }
        self.taken.clone_from(&self.live);
        self.live_count = self.live.iter().map(|word| u64::from(word.count_ones())).sum();
        self.taken_count = self.live_count;
        self.dirty = false;
        true
    }

    /// Whether nothing in a range is, or may yet be asked for: no node that any root knows, and no bitmap.
    pub(crate) fn is_free(&self, mut nodes: Range<u64>) -> bool {
        nodes.start >= SLOT_NODES && nodes.all(|index| index >= self.nodes || !bit(&self.taken, index))
    }

    /// Takes a free node; `None` when there is none.
    pub(crate) fn allocate(&mut self) -> Option<u64> {
        if self.free() == 0 {
            return None;
        }
        let mut index = self.cursor;
        for _ in 0..=self.nodes + 64 {
            if index >= self.nodes {
                index = SLOT_NODES;
            }
            if index.is_multiple_of(64) && self.taken[(index / 64) as usize] == u64::MAX {
                index += 64;
                continue;
            }
            if !bit(&self.taken, index) {
                self.set_live(index);
                self.cursor = index + 1;
                return Some(index);
            }
            index += 1;
        }
        None
    }

    fn set_live(&mut self, index: u64) {
        let (word, mask) = ((index / 64) as usize, 1u64 << (index % 64));
        if self.live[word] & mask == 0 {
            self.live[word] |= mask;
            self.live_count += 1;
            self.dirty = true;
        }
        if self.taken[word] & mask == 0 {
            self.taken[word] |= mask;
            self.taken_count += 1;
        }
    }

    /// Marks a node live that a walk found; false when it was live already or can't be a node of this chunk.
    pub(crate) fn mark(&mut self, index: u64) -> bool {
        if index < SLOT_NODES || index >= self.nodes || bit(&self.live, index) {
            return false;
        }
        self.set_live(index);
        true
    }

    /// Whether the node is live.
    pub(crate) fn is_live(&self, index: u64) -> bool {
        index < self.nodes && bit(&self.live, index)
    }

    /// Keeps a node that only an older root knows from being used until `txg` is the oldest root.
    pub(crate) fn pin(&mut self, index: u64, txg: Txg) {
        if index < self.nodes && !bit(&self.taken, index) {
            self.taken[(index / 64) as usize] |= 1 << (index % 64);
            self.taken_count += 1;
            self.deferred.push(txg, index);
        }
    }

    /// Frees a live node: at once when no committed root ever knew it, else when none knows it any more.
    /// False when it was not live.
    pub(crate) fn free_node(&mut self, index: u64, committed: bool, txg: Txg) -> bool {
        if !self.is_live(index) {
            return false;
        }
        self.live[(index / 64) as usize] &= !(1 << (index % 64));
        self.live_count -= 1;
        self.dirty = true;
        if committed {
            self.deferred.push(txg, index);
        } else {
            self.untake(index);
        }
        true
    }

    fn untake(&mut self, index: u64) {
        self.taken[(index / 64) as usize] &= !(1 << (index % 64));
        self.taken_count -= 1;
    }

    /// Lets nodes be used again that no root from `oldest` on knows.
    pub(crate) fn release(&mut self, oldest: Txg) {
        for index in self.deferred.release(oldest) {
            self.untake(index);
        }
    }

    /// Whether something waits for older roots to be forgotten.
    pub(crate) fn waits(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Nodes that can be live at once.
    pub(crate) fn capacity(&self) -> u64 {
        self.nodes.saturating_sub(SLOT_NODES)
    }

    /// Nodes that can be allocated now.
    pub(crate) fn free(&self) -> u64 {
        self.capacity() - self.taken_count
    }

    /// Nodes in use by the open transaction group.
    pub(crate) fn live(&self) -> u64 {
        self.live_count
    }

    /// Nothing is live, and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken_count == 0
    }

    /// Indexes of live nodes, rising.
    pub(crate) fn iter_live(&self) -> impl Iterator<Item = u64> + '_ {
        (SLOT_NODES..self.nodes).filter(|&index| bit(&self.live, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_handed_out_once_and_come_back_when_no_root_knows_them() {
        let mut space = NodeSpace::new(1 << 20);
        let mut all: Vec<u64> = std::iter::from_fn(|| space.allocate()).collect();
        assert_eq!(all.len() as u64, 64 - SLOT_NODES);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 62);
        assert!(space.free_node(5, true, Txg(9)));
        assert!(!space.free_node(5, true, Txg(9)));
        assert!(space.free_node(6, false, Txg(9)));
        assert_eq!(space.allocate(), Some(6));
        assert_eq!(space.allocate(), None);
        space.release(Txg(8));
        assert_eq!(space.allocate(), None);
        space.release(Txg(9));
        assert_eq!(space.allocate(), Some(5));
    }

    #[test]
    fn a_bitmap_comes_back_and_a_foreign_one_is_refused() {
        let mut space = NodeSpace::new(3 << 20);
        for _ in 0..100 {
            space.allocate();
        }
        space.free_node(50, false, Txg(1));
        let bytes = space.encode(Guid(7), Session(1), Txg(2), Logical(4096));
        let mut other = NodeSpace::new(3 << 20);
        assert!(other.load(&bytes, Guid(7), Logical(4096)));
        assert_eq!(other.iter_live().collect::<Vec<_>>(), space.iter_live().collect::<Vec<_>>());
        assert_eq!(other.free(), space.free());
        assert!(!other.load(&bytes, Guid(8), Logical(4096)));
        assert!(!other.load(&bytes, Guid(7), Logical(0)));
        assert!(!other.load(&bytes[..60], Guid(7), Logical(4096)));
    }
}
