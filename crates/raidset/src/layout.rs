//! Where the sectors of a set lie on its components.
//!
//! Levels 0, 1, 4 and 5 are RAIDframe's mappings, sector for sector. Level 6 and the n-way mirror are our own
//! (RAIDframe has no `6`): level 6 is md's left-symmetric layout, the mirror copies every column whole.
//!
//! A **row** is one stripe unit of every column. A **stripe** is what one parity (or one set of copies) protects:
//! a row, except on level 1, where each unit and its copy are a stripe of their own.

use std::fmt;

/// Most columns a set may have: RAIDframe refuses 40.
pub const MAX_COLUMNS: u16 = 39;
/// Most sectors a set may have, so that byte offsets fit 63 bits with any sector size in use.
const MAX_SECTORS: u64 = 1 << 48;

/// How a set spreads and protects its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Striping without parity: `0`.
    Raid0,
    /// Pairs of mirrors, striped over if there are several: `1`.
    Raid1,
    /// Striping with the parity in the last column: `4`.
    Raid4,
    /// Striping with rotated parity, left-symmetric: `5`.
    Raid5,
    /// Striping with rotated P and Q: `6`.
    Raid6,
    /// Every column holds the same: `N`.
    Mirror,
    /// As level 5, with a unit of each row left free: `R`.
    RotatedSparing,
    /// Each unit's copy is on the next column: `C`.
    Chained,
    /// The copies of a column's units are spread over all others: `I`.
    Interleaved,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 9] = [
        Self::Raid0,
        Self::Raid1,
        Self::Raid4,
        Self::Raid5,
        Self::Raid6,
        Self::Mirror,
        Self::RotatedSparing,
        Self::Chained,
        Self::Interleaved,
    ];

    /// The level that labels and configuration files name by `letter`, if it is one that can be run.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.letter() == letter)
    }

    /// What stands for it in labels and configuration files.
    pub const fn letter(self) -> char {
        match self {
            Self::Raid0 => '0',
            Self::Raid1 => '1',
            Self::Raid4 => '4',
            Self::Raid5 => '5',
            Self::Raid6 => '6',
            Self::Mirror => 'N',
            Self::RotatedSparing => 'R',
            Self::Chained => 'C',
            Self::Interleaved => 'I',
        }
    }

    /// Fewest columns.
    pub const fn min_columns(self) -> u16 {
        match self {
            Self::Raid0 => 1,
            Self::Raid1 | Self::Raid4 | Self::Raid5 | Self::Mirror | Self::Chained | Self::Interleaved => 2,
            Self::Raid6 | Self::RotatedSparing => 3,
        }
    }

    /// Whether its redundancy is copies, not parity.
    pub const fn mirrored(self) -> bool {
        matches!(self, Self::Raid1 | Self::Mirror | Self::Chained | Self::Interleaved)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror => f.write_str("n-way mirror"),
            Self::RotatedSparing => f.write_str("RAID level 5 with rotated sparing"),
            Self::Chained => f.write_str("chained declustering"),
            Self::Interleaved => f.write_str("interleaved declustering"),
            level => write!(f, "RAID level {}", level.letter()),
        }
    }
}

/// No set can be laid out like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Too few or too many columns, or an odd number of mirrors.
    #[error("{level} over {columns} columns is impossible: it takes {min} to {MAX_COLUMNS}{}",
        if *.level == Level::Raid1 { ", an even number" } else { "" }, min = .level.min_columns())]
    Columns {
        /// What was asked for.
        level: Level,
        /// What was asked for.
        columns: u16,
    },
    /// A stripe unit of no sectors.
    #[error("a stripe unit of 0 sectors is impossible: give at least 1")]
    Unit,
    /// The components don't hold a single stripe unit.
    #[error("the smallest component holds less than one stripe unit of {unit} sectors")]
    TooSmall {
        /// Sectors of a stripe unit.
        unit: u32,
    },
    /// More sectors than can be addressed.
    #[error("the set would have more than {MAX_SECTORS} sectors")]
    TooLarge,
}

/// A sector of a component, counted from the start of the component's data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The column.
    pub column: usize,
    /// The sector within the column.
    pub sector: u64,
}

/// Where a sector of the set is, in terms of stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// The stripe.
    pub stripe: u64,
    /// Which data unit of the stripe.
    pub unit: usize,
    /// Which sector of the unit.
    pub within: u32,
}

/// What one parity protects: one stripe unit of each of some columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stripe {
    /// Its number in the set.
    pub index: u64,
    columns: [u8; MAX_COLUMNS as usize],
    rows: [u64; MAX_COLUMNS as usize],
    data: u8,
    all: u8,
}

impl Stripe {
    /// A stripe of units (column, row).
    fn of_units(index: u64, data: u16, units: impl IntoIterator<Item = (u64, u64)>) -> Self {
        const NONE: [u64; MAX_COLUMNS as usize] = [0; MAX_COLUMNS as usize];
        let mut stripe =
            Self { index, columns: [0; MAX_COLUMNS as usize], rows: NONE, data: data as u8, all: 0 };
        for ((column, row), unit) in stripe.columns.iter_mut().zip(&mut stripe.rows).zip(units) {
            (*column, *row) = (unit.0 as u8, unit.1);
            stripe.all += 1;
        }
        stripe
    }

    /// A stripe all of whose units lie in one row.
    fn new(index: u64, row: u64, data: u16, columns: impl IntoIterator<Item = u64>) -> Self {
        Self::of_units(index, data, columns.into_iter().map(|column| (column, row)))
    }

    /// The row of its `unit`-th unit, in stripe units of its column.
    pub fn row(&self, unit: usize) -> u64 {
        self.rows[unit]
    }

    /// How many of the columns are data; the others are parity or copies.
    pub fn data_columns(&self) -> usize {
        self.data.into()
    }

    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.all.into()
    }

    /// Its columns: data units in logical order, then the copies, or P, or P and Q.
    pub fn columns(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + Clone + '_ {
        self.columns[..self.width()].iter().map(|&column| column.into())
    }

    /// The column of its `unit`-th unit in the order of [`Stripe::columns`].
    pub fn column(&self, unit: usize) -> usize {
        self.columns[unit].into()
    }
}

/// How a set's sectors lie in its columns. Small and copied freely.
///
/// Addresses that the set does not have give meaningless but harmless answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    level: Level,
    columns: u16,
    unit: u32,
    rows: u64,
}

impl Layout {
    /// The layout of `columns` columns of `rows` stripe units of `unit` sectors each.
    ///
    /// # Errors
    /// A number of columns that the level cannot have, nothing in a unit or a column, or too much in all.
    pub fn new(level: Level, columns: u16, unit: u32, rows: u64) -> Result<Self, LayoutError> {
        let odd = level == Level::Raid1 && !columns.is_multiple_of(2);
        if odd || !(level.min_columns()..=MAX_COLUMNS).contains(&columns) {
            return Err(LayoutError::Columns { level, columns });
        }
        if unit == 0 {
            return Err(LayoutError::Unit);
        }
        if rows == 0 {
            return Err(LayoutError::TooSmall { unit });
        }
        let total = rows.checked_mul(unit.into()).and_then(|sectors| sectors.checked_mul(columns.into()));
        if total.is_none_or(|total| total > MAX_SECTORS) {
            return Err(LayoutError::TooLarge);
        }
        let layout = Self { level, columns, unit, rows };
        if layout.stripes() == 0 {
            return Err(LayoutError::TooSmall { unit });
        }
        Ok(layout)
    }

    /// How often the pattern of the declustered levels fits into a column: each time takes N - 1 rows of units and as many of copies,
    /// and with interleaving RAIDframe keeps two more for spares.
    const fn patterns(&self) -> u64 {
        let columns = self.columns as u64;
        match self.level {
            Level::Chained => self.rows / (2 * columns - 2),
            Level::Interleaved => self.rows / (2 * columns),
            _ => 0,
        }
    }

    /// The first row of copies of the declustered levels.
    const fn first_copy(&self) -> u64 {
        let columns = self.columns as u64;
        match self.level {
            Level::Interleaved => self.patterns() * (columns + 1),
            _ => self.patterns() * (columns - 1),
        }
    }

    /// The layout over components of which the smallest has `sectors` usable sectors: the last ones that fill no
    /// whole stripe unit stay unused.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn over(level: Level, columns: u16, unit: u32, sectors: u64) -> Result<Self, LayoutError> {
        Self::new(level, columns, unit, sectors.checked_div(unit.into()).unwrap_or(0))
    }

    /// How it spreads and protects its data.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Number of columns.
    pub const fn columns(&self) -> usize {
        self.columns as usize
    }

    /// Sectors of a stripe unit (`sectPerSU`).
    pub const fn unit(&self) -> u32 {
        self.unit
    }

    /// Stripe units of each column.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Sectors of each column that are in use (`numBlocks`).
    pub const fn column_sectors(&self) -> u64 {
        self.rows * self.unit as u64
    }

    /// Data units of a stripe.
    pub const fn stripe_data_units(&self) -> u16 {
        match self.level {
            Level::Raid0 => self.columns,
            Level::Raid4 | Level::Raid5 => self.columns - 1,
            Level::Raid6 | Level::RotatedSparing => self.columns - 2,
            Level::Raid1 | Level::Mirror | Level::Chained | Level::Interleaved => 1,
        }
    }

    /// Stripes that lie in one row, at most.
    pub const fn stripes_per_row(&self) -> u64 {
        match self.level {
            Level::Raid1 => self.columns as u64 / 2,
            Level::Chained | Level::Interleaved => self.columns as u64,
            _ => 1,
        }
    }

    /// Number of stripes.
    pub const fn stripes(&self) -> u64 {
        match self.level {
            Level::Chained | Level::Interleaved => {
                self.patterns() * self.columns as u64 * (self.columns as u64 - 1)
            }
            _ => self.rows * self.stripes_per_row(),
        }
    }

    /// Data sectors of a stripe.
    pub const fn stripe_sectors(&self) -> u64 {
        self.stripe_data_units() as u64 * self.unit as u64
    }

    /// Sectors of the set.
    pub const fn total_sectors(&self) -> u64 {
        self.stripes() * self.stripe_sectors()
    }

    /// Whether parity or copies exist, so that a component can be lost.
    pub const fn redundant(&self) -> bool {
        !matches!(self.level, Level::Raid0)
    }

    /// Losses that are always survived, whichever columns they are.
    pub const fn faults(&self) -> usize {
        match self.level {
            Level::Raid0 => 0,
            Level::Raid1
            | Level::Raid4
            | Level::Raid5
            | Level::RotatedSparing
            | Level::Chained
            | Level::Interleaved => 1,
            Level::Raid6 => 2,
            Level::Mirror => self.columns as usize - 1,
        }
    }

    /// The stripe, unit and sector within that hold a sector of the set.
    pub const fn cell(&self, sector: u64) -> Cell {
        let stripe = sector / self.stripe_sectors();
        let rest = sector % self.stripe_sectors();
        Cell { stripe, unit: (rest / self.unit as u64) as usize, within: (rest % self.unit as u64) as u32 }
    }

    /// The columns of a stripe, in order, and their row.
    pub fn stripe(&self, index: u64) -> Stripe {
        let columns = u64::from(self.columns);
        let data = self.stripe_data_units();
        let k = u64::from(data);
        match self.level {
            Level::Raid1 => {
                let pairs = columns / 2;
                let first = index % pairs * 2;
                Stripe::new(index, index / pairs, data, [first, first + 1])
            }
            Level::Raid0 | Level::Raid4 | Level::Mirror => Stripe::new(index, index, data, 0..columns),
            // Data in SU mod N, parity counted down from the last column.
            Level::Raid5 => {
                let first = index % columns * (k % columns) % columns;
                let parity = columns - 1 - index % columns;
                let data_columns = (0..k).map(|unit| (first + unit) % columns);
                Stripe::new(index, index, data, data_columns.chain([parity]))
            }
            Level::RotatedSparing => {
                let first = (index % columns * (k % columns) + index) % columns;
                let parity = columns - 1 - (index + 1) % columns;
                let data_columns = (0..k).map(|unit| (first + unit) % columns);
                Stripe::new(index, index, data, data_columns.chain([parity]))
            }
            Level::Chained => {
                let (column, row) = (index % columns, index / columns);
                let copy = ((column + 1) % columns, self.first_copy() + row);
                Stripe::of_units(index, data, [(column, row), copy])
            }
            Level::Interleaved => {
                let others = columns - 1;
                let (pattern, at) = (index / (columns * others), index % (columns * others));
                let unit = (at / others, pattern * others + at % others);
                let column = (at + 1 + at / columns) % columns;
                let copy = (column, self.first_copy() + pattern * others + at / columns);
                Stripe::of_units(index, data, [unit, copy])
            }
            Level::Raid6 => {
                let p = columns - 1 - index % columns;
                let data_columns = (0..k).map(|unit| (p + 2 + unit) % columns);
                Stripe::new(index, index, data, data_columns.chain([p, (p + 1) % columns]))
            }
        }
    }

    /// The stripe that has its unit of `column` in `row`; none if nothing is kept there.
    pub const fn stripe_of(&self, row: u64, column: usize) -> Option<u64> {
        let (columns, column) = (self.columns as u64, column as u64);
        let copy = row.checked_sub(self.first_copy());
        let in_use = self.patterns() * (columns - 1);
        Some(match self.level {
            Level::Raid1 => row * self.stripes_per_row() + column / 2,
            // The free unit is behind the parity.
            Level::RotatedSparing if column == (columns - (row + 1) % columns) % columns => return None,
            Level::Chained => match copy {
                None => row * columns + column,
                Some(copy) if copy < in_use => copy * columns + (column + columns - 1) % columns,
                Some(_) => return None,
            },
            Level::Interleaved => {
                let others = columns - 1;
                let all = columns * others;
                match copy {
                    Some(copy) if copy < in_use => {
                        let turn = copy % others;
                        let at = turn * columns + (column + 2 * columns - 1 - turn) % columns;
                        copy / others * all + at
                    }
                    None if row < in_use => row / others * all + column * others + row % others,
                    _ => return None,
                }
            }
            _ => row,
        })
    }

    /// Where a sector of the set lies (its first copy).
    pub fn place(&self, sector: u64) -> Place {
        let cell = self.cell(sector);
        let stripe = self.stripe(cell.stripe);
        let start = stripe.row(cell.unit) * u64::from(self.unit);
        Place { column: stripe.column(cell.unit), sector: start + u64::from(cell.within) }
    }

    /// Whether all data is still there without the columns for which `lost` says yes.
    pub fn survives(&self, lost: impl Fn(usize) -> bool) -> bool {
        let columns = self.columns();
        match self.level {
            Level::Raid1 => (0..columns).step_by(2).all(|first| !(lost(first) && lost(first + 1))),
            Level::Chained => (0..columns).all(|first| !(lost(first) && lost((first + 1) % columns))),
            _ => (0..columns).filter(|&column| lost(column)).count() <= self.faults(),
        }
    }
}

#[cfg(test)]
mod tests {
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
        ];
        for &(level, columns, rows) in table {
            let layout = layout(level, columns, 8, rows.len() as u64);
            for (row, expected) in rows.iter().enumerate() {
                assert_eq!(drawn(&layout, row as u64), *expected, "{level} over {columns}");
            }
        }
    }

    /// RAIDframe's formulas, one unit at a time.
    fn by_formula(level: Level, n: u64, unit: u64, sector: u64) -> (u64, u64, Vec<u64>) {
        let (su, within) = (sector / unit, sector % unit);
        let (column, disk_unit, others) = match level {
            Level::Raid0 => (su % n, su / n, vec![]),
            Level::Raid1 => (su % (n / 2) * 2, su / (n / 2), vec![su % (n / 2) * 2 + 1]),
            Level::Raid4 => (su % (n - 1), su / (n - 1), vec![n - 1]),
            Level::Raid5 => (su % n, su / (n - 1), vec![(n - 1) - (su / (n - 1)) % n]),
            Level::Raid6 => {
                let row = su / (n - 2);
                let p = n - 1 - row % n;
                ((p + 2 + su % (n - 2)) % n, row, vec![p, (p + 1) % n])
            }
            Level::Mirror => (0, su, (1..n).collect()),
            Level::RotatedSparing => {
                let row = su / (n - 2);
                ((su + row) % n, row, vec![n - 1 - (1 + row) % n])
            }
            Level::Chained => (su % n, su / n, vec![(su % n + 1) % n]),
            Level::Interleaved => {
                let (r, x) = (su / (n * (n - 1)), su % (n * (n - 1)));
                (x / (n - 1), r * (n - 1) + x % (n - 1), vec![(x + 1 + x / n) % n])
            }
        };
        (column, disk_unit * unit + within, others)
    }

    fn any_layout() -> impl Strategy<Value = Layout> {
        (0..Level::ALL.len(), 0_u16..8, 1_u32..9, 1_u64..40).prop_map(|(level, more, unit, rows)| {
            let level = Level::ALL[level];
            let step = if level == Level::Raid1 { 2 } else { 1 };
            let columns = level.min_columns() + more * step;
            // The declustered levels need some rows for their pattern, and rotated spares come round only after some.
            let turns = level.mirrored() || level == Level::RotatedSparing;
            let least = if turns { 2 * u64::from(columns) } else { 0 };
            layout(level, columns, unit, least + rows)
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_formulas(layout in any_layout()) {
            for sector in 0..layout.total_sectors() {
                let place = layout.place(sector);
                let (n, unit) = (layout.columns() as u64, u64::from(layout.unit()));
                let (column, at, others) = by_formula(layout.level(), n, unit, sector);
                prop_assert_eq!((place.column as u64, place.sector), (column, at));
                let stripe = layout.stripe(layout.cell(sector).stripe);
                let redundancy: Vec<u64> =
                    stripe.columns().skip(stripe.data_columns()).map(|column| column as u64).collect();
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
        fn any_numbers_are_harmless(columns: u16, unit: u32, rows: u64, sector: u64, level in 0..Level::ALL.len()) {
            if let Ok(layout) = Layout::new(Level::ALL[level], columns, unit, rows) {
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
                let layout = layout(level, columns, 4, 5 * 2 * u64::from(columns) + 1);
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
                let ours = layout(level, columns, 8, 100);
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
            assert_eq!(Layout::new(level, columns, 8, 8), Err(LayoutError::Columns { level, columns }));
        }
        assert_eq!(Layout::new(Level::Raid0, 1, 0, 1), Err(LayoutError::Unit));
        assert_eq!(Layout::over(Level::Raid0, 1, 64, 63), Err(LayoutError::TooSmall { unit: 64 }));
        assert_eq!(Layout::new(Level::Raid0, 2, 1, u64::MAX), Err(LayoutError::TooLarge));
        assert!(Level::from_letter('L').is_none() && Level::from_letter('5') == Some(Level::Raid5));
    }
}
