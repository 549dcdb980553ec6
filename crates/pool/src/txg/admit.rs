//! Whether a write still fits: decided before it is accepted, so that a commit always finds room.

use crate::alloc::Purpose;
use crate::chunk::Class;
use crate::dataset::Dirty;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::types::{DatasetId, GroupId};

/// Dirty data that is committed without being asked to, bytes.
pub(crate) const DIRTY_BYTES_MAX: u64 = 64 << 20;

/// Nodes that writers leave free, so that a full pool can still delete: four small commits in a row.
const NODES_RESERVED: u64 = 96;

/// Nodes that one commit rewrites besides the leaves of what it changes.
const NODES_PER_COMMIT: u64 = 24;

impl Pool {
    /// Accepts another dirty block of a volume, committing what waits where that is needed to know.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when it does not fit even after everything freed has come back.
    pub(crate) fn admit(&mut self, id: DatasetId, block: u64) -> Result<()> {
        if self.dirty_bytes >= DIRTY_BYTES_MAX {
            self.commit()?;
        }
        let Some(dataset) = self.datasets.get(&id) else { return Ok(()) };
        if matches!(dataset.dirty.get(&block), Some(Dirty::Data(_))) {
            return Ok(());
        }
        let block_size = u64::from(dataset.block_size);
        // What is freed comes back three commits later; before that "no space" would not be true.
        for attempt in 0..=super::ROOTS_KEPT + 1 {
            if self.fits(id, block_size)? {
                return Ok(());
            }
            if attempt == 0 && self.dirty_bytes > 0 {
                self.commit()?;
            } else if self.anything_waits() {
                if self.destroys() && self.destroy_step()? {
                    continue;
                }
                self.changed = true;
                self.commit()?;
            } else {
                break;
            }
        }
        Err(PoolError::NoSpace)
    }

    /// Whether one more block fits beside what is dirty.
    fn fits(&mut self, id: DatasetId, block_size: u64) -> Result<bool> {
        // Quick: this much was known to be free at the last exact look, and less than half of it was asked for since.
        let asked = self.dirty_bytes + block_size;
        let margin = 4 * block_size + (1 << 20);
        if self.room_stamp == self.committed && asked + margin < self.room_bytes / 2 {
            return Ok(true);
        }
        let largest =
            self.datasets.values().filter(|d| !d.dirty.is_empty()).map(|d| u64::from(d.block_size)).max();
        let largest = largest.unwrap_or(0).max(block_size);
        let mut room = self.data_room(largest, false)?;
        if room < 4 * (asked + margin) {
            room = self.data_room(largest, true)?;
        }
        let kept: u64 = self.unused_reservations(Some(id));
        self.room_bytes = room.saturating_sub(kept);
        let blocks = asked / 4096;
        let nodes = self.node_room();
        let nodes_needed =
            NODES_RESERVED + NODES_PER_COMMIT + (2 * asked / block_size).min(blocks) + blocks / 64;
        if nodes < nodes_needed {
            // Node room bounds the batch: fewer blocks in one commit need fewer nodes.
            return Ok(false);
        }
        self.room_bytes = self.room_bytes.min((nodes - nodes_needed) * block_size / 2 + asked);
        self.room_stamp = self.committed;
        // The first and the last extents of a batch may each need a row of their own.
        Ok(asked + 2 * self.widest_row() <= self.room_bytes)
    }

    fn widest_row(&self) -> u64 {
        self.core
            .map
            .iter()
            .filter(|chunk| chunk.has_parity())
            .map(|chunk| chunk.layout.row_bytes())
            .max()
            .unwrap_or(0)
    }

    /// Bytes that blocks of a size can still take, in chunks and in chunks to be made. Chunks that were not looked into
    /// count only with `all`.
    pub(crate) fn data_room(&mut self, block_size: u64, all: bool) -> Result<u64> {
        if all {
            let unknown: Vec<_> = self
                .core
                .map
                .iter()
                .filter(|c| {
                    c.class == Class::Data && c.used < c.length() && !self.core.data.contains_key(&c.address)
                })
                .map(|chunk| chunk.address)
                .collect();
            for address in unknown {
                self.load_data_space(address)?;
            }
        }
        let inside: u64 = self.core.data.values().map(|space| space.fitting(block_size) * block_size).sum();
        let groups: Vec<GroupId> = self.core.groups.keys().copied().collect();
        let outside: u64 = groups.iter().map(|&group| self.core.potential(group, Purpose::Data)).sum();
        Ok(inside + outside / block_size * block_size)
    }

    /// Nodes that could be allocated, chunks to be made included.
    fn node_room(&self) -> u64 {
        let groups = self.core.groups.keys();
        let outside = groups.map(|&group| self.core.potential(group, Purpose::Metadata)).sum::<u64>();
        self.core.free_nodes(Class::Metadata) + outside / tree::NODE_SIZE as u64
    }

    /// Whether room for metadata is so short that steps must be small.
    pub(crate) fn is_tight(&self) -> bool {
        self.node_room() < 8 * NODES_RESERVED
    }

    fn anything_waits(&self) -> bool {
        self.destroys()
            || !self.core.unloaded_frees.is_empty()
            || self.core.data.values().any(|space| space.waits())
            || self.core.nodes.values().any(|space| space.waits())
            || self.core.devices.values().any(|device| !device.deferred.is_empty())
    }

    /// Bytes that reservations still keep from others, that of `except` left out.
    pub(crate) fn unused_reservations(&self, except: Option<DatasetId>) -> u64 {
        self.datasets
            .values()
            .filter(|dataset| Some(dataset.id) != except && dataset.reservation > 0)
            .map(|dataset| {
                let own = dataset.referenced.saturating_sub(self.shared_bytes(dataset));
                dataset.reservation.saturating_sub(own)
            })
            .sum()
    }

    /// Bytes that can still be written (to a volume: with what is reserved for it).
    pub(crate) fn available(&self, to: Option<DatasetId>) -> u64 {
        let inside: u64 = self
            .core
            .map
            .iter()
            .filter(|chunk| chunk.class == Class::Data)
            .map(|chunk| match self.core.data.get(&chunk.address) {
                Some(space) => space.free_bytes(),
                None => chunk.length().saturating_sub(chunk.used),
            })
            .sum();
        let outside: u64 =
            self.core.groups.keys().map(|&group| self.core.potential(group, Purpose::Data)).sum();
        // Metadata of so much data will need its part: two records of some 70 bytes a block, with some slack.
        let room = inside + outside - outside / 64;
        room.saturating_sub(self.unused_reservations(to)).saturating_sub(self.dirty_bytes)
    }
}
