//! What a simulated disk tells about its work.

use super::SimDevice;
use crate::{DeviceError, Operation};

/// Requests and bytes since the disk was made, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Bytes asked for.
    pub bytes_read: u64,
    /// Bytes given.
    pub bytes_written: u64,
    /// Bytes discarded.
    pub bytes_discarded: u64,
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards
    }

    pub(super) fn add(&mut self, operation: Operation, length: u64) {
        match operation {
            Operation::Open => {}
            Operation::Read => {
                self.reads += 1;
                self.bytes_read = self.bytes_read.saturating_add(length);
            }
            Operation::Write => {
                self.writes += 1;
                self.bytes_written = self.bytes_written.saturating_add(length);
            }
            Operation::Flush => self.flushes += 1,
            Operation::Discard => {
                self.discards += 1;
                self.bytes_discarded = self.bytes_discarded.saturating_add(length);
            }
        }
    }
}

/// One request that a simulated disk has answered.
#[derive(Debug)]
pub struct Event<'a> {
    /// Which disk.
    pub device: &'a SimDevice,
    /// The how-manieth request of this disk, from 1.
    pub sequence: u64,
    /// What was asked.
    pub operation: Operation,
    /// Where, bytes.
    pub offset: u64,
    /// How much, bytes.
    pub length: u64,
    /// What the caller is told; after a silent fault that is `Ok`.
    pub outcome: &'a Result<(), DeviceError>,
}
