//! Writing: what has to be written where, stripe by stripe, and then all of it at once.
//!
//! A request is cut into batches of whole stripes (`write_batch`): their stripes are locked, each is prepared, and what comes of it goes
//! to the journal, if there is one, and to the components together, in one request each where stripes follow each other.
//!
//! A stripe takes the cheapest of three plans, counted in reads, since they all write the same:
//!
//! | plan | reads | works if |
//! |---|---|---|
//! | read-modify-write | the old data that is written, and the parity | both can be read |
//! | reconstruct-write | the data that is not written | it can be read |
//! | all | everything that can be read, and makes the rest from it | no more is lost than there is parity |

use std::borrow::Cow;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, Operation};

use super::RaidSet;
use super::io::{Output, Piece, grown};
use super::members::Members;
use super::stripe::{Span, Units};
use crate::layout::Stripe;

/// Bytes of data that are written at once, at least one stripe.
const BATCH_BYTES: u64 = 1 << 20;
/// Stripes that are written at once.
const BATCH_STRIPES: u64 = 128;

/// What is to be written of a unit: its number, where in it, the bytes.
type Part<'a> = (usize, usize, Cow<'a, [u8]>);

/// What has to be read before a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Modify,
    Reconstruct,
    All,
}

/// The plan with the fewest reads, if there is one. `written` data units are written, `whole` ones over the whole span.
fn choose(units: &Units, written: &[usize], count: usize, whole: impl Fn(usize) -> bool) -> Option<Plan> {
    let live_parity = (count..units.devices.len()).filter(|&unit| units.devices[unit].is_some());
    let modify: Vec<usize> = written.iter().copied().chain(live_parity).collect();
    let others: Vec<usize> = (0..count).filter(|&unit| !whole(unit)).collect();
    let readable = units.readable_count();
    let readable_all = |wanted: &[usize]| wanted.iter().all(|&unit| units.readable(unit));
    let choices = [
        (Plan::Modify, modify.len(), readable_all(&modify)),
        (Plan::Reconstruct, others.len(), readable_all(&others)),
        (Plan::All, readable, readable >= count),
    ];
    let possible = choices.into_iter().filter(|&(.., works)| works);
    possible.min_by_key(|&(_, reads, _)| reads).map(|(plan, ..)| plan)
}

fn xor(into: &mut [u8], other: &[u8]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a ^= b);
}

impl RaidSet {
    /// Stripes of one batch.
    pub(super) fn batch_stripes(&self) -> u64 {
        let stripe_bytes = self.layout().stripe_sectors() * u64::from(self.sector_size());
        (BATCH_BYTES / stripe_bytes).clamp(1, BATCH_STRIPES.min(self.journal_stripes()))
    }

    /// Writes data from byte `offset` of the set on, which lies in `stripes`.
    ///
    /// # Errors
    /// Too much of a stripe is lost to store it. The stripes before it are written.
    pub(super) fn write_batch(
        &self,
        stripes: std::ops::Range<u64>,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let stripe_bytes = self.layout().stripe_sectors() * u64::from(self.sector_size());
        let _guard = self.locks.lock_all(stripes.clone());
        let members = self.members();
        let mut result = Ok(());
        let mut rest = bytes;
        let mut memory = self.memory();
        let parity_bytes = self.redundancy_bytes();
        let mut redundancy = grown(&mut memory, bytes.len() / stripe_bytes as usize * parity_bytes)
            .chunks_mut(parity_bytes.max(1));
        let mut pieces: Vec<Output<'_>> = Vec::new();
        for index in stripes {
            let first = offset.saturating_sub(index * stripe_bytes);
            let (now, after) = rest.split_at((stripe_bytes - first).min(rest.len() as u64) as usize);
            rest = after;
            let stripe = members.stripe(self.layout(), index);
            let whole = now.len() as u64 == stripe_bytes && parity_bytes > 0;
            let prepared = match redundancy.next().filter(|_| whole) {
                Some(parity) => self.prepare_whole(&stripe, &members, now, parity, &mut pieces),
                None => self.prepare(&stripe, &members, first as usize, now, &mut pieces),
            };
            match prepared {
                Ok(()) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let stored = self.store(pieces).map_err(|error| {
            let kind = DeviceErrorKind::Io(format!("too many components have failed: {error}"));
            let (device, length) = (self.info.name.clone(), bytes.len() as u64);
            DeviceError { device, operation: Operation::Write, offset, length, kind }
        });
        self.keep_memory(memory);
        result.and(stored)
    }

    /// Bytes of the parity of a whole stripe; 0 where there are copies, which need no memory of their own.
    fn redundancy_bytes(&self) -> usize {
        if self.mirrored() {
            return 0;
        }
        let stripe = self.layout().stripe(0);
        (stripe.width() - stripe.data_columns()) * self.unit_bytes()
    }

    /// As [`Self::prepare`], for a stripe that is written whole: nothing is read, and the parity is made in `parity`.
    fn prepare_whole<'a>(
        &self,
        stripe: &Stripe,
        members: &Members,
        data: &'a [u8],
        parity: &'a mut [u8],
        pieces: &mut Vec<Output<'a>>,
    ) -> Result<(), DeviceError> {
        let unit_bytes = self.unit_bytes();
        let units: Vec<&[u8]> = data.chunks(unit_bytes).collect();
        let there = |unit: usize| members.at(stripe.column(unit), stripe.row(unit)).is_some();
        let absent = (0..stripe.width()).filter(|&unit| !there(unit)).count();
        if absent > stripe.width() - units.len() {
            return Err(self.error(Operation::Write, stripe, None));
        }
        let mut outputs: Vec<&mut [u8]> = parity.chunks_mut(unit_bytes).collect();
        self.generate(Operation::Write, stripe, &units, &mut outputs)?;
        for (unit, bytes) in units.into_iter().chain(parity.chunks(unit_bytes)).enumerate() {
            let (column, row) = (stripe.column(unit), stripe.row(unit));
            for device in members.also(column, row).into_iter().chain(members.at(column, row)) {
                let (offset, bytes) = (self.offset(row, 0), Cow::Borrowed(bytes));
                pieces.push(Piece { column, device: device.clone(), offset, bytes, tag: 0 });
            }
        }
        Ok(())
    }

    /// Writes pieces to the components. Those that fail are taken out of use.
    ///
    /// # Errors
    /// One failed that the set cannot do without.
    fn store(&self, mut pieces: Vec<Output<'_>>) -> Result<(), DeviceError> {
        let ticket = self.journal_record(&mut pieces)?;
        let mut result = Ok(());
        for failure in self.write_pieces(&mut pieces) {
            if !self.device_failed(failure.column, &failure.device) {
                result = Err(failure.error);
            }
        }
        drop(ticket);
        if result.is_err() {
            self.journal_disown();
        }
        result
    }

    /// Adds what a write of one stripe means for its components to `pieces`. The stripe is locked.
    ///
    /// # Errors
    /// Too much of the stripe is lost to store it.
    fn prepare<'a>(
        &self,
        stripe: &Stripe,
        members: &Members,
        first: usize,
        data: &'a [u8],
        pieces: &mut Vec<Output<'a>>,
    ) -> Result<(), DeviceError> {
        let mut units = Units::of(members, stripe);
        for (unit, from, bytes) in self.parts(stripe, &mut units, first, data)? {
            let column = stripe.column(unit);
            let offset = self.offset(stripe.row(unit), from);
            let mut add = |device: &Arc<dyn BlockDevice>, bytes: Cow<'a, [u8]>| {
                pieces.push(Piece { column, device: device.clone(), offset, bytes, tag: 0 });
            };
            if let Some(device) = members.also(column, stripe.row(unit)) {
                add(device, bytes.clone());
            }
            if let Some(device) = &units.devices[unit] {
                add(device, bytes);
            }
        }
        Ok(())
    }

    /// What has to be written so that the stripe holds `data` from byte `first` of its data on.
    ///
    /// # Errors
    /// Too much of the stripe is lost to store it.
    fn parts<'a>(
        &self,
        stripe: &Stripe,
        units: &mut Units,
        first: usize,
        data: &'a [u8],
    ) -> Result<Vec<Part<'a>>, DeviceError> {
        let unit_bytes = self.unit_bytes();
        let count = stripe.data_columns();
        // What is written of each data unit: where in the unit, and the bytes.
        let part = |unit: usize| -> (usize, &'a [u8]) {
            let start = (unit * unit_bytes).clamp(first, first + data.len());
            let end = ((unit + 1) * unit_bytes).clamp(first, first + data.len());
            (start.saturating_sub(unit * unit_bytes), &data[start - first..end - first])
        };
        let written: Vec<usize> = (0..count).filter(|&unit| !part(unit).1.is_empty()).collect();
        if self.mirrored() {
            if units.readable_count() == 0 {
                return Err(self.error(Operation::Write, stripe, None));
            }
            return Ok((0..stripe.width()).map(|unit| (unit, first, Cow::Borrowed(data))).collect());
        }
        let parities = stripe.width() - count;
        let absent = units.devices.iter().filter(|device| device.is_none()).count();
        if absent > parities {
            return Err(self.error(Operation::Write, stripe, None));
        }
        let mut wanted: Vec<Part<'a>> =
            written.iter().map(|&unit| (unit, part(unit).0, Cow::Borrowed(part(unit).1))).collect();
        let live_parity = (count..stripe.width()).filter(|&unit| units.devices[unit].is_some()).count();
        if live_parity == 0 {
            return Ok(wanted);
        }

        let start = written.iter().map(|&unit| part(unit).0).min().unwrap_or(0);
        let end = written.iter().map(|&unit| part(unit).0 + part(unit).1.len()).max().unwrap_or(0);
        let span = self.whole_span(start..end);
        let whole = |unit: usize| part(unit).1.len() == span.len();
        let mut lanes: Vec<Vec<u8>> = vec![Vec::new(); stripe.width()];
        let plan = loop {
            let plan = choose(units, &written, count, whole)
                .ok_or_else(|| self.error(Operation::Write, stripe, units.error.as_ref()))?;
            if self.read_for(plan, units, stripe, &span, part, whole, &mut lanes)? {
                break plan;
            }
        };
        let mut parity_lanes = lanes.split_off(count);
        parity_lanes.iter_mut().for_each(|lane| lane.resize(span.len(), 0));
        if plan == Plan::Modify {
            let zeros = vec![0; span.len()];
            let mut sums = vec![vec![0; span.len()]; parities];
            for &unit in &written {
                let (at, bytes) = part(unit);
                let lane = &mut lanes[unit];
                xor(&mut lane[at - span.start..][..bytes.len()], bytes);
            }
            let deltas: Vec<&[u8]> =
                lanes.iter().map(|lane| if lane.is_empty() { &zeros[..] } else { &lane[..] }).collect();
            let mut outputs: Vec<&mut [u8]> = sums.iter_mut().map(Vec::as_mut_slice).collect();
            self.generate(Operation::Write, stripe, &deltas, &mut outputs)?;
            parity_lanes.iter_mut().zip(&sums).for_each(|(lane, sum)| xor(lane, sum));
        } else {
            for &unit in written.iter().filter(|&&unit| !whole(unit)) {
                let (at, bytes) = part(unit);
                lanes[unit][at - span.start..][..bytes.len()].copy_from_slice(bytes);
            }
            let columns: Vec<&[u8]> =
                (0..count).map(|unit| if whole(unit) { part(unit).1 } else { &lanes[unit][..] }).collect();
            let mut outputs: Vec<&mut [u8]> = parity_lanes.iter_mut().map(Vec::as_mut_slice).collect();
            self.generate(Operation::Write, stripe, &columns, &mut outputs)?;
        }
        if plan == Plan::All {
            // A unit that could not be read is now known whole.
            for unit in (0..count).filter(|&unit| units.unreadable[unit] && !whole(unit)) {
                wanted.retain(|(other, ..)| *other != unit);
                wanted.push((unit, span.start, Cow::Owned(std::mem::take(&mut lanes[unit]))));
            }
        }
        wanted.extend((count..).zip(parity_lanes).map(|(unit, lane)| (unit, span.start, Cow::Owned(lane))));
        Ok(wanted)
    }

    /// Reads what a plan needs into `lanes`, which are as long as `span`. False: something could not be read.
    #[allow(clippy::too_many_arguments, reason = "the parts of one write")]
    fn read_for<'a>(
        &self,
        plan: Plan,
        units: &mut Units,
        stripe: &Stripe,
        span: &Span,
        part: impl Fn(usize) -> (usize, &'a [u8]),
        whole: impl Fn(usize) -> bool,
        lanes: &mut [Vec<u8>],
    ) -> Result<bool, DeviceError> {
        let count = stripe.data_columns();
        lanes.iter_mut().for_each(Vec::clear);
        if plan == Plan::All {
            lanes.iter_mut().for_each(|lane| lane.resize(span.len(), 0));
            self.read_all(units, stripe, span, lanes)?;
            return Ok(true);
        }
        let mut wanted: Vec<(usize, usize, &mut [u8])> = Vec::new();
        for (unit, lane) in lanes.iter_mut().enumerate() {
            let (at, bytes) = if unit < count { part(unit) } else { (span.start, &[][..]) };
            let (from, to) = match plan {
                Plan::Modify if unit < count && !bytes.is_empty() => (at, at + bytes.len()),
                Plan::Modify if unit >= count && units.devices[unit].is_some() => (span.start, span.end),
                // What is missing mostly lies on one side only: the first unit is written to its end, the last from its start.
                Plan::Reconstruct if unit < count && !whole(unit) => {
                    match (at == span.start, at + bytes.len() == span.end) {
                        (true, false) if !bytes.is_empty() => (at + bytes.len(), span.end),
                        (false, true) if !bytes.is_empty() => (span.start, at),
                        _ => (span.start, span.end),
                    }
                }
                _ => continue,
            };
            lane.resize(span.len(), 0);
            wanted.push((unit, from, &mut lane[from - span.start..to - span.start]));
        }
        Ok(self.read_units(units, stripe, wanted))
    }
}
