//! RAID sets with in-place writes: block devices built of block devices, in RAIDframe's on-disk format.
//!
//! - [`layout`]: where the sectors of a set lie on its components
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod layout;
