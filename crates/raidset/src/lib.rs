//! RAID sets with in-place writes: block devices built of block devices, in RAIDframe's on-disk format.
//!
//! - [`layout`]: where the sectors of a set lie on its components
//! - [`design`]: which columns share a stripe on the declustered levels; `evenodd`: the code of even-odd parity
//! - [`label`]: the component label, which says what set and column a component belongs to
//! - [`extension`]: what labels have no room for, where RAIDframe does not look
//! - [`paritymap`]: which regions may have parity that does not match
//! - [`judge`]: which components belong to a set, and which missed something
//! - [`config`]: the configuration file
//! - [`set`]: a set in use: reading, writing, failures, rebuilds
//! - [`raidctl`]: options and output of the program of that name
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod design;
mod evenodd;
pub mod extension;
pub mod judge;
pub mod label;
pub mod layout;
pub mod paritymap;
pub mod raidctl;
pub mod set;
