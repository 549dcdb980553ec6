//! Copy, checksum and parity in one go, for the write path of a pool.

use crate::error::{ParityError, check_data_columns, check_length, check_parity_columns};
use crate::kernel::{self, Pass, Rows};
use crate::{MAX_DATA_COLUMNS, MAX_PARITY_COLUMNS};

/// A checksum that is fed a stream piece by piece.
pub trait StreamHasher {
    /// Takes the next bytes.
    fn update(&mut self, bytes: &[u8]);
}

impl StreamHasher for xxhash_rust::xxh3::Xxh3 {
    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }
}

impl<H: StreamHasher + ?Sized> StreamHasher for &mut H {
    fn update(&mut self, bytes: &[u8]) {
        (**self).update(bytes);
    }
}

impl<H: StreamHasher + ?Sized> StreamHasher for Box<H> {
    fn update(&mut self, bytes: &[u8]) {
        (**self).update(bytes);
    }
}

/// A part of the stream that is cut into columns.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Which of the hashers takes them, if any: an index. Pieces of one extent name the same hasher.
    pub hasher: Option<usize>,
}

/// What the columns are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stores {
    /// They will be read by this processor soon, or fit into its caches again and again.
    Cached,
    /// They go to a device by DMA, or are far larger than the caches: they bypass the caches where columns are aligned
    /// to 64 bytes, which saves reading their old contents.
    Streaming,
}

/// Lays a stream out over the data columns, feeds its hashers and computes parity, reading memory once.
///
/// The stream is the concatenation of `pieces`; column 0 takes its first `columns[0].len()` bytes, and so on. What is
/// left of the columns is filled with zeroes, which no hasher sees. Hashers get their pieces' bytes in stream order in
/// an arbitrary number of updates and keep their state, so an extent may go on in the next row's call. `parity` may be
/// empty.
///
/// The stream is taken in blocks that are copied and hashed while they are in the first cache and the next ones are on
/// their way; parity is computed when the row is complete, from the second cache if the row fits.
///
/// # Errors
/// No or more than 255 columns, more than 3 parity columns, unequal lengths, more bytes than the columns hold, a hasher
/// index without a hasher.
pub fn copy_checksum_generate<H: StreamHasher>(
    pieces: &[Piece<'_>],
    hashers: &mut [H],
    columns: &mut [&mut [u8]],
    parity: &mut [&mut [u8]],
    stores: Stores,
) -> Result<(), ParityError> {
    check(pieces, hashers.len(), columns, parity)?;
    let streaming = stores == Stores::Streaming;
    let mut stream = pieces.iter().copied();
    let (mut piece, mut done) = (Piece { bytes: &[], hasher: None }, 0);
    for column in columns.iter_mut() {
        let mut room = &mut **column;
        while !room.is_empty() {
            if done == piece.bytes.len() {
                match stream.next() {
                    Some(next) => (piece, done) = (next, 0),
                    None => break,
                }
                continue;
            }
            let (now, _) =
                piece.bytes[done..].split_at((piece.bytes.len() - done).min(room.len()).min(BLOCK));
            let (target, rest) = room.split_at_mut(now.len());
            prefetch_ahead(piece.bytes, done);
            kernel::copy(now, target, streaming);
            if let Some(hasher) = piece.hasher.and_then(|hasher| hashers.get_mut(hasher)) {
                hasher.update(now);
            }
            done += now.len();
            room = rest;
        }
        room.fill(0);
    }
    if streaming {
        kernel::fence();
    }
    if !parity.is_empty() {
        parity_of_stream(pieces, columns[0].len(), parity, streaming);
    }
    Ok(())
}

/// Bytes copied and hashed at a time. Hashers are slow in smaller portions, and in larger ones fetching ahead gets stuck.
const BLOCK: usize = 2 << 10;

/// Fetches the share of the stream's next pages that falls to the block at `done`.
///
/// Fetching from a few pages at once keeps more of memory busy than one page after the other, above all while the
/// hasher computes: each page has its own stream in the hardware's prefetcher.
fn prefetch_ahead(bytes: &[u8], done: usize) {
    const PAGE: usize = 4 << 10;
    const PAGES: usize = 4;
    const SHARE: usize = BLOCK / PAGES;
    let group = (done / (PAGE * PAGES) + 1) * PAGE * PAGES;
    let within = done % (PAGE * PAGES) / BLOCK * SHARE;
    for page in 0..PAGES {
        let start = group + page * PAGE + within;
        kernel::prefetch(bytes.get(start..start + SHARE).unwrap_or_default());
    }
}

/// Computes the parity of the stream where it lies, which the caches still hold, cut into columns of `length` bytes.
fn parity_of_stream(pieces: &[Piece<'_>], length: usize, parity: &mut [&mut [u8]], streaming: bool) {
    let mut at = 0;
    while at < length {
        // As far as each column's bytes lie in one piece. The columns beyond the end of the stream are zero.
        let mut run = length - at;
        let (mut start, mut rest) = (0, pieces);
        let mut columns = [&[][..]; MAX_DATA_COLUMNS];
        let mut count = 0;
        for column in &mut columns {
            let position = count * length + at;
            while let [piece, later @ ..] = rest
                && position - start >= piece.bytes.len()
            {
                start += piece.bytes.len();
                rest = later;
            }
            let [piece, ..] = rest else { break };
            *column = &piece.bytes[position - start..];
            run = run.min(column.len());
            count += 1;
        }
        let columns = columns[..count].iter().map(|column| Some(&column[..run]));
        let mut targets = parity.iter_mut().map(|column| &mut column[at..at + run]);
        if count == 0 {
            targets.for_each(|target| target.fill(0));
        } else {
            let mut pass = Pass::new(columns, Rows::first(targets.len()));
            pass.set_streaming(streaming);
            let mut slots: [&mut [u8]; MAX_PARITY_COLUMNS] = [&mut [], &mut [], &mut []];
            let rows = targets.len();
            slots.iter_mut().zip(&mut targets).for_each(|(slot, target)| *slot = target);
            pass.store(&mut slots[..rows]);
        }
        at += run;
    }
}

fn check(
    pieces: &[Piece<'_>],
    hashers: usize,
    columns: &[&mut [u8]],
    parity: &[&mut [u8]],
) -> Result<(), ParityError> {
    check_data_columns(columns.len())?;
    check_parity_columns(parity.len(), 0)?;
    let length = columns[0].len();
    for (column, bytes) in columns.iter().chain(parity).enumerate() {
        check_length(column, bytes.len(), length)?;
    }
    let room = length.saturating_mul(columns.len());
    pieces
        .iter()
        .try_fold(room, |left, piece| left.checked_sub(piece.bytes.len()))
        .ok_or(ParityError::StreamTooLong { room })?;
    match pieces.iter().filter_map(|piece| piece.hasher).find(|&hasher| hasher >= hashers) {
        Some(hasher) => Err(ParityError::NoSuchHasher { hasher, hashers }),
        None => Ok(()),
    }
}
