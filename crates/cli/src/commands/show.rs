//! Commands that only look: list, status, usage, map, history, events, get, check.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use device::Access;
use pool::Pool;
use pool::report::{
    ChunkReport, DatasetRow, Event, PoolRow, PropertyRow, RemappedReport, State as Health, StatusReport,
};
use pool::spec::ImportOptions;
use pool::types::Guid;
use protocol::request::{Reply, Request};
use serde::Serialize;

use super::{Context, mismatch};
use crate::args::{self, ListKind};
use crate::error::{Failure, Outcome};
use crate::eventlog;
use crate::holder::Holder;
use crate::host;
use crate::names;
use crate::open;
use crate::render::{self, Style};
use crate::session::{self, Mode, Session};
use crate::signals::Interrupt;
use crate::state::Record;

/// How often new events are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// The JSON of `list`.
#[derive(Serialize)]
struct Listing<'a> {
    pools: Vec<&'a PoolRow>,
    datasets: Vec<&'a DatasetRow>,
}

/// `coffer list`.
///
/// # Errors
/// There is no such pool or dataset, or a pool can't be opened.
pub(super) fn list(context: &Context, args: &args::List) -> Outcome {
    let name = args.name.as_deref().map(names::any).transpose()?;
    let dataset = name.as_ref().and_then(|name| name.dataset.clone());
    let kind = args.kind.unwrap_or(match &dataset {
        None => ListKind::Pool,
        Some(dataset) if dataset.contains('@') => ListKind::Snapshot,
        Some(_) => ListKind::Volume,
    });
    let style = Style { scripted: args.scripted, exact: args.exact };
    let mut all = Vec::new();
    let mut failed = false;
    let only = name.as_ref().map(|name| name.pool.as_str());
    for pool in pool_names(context, only.as_slice())? {
        match rows(context, &pool, kind != ListKind::Pool) {
            Ok(rows) => all.push(rows),
            Err(error) if name.is_none() => {
                eprintln!("coffer list: {pool}: {error}");
                failed = true;
                all.push((unlisted(context, &pool)?, Vec::new()));
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(name) = name.as_ref().filter(|name| name.dataset.is_some()) {
        let (exact, snapshots) = (name.to_string(), format!("{name}@"));
        for (_, rows) in &mut all {
            rows.retain(|row| row.name == exact || row.name.starts_with(&snapshots));
            if rows.is_empty() {
                return Err(Failure::refused(format!("no such volume or snapshot: '{name}'")));
            }
        }
    }
    let wanted = |row: &&DatasetRow| match kind {
        ListKind::Pool => false,
        ListKind::All => true,
        ListKind::Volume => row.kind == "volume",
        ListKind::Snapshot => row.kind == "snapshot",
    };
    let datasets: Vec<&DatasetRow> = all.iter().flat_map(|(_, rows)| rows).filter(wanted).collect();
    let pools = if matches!(kind, ListKind::Pool | ListKind::All) {
        all.iter().map(|(pool, _)| pool).collect()
    } else {
        Vec::new()
    };
    let text = |listing: &Listing<'_>| {
        let owned = |rows: &[&DatasetRow]| rows.iter().map(|row| (*row).clone()).collect::<Vec<_>>();
        match kind {
            ListKind::All => render::everything(&all, style),
            ListKind::Pool => {
                render::pools(&all.iter().map(|(pool, _)| pool.clone()).collect::<Vec<_>>(), style)
            }
            _ => render::datasets(&owned(&listing.datasets), style),
        }
    };
    context.print(&Listing { pools, datasets }, text)?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

/// The rows of a pool.
fn rows(context: &Context, pool: &str, with_datasets: bool) -> Outcome<(PoolRow, Vec<DatasetRow>)> {
    let mut session = session::open(&context.state, pool, Mode::Look, &context.command_line)?;
    let row = match session.call(&Request::Row, &context.command_line)? {
        Reply::Row(row) => row,
        other => return mismatch(other),
    };
    let mut datasets = Vec::new();
    if with_datasets {
        datasets = match session.call(&Request::Datasets, &context.command_line)? {
            Reply::Datasets(rows) => rows,
            other => return mismatch(other),
        };
    }
    session.close()?;
    Ok((row, datasets))
}

/// The row of a pool that can't be opened: nothing is known but that it is there.
fn unlisted(context: &Context, pool: &str) -> Outcome<PoolRow> {
    let Record { name, guid, .. } = context.state.find(pool)?;
    let (size, alloc, free, fragmentation, capacity) = (0, 0, 0, 0, 0);
    let (checkpoint, health) = (None, Health::Unavail);
    Ok(PoolRow { name, guid, size, alloc, free, checkpoint, fragmentation, capacity, health })
}

/// The pools named, or all in use.
fn pool_names(context: &Context, named: &[&str]) -> Outcome<Vec<String>> {
    if named.is_empty() {
        return Ok(context.state.in_use()?.into_iter().map(|record| record.name).collect());
    }
    named.iter().map(|name| Ok(context.state.find(&names::pool(name)?)?.name)).collect()
}

/// `coffer status`.
///
/// # Errors
/// There is no such pool.
pub(super) fn status(context: &Context, args: &args::Status) -> Outcome {
    let named: Vec<&str> = args.pool.iter().map(String::as_str).collect();
    let mut reports = Vec::new();
    for name in pool_names(context, &named)? {
        reports.push(match context.ask(&name, Mode::Look, &Request::Status) {
            Ok(Reply::Status(report)) => *report,
            Ok(other) => return mismatch(other),
            Err(error) => unavailable(context, &name, &error)?,
        });
    }
    let healthy = |report: &StatusReport| {
        report.state == Health::Online && report.status.is_none() && report.data_errors == 0
    };
    let any = !reports.is_empty();
    let well: Vec<String> =
        reports.iter().filter(|report| healthy(report)).map(|report| report.name.clone()).collect();
    if args.unhealthy {
        reports.retain(|report| !healthy(report));
    }
    context.print(&reports, |reports| match (any, reports.is_empty()) {
        (false, _) => "no pools available\n".to_owned(),
        (true, true) if args.pool.is_empty() => "all pools are healthy\n".to_owned(),
        (true, true) => well.iter().map(|name| format!("pool '{name}' is healthy\n")).collect(),
        _ => reports.iter().map(|report| render::status(report, args.verbose)).collect::<Vec<_>>().join("\n"),
    })
}

/// The status of a pool that can't be opened.
fn unavailable(context: &Context, name: &str, error: &Failure) -> Outcome<StatusReport> {
    let record = context.state.find(name)?;
    // What the labels of those devices tell that are there.
    let there: Vec<PathBuf> =
        record.devices.iter().chain(&record.folders).filter(|path| path.exists()).cloned().collect();
    let members = open::members_in(&there).unwrap_or_default();
    let devices: Vec<_> = members.into_iter().map(|member| member.device).collect();
    let found = Pool::find_pools(&devices).into_iter().find(|found| found.guid == record.guid);
    let (vdevs, spares) = found.map(|found| (found.vdevs, found.spares)).unwrap_or_default();
    Ok(StatusReport {
        name: record.name,
        guid: record.guid,
        state: Health::Unavail,
        status: Some(format!("The pool cannot be opened: {error}")),
        action: Some("Bring the missing devices back and try again.".to_owned()),
        scan: None,
        vdevs,
        spares,
        jobs: Vec::new(),
        checkpoint: None,
        data_errors: 0,
        data_error_places: Vec::new(),
    })
}

/// `coffer usage`.
///
/// # Errors
/// The pool can't be opened.
pub(super) fn usage(context: &Context, args: &args::Usage) -> Outcome {
    match context.ask(&names::pool(&args.pool)?, Mode::Look, &Request::Usage)? {
        Reply::Usage(report) => context.print(&report, |report| {
            if args.table { render::usage_table(report) } else { render::usage(report) }
        }),
        other => mismatch(other),
    }
}

/// The JSON of `map`.
#[derive(Serialize)]
struct Chunks {
    chunks: Vec<ChunkReport>,
    /// What was relocated out of chunks.
    remapped: Vec<RemappedReport>,
}

/// `coffer map`.
///
/// # Errors
/// The pool can't be opened.
pub(super) fn map(context: &Context, args: &args::OnePool) -> Outcome {
    match context.ask(&names::pool(&args.pool)?, Mode::Look, &Request::Map)? {
        Reply::Map { chunks, remapped } => {
            context.print(&Chunks { chunks, remapped }, |map| render::map(&map.chunks, &map.remapped))
        }
        other => mismatch(other),
    }
}

/// `coffer history`.
///
/// # Errors
/// The pool can't be opened.
pub(super) fn history(context: &Context, args: &args::OnePool) -> Outcome {
    let pool = names::pool(&args.pool)?;
    match context.ask(&pool, Mode::Look, &Request::History)? {
        Reply::History(entries) => context.print(&entries, |entries| render::history(&pool, entries)),
        other => mismatch(other),
    }
}

/// `coffer events`.
///
/// # Errors
/// The pool can't be opened, or its holder ended.
pub(super) fn events(context: &Context, args: &args::Events) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let print = |events: &Vec<Event>, header: bool| {
        let header = if header { render::event_header() } else { String::new() };
        context.print(events, |events| header + &render::events(events))
    };
    if !args.follow {
        return match context.ask(&pool, Mode::Look, &Request::Events { after: 0 })? {
            Reply::Events(events) => print(&events, true),
            other => mismatch(other),
        };
    }
    let interrupt = Interrupt::catch()?;
    let (mut after, mut first) = (0, true);
    let mut show = |events: Vec<Event>| {
        if first || !events.is_empty() {
            print(&events, first)?;
        }
        first = false;
        after = events.last().map_or(after, |event| event.id);
        thread::sleep(LOOK);
        Ok(after)
    };
    let mut after = 0;
    while !interrupt.is_set() {
        match session::open(&context.state, &pool, Mode::Change, &context.command_line)? {
            Session::Remote(mut client) => {
                while !interrupt.is_set() {
                    match client.call(&Request::Events { after }, &[]) {
                        Ok((Reply::Events(events), _)) => after = show(events)?,
                        Ok((other, _)) => return mismatch(other),
                        // The pool goes on with another holder, or with us.
                        Err(Failure::HolderEnded(_)) => {
                            thread::sleep(LOOK);
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            // Nobody else holds the pool, so nothing would happen if we did not.
            Session::Local(local) => {
                let holder = Holder::start(*local, false)?;
                let mut outcome = Ok(());
                while !interrupt.is_set() && !holder.shared().has_ended() && outcome.is_ok() {
                    outcome = holder
                        .shared()
                        .with(|pool| Ok(eventlog::since(pool, &context.state, after)))
                        .and_then(&mut show)
                        .map(|to| after = to);
                }
                return holder.stop().and(outcome);
            }
        }
    }
    Ok(())
}

/// `coffer get`.
///
/// # Errors
/// The pool can't be opened, or there is no such dataset or property.
pub(super) fn get(context: &Context, args: &args::Get) -> Outcome {
    let name = names::any(&args.name)?;
    let mut session = session::open(&context.state, &name.pool, Mode::Look, &context.command_line)?;
    let dataset = name.dataset.unwrap_or_default();
    let wanted: Vec<Option<String>> = match args.property.as_str() {
        "all" => vec![None],
        list => list.split(',').map(|property| Some(property.to_owned())).collect(),
    };
    let mut rows: Vec<PropertyRow> = Vec::new();
    for property in wanted {
        match session.call(&Request::Get { name: dataset.clone(), property }, &context.command_line)? {
            Reply::Properties(more) => rows.extend(more),
            other => return mismatch(other),
        }
    }
    session.close()?;
    let style = Style { scripted: args.scripted, exact: args.exact };
    context.print(&rows, |rows| render::properties(rows, style))
}

/// `coffer whatif`.
///
/// # Errors
/// A device is not known, or there are not so many.
pub(super) fn whatif(context: &Context, args: args::Whatif) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let request = Request::WhatIf { failed: args.fail, any: args.any };
    match context.ask(&pool, Mode::Look, &request)? {
        Reply::WhatIf(report) => context.print(&report, |report| render::whatif(&pool, report)),
        other => mismatch(other),
    }
}

/// `coffer check`.
///
/// # Errors
/// The pool can't be opened, or something is wrong with it.
pub(super) fn check(context: &Context, args: &args::Check) -> Outcome {
    let (name, report) = match args.name.as_slice() {
        [name] if !name.contains('/') && context.state.find(name).is_ok() => {
            match context.ask(name, Mode::Look, &Request::Check)? {
                Reply::Check(report) => (name.clone(), report),
                other => return mismatch(other),
            }
        }
        devices => {
            let mut pool = devices_read_only(devices)?;
            let report = pool.check()?;
            (pool.name().to_owned(), report)
        }
    };
    context.print(&report, |report| render::check(&name, report))?;
    if report.problems.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

/// The pool that lies on some devices, to look at only.
fn devices_read_only(words: &[String]) -> Outcome<Pool> {
    let paths: Vec<PathBuf> = words.iter().map(|word| open::resolve(word)).collect::<Outcome<_>>()?;
    let mut guid: Option<Guid> = None;
    let mut devices = Vec::new();
    for path in &paths {
        let device = open::member(path, Access::ReadOnly)?
            .ok_or_else(|| Failure::refused(format!("cannot open {}", path.display())))?;
        let label = Pool::examine(&*device.device)?
            .ok_or_else(|| Failure::refused(format!("{} belongs to no pool", path.display())))?;
        if *guid.get_or_insert(label.pool_guid) != label.pool_guid {
            return Err(Failure::refused(format!(
                "{} belongs to another pool, '{}'",
                path.display(),
                label.pool_name
            )));
        }
        devices.push(device);
    }
    let guid = guid.ok_or_else(|| Failure::usage("name a pool or its devices"))?;
    let options =
        ImportOptions { read_only: true, force: true, host: host::host(), ..ImportOptions::default() };
    Ok(Pool::import(&host::env(host::CACHE_BYTES), guid, devices, &options)?.0)
}
