//! Taking units into use and out of it: `-c`, `-C`, `-L`, `-u`; and `-t`, which only looks at a file.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use device::{Access, BlockDevice, FileDevice, Identity, identity};
use protocol::told::{Errno, Told};
use raidset::config::{ABSENT, Config, MAX_NAME};
use raidset::design::Design;
use raidset::extension::Extension;
use raidset::judge::{Candidate, FoundSet, Member, complete, group};
use raidset::label::{Label, Root};
use raidset::layout::{Layout, Level};
use raidset::raidctl::Invocation;
use raidset::set::{ConfigureError, Parameters, RaidSet, Slot, Status};

use super::actions::unknown_option;
use super::record::{Part, Record, Units, unit_number};
use super::unit::Unit;
use super::{Context, parts};
use crate::control::{Connected, connect};
use crate::error::{Failure, Outcome};
use crate::host;
use crate::state::PoolLock;
use crate::texts;

/// Longest configuration or block design, bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// A file that is no configuration, as `raidctl` tells it.
fn bad_file(why: impl std::fmt::Display) -> Told {
    let line = "Unable to create RAIDframe configuration structure: Invalid argument".to_owned();
    Told { errors: vec![why.to_string(), line], code: 1, ..Told::nothing() }
}

fn parse(file: &str) -> Result<Config, Told> {
    let text =
        texts::read(file, LONGEST_FILE).map_err(|error| bad_file(format!("cannot read {file}: {error}")))?;
    Config::parse(file, &text, parts::wedge).map_err(bad_file)
}

/// The block design that a configuration names, if its level needs one.
fn design(config: &Config) -> Result<Option<Arc<Design>>, Told> {
    if !Level::needs_design(config.letter) {
        return Ok(None);
    }
    let name =
        config.design_files.first().ok_or_else(|| bad_file("the layout section names no block design"))?;
    let text = texts::read(name, LONGEST_FILE)
        .map_err(|error| bad_file(format!("cannot read the block design {name}: {error}")))?;
    Design::parse(&text)
        .map(|design| Some(Arc::new(design)))
        .map_err(|error| bad_file(format!("{name}: {error}")))
}

/// `-t`.
pub(crate) fn check_file(file: &str) -> Told {
    let config = match parse(file) {
        Ok(config) => config,
        Err(told) => return told,
    };
    let columns = config.disks.len() as u16;
    let checked = design(&config).and_then(|design| {
        let parameters = Parameters::with_design(&config, design).map_err(bad_file)?;
        // How many rows there are is known with the components only: enough of them for any table.
        Layout::new(parameters.level, columns, 1, 1 << 24).map_err(bad_file)
    });
    match checked {
        Ok(_) => Told { errors: config.warnings, ..Told::nothing() },
        Err(told) => Told { errors: [config.warnings, told.errors].concat(), ..told },
    }
}

/// What the driver tells of a new unit.
fn introduction(unit: u32, set: &RaidSet) -> String {
    let layout = set.layout();
    let names = set.status().columns.into_iter().map(|column| {
        let mark = if column.status == Status::Optimal { "" } else { "[**FAILED**]" };
        format!(" {}{mark}", column.name)
    });
    let sectors = layout.total_sectors();
    let megabytes = sectors.saturating_mul(u64::from(set.sector_size())) >> 20;
    format!(
        "raid{unit}: RAID Level {}\nraid{unit}: Components:{}\nraid{unit}: Total Sectors: {sectors} ({megabytes} MB)\n",
        layout.level().letter(),
        names.collect::<String>()
    )
}

fn configure_failed(why: impl std::fmt::Display) -> Told {
    Told::failed("CONFIGURE", Errno::Invalid, why)
}

/// The right to make a unit that is not configured yet.
fn new_unit(units: &Units, number: u32) -> Outcome<Result<PoolLock, Told>> {
    let busy = || configure_failed(format!("raid{number} is configured already: -u ends that"));
    let Ok(right) = units.lock(number)? else { return Ok(Err(busy())) };
    Ok(if units.find(number)?.is_some() { Err(busy()) } else { Ok(right) })
}

/// `-c`, and `-C` with force.
///
/// # Errors
/// The state folder can't be used.
pub(crate) fn configure(
    context: &Context,
    invocation: &Invocation,
    file: &str,
    force: bool,
) -> Outcome<Told> {
    let config = match parse(file) {
        Ok(config) => config,
        Err(told) => return Ok(told),
    };
    for warning in &config.warnings {
        eprintln!("{}: {warning}", context.program);
    }
    let Some(number) = unit_number(&invocation.device) else {
        return Ok(Told::no_device(&invocation.device));
    };
    let design = match design(&config) {
        Ok(design) => design,
        Err(told) => return Ok(told),
    };
    let parameters = match Parameters::with_design(&config, design) {
        Ok(parameters) => parameters,
        Err(error) => return Ok(configure_failed(error)),
    };
    let (mut autospare, mut journal) = (None, None);
    for option in &invocation.options {
        match option.as_str() {
            "autospare" => autospare = Some(true),
            "noautospare" => autospare = Some(false),
            "journal" => journal = Some(true),
            "nojournal" => journal = Some(false),
            other => return Ok(Told::error(unknown_option(other))),
        }
    }
    let columns = config.disks.iter().map(|name| parts::part(name)).collect::<Outcome<Vec<Part>>>()?;
    let spares = config.spares.iter().map(|name| parts::part(name)).collect::<Outcome<Vec<Part>>>()?;
    if let Err(why) = parts::distinct(&[columns.clone(), spares.clone()].concat()) {
        return Ok(configure_failed(why));
    }
    if let Err(why) = parts::free(&context.units, number, &[columns.clone(), spares.clone()].concat())? {
        return Ok(configure_failed(why));
    }
    let right = match new_unit(&context.units, number)? {
        Ok(right) => right,
        Err(told) => return Ok(told),
    };
    let empty = raidset::set::Known::default();
    let draft = Record::new(number, &parameters, columns.clone(), spares.clone(), &empty);
    if draft.below().contains(&number) {
        return Ok(configure_failed(format!("raid{number} cannot be a component of itself")));
    }
    let below = Unit::attach_below(&context.units, &draft, 0)?;
    let (column_slots, problems) = parts::slots(&columns, &below);
    for problem in &problems {
        eprintln!("{}: {problem}: its component counts as failed", context.program);
    }
    if force && let Some(problem) = problems.first() {
        // The first configuration decides about sizes and order: a component that is only mistyped must not be left out.
        return Ok(configure_failed(format!(
            "{problem}; write \"{ABSENT}\" for a component that is not there"
        )));
    }
    let (spare_slots, _) = parts::slots(&spares, &below);
    if invocation.dry_run {
        return Ok(would_configure(number, &parameters, &column_slots, force));
    }
    let runner = host::runner();
    let configured = if force && journal == Some(true) {
        RaidSet::configure_with_journal(number, parameters.clone(), column_slots, spare_slots, runner)
    } else {
        RaidSet::configure(number, parameters.clone(), column_slots, spare_slots, force, runner)
    };
    let set = match configured {
        Ok(set) => set,
        Err(error) => return Ok(configure_failed(error)),
    };
    if let Some(on) = autospare {
        set.set_autospare(on);
    }
    for note in set.notes() {
        eprintln!("{}: {note}", context.program);
    }
    if let Some(on) = journal
        && let Err(error) = set.set_journal(on)
    {
        let _ = set.close();
        return Ok(configure_failed(error));
    }
    let out = if invocation.verbose { introduction(number, &set) } else { String::new() };
    let mut named = columns;
    for (part, column) in named.iter_mut().zip(set.status().columns) {
        part.name = column.name;
    }
    let record = Record::new(number, &parameters, named, spares, &set.known());
    context.units.save(&record)?;
    context.units.note_places(&record)?;
    Unit::new(set, record, context.units.clone(), below, right).close()?;
    Ok(Told::text(out))
}

/// What `-n` says.
fn would_configure(number: u32, parameters: &Parameters, columns: &[Slot], force: bool) -> Told {
    use raidset::judge::{Found, judge, tell};
    let found: Vec<Found> = columns
        .iter()
        .map(|slot| {
            let Some(device) = &slot.device else { return Found::Absent };
            let sector_size = device.info().logical_sector;
            let sectors = device.size().unwrap_or(0) / u64::from(sector_size.max(1));
            match Label::read(&**device) {
                Ok(label) => Found::of(sectors, sector_size, label.ok(), force),
                Err(error) => Found::Unfit(format!("fails: {error}")),
            }
        })
        .collect();
    let verdict = judge(&parameters.level, parameters.sectors_per_unit, &found, force);
    let mut out = format!("would configure raid{number} as {} over:\n", parameters.level);
    for (slot, failed) in columns.iter().zip(&verdict.failed) {
        out += &format!("{:>20}: {}\n", slot.name, if *failed { "failed" } else { "optimal" });
    }
    out += &format!("Parity status: {}\n", if verdict.parity_dirty { "DIRTY" } else { "clean" });
    let names: Vec<String> = columns.iter().map(|slot| slot.name.clone()).collect();
    let refusals = tell(&verdict.refusals, &names, &found);
    if refusals.is_empty() || force {
        return Told::text(out);
    }
    Told { out, ..configure_failed(format!("this is refused: {}", refusals.join("; "))) }
}

/// `-u`.
///
/// # Errors
/// The state folder, or a component fails.
pub(crate) fn unconfigure(context: &Context, invocation: &Invocation) -> Outcome<Told> {
    let Some(number) = unit_number(&invocation.device) else {
        return Ok(Told::no_device(&invocation.device));
    };
    let failed = |errno, why: String| Ok(Told::failed("SHUTDOWN", errno, why));
    let units = &context.units;
    if units.find(number)?.is_none() {
        return failed(Errno::NotConfigured, "the unit is not configured".to_owned());
    }
    if let Some(above) = units.all()?.iter().find(|record| record.below().contains(&number)) {
        return failed(
            Errno::Busy,
            format!("raid{number} is a component of raid{}: unconfigure that first", above.unit),
        );
    }
    let busy = "another process uses it: stop that first";
    if let Connected::Holder(_) = connect(&units.socket(number), context.program)? {
        return failed(Errno::Busy, busy.to_owned());
    }
    let right = match units.lock(number)? {
        Ok(right) => right,
        Err(pid) => return failed(Errno::Busy, format!("process {pid} uses it: stop it first")),
    };
    let Some(record) = units.find(number)? else {
        return failed(Errno::NotConfigured, "the unit is not configured".to_owned());
    };
    if invocation.dry_run {
        return Ok(Told::text(format!("would unconfigure raid{number}\n")));
    }
    match Unit::attach(units, record, right, 0) {
        Ok(unit) => {
            if unit.set().rebuild_progress().is_some() {
                return failed(
                    Errno::Busy,
                    "a reconstruction or copyback is under way: -S goes on with it".to_owned(),
                );
            }
            unit.set().unconfigure().map_err(|error| Failure::refused(format!("raid{number}: {error}")))?;
            unit.below().iter().map(|below| below.close()).fold(Ok(()), Outcome::and)?;
        }
        // What cannot be used any more can still be forgotten: its labels are as a crash leaves them.
        Err(error) => eprintln!("{}: {error}; it is forgotten as it is", context.program),
    }
    units.forget(number)?;
    Ok(Told::nothing())
}

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

/// Everything with a label or an extension area that nobody uses.
fn scan(context: &Context) -> Outcome<Vec<Seen>> {
    let units = &context.units;
    let mut seen: Vec<Seen> = Vec::new();
    let used: BTreeSet<PathBuf> = units
        .all()?
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
    for record in units.all()? {
        let path = PathBuf::from(format!("/dev/raid{}", record.unit));
        if used.contains(&path) || used.contains(&PathBuf::from(format!("raid{}", record.unit))) {
            continue;
        }
        if let Ok(right) = units.lock(record.unit)?
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
        return Ok(Told::no_device(&invocation.device));
    }
    let mut told = Told::nothing();
    // A set that was found may be a component of another.
    loop {
        let mut seen = scan(context)?;
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
        let forced: Vec<&FoundSet> = sets.iter().filter(|set| root(set) == Root::Force).collect();
        if forced.len() > 1 {
            told.errors.push(format!("{} sets claim to hold the root file system", forced.len()));
        }
        let mut new = 0;
        for set in &sets {
            let serial = candidates[set.members[0]].label.serial_number;
            if !set.enough {
                let why = format!(
                    "too few components of the set with serial number {serial} are there: -c with a file tells more"
                );
                if !told.errors.contains(&why) {
                    told.errors.push(why);
                }
                continue;
            }
            match take(context, invocation, set, &candidates, &labelled, &seen)? {
                Ok(text) => {
                    told.out += &text;
                    new += 1;
                }
                Err(why) if !told.errors.contains(&why) => told.errors.push(why),
                Err(_) => {}
            }
        }
        if new == 0 || invocation.dry_run {
            return Ok(told);
        }
    }
}

/// Takes a set that was found into use as the unit that it was last, or as the next one that is free.
fn take(
    context: &Context,
    invocation: &Invocation,
    set: &FoundSet,
    candidates: &[Candidate],
    labelled: &[&Seen],
    seen: &[Seen],
) -> Outcome<Result<String, String>> {
    let units = &context.units;
    let label = &candidates[set.members[0]].label;
    let taken: BTreeSet<u32> = units.all()?.iter().map(|record| record.unit).collect();
    let number =
        (label.last_unit..=label.last_unit.saturating_add(4096)).find(|number| !taken.contains(number));
    let Some(number) = number else { return Ok(Err("no unit is free".to_owned())) };
    if invocation.dry_run {
        let names: Vec<&str> = set.members.iter().map(|&member| candidates[member].name.as_str()).collect();
        return Ok(Ok(format!("would configure raid{number} of {}\n", names.join(" "))));
    }
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
        match parts::open(part, &below) {
            Ok(device) => {
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
    let (other_slots, _) = parts::slots(&others, &below);
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
    units.save(&record)?;
    units.note_places(&record)?;
    let text = if invocation.verbose { introduction(number, &raid) } else { String::new() };
    Unit::new(raid, record, units.clone(), below, right).close()?;
    Ok(Ok(text))
}
