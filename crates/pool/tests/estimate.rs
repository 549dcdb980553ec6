//! What `usage` says can still be written, against what can be: pools of every profile are filled to the last block.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Disks, MIB, create, noise, settle, spec, volume};
use geometry::Profile;
use pool::spec::GroupKind;
use pool::{Pool, PoolError};

const BLOCK: u64 = 16 << 10;

/// How far the estimate may be off, of what fits: too low, and too high, which is what disappoints.
const TOO_LOW: f64 = 0.010;
const TOO_HIGH: f64 = 0.009;
/// Chunks are whole, and on the smallest devices a few of them are more than that, bytes.
const FEW_CHUNKS: f64 = (3 * MIB) as f64;

fn errors(pool: &mut Pool) -> (u64, f64, f64) {
    let id = volume(pool, "vol", 1 << 40);
    let bytes = noise(1, (2 * MIB) as usize);
    let mut told = vec![(0, pool.usage().free_estimated)];
    let mut written = 0;
    // Block by block: of a longer write that does not fit the first part is taken all the same.
    loop {
        let from = (written / 7 % MIB) as usize;
        match pool.write(id, written, &bytes[from..from + BLOCK as usize]) {
            Ok(()) => written += BLOCK,
            Err(error) => {
                assert_eq!(error, PoolError::NoSpace);
                break;
            }
        }
        if written % (8 * MIB) == 0 {
            pool.flush().unwrap();
            told.push((written, pool.usage().free_estimated));
        }
    }
    let off = |&(at, free): &(u64, u64)| ((at + free) as f64 - written as f64) / written as f64;
    let low = told.iter().map(off).fold(0.0, f64::min);
    let high = told.iter().map(off).fold(0.0, f64::max);
    (written, -low, high)
}

/// Fills a pool of every kind on devices of these sizes, MiB; the errors that are too large.
fn wrong(sizes: &[u64]) -> Vec<String> {
    let count = sizes.len();
    let plain = Profile::ALL.map(|profile| (GroupKind::Plain, Some(profile)));
    let groups = [1, 2, 3].map(|parity| (GroupKind::Raidz(parity), None));
    let mut wrong = Vec::new();
    for (kind, data) in plain.into_iter().chain(groups).chain([(GroupKind::Mirror, None)]) {
        let least = match (kind, data) {
            (GroupKind::Raidz(parity), _) => usize::from(parity) + 1,
            (_, Some(Profile::Raid1 | Profile::Raid10 | Profile::Raid5) | None) => 2,
            (_, Some(Profile::Raid1c3 | Profile::Raid6)) => 3,
            (_, Some(Profile::Raid1c4)) => 4,
            _ => 1,
        };
        if count < least {
            continue;
        }
        let disks = Disks::new(sizes);
        let mut spec = spec(vec![disks.group(kind, 0..count)]);
        spec.data = data;
        let (written, low, high) = errors(&mut create(&spec));
        let line = format!(
            "{kind:?} {data:?} on {sizes:?}: {} KiB fit, at worst {:.2} % too low, {:.2} % too high",
            written >> 10,
            low * 100.0,
            high * 100.0
        );
        println!("{line}");
        if low > TOO_LOW.max(FEW_CHUNKS / written as f64) || high > TOO_HIGH {
            wrong.push(line);
        }
    }
    wrong
}

/// What a destroyed volume had is told as free at once, though older roots keep it from being overwritten for a while.
#[test]
fn what_is_given_back_counts() {
    for (kind, data) in [
        (GroupKind::Plain, Some(Profile::Single)),
        (GroupKind::Plain, Some(Profile::Raid5)),
        (GroupKind::Raidz(2), None),
        (GroupKind::Mirror, None),
    ] {
        let disks = Disks::new(&[256; 4]);
        let mut spec = spec(vec![disks.group(kind, 0..4)]);
        spec.data = data;
        let mut pool = create(&spec);
        let before = pool.usage();
        let id = volume(&mut pool, "vol", 1 << 40);
        pool.write(id, 0, &noise(1, (96 * MIB) as usize)).unwrap();
        pool.flush().unwrap();
        pool.volume_destroy("vol").unwrap();
        settle(&mut pool);
        let after = pool.usage();
        let whole = |usage: &pool::report::UsageReport| usage.device_allocated + usage.device_unallocated;
        assert_eq!(whole(&after), whole(&before), "{kind:?} {data:?}");
        let lacking = before.free_estimated.saturating_sub(after.free_estimated);
        assert!(lacking <= before.free_estimated / 100, "{kind:?} {data:?}: {lacking} bytes are not told");
    }
}

#[test]
fn small_pools() {
    let wrong: Vec<String> = [&[128][..], &[64, 64], &[64, 64, 64, 64]].into_iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn equal_devices() {
    let wrong = wrong(&[128; 6]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn mixed_devices() {
    let wrong = wrong(&[64, 128, 128, 256]);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// As large as the pools of the benchmark.
#[test]
#[ignore = "takes minutes"]
fn larger_pools() {
    let wrong: Vec<String> = [&[512; 6][..], &[256, 512, 512, 1024]].into_iter().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
