//! Making a set, its labels, and changes to what it is made of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use device::{BlockDevice, DeviceError, DeviceInfo, Runner};

use super::locks::{StripeLocks, lock};
use super::members::{Component, Members, Status};
use super::{RaidSet, jobs::Progress};
use crate::config::{Config, MAX_SPARES};
use crate::judge::{Candidate, Found, FoundSet, Member, Refusal, check};
use crate::label::{
    ByteOrder, Label, PROTECTED_SECTORS, SECTOR_SIZES, Version, map_area, map_flags, map_offset,
};
use crate::layout::{Layout, LayoutError, Level};
use crate::paritymap::{Bits, MAP_LENGTH, Parameters as MapParameters, ParityMap};

/// A device under the name that it is known by. Without one it is absent.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The name.
    pub name: String,
    /// The device.
    pub device: Option<Arc<dyn BlockDevice>>,
}

/// What a set is, apart from its components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        let level = Level::from_letter(config.letter);
        Ok(Self {
            level: level.ok_or(ConfigureError::Level { letter: config.letter })?,
            sectors_per_unit: config.sectors_per_unit,
            units_per_parity_unit: config.units_per_parity_unit,
            units_per_recon_unit: config.units_per_recon_unit,
            queue_length: config.queue_length,
        })
    }
}

/// Why there is no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigureError {
    /// A level that cannot be run.
    #[error("RAID level {letter:?} cannot be run")]
    Level {
        /// Its letter.
        letter: char,
    },
    /// No component is there.
    #[error("none of the components is there")]
    Nothing,
    /// Sector sizes that differ or cannot be used.
    #[error("{name} has sectors of {found} bytes, but the set needs {wanted}")]
    SectorSize {
        /// The component.
        name: String,
        /// Its sector size, bytes.
        found: u32,
        /// What would do.
        wanted: String,
    },
    /// The components make no set.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The labels stand against it; nothing has been written.
    #[error("the labels do not belong to this set: {}; force it only if you know why",
        .refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused {
        /// Why.
        refusals: Vec<Refusal>,
    },
    /// Too many components are missing or stale.
    #[error("the set cannot do without all of {}", .names.join(", "))]
    TooManyLost {
        /// They.
        names: Vec<String>,
    },
    /// A component failed while it was looked at.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why something cannot be done with a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// No such column.
    #[error("the set has no column {column}")]
    NoColumn {
        /// What was asked for.
        column: usize,
    },
    /// No component or spare has that name.
    #[error("{name} is not a component of this device")]
    NoComponent {
        /// What was asked for.
        name: String,
    },
    /// A component is in a state in which that cannot be done to it.
    #[error("{name} is {}, so this cannot be done", .status.word())]
    Status {
        /// The component.
        name: String,
        /// Its status.
        status: Status,
    },
    /// The set cannot do without the component.
    #[error("the set cannot do without {name}")]
    Needed {
        /// The component.
        name: String,
    },
    /// Every component must be there for this.
    #[error("{name} has failed: rebuild it first")]
    Degraded {
        /// The component.
        name: String,
    },
    /// No spare is free.
    #[error("no spares are available: add one first")]
    NoSpare,
    /// As many spares as a set can have.
    #[error("the set already has {MAX_SPARES} spares")]
    TooManySpares,
    /// A rebuild is running.
    #[error("a reconstruction or copyback is already running")]
    Rebuilding,
    /// None is running, or it was given up.
    #[error("no reconstruction or copyback is running")]
    NoRebuild,
    /// A device that cannot take a column.
    #[error("{name} cannot be used: {why}")]
    Unfit {
        /// The device.
        name: String,
        /// Why.
        why: String,
    },
    /// A component failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What a label says that is not about its component.
#[derive(Clone, Debug)]
pub(super) struct Header {
    parameters: Parameters,
    version: Version,
    byte_order: ByteOrder,
    serial_number: i32,
    mod_counter: i32,
    autoconfigure: u32,
    root_partition: u32,
    clean: bool,
    map: MapParameters,
    map_disabled: bool,
}

impl Header {
    /// A label for a column that is kept on `device`; none before the set has labels.
    pub(super) fn label(&self, set: &RaidSet, column: usize, device: &Arc<dyn BlockDevice>) -> Option<Label> {
        let any = set.members().columns.iter().any(|component| component.label.is_some());
        any.then(|| self.make_label(set, column, device))
    }

    fn make_label(&self, set: &RaidSet, column: usize, device: &Arc<dyn BlockDevice>) -> Label {
        let layout = set.layout();
        let disabled = if self.map_disabled { map_flags::DISABLE } else { 0 };
        Label {
            version: self.version,
            byte_order: self.byte_order,
            serial_number: self.serial_number,
            mod_counter: self.mod_counter,
            row: 0,
            column: column as u32,
            num_rows: 1,
            num_columns: layout.columns() as u32,
            clean: self.clean,
            status: 0,
            sectors_per_unit: layout.unit(),
            units_per_parity_unit: self.parameters.units_per_parity_unit,
            units_per_recon_unit: self.parameters.units_per_recon_unit,
            parity_config: layout.level().letter().into(),
            max_outstanding: self.parameters.queue_length,
            block_size: set.sector_size(),
            num_blocks: layout.column_sectors(),
            partition_size: device.size().unwrap_or(0) / u64::from(set.sector_size()),
            map_mod_counter: self.mod_counter.cast_unsigned(),
            map_flags: set.map_flags() | disabled,
            map_tick_ms: self.map.tick_ms,
            map_cooldown: self.map.cooldown,
            map_regions: self.map.regions,
            future_use: [0; 28],
            autoconfigure: self.autoconfigure,
            root_partition: self.root_partition,
            last_unit: set.unit(),
            config_order: 0,
            future_use2: [0; 42],
        }
    }

    /// Brings the fields that change up to date.
    fn refresh(&self, set: &RaidSet, label: &mut Label) {
        let disabled = if self.map_disabled { map_flags::DISABLE } else { 0 };
        label.mod_counter = self.mod_counter;
        label.map_mod_counter = self.mod_counter.cast_unsigned();
        label.clean = self.clean;
        label.status = 0;
        label.last_unit = set.unit();
        label.map_flags = set.map_flags() | disabled;
        label.map_tick_ms = self.map.tick_ms;
        label.map_cooldown = self.map.cooldown;
        label.map_regions = self.map.regions;
    }
}

/// A component's part of [`SetStatus`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// Its label as last written.
    pub label: Option<Label>,
}

/// How a set is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetStatus {
    /// N of raidN.
    pub unit: u32,
    /// One for each column.
    pub columns: Vec<ComponentStatus>,
    /// In the order added.
    pub spares: Vec<ComponentStatus>,
    /// Whether the parity is known to be right.
    pub parity_good: bool,
    /// The rebuild that is running.
    pub rebuild: Option<(super::RebuildKind, usize, Progress)>,
}

/// The sector size that all devices have.
fn common_sector_size<'a>(slots: impl Iterator<Item = &'a Slot>) -> Result<u32, ConfigureError> {
    let mut common = None;
    for slot in slots {
        let Some(device) = &slot.device else { continue };
        let found = device.info().logical_sector;
        let wanted = common.map(|size: u32| format!("{size}, as the other components have"));
        let usable = found.is_power_of_two() && SECTOR_SIZES.contains(&found);
        if !usable || common.is_some_and(|size| size != found) {
            let wanted = wanted.unwrap_or_else(|| "a power of two from 512 to 65536".to_owned());
            return Err(ConfigureError::SectorSize { name: slot.name.clone(), found, wanted });
        }
        common = Some(found);
    }
    common.ok_or(ConfigureError::Nothing)
}

/// The labels of a configured set, which a parity map must agree with to be trusted.
fn stored_map(
    columns: &[Component],
    header: &Header,
    sector_size: u32,
    trusted: bool,
) -> Result<Option<Bits>, DeviceError> {
    let live: Vec<&Component> = columns.iter().filter(|column| column.status == Status::Optimal).collect();
    let agrees = live.iter().all(|component| {
        component.label.as_ref().is_some_and(|label| {
            let flags = map_flags::VALID | map_flags::WAS_USED;
            label.map_flags & flags == flags
                && label.map_mod_counter == label.mod_counter.cast_unsigned()
                && label.map_regions == header.map.regions
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
        let sector_size = common_sector_size(columns.iter())?;
        let mut found = Vec::new();
        for slot in &columns {
            found.push(match &slot.device {
                None => Found::Absent,
                Some(device) => match Label::read(&**device) {
                    Ok(Ok(mut label)) => {
                        let sectors = device.size()? / u64::from(sector_size);
                        let fixed = label.fix_sizes(sectors).is_ok();
                        if fixed { Found::Labelled(Box::new(label)) } else { Found::Unlabelled }
                    }
                    Ok(Err(_)) => Found::Unlabelled,
                    Err(_) => Found::Absent,
                },
            });
        }
        let verdict = check(parameters.level, &found, force);
        if !force && !verdict.refusals.is_empty() {
            return Err(ConfigureError::Refused { refusals: verdict.refusals });
        }
        let components: Vec<Component> = columns
            .into_iter()
            .zip(found)
            .zip(&verdict.failed)
            .enumerate()
            .map(|(column, ((slot, found), &failed))| Component {
                name: if slot.device.is_some() { slot.name } else { format!("component{column}") },
                device: slot.device,
                status: if failed { Status::Failed } else { Status::Optimal },
                label: match found {
                    Found::Labelled(label) => Some(*label),
                    _ => None,
                },
            })
            .collect();
        let counter = (verdict.serial_number, verdict.mod_counter);
        let trusted = !force || verdict.refusals.is_empty();
        let set = Self::build(unit, parameters, components, counter, !verdict.parity_dirty, trusted, runner)?;
        for spare in spares {
            if let Err(error) = set.add_spare(spare.clone()) {
                if error == SetError::TooManySpares {
                    break;
                }
                let mut members = (*set.members()).clone();
                members.spares.push(Component {
                    name: spare.name,
                    device: None,
                    status: Status::Failed,
                    label: None,
                });
                set.publish(members);
            }
        }
        Ok(set)
    }

    /// Configures a set that scanning has found. `devices` are the candidates' devices.
    ///
    /// # Errors
    /// Too few of its columns are up to date, or they cannot make a set. Nothing is written then.
    pub fn assemble(
        unit: u32,
        found: &FoundSet,
        candidates: &[Candidate],
        devices: &[Arc<dyn BlockDevice>],
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        let Some(first) = found.members.first().and_then(|&member| candidates.get(member)) else {
            return Err(ConfigureError::Nothing);
        };
        let label = &first.label;
        let letter = label.letter().unwrap_or('?');
        let parameters = Parameters {
            level: label.level().ok_or(ConfigureError::Level { letter })?,
            sectors_per_unit: label.sectors_per_unit,
            units_per_parity_unit: label.units_per_parity_unit,
            units_per_recon_unit: label.units_per_recon_unit,
            queue_length: label.max_outstanding,
        };
        let component = |(column, member): (usize, &Member)| {
            let of = |member: &usize| candidates.get(*member).zip(devices.get(*member));
            match member {
                Member::Current(at) | Member::Stale(at) if of(at).is_some() => {
                    let (candidate, device) = of(at)?;
                    let current = matches!(member, Member::Current(_));
                    Some(Component {
                        name: candidate.name.clone(),
                        device: Some(device.clone()),
                        status: if current { Status::Optimal } else { Status::Failed },
                        label: Some(candidate.label.clone()),
                    })
                }
                _ => Some(Component {
                    name: format!("component{column}"),
                    device: None,
                    status: Status::Failed,
                    label: None,
                }),
            }
        };
        let components: Vec<Component> = found.columns.iter().enumerate().filter_map(component).collect();
        let counter = (label.serial_number, found.mod_counter);
        Self::build(unit, parameters, components, counter, !found.parity_dirty, true, runner)
    }

    /// Builds the set once it is known who belongs to it, and writes the labels.
    fn build(
        unit: u32,
        parameters: Parameters,
        columns: Vec<Component>,
        (serial_number, mod_counter): (i32, i32),
        parity_good: bool,
        trusted: bool,
        runner: Arc<dyn Runner>,
    ) -> Result<Self, ConfigureError> {
        let slots: Vec<Slot> = columns
            .iter()
            .filter(|column| column.status == Status::Optimal)
            .map(|column| Slot { name: column.name.clone(), device: column.device.clone() })
            .collect();
        let sector_size = common_sector_size(slots.iter())?;
        let mut sectors = u64::MAX;
        for device in slots.iter().filter_map(|slot| slot.device.as_ref()) {
            sectors = sectors.min(device.size()? / u64::from(sector_size));
        }
        let live = columns.iter().filter(|column| column.status == Status::Optimal);
        let model = live.clone().find_map(|column| column.label.clone());
        // A set has the size that its labels say: a lost component may have been the smallest. Forced, labels say nothing.
        let mut usable = sectors.saturating_sub(PROTECTED_SECTORS);
        if let Some(label) = model.as_ref().filter(|label| trusted && label.num_blocks <= usable) {
            usable = label.num_blocks;
        }
        let count = u16::try_from(columns.len()).unwrap_or(u16::MAX);
        let layout = Layout::over(parameters.level, count, parameters.sectors_per_unit, usable)?;
        let lost = |column: usize| columns[column].status != Status::Optimal;
        if !layout.survives(lost) {
            let names = (0..columns.len()).filter(|&column| lost(column));
            return Err(ConfigureError::TooManyLost {
                names: names.map(|c| columns[c].name.clone()).collect(),
            });
        }

        let defaults = MapParameters::default_for(layout.column_sectors() * u64::from(sector_size));
        let mut live_labels = live.clone().filter_map(|column| column.label.as_ref());
        let disabled = live_labels.clone().any(|label| label.map_flags & map_flags::DISABLE != 0);
        let header = Header {
            parameters,
            version: model.as_ref().map_or(Version::V2, |label| label.version),
            byte_order: model.as_ref().map_or(ByteOrder::Little, |label| label.byte_order),
            serial_number,
            mod_counter,
            // RAIDframe forgets these on -c, which then breaks columns that are rebuilt; we keep them.
            autoconfigure: model.as_ref().map_or(0, |label| label.autoconfigure),
            root_partition: model.as_ref().map_or(0, |label| label.root_partition),
            clean: false,
            map: live_labels.find_map(MapParameters::of_label).unwrap_or(defaults),
            map_disabled: disabled,
        };
        let stored = stored_map(&columns, &header, sector_size, trusted)?;
        let fallback = if parity_good { Bits::clean() } else { Bits::dirty(header.map.regions) };
        let map = (layout.redundant() && !disabled)
            .then(|| Mutex::new(ParityMap::new(&layout, header.map, stored.unwrap_or(fallback))));
        let spare_of = vec![None; columns.len()];
        let members = Members { columns, spares: Vec::new(), spare_of, rebuild: None };
        let info = DeviceInfo {
            name: format!("raid{unit}"),
            logical_sector: sector_size,
            physical_sector: sector_size,
            discards: false,
            block_device: false,
        };
        let set = Self {
            info,
            unit,
            layout,
            runner,
            members: RwLock::new(Arc::new(members.clone())),
            header: Mutex::new(header),
            map,
            parity_good: AtomicBool::new(parity_good || !layout.redundant()),
            locks: StripeLocks::default(),
            repairs: AtomicU64::new(0),
        };
        // The map first: the labels will say that it can be trusted.
        if let Some(map) = &set.map {
            set.write_map(&lock(map));
        }
        let mut header = lock(&set.header);
        let members = (*set.members()).clone();
        set.commit(&mut header, members);
        drop(header);
        Ok(set)
    }

    /// Makes a new list of members the one that operations see.
    pub(super) fn publish(&self, members: Members) -> Arc<Members> {
        let members = Arc::new(members);
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members.clone();
        members
    }

    /// Publishes a change of the set and writes it to all labels with a new counter, so that whoever misses it is known to have.
    /// Components that cannot take their label are failed as well, as long as the set can do without them.
    pub(super) fn commit(&self, header: &mut Header, mut members: Members) {
        loop {
            header.mod_counter = header.mod_counter.wrapping_add(1);
            let failed = self.write_labels(header, &mut members);
            self.publish(members.clone());
            let survivable =
                |&column: &usize| self.layout.survives(|other| other == column || members.lost(other));
            match failed.into_iter().find(survivable) {
                Some(column) => members.fail(column),
                None => break,
            }
        }
    }

    /// Writes the labels of all columns in use that have one. Returns the columns where that failed.
    fn write_labels(&self, header: &Header, members: &mut Members) -> Vec<usize> {
        let mut failed = Vec::new();
        for column in 0..members.columns.len() {
            let spare = members.spare_of[column];
            let component = match (members.columns[column].status, spare) {
                (Status::Optimal, _) => &mut members.columns[column],
                (Status::Spared, Some(spare)) => &mut members.spares[spare],
                _ => continue,
            };
            let (Some(label), Some(device)) = (&mut component.label, &component.device) else { continue };
            header.refresh(self, label);
            if label.write(&**device).and_then(|()| device.flush()).is_err() {
                failed.push(column);
            }
        }
        failed
    }

    /// Writes the map to a device that is about to become part of the set.
    pub(super) fn write_map_to(&self, map: &ParityMap, device: &Arc<dyn BlockDevice>) {
        let mut area = vec![0; map_area(self.sector_size())];
        area[..MAP_LENGTH].copy_from_slice(map.bits().encode());
        // If it cannot take this it cannot take its label either, which is written next and fails it.
        let _ = device.write(map_offset(self.sector_size()), &area);
    }

    /// A device could not be written. Fails what it is used for. True: the set can do without it.
    pub(super) fn device_failed(&self, column: usize, device: &Arc<dyn BlockDevice>) -> bool {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        if members.copies_back_to(column, device) {
            members.abort_rebuild();
            self.publish(members);
            return true;
        }
        if !members.uses(column, device) {
            // Somebody else was told before.
            return true;
        }
        if !self.layout.survives(|other| other == column || members.lost(other)) {
            return false;
        }
        members.fail(column);
        self.commit(&mut header, members);
        true
    }

    /// The column that `name` stands for: a component's name, or `componentN`.
    pub fn column_of(&self, name: &str) -> Option<usize> {
        let members = self.members();
        let named = members.columns.iter().position(|component| component.name == name);
        let numbered = || name.strip_prefix("component")?.parse().ok();
        named.or_else(numbered).filter(|&column| column < members.columns.len())
    }

    /// Fails a column (`raidctl -f`).
    ///
    /// # Errors
    /// There is no such column, or the set cannot do without it.
    pub fn fail_column(&self, column: usize) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        let component = members.columns.get(column).ok_or(SetError::NoColumn { column })?;
        if !self.layout.survives(|other| other == column || members.lost(other)) {
            return Err(SetError::Needed { name: component.name.clone() });
        }
        members.fail(column);
        self.commit(&mut header, members);
        Ok(())
    }

    /// The device of a slot, if it can hold a column.
    pub(super) fn check_device(&self, slot: &Slot) -> Result<Arc<dyn BlockDevice>, SetError> {
        let unfit = |why: String| SetError::Unfit { name: slot.name.clone(), why };
        let device = slot.device.as_ref().ok_or_else(|| unfit("the device is not there".to_owned()))?;
        let sector_size = u64::from(self.sector_size());
        if device.info().logical_sector != self.sector_size() {
            let found = device.info().logical_sector;
            return Err(unfit(format!("its sectors have {found} bytes, not {sector_size}")));
        }
        let sectors = device.size()? / sector_size;
        let needed = self.layout.column_sectors() + PROTECTED_SECTORS;
        if sectors < needed {
            return Err(unfit(format!("it has {sectors} sectors, but {needed} are needed")));
        }
        Ok(device.clone())
    }

    /// Adds a hot spare (`raidctl -a`). Nothing is written to it yet.
    ///
    /// # Errors
    /// The device cannot hold a column, or there are as many spares as there can be.
    pub fn add_spare(&self, slot: Slot) -> Result<(), SetError> {
        let device = self.check_device(&slot)?;
        let _header = lock(&self.header);
        let mut members = (*self.members()).clone();
        if members.spares.len() >= usize::from(MAX_SPARES) {
            return Err(SetError::TooManySpares);
        }
        members.spares.push(Component {
            name: slot.name,
            device: Some(device),
            status: Status::Spare,
            label: None,
        });
        self.publish(members);
        Ok(())
    }

    /// Removes a spare that is not in use (`raidctl -r`); later spares move up.
    ///
    /// # Errors
    /// There is none of that name, or it is in use.
    pub fn remove_spare(&self, name: &str) -> Result<(), SetError> {
        let _header = lock(&self.header);
        let mut members = (*self.members()).clone();
        let position = members.spares.iter().position(|spare| spare.name == name);
        let position = position.ok_or_else(|| SetError::NoComponent { name: name.to_owned() })?;
        let status = members.spares[position].status;
        if status == Status::UsedSpare {
            return Err(SetError::Status { name: name.to_owned(), status });
        }
        members.spares.remove(position);
        for used in members.spare_of.iter_mut().flatten().filter(|used| **used > position) {
            *used -= 1;
        }
        self.publish(members);
        Ok(())
    }

    /// Makes new labels on all components in use (`raidctl -I`). The counter stays.
    ///
    /// # Errors
    /// A component cannot take its label.
    pub fn init_labels(&self, serial_number: i32) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        header.serial_number = serial_number;
        header.version = Version::V2;
        header.byte_order = ByteOrder::Little;
        let mut members = (*self.members()).clone();
        for column in 0..members.columns.len() {
            let spare = members.spare_of[column];
            let Some(device) = members.whole(column).and_then(|component| component.device.clone()) else {
                continue;
            };
            let label = header.make_label(self, column, &device);
            label.write(&*device)?;
            device.flush()?;
            match spare {
                Some(spare) => members.spares[spare].label = Some(label),
                None => members.columns[column].label = Some(label),
            }
        }
        self.publish(members);
        Ok(())
    }

    /// Sets autoconfiguration and root flags on all labels (`raidctl -A`). The counter stays.
    ///
    /// # Errors
    /// A component cannot take its label.
    pub fn set_autoconfigure(&self, autoconfigure: bool, root_partition: u32) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        header.autoconfigure = autoconfigure.into();
        header.root_partition = root_partition & 3;
        let mut members = (*self.members()).clone();
        let spares = members.spares.iter_mut().filter(|spare| spare.status == Status::UsedSpare);
        for label in members.columns.iter_mut().chain(spares).filter_map(|component| component.label.as_mut())
        {
            label.autoconfigure = header.autoconfigure;
            label.root_partition = header.root_partition;
        }
        let failed = self.write_labels(&header, &mut members);
        let members = self.publish(members);
        match failed.first() {
            None => Ok(()),
            Some(&column) => Err(SetError::Unfit {
                name: members.columns[column].name.clone(),
                why: "its label cannot be written".to_owned(),
            }),
        }
    }

    /// Ends the use of the set (`raidctl -u`): everything is made durable and labels say whether the parity is right.
    ///
    /// # Errors
    /// A rebuild runs, or a component that the set cannot do without fails.
    pub fn unconfigure(&self) -> Result<(), SetError> {
        if self.members().rebuild.is_some() {
            return Err(SetError::Rebuilding);
        }
        self.flush()?;
        if let Some(map) = &self.map {
            let mut map = lock(map);
            map.settle();
            self.write_map(&map);
        }
        let mut header = lock(&self.header);
        header.clean = self.parity_good.load(Ordering::Acquire);
        let members = (*self.members()).clone();
        self.commit(&mut header, members);
        Ok(())
    }

    /// How it is doing.
    pub fn status(&self) -> SetStatus {
        let members = self.members();
        let told = |component: &Component| ComponentStatus {
            name: component.name.clone(),
            status: component.status,
            label: component.label.clone(),
        };
        SetStatus {
            unit: self.unit,
            columns: members.columns.iter().map(told).collect(),
            spares: members.spares.iter().map(told).collect(),
            parity_good: self.parity_good(),
            rebuild: self.rebuild_progress(),
        }
    }
}
