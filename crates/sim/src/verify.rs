//! What must hold: after every crash, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use device::Rng;
use device::sim::Cut;
use pool::Pool;
use pool::report::{Counters, VdevReport};
use pool::spec::ImportOptions;

use crate::model::{CHECKPOINT, Seen, digest};
use crate::run::{Failure, Run};
use crate::world::options;

/// Bytes read at a time.
const READ_BYTES: u64 = 256 << 10;

/// Reads everything that a pool holds.
///
/// # Errors
/// Something can't be read.
pub fn observe(pool: &mut Pool) -> Result<BTreeMap<String, Seen>, Failure> {
    let mut all = BTreeMap::new();
    if pool.status().checkpoint.is_some_and(|checkpoint| !checkpoint.discarding) {
        all.insert(CHECKPOINT.to_owned(), Seen { size: 0, blocks: BTreeMap::new() });
    }
    let mut buffer = Vec::new();
    let prefix = format!("{}/", pool.name());
    for row in pool.list().map_err(|error| format!("list: {error}"))? {
        let name = row.name.strip_prefix(&prefix).unwrap_or(&row.name).to_owned();
        let id = pool.open(&name).map_err(|error| format!("open {name}: {error}"))?;
        let info = pool.volume_info(id).map_err(|error| format!("{name}: {error}"))?;
        let block = u64::from(info.block_size);
        let step = READ_BYTES.max(block);
        let mut seen = Seen { size: info.size, blocks: BTreeMap::new() };
        let mut at = 0;
        // What is stored reaches so far; holes of large volumes are not read.
        let mut data_end = if info.size > 8 << 20 { 0 } else { info.size };
        while at < info.size {
            if at >= data_end {
                let runs = pool
                    .runs(id, at, info.size - at, 1)
                    .map_err(|error| format!("runs of {name}: {error}"))?;
                if let Some(&(bytes, true)) = runs.first() {
                    at += bytes.max(1);
                    continue;
                }
                data_end = runs.first().map_or(info.size, |run| at + run.0.max(1));
            }
            let length = step.min(data_end - at);
            buffer.resize(buffer.len().max(length as usize), 0);
            let bytes = &mut buffer[..length as usize];
            pool.read(id, at, bytes).map_err(|error| format!("read {name} {at}+{length}: {error}"))?;
            for (index, bytes) in bytes.chunks(block as usize).enumerate() {
                if let Some(digest) = digest(bytes) {
                    seen.blocks.insert(at / block + index as u64, digest);
                }
            }
            at += length;
        }
        all.insert(name, seen);
    }
    Ok(all)
}

impl Run {
    /// Reads everything that the pool holds.
    pub(crate) fn observe(&mut self) -> Result<BTreeMap<String, Seen>, Failure> {
        observe(self.pool())
    }

    /// Power was lost: what was not flushed may be lost, and the pool is imported again.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.tally.add("power cut", true);
        self.pool = None;
        self.lose_power(rng);
        self.bring_up(rng)
    }

    /// Goes on with a pool that was just imported.
    pub(crate) fn take_up(&mut self, mut pool: Pool) {
        if let Some(name) = &self.sabotage {
            pool.sabotage(name);
        }
        self.pool = Some(pool);
        self.last_event = 0;
        self.roots.clear();
    }

    pub(crate) fn lose_power(&mut self, rng: &mut Rng) {
        let how = rng.below(8);
        for disk in &self.world.disks {
            let seed = rng.next_u64();
            disk.device.power_cut(match how {
                0 => Cut::DropAll,
                1 => Cut::KeepAll,
                _ => Cut::Random(seed),
            });
        }
        self.world.supply.restore();
        self.world.note(|| format!("power is back ({how})"));
    }

    /// The process dies, the disks do not notice.
    pub(crate) fn kill(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.tally.add("kill", true);
        self.world.note(|| "killed".to_owned());
        self.pool = None;
        self.bring_up(rng)
    }

    /// Imports the pool, with power failing again now and then, and checks everything.
    pub(crate) fn bring_up(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.bring_up_as(rng, &options())
    }

    /// As [`Self::bring_up`], in a way of one's own.
    pub(crate) fn bring_up_as(&mut self, rng: &mut Rng, options: &ImportOptions) -> Result<(), Failure> {
        for _ in 0..20 {
            if rng.chance(1, 4) {
                self.world.supply.cut_after(rng.below(40));
            }
            self.world.clock.advance(1000);
            let result = self.world.import(options);
            if !self.world.supply.is_on() {
                self.tally.add("power cut in import", true);
                self.lose_power(rng);
                continue;
            }
            self.world.supply.restore();
            match result {
                Ok(pool) => {
                    self.take_up(pool);
                    self.tally.add("import", true);
                    self.world.note(|| "imported".to_owned());
                    return self.verify_state();
                }
                Err(error) => return Err(format!("the pool does not import: {error}")),
            }
        }
        self.world.supply.restore();
        let pool =
            self.world.import(options).map_err(|error| format!("the pool does not import: {error}"))?;
        self.take_up(pool);
        self.verify_state()
    }

    /// The pool holds one of the states that it may hold, and is sound.
    fn verify_state(&mut self) -> Result<(), Failure> {
        let sound = self.verify_contents();
        self.note_events();
        sound
    }

    pub(crate) fn verify_contents(&mut self) -> Result<(), Failure> {
        let seen = self.observe()?;
        let Some(index) = self.model.find(&seen) else {
            let newest = self.model.now().difference(&seen).unwrap_or_default();
            let oldest = self.model.acknowledged().difference(&seen).unwrap_or_default();
            return Err(format!(
                "after an import the pool holds none of the {} states that it may hold; from the newest: {newest}; from \
                 the one that was acknowledged: {oldest}",
                self.model.count()
            ));
        };
        self.model.settle(index);
        self.verify_settings()?;
        self.verify_sound()
    }

    /// Name and comment are ones that may be.
    pub(crate) fn verify_settings(&mut self) -> Result<(), Failure> {
        let (name, comment) = (self.pool().name().to_owned(), self.comment()?);
        let may_be = [(&name, &mut self.names), (&comment, &mut self.comments)];
        for (found, known) in may_be {
            if !known.contains(found) {
                return Err(format!("name or comment of the pool is {found}, should be one of {known:?}"));
            }
            *known = vec![found.clone()];
        }
        Ok(())
    }

    /// The pool's comment.
    pub(crate) fn comment(&mut self) -> Result<String, Failure> {
        let rows = self.pool().get("", Some("comment")).map_err(|error| format!("get comment: {error}"))?;
        Ok(rows.first().map(|row| row.value.clone()).unwrap_or_default())
    }

    /// `check` finds nothing, and only disks that had faults are blamed.
    pub(crate) fn verify_sound(&mut self) -> Result<(), Failure> {
        let report = self.pool().check().map_err(|error| format!("check: {error}"))?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("check says: {problem} ({} problems)", report.problems.len()));
        }
        self.verify_blame()
    }

    pub(crate) fn verify_blame(&mut self) -> Result<(), Failure> {
        let status = self.pool().status();
        let paths: BTreeMap<_, _> =
            self.pool().device_paths().into_iter().map(|d| (d.guid, d.path)).collect();
        let mut blamed: Vec<(String, Counters)> = Vec::new();
        let mut visit: Vec<&VdevReport> = status.vdevs.iter().collect();
        while let Some(vdev) = visit.pop() {
            visit.extend(&vdev.children);
            if let Some(path) = paths.get(&vdev.guid).filter(|_| vdev.errors != Counters::default()) {
                blamed.push((path.clone(), vdev.errors));
            }
        }
        for (path, errors) in blamed {
            let Some(disk) = self.world.by_path(&path) else { continue };
            let was_told = self.world.told.contains(&disk) && errors.checksum == 0;
            if !was_told && !self.world.blamable.contains(&disk) {
                return Err(format!("{path} is blamed for {errors:?} and had no fault"));
            }
        }
        if status.data_errors > 0 {
            return Err(format!(
                "{} permanent errors are reported: {:?}",
                status.data_errors, status.data_error_places
            ));
        }
        Ok(())
    }

    /// The end: everything is healed; what is there is right; and any loss that the redundancy allows is borne.
    ///
    /// # Errors
    /// Something is not as it must be.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.world.supply.restore();
        self.fuse = None;
        self.ending = true;
        self.flush()?;
        self.pool().drop_caches();
        let seen = self.observe()?;
        if let Some(difference) = self.model.now().difference(&seen) {
            return Err(format!("at the end: {difference}"));
        }
        self.heal()?;
        self.verify_sound()?;
        self.look_at_checkpoint()?;
        // Everything was flushed: what volatile caches still show must be on the medium.
        self.flush()?;
        for disk in &self.world.disks {
            disk.device.power_cut(Cut::DropAll);
        }
        self.pool().drop_caches();
        self.verify_bytes()?;
        let mut rng = Rng::new(self.world.digest());
        self.bear_losses(&mut rng, 4, &BTreeSet::new())?;
        self.export(&mut rng)?;
        let seen = self.observe()?;
        if let Some(difference) = self.model.now().difference(&seen) {
            return Err(format!("after an export: {difference}"));
        }
        self.verify_others()?;
        self.verify_sound()
    }

    /// Imports copies of the disks without some of them, as many as may be lost: those that may lie first, and last of all
    /// those that are `needed`.
    pub(crate) fn bear_losses(
        &mut self,
        rng: &mut Rng,
        rounds: usize,
        needed: &BTreeSet<usize>,
    ) -> Result<(), Failure> {
        let liars: BTreeSet<usize> =
            self.world.impaired.intersection(&self.world.blamable).copied().collect();
        let members: Vec<usize> =
            self.pool().device_paths().iter().filter_map(|device| self.world.by_path(&device.path)).collect();
        for _ in 0..rounds {
            let mut order = members.clone();
            rng.shuffle(&mut order);
            order.sort_by_key(|disk| needed.contains(disk));
            let mut lost = liars.clone();
            let mut pool = self.pool.take().expect("there is a pool between steps");
            for disk in order {
                let mut more = lost.clone();
                more.insert(disk);
                if self.world.tolerates(&mut pool, &more) {
                    lost = more;
                }
            }
            self.pool = Some(pool);
            if lost.is_empty() {
                return Ok(());
            }
            self.tally.add("loss borne", true);
            let mut copy = self.world.fork(|disk| !lost.contains(&disk));
            let mut pool = copy
                .import(&options())
                .map_err(|error| format!("without {lost:?} the pool does not import: {error}"))?;
            let seen = observe(&mut pool).map_err(|error| format!("without {lost:?}: {error}"))?;
            if let Some(difference) = self.model.now().difference(&seen) {
                return Err(format!("without {lost:?}: {difference}"));
            }
            let report = pool.check().map_err(|error| format!("check without {lost:?}: {error}"))?;
            if let Some(problem) = report.problems.first() {
                return Err(format!("check without {lost:?} says: {problem}"));
            }
        }
        Ok(())
    }

    /// Takes more disks away than may be lost (from copies): there may be errors, never wrong data.
    pub(crate) fn overload(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let share = rng.within(1..8);
        let lost: BTreeSet<usize> = (0..self.world.disks.len()).filter(|_| rng.chance(share, 8)).collect();
        let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
        // A disk that was detached while it was away still believes to be the pool.
        let unused = self.world.unused(self.pool.as_ref().expect("there is a pool between steps"));
        let mut copy =
            self.world.fork(|disk| present[disk] && !lost.contains(&disk) && !unused.contains(&disk));
        let Ok(mut pool) = copy.import(&options()) else {
            self.tally.add("overload", false);
            return Ok(());
        };
        self.tally.add("overload", true);
        // The newest root may be on none of the disks that are left, if they were stale: then it is an older pool.
        let stale = self.world.impaired.iter().any(|disk| !lost.contains(disk));
        for (name, dataset) in &self.model.now().datasets {
            let Ok(id) = pool.open(name) else {
                if stale {
                    return Ok(());
                }
                return Err(format!("without {lost:?} there is no {name}"));
            };
            let step = dataset.block;
            for block in 0..dataset.size.min(8 << 20) / step {
                let mut bytes = vec![0; step as usize];
                if pool.read(id, block * step, &mut bytes).is_ok()
                    && bytes != dataset.bytes_of(block)
                    && !stale
                {
                    return Err(format!("without {lost:?} block {block} of {name} reads as something else"));
                }
            }
        }
        Ok(())
    }
}
