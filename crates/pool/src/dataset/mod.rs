//! Datasets: volumes and their snapshots.
//!
//! - this file: what a dataset is, and its item in the meta tree
//! - `volume`: making and writing them
//! - `read`: reading blocks, beside the pool where that can be
//! - `snapshot`: snapshots, roll back, destroy
//! - `property`: what users can set
//!
//! A volume is a tree from block number to [`BlockPtr`](crate::pointer::BlockPtr). A snapshot is a root of that
//! tree that is kept, with a *deadlist*: the references that its predecessor has and it has not. A reference is
//! freed when its birth is later than the last snapshot, else it goes to the deadlist of whoever dropped it.

mod property;
mod read;
mod snapshot;
mod volume;

pub use read::{BlocksRead, ReadWork};
pub use volume::VolumeInfo;

pub(crate) use property::check_pool_property;
pub(crate) use snapshot::{Zombie, dead_length, dead_value};

use std::collections::BTreeMap;

use bytes::Bytes;
use tree::{Key, NodePtr, Tree, TreeId};

use crate::checksum::ChecksumKind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::compress::Compression;
use crate::types::{DatasetId, Guid, Millis, Txg};

/// A block that was written and is not committed yet.
#[derive(Clone, Debug)]
pub(crate) enum Dirty {
    /// Its new contents.
    Data(Bytes),
    /// It was discarded.
    Hole,
}

/// A volume (a head, that can be written) or a snapshot.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) id: DatasetId,
    /// Without the pool's name: `vol` or `vol@snap`.
    pub(crate) name: String,
    /// For a snapshot, the volume it is of.
    pub(crate) head: Option<DatasetId>,
    /// The snapshot before it.
    pub(crate) previous: Option<DatasetId>,
    /// For a snapshot, the last transaction group that is in it; for a volume the one it was made in.
    pub(crate) created_txg: Txg,
    pub(crate) created: Millis,
    /// Size, bytes.
    pub(crate) size: u64,
    /// Bytes of a block.
    pub(crate) block_size: u32,
    /// Space that is kept for it, bytes.
    pub(crate) reservation: u64,
    /// Stored bytes that its tree refers to.
    pub(crate) referenced: u64,
    /// Stored bytes of data on its deadlist.
    pub(crate) dead_bytes: u64,
    /// Being destroyed by a job: it has no name any more.
    pub(crate) destroying: bool,
    pub(crate) compression: Compression,
    pub(crate) checksum: ChecksumKind,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) tree: Tree,
    /// Keys (birth, kind, address), values the stored length.
    pub(crate) deadlist: Tree,
    pub(crate) dirty: BTreeMap<u64, Dirty>,
    /// Its item is out of date.
    pub(crate) changed: bool,
}

/// Kinds of deadlist entries.
pub(crate) const DEAD_EXTENT: u8 = 1;
/// A node of the dataset's tree.
pub(crate) const DEAD_NODE: u8 = 2;

/// The key of a block in a volume's tree.
pub(crate) fn block_key(block: u64) -> Key {
    Key { object: 1, kind: 1, offset: block }
}

/// What is needed to make a dataset that has no past.
pub(crate) struct NewDataset {
    pub(crate) pool: Guid,
    pub(crate) id: DatasetId,
    pub(crate) name: String,
    pub(crate) trees: (u64, u64),
}

impl Dataset {
    pub(crate) fn new(new: NewDataset) -> Self {
        let tree = |tree| Tree::new(TreeId { pool: new.pool.0, tree }, None);
        Self {
            id: new.id,
            name: new.name,
            head: None,
            previous: None,
            created_txg: Txg(0),
            created: Millis(0),
            size: 0,
            block_size: 0,
            reservation: 0,
            referenced: 0,
            dead_bytes: 0,
            destroying: false,
            compression: Compression::Off,
            checksum: ChecksumKind::Xxh3,
            properties: BTreeMap::new(),
            tree: tree(new.trees.0),
            deadlist: tree(new.trees.1),
            dirty: BTreeMap::new(),
            changed: true,
        }
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        self.head.is_some()
    }

    /// Takes over what the properties say.
    pub(crate) fn apply_properties(&mut self) {
        let value = |name: &str| self.properties.get(name);
        self.compression = value("compression").and_then(|text| text.parse().ok()).unwrap_or_default();
        self.checksum = value("checksum").and_then(|text| text.parse().ok()).unwrap_or_default();
    }

    /// Bytes that dirty blocks will take at most.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty.values().filter(|dirty| matches!(dirty, Dirty::Data(_))).count() as u64
            * u64::from(self.block_size)
    }

    /// The item of the meta tree: see "Dataset item" in `docs/on-disk-format.md`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.text(&self.name);
        w.u8(u8::from(self.is_snapshot()) | u8::from(self.destroying) << 1);
        w.u64(self.head.map_or(0, |id| id.0));
        w.u64(self.previous.map_or(0, |id| id.0));
        w.u64(self.created_txg.0);
        w.u64(self.created.0);
        w.u64(self.size);
        w.u32(self.block_size);
        w.u64(self.reservation);
        w.u64(self.referenced);
        w.u64(self.dead_bytes);
        for tree in [&self.tree, &self.deadlist] {
            w.u64(tree.identity().tree);
            w.raw(&NodePtr::encode_root(tree.root().as_ref()));
        }
        w.u16(self.properties.len() as u16);
        for (name, value) in &self.properties {
            w.text(name);
            w.text(value);
        }
        w.finish()
    }

    pub(crate) fn decode(pool: Guid, id: DatasetId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("dataset item", bytes);
        let name = r.text("name")?;
        let flags = r.u8("flags")?;
        if flags > 3 {
            return Err(r.error(
                "flags",
                format!("are {flags:#x}, not all of which are known here; use a newer coffer"),
            ));
        }
        let some = |id: u64| (id != 0).then_some(DatasetId(id));
        let head = some(r.u64("head")?);
        let previous = some(r.u64("previous snapshot")?);
        let created_txg = Txg(r.u64("created txg")?);
        let created = Millis(r.u64("created")?);
        let size = r.u64("size")?;
        let block_size = r.u32("block size")?;
        if !block_size.is_power_of_two() || !(4096..=crate::pointer::STORED_MAX).contains(&block_size) {
            return Err(r.error("block size", format!("is {block_size}")));
        }
        if size > i64::MAX as u64 {
            return Err(r.error("size", format!("is {size}")));
        }
        let reservation = r.u64("reservation")?;
        let referenced = r.u64("referenced")?;
        let dead_bytes = r.u64("dead bytes")?;
        let mut trees = Vec::new();
        for _ in 0..2 {
            let tree = r.u64("tree id")?;
            let root = NodePtr::decode_root(&r.array("tree root")?)
                .map_err(|error| r.error("tree root", error.to_string()))?;
            trees.push(Tree::new(TreeId { pool: pool.0, tree }, root));
        }
        let mut properties = BTreeMap::new();
        for _ in 0..r.u16("properties")? {
            properties.insert(r.text("property")?, r.text("property value")?);
        }
        r.end()?;
        let new = NewDataset { pool, id, name, trees: (0, 0) };
        let mut dataset = Self {
            head: head.filter(|_| flags & 1 == 1),
            previous,
            created_txg,
            created,
            size,
            block_size,
            reservation,
            referenced,
            dead_bytes,
            destroying: flags & 2 != 0,
            properties,
            changed: false,
            ..Self::new(new)
        };
        if let (Some(deadlist), Some(tree)) = (trees.pop(), trees.pop()) {
            dataset.tree = tree;
            dataset.deadlist = deadlist;
        }
        dataset.apply_properties();
        Ok(dataset)
    }
}
