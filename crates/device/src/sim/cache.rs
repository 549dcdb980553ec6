//! The volatile write cache: what a power cut may lose, tear or let through out of order.

use std::sync::Arc;

use super::faults::Discarded;
use crate::pages::{Pages, whole_pages};
use crate::ranges::RangeSet;
use crate::rng::Rng;

/// A write or discard that was acknowledged but that no flush has covered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unflushed {
    /// First byte on the disk.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What was written; `None` for a discard.
    pub bytes: Option<Arc<[u8]>>,
    /// Seed of the garbage that a discard may leave.
    pub(super) garbage: u64,
}

/// Which sectors of one write reach the medium. Sector 0 is the one that holds the write's first byte; sectors
/// are those of the disk, so an unaligned write's first one is partly covered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sectors {
    /// Every one.
    All,
    /// The first so many: the write was torn.
    First(u64),
    /// Those whose bit is set: sector `s` is bit `s % 64` of word `s / 64`; missing words are zero.
    Mask(Vec<u64>),
}

impl Sectors {
    fn contains(&self, sector: u64) -> bool {
        match self {
            Self::All => true,
            Self::First(count) => sector < *count,
            Self::Mask(words) => {
                words.get((sector / 64) as usize).is_some_and(|word| word >> (sector % 64) & 1 == 1)
            }
        }
    }
}

/// One unflushed write that survives a power cut, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its index in [`super::SimDevice::unflushed`]; survivors with an index beyond the list are ignored.
    pub index: usize,
    /// Which of its sectors survive.
    pub sectors: Sectors,
}

/// What a power cut does to the unflushed writes.
///
/// Reordering needs no choice of its own: a later write survives where an earlier one does not. Only the order
/// among overlapping survivors shows, which [`Cut::Explicit`] leaves to the caller; the others keep it.
#[derive(Clone, Copy, Debug)]
pub enum Cut<'a> {
    /// All are lost.
    DropAll,
    /// All survive.
    KeepAll,
    /// A random subset survives, some of it torn; the same seed makes the same choice.
    Random(u64),
    /// Write `i` survives whole if bit `i` is set, for up to 64 writes.
    Mask(u64),
    /// Exactly these, in this order.
    Explicit(&'a [Survivor]),
}

/// The unflushed writes, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    writes: Vec<Unflushed>,
}

impl Cache {
    pub(super) fn list(&self) -> &[Unflushed] {
        &self.writes
    }

    pub(super) fn push(&mut self, write: Unflushed) {
        self.writes.push(write);
    }

    /// As [`Self::drain_to`], where `current` shows every one of these writes: its pages become those of the medium,
    /// which spares memory. Not where the two differ by more than these writes, which is `apart`.
    pub(super) fn drain_shared(
        &mut self,
        medium: &mut Pages,
        current: &Pages,
        apart: &RangeSet,
        discarded: Discarded,
    ) {
        // A page is shared at every write to it or at none, so later ones of them leave in it what they should.
        for write in self.writes.drain(..) {
            let pages = whole_pages(&(write.offset..write.offset + write.length));
            if write.bytes.is_some() && apart.first_overlap(pages).is_none() {
                medium.share(current, write.offset, write.length);
            } else {
                write.apply(medium, discarded);
            }
        }
    }

    /// Puts every write on the medium and forgets it.
    pub(super) fn drain_to(&mut self, medium: &mut Pages, discarded: Discarded) {
        for write in self.writes.drain(..) {
            write.apply(medium, discarded);
        }
    }

    /// Puts what `cut` lets through on the medium and forgets the rest.
    pub(super) fn cut_to(&mut self, medium: &mut Pages, cut: Cut<'_>, sector: u64, discarded: Discarded) {
        let random;
        let survivors = match cut {
            Cut::DropAll => &[],
            Cut::KeepAll => return self.drain_to(medium, discarded),
            Cut::Random(seed) => {
                random = self.choose(&mut Rng::new(seed), sector);
                random.as_slice()
            }
            Cut::Mask(mask) => {
                random = (0..self.writes.len().min(64))
                    .filter(|index| mask >> index & 1 == 1)
                    .map(|index| Survivor { index, sectors: Sectors::All })
                    .collect();
                random.as_slice()
            }
            Cut::Explicit(survivors) => survivors,
        };
        for survivor in survivors {
            if let Some(write) = self.writes.get(survivor.index) {
                write.apply_sectors(medium, &survivor.sectors, sector, discarded);
            }
        }
        self.writes.clear();
    }

    /// A random subset: from nearly none to nearly all, every fourth survivor torn.
    fn choose(&self, rng: &mut Rng, sector: u64) -> Vec<Survivor> {
        let share = rng.below(9);
        let mut survivors = Vec::new();
        for (index, write) in self.writes.iter().enumerate() {
            let survives = rng.chance(share, 8);
            let sectors = if rng.chance(1, 4) { write.tear(rng, sector) } else { Sectors::All };
            if survives {
                survivors.push(Survivor { index, sectors });
            }
        }
        survivors
    }
}

impl Unflushed {
    /// How many sectors of `sector` bytes the write touches.
    pub fn sectors(&self, sector: u64) -> u64 {
        if self.length == 0 {
            return 0;
        }
        (self.offset + self.length).div_ceil(sector) - self.offset / sector
    }

    /// A random part of the sectors: a prefix, or any subset.
    pub(super) fn tear(&self, rng: &mut Rng, sector: u64) -> Sectors {
        let count = self.sectors(sector);
        if rng.chance(1, 2) {
            Sectors::First(rng.below(count))
        } else {
            Sectors::Mask((0..count.div_ceil(64)).map(|_| rng.next_u64()).collect())
        }
    }

    /// Does the write to `medium`.
    pub(super) fn apply(&self, medium: &mut Pages, discarded: Discarded) {
        match (&self.bytes, discarded) {
            (Some(bytes), _) => medium.write(self.offset, bytes),
            (None, Discarded::Kept) => {}
            (None, Discarded::Zeros) => medium.clear(self.offset, self.length),
            (None, Discarded::Garbage) => {
                let range = self.offset..self.offset + self.length;
                medium.change_stored(range, |at, bytes| Rng::new(self.garbage ^ at).fill(bytes));
            }
        }
    }

    /// The runs of bytes that lie in `sectors`, and their offsets. Empty for a discard.
    pub(super) fn parts<'a>(
        &'a self,
        sectors: &'a Sectors,
        sector: u64,
    ) -> impl Iterator<Item = (u64, &'a [u8])> {
        let end = self.offset + self.length;
        let first = self.offset / sector;
        self.bytes.iter().flat_map(move |bytes| {
            (0..self.sectors(sector)).filter(|&number| sectors.contains(number)).map(move |number| {
                let start = ((first + number) * sector).max(self.offset);
                let stop = ((first + number + 1) * sector).min(end);
                (start, &bytes[(start - self.offset) as usize..(stop - self.offset) as usize])
            })
        })
    }

    /// Does the part of the write that lies in `sectors` to `medium`. A discard happens whole.
    fn apply_sectors(&self, medium: &mut Pages, sectors: &Sectors, sector: u64, discarded: Discarded) {
        if *sectors == Sectors::All || self.bytes.is_none() {
            return self.apply(medium, discarded);
        }
        for (at, part) in self.parts(sectors, sector) {
            medium.write(at, part);
        }
    }
}
