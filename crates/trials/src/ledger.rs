//! What a volume may hold after a crash: for each slot of 4 KiB every version that was sent since the newest one
//! known to be durable.
//!
//! A version is a stamp (slot and number) and bytes drawn from them, so nothing else passes for it. A flush that
//! was answered makes durable what had been answered when the flush was sent, on whatever connection.

use anyhow::{Result, bail, ensure};
use device::Rng;

/// Bytes of a slot.
pub const SLOT: usize = 4096;
/// First bytes of a stamped slot.
const MAGIC: &[u8; 8] = b"COFSTAMP";

/// What a request did to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Stamped bytes.
    Write,
    /// Zeros.
    Zero,
    /// Zeros, or nothing: a trim promises neither.
    Trim,
}

#[derive(Clone, Debug)]
struct Version {
    number: u64,
    act: Act,
    /// When it was answered.
    answered: Option<u64>,
}

/// All slots of one volume.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Versions from the newest durable one on, oldest first.
    slots: Vec<Vec<Version>>,
    clock: u64,
}

/// The bytes of a version.
pub fn stamped(slot: u64, number: u64, into: &mut [u8]) {
    let mut rng = Rng::new(slot.rotate_left(32) ^ number);
    rng.fill(into);
    if number.is_multiple_of(3) {
        // Compressible.
        let (head, rest) = into.split_at_mut(64);
        rest.chunks_mut(64).for_each(|piece| piece.copy_from_slice(&head[..piece.len()]));
    }
    into[..8].copy_from_slice(MAGIC);
    into[8..16].copy_from_slice(&slot.to_le_bytes());
    into[16..24].copy_from_slice(&number.to_le_bytes());
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Ledger {
    /// A volume of zeros.
    pub fn new(slots: usize) -> Self {
        let zeros = Version { number: 0, act: Act::Zero, answered: Some(0) };
        Self { slots: vec![vec![zeros]; slots], clock: 0 }
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// A request is about to be sent; returns its number.
    pub fn sent(&mut self, slots: std::ops::Range<usize>, act: Act) -> u64 {
        self.clock += 1;
        for slot in &mut self.slots[slots] {
            slot.push(Version { number: self.clock, act, answered: None });
        }
        self.clock
    }

    /// The request was answered.
    pub fn answered(&mut self, slots: std::ops::Range<usize>, number: u64) {
        self.clock += 1;
        for slot in &mut self.slots[slots] {
            for version in slot.iter_mut().filter(|version| version.number == number) {
                version.answered = Some(self.clock);
            }
        }
    }

    /// The time, to be taken before a flush is sent.
    pub fn now(&self) -> u64 {
        self.clock
    }

    /// A flush that was sent at `then` was answered.
    pub fn flushed(&mut self, then: u64) {
        for slot in &mut self.slots {
            settle(slot, then);
        }
    }

    /// A request that promised durability by itself was answered.
    pub fn durable(&mut self, slots: std::ops::Range<usize>) {
        let now = self.clock;
        for slot in &mut self.slots[slots] {
            settle(slot, now);
        }
    }

    /// What was written last and answered, as a reader must see it now.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn is_newest(&self, first: usize, bytes: &[u8]) -> Result<()> {
        for (at, bytes) in (first..).zip(bytes.chunks(SLOT)) {
            let versions = &self.slots[at];
            let last = versions.iter().rposition(|version| version.act != Act::Trim).unwrap_or(0);
            find(&versions[last..], at, bytes)?;
        }
        Ok(())
    }

    /// After a crash: each slot holds one of the versions that it may hold, which is its only one from now on.
    /// Returns how many slots lost something that had not been flushed.
    ///
    /// # Errors
    /// A slot holds something else.
    pub fn settle_after_crash(&mut self, first: usize, bytes: &[u8]) -> Result<u64> {
        let mut lost = 0;
        for (at, bytes) in (first..).zip(bytes.chunks(SLOT)) {
            let versions = &mut self.slots[at];
            let found = find(versions, at, bytes)?;
            lost += u64::from(found + 1 < versions.len());
            let mut only = versions.swap_remove(found);
            only.answered = Some(self.clock);
            if only.act == Act::Trim {
                only.act = Act::Zero; // it has come to pass
            }
            *versions = vec![only];
        }
        Ok(lost)
    }
}

/// Drops what is older than the newest version that is durable, as everything answered by `then` is.
fn settle(versions: &mut Vec<Version>, then: u64) {
    let durable =
        |version: &Version| version.act != Act::Trim && version.answered.is_some_and(|when| when <= then);
    if let Some(newest) = versions.iter().rposition(durable) {
        versions.drain(..newest);
    }
}

/// Which of the versions the bytes are.
fn find(versions: &[Version], slot: usize, bytes: &[u8]) -> Result<usize> {
    let told =
        || versions.iter().map(|v| format!("{:?} {} {:?}", v.act, v.number, v.answered)).collect::<Vec<_>>();
    if bytes.iter().all(|byte| *byte == 0) {
        let Some(found) = versions.iter().rposition(|version| version.act != Act::Write) else {
            bail!("slot {slot} is all zeros; it may hold {:?}", told());
        };
        return Ok(found);
    }
    ensure!(
        bytes.len() == SLOT && bytes.starts_with(MAGIC),
        "slot {slot} holds garbage; it may hold {:?}",
        told()
    );
    let (of, number) = (number_at(bytes, 8), number_at(bytes, 16));
    ensure!(of == slot as u64, "slot {slot} holds what was written to slot {of} (number {number})");
    let mut right = vec![0; SLOT];
    stamped(of, number, &mut right);
    ensure!(bytes == right, "slot {slot} holds a damaged version {number}");
    match versions.iter().position(|version| version.number == number) {
        Some(found) => Ok(found),
        None => bail!("slot {slot} holds version {number}; it may hold {:?}", told()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(slot: u64, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; SLOT];
        stamped(slot, number, &mut bytes);
        bytes
    }

    #[test]
    fn what_was_flushed_must_be_there_and_what_was_not_may() {
        let mut ledger = Ledger::new(2);
        let one = ledger.sent(0..2, Act::Write);
        ledger.answered(0..2, one);
        let then = ledger.now();
        let two = ledger.sent(0..1, Act::Write);
        ledger.answered(0..1, two);
        ledger.flushed(then);
        ledger.is_newest(0, &bytes(0, two)).unwrap();
        assert!(ledger.is_newest(0, &bytes(0, one)).is_err());
        // Sent before the flush was answered, not before it was sent.
        assert_eq!(ledger.clone().settle_after_crash(0, &bytes(0, one)).unwrap(), 1);
        assert_eq!(ledger.clone().settle_after_crash(0, &bytes(0, two)).unwrap(), 0);
        assert!(ledger.clone().settle_after_crash(0, &vec![0; SLOT]).is_err());
        assert!(ledger.clone().settle_after_crash(1, &bytes(0, one)).is_err());
        let mut damaged = bytes(0, two);
        damaged[4000] ^= 1;
        assert!(ledger.settle_after_crash(0, &damaged).is_err());
    }

    #[test]
    fn a_trim_promises_nothing() {
        let mut ledger = Ledger::new(1);
        let one = ledger.sent(0..1, Act::Write);
        ledger.answered(0..1, one);
        let trim = ledger.sent(0..1, Act::Trim);
        ledger.answered(0..1, trim);
        ledger.flushed(ledger.now());
        ledger.is_newest(0, &vec![0; SLOT]).unwrap();
        ledger.is_newest(0, &bytes(0, one)).unwrap();
        ledger.clone().settle_after_crash(0, &bytes(0, one)).unwrap();
        ledger.settle_after_crash(0, &vec![0; SLOT]).unwrap();
        assert!(ledger.is_newest(0, &bytes(0, one)).is_err());
    }
}
