//! Distributed spares: room on all children of a draid that steps in for one of them.
//!
//! A distributed spare is no device. While it is in use for a member, every column whose home is that member has another
//! placement on a child that its chunk is not on yet, which the resilver fills like any other; the group knows for whom
//! each spare is in use. The home of a column is its first placement. When the member, or what replaces it, misses nothing
//! any more, the others are dropped.

use std::collections::BTreeMap;

use crate::alloc::reserve;
use crate::chunk::{COLUMN_HEADER, Chunk, Column, PLACEMENTS_MAX, Placement, Stale};
use crate::core::{Core, Device, Group, Relation, StandIn};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::types::{DeviceId, GroupId, Logical};

/// A distributed spare: its group, and which of the group's.
pub(crate) type Distributed = (GroupId, usize);

impl Group {
    /// Names of the distributed spares, with the member that each is in use for.
    pub(crate) fn distributed(&self) -> impl Iterator<Item = (String, Option<(DeviceId, StandIn)>)> + '_ {
        let spares = self.spares.iter().enumerate();
        let draid = self.kind.draid();
        spares.filter_map(move |(index, used)| Some((draid?.spare_name(self.id.0, index), *used)))
    }
}

impl Core {
    /// The distributed spare of that name.
    pub(crate) fn distributed_named(&self, name: &str) -> Option<Distributed> {
        self.groups.values().find_map(|group| {
            let index = group.distributed().position(|(known, _)| known == name)?;
            Some((group.id, index))
        })
    }

    /// The distributed spare that is in use for a member, and how that came.
    pub(crate) fn distributed_for(&self, member: DeviceId) -> Option<(Distributed, StandIn)> {
        self.groups.values().find_map(|group| {
            let mut used = group.spares.iter().enumerate();
            used.find_map(|(index, spare)| match spare {
                Some((of, how)) if *of == member => Some(((group.id, index), *how)),
                _ => None,
            })
        })
    }

    /// A distributed spare of a member's group that is not in use.
    pub(super) fn idle_distributed(&self, member: DeviceId) -> Option<Distributed> {
        let Relation::Member(group) = self.devices.get(&member)?.relation else { return None };
        let group = self.groups.get(&group)?;
        Some((group.id, group.spares.iter().position(Option::is_none)?))
    }

    /// Placements of a column that belong to a distributed spare, by their index.
    fn spare_places<'a>(&'a self, column: &'a Column) -> impl Iterator<Item = (usize, &'a Placement)> {
        let behind = column.placements.iter().enumerate().skip(1);
        behind.filter(|(_, placement)| {
            let device = self.devices.get(&placement.device);
            device.is_some_and(|device| matches!(device.relation, Relation::Member(_)))
        })
    }

    /// Columns of a chunk whose home is a member.
    fn columns_at_home(chunk: &Chunk, member: DeviceId) -> impl Iterator<Item = (usize, &Column)> {
        let at_home = move |column: &Column| column.placements.first().is_some_and(|p| p.device == member);
        chunk.columns.iter().enumerate().filter(move |(_, column)| at_home(column))
    }

    /// Where columns that need a place on a distributed spare get one, as far as there is room: chunk, column, child.
    fn spare_places_to_make(&self) -> Vec<(Logical, usize, DeviceId)> {
        let mut places = Vec::new();
        let mut taken: BTreeMap<DeviceId, u64> = BTreeMap::new();
        for group in self.groups.values() {
            for &(member, how) in group.spares.iter().flatten() {
                let works =
                    self.devices.get(&member).is_some_and(|member| member.usable() && !member.degraded);
                if works && how == StandIn::Spare {
                    continue;
                }
                let chunks = || self.map.iter().filter(|chunk| chunk.group == group.id && !chunk.is_over());
                // What each child is going to read for it.
                let mut reads: BTreeMap<DeviceId, u64> = BTreeMap::new();
                for chunk in chunks().filter(|chunk| Self::columns_at_home(chunk, member).next().is_some()) {
                    let homes = chunk.columns.iter().filter_map(|column| column.placements.first());
                    homes.for_each(|home| *reads.entry(home.device).or_default() += chunk.column_bytes);
                }
                for chunk in chunks() {
                    for (index, column) in Self::columns_at_home(chunk, member) {
                        if column.placements.len() >= PLACEMENTS_MAX || self.is_stood_in_for(column) {
                            continue;
                        }
                        if let Some(child) = self.child_with_room(group, chunk, &taken, &reads) {
                            *taken.entry(child).or_default() += chunk.column_bytes + COLUMN_HEADER;
                            places.push((chunk.address, index, child));
                        }
                    }
                }
            }
        }
        places
    }

    /// Whether a distributed spare has a column already, on a child that works or that somebody took offline for a while.
    fn is_stood_in_for(&self, column: &Column) -> bool {
        self.spare_places(column).any(|(_, placement)| {
            self.devices.get(&placement.device).is_some_and(|device| device.usable() || device.offline)
        })
    }

    /// A child that a chunk is not on, with room beside the slot for metadata: of those with about as much room as all have
    /// the one that has least to read and to write, so that they are done at the same time.
    fn child_with_room(
        &self,
        group: &Group,
        chunk: &Chunk,
        taken: &BTreeMap<DeviceId, u64>,
        reads: &BTreeMap<DeviceId, u64>,
    ) -> Option<DeviceId> {
        let need = chunk.column_bytes + COLUMN_HEADER;
        let room = |device: &Device| {
            let taken = taken.get(&device.id).copied().unwrap_or(0);
            device.free.total().saturating_sub(taken + reserve(device))
        };
        let children = group.devices.iter().filter_map(|id| self.devices.get(id));
        let fit: Vec<&Device> = children
            .filter(|device| {
                device.usable()
                    && !device.leaving
                    && device.free.longest() >= need
                    && room(device) >= need
                    && !chunk.is_on(device.id)
            })
            .collect();
        let mean = fit.iter().map(|device| room(device)).sum::<u64>() / (fit.len() as u64).max(1);
        let load = |id: &DeviceId| [taken, reads].iter().filter_map(|of| of.get(id)).sum::<u64>();
        let roomy = fit.into_iter().filter(|device| room(device) >= mean - mean / 8);
        let chosen =
            roomy.min_by_key(|device| (load(&device.id), std::cmp::Reverse(room(device)), device.id));
        chosen.map(|device| device.id)
    }

    /// Whether everything could be read without what a distributed spare holds for a member.
    pub(crate) fn can_lose_distributed(&self, member: DeviceId) -> bool {
        self.map.iter().filter(|chunk| !chunk.is_over()).all(|chunk| {
            let mut without = chunk.clone();
            for (index, column) in Self::columns_at_home(chunk, member) {
                let places: Vec<usize> = self.spare_places(column).map(|(at, _)| at).collect();
                let kept = (0..).zip(&column.placements).filter(|(at, _)| !places.contains(at));
                without.columns[index].placements = kept.map(|(_, placement)| *placement).collect();
            }
            without == *chunk || self.worst_redundancy(&without, &[]).is_some()
        })
    }

    /// Whether a distributed spare has everything for its member, up to date.
    pub(crate) fn is_distributed_fresh(&self, member: DeviceId) -> bool {
        self.map.iter().all(|chunk| {
            let regions = chunk.regions();
            Self::columns_at_home(chunk, member).all(|(_, column)| {
                self.spare_places(column).any(|(_, place)| place.stale.of_first(regions).is_empty())
            })
        })
    }
}

impl Pool {
    /// Whether a column is to get a place on a distributed spare that is in use.
    pub(super) fn spare_places_wanted(&self) -> bool {
        !self.core.spare_places_to_make().is_empty()
    }

    /// Gives columns places on the distributed spares that are in use; whether there were any to be given.
    pub(super) fn make_spare_places(&mut self) -> Result<bool> {
        if !self.spare_places_wanted() {
            return Ok(false);
        }
        // What was accepted has its room before this takes any.
        self.commit()?;
        let stale = if self.core.is_sabotaged("spare-unfilled") { Stale::NONE } else { Stale::ALL };
        for (address, column, child) in self.core.spare_places_to_make() {
            let bytes = self.core.map.get(address).map_or(0, |chunk| chunk.column_bytes);
            let Some(placement) = self.core.new_placement(child, bytes, stale) else { continue };
            if let Some(chunk) = self.core.map.change(address) {
                chunk.columns[column].placements.push(placement);
                if !self.core.new_headers.contains(&address) {
                    self.core.new_headers.push(address);
                }
            }
        }
        self.room_bytes = 0;
        self.changed = true;
        Ok(true)
    }

    /// Puts a distributed spare to use for a member; the columns get their places with the next step.
    pub(crate) fn use_distributed(
        &mut self,
        spare: Distributed,
        member: DeviceId,
        how: StandIn,
    ) -> Result<()> {
        self.commit()?;
        if let Some(group) = self.core.groups.get_mut(&spare.0) {
            group.spares[spare.1] = Some((member, how));
        }
        self.make_spare_places()?;
        let now = self.core.now();
        let name = self.distributed_name(spare);
        let message = format!("spare {name} steps in for {}", self.path_of(member));
        self.core.events.push(now, "spare_activate", Some(&name), message);
        self.write_config()?;
        self.commit()
    }

    pub(crate) fn distributed_name(&self, (group, index): Distributed) -> String {
        let group = self.core.groups.get(&group);
        group.and_then(|group| group.distributed().nth(index)).map(|(name, _)| name).unwrap_or_default()
    }

    /// Ends the use of a distributed spare for a member, if there is one, in the open transaction group.
    pub(crate) fn release_distributed(&mut self, member: DeviceId) -> Result<bool> {
        let Some((spare, _)) = self.core.distributed_for(member) else { return Ok(false) };
        for address in self.core.map.addresses() {
            self.drop_spare_places(address, |core, column| {
                let is_home = column.placements.first().is_some_and(|place| place.device == member);
                let places = core.spare_places(column).filter(|_| is_home);
                places.map(|(_, place)| place.device).collect()
            });
        }
        let name = self.distributed_name(spare);
        if let Some(group) = self.core.groups.get_mut(&spare.0) {
            group.spares[spare.1] = None;
        }
        if let Some(original) = self.core.devices.get_mut(&member) {
            original.avoid_reads = false;
            self.core.dirty_devices.insert(member);
        }
        let now = self.core.now();
        self.core.events.push(now, "spare_return", Some(&name), format!("spare {name} went back"));
        self.room_bytes = 0;
        self.write_config()?;
        Ok(true)
    }

    /// Drops those places of a chunk's columns that `which` tells of each column.
    fn drop_spare_places(
        &mut self,
        address: Logical,
        which: impl Fn(&Core, &Column) -> Vec<DeviceId>,
    ) -> bool {
        let Some(chunk) = self.core.map.get(address) else { return false };
        // Only there a second place on a member is a spare's: a disk's copies that became a mirror's have one, too.
        if self.core.groups.get(&chunk.group).is_none_or(|group| group.kind.draid().is_none()) {
            return false;
        }
        let drops: Vec<Vec<DeviceId>> =
            chunk.columns.iter().map(|column| which(&self.core, column)).collect();
        self.core.drop_placements(address, |_, column, placement| {
            drops[usize::from(column)].contains(&placement.device)
        })
    }

    /// Members whose distributed spare has done its time: they work again and miss nothing.
    pub(super) fn done_with_distributed(&self) -> Option<DeviceId> {
        let spares = self.core.groups.values().flat_map(|group| group.spares.iter().flatten());
        let mut of = spares.filter(|(_, how)| *how == StandIn::Spare).map(|(member, _)| *member);
        of.find(|member| {
            self.core.devices.get(member).is_none_or(|device| device.usable() && !device.degraded)
                && self.is_fresh(*member)
        })
    }

    /// Ends the use of distributed spares that is over, and gives back places that columns have twice: after a child with
    /// one of them failed, too, and came back.
    pub(super) fn end_distributed(&mut self) -> Result<()> {
        while let Some(member) = self.done_with_distributed() {
            self.commit()?;
            self.release_distributed(member)?;
            self.commit()?;
        }
        if self.core.groups.values().all(|group| group.spares.iter().all(Option::is_none)) {
            return Ok(());
        }
        let mut any = false;
        for address in self.core.map.addresses() {
            let regions = self.core.map.get(address).map_or(0, Chunk::regions);
            any |= self.drop_spare_places(address, |core, column| {
                let places = || core.spare_places(column).map(|(_, place)| place);
                let sound = |place: &&Placement| {
                    core.usable(place.device) && place.stale.of_first(regions).is_empty()
                };
                let keep = places().find(sound).map(|place| place.device);
                places().map(|place| place.device).filter(|id| keep.is_some_and(|keep| keep != *id)).collect()
            });
        }
        if any { self.commit() } else { Ok(()) }
    }

    /// A distributed spare of that name that can be called for a member now.
    pub(crate) fn check_replace_by_distributed(&self, name: &str, spare: Distributed) -> Result<DeviceId> {
        let id = self.device_named(name)?;
        let called = self.distributed_name(spare);
        let group = self.core.groups.get(&spare.0);
        if !matches!(self.core.devices.get(&id).map(|device| device.relation), Some(Relation::Member(of)) if of == spare.0)
        {
            let group = group.map(Group::name).unwrap_or_default();
            return Err(PoolError::refused(format!(
                "{called} is for the children of {group} only, and {name} is none"
            )));
        }
        if group.is_none_or(|group| group.spares[spare.1].is_some()) {
            return Err(PoolError::refused(format!("{called} is in use already")));
        }
        if let Some((other, _)) = self.core.distributed_for(id) {
            let other = self.distributed_name(other);
            return Err(PoolError::refused(format!("{other} stands in for {name} already")));
        }
        self.refuse_leaving(id)?;
        Ok(id)
    }

    /// Ends the use of a distributed spare by hand.
    pub(crate) fn detach_distributed(&mut self, name: &str, (group, index): Distributed) -> Result<()> {
        let used = self.core.groups.get(&group).and_then(|group| group.spares[index]);
        let Some((member, _)) = used else {
            return Err(PoolError::refused(format!("{name} is not in use")));
        };
        if !self.core.can_lose_distributed(member) {
            return Err(PoolError::refused(format!(
                "cannot detach {name}: with {} gone it has the last good copy of some data",
                self.path_of(member)
            )));
        }
        if let Some(original) = self.core.devices.get_mut(&member) {
            original.spare_declined = !original.usable();
        }
        self.release_distributed(member)?;
        self.commit()
    }
}
