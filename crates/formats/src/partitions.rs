//! What partition tables say: where each partition lies.

use device::{BlockDevice, DeviceError};

use crate::crc::crc32;
use crate::fields::Fields;

/// Most partitions that are believed.
const PARTITIONS_MAX: usize = 256;
/// Most links in a chain of logical partitions.
const CHAIN_MAX: usize = 64;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Where it begins, bytes.
    pub start: u64,
    /// Its size, bytes; cut off where the device ends.
    pub size: u64,
    /// Its type: a GUID, the MBR's code in hexadecimal, or a disklabel's number.
    pub kind: String,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// `gpt`, `mbr` or `bsd-disklabel`.
    pub kind: &'static str,
    /// Its partitions that begin within the device.
    pub partitions: Vec<Partition>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// The partition table of the device, if it has one: GPT by either copy, else the MBR with its chain of logical
/// partitions, else a BSD disklabel.
///
/// # Errors
/// The device does not tell its size. Places that can't be read count as empty.
pub fn partitions(device: &dyn BlockDevice) -> Result<Option<PartitionTable>, DeviceError> {
    let size = device.size()?;
    let tables =
        [gpt(device, size, 512), gpt(device, size, 4096), mbr(device, size), disklabel(device, size)];
    Ok(tables.into_iter().flatten().next())
}

fn read(device: &dyn BlockDevice, size: u64, at: u64, length: usize) -> Option<Vec<u8>> {
    at.checked_add(length as u64).filter(|end| *end <= size)?;
    let mut bytes = vec![0; length];
    device.read(at, &mut bytes).ok().map(|()| bytes)
}

/// A partition of `count` blocks of `block` bytes from `first` on, cut to the device.
fn partition(
    number: usize,
    first: u64,
    count: u64,
    block: u64,
    size: u64,
    kind: String,
    name: Option<String>,
) -> Option<Partition> {
    let start = first.checked_mul(block).filter(|start| *start < size && *start > 0)?;
    let length = count.checked_mul(block)?.min(size - start);
    (length > 0).then_some(Partition { number: number as u32, start, size: length, kind, name })
}

fn gpt(device: &dyn BlockDevice, size: u64, block: u64) -> Option<PartitionTable> {
    let last = (size / block).checked_sub(1)?;
    let primary = gpt_at(device, size, block, 1);
    let backup = gpt_at(device, size, block, last);
    let mut problems = Vec::new();
    let partitions = match (primary, backup) {
        (Some(primary), Some(backup)) => {
            if primary != backup {
                problems.push("its two copies differ; the first one is used".to_owned());
            }
            primary
        }
        (Some(primary), None) => {
            problems.push("its backup copy is not at the end of the device".to_owned());
            primary
        }
        (None, Some(backup)) => {
            problems.push("its first copy is damaged; the backup is used".to_owned());
            backup
        }
        (None, None) => return None,
    };
    Some(PartitionTable { kind: "gpt", partitions, problems })
}

/// The partitions of the header in block `number`, if both its checksums are right.
fn gpt_at(device: &dyn BlockDevice, size: u64, block: u64, number: u64) -> Option<Vec<Partition>> {
    const ENTRIES_MAX: usize = 1 << 20;
    let header = read(device, size, number.checked_mul(block)?, 512)?;
    let header = header.as_slice();
    if !header.holds(0, b"EFI PART") || header.le64(24)? != number {
        return None;
    }
    let mut covered = header.get(..header.le32(12)? as usize).filter(|covered| covered.len() >= 92)?.to_vec();
    covered[16..20].fill(0);
    if crc32(&covered) != header.le32(16)? {
        return None;
    }
    let (count, length) = (header.le32(80)? as usize, header.le32(84)? as usize);
    let total = count.checked_mul(length).filter(|total| *total <= ENTRIES_MAX && length >= 128)?;
    let entries = read(device, size, header.le64(72)?.checked_mul(block)?, total)?;
    if crc32(&entries) != header.le32(88)? {
        return None;
    }
    let entry = |(index, entry): (usize, &[u8])| {
        let (first, last) = (entry.le64(32)?, entry.le64(40)?);
        let count = last.checked_sub(first)?.checked_add(1)?;
        partition(index + 1, first, count, block, size, entry.guid(0)?, entry.utf16(56, 36))
    };
    Some(entries.chunks_exact(length).enumerate().filter_map(entry).take(PARTITIONS_MAX).collect())
}

fn mbr(device: &dyn BlockDevice, size: u64) -> Option<PartitionTable> {
    const PROTECTIVE: u8 = 0xee;
    let sector = read(device, size, 0, 512)?;
    let entries = mbr_entries(&sector)?;
    let mut partitions = Vec::new();
    let mut problems = Vec::new();
    for (index, &(kind, first, count)) in entries.iter().enumerate() {
        if kind == 0 || count == 0 || kind == PROTECTIVE {
            continue;
        }
        if u64::from(first) * 512 >= size || first == 0 {
            // The boot code of file systems looks like a table now and then.
            return None;
        }
        if matches!(kind, 0x05 | 0x0f | 0x85) {
            logical(device, size, u64::from(first), &mut partitions, &mut problems);
        } else {
            let kind = format!("{kind:#04x}");
            partitions.extend(partition(index + 1, first.into(), count.into(), 512, size, kind, None));
        }
    }
    partitions.sort_by_key(|partition| partition.number);
    (!partitions.is_empty()).then_some(PartitionTable { kind: "mbr", partitions, problems })
}

/// Type, first sector and sectors of the four entries; `None` if this is no table.
fn mbr_entries(sector: &[u8]) -> Option<[(u8, u32, u32); 4]> {
    if !sector.holds(510, &[0x55, 0xaa]) {
        return None;
    }
    let mut entries = [(0, 0, 0); 4];
    for (entry, bytes) in entries.iter_mut().zip(sector.range(446, 64)?.chunks_exact(16)) {
        if bytes.u8(0)? & 0x7f != 0 {
            return None;
        }
        *entry = (bytes.u8(4)?, bytes.le32(8)?, bytes.le32(12)?);
    }
    Some(entries)
}

/// The chain of logical partitions: each link holds one, relative to itself, and where the next link is, relative to the first.
fn logical(
    device: &dyn BlockDevice,
    size: u64,
    first: u64,
    partitions: &mut Vec<Partition>,
    problems: &mut Vec<String>,
) {
    let mut at = first;
    for number in 5..5 + CHAIN_MAX {
        let entries = read(device, size, at.saturating_mul(512), 512).and_then(|sector| mbr_entries(&sector));
        let Some([(kind, start, count), (_, next, _), ..]) = entries else {
            problems.push(format!("the chain of logical partitions is broken at sector {at}"));
            return;
        };
        let kind = format!("{kind:#04x}");
        partitions.extend(partition(number, at + u64::from(start), count.into(), 512, size, kind, None));
        // A chain that does not go forward goes round in circles.
        match u64::from(next) {
            0 => return,
            next if first + next > at => at = first + next,
            _ => {
                problems.push(format!("the chain of logical partitions turns back at sector {at}"));
                return;
            }
        }
    }
    problems.push(format!("the chain of logical partitions has more than {CHAIN_MAX} links"));
}

fn disklabel(device: &dyn BlockDevice, size: u64) -> Option<PartitionTable> {
    const MAGIC: u32 = 0x8256_4557;
    for at in [512, 0, 64, 128, 1024] {
        let Some(label) = read(device, size, at, 148 + 16 * 22) else { continue };
        let label = label.as_slice();
        let little = label.le32(0) == Some(MAGIC);
        let long = |at| if little { label.le32(at) } else { label.be32(at) };
        if long(0) != Some(MAGIC) || long(132) != Some(MAGIC) {
            continue;
        }
        let count = if little { label.le16(138)? } else { label.be16(138)? };
        let sector = u64::from(long(40)?).clamp(512, 4096);
        let mut problems = Vec::new();
        let covered = label.get(..148 + 16 * usize::from(count.min(22)))?;
        if covered.chunks_exact(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]])) != 0 {
            problems.push("its checksum is wrong".to_owned());
        }
        let entry = |index: usize| {
            let at = 148 + 16 * index;
            let (length, first) = (long(at)?, long(at + 4)?);
            let kind = label.u8(at + 12)?;
            let name = u8::try_from(index).ok().map(|index| char::from(b'a' + index).to_string());
            // The one over the whole disk, and unused ones, hold nothing of their own.
            (kind != 0).then_some(())?;
            partition(index + 1, first.into(), length.into(), sector, size, kind.to_string(), name)
        };
        let partitions: Vec<Partition> = (0..usize::from(count.min(22))).filter_map(entry).collect();
        return (!partitions.is_empty()).then_some(PartitionTable {
            kind: "bsd-disklabel",
            partitions,
            problems,
        });
    }
    None
}
