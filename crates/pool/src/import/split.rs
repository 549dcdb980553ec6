//! Split brain: the devices of a pool were used apart from each other, and each side has what the other has not.
//!
//! One of the two has to be given up, and which one is not for a program to say.

use super::{Member, is_same};
use crate::config::Config;
use crate::error::{PoolError, Result};
use crate::label::Uberblock;
use crate::pool::Pool;
use crate::types::Session;

impl Pool {
    /// Fails when one of `strangers`, whose newest roots are not in the history of the root that is being opened, has
    /// a root that was acknowledged and holds what this history does not. `is_back`: the root is an older one on
    /// purpose, and what went on from it is given up.
    ///
    /// # Errors
    /// Both sides are named, and what can be done.
    pub(super) fn refuse_two_histories(
        &self,
        members: &[Member],
        strangers: &[&Member],
        uberblock: &Uberblock,
        is_back: bool,
        config: &Config,
    ) -> Result<()> {
        let went_on = if is_back { went_on(members, uberblock) } else { Vec::new() };
        let is_later = |root: &Uberblock| went_on.contains(&root.session) && root.txg > uberblock.txg;
        // What the pool gave up stays as it is; a number that it never gave is of a device that joined the others.
        let is_ours = |member: &Member| {
            member.id.0 >= self.next_device
                || self.core.devices.values().any(|device| device.guid == member.guid)
        };
        let apart = strangers.iter().filter(|member| is_ours(member)).filter_map(|member| {
            let known = &member.labels.uberblocks;
            let newest = known.first().filter(|newest| !is_later(newest))?;
            self.root_apart(known, members, strangers, uberblock).then_some(newest)
        });
        let Some(other) = apart.max_by_key(|root| (root.txg, root.session)) else { return Ok(()) };
        let is_stranger = |guid| strangers.iter().any(|member| member.guid == guid);
        let names = |theirs: bool| {
            // A device without a root, as of an addition that was cut off, is of no side; nor is one that joined later.
            let has_side = |member: &Member| {
                let newest = member.labels.uberblocks.first();
                newest.is_some_and(|newest| !(theirs && is_later(newest)))
            };
            let on_side =
                |member: &&Member| is_ours(member) && is_stranger(member.guid) == theirs && has_side(member);
            let mut side: Vec<&Member> = members.iter().filter(on_side).collect();
            side.sort_by_key(|member| member.id);
            side.iter().map(|member| member.new.path.as_str()).collect::<Vec<_>>().join(", ")
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

    /// Whether a device that knows these roots (newest first) has one that counts apart from this history.
    ///
    /// A root is acknowledged when every device that it names took it. So one that names a device of this history
    /// never was, or was given up when that device was taken into this history. And a root that holds what the last
    /// common root of both histories holds, as one that an import leaves, adds nothing.
    fn root_apart(
        &self,
        known: &[Uberblock],
        members: &[Member],
        strangers: &[&Member],
        uberblock: &Uberblock,
    ) -> bool {
        let common = known.iter().position(|root| self.is_history(root.session, root.txg, uberblock));
        let (apart, before) = known.split_at(common.unwrap_or(known.len()));
        let holds = |root: &Uberblock| (root.meta_root, root.extent_root);
        let is_stranger = |guid| strangers.iter().any(|member| member.guid == guid);
        apart.iter().any(|root| {
            let adds = before.first().is_none_or(|common| holds(common) != holds(root));
            let ours = members
                .iter()
                .filter(|member| root.took_part.contains(&member.guid) && !is_stranger(member.guid));
            let alone = if root.took_part.is_empty() { self.suffices(strangers) } else { ours.count() == 0 };
            adds && alone
        })
    }

    /// Whether one of `strangers` should have this root and has not: a power cut came first. What they have may have
    /// been acknowledged.
    pub(super) fn is_unacknowledged(&self, strangers: &[&Member], uberblock: &Uberblock) -> bool {
        strangers.iter().any(|member| {
            uberblock.took_part.contains(&member.guid)
                && self.core.devices.values().any(|device| device.guid == member.guid)
                && !member.labels.uberblocks.iter().any(|root| is_same(root, uberblock))
        })
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

/// The sessions in which devices went on from a root.
fn went_on(members: &[Member], from: &Uberblock) -> Vec<Session> {
    let holds = |member: &&Member| member.labels.uberblocks.iter().any(|root| is_same(root, from));
    let roots = members.iter().filter(holds).flat_map(|member| &member.labels.uberblocks);
    roots.filter(|root| root.txg >= from.txg).map(|root| root.session).collect()
}
