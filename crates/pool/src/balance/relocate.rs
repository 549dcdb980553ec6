//! Emptying a chunk. Pointers stay as they are: entries of the remap table lead from them to the new places.
//!
//! Extents are read (and healed), checked, and placed like new ones; the extents tree, the remap table and both chunks
//! change in the same transaction group, so that a crash leaves each extent in one place. Places that
//! were left are not used again before no importable root knows of them, and never for anything else as long as the
//! chunk exists, because it is closed.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use geometry::ColumnSet;
use tree::{Expected, Key, NODE_SIZE, Node};

use crate::chunk::{Chunk, Class};
use crate::core::Core;
use crate::error::{PoolError, Result};
use crate::io::Want;
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::txg::extent_key;
use crate::types::Logical;

/// Extents and nodes that one transaction group relocates, about.
pub(super) const THINGS_MAX: u64 = 1024;

/// Nodes that one step relocates at most, and the addresses that it looks at for them, bytes.
const NODES_MAX: u64 = 64;
const NODE_SPAN: u64 = 4 << 20;

/// What a step leaves of the nodes of its commit.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// Things that were relocated before, in the same commit.
    pub(super) already: u64,
    /// Nodes that stay free.
    pub(super) kept: u64,
}

/// What a step came to.
pub(super) struct Step {
    /// Bytes that were relocated, of so many extents or nodes.
    pub(super) bytes: u64,
    pub(super) things: u64,
    /// Extents or nodes that can't be read: they stay.
    pub(super) errors: u64,
    /// From which byte of the chunk on there may be more; none when it was gone through.
    pub(super) next: Option<u64>,
}

impl Step {
    /// Nothing was left to do.
    const END: Self = Self { bytes: 0, things: 0, errors: 0, next: None };
}

/// An extent on its way.
struct Moving {
    from: Logical,
    extent: Extent,
}

impl Pool {
    /// Sees to it that nothing is allocated in a chunk any more, after `already` things were relocated in the same commit.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when the commit could not do without the nodes that are free in it: it stays open.
    pub(super) fn close_chunk(&mut self, address: Logical, already: u64) -> Result<()> {
        self.write_dirty()?;
        let Some(chunk) = self.core.map.change(address) else { return Ok(()) };
        // One that was closed before is never opened again: homes of what was relocated lie in it.
        let was_closed = std::mem::replace(&mut chunk.closed, true);
        if chunk.class != Class::Data && !was_closed && !self.claim_nodes(already, 0, true) {
            if let Some(chunk) = self.core.map.change(address) {
                chunk.closed = false;
            }
            return Err(PoolError::NoSpace);
        }
        self.core.current_data.retain(|_, current| *current != address);
        self.core.current_nodes.retain(|_, current| *current != address);
        if let Some(space) = self.core.data.get_mut(&address) {
            space.close();
        }
        self.room_bytes = 0;
        self.changed = true;
        Ok(())
    }

    /// What is dirty gets its room first; from here on nobody else needs any.
    fn write_dirty(&mut self) -> Result<()> {
        if self.dirty_entries() > 0 { self.commit() } else { Ok(()) }
    }

    /// How many things, of `most`, the commit can relocate: that it finds nodes is seen to before room is taken for anything else.
    fn relocated_at_once(&mut self, share: Share, most: u64) -> Result<u64> {
        let counts = std::iter::successors(Some(most), |count| Some(count / 4));
        let mut counts = counts.take_while(|&count| count > 0);
        let fits = |&count: &u64| self.claim_nodes(share.already + count, share.kept, count == most);
        counts.find(fits).ok_or(PoolError::NoSpace)
    }

    /// Relocates extents of a data chunk from a byte of it on.
    pub(super) fn relocate_extents(
        &mut self,
        chunk: &Chunk,
        from: u64,
        budget: u64,
        share: Share,
    ) -> Result<Step> {
        self.write_dirty()?;
        let mut found: Vec<Moving> = Vec::new();
        let mut bytes = 0;
        let (first, last) = (Logical(chunk.address.0 + from), Logical(chunk.end().0 - 1));
        self.extents.scan(&mut self.core, extent_key(first), extent_key(last), |key, value| {
            let extent = Extent::decode(value)?;
            bytes += u64::from(extent.stored);
            found.push(Moving { from: Logical(key.offset), extent });
            let more = (found.len() as u64) < THINGS_MAX && bytes < budget;
            Ok::<_, PoolError>(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if found.is_empty() {
            return Ok(Step::END);
        }
        let most = self.relocated_at_once(share, found.len() as u64)?;
        found.truncate(most as usize);
        let Some(last) = found.last() else { return Ok(Step::END) };
        let next = Some(last.from.0 + u64::from(last.extent.stored) - chunk.address.0);
        let wants: Vec<Want> = found
            .iter()
            .map(|Moving { from, extent }| Want {
                address: *from,
                length: extent.stored,
                checksum: extent.checksum,
            })
            .collect();
        let read = self.core.read_extents(&wants);
        let (mut moving, mut items, mut errors) = (Vec::new(), Vec::new(), 0);
        for (extent, bytes) in found.into_iter().zip(read) {
            match bytes {
                Ok(bytes) => {
                    moving.push(extent);
                    items.push(Bytes::from(bytes));
                }
                Err(PoolError::Unreadable { .. }) => errors += 1,
                Err(error) => return Err(error),
            }
        }
        let bytes = items.iter().map(|item| item.len() as u64).sum();
        if !items.is_empty() {
            self.move_extents(chunk.address, &moving, &items)?;
        }
        Ok(Step { bytes, things: items.len() as u64, errors, next })
    }

    fn move_extents(&mut self, chunk: Logical, moving: &[Moving], items: &[Bytes]) -> Result<()> {
        self.room_bytes = 0;
        self.core.set_relocating(true);
        let placed = self.place(items);
        self.core.set_relocating(false);
        let mut placed = placed?;
        let to: Vec<Logical> = placed.addresses.iter().copied().flatten().collect();
        let ready = if to.len() == items.len() { self.look_up(moving, &to) } else { Err(PoolError::NoSpace) };
        if let Err(error) = ready {
            self.unplace(items, &placed);
            return Err(error);
        }
        self.syncing.get_or_insert_default().pieces.append(&mut placed.pieces);
        for ((Moving { from, extent }, &to), item) in moving.iter().zip(&to).zip(items) {
            self.extents.remove(&mut self.core, extent_key(*from))?;
            self.extents.insert(&mut self.core, extent_key(to), &extent.encode())?;
            self.core.unwritten_extents.insert(to, item.clone());
            let home = self.core.remaps.home_of(*from);
            let off = if self.core.is_sabotaged("remap-off-by-one") { crate::SECTOR } else { 0 };
            self.core.remaps.relocate(home, item.len() as u64, Logical(to.0 + off));
            self.leave_place(chunk, *from, item.len() as u64);
        }
        let is_empty = self.core.map.get(chunk).is_some_and(|chunk| chunk.used == 0);
        if is_empty && self.core.is_sabotaged("empty-early") {
            self.core.drop_chunk(chunk);
        }
        self.changed = true;
        Ok(())
    }

    /// Reads every part of the extents tree that is to be changed, so that the changes are made all or none.
    fn look_up(&mut self, moving: &[Moving], to: &[Logical]) -> Result<()> {
        for address in moving.iter().map(|moving| moving.from).chain(to.iter().copied()) {
            self.extents.get_with(&mut self.core, extent_key(address), |_| ())?;
        }
        Ok(())
    }

    /// As [`Pool::relocate_extents`], nodes of a metadata chunk.
    pub(super) fn relocate_nodes(
        &mut self,
        chunk: &Chunk,
        from: u64,
        budget: u64,
        share: Share,
    ) -> Result<Step> {
        self.write_dirty()?;
        let most = NODES_MAX.min(budget / NODE_SIZE as u64).max(1);
        let most = self.relocated_at_once(share, most)? as usize;
        let Some(space) = self.core.nodes.get(&chunk.address) else {
            return Ok(Step::END);
        };
        let mut live =
            space.iter_live().map(|index| index * NODE_SIZE as u64).filter(|&at| at >= from).peekable();
        let Some(&first) = live.peek() else { return Ok(Step::END) };
        let live: Vec<u64> = live.take(most).take_while(|at| at - first < NODE_SPAN).collect();
        let last = live.last().copied().unwrap_or(first);
        let rows = chunk.layout.rows_of(first, last + NODE_SIZE as u64 - first);
        self.core.charged.clear();
        let loaded = self.core.read_rows(chunk, rows, &ColumnSet::first(chunk.columns.len() as u16));
        let (txg, pool) = (self.core.txg, self.core.guid.0);
        let mut step = Step { next: Some(last + NODE_SIZE as u64), ..Step::END };
        let mut outcome = Ok(());
        for at in live {
            let home = self.core.remaps.home_of(Logical(chunk.address.0 + at));
            let expected = Expected { pool: Some(pool), ..Expected::default() };
            let copy = self.core.best_copy(chunk, &loaded, at);
            let node = copy.and_then(|bytes| Node::parse(bytes.into_boxed_slice(), &expected).ok());
            let Some(node) = node else {
                step.errors += 1;
                continue;
            };
            self.core.set_relocating(true);
            let to = self.core.allocate_node(Class::Metadata);
            self.core.set_relocating(false);
            match to {
                Ok(to) => {
                    self.core.unwritten_nodes.insert(to, Arc::new(node));
                    if let Some(space) = self.core.nodes.get_mut(&chunk.address) {
                        space.free_node(at / NODE_SIZE as u64, true, txg);
                    }
                    self.core.remaps.relocate(home, NODE_SIZE as u64, Logical(to));
                    step.bytes += NODE_SIZE as u64;
                    step.things += 1;
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.core.recycle(loaded);
        self.changed = true;
        outcome.map(|()| step)
    }

    /// Writes all of the chunk tree anew, which leaves closed system chunks empty. System chunks are never remapped.
    pub(super) fn rewrite_chunk_tree(&mut self, chunk: &Chunk) -> Result<Step> {
        let nodes = self.core.nodes.get(&chunk.address).map_or(0, crate::space::NodeSpace::live);
        let mut items: Vec<(Key, Vec<u8>)> = Vec::new();
        self.chunks.scan(&mut self.core, Key::MIN, Key::MAX, |key, value| {
            items.push((key, value.to_vec()));
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })?;
        for (key, value) in items {
            self.chunks.insert(&mut self.core, key, &value)?;
        }
        self.changed = true;
        Ok(Step { bytes: nodes * NODE_SIZE as u64, things: nodes, ..Step::END })
    }
}

impl Core {
    /// Whose room is looked for from now on.
    fn set_relocating(&mut self, relocating: bool) {
        self.relocating = relocating;
        // What could be made is not the same.
        self.space_changed();
    }
}
