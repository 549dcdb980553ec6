//! A set is let go, in order or by a power cut, and taken up again: by what is remembered of it, or by its labels.

use std::collections::BTreeSet;
use std::sync::Arc;

use device::sim::Cut;
use device::{BlockDevice, Inline, Rng};
use raidset::extension::Extension;
use raidset::judge::{Candidate, complete, group};
use raidset::label::Label;
use raidset::set::{ConfigureError, RaidSet, Slot};

use super::{Remembered, Run, SECTOR, slot, text};
use crate::run::Failure;

impl Run {
    pub(super) fn restart(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.note(|| "restart".to_owned());
        self.tally.add("raid restart", true);
        let _ = if rng.chance(1, 2) { self.set.unconfigure() } else { self.set.close() };
        if self.supply.is_on() {
            self.flushed();
            self.remembered = Remembered::of(&self.set);
            self.reopen(rng)?;
            self.verify(true)?;
        }
        Ok(())
    }

    /// Power has failed in the middle of something.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.tally.add("raid power cut", true);
        let lost = self.lost();
        let how = rng.next_u64();
        for (disk, seed) in self.disks.iter().zip(how..) {
            match seed % 5 {
                0 => disk.power_cut(Cut::DropAll),
                1 => disk.power_cut(Cut::KeepAll),
                _ => disk.power_cut(Cut::Random(seed)),
            }
            disk.clear_plans();
            disk.plug_in();
            disk.clear_errors(0..u64::MAX);
        }
        self.supply.restore();
        self.note(|| format!("power is back ({how:x}); lost were {lost:?}"));
        self.doubt.append(&mut self.unflushed);
        let (autospare, parity_good) = (self.set.autospare(), self.set.parity_good());
        self.reopen(rng)?;
        if self.journal && parity_good && !self.set.parity_good() {
            return Err("the journal was carried out, but the parity counts as dirty".to_owned());
        }
        if let Some((kind, rows)) = self.checkpoint.take() {
            let progress = self.set.rebuild_progress();
            if progress.is_none_or(|(now, _, progress)| now != kind || progress.done < rows) {
                return Err(format!("{kind:?} had done {rows} rows, but now it is {progress:?}"));
            }
            if self.set.autospare() != autospare {
                return Err("whether spares step in by themselves was forgotten".to_owned());
            }
        }
        // Losses that the cut itself brought about, and those before: a column that was being filled when power failed
        // and is complete now was made of the others.
        let now = self.lost();
        for column in (0..lost.len()).filter(|&column| now[column] || lost[column]) {
            self.lose(column);
        }
        self.verify(true)?;
        if self.journal && !now.contains(&true) {
            self.check_parity()?;
        }
        Ok(())
    }

    /// As the command line takes the set up again, or as it is found by its labels.
    fn reopen(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.cursor = 0;
        let found = rng.chance(1, 3);
        let opened = if found {
            self.assemble()?
        } else if self.seeds.chance(1, 3) {
            match self.by_file() {
                // RAIDframe's rule of one odd component refuses more than some levels can bear.
                Err(ConfigureError::Refused { .. }) => self.assemble()?,
                opened => {
                    self.tally.add("raid opened by a file", opened.is_ok());
                    opened
                }
            }
        } else {
            self.attach()
        };
        self.set = opened.map_err(|error| format!("the set can't be opened again: {error}"))?;
        let lost = self.lost();
        if lost.contains(&true) && !self.set.layout().survives(|column| lost[column]) {
            return Err("too much is lost".to_owned());
        }
        let status = self.set.status();
        self.note(|| {
            let words = |all: &[raidset::set::ComponentStatus]| {
                all.iter().map(|one| format!("{} {}", one.name, one.status.word())).collect::<Vec<_>>()
            };
            let (columns, spares) = (words(&status.columns), words(&status.spares));
            format!(
                "opened, found {found}: {columns:?}, {spares:?}, {:?}, {}",
                status.rebuild, status.parity_good
            )
        });
        self.remembered = Remembered::of(&self.set);
        Ok(())
    }

    /// As `-c` takes it, with nothing remembered but the names.
    fn by_file(&self) -> Result<RaidSet, ConfigureError> {
        let slots = |names: &[String]| names.iter().map(|name| self.named(name)).collect::<Vec<_>>();
        let Remembered { columns, spares, .. } = &self.remembered;
        let runner = Arc::new(Inline);
        RaidSet::configure(0, self.parameters.clone(), slots(columns), slots(spares), false, runner)
    }

    fn attach(&self) -> Result<RaidSet, ConfigureError> {
        let slots = |names: &[String]| names.iter().map(|name| self.named(name)).collect::<Vec<_>>();
        let Remembered { columns, spares, known } = &self.remembered;
        RaidSet::attach(0, self.parameters.clone(), &slots(columns), &slots(spares), known, Arc::new(Inline))
    }

    /// As `-L` finds it.
    fn assemble(&self) -> Result<Result<RaidSet, ConfigureError>, Failure> {
        let mut seen = Vec::new();
        for disk in &self.disks {
            let label = Label::read(&**disk).map_err(|error| text("label")(&error))?.ok();
            let extension = Extension::read(&**disk).map_err(|error| text("extension")(&error))?;
            seen.push((disk.clone(), label, extension));
        }
        let extensions: Vec<_> = seen.iter().map(|(.., extension)| extension.clone()).collect();
        complete(seen.iter_mut().filter_map(|(_, label, _)| label.as_mut()), &extensions);
        let (mut candidates, mut devices): (Vec<_>, Vec<Arc<dyn BlockDevice>>) = (Vec::new(), Vec::new());
        for (disk, label, extension) in &seen {
            let (name, sectors) = (disk.info().name.clone(), self.size / SECTOR);
            let candidate =
                label.clone().and_then(|label| Candidate::of(name, label, sectors, extension.as_ref()));
            if let Some(candidate) = candidate {
                candidates.push(candidate);
                devices.push(disk.clone());
            }
        }
        let sets = group(&candidates);
        let Some(best) = sets.iter().filter(|set| set.enough).max_by_key(|set| set.mod_counter) else {
            return Err(format!("no set is found: {sets:?}"));
        };
        let members: BTreeSet<&str> =
            best.members.iter().map(|&member| candidates[member].name.as_str()).collect();
        let others: Vec<Slot> = seen
            .iter()
            .filter(|(disk, ..)| !members.contains(disk.info().name.as_str()))
            .map(|(disk, ..)| slot(disk))
            .collect();
        Ok(RaidSet::assemble(0, best, &candidates, &devices, &others, Arc::new(Inline)))
    }
}
