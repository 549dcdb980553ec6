//! Work that takes its time: scrub, wait, and what follows a change of devices.
//!
//! If another process holds the pool, it does the work, and a command that waits only looks on. If none does,
//! this command holds the pool until the work has ended.

use std::sync::Arc;

use pool::PoolError;
use pool::report::{Plan, ScanKind, ScanReport, ScanState};
use protocol::request::{self, Reply, Request};
use serde::Serialize;

use super::{Context, HOLDERS_MAX, mismatch};
use crate::args;
use crate::control::Client;
use crate::error::{Failure, Outcome};
use crate::holder::Holder;
use crate::names;
use crate::progress::{self, Progress};
use crate::render;
use crate::session::{self, LocalPool, Mode, Session};
use crate::signals::Interrupt;

/// Does something to the devices or datasets of a pool, and the work that follows from it.
///
/// # Errors
/// The engine's.
pub(super) fn administer(context: &Context, pool: &str, request: &Request, wait: bool) -> Outcome {
    let mut session = session::open(&context.state, pool, Mode::Change, &context.command_line)?;
    let before = look(&mut session, context)?;
    let plan = match session.call(request, &context.command_line)? {
        Reply::Plan(plan) => Some(plan),
        Reply::Done => None,
        other => return mismatch(other),
    };
    // What is to be known is told before the work begins; programs get one answer at the end.
    if let Some(plan) = plan.as_ref().filter(|_| !context.json) {
        context.done(plan)?;
    }
    // What a destroy frees is freed in steps; a scan that happens to go on is not its business.
    let wanted = !matches!(request, Request::DatasetDestroy { .. }) || !before.busy;
    let after = match session {
        Session::Local(local) if wanted => stay(context, *local)?,
        Session::Remote(client) if wait => look_on(context, client)?,
        other => {
            other.close()?;
            None
        }
    };
    let scan = after.filter(|scan| before.scan.as_ref() != Some(scan));
    match (context.json, plan, scan) {
        (true, Some(plan), scan) => context.print(&Answer { plan, scan }, |_| String::new()),
        (_, _, Some(scan)) => report(context, Some(&scan)),
        (_, _, None) => Ok(()),
    }
}

/// The JSON of what was done to devices and the work that followed.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    plan: Plan,
    /// The resilver that this command waited for.
    scan: Option<ScanReport>,
}

/// `coffer checkpoint`.
///
/// # Errors
/// The engine's.
pub(super) fn checkpoint(context: &Context, args: &args::Checkpoint) -> Outcome {
    let pool = names::pool(&args.pool)?;
    if args.discard {
        return administer(context, &pool, &Request::CheckpointDiscard, args.wait);
    }
    context.ask(&pool, Mode::Change, &Request::Checkpoint).map(drop)
}

/// `coffer scrub`.
///
/// # Errors
/// The engine's.
pub(super) fn scrub(context: &Context, args: &args::Scrub) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let action = match (args.pause, args.stop) {
        (true, _) => request::Scrub::Pause,
        (_, true) => request::Scrub::Stop,
        _ => request::Scrub::Start,
    };
    let mut session = session::open(&context.state, &pool, Mode::Change, &context.command_line)?;
    session.call(&Request::Scrub { action }, &context.command_line)?;
    match session {
        Session::Local(local) if action == request::Scrub::Start => {
            report(context, stay(context, *local)?.as_ref())
        }
        Session::Remote(client) if args.wait => report(context, look_on(context, client)?.as_ref()),
        other => other.close(),
    }
}

/// `coffer wait`.
///
/// # Errors
/// The engine's.
pub(super) fn wait(context: &Context, args: &args::Wait) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let mut tries = 0..HOLDERS_MAX;
    let scan = loop {
        match session::open(&context.state, &pool, Mode::Change, &context.command_line)? {
            Session::Local(local) => break stay(context, *local)?,
            Session::Remote(client) => match look_on(context, client) {
                Err(Failure::HolderEnded(_)) if tries.next().is_some() => {}
                scan => break scan?,
            },
        }
    };
    report(context, scan.as_ref())
}

/// Where the background work of a pool stands.
fn look(session: &mut Session, context: &Context) -> Outcome<Progress> {
    session.call(&Request::Scan, &context.command_line).and_then(progress_of)
}

/// Where the background work of a pool stands, by the answer to [`Request::Scan`].
fn progress_of(reply: Reply) -> Outcome<Progress> {
    match reply {
        Reply::Scan { scan, busy, suspended } => {
            let trouble = suspended.then(|| PoolError::Suspended.to_string());
            Ok(Progress { scan, busy, trouble })
        }
        other => mismatch(other),
    }
}

/// Holds a pool until nothing is left to do.
pub(super) fn stay(context: &Context, local: LocalPool) -> Outcome<Option<ScanReport>> {
    let interrupt = Interrupt::catch()?;
    let holder = Holder::start(local, false)?;
    let shared = Arc::clone(holder.shared());
    let outcome = progress::wait(context.quiet, || shared.progress(), || interrupt.is_set());
    let stopped = holder.stop();
    let scan = outcome?;
    stopped.map(|()| scan)
}

/// Waits until the holder has nothing left to do.
pub(super) fn look_on(context: &Context, mut client: Client) -> Outcome<Option<ScanReport>> {
    let interrupt = Interrupt::catch()?;
    let look = || client.call(&Request::Scan, &[]).and_then(|(reply, _)| progress_of(reply));
    match progress::wait(context.quiet, look, || interrupt.is_set()) {
        Err(Failure::Interrupted(_)) => Err(Failure::Interrupted("interrupted; the work goes on".to_owned())),
        other => other,
    }
}

/// Tells what came of a scan; one that left errors is a failure.
fn report(context: &Context, scan: Option<&ScanReport>) -> Outcome {
    let Some(scan) = scan else { return context.print(&scan, |_| String::new()) };
    context.report(&scan, |scan| render::scan_line(scan))?;
    if scan.kind == ScanKind::Scrub && scan.state == ScanState::Finished && scan.errors > 0 {
        return Err(Failure::refused(format!(
            "{} errors could not be repaired; 'coffer status -v' shows where",
            scan.errors
        )));
    }
    Ok(())
}
