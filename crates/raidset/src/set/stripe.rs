//! Reading and writing within one stripe.
//!
//! A write takes the cheapest of three plans, counted in reads, since they all write the same:
//!
//! | plan | reads | works if |
//! |---|---|---|
//! | read-modify-write | the old data that is written, and the parity | both can be read |
//! | reconstruct-write | the data that is not written | it can be read |
//! | all | everything that can be read, and makes the rest from it | no more is lost than there is parity |
//!
//! A read that fails makes its column unreadable for the rest of the operation, and another plan is taken; what the
//! column should hold is then written to it. It is failed only if that does not work either.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, Op, Operation, Request};

use super::RaidSet;
use super::locks::lock;
use super::members::Members;
use crate::layout::{Level, Stripe};

/// A range of the units of a stripe, the same in each: bytes.
type Span = Range<usize>;

/// The units of a stripe, and which can be read in this operation.
struct Units {
    devices: Vec<Option<Arc<dyn BlockDevice>>>,
    unreadable: Vec<bool>,
    /// Why the first of them could not be read.
    error: Option<DeviceError>,
}

impl Units {
    fn of(members: &Members, stripe: &Stripe) -> Self {
        let devices: Vec<_> =
            stripe.columns().map(|column| members.at(column, stripe.row).cloned()).collect();
        let unreadable = vec![false; devices.len()];
        Self { devices, unreadable, error: None }
    }

    fn readable(&self, unit: usize) -> bool {
        self.devices[unit].is_some() && !self.unreadable[unit]
    }

    fn readable_count(&self) -> usize {
        (0..self.devices.len()).filter(|&unit| self.readable(unit)).count()
    }
}

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
    /// Where on a component a byte of a row lies.
    fn offset(&self, row: u64, within: usize) -> u64 {
        self.data_offset() + row * self.unit_bytes() as u64 + within as u64
    }

    fn error(&self, operation: Operation, stripe: &Stripe, cause: Option<&DeviceError>) -> DeviceError {
        let why = match cause {
            Some(cause) => format!("too many components have failed: {cause}"),
            None => "too many components have failed".to_owned(),
        };
        let bytes = self.layout().stripe_sectors() * u64::from(self.sector_size());
        DeviceError {
            device: self.info.name.clone(),
            operation,
            offset: stripe.index * bytes,
            length: bytes,
            kind: DeviceErrorKind::Io(why),
        }
    }

    /// Reads spans of units into buffers. Units that fail become unreadable. True: all were read.
    fn read_units(&self, units: &mut Units, row: u64, wanted: Vec<(usize, usize, &mut [u8])>) -> bool {
        let mut failed = Vec::new();
        {
            let mut positions = Vec::with_capacity(wanted.len());
            let mut requests = Vec::with_capacity(wanted.len());
            for (unit, from, buffer) in wanted {
                let Some(device) = &units.devices[unit] else { continue };
                let op = Op::Read { offset: self.offset(row, from), buffers: vec![IoSliceMut::new(buffer)] };
                requests.push(Request::new(&**device, op));
                positions.push(unit);
            }
            self.runner.run(&mut requests);
            for (unit, request) in positions.into_iter().zip(requests) {
                if let Err(error) = request.result {
                    failed.push((unit, error));
                }
            }
        }
        let all = failed.is_empty();
        for (unit, error) in failed {
            units.unreadable[unit] = true;
            units.error.get_or_insert(error);
        }
        all
    }

    /// Writes spans of units. Columns that fail are taken out of use.
    ///
    /// # Errors
    /// A column failed that the set cannot do without.
    fn write_units(
        &self,
        members: &Members,
        stripe: &Stripe,
        units: &Units,
        wanted: &[(usize, usize, &[u8])],
    ) -> Result<(), DeviceError> {
        let mut targets: Vec<(usize, &Arc<dyn BlockDevice>)> = Vec::with_capacity(wanted.len());
        let mut requests = Vec::with_capacity(wanted.len());
        for &(unit, from, bytes) in wanted {
            let column = stripe.column(unit);
            for device in units.devices[unit].iter().chain(members.also(column, stripe.row)) {
                let op =
                    Op::Write { offset: self.offset(stripe.row, from), buffers: vec![IoSlice::new(bytes)] };
                requests.push(Request::new(&**device, op));
                targets.push((column, device));
            }
        }
        self.runner.run(&mut requests);
        let mut result = Ok(());
        for ((column, device), request) in targets.into_iter().zip(requests) {
            if let Err(error) = request.result
                && !self.device_failed(column, device)
            {
                result = Err(self.error(Operation::Write, stripe, Some(&error)));
            }
        }
        result
    }

    /// Fills the lanes of all units over `span`, those that cannot be read from the others; `lanes` has a buffer for
    /// each unit.
    fn read_all(
        &self,
        units: &mut Units,
        stripe: &Stripe,
        span: &Span,
        lanes: &mut [Vec<u8>],
    ) -> Result<(), DeviceError> {
        let data = stripe.data_columns();
        loop {
            if units.readable_count() < data {
                return Err(self.error(Operation::Read, stripe, units.error.as_ref()));
            }
            let wanted: Vec<_> = lanes
                .iter_mut()
                .enumerate()
                .filter(|(unit, _)| units.readable(*unit))
                .map(|(unit, lane)| (unit, span.start, lane.as_mut_slice()))
                .collect();
            if self.read_units(units, stripe.row, wanted) {
                break;
            }
        }
        if self.mirrored() {
            // Every readable unit holds the same; the first one is as good as any.
            if let Some(good) = (0..stripe.width()).find(|&unit| units.readable(unit)) {
                let bytes = lanes[good].clone();
                for (unit, lane) in lanes.iter_mut().enumerate().filter(|(unit, _)| !units.readable(*unit)) {
                    debug_assert!(unit != good, "the source is readable");
                    lane.copy_from_slice(&bytes);
                }
            }
            return Ok(());
        }
        let mut present = Vec::with_capacity(lanes.len());
        let mut wanted = Vec::new();
        for (unit, lane) in lanes.iter_mut().enumerate() {
            if units.readable(unit) {
                present.push(Some(lane.as_slice()));
            } else {
                present.push(None);
                wanted.push((unit, lane.as_mut_slice()));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        parity::reconstruct(data, &present, &mut wanted)
            .map_err(|error| self.impossible(Operation::Read, stripe, &error))
    }

    /// Lengths and numbers of columns come from the layout, so the parity code has nothing to object to.
    fn impossible(&self, operation: Operation, stripe: &Stripe, error: &parity::ParityError) -> DeviceError {
        let mut told = self.error(operation, stripe, None);
        told.kind = DeviceErrorKind::Io(error.to_string());
        told
    }

    pub(super) fn mirrored(&self) -> bool {
        matches!(self.layout().level(), Level::Raid1 | Level::Mirror)
    }

    /// Reads a part of one data unit.
    ///
    /// # Errors
    /// It can neither be read nor made from the others.
    pub(super) fn read_unit(
        &self,
        stripe: &Stripe,
        unit: usize,
        within: usize,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let members = self.members();
        // Copies are trusted only where they are known to be equal.
        let unit = if self.mirrored() && self.parity_good() {
            (stripe.index / 16 % stripe.width() as u64) as usize
        } else {
            unit
        };
        if let Some(device) = members.at(stripe.column(unit), stripe.row)
            && device.read(self.offset(stripe.row, within), out).is_ok()
            // If components have changed meanwhile, the device may have been a stale one.
            && self.unchanged(&members)
        {
            return Ok(());
        }
        let _guard = self.locks.lock(stripe.index);
        let members = self.members();
        let mut units = Units::of(&members, stripe);
        let span = within..within + out.len();
        if self.read_units(&mut units, stripe.row, vec![(unit, within, &mut *out)])
            && units.devices[unit].is_some()
        {
            return Ok(());
        }
        let mut lanes = vec![vec![0; out.len()]; stripe.width()];
        self.read_all(&mut units, stripe, &span, &mut lanes)?;
        out.copy_from_slice(&lanes[unit]);
        self.heal(&members, stripe, &units, &span, &lanes);
        Ok(())
    }

    /// Writes what unreadable units should hold, now that it is known. A failure to do so fails the component, if the
    /// set can do without it; the operation itself has succeeded anyway.
    fn heal(&self, members: &Members, stripe: &Stripe, units: &Units, span: &Span, lanes: &[Vec<u8>]) {
        let bad: Vec<_> = (0..stripe.width())
            .filter(|&unit| units.unreadable[unit])
            .map(|unit| (unit, span.start, lanes[unit].as_slice()))
            .collect();
        if !bad.is_empty() && self.write_units(members, stripe, units, &bad).is_ok() {
            self.count_repairs(bad.len() as u64);
        }
    }

    /// Writes some data of one stripe, from byte `first` of its data on.
    ///
    /// # Errors
    /// Too much of the stripe is lost to store it.
    pub(super) fn write_stripe(&self, stripe: &Stripe, first: usize, data: &[u8]) -> Result<(), DeviceError> {
        let _guard = self.locks.lock(stripe.index);
        let members = self.members();
        let mut units = Units::of(&members, stripe);
        let unit_bytes = self.unit_bytes();
        let count = stripe.data_columns();
        // What is written of each data unit: where in the unit, and the bytes.
        let part = |unit: usize| -> (usize, &[u8]) {
            let start = (unit * unit_bytes).clamp(first, first + data.len());
            let end = ((unit + 1) * unit_bytes).clamp(first, first + data.len());
            (start.saturating_sub(unit * unit_bytes), &data[start - first..end - first])
        };
        let written: Vec<usize> = (0..count).filter(|&unit| !part(unit).1.is_empty()).collect();
        if self.mirrored() {
            let wanted: Vec<_> = (0..stripe.width()).map(|unit| (unit, first, data)).collect();
            if units.readable_count() == 0 {
                return Err(self.error(Operation::Write, stripe, None));
            }
            return self.write_units(&members, stripe, &units, &wanted);
        }
        let parities = stripe.width() - count;
        let absent = units.devices.iter().filter(|device| device.is_none()).count();
        if absent > parities {
            return Err(self.error(Operation::Write, stripe, None));
        }
        let mut wanted: Vec<(usize, usize, &[u8])> =
            written.iter().map(|&unit| (unit, part(unit).0, part(unit).1)).collect();
        let live_parity = (count..stripe.width()).filter(|&unit| units.devices[unit].is_some()).count();
        if live_parity == 0 {
            return self.write_units(&members, stripe, &units, &wanted);
        }

        let start = written.iter().map(|&unit| part(unit).0).min().unwrap_or(0);
        let end = written.iter().map(|&unit| part(unit).0 + part(unit).1.len()).max().unwrap_or(0);
        let span = start..end;
        let whole = |unit: usize| part(unit).1.len() == span.len();
        let mut lanes: Vec<Vec<u8>> = vec![Vec::new(); stripe.width()];
        let plan = loop {
            let plan = choose(&units, &written, count, whole)
                .ok_or_else(|| self.error(Operation::Write, stripe, units.error.as_ref()))?;
            if self.read_for(plan, &mut units, stripe, &span, part, whole, &mut lanes)? {
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
            parity::generate(&deltas, &mut outputs)
                .map_err(|error| self.impossible(Operation::Write, stripe, &error))?;
            parity_lanes.iter_mut().zip(&sums).for_each(|(lane, sum)| xor(lane, sum));
        } else {
            for &unit in written.iter().filter(|&&unit| !whole(unit)) {
                let (at, bytes) = part(unit);
                lanes[unit][at - span.start..][..bytes.len()].copy_from_slice(bytes);
            }
            let columns: Vec<&[u8]> =
                (0..count).map(|unit| if whole(unit) { part(unit).1 } else { &lanes[unit][..] }).collect();
            let mut outputs: Vec<&mut [u8]> = parity_lanes.iter_mut().map(Vec::as_mut_slice).collect();
            parity::generate(&columns, &mut outputs)
                .map_err(|error| self.impossible(Operation::Write, stripe, &error))?;
        }
        if plan == Plan::All {
            // A unit that could not be read is now known whole.
            for unit in (0..count).filter(|&unit| units.unreadable[unit] && !whole(unit)) {
                wanted.retain(|(other, ..)| *other != unit);
                wanted.push((unit, span.start, &lanes[unit]));
            }
        }
        wanted.extend((count..).zip(&parity_lanes).map(|(unit, lane)| (unit, span.start, lane.as_slice())));
        self.write_units(&members, stripe, &units, &wanted)
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
                // What is missing lies on one side only: the first unit is written to its end, the last from its start.
                Plan::Reconstruct if unit < count && !whole(unit) => {
                    match (bytes.is_empty(), at == span.start) {
                        (true, _) => (span.start, span.end),
                        (false, true) => (at + bytes.len(), span.end),
                        (false, false) => (span.start, at),
                    }
                }
                _ => continue,
            };
            lane.resize(span.len(), 0);
            wanted.push((unit, from, &mut lane[from - span.start..to - span.start]));
        }
        Ok(self.read_units(units, stripe.row, wanted))
    }

    /// Checks that parity or copies of a stripe match its data, and makes them match if `repair`. True: they did.
    ///
    /// # Errors
    /// A unit is lost or cannot be read: without it there is nothing to compare.
    pub(super) fn check_stripe(&self, stripe: &Stripe, repair: bool) -> Result<bool, DeviceError> {
        let _guard = self.locks.lock(stripe.index);
        let members = self.members();
        let mut units = Units::of(&members, stripe);
        let count = stripe.data_columns();
        let span = 0..self.unit_bytes();
        let mut lanes = vec![vec![0; span.len()]; stripe.width()];
        if units.readable_count() < stripe.width() {
            return Err(self.error(Operation::Read, stripe, None));
        }
        let wanted: Vec<_> =
            lanes.iter_mut().enumerate().map(|(unit, lane)| (unit, 0, lane.as_mut_slice())).collect();
        self.read_units(&mut units, stripe.row, wanted);
        if (0..count).any(|unit| !units.readable(unit)) {
            // The parity is in doubt, but nothing else can give the data back.
            self.read_all(&mut units, stripe, &span, &mut lanes)?;
            self.heal(&members, stripe, &units, &span, &lanes);
        }
        let mut right = lanes[count..].to_vec();
        if self.mirrored() {
            right.iter_mut().for_each(|lane| lane.copy_from_slice(&lanes[0]));
        } else if !right.is_empty() {
            let columns: Vec<&[u8]> = lanes[..count].iter().map(Vec::as_slice).collect();
            let mut outputs: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
            parity::generate(&columns, &mut outputs)
                .map_err(|error| self.impossible(Operation::Read, stripe, &error))?;
        }
        let wrong: Vec<_> = (count..)
            .zip(right.iter().zip(&lanes[count..]))
            .filter(|(unit, (right, found))| right != found || units.unreadable[*unit])
            .map(|(unit, (right, _))| (unit, 0, right.as_slice()))
            .collect();
        if repair && !wrong.is_empty() {
            self.write_units(&members, stripe, &units, &wrong)?;
        }
        Ok(wrong.is_empty())
    }

    /// Whether a lost column may have missed a write to a stripe.
    fn missed(&self, column: usize, stripe: u64) -> bool {
        let Some(map) = &self.map else { return true };
        let region = lock(map).region(stripe);
        let header = lock(&self.header);
        header
            .missed
            .iter()
            .find(|missed| missed.column == column)
            .is_none_or(|missed| missed.regions.get(region))
    }

    /// Makes one row of a column and writes it to `target`, then lets `done` say so while the stripe is still locked. With `partial`
    /// only if the column missed something of it.
    ///
    /// # Errors
    /// It cannot be made, or not be written.
    pub(super) fn rebuild_row(
        &self,
        row: u64,
        column: usize,
        target: &Arc<dyn BlockDevice>,
        partial: bool,
        done: impl FnOnce(),
    ) -> Result<(), DeviceError> {
        let stripe = self.layout().stripe(self.layout().stripe_of(row, column));
        let _guard = self.locks.lock(stripe.index);
        if partial && !self.missed(column, stripe.index) {
            done();
            return Ok(());
        }
        let members = self.members();
        let mut units = Units::of(&members, &stripe);
        let span = 0..self.unit_bytes();
        let unit = stripe.columns().position(|other| other == column).unwrap_or(0);
        let mut lanes = vec![vec![0; span.len()]; stripe.width()];
        let whole = units.devices[unit].is_some();
        let direct = whole && self.read_units(&mut units, row, vec![(unit, 0, lanes[unit].as_mut_slice())]);
        if !direct {
            self.read_all(&mut units, &stripe, &span, &mut lanes)?;
            self.heal(&members, &stripe, &units, &span, &lanes);
        }
        target.write(self.offset(row, 0), &lanes[unit])?;
        done();
        Ok(())
    }
}
