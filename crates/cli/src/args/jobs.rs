//! The arguments of `coffer scrub` and `coffer wait`.

use clap::Args;

/// `scrub`.
#[derive(Args, Debug)]
pub(crate) struct Scrub {
    /// Pause it
    #[arg(short, conflicts_with_all = ["stop", "wait"])]
    pub(crate) pause: bool,
    /// Stop it
    #[arg(short, conflicts_with = "wait")]
    pub(crate) stop: bool,
    /// Wait until it has ended
    #[arg(short)]
    pub(crate) wait: bool,
    /// Pool
    pub(crate) pool: String,
}

/// `wait`.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Pool
    pub(crate) pool: String,
}
