//! How long inference takes on eight members of a RAID 6 without superblocks, and how fast a degraded RAID 6 is copied out
//! compared with plainly reading the same members.
//!
//! `cargo run --release -p rescue --example speed [MIB [FOLDER]]`: members of so many MiB (256 without). The same bytes lie
//! at the beginning of sparse members of 1 TiB as well, so that it is seen that size does not matter.
#![allow(clippy::unwrap_used, reason = "a program for measuring")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use device::{Access, BadMap, BlockDevice, FileDevice, Rescue, Rng};
use geometry::md::{Geometry, Shape};
use rescue::{CopyOptions, Image, copy_out, plan, scan};

const MEMBERS: usize = 8;
const CHUNK: u64 = 512 << 10;
const DATA: u64 = 264_192 * 512;

/// Members in the folder, around an ext4 file system with random files, in an order that their names don't tell.
fn make(folder: &Path, size: u64) -> Vec<PathBuf> {
    let geometry = Geometry::new(Shape::from_codes(6, 2).unwrap(), CHUNK, &[size; MEMBERS]).unwrap();
    let contents = folder.join("contents");
    let files = folder.join("files");
    fs::create_dir_all(&files).unwrap();
    let mut rng = Rng::new(7);
    let (mut left, mut number) = (geometry.size() / 2, 0);
    while left > 0 {
        let mut bytes = vec![0; rng.within(1000..8 << 20).min(left) as usize];
        rng.fill(&mut bytes);
        left -= bytes.len() as u64;
        number += 1;
        let place = files.join(format!("folder-{}", number % 20));
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join(format!("file-{number}")), bytes).unwrap();
    }
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .args([&files, &contents])
        .arg(format!("{}k", geometry.size() >> 10))
        .status();
    assert!(made.unwrap().success(), "mke2fs is needed");
    fs::remove_dir_all(&files).unwrap();
    let names = [5, 2, 7, 0, 3, 6, 1, 4].map(|number| folder.join(format!("disk-{number}.img")));
    let disks: Vec<File> = names.iter().map(|name| File::create_new(name).unwrap()).collect();
    disks.iter().for_each(|disk| disk.set_len(DATA + size + (1 << 20)).unwrap());
    let contents = File::open(&contents).unwrap();
    let width = (MEMBERS - 2) * CHUNK as usize;
    let mut row = vec![0; width];
    for stripe in 0..size / CHUNK {
        contents.read_exact_at(&mut row, stripe * width as u64).unwrap();
        let roles = geometry.row(stripe).unwrap();
        let mut columns = vec![&row[..0]; MEMBERS - 2];
        for ((index, member), part) in roles.data.iter().enumerate().zip(row.chunks(CHUNK as usize)) {
            columns[roles.column(index, *member)] = part;
            disks[usize::from(*member)].write_all_at(part, DATA + stripe * CHUNK).unwrap();
        }
        let (mut p, mut q) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
        parity::generate(&columns, &mut [&mut p, &mut q]).unwrap();
        for (member, bytes) in [(Some(roles.p), p), (roles.q, q)] {
            disks[usize::from(member.unwrap())].write_all_at(&bytes, DATA + stripe * CHUNK).unwrap();
        }
    }
    fs::remove_file(folder.join("contents")).unwrap();
    names.into()
}

/// The most memory that this process has had, MiB.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn infer(what: &str, paths: &[PathBuf]) -> rescue::Plan {
    let mut paths = paths.to_vec();
    paths.sort();
    let begun = Instant::now();
    let images: Vec<Image> = paths.iter().map(|path| Image::open(path).unwrap()).collect();
    let plan = plan(&images, &scan(&images));
    let best = plan.candidates.first().expect("a candidate");
    println!(
        "{what}: {} chunk {} KiB, score {}, in {:.2} s, {} MiB at most",
        best.shape,
        best.chunk >> 10,
        best.score,
        begun.elapsed().as_secs_f64(),
        memory_peak()
    );
    plan
}

/// Seconds to read the data of these members.
fn read(paths: &[PathBuf], threads: usize) -> f64 {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..threads {
            scope.spawn(move || {
                let mut buffer = vec![0; 4 << 20];
                for path in paths.iter().skip(part).step_by(threads) {
                    let device = FileDevice::open(path, Access::ReadOnly).unwrap();
                    let size = device.size().unwrap();
                    for at in (DATA..size - (1 << 20)).step_by(buffer.len()) {
                        let length = (size - at).min(buffer.len() as u64) as usize;
                        device.read(at, &mut buffer[..length]).unwrap();
                    }
                }
            });
        }
    });
    begun.elapsed().as_secs_f64()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let size = arguments.next().map_or(256, |text| text.parse().expect("a number of MiB")) << 20;
    let scratch = tempfile::tempdir().unwrap();
    let folder = arguments.next().map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let paths = make(&folder, size);
    let whole = infer("eight members", &paths);
    infer("without one", &paths[1..]);
    infer("without two", &paths[2..]);
    for path in &paths {
        File::options().write(true).open(path).unwrap().set_len(1 << 40).unwrap();
    }
    infer("eight members of 1 TiB", &paths);
    for path in &paths {
        File::options().write(true).open(path).unwrap().set_len(DATA + size + (1 << 20)).unwrap();
    }
    for missing in [1, 2] {
        let mut candidate = whole.candidates[0].clone();
        candidate.slots[..missing].fill(None);
        let left: Vec<PathBuf> = candidate.slots.iter().flatten().map(|slot| slot.path.clone()).collect();
        let array = candidate.open().unwrap();
        let total = array.size().unwrap();
        for round in ["from memory", "from memory", "from disk", "from disk"] {
            let forget = || {
                // What the kernel has of a file in memory is let go, as far as it can be.
                for path in left.iter().filter(|_| round == "from disk") {
                    let input = format!("if={}", path.display());
                    let dropped =
                        Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status();
                    assert!(dropped.unwrap().success());
                }
            };
            forget();
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let plain = read(&left, threads);
            forget();
            let bytes = size * left.len() as u64;
            let sink = Sink(device::MemoryDevice::new("nothing", 0), total);
            let begun = Instant::now();
            let rows = array.row_width().map(|width| rescue::Rows { width, before: 0 });
            let mut map = BadMap::filled(Rescue::NonTried);
            let options = CopyOptions { sparse: false, fill_zero: false, rows };
            copy_out(&array, &sink, &mut map, options, |_, _| Ok(true)).unwrap();
            let copied = begun.elapsed().as_secs_f64();
            println!(
                "{missing} missing, {round}: members read at {:.0} MiB/s, copied out at {:.0} MiB/s of contents: {:.2}",
                bytes as f64 / plain / f64::from(1 << 20),
                total as f64 / copied / f64::from(1 << 20),
                plain / copied
            );
        }
    }
}

/// Takes what is written and forgets it, so that only reading is measured.
#[derive(Debug)]
struct Sink(device::MemoryDevice, u64);

impl BlockDevice for Sink {
    fn info(&self) -> &device::DeviceInfo {
        self.0.info()
    }

    fn size(&self) -> Result<u64, device::DeviceError> {
        Ok(self.1)
    }

    fn read_vectored(
        &self,
        offset: u64,
        buffers: &mut [std::io::IoSliceMut<'_>],
    ) -> Result<(), device::DeviceError> {
        self.0.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, _: u64, _: &[std::io::IoSlice<'_>]) -> Result<(), device::DeviceError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), device::DeviceError> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), device::DeviceError> {
        Ok(())
    }
}
