//! Power cuts at any write of any action: data, parity, maps, labels, extension areas, rebuilds, copyback, parity rewrites, the clean
//! end. What comes back afterwards is compared with a model that knows, of each sector, which contents may be found.
//!
//! What may be found: what was last flushed or anything written to that sector since. Nothing else, but for the write hole:
//! the sectors of a *lost* column in stripes that were being written when the power failed, until the parity has been rewritten. With a
//! journal there is no such exception, and nothing that was acknowledged is lost, flushed or not.

use super::*;
use crate::judge::complete;
use device::sim::PowerSupply;
use std::collections::BTreeSet;

/// Sectors of the journal, for sets that have one: room for a few records.
const JOURNAL: u64 = 112;

/// What a sector may hold.
#[derive(Clone, Debug, Default)]
struct Sector {
    now: u64,
    /// What it may hold instead after a power cut.
    before: Vec<u64>,
    /// It was in the write hole.
    anything: bool,
    /// It was before it was written, which a power cut may undo.
    anything_before: bool,
}

impl Sector {
    /// What it holds now is durable.
    fn settle(&mut self) {
        self.before.clear();
        self.anything_before = false;
    }
}

/// What a user remembers of the unit, as the command line keeps it.
struct Remembered {
    columns: Vec<String>,
    spares: Vec<String>,
    known: Known,
}

struct World {
    rng: Rng,
    level: Level,
    journal: bool,
    supply: Arc<PowerSupply>,
    all: Vec<Arc<SimDevice>>,
    set: RaidSet,
    remembered: Remembered,
    model: Vec<Sector>,
    next_tag: u64,
    /// Stripes written since the last flush.
    unflushed: BTreeSet<u64>,
    /// Stripes that were being written when the power failed, and whose parity was not rewritten since.
    doubt: BTreeSet<u64>,
    cursor: u64,
    /// Rows of a rebuild that must not have to be done again.
    checkpoint: Option<u64>,
    cuts: u64,
    /// Times that a configuration file opened it again.
    files: u64,
    story: Vec<String>,
}

fn sector_bytes(tag: u64) -> [u8; SECTOR as usize] {
    let word = tag.to_le_bytes();
    std::array::from_fn(|index| word[index % 8])
}

/// The tag that a whole sector holds.
fn tag_of(bytes: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (bytes == sector_bytes(tag)).then_some(tag)
}

impl World {
    fn new(level: Level, columns: usize, journal: bool, seed: u64) -> Self {
        let size = DISK + if journal { JOURNAL * SECTOR } else { 0 };
        let all: Vec<_> =
            (0..columns).map(|i| disk_of(&format!("sd{i}"), seed * 100 + i as u64, size)).collect();
        let room = if journal { JOURNAL } else { 0 };
        let set =
            RaidSet::configure_as(0, parameters(level), slots(&all), vec![], Some(room), Arc::new(Inline));
        let set = set.unwrap();
        set.init_labels(4711).unwrap();
        rewrite(&set);
        if journal {
            set.set_journal(true).unwrap();
        }
        if level != Level::Raid0 {
            set.set_map_parameters(2, 10, 5).unwrap();
        }
        set.set_autoconfigure(true, 0).unwrap();
        let sectors = set.size().unwrap() / SECTOR;
        let bytes: Vec<u8> = (0..sectors).flat_map(|at| sector_bytes(at + 1)).collect();
        set.write(0, &bytes).unwrap();
        set.unconfigure().unwrap();
        let set = configure(level, &all, false).unwrap();
        let supply = Arc::new(PowerSupply::new());
        all.iter().for_each(|disk| disk.set_supply(Some(supply.clone())));
        let model = (0..sectors).map(|at| Sector { now: at + 1, ..Sector::default() }).collect();
        let remembered = remember(&set);
        Self {
            rng: Rng::new(seed),
            level,
            journal,
            supply,
            all,
            set,
            remembered,
            model,
            next_tag: sectors + 1,
            unflushed: BTreeSet::new(),
            doubt: BTreeSet::new(),
            cursor: 0,
            checkpoint: None,
            cuts: 0,
            files: 0,
            story: Vec::new(),
        }
    }

    fn told(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn fail(&self, why: &str) -> ! {
        let last = self.story.len().saturating_sub(40);
        panic!(
            "{} over {}: {why}\n{}",
            self.level,
            self.set.layout().columns(),
            self.story[last..].join("\n")
        )
    }

    fn new_disk(&mut self) -> Arc<SimDevice> {
        let size = self.all[0].size().unwrap();
        let spare = disk_of(&format!("sd{}", self.all.len()), self.rng.next_u64(), size);
        spare.set_supply(Some(self.supply.clone()));
        self.all.push(spare.clone());
        spare
    }

    fn named(&self, name: &str) -> Slot {
        let device = self.all.iter().find(|disk| disk.info().name == name);
        Slot { name: name.to_owned(), device: device.map(|disk| disk.clone() as Arc<dyn BlockDevice>) }
    }

    fn stripe_of(&self, sector: usize) -> u64 {
        self.set.layout().cell(sector as u64).stripe
    }

    /// Data in doubtful stripes of a column that is lost is whatever the others make of it.
    fn lose(&mut self, column: usize) {
        if self.level.mirrored() {
            return;
        }
        for at in 0..self.model.len() {
            if self.doubt.contains(&self.stripe_of(at)) && self.set.layout().place(at as u64).column == column
            {
                self.model[at].anything = true;
            }
        }
    }

    fn note_lost(&mut self, before: &[bool]) {
        let members = self.set.members();
        for column in (0..before.len()).filter(|&column| !before[column] && members.lost(column)) {
            self.lose(column);
        }
    }

    fn lost(&self) -> Vec<bool> {
        let members = self.set.members();
        (0..members.columns.len()).map(|column| members.lost(column)).collect()
    }

    fn write(&mut self) {
        let size = self.model.len() as u64;
        let stripe = self.set.layout().stripe_sectors();
        let (start, length) = match self.rng.below(3) {
            0 => (self.rng.below(size), 1),
            1 => (self.rng.below(size / stripe) * stripe, self.rng.within(1..4) * stripe),
            _ => (self.rng.below(size), self.rng.within(1..2 * stripe + 2)),
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
        self.told(format!("write {range:?}"));
        let result = self.set.write(start * SECTOR, &bytes);
        if let Err(error) = result {
            if self.supply.is_on() {
                self.fail(&format!("a write failed: {error}"));
            }
        } else {
            for at in range {
                // Written whole: what was in the write hole there is gone.
                let sector = &mut self.model[at];
                if self.supply.is_on() {
                    sector.anything_before |= std::mem::take(&mut sector.anything);
                }
                if self.journal {
                    // Acknowledged is durable.
                    sector.settle();
                }
            }
        }
    }

    /// What is read must be what the model allows; afterwards it is known. With `pin` other values are ruled out.
    fn verify(&mut self, pin: bool) {
        let size = self.model.len();
        let mut bytes = vec![0; size * SECTOR as usize];
        if let Err(error) = self.set.read(0, &mut bytes) {
            if self.supply.is_on() {
                self.fail(&format!("a read failed: {error}"));
            }
            return;
        }
        for at in 0..size {
            let tag = tag_of(&bytes[at * SECTOR as usize..][..SECTOR as usize]);
            let sector = &self.model[at];
            // Copies that differ are read one or the other, until they are made equal.
            let either = pin || self.doubt.contains(&self.stripe_of(at));
            let allowed = sector.anything
                || either && sector.anything_before
                || tag.is_some_and(|tag| tag == sector.now || either && sector.before.contains(&tag));
            if !allowed {
                let place = self.set.layout().place(at as u64);
                let stripe = self.stripe_of(at);
                self.fail(&format!(
                    "sector {at} (stripe {stripe}, {place:?}) holds {tag:?}, not {sector:?}; doubt {:?}",
                    self.doubt
                ));
            }
            let stripe = self.stripe_of(at);
            let doubtful = self.doubt.contains(&stripe);
            let sector = &mut self.model[at];
            if pin && let Some(tag) = tag {
                if doubtful && tag != sector.now {
                    sector.before.push(sector.now);
                } else if !doubtful {
                    sector.settle();
                }
                sector.now = tag;
                sector.anything &= doubtful;
            } else if pin {
                sector.anything = true;
            }
        }
    }

    fn act(&mut self) {
        let columns = self.set.layout().columns();
        let column = self.rng.below(columns as u64) as usize;
        let members = self.set.members();
        let before = self.lost();
        let free = self.set.rebuild_progress().is_none();
        let action = self.rng.below(36);
        if !matches!(action, 0..=16 | 25..=28) {
            self.checkpoint = None;
        }
        match action {
            0..=12 => self.write(),
            13..=15 => {
                self.told("flush");
                if self.set.flush().is_ok() && self.supply.is_on() {
                    self.flushed();
                }
            }
            16 => {
                self.told("tick");
                let _ = self.set.tick();
            }
            17 if !before.contains(&true) || self.set.layout().faults() > 1 => {
                self.told(format!("fail column {column}"));
                let _ = self.set.fail_column(column);
            }
            18 if members.spares.len() < 6 => {
                let spare = self.new_disk();
                self.told(format!("add spare {}", spare.info().name));
                let _ = self.set.add_spare(slot(&spare));
            }
            19 => {
                if let Some(spare) = members.spares.iter().find(|spare| spare.status != Status::UsedSpare) {
                    self.told(format!("remove spare {}", spare.name));
                    let _ = self.set.remove_spare(&spare.name);
                }
            }
            20 | 21 if free => {
                let lost = before.iter().position(|&lost| lost).unwrap_or(column);
                self.told(format!("reconstruct {lost} to a spare"));
                let _ = self.set.reconstruct_to_spare(lost);
            }
            22 | 23 if free => {
                // Mostly the component itself, which may have come back.
                let lost = before.iter().position(|&lost| lost).unwrap_or(column);
                let new = self.rng.chance(1, 3).then(|| slot(&self.new_disk()));
                self.told(format!("reconstruct {lost} in place, {:?}", new.as_ref().map(|slot| &slot.name)));
                let _ = self.set.reconstruct_in_place(lost, new, 0);
            }
            24 if free => {
                if let Some(spared) =
                    members.columns.iter().position(|column| column.status == Status::Spared)
                {
                    self.told(format!("copy back {spared}"));
                    let _ = self.set.copyback(spared);
                }
            }
            25..=28 if !free => {
                let rows = self.rng.below(ROWS / 2);
                self.told(format!("rebuild {rows} rows"));
                let _ = self.set.rebuild_step(rows);
                if self.rng.chance(1, 2) {
                    self.told("checkpoint");
                    let rows = self.set.rebuild_checkpoint();
                    if self.supply.is_on() {
                        self.checkpoint = rows.ok();
                        self.remembered = remember(&self.set);
                    }
                }
            }
            29 | 30 if !before.contains(&true) => {
                self.told("rewrite parity");
                let stripes = self.rng.below(self.set.layout().stripes());
                match self.set.rewrite_parity(&mut self.cursor, stripes) {
                    Ok(progress) if progress.finished() && self.supply.is_on() => self.rewritten(),
                    _ => {}
                }
            }
            31 if free => self.restart(),
            32 if self.set.layout().redundant() && !before.contains(&true) => {
                // Gone in the middle of something, and back stale.
                let name = members.whole(column).unwrap().name.clone();
                let disk = self.all.iter().find(|disk| disk.info().name == name).unwrap().clone();
                self.told(format!("{name} goes away"));
                disk.plan(self.rng.within(1..6), None, device::sim::Effect::Gone);
                self.write();
                disk.clear_plans();
                disk.plug_in();
            }
            33 => {
                let on = self.rng.chance(2, 3);
                self.told(format!("autospare {on}"));
                self.set.set_autospare(on);
            }
            34 => {
                if let Some(column) = self.set.wants_spare() {
                    self.told(format!("a spare for {column} by itself"));
                    let started = self.set.reconstruct_to_spare(column);
                    assert!(started.is_ok() || !self.supply.is_on(), "{started:?}");
                }
            }
            _ => {
                if self.supply.is_on() {
                    self.verify(false);
                }
            }
        }
        if self.set.rebuild_progress().is_none() {
            self.checkpoint = None;
        }
        if self.supply.is_on() {
            self.note_lost(&before);
            if self.rng.chance(3, 4) {
                self.remembered = remember(&self.set);
            }
        }
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
    fn rewritten(&mut self) {
        self.cursor = 0;
        assert!(self.set.parity_good());
        assert_eq!(mismatches(&self.set), 0);
        self.doubt.clear();
        for at in 0..self.model.len() {
            if !self.unflushed.contains(&self.stripe_of(at)) {
                self.model[at].settle();
            }
        }
        self.verify(false);
    }

    fn restart(&mut self) {
        self.told("restart");
        let _ = if self.rng.chance(1, 2) { self.set.unconfigure() } else { self.set.close() };
        if self.supply.is_on() {
            self.flushed();
            self.remembered = remember(&self.set);
            self.reopen();
            self.verify(true);
        }
    }

    /// The power has failed in the middle of something.
    fn crash(&mut self) {
        self.cuts += 1;
        let lost = self.lost();
        let seed = self.rng.next_u64();
        for (disk, seed) in self.all.iter().zip(seed..) {
            match seed % 5 {
                0 => disk.power_cut(Cut::DropAll),
                1 => disk.power_cut(Cut::KeepAll),
                _ => disk.power_cut(Cut::Random(seed)),
            }
            disk.clear_plans();
        }
        self.supply.restore();
        self.told(format!("POWER CUT {} while {lost:?} were lost", self.cuts));
        self.doubt.append(&mut self.unflushed);
        let (autospare, parity_good) = (self.set.autospare(), self.set.parity_good());
        self.reopen();
        if self.journal && parity_good && !self.set.parity_good() {
            self.fail("the journal was replayed, but the parity counts as dirty");
        }
        if let Some(rows) = self.checkpoint.take() {
            let progress = self.set.rebuild_progress();
            if progress.is_none_or(|(.., progress)| progress.done < rows) {
                self.fail(&format!("{rows} rows were rebuilt, but now it is {progress:?}"));
            }
            assert_eq!(self.set.autospare(), autospare);
        }
        // Losses that the cut itself brought about, and those before.
        for column in (0..lost.len()).filter(|&column| self.lost()[column]).collect::<Vec<_>>() {
            self.lose(column);
        }
        // A column that was being filled when power failed and is complete now was made of the others.
        for column in (0..lost.len()).filter(|&column| lost[column]) {
            self.lose(column);
        }
        self.verify(true);
        if self.journal && !self.lost().contains(&true) {
            assert_eq!(mismatches(&self.set), 0, "{}", self.story.join("\n"));
        }
    }

    fn reopen(&mut self) {
        self.cursor = 0;
        let way = self.rng.below(4);
        self.told(format!("reopen, way {way}"));
        let result = match way {
            0 | 1 => self.attach(),
            2 => self.assemble(),
            // RAIDframe's rule of one odd component refuses more than some levels can bear.
            _ => match self.by_file() {
                Err(ConfigureError::Refused { .. }) => self.assemble(),
                other => {
                    self.files += 1;
                    other
                }
            },
        };
        match result {
            Ok(set) => self.set = set,
            Err(error) => self.fail(&format!("cannot be opened again: {error}")),
        }
        if self.lost().contains(&true) && !self.set.layout().survives(|column| self.lost()[column]) {
            self.fail("too much is lost");
        }
        self.told(format!(
            "columns {:?}, spares {:?}, rebuild {:?}, parity good {}",
            self.set.status().columns.iter().map(|c| (c.name.clone(), c.status.word())).collect::<Vec<_>>(),
            self.set.status().spares.iter().map(|c| (c.name.clone(), c.status.word())).collect::<Vec<_>>(),
            self.set.rebuild_progress(),
            self.set.parity_good(),
        ));
        self.remembered = remember(&self.set);
    }

    fn attach(&self) -> Result<RaidSet, ConfigureError> {
        let slots = |names: &[String]| names.iter().map(|name| self.named(name)).collect::<Vec<_>>();
        let (columns, spares) = (slots(&self.remembered.columns), slots(&self.remembered.spares));
        RaidSet::attach(
            0,
            parameters(self.level),
            &columns,
            &spares,
            &self.remembered.known,
            Arc::new(Inline),
        )
    }

    /// As `-c` takes it, with nothing remembered but the names.
    fn by_file(&self) -> Result<RaidSet, ConfigureError> {
        let slots = |names: &[String]| names.iter().map(|name| self.named(name)).collect::<Vec<_>>();
        let (columns, spares) = (slots(&self.remembered.columns), slots(&self.remembered.spares));
        RaidSet::configure(0, parameters(self.level), columns, spares, false, Arc::new(Inline))
    }

    /// As `-L` finds it.
    fn assemble(&self) -> Result<RaidSet, ConfigureError> {
        let mut seen = Vec::new();
        for disk in &self.all {
            let label = Label::read(&**disk)?.ok();
            let extension = crate::extension::Extension::read(&**disk)?;
            seen.push((disk.clone(), label, extension));
        }
        let extensions: Vec<_> = seen.iter().map(|(.., extension)| extension.clone()).collect();
        complete(seen.iter_mut().filter_map(|(_, label, _)| label.as_mut()), &extensions);
        let (mut candidates, mut devices): (Vec<_>, Vec<Arc<dyn BlockDevice>>) = (Vec::new(), Vec::new());
        for (disk, label, _) in &seen {
            if let Some(label) = label {
                let name = disk.info().name.clone();
                candidates.push(Candidate { name, label: label.clone(), sectors: disk.size()? / SECTOR });
                devices.push(disk.clone());
            }
        }
        let sets = group(&candidates);
        let Some(best) = sets.iter().filter(|set| set.enough).max_by_key(|set| set.mod_counter) else {
            self.fail(&format!("no set is found: {sets:?}"));
        };
        let members: BTreeSet<&str> =
            best.members.iter().map(|&member| candidates[member].name.as_str()).collect();
        let others: Vec<Slot> = seen
            .iter()
            .filter(|(disk, ..)| !members.contains(disk.info().name.as_str()))
            .map(|(disk, ..)| slot(disk))
            .collect();
        RaidSet::assemble(0, best, &candidates, &devices, &others, Arc::new(Inline))
    }

    fn go(&mut self) {
        for _ in 0..160 {
            if self.rng.chance(1, 6) {
                let changes = self.rng.below(30);
                self.supply.cut_after(changes);
            }
            self.act();
            if !self.supply.is_on() {
                self.crash();
            }
        }
        self.end();
    }

    /// Everything is mended in the end, and nothing is in doubt any more.
    fn end(&mut self) {
        self.supply.restore();
        for column in 0..self.set.layout().columns() {
            finish_rebuild(&self.set);
            if self.set.members().lost(column) {
                let new = self.new_disk();
                self.set.reconstruct_in_place(column, Some(slot(&new)), 0).unwrap();
            }
        }
        finish_rebuild(&self.set);
        self.verify(true);
        self.cursor = 0;
        while !self.set.rewrite_parity(&mut self.cursor, 7).unwrap().finished() {}
        self.rewritten();
    }
}

fn remember(set: &RaidSet) -> Remembered {
    let known = set.known();
    Remembered {
        columns: known.columns.iter().map(|column| column.name.clone()).collect(),
        spares: known.spares.iter().map(|spare| spare.name.clone()).collect(),
        known,
    }
}

/// Runs the seeds of a shape; it must have come to something.
fn run_all(level: Level, columns: usize, journal: bool) {
    let seeds = seeds();
    let worlds: Vec<World> = (0..seeds).map(|seed| run(level, columns, journal, seed)).collect();
    let (cuts, files) =
        worlds.iter().fold((0, 0), |(cuts, files), world| (cuts + world.cuts, files + world.files));
    assert!(
        cuts > 2 * seeds && files > seeds / 2,
        "{level}: only {cuts} cuts, {files} times opened by a file"
    );
}

fn run(level: Level, columns: usize, journal: bool, seed: u64) -> World {
    let mut world = World::new(level, columns, journal, seed);
    world.told(format!("seed {seed}"));
    world.go();
    world
}

/// Seeds of each shape.
fn seeds() -> u64 {
    std::env::var("RAIDSET_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10)
}

/// That the test above can fail: what it asks for is more than a set without a journal keeps.
#[test]
fn without_a_journal_more_is_lost() {
    let noticed = (0..10).filter(|&seed| {
        std::panic::catch_unwind(|| {
            let mut world = World::new(Level::Raid5, 4, true, seed);
            world.set.set_journal(false).unwrap();
            world.go();
        })
        .is_err()
    });
    assert!(noticed.count() > 5);
}

#[test]
fn with_a_journal_nothing_acknowledged_is_lost() {
    for (level, columns) in [
        (Level::Raid4, 3),
        (Level::Raid5, 3),
        (Level::Raid5, 6),
        (Level::Raid6, 4),
        (Level::Raid6, 7),
        (Level::EvenOdd, 5),
    ] {
        run_all(level, columns, true);
    }
}

#[test]
fn power_may_fail_at_any_write() {
    for (level, columns) in shapes() {
        run_all(level, columns, false);
    }
}
