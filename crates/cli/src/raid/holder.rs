//! A process that holds a unit for longer: its jobs advance, its parity map cools down, and others reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use protocol::raid::{RaidReply, RaidRequest};
use protocol::request::{Call, Reply, Request};
use protocol::told::Told;

use super::serve;
use super::unit::Unit;
use crate::control::{Connection, ControlServer, Handler};
use crate::error::{Failure, Outcome};

/// Pause of a worker that has nothing to do.
const IDLE: Duration = Duration::from_millis(50);
/// How often it is looked whether the record has changed, by failures for example.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Answers those who connect.
struct Answering(Arc<Unit>);

impl Handler for Answering {
    fn handle(&self, call: Call, payload: Vec<u8>, connection: &mut Connection) -> Outcome<(Reply, Vec<u8>)> {
        let Request::Raid { ask } = call.request else {
            return Err(Failure::refused("this is the holder of a RAID unit"));
        };
        if let RaidRequest::Serve { place } = &ask {
            let (export, line) = serve::start(&self.0, place)?;
            connection.hold(export);
            let told = Told::text(line + "\n");
            return Ok((Reply::Raid(RaidReply::Told(told)), Vec::new()));
        }
        let (reply, data) = self.0.answer(&ask, &payload)?;
        Ok((Reply::Raid(reply), data))
    }
}

/// Holds a unit, and those below it, until it is stopped.
pub(crate) struct Holder {
    unit: Arc<Unit>,
    controls: Vec<ControlServer>,
    workers: Vec<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

impl Holder {
    /// Begins.
    ///
    /// # Errors
    /// A control socket can't be made.
    pub(crate) fn start(unit: &Arc<Unit>, units: &super::record::Units) -> Outcome<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut holder = Self {
            unit: Arc::clone(unit),
            controls: Vec::new(),
            workers: Vec::new(),
            ended: Arc::clone(&ended),
        };
        for unit in unit.tree() {
            let handler = Arc::new(Answering(Arc::clone(&unit)));
            holder.controls.push(ControlServer::start(&units.socket(unit.number()), handler)?);
            let flag = Arc::clone(&ended);
            let worker = thread::Builder::new().name("raid".into()).spawn(move || work(&unit, &flag));
            holder.workers.push(worker.map_err(Failure::io("start a thread"))?);
        }
        Ok(holder)
    }

    /// The unit.
    pub(crate) const fn unit(&self) -> &Arc<Unit> {
        &self.unit
    }

    /// Stops: clients are let go, jobs stay where they are, labels become clean if the parity is good.
    ///
    /// # Errors
    /// As [`Unit::close`].
    pub(crate) fn stop(mut self) -> Outcome {
        self.controls.clear();
        self.ended.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        self.unit.close()
    }
}

/// A worker's thread.
fn work(unit: &Unit, ended: &AtomicBool) {
    let (mut ticked, mut saved) = (Instant::now(), Instant::now());
    while !ended.load(Ordering::SeqCst) {
        if ticked.elapsed() >= Duration::from_millis(unit.set().tick_ms().into()) {
            // Regions stay dirty then.
            if let Err(error) = unit.set().tick() {
                eprintln!("raid{}: {error}", unit.number());
            }
            ticked = Instant::now();
        }
        let busy = unit.step();
        if saved.elapsed() >= SAVE_EVERY {
            if let Err(error) = unit.save() {
                eprintln!("raid{}: {error}", unit.number());
            }
            saved = Instant::now();
        }
        if !busy {
            thread::sleep(IDLE);
        }
    }
}
