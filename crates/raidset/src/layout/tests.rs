//! Layouts against drawn tables, RAIDframe's formulas one unit at a time, and what must hold for all of them.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn layout(level: Level, columns: u16, unit: u32, rows: u64) -> Layout {
    Layout::new(level, columns, unit, rows).unwrap()
}

/// What each column holds in a row, as people draw it: data units by number, P, Q, or a copy's number.
fn drawn(layout: &Layout, row: u64) -> String {
    let mut cells = vec![String::new(); layout.columns()];
    for stripe in row * layout.stripes_per_row()..(row + 1) * layout.stripes_per_row() {
        let stripe = layout.stripe(stripe);
        assert!((0..stripe.width()).all(|unit| stripe.row(unit) == row));
        let data = stripe.data_columns();
        for (unit, column) in stripe.columns().enumerate() {
            assert!(cells[column].is_empty(), "column {column} used twice");
            cells[column] = match (unit.checked_sub(data), layout.level()) {
                (None, _) => (stripe.index * data as u64 + unit as u64).to_string(),
                (Some(_), Level::Raid1 | Level::Mirror) => format!("{}'", stripe.index),
                (Some(parity), _) => ["P", "Q"][parity].to_owned(),
            };
        }
    }
    cells.join(" ")
}

/// The documented tables of each level.
#[test]
fn rows_are_as_drawn() {
    let table: &[(Level, u16, &[&str])] = &[
        (Level::Raid0, 3, &["0 1 2", "3 4 5"]),
        (Level::Raid1, 2, &["0 0'", "1 1'"]),
        (Level::Raid1, 4, &["0 0' 1 1'", "2 2' 3 3'"]),
        (Level::Raid1, 6, &["0 0' 1 1' 2 2'", "3 3' 4 4' 5 5'"]),
        (Level::Raid4, 3, &["0 1 P", "2 3 P", "4 5 P"]),
        (Level::Raid5, 3, &["0 1 P", "3 P 2", "P 4 5", "6 7 P"]),
        (Level::Raid5, 5, &["0 1 2 3 P", "5 6 7 P 4", "10 11 P 8 9", "15 P 12 13 14", "P 16 17 18 19"]),
        (Level::Raid6, 4, &["Q 0 1 P", "2 3 P Q", "5 P Q 4", "P Q 6 7"]),
        (Level::Mirror, 3, &["0 0' 0'", "1 1' 1'"]),
        (Level::RotatedSparing, 5, &["0 1 2 P ", "4 5 P  3", "8 P  6 7"]),
        // Q stands for the diagonals.
        (Level::EvenOdd, 5, &["0 1 2 Q P", "5 Q P 3 4", "P 6 7 8 Q"]),
    ];
    for &(ref level, columns, rows) in table {
        let layout = layout(level.clone(), columns, 8, rows.len() as u64);
        for (row, expected) in rows.iter().enumerate() {
            assert_eq!(drawn(&layout, row as u64), *expected, "{level} over {columns}");
        }
    }
}

/// RAIDframe's formulas, one unit at a time: column and sector of a sector of the set, then columns and units of its redundancy.
pub(crate) fn by_formula(layout: &Layout, sector: u64) -> (u64, u64, Vec<(u64, u64)>) {
    let (n, unit, rows) = (layout.columns() as u64, u64::from(layout.unit()), layout.rows());
    let (su, within) = (sector / unit, sector % unit);
    let beside = |row: u64, columns: Vec<u64>| columns.into_iter().map(|column| (column, row)).collect();
    let (column, disk_unit, others) = match layout.level() {
        Level::Raid0 => (su % n, su / n, vec![]),
        Level::Raid1 => (su % (n / 2) * 2, su / (n / 2), beside(su / (n / 2), vec![su % (n / 2) * 2 + 1])),
        Level::Raid4 => (su % (n - 1), su / (n - 1), beside(su / (n - 1), vec![n - 1])),
        Level::Raid5 => {
            let row = su / (n - 1);
            (su % n, row, beside(row, vec![(n - 1) - row % n]))
        }
        Level::Raid6 => {
            let row = su / (n - 2);
            let p = n - 1 - row % n;
            ((p + 2 + su % (n - 2)) % n, row, beside(row, vec![p, (p + 1) % n]))
        }
        Level::Mirror => (0, su, beside(su, (1..n).collect())),
        Level::RotatedSparing => {
            let row = su / (n - 2);
            ((su + row) % n, row, beside(row, vec![n - 1 - (1 + row) % n]))
        }
        Level::Chained => {
            let regions = rows / (2 * n - 2);
            (su % n, su / n, vec![((su % n + 1) % n, regions * (n - 1) + su / n)])
        }
        Level::Interleaved => {
            let (r, x) = (su / (n * (n - 1)), su % (n * (n - 1)));
            let copy = ((x + 1 + x / n) % n, rows / (2 * n) * (n + 1) + r * (n - 1) + x / n);
            (x / (n - 1), r * (n - 1) + x % (n - 1), vec![copy])
        }
        Level::EvenOdd => {
            let row = su / (n - 2);
            let last = (row + 1) * (n - 2) - 1;
            (su % n, row, beside(row, vec![(last + 2) % n, (last + 1) % n]))
        }
        level => by_design(level, su),
    };
    (column, disk_unit * unit + within, others)
}

/// RAIDframe's way through the tables: full tables of k, within them one with each place of the parity, which data skip.
fn by_design(level: &Level, su: u64) -> (u64, u64, Vec<(u64, u64)>) {
    let design = level.design().unwrap();
    let tuples: Vec<&[u8]> = design.tuples().collect();
    let (b, k, depth) = (tuples.len() as u64, u64::from(design.width()), design.depth());
    let parities = if matches!(level, Level::Declustered(_)) { 1 } else { 2 };
    let (table, offset) = (su / (b * (k - parities)), su % (b * (k - parities)));
    let (block, unit) = (offset / (k - parities), offset % (k - parities));
    let (full, turn) = (table / k, table % k);
    let p = if design.parity_position(1) == k - 1 { k - 1 } else { k - 1 - turn };
    let redundancy: Vec<u64> = (0..parities).map(|at| (p + at) % k).collect();
    let data: Vec<u64> = (0..k).filter(|at| !redundancy.contains(at)).collect();
    let place = |at: u64| {
        let column = tuples[block as usize][at as usize];
        let before = tuples[..block as usize].iter().filter(|tuple| tuple.contains(&column)).count();
        (u64::from(column), full * k * depth + turn * depth + before as u64)
    };
    let (column, row) = place(data[unit as usize]);
    (column, row, redundancy.into_iter().map(place).collect())
}

/// All levels, those with a design with two of them.
pub(crate) fn all_levels() -> Vec<Level> {
    use crate::design::tests::{FIVE, SEVEN};
    let mut all = Level::ALL.to_vec();
    for text in [FIVE, SEVEN] {
        let design = Design::parse(text).ok().map(Arc::new);
        all.extend(
            ['T', 'Q', 'e'].into_iter().filter_map(|letter| Level::with_design(letter, design.clone())),
        );
    }
    all
}

fn any_layout() -> impl Strategy<Value = Layout> {
    (0..all_levels().len(), 0_u16..8, 1_u32..9, 1_u64..40).prop_map(|(level, more, unit, rows)| {
        let level = all_levels()[level].clone();
        let step = if level == Level::Raid1 { 2 } else { 1 };
        let columns = (level.min_columns() + more * step).min(level.max_columns());
        // The declustered levels need some rows for their pattern, and rotated spares come round only after some.
        let turns = level.mirrored() || level == Level::RotatedSparing || level.design().is_some();
        let least = if turns { 2 * u64::from(columns) } else { 0 };
        layout(level, columns, unit, least + rows)
    })
}

proptest! {
    #[test]
    fn agrees_with_the_formulas(layout in any_layout()) {
        for sector in 0..layout.total_sectors() {
            let place = layout.place(sector);
            let (column, at, others) = by_formula(&layout, sector);
            prop_assert_eq!((place.column as u64, place.sector), (column, at));
            let stripe = layout.stripe(layout.cell(sector).stripe);
            let redundancy: Vec<(u64, u64)> = (stripe.data_columns()..stripe.width())
                .map(|unit| (stripe.column(unit) as u64, stripe.row(unit)))
                .collect();
            prop_assert_eq!(redundancy, others);
        }
    }

    /// No two sectors share a place, none lies on parity, and nothing is left over.
    #[test]
    fn places_are_all_different(layout in any_layout()) {
        let mut taken = HashSet::new();
        for sector in 0..layout.total_sectors() {
            let place = layout.place(sector);
            prop_assert!(place.column < layout.columns() && place.sector < layout.column_sectors());
            prop_assert!(taken.insert(place));
        }
        for index in 0..layout.stripes() {
            let stripe = layout.stripe(index);
            for (unit, column) in stripe.columns().enumerate() {
                prop_assert_eq!(layout.stripe_of(stripe.row(unit), column), Some(index));
            }
            for (unit, column) in stripe.columns().enumerate().skip(stripe.data_columns()) {
                for within in 0..u64::from(layout.unit()) {
                    let sector = stripe.row(unit) * u64::from(layout.unit()) + within;
                    let fresh = taken.insert(Place { column, sector });
                    prop_assert!(fresh);
                }
            }
        }
        let width = layout.stripe(0).width() as u64;
        prop_assert_eq!(taken.len() as u64, layout.stripes() * width * u64::from(layout.unit()));
        // Whatever no stripe has is known to be free.
        for column in 0..layout.columns() {
            for row in 0..layout.rows() {
                let used = taken.contains(&Place { column, sector: row * u64::from(layout.unit()) });
                prop_assert_eq!(layout.stripe_of(row, column).is_some(), used);
            }
        }
    }

    /// A loss is survived exactly if every stripe keeps as many columns as it has data units.
    #[test]
    fn survival_is_what_every_stripe_survives(layout in any_layout(), lost in any::<u64>()) {
        let lost = |column: usize| lost >> column & 1 == 1;
        let naive = (0..layout.stripes()).all(|index| {
            let stripe = layout.stripe(index);
            stripe.columns().filter(|&column| !lost(column)).count() >= stripe.data_columns()
        });
        prop_assert_eq!(layout.survives(lost), naive);
    }

    #[test]
    fn any_numbers_are_harmless(columns: u16, unit: u32, rows: u64, sector: u64, level in 0..all_levels().len()) {
        if let Ok(layout) = Layout::new(all_levels()[level].clone(), columns, unit, rows) {
            layout.place(sector % layout.total_sectors());
            layout.place(layout.total_sectors() - 1);
        }
    }
}

/// Every column has as many units as every other, and what a lost one leaves to do falls on the others alike.
#[test]
fn declustered_layouts_are_balanced() {
    for columns in 2..9_u16 {
        for (level, neighbours) in [(Level::Chained, 2), (Level::Interleaved, columns - 1)] {
            let layout = layout(level.clone(), columns, 4, 5 * 2 * u64::from(columns) + 1);
            let mut units = vec![0_u64; layout.columns()];
            // Of the units of each column and their copies: how many are on each other column.
            let mut partners = vec![vec![0_u64; layout.columns()]; layout.columns()];
            for index in 0..layout.stripes() {
                let stripe = layout.stripe(index);
                let [a, b] = [stripe.column(0), stripe.column(1)];
                units[a] += 1;
                units[b] += 1;
                partners[a][b] += 1;
                partners[b][a] += 1;
            }
            assert!(units.iter().all(|&count| count == units[0]), "{level} {columns}: {units:?}");
            for others in &partners {
                let busy: Vec<u64> = others.iter().copied().filter(|&count| count > 0).collect();
                let expected = usize::from(neighbours).min(layout.columns() - 1);
                assert_eq!(busy.len(), expected, "{level} {columns}");
                assert!(busy.iter().all(|&count| count == busy[0]), "{level} {columns}: {others:?}");
            }
        }
        if columns > 2 {
            let layout = layout(Level::RotatedSparing, columns, 4, u64::from(columns) * 3);
            for column in 0..layout.columns() {
                let free = (0..layout.rows()).filter(|&row| layout.stripe_of(row, column).is_none());
                assert_eq!(free.count(), 3, "{columns}");
            }
        }
    }
}

/// The chunk layouts of pools rotate parity the same way, P and Q and data units alike.
#[test]
fn levels_5_and_6_are_the_left_symmetric_chunk_layouts() {
    for (level, parity) in [(Level::Raid5, 1), (Level::Raid6, 2)] {
        for columns in 3..9 {
            let ours = layout(level.clone(), columns, 8, 100);
            let theirs = geometry::Layout::new(geometry::Kind::Parity { parity }, columns, 4096).unwrap();
            for row in 0..100 {
                let stripe = ours.stripe(row);
                for (unit, column) in stripe.columns().enumerate() {
                    let role = theirs.role(row, column as u16);
                    let expected = match unit.checked_sub(stripe.data_columns()) {
                        None => geometry::Role::Data(unit as u16),
                        Some(parity) => geometry::Role::Parity(parity as u8),
                    };
                    assert_eq!(role, expected, "{level} over {columns}, row {row}");
                }
            }
        }
    }
}

#[test]
fn impossible_layouts_are_refused() {
    for (level, columns) in
        [(Level::Raid1, 3), (Level::Raid1, 0), (Level::Raid5, 1), (Level::Raid6, 2), (Level::Raid0, 40)]
    {
        assert_eq!(Layout::new(level.clone(), columns, 8, 8), Err(LayoutError::Columns { level, columns }));
    }
    assert_eq!(Layout::new(Level::Raid0, 1, 0, 1), Err(LayoutError::Unit));
    assert_eq!(Layout::over(Level::Raid0, 1, 64, 63), Err(LayoutError::TooSmall { unit: 64 }));
    assert_eq!(Layout::new(Level::Raid0, 2, 1, u64::MAX), Err(LayoutError::TooLarge));
    assert_eq!(
        Layout::new(Level::EvenOdd, 18, 8, 8),
        Err(LayoutError::Columns { level: Level::EvenOdd, columns: 18 })
    );
    let two = Design::new(3, 2, true, vec![0, 1, 1, 2, 0, 2]).ok().map(Arc::new);
    let level = Level::with_design('Q', two).unwrap();
    assert_eq!(
        Layout::new(level, 3, 8, 8).unwrap_err().to_string(),
        "declustered P+Q takes blocks of 3 to 39 columns, but those of the design have 2"
    );
    assert!(Level::from_letter('T').is_none() && Level::with_design('T', None).is_none());
    assert!(Level::from_letter('L').is_none() && Level::from_letter('5') == Some(Level::Raid5));
}

/// With any column in the free units, units are still in different places, none of them in that column, each other column takes as many
/// as the next, and whatever column is lost then, no stripe misses two units.
#[test]
fn free_units_take_any_column() {
    for columns in 3..=9 {
        let rows = u64::from(columns) * 3;
        let layout = layout(Level::RotatedSparing, columns, 4, rows);
        for lost in 0..layout.columns() {
            let mut places = HashSet::new();
            let mut guests = vec![0; layout.columns()];
            for index in 0..layout.stripes() {
                let before = layout.stripe(index);
                let row = before.row(0);
                let free = layout.free_column(row).unwrap();
                assert!(
                    before.columns().all(|column| column != free) && layout.stripe_of(row, free).is_none()
                );
                let stripe = before.moved(lost, free);
                assert_eq!(
                    (stripe.index, stripe.width(), stripe.data_columns()),
                    (index, before.width(), before.data_columns())
                );
                for (unit, column) in stripe.columns().enumerate() {
                    assert!(column != lost && stripe.row(unit) == row && places.insert((column, row)));
                    let moved = before.column(unit) == lost;
                    assert!(column == if moved { free } else { before.column(unit) });
                    guests[column] += u64::from(moved);
                }
            }
            // Of N rows one is free in the column itself.
            let others = (0..layout.columns()).filter(|&column| column != lost);
            assert!(others.clone().all(|column| guests[column] == 3), "{columns} {lost}: {guests:?}");
        }
    }
    assert_eq!(layout(Level::Raid5, 4, 4, 8).free_column(0), None);
}
