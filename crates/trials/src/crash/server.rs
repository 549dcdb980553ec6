//! The server is killed under load, again and again, and the pool taken up again: what a flush acknowledged is
//! there, the rest is old or new, and nothing needs a repair.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use device::Rng;

use super::load::{self, Done};
use crate::lab::Lab;
use crate::ledger::{Ledger, SLOT};

/// Size of the volume, bytes.
const VOLUME: u64 = 64 << 20;
/// Size of a disk file, bytes.
const DISK: u64 = 160 << 20;
/// Disks in the pool.
const DISKS: usize = 6;

/// A raidz2 pool that lives through it all.
#[derive(Debug)]
pub struct Server {
    /// Disks in the pool; one more waits for its turn.
    disks: Vec<String>,
    idle: String,
    ledger: Ledger,
    /// Snapshots that must be there, and the hash of what they hold.
    snapshots: BTreeMap<String, blake3::Hash>,
    next: u64,
    fio: bool,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Round {
    /// What was written.
    pub done: Done,
    /// Slots whose newest contents had not been flushed and are gone.
    pub lost: u64,
    /// How the pool was taken up again.
    pub way: &'static str,
    /// What was done to the pool meanwhile.
    pub meanwhile: &'static str,
}

impl Server {
    /// Makes the pool.
    ///
    /// # Errors
    /// The program's.
    pub fn new(lab: &Lab) -> Result<Self> {
        let disks: Vec<String> =
            (0..DISKS).map(|index| lab.disk(&format!("tank/d{index}"), DISK)).collect::<Result<_>>()?;
        let idle = lab.disk("tank/new", DISK)?;
        lab.ok(&format!("create tank raidz2 {}", disks.join(" ")))?;
        lab.ok(&format!("volume create -s -V {VOLUME} tank/vol"))?;
        lab.ok("volume create -s -V 32M tank/fio")?;
        let ledger = Ledger::new(VOLUME as usize / SLOT);
        let fio = Command::new("fio").arg("--enghelp").output();
        let fio = fio.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("nbd"));
        Ok(Self { disks, idle, ledger, snapshots: BTreeMap::new(), next: 0, fio })
    }

    /// Whether fio is there and speaks NBD.
    pub fn has_fio(&self) -> bool {
        self.fio
    }

    /// One life of the server.
    ///
    /// # Errors
    /// What was promised did not hold.
    pub fn round(&mut self, lab: &Lab, rng: &mut Rng) -> Result<Round> {
        let socket = lab.path("nbd.sock");
        let _ = fs::remove_file(&socket);
        let mut server =
            lab.start(lab.coffer(&format!("nbd tank/vol tank/fio --socket {socket}")))?.ready()?;
        let fio = if self.fio { Some(lab.start(fio(&socket, rng.next_u64()))?) } else { None };
        let connections = load::connect(&socket, "tank/vol")?;
        let span = if rng.chance(1, 8) { 30 } else { 1200 };
        let (delay, seed) = (Duration::from_millis(rng.below(span)), rng.next_u64());
        let ledger = Mutex::new(std::mem::replace(&mut self.ledger, Ledger::new(0)));
        let (done, meanwhile) = std::thread::scope(|scope| {
            let load = scope.spawn(|| load::run(connections, &ledger, seed));
            let killer = scope.spawn(move || {
                std::thread::sleep(delay);
                let lived = server.lives()?;
                server.kill().map(|ran| (lived, ran))
            });
            let meanwhile = self.meanwhile(lab, rng);
            let (lived, ran) = joined(killer.join())?;
            ensure!(lived, "the server ended by itself: {}{}", ran.out, ran.err);
            Ok((joined(load.join())?, meanwhile?))
        })?;
        self.ledger = ledger.into_inner()?;
        if let Some(fio) = fio {
            let ran = fio.wait()?;
            let said = format!("{}{}", ran.out, ran.err);
            ensure!(!said.contains("verify:") && !said.contains("bad magic"), "fio found wrong data: {said}");
        }
        let (way, before) = self.take_up(lab, rng)?;
        let lost = before + self.verify(lab)?;
        ensure!(before == 0 || lost == before, "what two lost disks left readable has changed since");
        self.tidy(lab, rng)?;
        Ok(Round { done, lost, way, meanwhile })
    }

    /// An administrator at work while the server runs and is killed.
    fn meanwhile(&mut self, lab: &Lab, rng: &mut Rng) -> Result<&'static str> {
        let pick = rng.below(10);
        std::thread::sleep(Duration::from_millis(rng.below(200)));
        // Whether it is done or not is not known if the server was killed before it answered.
        let try_it = |line: &str| lab.run(lab.coffer(line)).map(|ran| ran.status.success());
        match pick {
            0 | 1 => {
                let name = format!("tank/vol@s{}", self.next);
                self.next += 1;
                if try_it(&format!("snapshot {name}"))?
                    && let Ok(hash) = hash(lab, &name)
                {
                    self.snapshots.insert(name, hash);
                }
                Ok("snapshot")
            }
            2 => {
                let Some((name, _)) = self.snapshots.pop_first() else { return Ok("-") };
                if try_it(&format!("destroy {name}"))? {
                    // Without an answer the server was killed between the two.
                    let left = lab.run(lab.coffer("list -H -t snapshot tank"))?;
                    let row = format!("{name}\t");
                    ensure!(!left.out.lines().any(|line| line.starts_with(&row)), "{name} is back");
                }
                Ok("destroy")
            }
            3 => try_it("scrub tank").map(|_| "scrub"),
            4 => {
                let disk = &self.disks[rng.below(self.disks.len() as u64) as usize];
                try_it(&format!("offline tank {disk}"))?;
                std::thread::sleep(Duration::from_millis(rng.below(200)));
                try_it(&format!("online tank {disk}"))?;
                Ok("offline, online")
            }
            5 | 6 => {
                let at = rng.below(self.disks.len() as u64) as usize;
                try_it(&format!("replace -f tank {} {}", self.disks[at], self.idle))?;
                Ok("replace")
            }
            _ => Ok("-"),
        }
    }

    /// Takes the pool up again after its holder was killed; says how, and what was found lost by then.
    fn take_up(&mut self, lab: &Lab, rng: &mut Rng) -> Result<(&'static str, u64)> {
        let import = |lab: &Lab| lab.ok(&format!("import -d {} tank", lab.path("tank"))).map(drop);
        lab.check("tank").context("the check right after the kill")?;
        match rng.below(4) {
            0 => {
                lab.ok("export tank")?;
                import(lab)?;
                Ok(("export, import", 0))
            }
            1 => {
                let guid = lab.json("list tank")?["pools"][0]["guid"].to_string();
                for kind in ["json", "sock", "lock"] {
                    let _ = fs::remove_file(lab.path(&format!("state/{guid}.{kind}")));
                }
                import(lab)?;
                Ok(("import where it is not known", 0))
            }
            2 => {
                // What is stale from before is caught up first: it must bear the loss of two.
                self.settled(lab)?;
                let first = rng.below(self.disks.len() as u64) as usize;
                let second = (first + 1 + rng.below(self.disks.len() as u64 - 1) as usize) % self.disks.len();
                let gone: Vec<String> = [first, second].map(|at| self.disks[at].clone()).to_vec();
                for disk in &gone {
                    fs::rename(disk, format!("{disk}.away"))?;
                }
                let looked = lab.check("tank").and_then(|()| self.verify(lab));
                for disk in &gone {
                    fs::rename(format!("{disk}.away"), disk)?;
                }
                let lost = looked.with_context(|| format!("without {}", gone.join(" and ")))?;
                Ok(("two disks away", lost))
            }
            _ => Ok(("as it is", 0)),
        }
    }

    /// Compares the volume with the ledger, and the snapshots with their hashes.
    fn verify(&mut self, lab: &Lab) -> Result<u64> {
        let copy = lab.path("copy");
        lab.ok(&format!("volume read tank/vol --to {copy}"))?;
        let mut file = File::open(&copy)?;
        let mut bytes = vec![0; 1 << 20];
        let mut lost = 0;
        for first in (0..self.ledger.len()).step_by(bytes.len() / SLOT) {
            file.read_exact(&mut bytes)?;
            lost += self.ledger.settle_after_crash(first, &bytes)?;
        }
        fs::remove_file(&copy)?;
        let there = lab.ok("list -H -t snapshot tank")?;
        for (name, was) in &self.snapshots {
            ensure!(
                there.lines().any(|line| line.split('\t').next() == Some(name)),
                "the snapshot {name} is gone: {there}"
            );
            ensure!(hash(lab, name)? == *was, "the snapshot {name} holds something else");
        }
        // One that was being made may be there.
        for name in there.lines().filter_map(|line| line.split('\t').next()) {
            if !self.snapshots.contains_key(name) {
                self.snapshots.insert(name.to_owned(), hash(lab, name)?);
            }
        }
        Ok(lost)
    }

    /// Waits for what a killed server left to do; which disks are in the pool is known afterwards.
    fn settled(&mut self, lab: &Lab) -> Result<()> {
        let status = lab.ok("status tank")?;
        for disk in self.disks.iter().filter(|disk| line_of(&status, disk).contains("OFFLINE")) {
            lab.ok(&format!("online tank {disk}"))?;
        }
        lab.ok("wait tank")?;
        let status = lab.ok("status tank")?;
        if let Some(gone) = self.disks.iter_mut().find(|disk| line_of(&status, disk).is_empty()) {
            ensure!(!line_of(&status, &self.idle).is_empty(), "{gone} left the pool: {status}");
            std::mem::swap(gone, &mut self.idle);
        }
        for disk in &self.disks {
            let words: Vec<&str> = line_of(&status, disk).split_whitespace().collect();
            ensure!(words.get(1..5) == Some(&["ONLINE", "0", "0", "0"]), "{disk} is not well: {status}");
        }
        ensure!(lab.ok("list -H tank")?.trim_end().ends_with("ONLINE"), "not well: {status}");
        Ok(())
    }

    /// Leaves the pool whole for the next round.
    fn tidy(&mut self, lab: &Lab, rng: &mut Rng) -> Result<()> {
        self.settled(lab)?;
        while self.snapshots.len() > 2 {
            let Some((name, _)) = self.snapshots.pop_first() else { break };
            lab.ok(&format!("destroy {name}"))?;
        }
        if rng.chance(1, 5) {
            let said = lab.ok("scrub -w tank")?;
            ensure!(said.contains("scrub repaired 0B") && said.contains("with 0 errors"), "{said}");
            lab.check("tank").context("after a scrub")?;
        }
        Ok(())
    }
}

/// The line of a status that speaks of a device.
fn line_of<'a>(status: &'a str, disk: &str) -> &'a str {
    status.lines().find(|line| line.split_whitespace().next() == Some(disk)).unwrap_or("")
}

/// The hash of what a volume or snapshot holds.
fn hash(lab: &Lab, name: &str) -> Result<blake3::Hash> {
    let copy = lab.path("hashed");
    lab.ok(&format!("volume read {name} --to {copy}"))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(&copy)?)?;
    fs::remove_file(&copy)?;
    Ok(hasher.finalize())
}

fn fio(socket: &str, seed: u64) -> Command {
    let mut command = Command::new("fio");
    command
        .args(["--name=load", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=8", "--size=32m"])
        .args(["--verify=crc32c", "--verify_backlog=64", "--verify_state_save=0", "--time_based"])
        .args(["--runtime=120", "--fsync=64"])
        .arg(format!("--randseed={}", seed % 1_000_000))
        .arg(format!("--uri=nbd+unix:///tank/fio?socket={socket}"));
    command
}

fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    match thread {
        Ok(result) => result,
        Err(_) => bail!("a thread panicked"),
    }
}
