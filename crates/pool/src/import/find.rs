//! Which pools there are on a heap of devices, by their labels alone.

use std::collections::BTreeMap;

use super::newest_config;
use crate::label;
use crate::pool::Pool;
use crate::report::{FoundPool, State};
use crate::spec::NewDevice;
use crate::types::Guid;

impl Pool {
    /// The pools that some of the devices belong to; those without a label of ours are passed over.
    pub fn find_pools(devices: &[NewDevice]) -> Vec<FoundPool> {
        let mut pools: BTreeMap<Guid, Vec<super::Member>> = BTreeMap::new();
        for new in devices {
            let Ok(labels) = label::read(&*new.device) else { continue };
            let Some(label) = labels.label.clone() else { continue };
            let members = pools.entry(label.pool).or_default();
            members.push(super::Member { guid: label.device, id: label.id, labels, new: new.clone() });
        }
        pools
            .into_iter()
            .map(|(guid, members)| {
                let mut config = newest_config(&members);
                let there: BTreeMap<Guid, String> =
                    members.iter().map(|member| (member.guid, member.new.path.clone())).collect();
                config.vdevs.iter_mut().for_each(|vdev| vdev.relocate(&there));
                let vdevs = config.report(&|guid| there.contains_key(&guid));
                let lost = vdevs.iter().any(|vdev| vdev.state == State::Unavail && !vdev.children.is_empty());
                let newest = members
                    .iter()
                    .filter_map(|member| member.labels.uberblocks.first())
                    .max_by_key(|uberblock| uberblock.txg);
                let whole = vdevs.iter().all(|vdev| vdev.state == State::Online);
                let foreign = newest.is_some_and(|uberblock| !uberblock.exported);
                if newest.is_none() {
                    // A command was killed that had labelled them and not yet written a root.
                    let status = "None of its devices has a root (uberblock): either they were never in use in it, or every root on them is damaged.";
                    return FoundPool {
                        name: config.name,
                        guid,
                        state: State::Faulted,
                        status: Some(status.to_owned()),
                        action: Some("The pool cannot be imported with these devices.".to_owned()),
                        foreign_host: None,
                        vdevs,
                    };
                }
                FoundPool {
                    name: config.name,
                    guid,
                    state: match (whole, lost) {
                        (true, _) => State::Online,
                        (_, true) => State::Unavail,
                        _ => State::Degraded,
                    },
                    status: (!whole).then(|| "One or more devices are missing from the system.".to_owned()),
                    action: Some(if whole {
                        "The pool can be imported using its name or numeric identifier.".to_owned()
                    } else if lost {
                        "The pool cannot be imported. Attach the missing devices and try again.".to_owned()
                    } else {
                        "The pool can be imported if what is missing is within its redundancy.".to_owned()
                    }),
                    foreign_host: foreign.then_some(config.host_name),
                    vdevs,
                }
            })
            .collect()
    }
}
