//! Transaction groups: how what was written becomes durable, all of it or nothing.
//!
//! - this file: the order of a commit, and the keys of the meta and chunk trees
//! - `admit`: whether a write still fits
//! - `claim`: room that is taken for a block when it is accepted, where space is short
//! - `place`: logical addresses for extents; whole rows where there is parity
//! - `prepare`: dirty blocks become extents, trees become nodes; memory only
//! - `write_out`: data, nodes, bitmaps, chunk tree, flush, uberblock, flush
//!
//! A commit that can't be made safe leaves everything in memory and is tried again; nothing is acknowledged
//! before it succeeds.

mod admit;
mod claim;
mod place;
mod prepare;
mod write_out;

use tree::Key;

use crate::error::{PoolError, Result};
use crate::io::Piece;
use crate::pool::Pool;
use crate::report::State;
use crate::types::{DatasetId, DeviceId, GroupId, Logical};

pub(crate) use claim::Claims;
pub(crate) use place::extent_key;

/// Roots that can be imported: the last one and two before it.
pub(crate) const ROOTS_KEPT: usize = 3;

const META_POOL: u8 = 1;
const META_DATASET: u8 = 2;
const META_ZOMBIE: u8 = 3;
const META_HISTORY: u8 = 4;
const META_JOB: u8 = 5;
const META_LOST: u8 = 6;
const CHUNK_POOL: u8 = 1;
const CHUNK_GROUP: u8 = 2;
const CHUNK_DEVICE: u8 = 3;
const CHUNK_SESSION: u8 = 4;
const CHUNK_CHUNK: u8 = 5;

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

/// All keys of the same kind.
pub(crate) fn range_of(any: Key) -> (Key, Key) {
    (Key { offset: 0, ..any }, Key { offset: u64::MAX, ..any })
}

/// A commit on its way.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    /// Data that has an address and is not on the devices.
    pub(crate) pieces: Vec<Piece>,
    /// Trees are committed: only writing is left.
    pub(crate) prepared: bool,
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

    /// Commits the open transaction group if there is anything in it.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.core.suspended {
            return Err(PoolError::Suspended);
        }
        if self.syncing.is_none() {
            if !self.is_dirty() {
                return Ok(());
            }
            self.syncing = Some(Syncing::default());
        }
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.prepared) {
            self.prepare().map_err(|error| self.suspended_by(error))?;
        }
        match self.write_out() {
            Ok(()) => {
                self.syncing = None;
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
        if error == PoolError::Suspended || (unread && self.state() == State::Faulted) {
            self.suspend();
            return PoolError::Suspended;
        }
        error
    }

    fn is_dirty(&self) -> bool {
        self.changed || self.core.map.is_dirty() || !self.core.dirty_devices.is_empty()
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

    /// Fails when nothing may be changed now.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.core.read_only {
            return Err(PoolError::ReadOnly);
        }
        if self.core.suspended {
            return Err(PoolError::Suspended);
        }
        Ok(())
    }
}
