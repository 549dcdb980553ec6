//! Steps that users of volumes take.

use std::sync::Arc;

use device::Rng;
use pool::spec::VolumeSpec;

use crate::blocks::{Block, Blocks};
use crate::model::{State, Volume, pattern};
use crate::run::{Failure, Run};

/// Volumes and snapshots at a time.
const VOLUMES_MAX: usize = 4;
const SNAPSHOTS_MAX: usize = 5;

/// Possible states at a time; more of them are made fewer by a flush.
const STATES_MAX: usize = 300;

impl Run {
    fn some_volume(&self, rng: &mut Rng) -> Option<String> {
        rng.choose(&self.model.now().volumes()).cloned()
    }

    fn some_snapshot(&self, rng: &mut Rng) -> Option<String> {
        let all: Vec<String> =
            self.model.now().datasets.keys().filter(|name| name.contains('@')).cloned().collect();
        rng.choose(&all).cloned()
    }

    /// A range of a volume: often whole blocks, often where others were.
    fn some_range(rng: &mut Rng, volume: &Volume) -> (u64, u64) {
        let blocks = (volume.size / volume.block).min(24);
        let count = rng.within(1..7).min(blocks);
        let mut first = rng.below(blocks - count + 1);
        if rng.chance(1, 12) {
            first = volume.size / volume.block - count;
        }
        let (mut offset, mut length) = (first * volume.block, count * volume.block);
        if rng.chance(1, 3) {
            let cut = rng.below(length.min(volume.block));
            offset += cut;
            length -= cut;
            length -= rng.below(length.min(volume.block));
        }
        (offset, length.max(1))
    }

    pub(crate) fn write(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if self.model.count() > STATES_MAX {
            self.flush()?;
            if !self.world.supply.is_on() {
                return Ok(());
            }
        }
        let Some(name) = self.some_volume(rng) else { return self.create(rng) };
        let volume = Arc::clone(&self.model.now().datasets[&name]);
        let (offset, length) = Self::some_range(rng, &volume);
        self.write_range(&name, &volume, offset, length)
    }

    pub(crate) fn write_range(
        &mut self,
        name: &str,
        volume: &Volume,
        offset: u64,
        length: u64,
    ) -> Result<(), Failure> {
        let mut data = Vec::with_capacity(length as usize);
        let mut states = Vec::new();
        let mut state = self.model.now().clone();
        let mut at = offset;
        while at < offset + length {
            let block = at / volume.block;
            let end = ((block + 1) * volume.block).min(offset + length);
            let number = self.pattern_number();
            let bytes = pattern(number, (end - at) as usize);
            state.change(name, |dataset| {
                if bytes.len() as u64 == volume.block {
                    dataset.blocks.insert(block, Block::of_pattern(number, &bytes));
                } else {
                    dataset.write_within(at, &bytes);
                }
            });
            data.extend_from_slice(&bytes);
            states.push(state.clone());
            at = end;
        }
        let what = format!("write {name} {offset}+{length}");
        self.lead_to(&what, states, false, false, |pool| {
            let id = pool.open(name)?;
            pool.write(id, offset, &data)
        })?;
        Ok(())
    }

    pub(crate) fn read(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let snapshot = if rng.chance(1, 3) { self.some_snapshot(rng) } else { None };
        let Some(name) = snapshot.or_else(|| self.some_volume(rng)) else { return Ok(()) };
        let volume = Arc::clone(&self.model.now().datasets[&name]);
        let (offset, length) = Self::some_range(rng, &volume);
        let what = format!("read {name} {offset}+{length}");
        let mut bytes = vec![0xa5; length as usize];
        let pool = self.pool();
        let result = pool.open(&name).and_then(|id| pool.read(id, offset, &mut bytes));
        if self.judge(&what, result, false)?.is_some() && bytes != volume.read(offset, length) {
            return Err(format!("{what} gives wrong data"));
        }
        Ok(())
    }

    pub(crate) fn discard(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_volume(rng) else { return Ok(()) };
        let volume = Arc::clone(&self.model.now().datasets[&name]);
        let (mut offset, mut length) = Self::some_range(rng, &volume);
        if rng.chance(1, 8) {
            (offset, length) = (0, volume.size);
        }
        self.discard_range(&name, &volume, offset, length)
    }

    pub(crate) fn discard_range(
        &mut self,
        name: &str,
        volume: &Volume,
        offset: u64,
        length: u64,
    ) -> Result<(), Failure> {
        let end = offset + length;
        // Where blocks are zeroed in part, or kept by a snapshot, it takes room, which there may not be.
        let whole = offset.is_multiple_of(volume.block) && end.is_multiple_of(volume.block);
        let free = whole && self.model.now().snapshots(name).is_empty();
        let what = format!("{} {name} {offset}+{length}", if free { "discard" } else { "trim" });
        let (first, last) =
            (offset.next_multiple_of(volume.block).min(end), (end / volume.block * volume.block).max(offset));
        let mut states = Vec::new();
        let mut state = self.model.now().clone();
        // The ends are overwritten before the blocks between them are given back.
        for (from, to) in [(offset, first), (last.max(first), end)] {
            if to > from {
                state.change(name, |dataset| dataset.zero(from, to - from));
                states.push(state.clone());
            }
        }
        let blocks = offset.div_ceil(volume.block)..end.div_ceil(volume.block);
        states.push(State { discarding: Some((name.to_owned(), blocks)), ..state.clone() });
        state.change(name, |dataset| dataset.zero(offset, length));
        states.push(state);
        self.lead_to(&what, states, false, false, |pool| {
            let id = pool.open(name)?;
            pool.discard(id, offset, length)
        })?;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let done = self.lead_to("flush", Vec::new(), true, false, pool::Pool::flush)?;
        let mut rng = Rng::new(self.pattern_number());
        if done && self.world.supply.is_on() && rng.chance(1, 6) {
            self.look_back(&mut rng)?;
        }
        Ok(())
    }

    pub(crate) fn create(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        if self.model.now().volumes().len() >= VOLUMES_MAX {
            return Ok(());
        }
        self.next_name += 1;
        let name = format!("v{}", self.next_name);
        let block = 4096_u64 << *rng.choose(&[0, 0, 1, 2, 2, 3, 4, 5]).unwrap_or(&0);
        let size = block * rng.within(1..40);
        let compression = rng.choose(&["off", "lz4", "zstd"]).copied().unwrap_or("off");
        let properties = if rng.chance(1, 3) {
            vec![("compression".to_owned(), compression.to_owned())]
        } else {
            Vec::new()
        };
        let spec = VolumeSpec { size, block_size: block as u32, sparse: rng.chance(3, 4), properties };
        self.create_volume(&name, &spec)?;
        Ok(())
    }

    pub(crate) fn create_volume(&mut self, name: &str, spec: &VolumeSpec) -> Result<bool, Failure> {
        let mut state = self.model.now().clone();
        let volume = Volume {
            size: spec.size,
            block: u64::from(spec.block_size),
            order: 0,
            blocks: Blocks::default(),
        };
        state.datasets.insert(name.to_owned(), Arc::new(volume));
        let what = format!("create {name} {} by {}", spec.size, spec.block_size);
        self.lead_to(&what, vec![state], true, true, |pool| pool.volume_create(name, spec))
    }

    pub(crate) fn destroy(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_volume(rng) else { return Ok(()) };
        if !self.model.now().snapshots(&name).is_empty() {
            let result = self.pool().volume_destroy(&name);
            if self.judge(&format!("destroy {name}"), result, true)?.is_some() {
                return Err(format!("{name} was destroyed though it has snapshots"));
            }
            return Ok(());
        }
        let mut state = self.model.now().clone();
        state.datasets.remove(&name);
        // What only a checkpoint knows needs room to be told.
        let refusals = state.checkpoint.is_some();
        self.lead_to(&format!("destroy {name}"), vec![state], true, refusals, |pool| {
            pool.volume_destroy(&name)
        })?;
        Ok(())
    }

    pub(crate) fn resize(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_volume(rng) else { return Ok(()) };
        let volume = Arc::clone(&self.model.now().datasets[&name]);
        let size = volume.block * rng.within(1..48);
        let mut states = Vec::new();
        let mut state = self.model.now().clone();
        if size < volume.size {
            let blocks = size / volume.block..volume.size.div_ceil(volume.block);
            states.push(State { discarding: Some((name.clone(), blocks)), ..state.clone() });
            state.change(&name, |dataset| dataset.zero(size, dataset.size - size));
            states.push(state.clone());
        }
        state.change(&name, |dataset| dataset.size = size);
        states.push(state);
        let what = format!("resize {name} {} to {size}", volume.size);
        self.lead_to(&what, states, true, true, |pool| pool.volume_resize(&name, size))?;
        Ok(())
    }

    pub(crate) fn property(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_volume(rng) else { return Ok(()) };
        let (property, values): (_, &[&str]) = if rng.chance(1, 2) {
            ("compression", &["off", "lz4", "zstd"])
        } else {
            ("checksum", &["on", "blake3"])
        };
        let value = *rng.choose(values).unwrap_or(&"on");
        let what = format!("set {property}={value} {name}");
        self.lead_to(&what, Vec::new(), false, true, |pool| pool.set(&name, property, value))?;
        Ok(())
    }

    pub(crate) fn snapshot(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(volume) = self.some_volume(rng) else { return Ok(()) };
        if self.model.now().snapshots(&volume).len() >= SNAPSHOTS_MAX {
            return Ok(());
        }
        self.next_name += 1;
        let name = format!("{volume}@s{}", self.next_name);
        let mut state = self.model.now().clone();
        let mut copy = (*state.datasets[&volume]).clone();
        copy.order = self.next_name;
        state.datasets.insert(name.clone(), Arc::new(copy));
        self.lead_to(&format!("snapshot {name}"), vec![state], true, true, |pool| pool.snapshot(&name))?;
        Ok(())
    }

    pub(crate) fn snapshot_destroy(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_snapshot(rng) else { return Ok(()) };
        let mut state = self.model.now().clone();
        state.datasets.remove(&name);
        self.lead_to(&format!("snapshot_destroy {name}"), vec![state], true, false, |pool| {
            pool.snapshot_destroy(&name)
        })?;
        Ok(())
    }

    pub(crate) fn rollback(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        let Some(name) = self.some_snapshot(rng) else { return Ok(()) };
        let volume = name.split('@').next().unwrap_or_default().to_owned();
        let last = self.model.now().snapshots(&volume).last() == Some(&name);
        let mut state = self.model.now().clone();
        if last {
            let mut copy = (*state.datasets[&name]).clone();
            copy.order = 0;
            state.datasets.insert(volume, Arc::new(copy));
        }
        let done =
            self.lead_to(&format!("rollback {name}"), vec![state], true, true, |pool| pool.rollback(&name))?;
        if done && !last {
            return Err(format!("rolled back to {name}, which is not the last snapshot"));
        }
        Ok(())
    }

    /// Writes until the pool is full, then makes room again, or goes on with a full pool.
    pub(crate) fn fill(&mut self, rng: &mut Rng) -> Result<(), Failure> {
        self.next_name += 1;
        let name = format!("full{}", self.next_name);
        let block = *rng.choose(&[16384, 65536, 65536, 1 << 20]).unwrap_or(&65536);
        let spec = VolumeSpec { size: 1 << 30, block_size: block, sparse: true, properties: Vec::new() };
        if !self.create_volume(&name, &spec)? {
            return Ok(());
        }
        let mut at = 0;
        while at < spec.size {
            let volume = Arc::clone(&self.model.now().datasets[&name]);
            let base = self.model.count();
            self.write_range(&name, &volume, at, 1 << 20)?;
            if !self.world.supply.is_on() {
                return Ok(());
            }
            if self.model.count() < base + (1 << 20) / block as usize {
                break;
            }
            at += 1 << 20;
            if at % (16 << 20) == 0 {
                self.flush()?;
                if !self.world.supply.is_on() {
                    return Ok(());
                }
            }
        }
        self.tally.add("full", true);
        self.flush()?;
        if !self.world.supply.is_on() {
            return Ok(());
        }
        if rng.chance(1, 3) {
            return Ok(());
        }
        // A full pool can always give space back.
        if rng.chance(1, 2) {
            let volume = Arc::clone(&self.model.now().datasets[&name]);
            let half = at / 2 / u64::from(block) * u64::from(block);
            self.discard_range(&name, &volume, 0, half)?;
            if self.world.supply.is_on() {
                self.flush()?;
            }
        }
        if self.world.supply.is_on() {
            let mut state = self.model.now().clone();
            state.datasets.remove(&name);
            self.lead_to(&format!("destroy {name}"), vec![state], true, false, |pool| {
                pool.volume_destroy(&name)
            })?;
        }
        Ok(())
    }
}
