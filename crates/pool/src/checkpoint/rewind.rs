//! Going back to the checkpoint, at an import.
//!
//! One commit does it: the meta tree of the checkpoint becomes the current one, and nodes that no tree of that state
//! reaches are free. Extents that were born since belong to nobody then; they are freed in steps, by the extents tree,
//! which tells every extent's birth.

use std::collections::HashSet;
use std::ops::ControlFlow;

use tree::{Bounds, Key, NODE_SIZE, NodePtr, Tree, Visit, Visitor, walk};

use crate::chunk::Class;
use crate::codec::{DecodeError, Reader, Writer};
use crate::dataset::DEAD_NODE;
use crate::error::{PoolError, Result};
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::txg::extent_key;
use crate::types::{Logical, Txg};

/// Extents that one step looks at, for each that it may free.
const LOOKS: usize = 16;

/// What a rewind left: extents of what was given up, to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rewind {
    /// They were born after this, the checkpoint,
    pub(crate) after: Txg,
    /// and before this, the first transaction group since.
    pub(crate) before: Txg,
    /// Those at addresses before it are freed.
    pub(crate) cursor: Logical,
}

impl Rewind {
    /// See "Rewind item" in `docs/on-disk-format.md`.
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut w = Writer::default();
        [self.after.0, self.before.0, self.cursor.0].iter().for_each(|&number| w.u64(number));
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("rewind item", bytes);
        let rewind = Self {
            after: Txg(r.u64("txg of the checkpoint")?),
            before: Txg(r.u64("txg of the rewind")?),
            cursor: Logical(r.u64("cursor")?),
        };
        r.end()?;
        Ok(rewind)
    }

    /// Whether an extent of this birth, at this place, is to be freed.
    pub(crate) fn is_given_up(&self, place: Logical, birth: Txg) -> bool {
        place >= self.cursor && birth > self.after && birth < self.before
    }
}

impl Pool {
    /// Makes the pool what it was at its checkpoint, which is gone with that; a commit is to follow. What is born from
    /// the open transaction group on is new.
    ///
    /// # Errors
    /// There is no checkpoint, or some of it can't be read.
    pub(crate) fn rewind_to_checkpoint(&mut self) -> Result<()> {
        let Some((meta_root, txg)) =
            self.kept_checkpoint().and_then(|checkpoint| Some((checkpoint.meta_root?, checkpoint.txg)))
        else {
            return Err(PoolError::refused(match &self.checkpoint {
                None => format!("pool '{}' has no checkpoint to go back to", self.core.name),
                Some(_) => format!(
                    "the checkpoint of pool '{}' is being discarded: it can't be gone back to any more",
                    self.core.name
                ),
            }));
        };
        self.checkpoint = None;
        self.core.held_to = Txg(0);
        // Jobs, and what can't be read, are about chunks and devices, which do not go back; nor do numbers that are used up.
        let (scan, balance, next_id) = (self.scan, self.balance.take(), self.next_id);
        let lost = std::mem::take(&mut self.core.lost);
        self.meta = Tree::new(self.meta.identity(), Some(meta_root));
        self.properties.clear();
        self.load_meta()?;
        (self.scan, self.balance, self.next_id) = (scan, balance, self.next_id.max(next_id));
        let then = std::mem::replace(&mut self.core.lost, lost);
        for address in &then - &self.core.lost {
            self.meta.remove(&mut self.core, crate::txg::lost_key(address))?;
        }
        self.free_unreached()?;
        self.rewound = Some(Rewind { after: txg, before: self.core.txg, cursor: Logical(0) });
        let now = self.core.now();
        let message = format!("the pool went back to the checkpoint of transaction group {txg}");
        self.core.events.push(now, "rewind", None, message);
        self.changed = true;
        Ok(())
    }

    /// Frees every node of metadata chunks that no tree reaches. Roots that can still be imported may: these places wait
    /// like all others.
    fn free_unreached(&mut self) -> Result<()> {
        let mut reached = Reached::default();
        for root in self.roots_of_all_trees() {
            let _ = walk(root, 0, &mut self.core, &mut reached)?;
        }
        let Self { core, datasets, .. } = self;
        for dataset in datasets.values() {
            dataset.deadlist.scan(core, Key::MIN, Key::MAX, |key, _| {
                if key.kind == DEAD_NODE {
                    reached.0.insert(key.offset);
                }
                Ok::<_, PoolError>(ControlFlow::Continue(()))
            })?;
        }
        let chunks = core.map.iter().filter(|chunk| chunk.class == Class::Metadata);
        let mut unreached = Vec::new();
        for chunk in chunks {
            let Some(space) = core.nodes.get(&chunk.address) else { continue };
            let places = space.iter_live().map(|index| Logical(chunk.address.0 + index * NODE_SIZE as u64));
            let homes = places.map(|place| core.remaps.home_of(place).0);
            unreached.extend(homes.filter(|home| !reached.0.contains(home)));
        }
        for home in unreached {
            // Whatever its birth, a root that was committed knew it.
            core.free_node(home, Txg(0));
        }
        Ok(())
    }

    /// Frees some of the extents that a rewind left, at most `limit`; false if there are none.
    pub(crate) fn rewind_step(&mut self, limit: usize) -> Result<bool> {
        let Some(rewound) = self.rewound else { return Ok(false) };
        let (mut found, mut looked, mut next) = (Vec::new(), 0, None);
        self.extents.scan(&mut self.core, extent_key(rewound.cursor), Key::MAX, |key, value| {
            let place = Logical(key.offset);
            if found.len() >= limit || looked >= limit * LOOKS {
                next = Some(place);
                return Ok::<_, PoolError>(ControlFlow::Break(()));
            }
            looked += 1;
            if rewound.is_given_up(place, Extent::decode(value)?.birth) {
                found.push(place);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for place in found {
            self.free_extent(self.core.remaps.home_of(place))?;
        }
        self.rewound = next.map(|cursor| Rewind { cursor, ..rewound });
        Ok(true)
    }
}

/// The homes of all nodes that were met.
#[derive(Default)]
struct Reached(HashSet<u64>);

impl Visitor<PoolError> for Reached {
    fn node(&mut self, pointer: &NodePtr, _: Bounds) -> Result<Visit> {
        // What is below one that was met before was met, too.
        let is_new = self.0.insert(pointer.address);
        Ok(if is_new && pointer.level > 0 { Visit::Enter } else { Visit::Skip })
    }
}
