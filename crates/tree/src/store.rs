//! What a tree needs from the outside.

use std::sync::Arc;

use crate::error::NodeError;
use crate::node::Node;
use crate::pointer::NodePtr;

/// Gives committed nodes. Implemented over a cache, redundancy and self-healing.
pub trait Source {
    /// Why a node can't be had.
    type Error: From<NodeError>;

    /// The node that `pointer` leads to, checked against it by [`Node::parse`].
    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, Self::Error>;
}

impl<S: Source + ?Sized> Source for &mut S {
    type Error = S::Error;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>, Self::Error> {
        (**self).node(pointer)
    }
}

/// Takes the nodes of a commit.
pub trait Sink {
    /// Why a node can't be taken.
    type Error;

    /// A free logical address for one node.
    fn allocate(&mut self) -> Result<u64, Self::Error>;

    /// Takes a node for the address that `allocate` returned last. Children come before their parents.
    fn write(&mut self, pointer: NodePtr, node: Arc<Node>) -> Result<(), Self::Error>;
}

/// The node of `pointer`, if the source really returned that one.
///
/// Levels fall by one at each step of a descent, so this check alone bounds every walk.
pub(crate) fn fetch<S: Source>(source: &mut S, pointer: &NodePtr) -> Result<Arc<Node>, S::Error> {
    let node = source.node(pointer)?;
    let header = node.header();
    if header.level != pointer.level || header.address != pointer.address || header.birth != pointer.birth {
        return Err(NodeError::new(
            pointer.address,
            "what the node source returned",
            format_args!("address {:#x}, level {}, birth {}", header.address, header.level, header.birth),
            format_args!("level {}, birth {}", pointer.level, pointer.birth),
        )
        .into());
    }
    Ok(node)
}
