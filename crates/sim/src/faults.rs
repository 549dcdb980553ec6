//! Steps in which something goes wrong, always within what the redundancy allows.

use std::ops::Range;
use std::sync::atomic::Ordering;

use device::sim::{Effect, Healing, Rates};
use device::{BlockDevice, DeviceErrorKind, Operation, Rng};
use pool::report::State;

use crate::run::{Failure, Run};
use crate::world::MIB;

impl Run {
    /// A disk of the pool that may have a fault now.
    fn victim(&mut self, rng: &mut Rng) -> Option<usize> {
        let mut all: Vec<usize> =
            self.pool().device_paths().iter().filter_map(|device| self.world.by_path(&device.path)).collect();
        rng.shuffle(&mut all);
        // Those that have one already can have another.
        all.sort_by_key(|disk| !self.world.impaired.contains(disk));
        if rng.chance(1, 2) {
            rng.shuffle(&mut all);
        }
        let mut pool = self.pool.take()?;
        let found = all.into_iter().take(6).find(|&disk| {
            self.world.disks[disk].device.is_present() && self.world.may_impair(&mut pool, disk)
        });
        self.pool = Some(pool);
        let disk = found?;
        self.world.impaired.insert(disk);
        Some(disk)
    }

    /// A disk that may lie from now on.
    fn liar(&mut self, rng: &mut Rng) -> Option<usize> {
        let disk = self.victim(rng)?;
        self.world.blamable.insert(disk);
        Some(disk)
    }

    /// A disk that may fail or go away now. What it misses, or holds of another history, is stale from then on, and
    /// nothing stale is ever taken for wrong.
    fn failing(&mut self, rng: &mut Rng) -> Option<usize> {
        let disk = self.victim(rng)?;
        self.world.told.insert(disk);
        Some(disk)
    }

    /// A range of a disk where something is likely to be.
    fn place(&mut self, rng: &mut Rng, disk: usize, most: u64) -> Range<u64> {
        let size = self.world.disks[disk].device.size().unwrap_or(64 * MIB);
        let path = self.world.disks[disk].path.clone();
        let id =
            self.pool().device_paths().into_iter().find(|device| device.path == path).map(|device| device.id);
        let columns: Vec<(u64, u64)> = self
            .pool()
            .map()
            .iter()
            .flat_map(|chunk| {
                chunk
                    .placements
                    .iter()
                    .filter(|p| Some(p.device) == id)
                    .map(|p| (p.offset, chunk.column_length))
            })
            .collect();
        let length = 1 << rng.within(9..most.ilog2().into());
        let at = match rng.choose(&columns) {
            // Chunks are filled from their beginning.
            Some(&(offset, bytes)) if rng.chance(7, 8) => {
                let part = if rng.chance(1, 2) { bytes / 8 } else { bytes };
                offset + rng.below(part.max(1))
            }
            _ => rng.below(size - MIB),
        };
        let at = at / 512 * 512;
        at..(at + length).min(size)
    }

    pub(crate) fn arm(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let most = *rng.choose(&[3, 20, 100, 400]).unwrap_or(&20);
        let after = rng.below(most);
        self.world.supply.cut_after(after);
        self.fuse = Some(rng.within(1..6));
        self.world.note(|| format!("power will fail after {after} changes"));
        Ok(())
    }

    pub(crate) fn pull(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.failing(rng) else { return Ok(()) };
        self.world.disks[disk].device.pull();
        let lost = rng.chance(1, 2);
        if lost {
            let seed = rng.next_u64();
            self.world.disks[disk].device.power_cut(device::sim::Cut::Random(seed));
        }
        self.tally.add("pull", true);
        self.world.note(|| format!("d{disk} is pulled{}", if lost { " and loses its cache" } else { "" }));
        Ok(())
    }

    pub(crate) fn give_back(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let away: Vec<usize> =
            (0..self.world.disks.len()).filter(|&disk| !self.world.disks[disk].device.is_present()).collect();
        let Some(&disk) = rng.choose(&away) else { return Ok(()) };
        self.return_disk(disk)
    }

    pub(crate) fn return_disk(&mut self, disk: usize) -> Result<(), Failure> {
        self.world.disks[disk].device.plug_in();
        let new = self.world.new_device(disk);
        let result = self.pool().device_returned(&new);
        let taken = self.judge(&format!("return d{disk}"), result, false)?;
        self.world.note(|| format!("d{disk} is back: {taken:?}"));
        Ok(())
    }

    pub(crate) fn rot(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.liar(rng) else { return Ok(()) };
        let spots = 1 << rng.below(6);
        for _ in 0..spots {
            let range = self.place(rng, disk, 1 << 18);
            let device = &self.world.disks[disk].device;
            if rng.chance(1, 3) {
                let mut noise = vec![0; (range.end - range.start) as usize];
                rng.fill(&mut noise);
                device.overwrite(range.start, &noise);
            } else {
                device.corrupt(range, 1 + rng.below(5) as u32);
            }
        }
        self.tally.add("rot", true);
        self.world.note(|| format!("d{disk} rots in {spots} places"));
        Ok(())
    }

    pub(crate) fn read_errors(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.failing(rng) else { return Ok(()) };
        for _ in 0..=rng.below(4) {
            let range = self.place(rng, disk, 1 << 20);
            let healing = if rng.chance(1, 2) { Healing::OnRewrite } else { Healing::Never };
            self.world.note(|| format!("d{disk} can't read {range:?} ({healing:?})"));
            self.world.disks[disk].device.add_read_errors(range, healing);
        }
        self.tally.add("read_errors", true);
        Ok(())
    }

    pub(crate) fn write_errors(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.failing(rng) else { return Ok(()) };
        for _ in 0..=rng.below(2) {
            let range = self.place(rng, disk, 1 << 22);
            self.world.note(|| format!("d{disk} can't write {range:?}"));
            self.world.disks[disk].device.add_write_errors(range);
        }
        self.tally.add("write_errors", true);
        Ok(())
    }

    pub(crate) fn effect(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.victim(rng) else { return Ok(()) };
        let medium = || DeviceErrorKind::Io("simulated medium error".to_owned());
        let (operation, effect) = match rng.below(13) {
            0 => (Operation::Read, Effect::Fail(medium())),
            1 => (Operation::Read, Effect::Corrupted),
            2 => (Operation::Read, Effect::Misdirected),
            3 => (Operation::Write, Effect::Fail(medium())),
            4 => (Operation::Write, Effect::FailTorn(medium())),
            5 => (Operation::Write, Effect::Lost),
            6 => (Operation::Write, Effect::Torn),
            7 => (Operation::Write, Effect::Misdirected),
            8 => (Operation::Write, Effect::Corrupted),
            9 => (Operation::Flush, Effect::Fail(medium())),
            10 => (Operation::Flush, Effect::FailTorn(medium())),
            11 => (Operation::Flush, Effect::Lost),
            _ => (
                *rng.choose(&[Operation::Read, Operation::Write, Operation::Flush])
                    .unwrap_or(&Operation::Read),
                Effect::Gone,
            ),
        };
        let says_so = matches!(effect, Effect::Fail(_) | Effect::FailTorn(_) | Effect::Gone);
        let known = if says_so { &mut self.world.told } else { &mut self.world.blamable };
        known.insert(disk);
        let nth = 1 + rng.below(12);
        self.tally.add(&format!("fault {operation:?} {}", name(&effect)), true);
        self.world.note(|| format!("d{disk}: request {nth} of kind {operation} is {effect:?}"));
        self.world.disks[disk].device.plan(nth, Some(operation), effect);
        Ok(())
    }

    pub(crate) fn rates(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.liar(rng) else { return Ok(()) };
        let mut rate = || if rng.chance(1, 3) { rng.below(60_000) as u32 } else { 0 };
        let rates = Rates {
            read_error: rate(),
            write_error: rate(),
            flush_error: rate(),
            corrupt_read: rate(),
            corrupt_write: rate(),
            lost_write: rate(),
            torn_write: rate(),
            misdirected_write: rate(),
        };
        self.tally.add("rates", true);
        self.world.note(|| format!("d{disk} has {rates:?}"));
        self.world.disks[disk].device.set_rates(rates);
        Ok(())
    }

    /// A disk becomes slow, or quick again. It is not at fault for that.
    pub(crate) fn latency(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let disk = rng.below(self.world.disks.len() as u64) as usize;
        let milliseconds = *rng.choose(&[0, 2, 40, 800, 6_000, 45_000]).unwrap_or(&0);
        self.world.disks[disk].latency.store(milliseconds, Ordering::Relaxed);
        self.tally.add("latency", true);
        self.world.note(|| format!("each request to d{disk} takes {milliseconds} ms"));
        Ok(())
    }

    /// A disk forgets everything.
    pub(crate) fn wipe(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(disk) = self.liar(rng) else { return Ok(()) };
        let device = &self.world.disks[disk].device;
        let size = device.size().unwrap_or(0);
        let zeros = vec![0; MIB as usize];
        let all = rng.chance(1, 2);
        for at in (0..size).step_by(MIB as usize) {
            if all || at == 0 || at + MIB >= size {
                device.overwrite(at, &zeros[..(size - at).min(MIB) as usize]);
            }
        }
        self.tally.add("wipe", true);
        self.world.note(|| format!("d{disk} loses {}", if all { "everything" } else { "its labels" }));
        Ok(())
    }

    /// A disk is used as the whole pool somewhere else for a while, where that is possible; it comes back with a
    /// history of its own.
    pub(crate) fn split(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let Some(disk) = self.failing(rng) else { return Ok(()) };
        self.world.disks[disk].device.pull();
        self.world.note(|| format!("d{disk} is pulled and used elsewhere"));
        // The pool must know that it is gone.
        let known = self.pool().log_history("split");
        self.judge("log", known, false)?;
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let mut copy = self.world.fork(|_| false);
        copy.disks[disk].device.plug_in();
        let elsewhere = pool::spec::ImportOptions { force: true, ..crate::world::options() };
        let Ok(mut pool) = copy.import(&elsewhere) else { return Ok(()) };
        self.tally.add("split", true);
        let names = self.model.now().volumes();
        for round in 0..=rng.below(6) {
            for name in &names {
                let Ok(id) = pool.open(name) else { continue };
                let Ok(info) = pool.volume_info(id) else { continue };
                let length = (info.size.min(24 * u64::from(info.block_size))) as usize;
                let bytes = crate::model::pattern(rng.next_u64() | round, length);
                let _ = pool.write(id, 0, &bytes);
            }
            let _ = pool.flush();
        }
        let device = copy.disks[disk].device.fork();
        device.pull();
        self.world.swap_device(disk, device);
        self.world.apart.insert(disk);
        if rng.chance(1, 2) {
            return Ok(());
        }
        // Taken back at once, all of it is resilvered before anything on it is read.
        self.return_disk(disk)?;
        if self.world.supply.is_on() {
            self.settle()?;
        }
        if self.world.supply.is_on() {
            self.lead_to("scrub Start", Vec::new(), false, true, |pool| {
                pool.scrub(pool::ScrubAction::Start)
            })?;
        }
        if self.world.supply.is_on() {
            self.settle()?;
        }
        if self.world.supply.is_on() { self.verify_blame() } else { Ok(()) }
    }

    /// Ends all faults, brings everything back, and lets the pool repair itself; then nothing may be left to repair.
    pub(crate) fn heal(&mut self) -> Result<(), Failure> {
        self.healing = true;
        let outcome = self.end_all_faults();
        self.healing = false;
        outcome
    }

    fn end_all_faults(&mut self) -> Result<(), Failure> {
        self.world.note(|| "all faults end".to_owned());
        for disk in 0..self.world.disks.len() {
            let device = &self.world.disks[disk].device;
            device.clear_plans();
            device.set_rates(Rates::default());
            device.clear_errors(0..u64::MAX);
            self.world.disks[disk].latency.store(0, Ordering::Relaxed);
            if !device.is_present() {
                self.return_disk(disk)?;
                if !self.world.supply.is_on() {
                    return Ok(());
                }
            }
        }
        self.verify_blame()?;
        self.clear()?;
        // One that was being replaced by a disk that is lost, too, waits until that one is given up.
        for _ in 0..2 {
            self.return_devices()?;
        }
        // One whose handle was dead, which shows when it is used again.
        for disk in 0..self.world.disks.len() {
            if self.world.supply.is_on() {
                self.return_disk(disk)?;
            }
        }
        if self.world.supply.is_on() {
            self.settle()?;
        }
        for round in 0..3 {
            if !self.world.supply.is_on() {
                return Ok(());
            }
            if self.scrub_to_the_end(round)? {
                break;
            }
        }
        if !self.world.supply.is_on() {
            return Ok(());
        }
        self.verify_blame()?;
        self.world.impaired.clear();
        self.world.apart.clear();
        self.clear()?;
        if self.world.supply.is_on() {
            // A crash takes back nothing of a `clear` that was acknowledged.
            self.world.blamable.clear();
            self.world.told.clear();
            self.roots.clear();
        }
        self.tally.add("healed", true);
        if self.world.supply.is_on() && !self.ending { self.verify_bytes() } else { Ok(()) }
    }

    /// Gives the pool its devices back, or others for those that lost everything.
    fn return_devices(&mut self) -> Result<(), Failure> {
        for device in self.pool().device_paths() {
            if !self.world.supply.is_on() {
                return Ok(());
            }
            let Some(disk) = self.world.by_path(&device.path) else { continue };
            let new = self.world.new_device(disk);
            if device.state == State::Offline {
                let what = format!("online {}", new.path);
                let done = self.lead_to(&what, Vec::new(), false, true, |pool| {
                    pool.online(&new.path, Some(&new), false)
                })?;
                if !done && self.world.supply.is_on() {
                    self.replace_lost(&device.path, disk)?;
                }
            } else if !device.is_open {
                let result = self.pool().device_returned(&new);
                if self.judge(&format!("return d{disk}"), result, false)? == Some(false) {
                    self.replace_lost(&device.path, disk)?;
                }
            }
        }
        Ok(())
    }

    /// A disk whose labels are gone is no disk of the pool any more.
    fn replace_lost(&mut self, path: &str, disk: usize) -> Result<(), Failure> {
        let size = self.world.disks[disk].device.size().unwrap_or(0).div_ceil(MIB);
        let new = self.world.add_disk(size);
        let new = self.world.new_device(new);
        let spare =
            self.pool().status().spares.iter().any(|spare| path.ends_with(&spare.name) || spare.name == path);
        let what = format!("replace {path} by {}", new.path);
        let mut done = false;
        // A removal is in the way at most.
        for attempt in 0..2 {
            done = self.lead_to(&what, Vec::new(), false, true, |pool| {
                pool.replace(path, &new, pool::ReplaceOptions::default())
            })?;
            if done || attempt > 0 || !self.world.supply.is_on() {
                break;
            }
            self.lead_to("remove -s", Vec::new(), false, true, |pool| {
                pool.balance_control(pool::BalanceAction::Cancel)
            })?;
            if !self.world.supply.is_on() {
                break;
            }
        }
        if !done && self.world.supply.is_on() && !spare {
            // A replacement that was lost itself.
            self.lead_to(&format!("detach {path}"), Vec::new(), false, true, |pool| pool.detach(path))?;
        }
        Ok(())
    }

    /// Scrubs everything; whether nothing was found.
    fn scrub_to_the_end(&mut self, round: u32) -> Result<bool, Failure> {
        use pool::ScrubAction;
        if self
            .pool()
            .scan()
            .is_some_and(|scan| scan.kind == pool::report::ScanKind::Scrub && scan.ended.is_none())
        {
            self.lead_to("scrub Stop", Vec::new(), false, true, |pool| pool.scrub(ScrubAction::Stop))?;
        }
        if !self.world.supply.is_on() {
            return Ok(false);
        }
        let _ = self.pool().scrub(ScrubAction::Stop);
        if !self.world.supply.is_on() {
            return Ok(false);
        }
        let started =
            self.lead_to("scrub Start", Vec::new(), false, false, |pool| pool.scrub(ScrubAction::Start))?;
        if !started {
            return Ok(false);
        }
        self.settle()?;
        if !self.world.supply.is_on() {
            return Ok(false);
        }
        let Some(scan) = self.pool().scan() else { return Err("a scrub left no trace".to_owned()) };
        self.world.note(|| format!("scrub {round}: {} repaired, {} errors", scan.repaired, scan.errors));
        if scan.kind != pool::report::ScanKind::Scrub || scan.state != pool::report::ScanState::Finished {
            return Err(format!("a scrub did not finish: {scan:?}"));
        }
        if scan.errors > 0 {
            return Err(format!("a scrub could not repair {} places", scan.errors));
        }
        if round > 0 && scan.repaired > 0 {
            return Err(format!("scrub number {} still repaired {} bytes", round + 1, scan.repaired));
        }
        Ok(scan.repaired == 0 && round > 0)
    }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Fail(_) => "fails",
        Effect::FailTorn(_) => "fails half done",
        Effect::Lost => "is lost",
        Effect::Torn => "is torn",
        Effect::Misdirected => "is misdirected",
        Effect::Corrupted => "is corrupted",
        Effect::Gone => "takes the disk away",
    }
}
