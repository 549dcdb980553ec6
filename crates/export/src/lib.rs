//! Serve volumes to other programs: an NBD server and a FUSE file system of volumes.
//!
//! Both are clients of [`Target`], which the pool's volumes implement elsewhere: this crate knows
//! protocols, not pools.

use std::fmt::Debug;

/// Why a request on a [`Target`] failed, in the terms that NBD and FUSE can pass on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Beyond the end, or misaligned in a way that the target does not take.
    #[error("{0}")]
    Invalid(String),
    /// No room for the write.
    #[error("no space left on the pool")]
    NoSpace,
    /// The data can't be had or can't be made safe.
    #[error("{0}")]
    Io(String),
    /// The target is read-only.
    #[error("the volume is read-only")]
    ReadOnly,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes.
    pub length: u64,
    /// Nothing is stored there: reads as zeros and takes no space.
    pub hole: bool,
}

/// A block volume that can be served. All offsets and lengths are bytes, any alignment.
pub trait Target: Debug + Send + Sync {
    /// Size now, bytes.
    fn size(&self) -> u64;
    /// Preferred I/O size, bytes (a power of two).
    fn block_size(&self) -> u32;
    /// Whether writes are refused.
    fn read_only(&self) -> bool;
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError>;
    /// Writes `data` at `offset`: visible at once, durable after the next `flush`.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError>;
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn flush(&self) -> Result<(), TargetError>;
    /// Makes the range read as zeros and gives its space back.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError>;
    /// Makes the range read as zeros; with `keep_allocated` its space need not be given back.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn write_zeroes(&self, offset: u64, length: u64, keep_allocated: bool) -> Result<(), TargetError>;
    /// What lies in the range, as runs that cover it from its start, at most `limit` of them.
    ///
    /// # Errors
    /// See [`TargetError`].
    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError>;
}
