//! Devices made from the fixtures, and damage done to them.
#![allow(clippy::unwrap_used, dead_code, reason = "tests; not each uses all of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use device::{BlockDevice, MemoryDevice};

/// Path of a fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    // Other crates' tests use these as well.
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/fixtures")).join(name)
}

/// The image `NAME.img.zst` as a device of that name; takes memory only where it is not zero. Each is
/// unpacked once, and copies share it.
pub(crate) fn image(name: &str) -> MemoryDevice {
    static UNPACKED: Mutex<BTreeMap<String, MemoryDevice>> = Mutex::new(BTreeMap::new());
    let mut unpacked = UNPACKED.lock().expect("unpacking does not panic");
    unpacked.entry(name.to_owned()).or_insert_with(|| unpack(name)).snapshot(name)
}

fn unpack(name: &str) -> MemoryDevice {
    const PIECE: usize = 64 << 10;
    let file = File::open(fixture(&format!("{name}.img.zst"))).expect("the fixture is there");
    let mut decoder = zstd::Decoder::new(file).expect("it is compressed");
    decoder.window_log_max(30).expect("a window of 1 GiB is allowed");
    let device = MemoryDevice::new(name, 0);
    let mut size = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let length = decoder.by_ref().take(PIECE as u64).read_to_end(&mut piece).expect("it is whole");
        if length == 0 {
            return device;
        }
        device.set_size(size + length as u64);
        for (number, page) in piece.chunks(4096).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                device.write(size + 4096 * number as u64, page).unwrap();
            }
        }
        size += length as u64;
    }
}

/// Bytes of a device.
pub(crate) fn bytes(device: &dyn BlockDevice, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    device.read(offset, &mut bytes).unwrap();
    bytes
}

/// A copy of the device with one byte xored.
pub(crate) fn flipped(device: &MemoryDevice, at: u64, mask: u8) -> MemoryDevice {
    let copy = device.snapshot("flipped");
    let byte = bytes(device, at, 1)[0];
    copy.write(at, &[byte ^ mask]).unwrap();
    copy
}

/// A copy of the device that ends at `size`.
pub(crate) fn truncated(device: &MemoryDevice, size: u64) -> MemoryDevice {
    let copy = device.snapshot("truncated");
    copy.set_size(size);
    copy
}

/// A copy with zeros there.
pub(crate) fn zeroed(device: &MemoryDevice, at: u64, length: usize) -> MemoryDevice {
    let copy = device.snapshot("zeroed");
    copy.write(at, &vec![0; length]).unwrap();
    copy
}
