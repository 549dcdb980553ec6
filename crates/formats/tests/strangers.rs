//! Random bytes are nothing: `COFFER_STRANGERS=N` looks at that many devices of them (300 without), and at what looking costs.
#![allow(clippy::unwrap_used)]

use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use device::{BlockDevice, DeviceError, DeviceInfo, MemoryDevice, Rng};

/// Counts what is read.
#[derive(Debug)]
struct Counted(MemoryDevice, AtomicU64);

impl BlockDevice for Counted {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }
    fn size(&self) -> Result<u64, DeviceError> {
        self.0.size()
    }
    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let length: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        self.1.fetch_add(length, Ordering::Relaxed);
        self.0.read_vectored(offset, buffers)
    }
    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.0.write_vectored(offset, buffers)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.0.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.0.discard(offset, length)
    }
}

#[test]
fn random_bytes_are_nothing() {
    let wanted = std::env::var("COFFER_STRANGERS").ok();
    let count: u64 = wanted.as_ref().map_or(300, |count| count.parse().unwrap());
    let mut rng = Rng::new(2);
    let mut most = 0;
    for number in 0..count {
        let size = (rng.within(1..2048)) << 10;
        let mut bytes = vec![0; size as usize];
        rng.fill(&mut bytes);
        // Some are mostly empty, or end with the mark of a boot sector, as so much does.
        if number % 3 == 1 {
            bytes[(size / 4) as usize..].fill(0);
        }
        if number % 5 == 2 {
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        let device = Counted(MemoryDevice::new("stranger", size), AtomicU64::new(0));
        device.write(0, &bytes).unwrap();
        let found = formats::probe(&device).unwrap();
        assert!(found.is_empty(), "number {number}: {found:?}");
        most = most.max(device.1.load(Ordering::Relaxed));
    }
    if wanted.is_some() {
        println!("{count} devices, at most {most} bytes read of one");
    }
    assert!(most <= 4 << 20, "{most}");
}
