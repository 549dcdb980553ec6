//! What the rebuild of a newer array has written over an older one on the same members: its parity, or its further copies.
//!
//! ```text
//! member -- Spared --> an older array's bytes, and errors where the newer array has computed something
//! ```
//!
//! In each row of a newer RAID 6 these are two known members, so that an older RAID 6 can give all of it back.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};
use geometry::md::{Geometry, Holds, Place, Shape, Spot};
use serde::{Deserialize, Serialize};

use crate::{Candidate, Image, RescueError, Slot};

/// The newer array that was created over the one of a candidate, and rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newer {
    /// Its name or UUID.
    pub array: String,
    /// md's level.
    pub level: i32,
    /// md's layout code.
    pub layout: u32,
    /// Chunk size, bytes.
    pub chunk: u64,
    /// Its members by their slots.
    pub slots: Vec<Option<Slot>>,
}

impl Newer {
    /// What the candidate would have computed and written when it was rebuilt.
    pub(crate) fn of(candidate: &Candidate) -> Self {
        let Candidate { array, level, layout, chunk, slots, .. } = candidate.clone();
        Self { array, level, layout, chunk, slots }
    }

    /// Its map, for [`Newer::sparing`].
    pub(crate) fn geometry(&self) -> Result<Arc<Geometry>, RescueError> {
        let refuse = |source| RescueError::Geometry { array: self.array.clone(), source };
        let shape = Shape::from_codes(self.level, self.layout).map_err(refuse)?;
        let smallest = self.slots.iter().flatten().map(|slot| slot.size).min().unwrap_or(0);
        let most = geometry::md::MAX_MEMBERS;
        if self.slots.len() > most {
            let found = self.slots.len();
            return Err(refuse(geometry::md::MdError::Members { shape, found, least: 1, most }));
        }
        Geometry::new(shape, self.chunk, &vec![smallest; self.slots.len()]).map(Arc::new).map_err(refuse)
    }

    /// A disk without what this array has written over it, as if that could not be read; the disk itself if it is no member.
    pub(crate) fn sparing(
        &self,
        geometry: &Arc<Geometry>,
        path: &Path,
        disk: Arc<dyn BlockDevice>,
    ) -> Arc<dyn BlockDevice> {
        let members = (0..).zip(&self.slots).filter_map(|(member, slot)| Some((member, slot.as_ref()?)));
        // Several members may be partitions of one disk.
        members.filter(|(_, slot)| slot.path == path).fold(disk, |inner, (member, slot)| {
            let geometry = Arc::clone(geometry);
            Arc::new(Spared { inner, geometry, member, start: slot.data_offset, size: slot.size })
        })
    }

    /// Whether this array has computed all that it has on an image: its parity is on that member in each row.
    pub(crate) fn covers(&self, geometry: &Geometry, image: &Image) -> bool {
        let members = (0_u16..).zip(&self.slots);
        let mut own = members.filter(|(_, slot)| slot.as_ref().is_some_and(|slot| slot.is_on(image)));
        let Some((member, _)) = own.next() else { return false };
        // Layouts repeat after as many rows as there are members.
        (0..u64::from(geometry.members()) * 2)
            .all(|row| geometry.row(row).is_some_and(|row| row.p == member || row.q == Some(member)))
    }

    /// An image without what this array has written over it.
    pub(crate) fn image(&self, geometry: &Arc<Geometry>, image: &Image) -> Image {
        let disk = self.sparing(geometry, &image.path, Arc::clone(&image.disk));
        image.on_disk(disk)
    }
}

/// A member of both arrays, of which only what the newer one left alone can be read.
#[derive(Debug)]
struct Spared {
    inner: Arc<dyn BlockDevice>,
    geometry: Arc<Geometry>,
    member: u16,
    /// Where the newer array's data begins on it, and how much of it that uses, bytes.
    start: u64,
    size: u64,
}

impl Spared {
    /// The first part of a range, at most a chunk, that was overwritten.
    fn overwritten(&self, range: Range<u64>) -> Option<Range<u64>> {
        let end = range.end.min(self.start.saturating_add(self.size)).saturating_sub(self.start);
        let mut at = range.start.saturating_sub(self.start);
        while at < end {
            let next = match self.geometry.chunk() {
                0 => end,
                chunk => end.min((at / chunk + 1).saturating_mul(chunk)),
            };
            if self.computed(at) {
                return Some(self.start + at..self.start + next);
            }
            at = next;
        }
        None
    }

    /// Whether the newer array computed what lies there, in place of whatever it found.
    fn computed(&self, offset: u64) -> bool {
        let spot = Spot { member: self.member, offset };
        match self.geometry.holds(spot) {
            Holds::P(_) | Holds::Q(_) => true,
            // Of several copies the first one is taken for right.
            Holds::Data(address) => match self.geometry.locate(address) {
                Some((Place::Copies(spots), _)) => spots.first().is_some_and(|first| *first != spot),
                _ => false,
            },
            Holds::Nothing => false,
        }
    }
}

impl BlockDevice for Spared {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.inner.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        let length = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        if let Some(Range { start, end }) = self.overwritten(offset..offset.saturating_add(length)) {
            let device = self.info().name.clone();
            let why =
                format!("bytes {start} to {end} were overwritten by an array that was created over this one");
            let (operation, kind) = (Operation::Read, DeviceErrorKind::Io(why));
            return Err(DeviceError { device, operation, offset, length, kind });
        }
        self.inner.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.inner.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.inner.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.inner.discard(offset, length)
    }
}
