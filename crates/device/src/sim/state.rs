//! A simulated disk's contents and how each request changes them.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use super::cache::{Cache, Cut, Unflushed};
use super::cost::Clock;
use super::faults::{Discarded, Effect, Faults};
use super::power::Power;
use super::trace::Counts;
use crate::check::Target;
use crate::pages::Pages;
use crate::ranges::RangeSet;
use crate::rng::Rng;
use crate::{DeviceError, DeviceErrorKind, Operation};

/// Everything about a disk that a fork copies.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) size: u64,
    /// What reads see.
    pub(super) current: Pages,
    /// What is there after a power cut that loses the whole cache.
    pub(super) durable: Pages,
    /// Where these two may differ by more than what is in the cache.
    apart: RangeSet,
    pub(super) cache: Cache,
    pub(super) faults: Faults,
    discarded: Discarded,
    pub(super) counts: Counts,
    pub(super) clock: Clock,
    volatile: bool,
    /// Bytes of the unit that is written whole or not at all.
    sector: u64,
    rng: Rng,
}

/// A request as it arrives.
pub(super) struct Asked<'a> {
    pub(super) target: Target<'a>,
    pub(super) power: Power,
}

impl Asked<'_> {
    fn fail(&self, kind: DeviceErrorKind) -> Result<(), DeviceError> {
        Err(self.target.error(kind))
    }

    /// Call only once the range was checked.
    fn range(&self) -> Range<u64> {
        self.target.offset..self.target.offset + self.target.length
    }
}

fn medium_error(at: u64) -> DeviceErrorKind {
    DeviceErrorKind::Io(format!("simulated medium error at {at}"))
}

impl State {
    pub(super) fn new(size: u64, sector: u64, seed: u64) -> Self {
        Self {
            size,
            current: Pages::default(),
            durable: Pages::default(),
            apart: RangeSet::new(),
            cache: Cache::default(),
            faults: Faults::default(),
            discarded: Discarded::default(),
            counts: Counts::default(),
            clock: Clock::default(),
            volatile: true,
            sector,
            rng: Rng::new(seed),
        }
    }

    /// Counts and times a request and refuses it if the disk could not even take it.
    pub(super) fn begin(&mut self, asked: &Asked<'_>) -> Result<(), DeviceError> {
        let Target { operation, offset, length, .. } = asked.target;
        self.counts.add(operation, length);
        if asked.power == Power::Off || self.faults.gone {
            return asked.fail(DeviceErrorKind::Gone);
        }
        if operation == Operation::Flush {
            self.clock.flush();
        } else {
            asked.target.require_within(self.size)?;
            // A discard moves no data.
            self.clock.transfer(offset, if operation == Operation::Discard { 0 } else { length });
        }
        if self.faults.read_only && matches!(operation, Operation::Write | Operation::Discard) {
            return asked.fail(DeviceErrorKind::ReadOnly);
        }
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        asked: &Asked<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Result<(), DeviceError> {
        let range = asked.range();
        let effect = self.faults.next_effect(Operation::Read, &mut self.rng);
        let mut from = range.start;
        match &effect {
            Some(Effect::Fail(kind) | Effect::FailTorn(kind)) => return asked.fail(kind.clone()),
            Some(Effect::Gone) => return self.leave(asked),
            Some(Effect::Misdirected) => from = self.elsewhere(&range),
            _ => {}
        }
        if let Some(bad) = self.faults.unreadable(&range) {
            return asked.fail(medium_error(bad));
        }
        for buffer in buffers.iter_mut() {
            self.current.read(from, buffer);
            from += buffer.len() as u64;
        }
        let once = self.faults.take_bad_read(&range);
        let wrong = if effect == Some(Effect::Corrupted) { Some(range.clone()) } else { once };
        if let Some(wrong) = wrong.filter(|wrong| !wrong.is_empty()) {
            let bit = self.rng.below(8);
            let mut place = (self.rng.within(wrong) - range.start) as usize;
            for buffer in buffers {
                if let Some(byte) = buffer.get_mut(place) {
                    *byte ^= 1 << bit;
                    break;
                }
                place -= buffer.len();
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, asked: &Asked<'_>, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let range = asked.range();
        let effect = self.faults.next_effect(Operation::Write, &mut self.rng);
        match &effect {
            Some(Effect::Fail(kind)) => return asked.fail(kind.clone()),
            Some(Effect::Gone) => return self.leave(asked),
            _ => {}
        }
        if let Some(bad) = self.faults.write_errors.first_overlap(range.clone()) {
            return asked.fail(medium_error(bad.start));
        }
        if self.faults.full && !self.current.stores(range.start, asked.target.length) {
            return asked.fail(DeviceErrorKind::NoSpace);
        }
        let mut bytes: Arc<[u8]> = match buffers {
            [one] => Arc::from(&one[..]),
            many => many.iter().map(|buffer| &buffer[..]).collect::<Vec<_>>().concat().into(),
        };
        match effect {
            None => self.store(range.start, bytes),
            Some(Effect::Lost) => {}
            Some(Effect::Misdirected) => {
                let elsewhere = self.elsewhere(&range);
                self.store(elsewhere, bytes);
            }
            Some(Effect::Corrupted) => {
                let (at, bit) = (self.rng.below(bytes.len() as u64), self.rng.below(8));
                if let Some(byte) = Arc::make_mut(&mut bytes).get_mut(at as usize) {
                    *byte ^= 1 << bit;
                }
                self.store(range.start, bytes);
            }
            Some(Effect::Torn) => self.store_torn(range.start, &bytes),
            Some(Effect::FailTorn(kind)) => {
                self.store_torn(range.start, &bytes);
                return asked.fail(kind);
            }
            // These have returned above.
            Some(Effect::Fail(kind)) => return asked.fail(kind),
            Some(Effect::Gone) => return self.leave(asked),
        }
        if asked.power == Power::Failing {
            return asked.fail(DeviceErrorKind::Gone);
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, asked: &Asked<'_>) -> Result<(), DeviceError> {
        if asked.power == Power::Failing {
            return asked.fail(DeviceErrorKind::Gone);
        }
        match self.faults.next_effect(Operation::Flush, &mut self.rng) {
            Some(Effect::Fail(kind)) => asked.fail(kind),
            Some(Effect::FailTorn(kind)) => {
                let cut = Cut::Random(self.rng.next_u64());
                self.set_apart();
                self.cache.cut_to(&mut self.durable, cut, self.sector, self.discarded);
                asked.fail(kind)
            }
            Some(Effect::Gone) => self.leave(asked),
            Some(Effect::Lost) => Ok(()),
            _ => {
                self.drain();
                Ok(())
            }
        }
    }

    pub(super) fn discard(&mut self, asked: &Asked<'_>) -> Result<(), DeviceError> {
        if asked.power == Power::Failing {
            return asked.fail(DeviceErrorKind::Gone);
        }
        match self.faults.next_effect(Operation::Discard, &mut self.rng) {
            Some(Effect::Fail(kind) | Effect::FailTorn(kind)) => return asked.fail(kind),
            Some(Effect::Gone) => return self.leave(asked),
            Some(Effect::Lost) => return Ok(()),
            _ => {}
        }
        let Target { offset, length, .. } = asked.target;
        let garbage = if self.discarded == Discarded::Garbage { self.rng.next_u64() } else { 0 };
        self.remember(Unflushed { offset, length, bytes: None, garbage });
        Ok(())
    }

    pub(super) fn power_cut(&mut self, cut: Cut<'_>) {
        self.cache.cut_to(&mut self.durable, cut, self.sector, self.discarded);
        self.current = self.durable.clone();
        self.apart = RangeSet::new();
    }

    pub(super) fn set_discarded(&mut self, discarded: Discarded) {
        self.set_apart();
        self.discarded = discarded;
    }

    /// All unflushed writes become durable.
    fn drain(&mut self) {
        self.cache.drain_shared(&mut self.durable, &self.current, &self.apart, self.discarded);
    }

    /// What is in the cache may come to the medium as something else than what reads see.
    fn set_apart(&mut self) {
        for write in self.cache.list() {
            self.apart.insert(write.offset..write.offset + write.length);
        }
    }

    pub(super) fn set_write_cache(&mut self, volatile: bool) {
        self.volatile = volatile;
        if !volatile {
            self.drain();
        }
    }

    pub(super) fn set_size(&mut self, size: u64) {
        for pages in [&mut self.current, &mut self.durable] {
            pages.clear(size, u64::MAX - size);
        }
        if size < self.size {
            // What is unflushed beyond the new end must not come back, so it is settled first.
            self.drain();
            self.durable.clear(size, u64::MAX - size);
        }
        self.size = size;
    }

    pub(super) fn corrupt(&mut self, range: Range<u64>, bits: u32) {
        if range.is_empty() {
            return;
        }
        self.set_apart();
        for _ in 0..bits {
            let (at, bit) = (self.rng.within(range.clone()), self.rng.below(8));
            for pages in [&mut self.current, &mut self.durable] {
                let mut byte = [0];
                pages.read(at, &mut byte);
                pages.write(at, &[byte[0] ^ 1 << bit]);
            }
        }
    }

    pub(super) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.set_apart();
        self.current.write(offset, bytes);
        self.durable.write(offset, bytes);
    }

    /// The disk goes away in the middle of a request.
    fn leave(&mut self, asked: &Asked<'_>) -> Result<(), DeviceError> {
        self.faults.gone = true;
        asked.fail(DeviceErrorKind::Gone)
    }

    /// Another place on the disk that can take as many bytes, sector-aligned; the same one if there is none.
    fn elsewhere(&mut self, range: &Range<u64>) -> u64 {
        let length = range.end - range.start;
        let places = (self.size - length) / self.sector + 1;
        let picked = self.rng.below(places);
        let own = range.start / self.sector;
        // Shifted by one where chance hit the right place.
        let picked = if picked == own { (picked + 1) % places } else { picked };
        picked * self.sector
    }

    fn store(&mut self, offset: u64, bytes: Arc<[u8]>) {
        let length = bytes.len() as u64;
        self.remember(Unflushed { offset, length, bytes: Some(bytes), garbage: 0 });
        self.faults.written(offset..offset + length);
    }

    /// Stores some sectors of a write, each as a write of its own that a power cut may still lose.
    fn store_torn(&mut self, offset: u64, bytes: &[u8]) {
        let whole = Unflushed { offset, length: bytes.len() as u64, bytes: Some(bytes.into()), garbage: 0 };
        let sectors = whole.tear(&mut self.rng, self.sector);
        for (at, part) in whole.parts(&sectors, self.sector) {
            self.store(at, part.into());
        }
    }

    /// Shows a write to readers and keeps it until it is flushed.
    fn remember(&mut self, write: Unflushed) {
        write.apply(&mut self.current, self.discarded);
        if self.volatile {
            self.cache.push(write);
        } else {
            write.apply(&mut self.durable, self.discarded);
        }
    }
}
