//! A pool that several threads use while its commits run beside them.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{IoSlice, IoSliceMut};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::{Disks, MIB, assert_sound, create, import, noise, options, read, spec, volume};
use device::rng::Rng;
use device::{BlockDevice, DeviceError, DeviceInfo, MemoryDevice};
use pool::spec::{GroupKind, GroupSpec, NewDevice};
use pool::{Held, Pool};

const BLOCK: u64 = 16384;

fn raidz2() -> (Disks, Pool) {
    let disks = Disks::new(&[256; 6]);
    let pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..6)]));
    (disks, pool)
}

#[test]
fn writers_readers_and_flushes_go_on_beside_commits() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 256 * MIB);
    let held = Arc::new(Held::new(pool));
    let committer = {
        let held = Arc::clone(&held);
        thread::spawn(move || held.commit_behind())
    };
    // Each thread has a part of the volume to itself, more than commits by itself, and knows what is in it.
    let part = 48 * MIB;
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let held = Arc::clone(&held);
            thread::spawn(move || {
                let mut rng = Rng::new(index);
                let start = index * part;
                let data = noise(index, (part + BLOCK) as usize);
                let mut salt = vec![None; (part / BLOCK) as usize];
                for round in 0..4000 {
                    let block = if round < part / BLOCK { round } else { rng.below(part / BLOCK) };
                    let shift = rng.below(BLOCK);
                    let bytes = |shift: u64| &data[(block * BLOCK + shift) as usize..][..BLOCK as usize];
                    held.write(held.lock(), id, start + block * BLOCK, bytes(shift)).unwrap().unwrap();
                    salt[block as usize] = Some(shift);
                    if rng.chance(1, 500) {
                        held.flush(held.lock()).unwrap().unwrap();
                    }
                    let looked = rng.below(part / BLOCK);
                    if let Some(shift) = salt[looked as usize] {
                        let mut found = vec![0; BLOCK as usize];
                        let at = start + looked * BLOCK;
                        held.lock().as_mut().unwrap().read(id, at, &mut found).unwrap();
                        assert_eq!(found, &data[(looked * BLOCK + shift) as usize..][..BLOCK as usize]);
                    }
                }
                (start, data, salt)
            })
        })
        .collect();
    // Somebody administers it meanwhile.
    for index in 0..5 {
        held.lock().as_mut().unwrap().snapshot(&format!("v@{index}")).unwrap();
        thread::yield_now();
    }
    let written: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    held.flush(held.lock()).unwrap().unwrap();
    drop(held.take().unwrap());
    committer.join().unwrap();
    assert!(held.write(held.lock(), id, 0, &[1]).is_none());
    // Nothing but what was flushed is there now.
    let mut pool = import(guid, disks.without(&[1, 4]));
    for (start, data, salt) in written {
        for (block, shift) in salt.into_iter().enumerate() {
            let at = block as u64 * BLOCK;
            let expected = &data[(at + shift.unwrap()) as usize..][..BLOCK as usize];
            assert!(
                read(&mut pool, id, start + at, BLOCK as usize) == expected,
                "block {block} from {start}"
            );
        }
    }
    assert_sound(&mut pool);
}

#[test]
fn a_commit_under_way_holds_what_was_accepted_before_it_and_nothing_later() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 64 * MIB);
    let (old, new) = (noise(1, MIB as usize), noise(2, MIB as usize));
    pool.write(id, 0, &old).unwrap();
    let needed = pool.commit_needed();
    let work = pool.begin_commit().unwrap().unwrap();
    assert!(pool.is_committing() && pool.begin_commit().unwrap().is_none());
    pool.write(id, 0, &new).unwrap();
    pool.drop_caches();
    assert_eq!(read(&mut pool, id, 0, MIB as usize), new);
    assert_eq!(pool.commit_needed(), needed + 1);
    assert!(pool.commits_done() < needed);
    let number = work.run();
    pool.finish_commit(number).unwrap();
    assert_eq!(pool.commits_done(), needed);
    // The process ends here.
    drop(pool);
    let mut pool = import(guid, disks.all());
    assert_eq!(read(&mut pool, id, 0, MIB as usize), old);
    assert_sound(&mut pool);
}

#[test]
fn what_can_t_share_a_commit_ends_it_and_unfinished_ones_leave_nothing() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 64 * MIB);
    let (old, new) = (noise(3, MIB as usize), noise(4, MIB as usize));
    pool.write(id, 0, &old).unwrap();
    // Nobody does the work: whoever needs it done does it.
    let work = pool.begin_commit().unwrap().unwrap();
    pool.snapshot("v@one").unwrap();
    assert!(!pool.is_committing());
    pool.write(id, 0, &new).unwrap();
    drop(pool.begin_commit().unwrap());
    // Of a commit that was not finished nothing is seen, and work that comes too late does nothing.
    drop(pool);
    work.run();
    let mut pool = Pool::import(&common::env(3), guid, disks.all(), &options()).unwrap().0;
    assert_eq!(read(&mut pool, id, 0, MIB as usize), old);
    assert_sound(&mut pool);
}

/// A device on which, once that is wanted, a read ends only when another one has begun.
#[derive(Debug)]
struct InCompany {
    device: MemoryDevice,
    /// Reads that have begun since it was wanted.
    begun: Mutex<Option<u32>>,
    another: Condvar,
}

impl BlockDevice for InCompany {
    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.device.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let mut begun = self.begun.lock().unwrap();
        if let Some(count) = begun.as_mut() {
            *count += 1;
            self.another.notify_all();
            let patience = Duration::from_secs(20);
            let alone = |begun: &mut Option<u32>| begun.is_some_and(|count| count < 2);
            let (_begun, timeout) = self.another.wait_timeout_while(begun, patience, alone).unwrap();
            assert!(!timeout.timed_out(), "a read waits for the one before it");
        } else {
            drop(begun);
        }
        self.device.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.device.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.device.discard(offset, length)
    }
}

#[test]
fn readers_do_not_wait_for_each_other_s_devices() {
    let device = InCompany {
        device: MemoryDevice::new("d0", 256 * MIB),
        begun: Mutex::default(),
        another: Condvar::new(),
    };
    let device = Arc::new(device);
    let new = NewDevice::new(Arc::clone(&device) as Arc<dyn BlockDevice>, "/disks/d0".into());
    let mut pool = create(&spec(vec![GroupSpec { kind: GroupKind::Plain, devices: vec![new] }]));
    let id = volume(&mut pool, "v", 64 * MIB);
    let data = noise(5, MIB as usize);
    pool.write(id, 0, &data).unwrap();
    pool.flush().unwrap();
    let half = data.len() / 2;
    pool.drop_caches();
    // The tree is in memory, so that the only reads are those of blocks.
    read(&mut pool, id, half as u64 - BLOCK, BLOCK as usize);
    let held = Held::new(pool);
    *device.begun.lock().unwrap() = Some(0);
    thread::scope(|scope| {
        for from in [0, half] {
            let (held, data) = (&held, &data);
            scope.spawn(move || {
                let mut found = vec![0; BLOCK as usize];
                held.read(|| held.lock(), id, from as u64, &mut found).unwrap().unwrap();
                assert_eq!(found, &data[from..from + BLOCK as usize]);
            });
        }
    });
    assert_eq!(*device.begun.lock().unwrap(), Some(2));
}

#[test]
fn what_is_read_beside_changes_is_never_shown_for_what_is_there_now() {
    let (_disks, mut pool) = raidz2();
    let id = volume(&mut pool, "v", 64 * MIB);
    let mut found = vec![0; 4 * BLOCK as usize];
    pool.write(id, 0, &noise(0, MIB as usize)).unwrap();
    pool.flush().unwrap();
    for round in 1..40 {
        pool.drop_caches();
        let work = pool.read_or_begin(id, 0, &mut found).unwrap();
        // What is being read is freed, and its places are given to something else.
        let new = noise(round, MIB as usize);
        for _ in 0..round % 7 {
            pool.write(id, 0, &new).unwrap();
            pool.flush().unwrap();
        }
        pool.end_read(work.unwrap().run());
        pool.read(id, 0, &mut found).unwrap();
        let now = if round % 7 == 0 { noise(round - 1, MIB as usize) } else { new };
        assert!(found == now[..found.len()], "round {round}");
    }
    assert_sound(&mut pool);
}

#[test]
fn a_server_s_read_heals_what_is_damaged() {
    let (disks, mut pool) = raidz2();
    let id = volume(&mut pool, "v", 64 * MIB);
    let data = noise(6, MIB as usize);
    pool.write(id, 0, &data).unwrap();
    pool.flush().unwrap();
    pool.drop_caches();
    // Labels apart, one disk holds nothing of what it should.
    let empty = vec![0; 64 << 10];
    for at in (2 * MIB..250 * MIB).step_by(empty.len()) {
        disks.0[3].write(at, &empty).unwrap();
    }
    let held = Held::new(pool);
    let mut found = vec![0; MIB as usize];
    held.read(|| held.lock(), id, 0, &mut found).unwrap().unwrap();
    assert_eq!(found, data);
    let status = held.lock().as_mut().unwrap().status();
    for (index, child) in status.vdevs[0].children.iter().enumerate() {
        assert_eq!(child.errors.checksum > 0, index == 3, "{child:?}");
    }
}
