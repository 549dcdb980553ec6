//! `coffer balance`.

use std::thread;
use std::time::{Duration, Instant};

use pool::BalanceAction;
use pool::report::{BalancePlan, BalanceReport, ScanState};
use pool::spec::{BalanceFilters, BalanceSpec, Task};
use protocol::request::{Reply, Request};

use super::jobs::{administer, look_on, stay};
use super::{Context, mismatch};
use crate::args::{self, BalanceCommand};
use crate::error::{Failure, Outcome};
use crate::names;
use crate::render;
use crate::session::{self, Mode, Session};
use crate::signals::Interrupt;

/// How long a user has to think better of rewriting everything.
const DELAY: Duration = Duration::from_secs(10);

/// How often it is looked whether another balance has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Runs one of the commands.
///
/// # Errors
/// The engine's.
pub(super) fn run(context: &Context, command: BalanceCommand) -> Outcome {
    let (args, action) = match command {
        BalanceCommand::Start(args) => return start(context, *args),
        BalanceCommand::Status(args) => return status(context, &args),
        BalanceCommand::Pause(args) => (args, BalanceAction::Pause),
        BalanceCommand::Resume(args) => (args, BalanceAction::Resume),
        BalanceCommand::Cancel(args) => (args, BalanceAction::Cancel),
    };
    let pool = names::pool(&args.pool)?;
    let mut session = session::open(&context.state, &pool, Mode::Change, &context.command_line)?;
    if !is_going_on(&mut session, context)? {
        session.close()?;
        return Err(Failure::usage(format!("no balance is going on in pool '{pool}'")));
    }
    session.call(&Request::BalanceControl { action }, &context.command_line)?;
    match session {
        session if action != BalanceAction::Resume => session.close(),
        Session::Local(local) => {
            stay(context, *local)?;
            outcome_of(context, &pool)
        }
        Session::Remote(client) => {
            look_on(context, client)?;
            outcome_of(context, &pool)
        }
    }
}

fn start(context: &Context, args: args::BalanceStart) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let none = args.data.is_none() && args.metadata.is_none() && args.system.is_none();
    let all = || none.then(BalanceFilters::default);
    let spec = Box::new(BalanceSpec {
        data: args.data.or_else(all),
        metadata: args.metadata.or_else(all),
        system: args.system,
        force: args.force,
    });
    let interrupt = Interrupt::catch()?;
    if args.dry_run {
        let request = Request::BalanceStart { spec, dry_run: true };
        return match context.ask(&pool, Mode::Look, &request)? {
            Reply::BalancePlan(plan) => context.print(&plan, plan_text),
            other => mismatch(other),
        };
    }
    // Mistakes are told before the user is made to wait.
    context
        .ask(&pool, Mode::Look, &Request::BalanceStart { spec: spec.clone(), dry_run: true })
        .or_else(|error| if args.enqueue { Ok(Reply::Done) } else { Err(error) })?;
    warn(context, &spec, none && !args.full_balance, &interrupt)?;
    let request = Request::BalanceStart { spec, dry_run: false };
    let session = loop {
        let mut session = session::open(&context.state, &pool, Mode::Change, &context.command_line)?;
        if args.enqueue && is_going_on(&mut session, context)? {
            wait_a_while(context, session, &interrupt)?;
            continue;
        }
        session.call(&request, &context.command_line)?;
        break session;
    };
    match session {
        session if args.background => {
            session.close()?;
            context.note(&format!("it goes on as long as the pool is held, as by 'coffer wait {pool}'"));
            Ok(())
        }
        Session::Local(local) => {
            stay(context, *local)?;
            outcome_of(context, &pool)
        }
        Session::Remote(client) => {
            look_on(context, client)?;
            outcome_of(context, &pool)
        }
    }
}

/// Whether a balance has yet to end.
fn is_going_on(session: &mut Session, context: &Context) -> Outcome<bool> {
    match session.call(&Request::Balance, &context.command_line)? {
        Reply::Balance(report) => {
            Ok(report.is_some_and(|report| matches!(report.state, ScanState::Running | ScanState::Paused)))
        }
        other => mismatch(other),
    }
}

/// Lets a balance go on for a moment: here, if nobody else holds the pool.
fn wait_a_while(context: &Context, session: Session, interrupt: &Interrupt) -> Outcome {
    if interrupt.is_set() {
        return Err(Failure::Interrupted("interrupted; nothing was begun".to_owned()));
    }
    match session {
        Session::Local(local) => stay(context, *local).map(|_| ()),
        Session::Remote(_) => {
            thread::sleep(LOOK);
            Ok(())
        }
    }
}

/// What a user should think of first.
fn warn(context: &Context, spec: &BalanceSpec, everything: bool, interrupt: &Interrupt) -> Outcome {
    if spec.metadata.as_ref().is_some_and(|filters| filters.convert.is_none()) {
        context.note(
            "balancing metadata regularly does no good and takes the room that it grows into; it is for conversions, and \
             after devices were added or removed",
        );
    }
    if !everything {
        return Ok(());
    }
    eprintln!(
        "WARNING:\n\n\tFull balance without filters requested. This rewrites every chunk and may take very long.\n\
         \tFilters (-dusage=50) choose chunks; --full-balance skips this warning.\n\
         \tIt will start in {} seconds. Ctrl-C stops it.",
        DELAY.as_secs()
    );
    let until = Instant::now() + DELAY;
    while Instant::now() < until {
        if interrupt.is_set() {
            return Err(Failure::Interrupted("interrupted; nothing was begun".to_owned()));
        }
        thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

fn ask(context: &Context, pool: &str) -> Outcome<Option<Box<BalanceReport>>> {
    match context.ask(pool, Mode::Look, &Request::Balance)? {
        Reply::Balance(report) => Ok(report),
        other => mismatch(other),
    }
}

/// Tells what came of a balance; one that could not go on, or left something behind, is a failure.
fn outcome_of(context: &Context, pool: &str) -> Outcome {
    let Some(report) = ask(context, pool)? else { return Ok(()) };
    context.report(&report, |report| render::balance_result(report))?;
    failure_of(&report)
}

/// `coffer remove` of devices that are in use: a balance of all that is on them.
///
/// # Errors
/// The engine's; and if it could not go on, or left something behind.
pub(super) fn remove(context: &Context, args: args::Remove) -> Outcome {
    let pool = names::pool(&args.pool)?;
    if args.stop {
        let removes = ask(context, &pool)?.is_some_and(|report| {
            matches!(report.task, Task::Remove(_))
                && matches!(report.state, ScanState::Running | ScanState::Paused)
        });
        if !removes {
            return Err(Failure::refused(format!("there is no active removal in pool '{pool}'")));
        }
        let request = Request::BalanceControl { action: BalanceAction::Cancel };
        return context.ask(&pool, Mode::Change, &request).map(|_| ());
    }
    relocate(context, &pool, &Request::Remove { devices: args.device, dry_run: args.dry_run }, args.dry_run)
}

/// `coffer convert`.
///
/// # Errors
/// The engine's; and if it could not go on, or left something behind.
pub(super) fn convert(context: &Context, args: args::Convert) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let (force, dry_run) = (args.force, args.dry_run);
    relocate(context, &pool, &Request::Convert { vdev: args.vdev, kind: args.kind, force, dry_run }, dry_run)
}

/// `coffer resize`.
///
/// # Errors
/// The engine's; and if it could not go on, or left something behind.
pub(super) fn resize(context: &Context, args: args::Resize) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let (device, to) = args.to;
    let dry_run = args.dry_run;
    relocate(context, &pool, &Request::Resize { device, to, dry_run }, dry_run)
}

/// Begins a task other than a balance and stays with it, or only tells what it would do.
fn relocate(context: &Context, pool: &str, request: &Request, dry_run: bool) -> Outcome {
    if dry_run {
        return match context.ask(pool, Mode::Look, request)? {
            Reply::Plan(plan) => context.planned(&plan),
            other => mismatch(other),
        };
    }
    let before = ask(context, pool)?;
    administer(context, pool, request, false)?;
    match ask(context, pool)? {
        // One that goes on in a server is not waited for, and an earlier one is not this command's.
        Some(report) if report.state != ScanState::Running && before.as_ref() != Some(&report) => {
            failure_of(&report)
        }
        _ => Ok(()),
    }
}

/// What is wrong with how a balance ended.
fn failure_of(report: &BalanceReport) -> Outcome {
    match (&report.trouble, report.errors) {
        (Some(trouble), _) => Err(Failure::refused(format!("the {} stopped: {trouble}", report.task.name()))),
        (None, 0) => Ok(()),
        (None, errors) => Err(Failure::refused(format!(
            "{errors} extents can't be read and stay where they are; 'coffer status -v' shows whose"
        ))),
    }
}

fn status(context: &Context, args: &args::OnePool) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let report = ask(context, &pool)?;
    context.print(&report, |report| render::balance_status(&pool, report.as_deref()))
}

fn plan_text(plan: &BalancePlan) -> String {
    let mut text = String::new();
    for class in &plan.classes {
        let bytes = crate::sizes::short_bytes(class.bytes);
        text.push_str(&format!("{}: {} chunks with {bytes} would be relocated\n", class.class, class.chunks));
    }
    for note in &plan.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}
