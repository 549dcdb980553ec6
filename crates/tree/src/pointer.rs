//! Node pointers.
//!
//! ```text
//! offset  size  field
//!      0     8  logical address of the node
//!      8     8  birth: the transaction group that wrote the node, never 0
//!     16    16  xxh3-128 of all NODE_SIZE bytes of the node
//!     32     1  level of the node, 0 = leaf
//!     33     7  reserved, zero
//! ```
//! All numbers are little-endian. The root of an empty tree is 40 zero bytes.

use crate::bytes::{array, get_u64};
use crate::error::NodeError;
use crate::node::MAX_LEVEL;

/// Length of an encoded pointer, bytes.
pub const POINTER_SIZE: usize = 40;

/// Where a committed node is, when it was written, and what it must be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodePtr {
    /// Logical address.
    pub address: u64,
    /// Transaction group that wrote the node.
    pub birth: u64,
    /// xxh3-128 of the whole node, little-endian.
    pub checksum: [u8; 16],
    /// Height above the leaves.
    pub level: u8,
}

impl NodePtr {
    /// The 40 bytes of the pointer.
    pub fn encode(&self) -> [u8; POINTER_SIZE] {
        let mut bytes = [0; POINTER_SIZE];
        bytes[0..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.birth.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.checksum);
        bytes[32] = self.level;
        bytes
    }

    /// The pointer that 40 bytes stand for.
    ///
    /// # Errors
    /// The birth is 0, the level is above [`MAX_LEVEL`] or a reserved byte is not zero. The error names the
    /// address that the pointer holds.
    pub fn decode(bytes: &[u8; POINTER_SIZE]) -> Result<Self, NodeError> {
        let pointer = Self::read(bytes);
        let error = |field, found: u64, wanted: &str| NodeError::new(pointer.address, field, found, wanted);
        if pointer.birth == 0 {
            return Err(error("birth in the pointer", 0, "at least 1"));
        }
        if pointer.level > MAX_LEVEL {
            return Err(error("level in the pointer", pointer.level.into(), "at most 15"));
        }
        if let Some(&byte) = bytes[33..].iter().find(|&&byte| byte != 0) {
            return Err(error("reserved byte of the pointer", byte.into(), "0"));
        }
        Ok(pointer)
    }

    /// As [`NodePtr::decode`], for bytes that have been checked already.
    pub(crate) fn read(bytes: &[u8; POINTER_SIZE]) -> Self {
        Self {
            address: get_u64(bytes, 0),
            birth: get_u64(bytes, 8),
            checksum: array(bytes, 16),
            level: bytes[32],
        }
    }

    /// The 40 bytes of a root; all zero for that of an empty tree.
    pub fn encode_root(root: Option<&Self>) -> [u8; POINTER_SIZE] {
        root.map_or([0; POINTER_SIZE], Self::encode)
    }

    /// The root that 40 bytes stand for; `None` (all zero) is an empty tree.
    ///
    /// # Errors
    /// As [`NodePtr::decode`].
    pub fn decode_root(bytes: &[u8; POINTER_SIZE]) -> Result<Option<Self>, NodeError> {
        if bytes.iter().all(|&byte| byte == 0) { Ok(None) } else { Self::decode(bytes).map(Some) }
    }
}
