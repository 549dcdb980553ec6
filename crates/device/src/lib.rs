//! Block devices of every kind behind one trait, and runners that execute batches of requests on them.
//!
//! A request goes: caller -> [`Runner::run`] ([`Inline`], [`Threads`] or [`Uring`]) -> [`BlockDevice`].
//! Nothing in here knows what is stored on a device.
//!
//! | kind | what it is |
//! |---|---|
//! | [`FileDevice`] | a regular file or a block device of the kernel, locked against other processes |
//! | [`MemoryDevice`] | sparse bytes in memory |
//! | [`SimDevice`] | a simulated disk with faults, a volatile cache and a virtual clock ([`sim`]) |
//! | [`OverlayDevice`] | copy-on-write over a base that is never written |
//! | [`BadMapDevice`] | a device of which some ranges are known to be unreadable |
//! | [`SliceDevice`] | a range of another device |

mod badmap;
mod check;
mod direct;
mod error;
mod file;
mod flock;
mod identity;
mod memory;
mod overlay;
mod pages;
mod ranges;
pub mod rng;
mod runner;
pub mod sim;
mod slice;
mod sys;

pub use badmap::{BadMap, BadMapDevice, MapFileError, Rescue};
pub use direct::AlignedBuffer;
pub use error::{DeviceError, DeviceErrorKind, Operation};
pub use file::{Access, FileDevice};
pub use flock::Lock;
pub use identity::{Identity, identity, mounted_file, stable_name};
pub use memory::MemoryDevice;
pub use overlay::OverlayDevice;
pub use ranges::RangeSet;
pub use rng::Rng;
pub use runner::{Adaptive, Inline, Op, Request, Runner, Threads, Uring, best_runner};
pub use sim::SimDevice;
pub use slice::SliceDevice;

use std::fmt::Debug;
use std::io::{IoSlice, IoSliceMut};

/// What a device is, as far as it can be known without reading its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// The name people are shown: the path it was opened by, or a stable `/dev/disk/by-id` name.
    pub name: String,
    /// Smallest unit the device can read or write, bytes: 512 or 4096.
    pub logical_sector: u32,
    /// Smallest unit that it writes without reading first, bytes: at least `logical_sector`.
    pub physical_sector: u32,
    /// Whether `discard` does something.
    pub discards: bool,
    /// A kernel block device (as opposed to a file, memory or a simulation).
    pub block_device: bool,
}

/// A random-access array of bytes that may fail.
///
/// Offsets and lengths are bytes. Kinds that need aligned requests (`O_DIRECT`) align by themselves.
/// A write is durable only once a `flush` that was called after it has returned `Ok`.
pub trait BlockDevice: Debug + Send + Sync {
    /// What the device is.
    fn info(&self) -> &DeviceInfo;

    /// Current size, bytes. May grow while the device is open.
    fn size(&self) -> Result<u64, DeviceError>;

    /// Fills all buffers, in order, from `offset` on.
    ///
    /// # Errors
    /// Out of range, a medium error anywhere in the range (buffers are then unspecified), or the device is gone.
    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError>;

    /// Writes all buffers, in order, from `offset` on.
    ///
    /// # Errors
    /// On an error any part of the range may hold old, new or damaged bytes.
    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError>;

    /// Makes every write that returned before this call durable.
    ///
    /// # Errors
    /// After an error none of the writes since the last successful flush may be relied upon.
    fn flush(&self) -> Result<(), DeviceError>;

    /// Says that the bytes of the range are not needed any more; they read as anything afterwards.
    ///
    /// # Errors
    /// As a write. Callers treat a failure as "nothing was discarded".
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError>;

    /// The raw descriptor, where a runner may queue requests to the
    /// kernel directly instead of calling the methods above.
    fn raw_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    /// What offset, length and memory address of requests on [`BlockDevice::raw_fd`] must be multiples of,
    /// bytes: a power of two.
    fn raw_alignment(&self) -> u32 {
        1
    }

    /// Fills one buffer from `offset` on.
    ///
    /// # Errors
    /// As [`BlockDevice::read_vectored`].
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DeviceError> {
        self.read_vectored(offset, &mut [IoSliceMut::new(buffer)])
    }

    /// Writes one buffer at `offset`.
    ///
    /// # Errors
    /// As [`BlockDevice::write_vectored`].
    fn write(&self, offset: u64, buffer: &[u8]) -> Result<(), DeviceError> {
        self.write_vectored(offset, &[IoSlice::new(buffer)])
    }
}
