//! Range arithmetic and errors that every kind of device shares.

use std::io::{IoSlice, IoSliceMut};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{DeviceError, DeviceErrorKind, Operation};

/// Total length of the buffers of a read, bytes.
pub(crate) fn read_length(buffers: &[IoSliceMut<'_>]) -> u64 {
    buffers.iter().map(|b| b.len() as u64).sum()
}

/// Total length of the buffers of a write, bytes.
pub(crate) fn write_length(buffers: &[IoSlice<'_>]) -> u64 {
    buffers.iter().map(|b| b.len() as u64).sum()
}

/// Whether `length` bytes from `offset` on lie within `size` bytes.
pub(crate) fn within(offset: u64, length: u64, size: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= size)
}

/// One request's identity, from which its error is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) device: &'a str,
    pub(crate) operation: Operation,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Target<'_> {
    /// The request failed because of `kind`.
    pub(crate) fn error(&self, kind: DeviceErrorKind) -> DeviceError {
        DeviceError {
            device: self.device.to_owned(),
            operation: self.operation,
            offset: self.offset,
            length: self.length,
            kind,
        }
    }

    /// Fails unless the request lies within a device of `size` bytes.
    pub(crate) fn require_within(&self, size: u64) -> Result<(), DeviceError> {
        if within(self.offset, self.length, size) {
            Ok(())
        } else {
            Err(self.error(DeviceErrorKind::OutOfRange { size }))
        }
    }
}

/// Locks although another thread panicked while it held the lock: what these locks guard is bytes, which
/// stay meaningful (a half-done write is what any device may leave behind).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], shared.
pub(crate) fn lock_shared<T>(rwlock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    rwlock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], exclusive.
pub(crate) fn lock_exclusive<T>(rwlock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    rwlock.write().unwrap_or_else(PoisonError::into_inner)
}
