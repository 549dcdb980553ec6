//! Seeds that found defects of the engine, each with its story, and that equal seeds are equal runs.
//!
//! Seeds below 500,000 are those of [`Program::first`], whose weights stay; later ones are kept as text in
//! `tests/programs`. What a step does with its own seed may still change; each story therefore names the defect, and the
//! crash states, n-th faults and fresh seeds of every test run cover the same ground.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use sim::program::Program;
use sim::run::run;

fn passes(seed: u64) {
    let outcome = run(&Program::first(seed, 150), None, false);
    assert_eq!(outcome.failure, None, "seed {seed}");
}

/// A session's end was taken to be its beginning, so a crash in the first commit of an import made the pool
/// unimportable (5, 14, 17, 23, 25).
#[test]
fn sessions_end_where_their_last_root_is() {
    [5, 14, 17, 23, 25].into_iter().for_each(passes);
}

/// A spare that vanished while the uberblock was written suspended the pool (24, 41).
#[test]
fn a_lost_spare_suspends_nothing() {
    [24, 41].into_iter().for_each(passes);
}

/// The record of a snapshot that was being destroyed named a tree of freed nodes (29, 43, 44).
#[test]
fn destroyed_snapshots_have_no_tree() {
    [29, 43, 44].into_iter().for_each(passes);
}

/// A spare beside a disk with two copies got one of them for good (47).
#[test]
fn a_spare_keeps_nothing() {
    passes(47);
}

/// Devices of an added group had no labels when a root named them (166, 517), and devices of a group that never was
/// were taken for others of the same number (3380).
#[test]
fn devices_join_whole_or_not_at_all() {
    [166, 517, 3380].into_iter().for_each(passes);
}

/// A replacement was filled from a wrong copy (114), parity was blamed for dead bytes (302), and a healed extent took
/// stale bytes along (117, 1312, 1644).
#[test]
fn replacements_are_filled_with_what_is_right() {
    [114, 117, 302, 1312, 1644].into_iter().for_each(passes);
}

/// A replacement took dead bytes over that had rotted, and parity, which knew better, was left as it was: it gave
/// wrong bytes for other columns of the row (200711), or was blamed (202194).
#[test]
fn rows_agree_after_a_resilver() {
    [200_711, 202_194].into_iter().for_each(passes);
}

/// A rotten copy beside a stale one hid the good one of striped mirrors (201699).
#[test]
fn one_good_copy_is_found_among_bad_and_stale_ones() {
    passes(201_699);
}

/// A disk that was used as a pool of its own had the newer root, and the others were resilvered from it (21, 280,
/// 300955, 301814).
#[test]
fn a_disk_with_another_history_does_not_win() {
    [21, 280, 300_955, 301_814].into_iter().for_each(passes);
}

/// A root that a power cut had left on one disk, and one that belonged to a disk with another history, kept a pool or
/// its older roots from being imported (400050, 400078, 400188, 400208, 300543).
#[test]
fn a_history_is_what_was_acknowledged() {
    [400_050, 400_078, 400_188, 400_208, 300_543].into_iter().for_each(passes);
}

/// A disk that was offline, taken away and brought back was brought online by the handle that it had had before (402414).
#[test]
fn a_disk_is_online_as_it_is_now() {
    passes(402_414);
}

/// Programs that found a defect, as they were when they had been made short; the first line of each tells which.
#[test]
fn kept_programs_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let program: Program = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(run(&program, None, false).failure, None, "{}", path.display());
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    for seed in [1, 2, 3] {
        let (one, two) = (run(&Program::new(seed, 80), None, true), run(&Program::new(seed, 80), None, true));
        assert!(one.lines.len() > 100, "{}", one.lines.len());
        let different = one.lines.iter().zip(&two.lines).find(|(a, b)| a != b);
        assert_eq!(different, None, "seed {seed}");
        assert_eq!((one.digest, one.lines.len()), (two.digest, two.lines.len()), "seed {seed}");
    }
    let other = run(&Program::new(4, 80), None, false);
    assert_ne!(other.digest, run(&Program::new(1, 80), None, false).digest);
}

#[test]
fn crash_states_of_short_programs_are_survived() {
    let count = sim::states::crash_states(2000, 7).unwrap();
    assert!(count.states >= 2000, "{count:?}");
}

#[test]
fn a_sample_of_erasures_is_borne() {
    assert!(sim::erasure::all_erasures(24, Some(1), 3).unwrap() > 100);
}

#[test]
fn a_sample_of_faults_is_borne() {
    assert!(sim::nth::every_fault(13).unwrap() > 100);
}

/// One defect of each kind; `sim --sabotage-all` tries all of them.
#[test]
fn sabotage_is_seen() {
    let names = [
        "uberblock-first",
        "lose-deadlist-entry",
        "forget-snapshot",
        "forget-checkpoint",
        "swap-columns",
        "no-repair",
    ];
    for name in names {
        assert!(sim::sabotage::caught_by(name, 1, 20, 150).is_some(), "{name}");
    }
}

#[test]
fn raid_sets_keep_what_they_promise() {
    for seed in 0..100 {
        assert_eq!(sim::raid::run(&sim::raid::Program::new(seed, 150), false).failure, None, "seed {seed}");
    }
}

/// RAID sets of every shape, with and without journal, opened again in each of the three ways.
#[test]
fn raid_sets_of_all_shapes_keep_what_they_promise() {
    let seeds = std::env::var("RAID_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(4);
    let mut tally = sim::run::Tally::default();
    let mut programs = 0;
    let levels = std::env::var("RAID_LEVELS").unwrap_or_default();
    let wanted = |program: &sim::raid::Program| levels.is_empty() || levels.contains(program.level.letter());
    for program in (0..seeds).flat_map(|seed| sim::raid::Program::shapes(seed, 150)).filter(wanted) {
        let outcome = sim::raid::run(&program, false);
        assert_eq!(outcome.failure, None, "{program}");
        tally.merge(&outcome.tally);
        programs += 1;
    }
    let count = |what: &str| tally.counts.get(what).map_or(0, |counts| counts.0);
    assert!(count("raid power cut") > 2 * programs && count("raid opened by a file") > programs, "{tally:?}");
}

/// Programs on RAID sets that found a defect, made short; the first line of each tells which.
#[test]
fn kept_raid_programs_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/raid-programs");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let program: sim::raid::Program = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(sim::raid::run(&program, false).failure, None, "{}", path.display());
    }
}

/// A set that has no journal loses what one with a journal must keep.
#[test]
fn a_missing_journal_is_seen() {
    let programs = (0..100).map(|seed| sim::raid::Program::new(seed, 150)).filter(|program| program.journal);
    let outcomes = programs.map(|program| {
        let program = sim::raid::Program { sabotaged: true, ..program };
        sim::raid::run(&program, false).failure.is_some()
    });
    let seen: Vec<bool> = outcomes.collect();
    let caught = seen.iter().filter(|caught| **caught).count();
    assert!(caught * 2 > seen.len(), "{caught} of {}", seen.len());
}

/// A long run takes no more and more memory: when a pool and its world are dropped, nothing holds their disks.
#[test]
fn a_run_that_is_over_leaves_nothing_behind() {
    for seed in 7_000_000..7_000_010 {
        let program = Program::new(seed, 60);
        let mut run = sim::run::Run::new(&program.setup, program.seed, None, false).unwrap();
        let mut disks = Vec::new();
        for step in program.steps {
            run.step(step).unwrap();
            disks.extend(run.world.disks.iter().map(|disk| Arc::downgrade(&disk.device)));
        }
        drop(run);
        assert!(disks.iter().all(|disk| disk.upgrade().is_none()), "seed {seed}");
    }
}
