//! The pool: the shared core, the trees on top of it, and what is going on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tree::Tree;

use crate::balance::{Balance, Reclaim};
use crate::checkpoint::{Checkpoint, Rewind};
use crate::core::Core;
use crate::dataset::{Dataset, Zombie};
use crate::error::Result;
use crate::report::{Event, HistoryEntry};
use crate::scan::Scan;
use crate::spec::Host;
use crate::txg::{Claims, Pace, Syncing};
use crate::types::{DatasetId, Guid, Logical, Millis, Session, Txg};

/// An imported pool.
pub struct Pool {
    pub(crate) core: Core,
    /// Configuration and chunks; lives in system chunks.
    pub(crate) chunks: Tree,
    /// Datasets, properties, history, jobs.
    pub(crate) meta: Tree,
    /// Every extent of data, by address.
    pub(crate) extents: Tree,
    pub(crate) datasets: BTreeMap<DatasetId, Dataset>,
    pub(crate) zombies: Vec<Zombie>,
    pub(crate) checkpoint: Option<Checkpoint>,
    /// What a rewind to a checkpoint left to be freed.
    pub(crate) rewound: Option<Rewind>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) created: Millis,
    /// The next number for a dataset, tree or zombie.
    pub(crate) next_id: u64,
    pub(crate) next_history: u64,
    pub(crate) next_device: u32,
    pub(crate) next_group: u32,
    /// Sessions that committed something and the last transaction group of each.
    pub(crate) sessions: Vec<(Session, Txg)>,
    /// The root that the next uberblock goes back to.
    pub(crate) goes_back_to: Option<(Session, Txg)>,
    /// The last committed transaction group.
    pub(crate) committed: Txg,
    /// Importable roots, oldest first.
    pub(crate) roots: VecDeque<Txg>,
    /// Something other than the chunk map is to be committed.
    pub(crate) changed: bool,
    /// Bytes of dirty blocks.
    pub(crate) dirty_bytes: u64,
    pub(crate) pace: Pace,
    pub(crate) last_commit: Millis,
    pub(crate) syncing: Option<Syncing>,
    /// Commits begun and done since the import.
    pub(crate) commits_begun: u64,
    pub(crate) commits_done: u64,
    /// Which bitmap slot of each chunk the last root uses.
    pub(crate) committed_slots: BTreeMap<Logical, u8>,
    /// Chunks whose bitmap the commit under way wrote.
    pub(crate) unsettled_bitmaps: BTreeSet<Logical>,
    /// Bytes and blocks, none longer than `room_piece`, that can be accepted without another look; and after which
    /// commit the last look was.
    pub(crate) room_bytes: u64,
    pub(crate) room_piece: u64,
    pub(crate) room_blocks: u64,
    pub(crate) room_stamp: Txg,
    /// Room taken for dirty blocks.
    pub(crate) claims: Claims,
    pub(crate) scan: Scan,
    pub(crate) balance: Option<Balance>,
    pub(crate) reclaim: Reclaim,
    pub(crate) host: Host,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.core.name)
            .field("txg", &self.core.txg)
            .finish_non_exhaustive()
    }
}

/// Ids of the trees that every pool has; those of datasets follow.
pub(crate) const CHUNK_TREE: u64 = 1;
/// See [`CHUNK_TREE`].
pub(crate) const META_TREE: u64 = 2;
/// See [`CHUNK_TREE`].
pub(crate) const EXTENT_TREE: u64 = 3;
/// The first id that is free.
pub(crate) const FIRST_ID: u64 = 16;

impl Pool {
    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The pool's identity.
    pub fn guid(&self) -> Guid {
        self.core.guid
    }

    /// Whether it was imported for reading only.
    pub fn read_only(&self) -> bool {
        self.core.read_only
    }

    /// Whether it waits for devices to return.
    pub fn suspended(&self) -> bool {
        self.core.suspended
    }

    /// The last committed transaction group.
    pub fn last_txg(&self) -> Txg {
        self.committed
    }

    /// The session that this import began; one that is read-only begins none.
    pub fn session(&self) -> Session {
        self.core.session
    }

    /// Whether a session is part of the pool's history.
    pub fn went_through(&self, session: Session) -> bool {
        self.sessions.iter().any(|&(known, _)| known == session)
    }

    /// Events with a number above `after`, oldest first.
    pub fn events(&self, after: u64) -> Vec<Event> {
        self.core.events.after(after)
    }

    /// Events that were not taken yet, oldest first, for who keeps them elsewhere; they are forgotten here.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.core.events.take()
    }

    /// Forgets everything that was read, so that the next reads go to the devices.
    pub fn drop_caches(&mut self) {
        self.core.cache.clear();
    }

    /// Makes the engine show a defect: only for the simulator.
    #[cfg(feature = "sabotage")]
    pub fn sabotage(&mut self, name: &str) {
        self.core.sabotage = Some(name.to_owned());
    }

    /// Notes a successful administrative command; durable with the next commit.
    ///
    /// # Errors
    /// The history can't be read or changed.
    pub fn log_history(&mut self, command: &str) -> Result<()> {
        if self.core.read_only {
            return Ok(());
        }
        let mut w = crate::codec::Writer::default();
        w.u64(self.core.now().0);
        w.u64(self.core.txg.0);
        w.text(&command.chars().take(2000).collect::<String>());
        self.meta.insert(&mut self.core, crate::txg::history_key(self.next_history), &w.finish())?;
        self.next_history += 1;
        self.changed = true;
        Ok(())
    }

    /// The administrative commands so far, oldest first.
    ///
    /// # Errors
    /// The history can't be read.
    pub fn history(&mut self) -> Result<Vec<HistoryEntry>> {
        let (from, to) = crate::txg::range_of(crate::txg::history_key(0));
        let mut entries = Vec::new();
        self.meta.scan(&mut self.core, from, to, |_, value| {
            let mut r = crate::codec::Reader::new("history item", value);
            let entry = HistoryEntry {
                time: Millis(r.u64("time")?),
                txg: Txg(r.u64("txg")?),
                command: r.text("command")?,
            };
            entries.push(entry);
            Ok::<_, crate::PoolError>(std::ops::ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }
}
