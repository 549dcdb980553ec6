//! What administrators do to devices: add, attach, detach, replace, offline, online, clear, remove.
//!
//! Each is one transaction: it is checked completely, changed in memory, and committed.

use device::DeviceErrorKind;
use geometry::{Kind, Layout, Profile};

use crate::chunk::{COLUMNS_MAX, Chunk, Column, Stale};
use crate::core::{Group, Relation, StandIn};
use crate::create::{POOL_DEVICES_MAX, check_groups};
use crate::draid::CHILDREN_MAX;
use crate::error::{PoolError, Result};
use crate::label::{self, DEVICE_BYTES_MIN};
use crate::pool::Pool;
use crate::report::{Counters, Plan, State};
use crate::spec::{GroupKind, GroupSpec, NewDevice};
use crate::types::{DeviceId, GroupId, Logical, Txg};

/// How to replace a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplaceOptions {
    /// Read the source only for what has no other copy (`-r`).
    pub read_source_last: bool,
}

impl Pool {
    /// The device of this name.
    pub(crate) fn device_named(&self, name: &str) -> Result<DeviceId> {
        let found: Vec<DeviceId> = self
            .core
            .devices
            .values()
            .filter(|device| device.is_called(name))
            .map(|device| device.id)
            .collect();
        match found[..] {
            [id] => Ok(id),
            [] => Err(PoolError::NotFound { kind: "device in pool", name: name.to_owned() }),
            _ => Err(PoolError::refused(format!(
                "'{name}' could be several devices of the pool; name it by full path or guid"
            ))),
        }
    }

    pub(crate) fn path_of(&self, id: DeviceId) -> String {
        self.core.devices.get(&id).map(|device| device.path.clone()).unwrap_or_default()
    }

    /// What `add` would do.
    ///
    /// # Errors
    /// As [`Pool::add`].
    pub fn plan_add(&self, groups: &[GroupSpec<NewDevice>], force: bool) -> Result<Plan> {
        let known: Vec<_> =
            self.core.devices.values().filter_map(|device| device.handle.as_deref()).collect();
        let plan = check_groups(groups, &known)?;
        let own = self.core.groups.values().filter(|group| group.kind != GroupKind::Spare);
        let own: Vec<String> = own.map(|group| group.kind.describe(group.devices.len())).collect();
        let data = groups.iter().filter(|group| group.kind != GroupKind::Spare);
        for new in data.map(|group| group.kind.describe(group.devices.len())) {
            if !force
                && !own.contains(&new)
                && let Some(known) = own.first()
            {
                return Err(PoolError::refused(format!(
                    "mismatched replication level: {known} and {new} vdevs in one pool; use '-f' to override"
                )));
            }
        }
        Ok(plan)
    }

    /// Adds top-level vdevs or spares; new data is spread over them at once.
    ///
    /// # Errors
    /// Unfit devices, or (without `force`) vdevs unlike all that the pool has.
    pub fn add(&mut self, groups: &[GroupSpec<NewDevice>], force: bool) -> Result<Plan> {
        self.writable()?;
        let plan = self.plan_add(groups, force)?;
        self.commit()?;
        for group in groups {
            for new in &group.devices {
                label::make_blank(new)?;
            }
        }
        for group in groups {
            self.add_group(group, None, None)?;
        }
        self.write_config()?;
        self.commit()?;
        Ok(plan)
    }

    pub(crate) fn check_new_device(&self, new: &NewDevice) -> Result<u64> {
        let size = new.device.size()?;
        if size < DEVICE_BYTES_MIN {
            return Err(PoolError::refused(format!(
                "{} is too small: it has {size} bytes, the least is {DEVICE_BYTES_MIN} (64 MiB)",
                new.path
            )));
        }
        let same = |handle: &dyn device::BlockDevice| std::ptr::addr_eq(handle, &raw const *new.device);
        if self.core.devices.values().any(|known| known.handle.as_deref().is_some_and(same)) {
            return Err(PoolError::refused(format!("{} is part of the pool already", new.path)));
        }
        Ok(size)
    }

    /// Gives a mirror (or a single disk, which becomes one) another side; a raidz or draid, named itself or by a device of it,
    /// another device, over which its new chunks are spread.
    ///
    /// # Errors
    /// The device is one of several plain disks, or the new one can't hold its columns.
    pub fn attach(&mut self, name: &str, new: &NewDevice) -> Result<Plan> {
        self.writable()?;
        let is_raidz = |group: &&Group| matches!(group.kind, GroupKind::Raidz(_) | GroupKind::Draid(_));
        let raidz = self.core.groups.values().filter(is_raidz).find(|group| group.name() == name);
        let id = match raidz.and_then(|group| group.devices.first()) {
            Some(&member) => member,
            None => self.device_named(name)?,
        };
        self.check_new_device(new)?;
        let Some(&Relation::Member(group_id)) = self.core.devices.get(&id).map(|device| &device.relation)
        else {
            return Err(PoolError::refused(format!(
                "{name} is a spare or being replaced: nothing can be attached to it"
            )));
        };
        let Some(group) = self.core.groups.get(&group_id).cloned() else { return Ok(Plan::default()) };
        let most = if group.kind.draid().is_some() { CHILDREN_MAX } else { COLUMNS_MAX };
        if group.devices.len() >= most {
            return Err(PoolError::refused(format!(
                "{} has {} devices; {most} is the most for one vdev",
                group.name(),
                group.devices.len()
            )));
        }
        if self.core.devices.len() >= POOL_DEVICES_MAX {
            return Err(PoolError::refused(format!("a pool has at most {POOL_DEVICES_MAX} devices")));
        }
        match group.kind {
            GroupKind::Mirror => {}
            GroupKind::Plain if group.devices.len() == 1 => {}
            GroupKind::Plain => {
                return Err(PoolError::refused(
                    "plain disks get their redundancy from the profile of each class; a disk can be attached only to a mirror or to \
                     a pool's only plain disk",
                ));
            }
            GroupKind::Raidz(_) | GroupKind::Draid(_) => return self.attach_to_raidz(&group, new),
            GroupKind::Spare => {
                return Err(PoolError::refused(format!("{name} is a spare: nothing can be attached to it")));
            }
        }
        self.commit()?;
        // Check the room before anything is written: a device made of the new one's size tells.
        let new_id = self.add_device(new, Relation::Member(group_id))?;
        let widened = self.widen(group_id, id, new_id);
        if let Err(error) = widened {
            self.core.devices.remove(&new_id);
            self.core.dirty_devices.remove(&new_id);
            return Err(error);
        }
        label::make_blank(new)?;
        if let Some(group) = self.core.groups.get_mut(&group_id) {
            group.kind = GroupKind::Mirror;
            let at = group
                .devices
                .iter()
                .position(|&member| member == id)
                .map_or(group.devices.len(), |at| at + 1);
            group.devices.insert(at, new_id);
        }
        self.write_config()?;
        self.commit()?;
        Ok(Plan {
            steps: vec![format!("attach {} to {}", new.path, self.path_of(id))],
            notices: vec!["the new device is being resilvered".to_owned()],
        })
    }

    fn attach_to_raidz(&mut self, group: &Group, new: &NewDevice) -> Result<Plan> {
        self.commit()?;
        label::make_blank(new)?;
        let id = self.add_device(new, Relation::Member(group.id))?;
        if let Some(group) = self.core.groups.get_mut(&group.id) {
            group.devices.push(id);
        }
        self.core.current_data.clear();
        self.write_config()?;
        self.commit()?;
        Ok(Plan {
            steps: vec![format!("attach {} to {}", new.path, group.name())],
            notices: vec![
                "what is written from now on is spread over all devices; 'coffer balance start -d' spreads what is there already"
                    .to_owned(),
            ],
        })
    }

    /// Gives every chunk of a mirror another, stale column; `dup` chunks of a single disk move one of theirs.
    fn widen(&mut self, group: GroupId, of: DeviceId, by: DeviceId) -> Result<()> {
        let mine: Vec<Chunk> = self.core.map.iter().filter(|chunk| chunk.group == group).cloned().collect();
        let mut edits: Vec<Chunk> = Vec::new();
        for mut chunk in mine {
            // After an error the new device is forgotten, and with it what was taken on it.
            let Some(placement) = self.core.new_placement(by, chunk.column_bytes, Stale::ALL) else {
                return Err(PoolError::refused(format!(
                    "{} is too small to hold the columns of {}",
                    self.path_of(by),
                    self.path_of(of)
                )));
            };
            if chunk.layout.kind() != Kind::Copies {
                return Err(PoolError::refused(format!(
                    "{} has chunks that are no copies; 'coffer convert POOL {0} mirror' (of a plain disk 'coffer balance start' with \
                     'convert') relocates them, then attach",
                    self.path_of(of)
                )));
            }
            let on_one =
                chunk.columns.len() == 2 && chunk.placements().all(|(_, placement)| placement.device == of);
            if on_one {
                // Until it is fresh on the new device the second copy stays on the old one, too: see `end_widening`.
                chunk.columns[1].placements.push(placement);
            } else {
                chunk.columns.push(Column { placements: vec![placement] });
                chunk.layout = Layout::new(Kind::Copies, chunk.columns.len() as u16, chunk.layout.unit())
                    .map_err(|error| PoolError::refused(error.to_string()))?;
            }
            edits.push(chunk);
        }
        for chunk in edits {
            self.core.new_headers.push(chunk.address);
            self.core.map.insert(chunk);
        }
        Ok(())
    }

    /// Takes a device out: a side of a mirror, a replacement or spare under way, or the failed original beside one.
    ///
    /// # Errors
    /// It holds the last good copy of something, or is none of these.
    pub fn detach(&mut self, name: &str) -> Result<Plan> {
        self.writable()?;
        // A write that fails in this commit may make the device the last one that has something.
        self.commit()?;
        if let Some(spare) = self.core.distributed_named(name) {
            self.detach_distributed(name, spare)?;
            return Ok(Plan { steps: vec![format!("detach {name}")], notices: Vec::new() });
        }
        let id = self.device_named(name)?;
        let Some(device) = self.core.devices.get(&id) else { return Ok(Plan::default()) };
        let (relation, path, handle) = (device.relation, device.path.clone(), device.handle.clone());
        let step = Plan { steps: vec![format!("detach {path}")], notices: Vec::new() };
        match relation {
            Relation::Spare => Err(PoolError::refused(format!(
                "{path} is a spare that is not in use; 'coffer remove' takes it away"
            ))),
            Relation::For(of, how) => {
                if self.core.can_lose(id) {
                    if how.is_spare()
                        && let Some(original) = self.core.devices.get_mut(&of)
                    {
                        original.spare_declined = !original.usable();
                        self.core.dirty_devices.insert(of);
                    }
                    let was_spare = self.core.devices.get(&id).is_some_and(|device| device.spare);
                    self.send_back(id)?;
                    if !was_spare && let Some(handle) = handle {
                        let _ = label::clear(&*handle);
                    }
                    Ok(step)
                } else {
                    Err(PoolError::refused(format!(
                        "cannot detach {path}: with {} gone it has the last good copy of some data",
                        self.path_of(of)
                    )))
                }
            }
            Relation::Member(group_id) => {
                if let Some(&stand_in) = self.core.stand_ins(id).first() {
                    // Detaching the original makes its stand-in permanent.
                    if !self.is_fresh(stand_in) {
                        return Err(PoolError::refused(format!(
                            "cannot detach {path}: {} is not resilvered yet",
                            self.path_of(stand_in)
                        )));
                    }
                    self.take_over(stand_in, id)?;
                    return Ok(step);
                }
                self.detach_side(group_id, id, &path)?;
                if let Some(handle) = handle {
                    let _ = label::clear(&*handle);
                }
                Ok(step)
            }
        }
    }

    fn detach_side(&mut self, group_id: GroupId, id: DeviceId, path: &str) -> Result<()> {
        let Some(group) = self.core.groups.get(&group_id) else { return Ok(()) };
        if let Some((spare, _)) = self.core.distributed_for(id) {
            return Err(PoolError::refused(format!(
                "cannot detach {path}: {} is room on the other devices of {} and can't take its place for good; replace it by \
                 another device",
                self.distributed_name(spare),
                group.name()
            )));
        }
        if group.kind != GroupKind::Mirror {
            return Err(PoolError::refused(format!(
                "cannot detach {path}: only sides of mirrors, spares and replacements can be detached"
            )));
        }
        if group.devices.len() < 2 || !self.core.can_lose(id) {
            return Err(PoolError::refused(format!(
                "cannot detach {path}: it has the last good copy of some data"
            )));
        }
        // A chunk of a former layout has other columns than one for each side.
        let sides = group.devices.len();
        let is_former = |chunk: &&Chunk| {
            chunk.group == group_id
                && (chunk.layout.kind() != Kind::Copies || (chunk.columns.len() != sides && !chunk.is_over()))
        };
        if let Some(chunk) = self.core.map.iter().find(is_former) {
            return Err(PoolError::refused(format!(
                "cannot detach {path}: {} still has {} chunks; 'coffer convert POOL {0} mirror' relocates them",
                group.name(),
                self.profile_name(chunk)
            )));
        }
        let single = group.devices.len() == 2;
        self.commit()?;
        let mine: Vec<Logical> = self
            .core
            .map
            .iter()
            .filter(|c| c.group == group_id && c.is_on(id))
            .map(|chunk| chunk.address)
            .collect();
        for address in mine {
            let Some(mut chunk) = self.core.map.get(address).cloned() else { continue };
            let (stay, go): (Vec<Column>, Vec<Column>) =
                chunk.columns.drain(..).partition(|column| column.placements.iter().any(|p| p.device != id));
            chunk.columns = stay;
            let mut dropped: Vec<_> = go.into_iter().flat_map(|column| column.placements).collect();
            for column in &mut chunk.columns {
                dropped.extend(column.placements.iter().copied().filter(|placement| placement.device == id));
                column.placements.retain(|placement| placement.device != id);
            }
            chunk.layout = Layout::new(Kind::Copies, chunk.columns.len() as u16, chunk.layout.unit())
                .map_err(|error| PoolError::Corrupt(error.to_string()))?;
            for placement in dropped {
                self.core.drop_placement(&placement, chunk.column_bytes, true);
            }
            self.core.map.insert(chunk);
        }
        if let Some(group) = self.core.groups.get_mut(&group_id) {
            group.devices.retain(|&member| member != id);
            if single {
                group.kind = GroupKind::Plain;
                group.data = Profile::Single;
                group.metadata = Profile::Dup;
            }
        }
        self.join_heaps();
        self.core.devices.remove(&id);
        self.core.dirty_devices.insert(id);
        self.write_config()?;
        self.commit()
    }

    /// Plain disks are one heap: a mirror that became a single disk joins those that are there.
    fn join_heaps(&mut self) {
        let heaps: Vec<GroupId> = self
            .core
            .groups
            .values()
            .filter(|group| group.kind == GroupKind::Plain)
            .map(|group| group.id)
            .collect();
        let Some((&first, others)) = heaps.split_first() else { return };
        for other in others {
            let Some(group) = self.core.groups.remove(other) else { continue };
            for &member in &group.devices {
                if let Some(device) = self.core.devices.get_mut(&member) {
                    device.relation = Relation::Member(first);
                }
                self.core.dirty_devices.insert(member);
            }
            if let Some(heap) = self.core.groups.get_mut(&first) {
                heap.devices.extend(group.devices);
            }
            for address in self.core.map.addresses() {
                if self.core.map.get(address).is_some_and(|chunk| chunk.group == *other)
                    && let Some(chunk) = self.core.map.change(address)
                {
                    chunk.group = first;
                }
            }
        }
    }

    /// Replaces a device by another one, or (`new` none) by a spare of the pool of that name.
    ///
    /// # Errors
    /// The new device can't hold the columns of the old one, or one is under way already.
    pub fn replace(&mut self, name: &str, new: &NewDevice, options: ReplaceOptions) -> Result<Plan> {
        self.writable()?;
        let id = self.device_named(name)?;
        let size = self.check_new_device(new)?;
        self.check_replace(id)?;
        let Some(old) = self.core.devices.get(&id) else { return Ok(Plan::default()) };
        let (old_size, old_path) = (old.size, old.path.clone());
        if old.relation == Relation::Spare {
            return self.replace_idle_spare(id, new);
        }
        self.commit()?;
        let grows = self.property("autoexpand") == "on";
        let used = if grows { size } else { size.min(old_size) };
        let new_id = self.add_device_of(new, used, Relation::For(id, StandIn::Replacement))?;
        if let Err(error) = self.add_stand_in(id, new_id) {
            self.core.devices.remove(&new_id);
            self.core.dirty_devices.remove(&new_id);
            return Err(PoolError::refused(format!("cannot replace {old_path} by {}: {error}", new.path)));
        }
        label::make_blank(new)?;
        if let Some(old) = self.core.devices.get_mut(&id) {
            old.avoid_reads = options.read_source_last;
        }
        self.core.dirty_devices.insert(id);
        self.write_config()?;
        self.commit()?;
        let mut plan =
            Plan { steps: vec![format!("replace {old_path} by {}", new.path)], notices: Vec::new() };
        if size < old_size {
            plan.notices.push(format!(
                "{} is smaller than {old_path} ({size} bytes, {old_size} before); everything on it fits",
                new.path
            ));
        }
        if size > used {
            plan.notices.push(format!(
                "{} is larger than {old_path}: 'coffer online -e POOL {}' uses all of it once that is replaced, autoexpand=on does \
                 so from the start",
                new.path, new.path
            ));
        }
        Ok(plan)
    }

    fn replace_idle_spare(&mut self, id: DeviceId, new: &NewDevice) -> Result<Plan> {
        let path = self.path_of(id);
        self.commit()?;
        label::make_blank(new)?;
        let left = self.core.devices.remove(&id).and_then(|device| device.handle);
        self.core.dirty_devices.insert(id);
        self.add_device(new, Relation::Spare)?;
        self.write_config()?;
        self.commit()?;
        if let Some(handle) = left {
            // It is no part of the pool any more, whether this succeeds or not.
            let _ = label::clear(&*handle);
        }
        Ok(Plan { steps: vec![format!("replace spare {path} by {}", new.path)], notices: Vec::new() })
    }

    /// Whether a device can be replaced now.
    pub(crate) fn check_replace(&self, id: DeviceId) -> Result<()> {
        let path = self.path_of(id);
        if matches!(self.core.devices.get(&id).map(|device| device.relation), Some(Relation::For(..))) {
            return Err(PoolError::refused(format!("{path} stands in for another device; replace that one")));
        }
        let busy = self.core.stand_ins(id).into_iter().any(|other| {
            self.core
                .devices
                .get(&other)
                .is_some_and(|d| matches!(d.relation, Relation::For(_, StandIn::Replacement)))
        });
        if busy {
            return Err(PoolError::refused(format!("{path} is being replaced already")));
        }
        self.refuse_leaving(id)
    }

    /// The numbers of a device and a spare, if the spare can be called for it now.
    pub(crate) fn check_replace_by_spare(&self, name: &str, spare: &str) -> Result<(DeviceId, DeviceId)> {
        let (id, spare_id) = (self.device_named(name)?, self.device_named(spare)?);
        if self.core.devices.get(&spare_id).is_none_or(|device| device.relation != Relation::Spare) {
            return Err(PoolError::refused(format!("{spare} is not an idle spare")));
        }
        if !matches!(self.core.devices.get(&id).map(|device| device.relation), Some(Relation::Member(_))) {
            return Err(PoolError::refused(format!("{name} is a spare or replacement itself")));
        }
        self.refuse_leaving(id)?;
        Ok((id, spare_id))
    }

    /// Refuses to put another device in place of one that is being removed.
    pub(crate) fn refuse_leaving(&self, id: DeviceId) -> Result<()> {
        match self.core.devices.get(&id) {
            Some(device) if device.leaving => Err(PoolError::refused(format!(
                "cannot replace {}: it is being removed; 'coffer remove -s {}' stops that",
                device.path, self.core.name
            ))),
            _ => Ok(()),
        }
    }

    /// Lets a spare of the pool take over for a device by hand.
    ///
    /// # Errors
    /// It is no idle spare, or too small.
    pub fn replace_by_spare(&mut self, name: &str, spare: &str, options: ReplaceOptions) -> Result<Plan> {
        self.writable()?;
        let plan = Plan { steps: vec![format!("spare {spare} steps in for {name}")], notices: Vec::new() };
        if let Some(distributed) = self.core.distributed_named(spare) {
            let id = self.check_replace_by_distributed(name, distributed)?;
            if let Some(old) = self.core.devices.get_mut(&id) {
                old.avoid_reads = options.read_source_last;
            }
            self.core.dirty_devices.insert(id);
            self.use_distributed(distributed, id, StandIn::Called)?;
            return Ok(plan);
        }
        let (id, spare_id) = self.check_replace_by_spare(name, spare)?;
        self.commit()?;
        self.add_stand_in(id, spare_id)?;
        if let Some(device) = self.core.devices.get_mut(&spare_id) {
            device.relation = Relation::For(id, StandIn::Called);
        }
        if let Some(old) = self.core.devices.get_mut(&id) {
            old.avoid_reads = options.read_source_last;
        }
        self.core.dirty_devices.extend([id, spare_id]);
        self.write_config()?;
        self.commit()?;
        Ok(plan)
    }

    /// Takes a device out of use, until `online` or (`temporary`) the next import.
    ///
    /// # Errors
    /// Something could not be read without it.
    pub fn offline(&mut self, name: &str, temporary: bool) -> Result<Plan> {
        self.writable()?;
        let id = self.device_named(name)?;
        let path = self.path_of(id);
        // A write that fails in this commit may make this device the last one that has something.
        self.commit()?;
        if !self.core.can_lose(id) {
            return Err(PoolError::refused(format!(
                "cannot offline {path}: no valid replicas of what is on it"
            )));
        }
        let before = self.state();
        // What it holds is complete up to here; what it misses from here on is known region by region.
        if let Some(device) = self.core.devices.get_mut(&id) {
            device.offline = true;
            device.temporary = temporary;
        }
        // A group on which nothing is yet has to have enough devices, too.
        if before != State::Faulted && self.state() == State::Faulted {
            if let Some(device) = self.core.devices.get_mut(&id) {
                device.offline = false;
                device.temporary = false;
            }
            return Err(PoolError::refused(format!(
                "cannot offline {path}: no valid replicas: too few devices of its vdev would be left"
            )));
        }
        self.core.state_changed(id, State::Offline, "taken offline");
        self.changed = true;
        self.commit()?;
        Ok(Plan { steps: vec![format!("offline {path}")], notices: Vec::new() })
    }

    /// Takes a device back into use, freshly opened or as it is open; with `expand` all of its size.
    ///
    /// # Errors
    /// It is not there, or carries somebody else's label.
    pub fn online(&mut self, name: &str, opened: Option<&NewDevice>, expand: bool) -> Result<Plan> {
        self.writable()?;
        let id = self.device_named(name)?;
        let path = self.path_of(id);
        if expand && self.core.devices.get(&id).is_some_and(|device| device.limit.is_some()) {
            return Err(PoolError::refused(format!(
                "{path} is being resized; 'coffer balance cancel' ends that"
            )));
        }
        self.commit()?;
        let mut before = None;
        if let Some(device) = self.core.devices.get_mut(&id) {
            // One that was not in use may have been taken away and brought back, which nobody noticed.
            if opened.is_some() && !device.usable() {
                before = device.handle.take();
            }
            device.offline = false;
            device.temporary = false;
            device.faulted = false;
            self.core.dirty_devices.insert(id);
        }
        if let Some(new) = opened
            && self.core.devices.get(&id).is_none_or(|device| device.handle.is_none())
            && !self.device_returned(new)?
        {
            if let Some(device) = self.core.devices.get_mut(&id) {
                device.handle = before;
            }
            return Err(PoolError::refused(format!("{} is not {path}: its label says otherwise", new.path)));
        }
        let Some(device) = self.core.devices.get(&id) else { return Ok(Plan::default()) };
        let Some(handle) = device.handle.clone() else {
            self.core.state_changed(id, State::Unavail, "it is to be online, but can't be opened");
            self.changed = true;
            self.commit()?;
            return Err(PoolError::refused(format!(
                "{path} can't be opened; it will be used when it is back"
            )));
        };
        if expand {
            self.expand(id, handle.size()?);
        }
        self.core.state_changed(id, State::Online, "brought online");
        self.changed = true;
        self.commit()?;
        Ok(Plan { steps: vec![format!("online {path}")], notices: Vec::new() })
    }

    /// Follows up on a device that works again, or for the first time: what it grew by is used if the pool is to do so by
    /// itself, and spares may step in for it again.
    pub(crate) fn device_works(&mut self, id: DeviceId) {
        let Some(device) = self.core.devices.get_mut(&id).filter(|device| device.usable()) else { return };
        if std::mem::take(&mut device.spare_declined) {
            self.core.dirty_devices.insert(id);
        }
        let size = device.handle.as_ref().and_then(|handle| handle.size().ok());
        if let Some(size) = size.filter(|_| self.property("autoexpand") == "on") {
            self.expand(id, size);
        }
    }

    /// Clears error counters, and lets a suspended pool try again.
    ///
    /// # Errors
    /// No such device, or what was waiting still can't be written.
    pub fn clear(&mut self, name: Option<&str>) -> Result<()> {
        if self.core.read_only {
            return Err(PoolError::ReadOnly);
        }
        self.settle_or_suspend()?;
        let ids: Vec<DeviceId> = match name {
            Some(name) => vec![self.device_named(name)?],
            None => self.core.devices.keys().copied().collect(),
        };
        for id in ids {
            if let Some(device) = self.core.devices.get_mut(&id) {
                device.errors = Counters::default();
                device.recent.0.clear();
                device.recent.1.clear();
                device.faulted = false;
                device.degraded = false;
            }
            self.core.dirty_devices.insert(id);
            self.device_works(id);
        }
        if name.is_none() {
            for address in std::mem::take(&mut self.core.lost) {
                self.meta.remove(&mut self.core, crate::txg::lost_key(address))?;
            }
        }
        self.core.suspended = false;
        self.core.labels_dirty = true;
        self.changed = true;
        self.commit()
    }

    /// Lets go of devices that are open and don't answer any more, or not with our label, as when a disk was pulled and
    /// plugged in again, or a file was cut short: whoever opens them anew gives them back with [`Pool::device_returned`].
    pub fn let_go_of_dead(&mut self) {
        let pool = self.core.guid;
        let is_ours = |device: &crate::core::Device| {
            let labels = device.handle.as_ref().map(|handle| label::read(&**handle));
            labels.is_none_or(|labels| {
                let label = labels.ok().and_then(|labels| labels.label);
                label.is_some_and(|label| label.pool == pool && label.device == device.guid)
            })
        };
        let dead: Vec<DeviceId> =
            self.core.devices.values().filter(|device| !is_ours(device)).map(|device| device.id).collect();
        for id in dead {
            if let Some(device) = self.core.devices.get_mut(&id) {
                device.handle = None;
                device.removed = true;
            }
            self.core.state_changed(id, State::Removed, "it does not answer with its label any more");
        }
    }

    /// A device was opened that may be one of ours that was away: its label tells. True when it was taken back.
    ///
    /// What it missed is known region by region; a device that was written to by somebody else meanwhile is
    /// resilvered as a whole.
    ///
    /// # Errors
    /// Its labels can't be read.
    pub fn device_returned(&mut self, new: &NewDevice) -> Result<bool> {
        let labels = label::read(&*new.device)?;
        let Some(label) = labels.label.filter(|label| label.pool == self.core.guid) else { return Ok(false) };
        self.settle_or_suspend()?;
        let Some(device) = self.core.devices.values_mut().find(|device| device.guid == label.device) else {
            return Ok(false);
        };
        if device.handle.is_some() {
            return Ok(false);
        }
        let id = device.id;
        if new.device.size()? < device.size {
            return Err(PoolError::refused(format!(
                "{} is back, but with {} bytes it is shorter than the {} that it had",
                new.path,
                new.device.size()?,
                device.size
            )));
        }
        device.handle = Some(new.device.clone());
        device.removed = false;
        device.never_seen = false;
        device.path.clone_from(&new.path);
        let guid = device.guid;
        let known = labels.uberblocks.first().is_none_or(|uberblock| {
            let current = (self.core.session, self.committed);
            (uberblock.session == current.0 && uberblock.txg <= self.core.txg)
                || self
                    .sessions
                    .iter()
                    .any(|&(session, last)| session == uberblock.session && uberblock.txg <= last)
        });
        if !known && !self.core.is_sabotaged("trust-returned") {
            self.distrust(guid);
            if let Some(newest) = labels.uberblocks.first() {
                // What it went through elsewhere must not be the newest root that the next import finds.
                self.core.txg = self.core.txg.max(Txg(newest.txg.0 + 2));
            }
        }
        if !self.core.devices.get(&id).is_some_and(|device| device.offline) {
            self.core.state_changed(id, State::Online, "it is back");
        }
        self.device_works(id);
        self.changed = true;
        if !self.core.suspended && !self.core.read_only {
            self.commit()?;
        }
        Ok(true)
    }

    /// Takes the pool down in order: everything is committed, and another host may import it.
    ///
    /// # Errors
    /// What was written can't be committed; the pool is given back as it is.
    pub fn export(mut self) -> Result<(), Box<(Self, PoolError)>> {
        if self.core.read_only {
            return Ok(());
        }
        let outcome = self.commit().and_then(|()| self.write_uberblock(true));
        outcome.map_err(|error| Box::new((self, error)))
    }

    /// Destroys the pool: its devices are blank afterwards. One that is gone keeps what it has, as one that was away.
    ///
    /// # Errors
    /// A device can't be written; the pool is given back, what could be cleared is cleared.
    pub fn destroy(mut self) -> Result<(), Box<(Self, PoolError)>> {
        if let Err(error) = self.writable() {
            return Err(Box::new((self, error)));
        }
        let handles = self.core.devices.values().filter_map(|device| device.handle.as_ref());
        let failed = handles.filter_map(|handle| label::clear(&**handle).err());
        let failed: Vec<_> = failed.filter(|error| error.kind != DeviceErrorKind::Gone).collect();
        match failed.into_iter().next() {
            Some(error) => Err(Box::new((self, error.into()))),
            None => Ok(()),
        }
    }
}
