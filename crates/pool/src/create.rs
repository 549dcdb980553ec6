//! Making a pool.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use device::BlockDevice;
use device::rng::Rng;
use geometry::Profile;
use tree::{Tree, TreeId};

use crate::chunk::{ChunkMap, Remaps};
use crate::core::{Cache, Core, Device, Env, EventLog, Group, Relation, Workers};
use crate::error::{PoolError, Result};
use crate::label::{self, DEVICE_BYTES_MIN};
use crate::pool::{CHUNK_TREE, EXTENT_TREE, FIRST_ID, META_TREE, Pool};
use crate::report::Plan;
use crate::scan::Scan;
use crate::spec::{CreateSpec, GroupKind, GroupSpec, Host, NewDevice};
use crate::txg::{Claims, Pace};
use crate::types::{DeviceId, GroupId, Guid, Millis, Session, Txg};

/// The most devices of one group: a chunk has as many columns at most.
const GROUP_DEVICES_MAX: usize = crate::chunk::COLUMNS_MAX;

/// The most devices of a pool.
pub(crate) const POOL_DEVICES_MAX: usize = 1024;

impl Core {
    /// A core without devices.
    pub(crate) fn new(env: &Env, name: String, guid: Guid) -> Self {
        let mut rng = Rng::new(env.seed);
        let session = Session(rng.next_u64());
        Self {
            clock: env.clock.clone(),
            runner: env.runner.clone(),
            workers: Arc::new(Workers::new(env.runner.parallelism())),
            rng,
            name,
            guid,
            session,
            txg: Txg(1),
            read_only: false,
            suspended: false,
            devices: BTreeMap::new(),
            groups: BTreeMap::new(),
            map: ChunkMap::default(),
            remaps: Remaps::default(),
            nodes: HashMap::new(),
            data: HashMap::new(),
            cache: Cache::new(env.cache_bytes),
            spare: Arc::default(),
            unwritten_nodes: BTreeMap::new(),
            unwritten_extents: BTreeMap::new(),
            dirty_devices: BTreeSet::new(),
            labels_dirty: false,
            events: EventLog::default(),
            lost: BTreeSet::new(),
            healing: BTreeMap::new(),
            next_address: 1 << 20,
            new_headers: Vec::new(),
            current_nodes: BTreeMap::new(),
            current_data: BTreeMap::new(),
            unloaded_frees: BTreeMap::new(),
            potential: RefCell::default(),
            left: RefCell::default(),
            widths: RefCell::default(),
            charged: Vec::new(),
            new_marks: Vec::new(),
            looking_back: false,
            held_to: Txg(0),
            held_nodes: Vec::new(),
            relocating: false,
            relocating_in: None,
            #[cfg(feature = "sabotage")]
            sabotage: None,
        }
    }
}

impl Pool {
    /// A pool without trees, datasets or history.
    pub(crate) fn empty(core: Core, host: Host) -> Self {
        let tree = |id| Tree::new(TreeId { pool: core.guid.0, tree: id }, None);
        let pace = Pace::new(core.cache.bound());
        Self {
            chunks: tree(CHUNK_TREE),
            meta: tree(META_TREE),
            extents: tree(EXTENT_TREE),
            core,
            datasets: BTreeMap::new(),
            zombies: Vec::new(),
            checkpoint: None,
            rewound: None,
            properties: BTreeMap::new(),
            created: Millis(0),
            next_id: FIRST_ID,
            next_history: 1,
            next_device: 1,
            next_group: 0,
            sessions: Vec::new(),
            goes_back_to: None,
            committed: Txg(0),
            roots: VecDeque::new(),
            changed: false,
            dirty_bytes: 0,
            pace,
            last_commit: Millis(0),
            syncing: None,
            commits_begun: 0,
            commits_done: 0,
            committed_slots: BTreeMap::new(),
            unsettled_bitmaps: BTreeSet::new(),
            room_bytes: 0,
            room_piece: 0,
            room_blocks: 0,
            room_stamp: Txg(0),
            claims: Claims::default(),
            scan: Scan::default(),
            balance: None,
            reclaim: crate::balance::Reclaim::default(),
            host,
        }
    }

    /// Makes a pool on devices whose contents do not matter any more.
    ///
    /// # Errors
    /// As [`Pool::plan_create`], or a device that can't be written.
    pub fn create(env: &Env, spec: &CreateSpec, host: &Host) -> Result<(Self, Plan)> {
        let plan = Self::plan_create(spec)?;
        let mut rng = Rng::new(env.seed ^ 0x636f_6666_6572);
        let guid = Guid(rng.next_u64().max(1));
        let mut pool = Self::empty(Core::new(env, spec.name.clone(), guid), host.clone());
        pool.created = pool.core.now();
        pool.properties = spec.properties.iter().cloned().collect();
        for group in &spec.groups {
            pool.add_group(group, spec.data, spec.metadata)?;
        }
        for new in spec.groups.iter().flat_map(|group| &group.devices) {
            label::make_blank(new)?;
        }
        pool.start_session()?;
        pool.write_config()?;
        pool.core.labels_dirty = true;
        pool.changed = true;
        pool.log_history(&spec.command)?;
        pool.commit()?;
        Ok((pool, plan))
    }

    /// What `create` would do, after every check that it makes.
    ///
    /// # Errors
    /// Too few or too small devices, a device given twice, an unfit name, property or profile.
    pub fn plan_create(spec: &CreateSpec) -> Result<Plan> {
        check_pool_name(&spec.name)?;
        for (property, value) in &spec.properties {
            crate::dataset::check_pool_property(property, value)?;
        }
        let plain =
            spec.groups.iter().filter(|group| group.kind == GroupKind::Plain).map(|g| g.devices.len()).sum();
        if spec.groups.iter().all(|group| group.kind == GroupKind::Spare) {
            return Err(PoolError::refused("a pool needs at least one device that is not a spare"));
        }
        if plain == 0 && (spec.data.is_some() || spec.metadata.is_some()) {
            return Err(PoolError::refused(
                "--data and --metadata are for plain disks, and none was given; mirror, raidz and draid groups bring their own layout",
            ));
        }
        check_profiles(spec.data, spec.metadata, plain)?;
        let mut plan = check_groups(&spec.groups, &[])?;
        plan.steps.insert(0, format!("create pool '{}'", spec.name));
        if plain > 0
            && matches!(spec.data.unwrap_or(Profile::Single), Profile::Single | Profile::Dup | Profile::Raid0)
        {
            plan.notices.push(
                "data on plain disks will not survive the loss of a disk: without a second copy or parity, damage is found but \
                 not repaired; mirror, raidz or --data raid1 repair it"
                    .to_owned(),
            );
        }
        let devices = || spec.groups.iter().flat_map(|group| &group.devices);
        let files = devices().filter(|new| !new.device.info().block_device).count();
        if files > 0 {
            plan.notices.push(format!(
                "{files} of {} devices are files: they are only as safe as the file system that holds them",
                devices().count()
            ));
        }
        Ok(plan)
    }

    /// Adds a group and its devices to the configuration in memory.
    pub(crate) fn add_group(
        &mut self,
        group: &GroupSpec<NewDevice>,
        data: Option<Profile>,
        metadata: Option<Profile>,
    ) -> Result<()> {
        // Plain disks are one heap, whenever they come.
        let heap =
            self.core.groups.values().find(|known| known.kind == GroupKind::Plain).map(|known| known.id);
        let id = match (group.kind, heap) {
            (GroupKind::Spare, _) => None,
            (GroupKind::Plain, Some(heap)) => Some(heap),
            _ => {
                let id = GroupId(self.next_group);
                self.next_group += 1;
                let metadata =
                    metadata.unwrap_or(if group.devices.len() > 1 { Profile::Raid1 } else { Profile::Dup });
                let data = data.unwrap_or(Profile::Single);
                self.core.groups.insert(id, Group::new(id, group.kind, data, metadata));
                Some(id)
            }
        };
        for new in &group.devices {
            let relation = id.map_or(Relation::Spare, Relation::Member);
            let device = self.add_device(new, relation)?;
            if let Some(group) = id.and_then(|id| self.core.groups.get_mut(&id)) {
                group.devices.push(device);
            }
        }
        Ok(())
    }

    /// Adds a device to the configuration in memory.
    pub(crate) fn add_device(&mut self, new: &NewDevice, relation: Relation) -> Result<DeviceId> {
        self.add_device_of(new, new.device.size()?, relation)
    }

    /// As [`Pool::add_device`], of which only the first `size` bytes are used.
    pub(crate) fn add_device_of(
        &mut self,
        new: &NewDevice,
        size: u64,
        relation: Relation,
    ) -> Result<DeviceId> {
        let id = DeviceId(self.next_device);
        self.next_device += 1;
        let guid = Guid(self.core.rng.next_u64().max(1));
        let mut device = Device::new(id, guid, new.path.clone(), size, relation);
        device.handle = Some(new.device.clone());
        device.never_seen = false;
        device.joins = true;
        self.core.devices.insert(id, device);
        self.core.dirty_devices.insert(id);
        Ok(id)
    }

    /// Begins a session: every import is one.
    pub(crate) fn start_session(&mut self) -> Result<()> {
        let number = self.sessions.len() as u64;
        self.sessions.push((self.core.session, self.committed));
        // The session before this one ended with the root that was imported, and if that did nothing but go back, the
        // one before with the root that it went back to.
        let known = self.sessions.len().saturating_sub(3);
        for (index, (session, last)) in self.sessions.iter().enumerate().skip(known) {
            let mut w = crate::codec::Writer::default();
            w.u64(session.0);
            w.u64(last.0);
            let key = crate::txg::session_key(number + index as u64 + 1 - self.sessions.len() as u64);
            self.chunks.insert(&mut self.core, key, &w.finish())?;
        }
        Ok(())
    }

    /// Brings the groups and numbers in the chunk tree up to date.
    pub(crate) fn write_config(&mut self) -> Result<()> {
        let mut w = crate::codec::Writer::default();
        w.text(&self.core.name);
        w.u32(self.next_device);
        w.u32(self.next_group);
        w.u64(self.core.next_address);
        self.chunks.insert(&mut self.core, crate::txg::CONFIG_KEY, &w.finish())?;
        let (from, to) = crate::txg::range_of(crate::txg::group_key(GroupId(0)));
        let mut gone = Vec::new();
        let groups = &self.core.groups.keys().copied().collect::<BTreeSet<_>>();
        self.chunks.scan(&mut self.core, from, to, |key, _| {
            if !groups.contains(&GroupId(key.offset as u32)) {
                gone.push(key);
            }
            Ok::<_, PoolError>(std::ops::ControlFlow::Continue(()))
        })?;
        for key in gone {
            self.chunks.remove(&mut self.core, key)?;
        }
        for group in self.core.groups.values().cloned().collect::<Vec<_>>() {
            self.chunks.insert(&mut self.core, crate::txg::group_key(group.id), &group.encode())?;
        }
        self.core.labels_dirty = true;
        self.core.space_changed();
        self.changed = true;
        Ok(())
    }
}

/// Names that a pool can't have because they begin a vdev specification or a report.
const RESERVED_NAMES: [&str; 9] =
    ["mirror", "raidz", "draid", "spare", "log", "cache", "special", "dedup", "replacing"];

/// Whether a name is fit for a pool: zpool's rules.
fn check_pool_name(name: &str) -> Result<()> {
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.len() <= 200
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    if !fits {
        return Err(PoolError::refused(format!(
            "'{name}' is no name for a pool: it begins with a letter and has letters, digits and _ - . : only"
        )));
    }
    if RESERVED_NAMES.iter().any(|reserved| name.starts_with(reserved)) {
        return Err(PoolError::refused(format!("'{name}' is no name for a pool: it begins like a vdev")));
    }
    Ok(())
}

/// Whether so many plain disks can satisfy the profiles.
pub(crate) fn check_profiles(data: Option<Profile>, metadata: Option<Profile>, disks: usize) -> Result<()> {
    for (class, profile) in [("data", data), ("metadata", metadata)] {
        let Some(profile) = profile else { continue };
        if class == "metadata" && matches!(profile, Profile::Raid5 | Profile::Raid6) {
            let instead = if profile == Profile::Raid5 { "raid1" } else { "raid1c3" };
            return Err(PoolError::refused(format!(
                "metadata can't be {profile}: it is kept in copies; {instead} survives as many losses"
            )));
        }
        let least = usize::from(profile.min_devices());
        if disks < least {
            return Err(PoolError::refused(format!(
                "the {class} profile {profile} needs at least {least} plain disks, {disks} given"
            )));
        }
    }
    Ok(())
}

/// Checks of groups to be made, beside devices that the pool has already; what the user should know of them.
pub(crate) fn check_groups(groups: &[GroupSpec<NewDevice>], known: &[&dyn BlockDevice]) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut seen: Vec<&NewDevice> = Vec::new();
    for group in groups {
        let name = match group.kind {
            GroupKind::Plain => "disk".to_owned(),
            GroupKind::Mirror => "mirror".to_owned(),
            GroupKind::Raidz(parity @ 1..=3) => format!("raidz{parity}"),
            GroupKind::Raidz(parity) => {
                return Err(PoolError::refused(format!(
                    "raidz{parity} is not known: raidz1, raidz2 and raidz3 are"
                )));
            }
            GroupKind::Spare => "spare".to_owned(),
            GroupKind::Draid(draid) if draid.is_valid() => draid.name(group.devices.len()),
            GroupKind::Draid(draid) => {
                return Err(PoolError::refused(format!("{} can't be made", draid.name(group.devices.len()))));
            }
        };
        let least = group.kind.min_devices();
        if group.devices.len() < least {
            return Err(PoolError::refused(format!(
                "{name} needs at least {least} devices, {} given",
                group.devices.len()
            )));
        }
        let most = match group.kind {
            GroupKind::Mirror | GroupKind::Raidz(_) => GROUP_DEVICES_MAX,
            GroupKind::Draid(_) => crate::draid::CHILDREN_MAX,
            GroupKind::Plain | GroupKind::Spare => usize::MAX,
        };
        if group.devices.len() > most {
            return Err(PoolError::refused(format!(
                "{name} has {} devices; {most} is the most for one group, make several",
                group.devices.len()
            )));
        }
        let mut sizes = BTreeSet::new();
        for new in &group.devices {
            let size = new.device.size()?;
            if size < DEVICE_BYTES_MIN {
                return Err(PoolError::refused(format!(
                    "{} is too small: it has {size} bytes, the least is {DEVICE_BYTES_MIN} (64 MiB)",
                    new.path
                )));
            }
            let same = |other: &dyn BlockDevice| std::ptr::addr_eq(other, &raw const *new.device);
            if seen.iter().any(|other| same(&*other.device) || other.path == new.path)
                || known.iter().any(|&other| same(other))
            {
                return Err(PoolError::refused(format!("{} is given twice", new.path)));
            }
            seen.push(new);
            sizes.insert(size);
        }
        let paths: Vec<&str> = group.devices.iter().map(|new| new.path.as_str()).collect();
        plan.steps.push(format!("{name}: {}", paths.join(" ")));
        if sizes.len() > 1 && matches!(group.kind, GroupKind::Raidz(_)) {
            plan.notices.push(format!(
                "{name} has devices of different sizes: each chunk takes as many columns as still have room, so \
                 the room on the larger ones is used with fewer columns"
            ));
        }
        if sizes.len() > 1 && group.kind.draid().is_some_and(|draid| draid.spares > 0) {
            plan.notices
                .push(format!("{name} has devices of different sizes: each is used as far as the smallest"));
        }
        if sizes.len() > 1 && group.kind == GroupKind::Mirror {
            plan.notices
                .push("mirror has devices of different sizes: it holds as much as the smallest".to_owned());
        }
        if matches!(group.kind, GroupKind::Raidz(_)) && !(3..=9).contains(&group.devices.len()) {
            plan.notices
                .push(format!("{name} works best with 3 to 9 devices, {} given", group.devices.len()));
        }
    }
    if seen.len() + known.len() > POOL_DEVICES_MAX {
        return Err(PoolError::refused(format!("a pool has at most {POOL_DEVICES_MAX} devices")));
    }
    Ok(plan)
}
