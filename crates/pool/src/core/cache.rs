//! Nodes and blocks that were read, least recently used first out, within one bound of bytes.

use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use tree::{NODE_SIZE, Node};

use crate::types::Txg;

/// The cache. Contents never change behind an address and birth, so entries are only ever dropped.
pub(crate) struct Cache {
    nodes: LruCache<(u64, u64), Arc<Node>>,
    blocks: LruCache<(u64, u64), Bytes>,
    block_bytes: u64,
    bound: u64,
    /// Bytes of the bound that somebody else uses.
    aside: u64,
}

impl Cache {
    pub(crate) fn new(bound: u64) -> Self {
        Self { nodes: LruCache::unbounded(), blocks: LruCache::unbounded(), block_bytes: 0, bound, aside: 0 }
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
                Some((_, old)) => self.block_bytes -= old.len() as u64,
                None => break,
            }
        }
    }

    /// Forgets everything, as when the devices' contents are to be seen.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.blocks.clear();
        self.block_bytes = 0;
    }
}
