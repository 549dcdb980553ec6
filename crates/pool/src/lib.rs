//! The pool engine.

pub mod report;
pub mod spec;
pub mod types;
