//! Tree nodes as the trees see them: a [`Source`] over cache, redundancy and self-healing, and a [`Sink`] that
//! keeps what is committed until it is written out.

use std::sync::Arc;

use tree::{Expected, NODE_SIZE, Node, NodePtr, Sink, Source};

use crate::checksum::Checksum;
use crate::chunk::Class;
use crate::core::Core;
use crate::error::{PoolError, Result};
use crate::io::Want;
use crate::types::Logical;

impl Source for Core {
    type Error = PoolError;

    fn node(&mut self, pointer: &NodePtr) -> Result<Arc<Node>> {
        if let Some(node) = self.unwritten_nodes.get(&self.remaps.place_of(Logical(pointer.address)).0)
            && node.header().birth == pointer.birth
        {
            return Ok(Arc::clone(node));
        }
        if let Some(node) = self.cache.node(pointer.address, pointer.birth) {
            return Ok(node);
        }
        let bytes = self.read_extent(node_want(pointer))?;
        let node = Arc::new(Node::parse(bytes.into_boxed_slice(), &Expected::new(self.guid.0, *pointer))?);
        self.cache.insert_node(pointer.address, pointer.birth, Arc::clone(&node));
        Ok(node)
    }
}

/// How to read the node of a pointer.
pub(crate) fn node_want(pointer: &NodePtr) -> Want {
    Want {
        address: Logical(pointer.address),
        length: NODE_SIZE as u32,
        checksum: Checksum::of_node(pointer.checksum),
    }
}

/// Takes a commit's nodes into a class of chunks.
pub(crate) struct NodeSink<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) class: Class,
    /// Addresses given out so far.
    pub(crate) taken: Vec<u64>,
}

impl Sink for NodeSink<'_> {
    type Error = PoolError;

    fn allocate(&mut self) -> Result<u64> {
        let address = self.core.allocate_node(self.class)?;
        self.taken.push(address);
        Ok(address)
    }

    fn write(&mut self, pointer: NodePtr, node: Arc<Node>) -> Result<()> {
        self.core.cache.insert_node(pointer.address, pointer.birth, Arc::clone(&node));
        self.core.unwritten_nodes.insert(pointer.address, node);
        Ok(())
    }
}
