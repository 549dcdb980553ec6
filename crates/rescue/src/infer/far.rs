//! Where the second copies of a RAID 10 with far copies begin: the same bytes are found on another member, always as far on.
//!
//! That distance follows from how much of each member the array uses, which no file system knows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use device::BlockDevice;

use super::gather;
use crate::Image;

const BLOCK: usize = 4096;
/// Blocks of one member that are looked for on others.
const LOOKED_FOR: usize = 512;
/// Where they are taken from, bytes from the beginning of the members, and how many.
const REGION: Range<u64> = 0..64 << 20;
/// How far from the middle of a large member the copies may begin, bytes.
const AROUND: u64 = 160 << 20;
/// Blocks that must be found at one distance.
const FOUND_LEAST: usize = 8;
/// Distances that are told.
const DISTANCES_MAX: usize = 2;

/// A block that is not likely to be there twice by chance.
fn is_telling(block: &[u8]) -> bool {
    let mut seen = [false; 256];
    block.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() >= 32
}

/// The distances, bytes, the one that is found most first.
pub(super) fn distances(images: &[&Image]) -> Vec<u64> {
    let sizes: Vec<u64> = images.iter().map(|image| image.device.size().unwrap_or(0)).collect();
    let size = sizes.iter().copied().min().unwrap_or(0);
    let first = REGION.start..REGION.end.min(size / 2);
    let mut known: HashMap<[u8; 16], Vec<(usize, u64)>> = HashMap::new();
    let name = |block: &[u8]| -> [u8; 16] {
        // The middle of a block is seldom like that of another one, and the whole is compared by its checksum.
        let mut name = [0; 16];
        name[..12].copy_from_slice(&block[2048..2060]);
        name[12..].copy_from_slice(&crc32c::crc32c(block).to_le_bytes());
        name
    };
    for (number, image) in images.iter().enumerate() {
        let mut left = LOOKED_FOR;
        for (at, block) in blocks(&*image.device, first.clone()) {
            if left > 0 && is_telling(&block) {
                known.entry(name(&block)).or_default().push((number, at));
                left -= 1;
            }
        }
    }
    let second =
        (size / 2).saturating_sub(AROUND) / BLOCK as u64 * BLOCK as u64..(size / 2 + AROUND).min(size);
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (number, image) in images.iter().enumerate() {
        for (at, block) in blocks(&*image.device, second.clone()) {
            for (_, from) in
                known.get(&name(&block)).into_iter().flatten().filter(|(other, _)| *other != number)
            {
                if let Some(distance) = at.checked_sub(*from).filter(|distance| *distance >= size / 4) {
                    *votes.entry(distance).or_default() += 1;
                }
            }
        }
    }
    let mut votes: Vec<(u64, usize)> = votes.into_iter().filter(|(_, votes)| *votes >= FOUND_LEAST).collect();
    votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    votes.into_iter().take(DISTANCES_MAX).map(|(distance, _)| distance).collect()
}

/// The blocks of a range with their places; those that can't be read are zeros.
fn blocks(device: &dyn BlockDevice, range: Range<u64>) -> impl Iterator<Item = (u64, Vec<u8>)> {
    const PIECE: u64 = 1 << 20;
    let pieces = (range.start..range.end).step_by(PIECE as usize);
    pieces.flat_map(move |start| {
        let bytes = gather::read(device, &(start..(start + PIECE).min(range.end)));
        let whole = bytes.chunks_exact(BLOCK).map(<[u8]>::to_vec).collect::<Vec<_>>();
        (start..).step_by(BLOCK).zip(whole)
    })
}
