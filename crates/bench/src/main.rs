//! Measures the engine against its peers, in turn and on the same files.
//!
//! `lives` leads pools through their lives, `served` serves volumes, `capacity` fills pools, `memory` looks at peak
//! memory, `remaps` at a long remap table, `petabyte` at a large chunk map; `ours`, `kernel` and `uzfs` are the contenders, `measure` takes the time, `files` holds backing files and data,
//! `table` prints.

mod capacity;
mod files;
mod kernel;
mod lives;
mod measure;
mod memory;
mod ours;
mod petabyte;
mod raids;
mod remaps;
mod served;
mod table;
mod uzfs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use crate::files::{Folder, MIB, Noise};
use crate::lives::{Samples, Setting};
use crate::ours::RunnerKind;
use crate::table::{Goal, Results};

/// Measures the engine against its peers, A B A B, on the same files.
#[derive(Parser)]
struct Arguments {
    /// How many times each contender has its turn.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// MiB of data in rows that write or read so much.
    #[arg(long, default_value_t = 256)]
    size: u64,
    /// Rows to measure (others run only where these need them); all without it.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the backing files are made: a tmpfs.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Milliseconds of rows that are bounded by time.
    #[arg(long, default_value_t = 3000)]
    time: u64,
    /// Who executes requests of our pools.
    #[arg(long, value_enum, default_value = "best")]
    runner: RunnerKind,
    /// MiB of the smallest device of mixed ones in the rows of full pools (those of equal size have twice that).
    #[arg(long, default_value_t = 256)]
    unit: u64,
    /// Entries of the remap table in the row about it.
    #[arg(long, default_value_t = 1 << 20)]
    entries: u64,
    /// Where the packages of OpenZFS's libzpool were unpacked; without it that peer is left out.
    #[arg(long)]
    uzfs: Option<PathBuf>,
    /// Leave the peers out.
    #[arg(long)]
    ours_only: bool,
}

const LIFE_ROWS: &[&str] =
    &["write", "read", "degraded", "scrub", "resilver1", "resilver2", "random", "random16k", "flush"];
const EXT4_ROWS: &[&str] = &["write", "read", "random", "flush"];
const MIRROR_ROWS: &[&str] = &["mirror-write", "mirror-scrub"];
const CONVERT_ROWS: &[&str] = &["plain-read", "convert", "remapped", "remove"];
const REMOVE_ROWS: &[&str] = &["remove-raid1"];
const NBD_ROWS: &[&str] = &["nbd-read-4k", "nbd-write-4k", "nbd-read-1m", "nbd-write-1m"];
const RAID_ROWS: &[&str] = &["raid-read-4k", "raid-write-4k", "raid-read-1m", "raid-write-1m"];
const FUSE_ROWS: &[&str] = &["fuse-read-4k", "fuse-write-4k"];

/// Size of the volume with much hole in it, bytes: 10 TB.
const SPARSE_BYTES: u64 = 10_000_000_000_000 / MIB * MIB;

const fn goal(row: &'static str, peer: &'static str, first: f64, goal: f64) -> Goal {
    Goal { row, peer, first: Some(first), goal: Some(goal), less: false }
}

const fn shown(row: &'static str, peer: &'static str) -> Goal {
    Goal { row, peer, first: None, goal: None, less: false }
}

const GOALS: &[Goal] = &[
    goal("write", "btrfs", 1.0, 2.0),
    Goal { goal: Some(4.0), ..shown("write", "uzfs") },
    Goal { goal: Some(0.5), ..shown("write", "plain") },
    shown("write", "ext4"),
    Goal { goal: None, ..goal("read", "btrfs", 1.0, 1.0) },
    Goal { goal: Some(2.5), ..shown("read", "uzfs") },
    shown("read", "ext4"),
    goal("degraded", "@read", 0.6, 0.8),
    goal("scrub", "btrfs", 2.0, 4.0),
    Goal { goal: Some(4.0), ..shown("scrub", "uzfs") },
    shown("mirror-write", "btrfs"),
    Goal { goal: None, ..goal("mirror-scrub", "btrfs", 1.0, 1.0) },
    Goal { goal: Some(4.0), ..shown("mirror-scrub", "uzfs") },
    Goal { goal: None, ..goal("resilver1", "btrfs", 1.5, 1.5) },
    Goal { goal: Some(4.0), ..shown("resilver1", "uzfs") },
    Goal { goal: None, ..goal("resilver2", "btrfs", 1.5, 1.5) },
    goal("convert", "btrfs", 1.5, 3.0),
    goal("remove", "btrfs", 1.5, 3.0),
    goal("remove-raid1", "btrfs", 1.5, 3.0),
    goal("remapped", "@plain-read", 0.9, 0.9),
    goal("random", "btrfs", 2.0, 5.0),
    goal("random", "btrfs-buffered", 2.0, 5.0),
    goal("random16k", "btrfs", 2.0, 5.0),
    goal("random16k", "btrfs-buffered", 2.0, 5.0),
    Goal { goal: Some(0.3), ..shown("random", "ext4") },
    Goal { less: true, ..goal("flush", "btrfs", 1.0, 4.0) },
    goal("nbd-read-4k", "nbdkit", 0.7, 1.0),
    goal("nbd-write-4k", "nbdkit", 0.7, 1.0),
    goal("nbd-read-1m", "nbdkit", 0.7, 1.0),
    goal("nbd-write-1m", "nbdkit", 0.7, 1.0),
    shown("raid-read-4k", "plain"),
    shown("raid-write-4k", "plain"),
    shown("raid-read-1m", "plain"),
    shown("raid-write-1m", "plain"),
    goal("fuse-read-4k", "passthrough", 0.6, 0.8),
    goal("fuse-write-4k", "passthrough", 0.6, 0.8),
];

fn main() -> Result<()> {
    let raw: Vec<String> = std::env::args().collect();
    if raw.get(1).map(String::as_str) == Some(memory::CHILD) {
        let [_, _, place, size, volume] = &raw[..] else {
            anyhow::bail!("{} takes three values", memory::CHILD)
        };
        return memory::child(Path::new(place), size.parse()?, volume.parse()?);
    }
    if raw.get(1).map(String::as_str) == Some(remaps::CHILD) {
        let [_, _, file, guid] = &raw[..] else { anyhow::bail!("{} takes two values", remaps::CHILD) };
        return remaps::child(Path::new(file), guid.parse()?);
    }
    let arguments = Arguments::parse();
    let mut results = Results::default();
    let wanted = |row: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == row);
    let folder = Folder::new(&arguments.dir)?;
    let outcome = measure(&arguments, &wanted, &folder, &mut results);
    // What was measured before something failed is worth printing.
    results.print_numbers();
    results.print_goals(GOALS);
    outcome
}

/// Who can take part: nobody, or why not.
struct Absent {
    btrfs: Option<String>,
    ext4: Option<String>,
    nbd: Option<String>,
    nbdkit: Option<String>,
    fuse: Option<String>,
    passthrough: Result<PathBuf, String>,
    uzfs: Result<PathBuf, String>,
}

impl Absent {
    fn look(wanted: &dyn Fn(&[&str]) -> bool, ours_only: bool, uzfs: Option<&Path>) -> Self {
        let left_out = || ours_only.then(|| "left out".to_owned());
        let passthrough = match left_out() {
            None if wanted(FUSE_ROWS) => served::build_passthrough(),
            _ => Err("left out".to_owned()),
        };
        let uzfs = match left_out() {
            None if wanted(LIFE_ROWS) || wanted(MIRROR_ROWS) => uzfs::build(uzfs),
            _ => Err("left out".to_owned()),
        };
        Self {
            btrfs: left_out()
                .or_else(|| kernel::unavailable(&["mkfs.btrfs", "btrfs", "losetup", "mount", "fio"])),
            ext4: left_out().or_else(|| kernel::unavailable(&["mkfs.ext4", "losetup", "mount", "fio"])),
            nbd: served::nbd_unavailable(),
            nbdkit: left_out().or_else(|| kernel::missing_program("nbdkit")),
            fuse: (!Path::new("/dev/fuse").exists()).then(|| "there is no /dev/fuse".to_owned()),
            passthrough,
            uzfs,
        }
    }

    fn reasons(&self) -> Vec<String> {
        let named = [
            ("btrfs", &self.btrfs),
            ("ext4", &self.ext4),
            ("NBD rows", &self.nbd),
            ("nbdkit", &self.nbdkit),
            ("FUSE rows", &self.fuse),
        ];
        let mut reasons: Vec<String> =
            named.iter().filter_map(|(name, why)| Some(format!("{name}: {}", why.as_ref()?))).collect();
        if let Err(why) = &self.passthrough {
            reasons.push(format!("passthrough: {why}"));
        }
        if let Err(why) = &self.uzfs {
            reasons.push(format!("uzfs (OpenZFS in user space): {why}"));
        }
        reasons
    }
}

fn measure(
    arguments: &Arguments,
    wanted: &dyn Fn(&str) -> bool,
    folder: &Folder,
    results: &mut Results,
) -> Result<()> {
    let any = |rows: &[&str]| rows.iter().any(|row| wanted(row));
    let noise = Noise::new(1, arguments.size * MIB);
    let setting = Setting {
        folder,
        noise: &noise,
        time: Duration::from_millis(arguments.time),
        runner: arguments.runner,
        wanted,
    };
    let absent = Absent::look(&any, arguments.ours_only, arguments.uzfs.as_deref());
    results.skipped = absent.reasons();
    for pair in 0..arguments.pairs {
        if any(LIFE_ROWS) {
            take(results, "ours", lives::ours_raidz2(&setting).context("our raidz2")?);
            if absent.btrfs.is_none() {
                take(results, "btrfs", lives::btrfs_raid6(&setting).context("btrfs raid6")?);
            }
            if let Ok(program) = &absent.uzfs {
                let rows = uzfs::measure(&setting, program, "raidz2", uzfs::RAIDZ2_ROWS);
                take(results, "uzfs", rows.context("OpenZFS's raidz2")?);
            }
            if wanted("write") && !arguments.ours_only {
                take(results, "plain", lives::plain(&setting)?);
            }
            if absent.ext4.is_none() && any(EXT4_ROWS) {
                take(results, "ext4", lives::ext4(&setting).context("ext4")?);
            }
        }
        if any(MIRROR_ROWS) {
            take(results, "ours", lives::ours_mirror(&setting).context("our mirrors")?);
            if absent.btrfs.is_none() {
                take(results, "btrfs", lives::btrfs_raid1(&setting).context("btrfs raid1")?);
            }
            if let Ok(program) = &absent.uzfs {
                let rows = uzfs::measure(&setting, program, "mirror", uzfs::MIRROR_ROWS);
                take(results, "uzfs", rows.context("OpenZFS's mirrors")?);
            }
        }
        if any(CONVERT_ROWS) {
            take(results, "ours", lives::ours_convert(&setting).context("our plain disks")?);
            if absent.btrfs.is_none() {
                take(results, "btrfs", lives::btrfs_convert(&setting).context("btrfs raid1")?);
            }
        }
        if any(REMOVE_ROWS) {
            take(results, "ours", lives::ours_remove(&setting).context("our plain disks")?);
            if absent.btrfs.is_none() {
                take(results, "btrfs", lives::btrfs_remove(&setting).context("btrfs raid1")?);
            }
        }
        if any(NBD_ROWS) && absent.nbd.is_none() {
            take(results, "ours", served::ours_nbd(&setting).context("our NBD server")?);
            if absent.nbdkit.is_none() {
                take(results, "nbdkit", served::nbdkit(&setting).context("nbdkit")?);
            }
        }
        if any(RAID_ROWS) && absent.nbd.is_none() {
            take(results, "ours", raids::level_5(&setting).context("a RAID set by NBD")?);
            take(results, "plain", raids::plain(&setting).context("a plain file by NBD")?);
        }
        if any(FUSE_ROWS) && absent.fuse.is_none() {
            take(results, "ours", served::ours_fuse(&setting).context("our FUSE file system")?);
            if let Ok(program) = &absent.passthrough {
                take(
                    results,
                    "passthrough",
                    served::passthrough(&setting, program).context("passthrough_ll")?,
                );
            }
        }
        eprintln!("pair {} of {} done", pair + 1, arguments.pairs);
    }
    for program in [&absent.passthrough, &absent.uzfs].into_iter().flatten() {
        let _ = std::fs::remove_file(program);
    }
    if wanted("memory") {
        for (name, volume) in
            [("volume of the data's size", noise.bytes.len() as u64), ("volume of 10 TB", SPARSE_BYTES)]
        {
            let peak = memory::peak(folder, noise.bytes.len() as u64, volume)?;
            let bound = ours::CACHE_BYTES + memory::BESIDE_CACHE;
            let met = if peak <= bound { "met" } else { "not met" };
            results.notes.push(format!(
                "peak memory, {name}: {} MiB, bound {} MiB: {met}",
                peak / MIB,
                bound / MIB
            ));
        }
    }
    if wanted("remaps") {
        let notes = remaps::measure(folder, arguments.runner, &noise, arguments.entries)?;
        results.notes.extend(notes);
    }
    if wanted("whatif") {
        results.notes.extend(petabyte::measure(arguments.runner)?);
    }
    if wanted("capacity") {
        let full = capacity::fill_all(folder, arguments.runner, &noise.bytes, arguments.unit * MIB)?;
        results.full = full;
    }
    Ok(())
}

fn take(results: &mut Results, who: &'static str, samples: Samples) {
    for (row, sample) in samples {
        match row.strip_suffix("-buffered") {
            Some("random") => {
                ["random", "random16k"].iter().for_each(|row| results.add(row, "btrfs-buffered", sample));
            }
            _ => results.add(row, who, sample),
        }
    }
}
