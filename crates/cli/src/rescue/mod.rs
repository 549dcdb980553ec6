//! `coffer rescue`: data off arrays that no longer start.
//!
//! ```text
//! args --> plans: images --scan--> plan --> file
//!      --> opened: plan file --> arrays, overlays over them if asked for --> volumes
//!              --> serve (through `targets`), copy, files, diff; misfits: what parity says is wrong
//!      --> image: one failing disk;  demo: all of it on files
//! ```
//!
//! Members are opened read-only everywhere; what is written goes to files that the user names.

pub(crate) mod args;
mod checkers;
mod copy;
mod demo;
mod image;
mod mapfile;
mod misfits;
mod opened;
mod plans;
mod serve;
mod targets;

use crate::commands::Context;
use crate::error::Outcome;
use args::RescueCommand;

/// Runs `coffer rescue`.
///
/// # Errors
/// See each command.
pub(crate) fn run(context: &Context, command: RescueCommand) -> Outcome {
    match command {
        RescueCommand::Scan(args) => plans::scan(context, &args),
        RescueCommand::Plan(args) => plans::plan(context, &args),
        RescueCommand::Volumes(args) => opened::volumes(context, &args),
        RescueCommand::Serve(args) => serve::serve(context, &args),
        RescueCommand::Diff(args) => opened::diff(context, &args),
        RescueCommand::Copy(args) => copy::copy(context, &args),
        RescueCommand::Files(args) => copy::files(context, &args),
        RescueCommand::Image(args) => image::image(context, &args),
        RescueCommand::Demo(args) => demo::demo(context, &args),
    }
}
