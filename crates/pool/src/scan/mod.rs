//! Background work: bringing devices up to date, scrubbing, spares that step in.
//!
//! - this file: what is going on, how far, how fast; one step at a time ([`Pool::tick`])
//! - `resilver`: stale regions become fresh
//! - `rebuild`: what a resilver's step takes, and how the bulk of it is made
//! - `scrub`: everything is read and checked
//! - `spares`: who stands in for whom, and when that ends
//! - `distributed`: spares that are room on all children of a draid
//! - `places`: where everything live is, for a tester
//!
//! A step is bounded, and the cursor is part of the pool: work goes on where it was after a restart.

mod distributed;
#[cfg(feature = "sabotage")]
mod places;
mod rebuild;
mod resilver;
mod scrub;
mod spares;

#[cfg(feature = "sabotage")]
pub use places::{Copies, Places};
pub(crate) use resilver::Filling;

use crate::codec::{Reader, Writer};
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::report::{ScanKind, ScanReport, ScanState};
use crate::types::{Logical, Millis};

/// What to do about a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubAction {
    /// Begin one, or go on with one that is paused.
    Start,
    /// Keep its place.
    Pause,
    /// Give it up.
    Stop,
}

/// One scan, going on or past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) state: ScanState,
    pub(crate) started: Millis,
    pub(crate) ended: Millis,
    pub(crate) done: u64,
    pub(crate) total: u64,
    pub(crate) repaired: u64,
    pub(crate) errors: u64,
    /// Time that it ran, pauses left out.
    pub(crate) ran_ms: u64,
    /// Where it goes on: everything before is done.
    pub(crate) cursor: Logical,
}

/// The scans of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    pub(crate) scrub: Option<Progress>,
    pub(crate) resilver: Option<Progress>,
    /// Since when the rate limit counts, and how much was done by then.
    pub(crate) limited: Option<(Millis, u64)>,
}

impl Progress {
    pub(crate) fn new(now: Millis, total: u64) -> Self {
        Self {
            state: ScanState::Running,
            started: now,
            ended: Millis(0),
            done: 0,
            total,
            repaired: 0,
            errors: 0,
            ran_ms: 0,
            cursor: Logical(0),
        }
    }

    /// `limit`: bytes per second at most, 0 for no limit.
    pub(crate) fn report(&self, kind: ScanKind, limit: u64) -> ScanReport {
        let rate =
            if self.ran_ms > 0 { (u128::from(self.done) * 1000 / u128::from(self.ran_ms)) as u64 } else { 0 };
        // The time that is waited for the limit's sake is no time that it ran.
        let rate = if limit > 0 && self.state == ScanState::Running { rate.min(limit) } else { rate };
        let done = self.done.min(self.total);
        let running = self.state == ScanState::Running;
        ScanReport {
            kind,
            state: self.state,
            started: self.started,
            ended: (!running).then_some(self.ended),
            done,
            total: self.total,
            repaired: self.repaired,
            errors: self.errors,
            rate,
            eta_seconds: (running && rate > 0).then(|| (self.total - done).div_ceil(rate)),
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(self.state.code());
        let numbers = [
            self.started.0,
            self.ended.0,
            self.done,
            self.total,
            self.repaired,
            self.errors,
            self.ran_ms,
            self.cursor.0,
        ];
        numbers.iter().for_each(|&number| w.u64(number));
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let code = r.u8("state")?;
        let state =
            ScanState::from_code(code).ok_or_else(|| r.error("state", format!("{code} is not known")))?;
        let mut next = || r.u64("number");
        Ok(Self {
            state,
            started: Millis(next()?),
            ended: Millis(next()?),
            done: next()?,
            total: next()?,
            repaired: next()?,
            errors: next()?,
            ran_ms: next()?,
            cursor: Logical(next()?),
        })
    }
}

impl Pool {
    pub(crate) fn encode_scan(&self) -> Vec<u8> {
        let mut w = Writer::default();
        for progress in [&self.scan.scrub, &self.scan.resilver] {
            w.u8(u8::from(progress.is_some()));
            if let Some(progress) = progress {
                progress.encode(&mut w);
            }
        }
        w.finish()
    }

    pub(crate) fn decode_scan(&mut self, bytes: &[u8]) -> Result<()> {
        let mut r = Reader::new("scan item", bytes);
        for slot in [&mut self.scan.scrub, &mut self.scan.resilver] {
            if r.u8("presence")? != 0 {
                *slot = Some(Progress::decode(&mut r)?);
            }
        }
        Ok(r.end()?)
    }

    /// The scan or balance that is going on, or else the last scan.
    pub fn scan(&self) -> Option<ScanReport> {
        let scans = || [self.scan.scrub, self.scan.resilver].into_iter().flatten();
        if !scans().any(|scan| scan.state == ScanState::Running)
            && let Some(balance) = self.balance.as_ref().filter(|_| self.balances())
        {
            return Some(balance.as_scan());
        }
        let scrub = self.scan.scrub.map(|progress| (progress, ScanKind::Scrub));
        let resilver = self.scan.resilver.map(|progress| (progress, ScanKind::Resilver));
        let both = [resilver, scrub].into_iter().flatten();
        both.max_by_key(|(progress, kind)| {
            let running = progress.state == ScanState::Running;
            (running && *kind == ScanKind::Resilver, running, progress.ended.max(progress.started))
        })
        .map(|(progress, kind)| progress.report(kind, self.scan_limit()))
    }

    /// Begins, pauses, goes on with or gives up a scrub.
    ///
    /// # Errors
    /// One is going on already, or none is.
    pub fn scrub(&mut self, action: ScrubAction) -> Result<()> {
        self.writable()?;
        let now = self.core.now();
        let running = self.scan.scrub.map(|scrub| scrub.state);
        match (action, running) {
            (ScrubAction::Start, Some(ScanState::Running)) => {
                return Err(PoolError::refused("a scrub is going on already"));
            }
            (ScrubAction::Start, Some(ScanState::Paused)) => {
                self.set_scrub_state(ScanState::Running, "scrub_resume")
            }
            (ScrubAction::Start, _) => {
                let total = self.scrub_total();
                self.scan.scrub = Some(Progress::new(now, total));
                self.core.events.push(now, "scrub_start", None, "scrub started".to_owned());
            }
            (ScrubAction::Pause, Some(ScanState::Running)) => {
                self.set_scrub_state(ScanState::Paused, "scrub_pause")
            }
            (ScrubAction::Stop, Some(ScanState::Running | ScanState::Paused)) => {
                self.set_scrub_state(ScanState::Canceled, "scrub_abort");
            }
            (ScrubAction::Pause | ScrubAction::Stop, _) => {
                return Err(PoolError::refused("there is no active scrub"));
            }
        }
        self.changed = true;
        self.commit()
    }

    fn set_scrub_state(&mut self, state: ScanState, event: &str) {
        let now = self.core.now();
        self.scan.limited = None;
        if let Some(scrub) = &mut self.scan.scrub {
            scrub.state = state;
            scrub.ended = now;
        }
        self.core.events.push(now, event, None, event.replace('_', " "));
    }

    /// Whether background work is waiting to be done.
    pub fn has_work(&self) -> bool {
        !self.core.read_only
            && !self.core.suspended
            && (self.resilver_needed()
                // One that has nothing left to do has yet to be ended.
                || self.scan.resilver.is_some_and(|resilver| resilver.state == ScanState::Running)
                || self.stand_ins_done()
                || self.spare_wanted()
                || (self.destroys() && !self.is_stuck())
                || self.scrubs()
                || self.balances())
    }

    fn scrubs(&self) -> bool {
        self.scan.scrub.is_some_and(|scrub| scrub.state == ScanState::Running)
    }

    /// Does one step of background work, of about `budget` bytes; true when there is more.
    ///
    /// # Errors
    /// As [`Pool::flush`]. What was under way goes on with the next step.
    pub fn tick(&mut self, budget: u64) -> Result<bool> {
        if self.core.read_only || self.core.suspended {
            return Ok(false);
        }
        if self.commit_due() {
            self.commit()?;
        }
        let resilvers = self.scan.resilver.is_some_and(|resilver| resilver.state == ScanState::Running);
        if self.is_committing() && !resilvers && !self.has_work() {
            return Ok(false);
        }
        self.settle()?;
        let now = self.core.now();
        self.call_spares()?;
        if self.resilver_needed() {
            if self.may_go_on(now, self.scan.resilver) {
                self.resilver_step(budget)?;
            }
        } else {
            self.end_resilver()?;
            self.end_stand_ins()?;
            if self.destroys() && !self.is_stuck() {
                self.destroy_step()?;
            } else if self.scrubs() && self.may_go_on(now, self.scan.scrub) {
                self.scrub_step(budget)?;
            } else if self.balances() {
                self.balance_step(budget)?;
            } else {
                self.reclaim_step(budget)?;
            }
        }
        Ok(self.has_work())
    }

    /// The rate limit (property `scan_rate`), bytes per second; 0 is none.
    pub(crate) fn scan_limit(&self) -> u64 {
        self.property("scan_rate").parse().unwrap_or(0)
    }

    /// Whether the rate limit lets a scan do another step.
    fn may_go_on(&mut self, now: Millis, progress: Option<Progress>) -> bool {
        let limit = self.scan_limit();
        let Some(progress) = progress.filter(|progress| limit > 0 && progress.state == ScanState::Running)
        else {
            self.scan.limited = None;
            return true;
        };
        // A pause, another scan or a restart begins the count anew.
        let (since, done) = match self.scan.limited {
            Some((since, done)) if done <= progress.done => (since, done),
            _ => (now, progress.done),
        };
        self.scan.limited = Some((since, done));
        let (bytes, milliseconds) = (progress.done - done, now.0.saturating_sub(since.0));
        u128::from(bytes) * 1000 <= u128::from(limit) * u128::from(milliseconds)
    }
}
