//! How what a `raidctl` command says is printed, and its usage.

use protocol::told::{Errno, Told};
use raidset::raidctl::Action;

use super::Context;
use crate::commands::print_bytes;
use crate::error::Outcome;
use crate::json;

/// The unit is not configured.
pub(crate) fn not_configured(action: &Action) -> Told {
    if *action == Action::Nothing {
        return Told::nothing();
    }
    let why = "the unit is not configured: -c or -C does that";
    Told::failed(request_name(action), Errno::NotConfigured, why)
}

/// Prints what a command says; returns the exit code.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn print(told: &Told, context: &Context) -> Outcome<u8> {
    print_as(told, context, "raid")
}

/// As [`print`], with the name of the command that JSON tells.
///
/// # Errors
/// As there.
pub(crate) fn print_as(told: &Told, context: &Context, command: &str) -> Outcome<u8> {
    for line in &told.errors {
        eprintln!("{}: {line}", context.program);
    }
    match &told.data {
        Some(data) => {
            let text = json::document(command, data)
                .map_err(|error| crate::error::Failure::refused(error.to_string()))?;
            print_bytes(text.as_bytes())?;
        }
        None => print_bytes(told.out.as_bytes())?,
    }
    Ok(told.code)
}

/// What RAIDframe calls the request that an option makes.
pub(crate) const fn request_name(action: &Action) -> &'static str {
    match action {
        Action::AddSpare(_) => "ADD_HOT_SPARE",
        Action::Autoconfigure(..) => "SET_AUTOCONFIG",
        Action::Copyback => "COPYBACK",
        Action::Configure { .. } => "CONFIGURE",
        Action::Fail { .. } => "FAIL_DISK",
        Action::ShowLabel(_) => "GET_COMPONENT_LABEL",
        Action::InitLabels(_) => "INIT_LABELS",
        Action::RewriteParity => "REWRITEPARITY",
        Action::Rescan => "RESCAN",
        Action::ShowMap => "PARITYMAP_STATUS",
        Action::EnableMap(_) => "PARITYMAP_SET_DISABLE",
        Action::SetMap(_) => "PARITYMAP_SET_PARAMS",
        Action::CheckParity | Action::CheckAndRewriteParity => "CHECK_PARITY",
        Action::RemoveSpare(_) => "REMOVE_COMPONENT",
        Action::ReconstructInPlace(_) => "REBUILD_IN_PLACE",
        Action::Unconfigure => "SHUTDOWN",
        Action::SetUnit(_) => "SET_LAST_UNIT",
        _ => "GET_INFO",
    }
}

/// What is shown when the command line is wrong.
pub(crate) fn usage(program: &str) -> String {
    let lines = [
        "-A [yes | no | forceroot | softroot] dev",
        "-a component dev",
        "-B dev",
        "-C config_file dev",
        "-c config_file dev",
        "-F component dev",
        "-f component dev",
        "-G dev",
        "-g component dev",
        "-I serial_number dev",
        "-i dev",
        "-L dev",
        "-M [yes | no | set params] dev",
        "-m dev",
        "-o [autospare | noautospare | journal | nojournal] dev",
        "-P dev",
        "-p dev",
        "-R component dev",
        "-r component dev",
        "-S dev",
        "-s dev",
        "-t config_file",
        "-U unit dev",
        "-u dev",
    ];
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let begin = if index == 0 { "usage:" } else { "      " };
        text.push_str(&format!("{begin} {program} [-nv] [--json] {line}\n"));
    }
    text
}
