//! The bulk of a resilver: what a step takes, and how it is read, rebuilt and written while everything is as it should be.
//!
//! Where chunks are spread over more devices than they take, a step takes pieces of many of them, so that all devices work
//! at once.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use device::{BlockDevice, DeviceError, Op, Request, Runner};

use super::resilver::Filling;
use super::scrub::{PIECE_BYTES, is_right};
use crate::chunk::{Chunk, Class, Placement};
use crate::core::{Buffers, Core, Group, Workers};
use crate::error::Result;
use crate::io::{Reading, Rows, on_device};
use crate::pointer::Extent;
use crate::pool::Pool;
use crate::types::{DeviceId, Logical};

/// Rows read at once from disks.
const ROWS_MAX: u64 = 256;

/// Logical bytes of data that are rebuilt in one go.
const SLICE_BYTES: u64 = 16 << 20;

/// Bytes that are read at once where chunks are spread over many devices, and as much again is being written.
const ROUND_BYTES: u64 = 128 << 20;

/// Reads of each disk in a round: the more, the less the busiest is behind the others.
const READS_OF_ROUND: u64 = 16;

/// Pieces among which the next one of a round is chosen.
const PIECES_AHEAD: usize = 256;

/// What a first look at a run of rows came to.
pub(super) enum Look {
    /// Everything is as it must be; what came of writing it to each target.
    Written(Vec<std::result::Result<(), DeviceError>>),
    /// Something is not, or there is not enough to rebuild from.
    Wrong,
    /// Not everything could be read.
    Failed(Reading),
}

/// Neighbouring regions of a chunk that have the same targets.
pub(super) struct Slice {
    pub(super) chunk: Chunk,
    pub(super) regions: Range<u32>,
    pub(super) targets: Vec<(u16, Placement)>,
    /// The rows of these regions, and the extents that touch them; of data only.
    pub(super) rows: Range<u64>,
    pub(super) extents: Vec<(u64, Extent)>,
}

/// What a first look at a run of rows of a slice, told by its index, came to.
type Looked = (usize, Range<u64>, Look);

/// A run of rows of a slice that is to be rebuilt.
struct Piece<'a> {
    index: usize,
    /// Which of the slice's runs it is.
    turn: usize,
    slice: &'a Slice,
    within: &'a [(u64, Extent)],
    run: Range<u64>,
    /// The targets' devices.
    open: Vec<Arc<dyn BlockDevice>>,
    reading: Reading,
}

/// A run of rows that was rebuilt, is as it should be, and is to be written.
struct Built<'a> {
    index: usize,
    slice: &'a Slice,
    run: Range<u64>,
    open: Vec<Arc<dyn BlockDevice>>,
    rows: Rows,
}

impl<'a> Piece<'a> {
    fn column_bytes(&self) -> u64 {
        (self.run.end - self.run.start) * u64::from(self.slice.chunk.layout.unit())
    }

    /// Bytes to be read.
    fn bytes(&self) -> u64 {
        self.column_bytes() * self.reading.devices().count() as u64
    }

    /// Rebuilds and checks what was read.
    fn build(self, spare: &Mutex<Buffers>) -> std::result::Result<Built<'a>, Looked> {
        let Self { index, slice, within, run, open, reading, .. } = self;
        let mut rows = match reading.rows() {
            Ok(rows) => rows,
            Err(reading) => return Err((index, run, Look::Failed(reading))),
        };
        let gone = rows.missing();
        let right =
            rows.rebuild(&slice.chunk, &gone, &Workers::NONE, spare) && is_right(&slice.chunk, &rows, within);
        if right && slice.targets.iter().all(|(column, _)| rows.columns[usize::from(*column)].is_some()) {
            return Ok(Built { index, slice, run, open, rows });
        }
        rows.recycle(spare);
        Err((index, run, Look::Wrong))
    }
}

impl Built<'_> {
    /// What is to be written: the targets' columns, as far as they lie in the slice.
    fn requests(&mut self) -> Vec<Request<'_>> {
        let unit = u64::from(self.slice.chunk.layout.unit());
        let touched = clip(&self.run, &self.slice.rows);
        let bytes = ((touched.start - self.run.start) * unit) as usize
            ..((touched.end - self.run.start) * unit) as usize;
        let targets = self.slice.targets.iter().zip(&self.open);
        let requests = targets.filter_map(|((column, placement), handle)| {
            let buffers =
                vec![IoSlice::new(self.rows.columns[usize::from(*column)].as_deref()?.get(bytes.clone())?)];
            let offset = on_device(placement, touched.start * unit);
            Some(Request::new(&**handle, Op::Write { offset, buffers }))
        });
        requests.collect()
    }

    fn written(self, results: Vec<std::result::Result<(), DeviceError>>, spare: &Mutex<Buffers>) -> Looked {
        self.rows.recycle(spare);
        let whole = results.len() == self.slice.targets.len();
        (self.index, self.run, if whole { Look::Written(results) } else { Look::Wrong })
    }
}

/// Rebuilds pieces that are spread over many devices so that all of these work at once: in each round one batch reads as
/// many pieces as memory allows and writes those of the round before.
fn rebuild_in_rounds(
    mut pieces: Vec<Piece<'_>>,
    workers: &Workers,
    runner: &dyn Runner,
    spare: &Mutex<Buffers>,
) -> Vec<Looked> {
    let mut done = Vec::new();
    let mut built: Vec<Built<'_>> = Vec::new();
    // One of each slice, one more of each: what is rebuilt at a time is on different devices.
    pieces.sort_by_key(|piece| piece.turn);
    // Rounds of equal length: the fewer pieces, the less even they are. Pieces of which nothing can be read have no bytes.
    let all: u64 = pieces.iter().map(Piece::bytes).sum();
    let round_bytes = all.div_ceil(all.div_ceil(ROUND_BYTES).max(1)).max(1);
    while !pieces.is_empty() || !built.is_empty() {
        // Bytes that each device moves in this round.
        let mut loads: BTreeMap<DeviceId, u64> = BTreeMap::new();
        let targets = built
            .iter()
            .flat_map(|built| built.slice.targets.iter().map(|(_, target)| (target.device, &built.rows)));
        targets.for_each(|(device, rows)| *loads.entry(device).or_default() += rows.column_bytes() as u64);
        let mut round: Vec<Piece<'_>> = Vec::new();
        let mut bytes = 0;
        while bytes < round_bytes && !pieces.is_empty() {
            // The next one of those that add least to what is busiest.
            let busiest = |piece: &Piece<'_>| {
                let load = piece.reading.devices().map(|id| loads.get(&id).copied().unwrap_or(0)).max();
                load.unwrap_or(0)
            };
            let next =
                (0..pieces.len().min(PIECES_AHEAD)).min_by_key(|&at| busiest(&pieces[at])).unwrap_or(0);
            let piece = pieces.remove(next);
            bytes += piece.bytes();
            let length = piece.column_bytes();
            piece.reading.devices().for_each(|id| *loads.entry(id).or_default() += length);
            round.push(piece);
        }
        let counts: Vec<usize> = built.iter().map(|built| built.slice.targets.len()).collect();
        let writes = built.iter_mut().flat_map(Built::requests).collect();
        let readings = round.iter_mut().map(|piece| &mut piece.reading);
        let mut results =
            Reading::run_all(readings, writes, |requests| runner.run(requests), spare).into_iter();
        for (built, count) in built.into_iter().zip(counts) {
            done.push(built.written(results.by_ref().take(count).collect(), spare));
        }
        built = Vec::new();
        for outcome in workers.share(round, |piece| piece.build(spare)) {
            match outcome {
                Ok(rebuilt) => built.push(rebuilt),
                Err(looked) => done.push(looked),
            }
        }
    }
    done
}

impl Pool {
    /// What a step of about `budget` bytes rebuilds, and how much that is.
    ///
    /// In order of addresses; of chunks that are spread over more devices than they take only a piece of each, again and
    /// again: so all of these devices work at once, and in the time of a step more is done.
    pub(super) fn slices(&mut self, filling: Filling, budget: u64) -> Result<(Vec<Slice>, u64)> {
        let mut slices = Vec::new();
        let mut done = 0;
        let mut next: BTreeMap<Logical, u32> = BTreeMap::new();
        let mut left = self.core.map.addresses();
        left.retain(|address| {
            self.core.map.get(*address).is_some_and(|chunk| self.work_in(chunk, filling) > 0)
        });
        let is_spread = |address: &&Logical| {
            self.core.map.get(**address).is_some_and(|chunk| self.spread_of(chunk).is_some())
        };
        let spread_chunks = left.iter().filter(is_spread).count().max(1) as u64;
        loop {
            let before = slices.len();
            for &address in &left {
                let Some(chunk) = self.core.map.get(address).cloned() else { continue };
                let spread = self.spread_of(&chunk);
                let budget = budget * spread.unwrap_or(1);
                // As much of each: what all of them need is even over the devices.
                let at_once = match spread {
                    Some(_) => budget / spread_chunks,
                    None => SLICE_BYTES / chunk.columns.len() as u64,
                };
                let next = next.entry(address).or_default();
                while *next < chunk.regions() && done < budget {
                    let regions = self.alike_regions(&chunk, *next, filling, budget - done, at_once);
                    *next = regions.end;
                    let targets = self.targets_in(&chunk, regions.start, filling);
                    if targets.is_empty() {
                        continue;
                    }
                    done +=
                        chunk.region_bytes() * targets.len() as u64 * u64::from(regions.end - regions.start);
                    let rows = chunk.region_rows(regions.start).start..chunk.region_rows(regions.end - 1).end;
                    let is_data = chunk.class == Class::Data;
                    let extents = if is_data { self.extents_in(&chunk, &rows)? } else { Vec::new() };
                    slices.push(Slice { chunk: chunk.clone(), regions, targets, rows, extents });
                    if spread.is_some() {
                        break;
                    }
                }
            }
            if slices.len() == before {
                return Ok((slices, done));
            }
        }
    }

    /// How many times the devices of a step's chunks there are, twice, where a chunk takes some of its group's only.
    fn spread_of(&self, chunk: &Chunk) -> Option<u64> {
        let is_spread = |group: &&Group| group.kind.draid().is_some() && chunk.class == Class::Data;
        let group = self.core.groups.get(&chunk.group).filter(is_spread)?;
        Some((4 * group.devices.len() as u64).div_ceil(chunk.columns.len() as u64))
    }

    /// Rows of a chunk that are read at once: so few of one that is spread that each device has a part of several.
    fn rows_at_once(&self, chunk: &Chunk) -> u64 {
        let unit = u64::from(chunk.layout.unit());
        let children = self.core.groups.get(&chunk.group).map_or(1, |group| group.devices.len() as u64);
        match self.spread_of(chunk) {
            _ if !self.core.on_disks() => PIECE_BYTES / (chunk.columns.len() as u64 * unit),
            Some(_) => (ROUND_BYTES / (unit * children * READS_OF_ROUND)).min(ROWS_MAX),
            None => ROWS_MAX,
        }
        .max(1)
    }

    /// A region and those behind it that have the same targets, as far as they are rebuilt in one go: about `at_once` bytes of
    /// a column.
    fn alike_regions(
        &self,
        chunk: &Chunk,
        first: u32,
        filling: Filling,
        budget: u64,
        at_once: u64,
    ) -> Range<u32> {
        let targets = self.targets_in(chunk, first, filling);
        let bytes = chunk.region_bytes() * targets.len() as u64;
        let most = if targets.is_empty() || chunk.class != Class::Data {
            1
        } else {
            (at_once / chunk.region_bytes()).min(budget.div_ceil(bytes)).max(1)
        };
        let alike = |region: &u32| self.targets_in(chunk, *region, filling) == targets;
        let behind = (first + 1..chunk.regions()).take(most as usize - 1).take_while(alike);
        first..first + 1 + behind.count() as u32
    }

    /// Rebuilds all rows of slices in which everything is as it should be; tells of each run of live rows of each slice what
    /// came of it.
    pub(super) fn rebuild_sound(&mut self, slices: &[Slice]) -> Vec<Vec<(Range<u64>, Look)>> {
        let mut looks: Vec<Vec<(Range<u64>, Look)>> = slices.iter().map(|_| Vec::new()).collect();
        let mut pieces = Vec::new();
        for (index, slice) in slices.iter().enumerate() {
            let Slice { chunk, targets, extents, .. } = slice;
            let row_bytes = chunk.layout.row_bytes();
            let runs = live_runs(chunk, extents, self.rows_at_once(chunk));
            let device = |id| self.core.devices.get(&id).and_then(|device| device.open().cloned());
            let open: Option<Vec<_>> =
                targets.iter().map(|(_, placement)| device(placement.device)).collect();
            let Some(open) = open else {
                looks[index].extend(runs.into_iter().map(|run| (run, Look::Wrong)));
                continue;
            };
            let eager = self.eager_columns(chunk);
            let begin = |row: u64| extents.partition_point(|(offset, _)| *offset < row * row_bytes);
            for (turn, run) in runs.into_iter().enumerate() {
                let within = &extents[begin(run.start)..begin(run.end)];
                let reading = self.core.begin_rows(chunk, run.clone(), &eager);
                pieces.push(Piece { index, turn, slice, within, run, open: open.clone(), reading });
            }
        }
        let Core { workers, runner, spare, .. } = &self.core;
        let is_spread = slices.iter().any(|slice| self.spread_of(&slice.chunk).is_some());
        let done = if is_spread {
            rebuild_in_rounds(pieces, workers, &**runner, spare)
        } else {
            // Each thread takes a run, and reads, rebuilds, checks and writes it while it is in its processor's cache.
            workers.share(pieces, |mut piece| {
                piece.reading.run(|requests| runner.run_here(requests), spare);
                let mut built = match piece.build(spare) {
                    Ok(built) => built,
                    Err(looked) => return looked,
                };
                let mut requests = built.requests();
                runner.run_here(&mut requests);
                let results = requests.into_iter().map(|request| request.result).collect();
                built.written(results, spare)
            })
        };
        for (index, run, look) in done {
            looks[index].push((run, look));
        }
        looks.iter_mut().for_each(|looks| looks.sort_by_key(|(run, _)| run.start));
        looks
    }
}

/// Runs of rows that hold something live, each with whole extents, of bounded length.
pub(super) fn live_runs(chunk: &Chunk, extents: &[(u64, Extent)], most: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (offset, extent) in extents {
        let rows = chunk.layout.rows_of(*offset, u64::from(extent.stored));
        match runs.last_mut() {
            Some(last)
                if rows.start < last.end || (rows.start == last.end && rows.end - last.start <= most) =>
            {
                last.end = last.end.max(rows.end);
            }
            _ => runs.push(rows),
        }
    }
    runs
}

/// The rows of a run that lie in a slice.
pub(super) fn clip(run: &Range<u64>, slice: &Range<u64>) -> Range<u64> {
    run.start.max(slice.start)..run.end.min(slice.end)
}
