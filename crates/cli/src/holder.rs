//! A process that holds a pool for longer than a moment: a server, or a command that waits for a job.
//!
//! The pool sits behind one lock ([`Shared`]). Served volumes and control clients take it for one request at
//! a time; the ticker takes it for one bounded step of background work at a time, and after each step lets all
//! go first who were waiting. Commits write without the lock ([`pool::Held`]), for which there is a thread. Missing devices
//! are looked for now and then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use device::Access;
use pool::report::State as Health;
use pool::types::DatasetId;
use pool::{Guard, Held, Pool, PoolError};
use protocol::request::{Call, Reply, Request};

use crate::control::{Connection, ControlServer, Handler};
use crate::error::{Failure, Outcome};
use crate::eventlog;
use crate::execute::execute;
use crate::open;
use crate::progress::Progress;
use crate::serve;
use crate::session::{self, LocalPool};
use crate::state::{PoolLock, Record, State};

/// Bytes of background work done under the lock at a time.
const STEP_BYTES: u64 = 4 << 20;
/// Pause of the ticker when there is nothing to do.
const IDLE_PAUSE: Duration = Duration::from_millis(50);
/// A step that takes less has done nothing, and the pause after it.
const SHORT_STEP: Duration = Duration::from_micros(20);
const SHORT_PAUSE: Duration = Duration::from_millis(2);
/// Pause of the ticker after a failure.
const FAILURE_PAUSE: Duration = Duration::from_millis(500);
/// How often missing devices are looked for.
const REOPEN_EVERY: Duration = Duration::from_secs(2);

/// A pool and those who use it.
pub(crate) struct Shared {
    /// Its name.
    pub(crate) name: String,
    held: Held,
    /// Who waits for the lock, the ticker not counted.
    waiting: AtomicUsize,
    /// How often the lock was taken, the ticker not counted.
    taken: AtomicU64,
    /// Counts administrative changes, so that who caches something knows when to look again.
    changes: AtomicU64,
    /// The pool was given up, or is about to be.
    ended: AtomicBool,
    /// Why the last step failed.
    trouble: Mutex<Option<String>>,
    /// Served volumes and snapshots, and how often.
    served: Mutex<BTreeMap<String, usize>>,
    /// Whether it may serve on behalf of other commands.
    serves: bool,
    state: State,
    record: Mutex<Record>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A pool was given up while somebody wanted it.
fn given_up(name: &str) -> Failure {
    Failure::refused(format!("the pool '{name}' is no longer in use here"))
}

impl Shared {
    /// Runs `step` on the pool.
    ///
    /// # Errors
    /// The pool was given up, or what `step` says.
    pub(crate) fn with<T>(&self, step: impl FnOnce(&mut Pool) -> Outcome<T>) -> Outcome<T> {
        let mut guard = self.enter();
        match guard.as_mut() {
            Some(pool) => step(pool),
            None => Err(given_up(&self.name)),
        }
    }

    /// As [`Self::with`] for one call of the engine; `None` once the pool was given up.
    pub(crate) fn engine<T>(&self, step: impl FnOnce(&mut Pool) -> T) -> Option<T> {
        self.enter().as_mut().map(step)
    }

    /// Reads of a volume or snapshot; `None` once the pool was given up.
    pub(crate) fn read(
        &self,
        id: DatasetId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Option<Result<(), PoolError>> {
        self.held.read(|| self.enter(), id, offset, buffer)
    }

    /// Writes to a volume; `None` once the pool was given up.
    pub(crate) fn write(&self, id: DatasetId, offset: u64, data: &[u8]) -> Option<Result<(), PoolError>> {
        self.held.write(self.enter(), id, offset, data)
    }

    /// Returns once everything accepted so far is durable; `None` once the pool was given up.
    pub(crate) fn flush(&self) -> Option<Result<(), PoolError>> {
        self.held.flush(self.enter())
    }

    /// Takes the lock, counted so that the ticker lets us go first.
    fn enter(&self) -> Guard<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.held.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.taken.fetch_add(1, Ordering::SeqCst);
        guard
    }

    /// Counts up with every administrative change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether the pool was given up or is about to be.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Notes that a volume or snapshot is served, until the guard goes.
    pub(crate) fn note_served(self: &Arc<Self>, dataset: &str) -> Served {
        *self.served().entry(dataset.to_owned()).or_default() += 1;
        Served { shared: Arc::clone(self), dataset: dataset.to_owned() }
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a request, logs it, and remembers what is new about the devices.
    pub(crate) fn call(&self, request: &Request, payload: &[u8], command: &str) -> Outcome<(Reply, Vec<u8>)> {
        match request {
            Request::Export => {
                let export = |pool| Pool::export(pool).map_err(session::engine);
                return self.give_up(false, export).map(|()| (Reply::Done, Vec::new()));
            }
            Request::Destroy { force } => {
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let destroy = |pool| session::destroy(pool, &mut record, &self.state);
                return self.give_up(*force, destroy).map(|()| (Reply::Done, Vec::new()));
            }
            Request::Flush => {
                self.flush().ok_or_else(|| given_up(&self.name))??;
                return Ok((Reply::Done, Vec::new()));
            }
            _ => {}
        }
        if let Some(dataset) = request.takes_away()
            && self.served().contains_key(dataset)
        {
            let (name, pid) = (&self.name, std::process::id());
            return Err(Failure::refused(format!("{name}/{dataset} is busy: process {pid} serves it")));
        }
        self.with(|pool| {
            let record = || self.record.lock().unwrap_or_else(PoisonError::into_inner);
            session::before_change(request, &mut record(), &self.state)?;
            let answer = execute(pool, request, payload, &self.state)?;
            if request.is_administrative() {
                self.changes.fetch_add(1, Ordering::Relaxed);
                let mut record = record();
                session::after_change(pool, &mut record, &self.state, command)?;
            }
            Ok(answer)
        })
    }

    /// Exports or destroys the pool, after which the holder ends.
    fn give_up(&self, force: bool, how: impl FnOnce(Pool) -> Result<(), Box<(Pool, Failure)>>) -> Outcome {
        let served: Vec<String> = self.served().keys().cloned().collect();
        if !served.is_empty() && !force {
            let pid = std::process::id();
            return Err(Failure::refused(format!(
                "pool '{}' is busy: process {pid} serves {}; stop it first",
                self.name,
                served.join(", ")
            )));
        }
        let mut guard = self.enter();
        let Some(pool) = guard.take() else { return Err(given_up(&self.name)) };
        match how(pool) {
            Ok(()) => {
                self.ended.store(true, Ordering::SeqCst);
                Ok(())
            }
            Err(failed) => {
                let (pool, error) = *failed;
                *guard = Some(pool);
                Err(error)
            }
        }
    }

    /// Where background work stands.
    pub(crate) fn progress(&self) -> Outcome<Progress> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.with(|pool| {
            let trouble = trouble.or_else(|| pool.suspended().then(|| PoolError::Suspended.to_string()));
            Ok(Progress { scan: pool.scan(), busy: pool.has_work(), trouble })
        })
    }

    /// One bounded step of background work; true if there is more to do now.
    fn step(&self) -> Option<Result<bool, PoolError>> {
        let mut guard = self.held.lock();
        if guard.as_ref()?.commit_due() {
            let (back, outcome) = self.held.commit(guard);
            guard = back;
            if let Err(error) = outcome {
                return Some(Err(error));
            }
        }
        guard.as_mut().map(|pool| {
            let outcome = pool.tick(STEP_BYTES);
            eventlog::keep(pool, &self.state);
            outcome
        })
    }

    /// Waits until everyone who waited for the lock a moment ago has had it.
    fn let_others_in(&self) {
        let waiting = self.waiting.load(Ordering::SeqCst) as u64;
        let until = self.taken.load(Ordering::SeqCst) + waiting;
        let patience = Instant::now() + Duration::from_millis(20);
        while self.taken.load(Ordering::SeqCst) < until
            && self.waiting.load(Ordering::SeqCst) > 0
            && Instant::now() < patience
        {
            thread::yield_now();
        }
    }

    /// Looks for devices that are missing. They are opened outside of the lock, as that may take long.
    fn look_for_missing(&self) {
        let paths = self.engine(|pool| {
            // While requests wait, a device that is open and dead must not hide that it is there again.
            if pool.suspended() {
                pool.let_go_of_dead();
            }
            pool.device_paths()
        });
        let paths = paths.unwrap_or_default();
        for known in paths.iter().filter(|known| !known.is_open && known.state != Health::Offline) {
            if let Ok(Some(device)) = open::member(known.path.as_ref(), Access::ReadWrite) {
                // One that does not belong here, or not any more, is left alone: `status` goes on telling that it is missing.
                let _ = self.engine(|pool| {
                    let back = pool.device_returned(&device)?;
                    // Whoever waits for devices is let go on; if there are still too few, this fails and they wait on.
                    if back && pool.suspended() { pool.clear(None).map(|()| back) } else { Ok(back) }
                });
            }
        }
    }

    /// The ticker's thread.
    fn work(&self) {
        let mut looked = Instant::now();
        while !self.has_ended() {
            if looked.elapsed() >= REOPEN_EVERY {
                self.look_for_missing();
                looked = Instant::now();
            }
            let began = Instant::now();
            let (trouble, pause) = match self.step() {
                None => return,
                // A step that took no time was held back by a rate limit.
                Some(Ok(true)) => (None, (began.elapsed() < SHORT_STEP).then_some(SHORT_PAUSE)),
                Some(Ok(false)) => (None, Some(IDLE_PAUSE)),
                Some(Err(error)) => (Some(error.to_string()), Some(FAILURE_PAUSE)),
            };
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
            match pause {
                Some(pause) => thread::park_timeout(pause),
                None => self.let_others_in(),
            }
        }
    }
}

/// A note that something is served.
#[derive(Debug)]
pub(crate) struct Served {
    shared: Arc<Shared>,
    dataset: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut served = self.shared.served();
        if let Some(count) = served.get_mut(&self.dataset) {
            *count -= 1;
            if *count == 0 {
                served.remove(&self.dataset);
            }
        }
    }
}

/// Holds a pool until it is stopped.
pub(crate) struct Holder {
    shared: Arc<Shared>,
    control: Option<ControlServer>,
    ticker: Option<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    lock: Option<PoolLock>,
}

/// Answers control clients.
struct Answering(Arc<Shared>);

impl Handler for Answering {
    fn handle(&self, call: Call, payload: Vec<u8>, connection: &mut Connection) -> Outcome<(Reply, Vec<u8>)> {
        match call.request {
            Request::Serve { volumes, place } if self.0.serves => {
                let (export, lines) = serve::start(&[(Arc::clone(&self.0), volumes)], &place)?;
                connection.hold(export);
                Ok((Reply::Serving(lines), Vec::new()))
            }
            Request::Serve { .. } => Err(Failure::refused(format!(
                "process {} works on pool '{}' and will end then: wait for it or stop it",
                std::process::id(),
                self.0.name
            ))),
            request => self.0.call(&request, &payload, &call.command),
        }
    }
}

impl Holder {
    /// Begins to hold a pool: from now on other commands are answered and background work goes on.
    ///
    /// # Errors
    /// The control socket can't be made.
    pub(crate) fn start(local: LocalPool, serves: bool) -> Outcome<Self> {
        let (pool, lock, record, state) = local.into_parts();
        let (guid, name) = (pool.guid(), pool.name().to_owned());
        let shared = Arc::new(Shared {
            name,
            held: Held::new(pool),
            waiting: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            trouble: Mutex::new(None),
            served: Mutex::new(BTreeMap::new()),
            serves,
            state: state.clone(),
            record: Mutex::new(record),
        });
        let control = ControlServer::start(&state.socket(guid), Arc::new(Answering(Arc::clone(&shared))))?;
        let for_ticker = Arc::clone(&shared);
        let ticker = thread::Builder::new()
            .name("ticker".into())
            .spawn(move || for_ticker.work())
            .map_err(Failure::io("start a thread"))?;
        let for_committer = Arc::clone(&shared);
        let committer = thread::Builder::new()
            .name("committer".into())
            .spawn(move || for_committer.held.commit_behind())
            .map_err(Failure::io("start a thread"))?;
        let (ticker, committer) = (Some(ticker), Some(committer));
        Ok(Self { shared, control: Some(control), ticker, committer, lock: Some(lock) })
    }

    /// The pool.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Stops: clients are let go, what was written is committed, jobs stay where they are. The pool stays imported.
    ///
    /// # Errors
    /// The commit failed.
    pub(crate) fn stop(mut self) -> Outcome {
        self.wind_up()
    }

    fn wind_up(&mut self) -> Outcome {
        drop(self.control.take());
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            let _ = ticker.join();
        }
        let pool = self.shared.held.take();
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
        let outcome = match pool {
            Some(mut pool) if !pool.read_only() => {
                let flushed = pool.flush();
                eventlog::keep(&mut pool, &self.shared.state);
                flushed.map_err(Failure::from)
            }
            _ => Ok(()),
        };
        drop(self.lock.take());
        outcome
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // After `stop` there is nothing left to do; otherwise an error is on its way that matters more.
        let _ = self.wind_up();
    }
}
