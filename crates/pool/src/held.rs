//! A pool behind a lock, as servers hold it: commits run beside reads and writes.
//!
//! Everything takes the lock for one call of the engine at a time. A commit gives it back while it writes
//! ([`Pool::begin_commit`]): one is begun by the write after which enough is dirty, and handed to a thread that does
//! nothing else ([`Held::commit_behind`]), or by whoever flushes. Writers wait only when the open group is full while
//! the one before is being written, which bounds what is in memory to two groups.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::txg::CommitWork;
use crate::types::DatasetId;

/// How long to wait for others before looking oneself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The locked pool; `None` once it was taken away.
pub type Guard<'a> = MutexGuard<'a, Option<Pool>>;

/// See the head of this module.
#[derive(Debug)]
pub struct Held {
    pool: Mutex<Option<Pool>>,
    /// A commit was finished, or failed.
    ended: Condvar,
    begun: Mutex<Begun>,
    /// There is something new in `begun`.
    handed: Condvar,
}

/// Commits for the thread that does them.
#[derive(Debug, Default)]
struct Begun {
    work: Option<CommitWork>,
    /// The pool was taken away.
    over: bool,
}

impl Held {
    /// Holds a pool.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool: Mutex::new(Some(pool)),
            ended: Condvar::new(),
            begun: Mutex::default(),
            handed: Condvar::new(),
        }
    }

    /// The pool, for one call or a few.
    pub fn lock(&self) -> Guard<'_> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the pool away, if it is still there; whoever waits for it is let go.
    pub fn take(&self) -> Option<Pool> {
        let pool = self.lock().take();
        self.begun().over = true;
        self.handed.notify_all();
        self.ended.notify_all();
        pool
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills a buffer from a place of a volume or snapshot, devices being read without the lock where none of them
    /// lacks anything. `lock` takes it again. `None`: the pool was taken away.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn read<'a>(
        &'a self,
        lock: impl Fn() -> Guard<'a>,
        id: DatasetId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Option<Result<()>> {
        let begun = lock().as_mut()?.read_or_begin(id, offset, buffer);
        let work = match begun {
            Ok(Some(work)) => work,
            Ok(None) => return Some(Ok(())),
            Err(error) => return Some(Err(error)),
        };
        let read = work.run();
        let mut guard = lock();
        let pool = guard.as_mut()?;
        pool.end_read(read);
        Some(pool.read(id, offset, buffer))
    }

    /// Writes to a volume; waits while as much as may be is dirty and a commit is under way.
    /// `None`: the pool was taken away.
    ///
    /// # Errors
    /// As [`Pool::write`].
    pub fn write<'a>(
        &'a self,
        mut guard: Guard<'a>,
        id: DatasetId,
        offset: u64,
        data: &[u8],
    ) -> Option<Result<()>> {
        while guard.as_ref()?.is_committing() && guard.as_ref()?.writers_should_wait() {
            guard = self.wait(guard);
        }
        let pool = guard.as_mut()?;
        let outcome = pool.write(id, offset, data);
        // An error of this commit is for those who flush; what was to be committed stays dirty, or is in the pool.
        if pool.commit_wanted()
            && let Ok(Some(work)) = pool.begin_commit()
        {
            self.begun().work = Some(work);
            self.handed.notify_one();
        }
        Some(outcome)
    }

    /// Returns once everything accepted before the call is durable. `None`: the pool was taken away.
    ///
    /// # Errors
    /// As [`Pool::flush`].
    pub fn flush<'a>(&'a self, mut guard: Guard<'a>) -> Option<Result<()>> {
        let needed = guard.as_ref()?.commit_needed();
        loop {
            let pool = guard.as_mut()?;
            if pool.read_only() {
                return Some(Ok(()));
            }
            if pool.commits_done() >= needed {
                return Some(Ok(()));
            }
            if pool.suspended() {
                return Some(Err(PoolError::Suspended));
            }
            if pool.is_committing() {
                guard = self.wait(guard);
                continue;
            }
            let (back, outcome) = self.commit(guard);
            guard = back;
            match outcome {
                Ok(true) => {}
                Ok(false) => return guard.as_ref().map(|_| Ok(())),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Commits what is dirty, without the lock for most of the time; false when there is nothing to do or a commit is
    /// under way.
    ///
    /// # Errors
    /// As [`Pool::flush`].
    pub fn commit<'a>(&'a self, mut guard: Guard<'a>) -> (Guard<'a>, Result<bool>) {
        let Some(pool) = guard.as_mut() else { return (guard, Ok(false)) };
        let work = match pool.begin_commit() {
            Ok(Some(work)) => work,
            Ok(None) => return (guard, Ok(false)),
            Err(error) => return (guard, Err(error)),
        };
        drop(guard);
        let (guard, outcome) = self.work(work);
        (guard, outcome.map(|()| true))
    }

    fn work(&self, work: CommitWork) -> (Guard<'_>, Result<()>) {
        let number = work.run();
        let mut guard = self.lock();
        // Whoever could not wait may have finished it, and then nothing is left to do.
        let outcome = guard.as_mut().map_or(Ok(()), |pool| pool.finish_commit(number));
        self.ended.notify_all();
        (guard, outcome)
    }

    /// Runs the commits that writes begin, until the pool is taken away: the body of a thread.
    pub fn commit_behind(&self) {
        loop {
            let mut begun = self.begun();
            while begun.work.is_none() && !begun.over {
                begun = self.handed.wait(begun).unwrap_or_else(PoisonError::into_inner);
            }
            let Some(work) = begun.work.take() else { return };
            drop(begun);
            // A failure suspends the pool, which everybody sees.
            let _ = self.work(work);
        }
    }

    /// Waits until the commit under way has ended.
    fn wait<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        let (mut guard, timeout) =
            self.ended.wait_timeout(guard, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out()
            && let Some(pool) = guard.as_mut()
        {
            // It may be that nobody is there any more to finish it. What came of it shows in the pool.
            let _ = pool.finish_commit(u64::MAX);
            self.ended.notify_all();
        }
        guard
    }
}
