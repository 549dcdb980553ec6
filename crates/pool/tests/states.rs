//! States of devices, vdevs and pools, and what leads to each; error counters and who is charged.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use common::*;
use device::sim::{Effect, Healing};
use device::{BlockDevice, DeviceErrorKind, Operation};
use pool::report::{Counters, State};
use pool::spec::GroupKind;
use pool::{Env, Pool, PoolError, ReplaceOptions, ScrubAction};
use sims::{Sims, line, state};

fn io() -> DeviceErrorKind {
    DeviceErrorKind::Io("medium error".into())
}

/// A mirror of two with some data on it.
fn mirror(sims: &Sims, bytes: u64) -> Pool {
    let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]));
    let id = volume(&mut pool, "vol", 32 * MIB);
    pool.write(id, 0, &noise(1, bytes as usize)).unwrap();
    pool.flush().unwrap();
    pool.drop_caches();
    pool
}

#[test]
fn all_is_online_until_one_is_taken_offline() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    let status = pool.status();
    assert_eq!(
        (status.state, status.vdevs[0].state, state(&mut pool, 1)),
        (State::Online, State::Online, State::Online)
    );
    assert_eq!((status.status, status.action), (None, None));
    pool.offline("/sims/s1", false).unwrap();
    assert_eq!(state(&mut pool, 1), State::Offline);
    let status = pool.status();
    assert_eq!((status.state, status.vdevs[0].state), (State::Degraded, State::Degraded));
    assert!(status.status.unwrap().contains("taken offline by the administrator"));
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!(state(&mut pool, 1), State::Offline, "offline outlasts an import");
    pool.online("/sims/s1", None, false).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().state, State::Online);
    pool.offline("/sims/s1", true).unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!(state(&mut pool, 1), State::Online, "temporarily offline does not");
}

#[test]
fn a_group_keeps_enough_devices_though_nothing_is_on_it_yet() {
    let sims = Sims::new(5, 64);
    let (mirror, raidz) = (sims.group(GroupKind::Mirror, 0..2), sims.group(GroupKind::Raidz(1), 2..5));
    let mut pool = create(&spec(vec![mirror, raidz]));
    pool.offline("/sims/s3", false).unwrap();
    let refused = pool.offline("/sims/s4", true).unwrap_err().to_string();
    assert!(refused.contains("no valid replicas"), "{refused}");
    assert_eq!(pool.status().state, State::Degraded);
    pool.online("/sims/s3", None, false).unwrap();
    settle(&mut pool);
    pool.offline("/sims/s4", false).unwrap();
}

#[test]
fn a_device_that_is_not_there_at_import_is_shown_by_its_number() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, MIB);
    let guid = pool.guid();
    let missing = line(&mut pool, 0).guid;
    drop(pool);
    let mut pool = import(guid, sims.without(&[0]));
    let line = line(&mut pool, 0);
    assert_eq!((line.state, line.name), (State::Unavail, missing.to_string()));
    assert_eq!(line.note.as_deref(), Some("was /sims/s0"));
    assert_eq!(pool.status().state, State::Degraded);
}

#[test]
fn a_pulled_device_is_removed_and_comes_back() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    sims.0[1].pull();
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(2, MIB as usize)).unwrap();
    pool.flush().unwrap();
    assert_eq!(state(&mut pool, 1), State::Removed);
    assert_eq!(pool.status().state, State::Degraded);
    sims.0[1].plug_in();
    assert!(pool.device_returned(&sims.new_device(1)).unwrap());
    let left: u32 = pool.map().iter().flat_map(|c| &c.placements).map(|p| p.stale_regions).sum();
    let all: u32 = pool.map().iter().flat_map(|c| &c.placements).map(|p| p.regions).sum();
    assert!(left > 0 && left < all / 4, "{left} of {all} regions: what it missed, and no more");
    settle(&mut pool);
    assert_eq!((pool.status().state, state(&mut pool, 1)), (State::Online, State::Online));
    sims.0[0].pull();
    pool.drop_caches();
    let back = read(&mut pool, id, 0, 4 * MIB as usize);
    assert!(
        back[..MIB as usize] == noise(2, MIB as usize)
            && back[MIB as usize..] == noise(1, 4 * MIB as usize)[MIB as usize..]
    );
}

#[test]
fn too_many_io_errors_fault_a_device_that_can_be_missed() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, MIB);
    let id = pool.open("vol").unwrap();
    // Labels can still be written: a device that does not take a root is faulted at once.
    sims.0[1].add_write_errors(MIB..62 * MIB);
    for round in 0..12 {
        pool.write(id, 0, &noise(round, 65536)).unwrap();
        pool.flush().unwrap();
    }
    assert_eq!(state(&mut pool, 1), State::Faulted);
    assert!(line(&mut pool, 1).errors.write > 0);
    assert_eq!(pool.status().state, State::Degraded);
    // No further use of it.
    let before = sims.0[1].counts();
    pool.write(id, 0, &noise(99, 65536)).unwrap();
    pool.flush().unwrap();
    let after = sims.0[1].counts();
    assert_eq!((before.writes, before.reads, before.flushes), (after.writes, after.reads, after.flushes));
    sims.0[1].clear_errors(0..64 * MIB);
    pool.clear(Some("/sims/s1")).unwrap();
    settle(&mut pool);
    assert_eq!((state(&mut pool, 1), pool.status().state), (State::Online, State::Online));
}

#[test]
fn too_many_io_errors_only_degrade_what_cannot_be_missed() {
    let sims = Sims::new(1, 64);
    let mut pool = create(&spec(vec![sims.group(GroupKind::Plain, 0..1)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    pool.write(id, 0, &noise(1, 8 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    pool.drop_caches();
    for _ in 0..12 {
        sims.0[0].plan(1, Some(Operation::Read), Effect::Fail(io()));
        pool.drop_caches();
        let _ = pool.read(id, 0, &mut [0; 16384]);
    }
    assert_eq!(state(&mut pool, 0), State::Degraded);
    assert!(read(&mut pool, id, 0, 8 * MIB as usize) == noise(1, 8 * MIB as usize), "it is still used");
}

#[test]
fn too_many_wrong_answers_degrade_a_device_that_stays_in_use() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 8 * MIB);
    sims.spoil(1);
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    assert_eq!(state(&mut pool, 1), State::Degraded);
    assert_eq!(line(&mut pool, 0).errors, Counters::default());
    let bad = line(&mut pool, 1).errors;
    assert!(bad.checksum >= 10 && bad.read == 0 && bad.write == 0, "{bad:?}");
    assert!(
        pool.events(0)
            .iter()
            .any(|event| event.class == "checksum" && event.device.as_deref() == Some("/sims/s1"))
    );
    let before = sims.0[1].counts().writes;
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(3, 65536)).unwrap();
    pool.flush().unwrap();
    assert!(sims.0[1].counts().writes > before);
    pool.clear(None).unwrap();
    assert_eq!((pool.status().state, line(&mut pool, 1).errors), (State::Online, Counters::default()));
}

#[test]
fn a_device_with_other_contents_than_expected_is_faulted() {
    let sims = Sims::new(2, 80);
    let pool = mirror(&sims, MIB);
    let guid = pool.guid();
    drop(pool);
    // Cut off behind: its labels at the beginning are still there.
    sims.0[1].set_size(70 * MIB);
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!(state(&mut pool, 1), State::Faulted);
    assert_eq!(line(&mut pool, 1).note.as_deref(), Some("shorter than it was"));
    assert_eq!(pool.status().state, State::Degraded);
}

/// A pool is as well as its worst group, even where nothing is lost because nothing is on it.
#[test]
fn a_group_with_too_few_devices_makes_the_pool_faulted() {
    let sims = Sims::new(5, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    pool.add(&[sims.group(GroupKind::Raidz(1), 2..5)], true).unwrap();
    let guid = pool.guid();
    pool.flush().unwrap();
    assert_eq!(pool.status().state, State::Online);
    drop(pool);
    let mut pool = import(guid, sims.without(&[3]));
    assert_eq!((pool.status().state, pool.status().vdevs[1].state), (State::Degraded, State::Degraded));
    drop(pool);
    let mut pool = import(guid, sims.without(&[3, 4]));
    let status = pool.status();
    assert_eq!((status.state, pool.pool_row().health), (State::Faulted, State::Faulted));
    assert_eq!((status.vdevs[0].state, status.vdevs[1].state), (State::Online, State::Faulted));
    let said = format!("{} {}", status.status.unwrap(), status.action.unwrap());
    assert!(said.contains("All data in the pool can still be read"), "{said}");
    assert!(said.contains("Attach the missing devices") && !said.contains("Sufficient"), "{said}");
    // It works all the same.
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(9, MIB as usize)).unwrap();
    pool.flush().unwrap();
    for index in [3, 4] {
        assert!(pool.device_returned(&sims.new_device(index)).unwrap());
    }
    settle(&mut pool);
    assert_eq!((pool.status().state, pool.status().status), (State::Online, None));
}

#[test]
fn a_pool_with_too_few_replicas_is_faulted_and_then_waits() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    let id = pool.open("vol").unwrap();
    // All trees are in the cache, the last block is not.
    pool.write(id, 0, &noise(6, MIB as usize)).unwrap();
    pool.flush().unwrap();
    pool.write(id, 0, &noise(7, MIB as usize)).unwrap();
    sims.0[0].pull();
    sims.0[1].pull();
    assert!(pool.read(id, 3 * MIB, &mut [0; 4096]).is_err());
    let status = pool.status();
    assert_eq!((status.state, status.vdevs[0].state), (State::Faulted, State::Faulted));
    assert!(status.status.unwrap().contains("insufficient replicas"));
    assert_eq!(pool.flush(), Err(PoolError::Suspended));
    assert_eq!(pool.status().state, State::Suspended);
    assert_eq!(pool.write(id, 0, &[1; 4096]), Err(PoolError::Suspended));
    for index in 0..2 {
        sims.0[index].plug_in();
        assert!(pool.device_returned(&sims.new_device(index)).unwrap());
    }
    pool.clear(None).unwrap();
    pool.flush().unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().state, State::Online);
    pool.drop_caches();
    assert!(read(&mut pool, id, 0, MIB as usize) == noise(7, MIB as usize), "what waited is there");
}

#[test]
fn an_import_without_enough_devices_says_which_and_what_would_do() {
    let disks = Disks::new(&[64; 5]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(1), 0..5)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    pool.write(id, 0, &noise(1, 4 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    let guid = pool.guid();
    drop(pool);
    let error = Pool::import(&env(2), guid, disks.without(&[1, 3]), &options()).unwrap_err().to_string();
    for part in ["/disks/d1", "/disks/d3", "any 1 of the 2 missing from raidz1-0"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn counters_outlast_an_import_and_are_cleared() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 2 * MIB);
    sims.0[0].plan(1, Some(Operation::Write), Effect::Fail(io()));
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(2, 65536)).unwrap();
    pool.flush().unwrap();
    settle(&mut pool);
    sims.spoil(1);
    pool.drop_caches();
    let _ = read(&mut pool, id, 0, 2 * MIB as usize);
    let (first, second) = (line(&mut pool, 0).errors, line(&mut pool, 1).errors);
    assert!(first.write == 1 && second.checksum > 0, "{first:?} {second:?}");
    pool.flush().unwrap();
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!(
        (line(&mut pool, 0).errors, line(&mut pool, 1).errors.checksum >= second.checksum),
        (first, true)
    );
    pool.clear(Some("/sims/s0")).unwrap();
    assert_eq!(line(&mut pool, 0).errors, Counters::default());
    assert!(line(&mut pool, 1).errors.checksum > 0, "the other one keeps its own");
}

/// Z-70: only who lied is charged. Z-71: where nobody has it right, everybody who holds it is.
#[test]
fn who_is_charged() {
    let sims = Sims::new(3, 64);
    let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..3)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    pool.write(id, 0, &noise(1, 16384)).unwrap();
    pool.flush().unwrap();
    let chunk = pool.map().into_iter().find(|chunk| chunk.class == "Data").unwrap();
    let place = |index: usize| chunk.placements[index].offset + 4096;
    sims.0[1].overwrite(place(1), &[0x77; 4096]);
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    let charged = |pool: &mut Pool| [0, 1, 2].map(|index| line(pool, index).errors.checksum);
    assert_eq!(charged(&mut pool), [0, 1, 0]);
    assert_eq!(pool.status().data_errors, 0);
    for index in 0..3 {
        sims.0[index].overwrite(place(index), &[0x77 + index as u8; 4096]);
    }
    pool.drop_caches();
    assert!(matches!(pool.read(id, 0, &mut [0; 16384]), Err(PoolError::Unreadable { .. })));
    assert_eq!(charged(&mut pool), [1, 2, 1]);
    let status = pool.status();
    assert_eq!((status.data_errors, &status.data_error_places[..]), (1, &["tank/vol:<0x0>".to_owned()][..]));
    assert!(status.status.unwrap().contains("data corruption"));
    // Written anew it is whole again.
    pool.write(id, 0, &noise(2, 16384)).unwrap();
    pool.flush().unwrap();
    assert_eq!(pool.status().data_errors, 0);
}

/// Beside a resilver's target, rows that rotted get other bytes where nothing is live, too; a device that is away
/// meanwhile does not get them, and is not to be charged for that.
#[test]
fn a_device_that_was_away_is_not_charged_for_what_a_resilver_changed() {
    let sims = Sims::new(7, 64);
    let mut pool = create(&spec(vec![sims.group(GroupKind::Raidz(2), 0..6)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    pool.write(id, 0, &noise(1, 8 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    // Three of four blocks are dead, but for as long as older roots have them.
    for block in (0..8 * MIB).step_by(16384).filter(|at| at / 16384 % 4 != 0) {
        pool.discard(id, block, 16384).unwrap();
    }
    for turn in 0..4 {
        pool.write(id, 12 * MIB, &noise(turn, 16384)).unwrap();
        pool.flush().unwrap();
    }
    sims.0[2].pull();
    pool.write(id, 12 * MIB, &noise(9, 16384)).unwrap();
    pool.flush().unwrap();
    for chunk in pool.map().into_iter().filter(|chunk| chunk.class == "Data") {
        let rotten = chunk.placements.iter().filter(|placement| placement.name == "/sims/s0");
        rotten.for_each(|placement| sims.0[0].overwrite(placement.offset + 4096, &noise(5, 3 << 19)));
    }
    pool.replace("/sims/s1", &sims.new_device(6), ReplaceOptions::default()).unwrap();
    settle(&mut pool);
    sims.0[2].plug_in();
    assert!(pool.device_returned(&sims.new_device(2)).unwrap());
    settle(&mut pool);
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().data_errors, 0);
    assert_eq!(line(&mut pool, 2).errors.checksum, 0);
}

#[test]
fn an_unreadable_sector_is_counted_healed_and_forgotten() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    let chunk = pool.map().into_iter().find(|chunk| chunk.class == "Data").unwrap();
    for (index, placement) in chunk.placements.iter().enumerate() {
        // Whichever side is read: the other has it.
        let at = placement.offset + 4096 + index as u64 * 65536;
        sims.0[index].add_read_errors(at..at + 4096, Healing::OnRewrite);
    }
    let id = pool.open("vol").unwrap();
    pool.drop_caches();
    assert!(read(&mut pool, id, 0, 4 * MIB as usize) == noise(1, 4 * MIB as usize));
    pool.scrub(ScrubAction::Start).unwrap();
    settle(&mut pool);
    assert_eq!(pool.scan().unwrap().errors, 0);
    for index in 0..2 {
        let errors = line(&mut pool, index).errors;
        assert!(errors.read > 0 && errors.checksum == 0, "{errors:?}");
        let mut bytes = vec![0; 1 << 20];
        sims.0[index].read(chunk.placements[index].offset, &mut bytes).unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_not_made_of_memory_used_again() {
    for kind in [GroupKind::Mirror, GroupKind::Raidz(1)] {
        let sims = Sims::new(3, 64);
        let mut pool = create(&spec(vec![sims.group(kind, 0..3)]));
        let id = volume(&mut pool, "vol", 32 * MIB);
        pool.write(id, 0, &noise(1, MIB as usize)).unwrap();
        let guid = pool.guid();
        drop(pool.export());
        // Without a cache each block's memory is free again at once, and the next one to be read gets it.
        let env = Env { cache_bytes: 0, ..env(1) };
        let mut pool = Pool::import(&env, guid, sims.without(&[]), &options()).unwrap().0;
        let id = pool.open("vol").unwrap();
        for block in [0, 5] {
            assert_eq!(
                read(&mut pool, id, block * 16384, 16384),
                noise(1, MIB as usize)[block as usize * 16384..][..16384]
            );
        }
        for sim in &sims.0 {
            sim.add_read_errors(0..64 * MIB, Healing::Never);
        }
        assert!(pool.read(id, 5 * 16384, &mut vec![0; 16384]).is_err());
        sims.0.iter().for_each(|sim| sim.clear_errors(0..64 * MIB));
        assert_eq!(read(&mut pool, id, 5 * 16384, 16384), noise(1, MIB as usize)[5 * 16384..][..16384]);
    }
}

/// As above, but the commit can't even read the trees that it is to change.
#[test]
fn what_was_written_outlasts_a_commit_that_cannot_read_its_trees() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(7, MIB as usize)).unwrap();
    pool.drop_caches();
    sims.0[0].pull();
    sims.0[1].pull();
    assert!(pool.flush().is_err());
    for index in 0..2 {
        sims.0[index].plug_in();
        pool.device_returned(&sims.new_device(index)).unwrap();
    }
    let _ = pool.clear(None);
    pool.flush().unwrap();
    assert!(read(&mut pool, id, 0, MIB as usize) == noise(7, MIB as usize));
    assert_sound(&mut pool);
}

/// Away at an import, back later: what it misses is known from the session before, and no more is copied.
#[test]
fn a_device_that_missed_an_import_is_brought_up_to_date_in_part() {
    for returns_at_import in [false, true] {
        let sims = Sims::new(2, 128);
        let mut pool = mirror(&sims, 16 * MIB);
        let guid = pool.guid();
        pool.flush().unwrap();
        drop(pool);
        let mut pool = import(guid, sims.without(&[1]));
        let id = pool.open("vol").unwrap();
        pool.write(id, 0, &noise(2, MIB as usize)).unwrap();
        pool.flush().unwrap();
        if returns_at_import {
            drop(pool);
            pool = import(guid, sims.without(&[]));
        } else {
            assert!(pool.device_returned(&sims.new_device(1)).unwrap());
        }
        let counts = |f: fn(&pool::report::PlacementReport) -> u32| -> u32 {
            pool.map()
                .iter()
                .flat_map(|chunk| &chunk.placements)
                .filter(|p| p.name == "/sims/s1")
                .map(f)
                .sum()
        };
        let (stale, all) = (counts(|p| p.stale_regions), counts(|p| p.regions));
        assert!(stale > 0 && stale < all / 4, "{stale} of {all} regions");
        settle(&mut pool);
        assert_eq!(pool.status().state, State::Online);
        sims.0[0].pull();
        pool.drop_caches();
        let id = pool.open("vol").unwrap();
        assert!(read(&mut pool, id, 0, MIB as usize) == noise(2, MIB as usize));
    }
}

/// Two sides of a mirror that were each used without the other: the one that is behind is not believed.
#[test]
fn sides_that_went_separate_ways_are_not_mixed() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims, 4 * MIB);
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    for (index, rounds) in [(0, 1), (1, 4)] {
        let devices = sims.without(&[1 - index]);
        let (mut pool, _) = Pool::import(&env(10 + index as u64), guid, devices, &options()).unwrap();
        let id = pool.open("vol").unwrap();
        for round in 0..rounds {
            pool.write(id, round * MIB, &noise(100 * index as u64 + round, MIB as usize)).unwrap();
            pool.flush().unwrap();
        }
    }
    let force = pool::spec::ImportOptions { force: true, ..options() };
    let (mut pool, _) = Pool::import(&env(2), guid, sims.without(&[]), &force).unwrap();
    assert!(pool.events(0).iter().any(|event| event.class == "resync"));
    settle(&mut pool);
    sims.0[1].pull();
    pool.drop_caches();
    let id = pool.open("vol").unwrap();
    for round in 0..4 {
        assert!(
            read(&mut pool, id, round * MIB, MIB as usize) == noise(100 + round, MIB as usize),
            "{round}"
        );
    }
}

/// Only roots whose space was not used again can be gone back to, and what is lost is told.
#[test]
fn older_roots_can_be_imported_as_long_as_they_are_whole() {
    let disks = Disks::new(&[64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..1)]));
    let id = volume(&mut pool, "vol", 16 * MIB);
    let mut txgs = Vec::new();
    for round in 0..8 {
        pool.write(id, 0, &noise(round, MIB as usize)).unwrap();
        pool.flush().unwrap();
        txgs.push(pool.last_txg());
    }
    let guid = pool.guid();
    drop(pool);
    let to = |txg| pool::spec::ImportOptions { txg: Some(txg), ..options() };
    let error = Pool::import(&env(2), guid, disks.all(), &to(txgs[4])).unwrap_err().to_string();
    assert!(error.contains(&format!("the oldest that can be imported is {}", txgs[5])), "{error}");
    let (mut pool, plan) = Pool::import(&env(2), guid, disks.all(), &to(txgs[5])).unwrap();
    assert!(plan.notices[0].contains("going back from transaction group"), "{plan:?}");
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, MIB as usize) == noise(5, MIB as usize));
    assert_sound(&mut pool);
}
