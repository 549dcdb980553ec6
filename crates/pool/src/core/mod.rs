//! What every part of the engine works on: devices, groups, the chunk map, free space and caches.
//!
//! - `device`: one device of the pool and its health
//! - `events`: what happened, for `coffer events`
//! - `buffers`: large buffers that are used again
//! - `cache`: nodes and blocks that were read
//! - `workers`: pure work on several processors
//!
//! [`Core`] has no opinion on datasets or transactions; `io` reads and writes through it, `alloc` hands out
//! its space, and `Pool` puts trees on top.

mod buffers;
mod cache;
mod device;
mod events;
mod workers;

pub(crate) use buffers::Buffers;
pub(crate) use cache::Cache;
pub(crate) use device::{Device, Group, Relation, StandIn};
pub(crate) use events::EventLog;
pub(crate) use workers::Workers;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use ::device::rng::Rng;
use ::device::{DeviceError, DeviceErrorKind, Operation, Runner};
use bytes::Bytes;
use tree::Node;

use crate::alloc::{Left, Purpose};
use crate::chunk::{Chunk, ChunkMap, Class, Remaps, Stale};
use crate::io::Healing;
use crate::report::State;
use crate::space::{DataSpace, NodeSpace};
use crate::types::{DeviceId, GroupId, Guid, Logical, Millis, Session, Txg};

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The time now. May stand still; never goes back.
    fn now(&self) -> Millis;
}

/// What an engine gets from the outside.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who executes batches of device requests.
    pub runner: Arc<dyn Runner>,
    /// Where randomness begins: equal seeds, equal runs.
    pub seed: u64,
    /// Bound of the caches of nodes and blocks together, bytes.
    pub cache_bytes: u64,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env")
            .field("seed", &self.seed)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

/// Errors of one kind within [`ERROR_PERIOD_MS`] after which a device is degraded or faulted, as in `zed`'s defaults.
pub(crate) const ERRORS_ACCEPTABLE: u64 = 10;
const ERROR_PERIOD_MS: u64 = 600_000;

/// How many places with permanent errors are remembered.
const ERROR_PLACES_MAX: usize = 256;

/// Where the engine's state meets the devices.
pub(crate) struct Core {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) rng: Rng,
    pub(crate) name: String,
    pub(crate) guid: Guid,
    pub(crate) session: Session,
    /// The open transaction group.
    pub(crate) txg: Txg,
    pub(crate) read_only: bool,
    pub(crate) suspended: bool,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) map: ChunkMap,
    pub(crate) remaps: Remaps,
    /// Nodes of every metadata and system chunk.
    pub(crate) nodes: HashMap<Logical, NodeSpace>,
    /// Free space of data chunks that were written to since the import.
    pub(crate) data: HashMap<Logical, DataSpace>,
    pub(crate) cache: Cache,
    /// Memory for rows and parity, shared with those who read and write on other threads.
    pub(crate) spare: Arc<Mutex<Buffers>>,
    /// Nodes and extents that have an address and are not on the devices yet.
    pub(crate) unwritten_nodes: BTreeMap<u64, Arc<Node>>,
    pub(crate) unwritten_extents: BTreeMap<Logical, Bytes>,
    /// Devices whose record in the chunk tree is out of date.
    pub(crate) dirty_devices: BTreeSet<DeviceId>,
    /// The configuration in the labels is out of date.
    pub(crate) labels_dirty: bool,
    pub(crate) events: EventLog,
    /// Logical addresses of extents that can't be read.
    pub(crate) lost: BTreeSet<Logical>,
    /// What self-healing rewrote and devices may still forget.
    pub(crate) healing: BTreeMap<DeviceId, Healing>,
    /// The next logical address for a chunk.
    pub(crate) next_address: u64,
    /// Chunks whose column headers are not on their devices yet.
    pub(crate) new_headers: Vec<Logical>,
    /// The chunk that the last node of a class was taken from.
    pub(crate) current_nodes: BTreeMap<Class, Logical>,
    /// The chunk that extents of a group were last placed in, with parity or without.
    pub(crate) current_data: BTreeMap<(GroupId, bool), Logical>,
    /// What was freed in data chunks that are not in `data`: (when, offset, length).
    pub(crate) unloaded_frees: BTreeMap<Logical, Vec<(Txg, u64, u64)>>,
    /// What chunks could still be made for, as long as no device's free space changes.
    pub(crate) potential: RefCell<BTreeMap<(GroupId, Purpose), u64>>,
    /// What groups have left after so many chunks for nodes, as long as no device's free space changes.
    pub(crate) left: RefCell<BTreeMap<(GroupId, u64), Left>>,
    /// Columns of the chunks that could be made, as long as that stays so.
    pub(crate) widths: RefCell<BTreeMap<(GroupId, Purpose), usize>>,
    /// Places whose read failed in the operation under way.
    pub(crate) charged: Vec<(DeviceId, Range<u64>)>,
    /// What the commit under way found out to be stale: (chunk, column, device, region).
    pub(crate) new_marks: Vec<(Logical, u16, DeviceId, u32)>,
    /// What an older root knows is read: should something else be there by now, nobody is to blame, nothing is lost and
    /// nothing to be repaired.
    pub(crate) looking_back: bool,
    /// Room is looked for on behalf of what is relocated: it may use the slot that is kept free, and goes to nothing but
    /// chunks of the layout that is wanted.
    pub(crate) relocating: bool,
    /// The group that what is relocated stays in as long as it has room.
    pub(crate) relocating_in: Option<GroupId>,
    /// What was born up to here is the checkpoint's, too, and not freed; 0 without one.
    pub(crate) held_to: Txg,
    /// Nodes of the checkpoint (home and birth) that were dropped, and are not entered as held back yet.
    pub(crate) held_nodes: Vec<(u64, Txg)>,
    /// A defect to be shown to the simulator.
    #[cfg(feature = "sabotage")]
    pub(crate) sabotage: Option<String>,
}

impl Core {
    /// Whether the simulator asked for this defect; never in a real build.
    #[cfg(feature = "sabotage")]
    pub(crate) fn is_sabotaged(&self, name: &str) -> bool {
        self.sabotage.as_deref() == Some(name)
    }

    /// Whether the simulator asked for this defect; never in a real build.
    #[cfg(not(feature = "sabotage"))]
    #[allow(clippy::unused_self)]
    pub(crate) fn is_sabotaged(&self, _name: &str) -> bool {
        false
    }

    pub(crate) fn now(&self) -> Millis {
        self.clock.now()
    }

    /// Whether a placement on the device can be read or written now.
    pub(crate) fn usable(&self, id: DeviceId) -> bool {
        self.devices.get(&id).is_some_and(Device::usable)
    }

    /// Accounts for a request that failed: counters, and the device's state.
    pub(crate) fn device_failed(&mut self, id: DeviceId, error: &DeviceError) {
        let now = self.now();
        let Some(device) = self.devices.get_mut(&id) else { return };
        let reading = error.operation == Operation::Read;
        // One that was cut short, be it for a moment, is not broken: it is away until it is as long as it was.
        let cut =
            device.handle.as_ref().is_some_and(|handle| handle.size().is_ok_and(|size| size < device.size));
        let gone = cut || error.kind == DeviceErrorKind::Gone;
        if reading && !gone {
            // The same bad spot met again while it is being healed is no second error.
            let range = error.offset..error.offset + error.length;
            let again = self
                .charged
                .iter()
                .any(|(known, at)| *known == id && at.start < range.end && range.start < at.end);
            self.charged.push((id, range));
            if again {
                return;
            }
        }
        if reading {
            device.errors.read += 1;
        } else {
            device.errors.write += 1;
        }
        self.dirty_devices.insert(id);
        self.events.push(now, "io", Some(&device.path), error.to_string());
        if gone {
            device.handle = None;
            device.removed = true;
            let why = if cut { "it is shorter than it was" } else { "it was removed" };
            self.state_changed(id, State::Removed, why);
            return;
        }
        device.recent.0.push_back(now.0);
        while device.recent.0.front().is_some_and(|&at| at + ERROR_PERIOD_MS < now.0) {
            device.recent.0.pop_front();
        }
        if device.recent.0.len() as u64 >= ERRORS_ACCEPTABLE {
            device.recent.0.clear();
            if self.can_lose(id) {
                if let Some(device) = self.devices.get_mut(&id) {
                    device.faulted = true;
                }
                self.state_changed(id, State::Faulted, "too many I/O errors");
            } else {
                self.degrade(id, "too many I/O errors, and no replicas to do without it");
            }
        }
    }

    /// Accounts for a device that returned wrong data.
    pub(crate) fn checksum_failed(&mut self, id: DeviceId, address: Logical) {
        let now = self.now();
        let neighbour =
            self.is_sabotaged("blame-neighbour").then(|| self.devices.keys().copied().find(|&d| d != id));
        let id = neighbour.flatten().unwrap_or(id);
        let Some(device) = self.devices.get_mut(&id) else { return };
        device.errors.checksum += 1;
        self.dirty_devices.insert(id);
        let message = format!("{} returned wrong data for logical address {address}", device.path);
        self.events.push(now, "checksum", Some(&device.path), message);
        device.recent.1.push_back(now.0);
        while device.recent.1.front().is_some_and(|&at| at + ERROR_PERIOD_MS < now.0) {
            device.recent.1.pop_front();
        }
        if device.recent.1.len() as u64 >= ERRORS_ACCEPTABLE {
            device.recent.1.clear();
            self.degrade(id, "too many checksum errors");
        }
    }

    fn degrade(&mut self, id: DeviceId, why: &str) {
        if let Some(device) = self.devices.get_mut(&id)
            && !device.degraded
        {
            device.degraded = true;
            self.state_changed(id, State::Degraded, why);
        }
    }

    pub(crate) fn state_changed(&mut self, id: DeviceId, state: State, why: &str) {
        let now = self.now();
        self.dirty_devices.insert(id);
        self.labels_dirty = true;
        self.space_changed();
        if let Some(device) = self.devices.get(&id) {
            let message = format!("{} is now {state}: {why}", device.path);
            self.events.push(now, "statechange", Some(&device.path), message);
        }
    }

    /// Notes an extent that can't be read in any way.
    pub(crate) fn data_lost(&mut self, address: Logical) {
        if self.lost.len() < ERROR_PLACES_MAX && self.lost.insert(address) {
            let now = self.now();
            self.events.push(
                now,
                "data",
                None,
                format!("the data at logical address {address} cannot be recovered"),
            );
        }
    }

    /// Whether everything would still be readable without this device.
    pub(crate) fn can_lose(&self, id: DeviceId) -> bool {
        self.map
            .iter()
            .all(|chunk| !chunk.is_on(id) || chunk.is_over() || self.worst_redundancy(chunk, &[id]).is_some())
    }

    /// Whether something in the chunk can't be read with the devices that are there. Nothing is lost with one that is empty
    /// and takes nothing new.
    pub(crate) fn is_lost(&self, chunk: &Chunk) -> bool {
        !chunk.is_over() && self.worst_redundancy(chunk, &[]).is_none()
    }

    /// Closes empty chunks that have lost more than they bear: nothing is to be put there.
    pub(crate) fn close_lost(&mut self) {
        for address in self.map.addresses() {
            let chunk = self.map.get(address);
            if chunk.is_some_and(|chunk| !chunk.closed && chunk.used == 0 && self.is_lost(chunk))
                && let Some(chunk) = self.map.change(address)
            {
                chunk.closed = chunk.class != Class::System;
            }
        }
    }

    /// Further losses that the chunk's worst region survives, with more devices gone; `None` when data is lost.
    pub(crate) fn worst_redundancy(&self, chunk: &Chunk, without: &[DeviceId]) -> Option<u16> {
        // Regions with equal staleness need not be looked at twice: the fresh ones stand for all others.
        let mut stale = Stale::NONE;
        for (_, placement) in chunk.placements() {
            for (all, word) in stale.0.iter_mut().zip(placement.stale.0) {
                *all |= word;
            }
        }
        let regions = chunk.regions();
        let fresh = (0..regions).find(|&region| !stale.contains(region));
        let mut worst: Option<u16> = None;
        for region in stale.iter().filter(|&region| region < regions).chain(fresh) {
            let gone = self.gone_columns(chunk, region, without);
            let left = chunk.layout.redundancy(&gone)?;
            worst = Some(worst.map_or(left, |worst| worst.min(left)));
        }
        worst
    }

    /// Columns that have no usable, fresh placement in the region.
    pub(crate) fn gone_columns(
        &self,
        chunk: &Chunk,
        region: u32,
        without: &[DeviceId],
    ) -> geometry::ColumnSet {
        let mut gone = geometry::ColumnSet::new();
        for (index, column) in chunk.columns.iter().enumerate() {
            let there = column.placements.iter().any(|placement| {
                !without.contains(&placement.device)
                    && !placement.stale.contains(region)
                    && self.usable(placement.device)
            });
            if !there {
                gone.insert(index as u16);
            }
        }
        gone
    }
}
