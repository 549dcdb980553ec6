//! Steps about checkpoints: taken, discarded, looked at, gone back to.

use std::sync::Arc;

use device::Rng;
use pool::PoolError;
use pool::spec::ImportOptions;

use crate::model::{Kept, State};
use crate::run::{Failure, Run};
use crate::verify::observe;
use crate::world::options;

fn to_checkpoint() -> ImportOptions {
    ImportOptions { checkpoint: true, ..options() }
}

impl Run {
    /// Whether nothing stands in the way of a checkpoint.
    fn may_take(&mut self) -> bool {
        let status = self.pool().status();
        status.checkpoint.is_none() && !status.jobs.iter().any(|job| job.contains("after the checkpoint"))
    }

    pub(crate) fn checkpoint(&mut self) -> Result<(), Failure> {
        let now = self.model.now().clone();
        let may_take = self.may_take();
        if now.checkpoint.is_some() && may_take {
            return Err("the checkpoint is gone".to_owned());
        }
        let kept = Kept { state: State { checkpoint: None, ..now.clone() }, comments: self.comments.clone() };
        // One over another is refused: both could not be told apart.
        let state = now.checkpoint.is_none().then(|| State { checkpoint: Some(Arc::new(kept)), ..now });
        let states = state.into_iter().collect();
        let done = self.lead_to("checkpoint", states, true, !may_take, pool::Pool::checkpoint)?;
        if done && !may_take {
            return Err("a checkpoint was taken over another".to_owned());
        }
        Ok(())
    }

    pub(crate) fn checkpoint_discard(&mut self) -> Result<(), Failure> {
        let now = self.model.now().clone();
        let is_kept = now.checkpoint.is_some();
        let state = State { checkpoint: None, ..now };
        let discard = pool::Pool::checkpoint_discard;
        let done = self.lead_to("checkpoint_discard", vec![state], true, !is_kept, discard)?;
        if done && !is_kept {
            return Err("a checkpoint was discarded that is none".to_owned());
        }
        Ok(())
    }

    /// Goes back to the checkpoint, or only looks at it.
    pub(crate) fn rewind_to_checkpoint(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        let Some(kept) = self.model.now().checkpoint.clone() else { return self.look_at_checkpoint() };
        if rng.chance(1, 3) {
            return self.look_at_checkpoint();
        }
        self.world.note(|| "go back to the checkpoint".to_owned());
        self.comments.extend(kept.comments.clone());
        self.go_back(rng, &to_checkpoint(), &kept.state, "rewind to checkpoint", "the checkpoint")
    }

    /// Looks at the checkpoint, on copies of the disks: it holds what it kept. Everything is flushed.
    pub(crate) fn look_at_checkpoint(&mut self) -> Result<(), Failure> {
        let kept = self.model.now().checkpoint.clone();
        let present: Vec<bool> = self.world.disks.iter().map(|disk| disk.device.is_present()).collect();
        let mut copy = self.world.fork(|disk| present[disk]);
        let look = ImportOptions { read_only: true, ..to_checkpoint() };
        let (mut pool, kept) = match (copy.import(&look), kept) {
            (Ok(pool), Some(kept)) => (pool, kept),
            (Ok(_), None) => return Err("there is a checkpoint that was not taken".to_owned()),
            (Err(PoolError::Refused(_)), None) => return Ok(()),
            (Err(error), _) => return Err(format!("a look at the checkpoint failed: {error}")),
        };
        self.tally.add("look at checkpoint", true);
        let seen = observe(&mut pool).map_err(|error| format!("a look at the checkpoint: {error}"))?;
        if let Some(difference) = kept.state.difference(&seen) {
            return Err(format!("a look at the checkpoint: {difference}"));
        }
        let report = pool.check().map_err(|error| format!("check of the checkpoint: {error}"))?;
        match report.problems.first() {
            Some(problem) => Err(format!("check of the checkpoint says: {problem}")),
            None => Ok(()),
        }
    }

    /// The process dies, and the pool is taken back to its checkpoint, if it has one.
    pub(crate) fn back_in_states(&mut self) -> Result<(), Failure> {
        let Some(kept) = self.model.now().checkpoint.clone() else { return Ok(()) };
        self.pool = None;
        self.model.push(kept.state.clone());
        self.possible = self.model.clone();
        let back = self.world.import(&to_checkpoint());
        self.pool = Some(back.map_err(|error| format!("going back to the checkpoint failed: {error}"))?);
        self.model.acknowledge();
        Ok(())
    }
}
