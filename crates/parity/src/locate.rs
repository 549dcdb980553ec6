//! Finding the one column that is wrong although it could be read.

use crate::error::ParityError;
use crate::field;
use crate::generate::check_stripe;
use crate::kernel::{Pass, Rows};

/// What the parity equations say about a stripe whose columns could all be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// All equations hold.
    Clean,
    /// Exactly one column explains every violated equation, at all byte positions; data first, parity after. With
    /// two parity columns this is certain only if no second column is wrong as well.
    Column(usize),
    /// The equations do not hold and no single column explains that.
    Ambiguous,
}

/// Finds the column that is silently wrong.
///
/// At each byte the syndromes (computed parity + stored parity) of a single error `e` in data column `i` are
/// `e`, `2^i e` and `4^i e`; an error in a parity column shows in its own syndrome alone.
///
/// # Errors
/// As [`generate`](crate::generate()), and fewer than 2 parity columns.
pub fn locate(data: &[&[u8]], parity: &[&[u8]]) -> Result<Location, ParityError> {
    /// Bytes of each column whose syndromes are kept on the stack.
    const BLOCK: usize = 4 << 10;
    let length = check_stripe(data, parity.iter().copied(), 2)?;
    let mut syndromes = [[0u8; BLOCK]; 3];
    let mut suspect = None;
    for start in (0..length).step_by(BLOCK) {
        let range = start..length.min(start + BLOCK);
        let columns = data.iter().map(|column| Some(&column[range.clone()]));
        let mut pass = Pass::new(columns, Rows::first(parity.len()));
        for (row, column) in parity.iter().enumerate() {
            pass.fold(row, &column[range.clone()]);
        }
        if pass.is_zero() {
            continue;
        }
        let [p, q, r] = &mut syndromes;
        let mut outputs = [&mut p[..range.len()], &mut q[..range.len()], &mut r[..range.len()]];
        pass.store(&mut outputs[..parity.len()]);
        let [p, q, r] = &syndromes;
        for ((&p, &q), &r) in p.iter().zip(q).zip(r).take(range.len()) {
            let here = [p, q, r];
            if here == [0; 3] {
                continue;
            }
            match (suspect, suspect_of(here, data.len(), parity.len())) {
                (_, None) => return Ok(Location::Ambiguous),
                (Some(before), Some(now)) if before != now => return Ok(Location::Ambiguous),
                (_, now) => suspect = now,
            }
        }
    }
    Ok(suspect.map_or(Location::Clean, Location::Column))
}

/// The only column that can cause these syndromes, of which at least one is not zero.
fn suspect_of(syndromes: [u8; 3], data_columns: usize, parity_columns: usize) -> Option<usize> {
    let [p, q, r] = syndromes;
    match (p != 0, q != 0, r != 0) {
        (true, false, false) => Some(data_columns),
        (false, true, false) => Some(data_columns + 1),
        (false, false, true) => Some(data_columns + 2),
        (true, true, _) => {
            let factor = field::multiply(q, field::inverse(p));
            let agrees = parity_columns < 3 || r == field::multiply(field::multiply(factor, factor), p);
            let column = (0..data_columns).scan(1, |power, column| {
                let this = *power;
                *power = field::double(this);
                Some((column, this))
            });
            column
                .into_iter()
                .find(|&(_, power)| power == factor)
                .filter(|_| agrees)
                .map(|(column, _)| column)
        }
        _ => None,
    }
}
