//! Real crashes: `kill -9` at random moments.
//!
//! Each round kills the server once, under load ([`server`]), and one command that changes something or takes
//! long ([`commands`]), by turns. After each kill the pool is checked, taken up again, and read.

mod commands;
pub mod load;
mod server;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use device::Rng;

use crate::lab::Lab;

/// Runs the rounds.
///
/// # Errors
/// The first promise that did not hold; the folder with the disks is left.
pub fn run(coffer: &Path, parent: &Path, rounds: u64, seed: u64) -> Result<()> {
    println!("seed {seed}: it decides what is done; what the clock decides is new each time");
    let lab = Lab::new(parent, coffer)?;
    let mut rng = Rng::new(seed);
    let outcome = all(&lab, rounds, &mut rng);
    match outcome {
        Ok(()) => lab.clean(),
        Err(error) => Err(error.context(format!("the disks are left in {}", lab.dir().display()))),
    }
}

fn all(lab: &Lab, rounds: u64, rng: &mut Rng) -> Result<()> {
    let mut server = server::Server::new(lab)?;
    if !server.has_fio() {
        println!("fio is not there or does not speak NBD: the load is our own writers alone");
    }
    let mut commands = commands::Commands::new(lab)?;
    let (mut requests, mut flushes, mut lost) = (0, 0, 0);
    let mut ways: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 1..=rounds {
        let seen = server.round(lab, rng).with_context(|| format!("round {round}, server"))?;
        let command = commands.round(lab, rng).with_context(|| format!("round {round}, command"))?;
        println!(
            "{round}: {} requests, {} flushes, {} unflushed slots lost; meanwhile {}; then {}; {command}",
            seen.done.requests, seen.done.flushes, seen.lost, seen.meanwhile, seen.way
        );
        requests += seen.done.requests;
        flushes += seen.done.flushes;
        lost += seen.lost;
        *ways.entry(seen.way).or_default() += 1;
    }
    println!(
        "OK: {rounds} servers killed under load ({requests} requests, {flushes} flushes, {lost} slots whose unflushed contents were lost), taken up {ways:?}"
    );
    println!("{}", commands.summary());
    Ok(())
}
