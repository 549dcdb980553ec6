//! Sets of RAIDframe, which NetBSD's raidctl and `coffer raid` run: what their component labels say, and ways to put them
//! together.
//!
//! ```text
//! units --read--> Component, ... --gather--> ComponentSet, ... --candidates--> Candidate, ...
//! ```
//!
//! A component that fails is not written any more, so its mod counter stays behind; its status says nothing. The set's counter is the
//! greatest at which the columns hold everything: one component alone that is ahead of all others was used elsewhere, or
//! power went while labels were written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use device::BlockDevice;
use formats::raidframe::{ByteOrder, LABEL_LENGTH, LABEL_OFFSET, Label, Root, data_offset};
use geometry::md::{Copies, FarSets, Rotation5, Rotation6, Shape, ZoneOrder};
use serde::Serialize;

use crate::infer::{TIED, same_map};
use crate::scan::Unit;
use crate::{Candidate, Image, LeftOut, created_over, parity_map, score};

/// Most ways to choose among components that claim the same columns.
const CHOICES_MAX: usize = 24;
/// Places at which two components are compared.
const PLACES: u64 = 256;
/// What each component costs that has to be used although it is stale.
const STALE: u8 = 5;

/// A set of components.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentSet {
    /// What it was last: N of raidN.
    pub unit: u32,
    /// Its serial number.
    pub serial_number: u32,
    /// The letter of its level.
    pub level: char,
    /// The level in words.
    pub shape: String,
    /// Columns.
    pub num_columns: u32,
    /// Sectors of a stripe unit.
    pub sectors_per_unit: u32,
    /// Size of a sector, bytes.
    pub block_size: u32,
    /// The mod counter at which the components hold everything, else the greatest.
    pub mod_counter: i32,
    /// Whether it was unconfigured with its parity right.
    pub clean: bool,
    /// Its components, by column.
    pub components: Vec<ComponentSummary>,
    /// Columns that nobody claims.
    pub missing: Vec<u32>,
    /// What is wrong with it.
    pub problems: Vec<String>,
    #[serde(skip)]
    members: Vec<Component>,
}

/// One component.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentSummary {
    /// Its path.
    pub path: String,
    /// Which partition of it is the component, if not all of it is.
    pub partition: Option<u32>,
    /// Its column.
    pub column: u32,
    /// Its mod counter.
    pub mod_counter: i32,
    /// Whether it says that the set was unconfigured with its parity right.
    pub clean: bool,
    /// How up to date it is.
    pub state: ComponentState,
}

/// How up to date a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// It has the set's mod counter.
    Current,
    /// It failed or was taken away before.
    Stale,
    /// Its mod counter is greater than that of the others, which do without it.
    Ahead,
    /// Another one has the same column and is at least as new.
    Duplicate,
}

#[derive(Clone, Debug)]
struct Component {
    /// Number of the unit.
    number: usize,
    image: Image,
    label: Label,
}

impl Component {
    fn first_byte(&self) -> u64 {
        data_offset(self.label.block_size)
    }

    /// How many bytes of it the set uses.
    fn used(&self) -> u64 {
        self.label.num_blocks.saturating_mul(self.label.block_size.into())
    }

    fn bad_bytes(&self) -> u64 {
        let Image { start, device, .. } = &self.image;
        let all = *start..start.saturating_add(device.size().unwrap_or(0));
        let bad = |map: &device::BadMap| map.bad(all).map(|(range, _)| range.end - range.start).sum();
        self.image.bad_map().map_or(0, bad)
    }
}

/// The component label of a device; `None` if there is none, or what is wrong with it.
fn label_of(device: &dyn BlockDevice) -> Option<Result<Label, String>> {
    let size = device.size().ok()?;
    let mut bytes = [0; LABEL_LENGTH];
    if size < LABEL_OFFSET + LABEL_LENGTH as u64 || device.read(LABEL_OFFSET, &mut bytes).is_err() {
        return None;
    }
    let label = Label::recognise(&bytes)?.and_then(|mut label| {
        label.fix_sizes(size / u64::from(label.block_size))?;
        Ok(label)
    });
    Some(label.map_err(|error| format!("{}: {error}", device.info().name)))
}

/// What is wrong with the component label of a device of `size` bytes, if it has one.
pub(crate) fn problem_of(device: &dyn BlockDevice, size: u64) -> Option<String> {
    let label = match label_of(device)? {
        Ok(label) => label,
        Err(problem) => return Some(problem),
    };
    let end = label
        .num_blocks
        .saturating_mul(label.block_size.into())
        .saturating_add(data_offset(label.block_size));
    (end > size).then(|| {
        format!(
            "it ends {} bytes before what its component label says is the set's: it is cut short",
            end - size
        )
    })
}

/// The sets whose components are among the units.
pub(crate) fn sets(units: &[Unit]) -> Vec<ComponentSet> {
    let images: Vec<(usize, &Image)> = units
        .iter()
        .enumerate()
        .filter(|(_, unit)| unit.first)
        .map(|(number, unit)| (number, &unit.image))
        .collect();
    sets_among(&images)
}

/// As [`sets`], of images with their numbers.
pub(crate) fn sets_among(images: &[(usize, &Image)]) -> Vec<ComponentSet> {
    let read = |(number, image): &(usize, &Image)| {
        let label = label_of(&*image.device)?.ok()?;
        Some(Component { number: *number, image: (*image).clone(), label })
    };
    let all: Vec<Component> = images.iter().filter_map(read).collect();
    let mut groups: BTreeMap<_, Vec<Component>> = BTreeMap::new();
    for component in all.iter().filter(|component| !is_below(component, &all)) {
        let label = &component.label;
        // Whatever lies where it does by these belongs together; the rest may change while a component is away.
        let key = (
            (label.serial_number, label.num_columns, label.parity_config),
            (label.sectors_per_unit, label.block_size, label.num_blocks),
        );
        groups.entry(key).or_default().push(component.clone());
    }
    let serials: Vec<i32> = groups.keys().map(|(key, _)| key.0).collect();
    let sets = groups.into_values().flat_map(by_unit);
    let told = |members: Vec<Component>| {
        let serial = members.first()?.label.serial_number;
        let alone = serials.iter().filter(|other| **other == serial).count() == 1;
        ComponentSet::of(members, alone)
    };
    sets.filter_map(told).collect()
}

/// Whether the label lies within the component that another partition of the same disk is: it is left of something older.
fn is_below(component: &Component, all: &[Component]) -> bool {
    let Image { start, path, device, .. } = &component.image;
    let size = device.size().unwrap_or(0).min(component.first_byte().saturating_add(component.used()));
    let inside = start + 1..start.saturating_add(size);
    all.iter().any(|other| other.image.path == *path && inside.contains(&other.image.start))
}

/// Components of one serial number, apart if they are of several sets that were given the same one: then they were units of other numbers, and
/// claim the same columns.
fn by_unit(members: Vec<Component>) -> Vec<Vec<Component>> {
    let mut units: BTreeMap<u32, Vec<Component>> = BTreeMap::new();
    for component in &members {
        units.entry(component.label.last_unit).or_default().push(component.clone());
    }
    let counters = |set: &[Component]| -> BTreeSet<(u32, i32)> {
        set.iter().map(|component| (component.label.column, component.label.mod_counter)).collect()
    };
    let twice = units.values().map(|set| counters(set).len()).sum::<usize>() > counters(&members).len();
    if twice { units.into_values().collect() } else { vec![members] }
}

/// The layout of md that a level's letter stands for.
fn shape(letter: char, columns: u32) -> Option<Shape> {
    Some(match letter {
        '0' => Shape::Raid0(ZoneOrder::Alternate),
        '1' if !columns.is_multiple_of(2) => return None,
        '1' if columns > 2 => Shape::Raid10(Copies { near: 2, far: 1, offset: false, sets: FarSets::All }),
        '1' | 'N' => Shape::Raid1,
        '4' => Shape::Raid4,
        '5' => Shape::Raid5(Rotation5::LeftSymmetric),
        '6' => Shape::Raid6(Rotation6::Md(Rotation5::LeftSymmetric)),
        _ => return None,
    })
}

/// Whether these columns hold everything.
fn hold_all(letter: char, columns: u32, there: &BTreeSet<u32>) -> bool {
    let missing = columns as usize - there.len();
    match letter {
        '1' => (0..columns).step_by(2).all(|first| there.contains(&first) || there.contains(&(first + 1))),
        'N' => !there.is_empty(),
        '6' => missing <= 2,
        '4' | '5' => missing <= 1,
        _ => missing == 0,
    }
}

impl ComponentSet {
    /// The set of these components, the only one with its serial number if it is `alone`.
    fn of(mut members: Vec<Component>, alone: bool) -> Option<Self> {
        members.sort_by_key(|component| {
            (
                component.label.column,
                Reverse(component.label.mod_counter),
                component.bad_bytes(),
                component.number,
            )
        });
        let newest = members.iter().max_by_key(|component| component.label.mod_counter)?.label.clone();
        let letter = newest.letter()?;
        let mut set = Self {
            unit: newest.last_unit,
            serial_number: newest.serial_number.cast_unsigned(),
            level: letter,
            shape: format!("RAID Level {letter}"),
            num_columns: newest.num_columns,
            sectors_per_unit: newest.sectors_per_unit,
            block_size: newest.block_size,
            mod_counter: newest.mod_counter,
            clean: true,
            components: Vec::new(),
            missing: Vec::new(),
            problems: Vec::new(),
            members,
        };
        let counters: BTreeSet<i32> =
            set.members.iter().map(|component| component.label.mod_counter).collect();
        let holds = |counter: &&i32| hold_all(letter, set.num_columns, &set.columns_at(**counter));
        if let Some(counter) = counters.iter().rev().find(holds) {
            set.mod_counter = *counter;
        }
        let clean = set.at(set.mod_counter).all(|component| component.label.clean);
        set.clean = clean;
        set.missing = (0..set.num_columns)
            .filter(|column| !set.members.iter().any(|component| component.label.column == *column))
            .collect();
        set.problems = set.contradictions(&newest, alone);
        let mut seen = BTreeSet::new();
        let summary = |component: &Component| {
            let label = &component.label;
            let state = match label.mod_counter.cmp(&set.mod_counter) {
                std::cmp::Ordering::Greater => ComponentState::Ahead,
                std::cmp::Ordering::Less => ComponentState::Stale,
                std::cmp::Ordering::Equal if seen.insert(label.column) => ComponentState::Current,
                std::cmp::Ordering::Equal => ComponentState::Duplicate,
            };
            ComponentSummary {
                path: component.image.path.to_string_lossy().into_owned(),
                partition: component.image.partition,
                column: label.column,
                mod_counter: label.mod_counter,
                clean: label.clean,
                state,
            }
        };
        set.components = set.members.iter().map(summary).collect();
        Some(set)
    }

    fn at(&self, counter: i32) -> impl Iterator<Item = &Component> {
        self.members.iter().filter(move |component| component.label.mod_counter == counter)
    }

    fn columns_at(&self, counter: i32) -> BTreeSet<u32> {
        self.at(counter).map(|component| component.label.column).collect()
    }

    fn name(&self) -> String {
        format!("raid{}", self.unit)
    }

    /// Where components do not agree on what all of them ought to say alike, and what stands against reading the set.
    fn contradictions(&self, newest: &Label, alone: bool) -> Vec<String> {
        let mut said = Vec::new();
        if !alone {
            said.push(format!(
                "other components have serial number {}, too, but another level, size or number of columns: they are of another set, or \
                 one of the labels is damaged",
                self.serial_number
            ));
        }
        for component in &self.members {
            let (label, name) = (&component.label, component.image.name());
            let mut compare = |what: &str, own: &dyn std::fmt::Debug, newest: &dyn std::fmt::Debug| {
                let (own, newest) = (format!("{own:?}"), format!("{newest:?}"));
                if own != newest {
                    said.push(format!("{name} says {what} {own}, the newest component says {newest}"));
                }
            };
            let order = |label: &Label| match label.byte_order {
                ByteOrder::Little => "little-endian",
                ByteOrder::Big => "big-endian",
            };
            compare("byte order", &order(label), &order(newest));
            if label.mod_counter == newest.mod_counter {
                let root = |label: &Label| -> Root { label.root() };
                compare("last unit", &label.last_unit, &newest.last_unit);
                compare("autoconfigure", &label.autoconfigure, &newest.autoconfigure);
                compare("root partition", &root(label), &root(newest));
            }
        }
        if self.level == '1' && !self.num_columns.is_multiple_of(2) {
            said.push(format!(
                "level 1 has an even number of columns, not {}: a label is damaged",
                self.num_columns
            ));
        } else if shape(self.level, self.num_columns).is_none() {
            said.push(format!(
                "level {} is not read here: make copies of the components (or serve them with overlays), and run the set on these \
                 with 'coffer raid' (raidctl -c and a configuration file)",
                self.level
            ));
        }
        said
    }

    /// The numbers of its units.
    pub(crate) fn units(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|component| component.number)
    }

    /// Whether what is there holds everything, stale or not.
    pub(crate) fn is_enough(&self) -> bool {
        let there = self.members.iter().map(|component| component.label.column).collect();
        shape(self.level, self.num_columns).is_none() || hold_all(self.level, self.num_columns, &there)
    }

    /// What identifies it.
    pub(crate) fn id(&self) -> Vec<u8> {
        format!("raidframe {} {} {} {}", self.serial_number, self.level, self.num_columns, self.unit)
            .into_bytes()
    }

    /// How many components were found.
    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Ways to put it together, best first, among `images`.
    pub(crate) fn candidates(&self, images: &[&Image]) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = Vec::new();
        for (candidate, stale) in self.assemblies() {
            if found.iter().any(|known| same_map(known, &candidate)) {
                continue;
            }
            let mut candidate = score::scored(candidate, false, images);
            candidate.score = candidate.score.saturating_sub(STALE.saturating_mul(stale as u8));
            found.push(candidate);
        }
        found.sort_by_key(|candidate| Reverse(candidate.score));
        let (_, ties) = score::keep_best(&mut found);
        for candidate in found.iter_mut().filter(|_| ties > 1) {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push(format!(
                "{ties} choices among the components that claim the same columns fit equally well and can't be told apart"
            ));
        }
        found
    }

    /// As [`ComponentSet::candidates`], and if nothing known is on it, what may have been there before.
    pub(crate) fn candidates_and_older(&self, images: &[&Image]) -> Vec<Candidate> {
        let mut found = self.candidates(images);
        // Of stale components much is in the wrong place anyway.
        let current = hold_all(self.level, self.num_columns, &self.columns_at(self.mod_counter));
        if found.first().is_some_and(|best| current && created_over::holds_nothing(best, images)) {
            let members: Vec<&Image> = self.members.iter().map(|component| &component.image).collect();
            let older = created_over::older(&mut found, 0, &members, images);
            found.extend(older);
        }
        found
    }

    /// What its labels say, not scored, with the number of stale components that are used; several where different components claim
    /// the same column with the same counter.
    pub(crate) fn assemblies(&self) -> Vec<(Candidate, usize)> {
        let Some(shape) = shape(self.level, self.num_columns) else { return Vec::new() };
        let mut columns: Vec<Vec<&Component>> = vec![Vec::new(); self.num_columns as usize];
        let mut copies: Vec<(&Component, &Component)> = Vec::new();
        for component in self.at(self.mod_counter) {
            // The label was refused if its column is none of these.
            let Some(column) = columns.get_mut(component.label.column as usize) else { continue };
            match column.iter().find(|other| are_alike(other, component)) {
                Some(other) => copies.push((component, *other)),
                None => column.push(component),
            }
        }
        let mut choices: Vec<Vec<Option<&Component>>> = vec![Vec::new()];
        for column in columns {
            let own: Vec<Option<&Component>> =
                if column.is_empty() { vec![None] } else { column.into_iter().map(Some).collect() };
            let mut longer = Vec::new();
            for choice in &choices {
                longer.extend(own.iter().map(|one| [&choice[..], &[*one]].concat()));
            }
            longer.truncate(CHOICES_MAX);
            choices = longer;
        }
        choices.into_iter().map(|choice| self.assembly(shape, choice, &copies)).collect()
    }

    /// What its labels say, not scored, if that is only one way.
    pub(crate) fn only_assembly(&self) -> Option<Candidate> {
        let mut ways = self.assemblies();
        ways.pop().filter(|_| ways.is_empty()).map(|(candidate, _)| candidate)
    }

    fn assembly<'a>(
        &'a self,
        shape: Shape,
        mut slots: Vec<Option<&'a Component>>,
        copies: &[(&Component, &Component)],
    ) -> (Candidate, usize) {
        let mut reasons = vec![format!(
            "the component labels of serial number {} say so; mod counter {}",
            self.serial_number, self.mod_counter
        )];
        let there = |slots: &[Option<&Component>]| -> BTreeSet<u32> {
            slots.iter().flatten().map(|component| component.label.column).collect()
        };
        // The newest first: whoever failed last has lost least.
        let mut others: Vec<&Component> =
            self.members.iter().filter(|component| component.label.mod_counter != self.mod_counter).collect();
        others.sort_by_key(|component| Reverse(component.label.mod_counter));
        let mut stale = 0;
        for component in others {
            let column = component.label.column;
            let now = there(&slots);
            // Of a pair either will do.
            let helps = !now.contains(&column) && (self.level != '1' || !now.contains(&(column ^ 1)));
            if hold_all(self.level, self.num_columns, &now) || !helps {
                continue;
            }
            let behind = self.mod_counter.abs_diff(component.label.mod_counter);
            reasons.push(format!(
                "{} is used although its mod counter is {behind} behind: without it too few components are left",
                component.image.name()
            ));
            stale += 1;
            slots[column as usize] = Some(component);
        }
        let used: BTreeSet<usize> = slots.iter().flatten().map(|component| component.number).collect();
        let why = |component: &&Component| {
            let (label, counter) = (&component.label, self.mod_counter);
            let copy = copies.iter().find(|(own, _)| own.number == component.number);
            match label.mod_counter.cmp(&counter) {
                std::cmp::Ordering::Less => {
                    format!("it is stale: its mod counter is {} behind", counter.abs_diff(label.mod_counter))
                }
                std::cmp::Ordering::Greater => format!(
                    "its mod counter is {} ahead of that of the others, which do without it: it was used elsewhere, or power went while \
                     labels were written",
                    counter.abs_diff(label.mod_counter)
                ),
                std::cmp::Ordering::Equal => match copy {
                    Some((_, other)) => format!("it is a copy of {}", other.image.name()),
                    None => {
                        format!("another component claims column {} with the same mod counter", label.column)
                    }
                },
            }
        };
        let left_out = self.members.iter().filter(|component| !used.contains(&component.number));
        let left_out: Vec<LeftOut> = left_out
            .map(|component| LeftOut { path: component.image.path.clone(), reason: why(&component) })
            .collect();
        if left_out.iter().any(|left| left.reason.starts_with("another component")) {
            reasons.push("components with different contents claim the same column".to_owned());
        }
        if !self.clean {
            let live: Vec<(&dyn BlockDevice, &Label)> = self
                .at(self.mod_counter)
                .map(|component| (&*component.image.device, &component.label))
                .collect();
            let faults = u64::from(shape.tolerates(slots.len() as u16));
            let data = match shape {
                Shape::Raid1 => 1,
                Shape::Raid10(_) => slots.len() as u64 / 2,
                _ => (slots.len() as u64).saturating_sub(faults),
            };
            let unit = u64::from(self.sectors_per_unit) * u64::from(self.block_size);
            if faults > 0 {
                reasons.extend(parity_map::told(&live, data.saturating_mul(unit)));
            }
        }
        let slot = |component: &&Component| component.image.slot(component.first_byte(), component.used());
        let (level, layout) = shape.codes();
        let chunk = u64::from(self.sectors_per_unit) * u64::from(self.block_size);
        let candidate = Candidate {
            array: self.name(),
            score: 0,
            reasons,
            level,
            layout,
            shape: String::new(),
            chunk: if shape == Shape::Raid1 { 0 } else { chunk },
            slots: slots.iter().map(|component| component.as_ref().map(slot)).collect(),
            left_out,
            reshape: None,
            logs: None,
            check_parity: false,
            overwritten_by: None,
        };
        (candidate, stale)
    }
}

/// Whether two components have the same bytes wherever both can be read, as far as they are looked at.
fn are_alike(one: &Component, other: &Component) -> bool {
    const BLOCK: usize = 4096;
    let blocks = one.used() / BLOCK as u64;
    let step = (blocks / PLACES).max(1);
    let read = |component: &Component, at: u64| {
        let mut bytes = vec![0; BLOCK];
        component.image.device.read(component.first_byte() + at, &mut bytes).ok().map(|()| bytes)
    };
    (0..blocks).step_by(step as usize).all(|block| {
        let at = block * BLOCK as u64;
        match (read(one, at), read(other, at)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        }
    })
}
