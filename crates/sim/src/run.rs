//! One run: a program on a pool in a world, held against the model.
//!
//! - this file: the run itself, its tallies, and how outcomes are judged
//! - `volumes`, `admin`, `faults`, `pools`: what the steps do
//! - `verify`: what must hold after a crash and at the end

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use device::Rng;
use geometry::Profile;
use pool::spec::{CreateSpec, GroupKind, GroupSpec};
use pool::{Pool, PoolError};

use crate::model::{Model, State};
use crate::program::{Kind, Program, Setup, Step};
use crate::world::{World, host};

/// What went wrong: a sentence.
pub type Failure = String;

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By name: done, and refused or without effect.
    pub counts: BTreeMap<String, (u64, u64)>,
}

impl Tally {
    /// A tally of one thing, done so often.
    pub fn of(name: String, count: u64) -> Self {
        Self { counts: [(name, (count, 0))].into() }
    }

    /// Counts one.
    pub fn add(&mut self, name: &str, done: bool) {
        let entry = self.counts.entry(name.to_owned()).or_default();
        if done {
            entry.0 += 1;
        } else {
            entry.1 += 1;
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (name, (done, refused)) in &other.counts {
            let entry = self.counts.entry(name.clone()).or_default();
            entry.0 += done;
            entry.1 += refused;
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What went wrong and in which step (the number of steps: at the end), if anything did.
    pub failure: Option<(usize, Failure)>,
    /// A digest of every event.
    pub digest: u64,
    /// What was tried.
    pub tally: Tally,
    /// Every event, if wanted.
    pub lines: Vec<String>,
}

/// A root that can be gone back to.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) txg: pool::types::Txg,
    pub(crate) state: State,
    /// Comments that the pool may have had.
    pub(crate) comments: Vec<String>,
    /// The members of the pool at that time.
    pub(crate) devices: Vec<pool::types::Guid>,
}

/// A pool, its world and what it should hold.
pub struct Run {
    /// Disks and all that.
    pub world: World,
    /// The pool; none only while it is being imported.
    pub pool: Option<Pool>,
    /// What it holds.
    pub model: Model,
    /// What was tried.
    pub tally: Tally,
    /// The defect that the engine is made to show.
    pub sabotage: Option<String>,
    /// Steps until a power cut that has not come by itself comes anyway.
    pub(crate) fuse: Option<u64>,
    pub(crate) next_name: u64,
    /// Power does not fail any more.
    pub(crate) ending: bool,
    /// All faults are being ended: no new ones come.
    pub(crate) healing: bool,
    /// Changes of disks that the last step of background work made.
    pub(crate) tick_changes: u64,
    /// What was acknowledged with the last transaction groups of this import.
    pub(crate) roots: Vec<Root>,
    /// The states that were possible during the last call.
    pub(crate) possible: Model,
    pub(crate) keep_possible: bool,
    pub(crate) last_event: u64,
    pub(crate) next_pattern: u64,
    /// Names that the pool may have, the one that is certain to be durable first.
    pub(crate) names: Vec<String>,
    /// Comments that it may have, in the same way.
    pub(crate) comments: Vec<String>,
}

impl Run {
    /// Makes the pool of a program.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new(setup: &Setup, seed: u64, sabotage: Option<&str>, trace: bool) -> Result<Self, Failure> {
        let mut world = World::new(seed, trace);
        let disks: Vec<usize> =
            setup.groups.iter().flat_map(|(_, sizes)| sizes).map(|&size| world.add_disk(size)).collect();
        let spec = spec_of(setup, &world, &disks);
        world.heap_tolerance = heap_tolerance(setup);
        let env = world.env();
        world.note(|| format!("create {setup:?}"));
        let (mut pool, _) = Pool::create(&env, &spec, &host()).map_err(|error| format!("create: {error}"))?;
        world.guid = pool.guid();
        if let Some(name) = sabotage {
            pool.sabotage(name);
        }
        Ok(Self {
            world,
            pool: Some(pool),
            model: Model::new(),
            tally: Tally::default(),
            sabotage: sabotage.map(str::to_owned),
            fuse: None,
            next_name: 0,
            roots: Vec::new(),
            ending: false,
            healing: false,
            tick_changes: 0,
            possible: Model::new(),
            keep_possible: false,
            last_event: 0,
            next_pattern: seed << 20,
            names: vec!["tank".to_owned()],
            comments: vec![String::new()],
        })
    }

    /// A run that goes on with a pool that exists.
    pub fn adopt(world: World, pool: Pool, model: Model, next: u64) -> Self {
        Self {
            world,
            pool: Some(pool),
            model,
            tally: Tally::default(),
            sabotage: None,
            fuse: None,
            next_name: next,
            roots: Vec::new(),
            ending: false,
            healing: false,
            tick_changes: 0,
            possible: Model::new(),
            keep_possible: true,
            last_event: 0,
            next_pattern: next << 20,
            names: vec!["tank".to_owned()],
            comments: vec![String::new()],
        }
    }

    /// The pool.
    ///
    /// # Panics
    /// Never between steps.
    pub fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("there is a pool between steps")
    }

    /// A number that no block was filled from before.
    pub(crate) fn pattern_number(&mut self) -> u64 {
        self.next_pattern += 1;
        self.next_pattern
    }

    /// Does one step and, if power failed in it, the crash.
    ///
    /// # Errors
    /// Something is not as it must be.
    pub fn step(&mut self, step: Step) -> Result<(), Failure> {
        let mut rng = Rng::new(step.seed);
        let done = self.act(step.kind, &mut rng);
        self.note_events();
        done?;
        if let Some(left) = self.fuse {
            if self.world.supply.is_on() && left == 0 {
                self.world.supply.cut();
            }
            self.fuse = Some(left.saturating_sub(1));
        }
        if !self.world.supply.is_on() {
            self.fuse = None;
            self.crash(&mut rng)?;
        }
        Ok(())
    }

    /// Puts the pool's own events into the log.
    pub(crate) fn note_events(&mut self) {
        let Some(pool) = &self.pool else { return };
        for event in pool.events(self.last_event) {
            self.last_event = event.id;
            self.world.note(|| format!("  ! {}: {}", event.class, event.message));
        }
    }

    fn act(&mut self, kind: Kind, rng: &mut Rng) -> Result<(), Failure> {
        match kind {
            Kind::Write => self.write(rng),
            Kind::Read => self.read(rng),
            Kind::Discard => self.discard(rng),
            Kind::Flush => self.flush(),
            Kind::Create => self.create(rng),
            Kind::Destroy => self.destroy(rng),
            Kind::Resize => self.resize(rng),
            Kind::Property => self.property(rng),
            Kind::Snapshot => self.snapshot(rng),
            Kind::SnapshotDestroy => self.snapshot_destroy(rng),
            Kind::Rollback => self.rollback(rng),
            Kind::Fill => self.fill(rng),
            Kind::Scrub => self.scrub(rng),
            Kind::Replace => self.replace(rng),
            Kind::ReplaceBySpare => self.replace_by_spare(rng),
            Kind::Attach => self.attach(rng),
            Kind::Detach => self.detach(rng),
            Kind::Offline => self.offline(rng),
            Kind::Online => self.online(rng),
            Kind::Add => self.add(rng),
            Kind::AddSpare => self.add_spare(rng),
            Kind::RemoveSpare => self.remove_spare(rng),
            Kind::Remove => self.remove(rng),
            Kind::Grow => self.grow(rng),
            Kind::Clear => self.clear(),
            Kind::Check => self.check(),
            Kind::Export => self.export(rng),
            Kind::ReadOnly => self.import_read_only(rng),
            Kind::Tick => self.tick(rng),
            Kind::Settle => self.settle(),
            Kind::Wait => self.wait(rng),
            Kind::DropCaches => self.drop_caches(),
            Kind::Behind => self.behind(rng),
            Kind::PowerCut => self.arm(rng),
            Kind::Kill => self.kill(rng),
            Kind::Pull => self.pull(rng),
            Kind::Return => self.give_back(rng),
            Kind::Rot => self.rot(rng),
            Kind::ReadErrors => self.read_errors(rng),
            Kind::WriteErrors => self.write_errors(rng),
            Kind::Effect => self.effect(rng),
            Kind::Rates => self.rates(rng),
            Kind::Wipe => self.wipe(rng),
            Kind::Split => self.split(rng),
            Kind::Heal => self.heal(),
            Kind::Overload => self.overload(rng),
            Kind::Latency => self.latency(rng),
            Kind::Rewind => self.rewind(rng),
            Kind::Recreate => self.recreate(rng),
            Kind::Foreign => self.foreign(rng),
            Kind::Other => self.other(rng),
            Kind::Unopenable => self.unopenable(rng),
            Kind::Rename => self.rename(rng),
            Kind::PoolProperty => self.pool_property(rng),
            Kind::Balance => self.balance(rng),
            Kind::BalanceControl => self.balance_control(rng),
            Kind::Convert => self.convert(rng),
            Kind::DeviceResize => self.resize_device(rng),
            Kind::Checkpoint => self.checkpoint(),
            Kind::CheckpointDiscard => self.checkpoint_discard(),
            Kind::RewindToCheckpoint => self.rewind_to_checkpoint(rng),
        }
    }

    /// Judges the outcome of a call: `Some` if it was done, `None` if it was refused for a good reason or power
    /// failed in it. `refusals`: whether it may be refused at all.
    pub(crate) fn judge<T>(
        &mut self,
        what: &str,
        result: Result<T, PoolError>,
        refusals: bool,
    ) -> Result<Option<T>, Failure> {
        let name = what.split(' ').next().unwrap_or_default().to_owned();
        self.tally.add(&name, result.is_ok());
        self.world.note(|| match &result {
            Ok(_) => format!("{what}: ok"),
            Err(error) => format!("{what}: {error}"),
        });
        match result {
            Ok(value) => Ok(Some(value)),
            Err(_) if !self.world.supply.is_on() => Ok(None),
            Err(PoolError::Refused(_) | PoolError::NotFound { .. } | PoolError::Exists { .. })
                if refusals =>
            {
                Ok(None)
            }
            // What frees, and what makes durable, always finds room.
            Err(PoolError::NoSpace)
                if ["write", "trim", "resize", "create", "snapshot", "checkpoint"]
                    .contains(&name.as_str())
                    && self.is_nearly_full() =>
            {
                Ok(None)
            }
            Err(PoolError::NoSpace) => {
                let usage = self.pool().usage();
                let (free, size) = (usage.free_estimated, usage.device_size);
                Err(format!("{what} failed: no space, though {free} bytes of {size} should be free"))
            }
            Err(error) => Err(format!("{what} failed: {error}")),
        }
    }

    /// Whether there is so little room that it may be said that there is none. A block lies in one chunk: of each as
    /// much may be left as is too little for one of the largest, with the rest of a row.
    fn is_nearly_full(&mut self) -> bool {
        let largest = self.model.now().datasets.values().map(|volume| volume.block).max().unwrap_or(0);
        let chunks = self.pool().map().into_iter().filter(|chunk| chunk.class == "Data");
        let scraps: u64 =
            chunks.map(|chunk| (chunk.length.saturating_sub(chunk.used)).min(2 * largest)).sum();
        let usage = self.pool().usage();
        let free = usage.free_estimated.saturating_sub(scraps);
        free < 8 << 20 || free < usage.device_size / 16
    }

    /// After a call that was not done while power is on: finds out how far it came. `base` states were possible
    /// before it.
    pub(crate) fn catch_up(&mut self, base: usize) -> Result<(), Failure> {
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let seen = self.observe();
        // Reading repairs, and power may fail in it.
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let seen = seen?;
        match self.model.find(&seen) {
            Some(index) if index + 1 >= base => {
                self.model.truncate(index + 1);
                Ok(())
            }
            _ => {
                let why = self.model.now().difference(&seen).unwrap_or_default();
                Err(format!("a call that failed left something else than the old or the new: {why}"))
            }
        }
    }

    /// A call that leads to `states` one after another, the last of which is durable once it is done (if `durable`).
    pub(crate) fn lead_to<T>(
        &mut self,
        what: &str,
        states: Vec<State>,
        durable: bool,
        refusals: bool,
        call: impl FnOnce(&mut Pool) -> Result<T, PoolError>,
    ) -> Result<bool, Failure> {
        let base = self.model.count();
        states.into_iter().for_each(|state| self.model.push(state));
        if self.keep_possible {
            self.possible = self.model.clone();
        }
        let result = call(self.pool());
        let done = self.judge(what, result, refusals)?.is_some();
        if !done {
            self.catch_up(base)?;
        } else if durable {
            self.model.acknowledge();
            let (state, comments) = (self.model.now().clone(), self.comments.clone());
            let pool = self.pool();
            let devices = pool.device_paths().iter().map(|device| device.guid).collect();
            let root = Root { txg: pool.last_txg(), state, comments, devices };
            self.roots.push(root);
            if self.roots.len() > 4 {
                self.roots.remove(0);
            }
        }
        Ok(done)
    }
}

/// What makes the pool of a setup out of these disks.
pub(crate) fn spec_of(setup: &Setup, world: &World, disks: &[usize]) -> CreateSpec {
    let mut disks = disks.iter();
    let groups = setup
        .groups
        .iter()
        .map(|(kind, sizes)| GroupSpec {
            kind: *kind,
            devices: disks.by_ref().take(sizes.len()).map(|&disk| world.new_device(disk)).collect(),
        })
        .collect();
    CreateSpec {
        name: "tank".into(),
        groups,
        data: setup.data,
        metadata: setup.metadata,
        properties: Vec::new(),
        command: "create".into(),
    }
}

/// Losses that the plain disks of a setup bear.
pub(crate) fn heap_tolerance(setup: &Setup) -> usize {
    let plain: usize =
        setup.groups.iter().filter(|(kind, _)| *kind == GroupKind::Plain).map(|(_, sizes)| sizes.len()).sum();
    let metadata = setup.metadata.unwrap_or(if plain > 1 { Profile::Raid1 } else { Profile::Dup });
    profile_tolerance(setup.data.unwrap_or(Profile::Single)).min(profile_tolerance(metadata))
}

/// Disks that a profile can lose.
pub(crate) fn profile_tolerance(profile: Profile) -> usize {
    match profile {
        Profile::Single | Profile::Dup | Profile::Raid0 => 0,
        Profile::Raid1 | Profile::Raid10 | Profile::Raid5 => 1,
        Profile::Raid1c3 | Profile::Raid6 => 2,
        Profile::Raid1c4 => 3,
    }
}

/// Runs a program to its end or its first failure.
pub fn run(program: &Program, sabotage: Option<&str>, trace: bool) -> Outcome {
    let mut outcome = Outcome { failure: None, digest: 0, tally: Tally::default(), lines: Vec::new() };
    let mut at = 0;
    let mut kept: Option<Run> = None;
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<(), Failure> {
        let run = kept.insert(Run::new(&program.setup, program.seed, sabotage, trace)?);
        for (index, step) in program.steps.iter().enumerate() {
            at = index;
            run.world.note(|| format!("step {index}: {step}"));
            run.step(*step)?;
            run.tally.add("step", true);
        }
        at = program.steps.len();
        run.world.note(|| "end".to_owned());
        run.finish()
    }));
    match result {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => outcome.failure = Some((at, failure)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            outcome.failure = Some((at, format!("panic: {}", text.unwrap_or_default())));
        }
    }
    if let Some(run) = kept {
        outcome.digest = run.world.digest();
        outcome.lines = run.world.take_lines();
        outcome.tally = run.tally;
    }
    outcome
}
