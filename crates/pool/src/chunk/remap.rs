//! Where what was relocated lives now.
//!
//! A logical address never changes: when an extent or node moves to another chunk, an entry here leads from its *home*,
//! the address that every pointer to it has, to the place where it is. Entries are runs, as long as what moved together;
//! they shrink and split as what lives there is freed. Relocating again rewrites the entry, so that entries never lead to
//! other entries. All of them are in memory, and items of the chunk tree on disk.
//!
//! No home is a place where something else lives: a chunk that something was relocated from is closed, and takes
//! nothing new until it is gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{DecodeError, Reader, Writer};
use crate::types::Logical;

/// A run of addresses that is somewhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes.
    pub length: u64,
    /// Where the run's first byte is.
    pub to: Logical,
}

impl Moved {
    /// The item of the chunk tree: see "Remap item" in `docs/on-disk-format.md`.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.length);
        w.u64(self.to.0);
        w.finish()
    }

    /// Undoes `encode` for the entry of `home`, refusing whatever later arithmetic could stumble over.
    pub(crate) fn decode(home: Logical, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("remap item", bytes);
        let length = r.u64("length")?;
        let to = Logical(r.u64("target")?);
        r.end()?;
        let fits = |start: u64| start.checked_add(length).is_some();
        if length == 0 || length % crate::SECTOR != 0 || !fits(home.0) || !fits(to.0) {
            return Err(DecodeError {
                record: "remap item",
                field: "length",
                problem: format!("{length} bytes from {home} to {to} are no run"),
            });
        }
        Ok(Self { length, to })
    }
}

/// The table of what was relocated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remaps {
    by_home: BTreeMap<Logical, Moved>,
    /// From where a run is to its home.
    by_place: BTreeMap<Logical, Logical>,
    /// Homes whose items in the chunk tree are out of date.
    dirty: BTreeSet<Logical>,
}

impl Remaps {
    /// Adds an entry as it was read from disk; false if it overlaps another one.
    pub(crate) fn load(&mut self, home: Logical, moved: Moved) -> bool {
        let before = self.by_home.range(..home).next_back();
        let overlaps = before.is_some_and(|(start, other)| start.0 + other.length > home.0)
            || self.by_home.range(home..).next().is_some_and(|(next, _)| next.0 < home.0 + moved.length);
        if !overlaps {
            self.by_home.insert(home, moved);
            self.by_place.insert(moved.to, home);
        }
        !overlaps
    }

    /// The entry that a home is in: its first address, and the run.
    fn entry(&self, home: Logical) -> Option<(Logical, Moved)> {
        let (&start, &moved) = self.by_home.range(..=home).next_back()?;
        (home.0 - start.0 < moved.length).then_some((start, moved))
    }

    /// Where what has this home is.
    pub(crate) fn place_of(&self, home: Logical) -> Logical {
        match self.entry(home) {
            Some((start, moved)) => Logical(moved.to.0 + (home.0 - start.0)),
            None => home,
        }
    }

    /// The home of what is at a place.
    pub(crate) fn home_of(&self, place: Logical) -> Logical {
        let found = self.by_place.range(..=place).next_back().and_then(|(&to, home)| {
            let within = place.0 - to.0;
            (within < self.by_home.get(home)?.length).then_some(Logical(home.0 + within))
        });
        found.unwrap_or(place)
    }

    fn put(&mut self, home: Logical, moved: Moved) {
        self.by_home.insert(home, moved);
        self.by_place.insert(moved.to, home);
        self.dirty.insert(home);
    }

    fn take(&mut self, home: Logical) -> Option<Moved> {
        let moved = self.by_home.remove(&home)?;
        self.by_place.remove(&moved.to);
        self.dirty.insert(home);
        Some(moved)
    }

    /// What has these homes is at `to` from now on.
    pub(crate) fn relocate(&mut self, home: Logical, length: u64, to: Logical) {
        self.forget(home, length);
        let before = self.by_home.range(..home).next_back().map(|(&start, &moved)| (start, moved));
        match before {
            Some((start, moved)) if start.0 + moved.length == home.0 && moved.to.0 + moved.length == to.0 => {
                self.put(start, Moved { length: moved.length + length, ..moved });
            }
            _ => self.put(home, Moved { length, to }),
        }
    }

    /// What had these homes is gone.
    pub(crate) fn forget(&mut self, home: Logical, length: u64) {
        let end = home.0 + length;
        let first = self.entry(home).map_or(home, |(start, _)| start);
        let touched: Vec<Logical> =
            self.by_home.range(first..Logical(end)).map(|(&start, _)| start).collect();
        for start in touched {
            let Some(moved) = self.take(start) else { continue };
            if start < home {
                self.put(start, Moved { length: home.0 - start.0, ..moved });
            }
            let behind = start.0 + moved.length;
            if behind > end {
                let to = Logical(moved.to.0 + (end - start.0));
                self.put(Logical(end), Moved { length: behind - end, to });
            }
        }
    }

    /// Every entry, by home.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Logical, Moved)> + '_ {
        self.by_home.iter().map(|(&home, &moved)| (home, moved))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_home.len()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The entries whose items are out of date: what they are now, none for those that are gone.
    pub(crate) fn take_dirty(&mut self) -> Vec<(Logical, Option<Moved>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|home| (home, self.by_home.get(&home).copied())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECTOR: u64 = crate::SECTOR;

    #[test]
    fn an_entry_comes_back_and_a_bad_one_is_refused() {
        let moved = Moved { length: 3 * SECTOR, to: Logical(1 << 30) };
        let bytes = moved.encode();
        assert_eq!(Moved::decode(Logical(0), &bytes), Ok(moved));
        assert!((0..bytes.len()).all(|cut| Moved::decode(Logical(0), &bytes[..cut]).is_err()));
        for (length, to) in [(0, 0), (100, 0), (SECTOR, u64::MAX), (u64::MAX / SECTOR * SECTOR, SECTOR)] {
            assert!(Moved::decode(Logical(SECTOR), &Moved { length, to: Logical(to) }.encode()).is_err());
        }
        let mut remaps = Remaps::default();
        assert!(remaps.load(Logical(0), moved));
        assert!(!remaps.load(Logical(2 * SECTOR), moved));
    }

    #[test]
    fn neighbours_that_move_together_are_one_entry() {
        let mut remaps = Remaps::default();
        for sector in 0..100 {
            remaps.relocate(Logical(sector * SECTOR), SECTOR, Logical((sector + 1000) * SECTOR));
        }
        assert_eq!(remaps.len(), 1);
        remaps.forget(Logical(50 * SECTOR), SECTOR);
        assert_eq!(remaps.len(), 2);
        assert_eq!(remaps.place_of(Logical(51 * SECTOR)), Logical(1051 * SECTOR));
    }

    proptest! {
        /// Against a plain map of sectors; what is dirty, written to another table, makes that one equal.
        #[test]
        fn the_table_agrees_with_a_map_of_sectors(
            steps in prop::collection::vec((any::<bool>(), 0u64..60, 1u64..8), 1..60),
        ) {
            let mut remaps = Remaps::default();
            let mut disk: BTreeMap<Logical, Moved> = BTreeMap::new();
            let mut model: BTreeMap<u64, u64> = BTreeMap::new();
            let mut next = 1000;
            for (relocate, home, length) in steps {
                if relocate {
                    remaps.relocate(Logical(home * SECTOR), length * SECTOR, Logical(next * SECTOR));
                    (0..length).for_each(|i| { model.insert(home + i, next + i); });
                    // Every other time what follows lands right behind.
                    next += length + next % 2;
                } else {
                    remaps.forget(Logical(home * SECTOR), length * SECTOR);
                    (0..length).for_each(|i| { model.remove(&(home + i)); });
                }
                for (home, entry) in remaps.take_dirty() {
                    match entry {
                        Some(moved) => disk.insert(home, moved),
                        None => disk.remove(&home),
                    };
                }
                for sector in 0..70 {
                    let place = model.get(&sector).copied().unwrap_or(sector);
                    prop_assert_eq!(remaps.place_of(Logical(sector * SECTOR)), Logical(place * SECTOR));
                    prop_assert_eq!(remaps.home_of(Logical(place * SECTOR)), Logical(sector * SECTOR));
                }
                let mut loaded = Remaps::default();
                prop_assert!(disk.iter().all(|(&home, &moved)| loaded.load(home, moved)));
                prop_assert!(loaded.iter().eq(remaps.iter()));
            }
        }
    }
}
