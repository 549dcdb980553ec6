//! Whole rows of a chunk in memory.

use std::borrow::Cow;
use std::io::IoSliceMut;
use std::ops::Range;

use device::{Op, Request};
use geometry::{ColumnSet, Kind};

use super::on_device;
use crate::chunk::Chunk;
use crate::core::Core;

/// Some rows of a chunk: for each column its bytes, as far as they could be had.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// Which rows.
    pub(crate) rows: Range<u64>,
    /// For each column its units of these rows, one behind the other; none where they could not be read.
    pub(crate) columns: Vec<Option<Vec<u8>>>,
    unit: usize,
}

impl Rows {
    /// Rows of which nothing is known yet.
    pub(crate) fn new(chunk: &Chunk, rows: Range<u64>) -> Self {
        Self { rows, columns: vec![None; chunk.columns.len()], unit: chunk.layout.unit() as usize }
    }

    /// Bytes of one column in these rows.
    pub(crate) fn column_bytes(&self) -> usize {
        (self.rows.end - self.rows.start) as usize * self.unit
    }

    /// Columns that are not there.
    pub(crate) fn missing(&self) -> ColumnSet {
        (0..self.columns.len() as u16).filter(|&c| self.columns[usize::from(c)].is_none()).collect()
    }

    /// The unit of a column in a row.
    pub(crate) fn unit(&self, row: u64, column: u16) -> Option<&[u8]> {
        let at = (row - self.rows.start) as usize * self.unit;
        self.columns[usize::from(column)].as_deref().map(|bytes| &bytes[at..at + self.unit])
    }

    /// Rebuilds the columns `wanted` (those that are not there) from the others; false when that can't be done.
    pub(crate) fn rebuild(&mut self, chunk: &Chunk, wanted: &ColumnSet) -> bool {
        let length = self.column_bytes();
        let layout = &chunk.layout;
        match layout.kind() {
            Kind::Parity { parity } => {
                let lost: Vec<u16> =
                    wanted.iter().filter(|&c| self.columns[usize::from(c)].is_none()).collect();
                if lost.is_empty() {
                    return true;
                }
                if usize::from(self.missing().len()) > usize::from(parity) {
                    return false;
                }
                let mut built: Vec<Vec<u8>> = lost.iter().map(|_| vec![0; length]).collect();
                for row in self.rows.clone() {
                    let at = (row - self.rows.start) as usize * self.unit;
                    let data = usize::from(layout.data_units());
                    // Columns in the order of the code: data units, then parities.
                    let order: Vec<u16> = (0..layout.data_units())
                        .map(|i| layout.data_column(row, i))
                        .chain((0..parity).map(|j| layout.parity_column(row, j)))
                        .collect();
                    let present: Vec<Option<&[u8]>> =
                        order.iter().map(|&column| self.unit(row, column)).collect();
                    let mut outputs: Vec<(usize, &mut [u8])> = lost
                        .iter()
                        .zip(&mut built)
                        .filter_map(|(column, bytes)| {
                            let slot = order.iter().position(|at| at == column)?;
                            Some((slot, &mut bytes[at..at + self.unit]))
                        })
                        .collect();
                    if parity::reconstruct(data, &present, &mut outputs).is_err() {
                        return false;
                    }
                }
                for (column, bytes) in lost.into_iter().zip(built) {
                    self.columns[usize::from(column)] = Some(bytes);
                }
                true
            }
            Kind::Copies | Kind::StripedCopies { .. } => {
                for column in wanted {
                    if self.columns[usize::from(column)].is_some() {
                        continue;
                    }
                    let row = self.rows.start;
                    let twin = match layout.role(row, column) {
                        geometry::Role::Data(index) => {
                            layout.columns_of(row, index).find(|&c| self.columns[usize::from(c)].is_some())
                        }
                        geometry::Role::Parity(_) => None,
                    };
                    match twin {
                        Some(twin) => {
                            self.columns[usize::from(column)] = self.columns[usize::from(twin)].clone()
                        }
                        None => return false,
                    }
                }
                true
            }
            Kind::Stripe => wanted.iter().all(|column| self.columns[usize::from(column)].is_some()),
        }
    }

    /// Takes over the rows that `other` has, column by column as far as it has them.
    pub(crate) fn adopt(&mut self, other: &Self) {
        for row in other.rows.clone().filter(|row| self.rows.contains(row)) {
            let at = (row - self.rows.start) as usize * self.unit;
            for (column, bytes) in self.columns.iter_mut().enumerate() {
                if let (Some(bytes), Some(unit)) = (bytes, other.unit(row, column as u16)) {
                    bytes[at..at + unit.len()].copy_from_slice(unit);
                }
            }
        }
    }

    /// Makes parity agree with the data in the rows that `which` allows, where all columns are there; gives the units
    /// (row, column) that changed.
    pub(crate) fn renew_parity(&mut self, chunk: &Chunk, which: impl Fn(u64) -> bool) -> Vec<(u64, u16)> {
        let mut changed = Vec::new();
        let layout = &chunk.layout;
        let Kind::Parity { parity } = layout.kind() else { return changed };
        if !self.missing().is_empty() {
            return changed;
        }
        for row in self.rows.clone().filter(|&row| which(row)) {
            let data: Vec<&[u8]> =
                (0..layout.data_units()).filter_map(|i| self.unit(row, layout.data_column(row, i))).collect();
            let mut right = vec![vec![0u8; self.unit]; usize::from(parity)];
            let mut outputs: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
            if parity::generate(&data, &mut outputs).is_err() {
                continue;
            }
            let at = (row - self.rows.start) as usize * self.unit;
            for (j, bytes) in (0..parity).zip(right) {
                let column = layout.parity_column(row, j);
                if let Some(unit) = &mut self.columns[usize::from(column)]
                    && unit[at..at + bytes.len()] != bytes[..]
                {
                    unit[at..at + bytes.len()].copy_from_slice(&bytes);
                    changed.push((row, column));
                }
            }
        }
        changed
    }

    /// Puts the logical bytes of a range into every column that holds them.
    pub(crate) fn put(&mut self, chunk: &Chunk, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        for segment in chunk.layout.segments(offset, bytes.len() as u64) {
            let (head, tail) = rest.split_at(segment.length as usize);
            rest = tail;
            let cell = segment.cell;
            let at = (cell.row - self.rows.start) as usize * self.unit + cell.within as usize;
            for column in chunk.layout.columns_of(cell.row, cell.index) {
                if let Some(bytes) = &mut self.columns[usize::from(column)] {
                    bytes[at..at + head.len()].copy_from_slice(head);
                }
            }
        }
    }

    /// The logical bytes of a range that lies within these rows; `None` where a unit is not there. Not copied where
    /// they lie together.
    pub(crate) fn logical(&self, chunk: &Chunk, offset: u64, length: u64) -> Option<Cow<'_, [u8]>> {
        let cell = chunk.layout.cell(offset);
        if chunk.layout.kind() == Kind::Copies || u64::from(cell.within) + length <= self.unit as u64 {
            let mut columns = chunk.layout.columns_of(cell.row, cell.index);
            let bytes = columns.find_map(|column| self.columns[usize::from(column)].as_deref())?;
            let at = (cell.row - self.rows.start) as usize * self.unit + cell.within as usize;
            return bytes.get(at..at + length as usize).map(Cow::Borrowed);
        }
        let mut bytes = Vec::with_capacity(length as usize);
        for segment in chunk.layout.segments(offset, length) {
            let cell = segment.cell;
            let column = chunk
                .layout
                .columns_of(cell.row, cell.index)
                .find(|&column| self.columns[usize::from(column)].is_some())?;
            let within = cell.within as usize;
            bytes.extend_from_slice(&self.unit(cell.row, column)?[within..within + segment.length as usize]);
        }
        Some(Cow::Owned(bytes))
    }
}

impl Core {
    /// Keeps the memory of rows that are done with.
    pub(crate) fn recycle(&mut self, rows: Rows) {
        rows.columns.into_iter().flatten().for_each(|bytes| self.buffers.give(bytes));
    }

    /// Reads the columns `which` of some rows, each from the first placement that is fresh there and can be read.
    /// Devices that fail are charged; their columns stay away.
    pub(crate) fn read_rows(&mut self, chunk: &Chunk, rows: Range<u64>, which: &ColumnSet) -> Rows {
        let mut loaded = Rows::new(chunk, rows.clone());
        let unit = u64::from(chunk.layout.unit());
        let (offset, length) = (rows.start * unit, loaded.column_bytes());
        let mut wanted: Vec<u16> = which.iter().collect();
        // A second round asks other placements of columns that could not be read.
        for attempt in 0..crate::chunk::PLACEMENTS_MAX {
            let mut sources = Vec::new();
            for &column in &wanted {
                let fresh = self.fresh_placements(chunk, column, offset, length as u64);
                if let Some(&(device, at)) = fresh.get(attempt) {
                    sources.push((column, device, at, self.buffers.take(length)));
                }
            }
            if sources.is_empty() {
                break;
            }
            let handles: Vec<_> = sources
                .iter()
                .map(|(_, device, ..)| self.devices.get(device).and_then(|d| d.open().cloned()))
                .collect();
            let mut requests: Vec<Request<'_>> = sources
                .iter_mut()
                .zip(&handles)
                .filter_map(|((_, _, at, bytes), handle)| {
                    let op = Op::Read { offset: *at, buffers: vec![IoSliceMut::new(bytes)] };
                    Some(Request::new(&**handle.as_ref()?, op))
                })
                .collect();
            self.runner.run(&mut requests);
            let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
            for ((column, device, _, bytes), result) in sources.into_iter().zip(results) {
                match result {
                    Ok(()) => loaded.columns[usize::from(column)] = Some(bytes),
                    Err(error) => {
                        self.buffers.give(bytes);
                        self.device_failed(device, &error);
                    }
                }
            }
            wanted.retain(|&column| loaded.columns[usize::from(column)].is_none());
        }
        loaded
    }

    /// Usable placements of a column that are fresh in a range of it, best first: (device, offset on it).
    pub(crate) fn fresh_placements(
        &self,
        chunk: &Chunk,
        column: u16,
        offset: u64,
        length: u64,
    ) -> Vec<(crate::types::DeviceId, u64)> {
        let regions = chunk.regions_of(offset, length);
        let mut fresh: Vec<_> = chunk.columns[usize::from(column)]
            .placements
            .iter()
            .filter(|placement| {
                self.usable(placement.device)
                    && regions.clone().all(|region| !placement.stale.contains(region))
            })
            .map(|placement| (placement.device, on_device(placement, offset)))
            .collect();
        fresh.sort_by_key(|(device, _)| self.devices.get(device).is_some_and(|device| device.avoid_reads));
        fresh
    }
}
