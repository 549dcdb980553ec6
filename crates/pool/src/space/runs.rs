//! A set of free runs.

use std::collections::BTreeMap;

/// Sizes for which the number of pieces that fit is kept exact: 2^12 to 2^20 bytes.
const SIZES: std::ops::RangeInclusive<u32> = 12..=20;

/// Free runs of a linear space, merged where they touch. Units are whatever the caller counts in, except that
/// [`FreeRuns::fitting`] takes them for bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FreeRuns {
    /// Start to length.
    runs: BTreeMap<u64, u64>,
    total: u64,
    /// For each size of [`SIZES`], how many pieces of it the runs hold.
    pieces: [u64; 9],
}

impl FreeRuns {
    fn count(&mut self, length: u64, add: bool) {
        for (slot, shift) in self.pieces.iter_mut().zip(SIZES) {
            let pieces = length >> shift;
            *slot = if add { *slot + pieces } else { *slot - pieces };
        }
        self.total = if add { self.total + length } else { self.total - length };
    }

    fn put(&mut self, start: u64, length: u64) {
        self.runs.insert(start, length);
        self.count(length, true);
    }

    fn take(&mut self, start: u64) -> Option<u64> {
        let length = self.runs.remove(&start)?;
        self.count(length, false);
        Some(length)
    }

    /// Frees a range; parts of it that are free already stay free.
    pub(crate) fn insert(&mut self, start: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut first, mut last) = (start, start + length);
        if let Some((&before, &len)) = self.runs.range(..=start).next_back()
            && before + len >= start
        {
            self.take(before);
            first = before;
            last = last.max(before + len);
        }
        while let Some((&next, &len)) = self.runs.range(first..).next()
            && next <= last
        {
            self.take(next);
            last = last.max(next + len);
        }
        self.put(first, last - first);
    }

    /// Takes a range out; parts of it that are not free are passed over.
    pub(crate) fn remove(&mut self, start: u64, length: u64) {
        let end = start + length;
        if let Some((&before, &len)) = self.runs.range(..start).next_back()
            && before + len > start
        {
            self.take(before);
            self.put(before, start - before);
            if before + len > end {
                self.put(end, before + len - end);
            }
        }
        while let Some((&next, &len)) = self.runs.range(start..end).next() {
            self.take(next);
            if next + len > end {
                self.put(end, next + len - end);
            }
        }
    }

    /// Takes the first `length` of the lowest run that holds so many, from `hint` on and then from the beginning.
    pub(crate) fn allocate(&mut self, length: u64, hint: u64) -> Option<u64> {
        let found = self
            .runs
            .range(hint..)
            .chain(self.runs.range(..hint))
            .find(|&(_, &free)| free >= length)
            .map(|(&start, _)| start)?;
        self.remove(found, length);
        Some(found)
    }

    /// Takes up to `most` from the run at or behind `hint` (else from the beginning) that holds at least `least`;
    /// gives its start and the length taken, a multiple of `multiple`.
    pub(crate) fn allocate_up_to(
        &mut self,
        least: u64,
        most: u64,
        multiple: u64,
        hint: u64,
    ) -> Option<(u64, u64)> {
        let (start, free) = self
            .runs
            .range(hint..)
            .chain(self.runs.range(..hint))
            .find(|&(_, &free)| free >= least)
            .map(|(&start, &free)| (start, free))?;
        let length = free.min(most.max(least)) / multiple * multiple;
        self.remove(start, length);
        Some((start, length))
    }

    /// Whether the whole range is free.
    pub(crate) fn contains(&self, start: u64, length: u64) -> bool {
        self.runs.range(..=start).next_back().is_some_and(|(&at, &len)| at + len >= start + length)
    }

    /// Sum of all runs.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The longest run.
    pub(crate) fn longest(&self) -> u64 {
        self.runs.values().copied().max().unwrap_or(0)
    }

    /// How many pieces of `size` bytes (a power of two from 4 KiB to 1 MiB) fit into the runs.
    pub(crate) fn fitting(&self, size: u64) -> u64 {
        let shift = size.max(1).next_power_of_two().trailing_zeros().clamp(*SIZES.start(), *SIZES.end());
        self.pieces[(shift - SIZES.start()) as usize]
    }

    /// All runs as (start, length), rising.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(&start, &length)| (start, length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against one flag per unit: same free units, merged runs, exact piece counts.
        #[test]
        fn runs_agree_with_a_plain_array(steps in prop::collection::vec((any::<bool>(), 0u64..60, 1u64..20), 1..80)) {
            const UNIT: u64 = 4096;
            let mut runs = FreeRuns::default();
            let mut model = [false; 90];
            for (free, start, length) in steps {
                if free {
                    runs.insert(start * UNIT, length * UNIT);
                } else {
                    runs.remove(start * UNIT, length * UNIT);
                }
                model[start as usize..(start + length) as usize].fill(free);
                let mut expected = Vec::new();
                let mut at = 0;
                while at < model.len() {
                    let end = (at..model.len()).find(|&i| model[i] != model[at]).unwrap_or(model.len());
                    if model[at] {
                        expected.push((at as u64 * UNIT, (end - at) as u64 * UNIT));
                    }
                    at = end;
                }
                prop_assert_eq!(runs.iter().collect::<Vec<_>>(), expected.clone());
                prop_assert_eq!(runs.total(), expected.iter().map(|r| r.1).sum::<u64>());
                for size in [4096u64, 16384, 1 << 20] {
                    prop_assert_eq!(runs.fitting(size), expected.iter().map(|r| r.1 / size).sum::<u64>());
                }
            }
        }

        #[test]
        fn what_is_allocated_was_free_and_is_not_any_more(sizes in prop::collection::vec(1u64..9, 1..40), hint in 0u64..64) {
            let mut runs = FreeRuns::default();
            runs.insert(0, 20);
            runs.insert(30, 30);
            for size in sizes {
                let before = runs.clone();
                match runs.allocate(size, hint) {
                    Some(start) => {
                        prop_assert!(before.contains(start, size));
                        prop_assert_eq!(runs.total(), before.total() - size);
                        prop_assert!(!runs.contains(start, 1));
                    }
                    None => prop_assert!(before.longest() < size),
                }
            }
        }
    }
}
