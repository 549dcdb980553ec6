//! A power cut while disks are being filled, tried aside, on copies of all disks: the run itself goes on as if nothing had
//! been.
//!
//! At some moment of a step that fills disks, mostly near its end, these disks forget all that they were not flushed for, and
//! the others mostly nothing. What the newest root then says of them must be so: the pool is imported, and then once more
//! without other disks, so that what is on these is needed.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use device::sim::{Cut, Event, Rates};
use device::{DeviceErrorKind, Operation, Rng, SimDevice};

use crate::run::{Failure, Run};

/// All disks as they were at one of the moments of a step.
#[derive(Debug)]
pub struct Moments {
    disks: Vec<Arc<SimDevice>>,
    rng: Rng,
    kept: Vec<SimDevice>,
}

impl Moments {
    /// Told of every request. The later a moment, the likelier it is the one that is left in the end: most lie where the
    /// newest root is being written.
    pub(crate) fn see(&mut self, event: &Event<'_>) {
        let changes = matches!(event.operation, Operation::Write | Operation::Flush);
        let is_cut = event.outcome.as_ref().is_err_and(|error| matches!(error.kind, DeviceErrorKind::Gone));
        if changes && !is_cut && self.rng.chance(1, self.disks.len() as u64) {
            self.kept = self.disks.iter().map(|disk| disk.fork()).collect();
        }
    }
}

impl Run {
    /// Keeps a moment of the step that comes.
    pub(crate) fn keep_a_moment(&mut self, seed: u64) {
        let disks = self.world.disks.iter().map(|disk| Arc::clone(&disk.device)).collect();
        let moments = Moments { disks, rng: Rng::new(seed), kept: Vec::new() };
        *self.world.moments.lock().unwrap_or_else(PoisonError::into_inner) = Some(moments);
    }

    /// Power failed at the moment that was kept of the step that is over. `filled`: the disks that were being filled.
    pub(crate) fn cut_aside(&mut self, filled: &BTreeSet<usize>) -> Result<(), Failure> {
        let moments = self.world.moments.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Moments { mut rng, kept, .. }) = moments else { return Ok(()) };
        // A disk with a history of its own is another matter.
        if kept.is_empty() || !self.world.apart.is_empty() {
            return Ok(());
        }
        let mut world = self.world.fork(|_| true);
        let all = rng.chance(3, 4);
        for (index, disk) in kept.into_iter().enumerate() {
            // No more goes wrong than this.
            disk.clear_plans();
            disk.clear_errors(0..u64::MAX);
            disk.set_rates(Rates::default());
            let seed = rng.next_u64();
            disk.power_cut(match filled.contains(&index) {
                true => Cut::DropAll,
                false if all => Cut::KeepAll,
                false => Cut::Random(seed),
            });
            world.swap_device(index, disk);
        }
        self.tally.add("power cut aside", true);
        let aside = |failure| format!("power failed aside, and {filled:?} forgot: {failure}");
        let pool = world
            .import(&crate::world::options())
            .map_err(|error| aside(format!("the pool does not import: {error}")))?;
        let mut run = Self {
            names: self.names.clone(),
            comments: self.comments.clone(),
            ..Self::adopt(world, pool, self.model.clone(), 0)
        };
        run.verify_contents().and_then(|()| run.bear_losses(&mut rng, 1, filled)).map_err(aside)
    }
}
