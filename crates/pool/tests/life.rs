//! The life of a pool on healthy and failing devices, seen from outside.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::*;
use device::BlockDevice;
use pool::report::State;
use pool::spec::GroupKind;
use pool::{ReplaceOptions, ScrubAction};

/// Every kind of group: write, reread from the devices alone, import, reread.
#[test]
fn what_is_written_is_read_back_after_an_import() {
    for kind in
        [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1), GroupKind::Raidz(2), GroupKind::Raidz(3)]
    {
        let disks = Disks::new(&[80, 64, 96, 64, 72]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..5)]));
        let id = volume(&mut pool, "vol", 64 * MIB);
        let data = noise(3, 5 * MIB as usize + 4321);
        pool.write(id, 12345, &data).unwrap();
        assert!(read(&mut pool, id, 12345, data.len()) == data, "{kind:?} dirty");
        pool.flush().unwrap();
        pool.drop_caches();
        assert!(read(&mut pool, id, 12345, data.len()) == data, "{kind:?} from devices");
        assert_eq!(read(&mut pool, id, 0, 12345), vec![0; 12345]);
        assert_sound(&mut pool);
        let guid = pool.guid();
        pool.export().unwrap();
        let mut pool = import(guid, disks.all());
        let id = pool.open("vol").unwrap();
        assert!(read(&mut pool, id, 12345, data.len()) == data, "{kind:?} imported");
        assert_eq!(pool.status().state, State::Online);
        assert_sound(&mut pool);
    }
}

#[test]
fn a_raidz2_loses_two_disks_heals_and_is_replaced() {
    let disks = Disks::new(&[64, 64, 64, 64, 64, 64, 64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..6)]));
    let id = volume(&mut pool, "vol", 64 * MIB);
    let data = noise(4, 40 * MIB as usize);
    pool.write(id, 0, &data).unwrap();
    pool.flush().unwrap();
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, disks.without(&[1, 4]));
    assert_eq!(pool.status().state, State::Degraded);
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, data.len()) == data);
    // Written while degraded, too.
    let more = noise(5, 3 * MIB as usize);
    pool.write(id, 40 * MIB, &more).unwrap();
    pool.flush().unwrap();
    pool.replace("/disks/d1", &disks.new_device(6), ReplaceOptions::default()).unwrap();
    pool.replace("/disks/d4", &disks.new_device(7), ReplaceOptions::default()).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().state, State::Online, "{:#?}", pool.status());
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    let scan = pool.scan().unwrap();
    assert_eq!((scan.errors, scan.repaired), (0, 0));
    assert_sound(&mut pool);
    drop(pool);
    // The new ones carry their part: any two others may go.
    let mut pool = import(guid, disks.without(&[0, 1, 4, 5]));
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, data.len()) == data);
    assert!(read(&mut pool, id, 40 * MIB, more.len()) == more);
}

#[test]
fn silent_damage_is_healed_and_blamed_on_the_disk_that_lied() {
    let disks = Disks::new(&[64, 64, 64, 64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(1), 0..5)]));
    let id = volume(&mut pool, "vol", 32 * MIB);
    let data = noise(6, 20 * MIB as usize);
    pool.write(id, 0, &data).unwrap();
    pool.flush().unwrap();
    let size = disks.0[2].size().unwrap();
    disks.0[2].write(2 * MIB, &vec![0x55; (size - 4 * MIB) as usize]).unwrap();
    pool.drop_caches();
    assert!(read(&mut pool, id, 0, data.len()) == data);
    let status = pool.status();
    let children = &status.vdevs[0].children;
    for (index, child) in children.iter().enumerate() {
        assert_eq!(child.errors.checksum > 0, index == 2, "{children:#?}");
    }
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    assert_eq!(pool.scan().unwrap().errors, 0);
    pool.clear(None).unwrap();
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    let scan = pool.scan().unwrap();
    assert_eq!((scan.errors, scan.repaired), (0, 0));
    assert_eq!(pool.status().vdevs[0].children[2].errors.checksum, 0);
}

#[test]
fn snapshots_keep_what_was_and_give_their_space_back() {
    let disks = Disks::new(&[96, 96, 96]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(1), 0..3)]));
    let id = volume(&mut pool, "vol", 32 * MIB);
    let first = noise(7, 8 * MIB as usize);
    pool.write(id, 0, &first).unwrap();
    pool.snapshot("vol@one").unwrap();
    let second = noise(8, 4 * MIB as usize);
    pool.write(id, 2 * MIB, &second).unwrap();
    pool.snapshot("vol@two").unwrap();
    pool.write(id, 0, &noise(9, 8 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    assert_sound(&mut pool);
    let one = pool.open("vol@one").unwrap();
    let two = pool.open("vol@two").unwrap();
    let mut expected = first.clone();
    assert!(read(&mut pool, one, 0, first.len()) == first);
    expected[2 * MIB as usize..6 * MIB as usize].copy_from_slice(&second);
    assert!(read(&mut pool, two, 0, expected.len()) == expected);
    pool.rollback("vol@two").unwrap();
    assert!(read(&mut pool, id, 0, expected.len()) == expected);
    settle(&mut pool);
    assert_sound(&mut pool);
    pool.snapshot_destroy("vol@one").unwrap();
    settle(&mut pool);
    assert_sound(&mut pool);
    assert!(read(&mut pool, two, 0, expected.len()) == expected);
    pool.snapshot_destroy("vol@two").unwrap();
    settle(&mut pool);
    assert!(read(&mut pool, id, 0, expected.len()) == expected);
    pool.volume_destroy("vol").unwrap();
    settle(&mut pool);
    assert_sound(&mut pool);
    let used: u64 = pool.map().iter().filter(|c| c.class == "Data").map(|c| c.used).sum();
    assert_eq!(used, 0);
}

#[test]
fn a_spare_steps_in_and_goes_back() {
    let disks = Disks::new(&[64, 64, 64, 64]);
    let groups = vec![disks.group(GroupKind::Mirror, 0..2), disks.group(GroupKind::Spare, 2..3)];
    let mut pool = create(&spec(groups));
    let id = volume(&mut pool, "vol", 16 * MIB);
    let data = noise(10, 9 * MIB as usize);
    pool.write(id, 0, &data).unwrap();
    pool.flush().unwrap();
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, disks.without(&[1]));
    settle(&mut pool);
    let status = pool.status();
    assert_eq!(status.spares[0].state, "INUSE", "{status:#?}");
    assert_eq!(status.vdevs[0].children[1].name, "spare-1");
    let id = pool.open("vol").unwrap();
    pool.write(id, MIB, &data[..MIB as usize]).unwrap();
    pool.flush().unwrap();
    assert!(pool.device_returned(&disks.new_device(1)).unwrap());
    settle(&mut pool);
    let status = pool.status();
    assert_eq!(status.spares[0].state, "AVAIL", "{status:#?}");
    assert_eq!(status.state, State::Online);
    assert_sound(&mut pool);
    drop(pool);
    let mut pool = import(guid, disks.without(&[0]));
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, MIB, MIB as usize) == data[..MIB as usize]);
    assert!(read(&mut pool, id, 2 * MIB, 7 * MIB as usize) == data[2 * MIB as usize..]);
}

/// A full pool says so, and can still be emptied.
#[test]
fn a_full_pool_still_deletes() {
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(2)] {
        let disks = Disks::new(&[64, 64, 64, 64, 64]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..5)]));
        let id = volume(&mut pool, "vol", 1 << 40);
        let mut written = 0;
        let error = loop {
            let data = noise(written, MIB as usize);
            match pool.write(id, written, &data) {
                Ok(()) => written += MIB,
                Err(error) => break error,
            }
        };
        assert_eq!(error, pool::PoolError::NoSpace);
        pool.flush().unwrap();
        println!("{kind:?}: {} MiB", written / MIB);
        assert_sound(&mut pool);
        let usage = pool.usage();
        assert!(usage.free_estimated < 2 * MIB, "{kind:?} {}", usage.free_estimated);
        pool.snapshot("vol@full").unwrap();
        pool.snapshot_destroy("vol@full").unwrap();
        settle(&mut pool);
        let guid = pool.guid();
        pool.export().unwrap();
        let mut pool = import(guid, disks.all());
        let id = pool.open("vol").unwrap();
        for at in (0..written).step_by(MIB as usize * 3) {
            assert!(read(&mut pool, id, at, MIB as usize) == noise(at, MIB as usize));
        }
        pool.discard(id, 0, written / 2).unwrap();
        pool.flush().unwrap();
        for at in (0..written / 4).step_by(MIB as usize) {
            pool.write(id, at, &noise(at + 1, MIB as usize)).unwrap();
        }
        pool.flush().unwrap();
        pool.volume_destroy("vol").unwrap();
        settle(&mut pool);
        assert_sound(&mut pool);
    }
}
