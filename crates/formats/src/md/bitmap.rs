//! Write-intent bitmaps: which regions may differ between members.

use std::ops::Range;

use super::error::{FieldError, Site};
use crate::fields::Fields;

/// The header of a write-intent bitmap, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapHeader {
    /// The array's UUID; of 0.90, in the byte order of the machine.
    pub uuid: [u8; 16],
    /// Events of the array when it was written.
    pub events: u64,
    /// Events below which a returning member can't rely on it.
    pub events_cleared: u64,
    /// How many bytes it speaks about: of a member, or of the array at RAID 10.
    pub covers: u64,
    /// Bytes that one bit speaks about.
    pub chunk: u64,
    /// It is out of date, or writing it failed: no bit can be believed.
    pub stale: bool,
}

/// A write-intent bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    /// What it says about itself.
    pub header: BitmapHeader,
    bits: Vec<u8>,
}

impl BitmapHeader {
    /// Bytes of the header, behind which the bits begin.
    pub const LENGTH: usize = 256;

    /// The header at byte `offset` of `device`; `None` if there is none.
    ///
    /// # Errors
    /// A version other than 3, 4 and 5, or sizes that can't be.
    pub fn parse(bytes: &[u8], device: &str, offset: u64) -> Result<Option<Self>, FieldError> {
        let site = Site { device, offset, structure: "md write-intent bitmap" };
        if !bytes.holds(0, b"bitm") {
            return Ok(None);
        }
        let parse = || {
            // The versions before 4 have the byte order of the machine; only little-endian ones are read.
            Some((
                bytes.le32(4)?,
                bytes.le32(52)?,
                bytes.le64(40)?,
                Self {
                    uuid: bytes.bytes(8)?,
                    events: bytes.le64(24)?,
                    events_cleared: bytes.le64(32)?,
                    covers: bytes.le64(40)?.checked_mul(512)?,
                    chunk: u64::from(bytes.le32(52)?),
                    stale: bytes.le32(48)? & 0b110 != 0,
                },
            ))
        };
        let Some((version, chunk, sectors, header)) = parse() else {
            return Err(site.error("length", bytes.len(), "256 bytes with a size below 2^64"));
        };
        site.require((3..=5).contains(&version), "version", version, "3, 4 or 5")?;
        site.require(
            chunk.is_power_of_two() && chunk >= 512,
            "chunksize",
            chunk,
            "a power of two from 512 on",
        )?;
        site.require(header.covers <= 1 << 60, "sync_size", sectors, "sectors that an array can have")?;
        Ok(Some(header))
    }

    /// Bytes of the bits behind the header.
    pub fn bits_length(&self) -> u64 {
        self.covers.div_ceil(self.chunk).div_ceil(8)
    }
}

impl Bitmap {
    /// The bitmap with these bits; `None` if they are fewer than the header says.
    pub fn new(header: BitmapHeader, bits: Vec<u8>) -> Option<Self> {
        (bits.len() as u64 >= header.bits_length()).then_some(Self { header, bits })
    }

    /// Whether anything in the range may have been written since the bit was last cleared. True behind the end.
    pub fn dirty(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        if self.header.stale || range.end > self.header.covers {
            return true;
        }
        let (first, last) = (range.start / self.header.chunk, (range.end - 1) / self.header.chunk);
        (first..=last).any(|bit| self.bits[(bit / 8) as usize] & 1 << (bit % 8) != 0)
    }
}
