//! The layouts against tables written by hand, and against properties that every layout must have.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use geometry::{Cell, ColumnSet, Kind, Layout, LayoutError, Role, Segment};
use proptest::prelude::*;

const UNIT: u32 = 4096;

fn layout(kind: Kind, columns: u16) -> Layout {
    Layout::new(kind, columns, UNIT).expect("a possible layout")
}

fn set(columns: &[u16]) -> ColumnSet {
    columns.iter().copied().collect()
}

/// One row of the layout as text, a word for each column: D0, D1, ... and P, Q, R.
fn row(layout: Layout, row: u64) -> String {
    let word = |column| match layout.role(row, column) {
        Role::Data(index) => format!("D{index}"),
        Role::Parity(j) => ["P", "Q", "R"][usize::from(j)].to_owned(),
    };
    (0..layout.columns()).map(word).collect::<Vec<_>>().join(" ")
}

fn table(layout: Layout, rows: u64) -> Vec<String> {
    (0..rows).map(|r| row(layout, r)).collect()
}

#[test]
fn copies_hold_the_same_everywhere() {
    assert_eq!(table(layout(Kind::Copies, 3), 2), ["D0 D0 D0", "D0 D0 D0"]);
    assert_eq!(table(layout(Kind::Copies, 1), 2), ["D0", "D0"]);
}

#[test]
fn a_stripe_goes_straight_across() {
    assert_eq!(table(layout(Kind::Stripe, 4), 2), ["D0 D1 D2 D3", "D0 D1 D2 D3"]);
}

#[test]
fn copies_of_a_stripe_are_neighbours() {
    assert_eq!(table(layout(Kind::StripedCopies { copies: 2 }, 4), 1), ["D0 D0 D1 D1"]);
    assert_eq!(table(layout(Kind::StripedCopies { copies: 3 }, 6), 1), ["D0 D0 D0 D1 D1 D1"]);
    assert_eq!(layout(Kind::StripedCopies { copies: 2 }, 6).columns_of(9, 2), 4..6);
}

#[test]
fn single_parity_is_left_symmetric() {
    let want = ["D0 D1 D2 P", "D1 D2 P D0", "D2 P D0 D1", "P D0 D1 D2", "D0 D1 D2 P"];
    assert_eq!(table(layout(Kind::Parity { parity: 1 }, 4), 5), want);
    // The published rule for RAID 5 left-symmetric: data unit j of the array is on disk j mod n.
    for n in 2..9 {
        let layout = layout(Kind::Parity { parity: 1 }, n);
        for unit in 0..200_u64 {
            let cell = layout.cell(unit * u64::from(UNIT));
            assert_eq!(u64::from(layout.data_column(cell.row, cell.index)), unit % u64::from(n));
        }
    }
}

#[test]
fn double_and_triple_parity_rotate_likewise() {
    let want = ["Q D0 D1 P", "D0 D1 P Q", "D1 P Q D0"];
    assert_eq!(table(layout(Kind::Parity { parity: 2 }, 4), 3), want);
    let want = ["Q R D0 D1 P", "R D0 D1 P Q", "D0 D1 P Q R", "D1 P Q R D0", "P Q R D0 D1", "Q R D0 D1 P"];
    assert_eq!(table(layout(Kind::Parity { parity: 3 }, 5), 6), want);
    // As narrow as it gets: one data unit.
    assert_eq!(table(layout(Kind::Parity { parity: 1 }, 2), 3), ["D0 P", "P D0", "D0 P"]);
}

#[test]
fn sizes_follow_from_the_columns() {
    let six = Layout::new(Kind::Parity { parity: 2 }, 6, 65536).unwrap();
    assert_eq!((six.data_units(), six.row_bytes(), six.raw_per_logical()), (4, 262_144, (6, 4)));
    // A remainder of a column that is shorter than a unit holds nothing.
    assert_eq!((six.rows(10 * 65536 + 65535), six.capacity(10 * 65536 + 65535)), (10, 40 * 65536));
    assert_eq!(six.cell(65536 * 9 + 7), Cell { row: 2, index: 1, within: 7 });
    assert_eq!(Layout::column_offset(3, 65536), 196_608);
    assert_eq!(layout(Kind::Copies, 4).capacity(8192), 8192);
    assert_eq!(six.capacity(u64::MAX), u64::MAX, "saturates");
}

#[test]
fn a_range_is_split_at_units() {
    let layout = layout(Kind::Parity { parity: 1 }, 3);
    let got: Vec<_> = layout.segments(4000, 8292).collect();
    let want = [(0, 0, 4000, 4000, 96), (0, 1, 0, 4096, 4096), (1, 0, 0, 8192, 4096), (1, 1, 0, 12288, 4)];
    let want = want.map(|(row, index, within, logical, length)| Segment {
        cell: Cell { row, index, within },
        logical,
        length,
    });
    assert_eq!(got, want);
    assert_eq!(layout.rows_of(4000, 8292), 0..2);
    assert_eq!(layout.rows_of(8192, 0), 1..1);
    assert_eq!(layout.rows_of(8191, 1), 0..1);
    assert_eq!(layout.segments(5, 0).count(), 0);
    let end = layout.segments(u64::MAX - 1, 5).collect::<Vec<_>>();
    assert_eq!((end.len(), end[0].length), (1, 1), "a range beyond the end of the space is cut");
}

#[test]
fn redundancy_counts_the_worst_case() {
    let ten = layout(Kind::StripedCopies { copies: 2 }, 6);
    assert_eq!(ten.redundancy(&set(&[])), Some(1));
    assert_eq!(ten.redundancy(&set(&[0])), Some(0));
    assert_eq!(ten.redundancy(&set(&[0, 2, 5])), Some(0), "one of each mirror");
    assert_eq!(ten.redundancy(&set(&[2, 3])), None, "a whole mirror");
    let six = layout(Kind::Parity { parity: 2 }, 6);
    assert_eq!(six.redundancy(&set(&[1, 4])), Some(0));
    assert_eq!(six.redundancy(&set(&[1, 4, 5])), None);
    assert_eq!(six.redundancy(&set(&[100, 200])), Some(2), "these are no columns of it");
    assert_eq!(layout(Kind::Stripe, 2).redundancy(&set(&[])), Some(0));
    assert_eq!(layout(Kind::Stripe, 2).redundancy(&set(&[1])), None);
    assert_eq!(layout(Kind::Copies, 3).redundancy(&set(&[1])), Some(1));
}

#[test]
fn sources_prefer_data_over_parity() {
    let six = layout(Kind::Parity { parity: 2 }, 5);
    // In row 1 the columns 0 to 4 hold D0 D1 D2 P Q.
    assert_eq!(row(six, 1), "D0 D1 D2 P Q");
    assert_eq!(six.sources(1, 1, &set(&[])), Some(set(&[0, 2, 3])), "P, not Q");
    assert_eq!(six.sources(1, 1, &set(&[3])), Some(set(&[0, 2, 4])), "Q, P being gone");
    assert_eq!(six.sources(1, 3, &set(&[])), Some(set(&[0, 1, 2])), "parity from data");
    assert_eq!(six.sources(1, 3, &set(&[0, 1])), None, "three columns of two parities");
    let ten = layout(Kind::StripedCopies { copies: 3 }, 6);
    assert_eq!(ten.sources(0, 4, &set(&[])), Some(set(&[5])));
    assert_eq!(ten.sources(0, 5, &set(&[])), Some(set(&[3])));
    assert_eq!(ten.sources(0, 5, &set(&[3, 4])), None);
    assert_eq!(layout(Kind::Stripe, 3).sources(0, 1, &set(&[])), None);
    assert_eq!(layout(Kind::Copies, 3).sources(0, 7, &set(&[])), None, "no such column");
}

#[test]
fn impossible_layouts_are_refused() {
    let refused = |kind, columns, unit| Layout::new(kind, columns, unit).unwrap_err();
    assert_eq!(refused(Kind::Copies, 1, 2048), LayoutError::Unit { unit: 2048 });
    assert_eq!(refused(Kind::Copies, 1, 12288), LayoutError::Unit { unit: 12288 });
    assert_eq!(refused(Kind::Copies, 1, 0), LayoutError::Unit { unit: 0 });
    assert!(matches!(refused(Kind::Copies, 0, UNIT), LayoutError::Columns { .. }));
    assert!(matches!(refused(Kind::Stripe, 256, UNIT), LayoutError::Columns { .. }));
    assert!(matches!(refused(Kind::Parity { parity: 2 }, 2, UNIT), LayoutError::Columns { .. }));
    assert!(matches!(refused(Kind::Parity { parity: 3 }, 259, UNIT), LayoutError::Columns { .. }));
    assert_eq!(refused(Kind::Parity { parity: 4 }, 9, UNIT), LayoutError::Parity { parity: 4 });
    assert_eq!(refused(Kind::Parity { parity: 0 }, 9, UNIT), LayoutError::Parity { parity: 0 });
    assert_eq!(refused(Kind::StripedCopies { copies: 0 }, 4, UNIT), LayoutError::Copies { copies: 0 });
    let odd = refused(Kind::StripedCopies { copies: 2 }, 5, UNIT);
    assert_eq!(odd.to_string(), "5 columns can't be divided into mirrors of 2: give a multiple of 2");
    assert!(Layout::new(Kind::Parity { parity: 3 }, 258, 1 << 31).is_ok());
}

fn layouts() -> impl Strategy<Value = Layout> {
    let unit = (12_u32..21).prop_map(|shift| 1 << shift);
    let shape = prop_oneof![
        (1_u16..=258).prop_map(|n| (Kind::Copies, n)),
        (1_u16..=255).prop_map(|n| (Kind::Stripe, n)),
        (2_u8..=5, 1_u16..=40)
            .prop_map(|(copies, n)| (Kind::StripedCopies { copies }, n * u16::from(copies))),
        (1_u8..=3, prop_oneof![1_u16..=8, 1_u16..=255])
            .prop_map(|(parity, data)| (Kind::Parity { parity }, data + u16::from(parity))),
    ];
    (shape, unit)
        .prop_map(|((kind, columns), unit)| Layout::new(kind, columns, unit).expect("a possible layout"))
}

/// Whether the units of a row that are left suffice to know all of it, by definition and not by formula:
/// every data unit has a copy left, or a row of n units with p parities has n - p units left.
fn readable(layout: Layout, row: u64, gone: &ColumnSet) -> bool {
    let left: Vec<u16> = (0..layout.columns()).filter(|column| !gone.contains(*column)).collect();
    if layout.parity() > 0 {
        return left.len() >= usize::from(layout.data_units());
    }
    let units: BTreeSet<_> = left.iter().map(|column| format!("{:?}", layout.role(row, *column))).collect();
    units.len() == usize::from(layout.data_units())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_cell_and_its_address_are_one_to_one(layout in layouts(), logical in 0_u64..1 << 60) {
        let cell = layout.cell(logical);
        prop_assert!(cell.index < layout.data_units() && cell.within < layout.unit());
        prop_assert_eq!(layout.logical(cell), logical);
        // The next byte is in the same unit, the next unit, or the next row: never elsewhere.
        let next = layout.cell(logical + 1);
        prop_assert!(next > cell);
    }

    /// Counts the units of some rows one by one: each column has one role, each role the columns that the
    /// inverse functions name, and all columns are used.
    #[test]
    fn a_row_is_a_bijection(layout in layouts(), row in any::<u64>()) {
        let mut roles: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for column in 0..layout.columns() {
            roles.entry(format!("{:?}", layout.role(row, column))).or_default().push(column);
        }
        for index in 0..layout.data_units() {
            let columns: Vec<u16> = layout.columns_of(row, index).collect();
            prop_assert_eq!(columns[0], layout.data_column(row, index));
            prop_assert_eq!(roles.remove(&format!("{:?}", Role::Data(index))), Some(columns));
        }
        for j in 0..layout.parity() {
            let column = layout.parity_column(row, j);
            prop_assert_eq!(roles.remove(&format!("{:?}", Role::Parity(j))), Some(vec![column]));
        }
        prop_assert!(roles.is_empty(), "left over: {:?}", roles);
    }

    /// Over n rows every column holds every role of a rotated row exactly once.
    #[test]
    fn rotation_spreads_every_role(parity in 1_u8..=3, data in 1_u16..=20, first in 0_u64..1 << 40) {
        let layout = layout(Kind::Parity { parity }, data + u16::from(parity));
        for column in 0..layout.columns() {
            let rows = first..first + u64::from(layout.columns());
            let roles: BTreeSet<_> = rows.map(|row| format!("{:?}", layout.role(row, column))).collect();
            prop_assert_eq!(roles.len(), usize::from(layout.columns()));
        }
    }

    #[test]
    fn segments_cover_the_range(layout in layouts(), logical in 0_u64..1 << 50, length in 0_u64..1 << 23) {
        let segments: Vec<Segment> = layout.segments(logical, length).collect();
        let hint = layout.segments(logical, length).size_hint();
        prop_assert_eq!(hint, (segments.len(), Some(segments.len())));
        let mut at = logical;
        let mut rows = BTreeSet::new();
        for segment in &segments {
            prop_assert_eq!(segment.logical, at);
            prop_assert_eq!(segment.cell, layout.cell(at));
            prop_assert!(segment.length > 0 && segment.cell.within + segment.length <= layout.unit());
            rows.insert(segment.cell.row);
            at += u64::from(segment.length);
        }
        prop_assert_eq!(at, logical + length);
        prop_assert!(rows.into_iter().eq(layout.rows_of(logical, length)));
    }

    /// Reading what `sources` names is enough, it names nothing that is gone, and no smaller set would do.
    #[test]
    fn sources_suffice(
        layout in layouts(),
        row in any::<u64>(),
        column in 0_u16..258,
        gone in proptest::collection::vec(0_u16..258, 0..5),
    ) {
        let column = column % layout.columns();
        let gone: ColumnSet = gone.into_iter().map(|c| c % layout.columns()).collect();
        let mut lost = gone;
        lost.insert(column);
        let role = layout.role(row, column);
        match layout.sources(row, column, &gone) {
            Some(sources) => {
                prop_assert!(sources.intersection(&lost).is_empty());
                prop_assert!(sources.iter().all(|c| c < layout.columns()));
                if layout.parity() > 0 {
                    prop_assert_eq!(sources.len(), layout.data_units());
                } else {
                    let roles: Vec<_> = sources.iter().map(|c| layout.role(row, c)).collect();
                    prop_assert_eq!(roles, vec![role]);
                }
            }
            None if layout.parity() > 0 => prop_assert!(!readable(layout, row, &lost)),
            None => prop_assert!((0..layout.columns()).all(|c| layout.role(row, c) != role || lost.contains(c))),
        }
    }

    /// What `redundancy` promises holds for random further losses, some loss just beyond it is fatal, and
    /// losing more never gives more.
    #[test]
    fn redundancy_is_exact_and_monotone(
        layout in layouts(),
        losses in proptest::collection::vec(0_u16..258, 0..12),
        row in any::<u64>(),
    ) {
        let mut gone = ColumnSet::new();
        let mut last = Some(layout.tolerance());
        prop_assert_eq!(layout.redundancy(&gone), last);
        for column in losses.into_iter().map(|c| c % layout.columns()) {
            let new = gone.insert(column);
            let now = layout.redundancy(&gone);
            prop_assert_eq!(now.is_some(), readable(layout, row, &gone));
            prop_assert!(now <= last, "None is below every Some");
            if new {
                prop_assert!(now.map_or(0, |n| n + 1) >= last.unwrap_or(0), "one loss costs one at most");
            } else {
                prop_assert_eq!(now, last);
            }
            last = now;
        }
        if let Some(left) = last {
            // The adversary: finish off the data unit, or the parity row, that has lost most.
            let worst = (0..layout.data_units()).map(|index| {
                let group: ColumnSet = match layout.parity() {
                    0 => layout.columns_of(row, index).collect(),
                    _ => ColumnSet::first(layout.columns()),
                };
                group.difference(&gone)
            });
            let worst = worst.min_by_key(ColumnSet::len).unwrap();
            for (done, column) in worst.iter().enumerate() {
                prop_assert_eq!(readable(layout, row, &gone), done <= usize::from(left));
                gone.insert(column);
            }
        }
    }

    #[test]
    fn a_column_set_is_a_set(operations in proptest::collection::vec((any::<bool>(), 0_u16..300), 0..200)) {
        let mut model = BTreeSet::new();
        let mut set = ColumnSet::new();
        for (add, column) in operations {
            if add && column < 258 {
                prop_assert_eq!(set.insert(column), model.insert(column));
            } else if add {
                prop_assert!(!set.insert(column));
            } else {
                prop_assert_eq!(set.remove(column), model.remove(&column));
            }
        }
        prop_assert_eq!(usize::from(set.len()), model.len());
        prop_assert_eq!(set.is_empty(), model.is_empty());
        prop_assert!(set.iter().eq(model.iter().copied()));
        prop_assert!((0..300).all(|c| set.contains(c) == model.contains(&c)));
        let first = ColumnSet::first(100);
        prop_assert_eq!(first.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        prop_assert!(set.union(&first).iter().eq(model.iter().copied().chain(0..100).collect::<BTreeSet<_>>()));
        prop_assert!(set.difference(&first).iter().eq(model.iter().copied().filter(|c| *c >= 100)));
    }
}
