//! Logical addresses for tree nodes.

use tree::NODE_SIZE;

use super::plan::Purpose;
use crate::chunk::{Chunk, Class};
use crate::core::Core;
use crate::error::{PoolError, Result};
use crate::space::NodeSpace;
use crate::types::{GroupId, Logical, Txg};

impl Core {
    /// Takes a free node in a chunk of the class, making a chunk where none has one.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when there is no room for another chunk either.
    pub(crate) fn allocate_node(&mut self, class: Class) -> Result<u64> {
        if let Some(&current) = self.current_nodes.get(&class)
            && let Some(node) = self.node_in(class, current)
        {
            return Ok(node);
        }
        let purpose = Purpose::of_nodes(class);
        let open = |chunk: &&Chunk| chunk.class == class && !chunk.closed;
        let (suited, others): (Vec<&Chunk>, Vec<&Chunk>) =
            self.map.iter().filter(open).partition(|chunk| self.suits(chunk, purpose));
        let addresses = |chunks: Vec<&Chunk>| chunks.iter().map(|chunk| chunk.address).collect::<Vec<_>>();
        let (suited, others) = (addresses(suited), addresses(others));
        let node = suited.into_iter().find_map(|address| self.node_in(class, address));
        let node = node.or_else(|| {
            let made = self.make_node_chunk(class)?;
            self.node_in(class, made)
        });
        // Better a layout that is not wanted any more than no room.
        let others = if self.relocating { Vec::new() } else { others };
        let node = node.or_else(|| others.into_iter().find_map(|address| self.node_in(class, address)));
        node.ok_or(PoolError::NoSpace)
    }

    /// Takes a free node of a chunk.
    fn node_in(&mut self, class: Class, chunk: Logical) -> Option<u64> {
        let index = self.nodes.get_mut(&chunk).and_then(NodeSpace::allocate)?;
        self.current_nodes.insert(class, chunk);
        Some(chunk.0 + index * NODE_SIZE as u64)
    }

    /// Makes another chunk for nodes, where there is room for one.
    pub(crate) fn make_node_chunk(&mut self, class: Class) -> Option<Logical> {
        let purpose = Purpose::of_nodes(class);
        let mut groups: Vec<GroupId> = self.groups.keys().copied().collect();
        // Nodes go where most is left, the chunk tree where most may be lost.
        groups.sort_by_key(|&group| {
            let plan = self.plan_chunk(group, purpose, None);
            let tolerance = plan.as_ref().map_or(0, |plan| plan.layout.tolerance());
            (std::cmp::Reverse(tolerance), std::cmp::Reverse(self.free_fraction(group)), group)
        });
        groups.into_iter().find_map(|group| self.make_chunk(group, purpose).ok())
    }

    /// Free part of a group's devices, in millionths.
    pub(crate) fn free_fraction(&self, group: GroupId) -> u64 {
        let members = self.groups.get(&group).map(|group| group.devices.clone()).unwrap_or_default();
        let devices = members.iter().filter_map(|id| self.devices.get(id));
        let (free, size) = devices.fold((0, 1), |(free, size), device| {
            (free + u128::from(device.free.total()), size + u128::from(device.capacity()))
        });
        (free * 1_000_000 / size) as u64
    }

    /// Frees the node with this home: at once when the open transaction group wrote it, else when no root knows it any
    /// more.
    pub(crate) fn free_node(&mut self, home: u64, birth: Txg) {
        let address = self.remaps.place_of(Logical(home)).0;
        if address != home {
            self.remaps.forget(Logical(home), NODE_SIZE as u64);
        }
        let Some(chunk) = self.map.at(Logical(address)).map(|chunk| chunk.address) else { return };
        let committed = birth < self.txg && !self.is_sabotaged("reuse-early");
        let txg = self.txg;
        if let Some(space) = self.nodes.get_mut(&chunk) {
            space.free_node((address - chunk.0) / NODE_SIZE as u64, committed, txg);
        }
        self.unwritten_nodes.remove(&address);
    }

    fn spaces(&self, class: Class) -> impl Iterator<Item = &NodeSpace> {
        let of_class = move |chunk: &&Chunk| chunk.class == class;
        self.map.iter().filter(of_class).filter_map(|chunk| self.nodes.get(&chunk.address))
    }

    /// Nodes of a class that can be allocated without another chunk.
    pub(crate) fn free_nodes(&self, class: Class) -> u64 {
        let open = |chunk: &&Chunk| chunk.class == class && !chunk.closed;
        self.map
            .iter()
            .filter(open)
            .filter_map(|chunk| self.nodes.get(&chunk.address))
            .map(NodeSpace::free)
            .sum()
    }

    /// Nodes that chunks of metadata have room for, those in use included.
    pub(super) fn node_capacity(&self) -> u64 {
        self.node_capacity_of(|_| true)
    }

    /// As [`Core::node_capacity`], of some of the chunks.
    pub(crate) fn node_capacity_of(&self, counts: impl Fn(&Chunk) -> bool) -> u64 {
        let open = |chunk: &&Chunk| chunk.class == Class::Metadata && !chunk.closed && counts(chunk);
        let spaces = self.map.iter().filter(open).filter_map(|chunk| self.nodes.get(&chunk.address));
        spaces.map(NodeSpace::capacity).sum()
    }

    /// Nodes of a class that are in use.
    pub(crate) fn live_nodes(&self, class: Class) -> u64 {
        self.spaces(class).map(NodeSpace::live).sum()
    }
}
