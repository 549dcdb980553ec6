//! What takes long: reconstruction, copyback, parity check and rewrite. Each advances in steps of the caller's size, between
//! and during which the set is used as ever; a step that was done need not be done again if its cursor is kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{BlockDevice, DeviceError};

use super::RaidSet;
use super::admin::SetError;
use super::locks::lock;
use super::members::{Component, Members, Rebuild, RebuildKind, Status, same};
use super::spread::Spread;
use super::start::Slot;
use crate::label::map_flags;

/// How far something has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Units of work done.
    pub done: u64,
    /// Units of work in all.
    pub total: u64,
}

impl Progress {
    /// Whether nothing is left to do.
    pub const fn finished(self) -> bool {
        self.done >= self.total
    }

    /// Rounded down; 100 if there is nothing to do.
    pub fn percent(self) -> u64 {
        if self.finished() { 100 } else { (u128::from(self.done) * 100 / u128::from(self.total)) as u64 }
    }
}

/// A rebuild that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// What it did.
    pub kind: RebuildKind,
    /// The component that it was to make.
    pub name: String,
    /// Why it could not go on.
    pub why: String,
}

/// A column that is to be rebuilt must be lost, and be the only one.
fn require_lost(members: &Members, column: usize) -> Result<(), SetError> {
    members.require_no_rebuild()?;
    match &members.columns[column] {
        lost if lost.status == Status::Failed => Ok(()),
        other => Err(SetError::Status { name: other.name.clone(), status: other.status }),
    }
}

impl RaidSet {
    /// Begins to rebuild a lost column on the first free spare (`raidctl -F`), or, on level `R` and if there is none, in the free units of
    /// the other columns. A column that works is failed first.
    ///
    /// # Errors
    /// There is no free spare, a rebuild is running, or the set cannot do without the column.
    pub fn reconstruct_to_spare(&self, column: usize) -> Result<(), SetError> {
        let free = |members: &Members| {
            let mut free = members.spares.iter().filter(|spare| spare.status == Status::Spare);
            free.find_map(|spare| spare.device.clone()).ok_or(SetError::NoSpare)
        };
        self.may_reconstruct_to_spare(column)?;
        self.fail_for_rebuild(column, false)?;
        self.open();
        let Ok(target) = free(&self.members()) else { return self.reconstruct_to_free_units(column) };
        let _joining = self.journal_join(column, &target)?;
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        require_lost(&members, column)?;
        let still_free = |spare: &Component| {
            spare.status == Status::Spare && spare.device.as_ref().is_some_and(|device| same(device, &target))
        };
        let spare = members.spares.iter().position(still_free).ok_or(SetError::NoSpare)?;
        self.disown(&header, &target);
        members.spares[spare].status = Status::UsedSpare;
        members.spare_of[column] = Some(spare);
        members.columns[column].status = Status::Reconstructing;
        members.rebuild = Some(Arc::new(Rebuild::new(RebuildKind::Reconstruction, column, target)));
        self.amend(&mut header, members);
        Ok(())
    }

    /// Begins to rebuild a column in place (`raidctl -R`), on its device or, if `replacement` is given, on that. The first
    /// `rows_done` rows are taken to be right already: only what a checkpoint of the same rebuild said, with nothing written to
    /// the set since.
    ///
    /// # Errors
    /// The device is missing, too small or of another sector size, a rebuild is running, or the set cannot do without the
    /// column.
    pub fn reconstruct_in_place(
        &self,
        column: usize,
        replacement: Option<Slot>,
        rows_done: u64,
    ) -> Result<(), SetError> {
        let slot = if let Some(slot) = replacement {
            slot
        } else {
            let members = self.members();
            let component = members.columns.get(column).ok_or(SetError::NoColumn { column })?;
            Slot { name: component.name.clone(), device: component.device.clone() }
        };
        let target = self.check_device(&slot)?;
        self.fail_for_rebuild(column, true)?;
        self.open();
        let _joining = self.journal_join(column, &target)?;
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        let spread = if members.spread(column) { Spread::From } else { Spread::No };
        match spread {
            Spread::From => self.check_rebuild(&members, column, true)?,
            _ => require_lost(&members, column)?,
        }
        members.columns[column].name = slot.name;
        members.columns[column].device = Some(target.clone());
        members.columns[column].status = Status::Reconstructing;
        let done = rows_done.min(self.layout.rows());
        let partial = self.map.is_some() && header.returned(self, column, &target);
        self.disown(&header, &target);
        let rebuild = Rebuild::new(RebuildKind::Reconstruction, column, target).done(done);
        members.rebuild = Some(Arc::new(Rebuild { partial, spread, ..rebuild }));
        self.amend(&mut header, members);
        Ok(())
    }

    /// Begins to copy a spare back to the component that it replaces (`raidctl -B`). What is in the free units is rebuilt in place.
    ///
    /// # Errors
    /// No spare replaces it, its device is missing, or a rebuild is running.
    pub fn copyback(&self, column: usize) -> Result<(), SetError> {
        self.may_copy_back(column)?;
        if self.members().spread(column) {
            return self.reconstruct_in_place(column, None, 0);
        }
        self.open();
        let component = self.members().columns[column].clone();
        let target = self.check_device(&Slot { name: component.name, device: component.device })?;
        let _joining = self.journal_join(column, &target)?;
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        let component = &members.columns[column];
        if component.status != Status::Spared {
            return Err(SetError::Status { name: component.name.clone(), status: component.status });
        }
        members.require_no_rebuild()?;
        self.disown(&header, &target);
        members.rebuild = Some(Arc::new(Rebuild::new(RebuildKind::Copyback, column, target)));
        self.amend(&mut header, members);
        Ok(())
    }

    fn fail_for_rebuild(&self, column: usize, in_place: bool) -> Result<(), SetError> {
        let members = self.members();
        self.check_rebuild(&members, column, in_place)?;
        match members.columns[column].status {
            Status::Optimal => self.fail_column(column),
            _ => Ok(()),
        }
    }

    /// The rebuild that is under way and how many rows it has done.
    pub fn rebuild_progress(&self) -> Option<(RebuildKind, usize, Progress)> {
        let members = self.members();
        let rebuild = members.rebuild.as_ref()?;
        let done = rebuild.rows.load(Ordering::Acquire);
        Some((rebuild.kind, rebuild.column, Progress { done, total: self.layout.rows() }))
    }

    /// Makes what a rebuild has done so far durable, and says how many rows that is.
    ///
    /// # Errors
    /// The target fails; the rebuild goes on from where it was.
    pub fn rebuild_checkpoint(&self) -> Result<u64, SetError> {
        let members = self.members();
        let rebuild = members.rebuild.as_ref().ok_or(SetError::NoRebuild)?;
        let rows = rebuild.rows.load(Ordering::Acquire);
        rebuild.target.flush()?;
        rebuild.durable.store(rows, Ordering::Release);
        let members = members.clone();
        self.write_extension(&mut lock(&self.header), &members);
        Ok(rows)
    }

    /// Whether the rebuild that runs does only what the column missed.
    pub fn rebuild_is_partial(&self) -> bool {
        self.members().rebuild.as_ref().is_some_and(|rebuild| rebuild.partial)
    }

    /// Rebuilds up to `rows` more rows, and finishes the rebuild if they are the last. One caller at a time.
    ///
    /// # Errors
    /// There is none, or it had to be given up: something cannot be read, or the target not be written.
    pub fn rebuild_step(&self, rows: u64) -> Result<Progress, SetError> {
        let rebuild = self.members().rebuild.clone().ok_or(SetError::NoRebuild)?;
        self.open();
        let total = self.layout.rows();
        let mut left = rows;
        while left > 0 && rebuild.rows.load(Ordering::Acquire) < total {
            match self.rebuild_rows(&rebuild, left) {
                Ok(done) => left -= done,
                Err(error) => return Err(self.give_up(&rebuild, error)),
            }
            // A write may have failed the target meanwhile.
            if self.members().rebuild.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &rebuild)) {
                return Err(SetError::NoRebuild);
            }
        }
        let progress = Progress { done: rebuild.rows.load(Ordering::Acquire), total };
        if progress.finished() {
            rebuild.target.flush().map_err(|error| self.give_up(&rebuild, error))?;
            self.finish_rebuild(&rebuild)?;
        }
        Ok(progress)
    }

    /// Ends a rebuild that cannot go on, and returns why.
    fn give_up(&self, rebuild: &Arc<Rebuild>, error: DeviceError) -> SetError {
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        if members.rebuild.as_ref().is_some_and(|now| Arc::ptr_eq(now, rebuild)) {
            self.abandon(&mut members, error.to_string());
            self.commit(&mut header, members);
        }
        error.into()
    }

    /// Takes the rebuild that is under way from the members, and keeps why for [`RaidSet::take_abandoned`].
    pub(super) fn abandon(&self, members: &mut Members, why: String) {
        if let Some(rebuild) = &members.rebuild {
            let name = members.columns[rebuild.column].name.clone();
            *lock(&self.abandoned) = Some(Abandoned { kind: rebuild.kind, name, why });
        }
        members.abort_rebuild();
    }

    /// Fails a column, and with it the rebuild of it that may be under way.
    pub(super) fn fail_member(&self, members: &mut Members, column: usize, why: impl FnOnce() -> String) {
        if members.rebuild.as_ref().is_some_and(|rebuild| rebuild.column == column) {
            self.abandon(members, why());
        }
        members.fail(column);
    }

    /// The rebuild that was given up since this was asked last: in a step of it, or by a write that its target did not take.
    pub fn take_abandoned(&self) -> Option<Abandoned> {
        lock(&self.abandoned).take()
    }

    /// The rebuilt device is the column from now on, with a label like those of the others.
    ///
    /// # Errors
    /// It cannot take what makes it one, and the rebuild is given up.
    fn finish_rebuild(&self, rebuild: &Arc<Rebuild>) -> Result<(), SetError> {
        if rebuild.spread == Spread::Into {
            return self.finish_spreading(rebuild);
        }
        // The map goes first: its label will say that there is one.
        if let Some(map) = &self.map {
            let map = lock(map);
            self.write_map_to(&map, &rebuild.target);
        }
        let mut joining = None;
        if rebuild.kind == RebuildKind::Copyback {
            // Records of rows that the target did not have yet must not wait for it to have them.
            match self.journal_take_over(rebuild.column, &rebuild.target) {
                Ok(now) => joining = Some(now),
                Err(error) => return Err(self.give_up(rebuild, error)),
            }
        }
        let mut header = lock(&self.header);
        let mut members = (*self.members()).clone();
        if members.rebuild.as_ref().is_none_or(|now| !Arc::ptr_eq(now, rebuild)) {
            return Err(SetError::NoRebuild);
        }
        members.rebuild = None;
        let column = rebuild.column;
        let label = header.label(self, column, &rebuild.target);
        // With the counter as it is: after a power cut between the extension areas and the labels below, which then say that the
        // column is here, it must be found here.
        if let Some(label) = &label
            && let Err(error) = label.write(&*rebuild.target).and_then(|()| rebuild.target.flush())
        {
            drop((header, joining));
            return Err(self.give_up(rebuild, error));
        }
        let mut freed = None;
        match (rebuild.kind, members.spare_of[column]) {
            (RebuildKind::Reconstruction, Some(spare)) => {
                members.columns[column].status = Status::Spared;
                members.spares[spare].label = label;
            }
            (_, spare) => {
                members.columns[column].status = Status::Optimal;
                members.columns[column].label = label;
                if let Some(spare) = spare {
                    members.spare_of[column] = None;
                    members.spares[spare].status = Status::Spare;
                    freed.clone_from(&members.spares[spare].device);
                }
            }
        }
        self.commit(&mut header, members);
        // Not before the components know that the column is elsewhere: until then it is found here.
        if let Some(device) = freed {
            self.disown(&header, &device);
        }
        Ok(())
    }

    /// Checks, and with `repair` corrects, the parity of up to `stripes` stripes from `*cursor` on; the data is taken to be
    /// right. Returns how many did not match.
    ///
    /// # Errors
    /// A component is lost, or data cannot be read. The cursor stands at the stripe in question.
    pub fn check_parity(&self, cursor: &mut u64, stripes: u64, repair: bool) -> Result<u64, SetError> {
        self.require_whole()?;
        let mut wrong = 0;
        let end = cursor.saturating_add(stripes).min(self.layout.stripes());
        while *cursor < end {
            wrong += self.check_whole_stripes(cursor, end, repair)?;
        }
        if repair && wrong > 0 {
            self.journal_reset()?;
        }
        Ok(wrong)
    }

    /// Checks stripes; if a component is lost on the way, that is why it ends.
    fn check_whole_stripes(&self, cursor: &mut u64, end: u64, repair: bool) -> Result<u64, SetError> {
        let checked = self.check_stripes(cursor, end, repair);
        if checked.is_err() {
            self.require_whole()?;
        }
        Ok(checked?)
    }

    pub(super) fn require_whole(&self) -> Result<(), SetError> {
        let members = self.members();
        match (0..self.layout.columns()).find(|&column| members.lost(column)) {
            Some(column) => Err(SetError::Degraded { name: members.columns[column].name.clone() }),
            None => Ok(()),
        }
    }

    /// Rewrites the parity of up to `stripes` stripes from `*cursor` on (`raidctl -i`, `-P`), leaving out regions that the parity
    /// map knows to be clean. Start with 0; the parity is good once it has come to the end. After a restart the map still
    /// says what is left to do.
    ///
    /// # Errors
    /// A component is lost, or data cannot be read. The cursor stands at the stripe in question.
    pub fn rewrite_parity(&self, cursor: &mut u64, stripes: u64) -> Result<Progress, SetError> {
        let total = self.layout.stripes();
        self.open();
        if self.layout.redundant() {
            self.require_whole()?;
            let mut left = stripes;
            while left > 0 && *cursor < total {
                let mut end = total.min(cursor.saturating_add(left));
                if let Some(map) = &self.map {
                    let map = lock(map);
                    let region = map.region(*cursor);
                    let region_end = (u64::from(region) + 1).saturating_mul(map.region_stripes()).min(total);
                    if !map.needs_rewrite(region) {
                        *cursor = region_end;
                        continue;
                    }
                    end = end.min(region_end);
                }
                let before = *cursor;
                self.check_whole_stripes(cursor, end, true)?;
                left -= *cursor - before;
                self.region_done(*cursor)?;
            }
        } else {
            *cursor = total;
        }
        if *cursor >= total && !self.parity_good() {
            self.flush()?;
            self.require_whole()?;
            self.note_parity(true);
        }
        Ok(Progress { done: *cursor, total })
    }

    /// If a region ends before stripe `next`, it is clean from now on.
    fn region_done(&self, next: u64) -> Result<(), SetError> {
        let Some(map) = &self.map else { return Ok(()) };
        let mut map = lock(map);
        let region = map.region(next - 1);
        if next == self.layout.stripes() || map.region(next) != region {
            self.flush()?;
            // Records of before would bring back what was wrong.
            self.journal_reset()?;
            map.rewritten(region);
            self.write_map(&map);
        }
        Ok(())
    }

    /// What new labels say about the parity map: its parameters are kept while it is disabled.
    pub(super) fn map_flags(&self) -> u32 {
        match (&self.map, self.layout.redundant()) {
            (Some(_), _) => map_flags::VALID | map_flags::WAS_USED,
            (None, true) => map_flags::VALID,
            (None, false) => 0,
        }
    }
}
