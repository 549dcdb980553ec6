//! How much of the exact optimum a pool holds when it is full, and how far `usage` was from the truth on the way.

use anyhow::{Context, Result};
use geometry::Profile;
use geometry::ideal::{Ideal, usable};
use pool::PoolError;
use pool::spec::GroupKind;

use crate::files::{Folder, MIB};
use crate::ours::{self, RunnerKind};

/// Sizes of the devices, MiB, in units of the row's scale.
const SIZES: [(&str, &[u64]); 2] = [("equal", &[2, 2, 2, 2, 2, 2]), ("mixed", &[1, 2, 2, 4])];

/// Bytes of one write until the last ones.
const STEP: u64 = MIB;
/// Bytes of a block: the last writes.
const BLOCK: u64 = 16 << 10;
/// What is written block by block, bytes.
const LAST: u64 = 64 * MIB;

/// One full pool.
#[derive(Debug)]
pub struct Full {
    /// Profile or vdev kind.
    pub name: String,
    /// Equal or mixed devices.
    pub sizes: &'static str,
    /// Bytes written until there was no space, of the exact optimum (all bytes of all devices).
    pub fraction: f64,
    /// The worst error of `free_estimated` at 0, 25, 50 and 75 % of what fitted, of what fitted.
    pub estimate_error: f64,
}

/// Fills a pool of every profile that these sizes bear; one unit of size is `unit` bytes.
pub fn fill_all(folder: &Folder, runner: RunnerKind, noise: &[u8], unit: u64) -> Result<Vec<Full>> {
    let mut full = Vec::new();
    for (name, sizes) in SIZES {
        let bytes: Vec<u64> = sizes.iter().map(|size| size * unit).collect();
        let count = bytes.len() as u8;
        let plain = Profile::ALL.map(|p| (p.to_string(), GroupKind::Plain, Some(p), Ideal::from(p)));
        let raidz =
            [1, 2, 3].map(|p| (format!("raidz{p}"), GroupKind::Raidz(p), None, Ideal::Parity { parity: p }));
        let mirror = (String::from("mirror"), GroupKind::Mirror, None, Ideal::Copies { copies: count });
        for (profile, kind, data, ideal) in plain.into_iter().chain(raidz).chain([mirror]) {
            let (written, estimate_error) = fill(folder, runner, noise, &bytes, kind, data)
                .with_context(|| format!("filling {profile} on {name} devices"))?;
            let fraction = written as f64 / usable(ideal, &bytes) as f64;
            full.push(Full { name: profile, sizes: name, fraction, estimate_error });
        }
    }
    Ok(full)
}

fn fill(
    folder: &Folder,
    runner: RunnerKind,
    noise: &[u8],
    sizes: &[u64],
    kind: GroupKind,
    data: Option<Profile>,
) -> Result<(u64, f64)> {
    folder.clear()?;
    let files = sizes.iter().enumerate().map(|(index, &size)| folder.file(&format!("d{index}"), size));
    let files: Vec<_> = files.collect::<Result<_>>()?;
    let env = ours::environment(runner, ours::CACHE_BYTES)?;
    let mut pool = ours::create(&env, vec![ours::group(kind, &files)?], data)?;
    let id = ours::volume(&mut pool, "data", 1 << 40, BLOCK as u32)?;
    let total: u64 = sizes.iter().sum();
    let mut estimates = vec![(0, pool.usage().free_estimated)];
    let mut written = 0;
    let mut step = STEP;
    loop {
        let from = written as usize % (noise.len() - STEP as usize);
        match pool.write(id, written, &noise[from..from + step as usize]) {
            Ok(()) => written += step,
            Err(PoolError::NoSpace) => break,
            Err(error) => return Err(error.into()),
        }
        // The end block by block: of a longer write that does not fit the first part is taken, and would not be counted.
        if estimates.last().is_some_and(|&(at, free)| written + LAST >= at + free) {
            step = BLOCK;
        }
        // Only what is committed is in `usage`, so it is asked for at commits of our own.
        if step == STEP && written % (total / 32).next_multiple_of(STEP) == 0 {
            pool.flush()?;
            estimates.push((written, pool.usage().free_estimated));
        }
    }
    pool.flush()?;
    drop(pool);
    folder.clear()?;
    let errors = [0.0, 0.25, 0.5, 0.75].map(|part| {
        let wanted = written as f64 * part;
        let nearest = estimates
            .iter()
            .min_by(|a, b| (a.0 as f64 - wanted).abs().total_cmp(&(b.0 as f64 - wanted).abs()));
        nearest.map_or(0.0, |&(at, free)| ((at + free) as f64 - written as f64).abs() / written as f64)
    });
    Ok((written, errors.into_iter().fold(0.0, f64::max)))
}

/// Prints what [`fill_all`] found.
pub fn print(full: &[Full]) {
    println!(
        "\n{:<10} {:<6} {:>12} {:>14} {:>6}",
        "full pool", "sizes", "of optimum", "usage wrong by", "met"
    );
    for one in full {
        let met = match one.fraction {
            f if f >= 0.97 && one.estimate_error <= 0.01 => "goal",
            f if f >= 0.95 => "first",
            _ => "no",
        };
        println!(
            "{:<10} {:<6} {:>12.4} {:>12.2} % {met:>6}",
            one.name,
            one.sizes,
            one.fraction,
            one.estimate_error * 100.0
        );
    }
}
