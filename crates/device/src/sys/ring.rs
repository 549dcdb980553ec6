//! Batches of requests through an `io_uring`.

use std::thread;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use crate::runner::{Op, Request};

/// Most buffers the kernel takes in one request (`UIO_MAXIOV`).
pub(crate) const BUFFERS_MAX: usize = 1024;

/// What the kernel said to one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// It never got there.
    NotRun,
    /// It moved so many bytes.
    Done(u64),
    /// It failed.
    Failed(Errno),
}

/// Ends the process if it is dropped by a panic: the kernel would go on writing into buffers that the unwinding
/// gives away.
struct NoUnwind;

impl Drop for NoUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Gives the requests to the kernel, as many at a time as the ring holds, and returns when none is under way.
///
/// The second value tells whether the ring can be used again. Discards and requests for devices without a
/// descriptor are not run; requests for more than [`BUFFERS_MAX`] buffers fail.
pub(crate) fn execute(ring: &mut IoUring, requests: &mut [&mut Request<'_>]) -> (Vec<Answer>, bool) {
    let depth = ring.params().sq_entries() as usize;
    let mut answers = vec![Answer::NotRun; requests.len()];
    let mut waiting = requests
        .iter_mut()
        .enumerate()
        .filter_map(|(index, request)| Some(entry(request)?.user_data(index as u64)));
    let mut next = waiting.next();
    // In the submission queue or in the kernel.
    let mut pending = 0_usize;
    let guard = NoUnwind;
    let mut usable = true;
    while usable && (next.is_some() || pending > 0) {
        let mut queue = ring.submission();
        while pending < depth
            && let Some(entry) = next.take()
        {
            // SAFETY: the entry points at the buffers of a request and names its device's descriptor. Both are
            // borrowed by `requests` until this function returns, which it does only after the kernel has
            // answered every request it was given: normally by this loop, otherwise by `settle`, and a panic
            // in between ends the process. The buffers of a read are borrowed exclusively.
            if unsafe { queue.push(&entry) }.is_err() {
                next = Some(entry);
                break;
            }
            pending += 1;
            next = waiting.next();
        }
        drop(queue);
        // With more to come the ring is refilled when it is half empty.
        let wanted = if next.is_some() { pending.div_ceil(2) } else { pending };
        if let Err(error) = ring.submit_and_wait(wanted) {
            let errno = Errno::from_io_error(&error);
            // Interrupted, or the kernel wants its completions taken away first.
            usable = matches!(errno, Some(Errno::INTR | Errno::AGAIN | Errno::BUSY));
        }
        pending -= reap(ring, &mut answers);
    }
    if !usable {
        settle(ring, pending, &mut answers);
    }
    std::mem::forget(guard);
    (answers, usable)
}

/// Takes what was completed; tells how many.
fn reap(ring: &mut IoUring, answers: &mut [Answer]) -> usize {
    let mut count = 0;
    for completion in ring.completion() {
        count += 1;
        if let Some(answer) = answers.get_mut(completion.user_data() as usize) {
            let result = completion.result();
            *answer = match u32::try_from(result) {
                Ok(bytes) => Answer::Done(u64::from(bytes)),
                Err(_) => Answer::Failed(Errno::from_raw_os_error(result.saturating_neg())),
            };
        }
    }
    count
}

/// The ring takes nothing any more: waits for what the kernel has. What it never took stays in the queue, which
/// the caller drops with the ring.
fn settle(ring: &mut IoUring, pending: usize, answers: &mut [Answer]) {
    let mut under_way = pending.saturating_sub(ring.submission().len());
    while under_way > 0 {
        under_way = under_way.saturating_sub(reap(ring, answers));
        thread::sleep(Duration::from_millis(1));
    }
}

fn entry(request: &mut Request<'_>) -> Option<Entry> {
    let file = types::Fd(request.device.raw_fd()?);
    Some(match &mut request.op {
        // `IoSlice` and `IoSliceMut` are documented to have the layout of the system's `iovec`.
        Op::Read { offset, buffers } => {
            let list = buffers.as_mut_ptr();
            opcode::Readv::new(file, list.cast(), buffers.len() as u32).offset(*offset).build()
        }
        Op::Write { offset, buffers } => {
            let list = buffers.as_ptr();
            opcode::Writev::new(file, list.cast(), buffers.len() as u32).offset(*offset).build()
        }
        Op::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        Op::Discard { .. } => return None,
    })
}
