//! What is free after an import: the bitmaps of nodes, and what only older roots still know.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tree::{Bounds, Key, NODE_SIZE, NodePtr, Visit, Visitor, dropped, walk};

use crate::checkpoint::Checkpoint;
use crate::checksum::Checksum;
use crate::chunk::{COLUMN_HEADER, Chunk, Class, Moved, Remaps};
use crate::core::Core;
use crate::dataset::{DEAD_NODE, Dataset, Zombie};
use crate::error::{PoolError, Result};
use crate::io::Want;
use crate::label::Uberblock;
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::space::NodeSpace;
use crate::txg;
use crate::types::{DatasetId, Guid, Logical, Txg};

/// Collects node pointers; what can't be read is passed over.
#[derive(Default)]
struct Collect {
    nodes: Vec<NodePtr>,
    items: Option<Vec<(Key, Vec<u8>)>>,
}

impl Visitor<PoolError> for Collect {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit> {
        self.nodes.push(*pointer);
        Ok(if pointer.level == 0 && self.items.is_none() { Visit::Skip } else { Visit::Enter })
    }

    fn item(&mut self, key: Key, value: &[u8]) -> Result<ControlFlow<()>> {
        if let Some(items) = &mut self.items {
            items.push((key, value.to_vec()));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn unreadable(&mut self, _: &NodePtr, _: Bounds, _: PoolError) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

impl Pool {
    /// Loads what is free in metadata chunks and pins what older roots still know.
    pub(super) fn load_space(&mut self, uberblock: &Uberblock, all: &[Uberblock]) -> Result<()> {
        let mut rebuild = Vec::new();
        for address in self.core.map.addresses() {
            let Some(chunk) = self.core.map.get(address).filter(|chunk| chunk.class != Class::Data) else {
                continue;
            };
            let anchor = chunk.bitmap;
            let mut space = NodeSpace::new(chunk.length());
            if chunk.is_over() && self.core.worst_redundancy(chunk, &[]).is_none() {
                // Its bitmap is lost with it, would tell of nothing, and could not be written.
                space.dirty = false;
                self.core.nodes.insert(address, space);
                continue;
            }
            let want = Want {
                address: Logical(address.0 + u64::from(anchor.slot) * NODE_SIZE as u64),
                length: space.slot_bytes() as u32,
                checksum: Checksum::of_node(anchor.checksum),
            };
            let loaded = anchor.txg != Txg(0)
                && self
                    .core
                    .read_anchored(want)
                    .is_some_and(|bytes| space.load(&bytes, self.core.guid, address));
            if loaded {
                self.committed_slots.insert(address, anchor.slot);
            } else {
                rebuild.push(address);
            }
            self.core.nodes.insert(address, space);
        }
        if !rebuild.is_empty() {
            self.rebuild_bitmaps(&rebuild)?;
        }
        if !self.core.read_only || self.roots.len() > 1 {
            let roots = self.roots.clone();
            self.core.looking_back = true;
            let mut older = all.iter().filter(|u| u.txg < uberblock.txg && roots.contains(&u.txg));
            let outcome = older.try_for_each(|older| self.pin(older, uberblock));
            self.core.looking_back = false;
            outcome?;
        }
        Ok(())
    }

    /// Every tree of the pool by the root it has in memory.
    pub(crate) fn roots_of_all_trees(&self) -> Vec<Option<NodePtr>> {
        let mut roots = vec![self.chunks.root(), self.meta.root(), self.extents.root()];
        for dataset in self.datasets.values() {
            roots.push(dataset.tree.root());
            roots.push(dataset.deadlist.root());
        }
        roots.extend(self.zombies.iter().map(|zombie| Some(zombie.root)));
        // Other nodes of a checkpoint are in these trees, too, or named by what it holds back.
        let checkpoint = self.checkpoint.iter();
        roots.extend(checkpoint.flat_map(|checkpoint| [checkpoint.meta_root, checkpoint.held.root()]));
        // What a deadlist names is alive for the snapshots, whose trees are walked too.
        roots
    }

    /// Finds out what is live in some chunks by walking every tree.
    fn rebuild_bitmaps(&mut self, which: &[Logical]) -> Result<()> {
        let mut seen = std::collections::HashSet::new();
        for root in self.roots_of_all_trees() {
            let mut collect = Unseen { seen: &mut seen };
            let _ = walk(root, 0, &mut self.core, &mut collect)?;
        }
        // A snapshot that is being destroyed has no tree any more: what only it had is named by deadlists.
        let Self { core, datasets, checkpoint, .. } = self;
        let held = checkpoint.iter().map(|checkpoint| &checkpoint.held);
        for entries in datasets.values().map(|dataset| &dataset.deadlist).chain(held) {
            entries.scan(core, Key::MIN, Key::MAX, |key, _| {
                if key.kind == DEAD_NODE {
                    seen.insert((key.offset, key.object));
                }
                Ok::<_, PoolError>(ControlFlow::Continue(()))
            })?;
        }
        for (home, _) in seen {
            let address = self.core.remaps.place_of(Logical(home)).0;
            let Some(chunk) = self.core.map.at(Logical(address)).map(|chunk| chunk.address) else { continue };
            if which.contains(&chunk)
                && let Some(space) = self.core.nodes.get_mut(&chunk)
            {
                space.mark((address - chunk.0) / NODE_SIZE as u64);
            }
        }
        let now = self.core.now();
        let message =
            format!("the bitmaps of {} metadata chunks were rebuilt by walking the trees", which.len());
        self.core.events.push(now, "bitmap", None, message);
        Ok(())
    }

    /// Keeps what an older importable root knows and the current one does not from being used again too early.
    fn pin(&mut self, older: &Uberblock, now: &Uberblock) -> Result<()> {
        // What is gone by now was where the older root's own table says, and is read there.
        let Ok(remaps) = self.remaps_at(older) else { return Ok(()) };
        let mut both = self.core.remaps.clone();
        remaps.iter().for_each(|(home, moved)| both.relocate(home, moved.length, moved.to));
        let current = std::mem::replace(&mut self.core.remaps, both);
        let outcome = self.pin_dropped(older, now, &remaps);
        self.core.remaps = current;
        self.pin_moved(&remaps, now.txg);
        outcome
    }

    /// The table of relocations as an older root has it.
    fn remaps_at(&mut self, older: &Uberblock) -> Result<Remaps> {
        let mut remaps = Remaps::default();
        let chunks = tree::Tree::new(self.chunks.identity(), older.chunk_root);
        let (from, to) = txg::range_of(txg::remap_key(Logical(0)));
        chunks.scan(&mut self.core, from, to, |key, value| {
            remaps.load(Logical(key.offset), Moved::decode(Logical(key.offset), value)?);
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })?;
        Ok(remaps)
    }

    /// Keeps the places that nodes were relocated from since an older root.
    fn pin_moved(&mut self, then: &Remaps, txg: Txg) {
        let core = &mut self.core;
        for (start, moved) in core.remaps.iter() {
            for within in (0..moved.length).step_by(NODE_SIZE) {
                let place = then.place_of(Logical(start.0 + within));
                let chunk = core.map.at(place).map(|chunk| chunk.address);
                // Data chunks have no such space: their extents are pinned one by one.
                if place.0 != moved.to.0 + within
                    && let Some(chunk) = chunk
                    && let Some(space) = core.nodes.get_mut(&chunk)
                {
                    space.pin((place.0 - chunk.0) / NODE_SIZE as u64, txg);
                }
            }
        }
    }

    /// Pins what an older root knows and the current one has dropped.
    fn pin_dropped(&mut self, older: &Uberblock, now: &Uberblock, remaps: &Remaps) -> Result<()> {
        let mut nodes = Vec::new();
        for (old, new) in [(older.chunk_root, now.chunk_root), (older.meta_root, now.meta_root)] {
            let mut collect = Collect { items: Some(Vec::new()), ..Collect::default() };
            if dropped(old, new, &mut self.core, &mut collect).is_err() {
                continue;
            }
            nodes.append(&mut collect.nodes);
            for (key, value) in collect.items.unwrap_or_default() {
                if key.kind == txg::chunk_key(Logical(0)).kind && old == older.chunk_root {
                    self.pin_chunk(&value, now.txg);
                }
            }
        }
        let mut collect = Collect { items: Some(Vec::new()), ..Collect::default() };
        if dropped(older.extent_root, now.extent_root, &mut self.core, &mut collect).is_ok() {
            nodes.append(&mut collect.nodes);
            for (key, value) in collect.items.unwrap_or_default() {
                self.pin_extent(key, &value, now.txg)?;
            }
        }
        for (old, new) in self.dataset_roots(older) {
            let mut collect = Collect::default();
            if dropped(old, new, &mut self.core, &mut collect).is_ok() {
                nodes.append(&mut collect.nodes);
            }
        }
        let nodes = nodes.into_iter().map(|pointer| pointer.address).chain(self.dropped_by_checkpoint(older));
        for home in nodes {
            let address = remaps.place_of(Logical(home)).0;
            let Some(chunk) = self.core.map.at(Logical(address)).map(|chunk| chunk.address) else {
                continue;
            };
            if let Some(space) = self.core.nodes.get_mut(&chunk) {
                space.pin((address - chunk.0) / NODE_SIZE as u64, now.txg);
            }
        }
        Ok(())
    }

    /// The trees that the datasets had at an older root, each with what it became.
    fn dataset_roots(&mut self, older: &Uberblock) -> Vec<(Option<NodePtr>, Option<NodePtr>)> {
        let mut then: BTreeMap<DatasetId, Dataset> = BTreeMap::new();
        let guid: Guid = self.core.guid;
        let (from, to) = txg::range_of(txg::dataset_key(DatasetId(0)));
        let meta = tree::Tree::new(self.meta.identity(), older.meta_root);
        let read = meta.scan(&mut self.core, from, to, |key, value| {
            let id = DatasetId(key.offset);
            then.insert(id, Dataset::decode(guid, id, value)?);
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        });
        if read.is_err() {
            return Vec::new();
        }
        let mut roots = Vec::new();
        // Trees that were being freed then: what of them is still being freed is live anyway.
        let (from, to) = txg::range_of(txg::zombie_key(0));
        let zombies = meta.scan(&mut self.core, from, to, |key, value| {
            roots.push((Some(Zombie::decode(key.offset, value)?.root), None));
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        });
        if zombies.is_err() {
            return Vec::new();
        }
        for (id, old) in then {
            let new = self.datasets.get(&id);
            roots.push((old.tree.root(), new.and_then(|dataset| dataset.tree.root())));
            let same = new.filter(|dataset| dataset.deadlist.identity() == old.deadlist.identity());
            roots.push((old.deadlist.root(), same.and_then(|dataset| dataset.deadlist.root())));
        }
        roots
    }

    /// Homes of nodes that an older root has through its checkpoint alone, and the current one has not.
    fn dropped_by_checkpoint(&mut self, older: &Uberblock) -> Vec<u64> {
        let meta = tree::Tree::new(self.meta.identity(), older.meta_root);
        let Ok(Some(item)) = meta.get(&mut self.core, txg::checkpoint_key(0)) else { return Vec::new() };
        let Ok(then) = Checkpoint::decode(self.core.guid, &item) else { return Vec::new() };
        let now = self.checkpoint.as_ref().filter(|now| now.held.identity() == then.held.identity());
        let held = now.and_then(|now| now.held.root());
        let is_kept = now.is_some_and(Checkpoint::is_kept);
        let mut homes = Vec::new();
        let mut collect = Collect { items: Some(Vec::new()), ..Collect::default() };
        if dropped(then.held.root(), held, &mut self.core, &mut collect).is_ok() {
            homes.extend(collect.nodes.iter().map(|pointer| pointer.address));
            let items = collect.items.unwrap_or_default();
            homes.extend(items.iter().filter(|(key, _)| key.kind == DEAD_NODE).map(|(key, _)| key.offset));
        }
        let mut collect = Collect::default();
        if !is_kept && dropped(then.meta_root, self.meta.root(), &mut self.core, &mut collect).is_ok() {
            homes.extend(collect.nodes.iter().map(|pointer| pointer.address));
        }
        homes
    }

    fn pin_extent(&mut self, key: Key, value: &[u8], txg: Txg) -> Result<()> {
        let extent = Extent::decode(value)?;
        let now = self.extents.get(&mut self.core, key)?;
        let lives = now.is_some_and(|now| Extent::decode(&now).is_ok_and(|now| now.birth == extent.birth));
        if !lives && let Some(chunk) = self.core.map.at(Logical(key.offset)) {
            let (address, offset) = (chunk.address, key.offset - chunk.address.0);
            let frees = self.core.unloaded_frees.entry(address).or_default();
            frees.push((txg, offset, u64::from(extent.stored)));
        }
        Ok(())
    }

    /// Keeps the places of a chunk that an older root names from being given to another chunk.
    fn pin_chunk(&mut self, value: &[u8], txg: Txg) {
        let Ok(old) = Chunk::decode(value) else { return };
        let now = self.core.map.get(old.address).cloned();
        for (_, placement) in old.placements() {
            let kept = now.as_ref().is_some_and(|now| {
                now.placements().any(|(_, p)| (p.device, p.offset) == (placement.device, placement.offset))
            });
            if kept {
                continue;
            }
            if let Some(device) = self.core.devices.get_mut(&placement.device) {
                let range = (placement.offset, old.column_bytes + COLUMN_HEADER);
                if device.free.contains(range.0, range.1) {
                    device.free.remove(range.0, range.1);
                    device.deferred.push(txg, range);
                }
            }
        }
    }
}

/// Visits every node once, however many trees share it.
struct Unseen<'a> {
    seen: &'a mut std::collections::HashSet<(u64, u64)>,
}

impl Visitor<PoolError> for Unseen<'_> {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit> {
        if !self.seen.insert((pointer.address, pointer.birth)) || pointer.level == 0 {
            return Ok(Visit::Skip);
        }
        Ok(Visit::Enter)
    }
}

impl Core {
    /// Reads bytes that may have been replaced since: a mismatch is no error of any device, so nobody is charged.
    fn read_anchored(&mut self, want: Want) -> Option<Vec<u8>> {
        let chunk = self.chunk_of(want.address, u64::from(want.length)).ok()?.clone();
        let offset = want.address.0 - chunk.address.0;
        let segments: Vec<_> = chunk.layout.segments(offset, u64::from(want.length)).collect();
        let unit = u64::from(chunk.layout.unit());
        // A slot never crosses a unit: units are at least as long as a node.
        let segment = segments.first()?;
        for column in chunk.layout.columns_of(segment.cell.row, segment.cell.index) {
            let at = segment.cell.row * unit + u64::from(segment.cell.within);
            for (device, from) in self.fresh_placements(&chunk, column, at, u64::from(want.length)) {
                let mut bytes = vec![0; want.length as usize];
                let handle = self.devices.get(&device).and_then(|device| device.open().cloned());
                if handle.is_some_and(|handle| handle.read(from, &mut bytes).is_ok())
                    && want.checksum.matches(&bytes)
                {
                    return Some(bytes);
                }
            }
        }
        None
    }
}
