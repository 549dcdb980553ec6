//! Which blocks of an overlay are in its delta, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::format::{self, BLOCK, Entry, SEGMENT_UNITS, Table, UNIT, UNIT_BLOCKS};

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The same offset of the base.
    Base,
    /// This offset of the delta.
    Delta(u64),
}

/// A unit's place in the delta.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Number of the delta's unit, through all segments.
    unit: u64,
    /// Which blocks are there.
    mask: u16,
}

/// The blocks in the delta. Units are never freed.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// By number of the base's unit.
    places: BTreeMap<u64, Place>,
    segments: Vec<Segment>,
    /// Units given out, all in front of those that were not.
    used: u64,
    /// Segments whose table in the file is out of date.
    dirty: BTreeSet<u64>,
}

/// What is known of a segment.
#[derive(Debug)]
struct Segment {
    /// Which unit of the base each unit stands for.
    base_units: [Option<u64>; SEGMENT_UNITS as usize],
    /// Of its table in the file.
    generation: u64,
}

impl Segment {
    const EMPTY: Self = Self { base_units: [None; SEGMENT_UNITS as usize], generation: 0 };
}

impl Map {
    /// Adds the next segment as the file has it; else says what is wrong with it.
    pub(super) fn load(&mut self, table: &Table, base_size: u64) -> Result<(), String> {
        let first = self.segments.len() as u64 * SEGMENT_UNITS;
        let mut segment = Segment { generation: table.generation, ..Segment::EMPTY };
        for (index, Entry { base_unit, mask }) in table.entries.iter().copied().enumerate() {
            if mask == 0 {
                continue;
            }
            if base_unit >= base_size.div_ceil(UNIT) {
                return Err(format!(
                    "entry {index} names unit {base_unit}, which lies behind the base's end"
                ));
            }
            let unit = first + index as u64;
            if self.places.insert(base_unit, Place { unit, mask }).is_some() {
                return Err(format!("entry {index} names unit {base_unit}, which is somewhere else already"));
            }
            segment.base_units[index] = Some(base_unit);
            self.used = unit + 1;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// The pieces of `range` by where they come from, as long as possible, in order.
    pub(super) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Source)> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= range.end {
                return None;
            }
            let start = at;
            let source = self.source(at);
            loop {
                at = self.piece_end(at).min(range.end);
                let follows = match source {
                    Source::Base => Source::Base,
                    Source::Delta(from) => Source::Delta(from + (at - start)),
                };
                if at >= range.end || self.source(at) != follows {
                    return Some((start..at, source));
                }
            }
        })
    }

    fn source(&self, offset: u64) -> Source {
        let block = offset % UNIT / BLOCK;
        match self.places.get(&(offset / UNIT)) {
            Some(place) if place.mask >> block & 1 == 1 => {
                Source::Delta(format::unit_offset(place.unit) + offset % UNIT)
            }
            _ => Source::Base,
        }
    }

    /// An offset behind `offset` up to which the source is surely the same.
    fn piece_end(&self, offset: u64) -> u64 {
        let unit = offset / UNIT;
        match self.places.range(unit..).next() {
            Some((&found, _)) if found == unit => (offset / BLOCK + 1) * BLOCK,
            Some((&next, _)) => next * UNIT,
            None => u64::MAX,
        }
    }

    /// Gives every unit that holds one of these blocks a place; tells how many segments there are then.
    pub(super) fn allocate(&mut self, blocks: Range<u64>) -> u64 {
        for base_unit in units(&blocks) {
            let next = self.used;
            let place = self.places.entry(base_unit).or_insert(Place { unit: next, mask: 0 });
            if place.unit == next {
                self.used += 1;
                let segment = (next / SEGMENT_UNITS) as usize;
                if segment >= self.segments.len() {
                    self.segments.push(Segment::EMPTY);
                }
                self.segments[segment].base_units[(next % SEGMENT_UNITS) as usize] = Some(base_unit);
            }
        }
        self.segments.len() as u64
    }

    /// Where allocated blocks belong in the delta: runs of blocks and offsets, in order.
    pub(super) fn placed(&self, blocks: Range<u64>) -> Vec<(Range<u64>, u64)> {
        let mut runs: Vec<(Range<u64>, u64)> = Vec::new();
        for base_unit in units(&blocks) {
            let Some(place) = self.places.get(&base_unit) else { continue };
            let start = blocks.start.max(base_unit * UNIT_BLOCKS);
            let end = blocks.end.min((base_unit + 1) * UNIT_BLOCKS);
            let at = format::unit_offset(place.unit) + start % UNIT_BLOCKS * BLOCK;
            match runs.last_mut() {
                Some((run, from)) if *from + (run.end - run.start) * BLOCK == at => run.end = end,
                _ => runs.push((start..end, at)),
            }
        }
        runs
    }

    /// From now on these blocks, which were allocated, are read from the delta.
    pub(super) fn mark(&mut self, blocks: Range<u64>) {
        for base_unit in units(&blocks) {
            let Some(place) = self.places.get_mut(&base_unit) else { continue };
            let first = blocks.start.saturating_sub(base_unit * UNIT_BLOCKS);
            let end = (blocks.end - base_unit * UNIT_BLOCKS).min(UNIT_BLOCKS);
            let mask = place.mask | ((1_u32 << end) - (1_u32 << first)) as u16;
            if mask != place.mask {
                place.mask = mask;
                self.dirty.insert(place.unit / SEGMENT_UNITS);
            }
        }
    }

    /// The next generation of every table that is out of date, by segment.
    pub(super) fn dirty_tables(&self) -> Vec<(u64, Table)> {
        let table = |segment: &Segment| {
            let mut table = Table { generation: segment.generation + 1, ..Table::default() };
            for (entry, base_unit) in table.entries.iter_mut().zip(segment.base_units) {
                if let Some((base_unit, place)) =
                    base_unit.and_then(|unit| Some((unit, self.places.get(&unit)?)))
                {
                    *entry = Entry { base_unit, mask: place.mask };
                }
            }
            table
        };
        self.dirty
            .iter()
            .filter_map(|&number| Some((number, table(self.segments.get(number as usize)?))))
            .collect()
    }

    /// These tables are durable now.
    pub(super) fn saved(&mut self, tables: &[(u64, Table)]) {
        for (number, table) in tables {
            if let Some(segment) = self.segments.get_mut(*number as usize) {
                segment.generation = table.generation;
            }
            self.dirty.remove(number);
        }
    }
}

/// The base's units that hold these blocks.
fn units(blocks: &Range<u64>) -> Range<u64> {
    blocks.start / UNIT_BLOCKS..blocks.end.div_ceil(UNIT_BLOCKS)
}
