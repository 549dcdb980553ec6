//! Scrub: every copy of everything that is live is read and checked, and repaired where it is wrong.
//!
//! Chunks in order of address. In data chunks extents are checked against their checksums, copies against each
//! other, and parity against the data of every row that holds anything live. In metadata chunks every copy of every
//! live node is checked.

use std::ops::Range;

use geometry::ColumnSet;
use tree::NODE_SIZE;

use super::rebuild::live_runs;
use crate::chunk::{Chunk, Class};
use crate::core::Core;
use crate::error::Result;
use crate::io::{Reading, Rows, Want};
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::report::ScanState;
use crate::types::{DeviceId, Logical};

/// Logical bytes of data that are looked up in one go.
const SLICE_BYTES: u64 = 16 << 20;

/// Logical bytes of metadata that are checked in one go.
const NODES_BYTES: u64 = 4 << 20;

/// Bytes of all columns that a thread reads at once and then checks: they fit into its cache.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// What a look at some rows came to.
enum Looked {
    /// All is as it must be.
    Right,
    /// Something is not, or a column has to be rebuilt.
    Wrong,
    /// Not everything could be read.
    Failed(Reading),
}

impl Pool {
    /// Bytes that a scrub looks at: everything in use, once.
    pub(super) fn scrub_total(&self) -> u64 {
        self.core.map.iter().map(|chunk| chunk.used).sum()
    }

    /// Checks about `budget` bytes from the cursor on.
    pub(super) fn scrub_step(&mut self, budget: u64) -> Result<()> {
        let Some(mut progress) = self.scan.scrub else { return Ok(()) };
        let started = self.core.now();
        // What the trees name is on the devices: no commit is under way. What is dirty is no matter of this, and what
        // reads have repaired since the last step is no doing of the scrub.
        self.core.count_healed_from_now();
        let mut errors = 0;
        let mut done = 0;
        let mut cursor = progress.cursor;
        let mut finished = true;
        while let Some(chunk) =
            self.core.map.at(cursor).or_else(|| self.core.map.at_or_after(cursor)).cloned()
        {
            if done >= budget {
                finished = false;
                break;
            }
            let offset = cursor.0.saturating_sub(chunk.address.0);
            let row_bytes = chunk.layout.row_bytes();
            let rows = chunk.layout.rows(chunk.column_bytes);
            let first = offset / row_bytes;
            let slice = if chunk.class == Class::Data { SLICE_BYTES.min(budget) } else { NODES_BYTES };
            let last = (first + (slice / row_bytes).max(1)).min(rows);
            done += if chunk.class == Class::Data {
                self.scrub_data(&chunk, first..last, &mut errors)?
            } else {
                self.scrub_nodes(&chunk, first..last, &mut errors)
            };
            cursor = if last >= rows { chunk.end() } else { Logical(chunk.address.0 + last * row_bytes) };
        }
        progress.cursor = cursor;
        progress.done += done;
        progress.total = progress.total.max(progress.done);
        progress.repaired += self.core.settle_healed();
        progress.errors += errors;
        progress.ran_ms += self.core.now().0.saturating_sub(started.0);
        if finished {
            progress.state = ScanState::Finished;
            progress.ended = self.core.now();
            progress.total = progress.done;
            let message =
                format!("scrub repaired {} bytes with {} errors", progress.repaired, progress.errors);
            self.core.events.push(progress.ended, "scrub_finish", None, message);
        }
        self.scan.scrub = Some(progress);
        self.changed = true;
        if finished { self.commit() } else { Ok(()) }
    }

    fn scrub_data(&mut self, chunk: &Chunk, slice: Range<u64>, errors: &mut u64) -> Result<u64> {
        let row_bytes = chunk.layout.row_bytes();
        // An extent counts where it begins, but is looked at with every row that it touches: only when all of a row is
        // known to be right may its parity be judged.
        let extents: Vec<(u64, Extent)> = self.extents_in(chunk, &slice)?;
        let begins = |offset: u64| offset >= slice.start * row_bytes;
        let own = extents.iter().filter(|(offset, _)| begins(*offset));
        let bytes = own.map(|(_, extent)| u64::from(extent.stored)).sum();
        let all = ColumnSet::first(chunk.columns.len() as u16);
        let piece = PIECE_BYTES / (chunk.columns.len() as u64 * u64::from(chunk.layout.unit()));
        let runs = live_runs(chunk, &extents, piece.max(1));
        let begin = |row: u64| extents.partition_point(|(offset, _)| *offset < row * row_bytes);
        let readings: Vec<_> = runs
            .into_iter()
            .map(|run| {
                let within = &extents[begin(run.start)..begin(run.end)];
                (run.clone(), within, self.core.begin_rows(chunk, run, &all))
            })
            .collect();
        // Each thread reads a piece and checks it while it is in the processor's cache.
        let Core { workers, runner, spare, .. } = &self.core;
        let looked = workers.map_each(readings, |(run, within, mut reading)| {
            let outcome = if reading.is_whole() {
                reading.run(|requests| runner.run_here(requests), spare);
                match reading.rows() {
                    Ok(rows) => {
                        let right = is_right(chunk, &rows, within);
                        rows.recycle(spare);
                        if right { Looked::Right } else { Looked::Wrong }
                    }
                    Err(reading) => Looked::Failed(reading),
                }
            } else {
                Looked::Wrong
            };
            (run, within, outcome)
        });
        for (run, within, outcome) in looked {
            let reading = match outcome {
                Looked::Right => {
                    for (offset, _) in within {
                        self.found_again(Logical(chunk.address.0 + offset))?;
                    }
                    self.scrub_twins(chunk, &run, &extents);
                    continue;
                }
                Looked::Wrong => None,
                Looked::Failed(reading) => Some(reading),
            };
            self.scrub_run(chunk, &run, within, reading, |offset| *errors += u64::from(begins(offset)))?;
            self.scrub_twins(chunk, &run, &extents);
        }
        Ok(bytes)
    }

    /// Repairs rows in which something is wrong or could not be read. `reading`: the attempt that failed.
    fn scrub_run(
        &mut self,
        chunk: &Chunk,
        run: &Range<u64>,
        within: &[(u64, Extent)],
        reading: Option<Reading>,
        mut lost: impl FnMut(u64),
    ) -> Result<()> {
        let all = ColumnSet::first(chunk.columns.len() as u16);
        self.core.charged.clear();
        let rows = match reading {
            Some(reading) => self.core.end_rows(chunk, reading),
            None => self.core.read_rows(chunk, run.clone(), &all),
        };
        let mut clean = rows.missing().is_empty();
        for (offset, extent) in within {
            let address = Logical(chunk.address.0 + offset);
            if extent_is_right(chunk, &rows, *offset, extent) {
                self.found_again(address)?;
                continue;
            }
            clean = false;
            let want = Want { address, length: extent.stored, checksum: extent.checksum };
            // Reading through `heal` looks at every copy, blames and repairs.
            if self.core.heal(&want).is_err() {
                lost(*offset);
            }
        }
        let rows = if clean || !chunk.has_parity() {
            rows
        } else {
            self.core.recycle(rows);
            self.core.read_rows(chunk, run.clone(), &all)
        };
        if chunk.has_parity() {
            return self.scrub_parity(chunk, rows);
        }
        self.core.recycle(rows);
        Ok(())
    }

    /// What was lost can be read.
    fn found_again(&mut self, address: Logical) -> Result<()> {
        if self.core.lost.remove(&address) {
            self.meta.remove(&mut self.core, crate::txg::lost_key(address))?;
        }
        Ok(())
    }

    /// Other placements of a column (a spare beside its original) hold the same; rare, so read one by one.
    fn scrub_twins(&mut self, chunk: &Chunk, run: &Range<u64>, extents: &[(u64, Extent)]) {
        if chunk.columns.iter().all(|column| column.placements.len() == 1) {
            return;
        }
        for (offset, extent) in extents {
            let touched = chunk.layout.rows_of(*offset, u64::from(extent.stored));
            if touched.start >= run.start && touched.end <= run.end {
                let want = Want {
                    address: Logical(chunk.address.0 + offset),
                    length: extent.stored,
                    checksum: extent.checksum,
                };
                let _ = self.core.heal(&want);
            }
        }
        if chunk.has_parity() {
            self.level_twins(chunk, run);
        }
    }

    /// Makes dead bytes of other placements what they are on the one that the parity agrees with: it protects what is live on
    /// other devices only beside those.
    fn level_twins(&mut self, chunk: &Chunk, run: &Range<u64>) {
        let rows = self.core.read_rows(chunk, run.clone(), &ColumnSet::first(chunk.columns.len() as u16));
        let twins = (0..).zip(&chunk.columns).filter(|(_, column)| column.placements.len() > 1);
        for (column, _) in twins.filter(|_| rows.missing().is_empty()) {
            for row in run.clone().filter(|&row| rows.parity_agrees(chunk, row)) {
                if let Some(bytes) = rows.unit(row, column) {
                    self.rewrite_unit(chunk, row, column, bytes, false);
                }
            }
        }
        self.core.recycle(rows);
    }

    /// Makes rows agree whose live bytes all match their checksums.
    ///
    /// Whoever holds the parity is charged only where that is certain: where all of the row's data is vouched for. Dead
    /// bytes that went wrong on another device, or were rebuilt from such, look the same, and nobody is charged for them.
    ///
    /// A row in which anything live is not known to be right, as read, is left alone: parity is what will heal it.
    fn scrub_parity(&mut self, chunk: &Chunk, mut rows: Rows) -> Result<()> {
        let mut wrong: Vec<u64> = rows.rows.clone().filter(|&row| !rows.parity_agrees(chunk, row)).collect();
        if wrong.is_empty() || !rows.missing().is_empty() {
            return Ok(());
        }
        let layout = &chunk.layout;
        let extents = self.extents_in(chunk, &rows.rows)?;
        for (offset, extent) in &extents {
            let touched = layout.rows_of(*offset, u64::from(extent.stored));
            let inside = touched.start >= rows.rows.start && touched.end <= rows.rows.end;
            if !inside || !extent_is_right(chunk, &rows, *offset, extent) {
                wrong.retain(|row| !touched.contains(row));
            }
        }
        let row_bytes = layout.row_bytes();
        let all_live = |row: u64| {
            let (from, to) = (row * row_bytes, (row + 1) * row_bytes);
            let live = |(offset, extent): &(u64, Extent)| {
                (offset + u64::from(extent.stored)).min(to).saturating_sub(from.max(*offset))
            };
            extents.iter().map(live).sum::<u64>() == row_bytes
        };
        let live = extents.iter().map(|(offset, extent)| (*offset, u64::from(extent.stored)));
        let changed = rows.agree(chunk, live, &ColumnSet::default(), |row| wrong.contains(&row));
        for (row, column) in changed {
            if let Some(bytes) = rows.unit(row, column) {
                self.rewrite_unit(chunk, row, column, bytes, all_live(row));
            }
        }
        self.core.recycle(rows);
        Ok(())
    }

    /// Rewrites one unit of a column where it is wrong, and may charge whoever holds it.
    fn rewrite_unit(&mut self, chunk: &Chunk, row: u64, column: u16, bytes: &[u8], charged: bool) {
        let address = Logical(chunk.address.0 + row * chunk.layout.row_bytes());
        self.mend(
            chunk,
            column,
            row * u64::from(chunk.layout.unit()),
            bytes,
            Some(address).filter(|_| charged),
        );
    }

    /// Rewrites a part of a column on its fresh placements that hold something else; charges their devices if `blame` says
    /// for which address.
    fn mend(&mut self, chunk: &Chunk, column: u16, offset: u64, bytes: &[u8], blame: Option<Logical>) {
        let placements = self.core.fresh_placements(chunk, column, offset, bytes.len() as u64);
        // Of several one was read: which of them are wrong is to be seen.
        let look = chunk.columns[usize::from(column)].placements.len() > 1;
        for (device, at) in placements {
            let is_wrong = match look.then(|| self.held(device, at, bytes.len())) {
                Some(Some(found)) if found == bytes => continue,
                // What can't be read is not wrong: that is for the write to find out.
                Some(None) => false,
                Some(Some(_)) | None => true,
            };
            if let Some(address) = blame.filter(|_| is_wrong) {
                self.core.checksum_failed(device, address);
            }
            self.rewrite(chunk, offset, device, at, bytes);
        }
    }

    /// What a device has there, if it can be read.
    fn held(&self, device: DeviceId, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut found = vec![0; length];
        let handle = self.core.devices.get(&device)?.open()?;
        handle.read(at, &mut found).is_ok().then_some(found)
    }

    /// Rewrites a part of a column on a device, where it begins at `at`.
    fn rewrite(&mut self, chunk: &Chunk, offset: u64, device: DeviceId, at: u64, bytes: &[u8]) {
        let Some(handle) = self.core.devices.get(&device).and_then(|device| device.open().cloned()) else {
            return;
        };
        match handle.write(at, bytes) {
            Ok(()) => self.core.healed(device, chunk, offset, bytes.len() as u64),
            Err(error) => self.core.device_failed(device, &error),
        }
    }

    fn scrub_nodes(&mut self, chunk: &Chunk, slice: Range<u64>, errors: &mut u64) -> u64 {
        let row_bytes = chunk.layout.row_bytes();
        let (from, to) = (slice.start * row_bytes, slice.end * row_bytes);
        let Some(space) = self.core.nodes.get(&chunk.address) else { return 0 };
        let live: Vec<u64> = space
            .iter_live()
            .map(|index| index * NODE_SIZE as u64)
            .filter(|at| (from..to).contains(at))
            .collect();
        if live.is_empty() {
            return 0;
        }
        let all = ColumnSet::first(chunk.columns.len() as u16);
        self.core.charged.clear();
        let rows = self.core.read_rows(chunk, slice, &all);
        for &at in &live {
            let address = Logical(chunk.address.0 + at);
            let Some(right) = self.core.best_copy(chunk, &rows, at) else {
                *errors += 1;
                self.core.data_lost(address);
                continue;
            };
            let cell = chunk.layout.cell(at);
            let within = cell.within as usize;
            for column in chunk.layout.columns_of(cell.row, cell.index) {
                let same = rows
                    .unit(cell.row, column)
                    .is_none_or(|unit| unit[within..within + NODE_SIZE] == right[..]);
                // Of several placements `rows` has one.
                if same && chunk.columns[usize::from(column)].placements.len() == 1 {
                    continue;
                }
                let offset = cell.row * u64::from(chunk.layout.unit()) + u64::from(cell.within);
                self.mend(chunk, column, offset, &right, Some(address));
            }
        }
        self.core.recycle(rows);
        live.len() as u64 * NODE_SIZE as u64
    }
}

/// Whether everything in some rows, all columns of which are there, is right: extents, copies, and parity.
pub(super) fn is_right(chunk: &Chunk, rows: &Rows, extents: &[(u64, Extent)]) -> bool {
    extents.iter().all(|(offset, extent)| extent_is_right(chunk, rows, *offset, extent))
        && rows.rows.clone().all(|row| rows.parity_agrees(chunk, row))
}

/// Whether every copy of an extent in the rows is what its checksum says.
pub(super) fn extent_is_right(chunk: &Chunk, rows: &Rows, offset: u64, extent: &Extent) -> bool {
    let length = u64::from(extent.stored);
    let first = rows.logical(chunk, offset, length);
    if !first.is_some_and(|bytes| extent.checksum.matches(&bytes)) {
        return false;
    }
    chunk.layout.segments(offset, length).all(|segment| {
        let cell = segment.cell;
        let within = cell.within as usize..(cell.within + segment.length) as usize;
        let mut copies =
            chunk.layout.columns_of(cell.row, cell.index).filter_map(|column| rows.unit(cell.row, column));
        let first = copies.next();
        copies.all(|copy| first.is_none_or(|first| copy[within.clone()] == first[within.clone()]))
    })
}
