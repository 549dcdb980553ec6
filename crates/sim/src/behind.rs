//! A commit beside reads and writes, as servers do it: begun, worked on and finished at different times.

use device::Rng;
use pool::CommitWork;

use crate::run::{Failure, Run};

impl Run {
    /// Begins a commit; volumes are used and disks fail before and after its work is done, or something else ends it;
    /// then it is finished, and what was accepted before it began is durable.
    ///
    /// Power may fail at any request of it, as at any other.
    pub(crate) fn behind(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let accepted = self.model.count() - 1;
        let acknowledged = self.model.acknowledgements();
        let begun = self.pool().begin_commit();
        let Some(begun) = self.judge("begin", begun, false)? else { return Ok(()) };
        let Some(work) = begun else { return Ok(()) };
        let mut work = Some(work);
        let number = self.pool().commit_needed();
        // Some never get to do the work: then the pool does it.
        let promised = rng.chance(7, 8);
        let before = rng.below(4);
        let after = rng.below(4);
        for step in 0..before + after {
            if step == before && promised {
                work.take().map(CommitWork::run);
            }
            match rng.below(20) {
                0..7 => self.write(rng)?,
                7..10 => self.read(rng)?,
                10..12 => self.discard(rng)?,
                12 => self.drop_caches()?,
                13 => self.tick(rng)?,
                // These can't share the commit: they end it first.
                14 => self.flush()?,
                15 => self.snapshot(rng)?,
                // What fails now is known only when the commit is to be finished.
                16 => self.pull(rng)?,
                17 => self.give_back(rng)?,
                18 => self.write_errors(rng)?,
                _ => self.effect(rng)?,
            }
            if !self.world.supply.is_on() {
                return Ok(());
            }
        }
        if promised {
            work.take().map(CommitWork::run);
        }
        // Now and then whatever comes next meets it.
        if rng.chance(1, 4) {
            return Ok(());
        }
        let base = self.model.count();
        let pool = self.pool();
        let finished = pool.finish_commit(number);
        if self.judge("finish", finished, false)?.is_none() {
            return self.catch_up(base);
        }
        if self.model.acknowledgements() == acknowledged {
            self.model.acknowledge_at(accepted);
        }
        Ok(())
    }
}
