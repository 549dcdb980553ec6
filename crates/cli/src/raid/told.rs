//! What a command says: texts, data for `--json`, an exit code, and what is to be waited for.

use raidset::raidctl::Action;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use crate::commands::print_bytes;
use crate::error::Outcome;
use crate::json;

/// A system error as `strerror` words it, where RAIDframe's driver gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errno {
    /// It cannot be done like this.
    Invalid,
    /// Somebody uses it.
    Busy,
    /// There is no such device.
    NotConfigured,
}

impl Errno {
    const fn text(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid argument",
            Self::Busy => "Device busy",
            Self::NotConfigured => "Device not configured",
        }
    }
}

/// Jobs that a command may wait for, in the order in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wait {
    /// A reconstruction.
    Reconstruction,
    /// A parity rewrite.
    Rewrite,
    /// A copyback.
    Copyback,
    /// Whatever runs.
    All,
    /// A parity rewrite, even without `-v`; then a last line.
    RewriteToTheEnd,
}

/// What a command says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// For standard output.
    pub(crate) out: String,
    /// For standard error, a line each, without the program's name.
    pub(crate) errors: Vec<String>,
    /// Exit code.
    pub(crate) code: u8,
    /// In place of `out` with `--json`.
    pub(crate) data: Option<Value>,
    /// What it started or is to follow.
    pub(crate) wait: Option<Wait>,
    /// What is said when that has ended.
    pub(crate) last: String,
}

impl Told {
    /// Nothing, as most options say.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// A text.
    pub(crate) fn text(out: impl Into<String>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    /// A text, or data with `--json`.
    pub(crate) fn either(json: bool, out: impl Into<String>, data: Value) -> Self {
        Self { out: out.into(), data: json.then_some(data), ..Self::default() }
    }

    /// A request to the driver failed, as `raidctl` tells it; then why.
    pub(crate) fn failed(request: &str, errno: Errno, why: impl std::fmt::Display) -> Self {
        let line = format!("ioctl (RAIDFRAME_{request}) failed: {}", errno.text());
        Self { errors: vec![line, why.to_string()], code: 1, ..Self::default() }
    }

    /// Another failure, in one line.
    pub(crate) fn error(why: impl std::fmt::Display) -> Self {
        Self { errors: vec![why.to_string()], code: 1, ..Self::default() }
    }

    /// The device is no unit.
    pub(crate) fn no_device(device: &str) -> Self {
        Self::error(format!("Unable to open device file: {device}"))
    }

    /// The unit is not configured.
    pub(crate) fn not_configured(action: &Action) -> Self {
        if *action == Action::Nothing {
            return Self::nothing();
        }
        let why = "the unit is not configured: -c or -C does that";
        Self::failed(request_name(action), Errno::NotConfigured, why)
    }

    /// Prints it; returns the exit code.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub(crate) fn print(&self, context: &Context) -> Outcome<u8> {
        for line in &self.errors {
            eprintln!("{}: {line}", context.program);
        }
        match &self.data {
            Some(data) => {
                let text = json::document("raid", data)
                    .map_err(|error| crate::error::Failure::refused(error.to_string()))?;
                print_bytes(text.as_bytes())?;
            }
            None => print_bytes(self.out.as_bytes())?,
        }
        Ok(self.code)
    }
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
        "-o [autospare | noautospare] dev",
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
