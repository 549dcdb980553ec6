//! Requests in the kernel's own queues.

use std::fmt;
use std::io;
use std::sync::{Mutex, OnceLock};

use io_uring::IoUring;

use super::{Inline, Op, Request, Runner, Threads};
use crate::Operation;
use crate::check::{Target, lock, read_length, within, write_length};
use crate::sys::error_kind_of;
use crate::sys::ring::{Answer, BUFFERS_MAX, execute};

/// Gives a whole batch to the kernel with one system call where the devices have descriptors. Requests that cannot
/// go that way (other devices, discards, badly aligned buffers) run on threads meanwhile.
///
/// Each thread that runs a batch takes a ring of its own for as long as it lasts.
pub struct Uring {
    depth: u32,
    /// Rings that nobody is using.
    idle: Mutex<Vec<IoUring>>,
    /// Started when they are first needed.
    threads: OnceLock<Option<Threads>>,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Uring {
    /// A depth at which fast drives reach their full rate.
    pub const DEPTH: u32 = 128;

    /// A runner that keeps up to `depth` requests under way at a time in each batch.
    ///
    /// # Errors
    /// If the kernel has no `io_uring` or refuses it (`kernel.io_uring_disabled`, a container's filter).
    pub fn new(depth: u32) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096);
        let ring = IoUring::new(depth)?;
        Ok(Self { depth, idle: Mutex::new(vec![ring]), threads: OnceLock::new() })
    }

    /// Runs on threads, or here where there are none, and `meanwhile` here.
    fn run_others(&self, others: Vec<&mut Request<'_>>, meanwhile: impl FnOnce()) {
        let threads = match others.len() {
            0 => &None,
            _ => self.threads.get_or_init(|| Threads::new(Threads::COUNT).ok()),
        };
        if let Some(threads) = threads {
            threads.run_beside(others.into_iter(), meanwhile);
        } else {
            meanwhile();
            others.into_iter().for_each(Request::run);
        }
    }

    /// Runs requests that are all [`queueable`].
    fn run_queued(&self, requests: &mut [&mut Request<'_>]) {
        let idle = lock(&self.idle).pop();
        let ring = idle.map_or_else(|| IoUring::new(self.depth), Ok);
        let Ok(mut ring) = ring else {
            // Out of descriptors or locked memory: slower, but it works.
            for request in requests {
                request.run();
            }
            return;
        };
        let (answers, usable) = execute(&mut ring, requests);
        if usable {
            lock(&self.idle).push(ring);
        }
        for (request, answer) in requests.iter_mut().zip(answers) {
            finish(request, answer);
        }
    }
}

impl Runner for Uring {
    fn run(&self, requests: &mut [Request<'_>]) {
        // For one request the plain system call is cheaper.
        if requests.len() <= 1 {
            return Inline.run(requests);
        }
        let (mut queued, mut others): (Vec<_>, Vec<_>) = requests.iter_mut().partition(|r| queueable(r));
        if queued.is_empty() {
            let own = others.pop();
            self.run_others(others, || own.into_iter().for_each(Request::run));
        } else {
            self.run_others(others, || self.run_queued(&mut queued));
        }
    }
}

/// Whether the kernel can take a request as it is, without what the device's own methods do around it.
fn queueable(request: &Request<'_>) -> bool {
    let device = request.device;
    if device.raw_fd().is_none() {
        return false;
    }
    let alignment = device.raw_alignment() as usize;
    let aligned =
        |bytes: &[u8]| alignment <= 1 || (bytes.as_ptr().addr() | bytes.len()).is_multiple_of(alignment);
    let fits = |offset: u64, length: u64, count: usize| {
        // A write behind its end would grow a file; the device itself refuses that.
        let inside = || device.size().is_ok_and(|size| within(offset, length, size));
        count <= BUFFERS_MAX && length > 0 && offset.is_multiple_of(alignment.max(1) as u64) && inside()
    };
    match &request.op {
        Op::Read { offset, buffers } => {
            fits(*offset, read_length(buffers), buffers.len()) && buffers.iter().all(|bytes| aligned(bytes))
        }
        Op::Write { offset, buffers } => {
            fits(*offset, write_length(buffers), buffers.len()) && buffers.iter().all(|bytes| aligned(bytes))
        }
        Op::Flush => true,
        Op::Discard { .. } => false,
    }
}

/// Turns the kernel's answer into the request's result.
fn finish(request: &mut Request<'_>, answer: Answer) {
    let (operation, offset, length) = match &request.op {
        Op::Read { offset, buffers } => (Operation::Read, *offset, read_length(buffers)),
        Op::Write { offset, buffers } => (Operation::Write, *offset, write_length(buffers)),
        Op::Flush => (Operation::Flush, 0, 0),
        Op::Discard { offset, length } => (Operation::Discard, *offset, *length),
    };
    match answer {
        Answer::Done(moved) if moved == length => request.result = Ok(()),
        // Cut short by a signal, by the largest size of a call or by the end of the file: the device itself
        // continues or finds out. This never repeats a flush, which might hide that the first one failed.
        Answer::NotRun | Answer::Done(_) => request.run(),
        Answer::Failed(errno) => {
            let kind = error_kind_of(request.device, errno);
            let target = Target { device: &request.device.info().name, operation, offset, length };
            request.result = Err(target.error(kind));
        }
    }
}
