//! Measures sets over files against plain copies of the same bytes: `cargo run --release -p raidset --example raid_speed [FOLDER [journal]]`.
//!
//! Each line is the median of five rounds, MiB of data a second by the wall clock and by processor time. The floor of a rebuild is to read
//! the other columns and write one; that of a parity rewrite to read all columns.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use device::{Access, BlockDevice, FileDevice, Op, Request, best_runner};
use raidset::layout::Level;
use raidset::set::{Parameters, RaidSet, Slot};

const COLUMN: u64 = 96 << 20;
const UNIT: u32 = 128;

/// Processor time of this process so far, seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn measure(name: &str, bytes: u64, mut work: impl FnMut()) {
    let mut rounds: Vec<(f64, f64)> = (0..5)
        .map(|_| {
            let (wall, processor) = (Instant::now(), processor_time());
            work();
            (wall.elapsed().as_secs_f64(), (processor_time() - processor).max(0.005))
        })
        .collect();
    let mib = bytes as f64 / f64::from(1 << 20);
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wall = mib / rounds[2].0;
    rounds.sort_by(|a, b| a.1.total_cmp(&b.1));
    println!("{name:<52} {wall:7.0} {:7.0}", mib / rounds[2].1);
}

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "/dev/shm".to_owned());
    let dir = std::path::Path::new(&folder).join(format!("raid_speed.{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let open = |name: String| -> Arc<dyn BlockDevice> {
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap().set_len(COLUMN + (64 << 10)).unwrap();
        Arc::new(FileDevice::open(&path, Access::ReadWrite).unwrap())
    };
    println!("{:<52} {:>7} {:>7}", "MiB/s", "wall", "cpu");
    let only_journal = std::env::args().nth(2).is_some();
    let runner: Arc<dyn device::Runner> = best_runner().unwrap().into();
    let mut first = None;
    for (level, columns) in [(Level::Raid0, 4), (Level::Raid5, 5), (Level::Raid6, 6), (Level::Raid1, 2)] {
        let devices: Vec<_> = (0..columns).map(|i| open(format!("{}{i}", level.letter()))).collect();
        let parameters = Parameters {
            level: level.clone(),
            sectors_per_unit: UNIT,
            units_per_parity_unit: 1,
            units_per_recon_unit: 1,
            queue_length: 100,
        };
        let set =
            RaidSet::configure(0, parameters.clone(), slots_again(&devices), vec![], true, runner.clone())
                .unwrap();
        set.init_labels(1).unwrap();
        let size = set.size().unwrap();
        if only_journal {
            if *set.layout().level() == Level::Raid5 {
                journal(&set, slots_again(&devices), parameters, &runner);
            }
            continue;
        }
        let mut cursor = 0;
        while !set.rewrite_parity(&mut cursor, 1000).unwrap().finished() {}
        for request in [128 << 10, 1 << 20, 4 << 20] {
            let bytes = vec![7; request];
            let mut back = vec![0; request];
            measure(&format!("{level} of {columns}, write, {} KiB", request >> 10), size, || {
                (0..size / request as u64).for_each(|i| set.write(i * request as u64, &bytes).unwrap());
            });
            measure(&format!("{level} of {columns}, read, {} KiB", request >> 10), size, || {
                (0..size / request as u64).for_each(|i| set.read(i * request as u64, &mut back).unwrap());
            });
        }
        let small = vec![9; 4096];
        measure(&format!("{level} of {columns}, write, 4 KiB at random"), 4096 * 20_000, || {
            let mut rng = device::Rng::new(1);
            (0..20_000).for_each(|_| set.write(rng.below(size / 4096) * 4096, &small).unwrap());
        });
        if level == Level::Raid0 {
            first = Some(devices);
            continue;
        }
        let column = set.layout().column_sectors() * 512;
        let reads = set.layout().stripe_data_units();
        measure(&format!("{level} of {columns}, check of parity"), column * columns as u64, || {
            let mut cursor = 0;
            while cursor < set.layout().stripes() {
                assert_eq!(set.check_parity(&mut cursor, 1000, false).unwrap(), 0);
            }
        });
        measure("   floor: reading all columns", column * columns as u64, || {
            copy(&*runner, &devices, None, column);
        });
        let mut round = 0;
        measure(&format!("{level} of {columns}, rebuild of a column"), column, || {
            set.fail_column(1).unwrap();
            round += 1;
            let new = open(format!("{}new{}", level.letter(), round % 2));
            let slot = Slot { name: "d1".to_owned(), device: Some(new) };
            set.reconstruct_in_place(1, Some(slot), 0).unwrap();
            while set.rebuild_progress().is_some() {
                set.rebuild_step(1000).unwrap();
            }
        });
        let others = &devices[..usize::from(reads)];
        measure("   floor: reading the others, writing one", column, || {
            let target = open("target".to_owned());
            copy(&*runner, others, Some(&*target), column);
        });
    }
    drop(first);
    std::fs::remove_dir_all(&dir).unwrap();
}

fn slots_again(devices: &[Arc<dyn BlockDevice>]) -> Vec<Slot> {
    let slots = devices.iter().enumerate();
    slots.map(|(i, device)| Slot { name: format!("d{i}"), device: Some(device.clone()) }).collect()
}

/// The same writes without and with a journal.
fn journal(plain: &RaidSet, slots: Vec<Slot>, parameters: Parameters, runner: &Arc<dyn device::Runner>) {
    let journalled = RaidSet::configure_with_journal(0, parameters, slots, vec![], runner.clone()).unwrap();
    let bytes = vec![7; 1 << 20];
    for (name, set) in [("without", plain), ("with", &journalled)] {
        measure(&format!("{name} journal, write, 1 MiB"), 256 << 20, || {
            (0..256).for_each(|i| set.write(i << 20, &bytes).unwrap());
        });
        measure(&format!("{name} journal, write, 4 KiB at random"), 4096 * 5000, || {
            let mut rng = device::Rng::new(1);
            (0..5000).for_each(|_| set.write(rng.below(60_000) * 4096, &bytes[..4096]).unwrap());
        });
    }
}

/// Reads the devices from end to end side by side, and writes what comes from the first to another.
fn copy(
    runner: &dyn device::Runner,
    from: &[Arc<dyn BlockDevice>],
    to: Option<&dyn BlockDevice>,
    length: u64,
) {
    const PIECE: usize = 512 << 10;
    let mut buffers = vec![vec![0; PIECE]; from.len()];
    for at in (0..length).step_by(PIECE) {
        let piece = PIECE.min((length - at) as usize);
        let mut requests: Vec<_> = from
            .iter()
            .zip(&mut buffers)
            .map(|(device, buffer)| {
                let buffers = vec![std::io::IoSliceMut::new(&mut buffer[..piece])];
                Request::new(&**device, Op::Read { offset: 32_768 + at, buffers })
            })
            .collect();
        runner.run(&mut requests);
        drop(requests);
        if let Some(to) = to {
            to.write(32_768 + at, &buffers[0][..piece]).unwrap();
        }
    }
}
