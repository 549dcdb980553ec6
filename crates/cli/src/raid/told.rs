//! How what a `raidctl` command says is printed, and its usage.

use protocol::told::{Errno, Told};
use raidset::raidctl::{Action, Invocation};
use serde_json::{Map, Value, json};

use super::Context;
use super::record::{no_unit, unit_number};
use crate::commands::print_bytes;
use crate::error::Outcome;
use crate::json;

/// The unit is not configured.
pub(crate) fn not_configured(invocation: &Invocation) -> Told {
    let Invocation { action, options, json, .. } = invocation;
    let json = *json;
    if *action == Action::Nothing && options.is_empty() {
        return Told::either(json, "", json!({ "outcome": "not_configured" }));
    }
    let why = "the unit is not configured: -c or -C does that";
    Told::failed(request_name(action), Errno::NotConfigured, why)
}

/// The outcome of what was done.
pub(crate) const DONE: &str = "done";
/// The outcome of what goes on.
pub(crate) const STARTED: &str = "started";

/// What JSON calls an option that changes something; `None` for those that only show.
const fn action_name(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::AddSpare(_) => "add_spare",
        Action::Autoconfigure(..) => "set_autoconfigure",
        Action::Copyback => "copyback",
        Action::Configure { .. } => "configure",
        Action::Fail { reconstruct: false, .. } => "fail",
        Action::Fail { reconstruct: true, .. } => "reconstruct",
        Action::InitLabels(_) => "init_labels",
        Action::RewriteParity => "rewrite_parity",
        Action::CheckAndRewriteParity => "check_and_rewrite_parity",
        Action::Rescan => "rescan",
        Action::EnableMap(_) | Action::SetMap(_) => "set_map",
        Action::RemoveSpare(_) => "remove_spare",
        Action::ReconstructInPlace(_) => "reconstruct_in_place",
        Action::SetUnit(_) => "set_unit",
        Action::Unconfigure => "unconfigure",
        Action::CheckFile(_) => "check_file",
        Action::Nothing => "none",
        Action::ShowLabel(_)
        | Action::Generate
        | Action::ShowMap
        | Action::CheckParity
        | Action::Status
        | Action::Progress => return None,
    })
}

/// With `--json`, options that change something say which, of what unit and component, and what came of it, whether they have a text
/// or not. What failed has no data, but lines on standard error.
pub(crate) fn answered(told: Told, invocation: &Invocation) -> Told {
    let Some(action) = action_name(&invocation.action).filter(|_| invocation.json) else { return told };
    if told.code != 0 && told.data.is_none() {
        return told;
    }
    let mut data = Map::new();
    data.insert("action".to_owned(), action.into());
    let unit = unit_number(&invocation.device).filter(|_| invocation.action != Action::Rescan);
    if let Some(unit) = unit {
        data.insert("unit".to_owned(), format!("raid{unit}").into());
    }
    if let Action::AddSpare(name)
    | Action::Fail { component: name, .. }
    | Action::RemoveSpare(name)
    | Action::ReconstructInPlace(name) = &invocation.action
    {
        data.insert("component".to_owned(), name.as_str().into());
    }
    if !invocation.options.is_empty() {
        data.insert("options".to_owned(), json!(invocation.options));
    }
    if let Some(Value::Object(own)) = told.data {
        data.extend(own);
    }
    if !data.contains_key("would") {
        let outcome = if told.wait.is_some() { STARTED } else { DONE };
        data.entry("outcome").or_insert_with(|| outcome.into());
    }
    Told { data: Some(data.into()), ..told }
}

/// The data of a job that was waited for; `trouble` is why it failed.
pub(crate) fn ended(mut data: Value, trouble: Option<&str>) -> Value {
    let word = if trouble.is_some() { "failed" } else { DONE };
    data["outcome"] = word.into();
    if data.get("rewrite").is_some() {
        data["rewrite"] = word.into();
        if trouble.is_none() {
            data["parity"] = "clean".into();
        }
    }
    if let Some(why) = trouble {
        data["why"] = why.into();
    }
    data
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

/// The device of a command line is no unit.
pub(crate) fn no_device(device: &str) -> Told {
    let mut told = Told::no_device(device);
    told.errors.push(no_unit(device));
    told
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
