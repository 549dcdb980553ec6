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
        let current = self.current_nodes.get(&class).copied();
        let known: Vec<Logical> = current
            .into_iter()
            .chain(self.map.iter().filter(|chunk| chunk.class == class).map(|chunk| chunk.address))
            .collect();
        for address in known {
            let index = self.nodes.get_mut(&address).and_then(NodeSpace::allocate);
            if let Some(index) = index {
                self.current_nodes.insert(class, address);
                return Ok(address.0 + index * NODE_SIZE as u64);
            }
        }
        let address = self.make_node_chunk(class).ok_or(PoolError::NoSpace)?;
        let index = self.nodes.get_mut(&address).and_then(NodeSpace::allocate).ok_or(PoolError::NoSpace)?;
        self.current_nodes.insert(class, address);
        Ok(address.0 + index * NODE_SIZE as u64)
    }

    /// Makes another chunk for nodes, where there is room for one.
    pub(crate) fn make_node_chunk(&mut self, class: Class) -> Option<Logical> {
        let purpose = if class == Class::System { Purpose::System } else { Purpose::Metadata };
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

    /// Frees a node: at once when the open transaction group wrote it, else when no root knows it any more.
    pub(crate) fn free_node(&mut self, address: u64, birth: Txg) {
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
        self.spaces(class).map(NodeSpace::free).sum()
    }

    /// Nodes of a class that are in use.
    pub(crate) fn live_nodes(&self, class: Class) -> u64 {
        self.spaces(class).map(NodeSpace::live).sum()
    }
}
