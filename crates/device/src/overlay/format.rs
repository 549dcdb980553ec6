//! The delta file, byte by byte. All numbers are little-endian; what is not named is zero.
//!
//! ```text
//! header                4096 bytes
//! segment 0             table slot 0 (4096), table slot 1 (4096), 256 units of 64 KiB
//! segment 1 ...
//!
//! header:  0  8  magic "COFFDLTA"
//!          8  4  version, 1
//!         12  4  CRC-32C of the 4096 bytes with this field zero
//!         16  8  size of the base, bytes
//!         24  4  block, bytes: 4096
//!         28  4  blocks in a unit: 16
//!         32  4  units in a segment: 256
//!
//! table:   0  4  magic "DTBL"
//!          4  4  CRC-32C of the 4096 bytes with this field zero
//!          8  8  number of the segment
//!         16  8  generation, from 1
//!         24     256 entries of 8 bytes, one for each unit of the segment
//!
//! entry:  bits 16..64 number of the base's unit (offset / 64 KiB) that this unit stands for,
//!         bits 0..16  which of its blocks are here (bit 0 the first); 0 if the unit is free
//! ```
//!
//! A table of generation g is written to slot g % 2, after the data it speaks of is durable, so that the other
//! slot holds the former table until the new one is whole. The slot with the larger generation counts; a slot
//! of zeros is an empty table of generation 0. A unit's bytes that its mask does not name are meaningless.

/// Bytes of a block: what is copied from the base at the first write to a part of it.
pub(super) const BLOCK: u64 = 4096;
/// Blocks of a unit.
pub(super) const UNIT_BLOCKS: u64 = 16;
/// Bytes of a unit: what is allocated in the delta at a time.
pub(super) const UNIT: u64 = BLOCK * UNIT_BLOCKS;
/// Units of a segment.
pub(super) const SEGMENT_UNITS: u64 = 256;
/// Bytes of the header and of a table slot.
pub(super) const TABLE: u64 = 4096;
const SEGMENT: u64 = 2 * TABLE + SEGMENT_UNITS * UNIT;

const HEADER_MAGIC: [u8; 8] = *b"COFFDLTA";
const TABLE_MAGIC: [u8; 4] = *b"DTBL";
const VERSION: u32 = 1;

pub(super) type Bytes = [u8; TABLE as usize];

/// Bytes of a delta file with so many segments.
pub(super) fn file_size(segments: u64) -> u64 {
    TABLE + segments * SEGMENT
}

/// Segments that have begun in a file of `size` bytes.
pub(super) fn segments(size: u64) -> u64 {
    size.saturating_sub(TABLE).div_ceil(SEGMENT)
}

/// More segments than a delta of such a base ever gets: one unit for each of the base's, and as much again
/// for units that failed writes may have left behind.
pub(super) fn segments_max(base_size: u64) -> u64 {
    2 * base_size.div_ceil(SEGMENT_UNITS * UNIT) + 64
}

/// Where a table slot lies in the file.
pub(super) fn table_offset(segment: u64, slot: u64) -> u64 {
    file_size(segment) + slot * TABLE
}

/// Where the bytes of a unit lie in the file; units are numbered through all segments.
pub(super) fn unit_offset(unit: u64) -> u64 {
    file_size(unit / SEGMENT_UNITS) + 2 * TABLE + unit % SEGMENT_UNITS * UNIT
}

fn word32(bytes: &Bytes, at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn word64(bytes: &Bytes, at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// CRC-32C of the bytes with the four at `field` taken as zero.
fn checksum(bytes: &Bytes, field: usize) -> u32 {
    let head = crc32c::crc32c(&bytes[..field]);
    crc32c::crc32c_append(crc32c::crc32c_append(head, &[0; 4]), &bytes[field + 4..])
}

fn seal(bytes: &mut Bytes, field: usize) {
    let sum = checksum(bytes, field);
    bytes[field..field + 4].copy_from_slice(&sum.to_le_bytes());
}

/// The header of a delta for a base of `base_size` bytes.
pub(super) fn encode_header(base_size: u64) -> Bytes {
    let mut bytes = [0; TABLE as usize];
    bytes[..8].copy_from_slice(&HEADER_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&base_size.to_le_bytes());
    for (at, value) in [(24, BLOCK), (28, UNIT_BLOCKS), (32, SEGMENT_UNITS)] {
        bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    seal(&mut bytes, 12);
    bytes
}

/// The size of the base that a header names, bytes; else why it is no header of ours.
pub(super) fn decode_header(bytes: &Bytes) -> Result<u64, String> {
    if bytes[..8] != HEADER_MAGIC {
        return Err("it is not an overlay's delta file (the magic number is missing)".to_owned());
    }
    if checksum(bytes, 12) != word32(bytes, 12) {
        return Err("the header of the delta file is damaged (wrong checksum)".to_owned());
    }
    let version = word32(bytes, 8);
    if version != VERSION {
        return Err(format!("the delta file has version {version}, and only {VERSION} is known"));
    }
    for (at, name, want) in
        [(24, "block size", BLOCK), (28, "unit size", UNIT_BLOCKS), (32, "segment size", SEGMENT_UNITS)]
    {
        let found = word32(bytes, at);
        if u64::from(found) != want {
            return Err(format!("the delta file has {name} {found} instead of {want}"));
        }
    }
    Ok(word64(bytes, 16))
}

/// One unit of a segment: which unit of the base it stands for, and which of its blocks it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) base_unit: u64,
    pub(super) mask: u16,
}

/// What a segment's units hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) generation: u64,
    pub(super) entries: [Entry; SEGMENT_UNITS as usize],
}

impl Default for Table {
    fn default() -> Self {
        Self { generation: 0, entries: [Entry::default(); SEGMENT_UNITS as usize] }
    }
}

impl Table {
    pub(super) fn encode(&self, segment: u64) -> Bytes {
        let mut bytes = [0; TABLE as usize];
        bytes[..4].copy_from_slice(&TABLE_MAGIC);
        bytes[8..16].copy_from_slice(&segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        for (place, entry) in bytes[24..].chunks_exact_mut(8).zip(&self.entries) {
            place.copy_from_slice(&(entry.base_unit << 16 | u64::from(entry.mask)).to_le_bytes());
        }
        seal(&mut bytes, 4);
        bytes
    }

    /// The table in a slot; `None` if it is damaged or belongs elsewhere.
    fn decode(bytes: &Bytes, segment: u64, slot: u64) -> Option<Self> {
        if bytes.iter().all(|&byte| byte == 0) {
            return Some(Self::default());
        }
        let generation = word64(bytes, 16);
        let whole = bytes[..4] == TABLE_MAGIC && checksum(bytes, 4) == word32(bytes, 4);
        if !whole || word64(bytes, 8) != segment || generation % 2 != slot {
            return None;
        }
        let mut table = Self { generation, ..Self::default() };
        for (index, entry) in table.entries.iter_mut().enumerate() {
            let word = word64(bytes, 24 + 8 * index);
            *entry = Entry { base_unit: word >> 16, mask: word as u16 };
        }
        Some(table)
    }

    /// The table that counts of a segment's two slots; `None` if neither is whole.
    pub(super) fn newer(slots: [&Bytes; 2], segment: u64) -> Option<Self> {
        let tables = (0..).zip(slots).filter_map(|(slot, bytes)| Self::decode(bytes, segment, slot));
        tables.max_by_key(|table| table.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(generation: u64) -> Table {
        let mut table = Table { generation, ..Table::default() };
        for (index, entry) in (0..).zip(&mut table.entries) {
            *entry = Entry { base_unit: (1 << 47) + index, mask: index as u16 };
        }
        table
    }

    #[test]
    fn the_newer_whole_slot_counts() {
        let zero = [0; TABLE as usize];
        let (second, third) = (table(2), table(3));
        let (even, odd) = (second.encode(9), third.encode(9));
        assert_eq!(Table::newer([&even, &odd], 9), Some(third.clone()));
        let mut torn = odd;
        torn[512..].fill(0);
        assert_eq!(Table::newer([&even, &torn], 9), Some(second));
        assert_eq!(Table::newer([&zero, &torn], 9), Some(Table::default()));
        assert_eq!(Table::newer([&odd, &even], 9), None, "each in the other's slot");
        assert_eq!(Table::newer([&even, &odd], 8), None, "of another segment");
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        let good = encode_header(12345);
        assert_eq!(decode_header(&good), Ok(12345));
        for bit in 0..TABLE as usize * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&bad).is_err(), "bit {bit}");
        }
    }
}
