//! Tables written out by hand, and properties that hold for every layout.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CHUNK: u64 = 4096;

/// The array drawn as people draw it: a line for each row, a letter or number for each member.
fn draw(geometry: &Geometry, rows: u64) -> String {
    let line = |row: u64| {
        let cells = (0..geometry.members()).map(|member| {
            match geometry.holds(Spot { member, offset: row * geometry.chunk() }) {
                Holds::Data(address) => (address / geometry.chunk()).to_string(),
                Holds::P(_) => "P".to_owned(),
                Holds::Q(_) => "Q".to_owned(),
                Holds::Nothing => "-".to_owned(),
            }
        });
        cells.collect::<Vec<_>>().join(" ")
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n")
}

fn equal(shape: Shape, members: usize, rows: u64) -> Geometry {
    Geometry::new(shape, CHUNK, &vec![rows * CHUNK; members]).unwrap()
}

fn unequal(shape: Shape, rows: &[u64]) -> Geometry {
    let sizes: Vec<u64> = rows.iter().map(|rows| rows * CHUNK).collect();
    Geometry::new(shape, CHUNK, &sizes).unwrap()
}

#[test]
fn raid_4_and_5_as_drawn_in_books() {
    let cases = [
        (Shape::Raid4, "0 1 2 P\n3 4 5 P\n6 7 8 P\n9 10 11 P"),
        (Shape::Raid5(Rotation5::LeftAsymmetric), "0 1 2 P\n3 4 P 5\n6 P 7 8\nP 9 10 11"),
        (Shape::Raid5(Rotation5::RightAsymmetric), "P 0 1 2\n3 P 4 5\n6 7 P 8\n9 10 11 P"),
        (Shape::Raid5(Rotation5::LeftSymmetric), "0 1 2 P\n4 5 P 3\n8 P 6 7\nP 9 10 11"),
        (Shape::Raid5(Rotation5::RightSymmetric), "P 0 1 2\n5 P 3 4\n7 8 P 6\n9 10 11 P"),
        (Shape::Raid5(Rotation5::ParityFirst), "P 0 1 2\nP 3 4 5\nP 6 7 8\nP 9 10 11"),
        (Shape::Raid5(Rotation5::ParityLast), "0 1 2 P\n3 4 5 P\n6 7 8 P\n9 10 11 P"),
    ];
    for (shape, drawing) in cases {
        let geometry = equal(shape, 4, 4);
        assert_eq!(draw(&geometry, 4), drawing, "{shape}");
        assert_eq!(geometry.size(), 12 * CHUNK);
    }
}

/// Layout, the drawing, and for each row the powers in Q of the members, `.` where there is none.
#[test]
fn raid_6_and_the_order_in_which_q_counts() {
    use Rotation5::{
        LeftAsymmetric, LeftSymmetric, ParityFirst, ParityLast, RightAsymmetric, RightSymmetric,
    };
    let cases = [
        (Rotation6::Md(LeftAsymmetric), "Q 0 1 P\n2 3 P Q\n4 P Q 5\nP Q 6 7", ".01. 01.. 1..0 ..01"),
        (Rotation6::Md(RightAsymmetric), "P Q 0 1\n2 P Q 3\n4 5 P Q\nQ 6 7 P", "..01 1..0 01.. .01."),
        (Rotation6::Md(LeftSymmetric), "Q 0 1 P\n2 3 P Q\n5 P Q 4\nP Q 6 7", ".01. 01.. 1..0 ..01"),
        (Rotation6::Md(RightSymmetric), "P Q 0 1\n3 P Q 2\n4 5 P Q\nQ 6 7 P", "..01 1..0 01.. .01."),
        (Rotation6::Md(ParityFirst), "P Q 0 1\nP Q 2 3\nP Q 4 5\nP Q 6 7", "..01 ..01 ..01 ..01"),
        (Rotation6::Md(ParityLast), "0 1 P Q\n2 3 P Q\n4 5 P Q\n6 7 P Q", "01.. 01.. 01.. 01.."),
        (Rotation6::DdfZeroRestart, "P Q 0 1\n2 P Q 3\n4 5 P Q\nQ 6 7 P", "..23 0..3 01.. .12."),
        (Rotation6::DdfNRestart, "0 1 P Q\n2 P Q 3\nP Q 4 5\nQ 6 7 P", "01.. 0..3 ..23 .12."),
        (Rotation6::DdfNContinue, "0 1 Q P\n3 Q P 2\nQ P 4 5\nP 6 7 Q", "01.. 0..3 ..23 .12."),
        (Rotation6::Raid5Q(LeftAsymmetric), "0 1 P Q\n2 P 3 Q\nP 4 5 Q\n6 7 P Q", "01.. 0.1. .01. 01.."),
        (Rotation6::Raid5Q(RightAsymmetric), "P 0 1 Q\n2 P 3 Q\n4 5 P Q\nP 6 7 Q", ".01. 0.1. 01.. .01."),
        (Rotation6::Raid5Q(LeftSymmetric), "0 1 P Q\n3 P 2 Q\nP 4 5 Q\n6 7 P Q", "01.. 0.1. .01. 01.."),
        (Rotation6::Raid5Q(RightSymmetric), "P 0 1 Q\n3 P 2 Q\n4 5 P Q\nP 6 7 Q", ".01. 0.1. 01.. .01."),
        (Rotation6::Raid5Q(ParityFirst), "P 0 1 Q\nP 2 3 Q\nP 4 5 Q\nP 6 7 Q", ".01. .01. .01. .01."),
    ];
    assert_eq!(cases.len(), Rotation6::all().count());
    for (rotation, drawing, powers) in cases {
        let geometry = equal(Shape::Raid6(rotation), 4, 4);
        assert_eq!(draw(&geometry, 4), drawing, "{rotation:?}");
        let drawn = (0..4).map(|stripe| {
            let powers = geometry.row(stripe).unwrap().powers.iter();
            powers.map(|power| power.map_or(".".to_owned(), |power| power.to_string())).collect::<String>()
        });
        assert_eq!(drawn.collect::<Vec<_>>().join(" "), powers, "{rotation:?}");
    }
}

#[test]
fn raid_10_near_far_and_offset() {
    let layout = |code| Shape::from_codes(10, code).unwrap();
    assert_eq!(draw(&equal(layout(0x102), 4, 3), 3), "0 0 1 1\n2 2 3 3\n4 4 5 5");
    assert_eq!(draw(&equal(layout(0x102), 5, 4), 4), "0 0 1 1 2\n2 3 3 4 4\n5 5 6 6 7\n7 8 8 9 9");
    assert_eq!(draw(&equal(layout(0x103), 4, 3), 3), "0 0 0 1\n1 1 2 2\n2 3 3 3");
    assert_eq!(draw(&equal(layout(0x201), 4, 4), 4), "0 1 2 3\n4 5 6 7\n3 0 1 2\n7 4 5 6");
    assert_eq!(draw(&equal(layout(0x301), 3, 3), 3), "0 1 2\n2 0 1\n1 2 0");
    assert_eq!(draw(&equal(layout(0x1_0201), 3, 4), 4), "0 1 2\n2 0 1\n3 4 5\n5 3 4");
    // Far copies that stay within their pair.
    assert_eq!(draw(&equal(layout(0x4_0201), 4, 4), 4), "0 1 2 3\n4 5 6 7\n1 0 3 2\n5 4 7 6");
    assert!(Shape::from_codes(10, 0).is_err());
    assert!(Shape::from_codes(10, 0x8_0102).is_err());
}

#[test]
fn raid_0_over_unequal_members() {
    let sizes = [4, 2, 3];
    let alternate = unequal(Shape::Raid0(ZoneOrder::Alternate), &sizes);
    assert_eq!(draw(&alternate, 4), "0 1 2\n3 4 5\n6 - 7\n8 - -");
    // Here the second zone begins with chunk 6 of two members, which is even: no difference.
    let original = unequal(Shape::Raid0(ZoneOrder::Original), &sizes);
    assert_eq!(draw(&original, 4), draw(&alternate, 4));
    // With a first zone of 3 chunks the deal goes on with the other member.
    let original = unequal(Shape::Raid0(ZoneOrder::Original), &[3, 1, 3]);
    assert_eq!(draw(&original, 3), "0 1 2\n4 - 3\n6 - 5");
    assert_eq!(original.size(), 7 * CHUNK);
    let linear = unequal(Shape::Linear, &[2, 0, 3]);
    let spot = Spot { member: 2, offset: 0 };
    assert_eq!(linear.locate(2 * CHUNK), Some((Place::Copies(vec![spot]), 3 * CHUNK)));
    assert_eq!(linear.locate(5 * CHUNK), None);
}

/// A chunk of 3 sectors: the kernel clears bit 1 of each length of 3 * 5 sectors, leaving 13.
#[test]
fn an_odd_chunk_ends_a_raid_0_early() {
    let geometry = Geometry::new(Shape::Raid0(ZoneOrder::Alternate), 1536, &[8000, 8000]).unwrap();
    assert_eq!(geometry.size(), 2 * 13 * 512);
}

#[test]
fn codes_go_there_and_back() {
    for level in [-1, 0, 1, 4, 5, 6, 10] {
        for layout in 0..0x6_0404 {
            if let Ok(shape) = Shape::from_codes(level, layout) {
                let (back, code) = shape.codes();
                assert_eq!(back, level);
                assert_eq!(Shape::from_codes(level, code).unwrap(), shape);
            }
        }
    }
    assert_eq!(Shape::from_codes(6, 18).unwrap().to_string(), "raid6 left-symmetric-6");
    assert_eq!(Shape::from_codes(10, 0x1_0201).unwrap().to_string(), "raid10 offset=2");
    assert!(Shape::from_codes(-5, 0).is_err());
    assert!(Shape::from_codes(6, 21).is_err());
}

/// Every shape that makes sense on few members.
fn shapes() -> Vec<Shape> {
    let mut shapes = vec![Shape::Linear, Shape::Raid1, Shape::Raid4];
    shapes.extend([ZoneOrder::Original, ZoneOrder::Alternate].map(Shape::Raid0));
    shapes.extend(Rotation5::ALL.map(Shape::Raid5));
    shapes.extend(Rotation6::all().map(Shape::Raid6));
    let codes = [0x101, 0x102, 0x103, 0x201, 0x301, 0x1_0201, 0x1_0301, 0x2_0201, 0x4_0201, 0x5_0201, 0x202];
    shapes.extend(codes.map(|code| Shape::from_codes(10, code).unwrap()));
    shapes
}

proptest! {
    /// Walking all addresses and walking all places of all members tell the same story, and every byte of a
    /// parity row is for exactly one thing.
    #[test]
    fn both_directions_agree(
        shape in prop::sample::select(shapes()),
        sizes in prop::collection::vec(0_u64..24, 1..9),
        sectors in 1_u64..6,
    ) {
        let chunk = sectors * 512;
        let sizes: Vec<u64> = sizes.iter().map(|size| size * 700).collect();
        let Ok(geometry) = Geometry::new(shape, chunk, &sizes) else { return Ok(()) };
        let step = 256;
        let mut placed = BTreeMap::new();
        let mut address = 0;
        while address < geometry.size() {
            let (place, length) = geometry.locate(address).unwrap();
            prop_assert!(length > 0);
            let spots = match place {
                Place::Copies(spots) => spots,
                Place::Row { spot, .. } => vec![spot],
            };
            prop_assert!(!spots.is_empty());
            for spot in spots {
                for at in (0..length).step_by(step) {
                    let spot = Spot { offset: spot.offset + at, ..spot };
                    prop_assert!(spot.offset < sizes[usize::from(spot.member)]);
                    prop_assert_eq!(placed.insert((spot.member, spot.offset), address + at), None);
                }
            }
            address += length;
        }
        prop_assert_eq!(address, geometry.size());
        for member in 0..geometry.members() {
            for offset in (0..sizes[usize::from(member)]).step_by(step) {
                let holds = geometry.holds(Spot { member, offset });
                match placed.get(&(member, offset)) {
                    Some(address) => prop_assert_eq!(holds, Holds::Data(*address)),
                    None => prop_assert!(!matches!(holds, Holds::Data(_))),
                }
            }
        }
    }

    /// In every row each member has one duty, and the powers of Q are as many different ones as there is data.
    #[test]
    fn rows_are_whole(rotation in prop::sample::select(Rotation6::all().collect::<Vec<_>>()), members in 4_usize..40, stripe: u64) {
        let geometry = equal(Shape::Raid6(rotation), members, 3);
        let row = geometry.row(stripe).unwrap();
        let mut duties: Vec<u16> = row.data.iter().copied().chain([row.p]).chain(row.q).collect();
        duties.sort_unstable();
        prop_assert!(duties.into_iter().eq(0..members as u16));
        let mut powers: Vec<u8> = row.data.iter().filter_map(|member| row.powers[usize::from(*member)]).collect();
        powers.sort_unstable();
        prop_assert!(powers.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(powers.len(), members - 2);
        if !rotation.is_ddf() {
            prop_assert!(powers.into_iter().eq(0..members as u8 - 2));
        }
    }

    #[test]
    fn no_numbers_make_it_panic(
        level in -2_i32..11, layout: u32, chunk: u64, sizes in prop::collection::vec(any::<u64>(), 0..12), at: u64,
    ) {
        let chunk = if chunk & 1 == 0 { chunk } else { chunk % 1000 * 512 };
        for layout in [layout, layout % 32, layout % 0x8_0000] {
            let Ok(shape) = Shape::from_codes(level, layout) else { continue };
            let sizes: Vec<u64> = sizes.iter().map(|size| size >> (size % 64)).collect();
            if let Ok(geometry) = Geometry::new(shape, chunk, &sizes) {
                let _ = geometry.locate(at);
                let _ = geometry.locate(at.checked_rem(geometry.size()).unwrap_or(0));
                for member in 0..geometry.members() {
                    let _ = geometry.holds(Spot { member, offset: at });
                }
            }
        }
    }
}
