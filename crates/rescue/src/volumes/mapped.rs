//! A device made of runs of other devices, one after the other.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

/// A run of another device.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Its size, bytes: not 0.
    pub(super) length: u64,
    /// The device; `None` if it is not there.
    pub(super) device: Option<Arc<dyn BlockDevice>>,
    /// Where it begins there.
    pub(super) offset: u64,
}

/// Runs one after the other. Where one's device is not there, reading fails.
#[derive(Debug)]
pub(super) struct MappedDevice {
    info: DeviceInfo,
    /// Where each run begins, and the run; in order.
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

    /// Does `work` for each piece of the range: device, offset there, piece of the range.
    fn pieces(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        mut work: impl FnMut(&dyn BlockDevice, u64, std::ops::Range<usize>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(self.error(
                operation,
                offset,
                length,
                DeviceErrorKind::OutOfRange { size: self.size },
            ));
        }
        let mut done = 0;
        while done < length {
            let at = offset + done;
            let index = self.runs.partition_point(|(start, _)| *start <= at) - 1;
            let (start, run) = &self.runs[index];
            let step = (run.length - (at - start)).min(length - done);
            let Some(device) = &run.device else {
                let why = "the device that holds this part is missing".to_owned();
                return Err(self.error(operation, at, step, DeviceErrorKind::Io(why)));
            };
            let told = work(&**device, run.offset + (at - start), done as usize..(done + step) as usize);
            told.map_err(|error| self.error(operation, at, step, error.kind))?;
            done += step;
        }
        Ok(())
    }
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
            self.pieces(Operation::Read, at, length, |device, from, piece| {
                device.read(from, &mut buffer[piece])
            })?;
            at += length;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let mut at = offset;
        for buffer in buffers {
            let length = buffer.len() as u64;
            self.pieces(Operation::Write, at, length, |device, to, piece| device.write(to, &buffer[piece]))?;
            at += length;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.runs.iter().filter_map(|(_, run)| run.device.as_ref()).try_for_each(|device| device.flush())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}
