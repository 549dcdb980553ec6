//! Logical volumes of LVM2 as devices, from the maps that `formats::lvm` makes of their groups.

use std::cell::Cell;
use std::sync::Arc;

use device::{BlockDevice, SliceDevice};
use formats::lvm::{Extent, Group, Lvm, Mapping, PvScan, RaidMeta, RaidSet, VolumeSegment};
use geometry::md::{Geometry, Shape, ZoneOrder};

use super::mapped::{From, MappedDevice, Run};
use super::snapshot::{Thin, snapshot};
use crate::scan::EVENTS_BEHIND;
use crate::{ArrayDevice, Section, Source};

/// Volumes within volumes within volumes: no real group goes deeper.
const DEPTH_MAX: usize = 8;
/// Most volumes that one is made of, all in all.
const PARTS_MAX: usize = 4096;

/// The physical volumes that were found, and what LVM left on them.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) scans: Vec<PvScan>,
    pub(super) devices: Vec<Arc<dyn BlockDevice>>,
}

impl Found {
    /// Adds a device, if LVM left anything on it.
    pub(super) fn look(&mut self, device: &Arc<dyn BlockDevice>) {
        let Ok(Some(scan)) = PvScan::read(&**device) else { return };
        if scan.label.is_some() || scan.areas.iter().any(|area| !area.generations.is_empty()) {
            self.scans.push(scan);
            self.devices.push(Arc::clone(device));
        }
    }

    /// The groups that they make.
    pub(super) fn groups(&self) -> Vec<Group> {
        Lvm::assemble(&self.scans).groups
    }
}

/// A device and where on it something begins, or why it is not there.
type Place = Result<(Arc<dyn BlockDevice>, u64), String>;

/// Whether people use this volume by itself.
pub(super) fn shown(group: &Group, lv: usize) -> bool {
    let volume = &group.volumes.logical[lv];
    let hidden = |segment: &VolumeSegment| {
        matches!(
            segment.mapping,
            Mapping::ThinPool { .. } | Mapping::CachePool { .. } | Mapping::Snapshot { .. }
        )
    };
    volume.visible && !volume.segments.iter().any(hidden)
}

/// A logical volume as a device.
///
/// # Errors
/// Why it can't be made, in words.
pub(super) fn open(group: &Group, found: &Found, lv: usize) -> Result<Arc<dyn BlockDevice>, String> {
    let opening = Opening { group, found, parts: Cell::new(PARTS_MAX) };
    let Some(shot) = group.snapshot(lv) else { return opening.plain(lv, 0) };
    let origin = opening.plain(shot.origin, 1)?;
    let store = opening.plain(shot.store, 1)?;
    snapshot(opening.name(lv), &origin, &store, shot.chunk)
}

/// A volume that is being put together.
struct Opening<'a> {
    group: &'a Group,
    found: &'a Found,
    /// How many more volumes it may be made of.
    parts: Cell<usize>,
}

impl Opening<'_> {
    fn name(&self, lv: usize) -> String {
        let volumes = &self.group.volumes;
        format!("{}/{}", volumes.name, volumes.logical.get(lv).map_or("nothing", |volume| &volume.name))
    }

    /// A volume as its segments make it, even if people see it as a snapshot.
    fn plain(&self, lv: usize, depth: usize) -> Result<Arc<dyn BlockDevice>, String> {
        let name = self.name(lv);
        let left = self.parts.get().checked_sub(1).filter(|_| depth <= DEPTH_MAX);
        self.parts.set(left.ok_or_else(|| format!("{name} is made of too many volumes, or of itself"))?);
        let volume = self.group.volumes.logical.get(lv).ok_or("it is made of a volume that is not there")?;
        let mut runs = Vec::new();
        let mut end = 0;
        for segment in &volume.segments {
            if segment.start > end {
                let from = From::Nowhere("the group's metadata say nothing of this part".into());
                runs.push(Run { length: segment.start - end, from });
            }
            runs.extend(self.segment(segment, depth).map_err(|why| format!("{}: {why}", volume.name))?);
            end = segment.start + segment.length;
        }
        Ok(Arc::new(MappedDevice::new(name, runs)))
    }

    /// Where an extent lies: the device, if it is there, and the byte there.
    fn extent(&self, extent: &Extent, depth: usize) -> Result<Place, String> {
        match extent {
            Extent::Physical { pv, offset } => {
                let member = self.group.members.get(*pv).copied().flatten();
                let device = member.and_then(|member| self.found.devices.get(member));
                let missing = || {
                    let id = self.group.volumes.physical.get(*pv).map_or("?", |entry| &entry.uuid);
                    format!("physical volume {id}, which holds this part, is missing")
                };
                Ok(device.map(|device| (Arc::clone(device), *offset)).ok_or_else(missing))
            }
            Extent::Logical { lv, offset } => Ok(Ok((self.plain(*lv, depth + 1)?, *offset))),
            Extent::Unknown { name } => Ok(Err(format!("{name}, which holds this part, is not there"))),
        }
    }

    /// The devices of copies or stripes; those that are missing are told where they are read.
    fn sources(&self, extents: &[Extent], depth: usize) -> Result<Vec<Option<Source>>, String> {
        let source = |extent| {
            let found = self.extent(extent, depth)?.ok();
            Ok(found.map(|(device, start)| Source::whole(device, start)))
        };
        extents.iter().map(source).collect()
    }

    fn segment(&self, segment: &VolumeSegment, depth: usize) -> Result<Vec<Run>, String> {
        let length = segment.length;
        let run = |from| Ok(vec![Run { length, from }]);
        let whole = |device| run(From::Device(device, 0));
        match &segment.mapping {
            Mapping::Striped { stripes, .. } if stripes.len() == 1 => {
                run(match self.extent(&stripes[0], depth)? {
                    Ok((device, offset)) => From::Device(device, offset),
                    Err(why) => From::Nowhere(why.into()),
                })
            }
            Mapping::Striped { chunk, stripes } => {
                let each = length / stripes.len() as u64;
                let sources = self.sources(stripes, depth)?;
                whole(array(Shape::Raid0(ZoneOrder::Alternate), *chunk, each, sources)?)
            }
            Mapping::Mirror { copies, .. } => {
                whole(array(Shape::Raid1, 0, length, self.sources(copies, depth)?)?)
            }
            Mapping::Raid(set) => whole(self.raid(set, depth)?),
            Mapping::Thin { pool, device, external } => {
                let segments = self.group.volumes.logical.get(*pool).map_or(&[][..], |pool| &pool.segments);
                let found = segments.iter().find_map(|segment| match segment.mapping {
                    Mapping::ThinPool { data, metadata, chunk, .. } => Some((data, metadata, chunk)),
                    _ => None,
                });
                let (data, metadata, chunk) = found.ok_or("its pool is none")?;
                let thin = Thin {
                    metadata: self.plain(metadata, depth + 1)?,
                    data: self.plain(data, depth + 1)?,
                    chunk,
                    number: *device,
                    size: length,
                    external: external.map(|origin| self.plain(origin, depth + 1)).transpose()?,
                };
                thin.runs()
            }
            Mapping::Cached { origin, dirty: false, .. } | Mapping::Integrity { origin } => {
                whole(self.plain(*origin, depth + 1)?)
            }
            Mapping::Cached { origin, .. } => Err(format!(
                "what was written last may be in its cache alone, which is not read here; {} is what lies below",
                self.name(*origin)
            )),
            Mapping::Zero => run(From::Zeros),
            Mapping::Error => run(From::Nowhere("the group's metadata say that nothing is there".into())),
            Mapping::ThinPool { .. } | Mapping::CachePool { .. } => Err("it is a pool".to_owned()),
            Mapping::Snapshot { .. } => Err("it is the description of a snapshot".to_owned()),
            Mapping::Other { name } => Err(format!("segments of type {name} are not known here")),
        }
    }

    /// A RAID set, without the members that its own metadata call older than the others.
    fn raid(&self, set: &RaidSet, depth: usize) -> Result<Arc<dyn BlockDevice>, String> {
        let shape = Shape::from_codes(set.level, set.layout).map_err(|error| error.to_string())?;
        // An image whose device is gone fails where it is read, which the others make up for.
        let metas: Vec<Option<RaidMeta>> = set.members.iter().map(|member| self.meta(member.meta)).collect();
        if metas.iter().flatten().any(|meta| meta.reshape.is_some()) {
            return Err(format!("a reshape of this {} was interrupted, which is not read here", set.name));
        }
        let newest = metas.iter().flatten().map(|meta| meta.events).max().unwrap_or(0);
        let mut sources = Vec::new();
        let mut size = u64::MAX;
        for (member, meta) in set.members.iter().zip(&metas) {
            let start = meta.as_ref().map_or(0, |meta| meta.data_offset);
            let device = member.data.and_then(|data| self.plain(data, depth + 1).ok());
            if let Some(bytes) = device.as_ref().and_then(|device| device.size().ok()) {
                let reserved = start.max(set.reshape_space.min(bytes));
                size = size.min(bytes - reserved.min(bytes));
            }
            let valid = meta.as_ref().and_then(|meta| meta.recovered).unwrap_or(u64::MAX);
            sources.push(device.map(|device| Source { valid, ..Source::whole(device, start) }));
        }
        // Old members are left out, the oldest first, as far as the others do without them.
        let mut old: Vec<(u64, usize)> = metas
            .iter()
            .enumerate()
            .filter_map(|(slot, meta)| Some((meta.as_ref()?.events, slot)))
            .filter(|(events, _)| events.saturating_add(EVENTS_BEHIND) < newest)
            .collect();
        old.sort_unstable();
        let tolerated = usize::from(shape.tolerates(set.members.len().min(usize::from(u16::MAX)) as u16));
        for (_, slot) in old {
            if sources.iter().filter(|source| source.is_none()).count() < tolerated {
                sources[slot] = None;
            }
        }
        array(shape, set.chunk, size, sources)
    }

    /// What a metadata image says, if it can be read.
    fn meta(&self, lv: Option<usize>) -> Option<RaidMeta> {
        let device = self.plain(lv?, 1).ok()?;
        let mut bytes = vec![0; RaidMeta::LENGTH];
        device.read(0, &mut bytes).ok()?;
        RaidMeta::parse(&bytes, &device.info().name, 0).ok()?
    }
}

/// An array over members of `size` bytes.
fn array(
    shape: Shape,
    chunk: u64,
    size: u64,
    sources: Vec<Option<Source>>,
) -> Result<Arc<dyn BlockDevice>, String> {
    let sizes = vec![if size == u64::MAX { 0 } else { size }; sources.len()];
    let geometry = Geometry::new(shape, chunk, &sizes).map_err(|error| error.to_string())?;
    Ok(Arc::new(ArrayDevice::new("logical volume", Section { geometry, sources })))
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
