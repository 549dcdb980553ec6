//! Recognises what other systems wrote on a device.
//!
//! ```text
//! device -> reader (head and tail in two reads) -> one parser for each format -> Found, Found, ...
//!     -> a sentence for people, or signature_ranges: the bytes to zero so that nothing is found any more
//! ```
//!
//! Parsers believe nothing: a field outside of the bytes makes the structure unrecognised, never a panic.
//! Short magic numbers alone prove nothing either: a structure counts if its checksum is right, or if so
//! many other fields fit that chance is out of the question (then a wrong checksum is reported as damage).
//!
//! - `unix`, `media`, `windows`: file systems
//! - `volumes`: what lies between disks and file systems; `zfs` apart
//! - `raid`: members of RAID sets
//! - `container`: what controllers and mainboards say about their sets, decoded
//! - `tables`: partition tables; `partitions`: what is in them
//! - [`md`]: all that the superblocks of Linux md say, decoded
//! - [`raidframe`]: the component label of NetBSD's RAIDframe, decoded and encoded
//! - [`lvm`]: LVM2 from label to the map of a logical volume, thin pools and snapshots
//! - `reader`, `fields`, `crc`: what all of these are built of

mod container;
mod crc;
mod fields;
mod found;
mod input;
pub mod lvm;
pub mod md;
mod media;
mod partitions;
mod raid;
pub mod raidframe;
mod reader;
mod tables;
mod unix;
mod volumes;
mod windows;
mod zfs;

use std::ops::Range;

use device::{BlockDevice, DeviceError};

pub use container::{Container, FirmwareMember, FirmwareVolume, container};
pub use found::{Found, Kind, MdVersion};
pub use input::ReadError;
pub use md::FieldError;
pub use partitions::{Partition, PartitionTable, disklabel, partitions};
use reader::Reader;
pub use unix::{BTRFS_MAGIC, BTRFS_SUPERBLOCKS};
pub use windows::NtfsBoot;

/// A parser of one format: what it found, or nothing.
type Parser = fn(&Reader<'_>) -> Option<Found>;

/// Everything but partition tables, which depend on what else there is.
const PARSERS: &[Parser] = &[
    volumes::cofferdam,
    volumes::lvm,
    volumes::luks,
    volumes::bcache,
    volumes::stratis,
    volumes::swap,
    zfs::member,
    raid::md_0_90,
    raid::md_1_0,
    raid::md_1_1,
    raid::md_1_2,
    raid::raidframe,
    raid::imsm,
    raid::ddf,
    unix::ext,
    unix::xfs,
    unix::btrfs,
    unix::f2fs,
    unix::jfs,
    unix::reiserfs,
    unix::ufs,
    media::squashfs,
    media::iso9660,
    media::udf,
    media::apfs,
    media::hfs_plus,
    windows::ntfs,
    windows::bitlocker,
    windows::exfat,
    windows::fat,
];

/// What the device holds, in the order of its place on the device; empty if nothing is recognised.
///
/// Reads 1.25 MiB at the two ends and a few small pieces between. More than one thing may be found: what a
/// later format has not overwritten is still there.
///
/// # Errors
/// A place where a signature may be can't be read, so that "nothing was found" would be untrue.
pub fn probe(device: &dyn BlockDevice) -> Result<Vec<Found>, DeviceError> {
    let (found, missed) = probe_damaged(device)?;
    missed.map_or(Ok(found), Err)
}

/// As [`probe`], of a device with places that can't be read: what was found elsewhere, and the first error.
///
/// # Errors
/// The device does not tell its size.
pub fn probe_damaged(device: &dyn BlockDevice) -> Result<(Vec<Found>, Option<DeviceError>), DeviceError> {
    let reader = Reader::new(device)?;
    let mut found: Vec<Found> = PARSERS.iter().filter_map(|parser| parser(&reader)).collect();
    found.extend(tables::bsd_disklabel(&reader));
    let gpt = tables::gpt(&reader);
    // Boot sectors of file systems have the MBR's signature, and a GPT has an MBR for its protection.
    let boot_sector =
        |found: &Found| matches!(found.kind, Kind::Ntfs | Kind::Vfat | Kind::Exfat | Kind::Bitlocker);
    if gpt.is_none() && !found.iter().any(boot_sector) {
        found.extend(tables::mbr(&reader));
    }
    found.extend(gpt);
    let missed = reader.finish().err();
    found.sort_by_key(|found| found.offset);
    Ok((found, missed))
}

/// The byte ranges to zero so that none of this is found any more: the signatures and their copies, not the
/// contents, so that the bytes can be put back. In order, without overlaps.
pub fn signature_ranges(found: &[Found]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> =
        found.iter().flat_map(|found| found.signatures.iter().cloned()).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
