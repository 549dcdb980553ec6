//! LVM2, on what its own tools and the kernel wrote.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod group;
mod reader;
mod volumes;
