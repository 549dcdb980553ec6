//! One traversal of a stripe, as the safe part of the crate orders it.

use super::current;
use super::sweep::{Sink, Work};
use crate::MAX_DATA_COLUMNS;
use crate::field::Coefficient;
use std::marker::PhantomData;
use std::ptr;

/// A set of parity rows: bit 0 is P, bit 1 is Q, bit 2 is R.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows(u8);

impl Rows {
    /// The first `count` rows, at most 3.
    pub(crate) fn first(count: usize) -> Self {
        Self((1 << count.min(3)) - 1)
    }

    /// Adds a row, 0 to 2.
    pub(crate) fn insert(&mut self, row: usize) {
        self.0 |= 1 << row.min(2);
    }

    pub(super) fn bits(self) -> u8 {
        self.0
    }
}

/// Parity sums over data columns, some of which may be missing.
///
/// All columns count as long as the shortest of them, so that no kernel ever leaves a buffer; callers have checked
/// before that they are equally long.
pub(crate) struct Pass<'a> {
    columns: [*const u8; MAX_DATA_COLUMNS],
    count: usize,
    rows: Rows,
    fold: [*const u8; 3],
    length: Option<usize>,
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Pass<'a> {
    /// Sums `rows` over the columns; a `None` is a column of zeroes. At most [`MAX_DATA_COLUMNS`].
    pub(crate) fn new(columns: impl Iterator<Item = Option<&'a [u8]>>, rows: Rows) -> Self {
        let mut pass = Self {
            columns: [ptr::null(); MAX_DATA_COLUMNS],
            count: 0,
            rows,
            fold: [ptr::null(); 3],
            length: None,
            borrowed: PhantomData,
        };
        for (slot, column) in pass.columns.iter_mut().zip(columns) {
            if let Some(bytes) = column {
                *slot = bytes.as_ptr();
                pass.length = Some(pass.length.map_or(bytes.len(), |length| length.min(bytes.len())));
            }
            pass.count += 1;
        }
        pass
    }

    fn limit(&self, length: usize) -> usize {
        self.length.map_or(length, |before| before.min(length))
    }

    /// Adds the stored parity of a row to its sum.
    pub(crate) fn fold(&mut self, row: usize, parity: &'a [u8]) {
        if let Some(slot) = self.fold.get_mut(row) {
            *slot = parity.as_ptr();
            self.length = Some(self.limit(parity.len()));
        }
    }

    fn work(&self, sink: Sink<'_>, length: usize) -> bool {
        let columns = &self.columns[..self.count];
        current().run(&Work { columns, rows: self.rows.bits(), fold: self.fold, length, sink })
    }

    /// Whether all sums are zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.work(Sink::Check, self.length.unwrap_or(0))
    }

    /// Stores the sums, one output for each of the rows, which must be the first ones.
    pub(crate) fn store(&self, outputs: &mut [&mut [u8]]) {
        let mut targets = [ptr::null_mut(); 3];
        let mut length = self.length.unwrap_or(usize::MAX);
        for (target, output) in targets.iter_mut().zip(outputs.iter_mut()) {
            *target = output.as_mut_ptr();
            length = length.min(output.len());
        }
        if outputs.len() >= self.rows.bits().count_ones() as usize && length != usize::MAX {
            self.work(Sink::Store(targets), length);
        }
    }

    /// Stores products: output `i` becomes the sum over the rows `r` of `matrix[i][r]` times the sum of row `r`.
    pub(crate) fn combine<'b>(&self, outputs: impl Iterator<Item = &'b mut [u8]>, matrix: &[[u8; 3]; 3]) {
        let mut targets = [ptr::null_mut(); 3];
        let mut length = self.length.unwrap_or(usize::MAX);
        let mut count = 0;
        for (target, output) in targets.iter_mut().zip(outputs) {
            *target = output.as_mut_ptr();
            length = length.min(output.len());
            count += 1;
        }
        if length != usize::MAX {
            let matrix = matrix.map(|row| row.map(Coefficient::of));
            self.work(Sink::Combine { targets: &targets[..count], matrix: &matrix }, length);
        }
    }
}
