//! System calls that `rustix` does not wrap, and what error numbers mean for a device.

#![allow(unsafe_code)]

pub(crate) mod ring;

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::ioctl::{self, Getter, Setter, ioctl};

use crate::identity::sysfs;
use crate::{BlockDevice, DeviceErrorKind};

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
        // A descriptor that is open, but not for writing, is a bad one to write to.
        Errno::ROFS | Errno::BADF => DeviceErrorKind::ReadOnly,
        _ => DeviceErrorKind::Io(std::io::Error::from(errno).to_string()),
    }
}

/// As [`error_kind`], for an open file: a pulled disk answers "input/output error" for as long as somebody has it
/// open, but the kernel has already forgotten its number.
pub(crate) fn error_kind_on(file: impl AsFd, errno: Errno) -> DeviceErrorKind {
    let kind = error_kind(errno);
    let forgotten = || {
        rustix::fs::fstat(file).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device()
                && !sysfs(stat.st_rdev).exists()
        })
    };
    if matches!(kind, DeviceErrorKind::Io(_)) && forgotten() { DeviceErrorKind::Gone } else { kind }
}

/// As [`error_kind_on`], for a device whose descriptor was used directly.
pub(crate) fn error_kind_of(device: &dyn BlockDevice, errno: Errno) -> DeviceErrorKind {
    let Some(descriptor) = device.raw_fd() else { return error_kind(errno) };
    error_kind_on(borrow(device, descriptor), errno)
}

fn borrow(_device: &dyn BlockDevice, descriptor: RawFd) -> BorrowedFd<'_> {
    // SAFETY: a device keeps the descriptor that it names open for as long as it lives, and it is borrowed for
    // as long as the result.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}
