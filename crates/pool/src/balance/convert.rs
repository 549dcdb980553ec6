//! Groups that become another kind: mirror to raidz, raidz1 to raidz2, and back.
//!
//! From the commit in which a group's kind changes, its new chunks have the layout of the new one. What is in chunks of the
//! former layout is relocated like the chunks that a balance takes. Until a chunk is, it survives what it survived before.
//! A conversion that is given up, or finds no room, leaves a group with chunks of both kinds; another one goes on with it.

use std::collections::BTreeSet;

use crate::alloc::Purpose;
use crate::chunk::{COLUMN_HEADER, Chunk, Class};
use crate::core::Group;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::report::Plan;
use crate::spec::{GroupKind, Task};
use crate::types::{GroupId, Logical};

impl Pool {
    /// What [`Pool::convert`] would do.
    ///
    /// # Errors
    /// As there.
    pub fn plan_convert(&mut self, name: &str, kind: GroupKind, force: bool) -> Result<Plan> {
        let (id, former) = self.check_convert(name, kind, force)?;
        self.set_kind(id, kind);
        let plan = self.plan_conversion(id, former);
        self.set_kind(id, former);
        plan.map(|(plan, _)| plan)
    }

    /// Makes a group another kind, and begins to relocate what it has in the layout of its former one. Of the kind that it
    /// has, it goes on with a conversion that was given up.
    ///
    /// # Errors
    /// There is no such group, it has too few devices for the kind or not enough room, it would protect less and `force`
    /// is not set, or another task is under way.
    pub fn convert(&mut self, name: &str, kind: GroupKind, force: bool) -> Result<Plan> {
        self.writable()?;
        self.commit()?;
        let (id, former) = self.check_convert(name, kind, force)?;
        self.set_kind(id, kind);
        let (plan, total) = match self.plan_conversion(id, former) {
            Ok(planned) => planned,
            Err(error) => {
                self.set_kind(id, former);
                return Err(error);
            }
        };
        self.core.current_data.clear();
        self.core.current_nodes.clear();
        self.write_config()?;
        self.begin_task(Task::Convert(id.0), total)?;
        Ok(plan)
    }

    /// The group of that name and the kind that it has.
    fn check_convert(&self, name: &str, kind: GroupKind, force: bool) -> Result<(GroupId, GroupKind)> {
        self.check_no_task()?;
        let groups = || self.core.groups.values().filter(|group| is_converted(group.kind));
        let Some(group) = groups().find(|group| group.name() == name) else {
            let names: Vec<String> = groups().map(Group::name).collect();
            return Err(PoolError::refused(if names.is_empty() {
                "the pool has no mirror or raidz: 'coffer balance start' converts the profiles of plain disks"
                    .to_owned()
            } else {
                format!("there is no vdev '{name}' that can be converted: there is {}", names.join(", "))
            }));
        };
        if !matches!(kind, GroupKind::Mirror | GroupKind::Raidz(1..=3)) {
            return Err(PoolError::refused("a vdev is converted to mirror, raidz1, raidz2 or raidz3"));
        }
        let least = kind.min_devices();
        let target = Group { kind, ..group.clone() };
        if group.devices.len() < least {
            return Err(PoolError::refused(format!(
                "{} needs at least {least} devices, and {name} has {}",
                target.kind.describe(group.devices.len()),
                group.devices.len()
            )));
        }
        if kind == group.kind && !self.left_over().contains(&group.id) {
            return Err(PoolError::refused(format!(
                "{name} is that already, and has nothing of another layout"
            )));
        }
        if let Some(&member) = group.devices.iter().find(|&&member| !self.core.stand_ins(member).is_empty()) {
            return Err(PoolError::refused(format!(
                "cannot convert {name}: another device is taking the place of {}; let that end first",
                self.path_of(member)
            )));
        }
        let away = group.devices.iter().filter(|&&member| !self.core.usable(member)).count();
        if away > usize::from(target.tolerance()) {
            return Err(PoolError::refused(format!(
                "cannot convert {name}: {away} of its devices are away, and {} survives the loss of {}; bring them back or \
                 replace them first",
                target.kind.describe(group.devices.len()),
                target.tolerance()
            )));
        }
        if target.tolerance() < group.tolerance() && !force {
            return Err(PoolError::refused(format!(
                "converting {name} to {} reduces integrity from {} failed devices to {}; use '-f' to do it all the same",
                target.kind.describe(group.devices.len()),
                group.tolerance(),
                target.tolerance()
            )));
        }
        Ok((group.id, group.kind))
    }

    /// Gives a group another kind in memory; its chunks that have another layout then.
    pub(crate) fn pretend_kind(&mut self, name: &str, kind: GroupKind) -> BTreeSet<Logical> {
        let group = self.core.groups.values().find(|group| group.name() == name).map(|group| group.id);
        if let Some(id) = group {
            self.set_kind(id, kind);
        }
        let of_another = |chunk: &&Chunk| Some(chunk.group) == group && self.core.is_to_be_converted(chunk);
        self.core.map.iter().filter(of_another).map(|chunk| chunk.address).collect()
    }

    /// Groups that have something in a layout that they give no chunk any more.
    pub(crate) fn left_over(&self) -> BTreeSet<GroupId> {
        let is_left = |chunk: &&Chunk| self.core.is_of_former_layout(chunk) && self.live_in(chunk) > 0;
        self.core.map.iter().filter(is_left).map(|chunk| chunk.group).collect()
    }

    fn set_kind(&mut self, id: GroupId, kind: GroupKind) {
        if let Some(group) = self.core.groups.get_mut(&id) {
            group.kind = kind;
        }
        self.core.space_changed();
        self.room_bytes = 0;
    }

    /// What the conversion comes to of a group that has its new kind in memory, and the bytes that it relocates.
    fn plan_conversion(&mut self, id: GroupId, former: GroupKind) -> Result<(Plan, u64)> {
        let Some(group) = self.core.groups.get(&id).cloned() else { return Ok((Plan::default(), 0)) };
        let taken = |chunk: &Chunk| chunk.group == id && self.core.is_to_be_converted(chunk);
        let total: u64 =
            self.core.map.iter().filter(|chunk| taken(chunk)).map(|chunk| self.live_in(chunk)).sum();
        let data = |chunk: &&Chunk| chunk.group == id && chunk.class == Class::Data;
        let used: u64 = self.core.map.iter().filter(data).map(|chunk| chunk.used).sum();
        let (own, nodes) = self.room_as(id);
        let others = self.core.groups.keys().filter(|&&other| other != id);
        let elsewhere: u64 = others.map(|&other| self.core.potential(other, Purpose::Data)).sum();
        let (used, room) = (used + nodes, own + elsewhere);
        if used > room {
            return Err(PoolError::refused(format!(
                "as {} there is room for about {room} bytes, and {used} are on it: {} bytes are missing; add a device, or \
                 destroy something",
                group.name(),
                used - room
            )));
        }
        let devices = group.devices.len();
        let before = Group { kind: former, ..group.clone() };
        let mut plan = Plan::default();
        plan.steps.push(format!("{} becomes {}", before.name(), group.name()));
        plan.steps.push(format!(
            "relocate {total} bytes from {} to {}: until all is, it survives {} failed devices; then {}",
            former.describe(devices),
            group.kind.describe(devices),
            group.tolerance().min(before.tolerance()),
            group.tolerance()
        ));
        Ok((plan, total))
    }

    /// Bytes of data that the group could hold, were nothing on it but its nodes; and bytes of nodes for which it has no room.
    fn room_as(&self, id: GroupId) -> (u64, u64) {
        let mut free = self.core.free_of(id);
        for chunk in self.core.map.iter().filter(|chunk| chunk.group == id) {
            for (_, placement) in chunk.placements() {
                if let Some(runs) = free.get_mut(&placement.device) {
                    runs.insert(placement.offset, chunk.column_bytes + COLUMN_HEADER);
                }
            }
        }
        let mut homeless = 0;
        for class in [Class::System, Class::Metadata] {
            let of_class = |chunk: &&Chunk| chunk.group == id && chunk.class == class;
            let mut nodes: u64 = self.core.map.iter().filter(of_class).map(|chunk| self.live_in(chunk)).sum();
            while nodes > 0
                && let Some(plan) = self.core.play(id, Purpose::of_nodes(class), &mut free)
            {
                nodes = nodes.saturating_sub(plan.capacity());
            }
            homeless += nodes;
        }
        let chunks = std::iter::from_fn(|| self.core.play(id, Purpose::Data, &mut free));
        (chunks.map(|plan| plan.capacity()).sum(), homeless)
    }
}

fn is_converted(kind: GroupKind) -> bool {
    matches!(kind, GroupKind::Mirror | GroupKind::Raidz(_))
}
