//! The engine's error type. Every variant prints as one sentence that says what to do where that is not plain.

use device::DeviceError;

use crate::codec::DecodeError;
use crate::types::Logical;

/// An operation of the engine failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A device failed where nothing could stand in for it.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Stored bytes can't be had in any way that the redundancy allows.
    #[error(
        "{length} bytes at logical address {address} cannot be read from any copy: the data there is lost"
    )]
    Unreadable {
        /// Where.
        address: Logical,
        /// How much, bytes.
        length: u64,
    },
    /// A tree node or record passed its checksum and makes no sense.
    #[error("the pool's metadata is damaged: {0}")]
    Corrupt(String),
    /// No room.
    #[error("no space left on the pool")]
    NoSpace,
    /// Too many devices are gone for writes to be safe.
    #[error(
        "the pool is suspended: too many devices are gone, or take no writes (files on a full file system?); see to that, \
         then run 'coffer clear'"
    )]
    Suspended,
    /// The pool was imported for reading only.
    #[error("the pool was imported read-only")]
    ReadOnly,
    /// No such thing.
    #[error("no such {kind}: '{name}'")]
    NotFound {
        /// `volume`, `snapshot`, `device`, `property`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The name is taken.
    #[error("{kind} '{name}' already exists")]
    Exists {
        /// `volume`, `snapshot`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A request that can't be carried out as it stands; nothing was changed.
    #[error("{0}")]
    Refused(String),
}

impl PoolError {
    /// A refusal with this sentence.
    pub fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }
}

impl From<DecodeError> for PoolError {
    fn from(error: DecodeError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<tree::NodeError> for PoolError {
    fn from(error: tree::NodeError) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// The engine's result.
pub type Result<T, E = PoolError> = std::result::Result<T, E>;
