//! RAID sets: `raidctl`, which is also `coffer raid`, and what serves sets to other programs.
//!
//! ```text
//! words ---> actions ---> unit ---> raidset          if no other process holds the unit
//!        \--> control ~~> holder ---> actions ...    if one does
//! ```
//!
//! - `record`: units that are remembered; `parts`: their components by name
//! - `unit`: a unit in use, with its jobs; `holder`: holding it for longer, so that others can use it
//! - `configure`: `-c`, `-C`, `-t`, `-u`; `find`: `-L`; `plan`: whether a command can be done; `actions`: everything else that `raidctl` does
//! - `follow`: waiting for jobs, with the meter; `serve`: NBD and FUSE; `transfer`: reading and writing
//! - `told`: what a command says, and its exit code

mod actions;
mod configure;
mod find;
mod follow;
mod holder;
mod parts;
mod plan;
mod record;
mod serve;
mod told;
mod transfer;
mod unit;

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory as _, Parser, Subcommand};
use protocol::raid::RaidRequest;
use protocol::told::{Told, Wait};
use raidset::raidctl::{Action, Invocation};

use crate::commands::print_bytes;
use crate::error::{Failure, Outcome};
use crate::sizes;
use crate::state::State;
use record::Units;
use unit::Reach;

/// How the program was called, and where units are remembered.
#[derive(Debug)]
pub(crate) struct Context {
    /// What messages begin with.
    program: &'static str,
    /// Remembered units.
    units: Units,
}

/// What `coffer raid` does that `raidctl` has no option for.
#[derive(Debug, Parser)]
#[command(name = "coffer raid", bin_name = "coffer raid", disable_help_subcommand = true)]
struct Ours {
    #[command(subcommand)]
    command: OurCommand,
}

/// Commands that are words.
#[derive(Debug, Subcommand)]
enum OurCommand {
    /// Serve a unit as a network block device until interrupted
    Nbd(serve::Nbd),
    /// Show a unit as a file in a folder until interrupted
    Fuse(serve::Fuse),
    /// Hold a unit until interrupted, so that its jobs advance and other commands reach it
    Hold {
        /// The unit
        unit: String,
    },
    /// Read from a unit
    Read(transfer::Read),
    /// Write to a unit
    Write(transfer::Write),
    /// Compare data and redundancy of a whole unit
    Scrub {
        /// Correct what does not match; the data is taken to be right
        #[arg(long)]
        repair: bool,
        /// The unit
        unit: String,
    },
    /// List the units that are remembered
    List,
}

/// A size for clap.
fn size(text: &str) -> Result<u64, String> {
    sizes::parse(text).map_err(|error| error.to_string())
}

/// Whether the program was called as `raidctl`.
pub(crate) fn is_raidctl(word: Option<&OsString>) -> bool {
    word.is_some_and(|word| Path::new(word).file_name().is_some_and(|name| name == "raidctl"))
}

/// Runs `raidctl` or `coffer raid` with the words behind its name; returns the exit code.
pub(crate) fn main(program: &'static str, words: &[OsString], json: bool, state: &State) -> u8 {
    let mut words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if json {
        words.insert(0, "--json".to_owned());
    }
    let context = Context { program, units: Units::new(state) };
    // Behind an option a word is its argument: a file may be called as a command is.
    let outcome = if words.iter().find(|word| *word != "--json").is_some_and(|word| is_ours(word)) {
        ours(&context, &words)
    } else if words.iter().any(|word| word == "--help" || word == "-h") {
        help(&context)
    } else {
        raidctl(&context, &words)
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::BrokenPipe) => 0,
        Err(failure) => {
            eprintln!("{program}: {failure}");
            failure.exit_code()
        }
    }
}

/// The options, and the commands that are words.
fn help(context: &Context) -> Outcome<u8> {
    let text = format!("{}\n{}", told::usage(context.program), Ours::command().render_help());
    print_bytes(text.as_bytes()).map(|()| 0)
}

fn is_ours(word: &str) -> bool {
    ["nbd", "fuse", "hold", "read", "write", "scrub", "list"].contains(&word)
}

/// The options of the manual.
fn raidctl(context: &Context, words: &[String]) -> Outcome<u8> {
    let invocation = match Invocation::parse(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(invocation) => invocation,
        Err(error) => {
            eprintln!("{}: {error}", context.program);
            eprint!("{}", told::usage(context.program));
            return Ok(1);
        }
    };
    if let Err(told) = configure::options_have_a_place(&invocation) {
        return told::print(&told, context);
    }
    let told = match &invocation.action {
        Action::CheckFile(file) => configure::check_file(file, invocation.json),
        Action::Configure { file, force } => configure::configure(context, &invocation, file, *force)?,
        Action::Rescan => find::rescan(context, &invocation)?,
        Action::Unconfigure => configure::unconfigure(context, &invocation)?,
        _ => {
            let Some(number) = record::unit_number(&invocation.device) else {
                return told::print(&told::no_device(&invocation.device), context);
            };
            let Some(mut reach) = Reach::open(context, number)? else {
                let told = told::answered(told::not_configured(&invocation), &invocation);
                return told::print(&told, context);
            };
            let told = carry_out(context, &mut reach, &invocation, words);
            let closed = reach.close();
            return told.and_then(|code| closed.map(|()| code));
        }
    };
    told::print(&told::answered(told, &invocation), context)
}

/// Carries out an option on a unit that is configured, and waits for what it has started. The exit code.
fn carry_out(context: &Context, reach: &mut Reach, invocation: &Invocation, words: &[String]) -> Outcome<u8> {
    let mut told = told::answered(reach.run(invocation, words)?, invocation);
    // What this process sees to its end has an outcome only then.
    let to_the_end = told.wait.is_some_and(|wait| reach.is_local() || wait == Wait::RewriteToTheEnd);
    let late = told.data.take_if(|_| to_the_end);
    if late.is_some() {
        told.out.clear();
    }
    let code = told::print(&told, context)?;
    let end = follow::follow(context, reach, &told, invocation)?;
    if let Some(data) = late
        && end.code.is_none()
    {
        let data = told::ended(data, end.trouble.as_deref());
        told::print(&Told { data: Some(data), ..Told::nothing() }, context)?;
    }
    Ok(end.code.unwrap_or(code))
}

/// The commands that are words.
fn ours(context: &Context, words: &[String]) -> Outcome<u8> {
    let json = words.iter().any(|word| word == "--json");
    let all = std::iter::once("coffer raid".to_owned())
        .chain(words.iter().filter(|word| *word != "--json").cloned());
    let parsed = Ours::try_parse_from(all).unwrap_or_else(|error| error.exit());
    let number = |unit: &str| record::unit_number(unit).ok_or_else(|| Failure::usage(record::no_unit(unit)));
    match parsed.command {
        OurCommand::Nbd(args) => serve::nbd(context, number(&args.unit)?, args),
        OurCommand::Fuse(args) => serve::fuse(context, number(&args.unit)?, &args),
        OurCommand::Hold { unit } => serve::hold(context, number(&unit)?),
        OurCommand::Read(args) => transfer::read(context, number(&args.unit)?, &args),
        OurCommand::Write(args) => transfer::write(context, number(&args.unit)?, &args),
        OurCommand::Scrub { repair, unit } => {
            let mut reach = context.reach(number(&unit)?)?;
            let told = reach.ask(&RaidRequest::Scrub { repair })?;
            told::print(&told, context)?;
            let end = follow::scrub(&mut reach, json);
            let closed = reach.close();
            end.and_then(|code| closed.map(|()| code))
        }
        OurCommand::List => {
            let told = context.units.list(json)?;
            told::print_as(&told, context, "raid list")
        }
    }
    .inspect(|_| ())
}

impl Context {
    /// A way to a unit that must be configured.
    fn reach(&self, number: u32) -> Outcome<Reach> {
        Reach::open(self, number)?.ok_or_else(|| {
            Failure::refused(format!(
                "raid{number} is not configured: 'raidctl -c FILE raid{number}' does that"
            ))
        })
    }
}
