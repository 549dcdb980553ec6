//! Requests on a fixed number of threads.

use std::io;

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{Request, Runner};

/// Runs each request of a batch on one of a fixed number of threads, the last one on the calling thread.
#[derive(Debug)]
pub struct Threads {
    pool: ThreadPool,
}

impl Threads {
    /// A number that keeps a dozen disks busy. The threads mostly sleep in the kernel, so it does not depend on
    /// the number of processors.
    pub const COUNT: usize = 16;

    /// A pool of `count` threads, at least one.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(count: usize) -> io::Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(count.max(1))
            .thread_name(|index| format!("device-{index}"))
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { pool })
    }

    /// Runs the requests on the pool and `meanwhile` on the calling thread.
    pub(super) fn run_beside<'r, 'a: 'r>(
        &self,
        requests: impl Iterator<Item = &'r mut Request<'a>>,
        meanwhile: impl FnOnce(),
    ) {
        self.pool.in_place_scope(|scope| {
            for request in requests {
                scope.spawn(|_| request.run());
            }
            meanwhile();
        });
    }
}

impl Runner for Threads {
    fn run(&self, requests: &mut [Request<'_>]) {
        // Waking a thread costs more than most cached requests, so the caller takes one, and a batch of one
        // wakes nobody.
        let Some((own, others)) = requests.split_last_mut() else { return };
        if others.is_empty() {
            own.run();
        } else {
            self.run_beside(others.iter_mut(), || own.run());
        }
    }
}
