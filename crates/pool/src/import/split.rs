//! Split brain: the devices of a pool were used apart from each other, and each side has what the other has not.
//!
//! One of the two has to be given up, and which one is not for a program to say.

use super::Member;
use crate::config::Config;
use crate::error::{PoolError, Result};
use crate::label::Uberblock;
use crate::pool::Pool;

impl Pool {
    /// Fails when `strangers`, whose roots are not in the history of the root that is being opened, could have been
    /// used as the whole pool, and their newest root has data or datasets that no root of this history (`past`) has.
    ///
    /// # Errors
    /// Both sides are named, and what can be done.
    pub(super) fn refuse_two_histories(
        &self,
        strangers: &[&Member],
        uberblock: &Uberblock,
        past: &[Uberblock],
        config: &Config,
    ) -> Result<()> {
        let newest = strangers.iter().filter_map(|member| member.labels.uberblocks.first());
        let Some(other) = newest.max_by_key(|root| (root.txg, root.session)) else { return Ok(()) };
        // An import that did not come to anything leaves a root with a new session and nothing else.
        let same =
            |root: &Uberblock| (root.meta_root, root.extent_root) == (other.meta_root, other.extent_root);
        if same(uberblock) || past.iter().any(same) || !self.suffices(strangers) {
            return Ok(());
        }
        let names = |theirs: bool| {
            let is_theirs = |guid| strangers.iter().any(|member| member.guid == guid) == theirs;
            let side =
                self.core.devices.values().filter(|device| device.handle.is_some() && is_theirs(device.guid));
            side.map(|device| device.path.clone()).collect::<Vec<_>>().join(", ")
        };
        let age = |root: &Uberblock, than: &Uberblock| match root.time.0.checked_sub(than.time.0) {
            Some(later) => format!("{} seconds later", later / 1000),
            None => format!("{} seconds earlier", (than.time.0 - root.time.0) / 1000),
        };
        Err(PoolError::refused(format!(
            "the devices of pool '{}' were used apart from each other and each side has what the other has not: {} up to transaction group {}, \
             and {} up to {}, {}; take those away that are not to be believed, or import with -f to go by the first \
             and to lose what only the others have",
            config.name,
            names(false),
            uberblock.txg,
            names(true),
            other.txg,
            age(other, uberblock)
        )))
    }

    /// Whether some devices alone would be enough to use the pool.
    fn suffices(&self, members: &[&Member]) -> bool {
        self.core.map.iter().all(|chunk| {
            let mut gone = geometry::ColumnSet::new();
            for (index, column) in chunk.columns.iter().enumerate() {
                let is_theirs = |id| {
                    let device = self.core.devices.get(&id);
                    device.is_some_and(|device| members.iter().any(|member| member.guid == device.guid))
                };
                if !column.placements.iter().any(|placement| is_theirs(placement.device)) {
                    gone.insert(index as u16);
                }
            }
            chunk.layout.redundancy(&gone).is_some()
        })
    }
}
