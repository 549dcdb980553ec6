//! A device made of runs of other devices, one after the other.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

/// Where the bytes of a run come from.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// A device, from this byte on.
    Device(Arc<dyn BlockDevice>, u64),
    /// Nothing was ever written there.
    Zeros,
    /// They can't be had, and why.
    Nowhere(Arc<str>),
}

/// A run of bytes.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Its size, bytes.
    pub(super) length: u64,
    /// Where it comes from.
    pub(super) from: From,
}

/// Runs one after the other.
#[derive(Debug)]
pub(super) struct MappedDevice {
    info: DeviceInfo,
    /// Where each run begins, and the run; in order, none empty.
    runs: Vec<(u64, Run)>,
    size: u64,
}

impl MappedDevice {
    pub(super) fn new(name: impl Into<String>, runs: impl IntoIterator<Item = Run>) -> Self {
        let mut size = 0_u64;
        let runs = runs.into_iter().filter(|run| run.length > 0);
        let runs = runs.map(|run| {
            let start = size;
            size = size.saturating_add(run.length);
            (start, run)
        });
        let runs = runs.collect();
        let info = DeviceInfo {
            name: name.into(),
            logical_sector: 512,
            physical_sector: 4096,
            discards: false,
            block_device: false,
        };
        Self { info, runs, size }
    }

    fn error(&self, operation: Operation, offset: u64, length: u64, kind: DeviceErrorKind) -> DeviceError {
        DeviceError { device: self.info.name.clone(), operation, offset, length, kind }
    }

    /// Does `work` for each piece of the range: the run, how far into it, which part of the range.
    fn pieces(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        mut work: impl FnMut(&From, u64, Range<usize>) -> Result<(), DeviceErrorKind>,
    ) -> Result<(), DeviceError> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let kind = DeviceErrorKind::OutOfRange { size: self.size };
            return Err(self.error(operation, offset, length, kind));
        }
        let mut done = 0;
        while done < length {
            let at = offset + done;
            let index = self.runs.partition_point(|(start, _)| *start <= at) - 1;
            let (start, run) = &self.runs[index];
            let step = (run.length - (at - start)).min(length - done);
            let told = work(&run.from, at - start, done as usize..(done + step) as usize);
            told.map_err(|kind| self.error(operation, at, step, kind))?;
            done += step;
        }
        Ok(())
    }
}

fn nowhere(why: &str) -> DeviceErrorKind {
    DeviceErrorKind::Io(why.to_owned())
}

impl BlockDevice for MappedDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let mut at = offset;
        for buffer in buffers {
            let length = buffer.len() as u64;
            self.pieces(Operation::Read, at, length, |from, skip, piece| match from {
                From::Device(device, start) => {
                    device.read(start + skip, &mut buffer[piece]).map_err(|error| error.kind)
                }
                From::Zeros => {
                    buffer[piece].fill(0);
                    Ok(())
                }
                From::Nowhere(why) => Err(nowhere(why)),
            })?;
            at += length;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let mut at = offset;
        for buffer in buffers {
            let length = buffer.len() as u64;
            self.pieces(Operation::Write, at, length, |from, skip, piece| match from {
                From::Device(device, start) => {
                    device.write(start + skip, &buffer[piece]).map_err(|error| error.kind)
                }
                From::Zeros => Err(nowhere("nothing was ever written there, so there is no place for it")),
                From::Nowhere(why) => Err(nowhere(why)),
            })?;
            at += length;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut flushed: Vec<&Arc<dyn BlockDevice>> = Vec::new();
        for (_, run) in &self.runs {
            if let From::Device(device, _) = &run.from
                && !flushed.iter().any(|known| Arc::ptr_eq(known, device))
            {
                device.flush()?;
                flushed.push(device);
            }
        }
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}
