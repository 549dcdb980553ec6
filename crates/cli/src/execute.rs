//! Carries out requests on a pool that this process holds.

use std::path::Path;

use device::Access;
use pool::report::{Forecast, Plan};
use pool::spec::{BalanceSpec, GroupKind, GroupSpec, NewDevice, VolumeSpec};
use pool::{DevicePath, Pool, PoolError, ReplaceOptions, ScrubAction};
use protocol::MAX_TRANSFER;
use protocol::request::{Change, Reply, Request, Scrub};

use crate::error::{Failure, Outcome};
use crate::eventlog;
use crate::open;
use crate::state::State;
use crate::vdevs;

/// Most runs told at once.
const MAX_RUNS: usize = 4096;

/// Carries out one request. `payload` is what a write writes; what a read reads is returned beside the reply.
///
/// # Errors
/// The engine's, or of opening devices. Nothing was changed then, but for requests on several devices, which
/// tell how far they came.
pub(crate) fn execute(
    pool: &mut Pool,
    request: &Request,
    payload: &[u8],
    state: &State,
) -> Outcome<(Reply, Vec<u8>)> {
    if let Request::Read { name, offset, length } = request {
        if *length as usize > MAX_TRANSFER {
            return Err(Failure::refused(format!("a read of {length} bytes is too long")));
        }
        let id = pool.open(name)?;
        let mut data = vec![0; *length as usize];
        pool.read(id, *offset, &mut data)?;
        return Ok((Reply::Data, data));
    }
    execute_plain(pool, request, payload, state).map(|reply| (reply, Vec::new()))
}

/// All requests but reads.
fn execute_plain(pool: &mut Pool, request: &Request, payload: &[u8], state: &State) -> Outcome<Reply> {
    let done = |()| Reply::Done;
    Ok(match request {
        Request::Status => Reply::Status(Box::new(pool.status())),
        Request::Usage => Reply::Usage(Box::new(pool.usage())),
        Request::Row => Reply::Row(pool.pool_row()),
        Request::Datasets => Reply::Datasets(pool.list()?),
        Request::Map => Reply::Map { chunks: pool.map(), remapped: pool.relocated() },
        Request::History => Reply::History(pool.history()?),
        Request::Events { after } => Reply::Events(eventlog::since(pool, state, *after)),
        Request::WhatIf { failed, any } => Reply::WhatIf(Box::new(pool.what_if(failed, *any)?)),
        Request::Check => Reply::Check(pool.check()?),
        Request::Scan => {
            Reply::Scan { scan: pool.scan(), busy: pool.has_work(), suspended: pool.suspended() }
        }
        Request::Get { name, property } => Reply::Properties(pool.get(name, property.as_deref())?),
        Request::Set { name, property, value } => pool.set(name, property, value).map(done)?,
        Request::VolumeCreate { name, size, block_size, sparse, settings } => {
            let (size, block_size, sparse) = (*size, *block_size, *sparse);
            let spec = VolumeSpec { size, block_size, sparse, properties: settings.clone() };
            pool.volume_create(name, &spec).map(done)?
        }
        Request::VolumeResize { name, size } => pool.volume_resize(name, *size).map(done)?,
        Request::DatasetDestroy { name } if name.contains('@') => pool.snapshot_destroy(name).map(done)?,
        Request::DatasetDestroy { name } => {
            refuse_snapshots(pool, name)?;
            pool.volume_destroy(name).map(done)?
        }
        Request::Snapshot { name } => pool.snapshot(name).map(done)?,
        Request::Rollback { name } => pool.rollback(name).map(done)?,
        Request::VolumeInfo { name } => {
            let id = pool.open(name)?;
            let info = pool.volume_info(id)?;
            Reply::Volume { size: info.size, block_size: info.block_size, read_only: info.read_only }
        }
        Request::Write { name, offset } => {
            let id = pool.open(name)?;
            pool.write(id, *offset, payload).map(done)?
        }
        Request::Discard { name, offset, length } => {
            let id = pool.open(name)?;
            pool.discard(id, *offset, *length).map(done)?
        }
        Request::Runs { name, offset, length } => {
            let id = pool.open(name)?;
            Reply::Runs(pool.runs(id, *offset, *length, MAX_RUNS)?)
        }
        Request::Flush => pool.flush().map(done)?,
        Request::Forecast { change } => Reply::Forecast(Box::new(forecast(pool, change, state)?)),
        Request::Add { vdevs, force, dry_run } => {
            let groups = added(pool, vdevs, *force, state)?;
            let plan = if *dry_run { pool.plan_add(&groups, *force) } else { pool.add(&groups, *force) };
            Reply::Plan(plan?)
        }
        Request::Attach { device, new, force } => {
            refuse_own(pool, new)?;
            Reply::Plan(pool.attach(device, &open::new_word(new, *force, state)?)?)
        }
        Request::Detach { device } => Reply::Plan(pool.detach(device)?),
        Request::Remove { devices, dry_run } => {
            Reply::Plan(if *dry_run { pool.plan_remove(devices)? } else { pool.remove(devices)? })
        }
        Request::Convert { vdev, kind, force, dry_run } => {
            let kind = kind_of(kind)?;
            let plan = if *dry_run {
                pool.plan_convert(vdev, kind, *force)
            } else {
                pool.convert(vdev, kind, *force)
            };
            Reply::Plan(plan?)
        }
        Request::Resize { device, to, dry_run } => {
            Reply::Plan(if *dry_run { pool.plan_resize(device, *to)? } else { pool.resize(device, *to)? })
        }
        Request::Replace { device, new, force, source_last } => {
            let options = ReplaceOptions { read_source_last: *source_last };
            let new = successor(pool, device, new.as_ref())?;
            Reply::Plan(match spare_named(pool, &new) {
                Some(spare) => pool.replace_by_spare(device, &spare, options)?,
                None => pool.replace(device, &open::new_word(&new, *force, state)?, options)?,
            })
        }
        Request::Offline { devices, temporary } => {
            Reply::Plan(each(devices, |device| Ok(pool.offline(device, *temporary)?))?)
        }
        Request::Online { devices, expand } => {
            Reply::Plan(each(devices, |device| online(pool, device, *expand))?)
        }
        Request::Clear { device } => {
            reopen(pool);
            pool.clear(device.as_deref()).map(done)?
        }
        Request::Balance => Reply::Balance(pool.balance().map(Box::new)),
        Request::BalanceStart { spec, dry_run: true } => Reply::BalancePlan(pool.plan_balance(spec)?),
        Request::BalanceStart { spec, dry_run: false } => {
            pool.balance_start(BalanceSpec::clone(spec))?;
            Reply::Balance(pool.balance().map(Box::new))
        }
        Request::BalanceControl { action } => pool.balance_control(*action).map(done)?,
        Request::Checkpoint => pool.checkpoint().map(done)?,
        Request::CheckpointDiscard => pool.checkpoint_discard().map(done)?,
        Request::Scrub { action } => pool.scrub(scrub_action(*action)).map(done)?,
        Request::Read { .. }
        | Request::Export
        | Request::Destroy { .. }
        | Request::Serve { .. }
        | Request::Raid { .. } => {
            return Err(Failure::refused("this request is not for the engine"));
        }
    })
}

/// Does a step on each device, and says how far it came if one fails.
fn each(devices: &[String], mut step: impl FnMut(&str) -> Outcome<Plan>) -> Outcome<Plan> {
    let mut all = Plan::default();
    for (done, device) in devices.iter().enumerate() {
        match step(device) {
            Ok(plan) => {
                all.steps.extend(plan.steps);
                all.notices.extend(plan.notices);
            }
            Err(error) if done == 0 => return Err(error),
            Err(error) => {
                let before = devices[..done].join(", ");
                return Err(Failure::refused(format!("{error} (done before: {before})")));
            }
        }
    }
    Ok(all)
}

/// The device of the pool that a word means: by path, by the last part of it, by guid, or by leading to the same bytes.
fn known(pool: &Pool, word: &str) -> Option<DevicePath> {
    let mut paths = pool.device_paths();
    let bare = |known: &DevicePath| Path::new(&known.path).file_name().is_some_and(|name| name == word);
    let same = |known: &DevicePath| {
        let id = device::identity(Path::new(word));
        id.is_ok() && id == device::identity(Path::new(&known.path))
    };
    let exact = |known: &DevicePath| known.path == word || known.guid.to_string() == word;
    let found = paths.iter().position(exact).or_else(|| paths.iter().position(bare));
    let found = found.or_else(|| paths.iter().position(same).filter(|_| word.starts_with('/')));
    found.map(|index| paths.swap_remove(index))
}

/// Refuses a device that the pool has open already, unless it is a spare of it: opening it once more would only tell
/// that this very process holds it.
fn refuse_own(pool: &mut Pool, word: &str) -> Outcome {
    match own(pool, word) {
        Some(known) if spare_named(pool, &known.path).is_none() => Err(already_part(pool, word)),
        _ => Ok(()),
    }
}

/// The device that the pool has open and that a word for a new one leads to.
fn own(pool: &Pool, word: &str) -> Option<DevicePath> {
    let id = open::resolve(word).ok().and_then(|path| device::identity(&path).ok())?;
    let same = |known: &DevicePath| {
        known.is_open && device::identity(Path::new(&known.path)).is_ok_and(|own| own == id)
    };
    pool.device_paths().into_iter().find(same)
}

/// The groups that words make, none of them of devices that the pool has.
fn added(pool: &Pool, vdevs: &[String], force: bool, state: &State) -> Outcome<Vec<GroupSpec<NewDevice>>> {
    let groups = vdevs::parse(vdevs).map_err(|error| Failure::refused(error.to_string()))?;
    for word in groups.iter().flat_map(|group| &group.devices) {
        if let Some(known) = own(pool, word) {
            return Err(already_part(pool, &known.path));
        }
    }
    open::new_groups(&groups, force, state)
}

/// The kind of vdevs that a word means.
fn kind_of(word: &str) -> Outcome<GroupKind> {
    vdevs::kind(word).map_err(|error| Failure::refused(error.to_string()))
}

/// What a change comes to that the words of a command ask for.
fn forecast(pool: &mut Pool, change: &Change, state: &State) -> Outcome<Forecast> {
    Ok(match change {
        Change::Add { vdevs, force } => {
            let groups = added(pool, vdevs, *force, state)?;
            pool.forecast(&pool::Change::Add { groups: &groups, force: *force })?
        }
        Change::Remove { devices } => pool.forecast(&pool::Change::Remove { names: devices })?,
        Change::Convert { vdev, kind, force } => {
            pool.forecast(&pool::Change::Convert { name: vdev, kind: kind_of(kind)?, force: *force })?
        }
        Change::Replace { device, new, force } => {
            let new = successor(pool, device, new.as_ref())?;
            if let Some(spare) = spare_named(pool, &new) {
                pool.forecast(&pool::Change::ReplaceBySpare { name: device, spare: &spare })?
            } else {
                let new = open::new_word(&new, *force, state)?;
                pool.forecast(&pool::Change::Replace { name: device, new: &new })?
            }
        }
    })
}

/// What is to replace a device: what was named, or the disk that is at its path now.
fn successor(pool: &mut Pool, device: &str, new: Option<&String>) -> Outcome<String> {
    let new = new.cloned().or_else(|| path_of(pool, device)).unwrap_or_else(|| device.to_owned());
    refuse_own(pool, &new)?;
    Ok(new)
}

fn already_part(pool: &Pool, name: &str) -> Failure {
    Failure::refused(format!("{name} is part of pool '{}' already", pool.name()))
}

/// Where a device of the pool is, or was.
fn path_of(pool: &Pool, word: &str) -> Option<String> {
    known(pool, word).map(|known| known.path)
}

/// The spare of the pool that a word means.
fn spare_named(pool: &mut Pool, word: &str) -> Option<String> {
    let spares = pool.status().spares;
    // A distributed spare has no path and no guid.
    if spares.iter().any(|spare| spare.guid.0 == 0 && spare.name == word) {
        return Some(word.to_owned());
    }
    let known = known(pool, word)?;
    spares.iter().any(|spare| spare.guid == known.guid).then_some(known.path)
}

/// Takes a device back: opened anew at its path if it is not open.
fn online(pool: &mut Pool, device: &str, expand: bool) -> Outcome<Plan> {
    pool.let_go_of_dead();
    let opened = match known(pool, device) {
        Some(known) if !known.is_open => open::member(Path::new(&known.path), Access::ReadWrite)?,
        _ => None,
    };
    Ok(pool.online(device, opened.as_ref(), expand)?)
}

/// Takes back what is missing and has come back. What can't be opened or does not belong here stays missing.
fn reopen(pool: &mut Pool) {
    pool.let_go_of_dead();
    for known in pool.device_paths() {
        if !known.is_open
            && known.state != pool::report::State::Offline
            && let Ok(Some(device)) = open::member(Path::new(&known.path), Access::ReadWrite)
        {
            // A device that is not what it was is left alone; `status` tells that it is missing.
            let _ = pool.device_returned(&device);
        }
    }
}

/// The engine's word for it.
fn scrub_action(action: Scrub) -> ScrubAction {
    match action {
        Scrub::Start => ScrubAction::Start,
        Scrub::Pause => ScrubAction::Pause,
        Scrub::Stop => ScrubAction::Stop,
    }
}

/// Refuses to destroy a volume that has snapshots, and names them.
fn refuse_snapshots(pool: &mut Pool, name: &str) -> Outcome {
    let prefix = format!("{}/{name}@", pool.name());
    let rows = pool.list()?;
    let snapshots: Vec<&str> =
        rows.iter().map(|row| row.name.as_str()).filter(|row| row.starts_with(&prefix)).collect();
    if snapshots.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "cannot destroy '{}/{name}': it has snapshots; destroy them first: {}",
        pool.name(),
        snapshots.join(", ")
    )))
}

/// Whether an error says that too many devices are gone for now.
pub(crate) fn is_suspended(error: &PoolError) -> bool {
    matches!(error, PoolError::Suspended)
}
