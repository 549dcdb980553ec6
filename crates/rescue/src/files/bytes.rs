//! The bytes of a volume as the readers of file systems want them.
//!
//! Readers were made for sound file systems, and some tell of a failed read no more than that it failed. So what went wrong is
//! kept here, and so is how much one call may read: what runs in circles comes to an end.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use device::BlockDevice;

use crate::read_around_losses;

/// Most bytes that one call of a reader may read. The largest folder is far below it.
const CALL_MAX: u64 = 1 << 30;
pub(super) const SECTOR: usize = 512;
/// Small reads fetch so many bytes around them.
const WINDOW: u64 = 64 << 10;
/// How many such windows are kept: tables, folders and files are read in turn.
const WINDOWS_MAX: usize = 8;

/// A volume, at a place for those who read from one on.
#[derive(Clone)]
pub(super) struct Bytes {
    device: Arc<dyn BlockDevice>,
    size: u64,
    position: u64,
    call: Rc<Call>,
}

/// What happened in the call of a reader that is going on.
struct Call {
    left: Cell<u64>,
    error: RefCell<Option<String>>,
    windows: RefCell<VecDeque<(u64, Vec<u8>)>>,
}

impl Bytes {
    pub(super) fn new(device: &Arc<dyn BlockDevice>) -> Result<Self, String> {
        let size = device.size().map_err(|error| error.to_string())?;
        let call =
            Call { left: Cell::new(0), error: RefCell::default(), windows: RefCell::new(VecDeque::new()) };
        Ok(Self { device: Arc::clone(device), size, position: 0, call: Rc::new(call) })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Makes a call of a reader: it may read so much and no more, and it may fail in any way.
    pub(super) fn within<T>(&self, call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        self.begin();
        let result = catch_unwind(AssertUnwindSafe(call));
        let result = result.unwrap_or_else(|_| Err("the reader can't cope with what is there".to_owned()));
        // What could not be read explains more than what the reader makes of it.
        result.map_err(|why| self.call.error.take().unwrap_or(why))
    }

    /// Begins a call that is a part of one that is going on.
    pub(super) fn begin(&self) {
        self.call.left.set(CALL_MAX);
        self.call.error.take();
    }

    /// Fills the buffer from `offset` on.
    pub(super) fn fetch(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.try_fetch(offset, buffer).map_err(|why| {
            self.call.error.borrow_mut().get_or_insert_with(|| why.clone());
            io::Error::other(why)
        })
    }

    /// As [`Bytes::fetch`], for a reader that asks for more than it needs: where only a part can't be read, each sector of that
    /// becomes `mark`.
    pub(super) fn fetch_marked(&self, offset: u64, buffer: &mut [u8], mark: &[u8; SECTOR]) -> io::Result<()> {
        let Err(error) = self.fetch(offset, buffer) else { return Ok(()) };
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size || self.call.left.get() == 0 {
            return Err(error);
        }
        let lost = read_around_losses(&*self.device, offset, buffer);
        if lost.iter().map(|range| range.end - range.start).sum::<u64>() == buffer.len() as u64 {
            return Err(error);
        }
        for at in lost.into_iter().flatten() {
            buffer[(at - offset) as usize] = mark[at as usize % SECTOR];
        }
        Ok(())
    }

    fn try_fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).filter(|end| *end <= self.size);
        let end = end.ok_or_else(|| format!("byte {offset} is behind the volume's end"))?;
        let left = self.call.left.get().checked_sub(length);
        self.call.left.set(left.unwrap_or(0));
        left.ok_or("it runs in circles, or it is larger than it can be")?;
        if length == 0 {
            return Ok(());
        }
        let start = offset / WINDOW * WINDOW;
        if length < WINDOW / 2 && end <= start + WINDOW {
            let mut windows = self.call.windows.borrow_mut();
            let known = windows.iter().position(|(at, _)| *at == start);
            let window = known.and_then(|known| windows.remove(known)).or_else(|| {
                let mut bytes = vec![0; WINDOW.min(self.size - start) as usize];
                self.device.read(start, &mut bytes).is_ok().then_some((start, bytes))
            });
            if let Some((at, bytes)) = window {
                buffer.copy_from_slice(&bytes[(offset - at) as usize..(end - at) as usize]);
                windows.push_front((at, bytes));
                windows.truncate(WINDOWS_MAX);
                return Ok(());
            }
        }
        self.device.read(offset, buffer).map_err(|error| error.to_string())
    }
}

impl lamxfs::BlockRead for Bytes {
    type Error = io::Error;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()> {
        self.fetch(offset_bytes, buf)
    }
}

impl lambutter::BlockRead for Bytes {
    type Error = io::Error;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> io::Result<()> {
        self.fetch(offset_bytes, buf)
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.size.saturating_sub(self.position).min(buffer.len() as u64) as usize;
        self.fetch(self.position, &mut buffer[..length])?;
        self.position += length as u64;
        Ok(length)
    }
}

impl Seek for Bytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::other("a place before the volume's beginning"))?;
        Ok(self.position)
    }
}

/// One of the readers can write, too; it is never asked to.
impl Write for Bytes {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("it is read only"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
