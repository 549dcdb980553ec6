//! Physical volumes found on devices, put together to groups.

use std::collections::BTreeMap;

use device::BlockDevice;

use super::area::{Generation, MetadataArea, Standing};
use super::group::GroupMetadata;
use super::label::{PvLabel, RawLabel};
use super::segment::Mapping;
use crate::ReadError;
use crate::input::read_up_to;

/// Where LVM's tools put the first metadata area.
const AREA_AT: u64 = 4096;
/// A label is in one of the first four sectors.
const LABEL_SECTORS: u64 = 4;
const SECTOR: usize = 512;

/// What LVM2 left on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvScan {
    /// The device's name, for messages.
    pub device: String,
    /// The device's size, bytes.
    pub size: u64,
    /// The label; `None` if it is gone or damaged, but a metadata area is there.
    pub label: Option<PvLabel>,
    /// The metadata areas.
    pub areas: Vec<MetadataArea>,
    /// What is wrong with the label, or could not be read. Areas have their own lists.
    pub problems: Vec<ReadError>,
}

impl PvScan {
    /// Looks for a label, and for metadata even where the label is gone; `None` if there is neither, and all
    /// places where they may be could be read.
    ///
    /// # Errors
    /// The device does not tell its size. What can't be read is listed instead.
    pub fn read(device: &dyn BlockDevice) -> Result<Option<Self>, ReadError> {
        let name = device.info().name.clone();
        let mut scan =
            Self { device: name, size: device.size()?, label: None, areas: Vec::new(), problems: Vec::new() };
        let mut seen = false;
        for sector in 0..LABEL_SECTORS {
            let at = sector * SECTOR as u64;
            let bytes = match read_up_to(device, at, SECTOR) {
                Ok(bytes) => bytes,
                Err(error) => {
                    scan.problems.push(error.into());
                    continue;
                }
            };
            let Some(raw) = RawLabel::parse(&bytes) else { continue };
            seen = true;
            match raw.verify(&scan.device, at) {
                Ok(label) if scan.label.is_none() => scan.label = Some(label),
                Ok(_) => {}
                Err(error) => scan.problems.push(error.into()),
            }
        }
        let listed = scan.label.as_ref().map(|label| label.metadata_areas.clone());
        scan.areas = match listed {
            Some(areas) => {
                areas.iter().filter_map(|area| MetadataArea::read(device, area.offset, area.size)).collect()
            }
            // Without a label only the usual place is left.
            None => MetadataArea::read(device, AREA_AT, 0)
                .filter(|area| area.size > 0 && (seen || !area.generations.is_empty()))
                .into_iter()
                .collect(),
        };
        Ok((seen || !scan.areas.is_empty() || !scan.problems.is_empty()).then_some(scan))
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        self.areas.iter().flat_map(|area| &area.generations)
    }
}

/// A snapshot of the old kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Logical volume that it is a snapshot of.
    pub origin: usize,
    /// Logical volume with a [`super::SnapshotStore`]; its name is the snapshot's.
    pub store: usize,
    /// Bytes.
    pub chunk: u64,
    /// Whether it was being merged back into its origin.
    pub merging: bool,
}

/// A volume group with the devices it lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What its metadata say.
    pub volumes: GroupMetadata,
    /// What the metadata are to the area they come from.
    pub standing: Standing,
    /// For each physical volume, the number of its scan; `None` where it is missing.
    pub members: Vec<Option<usize>>,
    /// What looks wrong, in sentences.
    pub problems: Vec<String>,
}

/// All that a heap of physical volumes makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lvm {
    /// The groups.
    pub groups: Vec<Group>,
    /// Scans with a label that no group knows.
    pub strays: Vec<usize>,
}

impl Lvm {
    /// Puts scans together: each group by the newest valid text that any of them has.
    pub fn assemble(scans: &[PvScan]) -> Self {
        let mut best: BTreeMap<&str, &Generation> = BTreeMap::new();
        for generation in scans.iter().flat_map(PvScan::generations) {
            let key = |generation: &Generation| {
                // Only if nothing valid is left, a damaged or old text counts.
                let valid = generation.standing == Standing::Committed;
                (valid, generation.group.seqno, generation.standing)
            };
            let newest = best.entry(&generation.group.uuid).or_insert(generation);
            if key(generation) > key(newest) {
                *newest = generation;
            }
        }
        // A group that was removed or renamed over, of which only old texts are left on physical volumes that
        // have another group by now, is history: it is listed by `generations` alone.
        let owned = |scan: &PvScan| scan.generations().any(|text| text.standing == Standing::Committed);
        let of = |uuid: &str, scan: &PvScan| scan.generations().any(|text| text.group.uuid == uuid);
        best.retain(|uuid, text| {
            text.standing == Standing::Committed || scans.iter().any(|scan| of(uuid, scan) && !owned(scan))
        });
        let groups: Vec<Group> = best.into_values().map(|text| Group::at(scans, text)).collect();
        let known = |scan: usize| groups.iter().any(|group| group.members.contains(&Some(scan)));
        let twin = |scan: &PvScan| {
            let uuid = scan.label.as_ref().map(|label| label.uuid.as_str());
            groups
                .iter()
                .any(|group| group.volumes.physical.iter().any(|entry| Some(entry.uuid.as_str()) == uuid))
        };
        let strays = (0..scans.len())
            .filter(|&scan| scans[scan].label.is_some() && !known(scan) && !twin(&scans[scan]));
        let strays = strays.collect();
        Self { groups, strays }
    }

    /// All generations of all groups that are left in any ring, newest first, each once.
    pub fn generations(scans: &[PvScan]) -> Vec<&Generation> {
        let mut all: Vec<&Generation> = scans.iter().flat_map(PvScan::generations).collect();
        let key = |text: &Generation| (text.group.uuid.clone(), text.group.seqno, text.standing);
        all.sort_by_cached_key(|text| std::cmp::Reverse(key(text)));
        all.dedup_by(|one, other| one.group.uuid == other.group.uuid && one.group.seqno == other.group.seqno);
        all
    }
}

impl Group {
    /// The group as this text describes it, on these devices.
    pub fn at(scans: &[PvScan], text: &Generation) -> Self {
        let volumes = text.group.clone();
        let mut problems: Vec<String> = volumes.problems.iter().map(ToString::to_string).collect();
        if text.standing != Standing::Committed {
            problems.push(format!(
                "the metadata of volume group {} come from a text that is not the valid one of its area",
                volumes.name
            ));
        }
        let mut members: Vec<Option<usize>> = Vec::new();
        for entry in &volumes.physical {
            let mut found = scans
                .iter()
                .enumerate()
                .filter(|(_, scan)| scan.label.as_ref().is_some_and(|label| label.uuid == entry.uuid));
            let first = found.next();
            let rest: Vec<&str> = found.map(|(_, scan)| scan.device.as_str()).collect();
            if let Some((_, first)) = first.filter(|_| !rest.is_empty()) {
                problems.push(format!(
                    "physical volume {} is there more than once: {} is used, {} not",
                    entry.uuid,
                    first.device,
                    rest.join(", ")
                ));
            }
            members.push(first.map(|(number, _)| number));
        }
        let mut group = Self { volumes, standing: text.standing, members, problems };
        group.adopt_unlabelled(scans);
        group.check_members(scans);
        group
    }

    /// A device that has lost its label still has its group's text: it must be one of those that are missing.
    fn adopt_unlabelled(&mut self, scans: &[PvScan]) {
        for (number, scan) in scans.iter().enumerate().filter(|(_, scan)| scan.label.is_none()) {
            let ours = scan.generations().any(|text| text.group.uuid == self.volumes.uuid);
            let missing = self.members.iter().enumerate().filter(|(_, member)| member.is_none());
            let fitting: Vec<usize> = missing
                .map(|(pv, _)| pv)
                .filter(|pv| self.volumes.physical[*pv].device_size.is_none_or(|size| size == scan.size))
                .collect();
            if let (true, [pv]) = (ours, fitting.as_slice()) {
                self.members[*pv] = Some(number);
                self.problems.push(format!(
                    "{} has no valid label; by its metadata and size it is physical volume {}",
                    scan.device, self.volumes.physical[*pv].uuid
                ));
            }
        }
    }

    fn check_members(&mut self, scans: &[PvScan]) {
        for (entry, member) in self.volumes.physical.iter().zip(&self.members) {
            let Some(scan) = member.map(|member| &scans[member]) else {
                let hint = entry.device.as_deref().unwrap_or("an unknown device");
                self.problems.push(format!("physical volume {} is missing (it was {hint})", entry.uuid));
                continue;
            };
            let needed = entry.needed(self.volumes.extent_size);
            if scan.size < needed {
                self.problems.push(format!(
                    "{} ends at byte {}, but its last extent ends at {needed}: it was cut off",
                    scan.device, scan.size
                ));
            }
            let newest = scan.areas.iter().filter(|area| !area.ignored).filter_map(|area| {
                let valid = area.generations.first().filter(|text| text.standing == Standing::Committed);
                valid.map(|text| &text.group)
            });
            for text in newest {
                if text.uuid != self.volumes.uuid {
                    self.problems.push(format!(
                        "{} says that it belongs to volume group {} ({})",
                        scan.device, text.name, text.uuid
                    ));
                } else if text.seqno < self.volumes.seqno {
                    self.problems.push(format!(
                        "the metadata on {} are old: sequence number {} instead of {}",
                        scan.device, text.seqno, self.volumes.seqno
                    ));
                }
            }
        }
    }

    /// All snapshots of the old kind.
    pub fn snapshots(&self) -> impl Iterator<Item = Snapshot> {
        let segments = self.volumes.logical.iter().flat_map(|volume| &volume.segments);
        segments.filter_map(|segment| match segment.mapping {
            Mapping::Snapshot { origin, store, chunk, merging } => {
                Some(Snapshot { origin, store, chunk, merging })
            }
            _ => None,
        })
    }

    /// What this volume is a snapshot of. Its own segments are those of the store: to read the snapshot, take
    /// from the store what has an exception there, and the rest from the origin.
    pub fn snapshot(&self, lv: usize) -> Option<Snapshot> {
        self.snapshots().find(|snapshot| snapshot.store == lv && !snapshot.merging)
    }
}
