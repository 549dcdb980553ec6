//! Files of ext2, ext3 and ext4. The journal is replayed in memory.

use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime};

use device::Rng;
use ext4_view::{Ext4, Ext4Read, PathBuf};

use super::bytes::{Bytes, SECTOR};
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt};

/// Stands for a sector that can't be read. The reader fetches several blocks for each that it needs, and keeps them: so what is
/// lost must be told from what is not when it comes out. No structure with all these high bits is a sound one.
type Mark = [u8; SECTOR];

struct Marked(Bytes, Mark);

impl Ext4Read for Marked {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.0.fetch_marked(start, bytes, &self.1).map_err(Into::into)
    }
}

pub(super) struct Ext {
    system: Ext4,
    mark: Mark,
    bytes: Bytes,
}

fn load(bytes: &Bytes, mark: &Mark) -> Result<Ext4, String> {
    Ext4::load(Box::new(Marked(bytes.clone(), *mark))).map_err(|error| error.to_string())
}

/// Reads a part of a file through a reader for whom another mark stands for what can't be read.
fn read_again(bytes: &Bytes, mark: &Mark, file: &PathBuf, at: u64, length: usize) -> Result<Vec<u8>, String> {
    let mut file = load(bytes, mark)?.open(file).map_err(|error| error.to_string())?;
    file.seek_to(at).map_err(|error| error.to_string())?;
    let mut again = vec![0; length];
    let mut got = 0;
    while got < length {
        match file.read_bytes(&mut again[got..]).map_err(|error| error.to_string())? {
            0 => return Err("it ends before its end".to_owned()),
            more => got += more,
        }
    }
    Ok(again)
}

impl Ext {
    pub(super) fn open(bytes: &Bytes) -> Result<Self, String> {
        let mut mark = [0; SECTOR];
        // Nobody can have written it into a file.
        Rng::new(RandomState::new().hash_one(0)).fill(&mut mark);
        mark.iter_mut().for_each(|byte| *byte |= 0xf0);
        Ok(Self { system: load(bytes, &mark)?, mark, bytes: bytes.clone() })
    }
}

impl FileSystem for Ext {
    type Node = PathBuf;

    fn root(&mut self) -> PathBuf {
        PathBuf::new("/")
    }

    fn list(&mut self, folder: &PathBuf) -> Result<Listing<PathBuf>, String> {
        let mut listing = Listing { entries: Vec::new(), cut: None };
        for entry in self.system.read_dir(folder).map_err(|error| error.to_string())? {
            match entry {
                Ok(entry) => listing.entries.push(Entry {
                    name: entry.file_name().as_ref().to_vec(),
                    node: entry.path(),
                    id: None,
                }),
                Err(error) => {
                    listing.cut = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(listing)
    }

    fn about(&mut self, node: &PathBuf) -> Result<About, String> {
        let metadata = self.system.symlink_metadata(node).map_err(|error| error.to_string())?;
        let kind = metadata.file_type();
        let kind = if kind.is_dir() {
            Kind::Folder
        } else if kind.is_symlink() {
            Kind::Link
        } else if kind.is_regular_file() {
            Kind::File(metadata.len())
        } else {
            Kind::Other("it is no file, folder or link")
        };
        let seconds = u64::try_from(metadata.modified().seconds()).ok();
        let modified =
            seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Ok(About { kind, modified, mode: Some(metadata.mode().into()) })
    }

    fn link(&mut self, node: &PathBuf) -> Result<Vec<u8>, String> {
        self.system.read_link(node).map(|target| target.as_ref().to_vec()).map_err(|error| error.to_string())
    }

    fn open(&mut self, path: &PathBuf, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        let mut file = self.system.open(path).map_err(|error| error.to_string())?;
        copy(&mut |at, buffer| {
            if file.position() != at {
                file.seek_to(at).map_err(|error| error.to_string())?;
            }
            let got = file.read_bytes(buffer).map_err(|error| error.to_string())?;
            // Sectors of the disk are sectors of the file.
            let is_marked = |sector: &&[u8]| **sector == self.mark[..sector.len()];
            let Some(marked) = buffer[..got].chunks(SECTOR).find(is_marked) else { return Ok(got) };
            // The few bytes of a file's last sector may be those of the mark by chance. Then they are the same under another one.
            if marked.len() < SECTOR {
                let other = self.mark.map(|byte| byte ^ 0x0f);
                let from = got - marked.len();
                let again = read_again(&self.bytes, &other, path, at + from as u64, marked.len())?;
                if again == marked {
                    return Ok(got);
                }
            }
            Err("a part of it can't be read".to_owned())
        });
        Ok(())
    }
}
