//! A working set: one block device over the components.
//!
//! A write goes: [`RaidSet`] (block device) -> the parity map's regions become dirty on disk -> batches of
//! stripes, under their locks (`write`) -> the components. A component that cannot be written is failed (`admin`), which makes
//! a new list of members, counts the labels' counter up and writes them; operations that run on keep their old list until
//! they let go of their stripe. Rebuilds and parity rewrites (`jobs`) are driven in steps by whoever holds the set, and so is
//! the parity map's clock: nothing in here starts a thread or looks at the time.

mod admin;
mod allowed;
mod bulk;
mod code;
mod header;
mod io;
mod jobs;
mod journal;
mod known;
mod locks;
mod members;
mod refusal;
mod resume;
mod spread;
mod start;
mod stripe;
#[cfg(test)]
mod tests;
mod write;

use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Op, Operation, Request, Runner};

pub use admin::{ComponentStatus, SetError, SetStatus};
pub use jobs::{Abandoned, Progress};
pub use journal::DEFAULT_JOURNAL;
pub use known::{Known, KnownColumn, KnownRebuild, KnownSpare, MAX_MISSED, Missed};
pub use members::{RebuildKind, Status};
pub use refusal::ConfigureError;
pub use start::{Parameters, Slot};

use crate::label::{data_offset, map_area, map_offset};
use crate::layout::Layout;
use crate::paritymap::{Bits, MAP_LENGTH, MAX_REGIONS, ParityMap};
use header::Header;
use journal::Journal;
use locks::{StripeLocks, lock};
use members::Members;

/// A RAID set that is in use.
///
/// Labels become dirty with the first write. Dropping the set then leaves them so, as a crash does: call [`RaidSet::close`] or
/// [`RaidSet::unconfigure`] first.
pub struct RaidSet {
    info: DeviceInfo,
    unit: u32,
    layout: Layout,
    runner: Arc<dyn Runner>,
    members: RwLock<Arc<Members>>,
    /// What labels say. Locked after `map`, if both are.
    header: Mutex<Header>,
    map: Option<Mutex<ParityMap>>,
    /// The regions that are dirty on the disks, or about to be; all of them if there is no map. Locked last.
    on_disk: Mutex<Bits>,
    /// Columns are lost, so that it has to be noted what they miss.
    degraded: AtomicBool,
    /// Labels say that the set is in use.
    opened: AtomicBool,
    parity_good: AtomicBool,
    locks: StripeLocks,
    journal: Journal,
    repairs: AtomicU64,
    /// The rebuild that was given up last, until somebody asks.
    abandoned: Mutex<Option<Abandoned>>,
    /// What people should know about how it was configured.
    notes: Mutex<Vec<String>>,
    /// Memory of jobs and writes, kept from one to the next.
    scratch: Mutex<Vec<Vec<u8>>>,
}

impl fmt::Debug for RaidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaidSet")
            .field("info", &self.info)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl RaidSet {
    /// How its sectors lie on the components.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Sector size, bytes.
    pub fn sector_size(&self) -> u32 {
        self.info.logical_sector
    }

    /// N of raidN.
    pub fn unit(&self) -> u32 {
        self.unit
    }

    /// Whether the parity is known to match the data.
    pub fn parity_good(&self) -> bool {
        self.parity_good.load(Ordering::Acquire)
    }

    /// What people should know about how it was configured, a sentence each: components that are there and count as failed, a journal
    /// that was left out.
    pub fn notes(&self) -> Vec<String> {
        lock(&self.notes).clone()
    }

    /// Notes whether the parity is good. With a journal it is kept on the components too: see [`Extension::seals`](crate::extension::Extension::seals).
    fn note_parity(&self, good: bool) {
        if self.parity_good.swap(good, Ordering::AcqRel) != good && self.journal().is_some() {
            let mut header = lock(&self.header);
            let members = self.members();
            self.write_extension(&mut header, &members);
        }
    }

    /// Unreadable places that were written anew from the other components.
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    fn count_repairs(&self, count: u64) {
        self.repairs.fetch_add(count, Ordering::Relaxed);
    }

    fn unit_bytes(&self) -> usize {
        self.layout.unit() as usize * self.sector_size() as usize
    }

    fn data_offset(&self) -> u64 {
        data_offset(self.sector_size())
    }

    fn total_bytes(&self) -> u64 {
        self.layout.total_sectors() * u64::from(self.sector_size())
    }

    fn members(&self) -> Arc<Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unchanged(&self, members: &Arc<Members>) -> bool {
        Arc::ptr_eq(members, &self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn require_within(&self, operation: Operation, offset: u64, length: u64) -> Result<(), DeviceError> {
        let size = self.total_bytes();
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let kind = DeviceErrorKind::OutOfRange { size };
        Err(DeviceError { device: self.info.name.clone(), operation, offset, length, kind })
    }

    fn read_range(&self, offset: u64, mut out: &mut [u8]) -> Result<(), DeviceError> {
        let unit_bytes = self.unit_bytes() as u64;
        let stripe_bytes = unit_bytes * u64::from(self.layout.stripe_data_units());
        if self.read_smoothly(offset, out) {
            return Ok(());
        }
        let mut at = offset;
        while !out.is_empty() {
            let within_stripe = at % stripe_bytes;
            let (unit, within) = (within_stripe / unit_bytes, within_stripe % unit_bytes);
            let length = (unit_bytes - within).min(out.len() as u64) as usize;
            let (now, rest) = out.split_at_mut(length);
            self.read_unit(at / stripe_bytes, unit as usize, within as usize, now)?;
            out = rest;
            at += length as u64;
        }
        Ok(())
    }

    fn write_range(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let stripe_bytes = self.unit_bytes() as u64 * u64::from(self.layout.stripe_data_units());
        let stripes = offset / stripe_bytes..(offset + bytes.len() as u64 - 1) / stripe_bytes + 1;
        self.open();
        let regions = self.begin_regions(stripes.start, stripes.end - 1);
        let mut result = Ok(());
        let mut rest = bytes;
        let mut start = stripes.start;
        while start < stripes.end && result.is_ok() {
            let end = stripes.end.min(start + self.batch_stripes());
            let at = offset.max(start * stripe_bytes);
            let length = (end * stripe_bytes - at).min(rest.len() as u64) as usize;
            let (now, after) = rest.split_at(length);
            result = self.write_batch(start..end, at, now);
            rest = after;
            start = end;
        }
        if let (Some(map), Some(regions)) = (&self.map, regions) {
            let mut map = lock(map);
            for region in regions {
                map.end(region);
                if result.is_err() {
                    map.doubt(region);
                }
            }
            if result.is_err() {
                self.note_parity(false);
            }
        }
        result
    }

    /// Marks the regions of some stripes as being written, on disk where they were not yet, and as missed by columns that are lost.
    fn begin_regions(&self, first: u64, last: u64) -> Option<std::ops::RangeInclusive<u32>> {
        let regions = {
            let mut map = lock(self.map.as_ref()?);
            let regions = map.region(first)..=map.region(last);
            let mut fresh = false;
            for region in regions.clone() {
                fresh |= map.begin(region);
            }
            if fresh {
                // A component that cannot take the map is failed; the others have it.
                self.write_map(&map);
            }
            regions
        };
        if self.degraded.load(Ordering::SeqCst) {
            self.note_missed(regions.clone());
        }
        Some(regions)
    }

    /// Notes, durably, that lost columns miss what is about to be written.
    fn note_missed(&self, regions: std::ops::RangeInclusive<u32>) {
        let mut header = lock(&self.header);
        let mut fresh = false;
        for missed in &mut header.missed {
            for region in regions.clone().filter(|&region| !missed.regions.get(region)).collect::<Vec<_>>() {
                missed.regions.set(region, true);
                fresh = true;
            }
        }
        if fresh {
            let members = self.members();
            self.write_extension(&mut header, &members);
        }
    }

    /// Writes the map to all columns and makes it durable. Whoever cannot take it is failed.
    fn write_map(&self, map: &ParityMap) {
        let mut area = vec![0; map_area(self.sector_size())];
        let mut bits = map.bits();
        if bits.count() > 0 && lock(&self.header).map.regions != map.parameters().regions {
            // The labels tell the number of regions of the next configuration, in which a bit will mean something else.
            bits = Bits::dirty(MAX_REGIONS);
        }
        area[..MAP_LENGTH].copy_from_slice(bits.encode());
        *lock(&self.on_disk) = bits;
        let members = self.members();
        for column in 0..self.layout.columns() {
            let Some(device) = members.whole(column).and_then(|component| component.device.as_ref()) else {
                continue;
            };
            let written = device.write(map_offset(self.sector_size()), &area).and_then(|()| device.flush());
            if written.is_err() {
                self.device_failed(column, device);
            }
        }
    }

    /// Marks the set as in use on all components. Happens by itself before anything is written.
    pub fn open(&self) {
        if self.opened.load(Ordering::Acquire) {
            return;
        }
        // The map first: the labels will say that it can be trusted.
        if let Some(map) = &self.map {
            let map = lock(map);
            self.write_map(&map);
        }
        let mut header = lock(&self.header);
        if !self.opened.load(Ordering::Acquire) {
            header.clean = false;
            let members = (*self.members()).clone();
            if let Some(rebuild) = &members.rebuild {
                // A power cut may have come between its label and the others'.
                self.disown(&header, &rebuild.target);
            }
            let idle = members.spares.iter().filter(|spare| spare.status == Status::Spare);
            for device in idle.filter_map(|spare| spare.device.as_ref()) {
                self.disown(&header, device);
            }
            self.commit(&mut header, members);
            self.opened.store(true, Ordering::Release);
        }
    }

    /// Lets the parity map's clock advance by one tick; call it every `tick_ms` milliseconds while the set is in use.
    ///
    /// # Errors
    /// As [`BlockDevice::flush`]: regions stay dirty on disk then.
    pub fn tick(&self) -> Result<(), DeviceError> {
        let Some(map) = &self.map else { return Ok(()) };
        let mut map = lock(map);
        if map.tick() {
            self.flush()?;
            self.write_map(&map);
        }
        Ok(())
    }
}

impl BlockDevice for RaidSet {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.total_bytes())
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let length = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        self.require_within(Operation::Read, offset, length)?;
        let mut at = offset;
        for buffer in buffers {
            self.read_range(at, buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let length = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        self.require_within(Operation::Write, offset, length)?;
        match buffers {
            [one] => self.write_range(offset, one),
            // One piece, so that a stripe whose parts come in several buffers is written once.
            several => {
                let slices: Vec<&[u8]> = several.iter().map(|slice| &**slice).collect();
                self.write_range(offset, &slices.concat())
            }
        }
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let members = self.members();
        let mut targets = Vec::new();
        for column in 0..self.layout.columns() {
            // Devices are in use up to the last row that a rebuild has done; row 0 is the first of those.
            targets.extend(
                members.at(column, 0).into_iter().chain(members.also(column, 0)).map(|d| (column, d)),
            );
        }
        let mut requests: Vec<_> =
            targets.iter().map(|(_, device)| Request::new(&***device, Op::Flush)).collect();
        self.runner.run(&mut requests);
        let mut result = Ok(());
        for ((column, device), request) in targets.iter().zip(requests) {
            if let Err(error) = request.result
                && !self.device_failed(*column, device)
            {
                result = Err(error);
            }
        }
        result
    }

    /// Does nothing: what is discarded would have to leave parity right.
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.require_within(Operation::Discard, offset, length)
    }
}
