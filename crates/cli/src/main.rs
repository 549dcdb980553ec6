//! `coffer`: the command line of Cofferdam.
//!
//! ```text
//! args ---> commands ---> session ---> execute ---> pool           if no other process holds the pool
//!              |             \--> control::client ~~> control::server ---> execute ---> pool    if one does
//!              \--> render, json
//! ```
//!
//! - `args`: what can be typed; `names`, `sizes`, `vdevs`, `filters`: what the words mean
//! - `open`: devices by name; `state`: pools that are remembered; `host`: time, identity, randomness
//! - `eventlog`: what happened, kept for later commands
//! - `execute`: how what a pool is asked (`protocol::request`) is done; `session`: who does it
//! - `holder`: holding a pool for longer, with its background work; `control`: how others reach the holder
//! - `serve`, `targets`: volumes for other programs; `progress`, `signals`: for commands that take their time
//! - `raid`: RAID sets, which are not pools: `raidctl`
//! - `rescue`: data off arrays that no longer start, which has nothing to do with pools
//! - `commands`: one function each; `render`, `json`: the answers; `manual`: completions and pages; `demo`

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "reports are short; reading well matters more"
)]

mod args;
mod commands;
mod control;
mod demo;
mod error;
mod eventlog;
mod execute;
mod filters;
mod holder;
mod host;
mod json;
mod manual;
mod names;
mod open;
mod progress;
mod raid;
mod render;
mod rescue;
mod serve;
mod session;
mod signals;
mod sizes;
mod state;
mod targets;
mod texts;
mod vdevs;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::commands::Context;
use crate::error::Failure;
use crate::state::State;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    if raid::is_raidctl(words.first()) {
        return ExitCode::from(raid::main("raidctl", &words[1..], false, &State::from_env()));
    }
    let matches = Cli::command().get_matches_from(filters::spelled_out(&words));
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context {
        json: cli.json,
        quiet: cli.quiet,
        command: command_name(&matches),
        command_line: command_line(&words),
        state: State::from_env(),
    };
    if let args::Command::Raid(raid) = &cli.command {
        return ExitCode::from(raid::main("coffer raid", &raid.words, cli.json, &context.state));
    }
    match commands::run(&context, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::BrokenPipe | Failure::Told) {
                eprintln!("coffer {}: {failure}", context.command);
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// The command's name with that of the command below it: `status`, `volume create`.
fn command_name(matches: &clap::ArgMatches) -> String {
    let mut names = Vec::new();
    let mut below = matches.subcommand();
    while let Some((name, matches)) = below {
        names.push(name.to_owned());
        below = matches.subcommand();
    }
    names.join(" ")
}

/// The command line as one that could be typed.
fn command_line(words: &[OsString]) -> String {
    let quoted = words.iter().skip(1).map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./=:@,%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    std::iter::once("coffer".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_quoted_where_need_be() {
        let words = ["/usr/bin/coffer", "set", "a=b c", "it's", "tank", ""].map(OsString::from);
        assert_eq!(command_line(&words), "coffer set 'a=b c' 'it'\\''s' tank ''");
    }
}
