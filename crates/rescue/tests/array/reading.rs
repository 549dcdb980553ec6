//! What is read equals what was there, and what is lost is exactly what no redundancy can give back.
#![allow(clippy::unwrap_used, dead_code)]

use std::ops::Range;
use std::sync::Arc;

use device::{BadMap, BadMapDevice, BlockDevice, DeviceErrorKind, MemoryDevice, OverlayDevice};
use geometry::md::{Geometry, Place, Rotation5, Rotation6, Shape, Spot};
use proptest::prelude::*;
use rescue::{ArrayDevice, Section, Source};

use crate::made::{Made, fill, make, random};

const START: u64 = 1024;

/// The members as devices behind a gap, some missing, with bad ranges of their data.
fn section(made: &Made, missing: &[usize], bad: &[(usize, Range<u64>)]) -> Section {
    let source = |(member, bytes): (usize, &Vec<u8>)| {
        if missing.contains(&member) {
            return None;
        }
        let mut image = vec![0xcc; START as usize];
        image.extend_from_slice(bytes);
        let own = bad.iter().filter(|(of, _)| *of == member);
        let map = BadMap::from_bad_ranges(own.map(|(_, range)| range.start + START..range.end + START));
        let device = MemoryDevice::from_bytes(format!("member {member}"), &image);
        let device: Arc<dyn BlockDevice> = Arc::new(BadMapDevice::new(Arc::new(device), map));
        Some(Source::whole(device, START))
    };
    Section {
        geometry: made.geometry.clone(),
        sources: made.members.iter().enumerate().map(source).collect(),
    }
}

fn shapes() -> Vec<Shape> {
    let codes =
        [(-1, 0), (0, 1), (0, 2), (1, 0), (4, 0), (10, 0x102), (10, 0x201), (10, 0x1_0201), (10, 0x103)];
    let mut shapes: Vec<Shape> =
        codes.iter().map(|(level, layout)| Shape::from_codes(*level, *layout).unwrap()).collect();
    shapes.extend(Rotation5::ALL.map(Shape::Raid5));
    shapes.extend(Rotation6::all().map(Shape::Raid6));
    shapes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_byte_that_can_be_had_is_had(
        shape in prop::sample::select(shapes()),
        count in 2_usize..7,
        sectors in 1_u64..9,
        missing in prop::collection::vec(0_usize..7, 0..3),
        bad in prop::collection::vec((0_usize..7, 0_u64..40, 1_u64..12), 0..8),
        seed: u64,
        reads in prop::collection::vec((any::<u64>(), 1_u64..9000), 1..6),
    ) {
        let chunk = sectors * 512;
        let sizes = vec![40 * 512; count];
        let Some(made) = make(shape, chunk, &sizes, seed) else { return Ok(()) };
        if made.geometry.size() == 0 {
            return Ok(());
        }
        let bad: Vec<(usize, Range<u64>)> = bad
            .into_iter()
            .map(|(member, start, length)| (member, start * 512..((start + length) * 512).min(40 * 512)))
            .collect();
        let array = ArrayDevice::new("array", section(&made, &missing, &bad));
        let size = array.size().unwrap();
        prop_assert_eq!(size, made.contents.len() as u64);
        let readable = |spot: Spot| {
            let member = usize::from(spot.member);
            !missing.contains(&member) && !bad.iter().any(|(of, range)| *of == member && range.contains(&spot.offset))
        };
        let can_be_had = |address: u64| match made.geometry.locate(address).unwrap().0 {
            Place::Copies(spots) => spots.into_iter().any(readable),
            Place::Row { spot, row } => {
                let members = row.data.iter().copied().chain([row.p]).chain(row.q);
                let gone = members.filter(|member| !readable(Spot { member: *member, ..spot })).count();
                readable(spot) || gone <= 1 + usize::from(row.q.is_some())
            }
        };
        for (at, length) in reads {
            let at = at % size;
            let mut buffer = vec![0; length.min(size - at) as usize];
            let lost = array.read_around_losses(at, &mut buffer).unwrap();
            for (address, byte) in (at..).zip(&buffer) {
                let is_lost = lost.iter().any(|range| range.contains(&address));
                prop_assert_eq!(is_lost, !can_be_had(address), "{} at {}", shape, address);
                prop_assert!(is_lost || *byte == made.contents[address as usize], "{} at {}", shape, address);
            }
            let read = array.read(at, &mut buffer);
            prop_assert_eq!(read.is_ok(), lost.is_empty());
        }
    }

    /// Addresses on either side of the front, with members that have moved.
    #[test]
    fn an_interrupted_reshape_is_read_with_both_geometries(front in 0_u64..30, backwards: bool, seed: u64) {
        let chunk = 2048;
        let shape = Shape::Raid5(Rotation5::LeftSymmetric);
        let sizes = vec![16 * 2048; 4];
        let contents = random(seed, 3 * 16 * 2048);
        let old = make(shape, chunk, &sizes[..3], 0).unwrap();
        let new = make(shape, chunk, &sizes, 0).unwrap();
        let old_members = fill(&old.geometry, &contents, &sizes[..3]);
        let new_members = fill(&new.geometry, &contents, &sizes);
        let old = Made { members: old_members, ..old };
        let new = Made { members: new_members, ..new };
        let done = if backwards { front * 4096..u64::MAX } else { 0..front * 4096 };
        let array = ArrayDevice::reshaping("array", section(&old, &[1], &[]), section(&new, &[1], &[]), done);
        let mut buffer = vec![0; array.size().unwrap() as usize];
        array.read(0, &mut buffer).unwrap();
        prop_assert_eq!(buffer.len(), 2 * 16 * 2048);
        prop_assert!(buffer == contents[..buffer.len()]);
    }
}

#[test]
fn the_array_is_read_only_and_an_overlay_takes_writes() {
    let made = make(Shape::Raid5(Rotation5::LeftSymmetric), 4096, &[65536; 3], 1).unwrap();
    let array = ArrayDevice::new("array", section(&made, &[], &[]));
    assert_eq!(array.write(0, &[1; 512]).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert_eq!(array.discard(0, 512).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert!(array.read(made.contents.len() as u64 - 1, &mut [0; 2]).is_err());
    let overlay = OverlayDevice::in_memory(Arc::new(array)).unwrap();
    overlay.write(512, &[7; 512]).unwrap();
    let mut bytes = [0; 1024];
    overlay.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes[..512], &bytes[512..]), (&made.contents[..512], &[7; 512][..]));
}

#[test]
fn a_half_rebuilt_member_is_believed_only_so_far() {
    let mut made = make(Shape::Raid1, 0, &[65536; 2], 3).unwrap();
    made.members[0][32768..].fill(0);
    let mut section = section(&made, &[], &[]);
    section.sources[0].as_mut().unwrap().valid = 32768;
    let array = ArrayDevice::new("array", section);
    let mut bytes = vec![0; 65536];
    array.read(0, &mut bytes).unwrap();
    assert!(bytes == made.contents);
}

/// With Q counted in any other order the sampled rows don't fit.
#[test]
fn sampled_parity_tells_right_from_wrong() {
    let shape = Shape::Raid6(Rotation6::Md(Rotation5::LeftSymmetric));
    let made = make(shape, 4096, &[1 << 18; 5], 4).unwrap();
    let right = section(&made, &[], &[]);
    let mut wrong = right.clone();
    wrong.sources.swap(0, 1);
    let (fits, misfits) = ArrayDevice::new("array", right.clone()).sample_parity(100).unwrap();
    assert!(fits >= 50 && misfits == 0, "{fits} {misfits}");
    let (fits, misfits) = ArrayDevice::new("array", wrong).sample_parity(100).unwrap();
    assert!(misfits > 5 * fits, "{fits} {misfits}");
    let degraded = section(&made, &[2], &[]);
    assert_eq!(ArrayDevice::new("array", degraded).sample_parity(100), None);
}

/// A RAID 0 of three that was being grown to four: md makes it a RAID 4 without parity for that time, and the new member is where
/// parity would be. What can't be read is lost, and not made of what lies there.
#[test]
fn a_raid_0_that_was_being_grown() {
    const CHUNK: u64 = 4096;
    const SIZE: u64 = 1 << 20;
    let shape = Shape::from_codes(4, 0).unwrap();
    let [old, new] = [4, 5].map(|disks| Geometry::new(shape, CHUNK, &vec![SIZE; disks]).unwrap());
    let contents = crate::made::random(4, old.size() as usize);
    let position = 120 * CHUNK;
    let mut members = vec![crate::made::random(9, SIZE as usize); 4];
    for (at, bytes) in contents.chunks(CHUNK as usize).enumerate() {
        let address = at as u64 * CHUNK;
        let geometry = if address < position { &new } else { &old };
        let Some((Place::Row { spot, .. }, _)) = geometry.locate(address) else { panic!() };
        members[usize::from(spot.member)][spot.offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let slot = |(number, bytes): (usize, &Vec<u8>)| {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, bytes).unwrap();
        let bad = folder.path().join("bad");
        std::fs::write(&bad, "0 + 1\n0 0x80000 +\n0x80000 0x1000 -\n0x81000 0x7f000 +\n").unwrap();
        let map = (number == 0).then_some(bad);
        Some(rescue::Slot {
            path,
            map,
            data_offset: 0,
            size: SIZE,
            valid: None,
            new_data_offset: None,
            clean_by: None,
            doubtful: Vec::new(),
        })
    };
    let candidate = rescue::Candidate {
        array: "growing".to_owned(),
        score: 0,
        reasons: Vec::new(),
        level: 4,
        layout: 0,
        shape: String::new(),
        chunk: CHUNK,
        slots: members.iter().enumerate().map(slot).chain([None]).collect(),
        left_out: Vec::new(),
        reshape: Some(rescue::Reshaping {
            level: 4,
            layout: 0,
            chunk: CHUNK,
            old_disks: 4,
            new_disks: 5,
            position,
            backwards: false,
            backup: None,
        }),
        logs: None,
        check_parity: false,
        overwritten_by: None,
    };
    let array = candidate.open().unwrap();
    let mut bytes = vec![0; array.size().unwrap() as usize];
    let lost = array.read_around_losses(0, &mut bytes).unwrap();
    assert_eq!(lost.iter().map(|range| range.end - range.start).sum::<u64>(), CHUNK);
    let range = lost[0].start as usize..lost[0].end as usize;
    bytes[range.clone()].copy_from_slice(&contents[range]);
    assert!(bytes == contents[..bytes.len()]);
}

/// A RAID 5 whose layout was being changed in place: where it was interrupted the rows are torn, and what was in them is in
/// mdadm's backup file.
#[test]
fn a_reshape_that_has_a_backup_file() {
    const CHUNK: u64 = 4096;
    const SIZE: u64 = 1 << 20;
    let [old, new] = [(5, 2), (5, 0)].map(|(level, layout)| {
        Geometry::new(Shape::from_codes(level, layout).unwrap(), CHUNK, &[SIZE; 3]).unwrap()
    });
    let contents = crate::made::random(5, old.size() as usize);
    let (position, torn) = (100 * CHUNK, 100 * CHUNK..132 * CHUNK);
    let mut members = vec![crate::made::random(8, SIZE as usize); 3];
    for (at, bytes) in contents.chunks(CHUNK as usize).enumerate() {
        let address = at as u64 * CHUNK;
        let geometry = if address < position { &new } else { &old };
        let Some((Place::Row { spot, .. }, _)) = geometry.locate(address) else { panic!() };
        if !torn.contains(&address) {
            members[usize::from(spot.member)][spot.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    let aside = &contents[torn.start as usize..torn.end as usize];
    std::fs::write(&file, [&[0; 4096], aside].concat()).unwrap();
    let slot = |(number, bytes): (usize, &Vec<u8>)| {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, bytes).unwrap();
        Some(rescue::Slot {
            path,
            map: None,
            data_offset: 0,
            size: SIZE,
            valid: None,
            new_data_offset: None,
            clean_by: None,
            doubtful: Vec::new(),
        })
    };
    let candidate = |backup| rescue::Candidate {
        array: "changing".to_owned(),
        score: 0,
        reasons: Vec::new(),
        level: 5,
        layout: 2,
        shape: String::new(),
        chunk: CHUNK,
        slots: members.iter().enumerate().map(slot).collect(),
        left_out: Vec::new(),
        reshape: Some(rescue::Reshaping {
            level: 5,
            layout: 0,
            chunk: CHUNK,
            old_disks: 3,
            new_disks: 3,
            position,
            backwards: false,
            backup,
        }),
        logs: None,
        check_parity: false,
        overwritten_by: None,
    };
    let read = |backup| {
        let mut bytes = vec![0; contents.len()];
        candidate(backup).open().unwrap().read(0, &mut bytes).unwrap();
        (0..contents.len()).filter(|at| bytes[*at] != contents[*at]).count()
    };
    assert!(read(None) > 100_000);
    let run = (4096, torn.start, torn.end - torn.start);
    // What was done before lies in the file as well, and is old.
    let before = (0, 0, 8 * CHUNK);
    assert_eq!(read(Some(rescue::Backup { path: file, runs: vec![before, run] })), 0);
}
