//! What partition tables say: where each partition lies, which copy says so, and what is damaged.
//!
//! No crate is used for GPT: those that are well kept refuse a table at the first field that is wrong, while
//! here a table with damage is the usual case, and which copy is how damaged is part of the answer.

use device::{BlockDevice, DeviceError};

use crate::crc::crc32;
use crate::fields::Fields;
use crate::md::error::Site;
use crate::{FieldError, ReadError};

/// Most partitions that are believed.
const PARTITIONS_MAX: usize = 256;
/// Most links in a chain of logical partitions.
const CHAIN_MAX: usize = 64;
/// Most bytes that the entries of a GPT may take.
const ENTRIES_MAX: usize = 1 << 20;
const SECTOR: u64 = 512;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Where it begins, bytes.
    pub start: u64,
    /// Its size, bytes; cut off where the device ends.
    pub size: u64,
    /// How many bytes of it would lie behind the device's end.
    pub missing: u64,
    /// Its type: a GUID, the MBR's code in hexadecimal, or a disklabel's number.
    pub kind: String,
    /// What identifies it, if its table has that: a GUID.
    pub id: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// `gpt`, `mbr` or `bsd-disklabel`.
    pub kind: &'static str,
    /// Where the copy lies that is used, bytes.
    pub offset: u64,
    /// Whether that is the backup copy.
    pub backup: bool,
    /// What the table counts in, bytes.
    pub sector: u64,
    /// What identifies it: a GUID, or the MBR's number in hexadecimal.
    pub id: Option<String>,
    /// How large the device must be to have all that the table describes, bytes.
    pub needed: u64,
    /// Its partitions that begin within the device.
    pub partitions: Vec<Partition>,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// The partition table of the device, if it has one: GPT by either copy, else the MBR with its chain of logical
/// partitions, else a BSD disklabel. A disklabel within a partition of an MBR is found by asking for the table
/// of that partition.
///
/// # Errors
/// The device does not tell its size. Places that can't be read count as damaged.
pub fn partitions(device: &dyn BlockDevice) -> Result<Option<PartitionTable>, DeviceError> {
    let disk = Disk { device, size: device.size()? };
    // Blocks of 4096 bytes are tried as well: some USB bridges show other blocks than the disk has.
    let tables = [disk.gpt(512), disk.gpt(4096)].into_iter().flatten();
    let best = tables.min_by_key(|table| (table.backup, table.problems.len()));
    Ok(best.or_else(|| disk.mbr()).or_else(|| disk.disklabel()))
}

/// The BSD disklabel of the device, if it has one, whatever else it may be taken for: the boot code in front of one looks like an MBR.
///
/// # Errors
/// As [`partitions`].
pub fn disklabel(device: &dyn BlockDevice) -> Result<Option<PartitionTable>, DeviceError> {
    Ok(Disk { device, size: device.size()? }.disklabel())
}

struct Disk<'a> {
    device: &'a dyn BlockDevice,
    size: u64,
}

/// An entry that is in use, as it is.
#[derive(PartialEq, Eq)]
struct GptEntry {
    number: u32,
    /// First and last block.
    first: u64,
    last: u64,
    kind: String,
    id: Option<String>,
    name: Option<String>,
}

/// One copy of a GPT.
struct Gpt {
    at: u64,
    id: Option<String>,
    /// Block of the other copy.
    alternate: u64,
    entries: Vec<GptEntry>,
    /// What is wrong with it, if it can be used nevertheless.
    fault: Option<FieldError>,
}

impl Disk<'_> {
    fn site(&self, offset: u64, structure: &'static str) -> Site<'_> {
        Site { device: &self.device.info().name, offset, structure }
    }

    /// Bytes that must lie on the device.
    fn read(&self, site: Site<'_>, at: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            return Err(site
                .error("offset", at, format!("a place on a device of {} bytes", self.size))
                .into());
        }
        let mut bytes = vec![0; length];
        self.device.read(at, &mut bytes)?;
        Ok(bytes)
    }

    fn gpt(&self, block: u64) -> Option<PartitionTable> {
        let last = (self.size / block).checked_sub(1).filter(|last| *last > 1)?;
        let primary = self.gpt_at(block, 1);
        let mut backup = self.gpt_at(block, last);
        let mut problems = Vec::new();
        if let Ok(Some(Gpt { alternate, .. })) = primary
            && alternate != last
        {
            if alternate > last {
                problems.push(format!(
                    "its backup copy would be at block {alternate}, but the device ends at {last}: it was cut off"
                ));
            } else if alternate > 1 {
                // A device that has grown has its backup where it once ended.
                problems.push(format!("its backup copy is at block {alternate}, not at the device's end"));
                backup = self.gpt_at(block, alternate);
            }
        }
        let mut usable = Vec::new();
        let mut traces = 0;
        for (copy, name) in [(primary, "first"), (backup, "backup")] {
            match copy {
                Ok(Some(copy)) => {
                    let fault = copy.fault.as_ref();
                    problems.extend(fault.map(|fault| format!("its {name} copy is damaged: {fault}")));
                    traces += 1;
                    usable.push((name == "backup", copy));
                }
                Ok(None) => problems.push(format!("its {name} copy is not there")),
                Err((error, trace)) => {
                    problems.push(format!("its {name} copy can't be used: {error}"));
                    traces += usize::from(trace);
                }
            }
        }
        if traces == 0 {
            return None;
        }
        let whole: Vec<&Gpt> =
            usable.iter().map(|(_, copy)| copy).filter(|copy| copy.fault.is_none()).collect();
        if let [one, other] = whole[..]
            && (&one.entries, &one.id) != (&other.entries, &other.id)
        {
            problems.push("its two copies differ; the first one is used".to_owned());
        }
        // A whole copy before a damaged one, then the first before the backup.
        usable.sort_by_key(|(backup, copy)| (copy.fault.is_some(), *backup));
        let mut table = PartitionTable {
            kind: "gpt",
            offset: 0,
            backup: false,
            sector: block,
            id: None,
            needed: 0,
            partitions: Vec::new(),
            problems,
        };
        if let Some((backup, copy)) = usable.into_iter().next() {
            (table.offset, table.backup, table.id) = (copy.at, backup, copy.id);
            let end = if backup { copy.at / block } else { copy.alternate };
            table.needed = end.saturating_add(1).saturating_mul(block);
            for GptEntry { number, first, last, kind, id, name } in copy.entries {
                // Entries whose last block is before the first were left out.
                let size = (last - first).saturating_add(1);
                let partition = Partition { number, start: first, size, missing: 0, kind, id, name };
                self.add(&mut table, partition);
            }
        }
        overlaps(&mut table);
        Some(table)
    }

    /// The copy whose header is in block `number`; `None` if there is none. An error says whether there was a
    /// trace of one.
    fn gpt_at(&self, block: u64, number: u64) -> Result<Option<Gpt>, (ReadError, bool)> {
        const HEADER_MIN: usize = 92;
        let at = number.saturating_mul(block);
        let site = self.site(at, "GPT header");
        let sector = self.read(site, at, SECTOR as usize).map_err(|error| (error, false))?;
        let sector = sector.as_slice();
        if !sector.holds(0, b"EFI PART") {
            return Ok(None);
        }
        let bad = |error: FieldError| (ReadError::from(error), true);
        let long = |at| sector.le32(at).unwrap_or(0);
        let wide = |at| sector.le64(at).unwrap_or(0);
        let hex = |sum: u32| format!("{sum:#010x}");
        // A header in the wrong place is the copy of another device, or of one with other blocks.
        site.require(wide(24) == number, "my LBA", wide(24), number).map_err(bad)?;
        let length = long(12) as usize;
        let mut fault = None;
        match sector.get(..length).filter(|_| length >= HEADER_MIN) {
            Some(covered) => {
                let mut covered = covered.to_vec();
                covered[16..20].fill(0);
                let sum = crc32(&covered);
                fault = site.require(long(16) == sum, "header CRC", hex(long(16)), hex(sum)).err();
            }
            None => fault = fault.or_else(|| Some(site.error("header size", length, "92 to 512"))),
        }
        let (count, size) = (long(80) as usize, long(84) as usize);
        let total = count.checked_mul(size).filter(|total| *total <= ENTRIES_MAX && size >= 128);
        let total = total
            .ok_or_else(|| bad(site.error("entries", format!("{count} of {size} bytes"), "at most 1 MiB")))?;
        let entries_at = wide(72).saturating_mul(block);
        let entries = self.read(self.site(entries_at, "GPT entries"), entries_at, total);
        let entries = entries.map_err(|error| (error, true))?;
        let sum = crc32(&entries);
        let right = site.require(long(88) == sum, "entries CRC", hex(long(88)), hex(sum)).err();
        if let (Some(fault), Some(_)) = (&fault, &right) {
            // Nothing vouches for such entries.
            return Err(bad(fault.clone()));
        }
        let entry = |(index, entry): (usize, &[u8])| {
            let kind = entry.guid(0)?;
            let (first, last) = (entry.le64(32)?, entry.le64(40)?);
            let number = index as u32 + 1;
            let (id, name) = (entry.guid(16), entry.utf16(56, 36));
            (first <= last).then_some(GptEntry { number, first, last, kind, id, name })
        };
        // A size of 0 was excluded above.
        let entries = entries.chunks_exact(size).enumerate().filter_map(entry).take(PARTITIONS_MAX);
        let entries = entries.collect();
        Ok(Some(Gpt { at, id: sector.guid(56), alternate: wide(32), entries, fault: fault.or(right) }))
    }

    /// Adds a partition whose start and size are still in sectors of the table.
    fn add(&self, table: &mut PartitionTable, mut partition: Partition) {
        let start = partition.start.checked_mul(table.sector);
        let size = partition.size.checked_mul(table.sector);
        let end = start.zip(size).and_then(|(start, size)| start.checked_add(size));
        let (Some(start), Some(size), Some(end)) = (start, size, end) else {
            table.problems.push(format!("partition {} lies where no device is", partition.number));
            return;
        };
        table.needed = table.needed.max(end);
        if start >= self.size {
            table.problems.push(format!(
                "partition {} begins at byte {start}, behind the device's end at {}",
                partition.number, self.size
            ));
            return;
        }
        if start == 0 || size == 0 {
            return;
        }
        partition.missing = end.saturating_sub(self.size);
        (partition.start, partition.size) = (start, size - partition.missing);
        if partition.missing > 0 {
            table.problems.push(format!(
                "partition {} goes on for {} bytes behind the device's end",
                partition.number, partition.missing
            ));
        }
        table.partitions.push(partition);
    }

    fn mbr(&self) -> Option<PartitionTable> {
        const PROTECTIVE: u8 = 0xee;
        let site = self.site(0, "MBR");
        let sector = self.read(site, 0, SECTOR as usize).ok()?;
        let entries = mbr_entries(&sector)?;
        if is_boot_sector(&sector) {
            return None;
        }
        let id = sector.le32(440).filter(|id| *id != 0).map(|id| format!("{id:08x}"));
        let mut table = PartitionTable {
            kind: "mbr",
            offset: 0,
            backup: false,
            sector: SECTOR,
            id,
            needed: 0,
            partitions: Vec::new(),
            problems: Vec::new(),
        };
        let mut extended = false;
        for (index, &(kind, first, count)) in entries.iter().enumerate() {
            if kind == 0 || count == 0 || kind == PROTECTIVE || first == 0 {
                continue;
            }
            if !matches!(kind, 0x05 | 0x0f | 0x85) {
                self.add(&mut table, mbr_partition(index + 1, u64::from(first), count, kind));
            } else if extended {
                table.problems.push("it has more than one extended partition; the first is used".to_owned());
            } else {
                extended = true;
                table.needed = table.needed.max((u64::from(first) + u64::from(count)) * SECTOR);
                self.logical(u64::from(first), &mut table);
            }
        }
        table.partitions.sort_by_key(|partition| partition.number);
        overlaps(&mut table);
        (!table.partitions.is_empty()).then_some(table)
    }

    /// The chain of logical partitions: each link holds one, relative to itself, and where the next link is,
    /// relative to the first.
    fn logical(&self, first: u64, table: &mut PartitionTable) {
        let mut at = first;
        for number in 5..5 + CHAIN_MAX {
            let site = self.site(at.saturating_mul(SECTOR), "extended boot record");
            let link = self.read(site, site.offset, SECTOR as usize).and_then(|sector| {
                let entries = mbr_entries(&sector);
                entries.ok_or_else(|| site.error("signature", "something else", "0xaa55 and a table").into())
            });
            let [(kind, start, count), (_, next, _), ..] = match link {
                Ok(entries) => entries,
                Err(error) => {
                    table.problems.push(format!("the chain of logical partitions is broken: {error}"));
                    return;
                }
            };
            if kind != 0 && count != 0 {
                self.add(table, mbr_partition(number, at + u64::from(start), count, kind));
            }
            // A chain that does not go forward goes round in circles.
            match u64::from(next) {
                0 => return,
                next if first + next > at => at = first + next,
                _ => {
                    table.problems.push(format!("the chain of logical partitions turns back at sector {at}"));
                    return;
                }
            }
        }
        table.problems.push(format!("the chain of logical partitions has more than {CHAIN_MAX} links"));
    }

    fn disklabel(&self) -> Option<PartitionTable> {
        const MAGIC: u32 = 0x8256_4557;
        const PARTITIONS_AT: usize = 148;
        const MOST: usize = 22;
        /// The partition `c`: by custom all that the label is about.
        const WHOLE: usize = 2;
        for at in [512, 0, 64, 128, 1024] {
            let site = self.site(at, "BSD disklabel");
            let length = (PARTITIONS_AT + 16 * MOST).min(self.size.saturating_sub(at) as usize);
            let Ok(label) = self.read(site, at, length) else { continue };
            let label = label.as_slice();
            let little = label.le32(0) == Some(MAGIC);
            let long = |at| if little { label.le32(at) } else { label.be32(at) };
            if long(0) != Some(MAGIC) || long(132) != Some(MAGIC) {
                continue;
            }
            let count = if little { label.le16(138) } else { label.be16(138) };
            let mut problems = Vec::new();
            let stated = usize::from(count.unwrap_or(0));
            let most = format!("at most {MOST}");
            problems.extend(site.require(stated <= MOST, "npartitions", stated, most).err());
            let count = stated.min(MOST);
            let covered = label.get(..PARTITIONS_AT + 16 * count).unwrap_or_default();
            let sum = |sum, pair: &[u8]| sum ^ u16::from_le_bytes([pair[0], pair[1]]);
            let sum = covered.chunks_exact(2).fold(0, sum);
            problems.extend(site.require(sum == 0, "checksum", format!("off by {sum:#06x}"), "right").err());
            let sector = long(40).unwrap_or(512);
            let sane = (512..=4096).contains(&sector) && sector.is_power_of_two();
            problems.extend(site.require(sane, "secsize", sector, "512 to 4096").err());
            let mut table = PartitionTable {
                kind: "bsd-disklabel",
                offset: at,
                backup: false,
                sector: if sane { u64::from(sector) } else { SECTOR },
                id: None,
                needed: 0,
                partitions: Vec::new(),
                problems: problems.iter().map(ToString::to_string).collect(),
            };
            // Within a partition, addresses may count from the disk's beginning: then `c` does not begin at 0.
            let base = if count > WHOLE { long(PARTITIONS_AT + 16 * WHOLE + 4).unwrap_or(0) } else { 0 };
            for index in 0..count {
                let at = PARTITIONS_AT + 16 * index;
                let (Some(length), Some(first), Some(kind)) = (long(at), long(at + 4), label.u8(at + 12))
                else {
                    break;
                };
                // The ones over the whole disk or slice, and unused ones, hold nothing of their own.
                let Some(first) = first.checked_sub(base).filter(|_| kind != 0 && length != 0) else {
                    continue;
                };
                let name = u8::try_from(index).ok().map(|index| char::from(b'a' + index).to_string());
                let (start, size) = (u64::from(first), u64::from(length));
                let number = index as u32 + 1;
                let kind = kind.to_string();
                self.add(&mut table, Partition { number, start, size, missing: 0, kind, id: None, name });
            }
            if !table.partitions.is_empty() {
                return Some(table);
            }
        }
        None
    }
}

fn mbr_partition(number: usize, start: u64, count: u32, kind: u8) -> Partition {
    let (size, kind) = (u64::from(count), format!("{kind:#04x}"));
    Partition { number: number as u32, start, size, missing: 0, kind, id: None, name: None }
}

/// Says which partitions overlap.
fn overlaps(table: &mut PartitionTable) {
    let mut order: Vec<(u64, u64, u32)> =
        table.partitions.iter().map(|one| (one.start, one.start + one.size, one.number)).collect();
    order.sort_unstable();
    for pair in order.windows(2) {
        let ((_, end, one), (start, _, other)) = (pair[0], pair[1]);
        if start < end {
            table.problems.push(format!("partitions {one} and {other} overlap"));
        }
    }
}

/// Whether this is the first sector of a file system of DOS or Windows, which only looks like an MBR.
fn is_boot_sector(sector: &[u8]) -> bool {
    let jump = matches!(sector.u8(0), Some(0xeb | 0xe9));
    let named = [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"].iter().any(|name| sector.holds(3, *name));
    jump && (named || sector.holds(54, b"FAT") || sector.holds(82, b"FAT32"))
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
