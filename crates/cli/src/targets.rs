//! A pool's volumes as things that can be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use export::{Run, Target, TargetError};
use pool::types::DatasetId;
use pool::{Pool, PoolError};

use crate::error::Outcome;
use crate::execute::is_suspended;
use crate::holder::{Served, Shared};

/// Pause between two tries of a request that waits for devices to return.
const RETRY: Duration = Duration::from_millis(100);

/// A volume or snapshot of a held pool.
#[derive(Debug)]
pub(crate) struct Volume {
    shared: Arc<Shared>,
    id: DatasetId,
    block_size: u32,
    read_only: bool,
    size: AtomicU64,
    /// The count of changes for which `size` is right.
    size_as_of: AtomicU64,
    _served: Served,
}

impl Volume {
    /// Opens `vol` or `vol@snap`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(shared: &Arc<Shared>, dataset: &str) -> Outcome<Self> {
        let changes = shared.changes();
        let (id, info) = shared.with(|pool| {
            let id = pool.open(dataset)?;
            Ok((id, pool.volume_info(id)?))
        })?;
        Ok(Self {
            shared: Arc::clone(shared),
            id,
            block_size: info.block_size,
            read_only: info.read_only || dataset.contains('@'),
            size: AtomicU64::new(info.size),
            size_as_of: AtomicU64::new(changes),
            _served: shared.note_served(dataset),
        })
    }

    /// Does something with the pool. While it is suspended, waits for devices to return if `failmode` says so.
    fn run<T>(&self, mut step: impl FnMut(&mut Pool) -> Result<T, PoolError>) -> Result<T, TargetError> {
        loop {
            let outcome = self.shared.engine(&mut step);
            match outcome {
                None => return Err(TargetError::Io("the pool is no longer in use".to_owned())),
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) if is_suspended(&error) && self.waits() && !self.shared.has_ended() => {
                    thread::sleep(RETRY);
                }
                Some(Err(error)) => return Err(translate(&error)),
            }
        }
    }

    /// Whether requests wait while the pool is suspended.
    fn waits(&self) -> bool {
        let rows = self.shared.engine(|pool| pool.get("", Some("failmode")));
        matches!(rows, Some(Ok(rows)) if rows.iter().any(|row| row.value == "wait"))
    }

    /// That the range lies within the volume.
    fn check(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        let size = self.size();
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(TargetError::Invalid(format!(
            "{length} bytes at {offset} reach beyond the volume's end at {size}"
        )))
    }
}

/// The engine's error in the terms of servers.
fn translate(error: &PoolError) -> TargetError {
    match error {
        PoolError::NoSpace => TargetError::NoSpace,
        PoolError::ReadOnly => TargetError::ReadOnly,
        PoolError::Refused(why) => TargetError::Invalid(why.clone()),
        other => TargetError::Io(other.to_string()),
    }
}

impl Target for Volume {
    fn size(&self) -> u64 {
        let changes = self.shared.changes();
        if self.size_as_of.load(Ordering::Acquire) != changes
            && let Some(Ok(info)) = self.shared.engine(|pool| pool.volume_info(self.id))
        {
            self.size.store(info.size, Ordering::Release);
            self.size_as_of.store(changes, Ordering::Release);
        }
        self.size.load(Ordering::Acquire)
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.check(offset, buffer.len() as u64)?;
        self.run(|pool| pool.read(self.id, offset, buffer))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.check(offset, data.len() as u64)?;
        if self.read_only {
            return Err(TargetError::ReadOnly);
        }
        self.run(|pool| pool.write(self.id, offset, data))
    }

    fn flush(&self) -> Result<(), TargetError> {
        if self.read_only {
            return Ok(());
        }
        self.run(Pool::flush)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.check(offset, length)?;
        if self.read_only {
            return Err(TargetError::ReadOnly);
        }
        self.run(|pool| pool.discard(self.id, offset, length))
    }

    fn write_zeroes(&self, offset: u64, length: u64, _keep_allocated: bool) -> Result<(), TargetError> {
        // Reserved space stays reserved whether or not blocks of zeros are stored.
        self.discard(offset, length)
    }

    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError> {
        self.check(offset, length)?;
        let runs = self.run(|pool| pool.runs(self.id, offset, length, limit))?;
        Ok(runs.into_iter().map(|(length, hole)| Run { length, hole }).collect())
    }

    fn cheap_zeroes(&self) -> bool {
        true
    }
}
