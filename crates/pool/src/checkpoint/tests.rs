//! Seen from inside: a destroy that waits for room; and that what an older root knows through its checkpoint alone is not
//! used again too early, for the one commit that an import can make before that root is forgotten hardly ever takes
//! those very nodes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::{Inline, MemoryDevice};
use tree::{Key, NODE_SIZE, walk};

use super::Nodes;
use crate::dataset::DEAD_NODE;
use crate::pool::Pool;
use crate::spec::{CreateSpec, GroupKind, GroupSpec, Host, ImportOptions, NewDevice, VolumeSpec};
use crate::types::{Logical, Millis};
use crate::{Clock, Env, PoolError};

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Millis {
        Millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn env(seed: u64) -> Env {
    Env { clock: Arc::new(TestClock::default()), runner: Arc::new(Inline), seed, cache_bytes: 8 << 20 }
}

/// Places of all nodes that only the checkpoint has.
fn places(pool: &mut Pool) -> BTreeSet<u64> {
    let checkpoint = pool.checkpoint.as_ref().unwrap();
    let roots = [checkpoint.meta_root, checkpoint.held.root()];
    let mut homes = BTreeSet::new();
    checkpoint
        .held
        .scan(&mut pool.core, Key::MIN, Key::MAX, |key, _| {
            homes.extend((key.kind == DEAD_NODE).then_some(key.offset));
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })
        .unwrap();
    assert!(homes.len() > 4, "nodes of the volume are held back");
    for root in roots {
        let mut nodes = Nodes(Vec::new());
        let _ = walk(root, 0, &mut pool.core, &mut nodes).unwrap();
        homes.extend(nodes.0.iter().map(|pointer| pointer.address));
    }
    homes.into_iter().map(|home| pool.core.remaps.place_of(Logical(home)).0).collect()
}

fn free_of(pool: &Pool, places: &BTreeSet<u64>) -> Vec<u64> {
    let is_free = |place: &&u64| {
        let chunk = pool.core.map.at(Logical(**place)).unwrap().address;
        let index = (**place - chunk.0) / NODE_SIZE as u64;
        pool.core.nodes[&chunk].is_free(index..index + 1)
    };
    places.iter().filter(is_free).copied().collect()
}

fn host() -> Host {
    Host { id: 1, name: "here".into() }
}

/// A pool with a volume that was written, kept in a checkpoint, and written again.
fn overwritten(devices: Vec<NewDevice>) -> Pool {
    let spec = CreateSpec {
        name: "tank".into(),
        groups: vec![GroupSpec { kind: GroupKind::Plain, devices }],
        data: None,
        metadata: None,
        properties: Vec::new(),
        command: "create".into(),
    };
    let (mut pool, _) = Pool::create(&env(1), &spec, &host()).unwrap();
    let spec = VolumeSpec { size: 16 << 20, block_size: 4096, sparse: true, properties: Vec::new() };
    pool.volume_create("v", &spec).unwrap();
    let id = pool.open("v").unwrap();
    pool.write(id, 0, &vec![1; 4 << 20]).unwrap();
    pool.checkpoint().unwrap();
    pool.write(id, 0, &vec![2; 4 << 20]).unwrap();
    pool
}

/// Where there is no room for what would be held back, a destroy waits; the discard is what ends that.
#[test]
fn a_destroy_that_is_stuck_waits_for_the_discard() {
    let disk = Arc::new(MemoryDevice::new("d", 64 << 20));
    let mut pool = overwritten(vec![NewDevice::new(disk, "/d".into())]);
    pool.volume_destroy("v").unwrap();
    assert!(pool.has_work());
    assert!(!pool.may_hold(1 << 40), "no pool has so much room");
    assert!(pool.is_stuck() && !pool.has_work());
    assert!(pool.status().jobs[0].contains("is not freed"), "{:?}", pool.status().jobs);
    assert!(!pool.tick(1 << 20).unwrap() && !pool.zombies.is_empty());
    pool.checkpoint_discard().unwrap();
    assert!(!pool.is_stuck() && pool.has_work());
    while pool.tick(1 << 20).unwrap() {}
    let report = pool.check().unwrap();
    assert_eq!((report.problems, report.extents), (Vec::new(), 0));
}

#[test]
fn an_import_keeps_the_checkpoint_of_an_older_root() {
    for back in [false, true] {
        let disk = Arc::new(MemoryDevice::new("d", 64 << 20));
        let device = || vec![NewDevice::new(disk.clone(), "/d".into())];
        let mut pool = overwritten(device());
        let guid = pool.guid();
        // Until nothing follows from the last commit any more.
        (0..6).for_each(|_| pool.flush().unwrap());
        let places = places(&mut pool);
        let older = pool.last_txg();
        let options = ImportOptions { host: host(), ..ImportOptions::default() };
        if back {
            // What it went on with after the rewind frees nodes of the checkpoint, in the same commit.
            drop(pool);
            let options = ImportOptions { checkpoint: true, ..options.clone() };
            pool = Pool::import(&env(2), guid, device(), &options).unwrap().0;
        } else {
            pool.checkpoint_discard().unwrap();
        }
        drop(pool);
        let (pool, _) = Pool::import(&env(3), guid, device(), &options).unwrap();
        assert!(pool.roots.contains(&older), "{older} is to be one of {:?}", pool.roots);
        assert_eq!(free_of(&pool, &places), Vec::<u64>::new(), "of {places:?}");
    }
}
