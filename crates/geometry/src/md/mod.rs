//! The layouts of Linux md: where an array's bytes lie on its members, and what each member byte is for.
//!
//! ```text
//! array address --Geometry::locate--> Place: the copies of a run of bytes, or a row with its parity
//! member, byte  --Geometry::holds---> the array address it holds, or which parity it is
//! ```
//!
//! Offsets on members count from the beginning of the array's data there; the superblock's data offset is not
//! included. All units are bytes. Members are numbered by their role in the array.
//!
//! - [`Shape`]: level and layout, with md's own codes and mdadm's names
//! - `rows`: RAID 4, 5 and 6: rotation of P and Q, and the order in which Q counts the members
//! - `zones`: linear and RAID 0: members of unequal size
//! - `copies`: RAID 1 and 10: near, far and offset copies

mod copies;
mod rows;
mod shape;
#[cfg(test)]
mod tests;
mod zones;

pub use copies::{Copies, FarSets};
pub use rows::Row;
pub use shape::{Rotation5, Rotation6, Shape, ZoneOrder};

use copies::Mirrors;
use rows::Rows;
use zones::Zones;

/// The most members that an md superblock has room for.
pub const MAX_MEMBERS: usize = 1920;

/// md counts in these, bytes.
const SECTOR: u64 = 512;

/// A place on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The member's role.
    pub member: u16,
    /// Bytes from the beginning of the member's data.
    pub offset: u64,
}

/// Where a run of array bytes lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// These copies are equal; there is at least one.
    Copies(Vec<Spot>),
    /// One copy, and parity in the same bytes of the row's other members.
    Row {
        /// Where the bytes themselves are.
        spot: Spot,
        /// Who does what in this row.
        row: &'a Row,
    },
}

/// What a byte of a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// The array's byte at this address.
    Data(u64),
    /// P of the row with this number.
    P(u64),
    /// Q of the row with this number.
    Q(u64),
    /// Nothing: it lies behind the array's end or in the remainder of a chunk.
    Nothing,
}

/// Why there is no such geometry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MdError {
    /// A level that md does not have, or that has no bytes of its own.
    #[error("level {0} is none of linear (-1), 0, 1, 4, 5, 6 and 10")]
    Level(i32),
    /// A layout that the level does not have.
    #[error("layout {layout:#x} does not exist at level {level}")]
    Layout {
        /// The level's number.
        level: i32,
        /// The layout's code.
        layout: u32,
    },
    /// Too few or too many members for the shape.
    #[error("{found} members given, but {shape} has {least} to {most}")]
    Members {
        /// The shape.
        shape: Shape,
        /// How many were given.
        found: usize,
        /// The fewest that work.
        least: usize,
        /// The most that work.
        most: usize,
    },
    /// A chunk size that is zero, not whole sectors, or absurdly large.
    #[error("chunk size {0} is not a number of whole 512-byte sectors between 512 bytes and 1 GiB")]
    Chunk(u64),
    /// A member that is larger than any device.
    #[error("member {member} is said to be {size} bytes long, which no device is")]
    Size {
        /// The member's role.
        member: usize,
        /// Its size, bytes.
        size: u64,
    },
}

/// A complete map between an array's bytes and its members'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    shape: Shape,
    members: u16,
    chunk: u64,
    map: Map,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Map {
    Zones(Zones),
    Rows(Rows),
    Mirrors(Mirrors),
    /// All members are equal, and this long.
    Mirror(u64),
}

impl Geometry {
    /// The map of an array whose members, in the order of their roles, have `sizes` bytes of data each.
    ///
    /// `chunk` is in bytes and may be 0 for RAID 1, and for linear, where it is what sizes are rounded to. All
    /// levels but linear and RAID 0 use as much of every member as the smallest has.
    ///
    /// # Errors
    /// A number of members or a chunk size that the shape does not have, or a size beyond 2^60 bytes.
    pub fn new(shape: Shape, chunk: u64, sizes: &[u64]) -> Result<Self, MdError> {
        let (least, most) = shape.members();
        if !(least..=most).contains(&sizes.len()) {
            return Err(MdError::Members { shape, found: sizes.len(), least, most });
        }
        let whole = chunk.is_multiple_of(SECTOR) && chunk <= 1 << 30;
        if !whole || (chunk == 0 && !matches!(shape, Shape::Raid1 | Shape::Linear)) {
            return Err(MdError::Chunk(chunk));
        }
        if let Some((member, &size)) = sizes.iter().enumerate().find(|(_, size)| **size > 1 << 60) {
            return Err(MdError::Size { member, size });
        }
        let members = sizes.len() as u16;
        let used = sizes.iter().copied().min().unwrap_or(0);
        let map = match shape {
            Shape::Linear => Map::Zones(Zones::linear(chunk, sizes)),
            Shape::Raid0(order) => Map::Zones(Zones::striped(order, chunk, sizes)),
            Shape::Raid1 => Map::Mirror(used),
            Shape::Raid10(copies) => Map::Mirrors(Mirrors::new(copies, members, chunk, used)),
            Shape::Raid4 => Map::Rows(Rows::raid4(members, chunk, used)),
            Shape::Raid5(rotation) => Map::Rows(Rows::raid5(rotation, members, chunk, used)),
            Shape::Raid6(rotation) => Map::Rows(Rows::raid6(rotation, members, chunk, used)),
        };
        Ok(Self { shape, members, chunk, map })
    }

    /// Level and layout.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many members the array has.
    pub fn members(&self) -> u16 {
        self.members
    }

    /// The chunk size, bytes.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// The array's size, bytes.
    pub fn size(&self) -> u64 {
        match &self.map {
            Map::Zones(zones) => zones.size(),
            Map::Rows(rows) => rows.size(),
            Map::Mirrors(mirrors) => mirrors.size(),
            Map::Mirror(size) => *size,
        }
    }

    /// Where the byte at `address` lies, and how many bytes from there on lie in just the same way, at least
    /// 1; `None` behind the array's end.
    pub fn locate(&self, address: u64) -> Option<(Place<'_>, u64)> {
        let left = self.size().checked_sub(address).filter(|left| *left > 0)?;
        let (place, length) = match &self.map {
            Map::Zones(zones) => {
                let (spot, length) = zones.locate(address)?;
                (Place::Copies(vec![spot]), length)
            }
            Map::Rows(rows) => {
                let (spot, row, length) = rows.locate(address);
                (Place::Row { spot, row }, length)
            }
            Map::Mirror(_) => {
                let copies = (0..self.members).map(|member| Spot { member, offset: address });
                (Place::Copies(copies.collect()), left)
            }
            Map::Mirrors(mirrors) => {
                let (spots, length) = mirrors.locate(address);
                (Place::Copies(spots), length)
            }
        };
        Some((place, length.min(left)))
    }

    /// What the byte at `spot` is for.
    pub fn holds(&self, spot: Spot) -> Holds {
        if spot.member >= self.members {
            return Holds::Nothing;
        }
        let holds = match &self.map {
            Map::Zones(zones) => zones.holds(spot),
            Map::Rows(rows) => rows.holds(spot),
            Map::Mirrors(mirrors) => mirrors.holds(spot),
            Map::Mirror(_) => Holds::Data(spot.offset),
        };
        match holds {
            Holds::Data(address) if address >= self.size() => Holds::Nothing,
            holds => holds,
        }
    }

    /// The roles of the members in stripe `stripe` of RAID 4, 5 and 6; `None` at other levels.
    pub fn row(&self, stripe: u64) -> Option<&Row> {
        match &self.map {
            Map::Rows(rows) => Some(rows.row(stripe)),
            _ => None,
        }
    }
}
