//! Reads arrays that no longer start, and never writes to a member.
//!
//! ```text
//! paths --Image::open (read-only, with its map of bad sectors)--> images
//!     --scan--> Scan: what each holds, what belongs together, what is stale or missing
//!     --plan--> Plan: ways to put arrays together, best first, with reasons; a file that people can edit
//!     --Candidate::open--> ArrayDevice: the array as a read-only device
//!     --discover--> Volume: partitions, logical volumes and what is on them
//! ```
//!
//! A run of bytes of an [`ArrayDevice`] is read from its member, else from what is readable *there* of the
//! others, sector by sector. What can't be had is an error, never zeros. To let a repair tool write, put a
//! [`device::OverlayDevice`] over the array.

mod array;
mod bitmaps;
mod checking;
mod content;
mod copy;
mod created_over;
mod error;
mod files;
mod firmware;
mod image;
mod imaging;
mod infer;
mod needed;
mod overwritten;
mod parity_map;
mod plan;
mod raid6;
mod raidframe;
mod render;
mod replay;
mod salvage;
mod scan;
mod score;
mod unlabelled;
mod volumes;
mod whole_rows;

pub use array::{ArrayDevice, Section, Source};
pub use checking::Misfit;
pub use content::{Checks, check};
pub use copy::{CopyOptions, CopyProgress, Rows, copy_out};
pub use error::RescueError;
pub use files::{Copied, FilesError, LostFile, copy_files};
pub use firmware::FirmwareSet;
pub use image::Image;
pub use imaging::{ImageProgress, image_disk};
pub use needed::needed;
pub use overwritten::Newer;
pub use plan::{Backup, BitmapAt, Candidate, LeftOut, Plan, Reshaping, Slot, plan};
pub use raidframe::{ComponentSet, ComponentState, ComponentSummary};
pub use render::{render_plan, render_scan};
pub use replay::{JournalAt, Logs};
pub use salvage::read_around_losses;
pub use scan::{ArraySummary, ImageSummary, MemberState, MemberSummary, PartitionSummary, Scan, scan};
pub use volumes::{Volume, VolumeState, chosen, discover, volume_name};
