//! What every kind of device must do, checked against one byte per offset.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::{IoSlice, IoSliceMut};

use device::{BlockDevice, DeviceErrorKind, Rng};
use proptest::prelude::*;

/// One step of a run. Places and lengths are taken modulo what the device has.
#[derive(Clone, Debug)]
pub enum Step {
    Write { offset: u64, length: u64, seed: u64, aligned: bool },
    Read { offset: u64, length: u64, seed: u64, aligned: bool },
    Flush,
    Discard { offset: u64, length: u64 },
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || {
        (any::<u64>(), prop_oneof![0_u64..100, 0_u64..10_000, 0_u64..100_000], any::<u64>(), any::<bool>())
    };
    let step = prop_oneof![
        4 => place().prop_map(|(offset, length, seed, aligned)| Step::Write { offset, length, seed, aligned }),
        4 => place().prop_map(|(offset, length, seed, aligned)| Step::Read { offset, length, seed, aligned }),
        1 => Just(Step::Flush),
        1 => place().prop_map(|(offset, length, ..)| Step::Discard { offset, length }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What is known about a device's bytes: nothing after a discard.
#[derive(Clone, Debug)]
pub struct Model {
    pub bytes: Vec<Option<u8>>,
}

impl Model {
    /// A device that was never written, of `size` bytes, all zero.
    pub fn zeros(size: u64) -> Self {
        Self { bytes: vec![Some(0); size as usize] }
    }

    /// A device that holds `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.iter().copied().map(Some).collect() }
    }

    fn fit(&self, offset: u64, length: u64, aligned: bool) -> (usize, usize) {
        let size = self.bytes.len() as u64;
        let offset = offset % size;
        let length = length.min(size - offset);
        let unit = if aligned { 512 } else { 1 };
        ((offset / unit * unit) as usize, (length / unit * unit) as usize)
    }

    pub fn check(&self, offset: usize, got: &[u8]) {
        for (at, (&got, want)) in got.iter().zip(&self.bytes[offset..]).enumerate() {
            assert!(want.is_none_or(|want| want == got), "byte {} is {got}, not {want:?}", offset + at);
        }
    }

    /// Reads everything and compares.
    pub fn check_all(&self, device: &dyn BlockDevice) {
        let mut bytes = vec![0xee; self.bytes.len()];
        device.read(0, &mut bytes).unwrap();
        self.check(0, &bytes);
    }

    pub fn step(&mut self, device: &dyn BlockDevice, step: &Step) {
        match *step {
            Step::Write { offset, length, seed, aligned } => {
                let (offset, length) = self.fit(offset, length, aligned);
                let mut bytes = vec![0; length];
                Rng::new(seed).fill(&mut bytes);
                let cuts = cuts(length, seed);
                let buffers: Vec<_> = cuts.windows(2).map(|w| IoSlice::new(&bytes[w[0]..w[1]])).collect();
                device.write_vectored(offset as u64, &buffers).unwrap();
                for (model, byte) in self.bytes[offset..].iter_mut().zip(bytes) {
                    *model = Some(byte);
                }
            }
            Step::Read { offset, length, seed, aligned } => {
                let (offset, length) = self.fit(offset, length, aligned);
                let mut bytes = vec![0xee; length];
                let mut rest = bytes.as_mut_slice();
                let mut buffers = Vec::new();
                for cut in cuts(length, seed).windows(2) {
                    let (part, after) = rest.split_at_mut(cut[1] - cut[0]);
                    buffers.push(IoSliceMut::new(part));
                    rest = after;
                }
                device.read_vectored(offset as u64, &mut buffers).unwrap();
                self.check(offset, &bytes);
            }
            Step::Flush => device.flush().unwrap(),
            Step::Discard { offset, length } => {
                let (offset, length) = self.fit(offset, length, false);
                device.discard(offset as u64, length as u64).unwrap();
                self.bytes[offset..offset + length].fill(None);
            }
        }
    }
}

/// Where a request is cut into buffers: from 0 to `length`, now and then with empty ones.
fn cuts(length: usize, seed: u64) -> Vec<usize> {
    let mut rng = Rng::new(!seed);
    let count = rng.below(6);
    let mut cuts: Vec<usize> = (0..count).map(|_| rng.below(length as u64 + 1) as usize).collect();
    cuts.extend([0, length]);
    cuts.sort_unstable();
    cuts
}

/// Runs the steps and compares all bytes at the end.
pub fn conforms(device: &dyn BlockDevice, steps: &[Step], model: &mut Model) {
    assert_eq!(device.size().unwrap(), model.bytes.len() as u64);
    for step in steps {
        model.step(device, step);
    }
    model.check_all(device);
}

/// Requests that do not lie on the device are refused, change nothing and say where the end is.
pub fn refuses_what_is_out_of_range(device: &dyn BlockDevice) {
    let size = device.size().unwrap();
    let mut before = vec![0; size as usize];
    device.read(0, &mut before).unwrap();
    let mut buffer = [0x5a; 1024];
    for offset in
        [size - 1023, size, size + 1, i64::MAX as u64 - 100, u64::MAX - 1024, u64::MAX - 1, u64::MAX]
    {
        let results = [
            device.read(offset, &mut buffer),
            device.write(offset, &[0x5a; 1024]),
            device.discard(offset, 1024),
        ];
        for result in results {
            let error = result.expect_err("out of range");
            assert_eq!(error.kind, DeviceErrorKind::OutOfRange { size }, "{error}");
            assert_eq!((error.offset, error.length), (offset, 1024));
        }
    }
    device.read(size, &mut []).unwrap();
    device.write(size, &[]).unwrap();
    assert!(device.read(size + 1, &mut []).is_err() && device.write(size + 1, &[]).is_err());
    let mut after = vec![0; size as usize];
    device.read(0, &mut after).unwrap();
    assert!(before == after, "a refused request changed something");
    assert_eq!(device.size().unwrap(), size);
}

/// More buffers than one system call takes.
pub fn takes_thousands_of_buffers(device: &dyn BlockDevice) {
    let bytes: Vec<u8> = (0..3000 * 7).map(|i: u32| (i % 251) as u8).collect();
    let buffers: Vec<_> = bytes.chunks(7).map(IoSlice::new).collect();
    device.write_vectored(512, &buffers).unwrap();
    let mut back = vec![0; bytes.len()];
    let mut buffers: Vec<_> = back.chunks_mut(5).map(IoSliceMut::new).collect();
    device.read_vectored(512, &mut buffers).unwrap();
    assert!(back == bytes);
}

/// A loop device over a file, taken down again when dropped.
pub struct Loop {
    pub path: String,
}

impl Loop {
    /// `None`, with the reason printed, where loop devices are not to be had.
    pub fn over(file: &std::path::Path) -> Option<Self> {
        let output = std::process::Command::new("losetup").arg("--find").arg("--show").arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Self { path: String::from_utf8(output.stdout).unwrap().trim().to_owned() })
            }
            Ok(output) => {
                println!("skipped: losetup says {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no losetup: {error}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
