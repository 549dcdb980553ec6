//! Every crash state of short programs: all sequences of up to three operations from a small alphabet, power failing
//! after every single request that changes a disk, and every outcome of that worth telling apart.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use device::sim::{Cut, Sectors, Survivor};
use device::{BlockDevice, Operation, Rng, SimDevice};
use geometry::Profile;
use pool::ScrubAction;
use pool::spec::{Draid, GroupKind, Resize, VolumeSpec};

use crate::model::{Model, Volume};
use crate::program::Setup;
use crate::run::{Failure, Run};
use crate::verify::observe;
use crate::world::{MIB, World, options};

/// Bytes of a sector of the disks here.
const SECTOR: u64 = 512;

/// Sectors of the last write of which every combination is tried.
const SECTORS_ALL: usize = 8;

/// Crash states of each program, where they are tried over several sittings: a million of all.
pub const STATES_EACH: usize = 50;

/// The alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// Whole blocks.
    Write,
    /// Part of a block.
    Patch,
    /// Blocks given back.
    Discard,
    /// Made durable.
    Flush,
    /// A volume more.
    Create,
    /// And less.
    Destroy,
    /// A snapshot more.
    Snapshot,
    /// And less.
    SnapshotDestroy,
    /// Back to the snapshot.
    Rollback,
    /// A smaller volume.
    Shrink,
    /// A commit begun and written, and volumes used beside it; what comes next meets it.
    Begin,
    /// The same commit, but for its writing nobody is there: what comes next has to do it.
    Promise,
    /// The same commit, and a flush that ends it.
    Behind,
    /// Background work.
    Tick,
    /// A scrub.
    Scrub,
    /// A disk replaced.
    Replace,
    /// A disk taken out.
    Offline,
    /// A group more.
    Add,
    /// A group of another kind.
    Convert,
    /// A checkpoint taken, or given up.
    Checkpoint,
    /// Down without order, and back to the checkpoint.
    Back,
    /// A larger volume.
    Grow,
    /// A property of a volume.
    Property,
    /// A side more.
    Attach,
    /// A disk less.
    Detach,
    /// A disk taken out and back.
    Online,
    /// A disk replaced, to the end.
    Resilver,
    /// A spare more, which takes over.
    Spare,
    /// Less of a disk used, to the end.
    Narrow,
    /// Faults forgotten.
    Clear,
    /// Down in order and up again.
    Export,
}

/// All letters.
pub const LETTERS: [Letter; 21] = [
    Letter::Write,
    Letter::Patch,
    Letter::Discard,
    Letter::Flush,
    Letter::Create,
    Letter::Destroy,
    Letter::Snapshot,
    Letter::SnapshotDestroy,
    Letter::Rollback,
    Letter::Shrink,
    Letter::Begin,
    Letter::Promise,
    Letter::Behind,
    Letter::Tick,
    Letter::Scrub,
    Letter::Replace,
    Letter::Offline,
    Letter::Add,
    Letter::Convert,
    Letter::Checkpoint,
    Letter::Back,
];

/// Commands beside the alphabet: each is a program by itself.
pub const COMMANDS: [Letter; 10] = [
    Letter::Grow,
    Letter::Property,
    Letter::Attach,
    Letter::Detach,
    Letter::Online,
    Letter::Resilver,
    Letter::Spare,
    Letter::Narrow,
    Letter::Clear,
    Letter::Export,
];

/// The pools.
pub fn setups() -> Vec<Setup> {
    let setup = |groups: Vec<(GroupKind, Vec<u64>)>, data| Setup { groups, data, metadata: None };
    vec![
        setup(vec![(GroupKind::Mirror, vec![64, 64])], None),
        setup(vec![(GroupKind::Raidz(1), vec![64, 64, 64])], None),
        setup(vec![(GroupKind::Draid(Draid { parity: 1, data: 1, spares: 1 }), vec![64; 4])], None),
        setup(vec![(GroupKind::Plain, vec![64])], None),
        setup(vec![(GroupKind::Plain, vec![64, 64, 64])], Some(Profile::Raid5)),
    ]
}

/// A pool with a little in it, on disks that forks are made of.
pub struct Base {
    world: World,
    model: Model,
}

/// Makes the pool that the sequences begin with.
///
/// # Errors
/// It can't be made.
pub fn base(setup: &Setup) -> Result<Base, Failure> {
    let mut run = Run::new(setup, 1, None, false)?;
    let spec = VolumeSpec { size: 64 << 10, block_size: 4096, sparse: true, properties: Vec::new() };
    run.create_volume("v", &spec)?;
    let volume = Arc::clone(&run.model.now().datasets["v"]);
    run.write_range("v", &volume, 0, 20 << 10)?;
    run.letter(Letter::Snapshot)?;
    let volume = Arc::clone(&run.model.now().datasets["v"]);
    run.write_range("v", &volume, 4096, 8192)?;
    run.flush()?;
    run.pool = None;
    Ok(Base { world: run.world, model: run.model })
}

impl Base {
    /// A pool of one's own in this state.
    ///
    /// # Errors
    /// It does not import.
    pub fn start(&self) -> Result<Run, Failure> {
        let mut world = self.world.fork(|_| true);
        let pool = world.import(&options()).map_err(|error| format!("import: {error}"))?;
        Ok(Run::adopt(world, pool, self.model.clone(), 1000))
    }
}

impl Run {
    /// Does what a letter stands for.
    ///
    /// # Errors
    /// Something is not as it must be.
    pub fn letter(&mut self, letter: Letter) -> Result<(), Failure> {
        let volume = self.model.now().datasets.get("v").cloned();
        let mut state = self.model.now().clone();
        match (letter, volume.clone()) {
            (Letter::Write, Some(volume)) if volume.size < 20 << 10 => {
                self.write_range("v", &volume, 4096, 4096)
            }
            (Letter::Write, Some(volume)) => self.write_range("v", &volume, 8192, 12 << 10),
            (Letter::Patch, Some(volume)) => self.write_range("v", &volume, 5000, 100),
            (Letter::Discard, Some(volume)) => {
                self.discard_range("v", &volume, 2048, (volume.size - 2048).min(10 << 10))
            }
            (Letter::Flush, _) => self.flush(),
            (Letter::Begin | Letter::Promise | Letter::Behind, _) => {
                self.letter(Letter::Write)?;
                let begun = self.pool().begin_commit().map_err(|error| format!("begin: {error}"))?;
                self.letter(Letter::Patch)?;
                self.letter(Letter::Discard)?;
                if letter != Letter::Promise {
                    begun.map(pool::CommitWork::run);
                }
                self.letter(Letter::Write)?;
                if letter == Letter::Behind {
                    // Ends it, and commits what was written beside it.
                    self.flush()?;
                }
                Ok(())
            }
            (Letter::Create, _) => {
                let spec =
                    VolumeSpec { size: 16 << 10, block_size: 8192, sparse: false, properties: Vec::new() };
                if !state.datasets.contains_key("w") {
                    self.create_volume("w", &spec)?;
                }
                Ok(())
            }
            (Letter::Destroy, _) => {
                let name = if state.datasets.contains_key("w") { "w" } else { "v" };
                if state.snapshots(name).is_empty() && state.datasets.remove(name).is_some() {
                    self.lead_to("destroy", vec![state], true, false, |pool| pool.volume_destroy(name))?;
                }
                Ok(())
            }
            (Letter::Snapshot, Some(volume)) => {
                self.next_name += 1;
                let mut copy = (*volume).clone();
                copy.order = self.next_name;
                let name = format!("v@s{}", self.next_name);
                state.datasets.insert(name.clone(), Arc::new(copy));
                self.lead_to("snapshot", vec![state], true, false, |pool| pool.snapshot(&name)).map(|_| ())
            }
            (Letter::SnapshotDestroy, Some(_)) => {
                if let Some(name) = state.snapshots("v").first().cloned() {
                    state.datasets.remove(&name);
                    self.lead_to("snapshot_destroy", vec![state], true, false, |pool| {
                        pool.snapshot_destroy(&name)
                    })?;
                }
                Ok(())
            }
            (Letter::Rollback, Some(_)) => {
                if let Some(name) = state.snapshots("v").last().cloned() {
                    let mut copy = (*state.datasets[&name]).clone();
                    copy.order = 0;
                    state.datasets.insert("v".into(), Arc::new(copy));
                    // A snapshot that is still being destroyed is a reason to refuse.
                    self.lead_to("rollback", vec![state], true, true, |pool| pool.rollback(&name))?;
                }
                Ok(())
            }
            (Letter::Shrink, Some(volume)) => {
                let size = 8192;
                let mut states = Vec::new();
                if size < volume.size {
                    state.change("v", |dataset| dataset.zero(size, dataset.size - size));
                    states.push(state.clone());
                }
                state.change("v", |dataset| dataset.size = size);
                states.push(state);
                self.lead_to("resize", states, true, false, |pool| pool.volume_resize("v", size)).map(|_| ())
            }
            (Letter::Tick, _) => {
                self.lead_to("tick", Vec::new(), false, true, |pool| pool.tick(1 << 20)).map(|_| ())
            }
            (Letter::Scrub, _) => self
                .lead_to("scrub", Vec::new(), false, true, |pool| pool.scrub(ScrubAction::Start))
                .map(|_| ()),
            (Letter::Replace, _) => {
                let disk = self.world.add_disk(64);
                let new = self.world.new_device(disk);
                let old =
                    self.pool().device_paths().first().map(|device| device.path.clone()).unwrap_or_default();
                let options = pool::ReplaceOptions::default();
                self.lead_to("replace", Vec::new(), false, true, |pool| pool.replace(&old, &new, options))
                    .map(|_| ())
            }
            (Letter::Offline, _) => {
                let path =
                    self.pool().device_paths().last().map(|device| device.path.clone()).unwrap_or_default();
                self.lead_to("offline", Vec::new(), false, true, |pool| pool.offline(&path, false))
                    .map(|_| ())
            }
            (Letter::Add, _) => {
                let devices = (0..2).map(|_| {
                    let disk = self.world.add_disk(64);
                    self.world.new_device(disk)
                });
                let group = pool::spec::GroupSpec { kind: GroupKind::Mirror, devices: devices.collect() };
                self.lead_to("add", Vec::new(), false, true, |pool| pool.add(&[group], true)).map(|_| ())
            }
            (Letter::Convert, _) => {
                let vdevs = self.pool().status().vdevs;
                let Some(vdev) = vdevs.iter().map(|vdev| &vdev.name).find(|name| name.contains('-')) else {
                    return Ok(());
                };
                let kind = GroupKind::Raidz(if vdev.starts_with("raidz1") { 2 } else { 1 });
                let convert = |pool: &mut pool::Pool| pool.convert(vdev, kind, true);
                self.lead_to("convert", Vec::new(), false, true, convert).map(|_| ())
            }
            (Letter::Checkpoint, _) if state.checkpoint.is_some() => self.checkpoint_discard(),
            (Letter::Checkpoint, _) => self.checkpoint(),
            (Letter::Back, _) => self.back_in_states(),
            _ => self.command(letter, volume),
        }
    }

    /// Plugs in a disk that is blank.
    fn blank(&mut self) -> pool::spec::NewDevice {
        let disk = self.world.add_disk(64);
        self.world.new_device(disk)
    }

    fn command(&mut self, letter: Letter, volume: Option<Arc<Volume>>) -> Result<(), Failure> {
        let paths: Vec<String> = self.pool().device_paths().into_iter().map(|device| device.path).collect();
        let (Some(first), Some(last)) = (paths.first(), paths.last()) else { return Ok(()) };
        let mut state = self.model.now().clone();
        match (letter, volume) {
            (Letter::Grow, Some(volume)) => {
                let size = volume.size + (64 << 10);
                state.change("v", |dataset| dataset.size = size);
                self.lead_to("resize", vec![state], true, false, |pool| pool.volume_resize("v", size))?;
            }
            (Letter::Property, Some(_)) => {
                let set = |pool: &mut pool::Pool| pool.set("v", "compression", "lz4");
                self.lead_to("set", Vec::new(), true, false, set)?;
            }
            (Letter::Attach, _) => {
                let new = self.blank();
                self.lead_to("attach", Vec::new(), false, true, |pool| pool.attach(first, &new))?;
            }
            (Letter::Detach, _) => {
                self.lead_to("detach", Vec::new(), false, true, |pool| pool.detach(first))?;
            }
            (Letter::Online, _) => {
                self.lead_to("offline", Vec::new(), false, true, |pool| pool.offline(last, false))?;
                self.lead_to("online", Vec::new(), false, true, |pool| pool.online(last, None, false))?;
            }
            (Letter::Resilver, _) => {
                self.letter(Letter::Replace)?;
                // Power does not fail by itself here.
                self.ending = true;
                self.settle()?;
            }
            (Letter::Spare, _) => {
                let devices = vec![self.blank()];
                let group = pool::spec::GroupSpec { kind: GroupKind::Spare, devices };
                let spare = group.devices[0].path.clone();
                self.lead_to("add", Vec::new(), false, true, |pool| pool.add(&[group], true))?;
                self.lead_to("spare", Vec::new(), false, true, |pool| {
                    pool.replace_by_spare(first, &spare, pool::ReplaceOptions::default())
                })?;
            }
            (Letter::Narrow, _) => {
                if let Some(disk) = self.world.by_path(first) {
                    self.world.disks[disk].device.set_size(80 * MIB);
                }
                self.lead_to("expand", Vec::new(), false, true, |pool| pool.online(first, None, true))?;
                let size = Resize::To(72 * MIB);
                self.lead_to("resize", Vec::new(), false, true, |pool| pool.resize(first, size))?;
                self.ending = true;
                self.settle()?;
            }
            (Letter::Clear, _) => {
                self.clear()?;
            }
            (Letter::Export, _) => {
                let Some(pool) = self.pool.take() else { return Ok(()) };
                match pool.export() {
                    Ok(()) => {
                        self.model.acknowledge();
                        let pool = self.world.import(&options());
                        self.pool = Some(pool.map_err(|error| format!("import: {error}"))?);
                    }
                    Err(failed) => {
                        let (pool, error) = *failed;
                        self.pool = Some(pool);
                        self.judge::<()>("export", Err(error), true)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The disks right after a request that changed one of them.
struct Moment {
    disks: Vec<SimDevice>,
    /// The disk that was changed, and whether by a write.
    last: (usize, bool),
}

/// Does a sequence of letters; gives the moments of the last one and the states that are possible in them.
fn moments(base: &Base, letters: &[Letter]) -> Result<(Vec<Moment>, Model, World), Failure> {
    let mut run = base.start()?;
    let Some((last, before)) = letters.split_last() else { return Err("no letters".into()) };
    for letter in before {
        run.letter(*letter)?;
    }
    // Disks that the last letter adds are not known yet: they are plugged in before it, blank and unused.
    let found: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let count = run.world.disks.len();
    let mut world = run.world.fork(|_| true);
    run.possible = run.model.clone();
    let watched: Arc<Mutex<Vec<Weak<SimDevice>>>> = Arc::default();
    run.world.watch = Some(Arc::new({
        let (found, watched) = (Arc::clone(&found), Arc::clone(&watched));
        move |index, operation| {
            if !matches!(operation, Operation::Write | Operation::Flush | Operation::Discard) {
                return;
            }
            let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            let disks = watched.iter().filter_map(Weak::upgrade).map(|disk| disk.fork()).collect();
            let moment = Moment { disks, last: (index, operation == Operation::Write) };
            found.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
        }
    }));
    for index in 0..count {
        run.world.rewatch(index, &watched);
    }
    run.world.watched = Some(watched);
    run.letter(*last)?;
    for disk in &run.world.disks {
        disk.device.clear_trace();
    }
    run.world.watch = None;
    // Before the call returned every state up to its end was possible, afterwards only the last.
    let possible = run.possible;
    let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
    world.disks.clear();
    Ok((found, possible, world))
}

/// For every disk what survives of its unflushed writes.
type Ending = Vec<Vec<Survivor>>;

/// How the unflushed writes of all disks may end: with the last one whole or gone, and with that one torn.
fn endings(moment: &Moment, rng: &mut Rng) -> (Vec<Ending>, Vec<Ending>) {
    let counts: Vec<usize> = moment.disks.iter().map(|disk| disk.unflushed().len()).collect();
    let total: usize = counts.iter().sum();
    let all = |index: usize| Survivor { index, sectors: Sectors::All };
    let keep: Vec<Vec<Survivor>> = counts.iter().map(|&count| (0..count).map(all).collect()).collect();
    let drop: Vec<Vec<Survivor>> = counts.iter().map(|_| Vec::new()).collect();
    if total == 0 {
        return (vec![drop], Vec::new());
    }
    let mut in_part = Vec::new();
    let mut ways = vec![drop.clone(), keep.clone()];
    let (disk, written) = moment.last;
    if written && counts.get(disk).is_some_and(|&count| count > 0) {
        let last = counts[disk] - 1;
        for sectors in torn(&moment.disks[disk], last, rng) {
            for others in [&keep, &drop] {
                let mut way = others.clone();
                way[disk].retain(|survivor| survivor.index != last);
                way[disk].push(Survivor { index: last, sectors: sectors.clone() });
                in_part.push(way);
            }
        }
        // All but the last one.
        let mut way = keep.clone();
        way[disk].pop();
        ways.push(way);
    }
    // One disk loses everything, the others nothing; and random parts of all.
    for lost in 0..counts.len().min(3) {
        let mut way = keep.clone();
        way[lost].clear();
        ways.push(way);
    }
    for _ in 0..3 {
        let mut way = keep.clone();
        way.iter_mut().for_each(|survivors| survivors.retain(|_| rng.chance(1, 2)));
        ways.push(way);
    }
    ways.dedup();
    (ways, in_part)
}

/// Every way in which an unflushed write may reach the medium in part, and whole. Sectors that it does not change make
/// no difference; of those that it does every combination is tried where they are few, and of more of them every
/// beginning, every end, each one alone, all but each one, and some at random.
fn torn(disk: &SimDevice, index: usize, rng: &mut Rng) -> Vec<Sectors> {
    let unflushed = disk.unflushed();
    let write = &unflushed[index];
    let before = disk.fork();
    // What was written earlier may have reached the medium or not: either is a difference.
    let earlier: Vec<Survivor> = (0..index).map(|index| Survivor { index, sectors: Sectors::All }).collect();
    let without = disk.fork();
    before.power_cut(Cut::Explicit(&earlier));
    without.power_cut(Cut::DropAll);
    let Some(bytes) = &write.bytes else { return vec![Sectors::All] };
    let mut old = [vec![0; bytes.len()], vec![0; bytes.len()]];
    let read =
        before.read(write.offset, &mut old[0]).is_ok() && without.read(write.offset, &mut old[1]).is_ok();
    let first = write.offset / SECTOR;
    let changed: Vec<u64> = (0..write.sectors(SECTOR))
        .filter(|&sector| {
            let from = ((first + sector) * SECTOR).max(write.offset) - write.offset;
            let to = ((first + sector + 1) * SECTOR).min(write.offset + write.length) - write.offset;
            let range = from as usize..to as usize;
            !read || old.iter().any(|old| old[range.clone()] != bytes[range.clone()])
        })
        .collect();
    let mask = |keep: &dyn Fn(usize) -> bool| {
        let mut words = vec![0; write.sectors(SECTOR).div_ceil(64) as usize];
        for (_, &sector) in changed.iter().enumerate().filter(|(at, _)| keep(*at)) {
            words[sector as usize / 64] |= 1 << (sector % 64);
        }
        Sectors::Mask(words)
    };
    let count = changed.len();
    if count <= SECTORS_ALL {
        return (0..1_u64 << count).map(|bits| mask(&|at| bits >> at & 1 == 1)).collect();
    }
    let mut ways: Vec<Sectors> = (0..=count).map(|end| mask(&|at| at < end)).collect();
    ways.extend((1..count).map(|start| mask(&|at| at >= start)));
    ways.extend((0..count).flat_map(|one| [mask(&|at| at == one), mask(&|at| at != one)]));
    for _ in 0..16 {
        let random: Vec<bool> = (0..count).map(|_| rng.chance(1, 2)).collect();
        ways.push(mask(&|at| random[at]));
    }
    ways
}

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Sequences of letters.
    pub sequences: u64,
    /// Crash states.
    pub states: u64,
}

/// All programs, in the order that a seed decides, and the pools that they begin with.
pub struct Crashes {
    bases: Vec<Base>,
    setups: Vec<Setup>,
    work: Vec<(usize, Vec<Letter>)>,
    seed: u64,
}

/// Tries at least `wanted` crash states (or all), by one thread.
///
/// # Errors
/// A crash that was not survived, with what led to it.
pub fn crash_states(wanted: u64, seed: u64) -> Result<Count, Failure> {
    let crashes = Crashes::new(seed)?;
    let most = crashes.states_each(wanted);
    let mut count = Count::default();
    for number in 0..crashes.sequences() {
        if count.states >= wanted {
            break;
        }
        count.states += crashes.try_sequence(number, most)?;
        count.sequences += 1;
    }
    Ok(count)
}

impl Crashes {
    /// Makes the pools.
    ///
    /// # Errors
    /// One can't be made.
    pub fn new(seed: u64) -> Result<Self, Failure> {
        let setups = setups();
        let bases = setups.iter().map(base).collect::<Result<Vec<_>, _>>()?;
        let sequences = sequences();
        let mut work: Vec<(usize, Vec<Letter>)> = (0..bases.len())
            .flat_map(|base| sequences.iter().map(move |letters| (base, letters.clone())))
            .collect();
        Rng::new(seed).shuffle(&mut work);
        Ok(Self { bases, setups, work, seed })
    }

    /// How many programs there are.
    pub fn sequences(&self) -> usize {
        self.work.len()
    }

    /// The most states to try of each program, so that there are `wanted` in all: few of many programs tell more
    /// than many of few.
    pub fn states_each(&self, wanted: u64) -> usize {
        (wanted / self.work.len() as u64).max(40) as usize
    }

    /// Tries crash states of one program, a random choice of at most `most`, or all of a program of one letter where
    /// `most` is [`STATES_EACH`]; gives how many.
    ///
    /// # Errors
    /// A crash that was not survived, with what led to it.
    pub fn try_sequence(&self, number: usize, most: usize) -> Result<u64, Failure> {
        let (which, letters) = &self.work[number];
        let most = if most == STATES_EACH && letters.len() == 1 { usize::MAX } else { most };
        let mut rng = Rng::new(self.seed ^ (number as u64) << 20);
        let what = |detail: String| {
            format!("program {number}, {letters:?} on {:?}: {detail}", self.setups[*which].groups)
        };
        let (moments, possible, world) = moments(&self.bases[*which], letters).map_err(what)?;
        let mut all: Vec<(usize, usize, Vec<Vec<Survivor>>)> = Vec::new();
        let mut torn = Vec::new();
        for (at, moment) in moments.iter().enumerate() {
            let (whole, in_part) = endings(moment, &mut rng);
            let ways = whole.into_iter().enumerate();
            all.extend(ways.map(|(way, survivors)| (at, way, survivors)));
            let ways = in_part.into_iter().enumerate();
            torn.extend(ways.map(|(way, survivors)| (at, 1000 + way, survivors)));
        }
        rng.shuffle(&mut all);
        rng.shuffle(&mut torn);
        // Half of them tear the last write, as far as there are others.
        all.truncate(most.saturating_sub(torn.len()).max(most / 2));
        torn.truncate(most.saturating_sub(all.len()));
        all.append(&mut torn);
        for (at, way, survivors) in &all {
            survive(&moments[*at], survivors, &possible, &world)
                .map_err(|failure| what(format!("power cut after change {at}, ending {way}: {failure}")))?;
        }
        Ok(all.len() as u64)
    }
}

/// All sequences of up to three letters.
fn sequences() -> Vec<Vec<Letter>> {
    let mut sequences: Vec<Vec<Letter>> = COMMANDS.iter().map(|&command| vec![command]).collect();
    for a in LETTERS {
        sequences.push(vec![a]);
        for b in LETTERS {
            sequences.push(vec![a, b]);
            sequences.extend(LETTERS.map(|c| vec![a, b, c]));
        }
    }
    sequences
}

fn survive(
    moment: &Moment,
    survivors: &[Vec<Survivor>],
    possible: &Model,
    world: &World,
) -> Result<(), Failure> {
    let mut after = world.fork(|_| true);
    for (disk, survivors) in moment.disks.iter().zip(survivors) {
        let disk = disk.fork();
        disk.power_cut(Cut::Explicit(survivors));
        after.add_device(disk);
    }
    let mut pool = after.import(&options()).map_err(|error| format!("the pool does not import: {error}"))?;
    let seen = observe(&mut pool)?;
    if possible.clone().find(&seen).is_none() {
        let newest = possible.now().difference(&seen).unwrap_or_default();
        let oldest = possible.acknowledged().difference(&seen).unwrap_or_default();
        return Err(format!("neither the new ({newest}) nor the old ({oldest})"));
    }
    let report = pool.check().map_err(|error| format!("check: {error}"))?;
    match report.problems.first() {
        Some(problem) => Err(format!("check says: {problem}")),
        None => Ok(()),
    }
}
