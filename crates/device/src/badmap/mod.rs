//! Bad-sector maps: what a copy of a failing disk is known not to hold.
//!
//! [`BadMap`] says for every byte how a rescue copy of it went, and reads and prints the map files of GNU
//! ddrescue ([`mapfile`]). [`BadMapDevice`] puts such a map over a device: what was not rescued is a read
//! error instead of whatever happens to be in the copy.

mod mapfile;

pub use mapfile::MapFileError;

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::{Arc, RwLock};

use crate::check::{Target, lock_exclusive, lock_shared, read_length, write_length};
use crate::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

/// How the rescue of a range went, in ddrescue's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rescue {
    /// Read: the copy holds it.
    Finished,
    /// Not tried yet.
    NonTried,
    /// A failed block, to be narrowed down from its edges.
    NonTrimmed,
    /// A failed block, to be read sector by sector.
    NonScraped,
    /// A sector that cannot be read.
    BadSector,
}

impl Rescue {
    fn why(self) -> &'static str {
        match self {
            Self::Finished => "it was rescued",
            Self::NonTried => "it was not tried when the disk was rescued",
            Self::NonTrimmed | Self::NonScraped => "it lies in a block that could not be rescued whole",
            Self::BadSector => "it is a bad sector that could not be rescued",
        }
    }
}

/// How the rescue of every byte of a disk went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMap {
    /// Where each run of one status begins; the status before the first is `before`. Neighbours differ.
    runs: BTreeMap<u64, Rescue>,
    before: Rescue,
}

impl Default for BadMap {
    fn default() -> Self {
        Self::filled(Rescue::Finished)
    }
}

impl BadMap {
    /// A map that says the same of every byte.
    pub fn filled(status: Rescue) -> Self {
        Self { runs: BTreeMap::new(), before: status }
    }

    /// A map of a good disk except for these ranges, which are bad sectors.
    pub fn from_bad_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut map = Self::default();
        for range in ranges {
            map.set(range, Rescue::BadSector);
        }
        map
    }

    /// The status of one byte.
    pub fn status(&self, offset: u64) -> Rescue {
        self.runs.range(..=offset).next_back().map_or(self.before, |(_, &status)| status)
    }

    /// Says `status` of every byte of `range`.
    pub fn set(&mut self, range: Range<u64>, status: Rescue) {
        let Range { start, end } = range;
        if start >= end {
            return;
        }
        let after = self.status(end);
        self.runs.extract_if(start..=end, |_, _| true).for_each(drop);
        let before = start.checked_sub(1).map(|last| self.status(last));
        if before != Some(status) {
            self.runs.insert(start, status);
        }
        if after != status {
            self.runs.insert(end, after);
        }
    }

    /// The runs of one status that touch `range`, cut to it, in order.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Rescue)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let status = self.status(at);
            let next = self.runs.range(at + 1..).next().map_or(range.end, |(&start, _)| start.min(range.end));
            let run = at..next;
            at = next;
            Some((run, status))
        })
    }

    /// The parts of `range` that the copy does not hold, in order.
    pub fn bad(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Rescue)> {
        self.runs(range).filter(|(_, status)| *status != Rescue::Finished)
    }
}

/// A device with a bad-sector map: reads that touch what was not rescued fail. What is written is good again.
#[derive(Debug)]
pub struct BadMapDevice {
    inner: Arc<dyn BlockDevice>,
    map: RwLock<BadMap>,
}

impl BadMapDevice {
    /// Puts `map` over `inner`.
    pub fn new(inner: Arc<dyn BlockDevice>, map: BadMap) -> Self {
        Self { inner, map: RwLock::new(map) }
    }

    /// The map as it is now.
    pub fn map(&self) -> BadMap {
        lock_shared(&self.map).clone()
    }
}

impl BlockDevice for BadMapDevice {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.inner.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let length = read_length(buffers);
        let target = Target { device: &self.info().name, operation: Operation::Read, offset, length };
        let end = offset.saturating_add(length);
        let bad = lock_shared(&self.map).bad(offset..end).next();
        if let Some((bad, status)) = bad {
            // A range that does not exist at all is the more important news.
            target.require_within(self.size()?)?;
            let Range { start, end } = bad;
            let why = format!("bytes {start} to {end} are missing: {}", status.why());
            return Err(target.error(DeviceErrorKind::Io(why)));
        }
        self.inner.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.inner.write_vectored(offset, buffers)?;
        let range = offset..offset + write_length(buffers);
        if lock_shared(&self.map).bad(range.clone()).next().is_some() {
            lock_exclusive(&self.map).set(range, Rescue::Finished);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.inner.discard(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;
    use proptest::prelude::*;

    const STATUSES: [Rescue; 5] =
        [Rescue::Finished, Rescue::NonTried, Rescue::NonTrimmed, Rescue::NonScraped, Rescue::BadSector];

    proptest! {
        /// Against one status per byte; also printed and read back.
        #[test]
        fn behaves_like_one_status_per_byte(steps in prop::collection::vec((0_u64..60, 0_u64..20, 0..5_usize), 0..40)) {
            let mut map = BadMap::filled(Rescue::NonTried);
            let mut model = [Rescue::NonTried; 80];
            for (start, length, status) in steps {
                map.set(start..start + length, STATUSES[status]);
                model[start as usize..(start + length) as usize].fill(STATUSES[status]);
                let mut expanded = Vec::new();
                let mut last = None;
                for (run, status) in map.runs(0..80) {
                    prop_assert!(last != Some(status), "neighbours differ");
                    last = Some(status);
                    expanded.extend(run.map(|_| status));
                }
                prop_assert_eq!(&expanded[..], &model[..]);
            }
            let text = map.print(80);
            let back = BadMap::parse(&text).unwrap();
            prop_assert!(back.runs(0..80).eq(map.runs(0..80)), "{}", text);
        }
    }

    #[test]
    fn reads_of_what_is_missing_fail_until_it_is_written() {
        let disk = Arc::new(MemoryDevice::from_bytes("disk", &[1; 8192]));
        let device = BadMapDevice::new(disk, BadMap::from_bad_ranges([1024..1536, 4096..8192]));
        device.read(0, &mut [0; 1024]).unwrap();
        device.read(1536, &mut [0; 512]).unwrap();
        let error = device.read(512, &mut [0; 1024]).unwrap_err();
        assert!(error.to_string().contains("bytes 1024 to 1536"), "{error}");
        assert!(matches!(
            device.read(8000, &mut [0; 512]).unwrap_err().kind,
            DeviceErrorKind::OutOfRange { .. }
        ));
        device.write(1024, &[2; 512]).unwrap();
        device.read(512, &mut [0; 1024]).unwrap();
        let left: Vec<_> = device.map().bad(0..8192).collect();
        assert_eq!(left, [(4096..8192, Rescue::BadSector)]);
    }
}
