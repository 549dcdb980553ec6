//! What can be served: a volume, and the set of volumes a server offers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

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
    /// Whether [`Target::write_zeroes`] without `keep_allocated` costs far less than writing the zeros:
    /// clients that ask for fast zeroing only are refused where it does not.
    fn cheap_zeroes(&self) -> bool {
        false
    }
}

/// The volumes that a server offers, by name. Asked anew for every client, so that volumes may come and go.
pub trait Exports: Debug + Send + Sync {
    /// All names, in the order in which clients list them.
    fn names(&self) -> Vec<String>;
    /// The volume of that name, if there is one. It stays in use until its last client has gone.
    fn open(&self, name: &str) -> Option<Arc<dyn Target>>;
    /// A line of text for people about the volume.
    fn description(&self, _name: &str) -> Option<String> {
        None
    }
}

/// A set of volumes held in memory, sorted by name.
#[derive(Debug, Default)]
pub struct ExportTable {
    targets: RwLock<BTreeMap<String, Arc<dyn Target>>>,
}

impl ExportTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `target` under `name`; returns what had that name before.
    pub fn insert(&self, name: impl Into<String>, target: Arc<dyn Target>) -> Option<Arc<dyn Target>> {
        self.targets.write().unwrap_or_else(PoisonError::into_inner).insert(name.into(), target)
    }

    /// Stops offering `name`. Clients that have it open keep it.
    pub fn remove(&self, name: &str) -> Option<Arc<dyn Target>> {
        self.targets.write().unwrap_or_else(PoisonError::into_inner).remove(name)
    }
}

impl Exports for ExportTable {
    fn names(&self) -> Vec<String> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn open(&self, name: &str) -> Option<Arc<dyn Target>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
