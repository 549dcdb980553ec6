//! The memory that the columns lie in.

use crate::ffi;

/// How far apart columns are beyond their length, bytes.
pub const DISPLACED: usize = 1856;
/// Columns a power of two apart: all their lines compete for the same cache sets.
pub const ALIGNED: usize = 0;

/// A large block of memory, aligned to a huge page and backed by huge pages if the system grants them.
pub struct Arena {
    memory: Vec<u8>,
    start: usize,
}

impl Arena {
    const HUGE_PAGE: usize = 2 << 20;

    /// An arena of `size` usable bytes filled with noise.
    pub fn new(size: usize, huge_pages: bool) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(size + Self::HUGE_PAGE);
        let start = memory.as_ptr().align_offset(Self::HUGE_PAGE);
        if huge_pages {
            ffi::ask_for_huge_pages(memory.as_ptr(), memory.capacity());
        }
        let mut x = 88_172_645_463_325_252_u64;
        while memory.len() < size + start {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            memory.extend_from_slice(&x.to_le_bytes());
        }
        Self { memory, start }
    }

    /// All of it.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// The first `count` columns of `length` bytes, `length + padding` bytes apart.
    pub fn columns(&mut self, count: usize, length: usize, padding: usize) -> Vec<&mut [u8]> {
        self.bytes().chunks_mut(length + padding).take(count).map(|column| &mut column[..length]).collect()
    }
}
