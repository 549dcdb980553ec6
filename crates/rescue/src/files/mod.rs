//! Copies files out of a file system without mounting it.
//!
//! ```text
//! device -> bytes (what a call may read, what failed) -> a reader: ext, xfs, btrfs, ntfs, fat, exfat
//!     -> walk: folders, links and files into a folder; what is lost by its name
//! ```
//!
//! The readers are crates that were made for sound file systems: whatever they do with a damaged one is caught and told, in
//! bounded memory. Where there is none, it is said how to get at the files.

mod btrfs;
mod bytes;
mod exfat;
mod ext;
mod fat;
mod ntfs;
mod walk;
mod xfs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::BlockDevice;
use formats::Kind;
use serde::Serialize;

use bytes::Bytes;

/// What came of copying files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Files that were copied whole.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Folders.
    pub folders: u64,
    /// Links.
    pub links: u64,
    /// What was lost, and why.
    pub lost: Vec<LostFile>,
    /// What was left out, and why: devices, pipes, names that no file may have.
    pub skipped: Vec<LostFile>,
    /// What else is to be known of all of it.
    pub notes: Vec<String>,
}

/// A file that is not there, or not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostFile {
    /// Its path in the file system.
    pub path: String,
    /// Why.
    pub why: String,
}

/// Why files could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// No reader for what is there.
    #[error("files of {found} can't be copied out here; {advice}")]
    NoReader {
        /// What is there.
        found: String,
        /// How to get at it without changing it.
        advice: String,
    },
    /// The file system can't be opened.
    #[error(
        "the file system can't be opened: {why}; {advice}, or serve it with --overlay and try its own repair tool"
    )]
    Unusable {
        /// What is wrong.
        why: String,
        /// How to get at it without changing it.
        advice: String,
    },
    /// The folder for the copies can't be written.
    #[error("cannot write {}: {error}", path.display())]
    Output {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// How to get at what lies on a volume by the tools of the system, without changing it.
fn advice(kind: Option<Kind>) -> String {
    let mount = |options: &str| {
        format!("serve the volume with --fuse DIR and mount it: mount -o {options} DIR/VOLUME /mnt")
    };
    match kind {
        // Without replaying a log, which would need writing.
        Some(Kind::Xfs) => mount("ro,norecovery,loop"),
        Some(Kind::Ext2 | Kind::Ext3 | Kind::Ext4) => mount("ro,noload,loop"),
        Some(Kind::Btrfs) => {
            mount("ro,rescue=nologreplay,loop")
                + " (of several devices, serve all, give each to losetup -r, and mount any)"
        }
        Some(Kind::Luks1 | Kind::Luks2) => {
            "serve the volume with --fuse DIR, open it with cryptsetup open --readonly DIR/VOLUME NAME, and \
                             mount -o ro /dev/mapper/NAME /mnt"
                .to_owned()
        }
        Some(Kind::Zfs) => {
            "serve the volume with --fuse DIR and use zpool import -o readonly=on -d DIR".to_owned()
        }
        Some(Kind::Swap) => "there are none".to_owned(),
        _ => mount("ro,loop"),
    }
}

/// Copies all files of the file system on the device into the folder `to`, which is made. With `fill_zero` files with
/// losses are written with zeros in their places; without, they are only named. `step` says whether to go on.
///
/// # Errors
/// There is no reader for the file system, it can't be opened, or the folder can't be written.
pub fn copy_files(
    device: &Arc<dyn BlockDevice>,
    to: &Path,
    fill_zero: bool,
    mut step: impl FnMut(&Copied) -> bool,
) -> Result<Copied, FilesError> {
    let step = &mut step;
    let unusable = |kind| move |why| FilesError::Unusable { why, advice: advice(kind) };
    let found = formats::probe_damaged(&**device).map_err(|error| unusable(None)(error.to_string()))?.0;
    let bytes = Bytes::new(device).map_err(unusable(None))?;
    let known = found.iter().find(|found| {
        use Kind::{Btrfs, Exfat, Ext2, Ext3, Ext4, Ntfs, Vfat, Xfs};
        matches!(found.kind, Ext2 | Ext3 | Ext4 | Xfs | Btrfs | Ntfs | Vfat | Exfat)
    });
    let Some(kind) = known.map(|known| known.kind) else {
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "something unknown".to_owned() } else { names.join(" and ") };
        return Err(FilesError::NoReader {
            found: names,
            advice: advice(found.first().map(|found| found.kind)),
        });
    };
    let failed = unusable(Some(kind));
    match kind {
        Kind::Xfs => {
            let system = bytes.within(|| xfs::Xfs::open(&bytes)).map_err(failed)?;
            walk::copy(system, bytes, to, fill_zero, step)
        }
        Kind::Btrfs => {
            let system = bytes.within(|| btrfs::Btrfs::open(&bytes)).map_err(failed)?;
            let left_behind = btrfs::Btrfs::left_behind(&bytes);
            let mut copied = walk::copy(system, bytes, to, fill_zero, step)?;
            copied.notes.extend(left_behind);
            Ok(copied)
        }
        Kind::Ntfs => {
            let system = bytes.within(|| ntfs::Ntfs::open(&bytes)).map_err(failed)?;
            walk::copy(system, bytes, to, fill_zero, step)
        }
        Kind::Exfat => {
            let system = bytes.within(|| exfat::Exfat::open(&bytes)).map_err(failed)?;
            walk::copy(system, bytes.clone(), to, fill_zero, step)
        }
        Kind::Vfat => {
            let reader = bytes.within(|| fat::load(&bytes)).map_err(failed)?;
            walk::copy(fat::Fat::open(&reader), bytes, to, fill_zero, step)
        }
        _ => {
            let system = bytes.within(|| ext::Ext::open(&bytes)).map_err(failed)?;
            walk::copy(system, bytes, to, fill_zero, step)
        }
    }
}

fn output(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |error| FilesError::Output { path, error }
}
