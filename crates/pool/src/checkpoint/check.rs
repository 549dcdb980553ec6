//! `coffer check` of a checkpoint: it is whole, and what it holds back is its alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use tree::NodePtr;

use crate::check::Items;
use crate::dataset::{DEAD_EXTENT, DEAD_NODE, Dataset, Zombie, dead_length};
use crate::error::Result;
use crate::pool::Pool;
use crate::report::CheckReport;
use crate::txg;
use crate::types::{DatasetId, Logical, Txg};

/// Nodes by place: birth. Extents by place: references and birth.
type Nodes = HashMap<u64, u64>;
type References = HashMap<Logical, (u32, Txg)>;

impl Pool {
    /// Adds what the checkpoint and a rewind own to what was found of the current state, and compares the checkpoint
    /// with that.
    pub(crate) fn gather_checkpoint(
        &mut self,
        extents: &Items,
        nodes: &mut Nodes,
        references: &mut References,
        report: &mut CheckReport,
    ) -> Result<()> {
        if let Some(rewound) = self.rewound {
            for (key, value) in extents {
                let (place, birth) = (Logical(key.offset), crate::pointer::Extent::decode(value)?.birth);
                if rewound.is_given_up(place, birth) {
                    references.entry(place).or_insert((0, birth)).0 += 1;
                }
            }
        }
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let (meta_root, held, then) = (checkpoint.meta_root, checkpoint.held.root(), checkpoint.txg);
        let told = checkpoint.held_numbers();
        let mut found = (0, 0);
        let (mut held_nodes, mut held_extents) = (Vec::new(), Vec::new());
        for (key, value) in self.gather(held, nodes, report)? {
            let place = self.core.remaps.place_of(Logical(key.offset));
            if key.object > then.0 {
                report.problems.push(format!("the checkpoint holds {place} back, which is younger"));
            }
            if key.kind == DEAD_EXTENT {
                found.0 += u64::from(dead_length(&value)?);
                references.entry(place).or_insert((0, Txg(key.object))).0 += 1;
                held_extents.push(place);
            } else if key.kind == DEAD_NODE {
                found.1 += 1;
                if nodes.insert(place.0, key.object).is_some() {
                    report.problems.push(format!("the node at {place} is in use, and held back as well"));
                }
                held_nodes.push(place.0);
            }
        }
        if told != found {
            report.problems.push(format!(
                "the checkpoint says that it holds {told:?} bytes and nodes back; they come to {found:?}"
            ));
        }
        // One that is being discarded is not whole any more.
        let Some(meta_root) = meta_root else { return Ok(()) };
        let mut whole = CheckReport::default();
        let (then_nodes, then_references) = self.gather_then(meta_root, nodes, &mut whole)?;
        let problems = whole.problems.into_iter().map(|problem| format!("in the checkpoint: {problem}"));
        report.problems.extend(problems);
        for (place, birth) in &then_nodes {
            if nodes.get(place) != Some(birth) {
                report
                    .problems
                    .push(format!("the checkpoint's node at {place} is neither in use nor held back"));
            }
        }
        for place in then_references.keys().filter(|place| !references.contains_key(place)) {
            report
                .problems
                .push(format!("the checkpoint's extent at {place} is neither in use nor held back"));
        }
        let unknown = held_nodes.iter().filter(|place| !then_nodes.contains_key(place));
        let unknown: HashSet<u64> = unknown
            .copied()
            .chain(
                held_extents.iter().filter(|place| !then_references.contains_key(place)).map(|place| place.0),
            )
            .collect();
        for place in unknown {
            report
                .problems
                .push(format!("what is at {place} is held back for a checkpoint that does not know it"));
        }
        Ok(())
    }

    /// What the trees of a checkpoint refer to. Nodes of its meta tree are its own.
    fn gather_then(
        &mut self,
        meta_root: NodePtr,
        nodes: &mut Nodes,
        report: &mut CheckReport,
    ) -> Result<(Nodes, References)> {
        let mut of_meta = Nodes::new();
        let (mut datasets, mut zombies) = (BTreeMap::new(), Vec::new());
        for (key, value) in self.gather(Some(meta_root), &mut of_meta, report)? {
            if key.kind == txg::dataset_key(DatasetId(0)).kind {
                let id = DatasetId(key.offset);
                datasets.insert(id, Dataset::decode(self.core.guid, id, &value)?);
            } else if key.kind == txg::zombie_key(0).kind {
                zombies.push(Zombie::decode(key.offset, &value)?);
            }
        }
        for (place, birth) in of_meta {
            nodes.entry(place).or_insert(birth);
        }
        let (mut then_nodes, mut references) = (Nodes::new(), References::new());
        let now =
            (std::mem::replace(&mut self.datasets, datasets), std::mem::replace(&mut self.zombies, zombies));
        let outcome = self.gather_references(&mut then_nodes, &mut references, report);
        (self.datasets, self.zombies) = now;
        outcome.map(|()| (then_nodes, references))
    }
}
