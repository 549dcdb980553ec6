//! Nodes and blocks that were read, least recently used first out, within one bound of bytes.

use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use tree::{NODE_SIZE, Node};

use crate::types::Txg;

/// Bytes of memory of dropped blocks that are kept to be used again: fresh memory costs a page fault every 4 KiB.
const IDLE_BYTES: usize = 8 << 20;

/// The cache. Contents never change behind an address and birth, so entries are only ever dropped.
pub(crate) struct Cache {
    nodes: LruCache<(u64, u64), Arc<Node>>,
    blocks: LruCache<(u64, u64), Bytes>,
    block_bytes: u64,
    bound: u64,
    /// Bytes of the bound that somebody else uses.
    aside: u64,
    /// Memory of blocks that were dropped, and its bytes. What is in it is left over.
    idle: Vec<Vec<u8>>,
    idle_bytes: usize,
}

impl Cache {
    pub(crate) fn new(bound: u64) -> Self {
        Self {
            nodes: LruCache::unbounded(),
            blocks: LruCache::unbounded(),
            block_bytes: 0,
            bound,
            aside: 0,
            idle: Vec::new(),
            idle_bytes: 0,
        }
    }

    /// Bytes that it may use.
    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    pub(crate) fn node(&mut self, address: u64, birth: u64) -> Option<Arc<Node>> {
        self.nodes.get(&(address, birth)).cloned()
    }

    pub(crate) fn insert_node(&mut self, address: u64, birth: u64, node: Arc<Node>) {
        self.nodes.put((address, birth), node);
        // Nodes may take up to half of the bound: they serve many blocks each.
        while (self.nodes.len() * NODE_SIZE) as u64 > self.bound / 2 && self.nodes.len() > 64 {
            self.nodes.pop_lru();
        }
    }

    pub(crate) fn block(&mut self, address: u64, birth: Txg) -> Option<Bytes> {
        self.blocks.get(&(address, birth.0)).cloned()
    }

    /// A block that is about to be written anew: what is here would be of no more use.
    pub(crate) fn take_block(&mut self, address: u64, birth: Txg) -> Option<Bytes> {
        let block = self.blocks.pop(&(address, birth.0))?;
        self.block_bytes -= block.len() as u64;
        Some(block)
    }

    pub(crate) fn insert_block(&mut self, address: u64, birth: Txg, block: Bytes) {
        self.block_bytes += block.len() as u64;
        if let Some(old) = self.blocks.put((address, birth.0), block) {
            self.block_bytes -= old.len() as u64;
        }
        self.trim();
    }

    /// Leaves so many bytes of the bound to somebody else.
    pub(crate) fn set_aside(&mut self, bytes: u64) {
        self.aside = bytes;
        self.trim();
    }

    fn trim(&mut self) {
        let room = self.bound.saturating_sub((self.nodes.len() * NODE_SIZE) as u64 + self.aside);
        while self.block_bytes > room {
            match self.blocks.pop_lru() {
                Some((_, old)) => {
                    self.block_bytes -= old.len() as u64;
                    self.keep(old);
                }
                None => break,
            }
        }
    }

    fn keep(&mut self, block: Bytes) {
        if self.idle_bytes + block.len() <= IDLE_BYTES && block.is_unique() {
            let memory: Vec<u8> = block.into();
            // A part of something larger would hold on to all of that.
            if memory.capacity() == memory.len() {
                self.idle_bytes += memory.len();
                self.idle.push(memory);
            }
        }
    }

    /// Memory for a block, holding anything; empty where none of that length is idle.
    pub(crate) fn idle_memory(&mut self, length: usize) -> Vec<u8> {
        let Some(idle) = self.idle.pop() else { return Vec::new() };
        self.idle_bytes -= idle.len();
        // Blocks of one size follow one another; where another size is asked for, what was kept is no good.
        if idle.len() == length { idle } else { Vec::new() }
    }

    /// Forgets everything, as when the devices' contents are to be seen.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.blocks.clear();
        self.block_bytes = 0;
        self.idle.clear();
        self.idle_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_dropped_blocks_is_used_again_within_a_bound() {
        let mut cache = Cache::new(1 << 20);
        let mut rng = device::rng::Rng::new(5);
        for address in 0..2000 {
            let length = 4096 << rng.below(5);
            let mut buffer = cache.idle_memory(length as usize);
            assert!(buffer.is_empty() || buffer.len() == length as usize);
            buffer.resize(length as usize, 0);
            cache.insert_block(address, Txg(1), buffer.into());
            assert!(cache.block_bytes <= 1 << 20);
            assert!(cache.idle_bytes <= IDLE_BYTES);
            assert_eq!(cache.idle_bytes, cache.idle.iter().map(Vec::capacity).sum::<usize>());
        }
    }

    #[test]
    fn a_block_that_somebody_reads_keeps_its_memory() {
        let mut cache = Cache::new(0);
        let block = Bytes::from(vec![7; 4096]);
        cache.insert_block(0, Txg(1), block.clone());
        assert!(cache.idle.is_empty());
        assert!(cache.idle_memory(4096).is_empty());
        assert!(block.iter().all(|&byte| byte == 7));
        drop(block);
        cache.insert_block(0, Txg(1), vec![8; 4096].into());
        assert_eq!(cache.idle_memory(4096), vec![8; 4096]);
    }
}
