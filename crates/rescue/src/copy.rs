//! Copies a device to a file or disk, around what is lost, and can be gone on with later.
//!
//! The map says of every byte whether the copy holds it: it is the state of the work as well as its result.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use device::{BadMap, BlockDevice, DeviceError, Rescue};

use crate::read_around_losses;

/// Bytes copied at a time, where nothing is known of rows.
const STEP: u64 = 8 << 20;
/// Of rows as many are copied at a time as have so many bytes: more would not stay in the processor's caches.
const ROWS_LEAST: u64 = 2 << 20;
/// Rows longer than this are not copied as wholes.
const ROW_MAX: u64 = 32 << 20;
/// Threads that read ahead, at most.
const READERS_MAX: usize = 4;
/// How many pieces more than there are threads are read ahead, at most.
const AHEAD: usize = 2;
/// What is all zeros in a unit of this size is left out of a new file.
const HOLE: usize = 64 << 10;

/// How to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Zeros need not be written: the output is new and reads as zeros.
    pub sparse: bool,
    /// Write zeros where bytes are lost, instead of leaving what is there.
    pub fill_zero: bool,
    /// Where the rows of the array begin that it is copied from.
    pub rows: Option<Rows>,
}

/// Rows of an array, as they lie on what is copied: what ends with a row is read fastest if members are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Bytes of data in a row.
    pub width: u64,
    /// How many bytes of a row precede the first byte.
    pub before: u64,
}

/// Where a copy stands, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Looked at, of all.
    pub position: u64,
    /// All.
    pub size: u64,
    /// Lost.
    pub lost: u64,
}

/// Copies all of `from` that the map does not say is finished. `step` is told after each piece what the map is now, and
/// says whether to go on.
///
/// # Errors
/// `from` does not tell its size, or `to` can't be written. What can't be read of `from` is no error: the map says so.
pub fn copy_out(
    from: &dyn BlockDevice,
    to: &dyn BlockDevice,
    map: &mut BadMap,
    options: CopyOptions,
    mut step: impl FnMut(&BadMap, CopyProgress) -> Result<bool, DeviceError>,
) -> Result<CopyProgress, DeviceError> {
    let size = from.size()?;
    let mut progress = CopyProgress { size, ..CopyProgress::default() };
    let left = map.bad(0..size).map(|(range, _)| range);
    let pieces: Vec<Range<u64>> = left.flat_map(|range| pieces(range, options.rows)).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, READERS_MAX);
    let ahead = Ahead::new(from, &pieces, workers + AHEAD);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| ahead.work());
        }
        // However it ends, the readers are told.
        let _ended = Ended(&ahead);
        for (number, range) in pieces.iter().enumerate() {
            let (bytes, lost) = ahead.take(number);
            let mut good = range.start;
            for gap in lost.iter().chain([&(range.end..range.end)]) {
                let part = &bytes[(good - range.start) as usize..(gap.start - range.start) as usize];
                write_part(to, good, part, options.sparse)?;
                map.set(good..gap.start, Rescue::Finished);
                map.set(gap.clone(), Rescue::BadSector);
                if options.fill_zero && !gap.is_empty() {
                    to.write(gap.start, &vec![0; (gap.end - gap.start) as usize])?;
                }
                progress.lost += gap.end - gap.start;
                good = gap.end;
            }
            ahead.give_back(bytes);
            progress.position = range.end;
            if !step(map, progress)? {
                return Ok(progress);
            }
        }
        progress.position = size;
        to.flush()?;
        Ok(progress)
    })
}

/// A range in pieces that end with rows, or else at multiples of their size.
fn pieces(range: Range<u64>, rows: Option<Rows>) -> impl Iterator<Item = Range<u64>> {
    let rows = rows.filter(|rows| (1..=ROW_MAX).contains(&rows.width));
    let (step, before) =
        rows.map_or((STEP, 0), |Rows { width, before }| (ROWS_LEAST.div_ceil(width) * width, before % width));
    // Counted from the beginning of a row.
    let (start, end) = (range.start + before, range.end + before);
    (start / step..end.div_ceil(step))
        .map(move |piece| start.max(piece * step) - before..end.min((piece + 1) * step) - before)
}

/// What was read, and the ranges of the device that are lost in it.
type Piece = (Vec<u8>, Vec<Range<u64>>);

/// Pieces that are read ahead by several threads, and taken in order.
struct Ahead<'a> {
    from: &'a dyn BlockDevice,
    pieces: &'a [Range<u64>],
    /// How many pieces are read ahead, at most.
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next piece to read, and the next to be taken.
    next: usize,
    taken: usize,
    read: BTreeMap<usize, Piece>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    ended: bool,
}

impl<'a> Ahead<'a> {
    fn new(from: &'a dyn BlockDevice, pieces: &'a [Range<u64>], most: usize) -> Self {
        Self { from, pieces, most, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The state. A reader that panicked has left nothing half done in it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads pieces until there are none.
    fn work(&self) {
        let mut state = self.state();
        loop {
            let Some(range) = self.pieces.get(state.next).filter(|_| !state.ended) else { return };
            if state.next >= state.taken + self.most {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let number = state.next;
            state.next += 1;
            let mut bytes = state.spare.pop().unwrap_or_default();
            drop(state);
            bytes.resize((range.end - range.start) as usize, 0);
            let lost = read_around_losses(self.from, range.start, &mut bytes);
            state = self.state();
            state.read.insert(number, (bytes, lost));
            self.changed.notify_all();
        }
    }

    /// Waits for a piece.
    fn take(&self, number: usize) -> Piece {
        let mut state = self.state();
        loop {
            if let Some(piece) = state.read.remove(&number) {
                state.taken = number + 1;
                self.changed.notify_all();
                return piece;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        self.state().spare.push(bytes);
    }
}

/// Tells the readers to end when it is dropped.
struct Ended<'a>(&'a Ahead<'a>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

/// Writes bytes, without long runs of zeros if the output has them already.
fn write_part(to: &dyn BlockDevice, at: u64, bytes: &[u8], sparse: bool) -> Result<(), DeviceError> {
    if !sparse {
        return if bytes.is_empty() { Ok(()) } else { to.write(at, bytes) };
    }
    let mut start = 0;
    for (index, unit) in bytes.chunks(HOLE).enumerate() {
        if unit.iter().all(|byte| *byte == 0) {
            let end = index * HOLE;
            if end > start {
                to.write(at + start as u64, &bytes[start..end])?;
            }
            start = end + unit.len();
        }
    }
    if bytes.len() > start { to.write(at + start as u64, &bytes[start..]) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_rows() {
        let rows = |width, before| Some(Rows { width, before });
        for (range, rows) in [
            (0..100 << 20, None),
            (12_345..77 << 20, None),
            (0..100 << 20, rows(3 << 20, 0)),
            (5000..90_000_000, rows(3 << 20, 1 << 20)),
            (5000..90_000_000, rows(48 << 10, 7 << 30)),
            (0..10 << 20, rows(64 << 20, 1)),
            (0..10 << 20, rows(0, 1)),
        ] {
            let all: Vec<Range<u64>> = pieces(range.clone(), rows).collect();
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(all.iter().all(|piece| piece.start < piece.end && piece.end - piece.start <= STEP));
            assert_eq!((all[0].start, all[all.len() - 1].end), (range.start, range.end));
            if let Some(Rows { width, before }) = rows.filter(|rows| rows.width > 0 && rows.width <= ROW_MAX)
            {
                assert!(all[..all.len() - 1].iter().all(|piece| (piece.end + before).is_multiple_of(width)));
            }
        }
    }
}
