//! Logical addresses for extents.
//!
//! A batch is spread over the groups by how much each has free. In a group with parity it fills whole rows; what
//! is left over and too little for a row goes to a mirrored chunk of the same fault tolerance. A row is filled up
//! with zeros only where that costs fewer raw bytes than mirroring, or where no mirrored chunk can be made.

use std::ops::ControlFlow;

use bytes::Bytes;
use geometry::Layout;
use tree::Key;

use crate::alloc::Purpose;
use crate::chunk::{Chunk, Class};
use crate::core::{Core, Group};
use crate::error::{PoolError, Result};
use crate::io::{Part, Piece};
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::space::DataSpace;
use crate::types::{GroupId, Logical};

/// Bytes that go to one group before the next has its turn.
pub(super) const TURN_BYTES: u64 = 4 << 20;

/// Rows of one piece: its column slices must fit into one vectored request.
pub(super) const PIECE_ROWS_MAX: u64 = 256;

/// Where extents were put.
pub(crate) struct Placed {
    /// For each item its address; none where there was no room.
    pub(crate) addresses: Vec<Option<Logical>>,
    /// What is to be written.
    pub(crate) pieces: Vec<Piece>,
}

impl Pool {
    /// Places items (each a whole number of sectors), in order.
    pub(crate) fn place(&mut self, items: &[Bytes]) -> Result<Placed> {
        let mut placed = Placed { addresses: vec![None; items.len()], pieces: Vec::new() };
        let mut at = 0;
        while at < items.len() {
            let mut count = 0;
            for group in self.groups_by_room() {
                count = self.place_in(group, at, items, &mut placed)?;
                if count > 0 {
                    break;
                }
            }
            // An item without a place stays without an address; smaller ones behind it may still fit.
            at += count.max(1);
        }
        Ok(placed)
    }

    /// All groups, the one that has most free first; before it the one in which what is relocated stays.
    pub(super) fn groups_by_room(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.core.groups.keys().copied().collect();
        let stays = self.core.relocating_in;
        groups.sort_by_key(|&group| {
            (stays != Some(group), std::cmp::Reverse(self.core.free_fraction(group)), group)
        });
        groups
    }

    /// Undoes [`Pool::place`]: nothing of it was written.
    pub(crate) fn unplace(&mut self, items: &[Bytes], placed: &Placed) {
        for (item, address) in items.iter().zip(&placed.addresses) {
            let length = item.len() as u64;
            let chunk = address.and_then(|address| Some((address.0, self.core.map.at(address)?.address)));
            let Some((address, chunk)) = chunk else { continue };
            if let Some(chunk) = self.core.map.change(chunk) {
                chunk.used = chunk.used.saturating_sub(length);
            }
            if let Some(space) = self.core.data.get_mut(&chunk) {
                space.free_now(address - chunk.0, length);
            }
        }
    }

    /// Places some items from `at` on in a group; how many.
    fn place_in(&mut self, group: GroupId, at: usize, items: &[Bytes], placed: &mut Placed) -> Result<usize> {
        let mut end = at;
        let mut total = 0;
        while end < items.len() && (end == at || total < TURN_BYTES) {
            total += items[end].len() as u64;
            end += 1;
        }
        let parity = self.core.groups.get(&group).is_some_and(Group::has_parity);
        if !parity {
            let count = self.place_run(group, false, total, at, end, items, placed)?;
            if count > 0 {
                return Ok(count);
            }
            // Rows of a profile that the group had before are better than no room.
            return self.place_run(group, true, total, at, end, items, placed);
        }
        // Rows first; what remains of the last turn goes to the mirrored chunk, or pads a row after all.
        let in_rows = self.items_for_rows(group, &items[at..end])?;
        if in_rows > 0 {
            let bytes: u64 = items[at..at + in_rows].iter().map(|item| item.len() as u64).sum();
            let count = self.place_run(group, true, bytes, at, at + in_rows, items, placed)?;
            if count > 0 {
                return Ok(count);
            }
        }
        let count = self.place_run(group, false, total, at, end, items, placed)?;
        if count > 0 {
            return Ok(count);
        }
        self.place_run(group, true, total, at, end, items, placed)
    }

    /// The layout that rows of the group will have. No chunk is made for the answer: it would be empty, and dropped
    /// again, whenever what is to be placed is too little for a row.
    fn row_layout(&mut self, group: GroupId, least: u64) -> Result<Option<Layout>> {
        let current =
            self.core.current_data.get(&(group, true)).and_then(|&address| self.core.map.get(address));
        if let Some(chunk) = current {
            return Ok(Some(chunk.layout));
        }
        if let Some(plan) = self.core.plan_chunk(group, Purpose::Data, None) {
            return Ok(Some(plan.layout));
        }
        let found = self.data_chunk(group, true, least)?;
        Ok(found.and_then(|address| self.core.map.get(address)).map(|chunk| chunk.layout))
    }

    /// How many of the items fill rows so that the raw bytes spent on all of them are fewest.
    fn items_for_rows(&mut self, group: GroupId, items: &[Bytes]) -> Result<usize> {
        let first = items.first().map_or(0, |item| item.len() as u64);
        let Some(layout) = self.row_layout(group, first)? else { return Ok(0) };
        Ok(count_for_rows(layout, items.iter().map(|item| item.len() as u64)))
    }

    /// Takes `length` bytes in a chunk of remainders of the group that has them, if one does: (chunk, offset).
    pub(super) fn take_remainder(&mut self, group: GroupId, length: u64) -> Option<(Logical, u64)> {
        let Core { map, data, .. } = &mut self.core;
        let fits = |chunk: &&Chunk| {
            chunk.class == Class::Data && chunk.group == group && !chunk.has_parity() && !chunk.closed
        };
        map.iter().filter(fits).find_map(|chunk| {
            let (offset, _) = data.get_mut(&chunk.address)?.allocate(length, length)?;
            Some((chunk.address, offset))
        })
    }

    /// Places items `at..end` (`total` bytes) one behind the other in one run of a chunk; how many found room.
    #[allow(clippy::too_many_arguments)]
    fn place_run(
        &mut self,
        group: GroupId,
        parity: bool,
        total: u64,
        at: usize,
        end: usize,
        items: &[Bytes],
        placed: &mut Placed,
    ) -> Result<usize> {
        let Some(first) = items.get(at).map(|item| item.len() as u64) else { return Ok(0) };
        let Some(address) = self.data_chunk(group, parity, first)? else { return Ok(0) };
        let Some(chunk) = self.core.map.get(address) else { return Ok(0) };
        let grain = chunk.grain();
        let most = if parity { total.min(PIECE_ROWS_MAX * grain) } else { total.min(TURN_BYTES) };
        let Some(space) = self.core.data.get_mut(&address) else { return Ok(0) };
        let least = first.next_multiple_of(grain);
        let Some((offset, room)) = space.allocate(least, most.next_multiple_of(grain)) else { return Ok(0) };
        let mut used = 0;
        let mut count = 0;
        let mut parts = Vec::new();
        for (index, item) in items[at..end].iter().enumerate() {
            if used + item.len() as u64 > room {
                break;
            }
            placed.addresses[at + index] = Some(Logical(address.0 + offset + used));
            parts.push(Part::Bytes(item.clone()));
            space.stored(offset + used, item.len() as u64);
            used += item.len() as u64;
            count += 1;
        }
        let length = used.next_multiple_of(grain);
        if length < room {
            space.unallocate(offset + length, room - length);
        }
        if let Some(chunk) = self.core.map.change(address) {
            chunk.used += used;
        }
        placed.pieces.push(Piece { chunk: address, offset, parts, length });
        Ok(count)
    }

    /// A data chunk of the group, with parity or without, that has a run of `least` bytes free: the current one, one
    /// that is known, a new one, or the last resort, one whose free space was not looked at yet.
    pub(super) fn data_chunk(&mut self, group: GroupId, parity: bool, least: u64) -> Result<Option<Logical>> {
        if let Some(found) = self.data_chunk_of(group, parity, least, true)? {
            return Ok(Some(found));
        }
        // Better a layout that is not wanted any more than no room.
        if self.core.relocating { Ok(None) } else { self.data_chunk_of(group, parity, least, false) }
    }

    /// As [`Pool::data_chunk`]; `strict`: of no other layout than new chunks get.
    fn data_chunk_of(
        &mut self,
        group: GroupId,
        parity: bool,
        least: u64,
        strict: bool,
    ) -> Result<Option<Logical>> {
        let has_parity = self.core.groups.get(&group).is_some_and(Group::has_parity);
        let purpose = if has_parity && !parity { Purpose::Remainder } else { Purpose::Data };
        let fits = |pool: &Self, address: Logical| {
            let grain = pool.core.map.get(address).map_or(1, Chunk::grain);
            pool.core.data.get(&address).is_some_and(|space| space.longest() >= least.next_multiple_of(grain))
        };
        if let Some(&current) = self.core.current_data.get(&(group, parity))
            && fits(self, current)
        {
            return Ok(Some(current));
        }
        let core = &self.core;
        let candidates: Vec<(Logical, u64)> = core
            .map
            .iter()
            .filter(|chunk| {
                chunk.class == Class::Data
                    && chunk.group == group
                    && chunk.has_parity() == parity
                    && !chunk.closed
                    && (!strict || core.suits(chunk, purpose))
            })
            .map(|chunk| (chunk.address, chunk.length() - chunk.used.min(chunk.length())))
            .collect();
        let mut found = candidates.iter().map(|&(address, _)| address).find(|&address| fits(self, address));
        if found.is_none() {
            // A chunk that is mostly empty is looked into before a new one is made.
            for &(address, free) in &candidates {
                let length = self.core.map.get(address).map_or(0, Chunk::length);
                if free * 4 >= length && !self.core.data.contains_key(&address) {
                    self.load_data_space(address)?;
                    if fits(self, address) {
                        found = Some(address);
                        break;
                    }
                }
            }
        }
        if found.is_none() {
            // A nearly full group has no room to spare for a chunk of remainders: they fill a row with zeros.
            let crowded = purpose == Purpose::Remainder && self.is_crowded(group);
            if purpose == Purpose::Remainder && !self.core.relocating {
                self.rests_are_full(group);
            }
            let made = if crowded { Err(PoolError::NoSpace) } else { self.core.make_chunk(group, purpose) };
            found = match made {
                Ok(address) if fits(self, address) => Some(address),
                Ok(_) | Err(PoolError::NoSpace) => None,
                Err(error) => return Err(error),
            };
        }
        if found.is_none() {
            for &(address, free) in &candidates {
                if free >= least && !self.core.data.contains_key(&address) {
                    self.load_data_space(address)?;
                    if fits(self, address) {
                        found = Some(address);
                        break;
                    }
                }
            }
        }
        if let Some(found) = found {
            self.core.current_data.insert((group, parity), found);
        }
        Ok(found)
    }

    /// Whether a chunk of remainders would take a good part of what the group could still make data chunks for.
    fn is_crowded(&self, group: GroupId) -> bool {
        let Some(plan) = self.core.plan_chunk(group, Purpose::Remainder, None) else { return true };
        let raw = plan.column_bytes * u64::from(plan.layout.columns());
        self.core.potential(group, Purpose::Data) < 4 * raw
    }

    /// Derives what is free in a data chunk from the extents tree and from what still waits.
    pub(crate) fn load_data_space(&mut self, address: Logical) -> Result<()> {
        let Some(chunk) = self.core.map.get(address) else { return Ok(()) };
        let (end, length, grain) = (chunk.end(), chunk.length(), chunk.grain());
        let mut space = DataSpace::new(length, grain);
        let mut beyond = None;
        self.extents.scan(
            &mut self.core,
            extent_key(address),
            extent_key(Logical(end.0 - 1)),
            |key, value| {
                let extent = Extent::decode(value)?;
                let offset = key.offset - address.0;
                if offset + u64::from(extent.stored) > length {
                    beyond = Some(key.offset);
                    return Ok::<_, PoolError>(ControlFlow::Break(()));
                }
                space.hold(offset, u64::from(extent.stored));
                Ok(ControlFlow::Continue(()))
            },
        )?;
        if let Some(at) = beyond {
            return Err(PoolError::Corrupt(format!("the extent at {at} reaches beyond chunk {address}")));
        }
        for (txg, offset, length) in self.core.unloaded_frees.remove(&address).unwrap_or_default() {
            space.hold(offset, length);
            space.free_later(txg, offset, length);
        }
        self.core.data.insert(address, space);
        Ok(())
    }

    /// Takes one reference off the extent with this home; without any it is gone, and its space comes back when no root
    /// knows it.
    pub(crate) fn free_extent(&mut self, home: Logical) -> Result<()> {
        let address = self.core.remaps.place_of(home);
        let key = extent_key(address);
        if self.kept_checkpoint().is_some()
            && let Some(extent) = self.extents.get_with(&mut self.core, key, Extent::decode)?.transpose()?
            && extent.references <= 1
            && self.hold_extent(home, &extent)?
        {
            return Ok(());
        }
        let Some(value) = self.extents.remove(&mut self.core, key)? else {
            return Err(PoolError::Corrupt(format!(
                "the extent at logical address {address} is freed twice"
            )));
        };
        let mut extent = Extent::decode(&value)?;
        if extent.references > 1 {
            extent.references -= 1;
            self.extents.insert(&mut self.core, key, &extent.encode())?;
            return Ok(());
        }
        let length = u64::from(extent.stored);
        if address != home {
            self.core.remaps.forget(home, length);
        }
        if self.core.lost.remove(&address) {
            self.meta.remove(&mut self.core, super::lost_key(address))?;
        }
        self.core.unwritten_extents.remove(&address);
        let Some(chunk) = self.core.map.at(address).map(|chunk| chunk.address) else {
            return Err(PoolError::Corrupt(format!(
                "the extent at logical address {address} is in no chunk"
            )));
        };
        self.leave_place(chunk, address, length);
        Ok(())
    }

    /// Nothing is at a place of a data chunk any more; it can be used again when no root knows otherwise.
    pub(crate) fn leave_place(&mut self, chunk: Logical, address: Logical, length: u64) {
        if let Some(chunk) = self.core.map.change(chunk) {
            chunk.used = chunk.used.saturating_sub(length);
        }
        self.reclaim.thinned(chunk);
        let early = self.core.is_sabotaged("free-early");
        let (txg, offset) = (self.core.txg, address.0 - chunk.0);
        match self.core.data.get_mut(&chunk) {
            Some(space) if early => space.free_now(offset, length),
            Some(space) => space.free_later(txg, offset, length),
            None => self.core.unloaded_frees.entry(chunk).or_default().push((txg, offset, length)),
        }
    }
}

/// How many items of these sizes, in order, are to fill rows so that the raw bytes spent on all are fewest.
pub(super) fn count_for_rows(layout: Layout, sizes: impl Iterator<Item = u64> + Clone) -> usize {
    let row = layout.row_bytes();
    let row_raw = u64::from(layout.columns()) * u64::from(layout.unit());
    let copies = u64::from(layout.parity()) + 1;
    let total: u64 = sizes.clone().sum();
    let (mut best, mut best_cost) = (0, total * copies);
    let mut sum = 0;
    for (index, size) in sizes.enumerate() {
        sum += size;
        let cost = sum.div_ceil(row) * row_raw + (total - sum) * copies;
        if cost < best_cost {
            (best, best_cost) = (index + 1, cost);
        }
    }
    best
}

/// The key of an extent in the extents tree.
pub(crate) fn extent_key(address: Logical) -> Key {
    Key { offset: address.0, ..EXTENT }
}

const EXTENT: Key = Key { object: 0, kind: 1, offset: 0 };
