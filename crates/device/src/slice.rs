//! A part of another device: a partition, an array's data area.

use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use crate::check::{Target, read_length, within, write_length};
use crate::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

/// A fixed byte range of another device as a device of its own. Its errors tell offsets within the range.
#[derive(Debug)]
pub struct SliceDevice {
    info: DeviceInfo,
    inner: Arc<dyn BlockDevice>,
    start: u64,
    length: u64,
}

impl SliceDevice {
    /// The `length` bytes from `start` on of `inner`, under a name of its own.
    ///
    /// # Errors
    /// `OutOfRange` if `inner` ends earlier; whatever asking for its size gives.
    pub fn new(
        name: impl Into<String>,
        inner: Arc<dyn BlockDevice>,
        start: u64,
        length: u64,
    ) -> Result<Self, DeviceError> {
        let info = DeviceInfo { name: name.into(), ..inner.info().clone() };
        let target = Target { device: &info.name, operation: Operation::Open, offset: start, length };
        target.require_within(inner.size()?)?;
        Ok(Self { info, inner, start, length })
    }

    /// The range, told to `inner` by `work`, with the error told as this device's.
    fn shifted(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        work: impl FnOnce(u64) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let target = Target { device: &self.info.name, operation, offset, length };
        target.require_within(self.length)?;
        work(self.start + offset).map_err(|error| {
            target.error(match error.kind {
                // The device underneath has shrunk.
                DeviceErrorKind::OutOfRange { size } => {
                    DeviceErrorKind::OutOfRange { size: size.saturating_sub(self.start).min(self.length) }
                }
                kind => kind,
            })
        })
    }
}

impl BlockDevice for SliceDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        let size = self.inner.size()?;
        // If the device underneath has shrunk, only what is still there counts.
        Ok(if within(self.start, self.length, size) { self.length } else { size.saturating_sub(self.start) })
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.shifted(Operation::Read, offset, read_length(buffers), |at| {
            self.inner.read_vectored(at, buffers)
        })
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.shifted(Operation::Write, offset, write_length(buffers), |at| {
            self.inner.write_vectored(at, buffers)
        })
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.shifted(Operation::Discard, offset, length, |at| self.inner.discard(at, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;

    #[test]
    fn it_follows_a_device_that_shrinks_and_never_leaves_its_range() {
        let disk = Arc::new(MemoryDevice::from_bytes("disk", &[1; 1000]));
        let slice = SliceDevice::new("part", disk.clone(), 100, 800).unwrap();
        slice.write(0, &[2; 800]).unwrap();
        let mut bytes = [0; 1000];
        disk.read(0, &mut bytes).unwrap();
        assert!(bytes[..100].iter().chain(&bytes[900..]).all(|&b| b == 1));
        disk.set_size(500);
        assert_eq!(slice.size().unwrap(), 400);
        let error = slice.read(390, &mut [0; 20]).unwrap_err();
        assert_eq!((error.device.as_str(), error.offset), ("part", 390));
        assert_eq!(error.kind, DeviceErrorKind::OutOfRange { size: 400 });
        assert!(SliceDevice::new("far", disk, 400, 101).is_err());
    }
}
