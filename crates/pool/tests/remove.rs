//! Devices and groups leave a pool: what is on them goes to the others, and nothing notices.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pool::report::ScanState;
use pool::spec::{BalanceSpec, GroupKind};
use pool::{BalanceAction, Pool, ReplaceOptions};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn refusal(result: pool::Result<pool::report::Plan>) -> String {
    result.unwrap_err().to_string()
}

/// Removes, and imports what is left: it must do without what is gone.
fn removed(mut pool: Pool, disks: &Disks, which: &[&str], gone: &[usize]) -> Pool {
    let plan = pool.plan_remove(&names(which)).unwrap();
    assert_eq!(plan, pool.remove(&names(which)).unwrap());
    settle(&mut pool);
    let done = pool.balance().unwrap();
    assert_eq!((done.state, done.errors, done.trouble), (ScanState::Finished, 0, None));
    assert_holds(&mut pool, "after a removal");
    for &index in gone {
        assert!(Pool::examine(&*disks.0[index]).unwrap().is_none(), "d{index} still has a label");
    }
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(gone));
    assert_holds(&mut pool, "after an import");
    assert!(pool.device_paths().iter().all(|device| device.is_open));
    pool
}

#[test]
fn a_plain_disk_leaves_and_the_profiles_stay() {
    for profile in geometry::Profile::ALL {
        let disks = Disks::new(&[96, 96, 112, 96, 128]);
        let mut spec = spec(vec![disks.group(GroupKind::Plain, 0..5)]);
        spec.data = Some(profile);
        let mut pool = removed(filled(&spec), &disks, &["/disks/d2"], &[2]);
        assert_eq!(pool.status().state, pool::report::State::Online);
    }
}

#[test]
fn a_raidz_gets_narrower_and_survives_as_much_as_before() {
    let disks = Disks::new(&[96; 6]);
    let pool = filled(&spec(vec![disks.group(GroupKind::Raidz(2), 0..6)]));
    let mut pool = removed(pool, &disks, &["/disks/d1", "/disks/d4"], &[1, 4]);
    assert_eq!(pool.status().vdevs[0].children.len(), 4);
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(&[0, 1, 4, 5]));
    assert_holds(&mut pool, "with two others missing");
}

#[test]
fn whole_groups_leave() {
    let disks = Disks::new(&[96; 7]);
    let groups = vec![
        disks.group(GroupKind::Mirror, 0..2),
        disks.group(GroupKind::Raidz(1), 2..5),
        disks.group(GroupKind::Mirror, 5..7),
    ];
    let pool = removed(filled(&spec(groups)), &disks, &["raidz1-1"], &[2, 3, 4]);
    let mut pool = removed(pool, &disks, &["mirror-0"], &[0, 1, 2, 3, 4]);
    assert_eq!(pool.status().vdevs.len(), 1);
    assert!(refusal(pool.remove(&names(&["mirror-2"]))).contains("coffer destroy"));
}

#[test]
fn a_missing_device_is_removed_from_what_the_others_know() {
    let disks = Disks::new(&[96; 5]);
    let mut pool = filled(&spec(vec![disks.group(GroupKind::Raidz(1), 0..5)]));
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    pool = import(guid, disks.without(&[3]));
    let name = pool.device_paths().iter().find(|device| !device.is_open).unwrap().path.clone();
    pool.remove(&[name]).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().state, pool::report::State::Online);
    assert_holds(&mut pool, "without the missing one");
}

#[test]
fn what_does_not_fit_or_can_t_be_is_refused_and_nothing_changes() {
    let disks = Disks::new(&[64, 64, 64, 64, 128]);
    let mut small = filled(&spec(vec![disks.group(GroupKind::Plain, [0, 1, 4])]));
    let id = volume(&mut small, "more", 200 * MIB);
    small.write(id, 0, &noise(3, 130 << 20)).unwrap();
    small.flush().unwrap();
    let before = small.usage();
    let lacks = refusal(small.plan_remove(&names(&["/disks/d4"])));
    assert!(lacks.contains("bytes are missing"), "{lacks}");
    assert_eq!(lacks, refusal(small.remove(&names(&["/disks/d4"]))));
    assert_eq!(before, small.usage());
    assert!(
        refusal(small.remove(&names(&["/disks/d0", "/disks/d1", "/disks/d4"]))).contains("coffer destroy")
    );
    assert!(small.remove(&names(&["/disks/nothing"])).is_err());
    let mut mirror = filled(&spec(vec![disks.group(GroupKind::Mirror, 2..4)]));
    assert!(refusal(mirror.remove(&names(&["/disks/d2"]))).contains("coffer detach"));
}

#[test]
fn a_removal_is_paused_goes_on_after_an_import_and_is_given_up() {
    let disks = Disks::new(&[96; 5]);
    let mut pool = filled(&spec(vec![disks.group(GroupKind::Plain, 0..4)]));
    pool.remove(&names(&["/disks/d1"])).unwrap();
    pool.tick(1 << 20).unwrap();
    pool.balance_control(BalanceAction::Pause).unwrap();
    for name in ["/disks/d2", "/disks/d1"] {
        assert!(refusal(pool.plan_remove(&names(&[name]))).contains("a removal is paused already"));
        assert!(refusal(pool.remove(&names(&[name]))).contains("a removal is paused already"));
    }
    assert!(pool.balance_start(BalanceSpec::default()).is_err());
    // What is to go gets no successor, which would be left behind alone (seed 10096924553474 never came to an end).
    assert!(
        refusal(pool.replace("/disks/d1", &disks.new_device(4), ReplaceOptions::default()))
            .contains("it is being removed")
    );
    // Asking again, which is refused, does not let new data come to it.
    let id = volume(&mut pool, "meanwhile", 64 * MIB);
    let on_it = |pool: &Pool| {
        let usage = pool.usage();
        let device = &usage.devices[1];
        device.size - device.unallocated
    };
    let before = on_it(&pool);
    pool.write(id, 0, &noise(4, 40 << 20)).unwrap();
    pool.flush().unwrap();
    assert!(on_it(&pool) <= before);
    pool.volume_destroy("meanwhile").unwrap();
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(&[4]));
    pool.balance_control(BalanceAction::Cancel).unwrap();
    settle(&mut pool);
    assert_eq!(pool.device_paths().len(), 4);
    assert_holds(&mut pool, "after it was given up");
    // It can be used again, and removed after all.
    let id = volume(&mut pool, "more", 300 * MIB);
    pool.write(id, 0, &noise(3, 150 << 20)).unwrap();
    pool.flush().unwrap();
    pool.volume_destroy("more").unwrap();
    settle(&mut pool);
    pool.remove(&names(&["/disks/d1"])).unwrap();
    settle(&mut pool);
    assert_eq!(pool.device_paths().len(), 3);
    assert_holds(&mut pool, "after it was removed");
}
