//! Logical volumes of LVM2 as devices, from what the newest text of their group says.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::{BlockDevice, SliceDevice};
use formats::lvm::{Area, PhysicalVolume, Segment, SegmentKind, VolumeGroup};
use geometry::md::{Copies, FarSets, Geometry, Rotation5, Rotation6, Shape, ZoneOrder};

use super::mapped::{MappedDevice, Run};
use super::{snapshot, thin};
use crate::{ArrayDevice, Section, Source};

/// Volumes within volumes within volumes: no real group goes deeper.
const DEPTH_MAX: usize = 8;
/// Most runs of one striped segment that are made; one with more is refused.
const RUNS_MAX: u64 = 1 << 22;

/// A volume group and those of its physical volumes that are there, by id.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) text: VolumeGroup,
    pub(super) present: BTreeMap<String, Arc<dyn BlockDevice>>,
}

/// The groups that these physical volumes make, each by its newest text.
pub(super) fn groups(volumes: &[(PhysicalVolume, Arc<dyn BlockDevice>)]) -> Vec<Group> {
    let mut newest: BTreeMap<String, VolumeGroup> = BTreeMap::new();
    for (volume, device) in volumes {
        let mut texts: Vec<String> = volume.current.iter().cloned().collect();
        if texts.is_empty() {
            // The header is damaged, or says that there is no group any more: the ring may still hold one.
            texts = formats::lvm::older_texts(&**device, volume).unwrap_or_default();
        }
        for group in texts.iter().filter_map(|text| VolumeGroup::parse(text)) {
            if newest.get(&group.id).is_none_or(|known| known.seqno < group.seqno) {
                newest.insert(group.id.clone(), group);
            }
        }
    }
    let present: BTreeMap<String, Arc<dyn BlockDevice>> =
        volumes.iter().map(|(volume, device)| (volume.id.clone(), Arc::clone(device))).collect();
    newest.into_values().map(|text| Group { text, present: present.clone() }).collect()
}

impl Group {
    /// Ids of the physical volumes that are missing.
    pub(super) fn missing(&self) -> usize {
        self.text.physical.values().filter(|(id, _)| !self.present.contains_key(id)).count()
    }

    /// A logical volume as a device.
    ///
    /// # Errors
    /// Why it can't be made, in words.
    pub(super) fn open(&self, name: &str) -> Result<Arc<dyn BlockDevice>, String> {
        self.open_at(name, 0)
    }

    fn open_at(&self, name: &str, depth: usize) -> Result<Arc<dyn BlockDevice>, String> {
        let Some((origin, store, chunk)) = self.snapshot_of(name) else { return self.plain(name, depth) };
        let origin = self.plain(origin, depth + 1)?;
        let store = self.plain(store, depth + 1)?;
        snapshot::open(format!("{}/{name}", self.text.name), &origin, &store, chunk)
    }

    /// A volume as its segments make it, even if people see it as a snapshot.
    fn plain(&self, name: &str, depth: usize) -> Result<Arc<dyn BlockDevice>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("{name} is made of volumes that are made of it"));
        }
        let volume =
            self.text.volume(name).ok_or_else(|| format!("there is no volume {name} in the text"))?;
        let mut runs = Vec::new();
        let mut end = 0;
        for segment in &volume.segments {
            if segment.start != end {
                return Err(format!("the segments of {name} overlap or leave a gap at {end}"));
            }
            end = segment.start.checked_add(segment.size).ok_or("a segment is too long")?;
            runs.extend(self.segment(segment, depth).map_err(|why| format!("{name}: {why}"))?);
        }
        Ok(Arc::new(MappedDevice::new(format!("{}/{name}", self.text.name), runs)))
    }

    /// Whether a volume is the store of a snapshot that people see under its name, and of what.
    fn snapshot_of(&self, name: &str) -> Option<(&str, &str, u64)> {
        let visible = self.text.volume(name)?.visible;
        self.text.logical.iter().flat_map(|volume| &volume.segments).find_map(|segment| match &segment.kind {
            SegmentKind::Snapshot { origin, store, chunk } if visible && store == name && origin != name => {
                Some((origin.as_str(), store.as_str(), *chunk))
            }
            _ => None,
        })
    }

    /// Where an area lies: the device, if it is there, and the byte there.
    fn area(
        &self,
        (name, extent): &Area,
        depth: usize,
    ) -> Result<(Option<Arc<dyn BlockDevice>>, u64), String> {
        let bytes = extent.checked_mul(self.text.extent).ok_or("an extent is beyond any device")?;
        match self.text.physical.get(name) {
            Some((id, start)) => {
                Ok((self.present.get(id).cloned(), start.checked_add(bytes).ok_or("an extent is too far")?))
            }
            None => Ok((Some(self.plain(name, depth + 1)?), bytes)),
        }
    }

    fn segment(&self, segment: &Segment, depth: usize) -> Result<Vec<Run>, String> {
        let whole = |device: Arc<dyn BlockDevice>| {
            vec![Run { length: segment.size, device: Some(device), offset: 0 }]
        };
        match &segment.kind {
            SegmentKind::Striped { areas, .. } if areas.len() == 1 => {
                let (device, offset) = self.area(&areas[0], depth)?;
                Ok(vec![Run { length: segment.size, device, offset }])
            }
            SegmentKind::Striped { chunk, areas } => self.striped(segment.size, *chunk, areas, depth),
            SegmentKind::Mirror { areas } => {
                let sources = areas.iter().map(|area| {
                    let (device, start) = self.area(area, depth)?;
                    Ok(device.map(|device| Source::whole(device, start)))
                });
                let sources = sources.collect::<Result<Vec<_>, String>>()?;
                array(Shape::Raid1, 0, segment.size, sources).map(whole)
            }
            SegmentKind::Raid { kind, chunk, members } => {
                let shape =
                    raid_shape(kind, members.len()).ok_or_else(|| format!("{kind} is not known here"))?;
                let mut sources = Vec::new();
                let mut size = u64::MAX;
                for (_, image) in members {
                    let bytes = self.text.volume(image).map_or(0, |volume| volume.size());
                    size = size.min(bytes);
                    // An image with a device that is gone fails where it is read, which the others make up for.
                    let device = self.plain(image, depth + 1).ok();
                    sources.push(device.map(|device| Source::whole(device, 0)));
                }
                array(shape, *chunk, size, sources).map(whole)
            }
            SegmentKind::Thin { pool, device } => {
                let (metadata, data, chunk) = self.thin_pool(pool)?;
                let metadata = self.plain(metadata, depth + 1)?;
                let data = self.plain(data, depth + 1)?;
                thin::open(&metadata, &data, chunk, *device, segment.size).map(whole)
            }
            SegmentKind::ThinPool { .. } => Err("it is a pool of thin volumes".to_owned()),
            SegmentKind::Snapshot { .. } => Err("it is the description of a snapshot".to_owned()),
            SegmentKind::Other(kind) => Err(format!("segments of type {kind} are not known here")),
        }
    }

    fn thin_pool(&self, pool: &str) -> Result<(&str, &str, u64), String> {
        let segments = self.text.volume(pool).map_or(&[][..], |volume| &volume.segments);
        let found = segments.iter().find_map(|segment| match &segment.kind {
            SegmentKind::ThinPool { metadata, data, chunk } => {
                Some((metadata.as_str(), data.as_str(), *chunk))
            }
            _ => None,
        });
        found.ok_or_else(|| format!("its pool {pool} is not there"))
    }

    fn striped(&self, size: u64, chunk: u64, areas: &[Area], depth: usize) -> Result<Vec<Run>, String> {
        let each = size / areas.len().max(1) as u64;
        if chunk == 0 || areas.is_empty() || !each.is_multiple_of(chunk) || size / chunk > RUNS_MAX {
            return Err("its stripes can't be as they are described".to_owned());
        }
        let places = areas.iter().map(|area| self.area(area, depth)).collect::<Result<Vec<_>, String>>()?;
        let sources = places
            .into_iter()
            .map(|(device, start)| device.map(|device| Source::whole(device, start)))
            .collect();
        let device = array(Shape::Raid0(ZoneOrder::Alternate), chunk, each, sources)?;
        Ok(vec![Run { length: size, device: Some(device), offset: 0 }])
    }
}

/// An array over members of `size` bytes.
fn array(
    shape: Shape,
    chunk: u64,
    size: u64,
    sources: Vec<Option<Source>>,
) -> Result<Arc<dyn BlockDevice>, String> {
    let sizes = vec![size; sources.len()];
    let geometry = Geometry::new(shape, chunk, &sizes).map_err(|error| error.to_string())?;
    Ok(Arc::new(ArrayDevice::new("logical volume", Section { geometry, sources })))
}

/// What LVM's names mean. Its raid4 has parity on the first member, its raid10 is near=2.
fn raid_shape(kind: &str, members: usize) -> Option<Shape> {
    let near = |near: u8| Shape::Raid10(Copies { near, far: 1, offset: false, sets: FarSets::All });
    Some(match kind {
        "raid0" | "raid0_meta" => Shape::Raid0(ZoneOrder::Alternate),
        "raid1" => Shape::Raid1,
        "raid4" | "raid5_0" => Shape::Raid5(Rotation5::ParityFirst),
        "raid5_n" => Shape::Raid5(Rotation5::ParityLast),
        "raid5" | "raid5_ls" => Shape::Raid5(Rotation5::LeftSymmetric),
        "raid5_la" => Shape::Raid5(Rotation5::LeftAsymmetric),
        "raid5_rs" => Shape::Raid5(Rotation5::RightSymmetric),
        "raid5_ra" => Shape::Raid5(Rotation5::RightAsymmetric),
        "raid6" | "raid6_zr" => Shape::Raid6(Rotation6::DdfZeroRestart),
        "raid6_nr" => Shape::Raid6(Rotation6::DdfNRestart),
        "raid6_nc" => Shape::Raid6(Rotation6::DdfNContinue),
        "raid6_n_6" => Shape::Raid6(Rotation6::Md(Rotation5::ParityLast)),
        "raid6_ls_6" => Shape::Raid6(Rotation6::Raid5Q(Rotation5::LeftSymmetric)),
        "raid6_la_6" => Shape::Raid6(Rotation6::Raid5Q(Rotation5::LeftAsymmetric)),
        "raid6_rs_6" => Shape::Raid6(Rotation6::Raid5Q(Rotation5::RightSymmetric)),
        "raid6_ra_6" => Shape::Raid6(Rotation6::Raid5Q(Rotation5::RightAsymmetric)),
        "raid10" | "raid10_near" if members >= 2 => near(2),
        _ => return None,
    })
}

/// A part of a device under a name of its own.
pub(super) fn slice(
    name: &str,
    device: &Arc<dyn BlockDevice>,
    start: u64,
    size: u64,
) -> Result<Arc<dyn BlockDevice>, String> {
    let slice = SliceDevice::new(name, Arc::clone(device), start, size).map_err(|error| error.to_string())?;
    Ok(Arc::new(slice))
}
