//! What is on devices and not as expected: unknown flags, other sizes, nodes that are gone.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Disks, MIB, assert_sound, create, env, import, noise, options, read, spec, volume};
use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, MemoryDevice, Operation};
use pool::Pool;
use pool::report::State;
use pool::spec::{GroupKind, ImportOptions, NewDevice};
use xxhash_rust::xxh3::xxh3_128;

const LABEL: u64 = 256 << 10;

/// Changes every uberblock on a disk, and makes its checksum right again.
fn change_uberblocks(disk: &MemoryDevice, change: impl Fn(&mut [u8])) {
    let size = disk.size().unwrap();
    for label in [0, LABEL, size - 2 * LABEL, size - LABEL] {
        for slot in 0..16 {
            let at = label + (128 << 10) + slot * 8192;
            let mut bytes = vec![0; 8192];
            disk.read(at, &mut bytes).unwrap();
            if bytes.starts_with(b"CDUBERBK") {
                change(&mut bytes[..8176]);
                let checksum = xxh3_128(&bytes[..8176]);
                bytes[8176..].copy_from_slice(&checksum.to_le_bytes());
                disk.write(at, &bytes).unwrap();
            }
        }
    }
}

/// Of flags and features that are not known, some make a pool unreadable, and others read-only.
#[test]
fn unknown_flags_are_refused() {
    let disks = Disks::new(&[64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let guid = pool.guid();
    let id = volume(&mut pool, "vol", MIB);
    pool.write(id, 0, &noise(1, 65536)).unwrap();
    pool.export().unwrap();
    let flags = |value: u32| {
        for disk in &disks.0 {
            change_uberblocks(disk, |bytes| bytes[12..16].copy_from_slice(&value.to_le_bytes()));
        }
    };
    let refusal = |options: &ImportOptions| {
        Pool::import(&env(2), guid, disks.all(), options).map(drop).unwrap_err().to_string()
    };
    let read_only = ImportOptions { read_only: true, ..options() };
    flags(1 | 8);
    for options in [&options(), &read_only] {
        let said = refusal(options);
        assert!(said.contains("not known here") && said.contains("newer coffer"), "{said}");
    }
    flags(1 | 1 << 20);
    let said = refusal(&options());
    assert!(said.contains("only be read here") && said.contains("readonly=on"), "{said}");
    let (mut pool, _) = Pool::import(&env(2), guid, disks.all(), &read_only).unwrap();
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, 65536) == noise(1, 65536));
    drop(pool);
    flags(1);
    assert_sound(&mut import(guid, disks.all()));
}

/// The labels at the end of a disk are found where it ended before it grew, even when those at its beginning are gone.
#[test]
fn a_grown_disk_is_known_without_its_first_labels() {
    let disks = Disks::new(&[64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let guid = pool.guid();
    let id = volume(&mut pool, "vol", MIB);
    pool.write(id, 0, &noise(1, 65536)).unwrap();
    pool.flush().unwrap();
    drop(pool);
    for disk in &disks.0 {
        disk.set_size(100 * MIB);
        disk.write(0, &vec![0; 2 * LABEL as usize]).unwrap();
    }
    assert_eq!(Pool::examine(&*disks.0[0]).unwrap().unwrap().pool_guid, guid);
    let mut pool = import(guid, disks.without(&[1]));
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, 65536) == noise(1, 65536));
    drop(pool);
    // The import has put the labels right.
    assert_eq!(Pool::examine(&*disks.0[0]).unwrap().unwrap().damaged_labels, 0);
}

/// A disk that can be cut short for a moment.
#[derive(Debug)]
struct Cuttable {
    disk: Arc<MemoryDevice>,
    is_short: AtomicBool,
}

impl Cuttable {
    fn check(&self, operation: Operation, offset: u64, length: u64) -> Result<(), DeviceError> {
        if !self.is_short.load(Ordering::SeqCst) {
            return Ok(());
        }
        let kind = DeviceErrorKind::Io("it ends before".to_owned());
        Err(DeviceError { device: self.disk.info().name.clone(), operation, offset, length, kind })
    }
}

impl BlockDevice for Cuttable {
    fn size(&self) -> Result<u64, DeviceError> {
        if self.is_short.load(Ordering::SeqCst) { Ok(0) } else { self.disk.size() }
    }

    fn info(&self) -> &DeviceInfo {
        self.disk.info()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [std::io::IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.check(Operation::Read, offset, 0)?;
        self.disk.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[std::io::IoSlice<'_>]) -> Result<(), DeviceError> {
        self.check(Operation::Write, offset, 0)?;
        self.disk.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.check(Operation::Flush, 0, 0)?;
        self.disk.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.check(Operation::Discard, offset, length)?;
        self.disk.discard(offset, length)
    }
}

/// A disk that is too short for a moment is away for that moment, not broken: nobody needs to clear anything.
#[test]
fn a_disk_that_is_cut_short_for_a_moment_is_not_faulted() {
    let disks = Disks::new(&[64, 64]);
    let cuttable: Vec<Arc<Cuttable>> = disks
        .0
        .iter()
        .map(|disk| Arc::new(Cuttable { disk: disk.clone(), is_short: AtomicBool::new(false) }))
        .collect();
    let device = |index: usize| NewDevice::new(cuttable[index].clone(), format!("/disks/d{index}"));
    let group = pool::spec::GroupSpec { kind: GroupKind::Mirror, devices: vec![device(0), device(1)] };
    let mut pool = create(&spec(vec![group]));
    let id = volume(&mut pool, "vol", 8 * MIB);
    pool.write(id, 0, &noise(1, MIB as usize)).unwrap();
    pool.flush().unwrap();
    cuttable.iter().for_each(|disk| disk.is_short.store(true, Ordering::SeqCst));
    pool.write(id, MIB, &noise(2, MIB as usize)).unwrap();
    assert_eq!(pool.flush(), Err(pool::PoolError::Suspended));
    cuttable.iter().for_each(|disk| disk.is_short.store(false, Ordering::SeqCst));
    for index in 0..2 {
        assert!(pool.device_returned(&device(index)).unwrap());
    }
    pool.clear(None).unwrap();
    assert_eq!(pool.status().state, State::Online);
    pool.drop_caches();
    assert!(read(&mut pool, id, MIB, MIB as usize) == noise(2, MIB as usize));
    assert_sound(&mut pool);
}

/// A node of a volume's tree that is gone in all copies is told by `status`, and stays told.
#[test]
fn a_lost_node_is_an_error_that_status_tells() {
    let disks = Disks::new(&[64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..1)]));
    let guid = pool.guid();
    let id = volume(&mut pool, "vol", 8 * MIB);
    pool.write(id, 0, &noise(1, MIB as usize)).unwrap();
    pool.flush().unwrap();
    drop(pool);
    // Nodes of the volume's tree say its number.
    let mut bytes = vec![0; 64 * MIB as usize];
    disks.0[0].read(0, &mut bytes).unwrap();
    let mut found = 0;
    for at in (MIB as usize..63 * MIB as usize).step_by(4096) {
        let node = &bytes[at..at + 16384];
        if node.starts_with(b"CofrNode") && node[24..32] == 17u64.to_le_bytes() {
            disks.0[0].write(at as u64 + 8192, &[0x5a; 4096]).unwrap();
            found += 1;
        }
    }
    assert!(found >= 2, "{found}");
    for _ in 0..2 {
        let mut pool = import(guid, disks.all());
        let id = pool.open("vol").unwrap();
        assert!(pool.read(id, 0, &mut [0; 4096]).is_err());
        let status = pool.status();
        assert_eq!(status.data_errors, 1, "{status:?}");
        assert!(status.data_error_places[0].contains("<metadata>"), "{status:?}");
        pool.flush().unwrap();
        drop(pool);
        let status = import(guid, disks.all()).status();
        assert_eq!(status.data_errors, 1, "it is told before it is met again: {status:?}");
    }
}
