//! Whether a write still fits: decided before it is accepted, so that a commit always finds room.

use super::ROOTS_KEPT;
use super::claim::NODES_PER_COMMIT;
use super::place::TURN_BYTES;
use crate::alloc::Purpose;
use crate::chunk::{Chunk, Class};
use crate::dataset::Dirty;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::types::{DatasetId, GroupId, Logical};

/// Nodes that writers leave free, so that a full pool can still delete: several small commits in a row.
pub(crate) const NODES_RESERVED: u64 = 96;

/// What is left free for a reservation beyond its bytes: this part of them, and so many bytes.
const RESERVED_MARGIN: u64 = 16;
const RESERVED_BYTES: u64 = 2 << 20;

/// Bytes for which room is looked for at once.
const AHEAD_BYTES: u64 = 4 << 20;
const AHEAD_BYTES_MAX: u64 = 64 << 20;

/// Steps of what is being destroyed that a writer waits for at most.
const STEPS_MAX: usize = 64;

/// How often chunks are emptied for a writer at most.
const EMPTIED_MAX: usize = 2;

/// Discards that are committed together at most.
const HOLES_MAX: u64 = 4096;

impl Pool {
    /// Accepts another dirty block of a volume, committing what waits where that is needed to know.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when it does not fit even after everything freed has come back.
    pub(crate) fn admit(&mut self, id: DatasetId, block: u64) -> Result<()> {
        if self.dirty_bytes >= self.pace.most() {
            self.commit()?;
        }
        let Some(dataset) = self.datasets.get(&id) else { return Ok(()) };
        if matches!(dataset.dirty.get(&block), Some(Dirty::Data(_))) {
            return Ok(());
        }
        let block_size = u64::from(dataset.block_size);
        let (mut steps, mut drains, mut emptied) = (0, 0, 0);
        loop {
            if self.is_roomy(id, block_size)? {
                self.claims.homeless = true;
                return Ok(());
            }
            // Blocks without a home rely on room that may be taken only once they have got theirs.
            let others = self.syncing.is_some() || self.claims.homeless;
            if !others && self.claim(id, block, block_size)? {
                return Ok(());
            }
            if others || self.dirty_entries() > 0 {
                self.commit()?;
                self.claims.homeless = false;
            } else if self.destroys() && !self.is_stuck() && steps < STEPS_MAX {
                steps += 1;
                self.destroy_step()?;
            } else if drains <= ROOTS_KEPT && self.anything_waits() {
                // What is freed comes back three commits later; before that "no space" would not be true.
                drains += 1;
                self.changed = true;
                self.commit()?;
            } else if emptied < EMPTIED_MAX && self.make_room()? {
                (emptied, drains) = (emptied + 1, 0);
            } else {
                return Err(PoolError::NoSpace);
            }
        }
    }

    /// Nodes that writers leave free. With a checkpoint what is deleted takes room before any comes back: that much is for
    /// deletion, and as much again for discarding the checkpoint.
    pub(crate) fn nodes_kept(&self) -> u64 {
        NODES_RESERVED * if self.kept_checkpoint().is_some() { 2 } else { 1 }
    }

    /// Whether there is room for a block, and for all that is dirty, however the commit goes about it.
    fn is_roomy(&mut self, id: DatasetId, block_size: u64) -> Result<bool> {
        // Quick: so much was found to be free at the last look.
        if self.room_stamp == self.committed
            && block_size <= self.room_piece
            && self.room_blocks > 0
            && self.room_bytes >= block_size
        {
            self.room_bytes -= block_size;
            self.room_blocks -= 1;
            return Ok(true);
        }
        self.room_bytes = 0;
        let dirty = self.datasets.values().filter(|dataset| !dataset.dirty.is_empty());
        let piece = dirty.map(|dataset| u64::from(dataset.block_size)).max().unwrap_or(0).max(block_size);
        let entries = self.dirty_entries();
        let ahead = self.dirty_bytes.clamp(AHEAD_BYTES, AHEAD_BYTES_MAX) / block_size;
        for blocks in [ahead, 1] {
            if self.has_room(id, entries + blocks, self.dirty_bytes + blocks * block_size, piece)? {
                self.room_bytes = (blocks - 1) * block_size;
                self.room_blocks = blocks - 1;
                self.room_piece = piece;
                self.room_stamp = self.committed;
                self.claims.tight = false;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a commit of so many blocks, with so many bytes and none longer than `piece`, finds room twice over.
    fn has_room(&mut self, id: DatasetId, entries: u64, bytes: u64, piece: u64) -> Result<bool> {
        let nodes = self.nodes_for(entries) + self.nodes_kept();
        let groups: Vec<GroupId> = self.core.groups.keys().copied().collect();
        // Every turn, and every chunk that takes part in it, may leave a row with a rest.
        let widest = self.core.groups.values().map(|group| group.devices.len() as u64).max().unwrap_or(0);
        let rests = (bytes / TURN_BYTES + 2 + groups.len() as u64)
            * 2
            * widest
            * u64::from(crate::alloc::PARITY_UNIT);
        let kept = self.kept_for_reservations(id);
        let wanted = 2 * bytes + rests + kept;
        let (mut outside, mut node_room) = (0, self.core.free_nodes(Class::Metadata));
        for group in groups {
            let (data, nodes) = self.core.sure_room(group, piece, wanted, nodes);
            outside += data;
            node_room += nodes;
        }
        if node_room < nodes {
            return Ok(false);
        }
        if outside >= wanted {
            return Ok(true);
        }
        // A block of any size takes away room for no more than one of the largest.
        let wanted = 2 * entries * piece + rests + kept;
        loop {
            let inside: u64 = self.core.data.values().map(|space| space.fitting(piece) * piece).sum();
            if inside + outside >= wanted {
                return Ok(true);
            }
            let unknown = self.core.map.iter().filter(|chunk| self.is_unknown(chunk));
            let free = |chunk: &Chunk| chunk.length() - chunk.used.min(chunk.length());
            let emptiest = unknown.max_by_key(|chunk| free(chunk));
            match emptiest.filter(|chunk| free(chunk) * 4 >= chunk.length()).map(|chunk| chunk.address) {
                Some(address) => self.load_data_space(address)?,
                None => return Ok(false),
            }
        }
    }

    /// Whether a data chunk has free space that was not looked at since the import.
    fn is_unknown(&self, chunk: &Chunk) -> bool {
        chunk.class == Class::Data
            && !chunk.closed
            && chunk.used < chunk.length()
            && !self.core.data.contains_key(&chunk.address)
    }

    /// Bytes that blocks of a size can still take, in chunks and in chunks to be made. Chunks that were not looked into
    /// count only with `all`.
    pub(crate) fn data_room(&mut self, block_size: u64, all: bool) -> Result<u64> {
        if all {
            let unknown: Vec<Logical> =
                self.core.map.iter().filter(|c| self.is_unknown(c)).map(|chunk| chunk.address).collect();
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
    pub(crate) fn node_room(&self) -> u64 {
        let groups = self.core.groups.keys();
        let outside = groups.map(|&group| self.core.potential(group, Purpose::Metadata)).sum::<u64>();
        self.core.free_nodes(Class::Metadata) + outside / tree::NODE_SIZE as u64
    }

    /// How many things, of `most`, a commit may free beside what is dirty; 0 when it has no nodes for any.
    fn freeable(&self, most: u64) -> u64 {
        let (dirty, room) = (self.dirty_entries(), self.node_room());
        let fits = |count: u64| self.nodes_for(dirty + count) * 4 <= room * 3;
        std::iter::successors(Some(most), |count| Some(count / 2))
            .find(|&count| count == 0 || fits(count))
            .unwrap_or(0)
    }

    /// How many things a commit is to free, at most `most`; makes way for it where nodes are short. At least 1: what
    /// writers leave free is kept for this.
    pub(crate) fn freed_at_once(&mut self, most: u64) -> Result<u64> {
        let most = most.min(HOLES_MAX);
        for _ in 0..=ROOTS_KEPT + 1 {
            let count = self.freeable(most);
            if count >= most.min(16) {
                return Ok(count);
            }
            if self.dirty_entries() == 0 && !self.core.nodes.values().any(|space| space.waits()) {
                break;
            }
            self.changed = true;
            self.commit()?;
        }
        Ok(self.freeable(most).max(1))
    }

    /// Accepts a change of the metadata alone that takes more than it gives back.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when it would take what is kept for deletion.
    pub(crate) fn admit_change(&mut self) -> Result<()> {
        for _ in 0..=ROOTS_KEPT + 1 {
            if self.claims.is_empty() && self.node_room() >= self.nodes_kept() + NODES_PER_COMMIT {
                return Ok(());
            }
            self.changed = true;
            self.commit()?;
        }
        Err(PoolError::NoSpace)
    }

    pub(crate) fn anything_waits(&self) -> bool {
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

    /// Bytes that a writer leaves to the reservations of other volumes: with the nodes for them, what rows and chunks
    /// leave over, and room for another chunk of nodes.
    pub(super) fn kept_for_reservations(&self, writer: DatasetId) -> u64 {
        match self.unused_reservations(Some(writer)) {
            0 => 0,
            unused => unused + unused / RESERVED_MARGIN + RESERVED_BYTES,
        }
    }

    /// Bytes that can still be written (to a volume: with what is reserved for it).
    pub(crate) fn available(&self, to: Option<DatasetId>) -> u64 {
        self.available_in(to, |_| true)
    }

    /// As [`Pool::available`], if there were only some of the chunks.
    pub(crate) fn available_in(&self, to: Option<DatasetId>, counts: impl Fn(&Chunk) -> bool) -> u64 {
        let inside: u64 = self
            .core
            .map
            .iter()
            .filter(|chunk| chunk.class == Class::Data && !chunk.closed && counts(chunk))
            .map(|chunk| match self.core.data.get(&chunk.address) {
                Some(space) => space.free_bytes() + space.free_soon(),
                None => chunk.length().saturating_sub(chunk.used),
            })
            .sum();
        // The last block is accepted while these are still free.
        let kept = self.nodes_kept() + self.nodes_for(1) + self.core.node_capacity_of(|chunk| !counts(chunk));
        let room = inside + self.core.room_outside(inside, kept);
        room.saturating_sub(self.unused_reservations(to)).saturating_sub(self.dirty_bytes)
    }
}
