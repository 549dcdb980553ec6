//! Free space: runs of grains inside chunks and of bytes on devices, and the nodes of metadata chunks.
//!
//! - `runs`: sets of free runs with exact answers to "how many pieces of this size still fit"
//! - `data`: what is free in a data chunk, derived from the extents tree when the chunk is first written to
//! - `nodes`: which nodes of a metadata chunk are live, kept as a bitmap
//!
//! What is freed in a transaction group can be used again only when no importable root knows it any more
//! ([`Deferred`]).

mod data;
mod nodes;
mod runs;

pub(crate) use data::DataSpace;
pub(crate) use nodes::{NodeSpace, SLOT_NODES};
pub(crate) use runs::FreeRuns;

use std::collections::VecDeque;

use crate::types::Txg;

/// Things freed, by the transaction group that freed them, until they may be used again.
#[derive(Clone, Debug)]
pub(crate) struct Deferred<T> {
    queue: VecDeque<(Txg, Vec<T>)>,
}

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Deferred<T> {
    /// Notes that `thing` is not part of transaction group `txg` any more.
    pub(crate) fn push(&mut self, txg: Txg, thing: T) {
        match self.queue.back_mut() {
            Some((last, things)) if *last == txg => things.push(thing),
            _ => self.queue.push_back((txg, vec![thing])),
        }
    }

    /// Takes what no root from `oldest` on knows.
    pub(crate) fn release(&mut self, oldest: Txg) -> Vec<T> {
        let mut released = Vec::new();
        while self.queue.front().is_some_and(|(txg, _)| *txg <= oldest) {
            if let Some((_, things)) = self.queue.pop_front() {
                released.extend(things);
            }
        }
        released
    }

    /// All that waits.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.queue.iter().flat_map(|(_, things)| things)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
