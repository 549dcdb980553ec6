//! `whatif` on a petabyte: a pool on disks that are simulated and empty, whose chunk map says that they are full.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use device::{Rng, SimDevice};
use geometry::Profile;
use pool::spec::{Draid, GroupKind, GroupSpec, NewDevice};

use crate::measure::median;
use crate::ours::{self, RunnerKind};

/// Disks, and bytes of each: 1 PiB in all.
const DISKS: usize = 64;
const DISK_BYTES: u64 = 16 << 40;

/// How often each question is asked.
const TIMES: usize = 3;

/// Asks for the worst one and the worst two disks of pools of several kinds; what that took, as text.
pub fn measure(runner: RunnerKind) -> Result<Vec<String>> {
    let draid = Draid { parity: 2, data: 8, spares: 2 };
    let kinds = [
        ("8 vdevs, raidz2 of 8", GroupKind::Raidz(2), 8, None),
        ("draid2:8d:64c:2s", GroupKind::Draid(draid), DISKS, None),
        ("raid1 on plain disks", GroupKind::Plain, DISKS, Some(Profile::Raid1)),
    ];
    let mut notes = Vec::new();
    for (name, kind, width, data) in kinds {
        let env = ours::environment(runner, ours::CACHE_BYTES)?;
        let disks: Vec<NewDevice> = (0..DISKS)
            .map(|number| {
                let disk = SimDevice::new(format!("s{number}"), DISK_BYTES, number as u64);
                NewDevice::new(Arc::new(disk), format!("/dev/s{number}"))
            })
            .collect();
        let groups = disks.chunks(width).map(|devices| GroupSpec { kind, devices: devices.to_vec() });
        let mut pool = ours::create(&env, groups.collect(), data)?;
        // Chunks go round the children, in another order each time.
        let (mut rng, mut order) = (Rng::new(1), Vec::new());
        let chunks = pool.pretend_full(|children, columns| {
            if order.len() < columns || order.iter().any(|&child| child >= children) {
                order = (0..children).collect();
                rng.shuffle(&mut order);
            }
            // Columns are in the order of the vdev.
            let mut chosen = order.split_off(order.len() - columns);
            chosen.sort_unstable();
            chosen
        });
        for any in [1, 2] {
            let mut seconds = Vec::new();
            let mut told = String::new();
            for _ in 0..TIMES {
                let begun = Instant::now();
                let report = pool.what_if(&[], Some(any))?;
                seconds.push(begun.elapsed().as_secs_f64());
                told = report.any.first().map_or_else(String::new, |any| {
                    let fatal = any.fatal.map_or("unknown".to_owned(), |fatal| fatal.to_string());
                    format!("{fatal} of {} sets lose something", any.sets)
                });
            }
            notes.push(format!(
                "whatif: {name}, {chunks} chunks, --any {any}: {:.2} s [{:.2}..{:.2}] ({told})",
                median(&seconds),
                seconds.iter().copied().fold(f64::INFINITY, f64::min),
                seconds.iter().copied().fold(0.0, f64::max),
            ));
        }
    }
    Ok(notes)
}
