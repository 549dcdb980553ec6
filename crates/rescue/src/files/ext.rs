//! Files of ext2, ext3 and ext4. The journal is replayed in memory.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use device::BlockDevice;
use ext4_view::{DirEntry, Ext4, Ext4Read, PathBuf};

use super::{Copied, FilesError, LostFile, make_folder, output, plain};

/// Bytes read at a time.
const STEP: usize = 1 << 20;
/// After an error a file is gone on with from the next multiple of this, bytes.
const UNIT: u64 = 4096;
/// Deepest folder that is entered.
const DEPTH_MAX: usize = 256;

struct Reader(Arc<dyn BlockDevice>);

impl Ext4Read for Reader {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.0.read(start, bytes).map_err(Into::into)
    }
}

struct Walk<'a> {
    system: Ext4,
    fill_zero: bool,
    copied: Copied,
    step: &'a mut dyn FnMut(&Copied) -> bool,
}

pub(super) fn copy(
    device: &Arc<dyn BlockDevice>,
    to: &Path,
    fill_zero: bool,
    step: &mut dyn FnMut(&Copied) -> bool,
) -> Result<Copied, FilesError> {
    let system = Ext4::load(Box::new(Reader(Arc::clone(device))));
    let system = system.map_err(|error| FilesError::Unusable(error.to_string()))?;
    let mut walk = Walk { system, fill_zero, copied: Copied::default(), step };
    walk.folder(&PathBuf::new("/"), to, 0)?;
    Ok(walk.copied)
}

impl Walk<'_> {
    fn lose(&mut self, path: &PathBuf, why: impl std::fmt::Display) {
        self.copied.lost.push(LostFile { path: path.display().to_string(), why: why.to_string() });
    }

    fn skip(&mut self, path: &PathBuf, why: &str) {
        self.copied.skipped.push(LostFile { path: path.display().to_string(), why: why.to_owned() });
    }

    /// Copies what is in a folder; says whether to go on.
    fn folder(&mut self, from: &PathBuf, to: &Path, depth: usize) -> Result<bool, FilesError> {
        self.copied.folders += 1;
        let entries = match self.system.read_dir(from) {
            Ok(entries) => entries,
            Err(error) => {
                self.lose(from, format!("the folder can't be read: {error}"));
                return Ok(true);
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => {
                    if !self.entry(&entry, to, depth)? {
                        return Ok(false);
                    }
                }
                Err(error) => {
                    self.lose(from, format!("a part of the folder can't be read: {error}"));
                    break;
                }
            }
        }
        Ok(true)
    }

    fn entry(&mut self, entry: &DirEntry, to: &Path, depth: usize) -> Result<bool, FilesError> {
        let path = entry.path();
        let name = entry.file_name();
        if matches!(name.as_ref(), b"." | b"..") {
            return Ok(true);
        }
        let Some(name) = plain(name.as_ref()) else {
            self.skip(&path, "its name can't be the name of a file");
            return Ok(true);
        };
        let to = to.join(name);
        let metadata = match self.system.symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.lose(&path, error);
                return Ok(true);
            }
        };
        let kind = metadata.file_type();
        let modified = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(metadata.modified().seconds()).unwrap_or(0));
        if kind.is_dir() && depth < DEPTH_MAX {
            make_folder(&to)?;
            return self.folder(&path, &to, depth + 1);
        }
        if kind.is_symlink() {
            match self.system.read_link(&path) {
                Ok(target) => {
                    let target = std::ffi::OsStr::from_bytes(target.as_ref());
                    symlink(target, &to).map_err(output(&to))?;
                    self.copied.links += 1;
                }
                Err(error) => self.lose(&path, error),
            }
        } else if kind.is_regular_file() {
            if let Some(file) = self.file(&path, &to, metadata.len())? {
                // Times and modes are a courtesy: the contents are there.
                let _ = file.set_modified(modified);
                let _ = file.set_permissions(fs::Permissions::from_mode(u32::from(metadata.mode()) & 0o777));
            }
        } else {
            self.skip(&path, "it is no file, folder or link");
        }
        Ok((self.step)(&self.copied))
    }

    /// Copies a file; returns it, if it was kept.
    fn file(&mut self, path: &PathBuf, to: &Path, length: u64) -> Result<Option<File>, FilesError> {
        let mut from = match self.system.open(path) {
            Ok(from) => from,
            Err(error) => {
                self.lose(path, error);
                return Ok(None);
            }
        };
        let made =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(output(to))?;
        let mut buffer = vec![0; STEP];
        let mut at = 0;
        let mut lost = 0;
        let mut first = None;
        while at < length {
            match from.read_bytes(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    made.write_all_at(&buffer[..read], at).map_err(output(to))?;
                    at += read as u64;
                }
                Err(error) => {
                    first.get_or_insert_with(|| error.to_string());
                    let next = ((at / UNIT + 1) * UNIT).min(length);
                    lost += next - at;
                    at = next;
                    if from.seek_to(at).is_err() {
                        break;
                    }
                }
            }
        }
        lost += length - at.min(length);
        if lost == 0 {
            self.copied.files += 1;
            self.copied.bytes += length;
            return Ok(Some(made));
        }
        let why = first.unwrap_or_else(|| "it ends early".to_owned());
        self.lose(path, format!("{lost} of its {length} bytes are lost: {why}"));
        if self.fill_zero {
            made.set_len(length).map_err(output(to))?;
            return Ok(Some(made));
        }
        fs::remove_file(to).map_err(output(to))?;
        Ok(None)
    }
}
