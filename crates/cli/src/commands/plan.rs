//! `coffer plan`: what a change would come to.

use pool::Pool;
use protocol::request::{Change, Reply, Request};

use super::{Context, create, mismatch};
use crate::args::{self, PlanCommand};
use crate::error::{Failure, Outcome};
use crate::host;
use crate::names;
use crate::render;
use crate::session::Mode;

/// Tells room, redundancy and time of a change, and changes nothing.
///
/// # Errors
/// As the command that makes the change.
pub(super) fn plan(context: &Context, args: args::Plan) -> Outcome {
    if args.rate == 0 {
        return Err(Failure::refused("--rate 0: with no bytes a second it never ends; give more"));
    }
    let rate = args.rate;
    let (pool, change) = match args.change {
        PlanCommand::Create(args) => {
            let spec = create::spec(context, args)?;
            let forecast = Pool::forecast_create(&host::env(host::CACHE_BYTES), &spec, &host::host())?;
            return context.print(&forecast, |forecast| render::forecast(forecast, rate));
        }
        PlanCommand::Add(args) => (args.pool, Change::Add { vdevs: args.vdev, force: args.force }),
        PlanCommand::Remove(args) => (args.pool, Change::Remove { devices: args.device }),
        PlanCommand::Convert(args) => {
            (args.pool, Change::Convert { vdev: args.vdev, kind: args.kind, force: args.force })
        }
        PlanCommand::Replace(args) => {
            let change = Change::Replace { device: args.device, new: args.new_device, force: args.force };
            (args.pool, change)
        }
    };
    match context.ask(&names::pool(&pool)?, Mode::Look, &Request::Forecast { change })? {
        Reply::Forecast(forecast) => context.print(&forecast, |forecast| render::forecast(forecast, rate)),
        other => mismatch(other),
    }
}
