//! Making a failing program short: steps are left out as long as what is left still fails.

use crate::program::Program;
use crate::run::{Failure, run};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 600;

/// A shorter program that fails, and how.
pub fn shrink(
    program: &Program,
    failure: (usize, Failure),
    sabotage: Option<&str>,
) -> (Program, (usize, Failure)) {
    let kind = kind(&failure.1);
    let mut best = program.clone();
    let mut how = failure;
    best.steps.truncate(how.0 + 1);
    let mut runs = 0;
    let mut size = best.steps.len() / 2;
    while size > 0 && runs < RUNS_MAX {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && runs < RUNS_MAX {
            let mut tried = best.clone();
            tried.steps.drain(at..(at + size).min(best.steps.len()));
            runs += 1;
            match run(&tried, sabotage, false).failure {
                Some((step, failure)) if self::kind(&failure) == kind => {
                    tried.steps.truncate(step + 1);
                    (best, how, shorter) = (tried, (step, failure), true);
                }
                _ => at += size,
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    (best, how)
}

/// What kind of failure a sentence tells of: its words without names and numbers.
fn kind(failure: &str) -> String {
    failure
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .take(12)
        .collect::<Vec<_>>()
        .join(" ")
}
