//! One traversal of a stripe, as the safe part of the crate orders it.
//!
//! One thing is decided here that the loops know nothing of: results of stripes too large for the second cache are
//! streamed past the caches, which saves reading their old contents.

use super::sweep::{LINE, Sink, Work};
use super::{current, fence};
use crate::MAX_DATA_COLUMNS;
use crate::field::{self, Coefficient, GENERATORS};
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
}

/// Bytes of all columns, results included, from which on results bypass the caches: beyond what stays in the second cache
/// (2 MiB on current servers) by the time that the results would be used.
const STREAM_FROM: usize = 3 << 19;

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
    streaming: Option<bool>,
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
            streaming: None,
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

    /// Adds the stored parity of a row to its sum.
    pub(crate) fn fold(&mut self, row: usize, parity: &'a [u8]) {
        if let Some(slot) = self.fold.get_mut(row) {
            *slot = parity.as_ptr();
            self.length = Some(self.length.map_or(parity.len(), |length| length.min(parity.len())));
        }
    }

    /// Says whether results bypass the caches, where that is possible, instead of deciding by the size of the stripe.
    pub(crate) fn set_streaming(&mut self, streaming: bool) {
        self.streaming = Some(streaming);
    }

    /// Whether all sums are zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.run(Sink::Check, self.length.unwrap_or(0))
    }

    /// Stores the sums, one output for each of the rows, which must be the first ones.
    pub(crate) fn store(&self, outputs: &mut [&mut [u8]]) {
        let outputs = outputs.iter_mut().map(|output| &mut **output);
        let (targets, count, length) = self.targets(outputs);
        if self.rows == Rows::first(count) {
            self.run(Sink::Store(targets), length);
        }
    }

    /// Stores products: output `i` becomes the sum over the rows `r` of `matrix[i][r]` times the sum of row `r`. With
    /// `rest` the caller says that the last output is also the sum of P's row and all other outputs.
    pub(crate) fn combine<'b>(
        &self,
        outputs: impl Iterator<Item = &'b mut [u8]>,
        matrix: &[[u8; 3]; 3],
        rest: bool,
    ) {
        let (targets, count, length) = self.targets(outputs);
        let matrix = matrix.map(|row| row.map(Coefficient::of));
        self.run(Sink::Combine { targets: &targets[..count], matrix: &matrix, rest }, length);
    }

    /// Pointers to up to three outputs, how many there are, and the bytes that they and the columns all have.
    fn targets<'b>(&self, outputs: impl Iterator<Item = &'b mut [u8]>) -> ([*mut u8; 3], usize, usize) {
        let mut targets = [ptr::null_mut(); 3];
        let (mut count, mut length) = (0, self.length);
        for (target, output) in targets.iter_mut().zip(outputs) {
            *target = output.as_mut_ptr();
            length = Some(length.map_or(output.len(), |length| length.min(output.len())));
            count += 1;
        }
        (targets, count, length.unwrap_or(0))
    }

    fn run(&self, sink: Sink<'_>, length: usize) -> bool {
        let targets = match &sink {
            Sink::Store(targets) => &targets[..self.rows.0.count_ones() as usize],
            Sink::Combine { targets, .. } => targets,
            Sink::Check => &[],
        };
        // Missing columns at the end of the sums cost nothing, those at the beginning one product for all of them.
        let columns = &self.columns[..self.count];
        let end = columns.iter().rposition(|column| !column.is_null()).map_or(0, |last| last + 1);
        let start = columns[..end].iter().take_while(|column| column.is_null()).count();
        let start = if start > 1 { start } else { 0 };
        let large = || length.saturating_mul(self.count + targets.len()) >= STREAM_FROM;
        let work = Work {
            columns: &columns[start..end],
            scale: GENERATORS.map(|generator| Coefficient::of(field::power(generator, start))),
            rows: self.rows.0,
            fold: self.fold,
            length,
            streaming: !targets.is_empty()
                && self.streaming.unwrap_or_else(large)
                && targets.iter().all(|target| target.addr().is_multiple_of(LINE)),
            sink,
        };
        let clean = current().run(&work);
        if work.streaming {
            fence();
        }
        clean
    }
}
