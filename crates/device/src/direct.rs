//! Requests as a device opened with `O_DIRECT` wants them: aligned on disk and in memory.

use std::io::{IoSlice, IoSliceMut};
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use crate::check::lock;

/// Largest piece that goes through a bounce buffer at once.
pub(crate) const BOUNCE: u64 = 1 << 20;
/// Every Linux device is content with buffers on page boundaries.
const PAGE: usize = 4096;

/// Bytes that begin on a page boundary, so that any device takes them without copying.
#[derive(Debug)]
pub struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `length` zero bytes.
    pub fn new(length: usize) -> Self {
        let storage = vec![0; length + PAGE];
        // The documentation allows `align_offset` to give up with `usize::MAX`; the bytes are then merely not
        // aligned, which costs a copy later.
        let start = storage.as_ptr().align_offset(PAGE).min(PAGE);
        Self { storage, start, length }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

/// What a device wants to be aligned to, and buffers for requests that are not.
#[derive(Debug)]
pub(crate) struct Direct {
    /// Unit of offsets and lengths, bytes: the logical sector.
    pub(crate) sector: u64,
    /// Unit of addresses, bytes.
    pub(crate) memory: usize,
    spare: Mutex<Vec<AlignedBuffer>>,
    /// Held while a sector is read, changed and written back, so that two such writes don't undo each other.
    pub(crate) edges: Mutex<()>,
}

impl Direct {
    pub(crate) fn new(sector: u32, memory: u32) -> Self {
        // Zero would mean that the kernel does not tell.
        let memory = if memory == 0 { sector } else { memory };
        Self {
            sector: u64::from(sector.max(1)),
            memory: memory as usize,
            spare: Mutex::default(),
            edges: Mutex::default(),
        }
    }

    /// Whether a buffer may go to the kernel as it is.
    pub(crate) fn takes(&self, buffer: &[u8]) -> bool {
        (buffer.len() as u64).is_multiple_of(self.sector)
            && buffer.as_ptr().addr().is_multiple_of(self.memory)
    }

    /// Runs `work` with a buffer of [`BOUNCE`] bytes.
    pub(crate) fn bounce<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let spare = lock(&self.spare).pop();
        let mut buffer = spare.unwrap_or_else(|| AlignedBuffer::new(BOUNCE as usize));
        let result = work(&mut buffer);
        lock(&self.spare).push(buffer);
        result
    }

    /// Cuts `offset..end` into pieces, each with the aligned range of at most [`BOUNCE`] bytes around it.
    pub(crate) fn pieces(&self, offset: u64, end: u64) -> impl Iterator<Item = Piece> {
        let sector = self.sector;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let aligned_start = at / sector * sector;
            let stop = end.min(aligned_start + BOUNCE);
            let piece =
                Piece { start: at, end: stop, aligned_start, aligned_end: stop.div_ceil(sector) * sector };
            at = stop;
            Some(piece)
        })
    }
}

/// A part of a request and the aligned range around it, bytes on the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) aligned_start: u64,
    pub(crate) aligned_end: u64,
}

impl Piece {
    /// Where the part lies in a bounce buffer.
    pub(crate) fn inner(&self) -> std::ops::Range<usize> {
        (self.start - self.aligned_start) as usize..(self.end - self.aligned_start) as usize
    }

    /// Bytes of the aligned range.
    pub(crate) fn aligned_length(&self) -> usize {
        (self.aligned_end - self.aligned_start) as usize
    }

    pub(crate) fn is_aligned(&self) -> bool {
        self.start == self.aligned_start && self.end == self.aligned_end
    }
}

/// Copies `bytes` into the buffers, `skip` bytes after their beginning.
pub(crate) fn scatter(bytes: &[u8], buffers: &mut [IoSliceMut<'_>], mut skip: usize) {
    let mut rest = bytes;
    for buffer in buffers {
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let part = &mut buffer[skip..];
        let count = part.len().min(rest.len());
        part[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        skip = 0;
        if rest.is_empty() {
            break;
        }
    }
}

/// Fills `bytes` from the buffers, `skip` bytes after their beginning.
pub(crate) fn gather(bytes: &mut [u8], buffers: &[IoSlice<'_>], mut skip: usize) {
    let mut done = 0;
    for buffer in buffers {
        if skip >= buffer.len() {
            skip -= buffer.len();
            continue;
        }
        let part = &buffer[skip..];
        let count = part.len().min(bytes.len() - done);
        bytes[done..done + count].copy_from_slice(&part[..count]);
        done += count;
        skip = 0;
        if done == bytes.len() {
            break;
        }
    }
}
