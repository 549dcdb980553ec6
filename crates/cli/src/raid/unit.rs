//! A unit in use: the set, its jobs, its record. And the way to one: in this process, or through the one that holds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use device::BlockDevice;
use protocol::raid::{self, Failures, RaidReply, RaidRequest};
use protocol::request::{Reply, Request};
use protocol::told::Told;
use raidset::raidctl::Invocation;
use raidset::set::{Abandoned, ConfigureError, RaidSet, RebuildKind, SetError};

use super::record::{Part, Record, Units};
use super::{Context, actions, parts};
use crate::control::{Client, Connected, connect};
use crate::error::{Failure, Outcome};
use crate::host;
use crate::state::PoolLock;

/// How long a unit that another command has for a moment is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes of each component that one step of a job works on.
const STEP_BYTES: u64 = 4 << 20;
/// How often a rebuild notes how far it has come.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// Units of units of units: no more of them than this.
const MAX_DEPTH: u32 = 8;

/// What goes on in the background.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// Where a parity rewrite stands.
    rewrite: Option<u64>,
    /// Where a scrub stands, and whether it corrects.
    scrub: Option<(u64, bool)>,
    mismatches: u64,
    repairs: u64,
    trouble: Option<String>,
    failed: Failures,
    /// A reconstruction failed: the next one does not start by itself before somebody has changed something.
    held_back: bool,
    checkpoint: Option<Instant>,
}

impl Jobs {
    /// A rebuild has begun, so that the last one of its kind has not failed.
    fn begun(&mut self, kind: RebuildKind) {
        self.trouble = None;
        match kind {
            RebuildKind::Reconstruction => self.failed.reconstruction = None,
            RebuildKind::Copyback => self.failed.copyback = None,
        }
    }
}

/// A unit that this process holds.
#[derive(Debug)]
pub(crate) struct Unit {
    number: u32,
    set: Arc<RaidSet>,
    jobs: Mutex<Jobs>,
    record: Mutex<Record>,
    units: Units,
    below: Vec<Arc<Unit>>,
    _lock: PoolLock,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unit {
    /// A unit of a set that was just configured.
    pub(crate) fn new(
        set: RaidSet,
        record: Record,
        units: Units,
        below: Vec<Arc<Self>>,
        lock: PoolLock,
    ) -> Self {
        Self {
            number: record.unit,
            set: Arc::new(set),
            jobs: Mutex::new(Jobs { failed: record.failed.clone(), ..Jobs::default() }),
            record: Mutex::new(record),
            units,
            below,
            _lock: lock,
        }
    }

    /// Takes a configured unit into use, and those below it.
    ///
    /// # Errors
    /// Too few components are there.
    pub(crate) fn attach(units: &Units, record: Record, right: PoolLock, depth: u32) -> Outcome<Self> {
        let below = Self::attach_below(units, &record, depth)?;
        let name = format!("raid{}", record.unit);
        let damaged = || {
            Failure::refused(format!(
                "the record of {name} is damaged: unconfigure it and configure it again"
            ))
        };
        let (parameters, known) =
            (record.parameters().ok_or_else(damaged)?, record.known().ok_or_else(damaged)?);
        let (columns, problems) = parts::slots(&record.columns, &below);
        let (spares, _) = parts::slots(&record.spares, &below);
        let set = RaidSet::attach(record.unit, parameters, &columns, &spares, &known, host::runner());
        let set = set.map_err(|error| {
            let why = match error {
                ConfigureError::TooManyLost { .. } if !problems.is_empty() => {
                    format!("{error}: {}", problems.join("; "))
                }
                _ => error.to_string(),
            };
            Failure::refused(format!("{name} cannot be used: {why}"))
        })?;
        Ok(Self::new(set, record, units.clone(), below, right))
    }

    /// Takes the units into use that a unit is built of.
    ///
    /// # Errors
    /// One is in use elsewhere.
    pub(crate) fn attach_below(units: &Units, record: &Record, depth: u32) -> Outcome<Vec<Arc<Self>>> {
        if depth > MAX_DEPTH {
            return Err(Failure::refused(format!("raid{} is built of itself", record.unit)));
        }
        let mut below = Vec::new();
        for number in record.below() {
            let Some(lower) = units.find(number)? else { continue };
            let right = units.lock(number)?.map_err(|pid| {
                Failure::refused(format!(
                    "raid{number}, of which raid{} is built, is in use by process {pid}",
                    record.unit
                ))
            })?;
            below.push(Arc::new(Self::attach(units, lower, right, depth + 1)?));
        }
        Ok(below)
    }

    /// N of raidN.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// All units that are remembered.
    pub(crate) const fn units(&self) -> &Units {
        &self.units
    }

    /// The set.
    pub(crate) const fn set(&self) -> &Arc<RaidSet> {
        &self.set
    }

    /// Units that it is built of.
    pub(crate) fn below(&self) -> &[Arc<Self>] {
        &self.below
    }

    /// This unit and all below it.
    pub(crate) fn tree(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let below = self.below.iter().flat_map(|unit| unit.tree());
        std::iter::once(Arc::clone(self)).chain(below).collect()
    }

    /// Remembers what has changed about the components.
    ///
    /// # Errors
    /// The state folder can't be written.
    pub(crate) fn save(&self) -> Outcome {
        let failed = self.progress().failed;
        let known = self.set.known();
        let mut record = lock(&self.record);
        let old: Vec<Part> = record.columns.iter().chain(&record.spares).cloned().collect();
        let find = |name: &str| {
            let part = old.iter().find(|part| part.name == name).cloned();
            part.unwrap_or_else(|| {
                // Columns that were never there have made-up names; anything else is a device that was added.
                let path = if name.starts_with("component") {
                    None
                } else {
                    parts::part(name).ok().and_then(|part| part.path)
                };
                Part { name: name.to_owned(), path }
            })
        };
        let columns = known.columns.iter().map(|column| find(&column.name)).collect();
        let spares = known.spares.iter().map(|spare| find(&spare.name)).collect();
        let mut new = Record::new(self.number, &self.set.parameters(), columns, spares, &known);
        new.failed = failed;
        if new != *record {
            self.units.save(&new)?;
            self.units.note_places(&new)?;
            *record = new;
        }
        Ok(())
    }

    /// Whether a parity rewrite runs.
    pub(crate) fn is_rewriting(&self) -> bool {
        lock(&self.jobs).rewrite.is_some()
    }

    /// Starts a parity rewrite, unless one runs.
    pub(crate) fn start_rewrite(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.trouble = None;
        jobs.failed.rewrite = None;
        jobs.rewrite.get_or_insert(0);
    }

    /// Starts a rebuild. Those of its kind that failed before do not count any more.
    ///
    /// # Errors
    /// It can't begin.
    pub(crate) fn start_rebuild(&self, begin: impl FnOnce() -> Result<(), SetError>) -> Result<(), SetError> {
        let mut jobs = lock(&self.jobs);
        begin()?;
        if let Some((kind, ..)) = self.set.rebuild_progress() {
            jobs.begun(kind);
        }
        jobs.held_back = false;
        Ok(())
    }

    /// Spares may start by themselves again, although a reconstruction failed.
    pub(crate) fn let_spares_start(&self) {
        lock(&self.jobs).held_back = false;
    }

    /// Notes a rebuild that was given up, and tells it.
    fn note_abandoned(&self, jobs: &mut Jobs) {
        let Some(Abandoned { kind, name, why }) = self.set.take_abandoned() else { return };
        let why = format!("{name}: {why}");
        let what = match kind {
            RebuildKind::Reconstruction => {
                jobs.held_back = true;
                jobs.failed.reconstruction = Some(why.clone());
                "reconstruction"
            }
            RebuildKind::Copyback => {
                jobs.failed.copyback = Some(why.clone());
                "copyback"
            }
        };
        eprintln!("raid{}: {what} failed: {why}", self.number);
        jobs.trouble = Some(why);
    }

    /// Starts a scrub, unless one runs.
    pub(crate) fn start_scrub(&self, repair: bool) {
        let mut jobs = lock(&self.jobs);
        if jobs.scrub.is_none() {
            (jobs.scrub, jobs.mismatches, jobs.repairs, jobs.trouble) = (Some((0, repair)), 0, 0, None);
        }
    }

    /// How far jobs have come.
    pub(crate) fn progress(&self) -> raid::Jobs {
        let mut jobs = lock(&self.jobs);
        self.note_abandoned(&mut jobs);
        let stripes = self.set.layout().stripes();
        let part = |done: u64| raid::Part { done, total: stripes };
        let rebuild = |kind| {
            let (_, _, progress) = self.set.rebuild_progress().filter(|(running, ..)| *running == kind)?;
            Some(raid::Part { done: progress.done, total: progress.total })
        };
        raid::Jobs {
            reconstruction: rebuild(RebuildKind::Reconstruction),
            rewrite: jobs.rewrite.map(part),
            copyback: rebuild(RebuildKind::Copyback),
            scrub: jobs.scrub.map(|(done, _)| part(done)),
            mismatches: jobs.mismatches,
            repairs: jobs.repairs,
            trouble: jobs.trouble.clone(),
            failed: jobs.failed.clone(),
        }
    }

    /// One bounded step of the jobs; true if there is more to do.
    pub(crate) fn step(&self) -> bool {
        let mut jobs = lock(&self.jobs);
        let layout = self.set.layout();
        let rows = (STEP_BYTES / (u64::from(layout.unit()) * u64::from(self.set.sector_size()))).max(1);
        let stripes = rows * layout.stripes_per_row();
        self.note_abandoned(&mut jobs);
        let rebuilding = self.set.rebuild_progress().is_some();
        let wants_spare = |jobs: &Jobs| self.set.wants_spare().filter(|_| !jobs.held_back);
        let result;
        if let Some(column) = wants_spare(&jobs) {
            result = self.set.reconstruct_to_spare(column);
            jobs.begun(RebuildKind::Reconstruction);
            if let Err(error) = &result {
                // Trying again at once would come to the same.
                jobs.held_back = true;
                jobs.failed.reconstruction = Some(error.to_string());
            }
        } else if self.set.rebuild_progress().is_some() {
            let due = jobs.checkpoint.is_none_or(|last| last.elapsed() >= CHECKPOINT_EVERY);
            result = self.set.rebuild_step(rows).and_then(|progress| {
                if due && !progress.finished() {
                    jobs.checkpoint = Some(Instant::now());
                    return self.set.rebuild_checkpoint().map(drop);
                }
                Ok(())
            });
        } else if let Some(mut cursor) = jobs.rewrite {
            let step = self.set.rewrite_parity(&mut cursor, stripes);
            jobs.rewrite = step.as_ref().is_ok_and(|progress| !progress.finished()).then_some(cursor);
            jobs.failed.rewrite = step.as_ref().err().map(ToString::to_string);
            result = step.map(drop);
        } else if let Some((mut cursor, repair)) = jobs.scrub {
            let before = self.set.repairs();
            let step = self.set.check_parity(&mut cursor, stripes, repair);
            jobs.repairs += self.set.repairs() - before;
            let end = step.is_err() || cursor >= layout.stripes();
            jobs.scrub = (!end).then_some((cursor, repair));
            result = step.map(|wrong| jobs.mismatches += wrong);
        } else {
            return false;
        }
        jobs.trouble = match result {
            Err(error) if rebuilding && self.set.rebuild_progress().is_none() => {
                // Told, with the name of the component, below.
                Some(error.to_string())
            }
            Err(error) => {
                eprintln!("raid{}: {error}", self.number);
                Some(error.to_string())
            }
            Ok(()) => jobs.trouble.take(),
        };
        self.note_abandoned(&mut jobs);
        jobs.rewrite.is_some()
            || jobs.scrub.is_some()
            || self.set.rebuild_progress().is_some()
            || wants_spare(&jobs).is_some()
    }

    /// Ends the use of the unit and of those below it: everything is durable, and labels say so.
    ///
    /// # Errors
    /// A component that cannot be done without fails.
    pub(crate) fn close(&self) -> Outcome {
        let closed =
            self.set.close().map_err(|error| Failure::refused(format!("raid{}: {error}", self.number)));
        let saved = self.save();
        self.below.iter().map(|unit| unit.close()).fold(closed.and(saved), Outcome::and)
    }

    /// Carries out what a holder can be asked, other than serving.
    ///
    /// # Errors
    /// Reading or writing fails.
    pub(crate) fn answer(
        self: &Arc<Self>,
        ask: &RaidRequest,
        payload: &[u8],
    ) -> Outcome<(RaidReply, Vec<u8>)> {
        let done = |reply| Ok((reply, Vec::new()));
        match ask {
            RaidRequest::Run { words } => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let invocation =
                    Invocation::parse(&words).map_err(|error| Failure::usage(error.to_string()))?;
                let told = actions::run(self, &invocation);
                self.save()?;
                done(RaidReply::Told(told))
            }
            RaidRequest::Scrub { repair } => {
                self.start_scrub(*repair);
                done(RaidReply::Told(Told::nothing()))
            }
            RaidRequest::Progress => done(RaidReply::Jobs(self.progress())),
            RaidRequest::Size => done(RaidReply::Size(self.set.size()?)),
            RaidRequest::Read { offset, length } => {
                if *length as usize > protocol::MAX_TRANSFER {
                    return Err(Failure::refused(format!("a read of {length} bytes is too long")));
                }
                let mut data = vec![0; *length as usize];
                self.set.read(*offset, &mut data)?;
                Ok((RaidReply::Done, data))
            }
            RaidRequest::Write { offset } => {
                self.set.write(*offset, payload)?;
                done(RaidReply::Done)
            }
            RaidRequest::Flush => {
                self.set.flush()?;
                done(RaidReply::Done)
            }
            RaidRequest::Serve { .. } => {
                Err(Failure::refused("only a process that holds the unit serves it"))
            }
        }
    }
}

/// A way to a unit.
pub(crate) enum Reach {
    /// Held by this process.
    Local(Arc<Unit>),
    /// Held by another.
    Remote(Client),
}

impl Reach {
    /// The way to a unit; `None` if it is not configured.
    ///
    /// # Errors
    /// It cannot be used, or another process has it for long without answering.
    pub(crate) fn open(context: &Context, number: u32) -> Outcome<Option<Self>> {
        let units = &context.units;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if units.find(number)?.is_none() {
                return Ok(None);
            }
            if let Connected::Holder(client) = connect(&units.socket(number), context.program)? {
                return Ok(Some(Self::Remote(client)));
            }
            match units.lock(number)? {
                Ok(right) => {
                    let Some(record) = units.find(number)? else { return Ok(None) };
                    return Ok(Some(Self::Local(Arc::new(Unit::attach(units, record, right, 0)?))));
                }
                Err(pid) if Instant::now() > deadline => {
                    return Err(Failure::refused(format!("raid{number} is in use by process {pid}")));
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Carries out a command line.
    ///
    /// # Errors
    /// The state folder, or the connection.
    pub(crate) fn run(&mut self, invocation: &Invocation, words: &[String]) -> Outcome<Told> {
        match self {
            Self::Local(unit) => {
                let told = actions::run(unit, invocation);
                unit.save()?;
                Ok(told)
            }
            Self::Remote(_) => self.ask(&RaidRequest::Run { words: words.to_vec() }),
        }
    }

    /// Asks something that is answered with a text.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn ask(&mut self, ask: &RaidRequest) -> Outcome<Told> {
        match self.call(ask, &[])? {
            (RaidReply::Told(told), _) => Ok(told),
            _ => mismatch(),
        }
    }

    /// How far jobs have come. Without a holder they advance by this.
    ///
    /// # Errors
    /// The connection.
    pub(crate) fn progress(&mut self) -> Outcome<raid::Jobs> {
        if let Self::Local(unit) = self {
            for unit in unit.tree() {
                unit.step();
            }
        }
        self.jobs()
    }

    /// How far jobs have come, without anything being done for them.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(crate) fn jobs(&mut self) -> Outcome<raid::Jobs> {
        match self.call(&RaidRequest::Progress, &[])? {
            (RaidReply::Jobs(jobs), _) => Ok(jobs),
            _ => mismatch(),
        }
    }

    /// Asks something.
    ///
    /// # Errors
    /// What the unit or the connection says.
    pub(crate) fn call(&mut self, ask: &RaidRequest, payload: &[u8]) -> Outcome<(RaidReply, Vec<u8>)> {
        match self {
            Self::Local(unit) => unit.answer(ask, payload),
            Self::Remote(client) => match client.call(&Request::Raid { ask: ask.clone() }, payload)? {
                (Reply::Raid(reply), data) => Ok((reply, data)),
                _ => mismatch(),
            },
        }
    }

    /// Whether jobs advance by this process alone.
    pub(crate) const fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Unit::close`].
    pub(crate) fn close(self) -> Outcome {
        match self {
            Self::Local(unit) => unit.close(),
            Self::Remote(_) => Ok(()),
        }
    }
}

fn mismatch<T>() -> Outcome<T> {
    Err(Failure::refused("the process that holds the unit gave an answer to another question"))
}
