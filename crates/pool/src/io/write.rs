//! Writing to every placement. What could not be written becomes stale before anything is acknowledged.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::sync::Arc;

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
    Bytes(Arc<[u8]>),
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

/// A piece with its parity, ready to be cut into requests.
struct Encoded {
    chunk: Chunk,
    offset: u64,
    flat: Vec<u8>,
    parity: Vec<Vec<u8>>,
}

fn encode(chunk: &Chunk, piece: &Piece) -> Encoded {
    let mut flat = Vec::with_capacity(piece.length as usize);
    piece.parts.iter().for_each(|part| flat.extend_from_slice(part.as_ref()));
    flat.resize(piece.length as usize, 0);
    let layout = &chunk.layout;
    let (unit, row_bytes) = (layout.unit() as usize, layout.row_bytes() as usize);
    let rows = if chunk.has_parity() { flat.len() / row_bytes } else { 0 };
    let mut parity = vec![vec![0u8; rows * unit]; usize::from(layout.parity())];
    for row in 0..rows {
        let data: Vec<&[u8]> = flat[row * row_bytes..(row + 1) * row_bytes].chunks_exact(unit).collect();
        let mut outputs: Vec<&mut [u8]> =
            parity.iter_mut().map(|bytes| &mut bytes[row * unit..(row + 1) * unit]).collect();
        let generated = parity::generate(&data, &mut outputs);
        debug_assert!(generated.is_ok(), "a chunk's layout is within what parity can do");
    }
    Encoded { chunk: chunk.clone(), offset: piece.offset, flat, parity }
}

/// The byte slices that a piece puts into each column: (column, offset in the column, slices).
fn slices(encoded: &Encoded) -> Vec<(u16, u64, Vec<&[u8]>)> {
    let Encoded { chunk, offset, flat, parity } = encoded;
    let layout = &chunk.layout;
    let unit = u64::from(layout.unit());
    let mut columns: Vec<(u16, u64, Vec<&[u8]>)> = Vec::new();
    if matches!(layout.kind(), Kind::Parity { .. }) {
        let first = offset / layout.row_bytes();
        let rows = flat.len() as u64 / layout.row_bytes();
        for column in 0..layout.columns() {
            let parts = (0..rows)
                .map(|row| {
                    let at = (row * unit) as usize;
                    match layout.role(first + row, column) {
                        Role::Parity(j) => &parity[usize::from(j)][at..at + unit as usize],
                        Role::Data(index) => {
                            let at = (row * layout.row_bytes() + u64::from(index) * unit) as usize;
                            &flat[at..at + unit as usize]
                        }
                    }
                })
                .collect();
            columns.push((column, first * unit, parts));
        }
        return columns;
    }
    let mut rest = &flat[..];
    for segment in layout.segments(*offset, flat.len() as u64) {
        let (head, tail) = rest.split_at(segment.length as usize);
        rest = tail;
        let at = segment.cell.row * unit + u64::from(segment.cell.within);
        for column in layout.columns_of(segment.cell.row, segment.cell.index) {
            let open = columns.iter_mut().rev().find(|(c, ..)| *c == column);
            match open {
                Some((_, from, parts))
                    if *from + parts.iter().map(|part| part.len() as u64).sum::<u64>() == at
                        && parts.len() < 512 =>
                {
                    parts.push(head);
                }
                _ => columns.push((column, at, vec![head])),
            }
        }
    }
    columns
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
        let mut encoded = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let Some(chunk) = self.map.get(piece.chunk) else {
                return Err(PoolError::Corrupt(format!("chunk {} is gone from the chunk map", piece.chunk)));
            };
            encoded.push(encode(chunk, piece));
        }
        let mut missed: Vec<Written> = Vec::new();
        let mut planned: Vec<(Written, u64, Vec<&[u8]>)> = Vec::new();
        for encoded in &encoded {
            for (column, offset, parts) in slices(encoded) {
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
