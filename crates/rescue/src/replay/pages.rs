//! A member with pages of a log over it.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

use super::PAGE;

/// Where the bytes of a page are.
#[derive(Clone, Debug)]
pub(super) enum Page {
    /// There on the journal's disk.
    On(Arc<dyn BlockDevice>, u64),
    /// Here: it was computed.
    Here(Arc<[u8]>),
}

/// Pages by their places, bytes from the beginning of a member's data.
pub(super) type Pages = BTreeMap<u64, Page>;

/// A member with pages over it, the first of them uppermost.
#[derive(Debug)]
pub(crate) struct Patched {
    info: DeviceInfo,
    below: Option<Arc<dyn BlockDevice>>,
    /// Where the member's data begins, bytes.
    start: u64,
    over: Vec<Pages>,
}

impl Patched {
    pub(super) fn new(below: Option<Arc<dyn BlockDevice>>, start: u64, over: Vec<Pages>) -> Self {
        let info = below.as_ref().map_or_else(
            || DeviceInfo {
                name: "a missing member".to_owned(),
                logical_sector: 512,
                physical_sector: PAGE as u32,
                discards: false,
                block_device: false,
            },
            |below| below.info().clone(),
        );
        Self { info, below, start, over }
    }

    /// Whether any of its uppermost pages lies in a range of the member's data.
    pub(crate) fn covers(&self, range: Range<u64>) -> bool {
        let uppermost = self.over.first();
        uppermost.is_some_and(|pages| pages.range(range.start / PAGE * PAGE..range.end).next().is_some())
    }

    fn error(&self, operation: Operation, offset: u64, length: u64, kind: DeviceErrorKind) -> DeviceError {
        DeviceError { device: self.info.name.clone(), operation, offset, length, kind }
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DeviceError> {
        let end = offset + buffer.len() as u64;
        let any = |pages: &Pages| {
            let first = offset.saturating_sub(self.start) / PAGE * PAGE;
            end > self.start && pages.range(first..end - self.start).next().is_some()
        };
        let mut at = offset;
        let patched = self.over.iter().any(any);
        while at < end {
            let page = at.checked_sub(self.start).map(|within| within / PAGE * PAGE);
            let next = match page {
                _ if !patched => end,
                Some(page) => (self.start + page + PAGE).min(end),
                None => self.start.min(end),
            };
            let part = &mut buffer[(at - offset) as usize..(next - offset) as usize];
            let over = page.and_then(|page| self.over.iter().find_map(|pages| pages.get(&page)));
            match (over, &self.below) {
                (Some(Page::Here(bytes)), _) => {
                    let within = ((at - self.start) % PAGE) as usize;
                    part.copy_from_slice(&bytes[within..within + part.len()]);
                }
                (Some(Page::On(disk, place)), _) => disk.read(place + (at - self.start) % PAGE, part)?,
                (None, Some(below)) => below.read(at, part)?,
                (None, None) => {
                    let kind =
                        DeviceErrorKind::Io("it is missing, and the journal does not have this".to_owned());
                    return Err(self.error(Operation::Read, at, next - at, kind));
                }
            }
            at = next;
        }
        Ok(())
    }
}

impl BlockDevice for Patched {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.below.as_ref().map_or(Ok(u64::MAX), |below| below.size())
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let mut at = offset;
        for buffer in buffers {
            let length = buffer.len() as u64;
            if at.checked_add(length).is_none() {
                let size = self.size()?;
                return Err(self.error(Operation::Read, at, length, DeviceErrorKind::OutOfRange { size }));
            }
            self.fill(at, buffer)?;
            at += length;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, _: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        Err(self.error(Operation::Write, offset, 0, DeviceErrorKind::ReadOnly))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        Err(self.error(Operation::Discard, offset, length, DeviceErrorKind::ReadOnly))
    }
}
