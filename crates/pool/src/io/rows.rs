//! Whole rows of a chunk in memory.

use std::borrow::Cow;
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use device::{BlockDevice, DeviceError, Op, Request};
use geometry::{ColumnSet, Kind};

use super::on_device;
use crate::chunk::Chunk;
use crate::core::{Buffers, Core, Workers};
use crate::types::DeviceId;

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

    /// Keeps the memory for others.
    pub(crate) fn recycle(self, spare: &Mutex<Buffers>) {
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        self.columns.into_iter().flatten().for_each(|bytes| spare.give(bytes));
    }

    /// The unit of a column in a row.
    pub(crate) fn unit(&self, row: u64, column: u16) -> Option<&[u8]> {
        let at = (row - self.rows.start) as usize * self.unit;
        self.columns[usize::from(column)].as_deref().map(|bytes| &bytes[at..at + self.unit])
    }

    /// Rebuilds the columns `wanted` (those that are not there) from the others; false when that can't be done.
    pub(crate) fn rebuild(
        &mut self,
        chunk: &Chunk,
        wanted: &ColumnSet,
        workers: &Workers,
        spare: &Mutex<Buffers>,
    ) -> bool {
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
                let mut buffers = spare.lock().unwrap_or_else(PoisonError::into_inner);
                let mut built: Vec<Vec<u8>> = lost.iter().map(|_| buffers.take(length)).collect();
                drop(buffers);
                // For each row the units to be made, in the order of `lost`.
                let mut units: Vec<(u64, Vec<&mut [u8]>)> =
                    self.rows.clone().map(|row| (row, Vec::with_capacity(lost.len()))).collect();
                for bytes in &mut built {
                    for ((_, outputs), unit) in units.iter_mut().zip(bytes.chunks_mut(self.unit)) {
                        outputs.push(unit);
                    }
                }
                let made = workers.map_each(units, |(row, outputs)| {
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
                        .zip(outputs)
                        .filter_map(|(column, unit)| Some((order.iter().position(|at| at == column)?, unit)))
                        .collect();
                    parity::reconstruct(data, &present, &mut outputs).is_ok()
                });
                if made.contains(&false) {
                    return false;
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

    /// Takes over the rows that `other` has and `which` allows, column by column as far as it has them.
    pub(crate) fn adopt(&mut self, other: &Self, which: impl Fn(u64) -> bool) {
        for row in other.rows.clone().filter(|&row| self.rows.contains(&row) && which(row)) {
            let at = (row - self.rows.start) as usize * self.unit;
            for (column, bytes) in self.columns.iter_mut().enumerate() {
                if let (Some(bytes), Some(unit)) = (bytes, other.unit(row, column as u16)) {
                    bytes[at..at + unit.len()].copy_from_slice(unit);
                }
            }
        }
    }

    /// Makes the parity that is there what the data says, in the rows that `which` allows and all data of which is there.
    pub(crate) fn renew_parity(&mut self, chunk: &Chunk, which: impl Fn(u64) -> bool) {
        let layout = &chunk.layout;
        let Kind::Parity { parity } = layout.kind() else { return };
        for row in self.rows.clone().filter(|&row| which(row)) {
            let data: Vec<&[u8]> =
                (0..layout.data_units()).filter_map(|i| self.unit(row, layout.data_column(row, i))).collect();
            if data.len() < usize::from(layout.data_units()) {
                continue;
            }
            let mut right = vec![vec![0u8; self.unit]; usize::from(parity)];
            let mut outputs: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
            if parity::generate(&data, &mut outputs).is_err() {
                continue;
            }
            for (j, bytes) in (0..parity).zip(right) {
                self.replace(row, layout.parity_column(row, j), 0, &bytes);
            }
        }
    }

    /// Lays bytes into a unit that is there, from byte `at` of it on; whether others were there.
    pub(crate) fn replace(&mut self, row: u64, column: u16, at: usize, bytes: &[u8]) -> bool {
        let from = (row - self.rows.start) as usize * self.unit + at;
        let there =
            self.columns[usize::from(column)].as_mut().map(|unit| &mut unit[from..from + bytes.len()]);
        match there {
            Some(there) if *there != *bytes => {
                there.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
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

/// Rows that are being read: everything that takes, so that it can happen on any thread.
pub(crate) struct Reading {
    loaded: Rows,
    /// Columns that are not there yet.
    wanted: Vec<u16>,
    sources: Vec<Source>,
}

/// One column to be read from one device.
struct Source {
    column: u16,
    device: DeviceId,
    handle: Arc<dyn BlockDevice>,
    at: u64,
    bytes: Vec<u8>,
    result: Result<(), DeviceError>,
}

impl Reading {
    /// Reads, by what runs requests.
    pub(crate) fn run(&mut self, run: impl FnOnce(&mut [Request<'_>]), spare: &Mutex<Buffers>) {
        Self::run_all([self], Vec::new(), run, spare);
    }

    /// Reads several in one batch, in which `beside` is run, too; what came of that.
    pub(crate) fn run_all<'r>(
        readings: impl IntoIterator<Item = &'r mut Self>,
        beside: Vec<Request<'_>>,
        run: impl FnOnce(&mut [Request<'_>]),
        spare: &Mutex<Buffers>,
    ) -> Vec<Result<(), DeviceError>> {
        let mut sources: Vec<&mut Source> = Vec::new();
        let mut buffers = spare.lock().unwrap_or_else(PoisonError::into_inner);
        for reading in readings {
            let length = reading.loaded.column_bytes();
            reading.sources.iter_mut().for_each(|source| source.bytes = buffers.take(length));
            sources.extend(&mut reading.sources);
        }
        drop(buffers);
        let others = beside.len();
        let mut requests: Vec<Request<'_>> = beside;
        requests.extend(sources.iter_mut().map(|source| {
            let buffers = vec![IoSliceMut::new(&mut source.bytes)];
            Request::new(&*source.handle, Op::Read { offset: source.at, buffers })
        }));
        run(&mut requests);
        let mut results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        for (source, result) in sources.into_iter().zip(results.drain(others..)) {
            source.result = result;
        }
        results
    }

    /// The devices that it reads from.
    pub(crate) fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.sources.iter().map(|source| source.device)
    }

    /// Whether there is a place to read every column from.
    pub(crate) fn is_whole(&self) -> bool {
        self.sources.len() == self.wanted.len()
    }

    /// What was read, if nothing failed.
    pub(crate) fn rows(mut self) -> Result<Rows, Self> {
        if self.sources.iter().any(|source| source.result.is_err()) {
            return Err(self);
        }
        for source in self.sources {
            self.loaded.columns[usize::from(source.column)] = Some(source.bytes);
        }
        Ok(self.loaded)
    }
}

fn give(spare: &Mutex<Buffers>, bytes: Vec<u8>) {
    spare.lock().unwrap_or_else(PoisonError::into_inner).give(bytes);
}

impl Core {
    /// Keeps the memory of rows that are done with.
    pub(crate) fn recycle(&mut self, rows: Rows) {
        rows.recycle(&self.spare);
    }

    /// Reads the columns `which` of some rows, each from the first placement that is fresh there and can be read.
    /// Devices that fail are charged; their columns stay away.
    pub(crate) fn read_rows(&mut self, chunk: &Chunk, rows: Range<u64>, which: &ColumnSet) -> Rows {
        let mut reading = self.begin_rows(chunk, rows, which);
        reading.run(|requests| self.runner.run(requests), &self.spare);
        self.end_rows(chunk, reading)
    }

    /// What [`Core::read_rows`] is to read first. Between this and [`Core::end_rows`] it is to be [run](Reading::run),
    /// by anybody.
    pub(crate) fn begin_rows(&mut self, chunk: &Chunk, rows: Range<u64>, which: &ColumnSet) -> Reading {
        let mut reading =
            Reading { loaded: Rows::new(chunk, rows), wanted: which.iter().collect(), sources: Vec::new() };
        self.choose_sources(chunk, &mut reading, 0);
        reading
    }

    /// Takes in what was read; asks other placements of columns that could not be.
    pub(crate) fn end_rows(&mut self, chunk: &Chunk, mut reading: Reading) -> Rows {
        for attempt in 1..=crate::chunk::PLACEMENTS_MAX {
            if reading.sources.is_empty() {
                break;
            }
            for source in std::mem::take(&mut reading.sources) {
                match source.result {
                    Ok(()) => reading.loaded.columns[usize::from(source.column)] = Some(source.bytes),
                    Err(error) => {
                        give(&self.spare, source.bytes);
                        self.device_failed(source.device, &error);
                    }
                }
            }
            let Reading { loaded, wanted, .. } = &mut reading;
            wanted.retain(|&column| loaded.columns[usize::from(column)].is_none());
            self.choose_sources(chunk, &mut reading, attempt);
            reading.run(|requests| self.runner.run(requests), &self.spare);
        }
        reading.loaded
    }

    /// Where to read what is wanted from: the placement number `attempt` of those that are fresh.
    fn choose_sources(&mut self, chunk: &Chunk, reading: &mut Reading, attempt: usize) {
        let length = reading.loaded.column_bytes();
        let offset = reading.loaded.rows.start * u64::from(chunk.layout.unit());
        for &column in &reading.wanted {
            let fresh = self.fresh_placements(chunk, column, offset, length as u64);
            if let Some(&(device, at)) = fresh.get(attempt)
                && let Some(handle) = self.devices.get(&device).and_then(|device| device.open().cloned())
            {
                let (bytes, result) = (Vec::new(), Ok(()));
                reading.sources.push(Source { column, device, handle, at, bytes, result });
            }
        }
    }

    /// Usable placements of a column that are fresh in a range of it, best first: (device, offset on it).
    pub(crate) fn fresh_placements(
        &self,
        chunk: &Chunk,
        column: u16,
        offset: u64,
        length: u64,
    ) -> Vec<(DeviceId, u64)> {
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
