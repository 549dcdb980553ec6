//! What can be wrong with a node.

use std::fmt::Display;

/// A node or a pointer is not what it should be: damaged, of another pool, or misplaced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("tree node at logical address {address:#x}: {field} is {found}, wanted {wanted}")]
pub struct NodeError {
    /// Logical address that the node was expected at, or that its header gives where none was expected.
    pub address: u64,
    /// The field, with the index of its entry where it belongs to one.
    pub field: String,
    /// What stands there.
    pub found: String,
    /// What should stand there.
    pub wanted: String,
}

impl NodeError {
    #[cold]
    pub(crate) fn new(address: u64, field: impl Display, found: impl Display, wanted: impl Display) -> Self {
        Self { address, field: field.to_string(), found: found.to_string(), wanted: wanted.to_string() }
    }
}
