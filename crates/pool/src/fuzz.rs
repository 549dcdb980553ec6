//! Decoders of bytes from disk as functions of bytes: none may panic, and what decodes must come back from its
//! encoding as it was.
//!
//! Structures that carry a checksum are tried as they come and with the checksum made right, else hardly any
//! input would get past it.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]

use device::{BlockDevice, MemoryDevice};
use twox_hash::XxHash3_128;

use crate::checkpoint::{Checkpoint, Rewind};
use crate::checksum::ChecksumKind;
use crate::chunk::Chunk;
use crate::codec::{Reader, Writer};
use crate::compress::Compression;
use crate::config::Config;
use crate::core::{Device, Group};
use crate::dataset::{Dataset, Zombie};
use crate::label::{self, CONFIG_BYTES_MAX, DEVICE_BYTES_MIN, Label, Uberblock};
use crate::pointer::{BlockPtr, Extent};
use crate::pool::Pool;
use crate::report::ScanKind;
use crate::scan::Progress;
use crate::space::NodeSpace;
use crate::types::{DatasetId, DeviceId, GroupId, Guid, Logical, Session, Txg};

/// Bytes of a label's header, checksum included.
const HEADER: usize = 4096;
/// Bytes of an uberblock, checksum included.
const SLOT: usize = 8192;

/// Puts the checksum of what is before it at the end of the first `length` bytes, which become that many.
fn sealed(data: &[u8], length: usize, magic: &[u8], version: u32) -> Vec<u8> {
    let mut bytes = data.to_vec();
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    bytes[..magic.len()].copy_from_slice(magic);
    bytes[magic.len()..magic.len() + 4].copy_from_slice(&version.to_le_bytes());
    let checksum = XxHash3_128::oneshot(&bytes[..length - 16]).to_le_bytes();
    bytes[length - 16..length].copy_from_slice(&checksum);
    bytes
}

/// A label with its configuration text.
pub fn label(data: &[u8]) {
    let own = data.first().map_or(0, |byte| u64::from(byte % 4));
    let mut told = sealed(data, HEADER, b"COFFERDAM-LABEL\0", 1);
    told[20..24].copy_from_slice(&(own as u32).to_le_bytes());
    let length = (told.len() - HEADER).min(CONFIG_BYTES_MAX);
    if data.len().is_multiple_of(2) {
        told[44..48].copy_from_slice(&(length as u32).to_le_bytes());
        let checksum = XxHash3_128::oneshot(&told[HEADER..HEADER + length]).to_le_bytes();
        told[64..80].copy_from_slice(&checksum);
    }
    let checksum = XxHash3_128::oneshot(&told[..HEADER - 16]).to_le_bytes();
    told[HEADER - 16..HEADER].copy_from_slice(&checksum);
    for bytes in [data, &told[..]] {
        let Ok(label) = Label::decode(bytes, own) else { continue };
        config(label.config.as_bytes());
        // What is not UTF-8 is replaced by something longer.
        if label.config.len() <= CONFIG_BYTES_MAX {
            assert_eq!(Label::decode(&label.encode(own), own), Ok(label));
        }
    }
}

/// The configuration text of a label.
pub fn config(data: &[u8]) {
    let config = Config::parse(&String::from_utf8_lossy(data));
    let _ = config.report(&|guid| guid.0 % 2 == 0);
}

/// An uberblock.
pub fn uberblock(data: &[u8]) {
    for bytes in [data, &sealed(data, SLOT, b"CDUBERBK", 1)] {
        let Ok(uberblock) = Uberblock::decode(bytes) else { continue };
        let _ = (uberblock.readable(), uberblock.writable());
        let again = uberblock.encode().expect("what came out of a slot fits into one");
        assert_eq!(Uberblock::decode(&again), Ok(uberblock));
    }
}

/// All labels of a device: where they are is told by the device's size and by themselves.
pub fn labels(data: &[u8]) {
    let extra = data.first().map_or(0, |byte| u64::from(*byte) * 4096);
    let device = MemoryDevice::new("fuzzed", DEVICE_BYTES_MIN + extra);
    let size = DEVICE_BYTES_MIN + extra;
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
        let [a, b, kind, length] = *head;
        let length = usize::from(length) * 16;
        let (bytes, tail) = tail.split_at(length.min(tail.len()));
        let slot = u64::from(b % 16);
        let at = label::label_at(size, u64::from(a % 4));
        let written = if kind % 2 == 0 {
            let mut bytes = sealed(bytes, HEADER, b"COFFERDAM-LABEL\0", 1);
            bytes[20..24].copy_from_slice(&u32::from(a % 4).to_le_bytes());
            let checksum = XxHash3_128::oneshot(&bytes[..HEADER - 16]).to_le_bytes();
            bytes[HEADER - 16..HEADER].copy_from_slice(&checksum);
            device.write(at + (16 << 10), &bytes[..HEADER])
        } else {
            let bytes = sealed(bytes, SLOT, b"CDUBERBK", 1);
            device.write(at + (128 << 10) + slot * SLOT as u64, &bytes[..SLOT])
        };
        written.expect("within the device");
        rest = tail;
    }
    let _ = Pool::examine(&device);
    let found = label::read(&device).expect("a device in memory reads");
    let ids: Vec<_> = found.uberblocks.iter().map(|u| (u.txg, u.session)).collect();
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first, once each: {ids:?}");
}

/// A chunk of the chunk tree.
pub fn chunk(data: &[u8]) {
    let Ok(chunk) = Chunk::decode(data) else { return };
    assert_eq!(Chunk::decode(&chunk.encode()), Ok(chunk.clone()));
    // What later arithmetic takes from it.
    let regions = chunk.regions();
    let _ = (chunk.region_bytes(), chunk.length(), regions);
    let _ = NodeSpace::new(chunk.length());
}

/// Devices, groups, datasets, trees being destroyed, scans: the first byte says which.
pub fn items(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 7 {
        0 => {
            let Ok(device) = Device::decode(DeviceId(7), data) else { return };
            let _ = (device.capacity(), device.name(), device.is_called("x"));
            let again = Device::decode(DeviceId(7), &device.encode()).expect("what decoded decodes");
            assert_eq!(again.encode(), device.encode());
        }
        1 => {
            let Ok(group) = Group::decode(GroupId(7), data) else { return };
            assert_eq!(Group::decode(GroupId(7), &group.encode()), Ok(group));
        }
        2 => {
            let Ok(dataset) = Dataset::decode(Guid(7), DatasetId(7), data) else { return };
            let bytes = dataset.encode();
            let again = Dataset::decode(Guid(7), DatasetId(7), &bytes).expect("what decoded decodes");
            assert_eq!(again.encode(), bytes);
        }
        3 => {
            let Ok(zombie) = Zombie::decode(7, data) else { return };
            assert_eq!(zombie.encode(), data);
        }
        4 => {
            let Ok(progress) = Progress::decode(&mut Reader::new("scan item", data)) else { return };
            let _ = (progress.report(ScanKind::Scrub, 0), progress.report(ScanKind::Resilver, 1));
            let mut w = Writer::default();
            progress.encode(&mut w);
            assert!(data.starts_with(&w.finish()));
        }
        5 => {
            let Ok(checkpoint) = Checkpoint::decode(Guid(7), data) else { return };
            assert_eq!(checkpoint.encode(), data);
        }
        _ => {
            let Ok(rewind) = Rewind::decode(data) else { return };
            assert_eq!(rewind.encode(), data);
        }
    }
}

/// Block pointers and extents.
pub fn pointers(data: &[u8]) {
    if let Ok(pointer) = BlockPtr::decode(data) {
        assert_eq!(BlockPtr::decode(&pointer.encode()), Ok(pointer));
    }
    if let Ok(extent) = Extent::decode(data) {
        assert_eq!(Extent::decode(&extent.encode()), Ok(extent));
    }
}

/// A bitmap of live nodes, as it comes and as one of this very chunk.
pub fn bitmap(data: &[u8]) {
    let (pool, address) = (Guid(7), Logical(1 << 20));
    let bytes = u64::from(data.first().copied().unwrap_or(1).max(1)) << 18;
    let mut space = NodeSpace::new(bytes);
    space.load(data, pool, address);
    let mut told = space.encode(pool, Session(1), Txg(2), address);
    for (to, from) in told.iter_mut().skip(64).zip(data) {
        *to = *from;
    }
    let mut space = NodeSpace::new(bytes);
    assert!(space.load(&told, pool, address));
    assert!(space.iter_live().count() as u64 <= space.live());
    let (before, mut taken) = (space.free(), 0);
    while let Some(node) = space.allocate() {
        assert!(space.is_live(node));
        taken += 1;
    }
    assert_eq!(taken, before, "as many can be taken as were said to be free");
    let again = space.encode(pool, Session(1), Txg(2), address);
    let mut other = NodeSpace::new(bytes);
    assert!(other.load(&again, pool, address));
    assert_eq!(other.live(), space.live());
}

/// A compressed block: method, length of the block, stored bytes.
pub fn compressed(data: &[u8]) {
    let Some(([method, length], stored)) = data.split_first_chunk::<2>() else { return };
    let Some(method) = Compression::from_code(*method) else { return };
    let length = 4096 << (length % 9);
    if let Some(block) = method.decompress(stored, length) {
        assert_eq!(block.len(), length);
        if let Some(again) = method.compress(&block) {
            assert_eq!(method.decompress(&again, length), Some(block));
        }
    }
    let _ = ChecksumKind::from_code(data[0]);
}
