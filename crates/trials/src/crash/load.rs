//! Writers that note in the ledger what they sent and what was answered, until the server is gone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use device::Rng;

use crate::ledger::{Act, Ledger, SLOT, stamped};
use crate::nbd::{Failed, Nbd};

/// Writers, each with a connection and a part of the volume of its own.
const WRITERS: usize = 4;

/// What the writers of one round did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    /// Requests that were answered.
    pub requests: u64,
    /// Flushes among them.
    pub flushes: u64,
}

/// Connects the writers.
///
/// # Errors
/// There is no server, or no such export.
pub fn connect(socket: &str, export: &str) -> Result<Vec<Nbd>> {
    (0..WRITERS).map(|_| Nbd::open(socket, export)).collect()
}

/// Writes until the connections break.
///
/// # Errors
/// Something read back wrong, or the server refused a request while it lived.
pub fn run(connections: Vec<Nbd>, ledger: &Mutex<Ledger>, seed: u64) -> Result<Done> {
    let mut rng = Rng::new(seed);
    let share = locked(ledger).len() / connections.len();
    let writers: Vec<Writer> = (connections.into_iter().enumerate())
        .map(|(index, nbd)| {
            let slots = index * share..(index + 1) * share;
            Writer { nbd, ledger, slots, rng: rng.derive(), done: Done::default() }
        })
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers.into_iter().map(|writer| scope.spawn(|| writer.run())).collect();
        threads.into_iter().try_fold(Done::default(), |sum, thread| {
            let done = thread.join().map_err(|_| anyhow!("a writer panicked"))??;
            Ok(Done { requests: sum.requests + done.requests, flushes: sum.flushes + done.flushes })
        })
    })
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer<'a> {
    nbd: Nbd,
    ledger: &'a Mutex<Ledger>,
    slots: std::ops::Range<usize>,
    rng: Rng,
    done: Done,
}

impl Writer<'_> {
    fn run(mut self) -> Result<Done> {
        loop {
            match self.step()? {
                Ok(()) => self.done.requests += 1,
                Err(Failed::Broken) => return Ok(self.done),
                Err(Failed::Refused(error)) => {
                    return Err(anyhow!("the server refused a request: error {error}"));
                }
            }
        }
    }

    /// A run of this writer's slots.
    fn some_slots(&mut self) -> std::ops::Range<usize> {
        let longest = *self.rng.choose(&[1, 4, 16, 32, 256]).unwrap_or(&1);
        let length = 1 + self.rng.below(longest) as usize;
        let first = self.slots.start + self.rng.below((self.slots.len() - length) as u64) as usize;
        first..first + length
    }

    fn step(&mut self) -> Result<Result<(), Failed>> {
        let slots = self.some_slots();
        let (offset, length) = ((slots.start * SLOT) as u64, (slots.len() * SLOT) as u32);
        let answer = match self.rng.below(100) {
            0..8 => {
                let then = locked(self.ledger).now();
                let answer = self.nbd.flush();
                if answer.is_ok() {
                    locked(self.ledger).flushed(then);
                    self.done.flushes += 1;
                }
                answer
            }
            8..22 => {
                let mut bytes = vec![0; length as usize];
                let answer = self.nbd.read(offset, &mut bytes);
                if answer.is_ok() {
                    locked(self.ledger).is_newest(slots.start, &bytes).context("read while it was served")?;
                }
                answer
            }
            22..28 => self.change(&slots, Act::Trim, |nbd, _| nbd.trim(offset, length)),
            28..36 => self.change(&slots, Act::Zero, |nbd, _| nbd.zero(offset, length)),
            kind => {
                let durable = kind < 44;
                let mut bytes = vec![0; length as usize];
                let at = slots.clone();
                let answer = self.change(&slots, Act::Write, |nbd, number| {
                    at.zip(bytes.chunks_mut(SLOT))
                        .for_each(|(slot, into)| stamped(slot as u64, number, into));
                    nbd.write(offset, &bytes, durable)
                });
                if durable && answer.is_ok() {
                    locked(self.ledger).durable(slots);
                }
                answer
            }
        };
        Ok(answer)
    }

    fn change(
        &mut self,
        slots: &std::ops::Range<usize>,
        act: Act,
        request: impl FnOnce(&mut Nbd, u64) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let number = locked(self.ledger).sent(slots.clone(), act);
        request(&mut self.nbd, number)?;
        locked(self.ledger).answered(slots.clone(), number);
        Ok(())
    }
}
