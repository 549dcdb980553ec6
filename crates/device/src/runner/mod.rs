//! Batches of requests to several devices, and who executes them: [`Inline`] on the calling thread, [`Threads`]
//! on a pool of threads, [`Uring`] in the kernel's queues.

mod threads;
mod uring;

pub use threads::Threads;
pub use uring::Uring;

use std::io::{IoSlice, IoSliceMut};

use crate::{BlockDevice, DeviceError};

/// What one request does. Offsets and lengths are bytes.
#[derive(Debug)]
pub enum Op<'a> {
    /// Fill the buffers from `offset` on.
    Read {
        /// Where on the device.
        offset: u64,
        /// What to fill, in order.
        buffers: Vec<IoSliceMut<'a>>,
    },
    /// Write the buffers from `offset` on.
    Write {
        /// Where on the device.
        offset: u64,
        /// What to write, in order.
        buffers: Vec<IoSlice<'a>>,
    },
    /// Make all earlier, finished writes durable.
    Flush,
    /// Forget a range.
    Discard {
        /// Where on the device.
        offset: u64,
        /// How much.
        length: u64,
    },
}

/// One operation on one device, and its outcome once it was run.
#[derive(Debug)]
pub struct Request<'a> {
    /// The device it goes to.
    pub device: &'a dyn BlockDevice,
    /// What to do there.
    pub op: Op<'a>,
    /// Set by the runner.
    pub result: Result<(), DeviceError>,
}

impl<'a> Request<'a> {
    /// A request that has not been run.
    pub fn new(device: &'a dyn BlockDevice, op: Op<'a>) -> Self {
        Self { device, op, result: Ok(()) }
    }

    /// Bytes that it moves.
    pub fn bytes(&self) -> usize {
        match &self.op {
            Op::Read { buffers, .. } => buffers.iter().map(|buffer| buffer.len()).sum(),
            Op::Write { buffers, .. } => buffers.iter().map(|buffer| buffer.len()).sum(),
            Op::Flush | Op::Discard { .. } => 0,
        }
    }

    /// Runs the request on the calling thread.
    pub fn run(&mut self) {
        self.result = match &mut self.op {
            Op::Read { offset, buffers } => self.device.read_vectored(*offset, buffers),
            Op::Write { offset, buffers } => self.device.write_vectored(*offset, buffers),
            Op::Flush => self.device.flush(),
            Op::Discard { offset, length } => self.device.discard(*offset, *length),
        };
    }
}

/// Executes batches of requests.
///
/// The requests of one batch may run in any order and at the same time, so no two of them may overlap on
/// one device unless both read; a flush in a batch covers only earlier batches.
pub trait Runner: Send + Sync {
    /// Returns when every request has its `result`.
    fn run(&self, requests: &mut [Request<'_>]);

    /// As [`Runner::run`], for one of several callers that keep the processors busy by themselves: copies from and to
    /// files are best made by whoever uses the bytes next.
    fn run_here(&self, requests: &mut [Request<'_>]) {
        self.run(requests);
    }

    /// How many processors the caller may keep busy with its own pure work between batches: 1 where everything is
    /// to happen on the calling thread.
    fn parallelism(&self) -> usize {
        1
    }
}

/// Queues to disks through `io_uring`, and copies to and from files on threads.
///
/// What is behind a file is the page cache: its requests are copies in memory, which a kernel ring would do one
/// after another. Small ones cost less than waking a thread.
#[derive(Debug)]
pub struct Adaptive {
    disks: Option<Uring>,
    threads: Threads,
    processors: usize,
}

impl Adaptive {
    /// Bytes of a batch from which on threads are worth waking.
    const THREADS_FROM: usize = 512 << 10;

    /// A runner for disks and files.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let disks = Uring::new(Uring::DEPTH).ok();
        // Without a ring the threads are the disks' queue, too.
        let count = if disks.is_some() { processors } else { Threads::COUNT };
        Ok(Self { disks, threads: Threads::new(count)?, processors })
    }
}

impl Runner for Adaptive {
    fn run_here(&self, requests: &mut [Request<'_>]) {
        if requests.iter().any(|request| request.device.info().block_device) {
            self.run(requests);
        } else {
            Inline.run(requests);
        }
    }

    fn run(&self, requests: &mut [Request<'_>]) {
        let any_disk = requests.iter().any(|request| request.device.info().block_device);
        let bytes: usize = requests.iter().map(Request::bytes).sum();
        match &self.disks {
            Some(ring) if any_disk => ring.run(requests),
            None if any_disk => self.threads.run(requests),
            _ if bytes >= Self::THREADS_FROM => self.threads.run(requests),
            _ => Inline.run(requests),
        }
    }

    fn parallelism(&self) -> usize {
        self.processors
    }
}

/// Runs requests one after another on the calling thread, in order: deterministic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline;

impl Runner for Inline {
    fn run(&self, requests: &mut [Request<'_>]) {
        for request in requests {
            request.run();
        }
    }
}

/// The fastest runner that works here: `io_uring` for disks where the kernel allows it, threads for the rest.
///
/// # Errors
/// If not even threads can be had.
pub fn best_runner() -> std::io::Result<Box<dyn Runner>> {
    Ok(Box::new(Adaptive::new()?))
}
