//! A set of bytes of a device, kept as ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of offsets: disjoint, never adjacent half-open ranges, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// Start to end.
    map: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every offset of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.map.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        // Everything that starts inside or right behind the grown range is swallowed by it.
        for (_, swallowed_end) in self.map.extract_if(start..=end, |_, _| true) {
            end = end.max(swallowed_end);
        }
        // The last swallowed range ended before the next one began, so nothing else touches the new end.
        self.map.insert(start, end);
    }

    /// Removes every offset of `range`.
    pub fn remove(&mut self, range: Range<u64>) {
        let Range { start, end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.map.range(..start).next_back()
            && before_end > start
        {
            self.map.insert(before, start);
            if before_end > end {
                self.map.insert(end, before_end);
                return;
            }
        }
        let last_end = self.map.extract_if(start..end, |_, _| true).map(|(_, end)| end).max();
        if let Some(last_end) = last_end
            && last_end > end
        {
            self.map.insert(end, last_end);
        }
    }

    /// The first part of `range` that is in the set.
    pub fn first_overlap(&self, range: Range<u64>) -> Option<Range<u64>> {
        self.overlaps(range).next()
    }

    /// The parts of `range` that are in the set, in order.
    pub fn overlaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = match self.map.range(..=range.start).next_back() {
            Some((&start, &end)) if end > range.start => start,
            _ => range.start,
        };
        // `first` never lies behind the end, so the range given to the map is well formed.
        let last = range.end.max(first);
        self.map
            .range(first..last)
            .map(move |(&start, &end)| start.max(range.start)..end.min(range.end))
            .filter(|overlap| !overlap.is_empty())
    }

    /// All ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.map.iter().map(|(&start, &end)| start..end)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many offsets are in the set.
    pub fn length(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against one flag per offset: membership, order, and that ranges are maximal.
        #[test]
        fn behaves_like_flags(steps in prop::collection::vec((any::<bool>(), 0_u64..64, 0_u64..20), 0..60)) {
            let mut set = RangeSet::new();
            let mut flags = [false; 84];
            for (add, start, length) in steps {
                let range = start..start + length;
                if add { set.insert(range.clone()) } else { set.remove(range.clone()) }
                flags[start as usize..(start + length) as usize].fill(add);
                let mut last = None;
                for part in set.iter() {
                    prop_assert!(part.start < part.end && last.is_none_or(|end| end < part.start));
                    last = Some(part.end);
                }
                let mut listed = [false; 84];
                for part in set.iter() {
                    listed[part.start as usize..part.end as usize].fill(true);
                }
                prop_assert_eq!(listed, flags);
                let overlap: u64 = set.overlaps(range.clone()).map(|r| r.end - r.start).sum();
                prop_assert_eq!(overlap, if add { length } else { 0 });
                prop_assert_eq!(set.length(), flags.iter().filter(|&&f| f).count() as u64);
            }
        }
    }
}
