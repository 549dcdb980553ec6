//! What a command of `raidctl` says: texts, data for `--json`, an exit code, and what is to be waited for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A system error as `strerror` words it, where RAIDframe's driver gives one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
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
pub enum Wait {
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
pub struct Told {
    /// For standard output.
    pub out: String,
    /// For standard error, a line each, without the program's name.
    pub errors: Vec<String>,
    /// Exit code.
    pub code: u8,
    /// In place of `out` with `--json`.
    pub data: Option<Value>,
    /// What it started or is to follow.
    pub wait: Option<Wait>,
    /// What is said when that has ended.
    pub last: String,
}

impl Told {
    /// Nothing, as most options say.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// A text.
    pub fn text(out: impl Into<String>) -> Self {
        Self { out: out.into(), ..Self::default() }
    }

    /// A text, or data with `--json`.
    pub fn either(json: bool, out: impl Into<String>, data: Value) -> Self {
        Self { out: out.into(), data: json.then_some(data), ..Self::default() }
    }

    /// A request to the driver failed, as `raidctl` tells it; then why.
    pub fn failed(request: &str, errno: Errno, why: impl std::fmt::Display) -> Self {
        let line = format!("ioctl (RAIDFRAME_{request}) failed: {}", errno.text());
        Self { errors: vec![line, why.to_string()], code: 1, ..Self::default() }
    }

    /// Another failure, in one line.
    pub fn error(why: impl std::fmt::Display) -> Self {
        Self { errors: vec![why.to_string()], code: 1, ..Self::default() }
    }

    /// The device is no unit.
    pub fn no_device(device: &str) -> Self {
        Self::error(format!("Unable to open device file: {device}"))
    }
}
