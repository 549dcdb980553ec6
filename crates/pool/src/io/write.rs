//! Writing to every placement. What could not be written becomes stale before anything is acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use device::{DeviceError, Op, Request};
use geometry::{ColumnSet, Kind, Role};
use tree::Node;

use super::on_device;
use crate::chunk::Chunk;
use crate::core::Core;
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
    fn generate(&mut self) {
        let layout = self.chunk.layout;
        let (unit, row_bytes) = (u64::from(layout.unit()), layout.row_bytes());
        let rows = if self.chunk.has_parity() { self.length / row_bytes } else { 0 };
        let mut parity = vec![vec![0u8; (rows * unit) as usize]; usize::from(layout.parity())];
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

impl Core {
    /// Writes pieces, no two of which overlap, and notes in `log` what a flush must still make durable.
    /// Placements that can't be written become stale in what they missed.
    pub(crate) fn write_pieces(&mut self, pieces: &[Piece], log: &mut WriteLog) -> Result<()> {
        let mut at = 0;
        while at < pieces.len() {
            let mut bytes = 0;
            let mut end = at;
            while end < pieces.len() && (end == at || bytes + pieces[end].length <= BATCH_BYTES) {
                bytes += pieces[end].length;
                end += 1;
            }
            self.write_batch(&pieces[at..end], log)?;
            at = end;
        }
        Ok(())
    }

    fn write_batch(&mut self, pieces: &[Piece], log: &mut WriteLog) -> Result<()> {
        let mut chunks: BTreeMap<Logical, Chunk> = BTreeMap::new();
        for piece in pieces {
            let Some(chunk) = self.map.get(piece.chunk) else {
                return Err(PoolError::Corrupt(format!("chunk {} is gone from the chunk map", piece.chunk)));
            };
            chunks.entry(piece.chunk).or_insert_with(|| chunk.clone());
        }
        let drop_parity = self.is_sabotaged("drop-last-parity");
        let encoded = self.workers.map_large(pieces, |piece| {
            let mut start = 0;
            let parts = piece.parts.iter().map(|part| {
                let bytes = part.as_ref();
                start += bytes.len() as u64;
                (start - bytes.len() as u64, bytes)
            });
            let mut encoded = Encoded {
                chunk: &chunks[&piece.chunk],
                offset: piece.offset,
                length: piece.length,
                parts: parts.collect(),
                parity: Vec::new(),
            };
            encoded.generate();
            if drop_parity {
                encoded.parity.iter_mut().for_each(|bytes| {
                    let row = chunks[&piece.chunk].layout.unit() as usize;
                    let last = bytes.len().saturating_sub(row);
                    bytes[last..].fill(0);
                });
            }
            encoded
        });
        let mut missed: Vec<Written> = Vec::new();
        let mut planned: Vec<(Written, u64, Vec<&[u8]>)> = Vec::new();
        for encoded in &encoded {
            let mut columns = encoded.columns();
            if self.is_sabotaged("swap-columns") && encoded.chunk.has_parity() {
                let (first, rest) = columns.split_at_mut(1);
                std::mem::swap(&mut first[0].2, &mut rest[0].2);
            }
            if self.is_sabotaged("drop-copy") && !encoded.chunk.has_parity() && columns.len() > 1 {
                columns.pop();
            }
            for (column, offset, parts) in columns {
                let length = parts.iter().map(|part| part.len() as u64).sum();
                for region in encoded.chunk.regions_of(offset, length) {
                    log.touched.insert((encoded.chunk.address, region));
                }
                for placement in &encoded.chunk.columns[usize::from(column)].placements {
                    let written = Written {
                        device: placement.device,
                        chunk: encoded.chunk.address,
                        column,
                        offset,
                        length,
                    };
                    if self.usable(placement.device) {
                        planned.push((written, on_device(placement, offset), parts.clone()));
                    } else {
                        missed.push(written);
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
        let handles: Vec<_> = merged
            .iter()
            .map(|(device, ..)| self.devices.get(device).and_then(|d| d.open().cloned()))
            .collect();
        let mut requests: Vec<Request<'_>> = merged
            .iter()
            .zip(&handles)
            .filter_map(|((_, at, _, parts, _), handle)| {
                let buffers = parts.iter().map(|part| IoSlice::new(part)).collect();
                Some(Request::new(&**handle.as_ref()?, Op::Write { offset: *at, buffers }))
            })
            .collect();
        self.runner.run(&mut requests);
        let results: Vec<Result<(), DeviceError>> =
            requests.into_iter().map(|request| request.result).collect();
        for ((device, .., list), result) in merged.into_iter().zip(results) {
            match result {
                Ok(()) => log.written.extend(list),
                Err(error) => {
                    self.device_failed(device, &error);
                    missed.extend(list);
                }
            }
        }
        for written in missed {
            self.mark_stale(&written);
        }
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
        failed
    }

    /// Whether everything in `log` can be read back with what is usable and fresh now.
    ///
    /// # Errors
    /// [`PoolError::Suspended`] when it can't.
    pub(crate) fn check_written(&self, log: &WriteLog) -> Result<()> {
        for &(address, region) in &log.touched {
            let Some(chunk) = self.map.get(address) else { continue };
            let gone: ColumnSet = self.gone_columns(chunk, region, None);
            if chunk.layout.redundancy(&gone).is_none() {
                return Err(PoolError::Suspended);
            }
        }
        Ok(())
    }
}
