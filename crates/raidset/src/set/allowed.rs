//! Whether something can be done with a set: what changes ask before they change anything, also for those who only want to know.

use super::RaidSet;
use super::admin::SetError;
use super::locks::lock;
use super::members::{Members, Status};
use super::start::Slot;
use crate::config::MAX_SPARES;

impl RaidSet {
    /// Asks what [`RaidSet::fail_column`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_fail(&self, column: usize) -> Result<(), SetError> {
        self.check_fail(&self.members(), column)
    }

    pub(super) fn check_fail(&self, members: &Members, column: usize) -> Result<(), SetError> {
        let component = members.columns.get(column).ok_or(SetError::NoColumn { column })?;
        if self.layout.survives(|other| other == column || members.lost(other)) {
            return Ok(());
        }
        let others = (0..members.columns.len()).filter(|&other| other != column && members.lost(other));
        let lost = others.map(|other| members.columns[other].name.clone()).collect();
        Err(SetError::Needed { name: component.name.clone(), lost })
    }

    /// Whether a column can be rebuilt, apart from what it is rebuilt on. One that works is to be failed for it.
    pub(super) fn check_rebuild(
        &self,
        members: &Members,
        column: usize,
        in_place: bool,
    ) -> Result<(), SetError> {
        members.require_no_rebuild()?;
        match members.columns.get(column).map(|component| component.status) {
            None => Err(SetError::NoColumn { column }),
            Some(Status::Failed) => Ok(()),
            Some(Status::Optimal) => self.check_fail(members, column),
            // It leaves the free units, and is incomplete until it has.
            Some(Status::Spared) if in_place && members.spread(column) => self.check_fail(members, column),
            Some(status) => Err(SetError::Status { name: members.columns[column].name.clone(), status }),
        }
    }

    /// Asks what [`RaidSet::reconstruct_to_spare`] asks. The name of the spare that it would take.
    ///
    /// # Errors
    /// As there.
    pub fn may_reconstruct_to_spare(&self, column: usize) -> Result<String, SetError> {
        let members = self.members();
        // The spare that a rebuild fills is not free: what stands against this is the rebuild.
        members.require_no_rebuild()?;
        let free = |status, there| status == Status::Spare && there;
        let spare = members.spares.iter().find(|spare| free(spare.status, spare.device.is_some()));
        let name = match spare {
            Some(spare) => spare.name.clone(),
            None if self.free_units_idle(&members) => "the free units of the others".to_owned(),
            None => return Err(SetError::NoSpare),
        };
        self.check_rebuild(&members, column, false).map(|()| name)
    }

    /// Asks what [`RaidSet::reconstruct_in_place`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_reconstruct_in_place(
        &self,
        column: usize,
        replacement: Option<&Slot>,
    ) -> Result<(), SetError> {
        let members = self.members();
        let component = members.columns.get(column).ok_or(SetError::NoColumn { column })?;
        match replacement {
            Some(slot) => self.check_device(slot)?,
            None => {
                self.check_device(&Slot { name: component.name.clone(), device: component.device.clone() })?
            }
        };
        self.check_rebuild(&members, column, true)
    }

    /// Asks what [`RaidSet::copyback`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_copy_back(&self, column: usize) -> Result<(), SetError> {
        let members = self.members();
        let component = members.columns.get(column).cloned().ok_or(SetError::NoColumn { column })?;
        if component.status != Status::Spared {
            return Err(SetError::Status { name: component.name, status: component.status });
        }
        self.check_device(&Slot { name: component.name, device: component.device })?;
        if members.spread(column) {
            return self.check_rebuild(&members, column, true);
        }
        members.require_no_rebuild()
    }

    /// Asks what [`RaidSet::add_spare`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_add_spare(&self, slot: &Slot) -> Result<(), SetError> {
        self.check_device(slot)?;
        check_new_spare(&self.members(), &slot.name)
    }

    /// Asks what [`RaidSet::remove_spare`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_remove_spare(&self, name: &str) -> Result<(), SetError> {
        check_free_spare(&self.members(), name).map(drop)
    }

    /// Asks what [`RaidSet::set_last_unit`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_set_last_unit(&self) -> Result<(), SetError> {
        match self.members().columns.iter().find(|column| column.status != Status::Optimal) {
            Some(other) => Err(SetError::Status { name: other.name.clone(), status: other.status }),
            None => Ok(()),
        }
    }

    /// Asks what [`RaidSet::set_map_parameters`] asks.
    ///
    /// # Errors
    /// As there.
    pub fn may_set_map_parameters(&self, cooldown: u32, tick_ms: u32, regions: u32) -> Result<(), SetError> {
        lock(&self.header).map.with(cooldown, tick_ms, regions)?;
        Ok(())
    }

    /// Asks what [`RaidSet::rewrite_parity`] asks.
    ///
    /// # Errors
    /// A component is lost.
    pub fn may_rewrite_parity(&self) -> Result<(), SetError> {
        if self.layout.redundant() { self.require_whole() } else { Ok(()) }
    }
}

/// Whether a spare can be added under a name.
pub(super) fn check_new_spare(members: &Members, name: &str) -> Result<(), SetError> {
    if members.spares.len() >= usize::from(MAX_SPARES) {
        return Err(SetError::TooManySpares);
    }
    let mut components = members.columns.iter().chain(&members.spares);
    if components.any(|component| component.name == name) {
        let why = "it is part of the set already".to_owned();
        return Err(SetError::Unfit { name: name.to_owned(), why });
    }
    Ok(())
}

/// Which spare a name means, if it can be removed.
pub(super) fn check_free_spare(members: &Members, name: &str) -> Result<usize, SetError> {
    let name = || name.to_owned();
    let Some(position) = members.spares.iter().position(|spare| spare.name == name()) else {
        let is_column = members.columns.iter().any(|component| component.name == name());
        return Err(if is_column {
            SetError::NotSpare { name: name() }
        } else {
            SetError::NoComponent { name: name() }
        });
    };
    match members.spares[position].status {
        status @ Status::UsedSpare => Err(SetError::Status { name: name(), status }),
        _ => Ok(position),
    }
}
