//! Superblocks that hold together: one structure for all versions.

use super::error::{FieldError, Site};
use super::raw::{RawSuperblock, RawV0, RawV1};
use crate::MdVersion;

const SECTOR: u64 = 512;
/// No device has more bytes; below this, sums of two never overflow.
const DEVICE_MAX: u64 = 1 << 60;

const FEATURE_BITMAP: u32 = 0x1;
const FEATURE_RECOVERY: u32 = 0x2;
const FEATURE_RESHAPE: u32 = 0x4;
const FEATURE_BAD_BLOCKS: u32 = 0x8;
const FEATURE_REPLACEMENT: u32 = 0x10;
const FEATURE_BACKWARDS: u32 = 0x20;
const FEATURE_NEW_OFFSET: u32 = 0x40;
const FEATURE_PPL: u32 = 0x400 | 0x800;
const FEATURES_KNOWN: u32 = 0x1fff;

/// What a member is in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It has this slot.
    Slot(u16),
    /// It has none.
    Spare,
    /// It is the journal.
    Journal,
    /// It was thrown out, or was never there.
    Faulty,
}

/// A change of geometry that was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// Up to (or, backwards, from) which array address the new geometry holds, bytes.
    pub position: u64,
    /// Members gained; the array has `raid_disks - delta` in the old geometry.
    pub delta: i32,
    /// New level.
    pub level: i32,
    /// New layout.
    pub layout: u32,
    /// New chunk size, bytes.
    pub chunk: u64,
    /// Where the data of the new geometry begins on this member, bytes.
    pub data_offset: u64,
    /// Whether it runs from the end to the beginning.
    pub backwards: bool,
}

/// The superblock of one member, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The metadata version.
    pub version: MdVersion,
    /// Where it lies on the member, bytes.
    pub offset: u64,
    /// What all members of the array have in common.
    pub array_uuid: [u8; 16],
    /// What only this member has, since 1.0.
    pub device_uuid: Option<[u8; 16]>,
    /// The array's name, `host:name`.
    pub name: Option<String>,
    /// When the array was created, seconds since 1970.
    pub created: u64,
    /// When the superblock was written, seconds since 1970.
    pub updated: u64,
    /// How often the array's state had changed by then.
    pub events: u64,
    /// Level.
    pub level: i32,
    /// Layout, as the level has it.
    pub layout: u32,
    /// Whether the layout of a RAID 0 was written down at all; true at all other levels.
    pub layout_known: bool,
    /// Chunk size, bytes; 0 where the level has none.
    pub chunk: u64,
    /// Slots in the array; those of the new geometry while reshaping.
    pub raid_disks: u32,
    /// Where the array's data begins on this member, bytes.
    pub data_offset: u64,
    /// How many bytes this member has for the array.
    pub data_size: u64,
    /// How much of it the array uses, bytes; 0 at linear and RAID 0, which use all.
    pub used_size: u64,
    /// Which number the member has among `roles`.
    pub number: u32,
    /// What it believes to be.
    pub role: Role,
    /// What it believes that the members with the other numbers are.
    pub roles: Vec<Role>,
    /// Only bytes below this, counted from the beginning of the data, were rebuilt.
    pub recovered: Option<u64>,
    /// It stands in for the member that has the same slot.
    pub replacement: bool,
    /// All writes had come to their end.
    pub clean: bool,
    /// A change of geometry that was going on.
    pub reshape: Option<Reshape>,
    /// Where the write-intent bitmap is, bytes on the member.
    pub bitmap: Option<u64>,
    /// Where the partial parity log is and how long, bytes on the member.
    pub ppl: Option<(u64, u64)>,
    /// Where the journal's tail is, on a journal, bytes on the member.
    pub journal_tail: Option<u64>,
    /// Where the bad-block log is, how long, and the shift of its counts.
    pub bad_block_log: Option<(u64, u64, u8)>,
    /// Feature bits that nobody here knows.
    pub unknown_features: u32,
}

impl RawSuperblock {
    /// Believes it, if it deserves that: found at byte `offset` of `device`, which has `size` bytes.
    ///
    /// The roles of other members and places that a feature points to may still be wrong; they are dropped if
    /// they can't be right. A device that is shorter than the member was is accepted: rescue needs those.
    ///
    /// # Errors
    /// Which field can't be what it is.
    pub fn verify(
        &self,
        version: MdVersion,
        device: &str,
        offset: u64,
        size: u64,
    ) -> Result<Superblock, FieldError> {
        let site = Site { device, offset, structure: "md superblock" };
        match self {
            Self::V0(raw) => verify_v0(raw, version, site, size),
            Self::V1(raw) => verify_v1(raw, version, site),
        }
    }
}

fn verify_v0(raw: &RawV0, version: MdVersion, site: Site<'_>, size: u64) -> Result<Superblock, FieldError> {
    site.require(raw.checksum_fits(), "checksum", raw.word(38), "the sum of the other words")?;
    let minor = raw.word(2);
    site.require(matches!(minor, 90 | 91), "minor version", minor, "90 or 91")?;
    let raid_disks = raw.word(10);
    site.require((1..=27).contains(&raid_disks), "raid_disks", raid_disks, "1 to 27")?;
    let chunk = u64::from(raw.word(65));
    site.require(chunk.is_multiple_of(SECTOR), "chunk_size", chunk, "whole sectors")?;
    let role = |descriptor: usize| {
        let state = raw.word(descriptor + 4);
        let slot = raw.word(descriptor + 3);
        match state {
            _ if state & 0b1001 != 0 => Role::Faulty,
            _ if state & 0b110 == 0b110 && slot < raid_disks => Role::Slot(slot as u16),
            _ => Role::Spare,
        }
    };
    let roles: Vec<Role> = (0..27).map(|disk| role(128 + 32 * disk)).collect();
    let level = raw.word(7).cast_signed();
    // Minor 91 says that the words of a reshape mean something.
    let reshape = (minor == 91).then(|| Reshape {
        position: raw.wide(44).saturating_mul(SECTOR),
        level: raw.word(46).cast_signed(),
        delta: raw.word(47).cast_signed(),
        layout: raw.word(48),
        chunk: u64::from(raw.word(49)),
        data_offset: 0,
        backwards: raw.word(47).cast_signed() < 0,
    });
    let uuid = [5, 13, 14, 15].map(|word| raw.word(word).to_be_bytes()).concat();
    Ok(Superblock {
        version,
        offset: site.offset,
        array_uuid: uuid.try_into().unwrap_or_default(),
        device_uuid: None,
        name: None,
        created: u64::from(raw.word(6)),
        updated: u64::from(raw.word(32)),
        events: raw.wide(39),
        level,
        layout: raw.word(64),
        layout_known: level != 0,
        chunk,
        raid_disks,
        data_offset: 0,
        data_size: site.offset.min(size),
        used_size: if level > 0 { u64::from(raw.word(8)) << 10 } else { 0 },
        number: raw.word(992),
        role: role(992),
        roles,
        recovered: None,
        replacement: false,
        clean: raw.word(33) & 1 != 0,
        reshape,
        bitmap: (raw.word(33) & 1 << 8 != 0).then_some(site.offset + 4096),
        ppl: None,
        journal_tail: None,
        bad_block_log: None,
        unknown_features: 0,
    })
}

fn verify_v1(raw: &RawV1, version: MdVersion, site: Site<'_>) -> Result<Superblock, FieldError> {
    let Some(sum) = raw.computed_csum else {
        return Err(site.error("max_dev", raw.max_dev, "at most what fits into 4 KiB"));
    };
    site.require(sum == raw.sb_csum, "sb_csum", format!("{:#x}", raw.sb_csum), format!("{sum:#x}"))?;
    site.require(
        raw.super_offset == site.offset / SECTOR,
        "super_offset",
        raw.super_offset,
        site.offset / SECTOR,
    )?;
    let disks = raw.raid_disks;
    site.require((1..=raw.max_dev.max(1920)).contains(&disks), "raid_disks", disks, "1 to 1920")?;
    let bytes = |field, sectors: u64| {
        let bytes = sectors.checked_mul(SECTOR).filter(|bytes| *bytes <= DEVICE_MAX);
        bytes.ok_or_else(|| site.error(field, sectors, "sectors that a device can have"))
    };
    let data_offset = bytes("data_offset", raw.data_offset)?;
    let data_size = bytes("data_size", raw.data_size)?;
    let used_size = bytes("size", raw.size)?;
    site.require(used_size <= data_size, "size", raw.size, format!("at most data_size, {}", raw.data_size))?;
    let has = |feature: u32| raw.feature_map & feature != 0;
    // What lies before the device's beginning or behind all devices' ends is not there.
    let near = |base: u64, sectors: i64| {
        base.checked_add_signed(sectors * SECTOR.cast_signed()).filter(|place| *place <= DEVICE_MAX)
    };
    let role = |code: u16| match code {
        0xffff => Role::Spare,
        0xfffd => Role::Journal,
        slot if u32::from(slot) < disks && slot < 0xff00 => Role::Slot(slot),
        _ => Role::Faulty,
    };
    let own = raw.dev_roles.get(raw.dev_number as usize).copied().unwrap_or(0xffff);
    let role_own = role(own);
    let journal = role_own == Role::Journal;
    let reshape = has(FEATURE_RESHAPE)
        .then(|| {
            let new_offset = if has(FEATURE_NEW_OFFSET) { i64::from(raw.new_offset) } else { 0 };
            Some(Reshape {
                position: raw.reshape_position.checked_mul(SECTOR)?,
                delta: raw.delta_disks,
                level: raw.new_level,
                layout: raw.new_layout,
                chunk: u64::from(raw.new_chunk) * SECTOR,
                data_offset: near(data_offset, new_offset)?,
                backwards: raw.delta_disks < 0 || has(FEATURE_BACKWARDS),
            })
        })
        .flatten();
    let ppl = has(FEATURE_PPL)
        .then(|| {
            let start = near(site.offset, i64::from(raw.bitmap_offset as i16))?;
            Some((start, u64::from(raw.bitmap_offset >> 16) * SECTOR))
        })
        .flatten();
    Ok(Superblock {
        version,
        offset: site.offset,
        array_uuid: raw.set_uuid,
        device_uuid: Some(raw.device_uuid),
        name: (!raw.set_name.is_empty()).then(|| raw.set_name.clone()),
        created: raw.ctime & 0xff_ffff_ffff,
        updated: raw.utime & 0xff_ffff_ffff,
        events: raw.events,
        level: raw.level,
        layout: raw.layout,
        layout_known: raw.level != 0 || has(0x1000),
        chunk: u64::from(raw.chunksize) * SECTOR,
        raid_disks: disks,
        data_offset,
        data_size,
        used_size: if raw.level > 0 { used_size } else { 0 },
        number: raw.dev_number,
        role: role_own,
        roles: raw.dev_roles.iter().copied().map(role).collect(),
        recovered: (has(FEATURE_RECOVERY) && !journal).then(|| raw.recovery_offset.saturating_mul(SECTOR)),
        replacement: has(FEATURE_REPLACEMENT),
        clean: raw.resync_offset == u64::MAX,
        reshape,
        bitmap: if has(FEATURE_BITMAP) && !has(FEATURE_PPL) {
            near(site.offset, i64::from(raw.bitmap_offset.cast_signed()))
        } else {
            None
        },
        ppl,
        journal_tail: if journal {
            near(data_offset, 0).and_then(|at| at.checked_add(raw.recovery_offset.checked_mul(SECTOR)?))
        } else {
            None
        },
        bad_block_log: has(FEATURE_BAD_BLOCKS)
            .then(|| {
                let start = near(site.offset, i64::from(raw.bblog_offset))?;
                Some((start, u64::from(raw.bblog_size) * SECTOR, raw.bblog_shift))
            })
            .flatten(),
        unknown_features: raw.feature_map & !FEATURES_KNOWN,
    })
}
