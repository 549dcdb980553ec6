//! Superblocks as they are on the medium: fields read, nothing believed.

use crate::MdVersion;
use crate::fields::Fields;
use crate::raid::fold;

const MAGIC: u32 = 0xa92b_4efc;

/// What a 1.x superblock may hold at most in its 4 KiB.
const ROLES_MAX: u32 = (4096 - 256) / 2;

/// A superblock of any version, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawSuperblock {
    /// 0.90.
    V0(Box<RawV0>),
    /// 1.0, 1.1 or 1.2.
    V1(Box<RawV1>),
}

/// A 0.90 superblock: 1024 words in the byte order of the machine that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawV0 {
    /// The words.
    pub words: Vec<u32>,
    /// Whether they are little-endian.
    pub little: bool,
}

/// A 1.x superblock. Sizes and offsets in sectors of 512 bytes, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields have the names of the kernel's md_p.h")]
pub struct RawV1 {
    pub feature_map: u32,
    pub pad0: u32,
    pub set_uuid: [u8; 16],
    pub set_name: String,
    pub ctime: u64,
    pub level: i32,
    pub layout: u32,
    pub size: u64,
    pub chunksize: u32,
    pub raid_disks: u32,
    /// Or, with a PPL: its offset in the low, its size in the high 16 bits.
    pub bitmap_offset: u32,
    pub new_level: i32,
    pub reshape_position: u64,
    pub delta_disks: i32,
    pub new_layout: u32,
    pub new_chunk: u32,
    pub new_offset: i32,
    pub data_offset: u64,
    pub data_size: u64,
    pub super_offset: u64,
    /// Or, on a journal device: its tail.
    pub recovery_offset: u64,
    pub dev_number: u32,
    pub cnt_corrected_read: u32,
    pub device_uuid: [u8; 16],
    pub devflags: u8,
    pub bblog_shift: u8,
    pub bblog_size: u16,
    pub bblog_offset: i32,
    pub utime: u64,
    pub events: u64,
    pub resync_offset: u64,
    pub sb_csum: u32,
    /// What `sb_csum` ought to be; `None` if the roles don't fit into the superblock.
    pub computed_csum: Option<u32>,
    pub max_dev: u32,
    /// As many of `max_dev` as were there to be read.
    pub dev_roles: Vec<u16>,
}

impl RawSuperblock {
    /// What begins at `bytes`, which should be [`super::SUPERBLOCK_LENGTH`] long or all that there is; `None`
    /// if that is no superblock of this version.
    pub fn parse(version: MdVersion, bytes: &[u8]) -> Option<Self> {
        match version {
            MdVersion::V0_90 => RawV0::parse(bytes).map(|raw| Self::V0(Box::new(raw))),
            _ => RawV1::parse(bytes).map(|raw| Self::V1(Box::new(raw))),
        }
    }
}

impl RawV0 {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let little = bytes.le32(0)? == MAGIC;
        let block = bytes.get(..4096)?.chunks_exact(4);
        let words: Vec<u32> =
            block.filter_map(|word| if little { word.le32(0) } else { word.be32(0) }).collect();
        (words[0] == MAGIC && words[1] == 0).then_some(Self { words, little })
    }

    /// A word; zero behind the end.
    pub fn word(&self, index: usize) -> u32 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Two words as one number, as the machine that wrote it stores 64 bits.
    pub fn wide(&self, index: usize) -> u64 {
        let (first, second) = (u64::from(self.word(index)), u64::from(self.word(index + 1)));
        if self.little { first | second << 32 } else { second | first << 32 }
    }

    /// Whether the checksum is right. Old Alphas stored the sum folded once more, so 16 bits are compared.
    pub fn checksum_fits(&self) -> bool {
        const CHECKSUM: usize = 38;
        let words = self.words.iter().enumerate().filter(|(index, _)| *index != CHECKSUM);
        let sum: u64 = words.map(|(_, word)| u64::from(*word)).sum();
        let short = |sum: u32| ((sum & 0xffff) + (sum >> 16)) as u16;
        short(fold(sum)) == short(self.word(CHECKSUM))
    }
}

impl RawV1 {
    fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.le32(0)? != MAGIC || bytes.le32(4)? != 1 {
            return None;
        }
        let max_dev = bytes.le32(220)?;
        let roles = bytes.get(256..)?.chunks_exact(2).take(max_dev.min(ROLES_MAX) as usize);
        Some(Self {
            feature_map: bytes.le32(8)?,
            pad0: bytes.le32(12)?,
            set_uuid: bytes.bytes(16)?,
            set_name: bytes.text(32, 32).unwrap_or_default(),
            ctime: bytes.le64(64)?,
            level: bytes.le32(72)?.cast_signed(),
            layout: bytes.le32(76)?,
            size: bytes.le64(80)?,
            chunksize: bytes.le32(88)?,
            raid_disks: bytes.le32(92)?,
            bitmap_offset: bytes.le32(96)?,
            new_level: bytes.le32(100)?.cast_signed(),
            reshape_position: bytes.le64(104)?,
            delta_disks: bytes.le32(112)?.cast_signed(),
            new_layout: bytes.le32(116)?,
            new_chunk: bytes.le32(120)?,
            new_offset: bytes.le32(124)?.cast_signed(),
            data_offset: bytes.le64(128)?,
            data_size: bytes.le64(136)?,
            super_offset: bytes.le64(144)?,
            recovery_offset: bytes.le64(152)?,
            dev_number: bytes.le32(160)?,
            cnt_corrected_read: bytes.le32(164)?,
            device_uuid: bytes.bytes(168)?,
            devflags: bytes.u8(184)?,
            bblog_shift: bytes.u8(185)?,
            bblog_size: bytes.le16(186)?,
            bblog_offset: bytes.le32(188)?.cast_signed(),
            utime: bytes.le64(192)?,
            events: bytes.le64(200)?,
            resync_offset: bytes.le64(208)?,
            sb_csum: bytes.le32(216)?,
            computed_csum: checksum(bytes, max_dev),
            max_dev,
            dev_roles: roles.filter_map(|role| role.le16(0)).collect(),
        })
    }
}

/// The sum over the fixed part and `max_dev` roles, with the field itself as zero.
fn checksum(bytes: &[u8], max_dev: u32) -> Option<u32> {
    const CHECKSUM: usize = 216;
    if max_dev > ROLES_MAX {
        return None;
    }
    let covered = bytes.get(..256 + 2 * max_dev as usize)?;
    let words = covered.chunks(4).enumerate().filter(|(index, _)| index * 4 != CHECKSUM);
    let sum =
        words.filter_map(|(_, word)| word.le32(0).or_else(|| word.le16(0).map(u32::from))).map(u64::from);
    Some(fold(sum.sum()))
}
