//! Every option of `raidctl` that works on a configured unit.

use std::sync::Arc;

use protocol::raid::Jobs;
use protocol::told::{Errno, Told, Wait};
use raidset::label::Label;
use raidset::raidctl::{self, Action, Invocation};
use raidset::set::{ComponentStatus, Progress, RebuildKind, SetError, SetStatus, Slot, Status};
use serde_json::{Value, json};

use super::parts;
use super::record::device_name;
use super::told::request_name;
use super::unit::Unit;

/// Carries out a command line.
pub(crate) fn run(unit: &Arc<Unit>, invocation: &Invocation) -> Told {
    for option in invocation.options.iter().filter(|_| !invocation.dry_run) {
        match option.as_str() {
            "autospare" => unit.set().set_autospare(true),
            "noautospare" => unit.set().set_autospare(false),
            "journal" | "nojournal" => {
                if let Err(error) = unit.set().set_journal(option == "journal") {
                    return Told::error(error);
                }
            }
            other => return Told::error(unknown_option(other)),
        }
    }
    if invocation.dry_run
        && let Some(told) = plan(unit, invocation)
    {
        return told;
    }
    let action = &invocation.action;
    match change(unit, invocation) {
        Ok(told) => told,
        Err(error) => Told::failed(request_name(action), errno(action, &error), error),
    }
}

/// What is said of an option that there is not.
pub(crate) fn unknown_option(option: &str) -> String {
    format!("there is no option -o {option}: give autospare, noautospare, journal or nojournal")
}

/// What the driver's error for it would be.
const fn errno(action: &Action, error: &SetError) -> Errno {
    match (action, error) {
        (Action::ReconstructInPlace(_), SetError::Rebuilding) => Errno::Invalid,
        (Action::SetUnit(_) | Action::RemoveSpare(_), SetError::Status { .. })
        | (_, SetError::Rebuilding) => Errno::Busy,
        _ => Errno::Invalid,
    }
}

fn change(unit: &Arc<Unit>, invocation: &Invocation) -> Result<Told, SetError> {
    let set = unit.set();
    let device = device_name(&invocation.device);
    let column =
        |name: &str| set.column_of(name).ok_or_else(|| SetError::NoComponent { name: name.to_owned() });
    let waiting = |wait| Told { wait: Some(wait), ..Told::nothing() };
    Ok(match &invocation.action {
        Action::AddSpare(name) => {
            let unfit = |why| SetError::Unfit { name: name.clone(), why };
            let part = parts::part(name).map_err(|error| unfit(error.to_string()))?;
            let mut all = vec![part.clone()];
            let status = set.status();
            let present = status.columns.iter().chain(&status.spares);
            all.extend(present.filter_map(|component| parts::part(&component.name).ok()));
            parts::distinct(&all).map_err(unfit)?;
            let free = parts::free(unit.units(), unit.number(), std::slice::from_ref(&part));
            free.map_err(|error| unfit(error.to_string()))?.map_err(unfit)?;
            let opened = parts::open(&part, unit.below()).map_err(unfit)?;
            set.add_spare(Slot { name: name.clone(), device: Some(opened) })?;
            Told::nothing()
        }
        Action::RemoveSpare(name) => {
            set.remove_spare(name)?;
            Told::nothing()
        }
        Action::Autoconfigure(on, root) => {
            set.set_autoconfigure(*on, *root)?;
            let mut out = String::new();
            if invocation.verbose {
                let number = unit.number();
                out = format!("raid{number}: Autoconfigure: {}\n", if *on { "Yes" } else { "No" });
                if *on {
                    out += &format!("raid{number}: Root: {}\n", ["No", "Force", "Soft"][*root as usize % 3]);
                }
            }
            Told::text(out)
        }
        Action::Fail { component, reconstruct: false } => {
            let column = column(component)?;
            if set.status().columns[column].status == Status::Optimal
                || set.status().columns[column].status == Status::Spared
            {
                set.fail_column(column)?;
            }
            Told::nothing()
        }
        Action::Fail { component, reconstruct: true } => {
            set.reconstruct_to_spare(column(component)?)?;
            waiting(Wait::Reconstruction)
        }
        Action::ReconstructInPlace(component) => {
            let column = column(component)?;
            set.reconstruct_in_place(column, replacement(unit, column)?, 0)?;
            waiting(Wait::Reconstruction)
        }
        Action::Copyback => {
            let status = set.status();
            let spared = status.columns.iter().position(|component| component.status == Status::Spared);
            let Some(column) = spared else {
                return Ok(Told::failed(
                    "COPYBACK",
                    Errno::Invalid,
                    "no component is spared: there is nothing to copy back",
                ));
            };
            set.copyback(column)?;
            waiting(Wait::Copyback)
        }
        Action::InitLabels(serial) => {
            set.init_labels(*serial)?;
            Told::nothing()
        }
        Action::RewriteParity => {
            if let Some(lost) = set.status().columns.iter().find(|component| lost(component)) {
                return Err(SetError::Degraded { name: lost.name.clone() });
            }
            if !unit.start_rewrite() {
                return Ok(Told::failed(
                    "REWRITEPARITY",
                    Errno::Invalid,
                    "a parity rewrite is running already: -S follows it",
                ));
            }
            let mut told = waiting(Wait::Rewrite);
            "Initiating re-write of parity\n".clone_into(&mut told.out);
            told
        }
        Action::CheckParity => parity(&device, set.parity_good(), invocation.json),
        Action::CheckAndRewriteParity => {
            if set.parity_good() {
                return Ok(Told { code: 0, ..parity(&device, true, invocation.json) });
            }
            if let Some(lost) = set.status().columns.iter().find(|component| lost(component)) {
                return Err(SetError::Degraded { name: lost.name.clone() });
            }
            unit.start_rewrite();
            let [before, after] = raidctl::parity_rewrite(&device);
            Told { out: before, last: after, wait: Some(Wait::RewriteToTheEnd), ..Told::nothing() }
        }
        Action::EnableMap(on) => {
            if set.map_status().is_none() {
                return Ok(no_parity(unit.number()));
            }
            set.set_map_enabled(*on)?;
            let state = if *on { "enabled" } else { "disabled" };
            Told::text(format!("raid{}: parity map will be {state} on next configure\n", unit.number()))
        }
        Action::SetMap([cooldown, tick_ms, regions]) => {
            if set.map_status().is_none() {
                return Ok(no_parity(unit.number()));
            }
            set.set_map_parameters(*cooldown, *tick_ms, *regions)?;
            Told::text(map_set(unit.number(), *cooldown, *tick_ms, *regions))
        }
        Action::ShowMap => {
            let status = set.map_status();
            let enabled_next = status.as_ref().is_some_and(|(_, next)| *next);
            let map = status.as_ref().map(|(map, _)| map.as_ref());
            let out = raidctl::map_status(unit.number(), map, enabled_next, invocation.verbose);
            let data = map.flatten().map_or(Value::Null, |map| {
                let regions: Vec<u32> =
                    (0..map.parameters.regions).filter(|&region| map.bits.get(region)).collect();
                json!({
                    "regions": map.parameters.regions, "region_sectors": map.region_sectors,
                    "cooldown": map.parameters.cooldown, "tick_ms": map.parameters.tick_ms,
                    "writes": map.counters.writes, "syncs": map.counters.syncs, "cleans": map.counters.cleans,
                    "dirty": regions,
                })
            });
            let data = json!({"redundant": map.is_some(), "map": data, "enabled_next": enabled_next});
            Told::either(invocation.json, out, data)
        }
        Action::ShowLabel(name) => {
            let status = set.status();
            let mut all = status.columns.iter().chain(&status.spares);
            let found = set.column_of(name).and_then(|column| status.columns.get(column));
            let found = found.or_else(|| all.find(|component| component.name == *name));
            match found {
                None => Told::error(format!("{name} is not a component of this device")),
                Some(component) => {
                    let Some(label) = &component.label else {
                        let why = format!("{} has no component label: -I makes labels", component.name);
                        return Ok(Told::failed("GET_COMPONENT_LABEL", Errno::Invalid, why));
                    };
                    let out = raidctl::label_block(&component.name, label);
                    Told::either(invocation.json, out, label_json(label))
                }
            }
        }
        Action::Generate => {
            let mut config = set.config();
            if let Some(design) = set.layout().level().design() {
                match unit.units().write_design(unit.number(), design) {
                    Ok(path) => config.design_files.push(path.to_string_lossy().into_owned()),
                    Err(error) => return Ok(Told::error(error)),
                }
            }
            Told::text(config.generate(&device))
        }
        Action::Status => status(unit, invocation),
        Action::Progress => {
            let (set_status, jobs) = (set.status(), unit.progress());
            let out = raidctl::progress(&set_status, rewriting(&jobs));
            let wait = Some(Wait::All).filter(|_| !invocation.json);
            Told { wait, ..Told::either(invocation.json, out, jobs_json(&jobs)) }
        }
        Action::SetUnit(number) => {
            set.set_last_unit(*number)?;
            Told::nothing()
        }
        Action::Configure { .. }
        | Action::Rescan
        | Action::Unconfigure
        | Action::CheckFile(_)
        | Action::Nothing => Told::nothing(),
    })
}

const fn lost(component: &ComponentStatus) -> bool {
    matches!(component.status, Status::Failed | Status::Reconstructing)
}

/// The device to rebuild a component on: the same name again, opened anew if what is there has changed or was not there.
fn replacement(unit: &Arc<Unit>, column: usize) -> Result<Option<Slot>, SetError> {
    let status = unit.set().status();
    let Some(component) = status.columns.get(column) else { return Err(SetError::NoColumn { column }) };
    let name = component.name.clone();
    let unfit = |why: String| SetError::Unfit { name: name.clone(), why };
    if name == format!("component{column}") {
        return Err(unfit("it was never there: add a spare with -a and rebuild on that with -F".to_owned()));
    }
    let part = parts::part(&name).map_err(|error| unfit(error.to_string()))?;
    match parts::open(&part, unit.below()) {
        Ok(device) => Ok(Some(Slot { name: name.clone(), device: Some(device) })),
        // We may have it open ourselves, under the lock that keeps others out.
        Err(why) if why.contains("in use") || why.contains("locked") => Ok(None),
        Err(why) => Err(unfit(why)),
    }
}

fn no_parity(number: u32) -> Told {
    Told::text(format!("raid{number}: has no parity; parity map disabled\n"))
}

/// What `-M set` prints.
fn map_set(number: u32, cooldown: u32, tick_ms: u32, regions: u32) -> String {
    let mut text = String::new();
    if cooldown != 0 || tick_ms != 0 {
        text += &format!("raid{number}: parity cleaned after");
        if cooldown != 0 {
            text += &format!(" {cooldown}");
        }
        text += " intervals";
        if tick_ms != 0 {
            text += &format!(" of {}.{:03}s", tick_ms / 1000, tick_ms % 1000);
        }
        text.push('\n');
    }
    if regions != 0 {
        text += &format!("raid{number}: will use {regions} regions on next configuration\n");
    }
    text
}

fn parity(device: &str, good: bool, json: bool) -> Told {
    let data = json!({"parity": if good { "clean" } else { "DIRTY" }});
    Told { code: u8::from(!good), ..Told::either(json, raidctl::parity_status(device, good), data) }
}

fn rewriting(jobs: &Jobs) -> Option<Progress> {
    jobs.rewrite.map(|part| Progress { done: part.done, total: part.total })
}

fn status(unit: &Arc<Unit>, invocation: &Invocation) -> Told {
    let (status, jobs) = (unit.set().status(), unit.progress());
    let mut out = raidctl::status(&status, rewriting(&jobs));
    if invocation.verbose {
        let on = if unit.set().autospare() { "on" } else { "off" };
        out += &format!("Spares start by themselves: {on}\n");
        out += &match unit.set().journal() {
            Some(bytes) => format!("Journal: {} KiB of each component\n", bytes >> 10),
            None => "Journal: off\n".to_owned(),
        };
    }
    Told::either(invocation.json, out, status_json(unit, &status, &jobs))
}

fn component_json(component: &ComponentStatus) -> Value {
    json!({
        "name": component.name, "status": component.status.word(),
        "label": component.label.as_ref().map(label_json),
    })
}

fn status_json(unit: &Arc<Unit>, status: &SetStatus, jobs: &Jobs) -> Value {
    let set = unit.set();
    let layout = set.layout();
    json!({
        "unit": format!("raid{}", unit.number()),
        "level": layout.level().letter(),
        "sectors": layout.total_sectors(),
        "sector_size": set.sector_size(),
        "sectors_per_unit": layout.unit(),
        "components": status.columns.iter().map(component_json).collect::<Vec<_>>(),
        "spares": status.spares.iter().map(component_json).collect::<Vec<_>>(),
        "parity": if status.parity_good { "clean" } else { "DIRTY" },
        "autospare": set.autospare(),
        "journal": set.journal(),
        "repairs": set.repairs(),
        "partial_rebuild": matches!(status.rebuild, Some((RebuildKind::Reconstruction, ..))) && set.rebuild_is_partial(),
        "jobs": jobs_json(jobs),
    })
}

fn jobs_json(jobs: &Jobs) -> Value {
    serde_json::to_value(jobs).unwrap_or(Value::Null)
}

fn label_json(label: &Label) -> Value {
    json!({
        "row": label.row, "column": label.column, "num_rows": label.num_rows, "num_columns": label.num_columns,
        "serial_number": label.serial_number, "mod_counter": label.mod_counter, "clean": label.clean,
        "status": label.status, "sectors_per_unit": label.sectors_per_unit,
        "units_per_parity_unit": label.units_per_parity_unit, "units_per_recon_unit": label.units_per_recon_unit,
        "queue_length": label.max_outstanding, "block_size": label.block_size, "num_blocks": label.num_blocks,
        "level": label.letter(), "autoconfigure": label.autoconfigure != 0, "root_partition": label.root_partition,
        "last_unit": label.last_unit,
    })
}

/// What would be done, for options that change something.
fn plan(unit: &Arc<Unit>, invocation: &Invocation) -> Option<Told> {
    let set = unit.set();
    let status = set.status();
    let layout = set.layout();
    let lost_now = |other: usize| status.columns.get(other).is_some_and(lost);
    // Whether any further loss is survived.
    let spare_losses = |gone: Option<usize>| {
        let is_gone = |other: usize| lost_now(other) || Some(other) == gone;
        (0..layout.columns())
            .all(|next| is_gone(next) || layout.survives(|other| is_gone(other) || other == next))
    };
    let redundancy = |gone: Option<usize>| {
        if !layout.survives(|other| lost_now(other) || Some(other) == gone) {
            "its data would be lost: this is refused"
        } else if spare_losses(gone) {
            "any one more could fail then"
        } else {
            "not every further failure would be survived then"
        }
    };
    let name = format!("raid{}", unit.number());
    let free = status.spares.iter().find(|spare| spare.status == Status::Spare);
    let text = match &invocation.action {
        Action::Fail { component, reconstruct } => {
            let Some(column) = set.column_of(component) else {
                return Some(Told::error(format!("{component} is not a component of this device")));
            };
            let then = match (reconstruct, free) {
                (false, _) => String::new(),
                (true, Some(spare)) => format!("\nwould reconstruct it on {}", spare.name),
                (true, None) => "\nwould find no free spare: this is refused".to_owned(),
            };
            format!("would fail {component}; {}{then}", redundancy(Some(column)))
        }
        Action::ReconstructInPlace(component) => {
            let column = set.column_of(component);
            format!("would reconstruct {component} in place; until then {}", redundancy(column))
        }
        Action::Copyback => "would copy a spare back to the component that it replaces".to_owned(),
        Action::AddSpare(component) => format!("would add {component} to the spares of {name}"),
        Action::RemoveSpare(component) => format!("would remove {component} from the spares of {name}"),
        Action::InitLabels(serial) => {
            format!("would write labels with serial number {serial} to {} components", layout.columns())
        }
        Action::RewriteParity | Action::CheckAndRewriteParity => {
            let regions = set.map_status().and_then(|(map, _)| map).map(|map| map.bits.count());
            match regions {
                Some(dirty) => format!("would rewrite the parity of {dirty} regions"),
                None => "would rewrite the parity of the whole set".to_owned(),
            }
        }
        Action::Autoconfigure(..) | Action::EnableMap(_) | Action::SetMap(_) | Action::SetUnit(_) => {
            format!("would change the labels of {name}")
        }
        _ => return None,
    };
    Some(Told::text(text + "\n"))
}
