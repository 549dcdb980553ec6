//! Both file systems at work: files are copied in, made durable, compared and removed, over and over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::SYSTEMS;
use super::sample::{self, LOAD};
use crate::lab::Lab;

/// Between two looks at the workers.
const PAUSE: Duration = Duration::from_millis(20);

/// Workers, one for each file system.
#[derive(Debug)]
pub struct Load {
    workers: Vec<Worker>,
    end: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Worker {
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Result<usize>>,
}

impl Load {
    /// Begins. `mounted` are the folders of the file systems.
    pub fn start(lab: &Arc<Lab>, mounted: [String; 2]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let workers = SYSTEMS
            .into_iter()
            .zip(mounted)
            .map(|(name, mounted)| {
                let rounds = Arc::new(AtomicU64::new(0));
                let (lab, end, count) = (Arc::clone(lab), Arc::clone(&end), Arc::clone(&rounds));
                let thread = thread::spawn(move || {
                    let mut files = 0;
                    while !end.load(Ordering::Relaxed) {
                        sample::copy(&lab, name, LOAD, &mounted)?;
                        files = sample::compare(&lab, name, LOAD, &mounted)?;
                        sample::remove(&lab, LOAD, &mounted)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(files)
                });
                Worker { rounds, thread }
            })
            .collect();
        Self { workers, end }
    }

    /// Waits until each file system has done a round that was begun after this call.
    ///
    /// # Errors
    /// The load has ended, or we are interrupted.
    pub fn goes_on(&self, lab: &Lab) -> Result<()> {
        let rounds = |worker: &Worker| worker.rounds.load(Ordering::Relaxed);
        let wanted: Vec<u64> = self.workers.iter().map(|worker| rounds(worker) + 2).collect();
        while self.workers.iter().zip(&wanted).any(|(worker, wanted)| rounds(worker) < *wanted) {
            ensure!(!self.workers.iter().any(|worker| worker.thread.is_finished()), "the load broke off");
            ensure!(!lab.interrupted(), "interrupted");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends it; says what was done.
    ///
    /// # Errors
    /// A file that was not what had been written, or any failure.
    pub fn end(mut self) -> Result<String> {
        self.end.store(true, Ordering::Relaxed);
        let mut said = Vec::new();
        for (worker, name) in self.workers.drain(..).zip(SYSTEMS) {
            let files = worker.thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            let files = files.map_err(|error| error.context(format!("the load on {name}")))?;
            said.push(format!("{name} {} times {files} files", worker.rounds.load(Ordering::Relaxed)));
        }
        Ok(said.join(", "))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // What broke is told, since it is likely why we are here.
            if let Ok(Err(error)) = worker.thread.join() {
                eprintln!("the load ended with: {error:#}");
            }
        }
    }
}
