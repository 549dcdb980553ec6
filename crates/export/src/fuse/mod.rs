//! A FUSE file system that shows volumes as files.
//!
//! [`mount`] starts it; the kernel's requests go: event loop threads of `fuser` -> `filesystem` ->
//! [`Target`](crate::Target). `nodes` has names and inode numbers, `seek` finds data and holes.
//!
//! A volume is a regular file of fixed size, mode 0600, or 0400 where it is read-only (snapshots); `/` in
//! names makes directories. The files are made for loop devices and for programs that work on images, so
//! they are cached by the kernel unless asked otherwise, written through at once, and durable after `fsync`.
//! They can't be truncated: write to them without `O_TRUNC` (`dd conv=notrunc`).

mod filesystem;
mod nodes;
mod seek;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use self::filesystem::VolumeFs;
use crate::{Exports, ServeError};

/// Read-ahead that is set where the system allows, KiB: one full request.
const READ_AHEAD_KIB: &str = "1024";

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuseOptions {
    /// Threads that serve requests; at least one. Each waits for the volume while it reads or writes.
    pub threads: usize,
    /// Users other than the mounting one may enter; file modes and owners still hold for them.
    pub allow_other: bool,
    /// Nothing can be written.
    pub read_only: bool,
    /// The kernel caches nothing: for volumes that are written from elsewhere (NBD) at the same time. Loop
    /// devices work with it as well.
    pub direct_io: bool,
    /// Shown as the source in the list of mounts.
    pub source: String,
}

impl Default for FuseOptions {
    fn default() -> Self {
        Self {
            threads: 8,
            allow_other: false,
            read_only: false,
            direct_io: false,
            source: "cofferdam".to_owned(),
        }
    }
}

/// Shows `exports` under `directory`, which must exist. Returns once it is mounted.
///
/// # Errors
/// The directory can't be mounted on, or FUSE is not available or not permitted.
pub fn mount(
    directory: &Path,
    exports: Arc<dyn Exports>,
    options: &FuseOptions,
) -> Result<FuseSession, ServeError> {
    let failed = |source| ServeError::Mount { directory: directory.to_owned(), source };
    let directory = directory.canonicalize().map_err(failed)?;
    // The kernel would take a file, too, and nobody could use what is there.
    if !directory.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.source.replace(',', "_")), // a comma would start another option
        MountOption::Subtype("cofferdam".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::NoAtime,
        if options.read_only { MountOption::RO } else { MountOption::RW },
    ];
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let file_system = VolumeFs::new(exports, options.direct_io);
    let background = fuser::spawn_mount(file_system, &directory, &config).map_err(failed)?;
    let mut session =
        FuseSession { mount: MountPoint { directory, device: 0 }, background: Some(background) };
    session.mount.device = device_of(&session.mount.directory).map_err(failed)?;
    raise_read_ahead(session.mount.device);
    Ok(session)
}

/// A mounted file system. Dropping it unmounts; if it is in use then, it is detached from the tree and
/// served on in the background until its last user closes it.
#[derive(Debug)]
pub struct FuseSession {
    mount: MountPoint,
    background: Option<BackgroundSession>,
}

/// Unmounts a file system from another thread.
#[derive(Clone, Debug)]
pub struct FuseHandle(MountPoint);

impl FuseHandle {
    /// Unmounts, if it is still mounted.
    ///
    /// # Errors
    /// It is in use, or the system refuses.
    pub fn unmount(&self) -> Result<(), ServeError> {
        self.0.unmount()
    }
}

impl FuseSession {
    /// Where it is mounted.
    pub fn directory(&self) -> &Path {
        &self.mount.directory
    }

    /// Something to unmount it with.
    pub fn handle(&self) -> FuseHandle {
        FuseHandle(self.mount.clone())
    }

    /// Whether it has been unmounted, by whomever.
    pub fn has_ended(&self) -> bool {
        self.background.as_ref().is_none_or(|background| background.guard.is_finished())
    }

    /// Unmounts and waits for the threads to end. After an error it is as mounted as before.
    ///
    /// # Errors
    /// It is in use, or the system refuses.
    pub fn stop(&mut self) -> Result<(), ServeError> {
        self.mount.unmount()?;
        self.join()
    }

    /// Waits until it is unmounted, by whomever.
    ///
    /// # Errors
    /// Serving it failed.
    pub fn wait(mut self) -> Result<(), ServeError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), ServeError> {
        let outcome = self.background.take().map_or(Ok(()), BackgroundSession::join);
        outcome.map_err(|source| self.mount.failed(source))
    }
}

impl Drop for FuseSession {
    fn drop(&mut self) {
        let Some(background) = self.background.take() else { return };
        if self.mount.unmount().is_ok() {
            let _ = background.join(); // nobody is left to be told
        } else if self.mount.is_mounted() {
            let _ = unmount(&self.mount.directory, UnmountFlags::DETACH);
            // Dropped, it would unmount whatever is mounted there next. Its threads end with the last user.
            std::mem::forget(background);
        }
    }
}

/// A directory and the device number that our file system has there.
#[derive(Clone, Debug)]
struct MountPoint {
    directory: PathBuf,
    device: u64,
}

impl MountPoint {
    fn failed(&self, source: io::Error) -> ServeError {
        ServeError::Unmount { directory: self.directory.clone(), source }
    }

    /// Whether what is mounted there is ours.
    fn is_mounted(&self) -> bool {
        device_of(&self.directory).is_ok_and(|device| device == self.device)
    }

    fn unmount(&self) -> Result<(), ServeError> {
        if !self.is_mounted() {
            return Ok(());
        }
        match unmount(&self.directory, UnmountFlags::empty()) {
            Ok(()) => Ok(()),
            // Users other than root go through the helper that mounted it for them.
            Err(Errno::PERM) => self.unmount_by_helper(),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn unmount_by_helper(&self) -> Result<(), ServeError> {
        for helper in ["fusermount3", "fusermount"] {
            let mut command = Command::new(helper);
            command.args(["-u", "--"]).arg(&self.directory).stdin(Stdio::null());
            match command.output() {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => {
                    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    return Err(self.failed(io::Error::other(said)));
                }
                Err(_) => {}
            }
        }
        Err(self.failed(io::Error::other("neither fusermount3 nor fusermount is installed")))
    }
}

fn device_of(directory: &Path) -> io::Result<u64> {
    std::fs::metadata(directory).map(|found| found.dev())
}

/// The kernel's default read-ahead is an eighth of what one request can carry. Only root may change that.
fn raise_read_ahead(device: u64) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let _ = std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB);
}
