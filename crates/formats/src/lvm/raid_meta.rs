//! The superblock of device-mapper's RAID target, at the beginning of each metadata image.

use crate::FieldError;
use crate::fields::Fields;
use crate::md::error::Site;

const SECTOR: u64 = 512;
const MEMBERS_MAX: u32 = 253;

/// What a member of a RAID logical volume notes about its set. It has no checksum.
///
/// A write-intent bitmap as md has it ([`crate::md::Bitmap`]) follows at +4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaidMeta {
    /// Members of the set.
    pub members: u32,
    /// This member's slot.
    pub slot: u32,
    /// How often the set's state had changed.
    pub events: u64,
    /// One bit for each of the first 64 slots: it was thrown out. A mere cable fault sets it.
    pub failed: u64,
    /// Only data below this were rebuilt, bytes of the image; `None`: all were.
    pub recovered: Option<u64>,
    /// The set was in sync below this, bytes of an image; `None`: all was.
    pub resynced: Option<u64>,
    /// md's code of the level.
    pub level: i32,
    /// md's code of the layout.
    pub layout: u32,
    /// Bytes.
    pub chunk: u64,
    /// A change of geometry that was going on: from where on (or up to where, backwards) the old one holds,
    /// bytes of the set; then the new level, layout, chunk (bytes) and how many members it gains.
    pub reshape: Option<(u64, i32, u32, u64, i32)>,
    /// Whether the change runs from the end to the beginning.
    pub backwards: bool,
    /// Where data begin on the data image, bytes; not 0 only after or during a reshape.
    pub data_offset: u64,
    /// Where data of the new geometry begin, bytes.
    pub new_data_offset: u64,
    /// Size of the set, bytes; 0 if not noted.
    pub set_size: u64,
}

impl RaidMeta {
    /// Bytes of it.
    pub const LENGTH: usize = 512;

    /// Reads the first sector of a metadata image, found at byte `offset` of `device`; `None` if nothing was
    /// ever written there.
    ///
    /// # Errors
    /// Which field can't be what it is.
    pub fn parse(bytes: &[u8], device: &str, offset: u64) -> Result<Option<Self>, FieldError> {
        const MAGIC: &[u8] = b"DmRd";
        /// Set if the fields from 60 on are there.
        const EXTENDED: u32 = 1;
        const FLAG_RESHAPING: u32 = 1;
        const FLAG_BACKWARDS: u32 = 2;
        let site = Site { device, offset, structure: "device-mapper RAID superblock" };
        let short = || site.error("length", bytes.len(), Self::LENGTH);
        let block = bytes.get(..Self::LENGTH).ok_or_else(short)?;
        if !block.holds(0, MAGIC) {
            return Ok(None);
        }
        let long = |at: usize| block.le32(at).ok_or_else(short);
        let wide = |at: usize| block.le64(at).ok_or_else(short);
        let sectors = |field: &'static str, count: u64| {
            let bytes = count.checked_mul(SECTOR).filter(|bytes| *bytes <= 1 << 60);
            bytes.ok_or_else(|| site.error(field, count, "sectors that a device can have"))
        };
        let all = |count: u64| (count != u64::MAX).then(|| count.saturating_mul(SECTOR));
        let members = long(8)?;
        site.require((1..=MEMBERS_MAX).contains(&members), "num_devices", members, "1 to 253")?;
        let slot = long(12)?;
        site.require(slot < members, "array_position", slot, format!("less than {members}"))?;
        let extended = long(4)? & EXTENDED != 0;
        let flags = if extended { long(60)? } else { 0 };
        let reshape = if flags & FLAG_RESHAPING != 0 {
            let position = sectors("reshape_position", wide(64)?)?;
            let chunk = u64::from(long(80)?) * SECTOR;
            Some((position, long(72)?.cast_signed(), long(76)?, chunk, long(84)?.cast_signed()))
        } else {
            None
        };
        let extra = |field, at| if extended { sectors(field, wide(at)?) } else { Ok(0) };
        Ok(Some(Self {
            members,
            slot,
            events: wide(16)?,
            failed: wide(24)?,
            recovered: all(wide(32)?),
            resynced: all(wide(40)?),
            level: long(48)?.cast_signed(),
            layout: long(52)?,
            chunk: u64::from(long(56)?) * SECTOR,
            reshape,
            backwards: flags & FLAG_BACKWARDS != 0,
            data_offset: extra("data_offset", 96)?,
            new_data_offset: extra("new_data_offset", 104)?,
            set_size: extra("array_sectors", 88)?,
        }))
    }
}
