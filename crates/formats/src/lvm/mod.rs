//! LVM2: physical volumes and the text that says what volumes there are.
//!
//! ```text
//! device --physical_volume--> PhysicalVolume: its id, and the text of every generation that is still there
//!     newest text of all physical volumes --VolumeGroup::parse--> VolumeGroup: logical volumes by segments
//! ```

mod text;

use std::collections::BTreeMap;

use device::{BlockDevice, DeviceError};

use crate::crc::crc32_raw;
use crate::fields::Fields;
use text::{Section, Value};

const LVM_CRC: u32 = 0xf597_a6cf;
const SECTOR: u64 = 512;
/// Most bytes of a metadata area that are looked at.
const AREA_MAX: u64 = 16 << 20;
/// Most bytes of one text.
const TEXT_MAX: u64 = 4 << 20;

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
        /// Bytes that go to one area at a time.
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
        /// The volumes of the members' metadata and data.
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
    let size = device.size()?;
    let mut head = vec![0; size.min(2048) as usize];
    device.read(0, &mut head)?;
    Ok(head.chunks_exact(512).find_map(|sector| label(device, size, sector)))
}

fn label(device: &dyn BlockDevice, size: u64, sector: &[u8]) -> Option<PhysicalVolume> {
    if !sector.holds(0, b"LABELONE") || !sector.holds(24, b"LVM2 001") {
        return None;
    }
    if crc32_raw(LVM_CRC, sector.get(20..)?) != sector.le32(16)? {
        return None;
    }
    let header = sector.get(sector.le32(20)? as usize..)?;
    let id = header.text(0, 32).filter(|id| id.len() == 32 && id.is_ascii())?;
    let id = [&id[..6], &id[6..10], &id[10..14], &id[14..18], &id[18..22], &id[22..26], &id[26..]].join("-");
    let mut pairs = header.get(40..)?.chunks_exact(16).map_while(|pair| Some((pair.le64(0)?, pair.le64(8)?)));
    pairs.by_ref().find(|(offset, _)| *offset == 0)?;
    let areas: Vec<(u64, u64)> = pairs.take_while(|(offset, _)| *offset != 0).collect();
    let current = areas.iter().find_map(|area| current_text(device, size, *area));
    Some(PhysicalVolume { id, size: header.le64(32)?, areas, current })
}

/// The text that the header of a metadata area points to, if its checksum is right.
fn current_text(device: &dyn BlockDevice, size: u64, (start, length): (u64, u64)) -> Option<String> {
    start.checked_add(length).filter(|end| *end <= size)?;
    let mut header = [0; 512];
    device.read(start, &mut header).ok()?;
    let header = &header[..];
    if crc32_raw(LVM_CRC, header.get(4..)?) != header.le32(0)? || !header.holds(4, b" LVM2 x[5A%r0N*>") {
        return None;
    }
    let (at, bytes) = (header.le64(40)?, header.le64(48)?);
    if at < SECTOR || at >= length || bytes > TEXT_MAX.min(length) {
        return None;
    }
    // The area is a ring behind its header.
    let first = bytes.min(length - at);
    let mut text = vec![0; bytes as usize];
    device.read(start + at, &mut text[..first as usize]).ok()?;
    device.read(start + SECTOR, &mut text[first as usize..]).ok()?;
    if crc32_raw(LVM_CRC, &text) != header.le32(56)? {
        return None;
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8(text[..end].to_vec()).ok()
}

/// All whole texts that are still in the metadata areas, of all generations, in the order of their place.
///
/// # Errors
/// An area can't be read.
pub fn older_texts(device: &dyn BlockDevice, volume: &PhysicalVolume) -> Result<Vec<String>, DeviceError> {
    let mut texts = Vec::new();
    for &(start, length) in &volume.areas {
        let length = length.min(AREA_MAX).min(device.size()?.saturating_sub(start));
        let mut area = vec![0; length as usize];
        device.read(start, &mut area)?;
        // Each text begins at a sector with the group's name and a brace, and ends with a NUL.
        for at in (512..area.len()).step_by(512) {
            let rest = &area[at..];
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            if let Ok(text) = std::str::from_utf8(&rest[..end])
                && text.split_once('\n').is_some_and(|(first, _)| first.ends_with(" {"))
                && VolumeGroup::parse(text).is_some()
            {
                texts.push(text.to_owned());
            }
        }
    }
    Ok(texts)
}

impl VolumeGroup {
    /// What a text says; `None` if it is no text of a volume group, or says what can't be.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = Section::parse(text)?;
        let (name, group) = whole.sections.first()?;
        let extent = group.number("extent_size")?.checked_mul(SECTOR).filter(|extent| *extent > 0)?;
        let physical = group.section("physical_volumes")?.sections.iter();
        let physical = physical.map(|(name, section)| {
            let start = section.number("pe_start")?.checked_mul(SECTOR)?;
            Some((name.clone(), (section.text("id")?.to_owned(), start)))
        });
        let volumes = group.section("logical_volumes").map_or(&[][..], |section| &section.sections);
        Some(Self {
            name: name.clone(),
            id: group.text("id")?.to_owned(),
            seqno: group.number("seqno")?,
            extent,
            physical: physical.collect::<Option<_>>()?,
            logical: volumes
                .iter()
                .map(|(name, section)| logical(name, section, extent))
                .collect::<Option<_>>()?,
        })
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&LogicalVolume> {
        self.logical.iter().find(|volume| volume.name == name)
    }
}

impl LogicalVolume {
    /// Its size, bytes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.start.saturating_add(segment.size)).max().unwrap_or(0)
    }
}

fn logical(name: &str, section: &Section, extent: u64) -> Option<LogicalVolume> {
    let is = |flag: &str| matches!(flag, "VISIBLE");
    let status = section.list("status").unwrap_or_default();
    let visible = status.iter().any(|value| matches!(value, Value::Text(flag) if is(flag)));
    let segments = section.sections.iter().filter(|(name, _)| name.starts_with("segment"));
    let mut segments =
        segments.map(|(_, section)| segment(section, extent)).collect::<Option<Vec<Segment>>>()?;
    segments.sort_by_key(|segment| segment.start);
    Some(LogicalVolume { name: name.to_owned(), visible, segments })
}

fn segment(section: &Section, extent: u64) -> Option<Segment> {
    let bytes = |name: &str| section.number(name)?.checked_mul(extent);
    let sectors = |name: &str| section.number(name)?.checked_mul(SECTOR);
    let text = |name: &str| section.text(name).map(str::to_owned);
    let kind = section.text("type")?;
    // Some vendors' kinds are linear with a name of their own.
    let base = kind.split('+').next().unwrap_or(kind);
    let kind = match base {
        "striped" | "linear" => {
            let areas = areas(section.list("stripes")?)?;
            SegmentKind::Striped { chunk: sectors("stripe_size").unwrap_or(0), areas }
        }
        "mirror" => SegmentKind::Mirror { areas: areas(section.list("mirrors")?)? },
        "thin-pool" => SegmentKind::ThinPool {
            metadata: text("metadata")?,
            data: text("pool")?,
            chunk: sectors("chunk_size")?,
        },
        "thin" => SegmentKind::Thin { pool: text("thin_pool")?, device: section.number("device_id")? },
        "snapshot" => SegmentKind::Snapshot {
            origin: text("origin")?,
            store: text("cow_store")?,
            chunk: sectors("chunk_size")?,
        },
        raid if raid.starts_with("raid") => {
            let names =
                section.list("raids").or_else(|| section.list("raid0_lvs"))?.iter().map(
                    |value| match value {
                        Value::Text(name) => Some(name.clone()),
                        _ => None,
                    },
                );
            let names = names.collect::<Option<Vec<String>>>()?;
            let members = if raid.starts_with("raid0") && raid != "raid0_meta" {
                names.into_iter().map(|name| (String::new(), name)).collect()
            } else {
                names.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
            };
            SegmentKind::Raid { kind: raid.to_owned(), chunk: sectors("stripe_size").unwrap_or(0), members }
        }
        other => SegmentKind::Other(other.to_owned()),
    };
    Some(Segment { start: bytes("start_extent")?, size: bytes("extent_count")?, kind })
}

/// A list of names and extents in turn.
fn areas(list: &[Value]) -> Option<Vec<Area>> {
    let area = |pair: &[Value]| match pair {
        [Value::Text(name), Value::Number(extent)] => Some((name.clone(), u64::try_from(*extent).ok()?)),
        _ => None,
    };
    list.chunks(2).map(area).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
 r { status = [] segment1 { start_extent = 0 extent_count = 4 type = "raid5_ls" stripe_size = 128
   raids = ["r_rmeta_0", "r_rimage_0", "r_rmeta_1", "r_rimage_1"] } }
} }
creation_time = 1
"#;

    #[test]
    fn a_text_is_decoded() {
        let group = VolumeGroup::parse(TEXT).expect("a group");
        assert_eq!((group.name.as_str(), group.seqno, group.extent), ("vg", 3, 1 << 20));
        assert_eq!(group.physical["pv0"], ("TAT".to_owned(), 1 << 20));
        let data = group.volume("data").expect("data");
        assert_eq!((data.visible, data.size()), (true, 30 << 20));
        let areas = vec![("pv0".to_owned(), 30), ("pv0".to_owned(), 40)];
        assert_eq!(data.segments[1].kind, SegmentKind::Striped { chunk: 65536, areas });
        let raid = &group.volume("r").expect("r").segments[0].kind;
        assert!(matches!(raid, SegmentKind::Raid { members, .. } if members.len() == 2));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for end in 0..TEXT.len() {
            let _ = VolumeGroup::parse(&TEXT[..end]);
            let _ = VolumeGroup::parse(&TEXT[end..]);
        }
        assert_eq!(VolumeGroup::parse(&"a {".repeat(10_000)), None);
    }
}
