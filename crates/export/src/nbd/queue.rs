//! Requests that wait for a worker thread of their connection, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::protocol::Request;

/// Worker threads of one connection: what a volume on several disks needs to be busy.
pub(super) const WORKERS_MAX: usize = 16;
/// Requests that wait or run.
const JOBS_MAX: usize = 128;
/// Bytes of data that waiting and running requests hold, save for a single larger one.
const BYTES_MAX: usize = 64 << 20;
/// Payload buffers kept for the next writes.
const SPARES_MAX: usize = 8;
/// Larger payload buffers are not kept.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// A worker that has had nothing to do for so long ends, and its buffers with it.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A request and what came with it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: Request,
    /// What to write: the first `request.length` bytes.
    pub(super) payload: Vec<u8>,
    /// Bytes that it is counted with.
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    running: usize,
    bytes: usize,
    /// Workers that wait for a job.
    idle: usize,
    workers: usize,
    closed: bool,
    spares: Vec<Vec<u8>>,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when a job came or the queue was closed.
    work: Condvar,
    /// Told when a job ended.
    room: Condvar,
}

/// What became of a job that was handed over.
pub(super) enum Handover {
    /// A worker will take it.
    Taken,
    /// Likewise, but one more worker should be started.
    NeedsWorker,
}

impl Queue {
    /// A panic elsewhere leaves the state valid: every change of it is complete before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether any request waits or runs.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.lock();
        state.running == 0 && state.waiting.is_empty()
    }

    /// Whether a job with that many bytes may be pushed now.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        room(&self.lock(), bytes)
    }

    /// Waits until a job with that many bytes may be pushed.
    pub(super) fn wait_for_room(&self, bytes: usize) {
        let mut state = self.lock();
        while !room(&state, bytes) && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Queues a job. Whoever is told to start a worker must do so, or call [`Self::worker_not_started`].
    pub(super) fn push(&self, job: Job) -> Handover {
        let mut state = self.lock();
        state.bytes += job.bytes;
        state.waiting.push_back(job);
        if state.waiting.len() > state.idle && state.workers < WORKERS_MAX {
            state.workers += 1;
            return Handover::NeedsWorker;
        }
        drop(state);
        self.work.notify_one();
        Handover::Taken
    }

    /// Takes a worker back that was asked for but could not be started. Returns a job for the caller to
    /// run if no worker is left who would.
    pub(super) fn worker_not_started(&self) -> Option<Job> {
        let mut state = self.lock();
        state.workers -= 1;
        if state.workers > 0 {
            return None;
        }
        let job = state.waiting.pop_back()?;
        state.running += 1;
        Some(job)
    }

    /// Waits for a job; `None` if the worker shall end: the queue is closed and empty, or was empty for long.
    pub(super) fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                state.running += 1;
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            let (woken, wait) =
                self.work.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if wait.timed_out() && state.waiting.is_empty() {
                state.workers -= 1;
                if state.workers == 0 {
                    state.spares = Vec::new();
                }
                return None;
            }
        }
    }

    /// A popped job of that many bytes has ended; its payload buffer may be used again.
    pub(super) fn finished(&self, bytes: usize, payload: Vec<u8>) {
        let mut state = self.lock();
        state.running -= 1;
        state.bytes -= bytes;
        if (1..=SPARE_BYTES_MAX).contains(&payload.len()) && state.spares.len() < SPARES_MAX {
            state.spares.push(payload);
        }
        drop(state);
        self.room.notify_one();
    }

    /// A buffer of at least `length` bytes.
    pub(super) fn payload_buffer(&self, length: usize) -> Vec<u8> {
        let mut buffer = self.lock().spares.pop().unwrap_or_default();
        if buffer.len() < length {
            // Nothing in it is worth copying to a new place.
            buffer.clear();
            buffer.resize(length, 0);
        }
        buffer
    }

    /// No more jobs come. Those that wait are run, or forgotten if nobody is left to hear of them.
    pub(super) fn close(&self, forget: bool) {
        let mut state = self.lock();
        state.closed = true;
        if forget {
            state.waiting.clear();
        }
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }
}

fn room(state: &State, bytes: usize) -> bool {
    let jobs = state.running + state.waiting.len();
    jobs == 0 || (jobs < JOBS_MAX && state.bytes + bytes <= BYTES_MAX)
}
