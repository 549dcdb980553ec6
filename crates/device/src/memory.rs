//! A device whose bytes live in memory.

use std::io::{IoSlice, IoSliceMut};
use std::sync::RwLock;

use crate::check::{Target, lock_exclusive, lock_shared, read_length, write_length};
use crate::pages::Pages;
use crate::{BlockDevice, DeviceError, DeviceInfo, Operation};

/// A sparse device in memory: what was never written reads as zeros and takes no memory.
#[derive(Debug)]
pub struct MemoryDevice {
    info: DeviceInfo,
    state: RwLock<State>,
}

#[derive(Clone, Debug)]
struct State {
    size: u64,
    pages: Pages,
}

impl MemoryDevice {
    /// An all-zero device of `size` bytes, with 512-byte sectors.
    pub fn new(name: impl Into<String>, size: u64) -> Self {
        let info = DeviceInfo {
            name: name.into(),
            logical_sector: 512,
            physical_sector: 512,
            discards: true,
            block_device: false,
        };
        Self { info, state: RwLock::new(State { size, pages: Pages::default() }) }
    }

    /// A device that holds a copy of `bytes`.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Self {
        let device = Self::new(name, bytes.len() as u64);
        lock_exclusive(&device.state).pages.write(0, bytes);
        device
    }

    /// Another device with the same contents, independent from now on. Shares memory until one of them writes.
    #[must_use]
    pub fn snapshot(&self, name: impl Into<String>) -> Self {
        let state = lock_shared(&self.state).clone();
        Self { info: DeviceInfo { name: name.into(), ..self.info.clone() }, state: RwLock::new(state) }
    }

    /// Makes it `size` bytes long. New bytes are zeros; bytes beyond the new end are forgotten.
    pub fn set_size(&self, size: u64) {
        let mut state = lock_exclusive(&self.state);
        state.pages.clear(size, u64::MAX - size);
        state.size = size;
    }

    /// Bytes of memory in use.
    pub fn stored(&self) -> u64 {
        lock_shared(&self.state).pages.stored()
    }

    fn target(&self, operation: Operation, offset: u64, length: u64) -> Target<'_> {
        Target { device: &self.info.name, operation, offset, length }
    }
}

impl BlockDevice for MemoryDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(lock_shared(&self.state).size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let state = lock_shared(&self.state);
        self.target(Operation::Read, offset, read_length(buffers)).require_within(state.size)?;
        let mut at = offset;
        for buffer in buffers {
            state.pages.read(at, buffer);
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let mut state = lock_exclusive(&self.state);
        self.target(Operation::Write, offset, write_length(buffers)).require_within(state.size)?;
        let mut at = offset;
        for buffer in buffers {
            state.pages.write(at, buffer);
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let mut state = lock_exclusive(&self.state);
        self.target(Operation::Discard, offset, length).require_within(state.size)?;
        state.pages.clear(offset, length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_zeros_and_forgets_what_was_cut_off() {
        let device = MemoryDevice::from_bytes("m", &[5; 1000]);
        device.set_size(500);
        assert!(device.write(499, &[1, 1]).is_err());
        device.set_size(100_000);
        let mut bytes = [1; 1000];
        device.read(0, &mut bytes).unwrap();
        assert!(bytes[..500].iter().all(|&b| b == 5) && bytes[500..].iter().all(|&b| b == 0));
    }

    #[test]
    fn a_snapshot_is_independent_and_discard_frees_memory() {
        let device = MemoryDevice::new("m", 1 << 40);
        device.write(1 << 39, &[3; 4096]).unwrap();
        let copy = device.snapshot("copy");
        device.discard(0, 1 << 40).unwrap();
        assert_eq!(device.stored(), 0);
        let mut bytes = [0; 4096];
        copy.read(1 << 39, &mut bytes).unwrap();
        assert_eq!(bytes, [3; 4096]);
        assert_eq!(copy.info().name, "copy");
    }
}
