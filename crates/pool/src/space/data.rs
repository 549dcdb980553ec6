//! What is free in a data chunk.

use std::collections::BTreeMap;

use super::{Deferred, FreeRuns};
use crate::types::Txg;

/// Free grains of one data chunk. Offsets and lengths are logical bytes from the chunk's beginning.
///
/// A grain is what can be written on its own: a sector, or a whole row where there is parity. A row that holds
/// anything live or waiting is not free.
#[derive(Clone, Debug)]
pub(crate) struct DataSpace {
    grain: u64,
    /// Whole grains.
    free: FreeRuns,
    /// Where there is parity: bytes in each row that are live or wait for older roots.
    held: BTreeMap<u64, u64>,
    deferred: Deferred<(u64, u64)>,
    cursor: u64,
    /// Nothing is free, nor ever will be.
    closed: bool,
}

impl DataSpace {
    /// A chunk of so many logical bytes with nothing in it.
    pub(crate) fn new(chunk_bytes: u64, grain: u64) -> Self {
        let mut free = FreeRuns::default();
        free.insert(0, chunk_bytes / grain * grain);
        Self { grain, free, held: BTreeMap::new(), deferred: Deferred::default(), cursor: 0, closed: false }
    }

    /// Hands out nothing any more.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.free = FreeRuns::default();
    }

    /// Notes bytes that are live.
    pub(crate) fn hold(&mut self, offset: u64, length: u64) {
        if self.grain > crate::SECTOR {
            for (row, bytes) in self.rows(offset, length) {
                *self.held.entry(row).or_default() += bytes;
            }
        }
        let first = offset / self.grain * self.grain;
        let end = (offset + length).next_multiple_of(self.grain);
        self.free.remove(first, end - first);
    }

    fn rows(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (grain, end) = (self.grain, offset + length);
        (offset / grain..end.div_ceil(grain)).map(move |row| {
            let (first, last) = ((row * grain).max(offset), ((row + 1) * grain).min(end));
            (row, last - first)
        })
    }

    /// Lets go of bytes that nothing knows any more.
    fn unhold(&mut self, offset: u64, length: u64) {
        if self.closed {
            return;
        }
        if self.grain > crate::SECTOR {
            for (row, bytes) in self.rows(offset, length) {
                match self.held.get_mut(&row) {
                    Some(held) if *held > bytes => *held -= bytes,
                    _ => {
                        self.held.remove(&row);
                        self.free.insert(row * self.grain, self.grain);
                    }
                }
            }
        } else {
            self.free.insert(offset, length);
        }
    }

    /// Takes between `least` and `most` bytes in one run (both multiples of the grain).
    pub(crate) fn allocate(&mut self, least: u64, most: u64) -> Option<(u64, u64)> {
        let (start, length) = self.free.allocate_up_to(least, most, self.grain, self.cursor)?;
        self.cursor = start + length;
        Some((start, length))
    }

    /// Gives back whole grains of an allocation in which nothing was stored.
    pub(crate) fn unallocate(&mut self, offset: u64, length: u64) {
        self.free.insert(offset, length);
        self.cursor = self.cursor.min(offset);
    }

    /// Notes what was stored in an allocation (where there is parity, rows hold it from now on).
    pub(crate) fn stored(&mut self, offset: u64, length: u64) {
        if self.grain > crate::SECTOR {
            for (row, bytes) in self.rows(offset, length) {
                *self.held.entry(row).or_default() += bytes;
            }
        }
    }

    /// Frees bytes that transaction group `txg` does not know any more.
    pub(crate) fn free_later(&mut self, txg: Txg, offset: u64, length: u64) {
        self.deferred.push(txg, (offset, length));
    }

    /// Lets bytes be used again at once, older roots or not: a defect for the simulator.
    pub(crate) fn free_now(&mut self, offset: u64, length: u64) {
        self.unhold(offset, length);
        self.cursor = self.cursor.min(offset);
    }

    /// Lets bytes be used again that no root from `oldest` on knows.
    pub(crate) fn release(&mut self, oldest: Txg) {
        for (offset, length) in self.deferred.release(oldest) {
            self.unhold(offset, length);
        }
    }

    /// How many pieces of `size` bytes fit.
    pub(crate) fn fitting(&self, size: u64) -> u64 {
        self.free.fitting(size)
    }

    /// Free bytes in whole grains.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free.total()
    }

    /// Bytes in whole grains that are free once no older root is kept.
    pub(crate) fn free_soon(&self) -> u64 {
        if self.closed {
            return 0;
        }
        if self.grain <= crate::SECTOR {
            return self.deferred.iter().map(|(_, length)| length).sum();
        }
        let mut leaving: BTreeMap<u64, u64> = BTreeMap::new();
        for &(offset, length) in self.deferred.iter() {
            for (row, bytes) in self.rows(offset, length) {
                *leaving.entry(row).or_default() += bytes;
            }
        }
        let emptied =
            leaving.iter().filter(|(row, bytes)| self.held.get(row).is_none_or(|held| held <= *bytes));
        emptied.count() as u64 * self.grain
    }

    /// The longest free run, bytes.
    pub(crate) fn longest(&self) -> u64 {
        self.free.longest()
    }

    /// Whether something waits for older roots to be forgotten.
    pub(crate) fn waits(&self) -> bool {
        !self.deferred.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_free_only_when_nothing_in_it_is_known() {
        let row = 64 << 10;
        let mut space = DataSpace::new(4 * row, row);
        assert_eq!(space.allocate(2 * row, 2 * row), Some((0, 2 * row)));
        space.stored(0, row + 4096);
        space.stored(row + 4096, 4096);
        space.free_later(Txg(5), 0, row + 4096);
        space.release(Txg(4));
        assert_eq!(space.free_bytes(), 2 * row);
        space.release(Txg(5));
        assert_eq!(space.free_bytes(), 3 * row);
        space.free_later(Txg(6), row + 4096, 4096);
        space.release(Txg(9));
        assert_eq!(space.free_bytes(), 4 * row);
    }

    #[test]
    fn a_space_made_from_extents_equals_the_one_that_wrote_them() {
        let mut written = DataSpace::new(1 << 20, 4096);
        let (a, _) = written.allocate(16384, 16384).unwrap();
        let (b, _) = written.allocate(8192, 8192).unwrap();
        let mut derived = DataSpace::new(1 << 20, 4096);
        derived.hold(b, 8192);
        derived.hold(a, 16384);
        assert_eq!(written.free, derived.free);
    }
}
