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

/// The fastest runner that works here: `io_uring`, or threads where the kernel has none or refuses it.
///
/// # Errors
/// If not even threads can be had.
pub fn best_runner() -> std::io::Result<Box<dyn Runner>> {
    match Uring::new(Uring::DEPTH) {
        Ok(uring) => Ok(Box::new(uring)),
        Err(_) => Ok(Box::new(Threads::new(Threads::COUNT)?)),
    }
}
