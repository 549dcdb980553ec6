//! Seeds that never end: an engine that runs in circles would otherwise stop a long run without a word.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a program of 150 steps may take; they take a second or so, and a machine may be busy or stand still.
const LIMIT: Duration = Duration::from_mins(15);

/// What runs since when.
#[derive(Debug, Default)]
pub struct Watch {
    running: Mutex<Running>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    since: BTreeMap<u64, Instant>,
    over: bool,
}

impl Watch {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program of a seed, and is known to.
    pub fn run<T>(&self, seed: u64, run: impl FnOnce() -> T) -> T {
        self.running().since.insert(seed, Instant::now());
        let outcome = run();
        self.running().since.remove(&seed);
        outcome
    }

    /// No more seeds will come.
    pub fn end(&self) {
        self.running().over = true;
        self.changed.notify_all();
    }

    /// Waits until there are no more, or until a program of so many steps has run for too long; returns its seed then.
    pub fn wait(&self, steps: usize) -> Option<u64> {
        self.wait_for(LIMIT * u32::try_from(steps / 150).unwrap_or(u32::MAX).max(1))
    }

    fn wait_for(&self, limit: Duration) -> Option<u64> {
        let mut running = self.running();
        while !running.over {
            let late = running.since.iter().find(|(_, since)| since.elapsed() > limit);
            if let Some((&seed, _)) = late {
                return Some(seed);
            }
            let waited = self.changed.wait_timeout(running, limit.min(Duration::from_secs(5)));
            running = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_named() {
        let watch = Watch::default();
        let named = std::thread::scope(|scope| {
            let late = scope.spawn(|| watch.wait_for(Duration::from_millis(20)));
            assert_eq!(watch.run(1, || 5), 5);
            watch.run(7, || late.join().ok().flatten())
        });
        assert_eq!(named, Some(7));
        watch.end();
        assert_eq!(watch.wait(150), None);
    }
}
