//! Changes to what a set is made of, its labels, and its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{BlockDevice, DeviceError};

use super::allowed::{check_free_spare, check_new_spare};
use super::header::Header;
use super::locks::lock;
use super::members::{Component, RebuildKind, Status};
use super::start::{Parameters, Slot};
use super::{RaidSet, jobs::Progress};
use crate::config::{Config, MAX_SPARES};
use crate::extension::Extension;
use crate::label::{ByteOrder, Label, PROTECTED_SECTORS, Version, map_area, map_offset};
use crate::paritymap::{Bits, MAP_LENGTH, MAX_REGIONS, ParameterError, ParityMap};
use crate::raidctl::MapStatus;

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
    #[error("{name} is not a component of this device: -s lists them")]
    NoComponent {
        /// What was asked for.
        name: String,
    },
    /// A component, not a spare.
    #[error(
        "{name} is a component, not a spare: only spares can be removed, and -f takes a component out of use"
    )]
    NotSpare {
        /// What was asked for.
        name: String,
    },
    /// A spare, not a component.
    #[error("{name} is a spare, not a component{}", match .of {
        Some(of) => format!(": name {of}, which it replaces"),
        None => ": -r removes it".to_owned(),
    })]
    NotColumn {
        /// What was asked for.
        name: String,
        /// The component that it replaces.
        of: Option<String>,
    },
    /// A component is in a state in which that cannot be done to it.
    #[error("{name} is {}, so this cannot be done{}", .status.word(), match .status {
        Status::Failed => ": rebuild it first, with -R in place or with -F on a spare",
        Status::Reconstructing => ": -S follows the reconstruction to its end",
        Status::Spared => ": -B copies it back first",
        Status::UsedSpare => ": -B copies it back first, to the component that it replaces",
        Status::Optimal | Status::Spare => "",
    })]
    Status {
        /// The component.
        name: String,
        /// Its status.
        status: Status,
    },
    /// The set cannot do without the component.
    #[error("the set cannot do without {name}{}", match .lost.as_slice() {
        [] => String::new(),
        lost => format!(" as long as {} {} lost: rebuild that first", lost.join(", "), if lost.len() == 1 { "is" } else { "are" }),
    })]
    Needed {
        /// The component.
        name: String,
        /// Those that are lost already.
        lost: Vec<String>,
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
    #[error("{name} is being {}: one at a time, and -S follows it to its end", match .kind {
        RebuildKind::Reconstruction => "reconstructed",
        RebuildKind::Copyback => "copied back",
    })]
    Rebuilding {
        /// The component that is rebuilt.
        name: String,
        /// What is done to it.
        kind: RebuildKind,
    },
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
    /// A journal for a level that has no write hole.
    #[error("{level} has no write hole, so it needs no journal")]
    NoJournal {
        /// The level.
        level: crate::layout::Level,
    },
    /// Too little space behind the data.
    #[error(
        "only {found} bytes are free behind the data of some component: a journal needs more, so the set must be made with one"
    )]
    NoRoom {
        /// Bytes that are free.
        found: u64,
    },
    /// A parameter of the parity map out of range.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A component failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
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

impl RaidSet {
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
        let unwritable = || format!("{} cannot be written", device.info().name);
        if members.copies_back_to(column, device) {
            self.abandon(&mut members, unwritable());
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
        self.fail_member(&mut members, column, unwritable);
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

    /// As [`RaidSet::column_of`], for those who need one.
    ///
    /// # Errors
    /// It is a spare, or nothing that the set has.
    pub fn require_column(&self, name: &str) -> Result<usize, SetError> {
        let found = self.column_of(name);
        let members = self.members();
        let spare = || members.spares.iter().position(|spare| spare.name == name);
        found.ok_or_else(|| match spare() {
            Some(spare) => {
                let of = members.spare_of.iter().position(|used| *used == Some(spare));
                let of = of.map(|column| members.columns[column].name.clone());
                SetError::NotColumn { name: name.to_owned(), of }
            }
            None => SetError::NoComponent { name: name.to_owned() },
        })
    }

    /// Fails a column (`raidctl -f`).
    ///
    /// # Errors
    /// There is no such column, or the set cannot do without it.
    pub fn fail_column(&self, column: usize) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        self.check_fail(&members, column)?;
        let name = members.columns[column].name.clone();
        self.fail_member(&mut members, column, || format!("{name} was taken out of use"));
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
        let journal = lock(&self.header).journal_sectors;
        let needed = self.layout.column_sectors() + PROTECTED_SECTORS + journal;
        if sectors < needed {
            return Err(unfit(format!("it has {sectors} sectors, but {needed} are needed")));
        }
        Ok(device.clone())
    }

    /// Adds a hot spare (`raidctl -a`). It gets no label yet, but an extension area, if the set has labels.
    ///
    /// # Errors
    /// The device cannot hold a column, or there are as many spares as there can be.
    pub fn add_spare(&self, slot: Slot) -> Result<(), SetError> {
        let device = self.check_device(&slot)?;
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        check_new_spare(&members, &slot.name)?;
        members.spares.push(Component {
            name: slot.name,
            device: Some(device),
            status: Status::Spare,
            label: None,
        });
        self.amend(&mut header, members);
        Ok(())
    }

    /// Adds a spare that a configuration names; a failed one if it cannot be used.
    pub(super) fn add_spare_or_note(&self, spare: Slot) {
        let (name, there) = (spare.name.clone(), spare.device.is_some());
        match self.add_spare(spare) {
            Ok(()) | Err(SetError::TooManySpares) => {}
            Err(error) => {
                // Why a device is not there is told by whoever could not open it.
                if there {
                    lock(&self.notes).push(format!("the spare {name} counts as failed: {error}"));
                }
                let _header = lock(&self.header);
                let mut members = (*self.members()).clone();
                members.spares.push(Component { name, device: None, status: Status::Failed, label: None });
                self.publish(members);
            }
        }
    }

    /// Removes a spare that is not in use (`raidctl -r`); later spares move up.
    ///
    /// # Errors
    /// There is none of that name, it is no spare, or it is in use.
    pub fn remove_spare(&self, name: &str) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        let position = check_free_spare(&members, name)?;
        let gone = members.spares.remove(position);
        for used in members.spare_of.iter_mut().flatten().filter(|used| **used > position) {
            *used -= 1;
        }
        if let Some(device) = gone.device.filter(|_| members.labelled()) {
            // It may be gone already.
            let _ = Extension::wipe(&*device);
        }
        self.amend(&mut header, members);
        Ok(())
    }

    /// Makes new labels on all components in use (`raidctl -I`). The counter stays.
    ///
    /// # Errors
    /// A component cannot take its label.
    pub fn init_labels(&self, serial_number: i32) -> Result<(), SetError> {
        self.journal_restart()?;
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
        self.amend(&mut header, members);
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
        self.rewrite_labels(&header)
    }

    /// Writes all labels anew without counting them up.
    fn rewrite_labels(&self, header: &Header) -> Result<(), SetError> {
        let mut members = (*self.members()).clone();
        let failed = self.write_labels(header, &mut members);
        let members = self.publish(members);
        match failed.first() {
            None => Ok(()),
            Some(&column) => Err(SetError::Unfit {
                name: members.columns[column].name.clone(),
                why: "its label cannot be written".to_owned(),
            }),
        }
    }

    /// Sets which unit the set is to be when it is configured by scanning (`raidctl -U`). The counter stays.
    ///
    /// # Errors
    /// A component is not optimal, or cannot take its label.
    pub fn set_last_unit(&self, unit: u32) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        self.may_set_last_unit()?;
        header.last_unit = unit;
        self.rewrite_labels(&header)
    }

    /// Whether a parity map is to be used from the next configuration on (`raidctl -M yes` and `no`).
    ///
    /// # Errors
    /// A component cannot take its label.
    pub fn set_map_enabled(&self, enabled: bool) -> Result<(), SetError> {
        let mut header = lock(&self.header);
        header.map_disabled = !enabled;
        self.rewrite_labels(&header)
    }

    /// Changes the parameters of the parity map (`raidctl -M set`); 0 leaves one as it is. Cooldown and tick count at once, the number of
    /// regions from the next configuration on; until then all regions count as dirty if the set is not unconfigured cleanly.
    ///
    /// # Errors
    /// A number is out of range, or a component cannot take its label.
    pub fn set_map_parameters(&self, cooldown: u32, tick_ms: u32, regions: u32) -> Result<(), SetError> {
        let new = lock(&self.header).map.with(cooldown, tick_ms, regions)?;
        let mut map = self.map.as_ref().map(lock);
        if let Some(map) = &mut map {
            map.set_timing(new.cooldown, new.tick_ms);
            lock(&self.header).map = new;
            // In the terms of the new number, before labels tell it.
            self.write_map(map);
        }
        let mut header = lock(&self.header);
        header.map = new;
        if self.map.as_ref().is_some() && regions != 0 {
            // What lost columns missed is counted in regions, too.
            header.missed.iter_mut().for_each(|missed| missed.regions = Bits::dirty(MAX_REGIONS));
            let members = self.members();
            self.write_extension(&mut header, &members);
        }
        self.rewrite_labels(&header)
    }

    /// The parity map as `raidctl -m` shows it, and whether there will be one after the next configuration. `None`: the set has
    /// no parity; `Some((None, _))`: its map is disabled.
    pub fn map_status(&self) -> Option<(Option<MapStatus>, bool)> {
        let enabled_next = !lock(&self.header).map_disabled;
        let status = self.map.as_ref().map(|map| {
            let map = lock(map);
            MapStatus {
                parameters: map.parameters(),
                region_sectors: map.region_stripes() * self.layout.stripe_sectors(),
                counters: map.counters(),
                bits: map.bits(),
            }
        });
        self.layout.redundant().then_some((status, enabled_next))
    }

    /// The parameters that the parity map has, or will have from the next configuration on.
    pub fn map_parameters(&self) -> crate::paritymap::Parameters {
        lock(&self.header).map
    }

    /// Milliseconds between two calls of [`RaidSet::tick`].
    pub fn tick_ms(&self) -> u32 {
        lock(&self.header).map.tick_ms
    }

    /// Whether free spares are to take the place of lost columns by themselves.
    pub fn autospare(&self) -> bool {
        lock(&self.header).autospare
    }

    /// Sets it. Whoever holds the set acts on it: see [`RaidSet::wants_spare`].
    pub fn set_autospare(&self, on: bool) {
        let mut header = lock(&self.header);
        header.autospare = on;
        let members = self.members();
        self.write_extension(&mut header, &members);
    }

    /// A column that is lost, although a spare is free and may take its place by itself.
    pub fn wants_spare(&self) -> Option<usize> {
        let members = self.members();
        let spare =
            members.spares.iter().any(|spare| spare.status == Status::Spare && spare.device.is_some());
        let free = spare || self.free_units_idle(&members);
        let idle = free && members.rebuild.is_none() && self.autospare();
        let mut columns = members.columns.iter();
        columns.position(|column| column.status == Status::Failed).filter(|_| idle)
    }

    /// A configuration file that makes the same set again (`raidctl -G`).
    pub fn config(&self) -> Config {
        let members = self.members();
        let parameters = lock(&self.header).parameters.clone();
        let names = |components: &[Component]| components.iter().map(|one| one.name.clone()).collect();
        Config {
            disks: names(&members.columns),
            spares: names(&members.spares),
            sectors_per_unit: parameters.sectors_per_unit,
            units_per_parity_unit: parameters.units_per_parity_unit,
            units_per_recon_unit: parameters.units_per_recon_unit,
            letter: parameters.level.letter(),
            queue_length: parameters.queue_length,
            design_files: Vec::new(),
            debug: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What the set is, apart from its components.
    pub fn parameters(&self) -> Parameters {
        lock(&self.header).parameters.clone()
    }

    /// Ends the use of the set (`raidctl -u`): everything is made durable and labels say whether the parity is right.
    ///
    /// # Errors
    /// A rebuild runs, or a component that the set cannot do without fails.
    pub fn unconfigure(&self) -> Result<(), SetError> {
        self.members().require_no_rebuild()?;
        self.open();
        self.close()
    }

    /// Ends the use of the set for now; it can be attached again, and a rebuild that runs goes on from here. Everything is made
    /// durable, and labels say whether the parity is right. Nobody may use the set any more.
    ///
    /// # Errors
    /// A component that the set cannot do without fails.
    pub fn close(&self) -> Result<(), SetError> {
        if !self.opened.load(Ordering::Acquire) {
            return Ok(());
        }
        self.flush()?;
        self.journal_reset()?;
        if self.members().rebuild.is_some() {
            self.rebuild_checkpoint()?;
        }
        if let Some(map) = &self.map {
            let mut map = lock(map);
            map.settle();
            self.write_map(&map);
        }
        let mut header = lock(&self.header);
        header.clean = self.parity_good.load(Ordering::Acquire);
        let members = (*self.members()).clone();
        self.commit(&mut header, members);
        self.opened.store(false, Ordering::Release);
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
