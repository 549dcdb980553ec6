//! Handing out space: devices to chunks, chunks to extents and nodes.
//!
//! - `plan`: which devices and how much of each a new chunk takes; pure, so that the room left can be simulated
//! - `chunks`: making and dropping chunks
//! - `spread`: which children of a draid a chunk takes
//! - `estimate`: what still fits, with the metadata that it will need
//! - `nodes`: logical addresses for tree nodes
//!
//! Extents are placed by `txg::place`, which knows what is to be written.

mod chunks;
mod estimate;
mod nodes;
mod plan;
mod spread;

pub(crate) use estimate::Left;
pub(crate) use plan::{PARITY_UNIT, Purpose, is_on_one, reserve};
