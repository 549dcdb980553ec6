//! The arguments of `coffer whatif`.

use clap::Args;

/// `whatif`.
#[derive(Args, Debug)]
pub(crate) struct Whatif {
    /// The pool
    pub(crate) pool: String,
    /// A device that would fail; several may be named, which fail together
    #[arg(long, value_name = "DEVICE")]
    pub(crate) fail: Vec<String>,
    /// How many devices would fail at once, whichever they are; by default the fewest with which something is lost
    #[arg(long, value_name = "K")]
    pub(crate) any: Option<usize>,
}
