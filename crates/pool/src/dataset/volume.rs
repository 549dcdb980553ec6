//! Volumes: creating, resizing and writing blocks.

use std::ops::ControlFlow;

use super::{Dataset, Dirty, NewDataset, block_key};
use crate::error::{PoolError, Result};
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::spec::VolumeSpec;
use crate::types::DatasetId;
use bytes::Bytes;

/// The largest volume, bytes.
const VOLUME_BYTES_MAX: u64 = 1 << 62;

/// What a server must know about a volume or snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Bytes.
    pub size: u64,
    /// Bytes of a block: what is best read and written at once.
    pub block_size: u32,
    /// A snapshot, or a pool that was imported read-only.
    pub read_only: bool,
}

/// Whether a name is fit for a volume: the rules of zfs without nesting.
pub(crate) fn check_name(kind: &'static str, name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    if fits {
        return Ok(());
    }
    Err(PoolError::refused(format!(
        "'{name}' is no name for a {kind}: letters, digits and _ - . : are allowed, a letter or digit comes first"
    )))
}

impl Pool {
    /// The dataset of this name (`vol` or `vol@snap`).
    pub(crate) fn find(&self, name: &str) -> Result<DatasetId> {
        let found = self.datasets.values().find(|dataset| !dataset.destroying && dataset.name == name);
        let kind = if name.contains('@') { "snapshot" } else { "volume" };
        found
            .map(|dataset| dataset.id)
            .ok_or_else(|| PoolError::NotFound { kind, name: format!("{}/{name}", self.core.name) })
    }

    pub(crate) fn dataset(&self, id: DatasetId) -> Result<&Dataset> {
        self.datasets.get(&id).filter(|dataset| !dataset.destroying).ok_or_else(|| PoolError::NotFound {
            kind: "volume",
            name: "that was open here; it was destroyed".into(),
        })
    }

    /// Opens a volume or snapshot by name.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn open(&self, name: &str) -> Result<DatasetId> {
        self.find(name)
    }

    /// What a server must know about an open dataset.
    ///
    /// # Errors
    /// It was destroyed meanwhile.
    pub fn volume_info(&self, id: DatasetId) -> Result<VolumeInfo> {
        let dataset = self.dataset(id)?;
        Ok(VolumeInfo {
            size: dataset.size,
            block_size: dataset.block_size,
            read_only: dataset.is_snapshot() || self.core.read_only,
        })
    }

    /// Makes a volume; unless it is sparse its size is reserved.
    ///
    /// # Errors
    /// The name is taken or unfit, the sizes are, or there is no room for the reservation.
    pub fn volume_create(&mut self, name: &str, spec: &VolumeSpec) -> Result<()> {
        self.writable()?;
        check_name("volume", name)?;
        if self.find(name).is_ok() {
            return Err(PoolError::Exists { kind: "volume", name: format!("{}/{name}", self.core.name) });
        }
        if !spec.block_size.is_power_of_two()
            || !(4096..=crate::pointer::STORED_MAX).contains(&spec.block_size)
        {
            return Err(PoolError::refused(format!(
                "the block size is {}; it must be a power of two from 4K to 1M",
                spec.block_size
            )));
        }
        check_size(spec.size, spec.block_size)?;
        let reservation = if spec.sparse { 0 } else { spec.size };
        if reservation > self.available(None) {
            return Err(PoolError::refused(format!(
                "cannot reserve {reservation} bytes, {} are available; make the volume smaller or sparse (-s)",
                self.available(None)
            )));
        }
        for (property, value) in &spec.properties {
            super::property::check_dataset_property(property, value)?;
        }
        self.admit_change()?;
        let id = DatasetId(self.next_id);
        let trees = (self.next_id + 1, self.next_id + 2);
        let new = NewDataset { pool: self.core.guid, id, name: name.to_owned(), trees };
        let mut dataset = Dataset {
            size: spec.size,
            block_size: spec.block_size,
            reservation,
            created: self.core.now(),
            created_txg: self.core.txg,
            ..Dataset::new(new)
        };
        for (property, value) in &spec.properties {
            dataset.properties.insert(property.clone(), value.clone());
        }
        dataset.apply_properties();
        self.next_id += 3;
        self.datasets.insert(id, dataset);
        self.changed = true;
        self.commit()
    }

    /// Changes a volume's size; what is behind a smaller end is gone.
    ///
    /// # Errors
    /// No such volume, an unfit size, or no room for the reservation.
    pub fn volume_resize(&mut self, name: &str, size: u64) -> Result<()> {
        self.writable()?;
        let id = self.find(name)?;
        let dataset = self.dataset(id)?;
        if dataset.is_snapshot() {
            return Err(PoolError::refused(format!("'{name}' is a snapshot: its size can't be changed")));
        }
        let (old, block_size, reserved) = (dataset.size, dataset.block_size, dataset.reservation > 0);
        check_size(size, block_size)?;
        if reserved && size > old && size - old > self.available(None) {
            return Err(PoolError::refused(format!(
                "cannot reserve {} more bytes, {} are available",
                size - old,
                self.available(None)
            )));
        }
        if size < old {
            self.discard(id, size, old - size)?;
        }
        if let Some(dataset) = self.datasets.get_mut(&id) {
            dataset.size = size;
            if reserved {
                dataset.reservation = size;
            }
            dataset.changed = true;
        }
        self.changed = true;
        self.commit()
    }

    pub(super) fn check_range(&self, id: DatasetId, offset: u64, length: u64) -> Result<(u64, u64)> {
        let dataset = self.dataset(id)?;
        if offset.checked_add(length).is_none_or(|end| end > dataset.size) {
            return Err(PoolError::refused(format!(
                "{length} bytes at offset {offset} are beyond the end of '{}/{}', which has {} bytes",
                self.core.name, dataset.name, dataset.size
            )));
        }
        Ok((u64::from(dataset.block_size), dataset.size))
    }

    /// Writes `data` at `offset` (bytes): visible at once, durable after the next `flush`.
    ///
    /// # Errors
    /// Beyond the end, a snapshot, no space, or an old block that must be read first and can't.
    pub fn write(&mut self, id: DatasetId, offset: u64, data: &[u8]) -> Result<()> {
        self.accepts_writes()?;
        let (block_size, _) = self.check_range(id, offset, data.len() as u64)?;
        if self.dataset(id)?.is_snapshot() {
            return Err(PoolError::refused("a snapshot can't be written to"));
        }
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let block = at / block_size;
            let within = (at % block_size) as usize;
            let length = rest.len().min(block_size as usize - within);
            let (head, tail) = rest.split_at(length);
            self.admit(id, block)?;
            let dirty = self.datasets.get_mut(&id).and_then(|dataset| dataset.dirty.get_mut(&block));
            if let Some(Dirty::Data(bytes)) = dirty {
                *bytes = overwritten(std::mem::take(bytes), within, head);
            } else {
                let bytes: Bytes = if length == block_size as usize {
                    Bytes::copy_from_slice(head)
                } else {
                    overwritten(self.take_block(id, block_size, block)?, within, head)
                };
                if let Some(dataset) = self.datasets.get_mut(&id) {
                    dataset.dirty.insert(block, Dirty::Data(bytes));
                    self.dirty_bytes += block_size;
                    self.share_memory();
                }
            }
            self.changed = true;
            at += length as u64;
            rest = tail;
        }
        Ok(())
    }

    /// A block that is not dirty and about to be: out of the cache, where it is not needed any more.
    fn take_block(&mut self, id: DatasetId, block_size: u64, block: u64) -> Result<Bytes> {
        let Self { core, datasets, .. } = self;
        if let Some(dataset) = datasets.get(&id).filter(|dataset| !dataset.dirty.contains_key(&block))
            && let Some(pointer) = dataset.tree.get_with(core, block_key(block), BlockPtr::decode)?
            && let pointer = pointer?
            && let Some(bytes) = core.cache.take_block(pointer.address.0, pointer.extent_birth)
            && bytes.len() as u64 == block_size
        {
            return Ok(bytes);
        }
        let mut bytes = vec![0; block_size as usize];
        self.read_batch(id, block_size, block * block_size, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Makes a range of a volume read as zeros and gives its whole blocks back.
    ///
    /// # Errors
    /// As [`Pool::write`].
    pub fn discard(&mut self, id: DatasetId, offset: u64, length: u64) -> Result<()> {
        self.accepts_writes()?;
        let (block_size, size) = self.check_range(id, offset, length)?;
        if self.dataset(id)?.is_snapshot() {
            return Err(PoolError::refused("a snapshot can't be written to"));
        }
        let end = offset + length;
        // The last block of a volume is whole when the range reaches the volume's end.
        let whole_end = if end == size { end.div_ceil(block_size) } else { end / block_size };
        let whole = offset.div_ceil(block_size)..whole_end;
        if whole.start >= whole.end {
            if self.has_data(id, offset, length)? {
                self.write(id, offset, &vec![0; length as usize])?;
            }
            return Ok(());
        }
        let head = whole.start * block_size - offset;
        if head > 0 && self.has_data(id, offset, head)? {
            self.write(id, offset, &vec![0; head as usize])?;
        }
        let tail = whole.end * block_size;
        if end > tail && self.has_data(id, tail, end - tail)? {
            self.write(id, tail, &vec![0; (end - tail) as usize])?;
        }
        let mut from = whole.start;
        while from < whole.end {
            from = self.discard_blocks(id, from..whole.end)?;
        }
        Ok(())
    }

    /// Discards as many blocks of a range as one commit can free beside what is dirty; where it stopped.
    fn discard_blocks(&mut self, id: DatasetId, blocks: std::ops::Range<u64>) -> Result<u64> {
        // What a snapshot holds is not freed by this but noted in the deadlist, which grows.
        if !self.snapshots_of(id).is_empty() {
            self.admit_change()?;
        }
        let most = self.freed_at_once(u64::MAX)? as usize;
        self.changed = true;
        self.room_bytes = 0;
        let Self { core, datasets, dirty_bytes, .. } = self;
        let Some(dataset) = datasets.get_mut(&id) else { return Ok(blocks.end) };
        // Only blocks that exist need a note; a sparse volume of any size costs nothing.
        let mut stored = Vec::new();
        dataset.tree.scan(core, block_key(blocks.start), block_key(blocks.end - 1), |key, _| {
            stored.push(key.offset);
            let more = stored.len() < most;
            Ok::<_, PoolError>(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        let end = stored.last().filter(|_| stored.len() >= most).map_or(blocks.end, |last| last + 1);
        let written: Vec<u64> = dataset.dirty.range(blocks.start..end).map(|(&block, _)| block).collect();
        for block in written {
            if let Some(Dirty::Data(_)) = dataset.dirty.remove(&block) {
                *dirty_bytes -= u64::from(dataset.block_size);
            }
        }
        for block in stored {
            dataset.dirty.insert(block, Dirty::Hole);
        }
        Ok(end)
    }

    /// Whether anything in the range is stored (it may still be zeros).
    fn has_data(&mut self, id: DatasetId, offset: u64, length: u64) -> Result<bool> {
        Ok(self.runs(id, offset, length, 2)?.iter().any(|&(_, hole)| !hole))
    }

    /// What is stored in a range: (bytes, whether nothing is) runs that cover it from its start, at most `limit`.
    ///
    /// # Errors
    /// Beyond the end, or a tree node that can't be had.
    pub fn runs(
        &mut self,
        id: DatasetId,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> Result<Vec<(u64, bool)>> {
        let (block_size, _) = self.check_range(id, offset, length)?;
        let end = offset + length;
        let mut runs: Vec<(u64, bool)> = Vec::new();
        let mut at = offset;
        // A bounded look-ahead at a time: (first byte, end) of stored blocks, from the tree and from what is dirty.
        while at < end && runs.len() <= limit {
            let first = at / block_size;
            let last = end.div_ceil(block_size);
            let horizon = last.min(first + 4096);
            let Self { core, datasets, .. } = self;
            let Some(dataset) = datasets.get(&id) else { break };
            let mut stored = vec![false; (horizon - first) as usize];
            let next_block = |source: &mut crate::core::Core, from: u64| {
                dataset
                    .tree
                    .next(source, block_key(from))
                    .map(|item| item.map_or(u64::MAX, |(key, _)| key.offset))
            };
            dataset.tree.scan(core, block_key(first), block_key(horizon - 1), |key, _| {
                stored[(key.offset - first) as usize] = true;
                Ok::<_, PoolError>(ControlFlow::Continue(()))
            })?;
            for (&block, dirty) in dataset.dirty.range(first..horizon) {
                stored[(block - first) as usize] = matches!(dirty, Dirty::Data(_));
            }
            // An empty stretch may be long: jump to whatever comes first behind it.
            if stored.iter().all(|&stored| !stored) {
                let dirty = dataset
                    .dirty
                    .range(horizon..)
                    .find(|(_, d)| matches!(d, Dirty::Data(_)))
                    .map(|(&b, _)| b);
                let next = next_block(core, horizon)?.min(dirty.unwrap_or(u64::MAX)).min(last);
                push_run(&mut runs, (next.saturating_mul(block_size)).min(end) - at, true);
                at = next.saturating_mul(block_size).min(end);
                continue;
            }
            for (index, stored) in stored.into_iter().enumerate() {
                let to = ((first + index as u64 + 1) * block_size).min(end);
                push_run(&mut runs, to - at, !stored);
                at = to;
            }
        }
        runs.truncate(limit);
        Ok(runs)
    }
}

/// `bytes` with `data` at `at`: in place, unless somebody else has them too, as a commit under way does.
fn overwritten(bytes: Bytes, at: usize, data: &[u8]) -> Bytes {
    let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| shared[..].into());
    bytes[at..at + data.len()].copy_from_slice(data);
    bytes.freeze()
}

fn push_run(runs: &mut Vec<(u64, bool)>, length: u64, hole: bool) {
    match runs.last_mut() {
        Some((last, kind)) if *kind == hole => *last += length,
        _ => runs.push((length, hole)),
    }
}

fn check_size(size: u64, block_size: u32) -> Result<()> {
    if size == 0 || !size.is_multiple_of(u64::from(block_size)) || size > VOLUME_BYTES_MAX {
        return Err(PoolError::refused(format!(
            "a volume's size must be a multiple of its block size ({block_size} bytes), and not {size}"
        )));
    }
    Ok(())
}
