//! Disks of the demo: files that can be pulled out while they are in use.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, FileDevice, Operation, Rng};

use crate::error::{Failure, Outcome};

/// Bytes overwritten at a time.
const STEP: usize = 1 << 20;

/// A file that serves as a disk.
#[derive(Debug)]
pub(crate) struct Disk {
    file: FileDevice,
    path: PathBuf,
    gone: AtomicBool,
}

impl Disk {
    /// Makes the file, which must not be there yet.
    ///
    /// # Errors
    /// It is, or can't be made.
    pub(crate) fn create(path: &Path, size: u64) -> Outcome<Arc<Self>> {
        let file = FileDevice::create(path, size)?;
        Ok(Arc::new(Self { file, path: path.to_owned(), gone: AtomicBool::new(false) }))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on every request fails, as on a disk that was pulled.
    pub(crate) fn pull(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    /// As if it had been put back.
    #[cfg(test)]
    pub(crate) fn put_back(&self) {
        self.gone.store(false, Ordering::SeqCst);
    }

    /// Overwrites ranges of the file with noise, behind the pool's back.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn overwrite(&self, ranges: &[std::ops::Range<u64>], rng: &mut Rng) -> Outcome {
        let doing = || format!("overwrite {}", self.path.display());
        let mut file = OpenOptions::new().write(true).open(&self.path).map_err(Failure::io(doing()))?;
        let mut noise = vec![0; STEP];
        rng.fill(&mut noise);
        let mut write = |file: &mut File, range: &std::ops::Range<u64>| {
            file.seek(SeekFrom::Start(range.start))?;
            let mut left = range.end.saturating_sub(range.start) as usize;
            while left > 0 {
                let step = left.min(noise.len());
                file.write_all(&noise[..step])?;
                // Different noise each time, without drawing all of it anew.
                noise.rotate_left(4099);
                left -= step;
            }
            Ok(())
        };
        ranges.iter().try_for_each(|range| write(&mut file, range)).map_err(Failure::io(doing()))
    }

    /// An error if the disk was pulled.
    fn present(&self, operation: Operation, offset: u64, length: usize) -> Result<(), DeviceError> {
        if !self.gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        let device = self.info().name.clone();
        Err(DeviceError { device, operation, offset, length: length as u64, kind: DeviceErrorKind::Gone })
    }
}

impl BlockDevice for Disk {
    fn info(&self) -> &DeviceInfo {
        self.file.info()
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.present(Operation::Open, 0, 0)?;
        self.file.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.present(Operation::Read, offset, buffers.iter().map(|buffer| buffer.len()).sum())?;
        self.file.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.present(Operation::Write, offset, buffers.iter().map(|buffer| buffer.len()).sum())?;
        self.file.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.present(Operation::Flush, 0, 0)?;
        self.file.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.present(Operation::Discard, offset, length as usize)?;
        self.file.discard(offset, length)
    }
}
