//! Where the sectors of a set lie on its components.
//!
//! The mappings are RAIDframe's, sector for sector, but for level 6 and the n-way mirror, which are our own
//! (RAIDframe has no `6`): level 6 is md's left-symmetric layout, the mirror copies every column whole.
//!
//! A **row** is one stripe unit of every column. A **stripe** is what one parity (or one set of copies) protects:
//! a row, except on level 1, where each unit and its copy are a stripe of their own.

use std::fmt;
use std::sync::Arc;

use crate::design::Design;
use crate::evenodd;

/// Most columns a set may have: RAIDframe refuses 40.
pub const MAX_COLUMNS: u16 = 39;
/// Most sectors a set may have, so that byte offsets fit 63 bits with any sector size in use.
const MAX_SECTORS: u64 = 1 << 48;

/// How a set spreads and protects its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// Striping with P and the diagonals of the even-odd code: `E`.
    EvenOdd,
    /// Stripes over some of the columns, which a block design names, with one parity: `T`.
    Declustered(Arc<Design>),
    /// The same with P and Q, which RAIDframe stores as zeros: `Q`.
    DeclusteredPq(Arc<Design>),
    /// The same with P and the diagonals of the even-odd code: `e`.
    DeclusteredEvenOdd(Arc<Design>),
}

/// What protects the data of a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Nothing.
    Nothing,
    /// Copies.
    Copies,
    /// XOR, or P and Q.
    Parity,
    /// P and E of the even-odd code, which goes by whole sectors.
    EvenOdd,
}

impl Level {
    /// All levels that need no block design.
    pub const ALL: [Self; 10] = [
        Self::Raid0,
        Self::Raid1,
        Self::Raid4,
        Self::Raid5,
        Self::Raid6,
        Self::Mirror,
        Self::RotatedSparing,
        Self::Chained,
        Self::Interleaved,
        Self::EvenOdd,
    ];

    /// The level that labels and configuration files name by `letter`, if it is one that can be run without a block design.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.letter() == letter)
    }

    /// As [`Level::from_letter`], for the letters of declustered levels with a block design.
    pub fn with_design(letter: char, design: Option<Arc<Design>>) -> Option<Self> {
        match (letter, design) {
            ('T', Some(design)) => Some(Self::Declustered(design)),
            ('Q', Some(design)) => Some(Self::DeclusteredPq(design)),
            ('e', Some(design)) => Some(Self::DeclusteredEvenOdd(design)),
            (letter, _) => Self::from_letter(letter),
        }
    }

    /// Its block design.
    pub const fn design(&self) -> Option<&Arc<Design>> {
        match self {
            Self::Declustered(design) | Self::DeclusteredPq(design) | Self::DeclusteredEvenOdd(design) => {
                Some(design)
            }
            _ => None,
        }
    }

    /// Whether a letter's level needs a block design.
    pub const fn needs_design(letter: char) -> bool {
        matches!(letter, 'T' | 'Q' | 'e')
    }

    /// Losses that the level of a letter bears, whatever its design is.
    pub fn faults_of_letter(letter: char, columns: u16) -> usize {
        match letter {
            'T' => 1,
            'Q' | 'e' | 'E' | '6' => 2,
            'N' => usize::from(columns.saturating_sub(1)),
            letter => usize::from(letter != '0'),
        }
    }

    /// Whether all data of a set of `columns` columns is still there without those for which `lost` says yes.
    pub fn survives(&self, columns: u16, lost: impl Fn(usize) -> bool) -> bool {
        let faults = Self::faults_of_letter(self.letter(), columns);
        let columns = usize::from(columns);
        match self {
            Self::Raid1 => (0..columns).step_by(2).all(|first| !(lost(first) && lost(first + 1))),
            Self::Chained => (0..columns).all(|first| !(lost(first) && lost((first + 1) % columns))),
            Self::Declustered(design) | Self::DeclusteredPq(design) | Self::DeclusteredEvenOdd(design) => {
                let lost_of = |tuple: &[u8]| tuple.iter().filter(|&&column| lost(column.into())).count();
                design.tuples().all(|tuple| lost_of(tuple) <= faults)
            }
            _ => (0..columns).filter(|&column| lost(column)).count() <= faults,
        }
    }

    /// What stands for it in labels and configuration files.
    pub fn letter(&self) -> char {
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
            Self::EvenOdd => 'E',
            Self::Declustered(_) => 'T',
            Self::DeclusteredPq(_) => 'Q',
            Self::DeclusteredEvenOdd(_) => 'e',
        }
    }

    /// Fewest columns.
    pub fn min_columns(&self) -> u16 {
        match self {
            Self::Raid0 => 1,
            Self::Raid1 | Self::Raid4 | Self::Raid5 | Self::Mirror | Self::Chained | Self::Interleaved => 2,
            Self::Raid6 | Self::RotatedSparing | Self::EvenOdd => 3,
            Self::Declustered(design) | Self::DeclusteredPq(design) | Self::DeclusteredEvenOdd(design) => {
                design.columns()
            }
        }
    }

    /// Most columns.
    pub fn max_columns(&self) -> u16 {
        match self {
            Self::EvenOdd => evenodd::MAX_DATA as u16 + 2,
            Self::Declustered(design) | Self::DeclusteredPq(design) | Self::DeclusteredEvenOdd(design) => {
                design.columns()
            }
            _ => MAX_COLUMNS,
        }
    }

    /// What protects its data.
    pub fn code(&self) -> Code {
        match self {
            Self::Raid0 => Code::Nothing,
            Self::Raid1 | Self::Mirror | Self::Chained | Self::Interleaved => Code::Copies,
            Self::EvenOdd | Self::DeclusteredEvenOdd(_) => Code::EvenOdd,
            _ => Code::Parity,
        }
    }

    /// Whether its redundancy is copies, not parity.
    pub fn mirrored(&self) -> bool {
        matches!(self.code(), Code::Copies)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mirror => f.write_str("n-way mirror"),
            Self::RotatedSparing => f.write_str("RAID level 5 with rotated sparing"),
            Self::Chained => f.write_str("chained declustering"),
            Self::Interleaved => f.write_str("interleaved declustering"),
            Self::EvenOdd => f.write_str("even-odd parity"),
            Self::Declustered(_) => f.write_str("parity declustering"),
            Self::DeclusteredPq(_) => f.write_str("declustered P+Q"),
            Self::DeclusteredEvenOdd(_) => f.write_str("declustered even-odd parity"),
            level => write!(f, "RAID level {}", level.letter()),
        }
    }
}

/// No set can be laid out like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Too few or too many columns, or an odd number of mirrors.
    #[error("{level} over {columns} columns is impossible: it takes {min} to {max}{}",
        if *.level == Level::Raid1 { ", an even number" } else { "" }, min = .level.min_columns(), max = .level.max_columns())]
    Columns {
        /// What was asked for.
        level: Level,
        /// What was asked for.
        columns: u16,
    },
    /// A block design whose blocks the level cannot use.
    #[error("{level} takes blocks of {min} to {max} columns, but those of the design have {width}")]
    Width {
        /// What was asked for.
        level: Level,
        /// Columns of a block.
        width: u16,
        /// Fewest.
        min: u16,
        /// Most.
        max: u16,
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

    /// The same with the units of a column in another one.
    pub(crate) fn moved(mut self, from: usize, to: usize) -> Self {
        let width = self.width();
        self.columns[..width]
            .iter_mut()
            .filter(|column| usize::from(**column) == from)
            .for_each(|column| *column = to as u8);
        self
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

/// How a set's sectors lie in its columns.
///
/// Addresses that the set does not have give meaningless but harmless answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
        if odd || !(level.min_columns()..=level.max_columns()).contains(&columns) {
            return Err(LayoutError::Columns { level, columns });
        }
        let (min, max) = match level {
            Level::DeclusteredPq(_) => (3, MAX_COLUMNS),
            Level::DeclusteredEvenOdd(_) => (3, evenodd::MAX_DATA as u16 + 2),
            _ => (2, MAX_COLUMNS),
        };
        if let Some(width) = level.design().map(|design| design.width())
            && !(min..=max).contains(&width)
        {
            return Err(LayoutError::Width { level, width, min, max });
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
        match &self.level {
            Level::Chained => self.rows / (2 * columns - 2),
            Level::Interleaved => self.rows / (2 * columns),
            _ => 0,
        }
    }

    /// Tables of a block design that fit into a column.
    fn tables(&self, design: &Design) -> u64 {
        self.rows / design.depth()
    }

    /// The first row of copies of the declustered levels.
    const fn first_copy(&self) -> u64 {
        let columns = self.columns as u64;
        match &self.level {
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
    pub const fn level(&self) -> &Level {
        &self.level
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
    pub fn stripe_data_units(&self) -> u16 {
        match &self.level {
            Level::Raid0 => self.columns,
            Level::Raid4 | Level::Raid5 => self.columns - 1,
            Level::Raid6 | Level::RotatedSparing | Level::EvenOdd => self.columns - 2,
            Level::Declustered(design) => design.width() - 1,
            Level::DeclusteredPq(design) | Level::DeclusteredEvenOdd(design) => design.width() - 2,
            Level::Raid1 | Level::Mirror | Level::Chained | Level::Interleaved => 1,
        }
    }

    /// Stripes that lie in one row, at most.
    pub const fn stripes_per_row(&self) -> u64 {
        match &self.level {
            Level::Raid1 => self.columns as u64 / 2,
            Level::Chained
            | Level::Interleaved
            | Level::Declustered(_)
            | Level::DeclusteredPq(_)
            | Level::DeclusteredEvenOdd(_) => self.columns as u64,
            _ => 1,
        }
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u64 {
        match &self.level {
            Level::Declustered(design) | Level::DeclusteredPq(design) | Level::DeclusteredEvenOdd(design) => {
                self.tables(design) * design.blocks()
            }
            Level::Chained | Level::Interleaved => {
                self.patterns() * u64::from(self.columns) * (u64::from(self.columns) - 1)
            }
            _ => self.rows * self.stripes_per_row(),
        }
    }

    /// Data sectors of a stripe.
    pub fn stripe_sectors(&self) -> u64 {
        u64::from(self.stripe_data_units()) * u64::from(self.unit)
    }

    /// Sectors of the set.
    pub fn total_sectors(&self) -> u64 {
        self.stripes() * self.stripe_sectors()
    }

    /// Whether parity or copies exist, so that a component can be lost.
    pub const fn redundant(&self) -> bool {
        !matches!(self.level, Level::Raid0)
    }

    /// Losses that are always survived, whichever columns they are.
    pub const fn faults(&self) -> usize {
        match &self.level {
            Level::Raid0 => 0,
            Level::Raid1
            | Level::Raid4
            | Level::Raid5
            | Level::RotatedSparing
            | Level::Chained
            | Level::Interleaved
            | Level::Declustered(_) => 1,
            Level::Raid6 | Level::EvenOdd | Level::DeclusteredPq(_) | Level::DeclusteredEvenOdd(_) => 2,
            Level::Mirror => self.columns as usize - 1,
        }
    }

    /// The stripe, unit and sector within that hold a sector of the set.
    pub fn cell(&self, sector: u64) -> Cell {
        let stripe = sector / self.stripe_sectors();
        let rest = sector % self.stripe_sectors();
        let unit = u64::from(self.unit);
        Cell { stripe, unit: (rest / unit) as usize, within: (rest % unit) as u32 }
    }

    /// The columns of a stripe, in order, and their row.
    pub fn stripe(&self, index: u64) -> Stripe {
        let columns = u64::from(self.columns);
        let data = self.stripe_data_units();
        let k = u64::from(data);
        match &self.level {
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
            // Data in SU mod N, then the diagonals, then P.
            Level::EvenOdd => {
                let first = index % columns * (k % columns) % columns;
                let data_columns = (0..k).map(|unit| (first + unit) % columns);
                Stripe::new(
                    index,
                    index,
                    data,
                    data_columns.chain([(first + k + 1) % columns, (first + k) % columns]),
                )
            }
            Level::Declustered(design) | Level::DeclusteredPq(design) | Level::DeclusteredEvenOdd(design) => {
                let (table, block) = (index / design.blocks(), index % design.blocks());
                let width = u64::from(design.width());
                let parities = width - k;
                let parity = design.parity_position(table);
                let position = |at: u64| (parity + at) % width;
                let is_parity = |at: u64| (at + width - parity) % width < parities;
                let positions = (0..width).filter(|&at| !is_parity(at)).chain((0..parities).map(position));
                let units = positions.map(|at| {
                    let (column, row) = design.unit(block, at);
                    (column, table * design.depth() + row)
                });
                Stripe::of_units(index, data, units)
            }
        }
    }

    /// The column whose unit of a row is free; none on levels that leave none free, or where those that they do are of no use.
    pub fn free_column(&self, row: u64) -> Option<usize> {
        let columns = u64::from(self.columns);
        // Behind the parity.
        (self.level == Level::RotatedSparing).then(|| ((columns - (row + 1) % columns) % columns) as usize)
    }

    /// The stripe that has its unit of `column` in `row`; none if nothing is kept there.
    pub fn stripe_of(&self, row: u64, column: usize) -> Option<u64> {
        let (columns, column) = (u64::from(self.columns), column as u64);
        let copy = row.checked_sub(self.first_copy());
        let in_use = self.patterns() * (columns - 1);
        Some(match &self.level {
            Level::Raid1 => row * self.stripes_per_row() + column / 2,
            Level::RotatedSparing if self.free_column(row) == Some(column as usize) => return None,
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
            Level::Declustered(design) | Level::DeclusteredPq(design) | Level::DeclusteredEvenOdd(design) => {
                let (table, row) = (row / design.depth(), row % design.depth());
                if table >= self.tables(design) {
                    return None;
                }
                table * design.blocks() + design.block_of(row, column)
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
        self.level.survives(self.columns, lost)
    }
}

#[cfg(test)]
pub(crate) mod tests;
