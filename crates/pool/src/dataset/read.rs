//! Reading blocks of volumes and snapshots.
//!
//! What is in memory is copied. The rest is read, checked and unpacked, and kept in the cache. A server has the devices
//! read beside the pool: [`Pool::read_or_begin`] gives a [`ReadWork`] that needs nothing of it, [`Pool::end_read`] takes
//! what came of that into the cache, and the same read then finds it there. What did not come, or came wrong, is read
//! by the pool, which heals it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use device::Runner;

use super::{Dirty, block_key};
use crate::core::Workers;
use crate::error::{PoolError, Result};
use crate::io::{Straight, Want};
use crate::pointer::BlockPtr;
use crate::pool::Pool;
use crate::types::DatasetId;

/// Bytes read from devices in one go.
const READ_BYTES_MAX: usize = 8 << 20;

/// Blocks to be read from devices, on any thread, while the pool is used.
pub struct ReadWork {
    runner: Arc<dyn Runner>,
    workers: Arc<Workers>,
    blocks: Vec<BlockPtr>,
    plan: Straight,
}

impl fmt::Debug for ReadWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadWork").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

/// Blocks that were read and are what was written.
#[derive(Debug)]
pub struct BlocksRead(Vec<(BlockPtr, Bytes)>);

impl ReadWork {
    /// Reads. Errors are left to the pool, which meets them when it reads the same.
    pub fn run(self) -> BlocksRead {
        let read = self.plan.read(&*self.runner, &self.workers, self.blocks, |block, stored| {
            Some((block, Bytes::from(unpack(&block, stored).ok()?)))
        });
        BlocksRead(read.extents.into_iter().filter_map(|outcome| outcome.ok().flatten()).collect())
    }
}

impl Pool {
    /// Fills `buffer` from `offset` (bytes) of a volume or snapshot on.
    ///
    /// # Errors
    /// Beyond the end, or data that can't be had.
    pub fn read(&mut self, id: DatasetId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (block_size, _) = self.check_range(id, offset, buffer.len() as u64)?;
        let mut at = offset;
        let mut rest = buffer;
        // Whole batches, cut at block boundaries, so that memory stays bounded.
        while !rest.is_empty() {
            let most =
                (at / block_size * block_size + READ_BYTES_MAX.max(block_size as usize) as u64 - at) as usize;
            let length = rest.len().min(most);
            let (head, tail) = rest.split_at_mut(length);
            self.read_batch(id, block_size, at, head)?;
            at += length as u64;
            rest = tail;
        }
        Ok(())
    }

    /// Reads a part of a volume that is small enough for one batch.
    pub(super) fn read_batch(
        &mut self,
        id: DatasetId,
        block_size: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<()> {
        let missing = self.copy_known(id, block_size, offset, buffer)?;
        self.read_missing(block_size, offset, buffer, missing)
    }

    /// As [`Pool::read`]; but where devices have to be read, and can be as things stand, gives the work to be done
    /// instead, once, after which this is to be called again.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn read_or_begin(
        &mut self,
        id: DatasetId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Option<ReadWork>> {
        let (block_size, _) = self.check_range(id, offset, buffer.len() as u64)?;
        // What would not fit into the cache beside other reads would only be read twice.
        if buffer.is_empty() || buffer.len() > READ_BYTES_MAX {
            return self.read(id, offset, buffer).map(|()| None);
        }
        let missing = self.copy_known(id, block_size, offset, buffer)?;
        let at_place =
            |block: &BlockPtr| Want { address: self.core.remaps.place_of(block.address), ..want(block) };
        let mut wants: Vec<(BlockPtr, Want)> =
            missing.iter().map(|(_, block)| (*block, at_place(block))).collect();
        wants.retain(|(_, want)| {
            !self.core.unwritten_extents.contains_key(&want.address) && self.core.is_straight(want)
        });
        if wants.is_empty() {
            return self.read_missing(block_size, offset, buffer, missing).map(|()| None);
        }
        let (blocks, wants): (Vec<BlockPtr>, Vec<Want>) = wants.into_iter().unzip();
        let plan = self.core.plan_straight(&wants);
        let (runner, workers) = (Arc::clone(&self.core.runner), Arc::clone(&self.core.workers));
        Ok(Some(ReadWork { runner, workers, blocks, plan }))
    }

    /// Takes what was read into the cache.
    pub fn end_read(&mut self, read: BlocksRead) {
        // A place may have been given to something else meanwhile: that has another birth.
        for (block, bytes) in read.0 {
            self.core.cache.insert_block(block.address.0, block.extent_birth, bytes);
        }
    }

    /// Copies what is in memory of a part of a volume; gives the blocks that are on devices.
    fn copy_known(
        &mut self,
        id: DatasetId,
        block_size: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<Vec<(u64, BlockPtr)>> {
        let first = offset / block_size;
        let last = (offset + buffer.len() as u64).div_ceil(block_size);
        let mut missing: Vec<(u64, BlockPtr)> = Vec::new();
        let Self { core, datasets, .. } = self;
        let Some(dataset) = datasets.get(&id) else { return Ok(missing) };
        let mut pointers: Vec<(u64, BlockPtr)> = Vec::with_capacity((last - first) as usize);
        if last - first == 1 {
            if let Some(pointer) = dataset.tree.get_with(core, block_key(first), BlockPtr::decode)? {
                pointers.push((first, pointer?));
            }
        } else {
            dataset.tree.scan(core, block_key(first), block_key(last - 1), |key, value| {
                pointers.push((key.offset, BlockPtr::decode(value)?));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let mut pointers = pointers.into_iter().peekable();
        for block in first..last {
            let pointer = pointers.next_if(|(found, _)| *found == block);
            let known = match (dataset.dirty.get(&block), pointer) {
                (Some(Dirty::Data(bytes)), _) => Some(bytes.clone()),
                (Some(Dirty::Hole), _) | (None, None) => None,
                (None, Some((_, pointer))) if u64::from(pointer.length) != block_size => {
                    return Err(PoolError::Corrupt(format!(
                        "block {block} of '{}' says it has {} bytes",
                        dataset.name, pointer.length
                    )));
                }
                (None, Some((_, pointer))) => {
                    let cached = core.cache.block(pointer.address.0, pointer.extent_birth);
                    if cached.is_none() {
                        missing.push((block, pointer));
                        continue;
                    }
                    cached
                }
            };
            copy_block(block_size, offset, buffer, block, known.as_deref());
        }
        Ok(missing)
    }

    /// Reads the blocks that [`Pool::copy_known`] did not find.
    fn read_missing(
        &mut self,
        block_size: u64,
        offset: u64,
        buffer: &mut [u8],
        missing: Vec<(u64, BlockPtr)>,
    ) -> Result<()> {
        let wants: Vec<Want> = missing.iter().map(|(_, block)| want(block)).collect();
        // Each block goes to the caller from whatever thread has just checked it.
        let mut targets: Vec<Target<'_>> = Vec::with_capacity(missing.len());
        let (mut rest, mut at) = (buffer, offset);
        for (block, pointer) in missing {
            let start = (block * block_size).max(offset);
            let (_, behind) = rest.split_at_mut((start - at) as usize);
            let length = ((block + 1) * block_size - start).min(behind.len() as u64);
            let (part, behind) = behind.split_at_mut(length as usize);
            targets.push(Target { pointer, within: (start - block * block_size) as usize, part });
            (rest, at) = (behind, start + length);
        }
        let read = self.core.read_extents_with(&wants, targets, |target, stored| {
            let bytes = unpack(&target.pointer, stored)?;
            target.part.copy_from_slice(&bytes[target.within..target.within + target.part.len()]);
            Ok((target.pointer, Bytes::from(bytes)))
        });
        let mut outcome = Ok(());
        for read in read {
            match read.and_then(|read| read) {
                Ok((pointer, bytes)) => {
                    self.core.cache.insert_block(pointer.address.0, pointer.extent_birth, bytes)
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }
}

/// A block that is to be read, and the part of it that somebody wants.
struct Target<'b> {
    pointer: BlockPtr,
    within: usize,
    part: &'b mut [u8],
}

fn want(block: &BlockPtr) -> Want {
    Want { address: block.address, length: block.stored, checksum: block.checksum }
}

/// Copies the part of a block (zeros, if there is none) that a buffer, which begins at `offset`, wants of it.
fn copy_block(block_size: u64, offset: u64, buffer: &mut [u8], block: u64, bytes: Option<&[u8]>) {
    let start = (block * block_size).max(offset);
    let end = ((block + 1) * block_size).min(offset + buffer.len() as u64);
    let target = &mut buffer[(start - offset) as usize..(end - offset) as usize];
    match bytes {
        Some(bytes) => {
            let from = (start - block * block_size) as usize;
            target.copy_from_slice(&bytes[from..from + target.len()]);
        }
        None => target.fill(0),
    }
}

/// The block that stored bytes stand for.
pub(crate) fn unpack(pointer: &BlockPtr, stored: Vec<u8>) -> Result<Vec<u8>> {
    if pointer.compression == crate::compress::Compression::Off && stored.len() == pointer.length as usize {
        return Ok(stored);
    }
    pointer.compression.decompress(&stored, pointer.length as usize).ok_or_else(|| {
        PoolError::Corrupt(format!("the block at logical address {} can't be decompressed", pointer.address))
    })
}
