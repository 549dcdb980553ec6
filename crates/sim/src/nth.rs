//! Every n-th fault: each command again and again, with its first, second, third ... device request failing, until it
//! does not get that far. It succeeds or fails cleanly, and the pool is none the worse.

use device::sim::Effect;
use device::{DeviceErrorKind, Operation};

use crate::run::Failure;
use crate::states::{LETTERS, Letter, base, setups};
use crate::verify::observe;
use crate::world::options;

/// Runs every command on every pool with redundancy, with every request of every disk failing in turn (each `step`-th
/// of them); gives the number of faults tried.
///
/// # Errors
/// A fault that was not survived.
pub fn every_fault(step: u64) -> Result<u64, Failure> {
    let mut tried = 0;
    for setup in setups().into_iter().filter(|setup| setup.groups[0].1.len() > 1) {
        let base = base(&setup)?;
        for letter in LETTERS {
            for disk in 0..setup.groups[0].1.len() {
                for operation in [Operation::Read, Operation::Write, Operation::Flush] {
                    let mut nth = 1;
                    loop {
                        let what = |why: Failure| {
                            format!(
                                "{letter:?} on {:?}, {operation} {nth} of disk {disk} failing: {why}",
                                setup.groups
                            )
                        };
                        let reached = one(&base, letter, disk, operation, nth).map_err(what)?;
                        if !reached {
                            break;
                        }
                        tried += 1;
                        nth += step;
                    }
                }
            }
        }
    }
    Ok(tried)
}

/// Whether the command got as far as to the fault.
fn one(
    base: &crate::states::Base,
    letter: Letter,
    disk: usize,
    operation: Operation,
    nth: u64,
) -> Result<bool, Failure> {
    let mut run = base.start()?;
    let device = run.world.disks[disk].device.clone();
    let before = device.counts();
    let medium = DeviceErrorKind::Io("simulated medium error".to_owned());
    device.plan(nth, Some(operation), Effect::Fail(medium));
    run.possible = run.model.clone();
    // `lead_to` accepts a clean error only where the command may be refused; one fault is borne by the redundancy.
    let outcome = run.letter(letter).and_then(|()| run.flush());
    // Without the disk that was taken out nothing stands in for the one that fails: then the pool waits for `clear`.
    if letter != Letter::Offline {
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
