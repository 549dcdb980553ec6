//! A group by the names of its text, for readers that open volumes by name.
//!
//! Only a view: all is decoded by [`GroupMetadata`].

use std::collections::BTreeMap;

use device::{BlockDevice, DeviceError};

use super::area::Standing;
use super::assemble::PvScan;
use super::group::GroupMetadata;
use super::segment::{Extent, Mapping, VolumeSegment};
use crate::ReadError;

/// A physical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// Its id, as the text has it: with dashes.
    pub id: String,
    /// Its size as it knows it, bytes.
    pub size: u64,
    /// Where its metadata areas are, bytes: start and length.
    pub areas: Vec<(u64, u64)>,
    /// The current text, if it keeps one that is whole.
    pub current: Option<String>,
}

/// A volume group, as one text has it. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Number of this generation of the text.
    pub seqno: u64,
    /// Size of an extent.
    pub extent: u64,
    /// Physical volumes by the names that the text gives them: id, and where their first extent is.
    pub physical: BTreeMap<String, (String, u64)>,
    /// Logical volumes, in order.
    pub logical: Vec<LogicalVolume>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name.
    pub name: String,
    /// People see it, other than the parts of mirrors, pools and the like.
    pub visible: bool,
    /// Its segments, in order.
    pub segments: Vec<Segment>,
}

/// A run of a logical volume. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the volume.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// How it is made.
    pub kind: SegmentKind,
}

/// A part of a physical or another logical volume, by its name in the text, from an extent on.
pub type Area = (String, u64);

/// How a segment is made. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Striped over areas; one area is simply linear.
    Striped {
        /// Bytes that go to one area at a time; 0 if there is one area.
        chunk: u64,
        /// The areas.
        areas: Vec<Area>,
    },
    /// All areas are the same.
    Mirror {
        /// The areas.
        areas: Vec<Area>,
    },
    /// Device-mapper RAID over logical volumes.
    Raid {
        /// Its kind: `raid5_ls` and so on.
        kind: String,
        /// Chunk.
        chunk: u64,
        /// The volumes of the members' metadata and data; an empty name where there is none.
        members: Vec<(String, String)>,
    },
    /// A pool of thin volumes.
    ThinPool {
        /// The volume of its metadata.
        metadata: String,
        /// The volume of its data.
        data: String,
        /// Its block size.
        chunk: u64,
    },
    /// A thin volume.
    Thin {
        /// Its pool.
        pool: String,
        /// Its number there.
        device: u64,
    },
    /// The changes of a snapshot.
    Snapshot {
        /// The volume it is a snapshot of.
        origin: String,
        /// The volume that holds the exceptions.
        store: String,
        /// Bytes of one exception.
        chunk: u64,
    },
    /// Something else.
    Other(String),
}

/// The physical volume on the device, if it is one.
///
/// # Errors
/// The label's place can't be read.
pub fn physical_volume(device: &dyn BlockDevice) -> Result<Option<PhysicalVolume>, DeviceError> {
    let scan = scan(device)?;
    let Some(label) = scan.as_ref().and_then(|scan| scan.label.as_ref()) else {
        let unread = scan.into_iter().flat_map(|scan| scan.problems).find_map(|problem| match problem {
            ReadError::Device(error) => Some(error),
            ReadError::Field(_) => None,
        });
        return unread.map_or(Ok(None), Err);
    };
    let areas = scan.iter().flat_map(|scan| &scan.areas);
    let valid = |text: &&super::Generation| text.standing == Standing::Committed;
    Ok(Some(PhysicalVolume {
        id: label.uuid.clone(),
        size: label.device_size,
        areas: label.metadata_areas.iter().map(|area| (area.offset, area.size)).collect(),
        current: areas.flat_map(|area| &area.generations).find(valid).map(|text| text.text.clone()),
    }))
}

/// All whole texts that are still in the metadata areas, of all generations, in the order of their place.
///
/// # Errors
/// The device does not tell its size. Of areas that can't be read in part, the rest is looked at.
pub fn older_texts(device: &dyn BlockDevice, volume: &PhysicalVolume) -> Result<Vec<String>, DeviceError> {
    let _ = device.size()?;
    let areas = volume.areas.iter();
    let areas = areas.filter_map(|(start, size)| super::MetadataArea::read(device, *start, *size));
    let mut texts: Vec<_> = areas.flat_map(|area| area.generations).collect();
    texts.sort_by_key(|text| text.offset);
    Ok(texts.into_iter().map(|text| text.text).collect())
}

fn scan(device: &dyn BlockDevice) -> Result<Option<PvScan>, DeviceError> {
    PvScan::read(device).map_err(|error| match error {
        ReadError::Device(error) => error,
        // Only the device's size is asked for before anything is listed instead.
        ReadError::Field(error) => DeviceError {
            device: device.info().name.clone(),
            operation: device::Operation::Read,
            offset: error.offset,
            length: 0,
            kind: device::DeviceErrorKind::Io(error.to_string()),
        },
    })
}

impl VolumeGroup {
    /// What a text says; `None` if it is no text of a volume group, or says what can't be.
    pub fn parse(text: &str) -> Option<Self> {
        let group = GroupMetadata::parse(text.as_bytes(), "text", 0).ok()?;
        group.problems.is_empty().then(|| Self::from(&group))
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&LogicalVolume> {
        self.logical.iter().find(|volume| volume.name == name)
    }
}

impl From<&GroupMetadata> for VolumeGroup {
    fn from(group: &GroupMetadata) -> Self {
        let physical = group.physical.iter();
        let segment = |segment: &VolumeSegment| Segment {
            start: segment.start,
            size: segment.length,
            kind: kind(group, &segment.mapping),
        };
        let volumes = group.logical.iter().map(|volume| LogicalVolume {
            name: volume.name.clone(),
            visible: volume.visible,
            segments: volume.segments.iter().map(segment).collect(),
        });
        Self {
            name: group.name.clone(),
            id: group.uuid.clone(),
            seqno: group.seqno,
            extent: group.extent_size,
            physical: physical
                .map(|entry| (entry.name.clone(), (entry.uuid.clone(), entry.extents_start)))
                .collect(),
            logical: volumes.collect(),
        }
    }
}

impl LogicalVolume {
    /// Its size, bytes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.start.saturating_add(segment.size)).max().unwrap_or(0)
    }
}

fn kind(group: &GroupMetadata, mapping: &Mapping) -> SegmentKind {
    // Numbers come from the group itself, so there is a name for each.
    let name = |lv: usize| group.logical.get(lv).map(|volume| volume.name.clone()).unwrap_or_default();
    let area = |extent: &Extent| match extent {
        Extent::Physical { pv, offset } => group.physical.get(*pv).map_or_else(Default::default, |entry| {
            (entry.name.clone(), offset.saturating_sub(entry.extents_start) / group.extent_size)
        }),
        Extent::Logical { lv, offset } => (name(*lv), offset / group.extent_size),
        Extent::Unknown { name } => (name.clone(), 0),
    };
    let other = |name: &str| SegmentKind::Other(name.to_owned());
    match mapping {
        Mapping::Striped { chunk, stripes } => SegmentKind::Striped {
            chunk: if stripes.len() == 1 { 0 } else { *chunk },
            areas: stripes.iter().map(area).collect(),
        },
        Mapping::Integrity { origin } => SegmentKind::Striped { chunk: 0, areas: vec![(name(*origin), 0)] },
        Mapping::Mirror { copies, .. } => SegmentKind::Mirror { areas: copies.iter().map(area).collect() },
        Mapping::Raid(set) => SegmentKind::Raid {
            kind: set.name.clone(),
            chunk: set.chunk,
            members: set
                .members
                .iter()
                .map(|image| {
                    (image.meta.map(name).unwrap_or_default(), image.data.map(name).unwrap_or_default())
                })
                .collect(),
        },
        Mapping::ThinPool { data, metadata, chunk, .. } => {
            SegmentKind::ThinPool { metadata: name(*metadata), data: name(*data), chunk: *chunk }
        }
        // What lies below an external origin would be missing from it.
        Mapping::Thin { external: Some(_), .. } => other("thin with an external origin"),
        Mapping::Thin { pool, device, external: None } => {
            SegmentKind::Thin { pool: name(*pool), device: u64::from(*device) }
        }
        Mapping::Snapshot { origin, store, chunk, .. } => {
            SegmentKind::Snapshot { origin: name(*origin), store: name(*store), chunk: *chunk }
        }
        Mapping::Cached { .. } => other("cache"),
        Mapping::CachePool { .. } => other("cache-pool"),
        Mapping::Zero => other("zero"),
        Mapping::Error => other("error"),
        Mapping::Other { name } => other(name),
    }
}

#[cfg(test)]
mod tests {
    use super::{SegmentKind, VolumeGroup};

    const TEXT: &str = r#"vg {
id = "Stl"  # comment { "
seqno = 3
extent_size = 2048
physical_volumes { pv0 { id = "TAT" pe_start = 2048 pe_count = 70 } }
logical_volumes {
 data { id="x" status = ["READ", "VISIBLE"] segment_count = 2
  segment1 { start_extent = 0 extent_count = 28 type = "striped" stripe_count = 1 stripes = ["pv0", 0] }
  segment2 { start_extent = 28 extent_count = 2 type = "striped" stripe_count = 2 stripe_size = 128
   stripes = ["pv0", 30, "pv0", 40] } }
 r { status = [] segment_count = 1
  segment1 { start_extent = 0 extent_count = 4 type = "raid5_ls" stripe_size = 128
   raids = ["r_rmeta_0", "r_rimage_0", "r_rmeta_1", "r_rimage_1"] } }
} }
creation_time = 1
"#;

    #[test]
    fn names_and_extents() {
        let group = VolumeGroup::parse(TEXT).expect("a group");
        assert_eq!((group.name.as_str(), group.seqno, group.extent), ("vg", 3, 1 << 20));
        assert_eq!(group.physical["pv0"], ("TAT".to_owned(), 1 << 20));
        let data = group.volume("data").expect("data");
        assert_eq!((data.visible, data.size()), (true, 30 << 20));
        let areas = vec![("pv0".to_owned(), 0)];
        assert_eq!(data.segments[0].kind, SegmentKind::Striped { chunk: 0, areas });
        let areas = vec![("pv0".to_owned(), 30), ("pv0".to_owned(), 40)];
        assert_eq!(data.segments[1].kind, SegmentKind::Striped { chunk: 65536, areas });
        let raid = &group.volume("r").expect("r").segments[0].kind;
        assert!(matches!(raid, SegmentKind::Raid { members, .. } if members.len() == 2));
        assert_eq!(VolumeGroup::parse(&TEXT.replace("start_extent = 28", "start_extent = 29")), None);
    }
}
