//! Making a set: from a configuration file, from what scanning found, or from what is remembered of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use device::{BlockDevice, DeviceError, DeviceInfo, Runner};

use super::RaidSet;
use super::header::Header;
use super::journal::{Journal, journalled};
use super::known::{Known, KnownRebuild, Missed};
use super::locks::{StripeLocks, lock};
use super::members::{Component, Members, Rebuild, RebuildKind, Status};
use super::refusal::ConfigureError;
use super::resume::{Resumed, in_free_units, in_spares, lost_before};
use crate::config::Config;
use crate::design::Design;
use crate::extension::Extension;
use crate::judge::{
    Candidate, Found, FoundSet, Member, complete, disagree, judge, tell, tell_excused, tell_failed,
    tell_label,
};
use crate::label::{ByteOrder, Label, PROTECTED_SECTORS, SECTOR_SIZES, Version, map_flags, map_offset};
use crate::layout::{Layout, Level};
use crate::paritymap::{Bits, MAP_LENGTH, MAX_REGIONS, Parameters as MapParameters, ParityMap};

/// A device under the name that it is known by. Without one it is absent.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The name.
    pub name: String,
    /// The device.
    pub device: Option<Arc<dyn BlockDevice>>,
}

/// What a set is, apart from its components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The level.
    pub level: Level,
    /// Sectors of a stripe unit.
    pub sectors_per_unit: u32,
    /// Kept in labels, and treated as 1.
    pub units_per_parity_unit: u32,
    /// Kept in labels, and treated as 1.
    pub units_per_recon_unit: u32,
    /// Kept in labels.
    pub queue_length: u32,
}

impl Parameters {
    /// What a configuration file says.
    ///
    /// # Errors
    /// Its level cannot be run.
    pub fn of_config(config: &Config) -> Result<Self, ConfigureError> {
        Self::with_design(config, None)
    }

    /// As [`Parameters::of_config`], with the block design of the file that a configuration names.
    ///
    /// # Errors
    /// Its level cannot be run, or not without a design.
    pub fn with_design(config: &Config, design: Option<Arc<Design>>) -> Result<Self, ConfigureError> {
        let level = Level::with_design(config.letter, design);
        Ok(Self {
            level: level.ok_or(ConfigureError::Level { letter: config.letter })?,
            sectors_per_unit: config.sectors_per_unit,
            units_per_parity_unit: config.units_per_parity_unit,
            units_per_recon_unit: config.units_per_recon_unit,
            queue_length: config.queue_length,
        })
    }
}

/// The sector size that all devices have.
fn common_sector_size<'a>(
    slots: impl Iterator<Item = (&'a str, &'a Arc<dyn BlockDevice>)>,
) -> Result<u32, ConfigureError> {
    let mut common = None;
    for (name, device) in slots {
        let found = device.info().logical_sector;
        let wanted = common.map(|size: u32| format!("{size}, as the other components have"));
        let usable = found.is_power_of_two() && SECTOR_SIZES.contains(&found);
        if !usable || common.is_some_and(|size| size != found) {
            let wanted = wanted.unwrap_or_else(|| "a power of two from 512 to 65536".to_owned());
            return Err(ConfigureError::SectorSize { name: name.to_owned(), found, wanted });
        }
        common = Some(found);
    }
    common.ok_or(ConfigureError::Nothing)
}

/// The map that the components of a configured set have, if their labels agree that it can be trusted.
fn stored_map(
    columns: &[Component],
    regions: u32,
    sector_size: u32,
    trusted: bool,
) -> Result<Option<Bits>, DeviceError> {
    let live: Vec<&Component> = columns.iter().filter(|column| column.status == Status::Optimal).collect();
    let agrees = live.iter().all(|component| {
        component.label.as_ref().is_some_and(|label| {
            let flags = map_flags::VALID | map_flags::WAS_USED;
            label.map_flags & flags == flags
                && label.map_mod_counter == label.mod_counter.cast_unsigned()
                && label.map_regions == regions
        })
    });
    if !trusted || !agrees {
        return Ok(None);
    }
    let mut bits = Bits::clean();
    for device in live.iter().filter_map(|component| component.device.as_ref()) {
        let mut bytes = [0; MAP_LENGTH];
        device.read(map_offset(sector_size), &mut bytes)?;
        bits.merge(&Bits::decode(&bytes));
    }
    Ok(Some(bits))
}

/// Whether a declustered set can be what its components say it is.
fn check_design(
    parameters: &Parameters,
    best: Option<&Extension>,
    force: bool,
) -> Result<(), ConfigureError> {
    let level = parameters.level.clone();
    let Some(design) = level.design() else { return Ok(()) };
    if parameters.units_per_parity_unit != 1 {
        return Err(ConfigureError::ParityUnit { level, found: parameters.units_per_parity_unit });
    }
    match best.and_then(|best| best.known.design.as_ref()) {
        _ if force => Ok(()),
        Some(other) if other != design => Err(ConfigureError::Design),
        None if matches!(level, Level::DeclusteredPq(_)) => Err(ConfigureError::Foreign { level }),
        _ => Ok(()),
    }
}

/// What a device says of itself.
type Look = (Option<Label>, Option<Extension>);

/// The label of a device, with sizes that can be, and its extension area. A device that cannot be read has neither.
fn look(device: &dyn BlockDevice) -> Result<Look, DeviceError> {
    let sector = u64::from(device.info().logical_sector.max(1));
    let sectors = device.size()? / sector;
    let label =
        Label::read(device)?.ok().and_then(|mut label| label.fix_sizes(sectors).is_ok().then_some(label));
    Ok((label, Extension::read(device).unwrap_or(None)))
}

/// What [`RaidSet::build`] makes a set of.
struct Plan {
    unit: u32,
    /// Sectors to leave free behind the data for a journal that is to come.
    room: u64,
    parameters: Parameters,
    columns: Vec<Component>,
    resumed: Resumed,
    serial_number: i32,
    mod_counter: i32,
    parity_good: bool,
    /// Whether labels, and with them the parity map, can be relied upon.
    trusted: bool,
    /// Whether labels say how large the set is.
    sized: bool,
    /// The parity was good, and whatever was written since went through the journal.
    sealed: bool,
    /// N of raidN for the labels, if not `unit`.
    last_unit: Option<u32>,
    /// What is believed of the extension areas or of what is remembered.
    known: Known,
    /// Greatest sequence number of any extension area.
    sequence: u64,
    runner: Arc<dyn Runner>,
}

impl RaidSet {
    /// Configures unit `unit` from components in the order of their columns (`raidctl -c`, with `force` `-C`).
    ///
    /// Labels are counted up and marked dirty, on those components that have one. With `force` labels stand against nothing,
    /// and the parity counts as dirty if they would have. Spares that are missing or unfit are failed ones.
    ///
    /// # Errors
    /// The components cannot make this set, or their labels say that they are not this set. Nothing is written then.
    pub fn configure(
        unit: u32,
        parameters: Parameters,
        columns: Vec<Slot>,
        spares: Vec<Slot>,
        force: bool,
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        Self::configure_as(unit, parameters, columns, spares, force.then_some(0), runner)
    }

    /// As [`RaidSet::configure`] with `force`, for a new set with a journal (`raidctl -C -o journal`): it takes an eighth of the
    /// smallest component, at most [`DEFAULT_JOURNAL`](super::DEFAULT_JOURNAL) bytes.
    ///
    /// # Errors
    /// As [`RaidSet::configure`]; or the level needs no journal.
    pub fn configure_with_journal(
        unit: u32,
        parameters: Parameters,
        columns: Vec<Slot>,
        spares: Vec<Slot>,
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        if !journalled(&parameters.level) {
            return Err(ConfigureError::NoJournal { level: parameters.level });
        }
        let present = columns.iter().filter_map(|slot| Some((slot.name.as_str(), slot.device.as_ref()?)));
        let sector_size = common_sector_size(present)?;
        let mut sectors = super::DEFAULT_JOURNAL / u64::from(sector_size);
        for device in columns.iter().filter_map(|slot| slot.device.as_ref()) {
            sectors = sectors.min(device.size()? / u64::from(sector_size) / 8);
        }
        let set = Self::configure_as(unit, parameters, columns, spares, Some(sectors), runner)?;
        set.set_journal(true).map_err(|error| ConfigureError::Journal { why: error.to_string() })?;
        Ok(set)
    }

    /// `force`: the sectors of the journal that the set is to have room for.
    pub(super) fn configure_as(
        unit: u32,
        parameters: Parameters,
        columns: Vec<Slot>,
        spares: Vec<Slot>,
        force: Option<u64>,
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        let (force, room) = (force.is_some(), force.unwrap_or(0));
        let present = columns.iter().filter_map(|slot| Some((slot.name.as_str(), slot.device.as_ref()?)));
        common_sector_size(present)?;
        let looks = |slots: &[Slot]| -> Vec<Option<Result<Look, DeviceError>>> {
            slots.iter().map(|slot| slot.device.as_ref().map(|device| look(&**device))).collect()
        };
        let (looked, spares_looked) = (looks(&columns), looks(&spares));
        let of =
            |looked: &[Option<Result<Look, DeviceError>>]| -> (Vec<Option<Label>>, Vec<Option<Extension>>) {
                looked.iter().map(|looked| looked.clone().and_then(Result::ok).unwrap_or_default()).unzip()
            };
        let ((mut labels, mut extensions), (mut spare_labels, more)) = (of(&looked), of(&spares_looked));
        let (mut in_spare, mut spread) = (vec![None; columns.len()], None);
        let mut lost = vec![false; columns.len()];
        if !force {
            extensions.extend(more);
            complete(labels.iter_mut().chain(&mut spare_labels).flatten(), &extensions);
            in_spare = in_spares(&labels, &spare_labels, &extensions);
            spread = in_free_units(&parameters.level, &labels, &extensions);
            lost = lost_before(&labels, &extensions);
        }
        let found: Vec<Found> = (0..columns.len())
            .map(|column| {
                let (slot, label) = match in_spare[column] {
                    Some(spare) => (&spares[spare], &spare_labels[spare]),
                    None => (&columns[column], &labels[column]),
                };
                if spread == Some(column) {
                    return Found::InFreeUnits;
                }
                if lost[column] && in_spare[column].is_none() {
                    let label = label.clone().map(Box::new);
                    return Found::Lost { there: slot.device.is_some(), label };
                }
                let Some(device) = &slot.device else { return Found::Absent };
                let sector_size = device.info().logical_sector;
                let sectors = device.size().map(|size| size / u64::from(sector_size.max(1)));
                match (sectors, &looked[column]) {
                    (Ok(sectors), _) if sectors < PROTECTED_SECTORS => {
                        Found::Unfit(format!("has {sectors} sectors, fewer than labels take"))
                    }
                    (_, Some(Err(error))) if in_spare[column].is_none() => {
                        Found::Unfit(format!("fails: {error}"))
                    }
                    (Err(error), _) => Found::Unfit(format!("fails: {error}")),
                    (Ok(sectors), _) => Found::of(sectors, sector_size, label.clone(), force),
                }
            })
            .collect();
        let names: Vec<String> = columns.iter().map(|slot| slot.name.clone()).collect();
        for (name, found) in names.iter().zip(&found).filter(|_| force) {
            if let Found::Unfit(why) = found {
                return Err(ConfigureError::Unfit { name: name.clone(), why: why.clone() });
            }
        }
        let verdict = judge(&parameters.level, parameters.sectors_per_unit, &found, force);
        if !force && !verdict.refusals.is_empty() {
            let mut told = tell_excused(&verdict, &names, &found);
            told.extend(tell(&verdict.refusals, &names, &found));
            return Err(ConfigureError::Refused { refusals: verdict.refusals, told });
        }
        let mut components: Vec<Component> = columns
            .into_iter()
            .zip(labels)
            .zip(&verdict.failed)
            .enumerate()
            .map(|(column, ((slot, label), &failed))| Component {
                name: if slot.device.is_some() { slot.name } else { format!("component{column}") },
                device: slot.device,
                status: if failed { Status::Failed } else { Status::Optimal },
                label,
            })
            .collect();
        let best = Extension::best(extensions.iter().flatten(), verdict.serial_number, verdict.mod_counter);
        check_design(&parameters, best, force)?;
        // By force, labels count as far as they would have without it.
        let trusted = !force || verdict.refusals.is_empty() && !disagree(&found);
        let mut resumed = Resumed::nothing(components.len());
        let mut notes = tell_failed(&verdict, &names, &found);
        let (mut known, mut sealed) = (Known::default(), false);
        match best {
            Some(best) if trusted => {
                known = Known { rebuild: None, ..best.known.clone() };
                sealed = best.seals();
                if !force {
                    resumed = Resumed::of_columns(best, &mut components, &spares, &in_spare);
                    resumed.find_free_units(&parameters.level, best, &mut components);
                }
            }
            Some(best) if best.known.journal_sectors > 0 => notes.push(
                "the components have a journal, which is left out since their labels disagree; it can be made anew"
                    .to_owned(),
            ),
            _ => {}
        }
        let set = Self::build(Plan {
            unit,
            parameters,
            room,
            columns: components,
            resumed,
            serial_number: verdict.serial_number,
            mod_counter: verdict.greatest_counter(&found),
            parity_good: !(verdict.parity_dirty || force && disagree(&found)),
            trusted,
            sized: room == 0 && (!force || verdict.refusals.is_empty()),
            sealed,
            last_unit: None,
            known,
            sequence: greatest(&extensions),
            runner,
        });
        let set = set.map_err(|error| error.because(&notes))?;
        *lock(&set.notes) = notes;
        let order: Vec<String> = spares.iter().map(|spare| spare.name.clone()).collect();
        for spare in spares {
            if set.members().spares.iter().all(|other| other.name != spare.name) {
                set.add_spare_or_note(spare);
            }
        }
        set.order_spares(&order);
        set.open();
        Ok(set)
    }

    /// Configures a set that scanning has found. `devices` are the candidates' devices; `others` all that was found without a
    /// label, among which its spares may be.
    ///
    /// # Errors
    /// Too few of its columns are up to date, or they cannot make a set. Nothing is written then.
    pub fn assemble(
        unit: u32,
        found: &FoundSet,
        candidates: &[Candidate],
        devices: &[Arc<dyn BlockDevice>],
        others: &[Slot],
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        let Some(first) = found.members.first().and_then(|&member| candidates.get(member)) else {
            return Err(ConfigureError::Nothing);
        };
        let label = &first.label;
        let letter = label.letter().unwrap_or('?');
        let of = |member: usize| candidates.get(member).zip(devices.get(member));
        let extensions: Vec<Option<Extension>> = found
            .members
            .iter()
            .filter_map(|&member| of(member))
            .map(|(_, device)| Extension::read(&**device).unwrap_or(None))
            .collect();
        let serial = label.serial_number;
        let best = Extension::best(extensions.iter().flatten(), serial, found.mod_counter);
        let design = best.and_then(|best| best.known.design.clone());
        let parameters = Parameters {
            level: Level::with_design(letter, design).ok_or(ConfigureError::Level { letter })?,
            sectors_per_unit: label.sectors_per_unit,
            units_per_parity_unit: label.units_per_parity_unit,
            units_per_recon_unit: label.units_per_recon_unit,
            queue_length: label.max_outstanding,
        };
        let component = |(column, member): (usize, &Member)| {
            let (at, status) = match member {
                Member::Current(at) => (of(*at), Status::Optimal),
                Member::Stale(at) => (of(*at), Status::Failed),
                Member::Missing => (None, Status::Failed),
            };
            match at {
                Some((candidate, device)) => Component {
                    name: candidate.name.clone(),
                    device: Some(device.clone()),
                    status,
                    label: Some(candidate.label.clone()),
                },
                None => Component {
                    name: format!("component{column}"),
                    device: None,
                    status: Status::Failed,
                    label: None,
                },
            }
        };
        let mut columns: Vec<Component> = found.columns.iter().enumerate().map(component).collect();
        let mut resumed = match best {
            Some(best) => {
                Resumed::of_found(best, &mut columns, found.members.iter().filter_map(|&at| of(at)), others)
            }
            None => Resumed::nothing(columns.len()),
        };
        if let Some(best) = best {
            resumed.find_free_units(&parameters.level, best, &mut columns);
        }
        let set = Self::build(Plan {
            unit,
            room: 0,
            parameters,
            columns,
            resumed,
            serial_number: serial,
            mod_counter: found.mod_counter,
            parity_good: !found.parity_dirty,
            trusted: true,
            sized: true,
            sealed: best.is_some_and(Extension::seals),
            last_unit: None,
            known: best.map_or_else(Known::default, |best| best.known.clone()),
            sequence: greatest(&extensions),
            runner,
        })?;
        set.open();
        Ok(set)
    }

    /// Takes a set that was configured before into use again, as it was left or as a crash left it. `known` is what is remembered of
    /// it; what its components know later than that counts more. Nothing is written before the set is.
    ///
    /// # Errors
    /// Too few of its components are there and up to date.
    pub fn attach(
        unit: u32,
        parameters: Parameters,
        columns: &[Slot],
        spares: &[Slot],
        known: &Known,
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        let looks = |slots: &[Slot]| -> Vec<(Option<Label>, Option<Extension>)> {
            let look = |slot: &Slot| slot.device.as_ref().and_then(|device| look(&**device).ok());
            slots.iter().map(|slot| look(slot).unwrap_or_default()).collect()
        };
        let (mut of_columns, mut of_spares) = (looks(columns), looks(spares));
        let extensions: Vec<Option<Extension>> =
            of_columns.iter().chain(&of_spares).map(|(_, extension)| extension.clone()).collect();
        let stamps: Vec<(i32, u32)> = known.columns.iter().filter_map(|column| column.stamp).collect();
        {
            let all = of_columns.iter_mut().chain(&mut of_spares).filter_map(|(label, _)| label.as_mut());
            // Only labels that the set is known to have count.
            let ours = all.filter(|label| stamps.iter().any(|(serial, _)| *serial == label.serial_number));
            complete(ours, &extensions);
        }
        // What is remembered may be older than the last failure or rebuild: any column may have a label by now. Of two halves of a
        // mirror that were used apart, the one with the greater counter counts, as with RAIDframe.
        let is_ours = |label: &Label| {
            (label.column as usize) < columns.len()
                && stamps.iter().any(|(serial, _)| *serial == label.serial_number)
        };
        let labels = of_columns.iter().chain(&of_spares).filter_map(|(label, _)| label.as_ref());
        let mod_counter =
            labels.filter(|label| is_ours(label)).map(|label| label.mod_counter).max().unwrap_or(0);
        let serial_number = stamps.first().map_or(0, |stamp| stamp.0);
        let best = Extension::best(extensions.iter().flatten(), serial_number, mod_counter)
            .filter(|_| !stamps.is_empty());
        let merged = best.map(|best| known.brought_up_to_date(&best.known));
        let known = merged.as_ref().unwrap_or(known);
        // A column is what it is known to be, if the label on its device says nothing else.
        let current = |label: &Option<Label>, stamp: Option<(i32, u32)>| match (stamp, label) {
            (None, _) => true,
            (Some(stamp), Some(label)) => {
                (label.serial_number, label.column) == stamp && label.mod_counter == mod_counter
            }
            (Some(_), None) => false,
        };
        // One that has become smaller than its label says would make the set smaller.
        let too_small = |slot: &Slot, label: &Option<Label>| -> Option<String> {
            let (device, label) = (slot.device.as_ref()?, label.clone()?);
            let sector_size = label.block_size;
            let sectors = device.size().ok()? / u64::from(sector_size.max(1));
            match Found::of(sectors, sector_size, Some(label), false) {
                Found::Unfit(why) => Some(why),
                _ => None,
            }
        };
        let usable = |slot: &Slot, label: &Option<Label>, stamp: Option<(i32, u32)>| {
            slot.device.is_some()
                && current(label, stamp)
                && (stamp.is_none() || too_small(slot, label).is_none())
        };
        let mut spare_components: Vec<Component> = spares
            .iter()
            .zip(&of_spares)
            .enumerate()
            .map(|(index, (slot, (label, _)))| {
                let told = known.spares.get(index).map_or(Status::Spare, |spare| spare.status);
                let status = if slot.device.is_some() { told } else { Status::Failed };
                let label = label.clone().filter(|_| status == Status::UsedSpare);
                Component { name: slot.name.clone(), device: slot.device.clone(), status, label }
            })
            .collect();
        let mut spare_of = vec![None; columns.len()];
        let mut rebuild = None;
        let mut notes = Vec::new();
        let mut components = Vec::new();
        for (column, (slot, (label, extension))) in columns.iter().zip(&of_columns).enumerate() {
            let told = known.columns.get(column);
            let stamp = told.and_then(|told| told.stamp);
            let spare = known.spares.iter().position(|spare| spare.column == Some(column));
            let spare = spare.filter(|&spare| spare < spare_components.len());
            let under_way = known
                .rebuild
                .filter(|rebuild| rebuild.column == column && !rebuild.free_units)
                .and_then(|rebuild| {
                    let (device, extension) = match (rebuild.kind, spare) {
                        (RebuildKind::Reconstruction, Some(spare)) => {
                            (&spares[spare].device, &of_spares[spare].1)
                        }
                        _ => (&slot.device, extension),
                    };
                    let rows = match (best, extension) {
                        // Without labels there are no extension areas, and nobody else to have used the set.
                        (None, _) => stamps.is_empty().then_some(rebuild.rows)?,
                        (Some(best), Some(own)) if own.mod_counter == best.mod_counter => {
                            own.known.rebuild.map_or(0, |own| own.rows)
                        }
                        _ => return None,
                    };
                    Some((KnownRebuild { spare, rows, ..rebuild }, device.clone()?))
                });
            let status = match (told.map_or(Status::Failed, |told| told.status), spare) {
                (Status::Optimal, _) if usable(slot, label, stamp) => Status::Optimal,
                (Status::Spared, Some(spare)) if usable(&spares[spare], &of_spares[spare].0, stamp) => {
                    spare_of[column] = Some(spare);
                    rebuild = under_way.or(rebuild);
                    Status::Spared
                }
                (Status::Reconstructing, _) if under_way.is_some() => {
                    spare_of[column] = spare;
                    rebuild = under_way;
                    Status::Reconstructing
                }
                (_, spare) => {
                    if let Some(spare) = spare.map(|spare| &mut spare_components[spare])
                        && spare.status == Status::UsedSpare
                    {
                        spare.status = Status::Spare;
                        spare.label = None;
                    }
                    Status::Failed
                }
            };
            if status == Status::Failed && slot.device.is_some() {
                notes.push(match told.map(|told| told.status) {
                    Some(Status::Optimal) if current(label, stamp) && too_small(slot, label).is_some() => {
                        let why = too_small(slot, label).unwrap_or_default();
                        format!("{} counts as failed: it {why}", slot.name)
                    }
                    Some(Status::Optimal | Status::Reconstructing) => {
                        let label = label.as_ref().map(|label| (label, column));
                        tell_label(&slot.name, label, serial_number, mod_counter)
                    }
                    _ => format!("{} was out of use before", slot.name),
                });
            }
            components.push(Component {
                name: slot.name.clone(),
                device: slot.device.clone(),
                status,
                label: label.clone().filter(|_| stamp.is_some() || status != Status::Optimal),
            });
        }
        let mut resumed = Resumed { spares: spare_components, spare_of, rebuild, into_free_units: None };
        if let Some(best) = best {
            // The labels of the others bear out that nobody else has used the set since.
            resumed.find_free_units(&parameters.level, best, &mut components);
        }
        let Resumed { spares: spare_components, spare_of, .. } = &resumed;
        let members = components.iter().zip(spare_of).filter_map(|(component, spare)| {
            match (component.status, spare) {
                (Status::Optimal, _) => Some(component),
                (Status::Spared, Some(spare)) => Some(&spare_components[*spare]),
                _ => None,
            }
        });
        let clean = members.clone().all(|member| member.label.as_ref().is_none_or(|label| label.clean));
        let labelled = members.clone().any(|member| member.label.is_some());
        let parity_good = if labelled { clean } else { known.parity_good };
        let last_unit = members.clone().find_map(|member| member.label.as_ref()).map(|label| label.last_unit);
        Self::build(Plan {
            unit,
            room: 0,
            parameters,
            columns: components,
            resumed,
            serial_number,
            mod_counter,
            parity_good,
            trusted: true,
            sized: true,
            sealed: best.is_some_and(Extension::seals),
            last_unit,
            known: known.clone(),
            sequence: greatest(&extensions),
            runner,
        })
        .map_err(|error| error.because(&notes))
    }

    /// Builds the set once it is known who belongs to it. Nothing is written.
    fn build(plan: Plan) -> Result<Self, ConfigureError> {
        let Plan { unit, parameters, columns, trusted, parity_good, runner, known, .. } = plan;
        let Resumed { spares, spare_of, rebuild, into_free_units } = plan.resumed;
        let whole = |column: usize| match (columns[column].status, spare_of[column]) {
            (Status::Optimal, _) => Some(&columns[column]),
            (Status::Spared, Some(spare)) => spares.get(spare),
            _ => None,
        };
        let live: Vec<&Component> = (0..columns.len()).filter_map(whole).collect();
        let devices = || {
            live.iter().filter_map(|component| Some((component.name.as_str(), component.device.as_ref()?)))
        };
        let sector_size = common_sector_size(devices())?;
        let mut sectors = u64::MAX;
        for (_, device) in devices() {
            sectors = sectors.min(device.size()? / u64::from(sector_size));
        }
        let model = live.iter().find_map(|column| column.label.clone());
        // A set has the size that its labels say: a lost component may have been the smallest. Forced, labels say nothing.
        let mut usable =
            sectors.saturating_sub(PROTECTED_SECTORS).saturating_sub(known.journal_sectors.max(plan.room));
        if let Some(label) = model.as_ref().filter(|label| plan.sized && label.num_blocks <= usable) {
            usable = label.num_blocks;
        }
        let count = u16::try_from(columns.len()).unwrap_or(u16::MAX);
        let layout = Layout::over(parameters.level.clone(), count, parameters.sectors_per_unit, usable)?;
        // In the free units of the others.
        let spread = |column: usize| columns[column].status == Status::Spared && spare_of[column].is_none();
        let lost = |column: usize| whole(column).is_none() && !spread(column);
        if !layout.survives(lost) {
            let names = (0..columns.len()).filter(|&column| lost(column));
            return Err(ConfigureError::TooManyLost {
                names: names.map(|c| columns[c].name.clone()).collect(),
                why: Vec::new(),
            });
        }

        let defaults = MapParameters::default_for(layout.column_sectors() * u64::from(sector_size));
        let mut live_labels = live.iter().filter_map(|column| column.label.as_ref());
        let disabled = live_labels.clone().any(|label| label.map_flags & map_flags::DISABLE != 0);
        let map_parameters = live_labels.find_map(MapParameters::of_label).unwrap_or(defaults);
        let live_components: Vec<Component> =
            live.iter().map(|live| Component { status: Status::Optimal, ..(*live).clone() }).collect();
        let stored = stored_map(&live_components, map_parameters.regions, sector_size, trusted)?;
        let fallback = if parity_good { Bits::clean() } else { Bits::dirty(map_parameters.regions) };
        let bits = stored.clone().unwrap_or(fallback);
        let use_map = layout.redundant() && !disabled;
        let on_disk = if use_map { bits.clone() } else { Bits::dirty(MAX_REGIONS) };
        let mut missed = known.missed;
        // Without a map nobody notes what is missed.
        missed.retain(|missed| use_map && missed.column < columns.len() && lost(missed.column));
        for column in (0..columns.len()).filter(|&column| lost(column)) {
            if !missed.iter().any(|missed| missed.column == column) {
                missed.push(Missed { column, counter: 0, regions: Bits::dirty(MAX_REGIONS) });
            }
        }
        let header = Header {
            parameters,
            version: model.as_ref().map_or(Version::V2, |label| label.version),
            byte_order: model.as_ref().map_or(ByteOrder::Little, |label| label.byte_order),
            serial_number: plan.serial_number,
            mod_counter: plan.mod_counter,
            // RAIDframe forgets these on -c, which then breaks columns that are rebuilt; we keep them.
            autoconfigure: model.as_ref().map_or(0, |label| label.autoconfigure),
            root_partition: model.as_ref().map_or(0, |label| label.root_partition),
            last_unit: plan.last_unit.unwrap_or(unit),
            // Without labels nothing has said yet that the parity is right: `-I` must not be the first to.
            clean: (parity_good || !layout.redundant())
                && live.iter().filter_map(|live| live.label.as_ref()).all(|label| label.clean),
            map: map_parameters,
            map_disabled: disabled,
            sequence: plan.sequence,
            autospare: known.autospare,
            journal_sectors: known.journal_sectors,
            missed,
            caught_up: false,
        };
        // Labels are clean only once nothing is left on the journal.
        let labels = live.iter().filter_map(|live| live.label.as_ref());
        let clean = labels.clone().count() > 0 && labels.clone().all(|label| label.clean);
        let degraded = (0..columns.len()).any(lost);
        let rebuild = rebuild.map(|(known, target)| {
            let rows = known.rows.min(layout.rows());
            let rebuild = Rebuild::new(known.kind, known.column, target);
            let rebuild = Rebuild { partial: known.partial, ..rebuild }.done(rows);
            // What a crash left of a row is whatever its stripe has now; but a copyback has two devices that may differ.
            Arc::new(if known.kind == RebuildKind::Copyback && !clean {
                let doubtful = stored.filter(|_| use_map).unwrap_or_else(|| Bits::dirty(MAX_REGIONS));
                rebuild.doubting(doubtful, &layout, map_parameters)
            } else {
                rebuild
            })
        });
        let mut members = Members { columns, spares, spare_of, rebuild };
        let info = DeviceInfo {
            name: format!("raid{unit}"),
            logical_sector: sector_size,
            physical_sector: sector_size,
            discards: false,
            block_device: false,
        };
        if let Some((column, rows)) = into_free_units {
            let rebuild = members.rebuild_in_free_units(&layout, &info, column);
            members.rebuild = Some(Arc::new(rebuild.done(rows.min(layout.rows()))));
        }
        let map = use_map.then(|| Mutex::new(ParityMap::new(&layout, map_parameters, bits)));
        let parity_good = AtomicBool::new(parity_good || !layout.redundant());
        let set = Self {
            info,
            unit,
            layout,
            runner,
            members: RwLock::new(Arc::new(members)),
            header: Mutex::new(header),
            map,
            on_disk: Mutex::new(on_disk),
            degraded: AtomicBool::new(degraded),
            opened: AtomicBool::new(false),
            parity_good,
            locks: StripeLocks::default(),
            repairs: AtomicU64::new(0),
            abandoned: Mutex::default(),
            scratch: Mutex::default(),
            journal: Journal::default(),
            notes: Mutex::default(),
        };
        if set.start_journal() && !clean {
            set.replay()?;
            if plan.sealed {
                // Stripes hold all of a write or nothing of it.
                set.parity_good.store(true, Ordering::Release);
                if let Some(map) = &set.map {
                    *lock(map) = ParityMap::new(&set.layout, map_parameters, Bits::clean());
                }
            }
        }
        Ok(set)
    }
}

/// Greatest sequence number.
fn greatest(extensions: &[Option<Extension>]) -> u64 {
    extensions.iter().flatten().map(|extension| extension.sequence).max().unwrap_or(0)
}
