//! Chunks that are nearly empty are emptied by themselves, when there is nothing else to do: what lives in them is relocated
//! into room that other chunks of their kind have, and the devices have more that is unallocated. So are chunks that
//! survive fewer failed devices than new ones would, as a conversion leaves them that did not end: what is in
//! them goes to new ones.
//!
//! Only a chunk from which something was freed is looked at, so the same bytes do not go round; one that has to wait for
//! room is looked at again after each commit. A chunk that was closed by a balance or reclaim that did not end is emptied to the end.

use std::collections::BTreeSet;

use crate::alloc::Purpose;
use crate::chunk::{Chunk, Class};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::types::{Logical, Millis, Txg};

/// Chunks that are looked at in one step, at most.
const LOOKS_MAX: usize = 16;

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
}

impl Reclaim {
    /// Something in a chunk is not known any more.
    pub(crate) fn thinned(&mut self, chunk: Logical) {
        self.thinned.insert(chunk);
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
                Some(address) => Emptied { address, from: 0, bytes: 0, things: 0 },
                None => return Ok(()),
            },
        };
        self.reclaim.current = None;
        let Some(chunk) = self.core.map.get(current.address).cloned() else { return Ok(()) };
        self.core.relocating_in = Some(chunk.group);
        let step = match chunk.class {
            Class::Data => self.relocate_extents(&chunk, current.from, budget, 0),
            Class::Metadata => self.relocate_nodes(&chunk, current.from, budget, 0),
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

    /// The next chunk to be emptied; it is closed.
    fn next_reclaimed(&mut self) -> Result<Option<Logical>> {
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
            if live == 0 || !(chunk.closed || is_weak || is_thin) {
                self.reclaim.thinned.remove(&address);
                continue;
            }
            // One that was given up half-way is as good as empty for everybody else.
            if !chunk.closed {
                let room = 2 * chunk.length();
                let fits =
                    if is_weak { self.fits_anew(&chunk, live) } else { self.fits_elsewhere(&chunk, live)? };
                if self.is_current(address) || self.available(None) < room || !fits {
                    continue;
                }
                match self.close_chunk(address, 0) {
                    Err(PoolError::NoSpace) => continue,
                    closed => closed?,
                }
            }
            self.reclaim.thinned.remove(&address);
            let percent = live * 100 / chunk.length().max(1);
            let message = format!("reclaiming chunk {address} with {percent}% used ({})", chunk.class.name());
            self.core.events.push(self.core.now(), "reclaim", None, message);
            return Ok(Some(address));
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
        let mut room = 0;
        for other in others {
            if chunk.class == Class::Data {
                let free = other.length() - other.used.min(other.length());
                if !self.core.data.contains_key(&other.address) && free * 4 >= other.length() {
                    self.load_data_space(other.address)?;
                }
                room += self.core.data.get(&other.address).map_or(0, crate::space::DataSpace::free_bytes);
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
