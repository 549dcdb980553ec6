//! The copy-on-write B+tree of a pool: fixed-size keys, small values, nodes of [`NODE_SIZE`] bytes.
//!
//! No I/O and no allocation policy in here. A [`Tree`] starts at a committed root, reads committed nodes through
//! a [`Source`] and keeps what the open transaction group changes in dirty nodes of its own: leaves are pages in
//! their on-disk form (`leaf.rs`), branches are plain vectors (`branch.rs`). [`Tree::commit`] hands every dirty
//! node, children first, to a [`Sink`] as an immutable [`Node`] and yields the new root pointer. A pointer holds
//! its node's checksum, so a root vouches for the whole tree as it was then, and older roots stay readable as
//! long as the caller keeps the nodes that [`Tree::take_freed`] names.
//!
//! [`walk()`] visits a committed tree, or only what is newer than some transaction group; [`dropped()`] visits what
//! an older root of a tree has and a newer one has not.
//!
//! The format is described at the top of `node.rs`; [`Node::parse`] checks every byte of it, so that nothing
//! behind it can fail on what it reads.

#![forbid(unsafe_code)]

mod branch;
mod bytes;
mod edit;
mod error;
mod key;
mod leaf;
mod node;
mod pointer;
mod store;
mod tree;
mod value;
mod walk;

pub use error::NodeError;
pub use key::{KEY_SIZE, Key};
pub use node::{Expected, HEADER_SIZE, Header, MAGIC, MAX_LEVEL, MAX_VALUE, NODE_SIZE, Node, VERSION};
pub use pointer::{NodePtr, POINTER_SIZE};
pub use store::{Sink, Source};
pub use tree::{Tree, TreeId};
pub use value::Value;
pub use walk::{Bounds, Visit, Visitor, dropped, walk, walk_from};
