//! What is left out, and what is written, told from the requests that devices get.

use super::*;
use device::sim::Counts;

fn counts(disks: &[Arc<SimDevice>]) -> Vec<Counts> {
    disks.iter().map(|disk| disk.counts()).collect()
}

/// Bytes of data that a disk has: without labels and areas.
fn data(disk: &Arc<SimDevice>) -> Vec<u8> {
    let mut bytes = vec![0; DISK as usize - 32768];
    disk.fork().read(32768, &mut bytes).unwrap();
    bytes
}

/// A parity rewrite that a restart interrupts looks at no region that it had finished: no request reads one, and what is wrong there since
/// stays as it is, while all that was left to do is mended.
#[test]
fn a_resumed_rewrite_leaves_out_what_was_done() {
    for (level, columns) in shapes().into_iter().filter(|(level, _)| *level != Level::Raid0) {
        for by_file in [false, true] {
            let disks = disks(columns, 70);
            // A power cut under writes all over it, which marks all of six regions.
            let set = new_set(&level, &disks);
            set.set_map_parameters(0, 0, 6).unwrap();
            set.unconfigure().unwrap();
            let set = configure(&level, &disks, false).unwrap();
            set.write(0, &contents(&set)).unwrap();
            for disk in &disks {
                disk.power_cut(Cut::KeepAll);
            }
            let set = configure(&level, &disks, false).unwrap();
            let (layout, stripes) = (set.layout().clone(), set.layout().stripes());
            let mut cursor = 0;
            while cursor < stripes / 2 {
                assert!(!set.rewrite_parity(&mut cursor, 1).unwrap().finished());
            }
            let map = set.map_status().unwrap().0.unwrap();
            let marked = map.bits.count();
            assert!(marked > 0 && marked < map.parameters.regions, "{level}: {marked}");
            let region_stripes = map.region_sectors / set.layout().stripe_sectors();
            let first_left = (0..map.parameters.regions).position(|region| map.bits.get(region)).unwrap();
            let done = first_left as u64 * region_stripes;
            assert!(done > 0 && done <= cursor, "{level}: {done} of {cursor}");
            let known = set.known();
            drop(set);
            for disk in &disks {
                disk.power_cut(Cut::DropAll);
            }
            // Where a stripe lies: its redundancy is made wrong, in the first half and behind.
            let spoil = |index: u64| {
                let stripe = layout.stripe(index);
                let unit = stripe.data_columns();
                let at = 32768 + stripe.row(unit) * u64::from(UNIT) * SECTOR;
                disks[stripe.column(unit)].corrupt(at..at + SECTOR, 3);
            };
            spoil(0);
            spoil(stripes - 1);
            let set = if by_file {
                configure(&level, &disks, false).unwrap()
            } else {
                RaidSet::attach(0, parameters(&level), &slots(&disks), &[], &known, Arc::new(Inline)).unwrap()
            };
            assert!(!set.parity_good());
            set.open();
            let before = counts(&disks);
            let mut cursor = 0;
            while !set.rewrite_parity(&mut cursor, 5).unwrap().finished() {}
            assert!(set.parity_good());
            let unit = u64::from(UNIT) * SECTOR;
            let total: u64 =
                counts(&disks).iter().zip(&before).map(|(now, then)| now.bytes_read - then.bytes_read).sum();
            let width = layout.stripe(0).width() as u64;
            assert_eq!(
                total,
                (stripes - done) * width * unit,
                "{level} over {columns}: {done} of {stripes} were done"
            );
            assert_eq!(mismatches(&set), 1, "{level}: only what was spoilt behind the rewrite's back");
        }
    }
}

/// The place of a read that failed is written, with the bytes that were there, and nothing else is: the component stays in use, and the
/// next read of that place is one request that succeeds.
#[test]
fn the_place_of_a_failed_read_is_written_and_no_other() {
    for (level, columns) in shapes().into_iter().filter(|(level, _)| *level != Level::Raid0) {
        let disks = disks(columns, 71);
        let set = new_set(&level, &disks);
        let model = contents(&set);
        // So that nothing else is written meanwhile.
        set.open();
        for sector in (0..set.layout().total_sectors()).step_by(7) {
            let place = set.layout().place(sector);
            let disk = &disks[place.column];
            let at = 32768 + place.sector * SECTOR;
            let held: Vec<Vec<u8>> = disks.iter().map(data).collect();
            disk.add_read_errors(at..at + SECTOR, Healing::OnRewrite);
            let before = counts(&disks);
            let mut bytes = [0; SECTOR as usize];
            // A mirror may read the other copy: until it has come to this one.
            for _ in 0..2 {
                set.read(sector * SECTOR, &mut bytes).unwrap();
                assert!(bytes[..] == model[(sector * SECTOR) as usize..][..SECTOR as usize], "{level}");
            }
            let after = counts(&disks);
            let mut own = [0; SECTOR as usize];
            let hit = disk.fork().read(at, &mut own).is_ok();
            let copies = level.code() == crate::layout::Code::Copies;
            assert!(hit || copies, "{level}: sector {sector} was not written anew");
            for (column, (now, then)) in after.iter().zip(&before).enumerate() {
                let expected = u64::from(hit && column == place.column);
                assert_eq!(
                    now.writes - then.writes,
                    expected,
                    "{level}: writes to column {column} for sector {sector}"
                );
            }
            disk.clear_errors(at..at + SECTOR);
            assert!(held == disks.iter().map(data).collect::<Vec<_>>(), "{level}: sector {sector}");
        }
        assert!(set.repairs() > 0, "{level}");
        assert!(set.status().columns.iter().all(|column| column.status == Status::Optimal));
    }
}

/// A rebuild that its target does not take is told as that, wherever it ends: in a step, by a write of the set's user, or with the label at
/// its end, and nobody is told that it was done.
#[test]
fn a_rebuild_that_ends_early_is_told() {
    let begin = || {
        let disks = disks(3, 72);
        let set = new_set(Level::Raid5, &disks);
        let spare = disk("spare", 73);
        set.add_spare(slot(&spare)).unwrap();
        set.reconstruct_to_spare(1).unwrap();
        assert_eq!(set.take_abandoned(), None);
        (set, spare)
    };
    let told = |set: &RaidSet, why: &str| {
        let Abandoned { kind, name, why: told } = set.take_abandoned().unwrap();
        assert_eq!((kind, name.as_str()), (RebuildKind::Reconstruction, "sd1"));
        assert!(told.contains(why) && told.contains("spare"), "{told}");
        assert_eq!((set.take_abandoned(), set.rebuild_progress()), (None, None));
        assert_eq!(set.status().columns[1].status, Status::Failed);
    };
    let (set, spare) = begin();
    spare.add_write_errors(32768 + 5 * SECTOR..DISK);
    assert!(matches!(set.rebuild_step(u64::MAX), Err(SetError::Device(_))));
    told(&set, "");
    // By a write.
    let (set, spare) = begin();
    set.rebuild_step(3).unwrap();
    spare.add_write_errors(0..DISK);
    let size = set.size().unwrap() as usize;
    set.write(0, &vec![3; size]).unwrap();
    told(&set, "cannot be written");
    assert_eq!(set.rebuild_step(3), Err(SetError::NoRebuild));
    // At the end.
    let (set, spare) = begin();
    spare.add_write_errors(16384..16384 + SECTOR);
    assert!(matches!(set.rebuild_step(u64::MAX), Err(SetError::Device(_))), "it is not done");
    told(&set, "");
    // While one runs that is what stands against another, not that its spare is not free.
    let (set, _spare) = begin();
    let busy = set.reconstruct_to_spare(0).unwrap_err().to_string();
    assert_eq!(busy, "sd1 is being reconstructed: one at a time, and -S follows it to its end");
    assert_eq!(set.may_reconstruct_to_spare(2).unwrap_err().to_string(), busy);
}
