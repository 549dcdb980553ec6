//! Room that is taken when a block is accepted.
//!
//! Where space is plenty a look at what is free is enough ([`Pool::is_roomy`]). Where it is short nothing is left to
//! the commit: a block is accepted only once it has a *home*, a place in a run that is taken for it at its full
//! size, and once the nodes that the commit may write are there in chunks that exist. Homes whose blocks were
//! compressed or discarded since are given back by the commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use tree::Tree;

use super::place::{PIECE_ROWS_MAX, Placed, count_for_rows};
use crate::chunk::{Chunk, Class};
use crate::core::Group;
use crate::error::Result;
use crate::io::{Part, Piece};
use crate::pool::Pool;
use crate::types::{DatasetId, Logical};

/// Bytes taken at once for blocks that follow each other, so that they share rows.
const RUN_BYTES: u64 = 1 << 20;

/// Nodes that one commit rewrites besides those of the blocks it changes.
pub(super) const NODES_PER_COMMIT: u64 = 24;

/// A run of a data chunk, taken for blocks.
#[derive(Clone, Copy, Debug)]
struct Run {
    chunk: Logical,
    offset: u64,
    length: u64,
    /// Sizes of the blocks that live in it, bytes.
    filled: u64,
}

/// What is taken for dirty blocks.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    runs: Vec<Run>,
    /// The run that a block is to go to.
    homes: BTreeMap<(DatasetId, u64), usize>,
    /// There are dirty blocks without a home, accepted while there was plenty of room.
    pub(super) homeless: bool,
    /// Space is short.
    pub(super) tight: bool,
}

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn has(&self, id: DatasetId, block: u64) -> bool {
        self.homes.contains_key(&(id, block))
    }
}

impl Pool {
    /// Dirty blocks and discards.
    pub(crate) fn dirty_entries(&self) -> u64 {
        self.datasets.values().map(|dataset| dataset.dirty.len() as u64).sum()
    }

    /// The most nodes that a commit of so many changed blocks writes.
    ///
    /// A block touches the leaf of its volume, of its old and its new extent, and of the deadlist where there is a snapshot
    /// (which also remembers the nodes of the volume that are replaced). Nothing can be touched that does not
    /// exist, each leaf touched may split, and the new items fill leaves at least to a third.
    pub(crate) fn nodes_for(&self, entries: u64) -> u64 {
        let height = |tree: &Tree| tree.root().map_or(0, |root| u64::from(root.level)) + 1;
        let (mut trees, mut highest, mut snapshots) = (3, height(&self.extents), false);
        for dataset in self.datasets.values() {
            highest = highest.max(height(&dataset.tree)).max(height(&dataset.deadlist));
            snapshots |= dataset.previous.is_some();
            trees += 2 * u64::from(!dataset.dirty.is_empty());
        }
        let mut leaves = if snapshots { 4 + highest } else { 3 };
        if let Some(checkpoint) = &self.checkpoint {
            // What is held back: the old extent, and the nodes of the volume and of the deadlist that are replaced.
            highest = highest.max(height(&checkpoint.held));
            trees += 1;
            leaves += 1 + highest * if snapshots { 2 } else { 1 };
        }
        let live = self.core.live_nodes(Class::Metadata);
        let leaves = entries * leaves;
        let branches = (leaves * (highest - 1)).min(live / 8 + highest * trees);
        let touched = (leaves + branches).min(live + trees);
        touched + leaves.min(live + trees) + entries / 20 + trees + NODES_PER_COMMIT
    }

    /// Takes room for a block for good; false where there is none now.
    pub(super) fn claim(&mut self, id: DatasetId, block: u64, block_size: u64) -> Result<bool> {
        self.claims.tight = true;
        if !self.claim_nodes(1, self.nodes_kept(), false) {
            return Ok(false);
        }
        if self.claims.has(id, block) {
            return Ok(true);
        }
        let kept = self.kept_for_reservations(id);
        if kept > 0 && self.data_room(block_size, true)? < kept + block_size {
            return Ok(false);
        }
        let roomy = |run: &Run| run.length - run.filled >= block_size;
        let home = if let Some(home) = self.claims.runs.iter().rposition(roomy) {
            home
        } else {
            let Some(run) = self.claim_run(block_size)? else { return Ok(false) };
            self.claims.runs.push(run);
            self.claims.runs.len() - 1
        };
        self.claims.runs[home].filled += block_size;
        self.claims.homes.insert((id, block), home);
        Ok(true)
    }

    /// Sees to it that the nodes that a commit with so many more blocks may write are there, and `kept` others; chunks
    /// are made for a single block, or `eagerly` for any number.
    pub(crate) fn claim_nodes(&mut self, more: u64, kept: u64, eagerly: bool) -> bool {
        // A new chunk is an item of the chunk tree, all of which may be rewritten.
        while self.core.free_nodes(Class::System) < 2 * self.core.live_nodes(Class::System) + NODES_PER_COMMIT
        {
            if self.core.make_node_chunk(Class::System).is_none() {
                return false;
            }
        }
        let entries = self.dirty_entries() + more;
        let needed = self.nodes_for(entries) + kept;
        while self.core.free_nodes(Class::Metadata) < needed {
            // Less at once needs fewer nodes.
            if (entries > 1 && !eagerly) || self.core.make_node_chunk(Class::Metadata).is_none() {
                return false;
            }
        }
        true
    }

    /// Takes a run of at least `least` bytes: in rows where there is to be parity, else in copies; then in what is left of
    /// the other kind, which may be of a profile that the group had before.
    fn claim_run(&mut self, least: u64) -> Result<Option<Run>> {
        for group in self.groups_by_room() {
            let rows = self.core.groups.get(&group).is_some_and(Group::has_parity);
            for parity in [rows, !rows] {
                let Some(chunk) = self.data_chunk(group, parity, least)? else { continue };
                let grain = self.core.map.get(chunk).map_or(1, Chunk::grain);
                let least = least.next_multiple_of(grain);
                let most = RUN_BYTES.next_multiple_of(grain).min(PIECE_ROWS_MAX * grain).max(least);
                let taken = self.core.data.get_mut(&chunk).and_then(|space| space.allocate(least, most));
                if let Some((offset, length)) = taken {
                    return Ok(Some(Run { chunk, offset, length, filled: 0 }));
                }
            }
        }
        Ok(None)
    }

    /// Puts blocks into their homes, and gives back what is left of those. `blocks`: dataset and number of each item;
    /// items without a home are passed over.
    pub(super) fn place_at_home(
        &mut self,
        blocks: &[(DatasetId, u64)],
        items: &[Bytes],
        placed: &mut Placed,
    ) {
        let Claims { runs, homes, tight, .. } = std::mem::take(&mut self.claims);
        self.claims.tight = tight;
        let mut residents = vec![Vec::new(); runs.len()];
        for (index, block) in blocks.iter().enumerate() {
            if let Some(&home) = homes.get(block) {
                residents[home].push(index);
            }
        }
        for (run, residents) in runs.into_iter().zip(residents) {
            let Some(chunk) = self.core.map.get(run.chunk) else { continue };
            let (group, grain) = (chunk.group, chunk.grain());
            let size = |index: &usize| items[*index].len() as u64;
            // As elsewhere, what is too little for a row goes to a chunk of remainders; here only if one has room.
            let mut in_rows = residents.len();
            if chunk.has_parity() {
                let count = count_for_rows(chunk.layout, residents.iter().map(size));
                let rest = &residents[count..];
                let taken = (!rest.is_empty())
                    .then(|| self.take_remainder(group, rest.iter().map(size).sum()))
                    .flatten();
                if let Some((chunk, offset)) = taken {
                    in_rows = count;
                    self.settle_run(chunk, offset, rest, items, placed);
                }
            }
            let used = self.settle_run(run.chunk, run.offset, &residents[..in_rows], items, placed);
            let length = used.next_multiple_of(grain);
            if let Some(space) = self.core.data.get_mut(&run.chunk) {
                space.unallocate(run.offset + length, run.length - length);
            }
        }
    }

    /// Puts some of the items one behind the other into space that is taken; how many bytes they are.
    fn settle_run(
        &mut self,
        chunk: Logical,
        offset: u64,
        residents: &[usize],
        items: &[Bytes],
        placed: &mut Placed,
    ) -> u64 {
        let mut used = 0;
        let mut parts = Vec::with_capacity(residents.len());
        let Some(space) = self.core.data.get_mut(&chunk) else { return 0 };
        for &index in residents {
            let length = items[index].len() as u64;
            placed.addresses[index] = Some(Logical(chunk.0 + offset + used));
            parts.push(Part::Bytes(items[index].clone()));
            space.stored(offset + used, length);
            used += length;
        }
        if used > 0
            && let Some(record) = self.core.map.change(chunk)
        {
            record.used += used;
            let length = used.next_multiple_of(record.grain());
            placed.pieces.push(Piece { chunk, offset, parts, length });
        }
        used
    }
}
