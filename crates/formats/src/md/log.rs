//! The bad-block log, the header of the partial parity log, and the blocks of a RAID 5 journal.

use std::ops::Range;

use super::error::{FieldError, Site};
use crate::fields::Fields;

/// The byte ranges on the member that its bad-block log lists. `shift` is the log's own.
///
/// A hint at best: some kernels copied the list of one member to others.
pub fn bad_blocks(log: &[u8], shift: u8) -> Vec<Range<u64>> {
    let entries =
        log.chunks_exact(8).filter_map(|entry| entry.le64(0)).take_while(|entry| *entry != u64::MAX);
    let range = |entry: u64| {
        let factor = 512_u64.checked_shl(u32::from(shift))?;
        // The first sector is shifted as well as the count.
        let start = (entry >> 10).checked_mul(factor)?;
        let end = start.checked_add((entry & 0x3ff).checked_mul(factor)?)?;
        (start < end).then_some(start..end)
    };
    entries.filter_map(range).collect()
}

/// One entry of a partial parity log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PplEntry {
    /// First array sector of the data that was being written.
    pub data_sector: u64,
    /// Bytes of partial parity in the log.
    pub parity_length: u32,
    /// Bytes of data.
    pub data_length: u32,
    /// Slot of the member with the parity.
    pub parity_slot: u32,
    /// Checksum of the partial parity.
    pub checksum: u32,
}

/// The header of a partial parity log; its partial parity follows, entry by entry, at +4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PplHeader {
    /// Identifies the array.
    pub signature: u32,
    /// Grows with every write.
    pub generation: u64,
    /// What was being written.
    pub entries: Vec<PplEntry>,
}

impl PplHeader {
    /// Bytes of the header.
    pub const LENGTH: usize = 4096;

    /// The header at byte `offset` of `device`, of the array with this UUID.
    ///
    /// # Errors
    /// Too short, a wrong checksum, the signature of another array, or more entries than fit.
    pub fn parse(bytes: &[u8], array_uuid: &[u8; 16], device: &str, offset: u64) -> Result<Self, FieldError> {
        const ENTRIES_MAX: u32 = (4096 - 536) / 24;
        let site = Site { device, offset, structure: "md partial parity log" };
        let short = || site.error("length", bytes.len(), Self::LENGTH);
        let header = bytes.get(..Self::LENGTH).ok_or_else(short)?;
        let mut covered = header.to_vec();
        covered[532..536].fill(0);
        let (stored, sum) = (header.le32(532).ok_or_else(short)?, crc32c::crc32c(&covered));
        site.require(stored == sum, "checksum", format!("{stored:#x}"), format!("{sum:#x}"))?;
        let signature = header.le32(512).ok_or_else(short)?;
        let own = crc32c::crc32c(array_uuid);
        site.require(signature == own, "signature", format!("{signature:#x}"), format!("{own:#x}"))?;
        let count = header.le32(528).ok_or_else(short)?;
        site.require(count <= ENTRIES_MAX, "entries_count", count, format!("at most {ENTRIES_MAX}"))?;
        let entry = |bytes: &[u8]| {
            Some(PplEntry {
                data_sector: bytes.le64(0)?,
                parity_length: bytes.le32(8)?,
                data_length: bytes.le32(12)?,
                parity_slot: bytes.le32(16)?,
                checksum: bytes.le32(20)?,
            })
        };
        let entries = header[536..].chunks_exact(24).take(count as usize).filter_map(entry).collect();
        Ok(Self { signature, generation: header.le64(520).ok_or_else(short)?, entries })
    }
}

/// What a journal's block announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalPayload {
    /// A page of data follows, for this array sector.
    Data {
        /// Array sector.
        location: u64,
        /// crc32c of each 4 KiB.
        checksums: Vec<u32>,
    },
    /// One or two pages of parity follow, for this sector of the members.
    Parity {
        /// Sector of the stripe on its members.
        location: u64,
        /// crc32c of each 4 KiB.
        checksums: Vec<u32>,
    },
    /// These stripes are on the members by now.
    Flush {
        /// Sectors of the stripes.
        stripes: Vec<u64>,
    },
}

/// A meta block of a RAID 4/5/6 journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBlock {
    /// Its number: each next block has one more.
    pub sequence: u64,
    /// Where it lies, sectors from the beginning of the journal.
    pub position: u64,
    /// What follows.
    pub payloads: Vec<JournalPayload>,
}

impl JournalBlock {
    /// Bytes of a meta block.
    pub const LENGTH: usize = 4096;

    /// The meta block at byte `offset` of `device`, of the array with this UUID; `None` if there is none.
    ///
    /// # Errors
    /// A wrong checksum or version, or payloads that don't fit.
    pub fn parse(
        bytes: &[u8],
        array_uuid: &[u8; 16],
        device: &str,
        offset: u64,
    ) -> Result<Option<Self>, FieldError> {
        const MAGIC: u32 = 0x6433_c509;
        const HEADER: usize = 32;
        let site = Site { device, offset, structure: "md journal block" };
        if bytes.le32(0) != Some(MAGIC) {
            return Ok(None);
        }
        let short = || site.error("length", bytes.len(), Self::LENGTH);
        let block = bytes.get(..Self::LENGTH).ok_or_else(short)?;
        let mut covered = block.to_vec();
        covered[4..8].fill(0);
        // The kernel's sum begins with that of the UUID and inverts neither.
        let seed = !crc32c::crc32c(array_uuid);
        let sum = !crc32c::crc32c_append(!seed, &covered);
        let stored = block.le32(4).ok_or_else(short)?;
        site.require(stored == sum, "checksum", format!("{stored:#x}"), format!("{sum:#x}"))?;
        let version = block[8];
        site.require(version == 1, "version", version, 1)?;
        let end = block.le32(12).ok_or_else(short)? as usize;
        site.require((HEADER..=Self::LENGTH).contains(&end), "meta_size", end, "32 to 4096")?;
        let mut payloads = Vec::new();
        let mut at = HEADER;
        while at < end {
            let (payload, length) = payload(&block[at..end])
                .ok_or_else(|| site.error("payload", format!("cut off at byte {at}"), "whole"))?;
            payloads.push(payload);
            at += length;
        }
        Ok(Some(Self {
            sequence: block.le64(16).ok_or_else(short)?,
            position: block.le64(24).ok_or_else(short)?,
            payloads,
        }))
    }
}

/// A payload and its length in the block, bytes: never 0.
fn payload(bytes: &[u8]) -> Option<(JournalPayload, usize)> {
    let (kind, size) = (bytes.le16(0)?, bytes.le32(4)? as usize);
    if kind == 2 {
        // The size is in bytes, of a list of 64-bit sectors.
        let stripes = bytes.range(8, size)?.chunks_exact(8).filter_map(|stripe| stripe.le64(0)).collect();
        return Some((JournalPayload::Flush { stripes }, 8 + size));
    }
    let location = bytes.le64(8)?;
    // The size is in sectors of what follows the meta block, with one checksum for each page.
    let list = bytes.range(16, size.div_ceil(8).checked_mul(4)?)?;
    let checksums: Vec<u32> = list.chunks_exact(4).filter_map(|sum| sum.le32(0)).collect();
    let length = 16 + list.len();
    match kind {
        0 => Some((JournalPayload::Data { location, checksums }, length)),
        1 => Some((JournalPayload::Parity { location, checksums }, length)),
        _ => None,
    }
}
