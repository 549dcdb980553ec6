//! The parity map: which regions of a set may have parity that does not match the data.
//!
//! A write goes: [`ParityMap::begin`] (says whether the map must reach the disks first) -> the data ->
//! [`ParityMap::end`]. [`ParityMap::tick`] lets regions cool down; the caller flushes the components *before* it writes
//! a map with fewer bits. Nothing in here does I/O.
//!
//! On disk it is 4096 bits, bit i at byte i/8, value 1 << i%8, one copy on each column.

use crate::label::{Label, map_flags};
use crate::layout::Layout;

/// Bytes of a map on disk.
pub const MAP_LENGTH: usize = 512;
/// Most regions.
pub const MAX_REGIONS: u32 = 4096;
/// Bytes of a component that a region covers by default.
const REGION_BYTES: u64 = 25 << 20;

/// The bits of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits(Box<[u8; MAP_LENGTH]>);

impl Bits {
    /// All clean.
    pub fn clean() -> Self {
        Self(Box::new([0; MAP_LENGTH]))
    }

    /// The first `regions` dirty.
    pub fn dirty(regions: u32) -> Self {
        let mut bits = Self::clean();
        (0..regions.min(MAX_REGIONS)).for_each(|region| bits.set(region, true));
        bits
    }

    /// From the bytes on disk; any bytes will do.
    pub fn decode(bytes: &[u8; MAP_LENGTH]) -> Self {
        Self(Box::new(*bytes))
    }

    /// The bytes on disk.
    pub fn encode(&self) -> &[u8; MAP_LENGTH] {
        &self.0
    }

    /// Whether a region is dirty; those that do not exist are clean.
    pub fn get(&self, region: u32) -> bool {
        self.0.get(region as usize / 8).is_some_and(|byte| byte >> (region % 8) & 1 == 1)
    }

    /// Makes a region dirty or clean; those that do not exist are left alone.
    pub fn set(&mut self, region: u32, dirty: bool) {
        if let Some(byte) = self.0.get_mut(region as usize / 8) {
            *byte = *byte & !(1 << (region % 8)) | u8::from(dirty) << (region % 8);
        }
    }

    /// Adds the dirty regions of another map.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(ours, theirs)| *ours |= theirs);
    }

    /// How many regions are dirty.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

/// What a user can set about a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Ticks until a region is clean, 1 to 128.
    pub cooldown: u32,
    /// Milliseconds of a tick, at least 10.
    pub tick_ms: u32,
    /// Regions, 1 to 4096.
    pub regions: u32,
}

/// A parameter out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a parity map {name} of {found} is out of range: give {wanted}")]
pub struct ParameterError {
    /// Which one.
    pub name: &'static str,
    /// What was given.
    pub found: u32,
    /// What would do.
    pub wanted: &'static str,
}

impl Parameters {
    /// The defaults for components of which `component_bytes` are in use.
    pub fn default_for(component_bytes: u64) -> Self {
        let regions = (component_bytes / REGION_BYTES).clamp(1, MAX_REGIONS.into()) as u32;
        Self { cooldown: 8, tick_ms: 40_000, regions }
    }

    /// These with the non-zero ones replaced.
    ///
    /// # Errors
    /// One is out of range.
    pub fn with(self, cooldown: u32, tick_ms: u32, regions: u32) -> Result<Self, ParameterError> {
        let or = |new: u32, old: u32| if new == 0 { old } else { new };
        let new = Self {
            cooldown: or(cooldown, self.cooldown),
            tick_ms: or(tick_ms, self.tick_ms),
            regions: or(regions, self.regions),
        };
        if !(1..=128).contains(&new.cooldown) {
            return Err(ParameterError { name: "cooldown", found: new.cooldown, wanted: "1 to 128" });
        }
        if new.tick_ms < 10 {
            return Err(ParameterError { name: "tick", found: new.tick_ms, wanted: "10 ms or more" });
        }
        if !(1..=MAX_REGIONS).contains(&new.regions) {
            return Err(ParameterError {
                name: "number of regions",
                found: new.regions,
                wanted: "1 to 4096",
            });
        }
        Ok(new)
    }

    /// What a label says, if it says something valid.
    pub fn of_label(label: &Label) -> Option<Self> {
        let stored =
            Self { cooldown: label.map_cooldown, tick_ms: label.map_tick_ms, regions: label.map_regions };
        let valid = label.map_flags & map_flags::VALID != 0;
        // Replacing nothing checks everything.
        valid.then(|| stored.with(0, 0, 0).ok()).flatten()
    }
}

/// Counts since the set was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes to the set.
    pub writes: u64,
    /// Times the map was written because a region became dirty.
    pub syncs: u64,
    /// Times it was written because regions became clean.
    pub cleans: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    in_flight: u32,
    /// Ticks until it is clean.
    cooling: u32,
}

/// The map of a set that is in use.
#[derive(Clone, Debug)]
pub struct ParityMap {
    parameters: Parameters,
    region_stripes: u64,
    regions: Vec<Region>,
    /// What was dirty when the set was configured and has not been rewritten since.
    at_boot: Bits,
    counters: Counters,
}

impl ParityMap {
    /// A map over the stripes of `layout`, with what was found on disk.
    pub fn new(layout: &Layout, parameters: Parameters, at_boot: Bits) -> Self {
        let regions = parameters.regions.clamp(1, MAX_REGIONS);
        Self {
            parameters: Parameters { regions, ..parameters },
            region_stripes: layout.stripes().div_ceil(regions.into()),
            regions: vec![Region::default(); regions as usize],
            at_boot,
            counters: Counters::default(),
        }
    }

    /// The parameters in use.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Changes cooldown and tick at once; the number of regions stays as it is.
    pub fn set_timing(&mut self, cooldown: u32, tick_ms: u32) {
        self.parameters = Parameters { cooldown, tick_ms, ..self.parameters };
    }

    /// Stripes of a region.
    pub fn region_stripes(&self) -> u64 {
        self.region_stripes
    }

    /// The region of a stripe.
    pub fn region(&self, stripe: u64) -> u32 {
        (stripe / self.region_stripes.max(1)).min(u64::from(self.parameters.regions - 1)) as u32
    }

    /// Counts since the set was configured.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A write to `region` begins. True: the map must be on the disks, flushed, before the data is written.
    #[must_use]
    pub fn begin(&mut self, region: u32) -> bool {
        self.counters.writes += 1;
        let at_boot = self.at_boot.get(region);
        let Some(state) = self.regions.get_mut(region as usize) else { return false };
        let fresh = state.in_flight == 0 && state.cooling == 0 && !at_boot;
        state.in_flight += 1;
        self.counters.syncs += u64::from(fresh);
        fresh
    }

    /// A write to `region` has ended.
    pub fn end(&mut self, region: u32) {
        if let Some(state) = self.regions.get_mut(region as usize) {
            state.in_flight = state.in_flight.saturating_sub(1);
            state.cooling = self.parameters.cooldown;
        }
    }

    /// One tick has passed. True: regions became clean, so flush the components and write the map.
    #[must_use]
    pub fn tick(&mut self) -> bool {
        let mut cleaned = false;
        for state in self.regions.iter_mut().filter(|state| state.in_flight == 0 && state.cooling > 0) {
            state.cooling -= 1;
            cleaned |= state.cooling == 0;
        }
        self.counters.cleans += u64::from(cleaned);
        cleaned
    }

    /// Lets every region that is not being written become clean at once, as for a clean shutdown.
    pub fn settle(&mut self) {
        self.regions.iter_mut().for_each(|state| state.cooling = 0);
    }

    /// What belongs on the disks now.
    pub fn bits(&self) -> Bits {
        let mut bits = self.at_boot.clone();
        for (region, state) in (0..).zip(&self.regions) {
            if state.in_flight > 0 || state.cooling > 0 {
                bits.set(region, true);
            }
        }
        bits
    }

    /// Whether the parity of a region has to be rewritten.
    pub fn needs_rewrite(&self, region: u32) -> bool {
        self.at_boot.get(region)
    }

    /// The parity of a region has been rewritten.
    pub fn rewritten(&mut self, region: u32) {
        self.at_boot.set(region, false);
    }

    /// A write to a region has failed half way: it stays dirty until its parity is rewritten.
    pub fn doubt(&mut self, region: u32) {
        if region < self.parameters.regions {
            self.at_boot.set(region, true);
        }
    }

    /// Makes every region dirty until its parity is rewritten.
    pub fn distrust(&mut self) {
        self.at_boot = Bits::dirty(self.parameters.regions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Level;
    use proptest::prelude::*;

    fn map(regions: u32, cooldown: u32) -> ParityMap {
        let layout = Layout::new(Level::Raid5, 3, 8, 1000).unwrap();
        ParityMap::new(&layout, Parameters { cooldown, tick_ms: 10, regions }, Bits::clean())
    }

    #[test]
    fn bit_i_is_the_i_th_from_the_least_significant_on() {
        let mut bits = Bits::clean();
        [0, 9, 4095, 4096].into_iter().for_each(|region| bits.set(region, true));
        assert_eq!((bits.encode()[0], bits.encode()[1], bits.encode()[511], bits.count()), (1, 2, 0x80, 3));
        assert!(bits.get(9) && !bits.get(8) && !bits.get(4096));
        bits.set(9, false);
        assert_eq!(bits.count(), 2);
        assert_eq!(Bits::dirty(10).encode()[..3], [0xff, 3, 0]);
        assert_eq!(Bits::decode(bits.encode()), bits);
    }

    #[test]
    fn defaults_and_limits() {
        let small = Parameters::default_for(1 << 20);
        assert_eq!(small, Parameters { cooldown: 8, tick_ms: 40_000, regions: 1 });
        assert_eq!(Parameters::default_for(1 << 30).regions, 40);
        assert_eq!(Parameters::default_for(1 << 50).regions, 4096);
        assert_eq!(small.with(0, 20, 7).unwrap(), Parameters { cooldown: 8, tick_ms: 20, regions: 7 });
        for bad in [(129, 0, 0), (0, 9, 0), (0, 0, 4097)] {
            assert!(small.with(bad.0, bad.1, bad.2).is_err());
        }
    }

    #[test]
    fn a_region_cools_down_only_after_its_last_write() {
        let mut map = map(10, 2);
        assert_eq!((map.region_stripes(), map.region(99), map.region(100), map.region(999)), (100, 0, 1, 9));
        assert!(map.begin(3) && !map.begin(3));
        map.end(3);
        assert!(!map.tick() && map.bits().get(3), "a write is still in flight");
        map.end(3);
        assert!(!map.tick() && map.bits().get(3));
        assert!(!map.begin(3), "still marked, no need to write the map");
        map.end(3);
        assert!(!map.tick() && map.tick() && !map.bits().get(3) && !map.tick());
        assert!(map.begin(3));
        assert_eq!(map.counters(), Counters { writes: 4, syncs: 2, cleans: 1 });
    }

    #[test]
    fn what_was_dirty_at_boot_stays_so_until_rewritten() {
        let layout = Layout::new(Level::Raid5, 3, 8, 1000).unwrap();
        let parameters = Parameters { cooldown: 1, tick_ms: 10, regions: 4 };
        let mut map = ParityMap::new(&layout, parameters, Bits::dirty(2));
        assert!(!map.begin(1));
        map.end(1);
        map.settle();
        assert_eq!(map.bits(), Bits::dirty(2));
        map.rewritten(1);
        map.rewritten(0);
        assert_eq!(map.bits().count(), 0);
        map.doubt(2);
        map.doubt(4);
        assert_eq!(map.bits().encode()[0], 4);
        map.distrust();
        assert_eq!(map.bits(), Bits::dirty(4));
    }

    proptest! {
        /// A region in flight is always marked on disk, if the disk is written whenever `begin` or `tick` ask.
        #[test]
        fn the_disk_covers_every_write(steps in prop::collection::vec((0..3_u8, 0..5_u32), 0..200)) {
            let mut map = map(5, 2);
            let mut in_flight = [0_u32; 5];
            let mut disk = Bits::clean();
            for (action, region) in steps {
                match action {
                    0 => {
                        in_flight[region as usize] += 1;
                        if map.begin(region) { disk = map.bits(); }
                    }
                    1 if in_flight[region as usize] > 0 => {
                        in_flight[region as usize] -= 1;
                        map.end(region);
                    }
                    1 => {}
                    _ => if map.tick() { disk = map.bits(); },
                }
                for region in 0..5 {
                    prop_assert!(in_flight[region as usize] == 0 || disk.get(region));
                }
            }
        }
    }
}
