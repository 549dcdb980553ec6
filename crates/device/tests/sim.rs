//! The simulated disk: each fault shows, crashes leave exactly what was chosen, and everything replays.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use device::sim::{CostModel, Cut, Discarded, Effect, Healing, PowerSupply, Rates, Sectors, Survivor};
use device::{BlockDevice, DeviceErrorKind, Operation, Rng, SimDevice};
use proptest::prelude::*;

const SIZE: u64 = 64 * 1024;

fn disk() -> SimDevice {
    SimDevice::new("sim", SIZE, 42)
}

fn read(device: &SimDevice, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    device.read(offset, &mut bytes).unwrap();
    bytes
}

fn all(device: &SimDevice) -> Vec<u8> {
    read(device, 0, SIZE as usize)
}

fn io() -> DeviceErrorKind {
    DeviceErrorKind::Io("planned".to_owned())
}

fn flipped_bits(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[test]
fn read_errors_last_until_rewritten_or_forever() {
    let disk = disk();
    disk.add_read_errors(1000..1001, Healing::OnRewrite);
    disk.add_read_errors(8192..8704, Healing::Never);
    let mut buffer = [0; 4096];
    let error = disk.read(0, &mut buffer).unwrap_err();
    assert!(matches!(&error.kind, DeviceErrorKind::Io(why) if why.ends_with("1000")), "{error}");
    disk.read(1001, &mut buffer).unwrap();
    disk.write(512, &[1; 512]).unwrap();
    disk.read(0, &mut buffer).unwrap();
    disk.write(8192, &[1; 512]).unwrap();
    disk.read(8192, &mut buffer).unwrap_err();
    disk.clear_errors(0..SIZE);
    disk.read(8192, &mut buffer).unwrap();
}

#[test]
fn write_errors_store_nothing() {
    let disk = disk();
    disk.add_write_errors(600..601);
    disk.write(0, &[1; 1024]).unwrap_err();
    assert_eq!(read(&disk, 0, 1024), [0; 1024]);
    disk.write(0, &[1; 512]).unwrap();
}

#[test]
fn the_nth_request_fails_and_only_that() {
    let disk = disk();
    disk.plan(3, None, Effect::Fail(io()));
    disk.plan(2, Some(Operation::Flush), Effect::Fail(DeviceErrorKind::Gone));
    disk.write(0, &[1; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.write(0, &[2; 512]).unwrap_err().kind, io());
    disk.write(0, &[3; 512]).unwrap();
    assert_eq!(disk.flush().unwrap_err().kind, DeviceErrorKind::Gone);
    disk.flush().unwrap();
    assert_eq!(disk.counts().errors, 2);
}

#[test]
fn silent_corruption_of_stored_bytes_and_of_one_read() {
    let disk = disk();
    disk.write(0, &[0x55; 4096]).unwrap();
    disk.corrupt_next_read(100..200);
    disk.read(0, &mut [0; 100]).unwrap();
    let wrong = read(&disk, 0, 4096);
    assert_eq!(flipped_bits(&wrong[100..200], &[0x55; 100]), 1);
    assert_eq!(flipped_bits(&wrong, &[0x55; 4096]), 1);
    assert_eq!(read(&disk, 0, 4096), [0x55; 4096]);

    disk.plan(1, Some(Operation::Read), Effect::Corrupted);
    assert_eq!(flipped_bits(&read(&disk, 0, 4096), &[0x55; 4096]), 1);
    disk.plan(1, Some(Operation::Write), Effect::Corrupted);
    disk.write(4096, &[0; 512]).unwrap();
    assert_eq!(flipped_bits(&read(&disk, 4096, 512), &[0; 512]), 1);

    disk.flush().unwrap();
    disk.corrupt(0..512, 1);
    disk.power_cut(Cut::DropAll);
    let wrong = read(&disk, 0, 4096);
    assert_eq!(
        (flipped_bits(&wrong[..512], &[0x55; 512]), flipped_bits(&wrong[512..], &[0x55; 3584])),
        (1, 0)
    );
    disk.overwrite(0, &[7; 100]);
    disk.power_cut(Cut::DropAll);
    assert_eq!(read(&disk, 0, 100), [7; 100]);
}

#[test]
fn lost_torn_and_misdirected_writes_are_acknowledged() {
    let disk = disk();
    disk.plan(1, None, Effect::Lost);
    disk.write(0, &[1; 4096]).unwrap();
    assert_eq!(read(&disk, 0, 4096), [0; 4096]);

    disk.plan(1, None, Effect::Torn);
    disk.write(0, &[1; 4096]).unwrap();
    let torn = read(&disk, 0, 4096);
    for sector in torn.chunks(512) {
        assert!(sector.iter().all(|b| b == &sector[0]), "sectors are whole");
    }
    assert!(torn.contains(&0), "something is missing");

    let disk = SimDevice::new("sim", SIZE, 43);
    disk.plan(1, None, Effect::Misdirected);
    disk.write(0, &[1; 512]).unwrap();
    let bytes = all(&disk);
    assert_eq!(bytes[..512], [0; 512]);
    let places: Vec<_> = bytes.chunks(512).enumerate().filter(|(_, s)| s[0] == 1).collect();
    assert!(places.len() == 1 && places[0].1 == [1; 512]);
}

#[test]
fn a_pulled_disk_comes_back_with_its_contents() {
    let disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.plan(1, None, Effect::Gone);
    let outcomes = [disk.write(0, &[2; 512]), disk.read(0, &mut [0]), disk.flush(), disk.discard(0, 512)];
    assert!(outcomes.into_iter().all(|outcome| outcome.unwrap_err().kind == DeviceErrorKind::Gone));
    assert!(!disk.is_present());
    disk.plug_in();
    assert_eq!(read(&disk, 0, 512), [1; 512]);
    disk.pull();
    disk.power_cut(Cut::DropAll);
    disk.plug_in();
    assert_eq!(read(&disk, 0, 512), [0; 512]);
}

#[test]
fn full_and_read_only_disks_refuse() {
    let disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.set_full(true);
    disk.write(0, &[2; 512]).unwrap();
    assert_eq!(disk.write(SIZE / 2, &[2; 512]).unwrap_err().kind, DeviceErrorKind::NoSpace);
    disk.set_read_only(true);
    assert_eq!(disk.write(0, &[3; 512]).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert_eq!(disk.discard(0, 512).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert_eq!(read(&disk, 0, 512), [2; 512]);
}

#[test]
fn a_lying_flush_and_a_half_done_one_lose_writes() {
    let disk = disk();
    disk.write(0, &[1; 512]).unwrap();
    disk.plan(1, None, Effect::Lost);
    disk.flush().unwrap();
    let lied = disk.fork();
    lied.power_cut(Cut::DropAll);
    assert_eq!(read(&lied, 0, 512), [0; 512]);

    for sector in 0..64 {
        disk.write(sector * 1024, &[2; 512]).unwrap();
    }
    disk.plan(1, None, Effect::FailTorn(io()));
    disk.flush().unwrap_err();
    assert_eq!(read(&disk, 0, 512), [2; 512], "reads still show what was lost");
    disk.flush().unwrap();
    disk.power_cut(Cut::DropAll);
    assert!(all(&disk).chunks(1024).any(|sector| sector[0] != 2), "a later flush does not bring it back");
}

#[test]
fn discarded_bytes_read_as_told_and_may_survive_a_cut() {
    for (discarded, expect) in
        [(Discarded::Zeros, Some(0)), (Discarded::Kept, Some(9)), (Discarded::Garbage, None)]
    {
        let disk = disk();
        disk.set_discarded(discarded);
        disk.write(0, &[9; 1024]).unwrap();
        disk.flush().unwrap();
        disk.discard(0, 512).unwrap();
        let seen = read(&disk, 0, 1024);
        assert_eq!(seen[512..], [9; 512]);
        match expect {
            Some(byte) => assert_eq!(seen[..512], [byte; 512]),
            None => assert!(seen[..512].iter().any(|b| b != &seen[0])),
        }
        let cut = disk.fork();
        cut.power_cut(Cut::DropAll);
        assert_eq!(read(&cut, 0, 1024), [9; 1024]);
        disk.power_cut(Cut::KeepAll);
        assert_eq!(read(&disk, 0, 1024), seen, "garbage is the same garbage");
    }
}

#[test]
fn the_clock_adds_up() {
    let disk = disk();
    disk.set_cost(CostModel { request_ns: 10, seek_ns: 1000, bytes_per_second: 1_000_000_000, flush_ns: 77 });
    disk.write(0, &[0; 512]).unwrap();
    assert_eq!(disk.busy_ns(), 10 + 512);
    disk.write(512, &[0; 512]).unwrap();
    assert_eq!(disk.busy_ns(), 2 * (10 + 512));
    disk.read(0, &mut [0; 100]).unwrap();
    assert_eq!(disk.busy_ns(), 2 * (10 + 512) + 10 + 1000 + 100);
    let before = disk.busy_ns();
    disk.flush().unwrap();
    assert_eq!(disk.busy_ns(), before + 87);
}

#[test]
fn every_request_is_traced_and_counted() {
    let disk = Arc::new(disk());
    let log = Arc::new(Mutex::new(Vec::new()));
    let copy = log.clone();
    disk.set_trace(move |event| {
        copy.lock().unwrap().push((
            event.sequence,
            event.operation,
            event.offset,
            event.length,
            event.outcome.is_ok(),
        ));
        // The hook may use the disk: after the third request it is gone.
        if event.sequence == 3 {
            event.device.pull();
        }
    });
    disk.write(512, &[0; 100]).unwrap();
    disk.read(1, &mut [0; 2]).unwrap();
    disk.flush().unwrap();
    disk.discard(0, 4096).unwrap_err();
    let expected = [
        (1, Operation::Write, 512, 100, true),
        (2, Operation::Read, 1, 2, true),
        (3, Operation::Flush, 0, 0, true),
        (4, Operation::Discard, 0, 4096, false),
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    let counts = disk.counts();
    assert_eq!(
        (counts.reads, counts.writes, counts.flushes, counts.discards, counts.errors),
        (1, 1, 1, 1, 1)
    );
    assert_eq!((counts.bytes_read, counts.bytes_written, counts.bytes_discarded), (2, 100, 4096));
}

/// Three two-sector writes, two of which overlap: all 4^3 outcomes, each predicted sector by sector.
#[test]
fn every_subset_of_sectors_of_unflushed_writes_can_be_had() {
    let disk = disk();
    disk.write(0, &[9; 4096]).unwrap();
    disk.flush().unwrap();
    let writes = [(0_u64, 1_u8), (512, 2), (2048, 3)];
    for (offset, byte) in writes {
        disk.write(offset, &[byte; 1024]).unwrap();
    }
    let listed: Vec<_> = disk.unflushed().iter().map(|w| (w.offset, w.bytes.as_ref().unwrap()[0])).collect();
    assert_eq!(listed, writes);
    let mut seen = std::collections::BTreeSet::new();
    for choice in 0_u64..64 {
        let mut expected = [9_u8; 8];
        let mut survivors = Vec::new();
        for (index, (offset, byte)) in writes.into_iter().enumerate() {
            let mask = choice >> (2 * index) & 3;
            survivors.push(Survivor { index, sectors: Sectors::Mask(vec![mask]) });
            for sector in (0..2).filter(|sector| mask >> sector & 1 == 1) {
                expected[(offset / 512) as usize + sector] = byte;
            }
        }
        let crashed = disk.fork();
        crashed.power_cut(Cut::Explicit(&survivors));
        let bytes = read(&crashed, 0, 4096);
        let got: Vec<_> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(got, expected, "choice {choice}");
        seen.insert(got);
        assert!(crashed.unflushed().is_empty());
        assert_eq!(crashed.digest(), crashed.durable_digest());
    }
    assert_eq!(seen.len(), 48, "the overlap makes some of the 64 equal");
    // Later before earlier, which only shows where they overlap.
    let backwards = [1, 0].map(|index| Survivor { index, sectors: Sectors::All });
    disk.power_cut(Cut::Explicit(&backwards));
    assert_eq!(read(&disk, 512, 1), [1]);
}

#[test]
fn a_shared_supply_cuts_every_disk_at_the_same_request() {
    for changes in 0..6 {
        let supply = Arc::new(PowerSupply::new());
        let disks = [disk(), disk()];
        for disk in &disks {
            disk.set_supply(Some(supply.clone()));
        }
        supply.cut_after(changes);
        let mut passed = 0;
        for step in 0..3 {
            for disk in &disks {
                passed += u64::from(disk.write(step * 512, &[1; 512]).is_ok());
                let _ = disk.read(0, &mut [0]);
            }
        }
        assert_eq!(passed, changes);
        assert!(!supply.is_on());
        assert!(disks.iter().all(|disk| disk.read(0, &mut [0]).is_err()));
        supply.restore();
        // The write that met the cut may or may not be there: it is among the unflushed.
        let unflushed: usize = disks.iter().map(|disk| disk.unflushed().len()).sum();
        assert_eq!(unflushed as u64, changes + 1);
        disks[0].power_cut(Cut::DropAll);
        assert_eq!(all(&disks[0]), vec![0; SIZE as usize]);
    }
}

/// A run with everything going wrong by chance, and a digest of all that could be seen of it.
fn chaos(seed: u64) -> (u64, u64, u64, Vec<bool>) {
    let disk = SimDevice::new("sim", SIZE, seed);
    disk.set_cost(CostModel::DISK);
    let rate = 50_000;
    disk.set_rates(Rates {
        read_error: rate,
        write_error: rate,
        flush_error: rate,
        corrupt_read: rate,
        corrupt_write: rate,
        lost_write: rate,
        torn_write: rate,
        misdirected_write: rate,
    });
    let mut rng = Rng::new(seed ^ 1);
    let mut outcomes = Vec::new();
    let mut bytes = vec![0; 2048];
    for step in 0..400 {
        let offset = rng.below(SIZE - 2048);
        outcomes.push(match rng.below(8) {
            0 => disk.flush().is_ok(),
            1 => disk.discard(offset, 2048).is_ok(),
            2..5 => disk.read(offset, &mut bytes).is_ok(),
            _ => disk.write(offset, &bytes).is_ok(),
        });
        rng.fill(&mut bytes[..512]);
        if step % 100 == 99 {
            disk.power_cut(Cut::Random(rng.next_u64()));
        }
    }
    (disk.digest(), disk.durable_digest(), disk.busy_ns(), outcomes)
}

#[test]
fn the_same_seed_replays_bit_for_bit_and_another_does_not() {
    for seed in 0..8 {
        let first = chaos(seed);
        assert_eq!(first, chaos(seed));
        assert_ne!(first, chaos(seed + 100));
        assert!(first.3.contains(&false));
    }
}

/// Sectors of a disk; four pages of memory.
const SECTORS: u64 = SIZE / 512;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What reads see and what a power cut leaves, against plain arrays, whatever happens between writes and flushes:
    /// the disk shares memory between the two, and with copies, which must not show.
    #[test]
    fn reads_and_the_medium_are_those_of_plain_arrays(
        steps in prop::collection::vec((0..12_u32, 0..SECTORS, 1..80_u64, any::<u8>()), 1..60),
    ) {
        let mut disk = disk();
        let (mut current, mut durable) = (vec![0; SIZE as usize], vec![0; SIZE as usize]);
        let mut cache: Vec<(std::ops::Range<usize>, u8)> = Vec::new();
        let mut forks = Vec::new();
        for (what, first, count, byte) in steps {
            let range = (first * 512) as usize..((first + count).min(SECTORS) * 512) as usize;
            let (at, length) = (range.start as u64, range.len());
            match what {
                0..=3 => {
                    disk.write(at, &vec![byte; length]).unwrap();
                    current[range.clone()].fill(byte);
                    cache.push((range, byte));
                }
                4 => {
                    disk.discard(at, length as u64).unwrap();
                    current[range.clone()].fill(0);
                    cache.push((range, 0));
                }
                5 | 6 => {
                    disk.overwrite(at, &vec![byte; length]);
                    current[range.clone()].fill(byte);
                    durable[range].fill(byte);
                }
                7 => {
                    disk.power_cut(Cut::DropAll);
                    current.clone_from(&durable);
                    cache.clear();
                }
                8 => {
                    forks.push((disk.fork(), current.clone()));
                }
                9 => {
                    // All that was cached is lost at the next power cut, or only a part of it, though reads still show it.
                    disk.plan(1, Some(Operation::Flush), Effect::FailTorn(io()));
                    prop_assert!(disk.flush().is_err());
                    let cut = disk.fork();
                    cut.power_cut(Cut::DropAll);
                    durable = all(&cut);
                    cache.clear();
                }
                _ => {
                    disk.flush().unwrap();
                    cache.drain(..).for_each(|(range, byte)| durable[range].fill(byte));
                }
            }
            prop_assert!(all(&disk) == current, "reads after {what}");
            let cut = disk.fork();
            cut.power_cut(Cut::DropAll);
            prop_assert!(all(&cut) == durable, "the medium after {what}");
            if byte % 16 == 0 {
                disk = disk.fork();
            }
        }
        prop_assert!(forks.iter().all(|(fork, bytes)| all(fork) == *bytes));
    }

    /// After any power cut every sector holds its last flushed value or that of one of the later writes to
    /// it, and a fork neither disturbs nor notices its original.
    #[test]
    fn a_random_cut_leaves_only_what_was_there(
        flushed in prop::collection::vec((0_u64..100, 1_u64..20), 0..10),
        pending in prop::collection::vec((0_u64..100, 1_u64..20), 0..10),
        seed in any::<u64>(),
    ) {
        let disk = disk();
        let mut possible = vec![vec![0_u8]; 128];
        let mut byte = 0;
        let mut write = |(sector, count): (u64, u64), possible: &mut Vec<Vec<u8>>, replace: bool| {
            byte += 1;
            disk.write(sector * 512, &vec![byte; (count * 512) as usize]).unwrap();
            for values in &mut possible[sector as usize..(sector + count) as usize] {
                if replace { values.clear(); }
                values.push(byte);
            }
        };
        for place in flushed { write(place, &mut possible, true); }
        disk.flush().unwrap();
        for place in pending { write(place, &mut possible, false); }
        let before = (disk.digest(), disk.durable_digest());
        let crashed = disk.fork();
        crashed.power_cut(Cut::Random(seed));
        let again = disk.fork();
        again.power_cut(Cut::Random(seed));
        prop_assert_eq!(crashed.digest(), again.digest());
        for (sector, values) in all(&crashed).chunks(512).zip(&possible) {
            prop_assert!(sector.iter().all(|b| b == &sector[0]));
            prop_assert!(values.contains(&sector[0]));
        }
        crashed.write(0, &[0xaa; 512]).unwrap();
        prop_assert_eq!((disk.digest(), disk.durable_digest()), before);
    }
}
