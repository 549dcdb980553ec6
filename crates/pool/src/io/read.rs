//! Reading stored extents, many at a time.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, Op, Request, Runner};
use geometry::ColumnSet;

use crate::checksum::Checksum;
use crate::chunk::Chunk;
use crate::core::Core;
use crate::error::{PoolError, Result};
use crate::types::{DeviceId, Logical};

/// An extent to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) address: Logical,
    /// Stored bytes.
    pub(crate) length: u32,
    pub(crate) checksum: Checksum,
}

/// Buffers of one request.
const BUFFERS_MAX: usize = 512;

/// Rows that are read at once where columns are gone.
const DEGRADED_ROWS_MAX: u64 = 256;

/// A request of a [`Straight`]: contiguous on its device.
struct Run {
    device: DeviceId,
    handle: Arc<dyn BlockDevice>,
    offset: u64,
    length: u64,
    buffers: usize,
}

/// A part of an extent, and the run that brings it, if any device can.
struct Segment {
    want: usize,
    run: Option<usize>,
    length: usize,
}

/// How extents are read whose every unit has a fresh copy: needs nothing of the pool, and can go on beside it.
#[derive(Default)]
pub(crate) struct Straight {
    runs: Vec<Run>,
    /// In order of extents, and within them of bytes.
    segments: Vec<Segment>,
}

impl Straight {
    /// Fills the buffers of extents; what fails stays as it is and shows by its checksum. Gives what went wrong.
    pub(crate) fn read(&self, runner: &dyn Runner, buffers: &mut [Vec<u8>]) -> Vec<(DeviceId, DeviceError)> {
        let mut parts: Vec<Vec<IoSliceMut<'_>>> =
            self.runs.iter().map(|run| Vec::with_capacity(run.buffers)).collect();
        let mut segments = self.segments.iter().peekable();
        for (index, buffer) in buffers.iter_mut().enumerate() {
            let mut rest: &mut [u8] = buffer;
            while let Some(segment) = segments.next_if(|segment| segment.want == index) {
                let (head, tail) = rest.split_at_mut(segment.length);
                rest = tail;
                if let Some(run) = segment.run {
                    parts[run].push(IoSliceMut::new(head));
                }
            }
        }
        let runs = self.runs.iter().zip(parts);
        let mut requests: Vec<Request<'_>> = runs
            .map(|(run, buffers)| Request::new(&*run.handle, Op::Read { offset: run.offset, buffers }))
            .collect();
        runner.run(&mut requests);
        let results = self.runs.iter().zip(requests.into_iter().map(|request| request.result));
        results.filter_map(|(run, result)| Some((run.device, result.err()?))).collect()
    }
}

impl Core {
    /// Reads one extent, healing what is found damaged.
    ///
    /// # Errors
    /// [`PoolError::Unreadable`] when no combination of what is left matches the checksum.
    pub(crate) fn read_extent(&mut self, want: Want) -> Result<Vec<u8>> {
        self.read_extents(&[want]).pop().unwrap_or(Err(PoolError::NoSpace))
    }

    /// Reads extents (in rising order of address for the best speed), each with its own outcome.
    ///
    /// Their addresses are homes; that of a place where nothing has its home stands for itself.
    pub(crate) fn read_extents(&mut self, wants: &[Want]) -> Vec<Result<Vec<u8>>> {
        self.charged.clear();
        let placed: Vec<Want>;
        let wants = if self.remaps.len() == 0 {
            wants
        } else {
            let at_place = |want: &Want| Want { address: self.remaps.place_of(want.address), ..*want };
            placed = wants.iter().map(at_place).collect();
            &placed
        };
        let mut buffers: Vec<Vec<u8>> = wants.iter().map(|want| vec![0; want.length as usize]).collect();
        let mut good = vec![false; wants.len()];
        let mut degraded: BTreeMap<Logical, Vec<usize>> = BTreeMap::new();
        let mut straight = vec![false; wants.len()];
        let mut outcome: Vec<Option<PoolError>> = vec![None; wants.len()];
        for (index, want) in wants.iter().enumerate() {
            if let Some(bytes) = self.unwritten_extents.get(&want.address) {
                if bytes.len() == buffers[index].len() {
                    buffers[index].copy_from_slice(bytes);
                    good[index] = true;
                }
                continue;
            }
            match self.chunk_of(want.address, u64::from(want.length)) {
                Ok(chunk) => {
                    if chunk.has_parity() && !self.all_fresh(chunk, want) {
                        degraded.entry(chunk.address).or_default().push(index);
                    } else {
                        straight[index] = true;
                    }
                }
                Err(error) => outcome[index] = Some(error),
            }
        }
        // Where an extent of a parity chunk is degraded, its neighbours in the same batch ride along with its rows.
        for (index, want) in wants.iter().enumerate() {
            if straight[index]
                && let Ok(chunk) = self.chunk_of(want.address, u64::from(want.length))
                && let Some(list) = degraded.get_mut(&chunk.address)
            {
                straight[index] = false;
                list.push(index);
            }
        }
        let plan = self.plan_straight(wants, &straight);
        for (device, error) in plan.read(&*self.runner, &mut buffers) {
            self.device_failed(device, &error);
        }
        for (chunk, mut indexes) in degraded {
            indexes.sort_by_key(|&index| wants[index].address);
            self.read_degraded(chunk, wants, &indexes, &mut buffers);
        }
        let ignore = self.is_sabotaged("ignore-checksum");
        let check: Vec<(&Want, &Vec<u8>, bool)> = wants
            .iter()
            .zip(&buffers)
            .zip(good)
            .map(|((want, bytes), good)| (want, bytes, good || ignore))
            .collect();
        let right = self.workers.map(&check, |(want, bytes, good)| *good || want.checksum.matches(bytes));
        let results = buffers.into_iter().zip(wants).zip(right).zip(outcome);
        results
            .map(|(((bytes, want), right), failed)| match failed {
                Some(error) => Err(error),
                None if right => Ok(bytes),
                None => self.heal(want),
            })
            .collect()
    }

    /// The chunk that holds all of a range.
    pub(crate) fn chunk_of(&self, address: Logical, length: u64) -> Result<&Chunk> {
        self.map.at(address).filter(|chunk| address.0 + length <= chunk.end().0).ok_or_else(|| {
            PoolError::Corrupt(format!("{length} bytes at logical address {address} are in no chunk"))
        })
    }

    fn all_fresh(&self, chunk: &Chunk, want: &Want) -> bool {
        let unit = u64::from(chunk.layout.unit());
        chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)).all(|segment| {
            let column = chunk.layout.data_column(segment.cell.row, segment.cell.index);
            self.fresh_placement(chunk, column, segment.cell.row * unit).is_some()
        })
    }

    /// The first usable placement of a column that is fresh at an offset of it.
    fn fresh_placement(&self, chunk: &Chunk, column: u16, offset: u64) -> Option<(DeviceId, u64)> {
        let region = (offset / chunk.region_bytes()) as u32;
        let placements = &chunk.columns[usize::from(column)].placements;
        let mut found = None;
        for placement in placements {
            if !placement.stale.contains(region)
                && let Some(device) = self.devices.get(&placement.device)
                && device.usable()
            {
                let place = (placement.device, super::on_device(placement, 0));
                if !device.avoid_reads {
                    return Some(place);
                }
                found.get_or_insert(place);
            }
        }
        found
    }

    /// Whether all of an extent can be read as it was written, from copies that are fresh.
    pub(crate) fn is_straight(&self, want: &Want) -> bool {
        self.chunk_of(want.address, u64::from(want.length))
            .is_ok_and(|chunk| !chunk.has_parity() || self.all_fresh(chunk, want))
    }

    /// How to read some of the extents, given by their places.
    pub(crate) fn plan_straight(&self, wants: &[Want], which: &[bool]) -> Straight {
        let mut plan = Straight::default();
        // The open run of each device: requests to it that touch are made one.
        let mut open: BTreeMap<DeviceId, usize> = BTreeMap::new();
        for (index, want) in wants.iter().enumerate().filter(|&(index, _)| which[index]) {
            let Ok(chunk) = self.chunk_of(want.address, u64::from(want.length)) else { continue };
            let unit = u64::from(chunk.layout.unit());
            for segment in chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)) {
                let cell = segment.cell;
                let copies: Vec<u16> = chunk.layout.columns_of(cell.row, cell.index).collect();
                // Spread reads over the copies by address, so that every disk works.
                let turn = (want.address.0 >> 20) as usize % copies.len().max(1);
                let place = (0..copies.len()).find_map(|step| {
                    self.fresh_placement(chunk, copies[(turn + step) % copies.len()], cell.row * unit)
                });
                let length = u64::from(segment.length);
                let run = place.and_then(|(device, base)| {
                    let offset = base + cell.row * unit + u64::from(cell.within);
                    let touching = open.get(&device).copied().filter(|&run| {
                        plan.runs[run].offset + plan.runs[run].length == offset
                            && plan.runs[run].buffers < BUFFERS_MAX
                    });
                    let run = if let Some(run) = touching {
                        run
                    } else {
                        let handle = Arc::clone(self.devices.get(&device)?.open()?);
                        plan.runs.push(Run { device, handle, offset, length: 0, buffers: 0 });
                        open.insert(device, plan.runs.len() - 1);
                        plan.runs.len() - 1
                    };
                    plan.runs[run].length += length;
                    plan.runs[run].buffers += 1;
                    Some(run)
                });
                plan.segments.push(Segment { want: index, run, length: segment.length as usize });
            }
        }
        plan
    }

    /// Fills the buffers of extents of one parity chunk by reading whole rows and rebuilding what is gone.
    fn read_degraded(&mut self, chunk: Logical, wants: &[Want], indexes: &[usize], buffers: &mut [Vec<u8>]) {
        let Some(chunk) = self.map.get(chunk).cloned() else { return };
        let mut at = 0;
        while at < indexes.len() {
            let rows_of = |index: usize| {
                let want = &wants[index];
                chunk.layout.rows_of(want.address.0 - chunk.address.0, u64::from(want.length))
            };
            let mut rows = rows_of(indexes[at]);
            let mut end = at + 1;
            while end < indexes.len() {
                let next = rows_of(indexes[end]);
                if next.start > rows.end || next.end - rows.start > DEGRADED_ROWS_MAX {
                    break;
                }
                rows.end = rows.end.max(next.end);
                end += 1;
            }
            let all: ColumnSet = ColumnSet::first(chunk.columns.len() as u16);
            let mut loaded = self.read_rows(&chunk, rows, &all);
            let missing = loaded.missing();
            if missing.is_empty() || loaded.rebuild(&chunk, &missing, &self.workers) {
                for &index in &indexes[at..end] {
                    let want = &wants[index];
                    let offset = want.address.0 - chunk.address.0;
                    if let Some(bytes) = loaded.logical(&chunk, offset, u64::from(want.length)) {
                        buffers[index] = bytes.into_owned();
                    }
                }
            }
            self.recycle(loaded);
            at = end;
        }
    }
}
