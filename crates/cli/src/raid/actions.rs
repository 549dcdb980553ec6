//! Every option of `raidctl` that works on a configured unit.

use std::sync::Arc;

use protocol::raid::{Failures, Jobs};
use protocol::told::{Errno, Told, Wait};
use raidset::label::Label;
use raidset::raidctl::{self, Action, Invocation};
use raidset::set::{ComponentStatus, Progress, RebuildKind, SetError, SetStatus, Status};
use serde_json::{Value, json};

use super::plan::{self, Go, Ready};
use super::record::device_name;
use super::told::{DONE, request_name};
use super::unit::Unit;

/// Carries out a command line.
pub(crate) fn run(unit: &Arc<Unit>, invocation: &Invocation) -> Told {
    if let Err(told) = plan::check_options(unit, &invocation.options) {
        return told;
    }
    for option in invocation.options.iter().filter(|_| !invocation.dry_run) {
        match option.as_str() {
            "autospare" | "noautospare" => {
                unit.set().set_autospare(option == "autospare");
                unit.let_spares_start();
            }
            _ => {
                if let Err(error) = unit.set().set_journal(option == "journal") {
                    return Told::error(error);
                }
            }
        }
    }
    let action = &invocation.action;
    match change(unit, invocation) {
        Ok(told) => told,
        Err(error) => Told::failed(request_name(action), errno(action, &error), error),
    }
}

/// What the driver's error for it would be.
const fn errno(action: &Action, error: &SetError) -> Errno {
    match (action, error) {
        (Action::ReconstructInPlace(_), SetError::Rebuilding { .. }) => Errno::Invalid,
        (Action::SetUnit(_) | Action::RemoveSpare(_), SetError::Status { .. })
        | (_, SetError::Rebuilding { .. }) => Errno::Busy,
        _ => Errno::Invalid,
    }
}

fn change(unit: &Arc<Unit>, invocation: &Invocation) -> Result<Told, SetError> {
    let set = unit.set();
    let device = device_name(&invocation.device);
    let Go { column, slot, .. } = match plan::check(unit, invocation)? {
        Ready::Said(told) => return Ok(told),
        Ready::Go(go) => match go.would(invocation).filter(|_| invocation.dry_run) {
            Some(told) => return Ok(told),
            None => go,
        },
    };
    let waiting = |wait| Told { wait: Some(wait), ..Told::nothing() };
    let done = |data: Value| Told::either(invocation.json, "", data);
    Ok(match &invocation.action {
        Action::AddSpare(_) => {
            if let Some(slot) = slot {
                set.add_spare(slot)?;
            }
            unit.let_spares_start();
            Told::nothing()
        }
        Action::RemoveSpare(name) => {
            set.remove_spare(name)?;
            unit.let_spares_start();
            Told::nothing()
        }
        Action::Autoconfigure(on, root) => {
            set.set_autoconfigure(*on, *root)?;
            let root = ["No", "Force", "Soft"][*root as usize % 3];
            let mut out = String::new();
            if invocation.verbose {
                let number = unit.number();
                out = format!("raid{number}: Autoconfigure: {}\n", if *on { "Yes" } else { "No" });
                if *on {
                    out += &format!("raid{number}: Root: {root}\n");
                }
            }
            Told::either(invocation.json, out, json!({ "autoconfigure": on, "root": root }))
        }
        Action::Fail { reconstruct: false, .. } => {
            let status = set.status().columns.get(column).map(|component| component.status);
            let works = matches!(status, Some(Status::Optimal | Status::Spared));
            if works {
                set.fail_column(column)?;
            }
            done(json!({ "outcome": if works { DONE } else { "unchanged" } }))
        }
        Action::Fail { reconstruct: true, .. } => {
            unit.start_rebuild(|| set.reconstruct_to_spare(column))?;
            waiting(Wait::Reconstruction)
        }
        Action::ReconstructInPlace(_) => {
            unit.start_rebuild(|| set.reconstruct_in_place(column, slot, 0))?;
            waiting(Wait::Reconstruction)
        }
        Action::Copyback => {
            let component = set.status().columns.get(column).map(|component| component.name.clone());
            unit.start_rebuild(|| set.copyback(column))?;
            // What is in the free units is rebuilt.
            let rebuilt = matches!(set.rebuild_progress(), Some((RebuildKind::Reconstruction, ..)));
            let wait = Some(if rebuilt { Wait::Reconstruction } else { Wait::Copyback });
            Told { wait, ..done(json!({ "component": component })) }
        }
        Action::InitLabels(serial) => {
            set.init_labels(*serial)?;
            done(json!({ "serial_number": serial }))
        }
        Action::RewriteParity => {
            let word = if set.parity_good() { "clean" } else { "DIRTY" };
            unit.start_rewrite();
            let before = "Initiating re-write of parity\n";
            let data = json!({ "parity": word, "rewrite": "started" });
            Told { wait: Some(Wait::Rewrite), ..Told::either(invocation.json, before, data) }
        }
        Action::CheckParity => parity(&device, set.parity_good(), invocation.json),
        Action::CheckAndRewriteParity => {
            if set.parity_good() {
                let data = json!({ "parity": "clean", "outcome": "unchanged" });
                return Ok(Told::either(invocation.json, raidctl::parity_status(&device, true), data));
            }
            unit.start_rewrite();
            let wait = Some(Wait::RewriteToTheEnd);
            let [before, after] = raidctl::parity_rewrite(&device);
            let data = json!({ "parity": "DIRTY", "rewrite": "started" });
            let last = if invocation.json { String::new() } else { after };
            Told { last, wait, ..Told::either(invocation.json, before, data) }
        }
        Action::EnableMap(on) => {
            set.set_map_enabled(*on)?;
            let state = if *on { "enabled" } else { "disabled" };
            let out = format!("raid{}: parity map will be {state} on next configure\n", unit.number());
            Told::either(invocation.json, out, json!({ "redundant": true, "enabled_next": on }))
        }
        Action::SetMap([cooldown, tick_ms, regions]) => {
            set.set_map_parameters(*cooldown, *tick_ms, *regions)?;
            let map = set.map_parameters();
            let data = json!({
                "redundant": true, "cooldown": map.cooldown, "tick_ms": map.tick_ms, "regions_next": map.regions,
            });
            let out = map_set(unit.number(), *cooldown, *tick_ms, *regions);
            Told::either(invocation.json, out, data)
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
                None => Told::error(SetError::NoComponent { name: name.clone() }),
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
            let data = json!({
                "level": config.letter, "components": config.disks, "spares": config.spares,
                "sectors_per_unit": config.sectors_per_unit,
                "units_per_parity_unit": config.units_per_parity_unit,
                "units_per_recon_unit": config.units_per_recon_unit, "queue_length": config.queue_length,
                "design": config.design_files.first(), "file": config.generate(&device),
            });
            Told::either(invocation.json, config.generate(&device), data)
        }
        Action::Status => status(unit, invocation),
        Action::Progress => {
            let (set_status, jobs) = (set.status(), unit.progress());
            let out = raidctl::progress(&set_status, rewriting(&jobs)) + &failures(&jobs.failed);
            let wait = Some(Wait::All).filter(|_| !invocation.json && !invocation.dry_run);
            Told { wait, ..Told::either(invocation.json, out, jobs_json(&jobs)) }
        }
        Action::SetUnit(number) => {
            set.set_last_unit(*number)?;
            done(json!({ "last_unit": number }))
        }
        Action::Configure { .. }
        | Action::Rescan
        | Action::Unconfigure
        | Action::CheckFile(_)
        | Action::Nothing => Told::nothing(),
    })
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

/// What `-s` and `-S` say of jobs that failed, behind everything else, so that the lines that scripts know stay where they are.
fn failures(failed: &Failures) -> String {
    let all = [
        ("Reconstruction", &failed.reconstruction),
        ("Parity Re-write", &failed.rewrite),
        ("Copyback", &failed.copyback),
    ];
    let told = all.into_iter().filter_map(|(job, why)| Some(format!("{job} failed: {}\n", why.as_ref()?)));
    told.collect()
}

fn status(unit: &Arc<Unit>, invocation: &Invocation) -> Told {
    let (status, jobs) = (unit.set().status(), unit.progress());
    let mut out = raidctl::status(&status, rewriting(&jobs)) + &failures(&jobs.failed);
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
        "in_free_units": set.in_free_units().and_then(|column| status.columns.get(column)).map(|one| one.name.clone()),
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
