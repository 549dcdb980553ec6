//! The pool engine: checksummed, copy-on-write storage that survives losing devices.
//!
//! Synchronous and deterministic: devices, clock and randomness come in through [`Env`] and the calls, nothing is
//! global, and equal inputs give equal runs. One owner calls [`Pool`]'s methods one at a time.
//!
//! How a write flows, from the caller down:
//!
//! ```text
//! dataset   blocks of volumes, dirty in memory until the commit
//! txg       a commit: place, prepare (trees become nodes), write out, flush, uberblock
//! alloc     devices to chunks, chunks to extents and nodes (space: what is free)
//! io        logical addresses to devices through the chunk map; parity; self-healing
//! chunk     the chunk map itself
//! label     both ends of each device: configuration and uberblocks
//! ```
//!
//! [`Held`] is a pool behind a lock for servers, with commits beside reads and writes.
//!
//! `core` is the state that all of these share; `import`, `create`, `admin`, `scan` and `check` are what people ask
//! for; `checkpoint` keeps a state to go back to; `whatif` tells what failures would cost, `forecast` what changes come to; `report` is what they are told. On-disk structures are described in `docs/on-disk-format.md`.

mod admin;
mod alloc;
mod balance;
mod check;
mod checkpoint;
mod checksum;
mod chunk;
mod codec;
mod compress;
mod config;
mod core;
mod create;
mod dataset;
mod draid;
mod error;
mod forecast;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz;
#[cfg(test)]
mod golden;
mod held;
mod import;
mod io;
mod label;
mod nodes;
mod pointer;
mod pool;
pub mod report;
mod scan;
mod space;
pub mod spec;
mod status;
mod txg;
pub mod types;
mod usage;
mod whatif;

pub use crate::core::{Clock, Env};
pub use admin::ReplaceOptions;
pub use balance::BalanceAction;
pub use config::{DevicePath, LabelInfo};
pub use dataset::{BlocksRead, ReadWork, VolumeInfo};
pub use error::{PoolError, Result};
pub use forecast::Change;
pub use held::{Guard, Held};
pub use label::DEVICE_BYTES_MIN;
pub use pool::Pool;
pub use scan::ScrubAction;
#[cfg(feature = "sabotage")]
pub use scan::{Copies, Places};
pub use txg::CommitWork;

/// The unit of everything stored, bytes.
pub const SECTOR: u64 = 4096;
