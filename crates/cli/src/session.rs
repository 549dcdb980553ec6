//! A command's way to a pool: through the process that holds it, or by taking it itself for a moment.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use device::Access;
use pool::spec::{ImportOptions, NewDevice};
use pool::types::{Guid, Txg};
use pool::{Pool, PoolError};
use protocol::request::{Reply, Request};

use crate::control::{Client, Connected, connect};
use crate::error::{Failure, Outcome};
use crate::eventlog;
use crate::execute::execute;
use crate::host;
use crate::open;
use crate::state::{PoolLock, Record, State};

/// How long a pool that another command has for a moment is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What a command wants to do with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Look: nothing is written to the devices.
    Look,
    /// Change it.
    Change,
}

/// A pool that this process holds.
pub(crate) struct LocalPool {
    // Fields drop in this order: the pool's devices are closed before the right to hold it is given up.
    pool: Pool,
    lock: PoolLock,
    record: Record,
    state: State,
}

/// A way to a pool.
pub(crate) enum Session {
    /// It is held by this process.
    Local(Box<LocalPool>),
    /// It is held by another one.
    Remote(Client),
}

impl LocalPool {
    /// A pool that was just made.
    #[cfg(test)]
    pub(crate) fn new(pool: Pool, lock: PoolLock, record: Record, state: State) -> Self {
        Self { pool, lock, record, state }
    }

    /// What a holder needs.
    pub(crate) fn into_parts(self) -> (Pool, PoolLock, Record, State) {
        (self.pool, self.lock, self.record, self.state)
    }

    /// Opens a remembered pool.
    fn open(mut record: Record, lock: PoolLock, state: State, mode: Mode, cache_bytes: u64) -> Outcome<Self> {
        let read_only = mode == Mode::Look || record.read_only;
        let access = if read_only { Access::ReadOnly } else { Access::ReadWrite };
        let devices = open::known_members(&record, access).map_err(|error| in_use(&record.name, error))?;
        let here = record.boot == host::boot();
        let offline = if here { record.offline.clone() } else { Vec::new() };
        // A read-only import leaves no trace on the devices: each command does as it did.
        let (txg, checkpoint, force) = (record.root.map(Txg), record.checkpoint, record.forced);
        let host = host::host();
        let options =
            ImportOptions { read_only, host, offline, txg, checkpoint, force, ..ImportOptions::default() };
        let engine = |devices: Vec<NewDevice>, options: &ImportOptions| {
            Pool::import(&host::env(cache_bytes), record.guid, devices, options)
        };
        // Devices that were used elsewhere meanwhile are left alone, if without them this is what was used here.
        let import = |options: &ImportOptions| {
            engine(devices.clone(), options).or_else(|error| {
                let ours = used_here(&state, record.guid, &devices, options);
                ours.and_then(|ours| engine(ours, options).ok()).ok_or(error)
            })
        };
        let imported = match import(&options) {
            // What was taken out for a while is needed now.
            Err(_) if !options.offline.is_empty() => {
                import(&ImportOptions { offline: Vec::new(), ..options.clone() })
            }
            other => other,
        };
        let (pool, _) = imported.map_err(|error| match error {
            PoolError::NotFound { .. } => none_there(&record),
            other => other,
        })?;
        if !read_only {
            state.note_session(record.guid, pool.session());
            // A command that was killed may have changed the devices and not have come to say so.
            remember(&pool, &mut record, &state)?;
        }
        Ok(Self { pool, lock, record, state })
    }
}

/// Of the devices of a pool in use those that were last used from here, if there are others: these have another history,
/// and did not go on from where those are.
fn used_here(
    state: &State,
    guid: Guid,
    devices: &[NewDevice],
    options: &ImportOptions,
) -> Option<Vec<NewDevice>> {
    let last = state.last_session(guid)?;
    let session = |new: &NewDevice| Pool::examine(&*new.device).ok().flatten().map(|label| label.session);
    let (ours, theirs): (Vec<NewDevice>, Vec<NewDevice>) =
        devices.iter().cloned().partition(|new| session(new) == Some(last));
    if ours.is_empty() || theirs.is_empty() {
        return None;
    }
    let look = ImportOptions { read_only: true, force: true, ..options.clone() };
    let went_on = Pool::import(&host::env(host::CACHE_BYTES), guid, theirs, &look);
    let went_on = went_on.is_ok_and(|(pool, _)| pool.went_through(last));
    (!went_on).then_some(ours)
}

/// Says that nothing is left of a pool.
fn none_there(record: &Record) -> PoolError {
    let paths: Vec<String> = record.devices.iter().map(|path| path.display().to_string()).collect();
    PoolError::refused(format!(
        "none of the devices of pool '{}' is there: {}",
        record.name,
        paths.join(", ")
    ))
}

/// Says which pool it is whose device another process has.
fn in_use(name: &str, error: Failure) -> Failure {
    match error {
        Failure::Device(error) => Failure::refused(format!("pool '{name}' is in use elsewhere: {error}")),
        other => other,
    }
}

/// What precedes an administrative change: a note of the devices that it brings in, so that they are found
/// should this process be killed between the change and [`after_change`].
///
/// # Errors
/// The state folder's.
pub(crate) fn before_change(request: &Request, record: &mut Record, state: &State) -> Outcome {
    let joining: Vec<PathBuf> =
        request.brings_in().iter().filter_map(|word| open::resolve(word).ok()).collect();
    if joining.is_empty() {
        return Ok(());
    }
    record.joining = joining;
    state.save(record)
}

/// What follows an administrative change: the history, and the record of where the devices are.
///
/// # Errors
/// The engine's, or the state folder's.
pub(crate) fn after_change(pool: &mut Pool, record: &mut Record, state: &State, command: &str) -> Outcome {
    pool.log_history(command)?;
    remember(pool, record, state)
}

/// Writes down which devices a pool has now and where they are, if that is not what is remembered.
fn remember(pool: &Pool, record: &mut Record, state: &State) -> Outcome {
    let devices = paths(pool);
    let known = pool.device_paths();
    let offline: Vec<_> = known.iter().filter(|known| known.temporary).map(|known| known.guid).collect();
    let same = devices == record.devices && record.name == pool.name() && offline == record.offline;
    if !same || !record.joining.is_empty() {
        record.devices = devices;
        record.joining.clear();
        record.boot = host::boot();
        record.offline = offline;
        pool.name().clone_into(&mut record.name);
        state.save(record)?;
    }
    Ok(())
}

/// Destroys a pool: it is once its record says so, and its labels go after that. Gives it back on failure.
///
/// # Errors
/// The engine's, or the state folder's.
pub(crate) fn destroy(pool: Pool, record: &mut Record, state: &State) -> Result<(), Box<(Pool, Failure)>> {
    if pool.read_only() {
        return Pool::destroy(pool).map_err(engine);
    }
    record.devices = paths(&pool);
    record.destroyed = true;
    if let Err(error) = state.save(record) {
        record.destroyed = false;
        return Err(Box::new((pool, error)));
    }
    Pool::destroy(pool).map_err(|failed| {
        record.destroyed = false;
        let saved = state.save(record);
        let (pool, error) = *engine(failed);
        Box::new((pool, saved.err().unwrap_or(error)))
    })
}

/// A failure of the engine that gives the pool back.
pub(crate) fn engine(failed: Box<(Pool, PoolError)>) -> Box<(Pool, Failure)> {
    Box::new((failed.0, failed.1.into()))
}

/// Where the devices of a pool are.
pub(crate) fn paths(pool: &Pool) -> Vec<PathBuf> {
    pool.device_paths().into_iter().map(|known| PathBuf::from(known.path)).collect()
}

/// Finds the way to a pool. `command` is the command line, for the history.
///
/// # Errors
/// There is no such pool, another process has it for long without answering, or it can't be opened.
pub(crate) fn open(state: &State, name: &str, mode: Mode, command: &str) -> Outcome<Session> {
    open_with_cache(state, name, mode, command, host::CACHE_BYTES)
}

/// As [`open`], with a read cache of some size should this process hold the pool.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with_cache(
    state: &State,
    name: &str,
    mode: Mode,
    command: &str,
    cache_bytes: u64,
) -> Outcome<Session> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Looked up anew each time: the pool may be exported while we wait.
        let record = state.find(name)?;
        if let Connected::Holder(client) = connect(&state.socket(record.guid), command)? {
            return Ok(Session::Remote(client));
        }
        match state.lock_pool(record.guid)? {
            Ok(lock) => {
                // Between the look-up and the lock it may have been exported or its devices may have changed.
                let record = state.find(name)?;
                let local = LocalPool::open(record, lock, state.clone(), mode, cache_bytes)?;
                return Ok(Session::Local(Box::new(local)));
            }
            Err(pid) if Instant::now() > deadline => {
                return Err(Failure::refused(format!("pool '{name}' is in use by process {pid}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

impl Session {
    /// Asks something that has no payload.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn call(&mut self, request: &Request, command: &str) -> Outcome<Reply> {
        self.call_with(request, &[], command).map(|(reply, _)| reply)
    }

    /// Asks something.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn call_with(
        &mut self,
        request: &Request,
        payload: &[u8],
        command: &str,
    ) -> Outcome<(Reply, Vec<u8>)> {
        match self {
            Self::Remote(client) => client.call(request, payload),
            Self::Local(local) => {
                before_change(request, &mut local.record, &local.state)?;
                let mut answer = execute(&mut local.pool, request, payload, &local.state)?;
                // Opened read-only to look at it, it is not therefore a read-only pool.
                if let Reply::Properties(rows) = &mut answer.0
                    && !local.record.read_only
                {
                    rows.iter_mut()
                        .filter(|row| row.property == "readonly")
                        .for_each(|row| "off".clone_into(&mut row.value));
                }
                if request.is_administrative() {
                    after_change(&mut local.pool, &mut local.record, &local.state, command)?;
                }
                Ok(answer)
            }
        }
    }

    /// Gives the pool up for good: it is exported, or destroyed.
    ///
    /// # Errors
    /// The engine's; the pool is then as before.
    pub(crate) fn give_up(self, request: &Request) -> Outcome {
        match self {
            Self::Remote(mut client) => client.call(request, &[]).map(drop),
            Self::Local(local) => {
                let (pool, _lock, mut record, state) = local.into_parts();
                let done = match request {
                    Request::Export => Pool::export(pool).map_err(engine),
                    _ => destroy(pool, &mut record, &state),
                };
                done.map_err(|failed| failed.1)
            }
        }
    }

    /// Ends it: what was done is committed.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn close(self) -> Outcome {
        match self {
            Self::Local(mut local) if !local.pool.read_only() => {
                let flushed = local.pool.flush();
                eventlog::keep(&mut local.pool, &local.state);
                Ok(flushed?)
            }
            _ => Ok(()),
        }
    }
}
