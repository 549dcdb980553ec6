//! What still fits on a pool, with the metadata that it will need.
//!
//! On a copy of the free space as many metadata chunks are made as the data needs, then data chunks until none fits any
//! more. What data leaves free on every device is not counted: it is for what metadata needs later.

use super::Purpose;
use super::plan::nodes_in;
use crate::chunk::{Chunk, Class};
use crate::core::{Core, Group};
use crate::types::GroupId;

/// Bytes of data for which one node is needed: blocks of the default size (16 KiB), each with an item in its volume's tree
/// and one in the extents tree, in leaves as they are after writes in order.
const BYTES_PER_NODE: u64 = 2_050_000;

/// Nodes that a pool without data has.
const NODES_WITHOUT_DATA: u64 = 8;

/// Nodes too many, so that the estimate is low rather than high.
const NODES_MORE: u64 = 12;

/// Bytes of data that say as much about the nodes to come as [`BYTES_PER_NODE`] does.
const TYPICAL_BYTES: u64 = 16 << 20;

/// What is left to a group when so many metadata chunks are made first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Left {
    /// Logical bytes of the data chunks that can be made then.
    data: u64,
    /// Nodes in those metadata chunks.
    nodes: u64,
}

impl Core {
    /// What is left to a group when `metadata` chunks for nodes are made first.
    fn left(&self, group: GroupId, metadata: u64) -> Left {
        if let Some(&known) = self.left.borrow().get(&(group, metadata)) {
            return known;
        }
        let left = self.play_left(group, metadata);
        self.left.borrow_mut().insert((group, metadata), left);
        left
    }

    fn play_left(&self, group: GroupId, metadata: u64) -> Left {
        let mut free = self.free_of(group);
        // A writer who needs it waits for what was given back and is still known to older roots.
        for (id, space) in &mut free {
            for &(offset, length) in
                self.devices.get(id).into_iter().flat_map(|device| device.deferred.iter())
            {
                space.insert(offset, length);
            }
        }
        let mut left = Left::default();
        // What is too short for a row goes to a chunk of its own.
        let with_parity = self.groups.get(&group).is_some_and(Group::has_parity);
        let for_rests =
            |chunk: &Chunk| chunk.group == group && chunk.class == Class::Data && chunk.layout.parity() == 0;
        if with_parity && !self.map.iter().any(for_rests) {
            left.data += self.play(group, Purpose::Remainder, &mut free).map_or(0, |plan| plan.capacity());
        }
        for _ in 0..metadata {
            let Some(plan) = self.play(group, Purpose::Metadata, &mut free) else { break };
            left.nodes += nodes_in(&plan);
        }
        while let Some(plan) = self.play(group, Purpose::Data, &mut free) {
            left.data += plan.capacity();
        }
        left
    }

    /// Logical bytes of data that new chunks will hold, beside `inside` bytes in chunks that there are, with the nodes for
    /// all of it and `kept` nodes more.
    pub(crate) fn room_outside(&self, inside: u64, kept: u64) -> u64 {
        // New nodes go where most is free.
        let Some(&widest) = self.groups.keys().max_by_key(|&&group| self.free_fraction(group)) else {
            return 0;
        };
        let others: u64 =
            self.groups.keys().filter(|&&group| group != widest).map(|&group| self.left(group, 0).data).sum();
        let live = self.live_nodes(Class::Metadata);
        let used: u64 = self.map.iter().filter(|chunk| chunk.class == Class::Data).map(|c| c.used).sum();
        // What there is tells of blocks, snapshots and how full leaves are, the more of it the better.
        let nodes_for = |bytes: u64| {
            let known = live.saturating_sub(NODES_WITHOUT_DATA) + TYPICAL_BYTES.div_ceil(BYTES_PER_NODE);
            let of = u128::from(used) + u128::from(TYPICAL_BYTES);
            (u128::from(bytes) * u128::from(known)).div_ceil(of) as u64
        };
        let have = self.node_capacity();
        let mut chunks = 0;
        // More chunks for nodes leave less data, which needs fewer nodes: a few rounds settle it.
        for _ in 0..4 {
            let left = self.left(widest, chunks);
            let room = others + left.data;
            let missing =
                (live + nodes_for(inside + room) + kept + NODES_MORE).saturating_sub(have + left.nodes);
            let one = self.left(widest, 1).nodes;
            if missing == 0 || one == 0 {
                break;
            }
            chunks += missing.div_ceil(one);
        }
        others + self.left(widest, chunks).data
    }
}
