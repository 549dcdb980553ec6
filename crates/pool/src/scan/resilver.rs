//! Resilver: stale regions become fresh.
//!
//! Chunk by chunk, region by region, all targets of a region at once. What is read for it is checked against the
//! checksums of the extents in the region (nodes carry their own), and healed first where it does not match. The
//! targets are flushed before the chunk map says that they are fresh.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::ops::{ControlFlow, Range};

use device::{Op, Request};
use geometry::ColumnSet;
use tree::{Expected, NODE_SIZE, Node};

use super::Progress;
use super::rebuild::{Look, Slice, clip};
use super::scrub::extent_is_right;
use crate::chunk::{Chunk, Class, Placement};
use crate::core::{Core, Device};
use crate::error::{PoolError, Result};
use crate::io::{Reading, Rows, Want, on_device};
use crate::pointer::{Extent, STORED_MAX};
use crate::pool::Pool;
use crate::report::ScanState;
use crate::txg::extent_key;
use crate::types::{DeviceId, Logical};

/// Which stale regions are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// All, but for those of columns that move.
    Resilver,
    /// Those of the columns of one chunk that move.
    Move(Logical),
}

/// What a step of that came to.
pub(crate) struct Filled {
    /// Bytes of regions that were gone through.
    pub(crate) done: u64,
    pub(crate) repaired: u64,
    /// Extents and nodes that can't be read.
    pub(crate) errors: u64,
    /// No region is fresh that was not before.
    pub(crate) stuck: bool,
}

/// What one region's rebuild came to.
#[derive(Default)]
struct Outcome {
    repaired: u64,
    errors: u64,
    /// Placements written in full: (column, device).
    fresh: Vec<(u16, DeviceId)>,
    /// Devices that were written to so that rows agree with what the targets got.
    beside: BTreeSet<DeviceId>,
}

/// Rows in which everything live is right.
struct Checked {
    rows: Rows,
    /// Units (row, column) that are not what their devices gave.
    changed: BTreeSet<(u64, u16)>,
}

impl Pool {
    /// Regions of the chunk that are stale on a device that works, and to be filled.
    pub(super) fn work_in(&self, chunk: &Chunk, filling: Filling) -> u32 {
        if matches!(filling, Filling::Move(of) if of != chunk.address) {
            return 0;
        }
        let targets: Vec<&Placement> = chunk
            .placements()
            .filter(|(_, placement)| !placement.stale.is_empty())
            .filter(|(column, placement)| self.is_filled(chunk, *column, placement, filling))
            .map(|(_, placement)| placement)
            .collect();
        if targets.is_empty() {
            return 0;
        }
        (0..chunk.regions())
            .map(|region| {
                (region, targets.iter().filter(|placement| placement.stale.contains(region)).count())
            })
            .filter(|&(region, count)| count > 0 && self.has_sources(chunk, region))
            .map(|(_, count)| count as u32)
            .sum()
    }

    /// Whether what is stale of a placement is to be filled.
    fn is_filled(&self, chunk: &Chunk, column: u16, placement: &Placement, filling: Filling) -> bool {
        let moves = filling != Filling::Resilver;
        self.core.usable(placement.device) && self.core.is_moving(chunk, column, placement) == moves
    }

    /// Whether the region can be rebuilt with the devices that are there; else it waits for others to come back.
    fn has_sources(&self, chunk: &Chunk, region: u32) -> bool {
        chunk.layout.redundancy(&self.core.gone_columns(chunk, region, &[])).is_some()
    }

    pub(crate) fn resilver_needed(&self) -> bool {
        self.core.map.iter().any(|chunk| self.work_in(chunk, Filling::Resilver) > 0)
    }

    fn resilver_left(&self) -> u64 {
        let bytes_in =
            |chunk: &Chunk| u64::from(self.work_in(chunk, Filling::Resilver)) * chunk.region_bytes();
        self.core.map.iter().map(bytes_in).sum()
    }

    /// Rebuilds about `budget` bytes of stale regions and commits.
    pub(super) fn resilver_step(&mut self, budget: u64) -> Result<()> {
        let now = self.core.now();
        let left = self.resilver_left();
        let running = self.scan.resilver.filter(|progress| progress.state == ScanState::Running);
        let mut progress = running.unwrap_or_else(|| {
            self.core.events.push(now, "resilver_start", None, "resilver started".to_owned());
            Progress::new(now, left)
        });
        progress.total = progress.done + left;
        let filled = self.fill_stale(Filling::Resilver, budget)?;
        progress.repaired += filled.repaired;
        progress.errors += filled.errors;
        progress.done += filled.done;
        progress.ran_ms += self.core.now().0.saturating_sub(now.0);
        progress.total = progress.done + self.resilver_left();
        self.scan.resilver = Some(progress);
        self.changed = true;
        self.commit()?;
        if filled.stuck && filled.done > 0 {
            // Targets that take nothing are faulted by their errors; until then do not spin on them.
            return Err(PoolError::refused("a resilver makes no progress: its targets can't be written"));
        }
        Ok(())
    }

    /// Rebuilds about `budget` bytes of stale regions; the commit that says so is the caller's.
    pub(crate) fn fill_stale(&mut self, filling: Filling, budget: u64) -> Result<Filled> {
        // What is dirty in memory must not be taken for missing: the trees tell what is live only after a commit.
        self.commit()?;
        let (slices, done) = self.slices(filling, budget)?;
        let mut filled = Filled { done, repaired: 0, errors: 0, stuck: true };
        let mut flushed: BTreeSet<DeviceId> = BTreeSet::new();
        let mut cleared: Vec<(Logical, u32, Outcome)> = Vec::new();
        let looks = self.rebuild_sound(&slices);
        for (slice, looks) in slices.iter().zip(looks) {
            let outcomes = if slice.chunk.class == Class::Data {
                self.rebuild_data(slice, looks)
            } else {
                let regions = slice.regions.clone();
                regions.map(|region| self.rebuild_nodes(&slice.chunk, region, &slice.targets)).collect()
            };
            for (region, mut outcome) in slice.regions.clone().zip(outcomes) {
                outcome.fresh.retain(|(_, device)| self.core.usable(*device));
                flushed.extend(outcome.fresh.iter().map(|(_, device)| *device).chain(outcome.beside.clone()));
                filled.repaired += outcome.repaired;
                filled.errors += outcome.errors;
                cleared.push((slice.chunk.address, region, outcome));
            }
        }
        let failed = if self.core.is_sabotaged("resilver-no-flush") {
            BTreeSet::new()
        } else {
            self.core.flush_these(&flushed)
        };
        // What can't be read stays where it is: perhaps it can be later.
        let stays = filling != Filling::Resilver && filled.errors > 0;
        let too_far = u32::from(self.core.is_sabotaged("job-too-far"));
        for (address, region, outcome) in cleared {
            if outcome.beside.iter().any(|device| failed.contains(device)) {
                continue;
            }
            let core = &mut self.core;
            let Some(chunk) = core.map.change(address) else { continue };
            if !outcome.beside.is_empty() {
                // Rows agree with those that are here; what the others hold of dead bytes may not any more.
                let away = |placement: &&mut Placement| {
                    !core.devices.get(&placement.device).is_some_and(Device::usable)
                };
                let columns = chunk.columns.iter_mut().flat_map(|column| &mut column.placements);
                for placement in columns.filter(away) {
                    placement.stale.insert(region);
                }
            }
            for (column, device) in outcome.fresh {
                if stays || failed.contains(&device) {
                    continue;
                }
                filled.stuck = false;
                for placement in &mut chunk.columns[usize::from(column)].placements {
                    if placement.device == device {
                        (region..=region + too_far).for_each(|region| placement.stale.remove(region));
                    }
                }
            }
        }
        self.changed = true;
        Ok(filled)
    }

    /// Notes the end of a resilver once nothing is stale any more.
    pub(super) fn end_resilver(&mut self) -> Result<()> {
        let now = self.core.now();
        let Some(progress) = &mut self.scan.resilver else { return Ok(()) };
        if progress.state != ScanState::Running {
            return Ok(());
        }
        progress.state = ScanState::Finished;
        progress.ended = now;
        progress.total = progress.done;
        let message = format!("resilvered {} bytes with {} errors", progress.repaired, progress.errors);
        self.core.events.push(now, "resilver_finish", None, message);
        self.changed = true;
        self.commit()
    }

    /// Extents that touch a range of rows: (offset in the chunk, extent), rising.
    pub(super) fn extents_in(&mut self, chunk: &Chunk, rows: &Range<u64>) -> Result<Vec<(u64, Extent)>> {
        let row_bytes = chunk.layout.row_bytes();
        let (from, to) = (rows.start * row_bytes, rows.end * row_bytes);
        // An extent that began before the range may reach into it.
        let first = from.saturating_sub(u64::from(STORED_MAX));
        let mut found = Vec::new();
        let (low, high) = (Logical(chunk.address.0 + first), Logical(chunk.address.0 + to - 1));
        self.extents.scan(&mut self.core, extent_key(low), extent_key(high), |key, value| {
            let extent = Extent::decode(value)?;
            let offset = key.offset - chunk.address.0;
            if offset + u64::from(extent.stored) > from {
                found.push((offset, extent));
            }
            Ok::<_, PoolError>(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Placements that are stale in a region and can be filled; none where there is nothing to fill them from.
    pub(super) fn targets_in(&self, chunk: &Chunk, region: u32, filling: Filling) -> Vec<(u16, Placement)> {
        let stale = chunk
            .placements()
            .filter(|(_, placement)| placement.stale.contains(region))
            .filter(|(column, placement)| self.is_filled(chunk, *column, placement, filling));
        let targets: Vec<_> = stale.map(|(column, placement)| (column, *placement)).collect();
        if targets.is_empty() || self.has_sources(chunk, region) { targets } else { Vec::new() }
    }

    /// Rebuilds data in neighbouring regions that have the same targets, after a first look; an outcome for each of them.
    fn rebuild_data(&mut self, slice: &Slice, looks: Vec<(Range<u64>, Look)>) -> Vec<Outcome> {
        let Slice { chunk, regions, targets, rows: slice, extents } = slice;
        let per_region = chunk.region_bytes() / u64::from(chunk.layout.unit());
        let mut outcomes: Vec<Outcome> = regions.clone().map(|_| Outcome::default()).collect();
        let mut failed: BTreeSet<(u32, DeviceId)> = BTreeSet::new();
        let (mut repaired, mut errors) = (0, 0);
        let mut runs = Vec::new();
        for (run, look) in looks {
            let reading = match look {
                Look::Written(results) => {
                    let touched = clip(&run, slice);
                    for ((_, placement), result) in targets.iter().zip(results) {
                        if let Err(error) = result {
                            self.core.device_failed(placement.device, &error);
                            let regions = touched.start / per_region..touched.end.div_ceil(per_region);
                            failed.extend(regions.map(|region| (region as u32, placement.device)));
                        } else {
                            repaired += (touched.end - touched.start) * u64::from(chunk.layout.unit());
                        }
                    }
                    continue;
                }
                Look::Failed(reading) => Some(reading),
                Look::Wrong => None,
            };
            runs.push((run, reading));
        }
        runs.reverse();
        while let Some((run, reading)) = runs.pop() {
            let touched = clip(&run, slice);
            let within: Vec<&(u64, Extent)> = extents
                .iter()
                .filter(|(offset, extent)| {
                    let rows = chunk.layout.rows_of(*offset, u64::from(extent.stored));
                    rows.start >= run.start && rows.end <= run.end
                })
                .collect();
            let in_regions = (touched.start / per_region) as u32..touched.end.div_ceil(per_region) as u32;
            let mut outcome = Outcome::default();
            let checked = self.checked_rows(chunk, &run, reading, &within, &mut outcome);
            errors += outcome.errors;
            let Some(Checked { rows, changed }) = checked else {
                if in_regions.clone().any(|region| !self.has_sources(chunk, region)) {
                    // A device went away meanwhile: these regions stay stale until it is back.
                    for (_, placement) in targets {
                        failed.extend(in_regions.clone().map(|region| (region, placement.device)));
                    }
                    continue;
                }
                // A bad spot takes only what lies on it: the same rows in the smallest runs that hold whole extents.
                let smaller = smallest_runs(chunk, &within);
                if smaller.len() > 1 {
                    runs.extend(smaller.into_iter().rev().map(|run| (run, None)));
                } else {
                    errors += 1;
                    for (offset, _) in within {
                        self.core.data_lost(Logical(chunk.address.0 + offset));
                    }
                }
                continue;
            };
            if !self.write_beside(chunk, &rows, touched.clone(), &changed, &mut outcome) {
                for (_, placement) in targets {
                    failed.extend(in_regions.clone().map(|region| (region, placement.device)));
                }
            }
            for device in self.write_targets(chunk, &rows, touched, targets, &mut outcome) {
                failed.extend(in_regions.clone().map(|region| (region, device)));
            }
            repaired += outcome.repaired;
            for region in in_regions {
                outcomes[(region - regions.start) as usize].beside.extend(&outcome.beside);
            }
            self.core.recycle(rows);
        }
        for (region, outcome) in regions.clone().zip(&mut outcomes) {
            let fresh = targets.iter().map(|(column, placement)| (*column, placement.device));
            outcome.fresh = fresh.filter(|(_, device)| !failed.contains(&(region, *device))).collect();
        }
        if let Some(first) = outcomes.first_mut() {
            (first.repaired, first.errors) = (repaired, errors);
        }
        outcomes
    }

    /// Columns to be read first: not those that only a device has that should be read last.
    pub(super) fn eager_columns(&self, chunk: &Chunk) -> ColumnSet {
        let all = ColumnSet::first(chunk.columns.len() as u16);
        all.iter().filter(|&column| !self.only_reluctant(chunk, column)).collect()
    }

    /// Reads rows, rebuilds what is missing, and makes sure that every extent in them matches its checksum. `reading`: an
    /// attempt at that, in which something failed.
    fn checked_rows(
        &mut self,
        chunk: &Chunk,
        run: &Range<u64>,
        reading: Option<Reading>,
        extents: &[&(u64, Extent)],
        outcome: &mut Outcome,
    ) -> Option<Checked> {
        let all = ColumnSet::first(chunk.columns.len() as u16);
        let mut rows = match reading {
            Some(reading) => self.core.end_rows(chunk, reading),
            None => self.core.read_rows(chunk, run.clone(), &self.eager_columns(chunk)),
        };
        let mut gone = rows.missing();
        if !rows.rebuild(chunk, &gone, &self.core.workers, &self.core.spare) {
            rows = self.core.read_rows(chunk, run.clone(), &all);
            gone = rows.missing();
            if !rows.rebuild(chunk, &gone, &self.core.workers, &self.core.spare) {
                return None;
            }
        }
        // Every copy counts: a target is filled from its own column where that can be read.
        let good =
            self.core.workers.map(extents, |(offset, extent)| extent_is_right(chunk, &rows, *offset, extent));
        let (sound, wrong): (Vec<_>, Vec<_>) = extents.iter().zip(good).partition(|(_, good)| *good);
        if wrong.is_empty() {
            // What is live is right. Dead bytes need not be, and parity protects the live bytes of other columns only
            // if it agrees with them.
            let live = extents.iter().map(|(offset, extent)| (*offset, u64::from(extent.stored)));
            let changed = rows.agree(chunk, live, &gone, |_| true).into_iter().collect();
            return Some(Checked { rows, changed: with_twins(chunk, changed) });
        }
        // What was used to rebuild was wrong itself: take the rows that make each extent right, and where two extents
        // of a row disagree about the rest of it, each extent's own bytes.
        let read = rows.clone();
        let mut healed: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut doubtful: BTreeSet<u64> = BTreeSet::new();
        for ((offset, extent), _) in wrong {
            let address = Logical(chunk.address.0 + offset);
            let want = Want { address, length: extent.stored, checksum: extent.checksum };
            if let Ok(right) = self.core.heal_rows(&want) {
                // Where there are copies, only the extent itself is known to be right in what was found.
                if chunk.has_parity() {
                    rows.adopt(&right, |_| true);
                }
                let bytes = right.logical(chunk, *offset, u64::from(extent.stored));
                healed.extend(bytes.map(|bytes| (*offset, bytes.into_owned())));
            } else {
                outcome.errors += 1;
                doubtful.extend(chunk.layout.rows_of(*offset, u64::from(extent.stored)));
            }
        }
        // Where something is still wrong, its row stays as it was found: more devices may come back and tell. Any other is what
        // was read, but for what is live, and for as little else as makes it agree.
        let mut near = read.clone();
        for rows in [&mut rows, &mut near] {
            for ((offset, extent), _) in &sound {
                if let Some(bytes) = read.logical(chunk, *offset, u64::from(extent.stored)) {
                    rows.put(chunk, *offset, &bytes);
                }
            }
            healed.iter().for_each(|(offset, bytes)| rows.put(chunk, *offset, bytes));
        }
        if chunk.has_parity() {
            let live = extents.iter().map(|(offset, extent)| (*offset, u64::from(extent.stored)));
            near.agree(chunk, live, &gone, |row| !doubtful.contains(&row));
            rows.adopt(&near, |row| !doubtful.contains(&row));
        }
        let mut changed = BTreeSet::new();
        for row in run.clone().filter(|row| chunk.has_parity() && !doubtful.contains(row)) {
            let differs = |column: &u16| rows.unit(row, *column) != read.unit(row, *column);
            changed.extend(all.iter().filter(differs).map(|column| (row, column)));
        }
        Some(Checked { rows, changed: with_twins(chunk, changed) })
    }

    /// Writes units of other columns than the targets' that changed, so that rows agree again; whether all could be.
    fn write_beside(
        &mut self,
        chunk: &Chunk,
        rows: &Rows,
        which: Range<u64>,
        changed: &BTreeSet<(u64, u16)>,
        outcome: &mut Outcome,
    ) -> bool {
        let unit = u64::from(chunk.layout.unit());
        let mut all = true;
        for &(row, column) in changed.range((which.start, 0)..(which.end, 0)) {
            let Some(bytes) = rows.unit(row, column) else { continue };
            for (id, at) in self.core.fresh_placements(chunk, column, row * unit, unit) {
                let handle = self.core.devices.get(&id).and_then(|device| device.open().cloned());
                let Some(handle) = handle else { continue };
                outcome.beside.insert(id);
                match handle.write(at, bytes) {
                    // Until it is flushed the device may forget this, though it still shows it.
                    Ok(()) => self.core.healed(id, chunk, row * unit, unit),
                    Err(error) => {
                        self.core.device_failed(id, &error);
                        all = false;
                    }
                }
            }
        }
        all
    }

    /// Whether a column can only be read from a device that should be read last.
    fn only_reluctant(&self, chunk: &Chunk, column: u16) -> bool {
        let reluctant = |id: &DeviceId| self.core.devices.get(id).is_some_and(|device| device.avoid_reads);
        let placements = &chunk.columns[usize::from(column)].placements;
        placements.iter().all(|placement| reluctant(&placement.device) || !placement.stale.is_empty())
            && placements.iter().any(|placement| reluctant(&placement.device))
    }

    /// Writes rows of the target columns; gives the devices that failed.
    fn write_targets(
        &mut self,
        chunk: &Chunk,
        rows: &Rows,
        which: Range<u64>,
        targets: &[(u16, Placement)],
        outcome: &mut Outcome,
    ) -> Vec<DeviceId> {
        let unit = u64::from(chunk.layout.unit());
        let mut failed = Vec::new();
        let mut open = Vec::new();
        for (column, placement) in targets {
            let handle = self.core.devices.get(&placement.device).and_then(|device| device.open().cloned());
            match (handle, &rows.columns[usize::from(*column)]) {
                (Some(handle), Some(bytes)) => {
                    let from = ((which.start - rows.rows.start) * unit) as usize;
                    let to = ((which.end - rows.rows.start) * unit) as usize;
                    open.push((placement, handle, &bytes[from..to]));
                }
                _ => failed.push(placement.device),
            }
        }
        let mut requests: Vec<Request<'_>> = open
            .iter()
            .map(|(placement, handle, bytes)| {
                let offset = on_device(placement, which.start * unit);
                Request::new(&**handle, Op::Write { offset, buffers: vec![IoSlice::new(bytes)] })
            })
            .collect();
        self.core.runner.run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        for ((placement, _, bytes), result) in open.iter().zip(results) {
            match result {
                Ok(()) => outcome.repaired += bytes.len() as u64,
                Err(error) => {
                    self.core.device_failed(placement.device, &error);
                    failed.push(placement.device);
                }
            }
        }
        failed
    }

    /// Nodes and bitmaps are copied one by one: each node's best copy is the valid one of the latest birth.
    fn rebuild_nodes(&mut self, chunk: &Chunk, region: u32, targets: &[(u16, Placement)]) -> Outcome {
        let mut outcome = Outcome::default();
        let rows = chunk.region_rows(region);
        let all = ColumnSet::first(chunk.columns.len() as u16);
        let row_bytes = chunk.layout.row_bytes();
        let nodes =
            rows.start * row_bytes / NODE_SIZE as u64..(rows.end * row_bytes).div_ceil(NODE_SIZE as u64);
        if self.core.nodes.get(&chunk.address).is_some_and(|space| space.is_free(nodes)) {
            // Nothing is there to be copied: nodes that come will be written to every placement.
            outcome.fresh = targets.iter().map(|(column, placement)| (*column, placement.device)).collect();
            return outcome;
        }
        // All copies, those of devices that should be read last too: a node whose write one of them lost is found there as it
        // was before, which nothing but a newer copy gives away.
        let mut loaded = self.core.read_rows(chunk, rows.clone(), &all);
        if !self.has_sources(chunk, region) {
            return outcome;
        }
        for at in (rows.start * row_bytes..rows.end * row_bytes).step_by(NODE_SIZE) {
            let index = at / NODE_SIZE as u64;
            let live = self.core.nodes.get(&chunk.address).is_some_and(|space| space.is_live(index));
            match self.core.best_copy(chunk, &loaded, at) {
                Some(bytes) => put_copies(chunk, &mut loaded, at, &bytes),
                None if live => {
                    outcome.errors += 1;
                    self.core.data_lost(Logical(chunk.address.0 + at));
                }
                None => {}
            }
        }
        let gone = loaded.missing();
        loaded.rebuild(chunk, &gone, &self.core.workers, &self.core.spare);
        let failed = self.write_targets(chunk, &loaded, rows, targets, &mut outcome);
        outcome.fresh = targets
            .iter()
            .map(|(column, placement)| (*column, placement.device))
            .filter(|(_, device)| !failed.contains(device))
            .collect();
        outcome
    }
}

/// Units that changed, and in their rows those of columns that are on several devices: one of these was read, and parity that
/// follows it has to go with the others as well, once that one is away.
fn with_twins(chunk: &Chunk, mut changed: BTreeSet<(u64, u16)>) -> BTreeSet<(u64, u16)> {
    let twins = (0..).zip(&chunk.columns).filter(|(_, column)| column.placements.len() > 1);
    let twins: Vec<u16> = twins.map(|(index, _)| index).collect();
    let rows: BTreeSet<u64> = changed.iter().map(|(row, _)| *row).collect();
    changed.extend(rows.into_iter().flat_map(|row| twins.iter().map(move |&column| (row, column))));
    changed
}

/// The smallest runs of rows that hold whole extents.
fn smallest_runs(chunk: &Chunk, extents: &[&(u64, Extent)]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (offset, extent) in extents {
        let rows = chunk.layout.rows_of(*offset, u64::from(extent.stored));
        match runs.last_mut() {
            Some(last) if rows.start < last.end => last.end = last.end.max(rows.end),
            _ => runs.push(rows),
        }
    }
    runs
}

impl Core {
    /// Of the copies of a node (or bitmap slot) at a byte of a chunk the one to believe: of those in `rows`, and of those on
    /// devices that stand in for another, of which `rows` has one.
    pub(crate) fn best_copy(&mut self, chunk: &Chunk, rows: &Rows, at: u64) -> Option<Vec<u8>> {
        let home = self.remaps.home_of(Logical(chunk.address.0 + at));
        let cell = chunk.layout.cell(at);
        let within = cell.within as usize;
        let mut copies: Vec<Vec<u8>> = Vec::new();
        for column in chunk.layout.columns_of(cell.row, cell.index) {
            let unit = rows.unit(cell.row, column);
            copies.extend(unit.map(|unit| unit[within..within + NODE_SIZE].to_vec()));
            if chunk.columns[usize::from(column)].placements.len() > 1 {
                let offset = cell.row * u64::from(chunk.layout.unit()) + u64::from(cell.within);
                copies.extend(self.all_copies(chunk, column, offset));
            }
        }
        let expected = Expected { pool: Some(self.guid.0), ..Expected::default() };
        let birth = |bytes: &[u8]| {
            if at < crate::space::SLOT_NODES * NODE_SIZE as u64 {
                // Bitmap slots carry their txg; which of them counts is anchored elsewhere.
                return Some(u64::from_le_bytes(bytes[24..32].try_into().unwrap_or_default()));
            }
            let node = Node::parse(bytes.into(), &expected).ok()?;
            (node.header().address == home.0).then(|| node.header().birth)
        };
        let mut best: Option<(u64, Vec<u8>)> = None;
        for bytes in copies {
            if let Some(birth) = birth(&bytes)
                && best.as_ref().is_none_or(|(other, _)| birth > *other)
            {
                best = Some((birth, bytes));
            }
        }
        best.map(|(_, bytes)| bytes)
    }

    /// A node's bytes at an offset of a column, from every device that has it up to date.
    fn all_copies(&mut self, chunk: &Chunk, column: u16, offset: u64) -> Vec<Vec<u8>> {
        let mut copies = Vec::new();
        for (id, at) in self.fresh_placements(chunk, column, offset, NODE_SIZE as u64) {
            let handle = self.devices.get(&id).and_then(|device| device.open().cloned());
            let Some(handle) = handle else { continue };
            let mut bytes = vec![0; NODE_SIZE];
            match handle.read(at, &mut bytes) {
                Ok(()) => copies.push(bytes),
                Err(error) => self.device_failed(id, &error),
            }
        }
        copies
    }
}

/// Lays a node into every column that holds it.
fn put_copies(chunk: &Chunk, rows: &mut Rows, at: u64, bytes: &[u8]) {
    let cell = chunk.layout.cell(at);
    let unit = u64::from(chunk.layout.unit());
    let from = ((cell.row - rows.rows.start) * unit) as usize + cell.within as usize;
    let length = rows.column_bytes();
    for column in chunk.layout.columns_of(cell.row, cell.index) {
        let column = rows.columns[usize::from(column)].get_or_insert_with(|| vec![0; length]);
        column[from..from + bytes.len()].copy_from_slice(bytes);
    }
}
