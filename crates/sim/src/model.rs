//! What the pool must hold: volumes and snapshots as plain maps, and every state that a crash may leave.
//!
//! Contents follow from a number drawn for each write, so wrong data shows itself and nothing needs to be kept.
//! States are ordered: a crash leaves the last acknowledged one or any later one, whole, never a mixture.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use device::Rng;

use crate::blocks::{Block, Blocks};

/// A volume or snapshot; blocks that are not listed are zeros.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Bytes.
    pub size: u64,
    /// Bytes of a block.
    pub block: u64,
    /// When a snapshot was taken, in order; 0 for volumes.
    pub order: u64,
    /// What was written.
    pub blocks: Blocks,
}

/// All datasets by name.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `vol` or `vol@snap`.
    pub datasets: BTreeMap<String, Arc<Volume>>,
    /// These blocks of a volume are being discarded, in order, in one or several commits.
    pub discarding: Option<(String, Range<u64>)>,
    /// The checkpoint, if there is one.
    pub checkpoint: Option<Arc<Kept>>,
}

/// What a checkpoint keeps.
#[derive(Debug)]
pub struct Kept {
    /// All datasets.
    pub state: State,
    /// Comments that the pool may have had.
    pub comments: Vec<String>,
}

/// What stands for a checkpoint among the datasets that were seen.
pub const CHECKPOINT: &str = "(checkpoint)";

/// What was read of a dataset: a digest of every block that is not all zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Bytes.
    pub size: u64,
    /// Digests by block.
    pub blocks: BTreeMap<u64, u64>,
}

/// The bytes that belong to a number: every fourth pattern compresses well, all others not at all.
pub fn pattern(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let period = if number % 4 == 1 { length.min(64) } else { length };
    Rng::new(number).fill(&mut bytes[..period]);
    for at in (period..length).step_by(period.max(1)) {
        let end = (at + period).min(length);
        bytes.copy_within(0..end - at, at);
    }
    bytes
}

/// A digest of a block; `None` when it is all zeros.
pub fn digest(bytes: &[u8]) -> Option<u64> {
    let mix = |hash: u64, word: [u8; 8]| {
        (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    };
    // Four words at a time, which do not wait for each other.
    let mut lanes = [0xcbf2_9ce4_8422_2325_u64, 1, 2, 3];
    let mut any = 0;
    let (rows, rest) = bytes.as_chunks::<32>();
    for row in rows {
        let (words, _) = row.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            any |= u64::from_le_bytes(*word);
            *lane = mix(*lane, *word);
        }
    }
    for word in rest.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        any |= u64::from_le_bytes(padded);
        lanes[0] = mix(lanes[0], padded);
    }
    let hash = lanes.into_iter().fold(bytes.len() as u64, |hash, lane| mix(hash, lane.to_le_bytes()));
    (any != 0).then_some(hash)
}

impl Volume {
    /// Bytes of one block.
    pub fn bytes_of(&self, block: u64) -> Vec<u8> {
        let length = self.block as usize;
        self.blocks.get(block).map_or_else(|| vec![0; length], |block| block.bytes(length))
    }

    /// Any range.
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(length as usize);
        let mut at = offset;
        while at < offset + length {
            let block = at / self.block;
            let end = ((block + 1) * self.block).min(offset + length);
            let bytes = self.bytes_of(block);
            out.extend_from_slice(
                &bytes[(at - block * self.block) as usize..(end - block * self.block) as usize],
            );
            at = end;
        }
        out
    }

    /// Overwrites part of one block.
    pub fn write_within(&mut self, offset: u64, data: &[u8]) {
        let block = offset / self.block;
        let mut bytes = self.bytes_of(block);
        let from = (offset % self.block) as usize;
        bytes[from..from + data.len()].copy_from_slice(data);
        self.blocks.insert(block, Block::of_bytes(bytes));
    }

    /// Makes a range zeros.
    pub fn zero(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        let first = offset.div_ceil(self.block);
        let after = if end == self.size { end.div_ceil(self.block) } else { end / self.block };
        self.blocks.remove(first..after);
        let head_end = (first * self.block).min(end);
        for (from, to) in [(offset, head_end), ((after * self.block).max(head_end), end)] {
            if from < to && self.blocks.get(from / self.block).is_some() {
                self.write_within(from, &vec![0; (to - from) as usize]);
            }
        }
    }

    /// Whether what was read is this.
    pub fn is_seen(&self, seen: &Seen) -> bool {
        let expected = self.blocks.iter().filter_map(|(number, block)| Some((number, block.digest?)));
        self.size == seen.size && expected.eq(seen.blocks.iter().map(|(&number, &digest)| (number, digest)))
    }
}

impl State {
    /// Names of volumes, without snapshots.
    pub fn volumes(&self) -> Vec<String> {
        self.datasets.keys().filter(|name| !name.contains('@')).cloned().collect()
    }

    /// Names of the snapshots of a volume, oldest first.
    pub fn snapshots(&self, volume: &str) -> Vec<String> {
        let mut found: Vec<_> = self
            .datasets
            .iter()
            .filter(|(name, _)| name.split_once('@').is_some_and(|(head, _)| head == volume))
            .map(|(name, dataset)| (dataset.order, name.clone()))
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// Changes a dataset.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Volume)) {
        if let Some(dataset) = self.datasets.get_mut(name) {
            change(Arc::make_mut(dataset));
        }
    }

    /// How far a discard that was under way had come when this was read; nothing when none was.
    fn part_way(&self, seen: &BTreeMap<String, Seen>) -> Option<Self> {
        let (name, blocks) = self.discarding.as_ref()?;
        let mut state = Self { discarding: None, ..self.clone() };
        let reached =
            seen.get(name)?.blocks.range(blocks.clone()).next().map_or(blocks.end, |(&block, _)| block);
        state.change(name, |volume| volume.blocks.remove(blocks.start..reached));
        Some(state)
    }

    /// The first difference to what was read, as a sentence; `None` when there is none.
    pub fn difference(&self, seen: &BTreeMap<String, Seen>) -> Option<String> {
        let have: Vec<_> = seen.keys().map(String::as_str).collect();
        let kept = self.checkpoint.iter().map(|_| CHECKPOINT);
        // Its name is less than those of volumes.
        let want: Vec<_> = kept.chain(self.datasets.keys().map(String::as_str)).collect();
        if have != want {
            return Some(format!("datasets are {have:?}, should be {want:?}"));
        }
        for (name, dataset) in &self.datasets {
            let seen = &seen[name];
            if dataset.size != seen.size {
                return Some(format!("{name} has {} bytes, should have {}", seen.size, dataset.size));
            }
            if !dataset.is_seen(seen) {
                let wrong = (0..dataset.size.div_ceil(dataset.block))
                    .find(|&block| digest(&dataset.bytes_of(block)) != seen.blocks.get(&block).copied());
                return Some(format!(
                    "{name}: block {} of {} bytes is not what it should be (it is {})",
                    wrong.unwrap_or(0),
                    dataset.block,
                    if wrong.is_some_and(|block| seen.blocks.contains_key(&block)) {
                        "something else"
                    } else {
                        "zeros"
                    }
                ));
            }
        }
        None
    }
}

/// Every state that a crash may leave now, the acknowledged one first, the one in memory last.
#[derive(Clone, Debug, Default)]
pub struct Model {
    states: Vec<State>,
    acknowledgements: u64,
}

impl Model {
    /// An empty pool.
    pub fn new() -> Self {
        Self { states: vec![State::default()], acknowledgements: 0 }
    }

    /// The state in memory.
    pub fn now(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    /// How many states are possible.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Appends a state that comes to be now.
    pub fn push(&mut self, state: State) {
        self.states.push(state);
    }

    /// The state in memory is durable: no earlier one may come back.
    pub fn acknowledge(&mut self) {
        self.states.drain(..self.states.len() - 1);
        self.acknowledgements += 1;
    }

    /// How often everything was durable.
    pub fn acknowledgements(&self) -> u64 {
        self.acknowledgements
    }

    /// State number `index` is durable: no earlier one may come back.
    pub fn acknowledge_at(&mut self, index: usize) {
        self.states.drain(..index.min(self.states.len() - 1));
    }

    /// Forgets the states from number `count` on.
    pub fn truncate(&mut self, count: usize) {
        self.states.truncate(count.max(1));
    }

    /// Which state (the newest of them) is the one that was read. One with a discard under way becomes what was read.
    pub fn find(&mut self, seen: &BTreeMap<String, Seen>) -> Option<usize> {
        // Volumes that states share need not be compared twice. They are kept, so that addresses stay theirs.
        let mut judged: BTreeMap<(String, usize), (Arc<Volume>, bool)> = BTreeMap::new();
        let mut is_seen = |state: &State| {
            let kept = state.checkpoint.is_some();
            state.datasets.len() + usize::from(kept) == seen.len()
                && kept == seen.contains_key(CHECKPOINT)
                && state.datasets.iter().all(|(name, dataset)| {
                    let Some(seen) = seen.get(name) else { return false };
                    judged
                        .entry((name.clone(), Arc::as_ptr(dataset) as usize))
                        .or_insert_with(|| (Arc::clone(dataset), dataset.is_seen(seen)))
                        .1
                })
        };
        for (index, state) in self.states.iter_mut().enumerate().rev() {
            if is_seen(state) {
                return Some(index);
            }
            if let Some(reached) = state.part_way(seen).filter(|reached| is_seen(reached)) {
                *state = reached;
                return Some(index);
            }
        }
        None
    }

    /// The pool is in state number `index`, and that is durable.
    pub fn settle(&mut self, index: usize) {
        self.states.truncate(index + 1);
        self.acknowledge();
    }

    /// The oldest state that may come back: what was acknowledged.
    pub fn acknowledged(&self) -> &State {
        &self.states[0]
    }
}
