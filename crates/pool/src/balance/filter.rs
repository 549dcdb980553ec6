//! Which chunks a task takes. Of a balance: the filters of `btrfs balance`, with their meaning there.

use super::CLASSES;
use crate::chunk::Chunk;
use crate::error::{PoolError, Result};
use crate::pool::Pool;
use crate::spec::{BalanceFilters, Task};
use crate::types::{DeviceId, GroupId};

impl Pool {
    /// The chunks that a task takes, limits left aside, by address; each with the number of its class.
    pub(super) fn matching<'a>(&'a self, task: &'a Task) -> impl Iterator<Item = (&'a Chunk, usize)> {
        // A range of limits: so few are not worth it.
        let enough = CLASSES.map(|class| {
            let least = task.limit(class).map_or(0, |(least, _)| least);
            let count = || {
                self.core
                    .map
                    .iter()
                    .filter(|chunk| chunk.class == class && self.is_taken(task, chunk))
                    .count()
            };
            least == 0 || count() >= least as usize
        });
        self.core.map.iter().filter_map(move |chunk| {
            let index = CLASSES.iter().position(|&class| class == chunk.class)?;
            (enough[index] && self.is_taken(task, chunk)).then_some((chunk, index))
        })
    }

    fn is_taken(&self, task: &Task, chunk: &Chunk) -> bool {
        match task {
            Task::Balance(spec) => spec.of(chunk.class).is_some_and(|filters| self.passes(filters, chunk)),
            Task::Remove(devices) => devices.iter().any(|&id| chunk.is_on(DeviceId(id))),
            Task::Resize { device, size } => Self::is_behind(chunk, DeviceId(*device), *size),
            Task::Convert(group) => chunk.group == GroupId(*group) && self.core.is_to_be_converted(chunk),
        }
    }

    fn passes(&self, filters: &BalanceFilters, chunk: &Chunk) -> bool {
        let name = self.profile_name(chunk).to_lowercase();
        let profile = || filters.profiles.is_empty() || filters.profiles.contains(&name);
        let usage = || {
            filters.usage.is_none_or(|(least, most)| {
                let percent = |percent: u8| u128::from(chunk.length()) * u128::from(percent.min(100)) / 100;
                let used = u128::from(self.live_in(chunk));
                // Below `most` percent; 0 is for what is empty, 100 for all.
                used >= percent(least) && (most >= 100 || used < percent(most).max(1))
            })
        };
        let on_device = || {
            filters.devid.is_none_or(|id| chunk.is_on(DeviceId(id)))
                && filters.drange.is_none_or(|(from, to)| {
                    chunk.placements().any(|(_, placement)| {
                        filters.devid.is_none_or(|id| placement.device == DeviceId(id))
                            && placement.offset < to
                            && from < placement.offset + chunk.column_bytes
                    })
                })
        };
        let addresses =
            || filters.vrange.is_none_or(|(from, to)| chunk.address.0 < to && from < chunk.end().0);
        let stripes = || {
            let columns = chunk.layout.columns();
            filters.stripes.is_none_or(|(least, most)| (least..=most).contains(&columns))
        };
        let wanted = || !(filters.soft && filters.convert.is_some_and(|target| target.name() == name));
        profile() && usage() && on_device() && addresses() && stripes() && wanted()
    }

    /// Refuses filters that contradict each other, or name what is not there.
    pub(super) fn check_filters(&self, filters: &BalanceFilters) -> Result<()> {
        let empty =
            |what: &str| Err(PoolError::refused(format!("the range of {what} is empty: no chunk is in it")));
        if filters.usage.is_some_and(|(least, most)| least > most || most > 100) {
            return Err(PoolError::refused("usage is a percentage, or a range of two from 0 to 100"));
        }
        if filters.limit.is_some_and(|(least, most)| least > most || most == 0) {
            return empty("limit");
        }
        if filters.stripes.is_some_and(|(least, most)| least > most) {
            return empty("stripes");
        }
        for (name, range) in [("drange", filters.drange), ("vrange", filters.vrange)] {
            if range.is_some_and(|(from, to)| from >= to) {
                return empty(name);
            }
        }
        if filters.drange.is_some() && filters.devid.is_none() {
            return Err(PoolError::refused("drange is a range of one device: say which with devid"));
        }
        if filters.soft && filters.convert.is_none() {
            return Err(PoolError::refused("soft only says something along with convert"));
        }
        if let Some(id) = filters.devid
            && !self.core.devices.contains_key(&DeviceId(id))
        {
            return Err(PoolError::refused(format!("there is no device {id} in the pool")));
        }
        Ok(())
    }
}
