//! Steps that administrators take, and time.

use std::collections::BTreeSet;

use device::sim::{Cut, Effect};
use device::{DeviceErrorKind, Operation, Rng};
use pool::report::State as DeviceState;
use pool::spec::{GroupKind, GroupSpec, ImportOptions};
use pool::{PoolError, ReplaceOptions, ScrubAction};

use crate::model::State;
use crate::program::{as_draid, group};
use crate::run::{Failure, Root, Run};
use crate::world::{MIB, options};

/// Disks plugged in at a time.
pub(crate) const DISKS_MAX: usize = 40;

/// Steps of background work after which it should have ended.
const TICKS_MAX: usize = 20_000;

impl Run {
    fn paths(&mut self, of: impl Fn(&pool::DevicePath) -> bool) -> Vec<String> {
        self.pool().device_paths().into_iter().filter(|device| of(device)).map(|device| device.path).collect()
    }

    pub(crate) fn some_path(&mut self, rng: &mut Rng) -> String {
        let all = self.paths(|_| true);
        rng.choose(&all).cloned().unwrap_or_default()
    }

    /// Names of the distributed spares.
    fn distributed(&mut self) -> Vec<String> {
        let spares = self.pool().status().spares;
        spares.into_iter().filter(|spare| spare.guid.0 == 0).map(|spare| spare.name).collect()
    }

    /// An unused disk of at least so many MiB, a new one if need be.
    fn some_unused(&mut self, rng: &mut Rng, mebibytes: u64) -> Option<usize> {
        if !self.world.others.is_empty() && rng.chance(1, 8) {
            // They are given up without asking: the engine asks nobody.
            let other = self.world.others.swap_remove(0);
            self.world.note(|| format!("the other pool on {:?} is given up", other.disks));
        }
        let pool = self.pool.as_ref()?;
        let unused: Vec<usize> = self
            .world
            .unused(pool)
            .into_iter()
            .filter(|&disk| {
                device::BlockDevice::size(&*self.world.disks[disk].device).unwrap_or(0) >= mebibytes * MIB
            })
            .collect();
        if let Some(&disk) = rng.choose(&unused)
            && rng.chance(3, 4)
        {
            return Some(disk);
        }
        (self.world.disks.len() < DISKS_MAX).then(|| self.world.add_disk(mebibytes))
    }

    fn size_of(&self, path: &str) -> u64 {
        let disk = self.world.by_path(path);
        let size = disk.map(|disk| device::BlockDevice::size(&*self.world.disks[disk].device).unwrap_or(0));
        size.unwrap_or(64 * MIB).div_ceil(MIB).max(64)
    }

    /// A new disk has everything to learn: a fault that it had as another's is forgotten.
    pub(crate) fn take_fresh(&mut self, disk: usize) {
        let device = &self.world.disks[disk].device;
        device.clear_plans();
        device.set_rates(device::sim::Rates::default());
        device.clear_errors(0..u64::MAX);
        self.world.impaired.remove(&disk);
        self.world.blamable.remove(&disk);
        self.world.told.remove(&disk);
        self.world.apart.remove(&disk);
    }

    pub(crate) fn scrub(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let action = *rng
            .choose(&[
                ScrubAction::Start,
                ScrubAction::Start,
                ScrubAction::Start,
                ScrubAction::Pause,
                ScrubAction::Stop,
            ])
            .unwrap_or(&ScrubAction::Start);
        let what = format!("scrub {action:?}");
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.scrub(action))?;
        Ok(())
    }

    pub(crate) fn replace(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let extra = if rng.chance(1, 4) { 16 } else { 0 };
        let size = self.size_of(&path) + extra;
        let Some(disk) = self.some_unused(rng, size) else { return Ok(()) };
        self.take_fresh(disk);
        let new = self.world.new_device(disk);
        let replace = ReplaceOptions { read_source_last: rng.chance(1, 4) };
        let what = format!("replace {path} by {}", new.path);
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.replace(&path, &new, replace))?;
        Ok(())
    }

    pub(crate) fn replace_by_spare(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let (path, mut spare) = (self.some_path(rng), self.some_path(rng));
        let distributed = self.distributed();
        if !distributed.is_empty() && rng.chance(3, 4) {
            spare = rng.choose(&distributed).cloned().unwrap_or_default();
        }
        // No draw of its own: what a seed leads to stays as it is.
        let replace = ReplaceOptions { read_source_last: path < spare };
        self.lead_to(&format!("spare {path} by {spare}"), Vec::new(), false, true, |pool| {
            pool.replace_by_spare(&path, &spare, replace)
        })?;
        Ok(())
    }

    pub(crate) fn attach(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let size = self.size_of(&path);
        let Some(disk) = self.some_unused(rng, size) else { return Ok(()) };
        self.take_fresh(disk);
        let new = self.world.new_device(disk);
        let what = format!("attach {} to {path}", new.path);
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.attach(&path, &new))?;
        Ok(())
    }

    pub(crate) fn detach(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let distributed = self.distributed();
        if !distributed.is_empty() && rng.chance(1, 4) {
            // Nobody lies: the pool knows what it can do without.
            let name = rng.choose(&distributed).cloned().unwrap_or_default();
            if self.world.impaired.is_empty() {
                self.lead_to(&format!("detach {name}"), Vec::new(), false, true, |pool| pool.detach(&name))?;
            }
            return Ok(());
        }
        let path = self.some_path(rng);
        // What the pool can't know: that the other sides lie.
        let Some(disk) = self.world.by_path(&path) else { return Ok(()) };
        let bad = !self.world.impaired.is_empty() && !self.world.impaired.contains(&disk);
        let mut pool = self.pool.take().expect("there is a pool between steps");
        let tolerable = !bad || self.world.may_impair(&mut pool, disk);
        self.pool = Some(pool);
        if !tolerable {
            return Ok(());
        }
        let done =
            self.lead_to(&format!("detach {path}"), Vec::new(), false, true, |pool| pool.detach(&path))?;
        if done || !self.world.supply.is_on() {
            self.world.impaired.remove(&disk);
            // A mirror of two is a plain disk afterwards.
            let mirrors = self.pool().status().vdevs.iter().all(|vdev| !vdev.children.is_empty());
            if !mirrors {
                self.world.heap_tolerance = 0;
            }
            if !self.world.supply.is_on() {
                self.world.impaired.insert(disk);
            }
        }
        Ok(())
    }

    pub(crate) fn offline(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let Some(disk) = self.world.by_path(&path) else { return Ok(()) };
        let mut pool = self.pool.take().expect("there is a pool between steps");
        let tolerable = self.world.may_impair(&mut pool, disk);
        self.pool = Some(pool);
        if !tolerable {
            return Ok(());
        }
        let temporary = rng.chance(1, 3);
        self.world.impaired.insert(disk);
        let what = format!("offline {path}{}", if temporary { " until import" } else { "" });
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.offline(&path, temporary))?;
        Ok(())
    }

    pub(crate) fn online(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let off = self.paths(|device| device.state == DeviceState::Offline);
        let path = match rng.choose(&off) {
            Some(path) => path.clone(),
            None => self.some_path(rng),
        };
        let Some(disk) = self.world.by_path(&path) else { return Ok(()) };
        if !self.world.disks[disk].device.is_present() {
            return Ok(());
        }
        let new = self.world.new_device(disk);
        let opened = rng.chance(1, 2).then_some(&new);
        let expand = rng.chance(1, 4);
        self.lead_to(&format!("online {path}"), Vec::new(), false, true, |pool| {
            pool.online(&path, opened, expand)
        })?;
        Ok(())
    }

    pub(crate) fn add(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let (mut kind, sizes) = group(rng, 5);
        if self.pool().status().vdevs.iter().any(|vdev| vdev.name.starts_with("draid")) {
            kind = as_draid(rng, kind, sizes.len());
        }
        let status = self.pool().status();
        let heap = status.vdevs.iter().any(|vdev| vdev.children.is_empty());
        if status.vdevs.len() > 12 || self.world.disks.len() + sizes.len() > DISKS_MAX {
            return Ok(());
        }
        let devices = sizes.iter().map(|&size| {
            let disk = self.world.add_disk(size);
            self.world.new_device(disk)
        });
        let groups = [GroupSpec { kind, devices: devices.collect() }];
        let force = rng.chance(1, 2);
        let what = format!("add {kind:?} of {sizes:?}");
        if kind == GroupKind::Plain && !heap {
            self.world.heap_tolerance = 0;
        }
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.add(&groups, force))?;
        Ok(())
    }

    pub(crate) fn add_spare(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if self.pool().status().spares.len() >= 3 {
            return Ok(());
        }
        let size = rng.within(64..100);
        let Some(disk) = self.some_unused(rng, size) else { return Ok(()) };
        self.take_fresh(disk);
        let groups = [GroupSpec { kind: GroupKind::Spare, devices: vec![self.world.new_device(disk)] }];
        self.lead_to("add_spare", Vec::new(), false, true, |pool| pool.add(&groups, false))?;
        Ok(())
    }

    pub(crate) fn remove_spare(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let is_spare = self.pool().status().spares.iter().any(|spare| path.ends_with(&spare.name));
        if is_spare {
            self.lead_to(&format!("remove {path}"), Vec::new(), false, true, |pool| pool.remove(&[path]))?;
        }
        Ok(())
    }

    /// Removes a device or a group; what is on it is relocated by the work in the background.
    pub(crate) fn remove(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let groups: Vec<String> = self.pool().status().vdevs.into_iter().map(|vdev| vdev.name).collect();
        let name = match rng.choose(&groups) {
            Some(group) if rng.chance(1, 3) => group.clone(),
            _ => self.some_path(rng),
        };
        self.lead_to(&format!("remove {name}"), Vec::new(), false, true, |pool| {
            pool.remove(std::slice::from_ref(&name))
        })?;
        Ok(())
    }

    pub(crate) fn grow(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let Some(disk) = self.world.by_path(&path) else { return Ok(()) };
        let size = self.size_of(&path);
        if size > 200 {
            return Ok(());
        }
        let grown = (size + rng.within(1..20)) * MIB;
        self.world.disks[disk].device.set_size(grown);
        self.world.note(|| format!("{path} grows to {grown}"));
        if rng.chance(1, 2) {
            self.lead_to(&format!("expand {path}"), Vec::new(), false, true, |pool| {
                pool.online(&path, None, true)
            })?;
        }
        Ok(())
    }

    pub(crate) fn clear(&mut self) -> Result<(), Failure> {
        self.lead_to("clear", Vec::new(), true, false, |pool| pool.clear(None))?;
        Ok(())
    }

    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        let result = self.pool().check();
        if let Some(report) = self.judge("check", result, false)?
            && let Some(problem) = report.problems.first()
            && self.world.supply.is_on()
        {
            return Err(format!("check says: {problem}"));
        }
        Ok(())
    }

    pub(crate) fn tick(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let budget = 1 << rng.within(12..25);
        self.one_tick(budget)?;
        Ok(())
    }

    fn one_tick(&mut self, budget: u64) -> Result<bool, Failure> {
        let mut rng = Rng::new(self.pattern_number());
        // Power likes to fail when a job notes how far it came: near the end of a step, if this one is like the last.
        let stale =
            self.pool().map().iter().any(|chunk| chunk.placements.iter().any(|p| p.stale_regions > 0));
        let share = if stale { 4 } else { 1 };
        if !self.ending && self.fuse.is_none() && rng.chance(share, 8) && self.pool().has_work() {
            self.world.supply.cut_after(self.tick_changes.saturating_sub(rng.below(30)));
            self.fuse = Some(rng.below(2));
        }
        if stale && !self.ending && !self.healing && rng.chance(1, 6) {
            self.forgetful_target(&mut rng);
        }
        let filled: BTreeSet<_> = self.devices_being_filled().into_iter().collect();
        let filled: BTreeSet<usize> = filled.into_iter().filter_map(|id| self.disk_of(id)).collect();
        if !filled.is_empty() {
            self.keep_a_moment(rng.next_u64());
        }
        let before = self.world.supply.changes();
        let result = self.pool().tick(budget);
        self.tick_changes = self.world.supply.changes() - before;
        self.cut_aside(&filled)?;
        let name = match &result {
            // Faults that last keep a resilver from its end.
            Err(PoolError::Refused(_)) => return Ok(false),
            _ => "tick",
        };
        Ok(self.judge(name, result, false)?.unwrap_or(false))
    }

    /// The devices that lack something, each as often as a column of it does.
    fn devices_being_filled(&mut self) -> Vec<pool::types::DeviceId> {
        self.pool()
            .map()
            .iter()
            .flat_map(|chunk| &chunk.placements)
            .filter(|placement| placement.stale_regions > 0)
            .map(|placement| placement.device)
            .collect()
    }

    /// The disk of an open device.
    fn disk_of(&mut self, id: pool::types::DeviceId) -> Option<usize> {
        let path = self.pool().device_paths().into_iter().find(|device| device.id == id && device.is_open)?;
        self.world.by_path(&path.path)
    }

    /// A disk that is being filled fails to flush, and forgets at the next power cut what it still shows.
    fn forgetful_target(&mut self, rng: &mut Rng) {
        let Some(&id) = rng.choose(&self.devices_being_filled()) else { return };
        let Some(disk) = self.disk_of(id) else { return };
        let Some(mut pool) = self.pool.take() else { return };
        let tolerable = self.world.may_impair(&mut pool, disk);
        self.pool = Some(pool);
        if !tolerable || !self.world.disks[disk].device.is_present() {
            return;
        }
        self.world.impaired.insert(disk);
        self.world.told.insert(disk);
        let medium = DeviceErrorKind::Io("simulated medium error".to_owned());
        let nth = rng.within(1..4);
        self.tally.add("fault Flush fails half done, of a disk being filled", true);
        self.world.note(|| format!("d{disk}, which is being filled, fails flush {nth} half done"));
        self.world.disks[disk].device.plan(nth, Some(Operation::Flush), Effect::FailTorn(medium));
    }

    /// Background work until none is left.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        for _ in 0..TICKS_MAX {
            if !self.one_tick(16 << 20)? || !self.world.supply.is_on() {
                return Ok(());
            }
        }
        Err("background work does not end".to_owned())
    }

    pub(crate) fn wait(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.world.clock.advance(1 << rng.within(4..21));
        self.one_tick(1 << 20)?;
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn drop_caches(&mut self) -> Result<(), Failure> {
        self.pool().drop_caches();
        Ok(())
    }

    /// Takes the pool down and up again in order.
    pub(crate) fn export(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let pool = self.pool.take().expect("there is a pool between steps");
        let result = pool.export();
        match result {
            Ok(()) => {
                self.tally.add("export", true);
                self.world.note(|| "export: ok".to_owned());
                self.model.acknowledge();
            }
            Err(failed) => {
                let (pool, error) = *failed;
                self.pool = Some(pool);
                self.judge::<()>("export", Err(error), false)?;
                return Ok(());
            }
        }
        if !self.world.supply.is_on() {
            return Ok(());
        }
        if rng.chance(1, 3) {
            // Nothing that was acknowledged may wait in a volatile cache.
            for disk in &self.world.disks {
                disk.device.power_cut(Cut::DropAll);
            }
        }
        self.bring_up(rng)
    }

    /// Looks at the pool, imported read-only from copies of the disks.
    pub(crate) fn import_read_only(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
        let mut copy = self.world.fork(|disk| present[disk]);
        let before: Vec<u64> = copy.disks.iter().map(|disk| disk.device.counts().writes).collect();
        let mut pool = copy
            .import(&ImportOptions { read_only: true, ..options() })
            .map_err(|error| format!("import read-only failed: {error}"))?;
        self.tally.add("import_read_only", true);
        let seen = crate::verify::observe(&mut pool)?;
        if let Some(difference) = self.model.now().difference(&seen) {
            return Err(format!("imported read-only: {difference}"));
        }
        let report =
            pool.check().map_err(|error| format!("check of the pool imported read-only: {error}"))?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("check of the pool imported read-only says: {problem}"));
        }
        let after: Vec<u64> = copy.disks.iter().map(|disk| disk.device.counts().writes).collect();
        if before != after {
            return Err("a pool that was imported read-only was written to".to_owned());
        }
        self.look_back(rng)
    }

    /// Roots before the last one that can be imported: two.
    fn roots_before(&mut self) -> Vec<Root> {
        let last = self.pool().last_txg().0;
        self.roots.iter().filter(|root| root.txg.0 + 2 >= last && root.txg.0 < last).cloned().collect()
    }

    /// Goes back to one of the last roots for good, or to the newest one that opens, which is the last.
    pub(crate) fn rewind(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let devices: Vec<_> = self.pool().device_paths().iter().map(|device| device.guid).collect();
        let mut roots = self.roots_before();
        // Who left since has no labels any more.
        roots.retain(|root| root.devices == devices);
        let (back, state) = match rng.choose(&roots).cloned() {
            Some(root) if rng.chance(3, 4) => {
                // A comment goes back like everything else.
                self.comments.extend(root.comments);
                (ImportOptions { txg: Some(root.txg), ..options() }, root.state)
            }
            _ => (ImportOptions { rewind: true, ..options() }, self.model.now().clone()),
        };
        let what = back.txg.map_or("the newest".to_owned(), |txg| txg.to_string());
        self.world.note(|| format!("go back to transaction group {what}"));
        self.go_back(rng, &back, &state, "rewind", &format!("transaction group {what}"))
    }

    /// The process dies, and the pool is taken back to an older state for good, as `back` says. `place`: what it goes back to.
    pub(crate) fn go_back(
        &mut self,
        rng: &mut Rng,
        back: &ImportOptions,
        state: &State,
        name: &str,
        place: &str,
    ) -> Result<(), Failure> {
        self.pool = None;
        // Until it is done both may be found.
        let base = self.model.count();
        self.model.push(state.clone());
        if rng.chance(1, 3) {
            self.world.supply.cut_after(rng.below(40));
        }
        self.world.clock.advance(1000);
        let result = self.world.import(back);
        if !self.world.supply.is_on() {
            self.tally.add(&format!("power cut in {name}"), true);
            self.lose_power(rng);
            return self.bring_up(rng);
        }
        self.world.supply.restore();
        match result {
            Ok(pool) => {
                self.take_up(pool);
                self.tally.add(name, true);
                let seen = self.observe()?;
                if let Some(difference) = state.difference(&seen) {
                    return Err(format!("gone back to {place}: {difference}"));
                }
                self.model.acknowledge();
                self.verify_settings()?;
                self.verify_sound()
            }
            // Disks that were away then, and others that are away now.
            Err(PoolError::Refused(_)) if !self.world.impaired.is_empty() => {
                self.tally.add(name, false);
                self.model.truncate(base);
                self.bring_up(rng)
            }
            Err(error) => Err(format!("going back to {place} failed: {error}")),
        }
    }

    /// Looks at an older root, from copies of the disks: what was acknowledged with it is still there.
    pub(crate) fn look_back(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(Root { txg, state, .. }) = rng.choose(&self.roots_before()).cloned() else { return Ok(()) };
        let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
        let mut copy = self.world.fork(|disk| present[disk]);
        let back = ImportOptions { read_only: true, txg: Some(txg), ..options() };
        let mut pool = copy
            .import(&back)
            .map_err(|error| format!("going back to transaction group {txg} failed: {error}"))?;
        self.tally.add("look back", true);
        let seen = crate::verify::observe(&mut pool)
            .map_err(|error| format!("back at transaction group {txg}: {error}"))?;
        match state.difference(&seen) {
            Some(difference) => Err(format!("back at transaction group {txg}: {difference}")),
            None => Ok(()),
        }
    }
}
