//! Reading and writing logical addresses through the chunk map.
//!
//! - `read`: stored extents and nodes, many at a time, each checked against its checksum
//! - `straight`: those of which nothing is missing, by several threads and beside the pool
//! - `rows`: whole rows of a chunk in memory, and what can be rebuilt of them
//! - `agree`: rows whose parity does not fit, made to agree by changing as little as possible
//! - `heal`: when the straight way failed: try everything that the redundancy allows, blame and repair
//! - `write`: extents, nodes and whole rows to every placement; what could not be written becomes stale
//!
//! A read goes `read` -> (a column is gone) `rows` -> (a checksum is wrong) `heal`.

mod agree;
mod heal;
mod read;
mod rows;
mod straight;
mod write;

pub(crate) use heal::Healing;
pub(crate) use read::Want;
pub(crate) use rows::{Reading, Rows};
pub(crate) use straight::Straight;
pub(crate) use write::{Part, Piece, WriteLog, WriteOutcome, Writer};

use crate::chunk::{COLUMN_HEADER, Placement};

/// Where byte `offset` of a column is on the placement's device.
pub(crate) fn on_device(placement: &Placement, offset: u64) -> u64 {
    placement.offset + COLUMN_HEADER + offset
}
