//! LVM2: from the labels of physical volumes to maps of logical volumes.
//!
//! ```text
//! device --PvScan::read--> label, metadata areas, all generations of the text that are left in their rings
//!     [PvScan] --Lvm::assemble--> Group: the newest GroupMetadata, and which scan is which physical volume
//!     Group --locate, map--> places on physical volumes, or the segment that knows (RAID, thin, snapshot)
//!     segments --> ThinMetadata, SnapshotStore, RaidMeta: read from the logical volumes that they name
//! ```
//!
//! Texts become a tree by the grammar in [`Section`], the tree becomes a [`GroupMetadata`]; parts of it that
//! can't be right are left out and listed. What old generations say can be assembled as well
//! ([`Lvm::generations`], [`Group::at`]): that is how removed volumes come back.
//!
//! Sizes and offsets are bytes everywhere. The formats are described in LVM2's `layout.h` and the kernel's
//! `Documentation/admin-guide/device-mapper`.

mod area;
mod assemble;
mod group;
mod label;
mod map;
mod raid_meta;
mod segment;
mod snapshot;
mod text;
mod thin;

pub use area::{Generation, MetadataArea, RawAreaHeader, RawLocation, Standing};
pub use assemble::{Group, Lvm, PvScan, Snapshot};
pub use group::{GroupMetadata, PvEntry, Volume};
pub use label::{AreaRange, PvLabel, RawLabel};
pub use map::{Place, Run};
pub use raid_meta::RaidMeta;
pub use segment::{Extent, Mapping, RaidImage, RaidSet, VolumeSegment};
pub use snapshot::{Exception, SnapshotStore};
pub use text::{Section, TextError, Value};
pub use thin::{ThinDamage, ThinDevice, ThinMetadata, ThinRun};

/// Where LVM's checksums start; they are not inverted at the end.
pub(crate) const CRC_START: u32 = 0xf597_a6cf;
