//! The built program in real life: `trials crash` kills it, `trials real` puts real file systems on it, `trials rescue` gives it
//! members that lie.
//!
//! - `lab`: folder, disk files, processes; `nbd`, `ledger`: a client, and what must be there after a crash
//! - `crash`: kills; `real`: file systems, images, lost disks; `rescue`: members that lie, overlays that are killed

mod crash;
mod lab;
mod ledger;
mod nbd;
mod real;
mod rescue;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};

/// Try the built program in real life.
#[derive(Parser)]
#[command(name = "trials", arg_required_else_help = true)]
struct Cli {
    /// The program under test
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/coffer"))]
    coffer: PathBuf,
    /// Folder for a folder of disk files
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Subcommand)]
enum Trial {
    /// Kill the server under load and commands at work, and look at what is left
    Crash {
        /// Servers to kill; as many commands are killed
        #[arg(long, default_value_t = 100)]
        rounds: u64,
        /// What is done is drawn from this number; without it, from the clock
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Put ext4 and xfs on exports of a raidz2, lose disks under load, and compare; images in and out by qemu-img
    Real(real::Options),
    /// Rescue arrays whose members are silently wrong, and kill what writes to overlays
    Rescue(rescue::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.trial {
        Trial::Crash { rounds, seed } => {
            let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
            crash::run(&cli.coffer, &cli.dir, rounds, seed.unwrap_or_else(clock))
        }
        Trial::Rescue(options) => rescue::run(&cli.coffer, &cli.dir, &options),
        Trial::Real(options) => real::run(&cli.coffer, &cli.dir, &options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
