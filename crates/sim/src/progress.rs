//! How far a long run has come, over several sittings (`--resume`): which numbers were tried, and what that added up to.
//!
//! Numbers are handed out in order and come back in any. The file is replaced whole, now and then, so that a killed run
//! loses a few seconds of work: what was not yet noted as done is tried again.
//!
//! The file: in the first line the lowest number that was not done, and ranges `from-to` (without `to`) of those above it
//! that were; then lines of `done refused name` of the tally.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device::RangeSet;

use crate::run::Tally;

/// The least time between two writes of the file.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What was tried, kept in a file if there is one.
#[derive(Debug)]
pub struct Progress {
    path: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Numbers that need not be tried any more; all below the first one are in it.
    done: RangeSet,
    /// The next number to hand out.
    next: u64,
    tally: Tally,
    saved: Option<Instant>,
}

impl Progress {
    /// Goes on where the file was left; begins with `first` where there is none.
    ///
    /// # Errors
    /// The file can't be read, or is something else.
    pub fn open(path: Option<&Path>, first: u64) -> Result<Self, String> {
        let path = path.map(Path::to_owned);
        let mut inner = Inner { next: first, ..Inner::default() };
        if let Some(path) = &path {
            match std::fs::read_to_string(path) {
                Ok(text) => {
                    inner = Inner::parse(&text)
                        .ok_or_else(|| format!("{} is no file that --resume has made", path.display()))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
            }
        }
        inner.done.insert(0..inner.next);
        Ok(Self { path, inner: Mutex::new(inner) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lowest number that was not done.
    pub fn first(&self) -> u64 {
        self.inner().first()
    }

    /// How many numbers were done, with all below the first one.
    pub fn count(&self) -> u64 {
        self.inner().done.length()
    }

    /// The next number to try.
    pub fn take(&self) -> u64 {
        let mut inner = self.inner();
        let done = inner.done.first_overlap(inner.next..u64::MAX);
        let taken = done.filter(|done| done.start == inner.next).map_or(inner.next, |done| done.end);
        inner.next = taken + 1;
        taken
    }

    /// Number `number` was tried, without a failure; adds what it counted. Keeps everything if it was not kept lately.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn done(&self, number: u64, tally: &Tally) -> Result<(), String> {
        let mut inner = self.inner();
        inner.done.insert(number..number + 1);
        inner.tally.merge(tally);
        if inner.saved.is_some_and(|saved| saved.elapsed() < SAVE_EVERY) {
            return Ok(());
        }
        self.save(&mut inner)
    }

    /// Keeps everything, and gives what all sittings added up to.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn finish(&self) -> Result<Tally, String> {
        let mut inner = self.inner();
        self.save(&mut inner)?;
        Ok(inner.tally.clone())
    }

    fn save(&self, inner: &mut Inner) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let written = File::create(&new)
            .and_then(|mut file| file.write_all(inner.text().as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new, path));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        inner.saved = Some(Instant::now());
        Ok(())
    }
}

impl Inner {
    fn first(&self) -> u64 {
        self.done.iter().next().filter(|done| done.start == 0).map_or(0, |done| done.end)
    }

    fn text(&self) -> String {
        let first = self.first();
        let mut text = first.to_string();
        for range in self.done.iter().filter(|range| range.start > first) {
            let _ = write!(text, " {}-{}", range.start, range.end);
        }
        for (name, (done, refused)) in &self.tally.counts {
            let _ = write!(text, "\n{done} {refused} {name}");
        }
        text + "\n"
    }

    fn parse(text: &str) -> Option<Self> {
        let mut inner = Self::default();
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        inner.next = words.next()?.parse().ok()?;
        for word in words {
            let (from, to) = word.split_once('-')?;
            inner.done.insert(from.parse().ok()?..to.parse().ok()?);
        }
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let counts = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            inner.tally.counts.insert(words.next()?.to_owned(), counts);
        }
        Some(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Tally {
        let mut tally = Tally::default();
        tally.add("a thing", true);
        tally
    }

    /// Numbers that were taken and not done are handed out again, those that were done are not, whatever the order.
    #[test]
    fn what_was_under_way_is_tried_again() {
        let path = std::env::temp_dir().join(format!("coffer-progress-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let progress = Progress::open(Some(&path), 7).unwrap();
        let taken: Vec<u64> = (0..6).map(|_| progress.take()).collect();
        assert_eq!(taken, [7, 8, 9, 10, 11, 12]);
        for number in [8, 7, 10, 11] {
            progress.done(number, &one()).unwrap();
        }
        // The first one was kept at once, the others shortly after it were not.
        let killed = Progress::open(Some(&path), 1).unwrap();
        assert_eq!((killed.first(), killed.take(), killed.take(), killed.take()), (7, 7, 9, 10));
        progress.finish().unwrap();
        let next = Progress::open(Some(&path), 1).unwrap();
        assert_eq!((next.first(), next.take(), next.take(), next.take()), (9, 9, 12, 13));
        next.done(9, &one()).unwrap();
        next.done(12, &one()).unwrap();
        assert_eq!(next.finish().unwrap().counts["a thing"], (6, 0));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "13\n6 0 a thing\n");
        std::fs::write(&path, "something else\n").unwrap();
        assert!(Progress::open(Some(&path), 1).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
