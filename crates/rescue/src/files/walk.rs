//! Copies what a reader of a file system finds into a folder, whichever file system it is.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use super::bytes::Bytes;
use super::{Copied, FilesError, LostFile, output};

/// Bytes read at a time; where that fails, so many fewer. What fails of the smallest ones is lost.
const STEPS: [u64; 3] = [1 << 20, 4096, 512];
/// Deepest folder that is entered.
const DEPTH_MAX: usize = 256;
/// No folder takes less room, bytes: with more of them they lie within each other.
const FOLDER_LEAST: u64 = 128;

/// A file may be longer than the volume, where it has holes; but not so many times.
const LONGER_MAX: u64 = 16;

/// What there is under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// With its length, bytes.
    File(u64),
    Link,
    /// Something that is not copied, and why.
    Other(&'static str),
}

/// What is known of a file, folder or link.
pub(super) struct About {
    pub(super) kind: Kind,
    pub(super) modified: Option<SystemTime>,
    /// Permissions.
    pub(super) mode: Option<u32>,
}

/// A name in a folder.
pub(super) struct Entry<N> {
    pub(super) name: Vec<u8>,
    pub(super) node: N,
    /// Which file or folder it is, if the file system numbers them: a folder is entered once.
    pub(super) id: Option<u128>,
}

/// What is in a folder; and why there may be more, if it could not be read to its end.
pub(super) struct Listing<N> {
    pub(super) entries: Vec<Entry<N>>,
    pub(super) cut: Option<String>,
}

/// Reads from a place on; how much, at least a byte, or 0 at the end.
pub(super) type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize, String> + 'a;

/// A file system, as its reader shows it. Errors are sentences.
pub(super) trait FileSystem {
    /// What its files, folders and links are known by.
    type Node: Clone;

    fn root(&mut self) -> Self::Node;

    fn list(&mut self, folder: &Self::Node) -> Result<Listing<Self::Node>, String>;

    fn about(&mut self, node: &Self::Node) -> Result<About, String>;

    fn link(&mut self, node: &Self::Node) -> Result<Vec<u8>, String>;

    /// Hands a way to read the file to `copy`.
    fn open(&mut self, file: &Self::Node, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String>;
}

pub(super) struct Walk<'a, S: FileSystem> {
    pub(super) system: S,
    pub(super) bytes: Bytes,
    pub(super) fill_zero: bool,
    pub(super) copied: Copied,
    pub(super) step: &'a mut dyn FnMut(&Copied) -> bool,
    entered: HashSet<u128>,
}

/// Copies all of it.
pub(super) fn copy<S: FileSystem>(
    system: S,
    bytes: Bytes,
    to: &Path,
    fill_zero: bool,
    step: &mut dyn FnMut(&Copied) -> bool,
) -> Result<Copied, FilesError> {
    let mut walk =
        Walk { system, bytes, fill_zero, copied: Copied::default(), step, entered: HashSet::new() };
    fs::create_dir_all(to).map_err(output(to))?;
    let root = walk.system.root();
    walk.folder(&root, &mut Vec::new(), to, 0)?;
    Ok(walk.copied)
}

/// A path as it may be shown on any terminal.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(if path.is_empty() { b"/" } else { path });
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A name as one part of a path; `None` if it can't be one.
fn plain(name: &[u8]) -> Option<&std::ffi::OsStr> {
    let usable =
        !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0);
    usable.then(|| std::ffi::OsStr::from_bytes(name))
}

/// What can't be written because of its name; all else that can't be is the end.
fn unnameable(error: io::Error, path: &Path) -> Result<&'static str, FilesError> {
    match error.kind() {
        ErrorKind::AlreadyExists => Ok("something else has the same name"),
        ErrorKind::InvalidFilename => Ok("its name, or its path, is too long"),
        _ => Err(output(path)(error)),
    }
}

impl<S: FileSystem> Walk<'_, S> {
    fn lose(&mut self, path: &[u8], why: impl Into<String>) {
        self.copied.lost.push(LostFile { path: shown(path), why: why.into() });
    }

    /// Copies what is in a folder; says whether to go on.
    fn folder(
        &mut self,
        node: &S::Node,
        from: &mut Vec<u8>,
        to: &Path,
        depth: usize,
    ) -> Result<bool, FilesError> {
        self.copied.folders += 1;
        if self.copied.folders > self.bytes.size() / FOLDER_LEAST {
            self.lose(from, "there are more folders than there is room for: they lie within each other");
            return Ok(false);
        }
        let listing = self.bytes.within(|| self.system.list(node));
        let Listing { entries, cut } = match listing {
            Ok(listing) => listing,
            Err(why) => {
                self.lose(from, format!("the folder can't be read: {why}"));
                return Ok(true);
            }
        };
        if let Some(why) = cut {
            self.lose(from, format!("a part of the folder can't be read: {why}"));
        }
        let length = from.len();
        for entry in entries {
            if matches!(&entry.name[..], b"." | b"..") {
                continue;
            }
            from.push(b'/');
            from.extend_from_slice(&entry.name);
            let on = self.entry(&entry, from, to, depth)?;
            from.truncate(length);
            if !on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entry(
        &mut self,
        entry: &Entry<S::Node>,
        path: &mut Vec<u8>,
        to: &Path,
        depth: usize,
    ) -> Result<bool, FilesError> {
        let mut skip = |why: &str| {
            self.copied.skipped.push(LostFile { path: shown(path), why: why.to_owned() });
            Ok(true)
        };
        let Some(name) = plain(&entry.name) else { return skip("its name can't be the name of a file") };
        let about = match self.bytes.within(|| self.system.about(&entry.node)) {
            Ok(About { kind: Kind::Other(why), .. }) => return skip(why),
            Ok(about) => about,
            Err(why) => {
                self.lose(path, why);
                return Ok(true);
            }
        };
        let to = to.join(name);
        match about.kind {
            Kind::Folder => {
                if depth == DEPTH_MAX || entry.id.is_some_and(|id| !self.entered.insert(id)) {
                    self.lose(path, "the folder lies too deep, or within itself");
                } else if let Err(error) = fs::create_dir(&to) {
                    self.lose(path, unnameable(error, &to)?);
                } else {
                    return self.folder(&entry.node, path, &to, depth + 1);
                }
            }
            Kind::Link => match self.bytes.within(|| self.system.link(&entry.node)) {
                Ok(target) => match symlink(std::ffi::OsStr::from_bytes(&target), &to) {
                    Ok(()) => self.copied.links += 1,
                    Err(error) => self.lose(path, unnameable(error, &to)?),
                },
                Err(why) => self.lose(path, why),
            },
            Kind::File(length) if length > self.bytes.size().saturating_mul(LONGER_MAX) => {
                self.lose(
                    path,
                    format!("its length, {length} bytes, can't be right: the volume is far smaller"),
                );
            }
            Kind::File(length) => {
                if let Some(file) = self.file(&entry.node, path, &to, length)? {
                    // Times and modes are a courtesy: the contents are there.
                    about.modified.map(|modified| file.set_modified(modified));
                    about.mode.map(|mode| file.set_permissions(fs::Permissions::from_mode(mode & 0o777)));
                }
            }
            Kind::Other(_) => {}
        }
        Ok((self.step)(&self.copied))
    }

    /// Copies a file; returns it, if it was kept.
    fn file(
        &mut self,
        node: &S::Node,
        path: &[u8],
        to: &Path,
        length: u64,
    ) -> Result<Option<File>, FilesError> {
        let made = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(to) {
            Ok(made) => made,
            Err(error) => {
                self.lose(path, unnameable(error, to)?);
                return Ok(None);
            }
        };
        let mut losses = Losses { bytes: length, why: "it can't be opened".to_owned() };
        let mut written = Ok(());
        let (bytes, copied, step) = (&self.bytes, &self.copied, &mut self.step);
        let opened = bytes.within(|| {
            self.system.open(node, &mut |read| {
                losses = Losses { bytes: 0, why: String::new() };
                let mut read = |at, buffer: &mut [u8]| {
                    bytes.begin();
                    read(at, buffer)
                };
                written = copy_bytes(&mut read, &made, length, &mut losses, &mut || step(copied));
            })
        });
        written.map_err(output(to))?;
        if let Err(why) = opened {
            losses.bytes = losses.bytes.max(u64::from(length > 0));
            losses.why = why;
        }
        if losses.bytes == 0 {
            self.copied.files += 1;
            self.copied.bytes += length;
            return Ok(Some(made));
        }
        self.lose(path, format!("{} of its {length} bytes are lost: {}", losses.bytes, losses.why));
        if self.fill_zero {
            made.set_len(length).map_err(output(to))?;
            return Ok(Some(made));
        }
        fs::remove_file(to).map_err(output(to))?;
        Ok(None)
    }
}

/// What is lost of a file, and why at first.
struct Losses {
    bytes: u64,
    why: String,
}

/// Copies what can be had of a file; what can't be stays a hole.
fn copy_bytes(
    read: &mut ReadAt<'_>,
    to: &File,
    length: u64,
    losses: &mut Losses,
    step: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; STEPS[0].min(length) as usize];
    let mut at = 0;
    // Up to where a step of each size failed, so that smaller ones are made.
    let mut failed = [0; STEPS.len() - 1];
    while at < length {
        if !step() {
            losses.bytes += length - at;
            "it was interrupted".clone_into(&mut losses.why);
            break;
        }
        let size = failed.iter().take_while(|end| at < **end).count();
        let most = (STEPS[size] - at % STEPS[size]).min(length - at);
        match read(at, &mut buffer[..most as usize]) {
            Ok(0) => {
                losses.add(length - at, "it ends early");
                break;
            }
            Ok(got) => {
                let got = got.min(most as usize);
                if buffer[..got].iter().any(|byte| *byte != 0) {
                    to.write_all_at(&buffer[..got], at)?;
                }
                at += got as u64;
            }
            Err(_) if size < failed.len() => failed[size] = at + most,
            Err(why) => {
                losses.add(most, &why);
                at += most;
            }
        }
    }
    to.set_len(length)
}

impl Losses {
    fn add(&mut self, bytes: u64, why: &str) {
        if self.bytes == 0 {
            why.clone_into(&mut self.why);
        }
        self.bytes += bytes;
    }
}

/// A path of the file system with one more name.
pub(super) fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    [folder, b"/", name].concat()
}
