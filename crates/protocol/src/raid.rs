//! What the holder of a unit can be asked.

use serde::{Deserialize, Serialize};

use crate::request::Place;
use crate::told::Told;

/// A request to the holder of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum RaidRequest {
    /// Carry out a command line of `raidctl`.
    Run {
        /// Its words.
        words: Vec<String>,
    },
    /// Start comparing data and redundancy.
    Scrub {
        /// And correct it.
        repair: bool,
    },
    /// How far jobs have come.
    Progress,
    /// Size of the unit.
    Size,
    /// Read; the bytes come as the payload.
    Read {
        /// Where, bytes.
        offset: u64,
        /// How much, bytes.
        length: u32,
    },
    /// Write the payload.
    Write {
        /// Where, bytes.
        offset: u64,
    },
    /// Make all writes durable.
    Flush,
    /// Serve the unit for as long as the connection lasts.
    Serve {
        /// Where.
        place: Place,
    },
}

/// How far one job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Done.
    pub done: u64,
    /// Of.
    pub total: u64,
}

/// Why the last job of each kind failed; `None` if it did not, or has begun again since.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// A reconstruction.
    pub reconstruction: Option<String>,
    /// A parity rewrite.
    pub rewrite: Option<String>,
    /// A copyback.
    pub copyback: Option<String>,
}

/// How far all jobs have come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    /// A reconstruction that runs.
    pub reconstruction: Option<Part>,
    /// A parity rewrite that runs.
    pub rewrite: Option<Part>,
    /// A copyback that runs.
    pub copyback: Option<Part>,
    /// A scrub that runs.
    pub scrub: Option<Part>,
    /// The last scrub: stripes that did not match.
    pub mismatches: u64,
    /// The last scrub: units that could not be read and were written anew.
    pub repairs: u64,
    /// Why the last job failed.
    pub trouble: Option<String>,
    /// Why those of each kind failed.
    #[serde(default)]
    pub failed: Failures,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RaidReply {
    /// What a command says.
    Told(Told),
    /// To [`RaidRequest::Progress`].
    Jobs(Jobs),
    /// To [`RaidRequest::Size`], bytes.
    Size(u64),
    /// It is done; the payload of a read is beside it.
    Done,
}
