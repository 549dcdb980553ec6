//! Making parity, and checking it.

use crate::error::{ParityError, check_data_columns, check_length, check_parity_columns};
use crate::kernel::{Pass, Rows};

/// Checks a stripe with all its columns; returns the columns' length.
pub(crate) fn check_stripe<'a>(
    data: &[&[u8]],
    parity: impl ExactSizeIterator<Item = &'a [u8]>,
    least_parity: usize,
) -> Result<usize, ParityError> {
    check_data_columns(data.len())?;
    check_parity_columns(parity.len(), least_parity)?;
    let length = data[0].len();
    let lengths = data.iter().map(|column| column.len()).chain(parity.map(<[u8]>::len));
    for (column, found) in lengths.enumerate() {
        check_length(column, found, length)?;
    }
    Ok(length)
}

/// Computes P, or P and Q, or P, Q and R, as many as `parity` has columns.
///
/// All columns are equally long; any length and alignment will do.
///
/// # Errors
/// No or more than 255 data columns, not 1 to 3 parity columns, unequal lengths.
pub fn generate(data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ParityError> {
    check_stripe(data, parity.iter().map(|column| &**column), 1)?;
    Pass::new(data.iter().map(|&column| Some(column)), Rows::first(parity.len())).store(parity);
    Ok(())
}

/// Whether the parity columns are what [`generate`] would write. Stops at the first block that differs.
///
/// # Errors
/// As [`generate`].
pub fn verify(data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ParityError> {
    /// Bytes of each column looked at before the outcome so far is asked for.
    const BLOCK: usize = 64 << 10;
    let length = check_stripe(data, parity.iter().copied(), 1)?;
    for start in (0..length).step_by(BLOCK) {
        let range = start..length.min(start + BLOCK);
        let columns = data.iter().map(|column| Some(&column[range.clone()]));
        let mut pass = Pass::new(columns, Rows::first(parity.len()));
        for (row, column) in parity.iter().enumerate() {
            pass.fold(row, &column[range.clone()]);
        }
        if !pass.is_zero() {
            return Ok(false);
        }
    }
    Ok(true)
}
