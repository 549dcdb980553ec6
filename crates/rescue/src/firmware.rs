//! Sets of Intel's metadata and of DDF: what their disks say, and ways to put their volumes together.

use std::collections::{BTreeMap, BTreeSet};

use formats::{Container, FirmwareVolume, container};
use geometry::md::Shape;
use serde::Serialize;

use crate::infer::{TIED, same_map};
use crate::scan::Unit;
use crate::{Candidate, Image, LeftOut, score};

/// Most orders of disks that are tried where nobody says which is which.
const ORDERS_MAX: usize = 720;

/// Most orders that are proposed.
const PROPOSED_MAX: usize = 24;

/// A set that a controller's firmware or a mainboard made.
#[derive(Clone, Debug, Serialize)]
pub struct FirmwareSet {
    /// `imsm` or `ddf`.
    pub kind: &'static str,
    /// What its disks have in common.
    pub id: String,
    /// The newest state that any disk knows of.
    pub generation: u64,
    /// The disks that are there: path and the state that each knows of.
    pub disks: Vec<(String, u64)>,
    /// Its volumes, in words.
    pub volumes: Vec<String>,
    #[serde(skip)]
    members: Vec<(usize, Container)>,
}

/// The sets whose disks are among the units.
pub(crate) fn sets(units: &[Unit]) -> Vec<FirmwareSet> {
    let mut groups: BTreeMap<(&'static str, String), Vec<(usize, Container)>> = BTreeMap::new();
    for (number, unit) in
        units.iter().enumerate().filter(|(_, unit)| unit.image.partition.is_none() && unit.first)
    {
        if let Ok(Some(found)) = container(&*unit.image.device) {
            groups.entry((found.kind, found.id.clone())).or_default().push((number, found));
        }
    }
    let set = |((kind, id), members): ((&'static str, String), Vec<(usize, Container)>)| {
        let generation = members.iter().map(|(_, found)| found.generation).max().unwrap_or(0);
        let disks = members.iter().map(|(number, found)| (units[*number].image.name(), found.generation));
        let disks = disks.collect();
        let words = |volume: FirmwareVolume| {
            let shape = Shape::from_codes(volume.level, volume.layout);
            let shape = shape.map_or_else(|error| error.to_string(), |shape| shape.to_string());
            let name = volume.name.as_deref().unwrap_or("without a name");
            let changing = if volume.changing { ", a change of it was going on" } else { "" };
            format!("{name}: {shape}, {} disks, chunk {} KiB{changing}", volume.slots, volume.chunk >> 10)
        };
        let mut set = FirmwareSet { kind, id, generation, disks, volumes: Vec::new(), members };
        set.volumes = set.whole_volumes().into_iter().map(words).collect();
        set
    };
    groups.into_iter().map(set).collect()
}

impl FirmwareSet {
    /// The numbers of its units.
    pub(crate) fn units(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|(number, _)| *number)
    }

    /// The volumes as the newest disks know them, with the parts that different disks have records of put together. A member
    /// that nobody speaks of has no name.
    fn whole_volumes(&self) -> Vec<FirmwareVolume> {
        let mut whole: BTreeMap<String, FirmwareVolume> = BTreeMap::new();
        let newest = self.members.iter().filter(|(_, found)| found.generation == self.generation);
        for part in newest.flat_map(|(_, found)| &found.volumes) {
            let volume = whole.entry(part.id.clone()).or_insert_with(|| {
                let unknown = formats::FirmwareMember { disk: String::new(), start: 0, rebuilding: false };
                FirmwareVolume { members: vec![unknown; part.slots], first: 0, ..part.clone() }
            });
            for (slot, member) in volume.members.iter_mut().skip(part.first).zip(&part.members) {
                slot.clone_from(member);
            }
        }
        whole.into_values().collect()
    }

    /// Ways to put its volumes together.
    pub(crate) fn candidates(&self, units: &[Unit]) -> Vec<Candidate> {
        let images: Vec<&Image> = units.iter().map(|unit| &unit.image).collect();
        self.whole_volumes().iter().flat_map(|volume| self.of_volume(volume, &images)).collect()
    }

    fn of_volume(&self, volume: &FirmwareVolume, images: &[&Image]) -> Vec<Candidate> {
        let stale = |(_, found): &&(usize, Container)| found.generation != self.generation;
        let left_out: Vec<LeftOut> = self
            .members
            .iter()
            .filter(stale)
            .map(|(number, found)| LeftOut {
                path: images[*number].path.clone(),
                reason: format!(
                    "it knows of state {} of the set, others of {}",
                    found.generation, self.generation
                ),
            })
            .collect();
        let fresh: Vec<&(usize, Container)> = self.members.iter().filter(|member| !stale(member)).collect();
        let candidate = |slots: &[Option<usize>], reason: String| {
            let slot = |(number, member): (&Option<usize>, &formats::FirmwareMember)| {
                let image = images[(*number)?];
                let mut slot = image.slot(member.start, volume.used);
                // What was being rebuilt is not to be believed at all.
                slot.valid = member.rebuilding.then_some(0);
                Some(slot)
            };
            let mut reasons = vec![reason];
            if volume.changing {
                reasons.push("a change of its geometry was going on, which is not read here".to_owned());
            }
            Candidate {
                array: volume.name.clone().unwrap_or_else(|| format!("{}-{}", self.kind, self.id)),
                score: 0,
                reasons,
                level: volume.level,
                layout: volume.layout,
                shape: String::new(),
                chunk: volume.chunk,
                slots: slots.iter().zip(&volume.members).map(slot).collect(),
                left_out: left_out.clone(),
                reshape: None,
                logs: None,
                check_parity: false,
                overwritten_by: None,
            }
        };
        if fresh.iter().all(|(_, found)| found.own.is_some()) {
            let number = |member: &formats::FirmwareMember| {
                let of = fresh.iter().find(|(_, found)| found.own.as_deref() == Some(&*member.disk));
                of.map(|(number, _)| *number)
            };
            let slots: Vec<Option<usize>> = volume.members.iter().map(number).collect();
            let found = candidate(&slots, "the DDF metadata on its disks say so".to_owned());
            return vec![score::scored(found, false, images)];
        }
        // Serial numbers are not on the disks themselves: contents tell the order.
        let disks: Vec<usize> = fresh.iter().map(|(number, _)| *number).collect();
        let reason = "Intel's metadata on its disks say so, but not which disk is in which slot".to_owned();
        let mut found: Vec<Candidate> = Vec::new();
        for slots in arrangements(&disks, volume.members.len()) {
            let next = candidate(&slots, reason.clone());
            if !found.iter().any(|known| same_map(known, &next)) {
                found.push(next);
            }
        }
        let mut found: Vec<Candidate> =
            found.into_iter().map(|candidate| score::scored(candidate, false, images)).collect();
        let (_, ties) = score::keep_best(&mut found);
        for candidate in found.iter_mut().filter(|_| ties > 1) {
            candidate.score = candidate.score.min(TIED);
            candidate
                .reasons
                .push(format!("{ties} orders of the disks fit equally well and can't be told apart"));
        }
        found.truncate(PROPOSED_MAX);
        found
    }
}

/// All ways to put the disks into slots, as far as there are not too many.
fn arrangements(disks: &[usize], slots: usize) -> Vec<Vec<Option<usize>>> {
    let mut all: BTreeSet<Vec<Option<usize>>> = BTreeSet::from([vec![None; slots]]);
    for disk in disks.iter().take(slots) {
        let place = |order: &Vec<Option<usize>>| {
            let free = (0..slots).filter(|slot| order[*slot].is_none());
            let placed = free.map(|slot| {
                let mut order = order.clone();
                order[slot] = Some(*disk);
                order
            });
            placed.collect::<Vec<_>>()
        };
        all = all.iter().flat_map(place).take(ORDERS_MAX).collect();
    }
    all.into_iter().collect()
}
