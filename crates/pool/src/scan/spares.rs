//! Devices that stand in for others: spares and replacements.

use crate::chunk::{Chunk, PLACEMENTS_MAX, Placement, Stale};
use crate::core::{Core, Device, Relation, StandIn};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::types::{DeviceId, Logical};

impl Core {
    /// On which member a column stays that is on several and need not be: the first that no other column of the chunk is on, as
    /// soon as everything is fresh there. One that is moving, or on a distributed spare, is another matter.
    fn kept_of_doubled(&self, chunk: &Chunk, column: usize) -> Option<DeviceId> {
        let members: Vec<&Placement> = chunk.columns[column]
            .placements
            .iter()
            .filter(|placement| self.is_member(placement.device))
            .collect();
        let is_used =
            |place: &&Placement| self.is_to_go(chunk, place) || self.distributed_for(place.device).is_some();
        if members.len() < 2 || members.iter().any(is_used) {
            return None;
        }
        let is_elsewhere = |place: &Placement| {
            let others = chunk.columns.iter().enumerate().filter(|(index, _)| *index != column);
            others.flat_map(|(_, other)| &other.placements).any(|other| other.device == place.device)
        };
        let kept = members.iter().find(|place| !is_elsewhere(place)).or(members.first())?;
        let is_fresh = kept.stale.of_first(chunk.regions()).is_empty();
        (is_fresh && self.usable(kept.device)).then_some(kept.device)
    }
}

impl Pool {
    /// Gives every column on `of` another placement on `by`, all of it stale.
    ///
    /// # Errors
    /// A column does not fit; nothing is changed then.
    pub(crate) fn add_stand_in(&mut self, of: DeviceId, by: DeviceId) -> Result<()> {
        let mut added: Vec<(Logical, usize, Placement)> = Vec::new();
        let mut outcome = Ok(());
        'chunks: for address in self.core.map.addresses() {
            let Some(chunk) = self.core.map.get(address) else { continue };
            let column_bytes = chunk.column_bytes;
            let columns: Vec<usize> = chunk
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| column.placements.iter().any(|placement| placement.device == of))
                .map(|(index, _)| index)
                .collect();
            if columns.iter().any(|&column| chunk.columns[column].placements.len() >= PLACEMENTS_MAX) {
                outcome = Err(PoolError::refused(
                    "too many devices stand in for this one already; wait until they are done, or detach one",
                ));
                break 'chunks;
            }
            for column in columns {
                let Some(placement) = self.core.new_placement(by, column_bytes, Stale::ALL) else {
                    outcome = Err(PoolError::refused(format!(
                        "a column of {column_bytes} bytes of chunk {address} does not fit on the new device"
                    )));
                    break 'chunks;
                };
                added.push((address, column, placement));
            }
        }
        for (address, column, placement) in added {
            let column_bytes = self.core.map.get(address).map_or(0, |chunk| chunk.column_bytes);
            if outcome.is_err() {
                self.core.drop_placement(&placement, column_bytes, false);
            } else if let Some(chunk) = self.core.map.change(address) {
                chunk.columns[column].placements.push(placement);
                if !self.core.new_headers.contains(&address) {
                    self.core.new_headers.push(address);
                }
            }
        }
        outcome
    }

    /// Takes every placement on a device away; the columns stay where their other placements are.
    pub(crate) fn drop_from(&mut self, id: DeviceId) {
        for address in self.core.map.addresses() {
            self.core.drop_placements(address, |_, _, placement| placement.device == id);
        }
    }

    /// Whether everything on a device is up to date.
    pub(crate) fn is_fresh(&self, id: DeviceId) -> bool {
        self.core.map.iter().all(|chunk| {
            let regions = chunk.regions();
            chunk
                .placements()
                .filter(|(_, placement)| placement.device == id)
                .all(|(_, placement)| placement.stale.iter().all(|region| region >= regions))
        })
    }

    /// Members that need a spare: gone or faulted, with nobody standing in.
    fn needing_spare(&self) -> Vec<DeviceId> {
        let core = &self.core;
        core.devices
            .values()
            .filter(|device| matches!(device.relation, Relation::Member(_)))
            .filter(|device| !device.offline && (device.handle.is_none() || device.faulted))
            .filter(|device| !device.spare_declined)
            .filter(|device| {
                let others = core.stand_ins(device.id);
                // A column that moves has another placement for that.
                let moves = usize::from(device.leaving || device.limit.is_some());
                others.len() + 1 + moves < PLACEMENTS_MAX
                    && others.iter().all(|&other| !core.usable(other))
                    && core.distributed_for(device.id).is_none()
            })
            .map(|device| device.id)
            .collect()
    }

    fn idle_spares(&self) -> Vec<DeviceId> {
        let mut spares: Vec<&Device> = self
            .core
            .devices
            .values()
            .filter(|device| device.relation == Relation::Spare && device.usable())
            .collect();
        spares.sort_by_key(|device| (device.size, device.id));
        spares.into_iter().map(|device| device.id).collect()
    }

    pub(super) fn spare_wanted(&self) -> bool {
        let needing = self.needing_spare();
        needing.iter().any(|&id| self.core.idle_distributed(id).is_some() || self.spare_for(id).is_some())
            || self.spare_places_wanted()
    }

    /// The smallest idle spare that could hold what is on a device.
    fn spare_for(&self, of: DeviceId) -> Option<DeviceId> {
        let needed: u64 = self
            .core
            .map
            .iter()
            .flat_map(|chunk| {
                chunk
                    .placements()
                    .filter(|(_, p)| p.device == of)
                    .map(|_| chunk.column_bytes + crate::chunk::COLUMN_HEADER)
            })
            .sum();
        let capacity = |id: &DeviceId| self.core.devices.get(id).map_or(0, |device| device.free.total());
        self.idle_spares().into_iter().find(|id| capacity(id) >= needed)
    }

    /// Lets spares step in for members that failed.
    pub(super) fn call_spares(&mut self) -> Result<()> {
        if self.make_spare_places()? {
            self.commit()?;
        }
        for failed in self.needing_spare() {
            // A draid's own spares are filled by all its children at once.
            if let Some(spare) = self.core.idle_distributed(failed) {
                self.use_distributed(spare, failed, StandIn::Spare)?;
                continue;
            }
            let Some(spare) = self.spare_for(failed) else { continue };
            self.commit()?;
            if self.add_stand_in(failed, spare).is_err() {
                continue;
            }
            if let Some(device) = self.core.devices.get_mut(&spare) {
                device.relation = Relation::For(failed, StandIn::Spare);
            }
            self.core.dirty_devices.insert(spare);
            self.core.labels_dirty = true;
            let now = self.core.now();
            let path = |id: &DeviceId| {
                self.core.devices.get(id).map(|device| device.path.clone()).unwrap_or_default()
            };
            let message = format!("spare {} steps in for {}", path(&spare), path(&failed));
            self.core.events.push(now, "spare_activate", Some(&path(&spare)), message);
            self.changed = true;
            self.commit()?;
        }
        Ok(())
    }

    /// Stand-ins whose time is over: (the stand-in, what it is for, how).
    fn finished_stand_ins(&self) -> Vec<(DeviceId, DeviceId, StandIn)> {
        self.core
            .devices
            .values()
            .filter_map(|device| match device.relation {
                Relation::For(of, how) => Some((device, of, how)),
                _ => None,
            })
            .filter(|(device, of, how)| match how {
                StandIn::Replacement => device.usable() && self.is_fresh(device.id),
                // A spare goes back when the original works again and misses nothing.
                StandIn::Spare => {
                    self.core.devices.get(of).is_some_and(|of| of.usable() && !of.degraded)
                        && self.is_fresh(*of)
                }
                StandIn::Called => false,
            })
            .map(|(device, of, how)| (device.id, of, how))
            .collect()
    }

    pub(super) fn stand_ins_done(&self) -> bool {
        !self.finished_stand_ins().is_empty() || self.done_with_distributed().is_some()
    }

    /// Gives back what a column has twice on members of its group: where a mirror was made of a single disk's two copies, the one
    /// that the new side holds now, and what a removal or resize that was given up had begun to move.
    fn end_doubled(&mut self) -> Result<()> {
        let mut any = false;
        for address in self.core.map.addresses() {
            let Some(chunk) = self.core.map.get(address) else { continue };
            let kept: Vec<Option<DeviceId>> =
                (0..chunk.columns.len()).map(|column| self.core.kept_of_doubled(chunk, column)).collect();
            if kept.iter().any(Option::is_some) {
                any |= self.core.drop_placements(address, |core, column, placement| {
                    kept[usize::from(column)].is_some_and(|kept| {
                        placement.device != kept
                            && core.devices.get(&placement.device).is_none_or(|device| {
                                match device.relation {
                                    Relation::Member(_) | Relation::Spare => true,
                                    Relation::For(of, _) => of != kept,
                                }
                            })
                    })
                });
            }
        }
        if any { self.commit() } else { Ok(()) }
    }

    /// Lets replacements take over for good and spares go back.
    pub(super) fn end_stand_ins(&mut self) -> Result<()> {
        self.end_doubled()?;
        self.end_distributed()?;
        while let Some((id, of, how)) = self.finished_stand_ins().into_iter().next() {
            match how {
                StandIn::Replacement => self.take_over(id, of)?,
                StandIn::Spare | StandIn::Called => self.send_back(id)?,
            }
        }
        Ok(())
    }

    /// A stand-in becomes the member; whoever it stood in for is no part of the pool any more.
    pub(crate) fn take_over(&mut self, id: DeviceId, of: DeviceId) -> Result<()> {
        self.commit()?;
        let Some(old) = self.core.devices.get(&of) else { return Ok(()) };
        let (relation, old_path, old_handle) = (old.relation, old.path.clone(), old.handle.clone());
        let others: Vec<DeviceId> =
            self.core.stand_ins(of).into_iter().filter(|&other| other != id).collect();
        self.release_distributed(of)?;
        self.drop_from(of);
        for other in others {
            self.drop_from(other);
            self.make_idle(other);
        }
        if let Some(device) = self.core.devices.get_mut(&id) {
            device.relation = relation;
            // A spare that stays is no spare any more.
            device.spare = false;
        }
        self.core.dirty_devices.insert(id);
        if let Relation::Member(group) = relation
            && let Some(group) = self.core.groups.get_mut(&group)
        {
            for member in group.devices.iter_mut().filter(|member| **member == of) {
                *member = id;
            }
        }
        self.core.devices.remove(&of);
        self.core.dirty_devices.insert(of);
        self.write_config()?;
        let now = self.core.now();
        self.core.events.push(now, "vdev_replaced", Some(&old_path), format!("{old_path} is replaced"));
        self.commit()?;
        if let Some(handle) = old_handle {
            // It is no part of the pool any more, whether this succeeds or not.
            let _ = crate::label::clear(&*handle);
        }
        Ok(())
    }

    /// A stand-in holds nothing any more and waits again.
    pub(crate) fn make_idle(&mut self, id: DeviceId) {
        if let Some(device) = self.core.devices.get_mut(&id) {
            if device.spare {
                device.relation = Relation::Spare;
            } else {
                self.core.devices.remove(&id);
            }
        }
        self.core.dirty_devices.insert(id);
        self.core.labels_dirty = true;
    }

    /// Ends what a stand-in was doing; what it held is dropped.
    pub(crate) fn send_back(&mut self, id: DeviceId) -> Result<()> {
        self.commit()?;
        if let Some(&Relation::For(of, _)) = self.core.devices.get(&id).map(|device| &device.relation)
            && let Some(original) = self.core.devices.get_mut(&of)
        {
            original.avoid_reads = false;
            self.core.dirty_devices.insert(of);
        }
        self.drop_from(id);
        self.make_idle(id);
        let now = self.core.now();
        self.core.events.push(now, "spare_return", None, "a stand-in went back".to_owned());
        self.changed = true;
        self.commit()
    }
}
