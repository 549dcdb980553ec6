//! Files of XFS. The log is replayed in memory.

use lamxfs::{Inode, Path, Xfs as Reader};

use super::bytes::Bytes;
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt, below};

pub(super) struct Xfs(Reader<Bytes>);

/// A path, since folders and links are read by it, and the inode there.
#[derive(Clone)]
pub(super) struct Node {
    path: Vec<u8>,
    inode: Inode,
}

impl Xfs {
    pub(super) fn open(bytes: &Bytes) -> Result<Self, String> {
        Reader::open(bytes.clone(), bytes.size()).map(Self).map_err(|error| error.to_string())
    }
}

impl FileSystem for Xfs {
    type Node = Node;

    fn root(&mut self) -> Node {
        // Of the root only the path is used.
        Node { path: Vec::new(), inode: Inode { ino: 0 } }
    }

    fn list(&mut self, folder: &Node) -> Result<Listing<Node>, String> {
        let path = if folder.path.is_empty() { b"/" } else { &folder.path[..] };
        let entries = self.0.read_dir(Path::new(path)).map_err(|error| error.to_string())?;
        let entry = |entry: lamxfs::DirEntry| Entry {
            node: Node { path: below(&folder.path, &entry.name), inode: Inode { ino: entry.inode_number } },
            id: Some(entry.inode_number.into()),
            name: entry.name,
        };
        Ok(Listing { entries: entries.into_iter().map(entry).collect(), cut: None })
    }

    fn about(&mut self, node: &Node) -> Result<About, String> {
        let metadata = self.0.metadata(&node.inode).map_err(|error| error.to_string())?;
        let kind = if metadata.is_dir() {
            Kind::Folder
        } else if metadata.is_symlink() {
            Kind::Link
        } else if metadata.is_file() {
            Kind::File(metadata.size())
        } else {
            Kind::Other("it is no file, folder or link")
        };
        Ok(About { kind, modified: None, mode: Some(metadata.mode()) })
    }

    fn link(&mut self, node: &Node) -> Result<Vec<u8>, String> {
        self.0.read_link(Path::new(&node.path)).map_err(|error| error.to_string())
    }

    fn open(&mut self, file: &Node, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        copy(&mut |at, buffer| {
            self.0.read_file_at(&file.inode, at, buffer).map_err(|error| error.to_string())
        });
        Ok(())
    }
}
