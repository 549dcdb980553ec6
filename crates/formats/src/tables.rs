//! Partition tables.

use crate::crc::crc32;
use crate::fields::Fields;
use crate::reader::Reader;
use crate::{Found, Kind};

/// A GPT header that is where it says it is.
struct Header {
    found: Found,
    /// Block of the other header.
    alternate: u64,
}

/// GPT with blocks of 512 or 4096 bytes, by either header.
pub(crate) fn gpt(reader: &Reader<'_>) -> Option<Found> {
    let tables = [512, 4096].into_iter().filter_map(|block| {
        let primary = gpt_header(reader, 1, block);
        let last = (reader.size() / block).checked_sub(1).filter(|last| *last > 1)?;
        let mut backup = gpt_header(reader, last, block);
        // A device that has grown has its backup where it once ended.
        if backup.is_none()
            && let Some(Header { alternate, .. }) = primary
            && alternate > 1
        {
            backup = gpt_header(reader, alternate, block);
        }
        let mut found = match (primary, backup) {
            (Some(primary), Some(backup)) => primary.found.with(backup.found),
            (Some(primary), None) => primary.found,
            (None, Some(mut backup)) => {
                backup.found.damaged = true;
                backup.found
            }
            (None, None) => return None,
        };
        if reader.at(510, 2).is_some_and(|bytes| bytes.holds(0, &[0x55, 0xaa])) {
            found.signatures.push(510..512);
        }
        Some(found)
    });
    tables.reduce(Found::with)
}

fn gpt_header(reader: &Reader<'_>, number: u64, block: u64) -> Option<Header> {
    const ENTRIES_MAX: usize = 1 << 20;

    let at = number.checked_mul(block)?;
    let header = reader.at(at, 512)?;
    if !header.holds(0, b"EFI PART") || header.le64(24)? != number {
        return None;
    }
    let length = header.le32(12)? as usize;
    let mut covered = header.get(..length).filter(|covered| covered.len() >= 92).map(<[u8]>::to_vec);
    let crc = covered.as_mut().map(|covered| {
        covered[16..20].fill(0);
        crc32(covered)
    });
    let (count, size) = (header.le32(80)? as usize, header.le32(84)? as usize);
    let entries = count.checked_mul(size).filter(|length| *length <= ENTRIES_MAX && size >= 128);
    let entries = entries.and_then(|length| reader.at(header.le64(72)?.checked_mul(block)?, length));
    let entries = entries.filter(|entries| Some(crc32(entries)) == header.le32(88));
    let used = |entries: &[u8]| entries.chunks_exact(size).filter(|entry| entry[..16] != [0; 16]).count();
    let partitions = entries.as_deref().map_or(0, used) as u32;
    let mut found = Found::new(Kind::Gpt { partitions }, at, at, 8);
    found.uuid = header.guid(56);
    found.damaged = crc != header.le32(16) || entries.is_none();
    Some(Header { found, alternate: header.le64(32)? })
}

/// An MBR with at least one partition. A boot sector without any says nothing about the device.
pub(crate) fn mbr(reader: &Reader<'_>) -> Option<Found> {
    let sector = reader.at(0, 512)?;
    if !sector.holds(510, &[0x55, 0xaa]) {
        return None;
    }
    let mut partitions = 0;
    for entry in sector.range(446, 64)?.chunks_exact(16) {
        let (kind, first, count) = (entry.u8(4)?, entry.le32(8)?, entry.le32(12)?);
        if entry.u8(0)? & 0x7f != 0 {
            return None;
        }
        if kind != 0 && count != 0 {
            if first == 0 || u64::from(first) * 512 >= reader.size() {
                return None;
            }
            partitions += 1;
        }
    }
    if partitions == 0 {
        return None;
    }
    let mut found = Found::new(Kind::Mbr { partitions }, 0, 510, 2);
    let id = sector.le32(440)?;
    found.uuid = (id != 0).then(|| format!("{id:08x}"));
    Some(found)
}

/// A BSD disklabel of either byte order, at any of the places where some port puts it.
pub(crate) fn bsd_disklabel(reader: &Reader<'_>) -> Option<Found> {
    const MAGIC: u32 = 0x8256_4557;
    const PARTITIONS_AT: usize = 148;
    const PLACES: [u64; 5] = [512, 64, 128, 0, 1024];

    let labels = PLACES.into_iter().filter_map(|at| {
        let label = reader.at(at, PARTITIONS_AT)?;
        let little = label.le32(0)? == MAGIC;
        let long = |at| if little { label.le32(at) } else { label.be32(at) };
        if long(0)? != MAGIC || long(132)? != MAGIC {
            return None;
        }
        let count = if little { label.le16(138)? } else { label.be16(138)? };
        let whole = reader.at(at, PARTITIONS_AT + 16 * usize::from(count))?;
        let sum = whole.chunks_exact(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]]));
        let partitions = whole.get(PARTITIONS_AT..)?.chunks_exact(16).filter(|entry| entry[..4] != [0; 4]);
        let mut found = Found::new(Kind::BsdDisklabel { partitions: partitions.count() as u32 }, at, at, 4);
        found.signatures.push(at + 132..at + 136);
        found.label = label.text(24, 16);
        found.damaged = sum != 0;
        Some(found)
    });
    Found::merge(&PLACES, labels)
}
