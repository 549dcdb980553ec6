//! `probe` and `signature_ranges` against real tools, structures built by hand, and garbage.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
mod crafted;
mod garbage;
mod real;
mod samples;
