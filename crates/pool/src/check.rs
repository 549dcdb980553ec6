//! `coffer check`: proof that references and allocations agree.
//!
//! Every tree is walked from every root. Each node must be live in its chunk's bitmap and each live bit must be a
//! node; each extent must have exactly as many references as its record says (snapshots and deadlists as the rules
//! have it), lie in a data chunk and overlap no other.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tree::{Bounds, Key, NODE_SIZE, NodePtr, Visit, Visitor, walk};

use crate::chunk::Class;
use crate::dataset::DEAD_NODE;
use crate::error::{PoolError, Result};
use crate::pointer::{BlockPtr, Extent};
use crate::pool::Pool;
use crate::report::CheckReport;
use crate::types::{Logical, Txg};

/// Problems that are listed.
const PROBLEMS_MAX: usize = 100;

/// Items of a tree: keys and values.
pub(crate) type Items = Vec<(Key, Vec<u8>)>;

/// What one walk of a tree found.
#[derive(Default)]
struct Found {
    nodes: Vec<NodePtr>,
    items: Items,
    unreadable: Vec<String>,
}

impl Visitor<PoolError> for Found {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit> {
        self.nodes.push(*pointer);
        Ok(Visit::Enter)
    }

    fn item(&mut self, key: Key, value: &[u8]) -> Result<ControlFlow<()>> {
        self.items.push((key, value.to_vec()));
        Ok(ControlFlow::Continue(()))
    }

    fn unreadable(&mut self, pointer: &NodePtr, _: Bounds, error: PoolError) -> Result<ControlFlow<()>> {
        self.unreadable.push(format!("the node at {} can't be read: {error}", pointer.address));
        Ok(ControlFlow::Continue(()))
    }
}

impl Pool {
    /// Checks that everything that is referred to exists once, and that everything that takes space is referred to.
    ///
    /// # Errors
    /// What is in memory can't be committed first.
    pub fn check(&mut self) -> Result<CheckReport> {
        if !self.core.read_only {
            self.commit()?;
        }
        let mut report = CheckReport { chunks: self.core.map.len() as u64, ..CheckReport::default() };
        let mut nodes: HashMap<u64, u64> = HashMap::new();
        let mut references: HashMap<Logical, (u32, Txg)> = HashMap::new();
        for root in [self.chunks.root(), self.meta.root()] {
            self.gather(root, &mut nodes, &mut report)?;
        }
        let extents = self.gather(self.extents.root(), &mut nodes, &mut report)?;
        self.gather_references(&mut nodes, &mut references, &mut report)?;
        self.gather_checkpoint(&extents, &mut nodes, &mut references, &mut report)?;
        self.compare_extents(&extents, references, &mut report)?;
        self.compare_nodes(&nodes, &mut report);
        self.compare_remaps(&extents, &nodes, &mut report)?;
        report.problems.truncate(PROBLEMS_MAX);
        Ok(report)
    }

    pub(crate) fn gather(
        &mut self,
        root: Option<NodePtr>,
        nodes: &mut HashMap<u64, u64>,
        report: &mut CheckReport,
    ) -> Result<Items> {
        let mut found = Found::default();
        let _ = walk(root, 0, &mut self.core, &mut found)?;
        report.nodes += found.nodes.len() as u64;
        report.problems.append(&mut found.unreadable);
        for pointer in found.nodes {
            let place = self.core.remaps.place_of(Logical(pointer.address)).0;
            if let Some(birth) = nodes.insert(place, pointer.birth)
                && birth != pointer.birth
            {
                report
                    .problems
                    .push(format!("the node at {} is referred to with two births", pointer.address));
            }
        }
        Ok(found.items)
    }

    /// References from volumes, zombies and deadlists. Snapshots do not count: what only they hold is on a deadlist.
    pub(crate) fn gather_references(
        &mut self,
        nodes: &mut HashMap<u64, u64>,
        references: &mut HashMap<Logical, (u32, Txg)>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let remaps = self.core.remaps.clone();
        let add = |references: &mut HashMap<Logical, (u32, Txg)>, home: Logical, birth: Txg| {
            references.entry(remaps.place_of(home)).or_insert((0, birth)).0 += 1;
        };
        let mut in_snapshots: Vec<(String, Items)> = Vec::new();
        let ids: Vec<_> = self.datasets.keys().copied().collect();
        let mut dead_nodes: Vec<(u64, u64)> = Vec::new();
        let destroying = self.datasets.values().any(|dataset| dataset.destroying);
        for id in ids {
            let Some(dataset) = self.datasets.get(&id) else { continue };
            let (name, snapshot, given_up) =
                (dataset.name.clone(), dataset.is_snapshot(), dataset.destroying);
            let (tree, deadlist, referenced) =
                (dataset.tree.root(), dataset.deadlist.root(), dataset.referenced);
            let items = self.gather(tree, nodes, report)?;
            let mut sum = 0;
            for (_, value) in &items {
                let pointer = BlockPtr::decode(value)?;
                sum += u64::from(pointer.stored);
                report.references += 1;
                if !snapshot {
                    add(references, pointer.address, pointer.extent_birth);
                }
            }
            if sum != referenced && !given_up {
                report
                    .problems
                    .push(format!("'{name}' says it refers to {referenced} bytes; its blocks come to {sum}"));
            }
            if snapshot {
                in_snapshots.push((name, items));
            }
            for (key, _) in self.gather(deadlist, nodes, report)? {
                if key.kind == DEAD_NODE {
                    dead_nodes.push((remaps.place_of(Logical(key.offset)).0, key.object));
                } else {
                    add(references, Logical(key.offset), Txg(key.object));
                }
            }
        }
        for (address, birth) in self.zombie_references(nodes, report)? {
            add(references, address, birth);
        }
        for (name, items) in in_snapshots {
            for (key, value) in items {
                let pointer = BlockPtr::decode(&value)?;
                if !references.contains_key(&remaps.place_of(pointer.address)) {
                    report
                        .problems
                        .push(format!("block {} of '{name}' is neither live nor on a deadlist", key.offset));
                }
            }
        }
        for (address, birth) in dead_nodes {
            if destroying {
                // A snapshot that is being destroyed has no tree any more, only these.
                nodes.entry(address).or_insert(birth);
            } else if !nodes.contains_key(&address) {
                report
                    .problems
                    .push(format!("the node at {address} is on a deadlist, but no snapshot has it"));
            }
        }
        Ok(())
    }

    /// What trees that are being freed still hold.
    fn zombie_references(
        &mut self,
        nodes: &mut HashMap<u64, u64>,
        report: &mut CheckReport,
    ) -> Result<Vec<(Logical, Txg)>> {
        let mut all = Vec::new();
        let zombies: Vec<_> = self.zombies.iter().map(|z| (z.root, z.min_birth, z.cursor)).collect();
        for (root, min_birth, cursor) in zombies {
            let mut found = Found::default();
            let _ = walk(Some(root), min_birth.0, &mut self.core, &mut found)?;
            report.problems.append(&mut found.unreadable);
            let remaps = &self.core.remaps;
            nodes.extend(
                found
                    .nodes
                    .iter()
                    .map(|pointer| (remaps.place_of(Logical(pointer.address)).0, pointer.birth)),
            );
            for (key, value) in found.items {
                let pointer = BlockPtr::decode(&value)?;
                if pointer.birth > min_birth && key >= cursor {
                    all.push((pointer.address, pointer.extent_birth));
                }
            }
        }
        Ok(all)
    }

    fn compare_extents(
        &mut self,
        extents: &[(Key, Vec<u8>)],
        mut references: HashMap<Logical, (u32, Txg)>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let mut used: HashMap<Logical, u64> = HashMap::new();
        let mut end = 0;
        for (key, value) in extents {
            report.extents += 1;
            let extent = Extent::decode(value)?;
            let address = Logical(key.offset);
            let count = references.remove(&address).map_or(0, |(count, _)| count);
            if count != extent.references {
                report.problems.push(format!(
                    "the extent at {address} says {} references, {count} were found",
                    extent.references
                ));
            }
            if address.0 < end {
                report.problems.push(format!("the extent at {address} overlaps the one before it"));
            }
            end = address.0 + u64::from(extent.stored);
            match self.core.map.at(address) {
                Some(chunk) if chunk.class == Class::Data && end <= chunk.end().0 => {
                    *used.entry(chunk.address).or_default() += u64::from(extent.stored);
                }
                _ => report.problems.push(format!("the extent at {address} is in no data chunk")),
            }
        }
        for address in references.keys() {
            report.problems.push(format!("there is a reference to {address}, where no extent is"));
        }
        for chunk in self.core.map.iter().filter(|chunk| chunk.class == Class::Data) {
            let found = used.get(&chunk.address).copied().unwrap_or(0);
            if found != chunk.used {
                report.problems.push(format!(
                    "chunk {} says {} bytes are in use, its extents come to {found}",
                    chunk.address, chunk.used
                ));
            }
        }
        Ok(())
    }

    /// Every byte of a remap entry leads to something that lives, and no home is a place where something else is.
    fn compare_remaps(
        &self,
        extents: &[(Key, Vec<u8>)],
        nodes: &HashMap<u64, u64>,
        report: &mut CheckReport,
    ) -> Result<()> {
        let remaps = &self.core.remaps;
        let mut led = 0;
        let mut look = |place: Logical, length: u64, report: &mut CheckReport| {
            if remaps.home_of(place) != place {
                led += length;
            } else if remaps.place_of(place) != place {
                report
                    .problems
                    .push(format!("{place} is the home of something that was relocated, and not empty"));
            }
        };
        for (key, value) in extents {
            look(Logical(key.offset), u64::from(Extent::decode(value)?.stored), report);
        }
        for &place in nodes.keys() {
            look(Logical(place), NODE_SIZE as u64, report);
        }
        let entries: u64 = remaps.iter().map(|(_, moved)| moved.length).sum();
        if entries != led {
            report.problems.push(format!("remap entries lead to {entries} bytes, of which {led} are live"));
        }
        Ok(())
    }

    fn compare_nodes(&self, nodes: &HashMap<u64, u64>, report: &mut CheckReport) {
        let mut live = 0;
        for &address in nodes.keys() {
            let chunk = self.core.map.at(Logical(address)).filter(|chunk| chunk.class != Class::Data);
            let bit = chunk.and_then(|chunk| {
                let space = self.core.nodes.get(&chunk.address)?;
                Some(space.is_live((address - chunk.address.0) / NODE_SIZE as u64))
            });
            match bit {
                Some(true) => live += 1,
                Some(false) => {
                    report.problems.push(format!("the node at {address} is free in its chunk's bitmap"))
                }
                None => report.problems.push(format!("the node at {address} is in no metadata chunk")),
            }
        }
        let marked: u64 = self.core.nodes.values().map(crate::space::NodeSpace::live).sum();
        if marked > live {
            report.problems.push(format!("{} nodes are marked live and belong to no tree", marked - live));
        }
    }
}
