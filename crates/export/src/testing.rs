//! A volume in memory for tests and measurements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Run, Target, TargetError};

/// Bytes of one page: what is allocated, and freed, as a whole.
pub const PAGE: u64 = 64 * 1024;

type Page = RwLock<Option<Box<[u8]>>>;

/// A sparse volume in memory. Pages that were never written, or were discarded whole, take no space.
#[derive(Debug)]
pub struct MemoryTarget {
    pages: Vec<Page>,
    size: u64,
    read_only: bool,
    flushes: AtomicU64,
}

impl MemoryTarget {
    /// A volume of `size` bytes, all holes.
    pub fn new(size: u64) -> Self {
        let pages = (0..size.div_ceil(PAGE)).map(|_| Page::default()).collect();
        Self { pages, size, read_only: false, flushes: AtomicU64::new(0) }
    }

    /// The same volume, refusing writes from now on.
    #[must_use]
    pub fn into_read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// How often it was flushed.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    /// Bytes of memory in use for data.
    pub fn allocated(&self) -> u64 {
        self.pages.iter().filter(|page| read(page).is_some()).count() as u64 * PAGE
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(TargetError::Invalid(format!(
                "{length} bytes at offset {offset} do not lie within the volume of {} bytes",
                self.size
            ))),
        }
    }

    /// Calls `each` with page, start within the page and length for every page the range touches.
    fn walk(
        &self,
        offset: u64,
        length: u64,
        mut each: impl FnMut(&Page, usize, usize),
    ) -> Result<(), TargetError> {
        self.check(offset, length)?;
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let start = at % PAGE;
            let piece = (PAGE - start).min(end - at);
            each(&self.pages[(at / PAGE) as usize], start as usize, piece as usize);
            at += piece;
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), TargetError> {
        if self.read_only { Err(TargetError::ReadOnly) } else { Ok(()) }
    }
}

fn read(page: &Page) -> RwLockReadGuard<'_, Option<Box<[u8]>>> {
    page.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(page: &Page) -> RwLockWriteGuard<'_, Option<Box<[u8]>>> {
    page.write().unwrap_or_else(PoisonError::into_inner)
}

fn empty_page() -> Box<[u8]> {
    vec![0; PAGE as usize].into_boxed_slice()
}

impl Target for MemoryTarget {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        let mut rest = &mut *buffer;
        self.walk(offset, rest.len() as u64, |page, start, length| {
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(length);
            rest = tail;
            match read(page).as_deref() {
                Some(bytes) => piece.copy_from_slice(&bytes[start..start + length]),
                None => piece.fill(0),
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.writable()?;
        let mut rest = data;
        self.walk(offset, data.len() as u64, |page, start, length| {
            let (piece, tail) = rest.split_at(length);
            rest = tail;
            write(page).get_or_insert_with(empty_page)[start..start + length].copy_from_slice(piece);
        })
    }

    fn flush(&self) -> Result<(), TargetError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.write_zeroes(offset, length, false)
    }

    fn write_zeroes(&self, offset: u64, length: u64, keep_allocated: bool) -> Result<(), TargetError> {
        self.writable()?;
        self.walk(offset, length, |page, start, length| {
            let mut page = write(page);
            if keep_allocated {
                page.get_or_insert_with(empty_page)[start..start + length].fill(0);
            } else if length as u64 == PAGE {
                *page = None;
            } else if let Some(bytes) = page.as_mut() {
                bytes[start..start + length].fill(0);
            }
        })
    }

    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError> {
        let mut runs: Vec<Run> = Vec::new();
        let mut ended = false;
        self.walk(offset, length, |page, _, length| {
            let hole = read(page).is_none();
            let full = runs.len() >= limit;
            match runs.last_mut() {
                _ if ended => {}
                Some(last) if last.hole == hole => last.length += length as u64,
                _ if full => ended = true,
                _ => runs.push(Run { length: length as u64, hole }),
            }
        })?;
        Ok(runs)
    }

    fn cheap_zeroes(&self) -> bool {
        true
    }
}
