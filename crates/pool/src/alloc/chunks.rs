//! Making and dropping chunks.

use super::plan::{ChunkPlan, Purpose};
use crate::chunk::{BitmapAnchor, COLUMN_HEADER, Chunk, Class, Column, Placement, Stale};
use crate::core::Core;
use crate::error::{PoolError, Result};
use crate::space::{DataSpace, NodeSpace};
use crate::types::{DeviceId, GroupId, Logical, Txg};

/// Chunks begin at multiples of this, bytes.
const ADDRESS_STEP: u64 = 1 << 20;

impl Core {
    /// Makes a chunk of the group.
    ///
    /// # Errors
    /// [`PoolError::NoSpace`] when its devices have no room for one.
    pub(crate) fn make_chunk(&mut self, group: GroupId, purpose: Purpose) -> Result<Logical> {
        let plan = self.plan_chunk(group, purpose, None).ok_or(PoolError::NoSpace)?;
        self.make_planned(group, purpose, &plan)
    }

    /// Makes it as planned.
    pub(crate) fn make_planned(
        &mut self,
        group: GroupId,
        purpose: Purpose,
        plan: &ChunkPlan,
    ) -> Result<Logical> {
        let mut columns = Vec::with_capacity(plan.columns.len());
        for homes in &plan.columns {
            let mut column = Column::default();
            for &id in homes {
                let Some(placement) = self.new_placement(id, plan.column_bytes, Stale::NONE) else {
                    columns.push(column);
                    self.drop_columns(&columns, plan.column_bytes, false);
                    return Err(PoolError::NoSpace);
                };
                column.placements.push(placement);
            }
            columns.push(column);
        }
        let address = Logical(self.next_address);
        let chunk = Chunk {
            address,
            class: purpose.class(),
            group,
            layout: plan.layout,
            column_bytes: plan.column_bytes,
            columns,
            used: 0,
            birth: self.txg,
            bitmap: BitmapAnchor::default(),
            closed: false,
        };
        self.next_address = chunk.end().0.next_multiple_of(ADDRESS_STEP);
        match purpose {
            Purpose::Data | Purpose::Remainder => {
                self.data.insert(address, DataSpace::new(chunk.length(), chunk.grain()));
            }
            Purpose::Metadata | Purpose::System => {
                self.nodes.insert(address, NodeSpace::new(chunk.length()));
            }
        }
        self.new_headers.push(address);
        self.map.insert(chunk);
        Ok(address)
    }

    /// A new home for a column of so many bytes on a device; `None` when it has no room.
    pub(crate) fn new_placement(
        &mut self,
        id: DeviceId,
        column_bytes: u64,
        stale: Stale,
    ) -> Option<Placement> {
        let generation = self.txg;
        self.space_changed();
        let device = self.devices.get_mut(&id)?;
        let offset = device.free.allocate(column_bytes + COLUMN_HEADER, 0)?;
        Some(Placement { device: id, offset, generation, stale })
    }

    /// Gives columns back to their devices: at once when no committed root names them.
    fn drop_columns(&mut self, columns: &[Column], column_bytes: u64, committed: bool) {
        for placement in columns.iter().flat_map(|column| &column.placements) {
            self.drop_placement(placement, column_bytes, committed);
        }
    }

    /// Gives one placement back to its device.
    pub(crate) fn drop_placement(&mut self, placement: &Placement, column_bytes: u64, committed: bool) {
        let txg = self.txg;
        if let Some(device) = self.devices.get_mut(&placement.device) {
            let range = (placement.offset, column_bytes + COLUMN_HEADER);
            if committed {
                device.deferred.push(txg, range);
            } else {
                device.give_back(range.0, range.1);
            }
            self.space_changed();
        }
    }

    /// Gives back the placements of a chunk that `which` tells, with their columns, but never all of a column; whether there
    /// were any.
    pub(crate) fn drop_placements(
        &mut self,
        address: Logical,
        which: impl Fn(&Self, u16, &Placement) -> bool,
    ) -> bool {
        let Some(chunk) = self.map.get(address) else { return false };
        let (column_bytes, mut columns) = (chunk.column_bytes, chunk.columns.clone());
        let mut dropped = Vec::new();
        for (index, column) in (0..).zip(&mut columns) {
            let (gone, staying): (Vec<Placement>, Vec<Placement>) =
                column.placements.iter().copied().partition(|placement| which(self, index, placement));
            if !staying.is_empty() {
                column.placements = staying;
                dropped.extend(gone);
            }
        }
        if dropped.is_empty() {
            return false;
        }
        if let Some(chunk) = self.map.change(address) {
            chunk.columns = columns;
        }
        for placement in dropped {
            self.drop_placement(&placement, column_bytes, true);
        }
        true
    }

    /// Drops a chunk in which no importable root knows anything.
    ///
    /// The place of a data chunk is free at once: roots that still name the chunk know of nothing in it. That of other
    /// chunks waits until none names it, as the bitmap there saves a walk of all trees.
    pub(crate) fn drop_chunk(&mut self, address: Logical) {
        if let Some(chunk) = self.map.remove(address) {
            if self.is_sabotaged("table-early") {
                self.remaps.forget(chunk.address, chunk.length());
            }
            self.drop_columns(&chunk.columns, chunk.column_bytes, chunk.class != Class::Data);
            self.data.remove(&address);
            self.nodes.remove(&address);
            let now = self.now();
            let message = format!("reclaiming chunk {address}: it is empty ({})", chunk.class.name());
            self.events.push(now, "reclaim", None, message);
        }
    }

    /// Lets space be used again that no root from `oldest` on knows.
    pub(crate) fn release(&mut self, oldest: Txg) {
        for space in self.nodes.values_mut() {
            space.release(oldest);
        }
        for space in self.data.values_mut() {
            space.release(oldest);
        }
        let mut any = false;
        for device in self.devices.values_mut() {
            for (offset, length) in device.deferred.release(oldest) {
                device.give_back(offset, length);
                any = true;
            }
        }
        if any {
            self.space_changed();
        }
    }
}
