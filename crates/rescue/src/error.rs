//! Why a rescue step failed.

use device::DeviceError;
use geometry::md::MdError;

/// A rescue step could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RescueError {
    /// A member or image failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A map of bad sectors could not be read.
    #[error("cannot use the map {path}: {why}; repair or remove it")]
    Map {
        /// Its path.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A plan names a geometry that does not exist.
    #[error("the plan for {array} can't be: {source}")]
    Geometry {
        /// The array.
        array: String,
        /// Why not.
        source: MdError,
    },
    /// A plan lacks a member without which nothing is where it was.
    #[error("the plan for {array} has no member in slot {slot}, and its size is needed; find the disk")]
    SizeUnknown {
        /// The array.
        array: String,
        /// The empty slot.
        slot: usize,
    },
    /// A slot of a plan can't be as it says.
    #[error("slot {slot} in the plan for {array}: {why}")]
    Slot {
        /// The array.
        array: String,
        /// The slot.
        slot: usize,
        /// What is wrong.
        why: String,
    },
    /// A plan names a write-intent bitmap that is none.
    #[error(
        "there is no write-intent bitmap at byte {offset} of {path}: {why}; take 'clean_by' out of the plan"
    )]
    Bitmap {
        /// The disk or image.
        path: String,
        /// Where on it, bytes.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A plan of which nothing can be used.
    #[error("{}", if *.count == 0 { "the plan has no candidates" } else { "no candidate of the plan names a member" })]
    Members {
        /// How many candidates there are.
        count: usize,
    },
    /// The plan has no such candidate.
    #[error("the plan has {count} candidates, and none with number {number}")]
    Candidate {
        /// The number asked for, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A volume can't be put together.
    #[error("the volume {name} can't be read: {why}")]
    Volume {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A plan file is not one.
    #[error("this is not a plan: {0}")]
    Plan(#[from] serde_json::Error),
}
