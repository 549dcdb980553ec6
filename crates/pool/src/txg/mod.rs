//! Transaction groups: how what was written becomes durable, all of it or nothing.
//!
//! - this file: the order of a commit, and the keys of the meta and chunk trees
//! - `admit`: whether a write still fits
//! - `pace`: how much is collected before a commit
//! - `claim`: room that is taken for a block when it is accepted, where space is short
//! - `place`: logical addresses for extents; whole rows where there is parity
//! - `prepare`: dirty blocks become extents, trees become nodes; memory only
//! - `write_out`: what is to be written; then chunk tree, flush, uberblock, flush
//! - `work`: the writing that needs nothing of the pool
//!
//! # A commit beside readers and writers
//!
//! A commit has three parts. *Begin* and *finish* need the pool; the *work* between them does not:
//!
//! 1. **Begin** (memory only) closes the group: every dirty block gets an address, trees become immutable nodes,
//!    bitmaps are encoded. From here on what is written to volumes is dirty in the next group.
//! 2. **Work** writes data, metadata nodes and their bitmaps with what it owns: handles of devices, copies of the chunks,
//!    shared bytes. A large commit is also flushed here, so that the flush in 3 is short.
//! 3. **Finish** takes in what failed (counters, faults, stale regions), then goes the way that [`write_out`] tells: chunk
//!    tree, flush, check, uberblock, flush. Only then is the group acknowledged.
//!
//! Why nothing goes wrong between 1 and 3:
//!
//! - *The work touches nothing that counts.* It writes to places that no importable root knows and nobody else is given:
//!   allocation happens in *begin* (and in *finish*, for the chunk tree), and the next *begin* comes after *finish*. Self-healing
//!   of a read rewrites only bytes of extents that are committed. So the order of its requests is of no matter, and a crash
//!   at any of them leaves the last root whole.
//! - *Reads see it.* What has an address and is not acknowledged is served from memory (`unwritten_extents`,
//!   `unwritten_nodes`), which is emptied in *finish*; blocks that were written since are dirty and come first.
//! - *Writes and discards change dirty blocks and nothing else*: no tree, no chunk, no free space (where space is short they
//!   take some for what they accept, and end the commit under way first). So what *finish* writes
//!   (roots, chunk tree) is the state as of *begin*, but for facts about devices (errors, faults), which are true whenever
//!   they are written. All that changes more (`writable`, `tick`, `clear`, returning devices, export) ends the commit first.
//! - *Commits do not overlap*, so roots are acknowledged in order, and a flush that waits for the commit of all that was
//!   accepted before it (`commit_needed`) means what it says.
//! - *A device that fails meanwhile* is known by *finish* before the chunk tree is written: what it missed, in the work or
//!   by having gone since, is stale there. One whose early flush failed has missed all that was written to it before.
//!
//! A commit that can't be made safe leaves everything in memory, the pool is suspended, and all of it is written again
//! later; nothing is acknowledged before that succeeds. [`Held`](crate::Held) is who runs the work on threads; without it
//! (`flush`) the parts follow each other on the caller's.

mod admit;
mod claim;
mod pace;
mod place;
mod prepare;
mod work;
mod write_out;

use std::sync::Arc;

use tree::Key;

use crate::error::{PoolError, Result};
use crate::io::Piece;
use crate::pool::Pool;
use crate::types::{DatasetId, DeviceId, GroupId, Logical};

pub(crate) use admit::NODES_RESERVED;
pub(crate) use claim::Claims;
pub(crate) use pace::Pace;
pub(crate) use place::extent_key;
pub(crate) use prepare::commit_tree;
pub use work::CommitWork;
use work::Slot;

/// Age at which what was written is committed without being asked to, milliseconds.
const COMMIT_AGE_MS: u64 = 5_000;

/// Roots that can be imported: the last one and two before it.
pub(crate) const ROOTS_KEPT: usize = 3;

const META_POOL: u8 = 1;
const META_DATASET: u8 = 2;
const META_ZOMBIE: u8 = 3;
const META_HISTORY: u8 = 4;
const META_JOB: u8 = 5;
const META_LOST: u8 = 6;
const META_CHECKPOINT: u8 = 7;
const CHUNK_POOL: u8 = 1;
const CHUNK_GROUP: u8 = 2;
const CHUNK_DEVICE: u8 = 3;
const CHUNK_SESSION: u8 = 4;
const CHUNK_CHUNK: u8 = 5;
const CHUNK_REMAP: u8 = 6;

const fn key(kind: u8, offset: u64) -> Key {
    Key { object: 0, kind, offset }
}

/// Meta tree: the pool's own numbers and properties.
pub(crate) const POOL_KEY: Key = key(META_POOL, 0);

/// Meta tree: a dataset. Objects other than 0 keep datasets apart from the pool's own items.
pub(crate) fn dataset_key(id: DatasetId) -> Key {
    key(META_DATASET, id.0)
}

/// Meta tree: a tree that is being freed.
pub(crate) fn zombie_key(id: u64) -> Key {
    key(META_ZOMBIE, id)
}

/// Meta tree: an entry of the history.
pub(crate) fn history_key(number: u64) -> Key {
    key(META_HISTORY, number)
}

/// Meta tree: the state of the scrub.
pub(crate) fn job_key(kind: u64) -> Key {
    key(META_JOB, kind)
}

/// Meta tree: an extent that can't be read any more.
pub(crate) fn lost_key(address: Logical) -> Key {
    key(META_LOST, address.0)
}

/// Meta tree: the checkpoint (0), and what a rewind to one left (1).
pub(crate) fn checkpoint_key(number: u64) -> Key {
    key(META_CHECKPOINT, number)
}

/// Chunk tree: the configuration's own numbers.
pub(crate) const CONFIG_KEY: Key = key(CHUNK_POOL, 0);

/// Chunk tree: a group.
pub(crate) fn group_key(id: GroupId) -> Key {
    key(CHUNK_GROUP, u64::from(id.0))
}

/// Chunk tree: a device.
pub(crate) fn device_key(id: DeviceId) -> Key {
    key(CHUNK_DEVICE, u64::from(id.0))
}

/// Chunk tree: a session and the last transaction group that it committed.
pub(crate) fn session_key(number: u64) -> Key {
    key(CHUNK_SESSION, number)
}

/// Chunk tree: a chunk.
pub(crate) fn chunk_key(address: Logical) -> Key {
    key(CHUNK_CHUNK, address.0)
}

/// Chunk tree: where what has this home was relocated to.
pub(crate) fn remap_key(home: Logical) -> Key {
    key(CHUNK_REMAP, home.0)
}

/// All keys of the same kind.
pub(crate) fn range_of(any: Key) -> (Key, Key) {
    (Key { offset: 0, ..any }, Key { offset: u64::MAX, ..any })
}

/// A commit on its way.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    /// Data that has an address and is not on the devices.
    pub(crate) pieces: Vec<Piece>,
    /// What its blocks take in memory, bytes.
    bytes: u64,
    /// Trees are committed: only writing is left.
    pub(crate) prepared: bool,
    /// Its writing, while it is under way.
    pub(crate) slot: Option<Arc<Slot>>,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        // Without its pool nobody keeps others from the places that it writes to.
        if let Some(slot) = &self.slot {
            slot.abandon();
        }
    }
}

impl Pool {
    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`PoolError::Suspended`] when too many devices are gone: what was written stays in memory, and the next
    /// flush after they came back makes it durable.
    pub fn flush(&mut self) -> Result<()> {
        if self.core.read_only {
            return Ok(());
        }
        self.commit()
    }

    /// Commits the open transaction group if there is anything in it, and before that the one under way.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.core.suspended {
            return Err(PoolError::Suspended);
        }
        self.settle()?;
        if !self.is_dirty() {
            return Ok(());
        }
        self.begin(false)?;
        self.finish()
    }

    /// Ends the commit under way, be it that it is being written or that it was interrupted.
    ///
    /// # Errors
    /// As [`Pool::flush`].
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.core.suspended || self.syncing.is_none() {
            return Ok(());
        }
        if !self.is_committing() {
            self.begin(false)?;
        }
        self.finish()
    }

    /// As [`Pool::settle`] for those who come to help: that the pool was found to be suspended is no error.
    pub(crate) fn settle_or_suspend(&mut self) -> Result<()> {
        match self.settle() {
            Err(PoolError::Suspended) => Ok(()),
            other => other,
        }
    }

    /// Begins a commit of everything accepted so far. Until [`Pool::finish_commit`] the work that is given back may
    /// be run on another thread, without the pool; meanwhile volumes are read and written as always. Everything
    /// else waits for the commit by itself.
    ///
    /// `None`: nothing is to be committed, or a commit is under way.
    ///
    /// # Errors
    /// As [`Pool::flush`].
    pub fn begin_commit(&mut self) -> Result<Option<CommitWork>> {
        if self.core.suspended {
            return Err(PoolError::Suspended);
        }
        if self.core.read_only || self.is_committing() {
            return Ok(None);
        }
        self.settle()?;
        if !self.is_dirty() {
            return Ok(None);
        }
        self.begin(true)?;
        let slot = self.syncing.as_ref().and_then(|syncing| syncing.slot.clone());
        Ok(slot.map(|slot| CommitWork { slot, number: self.commits_begun }))
    }

    /// Ends the commit under way if it is this one (what [`CommitWork::run`] gives) or an earlier one; waits for its
    /// work, or does it if nobody has.
    ///
    /// # Errors
    /// As [`Pool::flush`].
    pub fn finish_commit(&mut self, number: u64) -> Result<()> {
        if self.is_committing() && self.commits_begun <= number { self.settle() } else { Ok(()) }
    }

    /// Whether a commit was begun and not finished.
    pub fn is_committing(&self) -> bool {
        self.syncing.as_ref().is_some_and(|syncing| syncing.slot.is_some())
    }

    /// The number of the commit after which everything accepted so far is durable.
    pub fn commit_needed(&self) -> u64 {
        self.commits_begun + u64::from(self.is_dirty())
    }

    /// The number of the last commit that was finished; they are finished in order.
    pub fn commits_done(&self) -> u64 {
        self.commits_done
    }

    /// Whether so much is dirty that a commit should be begun.
    pub fn commit_wanted(&self) -> bool {
        self.pace.is_due(self.dirty_bytes)
    }

    /// Whether so much is dirty that writers should wait for the commit under way.
    pub fn writers_should_wait(&self) -> bool {
        self.pace.is_full(self.dirty_bytes)
    }

    /// Takes from the cache what dirty blocks need beyond their own part of the memory.
    pub(crate) fn share_memory(&mut self) {
        let closed = self.syncing.as_ref().map_or(0, |syncing| syncing.bytes);
        self.core.cache.set_aside(Pace::beyond(self.dirty_bytes + closed));
    }

    /// Whether what was written waits for a commit longer than it should.
    pub fn commit_due(&self) -> bool {
        self.changed && !self.core.suspended && self.last_commit.0 + COMMIT_AGE_MS <= self.core.now().0
    }

    /// Gives everything dirty its place and makes up what is to be written. `beside`: others may go on meanwhile.
    fn begin(&mut self, beside: bool) -> Result<()> {
        self.syncing.get_or_insert_default();
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.prepared) {
            self.prepare().map_err(|error| self.suspended_by(error))?;
            self.commits_begun += 1;
        }
        // What was known of free room is used up: look again.
        self.room_bytes = 0;
        let job = self.start_writing(beside)?;
        if let Some(syncing) = &mut self.syncing {
            syncing.slot = Some(Slot::new(job));
        }
        Ok(())
    }

    /// Takes in what came of the writing, and makes it count.
    fn finish(&mut self) -> Result<()> {
        let slot = self.syncing.as_mut().and_then(|syncing| syncing.slot.take());
        let mut outcome = slot.map(|slot| slot.outcome()).unwrap_or_default();
        if self.core.is_sabotaged("forget-work") {
            outcome.forget_failures();
        }
        match self.write_out(outcome) {
            Ok(()) => {
                self.syncing = None;
                self.share_memory();
                self.commits_done = self.commits_begun;
                self.last_commit = self.core.now();
                Ok(())
            }
            Err(PoolError::Suspended) => {
                self.suspend();
                Err(PoolError::Suspended)
            }
            Err(error) => Err(error),
        }
    }

    /// Where devices are gone beyond redundancy, an unreadable tree is no defect of its own: the pool waits for them.
    fn suspended_by(&mut self, error: PoolError) -> PoolError {
        let unread = matches!(error, PoolError::Unreadable { .. } | PoolError::Device(_));
        if error == PoolError::Suspended || (unread && self.is_unreadable()) {
            self.suspend();
            return PoolError::Suspended;
        }
        error
    }

    fn is_dirty(&self) -> bool {
        self.changed
            || self.core.map.is_dirty()
            || self.core.remaps.is_dirty()
            || !self.core.dirty_devices.is_empty()
    }

    /// Stops taking writes until `clear`.
    pub(crate) fn suspend(&mut self) {
        if !self.core.suspended {
            self.core.suspended = true;
            let now = self.core.now();
            let message = "the pool is suspended: too many devices are gone for writes to be safe".to_owned();
            self.core.events.push(now, "suspend", None, message);
        }
    }

    /// Fails when nothing may be changed now. Who changes more than blocks of volumes does not share a commit with
    /// what was before: the one under way is ended.
    pub(crate) fn writable(&mut self) -> Result<()> {
        self.accepts_writes()?;
        self.settle()
    }

    /// Fails when blocks can't be written now.
    pub(crate) fn accepts_writes(&self) -> Result<()> {
        if self.core.read_only {
            return Err(PoolError::ReadOnly);
        }
        if self.core.suspended {
            return Err(PoolError::Suspended);
        }
        Ok(())
    }
}
