//! Follows addresses of logical volumes down to physical ones.

use std::ops::Range;

use super::assemble::Group;
use super::group::GroupMetadata;
use super::segment::{Extent, Mapping};

/// How many volumes may lie in each other; LVM stacks fewer than ten.
const DEPTH_MAX: usize = 32;

/// Where a run of bytes lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a physical volume.
    Physical {
        /// Its number in the group; [`Group::members`] has the scan.
        pv: usize,
        /// Bytes from the device's beginning.
        offset: u64,
    },
    /// Only this segment's mapping knows: a mirror, a RAID set, a thin volume or a cache.
    Segment {
        /// Number of the logical volume it belongs to.
        lv: usize,
        /// Its number there.
        segment: usize,
        /// Bytes from the segment's beginning.
        offset: u64,
    },
    /// It reads as zeros.
    Zero,
    /// Nothing is there: a gap, a name that leads nowhere, or volumes that contain each other.
    Nothing,
}

/// A run of a volume's bytes that lie in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes from the volume's beginning.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Where they are.
    pub place: Place,
}

impl GroupMetadata {
    /// Where the byte at `offset` of logical volume `lv` lies, and how many bytes from there on lie behind it
    /// in the same place, at least 1; `None` behind the volume's end.
    pub fn locate(&self, lv: usize, offset: u64) -> Option<(Place, u64)> {
        let (mut lv, mut offset, mut most) = (lv, offset, u64::MAX);
        for depth in 0..DEPTH_MAX {
            let volume = self.logical.get(lv)?;
            if offset >= volume.size {
                return (depth > 0).then_some((Place::Nothing, most));
            }
            let after = volume.segments.partition_point(|segment| segment.start <= offset);
            // Segments are in order and don't overlap; before the first one is a gap, too.
            let segment = after.checked_sub(1).map(|number| (number, &volume.segments[number]));
            let next = volume.segments.get(after).map_or(volume.size, |segment| segment.start);
            let Some((number, segment)) = segment.filter(|(_, at)| offset - at.start < at.length) else {
                return Some((Place::Nothing, most.min(next - offset)));
            };
            let inside = offset - segment.start;
            most = most.min(segment.length - inside);
            let extent = match &segment.mapping {
                Mapping::Striped { chunk, stripes } => {
                    // Neither chunk nor the number of stripes is 0 in a segment that was accepted.
                    let (index, skip) = (inside / chunk, inside % chunk);
                    most = most.min(chunk - skip);
                    let count = stripes.len() as u64;
                    match &stripes[(index % count) as usize] {
                        Extent::Physical { pv, offset } => {
                            Extent::Physical { pv: *pv, offset: offset + index / count * chunk + skip }
                        }
                        Extent::Logical { lv, offset } => {
                            Extent::Logical { lv: *lv, offset: offset + index / count * chunk + skip }
                        }
                        unknown @ Extent::Unknown { .. } => unknown.clone(),
                    }
                }
                Mapping::Integrity { origin } => Extent::Logical { lv: *origin, offset: inside },
                Mapping::Zero => return Some((Place::Zero, most)),
                Mapping::Error => return Some((Place::Nothing, most)),
                _ => return Some((Place::Segment { lv, segment: number, offset: inside }, most)),
            };
            match extent {
                Extent::Physical { pv, offset } => return Some((Place::Physical { pv, offset }, most)),
                Extent::Logical { lv: inner, offset: at } => (lv, offset) = (inner, at),
                Extent::Unknown { .. } => return Some((Place::Nothing, most)),
            }
        }
        Some((Place::Nothing, most))
    }

    /// The runs that make up a range of a logical volume, in order; they end where the volume does.
    ///
    /// An iterator, as small stripes make very many of a large volume.
    pub fn map(&self, lv: usize, range: Range<u64>) -> impl Iterator<Item = Run> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let (place, most) = self.locate(lv, at).filter(|_| at < range.end)?;
            let run = Run { start: at, length: most.min(range.end - at), place };
            at += run.length;
            Some(run)
        })
    }

    /// Physical volumes that hold any part of this logical one, or of those it is made of; in order.
    pub fn physical_of(&self, lv: usize) -> Vec<usize> {
        let mut seen = vec![false; self.logical.len()];
        let mut found = vec![false; self.physical.len()];
        let mut waiting = vec![lv];
        while let Some(lv) = waiting.pop() {
            if seen.get(lv) != Some(&false) {
                continue;
            }
            seen[lv] = true;
            for segment in &self.logical[lv].segments {
                let extents = match &segment.mapping {
                    Mapping::Striped { stripes, .. } => stripes.as_slice(),
                    Mapping::Mirror { copies, .. } => copies.as_slice(),
                    Mapping::Raid(set) => {
                        waiting
                            .extend(set.members.iter().flat_map(|image| [image.data, image.meta]).flatten());
                        &[]
                    }
                    Mapping::ThinPool { data, metadata, .. } | Mapping::CachePool { data, metadata } => {
                        waiting.extend([*data, *metadata]);
                        &[]
                    }
                    Mapping::Thin { pool, external, .. } => {
                        waiting.extend([Some(*pool), *external].into_iter().flatten());
                        &[]
                    }
                    Mapping::Snapshot { origin, store, .. } => {
                        waiting.extend([*origin, *store]);
                        &[]
                    }
                    Mapping::Cached { origin, cache, .. } => {
                        waiting.extend([Some(*origin), *cache].into_iter().flatten());
                        &[]
                    }
                    Mapping::Integrity { origin } => {
                        waiting.push(*origin);
                        &[]
                    }
                    Mapping::Zero | Mapping::Error | Mapping::Other { .. } => &[],
                };
                for extent in extents {
                    match extent {
                        Extent::Physical { pv, .. } => found[*pv] = true,
                        Extent::Logical { lv, .. } => waiting.push(*lv),
                        Extent::Unknown { .. } => {}
                    }
                }
            }
        }
        (0..found.len()).filter(|pv| found[*pv]).collect()
    }
}

impl Group {
    /// As [`GroupMetadata::locate`].
    pub fn locate(&self, lv: usize, offset: u64) -> Option<(Place, u64)> {
        self.volumes.locate(lv, offset)
    }
}
