//! Looking for sets: `-L`.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use device::{Access, BlockDevice, FileDevice, Identity, OverlayDevice, identity};
use protocol::told::Told;
use raidset::config::MAX_NAME;
use raidset::extension::{Extension, Role};
use raidset::judge::{Candidate, FoundSet, Member, complete, group};
use raidset::label::{Label, Root};
use raidset::layout::Level;
use raidset::raidctl::Invocation;
use raidset::set::{ConfigureError, Parameters, RaidSet, Slot};
use serde_json::json;

use super::configure::{configured, introduction, new_unit};
use super::record::{Part, Record, unit_number};
use super::told::no_device;
use super::unit::Unit;
use super::{Context, parts};
use crate::error::Outcome;
use crate::host;

/// Something that scanning found.
struct Seen {
    name: String,
    path: PathBuf,
    label: Option<Label>,
    extension: Option<Extension>,
    sectors: u64,
}

fn look(path: PathBuf, device: &dyn BlockDevice) -> Option<Seen> {
    let sector = device.info().logical_sector.max(1);
    let sectors = device.size().ok()? / u64::from(sector);
    let label = Label::read(device)
        .ok()?
        .ok()
        .and_then(|mut label| label.fix_sizes(sectors).is_ok().then_some(label));
    let extension = Extension::read(device).ok()?;
    let name = path.to_string_lossy().into_owned();
    (label.is_some() || extension.is_some()).then_some(Seen { name, path, label, extension, sectors })
}

/// A unit that `-n` would have made: over components that stay as they are, and remembered by nobody.
struct Promised {
    record: Record,
    set: Arc<RaidSet>,
}

/// The units that are configured, and those that would be by now.
fn records(context: &Context, promised: &[Promised]) -> Outcome<Vec<Record>> {
    let mut records = context.units.all()?;
    records.extend(promised.iter().map(|unit| unit.record.clone()));
    Ok(records)
}

/// Everything with a label or an extension area that nobody uses.
fn scan(context: &Context, promised: &[Promised]) -> Outcome<Vec<Seen>> {
    let units = &context.units;
    let mut seen: Vec<Seen> = Vec::new();
    let used: BTreeSet<PathBuf> = records(context, promised)?
        .into_iter()
        .flat_map(|record| record.columns.into_iter().chain(record.spares).filter_map(|part| part.path))
        .collect();
    // A device is looked at once, under the first of its names.
    let mut known: HashSet<Identity> = used.iter().filter_map(|path| identity(path).ok()).collect();
    let mut places = units.places();
    if let Some(more) = std::env::var_os("COFFER_RAID_PATH") {
        places.extend(std::env::split_paths(&more));
    }
    for path in parts::everything(places) {
        // What is in use, here or elsewhere, is left alone.
        if identity(&path).is_ok_and(|id| known.insert(id))
            && path.as_os_str().len() <= MAX_NAME.max(255)
            && let Ok(device) = FileDevice::open(&path, Access::ReadOnly)
        {
            seen.extend(look(path, &device));
        }
    }
    // Units that are configured may be components of others.
    for record in records(context, promised)? {
        let path = PathBuf::from(format!("/dev/raid{}", record.unit));
        if used.iter().any(|used| parts::unit_below(used) == Some(record.unit)) {
            continue;
        }
        if let Some(unit) = promised.iter().find(|unit| unit.record.unit == record.unit) {
            seen.extend(look(path, &*unit.set));
        } else if let Ok(right) = units.lock(record.unit)?
            && let Ok(unit) = Unit::attach(units, record, right, 0)
        {
            seen.extend(look(path, &**unit.set()));
        }
    }
    Ok(seen)
}

/// `-L`.
///
/// # Errors
/// The state folder can't be used.
pub(crate) fn rescan(context: &Context, invocation: &Invocation) -> Outcome<Told> {
    if unit_number(&invocation.device).is_none() {
        return Ok(no_device(&invocation.device));
    }
    let mut out = String::new();
    let mut units: Vec<String> = Vec::new();
    // With `-n`: what would have been made so far is there for the next round, as it would be.
    let mut promised: Vec<Promised> = Vec::new();
    let mut claims = None;
    // A set that was found may be a component of another.
    loop {
        // What stands against a set may be gone in the next round: its other components are sets that are found in this one.
        let mut told = Told::nothing();
        let mut seen = scan(context, &promised)?;
        let extensions: Vec<Option<Extension>> = seen.iter().map(|one| one.extension.clone()).collect();
        complete(seen.iter_mut().filter_map(|one| one.label.as_mut()), &extensions);
        let (labelled, candidates): (Vec<&Seen>, Vec<Candidate>) = seen
            .iter()
            .filter_map(|one| {
                let (name, label) = (one.name.clone(), one.label.clone()?);
                Some((one, Candidate::of(name, label, one.sectors, one.extension.as_ref())?))
            })
            .unzip();
        let mut sets: Vec<FoundSet> =
            group(&candidates).into_iter().filter(|set| set.autoconfigure).collect();
        let root = |set: &FoundSet| candidates[set.members[0]].label.root();
        // Sets that may hold the root file system come first, as when a machine starts.
        sets.sort_by_key(|set| match root(set) {
            Root::Force => 0,
            Root::Soft => 1,
            _ => 2,
        });
        let forced = sets.iter().filter(|set| root(set) == Root::Force).count();
        if forced > 1 {
            claims.get_or_insert_with(|| format!("{forced} sets claim to hold the root file system"));
        }
        // Whole sets first. What another one lacks may be a set that comes later, so of those one at a time, and the ones on plain devices first.
        let whole = |set: &FoundSet| set.columns.iter().all(|column| matches!(column, Member::Current(_)));
        let layered = |set: &FoundSet| {
            set.members.iter().any(|&member| parts::unit_below(&labelled[member].path).is_some())
        };
        sets.sort_by_key(|set| (!whole(set), !whole(set) && layered(set)));
        let mut new = 0;
        for set in &sets {
            if new > 0 && !whole(set) {
                break;
            }
            let serial = candidates[set.members[0]].label.serial_number;
            let found = Found { set, candidates: &candidates, labelled: &labelled, seen: &seen };
            if !set.enough {
                let why = found.elsewhere(context, &promised)?.unwrap_or_else(|| format!(
                    "too few components of the set with serial number {serial} are there: -c with a file tells more"
                ));
                if !told.errors.contains(&why) {
                    told.errors.push(why);
                }
                continue;
            }
            let taken = match found
                .copied()
                .map_or_else(|| found.elsewhere(context, &promised), |why| Ok(Some(why)))?
            {
                Some(why) => Err(why),
                None => take(context, invocation, &found, &mut promised)?,
            };
            match taken {
                Ok((unit, text)) => {
                    out += &text;
                    units.push(format!("raid{unit}"));
                    new += 1;
                }
                Err(why) => {
                    told.code = 1;
                    if !told.errors.contains(&why) {
                        told.errors.push(why);
                    }
                }
            }
        }
        if new == 0 {
            let errors = claims.into_iter().chain(told.errors).collect();
            let code = told.code;
            let told = if invocation.dry_run {
                let lines: Vec<&str> = out.lines().collect();
                Told::either(invocation.json, out.clone(), json!({ "would": lines }))
            } else {
                configured(invocation.json, &units, out)
            };
            return Ok(Told { errors, code, ..told });
        }
    }
}

/// A set that was found, and all that was looked at.
struct Found<'a> {
    set: &'a FoundSet,
    candidates: &'a [Candidate],
    /// What the candidates are of.
    labelled: &'a [&'a Seen],
    seen: &'a [Seen],
}

impl Found<'_> {
    /// Why the set must not be taken into use, if some of its components are copies of others, byte for byte: nothing tells which of them
    /// is to be written from now on. A copy that missed something since has a lower counter, and does not count.
    fn copied(&self) -> Option<String> {
        let label = |member: usize| &self.candidates[member].label;
        let current = |member: usize| label(member).mod_counter == self.set.mod_counter;
        let what = "take one of them away, or name the right one in a file for -c";
        for (at, &one) in self.set.members.iter().enumerate() {
            let twin = self.set.members[at + 1..].iter().find(|&&other| {
                label(other).column == label(one).column
                    && current(one)
                    && current(other)
                    && self.labelled[other].extension == self.labelled[one].extension
            });
            if let Some(&other) = twin {
                let (one, other) = (&self.labelled[one].name, &self.labelled[other].name);
                return Some(format!("{one} and {other} are copies of one component: {what}"));
            }
        }
        let first = self.set.members.first().map(|&member| label(member))?;
        let spares = || {
            self.seen.iter().filter(|one| {
                let own = one.extension.as_ref();
                own.is_some_and(|own| {
                    own.serial_number == first.serial_number && matches!(own.role, Role::Spare(_))
                })
            })
        };
        for (at, one) in spares().enumerate() {
            if let Some(other) = spares().skip(at + 1).find(|other| other.extension == one.extension) {
                let why = format!("{} and {} are copies of one spare: {what}", one.name, other.name);
                return Some(why);
            }
        }
        None
    }

    /// Why the set must not be taken into use, if it is a part of one that is in use: of a mirror it would be another half.
    fn elsewhere(&self, context: &Context, promised: &[Promised]) -> Outcome<Option<String>> {
        let first = self.set.members.first().map(|&member| &self.candidates[member].label);
        let Some(first) = first else { return Ok(None) };
        if self.set.columns.iter().all(|column| matches!(column, Member::Current(_))) {
            return Ok(None);
        }
        let same = |record: &&Record| {
            record.unit == first.last_unit
                && record.columns.len() == first.num_columns as usize
                && record.parameters().is_some_and(|of| {
                    Some(of.level.letter()) == first.letter() && of.sectors_per_unit == first.sectors_per_unit
                })
                && record.known().is_some_and(|known| {
                    let mut stamps = known.columns.iter().filter_map(|column| column.stamp);
                    stamps.any(|(serial, _)| serial == first.serial_number)
                })
        };
        Ok(records(context, promised)?.iter().find(same).map(|record| {
            let names: Vec<&str> =
                self.set.members.iter().map(|&member| self.labelled[member].name.as_str()).collect();
            format!(
                "{}: the label says raid{} with serial number {}, which is configured without it: a copy, or a component that was replaced; -u of that unit first if this is the one to use, or -c to have both",
                names.join(", "),
                record.unit,
                first.serial_number
            )
        }))
    }
}

/// Opens a component, which may be a unit that would have been made.
fn open(part: &Part, below: &[Arc<Unit>], promised: &[Promised]) -> Result<Arc<dyn BlockDevice>, String> {
    let number = part.path.as_deref().and_then(parts::unit_below);
    match promised.iter().find(|unit| Some(unit.record.unit) == number) {
        Some(unit) => Ok(Arc::clone(&unit.set) as Arc<dyn BlockDevice>),
        None => parts::open(part, below),
    }
}

/// Takes a set that was found into use as the unit that it was last, or as the next one that is free. With `-n` it joins `promised`.
fn take(
    context: &Context,
    invocation: &Invocation,
    found: &Found<'_>,
    promised: &mut Vec<Promised>,
) -> Outcome<Result<(u32, String), String>> {
    let Found { set, candidates, labelled, seen } = *found;
    let units = &context.units;
    let label = &candidates[set.members[0]].label;
    let taken: BTreeSet<u32> = records(context, promised)?.iter().map(|record| record.unit).collect();
    let number =
        (label.last_unit..=label.last_unit.saturating_add(4096)).find(|number| !taken.contains(number));
    let Some(number) = number else { return Ok(Err("no unit is free".to_owned())) };
    let right = match new_unit(units, number)? {
        Ok(right) => right,
        Err(told) => return Ok(Err(told.errors.join("; "))),
    };
    let part = |one: &Seen| Part { name: one.name.clone(), path: Some(one.path.clone()) };
    // A spare that was in use once has a label still, which is that of nobody now.
    let members: BTreeSet<usize> = set
        .columns
        .iter()
        .filter_map(|member| match member {
            Member::Current(at) | Member::Stale(at) => Some(*at),
            Member::Missing => None,
        })
        .collect();
    let of_set: Vec<Part> = members.iter().map(|&member| part(labelled[member])).collect();
    let others: Vec<Part> = seen
        .iter()
        .filter(|one| members.iter().all(|&member| labelled[member].path != one.path))
        .filter(|one| one.extension.as_ref().is_some_and(|own| own.serial_number == label.serial_number))
        .map(part)
        .collect();
    // The record names units below, which have to be held while this one is used.
    let letter = label.letter().unwrap_or('?');
    let extensions = seen.iter().filter_map(|one| one.extension.as_ref());
    let design = Extension::best(extensions, label.serial_number, set.mod_counter)
        .and_then(|best| best.known.design.clone());
    let Some(level) = Level::with_design(letter, design) else {
        return Ok(Err(ConfigureError::Level { letter }.to_string()));
    };
    let parameters = Parameters {
        level,
        sectors_per_unit: label.sectors_per_unit,
        units_per_parity_unit: label.units_per_parity_unit,
        units_per_recon_unit: label.units_per_recon_unit,
        queue_length: label.max_outstanding,
    };
    let empty = raidset::set::Known::default();
    let draft = Record::new(number, &parameters, of_set.clone(), others.clone(), &empty);
    let below = Unit::attach_below(units, &draft, 0)?;
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    let mut opened: Vec<Candidate> = Vec::new();
    let mut places = vec![usize::MAX; candidates.len()];
    for (&member, part) in members.iter().zip(&of_set) {
        match open(part, &below, promised) {
            Ok(device) => {
                let device: Arc<dyn BlockDevice> =
                    if invocation.dry_run { Arc::new(OverlayDevice::in_memory(device)?) } else { device };
                places[member] = devices.len();
                devices.push(device);
                opened.push(candidates[member].clone());
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    let moved = |member: &Member| match member {
        Member::Current(at) => Member::Current(places[*at]),
        Member::Stale(at) => Member::Stale(places[*at]),
        Member::Missing => Member::Missing,
    };
    let found = FoundSet {
        members: (0..opened.len()).collect(),
        columns: set.columns.iter().map(moved).collect(),
        ..set.clone()
    };
    let slot = |part: &Part| Slot { name: part.name.clone(), device: open(part, &below, promised).ok() };
    let mut other_slots: Vec<Slot> = others.iter().map(slot).collect();
    if invocation.dry_run {
        parts::over(&mut other_slots)?;
    }
    let assembled = RaidSet::assemble(number, &found, &opened, &devices, &other_slots, host::runner());
    let raid = match assembled {
        Ok(raid) => raid,
        Err(error) => return Ok(Err(format!("raid{number}: {error}"))),
    };
    let known = raid.known();
    let all: Vec<&Part> = of_set.iter().chain(&others).collect();
    let find = |name: &str| {
        let found = all.iter().find(|part| part.name == name).map(|part| (*part).clone());
        found.unwrap_or_else(|| Part { name: name.to_owned(), path: None })
    };
    let columns = known.columns.iter().map(|column| find(&column.name)).collect();
    let spares = known.spares.iter().map(|spare| find(&spare.name)).collect();
    let record = Record::new(number, &raid.parameters(), columns, spares, &known);
    if invocation.dry_run {
        promised.push(Promised { record, set: Arc::new(raid) });
        let names: Vec<&str> = set.members.iter().map(|&member| candidates[member].name.as_str()).collect();
        return Ok(Ok((number, format!("would configure raid{number} of {}\n", names.join(" ")))));
    }
    units.save(&record)?;
    units.note_places(&record)?;
    let text = if invocation.verbose { introduction(number, &raid) } else { String::new() };
    Unit::new(raid, record, units.clone(), below, right).close()?;
    Ok(Ok((number, text)))
}
