//! Thin volumes and snapshots of device-mapper, from the maps that `formats` reads.

use std::sync::Arc;

use device::BlockDevice;
use formats::lvm::{SnapshotStore, ThinMetadata};

use super::mapped::{From, MappedDevice, Run};

/// Most runs of one volume that are taken into memory.
const RUNS_MAX: usize = 1 << 24;

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: impl ToString) -> String {
    error.to_string()
}

/// What a snapshot holds: the origin, but for what `store` has.
pub(super) fn snapshot(
    name: String,
    origin: &Arc<dyn BlockDevice>,
    store: &Arc<dyn BlockDevice>,
    chunk: u64,
) -> Result<Arc<dyn BlockDevice>, String> {
    let exceptions = SnapshotStore::read(&**store).map_err(text)?;
    if !exceptions.valid {
        return Err("the store of the snapshot was marked invalid: it had become full".to_owned());
    }
    if exceptions.chunk != chunk {
        return Err(format!("the store of the snapshot has chunks of {} bytes", exceptions.chunk));
    }
    if let Some(problem) = exceptions.problems.first() {
        return Err(format!("what the snapshot does not share with its origin is not all known: {problem}"));
    }
    if exceptions.exceptions.len() > RUNS_MAX {
        return Err("the snapshot is in too many pieces".to_owned());
    }
    let size = origin.size().map_err(text)?;
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    while at < size {
        let (stored, length) = exceptions.locate(at);
        let length = length.min(size - at);
        let from = match stored {
            Some(start) => From::Device(Arc::clone(store), start),
            None => From::Device(Arc::clone(origin), at),
        };
        runs.push(Run { length, from });
        at += length;
    }
    Ok(Arc::new(MappedDevice::new(name, runs)))
}

/// A thin volume of a pool.
pub(super) struct Thin {
    pub(super) metadata: Arc<dyn BlockDevice>,
    pub(super) data: Arc<dyn BlockDevice>,
    /// Block size that LVM says, bytes.
    pub(super) chunk: u64,
    /// Its number in the pool.
    pub(super) number: u32,
    /// Bytes.
    pub(super) size: u64,
    /// What unwritten blocks are read from, if not zeros.
    pub(super) external: Option<Arc<dyn BlockDevice>>,
}

impl Thin {
    /// The runs it is made of. Where the pool's metadata are damaged nothing can be read.
    pub(super) fn runs(self) -> Result<Vec<Run>, String> {
        let pool = ThinMetadata::open(&*self.metadata).map_err(text)?;
        if pool.chunk != self.chunk {
            return Err(format!(
                "the pool's blocks have {} bytes, not {} as LVM says",
                pool.chunk, self.chunk
            ));
        }
        let (devices, damage) = pool.devices(&*self.metadata);
        let Some(thin) = devices.iter().find(|device| device.number == self.number) else {
            let why = damage.first().map_or_else(String::new, |damage| format!(": {}", damage.error));
            return Err(format!("the pool has no thin volume with number {}{why}", self.number));
        };
        let blocks = self.size.div_ceil(self.chunk);
        let mut found: Vec<(u64, u64, From)> = Vec::new();
        let mut overflow = false;
        let damage = pool.mappings(&*self.metadata, thin, 0..blocks, &mut |run| {
            overflow |= found.len() >= RUNS_MAX;
            if !overflow {
                let start = run.data.saturating_mul(self.chunk);
                found.push((run.block, run.count, From::Device(Arc::clone(&self.data), start)));
            }
        });
        if overflow {
            return Err("the thin volume is in too many pieces".to_owned());
        }
        for lost in damage {
            let why: Arc<str> = format!("the pool's metadata are damaged: {}", lost.error).into();
            let count = lost.keys.end.min(blocks).saturating_sub(lost.keys.start);
            found.push((lost.keys.start, count, From::Nowhere(why)));
        }
        // What is damaged comes last among equals, and takes nothing from what is known.
        found.sort_by_key(|(block, _, _)| *block);
        let mut runs = Vec::new();
        let mut at = 0;
        for (block, count, from) in found {
            let (start, end) = (block.saturating_mul(self.chunk), (block.saturating_add(count)));
            let end = end.saturating_mul(self.chunk).min(self.size);
            if start > at {
                self.unwritten(at, start, &mut runs);
                at = start;
            }
            if end > at {
                let from = match from {
                    From::Device(device, offset) => From::Device(device, offset + (at - start)),
                    other => other,
                };
                runs.push(Run { length: end - at, from });
                at = end;
            }
        }
        self.unwritten(at, self.size, &mut runs);
        Ok(runs)
    }

    /// What a part is that the volume never wrote.
    fn unwritten(&self, start: u64, end: u64, runs: &mut Vec<Run>) {
        let shared = self.external.as_ref().and_then(|device| Some((device, device.size().ok()?)));
        let until = shared.map_or(start, |(_, size)| size.clamp(start, end.max(start)));
        if let Some((device, _)) = shared {
            runs.push(Run { length: until - start, from: From::Device(Arc::clone(device), start) });
        }
        runs.push(Run { length: end.saturating_sub(until), from: From::Zeros });
    }
}
