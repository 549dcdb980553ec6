//! What labels and extension areas say, and how changes of a set reach them.
//!
//! A change goes: new [`Members`] -> the extension areas, with the counter that the labels are about to get -> the labels.
//! Whoever cannot take its label is failed, which is another change.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::BlockDevice;

use super::RaidSet;
use super::known::{Known, KnownColumn, KnownRebuild, KnownSpare, Missed};
use super::locks::lock;
use super::members::{Component, Members, Status};
use super::spread::Spread;
use super::start::Parameters;
use crate::extension::{Extension, Role};
use crate::label::{ByteOrder, LABEL_OFFSET, Label, Version, label_area, map_flags};
use crate::paritymap::{Bits, Parameters as MapParameters};

/// What labels say that is not about their components.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) parameters: Parameters,
    pub(super) version: Version,
    pub(super) byte_order: ByteOrder,
    pub(super) serial_number: i32,
    pub(super) mod_counter: i32,
    pub(super) autoconfigure: u32,
    pub(super) root_partition: u32,
    pub(super) last_unit: u32,
    pub(super) clean: bool,
    /// What the next configuration is to use; the map in use may have another number of regions.
    pub(super) map: MapParameters,
    pub(super) map_disabled: bool,
    /// Times the extension areas were written.
    pub(super) sequence: u64,
    pub(super) autospare: bool,
    /// Sectors that the journal has behind the data of each component.
    pub(super) journal_sectors: u64,
    pub(super) missed: Vec<Missed>,
    /// All labels are known to have the counter.
    pub(super) caught_up: bool,
}

impl Header {
    /// A label for a column that is kept on `device`; none before the set has labels.
    pub(super) fn label(&self, set: &RaidSet, column: usize, device: &Arc<dyn BlockDevice>) -> Option<Label> {
        set.members().labelled().then(|| self.make_label(set, column, device))
    }

    pub(super) fn make_label(&self, set: &RaidSet, column: usize, device: &Arc<dyn BlockDevice>) -> Label {
        let layout = set.layout();
        let mut label = Label {
            version: self.version,
            byte_order: self.byte_order,
            serial_number: self.serial_number,
            mod_counter: 0,
            row: 0,
            column: column as u32,
            num_rows: 1,
            num_columns: layout.columns() as u32,
            clean: false,
            status: 0,
            sectors_per_unit: layout.unit(),
            units_per_parity_unit: self.parameters.units_per_parity_unit,
            units_per_recon_unit: self.parameters.units_per_recon_unit,
            parity_config: layout.level().letter().into(),
            max_outstanding: self.parameters.queue_length,
            block_size: set.sector_size(),
            num_blocks: layout.column_sectors(),
            partition_size: device.size().unwrap_or(0) / u64::from(set.sector_size()),
            map_mod_counter: 0,
            map_flags: 0,
            map_tick_ms: 0,
            map_cooldown: 0,
            map_regions: 0,
            future_use: [0; 28],
            autoconfigure: 0,
            root_partition: 0,
            last_unit: 0,
            config_order: 0,
            future_use2: [0; 42],
        };
        self.refresh(set, &mut label);
        label
    }

    /// Brings the fields that change up to date.
    fn refresh(&self, set: &RaidSet, label: &mut Label) {
        let disabled = if self.map_disabled { map_flags::DISABLE } else { 0 };
        label.mod_counter = self.mod_counter;
        label.map_mod_counter = self.mod_counter.cast_unsigned();
        label.clean = self.clean;
        label.status = 0;
        label.autoconfigure = self.autoconfigure;
        label.root_partition = self.root_partition;
        label.last_unit = self.last_unit;
        label.map_flags = set.map_flags() | disabled;
        label.map_tick_ms = self.map.tick_ms;
        label.map_cooldown = self.map.cooldown;
        label.map_regions = self.map.regions;
    }

    /// Whether a device is the one that this lost column was on and missed only what is known: a partial resync will do.
    pub(super) fn returned(&self, set: &RaidSet, column: usize, device: &Arc<dyn BlockDevice>) -> bool {
        let Some(missed) = self.missed.iter().find(|missed| missed.column == column) else { return false };
        let Ok(Ok(mut label)) = Label::read(&**device) else { return false };
        let sectors = device.size().unwrap_or(0) / u64::from(set.sector_size());
        label.fix_sizes(sectors).is_ok()
            && label.serial_number == self.serial_number
            && label.column as usize == column
            && label.mod_counter == missed.counter
            && label.num_columns as usize == set.layout().columns()
            && label.num_blocks == set.layout().column_sectors()
    }

    /// Whether the label on some device in use does not have the set's counter yet.
    fn lags(&self, members: &Members) -> bool {
        let whole = (0..members.columns.len()).filter_map(|column| members.whole(column));
        whole.filter(|component| component.label.is_some()).any(|component| {
            let stored = component.device.as_ref().map(|device| Label::read(&**device));
            !matches!(stored, Some(Ok(Ok(label))) if label.mod_counter == self.mod_counter)
        })
    }

    /// Brings what lost columns miss in line with the columns that are lost now. `in_doubt`: regions in which a write may not have
    /// reached all components yet; `counter`: that of the labels which newly lost components were left with.
    fn follow(&mut self, members: &Members, counter: i32, in_doubt: &Bits) {
        self.missed.retain(|missed| members.lost(missed.column));
        for column in 0..members.columns.len() {
            if members.lost(column) && !self.missed.iter().any(|missed| missed.column == column) {
                self.missed.push(Missed { column, counter, regions: in_doubt.clone() });
            }
        }
    }
}

impl RaidSet {
    /// Makes a new list of members the one that operations see.
    pub(super) fn publish(&self, members: Members) -> Arc<Members> {
        let members = Arc::new(members);
        let lost = (0..members.columns.len()).any(|column| members.lost(column));
        // Before anyone can see that a column is lost: from then on writes note what it misses.
        self.degraded.store(lost, Ordering::SeqCst);
        *self.members.write().unwrap_or_else(std::sync::PoisonError::into_inner) = members.clone();
        members
    }

    /// Publishes a change of the set and writes it to all labels with a new counter, so that whoever misses it is known to have.
    /// Components that cannot take their label are failed as well, as long as the set can do without them.
    pub(super) fn commit(&self, header: &mut Header, mut members: Members) {
        if !std::mem::replace(&mut header.caught_up, true) {
            let mut before = (*self.members()).clone();
            if header.lags(&before) {
                // A power cut has left some labels one step behind. They catch up first: after another cut they would be two
                // behind, which nothing undoes. Whoever cannot take its label now can't take it below either.
                self.write_labels(header, &mut before);
            }
        }
        loop {
            let before = header.mod_counter;
            header.mod_counter = before.wrapping_add(1);
            if (0..members.columns.len()).any(|column| members.lost(column)) {
                // Before it is looked which regions are being written: whoever begins to write one later notes it by itself.
                self.degraded.store(true, Ordering::SeqCst);
            }
            header.follow(&members, before, &lock(&self.on_disk));
            self.write_extension(header, &members);
            let failed = self.write_labels(header, &mut members);
            self.publish(members.clone());
            let survivable =
                |&column: &usize| self.layout.survives(|other| other == column || members.lost(other));
            match failed.into_iter().find(survivable) {
                Some(column) => {
                    let name = members.columns[column].name.clone();
                    self.fail_member(&mut members, column, || {
                        format!("the label of {name} cannot be written")
                    });
                }
                None => break,
            }
        }
    }

    /// Publishes a change that labels do not tell of.
    pub(super) fn amend(&self, header: &mut Header, members: Members) {
        self.write_extension(header, &members);
        self.publish(members);
    }

    /// Takes the label away from a device that is about to be filled, or whose column another one has from now on, if that
    /// label could be taken for the column's after a restart: two devices would be it, and only one is up to date.
    pub(super) fn disown(&self, header: &Header, device: &Arc<dyn BlockDevice>) {
        let Ok(Ok(label)) = Label::read(&**device) else { return };
        let members = self.members();
        let status = members.columns.get(label.column as usize).map(|component| component.status);
        let in_use = matches!(status, Some(Status::Optimal | Status::Spared));
        let behind = header.mod_counter.wrapping_sub(label.mod_counter);
        // One behind catches up after a power cut, if its column is in use.
        if label.serial_number == header.serial_number && (behind <= 0 || behind == 1 && in_use) {
            let nothing = vec![0; label_area(self.sector_size())];
            // One that can't be written can't be filled either.
            let _ = device.write(LABEL_OFFSET, &nothing).and_then(|()| device.flush());
        }
    }

    /// Writes the labels of all columns in use that have one. Returns the columns where that failed.
    pub(super) fn write_labels(&self, header: &Header, members: &mut Members) -> Vec<usize> {
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

    /// Writes the extension areas of all devices in use and of spares. A set without labels has none. A device that cannot take it
    /// keeps an older one, which does not count beside the others.
    pub(super) fn write_extension(&self, header: &mut Header, members: &Members) {
        if !members.labelled() {
            return;
        }
        header.sequence += 1;
        let mut extension = Extension {
            sequence: header.sequence,
            serial_number: header.serial_number,
            mod_counter: header.mod_counter,
            role: Role::Column(0),
            known: self.known_of(header, members),
        };
        let mut write = |role: Role, device: Option<&Arc<dyn BlockDevice>>| {
            let Some(device) = device else { return };
            extension.role = role;
            // What matters is that one device has it; one that fails is found out by the next write of data.
            let _ = extension.write(&**device).and_then(|()| device.flush());
        };
        for column in 0..members.columns.len() {
            let whole = members.whole(column).and_then(|component| component.device.as_ref());
            write(Role::Column(column as u8), whole);
        }
        for (index, spare) in
            members.spares.iter().enumerate().filter(|(_, spare)| spare.status == Status::Spare)
        {
            write(Role::Spare(index as u8), spare.device.as_ref());
        }
        if let Some(rebuild) = members.rebuild.as_ref().filter(|rebuild| rebuild.spread != Spread::Into) {
            write(Role::Column(rebuild.column as u8), Some(&rebuild.target));
        }
    }

    /// What a remembered or an extension area is to say.
    fn known_of(&self, header: &Header, members: &Members) -> Known {
        let column = |(column, component): (usize, &Component)| KnownColumn {
            name: component.name.clone(),
            status: component.status,
            stamp: members
                .whole(column)
                .and_then(|whole| whole.label.as_ref())
                .map(|label| (label.serial_number, label.column)),
        };
        let spare = |(index, component): (usize, &Component)| KnownSpare {
            name: component.name.clone(),
            status: component.status,
            column: members.spare_of.iter().position(|spare| *spare == Some(index)),
        };
        Known {
            columns: members.columns.iter().enumerate().map(column).collect(),
            spares: members.spares.iter().enumerate().map(spare).collect(),
            rebuild: members.rebuild.as_ref().map(|rebuild| KnownRebuild {
                kind: rebuild.kind,
                column: rebuild.column,
                spare: members.spare_of[rebuild.column],
                free_units: rebuild.spread == Spread::Into,
                partial: rebuild.partial,
                rows: rebuild.durable.load(Ordering::Acquire),
            }),
            parity_good: self.parity_good(),
            autospare: header.autospare,
            journal_sectors: header.journal_sectors,
            missed: header.missed.clone(),
            design: self.layout().level().design().cloned(),
        }
    }

    /// What is known about the set now, to remember it by.
    pub fn known(&self) -> Known {
        let header = lock(&self.header);
        self.known_of(&header, &self.members())
    }
}
