//! Copy-on-write overlays: a device that reads as its base until it is written, and never writes the base.
//!
//! A write goes to the delta, in memory or in a file, together with what the base holds in the rest of the
//! 4096-byte block; [`map`] says which blocks are there; [`format`] is the file. A flush makes the data durable,
//! then the tables that speak of it; after a crash a block reads as it was at some time since the last flush.
//! The delta grows with what was written, 64 KiB at a time, and needs no more of its file system than sparse
//! files, so a large disk fits over a small file system.

mod format;
mod map;
#[cfg(test)]
mod tests;

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::check::{Target, lock_exclusive, lock_shared, read_length, write_length};
use crate::direct::gather;
use crate::{
    Access, BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, FileDevice, MemoryDevice, Operation,
};
use format::{BLOCK, Bytes, TABLE, Table};
use map::{Map, Source};

/// Most bytes that are gathered for the delta at once, a multiple of the block.
const WRITE_MAX: u64 = 1 << 20;

/// A device over a base that is never written.
#[derive(Debug)]
pub struct OverlayDevice {
    info: DeviceInfo,
    base: Arc<dyn BlockDevice>,
    /// The base's size when the overlay was made, bytes.
    size: u64,
    delta: Box<dyn Growing>,
    /// Whether the delta is kept and so needs its tables.
    kept: bool,
    map: RwLock<Map>,
}

/// A device that the delta can live on.
trait Growing: BlockDevice {
    /// Makes it `size` bytes long; new bytes are zeros.
    fn grow(&self, size: u64) -> Result<(), DeviceError>;
}

impl Growing for MemoryDevice {
    fn grow(&self, size: u64) -> Result<(), DeviceError> {
        self.set_size(size);
        Ok(())
    }
}

impl Growing for FileDevice {
    fn grow(&self, size: u64) -> Result<(), DeviceError> {
        self.set_size(size)
    }
}

impl OverlayDevice {
    /// An overlay whose changes live in memory and end with it.
    ///
    /// # Errors
    /// If the base does not tell its size.
    pub fn in_memory(base: Arc<dyn BlockDevice>) -> Result<Self, DeviceError> {
        let name = format!("changes of {}", base.info().name);
        let size = base.size()?;
        let delta = Box::new(MemoryDevice::new(name, format::file_size(0)));
        Ok(Self::with(base, size, delta, false, Map::default()))
    }

    /// An overlay whose changes go to a new file at `delta`.
    ///
    /// # Errors
    /// If the base does not tell its size, the file exists already or cannot be made.
    pub fn create(base: Arc<dyn BlockDevice>, delta: impl AsRef<Path>) -> Result<Self, DeviceError> {
        Self::create_on(base, Box::new(FileDevice::create(delta, format::file_size(0))?))
    }

    /// The overlay whose changes are in the file at `delta`, over the same base as before.
    ///
    /// # Errors
    /// `Unopenable` if the file is no delta, is damaged, or belongs to a base of another size.
    pub fn open(base: Arc<dyn BlockDevice>, delta: impl AsRef<Path>) -> Result<Self, DeviceError> {
        Self::open_on(base, Box::new(FileDevice::open(delta, Access::ReadWrite)?))
    }

    fn create_on(base: Arc<dyn BlockDevice>, delta: Box<dyn Growing>) -> Result<Self, DeviceError> {
        let size = base.size()?;
        delta.write(0, &format::encode_header(size))?;
        delta.flush()?;
        Ok(Self::with(base, size, delta, true, Map::default()))
    }

    fn open_on(base: Arc<dyn BlockDevice>, delta: Box<dyn Growing>) -> Result<Self, DeviceError> {
        let size = base.size()?;
        let name = delta.info().name.clone();
        let refuse = |offset: u64, why: String| {
            Target { device: &name, operation: Operation::Open, offset, length: TABLE }
                .error(DeviceErrorKind::Unopenable(why))
        };
        let delta_size = delta.size()?;
        if delta_size < TABLE {
            return Err(refuse(0, "it is too short for an overlay's delta file".to_owned()));
        }
        let mut header: Bytes = [0; TABLE as usize];
        delta.read(0, &mut header)?;
        let base_size = format::decode_header(&header).map_err(|why| refuse(0, why))?;
        if base_size != size {
            let why =
                format!("it belongs to a base of {base_size} bytes, but {} has {size}", base.info().name);
            return Err(refuse(16, why));
        }
        let segments = format::segments(delta_size);
        if segments > format::segments_max(size) {
            return Err(refuse(0, format!("with {delta_size} bytes it is far too long for its base")));
        }
        // Growing the file and filling it are two steps, and a crash may come between.
        if delta_size < format::file_size(segments) {
            delta.grow(format::file_size(segments))?;
        }
        let mut map = Map::default();
        for segment in 0..segments {
            let at = format::table_offset(segment, 0);
            let mut slots: [Bytes; 2] = [[0; TABLE as usize]; 2];
            let [first, second] = &mut slots;
            delta.read_vectored(at, &mut [IoSliceMut::new(first), IoSliceMut::new(second)])?;
            let table = Table::newer([&slots[0], &slots[1]], segment).ok_or_else(|| {
                refuse(at, format!("both copies of table {segment}, at offset {at}, are damaged"))
            })?;
            map.load(&table, size)
                .map_err(|why| refuse(at, format!("table {segment}, at offset {at}: {why}")))?;
        }
        Ok(Self::with(base, size, delta, true, map))
    }

    fn with(base: Arc<dyn BlockDevice>, size: u64, delta: Box<dyn Growing>, kept: bool, map: Map) -> Self {
        let info = DeviceInfo { discards: false, block_device: false, ..base.info().clone() };
        Self { info, base, size, delta, kept, map: RwLock::new(map) }
    }

    /// The ranges that no longer read as the base, whole blocks, in order.
    pub fn changed(&self) -> Vec<Range<u64>> {
        let map = lock_shared(&self.map);
        let runs = map.runs(0..self.size);
        runs.filter(|(_, source)| matches!(source, Source::Delta(_))).map(|(range, _)| range).collect()
    }

    fn target(&self, operation: Operation, offset: u64, length: u64) -> Target<'_> {
        Target { device: &self.info.name, operation, offset, length }
    }

    /// Fills `bytes` from `offset` on out of base and delta.
    fn read_runs(&self, map: &Map, offset: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let mut rest = bytes;
        for (range, source) in map.runs(offset..offset + rest.len() as u64) {
            let (part, after) = rest.split_at_mut((range.end - range.start) as usize);
            match source {
                Source::Base => self.base.read(range.start, part)?,
                Source::Delta(at) => self.delta.read(at, part)?,
            }
            rest = after;
        }
        Ok(())
    }

    /// Writes whole blocks to the delta, allocating what is missing.
    fn write_blocks(&self, map: &mut Map, start: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let blocks = start / BLOCK..start / BLOCK + bytes.len() as u64 / BLOCK;
        let segments = map.allocate(blocks.clone());
        let needed = format::file_size(segments);
        if self.delta.size()? < needed {
            self.delta.grow(needed)?;
        }
        let mut rest = bytes;
        for (run, at) in map.placed(blocks.clone()) {
            let (part, after) = rest.split_at(((run.end - run.start) * BLOCK) as usize);
            self.delta.write(at, part)?;
            rest = after;
        }
        // Only now do reads find them.
        map.mark(blocks);
        Ok(())
    }
}

impl BlockDevice for OverlayDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.size)
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let length = read_length(buffers);
        self.target(Operation::Read, offset, length).require_within(self.size)?;
        let map = lock_shared(&self.map);
        // Mostly a request lies wholly in one place and can be passed on as it is.
        let mut runs = map.runs(offset..offset + length);
        if let (Some((_, source)), None) = (runs.next(), runs.next()) {
            return match source {
                Source::Base => self.base.read_vectored(offset, buffers),
                Source::Delta(at) => self.delta.read_vectored(at, buffers),
            };
        }
        let mut at = offset;
        for buffer in buffers {
            self.read_runs(&map, at, buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        let length = write_length(buffers);
        self.target(Operation::Write, offset, length).require_within(self.size)?;
        let end = offset + length;
        let mut map = lock_exclusive(&self.map);
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let start = at / BLOCK * BLOCK;
            let stop = end.min(start + WRITE_MAX);
            let padded = stop.div_ceil(BLOCK) * BLOCK;
            bytes.clear();
            bytes.resize((padded - start) as usize, 0);
            // The rest of the first and last block comes from where it was before.
            if at > start {
                let block_end = (start + BLOCK).min(self.size);
                self.read_runs(&map, start, &mut bytes[..(block_end - start) as usize])?;
            }
            let last = padded - BLOCK;
            if stop < padded.min(self.size) && (last > start || at == start) {
                let block_end = padded.min(self.size);
                self.read_runs(
                    &map,
                    last,
                    &mut bytes[(last - start) as usize..(block_end - start) as usize],
                )?;
            }
            gather(
                &mut bytes[(at - start) as usize..(stop - start) as usize],
                buffers,
                (at - offset) as usize,
            );
            self.write_blocks(&mut map, start, &bytes)?;
            at = stop;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut map = lock_exclusive(&self.map);
        if !self.kept {
            return Ok(());
        }
        self.delta.flush()?;
        let tables = map.dirty_tables();
        if tables.is_empty() {
            return Ok(());
        }
        for (segment, table) in &tables {
            self.delta
                .write(format::table_offset(*segment, table.generation % 2), &table.encode(*segment))?;
        }
        self.delta.flush()?;
        map.saved(&tables);
        Ok(())
    }

    /// Checks the range and forgets nothing: the bytes go on reading as they did.
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.target(Operation::Discard, offset, length).require_within(self.size)
    }
}
