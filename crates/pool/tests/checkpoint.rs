//! Checkpoints: everything is overwritten and destroyed, and going back finds it as it was; discarding gives the space
//! back; power cuts in all of it.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use device::sim::{Cut, PowerSupply};
use pool::spec::{BalanceFilters, BalanceSpec, GroupKind, ImportOptions, NewDevice};
use pool::types::{DatasetId, Guid};
use pool::{Pool, PoolError, ScrubAction};
use sims::Sims;

const KIB: usize = 1 << 10;

/// What every volume and snapshot holds.
fn contents(pool: &mut Pool) -> BTreeMap<String, Vec<u8>> {
    let rows = pool.list().unwrap();
    let mut all = BTreeMap::new();
    for row in rows {
        let name = row.name.split_once('/').unwrap().1.to_owned();
        let id = pool.open(&name).unwrap();
        all.insert(name, read(pool, id, 0, row.volsize as usize));
    }
    all
}

fn to_checkpoint(read_only: bool) -> ImportOptions {
    ImportOptions { checkpoint: true, read_only, ..options() }
}

fn rewind(guid: Guid, devices: Vec<NewDevice>) -> Pool {
    Pool::import(&env(3), guid, devices, &to_checkpoint(false)).unwrap().0
}

fn why<T>(result: Result<T, PoolError>) -> String {
    match result {
        Ok(_) => panic!("it was done"),
        Err(error) => error.to_string(),
    }
}

/// Two volumes, one with snapshots, and a third that is being destroyed.
fn fill(pool: &mut Pool) -> (DatasetId, DatasetId) {
    let a = volume(pool, "a", 4 * MIB);
    let b = volume(pool, "b", 2 * MIB);
    let c = volume(pool, "c", MIB);
    pool.write(a, 0, &noise(1, 2 * MIB as usize)).unwrap();
    pool.write(b, 0, &noise(2, MIB as usize)).unwrap();
    pool.write(c, 0, &noise(3, MIB as usize)).unwrap();
    pool.snapshot("a@one").unwrap();
    pool.write(a, 300 * KIB as u64, &noise(4, MIB as usize)).unwrap();
    pool.snapshot("a@two").unwrap();
    pool.write(a, 0, &noise(5, 200 * KIB)).unwrap();
    pool.set("", "comment", "before").unwrap();
    pool.volume_destroy("c").unwrap();
    (a, b)
}

/// Everything is overwritten or destroyed, and new things are made.
fn wreck(pool: &mut Pool, a: DatasetId, b: DatasetId) {
    pool.write(a, 0, &noise(6, 4 * MIB as usize)).unwrap();
    pool.snapshot("a@three").unwrap();
    pool.snapshot_destroy("a@one").unwrap();
    settle(pool);
    pool.write(a, 0, &noise(7, MIB as usize)).unwrap();
    pool.discard(b, 0, MIB).unwrap();
    pool.volume_destroy("b").unwrap();
    pool.rollback("a@three").unwrap();
    settle(pool);
    let d = volume(pool, "d", 4 * MIB);
    pool.write(d, 0, &noise(8, 4 * MIB as usize)).unwrap();
    for snapshot in ["a@two", "a@three"] {
        pool.snapshot_destroy(snapshot).unwrap();
    }
    pool.volume_destroy("a").unwrap();
    pool.set("", "comment", "after").unwrap();
    settle(pool);
}

#[test]
fn everything_is_back_after_a_rewind() {
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1)] {
        let disks = Disks::new(&[64, 64, 64]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..3)]));
        let guid = pool.guid();
        let (a, b) = fill(&mut pool);
        pool.checkpoint().unwrap();
        let before = contents(&mut pool);
        let used = pool.usage().used;
        wreck(&mut pool, a, b);
        assert_sound(&mut pool);
        assert_eq!(contents(&mut pool).keys().collect::<Vec<_>>(), ["d"]);
        let report = pool.status().checkpoint.unwrap();
        assert!(report.held > 3 * MIB && !report.discarding, "{report:?}");
        assert_eq!(pool.pool_row().checkpoint, Some(report.held));
        pool.export().unwrap();

        // Only looked at, nothing changes.
        let (mut look, _) = Pool::import(&env(3), guid, disks.all(), &to_checkpoint(true)).unwrap();
        assert_eq!(contents(&mut look), before);
        assert_sound(&mut look);
        drop(look);
        let mut pool = import(guid, disks.all());
        assert_eq!(contents(&mut pool).keys().collect::<Vec<_>>(), ["d"]);
        assert_sound(&mut pool);
        pool.export().unwrap();

        let mut pool = rewind(guid, disks.all());
        assert_eq!(contents(&mut pool), before, "{kind:?}");
        assert_eq!(pool.get("", Some("comment")).unwrap()[0].value, "before");
        assert_sound(&mut pool);
        settle(&mut pool);
        assert_sound(&mut pool);
        for _ in 0..4 {
            pool.set("", "comment", "x").unwrap();
            pool.set("", "comment", "y").unwrap();
        }
        assert_eq!(pool.status().checkpoint, None);
        assert!(pool.usage().used <= used + MIB, "{} and {used}", pool.usage().used);
        assert!(pool.events(0).iter().any(|event| event.class == "rewind"));
        // And the life after that is one like any other.
        let a = pool.open("a").unwrap();
        pool.write(a, 0, &noise(9, 4 * MIB as usize)).unwrap();
        pool.snapshot_destroy("a@one").unwrap();
        settle(&mut pool);
        assert_sound(&mut pool);
        let now = contents(&mut pool);
        pool.export().unwrap();
        let mut pool = import(guid, disks.all());
        assert_eq!(contents(&mut pool), now);
        assert_sound(&mut pool);
        pool.scrub(ScrubAction::Start).unwrap();
        settle(&mut pool);
        let scan = pool.scan().unwrap();
        assert_eq!((scan.errors, scan.repaired), (0, 0));
    }
}

#[test]
fn discarding_gives_back_what_was_held() {
    let disks = Disks::new(&[64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let (a, b) = fill(&mut pool);
    settle(&mut pool);
    // The same life without a checkpoint, for comparison.
    let others = Disks::new(&[64, 64]);
    let mut other = create(&spec(vec![others.group(GroupKind::Mirror, 0..2)]));
    let (c, d) = fill(&mut other);
    settle(&mut other);
    pool.checkpoint().unwrap();
    wreck(&mut pool, a, b);
    wreck(&mut other, c, d);
    let drain = |pool: &mut Pool| {
        for comment in ["1", "2", "3", "4", "5"] {
            pool.set("", "comment", comment).unwrap();
        }
        let data: Vec<_> =
            pool.usage().profiles.into_iter().filter(|profile| profile.class == "Data").collect();
        data.iter().map(|profile| profile.used).sum::<u64>()
    };
    let held = pool.status().checkpoint.unwrap().held;
    assert!(drain(&mut pool) > drain(&mut other) + 3 * MIB);
    pool.checkpoint_discard().unwrap();
    assert!(pool.status().checkpoint.unwrap().discarding);
    assert!(pool.has_work());
    assert_sound(&mut pool);
    settle(&mut pool);
    assert_eq!(pool.status().checkpoint, None);
    assert_eq!(drain(&mut pool), drain(&mut other), "{held} were held");
    assert_sound(&mut pool);
    let nodes = |pool: &mut Pool| pool.check().unwrap().nodes;
    assert!(nodes(&mut pool).abs_diff(nodes(&mut other)) <= 2);
    // Another one, right away.
    pool.checkpoint().unwrap();
    assert_eq!(pool.status().checkpoint.unwrap().held, 0);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let disks = Disks::new(&[64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..1)]));
    let guid = pool.guid();
    assert!(why(pool.checkpoint_discard()).contains("has no checkpoint"));
    pool.export().unwrap();
    for read_only in [true, false] {
        let refused = Pool::import(&env(3), guid, disks.all(), &to_checkpoint(read_only));
        assert!(why(refused).contains("no checkpoint to go back to"));
    }
    let mut pool = import(guid, disks.all());
    let (a, b) = fill(&mut pool);
    pool.checkpoint().unwrap();
    wreck(&mut pool, a, b);
    let report = pool.status().checkpoint;
    assert!(why(pool.checkpoint()).contains("has a checkpoint already"));
    assert_eq!(pool.status().checkpoint, report);
    pool.checkpoint_discard().unwrap();
    assert!(why(pool.checkpoint()).contains("still being discarded"));
    assert!(why(pool.checkpoint_discard()).contains("being discarded already"));
    pool.export().unwrap();
    assert!(
        why(Pool::import(&env(3), guid, disks.all(), &to_checkpoint(false)))
            .contains("can't be gone back to")
    );
    let mut pool = import(guid, disks.all());
    assert_sound(&mut pool);
    settle(&mut pool);
    pool.checkpoint().unwrap();
    let d = pool.open("d").unwrap();
    pool.write(d, 0, &noise(11, MIB as usize)).unwrap();
    pool.export().unwrap();
    let mut pool = rewind(guid, disks.all());
    assert!(why(pool.checkpoint()).contains("still being freed"));
    settle(&mut pool);
    pool.checkpoint().unwrap();
    pool.export().unwrap();
    let (mut look, _) =
        Pool::import(&env(3), guid, disks.all(), &ImportOptions { read_only: true, ..options() }).unwrap();
    assert_eq!(why(look.checkpoint()), why(look.checkpoint_discard()));
}

/// Relocation, removal and new devices go on with a checkpoint, and a rewind leaves devices as they are.
#[test]
fn space_is_reshaped_under_a_checkpoint() {
    let disks = Disks::new(&[64, 64, 64, 64, 96, 96]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let guid = pool.guid();
    let (a, b) = fill(&mut pool);
    pool.checkpoint().unwrap();
    let before = contents(&mut pool);
    wreck(&mut pool, a, b);
    let balance = |pool: &mut Pool| {
        pool.balance_start(BalanceSpec {
            data: Some(BalanceFilters::default()),
            metadata: Some(BalanceFilters::default()),
            system: Some(BalanceFilters::default()),
            force: true,
        })
        .unwrap();
        settle(pool);
        assert_sound(pool);
    };
    balance(&mut pool);
    pool.add(&[disks.group(GroupKind::Mirror, 2..4)], false).unwrap();
    pool.add(&[disks.group(GroupKind::Mirror, 4..6)], false).unwrap();
    pool.remove(&["mirror-0".to_owned()]).unwrap();
    settle(&mut pool);
    assert_sound(&mut pool);
    pool.convert("mirror-1", GroupKind::Raidz(1), true).unwrap();
    settle(&mut pool);
    balance(&mut pool);
    let vdevs: Vec<String> = pool.status().vdevs.into_iter().map(|vdev| vdev.name).collect();
    drop(pool);
    let mut pool = rewind(guid, disks.without(&[0, 1]));
    assert_eq!(contents(&mut pool), before);
    assert_sound(&mut pool);
    let now: Vec<String> = pool.status().vdevs.into_iter().map(|vdev| vdev.name).collect();
    assert_eq!(now, vdevs, "devices do not go back");
    balance(&mut pool);
    assert_eq!(contents(&mut pool), before);
    settle(&mut pool);
    pool.checkpoint().unwrap();
    let a = pool.open("a").unwrap();
    pool.write(a, 0, &noise(12, 4 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    balance(&mut pool);
    pool.checkpoint_discard().unwrap();
    settle(&mut pool);
    assert_sound(&mut pool);
    balance(&mut pool);
}

/// A scrub reads and mends what only the checkpoint knows.
#[test]
fn a_scrub_repairs_what_is_held_back() {
    let sims = Sims::new(2, 64);
    let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]));
    let guid = pool.guid();
    let (a, b) = fill(&mut pool);
    pool.checkpoint().unwrap();
    let before = contents(&mut pool);
    wreck(&mut pool, a, b);
    pool.export().unwrap();
    sims.spoil(0);
    let mut pool = import(guid, sims.without(&[]));
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    let scan = pool.scan().unwrap();
    assert_eq!(scan.errors, 0);
    assert!(scan.repaired > 6 * MIB, "{scan:?}");
    pool.export().unwrap();
    // The other side is not needed any more.
    let mut pool = rewind(guid, sims.without(&[1]));
    assert_eq!(contents(&mut pool), before);
    assert_sound(&mut pool);
}

/// A full pool takes no more, frees nothing of what the checkpoint knows, and discarding always works.
#[test]
fn a_full_pool_with_a_checkpoint_is_not_stuck() {
    for (kind, count) in [(GroupKind::Plain, 1), (GroupKind::Mirror, 2), (GroupKind::Raidz(1), 3)] {
        for block in [4096, 16384, 131_072] {
            let disks = Disks::new(&vec![64; count]);
            let mut pool = create(&spec(vec![disks.group(kind, 0..count)]));
            let guid = pool.guid();
            let make = |pool: &mut Pool, name: &str| {
                let spec = pool::spec::VolumeSpec {
                    size: 1 << 30,
                    block_size: block,
                    sparse: true,
                    properties: Vec::new(),
                };
                pool.volume_create(name, &spec).unwrap();
                pool.open(name).unwrap()
            };
            let (v, w) = (make(&mut pool, "v"), make(&mut pool, "w"));
            let mut at = 0;
            let bytes = noise(1, 131_072);
            while at < 24 * MIB && pool.write(v, at, &bytes).is_ok() {
                at += 131_072;
            }
            pool.flush().unwrap();
            pool.checkpoint().unwrap();
            // Overwritten until there is no room.
            let mut rounds = 0;
            'full: loop {
                rounds += 1;
                assert!(rounds < 50, "a checkpoint holds back nothing");
                for at in (0..at).step_by(block as usize) {
                    match pool.write(v, at, &noise(at + rounds, block as usize)) {
                        Ok(()) => {}
                        Err(error) => {
                            assert_eq!(error, PoolError::NoSpace);
                            break 'full;
                        }
                    }
                }
                let room = pool.write(w, rounds * MIB * 8, &noise(rounds, 4 * MIB as usize));
                assert!(room.is_ok() || room == Err(PoolError::NoSpace));
            }
            pool.flush().unwrap();
            assert_sound(&mut pool);
            // Deleting never fails for want of room, though it may have to wait for the discard.
            pool.volume_destroy("v").unwrap();
            pool.volume_destroy("w").unwrap();
            settle(&mut pool);
            assert_eq!(pool.status().jobs, Vec::<String>::new(), "{kind:?}, blocks of {block}: all is freed");
            assert_sound(&mut pool);
            drop(pool);
            // Both ways out work from here.
            let copies = Disks(
                disks
                    .0
                    .iter()
                    .map(|disk| {
                        let mut bytes = vec![0; 64 * MIB as usize];
                        device::BlockDevice::read(&**disk, 0, &mut bytes).unwrap();
                        Arc::new(device::MemoryDevice::from_bytes("copy", &bytes))
                    })
                    .collect(),
            );
            let mut back = rewind(guid, copies.all());
            settle(&mut back);
            assert_sound(&mut back);
            let v = back.open("v").unwrap();
            assert_eq!(read(&mut back, v, 0, 131_072), bytes);
            back.write(v, 0, &noise(7, 131_072)).unwrap();
            back.flush().unwrap();
            let mut pool = import(guid, disks.all());
            pool.checkpoint_discard().unwrap();
            settle(&mut pool);
            assert_sound(&mut pool);
            assert_eq!(pool.check().unwrap().extents, 0, "{kind:?}, blocks of {block}");
            let v = make(&mut pool, "v");
            pool.write(v, 0, &bytes).unwrap();
            pool.flush().unwrap();
        }
    }
}

/// Power fails at every request of taking, discarding and going back: it is done or not done, and all is sound.
#[test]
fn power_may_fail_anywhere() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum What {
        Take,
        Discard,
        Back,
    }
    for what in [What::Take, What::Discard, What::Back] {
        let mut cut = 0;
        loop {
            let sims = Sims::new(2, 64);
            let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]));
            let guid = pool.guid();
            let (a, b) = fill(&mut pool);
            let before = contents(&mut pool);
            let supply = Arc::new(PowerSupply::new());
            sims.0.iter().for_each(|sim| sim.set_supply(Some(supply.clone())));
            if what != What::Take {
                pool.checkpoint().unwrap();
                wreck(&mut pool, a, b);
            }
            let now = contents(&mut pool);
            supply.cut_after(cut);
            let done = match what {
                What::Take => {
                    let done = pool.checkpoint().is_ok();
                    drop(pool);
                    done
                }
                What::Discard => {
                    let done = pool.checkpoint_discard().is_ok();
                    // Also the steps of it.
                    for _ in 0..100 {
                        if !matches!(pool.tick(MIB), Ok(true)) {
                            break;
                        }
                    }
                    drop(pool);
                    done
                }
                What::Back => {
                    drop(pool);
                    let back = Pool::import(&env(3), guid, sims.without(&[]), &to_checkpoint(false));
                    back.is_ok_and(|(mut pool, _)| {
                        for _ in 0..100 {
                            if !matches!(pool.tick(MIB), Ok(true)) {
                                break;
                            }
                        }
                        true
                    })
                }
            };
            let finished = supply.is_on();
            for (index, sim) in sims.0.iter().enumerate() {
                sim.power_cut(Cut::Random(cut * 31 + index as u64));
            }
            supply.restore();
            let (mut pool, _) = Pool::import(&env(7 + cut), guid, sims.without(&[]), &options()).unwrap();
            assert_sound(&mut pool);
            let checkpoint = pool.status().checkpoint;
            let found = contents(&mut pool);
            match what {
                What::Take => {
                    assert_eq!(found, before);
                    assert!(checkpoint.is_some() || !done, "cut {cut}");
                }
                What::Discard => {
                    assert_eq!(found, now);
                    assert!(checkpoint.is_none_or(|checkpoint| checkpoint.discarding) || !done, "cut {cut}");
                }
                What::Back => {
                    let is_back = checkpoint.is_none();
                    assert!(is_back || !done, "cut {cut}");
                    assert!(found == if is_back { before.clone() } else { now.clone() }, "cut {cut}");
                }
            }
            if let Some(false) = checkpoint.map(|checkpoint| checkpoint.discarding) {
                drop(pool);
                pool = rewind(guid, sims.without(&[]));
                assert_eq!(contents(&mut pool), before, "{what:?}, cut {cut}");
            }
            settle(&mut pool);
            assert_sound(&mut pool);
            if finished {
                break;
            }
            cut += 1;
        }
        assert!(cut > 5, "{what:?} is {cut} requests");
    }
}

/// The bitmaps of an older root are made anew with what the checkpoint knows.
#[test]
fn an_older_root_still_has_its_checkpoint() {
    let disks = Disks::new(&[64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let guid = pool.guid();
    let (a, b) = fill(&mut pool);
    pool.checkpoint().unwrap();
    let before = contents(&mut pool);
    wreck(&mut pool, a, b);
    let now = contents(&mut pool);
    pool.flush().unwrap();
    let txg = pool.last_txg();
    pool.checkpoint_discard().unwrap();
    drop(pool);
    // What the commit of an import takes is nothing that an older root has, its checkpoint included.
    drop(import(guid, disks.all()));
    let back = |checkpoint, read_only| ImportOptions { txg: Some(txg), checkpoint, read_only, ..options() };
    let look = Pool::import(&env(8), guid, disks.all(), &back(true, true));
    let (mut look, _) = look.unwrap();
    assert_eq!(contents(&mut look), before);
    assert_sound(&mut look);
    drop(look);
    let (mut pool, _) = Pool::import(&env(8), guid, disks.all(), &back(false, false)).unwrap();
    assert_eq!(contents(&mut pool), now);
    assert_sound(&mut pool);
    drop(pool);
    let mut pool = rewind(guid, disks.all());
    assert_eq!(contents(&mut pool), before);
    settle(&mut pool);
    assert_sound(&mut pool);
}

/// The read-only compatible features in the newest uberblock of a disk.
fn features(disk: &device::MemoryDevice) -> u64 {
    let mut newest = (0, 0);
    for label in [0, 256 * KIB] {
        for slot in 0..16 {
            let mut bytes = [0; 48];
            device::BlockDevice::read(disk, (label + 128 * KIB + slot * 8 * KIB) as u64, &mut bytes).unwrap();
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
            newest = newest.max((number(40), number(24)));
        }
    }
    newest.1
}

/// An engine that does not know checkpoints would free what one holds back: such a pool is marked as long as it has one,
/// or something that one left.
#[test]
fn who_does_not_know_checkpoints_may_only_read() {
    let disks = Disks::new(&[64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..1)]));
    let guid = pool.guid();
    let (a, b) = fill(&mut pool);
    assert_eq!(features(&disks.0[0]), 0);
    pool.checkpoint().unwrap();
    wreck(&mut pool, a, b);
    assert_eq!(features(&disks.0[0]), 1);
    pool.export().unwrap();
    assert_eq!(features(&disks.0[0]), 1);
    let mut pool = rewind(guid, disks.all());
    assert_eq!(features(&disks.0[0]), 1, "there are extents to be freed by births");
    settle(&mut pool);
    assert_eq!(features(&disks.0[0]), 0);
    pool.checkpoint().unwrap();
    let a = pool.open("a").unwrap();
    pool.write(a, 0, &noise(31, MIB as usize)).unwrap();
    pool.checkpoint_discard().unwrap();
    assert_eq!(features(&disks.0[0]), 1);
    settle(&mut pool);
    assert_eq!(features(&disks.0[0]), 0);
}

/// Without any bitmap that can be believed, all of them are made anew, with what a checkpoint has and what one left.
#[test]
fn lost_bitmaps_are_made_anew_with_what_is_held_back() {
    for discarding in [false, true] {
        let disks = Disks::new(&[64, 64]);
        let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
        let guid = pool.guid();
        let (a, b) = fill(&mut pool);
        pool.checkpoint().unwrap();
        let before = contents(&mut pool);
        wreck(&mut pool, a, b);
        if discarding {
            pool.checkpoint_discard().unwrap();
        }
        let map = pool.map();
        drop(pool);
        for chunk in map.iter().filter(|chunk| chunk.class != "Data") {
            for (disk, placement) in disks.0.iter().zip(&chunk.placements) {
                // Behind the header of the column are the two slots.
                device::BlockDevice::write(&**disk, placement.offset + 4096, &vec![0; 32 * KIB]).unwrap();
            }
        }
        let mut pool = import(guid, disks.all());
        assert!(pool.events(0).iter().any(|event| event.class == "bitmap"));
        assert_sound(&mut pool);
        let d = pool.open("d").unwrap();
        pool.write(d, 0, &noise(41, 2 * MIB as usize)).unwrap();
        pool.flush().unwrap();
        assert_sound(&mut pool);
        drop(pool);
        let mut pool = if discarding { import(guid, disks.all()) } else { rewind(guid, disks.all()) };
        if !discarding {
            assert_eq!(contents(&mut pool), before);
        }
        settle(&mut pool);
        assert_sound(&mut pool);
    }
}
