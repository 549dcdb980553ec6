//! The store of a snapshot of the old kind: which chunks of the origin were kept, or written anew.
//!
//! Chunk 0 is a header. Then areas follow: a chunk with pairs (origin's chunk, store's chunk), and as many
//! chunks of data as it has room for pairs. The first pair without a place in the store ends the list.

use device::BlockDevice;

use crate::ReadError;
use crate::fields::Fields;
use crate::input::read_up_to;
use crate::md::error::Site;

const SECTOR: u64 = 512;
const PAIR: u64 = 16;

/// A chunk that the snapshot does not share with its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exception {
    /// Number of the chunk in the snapshot.
    pub chunk: u64,
    /// Number of the chunk in the store that has its bytes.
    pub stored: u64,
}

/// A persistent snapshot store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotStore {
    /// Bytes.
    pub chunk: u64,
    /// Whether it had not overflowed: one that has misses changes of the origin.
    pub valid: bool,
    /// By the snapshot's chunks.
    pub exceptions: Vec<Exception>,
    /// Where the list stopped making sense, and what could not be read.
    pub problems: Vec<ReadError>,
}

impl SnapshotStore {
    /// Reads a store. The memory it takes is 16 bytes for each pair that is really there.
    ///
    /// # Errors
    /// The header is none, or can't be read.
    pub fn read(device: &dyn BlockDevice) -> Result<Self, ReadError> {
        const MAGIC: u32 = 0x7041_6e53;
        const CHUNK_MAX: u64 = 16 << 20;
        let name = device.info().name.as_str();
        let site = Site { device: name, offset: 0, structure: "snapshot store" };
        let header = read_up_to(device, 0, SECTOR as usize)?;
        let long = |at| header.le32(at).unwrap_or(0);
        site.require(long(0) == MAGIC, "magic", format!("{:#x}", long(0)), format!("{MAGIC:#x}"))?;
        site.require(long(8) == 1, "version", long(8), 1)?;
        let chunk = u64::from(long(12)) * SECTOR;
        let sane = chunk.is_power_of_two() && chunk <= CHUNK_MAX;
        site.require(sane, "chunk_size", long(12), "a power of two of sectors, up to 16 MiB")?;
        let mut store = Self { chunk, valid: long(4) != 0, exceptions: Vec::new(), problems: Vec::new() };
        let chunks = device.size()? / chunk;
        let pairs = chunk / PAIR;
        let mut area = 1;
        'areas: while area < chunks {
            let bytes = match read_up_to(device, area * chunk, chunk as usize) {
                Ok(bytes) => bytes,
                Err(error) => {
                    // The list may go on behind it: all later areas are at known places.
                    store.problems.push(error.into());
                    if store.problems.len() > 16 {
                        break;
                    }
                    area += pairs + 1;
                    continue;
                }
            };
            for pair in bytes.chunks_exact(PAIR as usize) {
                let (Some(chunk), Some(stored)) = (pair.le64(0), pair.le64(8)) else { break };
                if stored == 0 {
                    break 'areas;
                }
                let is_area = (stored - 1).is_multiple_of(pairs + 1);
                if stored >= chunks || is_area {
                    let site = Site { offset: area * store.chunk, ..site };
                    let wanted = format!("a data chunk below {chunks}");
                    store.problems.push(site.error("new chunk", stored, wanted).into());
                    break 'areas;
                }
                store.exceptions.push(Exception { chunk, stored });
            }
            area += pairs + 1;
        }
        // Of two pairs for one chunk, which a healthy store has not, the later counts.
        store.exceptions.sort_by_key(|exception| exception.chunk);
        store.exceptions.reverse();
        store.exceptions.dedup_by_key(|exception| exception.chunk);
        store.exceptions.reverse();
        Ok(store)
    }

    /// Where the store has the snapshot's byte at `offset`, and how many bytes from there on it has in one
    /// piece; or `None` and for how many bytes the origin has them.
    pub fn locate(&self, offset: u64) -> (Option<u64>, u64) {
        let (chunk, skip) = (offset / self.chunk, offset % self.chunk);
        let at = self.exceptions.partition_point(|exception| exception.chunk < chunk);
        match self.exceptions.get(at) {
            Some(exception) if exception.chunk == chunk => {
                // Chunks of the store were checked to lie on the device.
                (Some(exception.stored * self.chunk + skip), self.chunk - skip)
            }
            Some(next) => (None, (next.chunk - chunk).saturating_mul(self.chunk) - skip),
            None => (None, u64::MAX - offset),
        }
    }
}
