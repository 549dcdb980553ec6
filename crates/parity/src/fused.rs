//! Copy, checksum and parity in one go, for the write path of a pool.

use crate::error::{ParityError, check_data_columns, check_length, check_parity_columns};
use crate::generate;

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

/// Lays a stream out over the data columns, feeds its hashers and computes parity, touching memory once.
///
/// The stream is the concatenation of `pieces`; column 0 takes its first `columns[0].len()` bytes, and so on. What is
/// left of the columns is filled with zeroes, which no hasher sees. Hashers get their pieces' bytes in stream order in
/// an arbitrary number of updates and keep their state, so an extent may go on in the next row's call. `parity` may be
/// empty.
///
/// # Errors
/// No or more than 255 columns, more than 3 parity columns, unequal lengths, more bytes than the columns hold, a hasher
/// index without a hasher.
pub fn copy_checksum_generate<H: StreamHasher>(
    pieces: &[Piece<'_>],
    hashers: &mut [H],
    columns: &mut [&mut [u8]],
    parity: &mut [&mut [u8]],
) -> Result<(), ParityError> {
    check(pieces, hashers.len(), columns, parity)?;
    let mut pieces = pieces.iter().copied();
    let mut piece = Piece { bytes: &[], hasher: None };
    for column in columns.iter_mut() {
        let mut room = &mut **column;
        while !room.is_empty() {
            if piece.bytes.is_empty() {
                match pieces.next() {
                    Some(next) => piece = next,
                    None => break,
                }
                continue;
            }
            let (now, later) = piece.bytes.split_at(piece.bytes.len().min(room.len()).min(BLOCK));
            let (target, rest) = room.split_at_mut(now.len());
            target.copy_from_slice(now);
            if let Some(hasher) = piece.hasher.and_then(|hasher| hashers.get_mut(hasher)) {
                hasher.update(now);
            }
            piece.bytes = later;
            room = rest;
        }
        room.fill(0);
    }
    if !parity.is_empty() {
        let columns: Vec<&[u8]> = columns.iter().map(|column| &**column).collect();
        generate(&columns, parity)?;
    }
    Ok(())
}

/// Bytes copied and hashed at a time: they are still in the first cache for the second of the two.
const BLOCK: usize = 8 << 10;

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
