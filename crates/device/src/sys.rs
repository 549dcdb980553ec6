//! System calls that `rustix` does not wrap, and what error numbers mean for a device.

#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{self, Getter, Setter, ioctl};

use crate::DeviceErrorKind;

/// `BLKGETSIZE64`, `_IOR(0x12, 114, size_t)`: the size of a block device, bytes.
const BLOCK_SIZE: ioctl::Opcode = ioctl::opcode::read::<usize>(0x12, 114);
/// `BLKDISCARD`, `_IO(0x12, 119)`: takes offset and length, bytes.
const BLOCK_DISCARD: ioctl::Opcode = ioctl::opcode::none(0x12, 119);

/// Current size of a block device, bytes.
pub(crate) fn block_size(file: impl AsFd) -> Result<u64, Errno> {
    // SAFETY: BLKGETSIZE64 writes one u64 (whatever the `size_t` in its number says), which is what the
    // getter provides.
    unsafe { ioctl(file, Getter::<BLOCK_SIZE, u64>::new()) }
}

/// Tells a block device that it may forget a range. Both numbers must be multiples of its logical sector.
pub(crate) fn block_discard(file: impl AsFd, offset: u64, length: u64) -> Result<(), Errno> {
    // SAFETY: BLKDISCARD reads two u64, which is what the setter points it at.
    unsafe { ioctl(file, Setter::<BLOCK_DISCARD, [u64; 2]>::new([offset, length])) }
}

/// What an error number means to whoever uses the device.
pub(crate) fn error_kind(errno: Errno) -> DeviceErrorKind {
    match errno {
        Errno::NOSPC | Errno::DQUOT => DeviceErrorKind::NoSpace,
        Errno::NODEV | Errno::NXIO => DeviceErrorKind::Gone,
        Errno::ROFS => DeviceErrorKind::ReadOnly,
        _ => DeviceErrorKind::Io(std::io::Error::from(errno).to_string()),
    }
}
