//! Reads pieces of a device for decoders that hand on what went wrong.

use device::{BlockDevice, DeviceError};

use crate::FieldError;

/// Why a structure could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its bytes are there, but can't be what they say.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// Its bytes can't be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// The bytes there, fewer where the device ends before. The caller bounds `length`.
pub(crate) fn read_up_to(
    device: &dyn BlockDevice,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>, DeviceError> {
    let left = device.size()?.saturating_sub(offset);
    let mut bytes = vec![0; left.min(length as u64) as usize];
    if !bytes.is_empty() {
        device.read(offset, &mut bytes)?;
    }
    Ok(bytes)
}
