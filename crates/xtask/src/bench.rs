//! `cargo xtask bench`: measures the engine against its peers.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds the benchmark as it is to be measured and runs it with the arguments given; `--help` tells what they are.
pub fn run(arguments: &[String]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(arguments)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the benchmark failed");
    Ok(())
}
