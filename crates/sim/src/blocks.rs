//! The blocks of a volume in the model: a map of which many versions are kept, sharing what they have in common.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::{digest, pattern};

/// Blocks of one part: about the root of how many a large volume has, since a change copies one part and a list of all.
const PART: u64 = 256;

/// What a block holds, and the digest of its bytes (`None`: all zeros).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The digest of the bytes.
    pub digest: Option<u64>,
    bytes: Bytes,
}

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bytes {
    /// The whole block is what [`pattern`] makes of this number.
    Pattern(u64),
    /// Written in parts.
    Kept(Arc<[u8]>),
}

impl Block {
    /// A block that is the pattern of a number, as these bytes show it.
    pub fn of_pattern(number: u64, bytes: &[u8]) -> Self {
        Self { digest: digest(bytes), bytes: Bytes::Pattern(number) }
    }

    /// A block of any bytes.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes: Bytes::Kept(bytes.into()) }
    }

    /// Its bytes, of which there are `length`.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        match &self.bytes {
            Bytes::Pattern(number) => pattern(*number, length),
            Bytes::Kept(bytes) => bytes.to_vec(),
        }
    }
}

/// Blocks by number. A clone shares its parts with the original until one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    parts: BTreeMap<u64, Arc<BTreeMap<u64, Block>>>,
}

impl Blocks {
    /// The block of this number.
    pub fn get(&self, number: u64) -> Option<&Block> {
        self.parts.get(&(number / PART))?.get(&number)
    }

    /// Sets one.
    pub fn insert(&mut self, number: u64, block: Block) {
        Arc::make_mut(self.parts.entry(number / PART).or_default()).insert(number, block);
    }

    /// Takes out those of a range.
    pub fn remove(&mut self, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        for (_, part) in self.parts.range_mut(numbers.start / PART..=(numbers.end - 1) / PART) {
            if part.range(numbers.clone()).next().is_some() {
                Arc::make_mut(part).retain(|number, _| !numbers.contains(number));
            }
        }
        self.parts.retain(|_, part| !part.is_empty());
    }

    /// All of them in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Block)> {
        self.parts.values().flat_map(|part| part.iter().map(|(&number, block)| (number, block)))
    }
}

#[cfg(test)]
mod tests {
    use device::Rng;

    use super::*;

    /// Random changes, and copies that must stay as they were, against a plain map.
    #[test]
    fn is_a_map_of_which_copies_stay() {
        let mut rng = Rng::new(1);
        let (mut blocks, mut plain) = (Blocks::default(), BTreeMap::new());
        let mut kept = Vec::new();
        let agree = |blocks: &Blocks, plain: &BTreeMap<u64, Block>| {
            assert!(blocks.iter().eq(plain.iter().map(|(&number, block)| (number, block))));
            assert!((0..4 * PART).all(|number| blocks.get(number) == plain.get(&number)));
        };
        for round in 0..400 {
            let number = rng.below(4 * PART);
            let block = Block::of_bytes(vec![round as u8; 8]);
            blocks.insert(number, block.clone());
            plain.insert(number, block);
            if rng.chance(1, 8) {
                let end = number + rng.below(3 * PART);
                blocks.remove(number..end);
                plain.retain(|at, _| !(number..end).contains(at));
            }
            if rng.chance(1, 16) {
                kept.push((blocks.clone(), plain.clone()));
            }
            agree(&blocks, &plain);
        }
        kept.iter().for_each(|(blocks, plain)| agree(blocks, plain));
    }
}
