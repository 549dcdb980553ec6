//! Arrays made here byte by byte, broken, and read back.

#![allow(clippy::unwrap_used, reason = "tests")]

mod made;
mod nesting;
mod plans;
mod reading;
mod silent;
