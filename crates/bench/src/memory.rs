//! Peak memory of a process that does a pool's work, measured in a child of our own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use device::Rng;
use pool::spec::GroupKind;

use crate::files::{Folder, MIB, Noise};
use crate::lives::DEVICE_BYTES;
use crate::ours::{self, RunnerKind};

/// What a process may use beside its cache, bytes.
pub const BESIDE_CACHE: u64 = 256 * MIB;

/// Argument by which this program is told to be the child.
pub const CHILD: &str = "--peak-memory-child";

/// Peak memory (`VmHWM`) of a child that writes, reads, rewrites and scrubs `size` bytes of a volume of
/// `volume` bytes, spread over all of it.
pub fn peak(folder: &Folder, size: u64, volume: u64) -> Result<u64> {
    folder.clear()?;
    let program = std::env::current_exe()?;
    let numbers = [size.to_string(), volume.to_string()];
    let output = Command::new(program).arg(CHILD).arg(folder.path()).args(&numbers).output()?;
    folder.clear()?;
    ensure!(output.status.success(), "the child failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the child said no number")
}

/// The child's work; prints its peak memory, bytes.
pub fn child(place: &Path, size: u64, volume: u64) -> Result<()> {
    let files = (0..6).map(|index| {
        let path = place.join(format!("d{index}"));
        std::fs::File::create(&path)?.set_len(DEVICE_BYTES)?;
        Ok(path)
    });
    let files: Vec<_> = files.collect::<Result<_>>()?;
    let env = ours::environment(RunnerKind::Best, ours::CACHE_BYTES)?;
    let mut pool = ours::create(&env, vec![ours::group(GroupKind::Raidz(2), &files)?], None)?;
    let id = ours::volume(&mut pool, "data", volume, 16384)?;
    let noise = Noise::new(1, 4 * MIB);
    // A stretch of one MiB at evenly spaced places.
    let count = size / MIB;
    let step = volume / count / MIB * MIB;
    for index in 0..count {
        let from = (index % 4 * MIB) as usize;
        pool.write(id, index * step, &noise.bytes[from..from + MIB as usize])?;
    }
    pool.flush()?;
    let mut buffer = vec![0; MIB as usize];
    for index in 0..count {
        pool.read(id, index * step, &mut buffer)?;
        let from = (index % 4 * MIB) as usize;
        ensure!(
            buffer == noise.bytes[from..from + MIB as usize],
            "the volume does not hold what was written"
        );
    }
    let mut rng = Rng::new(5);
    for _ in 0..20_000 {
        pool.write(id, rng.next_u64() % (volume / 4096) * 4096, &noise.bytes[..4096])?;
    }
    pool.flush()?;
    ours::scrub(&mut pool)?;
    println!("{}", own_peak()?);
    Ok(())
}

/// The most that this process had in memory so far (`VmHWM`), bytes.
pub fn own_peak() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel tells no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
