//! Images of media and Apple's file systems.

use crate::fields::Fields;
use crate::reader::Reader;
use crate::{Found, Kind};

/// squashfs 4.
pub(crate) fn squashfs(reader: &Reader<'_>) -> Option<Found> {
    let block = reader.at(0, 96)?;
    let log_block = block.le16(22)?;
    let plausible = block.holds(0, b"hsqs")
        && (12..=20).contains(&log_block)
        && block.le32(12)? == 1 << log_block
        && (1..=6).contains(&block.le16(20)?)
        && block.le32(28)? == 4
        && block.le64(40)? >= 96;
    plausible.then(|| Found::new(Kind::Squashfs, 0, 0, 4))
}

/// ISO 9660, by its primary volume descriptor, which is among the first few sectors of 2048 bytes from 32 KiB.
pub(crate) fn iso9660(reader: &Reader<'_>) -> Option<Found> {
    for at in (0..16).map(|index| (32 << 10) + 2048 * index) {
        let sector = reader.at(at, 2048)?;
        if !sector.holds(1, b"CD001\x01") {
            return None;
        }
        // Numbers are stored in both byte orders.
        if sector.u8(0)? == 1
            && sector.le32(80)? == sector.be32(84)?
            && sector.le16(128)? == sector.be16(130)?
        {
            let mut found = Found::new(Kind::Iso9660, at, at + 1, 5);
            if at != 32 << 10 {
                found.signatures.insert(0, (32 << 10) + 1..(32 << 10) + 6);
            }
            found.label = sector.text(40, 32);
            found.uuid = sector.text(813, 16).filter(|time| time.bytes().all(|digit| digit.is_ascii_digit()));
            return Some(found);
        }
    }
    None
}

/// UDF, by the descriptor of its volume recognition sequence.
pub(crate) fn udf(reader: &Reader<'_>) -> Option<Found> {
    let places: Vec<u64> = (0..16).map(|index| (32 << 10) + 2048 * index).collect();
    let descriptors = places.iter().filter_map(|at| {
        let sector = reader.at(*at, 8)?;
        let is = sector.holds(0, b"\0NSR02\x01") || sector.holds(0, b"\0NSR03\x01");
        is.then(|| Found::new(Kind::Udf, *at, at + 1, 5))
    });
    Found::merge(&places, descriptors)
}

/// APFS.
pub(crate) fn apfs(reader: &Reader<'_>) -> Option<Found> {
    /// The type of a container's superblock, below the flag bits.
    const CONTAINER: u32 = 1;

    let block = reader.at(0, 88)?;
    let size = block.le32(36)?;
    let plausible = block.holds(32, b"NXSB")
        && (4096..=65536).contains(&size)
        && size.is_power_of_two()
        && block.le32(24)? & 0xffff == CONTAINER
        && block.le64(40)? > 0;
    let mut found = Found::new(Kind::Apfs, 0, 32, 4);
    found.uuid = block.uuid(72);
    plausible.then_some(found)
}

/// HFS+ and HFSX.
pub(crate) fn hfs_plus(reader: &Reader<'_>) -> Option<Found> {
    let block = reader.at(1024, 512)?;
    let (size, total, free) = (block.be32(40)?, block.be32(44)?, block.be32(48)?);
    let plausible = (block.holds(0, b"H+\0\x04") || block.holds(0, b"HX\0\x05"))
        && size >= 512
        && size.is_power_of_two()
        && total > 0
        && free <= total;
    plausible.then(|| Found::new(Kind::HfsPlus, 1024, 1024, 4))
}
