//! Reading stored extents, many at a time.

use std::collections::BTreeMap;
use std::io::IoSliceMut;

use device::{Op, Request};
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

/// Rows that are read at once where columns are gone.
const DEGRADED_ROWS_MAX: u64 = 256;

/// One request under construction: contiguous on its device.
struct Run<'a> {
    device: DeviceId,
    offset: u64,
    length: u64,
    buffers: Vec<IoSliceMut<'a>>,
    /// Which wants it serves.
    wants: Vec<usize>,
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
        self.read_straight(wants, &mut buffers, &straight);
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

    /// Fills the buffers of extents whose every unit has a fresh copy; what fails stays as it is and shows
    /// by its checksum.
    fn read_straight(&mut self, wants: &[Want], buffers: &mut [Vec<u8>], which: &[bool]) {
        let mut runs: Vec<Run<'_>> = Vec::new();
        // The open run of each device: requests to it that touch are made one.
        let mut open: BTreeMap<DeviceId, usize> = BTreeMap::new();
        for (index, ((want, buffer), &which)) in wants.iter().zip(buffers.iter_mut()).zip(which).enumerate() {
            if !which {
                continue;
            }
            let Ok(chunk) = self.chunk_of(want.address, u64::from(want.length)) else { continue };
            let unit = u64::from(chunk.layout.unit());
            let mut rest: &mut [u8] = buffer;
            for segment in chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)) {
                let (head, tail) = rest.split_at_mut(segment.length as usize);
                rest = tail;
                let cell = segment.cell;
                let copies: Vec<u16> = chunk.layout.columns_of(cell.row, cell.index).collect();
                // Spread reads over the copies by address, so that every disk works.
                let turn = (want.address.0 >> 20) as usize % copies.len().max(1);
                let place = (0..copies.len()).find_map(|step| {
                    self.fresh_placement(chunk, copies[(turn + step) % copies.len()], cell.row * unit)
                });
                let Some((device, base)) = place else { continue };
                let offset = base + cell.row * unit + u64::from(cell.within);
                let touching = open.get(&device).copied().filter(|&run| {
                    runs[run].offset + runs[run].length == offset && runs[run].buffers.len() < 512
                });
                let run = touching.unwrap_or_else(|| {
                    runs.push(Run { device, offset, length: 0, buffers: Vec::new(), wants: Vec::new() });
                    open.insert(device, runs.len() - 1);
                    runs.len() - 1
                });
                let run = &mut runs[run];
                run.length += u64::from(segment.length);
                run.buffers.push(IoSliceMut::new(head));
                run.wants.push(index);
            }
        }
        let handles: Vec<_> =
            runs.iter().map(|run| self.devices.get(&run.device).and_then(|d| d.open().cloned())).collect();
        let devices: Vec<DeviceId> = runs.iter().map(|run| run.device).collect();
        let mut requests: Vec<Request<'_>> = runs
            .into_iter()
            .zip(&handles)
            .filter_map(|(run, handle)| {
                Some(Request::new(&**handle.as_ref()?, Op::Read { offset: run.offset, buffers: run.buffers }))
            })
            .collect();
        self.runner.run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        for (device, result) in devices.into_iter().zip(results) {
            if let Err(error) = result {
                self.device_failed(device, &error);
            }
        }
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
