//! What administrators do to devices, and what is refused: groups, attach and detach, spares, replace, growth, usage.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use common::*;
use geometry::Profile;
use pool::report::State;
use pool::spec::{CreateSpec, GroupKind};
use pool::{Pool, PoolError, ReplaceOptions, ScrubAction};
use sims::{Sims, state};

fn refusal<T>(outcome: Result<T, PoolError>) -> String {
    match outcome {
        Err(PoolError::Refused(sentence)) => sentence,
        Err(other) => panic!("refused in another way: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn filled(spec: &CreateSpec, bytes: u64) -> Pool {
    let mut pool = create(spec);
    let id = volume(&mut pool, "vol", 32 * MIB);
    pool.write(id, 0, &noise(1, bytes as usize)).unwrap();
    pool.flush().unwrap();
    pool
}

fn assert_holds(pool: &mut Pool, bytes: u64) {
    pool.drop_caches();
    let id = pool.open("vol").unwrap();
    assert!(read(pool, id, 0, bytes as usize) == noise(1, bytes as usize));
}

#[test]
fn groups_have_least_numbers_of_devices() {
    let disks = Disks::new(&[64; 10]);
    for (kind, least) in
        [(GroupKind::Mirror, 2), (GroupKind::Raidz(1), 2), (GroupKind::Raidz(2), 3), (GroupKind::Raidz(3), 4)]
    {
        let few = spec(vec![disks.group(kind, 0..least - 1)]);
        let sentence = refusal(Pool::plan_create(&few));
        assert!(sentence.contains(&format!("at least {least} devices, {} given", least - 1)), "{sentence}");
        Pool::plan_create(&spec(vec![disks.group(kind, 0..least)])).unwrap();
    }
    let only_spares = spec(vec![disks.group(GroupKind::Spare, 0..2)]);
    assert!(refusal(Pool::plan_create(&only_spares)).contains("not a spare"));
    let small = Disks::new(&[64, 63]);
    let sentence = refusal(Pool::plan_create(&spec(vec![small.group(GroupKind::Mirror, 0..2)])));
    assert!(sentence.contains("/disks/d1 is too small"), "{sentence}");
    let twice = spec(vec![disks.group(GroupKind::Mirror, [0, 1, 0])]);
    assert!(refusal(Pool::plan_create(&twice)).contains("/disks/d0 is given twice"));
}

#[test]
fn widths_and_sizes_that_are_not_ideal_are_told() {
    let disks = Disks::new(&[64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 96]);
    let notices = |kind, which: std::ops::Range<usize>| {
        Pool::plan_create(&spec(vec![disks.group(kind, which)])).unwrap().notices
    };
    let ideal = notices(GroupKind::Raidz(1), 0..9);
    assert!(
        ideal.len() == 1 && ideal[0].contains("9 of 9 devices are files: they are only as safe"),
        "{ideal:?}"
    );
    assert!(notices(GroupKind::Plain, 0..2)[0].contains("will not survive the loss of a disk"));
    assert!(notices(GroupKind::Raidz(2), 0..10)[0].contains("works best with 3 to 9 devices, 10 given"));
    assert!(notices(GroupKind::Raidz(1), 6..11)[0].contains("different sizes"));
    assert!(notices(GroupKind::Mirror, 9..11)[0].contains("holds as much as the smallest"));
}

#[test]
fn profiles_are_for_plain_disks_that_satisfy_them() {
    let disks = Disks::new(&[64; 4]);
    let with = |kind, which: std::ops::Range<usize>, data, metadata| {
        Pool::plan_create(&CreateSpec { data, metadata, ..spec(vec![disks.group(kind, which)]) })
    };
    assert!(refusal(with(GroupKind::Mirror, 0..2, Some(Profile::Raid1), None)).contains("plain disks"));
    assert!(
        refusal(with(GroupKind::Plain, 0..2, Some(Profile::Raid6), None))
            .contains("at least 3 plain disks, 2 given")
    );
    assert!(refusal(with(GroupKind::Plain, 0..4, None, Some(Profile::Raid6))).contains("raid1c3"));
    with(GroupKind::Plain, 0..4, Some(Profile::Raid6), Some(Profile::Raid1c3)).unwrap();
}

/// A mirror of N holds one disk's worth and survives N-1 losses; a raidz holds N-P disks' worth and survives P.
#[test]
fn capacity_and_tolerance_of_groups() {
    for (kind, disks_worth, losses) in [
        (GroupKind::Mirror, 1, 3),
        (GroupKind::Raidz(1), 3, 1),
        (GroupKind::Raidz(2), 2, 2),
        (GroupKind::Raidz(3), 1, 3),
    ] {
        let disks = Disks::new(&[128; 4]);
        let mut pool = filled(&spec(vec![disks.group(kind, 0..4)]), 8 * MIB);
        let free = pool.usage().free_estimated + 8 * MIB;
        let ideal = disks_worth * 128 * MIB;
        assert!(free > ideal * 85 / 100 && free <= ideal, "{kind:?}: {} of {} MiB", free / MIB, ideal / MIB);
        let guid = pool.guid();
        pool.flush().unwrap();
        drop(pool);
        let gone: Vec<usize> = (0..losses).collect();
        let mut pool = import(guid, disks.without(&gone));
        assert_holds(&mut pool, 8 * MIB);
        drop(pool);
        let gone: Vec<usize> = (0..=losses).collect();
        assert!(
            Pool::import(&env(3), guid, disks.without(&gone), &options()).is_err(),
            "{kind:?} without {gone:?}"
        );
    }
}

#[test]
fn new_vdevs_get_their_part_of_new_data() {
    let disks = Disks::new(&[64; 6]);
    let groups = vec![disks.group(GroupKind::Mirror, 0..2), disks.group(GroupKind::Mirror, 2..4)];
    let mut pool = filled(&spec(groups), 24 * MIB);
    let on = |pool: &Pool, group: &str| -> u64 {
        pool.map()
            .iter()
            .filter(|chunk| chunk.class == "Data" && chunk.group == group)
            .map(|chunk| chunk.used)
            .sum()
    };
    for group in ["mirror-0", "mirror-1"] {
        assert!(on(&pool, group) > 6 * MIB, "{group} holds {}", on(&pool, group));
    }
    pool.add(&[disks.group(GroupKind::Mirror, 4..6)], false).unwrap();
    let id = pool.open("vol").unwrap();
    pool.write(id, 24 * MIB, &noise(2, 8 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    assert!(on(&pool, "mirror-2") >= 4 * MIB, "mirror-2 holds {}", on(&pool, "mirror-2"));
    assert_holds(&mut pool, 24 * MIB);
}

/// What `create` refuses to put in one pool without `-f`, `add` refuses in the same words.
#[test]
fn new_vdevs_survive_what_the_others_do() {
    let disks = Disks::new(&[64; 2]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..2)]));
    let new = Disks::new(&[64; 3]);
    for (kind, count, name) in [
        (GroupKind::Plain, 1, "plain disk"),
        (GroupKind::Mirror, 3, "3-way mirror"),
        (GroupKind::Raidz(1), 2, "2-wide raidz1"),
        (GroupKind::Raidz(2), 3, "3-wide raidz2"),
    ] {
        let groups = [new.group(kind, 0..count)];
        let wanted = format!(
            "mismatched replication level: 2-way mirror and {name} vdevs in one pool; use '-f' to override"
        );
        assert_eq!(refusal(pool.plan_add(&groups, false)), wanted);
        assert_eq!(refusal(pool.add(&groups, false)), wanted);
        assert!(pool.plan_add(&groups, true).is_ok());
    }
    pool.add(&[new.group(GroupKind::Raidz(2), 0..3)], true).unwrap();
    pool.add(&[Disks::new(&[64; 2]).group(GroupKind::Mirror, 0..2)], false).unwrap();
}

#[test]
fn a_single_disk_becomes_a_mirror_and_a_mirror_wider_and_back() {
    let sims = Sims::new(3, 64);
    let mut pool = filled(&spec(vec![sims.group(GroupKind::Plain, 0..1)]), 8 * MIB);
    pool.attach("/sims/s0", &sims.new_device(1)).unwrap();
    assert!(refusal(pool.detach("/sims/s0")).contains("last good copy"), "the new side is not fresh yet");
    assert!(refusal(pool.offline("/sims/s0", false)).contains("no valid replicas"));
    settle(&mut pool);
    assert_eq!(pool.status().vdevs[0].name, "mirror-0");
    pool.attach("/sims/s1", &sims.new_device(2)).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().vdevs[0].children.len(), 3);
    pool.detach("/sims/s0").unwrap();
    pool.detach("/sims/s1").unwrap();
    assert_sound(&mut pool);
    let sentence = refusal(pool.detach("/sims/s2"));
    assert!(sentence.contains("only sides of mirrors"), "{sentence}");
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[0, 1]));
    assert_eq!((pool.status().state, pool.status().vdevs.len()), (State::Online, 1));
    assert_holds(&mut pool, 8 * MIB);
}

#[test]
fn what_cannot_be_attached_or_detached() {
    let disks = Disks::new(&[64; 6]);
    let groups = vec![disks.group(GroupKind::Raidz(1), 0..3), disks.group(GroupKind::Spare, 3..4)];
    let mut pool = filled(&spec(groups), MIB);
    assert!(
        refusal(pool.attach("/disks/d3", &disks.new_device(4))).contains("nothing can be attached to it")
    );
    assert!(refusal(pool.detach("/disks/d0")).contains("cannot detach"));
    assert!(refusal(pool.detach("/disks/d3")).contains("coffer remove"));
    let two = ["/disks/d0".to_owned(), "/disks/d1".to_owned()];
    assert!(refusal(pool.remove(&two)).contains("raidz1-0 needs 2 devices at least, and would have 1"));
    assert!(
        refusal(pool.replace("/disks/d0", &disks.new_device(1), ReplaceOptions::default()))
            .contains("part of the pool already")
    );
    pool.remove(&["/disks/d3".to_owned()]).unwrap();
    assert!(pool.status().spares.is_empty());
    pool.add(&[disks.group(GroupKind::Spare, 3..5)], false).unwrap();
    assert_eq!(
        pool.status().spares.iter().map(|spare| &spare.state[..]).collect::<Vec<_>>(),
        ["AVAIL", "AVAIL"]
    );
    assert!(Pool::examine(&*disks.0[3]).unwrap().is_some());
}

/// A mirror whose second side was pulled and whose spare stepped in.
fn spared(sims: &Sims) -> Pool {
    let groups = vec![sims.group(GroupKind::Mirror, 0..2), sims.group(GroupKind::Spare, 2..4)];
    let mut pool = filled(&spec(groups), 8 * MIB);
    assert_eq!(pool.status().spares[0].state, "AVAIL");
    sims.0[1].pull();
    let id = pool.open("vol").unwrap();
    pool.write(id, 0, &noise(1, 65536)).unwrap();
    pool.flush().unwrap();
    settle(&mut pool);
    let status = pool.status();
    assert_eq!(status.spares.iter().filter(|spare| spare.state == "INUSE").count(), 1, "{status:#?}");
    let spare = &status.vdevs[0].children[1];
    assert_eq!((&spare.name[..], spare.children.len()), ("spare-1", 2));
    pool
}

#[test]
fn detaching_the_spare_cancels_and_detaching_the_original_makes_it_permanent() {
    let sims = Sims::new(4, 64);
    let mut pool = spared(&sims);
    assert!(refusal(pool.remove(&["/sims/s2".to_owned()])).contains("coffer detach"));
    sims.0[1].plug_in();
    pool.offline("/sims/s1", false).unwrap();
    pool.device_returned(&sims.new_device(1)).unwrap();
    pool.detach("/sims/s2").unwrap();
    let status = pool.status();
    assert_eq!((&status.spares[0].state[..], status.vdevs[0].children[1].children.len()), ("AVAIL", 0));
    assert_sound(&mut pool);
    drop(pool);

    let sims = Sims::new(4, 64);
    let mut pool = spared(&sims);
    pool.detach("/sims/s1").unwrap();
    let status = pool.status();
    assert_eq!(status.state, State::Online);
    assert_eq!(status.spares.len(), 1, "the spare that stays is on no list of spares: {status:#?}");
    assert_eq!(state(&mut pool, 2), State::Online);
    assert_sound(&mut pool);
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[0, 1]));
    assert_holds(&mut pool, 65536);
}

/// A spare that is detached from a device that is gone waits, over a restart too, until that device has been back.
#[test]
fn a_detached_spare_does_not_step_in_again_at_once() {
    let sims = Sims::new(3, 64);
    let groups = vec![sims.group(GroupKind::Mirror, 0..2), sims.group(GroupKind::Spare, 2..3)];
    let mut pool = filled(&spec(groups), MIB);
    let guid = pool.guid();
    let spare = |pool: &mut Pool| {
        settle(pool);
        pool.status().spares[0].state.clone()
    };
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[1]));
    assert_eq!(spare(&mut pool), "INUSE");
    pool.detach("/sims/s2").unwrap();
    assert_eq!(spare(&mut pool), "AVAIL");
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[1]));
    assert_eq!(spare(&mut pool), "AVAIL");
    pool.device_returned(&sims.new_device(1)).unwrap();
    assert_eq!(spare(&mut pool), "AVAIL");
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[1]));
    assert_eq!(spare(&mut pool), "INUSE");
    assert_sound(&mut pool);
}

/// A spare that is called for a device that works stays, over a restart too, until one of the two is detached.
#[test]
fn a_called_spare_stays_beside_a_healthy_original() {
    for detach in ["/sims/s0", "/sims/s2"] {
        let sims = Sims::new(3, 64);
        let groups = vec![sims.group(GroupKind::Mirror, 0..2), sims.group(GroupKind::Spare, 2..3)];
        let mut pool = filled(&spec(groups), MIB);
        pool.replace_by_spare("/sims/s0", "/sims/s2", ReplaceOptions::default()).unwrap();
        let guid = pool.guid();
        pool.flush().unwrap();
        drop(pool);
        let mut pool = import(guid, sims.without(&[]));
        settle(&mut pool);
        let status = pool.status();
        let line = &status.vdevs[0].children[0];
        let names: Vec<&str> = line.children.iter().map(|child| &child.name[..]).collect();
        assert_eq!((&line.name[..], &names[..]), ("spare-0", &["/sims/s0", "/sims/s2"][..]));
        assert_eq!((&status.spares[0].state[..], status.state), ("INUSE", State::Online));
        pool.detach(detach).unwrap();
        settle(&mut pool);
        let status = pool.status();
        let names: Vec<&str> = status.vdevs[0].children.iter().map(|child| &child.name[..]).collect();
        let stayed = if detach == "/sims/s0" { "/sims/s2" } else { "/sims/s0" };
        assert_eq!(names, [stayed, "/sims/s1"]);
        assert_eq!(status.spares.len(), usize::from(detach == "/sims/s2"));
        sims.0[1].pull();
        assert_holds(&mut pool, MIB);
    }
}

/// The spare goes back when the original has been replaced.
#[test]
fn a_replaced_original_sends_the_spare_back() {
    let sims = Sims::new(5, 64);
    let mut pool = spared(&sims);
    pool.replace("/sims/s1", &sims.new_device(4), ReplaceOptions::default()).unwrap();
    settle(&mut pool);
    let status = pool.status();
    assert_eq!(status.state, State::Online, "{status:#?}");
    assert_eq!(status.spares.iter().map(|spare| &spare.state[..]).collect::<Vec<_>>(), ["AVAIL", "AVAIL"]);
    assert_eq!(status.vdevs[0].children[1].name, "/sims/s4");
    assert_sound(&mut pool);
}

/// A smaller disk is taken when everything fits; data of the source is not read where another copy is (`-r`).
#[test]
fn replace_takes_a_smaller_disk_and_spares_the_source() {
    let sims = Sims::new(2, 96);
    let small = Sims::new(1, 64);
    let mut pool = filled(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]), 8 * MIB);
    let new = pool::spec::NewDevice { path: "/sims/small".into(), ..small.new_device(0) };
    pool.flush().unwrap();
    let before = sims.0[1].counts().bytes_read;
    let plan = pool.replace("/sims/s1", &new, ReplaceOptions { read_source_last: true }).unwrap();
    assert!(plan.notices[0].contains("is smaller than"), "{plan:?}");
    let line = &pool.status().vdevs[0].children[1];
    assert_eq!((&line.name[..], line.children.len()), ("replacing-1", 2));
    settle(&mut pool);
    let read = sims.0[1].counts().bytes_read - before;
    // Metadata is, all of which has two copies; of 8 MiB of data nothing.
    assert!(read < MIB, "the source was read: {read} bytes");
    let scan = pool.scan().unwrap();
    assert_eq!((scan.errors, scan.done, scan.eta_seconds), (0, scan.total, None));
    assert_eq!(pool.status().state, State::Online);
    sims.0[0].pull();
    assert_holds(&mut pool, 8 * MIB);
}

/// So with a spare that is called (`-r`): the source is read for no data that another disk has.
#[test]
fn a_called_spare_spares_the_source() {
    for source_last in [true, false] {
        let sims = Sims::new(3, 64);
        let groups = vec![sims.group(GroupKind::Mirror, 0..2), sims.group(GroupKind::Spare, 2..3)];
        let mut pool = filled(&spec(groups), 8 * MIB);
        pool.flush().unwrap();
        let before = sims.0[0].counts().bytes_read;
        let options = ReplaceOptions { read_source_last: source_last };
        pool.replace_by_spare("/sims/s0", "/sims/s2", options).unwrap();
        settle(&mut pool);
        let read = sims.0[0].counts().bytes_read - before;
        // All copies of metadata are read in any case.
        assert_eq!(read < MIB, source_last, "{read} bytes were read");
        // The only copy there is: now the source is read.
        sims.0[1].pull();
        sims.0[2].pull();
        assert_holds(&mut pool, 8 * MIB);
    }
}

#[test]
fn a_larger_disk_is_used_fully_once_told() {
    let sims = Sims::new(2, 64);
    let mut pool = filled(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]), MIB);
    let before = pool.usage().device_size;
    for sim in &sims.0 {
        sim.set_size(128 * MIB);
    }
    assert_eq!(pool.usage().device_size, before, "nothing changes by itself");
    pool.online("/sims/s0", None, true).unwrap();
    pool.online("/sims/s1", None, true).unwrap();
    assert_eq!(pool.usage().device_size, before + 128 * MIB);
    let guid = pool.guid();
    pool.flush().unwrap();
    drop(pool);
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!((pool.usage().device_size, pool.status().state), (before + 128 * MIB, State::Online));
    assert_holds(&mut pool, MIB);
    let id = volume(&mut pool, "big", 128 * MIB);
    pool.write(id, 0, &noise(4, 80 * MIB as usize)).unwrap();
    pool.flush().unwrap();
    assert_sound(&mut pool);
}

#[test]
fn a_larger_disk_is_used_fully_by_itself_with_autoexpand() {
    for expands in [false, true] {
        let (sims, large) = (Sims::new(2, 64), Sims::new(1, 96));
        let mut pool = filled(&spec(vec![sims.group(GroupKind::Mirror, 0..2)]), MIB);
        let guid = pool.guid();
        if expands {
            pool.set("", "autoexpand", "on").unwrap();
        }
        let before = pool.usage().device_size;
        // One that replaces another...
        let new = pool::spec::NewDevice { path: "/sims/large".into(), ..large.new_device(0) };
        let plan = pool.replace("/sims/s1", &new, ReplaceOptions::default()).unwrap();
        assert_eq!(plan.notices.iter().any(|notice| notice.contains("online -e")), !expands, "{plan:?}");
        settle(&mut pool);
        let more = |grown: u64| before + if expands { grown * MIB } else { 0 };
        assert_eq!(pool.usage().device_size, more(32));
        // ...and one that grew while the pool was not in use.
        pool.flush().unwrap();
        drop(pool);
        sims.0[0].set_size(128 * MIB);
        let mut devices = sims.without(&[1]);
        devices.push(new);
        let mut pool = import(guid, devices);
        assert_eq!(pool.usage().device_size, more(32 + 64));
        pool.online("/sims/large", None, true).unwrap();
        pool.online("/sims/s0", None, true).unwrap();
        assert_eq!(pool.usage().device_size, before + 96 * MIB);
        assert_sound(&mut pool);
    }
}

#[test]
fn a_scrub_is_paused_goes_on_after_a_restart_and_is_stopped() {
    let disks = Disks::new(&[64; 3]);
    let mut pool = filled(&spec(vec![disks.group(GroupKind::Raidz(1), 0..3)]), 24 * MIB);
    assert!(refusal(pool.scrub(ScrubAction::Pause)).contains("no active scrub"));
    pool.scrub(ScrubAction::Start).unwrap();
    assert!(refusal(pool.scrub(ScrubAction::Start)).contains("going on already"));
    assert!(pool.tick(MIB).unwrap());
    pool.scrub(ScrubAction::Pause).unwrap();
    let paused = pool.scan().unwrap();
    assert!(paused.done > 0 && paused.done < paused.total && !pool.tick(MIB).unwrap());
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, disks.all());
    assert_eq!(pool.scan().unwrap().done, paused.done);
    pool.scrub(ScrubAction::Start).unwrap();
    let mut last = 0;
    while pool.tick(MIB).unwrap() {
        let scan = pool.scan().unwrap();
        assert!(scan.done >= last && scan.done <= scan.total, "never above 100 %");
        last = scan.done;
    }
    let scan = pool.scan().unwrap();
    assert_eq!((scan.state, scan.errors, scan.done), (pool::report::ScanState::Finished, 0, scan.total));
    pool.scrub(ScrubAction::Start).unwrap();
    pool.scrub(ScrubAction::Stop).unwrap();
    assert_eq!(pool.scan().unwrap().state, pool::report::ScanState::Canceled);
}

/// Every field of `usage`, on plain disks with one missing.
#[test]
fn usage_adds_up() {
    let sims = Sims::new(3, 128);
    let wanted = CreateSpec {
        data: Some(Profile::Raid1),
        metadata: Some(Profile::Raid1c3),
        ..spec(vec![sims.group(GroupKind::Plain, 0..3)])
    };
    let mut pool = filled(&wanted, 16 * MIB);
    let usage = pool.usage();
    assert_eq!(usage.device_size, usage.device_allocated + usage.device_unallocated);
    assert_eq!(usage.device_size, usage.devices.iter().map(|device| device.size).sum::<u64>());
    assert_eq!(usage.device_unallocated, usage.devices.iter().map(|device| device.unallocated).sum::<u64>());
    assert_eq!((usage.data_ratio, usage.metadata_ratio, usage.device_missing), (2.0, 3.0, 0));
    assert!(usage.global_reserve > 0 && usage.global_reserve_used == 0 && !usage.multiple_profiles);
    assert!(usage.free_min <= usage.free_estimated && usage.free_statfs == usage.free_estimated);
    let classes: Vec<(&str, &str)> = usage.profiles.iter().map(|p| (&p.class[..], &p.profile[..])).collect();
    assert_eq!(classes, [("System", "RAID1C3"), ("Metadata", "RAID1C3"), ("Data", "RAID1")]);
    let allocated: u64 =
        usage.profiles.iter().flat_map(|profile| &profile.devices).map(|(_, bytes)| bytes).sum();
    assert_eq!(allocated, usage.device_allocated);
    for profile in &usage.profiles {
        assert!(profile.used > 0 && profile.used <= profile.size, "{profile:?}");
    }
    let data = usage.profiles.iter().find(|profile| profile.class == "Data").unwrap();
    assert_eq!(data.used, 16 * MIB);
    // What is said to be free can be written, to within a hundredth and the metadata it needs.
    let id = volume(&mut pool, "rest", 1 << 30);
    let mut written = 0;
    while pool.write(id, written, &noise(written, MIB as usize)).is_ok() {
        written += MIB;
    }
    let told = usage.free_estimated;
    assert!(
        written.abs_diff(told) <= told / 20,
        "{} MiB said to be free, {} MiB written",
        told / MIB,
        written / MIB
    );
    let guid = pool.guid();
    let _ = pool.flush();
    drop(pool);
    let pool = import(guid, sims.without(&[2]));
    let usage = pool.usage();
    let missing = usage.devices.iter().find(|device| device.missing).unwrap();
    assert_eq!((&missing.name[..], usage.device_missing), ("missing", missing.size));
}

/// A chunk holds one class; a class finds room in chunks of its own; an emptied chunk's place can become any class.
#[test]
fn chunks_have_one_class_and_are_made_and_reclaimed_as_needed() {
    let disks = Disks::new(&[64; 3]);
    let mut pool = filled(&spec(vec![disks.group(GroupKind::Raidz(1), 0..3)]), 24 * MIB);
    let data = |pool: &Pool| pool.map().iter().filter(|chunk| chunk.class == "Data").count();
    let full = data(&pool);
    for class in ["System", "Metadata", "Data"] {
        assert!(pool.map().iter().any(|chunk| chunk.class == class));
    }
    assert!(pool.map().iter().all(|chunk| chunk.class == "Data" || chunk.profile == "RAID1"));
    pool.volume_destroy("vol").unwrap();
    settle(&mut pool);
    for round in 0..5 {
        pool.set("", "comment", &format!("round {round}")).unwrap();
    }
    assert!(data(&pool) < full / 2, "{} of {full} data chunks are left", data(&pool));
    assert!(pool.events(0).iter().any(|event| event.class == "reclaim"));
}

#[test]
fn a_mirror_has_at_most_64_sides_and_a_column_four_homes() {
    let disks = Disks::new(&[64; 66]);
    let mut pool = create(&spec(vec![disks.group(GroupKind::Mirror, 0..64)]));
    assert!(refusal(pool.attach("/disks/d0", &disks.new_device(64))).contains("64 is the most"));
    let guid = pool.guid();
    drop(pool);
    import(guid, disks.all());

    let disks = Disks::new(&[64; 8]);
    let groups = vec![disks.group(GroupKind::Mirror, 0..2), disks.group(GroupKind::Spare, 2..8)];
    let mut pool = filled(&spec(groups), MIB);
    let taken = (2..8)
        .filter(|spare| {
            pool.replace_by_spare("/disks/d0", &format!("/disks/d{spare}"), ReplaceOptions::default()).is_ok()
        })
        .count();
    assert_eq!(taken, 3);
    let guid = pool.guid();
    drop(pool);
    let mut pool = import(guid, disks.all());
    settle(&mut pool);
    assert_holds(&mut pool, MIB);
}

/// The disk to be replaced has the only copy and vanishes for a while: its data must not be given up.
#[test]
fn a_source_that_vanishes_during_its_replacement_is_waited_for() {
    let sims = Sims::new(2, 96);
    let mut pool = filled(&spec(vec![sims.group(GroupKind::Plain, 0..1)]), 24 * MIB);
    pool.drop_caches();
    pool.replace("/sims/s0", &sims.new_device(1), ReplaceOptions::default()).unwrap();
    sims.0[0].plan(30, Some(device::Operation::Read), device::sim::Effect::Gone);
    for _ in 0..20 {
        let _ = pool.tick(64 * MIB);
    }
    sims.0[0].plug_in();
    let back = pool.device_returned(&sims.new_device(0)).unwrap();
    let _ = pool.clear(None);
    settle(&mut pool);
    assert!(back, "the source was dropped from the pool while it was away");
    assert_holds(&mut pool, 24 * MIB);
}
