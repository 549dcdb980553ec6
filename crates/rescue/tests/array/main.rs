//! Arrays made here byte by byte, broken, and read back.

mod made;
mod plans;
mod reading;
