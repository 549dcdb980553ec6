//! Which children of a draid a chunk takes, and what is kept free on them for its distributed spares.

use std::collections::BTreeMap;

use geometry::spread;

use super::plan::{FreeMap, Purpose, column_target};
use crate::chunk::{COLUMN_HEADER, Chunk};
use crate::core::{Core, Device, Group};
use crate::types::DeviceId;

/// A device that a chunk could take: it works, its room, it, and it with those that stand in for it.
pub(super) type Candidate = (bool, u64, DeviceId, Vec<DeviceId>);

impl Core {
    /// Bytes that chunks leave free on each child of a draid, so that what is on a child that fails finds room on the
    /// others, as often as there are idle spares. Every child counts as the smallest does: the others could not hold more.
    pub(crate) fn kept_for_spares<'a>(&'a self, group: &Group) -> impl Fn(&Device) -> u64 + 'a {
        let idle = group.spares.iter().filter(|spare| spare.is_none()).count() as u64;
        // What those hold whose spares are in use is on the others already.
        let children = (group.devices.len() as u64
            - (group.spares.len() as u64 - idle).min(group.devices.len() as u64))
        .max(1);
        let smallest = self.members(group).map(Device::capacity).min().unwrap_or(0);
        let column = column_target(self.members(group).map(|device| device.size).min().unwrap_or(0));
        move |device| {
            if idle == 0 {
                return 0;
            }
            // A column more, as room comes in whole columns.
            (smallest * idle).div_ceil(children)
                + column
                + COLUMN_HEADER
                + device.capacity().saturating_sub(smallest)
        }
    }

    /// The members of a group.
    fn members<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Device> {
        group.devices.iter().filter_map(|id| self.devices.get(id))
    }

    /// The `width` candidates that a chunk of a draid takes, so that children fill up evenly and every two of them share
    /// about as many chunks. With `free` that is played with nobody looks at who shares what: it makes no difference to how
    /// much fits.
    pub(super) fn spread(
        &self,
        group: &Group,
        purpose: Purpose,
        candidates: &[Candidate],
        width: usize,
        free: Option<&FreeMap>,
    ) -> Vec<Candidate> {
        let smallest = candidates
            .iter()
            .filter_map(|(_, _, id, _)| self.devices.get(id))
            .map(|device| device.size)
            .min();
        let step = column_target(smallest.unwrap_or(0)) + COLUMN_HEADER;
        let kept = self.kept_for_spares(group);
        let room = |id: &DeviceId| {
            let device = self.devices.get(id)?;
            let runs = free.and_then(|free| free.get(id)).unwrap_or(&device.free);
            Some(runs.total().saturating_sub(kept(device)))
        };
        // In whole columns: what is smaller is no difference.
        let columns = |homes: &[DeviceId]| homes.iter().filter_map(room).min().unwrap_or(0) / step;
        let rank: Vec<(bool, std::cmp::Reverse<u64>)> = candidates
            .iter()
            .map(|(usable, _, _, homes)| (!usable, std::cmp::Reverse(columns(homes))))
            .collect();
        let places: BTreeMap<DeviceId, usize> =
            candidates.iter().enumerate().map(|(place, (_, _, id, _))| (*id, place)).collect();
        let mut shared = vec![0u64; candidates.len() * candidates.len()];
        let alike = |chunk: &&Chunk| chunk.group == group.id && chunk.class == purpose.class();
        for chunk in self.map.iter().filter(alike).filter(|_| free.is_none()) {
            let homes =
                chunk.columns.iter().filter_map(|column| places.get(&column.placements.first()?.device));
            let homes: Vec<usize> = homes.copied().collect();
            for &a in &homes {
                homes.iter().for_each(|&b| shared[a * candidates.len() + b] += chunk.column_bytes);
            }
        }
        let chosen = spread::choose(&rank, |a, b| shared[a * candidates.len() + b], width);
        chosen.into_iter().filter_map(|place| candidates.get(place).cloned()).collect()
    }
}
