//! The machine that a pool lives in: disks, their power, a clock, and a log of everything that happens.
//!
//! Also the budget of faults: which disks may lie, fail or be away so that nothing is lost ([`World::may_impair`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use device::sim::PowerSupply;
use device::{Inline, Rng, SimDevice};
use pool::report::{State, VdevReport};
use pool::spec::{Host, ImportOptions, NewDevice};
use pool::types::{Guid, Millis};
use pool::{Clock, Env, Pool};

use crate::aside::Moments;

/// 2^20 bytes.
pub const MIB: u64 = 1 << 20;

/// A clock that moves one millisecond with every look, and further when told to.
#[derive(Debug, Default)]
pub struct SimClock(AtomicU64);

impl Clock for SimClock {
    fn now(&self) -> Millis {
        Millis(1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl SimClock {
    /// Moves on.
    pub fn advance(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::Relaxed);
    }
}

/// Everything that happened: a digest always, the lines when wanted.
#[derive(Debug, Default)]
pub struct Log {
    /// Changes with every event.
    pub digest: u64,
    /// Requests to disks so far.
    pub requests: u64,
    lines: Option<Vec<String>>,
}

impl Log {
    /// An empty one; with `trace` it keeps every event as a line.
    pub fn new(trace: bool) -> Self {
        Self { lines: trace.then(Vec::new), ..Self::default() }
    }

    /// Takes the lines out.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds an event.
    pub fn event(&mut self, line: impl FnOnce() -> String, words: &[u64]) {
        for word in words {
            self.digest = (self.digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(line());
        }
    }
}

/// A disk and what is wrong with it.
#[derive(Debug)]
pub struct Disk {
    /// The disk.
    pub device: Arc<SimDevice>,
    /// Where the pool finds it.
    pub path: String,
    /// Milliseconds that each request takes.
    pub latency: Arc<AtomicU64>,
}

/// Another pool on some of the disks, which must stay as it is.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its identity.
    pub guid: Guid,
    /// Its disks.
    pub disks: Vec<usize>,
    /// Left in order.
    pub exported: bool,
    /// What it holds.
    pub state: crate::model::State,
}

/// Writes: the number of the disk, offset and length.
pub type Written = Vec<(usize, u64, u64)>;

/// Who is told of every request: the disk's number and what was asked.
pub type Watch = Arc<dyn Fn(usize, device::Operation) + Send + Sync>;

/// Disks, power, time.
pub struct World {
    /// All disks there ever were; those that were detached are free for use again.
    pub disks: Vec<Disk>,
    /// What all of them hang on.
    pub supply: Arc<PowerSupply>,
    /// Time.
    pub clock: Arc<SimClock>,
    /// What happened.
    pub log: Arc<Mutex<Log>>,
    /// Disks that may hold something wrong, or lack something, since everything was last healed.
    pub impaired: BTreeSet<usize>,
    /// Disks that may have errors on record.
    pub blamable: BTreeSet<usize>,
    /// Disks whose writes or flushes may have failed, each of which said so, or that were away: what they lack is known, and
    /// nothing that counts is wrong on them.
    pub told: BTreeSet<usize>,
    /// Losses that plain disks survive by their profiles.
    pub heap_tolerance: usize,
    /// The pool.
    pub guid: Guid,
    /// Disks that were used as a pool of their own, and may still have that history.
    pub apart: BTreeSet<usize>,
    /// Told of every request, instead of the log.
    pub watch: Option<Watch>,
    /// Writes are noted here while there is a list.
    pub written: Arc<Mutex<Option<Written>>>,
    /// A moment of what is done now is kept here while somebody wants one.
    pub moments: Arc<Mutex<Option<Moments>>>,
    /// The host that the pool is used on.
    pub host: Host,
    /// Pools of the same name on other disks.
    pub others: Vec<Other>,
    /// The disks that whoever watches looks at.
    pub watched: Option<Arc<Mutex<Vec<Weak<SimDevice>>>>>,
    seed: Rng,
}

impl World {
    /// A machine without disks; with `trace` every event is kept as a line.
    pub fn new(seed: u64, trace: bool) -> Self {
        let log = Log::new(trace);
        Self {
            disks: Vec::new(),
            supply: Arc::new(PowerSupply::new()),
            clock: Arc::new(SimClock::default()),
            log: Arc::new(Mutex::new(log)),
            impaired: BTreeSet::new(),
            blamable: BTreeSet::new(),
            told: BTreeSet::new(),
            heap_tolerance: 0,
            guid: Guid(0),
            apart: BTreeSet::new(),
            watch: None,
            written: Arc::default(),
            moments: Arc::default(),
            host: host(),
            others: Vec::new(),
            watched: None,
            seed: Rng::new(seed),
        }
    }

    /// Plugs in a new, blank disk.
    pub fn add_disk(&mut self, mebibytes: u64) -> usize {
        let index = self.disks.len();
        let device = SimDevice::new(format!("d{index}"), mebibytes * MIB, self.seed.next_u64());
        self.add_device(device);
        index
    }

    /// Plugs in a disk.
    pub fn add_device(&mut self, device: SimDevice) {
        self.add_device_as(self.disks.len(), device);
    }

    fn add_device_as(&mut self, index: usize, device: SimDevice) {
        device.set_supply(Some(Arc::clone(&self.supply)));
        let log = Arc::clone(&self.log);
        let (clock, latency) = (Arc::clone(&self.clock), Arc::new(AtomicU64::new(0)));
        let slow = Arc::clone(&latency);
        let (written, moments) = (Arc::clone(&self.written), Arc::clone(&self.moments));
        device.set_trace(move |event| {
            clock.advance(slow.load(Ordering::Relaxed));
            if event.operation == device::Operation::Write
                && let Some(list) = written.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
            {
                list.push((index, event.offset, event.length));
            }
            if let Some(moments) = moments.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                moments.see(event);
            }
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.requests += 1;
            let line = || {
                let outcome = event
                    .outcome
                    .as_ref()
                    .map_or_else(|error| format!(": {}", error.kind_name()), |()| String::new());
                format!("    d{index} {} {}+{}{outcome}", event.operation, event.offset, event.length)
            };
            let words = [
                index as u64,
                event.operation as u64,
                event.offset,
                event.length,
                u64::from(event.outcome.is_ok()),
            ];
            log.event(line, &words);
        });
        self.disks.push(Disk { device: Arc::new(device), path: format!("/dev/d{index}"), latency });
        if let Some(watched) = self.watched.clone() {
            self.rewatch(index, &watched);
        }
    }

    /// Puts another disk where one was, with the same number and path.
    pub fn swap_device(&mut self, index: usize, device: SimDevice) {
        self.add_device_as(index, device);
        if let Some(disk) = self.disks.pop() {
            self.disks[index] = Disk { path: self.disks[index].path.clone(), ..disk };
        }
    }

    /// Lets whoever watches see this disk.
    pub fn rewatch(&self, index: usize, watched: &Arc<Mutex<Vec<Weak<SimDevice>>>>) {
        let Some(watch) = self.watch.clone() else { return };
        let device = &self.disks[index].device;
        watched.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(device));
        device.set_trace(move |event| watch(index, event.operation));
    }

    /// Notes an event.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let text = line();
        let words: Vec<u64> = text.bytes().map(u64::from).collect();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).event(|| text, &words);
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).digest
    }

    /// Takes the lines out.
    pub fn take_lines(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).take_lines()
    }

    /// What an engine gets from this world.
    pub fn env(&mut self) -> Env {
        Env {
            clock: self.clock.clone(),
            runner: Arc::new(Inline),
            seed: self.seed.next_u64(),
            cache_bytes: 4 * MIB,
        }
    }

    /// A disk as it is given to the pool.
    pub fn new_device(&self, disk: usize) -> NewDevice {
        NewDevice::new(self.disks[disk].device.clone(), self.disks[disk].path.clone())
    }

    /// The same machine with copies of the disks (those of `which`), for trying something out.
    pub fn fork(&self, which: impl Fn(usize) -> bool) -> Self {
        let mut world = Self::new(self.seed.clone().next_u64(), false);
        world.clock.advance(self.clock.now().0 - 1_700_000_000_000);
        world.guid = self.guid;
        world.heap_tolerance = self.heap_tolerance;
        world.host.clone_from(&self.host);
        world.impaired.clone_from(&self.impaired);
        world.apart.clone_from(&self.apart);
        world.blamable.clone_from(&self.blamable);
        world.told.clone_from(&self.told);
        for (index, disk) in self.disks.iter().enumerate() {
            let device = disk.device.fork();
            if !which(index) {
                device.pull();
            }
            world.add_device(device);
        }
        world
    }

    /// The disks that are there.
    pub fn present(&self) -> Vec<NewDevice> {
        (0..self.disks.len())
            .filter(|&d| self.disks[d].device.is_present())
            .map(|d| self.new_device(d))
            .collect()
    }

    /// Imports the pool from the disks that are there. Disks that were used apart from the others are left out when
    /// they have a history of their own.
    ///
    /// # Errors
    /// As `Pool::import`.
    pub fn import(&mut self, options: &ImportOptions) -> Result<Pool, pool::PoolError> {
        let options = &ImportOptions { host: self.host.clone(), ..options.clone() };
        let env = self.env();
        let devices = self.present();
        match Pool::import(&env, self.guid, devices, options).map(|(pool, _)| pool) {
            Err(pool::PoolError::Refused(why)) if self.is_apart(&why) => {
                self.note(|| format!("not imported: {why}"));
                // They keep their history until they have a root of the pool again.
                for &disk in &self.apart {
                    self.disks[disk].device.pull();
                }
                let devices = self.present();
                Pool::import(&env, self.guid, devices, options).map(|(pool, _)| pool)
            }
            other => other,
        }
    }

    /// Whether a refusal is about two histories, and one side is disks that were used apart, and perhaps others that
    /// lack something: what those have is older than both histories. Or about a newest root that does not open, which
    /// may be one that such a disk alone has, with rot in it.
    fn is_apart(&self, why: &str) -> bool {
        if why.contains("does not open") {
            return !self.apart.is_empty();
        }
        let Some((_, sides)) = why.split_once("each side has what the other has not: ") else { return false };
        sides.split(" up to ").take(2).any(|side| {
            let paths = side.rsplit_once("and ").map_or(side, |(_, paths)| paths);
            let disks: Option<Vec<usize>> = paths.split(", ").map(|path| self.by_path(path)).collect();
            disks.is_some_and(|disks| {
                disks.iter().any(|disk| self.apart.contains(disk))
                    && disks.iter().all(|disk| self.apart.contains(disk) || self.impaired.contains(disk))
            })
        })
    }

    /// Which disk has a path.
    pub fn by_path(&self, path: &str) -> Option<usize> {
        self.disks.iter().position(|disk| disk.path == path)
    }

    /// The pool that a disk is part of beside the one that this is about.
    pub fn other_on(&self, disk: usize) -> Option<usize> {
        self.others.iter().position(|other| other.disks.contains(&disk))
    }

    /// Disks that are no part of a pool.
    pub fn unused(&self, pool: &Pool) -> Vec<usize> {
        let used: BTreeSet<String> = pool.device_paths().into_iter().map(|device| device.path).collect();
        (0..self.disks.len())
            .filter(|&d| !used.contains(&self.disks[d].path) && self.disks[d].device.is_present())
            .filter(|&d| self.other_on(d).is_none())
            .collect()
    }

    /// Whether nothing is lost if this disk lies, fails or goes away from now on.
    pub fn may_impair(&self, pool: &mut Pool, disk: usize) -> bool {
        let mut bad = self.impaired.clone();
        bad.insert(disk);
        self.tolerates(pool, &bad)
    }

    /// Whether everything can be read without these disks, those that are away already, and what is stale.
    pub fn tolerates(&self, pool: &mut Pool, bad: &BTreeSet<usize>) -> bool {
        let mut gone: BTreeSet<u32> = BTreeSet::new();
        let mut guids: BTreeSet<Guid> = BTreeSet::new();
        for device in pool.device_paths() {
            let disk = self.by_path(&device.path);
            let away = !device.is_open || !matches!(device.state, State::Online | State::Degraded);
            if away || disk.is_none_or(|disk| bad.contains(&disk)) {
                gone.insert(device.id.0);
                guids.insert(device.guid);
            }
        }
        let map = pool.map();
        let fits = map.iter().all(|chunk| {
            let mut alive: BTreeMap<u16, bool> = BTreeMap::new();
            for placement in &chunk.placements {
                let good = !gone.contains(&placement.device.0) && placement.stale_regions == 0;
                *alive.entry(placement.column).or_default() |= good;
            }
            let lost = alive.values().filter(|alive| !**alive).count();
            lost <= tolerance(&chunk.profile, alive.len())
        });
        // A vdev that is being converted bears what its weakest chunk bears, whatever its name says.
        let mut weakest: BTreeMap<&str, usize> = BTreeMap::new();
        for chunk in &map {
            let columns: BTreeSet<u16> = chunk.placements.iter().map(|placement| placement.column).collect();
            let bears = tolerance(&chunk.profile, columns.len());
            weakest.entry(&chunk.group).and_modify(|least| *least = bears.min(*least)).or_insert(bears);
        }
        fits && self.groups_tolerate(&pool.status().vdevs, &guids, &weakest)
    }

    fn groups_tolerate(
        &self,
        vdevs: &[VdevReport],
        gone: &BTreeSet<Guid>,
        weakest: &BTreeMap<&str, usize>,
    ) -> bool {
        let hit = |vdev: &VdevReport| any_leaf(vdev, &|leaf| gone.contains(&leaf.guid));
        let mut heap = 0;
        for vdev in vdevs {
            let tolerated = if vdev.name.starts_with("mirror") {
                vdev.children.len() - 1
            } else if let Some(rest) = raid(&vdev.name) {
                rest[..1].parse().unwrap_or(0)
            } else {
                heap += usize::from(hit(vdev));
                continue;
            };
            let tolerated = weakest.get(&vdev.name[..]).map_or(tolerated, |&weakest| tolerated.min(weakest));
            if vdev.children.iter().filter(|child| hit(child)).count() > tolerated {
                return false;
            }
        }
        heap <= self.heap_tolerance
    }
}

/// What follows in the name of a raidz or draid: first of all its parity.
fn raid(name: &str) -> Option<&str> {
    name.strip_prefix("raidz").or_else(|| name.strip_prefix("draid"))
}

fn any_leaf(vdev: &VdevReport, is: &dyn Fn(&VdevReport) -> bool) -> bool {
    if vdev.children.is_empty() { is(vdev) } else { vdev.children.iter().any(|child| any_leaf(child, is)) }
}

/// Columns that a chunk can lose, by the name of its profile.
pub fn tolerance(profile: &str, columns: usize) -> usize {
    match profile {
        "mirror" => columns - 1,
        "raidz1" | "draid1" | "RAID1" | "RAID10" | "RAID5" => 1,
        "raidz2" | "draid2" | "RAID6" => 2,
        "raidz3" | "draid3" => 3,
        _ if profile.ends_with("-copies") || profile.starts_with("RAID1C") => columns - 1,
        _ => 0,
    }
}

/// The host that runs the simulation.
pub fn host() -> Host {
    Host { id: 7, name: "simulator".into() }
}

/// How pools are imported here.
pub fn options() -> ImportOptions {
    ImportOptions { host: host(), ..ImportOptions::default() }
}

/// A short name for a device error.
trait KindName {
    fn kind_name(&self) -> String;
}

impl KindName for device::DeviceError {
    fn kind_name(&self) -> String {
        format!("{:?}", self.kind)
    }
}
