//! Balance: what lives in chunks is relocated, and the chunks are dropped.
//!
//! - this file: the job, one bounded step at a time, and what its user asks of it
//! - `filter`: which chunks it takes
//! - `relocate`: emptying a chunk without changing any pointer
//! - `columns`: moving the columns of a chunk, where the layout allows that, instead
//! - `remove`: the balance of what is on devices that leave the pool
//! - `resize`: the balance of what lies behind the new end of a device
//! - `reclaim`: chunks that are hardly used, emptied unasked
//! - `convert`: the balance of what a group has in its former layout
//!
//! A chunk that the filters take is *closed*: nothing is allocated in it any more. What lives in it is written to
//! other chunks, as part of an ordinary transaction group; its entries in the remap table lead there. Once nothing is
//! left in it and no importable root knows of anything in it, it is dropped like any empty chunk. Which chunk is being
//! emptied is part of the pool's state, so that a balance goes on where it was after a restart or a crash.

mod columns;
mod convert;
mod filter;
mod reclaim;
mod relocate;
mod remove;
mod resize;

pub(crate) use reclaim::Reclaim;

use geometry::Profile;
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, Class};
use crate::codec::{Reader, Writer};
use crate::core::Group;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::report::{BalanceClass, BalancePlan, BalanceReport, ScanKind, ScanReport, ScanState};
use crate::spec::{BalanceFilters, BalanceSpec, GroupKind, Task};
use crate::txg::ROOTS_KEPT;
use crate::types::{DeviceId, Logical, Millis};

/// What to do about a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalanceAction {
    /// Keep its place.
    Pause,
    /// Go on with one that is paused.
    Resume,
    /// Give it up. The chunk that is being emptied stays closed.
    Cancel,
}

/// The classes, as filters are given for them.
const CLASSES: [Class; 3] = [Class::Data, Class::Metadata, Class::System];

/// Chunks that one step goes through at most.
const CHUNKS_MAX: usize = 64;

/// Far behind any address that chunks come to, bytes.
const ADDRESS_MAX: u64 = 1 << 62;

/// What a step has relocated so far.
#[derive(Default)]
struct Moved {
    bytes: u64,
    /// Extents and nodes.
    things: u64,
}

/// One balance, going on or past.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    task: Task,
    state: ScanState,
    started: Millis,
    ended: Millis,
    /// Time that it ran, pauses left out.
    ran_ms: u64,
    /// Chunks before this have been considered.
    cursor: Logical,
    /// Chunks from here on were made since it began.
    end: Logical,
    /// The chunk that is being emptied, and from which byte of it on.
    current: Option<(Logical, u64)>,
    /// Chunks that passed the filters when it began, of all that there were.
    expected: u64,
    chunks: u64,
    /// Chunks that were looked at, and relocated.
    considered: u64,
    completed: u64,
    /// Chunks relocated of each class, for `limit`.
    taken: [u32; 3],
    /// Bytes relocated, and to be.
    done: u64,
    total: u64,
    /// Extents and nodes that can't be read and stay where they are.
    errors: u64,
    /// Why it stopped early.
    trouble: String,
}

impl BalanceSpec {
    /// The filters for a class, if its chunks are to be balanced. Those for metadata count for system chunks, too, unless
    /// these have their own, as in btrfs.
    fn of(&self, class: Class) -> Option<&BalanceFilters> {
        match class {
            Class::Data => self.data.as_ref(),
            Class::Metadata => self.metadata.as_ref(),
            Class::System => self.system.as_ref().or(self.metadata.as_ref()),
        }
    }
}

impl Task {
    /// As it is called in what users read.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Balance(_) => "balance",
            Self::Remove(_) => "removal",
            Self::Convert(_) => "conversion",
            Self::Resize { .. } => "resize",
        }
    }

    /// The first word of its events.
    const fn event(&self) -> &'static str {
        match self {
            Self::Balance(_) => "balance",
            Self::Remove(_) => "remove",
            Self::Convert(_) => "convert",
            Self::Resize { .. } => "resize",
        }
    }

    const fn kind(&self) -> ScanKind {
        match self {
            Self::Balance(_) => ScanKind::Balance,
            Self::Remove(_) => ScanKind::Remove,
            Self::Convert(_) => ScanKind::Convert,
            Self::Resize { .. } => ScanKind::Resize,
        }
    }

    /// Chunks of a class that it takes at least, or none, and at most.
    fn limit(&self, class: Class) -> Option<(u32, u32)> {
        match self {
            Self::Balance(spec) => spec.of(class)?.limit,
            Self::Remove(_) | Self::Convert(_) | Self::Resize { .. } => None,
        }
    }
}

impl Balance {
    fn encode(&self, w: &mut Writer) -> Result<()> {
        w.u8(self.state.code());
        let (at, within) = self.current.unwrap_or((Logical(u64::MAX), 0));
        let numbers = [
            self.started.0,
            self.ended.0,
            self.ran_ms,
            self.cursor.0,
            self.end.0,
            at.0,
            within,
            self.expected,
            self.chunks,
            self.considered,
            self.completed,
            self.done,
            self.total,
            self.errors,
        ];
        numbers.iter().for_each(|&number| w.u64(number));
        self.taken.iter().for_each(|&count| w.u32(count));
        w.text(&self.trouble);
        let task = serde_json::to_string(&self.task);
        w.text(&task.map_err(|error| PoolError::Corrupt(format!("a balance can't be told: {error}")))?);
        Ok(())
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let code = r.u8("state")?;
        let state =
            ScanState::from_code(code).ok_or_else(|| r.error("state", format!("{code} is not known")))?;
        let mut next = || r.u64("number");
        let (started, ended, ran_ms) = (Millis(next()?), Millis(next()?), next()?);
        let (cursor, end, at, within) = (Logical(next()?), Logical(next()?), Logical(next()?), next()?);
        let (expected, chunks, considered, completed) = (next()?, next()?, next()?, next()?);
        let (done, total, errors) = (next()?, next()?, next()?);
        if end.0 > ADDRESS_MAX {
            return Err(r.error("last address", format!("{end} is behind all addresses")).into());
        }
        let taken = [r.u32("count")?, r.u32("count")?, r.u32("count")?];
        let trouble = r.text("trouble")?;
        let text = r.text("task")?;
        let task = serde_json::from_str(&text).map_err(|error| r.error("task", error.to_string()))?;
        Ok(Self {
            task,
            state,
            started,
            ended,
            ran_ms,
            cursor,
            end,
            current: (at.0 != u64::MAX).then_some((at, within)),
            expected,
            chunks,
            considered,
            completed,
            taken,
            done,
            total,
            errors,
            trouble,
        })
    }

    fn report(&self) -> BalanceReport {
        let running = self.state == ScanState::Running;
        let rate =
            if self.ran_ms > 0 { (u128::from(self.done) * 1000 / u128::from(self.ran_ms)) as u64 } else { 0 };
        let left = self.total.saturating_sub(self.done);
        BalanceReport {
            state: self.state,
            started: self.started,
            ended: (!running).then_some(self.ended),
            expected: self.expected,
            chunks: self.chunks,
            considered: self.considered,
            completed: self.completed,
            done: self.done.min(self.total),
            total: self.total,
            errors: self.errors,
            rate,
            eta_seconds: (running && rate > 0).then(|| left.div_ceil(rate)),
            trouble: (!self.trouble.is_empty()).then(|| self.trouble.clone()),
            task: self.task.clone(),
        }
    }
}

impl Balance {
    /// As progress among scans.
    pub(crate) fn as_scan(&self) -> ScanReport {
        let report = self.report();
        ScanReport {
            kind: self.task.kind(),
            state: report.state,
            started: report.started,
            ended: report.ended,
            done: report.done,
            total: report.total,
            repaired: report.done,
            errors: report.errors,
            rate: report.rate,
            eta_seconds: report.eta_seconds,
        }
    }
}

impl Pool {
    /// The balance that is going on or paused, or the last one.
    pub fn balance(&self) -> Option<BalanceReport> {
        self.balance.as_ref().map(Balance::report)
    }

    /// What a balance would do.
    ///
    /// # Errors
    /// As [`Pool::balance_start`].
    pub fn plan_balance(&self, spec: &BalanceSpec) -> Result<BalancePlan> {
        self.check_balance(spec)?;
        let task = Task::Balance(Box::new(spec.clone()));
        let mut classes = Vec::new();
        let mut notes = Vec::new();
        for (index, class) in CLASSES.into_iter().enumerate() {
            let Some(filters) = spec.of(class) else { continue };
            let chunks: Vec<&Chunk> =
                self.matching(&task).filter(|(_, found)| *found == index).map(|(c, _)| c).collect();
            let most = filters.limit.map_or(usize::MAX, |(_, most)| most as usize);
            let taken = chunks.iter().take(most);
            let (count, bytes) =
                taken.fold((0, 0), |(count, bytes), chunk| (count + 1, bytes + self.live_in(chunk)));
            if let Some(target) = filters.convert {
                let before: std::collections::BTreeSet<String> =
                    chunks.iter().map(|chunk| self.profile_name(chunk)).collect();
                let before: Vec<String> = before.into_iter().collect();
                let from = if before.is_empty() { "nothing".to_owned() } else { before.join(" and ") };
                notes.push(format!(
                    "{}: from {from} to {target}; until a chunk is relocated it survives what it survives now",
                    class.name()
                ));
            }
            classes.push(BalanceClass { class: class.name().to_owned(), chunks: count, bytes });
        }
        Ok(BalancePlan { classes, notes })
    }

    /// Begins a balance.
    ///
    /// # Errors
    /// One is going on or paused, the filters contradict each other or name what is not there, or the target profile
    /// can't be satisfied, or protects less and `force` is not set.
    pub fn balance_start(&mut self, spec: BalanceSpec) -> Result<()> {
        self.writable()?;
        self.check_balance(&spec)?;
        self.commit()?;
        let mut groups_changed = false;
        for group in self.core.groups.values_mut().filter(|group| group.kind == GroupKind::Plain) {
            for (class, profile) in [(Class::Data, &mut group.data), (Class::Metadata, &mut group.metadata)] {
                if let Some(target) = spec.of(class).and_then(|filters| filters.convert) {
                    *profile = target;
                    groups_changed = true;
                }
            }
        }
        if groups_changed {
            self.core.space_changed();
            self.core.current_data.clear();
            self.core.current_nodes.clear();
            self.write_config()?;
        }
        let total = self.plan_balance(&spec)?.classes.iter().map(|class| class.bytes).sum();
        self.begin_task(Task::Balance(Box::new(spec)), total)
    }

    /// Begins a task that relocates so many bytes.
    fn begin_task(&mut self, task: Task, total: u64) -> Result<()> {
        let now = self.core.now();
        let what = task.event();
        self.balance = Some(Balance {
            state: ScanState::Running,
            started: now,
            ended: Millis(0),
            ran_ms: 0,
            cursor: Logical(0),
            end: Logical(self.core.next_address),
            current: None,
            expected: self.matching(&task).count() as u64,
            chunks: self.core.map.len() as u64,
            considered: 0,
            completed: 0,
            taken: [0; 3],
            done: 0,
            total,
            errors: 0,
            trouble: String::new(),
            task,
        });
        self.core.events.push(now, &format!("{what}_start"), None, format!("{what} started"));
        self.changed = true;
        self.commit()
    }

    /// Pauses, goes on with or gives up a balance.
    ///
    /// # Errors
    /// There is none, or it is not in such a state.
    pub fn balance_control(&mut self, action: BalanceAction) -> Result<()> {
        self.writable()?;
        let now = self.core.now();
        let Some(balance) = &mut self.balance else {
            return Err(PoolError::refused("there is no active balance"));
        };
        let (name, event) = (balance.task.name(), balance.task.event());
        let (next, done) = match (action, balance.state) {
            (BalanceAction::Pause, ScanState::Running) => (ScanState::Paused, "pause"),
            (BalanceAction::Resume, ScanState::Paused) => (ScanState::Running, "resume"),
            (BalanceAction::Cancel, ScanState::Running | ScanState::Paused) => (ScanState::Canceled, "abort"),
            (BalanceAction::Resume, ScanState::Running) => {
                return Err(PoolError::refused(format!("the {name} is running already")));
            }
            (BalanceAction::Pause, ScanState::Paused) => {
                return Err(PoolError::refused(format!("the {name} is paused already")));
            }
            _ => return Err(PoolError::refused("there is no active balance")),
        };
        balance.state = next;
        balance.ended = now;
        let task = balance.task.clone();
        if next == ScanState::Canceled {
            self.keep_devices(&task);
            self.reclaim_all();
        }
        self.core.events.push(now, &format!("{event}_{done}"), None, format!("{name} {done}"));
        self.changed = true;
        self.commit()
    }

    pub(crate) fn balances(&self) -> bool {
        self.balance.as_ref().is_some_and(|balance| balance.state == ScanState::Running)
    }

    /// Whether a task is under way, be it paused.
    pub(crate) fn has_task(&self) -> bool {
        self.check_no_task().is_err()
    }

    /// Refuses a second task beside one.
    fn check_no_task(&self) -> Result<()> {
        let Some(Balance { task, state, .. }) = &self.balance else { return Ok(()) };
        let how = match state {
            ScanState::Running => "running",
            ScanState::Paused => "paused",
            ScanState::Finished | ScanState::Canceled => return Ok(()),
        };
        Err(PoolError::refused(format!(
            "a {} is {how} already; let it end first, or cancel it with 'coffer balance cancel'",
            task.name()
        )))
    }

    fn check_balance(&self, spec: &BalanceSpec) -> Result<()> {
        self.check_no_task()?;
        if CLASSES.iter().all(|&class| spec.of(class).is_none()) {
            return Err(PoolError::refused("nothing is to be balanced: name a class"));
        }
        if spec.system.is_some() && !spec.force {
            return Err(PoolError::refused(
                "system chunks are balanced along with metadata; on their own only with -f",
            ));
        }
        for class in CLASSES {
            let Some(filters) = spec.of(class) else { continue };
            self.check_filters(filters)?;
            let Some(target) = filters.convert else { continue };
            let plain = self.core.groups.values().find(|group| group.kind == GroupKind::Plain);
            let Some(plain) = plain else {
                return Err(PoolError::refused("convert speaks of plain disks, and the pool has none"));
            };
            let (data, metadata) =
                if class == Class::Data { (Some(target), None) } else { (None, Some(target)) };
            crate::create::check_profiles(data, metadata, plain.devices.len())?;
            check_integrity(class, target, plain, spec)?;
        }
        let metadata = spec.metadata.as_ref().and_then(|filters| filters.convert);
        let system = spec.system.as_ref().and_then(|filters| filters.convert);
        if system.is_some() && system != metadata {
            return Err(PoolError::refused(
                "system chunks have the profile of metadata: convert both to the same",
            ));
        }
        Ok(())
    }

    /// Bytes that live in a chunk.
    pub(crate) fn live_in(&self, chunk: &Chunk) -> u64 {
        if chunk.class == Class::Data { chunk.used } else { self.live_bytes(chunk.address) }
    }

    /// Does about `budget` bytes of the balance.
    pub(crate) fn balance_step(&mut self, budget: u64) -> Result<()> {
        let started = self.core.now();
        // Commits on the way write it as it was: it can go on from there.
        let Some(mut balance) = self.balance.clone() else { return Ok(()) };
        let (mut outcome, mut moved) = (Ok(false), Moved::default());
        // Small chunks are many to a step.
        for _ in 0..CHUNKS_MAX {
            if outcome != Ok(false) || moved.bytes >= budget || moved.things >= relocate::THINGS_MAX {
                break;
            }
            outcome = self.balance_some(&mut balance, budget, &mut moved);
            if outcome == Err(PoolError::NoSpace) && moved.things > 0 {
                // This commit has no nodes for more; the next one has.
                outcome = Ok(false);
                break;
            }
            if outcome == Err(PoolError::NoSpace) && self.anything_waits() {
                // What was emptied comes back when no importable root knows of it any more.
                for _ in 0..=ROOTS_KEPT {
                    self.changed = true;
                    self.commit()?;
                }
                outcome = self.balance_some(&mut balance, budget, &mut moved);
            }
        }
        let now = self.core.now();
        balance.ran_ms += now.0.saturating_sub(started.0);
        balance.total = balance.total.max(balance.done);
        if outcome == Ok(true) {
            outcome = self.conclude(&mut balance);
        }
        match &outcome {
            Ok(true) => self.end_balance(&mut balance, ScanState::Finished, ""),
            // Waiting would not help: somebody has to make room first.
            Err(PoolError::NoSpace) => {
                self.keep_devices(&balance.task);
                self.end_balance(&mut balance, ScanState::Canceled, "no space left to relocate to");
            }
            Ok(false) | Err(_) => {}
        }
        self.balance = Some(balance);
        self.changed = true;
        // What was relocated before an error is whole.
        let committed = self.commit();
        match outcome {
            Ok(_) | Err(PoolError::NoSpace) => committed,
            Err(error) => Err(error),
        }
    }

    /// What a task does when everything that could be was relocated; true where it has yet to be noted that it ended.
    fn conclude(&mut self, balance: &mut Balance) -> Result<bool> {
        match &balance.task {
            Task::Balance(_) => Ok(true),
            Task::Remove(leaving) => {
                let leaving = leaving.iter().copied().map(DeviceId).collect();
                self.let_go(balance, &leaving).map(|()| false)
            }
            &Task::Resize { device, size } => self.shrink(balance, DeviceId(device), size).map(|()| false),
            Task::Convert(_) => {
                // With the old chunks, empty now, goes what older roots know of them: from here on the vdev is of its new kind.
                for _ in 0..ROOTS_KEPT + 2 {
                    self.changed = true;
                    self.commit()?;
                }
                Ok(true)
            }
        }
    }

    fn end_balance(&mut self, balance: &mut Balance, state: ScanState, trouble: &str) {
        let now = self.core.now();
        balance.state = state;
        balance.ended = now;
        trouble.clone_into(&mut balance.trouble);
        let why = if trouble.is_empty() { String::new() } else { format!(": {trouble}") };
        let (completed, chunks) = (balance.completed, balance.chunks);
        let message = format!("had to relocate {completed} out of {chunks} chunks{why}");
        self.core.events.push(now, &format!("{}_finish", balance.task.event()), None, message);
        self.reclaim_all();
    }

    /// True when nothing is left to do.
    fn balance_some(&mut self, balance: &mut Balance, budget: u64, moved: &mut Moved) -> Result<bool> {
        let Some((address, within)) = balance.current else {
            return self.next_chunk(balance, moved.things);
        };
        let Some(chunk) = self.core.map.get(address).cloned() else {
            balance.completed += 1;
            balance.current = None;
            return Ok(false);
        };
        if !chunk.closed {
            return self.move_columns(balance, &chunk, budget, moved).map(|()| false);
        }
        // What writers leave free for deletion is kept for this, too.
        let share = relocate::Share { already: moved.things, kept: 0 };
        let step = match chunk.class {
            Class::Data => self.relocate_extents(&chunk, within, budget, share)?,
            Class::Metadata => self.relocate_nodes(&chunk, within, budget, share)?,
            Class::System => self.rewrite_chunk_tree(&chunk)?,
        };
        moved.bytes += step.bytes;
        moved.things += step.things;
        balance.done += step.bytes;
        balance.errors += step.errors;
        balance.current = step.next.map(|next| (address, next));
        balance.completed += u64::from(step.next.is_none());
        Ok(false)
    }

    /// Begins to move, or closes, the next chunk that the filters take, after `already` things in the same commit; true when there is none.
    fn next_chunk(&mut self, balance: &mut Balance, already: u64) -> Result<bool> {
        let next = self.matching(&balance.task).map(|(chunk, index)| (chunk.address, index));
        let found = next.filter(|(address, _)| (balance.cursor..balance.end).contains(address)).find(
            |&(_, index)| {
                let limit = balance.task.limit(CLASSES[index]);
                limit.is_none_or(|(_, most)| balance.taken[index] < most)
            },
        );
        let looked_at = balance.cursor..found.map_or(balance.end, |(address, _)| Logical(address.0 + 1));
        let chunks = self.core.map.iter().filter(|chunk| looked_at.contains(&chunk.address));
        let considered = chunks.count() as u64;
        if let Some((address, index)) = found {
            if !self.begin_move(&balance.task, address)? {
                self.close_chunk(address, already)?;
            }
            balance.taken[index] += 1;
            balance.cursor = Logical(address.0 + 1);
            balance.current = Some((address, 0));
        }
        balance.considered += considered;
        Ok(found.is_none())
    }

    pub(crate) fn encode_balance(&self) -> Result<Vec<u8>> {
        let mut w = Writer::default();
        if let Some(balance) = &self.balance {
            balance.encode(&mut w)?;
        }
        Ok(w.finish())
    }

    pub(crate) fn decode_balance(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            let mut r = Reader::new("balance item", bytes);
            let balance = Balance::decode(&mut r)?;
            r.end()?;
            // Addresses of chunks that were dropped may come again, but not for chunks that would be taken for old ones.
            self.core.next_address = self.core.next_address.max(balance.end.0);
            self.balance = Some(balance);
        }
        Ok(())
    }
}

/// Refuses a target that protects less than what is there, unless that is wanted.
fn check_integrity(class: Class, target: Profile, plain: &Group, spec: &BalanceSpec) -> Result<()> {
    let tolerance = |profile: Profile| match profile {
        Profile::Single | Profile::Raid0 => 0,
        // Two copies on one disk survive bad sectors.
        Profile::Dup => 1,
        Profile::Raid1 | Profile::Raid10 | Profile::Raid5 => 2,
        Profile::Raid1c3 | Profile::Raid6 => 3,
        Profile::Raid1c4 => 4,
    };
    let now = if class == Class::Data { plain.data } else { plain.metadata };
    if tolerance(target) < tolerance(now) && !spec.force {
        return Err(PoolError::refused(format!(
            "converting {} from {now} to {target} reduces integrity; use '-f' to do it all the same",
            class.name().to_lowercase()
        )));
    }
    Ok(())
}
