//! What other systems write on devices: a device with some pieces of bytes on it.

use device::{BlockDevice, MemoryDevice};

/// Where structures lie from the beginning, and from the end.
const PLACES: [i64; 22] = [
    0,
    512,
    1024,
    4096,
    8192,
    16384,
    32768,
    36864,
    65536,
    65536 + 32768,
    131_072,
    262_144,
    4 << 20,
    5120,
    9216,
    -512,
    -1024,
    -4096,
    -8192,
    -65536,
    -131_072,
    -262_144,
];

/// The first byte makes the device's size; then pieces: place, offset in 16 bytes, length in 16 bytes, bytes.
#[allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]
pub fn run(data: &[u8]) {
    let Some((size, mut rest)) = data.split_first() else { return };
    let size = (u64::from(*size) + 1) * 65536 + u64::from(size % 7) * 512;
    let device = MemoryDevice::new("fuzzed", size);
    while let Some((&[place, offset, length], tail)) = rest.split_first_chunk::<3>() {
        let (bytes, tail) = tail.split_at((usize::from(length) * 16 + 16).min(tail.len()));
        let place = PLACES[usize::from(place) % PLACES.len()];
        let from = if place < 0 { size.saturating_add_signed(place) } else { place as u64 };
        let at = from + u64::from(offset) * 16;
        let room = size.saturating_sub(at).min(bytes.len() as u64) as usize;
        device.write_any(at, &bytes[..room]);
        rest = tail;
    }
    let _ = formats::container(&device).expect("a device in memory reads");
    let found = formats::probe(&device).expect("a device in memory reads");
    for found in &found {
        assert!(!found.to_string().is_empty());
    }
    for range in formats::signature_ranges(&found) {
        assert!(range.start < range.end && range.end <= size, "{range:?} of {size}: {found:?}");
    }
}

/// Writing whatever its alignment.
trait WriteAny {
    fn write_any(&self, at: u64, bytes: &[u8]);
}

impl WriteAny for MemoryDevice {
    fn write_any(&self, at: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sector = u64::from(self.info().logical_sector);
        let first = at / sector * sector;
        let end = (at + bytes.len() as u64).next_multiple_of(sector).min(self.size().unwrap_or(0));
        let mut whole = vec![0; (end - first) as usize];
        let written = self.read(first, &mut whole).and_then(|()| {
            whole[(at - first) as usize..][..bytes.len()].copy_from_slice(bytes);
            self.write(first, &whole)
        });
        written.expect("within the device");
    }
}
