//! `checkpoint`.

use clap::Args;

/// `checkpoint`.
#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    /// Give the checkpoint up, and free what only it holds
    #[arg(short, long)]
    pub(crate) discard: bool,
    /// With -d: wait until all of it is freed, where a server does that
    #[arg(short, long, requires = "discard")]
    pub(crate) wait: bool,
    /// Pool
    pub(crate) pool: String,
}
