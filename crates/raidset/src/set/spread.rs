//! A column whose units lie in the free units of the others: level `R` leaves one unit of each row free, which is room for one
//! lost column.
//!
//! Where a unit lies is told by [`Members::stripe`]: while the column is in the free units, stripes have the column with the row's free
//! unit in its place. So everything else, a rebuild of that other column included, treats it as that column's. A column gets
//! there by a rebuild that writes to [`FreeUnits`], and leaves by a rebuild in place; what of it is done does the respective other.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

use super::RaidSet;
use super::admin::SetError;
use super::locks::lock;
use super::members::{Members, Rebuild, RebuildKind, Status};
use crate::label::data_offset;
use crate::layout::{Layout, Stripe};

/// What the free units have to do with a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// Nothing.
    No,
    /// They are filled: rows that are done are there.
    Into,
    /// They are left: rows that are not done are there.
    From,
}

impl Members {
    /// Whether a column is in the free units as a whole.
    pub(super) fn spread(&self, column: usize) -> bool {
        self.columns[column].status == Status::Spared && self.spare_of[column].is_none()
    }

    /// The column that is in the free units, whole or in part.
    fn spread_column(&self) -> Option<usize> {
        let rebuilt = self.rebuild.as_ref().filter(|rebuild| rebuild.spread != Spread::No);
        let whole = || (0..self.columns.len()).find(|&column| self.spread(column));
        rebuilt.map(|rebuild| rebuild.column).or_else(whole)
    }

    /// Whether the free units are in use.
    pub(super) fn free_units_taken(&self) -> bool {
        self.spread_column().is_some()
    }

    /// Whether the unit that the column has in a row is in the row's free unit.
    fn in_free_unit(&self, column: usize, row: u64) -> bool {
        match self.rebuild.as_ref().filter(|rebuild| rebuild.column == column) {
            Some(rebuild) => {
                let done = row < rebuild.rows.load(Ordering::Acquire);
                rebuild.spread == if done { Spread::Into } else { Spread::From }
            }
            None => self.spread(column),
        }
    }

    /// The columns of a stripe. Whoever changes anything asks under its lock.
    pub(super) fn stripe(&self, layout: &Layout, index: u64) -> Stripe {
        let stripe = layout.stripe(index);
        let row = stripe.row(0);
        let Some(free) = layout.free_column(row) else { return stripe };
        match self.spread_column().filter(|&column| self.in_free_unit(column, row)) {
            Some(column) => stripe.moved(column, free),
            None => stripe,
        }
    }

    /// A rebuild of a column in the free units of a set.
    pub(super) fn rebuild_in_free_units(&self, layout: &Layout, info: &DeviceInfo, column: usize) -> Rebuild {
        let device = |other: usize| self.whole(other).and_then(|component| component.device.clone());
        let target = FreeUnits {
            info: DeviceInfo { name: format!("the free units of {}", info.name), ..info.clone() },
            layout: layout.clone(),
            data_offset: data_offset(info.logical_sector),
            devices: (0..self.columns.len()).map(|other| device(other).filter(|_| other != column)).collect(),
        };
        let rebuild = Rebuild::new(RebuildKind::Reconstruction, column, Arc::new(target));
        Rebuild { spread: Spread::Into, ..rebuild }
    }

    /// The stripe that has a unit, of its own or of the column in the free units, in a row of a column.
    pub(super) fn stripe_of(&self, layout: &Layout, row: u64, column: usize) -> Option<u64> {
        let guest = || {
            let spread = self.spread_column().filter(|&spread| self.in_free_unit(spread, row))?;
            layout.stripe_of(row, spread)
        };
        layout.stripe_of(row, column).or_else(guest)
    }
}

/// The free units as a device: a component of which only the data can be written.
#[derive(Debug)]
pub(super) struct FreeUnits {
    info: DeviceInfo,
    layout: Layout,
    /// Byte at which the data of components begins.
    data_offset: u64,
    /// The components, but for the column that is to be spread.
    devices: Vec<Option<Arc<dyn BlockDevice>>>,
}

impl FreeUnits {
    fn error(&self, offset: u64, length: u64, why: &str) -> DeviceError {
        let (device, kind) = (self.info.name.clone(), DeviceErrorKind::Io(why.to_owned()));
        DeviceError { device, operation: Operation::Write, offset, length, kind }
    }

    /// Writes bytes that lie in one row.
    fn write_row(&self, row: u64, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        // What is not data is of no use here: labels are those of the columns that are there.
        let Some(free) = self.layout.free_column(row).filter(|_| row < self.layout.rows()) else {
            return Ok(());
        };
        match self.devices.get(free) {
            Some(Some(device)) => device.write(offset, bytes),
            // The row in which the column has the free unit itself.
            _ => Err(self.error(offset, bytes.len() as u64, "the row has no free unit")),
        }
    }
}

impl BlockDevice for FreeUnits {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        let sizes = self.devices.iter().flatten().map(|device| device.size());
        sizes.collect::<Result<Vec<_>, _>>().map(|sizes| sizes.into_iter().min().unwrap_or(0))
    }

    fn read_vectored(&self, _offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        // Only labels and the like are asked for: there are none.
        buffers.iter_mut().for_each(|buffer| buffer.fill(0));
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let unit = u64::from(self.layout.unit()) * u64::from(self.info.logical_sector);
        let mut at = offset;
        for buffer in buffers {
            let mut rest: &[u8] = buffer;
            while !rest.is_empty() {
                let Some(within) = at.checked_sub(self.data_offset) else {
                    let skipped = (self.data_offset - at).min(rest.len() as u64);
                    rest = &rest[skipped as usize..];
                    at += skipped;
                    continue;
                };
                let length = (unit - within % unit).min(rest.len() as u64);
                let (now, after) = rest.split_at(length as usize);
                self.write_row(within / unit, at, now)?;
                rest = after;
                at += length;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.devices.iter().flatten().try_for_each(|device| device.flush())
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl RaidSet {
    /// The column that is kept in the free units of the others, if one is.
    pub fn in_free_units(&self) -> Option<usize> {
        let members = self.members();
        (0..members.columns.len()).find(|&column| members.spread(column))
    }

    /// Whether the free units could take a column now.
    pub(super) fn free_units_idle(&self, members: &Members) -> bool {
        self.layout.free_column(0).is_some() && !members.free_units_taken()
    }

    /// Begins to rebuild a lost column, which was failed for that, in the free units.
    pub(super) fn reconstruct_to_free_units(&self, column: usize) -> Result<(), SetError> {
        // Records of another column that was there once must not come back over what is written there now.
        self.journal_reset()?;
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        members.require_no_rebuild()?;
        if !self.free_units_idle(&members) {
            return Err(SetError::NoSpare);
        }
        let component = &mut members.columns[column];
        if component.status != Status::Failed {
            return Err(SetError::Status { name: component.name.clone(), status: component.status });
        }
        component.status = Status::Reconstructing;
        members.rebuild = Some(Arc::new(members.rebuild_in_free_units(&self.layout, &self.info, column)));
        self.amend(&mut header, members);
        Ok(())
    }

    /// The column is in the free units from now on, all of which is durable.
    ///
    /// # Errors
    /// It was given up meanwhile.
    pub(super) fn finish_spreading(&self, rebuild: &Arc<Rebuild>) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        if members.rebuild.as_ref().is_none_or(|now| !Arc::ptr_eq(now, rebuild)) {
            return Err(SetError::NoRebuild);
        }
        members.rebuild = None;
        members.columns[rebuild.column].status = Status::Spared;
        self.commit(&mut header, members);
        Ok(())
    }
}
