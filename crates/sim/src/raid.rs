//! RAID sets with in-place writes, from one number: random programs on sets of every level, with components that fail,
//! go away, come back stale and are rebuilt, and power cuts at any request.
//!
//! Without a journal a sector may hold after a cut what was flushed last or anything written since, and the sectors of a
//! *lost* column in stripes that were being written may hold anything until the parity has been rewritten: the
//! write hole, as `docs/raid-sets.md` states it. With a journal there is no hole, and whatever was acknowledged is
//! there, flushed or not. Nothing else is ever read.

mod program;
mod restart;

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use device::sim::{Effect, Healing, PowerSupply};
use device::{BlockDevice, DeviceErrorKind, Inline, Operation, Rng, SimDevice};
use raidset::layout::Level;
use raidset::set::{Known, Parameters, RaidSet, RebuildKind, Slot, Status};

pub use program::Program;

use crate::run::{Failure, Outcome, Tally};
use crate::world::Log;

const SECTOR: u64 = 512;

/// Sectors in front of the data.
const FRONT: u64 = 64;

/// Components that there ever were, at most.
const DISKS_MAX: usize = 24;

/// What a sector may hold.
#[derive(Clone, Debug, Default)]
struct Sector {
    now: u64,
    /// What it may hold instead after a power cut.
    before: Vec<u64>,
    /// It was in the write hole.
    anything: bool,
    /// It was before what was written last, which a power cut may take back.
    anything_before: bool,
}

impl Sector {
    /// What is there is durable.
    fn settle(&mut self) {
        self.before.clear();
        self.anything_before = false;
    }
}

/// What a user's machine remembers of the set.
#[derive(Clone)]
struct Remembered {
    columns: Vec<String>,
    spares: Vec<String>,
    known: Known,
}

impl Remembered {
    fn of(set: &RaidSet) -> Self {
        let known = set.known();
        Self {
            columns: known.columns.iter().map(|column| column.name.clone()).collect(),
            spares: known.spares.iter().map(|spare| spare.name.clone()).collect(),
            known,
        }
    }
}

/// Bytes that tell which write they are of.
fn sector_bytes(tag: u64) -> [u8; SECTOR as usize] {
    let word = tag.to_le_bytes();
    std::array::from_fn(|index| word[index % 8])
}

fn tag_of(bytes: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(bytes[..8].try_into().ok()?);
    (bytes == sector_bytes(tag)).then_some(tag)
}

struct Run {
    parameters: Parameters,
    journal: bool,
    size: u64,
    seeds: Rng,
    supply: Arc<PowerSupply>,
    log: Arc<Mutex<Log>>,
    tally: Tally,
    disks: Vec<Arc<SimDevice>>,
    set: RaidSet,
    remembered: Remembered,
    model: Vec<Sector>,
    next_tag: u64,
    /// Stripes written since the last flush.
    unflushed: BTreeSet<u64>,
    /// Stripes that were being written when power failed, and whose parity was not rewritten since.
    doubt: BTreeSet<u64>,
    /// Of copies that differ the one that is read now is the one from now on.
    settles_doubt: bool,
    cursor: u64,
    /// The rebuild that must go on after a power cut, and how many of its rows must not have to be done again.
    checkpoint: Option<(RebuildKind, u64)>,
}

fn slot(disk: &Arc<SimDevice>) -> Slot {
    Slot { name: disk.info().name.clone(), device: Some(disk.clone()) }
}

fn plug_in(index: usize, size: u64, seed: u64, log: &Arc<Mutex<Log>>) -> Arc<SimDevice> {
    let disk = SimDevice::new(format!("sd{index}"), size, seed);
    // Whatever was on it is not zeros.
    let mut noise = vec![0; (size - FRONT * SECTOR) as usize];
    Rng::new(seed).fill(&mut noise);
    disk.overwrite(FRONT * SECTOR, &noise);
    let log = Arc::clone(log);
    disk.set_trace(move |event| {
        let ok = event.outcome.is_ok();
        let words = [index as u64, event.operation as u64, event.offset, event.length, u64::from(ok)];
        let line = || {
            let failed = if ok { "" } else { ": failed" };
            format!("    sd{index} {} {}+{}{failed}", event.operation, event.offset, event.length)
        };
        log.lock().unwrap_or_else(PoisonError::into_inner).event(line, &words);
    });
    Arc::new(disk)
}

/// Sentences of errors.
fn text(what: &'static str) -> impl Fn(&dyn fmt::Display) -> Failure {
    move |error| format!("{what}: {error}")
}

impl Run {
    fn new(program: &Program, trace: bool) -> Result<Self, Failure> {
        let Program { ref level, unit, rows, journal, .. } = *program;
        let mut seeds = Rng::new(program.seed);
        let log = Arc::new(Mutex::new(Log::new(trace)));
        // A journal takes an eighth of the smallest component, and must have room for a few records.
        let least = if journal { 8 * (112 + 16 * u64::from(unit)) } else { 0 };
        let size = (FRONT + u64::from(unit) * rows + seeds.below(4)).max(least) * SECTOR;
        let parameters = Parameters {
            level: level.clone(),
            sectors_per_unit: unit,
            units_per_parity_unit: 1,
            units_per_recon_unit: 1,
            queue_length: 100,
        };
        let disks: Vec<_> =
            (0..program.columns).map(|index| plug_in(index, size, seeds.next_u64(), &log)).collect();
        let slots = || disks.iter().map(slot).collect();
        let made = if journal {
            RaidSet::configure_with_journal(0, parameters.clone(), slots(), vec![], Arc::new(Inline))
        } else {
            RaidSet::configure(0, parameters.clone(), slots(), vec![], true, Arc::new(Inline))
        };
        let set = made.map_err(|error| text("configure")(&error))?;
        set.init_labels(4711).map_err(|error| text("init")(&error))?;
        rewrite(&set)?;
        if *level != Level::Raid0 {
            set.set_map_parameters(2, 10, 5).map_err(|error| text("map")(&error))?;
        }
        set.set_autoconfigure(true, 0).map_err(|error| text("autoconfigure")(&error))?;
        let sectors = set.size().map_err(|error| text("size")(&error))? / SECTOR;
        let bytes: Vec<u8> = (0..sectors).flat_map(|at| sector_bytes(at + 1)).collect();
        set.write(0, &bytes).map_err(|error| text("first write")(&error))?;
        set.unconfigure().map_err(|error| text("unconfigure")(&error))?;
        let set = RaidSet::configure(0, parameters.clone(), slots(), vec![], false, Arc::new(Inline))
            .map_err(|error| text("configure again")(&error))?;
        if journal && program.sabotaged {
            set.set_journal(false).map_err(|error| text("journal")(&error))?;
        }
        let supply = Arc::new(PowerSupply::new());
        disks.iter().for_each(|disk| disk.set_supply(Some(supply.clone())));
        Ok(Self {
            parameters,
            journal,
            size,
            seeds,
            supply,
            log,
            tally: Tally::default(),
            remembered: Remembered::of(&set),
            disks,
            set,
            model: (0..sectors).map(|at| Sector { now: at + 1, ..Sector::default() }).collect(),
            next_tag: sectors + 1,
            unflushed: BTreeSet::new(),
            doubt: BTreeSet::new(),
            settles_doubt: false,
            cursor: 0,
            checkpoint: None,
        })
    }

    fn note(&self, line: impl FnOnce() -> String) {
        let text = line();
        let words: Vec<u64> = text.bytes().map(u64::from).collect();
        self.log.lock().unwrap_or_else(PoisonError::into_inner).event(|| text, &words);
    }

    /// Remembers the set as it is now: the command line does so after each command that changes which devices there
    /// are; of other changes the last ones may be missing.
    fn remember(&mut self, anyway: bool) {
        let now = Remembered::of(&self.set);
        if self.supply.is_on() && (anyway || !now.known.same_names(&self.remembered.known)) {
            self.remembered = now;
        }
    }

    fn new_disk(&mut self) -> Arc<SimDevice> {
        let disk = plug_in(self.disks.len(), self.size, self.seeds.next_u64(), &self.log);
        disk.set_supply(Some(self.supply.clone()));
        self.disks.push(disk.clone());
        disk
    }

    fn named(&self, name: &str) -> Slot {
        let device = self.disks.iter().find(|disk| disk.info().name == name);
        Slot { name: name.to_owned(), device: device.map(|disk| disk.clone() as Arc<dyn BlockDevice>) }
    }

    fn stripe_of(&self, sector: usize) -> u64 {
        self.set.layout().cell(sector as u64).stripe
    }

    fn lost(&self) -> Vec<bool> {
        self.rows_there().iter().map(Option::is_some).collect()
    }

    /// For each column that is lost how many of its rows are there all the same: those that were rebuilt.
    fn rows_there(&self) -> Vec<Option<u64>> {
        let status = self.set.status();
        let rebuilt = |column| match &status.rebuild {
            Some((RebuildKind::Reconstruction, rebuilt, progress)) if *rebuilt == column => progress.done,
            _ => 0,
        };
        let is_lost = |status| matches!(status, Status::Failed | Status::Reconstructing);
        let columns = status.columns.iter().enumerate();
        columns.map(|(column, found)| is_lost(found.status).then(|| rebuilt(column))).collect()
    }

    /// Data in doubtful stripes of a column that is lost is whatever the others make of it.
    fn lose(&mut self, column: usize) {
        if self.parameters.level.mirrored() {
            return;
        }
        let layout = self.set.layout().clone();
        let spread = self.set.in_free_units();
        for at in 0..self.model.len() {
            let place = layout.place(at as u64);
            // On level R it may have been the host of another column's unit.
            let row = place.sector / u64::from(layout.unit());
            let host = spread == Some(place.column) && layout.free_column(row) == Some(column);
            if self.doubt.contains(&self.stripe_of(at)) && (place.column == column || host) {
                self.model[at].anything = true;
            }
        }
    }

    /// Notes what was lost since, rows that had been rebuilt among it.
    fn note_lost(&mut self, before: &[Option<u64>]) {
        let after = self.rows_there();
        for (column, rows) in after.into_iter().enumerate() {
            if rows.is_some_and(|rows| before[column].is_none_or(|before| rows < before)) {
                self.lose(column);
            }
        }
    }

    fn write(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let size = self.model.len() as u64;
        let stripe = self.set.layout().stripe_sectors();
        let (start, length) = match rng.below(3) {
            0 => (rng.below(size), 1),
            1 => (rng.below(size / stripe) * stripe, rng.within(1..4) * stripe),
            _ => (rng.below(size), rng.within(1..2 * stripe + 2)),
        };
        let range = start as usize..(start + length).min(size) as usize;
        let mut bytes = Vec::new();
        for at in range.clone() {
            bytes.extend(sector_bytes(self.next_tag));
            let old = std::mem::replace(&mut self.model[at].now, self.next_tag);
            self.model[at].before.push(old);
            self.next_tag += 1;
            let stripe = self.stripe_of(at);
            if !self.journal {
                self.unflushed.insert(stripe);
            }
        }
        let result = self.set.write(start * SECTOR, &bytes);
        self.note(|| format!("write {range:?}: {}", if result.is_ok() { "ok" } else { "failed" }));
        self.tally.add("raid write", result.is_ok());
        if let Err(error) = result {
            if self.supply.is_on() {
                return Err(format!("a write failed: {error}"));
            }
            return Ok(());
        }
        for sector in &mut self.model[range] {
            if sector.anything && self.supply.is_on() {
                // Written whole: what was in the write hole there is gone.
                sector.anything = false;
                sector.anything_before = true;
            }
            if self.journal {
                // Acknowledged is durable.
                sector.settle();
            }
        }
        Ok(())
    }

    /// What is read must be what the model allows; with `pin` other values are ruled out from now on.
    fn verify(&mut self, pin: bool) -> Result<(), Failure> {
        let size = self.model.len();
        let mut bytes = vec![0; size * SECTOR as usize];
        if let Err(error) = self.set.read(0, &mut bytes) {
            return if self.supply.is_on() { Err(format!("a read failed: {error}")) } else { Ok(()) };
        }
        self.tally.add("raid verify", true);
        for (at, bytes) in bytes.chunks_exact(SECTOR as usize).enumerate() {
            let tag = tag_of(bytes);
            let stripe = self.stripe_of(at);
            let doubtful = self.doubt.contains(&stripe);
            let sector = &mut self.model[at];
            // Copies that differ are read one or the other, until they are made equal.
            let either = pin || doubtful;
            let allowed = sector.anything
                || either && sector.anything_before
                || tag.is_some_and(|tag| tag == sector.now || either && sector.before.contains(&tag));
            if !allowed {
                let place = self.set.layout().place(at as u64);
                let doubt = &self.doubt;
                return Err(format!(
                    "sector {at} (stripe {stripe}, {place:?}) holds {tag:?}, not {sector:?}; in doubt: {doubt:?}"
                ));
            }
            if !(pin || doubtful && self.settles_doubt) {
                continue;
            }
            let Some(tag) = tag.filter(|tag| *tag == sector.now || sector.before.contains(tag)) else {
                sector.anything = true;
                continue;
            };
            if doubtful && tag != sector.now {
                sector.before.push(sector.now);
            } else if !doubtful {
                sector.settle();
            }
            sector.now = tag;
            sector.anything &= doubtful;
        }
        Ok(())
    }

    fn step(&mut self, seed: u64) -> Result<(), Failure> {
        let mut rng = Rng::new(seed);
        if rng.chance(1, 6) {
            let changes = rng.below(30);
            self.note(|| format!("power will fail after {changes} changes"));
            self.supply.cut_after(changes);
        }
        let before = self.rows_there();
        let done = self.act(&mut rng, &before);
        // A panic or refusal in the dark is none, a wrong sector is.
        if self.supply.is_on() {
            done?;
            self.note_lost(&before);
            if self.set.rebuild_progress().is_none() {
                self.checkpoint = None;
            }
            self.remember(rng.chance(3, 4));
            return Ok(());
        }
        if self.set.rebuild_progress().is_none() {
            self.checkpoint = None;
        }
        self.crash(&mut rng)
    }

    fn act(&mut self, rng: &mut Rng, before: &[Option<u64>]) -> Result<(), Failure> {
        let status = self.set.status();
        let column = rng.below(before.len() as u64) as usize;
        let none_lost = before.iter().all(Option::is_none);
        let free = status.rebuild.is_none();
        let first_lost = before.iter().position(Option::is_some).unwrap_or(column);
        let action = rng.below(47);
        if !matches!(action, 0..=16 | 25..=28 | 44..=46) {
            self.checkpoint = None;
        }
        match action {
            0..=12 => self.write(rng)?,
            13..=15 => {
                let flushed = self.set.flush();
                self.tally.add("raid flush", flushed.is_ok());
                if flushed.is_ok() && self.supply.is_on() {
                    self.note(|| "flush".to_owned());
                    self.flushed();
                }
            }
            16 => {
                let _ = self.set.tick();
            }
            17 if none_lost || self.set.layout().faults() > 1 => {
                self.tell("fail", || format!("{column}"), |set| set.fail_column(column).is_ok());
            }
            18 if status.spares.len() < 6 && self.disks.len() < DISKS_MAX => {
                let spare = slot(&self.new_disk());
                self.tell("add spare", || spare.name.clone(), |set| set.add_spare(spare.clone()).is_ok());
            }
            19 if rng.chance(1, 3) => {
                let spare = status.spares.iter().find(|spare| spare.status != Status::UsedSpare);
                if let Some(spare) = spare {
                    let name = &spare.name;
                    self.tell("remove spare", || name.clone(), |set| set.remove_spare(name).is_ok());
                }
            }
            20 | 21 | 40 | 41 if free => {
                // Level R has room for one column in the free units of the others.
                let room = *self.set.layout().level() == Level::RotatedSparing && rng.chance(2, 3);
                if self.disks.len() < DISKS_MAX
                    && !room
                    && !status.spares.iter().any(|spare| spare.status == Status::Spare)
                {
                    let spare = slot(&self.new_disk());
                    self.tell("add spare", || spare.name.clone(), |set| set.add_spare(spare.clone()).is_ok());
                    self.remember(false);
                }
                let spare = status.spares.iter().any(|spare| spare.status == Status::Spare);
                let what =
                    if room && !spare { "reconstruct to the free units" } else { "reconstruct to a spare" };
                let to_spare = |set: &RaidSet| set.reconstruct_to_spare(first_lost).is_ok();
                self.tell(what, || format!("{first_lost}"), to_spare);
            }
            22 | 23 if free => {
                // Mostly the component itself, which may have come back.
                let new = (rng.chance(1, 3) && self.disks.len() < DISKS_MAX).then(|| slot(&self.new_disk()));
                let what = || format!("{first_lost} on {:?}", new.as_ref().map(|slot| &slot.name));
                let again = |set: &RaidSet| set.reconstruct_in_place(first_lost, new.clone(), 0).is_ok();
                self.tell("reconstruct in place", what, again);
            }
            24 | 42 | 43 if free => {
                let spared = status.columns.iter().position(|column| column.status == Status::Spared);
                if let Some(spared) = spared {
                    self.tell("copy back", || format!("{spared}"), |set| set.copyback(spared).is_ok());
                }
            }
            25..=28 | 44..=46 if !free => self.rebuild(rng),
            29 | 30 if none_lost => {
                let stripes = rng.below(self.set.layout().stripes());
                self.note(|| format!("rewrite the parity of {stripes} stripes"));
                self.tally.add("raid parity rewrite", true);
                match self.set.rewrite_parity(&mut self.cursor, stripes) {
                    Ok(progress) if progress.finished() && self.supply.is_on() => self.rewritten()?,
                    _ => {}
                }
            }
            31 if free => self.restart(rng)?,
            32..=34 if self.set.layout().redundant() && none_lost => self.fault(rng, column, before)?,
            35 => {
                let on = rng.chance(2, 3);
                self.note(|| format!("autospare {on}"));
                self.set.set_autospare(on);
            }
            36 => {
                if let Some(column) = self.set.wants_spare() {
                    let started = self.set.reconstruct_to_spare(column);
                    self.note(|| format!("a spare for {column} by itself"));
                    if let Err(error) = started {
                        return Err(format!("a spare was wanted and not taken: {error}"));
                    }
                }
            }
            37 if none_lost && self.set.layout().redundant() => self.unreadable(rng, column)?,
            _ => self.verify(false)?,
        }
        Ok(())
    }

    fn tell(&mut self, what: &str, of: impl FnOnce() -> String, does: impl FnOnce(&RaidSet) -> bool) {
        let done = does(&self.set);
        self.tally.add(&format!("raid {what}"), done);
        self.note(|| format!("{what} {}: {done}", of()));
    }

    fn rebuild(&mut self, rng: &mut Rng) {
        let rows = rng.below(self.set.layout().rows() + 1);
        let kind = self.set.rebuild_progress().map(|(kind, ..)| kind);
        let done = self.set.rebuild_step(rows);
        self.note(|| format!("rebuild {rows} rows: {}", done.is_ok()));
        self.tally.add("raid rebuild", done.is_ok());
        if rng.chance(1, 2) {
            let rows = self.set.rebuild_checkpoint();
            self.note(|| format!("checkpoint: {rows:?}"));
            if self.supply.is_on() {
                // What was being written is copied back once more, so of a copyback no row is sure.
                let sure = |rows| if kind == Some(RebuildKind::Copyback) { 0 } else { rows };
                self.checkpoint = kind.zip(rows.ok().map(sure));
                self.remembered = Remembered::of(&self.set);
            }
        }
    }

    /// A component fails in the middle of a write or flush, and is back afterwards, stale.
    fn fault(&mut self, rng: &mut Rng, column: usize, before: &[Option<u64>]) -> Result<(), Failure> {
        let status = self.set.status();
        let Some(found) = status.columns.get(column).filter(|column| column.status == Status::Optimal) else {
            return Ok(());
        };
        let Some(disk) = self.disks.iter().find(|disk| disk.info().name == found.name).cloned() else {
            return Ok(());
        };
        let medium = || DeviceErrorKind::Io("simulated medium error".to_owned());
        let (operation, effect) = match rng.below(5) {
            0 => (None, Effect::Gone),
            1 => (Some(Operation::Write), Effect::Gone),
            2 => (Some(Operation::Write), Effect::Fail(medium())),
            3 => (Some(Operation::Write), Effect::FailTorn(medium())),
            _ => (Some(Operation::Flush), Effect::FailTorn(medium())),
        };
        let nth = rng.within(1..6);
        self.note(|| format!("{}: request {nth} of kind {operation:?} is {effect:?}", disk.info().name));
        self.tally.add(&format!("raid fault {}", kind_of(operation, &effect)), true);
        disk.plan(nth, operation, effect);
        self.write(rng)?;
        if rng.chance(1, 2) && self.supply.is_on() && self.set.flush().is_ok() && self.supply.is_on() {
            self.flushed();
        }
        disk.clear_plans();
        if self.supply.is_on() {
            self.note_lost(before);
            if !disk.is_present() {
                // Nothing has been written to it since, but what is read of it comes from the others.
                self.lose(column);
            }
            self.verify(false)?;
        }
        disk.plug_in();
        Ok(())
    }

    /// Sectors that can't be read are read from the others, and written again.
    fn unreadable(&mut self, rng: &mut Rng, column: usize) -> Result<(), Failure> {
        let name = self.set.status().columns[column].name.clone();
        if !self.doubt.is_empty() || !self.unflushed.is_empty() {
            // Parity that does not match gives something else.
            return Ok(());
        }
        let Some(disk) = self.disks.iter().find(|disk| disk.info().name == name).cloned() else {
            return Ok(());
        };
        let at = (FRONT + rng.below(self.set.layout().column_sectors())) * SECTOR;
        disk.add_read_errors(at..at + 3 * SECTOR, Healing::OnRewrite);
        self.note(|| format!("{name} can't read 3 sectors at {at}"));
        self.tally.add("raid unreadable sectors", true);
        let read = self.verify(false);
        disk.clear_errors(0..u64::MAX);
        read
    }

    fn flushed(&mut self) {
        self.unflushed.clear();
        for at in 0..self.model.len() {
            if !self.doubt.contains(&self.stripe_of(at)) {
                self.model[at].settle();
            }
        }
    }

    /// Parity or copies are equal everywhere now.
    fn rewritten(&mut self) -> Result<(), Failure> {
        self.cursor = 0;
        if !self.set.parity_good() {
            return Err("the parity was rewritten and is not good".to_owned());
        }
        self.check_parity()?;
        self.settles_doubt = true;
        self.verify(false)?;
        self.settles_doubt = false;
        self.doubt.clear();
        for at in 0..self.model.len() {
            if !self.unflushed.contains(&self.stripe_of(at)) {
                self.model[at].settle();
            }
        }
        self.verify(false)
    }

    fn check_parity(&self) -> Result<(), Failure> {
        match self.set.check_parity(&mut 0, u64::MAX, false) {
            Ok(0) => Ok(()),
            Ok(wrong) => Err(format!("{wrong} stripes have wrong parity")),
            Err(_) if !self.supply.is_on() => Ok(()),
            Err(error) => Err(format!("the parity can't be checked: {error}")),
        }
    }

    /// Everything is mended in the end, and nothing is in doubt any more.
    fn finish(&mut self) -> Result<(), Failure> {
        self.supply.restore();
        for column in 0..self.set.layout().columns() {
            finish_rebuild(&self.set)?;
            if self.lost()[column] {
                let new = self.new_disk();
                let begun = self.set.reconstruct_in_place(column, Some(slot(&new)), 0);
                begun.map_err(|error| text("the last reconstruction")(&error))?;
            }
        }
        finish_rebuild(&self.set)?;
        self.verify(true)?;
        self.cursor = 0;
        rewrite(&self.set)?;
        self.rewritten()?;
        // Any loss that is survived leaves what is there.
        let mut rng = Rng::new(self.next_tag);
        let mut order: Vec<usize> = (0..self.set.layout().columns()).collect();
        rng.shuffle(&mut order);
        let mut lost = BTreeSet::new();
        for column in order {
            if self.set.layout().survives(|other| other == column || lost.contains(&other))
                && self.set.fail_column(column).is_ok()
            {
                lost.insert(column);
            }
        }
        self.tally.add("raid losses at the end", !lost.is_empty());
        self.verify(false)
    }
}

fn kind_of(operation: Option<Operation>, effect: &Effect) -> String {
    let operation = operation.map_or_else(|| "request".to_owned(), |operation| operation.to_string());
    let effect = match effect {
        Effect::Gone => "takes the component away",
        Effect::FailTorn(_) => "fails half done",
        _ => "fails",
    };
    format!("{operation} {effect}")
}

fn rewrite(set: &RaidSet) -> Result<(), Failure> {
    let mut cursor = 0;
    loop {
        let progress = set.rewrite_parity(&mut cursor, 5).map_err(|error| text("parity rewrite")(&error))?;
        if progress.finished() {
            return Ok(());
        }
    }
}

fn finish_rebuild(set: &RaidSet) -> Result<(), Failure> {
    while set.rebuild_progress().is_some() {
        set.rebuild_step(7).map_err(|error| text("rebuild")(&error))?;
    }
    Ok(())
}

/// Runs a program to its end or its first failure.
pub fn run(program: &Program, trace: bool) -> Outcome {
    let mut outcome = Outcome { failure: None, digest: 0, tally: Tally::default(), lines: Vec::new() };
    let mut at = 0;
    let mut kept: Option<Run> = None;
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<(), Failure> {
        let run = kept.insert(Run::new(program, trace)?);
        for (index, &step) in program.steps.iter().enumerate() {
            at = index;
            run.note(|| format!("step {index}"));
            run.step(step)?;
            run.tally.add("step", true);
        }
        at = program.steps.len();
        run.note(|| "end".to_owned());
        run.finish()
    }));
    outcome.failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some((at, failure)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some((at, format!("panic: {}", text.unwrap_or_default())))
        }
    };
    if let Some(run) = kept {
        let mut log = run.log.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.digest = log.digest;
        outcome.lines = log.take_lines();
        drop(log);
        outcome.tally = run.tally;
    }
    outcome
}

/// A shorter program that still fails.
pub fn shrink(program: &Program, failure: (usize, Failure)) -> (Program, (usize, Failure)) {
    let (mut best, mut how) = (program.clone(), failure);
    best.steps.truncate(how.0 + 1);
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let mut tried = best.clone();
            tried.steps.drain(at..(at + size).min(best.steps.len()));
            match run(&tried, false).failure {
                Some((step, failure)) => {
                    tried.steps.truncate(step + 1);
                    (best, how) = (tried, (step, failure));
                }
                None => at += size,
            }
        }
        size /= 2;
    }
    (best, how)
}
