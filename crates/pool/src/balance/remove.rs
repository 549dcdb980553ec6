//! Devices that leave the pool: what is on them is relocated to the others, like the chunks that a balance takes.
//!
//! A device that leaves gets nothing new. When nothing that an importable root knows is on it any more, it is forgotten
//! and its labels are cleared. Until then it is a device like any other, and the removal can be given up.

use std::collections::{BTreeMap, BTreeSet};

use super::Balance;
use crate::alloc::Purpose;
use crate::chunk::{Chunk, Class};
use crate::core::Relation;
use crate::error::{PoolError, Result};
use crate::label;
use crate::pool::Pool;
use crate::report::{Plan, ScanState};
use crate::spec::{GroupKind, Task};
use crate::txg::ROOTS_KEPT;
use crate::types::{DeviceId, GroupId};

impl Pool {
    /// What [`Pool::remove`] would do.
    ///
    /// # Errors
    /// As there.
    pub fn plan_remove(&mut self, names: &[String]) -> Result<Plan> {
        let leaving = self.named_to_leave(names)?;
        let plan = self.plan_leaving(&leaving)?;
        self.set_leaving(&leaving, false);
        Ok(plan)
    }

    /// Removes spares that are not in use at once; begins to remove other devices, or groups by their names, by
    /// relocating what is on them.
    ///
    /// # Errors
    /// A device is not there or in use otherwise, the others are too few for a profile or have too little room, or a
    /// balance is under way.
    pub fn remove(&mut self, names: &[String]) -> Result<Plan> {
        self.writable()?;
        self.commit()?;
        let all = self.named_to_leave(names)?;
        let plan = self.plan_leaving(&all)?;
        let (spares, leaving): (BTreeSet<DeviceId>, BTreeSet<DeviceId>) =
            all.iter().copied().partition(|id| self.is_idle_spare(*id));
        self.forget_devices(&spares)?;
        if !leaving.is_empty() {
            self.core.dirty_devices.extend(leaving.iter().copied());
            self.core.current_data.clear();
            self.core.current_nodes.clear();
            let on_them = |chunk: &&Chunk| leaving.iter().any(|&id| chunk.is_on(id));
            let total = self.core.map.iter().filter(on_them).map(|chunk| self.live_in(chunk)).sum();
            self.begin_task(Task::Remove(leaving.iter().map(|id| id.0).collect()), total)?;
        }
        Ok(plan)
    }

    /// The devices that go by these names, each a device's or a group's.
    pub(crate) fn named_to_leave(&self, names: &[String]) -> Result<BTreeSet<DeviceId>> {
        let mut found = BTreeSet::new();
        for name in names {
            let group = self.core.groups.values().find(|group| {
                !matches!(group.kind, GroupKind::Plain | GroupKind::Spare) && group.name() == *name
            });
            match group {
                Some(group) => found.extend(group.devices.iter().copied()),
                None if self.core.distributed_named(name).is_some() => {
                    return Err(PoolError::refused(format!(
                        "{name} is a distributed spare, a part of its vdev: it can't be removed"
                    )));
                }
                None => {
                    found.insert(self.device_named(name)?);
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn is_idle_spare(&self, id: DeviceId) -> bool {
        self.core.devices.get(&id).is_some_and(|device| device.relation == Relation::Spare)
    }

    /// Marks devices as leaving, or as staying after all.
    fn set_leaving(&mut self, devices: &BTreeSet<DeviceId>, leaving: bool) {
        for id in devices {
            if let Some(device) = self.core.devices.get_mut(id) {
                device.leaving = leaving;
            }
        }
        self.core.space_changed();
        self.room_bytes = 0;
    }

    /// Marks devices as leaving if they can; what that comes to. A refusal leaves every mark as it was.
    fn plan_leaving(&mut self, all: &BTreeSet<DeviceId>) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut going: BTreeMap<GroupId, usize> = BTreeMap::new();
        let mut leaving = BTreeSet::new();
        for &id in all {
            let Some(device) = self.core.devices.get(&id) else { continue };
            let path = &device.path;
            plan.steps.push(format!("remove {path}"));
            match device.relation {
                Relation::Spare => continue,
                Relation::For(..) => {
                    return Err(PoolError::refused(format!(
                        "{path} is a spare in use or a replacement; 'coffer detach' ends that"
                    )));
                }
                Relation::Member(_) if !self.core.stand_ins(id).is_empty() => {
                    return Err(PoolError::refused(format!(
                        "cannot remove {path}: another device is taking its place; 'coffer detach {path}' ends that"
                    )));
                }
                Relation::Member(group) => *going.entry(group).or_default() += 1,
            }
            leaving.insert(id);
        }
        if leaving.is_empty() {
            return Ok(plan);
        }
        self.check_no_task()?;
        self.check_what_stays(&going)?;
        self.set_leaving(&leaving, true);
        let on_them = |chunk: &Chunk| leaving.iter().any(|&id| chunk.is_on(id));
        let moved = self.check_room(on_them).inspect_err(|_| self.set_leaving(&leaving, false))?;
        plan.steps.push(format!("relocate {moved} bytes to the other devices first"));
        Ok(plan)
    }

    /// Refuses to relocate more than there is room for; the bytes that live in the chunks that are `taken`.
    pub(super) fn check_room(&mut self, taken: impl Fn(&Chunk) -> bool) -> Result<u64> {
        let (to_move, staying): (Vec<&Chunk>, Vec<&Chunk>) =
            self.core.map.iter().partition(|chunk| taken(chunk));
        let moved: u64 = to_move.iter().map(|chunk| self.live_in(chunk)).sum();
        let inside: u64 = staying
            .iter()
            .filter(|chunk| chunk.class == Class::Data && !chunk.closed)
            .map(|chunk| chunk.length() - chunk.used.min(chunk.length()))
            .sum();
        let groups: Vec<GroupId> = self.core.groups.keys().copied().collect();
        let outside: u64 = groups.iter().map(|&group| self.core.potential(group, Purpose::Data)).sum();
        if moved > inside + outside {
            return Err(PoolError::refused(format!(
                "there is room for {} bytes elsewhere and {moved} are to be relocated: {} bytes are missing; add a device, or \
                 destroy something",
                inside + outside,
                moved - inside - outside
            )));
        }
        Ok(moved)
    }

    /// Whether what is left of the groups, of which so many devices go, can be.
    fn check_what_stays(&self, going: &BTreeMap<GroupId, usize>) -> Result<()> {
        let mut stays = false;
        for group in self.core.groups.values() {
            let rest = group.devices.len() - going.get(&group.id).copied().unwrap_or(0);
            stays |= rest > 0 && group.kind != GroupKind::Spare;
            if rest == 0 || !going.contains_key(&group.id) {
                continue;
            }
            match group.kind {
                GroupKind::Plain => {
                    crate::create::check_profiles(Some(group.data), Some(group.metadata), rest)?;
                }
                GroupKind::Raidz(_) | GroupKind::Draid(_) if rest < group.kind.min_devices() => {
                    return Err(PoolError::refused(format!(
                        "{} needs {} devices at least, and would have {rest}",
                        group.name(),
                        group.kind.min_devices()
                    )));
                }
                GroupKind::Mirror => {
                    return Err(PoolError::refused(format!(
                        "one side of {0} is taken away by 'coffer detach'; 'coffer remove POOL {0}' removes all of it",
                        group.name()
                    )));
                }
                GroupKind::Raidz(_) | GroupKind::Draid(_) | GroupKind::Spare => {}
            }
        }
        if stays {
            Ok(())
        } else {
            Err(PoolError::refused("these are all devices of the pool: 'coffer destroy' destroys it"))
        }
    }

    /// Everything that could be was relocated: lets the devices go as soon as no importable root knows anything on them.
    pub(super) fn let_go(&mut self, balance: &mut Balance, leaving: &BTreeSet<DeviceId>) -> Result<()> {
        let is_in_use =
            |pool: &Self| pool.core.map.iter().any(|chunk| leaving.iter().any(|&id| chunk.is_on(id)));
        self.forget_roots_of(is_in_use)?;
        if is_in_use(self) {
            self.keep_devices(&balance.task);
            let errors = balance.errors;
            let trouble = format!(
                "{errors} extents or nodes can't be read and stay where they are; destroy what they belong to, or \
                 replace the device instead"
            );
            self.end_balance(balance, ScanState::Canceled, &trouble);
            return Ok(());
        }
        self.end_balance(balance, ScanState::Finished, "");
        self.balance = Some(balance.clone());
        self.forget_devices(leaving)
    }

    /// Commits until something is not in use any more, which may take until older roots are gone, and until no root knows the
    /// empty chunks there, which it would miss. Gives up where it stays in use.
    pub(super) fn forget_roots_of(&mut self, in_use: impl Fn(&Self) -> bool) -> Result<()> {
        let mut waits = ROOTS_KEPT + 2;
        while in_use(self) {
            if waits == 0 {
                return Ok(());
            }
            waits -= 1;
            self.changed = true;
            self.commit()?;
        }
        for _ in 1..ROOTS_KEPT {
            self.changed = true;
            self.commit()?;
        }
        Ok(())
    }

    /// The devices of a removal or resize that was given up are like others again.
    pub(super) fn keep_devices(&mut self, task: &Task) {
        match task {
            Task::Remove(devices) => {
                let staying = devices.iter().copied().map(DeviceId).collect();
                self.set_leaving(&staying, false);
                self.core.dirty_devices.extend(staying);
            }
            Task::Resize { device, .. } => self.lift_limit(DeviceId(*device)),
            Task::Balance(_) | Task::Convert(_) => {}
        }
    }

    /// Forgets devices that nothing is on, and groups that are empty without them.
    fn forget_devices(&mut self, devices: &BTreeSet<DeviceId>) -> Result<()> {
        if devices.is_empty() {
            return Ok(());
        }
        let now = self.core.now();
        let mut gone = Vec::new();
        for id in devices {
            for stand_in in self.core.stand_ins(*id) {
                self.make_idle(stand_in);
            }
            self.release_distributed(*id)?;
            let Some(device) = self.core.devices.remove(id) else { continue };
            self.core.events.push(now, "remove", Some(&device.path), "removed from the pool".to_owned());
            gone.push(device);
        }
        self.core.dirty_devices.extend(devices.iter().copied());
        for group in self.core.groups.values_mut() {
            group.devices.retain(|id| !devices.contains(id));
        }
        self.core.groups.retain(|_, group| !group.devices.is_empty() || group.kind == GroupKind::Spare);
        self.core.space_changed();
        self.write_config()?;
        self.commit()?;
        for device in gone {
            if let Some(handle) = &device.handle {
                // It belongs to the pool no more, whether or not it can be told so.
                let _ = label::clear(&**handle);
            }
        }
        Ok(())
    }
}
