//! Measures sets against plain requests for the same bytes: `cargo run --release -p raidset --example raid_speed [memory|disks|journal [FOLDER]]`.
//!
//! `memory` has its components in files in memory, where only the processor counts; `disks` has the same files, but each takes its bytes at
//! 200 MiB a second, one request after the other, as disks do that work side by side. Each row is five turns of both, one after the
//! other: MiB of data a second by the wall clock, medians, and the median of the ratios of neighbouring turns, with the least and the
//! greatest, by the wall clock and by processor time.
//!
//! | row | floor |
//! |---|---|
//! | whole stripes | RAID 0 with as many data columns; in memory that writes the fewer bytes, so D/N is the most there can be |
//! | parity check | reading all columns from end to end |
//! | parity rewrite, all of it wrong | reading all columns and writing as much of them as is parity |
//! | reconstruction | reading the columns that are needed and writing one |
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use device::{
    Access, BlockDevice, DeviceError, DeviceInfo, FileDevice, Op, Request, Runner, Threads, best_runner,
};
use raidset::layout::Level;
use raidset::set::{Parameters, RaidSet, Slot};

const UNIT: u32 = 128;
const ROUNDS: usize = 5;
/// Of a disk, bytes a second.
const RATE: f64 = 200.0 * 1_048_576.0;

/// Processor time of this process so far, seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn timed(work: &mut dyn FnMut()) -> (f64, f64) {
    let (wall, processor) = (Instant::now(), processor_time());
    work();
    (wall.elapsed().as_secs_f64(), (processor_time() - processor).max(0.01))
}

fn median(mut all: Vec<f64>) -> (f64, f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0], all[all.len() - 1])
}

/// One row: `ours` and `floor` in turn; both move `bytes` of data.
fn row(name: &str, bytes: u64, ours: &mut dyn FnMut(), floor: &mut dyn FnMut()) {
    prepared_row(name, bytes, &mut || (), ours, floor);
}

/// As [`row`], with something to do before each turn of `ours`.
fn prepared_row(
    name: &str,
    bytes: u64,
    prepare: &mut dyn FnMut(),
    ours: &mut dyn FnMut(),
    floor: &mut dyn FnMut(),
) {
    let mut round = || {
        prepare();
        (timed(ours), timed(floor))
    };
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let rate = |wall: f64| bytes as f64 / 1_048_576.0 / wall;
    let (mine, ..) = median(rounds.iter().map(|(ours, _)| rate(ours.0)).collect());
    let (theirs, ..) = median(rounds.iter().map(|(_, floor)| rate(floor.0)).collect());
    let (ratio, least, most) = median(rounds.iter().map(|(ours, floor)| floor.0 / ours.0).collect());
    let (processor, ..) = median(rounds.iter().map(|(ours, floor)| floor.1 / ours.1).collect());
    println!("{name:<44} {mine:7.0} {theirs:7.0}   {ratio:4.2} [{least:4.2}..{most:4.2}]   {processor:4.2}");
}

/// A file that takes its bytes as fast as a disk does.
#[derive(Debug)]
struct Disk {
    info: DeviceInfo,
    file: FileDevice,
    free: Mutex<Instant>,
}

impl Disk {
    fn wait(&self, bytes: u64) {
        let until = {
            let mut free = self.free.lock().unwrap();
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / RATE);
            *free
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

impl BlockDevice for Disk {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.file.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let bytes = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        self.file.read_vectored(offset, buffers)?;
        self.wait(bytes);
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[std::io::IoSlice<'_>]) -> Result<(), DeviceError> {
        let bytes = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        self.file.write_vectored(offset, buffers)?;
        self.wait(bytes);
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.file.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.file.discard(offset, length)
    }
}

/// As many requests at a time as there are disks, and two processors' worth of workers, whatever the machine has.
struct Queues(Threads);

impl Runner for Queues {
    fn run(&self, requests: &mut [Request<'_>]) {
        self.0.run(requests);
    }

    fn parallelism(&self) -> usize {
        2
    }
}

/// Where components come from.
struct Lab {
    dir: PathBuf,
    disks: bool,
    /// Bytes of data of a component.
    column: u64,
    runner: Arc<dyn Runner>,
}

impl Lab {
    fn open(&self, name: &str) -> Arc<dyn BlockDevice> {
        let path = self.dir.join(name);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(self.column + (64 << 10)).unwrap();
        let file = FileDevice::open(&path, Access::ReadWrite).unwrap();
        if !self.disks {
            return Arc::new(file);
        }
        let info = DeviceInfo { block_device: true, ..file.info().clone() };
        Arc::new(Disk { info, file, free: Mutex::new(Instant::now()) })
    }

    fn set(&self, level: Level, columns: u64) -> (RaidSet, Vec<Arc<dyn BlockDevice>>) {
        let devices: Vec<_> =
            (0..columns).map(|i| self.open(&format!("{}{columns}.{i}", level.letter()))).collect();
        let parameters = parameters(level);
        let set =
            RaidSet::configure(0, parameters, slots(&devices), vec![], true, self.runner.clone()).unwrap();
        set.init_labels(1).unwrap();
        rewrite(&set);
        (set, devices)
    }

    /// Reads some devices from end to end side by side and writes `share` of each piece of others, as far as there are any: the writes of one
    /// turn run with the reads of the next.
    fn copy(&self, from: &[Arc<dyn BlockDevice>], to: &[Arc<dyn BlockDevice>], share: (usize, usize)) {
        const PIECE: usize = 512 << 10;
        let mut buffers = vec![vec![0; PIECE]; from.len()];
        let mut before = buffers.clone();
        for at in (0..self.column + PIECE as u64).step_by(PIECE) {
            let mut requests: Vec<_> = Vec::new();
            if at < self.column {
                requests.extend(from.iter().zip(&mut buffers).map(|(device, buffer)| {
                    let buffers = vec![IoSliceMut::new(buffer)];
                    Request::new(&**device, Op::Read { offset: 32_768 + at, buffers })
                }));
            }
            if let Some(offset) = at.checked_sub(PIECE as u64).map(|at| at + 32_768) {
                requests.extend(to.iter().zip(&before).map(|(device, bytes)| {
                    let buffers = vec![std::io::IoSlice::new(&bytes[..PIECE / share.1 * share.0])];
                    Request::new(&**device, Op::Write { offset, buffers })
                }));
            }
            self.runner.run(&mut requests);
            drop(requests);
            std::mem::swap(&mut before, &mut buffers);
        }
    }
}

fn parameters(level: Level) -> Parameters {
    Parameters {
        level,
        sectors_per_unit: UNIT,
        units_per_parity_unit: 1,
        units_per_recon_unit: 1,
        queue_length: 100,
    }
}

fn slots(devices: &[Arc<dyn BlockDevice>]) -> Vec<Slot> {
    let slots = devices.iter().enumerate();
    slots.map(|(i, device)| Slot { name: format!("d{i}"), device: Some(device.clone()) }).collect()
}

fn rewrite(set: &RaidSet) {
    let mut cursor = 0;
    while !set.rewrite_parity(&mut cursor, 1000).unwrap().finished() {}
}

fn check(set: &RaidSet, repair: bool) -> u64 {
    let (mut cursor, mut wrong) = (0, 0);
    while cursor < set.layout().stripes() {
        wrong += set.check_parity(&mut cursor, 1000, repair).unwrap();
    }
    wrong
}

fn write_all(set: &RaidSet, bytes: &[u8], size: u64) {
    for i in 0..size / bytes.len() as u64 {
        set.write(i * bytes.len() as u64, bytes).unwrap();
    }
}

fn compare(lab: &Lab) {
    println!("{:<44} {:>7} {:>7}   ratio [least..most]  processor", "MiB/s", "ours", "floor");
    for (level, columns, data) in [(Level::Raid5, 5, 4), (Level::Raid6, 6, 4), (Level::Raid1, 2, 1)] {
        let (set, devices) = lab.set(level.clone(), columns);
        let (plain, unprotected) = lab.set(Level::Raid0, data);
        let size = set.size().unwrap().min(plain.size().unwrap());
        for request in [256 << 10, 1 << 20, 4 << 20] {
            let bytes = vec![7; request];
            row(
                &format!("{level} of {columns}, whole stripes, {} KiB", request >> 10),
                size,
                &mut || write_all(&set, &bytes, size),
                &mut || write_all(&plain, &bytes, size),
            );
        }
        drop((plain, unprotected));
        let all = lab.column * columns;
        row(
            &format!("{level} of {columns}, parity check"),
            all,
            &mut || assert_eq!(check(&set, false), 0),
            &mut || {
                lab.copy(&devices, &[], (0, 1));
            },
        );
        let parities = (columns - data) as usize;
        if !level.mirrored() {
            let path = lab.dir.join(format!("{}{columns}.0", level.letter()));
            let mut turn = 0;
            // Another first column makes all parity wrong.
            let mut spoil = || {
                turn += 1;
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                let bytes = vec![turn; 1 << 20];
                (0..lab.column >> 20).for_each(|i| file.write_all_at(&bytes, 32_768 + (i << 20)).unwrap());
            };
            prepared_row(
                &format!("{level} of {columns}, parity rewrite"),
                all,
                &mut spoil,
                &mut || assert_eq!(check(&set, true), set.layout().stripes()),
                &mut || lab.copy(&devices, &devices, (parities, columns as usize)),
            );
        }
        let mut turn = 0;
        row(
            &format!("{level} of {columns}, reconstruction"),
            lab.column,
            &mut || {
                set.fail_column(1).unwrap();
                turn += 1;
                let new = Slot { name: "d1".to_owned(), device: Some(lab.open(&format!("new{}", turn % 2))) };
                set.reconstruct_in_place(1, Some(new), 0).unwrap();
                while set.rebuild_progress().is_some() {
                    set.rebuild_step(1000).unwrap();
                }
            },
            &mut || lab.copy(&devices[..data as usize], &[lab.open("target")], (1, 1)),
        );
    }
}

/// The same writes with and without a journal.
fn journal(lab: &Lab) {
    let (plain, devices) = lab.set(Level::Raid5, 5);
    drop(plain);
    let make = |journal: bool| {
        let (parameters, runner) = (parameters(Level::Raid5), lab.runner.clone());
        if journal {
            RaidSet::configure_with_journal(0, parameters, slots(&devices), vec![], runner).unwrap()
        } else {
            RaidSet::configure(0, parameters, slots(&devices), vec![], true, runner).unwrap()
        }
    };
    let bytes = vec![7; 1 << 20];
    println!("{:<44} {:>7} {:>7}   ratio [least..most]  processor", "MiB/s", "journal", "none");
    let stream = |set: &RaidSet| (0..256).for_each(|i| set.write(i << 20, &bytes).unwrap());
    let (with, without) = (make(true), make(false));
    row("RAID level 5 of 5, 1 MiB", 256 << 20, &mut || stream(&with), &mut || stream(&without));
    let random = |set: &RaidSet| {
        let mut rng = device::Rng::new(1);
        (0..5000).for_each(|_| set.write(rng.below(60_000) * 4096, &bytes[..4096]).unwrap());
    };
    row("RAID level 5 of 5, 4 KiB at random", 4096 * 5000, &mut || random(&with), &mut || random(&without));
}

fn main() {
    let what = std::env::args().nth(1).unwrap_or_else(|| "memory".to_owned());
    let folder = std::env::args().nth(2).unwrap_or_else(|| "/dev/shm".to_owned());
    let dir = std::path::Path::new(&folder).join(format!("raid_speed.{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let disks = what == "disks";
    let runner: Arc<dyn Runner> =
        if disks { Arc::new(Queues(Threads::new(16).unwrap())) } else { best_runner().unwrap().into() };
    let lab = Lab { dir: dir.clone(), disks, column: if disks { 48 << 20 } else { 128 << 20 }, runner };
    if what == "journal" {
        journal(&lab)
    } else {
        compare(&lab)
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
