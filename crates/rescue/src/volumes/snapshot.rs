//! Snapshots of device-mapper: a store of the blocks that differ from the origin.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::BlockDevice;

use super::mapped::{MappedDevice, Run};

/// Most exceptions that are taken into memory.
const EXCEPTIONS_MAX: usize = 1 << 24;

/// What the snapshot holds: the origin, but for what `store` has.
///
/// Chunk 0 of the store is its header; then come areas of one chunk of (old, new) chunk numbers and the chunks they
/// speak of, as many as the area has room for.
pub(super) fn open(
    name: String,
    origin: &Arc<dyn BlockDevice>,
    store: &Arc<dyn BlockDevice>,
    chunk: u64,
) -> Result<Arc<dyn BlockDevice>, String> {
    let told = |error: device::DeviceError| error.to_string();
    let mut header = [0; 512];
    store.read(0, &mut header).map_err(told)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..4] != *b"SnAp" {
        return Err("the store of the snapshot has no header".to_owned());
    }
    if word(4) == 0 {
        return Err("the store of the snapshot was marked invalid: it had become full".to_owned());
    }
    if u64::from(word(12)) * 512 != chunk || !(512..=1 << 24).contains(&chunk) {
        return Err(format!("the store of the snapshot has chunks of {} sectors", word(12)));
    }
    let (origin_size, store_size) = (origin.size().map_err(told)?, store.size().map_err(told)?);
    let each = chunk / 16;
    let mut exceptions = BTreeMap::new();
    let mut area = vec![0; chunk as usize];
    'areas: for number in 0.. {
        let at = (1 + number * (each + 1)).saturating_mul(chunk);
        if at.saturating_add(chunk) > store_size {
            break;
        }
        store.read(at, &mut area).map_err(told)?;
        for pair in area.chunks_exact(16) {
            let field = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
            let (old, new) = (field(&pair[..8]), field(&pair[8..]));
            if new == 0 || exceptions.len() >= EXCEPTIONS_MAX {
                break 'areas;
            }
            exceptions.insert(old, new);
        }
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0;
    for (old, new) in exceptions {
        let (Some(start), Some(from)) = (old.checked_mul(chunk), new.checked_mul(chunk)) else { continue };
        if start >= origin_size || from.saturating_add(chunk) > store_size {
            continue;
        }
        runs.push(Run { length: start - at, device: Some(Arc::clone(origin)), offset: at });
        let length = chunk.min(origin_size - start);
        runs.push(Run { length, device: Some(Arc::clone(store)), offset: from });
        at = start + length;
    }
    runs.push(Run { length: origin_size - at, device: Some(Arc::clone(origin)), offset: at });
    Ok(Arc::new(MappedDevice::new(name, runs)))
}
