//! A buffer of encoded replies that leave in one piece.

use super::handshake::shortened;
use super::protocol::{BASE_ALLOCATION_ID, ErrorNumber, STATE_HOLE_ZERO, chunk, chunk_header, simple_header};
use crate::Run;

/// From this many bytes on the buffer grows to what is needed and no further.
const STEP_MAX: usize = 1 << 20;

/// Encoded replies. Bytes beyond `used` are kept from earlier use, so that room for data read from a volume
/// need not be cleared each time.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    used: usize,
}

impl Replies {
    /// What is to be sent.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    /// Bytes to be sent; also a mark for [`Self::rewind`].
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Forgets what came after the mark.
    pub(super) fn rewind(&mut self, mark: usize) {
        self.used = mark.min(self.used);
    }

    /// Forgets everything, and memory beyond `keep` bytes.
    pub(super) fn clear(&mut self, keep: usize) {
        self.used = 0;
        if self.bytes.len() > keep {
            self.bytes.truncate(keep);
            self.bytes.shrink_to_fit();
        }
    }

    /// Room for `length` more bytes, of unspecified content.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.used;
        self.used += length;
        if self.used > self.bytes.len() {
            // Small ones grow in steps, so that a batch of replies does not grow the buffer again and again.
            let size = if self.used < STEP_MAX { self.used.next_power_of_two() } else { self.used };
            self.bytes.resize(size, 0);
        }
        &mut self.bytes[start..self.used]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// Success without data.
    pub(super) fn done(&mut self, cookie: u64) {
        self.put(&simple_header(cookie, 0));
    }

    /// Failure; structured replies can say why in words.
    pub(super) fn error(&mut self, cookie: u64, structured: bool, number: ErrorNumber, why: &str) {
        if !structured {
            self.put(&simple_header(cookie, number as u32));
            return;
        }
        let why = shortened(why);
        self.put(&chunk_header(cookie, chunk::ERROR, true, 6 + why.len() as u32));
        self.put(&(number as u32).to_be_bytes());
        self.put(&(why.len() as u16).to_be_bytes());
        self.put(why.as_bytes());
    }

    /// A simple reply to a read: the caller fills what is returned.
    pub(super) fn simple_data(&mut self, cookie: u64, length: u32) -> &mut [u8] {
        self.put(&simple_header(cookie, 0));
        self.room(length as usize)
    }

    /// A chunk of data: the caller fills what is returned.
    pub(super) fn data(&mut self, cookie: u64, offset: u64, length: u32, done: bool) -> &mut [u8] {
        self.put(&chunk_header(cookie, chunk::OFFSET_DATA, done, 8 + length));
        self.put(&offset.to_be_bytes());
        self.room(length as usize)
    }

    /// A chunk that says that the range is zeros.
    pub(super) fn hole(&mut self, cookie: u64, offset: u64, length: u32, done: bool) {
        self.put(&chunk_header(cookie, chunk::OFFSET_HOLE, done, 12));
        self.put(&offset.to_be_bytes());
        self.put(&length.to_be_bytes());
    }

    /// A last chunk without content.
    pub(super) fn nothing(&mut self, cookie: u64) {
        self.put(&chunk_header(cookie, chunk::NONE, true, 0));
    }

    /// The answer to a block status request in the context `base:allocation`. Runs are shorter than 4 GiB.
    pub(super) fn block_status(&mut self, cookie: u64, runs: &[Run]) {
        let length = 4 + 8 * runs.len() as u32;
        self.put(&chunk_header(cookie, chunk::BLOCK_STATUS, true, length));
        self.put(&BASE_ALLOCATION_ID.to_be_bytes());
        for run in runs {
            self.put(&(run.length as u32).to_be_bytes());
            self.put(&(if run.hole { STATE_HOLE_ZERO } else { 0 }).to_be_bytes());
        }
    }
}
