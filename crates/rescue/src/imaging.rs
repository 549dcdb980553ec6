//! Images a failing disk, the easy parts first.
//!
//! 1. copy forwards in large blocks; after an error skip ahead, farther each time
//! 2. copy backwards what was skipped, without skipping
//! 3. trim: the edges of each failed block, sector by sector, up to the first bad one
//! 4. scrape: what is left between them, sector by sector
//!
//! The map is in GNU ddrescue's format and has the same meaning, so either program can go on with the other's work.

use std::ops::Range;

use device::{BadMap, BlockDevice, DeviceError, Rescue};

/// Bytes read at a time while all goes well.
const BLOCK: u64 = 128 << 10;
/// How far the first error makes it skip, bytes; each further one twice as far.
const SKIP_FIRST: u64 = 1 << 20;
/// The farthest skip, bytes.
const SKIP_MAX: u64 = 1 << 30;

/// How far an image is, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageProgress {
    /// What it is doing: `copying`, `trimming`, `scraping`.
    pub phase: &'static str,
    /// Had.
    pub rescued: u64,
    /// Wanted.
    pub size: u64,
    /// Found to be bad.
    pub bad: u64,
}

/// The work: from where, to where, and what is known.
struct Work<'a, F> {
    from: &'a dyn BlockDevice,
    to: &'a dyn BlockDevice,
    map: &'a mut BadMap,
    wanted: Vec<Range<u64>>,
    sector: u64,
    step: F,
    progress: ImageProgress,
    buffer: Vec<u8>,
}

/// Images the `wanted` ranges of `from` to the same places of `to`, as far as the map does not say they are finished or
/// bad. `step` is told after each piece what the map is now, and says whether to go on. Returns how far it came.
///
/// # Errors
/// `to` can't be written, or `step` fails. What can't be read of `from` is no error: the map says so.
pub fn image_disk<F>(
    from: &dyn BlockDevice,
    to: &dyn BlockDevice,
    map: &mut BadMap,
    wanted: Vec<Range<u64>>,
    step: F,
) -> Result<ImageProgress, DeviceError>
where
    F: FnMut(&BadMap, ImageProgress) -> Result<bool, DeviceError>,
{
    let sector = u64::from(from.info().logical_sector.max(512));
    let progress = ImageProgress {
        phase: "copying",
        size: wanted.iter().map(|range| range.end - range.start).sum(),
        ..ImageProgress::default()
    };
    let mut work = Work { from, to, map, wanted, sector, step, progress, buffer: vec![0; BLOCK as usize] };
    work.count();
    let done = work.copy_forwards()? && work.copy_backwards()? && work.trim()? && work.scrape()?;
    if done {
        to.flush()?;
    }
    Ok(work.progress)
}

impl<F> Work<'_, F>
where
    F: FnMut(&BadMap, ImageProgress) -> Result<bool, DeviceError>,
{
    /// Counts anew what is had and what is bad.
    fn count(&mut self) {
        let of = |wanted: Rescue| {
            let runs = self.wanted.iter().flat_map(|range| self.map.runs(range.clone()));
            runs.filter(|(_, status)| *status == wanted).map(|(range, _)| range.end - range.start).sum()
        };
        (self.progress.rescued, self.progress.bad) = (of(Rescue::Finished), of(Rescue::BadSector));
    }

    /// The wanted ranges with this status.
    fn with(&self, wanted: Rescue) -> Vec<Range<u64>> {
        let runs = self.wanted.iter().flat_map(|range| self.map.runs(range.clone()));
        runs.filter(|(_, status)| *status == wanted).map(|(range, _)| range).collect()
    }

    /// Copies a range of at most one block; says whether it could be read. Otherwise it gets the status `failed`.
    fn copy(&mut self, range: Range<u64>, failed: Rescue) -> Result<bool, DeviceError> {
        let bytes = &mut self.buffer[..(range.end - range.start) as usize];
        let good = self.from.read(range.start, bytes).is_ok();
        if good {
            self.to.write(range.start, bytes)?;
            self.progress.rescued += range.end - range.start;
        } else if failed == Rescue::BadSector {
            self.progress.bad += range.end - range.start;
        }
        self.map.set(range, if good { Rescue::Finished } else { failed });
        Ok(good)
    }

    fn step(&mut self) -> Result<bool, DeviceError> {
        (self.step)(self.map, self.progress)
    }

    fn copy_forwards(&mut self) -> Result<bool, DeviceError> {
        let mut skip = SKIP_FIRST;
        let mut resume = 0;
        for range in self.with(Rescue::NonTried) {
            let mut at = range.start.max(resume);
            while at < range.end {
                let end = range.end.min((at / BLOCK + 1) * BLOCK);
                if self.copy(at..end, Rescue::NonTrimmed)? {
                    (at, skip) = (end, SKIP_FIRST);
                } else {
                    at = end.saturating_add(skip);
                    skip = (skip * 2).min(SKIP_MAX);
                }
                resume = at;
                if !self.step()? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn copy_backwards(&mut self) -> Result<bool, DeviceError> {
        for range in self.with(Rescue::NonTried).into_iter().rev() {
            let mut end = range.end;
            while end > range.start {
                let start = range.start.max((end - 1) / BLOCK * BLOCK);
                self.copy(start..end, Rescue::NonTrimmed)?;
                end = start;
                if !self.step()? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn trim(&mut self) -> Result<bool, DeviceError> {
        self.progress.phase = "trimming";
        for range in self.with(Rescue::NonTrimmed) {
            let (mut start, mut end) = (range.start, range.end);
            while start < end {
                let next = end.min((start / self.sector + 1) * self.sector);
                let good = self.copy(start..next, Rescue::BadSector)?;
                start = next;
                if !good {
                    break;
                }
            }
            while start < end {
                let before = start.max((end - 1) / self.sector * self.sector);
                let good = self.copy(before..end, Rescue::BadSector)?;
                end = before;
                if !good {
                    break;
                }
            }
            self.map.set(start..end, Rescue::NonScraped);
            if !self.step()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn scrape(&mut self) -> Result<bool, DeviceError> {
        self.progress.phase = "scraping";
        for range in self.with(Rescue::NonScraped) {
            let mut at = range.start;
            while at < range.end {
                let next = range.end.min((at / self.sector + 1) * self.sector);
                self.copy(at..next, Rescue::BadSector)?;
                at = next;
                if !self.step()? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
