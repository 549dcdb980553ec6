//! Devices of which the pool uses less, or more: as `btrfs filesystem resize` has it.
//!
//! What lies behind the new end is relocated like the chunks that a balance takes, and nothing new is put there meanwhile. Once no
//! importable root knows anything there, the device gets its new size: new labels are made where it ends then, and the old ones
//! cleared when every importable root knows the new size.

use super::Balance;
use crate::chunk::{COLUMN_HEADER, Chunk};
use crate::core::Relation;
use crate::error::{PoolError, Result};
use crate::label;
use crate::pool::Pool;
use crate::report::{Plan, ScanState, State};
use crate::spec::{Resize, Task};
use crate::txg::ROOTS_KEPT;
use crate::types::DeviceId;

impl Pool {
    /// What [`Pool::resize`] would do.
    ///
    /// # Errors
    /// As there.
    pub fn plan_resize(&mut self, name: &str, to: Resize) -> Result<Plan> {
        let (id, size) = self.check_resize(name, to)?;
        let plan = self.plan_resizing(id, size);
        self.lift_limit(id);
        plan.map(|(plan, _)| plan)
    }

    /// Has the pool use so much of a device. More is used at once; for less, what lies behind the new end is relocated first.
    ///
    /// # Errors
    /// The device is not there or in use otherwise, it is not as large, others have too little room for what it would give up,
    /// or another task is under way.
    pub fn resize(&mut self, name: &str, to: Resize) -> Result<Plan> {
        self.writable()?;
        self.commit()?;
        let (id, size) = self.check_resize(name, to)?;
        let (plan, total) = match self.plan_resizing(id, size) {
            Ok(planned) => planned,
            Err(error) => {
                self.lift_limit(id);
                return Err(error);
            }
        };
        if self.core.devices.get(&id).is_some_and(|device| device.size < size) {
            self.expand(id, size);
            self.commit()?;
            return Ok(plan);
        }
        self.core.current_data.clear();
        self.core.current_nodes.clear();
        self.begin_task(Task::Resize { device: id.0, size }, total)?;
        Ok(plan)
    }

    /// Uses what a device has grown by. The labels at its old end are left behind; new ones are written.
    pub(crate) fn expand(&mut self, id: DeviceId, size: u64) {
        let Some(device) = self.core.devices.get_mut(&id) else { return };
        let (old_end, new_end) = (label::data_end(device.size), label::data_end(size));
        // One that is to be smaller has its size when that is done.
        if new_end <= old_end || device.limit.is_some() {
            return;
        }
        device.free.insert(old_end, new_end - old_end);
        device.size = size;
        self.core.space_changed();
        self.core.dirty_devices.insert(id);
        self.core.labels_dirty = true;
        self.changed = true;
    }

    /// The device of that name and its new size, bytes.
    fn check_resize(&self, name: &str, to: Resize) -> Result<(DeviceId, u64)> {
        self.check_no_task()?;
        let id = self.device_named(name)?;
        let refused =
            |why: String| Err(PoolError::refused(format!("cannot resize {}: {why}", self.path_of(id))));
        let Some(device) = self.core.devices.get(&id) else { return refused("it is not there".to_owned()) };
        if !matches!(device.relation, Relation::Member(_)) {
            return refused("only devices of a vdev are resized".to_owned());
        }
        if !self.core.stand_ins(id).is_empty() {
            return refused("another device is taking its place; let that end first".to_owned());
        }
        let Some(handle) = device.open().filter(|_| device.state() != State::Faulted) else {
            return refused(format!("it is {}", device.state()));
        };
        let there = handle.size()?;
        let size = match to {
            Resize::Max => there,
            Resize::To(bytes) => bytes,
            Resize::By(bytes) => device.size.saturating_add_signed(bytes),
        };
        if size > there {
            return refused(format!("it has {there} bytes, and {size} are asked for"));
        }
        if size < label::DEVICE_BYTES_MIN {
            return refused(format!("a device has at least {} bytes, not {size}", label::DEVICE_BYTES_MIN));
        }
        let (now, then) = (label::data_end(device.size), label::data_end(size));
        if now == then {
            return refused(format!("the pool uses {} bytes of it already", device.size));
        }
        if then < now && now - then < label::TAIL_BYTES {
            return refused(format!("{} bytes are the least that it can be smaller by", label::TAIL_BYTES));
        }
        if then < now && self.property("autoexpand") == "on" {
            return refused(
                "autoexpand is on and would undo that; 'coffer set autoexpand=off' first".to_owned(),
            );
        }
        Ok((id, size))
    }

    /// What it comes to, and the bytes to relocate. The device is left with the limit that this takes.
    fn plan_resizing(&mut self, id: DeviceId, size: u64) -> Result<(Plan, u64)> {
        let path = self.path_of(id);
        let mut plan = Plan::default();
        let before = self.core.devices.get(&id).map_or(0, |device| device.size);
        plan.steps.push(format!("resize {path} from {before} to {size} bytes"));
        if size > before {
            return Ok((plan, 0));
        }
        if let Some(device) = self.core.devices.get_mut(&id) {
            device.limit_to(label::data_end(size));
        }
        self.core.space_changed();
        self.room_bytes = 0;
        let moved = self.check_room(|chunk| Self::is_behind(chunk, id, size))?;
        plan.steps.push(format!("relocate {moved} bytes from behind its new end first"));
        Ok((plan, moved))
    }

    /// Whether a chunk has anything on a device where that would end if it had this size.
    pub(super) fn is_behind(chunk: &Chunk, id: DeviceId, size: u64) -> bool {
        let end = label::data_end(size);
        chunk.placements().any(|(_, placement)| {
            placement.device == id && placement.offset + chunk.column_bytes + COLUMN_HEADER > end
        })
    }

    /// Nothing new goes behind the new end of a device that is being resized: after an import.
    pub(crate) fn renew_limit(&mut self) {
        let Some(Balance { task: Task::Resize { device, size }, .. }) = self.balance else { return };
        if self.has_task()
            && let Some(device) = self.core.devices.get_mut(&DeviceId(device))
        {
            device.limit_to(label::data_end(size));
        }
    }

    /// All of a device can be used again.
    pub(super) fn lift_limit(&mut self, id: DeviceId) {
        let Some(device) = self.core.devices.get_mut(&id) else { return };
        let Some(limit) = device.limit.take() else { return };
        device.free.insert(limit, label::data_end(device.size).saturating_sub(limit));
        let deferred: Vec<(u64, u64)> = device.deferred.iter().copied().collect();
        let placed = self.core.map.iter().flat_map(|chunk| {
            let on_it = chunk.placements().filter(|(_, placement)| placement.device == id);
            on_it.map(|(_, placement)| (placement.offset, chunk.column_bytes + COLUMN_HEADER))
        });
        for (offset, length) in placed.chain(deferred) {
            device.free.remove(offset, length);
        }
        self.core.space_changed();
        self.room_bytes = 0;
    }

    /// Everything that could be was relocated: gives the device its new size as soon as no importable root knows anything
    /// behind its new end.
    pub(super) fn shrink(&mut self, balance: &mut Balance, id: DeviceId, size: u64) -> Result<()> {
        let end = label::data_end(size);
        let is_in_use = |pool: &Self| {
            let deferred =
                pool.core.devices.get(&id).is_some_and(|device| {
                    device.deferred.iter().any(|(offset, length)| offset + length > end)
                });
            deferred || pool.core.map.iter().any(|chunk| Self::is_behind(chunk, id, size))
        };
        self.forget_roots_of(is_in_use)?;
        let Some(before) = self.core.devices.get(&id).map(|device| device.size) else {
            self.end_balance(balance, ScanState::Canceled, "the device left the pool");
            return Ok(());
        };
        let is_blank =
            !is_in_use(self) && self.make_blank(id, [label::label_at(size, 2), label::label_at(size, 3)]);
        if !is_blank {
            self.lift_limit(id);
            let trouble = if is_in_use(self) {
                format!("{} extents or nodes can't be read and stay where they are", balance.errors)
            } else {
                format!("{} can't be written", self.path_of(id))
            };
            self.end_balance(balance, ScanState::Canceled, &trouble);
            return Ok(());
        }
        if let Some(device) = self.core.devices.get_mut(&id) {
            device.size = size;
            device.limit = None;
        }
        self.core.dirty_devices.insert(id);
        self.core.labels_dirty = true;
        self.core.space_changed();
        // The first column tells where labels are to be looked for, should the first ones be lost.
        let first = |chunk: &&Chunk| {
            chunk
                .placements()
                .any(|(_, placement)| placement.device == id && placement.offset == label::DATA_START)
        };
        let first = self.core.map.iter().find(first).map(|chunk| chunk.address);
        self.core.new_headers.extend(first);
        self.end_balance(balance, ScanState::Finished, "");
        self.balance = Some(balance.clone());
        for _ in 0..ROOTS_KEPT {
            self.changed = true;
            self.commit()?;
        }
        // Whatever comes of it: these labels are older than the others.
        self.make_blank(id, [label::label_at(before, 2), label::label_at(before, 3)]);
        Ok(())
    }

    /// Zeros where labels are to be, or were; whether that could be done.
    fn make_blank(&mut self, id: DeviceId, labels: [u64; 2]) -> bool {
        let Some(handle) = self.core.devices.get(&id).and_then(|device| device.open().cloned()) else {
            return false;
        };
        let zeros = vec![0; label::LABEL_BYTES as usize];
        let written = labels.iter().try_for_each(|&at| handle.write(at, &zeros));
        match written.and_then(|()| handle.flush()) {
            Ok(()) => true,
            Err(error) => {
                self.core.device_failed(id, &error);
                false
            }
        }
    }
}
