//! Which devices a new chunk takes, and how much of each.

use std::collections::BTreeMap;

use geometry::ideal::{self, Ideal};
use geometry::{Kind, Layout, Profile};

use super::spread::Candidate;
use crate::chunk::{COLUMN_HEADER, COLUMNS_MAX, Chunk, Class};
use crate::core::{Core, Device, Group, Relation};
use crate::space::FreeRuns;
use crate::spec::GroupKind;
use crate::types::{DeviceId, GroupId};

/// Unit of rows with parity, bytes: one block of the default size on each column.
pub(crate) const PARITY_UNIT: u32 = 16 << 10;
/// Unit of every other layout, bytes.
const STRIPE_UNIT: u32 = 64 << 10;

/// Columns are this part of the smallest device under them...
const COLUMN_FRACTION: u64 = 128;
/// ...but within these bounds, bytes.
const COLUMN_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 30;
/// Metadata chunks hold at most as many nodes as their bitmap has bits for; larger ones would gain nothing.
const METADATA_COLUMN_MAX: u64 = 256 << 20;
/// The smallest column worth its header, bytes: used where devices are nearly full.
const COLUMN_BYTES_MIN: u64 = 256 << 10;

/// What a new chunk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// Data in the group's own layout.
    Data,
    /// Data too little for a row of a parity group.
    Remainder,
    /// Nodes.
    Metadata,
    /// Nodes of the chunk tree.
    System,
}

impl Purpose {
    /// What chunks for nodes of a class are made for.
    pub(crate) fn of_nodes(class: Class) -> Self {
        if class == Class::System { Self::System } else { Self::Metadata }
    }

    /// What a chunk was made for, remainders left aside.
    pub(crate) fn of(chunk: &Chunk) -> Self {
        if chunk.class == Class::Data { Self::Data } else { Self::of_nodes(chunk.class) }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Data | Self::Remainder => Class::Data,
            Self::Metadata => Class::Metadata,
            Self::System => Class::System,
        }
    }
}

/// A chunk that could be made.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPlan {
    pub(crate) layout: Layout,
    pub(crate) column_bytes: u64,
    /// For each column the devices of its placements.
    pub(crate) columns: Vec<Vec<DeviceId>>,
}

impl ChunkPlan {
    /// Logical bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.layout.capacity(self.column_bytes)
    }
}

/// What a layout asks of devices.
struct Shape {
    /// Distinct devices, at least.
    least: usize,
    /// At most.
    most: usize,
    /// Copies on the same device.
    dup: bool,
    kind: Kind,
}

impl Shape {
    /// Devices that may be lost, whichever they are.
    fn tolerance(&self) -> usize {
        match self.kind {
            Kind::Copies => self.least - 1,
            Kind::Stripe => 0,
            Kind::StripedCopies { copies } => usize::from(copies) - 1,
            Kind::Parity { parity } => usize::from(parity),
        }
    }
}

impl Group {
    /// Devices that may be lost, whichever they are, by the profiles of new chunks.
    pub(crate) fn tolerance(&self) -> u16 {
        let shapes =
            [Purpose::Data, Purpose::Remainder, Purpose::Metadata].map(|purpose| shape(self, purpose));
        shapes.into_iter().flatten().map(|shape| shape.tolerance() as u16).min().unwrap_or(0)
    }
}

/// Whether the copies of a chunk are on one device.
pub(crate) fn is_on_one(chunk: &Chunk) -> bool {
    let mut devices = chunk.columns.iter().filter_map(|column| column.placements.first());
    let first = devices.next();
    chunk.columns.len() > 1 && devices.all(|other| first.is_some_and(|first| first.device == other.device))
}

fn shape(group: &Group, purpose: Purpose) -> Option<Shape> {
    let copies = |n: usize| Shape { least: n, most: n, dup: false, kind: Kind::Copies };
    let wide = |least, kind| Shape { least, most: COLUMNS_MAX, dup: false, kind };
    let of_profile = |profile| match profile {
        Profile::Single => copies(1),
        Profile::Dup => Shape { dup: true, ..copies(1) },
        Profile::Raid0 => wide(1, Kind::Stripe),
        Profile::Raid1 => copies(2),
        Profile::Raid1c3 => copies(3),
        Profile::Raid1c4 => copies(4),
        Profile::Raid10 => wide(2, Kind::StripedCopies { copies: 2 }),
        Profile::Raid5 => wide(2, Kind::Parity { parity: 1 }),
        Profile::Raid6 => wide(3, Kind::Parity { parity: 2 }),
    };
    Some(match (group.kind, purpose) {
        (GroupKind::Spare, _) | (GroupKind::Mirror, Purpose::Remainder) => return None,
        (GroupKind::Mirror, _) => copies(group.devices.len()),
        (GroupKind::Raidz(parity), Purpose::Data) => wide(usize::from(parity) + 1, Kind::Parity { parity }),
        (GroupKind::Raidz(parity), _) => copies(usize::from(parity) + 1),
        (GroupKind::Draid(draid), Purpose::Data) => Shape {
            least: draid.width(),
            most: draid.width(),
            dup: false,
            kind: Kind::Parity { parity: draid.parity },
        },
        (GroupKind::Draid(draid), _) => copies(usize::from(draid.parity) + 1),
        (GroupKind::Plain, Purpose::Data) => of_profile(group.data),
        (GroupKind::Plain, Purpose::Remainder) => match group.data {
            Profile::Raid5 => copies(2),
            Profile::Raid6 => copies(3),
            _ => return None,
        },
        (GroupKind::Plain, _) => of_profile(group.metadata),
    })
}

/// How many of the devices with these rooms (bytes, in order of preference) a chunk of striped mirrors takes: as many
/// as can be without stranding room on the largest, whose partners would fill up before it.
fn width_of_mirrors(rooms: &[u64], copies: u8) -> usize {
    let rule = Ideal::StripedCopies { copies };
    let copies = usize::from(copies);
    let widest = rooms.len() - rooms.len() % copies;
    let before = ideal::usable(rule, rooms);
    let strands = |width: usize| {
        let column = rooms[..width].iter().copied().min().unwrap_or(0).min(*COLUMN_BYTES.start());
        let mut left = rooms.to_vec();
        left[..width].iter_mut().for_each(|room| *room -= column);
        ideal::usable(rule, &left) + column * (width / copies) as u64 + u64::from(STRIPE_UNIT) < before
    };
    (copies..=widest).rev().step_by(copies).find(|&width| !strands(width)).unwrap_or(copies.min(widest))
}

/// Column length for a device of this size, bytes.
pub(crate) fn column_target(size: u64) -> u64 {
    let part = (size / COLUMN_FRACTION).clamp(*COLUMN_BYTES.start(), *COLUMN_BYTES.end());
    1 << part.ilog2()
}

/// Free space of every device, to be looked at or played with.
pub(crate) type FreeMap = BTreeMap<DeviceId, FreeRuns>;

impl Group {
    /// Whether data chunks of the group have parity, so that remainders go elsewhere.
    pub(crate) fn has_parity(&self) -> bool {
        shape(self, Purpose::Data).is_some_and(|shape| matches!(shape.kind, Kind::Parity { .. }))
    }
}

impl Core {
    /// The devices that hold a copy of everything on `member`.
    pub(crate) fn stand_ins(&self, member: DeviceId) -> Vec<DeviceId> {
        self.devices
            .values()
            .filter(|device| matches!(device.relation, Relation::For(of, _) if of == member))
            .map(|device| device.id)
            .collect()
    }

    /// The chunk that the group would make now, with free space as `free` says (as it is, where it says nothing).
    /// `reserved` leaves each device a slot for metadata.
    pub(crate) fn plan_chunk(
        &self,
        group: GroupId,
        purpose: Purpose,
        free: Option<&FreeMap>,
    ) -> Option<ChunkPlan> {
        let group = self.groups.get(&group)?;
        let shape = shape(group, purpose)?;
        let unit = if matches!(shape.kind, Kind::Parity { .. }) { PARITY_UNIT } else { STRIPE_UNIT };
        let slot = purpose.class() == Class::Data && !self.relocating;
        let for_spares = self.kept_for_spares(group);
        let kept = |id: DeviceId| match self.devices.get(&id) {
            Some(device) => for_spares(device) + if slot { reserve(device) } else { 0 },
            None => 0,
        };
        let mut candidates: Vec<Candidate> = Vec::new();
        for &member in &group.devices {
            let mut homes = vec![member];
            homes.extend(self.stand_ins(member));
            let room = homes.iter().map(|&id| self.room_on(id, kept(id), shape.dup, free)).min().unwrap_or(0);
            let usable = homes.iter().any(|&id| self.usable(id));
            candidates.push((usable, room, member, homes));
        }
        let least_column = COLUMN_BYTES_MIN.next_multiple_of(u64::from(unit));
        candidates.retain(|&(_, room, ..)| room >= least_column);
        // Working devices first, then those with most room; a mirror takes all of them anyway.
        candidates.sort_by_key(|&(usable, room, id, _)| (!usable, std::cmp::Reverse(room), id));
        // What is written to a new chunk must be readable at once: of devices that are away only so many.
        let away_most = shape.tolerance();
        let working = candidates.iter().take_while(|(usable, ..)| *usable).count();
        candidates.truncate(working + away_most);
        let mut count = candidates.len().min(shape.most);
        if let Kind::StripedCopies { copies } = shape.kind {
            let rooms: Vec<u64> = candidates.iter().map(|&(_, room, ..)| room).collect();
            count = width_of_mirrors(&rooms, copies);
        }
        if count < shape.least || count == 0 {
            return None;
        }
        if let GroupKind::Draid(_) = group.kind {
            candidates = self.spread(group, purpose, &candidates, count, free);
        }
        candidates.truncate(count);
        let smallest = candidates
            .iter()
            .filter_map(|(_, _, member, _)| self.devices.get(member).map(|device| device.size))
            .min()
            .unwrap_or(0);
        let mut target = column_target(smallest);
        if purpose.class() != Class::Data {
            target = target.min(METADATA_COLUMN_MAX);
        }
        let room = candidates.iter().map(|&(_, room, ..)| room).min().unwrap_or(0);
        let column_bytes = target.min(room) / u64::from(unit) * u64::from(unit);
        let mut columns: Vec<Vec<DeviceId>> = candidates.into_iter().map(|(.., homes)| homes).collect();
        if matches!(shape.kind, Kind::Parity { .. } | Kind::Stripe) {
            // The order of columns is the group's own, so that it stays the same from chunk to chunk.
            columns.sort_by_key(|homes| group.devices.iter().position(|id| Some(id) == homes.first()));
        }
        if shape.dup {
            columns = columns.iter().flat_map(|homes| [homes.clone(), homes.clone()]).collect();
        }
        let layout = Layout::new(shape.kind, columns.len() as u16, unit).ok()?;
        Some(ChunkPlan { layout, column_bytes, columns })
    }

    /// Whether a chunk has the layout that its group gives new ones for this purpose: not after a conversion, nor after the
    /// group became wider.
    pub(crate) fn suits(&self, chunk: &Chunk, purpose: Purpose) -> bool {
        let is_copies = chunk.layout.kind() == Kind::Copies;
        self.is_made_for(chunk, purpose)
            && (is_copies || usize::from(chunk.layout.columns()) >= self.width(chunk.group, purpose))
    }

    /// Whether a chunk has another layout than its group's kind gives new ones, whatever their width. Remainders have, too:
    /// what is relocated from them may fill rows.
    pub(crate) fn is_to_be_converted(&self, chunk: &Chunk) -> bool {
        let purpose = Purpose::of(chunk);
        !self.is_made_for(chunk, purpose)
    }

    /// Whether a chunk has a layout that its group gives new ones for no purpose.
    pub(crate) fn is_of_former_layout(&self, chunk: &Chunk) -> bool {
        !self.is_remainder(chunk) && self.is_to_be_converted(chunk)
    }

    /// Whether a chunk is for what was too short for rows of its group.
    pub(crate) fn is_remainder(&self, chunk: &Chunk) -> bool {
        chunk.class == Class::Data && self.is_made_for(chunk, Purpose::Remainder)
    }

    /// Whether a chunk of a former layout survives fewer failed devices than its group's new ones.
    pub(crate) fn is_weak(&self, chunk: &Chunk) -> bool {
        let purpose = Purpose::of(chunk);
        let shape = self.groups.get(&chunk.group).and_then(|group| shape(group, purpose));
        let tolerance = if is_on_one(chunk) { 0 } else { usize::from(chunk.layout.tolerance()) };
        self.is_of_former_layout(chunk) && shape.is_some_and(|shape| tolerance < shape.tolerance())
    }

    /// Whether its group makes chunks like this one for a purpose, if perhaps of another width.
    fn is_made_for(&self, chunk: &Chunk, purpose: Purpose) -> bool {
        let Some(shape) = self.groups.get(&chunk.group).and_then(|group| shape(group, purpose)) else {
            return false;
        };
        let columns = usize::from(chunk.layout.columns());
        let as_many =
            || is_on_one(chunk) == shape.dup && columns == shape.most * (1 + usize::from(shape.dup));
        chunk.layout.kind() == shape.kind && (shape.least != shape.most || as_many())
    }

    /// Columns of the chunk that the group would make now; 0 when it has no room for one.
    fn width(&self, group: GroupId, purpose: Purpose) -> usize {
        if let Some(&known) = self.widths.borrow().get(&(group, purpose)) {
            return known;
        }
        let width = self.plan_chunk(group, purpose, None).map_or(0, |plan| plan.columns.len());
        self.widths.borrow_mut().insert((group, purpose), width);
        width
    }

    /// The longest column that a device could take now, bytes, if `kept` bytes are to stay free there.
    fn room_on(&self, id: DeviceId, kept: u64, dup: bool, free: Option<&FreeMap>) -> u64 {
        let Some(device) = self.devices.get(&id).filter(|device| !device.leaving) else { return 0 };
        let runs = free.and_then(|free| free.get(&id)).unwrap_or(&device.free);
        let mut room = runs.longest().min(runs.total().saturating_sub(kept));
        if dup {
            room /= 2;
        }
        room.saturating_sub(COLUMN_HEADER)
    }

    /// Logical bytes that the group could still make chunks for.
    pub(crate) fn potential(&self, group: GroupId, purpose: Purpose) -> u64 {
        if let Some(&known) = self.potential.borrow().get(&(group, purpose)) {
            return known;
        }
        let bytes = self.simulate(group, purpose);
        self.potential.borrow_mut().insert((group, purpose), bytes);
        bytes
    }

    /// Free space of a device, or who works, is not what it was.
    pub(crate) fn space_changed(&mut self) {
        self.potential.get_mut().clear();
        self.left.get_mut().clear();
        self.widths.get_mut().clear();
    }

    /// A copy of the free space of a group's devices.
    pub(crate) fn free_of(&self, group: GroupId) -> FreeMap {
        let members = self.groups.get(&group).into_iter().flat_map(|group| &group.devices);
        members
            .flat_map(|&member| std::iter::once(member).chain(self.stand_ins(member)))
            .filter_map(|id| Some((id, self.devices.get(&id)?.free.clone())))
            .collect()
    }

    /// Makes a chunk on a copy of the free space, if there is room.
    pub(crate) fn play(&self, group: GroupId, purpose: Purpose, free: &mut FreeMap) -> Option<ChunkPlan> {
        let plan = self.plan_chunk(group, purpose, Some(free))?;
        for id in plan.columns.iter().flatten() {
            free.get_mut(id)?.allocate(plan.column_bytes + COLUMN_HEADER, 0)?;
        }
        Some(plan)
    }

    /// Makes chunks on a copy of the free space until none fits.
    fn simulate(&self, group: GroupId, purpose: Purpose) -> u64 {
        let mut free = self.free_of(group);
        std::iter::from_fn(|| self.play(group, purpose, &mut free)).map(|plan| plan.capacity()).sum()
    }

    /// Bytes that new chunks of the group take for certain, in pieces of `piece`, about `bytes` of them; and the nodes
    /// that still find room in chunks made after them, about `nodes`. The chunk tree and remainders have their chunks first.
    pub(crate) fn sure_room(&self, group: GroupId, piece: u64, bytes: u64, nodes: u64) -> (u64, u64) {
        let mut free = self.free_of(group);
        for purpose in [Purpose::System, Purpose::Remainder] {
            let _ = self.play(group, purpose, &mut free);
        }
        let (mut data, mut node_room) = (0, 0);
        while data < bytes
            && let Some(plan) = self.play(group, Purpose::Data, &mut free)
        {
            data += plan.capacity() / piece * piece;
        }
        while node_room < nodes
            && let Some(plan) = self.play(group, Purpose::Metadata, &mut free)
        {
            node_room += nodes_in(&plan);
        }
        (data, node_room)
    }
}

/// Nodes that a new chunk has room for.
pub(super) fn nodes_in(plan: &ChunkPlan) -> u64 {
    (plan.capacity() / tree::NODE_SIZE as u64).saturating_sub(crate::space::SLOT_NODES)
}

/// Bytes that data leaves free on a device, so that metadata always finds a slot.
pub(crate) fn reserve(device: &Device) -> u64 {
    column_target(device.size).min(METADATA_COLUMN_MAX) + COLUMN_HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of the chosen widths, one after another, fill devices of any sizes up to what is possible.
    #[test]
    fn striped_mirrors_strand_no_room() {
        const COLUMN: u64 = 1 << 20;
        let mut rng = device::rng::Rng::new(11);
        for _ in 0..200 {
            let sizes: Vec<u64> = (0..2 + rng.below(8)).map(|_| (20 + rng.below(400)) * COLUMN).collect();
            let mut rooms = sizes.clone();
            let mut bytes = 0;
            loop {
                rooms.retain(|&room| room >= COLUMN);
                rooms.sort_unstable_by_key(|&room| std::cmp::Reverse(room));
                let width = width_of_mirrors(&rooms, 2);
                if width < 2 {
                    break;
                }
                rooms[..width].iter_mut().for_each(|room| *room -= COLUMN);
                bytes += COLUMN * (width / 2) as u64;
            }
            let best = ideal::usable(Ideal::StripedCopies { copies: 2 }, &sizes);
            assert!(bytes + 2 * COLUMN >= best, "{bytes} of {best} on {sizes:?}");
        }
    }
}
