//! Vdevs become another kind, and wider, while they are in use.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pool::report::{ScanState, State};
use pool::spec::GroupKind;
use pool::{BalanceAction, Pool};

const KINDS: [GroupKind; 4] =
    [GroupKind::Mirror, GroupKind::Raidz(1), GroupKind::Raidz(2), GroupKind::Raidz(3)];

fn pool_of(disks: &Disks, kind: GroupKind, count: usize) -> Pool {
    filled(&spec(vec![disks.group(kind, 0..count)]))
}

fn name_of(pool: &mut Pool) -> String {
    pool.status().vdevs[0].name.clone()
}

/// Devices that a vdev of five may lose.
fn tolerance(kind: GroupKind) -> usize {
    match kind {
        GroupKind::Raidz(parity) => usize::from(parity),
        _ => 4,
    }
}

#[test]
fn every_kind_becomes_every_other_and_survives_what_that_survives() {
    for from in KINDS {
        for to in KINDS.into_iter().filter(|to| *to != from) {
            let disks = Disks::new(&[112; 5]);
            let mut pool = pool_of(&disks, from, 5);
            let name = name_of(&mut pool);
            let force = tolerance(to) < tolerance(from);
            if force {
                let refused = pool.plan_convert(&name, to, false).unwrap_err().to_string();
                assert!(refused.contains("reduces integrity") && refused.contains("'-f'"), "{refused}");
            }
            let plan = pool.plan_convert(&name, to, force).unwrap();
            assert_eq!(name_of(&mut pool), name, "a plan changes nothing");
            assert_eq!(plan, pool.convert(&name, to, force).unwrap());
            settle(&mut pool);
            let done = pool.balance().unwrap();
            assert_eq!((done.state, done.errors, done.trouble), (ScanState::Finished, 0, None));
            assert_eq!(pool.status().state, State::Online);
            assert_eq!(pool.status().action, None);
            let when = format!("from {from:?} to {to:?}");
            assert_holds(&mut pool, &when);
            // What it can lose now, it can lose at once, and go back to older roots without it.
            let guid = pool.guid();
            assert!(pool.export().is_ok());
            let gone: Vec<usize> = (0..tolerance(to)).collect();
            let mut pool = import(guid, disks.without(&gone));
            assert_holds(&mut pool, &format!("{when}, without {gone:?}"));
        }
    }
}

/// The old chunks are gone, and with them what holds commands back, as soon as a conversion has ended.
#[test]
fn a_conversion_that_has_ended_leaves_nothing_behind() {
    let disks = Disks::new(&[112; 4]);
    let mut pool = pool_of(&disks, GroupKind::Raidz(1), 4);
    pool.convert("raidz1-0", GroupKind::Mirror, false).unwrap();
    while pool.balance().unwrap().state == ScanState::Running {
        pool.tick(1 << 20).unwrap();
    }
    pool.detach("/disks/d3").unwrap();
    pool.convert("mirror-0", GroupKind::Raidz(3), true).unwrap_err();
    pool.convert("mirror-0", GroupKind::Raidz(1), true).unwrap();
    while pool.balance().unwrap().state == ScanState::Running {
        pool.tick(1 << 20).unwrap();
    }
    pool.offline("/disks/d1", false).unwrap();
    assert!(pool.offline("/disks/d2", false).is_err());
    assert_holds(&mut pool, "with one away");
    let away = pool.convert("raidz1-0", GroupKind::Raidz(1), true).unwrap_err().to_string();
    assert!(away.contains("is that already"), "{away}");
}

#[test]
fn what_is_away_is_counted_before_it_is_needed() {
    let disks = Disks::new(&[112; 4]);
    let mut pool = pool_of(&disks, GroupKind::Mirror, 4);
    for path in ["/disks/d1", "/disks/d2"] {
        pool.offline(path, false).unwrap();
    }
    let refused = pool.convert("mirror-0", GroupKind::Raidz(1), true).unwrap_err().to_string();
    assert!(refused.contains("2 of its devices are away"), "{refused}");
    pool.convert("mirror-0", GroupKind::Raidz(2), true).unwrap();
    settle(&mut pool);
    assert_holds(&mut pool, "made with two away");
}

/// A side that has the only other copy of what a conversion left is not let go.
#[test]
fn a_side_is_not_taken_from_chunks_of_a_former_layout() {
    let disks = Disks::new(&[112; 4]);
    let mut pool = pool_of(&disks, GroupKind::Raidz(1), 4);
    pool.convert("raidz1-0", GroupKind::Mirror, false).unwrap();
    pool.balance_control(BalanceAction::Cancel).unwrap();
    for disk in 0..4 {
        let refused = pool.detach(&format!("/disks/d{disk}")).unwrap_err().to_string();
        assert!(refused.contains("coffer convert POOL mirror-0 mirror"), "{refused}");
    }
    assert_holds(&mut pool, "with all sides");
}

#[test]
fn a_wider_raidz_takes_more() {
    let disks = Disks::new(&[96; 5]);
    let mut pool = pool_of(&disks, GroupKind::Raidz(1), 3);
    let before = pool.status();
    let narrow = pool.usage().free_estimated;
    for (index, name) in [(3, "raidz1-0"), (4, "/disks/d0")] {
        pool.attach(name, &disks.new_device(index)).unwrap();
    }
    assert_eq!(pool.status().vdevs[0].children.len(), before.vdevs[0].children.len() + 2);
    assert!(pool.usage().free_estimated > narrow + 150 * MIB, "{narrow} and {}", pool.usage().free_estimated);
    let spec =
        pool::spec::BalanceSpec { data: Some(pool::spec::BalanceFilters::default()), ..Default::default() };
    pool.balance_start(spec).unwrap();
    settle(&mut pool);
    let map = pool.map();
    let rows: Vec<_> = map.iter().filter(|chunk| chunk.profile == "raidz1" && !chunk.closed).collect();
    assert!(!rows.is_empty() && rows.iter().all(|chunk| chunk.placements.len() == 5), "{rows:?}");
    assert_holds(&mut pool, "after it became wider");
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(&[1]));
    assert_holds(&mut pool, "without one");
}

#[test]
fn a_conversion_that_is_given_up_is_told_and_goes_on() {
    let disks = Disks::new(&[112; 4]);
    let mut pool = pool_of(&disks, GroupKind::Raidz(1), 4);
    pool.convert("raidz1-0", GroupKind::Raidz(2), false).unwrap();
    assert!(
        pool.convert("raidz2-0", GroupKind::Raidz(3), false).unwrap_err().to_string().contains("already")
    );
    pool.balance_control(BalanceAction::Cancel).unwrap();
    settle(&mut pool);
    assert!(pool.status().action.unwrap().contains("coffer convert"));
    assert_holds(&mut pool, "half-way");
    // One survives the loss of one device, whatever its name says.
    assert!(pool.offline("/disks/d0", false).is_ok());
    assert!(pool.offline("/disks/d1", false).is_err());
    pool.online("/disks/d0", None, false).unwrap();
    settle(&mut pool);
    pool.convert("raidz2-0", GroupKind::Raidz(2), false).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().action, None);
    let again = pool.convert("raidz2-0", GroupKind::Raidz(2), false).unwrap_err().to_string();
    assert!(again.contains("is that already"), "{again}");
    assert_holds(&mut pool, "at the end");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let disks = Disks::new(&[64, 64, 64, 64]);
    let mut pool = pool_of(&disks, GroupKind::Raidz(1), 3);
    let before = pool.map();
    let mut refused = |name: &str, kind, why: &str| {
        for error in
            [pool.plan_convert(name, kind, true).unwrap_err(), pool.convert(name, kind, true).unwrap_err()]
        {
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(name_of(&mut pool), "raidz1-0");
    };
    refused("raidz1-0", GroupKind::Raidz(3), "needs at least 4 devices");
    refused("raidz1-0", GroupKind::Plain, "mirror, raidz1, raidz2 or raidz3");
    refused("raidz1-0", GroupKind::Raidz(1), "is that already");
    refused("raidz2-0", GroupKind::Raidz(2), "there is raidz1-0");
    refused("/disks/d0", GroupKind::Mirror, "there is raidz1-0");
    assert_eq!(pool.map(), before);
    let id = volume(&mut pool, "more", 100 * MIB);
    pool.write(id, 0, &noise(3, 60 << 20)).unwrap();
    pool.flush().unwrap();
    let lacks = pool.convert("raidz1-0", GroupKind::Mirror, true).unwrap_err().to_string();
    assert!(lacks.contains("bytes are missing"), "{lacks}");
    assert_eq!(name_of(&mut pool), "raidz1-0");
    assert_holds(&mut pool, "after refusals");
}
