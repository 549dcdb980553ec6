//! The file system's operations, each a call of the volume and a reply.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::nodes::{Kind, NAME_MAX, Node, Nodes, children, is_presentable, join};
use super::seek;
use crate::{Exports, Target, TargetError};

/// How long the kernel may trust names and attributes: volumes come, go and grow outside of this file system.
const VALID: Duration = Duration::from_secs(1);
/// Largest read or write in one request, bytes; what the kernel's default page limit allows.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background: read-ahead and asynchronous direct I/O.
const MAX_BACKGROUND: u16 = 64;
/// Unit of `statfs` and preferred I/O, bytes.
const BLOCK: u32 = 4096;

const FALLOC_FL_KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const FALLOC_FL_PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const FALLOC_FL_ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

thread_local! {
    /// Where reads of this thread go before they are handed to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system.
#[derive(Debug)]
pub(super) struct VolumeFs {
    exports: Arc<dyn Exports>,
    nodes: Nodes,
    handles: RwLock<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    direct_io: bool,
    owner: (u32, u32),
}

/// An open file or directory.
#[derive(Clone, Debug)]
enum Handle {
    Volume {
        node: Arc<Node>,
        target: Arc<dyn Target>,
    },
    /// What was in the directory when it was opened.
    Directory(Arc<[(u64, Kind, String)]>),
}

impl From<TargetError> for Errno {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Invalid(_) => Self::EINVAL,
            TargetError::NoSpace => Self::ENOSPC,
            TargetError::Io(_) => Self::EIO,
            TargetError::ReadOnly => Self::EROFS,
        }
    }
}

impl VolumeFs {
    pub(super) fn new(exports: Arc<dyn Exports>, direct_io: bool) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            exports,
            nodes: Nodes::new(),
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
            direct_io,
            owner,
        }
    }

    fn node(&self, number: INodeNo) -> Result<Arc<Node>, Errno> {
        self.nodes.get(number.0).ok_or(Errno::ESTALE)
    }

    /// Keeps something open.
    fn hold(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        FileHandle(number)
    }

    fn release_handle(&self, handle: FileHandle) {
        self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }

    fn handle(&self, handle: FileHandle) -> Option<Handle> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned()
    }

    fn volume(&self, handle: FileHandle) -> Result<(Arc<Node>, Arc<dyn Target>), Errno> {
        match self.handle(handle) {
            Some(Handle::Volume { node, target }) => Ok((node, target)),
            _ => Err(Errno::EBADF),
        }
    }

    fn attributes(&self, node: &Node, target: Option<&dyn Target>) -> FileAttr {
        let size = target.map_or(0, Target::size);
        let (kind, perm, nlink) = match target {
            None => (FileType::Directory, 0o700, 2),
            Some(target) if target.read_only() => (FileType::RegularFile, 0o400, 1),
            Some(_) => (FileType::RegularFile, 0o600, 1),
        };
        let changed = node.changed();
        FileAttr {
            ino: INodeNo(node.number),
            size,
            blocks: target.map_or(0, |target| node.allocated(target).div_ceil(512)),
            atime: changed,
            mtime: changed,
            ctime: changed,
            crtime: changed,
            kind,
            perm,
            nlink,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: target.map_or(BLOCK, Target::block_size),
            flags: 0,
        }
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let parent = self.node(parent)?;
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        if parent.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let path = join(&parent.path, name);
        if !is_presentable(&path) {
            return Err(Errno::ENOENT);
        }
        if let Some(target) = self.exports.open(&path) {
            let node = self.nodes.enter(parent.number, path, Kind::Volume);
            return Ok(self.attributes(&node, Some(&*target)));
        }
        match children(&parent.path, &self.exports.names()).get(name) {
            Some(Kind::Directory) => {
                let node = self.nodes.enter(parent.number, path, Kind::Directory);
                Ok(self.attributes(&node, None))
            }
            _ => Err(Errno::ENOENT),
        }
    }

    fn stat(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let node = self.node(number)?;
        if node.kind == Kind::Directory {
            return Ok(self.attributes(&node, None));
        }
        let opened = handle.and_then(|handle| self.volume(handle).ok()).map(|(_, target)| target);
        let target = opened.or_else(|| self.exports.open(&node.path)).ok_or(Errno::ESTALE)?;
        Ok(self.attributes(&node, Some(&*target)))
    }

    fn open_volume(&self, number: INodeNo, flags: OpenFlags) -> Result<(FileHandle, FopenFlags), Errno> {
        let node = self.node(number)?;
        if node.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        let target = self.exports.open(&node.path).ok_or(Errno::ESTALE)?;
        if target.read_only() && flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(Errno::EROFS);
        }
        let mut opened = FopenFlags::FOPEN_NOFLUSH;
        if self.direct_io {
            opened |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        }
        Ok((self.hold(Handle::Volume { node, target }), opened))
    }

    fn list(&self, number: INodeNo) -> Result<FileHandle, Errno> {
        let node = self.node(number)?;
        if node.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let own =
            [(node.number, Kind::Directory, ".".to_owned()), (node.parent, Kind::Directory, "..".to_owned())];
        let found = children(&node.path, &self.exports.names()).into_iter().map(|(name, kind)| {
            let child = self.nodes.enter(node.number, join(&node.path, &name), kind);
            (child.number, kind, name)
        });
        Ok(self.hold(Handle::Directory(own.into_iter().chain(found).collect())))
    }

    fn write_volume(&self, handle: FileHandle, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let (node, target) = self.volume(handle)?;
        within(&*target, offset, data.len() as u64)?;
        target.write(offset, data)?;
        node.touch();
        Ok(data.len() as u32)
    }

    fn allocate(&self, handle: FileHandle, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let (node, target) = self.volume(handle)?;
        if mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE {
            // What lies beyond the end is a hole already.
            let size = target.size();
            let offset = offset.min(size);
            target.discard(offset, length.min(size - offset))?;
        } else if mode & !FALLOC_FL_KEEP_SIZE == FALLOC_FL_ZERO_RANGE {
            within(&*target, offset, length)?;
            target.write_zeroes(offset, length, true)?;
        } else {
            // Among others mode 0: space can't be reserved.
            return Err(Errno::EOPNOTSUPP);
        }
        node.touch();
        Ok(())
    }

    fn flush_volume(&self, handle: FileHandle) -> Result<(), Errno> {
        Ok(self.volume(handle)?.1.flush()?)
    }
}

/// A volume never grows by being written.
fn within(target: &dyn Target, offset: u64, length: u64) -> Result<(), Errno> {
    match offset.checked_add(length) {
        Some(end) if end <= target.size() => Ok(()),
        _ => Err(Errno::EFBIG),
    }
}

fn done(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for VolumeFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each only makes things faster; a kernel that lacks one goes on without.
        for wanted in
            [InitFlags::FUSE_ASYNC_DIO, InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP]
        {
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.stat(number, handle) {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(error) => reply.error(error),
        }
    }

    /// A volume's size, mode and owner are not set here. Times are accepted and forgotten.
    fn setattr(
        &self,
        _request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.stat(number, handle) {
            Err(error) => reply.error(error),
            Ok(now) => {
                let same = mode.is_none_or(|mode| mode & 0o7777 == u32::from(now.perm))
                    && uid.is_none_or(|uid| uid == now.uid)
                    && gid.is_none_or(|gid| gid == now.gid)
                    && size.is_none_or(|size| size == now.size);
                if same { reply.attr(&VALID, &now) } else { reply.error(Errno::EPERM) }
            }
        }
    }

    fn open(&self, _request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_volume(number, flags) {
            Ok((handle, opened)) => reply.opened(handle, opened),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let target = match self.volume(handle) {
            Ok((_, target)) => target,
            Err(error) => return reply.error(error),
        };
        let length = target.size().saturating_sub(offset).min(u64::from(size)) as usize;
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            match target.read(offset, &mut buffer[..length]) {
                Ok(()) => reply.data(&buffer[..length]),
                Err(error) => reply.error(error.into()),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_volume(handle, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    /// Closing makes nothing durable; the kernel need not ask again.
    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.release_handle(handle);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        done(reply, self.flush_volume(handle));
    }

    fn opendir(&self, _request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.list(number) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(Handle::Directory(entries)) = self.handle(handle) else {
            return reply.error(Errno::EBADF);
        };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (number, kind, name)) in entries.iter().enumerate().skip(skip) {
            let kind = match kind {
                Kind::Directory => FileType::Directory,
                Kind::Volume => FileType::RegularFile,
            };
            if reply.add(INodeNo(*number), index as u64 + 1, kind, name) {
                break; // full; the kernel comes back for the rest
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.release_handle(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    /// The size of all volumes together. Free space is the pool's affair, and no volume can grow into it here.
    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        let names = self.exports.names();
        let sizes = names.iter().filter_map(|name| self.exports.open(name)).map(|target| target.size());
        let blocks = sizes.fold(0, u64::saturating_add) / u64::from(BLOCK);
        reply.statfs(blocks, 0, 0, names.len() as u64, 0, BLOCK, NAME_MAX as u32, BLOCK);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(reply, self.allocate(handle, offset, length, mode));
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.volume(handle).and_then(|(_, target)| seek::find(&*target, offset, whence));
        match found {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(error),
        }
    }

    // There are no extended attributes; the kernel need not ask again.

    fn getxattr(&self, _request: &Request, _number: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _number: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    // Volumes are made, renamed and destroyed elsewhere.

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }
}
