//! Columns that move: what a removal or resize takes from a device goes to another one as it is, where the layout allows that.
//!
//! A column that is to go gets another placement on a device of the group that its chunk is not on yet. It is filled as a
//! resilver would, checksums and all, and when it is fresh the placement that is to go is dropped: no address changes,
//! so the remap table does not grow, and only what is on that device is written. Everything else is relocated: chunks on
//! all devices of their group, those that are mostly empty (so their free space does not move along), and those in which
//! something can't be read.
//!
//! Which placements are being filled for a move is not recorded: it follows from which are to go.

use super::{Balance, Moved};
use crate::alloc::reserve;
use crate::chunk::{COLUMN_HEADER, Chunk, PLACEMENTS_MAX, Placement, Stale};
use crate::core::{Core, Relation};
use crate::error::Result;
use crate::pool::Pool;
use crate::scan::Filling;
use crate::spec::{GroupKind, Task};
use crate::types::{DeviceId, Logical};

/// Regions of columns that move.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Regions {
    fresh: u64,
    all: u64,
}

impl Regions {
    const fn is_all(self) -> bool {
        self.fresh == self.all
    }

    /// Of so many bytes, those that have moved.
    fn share_of(self, bytes: u64) -> u64 {
        (u128::from(bytes) * u128::from(self.fresh) / u128::from(self.all.max(1))) as u64
    }
}

impl Core {
    /// Whether a placement is on a device that leaves the pool, or behind the new end of one.
    pub(crate) fn is_to_go(&self, chunk: &Chunk, placement: &Placement) -> bool {
        self.devices.get(&placement.device).is_some_and(|device| {
            let end = placement.offset + chunk.column_bytes + COLUMN_HEADER;
            device.leaving || device.limit.is_some_and(|limit| end > limit)
        })
    }

    pub(crate) fn is_member(&self, id: DeviceId) -> bool {
        self.devices.get(&id).is_some_and(|device| matches!(device.relation, Relation::Member(_)))
    }

    /// Whether a placement is there to follow another one of the same column that is to go.
    pub(crate) fn is_moving(&self, chunk: &Chunk, column: u16, placement: &Placement) -> bool {
        let Some(column) = chunk.columns.get(usize::from(column)) else { return false };
        let goes = |other: &Placement| {
            self.is_to_go(chunk, other)
                && self.is_member(other.device)
                && self.distributed_for(other.device).is_none()
        };
        column.placements.len() > 1
            && self.is_member(placement.device)
            && !self.is_to_go(chunk, placement)
            && column.placements.iter().any(goes)
    }

    /// Placements that are filled to follow others, with their columns.
    fn moving<'a>(&'a self, chunk: &'a Chunk) -> impl Iterator<Item = (u16, &'a Placement)> {
        chunk.placements().filter(|(column, placement)| self.is_moving(chunk, *column, placement))
    }

    /// Whether every placement that is to go has one that works and follows it.
    fn can_follow(&self, chunk: &Chunk) -> bool {
        let goes = |place: &Placement| self.is_to_go(chunk, place) && self.is_member(place.device);
        (0..).zip(&chunk.columns).filter(|(_, column)| column.placements.iter().any(goes)).all(
            |(index, column)| {
                let mut moving = column.placements.iter().filter(|place| self.is_moving(chunk, index, place));
                moving.clone().next().is_some() && moving.all(|place| self.usable(place.device))
            },
        )
    }

    /// How much of the columns of a chunk that move is fresh.
    fn regions_moved(&self, chunk: &Chunk) -> Regions {
        let regions = chunk.regions();
        let fresh = |place: &Placement| u64::from(regions - place.stale.of_first(regions).count());
        let places = self.moving(chunk).map(|(_, place)| fresh(place));
        places.fold(Regions { fresh: 0, all: 0 }, |sum, fresh| Regions {
            fresh: sum.fresh + fresh,
            all: sum.all + u64::from(regions),
        })
    }

    /// Whether a placement of a chunk that moved is one that was to go, or of a device that stands in for one of these.
    fn is_of_what_goes(&self, chunk: &Chunk, place: &Placement) -> bool {
        let stands_in_for = self.devices.get(&place.device).and_then(|device| match device.relation {
            Relation::For(of, _) => Some(of),
            Relation::Member(_) | Relation::Spare => None,
        });
        let goes = |of: DeviceId| {
            chunk.placements().any(|(_, other)| other.device == of && self.is_to_go(chunk, other))
        };
        self.is_to_go(chunk, place) || stands_in_for.is_some_and(goes)
    }

    /// Where the columns of a chunk that are to go could be instead: (column, device), if all of them could.
    fn other_homes(&self, chunk: &Chunk) -> Option<Vec<(usize, DeviceId)>> {
        let group = self.groups.get(&chunk.group)?;
        let is_spread = matches!(group.kind, GroupKind::Plain | GroupKind::Raidz(_) | GroupKind::Draid(_));
        let going: Vec<(usize, &Placement)> = (0..)
            .zip(&chunk.columns)
            .flat_map(|(index, column)| column.placements.iter().map(move |place| (index, place)))
            .filter(|(_, place)| self.is_to_go(chunk, place))
            .collect();
        // Of two copies on one disk both move, to one disk.
        let all_go = going.len() == chunk.placements().count();
        let is_alone = |(index, place): &(usize, &Placement)| {
            chunk.columns[*index].placements.len() < PLACEMENTS_MAX
                && self.is_member(place.device)
                && self.distributed_for(place.device).is_none()
        };
        if !is_spread || (crate::alloc::is_on_one(chunk) && !all_go) || !going.iter().all(is_alone) {
            return None;
        }
        let for_spares = self.kept_for_spares(group);
        let mut homes: Vec<(usize, DeviceId)> = Vec::new();
        let mut instead: Vec<(DeviceId, DeviceId)> = Vec::new();
        for (index, place) in &going {
            let known = instead.iter().find(|(of, _)| *of == place.device).map(|(_, by)| *by);
            let by = known.or_else(|| {
                let columns = going.iter().filter(|(_, other)| other.device == place.device).count() as u64;
                let need = columns * (chunk.column_bytes + COLUMN_HEADER);
                let others = group.devices.iter().filter_map(|id| self.devices.get(id));
                let fit = others.filter(|device| {
                    // Whatever stands in for a device has what is on it, too, and this it would not have.
                    device.usable()
                        && !device.leaving
                        && self.stand_ins(device.id).is_empty()
                        && self.distributed_for(device.id).is_none()
                        && device.free.longest() >= need
                        && device.free.total() >= need + reserve(device) + for_spares(device)
                        && !chunk.is_on(device.id)
                        && instead.iter().all(|(_, taken)| *taken != device.id)
                });
                let roomiest = fit.max_by_key(|device| (device.free.total(), std::cmp::Reverse(device.id)));
                roomiest.map(|device| device.id)
            })?;
            instead.push((place.device, by));
            homes.push((*index, by));
        }
        (!homes.is_empty()).then_some(homes)
    }
}

impl Pool {
    /// Gives the columns of a chunk that a removal or resize takes other homes, if they can have some; whether they got them.
    pub(super) fn begin_move(&mut self, task: &Task, address: Logical) -> Result<bool> {
        if !matches!(task, Task::Remove(_) | Task::Resize { .. }) {
            return Ok(false);
        }
        let Some(chunk) = self.core.map.get(address).cloned() else { return Ok(false) };
        if chunk.closed {
            return Ok(false);
        }
        if self.core.moving(&chunk).next().is_some() {
            // Begun before a crash, or by a task that was given up.
            return Ok(true);
        }
        if self.live_in(&chunk) * 4 < chunk.length() {
            return Ok(false);
        }
        // What was accepted has its room before this takes any.
        self.commit()?;
        let Some(homes) = self.core.other_homes(&chunk) else { return Ok(false) };
        let mut taken: Vec<(usize, Placement)> = Vec::new();
        let stale = if self.core.is_sabotaged("column-unfilled") { Stale::NONE } else { Stale::ALL };
        for (index, by) in &homes {
            let placement = self.core.new_placement(*by, chunk.column_bytes, stale);
            taken.extend(placement.map(|placement| (*index, placement)));
        }
        // The free space of a column moves along with it: what has to be relocated after this must still find room.
        let leaves_room = taken.len() == homes.len() && {
            let behind: Vec<Logical> = self.matching(task).map(|(chunk, _)| chunk.address).collect();
            self.check_room(|other| other.address > address && behind.contains(&other.address)).is_ok()
        };
        for (index, placement) in taken {
            match self.core.map.change(address).filter(|_| leaves_room) {
                Some(chunk) => chunk.columns[index].placements.push(placement),
                None => self.core.drop_placement(&placement, chunk.column_bytes, false),
            }
        }
        if leaves_room && !self.core.new_headers.contains(&address) {
            self.core.new_headers.push(address);
        }
        self.room_bytes = 0;
        self.changed = true;
        Ok(leaves_room)
    }

    /// Fills about `budget` bytes of the columns of a chunk that move. When all of them are fresh, those that were to go are
    /// dropped; where they can't be filled, the chunk is closed, and relocated instead.
    pub(super) fn move_columns(
        &mut self,
        balance: &mut Balance,
        chunk: &Chunk,
        budget: u64,
        moved: &mut Moved,
    ) -> Result<()> {
        let (address, live) = (chunk.address, self.live_in(chunk));
        let before = self.core.regions_moved(chunk);
        let mut stuck = false;
        if !before.is_all() {
            let step = self.fill_stale(Filling::Move(address), budget)?;
            stuck = step.done == 0 || step.stuck || step.errors > 0;
            moved.bytes += step.done;
        }
        let Some(chunk) = self.core.map.get(address).cloned() else { return Ok(()) };
        let after = self.core.regions_moved(&chunk);
        if stuck || !self.core.can_follow(&chunk) {
            balance.done = balance.done.saturating_sub(before.share_of(live));
            self.give_up_move(&chunk);
            return self.close_chunk(address, moved.things);
        }
        balance.done += after.share_of(live).saturating_sub(before.share_of(live));
        if after.is_all() {
            self.core.drop_placements(address, |core, _, place| core.is_of_what_goes(&chunk, place));
            balance.completed += 1;
            balance.current = None;
        }
        Ok(())
    }

    /// Drops what was filled of columns that were to move, unless something is fresh nowhere else.
    fn give_up_move(&mut self, chunk: &Chunk) {
        let mut without = chunk.clone();
        for (index, column) in (0..).zip(&mut without.columns) {
            column.placements.retain(|place| !self.core.is_moving(chunk, index, place));
        }
        let gone = |chunk: &Chunk, region| self.core.gone_columns(chunk, region, &[]);
        if (0..chunk.regions()).all(|region| gone(&without, region) == gone(chunk, region)) {
            self.core
                .drop_placements(chunk.address, |core, column, place| core.is_moving(chunk, column, place));
        }
    }
}
