//! Superblocks of Linux md, of all versions, and what they point to.
//!
//! ```text
//! bytes --locate, parse--> RawSuperblock (fields as they are) --verify--> Superblock (in bytes, in range)
//!     Superblock --> where the write-intent bitmap, the bad-block log, the journal's tail and the PPL are
//!     bytes there --> Bitmap, bad ranges, JournalBlock, PplHeader
//! ```
//!
//! A raw superblock is everything that begins with md's magic number and version; so it can be shown to people
//! even if damaged. Only a verified one has its checksum right and lies where it says it lies. All sizes and
//! offsets of the verified structures are bytes and offsets on the member, except where it is said otherwise.
//! The formats are described in the kernel's `md_p.h`.

mod backup;
mod bitmap;
pub(crate) mod error;
mod log;
mod raw;
mod superblock;

pub use backup::{BackupRun, ReshapeBackup};
pub use bitmap::{Bitmap, BitmapHeader};
pub use error::FieldError;
pub use log::{JournalBlock, JournalPayload, PplEntry, PplHeader, bad_blocks};
pub use raw::{RawSuperblock, RawV0, RawV1};
pub use superblock::{Reshape, Role, Superblock};

use crate::MdVersion;

/// Length of the area that any superblock fits in, bytes.
pub const SUPERBLOCK_LENGTH: usize = 4096;

impl MdVersion {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::V0_90, Self::V1_0, Self::V1_1, Self::V1_2];

    /// Where the superblock of a member of `size` bytes lies; `None` if it is too small to have one.
    pub fn superblock_offset(self, size: u64) -> Option<u64> {
        const ROUND: u64 = 64 << 10;
        match self {
            Self::V0_90 => (size / ROUND * ROUND).checked_sub(ROUND),
            Self::V1_0 => Some((size / 512).checked_sub(16)? / 8 * 4096),
            Self::V1_1 => Some(0),
            Self::V1_2 => Some(4096),
        }
        .filter(|at| at + 256 <= size)
    }
}
