//! The developer's front door: `cargo xtask COMMAND`.

mod bench;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What developers do with this repository.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the engine against its peers (see docs/performance.md).
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bench { arguments } => bench::run(&arguments),
    }
}
