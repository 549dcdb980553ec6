//! Which parts of a disk a plan still lacks: what the other members can't make up for.

use std::ops::Range;
use std::path::Path;

use geometry::md::{Holds, Place, Shape, Spot};

use crate::{Candidate, Image, RescueError};

/// The ranges of the disk or image at `path` without which the candidate would lose bytes, in order. `None` if the
/// candidate does not use it.
///
/// # Errors
/// Another member can't be opened, or there is no such geometry.
pub fn needed(candidate: &Candidate, path: &Path) -> Result<Option<Vec<Range<u64>>>, RescueError> {
    let own = device::identity(path).ok();
    let same = |other: &Path| other == path || own.is_some() && device::identity(other).ok() == own;
    let Some(index) =
        candidate.slots.iter().position(|slot| slot.as_ref().is_some_and(|slot| same(&slot.path)))
    else {
        return Ok(None);
    };
    let Some(slot) = &candidate.slots[index] else { return Ok(None) };
    let all = slot.data_offset..slot.data_offset.saturating_add(slot.size);
    let shape = Shape::from_codes(candidate.level, candidate.layout);
    let shape = shape.map_err(|source| RescueError::Geometry { array: candidate.array.clone(), source })?;
    let absent = |slot: &Option<crate::Slot>| slot.as_ref().is_none_or(|slot| slot.clean_by.is_some());
    let missing = candidate.slots.iter().filter(|slot| absent(slot)).count();
    let tolerated = usize::from(shape.tolerates(candidate.slots.len().min(usize::from(u16::MAX)) as u16));
    // What was overwritten takes up the redundancy of every row.
    if candidate.reshape.is_some() || candidate.overwritten_by.is_some() || missing >= tolerated {
        return Ok(Some(vec![all]));
    }
    // What is bad on the others, where the array's data begins at 0.
    let mut bad: Vec<(usize, Range<u64>)> = Vec::new();
    for (number, other) in candidate.slots.iter().enumerate().filter(|(number, _)| *number != index) {
        let Some(other) = other.as_ref().filter(|other| other.clean_by.is_none()) else { continue };
        let image = Image::open_with(&other.path, other.map.as_deref())?;
        let span = other.data_offset..other.data_offset.saturating_add(other.size);
        let believed = other.data_offset.saturating_add(other.valid.unwrap_or(u64::MAX));
        let ranges =
            image.bad_map().into_iter().flat_map(|map| map.bad(span.clone())).map(|(range, _)| range);
        let stale = (believed < span.end).then_some(believed..span.end);
        let relative = |range: Range<u64>| range.start - other.data_offset..range.end - other.data_offset;
        bad.extend(ranges.chain(stale).map(|range| (number, relative(range))));
    }
    let ranges = if let Shape::Raid10(_) = shape {
        let array = candidate.assemble(&vec![None; candidate.slots.len()])?;
        copies(array.geometry(), index as u16, &bad)
    } else {
        deep(&bad, tolerated - missing)
    };
    let inside = ranges.into_iter().filter(|range| range.start < slot.size);
    let on_disk =
        inside.map(|range| slot.data_offset + range.start..slot.data_offset + range.end.min(slot.size));
    Ok(Some(on_disk.collect()))
}

/// Where at least `depth` of the ranges lie over each other.
fn deep(bad: &[(usize, Range<u64>)], depth: usize) -> Vec<Range<u64>> {
    let mut edges: Vec<(u64, isize)> =
        bad.iter().flat_map(|(_, range)| [(range.start, 1), (range.end, -1)]).collect();
    edges.sort_unstable();
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (mut level, mut since) = (0_isize, None);
    for (at, change) in edges {
        level += change;
        let deep = level >= depth.max(1).cast_signed();
        match (deep, since) {
            (true, None) => since = Some(at),
            (false, Some(start)) => {
                since = None;
                match ranges.last_mut() {
                    Some(last) if last.end >= start => last.end = at,
                    _ if at > start => ranges.push(start..at),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    ranges
}

/// The member's copies of what is bad on others.
fn copies(geometry: &geometry::md::Geometry, member: u16, bad: &[(usize, Range<u64>)]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    for (other, range) in bad {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / geometry.chunk() + 1) * geometry.chunk());
            if let Holds::Data(address) = geometry.holds(Spot { member: *other as u16, offset: at })
                && let Some((Place::Copies(spots), _)) = geometry.locate(address)
            {
                let own = spots.into_iter().filter(|spot| spot.member == member);
                found.extend(own.map(|spot| (0, spot.offset..spot.offset + (end - at))));
            }
            at = end;
        }
    }
    deep(&found, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted() {
        let bad = [(0, 0..10), (1, 5..20), (2, 8..9), (3, 20..30)];
        let at = |depth| deep(&bad, depth).iter().map(|range| (range.start, range.end)).collect::<Vec<_>>();
        assert_eq!([at(1), at(2), at(3), at(4)], [vec![(0, 30)], vec![(5, 10)], vec![(8, 9)], vec![]]);
    }
}
