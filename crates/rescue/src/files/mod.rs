//! Copies files out of a file system without mounting it.

mod ext;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::BlockDevice;
use serde::Serialize;

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
    #[error(
        "files of {found} can't be copied out here; serve the volume with --fuse DIR and mount it: \
         mount -o {options} DIR/VOLUME /mnt"
    )]
    NoReader {
        /// What is there.
        found: String,
        /// How to mount it without changing it.
        options: &'static str,
    },
    /// The file system can't be opened.
    #[error(
        "the file system can't be opened: {0}; serve the volume with --overlay and try its own repair tool"
    )]
    Unusable(String),
    /// The folder for the copies can't be written.
    #[error("cannot write {}: {error}", path.display())]
    Output {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// Copies all files of the file system on the device into the folder `to`, which is made. With `fill_zero` files with
/// losses are written with zeros in their places; without, they are only named.
///
/// # Errors
/// There is no reader for the file system, it can't be opened, or the folder can't be written.
pub fn copy_files(
    device: &Arc<dyn BlockDevice>,
    to: &Path,
    fill_zero: bool,
    mut step: impl FnMut(&Copied) -> bool,
) -> Result<Copied, FilesError> {
    let found = formats::probe_damaged(&**device).map_err(|error| FilesError::Unusable(error.to_string()))?.0;
    let ext = |kind| matches!(kind, formats::Kind::Ext2 | formats::Kind::Ext3 | formats::Kind::Ext4);
    if !found.iter().any(|found| ext(found.kind)) {
        let names: Vec<String> = found.iter().map(ToString::to_string).collect();
        let names = if names.is_empty() { "something unknown".to_owned() } else { names.join(" and ") };
        // Without replaying a log, which would need writing.
        let options = match found.first().map(|found| found.kind) {
            Some(formats::Kind::Xfs) => "ro,norecovery,loop",
            Some(formats::Kind::Btrfs) => "ro,rescue=nologreplay,loop",
            _ => "ro,loop",
        };
        return Err(FilesError::NoReader { found: names, options });
    }
    make_folder(to)?;
    ext::copy(device, to, fill_zero, &mut step)
}

fn make_folder(path: &Path) -> Result<(), FilesError> {
    fs::create_dir_all(path).map_err(output(path))
}

fn output(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |error| FilesError::Output { path, error }
}

/// A name as one part of a path; `None` if it can't be one.
fn plain(name: &[u8]) -> Option<&std::ffi::OsStr> {
    use std::os::unix::ffi::OsStrExt;
    let usable =
        !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
    usable.then(|| std::ffi::OsStr::from_bytes(name))
}
