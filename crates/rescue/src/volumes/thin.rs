//! Thin volumes of device-mapper: two levels of B-trees that tell where each block lies.
//!
//! superblock --data_mapping_root--> tree of devices --root--> tree of a device's blocks --> block of the data volume

use std::sync::Arc;

use device::{BlockDevice, MemoryDevice};

use super::mapped::{MappedDevice, Run};

const BLOCK: u64 = 4096;
const SUPERBLOCK_XOR: u32 = 160_774;
const NODE_XOR: u32 = 121_107;
const MAGIC: u64 = 27_022_010;
/// Deepest tree that is followed; 4 KiB nodes with 126 entries and more make this plenty.
const DEPTH_MAX: usize = 12;
/// Most blocks of one volume that are taken into memory.
const BLOCKS_MAX: usize = 1 << 24;

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The block, if its checksum is right. The kernel's sum is not inverted at its end.
fn block(device: &dyn BlockDevice, number: u64, xor: u32) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; BLOCK as usize];
    let at = number.checked_mul(BLOCK).ok_or("a block number is beyond any device")?;
    device.read(at, &mut bytes).map_err(|error| error.to_string())?;
    if !crc32c::crc32c(&bytes[4..]) ^ xor == le32(&bytes, 0) {
        Ok(bytes)
    } else {
        Err(format!("block {number} of the pool's metadata has a wrong checksum"))
    }
}

/// Keys and values below a node, in order.
fn leaves(
    device: &dyn BlockDevice,
    node: u64,
    depth: usize,
    found: &mut Vec<(u64, u64)>,
) -> Result<(), String> {
    if depth > DEPTH_MAX || found.len() > BLOCKS_MAX {
        return Err("a tree in the pool's metadata is too deep or too large".to_owned());
    }
    let bytes = block(device, node, NODE_XOR)?;
    let (flags, count, most) = (le32(&bytes, 4), le32(&bytes, 16) as usize, le32(&bytes, 20) as usize);
    let value_size = le32(&bytes, 24) as usize;
    if le64(&bytes, 8) != node || count > most || most > 4096 || 32 + most * (8 + value_size) > bytes.len() {
        return Err(format!("node {node} of the pool's metadata can't be what it says"));
    }
    for index in 0..count {
        let key = le64(&bytes, 32 + 8 * index);
        let value = le64(&bytes, 32 + 8 * most + value_size * index);
        if flags & 1 != 0 {
            leaves(device, value, depth + 1, found)?;
        } else {
            found.push((key, value));
        }
    }
    Ok(())
}

/// The thin volume with this number. Blocks that it never wrote are zeros.
pub(super) fn open(
    metadata: &Arc<dyn BlockDevice>,
    data: &Arc<dyn BlockDevice>,
    chunk: u64,
    number: u64,
    size: u64,
) -> Result<Arc<dyn BlockDevice>, String> {
    let superblock = block(&**metadata, 0, SUPERBLOCK_XOR)?;
    if le64(&superblock, 32) != MAGIC {
        return Err("the pool's metadata has no superblock".to_owned());
    }
    if u64::from(le32(&superblock, 336)) * 512 != chunk || chunk == 0 {
        return Err("the pool's block size is not what LVM says".to_owned());
    }
    let mut devices = Vec::new();
    leaves(&**metadata, le64(&superblock, 320), 0, &mut devices)?;
    let root = devices.iter().find(|(device, _)| *device == number);
    let (_, root) = root.ok_or_else(|| format!("the pool has no thin volume with number {number}"))?;
    let mut blocks = Vec::new();
    leaves(&**metadata, *root, 0, &mut blocks)?;
    blocks.sort_unstable();
    let zeros: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new("zeros", size));
    let mut runs = Vec::new();
    let mut at = 0;
    for (key, value) in blocks {
        let Some(start) = key.checked_mul(chunk).filter(|start| *start >= at && *start < size) else {
            continue;
        };
        // The lower 24 bits tell when it was written.
        let Some(offset) = (value >> 24).checked_mul(chunk) else { continue };
        runs.push(Run { length: start - at, device: Some(Arc::clone(&zeros)), offset: at });
        let length = chunk.min(size - start);
        runs.push(Run { length, device: Some(Arc::clone(data)), offset });
        at = start + length;
    }
    runs.push(Run { length: size - at, device: Some(zeros), offset: at });
    Ok(Arc::new(MappedDevice::new("thin volume", runs)))
}
