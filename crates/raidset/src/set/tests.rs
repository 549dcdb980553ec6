//! Seeded runs of whole sets on simulated disks against a plain vector of bytes, and single facts that runs do not show.

use super::*;
use crate::judge::{Candidate, group};
use crate::label::{Label, map_flags};
use crate::layout::Level;
use device::sim::{Cut, Healing};
use device::{Inline, MemoryDevice, Rng, SimDevice};
use std::borrow::Borrow;

mod again;
mod gone;
mod resumed;

mod spread;
mod workers;

const SECTOR: u64 = 512;
const UNIT: u32 = 4;
const ROWS: u64 = 24;
const DISK: u64 = (64 + UNIT as u64 * ROWS + 3) * SECTOR;

fn parameters(level: impl Borrow<Level>) -> Parameters {
    Parameters {
        level: level.borrow().clone(),
        sectors_per_unit: UNIT,
        units_per_parity_unit: 1,
        units_per_recon_unit: 1,
        queue_length: 100,
    }
}

fn disk(name: &str, seed: u64) -> Arc<SimDevice> {
    disk_of(name, seed, DISK)
}

fn disk_of(name: &str, seed: u64, size: u64) -> Arc<SimDevice> {
    let disk = Arc::new(SimDevice::new(name, size, seed));
    let mut noise = vec![0; size as usize - 32768];
    Rng::new(seed).fill(&mut noise);
    disk.overwrite(32768, &noise);
    disk
}

fn disks(count: usize, seed: u64) -> Vec<Arc<SimDevice>> {
    (0..count).map(|index| disk(&format!("sd{index}"), seed * 100 + index as u64)).collect()
}

fn slot(disk: &Arc<SimDevice>) -> Slot {
    Slot { name: disk.info().name.clone(), device: Some(disk.clone()) }
}

fn slots(disks: &[Arc<SimDevice>]) -> Vec<Slot> {
    disks.iter().map(slot).collect()
}

fn configure(
    level: impl Borrow<Level>,
    disks: &[Arc<SimDevice>],
    force: bool,
) -> Result<RaidSet, ConfigureError> {
    RaidSet::configure(0, parameters(level), slots(disks), vec![], force, Arc::new(Inline))
}

fn rewrite(set: &RaidSet) {
    let mut cursor = 0;
    while !set.rewrite_parity(&mut cursor, 5).unwrap().finished() {}
    assert!(set.parity_good());
}

fn new_set(level: impl Borrow<Level>, disks: &[Arc<SimDevice>]) -> RaidSet {
    let set = configure(level.borrow(), disks, true).unwrap();
    assert!(!set.parity_good() || *level.borrow() == Level::Raid0);
    set.init_labels(4711).unwrap();
    rewrite(&set);
    set
}

fn contents(set: &RaidSet) -> Vec<u8> {
    let mut bytes = vec![0; set.size().unwrap() as usize];
    set.read(0, &mut bytes).unwrap();
    bytes
}

fn finish_rebuild(set: &RaidSet) {
    while set.rebuild_progress().is_some() {
        set.rebuild_step(7).unwrap();
    }
}

fn mismatches(set: &RaidSet) -> u64 {
    set.check_parity(&mut 0, u64::MAX, false).unwrap()
}

const PLAIN: &[(Level, usize)] = &[
    (Level::Raid0, 1),
    (Level::Raid0, 3),
    (Level::Raid1, 2),
    (Level::Raid1, 4),
    (Level::Raid1, 6),
    (Level::Raid4, 2),
    (Level::Raid4, 4),
    (Level::Raid5, 2),
    (Level::Raid5, 3),
    (Level::Raid5, 6),
    (Level::Raid6, 3),
    (Level::Raid6, 4),
    (Level::Raid6, 7),
    (Level::Mirror, 2),
    (Level::Mirror, 3),
    (Level::RotatedSparing, 3),
    (Level::RotatedSparing, 5),
    (Level::Chained, 2),
    (Level::Chained, 5),
    (Level::Interleaved, 3),
    (Level::Interleaved, 4),
    (Level::EvenOdd, 3),
    (Level::EvenOdd, 6),
];

/// Levels and numbers of columns to try.
fn shapes() -> Vec<(Level, usize)> {
    let designed = crate::layout::tests::all_levels().into_iter().filter(|level| level.design().is_some());
    PLAIN
        .iter()
        .cloned()
        .chain(designed.map(|level| (level.clone(), usize::from(level.min_columns()))))
        .collect()
}

/// One run: random reads, writes, failures, rebuilds, restarts, always against the model.
struct Run {
    rng: Rng,
    level: Level,
    set: RaidSet,
    model: Vec<u8>,
    /// Every disk ever made.
    all: Vec<Arc<SimDevice>>,
    step: u64,
}

impl Run {
    fn new(level: Level, columns: usize, seed: u64) -> Self {
        let all = disks(columns, seed + 1);
        let set = new_set(&level, &all);
        let model = contents(&set);
        Self { rng: Rng::new(seed), level, set, model, all, step: 0 }
    }

    fn range(&mut self) -> std::ops::Range<usize> {
        let size = self.model.len() as u64;
        let stripe = self.set.layout().stripe_sectors() * SECTOR;
        let (start, length) = match self.rng.below(4) {
            0 => (self.rng.below(size), self.rng.within(1..700)),
            1 => (self.rng.below(size / SECTOR) * SECTOR, self.rng.within(1..9) * SECTOR),
            2 => (self.rng.below(size / stripe) * stripe, self.rng.within(1..4) * stripe),
            _ => (self.rng.below(size), self.rng.within(1..2 * stripe + 2)),
        };
        start as usize..(start + length).min(size) as usize
    }

    fn write(&mut self) {
        let range = self.range();
        let mut bytes = vec![0; range.len()];
        self.rng.fill(&mut bytes);
        let cut = self.rng.below(bytes.len() as u64 + 1) as usize;
        let halves = [IoSlice::new(&bytes[..cut]), IoSlice::new(&bytes[cut..])];
        self.set.write_vectored(range.start as u64, &halves).unwrap();
        self.model[range].copy_from_slice(&bytes);
    }

    fn read(&mut self) {
        let range = self.range();
        let mut bytes = vec![0; range.len()];
        self.set.read(range.start as u64, &mut bytes).unwrap();
        assert!(bytes == self.model[range.clone()], "{:?}, step {}, {range:?}", self.level, self.step);
    }

    fn spare_disk(&mut self) -> Arc<SimDevice> {
        let spare = disk(&format!("sd{}", self.all.len()), self.rng.next_u64());
        self.all.push(spare.clone());
        spare
    }

    fn live_disk(&self, column: usize) -> Option<Arc<SimDevice>> {
        let members = self.set.members();
        let name = &members.whole(column)?.name;
        self.all.iter().find(|disk| disk.info().name == *name).cloned()
    }

    fn act(&mut self) {
        let columns = self.set.layout().columns();
        let column = self.rng.below(columns as u64) as usize;
        let members = self.set.members();
        let whole = (0..columns).all(|column| !members.lost(column));
        let free = self.set.rebuild_progress().is_none();
        let spares = members.spares.iter().filter(|spare| spare.status == Status::Spare).count();
        match self.rng.below(40) {
            0..=15 => self.write(),
            16..=25 => self.read(),
            26 => self.set.tick().unwrap(),
            27 => match self.set.fail_column(column) {
                Ok(()) => assert!(self.set.layout().redundant()),
                Err(error) => assert!(matches!(error, SetError::Needed { .. }), "{error}"),
            },
            28 if members.spares.len() < 9 => {
                let spare = self.spare_disk();
                self.set.add_spare(slot(&spare)).unwrap();
            }
            29 => {
                if let Some(spare) = members.spares.iter().find(|spare| spare.status != Status::UsedSpare) {
                    self.set.remove_spare(&spare.name).unwrap();
                }
            }
            30 | 31 if free => {
                let outcome = self.set.reconstruct_to_spare(column);
                let free_units = *self.set.layout().level() == Level::RotatedSparing;
                assert!(spares > 0 || free_units || outcome.is_err());
            }
            32 if free => {
                let new = self.spare_disk();
                let _ = self.set.reconstruct_in_place(column, Some(slot(&new)), 0);
            }
            33 if free => {
                let _ = self.set.copyback(column);
            }
            34 | 35 if !free => {
                let rows = self.rng.below(ROWS);
                let _ = self.set.rebuild_step(rows);
            }
            36 if whole && self.set.layout().redundant() => {
                // Unreadable sectors on one component: mended by reading everything.
                let Some(disk) = self.live_disk(column) else { return };
                let at = 32768 + self.rng.below(ROWS * u64::from(UNIT)) * SECTOR;
                disk.add_read_errors(at..at + 3 * SECTOR, Healing::OnRewrite);
                self.write();
                assert_eq!(mismatches_or_parity(&self.set), 0);
                disk.clear_errors(0..DISK);
            }
            37 if whole && self.set.layout().redundant() => {
                // A component goes away in the middle of a write, and comes back stale.
                let Some(disk) = self.live_disk(column) else { return };
                disk.plan(self.rng.within(1..6), None, device::sim::Effect::Gone);
                self.write();
                self.read();
                disk.clear_plans();
                disk.plug_in();
            }
            38 if free => self.restart(),
            39 => self.set.flush().unwrap(),
            _ => {}
        }
    }

    /// Unconfigures and finds the set again by its labels among all disks there ever were.
    fn restart(&mut self) {
        let redundant = self.set.layout().redundant();
        self.set.set_autoconfigure(true, 0).unwrap();
        self.set.unconfigure().unwrap();
        self.all.iter().for_each(|disk| disk.power_cut(Cut::DropAll));
        let mut candidates = Vec::new();
        let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
        for disk in &self.all {
            if let Ok(label) = Label::read(&**disk).unwrap() {
                let name = disk.info().name.clone();
                let extension = crate::extension::Extension::read(&**disk).unwrap();
                candidates.extend(Candidate::of(name, label, DISK / SECTOR, extension.as_ref()));
                if candidates.len() > devices.len() {
                    devices.push(disk.clone());
                }
            }
        }
        let sets = group(&candidates);
        let best = sets.iter().filter(|set| set.autoconfigure).max_by_key(|set| set.mod_counter).unwrap();
        assert!(best.enough && !best.parity_dirty, "{best:?}");
        self.set = RaidSet::assemble(0, best, &candidates, &devices, &[], Arc::new(Inline)).unwrap();
        assert!(self.set.parity_good() && self.set.layout().redundant() == redundant);
    }
}

fn mismatches_or_parity(set: &RaidSet) -> u64 {
    // The first pass mends what cannot be read, parity included.
    set.check_parity(&mut 0, u64::MAX, true).unwrap();
    mismatches(set)
}

#[test]
fn every_level_behaves_like_a_vector_of_bytes() {
    for (level, columns) in shapes() {
        for seed in 0..12 {
            let mut run = Run::new(level.clone(), columns, seed);
            for step in 0..250 {
                run.step = step;
                run.act();
            }
            while run.set.rebuild_progress().is_some() {
                run.set.rebuild_step(5).unwrap();
            }
            assert!(contents(&run.set) == run.model, "{level} over {columns}, seed {seed}");
            for column in 0..columns {
                if run.set.members().lost(column) {
                    let new = run.spare_disk();
                    run.set.reconstruct_in_place(column, Some(slot(&new)), 0).unwrap();
                    finish_rebuild(&run.set);
                }
            }
            assert_eq!(mismatches(&run.set), 0, "{level} over {columns}, seed {seed}");
            run.restart();
            assert!(contents(&run.set) == run.model, "{level} over {columns}, seed {seed}");
        }
    }
}

/// 2^power times a byte over GF(2^8) modulo 0x11d.
fn times(power: usize, byte: u8) -> u8 {
    (0..power).fold(byte, |byte, _| byte << 1 ^ if byte & 0x80 == 0 { 0 } else { 0x1d })
}

/// What one data unit of a stripe, its `number`-th, gives to the second parity of a sector: GF(2^8), or the 17-prime even-odd code.
fn second_parity(even_odd: bool, number: usize, data: &[u8]) -> Vec<u8> {
    let row = SECTOR as usize / 16;
    let part = |row_of: usize, byte: usize| if row_of == 16 { 0 } else { data[row_of * row + byte] };
    let diagonals = |at: usize| {
        let (i, byte) = (at / row, at % row);
        part((i + 15 - number) % 17, byte) ^ part((31 - number) % 17, byte)
    };
    (0..data.len()).map(|at| if even_odd { diagonals(at) } else { times(number, data[at]) }).collect()
}

/// Every byte of every component is what RAIDframe's formulas and a byte-wise code make of the set's contents.
#[test]
fn components_hold_what_the_formulas_say() {
    use crate::layout::{Code, tests::by_formula};
    for (level, columns) in shapes() {
        let disks = disks(columns, 31);
        let set = new_set(&level, &disks);
        let layout = set.layout().clone();
        let mut bytes = vec![0; set.size().unwrap() as usize];
        Rng::new(5).fill(&mut bytes);
        set.write(0, &bytes).unwrap();
        let mut rng = Rng::new(6);
        for _ in 0..60 {
            let at = rng.below(bytes.len() as u64 - 3000) as usize;
            let length = rng.within(1..3000) as usize;
            let mut piece = vec![0; length];
            rng.fill(&mut piece);
            set.write(at as u64, &piece).unwrap();
            bytes[at..at + length].copy_from_slice(&piece);
        }
        let mut expected = std::collections::HashMap::<(u64, u64), Vec<u8>>::new();
        let unit = u64::from(UNIT);
        for (sector, data) in (0..).zip(bytes.chunks(SECTOR as usize)) {
            let (column, at, redundancy) = by_formula(&layout, sector);
            assert!(expected.insert((column, at), data.to_vec()).is_none());
            let number = (sector / unit % u64::from(layout.stripe_data_units())) as usize;
            for (index, (column, row)) in redundancy.into_iter().enumerate() {
                let gives = match (level.code(), index) {
                    (Code::Copies, _) | (_, 0) => data.to_vec(),
                    (code, _) => second_parity(code == Code::EvenOdd, number, data),
                };
                let sum = expected.entry((column, row * unit + at % unit)).or_insert_with(|| vec![0; 512]);
                sum.iter_mut().zip(gives).for_each(|(sum, byte)| *sum ^= byte);
            }
        }
        for ((column, at), wanted) in expected {
            let mut found = vec![0; 512];
            disks[column as usize].read(32768 + at * SECTOR, &mut found).unwrap();
            assert!(found == wanted, "{level} over {columns}: column {column}, sector {at}");
        }
    }
}

/// Every set of losses that the layout says it survives is survived, and any other is an error, not a panic.
#[test]
fn losses_are_survived_exactly_as_far_as_the_layout_says() {
    for (level, columns) in shapes() {
        let disks = disks(columns, 9);
        let model = contents(&new_set(&level, &disks));
        for lost in 0..1_u32 << columns {
            let forks: Vec<_> = disks.iter().map(|disk| Arc::new(disk.fork())).collect();
            let set = configure(&level, &forks, false).unwrap();
            (0..columns).filter(|column| lost >> column & 1 == 1).for_each(|column| forks[column].pull());
            let survives = set.layout().survives(|column| lost >> column & 1 == 1);
            let mut bytes = vec![0; model.len()];
            let read = set.read(0, &mut bytes);
            assert_eq!(read.is_ok(), survives, "{level}, lost {lost:b}");
            let written = set.write(0, &model);
            assert_eq!(written.is_ok(), survives, "{level}, lost {lost:b}");
            if survives {
                assert!(bytes == model && contents(&set) == model);
            }
        }
    }
}

/// Requests of one write, by kind.
fn cost(set: &RaidSet, disks: &[Arc<SimDevice>], offset: u64, length: usize) -> (u64, u64) {
    set.write(offset, &[1; SECTOR as usize]).unwrap();
    let total = || {
        let counts = disks.iter().map(|disk| disk.counts());
        counts.fold((0, 0), |(reads, writes), now| (reads + now.reads, writes + now.writes))
    };
    let before = total();
    set.write(offset, &vec![7; length]).unwrap();
    let after = total();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn the_cheapest_way_is_taken() {
    let unit = UNIT as usize * SECTOR as usize;
    let disks = disks(6, 3);
    let set = new_set(Level::Raid5, &disks);
    assert_eq!(cost(&set, &disks, 0, unit), (2, 2), "read-modify-write: old data and old parity");
    assert_eq!(cost(&set, &disks, 0, 2 * unit), (3, 3), "as many reads either way");
    assert_eq!(cost(&set, &disks, 0, 4 * unit), (1, 5), "reconstruct-write: the unit left out");
    assert_eq!(cost(&set, &disks, 0, 5 * unit), (0, 6), "full stripe: no reads");
    let disks = self::disks(6, 4);
    let set = new_set(Level::Raid6, &disks);
    assert_eq!(cost(&set, &disks, 0, unit), (3, 3));
    assert_eq!(cost(&set, &disks, 0, 3 * unit), (1, 5));
    set.fail_column(set.layout().stripe(0).column(0)).unwrap();
    assert_eq!(cost(&set, &disks, 0, unit), (3, 2), "a lost unit is written into the parity alone");
}

#[test]
fn what_cannot_be_read_is_written_anew() {
    for (level, columns) in [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 5), (Level::Mirror, 3)] {
        let disks = disks(columns, 5);
        let set = new_set(&level, &disks);
        let model = contents(&set);
        for disk in &disks {
            disk.add_read_errors(32768..DISK, Healing::OnRewrite);
            for _ in 0..2 {
                assert!(contents(&set) == model);
            }
            assert_eq!(mismatches_or_parity(&set), 0);
            disk.clear_errors(0..DISK);
        }
        assert!(set.repairs() > 0);
        assert!(set.status().columns.iter().all(|column| column.status == Status::Optimal));
    }
}

/// After a power cut the map says where parity may be wrong; rewriting just that makes all of it right.
#[test]
fn after_a_power_cut_the_marked_regions_are_enough() {
    for (level, columns) in shapes().into_iter().filter(|(level, _)| *level != Level::Raid0) {
        for seed in 0..10 {
            let disks = disks(columns, 40 + seed);
            // Regions of a few stripes each.
            let set = new_set(&level, &disks);
            set.unconfigure().unwrap();
            for disk in &disks {
                let mut label = Label::read(&**disk).unwrap().unwrap();
                assert_eq!(label.map_flags, map_flags::VALID | map_flags::WAS_USED);
                label.map_regions = 6;
                label.write(&**disk).unwrap();
                disk.flush().unwrap();
            }
            let set = configure(&level, &disks, false).unwrap();
            let mut rng = Rng::new(seed);
            let size = set.size().unwrap();
            for _ in 0..rng.below(6) {
                let start = rng.below(size);
                let mut bytes = vec![0; rng.within(1..3000).min(size - start) as usize];
                rng.fill(&mut bytes);
                set.write(start, &bytes).unwrap();
            }
            for disk in &disks {
                disk.power_cut(Cut::Random(rng.next_u64()));
            }
            let set = configure(&level, &disks, false).unwrap();
            assert!(!set.parity_good(), "labels were not left clean");
            assert_eq!(set.map.as_ref().map(|map| lock(map).parameters().regions), Some(6));
            rewrite(&set);
            assert_eq!(mismatches(&set), 0, "{level} over {columns}, seed {seed}");
            assert_eq!(set.map.as_ref().map(|map| lock(map).bits().count()), Some(0));
            set.unconfigure().unwrap();
            assert!(configure(&level, &disks, false).unwrap().parity_good());
        }
    }
}

#[test]
fn wrong_components_are_refused_and_nothing_is_written() {
    let disks = disks(3, 6);
    new_set(Level::Raid5, &disks).unconfigure().unwrap();
    let other = self::disks(3, 7);
    new_set(Level::Raid5, &other).unconfigure().unwrap();
    let digests = |disks: &[Arc<SimDevice>]| disks.iter().map(|disk| disk.digest()).collect::<Vec<_>>();
    let blank = vec![disk("a", 1), disk("b", 2), disk("c", 3)];
    let swapped = vec![disks[1].clone(), disks[0].clone(), disks[2].clone()];
    for wrong in [blank, swapped, disks[..2].to_vec()] {
        let before = digests(&wrong);
        let error = configure(Level::Raid5, &wrong, false).unwrap_err();
        assert!(matches!(error, ConfigureError::Refused { .. }), "{error}");
        assert_eq!(digests(&wrong), before);
    }
    // A foreign component is the odd one out: the set runs without it.
    let mut label = Label::read(&*other[1]).unwrap().unwrap();
    label.serial_number = 1;
    label.write(&*other[1]).unwrap();
    let before = other[1].digest();
    let mixed = [disks[0].clone(), other[1].clone(), disks[2].clone()];
    let set = configure(Level::Raid5, &mixed, false).unwrap();
    assert_eq!(set.status().columns[1].status, Status::Failed);
    assert_eq!(other[1].digest(), before);
    let none = Slot { name: "absent".to_owned(), device: None };
    let slots = vec![none.clone(), none, slot(&disks[2])];
    let error = RaidSet::configure(0, parameters(Level::Raid5), slots, vec![], true, Arc::new(Inline));
    assert!(matches!(error.unwrap_err(), ConfigureError::TooManyLost { .. }));
}

#[test]
fn an_absent_component_is_added_later() {
    let disk_1 = disk("sd1", 1);
    let absent = Slot { name: "absent".to_owned(), device: None };
    let slots = vec![absent, slot(&disk_1)];
    let set = RaidSet::configure(3, parameters(Level::Raid1), slots, vec![], true, Arc::new(Inline)).unwrap();
    set.init_labels(12345).unwrap();
    assert_eq!((set.status().columns[0].name.as_str(), set.column_of("component0")), ("component0", Some(0)));
    set.write(0, &[9; 5000]).unwrap();
    let model = contents(&set);
    assert!(matches!(set.rewrite_parity(&mut 0, 1), Err(SetError::Degraded { .. })));
    let disk_0 = disk("sd0", 2);
    set.add_spare(slot(&disk_0)).unwrap();
    set.reconstruct_to_spare(0).unwrap();
    finish_rebuild(&set);
    let status = set.status();
    assert_eq!((status.columns[0].status, status.spares[0].status), (Status::Spared, Status::UsedSpare));
    let label = Label::read(&*disk_0).unwrap().unwrap();
    assert_eq!((label.column, label.serial_number, label.last_unit), (0, 12345, 3));
    rewrite(&set);
    set.unconfigure().unwrap();
    let set = configure(Level::Raid1, &[disk_0, disk_1], false).unwrap();
    assert!(set.parity_good() && contents(&set) == model && mismatches(&set) == 0);
}

#[test]
fn spares_that_cannot_be_used_are_failed_ones() {
    let small = Arc::new(SimDevice::new("small", DISK / 2, 1));
    let gone = Slot { name: "gone".to_owned(), device: None };
    let spares = vec![slot(&small), gone, slot(&disk("good", 2))];
    let slots = slots(&disks(3, 14));
    let set = RaidSet::configure(0, parameters(Level::Raid5), slots, spares, true, Arc::new(Inline)).unwrap();
    let states = set.status().spares.into_iter().map(|spare| (spare.name, spare.status));
    let expected = [("small", Status::Failed), ("gone", Status::Failed), ("good", Status::Spare)]
        .map(|(n, s)| (n.to_owned(), s));
    assert!(states.eq(expected));
    assert!(matches!(set.add_spare(slot(&small)), Err(SetError::Unfit { .. })));
    set.reconstruct_to_spare(0).unwrap();
    assert_eq!(set.rebuild_progress().map(|(_, column, _)| column), Some(0));
    set.remove_spare("small").unwrap();
    finish_rebuild(&set);
    assert_eq!(set.status().spares[1].status, Status::UsedSpare);
    assert!(matches!(set.remove_spare("good"), Err(SetError::Status { .. })));
    let model = contents(&set);
    set.copyback(0).unwrap();
    finish_rebuild(&set);
    assert!(contents(&set) == model && set.status().columns[0].status == Status::Optimal);
}

#[test]
fn a_target_that_fails_ends_the_rebuild_not_the_set() {
    let disks = disks(3, 11);
    let set = new_set(Level::Raid5, &disks);
    let model = contents(&set);
    let spare = disk("spare", 1);
    set.add_spare(slot(&spare)).unwrap();
    set.reconstruct_to_spare(1).unwrap();
    set.rebuild_step(3).unwrap();
    spare.pull();
    assert!(matches!(set.rebuild_step(3), Err(SetError::Device(_))));
    let status = set.status();
    assert_eq!((status.columns[1].status, status.spares[0].status), (Status::Failed, Status::Spare));
    assert!(status.rebuild.is_none() && contents(&set) == model);
}

/// A stripe over two RAID 5, each of which loses a component.
#[test]
fn sets_are_components_of_sets() {
    let lower = disks(6, 12);
    let below = [new_set(Level::Raid5, &lower[..3]), new_set(Level::Raid5, &lower[3..])].map(Arc::new);
    let slots: Vec<Slot> = (0..)
        .zip(&below)
        .map(|(index, set)| Slot {
            name: format!("raid{index}"),
            device: Some(set.clone() as Arc<dyn BlockDevice>),
        })
        .collect();
    let top = RaidSet::configure(2, parameters(Level::Raid0), slots, vec![], true, Arc::new(Inline)).unwrap();
    top.init_labels(1).unwrap();
    let mut model = vec![0; top.size().unwrap() as usize];
    Rng::new(1).fill(&mut model);
    top.write(0, &model).unwrap();
    lower[1].pull();
    below[1].fail_column(0).unwrap();
    assert!(contents(&top) == model);
    top.write(100, &model[..9000]).unwrap();
    model.copy_within(..9000, 100);
    assert!(contents(&top) == model);
    lower[2].pull();
    let error = top.read(0, &mut vec![0; model.len()]).unwrap_err();
    assert!(error.to_string().contains("too many components have failed"), "{error}");
}

/// Labels of the other byte order stay as they are found, on rebuilt components too.
#[test]
fn the_byte_order_of_labels_is_kept() {
    let disks = disks(3, 13);
    new_set(Level::Raid5, &disks).unconfigure().unwrap();
    for disk in &disks {
        let mut label = Label::read(&**disk).unwrap().unwrap();
        label.byte_order = crate::label::ByteOrder::Big;
        label.autoconfigure = 1;
        label.write(&**disk).unwrap();
    }
    let set = configure(Level::Raid5, &disks, false).unwrap();
    let new = disk("new", 5);
    set.reconstruct_in_place(0, Some(slot(&new)), 0).unwrap();
    finish_rebuild(&set);
    let labels = [&new, &disks[1], &disks[2]].map(|disk| Label::read(&**disk).unwrap().unwrap());
    for (column, label) in labels.iter().enumerate() {
        let expected = Label { column: column as u32, ..labels[0].clone() };
        assert_eq!(*label, expected);
        assert_eq!(label.byte_order, crate::label::ByteOrder::Big);
    }
    let stale = Label::read(&*disks[0]).unwrap().unwrap();
    assert!(stale.mod_counter < labels[0].mod_counter);
}

#[test]
fn sector_sizes_must_agree() {
    let info = |sector| DeviceInfo {
        name: format!("sector{sector}"),
        logical_sector: sector,
        physical_sector: sector,
        discards: false,
        block_device: false,
    };
    let large: Vec<_> =
        (0..3).map(|seed| Arc::new(SimDevice::with_info(info(4096), 1 << 20, seed))).collect();
    let set = new_set(Level::Raid5, &large);
    assert_eq!(set.size().unwrap(), ((1 << 20) / 4096 - 64) / 4 * 4 * 4096 * 2);
    set.write(0, &vec![5; 100_000]).unwrap();
    let mut bytes = [0; 4096];
    large[0].read(262_144, &mut bytes).unwrap();
    assert_eq!(bytes, [5; 4096]);
    let mixed = [large[0].clone(), large[1].clone(), Arc::new(SimDevice::with_info(info(512), 1 << 20, 1))];
    assert!(matches!(configure(Level::Raid5, &mixed, true), Err(ConfigureError::SectorSize { .. })));
    let odd = [Arc::new(SimDevice::with_info(info(520), 1 << 20, 1))];
    assert!(matches!(configure(Level::Raid0, &odd, true), Err(ConfigureError::SectorSize { .. })));
}

/// Memory that lets other threads run in the middle of everything.
#[derive(Debug)]
struct Slow(MemoryDevice);

impl BlockDevice for Slow {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.0.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        std::thread::yield_now();
        self.0.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        std::thread::yield_now();
        self.0.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// Several threads write their own places and read them back, while components fail and are rebuilt.
#[test]
fn threads_share_a_set() {
    share_a_set(false);
    share_a_set(true);
}

fn share_a_set(journal: bool) {
    let room = if journal { 200 } else { 0 };
    let slots = (0..4).map(|index| Slot {
        name: format!("m{index}"),
        device: Some(Arc::new(Slow(MemoryDevice::new(format!("m{index}"), DISK + room * SECTOR)))
            as Arc<dyn BlockDevice>),
    });
    let set = RaidSet::configure_as(
        0,
        parameters(Level::Raid5),
        slots.collect(),
        vec![],
        Some(room),
        Arc::new(Inline),
    )
    .unwrap();
    rewrite(&set);
    if journal {
        set.set_journal(true).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let set = &set;
            // Interleaved pieces of a few stripes, which share units with those of the other threads.
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                let mut model = std::collections::HashMap::new();
                for _ in 0..300 {
                    let at = (rng.below(24) * 4 + thread) * 300;
                    let mut bytes = [0; 300];
                    rng.fill(&mut bytes);
                    set.write(at, &bytes).unwrap();
                    model.insert(at, bytes);
                    let at = (rng.below(24) * 4 + thread) * 300;
                    let mut found = [0; 300];
                    set.read(at, &mut found).unwrap();
                    assert_eq!(found, *model.get(&at).unwrap_or(&[0; 300]));
                }
            });
        }
        for column in [1, 3, 0, 2] {
            set.fail_column(column).unwrap();
            set.reconstruct_in_place(column, None, 0).unwrap();
            while set.rebuild_progress().is_some() {
                set.rebuild_step(1).unwrap();
            }
        }
    });
    assert_eq!(mismatches(&set), 0);
}
