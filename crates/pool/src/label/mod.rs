//! Labels: what is at both ends of every device of a pool.
//!
//! - this file: where labels are, their header with the readable configuration, reading and writing them
//! - `uberblock`: the ring of roots in each label
//!
//! A device carries four labels of [`LABEL_BYTES`], two at its beginning and two at its end, so that neither a
//! bad spot nor a new partition table nor a truncation takes them all. Byte tables are in
//! `docs/on-disk-format.md`.

mod uberblock;

pub(crate) use uberblock::{FEATURE_CHECKPOINT, SYSTEM_CHUNKS_MAX, Uberblock};

use device::{BlockDevice, DeviceError};
use twox_hash::XxHash3_128;

use crate::codec::{DecodeError, Reader, Writer};
use crate::spec::NewDevice;
use crate::types::{DeviceId, Guid, Txg};

/// Bytes of one label.
pub const LABEL_BYTES: u64 = 256 << 10;
/// Labels on a device.
pub const LABELS: u64 = 4;
/// Where chunks may begin on a device.
pub const DATA_START: u64 = 1 << 20;
/// Bytes at a device's end that chunks never use.
pub const TAIL_BYTES: u64 = 2 * LABEL_BYTES;
/// The smallest device that a pool takes, bytes.
pub const DEVICE_BYTES_MIN: u64 = 64 << 20;

const HEADER_AT: u64 = 16 << 10;
const HEADER_BYTES: usize = 4096;
/// The longest configuration text, bytes.
pub(crate) const CONFIG_BYTES_MAX: usize = 108 << 10;
const RING_AT: u64 = 128 << 10;
const SLOT_BYTES: usize = 8192;
const SLOTS: u64 = 16;
/// Magic of a column header.
pub(crate) const COLUMN_MAGIC: &[u8; 8] = b"CDCOLUMN";
/// Where a column header tells the size of its device; its checksum follows.
pub(crate) const COLUMN_SIZE_AT: usize = 4096 - 16 - 8;
const MAGIC: &[u8; 16] = b"COFFERDAM-LABEL\0";
const VERSION: u32 = 1;

/// The part of a device that chunks may use: from [`DATA_START`] to where the labels at the end begin.
pub(crate) fn data_end(size: u64) -> u64 {
    (size / LABEL_BYTES * LABEL_BYTES).saturating_sub(TAIL_BYTES)
}

pub(crate) fn label_at(size: u64, index: u64) -> u64 {
    if index < 2 { index * LABEL_BYTES } else { data_end(size) + (index - 2) * LABEL_BYTES }
}

/// A label's header and configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The pool.
    pub pool: Guid,
    /// The device that carries it.
    pub device: Guid,
    /// That device's number.
    pub id: DeviceId,
    /// Bytes of the device that the pool uses, labels included: where the labels at the end are.
    pub size: u64,
    /// When the label was written.
    pub txg: Txg,
    /// The configuration as JSON text.
    pub config: String,
}

/// Everything that the labels of one device say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// The newest valid header of the device that most valid headers speak of.
    pub(crate) label: Option<Label>,
    /// Every valid uberblock of that pool, newest first, once each.
    pub(crate) uberblocks: Vec<Uberblock>,
    /// Labels whose header is not valid.
    pub(crate) damaged: Vec<u64>,
}

impl Label {
    pub(crate) fn encode(&self, index: u64) -> Vec<u8> {
        let config = self.config.as_bytes();
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(index as u32);
        w.u64(self.pool.0);
        w.u64(self.device.0);
        w.u32(self.id.0);
        w.u32(config.len() as u32);
        w.u64(self.txg.0);
        w.u64(self.size);
        w.raw(&XxHash3_128::oneshot(config).to_le_bytes());
        let mut header = w.finish();
        header.resize(HEADER_BYTES - 16, 0);
        let checksum = XxHash3_128::oneshot(&header);
        header.extend_from_slice(&checksum.to_le_bytes());
        header.extend_from_slice(config);
        header
    }

    pub(crate) fn decode(bytes: &[u8], index: u64) -> Result<Self, DecodeError> {
        let mut r = Reader::new("label", bytes);
        let header = r.raw("header", HEADER_BYTES)?;
        let (body, checksum) = header.split_at(HEADER_BYTES - 16);
        let mut h = Reader::new("label", body);
        if h.raw("magic", 16)? != MAGIC {
            return Err(h.error("magic", "is not there".to_owned()));
        }
        if XxHash3_128::oneshot(body).to_le_bytes() != checksum {
            return Err(h.error("checksum", "does not match".to_owned()));
        }
        let version = h.u32("version")?;
        if version != VERSION {
            return Err(h.error("version", format!("is {version}, known here is {VERSION}")));
        }
        let found = h.u32("index")?;
        if u64::from(found) != index {
            return Err(h.error("index", format!("is {found} in label {index}")));
        }
        let pool = Guid(h.u64("pool")?);
        let device = Guid(h.u64("device")?);
        let id = DeviceId(h.u32("device number")?);
        let length = h.u32("configuration length")? as usize;
        let txg = Txg(h.u64("txg")?);
        let size = h.u64("device size")?;
        if size < DEVICE_BYTES_MIN {
            return Err(h.error("device size", format!("is {size}")));
        }
        let config_checksum = h.array("configuration checksum")?;
        if length > CONFIG_BYTES_MAX {
            return Err(h.error("configuration length", format!("is {length}")));
        }
        // A configuration that was torn does not make the identity above it less true.
        let config = r.raw("configuration", length)?;
        let config = if XxHash3_128::oneshot(config).to_le_bytes() == config_checksum {
            String::from_utf8_lossy(config).into_owned()
        } else {
            String::new()
        };
        Ok(Self { pool, device, id, size, txg, config })
    }
}

/// Reads all labels of a device; unreadable and foreign ones count as damaged.
///
/// # Errors
/// Only when the device can't even tell its size.
pub(crate) fn read(device: &dyn BlockDevice) -> Result<Labels, DeviceError> {
    let size = device.size()?;
    if size < DEVICE_BYTES_MIN {
        return Ok(Labels::default());
    }
    let found = read_as(device, size);
    if found.label.is_some() {
        return Ok(found);
    }
    // One that has grown and lost its first labels has others where it ended before: its first column tells where.
    let before = size_in_column(device).filter(|before| (DEVICE_BYTES_MIN..size).contains(before));
    Ok(before.map_or(found, |before| read_as(device, before)))
}

/// The size that a device had when it got its first column, bytes.
fn size_in_column(device: &dyn BlockDevice) -> Option<u64> {
    let mut header = [0; 4096];
    device.read(DATA_START, &mut header).ok()?;
    let (body, checksum) = header.split_at(4096 - 16);
    let is_whole = body.starts_with(COLUMN_MAGIC) && XxHash3_128::oneshot(body).to_le_bytes() == *checksum;
    let size = body[COLUMN_SIZE_AT..].try_into().map(u64::from_le_bytes).ok()?;
    is_whole.then_some(size)
}

/// Reads the labels of a device that is, or was, of this size.
fn read_as(device: &dyn BlockDevice, mut size: u64) -> Labels {
    let mut found = Labels::default();
    let mut labels: Vec<Label> = Vec::new();
    let mut uberblocks: Vec<Uberblock> = Vec::new();
    let mut bytes = vec![0; LABEL_BYTES as usize];
    for index in 0..LABELS {
        let at = label_at(size, index);
        let ranges = [(HEADER_AT, RING_AT - HEADER_AT), (RING_AT, SLOTS * SLOT_BYTES as u64)];
        let mut readable = [false; 2];
        for (ok, (from, length)) in readable.iter_mut().zip(ranges) {
            *ok = device.read(at + from, &mut bytes[from as usize..(from + length) as usize]).is_ok();
        }
        match Label::decode(&bytes[HEADER_AT as usize..RING_AT as usize], index) {
            Ok(label) if readable[0] => {
                // A device that has grown since carries its last labels where it ended then.
                size = size.min(label.size);
                labels.push(label);
            }
            _ => found.damaged.push(index),
        }
        if readable[1] {
            let ring = &bytes[RING_AT as usize..];
            uberblocks.extend(ring.chunks_exact(SLOT_BYTES).filter_map(|slot| Uberblock::decode(slot).ok()));
        }
    }
    // Whose device this is, most labels decide: one that was written here by mistake, whatever its age, hides nothing.
    let alike = |label: &Label| {
        labels.iter().filter(|other| (other.pool, other.device) == (label.pool, label.device)).count()
    };
    let best = labels.iter().max_by_key(|label| (alike(label), label.txg, !label.config.is_empty()));
    found.label = best.cloned();
    if let Some(label) = &found.label {
        uberblocks.retain(|uberblock| uberblock.pool == label.pool);
        uberblocks.sort_by_key(|uberblock| std::cmp::Reverse((uberblock.txg, uberblock.session)));
        uberblocks.dedup_by_key(|uberblock| (uberblock.txg, uberblock.session));
        found.uberblocks = uberblocks;
    }
    found
}

/// Writes the header and configuration into the labels `which`.
///
/// # Errors
/// The first write that failed; the other labels are written nevertheless.
pub(crate) fn write(device: &dyn BlockDevice, label: &Label, which: &[u64]) -> Result<(), DeviceError> {
    let mut outcome = Ok(());
    for &index in which {
        let written = device.write(label_at(label.size, index) + HEADER_AT, &label.encode(index));
        outcome = outcome.and(written);
    }
    outcome
}

/// Makes a device blank that joins a pool: where labels are, and where its opener says.
///
/// # Errors
/// As [`clear`].
pub(crate) fn make_blank(new: &NewDevice) -> Result<(), DeviceError> {
    for range in &new.wipe {
        new.device.write(range.start, &vec![0; (range.end - range.start) as usize])?;
    }
    clear(&*new.device)
}

/// Makes a device blank where labels are: zeros over all of them, rings included.
///
/// # Errors
/// The first write that failed; the other labels are cleared nevertheless.
pub(crate) fn clear(device: &dyn BlockDevice) -> Result<(), DeviceError> {
    let size = device.size()?;
    if size < DEVICE_BYTES_MIN {
        return Ok(());
    }
    let zeros = vec![0; LABEL_BYTES as usize];
    let mut outcome = Ok(());
    for at in former_labels(device, size) {
        if is_ours(device, at).unwrap_or(true) {
            outcome = outcome.and(device.write(at, &zeros));
        }
    }
    for index in 0..LABELS {
        outcome = outcome.and(device.write(label_at(size, index), &zeros));
    }
    outcome.and(device.flush())
}

/// Where labels are on a device that has grown since it got them: at the end that it had then, as its first labels and
/// its first column tell.
fn former_labels(device: &dyn BlockDevice, size: u64) -> Vec<u64> {
    let mut header = vec![0; (RING_AT - HEADER_AT) as usize];
    let mut told: Vec<u64> = (0..2)
        .filter_map(|index| {
            device.read(label_at(size, index) + HEADER_AT, &mut header).ok()?;
            Some(Label::decode(&header, index).ok()?.size)
        })
        .chain(size_in_column(device))
        .filter(|before| (DEVICE_BYTES_MIN..size).contains(before) && data_end(*before) != data_end(size))
        .flat_map(|before| [label_at(before, 2), label_at(before, 3)])
        .collect();
    told.sort_unstable();
    told.dedup();
    told
}

/// Whether there is a label of ours, whole or not.
fn is_ours(device: &dyn BlockDevice, at: u64) -> Result<bool, DeviceError> {
    let mut bytes = vec![0; LABEL_BYTES as usize];
    device.read(at, &mut bytes)?;
    let mut ring = bytes[RING_AT as usize..].chunks_exact(SLOT_BYTES);
    Ok(bytes[HEADER_AT as usize..].starts_with(MAGIC) || ring.any(Uberblock::is_one))
}

/// Makes those labels blank that are ours, whole or not; returns how many. What else is on the device stays.
///
/// # Errors
/// The first read or write that failed.
pub(crate) fn clear_ours(device: &dyn BlockDevice) -> Result<u64, DeviceError> {
    let size = device.size()?;
    let mut cleared = 0;
    if size < DEVICE_BYTES_MIN {
        return Ok(cleared);
    }
    let zeros = vec![0; LABEL_BYTES as usize];
    for at in former_labels(device, size).into_iter().chain((0..LABELS).map(|index| label_at(size, index))) {
        if is_ours(device, at)? {
            device.write(at, &zeros)?;
            cleared += 1;
        }
    }
    device.flush()?;
    Ok(cleared)
}

/// Where on a device of `size` bytes an uberblock goes: two of the four labels, one at each end, turn by turn.
pub(crate) fn uberblock_offsets(size: u64, txg: Txg) -> [u64; 2] {
    let slot = RING_AT + (txg.0 / 2 % SLOTS) * SLOT_BYTES as u64;
    let odd = txg.0 % 2;
    [label_at(size, odd) + slot, label_at(size, 2 + odd) + slot]
}

#[cfg(test)]
mod tests {
    use device::MemoryDevice;

    use super::*;

    fn label() -> Label {
        Label {
            pool: Guid(1),
            device: Guid(2),
            id: DeviceId(3),
            size: DEVICE_BYTES_MIN + 4096,
            txg: Txg(4),
            config: "{\"name\":\"tank\"}".into(),
        }
    }

    #[test]
    fn any_single_label_is_enough() {
        for survivor in 0..LABELS {
            let device = MemoryDevice::new("d", DEVICE_BYTES_MIN + 4096);
            write(&device, &label(), &[0, 1, 2, 3]).unwrap();
            let size = device.size().unwrap();
            for index in (0..LABELS).filter(|&index| index != survivor) {
                device.write(label_at(size, index) + HEADER_AT, &[0xff; 64]).unwrap();
            }
            let found = read(&device).unwrap();
            assert_eq!(found.label, Some(label()));
            assert_eq!(found.damaged.len(), 3);
        }
    }

    /// A label of another pool, of a later txg, was found in one place and hid the pool that the device belonged to.
    #[test]
    fn a_single_foreign_label_decides_nothing() {
        let foreign = Label { pool: Guid(8), txg: Txg(900), ..label() };
        let sibling = Label { device: Guid(9), txg: Txg(900), ..label() };
        for other in [foreign, sibling] {
            for index in 0..LABELS {
                let device = MemoryDevice::new("d", DEVICE_BYTES_MIN + 4096);
                write(&device, &label(), &[0, 1, 2, 3]).unwrap();
                write(&device, &other, &[index]).unwrap();
                assert_eq!(read(&device).unwrap().label, Some(label()));
                // In as many places as the first, the newer one is believed.
                write(&device, &other, &[(index + 1) % LABELS]).unwrap();
                assert_eq!(read(&device).unwrap().label, Some(other.clone()));
            }
        }
    }

    /// Clearing a device that carried nothing of ours, or had been given to a file system, zeroed its first 512 KiB.
    #[test]
    fn only_what_is_ours_is_cleared() {
        let device = MemoryDevice::new("d", DEVICE_BYTES_MIN + 4096);
        device.write(1024, b"a file system").unwrap();
        assert_eq!(clear_ours(&device).unwrap(), 0);
        write(&device, &label(), &[2, 3]).unwrap();
        assert_eq!(clear_ours(&device).unwrap(), 2);
        assert_eq!(read(&device).unwrap().label, None);
        let mut bytes = [0; 13];
        device.read(1024, &mut bytes).unwrap();
        assert_eq!(&bytes, b"a file system");
        // A header that is damaged is ours all the same.
        write(&device, &label(), &[0]).unwrap();
        device.write(HEADER_AT + 100, &[1]).unwrap();
        assert_eq!(clear_ours(&device).unwrap(), 1);
    }

    /// A device that had grown kept its last labels where it had ended before, and was found again by them.
    #[test]
    fn labels_of_a_device_that_has_grown_are_cleared() {
        let before = DEVICE_BYTES_MIN + 4096;
        let clears: [fn(&MemoryDevice); 2] =
            [|device| clear(device).unwrap(), |device| assert_eq!(clear_ours(device).unwrap(), 4)];
        for clear in clears {
            let device = MemoryDevice::new("d", before + (8 << 20));
            write(&device, &label(), &[0, 1, 2, 3]).unwrap();
            device.write(before + (4 << 20), b"data").unwrap();
            clear(&device);
            for index in 0..LABELS {
                assert!(!is_ours(&device, label_at(before, index)).unwrap());
            }
            let mut bytes = [0; 4];
            device.read(before + (4 << 20), &mut bytes).unwrap();
            assert_eq!(&bytes, b"data");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let bytes = label().encode(0);
        assert_eq!(Label::decode(&bytes, 0), Ok(label()));
        assert!(Label::decode(&bytes, 1).is_err());
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Label::decode(&damaged, 0).is_err(), "bit {bit}");
        }
        let mut torn = bytes.clone();
        torn[HEADER_BYTES] ^= 1;
        assert_eq!(Label::decode(&torn, 0).unwrap().config, "");
    }
}
