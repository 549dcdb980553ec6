//! Steps that re-shape space: balance and conversion.

use device::Rng;
use geometry::Profile;
use pool::BalanceAction;
use pool::report::{State, VdevReport};
use pool::spec::{BalanceFilters, BalanceSpec, GroupKind, Resize};

use crate::run::{Failure, Run, profile_tolerance};
use crate::world::MIB;

impl Run {
    /// Begins a balance of some chunks, perhaps into another profile.
    pub(crate) fn balance(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let mut spec = BalanceSpec { force: rng.chance(3, 4), ..BalanceSpec::default() };
        if rng.chance(3, 4) {
            spec.data = Some(self.filters(rng));
        }
        if rng.chance(1, 3) {
            spec.metadata = Some(self.filters(rng));
        }
        if rng.chance(1, 8) {
            spec.system = Some(BalanceFilters::default());
        }
        let targets = [&mut spec.data, &mut spec.metadata].into_iter().flatten();
        let targets: Vec<&mut Option<Profile>> = targets.map(|filters| &mut filters.convert).collect();
        for target in targets {
            *target = rng.choose(&Profile::ALL).copied().filter(|_| rng.chance(1, 3));
            let Some(profile) = *target else { continue };
            // What is about to be less redundant must not be needed: nobody lies, and nobody is away.
            let tolerance = profile_tolerance(profile).min(self.world.heap_tolerance);
            if tolerance < self.world.heap_tolerance
                && !(self.world.impaired.is_empty() && self.all_are_online())
            {
                *target = None;
            } else {
                self.world.heap_tolerance = tolerance;
            }
        }
        self.lead_to("balance", Vec::new(), false, true, |pool| pool.balance_start(spec))?;
        Ok(())
    }

    /// Makes a vdev another kind.
    pub(crate) fn convert(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let vdevs = self.pool().status().vdevs;
        let named = |vdev: &&VdevReport| vdev.name.starts_with("mirror") || vdev.name.starts_with("raidz");
        let names: Vec<String> = vdevs.iter().filter(named).map(|vdev| vdev.name.clone()).collect();
        let Some(name) = rng.choose(&names).cloned() else { return Ok(()) };
        let kinds = [GroupKind::Mirror, GroupKind::Raidz(1), GroupKind::Raidz(2), GroupKind::Raidz(3)];
        let kind = *rng.choose(&kinds).unwrap_or(&GroupKind::Mirror);
        // What protects less must not be needed: nobody lies, and nobody is away.
        let force = rng.chance(3, 4) && self.world.impaired.is_empty() && self.all_are_online();
        let what = format!("convert {name} to {kind:?}");
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.convert(&name, kind, force))?;
        Ok(())
    }

    /// Has the pool use less of a disk, or more.
    pub(crate) fn resize_device(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let path = self.some_path(rng);
        let to = match rng.below(6) {
            0 => Resize::Max,
            1 => Resize::By(rng.below(40 * MIB).cast_signed() - (30 * MIB).cast_signed()),
            _ => Resize::To(64 * MIB + rng.below(20 * MIB)),
        };
        let what = format!("resize {path} to {to:?}");
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.resize(&path, to))?;
        Ok(())
    }

    fn filters(&mut self, rng: &mut Rng) -> BalanceFilters {
        let devices: Vec<u32> = self.pool().device_paths().iter().map(|device| device.id.0).collect();
        BalanceFilters {
            usage: rng.chance(1, 3).then(|| (0, rng.below(101) as u8)),
            devid: rng.choose(&devices).copied().filter(|_| rng.chance(1, 6)),
            limit: rng.chance(1, 4).then(|| (0, 1 + rng.below(3) as u32)),
            ..BalanceFilters::default()
        }
    }

    fn all_are_online(&mut self) -> bool {
        self.pool().device_paths().iter().all(|device| device.is_open && device.state == State::Online)
    }

    pub(crate) fn balance_control(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let all = [BalanceAction::Pause, BalanceAction::Resume, BalanceAction::Resume, BalanceAction::Cancel];
        let action = *rng.choose(&all).unwrap_or(&BalanceAction::Pause);
        let what = format!("balance {action:?}");
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.balance_control(action))?;
        Ok(())
    }
}
