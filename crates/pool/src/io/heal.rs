//! Self-healing: find the bytes that match the checksum, blame whoever gave others, and repair them.
//!
//! Nothing is believed but the checksum. Stale copies are asked too, last. For parity chunks every set of
//! columns up to the parity count is taken for wrong in turn and rebuilt from the rest, row by row.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Mutex;

use geometry::{ColumnSet, Kind};

use super::on_device;
use super::read::Want;
use super::rows::Rows;
use crate::chunk::Chunk;
use crate::core::{Core, Workers};
use crate::error::{PoolError, Result};
use crate::types::{DeviceId, Logical};

/// Combinations that are tried before an extent is given up.
const TRIALS_MAX: usize = 50_000;

/// Bytes of such combinations whose checksum is computed, so that a long extent is given up in about a second.
const TRIALS_BYTES_MAX: u64 = 4 << 30;

/// What one placement holds of the rows in question.
struct Version {
    column: u16,
    device: DeviceId,
    /// Where on the device the rows begin.
    offset: u64,
    /// Not fresh in all of the rows: no blame and no repair.
    stale: bool,
    /// Its bytes; none when it could not be read.
    bytes: Option<Vec<u8>>,
}

/// What was rewritten on a device since it was flushed last.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    /// Bytes, as far as they are to be counted.
    bytes: u64,
    /// Where: chunk and region.
    regions: BTreeSet<(Logical, u32)>,
}

impl Core {
    /// The right bytes of an extent whose straight read did not match its checksum.
    ///
    /// # Errors
    /// [`PoolError::Unreadable`] when no combination matches; every device that holds a part is charged.
    pub(crate) fn heal(&mut self, want: &Want) -> Result<Vec<u8>> {
        let right = self.heal_rows(want)?;
        let unreadable = PoolError::Unreadable { address: want.address, length: u64::from(want.length) };
        let chunk = self.chunk_of(want.address, u64::from(want.length))?;
        let offset = want.address.0 - chunk.address.0;
        right.logical(chunk, offset, u64::from(want.length)).map(Cow::into_owned).ok_or(unreadable)
    }

    /// As [`Core::heal`]: the rows of the extent as they are right, every column that could be had.
    pub(crate) fn heal_rows(&mut self, want: &Want) -> Result<Rows> {
        let chunk = self.chunk_of(want.address, u64::from(want.length))?.clone();
        let offset = want.address.0 - chunk.address.0;
        let rows = chunk.layout.rows_of(offset, u64::from(want.length));
        let versions = self.read_versions(&chunk, rows.clone());
        let found = match chunk.layout.kind() {
            Kind::Parity { parity } => by_parity(&chunk, want, &rows, &versions, parity),
            _ => by_copies(&chunk, want, &rows, &versions),
        };
        if self.looking_back {
            let unreadable = PoolError::Unreadable { address: want.address, length: u64::from(want.length) };
            return found.ok_or(unreadable);
        }
        let Some(mut right) = found else {
            let touched = touched_columns(&chunk, offset, u64::from(want.length));
            for version in versions.iter().filter(|v| !v.stale && v.bytes.is_some()) {
                if chunk.has_parity() || touched.contains(version.column) {
                    self.checksum_failed(version.device, want.address);
                }
            }
            // With devices away it may be readable again when they are back.
            let unread: ColumnSet = (0..chunk.columns.len() as u16)
                .filter(|&column| {
                    !versions.iter().any(|v| v.column == column && !v.stale && v.bytes.is_some())
                })
                .collect();
            if chunk.layout.redundancy(&unread).is_some() {
                self.data_lost(want.address);
            }
            return Err(PoolError::Unreadable { address: want.address, length: u64::from(want.length) });
        };
        // The extent is right, the parity of its rows need not be: it is what a first version says.
        let (first, last, row_bytes) = (offset, offset + u64::from(want.length), chunk.layout.row_bytes());
        right.renew_parity(&chunk, |row| row * row_bytes >= first && (row + 1) * row_bytes <= last);
        self.repair(&chunk, want, &right, &versions);
        Ok(right)
    }

    /// How many bytes were repaired for good: what devices were given is flushed, and then counted.
    pub(crate) fn settle_healed(&mut self) -> u64 {
        let bytes: Vec<(DeviceId, u64)> =
            self.healing.iter().map(|(id, healing)| (*id, healing.bytes)).collect();
        let failed = self.flush_these(&bytes.iter().map(|(id, _)| *id).collect());
        bytes.iter().filter(|(device, _)| !failed.contains(device)).map(|(_, bytes)| bytes).sum()
    }

    /// What was repaired so far is not to be counted.
    pub(crate) fn count_healed_from_now(&mut self) {
        self.healing.values_mut().for_each(|healing| healing.bytes = 0);
    }

    /// A part of a column was rewritten on a device, which may forget that until it is flushed.
    pub(crate) fn healed(&mut self, device: DeviceId, chunk: &Chunk, offset: u64, length: u64) {
        let healing = self.healing.entry(device).or_default();
        healing.bytes += length;
        healing.regions.extend(chunk.regions_of(offset, length).map(|region| (chunk.address, region)));
    }

    /// A device was flushed. Where that failed it may have lost repairs that it still shows, so that nobody would find
    /// them missing: all of it counts as stale there, where the others are enough.
    pub(crate) fn flushed(&mut self, device: DeviceId, done: bool) {
        let Some(healing) = self.healing.remove(&device).filter(|_| !done) else { return };
        for (address, region) in healing.regions {
            let is_enough = |chunk: &Chunk| {
                chunk.layout.redundancy(&self.gone_columns(chunk, region, &[device])).is_some()
            };
            if !self.map.get(address).is_some_and(is_enough) {
                continue;
            }
            let Some(chunk) = self.map.change(address) else { continue };
            for placement in chunk.columns.iter_mut().flat_map(|column| &mut column.placements) {
                if placement.device == device {
                    placement.stale.insert(region);
                }
            }
        }
    }

    /// Reads every placement of every column of some rows.
    fn read_versions(&mut self, chunk: &Chunk, rows: std::ops::Range<u64>) -> Vec<Version> {
        let unit = u64::from(chunk.layout.unit());
        let (start, length) = (rows.start * unit, (rows.end - rows.start) * unit);
        let mut versions = Vec::new();
        for (column, placement) in chunk.placements() {
            let Some(handle) = self.devices.get(&placement.device).and_then(|device| device.open().cloned())
            else {
                continue;
            };
            let stale = chunk.regions_of(start, length).any(|region| placement.stale.contains(region));
            let mut bytes = vec![0; length as usize];
            let offset = on_device(placement, start);
            let read = handle.read(offset, &mut bytes);
            let bytes = match read {
                Ok(()) => Some(bytes),
                Err(error) => {
                    if !stale {
                        self.device_failed(placement.device, &error);
                    }
                    None
                }
            };
            versions.push(Version { column, device: placement.device, offset, stale, bytes });
        }
        versions.sort_by_key(|version| version.stale);
        versions
    }

    /// Charges and rewrites every fresh version that differs from what is right, within the bytes that the
    /// checksum vouches for.
    fn repair(&mut self, chunk: &Chunk, want: &Want, right: &Rows, versions: &[Version]) {
        let unit = u64::from(chunk.layout.unit());
        let offset = want.address.0 - chunk.address.0;
        for version in versions.iter().filter(|version| !version.stale) {
            let mut wrong = Vec::new();
            let mut unread = version.bytes.is_none();
            for row in right.rows.clone() {
                let Some((from, to)) = vouched(chunk, offset, u64::from(want.length), row, version.column)
                else {
                    continue;
                };
                let Some(unit_right) = right.unit(row, version.column) else { continue };
                let at = ((row - right.rows.start) * unit) as usize;
                let differs = match &version.bytes {
                    Some(bytes) => bytes[at + from..at + to] != unit_right[from..to],
                    None => true,
                };
                if differs {
                    wrong.push((at + from, unit_right[from..to].to_vec()));
                }
            }
            if wrong.is_empty() {
                continue;
            }
            if !unread {
                self.checksum_failed(version.device, want.address);
            }
            if self.read_only || self.is_sabotaged("no-repair") {
                continue;
            }
            for (at, bytes) in wrong {
                let Some(handle) =
                    self.devices.get(&version.device).and_then(|device| device.open().cloned())
                else {
                    break;
                };
                match handle.write(version.offset + at as u64, &bytes) {
                    Ok(()) => {
                        let offset = right.rows.start * unit + at as u64;
                        self.healed(version.device, chunk, offset, bytes.len() as u64);
                    }
                    Err(error) => {
                        self.device_failed(version.device, &error);
                        unread = true;
                    }
                }
            }
            let _ = unread;
        }
    }
}

/// Columns that hold bytes of a logical range.
fn touched_columns(chunk: &Chunk, offset: u64, length: u64) -> ColumnSet {
    chunk
        .layout
        .segments(offset, length)
        .flat_map(|segment| chunk.layout.columns_of(segment.cell.row, segment.cell.index).collect::<Vec<_>>())
        .collect()
}

/// Which bytes of a column's unit in a row are proven right once the extent's checksum matched: its own bytes where
/// the column holds them, and where there is parity the same bytes of the row's parity units.
fn vouched(chunk: &Chunk, offset: u64, length: u64, row: u64, column: u16) -> Option<(usize, usize)> {
    let layout = &chunk.layout;
    let (mut lowest, mut highest) = (usize::MAX, 0);
    let row_bytes = layout.row_bytes();
    let (first, last) = ((row * row_bytes).max(offset), ((row + 1) * row_bytes).min(offset + length));
    if first >= last {
        return None;
    }
    let is_parity = matches!(layout.role(row, column), geometry::Role::Parity(_));
    // Parity is proven only where every data unit of the row is the extent's own.
    if is_parity && last - first < row_bytes {
        return None;
    }
    for segment in layout.segments(first, last - first) {
        if is_parity || layout.columns_of(row, segment.cell.index).any(|c| c == column) {
            lowest = lowest.min(segment.cell.within as usize);
            highest = highest.max(segment.cell.within as usize + segment.length as usize);
        }
    }
    (lowest < highest).then_some((lowest, highest))
}

/// The rows with each column's first readable version.
fn base(chunk: &Chunk, rows: &std::ops::Range<u64>, versions: &[Version]) -> Rows {
    let mut loaded = Rows::new(chunk, rows.clone());
    for version in versions {
        let slot = &mut loaded.columns[usize::from(version.column)];
        if slot.is_none() {
            slot.clone_from(&version.bytes);
        }
    }
    loaded
}

fn matches(chunk: &Chunk, want: &Want, rows: &Rows) -> bool {
    let offset = want.address.0 - chunk.address.0;
    rows.logical(chunk, offset, u64::from(want.length)).is_some_and(|bytes| want.checksum.matches(&bytes))
}

/// How much of an extent is believed or not as one, from coarse to fine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grain {
    /// All that a set of twin columns holds.
    Twins,
    /// One unit.
    Unit,
    /// One sector.
    Sector,
}

/// A part of an extent, and its different versions.
struct Choice {
    /// (where in the extent, where in the columns, length), bytes.
    ranges: Vec<(usize, usize, usize)>,
    /// What versions hold there, one range behind the other.
    versions: Vec<Vec<u8>>,
}

/// Chunks without parity: every part of the extent from every version that differs, in all combinations. Fresh
/// versions come first and large parts do: one bad device is one part, however many spots of it are bad.
fn by_copies(chunk: &Chunk, want: &Want, rows: &std::ops::Range<u64>, versions: &[Version]) -> Option<Rows> {
    let offset = want.address.0 - chunk.address.0;
    let fresh: Vec<&Version> = versions.iter().filter(|version| !version.stale).collect();
    let all: Vec<&Version> = versions.iter().collect();
    let bytes = [&fresh, &all].into_iter().find_map(|from| {
        [Grain::Twins, Grain::Unit, Grain::Sector]
            .into_iter()
            .find_map(|grain| combine(&choices(chunk, want, rows, from, grain)?, want))
    })?;
    // Lay the right bytes into every column that should hold them.
    let mut right = base(chunk, rows, versions);
    let length = right.column_bytes();
    for column in &touched_columns(chunk, offset, u64::from(want.length)) {
        right.columns[usize::from(column)].get_or_insert_with(|| vec![0; length]);
    }
    right.put(chunk, offset, &bytes);
    Some(right)
}

/// The parts of an extent; `None` when there is one of which no version can be read.
fn choices(
    chunk: &Chunk,
    want: &Want,
    rows: &std::ops::Range<u64>,
    versions: &[&Version],
    grain: Grain,
) -> Option<Vec<Choice>> {
    let sector = crate::SECTOR as usize;
    let mut found: Vec<(Vec<u16>, Choice)> = Vec::new();
    let mut at = 0;
    for segment in chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)) {
        let cell = segment.cell;
        let columns: Vec<u16> = chunk.layout.columns_of(cell.row, cell.index).collect();
        let from = ((cell.row - rows.start) * u64::from(chunk.layout.unit())) as usize + cell.within as usize;
        let length = segment.length as usize;
        let step = if grain == Grain::Sector { sector } else { length };
        for piece in (0..length).step_by(step) {
            let range = (at + piece, from + piece, step.min(length - piece));
            match found.iter_mut().find(|(twins, _)| grain == Grain::Twins && *twins == columns) {
                Some((_, choice)) => choice.ranges.push(range),
                None => {
                    found.push((columns.clone(), Choice { ranges: vec![range], versions: Vec::new() }));
                }
            }
        }
        at += length;
    }
    for (columns, choice) in &mut found {
        for version in versions.iter().filter(|version| columns.contains(&version.column)) {
            let Some(bytes) = &version.bytes else { continue };
            let taken: Vec<u8> = choice
                .ranges
                .iter()
                .flat_map(|&(_, from, length)| &bytes[from..from + length])
                .copied()
                .collect();
            if !choice.versions.contains(&taken) {
                choice.versions.push(taken);
            }
        }
        if choice.versions.is_empty() {
            return None;
        }
    }
    Some(found.into_iter().map(|(_, choice)| choice).collect())
}

/// The first combination of versions that matches the checksum.
fn combine(choices: &[Choice], want: &Want) -> Option<Vec<u8>> {
    let mut bytes = vec![0; want.length as usize];
    let lay = |choice: &Choice, digit: usize, bytes: &mut [u8]| {
        let mut taken = &choice.versions[digit][..];
        for &(at, _, length) in &choice.ranges {
            let (head, rest) = taken.split_at(length);
            bytes[at..at + length].copy_from_slice(head);
            taken = rest;
        }
    };
    choices.iter().for_each(|choice| lay(choice, 0, &mut bytes));
    let mut digits = vec![0; choices.len()];
    // Long extents are not tried as often as short ones.
    let trials = (TRIALS_BYTES_MAX / u64::from(want.length.max(1))).min(TRIALS_MAX as u64);
    for _ in 0..trials {
        if want.checksum.matches(&bytes) {
            return Some(bytes);
        }
        let place = (0..digits.len()).find(|&place| digits[place] + 1 < choices[place].versions.len())?;
        for lower in 0..place {
            digits[lower] = 0;
            lay(&choices[lower], 0, &mut bytes);
        }
        digits[place] += 1;
        lay(&choices[place], digits[place], &mut bytes);
    }
    None
}

/// Parity chunks: take every set of columns for wrong, the same ones in all rows first, then row by row.
fn by_parity(
    chunk: &Chunk,
    want: &Want,
    rows: &std::ops::Range<u64>,
    versions: &[Version],
    parity: u8,
) -> Option<Rows> {
    // Fresh versions alone first: a stale one would have to be found out as wrong like any other.
    let fresh: Vec<&Version> =
        versions.iter().filter(|version| !version.stale && version.bytes.is_some()).collect();
    let mut start = Rows::new(chunk, rows.clone());
    for version in &fresh {
        start.columns[usize::from(version.column)]
            .get_or_insert_with(|| version.bytes.clone().unwrap_or_default());
    }
    if let Some(right) = erase_and_try(chunk, want, &start, parity) {
        return Some(right);
    }
    // Then each other version of a column in its place, stale ones last.
    for version in versions {
        let Some(bytes) = &version.bytes else { continue };
        let slot = usize::from(version.column);
        if start.columns[slot].as_ref() == Some(bytes) {
            continue;
        }
        let mut other = start.clone();
        other.columns[slot] = Some(bytes.clone());
        if let Some(right) = erase_and_try(chunk, want, &other, parity) {
            return Some(right);
        }
    }
    None
}

/// Every way of taking up to the parity count of columns for wrong.
fn erase_and_try(chunk: &Chunk, want: &Want, start: &Rows, parity: u8) -> Option<Rows> {
    let missing = start.missing();
    if usize::from(missing.len()) > usize::from(parity) {
        return None;
    }
    let spare = usize::from(parity) - usize::from(missing.len());
    let columns = chunk.columns.len() as u16;
    let present: Vec<u16> = (0..columns).filter(|&column| !missing.contains(column)).collect();
    let sets = subsets(&present, spare);
    let erased = |rows: &Rows, set: &[u16]| -> Option<Rows> {
        let mut trial = rows.clone();
        set.iter().for_each(|&column| trial.columns[usize::from(column)] = None);
        let gone = trial.missing();
        trial.rebuild(chunk, &gone, &Workers::NONE, &Mutex::default()).then_some(trial)
    };
    for set in &sets {
        if let Some(trial) = erased(start, set)
            && matches(chunk, want, &trial)
        {
            return Some(trial);
        }
    }
    // Different columns in different rows: a row whose parity agrees is left alone, the others are taken apart.
    let count = start.rows.end - start.rows.start;
    if count < 2 || spare == 0 {
        return None;
    }
    let unit = chunk.layout.unit() as usize;
    let mut choices: Vec<Vec<Rows>> = Vec::new();
    for row in start.rows.clone() {
        let at = (row - start.rows.start) as usize * unit;
        let mut single = Rows::new(chunk, row..row + 1);
        for (slot, bytes) in single.columns.iter_mut().zip(&start.columns) {
            *slot = bytes.as_ref().map(|bytes| bytes[at..at + unit].to_vec());
        }
        let mut ways: Vec<Rows> = Vec::new();
        for set in &sets {
            if let Some(way) = erased(&single, set) {
                if set.is_empty() && way.parity_agrees(chunk, row) && missing.is_empty() {
                    ways = vec![way];
                    break;
                }
                ways.push(way);
            }
        }
        choices.push(ways);
    }
    let mut digits = vec![0usize; choices.len()];
    for _ in 0..TRIALS_MAX / 10 {
        let mut trial = Rows::new(chunk, start.rows.clone());
        for (column, slot) in trial.columns.iter_mut().enumerate() {
            let units: Option<Vec<&Vec<u8>>> = choices
                .iter()
                .zip(&digits)
                .map(|(ways, &digit)| ways.get(digit)?.columns[column].as_ref())
                .collect();
            *slot = units.map(|units| units.into_iter().flatten().copied().collect());
        }
        if matches(chunk, want, &trial) {
            return Some(trial);
        }
        let place = (0..digits.len()).find(|&place| digits[place] + 1 < choices[place].len())?;
        digits[..place].fill(0);
        digits[place] += 1;
    }
    None
}

/// Every subset of up to `most` elements, the smallest first.
pub(super) fn subsets(elements: &[u16], most: usize) -> Vec<Vec<u16>> {
    let mut all: Vec<Vec<u16>> = vec![Vec::new()];
    let mut last = 0..1;
    for _ in 0..most {
        let from = all.len();
        for index in last {
            let base = all[index].clone();
            for &element in elements.iter().filter(|&&e| base.last().is_none_or(|&highest| e > highest)) {
                let mut larger = base.clone();
                larger.push(element);
                all.push(larger);
            }
        }
        last = from..all.len();
    }
    all
}
