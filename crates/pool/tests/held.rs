//! A pool that several threads use while its commits run beside them.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::thread;

use common::{Disks, MIB, assert_sound, create, import, noise, options, read, spec, volume};
use device::rng::Rng;
use pool::spec::GroupKind;
use pool::{Held, Pool};

const BLOCK: u64 = 16384;

fn raidz2() -> (Disks, Pool) {
    let disks = Disks::new(&[256; 6]);
    let pool = create(&spec(vec![disks.group(GroupKind::Raidz(2), 0..6)]));
    (disks, pool)
}

#[test]
fn writers_readers_and_flushes_go_on_beside_commits() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 256 * MIB);
    let held = Arc::new(Held::new(pool));
    let committer = {
        let held = Arc::clone(&held);
        thread::spawn(move || held.commit_behind())
    };
    // Each thread has a part of the volume to itself, more than commits by itself, and knows what is in it.
    let part = 48 * MIB;
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let held = Arc::clone(&held);
            thread::spawn(move || {
                let mut rng = Rng::new(index);
                let start = index * part;
                let data = noise(index, (part + BLOCK) as usize);
                let mut salt = vec![None; (part / BLOCK) as usize];
                for round in 0..4000 {
                    let block = if round < part / BLOCK { round } else { rng.below(part / BLOCK) };
                    let shift = rng.below(BLOCK);
                    let bytes = |shift: u64| &data[(block * BLOCK + shift) as usize..][..BLOCK as usize];
                    held.write(held.lock(), id, start + block * BLOCK, bytes(shift)).unwrap().unwrap();
                    salt[block as usize] = Some(shift);
                    if rng.chance(1, 500) {
                        held.flush(held.lock()).unwrap().unwrap();
                    }
                    let looked = rng.below(part / BLOCK);
                    if let Some(shift) = salt[looked as usize] {
                        let mut found = vec![0; BLOCK as usize];
                        let at = start + looked * BLOCK;
                        held.lock().as_mut().unwrap().read(id, at, &mut found).unwrap();
                        assert_eq!(found, &data[(looked * BLOCK + shift) as usize..][..BLOCK as usize]);
                    }
                }
                (start, data, salt)
            })
        })
        .collect();
    // Somebody administers it meanwhile.
    for index in 0..5 {
        held.lock().as_mut().unwrap().snapshot(&format!("v@{index}")).unwrap();
        thread::yield_now();
    }
    let written: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    held.flush(held.lock()).unwrap().unwrap();
    drop(held.take().unwrap());
    committer.join().unwrap();
    assert!(held.write(held.lock(), id, 0, &[1]).is_none());
    // Nothing but what was flushed is there now.
    let mut pool = import(guid, disks.without(&[1, 4]));
    for (start, data, salt) in written {
        for (block, shift) in salt.into_iter().enumerate() {
            let at = block as u64 * BLOCK;
            let expected = &data[(at + shift.unwrap()) as usize..][..BLOCK as usize];
            assert!(
                read(&mut pool, id, start + at, BLOCK as usize) == expected,
                "block {block} from {start}"
            );
        }
    }
    assert_sound(&mut pool);
}

#[test]
fn a_commit_under_way_holds_what_was_accepted_before_it_and_nothing_later() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 64 * MIB);
    let (old, new) = (noise(1, MIB as usize), noise(2, MIB as usize));
    pool.write(id, 0, &old).unwrap();
    let needed = pool.commit_needed();
    let work = pool.begin_commit().unwrap().unwrap();
    assert!(pool.is_committing() && pool.begin_commit().unwrap().is_none());
    pool.write(id, 0, &new).unwrap();
    pool.drop_caches();
    assert_eq!(read(&mut pool, id, 0, MIB as usize), new);
    assert_eq!(pool.commit_needed(), needed + 1);
    assert!(pool.commits_done() < needed);
    let number = work.run();
    pool.finish_commit(number).unwrap();
    assert_eq!(pool.commits_done(), needed);
    // The process ends here.
    drop(pool);
    let mut pool = import(guid, disks.all());
    assert_eq!(read(&mut pool, id, 0, MIB as usize), old);
    assert_sound(&mut pool);
}

#[test]
fn what_can_t_share_a_commit_ends_it_and_unfinished_ones_leave_nothing() {
    let (disks, mut pool) = raidz2();
    let guid = pool.guid();
    let id = volume(&mut pool, "v", 64 * MIB);
    let (old, new) = (noise(3, MIB as usize), noise(4, MIB as usize));
    pool.write(id, 0, &old).unwrap();
    // Nobody does the work: whoever needs it done does it.
    let work = pool.begin_commit().unwrap().unwrap();
    pool.snapshot("v@one").unwrap();
    assert!(!pool.is_committing());
    pool.write(id, 0, &new).unwrap();
    drop(pool.begin_commit().unwrap());
    // Of a commit that was not finished nothing is seen, and work that comes too late does nothing.
    drop(pool);
    work.run();
    let mut pool = Pool::import(&common::env(3), guid, disks.all(), &options()).unwrap().0;
    assert_eq!(read(&mut pool, id, 0, MIB as usize), old);
    assert_sound(&mut pool);
}
