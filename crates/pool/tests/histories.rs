//! Devices of one pool that were used apart from each other: what is refused, and what is none of it.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use std::sync::Arc;

use common::*;
use device::sim::{Cut, PowerSupply};
use pool::report::State;
use pool::spec::GroupKind;
use pool::types::Guid;
use pool::{Pool, PoolError};
use sims::{Sims, state};

/// A mirror with a volume `vol` that holds noise 1.
fn mirror(sims: &Sims) -> Pool {
    let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..sims.0.len())]));
    let id = volume(&mut pool, "vol", 32 * MIB);
    pool.write(id, 0, &noise(1, 65536)).unwrap();
    pool.flush().unwrap();
    pool
}

fn write(pool: &mut Pool, seed: u64) {
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(seed, 65536)).unwrap();
    pool.flush().unwrap();
}

fn holds(pool: &mut Pool, seed: u64) -> bool {
    let id = pool.open("vol").unwrap();
    read(pool, id, 0, 65536) == noise(seed, 65536)
}

fn import_without(sims: &Sims, guid: Guid, away: &[usize], seed: u64) -> Result<Pool, PoolError> {
    Pool::import(&env(seed), guid, sims.without(away), &options()).map(|(pool, _)| pool)
}

fn assert_refused(sims: &Sims, guid: Guid) {
    let error = import_without(sims, guid, &[], 99).unwrap_err().to_string();
    assert!(error.contains("used apart"), "{error}");
}

#[test]
fn two_histories_are_not_chosen_between() {
    let sims = Sims::new(3, 64);
    let mut pool = create(&spec(vec![sims.group(GroupKind::Mirror, 0..3)]));
    volume(&mut pool, "vol", 32 * MIB);
    let guid = pool.guid();
    pool.export().unwrap();
    // Two hosts, or one with a loose cable, each with a part of the disks.
    let sides = [vec![0], vec![1, 2]];
    for side in &sides {
        let away: Vec<usize> = (0..3).filter(|disk| !side.contains(disk)).collect();
        let seed = side.len() as u64;
        let (mut pool, _) = Pool::import(&env(seed), guid, sims.without(&away), &options()).unwrap();
        let id = pool.open("vol").unwrap();
        pool.write(id, 0, &noise(seed, 65536)).unwrap();
        pool.export().unwrap();
    }
    for read_only in [false, true] {
        let look = pool::spec::ImportOptions { read_only, ..options() };
        let error = Pool::import(&env(5), guid, sims.without(&[]), &look).unwrap_err().to_string();
        assert!(error.contains("apart") && error.contains("-f"), "{error}");
        for path in ["/sims/s0", "/sims/s1, /sims/s2"] {
            assert!(error.contains(path), "{error}");
        }
    }
    // Whoever leaves a side out has decided, as has who insists.
    let force = pool::spec::ImportOptions { force: true, read_only: true, ..options() };
    assert!(Pool::import(&env(6), guid, sims.without(&[]), &force).is_ok());
    let mut pool = import(guid, sims.without(&[0]));
    assert!(pool.device_returned(&sims.new_device(0)).unwrap());
    settle(&mut pool);
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, 65536) == noise(2, 65536));
    pool.export().unwrap();
    let mut pool = import(guid, sims.without(&[1, 2]));
    let id = pool.open("vol").unwrap();
    assert!(read(&mut pool, id, 0, 65536) == noise(2, 65536));
}

#[test]
fn one_flush_on_each_side_is_enough_to_ask() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims);
    let guid = pool.guid();
    sims.0[1].pull();
    write(&mut pool, 2);
    drop(pool);
    sims.0[1].plug_in();
    write(&mut import_without(&sims, guid, &[0], 5).unwrap(), 3);
    assert_refused(&sims, guid);
}

/// The flush was acknowledged by one disk alone, since the other did not take the root.
#[test]
fn a_root_that_one_disk_did_not_take_is_acknowledged_without_it() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims);
    let guid = pool.guid();
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(2, 65536)).unwrap();
    let size = 64 * MIB;
    [0..MIB, size - MIB / 2..size].into_iter().for_each(|labels| sims.0[1].add_write_errors(labels));
    pool.flush().unwrap();
    assert_eq!(state(&mut pool, 1), State::Faulted);
    drop(pool);
    sims.0[1].clear_errors(0..size);
    write(&mut import_without(&sims, guid, &[0], 5).unwrap(), 3);
    assert_refused(&sims, guid);
}

/// Power failed when only the first disk had the root, and that disk was away for a while.
#[test]
fn a_commit_that_was_cut_off_is_no_history() {
    let sims = Sims::new(3, 64);
    let mut pool = mirror(&sims);
    let guid = pool.guid();
    let txg = |disk: usize| Pool::examine(&*sims.0[disk]).unwrap().unwrap().txg;
    let supply = Arc::new(PowerSupply::new());
    sims.0.iter().for_each(|sim| sim.set_supply(Some(supply.clone())));
    let mut cut = 0;
    while txg(0) == txg(1) {
        cut += 1;
        supply.cut_after(cut);
        let id = pool.open("vol").unwrap();
        let _ = pool.write(id, 0, &noise(2, 65536)).and_then(|()| pool.flush());
        drop(pool);
        sims.0.iter().for_each(|sim| sim.power_cut(Cut::KeepAll));
        supply.restore();
        if txg(0) > txg(1) {
            break;
        }
        pool = import_without(&sims, guid, &[], cut).unwrap();
    }
    assert_eq!(txg(1), txg(2));
    let mut pool = import_without(&sims, guid, &[0], 1000).unwrap();
    // Long enough for the rings of the others to have forgotten that time.
    for round in 3..50 {
        write(&mut pool, round);
    }
    drop(pool);
    let mut pool = import_without(&sims, guid, &[], 1001).unwrap();
    assert!(holds(&mut pool, 49));
    settle(&mut pool);
    assert_sound(&mut pool);
}

/// However often the other disk was imported, and however new its root is.
#[test]
fn an_import_that_changed_nothing_is_no_history() {
    for times in [1, 5] {
        let sims = Sims::new(2, 64);
        let pool = mirror(&sims);
        let guid = pool.guid();
        pool.export().unwrap();
        for time in 0..times {
            import_without(&sims, guid, &[1], 10 + time).unwrap().export().unwrap();
        }
        write(&mut import_without(&sims, guid, &[0], 30).unwrap(), 2);
        let mut pool = import_without(&sims, guid, &[], 31).unwrap();
        assert!(holds(&mut pool, 2), "{times}");
        settle(&mut pool);
        drop(pool);
        assert!(holds(&mut import_without(&sims, guid, &[1], 32).unwrap(), 2));
    }
}

/// A disk that was used apart and has been taken back: going back to the time before it came is no matter of it.
#[test]
fn an_older_root_is_found_beside_a_disk_with_another_history() {
    let sims = Sims::new(2, 64);
    let mut pool = mirror(&sims);
    let guid = pool.guid();
    pool.export().unwrap();
    let mut apart = import_without(&sims, guid, &[1], 5).unwrap();
    (2..12).for_each(|seed| write(&mut apart, seed));
    drop(apart);
    pool = import_without(&sims, guid, &[0], 6).unwrap();
    write(&mut pool, 20);
    let before = pool.last_txg();
    let back = |devices| {
        let to = pool::spec::ImportOptions { txg: Some(before), read_only: true, ..options() };
        Pool::import(&env(7), guid, devices, &to).map(|(pool, _)| pool)
    };
    // The disk apart has a newer root, which says nothing about this one; but what it holds would be lost.
    write(&mut pool, 21);
    let error = back(sims.without(&[])).unwrap_err().to_string();
    assert!(error.contains("used apart"), "{error}");
    assert!(holds(&mut back(sims.without(&[0])).unwrap(), 20));
    let before_return = pool.last_txg();
    assert!(pool.device_returned(&sims.new_device(0)).unwrap());
    drop(pool);
    let to = pool::spec::ImportOptions { txg: Some(before_return), read_only: true, ..options() };
    let (mut pool, _) = Pool::import(&env(8), guid, sims.without(&[]), &to).unwrap();
    assert!(holds(&mut pool, 21));
}

/// Power fails at every moment of going back: then the pool is where it was, or where it was to be, and whole.
#[test]
fn going_back_is_all_or_nothing() {
    let mut cut = 0;
    loop {
        let sims = Sims::new(3, 64);
        let mut pool = mirror(&sims);
        let guid = pool.guid();
        write(&mut pool, 2);
        let to = pool.last_txg();
        write(&mut pool, 3);
        drop(pool);
        let supply = Arc::new(PowerSupply::new());
        sims.0.iter().for_each(|sim| sim.set_supply(Some(supply.clone())));
        supply.cut_after(cut);
        let back = pool::spec::ImportOptions { txg: Some(to), ..options() };
        let done = Pool::import(&env(cut), guid, sims.without(&[]), &back).is_ok();
        let finished = supply.is_on();
        sims.0.iter().enumerate().for_each(|(i, sim)| sim.power_cut(Cut::Random(cut * 7 + i as u64)));
        supply.restore();
        let mut pool = import_without(&sims, guid, &[], 1000 + cut).unwrap();
        assert!(holds(&mut pool, 2) || (!done && holds(&mut pool, 3)), "cut {cut}");
        assert_sound(&mut pool);
        settle(&mut pool);
        pool.export().unwrap();
        let mut pool = import_without(&sims, guid, &[0], 2000 + cut).unwrap();
        assert!(holds(&mut pool, 2) || (!done && holds(&mut pool, 3)), "cut {cut}");
        assert_sound(&mut pool);
        if finished {
            break;
        }
        cut += 1;
    }
    assert!(cut > 20, "{cut}");
}
