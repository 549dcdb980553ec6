//! What each command does: arguments in, a request to a pool, its answer printed.

mod balance;
mod create;
mod datasets;
mod devices;
mod import;
mod jobs;
mod plan;
mod show;
mod volume;

use std::io::{self, Write};

use pool::report::Plan;
use protocol::request::{Reply, Request};
use serde::Serialize;

use crate::args::{Command, VolumeCommand};
use crate::error::{Failure, Outcome};
use crate::session::{self, Mode};
use crate::state::State;
use crate::{demo, json, manual, render, rescue, serve};

/// How many processes that hold the pool one after the other may end while they are asked the same.
const HOLDERS_MAX: u32 = 20;

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// Print JSON.
    pub(crate) json: bool,
    /// Tell errors only, besides what was asked for.
    pub(crate) quiet: bool,
    /// The command's name, for JSON and errors.
    pub(crate) command: String,
    /// The whole command line, for the history.
    pub(crate) command_line: String,
    /// Where pools are remembered.
    pub(crate) state: State,
}

impl Context {
    /// Prints an answer as text or JSON.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub(crate) fn print<T: Serialize>(&self, data: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        let text = if self.json {
            json::document(&self.command, data).map_err(|error| Failure::refused(error.to_string()))?
        } else {
            text(data)
        };
        print_bytes(text.as_bytes())
    }

    /// Prints a line.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub(crate) fn say(&self, line: &str) -> Outcome {
        self.print(&line, |line| format!("{line}\n"))
    }

    /// Tells what the user should know about what was done.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub(crate) fn done(&self, plan: &Plan) -> Outcome {
        if self.json {
            return self.print(plan, |_| String::new());
        }
        plan.notices.iter().for_each(|notice| self.note(notice));
        Ok(())
    }

    /// Tells something that is no error.
    pub(crate) fn note(&self, what: &str) {
        if !self.quiet {
            eprintln!("coffer {}: note: {what}", self.command);
        }
    }

    /// Prints what came of a command that was not asked for that.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub(crate) fn report<T: Serialize>(&self, data: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.quiet && !self.json { Ok(()) } else { self.print(data, text) }
    }

    /// Tells what would be done.
    ///
    /// # Errors
    /// As [`print_bytes`].
    pub(crate) fn planned(&self, plan: &Plan) -> Outcome {
        self.print(plan, render::plan)
    }

    /// Asks a pool one thing and closes it.
    ///
    /// # Errors
    /// The pool can't be opened, or says no.
    pub(crate) fn ask(&self, pool: &str, mode: Mode, request: &Request) -> Outcome<Reply> {
        let mut tries = 0..HOLDERS_MAX;
        loop {
            let mut session = session::open(&self.state, pool, mode, &self.command_line)?;
            match session.call(request, &self.command_line) {
                Err(Failure::HolderEnded(_)) if mode == Mode::Look && tries.next().is_some() => {}
                reply => {
                    let reply = reply?;
                    session.close()?;
                    return Ok(reply);
                }
            }
        }
    }
}

/// Writes bytes to standard output.
///
/// # Errors
/// It was closed, which is no failure, or can't be written.
pub(crate) fn print_bytes(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::BrokenPipe),
        Err(error) => Err(Failure::io("write to standard output")(error)),
    }
}

/// An answer that does not fit the question, which a holder of the same version does not give.
pub(crate) fn mismatch<T>(_: Reply) -> Outcome<T> {
    Err(Failure::refused("the process that holds the pool gave an answer to another question"))
}

/// Runs a command.
///
/// # Errors
/// See each command.
pub(crate) fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Create(args) => create::create(context, args),
        Command::List(args) => show::list(context, &args),
        Command::Status(args) => show::status(context, &args),
        Command::Usage(args) => show::usage(context, &args),
        Command::Map(args) => show::map(context, &args),
        Command::Whatif(args) => show::whatif(context, args),
        Command::Plan(args) => plan::plan(context, args),
        Command::History(args) => show::history(context, &args),
        Command::Events(args) => show::events(context, &args),
        Command::Get(args) => show::get(context, &args),
        Command::Check(args) => show::check(context, &args),
        Command::Import(args) => import::import(context, &args),
        Command::Export(args) => import::export(context, &args),
        Command::Destroy(args) => datasets::destroy(context, &args),
        Command::Labelclear(args) => import::labelclear(context, &args),
        Command::Add(args) => devices::add(context, args),
        Command::Attach(args) => devices::attach(context, args),
        Command::Detach(args) => devices::detach(context, args),
        Command::Remove(args) => balance::remove(context, args),
        Command::Convert(args) => balance::convert(context, args),
        Command::Resize(args) => balance::resize(context, args),
        Command::Replace(args) => devices::replace(context, args),
        Command::Offline(args) => devices::offline(context, args),
        Command::Online(args) => devices::online(context, args),
        Command::Clear(args) => devices::clear(context, args),
        Command::Checkpoint(args) => jobs::checkpoint(context, &args),
        Command::Scrub(args) => jobs::scrub(context, &args),
        Command::Balance(args) => balance::run(context, args.command),
        Command::Wait(args) => jobs::wait(context, &args),
        Command::Set(args) => datasets::set(context, args),
        Command::Volume(args) => match args.command {
            VolumeCommand::Create(args) => datasets::create(context, args),
            VolumeCommand::Resize(args) => datasets::resize(context, &args),
            VolumeCommand::Write(args) => volume::write(context, &args),
            VolumeCommand::Read(args) => volume::read(context, &args),
        },
        Command::Snapshot(args) => datasets::snapshot(context, &args),
        Command::Rollback(args) => datasets::rollback(context, &args),
        Command::Nbd(args) => serve::nbd(context, args),
        Command::Fuse(args) => serve::fuse(context, &args),
        Command::Serve(args) => serve::serve(context, args),
        Command::Rescue(args) => rescue::run(context, args.command),
        Command::Demo(args) => demo::run(context, &args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
        // It has its own texts and exit codes, and is run before anything else.
        Command::Raid(_) => Ok(()),
    }
}
