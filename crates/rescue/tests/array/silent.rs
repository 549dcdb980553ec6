//! A member that is silently wrong is found by parity whenever it is read, if that is asked for.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::Arc;

use device::{BadMap, BadMapDevice, BlockDevice, MemoryDevice};
use geometry::md::{Holds, Rotation5, Rotation6, Shape, Spot};
use proptest::prelude::*;
use rescue::{ArrayDevice, Misfit, Section, Source};

use crate::made::{Made, make, random};

const START: u64 = 2048;

/// The members, of which some sectors are other bytes than they were, and some can't be read.
fn section(made: &Made, wrong: &BTreeSet<(usize, u64)>, bad: &BTreeSet<(usize, u64)>) -> Section {
    let source = |(member, bytes): (usize, &Vec<u8>)| {
        let mut image = vec![0; START as usize];
        image.extend_from_slice(bytes);
        for (_, sector) in wrong.iter().filter(|(of, _)| *of == member) {
            let garbage = random(sector * 64 + member as u64, 512);
            let place = (START + sector * 512) as usize;
            image[place..place + 512].iter_mut().zip(garbage).for_each(|(byte, other)| *byte ^= other);
        }
        let own = bad.iter().filter(|(of, _)| *of == member);
        let map =
            BadMap::from_bad_ranges(own.map(|(_, sector)| START + sector * 512..START + (sector + 1) * 512));
        let device = MemoryDevice::from_bytes(format!("member {member}"), &image);
        Some(Source::whole(Arc::new(BadMapDevice::new(Arc::new(device), map)), START))
    };
    Section {
        geometry: made.geometry.clone(),
        sources: made.members.iter().enumerate().map(source).collect(),
    }
}

/// The sectors of members that were found wrong, and the rows of which it can't be told.
fn told(misfits: &[Misfit]) -> (BTreeSet<(usize, u64)>, BTreeSet<u64>) {
    let (mut wrong, mut unclear) = (BTreeSet::new(), BTreeSet::new());
    for misfit in misfits {
        let start = if misfit.member.is_some() { START } else { 0 };
        for sector in (misfit.at - start) / 512..(misfit.at - start + misfit.length) / 512 {
            if let Some(slot) = misfit.slot {
                assert_eq!(misfit.member, Some(format!("member {slot}")));
                wrong.insert((usize::from(slot), sector));
            } else {
                unclear.insert(sector);
            }
        }
    }
    (wrong, unclear)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// One wrong member in a row of sectors is told and read right; of more than one, or one beside another that can't be
    /// read, it is told that something is wrong; all other rows are right.
    #[test]
    fn one_wrong_member_is_found(
        rotation in prop::sample::select(Rotation6::all().collect::<Vec<_>>()),
        count in 4_usize..8,
        sectors in 1_u64..9,
        wrong in prop::collection::btree_set((0_usize..8, 0_u64..40), 0..25),
        bad in prop::collection::btree_set((0_usize..8, 0_u64..40), 0..4),
        seed: u64,
        reads in prop::collection::vec((any::<u64>(), 1_u64..9000), 1..6),
        long: bool,
    ) {
        let Some(made) = make(Shape::Raid6(rotation), sectors * 512, &vec![40 * 512; count], seed) else {
            return Ok(());
        };
        let used = made.geometry.size() / 512 / (count as u64 - 2);
        let real = |set: BTreeSet<(usize, u64)>| -> BTreeSet<(usize, u64)> {
            set.into_iter().filter(|(member, sector)| *member < count && *sector < used).collect()
        };
        let (wrong, bad) = (real(wrong), real(bad));
        let wrong: BTreeSet<_> = wrong.difference(&bad).copied().collect();
        let of = |set: &BTreeSet<(usize, u64)>, sector: u64| set.iter().filter(|(_, own)| *own == sector).count();
        let array = ArrayDevice::new("array", section(&made, &wrong, &bad)).checking();
        let size = made.contents.len() as u64;
        if long {
            let mut all = vec![0; size as usize];
            // Too much may be lost, which is no error of what is not.
            array.read_around_losses(0, &mut all).unwrap();
        }
        for (offset, length) in reads {
            let offset = offset % size;
            let length = length.min(size - offset);
            let mut bytes = vec![0; length as usize];
            let lost = array.read_around_losses(offset, &mut bytes).unwrap();
            for (address, byte) in (offset..).zip(bytes) {
                let Some((geometry::md::Place::Row { spot, .. }, _)) = made.geometry.locate(address) else { panic!() };
                let sector = spot.offset / 512;
                let (wrong_here, bad_here) = (of(&wrong, sector), of(&bad, sector));
                prop_assert_eq!(lost.iter().any(|range| range.contains(&address)),
                    bad_here > 2 && bad.contains(&(usize::from(spot.member), sector)));
                if wrong_here == 0 && bad_here <= 2 || wrong_here == 1 && bad_here == 0 {
                    prop_assert_eq!(byte, made.contents[address as usize], "at {}", address);
                }
            }
        }
        let (found, unclear) = told(&array.misfits());
        for sector in 0..used {
            let own: BTreeSet<_> = found.iter().filter(|(_, own)| *own == sector).copied().collect();
            let there: BTreeSet<_> = wrong.iter().filter(|(_, own)| *own == sector).copied().collect();
            match (there.len(), of(&bad, sector)) {
                (0, _) => prop_assert!(own.is_empty() && !unclear.contains(&sector)),
                (1, 0) => {
                    prop_assert!(!unclear.contains(&sector) && own.is_subset(&there));
                    prop_assert!(!long || own == there);
                }
                (1, 1) => {
                    prop_assert!(own.is_empty());
                    prop_assert!(!long || unclear.contains(&sector));
                }
                (_, 0) => prop_assert!(own.is_empty() && (!long || unclear.contains(&sector))),
                _ => prop_assert!(own.is_empty()),
            }
        }
    }
}

/// Where it lies is told for the member and for the array; nothing is looked at unless it is asked for.
#[test]
fn it_is_told_where_it_lies() {
    let made = make(Shape::Raid6(Rotation6::Md(Rotation5::LeftSymmetric)), 4096, &[1 << 17; 5], 6).unwrap();
    let spot = Spot { member: 2, offset: 9 * 512 };
    let Holds::Data(address) = made.geometry.holds(spot) else { panic!() };
    let wrong = BTreeSet::from([(2, 9)]);
    let mut bytes = vec![0; made.contents.len()];
    let plain = ArrayDevice::new("array", section(&made, &wrong, &BTreeSet::new()));
    plain.read(0, &mut bytes).unwrap();
    assert!(bytes != made.contents && plain.misfits().is_empty());
    let array = ArrayDevice::new("array", section(&made, &wrong, &BTreeSet::new())).checking();
    array.read(0, &mut bytes).unwrap();
    assert!(bytes == made.contents);
    let member = Some("member 2".to_owned());
    let expected = Misfit { member, slot: Some(2), at: START + 9 * 512, length: 512, address: Some(address) };
    assert_eq!((array.misfits(), array.new_misfits()), (vec![expected.clone()], vec![expected.clone()]));
    // Once more it is no more than it was.
    array.read(0, &mut bytes).unwrap();
    assert_eq!((array.misfits(), array.new_misfits()), (vec![expected], Vec::new()));
}

/// With one parity, or one member less, it is told that something is wrong and not what.
#[test]
fn with_one_equation_it_is_told_that_something_is_wrong() {
    let raid5 = Shape::Raid5(Rotation5::LeftSymmetric);
    let raid6 = Shape::Raid6(Rotation6::Md(Rotation5::LeftSymmetric));
    for (shape, missing) in [(raid5, None), (raid6, Some(0)), (raid6, Some(4))] {
        let made = make(shape, 4096, &[1 << 17; 5], 7).unwrap();
        let mut section = section(&made, &BTreeSet::from([(2, 9)]), &BTreeSet::new());
        if let Some(missing) = missing {
            section.sources[missing] = None;
        }
        let array = ArrayDevice::new("array", section).checking();
        let mut bytes = vec![0; made.contents.len()];
        array.read(0, &mut bytes).unwrap();
        assert_eq!(told(&array.misfits()), (BTreeSet::new(), BTreeSet::from([9])), "{shape}");
    }
}

/// Long rows, which are read as wholes, several at a time, and in the middle.
#[test]
fn long_reads_are_checked_as_well() {
    let made = make(Shape::Raid6(Rotation6::Md(Rotation5::RightAsymmetric)), 256 << 10, &[1 << 20; 7], 8);
    let made = made.unwrap();
    let wrong: BTreeSet<(usize, u64)> = (0..2048_u64).step_by(3).map(|at| (at as usize % 7, at)).collect();
    for first in [0, 100 << 10] {
        let array = ArrayDevice::new("array", section(&made, &wrong, &BTreeSet::new())).checking();
        let mut bytes = vec![0; made.contents.len() - first];
        array.read(first as u64, &mut bytes).unwrap();
        assert!(bytes == made.contents[first..]);
        assert_eq!(told(&array.misfits()), (wrong.clone(), BTreeSet::new()));
    }
}
