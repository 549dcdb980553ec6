//! Which images belong together by their redundancy alone, whatever they hold: where the bytes of some of them, multiplied by
//! constants, add up to zero in place after place, they are copies, a whole RAID 4, 5 or 6, or a RAID 6 that lacks one member.
//!
//! Only bytes that look like chance take part: what is mostly empty, or text, adds up to anything.

use device::Rng;

use crate::Image;
use crate::raid6::relations;

const SECTOR: usize = 512;
/// Places that are looked at, half of them in so many bytes from the beginning on.
const PLACES: u64 = 768;
const HEAD: u64 = 1 << 30;
/// Values of bytes that a sector must have to tell something; of those that chance fills it is 221 or so.
const VALUES_LEAST: usize = 128;
/// Places in which two images must be in one relation.
const PLACES_LEAST: u32 = 4;
/// Most images that are compared.
const IMAGES_MAX: usize = 64;

fn is_telling(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    bytes.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() >= VALUES_LEAST
}

/// For each image the first one that it belongs to: itself, if there is none before it.
pub(super) fn mates(images: &[&Image]) -> Vec<usize> {
    let count = images.len();
    let mut first: Vec<usize> = (0..count).collect();
    if !(2..=IMAGES_MAX).contains(&count) {
        return first;
    }
    let sizes: Vec<u64> = images.iter().map(|image| image.device.size().unwrap_or(0)).collect();
    let sectors = sizes.iter().copied().max().unwrap_or(0) / SECTOR as u64;
    let mut together = vec![vec![0_u32; count]; count];
    let mut rng = Rng::new(9);
    for place in 0..PLACES.min(sectors) {
        let span = if place % 2 == 0 { sectors.min(HEAD / SECTOR as u64) } else { sectors };
        let at = rng.below(span) * SECTOR as u64;
        let read = |(number, image): (usize, &&Image)| {
            let mut bytes = vec![0; SECTOR];
            let inside = at + SECTOR as u64 <= sizes[number];
            let there = inside && image.device.read(at, &mut bytes).is_ok() && is_telling(&bytes);
            there.then_some((number, bytes))
        };
        let (numbers, vectors): (Vec<usize>, Vec<Vec<u8>>) =
            images.iter().enumerate().filter_map(read).unzip();
        for relation in relations(&vectors) {
            let of: Vec<usize> = numbers
                .iter()
                .zip(&relation)
                .filter(|(_, factor)| **factor != 0)
                .map(|(of, _)| *of)
                .collect();
            for (index, one) in of.iter().enumerate() {
                of[index + 1..].iter().for_each(|other| together[*one][*other] += 1);
            }
        }
    }
    for one in 0..count {
        for other in one + 1..count {
            if together[one][other] >= PLACES_LEAST && first[one] != first[other] {
                let (kept, gone) = (first[one].min(first[other]), first[one].max(first[other]));
                first.iter_mut().filter(|first| **first == gone).for_each(|first| *first = kept);
            }
        }
    }
    first
}
