//! Taking units into use and out of it: `-c`, `-C`, `-u`; and `-t`, which only looks at a file.

use std::sync::Arc;

use protocol::told::{Errno, Told};
use raidset::config::{ABSENT, Config};
use raidset::design::Design;
use raidset::layout::{Layout, Level};
use raidset::raidctl::{Action, Invocation};
use raidset::set::{Parameters, RaidSet, Status};
use serde_json::json;

use super::plan::unknown_option;
use super::record::{Part, Record, Units, unit_number};
use super::told::{DONE, no_device};
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

/// That what `-o` says has something to be said of.
///
/// # Errors
/// It has not: what is to be said.
pub(crate) fn options_have_a_place(invocation: &Invocation) -> Result<(), Told> {
    let letter = match &invocation.action {
        _ if invocation.options.is_empty() => return Ok(()),
        Action::CheckFile(_) => 't',
        Action::Rescan => 'L',
        Action::Unconfigure => 'u',
        _ => return Ok(()),
    };
    Err(Told::error(format!(
        "-o does not go with -{letter}: give it to a unit that is configured, or with -c"
    )))
}

/// `-t`.
pub(crate) fn check_file(file: &str, json: bool) -> Told {
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
        Ok(_) => {
            let data = json!({ "file": file, "outcome": "valid", "warnings": config.warnings });
            Told { errors: config.warnings, ..Told::either(json, "", data) }
        }
        Err(told) => Told { errors: [config.warnings, told.errors].concat(), ..told },
    }
}

/// What the driver tells of a new unit.
pub(super) fn introduction(unit: u32, set: &RaidSet) -> String {
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
pub(super) fn new_unit(units: &Units, number: u32) -> Outcome<Result<PoolLock, Told>> {
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
        return Ok(no_device(&invocation.device));
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
    let (mut column_slots, problems) = parts::slots(&columns, &below);
    if force && !problems.is_empty() {
        // The first configuration decides about sizes and order: a component that is only mistyped must not be left out.
        return Ok(configure_failed(format!(
            "{}; write \"{ABSENT}\" in its place if the set is to do without it",
            problems.join("; ")
        )));
    }
    for problem in &problems {
        eprintln!("{}: {problem}: its component counts as failed", context.program);
    }
    let (mut spare_slots, missing) = parts::slots(&spares, &below);
    for problem in &missing {
        eprintln!("{}: {problem}: the spare counts as failed", context.program);
    }
    if invocation.dry_run {
        // All is done as it would be, but for that nothing reaches the components.
        let over = parts::over(&mut column_slots).and_then(|()| parts::over(&mut spare_slots));
        if let Err(error) = over {
            return Ok(configure_failed(error));
        }
    }
    let runner = host::runner();
    let made = if force && journal == Some(true) {
        RaidSet::configure_with_journal(number, parameters.clone(), column_slots, spare_slots, runner)
    } else {
        RaidSet::configure(number, parameters.clone(), column_slots, spare_slots, force, runner)
    };
    let set = match made {
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
    if invocation.dry_run {
        return Ok(would_configure(&set, invocation.json));
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
    Ok(configured(invocation.json, &[format!("raid{number}")], out))
}

/// What `-n` says of a set, which was made over components that stay as they are.
fn would_configure(set: &RaidSet, json: bool) -> Told {
    let status = set.status();
    let mut out = format!("would configure raid{} as {} over:\n", set.unit(), set.layout().level());
    for component in status.columns.iter().chain(&status.spares) {
        out += &format!("{:>20}: {}\n", component.name, component.status.word());
    }
    out += &format!("Parity status: {}\n", if status.parity_good { "clean" } else { "DIRTY" });
    let lines: Vec<&str> = out.lines().collect();
    Told::either(json, out.clone(), json!({ "would": lines }))
}

/// What is told of units that were configured: a text with `-v`, their names with `--json`.
pub(super) fn configured(json: bool, units: &[String], text: String) -> Told {
    Told::either(json, text, json!({ "configured": units }))
}

/// `-u`.
///
/// # Errors
/// The state folder, or a component fails.
pub(crate) fn unconfigure(context: &Context, invocation: &Invocation) -> Outcome<Told> {
    let Some(number) = unit_number(&invocation.device) else {
        return Ok(no_device(&invocation.device));
    };
    let failed = |errno, why: String| Ok(Told::failed("SHUTDOWN", errno, why));
    let units = &context.units;
    if units.find(number)?.is_none() {
        return failed(Errno::NotConfigured, "the unit is not configured".to_owned());
    }
    // A record that is damaged is of a unit that nobody can use.
    if let Some(above) = units.all_readable()?.0.iter().find(|record| record.below().contains(&number)) {
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
    let mut outcome = DONE;
    let mut would = format!("would unconfigure raid{number}\n");
    match Unit::attach(units, record, right, 0) {
        Ok(unit) => {
            if unit.set().rebuild_progress().is_some() {
                return failed(
                    Errno::Busy,
                    "a reconstruction or copyback is under way: -S goes on with it".to_owned(),
                );
            }
            if !invocation.dry_run {
                let failed = |error| Failure::refused(format!("raid{number}: {error}"));
                unit.set().unconfigure().map_err(failed)?;
                unit.below().iter().map(|below| below.close()).fold(Ok(()), Outcome::and)?;
            }
        }
        // What cannot be used any more can still be forgotten: its labels are as a crash leaves them.
        Err(error) if invocation.dry_run => {
            would = format!("would forget raid{number} as it is: {error}\n");
        }
        Err(error) => {
            eprintln!("{}: {error}; it is forgotten as it is", context.program);
            outcome = "forgotten";
        }
    }
    if invocation.dry_run {
        let line = would.trim_end().to_owned();
        return Ok(Told::either(invocation.json, would, json!({ "would": [line] })));
    }
    units.forget(number)?;
    Ok(Told::either(invocation.json, "", json!({ "outcome": outcome })))
}
