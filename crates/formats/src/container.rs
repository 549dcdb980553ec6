//! Sets that a disk controller's firmware or a mainboard made: Intel's metadata (IMSM) and SNIA's DDF.
//!
//! ```text
//! device --container--> Container: who this disk is, and the volumes that it knows of, each with its members and their places
//! ```
//!
//! All disks of an Intel set hold the same; which of them one is tells only its serial number, which is not on it. In DDF
//! each disk has a number of its own, and volumes of two levels have a record for each part on the disks of that part.

use device::{BlockDevice, DeviceError};

use crate::fields::{Fields, hex};
use crate::input::read_up_to;

const SECTOR: u64 = 512;
/// No set has more members.
const MEMBERS_MAX: usize = 256;
/// Most bytes of metadata that are read.
const LENGTH_MAX: usize = 1 << 20;

/// What a disk knows about the set it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// `imsm` or `ddf`.
    pub kind: &'static str,
    /// What all disks of the set have in common.
    pub id: String,
    /// Grows with every change.
    pub generation: u64,
    /// Which of the disks this is, as [`FirmwareMember::disk`] names them; `None` where that is not written down.
    pub own: Option<String>,
    /// The volumes.
    pub volumes: Vec<FirmwareVolume>,
}

/// A volume on such a set, or the part of one that this disk has a record of. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareVolume {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What identifies it in its set.
    pub id: String,
    /// md's level.
    pub level: i32,
    /// md's code of the layout.
    pub layout: u32,
    /// Chunk; 0 where the level has none.
    pub chunk: u64,
    /// How much of each member it uses.
    pub used: u64,
    /// Slots in all.
    pub slots: usize,
    /// The slot of the first of these members.
    pub first: usize,
    /// Members in the order of their slots.
    pub members: Vec<FirmwareMember>,
    /// A change of its geometry was going on.
    pub changing: bool,
}

/// A member of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareMember {
    /// The disk: its serial number, or its number in the set.
    pub disk: String,
    /// Where the volume begins on it, bytes.
    pub start: u64,
    /// It was being rebuilt.
    pub rebuilding: bool,
}

/// What a controller's firmware left on the device, if its checksum is right.
///
/// # Errors
/// The device does not tell its size. What can't be read is not there.
pub fn container(device: &dyn BlockDevice) -> Result<Option<Container>, DeviceError> {
    let size = device.size()?;
    Ok(imsm(device, size).or_else(|| ddf(device, size)))
}

fn read(device: &dyn BlockDevice, at: u64, length: usize) -> Option<Vec<u8>> {
    read_up_to(device, at, length).ok().filter(|bytes| bytes.len() == length)
}

fn imsm(device: &dyn BlockDevice, size: u64) -> Option<Container> {
    const DISKS_AT: usize = 0xd8;
    const DISK: usize = 48;
    let anchor_at = size.checked_sub(2 * SECTOR)?;
    let mut bytes = read(device, anchor_at, SECTOR as usize)?;
    if !bytes.holds(0, b"Intel Raid ISM Cfg Sig. ") {
        return None;
    }
    let length = bytes.le32(0x24)? as usize;
    let more = length.saturating_sub(SECTOR as usize).next_multiple_of(SECTOR as usize);
    if more > 0 {
        let at = anchor_at.checked_sub(more as u64).filter(|_| more <= LENGTH_MAX)?;
        bytes.extend(read(device, at, more)?);
    }
    let covered = bytes.get(..length).filter(|_| length.is_multiple_of(4) && length >= DISKS_AT)?;
    let sum = covered.chunks_exact(4).filter_map(|word| word.le32(0)).fold(0, u32::wrapping_add);
    let stored = bytes.le32(0x20)?;
    if sum.wrapping_sub(stored) != stored {
        return None;
    }
    let (disks, count) = (usize::from(bytes.u8(0x38)?), bytes.u8(0x39)?);
    let serial = |disk: usize| bytes.text(DISKS_AT + DISK * disk, 16);
    let mut volumes = Vec::new();
    let mut at = DISKS_AT + DISK * disks;
    for number in 0..count {
        let volume = bytes.get(at..)?;
        let migrating = volume.u8(80 + 8)? != 0;
        let map = volume.get(112..)?;
        let wide =
            |low: usize, high: usize| Some(u64::from(map.le32(low)?) | u64::from(map.le32(high)?) << 32);
        let members = usize::from(map.u8(16)?);
        let (level, layout, data) = match map.u8(15)? {
            0 => (0, 2, members),
            1 if members == 2 => (1, 0, 1),
            1 | 10 => (10, 0x102, members / 2),
            5 => (5, 0, members.saturating_sub(1)),
            _ => return None,
        };
        let sectors = u64::from(volume.le32(16)?) | u64::from(volume.le32(20)?) << 32;
        let strip = u64::from(map.le16(12)?);
        let start = wide(0, 20)?.checked_mul(SECTOR)?;
        let each = sectors.div_ceil(data.max(1) as u64).checked_next_multiple_of(strip.max(1))?;
        let used = each.checked_mul(SECTOR)?;
        let member = |slot: usize| {
            let order = map.le32(48 + 4 * slot)?;
            let disk = serial((order & 0xff_ffff) as usize)?;
            Some(FirmwareMember { disk, start, rebuilding: order >> 24 & 1 != 0 })
        };
        volumes.push(FirmwareVolume {
            name: volume.text(0, 16),
            id: number.to_string(),
            level,
            layout,
            chunk: if level == 1 { 0 } else { strip * SECTOR },
            used,
            slots: members,
            first: 0,
            members: (0..members).map(member).collect::<Option<_>>()?,
            changing: migrating,
        });
        let length = |map: &[u8]| Some(48 + 4 * usize::from(map.u8(16)?));
        let first = length(map)?;
        at += 112 + first + if migrating { length(map.get(first..)?)? } else { 0 };
    }
    Some(Container {
        kind: "imsm",
        id: hex(&bytes.le32(0x28)?.to_be_bytes()),
        generation: bytes.le32(0x2c)?.into(),
        own: None,
        volumes,
    })
}

/// A header of DDF, or any of its records, if its checksum is right.
fn checked(mut bytes: Vec<u8>, magic: u32) -> Option<Vec<u8>> {
    let stored = bytes.be32(4).filter(|_| bytes.be32(0) == Some(magic))?;
    let own: [u8; 4] = bytes.bytes(4)?;
    bytes.get_mut(4..8)?.fill(0xff);
    // Linux begins with 0 and does not invert; some controllers use the common CRC-32.
    let fits = stored == crate::crc::crc32_raw(0, &bytes) || stored == !crate::crc::crc32_raw(!0, &bytes);
    bytes.get_mut(4..8)?.copy_from_slice(&own);
    fits.then_some(bytes)
}

fn ddf(device: &dyn BlockDevice, size: u64) -> Option<Container> {
    const HEADER: u32 = 0xde11_de11;
    const CONFIG: u32 = 0xeeee_eeee;
    const DATA: u32 = 0x3333_3333;
    let header = |at: u64| checked(read(device, at, SECTOR as usize)?, HEADER);
    let anchor = header(size.checked_sub(SECTOR)?)?;
    // The headers name places relative to themselves.
    let headers = [anchor.be64(96)?, anchor.be64(104)?].into_iter().filter_map(|lba| {
        let at = lba.checked_mul(SECTOR)?;
        Some((at, header(at)?))
    });
    let (base, header) = headers.max_by_key(|(at, header)| (header.be32(40), std::cmp::Reverse(*at)))?;
    let section = |number: usize| {
        let (offset, length) = (header.be32(192 + 8 * number)?, header.be32(196 + 8 * number)?);
        let bytes = (length as usize).checked_mul(SECTOR as usize).filter(|bytes| *bytes <= LENGTH_MAX)?;
        read(device, base.checked_add(u64::from(offset) * SECTOR)?, bytes)
    };
    let own = section(4).and_then(|data| checked(data.get(..SECTOR as usize)?.to_vec(), DATA))?.be32(32)?;
    let (length, most) = (usize::from(header.be16(134)?) * SECTOR as usize, usize::from(header.be16(136)?));
    let virtuals = section(2);
    let name = |guid: &[u8]| {
        let entries = virtuals.as_ref()?.get(64..)?.chunks_exact(64);
        let own = entries.into_iter().find(|entry| entry[..24] == *guid)?;
        own.text(48, 16)
    };
    let mut volumes = Vec::new();
    for record in section(3)?.chunks_exact(length.max(SECTOR as usize)) {
        let Some(record) = checked(record.to_vec(), CONFIG) else { continue };
        let volume = || {
            let guid = record.range(8, 24)?;
            let count = usize::from(record.be16(64)?).min(most).min(MEMBERS_MAX);
            let chunk = SECTOR.checked_shl(u32::from(record.u8(66)?))?;
            let parts = usize::from(record.u8(69)?).clamp(1, MEMBERS_MAX);
            let (level, layout) = match (record.u8(67)?, record.u8(68)?) {
                (1, _) if parts > 1 => (10, 0x100 | count as u32),
                (0, _) => (0, 2),
                (1, _) => (1, 0),
                (4, _) => (4, 0),
                (5, 0) => (5, 1),
                (5, 2) => (5, 0),
                (5, 3) => (5, 2),
                (6, 1) => (6, 8),
                (6, 2) => (6, 9),
                (6, 3) => (6, 10),
                (0x11, 0) => (10, 0x102),
                (0x11, 1) => (10, 0x1_0201),
                _ => return None,
            };
            let member = |slot: usize| {
                let start = record.be64(512 + 4 * most + 8 * slot)?.checked_mul(SECTOR)?;
                let disk = format!("{:08x}", record.be32(512 + 4 * slot)?);
                Some(FirmwareMember { disk, start, rebuilding: false })
            };
            Some(FirmwareVolume {
                name: name(guid),
                id: hex(guid),
                level,
                layout,
                chunk: if level == 1 { 0 } else { chunk },
                used: record.be64(72)?.checked_mul(SECTOR)?,
                slots: count.checked_mul(parts)?,
                first: usize::from(record.u8(70)?).checked_mul(count)?,
                members: (0..count).map(member).collect::<Option<_>>()?,
                changing: false,
            })
        };
        volumes.extend(volume());
    }
    Some(Container {
        kind: "ddf",
        id: hex(header.range(8, 24)?),
        generation: header.be32(40)?.into(),
        own: Some(format!("{own:08x}")),
        volumes,
    })
}
