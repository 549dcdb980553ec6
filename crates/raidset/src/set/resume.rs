//! What a set goes on with: spares that are in use, and the rebuild that a restart has interrupted.
//!
//! Extension areas name both. They are borne out by the devices themselves: a spare in use has the label of its column with the
//! set's counter, and the target of a rebuild an extension area of the same moment as those of the columns.

use std::sync::Arc;

use device::BlockDevice;

use super::RaidSet;
use super::known::KnownRebuild;
use super::members::{Component, RebuildKind, Status, same};
use super::start::Slot;
use crate::extension::{Extension, Role};
use crate::judge::Candidate;
use crate::label::Label;
use crate::layout::Level;

/// Spares, the columns that they replace, and the rebuild that goes on.
pub(super) struct Resumed {
    pub(super) spares: Vec<Component>,
    /// The spare that each column uses.
    pub(super) spare_of: Vec<Option<usize>>,
    pub(super) rebuild: Option<(KnownRebuild, Arc<dyn BlockDevice>)>,
    /// The column that is being rebuilt in the free units, and how many rows are there.
    pub(super) into_free_units: Option<(usize, u64)>,
}

/// A device with its name, and what it says.
struct Seen {
    name: String,
    device: Arc<dyn BlockDevice>,
    label: Option<Label>,
    extension: Extension,
}

impl Seen {
    /// A device that has an extension area of the set; its label, if a power cut kept the counter from it, has it in memory.
    fn of(best: &Extension, name: &str, device: &Arc<dyn BlockDevice>) -> Option<Self> {
        let extension = Extension::read(&**device).ok()??;
        if extension.serial_number != best.serial_number {
            return None;
        }
        let mut label = Label::read(&**device).ok()?.ok();
        best.complete(label.iter_mut());
        Some(Self { name: name.to_owned(), device: device.clone(), label, extension })
    }

    /// How many rows of a column it holds as the target of the rebuild that was under way.
    fn rows_of(&self, best: &Extension, column: usize) -> Option<u64> {
        let target = self.extension.role == Role::Column(column as u8);
        let now = self.extension.mod_counter == best.mod_counter;
        (target && now).then(|| self.extension.known.rebuild.map_or(0, |own| own.rows))
    }

    fn component(&self, status: Status) -> Component {
        let label = self.label.clone().filter(|_| status == Status::UsedSpare);
        Component { name: self.name.clone(), device: Some(self.device.clone()), status, label }
    }
}

/// The columns that are kept on one of the spares, though a configuration names the components that they replace: the spare's label
/// is the column's then.
pub(super) fn in_spares(
    columns: &[Option<Label>],
    spares: &[Option<Label>],
    extensions: &[Option<Extension>],
) -> Vec<Option<usize>> {
    let serials: Vec<i32> = columns.iter().flatten().map(|label| label.serial_number).collect();
    let on_spare = |column: usize, spare: &Label| {
        let ours =
            columns.iter().chain(spares).flatten().filter(|one| one.serial_number == spare.serial_number);
        let counter = ours.map(|label| label.mod_counter).max().unwrap_or(spare.mod_counter);
        let best = Extension::best(extensions.iter().flatten(), spare.serial_number, counter);
        let told = best.and_then(|best| best.known.columns.get(column)).map(|column| column.status);
        serials.contains(&spare.serial_number)
            && (spare.column as usize, spare.mod_counter) == (column, counter)
            && told == Some(Status::Spared)
    };
    let place =
        |column| spares.iter().position(|spare| spare.as_ref().is_some_and(|spare| on_spare(column, spare)));
    (0..columns.len()).map(place).collect()
}

/// The column that is in the free units of the others, as the components of a configuration tell. The label that is on its own component,
/// if any, is old.
pub(super) fn in_free_units(
    level: &Level,
    columns: &[Option<Label>],
    extensions: &[Option<Extension>],
) -> Option<usize> {
    let labels = || columns.iter().flatten().map(|label| (label.mod_counter, label.serial_number));
    let (counter, serial_number) = labels().max()?;
    // Of one that does not belong to the others nothing counts.
    let ours = labels().filter(|(_, serial)| *serial == serial_number).count();
    if 2 * ours <= labels().count() {
        return None;
    }
    let best = Extension::best(extensions.iter().flatten(), serial_number, counter)?;
    best.known.column_in_free_units().filter(|_| *level == Level::RotatedSparing)
}

/// The columns that the set did without when it was used last, as the newest extension area tells. Each was left with another counter if
/// they were lost one after the other, which by itself would look like labels of which nobody can tell which are right.
pub(super) fn lost_before(columns: &[Option<Label>], extensions: &[Option<Extension>]) -> Vec<bool> {
    let nothing = vec![false; columns.len()];
    let labels = || columns.iter().flatten();
    let newest = labels().map(|label| (label.mod_counter, label.serial_number)).max();
    let Some((newest_counter, serial_number)) = newest else { return nothing };
    // Of one that does not belong to the others nothing counts.
    let ours = labels().filter(|label| label.serial_number == serial_number).count();
    if 2 * ours <= labels().count() {
        return nothing;
    }
    let believed = Extension::best(extensions.iter().flatten(), serial_number, newest_counter);
    let Some(believed) = believed.filter(|believed| believed.known.columns.len() == columns.len()) else {
        return nothing;
    };
    let lost = |(column, label): (usize, &Option<Label>)| {
        let told = believed.known.columns[column].status == Status::Failed;
        let left = label.as_ref().is_none_or(|label| {
            (label.serial_number, label.column as usize) == (believed.serial_number, column)
                && label.mod_counter.wrapping_sub(believed.mod_counter) < 0
        });
        told && left
    };
    columns.iter().enumerate().map(lost).collect()
}

impl Resumed {
    /// For a set of `columns` columns: nothing.
    pub(super) fn nothing(columns: usize) -> Self {
        Self { spares: Vec::new(), spare_of: vec![None; columns], rebuild: None, into_free_units: None }
    }

    /// A column that counts as failed, but is in the free units of the others, is there; or it is being rebuilt there.
    pub(super) fn find_free_units(&mut self, level: &Level, best: &Extension, columns: &mut [Component]) {
        if *level != Level::RotatedSparing {
            return;
        }
        let failed = |component: &&mut Component| component.status == Status::Failed;
        if let Some(column) = best.known.column_in_free_units()
            && let Some(component) = columns.get_mut(column).filter(failed)
        {
            component.status = Status::Spared;
        }
        if let Some(known) = best.known.rebuild.filter(|known| known.free_units)
            && let Some(component) = columns.get_mut(known.column).filter(failed)
        {
            component.status = Status::Reconstructing;
            self.into_free_units = Some((known.column, known.rows));
        }
    }

    fn add(&mut self, spare: Component) -> usize {
        self.spares.push(spare);
        self.spares.len() - 1
    }

    /// Takes a spare into use for a column.
    fn use_spare(&mut self, seen: &Seen, column: usize) -> usize {
        let spare = self.add(seen.component(Status::UsedSpare));
        self.spare_of[column] = Some(spare);
        spare
    }

    /// For columns and spares that a configuration names; `in_spare` is what [`in_spares`] found. Other columns change only if they
    /// were judged failed.
    pub(super) fn of_columns(
        best: &Extension,
        columns: &mut [Component],
        spares: &[Slot],
        in_spare: &[Option<usize>],
    ) -> Self {
        let mut resumed = Self::nothing(columns.len());
        let see = |slot: &Slot| Seen::of(best, &slot.name, slot.device.as_ref()?);
        for (column, component) in columns.iter_mut().enumerate() {
            let spare = in_spare[column].and_then(|spare| see(&spares[spare]));
            if let Some(spare) = spare.filter(|_| component.status == Status::Optimal) {
                component.status = Status::Spared;
                resumed.use_spare(&spare, column);
            }
        }
        let Some(known) = best.known.rebuild.filter(|known| !known.free_units) else { return resumed };
        let Some(component) = columns.get_mut(known.column) else { return resumed };
        let own = || Seen::of(best, &component.name, component.device.as_ref()?);
        match (known.kind, component.status) {
            (RebuildKind::Copyback, Status::Spared) => {
                resumed.go_on(best, known, own());
            }
            (RebuildKind::Reconstruction, Status::Failed) => {
                if resumed.go_on(best, KnownRebuild { spare: None, ..known }, own()) {
                    component.status = Status::Reconstructing;
                } else if let Some(target) =
                    spares.iter().filter_map(see).find(|seen| seen.rows_of(best, known.column).is_some())
                {
                    resumed.fill_spare(best, known, &target);
                    component.status = Status::Reconstructing;
                }
            }
            _ => {}
        }
        resumed
    }

    /// Goes on with a rebuild if a device was its target.
    fn go_on(&mut self, best: &Extension, known: KnownRebuild, target: Option<Seen>) -> bool {
        let Some(target) = target else { return false };
        let Some(rows) = target.rows_of(best, known.column) else { return false };
        self.rebuild = Some((KnownRebuild { rows, ..known }, target.device));
        true
    }

    /// Goes on with filling a spare.
    fn fill_spare(&mut self, best: &Extension, known: KnownRebuild, target: &Seen) {
        let rows = target.rows_of(best, known.column).unwrap_or(0);
        let spare = self.use_spare(target, known.column);
        // It has no label before it is whole.
        self.spares[spare].label = None;
        self.rebuild = Some((KnownRebuild { rows, spare: Some(spare), ..known }, target.device.clone()));
    }

    /// For a set that scanning found: `members` are its labelled devices, `others` all that have no label of it, among which its spares
    /// may be. A column that was spared is its spare, as with RAIDframe, but for one that is being copied back.
    pub(super) fn of_found<'a>(
        best: &Extension,
        columns: &mut [Component],
        members: impl Iterator<Item = (&'a Candidate, &'a Arc<dyn BlockDevice>)>,
        others: &[Slot],
    ) -> Self {
        let mut resumed = Self::nothing(columns.len());
        let stale: Vec<Seen> =
            members.filter_map(|(candidate, device)| Seen::of(best, &candidate.name, device)).collect();
        let ours: Vec<Seen> =
            others.iter().filter_map(|slot| Seen::of(best, &slot.name, slot.device.as_ref()?)).collect();
        for (index, _) in
            best.known.spares.iter().enumerate().filter(|(_, spare)| spare.status == Status::Spare)
        {
            if let Some(seen) = ours.iter().find(|seen| seen.extension.role == Role::Spare(index as u8)) {
                resumed.add(seen.component(Status::Spare));
            }
        }
        let Some(known) = best.known.rebuild.filter(|known| !known.free_units) else { return resumed };
        let Some(component) = columns.get_mut(known.column) else { return resumed };
        // A target that was a component before is among the stale ones, of which a column may have several.
        let is_target = |seen: &&Seen| {
            seen.rows_of(best, known.column).is_some()
                && !(component.status == Status::Optimal
                    && component.device.as_ref().is_some_and(|device| same(device, &seen.device)))
        };
        let Some(target) = stale.iter().find(is_target).or_else(|| ours.iter().find(is_target)) else {
            return resumed;
        };
        match (known.kind, component.status) {
            (RebuildKind::Reconstruction, Status::Failed) if known.spare.is_some() => {
                resumed.fill_spare(best, known, target);
                component.status = Status::Reconstructing;
            }
            (RebuildKind::Reconstruction, Status::Failed) => {
                *component = target.component(Status::Reconstructing);
                let rows = target.rows_of(best, known.column).unwrap_or(0);
                resumed.rebuild = Some((KnownRebuild { rows, ..known }, target.device.clone()));
            }
            (RebuildKind::Copyback, Status::Optimal) => {
                let spare = std::mem::replace(component, target.component(Status::Spared));
                let spare = resumed.add(Component { status: Status::UsedSpare, ..spare });
                resumed.spare_of[known.column] = Some(spare);
                let rows = target.rows_of(best, known.column).unwrap_or(0);
                let known = KnownRebuild { rows, spare: Some(spare), ..known };
                resumed.rebuild = Some((known, target.device.clone()));
            }
            _ => {}
        }
        resumed
    }
}

impl RaidSet {
    /// Puts the spares of a set that nobody uses yet into an order.
    pub(super) fn order_spares(&self, names: &[String]) {
        let mut members = (*self.members()).clone();
        let mut order: Vec<usize> = (0..members.spares.len()).collect();
        order.sort_by_key(|&spare| names.iter().position(|name| *name == members.spares[spare].name));
        let spares = order.iter().map(|&spare| members.spares[spare].clone()).collect();
        for used in members.spare_of.iter_mut().flatten() {
            *used = order.iter().position(|spare| spare == used).unwrap_or(*used);
        }
        members.spares = spares;
        self.publish(members);
    }
}
