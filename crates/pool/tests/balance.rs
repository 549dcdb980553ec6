//! Balance: everything can be relocated, into any profile, and nothing notices.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::*;
use geometry::Profile;
use pool::Pool;
use pool::report::ScanState;
use pool::spec::{BalanceFilters, BalanceSpec, CreateSpec, GroupKind};
use pool::types::DatasetId;

fn all() -> BalanceFilters {
    BalanceFilters::default()
}

fn to(profile: Profile) -> BalanceFilters {
    BalanceFilters { convert: Some(profile), ..all() }
}

fn everything() -> BalanceSpec {
    BalanceSpec { data: Some(all()), metadata: Some(all()), ..BalanceSpec::default() }
}

/// A volume with a snapshot, overwritten and with holes: what each must read as.
struct Filled {
    volume: Vec<u8>,
    snapshot: Vec<u8>,
}

const SIZE: usize = 12 << 20;

impl Filled {
    fn new(pool: &mut Pool, seed: u64) -> Self {
        let id = volume(pool, "vol", 64 * MIB);
        let mut bytes = noise(seed, SIZE);
        pool.write(id, 0, &bytes).unwrap();
        pool.snapshot("vol@before").unwrap();
        let snapshot = bytes.clone();
        for turn in 0..40usize {
            let at = turn * 311_296 % (SIZE - 20_000);
            let piece = noise(seed + turn as u64, 20_000);
            pool.write(id, at as u64, &piece).unwrap();
            bytes[at..at + piece.len()].copy_from_slice(&piece);
        }
        pool.discard(id, 5 * MIB, MIB).unwrap();
        bytes[5 << 20..6 << 20].fill(0);
        pool.flush().unwrap();
        Self { volume: bytes, snapshot }
    }

    fn assert_there(&self, pool: &mut Pool, when: &str) {
        for (name, bytes) in [("vol", &self.volume), ("vol@before", &self.snapshot)] {
            let id: DatasetId = pool.open(name).unwrap();
            assert!(read(pool, id, 0, SIZE) == *bytes, "{name} {when}");
        }
    }
}

fn balanced(pool: &mut Pool, spec: BalanceSpec) {
    pool.balance_start(spec).unwrap();
    settle(pool);
    let report = pool.balance().unwrap();
    assert_eq!((report.state, &report.trouble, report.errors), (ScanState::Finished, &None, 0));
    assert_eq!(report.considered, report.chunks);
    // A chunk that others were packed into may be too full by the time it is looked at.
    assert!(report.completed <= report.expected, "{report:?}");
}

/// Writes enough small groups that what older roots knew is let go.
fn let_go(pool: &mut Pool) {
    for turn in 0..4 {
        pool.set("", "comment", &format!("{turn}")).unwrap();
    }
}

#[test]
fn every_kind_of_group_is_balanced_whole_twice_and_read_after_an_import() {
    for kind in [GroupKind::Plain, GroupKind::Mirror, GroupKind::Raidz(1), GroupKind::Raidz(3)] {
        let disks = Disks::new(&[96, 80, 96, 80, 96]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..5)]));
        let filled = Filled::new(&mut pool, 7);
        for turn in 0..2 {
            let before: Vec<_> = pool.map().into_iter().map(|chunk| chunk.address).collect();
            balanced(&mut pool, everything());
            let_go(&mut pool);
            filled.assert_there(&mut pool, "balanced");
            assert_sound(&mut pool);
            let kept = pool.map().into_iter().filter(|chunk| before.contains(&chunk.address)).count();
            assert_eq!(kept, 0, "{kind:?} {turn}: old chunks are gone");
            pool.drop_caches();
            filled.assert_there(&mut pool, "from the devices");
            let guid = pool.guid();
            // As after a crash, too.
            drop(pool);
            pool = import(guid, disks.all());
            filled.assert_there(&mut pool, "imported");
            assert_sound(&mut pool);
        }
        // With everything gone no entry is left.
        pool.snapshot_destroy("vol@before").unwrap();
        settle(&mut pool);
        pool.volume_destroy("vol").unwrap();
        settle(&mut pool);
        assert_sound(&mut pool);
        assert!(pool.relocated().iter().all(|run| run.class != "Data"), "{kind:?}");
    }
}

#[test]
fn data_is_converted_between_any_two_profiles() {
    for from in Profile::ALL {
        let disks = Disks::new(&[128, 96, 128, 96, 128]);
        let created = CreateSpec { data: Some(from), ..spec(vec![disks.group(GroupKind::Plain, 0..5)]) };
        let mut pool = create(&created);
        let filled = Filled::new(&mut pool, 9);
        for target in Profile::ALL {
            let spec = BalanceSpec { data: Some(to(target)), force: true, ..BalanceSpec::default() };
            balanced(&mut pool, spec);
            let_go(&mut pool);
            filled.assert_there(&mut pool, "converted");
            let profiles: std::collections::BTreeSet<String> = pool
                .usage()
                .profiles
                .into_iter()
                .filter(|profile| profile.class == "Data")
                .map(|profile| profile.profile.to_lowercase())
                // What is too little for a row is kept in copies.
                .filter(|name| target != Profile::Raid5 || name != "raid1")
                .filter(|name| target != Profile::Raid6 || name != "raid1c3")
                .collect();
            assert_eq!(profiles.into_iter().collect::<Vec<_>>(), [target.name()], "{from} to {target}");
        }
        assert_sound(&mut pool);
        let guid = pool.guid();
        drop(pool);
        let mut pool = import(guid, disks.all());
        filled.assert_there(&mut pool, "imported");
        assert_sound(&mut pool);
    }
}

#[test]
fn metadata_is_converted_system_included() {
    let disks = Disks::new(&[96, 96, 96, 96]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..4)]));
    let filled = Filled::new(&mut pool, 11);
    for target in [Profile::Raid1c4, Profile::Dup, Profile::Raid10, Profile::Single, Profile::Raid1c3] {
        let spec = BalanceSpec { metadata: Some(to(target)), force: true, ..BalanceSpec::default() };
        balanced(&mut pool, spec);
        let_go(&mut pool);
        filled.assert_there(&mut pool, "converted");
        assert_sound(&mut pool);
        for profile in pool.usage().profiles.into_iter().filter(|profile| profile.class != "Data") {
            assert_eq!(profile.profile.to_lowercase(), target.name(), "{}", profile.class);
        }
    }
}

#[test]
fn a_balance_goes_on_where_it_was_and_what_is_overwritten_meanwhile_stays_right() {
    let disks = Disks::new(&[96, 96, 96]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Raidz(1), 0..3)]));
    let mut filled = Filled::new(&mut pool, 13);
    pool.balance_start(everything()).unwrap();
    let mut steps = 0;
    let mut more = true;
    while more {
        more = pool.tick(1 << 18).unwrap();
        steps += 1;
        let id = pool.open("vol").unwrap();
        let at = steps * 77_824 % (SIZE - 9_000);
        let piece = noise(1000 + steps as u64, 9_000);
        pool.write(id, at as u64, &piece).unwrap();
        filled.volume[at..at + piece.len()].copy_from_slice(&piece);
        if steps % 5 == 0 {
            pool.flush().unwrap();
            let guid = pool.guid();
            drop(pool);
            pool = import(guid, disks.all());
            assert_sound(&mut pool);
        }
        assert!(steps < 10_000);
    }
    assert!(steps > 20, "{steps} steps");
    assert_eq!(pool.balance().unwrap().state, ScanState::Finished);
    pool.drop_caches();
    filled.assert_there(&mut pool, "at the end");
    assert_sound(&mut pool);
}

#[test]
fn filters_choose_and_contradictions_are_refused() {
    let disks = Disks::new(&[96, 96, 96]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..3)]));
    let filled = Filled::new(&mut pool, 17);
    let chunks = |pool: &Pool, filters: BalanceFilters| {
        let spec = BalanceSpec { data: Some(filters), ..BalanceSpec::default() };
        pool.plan_balance(&spec).map(|plan| plan.classes[0].chunks)
    };
    let count = pool.map().into_iter().filter(|chunk| chunk.class == "Data").count() as u64;
    assert!(count > 1);
    assert_eq!(chunks(&pool, all()).unwrap(), count);
    let name = |name: &str| BalanceFilters { profiles: vec![name.to_owned()], ..all() };
    assert_eq!(chunks(&pool, name("single")).unwrap(), count);
    assert_eq!(chunks(&pool, name("raid1")).unwrap(), 0);
    assert_eq!(chunks(&pool, BalanceFilters { usage: Some((0, 0)), ..all() }).unwrap(), 0);
    assert_eq!(chunks(&pool, BalanceFilters { usage: Some((0, 100)), ..all() }).unwrap(), count);
    assert_eq!(chunks(&pool, BalanceFilters { limit: Some((0, 1)), ..all() }).unwrap(), 1);
    assert_eq!(chunks(&pool, BalanceFilters { limit: Some((99, 100)), ..all() }).unwrap(), 0);
    assert_eq!(chunks(&pool, BalanceFilters { stripes: Some((2, 9)), ..all() }).unwrap(), 0);
    let on: u64 = (1..=3).map(|id| chunks(&pool, BalanceFilters { devid: Some(id), ..all() }).unwrap()).sum();
    assert_eq!(on, count);
    let soft = BalanceFilters { soft: true, ..to(Profile::Single) };
    assert_eq!(chunks(&pool, soft).unwrap(), 0);
    let bad = [
        BalanceFilters { usage: Some((60, 40)), ..all() },
        BalanceFilters { usage: Some((0, 101)), ..all() },
        BalanceFilters { devid: Some(9), ..all() },
        BalanceFilters { drange: Some((0, 1)), ..all() },
        BalanceFilters { vrange: Some((5, 5)), ..all() },
        BalanceFilters { soft: true, ..all() },
        BalanceFilters { limit: Some((0, 0)), ..all() },
        to(Profile::Raid1c4),
    ];
    for filters in bad {
        assert!(chunks(&pool, filters.clone()).is_err(), "{filters:?}");
    }
    let weaker = BalanceSpec { metadata: Some(to(Profile::Single)), ..BalanceSpec::default() };
    let refused = pool.balance_start(weaker).unwrap_err().to_string();
    assert!(refused.contains("integrity") && refused.contains("-f"), "{refused}");
    assert!(pool.balance_start(BalanceSpec::default()).is_err());
    assert!(pool.balance().is_none());
    filled.assert_there(&mut pool, "at the end");
}

#[test]
fn a_pool_without_unallocated_space_is_balanced() {
    let disks = Disks::new(&[64, 64, 64]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Plain, 0..3)]));
    let id = volume(&mut pool, "vol", 256 * MIB);
    let mut written = 0;
    while pool.write(id, written, &noise(written, 1 << 20)).is_ok() {
        written += MIB;
    }
    pool.flush().unwrap();
    // Every other block is given back: chunks are half empty, and nothing is unallocated.
    for at in (0..written).step_by(32 << 10) {
        pool.discard(id, at, 16 << 10).unwrap();
    }
    pool.flush().unwrap();
    let_go(&mut pool);
    let before = pool.usage();
    let spec = BalanceSpec {
        data: Some(BalanceFilters { usage: Some((0, 90)), ..all() }),
        ..BalanceSpec::default()
    };
    balanced(&mut pool, spec);
    let_go(&mut pool);
    let after = pool.usage();
    assert!(
        after.device_unallocated > before.device_unallocated + 40 * MIB,
        "{} MiB, before {} MiB",
        after.device_unallocated >> 20,
        before.device_unallocated >> 20
    );
    assert_sound(&mut pool);
    for at in (0..written).step_by(MIB as usize) {
        let expected = noise(at, 1 << 20);
        let found = read(&mut pool, id, at, 1 << 20);
        for piece in (0..1usize << 20).step_by(32 << 10) {
            assert!(found[piece..piece + (16 << 10)].iter().all(|&byte| byte == 0));
            let rest = piece + (16 << 10)..piece + (32 << 10);
            assert!(found[rest.clone()] == expected[rest]);
        }
    }
}
