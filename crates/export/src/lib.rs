//! Serve volumes to other programs: an NBD server and a FUSE file system of volumes.
//!
//! Both are clients of [`Target`], which the pool's volumes implement elsewhere: this crate knows
//! protocols, not pools. A request goes: client -> [`nbd`] or [`fuse`] -> [`Target`], and which volume is
//! meant by a name is asked of [`Exports`].

mod error;
pub mod fuse;
pub mod nbd;
mod target;
pub mod testing;

pub use error::ServeError;
pub use fuse::{FuseHandle, FuseOptions, FuseSession, mount};
pub use nbd::{Listen, NbdServer, StopHandle};
pub use target::{ExportTable, Exports, Run, Target, TargetError};
