//! How fast a distributed spare is filled, on simulated disks that move so many bytes a second: deterministic.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use device::{
    BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, MemoryDevice, Operation, Request, Runner,
};
use pool::spec::{DraidWord, GroupKind, GroupSpec, NewDevice, VolumeSpec};
use pool::{Env, Pool};

const SECTOR: usize = 4096;

/// How long everything took: bytes that the busiest disk moved in each batch, and those that went one by one.
#[derive(Debug, Default)]
struct Time {
    in_batch: AtomicBool,
    elapsed: AtomicU64,
    /// Sectors by what they hold: the volume repeats itself, so that many large disks fit into memory.
    known: Mutex<HashMap<Vec<u8>, Arc<[u8]>>>,
}

/// A disk of a kernel, for all that the pool can tell. Zeros where nothing was written.
#[derive(Debug)]
struct Timed {
    info: DeviceInfo,
    size: u64,
    sectors: Mutex<HashMap<u64, Arc<[u8]>>>,
    time: Arc<Time>,
    gone: AtomicBool,
}

impl Timed {
    fn new(index: usize, size: u64, time: &Arc<Time>) -> Self {
        let like = MemoryDevice::new(format!("t{index}"), SECTOR as u64);
        let info = DeviceInfo { block_device: true, ..like.info().clone() };
        Self { info, size, sectors: Mutex::default(), time: time.clone(), gone: false.into() }
    }

    fn moved(&self, operation: Operation, offset: u64, length: usize) -> Result<(), DeviceError> {
        if self.gone.load(Ordering::Relaxed) {
            let (device, kind) = (self.info.name.clone(), DeviceErrorKind::Gone);
            return Err(DeviceError { device, operation, offset, length: length as u64, kind });
        }
        assert!(
            offset.is_multiple_of(SECTOR as u64) && offset + length as u64 <= self.size,
            "{offset} {length}"
        );
        if !self.time.in_batch.load(Ordering::Relaxed) {
            self.time.elapsed.fetch_add(length as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl BlockDevice for Timed {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.moved(Operation::Read, offset, buffers.iter().map(|buffer| buffer.len()).sum())?;
        let sectors = self.sectors.lock().unwrap();
        let places = buffers.iter_mut().flat_map(|buffer| buffer.chunks_mut(SECTOR));
        for (number, place) in (offset / SECTOR as u64..).zip(places) {
            match sectors.get(&number) {
                Some(bytes) => place.copy_from_slice(&bytes[..place.len()]),
                None => place.fill(0),
            }
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.moved(Operation::Write, offset, buffers.iter().map(|buffer| buffer.len()).sum())?;
        let (mut sectors, mut known) = (self.sectors.lock().unwrap(), self.time.known.lock().unwrap());
        let pieces = buffers.iter().flat_map(|buffer| buffer.chunks(SECTOR));
        for (number, piece) in (offset / SECTOR as u64..).zip(pieces) {
            // Only the configuration in a label ends within a sector, and nothing follows it there.
            let mut whole = piece.to_vec();
            whole.resize(SECTOR, 0);
            let same = known.entry(whole).or_insert_with_key(|whole| whole[..].into()).clone();
            sectors.insert(number, same);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.moved(Operation::Flush, 0, 0)
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Runs the requests of a batch at the same time on all disks: it takes as long as the busiest disk.
struct AllAtOnce(Arc<Time>);

impl Runner for AllAtOnce {
    fn run(&self, requests: &mut [Request<'_>]) {
        self.0.in_batch.store(true, Ordering::Relaxed);
        let mut each: BTreeMap<String, u64> = BTreeMap::new();
        for request in requests {
            *each.entry(request.device.info().name.clone()).or_default() += request.bytes() as u64;
            request.run();
        }
        self.0.in_batch.store(false, Ordering::Relaxed);
        self.0.elapsed.fetch_add(each.values().copied().max().unwrap_or(0), Ordering::Relaxed);
    }
}

/// Fills a draid of so many children up to `columns` MiB each, loses one, and lets its spare step in: what was written to
/// the spare, and what the busiest disks moved meanwhile.
fn rebuilt(word: &str, children: usize, columns: u64) -> (u64, u64) {
    let draid = word.parse::<DraidWord>().unwrap().of(children).unwrap();
    let time = Arc::new(Time::default());
    // Columns are 1/128 of a disk: 1 MiB.
    let disks: Vec<_> = (0..children).map(|index| Arc::new(Timed::new(index, 128 * MIB, &time))).collect();
    let devices = || disks.iter().map(|disk| NewDevice::new(disk.clone(), format!("/t/{}", disk.info.name)));
    // Room for the trees, as a server has it that was in use before.
    let env = Env { runner: Arc::new(AllAtOnce(time.clone())), cache_bytes: 256 * MIB, ..env(1) };
    let group = GroupSpec { kind: GroupKind::Draid(draid), devices: devices().collect() };
    let mut pool = Pool::create(&env, &spec(vec![group]), &host()).unwrap().0;
    let data = columns * children as u64 * u64::from(draid.data) / draid.width() as u64 * MIB;
    let volume = VolumeSpec { size: data, block_size: 128 << 10, sparse: true, properties: Vec::new() };
    pool.volume_create("vol", &volume).unwrap();
    let id = pool.open("vol").unwrap();
    pool.set("vol", "compression", "off").unwrap();
    let part: Vec<u8> = noise(1, 128 << 10).repeat(8);
    for at in (0..data / MIB).map(|at| at * MIB) {
        pool.write(id, at, &part).unwrap();
    }
    pool.flush().unwrap();
    let lost = children / 3;
    disks[lost].gone.store(true, Ordering::Relaxed);
    pool.let_go_of_dead();
    // The spare steps in; then it is filled, as a server does it.
    pool.tick(0).unwrap();
    let is_filled = |pool: &mut Pool| pool.status().vdevs[0].children[lost].children[1].note.is_none();
    assert!(!is_filled(&mut pool));
    let before = time.elapsed.load(Ordering::Relaxed);
    while !is_filled(&mut pool) {
        pool.tick(4 * MIB).unwrap();
    }
    let took = time.elapsed.load(Ordering::Relaxed) - before;
    while pool.tick(4 * MIB).unwrap() {}
    let scan = pool.scan().unwrap();
    assert_eq!(scan.errors, 0);
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, data / MIB / 2 * MIB, MIB as usize) == part);
    (scan.repaired, took)
}

/// The curve: against one spare disk, which takes as long as writing everything to it takes, at best. Every byte that is
/// rebuilt is read from all other columns of its chunk and written once, so N - 1 disks can be (N - 1) / (D + P) times as
/// fast; 0.85 of that is reached.
fn curve(word: &str, children: &[usize], columns: u64) {
    let mut told = vec![format!("{word}\nchildren  theory  speed-up  part")];
    let mut worst = f64::MAX;
    for &children in children {
        let draid = word.parse::<DraidWord>().unwrap().of(children).unwrap();
        let (bytes, took) = rebuilt(word, children, columns);
        let theory = (children - 1) as f64 / draid.width() as f64;
        let speed_up = bytes as f64 / took as f64;
        told.push(format!("{children:8} {theory:7.2} {speed_up:9.2} {:5.2}", speed_up / theory));
        worst = worst.min(speed_up / theory);
    }
    let told = told.join("\n");
    println!("{told}");
    assert!(worst >= 0.85, "{told}");
}

#[test]
fn a_distributed_spare_is_filled_by_all_disks_at_once() {
    curve("draid1:4d:1s", &[7, 11, 24], 100);
}

/// The rest of the curve, for `docs/performance.md`; takes some minutes.
#[test]
#[ignore = "takes long; run it for the page on performance"]
fn the_whole_curve() {
    curve("draid1:4d:1s", &[6, 8, 12, 16, 24, 32, 48], 100);
    curve("draid2:8d:1s", &[11, 14, 21, 31, 41], 100);
}
