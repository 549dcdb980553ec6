//! Sets that raidctl makes, broken and read back. Without `mke2fs` most of it is passed over.
#![allow(clippy::unwrap_used)]

#[path = "../generated/content.rs"]
#[allow(dead_code)]
mod content;
mod made;
mod places;

use std::process::Command;
use std::sync::Arc;

use device::{BlockDevice, Rng};
use made::{Component, RESERVED, bytes, configure, ext4, files, holds, make, open, patiently, set_in};
use raidset::label::ByteOrder;
use raidset::layout::Level;
use rescue::{Candidate, Image, Plan, copy_files, plan, render_plan, render_scan, scan};

/// Candidates with more than this call themselves right.
const SURE: u8 = 50;
const LENGTH: u64 = 16 << 20;

fn planned(components: &[Component]) -> Plan {
    let images = open(components);
    plan(&images, &scan(&images))
}

fn scanned(components: &[Component]) -> String {
    render_scan(&scan(&open(components)))
}

/// The best candidate has these contents and calls itself right.
fn is_right(plan: &Plan, contents: &[u8]) -> Candidate {
    let best = plan.candidates.first().unwrap_or_else(|| panic!("there is no candidate"));
    assert!(best.score > SURE, "{}", render_plan(plan));
    assert!(holds(best, contents), "{}", render_plan(plan));
    best.clone()
}

/// None calls itself right and has other contents.
fn none_is_wrong_and_sure(plan: &Plan, contents: &[u8]) {
    for candidate in plan.candidates.iter().filter(|candidate| candidate.score > SURE) {
        assert!(holds(candidate, contents), "{}", render_plan(plan));
    }
}

const LEVELS: [(Level, usize, usize); 9] = [
    (Level::Raid0, 3, 0),
    (Level::Raid1, 2, 1),
    (Level::Raid1, 6, 3),
    (Level::Raid4, 4, 1),
    (Level::Raid5, 3, 1),
    (Level::Raid5, 5, 1),
    (Level::Raid6, 4, 2),
    (Level::Raid6, 6, 2),
    (Level::Mirror, 3, 2),
];

/// Every level that md has as well comes back whole and without as many as it can lose, and no disk changes.
#[test]
fn every_level_comes_back_without_what_it_can_lose() {
    let Some(contents) = ext4(1, LENGTH) else { return };
    for (level, columns, most) in LEVELS {
        let folder = tempfile::tempdir().unwrap();
        let components = set_in(folder.path(), 3, &level, columns, &contents);
        let images = open(&components);
        let before = bytes(&images);
        let told = render_scan(&scan(&images));
        let letter = level.letter();
        assert!(told.contains("RAIDframe set raid3, serial number 20261125"), "{told}");
        assert!(told.contains(&format!("RAID Level {letter}, {columns} columns, sectPerSU 32")), "{told}");
        assert!(told.contains("clean: Yes, up to date"), "{told}");
        for gone in 0..=most {
            // One of each pair of mirrors, or the last ones.
            let away = |column: usize| {
                if level == Level::Raid1 {
                    column % 2 == 1 && column / 2 < gone
                } else {
                    column + gone >= columns
                }
            };
            let left: Vec<Component> = components
                .iter()
                .enumerate()
                .filter(|(column, _)| !away(*column))
                .map(|(_, one)| one.clone())
                .collect();
            let found = planned(&left);
            let best = is_right(&found, &contents);
            assert_eq!(best.array, "raid3");
            assert_eq!(best.slots.iter().filter(|slot| slot.is_none()).count(), gone);
            assert!(best.slots.iter().flatten().all(|slot| slot.data_offset == RESERVED));
            assert!(!best.reasons.iter().any(|reason| reason.contains("parts are lost")), "{best:?}");
            // What is saved is read as well.
            let again = Plan::from_text(&found.to_text().unwrap()).unwrap();
            assert!(holds(&again.candidates[0], &contents));
        }
        if most > 0 {
            // With one more away it says that parts are lost, and is not sure.
            let away = |column: usize| if level == Level::Raid1 { column < 2 } else { column <= most };
            let left: Vec<Component> = components
                .iter()
                .enumerate()
                .filter(|(column, _)| !away(*column))
                .map(|(_, one)| one.clone())
                .collect();
            if !left.is_empty() {
                let found = planned(&left);
                assert!(
                    found.candidates.iter().all(|candidate| candidate.score <= SURE),
                    "{}",
                    render_plan(&found)
                );
                assert!(render_plan(&found).contains("parts are lost"), "{}", render_plan(&found));
            }
        }
        assert!(bytes(&images) == before, "an original changed");
    }
}

/// The files of a set without a member are those that were put on it.
#[test]
fn files_are_copied_out_of_a_degraded_set() {
    let Some(contents) = ext4(2, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 0, &Level::Raid5, 4, &contents);
    let best = is_right(&planned(&components[1..]), &contents);
    let whole = folder.path().join("whole");
    std::fs::write(&whole, &contents).unwrap();
    let devices: [Arc<dyn BlockDevice>; 2] =
        [Arc::new(best.open().unwrap()), patiently(|| Image::open(&whole)).device];
    let to = ["got", "wanted"].map(|name| folder.path().join(name));
    let told: Vec<_> = devices
        .iter()
        .zip(&to)
        .map(|(device, to)| copy_files(device, to, false, |_| true).unwrap())
        .collect();
    assert!(told[0].files > 20 && told[0].lost.is_empty() && told[0] == told[1], "{told:?}");
    assert!(Command::new("diff").arg("-r").args(&to).status().unwrap().success());
}

/// A component that failed while the others were written is left out, and used only where nothing else is left.
#[test]
fn a_stale_component_is_left_out() {
    let (Some(old), Some(contents)) = (ext4(3, LENGTH), ext4(4, LENGTH)) else { return };
    for (level, columns) in [(Level::Raid5, 4), (Level::Raid1, 2), (Level::Raid6, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let components = set_in(folder.path(), 1, &level, columns, &old);
        let set = configure(1, &level, 32, &components, false);
        set.fail_column(1).unwrap();
        set.write(0, &contents).unwrap();
        set.unconfigure().unwrap();
        drop(set);
        let told = scanned(&components);
        assert!(told.contains("behind") && told.contains("stale, mod counter"), "{told}");
        let best = is_right(&planned(&components), &contents);
        assert!(best.slots[1].is_none());
        assert!(
            best.left_out.iter().any(|left| left.path == components[1].path && left.reason.contains("stale"))
        );
        if level == Level::Raid5 {
            // With another one away the stale one has to do, and that is told.
            let left = [&components[..3], &[]].concat();
            let found = planned(&left);
            let best = &found.candidates[0];
            assert!(best.slots[1].is_some(), "{}", render_plan(&found));
            assert!(best.reasons.iter().any(|reason| reason.contains("is used although")), "{best:?}");
            // Nothing else is made up of the same components.
            assert_eq!(found.candidates.len(), 1, "{}", render_plan(&found));
        }
    }
}

/// Two failed one after the other, and nothing was written since the second did: three mod counters, which autoconfiguration refuses. The first is
/// left out.
#[test]
fn of_two_that_failed_the_first_is_left_out() {
    let (Some(old), Some(contents)) = (ext4(18, LENGTH), ext4(19, LENGTH)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 4, &old);
    let set = configure(1, &Level::Raid5, 32, &components, false);
    set.fail_column(0).unwrap();
    set.write(0, &contents).unwrap();
    set.unconfigure().unwrap();
    drop(set);
    components[2..].iter().for_each(|component| component.relabel(|label| label.mod_counter += 1));
    let best = is_right(&planned(&components), &contents);
    assert!(best.slots[0].is_none() && best.slots[1].is_some(), "{best:?}");
    assert!(
        best.reasons.iter().any(|reason| reason.contains("is used although its mod counter")),
        "{best:?}"
    );
}

/// A component with a greater counter than all others, which hold everything, was used elsewhere.
#[test]
fn one_that_is_ahead_by_itself_is_left_out() {
    let Some(contents) = ext4(5, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 4, &contents);
    components[2].relabel(|label| label.mod_counter += 1000);
    components[2].overwrite(RESERVED, &vec![0x77; 1 << 20]);
    let told = scanned(&components);
    assert!(told.contains("mod counter 1000 ahead"), "{told}");
    let best = is_right(&planned(&components), &contents);
    assert!(best.slots[2].is_none() && best.left_out[0].reason.contains("1000 ahead"), "{best:?}");
}

/// What power cuts leave while labels are written: the set has the counter at which it is whole.
#[test]
fn a_power_cut_between_labels_is_no_loss() {
    let Some(contents) = ext4(6, LENGTH) else { return };
    for level in [Level::Raid0, Level::Raid5] {
        let folder = tempfile::tempdir().unwrap();
        let components = set_in(folder.path(), 1, &level, 3, &contents);
        components[0].relabel(|label| {
            label.mod_counter += 1;
            label.clean = false;
        });
        is_right(&planned(&components), &contents);
    }
}

/// Of a set that was in use when the power went its parity map tells where parity may be wrong; without one that is to be trusted it may be
/// wrong anywhere.
#[test]
fn parity_maps_tell_where_parity_may_be_wrong() {
    let Some(contents) = ext4(31, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 4, &contents);
    let told = || {
        let best = is_right(&planned(&components), &contents);
        best.reasons.iter().find(|reason| reason.contains("unconfigured")).cloned()
    };
    assert_eq!(told(), None);
    let regions = 8;
    let running = |label: &mut raidset::label::Label| {
        label.clean = false;
        label.map_flags = 3;
        label.map_regions = regions;
        label.map_mod_counter = label.mod_counter.cast_unsigned();
    };
    components.iter().for_each(|component| component.relabel(running));
    components.iter().for_each(|component| component.overwrite(17408, &[0; 512]));
    assert!(told().unwrap().contains("marks nothing"), "{:?}", told());
    // What any of them marks is marked.
    components[1].overwrite(17408, &[0b10]);
    components[2].overwrite(17408, &[0b1000_0000]);
    let label = components[0].label();
    let stripes = label.num_blocks / u64::from(label.sectors_per_unit);
    let length = stripes.div_ceil(regions.into()) * 3 * u64::from(label.sectors_per_unit) * 512;
    let wanted =
        format!("2 of 8 regions of its parity map, bytes {length} to {}, {} to", 2 * length, 7 * length);
    assert!(told().unwrap().contains(&wanted), "{:?}, not {wanted}", told());
    // One that was used since by something that does not know maps.
    components[3].relabel(|label| label.map_mod_counter = 0);
    assert!(told().unwrap().ends_with("in places"), "{:?}", told());
    // What is not read is told.
    let best = is_right(&planned(&components), &contents);
    assert!(best.reasons.iter().any(|reason| reason.contains("a journal that it may have")), "{best:?}");
}

/// Two disks that say they are the same column: a copy is told, and of others redundancy tells which is right.
#[test]
fn who_claims_the_same_column_is_told() {
    let Some(contents) = ext4(7, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut components = set_in(folder.path(), 1, &Level::Raid5, 4, &contents);
    let copy = Component { path: folder.path().join("00-copy.img"), ..components[2].clone() };
    std::fs::copy(&components[2].path, &copy.path).unwrap();
    components.push(copy.clone());
    let best = is_right(&planned(&components), &contents);
    assert!(best.left_out.len() == 1 && best.left_out[0].reason.contains("it is a copy of"), "{best:?}");
    // Now it has something else on it.
    copy.overwrite(RESERVED, &vec![0x55; (copy.size - RESERVED) as usize]);
    let found = planned(&components);
    let best = is_right(&found, &contents);
    assert!(best.left_out[0].path == copy.path, "{best:?}");
    assert!(best.left_out[0].reason.contains("another component claims column 2"), "{best:?}");
    none_is_wrong_and_sure(&found, &contents);
    assert!(scanned(&components).contains("another component of the same column"));
    // With another one away nothing but contents can tell.
    let found = planned(&components[1..]);
    none_is_wrong_and_sure(&found, &contents);
    assert!(found.candidates.iter().any(|candidate| holds(candidate, &contents)), "{}", render_plan(&found));
}

/// Sets that were given the same serial number are told apart by what they are, or by their units.
#[test]
fn sets_of_one_serial_number_are_told_apart() {
    let (Some(one), Some(two), Some(three)) = (ext4(8, LENGTH), ext4(9, LENGTH), ext4(10, LENGTH)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sets = [(0, Level::Raid1, 2, &one), (1, Level::Raid1, 2, &two), (2, Level::Raid5, 3, &three)];
    let mut components = Vec::new();
    for (unit, level, columns, contents) in sets {
        components.extend(set_in(folder.path(), unit, &level, columns, contents));
    }
    components.iter().for_each(|component| component.relabel(|label| label.serial_number = 1));
    let found = planned(&components);
    for (name, contents) in [("raid0", &one), ("raid1", &two), ("raid2", &three)] {
        let own = found.candidates.iter().find(|candidate| candidate.array == name).unwrap();
        assert!(own.score > SURE && holds(own, contents), "{}", render_plan(&found));
    }
    assert_eq!(found.candidates.len(), 3, "{}", render_plan(&found));
}

/// Machines of the other byte order, labels of version 1, and disks with sectors of 4096 bytes.
#[test]
fn labels_of_all_ages_and_machines() {
    let Some(contents) = ext4(11, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 4, &Level::Raid5, 4, &contents);
    components.iter().for_each(|component| component.relabel(|label| label.byte_order = ByteOrder::Big));
    is_right(&planned(&components[..3]), &contents);
    components[1].relabel(|label| label.byte_order = ByteOrder::Little);
    let told = scanned(&components);
    assert!(told.contains("byte order"), "{told}");
    is_right(&planned(&components), &contents);
    let large = files(folder.path(), "4k", 4, components[0].size + 8 * RESERVED);
    for (from, to) in components.iter().zip(&large) {
        let bytes = std::fs::read(&from.path).unwrap();
        to.overwrite(0, &bytes[..RESERVED as usize]);
        to.overwrite(8 * RESERVED, &bytes[RESERVED as usize..]);
        to.relabel(|label| {
            label.block_size *= 8;
            label.sectors_per_unit /= 8;
            label.num_blocks /= 8;
        });
    }
    is_right(&planned(&large[..3]), &contents);
}

/// Labels that can't be are told by field, and lead to no array that calls itself right.
#[test]
fn hostile_labels_are_refused() {
    let Some(contents) = ext4(12, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 3, &contents);
    let sound: Vec<Vec<u8>> =
        components.iter().map(|component| std::fs::read(&component.path).unwrap()).collect();
    let restore =
        || components.iter().zip(&sound).for_each(|(component, bytes)| component.overwrite(0, bytes));
    for (field, at, value) in [
        ("num_columns", 24, 1 << 30),
        ("num_columns", 24, 40),
        ("column", 16, 3),
        ("column", 16, u32::MAX),
        ("clean", 28, 77),
        ("numBlocks", 60, 0),
        ("sectPerSU", 36, 0),
        ("future_use", 100, 9),
    ] {
        restore();
        components[0].overwrite(16384 + at, &u32::to_le_bytes(value));
        let told = scanned(&components);
        assert!(told.contains("component label") && told.contains(field), "{field} {value}: {told}");
        // The others do without it.
        is_right(&planned(&components), &contents);
    }
    // All of them say the same that can't be, or what no disk can hold.
    for (at, value) in
        [(24, 1 << 30), (36, u32::MAX), (60, u32::MAX), (48, u32::from(b'L')), (24, 39), (216, 99), (36, 31)]
    {
        restore();
        components.iter().for_each(|component| component.overwrite(16384 + at, &u32::to_le_bytes(value)));
        let _ = scanned(&components);
        none_is_wrong_and_sure(&planned(&components), &contents);
    }
    // Columns that contradict each other: everybody is the first.
    restore();
    components.iter().for_each(|component| component.relabel(|label| label.column = 0));
    none_is_wrong_and_sure(&planned(&components), &contents);
    // Sizes beyond the disk are told.
    restore();
    std::fs::File::options().write(true).open(&components[1].path).unwrap().set_len(4 << 20).unwrap();
    assert!(scanned(&components).contains("it is cut short"));
    is_right(&planned(&components), &contents);
}

/// Where only some have a label left, contents are asked, and none of what parity alone may be is taken for right because a label
/// stands at its beginning.
#[test]
fn a_few_labels_are_no_hindrance() {
    let Some(contents) = ext4(25, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 5, &contents);
    components[2..].iter().for_each(|component| component.overwrite(0, &vec![0; RESERVED as usize]));
    let found = planned(&components);
    is_right(&found, &contents);
    none_is_wrong_and_sure(&found, &contents);
    assert!(found.candidates.len() < 10, "{}", found.candidates.len());
}

/// Levels whose layout md does not have are told, and not guessed at.
#[test]
fn levels_that_are_not_read_are_told() {
    let Some(contents) = ext4(13, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::RotatedSparing, 5, &contents);
    let images = open(&components);
    let scan = scan(&images);
    assert!(render_scan(&scan).contains("level R is not read here"), "{}", render_scan(&scan));
    assert!(plan(&images, &scan).candidates.is_empty());
}

/// Without labels the contents tell: RAIDframe's level 5 is md's, 64 sectors behind the beginning.
#[test]
fn without_labels_contents_tell() {
    let Some(contents) = ext4(14, 24 << 20) else { return };
    for (level, columns, most) in
        [(Level::Raid5, 4, 1), (Level::Raid6, 5, 1), (Level::Raid0, 3, 0), (Level::Raid4, 4, 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let components = set_in(folder.path(), 1, &level, columns, &contents);
        components.iter().for_each(|component| component.overwrite(0, &vec![0; RESERVED as usize]));
        for gone in 0..=most {
            let best = is_right(&planned(&components[gone..]), &contents);
            assert!(best.slots.iter().flatten().all(|slot| slot.data_offset == RESERVED), "{best:?}");
        }
    }
}

/// Of ciphertext parity alone tells the order and where level 6 begins, but that is not sure.
#[test]
fn without_labels_and_contents_parity_tells_of_level_6() {
    let mut contents = vec![0; LENGTH as usize];
    Rng::new(17).fill(&mut contents);
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid6, 6, &contents);
    components.iter().for_each(|component| component.overwrite(0, &vec![0; RESERVED as usize]));
    let found = planned(&components);
    assert!(found.candidates.iter().any(|candidate| holds(candidate, &contents)), "{}", render_plan(&found));
    none_is_wrong_and_sure(&found, &contents);
}

/// A set that was made anew with its disks in another order is not believed: what was there before is found.
#[test]
fn made_anew_in_another_order() {
    let Some(contents) = ext4(15, 24 << 20) else { return };
    let folder = tempfile::tempdir().unwrap();
    let components = set_in(folder.path(), 1, &Level::Raid5, 4, &contents);
    let other: Vec<Component> = [2, 0, 3, 1].map(|column| components[column].clone()).into();
    make(1, &Level::Raid5, 64, &other, &[]);
    let found = planned(&components);
    let best = is_right(&found, &contents);
    assert_ne!(best.array, "raid1");
    none_is_wrong_and_sure(&found, &contents);
}

/// Where something speaks against the older set it is told nevertheless, beside the newer one, and neither is sure.
#[test]
fn what_may_have_been_there_before_is_told() {
    let Some(contents) = ext4(16, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let used = made::component_size(&Level::Raid5, 4, contents.len());
    let components = files(folder.path(), "old", 4, 2 * used);
    make(1, &Level::Raid5, 32, &components, &contents);
    let other: Vec<Component> = [2, 0, 3, 1].map(|column| components[column].clone()).into();
    make(1, &Level::Raid0, 64, &other, &[]);
    // Behind the file system is what no parity fits.
    for (seed, component) in (0..).zip(&components) {
        let mut noise = vec![0; used as usize];
        Rng::new(seed).fill(&mut noise);
        component.overwrite(used, &noise);
    }
    let found = planned(&components);
    assert!(found.candidates.iter().all(|candidate| candidate.score <= SURE), "{}", render_plan(&found));
    let older = found.candidates.iter().find(|candidate| holds(candidate, &contents));
    let older = older.unwrap_or_else(|| panic!("{}", render_plan(&found)));
    assert!(older.reasons.iter().any(|reason| reason.contains("this may be it")), "{older:?}");
    let newer = found.candidates.iter().find(|candidate| candidate.array == "raid1").unwrap();
    assert!(newer.reasons.iter().any(|reason| reason.contains("may have been is among")), "{newer:?}");
}
