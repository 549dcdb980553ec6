//! What a removal takes moves as it is, where the layout allows that: addresses stay.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::*;
use device::BlockDevice as _;
use geometry::Profile;
use pool::report::{ChunkReport, ScanState};
use pool::spec::{DraidWord, GroupKind};
use pool::types::Logical;
use pool::{BalanceAction, Pool};

const LEAVING: &str = "/disks/d2";

/// Chunks of data with anything on a device, that are full by a quarter at least.
fn full_chunks(pool: &mut Pool, name: &str) -> BTreeMap<Logical, ChunkReport> {
    let map = pool.map().into_iter();
    let taken = map.filter(|chunk| chunk.placements.iter().any(|place| place.name == name));
    taken
        .filter(|chunk| chunk.class == "Data" && chunk.used * 4 >= chunk.length)
        .map(|chunk| (chunk.address, chunk))
        .collect()
}

/// Where the columns of a chunk are.
fn homes(chunk: &ChunkReport) -> Vec<&str> {
    chunk.placements.iter().map(|place| place.name.as_str()).collect()
}

fn assert_not_doubled(pool: &mut Pool) {
    for chunk in pool.map() {
        let mut columns: Vec<_> = chunk.placements.iter().map(|place| place.column).collect();
        columns.dedup();
        assert_eq!(columns.len(), chunk.placements.len(), "{chunk:?}");
    }
}

fn plain(profile: Profile) -> (Disks, Pool) {
    let disks = Disks::new(&[96, 96, 112, 96, 128]);
    let mut spec = spec(vec![disks.group(GroupKind::Plain, 0..5)]);
    spec.data = Some(profile);
    let pool = filled(&spec);
    (disks, pool)
}

#[test]
fn columns_move_as_they_are_and_addresses_stay() {
    let draid = "draid1:2d".parse::<DraidWord>().unwrap().of(6).unwrap();
    let disks = Disks::new(&[96; 6]);
    let spread = filled(&spec(vec![disks.group(GroupKind::Draid(draid), 0..6)]));
    let profiles = [Profile::Single, Profile::Dup, Profile::Raid1, Profile::Raid1c3];
    let pools = profiles.map(|profile| (profile.to_string(), plain(profile)));
    for (what, (disks, mut pool)) in pools.into_iter().chain([("draid".to_owned(), (disks, spread))]) {
        let before = full_chunks(&mut pool, LEAVING);
        assert!(!before.is_empty(), "{what}: nothing is there to move");
        pool.remove(&[LEAVING.to_owned()]).unwrap();
        settle(&mut pool);
        let done = pool.balance().unwrap();
        assert_eq!((done.state, done.errors, done.trouble), (ScanState::Finished, 0, None), "{what}");
        assert_eq!(done.done, done.total, "{what}");
        let after: BTreeMap<Logical, ChunkReport> =
            pool.map().into_iter().map(|chunk| (chunk.address, chunk)).collect();
        for (address, chunk) in &before {
            let moved = after.get(address).unwrap_or_else(|| panic!("{what}: chunk {address} is gone"));
            assert!(!moved.closed && moved.used == chunk.used && moved.profile == chunk.profile, "{what}");
            let (old, new) = (homes(chunk), homes(moved));
            for (old, new) in old.iter().zip(&new) {
                assert!(if *old == LEAVING { new != old } else { new == old }, "{what}: {chunk:?} {moved:?}");
            }
        }
        assert_not_doubled(&mut pool);
        assert_holds(&mut pool, &what);
        let guid = pool.guid();
        assert!(pool.export().is_ok());
        assert_holds(&mut import(guid, disks.without(&[2])), &what);
    }
}

#[test]
fn a_move_that_is_given_up_leaves_one_home_to_each_column() {
    let (disks, mut pool) = plain(Profile::Raid1);
    let before = full_chunks(&mut pool, LEAVING);
    pool.remove(&[LEAVING.to_owned()]).unwrap();
    let is_doubled = |pool: &mut Pool| {
        let doubled = |chunk: &ChunkReport| chunk.placements.len() == 3;
        pool.map().iter().any(doubled)
    };
    while !is_doubled(&mut pool) {
        assert!(pool.tick(128 << 10).unwrap());
    }
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, disks.all());
    assert!(is_doubled(&mut pool));
    pool.balance_control(BalanceAction::Cancel).unwrap();
    settle(&mut pool);
    assert_not_doubled(&mut pool);
    let after = full_chunks(&mut pool, LEAVING);
    assert!(before.keys().all(|address| after.contains_key(address)), "something went all the same");
    assert_holds(&mut pool, "after it was given up");
}

/// What can't be read keeps its device, and the rest of its chunk goes.
#[test]
fn what_can_t_be_read_stays_with_its_device() {
    let (disks, mut pool) = plain(Profile::Single);
    let before = full_chunks(&mut pool, LEAVING);
    let chunk = before.values().next().unwrap();
    pool.flush().unwrap();
    let rotten = &disks.0[2];
    rotten.write(chunk.placements[0].offset + (1 << 20), &noise(77, 4096)).unwrap();
    pool.remove(&[LEAVING.to_owned()]).unwrap();
    settle(&mut pool);
    let done = pool.balance().unwrap();
    assert_eq!((done.state, done.errors), (ScanState::Canceled, 1));
    assert_eq!(pool.device_paths().len(), 5);
    assert_not_doubled(&mut pool);
    assert_eq!(pool.status().data_errors, 1);
    for chunk in pool.map().iter().filter(|chunk| homes(chunk).contains(&LEAVING)) {
        assert!(chunk.class != "Data" || chunk.used <= 128 << 10, "{chunk:?}");
    }
}
