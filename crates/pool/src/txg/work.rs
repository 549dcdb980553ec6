//! The part of a commit that needs nothing of the pool: data and nodes go to places that no root knows.
//!
//! The pool keeps a [`Slot`] and hands out [`CommitWork`]. Whoever has that runs it, on any thread, while the pool is
//! read and written. The pool takes the outcome; if nobody has begun the work by then it does it itself, and if
//! somebody is at it, it waits. So a commit never hangs on who promised to run it, and with one thread a run is
//! the same every time.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::io::{Piece, WriteOutcome, Writer};

/// What is to be written, and by whom.
pub(crate) struct Job {
    pub(crate) writer: Writer,
    pub(crate) pieces: Vec<Piece>,
    /// Much is written: a flush of its own keeps the one at the end of the commit short.
    pub(crate) flush: bool,
}

impl Job {
    fn run(&self) -> WriteOutcome {
        let mut outcome = self.writer.write(&self.pieces);
        if self.flush {
            self.writer.flush(&mut outcome);
        }
        outcome
    }
}

enum Stage {
    Waiting(Job),
    Running,
    Done(WriteOutcome),
    Taken,
}

/// Where a commit's writing stands.
pub(crate) struct Slot {
    stage: Mutex<Stage>,
    changed: Condvar,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// Puts the job back if it is dropped by a panic: whoever waits then does it.
struct Running<'a> {
    slot: &'a Slot,
    job: Option<Job>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            *self.slot.lock() = Stage::Waiting(job);
            self.slot.changed.notify_all();
        }
    }
}

impl Slot {
    pub(crate) fn new(job: Job) -> Arc<Self> {
        Arc::new(Self { stage: Mutex::new(Stage::Waiting(job)), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work unless somebody else does or did.
    fn run(&self) {
        let mut stage = self.lock();
        match std::mem::replace(&mut *stage, Stage::Running) {
            Stage::Waiting(job) => {
                drop(stage);
                let mut running = Running { slot: self, job: Some(job) };
                let outcome = running.job.as_ref().map(Job::run).unwrap_or_default();
                // The pieces go before the pool hears of it: what they hold on to is free for the next group.
                running.job = None;
                *self.lock() = Stage::Done(outcome);
                self.changed.notify_all();
            }
            other => *stage = other,
        }
    }

    /// The outcome, for which this waits or works; nothing when it was taken before.
    pub(crate) fn outcome(&self) -> WriteOutcome {
        loop {
            self.run();
            let mut stage = self.lock();
            while matches!(*stage, Stage::Running) {
                stage = self.changed.wait(stage).unwrap_or_else(PoisonError::into_inner);
            }
            if matches!(*stage, Stage::Waiting(_)) {
                continue;
            }
            return match std::mem::replace(&mut *stage, Stage::Taken) {
                Stage::Done(outcome) => outcome,
                _ => WriteOutcome::default(),
            };
        }
    }

    /// Sees to it that nothing is written any more: not begun yet, it never will be.
    pub(crate) fn abandon(&self) {
        let mut stage = self.lock();
        while matches!(*stage, Stage::Running) {
            stage = self.changed.wait(stage).unwrap_or_else(PoisonError::into_inner);
        }
        *stage = Stage::Taken;
    }
}

/// What a commit writes before it needs the pool again: see [`Pool::begin_commit`](crate::Pool::begin_commit).
#[derive(Debug)]
pub struct CommitWork {
    pub(super) slot: Arc<Slot>,
    /// The number of the commit.
    pub(super) number: u64,
}

impl CommitWork {
    /// Writes, and gives the number of the commit that is to be finished now. Errors of devices are told to the pool.
    pub fn run(self) -> u64 {
        self.slot.run();
        self.number
    }
}
