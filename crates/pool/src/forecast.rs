//! What a change would come to: room, redundancy at each step, and how long it takes, before anything is touched.
//!
//! The change is made to the configuration in memory, the allocator is asked what fits then, and the configuration is put
//! back as it was.

use std::collections::{BTreeMap, BTreeSet};

use device::rng::Rng;

use crate::chunk::{COLUMN_HEADER, Chunk, Class};
use crate::core::{Core, Device, Env, Group, Relation};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::report::{Forecast, ForecastStep, Plan, PoolShape, VdevShape};
use crate::spec::{CreateSpec, GroupKind, GroupSpec, Host, NewDevice};
use crate::types::{DeviceId, GroupId, Guid, Logical};

/// A change to a pool.
#[derive(Debug)]
pub enum Change<'a> {
    /// As [`Pool::add`].
    Add {
        /// The new vdevs.
        groups: &'a [GroupSpec<NewDevice>],
        /// Whatever redundancy they have.
        force: bool,
    },
    /// As [`Pool::remove`].
    Remove {
        /// Devices, or groups by their names.
        names: &'a [String],
    },
    /// As [`Pool::convert`].
    Convert {
        /// The vdev.
        name: &'a str,
        /// What it becomes.
        kind: GroupKind,
        /// Whether or not it protects less then.
        force: bool,
    },
    /// As [`Pool::replace`].
    Replace {
        /// The device to be replaced.
        name: &'a str,
        /// What takes its place.
        new: &'a NewDevice,
    },
    /// As [`Pool::replace_by_spare`].
    ReplaceBySpare {
        /// The device to be replaced.
        name: &'a str,
        /// The spare's name.
        spare: &'a str,
    },
}

/// What a change comes to, with the configuration in memory as it will be then.
struct Pretended {
    plan: Plan,
    steps: Vec<ForecastStep>,
    /// Chunks that will be gone, as what is in them will be in others.
    emptied: BTreeSet<Logical>,
}

/// The configuration in memory, to be put back.
struct Kept {
    groups: BTreeMap<GroupId, Group>,
    devices: BTreeMap<DeviceId, Device>,
    dirty: BTreeSet<DeviceId>,
    numbers: (u32, u32),
    rng: Rng,
}

impl Kept {
    fn of(pool: &Pool) -> Self {
        Self {
            groups: pool.core.groups.clone(),
            devices: pool.core.devices.clone(),
            dirty: pool.core.dirty_devices.clone(),
            numbers: (pool.next_device, pool.next_group),
            rng: pool.core.rng.clone(),
        }
    }

    fn put_back(self, pool: &mut Pool) {
        pool.core.groups = self.groups;
        pool.core.devices = self.devices;
        pool.core.dirty_devices = self.dirty;
        (pool.next_device, pool.next_group) = self.numbers;
        pool.core.rng = self.rng;
        pool.core.space_changed();
    }
}

impl Pool {
    /// What a new pool would be.
    ///
    /// # Errors
    /// As [`Pool::plan_create`].
    pub fn forecast_create(env: &Env, spec: &CreateSpec, host: &Host) -> Result<Forecast> {
        let plan = Self::plan_create(spec)?;
        let mut pool = Self::empty(Core::new(env, spec.name.clone(), Guid(1)), host.clone());
        for group in &spec.groups {
            pool.add_group(group, spec.data, spec.metadata)?;
        }
        Ok(Forecast { plan, now: None, then: pool.shape_without(&BTreeSet::new()), steps: Vec::new() })
    }

    /// What the pool would be after a change, and how it gets there. Nothing is changed.
    ///
    /// # Errors
    /// As the change itself.
    pub fn forecast(&mut self, change: &Change<'_>) -> Result<Forecast> {
        let now = self.shape();
        let kept = Kept::of(self);
        let pretended = self.pretend(change);
        self.core.space_changed();
        let then = pretended.as_ref().ok().map(|pretended| self.shape_without(&pretended.emptied));
        kept.put_back(self);
        let Pretended { plan, steps, .. } = pretended?;
        let then = then.unwrap_or_else(|| now.clone());
        Ok(Forecast { plan, now: Some(now), then, steps })
    }

    fn pretend(&mut self, change: &Change<'_>) -> Result<Pretended> {
        let survives = self.core.survives();
        let mut pretended = Pretended { plan: Plan::default(), steps: Vec::new(), emptied: BTreeSet::new() };
        let mut step = |what: String, bytes, busiest, survives| {
            pretended.steps.push(ForecastStep { what, bytes, busiest, survives });
        };
        match change {
            Change::Add { groups, force } => {
                pretended.plan = self.plan_add(groups, *force)?;
                for group in *groups {
                    self.add_group(group, None, None)?;
                }
                step(
                    "the new devices take a part of what is written from then on".to_owned(),
                    0,
                    0,
                    survives,
                );
            }
            Change::Remove { names } => {
                pretended.plan = self.plan_remove(names)?;
                let mut leaving = self.named_to_leave(names)?;
                leaving.retain(|id| !self.is_idle_spare(*id));
                if !leaving.is_empty() {
                    let on_them = |chunk: &Chunk| leaving.iter().any(|&id| chunk.is_on(id));
                    let emptied = self.addresses_of(on_them);
                    let (bytes, busiest) = self.relocation_of(&emptied, &leaving);
                    step(
                        "relocate what is on them to the other devices".to_owned(),
                        bytes,
                        busiest,
                        survives,
                    );
                    self.empty_chunks(&emptied);
                    for group in self.core.groups.values_mut() {
                        group.devices.retain(|id| !leaving.contains(id));
                    }
                    self.core.groups.retain(|_, group| !group.devices.is_empty());
                    pretended.emptied = emptied;
                }
            }
            Change::Convert { name, kind, force } => {
                pretended.plan = self.plan_convert(name, *kind, *force)?;
                let emptied = self.pretend_kind(name, *kind);
                let (bytes, busiest) = self.relocation_of(&emptied, &BTreeSet::new());
                // New chunks may bear less from the start.
                let survives = survives.min(self.core.survives());
                step("relocate what it has in the old layout".to_owned(), bytes, busiest, survives);
                self.empty_chunks(&emptied);
                pretended.emptied = emptied;
            }
            Change::Replace { name, new } => {
                let id = self.device_named(name)?;
                let size = self.check_new_device(new)?;
                self.check_replace(id)?;
                let Some(old) = self.core.devices.get(&id) else { return Ok(pretended) };
                pretended.plan.steps.push(format!("replace {} by {}", old.path, new.path));
                if old.relation == Relation::Spare {
                    return Ok(pretended);
                }
                let size = if self.property("autoexpand") == "on" { size } else { size.min(old.size) };
                let mut filled = Device::new(id, old.guid, new.path.clone(), size, old.relation);
                filled.handle = Some(new.device.clone());
                let bytes = self.fill(id, filled)?;
                step(format!("resilver onto {}", new.path), bytes, bytes, survives);
            }
            Change::ReplaceBySpare { name, spare } => {
                if let Some(distributed) = self.core.distributed_named(spare) {
                    let id = self.check_replace_by_distributed(name, distributed)?;
                    pretended.plan.steps.push(format!("spare {spare} steps in for {name}"));
                    let (bytes, busiest) = self.relocation_to_children(id, distributed.0);
                    step(format!("resilver onto {spare}, on all children at once"), bytes, busiest, survives);
                    return Ok(pretended);
                }
                let (id, spare) = self.check_replace_by_spare(name, spare)?;
                let Some(device) = self.core.devices.get(&spare).cloned() else { return Ok(pretended) };
                let path = device.path.clone();
                pretended.plan.steps.push(format!("spare {path} steps in for {}", self.path_of(id)));
                let bytes = self.fill(id, device)?;
                step(format!("resilver onto {path}"), bytes, bytes, survives);
            }
        }
        Ok(pretended)
    }

    /// Puts a blank device in the place of another one; the bytes that will be written to it.
    fn fill(&mut self, id: DeviceId, mut new: Device) -> Result<u64> {
        let mut bytes = 0;
        for chunk in self.core.map.iter() {
            let here = chunk.placements().filter(|(_, placement)| placement.device == id).count();
            for _ in 0..here {
                if new.free.allocate(chunk.column_bytes + COLUMN_HEADER, 0).is_none() {
                    return Err(PoolError::refused(format!(
                        "cannot replace {} by {}: a column of {} bytes of chunk {} does not fit on the new device",
                        self.path_of(id),
                        new.path,
                        chunk.column_bytes,
                        chunk.address
                    )));
                }
                bytes += self.live_in_column(chunk);
            }
        }
        if let Some(device) = self.core.devices.get_mut(&id) {
            (device.size, device.free, device.handle) = (new.size, new.free, new.handle);
            (device.offline, device.faulted) = (false, false);
        }
        Ok(bytes)
    }

    /// Bytes of live data or nodes in a column of a chunk.
    fn live_in_column(&self, chunk: &Chunk) -> u64 {
        self.live_in(chunk) / u64::from(chunk.layout.data_units()).max(1)
    }

    fn addresses_of(&self, which: impl Fn(&Chunk) -> bool) -> BTreeSet<Logical> {
        self.core.map.iter().filter(|chunk| which(chunk)).map(|chunk| chunk.address).collect()
    }

    /// Logical bytes to be relocated from chunks, and the bytes that the busiest device reads or writes for it: one that
    /// leaves is read as a whole, the others share reading the rest and writing all of it.
    fn relocation_of(&self, emptied: &BTreeSet<Logical>, leaving: &BTreeSet<DeviceId>) -> (u64, u64) {
        let (mut logical, mut raw) = (0, 0);
        let mut read: BTreeMap<DeviceId, u64> = BTreeMap::new();
        for chunk in self.core.map.iter().filter(|chunk| emptied.contains(&chunk.address)) {
            logical += self.live_in(chunk);
            let column = self.live_in_column(chunk);
            for (_, placement) in chunk.placements() {
                raw += column;
                *read.entry(placement.device).or_default() += column;
            }
        }
        let away: u64 = leaving.iter().filter_map(|id| read.get(id)).sum();
        let members = self.core.devices.values();
        let staying = members
            .filter(|device| matches!(device.relation, Relation::Member(_)) && !leaving.contains(&device.id))
            .count() as u64;
        let shared = (2 * raw - away) / staying.max(1);
        (logical, leaving.iter().filter_map(|id| read.get(id)).copied().max().unwrap_or(0).max(shared))
    }

    /// Bytes to be written for a child of a draid whose columns get places on the others, and what each of these reads and
    /// writes for it.
    fn relocation_to_children(&self, id: DeviceId, group: GroupId) -> (u64, u64) {
        let (mut bytes, mut all) = (0, 0);
        for chunk in self.core.map.iter().filter(|chunk| chunk.group == group && chunk.is_on(id)) {
            let column = self.live_in_column(chunk);
            bytes += column;
            all += column * u64::from(chunk.layout.columns());
        }
        let children = self.core.groups.get(&group).map_or(0, |group| group.devices.len() as u64);
        (bytes, all / children.saturating_sub(1).max(1))
    }

    /// Gives back what chunks have on devices.
    fn empty_chunks(&mut self, emptied: &BTreeSet<Logical>) {
        let core = &mut self.core;
        for chunk in core.map.iter().filter(|chunk| emptied.contains(&chunk.address)) {
            for (_, placement) in chunk.placements() {
                if let Some(device) = core.devices.get_mut(&placement.device) {
                    device.free.insert(placement.offset, chunk.column_bytes + COLUMN_HEADER);
                }
            }
        }
    }

    /// The pool as it is.
    fn shape(&self) -> PoolShape {
        let available = self.available(None);
        self.shape_of(available, |group| self.core.survives_in(group))
    }

    /// The pool as it will be once nothing is in these chunks, and what devices miss was resilvered.
    fn shape_without(&self, emptied: &BTreeSet<Logical>) -> PoolShape {
        let stays = |chunk: &Chunk| !emptied.contains(&chunk.address);
        let data = self.core.map.iter().filter(|chunk| chunk.class == Class::Data && !stays(chunk));
        let moved: u64 = data.map(|chunk| chunk.used).sum();
        let available = self.available_in(None, stays).saturating_sub(moved);
        self.shape_of(available, |group| {
            let usable = |id| self.core.usable(id);
            let chunks = self.core.map.iter().filter(|chunk| chunk.group == group.id && stays(chunk));
            let left = chunks.map(|chunk| {
                let columns = chunk.columns.iter().enumerate();
                let gone = columns.filter(|(_, column)| !column.placements.iter().any(|p| usable(p.device)));
                chunk.layout.redundancy(&gone.map(|(index, _)| index as u16).collect())
            });
            left.chain([Some(group.tolerance())]).min().flatten()
        })
    }

    fn shape_of(&self, available: u64, survives: impl Fn(&Group) -> Option<u16>) -> PoolShape {
        let groups = self.core.groups.values().filter(|group| group.kind != GroupKind::Spare);
        let vdevs: Vec<VdevShape> = groups
            .map(|group| VdevShape {
                name: group.name(),
                devices: group.devices.len() as u64,
                survives: survives(group),
            })
            .collect();
        let data = self.core.map.iter().filter(|chunk| chunk.class == Class::Data);
        PoolShape {
            used: data.map(|chunk| chunk.used).sum(),
            available,
            survives: vdevs.iter().map(|vdev| vdev.survives).min().flatten(),
            vdevs,
        }
    }
}

impl Core {
    /// Further failures that everything in the pool survives, whichever devices they are; `None` if something is lost.
    fn survives(&self) -> Option<u16> {
        let groups = self.groups.values().filter(|group| group.kind != GroupKind::Spare);
        groups.map(|group| self.survives_in(group)).min().flatten()
    }

    /// As [`Core::survives`], of a group.
    fn survives_in(&self, group: &Group) -> Option<u16> {
        let chunks = self.map.iter().filter(|chunk| chunk.group == group.id);
        let left = chunks.map(|chunk| self.worst_redundancy(chunk, &[]));
        left.chain([Some(group.tolerance())]).min().flatten()
    }
}
