//! Full pools: what was accepted is kept, what is freed comes back, and freeing always finds room.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Disks, MIB, assert_sound, create, import, noise, read, settle, spec};
use device::rng::Rng;
use pool::spec::{GroupKind, VolumeSpec};
use pool::types::DatasetId;
use pool::{Pool, PoolError};

const KIB: u64 = 1 << 10;

fn sparse(pool: &mut Pool, name: &str, block: u64, compression: &str) -> DatasetId {
    let spec = VolumeSpec {
        size: 1 << 40,
        block_size: block as u32,
        sparse: true,
        properties: vec![("compression".into(), compression.into())],
    };
    pool.volume_create(name, &spec).unwrap();
    pool.open(name).unwrap()
}

/// What a block holds: half of them can be compressed.
fn contents(seed: u64, block: u64) -> Vec<u8> {
    let mut bytes = noise(seed, block as usize);
    if seed.is_multiple_of(2) {
        bytes[(block / 4) as usize..].fill(7);
    }
    bytes
}

/// Small and large blocks are overwritten at random, with and without snapshots, flushed at random, until there is no room
/// for anything, again and again.
#[test]
fn what_a_full_pool_accepts_it_keeps() {
    let shapes = [
        (GroupKind::Plain, 3),
        (GroupKind::Mirror, 2),
        (GroupKind::Raidz(1), 5),
        (GroupKind::Raidz(2), 5),
        (GroupKind::Raidz(3), 12),
    ];
    for (number, (kind, count)) in shapes.into_iter().enumerate() {
        let disks = Disks::new(&vec![64; count]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..count)]));
        let guid = pool.guid();
        let mut rng = Rng::new(number as u64);
        let blocks = [4 * KIB, 16 * KIB, 64 * KIB, MIB];
        let compression = ["off", "lz4", "off", "zstd"];
        let mut ids: Vec<DatasetId> =
            (0..4).map(|i| sparse(&mut pool, &format!("v{i}"), blocks[i], compression[i])).collect();
        let mut held: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        // Most of the room is taken by one write after the other.
        let mut at = 0;
        while pool.write(ids[3], (100 + at) * MIB, &contents(2 * at + 1, MIB)).is_ok() {
            held.insert((3, 100 + at), 2 * at + 1);
            at += 1;
        }
        let mut refused = 0;
        for step in 0..900 {
            let which = rng.below(4) as usize;
            let block = rng.below(40);
            let seed = 1 << 20 | step;
            match pool.write(ids[which], block * blocks[which], &contents(seed, blocks[which])) {
                Ok(()) => {
                    held.insert((which, block), seed);
                }
                Err(error) => {
                    assert_eq!(error, PoolError::NoSpace);
                    refused += 1;
                }
            }
            match rng.below(60) {
                0..4 => pool.flush().unwrap(),
                4 => {
                    let _ = pool.snapshot(&format!("v{which}@s"));
                }
                5 => {
                    let _ = pool.snapshot_destroy(&format!("v{which}@s"));
                }
                6..9 => {
                    let first = rng.below(140);
                    pool.discard(ids[which], first * blocks[which], 3 * blocks[which]).unwrap();
                    held.retain(|&(volume, block), _| {
                        volume != which || !(first..first + 3).contains(&block)
                    });
                }
                _ => {}
            }
            if step % 300 == 299 {
                pool.flush().unwrap();
                assert_sound(&mut pool);
                drop(pool);
                pool = import(guid, disks.all());
                ids = (0..4).map(|i| pool.open(&format!("v{i}")).unwrap()).collect();
                for (&(which, block), &seed) in &held {
                    let size = blocks[which];
                    assert!(
                        read(&mut pool, ids[which], block * size, size as usize) == contents(seed, size),
                        "{kind:?}: block {block} of v{which} after step {step}"
                    );
                }
            }
        }
        assert!(refused > 30, "{kind:?}: {refused}");
        // All of it can be given back.
        pool.discard(ids[3], 0, 1 << 40).unwrap();
        for which in 0..4 {
            let _ = pool.snapshot_destroy(&format!("v{which}@s"));
            pool.volume_destroy(&format!("v{which}")).unwrap();
        }
        settle(&mut pool);
        assert_sound(&mut pool);
        let usage = pool.usage();
        let used =
            usage.profiles.iter().filter(|profile| profile.class == "Data").map(|profile| profile.used);
        assert_eq!(used.sum::<u64>(), 0, "{kind:?}");
        pool.export().unwrap();
    }
}

#[test]
fn what_is_reserved_can_be_written_however_full_others_made_the_pool() {
    for (kind, sizes) in [
        (GroupKind::Plain, &[128][..]),
        (GroupKind::Mirror, &[128, 128]),
        (GroupKind::Raidz(1), &[128, 128, 128]),
        (GroupKind::Raidz(2), &[96, 96, 96, 96, 96]),
    ] {
        let disks = Disks::new(sizes);
        let mut pool = create(&spec(vec![disks.group(kind, 0..sizes.len())]));
        let reserved =
            VolumeSpec { size: 40 * MIB, block_size: 16384, sparse: false, properties: Vec::new() };
        pool.volume_create("keep", &reserved).unwrap();
        for (name, block_size) in [("small", 4096), ("large", 131_072)] {
            let spec = VolumeSpec { size: 1 << 30, block_size, sparse: true, properties: Vec::new() };
            pool.volume_create(name, &spec).unwrap();
            let id = pool.open(name).unwrap();
            let most = if name == "small" { 20 * MIB } else { 1 << 30 };
            let data = noise(9, MIB as usize);
            let mut at = 0;
            while at < most && pool.write(id, at, &data).is_ok() {
                at += MIB;
            }
            pool.flush().unwrap();
        }
        // The last resort of others, too.
        let small = pool.open("small").unwrap();
        let mut at = 20 * MIB;
        while pool.write(small, at, &noise(10, 4096)).is_ok() {
            at += 4096;
        }
        pool.flush().unwrap();
        let keep = pool.open("keep").unwrap();
        for index in 0..40 {
            let written = pool.write(keep, index * MIB, &noise(index, MIB as usize));
            assert!(written.is_ok(), "{kind:?}: {written:?} after {index} of 40 MiB");
        }
        pool.flush().unwrap();
        assert_sound(&mut pool);
    }
}
