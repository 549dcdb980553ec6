//! File systems of DOS and Windows, all with a boot sector.

use crate::fields::{Fields, hex, printable};
use crate::reader::Reader;
use crate::{Found, Kind};

/// A boot sector's last two bytes, at 510.
const BOOT: &[u8] = &[0x55, 0xaa];

/// What is at the beginning, recognised by `length` bytes at `signature` and by the boot signature.
fn boot_sector(kind: Kind, signature: u64, length: u64) -> Found {
    let mut found = Found::new(kind, 0, signature, length);
    // Without this what is left could pass for an MBR.
    found.signatures.push(510..512);
    found
}

/// What the boot sector of an NTFS says about the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtfsBoot {
    /// Bytes of a sector.
    pub sector: u64,
    /// Sectors of the volume, without the copy of the boot sector that follows.
    pub sectors: u64,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// First cluster of the master file table.
    pub table: u64,
    /// First cluster of the copy of the table's first records.
    pub mirror: u64,
    /// Bytes of a record of the table; `None` if the field can't be.
    pub record: Option<u64>,
    /// Serial number of the volume.
    pub serial: u64,
    /// The signature at the sector's end is there.
    pub signed: bool,
}

impl NtfsBoot {
    /// The boot sector in these bytes; `None` if they are none, or fewer than 512.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let bytes = u64::from(sector.le16(11)?);
        // Beyond 128 sectors the field is the negative of a binary logarithm.
        let cluster = match sector.u8(13)? {
            log @ 0xf0..=0xff => 1 << log.wrapping_neg(),
            count => u64::from(count),
        };
        let plausible = sector.holds(3, b"NTFS    ")
            && (256..=4096).contains(&bytes)
            && bytes.is_power_of_two()
            && cluster.is_power_of_two()
            && sector.range(14, 7)? == [0; 7]
            && sector.le64(0x28)? > 0;
        let cluster = cluster * bytes;
        let record = match sector.u8(0x40)?.cast_signed() {
            log @ -16..=-9 => Some(1 << -log),
            count @ 1.. => cluster.checked_mul(count.unsigned_abs().into()),
            _ => None,
        };
        let boot = Self {
            sector: bytes,
            sectors: sector.le64(0x28)?,
            cluster,
            table: sector.le64(0x30)?,
            mirror: sector.le64(0x38)?,
            record: record.filter(|record| (512..=64 << 10).contains(record)),
            serial: sector.le64(0x48)?,
            signed: sector.holds(510, BOOT),
        };
        plausible.then_some(boot)
    }
}

/// NTFS. The label is in the third record after the first of the master file table.
pub(crate) fn ntfs(reader: &Reader<'_>) -> Option<Found> {
    let boot = NtfsBoot::parse(&reader.at(0, 512)?)?;
    let mut found = boot_sector(Kind::Ntfs, 3, 8);
    found.damaged = !boot.signed;
    found.uuid = Some(hex(&boot.serial.to_be_bytes()));
    // The copy of the boot sector is behind what the field counts.
    found.size = boot.sectors.checked_add(1).and_then(|sectors| sectors.checked_mul(boot.sector));
    found.label = ntfs_label(reader, &boot);
    Some(found)
}

/// The label of an NTFS.
fn ntfs_label(reader: &Reader<'_>, boot: &NtfsBoot) -> Option<String> {
    const VOLUME_RECORD: u64 = 3;
    const VOLUME_NAME: u32 = 0x60;
    const END: u32 = 0xffff_ffff;

    let record = boot.record?;
    let at = boot.table.checked_mul(boot.cluster)?.checked_add(VOLUME_RECORD * record)?;
    let record = reader.at(at, record as usize)?;
    if !record.holds(0, b"FILE") {
        return None;
    }
    let mut at = usize::from(record.le16(0x14)?);
    loop {
        let kind = record.le32(at)?;
        let length = record.le32(at + 4)? as usize;
        let resident = record.u8(at + 8)? == 0;
        if kind == VOLUME_NAME && resident {
            let value = at + usize::from(record.le16(at + 0x14)?);
            return record.utf16(value, record.le32(at + 0x10)? as usize / 2);
        }
        // A length below that of a header would make no progress.
        if kind == END || length < 16 {
            return None;
        }
        at = at.checked_add(length)?;
    }
}

/// A volume of Windows that BitLocker encrypted.
pub(crate) fn bitlocker(reader: &Reader<'_>) -> Option<Found> {
    let sector = reader.at(0, 512)?;
    sector.holds(3, b"-FVE-FS-").then(|| boot_sector(Kind::Bitlocker, 3, 8))
}

/// exFAT, by its boot sector; the checksum is over the first eleven sectors.
pub(crate) fn exfat(reader: &Reader<'_>) -> Option<Found> {
    let sector = reader.at(0, 512)?;
    let (log_sector, log_cluster) = (sector.u8(108)?, sector.u8(109)?);
    let plausible = sector.holds(3, b"EXFAT   ")
        && sector.range(11, 53)? == [0; 53]
        && (9..=12).contains(&log_sector)
        && log_cluster <= 25 - log_sector;
    if !plausible {
        return None;
    }
    let mut found = boot_sector(Kind::Exfat, 3, 8);
    found.size = sector.le64(72)?.checked_mul(1 << log_sector);
    let serial = sector.le32(100)?;
    found.uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
    let boot = reader.at(0, 11 << log_sector).map(|region| {
        let counted = region.iter().enumerate().filter(|(at, _)| ![106, 107, 112].contains(at));
        counted.fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
    });
    let checksum = reader.at(11 << log_sector, 4).and_then(|bytes| bytes.le32(0));
    found.damaged = !sector.holds(510, BOOT) || boot.is_none() || boot != checksum;
    // Clusters are numbered from 2.
    let root = u64::from(sector.le32(96)?).checked_sub(2).map(|cluster| cluster << log_cluster);
    let root = root.map(|sectors| (sectors + u64::from(sector.le32(88).unwrap_or(0))) << log_sector);
    if let Some(directory) = root.and_then(|at| reader.at(at, 512)) {
        let label = directory.chunks_exact(32).find(|entry| entry[0] == 0x83);
        found.label = label.and_then(|entry| entry.utf16(2, usize::from(entry[1]).min(11)));
    }
    Some(found)
}

/// FAT12, FAT16 and FAT32. There is no magic number, so every field of the boot sector has to make sense.
pub(crate) fn fat(reader: &Reader<'_>) -> Option<Found> {
    const DIRECTORY_MAX: usize = 16 << 10;

    let sector = reader.at(0, 512)?;
    let bytes = u64::from(sector.le16(11)?);
    let cluster = u64::from(sector.u8(13)?);
    let reserved = u64::from(sector.le16(14)?);
    let copies = u64::from(sector.u8(16)?);
    let root_entries = u64::from(sector.le16(17)?);
    let short = u64::from(sector.le16(19)?);
    let sectors = if short == 0 { u64::from(sector.le32(32)?) } else { short };
    let media = sector.u8(21)?;
    let short = u64::from(sector.le16(22)?);
    let wide = short == 0;
    let table = if wide { u64::from(sector.le32(36)?) } else { short };
    let tables_end = reserved + copies * table;
    let plausible = sector.holds(510, BOOT)
        && (sector.u8(0)? == 0xeb || sector.u8(0)? == 0xe9)
        && (512..=4096).contains(&bytes)
        && bytes.is_power_of_two()
        && cluster.is_power_of_two()
        && reserved > 0
        && (1..=2).contains(&copies)
        && (media == 0xf0 || media >= 0xf8)
        && table > 0
        && tables_end < sectors
        // FAT32 has its root directory in clusters, the others after the tables.
        && wide == (root_entries == 0);
    if !plausible {
        return None;
    }
    // After the parameters comes the same block in all widths: 0x29, serial, label, name of the type.
    let extended = if wide { 66 } else { 38 };
    let mut found = boot_sector(Kind::Vfat, 0, 3);
    found.size = Some(sectors * bytes);
    found.signatures.push(extended + 16..extended + 24);
    let extended = extended as usize;
    let mut label = None;
    if [0x28, 0x29].contains(&sector.u8(extended)?) {
        let serial = sector.le32(extended + 1)?;
        found.uuid = Some(format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
        label = sector.text(extended + 5, 11);
    }
    let root = if wide {
        let first = u64::from(sector.le32(44)?).checked_sub(2);
        first.map(|first| (tables_end + first * cluster, cluster * bytes))
    } else {
        Some((tables_end, root_entries * 32))
    };
    let directory = root.and_then(|(at, length)| reader.at(at * bytes, (length as usize).min(DIRECTORY_MAX)));
    if let Some(directory) = directory {
        let used = directory.chunks_exact(32).take_while(|entry| entry[0] != 0);
        // An entry that is a label, neither deleted nor a part of a long name.
        let mut named = used.filter(|entry| entry[0] != 0xe5 && entry[11] != 0x0f && entry[11] & 8 != 0);
        if let Some(entry) = named.next() {
            label = printable(&String::from_utf8_lossy(&entry[..11]));
        }
    }
    found.label = label.filter(|label| label != "NO NAME");
    Some(found)
}
