//! File systems of Linux and the BSDs.

use crate::crc::crc32_raw;
use crate::fields::{Fields, hex};
use crate::reader::Reader;
use crate::{Found, Kind};

/// ext2, ext3 and ext4, told apart by their feature bits as the kernel does, and external journals.
pub(crate) fn ext(reader: &Reader<'_>) -> Option<Found> {
    const HAS_JOURNAL: u32 = 4;
    const JOURNAL_DEVICE: u32 = 8;
    const SIXTY_FOUR_BIT: u32 = 0x80;
    const METADATA_CSUM: u32 = 0x400;
    /// File types, recovery, meta block groups: what ext3 knows.
    const INCOMPATIBLE_EXT3: u32 = 2 | 4 | 0x10;
    /// Sparse superblocks, large files, hashed directories.
    const READ_ONLY_EXT3: u32 = 1 | 2 | 4;

    let block = reader.at(1024, 1024)?;
    if block.le16(0x38)? != 0xef53 {
        return None;
    }
    let revision = block.le32(0x4c)?;
    let log_block = block.le32(0x18)?;
    if revision > 1 || log_block > 6 {
        return None;
    }
    // Before revision 1 these fields were not there.
    let feature = |at| if revision == 0 { Some(0) } else { block.le32(at) };
    let (compatible, incompatible, read_only) = (feature(0x5c)?, feature(0x60)?, feature(0x64)?);
    let mut found = Found::new(Kind::Ext2, 1024, 1024 + 0x38, 2);
    found.uuid = block.uuid(0x68);
    found.label = block.text(0x78, 16);
    if incompatible & JOURNAL_DEVICE != 0 {
        // The journal's own superblock is in the block after the file system's.
        let journal = reader.at((1024 << log_block).max(2048), 8)?;
        found.kind = Kind::ExtJournal;
        return journal.holds(0, &[0xc0, 0x3b, 0x39, 0x98]).then_some(found);
    }
    let high = if incompatible & SIXTY_FOUR_BIT == 0 { 0 } else { u64::from(block.le32(0x150)?) };
    let blocks = high << 32 | u64::from(block.le32(4)?);
    let first = u64::from(block.le32(0x14)?);
    let (blocks_in_group, inodes_in_group) = (u64::from(block.le32(0x20)?), u64::from(block.le32(0x28)?));
    // A 16-bit magic number proves nothing, but every table of inodes being of the same size does.
    let groups = blocks.checked_sub(first)?.div_ceil(blocks_in_group.max(1));
    let inodes = groups.checked_mul(inodes_in_group)?;
    found.size = blocks.checked_mul(1024 << log_block);
    if first > 1 || inodes == 0 || blocks_in_group == 0 || inodes != u64::from(block.le32(0)?) {
        return None;
    }
    let ext4 = incompatible & !INCOMPATIBLE_EXT3 != 0 || read_only & !READ_ONLY_EXT3 != 0;
    found.kind = match (ext4, compatible & HAS_JOURNAL != 0) {
        (true, _) => Kind::Ext4,
        (false, true) => Kind::Ext3,
        (false, false) => Kind::Ext2,
    };
    if read_only & METADATA_CSUM != 0 {
        found.damaged = !crc32c::crc32c(block.range(0, 0x3fc)?) != block.le32(0x3fc)?;
    }
    Some(found)
}

/// XFS, with and without checksums.
pub(crate) fn xfs(reader: &Reader<'_>) -> Option<Found> {
    const CRC: usize = 224;

    let block = reader.at(0, 512)?;
    if !block.holds(0, b"XFSB") {
        return None;
    }
    let (log_block, log_sector) = (u32::from(block.u8(120)?), u32::from(block.u8(121)?));
    let version = block.be16(100)? & 0xf;
    let groups = u64::from(block.be32(84)?).checked_mul(block.be32(88)?.into())?;
    let plausible = (9..=16).contains(&log_block)
        && (9..=15).contains(&log_sector)
        && block.be32(4)? == 1 << log_block
        && block.be16(102)? == 1 << log_sector
        && (1..=5).contains(&version)
        && (1..=groups).contains(&block.be64(8)?);
    if !plausible {
        return None;
    }
    let mut found = Found::new(Kind::Xfs, 0, 0, 4);
    found.uuid = block.uuid(32);
    found.label = block.text(108, 12);
    found.size = block.be64(8)?.checked_mul(1 << log_block);
    if version == 5 {
        let sector = reader.at(0, 1 << log_sector)?;
        let crc = crc32c::crc32c(sector.range(0, CRC)?);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        let crc = crc32c::crc32c_append(crc, sector.get(CRC + 4..)?);
        found.damaged = crc != sector.le32(CRC)?;
    }
    Some(found)
}

/// Where the superblocks of btrfs are, bytes; the first is the one that counts.
pub const BTRFS_SUPERBLOCKS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// What superblocks of btrfs have at byte 64.
pub const BTRFS_MAGIC: &[u8; 8] = b"_BHRfS_M";

/// btrfs, by any of its superblocks. Only the common checksum is verified: the magic number is long enough.
pub(crate) fn btrfs(reader: &Reader<'_>) -> Option<Found> {
    const CRC32C: u16 = 0;

    let copies = BTRFS_SUPERBLOCKS.into_iter().filter_map(|at| {
        let block = reader.at(at, 4096)?;
        if !block.holds(0x40, BTRFS_MAGIC) || block.le64(0x30)? != at {
            return None;
        }
        let mut found = Found::new(Kind::Btrfs, at, at + 0x40, 8);
        found.uuid = block.uuid(0x20);
        found.label = block.text(0x12b, 256);
        // What the item of this very device says, of those that it may have.
        found.size = block.le64(0xc9 + 8);
        found.damaged = block.le16(0xc4)? == CRC32C && crc32c::crc32c(block.get(32..)?) != block.le32(0)?;
        Some(found)
    });
    Found::merge(&BTRFS_SUPERBLOCKS[..1], copies)
}

/// f2fs, by either of its superblocks.
pub(crate) fn f2fs(reader: &Reader<'_>) -> Option<Found> {
    const MAGIC: u32 = 0xf2f5_2010;
    const PRIMARY: u64 = 1024;

    let copies = [PRIMARY, 4096 + 1024].into_iter().filter_map(|at| {
        let block = reader.at(at, 3072)?;
        let (sector, sectors_in_block, log_block) = (block.le32(8)?, block.le32(12)?, block.le32(16)?);
        let plausible = block.le32(0)? == MAGIC
            && (9..=16).contains(&sector)
            && sector.checked_add(sectors_in_block) == Some(log_block)
            && (12..=16).contains(&log_block)
            && block.le32(20)? == 9;
        if !plausible {
            return None;
        }
        let mut found = Found::new(Kind::F2fs, at, at, 4);
        found.uuid = block.uuid(108);
        found.label = block.utf16(124, 512);
        let crc_at = block.le32(32)? as usize;
        if crc_at != 0 {
            let crc = block.range(0, crc_at).map(|bytes| crc32_raw(MAGIC, bytes));
            found.damaged = crc.is_none() || crc != block.le32(crc_at);
        }
        Some(found)
    });
    Found::merge(&[PRIMARY], copies)
}

/// JFS of Linux and OS/2.
pub(crate) fn jfs(reader: &Reader<'_>) -> Option<Found> {
    const AT: u64 = 32 << 10;

    let block = reader.at(AT, 184)?;
    let power = |log: u16, value: u32| (9..=16).contains(&log) && value == 1 << log;
    let plausible = block.holds(0, b"JFS1")
        && (1..=2).contains(&block.le32(4)?)
        && power(block.le16(20)?, block.le32(16)?)
        && power(block.le16(28)?, block.le32(24)?)
        && block.le16(28)?.checked_add(block.le16(22)?) == block.le16(20);
    let mut found = Found::new(Kind::Jfs, AT, AT, 4);
    found.uuid = block.uuid(136);
    found.label = block.text(152, 16);
    plausible.then_some(found)
}

/// ReiserFS 3.5 and 3.6.
pub(crate) fn reiserfs(reader: &Reader<'_>) -> Option<Found> {
    const AT: u64 = 64 << 10;

    let block = reader.at(AT, 116)?;
    let magic: &[&[u8]] = &[b"ReIsErFs", b"ReIsEr2Fs", b"ReIsEr3Fs"];
    if !magic.iter().any(|magic| block.holds(52, magic)) || !block.le16(44)?.is_power_of_two() {
        return None;
    }
    let mut found = Found::new(Kind::Reiserfs, AT, AT + 52, 9);
    found.uuid = block.uuid(84);
    found.label = block.text(100, 16);
    Some(found)
}

/// UFS1 and UFS2, of either byte order, at any of the places where their kernels look.
pub(crate) fn ufs(reader: &Reader<'_>) -> Option<Found> {
    const MAGIC: usize = 1372;
    const UFS1: u32 = 0x0001_1954;
    const UFS2: u32 = 0x1954_0119;
    /// UFS2 with extended attributes, NetBSD's.
    const UFS2_EA: u32 = 0x1901_2038;
    const PLACES: [u64; 4] = [65536, 8192, 0, 262_144];

    let copies = PLACES.into_iter().filter_map(|at| {
        let block = reader.at(at, MAGIC + 4)?;
        let known = |magic| [UFS1, UFS2, UFS2_EA].contains(&magic);
        let little = known(block.le32(MAGIC)?);
        if !little && !known(block.be32(MAGIC)?) {
            return None;
        }
        let word = |at| if little { block.le32(at) } else { block.be32(at) };
        let (size, fragment) = (word(48)?, word(52)?);
        let plausible = (4096..=65536).contains(&size)
            && size.is_power_of_two()
            && fragment >= 512
            && fragment.checked_mul(word(56)?) == Some(size);
        if !plausible {
            return None;
        }
        let mut found = Found::new(Kind::Ufs, at, at + MAGIC as u64, 4);
        let id = [word(144)?, word(148)?];
        found.uuid = (id != [0; 2]).then(|| id.map(|word| hex(&word.to_be_bytes())).concat());
        if word(MAGIC)? != UFS1 {
            found.label = block.text(680, 32);
        }
        Some(found)
    });
    Found::merge(&PLACES, copies)
}
