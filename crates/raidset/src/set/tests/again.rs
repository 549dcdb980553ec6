//! Sets that are taken into use again: what goes on, what is kept, what is refused.

use super::*;
use crate::extension::Extension;

#[test]
fn a_rebuild_goes_on_from_its_checkpoint() {
    let disks = disks(4, 8);
    let set = new_set(Level::Raid5, &disks);
    let model = contents(&set);
    let new = disk("new", 99);
    set.reconstruct_in_place(2, Some(slot(&new)), 0).unwrap();
    set.rebuild_step(10).unwrap();
    let rows = set.rebuild_checkpoint().unwrap();
    assert_eq!(rows, 10);
    assert!(matches!(set.unconfigure(), Err(SetError::Rebuilding { .. })));
    let mut crashed: Vec<_> = disks.iter().map(|disk| Arc::new(disk.fork())).collect();
    let new = Arc::new(new.fork());
    crashed.iter().chain([&new]).for_each(|disk| disk.power_cut(Cut::DropAll));
    crashed[2] = new.clone();
    let before = new.counts().bytes_written;
    // By a file, with nothing remembered.
    let set = configure(Level::Raid5, &crashed, false).unwrap();
    assert_eq!(set.status().columns[2].status, Status::Reconstructing);
    finish_rebuild(&set);
    // The rows that were left, the parity map, the label and the extension area, both twice.
    let others = 512 + 2 * 1024 + 2 * 4096;
    assert_eq!(new.counts().bytes_written - before, (ROWS - rows) * u64::from(UNIT) * SECTOR + others);
    assert!(contents(&set) == model);
    set.check_parity(&mut 0, u64::MAX, false).unwrap();
    assert_eq!(mismatches(&set), 0);
}

/// A configuration file that still names a spare as a spare finds it in the place of its column, and goes on with copying it back.
#[test]
fn a_spare_in_use_is_found_by_a_file_and_a_copyback_goes_on() {
    let (disks, spare) = (disks(3, 21), disk("spare", 22));
    let set = new_set(Level::Raid5, &disks);
    let model = contents(&set);
    set.add_spare(slot(&spare)).unwrap();
    set.reconstruct_to_spare(1).unwrap();
    finish_rebuild(&set);
    set.unconfigure().unwrap();
    let by_file = || {
        let spares = vec![slot(&disk("unused", 1)), slot(&spare)];
        RaidSet::configure(0, parameters(Level::Raid5), slots(&disks), spares, false, Arc::new(Inline))
            .unwrap()
    };
    let states = |set: &RaidSet| {
        let status = set.status();
        let all = status.columns.into_iter().chain(status.spares);
        all.map(|one| format!("{} {}", one.name, one.status.word())).collect::<Vec<_>>().join(", ")
    };
    let set = by_file();
    assert_eq!(states(&set), "sd0 optimal, sd1 spared, sd2 optimal, unused spare, spare used_spare");
    set.copyback(1).unwrap();
    set.rebuild_step(9).unwrap();
    set.rebuild_checkpoint().unwrap();
    // As a crash leaves it.
    drop(set);
    let set = by_file();
    let (kind, column, progress) = set.rebuild_progress().unwrap();
    assert_eq!((kind, column, progress.done), (RebuildKind::Copyback, 1, 9));
    finish_rebuild(&set);
    assert_eq!(states(&set), "sd0 optimal, sd1 optimal, sd2 optimal, unused spare, spare spare");
    assert!(contents(&set) == model && mismatches(&set) == 0);
}

/// What `-C` makes of a journal: kept and carried out where labels agree, left out and told where they do not.
#[test]
fn force_keeps_the_journal_where_labels_agree() {
    for agree in [true, false] {
        let size = DISK + (1 << 20);
        let disks: Vec<_> = (0..4).map(|i| disk_of(&format!("sd{i}"), 50 + i, size)).collect();
        let new = || {
            let slots = slots(&disks);
            RaidSet::configure_with_journal(0, parameters(Level::Raid5), slots, vec![], Arc::new(Inline))
        };
        let set = new().unwrap();
        set.init_labels(7).unwrap();
        rewrite(&set);
        set.fail_column(3).unwrap();
        set.reconstruct_in_place(3, None, 0).unwrap();
        finish_rebuild(&set);
        let capacity = set.journal();
        assert!(capacity.is_some());
        set.write(0, &[9; 3000]).unwrap();
        let model = contents(&set);
        if !agree {
            let mut label = Label::read(&*disks[2]).unwrap().unwrap();
            label.mod_counter -= 4;
            label.write(&*disks[2]).unwrap();
        }
        let set = configure(Level::Raid5, &disks, true).unwrap();
        assert_eq!(set.journal(), capacity.filter(|_| agree));
        assert_eq!((set.notes().is_empty(), set.parity_good()), (agree, agree));
        assert!(contents(&set) == model);
    }
}

/// A component that joined the set between two records has the head of their epoch: it may be the last one that is left, and
/// what its journal holds must not look older than the set (simulator, 3446888150098).
#[test]
fn the_journal_of_a_late_component_is_carried_out() {
    for back in [false, true] {
        let size = DISK + (1 << 20);
        let disks: Vec<_> = (0..2).map(|i| disk_of(&format!("sd{i}"), 60 + i, size)).collect();
        let spare = disk_of("spare", 63, size);
        let slots = slots(&disks);
        let runner = Arc::new(Inline);
        let set =
            RaidSet::configure_with_journal(0, parameters(Level::Raid4), slots, vec![], runner).unwrap();
        set.init_labels(7).unwrap();
        rewrite(&set);
        set.write(0, &[8; 3000]).unwrap();
        set.add_spare(slot(&spare)).unwrap();
        set.reconstruct_to_spare(1).unwrap();
        finish_rebuild(&set);
        if back {
            // Its log is empty now, and that of the spare is not.
            set.write(0, &[7; 1000]).unwrap();
            set.copyback(1).unwrap();
            finish_rebuild(&set);
        }
        let left = if back { &disks[1] } else { &spare };
        let nothing = DeviceErrorKind::Io("simulated".to_owned());
        disks[0].plan(2, Some(Operation::Flush), device::sim::Effect::Fail(nothing));
        set.write(0, &[9; 3000]).unwrap();
        set.write(7000, &[5; 300]).unwrap();
        assert_eq!(set.status().columns[0].status, Status::Failed);
        let model = contents(&set);
        let known = set.known();
        let names = |name: &str| {
            [&disks[0], &disks[1], &spare]
                .into_iter()
                .find(|disk| disk.info().name == name)
                .map(slot)
                .unwrap()
        };
        let columns: Vec<Slot> = known.columns.iter().map(|column| names(&column.name)).collect();
        let spares: Vec<Slot> = known.spares.iter().map(|spare| names(&spare.name)).collect();
        left.power_cut(Cut::DropAll);
        let runner = Arc::new(Inline);
        let parameters = parameters(Level::Raid4);
        let set = RaidSet::attach(0, parameters, &columns, &spares, &known, runner).unwrap();
        assert_eq!(set.status().columns[0].status, Status::Failed);
        assert!(contents(&set) == model, "copied back: {back}");
    }
}

/// A copyback that goes on after a power cut copies what was being written then once more: the target may have lost what the spare
/// kept (simulator, 20261121117).
#[test]
fn a_copyback_copies_again_what_a_power_cut_left_in_doubt() {
    let (disks, spare) = (disks(3, 31), disk("spare", 32));
    let set = new_set(Level::Raid5, &disks);
    set.set_map_parameters(0, 0, 4).unwrap();
    set.unconfigure().unwrap();
    let set = configure(Level::Raid5, &disks, false).unwrap();
    set.add_spare(slot(&spare)).unwrap();
    set.reconstruct_to_spare(0).unwrap();
    finish_rebuild(&set);
    set.copyback(0).unwrap();
    set.rebuild_step(20).unwrap();
    set.rebuild_checkpoint().unwrap();
    set.write(0, &vec![7; 2 * UNIT as usize * SECTOR as usize]).unwrap();
    let (model, known) = (contents(&set), set.known());
    disks[0].power_cut(Cut::DropAll);
    disks[1..].iter().chain([&spare]).for_each(|disk| disk.power_cut(Cut::KeepAll));
    let (parameters, runner) = (parameters(Level::Raid5), Arc::new(Inline));
    let set = RaidSet::attach(0, parameters, &slots(&disks), &[slot(&spare)], &known, runner).unwrap();
    let before = disks[0].counts().bytes_written;
    rewrite(&set);
    finish_rebuild(&set);
    assert!(contents(&set) == model && mismatches(&set) == 0);
    // Of the rows before the checkpoint only those of the region that was in use; a label more than a rebuild writes.
    let copied = disks[0].counts().bytes_written - before;
    let most = (ROWS - 20 + ROWS / 4) * u64::from(UNIT) * SECTOR + 4 * (512 + 1024 + 4096);
    assert!(copied <= most, "{copied} > {most}");
}

/// A spare that was copied back and could not be told so keeps the label of its column: found by scanning, the set does not take it
/// for the column, in whichever order they are found.
#[test]
fn a_released_spare_is_not_taken_for_its_column() {
    for spare_first in [true, false] {
        let (disks, spare) = (disks(3, 41), disk("spare", 42));
        let set = new_set(Level::Raid5, &disks);
        set.add_spare(slot(&spare)).unwrap();
        set.reconstruct_to_spare(0).unwrap();
        finish_rebuild(&set);
        set.copyback(0).unwrap();
        set.rebuild_step(ROWS - 1).unwrap();
        // Its label, the extension area, and what should take the label away.
        let error = DeviceErrorKind::Io("simulated".to_owned());
        spare.plan(2, Some(Operation::Write), device::sim::Effect::Fail(error));
        finish_rebuild(&set);
        spare.clear_plans();
        let label = Label::read(&*spare).unwrap().unwrap();
        assert_eq!((label.column, label.serial_number), (0, 4711), "it still has the label");
        set.write(0, &vec![3; 9000]).unwrap();
        let model = contents(&set);
        drop(set);
        let mut all = disks.clone();
        all.insert(if spare_first { 0 } else { 3 }, spare);
        let extensions: Vec<_> = all.iter().map(|disk| Extension::read(&**disk).unwrap()).collect();
        let mut labels: Vec<_> = all.iter().map(|disk| Label::read(&**disk).unwrap().ok()).collect();
        crate::judge::complete(labels.iter_mut().flatten(), &extensions);
        let (mut candidates, mut devices): (Vec<_>, Vec<Arc<dyn BlockDevice>>) = (Vec::new(), Vec::new());
        for ((disk, label), extension) in all.iter().zip(labels).zip(&extensions) {
            let name = disk.info().name.clone();
            let candidate = Candidate::of(name, label.unwrap(), DISK / SECTOR, extension.as_ref());
            candidates.extend(candidate.inspect(|_| devices.push(disk.clone())));
        }
        let sets = group(&candidates);
        let set =
            RaidSet::assemble(0, &sets[0], &candidates, &devices, &slots(&all), Arc::new(Inline)).unwrap();
        let names: Vec<_> = set.status().columns.into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["sd0", "sd1", "sd2"], "spare first: {spare_first}");
        assert!(contents(&set) == model);
    }
}

/// Declustered sets: found by scanning with the design that their components hold, and never mixed with another design or, for `Q`,
/// with what RAIDframe makes of the letter.
#[test]
fn block_designs_are_kept_and_not_mixed() {
    use crate::design::{Design, tests::FIVE};
    let five = &Arc::new(Design::parse(FIVE).unwrap());
    let other = Design::parse("5 5 4 4 3 norotate 0 1 2 3 0 1 2 4 0 1 3 4 0 2 3 4 1 2 3 4").unwrap();
    let other = &Arc::new(other);
    for letter in ['T', 'Q', 'e'] {
        let level = |design: &Arc<Design>| Level::with_design(letter, Some(design.clone())).unwrap();
        let mut run = Run::new(level(five), 5, 3);
        run.write();
        run.restart();
        assert_eq!(*run.set.layout().level(), level(five));
        assert!(contents(&run.set) == run.model);
        run.set.unconfigure().unwrap();
        let mixed = configure(level(other), &run.all, false).map(drop);
        assert_eq!(mixed, Err(ConfigureError::Design));
        let units = Parameters { units_per_parity_unit: 2, ..parameters(level(five)) };
        let made = RaidSet::configure(0, units, slots(&run.all), vec![], true, Arc::new(Inline));
        assert!(matches!(made, Err(ConfigureError::ParityUnit { .. })));
        // Another program has used it since.
        for disk in &run.all {
            let mut label = Label::read(&**disk).unwrap().unwrap();
            label.mod_counter += 2;
            label.write(&**disk).unwrap();
        }
        let again = configure(level(five), &run.all, false).map(|set| contents(&set) == run.model);
        let foreign = Err(ConfigureError::Foreign { level: level(five) });
        assert_eq!(again, if letter == 'Q' { foreign } else { Ok(true) });
    }
}

/// A file whose level or stripe unit is another than the labels say is refused.
#[test]
fn another_shape_is_refused() {
    let disks = disks(4, 77);
    new_set(Level::Raid5, &disks).unconfigure().unwrap();
    let before: Vec<_> = disks.iter().map(|disk| disk.counts().bytes_written).collect();
    for (level, unit) in [(Level::Raid4, UNIT), (Level::Raid5, 2 * UNIT), (Level::Raid0, UNIT)] {
        let parameters = Parameters { sectors_per_unit: unit, ..parameters(&level) };
        let made = RaidSet::configure(0, parameters, slots(&disks), vec![], false, Arc::new(Inline));
        assert!(matches!(made, Err(ConfigureError::Refused { .. })), "{level} {unit}");
    }
    assert!(before == disks.iter().map(|disk| disk.counts().bytes_written).collect::<Vec<_>>());
}

/// Labels that tell of other sectors or of more of them than there are: the component is failed and named, and with too many of them the set is
/// refused.
#[test]
fn components_that_are_not_what_their_labels_say() {
    for (sector, more, why) in [
        (4096, 0, "has sectors of 512 bytes, but its label says 4096"),
        (512, 1 << 20, "but its label needs"),
    ] {
        let disks = disks(3, 91);
        new_set(Level::Raid5, &disks).unconfigure().unwrap();
        let edit = |disk: &Arc<SimDevice>| {
            let mut label = Label::read(&**disk).unwrap().unwrap();
            label.block_size = sector;
            label.num_blocks += more;
            label.write(&**disk).unwrap();
        };
        edit(&disks[1]);
        let set = configure(Level::Raid5, &disks, false).unwrap();
        let [note] = &set.notes()[..] else { panic!("{:?}", set.notes()) };
        assert!(note.starts_with("sd1 counts as failed: it ") && note.contains(why), "{note}");
        set.unconfigure().unwrap();
        edit(&disks[2]);
        let before: Vec<_> = disks.iter().map(|disk| disk.counts().bytes_written).collect();
        let refused = configure(Level::Raid5, &disks, false).map(drop).unwrap_err();
        assert!(
            refused.to_string().contains("sd2 counts as failed: it ") && refused.to_string().contains(why),
            "{refused}"
        );
        assert!(before == disks.iter().map(|disk| disk.counts().bytes_written).collect::<Vec<_>>());
    }
}

/// Columns that are lost one after the other are left with different counters. A file names them all the same: the extension areas know
/// which they are, whether they are there or not.
#[test]
fn several_lost_columns_are_known_by_a_file_too() {
    for (level, columns, lost) in [
        (Level::Raid6, 5, &[1, 2][..]),
        (Level::EvenOdd, 5, &[4, 0][..]),
        (Level::Mirror, 4, &[0, 1, 3][..]),
        (Level::Raid1, 4, &[0, 2][..]),
        (Level::Raid1, 6, &[5, 2, 1][..]),
        (Level::Chained, 5, &[3, 0][..]),
    ] {
        let disks = disks(columns, 33);
        let set = new_set(&level, &disks);
        for &column in lost {
            set.fail_column(column).unwrap();
            set.write(0, &[column as u8; 3000]).unwrap();
        }
        let model = contents(&set);
        set.unconfigure().unwrap();
        let gone = |there: bool| -> Vec<Slot> {
            let all = slots(&disks).into_iter().enumerate();
            let slot = |(column, slot): (usize, Slot)| {
                let device = slot.device.filter(|_| there || !lost.contains(&column));
                Slot { device, name: slot.name }
            };
            all.map(slot).collect()
        };
        for there in [false, true] {
            let runner = Arc::new(Inline);
            let set = RaidSet::configure(0, parameters(&level), gone(there), vec![], false, runner);
            let set = set.unwrap_or_else(|error| panic!("{level}: {error}"));
            assert_eq!(set.notes().len(), if there { lost.len() } else { 0 }, "{:?}", set.notes());
            assert!(contents(&set) == model, "{level}");
            if there {
                for &column in lost {
                    set.reconstruct_in_place(column, None, 0).unwrap();
                    finish_rebuild(&set);
                }
                assert!(set.status().columns.iter().all(|column| column.status == Status::Optimal));
                assert!(contents(&set) == model && mismatches(&set) == 0, "{level}");
            }
            set.unconfigure().unwrap();
        }
    }
}

/// Another program that has used a set since has other counters: what our areas tell of lost columns is void.
#[test]
fn old_tales_of_lost_columns_do_not_count() {
    let disks = disks(4, 34);
    let set = new_set(Level::Raid1, &disks);
    set.fail_column(0).unwrap();
    set.fail_column(2).unwrap();
    set.unconfigure().unwrap();
    for (index, disk) in disks.iter().enumerate() {
        let mut label = Label::read(&**disk).unwrap().unwrap();
        label.mod_counter += if index % 2 == 0 { 0 } else { 5 };
        label.write(&**disk).unwrap();
    }
    assert!(matches!(configure(Level::Raid1, &disks, false), Err(ConfigureError::Refused { .. })));
}

/// The majority has a lower counter than one component: it goes on from the greater, so that it is the newest from then on.
#[test]
fn the_majoritys_next_counter_is_the_greatest() {
    let disks = disks(3, 35);
    new_set(Level::Raid5, &disks).unconfigure().unwrap();
    for disk in &disks {
        Extension::wipe(&**disk).unwrap();
    }
    let counter = |disk: usize| Label::read(&*disks[disk]).unwrap().unwrap().mod_counter;
    for (disk, lower) in disks.iter().zip([5, 5, 0]) {
        let mut label = Label::read(&**disk).unwrap().unwrap();
        label.mod_counter += 10 - lower;
        label.write(&**disk).unwrap();
    }
    let set = configure(Level::Raid5, &disks, false).unwrap();
    assert_eq!(set.status().columns[2].status, Status::Failed);
    assert!(counter(0) > counter(2) && counter(1) == counter(0));
}

/// A component that has become smaller meanwhile is failed: it does not make the set smaller.
#[test]
fn a_component_that_shrank_counts_as_failed() {
    let disks = disks(3, 37);
    let set = new_set(Level::Raid5, &disks);
    let (model, known) = (contents(&set), set.known());
    set.close().unwrap();
    drop(set);
    disks[1].set_size(DISK / 2);
    let attach =
        || RaidSet::attach(0, parameters(Level::Raid5), &slots(&disks), &[], &known, Arc::new(Inline));
    let set = attach().unwrap();
    assert_eq!(set.status().columns[1].status, Status::Failed);
    assert!(contents(&set) == model);
    drop(set);
    disks[2].set_size(DISK / 2);
    let why = attach().unwrap_err().to_string();
    assert!(why.contains("sd2 counts as failed: it has") && why.contains("its label needs"), "{why}");
}

/// Labels say that the parity is good once it is, not before.
#[test]
fn new_labels_are_not_clean() {
    let disks = disks(3, 36);
    let set = configure(Level::Raid5, &disks, true).unwrap();
    set.close().unwrap();
    let known = set.known();
    drop(set);
    let attach = || {
        RaidSet::attach(0, parameters(Level::Raid5), &slots(&disks), &[], &known, Arc::new(Inline)).unwrap()
    };
    attach().init_labels(5).unwrap();
    assert!(disks.iter().all(|disk| !Label::read(&**disk).unwrap().unwrap().clean));
    assert!(!configure(Level::Raid5, &disks, false).unwrap().parity_good());
}
