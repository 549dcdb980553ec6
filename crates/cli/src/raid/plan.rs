//! Whether a command can be done, on what, and what it would do: asked before anything is changed, with and without `-n`,
//! so that both say the same.

use std::sync::Arc;

use protocol::told::{Errno, Told};
use raidset::raidctl::{Action, Invocation};
use raidset::set::{ComponentStatus, SetError, Slot, Status};
use serde_json::json;

use super::parts;
use super::unit::Unit;

/// What is known before a command is done.
pub(super) enum Ready {
    /// It can be done.
    Go(Go),
    /// There is nothing to do, or it can't be done, and this is all to be said.
    Said(Told),
}

/// What to do it on.
#[derive(Default)]
pub(super) struct Go {
    /// The column that it is about.
    pub(super) column: usize,
    /// The device that is to join.
    pub(super) slot: Option<Slot>,
    /// What `-n` says; empty if the command changes nothing.
    would: String,
}

impl Go {
    /// What `-n` says of it; `None` if the command changes nothing.
    pub(super) fn would(&self, invocation: &Invocation) -> Option<Told> {
        let options: Vec<String> =
            invocation.options.iter().map(|option| format!("would set {option}\n")).collect();
        let text = options.concat() + &self.would;
        let lines: Vec<&str> = text.lines().collect();
        (!text.is_empty()).then(|| Told::either(invocation.json, text.clone(), json!({ "would": lines })))
    }
}

/// What is said of an option that there is not.
pub(super) fn unknown_option(option: &str) -> String {
    format!("there is no option -o {option}: give autospare, noautospare, journal or nojournal")
}

/// Asks whether what `-o` says can be done.
///
/// # Errors
/// It can't: what is to be said.
pub(super) fn check_options(unit: &Unit, options: &[String]) -> Result<(), Told> {
    for option in options {
        match option.as_str() {
            "autospare" | "noautospare" | "nojournal" => {}
            "journal" => unit.set().may_have_journal().map(drop).map_err(Told::error)?,
            other => return Err(Told::error(unknown_option(other))),
        }
    }
    Ok(())
}

/// Asks whether a command can be done.
///
/// # Errors
/// It can't.
pub(super) fn check(unit: &Arc<Unit>, invocation: &Invocation) -> Result<Ready, SetError> {
    let set = unit.set();
    let status = set.status();
    let name = format!("raid{}", unit.number());
    let column = |name: &str| set.require_column(name);
    let go = |would: String| Go { would: would + "\n", ..Go::default() };
    Ok(Ready::Go(match &invocation.action {
        Action::AddSpare(component) => {
            let slot = new_spare(unit, component)?;
            set.may_add_spare(&slot)?;
            let would = format!("would add {component} to the spares of {name}");
            Go { slot: Some(slot), ..go(would) }
        }
        Action::RemoveSpare(component) => {
            set.may_remove_spare(component)?;
            go(format!("would remove {component} from the spares of {name}"))
        }
        Action::Fail { component, reconstruct: false } => {
            let column = column(component)?;
            let would = match status.columns.get(column).map(|component| component.status) {
                // Failing what has failed is no error.
                Some(Status::Failed) => format!("{component} has failed already: nothing would change"),
                Some(Status::Reconstructing) => {
                    let name = component.clone();
                    return Err(SetError::Status { name, status: Status::Reconstructing });
                }
                _ => {
                    set.may_fail(column)?;
                    format!("would fail {component}; {}", redundancy(unit, column))
                }
            };
            Go { column, ..go(would) }
        }
        Action::Fail { component, reconstruct: true } => {
            let column = column(component)?;
            let spare = set.may_reconstruct_to_spare(column)?;
            let then = redundancy(unit, column);
            let would = format!("would fail {component}; {then}\nwould reconstruct it on {spare}");
            Go { column, ..go(would) }
        }
        Action::ReconstructInPlace(component) => {
            let column = column(component)?;
            let slot = replacement(unit, column)?;
            set.may_reconstruct_in_place(column, slot.as_ref())?;
            let until = redundancy(unit, column);
            let would = format!("would reconstruct {component} in place; until then {until}");
            Go { column, slot, ..go(would) }
        }
        Action::Copyback => {
            let Some(column) = status.columns.iter().position(|one| one.status == Status::Spared) else {
                let why = "no component is spared: there is nothing to copy back";
                return Ok(Ready::Said(Told::failed("COPYBACK", Errno::Invalid, why)));
            };
            set.may_copy_back(column)?;
            let to = &status.columns[column].name;
            let would = format!("would copy a spare back to the component that it replaces, {to}");
            Go { column, ..go(would) }
        }
        Action::InitLabels(serial) => {
            let columns = set.layout().columns();
            go(format!("would write labels with serial number {serial} to {columns} components"))
        }
        Action::RewriteParity | Action::CheckAndRewriteParity => {
            let check = invocation.action == Action::CheckAndRewriteParity;
            if check && set.parity_good() {
                return Ok(Ready::Go(Go::default()));
            }
            set.may_rewrite_parity()?;
            if unit.is_rewriting() && !check {
                let why = "a parity rewrite is running already: -S follows it";
                return Ok(Ready::Said(Told::failed("REWRITEPARITY", Errno::Invalid, why)));
            }
            let regions = set.map_status().and_then(|(map, _)| map).map(|map| map.bits.count());
            go(match regions {
                Some(dirty) => format!("would rewrite the parity of {dirty} regions"),
                None => "would rewrite the parity of the whole set".to_owned(),
            })
        }
        Action::EnableMap(_) | Action::SetMap(_) if set.map_status().is_none() => {
            let text = format!("{name}: has no parity; parity map disabled\n");
            let data = json!({ "redundant": false });
            return Ok(Ready::Said(Told::either(invocation.json, text, data)));
        }
        Action::SetMap([cooldown, tick_ms, regions]) => {
            set.may_set_map_parameters(*cooldown, *tick_ms, *regions)?;
            go(format!("would change the labels of {name}"))
        }
        Action::SetUnit(_) => {
            set.may_set_last_unit()?;
            go(format!("would change the labels of {name}"))
        }
        Action::Autoconfigure(..) | Action::EnableMap(_) => go(format!("would change the labels of {name}")),
        _ => Go::default(),
    }))
}

const fn lost(component: &ComponentStatus) -> bool {
    matches!(component.status, Status::Failed | Status::Reconstructing)
}

/// What can still fail when a column, which the set can do without, is gone.
fn redundancy(unit: &Unit, column: usize) -> &'static str {
    let layout = unit.set().layout();
    let columns = unit.set().status().columns;
    let gone = |other: usize| other == column || columns.get(other).is_some_and(lost);
    let any =
        (0..layout.columns()).all(|next| gone(next) || layout.survives(|other| gone(other) || other == next));
    if any { "any one more could fail then" } else { "not every further failure would be survived then" }
}

/// The device of a new spare.
fn new_spare(unit: &Arc<Unit>, name: &str) -> Result<Slot, SetError> {
    let unfit = |why| SetError::Unfit { name: name.to_owned(), why };
    let part = parts::part(name).map_err(|error| unfit(error.to_string()))?;
    let status = unit.set().status();
    let same = |component: &&ComponentStatus| {
        component.name == name
            || parts::part(&component.name)
                .is_ok_and(|present| parts::distinct(&[part.clone(), present]).is_err())
    };
    let of = |component: &ComponentStatus, what: &str| {
        let called =
            if component.name == name { String::new() } else { format!(", called {}", component.name) };
        unfit(format!("it is {what} of raid{} already{called}: name another device", unit.number()))
    };
    if let Some(column) = status.columns.iter().find(same) {
        return Err(of(column, "a component"));
    }
    if let Some(spare) = status.spares.iter().find(same) {
        return Err(of(spare, "a spare"));
    }
    let free = parts::free(unit.units(), unit.number(), std::slice::from_ref(&part));
    free.map_err(|error| unfit(error.to_string()))?.map_err(unfit)?;
    if let Some(lower) = part.path.as_deref().and_then(parts::unit_below) {
        let number = unit.number();
        return Err(unfit(if lower == number {
            format!("raid{number} cannot be a component of itself")
        } else {
            // It would have to be held together with this one.
            format!("it is a unit: unconfigure raid{number}, and name it as a spare in the file for -c")
        }));
    }
    let opened = parts::open(&part, unit.below()).map_err(unfit)?;
    Ok(Slot { name: name.to_owned(), device: Some(opened) })
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
