//! What would be lost if devices failed now: `coffer whatif`.
//!
//! - this file: the pool's chunks as they are now, and the names of what would be lost
//! - `exposure`: the counting
//!
//! How much is lost, and which sets of devices are the worst, comes from the chunk map alone. Whose it is, is found in
//! the trees of volumes and snapshots, each of which is read up to its first block that would be lost.

mod exposure;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use tree::Key;

use crate::chunk::{Chunk, Class, Stale};
use crate::core::Device;
use crate::dataset::DEAD_EXTENT;
use crate::error::{PoolError, Result};
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::report::{AnyReport, LossReport, WhatIfReport};
use crate::types::{DatasetId, DeviceId, Logical};
use exposure::{Exposure, Loss, Stakes};

/// Sets of devices that are named.
const WORST_MAX: usize = 5;

/// Blocks that are looked at to find out whose data would be lost.
const BLOCKS_MAX: usize = 4_000_000;

/// The most devices at once that are tried when nothing is said.
const ANY_MAX: usize = 4;

impl Pool {
    /// What would be lost if the devices that are named failed now, beside those that are away, and which `any` devices
    /// would take most along. When neither is asked for: the fewest that would lose anything.
    ///
    /// # Errors
    /// A name is not known, or stands for several devices; `any` is 0 or more than there are.
    pub fn what_if(&mut self, failed: &[String], any: Option<usize>) -> Result<WhatIfReport> {
        let devices: Vec<DeviceId> =
            self.core.devices.keys().copied().filter(|&id| self.core.usable(id)).collect();
        let away = self.core.devices.values().filter(|device| !device.usable()).map(Device::name).collect();
        let exposure = self.exposure(&devices);
        let mut report = WhatIfReport {
            devices: devices.len() as u64,
            away,
            now: self.told(&devices, &[], exposure.loss(&[])),
            failed: None,
            any: Vec::new(),
        };
        if !failed.is_empty() {
            let named: BTreeSet<DeviceId> =
                failed.iter().map(|name| self.device_named(name)).collect::<Result<_>>()?;
            let set: Vec<usize> =
                (0..devices.len()).filter(|&index| named.contains(&devices[index])).collect();
            report.failed = Some(self.told_by_name(&devices, &set, exposure.loss(&set)));
        }
        let counts: Vec<usize> = match any {
            Some(count) if count == 0 || count > devices.len() => {
                return Err(PoolError::refused(format!(
                    "{count} of {} devices can't fail: name a number from 1 to {}",
                    devices.len(),
                    devices.len()
                )));
            }
            Some(count) => vec![count],
            None if failed.is_empty() => (1..=ANY_MAX.min(devices.len())).collect(),
            None => Vec::new(),
        };
        for count in counts {
            let found = exposure.worst(count, WORST_MAX);
            let mut worst: Vec<LossReport> =
                found.worst.iter().map(|(set, loss)| self.told(&devices, set, *loss)).collect();
            if let Some((set, loss)) = found.worst.first() {
                worst[0] = self.told_by_name(&devices, set, *loss);
            }
            let ends = !worst.is_empty();
            report.any.push(AnyReport {
                count: count as u64,
                sets: u64::try_from(found.sets).unwrap_or(u64::MAX),
                fatal: found.fatal.map(|fatal| u64::try_from(fatal).unwrap_or(u64::MAX)),
                exact: found.exact,
                worst,
            });
            if ends {
                break;
            }
        }
        Ok(report)
    }

    /// The chunks by how they lie on these devices.
    fn exposure(&self, devices: &[DeviceId]) -> Exposure {
        let numbers: BTreeMap<DeviceId, usize> =
            devices.iter().enumerate().map(|(index, &id)| (id, index)).collect();
        let mut exposure = Exposure::new(devices.len());
        for chunk in self.core.map.iter() {
            let live = self.live_in(chunk);
            if live == 0 {
                continue;
            }
            let mut stale = Stale::NONE;
            for (_, placement) in chunk.placements() {
                placement.stale.iter().for_each(|region| stale.insert(region));
            }
            let regions = chunk.regions();
            let odd: Vec<u32> = stale.iter().filter(|&region| region < regions).collect();
            let fresh = (0..regions).find(|&region| !stale.contains(region));
            // Regions that are fresh everywhere lie alike.
            let weights = odd.iter().map(|&region| (region, 1));
            for (region, weight) in weights.chain(fresh.map(|region| (region, regions - odd.len() as u32))) {
                let part = (u128::from(live) * u128::from(weight)).div_ceil(u128::from(regions)) as u64;
                let columns = chunk.columns.iter().map(|column| {
                    let there = column.placements.iter().filter(|place| !place.stale.contains(region));
                    there.filter_map(|place| numbers.get(&place.device).copied()).collect()
                });
                exposure.add(chunk.layout, columns.collect(), stakes_of(chunk, part));
            }
        }
        exposure
    }

    fn told(&self, devices: &[DeviceId], set: &[usize], loss: Loss) -> LossReport {
        let name =
            |&index: &usize| self.core.devices.get(&devices[index]).map(Device::name).unwrap_or_default();
        LossReport {
            devices: set.iter().map(name).collect(),
            data: loss.lost.data,
            metadata: loss.lost.metadata,
            bare: loss.bare.data + loss.bare.metadata,
            datasets: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// With the names of what is lost.
    fn told_by_name(&mut self, devices: &[DeviceId], set: &[usize], loss: Loss) -> LossReport {
        let mut report = self.told(devices, set, loss);
        let without: Vec<DeviceId> = set.iter().map(|&index| devices[index]).collect();
        self.name_lost(&without, &mut report);
        report
    }

    /// Adds the volumes and snapshots that would lose data without these devices.
    fn name_lost(&mut self, without: &[DeviceId], report: &mut LossReport) {
        if report.data == 0 && report.metadata == 0 {
            return;
        }
        let is_lost = |chunk: &&Chunk| self.core.worst_redundancy(chunk, without).is_none();
        let lost: BTreeSet<Logical> =
            self.core.map.iter().filter(is_lost).map(|chunk| chunk.address).collect();
        let mut named: Vec<(DatasetId, String)> = self
            .datasets
            .values()
            .filter(|dataset| !dataset.destroying)
            .map(|dataset| (dataset.id, format!("{}/{}", self.core.name, dataset.name)))
            .collect();
        named.sort_by(|a, b| a.1.cmp(&b.1));
        if report.metadata > 0 {
            // What can't be found any more is as good as lost.
            report.datasets = named.into_iter().map(|(_, name)| name).collect();
            if self.kept_checkpoint().is_some() {
                report.datasets.push(format!("{} (checkpoint)", self.core.name));
            }
            return;
        }
        let (map, remaps) = (self.core.map.clone(), self.core.remaps.clone());
        let mut looked = 0;
        for (id, name) in named {
            let Some(dataset) = self.datasets.get(&id) else { continue };
            let mut hit = false;
            let outcome = dataset.tree.scan(&mut self.core, Key::MIN, Key::MAX, |_, value| {
                looked += 1;
                let place = remaps.place_of(BlockPtr::decode(value)?.address);
                hit = map.at(place).is_some_and(|chunk| lost.contains(&chunk.address));
                let enough = hit || looked > BLOCKS_MAX;
                Ok::<_, PoolError>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            if hit {
                report.datasets.push(name);
            } else if looked > BLOCKS_MAX || outcome.is_err() {
                report.unknown.push(name);
            }
        }
        // What it shares with volumes and snapshots is named by those.
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.is_kept()) else {
            return;
        };
        let (mut hit, name) = (false, format!("{} (checkpoint)", self.core.name));
        let outcome = checkpoint.held.scan(&mut self.core, Key::MIN, Key::MAX, |key, _| {
            looked += 1;
            let at = map.at(remaps.place_of(Logical(key.offset)));
            hit = key.kind == DEAD_EXTENT && at.is_some_and(|chunk| lost.contains(&chunk.address));
            let enough = hit || looked > BLOCKS_MAX;
            Ok::<_, PoolError>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        if hit {
            report.datasets.push(name);
        } else if looked > BLOCKS_MAX || outcome.is_err() {
            report.unknown.push(name);
        }
    }
}

#[cfg(feature = "measure")]
impl Pool {
    /// Makes full data chunks in the chunk map, and nowhere else, until a device has no room for another column. `choose` says
    /// which of so many children of a vdev each chunk of so many columns takes. How many there are.
    ///
    /// For measurements of what goes by the map alone: nothing can be committed afterwards.
    pub fn pretend_full(&mut self, mut choose: impl FnMut(usize, usize) -> Vec<usize>) -> usize {
        use crate::alloc::Purpose;
        for group in self.core.groups.keys().copied().collect::<Vec<_>>() {
            let Some(mut plan) = self.core.plan_chunk(group, Purpose::Data, None) else { continue };
            let children =
                self.core.groups.get(&group).map(|group| group.devices.clone()).unwrap_or_default();
            loop {
                let chosen = choose(children.len(), plan.columns.len());
                plan.columns = chosen.iter().filter_map(|&child| Some(vec![*children.get(child)?])).collect();
                let Ok(address) = self.core.make_planned(group, Purpose::Data, &plan) else { break };
                if let Some(chunk) = self.core.map.change(address) {
                    chunk.used = chunk.length();
                }
            }
        }
        self.core.map.iter().count()
    }
}

fn stakes_of(chunk: &Chunk, bytes: u64) -> Stakes {
    match chunk.class {
        Class::Data => Stakes { data: bytes, ..Stakes::default() },
        Class::Metadata | Class::System => Stakes { metadata: bytes, ..Stakes::default() },
    }
}
