//! From memory to the devices, in the order that makes a crash harmless.
//!
//! 1. Data, nodes, the bitmaps of metadata chunks, column headers.
//! 2. The chunk tree, which by now knows what could not be written, and the bitmaps of the system chunks.
//! 3. Flush. A device that fails here has missed everything of this group: it is stale in all of it, so 2 again.
//! 4. Is everything readable with what is left? If not, the pool is suspended and all of this is done again later.
//! 5. The uberblock on every device, and another flush. Only now is the transaction group acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;

use device::{Op, Request};
use tree::NODE_SIZE;

use super::prepare::{commit_tree, free_all};
use super::work::Job;
use super::{ROOTS_KEPT, chunk_key, device_key, remap_key};
use crate::checksum::ChecksumKind;
use crate::chunk::{Chunk, Class};
use crate::codec::Writer;
use crate::core::{Core, Relation};
use crate::error::{PoolError, Result};
use crate::io::{Part, Piece, WriteLog, WriteOutcome};
use crate::label::{self, FEATURE_CHECKPOINT, SYSTEM_CHUNKS_MAX, Uberblock};
use crate::pool::Pool;
use crate::report::State;
use crate::types::{DeviceId, Logical, Txg};

/// Nodes that one piece carries at most.
const PIECE_NODES_MAX: usize = 64;

impl Pool {
    /// What is to be written of what `prepare` left before the chunk tree can be: data, metadata nodes and their
    /// bitmaps.
    pub(super) fn start_writing(&mut self, beside: bool) -> Result<Job> {
        self.core.undo_marks();
        for address in &self.unsettled_bitmaps {
            if let Some(space) = self.core.nodes.get_mut(address) {
                space.dirty = true;
            }
        }
        if self.core.is_sabotaged("uberblock-first") {
            self.write_uberblock(false)?;
        }
        let mut pieces = self.syncing.as_ref().map(|syncing| syncing.pieces.clone()).unwrap_or_default();
        pieces.extend(self.node_pieces(Class::Metadata)?);
        pieces.extend(self.bitmap_pieces(Class::Metadata));
        let writer = self.core.writer(&pieces)?;
        let flush = beside && !self.core.is_sabotaged("skip-flush");
        Ok(Job { writer, pieces, flush })
    }

    /// Writes the rest, and the uberblock that makes all of it count.
    pub(super) fn write_out(&mut self, outcome: WriteOutcome) -> Result<()> {
        let mut log = WriteLog::default();
        self.core.account(outcome, &mut log);
        self.write_column_headers();
        // Every round can lose at least one more device; a pool has no more than it has.
        for _ in 0..self.core.devices.len() + 2 {
            self.commit_chunk_tree()?;
            let nodes = self.node_pieces(Class::System)?;
            self.core.write_pieces(&nodes, &mut log)?;
            let bitmaps = self.bitmap_pieces(Class::System);
            self.core.write_pieces(&bitmaps, &mut log)?;
            self.core.flush_devices(&log);
            if !self.chunk_tree_is_behind() {
                break;
            }
        }
        self.core.check_written(&log)?;
        self.write_first_labels();
        self.write_uberblock(false)?;
        self.committed();
        Ok(())
    }

    /// Whether something became stale that the chunk tree as written does not tell.
    fn chunk_tree_is_behind(&self) -> bool {
        // What became of system chunks is told by the uberblock, which comes last.
        let system = |chunk: &Chunk| chunk.class == Class::System;
        self.core.map.dirty().any(|address| !self.core.map.get(address).is_some_and(system))
    }

    /// The nodes of a class that are not on the devices.
    fn node_pieces(&self, class: Class) -> Result<Vec<Piece>> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (&address, node) in &self.core.unwritten_nodes {
            let chunk = self.core.chunk_of(Logical(address), NODE_SIZE as u64)?;
            if chunk.class != class {
                continue;
            }
            let offset = address - chunk.address.0;
            let part = Part::Node(std::sync::Arc::clone(node));
            match pieces.last_mut() {
                Some(last)
                    if last.chunk == chunk.address
                        && last.offset + last.length == offset
                        && last.parts.len() < PIECE_NODES_MAX =>
                {
                    last.parts.push(part);
                    last.length += NODE_SIZE as u64;
                }
                _ => pieces.push(Piece::single(chunk.address, offset, part)),
            }
        }
        Ok(pieces)
    }

    /// The bitmaps that changed, for the slots that the last root does not use; they are anchored in their chunks.
    fn bitmap_pieces(&mut self, class: Class) -> Vec<Piece> {
        let core = &mut self.core;
        let mut pieces = Vec::new();
        for address in core.map.addresses() {
            let Some(chunk) = core.map.get(address).filter(|chunk| chunk.class == class) else { continue };
            let Some(space) = core.nodes.get_mut(&address).filter(|space| space.dirty) else { continue };
            let slot = match self.committed_slots.get(&address) {
                Some(slot) => 1 - slot,
                None => chunk.bitmap.slot,
            };
            let bytes = space.encode(core.guid, core.session, core.txg, address);
            space.dirty = false;
            let used = space.live() * NODE_SIZE as u64;
            let checksum = ChecksumKind::Xxh3.of(&bytes);
            let txg = core.txg;
            if let Some(chunk) = core.map.change(address) {
                if used < chunk.used {
                    self.reclaim.thinned(address);
                }
                chunk.used = used;
                chunk.bitmap.slot = slot;
                chunk.bitmap.txg = txg;
                chunk.bitmap.checksum.copy_from_slice(&checksum.bytes[..16]);
            }
            let bytes: bytes::Bytes = bytes.into();
            self.unsettled_bitmaps.insert(address);
            pieces.push(Piece::single(address, u64::from(slot) * NODE_SIZE as u64, Part::Bytes(bytes)));
        }
        pieces
    }

    /// Writes the headers of columns that are new. One that fails is no loss: headers are for finding a pool whose
    /// labels are gone.
    fn write_column_headers(&mut self) {
        for address in std::mem::take(&mut self.core.new_headers) {
            let Some(chunk) = self.core.map.get(address).cloned() else { continue };
            for (column, placement) in chunk.placements() {
                self.core.write_column_header(&chunk, column, placement.device, placement.offset);
            }
        }
    }

    fn commit_chunk_tree(&mut self) -> Result<()> {
        let Self { core, chunks, .. } = self;
        for address in core.map.take_dirty() {
            match core.map.get(address) {
                // System chunks are named by the uberblock itself.
                Some(chunk) if chunk.class == Class::System => {}
                Some(chunk) => {
                    let mut item = chunk.encode();
                    if item.len() > tree::MAX_VALUE {
                        // Many columns and what stands in for them, stale in part: less where it is stale as a whole.
                        let mut chunk = chunk.clone();
                        chunk.coarsen(|device| core.usable(device));
                        item = chunk.encode();
                    }
                    chunks.insert(core, chunk_key(address), &item)?;
                }
                None => {
                    chunks.remove(core, chunk_key(address))?;
                }
            }
        }
        for (home, moved) in core.remaps.take_dirty() {
            match moved {
                Some(_) if core.is_sabotaged("forget-remap") => {}
                Some(moved) => {
                    chunks.insert(core, remap_key(home), &moved.encode())?;
                }
                None => {
                    chunks.remove(core, remap_key(home))?;
                }
            }
        }
        for id in std::mem::take(&mut core.dirty_devices) {
            match core.devices.get(&id) {
                Some(device) => {
                    let item = device.encode();
                    chunks.insert(core, device_key(id), &item)?;
                }
                None => {
                    chunks.remove(core, device_key(id))?;
                }
            }
        }
        commit_tree(chunks, core, Class::System)?;
        let freed = chunks.take_freed();
        free_all(core, freed);
        // Making a system chunk on the way changes the map, but no item of the tree.
        let system_only = |core: &Core, address: &Logical| {
            core.map.get(*address).is_some_and(|chunk| chunk.class == Class::System)
        };
        let dirty = core.map.take_dirty();
        for address in dirty {
            if !system_only(core, &address) {
                core.map.change(address);
            }
        }
        Ok(())
    }

    /// The uberblock of what is on the devices now.
    fn uberblock(&self, exported: bool) -> Uberblock {
        let core = &self.core;
        let system: Vec<Chunk> =
            core.map.iter().filter(|chunk| chunk.class == Class::System).cloned().collect();
        let mut devices: BTreeMap<u32, crate::types::Guid> = BTreeMap::new();
        for (_, placement) in system.iter().flat_map(Chunk::placements) {
            if let Some(device) = core.devices.get(&placement.device) {
                devices.insert(device.id.0, device.guid);
            }
        }
        // With this one there is a root more than is kept: what the first of them knows can be used again at once.
        let forgotten = (self.roots.len() + 1).saturating_sub(ROOTS_KEPT);
        let oldest = self.roots.get(forgotten).copied().unwrap_or(core.txg);
        Uberblock {
            pool: core.guid,
            txg: core.txg,
            session: core.session,
            time: core.now(),
            host: self.host.id,
            exported,
            oldest,
            incompatible: 0,
            read_only_compatible: if self.checkpoint.is_some() || self.rewound.is_some() {
                FEATURE_CHECKPOINT
            } else {
                0
            },
            chunk_root: self.chunks.root(),
            meta_root: self.meta.root(),
            extent_root: self.extents.root(),
            system_chunks: system,
            devices: devices.into_iter().collect(),
            back_to: self.goes_back_to,
            took_part: core.devices.values().filter(|d| d.open().is_some()).map(|d| d.guid).collect(),
        }
    }

    /// Writes the uberblock to every device and flushes. It names the devices that it is written to, so that it is
    /// known of each that has it and each that has not whether it was acknowledged; so where one of them did not take
    /// it, it is written once more, without that one.
    ///
    /// # Errors
    /// [`PoolError::Suspended`] when so few devices took it that it could be lost with those that may be lost.
    pub(crate) fn write_uberblock(&mut self, exported: bool) -> Result<()> {
        let mut missed = BTreeSet::new();
        while !self.try_uberblock(exported, &mut missed)? {}
        Ok(())
    }

    /// One round of it; false when it has to be written again. `places_missed`: devices that did not take it so far,
    /// and are still there; what stands in for another counts as that one, as what it holds is lost once.
    fn try_uberblock(&mut self, exported: bool, places_missed: &mut BTreeSet<DeviceId>) -> Result<bool> {
        let mut uberblock = self.uberblock(exported);
        if uberblock.encode().is_none() {
            // A wide mirror has much to tell of what is stale: less where it is stale as a whole.
            for address in self.core.map.addresses() {
                let system = |chunk: &&Chunk| chunk.class == Class::System;
                let Some(mut chunk) = self.core.map.get(address).filter(system).cloned() else { continue };
                chunk.coarsen(|device| self.core.usable(device));
                self.core.map.insert(chunk);
            }
            uberblock = self.uberblock(exported);
        }
        let Some(bytes) = uberblock.encode() else {
            return Err(PoolError::Corrupt(format!(
                "the uberblock has no room for {} system chunks (at most {SYSTEM_CHUNKS_MAX})",
                uberblock.system_chunks.len()
            )));
        };
        let txg = self.core.txg;
        let open: Vec<_> = self
            .core
            .devices
            .values()
            .filter_map(|device| Some((device.id, device.size, device.open()?.clone())))
            .collect();
        let mut requests: Vec<Request<'_>> = open
            .iter()
            .flat_map(|(_, size, handle)| label::uberblock_offsets(*size, txg).map(|offset| (handle, offset)))
            .map(|(handle, offset)| {
                Request::new(&**handle, Op::Write { offset, buffers: vec![IoSlice::new(&bytes)] })
            })
            .collect();
        self.core.runner.run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        let mut written: BTreeSet<DeviceId> = BTreeSet::new();
        for ((id, ..), pair) in open.iter().zip(results.chunks(2)) {
            for result in pair {
                if let Err(error) = result {
                    self.core.device_failed(*id, error);
                }
            }
            // One label of the two is enough to find it; none is a device that does not know this root.
            if pair.iter().any(Result::is_ok) {
                written.insert(*id);
            }
        }
        if !self.core.is_sabotaged("skip-last-flush") {
            for failed in self.core.flush_these(&written) {
                written.remove(&failed);
            }
        }
        let tolerance = self
            .core
            .map
            .iter()
            .filter(|chunk| chunk.class == Class::System)
            .map(|chunk| usize::from(chunk.layout.tolerance()))
            .max()
            .unwrap_or(0);
        // More devices know the new root than may be lost; or no more than may be lost do not know it.
        let missed: Vec<DeviceId> =
            open.iter().map(|(id, ..)| *id).filter(|id| !written.contains(id)).collect();
        for &id in &missed {
            // It knows an older root only: were it alone one day, what is acknowledged now would be forgotten.
            if let Some(device) = self.core.devices.get_mut(&id)
                && device.usable()
            {
                device.faulted = true;
                self.core.state_changed(id, State::Faulted, "it did not take the newest root");
            }
        }
        // Those that went away just now are as those that were away before: the pool is degraded, no more. Nor does a
        // spare count that waits: nothing is lost with it.
        let place = |id: &DeviceId| {
            let device = self.core.devices.get(id).filter(|device| device.handle.is_some())?;
            match device.relation {
                Relation::Member(_) => Some(*id),
                Relation::For(member, _) => Some(member),
                Relation::Spare => None,
            }
        };
        let is_complete = missed.is_empty();
        places_missed.extend(missed.iter().filter_map(place));
        let missed = places_missed.len();
        let known = written.iter().filter_map(place).count();
        if known == 0 || (missed > tolerance && known <= tolerance) {
            // Some device may hold this root already: its number is used up.
            self.core.txg = self.core.txg.next();
            return Err(PoolError::Suspended);
        }
        Ok(is_complete)
    }

    /// The open transaction group is safe: forget what was kept for it, and open the next one.
    fn committed(&mut self) {
        let txg = self.core.txg;
        self.committed = txg;
        self.core.unwritten_nodes.clear();
        self.core.unwritten_extents.clear();
        self.core.new_marks.clear();
        for address in std::mem::take(&mut self.unsettled_bitmaps) {
            if let Some(chunk) = self.core.map.get(address) {
                self.committed_slots.insert(address, chunk.bitmap.slot);
            }
        }
        self.roots.push_back(txg);
        while self.roots.len() > ROOTS_KEPT {
            self.roots.pop_front();
        }
        if let Some(session) = self.sessions.last_mut() {
            session.1 = txg;
        }
        self.core.txg = txg.next();
        if self.roots.len() == ROOTS_KEPT
            && let Some(&oldest) = self.roots.front()
        {
            self.release(oldest);
        }
        if self.core.labels_dirty {
            self.write_labels();
        }
    }

    /// Lets space be used again that no importable root knows, and drops data chunks that are empty.
    fn release(&mut self, oldest: Txg) {
        let tight = self.claims.tight;
        let core = &mut self.core;
        core.release(oldest);
        for frees in core.unloaded_frees.values_mut() {
            frees.retain(|(txg, ..)| *txg > oldest);
        }
        core.unloaded_frees.retain(|_, frees| !frees.is_empty());
        let empty: Vec<Logical> = core
            .map
            .iter()
            .filter(|chunk| chunk.used == 0 && chunk.birth < oldest)
            .filter(|chunk| match chunk.class {
                Class::Data => match core.data.get(&chunk.address) {
                    Some(space) if chunk.closed => !space.waits(),
                    Some(space) => !space.waits() && space.free_bytes() + chunk.grain() > chunk.length(),
                    None => !core.unloaded_frees.contains_key(&chunk.address),
                },
                // The last metadata chunk, or one of a full pool, would only be made again.
                Class::Metadata => {
                    (!tight || chunk.closed)
                        && core.current_nodes.get(&Class::Metadata) != Some(&chunk.address)
                        && core.nodes.get(&chunk.address).is_some_and(|space| space.is_empty())
                }
                Class::System => {
                    chunk.closed && core.nodes.get(&chunk.address).is_some_and(|space| space.is_empty())
                }
            })
            .map(|chunk| chunk.address)
            .collect();
        for address in empty {
            core.current_data.retain(|_, current| *current != address);
            self.committed_slots.remove(&address);
            core.drop_chunk(address);
        }
    }
}

impl Core {
    /// Writes the header in front of a column.
    pub(crate) fn write_column_header(&mut self, chunk: &Chunk, column: u16, device: DeviceId, offset: u64) {
        let open = self.devices.get(&device).and_then(|device| Some((device.open()?.clone(), device.size)));
        let Some((handle, size)) = open else { return };
        let item = chunk.encode();
        let mut w = Writer::default();
        w.raw(label::COLUMN_MAGIC);
        w.u64(self.guid.0);
        w.u64(self.session.0);
        w.u64(chunk.address.0);
        w.u64(self.txg.0);
        w.u16(column);
        w.u16(item.len().min(3900) as u16);
        w.raw(&item[..item.len().min(3900)]);
        let mut bytes = w.finish();
        bytes.resize(label::COLUMN_SIZE_AT, 0);
        bytes.extend_from_slice(&size.to_le_bytes());
        let checksum = twox_hash::XxHash3_128::oneshot(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        if let Err(error) = handle.write(offset, &bytes) {
            self.device_failed(device, &error);
        }
    }
}
