//! How much is collected before a commit.
//!
//! A commit that is begun early runs beside the writers, and leaves little to whoever flushes. But blocks that are
//! written again and again go to the devices once a commit: where those come back soon, waiting longer saves most of
//! the writing. So groups start small, double while most of their blocks were written in a commit of the last seconds,
//! and shrink as soon as they were not.

use std::collections::VecDeque;

use super::COMMIT_AGE_MS;
use crate::types::{Millis, Txg};

/// Dirty bytes from which on a commit is begun without being asked for, at least.
const BEGIN_BYTES_MIN: u64 = 32 << 20;

/// Bounds of dirty bytes in one group.
const DIRTY_BYTES_MIN: u64 = 64 << 20;
const DIRTY_BYTES_MAX: u64 = 1 << 30;

/// See the head of this module.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Dirty bytes that are committed at the latest.
    most: u64,
    /// Dirty bytes from which on a commit is begun.
    begin: u64,
    /// Commits of the last [`COMMIT_AGE_MS`], oldest first.
    recent: VecDeque<(Txg, Millis)>,
    /// Bytes of blocks in this group, and of those among them that a recent commit wrote.
    bytes: u64,
    again: u64,
}

impl Pace {
    /// For an engine with a cache of so many bytes, of which dirty blocks may take their part.
    pub(crate) fn new(cache_bytes: u64) -> Self {
        let most = (cache_bytes / 3).clamp(DIRTY_BYTES_MIN, DIRTY_BYTES_MAX);
        Self { most, begin: BEGIN_BYTES_MIN, recent: VecDeque::new(), bytes: 0, again: 0 }
    }

    /// Dirty bytes that the engine commits by itself.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// Whether so much is dirty that a commit should be begun.
    pub(crate) fn is_due(&self, dirty: u64) -> bool {
        dirty >= self.begin
    }

    /// Whether so much is dirty that writers should wait for the commit under way: a little before the engine makes
    /// them do it.
    pub(crate) fn is_full(&self, dirty: u64) -> bool {
        dirty >= self.most / 8 * 7
    }

    /// Bytes by which dirty blocks go beyond what is granted beside the cache: two groups of the least size.
    pub(crate) fn beyond(dirty: u64) -> u64 {
        dirty.saturating_sub(2 * DIRTY_BYTES_MIN)
    }

    /// Takes note of a block that is committed, and of when the one before was.
    pub(crate) fn count(&mut self, bytes: u64, before: Option<Txg>) {
        self.bytes += bytes;
        if self.recent.front().is_some_and(|&(oldest, _)| before.is_some_and(|birth| birth >= oldest)) {
            self.again += bytes;
        }
    }

    /// Ends a group: the next one is larger or smaller. Groups that somebody asked for early say nothing.
    pub(crate) fn end(&mut self, txg: Txg, now: Millis) {
        let (bytes, again) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.again));
        if again >= bytes / 2 && bytes >= self.begin / 2 {
            self.begin = (self.begin * 2).min(self.most / 4 * 3);
        } else if again < bytes / 4 {
            self.begin = (self.begin / 2).max(BEGIN_BYTES_MIN);
        }
        self.recent.push_back((txg, now));
        while self.recent.front().is_some_and(|(_, at)| at.0 + COMMIT_AGE_MS < now.0) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Commits groups of so many bytes each, whose blocks were written `before` groups ago.
    fn groups(pace: &mut Pace, txgs: std::ops::Range<u64>, before: Option<u64>, step_ms: u64) {
        for txg in txgs {
            pace.count(pace.begin, before.map(|back| Txg(txg - back)));
            pace.end(Txg(txg), Millis(txg * step_ms));
        }
    }

    #[test]
    fn new_data_is_committed_early() {
        let mut pace = Pace::new(3 << 30);
        groups(&mut pace, 10..30, None, 50);
        assert!(pace.is_due(32 * MIB) && !pace.is_due(32 * MIB - 1));
    }

    #[test]
    fn what_comes_back_soon_is_collected_up_to_the_bound() {
        let mut pace = Pace::new(1536 * MIB);
        assert_eq!(pace.most(), 512 * MIB);
        groups(&mut pace, 10..30, Some(4), 50);
        assert_eq!(pace.begin, 384 * MIB);
        assert!(!pace.is_full(447 * MIB) && pace.is_full(448 * MIB));
        groups(&mut pace, 30..40, None, 50);
        assert_eq!(pace.begin, BEGIN_BYTES_MIN);
    }

    #[test]
    fn what_comes_back_late_is_not_waited_for() {
        let mut pace = Pace::new(1536 * MIB);
        groups(&mut pace, 10..30, Some(4), COMMIT_AGE_MS);
        assert_eq!(pace.begin, BEGIN_BYTES_MIN);
    }

    #[test]
    fn small_groups_that_were_asked_for_change_nothing() {
        let mut pace = Pace::new(1536 * MIB);
        groups(&mut pace, 10..13, Some(1), 50);
        let begin = pace.begin;
        assert!(begin > BEGIN_BYTES_MIN);
        for txg in 13..50 {
            pace.count(4096, Some(Txg(txg - 1)));
            pace.end(Txg(txg), Millis(txg * 50));
        }
        assert_eq!(pace.begin, begin);
    }

    #[test]
    fn a_small_cache_keeps_the_least_bounds() {
        let pace = Pace::new(0);
        assert_eq!(pace.most(), DIRTY_BYTES_MIN);
        assert_eq!(Pace::beyond(128 * MIB), 0);
        assert_eq!(Pace::beyond(130 * MIB), 2 * MIB);
    }
}
