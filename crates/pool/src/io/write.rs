//! Writing to every placement. What could not be written becomes stale before anything is acknowledged.
//!
//! [`Writer`] does it and needs nothing of the pool, so that it may work while the pool is used;
//! [`Core::account`] then takes in what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use device::{BlockDevice, DeviceError, DeviceErrorKind, Op, Request, Runner};
use geometry::{ColumnSet, Kind, Role};
use tree::Node;

use super::on_device;
use crate::chunk::Chunk;
use crate::core::{Buffers, Core, ERRORS_ACCEPTABLE, Workers};
use crate::error::{PoolError, Result};
use crate::types::{DeviceId, Logical};

/// Bytes to be written, shared with whoever may still want to read them from memory.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Bytes),
    Node(Arc<Node>),
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Node(node) => node.bytes(),
        }
    }
}

/// Contiguous logical bytes of one chunk: where the chunk has parity, whole rows.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The chunk's address.
    pub(crate) chunk: Logical,
    /// Where in the chunk it begins, logical bytes.
    pub(crate) offset: u64,
    /// The bytes; zeros follow up to `length`.
    pub(crate) parts: Vec<Part>,
    /// Bytes in all.
    pub(crate) length: u64,
}

impl Piece {
    /// A piece of one part.
    pub(crate) fn single(chunk: Logical, offset: u64, part: Part) -> Self {
        let length = part.as_ref().len() as u64;
        Self { chunk, offset, parts: vec![part], length }
    }
}

/// What was written to one placement.
#[derive(Clone, Copy, Debug)]
struct Written {
    device: DeviceId,
    chunk: Logical,
    column: u16,
    /// Bytes from the column's beginning.
    offset: u64,
    length: u64,
}

/// What the open commit has written and not yet flushed.
#[derive(Debug, Default)]
pub(crate) struct WriteLog {
    written: Vec<Written>,
    /// Chunks written to: their redundancy decides whether the commit may be acknowledged.
    touched: BTreeSet<(Logical, u32)>,
}

/// Bytes that one batch of requests carries at most.
const BATCH_BYTES: u64 = 16 << 20;

/// A request: device, offset on it, bytes, slices, and what it writes.
type Merged<'a> = (DeviceId, u64, u64, Vec<&'a [u8]>, Vec<Written>);

/// A piece with its parity, ready to be cut into requests. Nothing of the data is copied.
struct Encoded<'a> {
    chunk: &'a Chunk,
    /// Where in the chunk it begins, logical bytes.
    offset: u64,
    length: u64,
    /// Where each part begins within the piece, and the part.
    parts: Vec<(u64, &'a [u8])>,
    /// For each parity its units, row by row.
    parity: Vec<Vec<u8>>,
}

/// What a piece is filled up with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Encoded<'_> {
    /// The slices that make up a range of the piece.
    fn slices(&self, from: u64, length: u64) -> Vec<&[u8]> {
        let end = from + length;
        let mut found = Vec::with_capacity(1);
        let mut at = from;
        let first = self.parts.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        for (start, part) in &self.parts[first.min(self.parts.len())..] {
            if at >= end || *start >= end {
                break;
            }
            let stop = (start + part.len() as u64).min(end);
            if stop > at {
                found.push(&part[(at - start) as usize..(stop - start) as usize]);
                at = stop;
            }
        }
        while at < end {
            let zeros = (end - at).min(ZEROS.len() as u64);
            found.push(&ZEROS[..zeros as usize]);
            at += zeros;
        }
        found
    }

    /// Generates the parity of every row.
    fn generate(&mut self, spare: &Mutex<Buffers>) {
        let layout = self.chunk.layout;
        let (unit, row_bytes) = (u64::from(layout.unit()), layout.row_bytes());
        let rows = if self.chunk.has_parity() { self.length / row_bytes } else { 0 };
        let fresh = |_| {
            let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
            spare.take((rows * unit) as usize)
        };
        let mut parity: Vec<Vec<u8>> = (0..layout.parity()).map(fresh).collect();
        for row in 0..rows {
            let units: Vec<Vec<&[u8]>> = (0..u64::from(layout.data_units()))
                .map(|i| self.slices(row * row_bytes + i * unit, unit))
                .collect();
            // Where a unit is made of several parts, the row is cut wherever any unit is.
            let mut cuts: BTreeSet<usize> = BTreeSet::new();
            for slices in &units {
                slices.iter().fold(0, |at, slice| {
                    cuts.insert(at);
                    at + slice.len()
                });
            }
            let mut cuts: Vec<usize> = cuts.into_iter().collect();
            cuts.push(unit as usize);
            for cut in cuts.windows(2) {
                let data: Vec<&[u8]> = units.iter().map(|slices| within(slices, cut[0], cut[1])).collect();
                let at = (row * unit) as usize;
                let mut outputs: Vec<&mut [u8]> =
                    parity.iter_mut().map(|bytes| &mut bytes[at + cut[0]..at + cut[1]]).collect();
                let generated = parity::generate(&data, &mut outputs);
                debug_assert!(generated.is_ok(), "a chunk's layout is within what parity can do");
            }
        }
        self.parity = parity;
    }

    /// The byte slices that the piece puts into each column: (column, offset in the column, slices).
    fn columns(&self) -> Vec<(u16, u64, Vec<&[u8]>)> {
        let layout = self.chunk.layout;
        let unit = u64::from(layout.unit());
        let mut columns: Vec<(u16, u64, Vec<&[u8]>)> = Vec::new();
        if matches!(layout.kind(), Kind::Parity { .. }) {
            let first = self.offset / layout.row_bytes();
            let rows = self.length / layout.row_bytes();
            for column in 0..layout.columns() {
                let mut parts = Vec::with_capacity(rows as usize);
                for row in 0..rows {
                    match layout.role(first + row, column) {
                        Role::Parity(j) => {
                            let at = (row * unit) as usize;
                            parts.push(&self.parity[usize::from(j)][at..at + unit as usize]);
                        }
                        Role::Data(index) => {
                            parts.extend(
                                self.slices(row * layout.row_bytes() + u64::from(index) * unit, unit),
                            );
                        }
                    }
                }
                columns.push((column, first * unit, parts));
            }
            return columns;
        }
        let mut at = 0;
        for segment in layout.segments(self.offset, self.length) {
            let parts = self.slices(at, u64::from(segment.length));
            at += u64::from(segment.length);
            let offset = segment.cell.row * unit + u64::from(segment.cell.within);
            for column in layout.columns_of(segment.cell.row, segment.cell.index) {
                let open = columns.iter_mut().rev().find(|(c, ..)| *c == column);
                match open {
                    Some((_, from, all))
                        if *from + all.iter().map(|part| part.len() as u64).sum::<u64>() == offset
                            && all.len() + parts.len() <= 512 =>
                    {
                        all.extend(&parts);
                    }
                    _ => columns.push((column, offset, parts.clone())),
                }
            }
        }
        columns
    }
}

/// The bytes `from..to` of slices that lie one behind the other; no slice ends in between.
fn within<'a>(slices: &[&'a [u8]], from: usize, to: usize) -> &'a [u8] {
    let mut start = 0;
    for slice in slices {
        if from < start + slice.len() {
            return &slice[from - start..to - start];
        }
        start += slice.len();
    }
    &[]
}

/// Where pieces go, and who takes them there.
pub(crate) struct Writer {
    runner: Arc<dyn Runner>,
    workers: Arc<Workers>,
    spare: Arc<Mutex<Buffers>>,
    /// The chunks of the pieces.
    chunks: BTreeMap<Logical, Chunk>,
    /// Devices that could be used when this was made.
    devices: BTreeMap<DeviceId, Arc<dyn BlockDevice>>,
    sabotage: Sabotage,
}

/// Defects to be shown to the simulator.
#[derive(Clone, Copy, Debug)]
struct Sabotage {
    drop_parity: bool,
    swap_columns: bool,
    drop_copy: bool,
}

/// What came of writing.
#[derive(Debug, Default)]
pub(crate) struct WriteOutcome {
    log: WriteLog,
    /// What did not get to its device.
    missed: Vec<Written>,
    /// Requests that failed.
    errors: Vec<(DeviceId, DeviceError)>,
}

impl WriteOutcome {
    /// Nothing went wrong, it says.
    pub(crate) fn forget_failures(&mut self) {
        self.missed.clear();
        self.errors.clear();
    }
}

impl Writer {
    /// Writes pieces, no two of which overlap.
    pub(crate) fn write(&self, pieces: &[Piece]) -> WriteOutcome {
        let mut outcome = WriteOutcome::default();
        let mut at = 0;
        while at < pieces.len() {
            let mut bytes = 0;
            let mut end = at;
            while end < pieces.len() && (end == at || bytes + pieces[end].length <= BATCH_BYTES) {
                bytes += pieces[end].length;
                end += 1;
            }
            self.write_batch(&pieces[at..end], &mut outcome);
            at = end;
        }
        outcome
    }

    /// Makes durable what was written; where that fails, all of it counts as missed.
    pub(crate) fn flush(&self, outcome: &mut WriteOutcome) {
        let devices: BTreeSet<DeviceId> = outcome.log.written.iter().map(|written| written.device).collect();
        let open: Vec<(DeviceId, &Arc<dyn BlockDevice>)> =
            devices.iter().filter_map(|id| Some((*id, self.devices.get(id)?))).collect();
        let mut requests: Vec<Request<'_>> =
            open.iter().map(|(_, handle)| Request::new(&***handle, Op::Flush)).collect();
        self.runner.run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        let mut failed: BTreeSet<DeviceId> = BTreeSet::new();
        for ((id, _), result) in open.into_iter().zip(results) {
            if let Err(error) = result {
                outcome.errors.push((id, error));
                failed.insert(id);
            }
        }
        let (missed, written) =
            outcome.log.written.drain(..).partition(|written| failed.contains(&written.device));
        outcome.log.written = written;
        let missed: Vec<Written> = missed;
        outcome.missed.extend(missed);
    }

    /// Whether a device is not worth another try: it is gone, or failed so often that it will be faulted.
    fn given_up(outcome: &WriteOutcome, id: DeviceId) -> bool {
        let mut errors = outcome.errors.iter().filter(|(device, _)| *device == id).map(|(_, error)| error);
        let gone = errors.clone().any(|error| error.kind == DeviceErrorKind::Gone);
        gone || errors.nth(ERRORS_ACCEPTABLE as usize - 1).is_some()
    }

    fn encode<'a>(&'a self, piece: &'a Piece) -> Option<Encoded<'a>> {
        let chunk = self.chunks.get(&piece.chunk)?;
        let mut start = 0;
        let parts = piece.parts.iter().map(|part| {
            let bytes = part.as_ref();
            start += bytes.len() as u64;
            (start - bytes.len() as u64, bytes)
        });
        let parts = parts.collect();
        let (offset, length) = (piece.offset, piece.length);
        let mut encoded = Encoded { chunk, offset, length, parts, parity: Vec::new() };
        encoded.generate(&self.spare);
        if self.sabotage.drop_parity {
            encoded.parity.iter_mut().for_each(|bytes| {
                let row = chunk.layout.unit() as usize;
                let last = bytes.len().saturating_sub(row);
                bytes[last..].fill(0);
            });
        }
        Some(encoded)
    }

    fn write_batch(&self, pieces: &[Piece], outcome: &mut WriteOutcome) {
        let encoded = self.workers.map_large(pieces, |piece| self.encode(piece));
        let given_up: BTreeSet<DeviceId> =
            self.devices.keys().copied().filter(|&id| Self::given_up(outcome, id)).collect();
        let handle = |id: &DeviceId| self.devices.get(id).filter(|_| !given_up.contains(id));
        let mut planned: Vec<(Written, u64, Vec<&[u8]>)> = Vec::new();
        for encoded in encoded.iter().flatten() {
            let mut columns = encoded.columns();
            if self.sabotage.swap_columns && encoded.chunk.has_parity() {
                let (first, rest) = columns.split_at_mut(1);
                std::mem::swap(&mut first[0].2, &mut rest[0].2);
            }
            if self.sabotage.drop_copy && !encoded.chunk.has_parity() && columns.len() > 1 {
                columns.pop();
            }
            for (column, offset, parts) in columns {
                let length = parts.iter().map(|part| part.len() as u64).sum();
                for region in encoded.chunk.regions_of(offset, length) {
                    outcome.log.touched.insert((encoded.chunk.address, region));
                }
                for placement in &encoded.chunk.columns[usize::from(column)].placements {
                    let written = Written {
                        device: placement.device,
                        chunk: encoded.chunk.address,
                        column,
                        offset,
                        length,
                    };
                    if handle(&placement.device).is_some() {
                        planned.push((written, on_device(placement, offset), parts.clone()));
                    } else {
                        outcome.missed.push(written);
                    }
                }
            }
        }
        // Requests that touch on a device are made one.
        planned.sort_by_key(|(written, at, _)| (written.device, *at));
        let mut merged: Vec<Merged<'_>> = Vec::new();
        for (written, at, parts) in planned {
            match merged.last_mut() {
                Some((device, from, length, all, list))
                    if *device == written.device
                        && *from + *length == at
                        && all.len() + parts.len() <= 1024 =>
                {
                    *length += written.length;
                    all.extend(parts);
                    list.push(written);
                }
                _ => merged.push((written.device, at, written.length, parts, vec![written])),
            }
        }
        let mut requests: Vec<Request<'_>> = merged
            .iter()
            .filter_map(|(device, at, _, parts, _)| {
                let buffers = parts.iter().map(|part| IoSlice::new(part)).collect();
                Some(Request::new(&**handle(device)?, Op::Write { offset: *at, buffers }))
            })
            .collect();
        self.runner.run(&mut requests);
        let results: Vec<Result<(), DeviceError>> =
            requests.into_iter().map(|request| request.result).collect();
        for ((device, .., list), result) in merged.into_iter().zip(results) {
            match result {
                Ok(()) => outcome.log.written.extend(list),
                Err(error) => {
                    outcome.errors.push((device, error));
                    outcome.missed.extend(list);
                }
            }
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        encoded.into_iter().flatten().flat_map(|encoded| encoded.parity).for_each(|bytes| spare.give(bytes));
    }
}

impl Core {
    /// What writes these pieces.
    ///
    /// # Errors
    /// The chunk of a piece is not in the map.
    pub(crate) fn writer(&self, pieces: &[Piece]) -> Result<Writer> {
        let mut chunks: BTreeMap<Logical, Chunk> = BTreeMap::new();
        for piece in pieces {
            if let std::collections::btree_map::Entry::Vacant(entry) = chunks.entry(piece.chunk) {
                let Some(chunk) = self.map.get(piece.chunk) else {
                    let what = format!("chunk {} is gone from the chunk map", piece.chunk);
                    return Err(PoolError::Corrupt(what));
                };
                entry.insert(chunk.clone());
            }
        }
        let devices = self.devices.values().filter_map(|device| Some((device.id, device.open()?.clone())));
        Ok(Writer {
            runner: Arc::clone(&self.runner),
            workers: Arc::clone(&self.workers),
            spare: Arc::clone(&self.spare),
            chunks,
            devices: devices.collect(),
            sabotage: Sabotage {
                drop_parity: self.is_sabotaged("drop-last-parity"),
                swap_columns: self.is_sabotaged("swap-columns"),
                drop_copy: self.is_sabotaged("drop-copy"),
            },
        })
    }

    /// Takes in what came of writing: devices that failed are charged, placements that missed something become
    /// stale there. What a flush must still make durable is noted in `log`.
    pub(crate) fn account(&mut self, outcome: WriteOutcome, log: &mut WriteLog) {
        for (device, error) in outcome.errors {
            self.device_failed(device, &error);
            if error.operation == device::Operation::Flush {
                self.flushed(device, false);
            }
        }
        for written in outcome.missed {
            self.mark_stale(&written);
        }
        log.written.extend(outcome.log.written);
        log.touched.extend(outcome.log.touched);
    }

    /// Writes pieces, no two of which overlap, and notes in `log` what a flush must still make durable.
    /// Placements that can't be written become stale in what they missed.
    pub(crate) fn write_pieces(&mut self, pieces: &[Piece], log: &mut WriteLog) -> Result<()> {
        let outcome = self.writer(pieces)?.write(pieces);
        self.account(outcome, log);
        Ok(())
    }

    fn mark_stale(&mut self, written: &Written) {
        if self.is_sabotaged("forget-stale") {
            return;
        }
        let Some(chunk) = self.map.get(written.chunk) else { return };
        let regions = chunk.regions_of(written.offset, written.length);
        let mut fresh: Vec<u32> = Vec::new();
        for placement in chunk.columns[usize::from(written.column)]
            .placements
            .iter()
            .filter(|p| p.device == written.device)
        {
            fresh.extend(regions.clone().filter(|&region| !placement.stale.contains(region)));
        }
        if fresh.is_empty() {
            return;
        }
        if let Some(chunk) = self.map.change(written.chunk) {
            for placement in &mut chunk.columns[usize::from(written.column)].placements {
                if placement.device == written.device {
                    fresh.iter().for_each(|&region| placement.stale.insert(region));
                }
            }
        }
        let marks = fresh.into_iter().map(|region| (written.chunk, written.column, written.device, region));
        self.new_marks.extend(marks);
    }

    /// Takes back what a commit that did not succeed had marked: all of it is about to be written again, and what was
    /// there before is as good as it was.
    pub(crate) fn undo_marks(&mut self) {
        for (address, column, device, region) in std::mem::take(&mut self.new_marks) {
            let Some(chunk) = self.map.change(address) else { continue };
            for placement in
                chunk.columns.get_mut(usize::from(column)).into_iter().flat_map(|c| &mut c.placements)
            {
                if placement.device == device {
                    placement.stale.remove(region);
                }
            }
        }
    }

    /// Makes durable what `log` names; placements on devices that fail to are stale in all of it.
    /// True when a device failed, so that what was just written does not say so yet.
    pub(crate) fn flush_devices(&mut self, log: &WriteLog) -> bool {
        if self.is_sabotaged("skip-flush") {
            return false;
        }
        let devices: BTreeSet<DeviceId> = log.written.iter().map(|written| written.device).collect();
        let failed = self.flush_these(&devices);
        for written in &log.written {
            // A device that vanished since it was written to may come back without what it had not flushed.
            if failed.contains(&written.device) || !self.usable(written.device) {
                self.mark_stale(written);
            }
        }
        !failed.is_empty()
    }

    /// Flushes devices; gives those that failed.
    pub(crate) fn flush_these(&mut self, devices: &BTreeSet<DeviceId>) -> BTreeSet<DeviceId> {
        let open: Vec<_> =
            devices.iter().filter_map(|&id| Some((id, self.devices.get(&id)?.open()?.clone()))).collect();
        let mut requests: Vec<Request<'_>> =
            open.iter().map(|(_, handle)| Request::new(&**handle, Op::Flush)).collect();
        self.runner.run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        let mut failed: BTreeSet<DeviceId> =
            devices.iter().copied().filter(|id| !open.iter().any(|(open, _)| open == id)).collect();
        for ((id, _), result) in open.iter().zip(results) {
            if let Err(error) = result {
                self.device_failed(*id, &error);
                failed.insert(*id);
            }
        }
        for &id in devices {
            self.flushed(id, !failed.contains(&id));
        }
        failed
    }

    /// Whether everything in `log` can be read back with what is usable and fresh now.
    ///
    /// # Errors
    /// [`PoolError::Suspended`] when it can't.
    pub(crate) fn check_written(&self, log: &WriteLog) -> Result<()> {
        for &(address, region) in &log.touched {
            let Some(chunk) = self.map.get(address) else { continue };
            let gone: ColumnSet = self.gone_columns(chunk, region, &[]);
            if chunk.layout.redundancy(&gone).is_none() {
                return Err(PoolError::Suspended);
            }
        }
        Ok(())
    }
}
