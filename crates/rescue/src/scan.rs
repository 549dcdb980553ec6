//! What each image is, and which belong together.

use std::collections::BTreeMap;

use device::BlockDevice;
use formats::MdVersion;
use formats::md::{RawSuperblock, Role, SUPERBLOCK_LENGTH, Superblock};
use serde::Serialize;

use crate::{ComponentSet, FirmwareSet, Image, firmware, raidframe};

/// All that was found in a pile of images.
#[derive(Clone, Debug, Serialize)]
pub struct Scan {
    /// The images, in the order given.
    pub images: Vec<ImageSummary>,
    /// The arrays, the one with the latest update first.
    pub arrays: Vec<ArraySummary>,
    /// Sets of controllers and mainboards.
    pub sets: Vec<FirmwareSet>,
    /// Sets of RAIDframe.
    pub component_sets: Vec<ComponentSet>,
    /// The images and their partitions.
    #[serde(skip)]
    pub(crate) units: Vec<Unit>,
    /// The superblocks: number of the unit, and what is there.
    #[serde(skip)]
    pub(crate) superblocks: Vec<(usize, Superblock)>,
}

/// Whatever may be a member: an image, or a partition of one.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) image: Image,
    /// Number of the image in [`Scan::images`].
    pub(crate) of: usize,
    /// It may be a member that has lost its superblock: no partition of it is, and it is not there twice.
    pub(crate) bare: bool,
    /// It is not there under another path before.
    pub(crate) first: bool,
}

/// What one image is.
#[derive(Clone, Debug, Serialize)]
pub struct ImageSummary {
    /// Its path.
    pub path: String,
    /// Its size, bytes.
    pub size: u64,
    /// Bytes that its map says are bad.
    pub bad: u64,
    /// What was recognised on it, in words.
    pub holds: Vec<String>,
    /// What looks wrong.
    pub problems: Vec<String>,
    /// Its partitions, if it has any.
    pub partitions: Vec<PartitionSummary>,
}

/// What one partition is.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionSummary {
    /// Its number.
    pub number: u32,
    /// Where it begins on the disk, bytes.
    pub start: u64,
    /// Its size, bytes.
    pub size: u64,
    /// What was recognised on it, in words.
    pub holds: Vec<String>,
    /// What looks wrong.
    pub problems: Vec<String>,
}

/// Members that say they belong to one array.
#[derive(Clone, Debug, Serialize)]
pub struct ArraySummary {
    /// Its UUID, as mdadm writes it.
    pub uuid: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Metadata version.
    pub version: String,
    /// Level and layout, in words.
    pub shape: String,
    /// Chunk size, bytes.
    pub chunk: u64,
    /// Slots.
    pub raid_disks: u32,
    /// When it was created, seconds since 1970.
    pub created: u64,
    /// When a member was updated last, seconds since 1970.
    pub updated: u64,
    /// The highest event count.
    pub events: u64,
    /// An unfinished reshape.
    pub reshaping: bool,
    /// Its members, by role.
    pub members: Vec<MemberSummary>,
    /// Slots that no image claims.
    pub missing: Vec<u32>,
    /// What members say otherwise than the newest.
    pub contradictions: Vec<String>,
}

/// How up to date a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// As new as the newest.
    Fresh,
    /// Dropped from the array before the others.
    Stale,
    /// Another image says that it is the same device.
    Duplicate,
    /// Without a slot: a spare, a journal, or thrown out.
    NoSlot,
}

/// One member of an array.
#[derive(Clone, Debug, Serialize)]
pub struct MemberSummary {
    /// Number of the image in [`Scan::images`].
    pub image: usize,
    /// Its path.
    pub path: String,
    /// Which partition of it is the member, if not all of it is.
    pub partition: Option<u32>,
    /// The slot it says it has.
    pub slot: Option<u16>,
    /// Its event count.
    pub events: u64,
    /// When it was updated last, seconds since 1970.
    pub updated: u64,
    /// How up to date it is.
    pub state: MemberState,
    /// What else its superblock says that matters.
    pub notes: Vec<String>,
}

/// Looks at all images, and at the partitions on them. What can't be read or is damaged is noted, and the rest goes on.
pub fn scan(images: &[Image]) -> Scan {
    let mut scan = Scan {
        images: Vec::new(),
        arrays: Vec::new(),
        sets: Vec::new(),
        component_sets: Vec::new(),
        units: Vec::new(),
        superblocks: Vec::new(),
    };
    for (number, image) in images.iter().enumerate() {
        let (summary, units, superblocks) = look(images, number, image);
        scan.images.push(summary);
        let first = scan.units.len();
        scan.units.extend(units);
        scan.superblocks.extend(superblocks.into_iter().map(|(unit, superblock)| (first + unit, superblock)));
    }
    let mut groups: BTreeMap<[u8; 16], Vec<usize>> = BTreeMap::new();
    for (index, (_, superblock)) in scan.superblocks.iter().enumerate() {
        groups.entry(superblock.array_uuid).or_default().push(index);
    }
    let mut arrays: Vec<ArraySummary> = groups
        .into_values()
        .map(|group| {
            let members: Vec<&(usize, Superblock)> =
                group.into_iter().map(|index| &scan.superblocks[index]).collect();
            summarize(&scan.units, &members)
        })
        .collect();
    arrays.sort_by_key(|array| std::cmp::Reverse((array.created, array.updated)));
    scan.arrays = arrays;
    scan.sets = firmware::sets(&scan.units);
    scan.component_sets = raidframe::sets(&scan.units);
    scan
}

fn is_same(one: &Image, other: &Image) -> bool {
    one.identity.is_some() && one.identity == other.identity
}

/// What an image is; the units on it, the whole first; the superblocks with the numbers of the units.
fn look(
    images: &[Image],
    number: usize,
    image: &Image,
) -> (ImageSummary, Vec<Unit>, Vec<(usize, Superblock)>) {
    let mut summary = ImageSummary {
        path: image.path.to_string_lossy().into_owned(),
        size: 0,
        bad: 0,
        holds: Vec::new(),
        problems: Vec::new(),
        partitions: Vec::new(),
    };
    if let Some(other) = images[..number].iter().find(|other| is_same(other, image)) {
        summary.problems.push(format!("it is the same file or disk as {}", other.path.display()));
        // A second path to the same file adds nothing.
        let unit = Unit { image: image.clone(), of: number, bare: false, first: false };
        summary.size = image.device.size().unwrap_or(0);
        return (summary, vec![unit], Vec::new());
    }
    let mut units = vec![Unit { image: image.clone(), of: number, bare: true, first: true }];
    let size = match image.device.size() {
        Ok(size) => size,
        Err(error) => {
            summary.problems.push(error.to_string());
            return (summary, units, Vec::new());
        }
    };
    summary.size = size;
    if let Some(bad) = image.bad_map() {
        summary.bad = bad.bad(0..size).map(|(range, _)| range.end - range.start).sum();
    }
    if size == 0 {
        summary.problems.push("it is empty".to_owned());
    }
    let (holds, problems) = recognise(&*image.device, summary.bad == 0);
    summary.holds = holds;
    summary.problems.extend(problems);
    if image.backup().is_some() {
        summary.holds.push("what mdadm --grow set aside (a backup file)".to_owned());
        units[0].bare = false;
        return (summary, units, Vec::new());
    }
    let (own, problems) = superblocks_of(&*image.device, size);
    summary.problems.extend(problems);
    summary.problems.extend(raidframe::problem_of(&*image.device, size));
    let mut superblocks: Vec<(usize, Superblock)> =
        own.into_iter().map(|superblock| (0, superblock)).collect();
    let (partitions, inside) = image.partitions();
    // The superblock at a disk's end may be that of its last partition.
    let within = |superblock: &Superblock| {
        let end = |partition: &Image| partition.start + partition.device.size().unwrap_or(0);
        partitions.iter().any(|(partition, _)| (partition.start..end(partition)).contains(&superblock.offset))
    };
    superblocks.retain(|(_, superblock)| superblock.version != MdVersion::V0_90 || !within(superblock));
    // Where an array begins with its member, so does its partition table.
    if superblocks.iter().any(|(_, superblock)| superblock.data_offset == 0) {
        return (summary, units, superblocks);
    }
    units[0].bare = partitions.is_empty() || !inside;
    for (partition, divided) in partitions {
        let size = partition.device.size().unwrap_or(0);
        let (holds, mut problems) = recognise(&*partition.device, summary.bad == 0);
        let (own, told) = superblocks_of(&*partition.device, size);
        problems.extend(told);
        problems.extend(raidframe::problem_of(&*partition.device, size));
        superblocks.extend(own.into_iter().map(|superblock| (units.len(), superblock)));
        summary.partitions.push(PartitionSummary {
            number: partition.partition.unwrap_or(0),
            start: partition.start,
            size,
            holds,
            problems,
        });
        units.push(Unit { image: partition, of: number, bare: inside && !divided, first: true });
    }
    (summary, units, superblocks)
}

/// What is recognised on a device, in words, and what is wrong with it. Without `strict`, places that can't be read are not
/// told.
fn recognise(device: &dyn BlockDevice, strict: bool) -> (Vec<String>, Vec<String>) {
    match formats::probe_damaged(device) {
        Ok((found, missed)) => {
            // Bad sectors of a map are counted; a read that fails without one says more.
            let missed = missed.filter(|_| strict).map(|error| error.to_string());
            (found.iter().map(ToString::to_string).collect(), missed.into_iter().collect())
        }
        Err(error) => (Vec::new(), vec![error.to_string()]),
    }
}

/// The superblocks of a device of `size` bytes, and what is wrong with those that are damaged.
pub(crate) fn superblocks_of(device: &dyn BlockDevice, size: u64) -> (Vec<Superblock>, Vec<String>) {
    let (mut superblocks, mut problems) = (Vec::new(), Vec::new());
    for version in MdVersion::ALL {
        match read_superblock(device, version, size) {
            None => {}
            Some(Ok(superblock)) => {
                let end = superblock.data_offset.saturating_add(superblock.data_size);
                if end > size {
                    problems.push(format!(
                        "it ends {} bytes before what its superblock says is the array's: it is cut short, and what lay there is lost",
                        end - size
                    ));
                }
                superblocks.push(superblock);
            }
            Some(Err(problem)) => problems.push(problem),
        }
    }
    (superblocks, problems)
}

/// The superblock of this version; `None` if there is none, or what is wrong with it.
fn read_superblock(
    device: &dyn BlockDevice,
    version: MdVersion,
    size: u64,
) -> Option<Result<Superblock, String>> {
    let at = version.superblock_offset(size)?;
    let mut bytes = vec![0; SUPERBLOCK_LENGTH.min((size - at) as usize)];
    if let Err(error) = device.read(at, &mut bytes) {
        // What mdadm writes by default fits into one sector, and the next ones may be bad.
        bytes.truncate(512);
        if version == MdVersion::V0_90 || device.read(at, &mut bytes).is_err() {
            return Some(Err(format!("where a superblock {} may be: {error}", version.name())));
        }
    }
    let raw = RawSuperblock::parse(version, &bytes)?;
    Some(raw.verify(version, &device.info().name, at, size).map_err(|error| error.to_string()))
}

/// A UUID as mdadm writes it.
pub(crate) fn uuid_text(uuid: [u8; 16]) -> String {
    let word = |word: &[u8]| word.try_into().map_or(0, u32::from_be_bytes);
    uuid.chunks(4).map(|bytes| format!("{:08x}", word(bytes))).collect::<Vec<_>>().join(":")
}

/// Members whose events are this close to the newest count as fresh: the kernel takes them too.
pub(crate) const EVENTS_BEHIND: u64 = 1;

/// The superblock to believe about the array: of the newest member that has a slot, else of the newest.
pub(crate) fn freshest<'a>(members: &[&'a (usize, Superblock)]) -> Option<&'a Superblock> {
    let key = |superblock: &Superblock| {
        (matches!(superblock.role, Role::Slot(_)), superblock.events, superblock.updated)
    };
    members.iter().map(|(_, superblock)| superblock).max_by_key(|superblock| key(superblock))
}

fn summarize(units: &[Unit], members: &[&(usize, Superblock)]) -> ArraySummary {
    // There is at least one member in every group; an empty one would have no array to tell about.
    let newest = freshest(members);
    let events = newest.map_or(0, |newest| newest.events);
    let mut seen: Vec<([u8; 16], Role)> = Vec::new();
    let mut list: Vec<MemberSummary> = Vec::new();
    let mut ordered = members.to_vec();
    ordered.sort_by_key(|(_, superblock)| (superblock.role, std::cmp::Reverse(superblock.events)));
    for (image, superblock) in ordered {
        let slot = if let Role::Slot(slot) = superblock.role { Some(slot) } else { None };
        let identity = superblock.device_uuid.map(|uuid| (uuid, superblock.role));
        let state = if identity.is_some_and(|identity| seen.contains(&identity)) {
            MemberState::Duplicate
        } else if slot.is_none() {
            MemberState::NoSlot
        } else if superblock.events.saturating_add(EVENTS_BEHIND) >= events {
            MemberState::Fresh
        } else {
            MemberState::Stale
        };
        seen.extend(identity);
        let unit = &units[*image];
        list.push(MemberSummary {
            image: unit.of,
            path: unit.image.path.to_string_lossy().into_owned(),
            partition: unit.image.partition,
            slot,
            events: superblock.events,
            updated: superblock.updated,
            state,
            notes: notes(superblock),
        });
    }
    let raid_disks = newest.map_or(0, |newest| newest.raid_disks);
    let missing =
        (0..raid_disks).filter(|slot| !list.iter().any(|member| member.slot.map(u32::from) == Some(*slot)));
    let missing = missing.collect();
    let contradictions = newest.map_or_else(Vec::new, |newest| contradictions(units, members, newest));
    ArraySummary {
        uuid: newest.map(|newest| uuid_text(newest.array_uuid)).unwrap_or_default(),
        name: newest.and_then(|newest| newest.name.clone()),
        version: newest.map_or("", |newest| newest.version.name()).to_owned(),
        shape: newest.map(shape_text).unwrap_or_default(),
        chunk: newest.map_or(0, |newest| newest.chunk),
        raid_disks,
        created: newest.map_or(0, |newest| newest.created),
        updated: newest.map_or(0, |newest| newest.updated),
        events,
        reshaping: newest.is_some_and(|newest| newest.reshape.is_some()),
        members: list,
        missing,
        contradictions,
    }
}

/// What matters of a superblock besides slot and age.
fn notes(superblock: &Superblock) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |there: bool, text: String| notes.extend(there.then_some(text));
    let end = superblock.recovered.unwrap_or(0);
    note(superblock.recovered.is_some(), format!("only its first {end} bytes were rebuilt"));
    note(superblock.replacement, "it was to replace another member".to_owned());
    note(superblock.role == Role::Journal, "it is the journal".to_owned());
    note(superblock.ppl.is_some(), "it has a partial parity log".to_owned());
    note(superblock.bad_block_log.is_some(), "its bad-block log is not empty".to_owned());
    note(superblock.bitmap.is_some(), "it has a write-intent bitmap".to_owned());
    note(!superblock.clean, "it was not shut down cleanly".to_owned());
    notes
}

/// Where members do not agree on what all of them ought to say alike.
fn contradictions(units: &[Unit], members: &[&(usize, Superblock)], newest: &Superblock) -> Vec<String> {
    let mut said = Vec::new();
    for (image, own) in members {
        let path = units[*image].image.name();
        let mut compare = |what: &str, own: &dyn std::fmt::Display, newest: &dyn std::fmt::Display| {
            if own.to_string() != newest.to_string() {
                said.push(format!("{path} says {what} {own}, the newest member says {newest}"));
            }
        };
        compare("level", &own.level, &newest.level);
        compare("chunk", &own.chunk, &newest.chunk);
        compare("metadata", &own.version.name(), &newest.version.name());
        // These change while an array is reshaped, of which stale members don't know.
        if own.events == newest.events {
            compare("layout", &own.layout, &newest.layout);
            compare("number of devices", &own.raid_disks, &newest.raid_disks);
        }
    }
    said
}

fn shape_text(superblock: &Superblock) -> String {
    geometry::md::Shape::from_codes(superblock.level, superblock.layout)
        .map_or_else(|error| error.to_string(), |shape| shape.to_string())
}
