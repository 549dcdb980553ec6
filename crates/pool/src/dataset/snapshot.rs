//! Snapshots: taking them, rolling back to them, destroying them and volumes.
//!
//! Taking one and rolling back are one transaction each, whatever the volume's size. What they leave to be freed
//! is freed by a job in bounded steps: the entries of a destroyed snapshot's neighbour's deadlist, or a *zombie*,
//! a tree that no name leads to any more.

use std::ops::ControlFlow;

use tree::{Bounds, Key, NodePtr, Tree, TreeId, Visit, Visitor, walk_from};

use super::{DEAD_EXTENT, DEAD_NODE, Dataset, NewDataset};
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{PoolError, Result};
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::types::{DatasetId, Logical, Txg};

/// Entries of what a checkpoint holds back that are in a node at least, where many are made at once.
const HELD_IN_NODE: u64 = 64;

/// Entries that one step of a destroy frees.
const STEP_ENTRIES: u64 = 4096;

/// A tree whose blocks and nodes born after a transaction group are to be freed.
#[derive(Debug)]
pub(crate) struct Zombie {
    pub(crate) id: u64,
    pub(crate) tree: u64,
    pub(crate) root: NodePtr,
    /// What was born up to here belongs to a snapshot.
    pub(crate) min_birth: Txg,
    /// Blocks before it are freed already.
    pub(crate) cursor: Key,
}

impl Zombie {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.tree);
        w.raw(&self.root.encode());
        w.u64(self.min_birth.0);
        w.u64(self.cursor.object);
        w.u8(self.cursor.kind);
        w.u64(self.cursor.offset);
        w.finish()
    }

    pub(crate) fn decode(id: u64, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("zombie item", bytes);
        let tree = r.u64("tree id")?;
        let root = NodePtr::decode(&r.array("root")?).map_err(|error| r.error("root", error.to_string()))?;
        let min_birth = Txg(r.u64("birth")?);
        let cursor = Key { object: r.u64("cursor")?, kind: r.u8("cursor")?, offset: r.u64("cursor")? };
        r.end()?;
        Ok(Self { id, tree, root, min_birth, cursor })
    }
}

impl Pool {
    /// The transaction group of the last snapshot of a volume; 0 when it has none.
    pub(crate) fn last_snapshot_txg(&self, dataset: &Dataset) -> Txg {
        dataset.previous.and_then(|id| self.datasets.get(&id)).map_or(Txg(0), |snapshot| snapshot.created_txg)
    }

    /// The dataset whose predecessor is `id`: the next snapshot, or the volume itself.
    fn successor(&self, id: DatasetId) -> Option<DatasetId> {
        self.datasets.values().find(|dataset| dataset.previous == Some(id)).map(|dataset| dataset.id)
    }

    /// Snapshots of a volume, the oldest first; those being destroyed are left out.
    pub(crate) fn snapshots_of(&self, volume: DatasetId) -> Vec<DatasetId> {
        let mut found: Vec<&Dataset> =
            self.datasets.values().filter(|d| d.head == Some(volume) && !d.destroying).collect();
        found.sort_by_key(|snapshot| snapshot.created_txg);
        found.into_iter().map(|snapshot| snapshot.id).collect()
    }

    /// Takes a snapshot `vol@snap` of the volume as it is now.
    ///
    /// # Errors
    /// No such volume, the name is taken, or there is no room to keep the volume's reservation beside it.
    pub fn snapshot(&mut self, name: &str) -> Result<()> {
        self.writable()?;
        let Some((volume, snap)) = name.split_once('@') else {
            return Err(PoolError::refused(format!("'{name}' is no snapshot: it has no '@'")));
        };
        super::volume::check_name("snapshot", snap)?;
        let head = self.find(volume)?;
        if self.find(name).is_ok() {
            return Err(PoolError::Exists { kind: "snapshot", name: format!("{}/{name}", self.core.name) });
        }
        self.commit()?;
        let dataset = self.dataset(head)?;
        if dataset.reservation > 0 {
            // Everything may be overwritten while the snapshot keeps the old: the reservation counts anew.
            let kept = dataset.referenced.min(dataset.reservation).saturating_sub(self.shared_bytes(dataset));
            if kept > self.available(None) {
                return Err(PoolError::refused(format!(
                    "no room for a snapshot of '{volume}': {kept} bytes of its reservation would have to be kept beside it, \
                     {} are available",
                    self.available(None)
                )));
            }
        }
        self.admit_change()?;
        let id = DatasetId(self.next_id);
        let fresh_deadlist = self.next_id + 1;
        self.next_id += 2;
        let (now, committed, pool) = (self.core.now(), self.committed, self.core.guid);
        let Some(head_dataset) = self.datasets.get_mut(&head) else { return Ok(()) };
        let identity = head_dataset.tree.identity();
        let empty = Tree::new(TreeId { pool: pool.0, tree: fresh_deadlist }, None);
        let snapshot = Dataset {
            head: Some(head),
            previous: head_dataset.previous,
            created: now,
            created_txg: committed,
            size: head_dataset.size,
            block_size: head_dataset.block_size,
            referenced: head_dataset.referenced,
            dead_bytes: std::mem::take(&mut head_dataset.dead_bytes),
            properties: head_dataset.properties.clone(),
            tree: Tree::new(identity, head_dataset.tree.root()),
            deadlist: std::mem::replace(&mut head_dataset.deadlist, empty),
            ..Dataset::new(NewDataset { pool, id, name: name.to_owned(), trees: (0, 0) })
        };
        head_dataset.previous = Some(id);
        head_dataset.changed = true;
        self.datasets.insert(id, snapshot);
        if let Some(snapshot) = self.datasets.get_mut(&id) {
            snapshot.apply_properties();
        }
        self.changed = true;
        self.commit()
    }

    /// Stored bytes of a volume that its last snapshot holds too.
    pub(crate) fn shared_bytes(&self, dataset: &Dataset) -> u64 {
        let previous = dataset.previous.and_then(|id| self.datasets.get(&id));
        previous.map_or(0, |snapshot| snapshot.referenced.saturating_sub(dataset.dead_bytes))
    }

    /// Makes a volume what it was at its last snapshot.
    ///
    /// # Errors
    /// No such snapshot, or it is not the last one.
    pub fn rollback(&mut self, name: &str) -> Result<()> {
        self.writable()?;
        let id = self.find(name)?;
        let full = |name: &str| format!("{}/{name}", self.core.name);
        let snapshot = self.dataset(id)?;
        let Some(head) = snapshot.head else {
            return Err(PoolError::refused(format!("'{}' is no snapshot", full(name))));
        };
        let later: Vec<String> = self
            .snapshots_of(head)
            .into_iter()
            .filter_map(|other| self.datasets.get(&other))
            .filter(|other| other.created_txg > snapshot.created_txg)
            .map(|other| full(&other.name))
            .collect();
        if !later.is_empty() {
            return Err(PoolError::refused(format!(
                "cannot roll back to '{}': more recent snapshots exist; destroy them first: {}",
                full(name),
                later.join(", ")
            )));
        }
        if self.dataset(head)?.previous != Some(id) {
            return Err(PoolError::refused(format!(
                "cannot roll back to '{}' while later snapshots are still being destroyed; try again soon",
                full(name)
            )));
        }
        let (root, referenced, size) = (snapshot.tree.root(), snapshot.referenced, snapshot.size);
        let min_birth = snapshot.created_txg;
        self.commit()?;
        self.refuse_to_hold(head)?;
        let zombie_id = self.next_id;
        let fresh_deadlist = self.next_id + 1;
        self.next_id += 2;
        let pool = self.core.guid.0;
        let Some(dataset) = self.datasets.get_mut(&head) else { return Ok(()) };
        self.dirty_bytes -= dataset.dirty_bytes();
        dataset.dirty.clear();
        let identity = dataset.tree.identity();
        let old = std::mem::replace(&mut dataset.tree, Tree::new(identity, root));
        let empty = Tree::new(TreeId { pool, tree: fresh_deadlist }, None);
        let deadlist = std::mem::replace(&mut dataset.deadlist, empty);
        dataset.dead_bytes = 0;
        dataset.referenced = referenced;
        dataset.size = size;
        dataset.changed = true;
        if dataset.reservation > 0 {
            dataset.reservation = size;
        }
        if let Some(old_root) = old.root()
            && Some(old_root) != root
        {
            let zombie =
                Zombie { id: zombie_id, tree: identity.tree, root: old_root, min_birth, cursor: Key::MIN };
            self.add_zombie(zombie)?;
        }
        self.free_whole_tree(&deadlist)?;
        self.changed = true;
        self.commit()
    }

    fn add_zombie(&mut self, zombie: Zombie) -> Result<()> {
        let key = crate::txg::zombie_key(zombie.id);
        self.meta.insert(&mut self.core, key, &zombie.encode())?;
        self.zombies.push(zombie);
        Ok(())
    }

    /// Frees every node of a tree that nothing shares.
    fn free_whole_tree(&mut self, tree: &Tree) -> Result<()> {
        for pointer in self.nodes_of(tree.root(), Txg(0))? {
            self.core.drop_node(pointer.address, Txg(pointer.birth));
        }
        Ok(())
    }

    /// Fails where what a checkpoint would hold back of a volume's deadlist finds no room.
    fn refuse_to_hold(&mut self, id: DatasetId) -> Result<()> {
        let deadlist = self.dataset(id)?.deadlist.root();
        let nodes = if self.kept_checkpoint().is_some() { self.nodes_of(deadlist, Txg(0))?.len() } else { 0 };
        if self.may_hold(nodes as u64 / HELD_IN_NODE + self.nodes_for(1)) {
            return Ok(());
        }
        Err(PoolError::refused(format!(
            "there is no room to keep what the checkpoint of pool '{}' has of it; discard the checkpoint first",
            self.core.name
        )))
    }

    /// The nodes of a tree that were born after `min_birth`.
    fn nodes_of(&mut self, root: Option<NodePtr>, min_birth: Txg) -> Result<Vec<NodePtr>> {
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
        let mut nodes = Nodes(Vec::new());
        let _ = walk_from(root, min_birth.0, Key::MIN, &mut self.core, &mut nodes)?;
        Ok(nodes.0)
    }

    /// Destroys a volume that has no snapshots.
    ///
    /// # Errors
    /// No such volume, or it has snapshots.
    pub fn volume_destroy(&mut self, name: &str) -> Result<()> {
        self.writable()?;
        let id = self.find(name)?;
        let snapshots: Vec<String> =
            self.snapshots_of(id).iter().filter_map(|id| Some(self.datasets.get(id)?.name.clone())).collect();
        if !snapshots.is_empty() {
            return Err(PoolError::refused(format!(
                "cannot destroy '{name}': it has snapshots; destroy them first: {}",
                snapshots.join(", ")
            )));
        }
        if self.dataset(id)?.is_snapshot() {
            return self.snapshot_destroy(name);
        }
        if self.dataset(id)?.previous.is_some() {
            // The last snapshots are still being destroyed: let that end, in as many steps as it takes.
            while self.dataset(id)?.previous.is_some() && !self.is_stuck() && self.destroy_step()? {}
            if self.dataset(id)?.previous.is_some() {
                return Err(PoolError::refused(format!(
                    "cannot destroy '{name}' while its snapshots are still being destroyed, for which the checkpoint leaves no \
                     room; discard the checkpoint first"
                )));
            }
        }
        self.commit()?;
        self.refuse_to_hold(id)?;
        let zombie_id = self.next_id;
        self.next_id += 1;
        let Some(dataset) = self.datasets.remove(&id) else { return Ok(()) };
        self.meta.remove(&mut self.core, crate::txg::dataset_key(id))?;
        if let Some(root) = dataset.tree.root() {
            let tree = dataset.tree.identity().tree;
            self.add_zombie(Zombie { id: zombie_id, tree, root, min_birth: Txg(0), cursor: Key::MIN })?;
        }
        self.free_whole_tree(&dataset.deadlist)?;
        self.changed = true;
        self.commit()
    }

    /// Destroys a snapshot: its name is gone at once, its space comes back as a job frees it.
    ///
    /// # Errors
    /// No such snapshot.
    pub fn snapshot_destroy(&mut self, name: &str) -> Result<()> {
        self.writable()?;
        let id = self.find(name)?;
        if !self.dataset(id)?.is_snapshot() {
            return Err(PoolError::refused(format!("'{name}' is no snapshot")));
        }
        if let Some(snapshot) = self.datasets.get_mut(&id) {
            snapshot.destroying = true;
            // Its nodes are freed little by little: from here on only deadlists name those that nobody else has.
            snapshot.tree = Tree::new(snapshot.tree.identity(), None);
            snapshot.changed = true;
        }
        self.changed = true;
        self.commit()
    }

    /// Whether something is being destroyed: volumes, snapshots, a checkpoint, or what a rewind gave up.
    pub(crate) fn destroys(&self) -> bool {
        self.rewound.is_some()
            || self.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.is_kept())
            || !self.zombies.is_empty()
            || self.datasets.values().any(|dataset| dataset.destroying)
    }

    /// One bounded step of whatever is being destroyed; true when there is more to do.
    pub(crate) fn destroy_step(&mut self) -> Result<bool> {
        if !self.destroys() {
            return Ok(false);
        }
        // Few while the pool is nearly full, so that the step itself finds room.
        let limit = self.freed_at_once(STEP_ENTRIES)?;
        let limit = self.held_at_once(limit);
        if !self.may_hold(self.nodes_for(limit)) {
            return Ok(false);
        }
        let limit = limit as usize;
        // Before anything is relocated, which could carry what is to be freed behind the cursor.
        if self.rewind_step(limit)? || self.discard_step(limit)? {
            self.changed = true;
            self.commit()?;
            return Ok(self.destroys());
        }
        let snapshot = self.datasets.values().find(|dataset| dataset.destroying).map(|dataset| dataset.id);
        match snapshot {
            Some(id) => self.destroy_snapshot_step(id, limit)?,
            None => self.destroy_zombie_step(limit)?,
        }
        self.changed = true;
        self.commit()?;
        Ok(self.destroys())
    }

    fn destroy_snapshot_step(&mut self, id: DatasetId, limit: usize) -> Result<()> {
        let Some(snapshot) = self.datasets.get(&id) else { return Ok(()) };
        let (previous, min_birth) = (snapshot.previous, self.last_snapshot_txg(snapshot));
        let Some(next) = self.successor(id) else {
            return Err(PoolError::Corrupt(format!("the destroyed snapshot {} has no successor", id.0)));
        };

        // 1. What the successor dropped and only this snapshot still held is free now.
        let from = Key { object: min_birth.0 + 1, kind: 0, offset: 0 };
        let mut entries: Vec<(Key, u32)> = Vec::new();
        if let Some(next) = self.datasets.get(&next) {
            next.deadlist.scan(&mut self.core, from, Key::MAX, |key, value| {
                entries.push((key, dead_length(value)?));
                Ok(if entries.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        if !entries.is_empty() {
            for (key, length) in entries {
                if let Some(next) = self.datasets.get_mut(&next) {
                    next.deadlist.remove(&mut self.core, key)?;
                    next.changed = true;
                    if key.kind == DEAD_EXTENT {
                        next.dead_bytes = next.dead_bytes.saturating_sub(u64::from(length));
                    }
                }
                if !self.core.is_sabotaged("lose-deadlist-entry") {
                    self.free_dead(key)?;
                }
            }
            return Ok(());
        }
        // 2. What this snapshot had dropped is the successor's to remember.
        let mut moved: Vec<(Key, Vec<u8>)> = Vec::new();
        if let Some(snapshot) = self.datasets.get(&id) {
            snapshot.deadlist.scan(&mut self.core, Key::MIN, Key::MAX, |key, value| {
                moved.push((key, value.to_vec()));
                Ok::<_, PoolError>(if moved.len() < limit {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                })
            })?;
        }
        let more = !moved.is_empty();
        for (key, value) in moved {
            let length = if key.kind == DEAD_EXTENT { u64::from(dead_length(&value)?) } else { 0 };
            if let Some(snapshot) = self.datasets.get_mut(&id) {
                snapshot.deadlist.remove(&mut self.core, key)?;
                snapshot.dead_bytes = snapshot.dead_bytes.saturating_sub(length);
                snapshot.changed = true;
            }
            if let Some(next) = self.datasets.get_mut(&next) {
                next.deadlist.insert(&mut self.core, key, &value)?;
                next.dead_bytes += length;
                next.changed = true;
            }
        }
        if more {
            return Ok(());
        }
        // 3. Out of the chain. The nodes of its empty deadlist are gone with its last entry.
        if let Some(next) = self.datasets.get_mut(&next) {
            next.previous = previous;
            next.changed = true;
        }
        self.datasets.remove(&id);
        self.meta.remove(&mut self.core, crate::txg::dataset_key(id))?;
        Ok(())
    }

    /// Frees what a deadlist entry names.
    pub(crate) fn free_dead(&mut self, key: Key) -> Result<()> {
        match key.kind {
            DEAD_EXTENT => self.free_extent(Logical(key.offset)),
            DEAD_NODE => {
                self.core.drop_node(key.offset, Txg(key.object));
                Ok(())
            }
            other => Err(PoolError::Corrupt(format!("a deadlist has an entry of kind {other}"))),
        }
    }

    fn destroy_zombie_step(&mut self, limit: usize) -> Result<()> {
        struct Blocks {
            min_birth: Txg,
            limit: usize,
            found: Vec<Logical>,
            next: Option<Key>,
        }
        impl Visitor<PoolError> for Blocks {
            fn item(&mut self, key: Key, value: &[u8]) -> Result<ControlFlow<()>> {
                if self.found.len() >= self.limit {
                    self.next = Some(key);
                    return Ok(ControlFlow::Break(()));
                }
                let pointer = BlockPtr::decode(value)?;
                if pointer.birth > self.min_birth {
                    self.found.push(pointer.address);
                }
                Ok(ControlFlow::Continue(()))
            }

            fn unreadable(&mut self, _: &NodePtr, _: Bounds, _: PoolError) -> Result<ControlFlow<()>> {
                Ok(ControlFlow::Continue(()))
            }
        }

        let Some(zombie) = self.zombies.first() else { return Ok(()) };
        let (id, root, min_birth) = (zombie.id, zombie.root, zombie.min_birth);
        let mut blocks = Blocks { min_birth, limit, found: Vec::new(), next: None };
        let _ = walk_from(Some(root), min_birth.0, zombie.cursor, &mut self.core, &mut blocks)?;
        for address in blocks.found {
            self.free_extent(address)?;
        }
        let key = crate::txg::zombie_key(id);
        if let Some(next) = blocks.next {
            if let Some(zombie) = self.zombies.first_mut() {
                zombie.cursor = next;
                let item = zombie.encode();
                self.meta.insert(&mut self.core, key, &item)?;
            }
            return Ok(());
        }
        let nodes = self.nodes_of(Some(root), min_birth)?;
        if !self.may_hold(nodes.len() as u64 / HELD_IN_NODE + self.nodes_for(1)) {
            return Ok(());
        }
        for pointer in nodes {
            self.core.drop_node(pointer.address, Txg(pointer.birth));
        }
        self.meta.remove(&mut self.core, key)?;
        self.zombies.remove(0);
        Ok(())
    }
}

/// The stored length in a deadlist entry's value.
pub(crate) fn dead_length(value: &[u8]) -> Result<u32> {
    let mut r = Reader::new("deadlist entry", value);
    let length = r.u32("stored length")?;
    r.end()?;
    Ok(length)
}

/// The value of a deadlist entry.
pub(crate) fn dead_value(length: u32) -> [u8; 4] {
    length.to_le_bytes()
}
