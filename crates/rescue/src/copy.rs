//! Copies a device to a file or disk, around what is lost, and can be gone on with later.
//!
//! The map says of every byte whether the copy holds it: it is the state of the work as well as its result.

use std::ops::Range;

use device::{BadMap, BlockDevice, DeviceError, Rescue};

use crate::read_around_losses;

/// Bytes copied at a time.
const STEP: u64 = 4 << 20;
/// What is all zeros in a unit of this size is left out of a new file.
const HOLE: usize = 64 << 10;

/// How to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// Zeros need not be written: the output is new and reads as zeros.
    pub sparse: bool,
    /// Write zeros where bytes are lost, instead of leaving what is there.
    pub fill_zero: bool,
}

/// Where a copy stands, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Looked at, of all.
    pub position: u64,
    /// All.
    pub size: u64,
    /// Lost.
    pub lost: u64,
}

/// Copies all of `from` that the map does not say is finished. `step` is told after each piece what the map is now, and
/// says whether to go on.
///
/// # Errors
/// `from` does not tell its size, or `to` can't be written. What can't be read of `from` is no error: the map says so.
pub fn copy_out(
    from: &dyn BlockDevice,
    to: &dyn BlockDevice,
    map: &mut BadMap,
    options: CopyOptions,
    mut step: impl FnMut(&BadMap, CopyProgress) -> Result<bool, DeviceError>,
) -> Result<CopyProgress, DeviceError> {
    let size = from.size()?;
    let mut progress = CopyProgress { size, ..CopyProgress::default() };
    let mut buffer = vec![0; STEP.min(size) as usize];
    let left: Vec<Range<u64>> = map.bad(0..size).map(|(range, _)| range).collect();
    for range in left {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / STEP + 1) * STEP);
            let bytes = &mut buffer[..(end - at) as usize];
            let lost = read_around_losses(from, at, bytes);
            let mut good = at;
            for gap in lost.iter().chain([&(end..end)]) {
                write_part(
                    to,
                    good,
                    &bytes[(good - at) as usize..(gap.start - at) as usize],
                    options.sparse,
                )?;
                map.set(good..gap.start, Rescue::Finished);
                map.set(gap.clone(), Rescue::BadSector);
                if options.fill_zero && !gap.is_empty() {
                    to.write(gap.start, &vec![0; (gap.end - gap.start) as usize])?;
                }
                progress.lost += gap.end - gap.start;
                good = gap.end;
            }
            at = end;
            progress.position = at;
            if !step(map, progress)? {
                return Ok(progress);
            }
        }
    }
    progress.position = size;
    to.flush()?;
    Ok(progress)
}

/// Writes bytes, without long runs of zeros if the output has them already.
fn write_part(to: &dyn BlockDevice, at: u64, bytes: &[u8], sparse: bool) -> Result<(), DeviceError> {
    if !sparse {
        return if bytes.is_empty() { Ok(()) } else { to.write(at, bytes) };
    }
    let mut start = 0;
    for (index, unit) in bytes.chunks(HOLE).enumerate() {
        if unit.iter().all(|byte| *byte == 0) {
            let end = index * HOLE;
            if end > start {
                to.write(at + start as u64, &bytes[start..end])?;
            }
            start = end + unit.len();
        }
    }
    if bytes.len() > start { to.write(at + start as u64, &bytes[start..]) } else { Ok(()) }
}
