//! A volume group as its text describes it: names become numbers, extents become bytes.

use std::collections::HashSet;

use super::segment::{Names, VolumeSegment};
use super::text::{Section, Value};
use crate::FieldError;
use crate::md::error::Site;

const SECTOR: u64 = 512;
const CONTENTS: &str = "Text Format Volume Group";
/// No volume has more bytes; below this, sums of two never overflow.
pub(super) const SIZE_MAX: u64 = 1 << 60;

/// A physical volume as its group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvEntry {
    /// Its name within the metadata, `pv0`.
    pub name: String,
    /// Its UUID, with dashes.
    pub uuid: String,
    /// Where it was last seen; a hint.
    pub device: Option<String>,
    /// The device's size, bytes.
    pub device_size: Option<u64>,
    /// Where its first extent begins, bytes on the device.
    pub extents_start: u64,
    /// How many extents it has.
    pub extent_count: u64,
    /// Whether the group has noted that it is missing.
    pub missing: bool,
}

impl PvEntry {
    /// How large the device must be to have all extents, bytes.
    pub fn needed(&self, extent_size: u64) -> u64 {
        self.extents_start.saturating_add(self.extent_count.saturating_mul(extent_size))
    }
}

/// A logical volume: visible ones, and the hidden ones that others are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID, with dashes.
    pub uuid: String,
    /// Whether people see it.
    pub visible: bool,
    /// Its size, bytes.
    pub size: u64,
    /// Its parts, in order and without overlaps.
    pub segments: Vec<VolumeSegment>,
}

/// One version of a volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Its name.
    pub name: String,
    /// Its UUID, with dashes.
    pub uuid: String,
    /// Grows with every change.
    pub seqno: u64,
    /// Bytes.
    pub extent_size: u64,
    /// When this version was written, seconds since 1970.
    pub created: Option<u64>,
    /// The command that wrote it.
    pub description: Option<String>,
    /// Its physical volumes.
    pub physical: Vec<PvEntry>,
    /// Its logical volumes.
    pub logical: Vec<Volume>,
    /// What in it can't be right; those parts are left out.
    pub problems: Vec<FieldError>,
}

impl GroupMetadata {
    /// Reads a text that lies at byte `offset` of `device`; a `vgcfgbackup` file is one, too.
    ///
    /// Faults in a physical or logical volume are noted among [`GroupMetadata::problems`], and the rest is read.
    ///
    /// # Errors
    /// The text does not follow the grammar, or what makes it a volume group is missing or absurd.
    pub fn parse(text: &[u8], device: &str, offset: u64) -> Result<Self, FieldError> {
        let site = Site { device, offset, structure: "LVM2 metadata text" };
        let root = Section::parse(text).map_err(|error| site.error("text", error, "the grammar of LVM2"))?;
        // It follows the group, so it may be what is lost of an old text.
        let contents = root.text("contents").unwrap_or(CONTENTS);
        site.require(contents == CONTENTS, "contents", contents, CONTENTS)?;
        let (name, group) = root
            .sections()
            .find(|(_, section)| section.get("extent_size").is_some())
            .ok_or_else(|| site.error("volume group", "missing", "a section with an extent size"))?;
        let number = |field: &'static str| {
            group.number(field).ok_or_else(|| site.error(field, "missing", "a number that is not negative"))
        };
        let extent_sectors = number("extent_size")?;
        let sane = extent_sectors > 0 && extent_sectors <= 1 << 40;
        site.require(sane, "extent_size", extent_sectors, "1 to 2^40 sectors")?;
        let mut problems = Vec::new();
        let mut result = Self {
            name: name.to_owned(),
            uuid: group.text("id").ok_or_else(|| site.error("id", "missing", "a UUID"))?.to_owned(),
            seqno: number("seqno")?,
            extent_size: extent_sectors * SECTOR,
            created: root.number("creation_time"),
            description: root.text("description").filter(|text| !text.is_empty()).map(str::to_owned),
            physical: Vec::new(),
            logical: Vec::new(),
            problems: Vec::new(),
        };
        for (name, section) in group.section("physical_volumes").into_iter().flat_map(Section::sections) {
            match physical(name, section, result.extent_size, site) {
                Ok(entry) => result.physical.push(entry),
                Err(error) => problems.push(error),
            }
        }
        let volumes = group.section("logical_volumes");
        let sections = || volumes.into_iter().flat_map(Section::sections);
        let mut names = Names { extent_size: result.extent_size, ..Names::default() };
        for (number, entry) in result.physical.iter().enumerate() {
            names.physical.insert(&entry.name, (number, entry.extents_start, entry.extent_count));
        }
        names.logical = sections().enumerate().map(|(number, (name, _))| (name, number)).collect();
        result.logical =
            sections().map(|(name, section)| logical(name, section, &names, site, &mut problems)).collect();
        result.problems = problems;
        Ok(result)
    }

    /// The number of the logical volume with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.logical.iter().position(|volume| volume.name == name)
    }
}

fn has(section: &Section, list: &str, flag: &str) -> bool {
    section.texts(list).any(|text| text == flag)
}

fn physical(name: &str, section: &Section, extent_size: u64, site: Site<'_>) -> Result<PvEntry, FieldError> {
    let number = |field: &'static str| {
        let found = || format!("missing in {name}");
        section.number(field).ok_or_else(|| site.error(field, found(), "a number that is not negative"))
    };
    let (start, count) = (number("pe_start")?, number("pe_count")?);
    let entry = PvEntry {
        name: name.to_owned(),
        uuid: section
            .text("id")
            .ok_or_else(|| site.error("id", format!("missing in {name}"), "a UUID"))?
            .to_owned(),
        device: section.text("device").map(str::to_owned),
        device_size: section.number("dev_size").and_then(|sectors| sectors.checked_mul(SECTOR)),
        extents_start: start.saturating_mul(SECTOR),
        extent_count: count,
        missing: has(section, "flags", "MISSING") || has(section, "status", "MISSING"),
    };
    let needed = entry.needed(extent_size);
    site.require(needed <= SIZE_MAX, "pe_count", format!("{count} in {name}"), "what a device can have")?;
    Ok(entry)
}

fn logical(
    name: &str,
    section: &Section,
    names: &Names<'_>,
    site: Site<'_>,
    problems: &mut Vec<FieldError>,
) -> Volume {
    let mut segments: Vec<VolumeSegment> = Vec::new();
    let mut numbered: HashSet<u64> = HashSet::new();
    for (key, section) in section.sections() {
        let Some(number) = key.strip_prefix("segment").and_then(|number| number.parse().ok()) else {
            continue;
        };
        if !numbered.insert(number) {
            continue;
        }
        match VolumeSegment::parse(section, names, &|field, found: String, wanted| {
            site.error(field, format!("{found} in {key} of {name}"), wanted)
        }) {
            Ok(segment) => segments.push(segment),
            Err(error) => problems.push(error),
        }
    }
    segments.sort_by_key(|segment| segment.start);
    let mut end = 0;
    segments.retain(|segment| {
        let fits = segment.start >= end;
        if fits {
            if segment.start > end {
                problems.push(site.error("start_extent", format!("a gap at byte {end} of {name}"), "no gap"));
            }
            end = segment.start + segment.length;
        } else {
            let found = format!("byte {} of {name}", segment.start);
            problems.push(site.error("start_extent", found, format!("at least byte {end}")));
        }
        fits
    });
    let count = section.number("segment_count");
    if count != Some(segments.len() as u64) {
        let wanted = count.map_or_else(|| "a number".to_owned(), |count| format!("{count} segments"));
        problems.push(site.error("segment_count", format!("{} segments in {name}", segments.len()), wanted));
    }
    Volume {
        name: name.to_owned(),
        uuid: section.text("id").unwrap_or_default().to_owned(),
        visible: has(section, "status", "VISIBLE"),
        size: end,
        segments,
    }
}

/// A string or number of a list, for messages.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::List(_) | Value::Section(_) => "a list or section".to_owned(),
    }
}
