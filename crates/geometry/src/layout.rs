//! The map between the logical bytes of a chunk and its columns.
//!
//! What is said here about placement is a fact of the on-disk format: it can be added to, never changed.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use crate::ColumnSet;

/// Most data units a row may have: the powers of the generator of GF(2^8) repeat after 255.
pub const MAX_DATA_UNITS: u16 = 255;
/// Most parity units a row may have: P, Q and R.
pub const MAX_PARITY: u8 = 3;
/// Most columns a chunk may have.
pub const MAX_COLUMNS: u16 = MAX_DATA_UNITS + MAX_PARITY as u16;
/// Smallest unit, bytes.
pub const MIN_UNIT: u32 = 4096;

/// How the units of a row relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Every column holds the same bytes: single with one column, dup or a mirror with more.
    Copies,
    /// Every column holds different bytes, and no loss is survived: RAID 0.
    Stripe,
    /// Stripes of mirrors: RAID 10. Copy `c` of data unit `i` is in column `i * copies + c`.
    StripedCopies {
        /// Columns that hold the same bytes, at least 2.
        copies: u8,
    },
    /// Data units and parity units, rotated from row to row: RAID 5, RAID 6, raidz1 to raidz3.
    ///
    /// With n columns and p parities, row r begins at column s = n-1 - (r mod n): parity j is in column
    /// (s + j) mod n and data unit i in column (s + p + i) mod n. For p = 1 this is RAID 5 left-symmetric.
    Parity {
        /// Parity units in a row, 1 to [`MAX_PARITY`].
        parity: u8,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies => f.write_str("copies"),
            Self::Stripe => f.write_str("stripe"),
            Self::StripedCopies { copies } => write!(f, "stripe of {copies} copies"),
            Self::Parity { parity: 1 } => f.write_str("single parity"),
            Self::Parity { parity: 2 } => f.write_str("double parity"),
            Self::Parity { parity: 3 } => f.write_str("triple parity"),
            Self::Parity { parity } => write!(f, "{parity} parities"),
        }
    }
}

/// No chunk can have this layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The unit is too small or not a power of two.
    #[error("a unit of {unit} bytes is impossible: it must be a power of two of at least {MIN_UNIT}")]
    Unit {
        /// What was asked for, bytes.
        unit: u32,
    },
    /// Too few or too many columns.
    #[error("{kind} over {columns} columns is impossible: it takes {min} to {max}")]
    Columns {
        /// What was asked for.
        kind: Kind,
        /// What was asked for.
        columns: u16,
        /// Fewest columns possible.
        min: u16,
        /// Most columns possible.
        max: u16,
    },
    /// The columns don't divide into mirrors.
    #[error("{columns} columns can't be divided into mirrors of {copies}: give a multiple of {copies}")]
    Multiple {
        /// What was asked for.
        columns: u16,
        /// Columns in a mirror.
        copies: u8,
    },
    /// A stripe of mirrors with fewer than two copies.
    #[error("a stripe of mirrors with {copies} copies is impossible: it takes at least 2")]
    Copies {
        /// What was asked for.
        copies: u8,
    },
    /// A number of parities that there is no code for.
    #[error("{parity} parities are impossible: a row has 1 to {MAX_PARITY}")]
    Parity {
        /// What was asked for.
        parity: u8,
    },
}

/// Where a logical byte is, in terms of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The row.
    pub row: u64,
    /// The data unit within the row.
    pub index: u16,
    /// The byte within the unit.
    pub within: u32,
}

/// A range of logical bytes that lies within one data unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where its first byte is.
    pub cell: Cell,
    /// Its first byte, as an offset within the chunk's logical bytes.
    pub logical: u64,
    /// Its length, bytes: 1 to the unit.
    pub length: u32,
}

/// What a column holds in some row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The data unit of that number, perhaps one copy of several.
    Data(u16),
    /// The parity of that number: 0 is P, 1 is Q, 2 is R.
    Parity(u8),
}

/// How a chunk's logical bytes lie in its columns. Small and copied freely.
///
/// Offsets are relative to the chunk. Rows and indexes that no chunk has give meaningless but harmless
/// answers: sums saturate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    kind: Kind,
    columns: u16,
    /// Data units in a row; follows from the two above.
    data: u16,
    /// Binary logarithm of the unit.
    shift: u8,
}

impl Layout {
    /// The layout of `columns` columns with units of `unit` bytes.
    ///
    /// # Errors
    /// The unit is not a power of two of at least [`MIN_UNIT`], or the kind doesn't go with that many
    /// columns: a parity layout takes more columns than parities and has at most [`MAX_DATA_UNITS`] data
    /// units, a stripe of mirrors takes a multiple of its copies.
    pub fn new(kind: Kind, columns: u16, unit: u32) -> Result<Self, LayoutError> {
        if !unit.is_power_of_two() || unit < MIN_UNIT {
            return Err(LayoutError::Unit { unit });
        }
        let (min, max) = match kind {
            Kind::Copies => (1, MAX_COLUMNS),
            Kind::Stripe => (1, MAX_DATA_UNITS),
            Kind::StripedCopies { copies } if copies < 2 => return Err(LayoutError::Copies { copies }),
            Kind::StripedCopies { copies } => (copies.into(), MAX_COLUMNS),
            Kind::Parity { parity } if !(1..=MAX_PARITY).contains(&parity) => {
                return Err(LayoutError::Parity { parity });
            }
            Kind::Parity { parity } => (u16::from(parity) + 1, MAX_DATA_UNITS + u16::from(parity)),
        };
        if !(min..=max).contains(&columns) {
            return Err(LayoutError::Columns { kind, columns, min, max });
        }
        let data = match kind {
            Kind::Copies => 1,
            Kind::Stripe => columns,
            Kind::StripedCopies { copies } if !columns.is_multiple_of(copies.into()) => {
                return Err(LayoutError::Multiple { columns, copies });
            }
            Kind::StripedCopies { copies } => columns / u16::from(copies),
            Kind::Parity { parity } => columns - u16::from(parity),
        };
        Ok(Self { kind, columns, data, shift: unit.trailing_zeros() as u8 })
    }

    /// How the units of a row relate to each other.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of columns.
    pub const fn columns(&self) -> u16 {
        self.columns
    }

    /// Bytes of one column in one row.
    pub const fn unit(&self) -> u32 {
        1 << self.shift
    }

    /// Data units in a row.
    pub const fn data_units(&self) -> u16 {
        self.data
    }

    /// Parity units in a row.
    pub const fn parity(&self) -> u8 {
        if let Kind::Parity { parity } = self.kind { parity } else { 0 }
    }

    /// Logical bytes in a row.
    pub const fn row_bytes(&self) -> u64 {
        (self.data as u64) << self.shift
    }

    /// Whole rows in columns of `column_bytes` bytes; a remainder shorter than a unit is not used.
    pub const fn rows(&self, column_bytes: u64) -> u64 {
        column_bytes >> self.shift
    }

    /// Logical bytes in columns of `column_bytes` bytes.
    pub const fn capacity(&self, column_bytes: u64) -> u64 {
        self.rows(column_bytes).saturating_mul(self.row_bytes())
    }

    /// Bytes taken on devices to bytes stored, as the ratio columns : data units.
    pub const fn raw_per_logical(&self) -> (u64, u64) {
        (self.columns as u64, self.data as u64)
    }

    /// Where a logical byte is.
    pub const fn cell(&self, logical: u64) -> Cell {
        let unit = logical >> self.shift;
        let data = self.data as u64;
        let within = (logical & (self.unit() as u64 - 1)) as u32;
        Cell { row: unit / data, index: (unit % data) as u16, within }
    }

    /// The logical byte that is in a cell: the inverse of [`Layout::cell`].
    pub const fn logical(&self, cell: Cell) -> u64 {
        let before = ((cell.index as u64) << self.shift) + cell.within as u64;
        cell.row.saturating_mul(self.row_bytes()).saturating_add(before)
    }

    /// Byte offset of a row within a column; the same in every column.
    pub const fn column_offset(row: u64, unit: u32) -> u64 {
        row.saturating_mul(unit as u64)
    }

    /// Every column that holds a data unit, all copies alike.
    pub fn columns_of(&self, row: u64, index: u16) -> Range<u16> {
        let first = self.data_column(row, index);
        let copies = match self.kind {
            Kind::Copies => self.columns,
            Kind::StripedCopies { copies } => copies.into(),
            Kind::Stripe | Kind::Parity { .. } => 1,
        };
        first..first + copies
    }

    /// The column that holds a data unit; the first of them where there are copies.
    pub fn data_column(&self, row: u64, index: u16) -> u16 {
        // An index that no row has must not lead outside of the columns.
        let index = index.min(self.data - 1);
        match self.kind {
            Kind::Copies => 0,
            Kind::Stripe => index,
            Kind::StripedCopies { copies } => index * u16::from(copies),
            Kind::Parity { parity } => self.place(row, u16::from(parity) + index),
        }
    }

    /// The column that holds parity `j` of a row. For layouts without parity the answer means nothing.
    pub fn parity_column(&self, row: u64, j: u8) -> u16 {
        self.place(row, u16::from(j) % self.columns)
    }

    /// What a column holds in a row.
    pub fn role(&self, row: u64, column: u16) -> Role {
        let column = column.min(self.columns - 1);
        match self.kind {
            Kind::Copies => Role::Data(0),
            Kind::Stripe => Role::Data(column),
            Kind::StripedCopies { copies } => Role::Data(column / u16::from(copies)),
            Kind::Parity { parity } => {
                let start = self.place(row, 0);
                let place = if column >= start { column - start } else { column + self.columns - start };
                match place.checked_sub(parity.into()) {
                    None => Role::Parity(place as u8),
                    Some(index) => Role::Data(index),
                }
            }
        }
    }

    /// Column of the `place`-th unit of a rotated row, parities first; `place` is below the columns.
    fn place(self, row: u64, place: u16) -> u16 {
        let start = self.columns - 1 - (row % u64::from(self.columns)) as u16;
        let column = start + place;
        if column >= self.columns { column - self.columns } else { column }
    }

    /// Splits a logical range at unit boundaries, in order. A range that would end beyond 2^64 is cut there.
    pub fn segments(&self, logical: u64, length: u64) -> Segments {
        let left = length.min(u64::MAX - logical);
        Segments { cell: self.cell(logical), logical, left, data: self.data, unit: self.unit() }
    }

    /// The rows that a logical range touches; none if it is empty.
    pub fn rows_of(&self, logical: u64, length: u64) -> Range<u64> {
        let first = self.cell(logical).row;
        if length == 0 {
            return first..first;
        }
        first..self.cell(logical.saturating_add(length - 1)).row + 1
    }

    /// Lost columns that are survived in the worst case.
    pub fn tolerance(&self) -> u16 {
        match self.kind {
            Kind::Copies => self.columns - 1,
            Kind::Stripe => 0,
            Kind::StripedCopies { copies } => u16::from(copies) - 1,
            Kind::Parity { parity } => parity.into(),
        }
    }

    /// Further lost columns that are survived in the worst case when these are gone; `None` if data is
    /// lost already. Members of `gone` that are no columns of this layout don't count.
    pub fn redundancy(&self, gone: &ColumnSet) -> Option<u16> {
        let lost = gone.intersection(&ColumnSet::first(self.columns));
        match self.kind {
            Kind::StripedCopies { copies } => {
                let copies = u16::from(copies);
                let mut lost_per_mirror = [0_u16; MAX_DATA_UNITS as usize];
                for column in lost {
                    lost_per_mirror[usize::from(column / copies)] += 1;
                }
                let worst = lost_per_mirror.into_iter().max().unwrap_or(0);
                (copies - worst).checked_sub(1)
            }
            Kind::Copies | Kind::Stripe | Kind::Parity { .. } => self.tolerance().checked_sub(lost.len()),
        }
    }

    /// A smallest set of columns to read to rebuild what `column` holds in a row when `gone` can't be
    /// read; `column` itself is never among them. `None` if it can't be rebuilt.
    ///
    /// From copies it is one column, the next after `column` that is there. With parity it is as many
    /// columns as the row has data units, data before parity and P before Q before R, so that the cheapest
    /// reconstruction applies.
    pub fn sources(&self, row: u64, column: u16, gone: &ColumnSet) -> Option<ColumnSet> {
        if column >= self.columns {
            return None;
        }
        let usable = |candidate: &u16| *candidate != column && !gone.contains(*candidate);
        let one_of = |copies: Range<u16>| {
            (column + 1..copies.end)
                .chain(copies.start..column)
                .find(usable)
                .map(|c| ColumnSet::from_iter([c]))
        };
        match self.kind {
            Kind::Stripe => None,
            Kind::Copies => one_of(0..self.columns),
            Kind::StripedCopies { copies } => {
                let copies = u16::from(copies);
                let first = column / copies * copies;
                one_of(first..first + copies)
            }
            Kind::Parity { parity } => {
                let data = (0..self.data).map(|index| self.data_column(row, index));
                let parities = (0..parity).map(|j| self.parity_column(row, j));
                let chosen: ColumnSet = data.chain(parities).filter(usable).take(self.data.into()).collect();
                (chosen.len() == self.data).then_some(chosen)
            }
        }
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({:?}, {} columns, unit {})", self.kind, self.columns, self.unit())
    }
}

/// The segments of a logical range, in order: [`Layout::segments`].
#[derive(Clone, Debug)]
pub struct Segments {
    cell: Cell,
    logical: u64,
    left: u64,
    data: u16,
    unit: u32,
}

impl Iterator for Segments {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.left == 0 {
            return None;
        }
        let length = self.left.min(u64::from(self.unit - self.cell.within)) as u32;
        let segment = Segment { cell: self.cell, logical: self.logical, length };
        self.left -= u64::from(length);
        self.logical += u64::from(length);
        self.cell.within = 0;
        self.cell.index += 1;
        if self.cell.index == self.data {
            self.cell.index = 0;
            self.cell.row += 1;
        }
        Some(segment)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = (u64::from(self.cell.within) + self.left).div_ceil(self.unit.into());
        let count = if self.left == 0 { 0 } else { count };
        (usize::try_from(count).unwrap_or(usize::MAX), usize::try_from(count).ok())
    }
}

impl FusedIterator for Segments {}
