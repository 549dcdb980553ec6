//! The pool as it was once, to go back to: `coffer checkpoint`.
//!
//! - this file: taking a checkpoint, what it holds back, and discarding it
//! - `rewind`: going back, at an import
//! - `check`: proof that it is whole
//!
//! A checkpoint is a root of the meta tree that is kept, and with it all volumes and snapshots of that time. Chunk map,
//! remap table and extents tree are always the current ones: what the checkpoint knows may be relocated, resilvered and
//! scrubbed like everything else, and devices may come and go meanwhile.
//!
//! As long as it is kept nothing that was born up to its transaction group is freed. Extents keep their items and nodes
//! their bits, so everybody takes them for live; entries in the tree `held` say that the current state has dropped them.
//! Nodes of the meta tree have no entries (that tree says where `held` is): they are found by comparing the two roots.
//! Nodes of the extents tree and of the chunk tree are no part of a checkpoint.

mod check;
mod rewind;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use tree::{Bounds, Key, NodePtr, Tree, TreeId, Visit, Visitor, dropped};

use crate::chunk::Class;
use crate::codec::{DecodeError, Reader, Writer};
use crate::core::Core;
use crate::dataset::{DEAD_EXTENT, DEAD_NODE, dead_length, dead_value};
use crate::error::{PoolError, Result};
use crate::pointer::{BlockPtr, Extent};
use crate::pool::Pool;
use crate::report::CheckpointReport;
use crate::txg::commit_tree;
use crate::types::{Guid, Logical, Millis, Txg};

pub(crate) use rewind::Rewind;

/// A checkpoint, or what is left of one that is being discarded.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The last transaction group that is in it.
    pub(crate) txg: Txg,
    pub(crate) taken: Millis,
    /// The meta tree of then; none once it is being discarded.
    pub(crate) meta_root: Option<NodePtr>,
    /// What only the checkpoint knows: keys and values as on deadlists, where the key's object is the birth.
    pub(crate) held: Tree,
    held_bytes: u64,
    held_nodes: u64,
    /// What is being destroyed waits since there was room for so many nodes: too few for what would be held back.
    stuck_at: Option<u64>,
}

impl Checkpoint {
    /// See "Checkpoint item" in `docs/on-disk-format.md`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u8(if self.is_kept() { 1 } else { 2 });
        w.u64(self.txg.0);
        w.u64(self.taken.0);
        w.raw(&NodePtr::encode_root(self.meta_root.as_ref()));
        w.u64(self.held.identity().tree);
        w.raw(&NodePtr::encode_root(self.held.root().as_ref()));
        w.u64(self.held_bytes);
        w.u64(self.held_nodes);
        w.finish()
    }

    pub(crate) fn decode(pool: Guid, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("checkpoint item", bytes);
        let state = r.u8("state")?;
        let txg = Txg(r.u64("txg")?);
        let taken = Millis(r.u64("time")?);
        let root = |r: &mut Reader<'_>, field| {
            NodePtr::decode_root(&r.array(field)?).map_err(|error| r.error(field, error.to_string()))
        };
        let meta_root = root(&mut r, "root of the meta tree")?;
        let tree = r.u64("tree id")?;
        let held = Tree::new(TreeId { pool: pool.0, tree }, root(&mut r, "root of what is held back")?);
        let held_bytes = r.u64("bytes held back")?;
        let held_nodes = r.u64("nodes held back")?;
        if state != if meta_root.is_some() { 1 } else { 2 } {
            return Err(r.error("state", format!("is {state}, which does not go with the root")));
        }
        r.end()?;
        Ok(Self { txg, taken, meta_root, held, held_bytes, held_nodes, stuck_at: None })
    }

    /// Whether it can be gone back to.
    pub(crate) fn is_kept(&self) -> bool {
        self.meta_root.is_some()
    }

    /// Stored bytes of extents, and nodes, that it holds back.
    pub(crate) const fn held_numbers(&self) -> (u64, u64) {
        (self.held_bytes, self.held_nodes)
    }

    /// Enters what the current state has dropped.
    fn hold(&mut self, core: &mut Core, kind: u8, home: Logical, birth: Txg, stored: u32) -> Result<()> {
        let key = Key { object: birth.0, kind, offset: home.0 };
        if self.held.insert(core, key, &dead_value(stored))?.is_some() {
            return Err(PoolError::Corrupt(format!("what is at logical address {home} is freed twice")));
        }
        self.held_bytes += u64::from(stored);
        self.held_nodes += u64::from(kind == DEAD_NODE);
        Ok(())
    }

    /// Takes out what is free from now on.
    fn let_go(&mut self, core: &mut Core, key: Key, stored: u32) -> Result<()> {
        self.held.remove(core, key)?;
        self.held_bytes = self.held_bytes.saturating_sub(u64::from(stored));
        self.held_nodes = self.held_nodes.saturating_sub(u64::from(key.kind == DEAD_NODE));
        Ok(())
    }
}

/// The key of what is held back for the extent of a block.
pub(crate) fn held_key(pointer: &BlockPtr) -> Key {
    Key { object: pointer.extent_birth.0, kind: DEAD_EXTENT, offset: pointer.address.0 }
}

impl Pool {
    /// The checkpoint that can be gone back to.
    pub(crate) fn kept_checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref().filter(|checkpoint| checkpoint.is_kept())
    }

    /// Keeps the pool's state as it is now.
    ///
    /// # Errors
    /// There is a checkpoint, one is being discarded, a rewind has something left to free, or there is no room.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.writable()?;
        if let Some(checkpoint) = &self.checkpoint {
            return Err(PoolError::refused(if checkpoint.is_kept() {
                format!("pool '{}' has a checkpoint already; discard it first", self.core.name)
            } else {
                format!(
                    "the checkpoint of pool '{}' is still being discarded; try again soon",
                    self.core.name
                )
            }));
        }
        if self.rewound.is_some() {
            return Err(PoolError::refused(format!(
                "what came after the checkpoint that pool '{}' went back to is still being freed; try again soon",
                self.core.name
            )));
        }
        // What is held back later is more than now, and must leave room for discarding it.
        self.admit_change()?;
        self.commit()?;
        let (txg, now) = (self.committed, self.core.now());
        let Some(meta_root) = self.meta.root() else { return Ok(()) };
        let held = Tree::new(TreeId { pool: self.core.guid.0, tree: self.next_id }, None);
        self.next_id += 1;
        self.checkpoint = Some(Checkpoint {
            txg,
            taken: now,
            meta_root: Some(meta_root),
            held,
            held_bytes: 0,
            held_nodes: 0,
            stuck_at: None,
        });
        self.core.held_to = txg;
        self.room_bytes = 0;
        self.core.events.push(
            now,
            "checkpoint",
            None,
            format!("checkpoint of transaction group {txg} taken"),
        );
        self.changed = true;
        self.commit()
    }

    /// Gives the checkpoint up: from here on it can't be gone back to; what only it knows is freed in steps.
    ///
    /// # Errors
    /// There is none, or it is being discarded already.
    pub fn checkpoint_discard(&mut self) -> Result<()> {
        self.writable()?;
        let Some(checkpoint) = &self.checkpoint else {
            return Err(PoolError::refused(format!("pool '{}' has no checkpoint", self.core.name)));
        };
        let Some(then) = checkpoint.meta_root else {
            return Err(PoolError::refused(format!(
                "the checkpoint of pool '{}' is being discarded already",
                self.core.name
            )));
        };
        // So that what was dropped since the last commit is entered, or is not yet dropped.
        self.commit()?;
        let mut nodes = Nodes(Vec::new());
        let _ = dropped(Some(then), self.meta.root(), &mut self.core, &mut nodes)?;
        self.core.held_to = Txg(0);
        for pointer in nodes.0 {
            self.core.free_node(pointer.address, Txg(pointer.birth));
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.meta_root = None;
        }
        let now = self.core.now();
        self.core.events.push(
            now,
            "checkpoint_discard",
            None,
            "the checkpoint is being discarded".to_owned(),
        );
        self.room_bytes = 0;
        self.changed = true;
        self.commit()
    }

    /// Holds an extent back if the checkpoint knows it; whether it did. The current state has dropped it for good.
    pub(crate) fn hold_extent(&mut self, home: Logical, extent: &Extent) -> Result<bool> {
        let Some(checkpoint) = self.checkpoint.as_mut().filter(|_| extent.birth <= self.core.held_to) else {
            return Ok(false);
        };
        if self.core.is_sabotaged("forget-checkpoint") {
            return Ok(false);
        }
        checkpoint.hold(&mut self.core, DEAD_EXTENT, home, extent.birth, extent.stored)?;
        Ok(true)
    }

    /// Enters the nodes that were dropped, and makes up the tree's own nodes.
    pub(crate) fn commit_held(&mut self) -> Result<()> {
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        while let Some(&(home, birth)) = self.core.held_nodes.last() {
            checkpoint.hold(&mut self.core, DEAD_NODE, Logical(home), birth, 0)?;
            self.core.held_nodes.pop();
        }
        commit_tree(&mut checkpoint.held, &mut self.core, Class::Metadata)?;
        for pointer in checkpoint.held.take_freed() {
            self.core.free_node(pointer.address, Txg(pointer.birth));
        }
        Ok(())
    }

    /// Whether a step of what is being destroyed would find no room for what it would have held back, not even in what
    /// writers leave: it waits until the checkpoint is discarded, or for more room.
    pub(crate) fn is_stuck(&self) -> bool {
        let at = self.kept_checkpoint().and_then(|checkpoint| checkpoint.stuck_at);
        at.is_some_and(|at| self.node_room() <= at)
    }

    /// How many things, of `most`, can be freed at once so that what is left for discarding the checkpoint stays; at least 1.
    pub(crate) fn held_at_once(&self, most: u64) -> u64 {
        if self.kept_checkpoint().is_none() {
            return most;
        }
        let room = self.node_room();
        let fits = |count: &u64| *count <= 1 || self.nodes_for(*count) + crate::txg::NODES_RESERVED <= room;
        std::iter::successors(Some(most), |count| Some(count / 2)).find(fits).unwrap_or(1).max(1)
    }

    /// Whether there is room for another `nodes` nodes beside what is left for discarding the checkpoint; where there is
    /// none, whoever asked is stuck. Without a checkpoint there is.
    pub(crate) fn may_hold(&mut self, nodes: u64) -> bool {
        let room = self.node_room();
        let Some(checkpoint) = self.checkpoint.as_mut().filter(|checkpoint| checkpoint.is_kept()) else {
            return true;
        };
        let fits = room >= nodes + crate::txg::NODES_RESERVED;
        checkpoint.stuck_at = (!fits).then_some(room);
        fits
    }

    /// Frees some of what the checkpoint that is being discarded held back; false if there is none.
    pub(crate) fn discard_step(&mut self, limit: usize) -> Result<bool> {
        let Some(checkpoint) = self.checkpoint.as_mut().filter(|checkpoint| !checkpoint.is_kept()) else {
            return Ok(false);
        };
        let mut entries: Vec<(Key, u32)> = Vec::new();
        checkpoint.held.scan(&mut self.core, Key::MIN, Key::MAX, |key, value| {
            entries.push((key, dead_length(value)?));
            Ok::<_, PoolError>(if entries.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        for (key, stored) in entries {
            if let Some(checkpoint) = &mut self.checkpoint {
                checkpoint.let_go(&mut self.core, key, stored)?;
            }
            self.free_dead(key)?;
        }
        if self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.held.is_empty()) {
            // Its own nodes are dropped with the last entry; the next commit takes them, and then the item.
            self.commit_held()?;
            self.checkpoint = None;
            let now = self.core.now();
            self.core.events.push(now, "checkpoint_discard", None, "the checkpoint was discarded".to_owned());
        }
        Ok(true)
    }

    /// What `status` tells about the checkpoint.
    pub(crate) fn checkpoint_report(&self) -> Option<CheckpointReport> {
        self.checkpoint.as_ref().map(|checkpoint| CheckpointReport {
            taken: checkpoint.taken,
            txg: checkpoint.txg,
            held: checkpoint.held_bytes + checkpoint.held_nodes * tree::NODE_SIZE as u64,
            discarding: !checkpoint.is_kept(),
        })
    }
}

impl Core {
    /// Frees a node of a volume, snapshot or deadlist that the current state has dropped, unless the checkpoint knows it.
    pub(crate) fn drop_node(&mut self, home: u64, birth: Txg) {
        if birth <= self.held_to {
            self.held_nodes.push((home, birth));
        } else {
            self.free_node(home, birth);
        }
    }
}

/// Collects nodes.
struct Nodes(Vec<NodePtr>);

impl Visitor<PoolError> for Nodes {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit> {
        self.0.push(*pointer);
        Ok(if pointer.level == 0 { Visit::Skip } else { Visit::Enter })
    }

    fn unreadable(&mut self, _: &NodePtr, _: Bounds, _: PoolError) -> Result<ControlFlow<()>> {
        // What is below a lost node can't be freed; `check` will tell.
        Ok(ControlFlow::Continue(()))
    }
}
