//! Chunks are emptied unasked, when there is nothing else to do:
//!
//! - those that are nearly empty: what lives in them is relocated into room that other chunks of their kind have, and the devices have
//!   more that is unallocated;
//! - those that survive fewer failed devices than new ones would, as a conversion leaves them that did not end;
//! - those of what was too short for rows with parity, once they are full: together it fills rows, which takes less than copies;
//! - those that were closed by a balance or by reclaim that did not end.
//!
//! A chunk is looked at when something was freed from it, or it is full of short things, so the same bytes do not go round; one
//! that has to wait for room is looked at again after each commit. Before a writer is told that there is no space, chunks that are
//! not nearly empty have their turn as well, the emptiest first ([`Pool::make_room`]).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::relocate::Share;
use crate::alloc::Purpose;
use crate::chunk::{Chunk, Class};
use crate::error::{PoolError, Result};
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::txg::{ROOTS_KEPT, extent_key};
use crate::types::{GroupId, Logical, Millis, Txg};

/// Chunks that are looked at in one step, at most.
const LOOKS_MAX: usize = 16;

/// What is relocated at once to fill rows, bytes: many rows of the widest vdevs.
const ROWS_BYTES: u64 = 4 << 20;

/// Percent of a chunk below which it is emptied before there is no space for a writer.
const ROOM_PERCENT: u64 = 75;

/// Chunks that are looked at for a writer that waits for room, at most.
const ROOM_LOOKS_MAX: usize = 256;

/// Chunks that are emptied at once for a writer that waits for room.
const EMPTIED_AT_ONCE: usize = 8;

/// Extents and nodes that one commit has to be able to relocate then, at least.
const ROOM_THINGS: u64 = 4;

/// What is relocated in one commit while a writer waits for room, bytes.
const ROOM_BYTES: u64 = 16 << 20;

/// The chunk that is being emptied.
#[derive(Clone, Copy, Debug)]
struct Emptied {
    address: Logical,
    /// From which byte of it on.
    from: u64,
    /// Bytes and things that were relocated.
    bytes: u64,
    things: u64,
}

/// What is reclaimed. Nothing of it is kept over an import, which looks at all chunks once.
#[derive(Debug, Default)]
pub(crate) struct Reclaim {
    /// Chunks from which something was freed since they were looked at.
    thinned: BTreeSet<Logical>,
    current: Option<Emptied>,
    /// Chunks before this had their turn.
    cursor: Logical,
    /// The last commit after which all of them were looked at.
    looked: Txg,
    /// Since when the rate limit counts, and the bytes relocated since.
    limited: Option<(Millis, u64)>,
    /// Nothing could be emptied for a writer, and nothing was freed since.
    in_vain: bool,
}

impl Reclaim {
    /// Something in a chunk is not known any more.
    pub(crate) fn thinned(&mut self, chunk: Logical) {
        self.thinned.insert(chunk);
        self.in_vain = false;
    }
}

impl Pool {
    /// Looks at every chunk once: after an import and after a task, which may have left something.
    pub(crate) fn reclaim_all(&mut self) {
        self.reclaim.thinned = self.core.map.addresses().into_iter().collect();
    }

    /// Relocates about `budget` bytes from chunks that are hardly used, if there are any and the rate limit allows.
    pub(crate) fn reclaim_step(&mut self, budget: u64) -> Result<()> {
        if self.has_task() || !self.reclaim_may_go_on() {
            return Ok(());
        }
        let current = match self.reclaim.current {
            Some(current) => current,
            None => match self.next_reclaimed()? {
                Some(current) => current,
                None => return Ok(()),
            },
        };
        self.empty_some(current, budget, 0)
    }

    /// Relocates about `budget` bytes from a chunk that is being emptied, leaving so many nodes free, and commits.
    fn empty_some(&mut self, current: Emptied, budget: u64, kept: u64) -> Result<()> {
        self.reclaim.current = None;
        let Some(chunk) = self.core.map.get(current.address).cloned() else { return Ok(()) };
        let budget = if self.core.is_remainder(&chunk) { budget.max(ROWS_BYTES) } else { budget };
        let share = Share { already: 0, kept };
        self.core.relocating_in = Some(chunk.group);
        let step = match chunk.class {
            Class::Data => self.relocate_extents(&chunk, current.from, budget, share),
            Class::Metadata => self.relocate_nodes(&chunk, current.from, budget, share),
            Class::System => self.rewrite_chunk_tree(&chunk),
        };
        self.core.relocating_in = None;
        let step = match step {
            Ok(step) => step,
            Err(error) => {
                // It stays closed, has its turn again after another commit, and what was relocated is whole.
                self.reclaim.thinned(current.address);
                let committed = self.commit();
                self.reclaim.looked = self.committed;
                return if error == PoolError::NoSpace { committed } else { Err(error) };
            }
        };
        let (bytes, things) = (current.bytes + step.bytes, current.things + step.things);
        if let Some((_, done)) = &mut self.reclaim.limited {
            *done += step.bytes;
        }
        if let Some(from) = step.next {
            self.reclaim.current = Some(Emptied { from, bytes, things, ..current });
        } else {
            let what = if chunk.class == Class::Data { "extents" } else { "nodes" };
            let message = format!("relocated {things} {what} ({bytes} bytes) of chunk {}", chunk.address);
            self.core.events.push(self.core.now(), "reclaim", None, message);
        }
        self.changed = true;
        self.commit()
    }

    /// Empties chunks for a writer that finds no room; whether there were any. Nothing may be dirty.
    ///
    /// The first one goes into what is free in others. With that much to spare, the next are packed into new chunks.
    pub(crate) fn make_room(&mut self) -> Result<bool> {
        // What a rewind has to free first would be carried along.
        if self.has_task() || self.destroys() || self.reclaim.in_vain {
            return Ok(false);
        }
        for emptied in 0..EMPTIED_AT_ONCE {
            if !self.empty_for_room(emptied > 0)? {
                self.reclaim.in_vain = emptied == 0;
                return Ok(emptied > 0);
            }
            // What was in it comes back when no importable root knows of it any more.
            for _ in 0..=ROOTS_KEPT {
                self.changed = true;
                self.commit()?;
            }
        }
        Ok(true)
    }

    /// Empties the chunk from which most room is to be had, to new ones too if `anew`; whether there was one. Half of the nodes
    /// that are kept for deletion stay: those that relocation takes come back after a few commits.
    fn empty_for_room(&mut self, anew: bool) -> Result<bool> {
        if self.reclaim.current.is_none() {
            let Some((address, live)) = self.emptied_for_room(anew)? else { return Ok(false) };
            match self.close_chunk(address, 0) {
                Ok(()) => self.reclaim.current = Some(self.begins(address, live)),
                Err(PoolError::NoSpace) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut address = Logical(0);
        while let Some(current) = self.reclaim.current {
            address = current.address;
            self.empty_some(current, ROOM_BYTES, self.nodes_kept() / 2)?;
        }
        Ok(self.core.map.get(address).is_none_or(|chunk| self.live_in(chunk) == 0))
    }

    /// The chunk that is emptiest, and what lives in it, if emptying it gains room and leaves enough for what may be needed
    /// meanwhile.
    fn emptied_for_room(&mut self, anew: bool) -> Result<Option<(Logical, u64)>> {
        let kept = self.nodes_kept();
        if !self.claim_nodes(ROOM_THINGS, kept / 2, true) {
            return Ok(None);
        }
        let mut found: Vec<(u64, Chunk, u64)> = Vec::new();
        for chunk in self.core.map.iter().filter(|chunk| chunk.class != Class::System) {
            let live = self.live_in(chunk);
            let percent = live * 100 / chunk.length().max(1);
            if live > 0 && percent < ROOM_PERCENT {
                found.push((percent, chunk.clone(), live));
            }
        }
        found.sort_by_key(|(percent, chunk, _)| (*percent, chunk.address));
        for (_, chunk, live) in found.into_iter().take(ROOM_LOOKS_MAX) {
            let fits = if chunk.class == Class::Metadata {
                let free = self.core.nodes.get(&chunk.address).map_or(0, crate::space::NodeSpace::free);
                let others = self.core.free_nodes(Class::Metadata).saturating_sub(free);
                !anew && others >= 4 * kept + live / tree::NODE_SIZE as u64
            } else {
                (anew && self.fits_anew(&chunk, live)) || self.fits_elsewhere(&chunk, live)?
            };
            if fits {
                return Ok(Some((chunk.address, live)));
            }
        }
        Ok(None)
    }

    /// Tells that a chunk is about to be emptied.
    fn begins(&mut self, address: Logical, live: u64) -> Emptied {
        self.reclaim.thinned.remove(&address);
        if let Some(chunk) = self.core.map.get(address) {
            let percent = live * 100 / chunk.length().max(1);
            let message = format!("reclaiming chunk {address} with {percent}% used ({})", chunk.class.name());
            self.core.events.push(self.core.now(), "reclaim", None, message);
        }
        Emptied { address, from: 0, bytes: 0, things: 0 }
    }

    /// Another chunk of what is too short for rows is needed: those that a group has are looked at.
    pub(crate) fn rests_are_full(&mut self, group: GroupId) {
        let full = self.core.map.iter().filter(|chunk| chunk.group == group && self.core.is_remainder(chunk));
        let full: Vec<Logical> = full.map(|chunk| chunk.address).collect();
        self.reclaim.thinned.extend(full);
    }

    /// The next chunk to be emptied; it is closed.
    fn next_reclaimed(&mut self) -> Result<Option<Emptied>> {
        if self.reclaim.looked == self.committed {
            return Ok(None);
        }
        for _ in 0..LOOKS_MAX {
            // Those that have to wait are looked at again, once after each commit.
            let from = self.reclaim.cursor;
            let Some(&address) = self.reclaim.thinned.range(from..).next() else {
                self.reclaim.cursor = Logical(0);
                let waits = !self.core.unloaded_frees.is_empty()
                    || self.core.data.values().any(crate::space::DataSpace::waits);
                if waits && !self.reclaim.thinned.is_empty() {
                    // What was freed is room for others once no older root is kept that knows it.
                    self.changed = true;
                    self.commit()?;
                } else {
                    self.reclaim.looked = self.committed;
                }
                break;
            };
            self.reclaim.cursor = Logical(address.0 + 1);
            let Some(chunk) = self.core.map.get(address).cloned() else {
                self.reclaim.thinned.remove(&address);
                continue;
            };
            let (threshold, live) = (self.reclaim_threshold(chunk.class), self.live_in(&chunk));
            let is_weak = self.core.is_weak(&chunk);
            let is_thin = live * 100 < chunk.length() * threshold;
            let fills_rows = threshold > 0 && live * 2 >= chunk.length() && self.core.is_remainder(&chunk);
            if live == 0 || !(chunk.closed || is_weak || is_thin || fills_rows) {
                self.reclaim.thinned.remove(&address);
                continue;
            }
            // One that was given up half-way is as good as empty for everybody else.
            if !chunk.closed {
                let room = 2 * chunk.length();
                let anew = is_weak || fills_rows;
                let fits =
                    if anew { self.fits_anew(&chunk, live) } else { self.fits_elsewhere(&chunk, live)? };
                if self.is_current(address) || self.available(None) < room || !fits {
                    continue;
                }
                match self.close_chunk(address, 0) {
                    Err(PoolError::NoSpace) => continue,
                    closed => closed?,
                }
            }
            return Ok(Some(self.begins(address, live)));
        }
        Ok(None)
    }

    /// Percent of a chunk of the class below which it is emptied; 0 is never.
    fn reclaim_threshold(&self, class: Class) -> u64 {
        let property = match class {
            Class::Data => "reclaim_data",
            Class::Metadata => "reclaim_metadata",
            Class::System => return 0,
        };
        self.property(property).parse().unwrap_or(0)
    }

    /// Whether it is being filled.
    fn is_current(&self, chunk: Logical) -> bool {
        let core = &self.core;
        core.current_data.values().chain(core.current_nodes.values()).any(|&current| current == chunk)
    }

    /// Whether new chunks of its group have room twice over for what lives in one.
    fn fits_anew(&self, chunk: &Chunk, live: u64) -> bool {
        self.core.potential(chunk.group, Purpose::of(chunk)) >= 2 * live
    }

    /// Whether other chunks of the kind have room twice over for what lives in one.
    fn fits_elsewhere(&mut self, chunk: &Chunk, live: u64) -> Result<bool> {
        let purpose = Purpose::of(chunk);
        let alike = |pool: &Self, other: &Chunk| {
            other.address != chunk.address
                && (other.group, other.class) == (chunk.group, chunk.class)
                && !other.closed
                && other.has_parity() == chunk.has_parity()
                && (pool.core.suits(other, purpose) || pool.core.suits(other, Purpose::Remainder))
        };
        let others: Vec<Chunk> = self.core.map.iter().filter(|other| alike(self, other)).cloned().collect();
        let piece = if chunk.class == Class::Data { self.longest_extent(chunk)? } else { crate::SECTOR };
        let mut room = 0;
        for other in others {
            if chunk.class == Class::Data {
                let free = other.length() - other.used.min(other.length());
                if !self.core.data.contains_key(&other.address) && free * 4 >= other.length() {
                    self.load_data_space(other.address)?;
                }
                let space = self.core.data.get(&other.address);
                room += space.map_or(0, |space| space.fitting(piece) * piece);
            } else {
                let free = self.core.nodes.get(&other.address).map_or(0, crate::space::NodeSpace::free);
                room += free * tree::NODE_SIZE as u64;
            }
            if room >= 2 * live {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Bytes of the longest extent in a data chunk.
    fn longest_extent(&mut self, chunk: &Chunk) -> Result<u64> {
        let mut longest = crate::SECTOR;
        let (first, last) = (extent_key(chunk.address), extent_key(Logical(chunk.end().0 - 1)));
        self.extents.scan(&mut self.core, first, last, |_, value| {
            longest = longest.max(u64::from(Extent::decode(value)?.stored));
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })?;
        Ok(longest)
    }

    /// Whether the rate limit of scans lets it relocate more.
    fn reclaim_may_go_on(&mut self) -> bool {
        let limit = self.scan_limit();
        if limit == 0 || self.reclaim.current.is_none() {
            self.reclaim.limited = (limit > 0).then(|| (self.core.now(), 0));
            return true;
        }
        let (since, done) = *self.reclaim.limited.get_or_insert((self.core.now(), 0));
        let milliseconds = self.core.now().0.saturating_sub(since.0);
        u128::from(done) * 1000 <= u128::from(limit) * u128::from(milliseconds)
    }
}
