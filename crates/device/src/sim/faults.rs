//! Which requests go wrong, and how.

use std::ops::Range;

use crate::ranges::RangeSet;
use crate::rng::Rng;
use crate::{DeviceErrorKind, Operation};

/// When an unreadable range becomes readable again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healing {
    /// Where it is written: the disk maps in a spare sector.
    OnRewrite,
    /// Never.
    Never,
}

/// What discarded bytes read as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discarded {
    /// Zeros.
    #[default]
    Zeros,
    /// What they were before.
    Kept,
    /// Random bytes, where anything had been stored.
    Garbage,
}

/// What happens to a request. Effects that make no sense for it (a torn read) leave it alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails and changes nothing. A failed flush leaves the cache as it was.
    Fail(DeviceErrorKind),
    /// It fails half done: some sectors of a write are stored; of the writes a flush was to make durable some
    /// are, and the others are lost at the next power cut though reads still show them and later flushes
    /// succeed (as with a page cache that forgets what it could not write).
    FailTorn(DeviceErrorKind),
    /// A write, flush or discard is acknowledged but not done.
    Lost,
    /// A write is acknowledged but only some of its sectors are stored.
    Torn,
    /// A write goes to another place on the disk; a read comes from one.
    Misdirected,
    /// One bit of what is written or read is flipped.
    Corrupted,
    /// The disk goes away with this request, as with [`super::SimDevice::pull`].
    Gone,
}

/// How often each fault happens by chance, requests out of a million. All zero on a new disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Reads that fail, once.
    pub read_error: u32,
    /// Writes that fail, half done.
    pub write_error: u32,
    /// Flushes that fail, leaving the cache as it was.
    pub flush_error: u32,
    /// Reads with one bit wrong, once.
    pub corrupt_read: u32,
    /// Writes that store one bit wrong.
    pub corrupt_write: u32,
    /// Writes that are acknowledged but dropped.
    pub lost_write: u32,
    /// Writes that are acknowledged but stored in part.
    pub torn_write: u32,
    /// Writes that go elsewhere.
    pub misdirected_write: u32,
}

/// A rate and the effect it has.
type Choice = (u32, fn(DeviceErrorKind) -> Effect);

/// An effect that waits for its request.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Matching requests that still pass before it.
    left: u64,
    operation: Option<Operation>,
    effect: Effect,
}

/// Everything that is wrong with a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) gone: bool,
    pub(super) full: bool,
    pub(super) read_only: bool,
    pub(super) rates: Rates,
    pub(super) write_errors: RangeSet,
    /// The next read of each is wrong.
    pub(super) bad_reads: Vec<Range<u64>>,
    unreadable: RangeSet,
    unreadable_until_written: RangeSet,
    pub(super) plans: Vec<Plan>,
}

impl Faults {
    pub(super) fn add_read_errors(&mut self, range: Range<u64>, healing: Healing) {
        match healing {
            Healing::OnRewrite => self.unreadable_until_written.insert(range),
            Healing::Never => self.unreadable.insert(range),
        }
    }

    pub(super) fn clear_errors(&mut self, range: Range<u64>) {
        self.unreadable.remove(range.clone());
        self.unreadable_until_written.remove(range.clone());
        self.write_errors.remove(range);
    }

    pub(super) fn plan(&mut self, nth: u64, operation: Option<Operation>, effect: Effect) {
        self.plans.push(Plan { left: nth.saturating_sub(1), operation, effect });
    }

    /// A written range heals where it can.
    pub(super) fn written(&mut self, range: Range<u64>) {
        self.unreadable_until_written.remove(range);
    }

    /// The first unreadable byte of the range.
    pub(super) fn unreadable(&self, range: &Range<u64>) -> Option<u64> {
        let hard = self.unreadable.first_overlap(range.clone());
        let soft = self.unreadable_until_written.first_overlap(range.clone());
        hard.into_iter().chain(soft).map(|bad| bad.start).min()
    }

    /// Takes the range whose next read is wrong, if the read of `range` is one, cut to it.
    pub(super) fn take_bad_read(&mut self, range: &Range<u64>) -> Option<Range<u64>> {
        let overlap = |bad: &Range<u64>| bad.start.max(range.start)..bad.end.min(range.end);
        let found = self.bad_reads.iter().position(|bad| !overlap(bad).is_empty())?;
        Some(overlap(&self.bad_reads.swap_remove(found)))
    }

    /// What happens to the next request of this kind: a plan that is due, else chance.
    pub(super) fn next_effect(&mut self, operation: Operation, rng: &mut Rng) -> Option<Effect> {
        let mut due = None;
        for (index, plan) in self.plans.iter_mut().enumerate() {
            if plan.operation.is_some_and(|only| only != operation) {
                continue;
            }
            match plan.left.checked_sub(1) {
                Some(left) => plan.left = left,
                None => due = due.or(Some(index)),
            }
        }
        match due {
            Some(index) => Some(self.plans.remove(index).effect),
            None => self.rates.draw(operation, rng),
        }
    }
}

impl Rates {
    fn draw(&self, operation: Operation, rng: &mut Rng) -> Option<Effect> {
        // A disk without chance faults must not draw, so that switching them on changes nothing before.
        if *self == Self::default() {
            return None;
        }
        let medium = || DeviceErrorKind::Io("simulated medium error".to_owned());
        let choices: &[Choice] = match operation {
            Operation::Read => &[(self.read_error, Effect::Fail), (self.corrupt_read, |_| Effect::Corrupted)],
            Operation::Write => &[
                (self.write_error, Effect::FailTorn),
                (self.corrupt_write, |_| Effect::Corrupted),
                (self.lost_write, |_| Effect::Lost),
                (self.torn_write, |_| Effect::Torn),
                (self.misdirected_write, |_| Effect::Misdirected),
            ],
            Operation::Flush => &[(self.flush_error, Effect::Fail)],
            Operation::Open | Operation::Discard => &[],
        };
        let mut ticket = rng.below(1_000_000);
        for (rate, effect) in choices {
            match ticket.checked_sub(u64::from(*rate)) {
                Some(rest) => ticket = rest,
                None => return Some(effect(medium())),
            }
        }
        None
    }
}
