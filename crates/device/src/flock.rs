//! Advisory locks on files and block devices, and who holds them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

use crate::DeviceErrorKind;
use crate::sys::error_kind;

/// How an open device is protected against other processes. Kept until the device is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Nobody else may hold it with a lock. On a block device the kernel may not use it either (mounted, part
    /// of an md array or of a device-mapper table, swap).
    Exclusive,
    /// Others may hold it shared too.
    Shared,
    /// No protection; for looking at labels.
    None,
}

/// Hardware managers lock a block device for a moment when they probe it after a change, so a short wait there
/// avoids refusing a device that is free.
const BLOCK_TRIES: u32 = 10;
const BLOCK_PAUSE: Duration = Duration::from_millis(50);

/// Takes the lock on `file`.
pub(crate) fn acquire(file: &File, lock: Lock, block: bool) -> Result<(), DeviceErrorKind> {
    let operation = match lock {
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::None => return Ok(()),
    };
    let mut tries = if block { BLOCK_TRIES } else { 1 };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                tries -= 1;
                if tries == 0 {
                    return Err(DeviceErrorKind::Busy { holder: holder(file) });
                }
                thread::sleep(BLOCK_PAUSE);
            }
            Err(errno) => return Err(error_kind(errno)),
        }
    }
}

/// The kernel gives its lock table out a page at a time, and an entry can slip from one page to another in
/// between, so a lock that must be there is looked for more than once.
const TABLE_TRIES: usize = 5;

/// A process that holds a lock on the file, which is known to be locked.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    (0..TABLE_TRIES).find_map(|_| find_holder(&metadata))
}

fn find_holder(metadata: &fs::Metadata) -> Option<u32> {
    let table = fs::read_to_string("/proc/locks").ok()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let locks: Vec<Held> = table.lines().filter_map(parse).filter(|held| held.inode == inode).collect();
    let exact = |held: &&Held| (held.major, held.minor) == (major(device), minor(device));
    // File systems with several volumes (btrfs, overlayfs) tell stat another device number than the lock
    // table, so there the process itself is asked what it has open.
    let opened = |held: &&Held| has_open(held.pid, device, inode);
    locks.iter().find(exact).or_else(|| locks.iter().find(opened)).map(|held| held.pid)
}

#[derive(Debug, PartialEq, Eq)]
struct Held {
    pid: u32,
    major: u32,
    minor: u32,
    inode: u64,
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fd:01:12345 0 EOF`. Lines of those who wait have an arrow and are skipped;
/// holders in another PID namespace have the number 0 or none and are skipped too.
fn parse(line: &str) -> Option<Held> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok().filter(|&pid| pid != 0)?;
    let mut place = fields.next()?.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    Some(Held { pid, major, minor, inode: place.next()?.parse().ok()? })
}

fn has_open(pid: u32, device: u64, inode: u64) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|open| open.dev() == device && open.ino() == inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_table_lines_are_read_and_waiters_are_not() {
        let held = parse("12: FLOCK  ADVISORY  WRITE 4711 fd:1f:12345 0 EOF").unwrap();
        assert_eq!(held, Held { pid: 4711, major: 0xfd, minor: 0x1f, inode: 12345 });
        for other in [
            "12: -> FLOCK  ADVISORY  WRITE 4711 fd:01:12345 0 EOF",
            "1: POSIX  ADVISORY  WRITE 4711 fd:01:12345 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 0 fd:01:12345 0 EOF",
            "1: FLOCK  ADVISORY  WRITE -1 fd:01:12345 0 EOF",
            "1: FLOCK",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
