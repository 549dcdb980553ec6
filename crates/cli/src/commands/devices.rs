//! Devices of a pool: add, attach, detach, remove, replace, offline, online, clear.

use protocol::request::{Reply, Request};

use super::{Context, jobs, mismatch};
use crate::args;
use crate::error::{Failure, Outcome};
use crate::names;
use crate::session::Mode;
use crate::vdevs;

/// `coffer add`.
///
/// # Errors
/// The words are no vdevs, a device is in use or holds something, or the engine refuses.
pub(super) fn add(context: &Context, args: args::Add) -> Outcome {
    let pool = names::pool(&args.pool)?;
    // Mistakes in the words are told before the pool is opened.
    vdevs::parse(&args.vdev).map_err(|error| Failure::refused(error.to_string()))?;
    let request = Request::Add { vdevs: args.vdev, force: args.force, dry_run: args.dry_run };
    if !args.dry_run {
        return jobs::administer(context, &pool, &request, false);
    }
    match context.ask(&pool, Mode::Look, &request)? {
        Reply::Plan(plan) => context.planned(&plan),
        other => mismatch(other),
    }
}

/// `coffer attach`.
///
/// # Errors
/// As [`add`].
pub(super) fn attach(context: &Context, args: args::Attach) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let request = Request::Attach { device: args.device, new: args.new_device, force: args.force };
    jobs::administer(context, &pool, &request, args.wait)
}

/// `coffer detach`.
///
/// # Errors
/// The engine's.
pub(super) fn detach(context: &Context, args: args::Detach) -> Outcome {
    jobs::administer(context, &names::pool(&args.pool)?, &Request::Detach { device: args.device }, false)
}

/// `coffer replace`.
///
/// # Errors
/// As [`add`].
pub(super) fn replace(context: &Context, args: args::Replace) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let request = Request::Replace {
        device: args.device,
        new: args.new_device,
        force: args.force,
        source_last: args.source_last,
    };
    jobs::administer(context, &pool, &request, args.wait)
}

/// `coffer offline`.
///
/// # Errors
/// The engine's.
pub(super) fn offline(context: &Context, args: args::Offline) -> Outcome {
    let request = Request::Offline { devices: args.device, temporary: args.temporary };
    jobs::administer(context, &names::pool(&args.pool)?, &request, false)
}

/// `coffer online`.
///
/// # Errors
/// The engine's.
pub(super) fn online(context: &Context, args: args::Online) -> Outcome {
    let request = Request::Online { devices: args.device, expand: args.expand };
    jobs::administer(context, &names::pool(&args.pool)?, &request, false)
}

/// `coffer clear`.
///
/// # Errors
/// The engine's.
pub(super) fn clear(context: &Context, args: args::Clear) -> Outcome {
    jobs::administer(context, &names::pool(&args.pool)?, &Request::Clear { device: args.device }, false)
}
