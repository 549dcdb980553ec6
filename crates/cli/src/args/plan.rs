//! The arguments of `coffer plan`.

use clap::{Args, Subcommand};

use super::{Add, Convert, Create, Remove, Replace};

/// `plan`.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// What a device reads or writes in a second, to tell how long it takes
    #[arg(long, value_name = "BYTES", default_value = "100M", value_parser = super::size)]
    pub(crate) rate: u64,
    /// The change
    #[command(subcommand)]
    pub(crate) change: PlanCommand,
}

/// A change that is only looked at: the words of the command that makes it.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// A new pool
    Create(Create),
    /// More vdevs or spares
    Add(Add),
    /// Devices or groups leave the pool
    Remove(Remove),
    /// A vdev becomes another kind
    Convert(Convert),
    /// A device takes the place of another
    Replace(Replace),
}
