//! What can be wrong with a request. Every case is a mistake of the caller or a loss beyond repair.

use crate::{MAX_DATA_COLUMNS, MAX_PARITY_COLUMNS};

/// Why an operation was refused; nothing has been written then.
///
/// Columns are numbered as in [`reconstruct`](crate::reconstruct): data first, parity after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParityError {
    /// No data columns, or more than the field has powers for.
    #[error("{found} data columns given, but a stripe has 1 to {MAX_DATA_COLUMNS}")]
    DataColumns {
        /// How many were given.
        found: usize,
    },
    /// Too few or too many parity columns.
    #[error("{found} parity columns given, but this needs {least} to {MAX_PARITY_COLUMNS}")]
    ParityColumns {
        /// How many were given.
        found: usize,
        /// The fewest that the operation works with.
        least: usize,
    },
    /// Columns of unequal length.
    #[error("column {column} is {found} bytes long, but the stripe's columns are {expected} bytes long")]
    Length {
        /// Index of the column.
        column: usize,
        /// Its length, bytes.
        found: usize,
        /// Length of the column it was compared with, bytes.
        expected: usize,
    },
    /// More data is lost than the readable parity can give back.
    #[error(
        "{lost} data columns are lost but only {parity} parity columns are readable; find another copy of a column"
    )]
    TooManyLost {
        /// Lost data columns.
        lost: usize,
        /// Readable parity columns.
        parity: usize,
    },
    /// A wanted column was also given as present.
    #[error("column {column} is wanted but also given as present; pass it as lost to have it rebuilt")]
    NotLost {
        /// Index of the column.
        column: usize,
    },
    /// A wanted column does not exist.
    #[error("column {column} is wanted but the stripe has only {columns} columns")]
    NoSuchColumn {
        /// Index asked for.
        column: usize,
        /// Number of data and parity columns.
        columns: usize,
    },
    /// A column was asked for twice.
    #[error("column {column} is wanted twice")]
    WantedTwice {
        /// Index of the column.
        column: usize,
    },
    /// The pieces of a stream hold more bytes than the data columns.
    #[error("the pieces hold more than the {room} bytes that the data columns have room for")]
    StreamTooLong {
        /// Bytes in all data columns together.
        room: usize,
    },
    /// A piece names a hasher that was not given.
    #[error("a piece is to be hashed by hasher {hasher} but only {hashers} were given")]
    NoSuchHasher {
        /// Index asked for.
        hasher: usize,
        /// Number of hashers.
        hashers: usize,
    },
}

/// Checks the number of data columns.
pub(crate) fn check_data_columns(found: usize) -> Result<(), ParityError> {
    if (1..=MAX_DATA_COLUMNS).contains(&found) { Ok(()) } else { Err(ParityError::DataColumns { found }) }
}

/// Checks the number of parity columns.
pub(crate) fn check_parity_columns(found: usize, least: usize) -> Result<(), ParityError> {
    if (least..=MAX_PARITY_COLUMNS).contains(&found) {
        Ok(())
    } else {
        Err(ParityError::ParityColumns { found, least })
    }
}

/// Checks that `length` of a column is what the others have.
pub(crate) fn check_length(column: usize, found: usize, expected: usize) -> Result<(), ParityError> {
    if found == expected { Ok(()) } else { Err(ParityError::Length { column, found, expected }) }
}
