//! Defects that the engine can be made to show, to prove that the simulator would see them.

use crate::program::Program;
use crate::run::run;

/// Every defect and what it is.
pub const ALL: [(&str, &str); 25] = [
    ("skip-flush", "data and trees are not flushed before the uberblock"),
    ("uberblock-first", "the uberblock is written before what it names"),
    ("skip-last-flush", "a commit is acknowledged before its uberblock is durable"),
    ("reuse-early", "freed nodes are used again at once"),
    ("free-early", "freed data is used again while older roots need it"),
    ("forget-stale", "a device that missed a write counts as up to date"),
    ("ignore-checksum", "whatever is read is believed"),
    ("lose-deadlist-entry", "destroying a snapshot does not free what only it held"),
    ("forget-snapshot", "blocks that a snapshot needs are freed with the volume's"),
    ("forget-work", "a commit does not hear of what failed in its writing"),
    ("resilver-no-flush", "a resilvered region counts as fresh before it is durable"),
    ("job-too-far", "a resilver resumes one region too far"),
    ("trust-returned", "a device with another history is believed"),
    ("swap-columns", "two columns of a row with parity are swapped"),
    ("drop-last-parity", "the last row of each write has no parity"),
    ("drop-copy", "the last copy is not written"),
    ("blame-neighbour", "another device is charged with wrong data"),
    ("no-repair", "wrong copies are found and not rewritten"),
    ("remap-off-by-one", "what was relocated is looked for a sector behind its place"),
    ("forget-remap", "entries of the remap table are not written"),
    ("table-early", "entries of the remap table go with the chunk from which things were relocated"),
    ("column-unfilled", "a column that moves counts as filled when its new home is made"),
    ("forget-checkpoint", "what only a checkpoint knows is freed and used again"),
    ("spare-unfilled", "a place on a distributed spare counts as filled when it is made"),
    ("empty-early", "a chunk is dropped before what was relocated from it is durable elsewhere"),
];

/// The first seed from `from` on, within `seeds`, that catches a defect.
pub fn caught_by(name: &str, from: u64, seeds: u64, steps: usize) -> Option<(u64, String)> {
    (from..from + seeds).find_map(|seed| {
        let outcome = run(&Program::new(seed, steps), Some(name), false);
        outcome.failure.map(|(step, failure)| (seed, format!("step {step}: {failure}")))
    })
}
