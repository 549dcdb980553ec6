//! From devices to a pool.
//!
//! - this file: which root, which devices, and the trees behind it
//! - `find`: which pools there are on a heap of devices
//! - `split`: two histories of one pool
//! - `space`: what is free, and what only older roots still know
//!
//! Nothing is repaired on the way: the newest uberblock is a root that was complete when it was written. Devices
//! that were away are compared with the pool's history: what they know must be a part of it, else nothing on
//! them is believed.

mod find;
mod space;
mod split;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use tree::{Key, NodePtr, Tree, TreeId};

use crate::checkpoint::{Checkpoint, Rewind};
use crate::chunk::{COLUMN_HEADER, Chunk, Moved, Remaps, Stale};
use crate::codec::Reader;
use crate::config::Config;
use crate::core::{Core, Device, Env, Group, Relation};
use crate::dataset::{Dataset, Zombie};
use crate::error::{PoolError, Result};
use crate::label::{self, Labels, Uberblock};
use crate::pool::{CHUNK_TREE, EXTENT_TREE, META_TREE, Pool};
use crate::report::{Plan, State};
use crate::spec::{ImportOptions, NewDevice};
use crate::txg::{self, range_of};
use crate::types::{DatasetId, DeviceId, GroupId, Guid, Logical, Millis, Session, Txg};

/// What to do about a newest root that does not open.
const ROOT_THAT_OPENS: &str = "; 'import -F' goes back to the newest one that does";

/// A device that carries a label of the pool.
pub(crate) struct Member {
    pub(crate) new: NewDevice,
    pub(crate) guid: Guid,
    pub(crate) id: DeviceId,
    pub(crate) labels: Labels,
}

impl Member {
    /// Whether the device has roots that were written after this one.
    fn knows_later(&self, uberblock: &Uberblock) -> bool {
        self.labels.uberblocks.first().is_some_and(|newest| newest.txg > uberblock.txg)
    }
}

/// A root did not open; `others` are the newest roots of devices with another history, where that is why.
struct NotOpened {
    error: PoolError,
    others: Vec<Uberblock>,
    /// Devices have another history with something in it.
    apart: bool,
}

impl From<PoolError> for NotOpened {
    fn from(error: PoolError) -> Self {
        Self { error, others: Vec::new(), apart: false }
    }
}

/// What keeps a root from being opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// That it was never complete, while devices have another one that may be.
    Acknowledged,
    /// That devices have another history with something in it.
    History,
    /// Nothing of this kind.
    Nothing,
}

/// Whether two are the same root.
fn is_same(one: &Uberblock, other: &Uberblock) -> bool {
    (one.session, one.txg) == (other.session, other.txg)
}

/// Whether the pool went back behind this root and then on: what only this one knew is written over. As long as there is
/// nothing but the root that goes back, that one may never have been complete.
fn is_given_up(uberblock: &Uberblock, all: &[Uberblock]) -> bool {
    let goes_behind = |back: &&Uberblock| {
        back.txg > uberblock.txg && back.back_to.is_some_and(|(_, txg)| txg < uberblock.txg)
    };
    let went_on =
        |back: &Uberblock| all.iter().any(|later| later.session == back.session && later.txg > back.txg);
    all.iter().filter(goes_behind).any(went_on)
}

impl Pool {
    /// Imports the pool `guid` from a heap of devices, of which only its own are used.
    ///
    /// # Errors
    /// Too few devices (which are missing, and what would be enough), a root that does not open (what could be
    /// done), another host's pool without `force`, unknown features.
    pub fn import(
        env: &Env,
        guid: Guid,
        devices: Vec<NewDevice>,
        options: &ImportOptions,
    ) -> Result<(Self, Plan)> {
        let members = members_of(guid, devices)?;
        let config = newest_config(&members);
        let mut uberblocks: Vec<Uberblock> =
            members.iter().flat_map(|m| m.labels.uberblocks.clone()).collect();
        uberblocks.sort_by_key(|uberblock| std::cmp::Reverse((uberblock.txg, uberblock.session)));
        uberblocks.dedup_by_key(|uberblock| (uberblock.txg, uberblock.session));
        let Some(newest) = uberblocks.first().cloned() else {
            return Err(PoolError::refused(format!(
                "no device of pool '{}' has a valid uberblock; nothing was imported",
                config.name
            )));
        };
        let foreign = !newest.exported && newest.host != options.host.id;
        if foreign && !options.force && !options.read_only {
            return Err(PoolError::refused(format!(
                "pool '{}' was last used by host '{}' and not exported; if it is really not in use there, import it with -f",
                config.name, config.host_name
            )));
        }
        // What a root knows is whole as long as no device that has it went on to a root from which on its space is free.
        let is_whole = |uberblock: &Uberblock| {
            !is_given_up(uberblock, &uberblocks)
                && members.iter().map(|member| &member.labels.uberblocks).any(|known| {
                    known.iter().any(|root| is_same(root, uberblock))
                        && known.first().is_some_and(|last| last.oldest <= uberblock.txg)
                })
        };
        let mut candidates: VecDeque<Uberblock> = match options.txg {
            Some(txg) => {
                uberblocks.iter().filter(|root| root.txg == txg && is_whole(root)).cloned().collect()
            }
            None if options.rewind => uberblocks.iter().filter(|root| is_whole(root)).cloned().collect(),
            // Two of one number: a device that could not be read for a moment kept the root of an import that was cut short,
            // and the next import wrote its own.
            None => uberblocks.iter().filter(|root| root.txg == newest.txg).cloned().collect(),
        };
        if candidates.is_empty() {
            let txg = options.txg.unwrap_or_default();
            let known: Vec<Txg> =
                uberblocks.iter().filter(|root| is_whole(root)).map(|root| root.txg).collect();
            return Err(PoolError::refused(match known.last() {
                Some(oldest) if uberblocks.iter().any(|root| root.txg == txg) => format!(
                    "the space of transaction group {txg} has been used again; the oldest that can be imported is {oldest}"
                ),
                _ => format!(
                    "there is no root of transaction group {txg}; those that can be imported are {}",
                    known.iter().map(Txg::to_string).collect::<Vec<_>>().join(", ")
                ),
            }));
        }
        let is_default = options.txg.is_none() && !options.rewind;
        let cares: &[Care] = match (is_default, options.force) {
            (true, false) => &[Care::Acknowledged, Care::History],
            (true, true) => &[Care::Acknowledged, Care::History, Care::Nothing],
            (false, false) => &[Care::History],
            (false, true) => &[Care::Nothing],
        };
        let mut first_error = None;
        let mut unopened = None;
        for &care in cares {
            let mut tried = 0;
            while let Some(uberblock) = candidates.get(tried).cloned() {
                tried += 1;
                match Self::open_root(env, &members, &uberblock, &uberblocks, options, care) {
                    Ok((pool, mut plan)) => {
                        if !is_default && uberblock.txg < newest.txg {
                            let lost = newest.time.0.saturating_sub(uberblock.time.0) / 1000;
                            plan.notices.insert(0, format!(
                                "going back from transaction group {} to {}: what was written in the last {lost} seconds \
                                 before the newest root is lost",
                                newest.txg, uberblock.txg
                            ));
                        }
                        return Ok((pool, plan));
                    }
                    // A root that opens, but that not all devices agree on, is nothing to go back from.
                    Err(failed) if failed.apart && options.rewind => return Err(failed.error),
                    Err(failed) => {
                        // Devices that have another history may have all that counts.
                        for other in failed.others.into_iter().filter(|_| is_default) {
                            if !candidates.contains(&other) && !is_given_up(&other, &uberblocks) {
                                candidates.push_back(other);
                            }
                        }
                        if care == Care::Acknowledged {
                            continue;
                        }
                        match failed.error {
                            error @ (PoolError::Unreadable { .. } | PoolError::Corrupt(_)) => {
                                unopened.get_or_insert((uberblock.txg, error));
                            }
                            error => {
                                first_error.get_or_insert(error);
                            }
                        }
                    }
                }
            }
        }
        if let Some((txg, _)) = &unopened
            && let Some(missing) = find::missing(&config, &members)
        {
            let hint = if is_default && !missing.is_sure { ROOT_THAT_OPENS } else { "" };
            let which = if is_default { "the newest" } else { "a" };
            return Err(PoolError::refused(format!(
                "{which} root of pool '{}' (transaction group {txg}) does not open: {}{hint}",
                config.name, missing.sentence
            )));
        }
        Err(match (unopened, first_error) {
            // What else stands in the way may only be what an `import -F` left that was cut short.
            (Some((txg, error)), _) if is_default => PoolError::refused(format!(
                "the newest root of pool '{}' (transaction group {txg}) does not open: {error}{ROOT_THAT_OPENS}",
                config.name
            )),
            (_, Some(error)) | (Some((_, error)), None) => error,
            (None, None) => PoolError::NoSpace,
        })
    }

    /// Opens the pool at a root.
    fn open_root(
        env: &Env,
        members: &[Member],
        uberblock: &Uberblock,
        all: &[Uberblock],
        options: &ImportOptions,
        care: Care,
    ) -> Result<(Self, Plan), NotOpened> {
        if !uberblock.readable() {
            return Err(NotOpened::from(PoolError::refused(format!(
                "the pool uses features that are not known here (incompatible features {:#x}); use a newer coffer",
                uberblock.incompatible
            ))));
        }
        if !uberblock.writable() && !options.read_only {
            return Err(NotOpened::from(PoolError::refused(format!(
                "the pool uses features with which it can only be read here (features {:#x}); import it with -o readonly=on",
                uberblock.read_only_compatible
            ))));
        }
        let config = newest_config(members);
        let mut core = Core::new(env, config.name.clone(), uberblock.pool);
        core.txg = uberblock.txg.next();
        core.read_only = true;
        // Until the chunk tree is read, devices are known by their labels alone.
        for member in members {
            // A device that was to join in a transaction group that never was may carry the number of another one.
            let other = |&(id, guid): &(u32, Guid)| id == member.id.0 && guid != member.guid;
            if uberblock.devices.iter().any(other) {
                continue;
            }
            let size = member.new.device.size().map_err(PoolError::from)?;
            let mut device = Device::new(
                member.id,
                member.guid,
                member.new.path.clone(),
                size,
                Relation::Member(GroupId(0)),
            );
            device.handle = Some(member.new.device.clone());
            core.devices.insert(member.id, device);
        }
        for chunk in &uberblock.system_chunks {
            core.map.load(chunk.clone());
        }
        let mut pool = Self::empty(core, options.host.clone());
        let tree = |id, root: Option<NodePtr>| Tree::new(TreeId { pool: uberblock.pool.0, tree: id }, root);
        pool.chunks = tree(CHUNK_TREE, uberblock.chunk_root);
        pool.meta = tree(META_TREE, uberblock.meta_root);
        pool.extents = tree(EXTENT_TREE, uberblock.extent_root);
        pool.committed = uberblock.txg;
        pool.load_chunk_tree(members)?;
        for device in pool.core.devices.values_mut() {
            if !device.offline && options.offline.contains(&device.guid) {
                (device.offline, device.temporary) = (true, true);
            }
        }
        if let Some((session, txg)) = uberblock.back_to {
            if let Some(last) = pool.sessions.last_mut().filter(|last| last.0 == session) {
                last.1 = txg;
            }
            pool.sessions.push((uberblock.session, uberblock.txg));
        }
        // Sessions are written down when they begin; the last one came as far as this root.
        if let Some(last) = pool.sessions.last_mut().filter(|last| last.0 == uberblock.session) {
            last.1 = uberblock.txg;
        }
        // Roots of another history, which a device that was used elsewhere may carry, say nothing about this one.
        let past: Vec<Uberblock> = all
            .iter()
            .filter(|other| pool.is_history(other.session, other.txg, uberblock))
            .cloned()
            .collect();
        // What came after this root may have used the space of some that were whole when it was written.
        let holders = members.iter().map(|member| &member.labels.uberblocks);
        let holders = holders.filter(|known| known.iter().any(|root| is_same(root, uberblock)));
        let later = holders.filter_map(|known| known.first()).map(|newest| newest.oldest);
        let oldest = later.filter(|oldest| *oldest <= uberblock.txg).fold(uberblock.oldest, Txg::max);
        pool.roots = past
            .iter()
            .filter(|other| other.txg <= uberblock.txg && other.txg >= oldest)
            .map(|other| other.txg)
            .take(txg::ROOTS_KEPT)
            .collect::<VecDeque<_>>();
        pool.roots.make_contiguous().sort_unstable();
        let is_back = options.txg.is_some() || options.rewind;
        let strangers = pool.judge_members(members, uberblock, is_back);
        let mut apart = false;
        let judged = match care {
            Care::Nothing => Ok(()),
            Care::Acknowledged if pool.is_unacknowledged(&strangers, uberblock) => {
                Err(PoolError::refused("the newest root was never complete".to_owned()))
            }
            _ => {
                let judged = pool.refuse_two_histories(members, &strangers, uberblock, is_back, &config);
                apart = judged.is_err();
                judged
            }
        };
        pool.core.close_lost();
        if let Err(error) =
            judged.and_then(|()| pool.check_enough(&config, !is_back && !strangers.is_empty()))
        {
            let others = strangers.iter().filter_map(|member| member.labels.uberblocks.first().cloned());
            let mut others: Vec<Uberblock> = others.collect();
            others.sort_by_key(|root| std::cmp::Reverse((root.txg, root.session)));
            return Err(NotOpened { error, others, apart });
        }
        let mut plan = Plan::default();
        pool.load_meta()?;
        pool.load_space(uberblock, &past)?;
        pool.renew_limit();
        pool.reclaim_all();
        if let Some(name) = &options.rename {
            pool.core.name.clone_from(name);
        }
        for device in pool.core.devices.values() {
            if device.state() != State::Online {
                plan.notices.push(format!("{} is {}", device.path, device.state()));
            }
        }
        pool.core.read_only = options.read_only;
        if options.checkpoint {
            let taken = pool.kept_checkpoint().map_or(0, |checkpoint| checkpoint.taken.0);
            let lost = uberblock.time.0.saturating_sub(taken) / 1000;
            plan.notices.push(format!(
                "going back to the checkpoint: what was done in the {lost} seconds from then to the newest root is lost"
            ));
        }
        if options.read_only {
            if options.checkpoint {
                pool.rewind_to_checkpoint()?;
            }
            return Ok((pool, plan));
        }
        // Numbers that any device has seen are used up, and so is the one that a crash may have left unseen.
        let seen = all.iter().map(|uberblock| uberblock.txg.0).max().unwrap_or(0);
        pool.core.txg = Txg(seen + 2);
        let seed = pool.core.rng.next_u64() ^ uberblock.session.0 ^ uberblock.txg.0.rotate_left(32) ^ seen;
        pool.core.rng = device::rng::Rng::new(seed);
        pool.core.session = Session(pool.core.rng.next_u64().max(1));
        if is_back && members.iter().any(|member| member.knows_later(uberblock)) {
            pool.go_back(uberblock, &strangers)?;
        }
        if options.checkpoint {
            pool.rewind_to_checkpoint()?;
        }
        pool.start_session()?;
        pool.write_config()?;
        for id in pool.core.devices.keys().copied().collect::<Vec<_>>() {
            pool.device_works(id);
        }
        pool.commit()?;
        Ok((pool, plan))
    }

    /// Reads configuration and chunks.
    fn load_chunk_tree(&mut self, members: &[Member]) -> Result<()> {
        let mut groups: BTreeMap<GroupId, Group> = BTreeMap::new();
        let mut devices: BTreeMap<DeviceId, Device> = BTreeMap::new();
        let mut sessions = Vec::new();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut numbers = None;
        let (config, group, device) =
            (txg::CONFIG_KEY, txg::group_key(GroupId(0)), txg::device_key(DeviceId(0)));
        let (session, chunk) = (txg::session_key(0), txg::chunk_key(Logical(0)));
        let remap = txg::remap_key(Logical(0));
        let mut remaps = Remaps::default();
        self.chunks.scan(&mut self.core, Key::MIN, Key::MAX, |key, value| {
            if key.kind == config.kind {
                let mut r = Reader::new("configuration item", value);
                let name = r.text("name")?;
                numbers = Some((name, r.u32("next device")?, r.u32("next group")?, r.u64("next address")?));
            } else if key.kind == group.kind {
                let id = GroupId(key.offset as u32);
                groups.insert(id, Group::decode(id, value)?);
            } else if key.kind == device.kind {
                let id = DeviceId(key.offset as u32);
                devices.insert(id, Device::decode(id, value)?);
            } else if key.kind == session.kind {
                let mut r = Reader::new("session item", value);
                sessions.push((Session(r.u64("session")?), Txg(r.u64("txg")?)));
            } else if key.kind == chunk.kind {
                chunks.push(Chunk::decode(value)?);
            } else if key.kind == remap.kind {
                let home = Logical(key.offset);
                if !remaps.load(home, Moved::decode(home, value)?) {
                    return Err(PoolError::Corrupt(format!(
                        "the remap item at {home} overlaps the one before it"
                    )));
                }
            }
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })?;
        let Some((name, next_device, next_group, next_address)) = numbers else {
            return Err(PoolError::Corrupt("the chunk tree has no configuration".to_owned()));
        };
        self.core.name = name;
        self.core.remaps = remaps;
        self.next_device = next_device;
        self.next_group = next_group;
        self.core.next_address = next_address;
        self.sessions = sessions;
        self.core.groups = groups;
        for device in devices.values_mut() {
            let Some(member) = members.iter().find(|member| member.guid == device.guid) else { continue };
            let size = member.new.device.size()?;
            device.never_seen = false;
            if size < device.size {
                let now = self.core.clock.now();
                let message = format!("{} has shrunk from {} to {size} bytes", member.new.path, device.size);
                self.core.events.push(now, "statechange", Some(&member.new.path), message);
                device.faulted = true;
            }
            device.handle = Some(member.new.device.clone());
            if device.path != member.new.path {
                device.path.clone_from(&member.new.path);
                self.core.dirty_devices.insert(device.id);
            }
        }
        for device in devices.values() {
            if let Relation::For(of, _) = device.relation
                && !devices.contains_key(&of)
            {
                return Err(PoolError::Corrupt(format!(
                    "{} stands in for device {of}, which is unknown",
                    device.path
                )));
            }
        }
        self.core.devices = devices;
        let system: Vec<Chunk> = self.core.map.iter().cloned().collect();
        for chunk in &chunks {
            if system.iter().any(|other| other.address == chunk.address) {
                return Err(PoolError::Corrupt(format!("chunk {} is also a system chunk", chunk.address)));
            }
            self.core.map.load(chunk.clone());
        }
        let mut end = Logical(0);
        for chunk in system.iter().chain(&chunks) {
            for (_, placement) in chunk.placements() {
                let Some(device) = self.core.devices.get_mut(&placement.device) else {
                    return Err(PoolError::Corrupt(format!(
                        "chunk {} is on device {}, which is unknown",
                        chunk.address, placement.device
                    )));
                };
                let length = chunk.column_bytes + COLUMN_HEADER;
                if !device.free.contains(placement.offset, length) {
                    return Err(PoolError::Corrupt(format!(
                        "chunk {} lies at offset {} of {}, where something else is or the device has no room",
                        chunk.address, placement.offset, device.path
                    )));
                }
                device.free.remove(placement.offset, length);
            }
            self.core.next_address = self.core.next_address.max(chunk.end().0.next_multiple_of(1 << 20));
        }
        let homes_end = self.core.remaps.iter().last().map_or(0, |(home, moved)| home.0 + moved.length);
        self.core.next_address = self.core.next_address.max(homes_end.next_multiple_of(1 << 20));
        for chunk in self.core.map.iter() {
            if chunk.address < end {
                return Err(PoolError::Corrupt(format!(
                    "chunk {} overlaps the one before it",
                    chunk.address
                )));
            }
            end = chunk.end();
        }
        Ok(())
    }

    /// Decides what of each device can be believed, by the roots that it knows; gives those that know another history.
    /// `is_back`: the root is an older one on purpose, and devices may have gone on from it.
    fn judge_members<'a>(
        &mut self,
        members: &'a [Member],
        uberblock: &Uberblock,
        is_back: bool,
    ) -> Vec<&'a Member> {
        let mut strangers = Vec::new();
        for member in members {
            let known = &member.labels.uberblocks;
            // What went on after the root did not touch what the root knows as long as it could be gone back to.
            let went_on = is_back
                && known.first().is_some_and(|newest| newest.oldest <= uberblock.txg)
                && known.iter().any(|root| is_same(root, uberblock));
            // Roots that lead nowhere else than older ones on the same device do not matter: nothing was written.
            let mut newest = known.iter().enumerate();
            let leads_on = |(at, root): (usize, &Uberblock)| {
                if self.is_history(root.session, root.txg, uberblock) {
                    return Some(true);
                }
                let is_idle = known[at + 1..].iter().any(|older| older.trees() == root.trees());
                (!is_idle).then_some(false)
            };
            // One without any root joined just before the power failed: what it is to have was flushed before any root says so.
            let is_behind = newest.find_map(leads_on) != Some(false);
            if !went_on && !is_behind {
                self.distrust(member.guid);
                strangers.push(member);
            }
        }
        strangers
    }

    /// Makes the root that was gone back to the newest one, before anything is written that what came after it needs.
    /// Devices that are not believed do not get it: they would be, after a power cut.
    fn go_back(&mut self, uberblock: &Uberblock, strangers: &[&Member]) -> Result<()> {
        let mut kept = Vec::new();
        for device in self.core.devices.values_mut() {
            if strangers.iter().any(|member| member.guid == device.guid) {
                kept.push((device.id, device.handle.take()));
            }
        }
        self.goes_back_to = Some((uberblock.session, uberblock.txg));
        let written = self.write_uberblock(false);
        self.goes_back_to = None;
        for (id, handle) in kept {
            if let Some(device) = self.core.devices.get_mut(&id) {
                device.handle = handle;
            }
        }
        written?;
        self.core.txg = self.core.txg.next();
        Ok(())
    }

    /// Whether a root is one that this pool went through.
    pub(crate) fn is_history(&self, session: Session, txg: Txg, now: &Uberblock) -> bool {
        if session == now.session {
            return txg <= now.txg;
        }
        self.sessions.iter().any(|&(known, last)| known == session && txg <= last)
    }

    /// Takes nothing on a device for true: it was away and written to by somebody else.
    pub(crate) fn distrust(&mut self, guid: Guid) {
        let Some(device) = self.core.devices.values().find(|device| device.guid == guid) else { return };
        let (id, path) = (device.id, device.path.clone());
        let mut any = false;
        self.core.new_marks.retain(|&(_, _, device, _)| device != id);
        for address in self.core.map.addresses() {
            if !self.core.map.get(address).is_some_and(|chunk| chunk.is_on(id)) {
                continue;
            }
            any = true;
            if let Some(chunk) = self.core.map.change(address) {
                for placement in chunk.columns.iter_mut().flat_map(|column| &mut column.placements) {
                    if placement.device == id {
                        placement.stale = Stale::ALL;
                    }
                }
            }
        }
        if any {
            let now = self.core.now();
            let message =
                format!("{path} knows a root that this pool never had: all of it will be resilvered");
            self.core.events.push(now, "resync", Some(&path), message);
        }
    }

    /// Fails when something can't be read with the devices that are there. `differ`: some of them know other roots, as
    /// an `import -F` leaves them that was cut short.
    fn check_enough(&self, config: &Config, differ: bool) -> Result<()> {
        let core = &self.core;
        let lost: Vec<&Chunk> = core.map.iter().filter(|chunk| core.is_lost(chunk)).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut enough = Vec::new();
        for group in core.groups.values() {
            let away: Vec<&Device> = group
                .devices
                .iter()
                .filter_map(|id| core.devices.get(id))
                .filter(|device| !device.usable() && lost.iter().any(|chunk| chunk.is_on(device.id)))
                .collect();
            if away.is_empty() {
                continue;
            }
            let tolerance = lost
                .iter()
                .filter(|chunk| chunk.group == group.id)
                .map(|chunk| usize::from(chunk.layout.tolerance()))
                .min()
                .unwrap_or(0);
            let needed = away.len().saturating_sub(tolerance).max(1);
            missing.extend(away.iter().map(|device| format!("{} (guid {})", device.path, device.guid)));
            enough.push(format!("any {needed} of the {} missing from {}", away.len(), group.name()));
        }
        Err(PoolError::refused(format!(
            "pool '{}' can't be imported: too many devices are missing or not up to date: {}; enough would be {}{}",
            config.name,
            if missing.is_empty() {
                "none is missing, but some are stale".to_owned()
            } else {
                missing.join(", ")
            },
            if enough.is_empty() { "a device that is up to date".to_owned() } else { enough.join(" and ") },
            if differ { "; 'import -F' goes back to the newest root that opens" } else { "" }
        )))
    }

    /// Reads datasets, properties and what is going on.
    pub(crate) fn load_meta(&mut self) -> Result<()> {
        let mut datasets: BTreeMap<DatasetId, Dataset> = BTreeMap::new();
        let mut zombies = Vec::new();
        let mut lost = std::collections::BTreeSet::new();
        let mut jobs = Vec::new();
        let (mut checkpoint, mut rewound) = (None, None);
        let mut pool_item = None;
        let mut history = 0;
        let guid = self.core.guid;
        let kinds = [
            txg::POOL_KEY.kind,
            txg::dataset_key(DatasetId(0)).kind,
            txg::zombie_key(0).kind,
            txg::job_key(0).kind,
            txg::lost_key(Logical(0)).kind,
            txg::checkpoint_key(0).kind,
        ];
        for kind in kinds {
            let (from, to) = range_of(Key { object: 0, kind, offset: 0 });
            self.meta.scan(&mut self.core, from, to, |key, value| {
                if kind == kinds[0] {
                    pool_item = Some(value.to_vec());
                } else if kind == kinds[1] {
                    let id = DatasetId(key.offset);
                    datasets.insert(id, Dataset::decode(guid, id, value)?);
                } else if kind == kinds[2] {
                    zombies.push(Zombie::decode(key.offset, value)?);
                } else if kind == kinds[3] {
                    jobs.push((key, value.to_vec()));
                } else if kind == kinds[4] {
                    lost.insert(Logical(key.offset));
                } else if key == txg::checkpoint_key(0) {
                    checkpoint = Some(Checkpoint::decode(guid, value)?);
                } else if key == txg::checkpoint_key(1) {
                    rewound = Some(Rewind::decode(value)?);
                }
                Ok::<_, PoolError>(ControlFlow::Continue(()))
            })?;
        }
        if let Some((key, _)) = self.meta.last_before(&mut self.core, txg::job_key(0))?
            && key.kind == txg::history_key(0).kind
        {
            history = key.offset;
        }
        self.next_history = history + 1;
        if let Some(item) = pool_item {
            let mut r = Reader::new("pool item", &item);
            self.next_id = r.u64("next id")?;
            self.next_history = r.u64("next history")?;
            self.created = Millis(r.u64("created")?);
            for _ in 0..r.u16("properties")? {
                let name = r.text("property")?;
                self.properties.insert(name, r.text("property value")?);
            }
        }
        self.datasets = datasets;
        self.zombies = zombies;
        self.core.lost = lost;
        self.checkpoint = checkpoint;
        self.core.held_to = self.kept_checkpoint().map_or(Txg(0), |checkpoint| checkpoint.txg);
        self.rewound = rewound;
        for (key, item) in jobs {
            if key == txg::job_key(0) {
                self.decode_scan(&item)?;
            } else if key == txg::job_key(1) {
                self.decode_balance(&item)?;
            }
        }
        Ok(())
    }
}

/// The devices that carry a label of the pool.
pub(crate) fn members_of(guid: Guid, devices: Vec<NewDevice>) -> Result<Vec<Member>> {
    let mut members: Vec<Member> = Vec::new();
    for new in devices {
        let Ok(labels) = label::read(&*new.device) else { continue };
        let Some(label) = labels.label.as_ref().filter(|label| label.pool == guid) else { continue };
        if let Some(twin) = members.iter().find(|member| member.guid == label.device) {
            return Err(PoolError::refused(format!(
                "{} and {} carry the same label: one is a copy of the other; take one of them away",
                twin.new.path, new.path
            )));
        }
        members.push(Member { guid: label.device, id: label.id, labels, new });
    }
    if members.is_empty() {
        return Err(PoolError::NotFound { kind: "pool", name: guid.to_string() });
    }
    Ok(members)
}

/// The newest configuration that any label has.
fn newest_config(members: &[Member]) -> Config {
    let labels = members.iter().filter_map(|member| member.labels.label.as_ref());
    let newest = labels.filter(|label| !label.config.is_empty()).max_by_key(|label| label.txg);
    newest.map(|label| Config::parse(&label.config)).unwrap_or_default()
}
