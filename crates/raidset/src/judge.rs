//! Which components belong to a set, and which of them missed something.
//!
//! Two ways lead to a set: [`group`] finds sets among everything that has a label (autoconfiguration), [`check`] judges
//! the components that a configuration file names. Both follow RAIDframe; nothing in here does I/O.

use crate::config::ABSENT;
use crate::extension::{Extension, Role};
use crate::label::{Label, PROTECTED_SECTORS, Version};
use crate::layout::{Layout, Level};

/// A component with a label, found by scanning.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The device's name.
    pub name: String,
    /// Its label.
    pub label: Label,
    /// Its size, sectors.
    pub sectors: u64,
    /// The column that its extension area tells to be in the free units of the others, and how new that area is.
    pub in_free_units: (u64, Option<usize>),
}

impl Candidate {
    /// A device with a label; none if its extension area tells that it is a spare since: a power cut between the last label of a copyback
    /// and the release of the spare leaves a label on it which says that it is the column.
    pub fn of(name: String, label: Label, sectors: u64, extension: Option<&Extension>) -> Option<Self> {
        let released = extension.is_some_and(|own| {
            matches!(own.role, Role::Spare(_))
                && own.serial_number == label.serial_number
                && own.mod_counter.wrapping_sub(label.mod_counter) >= 0
        });
        let now = extension.filter(|own| own.tells_of(label.serial_number, label.mod_counter));
        let in_free_units = now.map_or((0, None), |own| (own.sequence, own.known.column_in_free_units()));
        (!released).then_some(Self { name, label, sectors, in_free_units })
    }
}

/// What a column of a found set is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// This candidate is up to date.
    Current(usize),
    /// This candidate was left behind: its counter is too low.
    Stale(usize),
    /// There is none.
    Missing,
}

/// Candidates that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSet {
    /// The candidates, by index, in the order found.
    pub members: Vec<usize>,
    /// The set's counter: the greatest of its members'.
    pub mod_counter: i32,
    /// What each column is made of.
    pub columns: Vec<Member>,
    /// Whether enough columns are current.
    pub enough: bool,
    /// Whether a current column was not left clean.
    pub parity_dirty: bool,
    /// Whether it wants to be configured by itself.
    pub autoconfigure: bool,
}

/// Undoes, in memory, what power cuts between the writes of labels have done to their counters, as far as the extension areas of
/// the same components tell: see [`Extension::complete`].
pub fn complete<'a>(labels: impl Iterator<Item = &'a mut Label>, extensions: &[Option<Extension>]) {
    let mut labels: Vec<&mut Label> = labels.collect();
    let mut serials: Vec<i32> = labels.iter().map(|label| label.serial_number).collect();
    serials.sort_unstable();
    serials.dedup();
    for serial in serials {
        let ours = labels.iter_mut().filter(|label| label.serial_number == serial);
        let mut ours: Vec<&mut Label> = ours.map(|label| &mut **label).collect();
        let Some(counter) = ours.iter().map(|label| label.mod_counter).max() else { continue };
        if let Some(best) = Extension::best(extensions.iter().flatten(), serial, counter) {
            best.complete(ours.iter_mut().map(|label| &mut **label));
        }
    }
}

/// Whether two labels are of one set; column, counter, sizes of components, clean and status may differ.
fn same_set(a: &Label, b: &Label) -> bool {
    let key = |label: &Label| {
        (
            (label.version == Version::V2, label.byte_order as u8, label.serial_number),
            (label.num_rows, label.num_columns, label.num_blocks, label.block_size),
            (label.sectors_per_unit, label.units_per_parity_unit, label.units_per_recon_unit),
            (label.parity_config, label.max_outstanding, label.autoconfigure),
            (label.root_partition, label.last_unit, label.config_order),
        )
    };
    key(a) == key(b)
}

/// Sorts candidates into sets. Those whose label claims more than the device holds are left out, as are sets of more
/// columns than any set has.
pub fn group(candidates: &[Candidate]) -> Vec<FoundSet> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.label.partition_size > candidate.sectors {
            continue;
        }
        let fits = |set: &&mut Vec<usize>| same_set(&candidates[set[0]].label, &candidate.label);
        match sets.iter_mut().find(fits) {
            Some(set) => set.push(index),
            None => sets.push(vec![index]),
        }
    }
    sets.into_iter().filter_map(|members| found_set(candidates, members)).collect()
}

fn found_set(candidates: &[Candidate], members: Vec<usize>) -> Option<FoundSet> {
    let label = |member: usize| &candidates[member].label;
    let first = label(*members.first()?);
    let num_columns = u16::try_from(first.num_columns).ok()?;
    if num_columns > crate::layout::MAX_COLUMNS {
        return None;
    }
    let mod_counter = members.iter().map(|&member| label(member).mod_counter).max()?;
    let columns: Vec<Member> = (0..u32::from(num_columns))
        .map(|column| {
            let mut of_column = members.iter().copied().filter(|&member| label(member).column == column);
            let current = of_column.clone().find(|&member| label(member).mod_counter == mod_counter);
            match current.map(Member::Current) {
                Some(current) => current,
                None => of_column.next().map_or(Member::Missing, Member::Stale),
            }
        })
        .collect();
    // Letters that we cannot run are "enough" to RAIDframe, but not to us. With a block design, which is not known here, it turns out later.
    let layout = first
        .letter()
        .and_then(Level::from_letter)
        .and_then(|level| Layout::over(level, num_columns, first.sectors_per_unit, first.num_blocks).ok());
    let newest = columns.iter().filter_map(|member| match member {
        Member::Current(at) => Some(candidates[*at].in_free_units),
        _ => None,
    });
    let spread = newest.max().and_then(|(_, column)| column).filter(|_| first.letter() == Some('R'));
    let lost = |column: usize| !matches!(columns[column], Member::Current(_)) && spread != Some(column);
    let designed = first.letter().is_some_and(Level::needs_design);
    let enough = designed || layout.is_some_and(|layout| layout.survives(lost));
    let parity_dirty =
        columns.iter().any(|member| matches!(member, Member::Current(at) if !label(*at).clean));
    let autoconfigure = first.autoconfigure == 1;
    Some(FoundSet { members, mod_counter, columns, enough, parity_dirty, autoconfigure })
}

/// What [`check`] is told about a column.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is there and has this label.
    Labelled(Box<Label>),
    /// It is there, but has no reasonable label.
    Unlabelled,
    /// It is not there.
    Absent,
    /// Whatever there is, the column is in the free units of the others.
    InFreeUnits,
    /// The set is known to have done without this column when it was used last, so nothing has to excuse it.
    Lost {
        /// Whether there is a component.
        there: bool,
        /// The label that it was left with.
        label: Option<Box<Label>>,
    },
    /// It is there, but cannot be used, whatever its label says: why, behind its name.
    Unfit(String),
}

impl Found {
    /// What a column's device of `sectors` sectors of `sector_size` bytes is by its label; with `force` these may be others than the label says.
    pub fn of(sectors: u64, sector_size: u32, label: Option<Label>, force: bool) -> Self {
        let Some(label) = label else { return Self::Unlabelled };
        if !force && label.block_size != sector_size {
            let found = label.block_size;
            return Self::Unfit(format!("has sectors of {sector_size} bytes, but its label says {found}"));
        }
        let needed = label.num_blocks.saturating_add(PROTECTED_SECTORS);
        if !force && needed > sectors {
            return Self::Unfit(format!("has {sectors} sectors, but its label needs {needed}"));
        }
        Self::Labelled(Box::new(label))
    }
}

/// Why a set must not be configured without force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More than two serial numbers, or two of which neither is the odd one out.
    #[error("the components have different serial numbers: {values:?}")]
    SerialNumbers {
        /// Them, with how often each occurs.
        values: Vec<(i32, usize)>,
    },
    /// More than two counters, or two of which neither is the odd one out.
    #[error("the components have different modification counters: {values:?}")]
    ModCounters {
        /// Them, with how often each occurs.
        values: Vec<(i32, usize)>,
    },
    /// A set without redundancy whose labels disagree.
    #[error("the labels of a set without redundancy disagree")]
    NoRedundancy,
    /// One column has an odd serial number, another an odd counter.
    #[error("column {serial} has another serial number and column {counter} another modification counter")]
    TwoOdd {
        /// The column with the odd serial number.
        serial: usize,
        /// The column with the odd counter.
        counter: usize,
    },
    /// A label that belongs elsewhere.
    #[error("column {column}: its label says {field} {found}, but it must be {wanted}")]
    Label {
        /// The column.
        column: usize,
        /// What is wrong.
        field: &'static str,
        /// What the label says.
        found: i64,
        /// What it should say.
        wanted: i64,
    },
    /// A label of a set of another level.
    #[error("column {column}: its label says RAID level {found}, but the configuration says {wanted}")]
    Level {
        /// The column.
        column: usize,
        /// What the label says.
        found: char,
        /// What the configuration says.
        wanted: char,
    },
    /// More columns are without a label than can be done without.
    #[error("column {column} has no label, and the set cannot do without it")]
    Missing {
        /// The column.
        column: usize,
    },
}

/// What became of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Columns that are failed from the start.
    pub failed: Vec<bool>,
    /// Whether the parity has to be rewritten.
    pub parity_dirty: bool,
    /// The counter of the set.
    pub mod_counter: i32,
    /// The serial number of the set.
    pub serial_number: i32,
    /// What stands against it. Without force nothing may be configured if there is anything here.
    pub refusals: Vec<Refusal>,
}

impl Verdict {
    /// What the set's counter goes on from: not less than that of any label which says that it is of this set. A column may be failed
    /// although its counter is the greatest, since the others agree on a lower one; as the greatest it would be taken for the
    /// newest by everything that finds the set later.
    pub fn greatest_counter(&self, columns: &[Found]) -> i32 {
        let ours = columns.iter().filter_map(|found| match found {
            Found::Labelled(label) if label.serial_number == self.serial_number => Some(label.mod_counter),
            _ => None,
        });
        ours.fold(self.mod_counter, i32::max)
    }
}

/// The distinct values in the order seen, and how often each occurs.
fn tally(values: impl Iterator<Item = i32>) -> Vec<(i32, usize)> {
    let mut counts: Vec<(i32, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(seen, _)| *seen == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    counts
}

/// The value that the set has, and the one that is odd, if there is one. `None`: it cannot be told.
fn majority(counts: &[(i32, usize)], greater_wins: bool) -> Option<(i32, Option<i32>)> {
    match *counts {
        [] => Some((0, None)),
        [(value, _)] => Some((value, None)),
        [(a, times_a), (b, times_b)] if times_a == 1 || times_b == 1 => {
            let first = times_a > times_b || times_a == times_b && (!greater_wins || a > b);
            Some(if first { (a, Some(b)) } else { (b, Some(a)) })
        }
        _ => None,
    }
}

/// Judges the components of a configuration file. With `force` (`raidctl -C`) no column is failed for its label.
pub fn check(level: &Level, columns: &[Found], force: bool) -> Verdict {
    let mut failed: Vec<bool> = columns
        .iter()
        .map(|found| match found {
            Found::Labelled(_) => false,
            Found::Unlabelled => !force,
            Found::Absent | Found::InFreeUnits | Found::Lost { .. } | Found::Unfit(_) => true,
        })
        .collect();
    let labels = || {
        columns.iter().enumerate().filter_map(|(column, found)| match found {
            Found::Labelled(label) => Some((column, label)),
            _ => None,
        })
    };
    let mut refusals = Vec::new();
    let serials = tally(labels().map(|(_, label)| label.serial_number));
    let counters = tally(labels().map(|(_, label)| label.mod_counter));
    let serial = majority(&serials, false);
    let counter = majority(&counters, true);
    if serial.is_none() {
        refusals.push(Refusal::SerialNumbers { values: serials.clone() });
    }
    if counter.is_none() {
        refusals.push(Refusal::ModCounters { values: counters.clone() });
    }
    let (serial_number, odd_serial) =
        serial.unwrap_or((serials.first().map_or(0, |&(value, _)| value), None));
    let most = counters.iter().map(|&(value, _)| value).max().unwrap_or(0);
    let (mod_counter, odd_counter) = counter.unwrap_or((most, None));
    if *level == Level::Raid0 && serials.len().max(counters.len()) > 1 {
        refusals.push(Refusal::NoRedundancy);
    }
    let with = |odd: Option<i32>, of: fn(&Label) -> i32| {
        let odd = odd?;
        labels().find(|(_, label)| of(label) == odd).map(|(column, _)| column)
    };
    let serial_column = with(odd_serial, |label| label.serial_number);
    let counter_column = with(odd_counter, |label| label.mod_counter);
    if let (Some(serial), Some(counter)) = (serial_column, counter_column)
        && serial != counter
    {
        refusals.push(Refusal::TwoOdd { serial, counter });
    }
    if let Some(odd) = serial_column.or(counter_column)
        && !force
        && *level != Level::Raid0
    {
        failed[odd] = true;
    }

    // RAIDframe excuses one column; our own levels as many as they can lose. More are excused if the others hold every stripe, and have
    // the greatest counter that is there: what they hold is the newest then.
    let width = u16::try_from(columns.len()).unwrap_or(u16::MAX);
    let mut excuses = Level::faults_of_letter(level.letter(), width);
    let newest = serial.is_some() && counter.is_some() && mod_counter == most;
    let mut gone: Vec<bool> = columns.iter().map(|found| matches!(found, Found::Lost { .. })).collect();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let mut parity_dirty = false;
    for (column, found) in columns.iter().enumerate() {
        if matches!(found, Found::InFreeUnits | Found::Lost { .. }) {
            continue;
        }
        let without = |other: usize| other == column || gone.get(other).is_some_and(|gone| *gone);
        if failed[column] && (excuses > 0 || newest && level.survives(width, without)) {
            excuses = excuses.saturating_sub(1);
            gone[column] = true;
            continue;
        }
        let Found::Labelled(label) = found else {
            refusals.push(Refusal::Missing { column });
            continue;
        };
        let checks = [
            ("serial number", label.serial_number.into(), serial_number.into()),
            ("row", label.row.into(), 0),
            ("column", label.column.into(), count(column)),
            ("number of columns", label.num_columns.into(), count(columns.len())),
        ];
        let wrong = checks.into_iter().filter(|(_, found, wanted): &(_, i64, i64)| found != wanted);
        refusals.extend(wrong.map(|(field, found, wanted)| Refusal::Label { column, field, found, wanted }));
        parity_dirty |= !label.clean;
    }
    parity_dirty |= !refusals.is_empty();
    Verdict { failed, parity_dirty, mod_counter, serial_number, refusals }
}

/// As [`check`], and the labels of columns that are not failed must be of this level and stripe unit: another would read and write
/// everything in wrong places. RAIDframe does not look at that.
pub fn judge(level: &Level, sectors_per_unit: u32, columns: &[Found], force: bool) -> Verdict {
    let mut verdict = check(level, columns, force);
    for (column, found) in columns.iter().enumerate().filter(|&(column, _)| !verdict.failed[column]) {
        let Found::Labelled(label) = found else { continue };
        if label.letter() != Some(level.letter()) {
            let found = label.letter().unwrap_or('?');
            verdict.refusals.push(Refusal::Level { column, found, wanted: level.letter() });
        }
        if label.sectors_per_unit != sectors_per_unit {
            let (found, wanted) = (label.sectors_per_unit.into(), sectors_per_unit.into());
            verdict.refusals.push(Refusal::Label { column, field: "sectPerSU", found, wanted });
        }
    }
    verdict.parity_dirty |= !verdict.refusals.is_empty();
    verdict
}

/// What stands against a set, and what stale components it has, for people: with the names of components and what to do.
pub fn tell(refusals: &[Refusal], names: &[String], columns: &[Found]) -> Vec<String> {
    let name = |column: usize| names.get(column).map_or("?", String::as_str);
    let each = |of: fn(&Label) -> i32| {
        let values = names.iter().zip(columns).filter_map(|(name, found)| match found {
            Found::Labelled(label) => Some(format!("{name} {}", of(label))),
            _ => None,
        });
        values.collect::<Vec<_>>().join(", ")
    };
    let told = |refusal: &Refusal| match refusal {
        Refusal::SerialNumbers { .. } => format!(
            "the components have different serial numbers ({}): name those of one set",
            each(|label| label.serial_number)
        ),
        Refusal::ModCounters { .. } => format!(
            "the components have different modification counters ({}): the lowest failed first, write \"absent\" for it",
            each(|label| label.mod_counter)
        ),
        Refusal::NoRedundancy => format!(
            "the labels of a set without redundancy disagree (serial numbers {}; counters {})",
            each(|label| label.serial_number),
            each(|label| label.mod_counter)
        ),
        Refusal::TwoOdd { serial, counter } => format!(
            "{} has another serial number and {} another modification counter than the others",
            name(*serial),
            name(*counter)
        ),
        Refusal::Label { column, field: "column", found, .. } => {
            format!("{} is named as column {column}, but its label says column {found}", name(*column))
        }
        Refusal::Label { column, field, found, wanted } => {
            format!("{}: its label says {field} {found}, not {wanted}", name(*column))
        }
        Refusal::Level { column, found, wanted } => {
            format!("{}: its label says RAID level {found}, not {wanted}", name(*column))
        }
        Refusal::Missing { column } => {
            let what = match columns.get(*column) {
                Some(Found::Absent) => "is not there",
                Some(Found::Unlabelled) => "has no component label",
                Some(Found::Unfit(why)) => why,
                _ => "does not belong to the others",
            };
            let name = match name(*column) {
                ABSENT => format!("column {column}"),
                name => name.to_owned(),
            };
            format!("{name} {what}, and the set cannot do without it")
        }
    };
    refusals.iter().map(told).collect()
}

/// Why columns that are there count as failed, by name.
pub fn tell_failed(verdict: &Verdict, names: &[String], columns: &[Found]) -> Vec<String> {
    let failed = verdict.failed.iter().zip(names.iter().zip(columns)).filter(|(failed, _)| **failed);
    let told = failed.filter_map(|(_, (name, found))| match found {
        Found::Absent | Found::InFreeUnits | Found::Lost { there: false, .. } => None,
        Found::Unfit(why) => Some(format!("{name} counts as failed: it {why}")),
        Found::Unlabelled | Found::Lost { label: None, .. } => {
            Some(tell_label(name, None, verdict.serial_number, verdict.mod_counter))
        }
        Found::Labelled(label) | Found::Lost { label: Some(label), .. } => {
            let label = Some((&**label, label.column as usize));
            Some(tell_label(name, label, verdict.serial_number, verdict.mod_counter))
        }
    });
    told.collect()
}

/// If there are columns that the set cannot do without: why the others that are there count as failed. Each of those alone would not have
/// been in the way.
pub fn tell_excused(verdict: &Verdict, names: &[String], columns: &[Found]) -> Vec<String> {
    let missing = |column: usize| verdict.refusals.contains(&Refusal::Missing { column });
    let failed: Vec<bool> =
        verdict.failed.iter().enumerate().map(|(column, failed)| *failed && !missing(column)).collect();
    if (0..failed.len()).any(missing) {
        tell_failed(&Verdict { failed, ..verdict.clone() }, names, columns)
    } else {
        Vec::new()
    }
}

/// Why a device with this label, which is to be that column, counts as failed in a set of this serial number and counter.
pub fn tell_label(
    name: &str,
    label: Option<(&Label, usize)>,
    serial_number: i32,
    mod_counter: i32,
) -> String {
    match label {
        None => format!("{name} counts as failed: it has no component label"),
        Some((label, column)) if label.serial_number == serial_number && label.column as usize != column => {
            format!("{name} counts as failed: its label says column {}, not {column}", label.column)
        }
        Some((label, _)) => format!(
            "{name} counts as failed: its label has serial number {} and modification counter {}, those of the set are {serial_number} and {mod_counter}",
            label.serial_number, label.mod_counter
        ),
    }
}

/// Whether labels of columns differ in serial number or counter: then some of them missed something.
pub fn disagree(columns: &[Found]) -> bool {
    let mut keys = columns.iter().filter_map(|found| match found {
        Found::Labelled(label) => Some((label.serial_number, label.mod_counter)),
        _ => None,
    });
    let first = keys.next();
    keys.any(|key| Some(key) != first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::tests::sample;
    use proptest::prelude::*;

    fn labels(count: u32, level: &Level, change: impl Fn(u32, &mut Label)) -> Vec<Label> {
        let label = |column| {
            let parity_config = level.letter().into();
            let mut label = Label { column, num_columns: count, clean: true, parity_config, ..sample() };
            change(column, &mut label);
            label
        };
        (0..count).map(label).collect()
    }

    fn found(labels: Vec<Label>) -> Vec<Found> {
        labels.into_iter().map(|label| Found::Labelled(Box::new(label))).collect()
    }

    fn candidates(labels: Vec<Label>) -> Vec<Candidate> {
        let candidate = |label: Label| Candidate {
            name: format!("sd{}", label.column),
            sectors: label.partition_size,
            label,
            in_free_units: (0, None),
        };
        labels.into_iter().map(candidate).collect()
    }

    #[test]
    fn a_good_set_is_configured_whole() {
        let verdict = check(&Level::Raid5, &found(labels(3, &Level::Raid5, |_, _| ())), false);
        assert_eq!(verdict.failed, [false; 3]);
        assert!(verdict.refusals.is_empty() && !verdict.parity_dirty);
        assert_eq!((verdict.mod_counter, verdict.serial_number), (65, 13432));
        let dirty = labels(3, &Level::Raid5, |column, label| label.clean = column != 2);
        assert!(check(&Level::Raid5, &found(dirty), false).parity_dirty);
    }

    #[test]
    fn the_odd_one_out_is_failed() {
        let stale = labels(3, &Level::Raid5, |column, label| label.mod_counter -= i32::from(column == 1));
        let verdict = check(&Level::Raid5, &found(stale.clone()), false);
        assert_eq!(verdict.failed, [false, true, false]);
        assert!(verdict.refusals.is_empty());
        assert_eq!(check(&Level::Raid5, &found(stale.clone()), true).failed, [false; 3]);
        assert_eq!(check(&Level::Raid0, &found(stale), false).refusals, [Refusal::NoRedundancy]);
        // A newer counter wins a tie, the first serial number does.
        let newer = labels(2, &Level::Raid1, |column, label| label.mod_counter += column.cast_signed());
        assert_eq!(check(&Level::Raid1, &found(newer), false).failed, [true, false]);
        let serial = labels(2, &Level::Raid1, |column, label| label.serial_number += column.cast_signed());
        assert_eq!(check(&Level::Raid1, &found(serial), false).failed, [false, true]);
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let three = labels(3, &Level::Raid5, |column, label| label.mod_counter += column.cast_signed());
        let verdict = check(&Level::Raid5, &found(three.clone()), false);
        assert!(matches!(verdict.refusals[..], [Refusal::ModCounters { .. }]) && verdict.parity_dirty);
        let forced = check(&Level::Raid5, &found(three), true);
        assert_eq!((forced.failed, forced.mod_counter, forced.parity_dirty), (vec![false; 3], 67, true));
        let even = labels(4, &Level::Raid5, |column, label| label.serial_number += i32::from(column > 1));
        assert!(matches!(
            check(&Level::Raid5, &found(even), false).refusals[0],
            Refusal::SerialNumbers { .. }
        ));
        let two = labels(4, &Level::Raid5, |column, label| match column {
            1 => label.serial_number += 1,
            2 => label.mod_counter -= 1,
            _ => {}
        });
        let odd = Refusal::TwoOdd { serial: 1, counter: 2 };
        assert_eq!(check(&Level::Raid5, &found(two), false).refusals[0], odd);
        let mut swapped = labels(3, &Level::Raid5, |_, _| ());
        swapped.swap(0, 1);
        let verdict = check(&Level::Raid5, &found(swapped), false);
        assert_eq!(verdict.refusals.len(), 2);
        assert_eq!(verdict.refusals[0].to_string(), "column 0: its label says column 1, but it must be 0");
    }

    #[test]
    fn one_column_may_be_missing() {
        let mut columns = found(labels(4, &Level::Raid1, |_, _| ()));
        columns[1] = Found::Absent;
        let verdict = check(&Level::Raid1, &columns, false);
        assert!(verdict.refusals.is_empty() && verdict.failed[1]);
        columns[2] = Found::Unlabelled;
        // The other halves of two pairs hold everything, unless one of them is older than what is there.
        assert!(check(&Level::Raid1, &columns, false).refusals.is_empty());
        let mut pair = columns.clone();
        pair[0] = Found::Absent;
        let missing = |column| Refusal::Missing { column };
        assert_eq!(check(&Level::Raid1, &pair, false).refusals, [missing(1)]);
        for (by, refused) in [(-1, vec![]), (0, vec![]), (1, vec![missing(3)])] {
            let change = |column, label: &mut Label| label.mod_counter += by * i32::from(column == 5);
            let mut six = found(labels(6, &Level::Raid1, change));
            (six[1], six[3]) = (Found::Absent, Found::Unlabelled);
            assert_eq!(check(&Level::Raid1, &six, false).refusals, refused, "{by}");
        }
        let mut columns = found(labels(5, &Level::Raid6, |_, _| ()));
        columns[0] = Found::Absent;
        columns[3] = Found::Unlabelled;
        assert!(check(&Level::Raid6, &columns, false).refusals.is_empty());
        let new = vec![Found::Unlabelled; 3];
        let forced = check(&Level::Raid5, &new, true);
        assert_eq!(forced.failed, [false; 3]);
        assert!(forced.parity_dirty && !check(&Level::Raid5, &new, false).refusals.is_empty());
    }

    #[test]
    fn sets_are_found_whatever_their_order() {
        let five = labels(3, &Level::Raid5, |_, _| ());
        let one = labels(2, &Level::Raid1, |_, label| label.serial_number = 7);
        let mut all = candidates([five, one].concat());
        all.reverse();
        all[0].label.partition_size += 1; // Claims more than is there: column 1 of the mirror.
        all[3].label.mod_counter -= 3; // Column 1 of the other.
        let sets = group(&all);
        assert_eq!(sets.len(), 2);
        assert_eq!(sets[0].columns, [Member::Current(1), Member::Missing]);
        assert_eq!(sets[1].columns, [Member::Current(4), Member::Stale(3), Member::Current(2)]);
        assert!(sets.iter().all(|set| set.enough && set.autoconfigure && !set.parity_dirty));
        all[2].label.mod_counter += 1;
        let sets = group(&all);
        assert!(!sets[1].enough && sets[1].mod_counter == 66);
        // The other byte order is another set.
        all[2].label.byte_order = crate::label::ByteOrder::Big;
        assert_eq!(group(&all).len(), 3);
    }

    proptest! {
        #[test]
        fn any_labels_are_harmless(words in prop::collection::vec((0..4_u8, any::<u32>(), any::<i32>()), 0..6), force: bool) {
            let labels: Vec<Label> = words.iter().map(|&(kind, number, counter)| {
                let mut label = Label { mod_counter: counter, ..sample() };
                match kind {
                    0 => (label.column, label.num_columns) = (number, number),
                    1 => label.parity_config = number,
                    2 => label.sectors_per_unit = number,
                    _ => label.num_blocks = u64::from(number) << 32,
                }
                label
            }).collect();
            group(&candidates(labels.clone()));
            for level in Level::ALL {
                let verdict = check(&level, &found(labels.clone()), force);
                prop_assert_eq!(verdict.failed.len(), labels.len());
            }
        }
    }
}
