//! Files of btrfs on one device, with all subvolumes in their places.

use lambutter::{Btrfs as Reader, Inode, Path};

use super::bytes::Bytes;
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt, below};

/// The subvolume that holds all others; what is mounted by default may be one of them.
const TOP_LEVEL: u64 = 5;

pub(super) struct Btrfs(Reader<Bytes>);

/// A path, since folders and links are read by it, and the inode there.
#[derive(Clone)]
pub(super) struct Node {
    path: Vec<u8>,
    inode: Option<Inode>,
}

impl Btrfs {
    pub(super) fn open(bytes: &Bytes) -> Result<Self, String> {
        Reader::open_subvol_id(bytes.clone(), bytes.size(), TOP_LEVEL)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// What was written just before the crash, if it lies in the log that only the kernel replays.
    pub(super) fn left_behind(bytes: &Bytes) -> Option<String> {
        const LOG_ROOT: u64 = 96;
        let mut field = [0; 8];
        bytes
            .within(|| {
                bytes.fetch(formats::BTRFS_SUPERBLOCKS[0] + LOG_ROOT, &mut field).map_err(|_| String::new())
            })
            .ok()?;
        (field != [0; 8]).then(|| {
            "its log was not replayed: files that were synced in the last half minute may be older, or missing; to have \
             them, serve the volume with --overlay and mount it"
                .to_owned()
        })
    }
}

fn path(bytes: &[u8]) -> Result<Path<'_>, String> {
    Path::new(if bytes.is_empty() { b"/" } else { bytes }).ok_or_else(|| "it has no path".to_owned())
}

impl FileSystem for Btrfs {
    type Node = Node;

    fn root(&mut self) -> Node {
        Node { path: Vec::new(), inode: None }
    }

    fn list(&mut self, folder: &Node) -> Result<Listing<Node>, String> {
        let entries = self.0.read_dir(path(&folder.path)?).map_err(|error| error.to_string())?;
        let entry = |entry: lambutter::DirEntry| {
            let id = u128::from(entry.inode.subvolume()) << 64 | u128::from(entry.inode.objectid());
            let node = Node { path: below(&folder.path, &entry.name), inode: Some(entry.inode) };
            Entry { name: entry.name, node, id: Some(id) }
        };
        Ok(Listing { entries: entries.into_iter().map(entry).collect(), cut: None })
    }

    fn about(&mut self, node: &Node) -> Result<About, String> {
        let inode = node.inode.as_ref().ok_or("it has no inode")?;
        let metadata = self.0.metadata(inode).map_err(|error| error.to_string())?;
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_symlink() {
            Kind::Link
        } else if metadata.is_file() {
            Kind::File(metadata.size)
        } else {
            Kind::Other("it is no file, folder or link")
        };
        Ok(About { kind, modified: None, mode: Some(metadata.mode) })
    }

    fn link(&mut self, node: &Node) -> Result<Vec<u8>, String> {
        self.0.read_link(path(&node.path)?).map_err(|error| error.to_string())
    }

    fn open(&mut self, file: &Node, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        let inode = file.inode.as_ref().ok_or("it has no inode")?;
        copy(&mut |at, buffer| self.0.read_file_at(inode, at, buffer).map_err(|error| error.to_string()));
        Ok(())
    }
}
