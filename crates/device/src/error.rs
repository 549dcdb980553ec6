//! The one error type of all devices.

use std::fmt;

/// What was being done when a device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening it or asking for its size.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making writes durable.
    Flush,
    /// Discarding.
    Discard,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        })
    }
}

/// Why a device failed, as far as a caller acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceErrorKind {
    /// The medium or the transport failed (`EIO` and the like); other places may still work.
    Io(String),
    /// The device is not there any more (`ENODEV`, `ENXIO`, removed, or closed by a simulated pull).
    Gone,
    /// The range does not lie within the device.
    OutOfRange {
        /// The device's size, bytes.
        size: u64,
    },
    /// A file under the device could not grow: its file system is full (`ENOSPC`, `EDQUOT`).
    NoSpace,
    /// The device was opened for reading only.
    ReadOnly,
    /// It can't be opened: no such path, no permission, not a file or block device.
    Unopenable(String),
    /// Another process holds it.
    Busy {
        /// That process, where the system tells.
        holder: Option<u32>,
    },
}

/// An operation on a device failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// The device's name, as in [`crate::DeviceInfo::name`].
    pub device: String,
    /// What was being done.
    pub operation: Operation,
    /// Where on the device, bytes.
    pub offset: u64,
    /// How much, bytes.
    pub length: u64,
    /// Why it failed.
    pub kind: DeviceErrorKind,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, operation, offset, length, kind } = self;
        match operation {
            Operation::Open => write!(f, "cannot open {device}: ")?,
            Operation::Flush => write!(f, "cannot flush {device}: ")?,
            _ => write!(f, "cannot {operation} {length} bytes at offset {offset} of {device}: ")?,
        }
        match kind {
            DeviceErrorKind::Io(why) | DeviceErrorKind::Unopenable(why) => f.write_str(why),
            DeviceErrorKind::Gone => f.write_str("the device is gone"),
            DeviceErrorKind::OutOfRange { size } => write!(f, "the device ends at {size}"),
            DeviceErrorKind::NoSpace => f.write_str("the file system under it is full"),
            DeviceErrorKind::ReadOnly => f.write_str("it was opened for reading only"),
            DeviceErrorKind::Busy { holder: Some(pid) } => write!(f, "it is in use by process {pid}"),
            DeviceErrorKind::Busy { holder: None } => f.write_str("it is in use by another process"),
        }
    }
}

impl std::error::Error for DeviceError {}
