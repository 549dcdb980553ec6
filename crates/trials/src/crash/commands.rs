//! Commands are killed at work: each is done or not done afterwards, and nothing else has changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use device::Rng;

use crate::lab::Lab;
use crate::ledger::{Act, Ledger, SLOT, stamped};

/// Size of a disk file, bytes.
const DISK: u64 = 96 << 20;
/// Bytes that the volume holds.
const DATA: usize = 24 << 20;
/// How many commands a round kills.
const KILLS: usize = 4;

type Case = fn(&mut Commands, &Lab, &mut Rng) -> Result<()>;

/// All of them, by name.
const CASES: [(&str, Case); 24] = [
    ("create", Commands::create),
    ("scrub -w", Commands::scrub),
    ("volume write", Commands::write),
    ("snapshot", Commands::snapshot),
    ("rollback", Commands::rollback),
    ("destroy POOL/VOL@SNAP", Commands::destroy_snapshot),
    ("export", Commands::export),
    ("import", Commands::import),
    ("replace -w", Commands::replace),
    ("wait", Commands::wait),
    ("fuse", Commands::fuse),
    ("destroy POOL", Commands::destroy),
    ("volume create", Commands::volume_create),
    ("volume resize", Commands::resize),
    ("destroy POOL/VOL", Commands::volume_destroy),
    ("set", Commands::set),
    ("add", Commands::add),
    ("add spare", Commands::add_spare),
    ("remove", Commands::remove),
    ("offline", Commands::offline),
    ("online", Commands::online),
    ("attach -w", Commands::attach),
    ("detach", Commands::detach),
    ("holder of a command", Commands::holder),
];

/// How a command fared.
#[derive(Debug)]
struct Tally {
    killed: u64,
    ended: u64,
    /// About how long it takes; grows until it ended once.
    span: Duration,
}

/// A raidz2 pool with a volume whose contents are known.
#[derive(Debug)]
pub struct Commands {
    disks: Vec<String>,
    idle: String,
    data: Vec<u8>,
    tallies: BTreeMap<&'static str, Tally>,
    next: usize,
    /// Killed or ended, of the last command.
    last: &'static str,
}

fn noise(rng: &mut Rng, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rng.fill(&mut noise);
    noise
}

impl Commands {
    /// Makes the pool.
    ///
    /// # Errors
    /// The program's.
    pub fn new(lab: &Lab) -> Result<Self> {
        let disks: Vec<String> =
            (0..5).map(|index| lab.disk(&format!("pond/d{index}"), DISK)).collect::<Result<_>>()?;
        let idle = lab.disk("pond/new", DISK)?;
        lab.ok(&format!("create pond raidz2 {}", disks.join(" ")))?;
        lab.ok(&format!("volume create -s -V {DATA} pond/vol"))?;
        let data = noise(&mut Rng::new(5), DATA);
        fs::write(lab.path("input"), &data)?;
        lab.ok(&format!("volume write pond/vol --from {}", lab.path("input")))?;
        Ok(Self { disks, idle, data, tallies: BTreeMap::new(), next: 0, last: "" })
    }

    /// Kills some commands; says which.
    ///
    /// # Errors
    /// What was promised did not hold.
    pub fn round(&mut self, lab: &Lab, rng: &mut Rng) -> Result<String> {
        let mut told = Vec::new();
        for _ in 0..KILLS {
            let (name, case) = CASES[self.next % CASES.len()];
            self.next += 1;
            case(self, lab, rng).and_then(|()| self.sound(lab)).with_context(|| format!("coffer {name}"))?;
            told.push(format!("{name} {}", self.last));
        }
        Ok(told.join(", "))
    }

    /// A line for each command.
    pub fn summary(&self) -> String {
        let lines = self.tallies.iter().map(|(name, tally)| {
            format!("  {name}: killed {} times, was done before {} times", tally.killed, tally.ended)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The pool is well and holds what it has to.
    fn sound(&mut self, lab: &Lab) -> Result<()> {
        lab.check("pond")?;
        ensure!(self.read(lab, "pond/vol")? == self.data, "pond/vol holds something else");
        let row = lab.ok("list -H pond")?;
        ensure!(row.trim_end().ends_with("ONLINE"), "pond is not well: {}", lab.ok("status pond")?);
        Ok(())
    }

    fn read(&self, lab: &Lab, name: &str) -> Result<Vec<u8>> {
        let copy = lab.path("read");
        lab.ok(&format!("volume read {name} --to {copy} --length {}", self.data.len()))?;
        Ok(fs::read(&copy)?)
    }

    /// Runs a command and kills it at some moment; whether it had ended well before.
    fn strike(&mut self, lab: &Lab, rng: &mut Rng, name: &'static str, line: &str) -> Result<bool> {
        let first = Tally { killed: 0, ended: 0, span: Duration::from_millis(20) };
        let tally = self.tallies.entry(name).or_insert(first);
        let delay = Duration::from_micros(rng.below(tally.span.as_micros() as u64 * 11 / 10));
        let mut running = lab.start(lab.coffer(line))?;
        while running.age() < delay && running.lives()? {
            thread::sleep(Duration::from_micros(200));
        }
        let age = running.age();
        let ran = running.kill()?;
        if ran.status.code().is_none() {
            tally.killed += 1;
            if tally.ended == 0 {
                tally.span *= 2;
            }
            self.last = "killed";
            return Ok(false);
        }
        tally.ended += 1;
        tally.span = (tally.span + age) / 2;
        self.last = "done";
        ran.ok().map(|_| true)
    }

    /// Kills a command that must be done or not done; if it ended well it must be done. Returns which it is.
    fn either(
        &mut self,
        lab: &Lab,
        rng: &mut Rng,
        name: &'static str,
        line: &str,
        is_done: impl Fn(&Lab) -> Result<bool>,
    ) -> Result<bool> {
        let ended = self.strike(lab, rng, name, line)?;
        let done = is_done(lab)?;
        ensure!(done || !ended, "coffer {line} ended well and is not done");
        Ok(done)
    }

    /// A second pool, fresh, of some vdevs.
    fn brook(&self, lab: &Lab, kind: &str, disks: usize) -> Result<Vec<String>> {
        let disks: Vec<String> =
            (0..disks).map(|index| lab.disk(&format!("brook/d{index}"), 64 << 20)).collect::<Result<_>>()?;
        lab.ok(&format!("create brook {kind} {}", disks.join(" ")))?;
        lab.ok("volume create -s -V 1M brook/vol")?;
        fs::write(lab.path("input"), &self.data[..1 << 20])?;
        lab.ok(&format!("volume write brook/vol --from {}", lab.path("input")))?;
        Ok(disks)
    }

    fn brook_is_sound(&self, lab: &Lab) -> Result<()> {
        lab.check("brook")?;
        lab.ok(&format!("volume read brook/vol --to {}", lab.path("read")))?;
        ensure!(fs::read(lab.path("read"))? == self.data[..1 << 20], "brook/vol holds something else");
        Ok(())
    }

    fn create(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let disks: Vec<String> =
            (0..4).map(|index| lab.disk(&format!("brook/d{index}"), 64 << 20)).collect::<Result<_>>()?;
        let line = format!("create brook raidz2 {}", disks.join(" "));
        let ended = self.strike(lab, rng, "create", &line)?;
        let folder = lab.path("brook");
        if !has(lab, "brook")? {
            ensure!(!ended, "created and not there");
            // Devices that were labelled, and no more, are shown as a pool that can't be imported.
            let found = lab.json(&format!("import -d {folder}"))?;
            let mut found = found.as_array().into_iter().flatten();
            if !found.any(|pool| pool["name"] == "brook" && pool["state"] != "FAULTED") {
                // Not done: it can be done.
                return lab
                    .ok(&line.replace("create", "create -f"))
                    .and_then(|_| lab.ok("destroy brook"))
                    .map(drop);
            }
            lab.ok(&format!("import -d {folder} brook")).context("it is found and can't be imported")?;
        }
        lab.check("brook")?;
        lab.ok("destroy brook").map(drop)
    }

    fn destroy(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        self.brook(lab, "raidz2", 4)?;
        let ended = self.strike(lab, rng, "destroy POOL", "destroy brook")?;
        let folder = lab.path("brook");
        if !has(lab, "brook")? {
            let found = lab.ok(&format!("import -d {folder}"))?;
            ensure!(!found.contains("brook"), "destroyed, and yet found: {found}");
            return Ok(());
        }
        ensure!(!ended, "destroyed and still there");
        self.brook_is_sound(lab).context("neither destroyed nor whole")?;
        ensure!(lab.ok("list -H brook")?.trim_end().ends_with("ONLINE"), "{}", lab.ok("status brook")?);
        lab.ok("destroy brook").map(drop)
    }

    fn export(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        self.either(lab, rng, "export", "export pond", |lab| Ok(!has(lab, "pond")?))?;
        if !has(lab, "pond")? {
            lab.ok(&format!("import -d {} pond", lab.path("pond")))?;
        }
        Ok(())
    }

    fn import(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        lab.ok("export pond")?;
        let line = format!("import -d {} pond", lab.path("pond"));
        if !self.either(lab, rng, "import", &line, |lab| has(lab, "pond"))? {
            lab.ok(&line)?;
        }
        Ok(())
    }

    fn scrub(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        self.strike(lab, rng, "scrub -w", "scrub -w pond")?;
        // Killed before it began, the last job is another one.
        let said = lab.ok("wait pond")?;
        let clean = said.contains("scrub repaired 0B") && said.contains("with 0 errors");
        ensure!(clean || !said.contains("scrub"), "{said}");
        Ok(())
    }

    /// Which disk is idle now, after a replacement that may or may not have begun.
    fn settle(&mut self, lab: &Lab, at: usize) -> Result<()> {
        lab.ok("wait pond")?;
        let status = lab.ok("status pond")?;
        match (status.contains(&self.disks[at]), status.contains(&self.idle)) {
            (true, false) => {}
            (false, true) => std::mem::swap(&mut self.disks[at], &mut self.idle),
            _ => bail!("a replacement of {} by {} has no end: {status}", self.disks[at], self.idle),
        }
        Ok(())
    }

    fn replace(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let at = rng.below(self.disks.len() as u64) as usize;
        let line = format!("replace -f -w pond {} {}", self.disks[at], self.idle);
        self.strike(lab, rng, "replace -w", &line)?;
        self.sound(lab)?;
        self.settle(lab, at)
    }

    fn wait(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let at = rng.below(self.disks.len() as u64) as usize;
        // Begun by a holder that is killed at once, so that much is left to be waited for.
        let holder = lab.start(lab.coffer("serve pond"))?.ready()?;
        let line = format!("replace -f pond {} {}", self.disks[at], self.idle);
        lab.ok(&line)?;
        holder.kill()?;
        self.strike(lab, rng, "wait", "wait pond")?;
        self.sound(lab)?;
        self.settle(lab, at)
    }

    fn write(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let length = 8 << 20;
        let offset = rng.below((DATA - length) as u64 / 4096) as usize * 4096;
        let new = noise(rng, length);
        fs::write(lab.path("input"), &new)?;
        let line = format!("volume write pond/vol --from {} --offset {offset}", lab.path("input"));
        let ended = self.strike(lab, rng, "volume write", &line)?;
        let there = self.read(lab, "pond/vol")?;
        let (mut old, mut written) = (0, 0);
        for (at, now) in there.chunks(SLOT).enumerate().map(|(index, now)| (index * SLOT, now)) {
            let is_new = at >= offset && at < offset + length && *now == new[at - offset..][..SLOT];
            ensure!(is_new || *now == self.data[at..at + SLOT], "neither old nor new at {at}");
            if is_new { written += 1 } else { old += 1 }
        }
        ensure!(!ended || written == length / SLOT, "ended well with {old} old blocks");
        self.data = there;
        Ok(())
    }

    /// Takes a snapshot and changes the volume; returns what the volume held before.
    fn snapshot_and_change(&mut self, lab: &Lab, rng: &mut Rng) -> Result<Vec<u8>> {
        lab.ok("snapshot pond/vol@now")?;
        let before = self.data.clone();
        let new = noise(rng, 4 << 20);
        let offset = rng.below((DATA - new.len()) as u64 / 4096) as usize * 4096;
        fs::write(lab.path("input"), &new)?;
        lab.ok(&format!("volume write pond/vol --from {} --offset {offset}", lab.path("input")))?;
        self.data[offset..offset + new.len()].copy_from_slice(&new);
        Ok(before)
    }

    fn snapshot(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        if self
            .either(lab, rng, "snapshot", "snapshot pond/vol@one", |lab| has_dataset(lab, "pond/vol@one"))?
        {
            ensure!(self.read(lab, "pond/vol@one")? == self.data, "the snapshot holds something else");
            lab.ok("destroy pond/vol@one")?;
        }
        Ok(())
    }

    fn rollback(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let before = self.snapshot_and_change(lab, rng)?;
        let ended = self.strike(lab, rng, "rollback", "rollback pond/vol@now")?;
        let there = self.read(lab, "pond/vol")?;
        ensure!(there == before || (!ended && there == self.data), "neither as it was nor as it is");
        self.data = there;
        ensure!(self.read(lab, "pond/vol@now")? == before, "the snapshot has changed");
        lab.ok("destroy pond/vol@now").map(drop)
    }

    fn destroy_snapshot(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let before = self.snapshot_and_change(lab, rng)?;
        let gone = |lab: &Lab| Ok(!has_dataset(lab, "pond/vol@now")?);
        if !self.either(lab, rng, "destroy POOL/VOL@SNAP", "destroy pond/vol@now", gone)? {
            ensure!(self.read(lab, "pond/vol@now")? == before, "the snapshot has changed");
            lab.ok("destroy pond/vol@now")?;
        }
        Ok(())
    }

    fn volume_create(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let there = |lab: &Lab| has_dataset(lab, "pond/more");
        if self.either(lab, rng, "volume create", "volume create -V 16M pond/more", there)? {
            lab.ok("destroy pond/more")?;
        }
        Ok(())
    }

    fn volume_destroy(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        lab.ok("volume create -s -V 16M pond/more")?;
        fs::write(lab.path("input"), &self.data[..16 << 20])?;
        lab.ok(&format!("volume write pond/more --from {}", lab.path("input")))?;
        let gone = |lab: &Lab| Ok(!has_dataset(lab, "pond/more")?);
        if !self.either(lab, rng, "destroy POOL/VOL", "destroy pond/more", gone)? {
            lab.ok(&format!("volume read pond/more --to {}", lab.path("read")))?;
            ensure!(fs::read(lab.path("read"))? == self.data[..16 << 20], "half destroyed");
            lab.ok("destroy pond/more")?;
        }
        Ok(())
    }

    fn resize(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        lab.ok("volume create -s -V 16M pond/more")?;
        let size =
            |lab: &Lab| Ok(lab.ok("get -H -p volsize pond/more")?.split('\t').nth(2) == Some("8388608"));
        let line = "volume resize pond/more 8M";
        self.either(lab, rng, "volume resize", line, size)?;
        lab.ok("destroy pond/more").map(drop)
    }

    fn set(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let value = |lab: &Lab| Ok(lab.ok("get -H compression pond/vol")?.split('\t').nth(2) == Some("zstd"));
        self.either(lab, rng, "set", "set compression=zstd pond/vol", value)?;
        lab.ok("set compression=lz4 pond/vol").map(drop)
    }

    fn add(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        self.brook(lab, "mirror", 2)?;
        let (one, two) = (lab.disk("brook/x", 64 << 20)?, lab.disk("brook/y", 64 << 20)?);
        let done = |lab: &Lab| Ok(lab.ok("status brook")?.contains(&one));
        if !self.either(lab, rng, "add", &format!("add brook mirror {one} {two}"), done)? {
            lab.ok(&format!("add -f brook mirror {one} {two}"))?;
        }
        self.brook_is_sound(lab)?;
        lab.ok("destroy brook").map(drop)
    }

    fn add_spare(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let spare = lab.disk("pond/spare", DISK)?;
        let done = |lab: &Lab| Ok(lab.ok("status pond")?.contains(&spare));
        if self.either(lab, rng, "add spare", &format!("add pond spare {spare}"), done)? {
            lab.ok(&format!("remove pond {spare}"))?;
        }
        Ok(())
    }

    fn remove(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let spare = lab.disk("pond/spare", DISK)?;
        lab.ok(&format!("add pond spare {spare}"))?;
        let done = |lab: &Lab| Ok(!lab.ok("status pond")?.contains(&spare));
        if !self.either(lab, rng, "remove", &format!("remove pond {spare}"), done)? {
            lab.ok(&format!("remove pond {spare}"))?;
        }
        Ok(())
    }

    fn offline(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let disk = self.disks[rng.below(self.disks.len() as u64) as usize].clone();
        let done = |lab: &Lab| Ok(lab.ok("status pond")?.contains("OFFLINE"));
        if self.either(lab, rng, "offline", &format!("offline pond {disk}"), done)? {
            lab.ok(&format!("online pond {disk}"))?;
        }
        Ok(())
    }

    fn online(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let disk = self.disks[rng.below(self.disks.len() as u64) as usize].clone();
        lab.ok(&format!("offline pond {disk}"))?;
        fs::write(lab.path("input"), &self.data[..8 << 20])?;
        lab.ok(&format!("volume write pond/vol --from {}", lab.path("input")))?;
        let done = |lab: &Lab| Ok(!lab.ok("status pond")?.contains("OFFLINE"));
        if !self.either(lab, rng, "online", &format!("online pond {disk}"), done)? {
            lab.ok(&format!("online pond {disk}"))?;
        }
        lab.ok("wait pond").map(drop)
    }

    fn attach(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let disks = self.brook(lab, "mirror", 2)?;
        let third = lab.disk("brook/x", 64 << 20)?;
        let done = |lab: &Lab| Ok(lab.ok("status brook")?.contains(&third));
        if self.either(lab, rng, "attach -w", &format!("attach -w brook {} {third}", disks[0]), done)? {
            // With both others gone, it holds everything.
            lab.ok("wait brook")?;
            for disk in &disks {
                lab.ok(&format!("detach brook {disk}"))?;
            }
        }
        self.brook_is_sound(lab)?;
        lab.ok("destroy brook").map(drop)
    }

    fn detach(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let disks = self.brook(lab, "mirror", 3)?;
        let done = |lab: &Lab| Ok(!lab.ok("status brook")?.contains(&disks[1]));
        self.either(lab, rng, "detach", &format!("detach brook {}", disks[1]), done)?;
        self.brook_is_sound(lab)?;
        ensure!(lab.ok("list -H brook")?.trim_end().ends_with("ONLINE"), "{}", lab.ok("status brook")?);
        lab.ok("destroy brook").map(drop)
    }

    /// The process that works for a command is killed: the command says so and fails.
    fn holder(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        let holder = lab.start(lab.coffer("serve pond"))?.ready()?;
        fs::write(lab.path("input"), &self.data)?;
        let command =
            lab.start(lab.coffer(&format!("volume write pond/vol --from {}", lab.path("input"))))?;
        thread::sleep(Duration::from_millis(rng.below(200)));
        holder.kill()?;
        let ran = command.wait()?;
        self.last = "killed";
        match ran.status.code() {
            Some(0) => self.last = "done",
            Some(1) => ensure!(!ran.err.trim().is_empty(), "it failed without a word"),
            _ => bail!("it ended with {}: {}", ran.status, ran.err),
        }
        Ok(())
    }

    fn fuse(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            self.last = "passed over: no /dev/fuse";
            return Ok(());
        }
        let folder = lab.path("mount");
        fs::create_dir_all(&folder)?;
        lab.ok("volume create -s -V 8M pond/more")?;
        let server = lab.start(lab.coffer(&format!("fuse pond {folder}")))?.ready()?;
        let mut ledger = Ledger::new((8 << 20) / SLOT);
        let delay = Duration::from_millis(rng.below(400));
        let mut own = rng.derive();
        let outcome = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                // Ends with the first error, which is the death of the server.
                let _ = write_stamps(&format!("{folder}/more"), &mut ledger, &mut own);
            });
            thread::sleep(delay);
            let ran = server.kill();
            let _ = writer.join();
            ran
        });
        lab.run(unmount(&folder))?;
        outcome?;
        self.last = "killed";
        let copy = lab.path("read");
        lab.ok(&format!("volume read pond/more --to {copy}"))?;
        ledger.settle_after_crash(0, &fs::read(&copy)?)?;
        lab.ok("destroy pond/more").map(drop)
    }
}

/// Writes stamps to a file and makes them durable now and then, until it fails.
fn write_stamps(path: &str, ledger: &mut Ledger, rng: &mut Rng) -> std::io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut bytes = vec![0; SLOT];
    loop {
        if rng.chance(1, 8) {
            let then = ledger.now();
            file.sync_data()?;
            ledger.flushed(then);
            continue;
        }
        let slot = rng.below(ledger.len() as u64) as usize;
        let number = ledger.sent(slot..slot + 1, Act::Write);
        stamped(slot as u64, number, &mut bytes);
        file.write_all_at(&bytes, (slot * SLOT) as u64)?;
        ledger.answered(slot..slot + 1, number);
    }
}

fn unmount(folder: &str) -> Command {
    let mut command = Command::new("fusermount3");
    command.args(["-u", "-z", folder]);
    command
}

/// Whether a pool is in use here.
fn has(lab: &Lab, pool: &str) -> Result<bool> {
    Ok(lab.ok("list -H")?.lines().any(|line| line.split('\t').next() == Some(pool)))
}

/// Whether there is a volume or snapshot.
fn has_dataset(lab: &Lab, name: &str) -> Result<bool> {
    Ok(lab.ok("list -H -t all pond")?.lines().any(|line| line.split('\t').next() == Some(name)))
}
