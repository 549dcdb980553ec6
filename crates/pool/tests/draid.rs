//! Distributed raid: chunks on some of many children, and spares that are room on all of them.
#![allow(clippy::unwrap_used, dead_code)]

mod common;
#[path = "common/sims.rs"]
mod sims;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use device::sim::{Cut, PowerSupply};
use pool::report::{Plan, State, StatusReport};
use pool::spec::{BalanceFilters, BalanceSpec, Draid, DraidWord, GroupKind};
use pool::{Pool, ReplaceOptions, ScrubAction};
use sims::Sims;

const SIZE: usize = 36 << 20;

fn draid(word: &str, devices: usize) -> GroupKind {
    GroupKind::Draid(word.parse::<DraidWord>().unwrap().of(devices).unwrap())
}

/// A pool of one draid with a volume `vol` that holds noise 1.
fn filled(sims: &Sims, word: &str, children: usize) -> Pool {
    let mut pool = create(&spec(vec![sims.group(draid(word, children), 0..children)]));
    let id = volume(&mut pool, "vol", 64 * MIB);
    pool.write(id, 0, &noise(1, SIZE)).unwrap();
    pool.flush().unwrap();
    pool
}

fn assert_holds(pool: &mut Pool, when: &str) {
    let id = pool.open("vol").unwrap();
    pool.drop_caches();
    assert!(read(pool, id, 0, SIZE) == noise(1, SIZE), "{when}");
    assert_sound(pool);
}

fn refusal<T: std::fmt::Debug>(result: pool::Result<T>) -> String {
    result.unwrap_err().to_string()
}

fn spares(status: &StatusReport) -> Vec<(String, String)> {
    status.spares.iter().map(|spare| (spare.name.clone(), spare.state.clone())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
}

fn pull(pool: &mut Pool, sims: &Sims, index: usize) {
    sims.0[index].pull();
    pool.let_go_of_dead();
}

/// For how many columns each device has a place that is not their first.
fn spare_places(pool: &Pool) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for chunk in pool.map() {
        let mut seen = std::collections::BTreeSet::new();
        for place in chunk.placements {
            if !seen.insert(place.column) {
                *places.entry(place.name).or_default() += 1;
            }
        }
    }
    places
}

/// No two places of a chunk on one device.
fn assert_apart(pool: &Pool) {
    for chunk in pool.map() {
        let mut devices: Vec<u32> = chunk.placements.iter().map(|place| place.device.0).collect();
        devices.sort_unstable();
        devices.dedup();
        assert_eq!(devices.len(), chunk.placements.len(), "{chunk:?}");
    }
}

#[test]
fn a_draid_is_made_named_and_imported() {
    let sims = Sims::new(8, 64);
    let mut pool = filled(&sims, "draid2:3d:8c:1s", 8);
    let status = pool.status();
    assert_eq!(status.vdevs[0].name, "draid2:3d:8c:1s-0");
    assert_eq!(status.vdevs[0].children.len(), 8);
    assert_eq!(spares(&status), pairs(&[("draid2-0-0", "AVAIL")]));
    for chunk in pool.map() {
        let (wide, profile) = if chunk.profile == "draid2" { (5, "draid2") } else { (3, "RAID1C3") };
        assert_eq!((chunk.placements.len(), &chunk.profile[..]), (wide, profile));
    }
    assert_apart(&pool);
    assert_holds(&mut pool, "at first");
    let guid = pool.guid();
    assert!(pool.export().is_ok());
    let mut pool = import(guid, sims.without(&[]));
    assert_eq!(pool.status().vdevs[0].name, "draid2:3d:8c:1s-0");
    assert_holds(&mut pool, "after an import");
    // Another one beside it; one that differs only with force.
    let more = Sims::new(8, 64);
    assert!(refusal(pool.add(&[more.group(draid("draid1:3d", 8), 0..8)], false)).contains("mismatched"));
    pool.add(&[more.group(draid("draid2:3d:1s", 8), 0..8)], false).unwrap();
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "AVAIL"), ("draid2-1-0", "AVAIL")]));
    assert!(refusal(pool.remove(&["draid2-0-0".to_owned()])).contains("distributed spare"));
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let disks = Disks::new(&[64; 6]);
    let plan = |draid| Pool::plan_create(&spec(vec![disks.group(GroupKind::Draid(draid), 0..6)]));
    assert!(refusal(plan(Draid { parity: 2, data: 4, spares: 1 })).contains("at least 7 devices, 6 given"));
    for wrong in [
        Draid { parity: 0, data: 3, spares: 0 },
        Draid { parity: 4, data: 2, spares: 0 },
        Draid { parity: 1, data: 0, spares: 0 },
        Draid { parity: 1, data: 64, spares: 0 },
    ] {
        assert!(refusal(plan(wrong)).contains("can't be made"), "{wrong:?}");
    }
    plan(Draid { parity: 2, data: 3, spares: 1 }).unwrap();
    let mixed = Disks::new(&[64, 64, 64, 80]);
    let notices = |word| {
        let kind = draid(word, 4);
        Pool::plan_create(&spec(vec![mixed.group(kind, 0..4)])).unwrap().notices.join(" ")
    };
    assert!(notices("draid:2d:1s").contains("as far as the smallest"));
    assert!(!notices("draid:2d").contains("as far as the smallest"));
}

/// Children fill up evenly, every two of them share about as many chunks, and what fits is what the formula says:
/// (N - S) * D / (D + P) of a child.
#[test]
fn a_full_draid_is_balanced_and_keeps_its_spares_room() {
    for (word, children) in [("draid1:2d:1s", 6), ("draid2:3d:2s", 9), ("draid1:4d:1s", 11)] {
        let kind = draid(word, children);
        let GroupKind::Draid(shape) = kind else { panic!() };
        let disks = Disks::new(&vec![256; children]);
        let mut pool = create(&spec(vec![disks.group(kind, 0..children)]));
        let id = volume(&mut pool, "vol", 4096 * MIB);
        let mut written = 0u64;
        while pool.write(id, written, &noise(written, MIB as usize)).is_ok() {
            written += MIB;
        }
        pool.flush().unwrap();
        let (n, s) = (children as f64, f64::from(shape.spares));
        let (d, p) = (f64::from(shape.data), f64::from(shape.parity));
        let formula = (n - s) * d / (d + p) * 256.0 * MIB as f64;
        let part = written as f64 / formula;
        assert!((0.88..1.0).contains(&part), "{word}: {part}");
        let mut each: BTreeMap<u32, u64> = BTreeMap::new();
        let mut both: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for chunk in pool.map().iter().filter(|chunk| chunk.class == "Data") {
            let devices: Vec<u32> = chunk.placements.iter().map(|place| place.device.0).collect();
            for &a in &devices {
                *each.entry(a).or_default() += 1;
                devices.iter().filter(|&&b| a < b).for_each(|&b| *both.entry((a, b)).or_default() += 1);
            }
        }
        let span = |counts: Vec<u64>| (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
        let (least, most) = span(each.values().copied().collect());
        assert!(most - least <= 5, "{word}: {each:?}");
        assert_eq!(both.len(), children * (children - 1) / 2);
        let (least, most) = span(both.values().copied().collect());
        println!("{word} of {children}: {part:.3} of the formula, pairs share {least} to {most} chunks");
        assert!(most - least <= 9, "{word}: pairs share {least} to {most}");
    }
}

/// Any P children lost, of several shapes: every byte can be read, written and repaired.
#[test]
fn any_children_that_parity_bears_may_be_lost() {
    for (word, children, parity) in [("draid1:2d", 5, 1), ("draid2:2d:1s", 6, 2), ("draid3:2d", 6, 3)] {
        let sims = Sims::new(children, 64);
        let mut pool = filled(&sims, word, children);
        let guid = pool.guid();
        pool.flush().unwrap();
        drop(pool);
        for lost in 0..1u32 << children {
            if lost.count_ones() != parity {
                continue;
            }
            let gone: Vec<usize> = (0..children).filter(|child| lost >> child & 1 == 1).collect();
            let look = pool::spec::ImportOptions { read_only: true, ..options() };
            let (mut pool, _) = Pool::import(&env(2), guid, sims.without(&gone), &look).unwrap();
            let id = pool.open("vol").unwrap();
            assert!(read(&mut pool, id, 0, SIZE) == noise(1, SIZE), "{word} without {gone:?}");
            assert_eq!(pool.status().vdevs[0].state, State::Degraded);
        }
    }
}

/// A failed child: its spare is called, filled from all others, and checked; then P more may be lost; then the disk comes
/// back, and the spare goes back.
#[test]
fn a_spare_is_called_filled_and_goes_back() {
    for (word, children, parity) in [("draid1:2d:1s", 7, 1), ("draid2:3d:1s", 8, 2)] {
        let sims = Sims::new(children, 64);
        let mut pool = filled(&sims, word, children);
        let spare = format!("draid{parity}-0-0");
        pull(&mut pool, &sims, 2);
        assert!(pool.has_work());
        settle(&mut pool);
        assert!(!pool.has_work());
        let status = pool.status();
        assert_eq!(spares(&status), pairs(&[(&spare, "INUSE")]));
        let line = &status.vdevs[0].children[2];
        assert_eq!((&line.name[..], line.state), ("spare-2", State::Degraded));
        assert_eq!((&line.children[1].name[..], &line.children[1].note), (&spare[..], &None));
        // All others have a part of it, and no chunk has two columns on one device.
        let places = spare_places(&pool);
        let (least, most) = (places.values().min().unwrap(), places.values().max().unwrap());
        assert!(places.len() >= children - 2 && most - least <= 3, "{places:?}");
        assert_apart(&pool);
        assert_holds(&mut pool, "with the spare");
        // As many again may go, whichever: what was on the first is whole.
        for more in (0..children).filter(|&child| child != 2) {
            let gone: Vec<usize> = if parity == 1 { vec![more] } else { vec![more, (more + 3) % children] };
            let gone: Vec<usize> = gone.into_iter().filter(|&child| child != 2).chain([2]).collect();
            pool.flush().unwrap();
            let look = pool::spec::ImportOptions { read_only: true, ..options() };
            let (mut other, _) = Pool::import(&env(3), pool.guid(), sims.without(&gone), &look).unwrap();
            let id = other.open("vol").unwrap();
            assert!(read(&mut other, id, 0, SIZE) == noise(1, SIZE), "{word} without {gone:?}");
        }
        // Written meanwhile, exported and imported with the spare in use.
        let id = pool.open("vol").unwrap();
        pool.write(id, MIB, &noise(9, MIB as usize)).unwrap();
        let guid = pool.guid();
        assert!(pool.export().is_ok());
        let mut pool = import(guid, sims.without(&[2]));
        assert_eq!(spares(&pool.status()), pairs(&[(&spare, "INUSE")]));
        sims.0[2].plug_in();
        assert!(pool.device_returned(&sims.new_device(2)).unwrap());
        settle(&mut pool);
        assert_eq!(spares(&pool.status()), pairs(&[(&spare, "AVAIL")]));
        assert_eq!(spare_places(&pool), BTreeMap::new());
        let id = pool.open("vol").unwrap();
        pool.write(id, MIB, &noise(1, SIZE)[MIB as usize..2 * MIB as usize]).unwrap();
        pool.flush().unwrap();
        assert_holds(&mut pool, "after the disk came back");
        pool.scrub(ScrubAction::Start).unwrap();
        settle(&mut pool);
        assert_eq!(pool.scan().unwrap().errors, 0);
        assert_eq!(pool.scan().unwrap().repaired, 0);
    }
}

/// A disk that doesn't come back is replaced: the new one is filled, and the spare goes back.
#[test]
fn a_replacement_takes_over_from_the_spare() {
    let sims = Sims::new(8, 64);
    let mut pool = filled(&sims, "draid1:3d:1s", 7);
    pull(&mut pool, &sims, 0);
    settle(&mut pool);
    assert!(refusal(pool.detach("s0")).contains("can't take its place for good"));
    pool.replace("s0", &sims.new_device(7), ReplaceOptions::default()).unwrap();
    let names: Vec<String> =
        pool.status().vdevs[0].children[0].children.iter().map(|line| line.name.clone()).collect();
    assert_eq!(names, ["replacing-0", "draid1-0-0"]);
    settle(&mut pool);
    let status = pool.status();
    assert_eq!(spares(&status), pairs(&[("draid1-0-0", "AVAIL")]));
    assert_eq!(status.vdevs[0].children[0].name, "/sims/s7");
    assert_eq!(spare_places(&pool), BTreeMap::new());
    assert_eq!(status.state, State::Online);
    assert_holds(&mut pool, "after the replacement");
    pull(&mut pool, &sims, 3);
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid1-0-0", "INUSE")]));
    assert_holds(&mut pool, "with the spare a second time");
}

/// Children that fail one after the other, more of them than parity bears at once: each has its spare, and what the first
/// one's spare had on the second gets another place.
#[test]
fn children_fail_one_after_the_other() {
    let sims = Sims::new(8, 64);
    let mut pool = filled(&sims, "draid1:2d:2s", 8);
    for (count, child) in [4, 1, 6].into_iter().enumerate() {
        pull(&mut pool, &sims, child);
        settle(&mut pool);
        assert_apart(&pool);
        assert_holds(&mut pool, "after a failure");
        let wanted = ["AVAIL", "INUSE"].map(|state| state.to_owned());
        let states: Vec<String> = spares(&pool.status()).into_iter().map(|(_, state)| state).collect();
        let used = states.iter().filter(|state| **state == wanted[1]).count();
        assert_eq!(used, (count + 1).min(2), "{states:?}");
    }
    for child in [1, 4, 6] {
        sims.0[child].plug_in();
        assert!(pool.device_returned(&sims.new_device(child)).unwrap());
        settle(&mut pool);
        assert_holds(&mut pool, "after one came back");
    }
    assert_eq!(spare_places(&pool), BTreeMap::new());
    assert_eq!(pool.status().state, State::Online);
    assert_eq!(spares(&pool.status()), pairs(&[("draid1-0-0", "AVAIL"), ("draid1-0-1", "AVAIL")]));
}

#[test]
fn a_spare_is_called_by_hand_and_detached() {
    let sims = Sims::new(9, 64);
    let mut pool = filled(&sims, "draid2:3d:1s", 7);
    pool.add(&[sims.group(GroupKind::Mirror, 7..9)], true).unwrap();
    let replace =
        |pool: &mut Pool, name: &str, by: &str| pool.replace_by_spare(name, by, ReplaceOptions::default());
    assert!(
        refusal(replace(&mut pool, "s7", "draid2-0-0"))
            .contains("for the children of draid2:3d:7c:1s-0 only")
    );
    assert!(refusal(replace(&mut pool, "s1", "draid2-0-1")).contains("draid2-0-1"));
    assert!(refusal(pool.detach("draid2-0-0")).contains("not in use"));
    let planned = pool.forecast(&pool::Change::ReplaceBySpare { name: "s1", spare: "draid2-0-0" }).unwrap();
    assert!(planned.steps[0].what.contains("on all children at once") && planned.steps[0].bytes > 0);
    replace(&mut pool, "s1", "draid2-0-0").unwrap();
    assert!(refusal(replace(&mut pool, "s2", "draid2-0-0")).contains("in use already"));
    settle(&mut pool);
    // It stays until it is detached, though the disk works.
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "INUSE")]));
    assert_holds(&mut pool, "with the spare beside the disk");
    let plan = pool.detach("draid2-0-0").unwrap();
    assert_eq!(plan, Plan { steps: vec!["detach draid2-0-0".to_owned()], notices: Vec::new() });
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "AVAIL")]));
    assert_eq!(spare_places(&pool), BTreeMap::new());
    // Taken offline by hand: nobody calls a spare. Detached by hand: it is not called again.
    pool.offline("s1", false).unwrap();
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "AVAIL")]));
    pool.online("s1", None, false).unwrap();
    pull(&mut pool, &sims, 3);
    settle(&mut pool);
    pool.detach("draid2-0-0").unwrap();
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "AVAIL")]));
    sims.0[3].plug_in();
    pool.device_returned(&sims.new_device(3)).unwrap();
    settle(&mut pool);
    pull(&mut pool, &sims, 3);
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid2-0-0", "INUSE")]));
    // Two more away: the spare has what nobody else has.
    pull(&mut pool, &sims, 4);
    pull(&mut pool, &sims, 5);
    assert!(refusal(pool.detach("draid2-0-0")).contains("last good copy"));
    assert_holds(&mut pool, "at the edge");
}

/// Filled to the last block, every column of a failed child finds room, and the pool can still be used.
#[test]
fn a_full_pool_has_room_for_its_spares() {
    for (word, children, losses) in
        [("draid1:2d:1s", 4, 1), ("draid1:2d:1s", 7, 1), ("draid2:4d:1s", 8, 1), ("draid1:3d:2s", 9, 2)]
    {
        let sims = Sims::new(children, 96);
        let mut pool = filled(&sims, word, children);
        let more = volume(&mut pool, "more", 4096 * MIB);
        let mut at = 0;
        while pool.write(more, at, &noise(at, 256 << 10)).is_ok() {
            at += 256 << 10;
        }
        pool.flush().unwrap();
        for lost in 0..losses {
            pull(&mut pool, &sims, lost * 2 + 1);
            settle(&mut pool);
            let status = pool.status();
            let line = &status.vdevs[0].children[lost * 2 + 1];
            assert_eq!(line.children[1].note, None, "{word}: {line:?}");
            assert_apart(&pool);
            assert_holds(&mut pool, "full, with a spare");
        }
        let mut bytes = vec![0; 256 << 10];
        pool.read(more, 0, &mut bytes).unwrap();
        assert!(bytes == noise(0, 256 << 10));
        pool.volume_destroy("more").unwrap();
        settle(&mut pool);
        let id = pool.open("vol").unwrap();
        pool.write(id, 40 * MIB, &noise(5, 1 << 20)).unwrap();
        pool.flush().unwrap();
        assert_holds(&mut pool, "with room again");
    }
}

/// Children join and leave; a balance goes over all of it.
#[test]
fn children_are_attached_and_removed() {
    let sims = Sims::new(9, 64);
    let mut pool = filled(&sims, "draid1:3d:1s", 7);
    pool.attach("draid1:3d:7c:1s-0", &sims.new_device(7)).unwrap();
    assert_eq!(pool.status().vdevs[0].name, "draid1:3d:8c:1s-0");
    let all = BalanceSpec { data: Some(BalanceFilters::default()), ..BalanceSpec::default() };
    pool.balance_start(all).unwrap();
    settle(&mut pool);
    assert!(pool.map().iter().any(|chunk| chunk.placements.iter().any(|place| place.name == "/sims/s7")));
    assert_holds(&mut pool, "with one more");
    pool.remove(&["s0".to_owned(), "s1".to_owned()]).unwrap();
    settle(&mut pool);
    assert_eq!(pool.status().vdevs[0].name, "draid1:3d:6c:1s-0");
    pool.remove(&["s2".to_owned()]).unwrap();
    settle(&mut pool);
    assert!(refusal(pool.remove(&["s3".to_owned()])).contains("needs 5 devices at least"));
    assert_holds(&mut pool, "with three less");
    // One that failed can leave, too, and its spare with it.
    pool.attach("s4", &sims.new_device(8)).unwrap();
    pull(&mut pool, &sims, 5);
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid1-0-0", "INUSE")]));
    pool.remove(&["s5".to_owned()]).unwrap();
    settle(&mut pool);
    assert_eq!(spares(&pool.status()), pairs(&[("draid1-0-0", "AVAIL")]));
    assert_eq!(pool.status().vdevs[0].name, "draid1:3d:5c:1s-0");
    assert_holds(&mut pool, "without the failed one");
    assert!(
        refusal(pool.convert("draid1:3d:5c:1s-0", GroupKind::Raidz(1), false)).contains("no mirror or raidz")
    );
}

/// Power is cut at every request while a spare is called, filled and sent back: nothing is lost, and it ends the same.
#[test]
fn a_power_cut_while_a_spare_comes_or_goes() {
    let run = |back: bool, cut: u64| {
        let sims = Sims::new(5, 64);
        let mut pool = create(&spec(vec![sims.group(draid("draid1:2d:1s", 5), 0..5)]));
        let id = volume(&mut pool, "vol", 16 * MIB);
        pool.write(id, 0, &noise(1, 3 * MIB as usize)).unwrap();
        pool.flush().unwrap();
        let guid = pool.guid();
        pull(&mut pool, &sims, 2);
        if back {
            settle(&mut pool);
            pool.write(id, MIB, &noise(2, 65536)).unwrap();
            pool.flush().unwrap();
        }
        let supply = Arc::new(PowerSupply::new());
        sims.0.iter().for_each(|sim| sim.set_supply(Some(supply.clone())));
        supply.cut_after(cut);
        if back {
            sims.0[2].plug_in();
            let _ = pool.device_returned(&sims.new_device(2));
        }
        while pool.tick(MIB).is_ok_and(|more| more) && supply.is_on() {}
        let finished = supply.is_on();
        drop(pool);
        for (index, sim) in sims.0.iter().enumerate() {
            sim.power_cut(Cut::Random(cut * 31 + index as u64));
        }
        supply.restore();
        let away: &[usize] = if back { &[] } else { &[2] };
        let (mut pool, _) = Pool::import(&env(7 + cut), guid, sims.without(away), &options()).unwrap();
        let holds = |pool: &mut Pool| {
            let mut wanted = noise(1, 3 * MIB as usize);
            if back {
                wanted[MIB as usize..MIB as usize + 65536].copy_from_slice(&noise(2, 65536));
            }
            let id = pool.open("vol").unwrap();
            pool.drop_caches();
            assert!(read(pool, id, 0, 3 * MIB as usize) == wanted, "back {back}, cut {cut}");
            assert_sound(pool);
        };
        holds(&mut pool);
        settle(&mut pool);
        let used = if back { "AVAIL" } else { "INUSE" };
        assert_eq!(spares(&pool.status()), pairs(&[("draid1-0-0", used)]), "cut {cut}");
        assert_eq!(spare_places(&pool).is_empty(), back);
        // One more may be lost then.
        pool.flush().unwrap();
        let gone = (cut % 5) as usize;
        let gone = if gone == 2 && !back { 3 } else { gone };
        let mut lost = away.to_vec();
        lost.push(gone);
        drop(pool);
        let look = pool::spec::ImportOptions { read_only: true, ..options() };
        let (mut pool, _) = Pool::import(&env(9 + cut), guid, sims.without(&lost), &look).unwrap();
        let id = pool.open("vol").unwrap();
        let found = read(&mut pool, id, 2 * MIB, MIB as usize);
        assert!(
            found == noise(1, 3 * MIB as usize)[2 * MIB as usize..],
            "back {back}, cut {cut}, without {gone}"
        );
        finished
    };
    for back in [false, true] {
        let mut cut = 0;
        while !run(back, cut) {
            cut += 1;
        }
        assert!(cut > 20, "{cut} requests");
    }
}
