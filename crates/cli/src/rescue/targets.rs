//! A device as something that can be served.

use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind};
use export::{Run, Target, TargetError};

/// Zeros are written in pieces of this size, bytes.
const ZEROS: u64 = 1 << 20;

/// A volume of a rescued array.
#[derive(Debug)]
pub(super) struct Served {
    device: Arc<dyn BlockDevice>,
    size: u64,
    read_only: bool,
}

impl Served {
    /// Serves `device`.
    ///
    /// # Errors
    /// It does not tell its size.
    pub(super) fn new(device: Arc<dyn BlockDevice>, read_only: bool) -> Result<Self, DeviceError> {
        let size = device.size()?;
        Ok(Self { device, size, read_only })
    }

    fn writable(&self) -> Result<(), TargetError> {
        if self.read_only { Err(TargetError::ReadOnly) } else { Ok(()) }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(error: DeviceError) -> TargetError {
    match error.kind {
        DeviceErrorKind::OutOfRange { .. } => TargetError::Invalid(error.to_string()),
        DeviceErrorKind::NoSpace => TargetError::NoSpace,
        DeviceErrorKind::ReadOnly => TargetError::ReadOnly,
        _ => TargetError::Io(error.to_string()),
    }
}

impl Target for Served {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.device.read(offset, buffer).map_err(told)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.writable()?;
        self.device.write(offset, data).map_err(told)
    }

    fn flush(&self) -> Result<(), TargetError> {
        self.device.flush().map_err(told)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.write_zeroes(offset, length, false)
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> Result<(), TargetError> {
        self.writable()?;
        let zeros = vec![0; length.min(ZEROS) as usize];
        let end =
            offset.checked_add(length).ok_or_else(|| TargetError::Invalid("beyond the end".to_owned()))?;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS);
            self.device.write(at, &zeros[..step as usize]).map_err(told)?;
            at += step;
        }
        Ok(())
    }

    fn runs(&self, offset: u64, length: u64, _: usize) -> Result<Vec<Run>, TargetError> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(TargetError::Invalid("the range does not lie within the volume".to_owned()));
        }
        Ok(vec![Run { length, hole: false }])
    }
}
