//! Where the next data or hole of a volume is.

use fuser::Errno;

use crate::Target;

/// Runs looked at in one go.
const RUNS: usize = 256;

/// `lseek` with `SEEK_DATA` or `SEEK_HOLE`: the end of the volume counts as a hole.
///
/// # Errors
/// `ENXIO` beyond the end, or if no data follows; `EINVAL` for another `whence`.
pub(super) fn find(target: &dyn Target, offset: i64, whence: i32) -> Result<i64, Errno> {
    let wants_hole = match whence {
        libc::SEEK_DATA => false,
        libc::SEEK_HOLE => true,
        _ => return Err(Errno::EINVAL),
    };
    let size = target.size();
    let mut at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    if at >= size {
        return Err(Errno::ENXIO);
    }
    while at < size {
        let start = at;
        for run in target.runs(at, size - at, RUNS)? {
            if run.hole == wants_hole && run.length > 0 {
                return i64::try_from(at).map_err(|_| Errno::EOVERFLOW);
            }
            at += run.length.min(size - at);
        }
        if at == start {
            // The map ends early: what it does not cover is data.
            return if wants_hole { break } else { i64::try_from(at).map_err(|_| Errno::EOVERFLOW) };
        }
    }
    if wants_hole { i64::try_from(size).map_err(|_| Errno::EOVERFLOW) } else { Err(Errno::ENXIO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MemoryTarget, PAGE};

    #[test]
    fn data_and_holes_alternate() {
        let target = MemoryTarget::new(8 * PAGE);
        target.write(2 * PAGE, &[1]).unwrap();
        target.write(5 * PAGE, &[1]).unwrap();
        let page = PAGE.cast_signed();
        let at = |offset, whence| find(&target, offset, whence).ok();
        assert_eq!(at(0, libc::SEEK_DATA), Some(2 * page));
        assert_eq!(at(0, libc::SEEK_HOLE), Some(0));
        assert_eq!(at(2 * page + 5, libc::SEEK_DATA), Some(2 * page + 5));
        assert_eq!(at(2 * page + 5, libc::SEEK_HOLE), Some(3 * page));
        assert_eq!(at(3 * page, libc::SEEK_DATA), Some(5 * page));
        assert_eq!(at(6 * page, libc::SEEK_DATA), None);
        assert_eq!(at(6 * page, libc::SEEK_HOLE), Some(6 * page));
        assert_eq!(at(8 * page, libc::SEEK_HOLE), None);
        assert_eq!(at(-1, libc::SEEK_DATA), None);
        assert_eq!(at(0, libc::SEEK_SET), None);
        target.write(7 * PAGE, &[1]).unwrap();
        assert_eq!(at(7 * page, libc::SEEK_HOLE), Some(8 * page));
    }
}
