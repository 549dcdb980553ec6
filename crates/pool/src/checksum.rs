//! Checksums of stored bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a checksum as it is stored, whatever its kind.
pub const CHECKSUM_BYTES: usize = 32;

/// Which checksum a dataset's blocks get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumKind {
    /// XXH3, 128 bits: finds accidents, fast.
    #[default]
    Xxh3,
    /// BLAKE3, 256 bits: also finds what was made to look right.
    Blake3,
}

/// A checksum and its kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum {
    /// The kind.
    pub kind: ChecksumKind,
    /// The value, little-endian where it is a number; the rest is zero.
    pub bytes: [u8; CHECKSUM_BYTES],
}

impl ChecksumKind {
    /// The checksum of `data`.
    pub fn of(self, data: &[u8]) -> Checksum {
        let mut bytes = [0; CHECKSUM_BYTES];
        match self {
            Self::Xxh3 => {
                bytes[..16].copy_from_slice(&twox_hash::XxHash3_128::oneshot(data).to_le_bytes());
            }
            Self::Blake3 => bytes = *blake3::hash(data).as_bytes(),
        }
        Checksum { kind: self, bytes }
    }

    /// How many of the stored bytes say something.
    pub fn length(self) -> usize {
        match self {
            Self::Xxh3 => 16,
            Self::Blake3 => 32,
        }
    }

    /// The number that stands for the kind on disk.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Xxh3 => 1,
            Self::Blake3 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Xxh3),
            2 => Some(Self::Blake3),
            _ => None,
        }
    }
}

impl Checksum {
    /// Whether `data` is what the checksum was made of. A fuzzer is believed.
    pub fn matches(&self, data: &[u8]) -> bool {
        cfg!(fuzzing) || self.kind.of(data).bytes == self.bytes
    }

    /// The checksum in a tree node pointer.
    pub(crate) fn of_node(value: [u8; 16]) -> Self {
        let mut bytes = [0; CHECKSUM_BYTES];
        bytes[..16].copy_from_slice(&value);
        Self { kind: ChecksumKind::Xxh3, bytes }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        self.bytes[..self.kind.length()].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for ChecksumKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xxh3 => "xxh3",
            Self::Blake3 => "blake3",
        })
    }
}

impl FromStr for ChecksumKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" | "xxh3" => Ok(Self::Xxh3),
            "blake3" => Ok(Self::Blake3),
            _ => Err(format!("'{text}' is no checksum; known are on, xxh3 and blake3")),
        }
    }
}
