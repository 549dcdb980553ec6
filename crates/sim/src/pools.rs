//! Steps that are about the pool as a whole: made anew from its own disks, taken to another host, found beside others
//! of its name, under another name, with a newest root that does not open.

use std::sync::PoisonError;

use device::Rng;
use geometry::Profile;
use pool::spec::{CreateSpec, GroupKind, GroupSpec, Host, ImportOptions, VolumeSpec};
use pool::types::Guid;
use pool::{Pool, PoolError};

use crate::admin::DISKS_MAX;
use crate::blocks::{Block, Blocks};
use crate::model::{Model, State, Volume, pattern};
use crate::program::{Setup, setup};
use crate::run::{Failure, Run, heap_tolerance, spec_of};
use crate::verify::observe;
use crate::world::{Other, options};

/// Pools beside the one that this is about.
const OTHERS_MAX: usize = 2;

impl Run {
    /// Whether some pool of this identity shows on the disks that are there, and under which names.
    fn found(&self, guid: Guid) -> Option<String> {
        let found = Pool::find_pools(&self.world.present());
        found.into_iter().find(|pool| pool.guid == guid).map(|pool| pool.name)
    }

    /// The writes that disks got so far.
    fn writes(&self) -> Vec<u64> {
        self.world.disks.iter().map(|disk| disk.device.counts().writes).collect()
    }

    /// The pool is destroyed and another one made, as far as they go round of the same disks. Disks that are away
    /// keep what they know.
    pub(crate) fn recreate(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        if rng.chance(1, 3) {
            self.world.supply.cut_after(rng.below(12));
        }
        self.destroy_pool(rng)?;
        self.world.supply.restore();
        let old = self.world.guid;
        for disk in 0..self.world.disks.len() {
            let device = self.world.disks[disk].device.clone();
            // Nobody can know of a write that was lost.
            device.clear_plans();
            device.set_rates(device::sim::Rates::default());
            device.clear_errors(0..u64::MAX);
            let label = Pool::examine(&*device).ok().flatten().filter(|label| label.pool_guid == old);
            if label.is_some() {
                // Something was in the way of clearing these.
                Pool::label_clear(&*device, true)
                    .map_err(|error| format!("label_clear of d{disk}: {error}"))?;
                self.tally.add("label_clear", true);
            }
        }
        if let Some(name) = self.found(old) {
            return Err(format!("'{name}' was destroyed and is still found"));
        }
        self.make_pool(rng)
    }

    /// Destroys the pool. Where power fails in that it may still be there: then it is as it was.
    fn destroy_pool(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        loop {
            let pool = self.pool.take().expect("there is a pool between steps");
            let error = match pool.destroy() {
                Ok(()) => {
                    self.tally.add("destroy_pool", true);
                    self.world.note(|| "destroy_pool: ok".to_owned());
                    return Ok(());
                }
                Err(failed) => {
                    let (pool, error) = *failed;
                    self.pool = Some(pool);
                    error
                }
            };
            self.tally.add("destroy_pool", false);
            self.world.note(|| format!("destroy_pool: {error}"));
            if self.world.supply.is_on() {
                if self.world.impaired.is_empty() {
                    return Err(format!("the pool could not be destroyed: {error}"));
                }
                // It can be tried again once the disk is in order, or has been taken out.
                for &disk in &self.world.impaired {
                    let device = &self.world.disks[disk].device;
                    device.clear_plans();
                    device.set_rates(device::sim::Rates::default());
                    device.clear_errors(0..u64::MAX);
                    device.plug_in();
                }
                self.world.impaired.clear();
                continue;
            }
            self.pool = None;
            self.tally.add("power cut in destroy_pool", true);
            self.lose_power(rng);
            match self.world.import(&options()) {
                Ok(mut pool) => {
                    // Disks that are blank already are missing beside those with faults.
                    match observe(&mut pool) {
                        Ok(seen) => {
                            if let Some(difference) = self.model.now().difference(&seen) {
                                return Err(format!("destroyed in part, and taken for whole: {difference}"));
                            }
                        }
                        Err(_) if !self.world.impaired.is_empty() => {}
                        Err(why) => return Err(format!("destroyed in part, and taken for whole: {why}")),
                    }
                    self.pool = Some(pool);
                }
                Err(PoolError::Refused(_) | PoolError::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(format!("a pool that was destroyed in part: {error}")),
            }
        }
    }

    /// Makes a pool of the disks that are there, and more where those are too few.
    fn make_pool(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let setup = setup(rng);
        let mut free: Vec<usize> = (0..self.world.disks.len())
            .filter(|&disk| self.world.disks[disk].device.is_present() && self.world.other_on(disk).is_none())
            .collect();
        rng.shuffle(&mut free);
        let sizes: Vec<u64> = setup.groups.iter().flat_map(|(_, sizes)| sizes).copied().collect();
        let disks: Vec<usize> =
            sizes.iter().map(|&size| free.pop().unwrap_or_else(|| self.world.add_disk(size))).collect();
        disks.iter().for_each(|&disk| self.take_fresh(disk));
        let spec = spec_of(&setup, &self.world, &disks);
        if rng.chance(1, 3) {
            self.world.supply.cut_after(rng.below(60));
        }
        let env = self.world.env();
        let mut made = Pool::create(&env, &spec, &self.world.host);
        if !self.world.supply.is_on() {
            self.tally.add("power cut in create_pool", true);
            drop(made);
            self.lose_power(rng);
            self.look_at_unmade(&setup)?;
            let env = self.world.env();
            made = Pool::create(&env, &spec, &self.world.host);
        }
        self.world.supply.restore();
        let (mut pool, _) = made.map_err(|error| format!("create {setup:?}: {error}"))?;
        if let Some(name) = &self.sabotage {
            pool.sabotage(name);
        }
        self.tally.add("create_pool", true);
        self.world.note(|| format!("create {setup:?} on {disks:?}"));
        self.world.guid = pool.guid();
        self.world.heap_tolerance = heap_tolerance(&setup);
        self.world.impaired.clear();
        self.world.blamable.clear();
        self.world.told.clear();
        self.world.apart.clear();
        self.pool = Some(pool);
        self.model = Model::new();
        self.roots.clear();
        self.last_event = 0;
        self.names = vec!["tank".to_owned()];
        self.comments = vec![String::new()];
        if self.found(self.world.guid).as_deref() != Some("tank") {
            return Err("a pool was made and is not found".to_owned());
        }
        self.create(rng)
    }

    /// Power failed while a pool was made: it is there and empty, or it is not there.
    fn look_at_unmade(&mut self, setup: &Setup) -> Result<(), Failure> {
        let known: Vec<Guid> = self.world.others.iter().map(|other| other.guid).collect();
        for found in Pool::find_pools(&self.world.present()) {
            if known.contains(&found.guid) || found.guid == self.world.guid {
                continue;
            }
            let mut copy = self.world.fork(|disk| self.world.disks[disk].device.is_present());
            copy.guid = found.guid;
            // Other pools that were made on these disks before, and disks that lie about elsewhere.
            let Ok(mut pool) = copy.import(&ImportOptions { force: true, ..options() }) else { continue };
            if pool.device_paths().len() != setup.groups.iter().map(|(_, sizes)| sizes.len()).sum::<usize>() {
                continue;
            }
            let seen = observe(&mut pool)?;
            let report = pool.check().map_err(|error| format!("check of a pool just made: {error}"))?;
            if !report.problems.is_empty() {
                return Err(format!("power failed while a pool was made; check says {:?}", report.problems));
            }
            self.world.note(|| format!("made all the same, with {} volumes", seen.len()));
        }
        Ok(())
    }

    /// Another host finds the pool: it is refused without force unless it was exported, can be looked at, and is
    /// taken over with force.
    pub(crate) fn foreign(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if !self.world.apart.is_empty() {
            // With force one of two histories would be chosen.
            return Ok(());
        }
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        self.pool = None;
        let before = self.world.host.clone();
        self.world.host = Host { id: before.id + 1, name: format!("host{}", before.id + 1) };
        let writes = self.writes();
        match self.world.import(&options()).map(|_| ()) {
            Err(PoolError::Refused(why)) if why.contains(&format!("used by host '{}'", before.name)) => {}
            other => return Err(format!("a pool that is in use on {}: {other:?}", before.name)),
        }
        if self.world.supply.is_on() && writes != self.writes() {
            return Err("a pool that was refused to another host was written to".to_owned());
        }
        let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
        let mut copy = self.world.fork(|disk| present[disk]);
        let look = ImportOptions { read_only: true, ..options() };
        let mut pool = copy.import(&look).map_err(|error| format!("a look by another host: {error}"))?;
        let seen = observe(&mut pool)?;
        if let Some(difference) = self.model.now().difference(&seen) {
            return Err(format!("a look by another host: {difference}"));
        }
        self.tally.add("foreign host", true);
        self.bring_up_as(rng, &ImportOptions { force: true, ..options() })
    }

    /// A pool of the same name, by another host on other disks.
    pub(crate) fn other(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if self.world.others.len() >= OTHERS_MAX || self.world.disks.len() + 3 > DISKS_MAX {
            return self.verify_others();
        }
        let (kind, count, data) = match rng.below(4) {
            0 => (GroupKind::Plain, 1, None),
            1 => (GroupKind::Plain, 2, Some(Profile::Raid1)),
            2 => (GroupKind::Mirror, 2, None),
            _ => (GroupKind::Raidz(1), 3, None),
        };
        let disks: Vec<usize> = (0..count).map(|_| self.world.add_disk(64)).collect();
        let devices = disks.iter().map(|&disk| self.world.new_device(disk)).collect();
        let spec = CreateSpec {
            name: "tank".into(),
            groups: vec![GroupSpec { kind, devices }],
            data,
            metadata: None,
            properties: Vec::new(),
            command: "create".into(),
        };
        let env = self.world.env();
        let number = self.pattern_number();
        let make = || -> Result<(Guid, bool, State), PoolError> {
            let elsewhere = Host { id: 1000, name: "elsewhere".into() };
            let (mut pool, _) = Pool::create(&env, &spec, &elsewhere)?;
            let guid = pool.guid();
            let volume = VolumeSpec { size: 65536, block_size: 16384, sparse: true, properties: Vec::new() };
            pool.volume_create("v", &volume)?;
            let id = pool.open("v")?;
            let bytes = pattern(number, 16384);
            pool.write(id, 16384, &bytes)?;
            pool.flush()?;
            let exported = number.is_multiple_of(2);
            if exported {
                pool.export().map_err(|failed| failed.1)?;
            }
            let mut blocks = Blocks::default();
            blocks.insert(1, Block::of_pattern(number, &bytes));
            let volume = Volume { size: 65536, block: 16384, order: 0, blocks };
            let mut state = State::default();
            state.datasets.insert("v".into(), volume.into());
            Ok((guid, exported, state))
        };
        match make() {
            Ok((guid, exported, state)) => {
                self.tally.add("other pool", true);
                self.world.note(|| format!("another pool of this name on {disks:?}, exported: {exported}"));
                self.world.others.push(Other { guid, disks, exported, state });
                self.verify_others()
            }
            Err(_) if !self.world.supply.is_on() => Ok(()),
            Err(error) => Err(format!("another pool: {error}")),
        }
    }

    /// Pools on other disks are found, and as they were.
    pub(crate) fn verify_others(&mut self) -> Result<(), Failure> {
        if !self.world.supply.is_on() || self.world.others.is_empty() {
            return Ok(());
        }
        let found = Pool::find_pools(&self.world.present());
        for Other { guid, exported, state, .. } in self.world.others.clone() {
            let what = |why: String| format!("another pool of this name: {why}");
            let Some(seen) = found.iter().find(|pool| pool.guid == guid) else {
                return Err(what("is not found".to_owned()));
            };
            if seen.name != "tank" || seen.foreign_host.is_some() == exported {
                return Err(what(format!("is found as {seen:?}")));
            }
            let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
            let mut copy = self.world.fork(|disk| present[disk]);
            copy.guid = guid;
            let taken = copy.import(&options());
            if taken.is_ok() != exported {
                return Err(what(format!("exported: {exported}, but import says {:?}", taken.map(|_| ()))));
            }
            drop(taken);
            let mut pool = copy
                .import(&ImportOptions { force: true, ..options() })
                .map_err(|error| what(error.to_string()))?;
            let seen = observe(&mut pool).map_err(what)?;
            if let Some(difference) = state.difference(&seen) {
                return Err(what(difference));
            }
            let report = pool.check().map_err(|error| what(error.to_string()))?;
            if let Some(problem) = report.problems.first() {
                return Err(what(problem.clone()));
            }
            self.tally.add("other pool seen", true);
        }
        Ok(())
    }

    /// Everything that the last commits wrote is lost on all disks at once, but for the roots: the newest one does not
    /// open, which import says and leaves as it is, and `import -F` goes back to the newest one that does.
    pub(crate) fn unopenable(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if !self.world.impaired.is_empty() {
            if rng.chance(1, 2) {
                return Ok(());
            }
            self.heal()?;
        }
        for _ in 0..2 {
            if self.world.supply.is_on() {
                self.write(rng)?;
            }
            if self.world.supply.is_on() {
                self.flush()?;
            }
        }
        if !self.world.supply.is_on() || !self.world.impaired.is_empty() {
            return Ok(());
        }
        let state = self.model.now().clone();
        let comment = self.comment()?;
        let before = self.pool().last_txg();
        let count = rng.within(1..3);
        self.list_writes(true);
        for _ in 0..count {
            if self.world.supply.is_on() {
                self.write(rng)?;
            }
            if self.world.supply.is_on() {
                self.flush()?;
            }
        }
        let written = self.list_writes(false);
        // Where space is short a write takes several commits: `state` may be older than any root that is kept.
        let is_kept = self.pool().last_txg().0 - before.0 < 3;
        if !self.world.supply.is_on() || !is_kept || state.difference(&self.observe()?).is_none() {
            return Ok(());
        }
        let lost = self.lose_all(rng, &written);
        let newest = self.pool().last_txg();
        self.pool = None;
        self.world.note(|| format!("{lost} writes of the last {count} commits are lost"));
        let writes = self.writes();
        match self.world.import(&options()).map(|_| ()) {
            Err(PoolError::Refused(why)) if why.contains("'import -F'") => {}
            other => return Err(format!("transaction group {newest} does not open, but: {other:?}")),
        }
        if writes != self.writes() {
            return Err("a pool whose newest root does not open was written to".to_owned());
        }
        self.tally.add("unopenable", true);
        self.go_back_to_one_that_opens(rng, &state, &comment)
    }

    /// Notes writes from now on, or gives those that were noted.
    fn list_writes(&self, on: bool) -> Vec<(usize, u64, u64)> {
        let mut list = self.world.written.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *list, on.then(Vec::new)).unwrap_or_default()
    }

    /// Overwrites what was written to chunks, on all disks, column headers apart; gives how many writes that were.
    fn lose_all(&mut self, rng: &mut Rng, written: &[(usize, u64, u64)]) -> usize {
        let columns: Vec<(usize, u64, u64)> = self
            .pool()
            .device_paths()
            .iter()
            .filter_map(|device| Some((self.world.by_path(&device.path)?, device.id)))
            .flat_map(|(disk, id)| {
                let map = self.pool.as_ref().map(Pool::map).unwrap_or_default();
                map.into_iter().flat_map(move |chunk| {
                    let mine = chunk.placements.into_iter().filter(move |p| p.device == id);
                    mine.map(move |p| (disk, p.offset, chunk.column_length))
                })
            })
            .collect();
        let is_inside = |&&(disk, at, length): &&(usize, u64, u64)| {
            columns.iter().any(|&(on, from, bytes)| {
                on == disk && at >= from + 4096 && at + length <= from + 4096 + bytes
            })
        };
        let inside: Vec<_> = written.iter().filter(is_inside).collect();
        for &&(disk, at, length) in &inside {
            let mut noise = vec![0; length as usize];
            rng.fill(&mut noise);
            self.world.disks[disk].device.overwrite(at, &noise);
        }
        inside.len()
    }

    /// `import -F`, with power failing in it now and then: whether it is done or not is one or the other.
    fn go_back_to_one_that_opens(
        &mut self,
        rng: &mut Rng,
        state: &State,
        comment: &str,
    ) -> Result<(), Failure> {
        let mut way = ImportOptions { rewind: true, ..options() };
        let mut cuts = 0;
        loop {
            self.world.clock.advance(1000);
            if cuts < 10 && rng.chance(1, 3) {
                self.world.supply.cut_after(rng.below(40));
            }
            let result = self.world.import(&way);
            if !self.world.supply.is_on() {
                cuts += 1;
                self.tally.add("power cut in import -F", true);
                self.lose_power(rng);
                // Next time as ever, to see whether that is enough now.
                way.rewind = !way.rewind;
                continue;
            }
            self.world.supply.restore();
            match result {
                Ok(pool) => {
                    self.take_up(pool);
                    break;
                }
                Err(PoolError::Refused(why)) if !way.rewind && why.contains("'import -F'") => {
                    way.rewind = true;
                }
                Err(error) => return Err(format!("import -F failed: {error}")),
            }
        }
        self.tally.add("import -F", true);
        let seen = self.observe()?;
        if let Some(difference) = state.difference(&seen) {
            return Err(format!("gone back by import -F: {difference}"));
        }
        self.model.push(state.clone());
        self.model.acknowledge();
        if self.comment()? != comment {
            return Err(format!("gone back by import -F: the comment should be {comment}"));
        }
        self.comments = vec![comment.to_owned()];
        self.verify_sound()
    }

    /// The pool comes up under another name, or with a disk left out.
    pub(crate) fn rename(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let mut way = options();
        if rng.chance(1, 2) {
            self.next_name += 1;
            let name = format!("tank{}", self.next_name);
            self.names.push(name.clone());
            way.rename = Some(name);
        }
        if rng.chance(1, 2) {
            let devices = self.pool().device_paths();
            let mut pool = self.pool.take().expect("there is a pool between steps");
            let left_out = rng.choose(&devices).and_then(|device| {
                let disk = self.world.by_path(&device.path)?;
                self.world.may_impair(&mut pool, disk).then_some((disk, device.guid))
            });
            self.pool = Some(pool);
            if let Some((disk, guid)) = left_out {
                self.world.impaired.insert(disk);
                way.offline.push(guid);
            }
        }
        self.pool = None;
        let what = format!("import as {:?} without {:?}", way.rename, way.offline);
        self.world.note(|| what);
        self.bring_up_as(rng, &way)?;
        self.tally.add("import as another", true);
        let name = self.pool().name().to_owned();
        match way.rename {
            Some(wanted) if wanted != name => Err(format!("imported as {wanted}, but it is {name}")),
            _ => Ok(()),
        }
    }

    /// A property of the pool.
    pub(crate) fn pool_property(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if rng.chance(1, 2) {
            let value = *rng.choose(&["on", "off"]).unwrap_or(&"on");
            self.lead_to(&format!("set autoexpand={value}"), Vec::new(), true, false, |pool| {
                pool.set("", "autoexpand", value)
            })?;
            return Ok(());
        }
        if rng.chance(1, 3) {
            let property = *rng.choose(&["reclaim_data", "reclaim_metadata"]).unwrap_or(&"reclaim_data");
            let value = rng.below(91).to_string();
            self.lead_to(&format!("set {property}={value}"), Vec::new(), true, false, |pool| {
                pool.set("", property, &value)
            })?;
            return Ok(());
        }
        self.next_name += 1;
        let comment = format!("comment {}", self.next_name);
        self.comments.push(comment.clone());
        let done = self.lead_to(&format!("set comment={comment}"), Vec::new(), true, false, |pool| {
            pool.set("", "comment", &comment)
        })?;
        if done {
            self.comments = vec![comment];
        }
        Ok(())
    }
}
