//! Every n-th fault: each command again and again, with its first, second, third ... device request failing, until it
//! does not get that far. It succeeds or fails cleanly, and the pool is none the worse.

use device::sim::Effect;
use device::{DeviceErrorKind, Operation};

use crate::program::Setup;
use crate::run::Failure;
use crate::states::{Base, COMMANDS, LETTERS, Letter, base, setups};
use crate::verify::observe;
use crate::world::options;

/// Every command on every pool with redundancy, with requests of one kind to one disk failing in turn.
pub struct Faults {
    bases: Vec<Base>,
    setups: Vec<Setup>,
    cases: Vec<(usize, Letter, usize, Operation)>,
}

/// Runs everything with each `step`-th request failing; gives the number of faults tried.
///
/// # Errors
/// A fault that was not survived.
pub fn every_fault(step: u64) -> Result<u64, Failure> {
    let faults = Faults::new()?;
    (0..faults.cases()).map(|number| Ok(faults.try_case(number, step)?.1)).sum()
}

impl Faults {
    /// Makes the pools.
    ///
    /// # Errors
    /// One can't be made.
    pub fn new() -> Result<Self, Failure> {
        let setups: Vec<Setup> = setups().into_iter().filter(|setup| setup.groups[0].1.len() > 1).collect();
        let bases = setups.iter().map(base).collect::<Result<Vec<_>, _>>()?;
        let mut cases = Vec::new();
        for (which, setup) in setups.iter().enumerate() {
            for &letter in LETTERS.iter().chain(&COMMANDS) {
                for disk in 0..setup.groups[0].1.len() {
                    let operations = [Operation::Read, Operation::Write, Operation::Flush];
                    cases.extend(operations.map(|operation| (which, letter, disk, operation)));
                }
            }
        }
        Ok(Self { bases, setups, cases })
    }

    /// How many there are: command, pool, disk and kind of request.
    pub fn cases(&self) -> usize {
        self.cases.len()
    }

    /// Tries one with each `step`-th request failing until it does not get that far; gives the command and how many.
    ///
    /// # Errors
    /// A fault that was not survived.
    pub fn try_case(&self, number: usize, step: u64) -> Result<(Letter, u64), Failure> {
        let (which, letter, disk, operation) = self.cases[number];
        let mut tried = 0;
        // Different cases begin at different requests, lest the same ones are always left out.
        let mut nth = 1 + number as u64 % step;
        loop {
            let what = |why: Failure| {
                let groups = &self.setups[which].groups;
                format!("{letter:?} on {groups:?}, {operation} {nth} of disk {disk} failing: {why}")
            };
            if !one(&self.bases[which], letter, disk, operation, nth).map_err(what)? {
                return Ok((letter, tried));
            }
            tried += 1;
            nth += step;
        }
    }
}

/// Whether the command got as far as to the fault.
fn one(base: &Base, letter: Letter, disk: usize, operation: Operation, nth: u64) -> Result<bool, Failure> {
    let mut run = base.start()?;
    let device = run.world.disks[disk].device.clone();
    let before = device.counts();
    let medium = DeviceErrorKind::Io("simulated medium error".to_owned());
    device.plan(nth, Some(operation), Effect::Fail(medium));
    run.world.told.insert(disk);
    run.possible = run.model.clone();
    // `lead_to` accepts a clean error only where the command may be refused; one fault is borne by the redundancy.
    let outcome = run.letter(letter).and_then(|()| run.flush());
    // Without the disk that was taken out nothing stands in for the one that fails: then the pool waits for `clear`.
    if !matches!(letter, Letter::Offline | Letter::Online | Letter::Detach) {
        outcome?;
    }
    let after = device.counts();
    let requests = match operation {
        Operation::Read => after.reads - before.reads,
        Operation::Write => after.writes - before.writes,
        _ => after.flushes - before.flushes,
    };
    device.clear_plans();
    run.pool().clear(None).map_err(|error| format!("clear: {error}"))?;
    let model = run.model.clone();
    run.pool = None;
    let mut pool = run.world.import(&options()).map_err(|error| format!("import: {error}"))?;
    let seen = observe(&mut pool)?;
    if let Some(difference) = model.now().difference(&seen) {
        return Err(difference);
    }
    let report = pool.check().map_err(|error| format!("check: {error}"))?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("check says: {problem}"));
    }
    Ok(requests >= nth)
}
