//! What lies behind the end of a file: in its last block there are zeros, in every file system that is in its right mind.
//!
//! Files lie everywhere, so that these places tell more of an array's order than the few where metadata is.

use device::BlockDevice;

use super::{Checks, read};

/// Fewer bytes than this behind the end may be zeros by chance.
const SLACK_LEAST: usize = 8;
/// How many bytes before the end are looked at.
const LAST: usize = 64;

/// A file's last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where the block begins, bytes.
    pub(super) at: u64,
    /// Bytes of it that belong to the file.
    pub(super) used: usize,
}

/// Counts whether the block ends as the file does. One that says nothing is not counted.
pub(super) fn check(device: &dyn BlockDevice, block: u64, tail: Tail, checks: &mut Checks) {
    if tail.used == 0 || tail.used + SLACK_LEAST > block as usize {
        return;
    }
    let Some(bytes) = read(device, tail.at, block as usize) else {
        checks.count(None);
        return;
    };
    let (own, slack) = bytes.split_at(tail.used);
    if slack.iter().any(|byte| *byte != 0) {
        checks.count(Some(false));
    } else if own[own.len().saturating_sub(LAST)..].iter().any(|byte| *byte != 0) {
        checks.count(Some(true));
    }
}
