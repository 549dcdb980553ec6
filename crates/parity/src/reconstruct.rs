//! Rebuilding lost columns.
//!
//! Let `V_r` be parity row `r` summed over the data columns that are there, plus the stored parity where it is used to
//! solve for lost data. Over the lost columns `x` this is `V_r = sum g_r^x D_x`: as many equations as unknowns, so
//! `D = A^-1 V`. A lost parity column is its own `V_r` (no stored parity in it) plus `g_r^x D_x` for each lost column.
//! Both are linear in the `V`, hence one matrix of at most 3 by 3, applied while the `V` are still in registers.

use crate::error::{ParityError, check_data_columns, check_length, check_parity_columns};
use crate::field::{self, GENERATORS};
use crate::kernel::{Pass, Rows};

/// Rebuilds lost columns, data or parity, in one pass over the columns that are left.
///
/// Columns are numbered `0..data_columns` for data, then P, Q, R. `present[i]` is `None` where a column is lost or
/// unreadable; its length is the number of data and parity columns of the stripe. `wanted` lists the lost columns to
/// rebuild with the buffers to put them into; lost columns that nobody wants cost nothing but their share of parity.
///
/// # Errors
/// No or more than 255 data columns, not 1 to 3 parity columns, unequal lengths, more lost data columns than readable
/// parity columns, a wanted column that is not lost, does not exist, or is named twice.
pub fn reconstruct(
    data_columns: usize,
    present: &[Option<&[u8]>],
    wanted: &mut [(usize, &mut [u8])],
) -> Result<(), ParityError> {
    check_data_columns(data_columns)?;
    check_parity_columns(present.len().saturating_sub(data_columns), 1)?;
    check_wanted(present, wanted)?;
    let (data, parity) = present.split_at(data_columns);

    let mut lost = [0; 3];
    let mut losses = 0;
    for (column, _) in data.iter().enumerate().filter(|(_, bytes)| bytes.is_none()) {
        if let Some(slot) = lost.get_mut(losses) {
            *slot = column;
        }
        losses += 1;
    }
    let readable = parity.iter().flatten().count();
    if losses > readable {
        return Err(ParityError::TooManyLost { lost: losses, parity: readable });
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let lost = &lost[..losses];

    // The rows that solve for the lost data: the first readable ones, P being the cheapest.
    let mut solving = [0; 3];
    let readable_rows = (0..parity.len()).filter(|&row| parity[row].is_some());
    for (slot, row) in solving[..losses].iter_mut().zip(readable_rows) {
        *slot = row;
    }
    let solving = &solving[..losses];
    let mut system = [[0; 3]; 3];
    for (equation, &row) in system.iter_mut().zip(solving) {
        for (factor, &column) in equation.iter_mut().zip(lost) {
            *factor = field::power(GENERATORS[row], column);
        }
    }
    // Always invertible (powers of distinct elements), so the error is never seen.
    let solution =
        field::invert(system, losses).ok_or(ParityError::TooManyLost { lost: losses, parity: readable })?;

    let mut rows = Rows::default();
    for &row in solving {
        rows.insert(row);
    }
    let mut matrix = [[0; 3]; 3];
    for ((column, _), factors) in wanted.iter().zip(&mut matrix) {
        if let Some(row) = column.checked_sub(data_columns) {
            rows.insert(row);
            factors[row] = 1;
            for (unknown, &lost_column) in lost.iter().enumerate() {
                let weight = field::power(GENERATORS[row], lost_column);
                for (equation, &solving_row) in solving.iter().enumerate() {
                    factors[solving_row] ^= field::multiply(weight, solution[unknown][equation]);
                }
            }
        } else if let Some(unknown) = lost.iter().position(|lost_column| lost_column == column) {
            for (equation, &solving_row) in solving.iter().enumerate() {
                factors[solving_row] = solution[unknown][equation];
            }
        }
    }

    // P alone is a plain sum, in which the stored parity is a column like any other.
    if let ([(column, buffer)], [0]) = (&mut *wanted, solving)
        && *column < data_columns
    {
        let left = data.iter().chain(&parity[..1]).filter(|bytes| bytes.is_some());
        Pass::new(left.copied(), rows).store(&mut [&mut **buffer]);
        return Ok(());
    }
    let mut pass = Pass::new(data.iter().copied(), rows);
    for &row in solving {
        if let Some(bytes) = parity[row] {
            pass.fold(row, bytes);
        }
    }
    // With P among the equations, the last of all lost columns is what the other ones leave of V_0.
    let rest = solving.first() == Some(&0)
        && wanted.len() == losses
        && wanted.iter().all(|&(column, _)| column < data_columns);
    pass.combine(wanted.iter_mut().map(|(_, buffer)| &mut **buffer), &matrix, rest);
    Ok(())
}

/// Checks that every wanted column is lost, wanted once, and that all buffers are equally long.
fn check_wanted(present: &[Option<&[u8]>], wanted: &[(usize, &mut [u8])]) -> Result<(), ParityError> {
    let columns = present.len();
    for (at, &(column, _)) in wanted.iter().enumerate() {
        match present.get(column) {
            None => return Err(ParityError::NoSuchColumn { column, columns }),
            Some(Some(_)) => return Err(ParityError::NotLost { column }),
            Some(None) if wanted[..at].iter().any(|&(before, _)| before == column) => {
                return Err(ParityError::WantedTwice { column });
            }
            Some(None) => {}
        }
    }
    let there = present.iter().enumerate().filter_map(|(column, bytes)| Some((column, (*bytes)?.len())));
    let mut lengths = there.chain(wanted.iter().map(|(column, buffer)| (*column, buffer.len())));
    if let Some((_, expected)) = lengths.next() {
        for (column, found) in lengths {
            check_length(column, found, expected)?;
        }
    }
    Ok(())
}
