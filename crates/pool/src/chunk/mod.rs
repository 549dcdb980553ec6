//! The chunk map: the only place that knows on which device a logical address lives.
//!
//! - this file: a chunk, its columns and their placements
//! - `record`: chunks, devices and groups as items of the chunk tree
//! - `map`: all chunks of the pool, in memory
//! - `remap`: where what was relocated lives now
//!
//! A chunk is a run of logical addresses with one class and one [`Layout`]. Each column of the layout is
//! one or more *placements*: a device, an offset there, and a bitmap of regions that are stale (not up to
//! date) on it. Writers write every placement; jobs bring stale regions up to date; dropping a placement is
//! an edit of the map alone.

mod map;
mod record;
mod remap;

pub use map::ChunkMap;
pub use remap::Moved;
pub(crate) use remap::Remaps;

use geometry::Layout;

use crate::types::{DeviceId, GroupId, Logical, Txg};

/// Regions of a column that can be stale independently.
pub const REGIONS: u32 = 256;

/// The most columns that a chunk may have.
pub const COLUMNS_MAX: usize = 64;

/// The most placements of one column: the device itself, a spare and a replacement.
pub const PLACEMENTS_MAX: usize = 4;

/// What a chunk may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The chunk tree.
    System,
    /// Every other tree.
    Metadata,
    /// Blocks of volumes.
    Data,
}

impl Class {
    /// The class's name in `usage` and `map`.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Metadata => "Metadata",
            Self::Data => "Data",
        }
    }
}

/// Which regions of a placement are not up to date.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Stale(pub [u64; 4]);

impl Stale {
    /// Every region is stale.
    pub const ALL: Self = Self([u64::MAX; 4]);
    /// No region is.
    pub const NONE: Self = Self([0; 4]);

    /// Whether the region is stale.
    pub fn contains(&self, region: u32) -> bool {
        self.0[region as usize / 64 % 4] >> (region % 64) & 1 == 1
    }

    pub(crate) fn insert(&mut self, region: u32) {
        self.0[region as usize / 64 % 4] |= 1 << (region % 64);
    }

    pub(crate) fn remove(&mut self, region: u32) {
        self.0[region as usize / 64 % 4] &= !(1 << (region % 64));
    }

    /// Without regions from `count` on, which a column may not have.
    pub(crate) fn of_first(mut self, count: u32) -> Self {
        for (index, word) in self.0.iter_mut().enumerate() {
            let here = count.saturating_sub(64 * index as u32).min(64);
            *word &= 1u64.checked_shl(here).map_or(u64::MAX, |bit| bit - 1);
        }
        self
    }

    /// Whether nothing is stale.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// How many regions are stale.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The stale regions, rising.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..REGIONS).filter(|&region| self.contains(region))
    }
}

impl std::fmt::Debug for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} stale", self.count())
    }
}

/// One home of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// On which device.
    pub device: DeviceId,
    /// From which byte of it on.
    pub offset: u64,
    /// The transaction group in which it was made; the column header on the device says the same.
    pub generation: Txg,
    /// What is not up to date there.
    pub stale: Stale,
}

/// One column of a chunk: every placement holds the same bytes where it is not stale.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its homes; never empty.
    pub placements: Vec<Placement>,
}

/// The bitmap of live nodes that belongs to a metadata or system chunk, as it was last written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BitmapAnchor {
    /// Which of the two slots.
    pub slot: u8,
    /// When it was written; 0 when never.
    pub txg: Txg,
    /// XXH3-128 of the slot's bytes.
    pub checksum: [u8; 16],
}

/// A run of logical addresses and where it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First logical address.
    pub address: Logical,
    /// What it may hold.
    pub class: Class,
    /// The group that it was allocated from.
    pub group: GroupId,
    /// How logical bytes map to columns.
    pub layout: Layout,
    /// Bytes of each column behind the column header.
    pub column_bytes: u64,
    /// The columns, as many as the layout has.
    pub columns: Vec<Column>,
    /// Logical bytes in use: extents of a data chunk, nodes of another.
    pub used: u64,
    /// When it was made.
    pub birth: Txg,
    /// Where its bitmap of nodes is (not in data chunks).
    pub bitmap: BitmapAnchor,
    /// Something was relocated from it, or is going to be: it takes nothing new, and is dropped once it is empty.
    pub closed: bool,
}

/// Bytes in front of each column on its device: the column header.
pub const COLUMN_HEADER: u64 = 4096;

impl Chunk {
    /// Nothing is in it, nor ever will be: it is about to be dropped.
    pub fn is_over(&self) -> bool {
        self.closed && self.used == 0
    }

    /// Logical bytes that it can hold.
    pub fn length(&self) -> u64 {
        self.layout.capacity(self.column_bytes)
    }

    /// The address behind its last byte.
    pub fn end(&self) -> Logical {
        Logical(self.address.0 + self.length())
    }

    /// Bytes of a column that become stale together: whole units, such that [`REGIONS`] of them cover the column.
    pub fn region_bytes(&self) -> u64 {
        self.column_bytes.div_ceil(u64::from(REGIONS)).next_multiple_of(u64::from(self.layout.unit()))
    }

    /// How many regions the column really has, at most [`REGIONS`].
    pub fn regions(&self) -> u32 {
        self.column_bytes.div_ceil(self.region_bytes()) as u32
    }

    /// The regions that a byte range of a column touches.
    pub fn regions_of(&self, offset: u64, length: u64) -> std::ops::RangeInclusive<u32> {
        let region = self.region_bytes();
        let last = (offset + length.max(1) - 1) / region;
        (offset / region) as u32..=(last as u32).min(REGIONS - 1)
    }

    /// The rows of a region: the last one of a column may be shorter than the others.
    pub fn region_rows(&self, region: u32) -> std::ops::Range<u64> {
        let per_region = self.region_bytes() / u64::from(self.layout.unit());
        let rows = self.layout.rows(self.column_bytes);
        let first = u64::from(region) * per_region;
        first.min(rows)..(first + per_region).min(rows)
    }

    /// Whether parity makes whole rows the unit of allocation.
    pub fn has_parity(&self) -> bool {
        self.layout.parity() > 0
    }

    /// The unit of allocation, logical bytes: a row where there is parity, else a sector.
    pub fn grain(&self) -> u64 {
        if self.has_parity() { self.layout.row_bytes() } else { crate::SECTOR }
    }

    /// Every placement with its column number.
    pub fn placements(&self) -> impl Iterator<Item = (u16, &Placement)> {
        self.columns
            .iter()
            .enumerate()
            .flat_map(|(c, column)| column.placements.iter().map(move |p| (c as u16, p)))
    }

    /// Makes placements that are stale in part stale as a whole, which takes fewer bytes to tell, where all of the
    /// chunk can be read without them from devices that are `usable`.
    pub(crate) fn coarsen(&mut self, usable: impl Fn(DeviceId) -> bool) {
        let regions = self.regions();
        let readable = |chunk: &Self| {
            (0..regions).all(|region| {
                let there =
                    |placement: &Placement| usable(placement.device) && !placement.stale.contains(region);
                let columns = chunk.columns.iter().enumerate();
                let gone = columns.filter(|(_, column)| !column.placements.iter().any(there));
                chunk.layout.redundancy(&gone.map(|(index, _)| index as u16).collect()).is_some()
            })
        };
        for column in 0..self.columns.len() {
            for index in 0..self.columns[column].placements.len() {
                let before = self.columns[column].placements[index].stale;
                if before.of_first(regions).is_empty() {
                    continue;
                }
                self.columns[column].placements[index].stale = Stale::ALL;
                if !readable(self) {
                    self.columns[column].placements[index].stale = before;
                }
            }
        }
    }

    /// Whether any placement is on the device.
    pub fn is_on(&self, device: DeviceId) -> bool {
        self.placements().any(|(_, placement)| placement.device == device)
    }
}
