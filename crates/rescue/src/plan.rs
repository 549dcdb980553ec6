//! Ways to put arrays together, from what their superblocks say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{BlockDevice, RangeSet};
use formats::md::{ReshapeBackup, Role, Superblock};
use geometry::md::{Geometry, MdError, Rotation5, Shape, ZoneOrder};
use serde::{Deserialize, Serialize};

use crate::array::SetAside;
use crate::scan::{EVENTS_BEHIND, freshest, uuid_text};
use crate::{
    ArrayDevice, ComponentSet, Image, Logs, Newer, RescueError, Scan, Section, Source, bitmaps, created_over,
    infer, raid6, replay, score, unlabelled,
};

/// Candidates, best first. As a file it is JSON that people can edit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The candidates.
    pub candidates: Vec<Candidate>,
}

/// One way to put an array together. Sizes and offsets are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The array's name or UUID.
    pub array: String,
    /// 0 (hopeless) to 100 (complete, and all that was looked at fits).
    pub score: u8,
    /// Why.
    pub reasons: Vec<String>,
    /// md's level: -1 is linear.
    pub level: i32,
    /// md's layout code.
    pub layout: u32,
    /// Level and layout in words; only for people.
    #[serde(default)]
    pub shape: String,
    /// Chunk size.
    pub chunk: u64,
    /// The members by their slots; `null` where one is missing.
    pub slots: Vec<Option<Slot>>,
    /// Images that belong to the array and are not used.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// The other geometry, if a reshape was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshape: Option<Reshaping>,
    /// What it had written down and not yet carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// Look at the parity of all that is read: what one member of a RAID 6 has silently wrong is found and read right, and
    /// what else does not fit is told. Reading takes all members then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check_parity: bool,
    /// The array that was created over this one and rebuilt: what that has computed is not to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwritten_by: Option<Newer>,
}

/// A member in its slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The disk or image.
    pub path: PathBuf,
    /// Its ddrescue map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<PathBuf>,
    /// Where the array's data begins on it.
    pub data_offset: u64,
    /// How much of it the array uses.
    pub size: u64,
    /// Only this much of it was rebuilt and may be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<u64>,
    /// Where the data of the new geometry begins, while reshaping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_data_offset: Option<u64>,
    /// The member is stale: only what this write-intent bitmap calls clean may be believed, and only where the others don't
    /// do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_by: Option<BitmapAt>,
    /// What its bad-block log lists, first byte on the disk and length: read only where nothing else helps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubtful: Vec<(u64, u64)>,
}

/// Where a write-intent bitmap is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitmapAt {
    /// The disk or image of a member that is up to date.
    pub path: PathBuf,
    /// Where on it, bytes.
    pub offset: u64,
}

/// An image that is not used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The disk or image.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// The geometry that an interrupted reshape was going to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshaping {
    /// md's level.
    pub level: i32,
    /// md's layout code.
    pub layout: u32,
    /// Chunk size.
    pub chunk: u64,
    /// Slots in the old geometry.
    pub old_disks: usize,
    /// Slots in the new geometry.
    pub new_disks: usize,
    /// How far it came, as an array address.
    pub position: u64,
    /// Whether the addresses from `position` on, instead of those before it, have the new geometry.
    pub backwards: bool,
    /// What was set aside of the array's contents before their rows were moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

/// A reshape's backup file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The file, or a disk that has such a backup.
    pub path: PathBuf,
    /// What it has: first byte in the file, first byte in the array, length.
    pub runs: Vec<(u64, u64, u64)>,
}

/// No more events than this are counted by creating an array without starting it.
const EVENTS_OF_CREATION: u64 = 2;

/// Whether nothing says that the array has been in use since it was created. Levels without redundancy never
/// count events, so of them nothing follows.
fn never_ran(superblock: &Superblock) -> bool {
    superblock.level > 0 && superblock.events <= EVENTS_OF_CREATION
}

/// Proposes assemblies for all arrays that a scan of `images` found.
pub fn plan(images: &[Image], scan: &Scan) -> Plan {
    debug_assert_eq!(images.len(), scan.images.len(), "a scan of other images");
    let units: Vec<&Image> = scan.units.iter().map(|unit| &unit.image).collect();
    let members: Vec<&(usize, Superblock)> = scan.superblocks.iter().collect();
    let mut candidates = Vec::new();
    let mut told: Vec<Candidate> = Vec::new();
    for group in by_array(&members) {
        let Some(newest) = freshest(&group) else { continue };
        let mut base = candidate(&units, &group, newest);
        let unproven = never_ran(newest);
        if unproven {
            base.reasons.push(
                "the array never ran since it was created: if there was an older one on these members, order, \
                 chunk and offsets may have been others"
                    .to_owned(),
            );
        }
        // Nobody wrote down how this RAID 0 goes on after its smallest member: either way may be right.
        let mut sizes = base.slots.iter().flatten().map(|slot| slot.size / newest.chunk.max(1));
        let first = sizes.next();
        if newest.level == 0 && !newest.layout_known && sizes.any(|size| Some(size) != first) {
            let mut other = base.clone();
            other.layout = 1;
            candidates.push(score::scored(other, unproven, &units));
        }
        told.extend((!unproven).then(|| base.clone()));
        let mut base = score::scored(base, unproven, &units);
        if unproven && tells_by_parity(&base, &units) && base.score < infer::TIED {
            base.score = infer::TIED;
            base.reasons.push("P and Q fit, which they would do in no other order of the members".to_owned());
        }
        // Of stale members much is in the wrong place anyway.
        let stale = base.reasons.iter().any(|reason| reason.contains("is used although it is"));
        let strange = !unproven && !stale && created_over::holds_nothing(&base, &units);
        candidates.push(base);
        if strange {
            let newer = candidates.len() - 1;
            let members: Vec<&Image> = group.iter().map(|(image, _)| units[*image]).collect();
            let older = created_over::older(&mut candidates, newer, &members, &units);
            candidates.extend(older);
        }
    }
    candidates.extend(scan.sets.iter().flat_map(|set| set.candidates(&scan.units)));
    candidates.extend(scan.component_sets.iter().flat_map(|set| set.candidates_and_older(&units)));
    // Whatever no superblock speaks for that has been in use may be an array without them.
    let whole = scan.component_sets.iter().filter(|set| set.is_enough());
    let of_sets: Vec<usize> = scan
        .sets
        .iter()
        .flat_map(crate::FirmwareSet::units)
        .chain(whole.flat_map(ComponentSet::units))
        .collect();
    let spoken_for = |number: usize| {
        let told =
            |(of, superblock): &(usize, Superblock)| *of == number && superblock.events > EVENTS_OF_CREATION;
        scan.superblocks.iter().any(told) || of_sets.contains(&number)
    };
    let left = scan.units.iter().enumerate().filter(|(number, unit)| unit.bare && !spoken_for(*number));
    let left: Vec<&Image> = left.map(|(_, unit)| &unit.image).collect();
    let has_label = |number: &usize| {
        scan.superblocks.iter().any(|(of, _)| of == number)
            || scan.component_sets.iter().any(|set| set.units().any(|of| of == *number))
    };
    let strays = scan
        .units
        .iter()
        .enumerate()
        .filter(|(number, unit)| unit.bare && !spoken_for(*number) && !has_label(number));
    let strays: Vec<&Image> = strays.map(|(_, unit)| &unit.image).collect();
    told.extend(scan.component_sets.iter().filter_map(ComponentSet::only_assembly));
    candidates.extend(told.iter().filter_map(|base| unlabelled::filled(base, &strays, &units)));
    // Parity alone tells all of a whole RAID 6; other levels need contents that tell their place.
    let solved: Vec<Candidate> = same_sizes(&left).iter().flat_map(|pile| raid6::infer(pile)).collect();
    let known: Vec<&Slot> = solved
        .iter()
        .filter(|candidate| candidate.score >= infer::SOLVED)
        .flat_map(|candidate| candidate.slots.iter().flatten())
        .collect();
    let is_known = |image: &Image| known.iter().any(|slot| slot.is_on(image));
    let unsolved: Vec<&Image> = left.iter().copied().filter(|image| !is_known(image)).collect();
    candidates.extend(infer::infer(&unsolved, false));
    candidates.extend(solved);
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    let alone = alone(&left, &candidates);
    candidates.extend(alone);
    Plan { candidates }
}

/// Whether parity alone proves the order of all members.
fn tells_by_parity(candidate: &Candidate, units: &[&Image]) -> bool {
    const ROWS: u64 = 256;
    const ROWS_LEAST: u64 = 16;
    candidate.level == 6
        && candidate
            .open_among(units)
            .ok()
            .and_then(|array| array.sample_parity(ROWS))
            .is_some_and(|(right, wrong)| right >= ROWS_LEAST && wrong == 0)
}

/// Members with the same array UUID together.
pub(crate) fn by_array<'a>(members: &[&'a (usize, Superblock)]) -> Vec<Vec<&'a (usize, Superblock)>> {
    let mut groups: BTreeMap<[u8; 16], Vec<&(usize, Superblock)>> = BTreeMap::new();
    for member in members {
        groups.entry(member.1.array_uuid).or_default().push(member);
    }
    groups.into_values().collect()
}

/// All of them, and where there are partitions of several sizes, those of each size.
fn same_sizes<'a>(images: &[&'a Image]) -> Vec<Vec<&'a Image>> {
    let mut sizes: BTreeMap<u64, Vec<&Image>> = BTreeMap::new();
    for image in images {
        sizes.entry(image.device.size().unwrap_or(0)).or_default().push(image);
    }
    let mut piles: Vec<Vec<&Image>> = sizes.into_values().collect();
    if piles.len() > 1 {
        piles.push(images.to_vec());
    }
    piles
}

/// What belongs to no array that was found and has something on it of its own.
fn alone(left: &[&Image], candidates: &[Candidate]) -> Vec<Candidate> {
    let sure = candidates.iter().filter(|candidate| candidate.score > infer::TIED);
    let used: Vec<&Slot> = sure.flat_map(|candidate| candidate.slots.iter().flatten()).collect();
    let single = |image: &&Image| {
        let size = image.device.size().ok().filter(|size| *size > 0)?;
        if used.iter().any(|slot| slot.is_on(image)) {
            return None;
        }
        let (found, _) = formats::probe_damaged(&*image.device).ok()?;
        let fits = |found: &formats::Found| {
            !matches!(found.kind, formats::Kind::Md(_) | formats::Kind::Raidframe)
                && found.size.is_none_or(|said| said <= size)
        };
        if found.is_empty() || !found.iter().all(fits) {
            return None;
        }
        let (level, layout) = Shape::Linear.codes();
        let name =
            image.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let array = image.partition.map_or_else(|| name.clone(), |number| format!("{name}-p{number}"));
        let candidate = Candidate {
            array,
            score: 0,
            reasons: vec!["it is a member of no array that was found".to_owned()],
            level,
            layout,
            shape: String::new(),
            chunk: 0,
            slots: vec![Some(image.slot(0, size / 512 * 512))],
            left_out: Vec::new(),
            reshape: None,
            logs: None,
            check_parity: false,
            overwritten_by: None,
        };
        let scored = score::scored(candidate, false, left);
        (scored.score > infer::TIED).then_some(scored)
    };
    left.iter().filter_map(single).collect()
}

/// What the superblocks of one array say.
pub(crate) fn candidate(images: &[&Image], group: &[&(usize, Superblock)], newest: &Superblock) -> Candidate {
    let mut reasons = Vec::new();
    let mut left_out = Vec::new();
    let reshape = newest.reshape.map(|reshape| Reshaping {
        level: reshape.level,
        layout: reshape.layout,
        chunk: reshape.chunk,
        old_disks: usize::try_from(i64::from(newest.raid_disks) - i64::from(reshape.delta)).unwrap_or(0),
        new_disks: newest.raid_disks as usize,
        position: reshape.position,
        backwards: reshape.backwards,
        backup: backup(images, newest, &mut reasons),
    });
    let disks = reshape.as_ref().map_or(newest.raid_disks as usize, |r| r.old_disks.max(r.new_disks));
    let disks = disks.min(geometry::md::MAX_MEMBERS);
    let mut slots: Vec<Option<Slot>> = vec![None; disks];

    // Newest first: a slot goes to the first that claims it.
    let mut ordered = group.to_vec();
    ordered.sort_by_key(|(_, superblock)| {
        // A replacement or a half-rebuilt member is worth less than what it stands in for.
        (std::cmp::Reverse(superblock.events), superblock.replacement, superblock.recovered.is_some())
    });
    let fresh = |superblock: &Superblock| superblock.events.saturating_add(EVENTS_BEHIND) >= newest.events;
    let bitmap = bitmaps::freshest(images, group, newest);
    let shape = Shape::from_codes(newest.level, newest.layout);
    // What more is lost without a member in this slot.
    let needed = |slots: &[Option<Slot>], role: usize| {
        let mut there: Vec<bool> = slots.iter().map(Option::is_some).collect();
        let Ok(shape) = shape else { return there.contains(&false) };
        let lost = score::lost_parts(shape, newest.chunk, &there);
        there[role] = true;
        score::lost_parts(shape, newest.chunk, &there) < lost
    };
    for stale in [false, true] {
        for (image, superblock) in ordered.iter().filter(|(_, superblock)| fresh(superblock) != stale) {
            let (path, name) = (&images[*image].path, images[*image].name());
            let mut leave = |reason: String| left_out.push(LeftOut { path: path.clone(), reason });
            if superblock.role == Role::Journal && !stale {
                continue;
            }
            let Some(role) = slot_of(superblock, newest, stale) else {
                leave("it has no slot: a spare, a journal, or thrown out".to_owned());
                continue;
            };
            let Some(slot) = slots.get(role) else {
                leave(format!("its slot {role} does not exist"));
                continue;
            };
            if slot.is_some() {
                leave(format!("slot {role} has a member that is at least as new"));
                continue;
            }
            let behind = newest.events.saturating_sub(superblock.events);
            let clean_by = bitmap
                .as_ref()
                .filter(|(_, since)| stale && superblock.events >= *since)
                .map(|(at, _)| at.clone());
            if stale {
                if clean_by.is_none() && !needed(&slots, role) || superblock.recovered.is_some() {
                    leave(format!("it is stale: {behind} events behind"));
                    continue;
                }
                if clean_by.is_none() {
                    reasons.push(format!(
                        "{name} is used although it is {behind} events behind: without it too few members are left"
                    ));
                }
            }
            let mut slot = slot_for(images[*image], superblock);
            if !slot.doubtful.is_empty() {
                let bytes: u64 = slot.doubtful.iter().map(|(_, length)| length).sum();
                reasons.push(format!(
                    "{name} lists {bytes} bytes in its bad-block log: they are read from it only where nothing else \
                     helps"
                ));
            }
            if let Some(clean_by) = clean_by {
                reasons.push(format!(
                    "{name} is {behind} events behind: of it only what the write-intent bitmap calls unchanged is \
                     used, where the others don't do"
                ));
                slot.clean_by = Some(clean_by);
            }
            slots[role] = Some(slot);
        }
    }
    if reshape.is_some() && newest.level == 4 && slots.last().is_some_and(Option::is_none) {
        reasons.push(
            "it was a RAID 0 that was being grown, for which md makes it a RAID 4 without parity".to_owned(),
        );
    }
    if !newest.clean {
        reasons.push("the array was not shut down cleanly: parity may be out of date in places".to_owned());
    }
    if newest.unknown_features != 0 {
        reasons.push(format!("unknown feature bits {:#x} are ignored", newest.unknown_features));
    }
    let (logs, told) = replay::noted(images, group, newest, &slots);
    reasons.extend(told);
    Candidate {
        array: newest.name.clone().unwrap_or_else(|| uuid_text(newest.array_uuid)),
        score: 0,
        reasons,
        level: newest.level,
        layout: newest.layout,
        shape: String::new(),
        chunk: newest.chunk,
        slots,
        left_out,
        reshape,
        logs,
        check_parity: false,
        overwritten_by: None,
    }
}

/// The backup of this array's reshape among the images.
fn backup(images: &[&Image], newest: &Superblock, reasons: &mut Vec<String>) -> Option<Backup> {
    // As far apart as mdadm lets them be, seconds.
    const BEFORE: u64 = 2 * 60 * 60;
    const AFTER: u64 = 10 * 60;
    // Version 0.90 has words in the byte order of the machine.
    let mut other = newest.array_uuid;
    other.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    let own = |backup: &ReshapeBackup| backup.uuid == newest.array_uuid || backup.uuid == other;
    let found = images.iter().find_map(|image| Some((image, image.backup().filter(own)?)));
    let Some((image, found)) = found else {
        reasons.push(
            "no backup file of its reshape is among the files: if it had one (mdadm --backup-file), give it as well; without              it a few MiB where it was interrupted may be torn"
                .to_owned(),
        );
        return None;
    };
    if newest.updated > found.written.saturating_add(BEFORE)
        || newest.updated.saturating_add(AFTER) < found.written
    {
        reasons.push(format!("{} is of another time than its superblocks and not used", image.name()));
        return None;
    }
    let bytes: u64 = found.runs.iter().map(|run| run.length).sum();
    reasons.push(format!("{} has {bytes} bytes of it from before they were moved", image.name()));
    let runs = found.runs.iter().map(|run| (run.from, run.to, run.length)).collect();
    Some(Backup { path: image.path.clone(), runs })
}

/// The slot of a member: what the newest superblock says of it, except of those that it has given up.
fn slot_of(superblock: &Superblock, newest: &Superblock, stale: bool) -> Option<usize> {
    let told = newest.roles.get(superblock.number as usize).copied().filter(|_| !stale);
    match (told, superblock.role) {
        (Some(Role::Slot(slot)), _) | (_, Role::Slot(slot)) => Some(usize::from(slot)),
        _ => None,
    }
}

fn slot_for(image: &Image, superblock: &Superblock) -> Slot {
    // Levels without redundancy use each member to its end; others may say how much they use.
    let size = match superblock.used_size {
        0 => superblock.data_size,
        used => used,
    };
    let new_data_offset = superblock.reshape.map(|reshape| reshape.data_offset);
    let new_data_offset = new_data_offset.filter(|offset| *offset != superblock.data_offset);
    Slot {
        valid: superblock.recovered,
        new_data_offset: new_data_offset.map(|offset| image.start + offset),
        doubtful: bitmaps::bad_blocks(image, superblock),
        ..image.slot(superblock.data_offset, size)
    }
}

impl Slot {
    /// Whether it lies on this image or partition.
    pub(crate) fn is_on(&self, image: &Image) -> bool {
        let end = image.start.saturating_add(image.device.size().unwrap_or(0));
        self.path == image.path && (image.start..end).contains(&self.data_offset)
    }
}

impl Plan {
    /// The plan as text for a file.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn to_text(&self) -> Result<String, RescueError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The plan in a file's text.
    ///
    /// # Errors
    /// It is not one; the error names line and column.
    pub fn from_text(text: &str) -> Result<Self, RescueError> {
        Ok(serde_json::from_str(text)?)
    }
}

impl Candidate {
    /// Whether there is parity that can be looked at when it is read.
    pub fn has_parity(&self) -> bool {
        matches!(self.level, 4..=6)
    }

    /// All paths in it, maps of bad sectors included.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let newer = self.overwritten_by.iter_mut().flat_map(|newer| newer.slots.iter_mut());
        let slots = self.slots.iter_mut().chain(newer).flatten().flat_map(|slot| {
            let bitmap = slot.clean_by.as_mut().map(|bitmap| &mut bitmap.path);
            std::iter::once(&mut slot.path).chain(&mut slot.map).chain(bitmap)
        });
        let journal = self.logs.as_mut().and_then(|logs| logs.journal.as_mut());
        let journal = journal.into_iter().flat_map(|at| std::iter::once(&mut at.path).chain(&mut at.map));
        let backup = self.reshape.as_mut().and_then(|reshape| reshape.backup.as_mut());
        let journal = journal.chain(backup.into_iter().map(|backup| &mut backup.path));
        slots.chain(journal).chain(self.left_out.iter_mut().map(|left| &mut left.path))
    }

    /// The array, read-only.
    ///
    /// # Errors
    /// A member can't be opened, or there is no such geometry.
    pub fn open(&self) -> Result<ArrayDevice, RescueError> {
        self.open_by(|path, map| Image::open_with(path, map).map(|image| image.device))
    }

    /// The array over images that are open already; those that are not are opened.
    ///
    /// # Errors
    /// As [`Candidate::open`].
    pub(crate) fn open_among(&self, images: &[&Image]) -> Result<ArrayDevice, RescueError> {
        self.open_by(|path, map| match images.iter().find(|image| image.path == path) {
            Some(image) => Ok(Arc::clone(&image.disk)),
            None => Image::open_with(path, map).map(|image| image.device),
        })
    }

    fn open_by(
        &self,
        open: impl Fn(&Path, Option<&Path>) -> Result<Arc<dyn BlockDevice>, RescueError>,
    ) -> Result<ArrayDevice, RescueError> {
        let newer =
            self.overwritten_by.as_ref().map(|newer| Ok::<_, RescueError>((newer, newer.geometry()?)));
        let newer = newer.transpose()?;
        let slot = |slot: &Slot| {
            let disk = open(&slot.path, slot.map.as_deref())?;
            Ok::<_, RescueError>(match &newer {
                Some((newer, geometry)) => newer.sparing(geometry, &slot.path, disk),
                None => disk,
            })
        };
        let devices = self.slots.iter().map(|own| own.as_ref().map(slot).transpose());
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        self.check(&devices)?;
        let array = self.assemble_with(&devices, open)?;
        Ok(if self.check_parity { array.checking() } else { array })
    }

    /// What a person may have got wrong who edited the plan.
    pub(crate) fn check(&self, devices: &[Option<Arc<dyn BlockDevice>>]) -> Result<(), RescueError> {
        let refuse = |slot: usize, why: String| RescueError::Slot { array: self.array.clone(), slot, why };
        for (index, (slot, device)) in self.slots.iter().zip(devices).enumerate() {
            let (Some(slot), Some(device)) = (slot, device) else { continue };
            let path = slot.path.display();
            let before = self.slots[..index].iter().position(|other| {
                other
                    .as_ref()
                    .is_some_and(|other| (&other.path, other.data_offset) == (&slot.path, slot.data_offset))
            });
            if let Some(other) = before {
                return Err(refuse(index, format!("{path} is in slot {other} as well")));
            }
            let size = device.size()?;
            if !slot.data_offset.is_multiple_of(512) || !slot.size.is_multiple_of(512) {
                return Err(refuse(index, "data_offset and size must be multiples of 512".to_owned()));
            }
            if slot.data_offset >= size {
                return Err(refuse(
                    index,
                    format!("data_offset {} is behind the end of {path}, {size} bytes", slot.data_offset),
                ));
            }
        }
        Ok(())
    }

    /// The array over devices that are open already: one for each slot that is not empty.
    ///
    /// # Errors
    /// There is no such geometry.
    pub fn assemble(&self, devices: &[Option<Arc<dyn BlockDevice>>]) -> Result<ArrayDevice, RescueError> {
        let bare = Self { logs: None, reshape: self.reshape.clone(), ..self.clone() };
        let bare =
            Self { reshape: bare.reshape.map(|reshape| Reshaping { backup: None, ..reshape }), ..bare };
        bare.assemble_with(devices, |path, map| Image::open_with(path, map).map(|image| image.device))
    }

    /// As [`Candidate::assemble`], with its journal and the backup of its reshape.
    fn assemble_with(
        &self,
        devices: &[Option<Arc<dyn BlockDevice>>],
        open: impl Fn(&Path, Option<&Path>) -> Result<Arc<dyn BlockDevice>, RescueError>,
    ) -> Result<ArrayDevice, RescueError> {
        let Some(reshape) = &self.reshape else {
            let Section { geometry, sources } =
                self.section(devices, self.slots.len(), self.level, self.layout, self.chunk, false)?;
            let Some(logs) = &self.logs else {
                return Ok(ArrayDevice::new(&self.array, Section { geometry, sources }));
            };
            let journal = logs.journal.as_ref().map(|at| open(&at.path, at.map.as_deref())).transpose()?;
            let mut replayed = replay::replay(logs, &geometry, &sources, journal.as_ref());
            let told = std::mem::take(&mut replayed.told);
            let sources = replayed.over(sources);
            return Ok(ArrayDevice::new(&self.array, Section { geometry, sources }).with_notes(told));
        };
        let old = self.section(devices, reshape.old_disks, self.level, self.layout, self.chunk, false)?;
        let new =
            self.section(devices, reshape.new_disks, reshape.level, reshape.layout, reshape.chunk, true)?;
        let done: Range<u64> =
            if reshape.backwards { reshape.position..u64::MAX } else { 0..reshape.position };
        let set_aside = |backup: &Backup| -> Result<Vec<SetAside>, RescueError> {
            let device = open(&backup.path, None)?;
            let runs = backup.runs.iter().map(|(from, to, length)| (*from, *to..to.saturating_add(*length)));
            // Where the new rows are in place already, what was set aside before is old.
            let needed = runs.filter(|(_, run)| !(done.contains(&run.start) && run.end <= done.end));
            Ok(needed.map(|(from, run)| SetAside { run, device: Arc::clone(&device), from }).collect())
        };
        let set_aside = reshape.backup.as_ref().map(set_aside).transpose()?.unwrap_or_default();
        Ok(ArrayDevice::reshaping(&self.array, old, new, done).with_set_aside(set_aside))
    }

    fn section(
        &self,
        devices: &[Option<Arc<dyn BlockDevice>>],
        disks: usize,
        level: i32,
        layout: u32,
        chunk: u64,
        new: bool,
    ) -> Result<Section, RescueError> {
        let refuse = |source: MdError| RescueError::Geometry { array: self.array.clone(), source };
        let shape = Shape::from_codes(level, layout).map_err(refuse)?;
        // Before anything is made for each of them.
        let most = geometry::md::MAX_MEMBERS;
        if disks > most {
            return Err(refuse(MdError::Members { shape, found: disks, least: 1, most }));
        }
        let slot = |index: usize| self.slots.get(index).and_then(Option::as_ref);
        let smallest = self.slots.iter().flatten().map(|slot| slot.size).min();
        // A member that is missing is as long as the others; where each has its own length that won't do.
        let each = matches!(shape, Shape::Linear | Shape::Raid0(ZoneOrder::Alternate | ZoneOrder::Original));
        let size = |index: usize| match (slot(index), smallest) {
            (Some(slot), _) => Ok(slot.size),
            (None, Some(smallest)) if !each => Ok(smallest),
            _ => Err(RescueError::SizeUnknown { array: self.array.clone(), slot: index }),
        };
        let mut sizes = (0..disks).map(size).collect::<Result<Vec<u64>, _>>()?;
        if let (Some(reshape), false) = (&self.reshape, each) {
            // Both geometries end at whole chunks of both sizes.
            let units = [self.chunk, reshape.chunk].into_iter().filter(|chunk| *chunk > 0);
            let unit = units.max().unwrap_or(1);
            sizes.iter_mut().for_each(|size| *size -= *size % unit);
        }
        let geometry = Geometry::new(shape, chunk, &sizes).map_err(refuse)?;
        let bitmap = |slot: &Option<Slot>| {
            let at = slot.as_ref().and_then(|slot| slot.clean_by.as_ref())?;
            Some(bitmaps::at(at).map(Arc::new))
        };
        let clean = self.slots.iter().map(|slot| bitmap(slot).transpose()).collect::<Result<Vec<_>, _>>()?;
        // A RAID 0 that grows is a RAID 4 without parity for that time: whoever is in the place of parity is a new member.
        let no_parity = self.reshape.is_some()
            && matches!(shape, Shape::Raid4 | Shape::Raid5(Rotation5::ParityLast))
            && self.slots.last().is_some_and(Option::is_none);
        let source = |index: usize| {
            let slot = slot(index).filter(|_| !no_parity || index + 1 != disks)?;
            let device = devices.get(index)?.clone()?;
            let start = slot.new_data_offset.filter(|_| new).unwrap_or(slot.data_offset);
            let clean = clean.get(index).cloned().flatten();
            let mut doubtful = RangeSet::new();
            slot.doubtful.iter().for_each(|(at, length)| doubtful.insert(*at..at.saturating_add(*length)));
            let doubtful = (!slot.doubtful.is_empty()).then(|| Arc::new(doubtful));
            let valid = slot.valid.unwrap_or(u64::MAX);
            Some(Source { device, start, valid, clean, doubtful, ahead: None })
        };
        Ok(Section { geometry, sources: (0..disks).map(source).collect() })
    }
}
