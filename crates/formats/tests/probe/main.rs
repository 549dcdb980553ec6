//! `probe` and `signature_ranges` against real tools, structures built by hand, and garbage.

mod common;
mod crafted;
mod garbage;
mod real;
mod samples;
