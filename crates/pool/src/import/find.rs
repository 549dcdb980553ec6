//! Which pools there are on a heap of devices, by their labels alone.

use std::collections::BTreeMap;

use super::{Member, newest_config};
use crate::config::Config;
use crate::label;
use crate::pool::Pool;
use crate::report::{FoundPool, SpareReport, State};
use crate::spec::NewDevice;
use crate::types::Guid;

/// What the labels know of devices that are not there, where a root can't be read because of it: which they are,
/// and what would be enough. Plain disks tell no redundancy in labels: there `is_sure` is false.
pub(super) struct Missing {
    pub(super) sentence: String,
    pub(super) is_sure: bool,
}

/// Whether more devices are missing than a vdev of the labels' configuration bears.
pub(super) fn missing(config: &Config, members: &[Member]) -> Option<Missing> {
    let there = |guid: Guid| members.iter().any(|member| member.guid == guid);
    let mut named = Vec::new();
    let mut enough = Vec::new();
    let mut plain = 0;
    for vdev in &config.vdevs {
        if vdev.report(&there).state != State::Unavail {
            continue;
        }
        vdev.leaves(&mut |disk| {
            if !there(disk.guid) {
                named.push(format!("{} (guid {})", disk.name, disk.guid));
            }
        });
        if let Some(tolerance) = vdev.tolerance() {
            let away =
                vdev.children.iter().filter(|child| child.report(&there).state == State::Unavail).count();
            enough.push(match away - tolerance {
                1 if away == 1 => format!("the one missing from {}", vdev.name),
                needed if needed == away => format!("all {away} missing from {}", vdev.name),
                needed => format!("any {needed} of the {away} missing from {}", vdev.name),
            });
        } else {
            plain += 1;
        }
    }
    if plain > 0 {
        enough.push(format!("all {plain} missing plain disks, perhaps fewer"));
    }
    let sentence = format!(
        "too many devices are missing: {}; enough would be {}",
        named.join(", "),
        enough.join(" and ")
    );
    (!named.is_empty()).then_some(Missing { sentence, is_sure: plain == 0 })
}

impl Pool {
    /// The pools that some of the devices belong to; those without a label of ours are passed over.
    pub fn find_pools(devices: &[NewDevice]) -> Vec<FoundPool> {
        let mut pools: BTreeMap<Guid, Vec<Member>> = BTreeMap::new();
        for new in devices {
            let Ok(labels) = label::read(&*new.device) else { continue };
            let Some(label) = labels.label.clone() else { continue };
            let members = pools.entry(label.pool).or_default();
            members.push(Member { guid: label.device, id: label.id, labels, new: new.clone() });
        }
        pools
            .into_iter()
            .map(|(guid, members)| {
                let mut config = newest_config(&members);
                let there: BTreeMap<Guid, String> =
                    members.iter().map(|member| (member.guid, member.new.path.clone())).collect();
                config.vdevs.iter_mut().for_each(|vdev| vdev.relocate(&there));
                config.spares.iter_mut().for_each(|spare| spare.relocate(&there));
                let vdevs = config.report(&|guid| there.contains_key(&guid));
                let spares: Vec<SpareReport> = config.spares.iter().map(|spare| spare.spare(&there, &config)).collect();
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
                        spares,
                    };
                }
                let twins = members.iter().enumerate().find_map(|(at, member)| {
                    let twin = members[..at].iter().find(|other| other.guid == member.guid)?;
                    Some(format!(
                        "{} and {} carry the same label: one is a copy of the other.",
                        twin.new.path, member.new.path
                    ))
                });
                if let Some(status) = twins {
                    return FoundPool {
                        name: config.name,
                        guid,
                        state: State::Unavail,
                        status: Some(status),
                        action: Some("Take one of them away.".to_owned()),
                        foreign_host: foreign.then_some(config.host_name),
                        vdevs,
                        spares,
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
                        "The pool cannot be imported, unless nothing is on the vdevs that are UNAVAIL. Attach the missing devices and try again.".to_owned()
                    } else {
                        "The pool can be imported if what is missing is within its redundancy.".to_owned()
                    }),
                    foreign_host: foreign.then_some(config.host_name),
                    vdevs,
                    spares,
                }
            })
            .collect()
    }
}
