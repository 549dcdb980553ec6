//! The lives of a pool of ours and of its peers: written, read, scrubbed, rebuilt, rewritten. Each step is a row.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use geometry::Profile;
use pool::spec::GroupKind;

use crate::files::{Folder, Noise, read_file, write_file, write_plainly};
use crate::kernel::{self, Mounted};
use crate::measure::{Sample, Watch, Whose, median};
use crate::ours::{self, RunnerKind};

/// Size of each backing file, sparse, bytes.
pub const DEVICE_BYTES: u64 = 2 << 30;
/// Devices of a pool.
const DEVICES: usize = 6;

/// What the lives of all contenders share.
pub struct Setting<'a> {
    /// Where backing files are.
    pub folder: &'a Folder,
    /// What is written.
    pub noise: &'a Noise,
    /// How long rows run that are bounded by time.
    pub time: Duration,
    /// Who executes requests of our pools.
    pub runner: RunnerKind,
    /// Which rows are wanted.
    pub wanted: &'a dyn Fn(&str) -> bool,
}

/// Samples by the name of the row.
pub type Samples = BTreeMap<&'static str, Sample>;

impl Setting<'_> {
    fn files(&self, prefix: &str, count: usize) -> Result<Vec<PathBuf>> {
        (0..count).map(|index| self.folder.file(&format!("{prefix}{index}"), DEVICE_BYTES)).collect()
    }

    fn rewritten(&self) -> &[u8] {
        &self.noise.bytes
    }

    fn any(&self, rows: &[&str]) -> bool {
        rows.iter().any(|row| (self.wanted)(row))
    }
}

/// Our raidz2 of 6.
pub fn ours_raidz2(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let env = ours::environment(s.runner, ours::CACHE_BYTES)?;
    let size = s.noise.bytes.len() as u64;
    let mut pool = ours::create(&env, vec![ours::group(GroupKind::Raidz(2), &files)?], None)?;
    let id = ours::volume(&mut pool, "data", size, 16384)?;
    let watch = Watch::start(Whose::Process)?;
    let mut pool = ours::write_behind(pool, id, &s.noise.bytes)?;
    samples.insert("write", watch.stop(size as f64)?);
    if s.any(&["read", "degraded"]) {
        pool = ours::reimport(&env, pool, &files)?;
        let id = pool.open("data")?;
        let watch = Watch::start(Whose::Process)?;
        ours::read_all(&mut pool, id, s.noise)?;
        samples.insert("read", watch.stop(size as f64)?);
    }
    if s.any(&["scrub"]) {
        pool.drop_caches();
        let watch = Watch::start(Whose::Process)?;
        ours::scrub(&mut pool)?;
        samples.insert("scrub", watch.stop(size as f64)?);
    }
    let mut members = files.clone();
    if s.any(&["resilver1"]) {
        let new = s.folder.file("n0", DEVICE_BYTES)?;
        pool.drop_caches();
        let watch = Watch::start(Whose::Process)?;
        ours::replace(&mut pool, &[(members[0].clone(), new.clone())], true)?;
        samples.insert("resilver1", watch.stop(size as f64)?);
        members[0] = new;
        // The new one must carry its part when two others are gone.
        pool = ours::reimport(&env, pool, &members[..4])?;
        let id = pool.open("data")?;
        ours::read_all(&mut pool, id, s.noise)?;
        pool = ours::reimport(&env, pool, &members)?;
        ours::settle_if_needed(&mut pool)?;
    }
    if s.any(&["degraded", "resilver2"]) {
        let left: Vec<PathBuf> = [0, 2, 3, 5].iter().map(|&index| members[index].clone()).collect();
        pool = ours::reimport(&env, pool, &left)?;
        let id = pool.open("data")?;
        let watch = Watch::start(Whose::Process)?;
        ours::read_all(&mut pool, id, s.noise)?;
        samples.insert("degraded", watch.stop(size as f64)?);
        let new = s.files("m", 2)?;
        pool.drop_caches();
        let pairs = [(members[1].clone(), new[0].clone()), (members[4].clone(), new[1].clone())];
        let watch = Watch::start(Whose::Process)?;
        ours::replace(&mut pool, &pairs, false)?;
        samples.insert("resilver2", watch.stop(size as f64)?);
        members[1].clone_from(&new[0]);
        members[4].clone_from(&new[1]);
        let others: Vec<PathBuf> = [1, 2, 4, 5].iter().map(|&index| members[index].clone()).collect();
        pool = ours::reimport(&env, pool, &others)?;
        let id = pool.open("data")?;
        ours::read_all(&mut pool, id, s.noise)?;
        pool = ours::reimport(&env, pool, &members)?;
        ours::settle_if_needed(&mut pool)?;
    }
    for (row, block_size) in [("random", 4096), ("random16k", 16384), ("flush", 4096)] {
        if !s.any(&[row]) {
            continue;
        }
        let id = ours::volume(&mut pool, row, s.rewritten().len() as u64, block_size)?;
        ours::write_all(&mut pool, id, s.rewritten())?;
        pool.drop_caches();
        let small = s.rewritten().len() as u64;
        if row == "flush" {
            let latencies = ours::flushed_writes(&mut pool, id, small, s.time, s.noise)?;
            samples.insert(row, Sample::of_value(median(&latencies) * 1e6));
        } else {
            let watch = Watch::start(Whose::Process)?;
            let count = ours::random_writes(&mut pool, id, small, 7, s.time, s.noise)?;
            samples.insert(row, watch.stop(count as f64)?);
        }
        pool.volume_destroy(row)?;
        while pool.tick(1 << 30)? {}
    }
    drop(pool);
    s.folder.clear()?;
    Ok(samples)
}

/// Our three mirrors of 2.
pub fn ours_mirror(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let env = ours::environment(s.runner, ours::CACHE_BYTES)?;
    let size = s.noise.bytes.len() as u64;
    let groups = files.chunks(2).map(|pair| ours::group(GroupKind::Mirror, pair)).collect::<Result<_>>()?;
    let mut pool = ours::create(&env, groups, None)?;
    let id = ours::volume(&mut pool, "data", size, 16384)?;
    let watch = Watch::start(Whose::Process)?;
    let mut pool = ours::write_behind(pool, id, &s.noise.bytes)?;
    samples.insert("mirror-write", watch.stop(size as f64)?);
    pool.drop_caches();
    let watch = Watch::start(Whose::Process)?;
    ours::scrub(&mut pool)?;
    samples.insert("mirror-scrub", watch.stop(size as f64)?);
    drop(pool);
    s.folder.clear()?;
    Ok(samples)
}

/// Six plain disks of ours, whose data is converted from raid1 to raid6; then one is removed.
pub fn ours_convert(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let env = ours::environment(s.runner, ours::CACHE_BYTES)?;
    let size = s.noise.bytes.len() as u64;
    let disks = vec![ours::group(GroupKind::Plain, &files)?];
    let mut pool = ours::create(&env, disks, Some(Profile::Raid1))?;
    let id = ours::volume(&mut pool, "data", size, 16384)?;
    let mut pool = ours::write_behind(pool, id, &s.noise.bytes)?;
    for row in ["plain-read", "remapped"] {
        if row == "remapped" {
            pool.drop_caches();
            let watch = Watch::start(Whose::Process)?;
            ours::convert(&mut pool, Profile::Raid6)?;
            samples.insert("convert", watch.stop(size as f64)?);
        }
        pool = ours::reimport(&env, pool, &files)?;
        let id = pool.open("data")?;
        let watch = Watch::start(Whose::Process)?;
        ours::read_all(&mut pool, id, s.noise)?;
        samples.insert(row, watch.stop(size as f64)?);
    }
    pool.drop_caches();
    let (gone, left) = files.split_last().context("there are files")?;
    let watch = Watch::start(Whose::Process)?;
    ours::remove(&mut pool, gone)?;
    samples.insert("remove", watch.stop(size as f64)?);
    pool = ours::reimport(&env, pool, left)?;
    let id = pool.open("data")?;
    ours::read_all(&mut pool, id, s.noise)?;
    drop(pool);
    s.folder.clear()?;
    Ok(samples)
}

/// Kernel btrfs raid1, whose data is converted to raid6; then a disk is removed.
pub fn btrfs_convert(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let size = s.noise.bytes.len() as u64;
    let mut mounted = Mounted::btrfs("raid1", "raid1", &files, &s.folder.path().join("mnt"))?;
    let file = mounted.file("data");
    write_file(&file, &s.noise.bytes)?;
    mounted.cool()?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    mounted.convert("raid6")?;
    samples.insert("convert", watch.stop(size as f64)?);
    mounted.cool()?;
    read_file(&file, s.noise)?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    mounted.remove_last()?;
    samples.insert("remove", watch.stop(size as f64)?);
    mounted.cool()?;
    read_file(&file, s.noise)?;
    drop(mounted);
    s.folder.clear()?;
    Ok(samples)
}

/// Six plain disks of ours with raid1, of which one is removed: its columns move.
pub fn ours_remove(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let env = ours::environment(s.runner, ours::CACHE_BYTES)?;
    let size = s.noise.bytes.len() as u64;
    let disks = vec![ours::group(GroupKind::Plain, &files)?];
    let mut pool = ours::create(&env, disks, Some(Profile::Raid1))?;
    let id = ours::volume(&mut pool, "data", size, 16384)?;
    let mut pool = ours::write_behind(pool, id, &s.noise.bytes)?;
    pool.drop_caches();
    let (gone, left) = files.split_last().context("there are files")?;
    let watch = Watch::start(Whose::Process)?;
    ours::remove(&mut pool, gone)?;
    samples.insert("remove-raid1", watch.stop(size as f64)?);
    pool = ours::reimport(&env, pool, left)?;
    let id = pool.open("data")?;
    ours::read_all(&mut pool, id, s.noise)?;
    drop(pool);
    s.folder.clear()?;
    Ok(samples)
}

/// Kernel btrfs raid1, of which a disk is removed.
pub fn btrfs_remove(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let mut mounted = Mounted::btrfs("raid1", "raid1", &files, &s.folder.path().join("mnt"))?;
    let file = mounted.file("data");
    write_file(&file, &s.noise.bytes)?;
    mounted.cool()?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    mounted.remove_last()?;
    samples.insert("remove-raid1", watch.stop(s.noise.bytes.len() as f64)?);
    mounted.cool()?;
    read_file(&file, s.noise)?;
    drop(mounted);
    s.folder.clear()?;
    Ok(samples)
}

/// Kernel btrfs raid6 (metadata raid1c3) on loop devices over the same files.
pub fn btrfs_raid6(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let size = s.noise.bytes.len() as u64;
    let mut mounted = Mounted::btrfs("raid6", "raid1c3", &files, &s.folder.path().join("mnt"))?;
    let file = mounted.file("data");
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    write_file(&file, &s.noise.bytes)?;
    samples.insert("write", watch.stop(size as f64)?);
    if s.any(&["read", "degraded"]) {
        mounted.cool()?;
        let watch = Watch::start(Whose::ProcessAndKernel)?;
        read_file(&file, s.noise)?;
        samples.insert("read", watch.stop(size as f64)?);
    }
    if s.any(&["scrub"]) {
        mounted.cool()?;
        let watch = Watch::start(Whose::ProcessAndKernel)?;
        mounted.scrub()?;
        samples.insert("scrub", watch.stop(size as f64)?);
    }
    if s.any(&["resilver1", "resilver2"]) {
        let new = s.files("n", 2)?;
        mounted.cool()?;
        let both = Watch::start(Whose::ProcessAndKernel)?;
        let one = Watch::start(Whose::ProcessAndKernel)?;
        mounted.replace(2, &new[0])?;
        samples.insert("resilver1", one.stop(size as f64)?);
        mounted.replace(5, &new[1])?;
        samples.insert("resilver2", both.stop(size as f64)?);
        mounted.cool()?;
        read_file(&file, s.noise)?;
    }
    let small = s.rewritten().len() as u64;
    if s.any(&["random", "random16k", "flush"]) {
        write_file(&mounted.file("rewritten"), s.rewritten())?;
    }
    if s.any(&["random", "random16k"]) {
        mounted.cool()?;
        let watch = Watch::start(Whose::ProcessAndKernel)?;
        let (count, seconds) = kernel::fio_random_writes(&mounted.file("rewritten"), small, s.time, true)?;
        let sample = Sample { wall: seconds, ..watch.stop(count as f64)? };
        // It has one block size; ours is compared with it at two.
        samples.insert("random", sample);
        samples.insert("random16k", sample);
    }
    if s.any(&["random", "random16k"]) {
        mounted.cool()?;
        let watch = Watch::start(Whose::ProcessAndKernel)?;
        let (count, seconds) = kernel::fio_random_writes(&mounted.file("rewritten"), small, s.time, false)?;
        samples.insert("random-buffered", Sample { wall: seconds, ..watch.stop(count as f64)? });
    }
    if s.any(&["flush"]) {
        let latencies = kernel::flushed_writes(&mounted.file("rewritten"), small, s.time, s.noise)?;
        samples.insert("flush", Sample::of_value(median(&latencies) * 1e6));
    }
    drop(mounted);
    s.folder.clear()?;
    Ok(samples)
}

/// Kernel btrfs raid1.
pub fn btrfs_raid1(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let size = s.noise.bytes.len() as u64;
    let mut mounted = Mounted::btrfs("raid1", "raid1", &files, &s.folder.path().join("mnt"))?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    write_file(&mounted.file("data"), &s.noise.bytes)?;
    samples.insert("mirror-write", watch.stop(size as f64)?);
    mounted.cool()?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    mounted.scrub()?;
    samples.insert("mirror-scrub", watch.stop(size as f64)?);
    drop(mounted);
    s.folder.clear()?;
    Ok(samples)
}

/// Plainly writing what a raidz2 of 6 writes in all to the same files.
pub fn plain(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let files = s.files("d", DEVICES)?;
    let size = s.noise.bytes.len() as u64;
    let watch = Watch::start(Whose::Process)?;
    write_plainly(&files, size / 4 * 6, &s.noise.bytes)?;
    // Told in bytes of data, as every other row.
    samples.insert("write", watch.stop(size as f64)?);
    s.folder.clear()?;
    Ok(samples)
}

/// ext4 on one loop device: the plain floor of the kernel.
pub fn ext4(s: &Setting<'_>) -> Result<Samples> {
    let mut samples = Samples::new();
    s.folder.clear()?;
    let file = s.folder.file("d0", DEVICE_BYTES)?;
    let size = s.noise.bytes.len() as u64;
    let mut mounted = Mounted::ext4(&file, &s.folder.path().join("mnt"))?;
    let data = mounted.file("data");
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    write_file(&data, &s.noise.bytes)?;
    samples.insert("write", watch.stop(size as f64)?);
    mounted.cool()?;
    let watch = Watch::start(Whose::ProcessAndKernel)?;
    read_file(&data, s.noise)?;
    samples.insert("read", watch.stop(size as f64)?);
    let small = s.rewritten().len() as u64;
    if s.any(&["random"]) {
        mounted.cool()?;
        let watch = Watch::start(Whose::ProcessAndKernel)?;
        let (count, seconds) = kernel::fio_random_writes(&data, small, s.time, true)?;
        samples.insert("random", Sample { wall: seconds, ..watch.stop(count as f64)? });
    }
    if s.any(&["flush"]) {
        let latencies = kernel::flushed_writes(&data, small, s.time, s.noise)?;
        samples.insert("flush", Sample::of_value(median(&latencies) * 1e6));
    }
    drop(mounted);
    s.folder.clear()?;
    Ok(samples)
}
