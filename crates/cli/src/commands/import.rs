//! Pools coming and going: import, export, labelclear.

use std::path::PathBuf;

use device::{Access, FileDevice};
use pool::Pool;
use pool::report::{FoundPool, State};
use pool::spec::{ImportOptions, NewDevice};
use pool::types::Txg;
use protocol::request::Request;

use super::Context;
use crate::args;
use crate::control::{Connected, connect};
use crate::error::{Failure, Outcome};
use crate::eventlog;
use crate::host;
use crate::names;
use crate::open::{self, Member};
use crate::render;
use crate::session::{self, Mode};
use crate::state::Record;

/// `coffer import`.
///
/// # Errors
/// There is no such pool, its name is taken, devices are missing beyond redundancy, or another host may use it.
pub(super) fn import(context: &Context, args: &args::Import) -> Outcome {
    let rewinds = args.rewind || args.txg.is_some() || args.rewind_to_checkpoint;
    if args.pool.is_none() && (rewinds || args.dry_run) {
        return Err(Failure::usage("-F, -T, --rewind-to-checkpoint and -n speak of one pool: name it"));
    }
    if args.dry_run && !rewinds {
        return Err(Failure::usage("-n goes with -F, -T or --rewind-to-checkpoint"));
    }
    let places = if args.dir.is_empty() { open::usual_places(&context.state)? } else { args.dir.clone() };
    let in_use = context.state.in_use()?;
    let members = open::members_in(&places)?;
    let found: Vec<FoundPool> =
        Pool::find_pools(&members.iter().map(|member| member.device.clone()).collect::<Vec<_>>());
    let Some(wanted) = &args.pool else {
        let mut free = found;
        free.retain(|pool| !in_use.iter().any(|record| record.guid == pool.guid));
        let here = host::host().name;
        free.iter_mut()
            .for_each(|pool| pool.foreign_host = pool.foreign_host.take().filter(|host| *host != here));
        let none = || "no pools available to import\n".to_owned();
        return context.print(&free, |pools| if pools.is_empty() { none() } else { render::found(pools) });
    };
    let pool = select(&found, wanted, &in_use)?;
    take(context, args, pool, members)
}

/// The one pool that is meant.
fn select<'a>(found: &'a [FoundPool], wanted: &str, in_use: &[Record]) -> Outcome<&'a FoundPool> {
    let mut by_name: Vec<&FoundPool> = found.iter().filter(|pool| pool.name == wanted).collect();
    // What a killed command has left can't be meant.
    if by_name.iter().any(|pool| pool.state != State::Faulted) {
        by_name.retain(|pool| pool.state != State::Faulted);
    }
    let meant = match by_name.as_slice() {
        [] => found.iter().find(|pool| pool.guid.to_string() == wanted),
        [one] => Some(*one),
        many => {
            let mut free = many.iter().filter(|pool| !in_use.iter().any(|record| record.guid == pool.guid));
            match (free.next(), free.next()) {
                (Some(one), None) => Some(*one),
                (None, _) => Some(many[0]),
                _ => {
                    let numbers: Vec<String> = many.iter().map(|pool| pool.guid.to_string()).collect();
                    return Err(Failure::refused(format!(
                        "there is more than one pool named '{wanted}': import one by its number: {}",
                        numbers.join(", ")
                    )));
                }
            }
        }
    };
    let known = |pool: &FoundPool| in_use.iter().any(|record| record.guid == pool.guid);
    match meant {
        Some(pool) if known(pool) => Err(Failure::refused(format!("pool '{}' is in use already", pool.name))),
        Some(pool) => Ok(pool),
        None if in_use.iter().any(|record| record.name == wanted) => {
            Err(Failure::refused(format!("pool '{wanted}' is in use already")))
        }
        None => Err(Failure::refused(format!(
            "no pool '{wanted}' was found: name the folder of its devices with -d, or see what there is with 'coffer import'"
        ))),
    }
}

/// Imports a pool that was found.
fn take(context: &Context, args: &args::Import, found: &FoundPool, members: Vec<Member>) -> Outcome {
    let mut options = ImportOptions {
        force: args.force,
        rewind: args.rewind,
        txg: args.txg.map(Txg),
        checkpoint: args.rewind_to_checkpoint,
        rename: args.new_name.as_deref().map(names::pool).transpose()?,
        host: host::host(),
        ..ImportOptions::default()
    };
    let mut settings = Vec::new();
    for setting in &args.settings {
        match (setting.property.as_str(), setting.value.as_str()) {
            ("readonly", "on") => options.read_only = true,
            ("readonly", "off") => options.read_only = false,
            ("readonly", other) => {
                return Err(Failure::usage(format!("readonly is on or off, not '{other}'")));
            }
            (property, value) => {
                // Said before anything is imported, and perhaps gone back to.
                Pool::check_setting(property, value)?;
                settings.push(setting);
            }
        }
    }
    if options.read_only && !settings.is_empty() {
        return Err(Failure::usage("properties cannot be set on a pool that is imported read-only"));
    }
    let rewinds = options.rewind || options.txg.is_some() || options.checkpoint;
    let name = options.rename.as_ref().unwrap_or(&found.name);
    context.state.name_is_free(name, Some(found.guid))?;
    if let Connected::Holder(_) = connect(&context.state.socket(found.guid), "")? {
        return Err(Failure::refused(format!("pool '{name}' is in use already")));
    }
    let _lock = context
        .state
        .lock_pool(found.guid)?
        .map_err(|pid| Failure::refused(format!("pool '{name}' is in use by process {pid}")))?;
    let access = if options.read_only || args.dry_run { Access::ReadOnly } else { Access::ReadWrite };
    let devices = lock_members(found, members, access)?;
    let mut back_to = None;
    if rewinds {
        // Looked at read-only first, which says what is lost and changes nothing.
        let look = ImportOptions { read_only: true, ..options.clone() };
        let (seen, mut plan) =
            Pool::import(&host::env(host::CACHE_BYTES), found.guid, devices.clone(), &look)?;
        if plan.steps.is_empty() && plan.notices.is_empty() {
            plan.notices.push("this is the newest state: nothing is lost".to_owned());
        }
        if args.dry_run {
            return context.planned(&plan);
        }
        for line in plan.steps.iter().chain(&plan.notices) {
            context.note(line);
        }
        back_to = Some(if options.checkpoint {
            "its checkpoint".to_owned()
        } else {
            format!("transaction group {}", seen.last_txg())
        });
    }
    let (mut pool, plan) = Pool::import(&host::env(host::CACHE_BYTES), found.guid, devices, &options)?;
    if let Some(root) = back_to {
        context.note(&format!("pool '{}' was imported as of {root}", pool.name()));
    }
    for setting in settings {
        pool.set("", &setting.property, &setting.value)?;
    }
    let mut record = Record::new(pool.name(), pool.guid(), session::paths(&pool));
    record.folders = args.dir.iter().filter(|dir| dir.is_dir()).map(absolute).collect::<Outcome<_>>()?;
    record.read_only = options.read_only;
    if options.read_only {
        record.root = (options.rewind || options.txg.is_some()).then(|| pool.last_txg().0);
        record.checkpoint = options.checkpoint;
        record.forced = options.force;
    }
    context.state.save(&record)?;
    if !options.read_only {
        context.state.note_session(pool.guid(), pool.session());
        pool.log_history(&context.command_line)?;
        pool.flush()?;
        eventlog::keep(&mut pool, &context.state);
    }
    if rewinds && !context.json { Ok(()) } else { context.done(&plan) }
}

/// Opens the members of a pool for use.
fn lock_members(found: &FoundPool, members: Vec<Member>, access: Access) -> Outcome<Vec<NewDevice>> {
    let mut devices = Vec::new();
    for member in members.into_iter().filter(|member| member.label.pool_guid == found.guid) {
        devices.extend(open::member(&member.path, access)?);
    }
    Ok(devices)
}

/// The full path of a folder.
fn absolute(path: &PathBuf) -> Outcome<PathBuf> {
    std::path::absolute(path).map_err(Failure::io(format!("find {}", path.display())))
}

/// `coffer export`.
///
/// # Errors
/// It is being served, or its last commit fails.
pub(super) fn export(context: &Context, args: &args::OnePool) -> Outcome {
    let pool = names::pool(&args.pool)?;
    let session = match session::open(&context.state, &pool, Mode::Change, &context.command_line) {
        Ok(session) => Some(session),
        // What is gone for good must not keep its name for ever; nothing is to be written to it.
        Err(Failure::Pool(error)) => {
            context.note(&format!("pool '{pool}' is given up as it is, not marked as exported: {error}"));
            None
        }
        Err(other) => return Err(other),
    };
    // The record as it is now, with the devices where they were last seen.
    let mut record = context.state.find(&pool)?;
    match session {
        Some(session) if record.read_only => session.close()?,
        Some(session) => session.give_up(&Request::Export)?,
        None => {}
    }
    record.exported = true;
    record.offline.clear();
    record.read_only = false;
    (record.root, record.checkpoint, record.forced) = (None, false, false);
    context.state.save(&record)
}

/// `coffer labelclear`.
///
/// # Errors
/// The device belongs to a pool in use, or, without `-f`, to one that was not exported.
pub(super) fn labelclear(context: &Context, args: &args::Labelclear) -> Outcome {
    let path = open::resolve(&args.device)?;
    let device = FileDevice::open(&path, Access::ReadWrite)?;
    if let Some(label) = Pool::examine(&device)? {
        let identity = device.identity();
        let member = context.state.in_use()?.into_iter().find(|record| {
            record.guid == label.pool_guid
                && record.devices.iter().any(|other| device::identity(other).ok() == identity)
        });
        if let Some(record) = member {
            return Err(Failure::refused(format!(
                "{} is part of pool '{}', which is in use",
                path.display(),
                record.name
            )));
        }
    }
    Ok(Pool::label_clear(&device, args.force)?)
}
