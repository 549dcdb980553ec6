//! One stripe: reading units, making those that cannot be read, comparing them with their parity.
//!
//! A read that fails makes its column unreadable for the rest of the operation; what the column should hold is made of the others
//! and written to it. It is failed only if that does not work either.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, Op, Operation, Request};

use super::RaidSet;
use super::locks::lock;
use super::members::Members;
use crate::layout::Stripe;

/// A range of the units of a stripe, the same in each: bytes.
pub(super) type Span = Range<usize>;

/// The units of a stripe, and which can be read in this operation.
pub(super) struct Units {
    pub(super) devices: Vec<Option<Arc<dyn BlockDevice>>>,
    pub(super) unreadable: Vec<bool>,
    /// Why the first of them could not be read.
    pub(super) error: Option<DeviceError>,
}

impl Units {
    pub(super) fn of(members: &Members, stripe: &Stripe) -> Self {
        let devices: Vec<_> = stripe
            .columns()
            .enumerate()
            .map(|(unit, column)| members.at(column, stripe.row(unit)).cloned())
            .collect();
        let unreadable = vec![false; devices.len()];
        Self { devices, unreadable, error: None }
    }

    pub(super) fn readable(&self, unit: usize) -> bool {
        self.devices[unit].is_some() && !self.unreadable[unit]
    }

    pub(super) fn readable_count(&self) -> usize {
        (0..self.devices.len()).filter(|&unit| self.readable(unit)).count()
    }
}

impl RaidSet {
    /// Where on a component a byte of a row lies.
    pub(super) fn offset(&self, row: u64, within: usize) -> u64 {
        self.data_offset() + row * self.unit_bytes() as u64 + within as u64
    }

    pub(super) fn error(
        &self,
        operation: Operation,
        stripe: &Stripe,
        cause: Option<&DeviceError>,
    ) -> DeviceError {
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
    pub(super) fn read_units(
        &self,
        units: &mut Units,
        stripe: &Stripe,
        wanted: Vec<(usize, usize, &mut [u8])>,
    ) -> bool {
        let mut failed = Vec::new();
        {
            let mut positions = Vec::with_capacity(wanted.len());
            let mut requests = Vec::with_capacity(wanted.len());
            for (unit, from, buffer) in wanted {
                let Some(device) = &units.devices[unit] else { continue };
                let offset = self.offset(stripe.row(unit), from);
                let op = Op::Read { offset, buffers: vec![IoSliceMut::new(buffer)] };
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
            for device in units.devices[unit].iter().chain(members.also(column, stripe.row(unit))) {
                let offset = self.offset(stripe.row(unit), from);
                let op = Op::Write { offset, buffers: vec![IoSlice::new(bytes)] };
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
    pub(super) fn read_all(
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
            if self.read_units(units, stripe, wanted) {
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
        self.reconstruct(stripe, &present, &mut wanted)
    }

    /// The unit to read in place of a data unit: on mirrors any copy, but only where they are known to be equal.
    pub(super) fn copy_to_read(&self, stripe: &Stripe, unit: usize) -> usize {
        if self.mirrored() && self.parity_good() {
            (stripe.index / 16 % stripe.width() as u64) as usize
        } else {
            unit
        }
    }

    /// Reads a part of one data unit.
    ///
    /// # Errors
    /// It can neither be read nor made from the others.
    pub(super) fn read_unit(
        &self,
        index: u64,
        unit: usize,
        within: usize,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let members = self.members();
        let stripe = members.stripe(self.layout(), index);
        let unit = self.copy_to_read(&stripe, unit);
        if let Some(device) = members.at(stripe.column(unit), stripe.row(unit))
            && device.read(self.offset(stripe.row(unit), within), out).is_ok()
            // If components have changed meanwhile, the device may have been a stale one.
            && self.unchanged(&members)
        {
            return Ok(());
        }
        let _guard = self.locks.lock(index);
        let members = self.members();
        let stripe = &members.stripe(self.layout(), index);
        let mut units = Units::of(&members, stripe);
        let span = within..within + out.len();
        if self.read_units(&mut units, stripe, vec![(unit, within, &mut *out)])
            && units.devices[unit].is_some()
        {
            return Ok(());
        }
        let span = self.whole_span(span);
        let mut lanes = vec![vec![0; span.len()]; stripe.width()];
        self.read_all(&mut units, stripe, &span, &mut lanes)?;
        out.copy_from_slice(&lanes[unit][within - span.start..][..out.len()]);
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

    /// Checks that parity or copies of a stripe, which is locked, match its data, and makes them match if `repair`. True: they did.
    ///
    /// # Errors
    /// A unit is lost or cannot be read: without it there is nothing to compare.
    pub(super) fn check_stripe(
        &self,
        members: &Members,
        stripe: &Stripe,
        repair: bool,
    ) -> Result<bool, DeviceError> {
        let mut units = Units::of(members, stripe);
        let count = stripe.data_columns();
        let span = 0..self.unit_bytes();
        let mut lanes = vec![vec![0; span.len()]; stripe.width()];
        if units.readable_count() < stripe.width() {
            return Err(self.error(Operation::Read, stripe, None));
        }
        let wanted: Vec<_> =
            lanes.iter_mut().enumerate().map(|(unit, lane)| (unit, 0, lane.as_mut_slice())).collect();
        self.read_units(&mut units, stripe, wanted);
        if (0..count).any(|unit| !units.readable(unit)) {
            // The parity is in doubt, but nothing else can give the data back.
            self.read_all(&mut units, stripe, &span, &mut lanes)?;
            self.heal(members, stripe, &units, &span, &lanes);
        }
        let mut right = lanes[count..].to_vec();
        let columns: Vec<&[u8]> = lanes[..count].iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
        self.generate(Operation::Read, stripe, &columns, &mut outputs)?;
        let wrong: Vec<_> = (count..)
            .zip(right.iter().zip(&lanes[count..]))
            .filter(|(unit, (right, found))| right != found || units.unreadable[*unit])
            .map(|(unit, (right, _))| (unit, 0, right.as_slice()))
            .collect();
        if repair && !wrong.is_empty() {
            self.write_units(members, stripe, &units, &wrong)?;
        }
        Ok(wrong.is_empty())
    }

    /// Whether a lost column may have missed a write to a stripe.
    pub(super) fn missed(&self, column: usize, stripe: u64) -> bool {
        let Some(map) = &self.map else { return true };
        let region = lock(map).region(stripe);
        let header = lock(&self.header);
        header
            .missed
            .iter()
            .find(|missed| missed.column == column)
            .is_none_or(|missed| missed.regions.get(region))
    }

    /// Makes a unit of a stripe, which is locked, and mends what cannot be read on the way.
    ///
    /// # Errors
    /// Too much of the stripe is lost.
    pub(super) fn make_unit(
        &self,
        members: &Members,
        stripe: &Stripe,
        unit: usize,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let mut units = Units::of(members, stripe);
        let whole = units.devices[unit].is_some();
        if whole && self.read_units(&mut units, stripe, vec![(unit, 0, &mut *out)]) {
            return Ok(());
        }
        let span = 0..self.unit_bytes();
        let mut lanes = vec![vec![0; span.len()]; stripe.width()];
        self.read_all(&mut units, stripe, &span, &mut lanes)?;
        self.heal(members, stripe, &units, &span, &lanes);
        out.copy_from_slice(&lanes[unit]);
        Ok(())
    }
}
