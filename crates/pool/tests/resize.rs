//! The pool uses less of a device, or more, and nothing notices.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use device::{BlockDevice, MemoryDevice};
use pool::report::{ScanState, State};
use pool::spec::{GroupKind, NewDevice, Resize};
use pool::{BalanceAction, Pool};
use std::sync::Arc;

/// What is written last, and so lies far behind on the devices, in MiB.
const LATE: u64 = 8;

/// As [`filled`], then written full, and emptied again but for the end; which MiB of a volume that is.
fn full_to_the_end(disks: &Disks, kind: GroupKind) -> (Pool, u64) {
    let mut pool = filled(&spec(vec![disks.group(kind, 0..3)]));
    let id = volume(&mut pool, "ballast", 1 << 30);
    let mut written = 0;
    while pool.write(id, written * MIB, &noise(100 + written, MIB as usize)).is_ok() {
        written += 1;
    }
    let late = written - LATE;
    pool.flush().unwrap();
    pool.discard(id, 0, late * MIB).unwrap();
    pool.flush().unwrap();
    settle(&mut pool);
    (pool, late)
}

fn assert_all(pool: &mut Pool, late: u64, when: &str) {
    let id = pool.open("ballast").unwrap();
    for at in late..late + LATE {
        assert!(read(pool, id, at * MIB, MIB as usize) == noise(100 + at, MIB as usize), "MiB {at} {when}");
    }
    assert_holds(pool, when);
}

/// The highest byte of a device that any chunk has.
fn last_byte(pool: &mut Pool, index: usize) -> u64 {
    let name = format!("/disks/d{index}");
    let map = pool.map();
    let ends = map.iter().flat_map(|chunk| {
        let here = chunk.placements.iter().filter(|at| at.name == name);
        here.map(|at| at.offset + chunk.column_length)
    });
    ends.max().unwrap_or(0)
}

/// The same bytes on a device that ends earlier.
fn cut_to(disks: &Disks, index: usize, size: u64) -> NewDevice {
    let mut bytes = vec![0; size as usize];
    disks.0[index].read(0, &mut bytes).unwrap();
    let device = MemoryDevice::new(format!("d{index}"), size);
    device.write(0, &bytes).unwrap();
    NewDevice::new(Arc::new(device), format!("/disks/d{index}"))
}

fn refusal(result: pool::Result<pool::report::Plan>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_device_is_used_less_and_may_be_cut() {
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1)] {
        let disks = Disks::new(&[96; 4]);
        let (mut pool, late) = full_to_the_end(&disks, kind);
        let to = 70 * MIB;
        assert!(last_byte(&mut pool, 1) > to, "{kind:?}: nothing lies behind");
        let plan = pool.plan_resize("/disks/d1", Resize::To(to)).unwrap();
        let usage = pool.usage();
        assert_eq!(plan, pool.resize("/disks/d1", Resize::To(to)).unwrap());
        settle(&mut pool);
        let done = pool.balance().unwrap();
        assert_eq!((done.state, done.errors, done.trouble), (ScanState::Finished, 0, None), "{kind:?}");
        assert!(last_byte(&mut pool, 1) <= to);
        assert_eq!(pool.usage().device_size, usage.device_size - 26 * MIB);
        assert_all(&mut pool, late, "after a resize");
        let guid = pool.guid();
        pool.export().unwrap();
        // The device as it is, and cut where the pool ends on it.
        for cut in [false, true] {
            let mut devices = disks.without(&[1, 3]);
            devices.push(if cut { cut_to(&disks, 1, to) } else { disks.new_device(1) });
            let mut pool = import(guid, devices);
            assert_eq!(pool.status().state, State::Online);
            assert_all(&mut pool, late, "after an import");
            pool.export().unwrap();
        }
    }
}

#[test]
fn what_was_given_up_is_used_again() {
    let disks = Disks::new(&[96; 3]);
    let (mut pool, late) = full_to_the_end(&disks, GroupKind::Plain);
    let before = pool.usage().device_unallocated;
    pool.resize("/disks/d0", Resize::By(-(20 << 20))).unwrap();
    settle(&mut pool);
    let small = pool.usage().device_unallocated;
    assert_eq!(pool.resize("/disks/d0", Resize::By(10 << 20)).unwrap().steps.len(), 1);
    assert_eq!(pool.usage().device_unallocated, small + 10 * MIB);
    pool.resize("/disks/d0", Resize::Max).unwrap();
    assert_eq!(pool.usage().device_unallocated, small + 20 * MIB);
    assert!(before <= small + 20 * MIB);
    assert!(refusal(pool.resize("/disks/d0", Resize::Max)).contains("already"));
    let guid = pool.guid();
    pool.export().unwrap();
    assert_all(&mut import(guid, disks.all()), late, "at its old size");
}

/// Of two labels at each end those at the new end are enough.
#[test]
fn the_labels_at_the_new_end_are_found() {
    let disks = Disks::new(&[96; 3]);
    let (mut pool, late) = full_to_the_end(&disks, GroupKind::Raidz(1));
    pool.resize("/disks/d2", Resize::To(70 * MIB)).unwrap();
    settle(&mut pool);
    let guid = pool.guid();
    pool.export().unwrap();
    disks.0[2].write(0, &vec![0; MIB as usize / 2]).unwrap();
    let found = Pool::examine(&*disks.0[2]).unwrap().expect("no label is found");
    assert_eq!(found.txg, Pool::examine(&*disks.0[1]).unwrap().unwrap().txg);
    let mut pool = import(guid, disks.all());
    assert_eq!(pool.status().state, State::Online);
    assert_all(&mut pool, late, "with labels at one end");
}

#[test]
fn a_resize_is_paused_goes_on_after_an_import_and_is_given_up() {
    let disks = Disks::new(&[96; 3]);
    let (mut pool, late) = full_to_the_end(&disks, GroupKind::Plain);
    let unallocated = pool.usage().device_unallocated;
    pool.resize("/disks/d0", Resize::To(70 * MIB)).unwrap();
    pool.tick(1 << 20).unwrap();
    pool.balance_control(BalanceAction::Pause).unwrap();
    assert!(
        refusal(pool.plan_resize("/disks/d1", Resize::To(70 * MIB))).contains("a resize is paused already")
    );
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, disks.all());
    // Nothing is put behind the new end meanwhile.
    let behind = last_byte(&mut pool, 0);
    let id = volume(&mut pool, "more", 64 * MIB);
    pool.write(id, 0, &noise(3, 24 << 20)).unwrap();
    pool.flush().unwrap();
    assert_eq!(last_byte(&mut pool, 0), behind);
    pool.volume_destroy("more").unwrap();
    settle(&mut pool);
    pool.balance_control(BalanceAction::Cancel).unwrap();
    settle(&mut pool);
    assert!(pool.usage().device_unallocated >= unallocated);
    assert_all(&mut pool, late, "after it was given up");
    pool.resize("/disks/d0", Resize::To(70 * MIB)).unwrap();
    pool.tick(1 << 20).unwrap();
    drop(pool);
    let mut pool = import(guid, disks.all());
    settle(&mut pool);
    assert_eq!(pool.balance().unwrap().state, ScanState::Finished);
    assert_all(&mut pool, late, "after it went on");
    pool.export().unwrap();
    let mut devices = disks.without(&[0]);
    devices.push(cut_to(&disks, 0, 70 * MIB));
    assert_all(&mut import(guid, devices), late, "on a device that was cut");
}

#[test]
fn what_can_t_be_is_refused_and_nothing_changes() {
    let disks = Disks::new(&[96, 96, 96, 96]);
    let mut groups = vec![disks.group(GroupKind::Mirror, 0..2)];
    groups.push(disks.group(GroupKind::Spare, 3..4));
    let mut pool = filled(&spec(groups));
    let id = volume(&mut pool, "more", 64 * MIB);
    pool.write(id, 0, &noise(3, 46 << 20)).unwrap();
    pool.flush().unwrap();
    let before = pool.usage();
    let mut refused = |name: &str, to: Resize, why: &str| {
        for result in [pool.plan_resize(name, to), pool.resize(name, to)] {
            let said = refusal(result);
            assert!(said.contains(why), "{said}");
        }
    };
    refused("/disks/d0", Resize::To(97 * MIB), "it has 100663296 bytes");
    refused("/disks/d0", Resize::By(1 << 20), "it has 100663296 bytes");
    refused("/disks/d0", Resize::To(63 * MIB), "at least 67108864");
    refused("/disks/d0", Resize::By(i64::MIN), "at least 67108864");
    refused("/disks/d0", Resize::Max, "already");
    refused("/disks/d0", Resize::To(96 * MIB - 4096), "the least that it can be smaller by");
    refused("/disks/d0", Resize::To(65 * MIB), "bytes are missing");
    refused("/disks/d3", Resize::To(65 * MIB), "only devices of a vdev");
    refused("/disks/d7", Resize::Max, "no such device");
    pool.set("", "autoexpand", "on").unwrap();
    let said = refusal(pool.resize("/disks/d0", Resize::To(90 * MIB)));
    assert!(said.contains("autoexpand"), "{said}");
    assert_eq!(before, pool.usage());
    assert_holds(&mut pool, "after refusals");
}
