//! All chunks of the pool by address, with those that changed since the last commit.

use std::collections::{BTreeMap, BTreeSet};

use super::Chunk;
use crate::types::Logical;

/// The chunk map.
#[derive(Clone, Debug, Default)]
pub struct ChunkMap {
    chunks: BTreeMap<Logical, Chunk>,
    /// Chunks whose item in the chunk tree is out of date; gone ones are not in `chunks` any more.
    dirty: BTreeSet<Logical>,
}

impl ChunkMap {
    /// Adds a chunk as it was read from disk.
    pub(crate) fn load(&mut self, chunk: Chunk) {
        self.chunks.insert(chunk.address, chunk);
    }

    /// Adds a chunk or replaces it.
    pub(crate) fn insert(&mut self, chunk: Chunk) {
        self.dirty.insert(chunk.address);
        self.chunks.insert(chunk.address, chunk);
    }

    /// Removes a chunk.
    pub(crate) fn remove(&mut self, address: Logical) -> Option<Chunk> {
        self.dirty.insert(address);
        self.chunks.remove(&address)
    }

    /// The chunk that holds the address.
    pub fn at(&self, address: Logical) -> Option<&Chunk> {
        self.chunks
            .range(..=address)
            .next_back()
            .map(|(_, chunk)| chunk)
            .filter(|chunk| address < chunk.end())
    }

    /// The chunk that begins at the address.
    pub fn get(&self, address: Logical) -> Option<&Chunk> {
        self.chunks.get(&address)
    }

    /// The chunk that begins at the address, to be changed: its item will be written again.
    pub(crate) fn change(&mut self, address: Logical) -> Option<&mut Chunk> {
        let chunk = self.chunks.get_mut(&address)?;
        self.dirty.insert(address);
        Some(chunk)
    }

    /// Every chunk, by address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Chunk> {
        self.chunks.values()
    }

    /// The first chunk at or behind the address.
    pub fn at_or_after(&self, address: Logical) -> Option<&Chunk> {
        self.chunks.range(address..).next().map(|(_, chunk)| chunk)
    }

    /// Addresses of all chunks.
    pub(crate) fn addresses(&self) -> Vec<Logical> {
        self.chunks.keys().copied().collect()
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The addresses whose items are out of date.
    pub(crate) fn dirty(&self) -> impl Iterator<Item = Logical> + '_ {
        self.dirty.iter().copied()
    }

    /// Takes the addresses whose items are out of date.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<Logical> {
        std::mem::take(&mut self.dirty)
    }
}
