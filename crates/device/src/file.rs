//! Regular files and kernel block devices.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, StatxFlags};
use rustix::io::Errno;

use crate::check::{Target, lock, read_length, write_length};
use crate::direct::{Direct, gather, scatter};
use crate::flock::{self, Lock};
use crate::identity::{self, Identity, mount_point, stable_name, sysfs};
use crate::sys;
use crate::sys::ring::BUFFERS_MAX;
use crate::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};

/// What a device may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading; writes and discards are refused.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A regular file or a block device of the kernel.
///
/// A file is read and written through the page cache, a block device past it where the kernel allows that.
#[derive(Debug)]
pub struct FileDevice {
    info: DeviceInfo,
    file: File,
    access: Access,
    /// Number of the block device; `None` for a file.
    block: Option<u64>,
    direct: Option<Direct>,
}

/// Why a transfer stopped early.
enum Stop {
    Errno(Errno),
    /// The file or device ends there.
    End,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl FileDevice {
    /// Opens `path`, with an exclusive lock to write and a shared one to read.
    ///
    /// # Errors
    /// See [`FileDevice::open_with`].
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self, DeviceError> {
        let lock = if access == Access::ReadWrite { Lock::Exclusive } else { Lock::Shared };
        Self::open_with(path, access, lock)
    }

    /// Opens `path` with the lock of one's choice.
    ///
    /// # Errors
    /// `Unopenable` if there is no such file or block device, if permission is missing, or if the kernel uses
    /// the block device itself; `Busy` if another process has a lock on it.
    pub fn open_with(path: impl AsRef<Path>, access: Access, lock: Lock) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let name = stable_name(path);
        Self::open_named(path, name.clone(), access, lock).map_err(|kind| {
            Target { device: &name, operation: Operation::Open, offset: 0, length: 0 }.error(kind)
        })
    }

    /// Opens `path` to read, as [`FileDevice::open`], and refuses a block device that the kernel uses itself. Unlike with
    /// an exclusive lock it can be opened so more than once.
    ///
    /// # Errors
    /// See [`FileDevice::open_with`].
    pub fn open_idle(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        if let Some(number) = fs::metadata(path)
            .ok()
            .filter(|metadata| metadata.file_type().is_block_device())
            .map(|metadata| metadata.rdev())
        {
            let name = stable_name(path);
            // The claim ends at once: others that rescue may read as well.
            open_block(path, Access::ReadOnly, Lock::Exclusive, number).map_err(|kind| {
                Target { device: &name, operation: Operation::Open, offset: 0, length: 0 }.error(kind)
            })?;
        }
        Self::open(path, Access::ReadOnly)
    }

    /// Creates a sparse file of `size` bytes where there is nothing yet, and opens it to write.
    ///
    /// # Errors
    /// `Unopenable` if there is something already or the file cannot be made; `NoSpace`.
    pub fn create(path: impl AsRef<Path>, size: u64) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let name = path.to_string_lossy().into_owned();
        let target = Target { device: &name, operation: Operation::Open, offset: 0, length: size };
        let make = || -> std::io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.set_len(size)?;
            file.sync_all()?;
            // The name is durable only once the folder is.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        make().map_err(|error| target.error(open_error(&error)))?;
        Self::open(path, Access::ReadWrite)
    }

    /// Makes a regular file `size` bytes long. New bytes are zeros.
    ///
    /// # Errors
    /// As a write; a block device has the size it has.
    pub fn set_size(&self, size: u64) -> Result<(), DeviceError> {
        let target = self.target(Operation::Write, 0, size);
        if self.access == Access::ReadOnly {
            return Err(target.error(DeviceErrorKind::ReadOnly));
        }
        rustix::fs::ftruncate(&self.file, size).map_err(|errno| self.fail(target, errno))
    }

    /// Which file or device it is, as [`identity::identity`] tells it.
    pub fn identity(&self) -> Option<Identity> {
        identity::of_metadata(&self.file.metadata().ok()?)
    }

    fn open_named(path: &Path, name: String, access: Access, lock: Lock) -> Result<Self, DeviceErrorKind> {
        // Looked at before it is opened: opening a pipe would hang, opening a tape would rewind it.
        let metadata = fs::metadata(path).map_err(|error| open_error(&error))?;
        let block = metadata.file_type().is_block_device().then(|| metadata.rdev());
        if block.is_none() && !metadata.is_file() {
            return Err(DeviceErrorKind::Unopenable(
                "it is neither a regular file nor a block device".to_owned(),
            ));
        }
        let (file, direct) = match block {
            None => (open_file(path, access, 0)?, false),
            Some(number) => open_block(path, access, lock, number)?,
        };
        // Between the look and the opening the path may have come to mean something else.
        let opened = file.metadata().map_err(|error| open_error(&error))?;
        if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(DeviceErrorKind::Unopenable("it was replaced while it was being opened".to_owned()));
        }
        flock::acquire(&file, lock, block.is_some())?;
        let (logical, physical, discards) = match block {
            // A file's own unit is the page; nothing hinders smaller requests.
            None => (512, 4096, true),
            Some(number) => {
                let logical = rustix::fs::ioctl_blksszget(&file).map_err(sys::error_kind)?.max(512);
                let physical = rustix::fs::ioctl_blkpbszget(&file).unwrap_or(logical).max(logical);
                (logical, physical, discards(number))
            }
        };
        let direct = direct.then(|| Direct::new(logical, memory_alignment(&file)));
        let info = DeviceInfo {
            name,
            logical_sector: logical,
            physical_sector: physical,
            discards,
            block_device: block.is_some(),
        };
        Ok(Self { info, file, access, block, direct })
    }

    fn target(&self, operation: Operation, offset: u64, length: u64) -> Target<'_> {
        Target { device: &self.info.name, operation, offset, length }
    }

    fn fail(&self, target: Target<'_>, errno: Errno) -> DeviceError {
        target.error(sys::error_kind_on(&self.file, errno))
    }

    fn stopped(&self, target: Target<'_>, stop: Stop) -> DeviceError {
        match (stop, self.size()) {
            (Stop::Errno(errno), _) => self.fail(target, errno),
            (Stop::End, Ok(size)) => target.error(DeviceErrorKind::OutOfRange { size }),
            (Stop::End, Err(error)) => error,
        }
    }

    fn read_pieces(
        &self,
        direct: &Direct,
        target: Target<'_>,
        to: &mut [IoSliceMut<'_>],
    ) -> Result<(), Stop> {
        direct.bounce(|bounce| {
            for piece in direct.pieces(target.offset, target.offset + target.length) {
                let bytes = &mut bounce[..piece.aligned_length()];
                read_all(&self.file, piece.aligned_start, &mut [IoSliceMut::new(bytes)])?;
                scatter(&bytes[piece.inner()], to, (piece.start - target.offset) as usize);
            }
            Ok(())
        })
    }

    fn write_pieces(&self, direct: &Direct, target: Target<'_>, from: &[IoSlice<'_>]) -> Result<(), Stop> {
        let end = target.offset + target.length;
        let aligned = target.offset.is_multiple_of(direct.sector) && end.is_multiple_of(direct.sector);
        let _edges = (!aligned).then(|| lock(&direct.edges));
        direct.bounce(|bounce| {
            for piece in direct.pieces(target.offset, end) {
                let bytes = &mut bounce[..piece.aligned_length()];
                if !piece.is_aligned() {
                    read_all(&self.file, piece.aligned_start, &mut [IoSliceMut::new(bytes)])?;
                }
                gather(&mut bytes[piece.inner()], from, (piece.start - target.offset) as usize);
                write_all(&self.file, piece.aligned_start, &[IoSlice::new(bytes)])?;
            }
            Ok(())
        })
    }
}

impl BlockDevice for FileDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        let size = match self.block {
            Some(_) => sys::block_size(&self.file),
            None => rustix::fs::fstat(&self.file).map(|stat| stat.st_size.max(0) as u64),
        };
        size.map_err(|errno| self.fail(self.target(Operation::Open, 0, 0), errno))
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let target = self.target(Operation::Read, offset, read_length(buffers));
        // The end shows itself in a short read, except where nothing is read or the numbers are absurd.
        if target.length == 0 || offset > i64::MAX as u64 - target.length.min(i64::MAX as u64) {
            return target.require_within(self.size()?);
        }
        let done = match &self.direct {
            Some(direct)
                if !offset.is_multiple_of(direct.sector) || !buffers.iter().all(|b| direct.takes(b)) =>
            {
                self.read_pieces(direct, target, buffers)
            }
            _ => read_all(&self.file, offset, buffers),
        };
        done.map_err(|stop| self.stopped(target, stop))
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let target = self.target(Operation::Write, offset, write_length(buffers));
        if self.access == Access::ReadOnly {
            return Err(target.error(DeviceErrorKind::ReadOnly));
        }
        // Asked every time: a write behind the end would grow a file, and if somebody has cut it short the
        // gap would read as zeros, which look like data.
        target.require_within(self.size()?)?;
        let done = match &self.direct {
            Some(direct)
                if !offset.is_multiple_of(direct.sector) || !buffers.iter().all(|b| direct.takes(b)) =>
            {
                self.write_pieces(direct, target, buffers)
            }
            _ => write_all(&self.file, offset, buffers),
        };
        done.map_err(|stop| self.stopped(target, stop))
    }

    fn flush(&self) -> Result<(), DeviceError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        let target = self.target(Operation::Flush, 0, 0);
        retry(|| rustix::fs::fdatasync(&self.file)).map_err(|errno| self.fail(target, errno))
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        let target = self.target(Operation::Discard, offset, length);
        if self.access == Access::ReadOnly {
            return Err(target.error(DeviceErrorKind::ReadOnly));
        }
        target.require_within(self.size()?)?;
        // Only whole sectors can be forgotten.
        let sector = u64::from(self.info.logical_sector);
        let (start, end) = match self.block {
            Some(_) => (offset.div_ceil(sector) * sector, (offset + length) / sector * sector),
            None => (offset, offset + length),
        };
        if start >= end {
            return Ok(());
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let done = retry(|| {
            if self.block.is_some() {
                sys::block_discard(&self.file, start, end - start)
            } else {
                rustix::fs::fallocate(&self.file, hole, start, end - start)
            }
        });
        done.map_err(|errno| self.fail(target, errno))
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }

    fn raw_alignment(&self) -> u32 {
        self.direct.as_ref().map_or(1, |direct| (direct.sector as u32).max(direct.memory as u32))
    }
}

/// Calls again for as long as signals interrupt.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Fills all buffers, however little the kernel gives at a time.
fn read_all(file: impl AsFd, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), Stop> {
    let mut at = offset;
    for group in buffers.chunks_mut(BUFFERS_MAX) {
        let end = at + read_length(group);
        let group_start = at;
        while at < end {
            let skip = (at - group_start) as usize;
            let count = if skip == 0 {
                retry(|| rustix::io::preadv(&file, group, at))?
            } else {
                let mut rest = rest_of_read(group, skip);
                retry(|| rustix::io::preadv(&file, &mut rest, at))?
            };
            if count == 0 {
                return Err(Stop::End);
            }
            at += count as u64;
        }
    }
    Ok(())
}

/// Writes all buffers, however little the kernel takes at a time.
fn write_all(file: impl AsFd, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), Stop> {
    let mut at = offset;
    for group in buffers.chunks(BUFFERS_MAX) {
        let end = at + write_length(group);
        let group_start = at;
        while at < end {
            let skip = (at - group_start) as usize;
            let count = if skip == 0 {
                retry(|| rustix::io::pwritev(&file, group, at))?
            } else {
                retry(|| rustix::io::pwritev(&file, &rest_of_write(group, skip), at))?
            };
            if count == 0 {
                return Err(Stop::End);
            }
            at += count as u64;
        }
    }
    Ok(())
}

/// The buffers without their first `skip` bytes.
fn rest_of_read<'a>(buffers: &'a mut [IoSliceMut<'_>], mut skip: usize) -> Vec<IoSliceMut<'a>> {
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let gone = skip.min(buffer.len());
        skip -= gone;
        if gone < buffer.len() {
            rest.push(IoSliceMut::new(&mut buffer[gone..]));
        }
    }
    rest
}

/// The buffers without their first `skip` bytes.
fn rest_of_write<'a>(buffers: &'a [IoSlice<'_>], mut skip: usize) -> Vec<IoSlice<'a>> {
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let gone = skip.min(buffer.len());
        skip -= gone;
        if gone < buffer.len() {
            rest.push(IoSlice::new(&buffer[gone..]));
        }
    }
    rest
}

fn open_error(error: &std::io::Error) -> DeviceErrorKind {
    match Errno::from_io_error(error).map(sys::error_kind) {
        Some(kind @ DeviceErrorKind::NoSpace) => kind,
        _ => DeviceErrorKind::Unopenable(error.to_string()),
    }
}

fn open_file(path: &Path, access: Access, flags: i32) -> Result<File, DeviceErrorKind> {
    let open = |flags: i32| {
        OpenOptions::new().read(true).write(access == Access::ReadWrite).custom_flags(flags).open(path)
    };
    // Whoever only reads leaves no traces, if the file is theirs.
    let quiet = if access == Access::ReadOnly { libc::O_NOATIME } else { 0 };
    match open(flags | quiet) {
        Err(error) if quiet != 0 && error.raw_os_error() == Some(libc::EPERM) => open(flags),
        other => other,
    }
    .map_err(|error| open_error(&error))
}

/// Opens a block device, past the page cache if that works (the second value tells).
fn open_block(path: &Path, access: Access, lock: Lock, number: u64) -> Result<(File, bool), DeviceErrorKind> {
    // On a block device O_EXCL claims it against mounts, md, device mapper and other claims.
    let claim = if lock == Lock::Exclusive { libc::O_EXCL } else { 0 };
    let open = |flags: i32| {
        OpenOptions::new().read(true).write(access == Access::ReadWrite).custom_flags(flags).open(path)
    };
    let (opened, direct) = match open(claim | libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(claim), false),
        other => (other, true),
    };
    match opened {
        Ok(file) => Ok((file, direct)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(why_busy(path, number)),
        Err(error) => Err(open_error(&error)),
    }
}

/// A block device is claimed: by a process with a lock, by a mount, or by something else in the kernel.
fn why_busy(path: &Path, number: u64) -> DeviceErrorKind {
    if let Ok(file) = open_file(path, Access::ReadOnly, 0)
        && let Err(busy @ DeviceErrorKind::Busy { .. }) = flock::acquire(&file, Lock::Shared, false)
    {
        return busy;
    }
    DeviceErrorKind::Unopenable(match mount_point(number) {
        Some(place) => format!("it is mounted at {place}; unmount it first"),
        None => {
            "the system uses it (mounted, swap, or part of an md, device-mapper or other array)".to_owned()
        }
    })
}

/// Whether a block device, or the disk of a partition, can discard.
fn discards(number: u64) -> bool {
    let folder = sysfs(number);
    ["queue/discard_max_bytes", "../queue/discard_max_bytes"].iter().any(|file| {
        fs::read_to_string(folder.join(file))
            .is_ok_and(|text| text.trim().parse().is_ok_and(|max: u64| max > 0))
    })
}

/// The alignment in memory that direct transfers need, bytes; 0 if the kernel does not tell.
fn memory_alignment(file: &File) -> u32 {
    rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).map_or(0, |stat| {
        if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN) {
            stat.stx_dio_mem_align
        } else {
            0
        }
    })
}
