//! Map files on disk: read if they are there, replaced as a whole when they change.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use device::{BadMap, Rescue};

use crate::error::{Failure, Outcome};

/// How often a map is saved while work goes on.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The map in the file; nothing tried if there is no file.
///
/// # Errors
/// It can't be read, or is no map.
pub(super) fn read(path: &Path) -> Outcome<BadMap> {
    if !path.exists() {
        return Ok(BadMap::filled(Rescue::NonTried));
    }
    let text = fs::read_to_string(path).map_err(Failure::io(format!("read {}", path.display())))?;
    BadMap::parse(&text).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))
}

/// Replaces the map in the file, so that a crash leaves the old one or the new one.
///
/// # Errors
/// It can't be written.
pub(super) fn write(path: &Path, map: &BadMap, size: u64) -> Outcome {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let replace = || {
        let mut file = File::create(&beside)?;
        file.write_all(map.print(size).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    replace().map_err(|error| {
        // Half a map beside the one that counts is of no use to anybody.
        let _ = fs::remove_file(&beside);
        Failure::io(format!("write {}", path.display()))(error)
    })
}

/// Saves a map now and then.
pub(super) struct Saver<'a> {
    path: &'a Path,
    size: u64,
    last: Instant,
}

impl<'a> Saver<'a> {
    /// For the map of something with `size` bytes.
    pub(super) fn new(path: &'a Path, size: u64) -> Self {
        Self { path, size, last: Instant::now() }
    }

    /// Saves it if that was long ago; `durable` is called before, so that the map never promises too much.
    ///
    /// # Errors
    /// As [`write`].
    pub(super) fn now_and_then(&mut self, map: &BadMap, durable: impl FnOnce() -> Outcome) -> Outcome {
        if self.last.elapsed() < SAVE_EVERY {
            return Ok(());
        }
        durable()?;
        write(self.path, map, self.size)?;
        self.last = Instant::now();
        Ok(())
    }
}
