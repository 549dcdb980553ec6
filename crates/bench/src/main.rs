//! Measures the engine against its peers, in turn and on the same files.
//!
//! `lives` leads pools through their lives, `ours` and `kernel` are the contenders, `measure` takes the time,
//! `files` holds backing files and data, `table` prints.

mod files;
mod kernel;
mod lives;
mod measure;
mod ours;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
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
    /// Leave the peers out.
    #[arg(long)]
    ours_only: bool,
}

const LIFE_ROWS: [&str; 9] =
    ["write", "read", "degraded", "scrub", "resilver1", "resilver2", "random", "random16k", "flush"];
const MIRROR_ROWS: [&str; 2] = ["mirror-write", "mirror-scrub"];

const fn goal(row: &'static str, peer: &'static str, first: f64, goal: f64) -> Goal {
    Goal { row, peer, first: Some(first), goal: Some(goal), less: false }
}

const GOALS: [Goal; 14] = [
    goal("write", "btrfs", 1.0, 2.0),
    Goal { first: None, ..goal("write", "plain", 0.0, 0.5) },
    Goal { first: None, goal: None, ..goal("write", "ext4", 0.0, 0.0) },
    goal("read", "btrfs", 1.0, 1.0),
    Goal { first: None, goal: None, ..goal("read", "ext4", 0.0, 0.0) },
    goal("degraded", "@read", 0.6, 0.8),
    goal("scrub", "btrfs", 2.0, 4.0),
    goal("mirror-scrub", "btrfs", 1.0, 4.0),
    goal("resilver1", "btrfs", 1.5, 4.0),
    goal("resilver2", "btrfs", 1.5, 4.0),
    goal("random", "btrfs", 2.0, 5.0),
    goal("random16k", "btrfs", 2.0, 5.0),
    Goal { first: None, goal: Some(0.3), ..goal("random", "ext4", 0.0, 0.3) },
    Goal { less: true, ..goal("flush", "btrfs", 1.0, 4.0) },
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let wanted = |row: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == row);
    let folder = Folder::new(&arguments.dir)?;
    let noise = Noise::new(1, arguments.size * MIB);
    let setting = Setting {
        folder: &folder,
        noise: &noise,
        time: Duration::from_millis(arguments.time),
        runner: arguments.runner,
        wanted: &wanted,
    };
    let mut results = Results::default();
    let btrfs = kernel::unavailable(&["mkfs.btrfs", "btrfs", "losetup", "mount", "fio"]);
    let ext4 = kernel::unavailable(&["mkfs.ext4", "losetup", "mount", "fio"]);
    if !arguments.ours_only {
        results.skipped.extend(btrfs.iter().map(|reason| format!("btrfs: {reason}")));
        results.skipped.extend(ext4.iter().map(|reason| format!("ext4: {reason}")));
    }
    for pair in 0..arguments.pairs {
        if LIFE_ROWS.iter().any(|row| wanted(row)) {
            take(&mut results, "ours", lives::ours_raidz2(&setting)?);
            if !arguments.ours_only {
                if btrfs.is_none() {
                    take(&mut results, "btrfs", lives::btrfs_raid6(&setting)?);
                }
                if wanted("write") {
                    take(&mut results, "plain", lives::plain(&setting)?);
                }
                if ext4.is_none() && ["write", "read", "random", "flush"].iter().any(|row| wanted(row)) {
                    take(&mut results, "ext4", lives::ext4(&setting)?);
                }
            }
        }
        if MIRROR_ROWS.iter().any(|row| wanted(row)) {
            take(&mut results, "ours", lives::ours_mirror(&setting)?);
            if !arguments.ours_only && btrfs.is_none() {
                take(&mut results, "btrfs", lives::btrfs_raid1(&setting)?);
            }
        }
        eprintln!("pair {} of {} done", pair + 1, arguments.pairs);
    }
    results.print_numbers();
    results.print_goals(&GOALS);
    Ok(())
}

fn take(results: &mut Results, who: &'static str, samples: Samples) {
    for (row, sample) in samples {
        results.add(row, who, sample);
    }
}
