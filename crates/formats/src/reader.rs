//! Reads the places where signatures may be, few and large reads first.

use std::borrow::Cow;
use std::cell::RefCell;

use device::{BlockDevice, DeviceError};

/// All of what is near the beginning: up to the end of the second ZFS label.
const HEAD: u64 = 512 << 10;
/// All of what is near the end: the last two ZFS labels, which begin at a multiple of 256 KiB.
const TAIL: u64 = 768 << 10;

/// A device being looked at.
///
/// Parsers want bytes or nothing, so the first failed read is kept here, and reported when all is done.
pub(crate) struct Reader<'a> {
    device: &'a dyn BlockDevice,
    size: u64,
    /// What was read in advance: where it begins, and the bytes.
    known: Vec<(u64, Vec<u8>)>,
    error: RefCell<Option<DeviceError>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(device: &'a dyn BlockDevice) -> Result<Self, DeviceError> {
        let size = device.size()?;
        let mut reader = Self { device, size, known: Vec::new(), error: RefCell::new(None) };
        let head = HEAD.min(size);
        let tail = size.saturating_sub(TAIL).max(head);
        for range in [0..head, tail..size] {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            // Where this fails each structure is read by itself, and most may well be whole.
            if !bytes.is_empty() && device.read(range.start, &mut bytes).is_ok() {
                reader.known.push((range.start, bytes));
            }
        }
        Ok(reader)
    }

    /// The device's size, bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes there; `None` if the device ends before, or if they can't be read.
    pub(crate) fn at(&self, offset: u64, length: usize) -> Option<Cow<'_, [u8]>> {
        let end = offset.checked_add(length as u64)?;
        if end > self.size {
            return None;
        }
        for (start, bytes) in &self.known {
            if let Some(skip) = offset.checked_sub(*start)
                && let Some(bytes) = bytes.get(skip as usize..).and_then(|bytes| bytes.get(..length))
            {
                return Some(bytes.into());
            }
        }
        let mut bytes = vec![0; length];
        match self.device.read(offset, &mut bytes) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                None
            }
        }
    }

    /// As [`Reader::at`], counted back from the end of the device.
    pub(crate) fn before_end(&self, distance: u64, length: usize) -> Option<Cow<'_, [u8]>> {
        self.at(self.size.checked_sub(distance)?, length)
    }

    /// The first read that failed, if any did.
    pub(crate) fn finish(self) -> Result<(), DeviceError> {
        self.error.into_inner().map_or(Ok(()), Err)
    }
}
