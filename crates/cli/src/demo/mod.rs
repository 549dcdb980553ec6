//! Placeholder.
use crate::args;
use crate::commands::Context;
use crate::error::Outcome;
pub(crate) fn run(_: &Context, _: &args::Demo) -> Outcome {
    Ok(())
}
