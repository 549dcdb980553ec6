//! Several components that are gone at once, of which nothing on the others tells.

use super::*;
use crate::extension::Extension;

/// Slots of which some have another device, or none.
fn with(disks: &[Arc<SimDevice>], gone: &[usize], other: Option<&Arc<SimDevice>>) -> Vec<Slot> {
    let mut slots = slots(disks);
    for &column in gone {
        slots[column].device = other.map(|other| Arc::new(other.fork()) as Arc<dyn BlockDevice>);
    }
    slots
}

fn by_file(level: &Level, slots: Vec<Slot>) -> Result<RaidSet, ConfigureError> {
    RaidSet::configure(0, parameters(level), slots, vec![], false, Arc::new(Inline))
}

/// Of every pair of columns of every shape: the set is taken into use if the others hold everything, and refused, with nothing
/// written, if they do not.
#[test]
fn any_two_may_go_at_once_if_the_others_hold_everything() {
    let mut taken = 0;
    for (level, columns) in shapes().into_iter().filter(|(_, columns)| *columns > 1) {
        let disks = disks(columns, 60);
        let set = new_set(&level, &disks);
        let mut model = vec![0; set.size().unwrap() as usize];
        Rng::new(61).fill(&mut model);
        set.write(0, &model).unwrap();
        let layout = set.layout().clone();
        set.unconfigure().unwrap();
        let blank = Arc::new(SimDevice::new("blank", DISK, 62));
        for (one, two) in (0..columns).flat_map(|one| (one + 1..columns).map(move |two| (one, two))) {
            let gone = [one, two];
            let survives = layout.survives(|column| gone.contains(&column));
            for other in [None, Some(&blank)] {
                let disks: Vec<Arc<SimDevice>> = disks.iter().map(|disk| Arc::new(disk.fork())).collect();
                let writes = || disks.iter().map(|disk| disk.counts().writes).sum::<u64>();
                let before = writes();
                let case = format!("{level} over {columns} without {one} and {two}");
                let Ok(set) = by_file(&level, with(&disks, &gone, other)) else {
                    assert!(!survives && writes() == before, "{case}");
                    continue;
                };
                assert!(survives, "{case}");
                taken += 1;
                assert!(contents(&set) == model, "{case}");
                assert_eq!(set.notes().len(), if other.is_some() { 2 } else { 0 }, "{case}");
                let mut now = model.clone();
                set.write(SECTOR, &[one as u8 + 7; 5000]).unwrap();
                now[SECTOR as usize..][..5000].fill(one as u8 + 7);
                set.unconfigure().unwrap();
                // They are back: what they have is old now, and each is made anew.
                let set = by_file(&level, slots(&disks)).unwrap_or_else(|error| panic!("{case}: {error}"));
                for column in gone {
                    assert_eq!(set.status().columns[column].status, Status::Failed, "{case}");
                    set.reconstruct_in_place(column, None, 0).unwrap();
                    finish_rebuild(&set);
                }
                assert!(contents(&set) == now && mismatches(&set) == 0, "{case}");
            }
        }
    }
    assert!(taken > 100, "{taken}");
}

/// What is left may be the halves that missed something, and one that is there shows it.
#[test]
fn an_old_half_does_not_stand_for_a_newer_one() {
    let disks = disks(6, 63);
    new_set(Level::Raid1, &disks).unconfigure().unwrap();
    for disk in &disks {
        Extension::wipe(&**disk).unwrap();
    }
    let newer = Label::read(&*disks[5]).unwrap().unwrap();
    let newer = Label { mod_counter: newer.mod_counter + 1, ..newer };
    newer.write(&*disks[5]).unwrap();
    let refused = by_file(&Level::Raid1, with(&disks, &[1, 3], None));
    assert!(matches!(refused, Err(ConfigureError::Refused { .. })));
}
