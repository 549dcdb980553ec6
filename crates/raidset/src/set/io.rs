//! Spans of components, read and written many at a time: those that follow each other on a device go in one request.

use std::borrow::Cow;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

use device::{BlockDevice, DeviceError, Op, Request};

use super::RaidSet;
use super::locks::lock;

/// Most buffers of one request.
const MAX_BUFFERS: usize = 256;

/// Pieces of memory that are kept.
const KEPT_MAX: usize = 8;

/// A span of a component.
pub(super) struct Piece<B> {
    pub(super) column: usize,
    pub(super) device: Arc<dyn BlockDevice>,
    /// Where on the device, bytes.
    pub(super) offset: u64,
    pub(super) bytes: B,
    /// What the caller knows it by.
    pub(super) tag: usize,
}

/// A piece to be written.
pub(super) type Output<'a> = Piece<Cow<'a, [u8]>>;

/// A component that could not be written.
pub(super) struct Failure {
    pub(super) column: usize,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) error: DeviceError,
}

fn address<B>(piece: &Piece<B>) -> usize {
    Arc::as_ptr(&piece.device).cast::<()>() as usize
}

/// Sorts pieces by column, device and offset. Of the devices of a column, which are two at most, the one that comes
/// first stays first: where they lie in memory must not decide in which order they are asked.
pub(super) fn sort<B>(pieces: &mut [Piece<B>]) {
    let mut first: Vec<usize> = Vec::new();
    for piece in pieces.iter() {
        if first.len() <= piece.column {
            first.resize(piece.column + 1, 0);
        }
        if first[piece.column] == 0 {
            first[piece.column] = address(piece);
        }
    }
    pieces.sort_unstable_by_key(|piece| (piece.column, first[piece.column] != address(piece), piece.offset));
}

/// The first `length` bytes of memory that is used again and again.
pub(super) fn grown(memory: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if memory.len() < length {
        memory.resize(length, 0);
    }
    &mut memory[..length]
}

fn follows<B: AsRef<[u8]>>(a: &Piece<B>, b: &Piece<B>) -> bool {
    address(a) == address(b) && a.offset + a.bytes.as_ref().len() as u64 == b.offset
}

impl RaidSet {
    /// Memory that was used before, or none.
    pub(super) fn memory(&self) -> Vec<u8> {
        lock(&self.scratch).pop().unwrap_or_default()
    }

    /// Keeps memory for the next user.
    pub(super) fn keep_memory(&self, memory: Vec<u8>) {
        let mut kept = lock(&self.scratch);
        if kept.len() < KEPT_MAX {
            kept.push(memory);
        }
    }

    /// Writes pieces that do not overlap. Returns the components that failed; their pieces may or may not be written.
    pub(super) fn write_pieces(&self, pieces: &mut [Output<'_>]) -> Vec<Failure> {
        sort(pieces);
        let mut firsts = Vec::new();
        let mut requests = Vec::new();
        for row in pieces.chunk_by(follows).flat_map(|row| row.chunks(MAX_BUFFERS)) {
            let buffers = row.iter().map(|piece| IoSlice::new(&piece.bytes)).collect();
            requests.push(Request::new(&*row[0].device, Op::Write { offset: row[0].offset, buffers }));
            firsts.push(&row[0]);
        }
        self.runner.run(&mut requests);
        let failed = firsts.into_iter().zip(requests).filter_map(|(first, request)| {
            let error = request.result.err()?;
            Some(Failure { column: first.column, device: first.device.clone(), error })
        });
        failed.collect()
    }

    /// Fills pieces. Returns the tags of those that could not be read, with the reason.
    pub(super) fn read_pieces(&self, pieces: &mut [Piece<&mut [u8]>]) -> Vec<(usize, DeviceError)> {
        sort(pieces);
        let mut lengths = Vec::new();
        let mut requests = Vec::new();
        for row in pieces.chunk_by_mut(follows).flat_map(|row| row.chunks_mut(MAX_BUFFERS)) {
            lengths.push(row.len());
            let offset = row[0].offset;
            let device = row[0].device.clone();
            let buffers = row.iter_mut().map(|piece| IoSliceMut::new(piece.bytes)).collect();
            requests.push((device, Op::Read { offset, buffers }));
        }
        let mut requests: Vec<(Arc<dyn BlockDevice>, Op<'_>)> = requests;
        let results: Vec<Result<(), DeviceError>> = {
            let mut batch: Vec<Request<'_>> = Vec::with_capacity(requests.len());
            for (device, op) in &mut requests {
                let op = std::mem::replace(op, Op::Flush);
                batch.push(Request::new(&**device, op));
            }
            self.runner.run(&mut batch);
            batch.into_iter().map(|request| request.result).collect()
        };
        let mut failed = Vec::new();
        let mut at = 0;
        for (length, result) in lengths.into_iter().zip(results) {
            if let Err(error) = result {
                // One by one: most of them may be readable.
                for piece in &mut pieces[at..at + length] {
                    let again = if length == 1 {
                        Err(error.clone())
                    } else {
                        piece.device.read(piece.offset, piece.bytes)
                    };
                    failed.extend(again.err().map(|error| (piece.tag, error)));
                }
            }
            at += length;
        }
        failed
    }
}
