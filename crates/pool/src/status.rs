//! What `status`, `list` and `map` tell.

use std::ops::ControlFlow;

use tree::Key;

use crate::chunk::{Chunk, Class};
use crate::core::{Device, Group, Relation};
use crate::dataset::DEAD_EXTENT;
use crate::error::{PoolError, Result};
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::report::{
    ChunkReport, Counters, DatasetRow, PlacementReport, PoolRow, RemappedReport, ScanKind, ScanState,
    SpareReport, State, StatusReport, VdevReport,
};
use crate::spec::{Draid, GroupKind};
use crate::types::{DatasetId, DeviceId, GroupId, Guid, Logical};

/// Places with errors that a report names.
const PLACES_MAX: usize = 100;

/// Blocks looked at to find out whose a lost extent is.
const SEARCH_MAX: usize = 4_000_000;

impl Pool {
    fn device_line(&self, device: &Device) -> VdevReport {
        let name = device.name();
        let note = if device.handle.is_none() && device.never_seen {
            Some(format!("was {}", device.path))
        } else if !self.is_fresh(device.id) && device.usable() {
            Some("(resilvering)".to_owned())
        } else if device.faulted {
            let size = device.handle.as_ref().and_then(|handle| handle.size().ok());
            let cut = size.is_some_and(|size| size < device.size);
            Some(if cut { "shorter than it was" } else { "too many errors" }.to_owned())
        } else {
            None
        };
        VdevReport {
            name,
            guid: device.guid,
            state: device.state(),
            errors: device.errors,
            note,
            children: Vec::new(),
        }
    }

    fn member_line(&self, id: DeviceId, index: usize) -> VdevReport {
        let Some(device) = self.core.devices.get(&id) else {
            return line(format!("device {id}"), State::Unavail, Vec::new());
        };
        let own = self.device_line(device);
        let stand_ins = self.core.stand_ins(id);
        let (mut spares, mut replacements) = (Vec::new(), Vec::new());
        if let Some((spare, _)) = self.core.distributed_for(id) {
            let mut room = line(self.distributed_name(spare), State::Online, Vec::new());
            room.note = (!self.core.is_distributed_fresh(id)).then(|| "(resilvering)".to_owned());
            spares.push(room);
        }
        if stand_ins.is_empty() && spares.is_empty() {
            return own;
        }
        for other in stand_ins.iter().filter_map(|id| self.core.devices.get(id)) {
            match other.relation {
                Relation::For(_, how) if how.is_spare() => spares.push(self.device_line(other)),
                _ => replacements.push(self.device_line(other)),
            }
        }
        let mut found = own;
        if !replacements.is_empty() {
            let mut children = vec![found];
            children.extend(replacements);
            found = line(format!("replacing-{index}"), worst_but_alive(&children), children);
        }
        if !spares.is_empty() {
            let mut children = vec![found];
            children.extend(spares);
            found = line(format!("spare-{index}"), worst_but_alive(&children), children);
        }
        found
    }

    /// A line for each device of a group, with those that stand in for it.
    fn member_lines(&self, group: &Group) -> Vec<VdevReport> {
        group.devices.iter().enumerate().map(|(index, &id)| self.member_line(id, index)).collect()
    }

    /// Whether more of a group is away than its redundancy bears, whatever is on it; never so with plain disks, whose
    /// redundancy is that of each chunk.
    fn has_too_few(group: &Group, children: &[VdevReport]) -> bool {
        let tolerated = match group.kind {
            GroupKind::Mirror => group.devices.len().saturating_sub(1),
            GroupKind::Raidz(parity) | GroupKind::Draid(Draid { parity, .. }) => usize::from(parity),
            GroupKind::Plain | GroupKind::Spare => return false,
        };
        children.iter().filter(|child| child.state > State::Degraded).count() > tolerated
    }

    /// Health of a group by what its chunks can bear; without chunks by its devices.
    fn group_state(&self, group: &Group, children: &[VdevReport]) -> State {
        let core = &self.core;
        let mut chunks = core.map.iter().filter(|chunk| chunk.group == group.id);
        if chunks.any(|chunk| core.is_lost(chunk)) || Self::has_too_few(group, children) {
            State::Faulted
        } else if children.iter().any(|child| child.state != State::Online) {
            State::Degraded
        } else {
            State::Online
        }
    }

    /// Whether something can't be read with the devices that are there, and nobody waits for them yet.
    pub(crate) fn is_unreadable(&self) -> bool {
        !self.core.suspended && self.core.map.iter().any(|chunk| self.core.is_lost(chunk))
    }

    /// Health of the whole pool: that of its worst group, as everywhere else.
    pub(crate) fn state(&self) -> State {
        if self.core.suspended {
            return State::Suspended;
        }
        let short = |group: &Group| Self::has_too_few(group, &self.member_lines(group));
        if self.is_unreadable() || self.core.groups.values().any(short) {
            return State::Faulted;
        }
        let members = self.core.devices.values().filter(|device| !matches!(device.relation, Relation::Spare));
        if members.into_iter().any(|device| device.state() != State::Online) {
            State::Degraded
        } else {
            State::Online
        }
    }

    /// `coffer status`.
    pub fn status(&mut self) -> StatusReport {
        let mut vdevs = Vec::new();
        let mut heap_state = State::Online;
        for group in self.core.groups.values() {
            let children = self.member_lines(group);
            let state = self.group_state(group, &children);
            if group.kind == GroupKind::Plain {
                heap_state = heap_state.max(state);
                vdevs.extend(children);
            } else {
                vdevs.push(line(group.name(), state, children));
            }
        }
        let distributed =
            self.core.groups.values().flat_map(Group::distributed).map(|(name, used)| SpareReport {
                name,
                guid: Guid(0),
                state: if used.is_some() { "INUSE" } else { "AVAIL" }.to_owned(),
                note: used.map(|_| "currently in use".to_owned()),
            });
        let spares = self
            .core
            .devices
            .values()
            .filter(|device| device.spare)
            .map(|device| {
                let in_use = matches!(device.relation, Relation::For(..));
                let state = if in_use {
                    "INUSE"
                } else if device.usable() {
                    "AVAIL"
                } else {
                    "UNAVAIL"
                };
                SpareReport {
                    name: device.name(),
                    guid: device.guid,
                    state: state.to_owned(),
                    note: in_use.then(|| "currently in use".to_owned()),
                }
            })
            .chain(distributed)
            .collect();
        let (status, action) = self.advice();
        let mut jobs = Vec::new();
        if self.rewound.is_some() {
            jobs.push("space of what came after the checkpoint is being freed".to_owned());
        }
        if !self.zombies.is_empty() || self.datasets.values().any(|dataset| dataset.destroying) {
            jobs.push(if self.is_stuck() {
                "space of destroyed volumes and snapshots is not freed: for what the checkpoint keeps of them there is no room"
                    .to_owned()
            } else {
                "space of destroyed volumes and snapshots is being freed".to_owned()
            });
        }
        let data_error_places = self.places_of_lost();
        StatusReport {
            name: self.core.name.clone(),
            guid: self.core.guid,
            state: self.state(),
            status,
            action,
            scan: self.scan(),
            vdevs,
            spares,
            jobs,
            checkpoint: self.checkpoint_report(),
            data_errors: self.core.lost.len() as u64,
            data_error_places,
        }
    }

    /// What is wrong and what to do, worst first, in the words of `zpool status`.
    fn advice(&self) -> (Option<String>, Option<String>) {
        let both = |status: &str, action: &str| (Some(status.to_owned()), Some(action.to_owned()));
        let devices: Vec<&Device> =
            self.core.devices.values().filter(|device| device.relation != Relation::Spare).collect();
        let any = |state: State| devices.iter().any(|device| device.state() == state);
        if self.core.suspended {
            return both(
                "One or more devices are faulted in response to IO failures.",
                "Make sure the affected devices are connected, then run 'coffer clear'.",
            );
        }
        if !self.core.lost.is_empty() {
            return both(
                "One or more devices has experienced an error resulting in data corruption.  Applications may be affected.",
                "Restore the data in question if possible.  Otherwise restore the entire pool from backup.",
            );
        }
        if self.is_unreadable() {
            return both(
                "One or more devices could not be opened, was removed or is faulted.  There are insufficient replicas for the \
                 pool to continue functioning: some of the data can't be read without them.",
                "Attach the missing devices and online them using 'coffer online'; use 'coffer clear' for faulted ones that work \
                 again.",
            );
        }
        if self.state() == State::Faulted {
            return both(
                "A top-level vdev has lost more devices than its redundancy bears.  All data in the pool can still be read; \
                 what is on that vdev has no redundancy left.",
                "Attach the missing devices and online them using 'coffer online', or replace them using 'coffer replace'.",
            );
        }
        let resilvering = self
            .scan()
            .is_some_and(|scan| scan.kind == ScanKind::Resilver && scan.state == ScanState::Running);
        if resilvering || self.resilver_needed() {
            return both(
                "One or more devices is currently being resilvered.  The pool will continue to function, possibly in a \
                 degraded state.",
                "Wait for the resilver to complete.",
            );
        }
        if any(State::Unavail) || any(State::Removed) {
            return both(
                "One or more devices could not be opened or was removed.  Sufficient replicas exist for the pool to continue \
                 functioning in a degraded state.",
                "Attach the missing device and online it using 'coffer online', or replace it using 'coffer replace'.",
            );
        }
        if any(State::Faulted) {
            return both(
                "One or more devices are faulted in response to persistent errors.  Sufficient replicas exist for the pool to \
                 continue functioning in a degraded state.",
                "Replace the faulted device, or use 'coffer clear' to mark the device repaired.",
            );
        }
        if any(State::Offline) {
            return both(
                "One or more devices has been taken offline by the administrator.  Sufficient replicas exist for the pool to \
                 continue functioning in a degraded state.",
                "Online the device using 'coffer online' or replace the device with 'coffer replace'.",
            );
        }
        if devices.iter().any(|device| device.errors != Counters::default()) {
            return both(
                "One or more devices has experienced an unrecoverable error.  An attempt was made to correct the error.  \
                 Applications are unaffected.",
                "Determine if the device needs to be replaced, and clear the errors using 'coffer clear' or replace the device \
                 with 'coffer replace'.",
            );
        }
        let is_weak = |chunk: &Chunk| self.core.is_weak(chunk) && self.live_in(chunk) > 0;
        if !self.has_task() && self.core.map.iter().any(is_weak) {
            return both(
                "Some of the data survives fewer failed devices than what is written now.",
                "It is relocated by and by where there is room.  'coffer convert' (of plain disks 'coffer balance start' with the \
                 filters convert and soft) does it at once.",
            );
        }
        let is_vdev =
            |id: &GroupId| self.core.groups.get(id).is_some_and(|group| group.kind != GroupKind::Plain);
        if !self.has_task() && self.left_over().iter().any(is_vdev) {
            return both(
                "Some of the data is kept in the layout that its vdev had before a conversion, which did not end.",
                "Use 'coffer convert' to convert the vdev to the kind that it has now: it goes on with that.",
            );
        }
        (None, None)
    }

    /// Names for the extents that can't be read: `pool/volume@snapshot:<offset>`.
    fn places_of_lost(&mut self) -> Vec<String> {
        if self.core.lost.is_empty() {
            return Vec::new();
        }
        let mut places = Vec::new();
        let mut named = std::collections::BTreeSet::new();
        let ids: Vec<DatasetId> = self.datasets.keys().copied().collect();
        let mut looked = 0;
        for id in ids {
            let Some(dataset) = self.datasets.get(&id) else { continue };
            let (name, block_size) =
                (format!("{}/{}", self.core.name, dataset.name), u64::from(dataset.block_size));
            let mut found: Vec<(u64, Logical)> = Vec::new();
            let (lost, remaps) = (self.core.lost.clone(), self.core.remaps.clone());
            let _ = dataset.tree.scan(&mut self.core, Key::MIN, Key::MAX, |key, value| {
                looked += 1;
                let address = remaps.place_of(BlockPtr::decode(value)?.address);
                if lost.contains(&address) {
                    found.push((key.offset, address));
                }
                let enough = looked > SEARCH_MAX || found.len() >= PLACES_MAX;
                Ok::<_, PoolError>(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            for (block, address) in found {
                named.insert(address);
                places.push(format!("{name}:<{:#x}>", block * block_size));
            }
        }
        for address in self.core.lost.difference(&named) {
            places.push(format!("{}:<metadata>:<{:#x}>", self.core.name, address.0));
        }
        places.truncate(PLACES_MAX);
        places
    }

    /// The pool's line in `coffer list`: raw bytes, but of mirrors one side, as `zpool list` counts.
    pub fn pool_row(&self) -> PoolRow {
        let core = &self.core;
        let is_mirror = |group: &Group| group.kind == GroupKind::Mirror;
        let size: u64 = core
            .groups
            .values()
            .filter(|group| group.kind != GroupKind::Spare)
            .map(|group| {
                let sides = group.devices.iter().filter_map(|id| core.devices.get(id)).map(Device::capacity);
                if is_mirror(group) { sides.min().unwrap_or(0) } else { sides.sum() }
            })
            .sum();
        let alloc: u64 = core
            .map
            .iter()
            .map(|chunk| match core.groups.get(&chunk.group) {
                Some(group) if is_mirror(group) => chunk.used,
                _ => {
                    let units = u64::from(chunk.layout.data_units()).max(1);
                    chunk.used * u64::from(chunk.layout.columns()) / units
                }
            })
            .sum();
        let (mut free, mut longest) = (0u64, 0u64);
        for space in core.data.values() {
            free += space.free_bytes();
            longest += space.longest();
        }
        let fragmentation = 100 - (longest * 100).checked_div(free).unwrap_or(100) as u8;
        PoolRow {
            name: core.name.clone(),
            guid: core.guid,
            size,
            alloc,
            free: size.saturating_sub(alloc),
            checkpoint: self.checkpoint_report().map(|checkpoint| checkpoint.held),
            fragmentation,
            capacity: (alloc * 100).checked_div(size).unwrap_or(0) as u8,
            health: self.state(),
        }
    }

    /// Bytes that destroying a dataset would free.
    pub(crate) fn used_by(&mut self, id: DatasetId) -> Result<u64> {
        let dataset = self.dataset(id)?;
        if !dataset.is_snapshot() {
            let own = dataset.referenced.saturating_sub(self.shared_bytes(dataset));
            let reserved = dataset.reservation.max(own);
            let mut used = reserved;
            for snapshot in self.snapshots_of(id) {
                used += self
                    .datasets
                    .get(&snapshot)
                    .map_or(0, |snapshot| snapshot.referenced.saturating_sub(self.shared_bytes(snapshot)));
            }
            return Ok(used);
        }
        // What only this snapshot holds is on its successor's deadlist, born after its predecessor.
        let from = Key { object: self.last_snapshot_txg(dataset).0 + 1, kind: 0, offset: 0 };
        let next = self.datasets.values().find(|other| other.previous == Some(id)).map(|other| other.id);
        let mut used = 0;
        if let Some(next) = next.and_then(|next| self.datasets.get(&next)) {
            next.deadlist.scan(&mut self.core, from, Key::MAX, |key, value| {
                if key.kind == DEAD_EXTENT {
                    used += u64::from(crate::dataset::dead_length(value)?);
                }
                Ok::<_, PoolError>(ControlFlow::Continue(()))
            })?;
        }
        Ok(used)
    }

    /// Volumes and snapshots in `coffer list`, by name.
    ///
    /// # Errors
    /// A deadlist can't be read.
    pub fn list(&mut self) -> Result<Vec<DatasetRow>> {
        let ids: Vec<DatasetId> = self.datasets.values().filter(|d| !d.destroying).map(|d| d.id).collect();
        let mut rows = Vec::new();
        for id in ids {
            let used = self.used_by(id)?;
            let available = self.available(Some(id));
            let dataset = self.dataset(id)?;
            rows.push(DatasetRow {
                name: format!("{}/{}", self.core.name, dataset.name),
                kind: if dataset.is_snapshot() { "snapshot" } else { "volume" }.to_owned(),
                used,
                available: if dataset.is_snapshot() { 0 } else { available },
                referenced: dataset.referenced,
                volsize: dataset.size,
                created: dataset.created,
            });
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// `coffer map`: every chunk and where it lives.
    pub fn map(&self) -> Vec<ChunkReport> {
        self.core
            .map
            .iter()
            .map(|chunk| ChunkReport {
                address: chunk.address,
                length: chunk.length(),
                class: chunk.class.name().to_owned(),
                profile: self.profile_name(chunk),
                closed: chunk.closed,
                group: self.core.groups.get(&chunk.group).map(crate::core::Group::name).unwrap_or_default(),
                used: if chunk.class == Class::Data { chunk.used } else { self.live_bytes(chunk.address) },
                column_length: chunk.column_bytes,
                placements: chunk
                    .placements()
                    .map(|(column, placement)| PlacementReport {
                        column,
                        device: placement.device,
                        name: self.core.devices.get(&placement.device).map(Device::name).unwrap_or_default(),
                        offset: placement.offset,
                        stale_regions: placement
                            .stale
                            .iter()
                            .filter(|&region| region < chunk.regions())
                            .count() as u32,
                        regions: chunk.regions(),
                    })
                    .collect(),
            })
            .collect()
    }

    /// What was relocated, by the class of where it is now and the stretch of addresses between chunks where its homes
    /// are: for `coffer map`.
    pub fn relocated(&self) -> Vec<RemappedReport> {
        let mut runs: Vec<(Logical, RemappedReport)> = Vec::new();
        for (home, moved) in self.core.remaps.iter() {
            let before = self.core.map.iter().rev().find(|chunk| chunk.address <= home);
            let stretch = before.map_or(Logical(0), |chunk| chunk.address);
            let class = self.core.map.at(moved.to).map_or("", |chunk| chunk.class.name());
            match runs.last_mut() {
                Some((last, report)) if *last == stretch && report.class == class => {
                    report.entries += 1;
                    report.bytes += moved.length;
                    report.end = Logical(home.0 + moved.length);
                }
                _ => runs.push((
                    stretch,
                    RemappedReport {
                        address: home,
                        end: Logical(home.0 + moved.length),
                        class: class.to_owned(),
                        entries: 1,
                        bytes: moved.length,
                    },
                )),
            }
        }
        runs.into_iter().map(|(_, report)| report).collect()
    }

    /// Bytes of live nodes in a metadata or system chunk.
    pub(crate) fn live_bytes(&self, chunk: Logical) -> u64 {
        self.core.nodes.get(&chunk).map_or(0, |space| space.live() * tree::NODE_SIZE as u64)
    }
}

fn line(name: String, state: State, children: Vec<VdevReport>) -> VdevReport {
    VdevReport { name, guid: Guid(0), state, errors: Counters::default(), note: None, children }
}

/// Of an original and its stand-ins one that works is enough; it is degraded as long as not all do.
fn worst_but_alive(children: &[VdevReport]) -> State {
    if children.iter().all(|child| child.state == State::Online) {
        State::Online
    } else if children.iter().any(|child| child.state <= State::Degraded) {
        State::Degraded
    } else {
        State::Unavail
    }
}
