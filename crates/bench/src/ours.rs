//! Pools of ours on files, driven in process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use device::{Access, FileDevice, Inline, Rng, Runner, Threads, best_runner};
use pool::report::ScanState;
use pool::spec::{
    BalanceFilters, BalanceSpec, CreateSpec, GroupKind, GroupSpec, Host, ImportOptions, NewDevice, VolumeSpec,
};
use pool::types::{DatasetId, Guid, Millis};
use pool::{Clock, Env, Held, Pool, PoolError, ReplaceOptions, ScrubAction};
use xxhash_rust::xxh3::Xxh3;

use crate::files::{MIB, Noise};

/// Bytes that one step of background work handles.
const TICK_BYTES: u64 = 64 * MIB;

/// Bound of the cache, bytes.
pub const CACHE_BYTES: u64 = 64 * MIB;

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}

/// Who executes requests on the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RunnerKind {
    /// The calling thread, one request after another.
    Inline,
    /// As many threads as there are processors.
    Threads,
    /// What `device::best_runner` gives: the kernel's queues, or threads.
    Best,
}

/// What pools are made with.
pub fn environment(runner: RunnerKind, cache_bytes: u64) -> Result<Env> {
    let runner: Arc<dyn Runner> = match runner {
        RunnerKind::Inline => Arc::new(Inline),
        RunnerKind::Threads => Arc::new(Threads::new(std::thread::available_parallelism()?.get())?),
        RunnerKind::Best => Arc::from(best_runner()?),
    };
    Ok(Env { clock: Arc::new(SystemClock), runner, seed: 1, cache_bytes })
}

fn host() -> Host {
    Host { id: 1, name: "bench".to_owned() }
}

/// Opens a file for a pool.
pub fn open_device(path: &Path) -> Result<NewDevice> {
    let device = FileDevice::open(path, Access::ReadWrite)?;
    Ok(NewDevice::new(Arc::new(device), path.to_string_lossy().into_owned()))
}

/// A top-level vdev on files.
pub fn group(kind: GroupKind, paths: &[PathBuf]) -> Result<GroupSpec<NewDevice>> {
    Ok(GroupSpec { kind, devices: paths.iter().map(|path| open_device(path)).collect::<Result<_>>()? })
}

/// A new pool.
pub fn create(env: &Env, groups: Vec<GroupSpec<NewDevice>>, data: Option<geometry::Profile>) -> Result<Pool> {
    let spec = CreateSpec {
        name: "bench".to_owned(),
        groups,
        data,
        metadata: None,
        properties: Vec::new(),
        command: "coffer create bench".to_owned(),
    };
    Ok(Pool::create(env, &spec, &host())?.0)
}

/// Lets go of a pool and imports it from `paths`.
pub fn reimport(env: &Env, pool: Pool, paths: &[PathBuf]) -> Result<Pool> {
    let guid = pool.guid();
    pool.export().map_err(|failed| failed.1)?;
    import(env, guid, paths)
}

/// Imports a pool from `paths`.
pub fn import(env: &Env, guid: Guid, paths: &[PathBuf]) -> Result<Pool> {
    let devices = paths.iter().map(|path| open_device(path)).collect::<Result<_>>()?;
    Ok(Pool::import(env, guid, devices, &ImportOptions { host: host(), ..ImportOptions::default() })?.0)
}

/// A new sparse volume.
pub fn volume(pool: &mut Pool, name: &str, size: u64, block_size: u32) -> Result<DatasetId> {
    pool.volume_create(name, &VolumeSpec { size, block_size, sparse: true, properties: Vec::new() })?;
    Ok(pool.open(name)?)
}

/// Writes all of `data` in calls of one MiB and flushes.
pub fn write_all(pool: &mut Pool, id: DatasetId, data: &[u8]) -> Result<()> {
    for (index, part) in data.chunks(MIB as usize).enumerate() {
        pool.write(id, index as u64 * MIB, part)?;
    }
    Ok(pool.flush()?)
}

/// As [`write_all`], the way that servers write: commits run beside it, on a thread.
pub fn write_behind(pool: Pool, id: DatasetId, data: &[u8]) -> Result<Pool> {
    let held = Held::new(pool);
    std::thread::scope(|scope| {
        scope.spawn(|| held.commit_behind());
        let mut outcome = Ok(());
        for (index, part) in data.chunks(MIB as usize).enumerate() {
            let written = held.write(held.lock(), id, index as u64 * MIB, part);
            outcome = outcome.and(written.unwrap_or(Err(PoolError::Suspended)));
        }
        let flushed = held.flush(held.lock()).unwrap_or(Err(PoolError::Suspended));
        let pool = held.take().context("the pool was taken away")?;
        outcome.and(flushed)?;
        Ok(pool)
    })
}

/// Reads what [`write_all`] wrote in calls of one MiB and compares its hash.
pub fn read_all(pool: &mut Pool, id: DatasetId, noise: &Noise) -> Result<()> {
    let mut buffer = vec![0; MIB as usize];
    let mut hash = Xxh3::new();
    let mut at = 0;
    while at < noise.bytes.len() as u64 {
        let length = MIB.min(noise.bytes.len() as u64 - at) as usize;
        pool.read(id, at, &mut buffer[..length])?;
        hash.update(&buffer[..length]);
        at += length as u64;
    }
    ensure!(hash.digest128() == noise.hash, "the volume does not hold what was written to it");
    Ok(())
}

/// Does background work until none is left; it must end without errors.
pub fn settle(pool: &mut Pool) -> Result<()> {
    while pool.tick(TICK_BYTES)? {}
    let scan = pool.scan().context("no scan was run")?;
    ensure!(scan.errors == 0, "the scan ended with {} errors", scan.errors);
    Ok(())
}

/// A whole scrub; it must find nothing.
pub fn scrub(pool: &mut Pool) -> Result<()> {
    pool.scrub(ScrubAction::Start)?;
    settle(pool)?;
    let repaired = pool.scan().map_or(0, |scan| scan.repaired);
    ensure!(repaired == 0, "a scrub of a sound pool repaired {repaired} bytes");
    Ok(())
}

/// A balance of all data, as it is.
pub fn balance(pool: &mut Pool) -> Result<()> {
    pool.balance_start(BalanceSpec { data: Some(BalanceFilters::default()), ..BalanceSpec::default() })?;
    relocate(pool)
}

/// A whole balance of all data into another profile.
pub fn convert(pool: &mut Pool, profile: geometry::Profile) -> Result<()> {
    let filters = BalanceFilters { convert: Some(profile), ..BalanceFilters::default() };
    pool.balance_start(BalanceSpec { data: Some(filters), ..BalanceSpec::default() })?;
    relocate(pool)
}

/// Removes a device, what is on it first.
pub fn remove(pool: &mut Pool, file: &Path) -> Result<()> {
    pool.remove(&[file.to_string_lossy().into_owned()])?;
    relocate(pool)
}

/// Lets a balance or a removal come to its end.
fn relocate(pool: &mut Pool) -> Result<()> {
    while pool.tick(TICK_BYTES)? {}
    let balance = pool.balance().context("no balance was run")?;
    ensure!(
        balance.state == ScanState::Finished && balance.errors == 0,
        "the {} is {:?} with {} errors",
        balance.task.name(),
        balance.state,
        balance.errors
    );
    Ok(())
}

/// Puts new files in the places of others and resilvers.
pub fn replace(pool: &mut Pool, pairs: &[(PathBuf, PathBuf)], read_source_last: bool) -> Result<()> {
    for (old, new) in pairs {
        pool.replace(&old.to_string_lossy(), &open_device(new)?, ReplaceOptions { read_source_last })?;
    }
    settle(pool)
}

/// 4 KiB writes at random places for `time`, then a flush; how many.
///
/// One thread: a write ends when the block is in memory, so more of them outstanding would change nothing.
pub fn random_writes(
    pool: &mut Pool,
    id: DatasetId,
    size: u64,
    seed: u64,
    time: Duration,
    noise: &Noise,
) -> Result<u64> {
    let start = std::time::Instant::now();
    let mut rng = Rng::new(seed);
    let mut count = 0;
    while start.elapsed() < time {
        let from = (rng.next_u64() % (noise.bytes.len() as u64 / 4096)) as usize * 4096;
        pool.write(id, rng.next_u64() % (size / 4096) * 4096, &noise.bytes[from..from + 4096])?;
        count += 1;
    }
    pool.flush()?;
    Ok(count)
}

/// Latencies of 4 KiB writes at random places, each flushed, seconds.
pub fn flushed_writes(
    pool: &mut Pool,
    id: DatasetId,
    size: u64,
    time: Duration,
    noise: &Noise,
) -> Result<Vec<f64>> {
    let start = std::time::Instant::now();
    let mut rng = Rng::new(99);
    let mut latencies = Vec::new();
    while start.elapsed() < time {
        let from = (rng.next_u64() % (noise.bytes.len() as u64 / 4096)) as usize * 4096;
        let one = std::time::Instant::now();
        pool.write(id, rng.next_u64() % (size / 4096) * 4096, &noise.bytes[from..from + 4096])?;
        pool.flush()?;
        latencies.push(one.elapsed().as_secs_f64());
    }
    Ok(latencies)
}

/// Brings devices up to date that missed something, if any did.
pub fn settle_if_needed(pool: &mut Pool) -> Result<()> {
    while pool.tick(TICK_BYTES)? {}
    Ok(())
}
