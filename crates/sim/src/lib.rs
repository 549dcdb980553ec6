//! The simulator: whole pools on simulated disks, driven by one number, and held against a simple model.
//!
//! A seed becomes a [`program::Program`]: a pool and a list of steps. [`run::run`] does them one by one in a
//! [`world::World`] of disks, power and time, while [`model::Model`] knows every state that the pool may be in. After
//! each crash and at the end `verify` looks at everything. [`shrink`] makes a failing program short;
//! [`watch::Watch`] tells of one that never ends.

mod admin;
pub mod aside;
mod behind;
mod blocks;
mod bytes;
mod checkpoint;
pub mod erasure;
mod faults;
pub mod model;
pub mod nth;
mod pools;
pub mod program;
pub mod progress;
pub mod raid;
mod reshape;
pub mod run;
pub mod sabotage;
pub mod shrink;
pub mod states;
mod text;
mod verify;
mod volumes;
pub mod watch;
pub mod world;
