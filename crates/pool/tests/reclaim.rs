//! Chunks that are hardly used are emptied by themselves.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use pool::report::ScanState;
use pool::spec::{BalanceFilters, BalanceSpec, GroupKind, VolumeSpec};
use pool::{BalanceAction, Pool};

const BLOCK: usize = 128 << 10;

/// A pool that is nearly full, of which all but one block in `kept` was discarded.
fn thinned(disks: &Disks, kind: GroupKind, percent: &str, kept: u64) -> Pool {
    let mut pool = create(&spec(vec![disks.group(kind, 0..3)]));
    pool.set("", "reclaim_data", percent).unwrap();
    let id = volume(&mut pool, "vol", 512 * MIB);
    let blocks = pool.usage().free_estimated * 9 / 10 / BLOCK as u64;
    for block in 0..blocks {
        pool.write(id, block * BLOCK as u64, &noise(block, BLOCK)).unwrap();
    }
    pool.flush().unwrap();
    for block in (0..blocks).filter(|block| block % kept != 0) {
        pool.discard(id, block * BLOCK as u64, BLOCK as u64).unwrap();
    }
    pool.flush().unwrap();
    pool
}

fn let_it(pool: &mut Pool) {
    // Nobody else commits anything.
    let mut idle = 0;
    let mut before = pool.last_txg();
    while idle < 32 {
        pool.tick(1 << 20).unwrap();
        idle = if pool.last_txg() == before { idle + 1 } else { 0 };
        before = pool.last_txg();
    }
    // What was emptied goes with the last root that knows something in it.
    for number in 0..4 {
        pool.set("", "comment", &number.to_string()).unwrap();
    }
}

fn data_chunks(pool: &Pool) -> usize {
    pool.map().iter().filter(|chunk| chunk.class == "Data").count()
}

fn assert_holds(pool: &mut Pool, kept: u64) {
    let id = pool.open("vol").unwrap();
    let blocks = 40;
    for block in 0..blocks {
        let wanted = if block % kept == 0 { noise(block, BLOCK) } else { vec![0; BLOCK] };
        assert!(read(pool, id, block * BLOCK as u64, BLOCK) == wanted, "block {block}");
    }
    assert_sound(pool);
}

#[test]
fn what_was_freed_can_be_allocated_again() {
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1)] {
        let disks = Disks::new(&[128; 3]);
        let mut pool = thinned(&disks, kind, "75", 5);
        let before = data_chunks(&pool);
        let_it(&mut pool);
        let after = data_chunks(&pool);
        // A fifth is left: packed into chunks that are used by a half at least.
        assert!(after * 2 < before, "{kind:?}: {after} of {before} chunks");
        assert_holds(&mut pool, 5);
        let usage = pool.usage();
        let told =
            pool.events(0).iter().filter(|event| event.message.starts_with("reclaiming chunk")).count();
        assert!(told > 0);
        let unallocated = usage.device_unallocated;
        assert!(unallocated * 2 > usage.device_size, "{kind:?}: {usage:?}");
        let guid = pool.guid();
        assert!(pool.export().is_ok());
        let mut pool = import(guid, disks.all());
        let_it(&mut pool);
        assert_holds(&mut pool, 5);
    }
}

#[test]
fn nothing_goes_round_and_nothing_is_done_where_it_is_not_wanted() {
    let disks = Disks::new(&[128; 3]);
    let mut pool = thinned(&disks, GroupKind::Mirror, "0", 5);
    let before = data_chunks(&pool);
    let_it(&mut pool);
    assert_eq!(data_chunks(&pool), before);
    pool.set("", "reclaim_data", "90").unwrap();
    let id = pool.open("vol").unwrap();
    pool.discard(id, 0, BLOCK as u64).unwrap();
    let_it(&mut pool);
    // It comes to rest.
    for _ in 0..40 {
        pool.tick(1 << 20).unwrap();
    }
    let txg = pool.last_txg();
    for _ in 0..20 {
        pool.tick(1 << 20).unwrap();
    }
    assert_eq!(pool.last_txg(), txg);
    for wrong in ["91", "-1", "some"] {
        assert!(pool.set("", "reclaim_data", wrong).unwrap_err().to_string().contains("percent"));
    }
}

#[test]
fn what_a_balance_left_half_way_is_emptied() {
    let disks = Disks::new(&[128; 3]);
    let mut pool = thinned(&disks, GroupKind::Raidz(1), "1", 2);
    pool.balance_start(BalanceSpec { data: Some(BalanceFilters::default()), ..Default::default() }).unwrap();
    pool.tick(64 << 10).unwrap();
    pool.balance_control(BalanceAction::Cancel).unwrap();
    assert_eq!(pool.map().iter().filter(|chunk| chunk.closed).count(), 1);
    let_it(&mut pool);
    assert_eq!(pool.map().iter().filter(|chunk| chunk.closed).count(), 0);
    assert_holds(&mut pool, 2);
}

#[test]
fn what_survives_less_than_new_chunks_is_told_and_relocated() {
    let disks = Disks::new(&[128; 4]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..4)]));
    let id = volume(&mut pool, "vol", 64 * MIB);
    pool.write(id, 0, &noise(1, 24 << 20)).unwrap();
    pool.flush().unwrap();
    let convert = Some(geometry::Profile::Raid1);
    let data = Some(BalanceFilters { convert, limit: Some((0, 1)), ..BalanceFilters::default() });
    pool.balance_start(BalanceSpec { data, ..BalanceSpec::default() }).unwrap();
    settle(&mut pool);
    let profiles = |pool: &Pool| {
        let data = pool.usage().profiles.into_iter().filter(|row| row.class == "Data");
        data.map(|row| row.profile).collect::<Vec<_>>()
    };
    assert_eq!(profiles(&pool), ["RAID1", "single"]);
    assert!(pool.status().status.unwrap().contains("survives fewer failed devices"));
    let_it(&mut pool);
    assert_eq!(profiles(&pool), ["RAID1"]);
    assert_eq!(pool.status().status, None);
    // Without any one of them.
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    for gone in 0..4 {
        let mut pool = import(guid, disks.without(&[gone]));
        let id = pool.open("vol").unwrap();
        assert!(read(&mut pool, id, 0, 24 << 20) == noise(1, 24 << 20), "without {gone}");
        assert_sound(&mut pool);
        assert!(pool.export().is_ok());
        let mut pool = import(guid, disks.all());
        settle(&mut pool);
        assert!(pool.export().is_ok());
    }
}

/// A volume of blocks of a size.
fn volume_of(pool: &mut Pool, name: &str, block: usize) -> pool::types::DatasetId {
    let spec = VolumeSpec { size: 1 << 30, block_size: block as u32, sparse: true, properties: Vec::new() };
    pool.volume_create(name, &spec).unwrap();
    pool.open(name).unwrap()
}

/// Writes blocks until there is no space; how many found room.
fn fill(pool: &mut Pool, id: pool::types::DatasetId, block: usize, seed: u64) -> u64 {
    let mut count = 0;
    while pool.write(id, count * block as u64, &noise(seed + count, block)).is_ok() {
        count += 1;
    }
    pool.flush().unwrap();
    count
}

#[test]
fn before_there_is_no_space_what_was_freed_is_made_room() {
    const SMALL: usize = 16 << 10;
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1)] {
        let disks = Disks::new(&[256; 3]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..3)]));
        // Nobody has time for it beforehand.
        pool.set("", "reclaim_data", "0").unwrap();
        let id = volume_of(&mut pool, "small", SMALL);
        let blocks = fill(&mut pool, id, SMALL, 1000);
        let mut rng = device::rng::Rng::new(5);
        let gone: Vec<u64> = (0..blocks).filter(|_| rng.chance(1, 2)).collect();
        for block in &gone {
            pool.discard(id, block * SMALL as u64, SMALL as u64).unwrap();
        }
        pool.flush().unwrap();
        if kind == GroupKind::Raidz(1) {
            // Rows that are free by half take more than what is free in whole ones to be packed.
            let data = Some(BalanceFilters::default());
            pool.balance_start(BalanceSpec { data, ..BalanceSpec::default() }).unwrap();
            settle(&mut pool);
            let done = pool.balance().unwrap();
            assert_eq!((done.state, done.errors, done.trouble), (ScanState::Finished, 0, None));
        }
        let large = volume_of(&mut pool, "large", BLOCK);
        let again = fill(&mut pool, large, BLOCK, 900_000) * BLOCK as u64;
        let freed = (gone.len() * SMALL) as u64;
        assert!(again * 100 >= freed * 95, "{kind:?}: of {freed} bytes {again} can be had again");
        let gone: std::collections::BTreeSet<u64> = gone.into_iter().collect();
        for block in 0..blocks {
            let wanted = if gone.contains(&block) { vec![0; SMALL] } else { noise(1000 + block, SMALL) };
            assert!(read(&mut pool, id, block * SMALL as u64, SMALL) == wanted, "{kind:?}: block {block}");
        }
        for block in 0..again / BLOCK as u64 {
            let bytes = read(&mut pool, large, block * BLOCK as u64, BLOCK);
            assert!(bytes == noise(900_000 + block, BLOCK), "{kind:?}: large block {block}");
        }
        assert_sound(&mut pool);
        // It can still delete.
        pool.volume_destroy("large").unwrap();
        pool.volume_destroy("small").unwrap();
        settle(&mut pool);
        assert_sound(&mut pool);
    }
}

#[test]
fn what_was_too_short_for_rows_fills_rows_later() {
    const SHORT: usize = 4 << 10;
    let disks = Disks::new(&[128; 5]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..5)]));
    let id = volume_of(&mut pool, "vol", SHORT);
    let in_copies = |pool: &Pool| {
        let rests =
            pool.map().into_iter().filter(|chunk| chunk.class == "Data" && chunk.profile == "RAID1C3");
        rests.map(|chunk| chunk.used).sum::<u64>()
    };
    for block in 0..600 {
        pool.write(id, block * SHORT as u64, &noise(block, SHORT)).unwrap();
        pool.flush().unwrap();
    }
    let before = in_copies(&pool);
    assert_eq!(before, 600 * SHORT as u64);
    let_it(&mut pool);
    let after = in_copies(&pool);
    // The chunk that is being filled stays.
    assert!(after < MIB + (64 << 10), "{after} of {before} bytes are in copies");
    for block in 0..600 {
        assert!(read(&mut pool, id, block * SHORT as u64, SHORT) == noise(block, SHORT), "block {block}");
    }
    assert_sound(&mut pool);
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, disks.without(&[1, 3]));
    for block in 0..600 {
        assert!(read(&mut pool, id, block * SHORT as u64, SHORT) == noise(block, SHORT), "block {block}");
    }
}
