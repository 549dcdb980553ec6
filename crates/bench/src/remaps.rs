//! What a long remap table costs an import: the same pool before all of its data was balanced, and afterwards.
//!
//! A volume is written block by block, every other block is discarded (as a guest discards deleted files), and all data
//! is balanced. What is packed together then was apart before, so that each block needs an entry of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pool::types::Guid;

use crate::files::{Folder, MIB, Noise};
use crate::measure::median;
use crate::memory;
use crate::ours::{self, RunnerKind};

/// Argument by which this program is told to import a pool and say what that took.
pub const CHILD: &str = "--import-child";

/// Bytes of a block.
const BLOCK: u64 = 4096;

/// Imports that are measured of each state.
const TIMES: usize = 3;

/// Imports the pool before and after; what both took, as text.
pub fn measure(folder: &Folder, runner: RunnerKind, noise: &Noise, entries: u64) -> Result<Vec<String>> {
    folder.clear()?;
    let size = 2 * entries * BLOCK;
    let file = folder.file("d0", 3 * size + 64 * MIB)?;
    let env = ours::environment(runner, ours::CACHE_BYTES)?;
    let files = [file.clone()];
    let mut pool = ours::create(&env, vec![ours::group(pool::spec::GroupKind::Plain, &files)?], None)?;
    let id = ours::volume(&mut pool, "data", size, BLOCK as u32)?;
    let parts: Vec<&[u8]> = noise.bytes.chunks_exact(MIB as usize).collect();
    for (index, at) in (0..size).step_by(MIB as usize).enumerate() {
        pool.write(id, at, &parts[index % parts.len()][..MIB.min(size - at) as usize])?;
    }
    pool.flush()?;
    for at in (0..size).step_by(2 * BLOCK as usize) {
        pool.discard(id, at, BLOCK)?;
    }
    pool.flush()?;
    let guid = pool.guid();
    pool.export().map_err(|failed| failed.1)?;
    let before = told(&file, guid)?;
    ensure!(before.0 == 0, "there are {} entries before the balance", before.0);
    let mut pool = ours::import(&env, guid, &files)?;
    let begun = Instant::now();
    ours::balance(&mut pool)?;
    ours::settle_if_needed(&mut pool)?;
    let seconds = begun.elapsed().as_secs_f64();
    pool.export().map_err(|failed| failed.1)?;
    let after = told(&file, guid)?;
    ensure!(after.0 >= entries, "the balance left {} entries, not {entries}", after.0);
    folder.clear()?;
    let balance = format!("remaps: the balance of {} MiB took {seconds:.1} s", entries * BLOCK / MIB);
    Ok(vec![before.1, balance, after.1])
}

/// Imports the pool some times: entries of its remap table, and what that took as text.
fn told(file: &Path, guid: Guid) -> Result<(u64, String)> {
    let imports: Vec<Import> = (0..TIMES).map(|_| in_child(file, guid)).collect::<Result<_>>()?;
    let entries = imports.first().map_or(0, |import| import.entries);
    let seconds: Vec<f64> = imports.iter().map(|import| import.seconds).collect();
    let peaks: Vec<f64> = imports.iter().map(|import| import.peak as f64).collect();
    let text = format!(
        "remaps: import with {entries} entries: {:.0} ms [{:.0}..{:.0}], peak memory {:.0} MiB",
        median(&seconds) * 1e3,
        seconds.iter().copied().fold(f64::INFINITY, f64::min) * 1e3,
        seconds.iter().copied().fold(0.0, f64::max) * 1e3,
        median(&peaks) / MIB as f64,
    );
    Ok((entries, text))
}

/// What an import took.
struct Import {
    seconds: f64,
    peak: u64,
    entries: u64,
}

/// Imports the pool in a process of its own, which does nothing else.
fn in_child(file: &Path, guid: Guid) -> Result<Import> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).arg(CHILD).arg(file).arg(guid.0.to_string()).output()?;
    ensure!(output.status.success(), "the child failed: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    let mut next = || words.next().context("the child said too little");
    Ok(Import { seconds: next()?.parse()?, peak: next()?.parse()?, entries: next()?.parse()? })
}

/// The child's work; prints seconds, peak memory in bytes, and entries of the remap table.
pub fn child(file: &Path, guid: u64) -> Result<()> {
    let env = ours::environment(RunnerKind::Best, ours::CACHE_BYTES)?;
    let files: [PathBuf; 1] = [file.to_owned()];
    let begun = Instant::now();
    let pool = ours::import(&env, Guid(guid), &files)?;
    let seconds = begun.elapsed().as_secs_f64();
    let peak = memory::own_peak()?;
    let entries: u64 = pool.relocated().iter().map(|run| run.entries).sum();
    pool.export().map_err(|failed| failed.1)?;
    println!("{seconds} {peak} {entries}");
    Ok(())
}
