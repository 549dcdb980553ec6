//! Columns in the free units of the others: level `R` with distributed sparing.

use super::*;

/// Writes here and there, to the set and to the model.
fn scribble(set: &RaidSet, model: &mut [u8], rng: &mut Rng, writes: u64) {
    for _ in 0..writes {
        let length = (1 + rng.below(6 * u64::from(UNIT))).min(model.len() as u64 / SECTOR);
        let offset = rng.below(model.len() as u64 / SECTOR - length + 1);
        let range = (offset * SECTOR) as usize..((offset + length) * SECTOR) as usize;
        rng.fill(&mut model[range.clone()]);
        set.write(range.start as u64, &model[range]).unwrap();
    }
}

/// Rebuilds in small steps, writing between them.
fn rebuild_under_load(set: &RaidSet, model: &mut [u8], rng: &mut Rng) {
    while set.rebuild_progress().is_some() {
        set.rebuild_step(1 + rng.below(5)).unwrap();
        scribble(set, model, rng, 2);
    }
    assert!(contents(set) == model);
}

fn states(set: &RaidSet) -> String {
    let status = set.status();
    let all = status.columns.into_iter().chain(status.spares);
    all.map(|one| one.status.word()).collect::<Vec<_>>().join(" ")
}

/// Where each unit is, as the disks tell: row by row the contents of columns, the free one last.
fn free_units(disks: &[Arc<SimDevice>], layout: &Layout, lost: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let unit = UNIT as usize * SECTOR as usize;
    let at = |column: usize, row: u64| {
        let mut bytes = vec![0; unit];
        disks[column].read(64 * SECTOR + row * unit as u64, &mut bytes).unwrap();
        bytes
    };
    let rows = (0..layout.rows()).filter(|&row| layout.free_column(row) != Some(lost));
    let told = rows.map(|row| {
        let free = layout.free_column(row).unwrap();
        // Any unit of a row is the XOR of the others, its parity among them.
        let others = (0..disks.len()).filter(|&column| column != lost && column != free);
        let made = others.fold(vec![0; unit], |sum: Vec<u8>, column| {
            sum.iter().zip(at(column, row)).map(|(a, b)| a ^ b).collect()
        });
        (made, at(free, row))
    });
    told.collect()
}

/// Under load: into the free units, another loss, that one rebuilt, and back.
#[test]
fn a_lost_column_is_kept_in_the_free_units() {
    for (columns, journal) in [(3, false), (4, true), (5, false)] {
        for lost in [0, columns - 2] {
            let mut rng = Rng::new((columns * 10 + lost) as u64);
            let size = DISK + (1 << 18);
            let disks: Vec<_> =
                (0..columns).map(|i| disk_of(&format!("sd{i}"), i as u64 + 7, size)).collect();
            let make = if journal {
                RaidSet::configure_with_journal
            } else {
                |unit, parameters, columns, spares, runner| {
                    RaidSet::configure(unit, parameters, columns, spares, true, runner)
                }
            };
            let set =
                make(0, parameters(Level::RotatedSparing), slots(&disks), vec![], Arc::new(Inline)).unwrap();
            set.init_labels(4711).unwrap();
            rewrite(&set);
            let mut model = contents(&set);
            scribble(&set, &mut model, &mut rng, 10);
            disks[lost].pull();
            set.reconstruct_to_spare(lost).unwrap();
            assert_eq!(set.status().columns[lost].status, Status::Reconstructing);
            rebuild_under_load(&set, &mut model, &mut rng);
            assert_eq!(
                (set.status().columns[lost].status, set.in_free_units()),
                (Status::Spared, Some(lost))
            );
            scribble(&set, &mut model, &mut rng, 20);
            assert!(contents(&set) == model && mismatches(&set) == 0);
            for (made, found) in free_units(&disks, set.layout(), lost) {
                assert!(made == found, "the free units hold what column {lost} should");
            }
            // There is no room for another, but a loss is survived, and a spare takes its place.
            let next = (lost + 1 + rng.below(columns as u64 - 1) as usize) % columns;
            assert_eq!(set.reconstruct_to_spare(next), Err(SetError::NoSpare));
            disks[next].pull();
            set.fail_column(next).unwrap();
            scribble(&set, &mut model, &mut rng, 20);
            assert!(contents(&set) == model);
            let third = (0..columns).find(|&other| other != lost && other != next).unwrap();
            assert!(matches!(set.fail_column(third), Err(SetError::Needed { .. })));
            assert!(matches!(
                set.copyback(lost),
                Err(SetError::Unfit { .. } | SetError::Needed { .. } | SetError::Device(_))
            ));
            let spare = disk_of("spare", 5, size);
            set.add_spare(slot(&spare)).unwrap();
            set.reconstruct_to_spare(next).unwrap();
            rebuild_under_load(&set, &mut model, &mut rng);
            assert_eq!(mismatches(&set), 0);
            // Back, on a new disk.
            let new = disk_of("new", 6, size);
            set.reconstruct_in_place(lost, Some(slot(&new)), 0).unwrap();
            rebuild_under_load(&set, &mut model, &mut rng);
            assert_eq!(set.in_free_units(), None);
            assert!(contents(&set) == model && mismatches(&set) == 0);
            // And the free units are free for the next.
            set.reconstruct_to_spare(third).unwrap();
            rebuild_under_load(&set, &mut model, &mut rng);
            set.copyback(third).unwrap();
            rebuild_under_load(&set, &mut model, &mut rng);
            scribble(&set, &mut model, &mut rng, 20);
            assert!(contents(&set) == model && mismatches(&set) == 0);
            assert!(!states(&set).contains("failed"), "{}", states(&set));
        }
    }
}

/// Taken into use again in each way; but not if somebody who knows nothing of it has used the set since.
#[test]
fn the_free_units_are_found_again() {
    let disks = disks(5, 31);
    let set = new_set(Level::RotatedSparing, &disks);
    let mut model = contents(&set);
    let mut rng = Rng::new(9);
    set.reconstruct_to_spare(1).unwrap();
    set.rebuild_step(10).unwrap();
    scribble(&set, &mut model, &mut rng, 5);
    set.rebuild_checkpoint().unwrap();
    // It goes on from the last checkpoint after a crash.
    let known = set.known();
    drop(set);
    let attach = |known: &Known| {
        let slots = slots(&disks);
        RaidSet::attach(0, parameters(Level::RotatedSparing), &slots, &[], known, Arc::new(Inline)).unwrap()
    };
    let set = attach(&known);
    assert_eq!(set.rebuild_progress().unwrap().2.done, 10);
    assert!(contents(&set) == model);
    finish_rebuild(&set);
    scribble(&set, &mut model, &mut rng, 5);
    let known = set.known();
    // As a crash leaves it, and closed.
    for close in [false, true] {
        if close {
            set.close().unwrap();
        }
        let again = attach(&known);
        assert_eq!(states(&again), "optimal spared optimal optimal optimal");
        assert!(contents(&again) == model);
    }
    drop(set);
    let set = configure(Level::RotatedSparing, &disks, false).unwrap();
    assert_eq!(states(&set), "optimal spared optimal optimal optimal");
    scribble(&set, &mut model, &mut rng, 5);
    set.set_autoconfigure(true, 0).unwrap();
    set.unconfigure().unwrap();
    let assemble = || {
        let devices: Vec<Arc<dyn BlockDevice>> = disks.iter().map(|disk| disk.clone() as _).collect();
        let candidates: Vec<Candidate> = disks
            .iter()
            .map(|disk| {
                let label = Label::read(&**disk).unwrap().unwrap();
                let extension = crate::extension::Extension::read(&**disk).unwrap();
                let name = disk.info().name.clone();
                Candidate::of(name, label, DISK / SECTOR, extension.as_ref()).unwrap()
            })
            .collect();
        let found = group(&candidates);
        let found = found.iter().max_by_key(|found| found.mod_counter).unwrap();
        RaidSet::assemble(0, found, &candidates, &devices, &[], Arc::new(Inline)).unwrap()
    };
    let set = assemble();
    assert_eq!(set.status().columns[1].status, Status::Spared);
    scribble(&set, &mut model, &mut rng, 5);
    assert!(contents(&set) == model && mismatches_after_rewrite(&set) == 0);
    // With another loss as well.
    set.fail_column(3).unwrap();
    scribble(&set, &mut model, &mut rng, 5);
    set.unconfigure().unwrap();
    for set in [assemble(), configure(Level::RotatedSparing, &disks, false).unwrap()] {
        assert_eq!(states(&set), "optimal spared optimal failed optimal");
        assert!(contents(&set) == model);
        set.unconfigure().unwrap();
    }
    let set = attach(&set.known());
    set.reconstruct_in_place(3, None, 0).unwrap();
    finish_rebuild(&set);
    set.unconfigure().unwrap();
    // Somebody else has used the set: its counter has moved on.
    for disk in disks.iter().enumerate().filter(|(column, _)| *column != 1).map(|(_, disk)| disk) {
        let mut label = Label::read(&**disk).unwrap().unwrap();
        label.mod_counter += 2;
        label.write(&**disk).unwrap();
    }
    let set = configure(Level::RotatedSparing, &disks, false).unwrap();
    assert_eq!(states(&set), "optimal failed optimal optimal optimal");
    assert!(contents(&set) == model);
    assert_eq!(attach(&known).status().columns[1].status, Status::Failed);
}

fn mismatches_after_rewrite(set: &RaidSet) -> u64 {
    rewrite(set);
    mismatches(set)
}

/// A device that fails while the free units are filled ends the rebuild; one that fails while they are emptied loses nothing.
#[test]
fn failures_on_the_way() {
    let disks = disks(5, 41);
    let set = new_set(Level::RotatedSparing, &disks);
    let model = contents(&set);
    set.reconstruct_to_spare(2).unwrap();
    set.rebuild_step(8).unwrap();
    disks[4].pull();
    while set.rebuild_progress().is_some() {
        let _ = set.rebuild_step(4);
    }
    assert_eq!(set.status().columns[2].status, Status::Failed);
    disks[4].plug_in();
    assert!(contents(&set) == model);
    set.reconstruct_to_spare(2).unwrap();
    finish_rebuild(&set);
    set.copyback(2).unwrap();
    set.rebuild_step(8).unwrap();
    disks[2].pull();
    while set.rebuild_progress().is_some() {
        let _ = set.rebuild_step(4);
    }
    assert_eq!(states(&set), "optimal optimal failed optimal optimal");
    assert!(contents(&set) == model);
    // Whoever wants spares to start by themselves gets these too.
    set.set_autospare(true);
    assert_eq!(set.wants_spare(), Some(2));
}
