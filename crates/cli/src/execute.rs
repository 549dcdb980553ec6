//! Carries out requests on a pool that this process holds.

use std::path::Path;

use device::Access;
use pool::report::Plan;
use pool::spec::VolumeSpec;
use pool::{Pool, PoolError, ReplaceOptions, ScrubAction};

use crate::error::{Failure, Outcome};
use crate::open;
use crate::request::{Reply, Request, Scrub};
use crate::state::State;
use crate::vdevs;

/// Most bytes of one read or write.
pub(crate) const MAX_TRANSFER: usize = 8 << 20;
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
        Request::Datasets => Reply::Datasets(pool.datasets()?),
        Request::Map => Reply::Map(pool.map()),
        Request::History => Reply::History(pool.history()?),
        Request::Events { after } => Reply::Events(pool.events(*after)),
        Request::Check => Reply::Check(pool.check()?),
        Request::Scan => Reply::Scan(pool.scan()),
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
        Request::Add { vdevs, force, dry_run } => {
            let groups = open::new_groups(
                &vdevs::parse(vdevs).map_err(|error| Failure::refused(error.to_string()))?,
                *force,
                state,
            )?;
            let plan = if *dry_run { pool.plan_add(&groups, *force) } else { pool.add(&groups, *force) };
            Reply::Plan(plan?)
        }
        Request::Attach { device, new, force } => {
            Reply::Plan(pool.attach(device, open::new_word(new, *force, state)?, *force)?)
        }
        Request::Detach { device } => Reply::Plan(pool.detach(device)?),
        Request::Remove { devices } => Reply::Plan(each(devices, |device| Ok(pool.remove(device)?))?),
        Request::Replace { device, new, force, source_last } => {
            let new = new.as_ref().map(|word| open::new_word(word, *force, state)).transpose()?;
            let options = ReplaceOptions { force: *force, read_source_last: *source_last };
            Reply::Plan(pool.replace(device, new, options)?)
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
        Request::Scrub { action } => pool.scrub(scrub_action(pool, *action)).map(done)?,
        Request::Read { .. } | Request::Export | Request::Destroy { .. } | Request::Serve { .. } => {
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

/// Takes a device back: opened anew at its path if it is not open.
fn online(pool: &mut Pool, device: &str, expand: bool) -> Outcome<Plan> {
    let paths = pool.device_paths();
    let bare = Path::new(device).file_name();
    let known = paths.iter().find(|known| {
        known.path == device
            || known.guid.to_string() == device
            || (!device.contains('/') && Path::new(&known.path).file_name() == bare)
            || (device.starts_with('/')
                && device::identity(Path::new(device))
                    .is_ok_and(|id| device::identity(Path::new(&known.path)).is_ok_and(|other| other == id)))
    });
    let opened = match known {
        Some(known) if !known.is_open => open::member(Path::new(&known.path), Access::ReadWrite)?,
        _ => None,
    };
    Ok(pool.online(device, opened, expand)?)
}

/// Takes back what is missing and has come back. What can't be opened or does not belong here stays missing.
pub(crate) fn reopen(pool: &mut Pool) {
    for known in pool.device_paths() {
        if !known.is_open
            && known.state != pool::report::State::Offline
            && let Ok(Some(device)) = open::member(Path::new(&known.path), Access::ReadWrite)
        {
            // A device that is not what it was is left alone; `status` tells that it is missing.
            let _ = pool.device_returned(device);
        }
    }
}

/// A paused scrub goes on where it was.
fn scrub_action(pool: &Pool, action: Scrub) -> ScrubAction {
    use pool::report::{ScanKind, ScanState};
    let paused =
        pool.scan().is_some_and(|scan| scan.kind == ScanKind::Scrub && scan.state == ScanState::Paused);
    match action {
        Scrub::Start if paused => ScrubAction::Resume,
        Scrub::Start => ScrubAction::Start,
        Scrub::Pause => ScrubAction::Pause,
        Scrub::Stop => ScrubAction::Stop,
    }
}

/// Refuses to destroy a volume that has snapshots, and names them.
fn refuse_snapshots(pool: &mut Pool, name: &str) -> Outcome {
    let prefix = format!("{}/{name}@", pool.name());
    let rows = pool.datasets()?;
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
