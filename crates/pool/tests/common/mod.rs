//! Pools on memory devices, for tests: everything seeded, a clock that tests turn.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::{Inline, MemoryDevice, rng::Rng};
use pool::spec::{CreateSpec, GroupKind, GroupSpec, Host, ImportOptions, NewDevice, VolumeSpec};
use pool::types::{DatasetId, Millis};
use pool::{Clock, Env, Pool};

pub const MIB: u64 = 1 << 20;

/// A clock that moves one millisecond with every look.
#[derive(Default)]
pub struct TestClock(pub AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(1_700_000_000_000 + self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub fn env(seed: u64) -> Env {
    Env { clock: Arc::new(TestClock::default()), runner: Arc::new(Inline), seed, cache_bytes: 32 * MIB }
}

pub fn host() -> Host {
    Host { id: 7, name: "testhost".into() }
}

pub struct Disks(pub Vec<Arc<MemoryDevice>>);

impl Disks {
    pub fn new(sizes_mib: &[u64]) -> Self {
        Self(
            sizes_mib
                .iter()
                .enumerate()
                .map(|(i, m)| Arc::new(MemoryDevice::new(format!("d{i}"), m * MIB)))
                .collect(),
        )
    }

    pub fn new_device(&self, index: usize) -> NewDevice {
        NewDevice::new(self.0[index].clone(), format!("/disks/d{index}"))
    }

    pub fn group(&self, kind: GroupKind, which: impl IntoIterator<Item = usize>) -> GroupSpec<NewDevice> {
        GroupSpec { kind, devices: which.into_iter().map(|i| self.new_device(i)).collect() }
    }

    pub fn all(&self) -> Vec<NewDevice> {
        (0..self.0.len()).map(|i| self.new_device(i)).collect()
    }

    pub fn without(&self, gone: &[usize]) -> Vec<NewDevice> {
        (0..self.0.len()).filter(|i| !gone.contains(i)).map(|i| self.new_device(i)).collect()
    }
}

pub fn spec(groups: Vec<GroupSpec<NewDevice>>) -> CreateSpec {
    CreateSpec {
        name: "tank".into(),
        groups,
        data: None,
        metadata: None,
        properties: Vec::new(),
        command: "coffer create tank".into(),
    }
}

pub fn create(spec: &CreateSpec) -> Pool {
    Pool::create(&env(1), spec, &host()).unwrap().0
}

pub fn options() -> ImportOptions {
    ImportOptions { host: host(), ..ImportOptions::default() }
}

pub fn import(guid: pool::types::Guid, devices: Vec<NewDevice>) -> Pool {
    Pool::import(&env(2), guid, devices, &options()).unwrap().0
}

pub fn volume(pool: &mut Pool, name: &str, size: u64) -> DatasetId {
    let spec = VolumeSpec { size, block_size: 16384, sparse: true, properties: Vec::new() };
    pool.volume_create(name, &spec).unwrap();
    pool.open(name).unwrap()
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

pub fn read(pool: &mut Pool, id: DatasetId, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; length];
    pool.read(id, offset, &mut bytes).unwrap();
    bytes
}

/// Background work until none is left.
pub fn settle(pool: &mut Pool) {
    for _ in 0..100_000 {
        if !pool.tick(16 * MIB).unwrap() {
            return;
        }
    }
    panic!("background work does not end");
}

pub fn assert_sound(pool: &mut Pool) {
    let report = pool.check().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// Bytes that [`filled`] writes first.
pub const FILLED: usize = 20 << 20;

/// A pool with a volume "vol" of which a snapshot "vol@one" was taken before a part of it was written anew.
pub fn filled(spec: &CreateSpec) -> Pool {
    let mut pool = create(spec);
    let id = volume(&mut pool, "vol", 64 * MIB);
    pool.write(id, 0, &noise(1, FILLED)).unwrap();
    pool.snapshot("vol@one").unwrap();
    pool.write(id, MIB, &noise(2, MIB as usize)).unwrap();
    pool.flush().unwrap();
    pool
}

/// All that [`filled`] wrote is there, and the pool is sound.
pub fn assert_holds(pool: &mut Pool, when: &str) {
    let mut bytes = noise(1, FILLED);
    let id = pool.open("vol@one").unwrap();
    assert!(read(pool, id, 0, FILLED) == bytes, "the snapshot {when}");
    bytes[1 << 20..2 << 20].copy_from_slice(&noise(2, MIB as usize));
    let id = pool.open("vol").unwrap();
    assert!(read(pool, id, 0, FILLED) == bytes, "the volume {when}");
    assert_sound(pool);
}
