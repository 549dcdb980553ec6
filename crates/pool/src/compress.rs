//! Compression of blocks before they are stored.
//!
//! A compressed extent is a `u32` length, that many compressed bytes, and zeros up to a whole sector. A block
//! is stored compressed only if that saves at least one sector.

use std::fmt;
use std::str::FromStr;

use crate::SECTOR;

/// How a dataset's blocks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    Off,
    /// LZ4.
    Lz4,
    /// Zstandard at a level from 1 to 19.
    Zstd(u8),
}

impl Compression {
    /// The number that stands for the method on disk (levels matter only when writing).
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Off => 0,
            Self::Lz4 => 1,
            Self::Zstd(_) => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Off),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd(3)),
            _ => None,
        }
    }

    /// The bytes to store for `block`, a whole number of sectors; `None` when it is better stored as it is.
    pub(crate) fn compress(self, block: &[u8]) -> Option<Vec<u8>> {
        let packed = match self {
            Self::Off => return None,
            Self::Lz4 => lz4_flex::block::compress(block),
            Self::Zstd(level) => zstd::bulk::compress(block, i32::from(level)).ok()?,
        };
        let stored = (packed.len() + 4).next_multiple_of(SECTOR as usize);
        if stored >= block.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(stored);
        bytes.extend_from_slice(&(packed.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&packed);
        bytes.resize(stored, 0);
        Some(bytes)
    }

    /// Undoes `compress`: a block of exactly `length` bytes, or `None` when the bytes are no such thing.
    pub(crate) fn decompress(self, stored: &[u8], length: usize) -> Option<Vec<u8>> {
        if self == Self::Off {
            return (stored.len() == length).then(|| stored.to_vec());
        }
        let (head, rest) = stored.split_first_chunk::<4>()?;
        let packed = rest.get(..u32::from_le_bytes(*head) as usize)?;
        let block = match self {
            Self::Off => return None,
            Self::Lz4 => {
                let mut block = vec![0; length];
                let written = lz4_flex::block::decompress_into(packed, &mut block).ok()?;
                block.truncate(written);
                block
            }
            Self::Zstd(_) => zstd::bulk::decompress(packed, length).ok()?,
        };
        (block.len() == length).then_some(block)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(3) => f.write_str("zstd"),
            Self::Zstd(level) => write!(f, "zstd-{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" | "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd(3)),
            _ => match text.strip_prefix("zstd-").and_then(|level| level.parse().ok()) {
                Some(level @ 1..=19) => Ok(Self::Zstd(level)),
                _ => Err(format!(
                    "'{text}' is no compression; known are off, on, lz4, zstd and zstd-1 to zstd-19"
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_blocks_come_back() {
        let block: Vec<u8> = (0..16384u32).map(|i| (i / 97) as u8).collect();
        for method in [Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)] {
            let stored = method.compress(&block).unwrap();
            assert_eq!(stored.len() % SECTOR as usize, 0);
            assert!(stored.len() < block.len());
            let back = Compression::from_code(method.code()).unwrap().decompress(&stored, block.len());
            assert_eq!(back.as_deref(), Some(&block[..]));
            assert_eq!(method.decompress(&stored, block.len() - 1), None);
            assert_eq!(method.decompress(&stored[..3], block.len()), None);
        }
    }

    #[test]
    fn blocks_that_do_not_shrink_stay_as_they_are() {
        let mut noise = vec![0; 8192];
        device::rng::Rng::new(1).fill(&mut noise);
        assert!(Compression::Lz4.compress(&noise).is_none());
    }
}
