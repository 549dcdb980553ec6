//! From dirty blocks to nodes that only need writing.

use bytes::Bytes;
use tree::{Key, NodePtr, Tree};

use super::place::{Placed, extent_key};
use crate::checkpoint::{Checkpoint, Rewind};
use crate::checksum::{Checksum, ChecksumKind};
use crate::chunk::Class;
use crate::codec::Writer;
use crate::compress::Compression;
use crate::core::Core;
use crate::dataset::{DEAD_EXTENT, DEAD_NODE, Dirty, block_key, dead_value};
use crate::error::{PoolError, Result};
use crate::nodes::NodeSink;
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::types::{DatasetId, Logical, Txg};

/// A block on its way to an address.
struct Outgoing {
    dataset: DatasetId,
    block: u64,
    /// The block as it is read.
    bytes: Bytes,
    /// How it is stored.
    compression: Compression,
}

impl Pool {
    /// Gives every dirty block an address and commits all trees but the chunk tree. May be called again after an
    /// error: it goes on where it stopped.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.write_blocks()?;
        self.commit_datasets()?;
        self.commit_held()?;
        self.commit_extents()?;
        self.commit_meta()?;
        self.changed = false;
        self.pace.end(self.core.txg, self.core.now());
        if let Some(syncing) = &mut self.syncing {
            syncing.prepared = true;
        }
        Ok(())
    }

    fn write_blocks(&mut self) -> Result<()> {
        let mut outgoing: Vec<Outgoing> = Vec::new();
        let mut holes: Vec<(DatasetId, u64)> = Vec::new();
        for dataset in self.datasets.values_mut() {
            let (id, compression) = (dataset.id, dataset.compression);
            for (block, dirty) in std::mem::take(&mut dataset.dirty) {
                match dirty {
                    Dirty::Hole => holes.push((id, block)),
                    Dirty::Data(bytes) => outgoing.push(Outgoing { dataset: id, block, bytes, compression }),
                }
            }
        }
        // With compression on, zeros are holes, as in zfs.
        outgoing.retain(|out| {
            let hole = out.compression != Compression::Off && out.bytes.iter().all(|&byte| byte == 0);
            if hole {
                holes.push((out.dataset, out.block));
            }
            !hole
        });
        let packed =
            self.core.workers.map(&outgoing, |out| out.compression.compress(&out.bytes).map(Bytes::from));
        let mut stored: Vec<Bytes> = Vec::with_capacity(outgoing.len());
        for (out, packed) in outgoing.iter_mut().zip(packed) {
            if packed.is_none() {
                out.compression = Compression::Off;
            }
            stored.push(packed.unwrap_or_else(|| out.bytes.clone()));
        }
        let closed = std::mem::take(&mut self.dirty_bytes);
        if let Some(syncing) = &mut self.syncing {
            syncing.bytes += closed;
        }
        self.claims.homeless = false;
        let placed = match self.place_all(&outgoing, &stored) {
            Ok(placed) => placed,
            Err(error) => {
                outgoing.into_iter().for_each(|out| self.redirty(out));
                self.redirty_holes(holes);
                self.claims.homeless = true;
                return Err(error);
            }
        };
        if let Some(syncing) = &mut self.syncing {
            syncing.pieces.extend(placed.pieces);
        }
        let kinds: Vec<(ChecksumKind, &Bytes)> = outgoing
            .iter()
            .zip(&stored)
            .map(|(out, stored)| {
                (
                    self.datasets.get(&out.dataset).map_or(ChecksumKind::Xxh3, |dataset| dataset.checksum),
                    stored,
                )
            })
            .collect();
        let checksums = self.core.workers.map(&kinds, |(kind, stored)| kind.of(stored));
        let mut failed = None;
        for (((out, stored), address), checksum) in
            outgoing.into_iter().zip(stored).zip(placed.addresses).zip(checksums)
        {
            let Some(address) = address else { continue };
            if failed.is_none() {
                failed = self.settle_block(&out, &stored, address, checksum).err();
            }
            if failed.is_some() {
                // Trees that can't be read now may be readable later: the block stays dirty, its place is given back.
                self.take_back(out, address, stored.len() as u64);
            }
        }
        if let Some(error) = failed {
            self.redirty_holes(holes);
            self.claims.homeless = true;
            return Err(error);
        }
        for (id, block) in holes {
            let Some(dataset) = self.datasets.get_mut(&id) else { continue };
            if let Some(old) = dataset.tree.remove(&mut self.core, block_key(block))? {
                dataset.changed = true;
                self.drop_block(id, &BlockPtr::decode(&old)?)?;
            }
        }
        Ok(())
    }

    /// Gives every block an address, or none: what was accepted is committed in order, and never left out.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when there is no room for all of them, which `admit` sees to; a node that can't be read.
    fn place_all(&mut self, outgoing: &[Outgoing], stored: &[Bytes]) -> Result<Placed> {
        let blocks: Vec<(DatasetId, u64)> = outgoing.iter().map(|out| (out.dataset, out.block)).collect();
        let homeless: Vec<usize> =
            (0..blocks.len()).filter(|&i| !self.claims.has(blocks[i].0, blocks[i].1)).collect();
        let items: Vec<Bytes> = homeless.iter().map(|&index| stored[index].clone()).collect();
        let found = self.place(&items)?;
        if found.addresses.iter().any(Option::is_none) {
            self.unplace(&items, &found);
            // No chunk is made on devices that are gone: what finds no place then waits for them.
            let waits = self.is_unreadable();
            return Err(if waits { PoolError::Suspended } else { PoolError::NoSpace });
        }
        let mut placed = Placed { addresses: vec![None; blocks.len()], pieces: found.pieces };
        for (index, address) in homeless.into_iter().zip(found.addresses) {
            placed.addresses[index] = address;
        }
        self.place_at_home(&blocks, stored, &mut placed);
        Ok(placed)
    }

    /// Enters a block that has an address into its volume's tree and the extents tree.
    fn settle_block(
        &mut self,
        out: &Outgoing,
        stored: &Bytes,
        address: Logical,
        checksum: Checksum,
    ) -> Result<()> {
        let txg = self.core.txg;
        let key = block_key(out.block);
        let Some(dataset) = self.datasets.get(&out.dataset) else { return Ok(()) };
        // Everything that the edits below need is read first, so that they are made all or none.
        let old = dataset.tree.get_with(&mut self.core, key, BlockPtr::decode)?.transpose()?;
        self.extents.get_with(&mut self.core, extent_key(address), |_| ())?;
        if let Some(old) = old {
            let place = self.core.remaps.place_of(old.address);
            self.extents.get_with(&mut self.core, extent_key(place), |_| ())?;
            if old.birth <= self.last_snapshot_txg(dataset) {
                dataset.deadlist.get_with(&mut self.core, dead_key(&old), |_| ())?;
            }
            if let Some(checkpoint) =
                self.checkpoint.as_ref().filter(|_| old.extent_birth <= self.core.held_to)
            {
                let key = crate::checkpoint::held_key(&old);
                checkpoint.held.get_with(&mut self.core, key, |_| ())?;
            }
        }
        let pointer = BlockPtr {
            address,
            stored: stored.len() as u32,
            length: out.bytes.len() as u32,
            birth: txg,
            extent_birth: txg,
            compression: out.compression,
            checksum,
        };
        let Some(dataset) = self.datasets.get_mut(&out.dataset) else { return Ok(()) };
        dataset.tree.insert(&mut self.core, key, &pointer.encode())?;
        self.pace.count(u64::from(pointer.length), old.as_ref().map(|old| old.birth));
        dataset.referenced += stored.len() as u64;
        dataset.changed = true;
        self.extents.insert(&mut self.core, extent_key(address), &pointer.extent().encode())?;
        self.core.cache.insert_block(address.0, txg, out.bytes.clone());
        self.core.unwritten_extents.insert(address, stored.clone());
        match old {
            Some(old) => self.drop_block(out.dataset, &old),
            None => Ok(()),
        }
    }

    fn redirty(&mut self, out: Outgoing) {
        if let Some(dataset) = self.datasets.get_mut(&out.dataset) {
            self.dirty_bytes += u64::from(dataset.block_size);
            dataset.dirty.entry(out.block).or_insert(Dirty::Data(out.bytes));
        }
    }

    fn redirty_holes(&mut self, holes: Vec<(DatasetId, u64)>) {
        for (id, block) in holes {
            if let Some(dataset) = self.datasets.get_mut(&id) {
                dataset.dirty.entry(block).or_insert(Dirty::Hole);
            }
        }
    }

    /// Makes a block dirty again that got an address and no entry in the trees.
    fn take_back(&mut self, out: Outgoing, address: Logical, length: u64) {
        let txg = self.core.txg;
        self.redirty(out);
        let Some(chunk) = self.core.map.at(address).map(|chunk| chunk.address) else { return };
        if let Some(chunk) = self.core.map.change(chunk) {
            chunk.used = chunk.used.saturating_sub(length);
        }
        if let Some(space) = self.core.data.get_mut(&chunk) {
            space.free_later(txg, address.0 - chunk.0, length);
        }
    }

    /// A volume does not refer to a block any more: the block is freed, or remembered for the snapshots.
    fn drop_block(&mut self, id: DatasetId, pointer: &BlockPtr) -> Result<()> {
        let Some(dataset) = self.datasets.get(&id) else { return Ok(()) };
        let kept =
            pointer.birth <= self.last_snapshot_txg(dataset) && !self.core.is_sabotaged("forget-snapshot");
        let Some(dataset) = self.datasets.get_mut(&id) else { return Ok(()) };
        dataset.referenced = dataset.referenced.saturating_sub(u64::from(pointer.stored));
        if !kept {
            return self.free_extent(pointer.address);
        }
        dataset.dead_bytes += u64::from(pointer.stored);
        dataset.deadlist.insert(&mut self.core, dead_key(pointer), &dead_value(pointer.stored))?;
        Ok(())
    }

    fn commit_datasets(&mut self) -> Result<()> {
        let ids: Vec<DatasetId> = self.datasets.keys().copied().collect();
        for id in ids {
            let Some(dataset) = self.datasets.get(&id) else { continue };
            if !dataset.changed && !dataset.tree.is_dirty() && !dataset.deadlist.is_dirty() {
                continue;
            }
            let kept = self.last_snapshot_txg(dataset);
            let Some(dataset) = self.datasets.get_mut(&id) else { continue };
            commit_tree(&mut dataset.tree, &mut self.core, Class::Metadata)?;
            for pointer in dataset.tree.take_freed() {
                if Txg(pointer.birth) > kept {
                    self.core.drop_node(pointer.address, Txg(pointer.birth));
                } else {
                    let key = Key { object: pointer.birth, kind: DEAD_NODE, offset: pointer.address };
                    dataset.deadlist.insert(&mut self.core, key, &dead_value(0))?;
                }
            }
            commit_tree(&mut dataset.deadlist, &mut self.core, Class::Metadata)?;
            for pointer in dataset.deadlist.take_freed() {
                self.core.drop_node(pointer.address, Txg(pointer.birth));
            }
            dataset.changed = false;
            let item = dataset.encode();
            self.meta.insert(&mut self.core, super::dataset_key(id), &item)?;
        }
        Ok(())
    }

    fn commit_extents(&mut self) -> Result<()> {
        commit_tree(&mut self.extents, &mut self.core, Class::Metadata)?;
        let freed = self.extents.take_freed();
        free_all(&mut self.core, freed);
        Ok(())
    }

    fn commit_meta(&mut self) -> Result<()> {
        // A commit that changes nothing here leaves the root as it is: an import tells by it who wrote something.
        let items = [
            (super::POOL_KEY, self.encode_pool_item()),
            (super::job_key(0), self.encode_scan()),
            (super::job_key(1), self.encode_balance()?),
        ];
        for (key, item) in items {
            if self.meta.get(&mut self.core, key)?.as_deref() != Some(&item) {
                self.meta.insert(&mut self.core, key, &item)?;
            }
        }
        let kept = [self.checkpoint.as_ref().map(Checkpoint::encode), self.rewound.map(Rewind::encode)];
        for (item, number) in kept.into_iter().zip(0..) {
            let key = super::checkpoint_key(number);
            if self.meta.get(&mut self.core, key)?.as_deref() != item.as_deref() {
                match item {
                    Some(item) => self.meta.insert(&mut self.core, key, &item)?,
                    None => self.meta.remove(&mut self.core, key)?,
                };
            }
        }
        for address in self.core.lost.clone() {
            let key = super::lost_key(address);
            if self.meta.get(&mut self.core, key)?.is_none() {
                self.meta.insert(&mut self.core, key, &[])?;
            }
        }
        commit_tree(&mut self.meta, &mut self.core, Class::Metadata)?;
        let mut freed = self.meta.take_freed();
        // The others are the checkpoint's, and found by its root when it is discarded.
        freed.retain(|pointer| Txg(pointer.birth) > self.core.held_to);
        free_all(&mut self.core, freed);
        Ok(())
    }

    fn encode_pool_item(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.next_id);
        w.u64(self.next_history);
        w.u64(self.created.0);
        w.u16(self.properties.len() as u16);
        for (name, value) in &self.properties {
            w.text(name);
            w.text(value);
        }
        w.finish()
    }
}

/// The deadlist's key for a block.
fn dead_key(pointer: &BlockPtr) -> Key {
    Key { object: pointer.birth.0, kind: DEAD_EXTENT, offset: pointer.address.0 }
}

/// Commits a tree into a class of chunks.
pub(crate) fn commit_tree(tree: &mut Tree, core: &mut Core, class: Class) -> Result<()> {
    if tree.is_dirty() {
        let (session, txg) = (core.session.0, core.txg.0);
        let mut sink = NodeSink { core, class, taken: Vec::new() };
        let outcome = tree.commit(&mut sink, session, txg);
        let taken = sink.taken;
        if let Err(error) = outcome {
            // The tree is as it was; the addresses that it was given are nobody's.
            taken.into_iter().for_each(|address| core.free_node(address, core.txg));
            return Err(error);
        }
    }
    Ok(())
}

/// Frees nodes that no snapshot shares.
pub(crate) fn free_all(core: &mut Core, nodes: Vec<NodePtr>) {
    for pointer in nodes {
        core.free_node(pointer.address, Txg(pointer.birth));
    }
}
