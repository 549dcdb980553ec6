//! What a caller asks for: devices, groups, volumes, options.

use std::ops::Range;
use std::sync::Arc;

pub use crate::draid::{Draid, DraidError, DraidWord};

use device::BlockDevice;
use geometry::Profile;
use serde::{Deserialize, Serialize};

/// A device that the caller opened for the pool.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// The open device.
    pub device: Arc<dyn BlockDevice>,
    /// The path by which to find it again, kept in the configuration.
    pub path: String,
    /// Bytes to be blanked once it joins, beside its labels: by which it could be taken for what it was before.
    pub wipe: Vec<Range<u64>>,
}

impl NewDevice {
    /// A device on which nothing is to be blanked but where labels are.
    pub fn new(device: Arc<dyn BlockDevice>, path: String) -> Self {
        Self { device, path, wipe: Vec::new() }
    }
}

/// The kind of a top-level vdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// Plain disks: one heap, redundancy by the profile of each class.
    Plain,
    /// Every device holds the same.
    Mirror,
    /// Data with 1 to 3 parities.
    Raidz(u8),
    /// Chunks of data with parity on some of the devices, spread over all of them, with distributed spares.
    Draid(Draid),
    /// Hot spares.
    Spare,
}

impl GroupKind {
    /// The fewest devices that it takes.
    pub const fn min_devices(self) -> usize {
        match self {
            Self::Plain | Self::Spare => 1,
            Self::Mirror => 2,
            Self::Raidz(parity) => parity as usize + 1,
            Self::Draid(draid) => draid.min_devices(),
        }
    }

    /// How a draid is laid out; `None` for other kinds.
    pub const fn draid(self) -> Option<Draid> {
        match self {
            Self::Draid(draid) => Some(draid),
            _ => None,
        }
    }

    /// What a group of so many devices survives, in words.
    pub fn describe(self, devices: usize) -> String {
        match self {
            Self::Plain => "plain disk".to_owned(),
            Self::Spare => "spare".to_owned(),
            Self::Mirror => format!("{devices}-way mirror"),
            Self::Raidz(parity) => format!("{devices}-wide raidz{parity}"),
            Self::Draid(draid) => draid.name(devices),
        }
    }
}

/// A top-level vdev to be made of `devices`.
#[derive(Clone, Debug)]
pub struct GroupSpec<D> {
    /// Its kind.
    pub kind: GroupKind,
    /// Its devices, in the order given.
    pub devices: Vec<D>,
}

/// A pool to be made.
#[derive(Clone, Debug)]
pub struct CreateSpec {
    /// Its name.
    pub name: String,
    /// Its vdevs.
    pub groups: Vec<GroupSpec<NewDevice>>,
    /// Data profile of the plain disks; `None` is the default (single).
    pub data: Option<Profile>,
    /// Metadata profile of the plain disks; `None` is the default (dup on one disk, raid1 on more).
    pub metadata: Option<Profile>,
    /// Properties to set from the start.
    pub properties: Vec<(String, String)>,
    /// The command line, for the history.
    pub command: String,
}

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct VolumeSpec {
    /// Bytes.
    pub size: u64,
    /// Block size, bytes: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// No space reserved.
    pub sparse: bool,
    /// Properties to set from the start.
    pub properties: Vec<(String, String)>,
}

/// Which chunks of a class a balance takes: all that pass every filter that is there. Ranges include both ends but for
/// `usage`, `drange` and `vrange`, whose second number is the first that is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceFilters {
    /// Profiles as `usage` names them, in lower case; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// Percent of the chunk that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<(u8, u8)>,
    /// The number of a device that has a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devid: Option<u32>,
    /// Bytes of that device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drange: Option<(u64, u64)>,
    /// Logical addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrange: Option<(u64, u64)>,
    /// The profile that new chunks of the class get.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "profile_name")]
    pub convert: Option<Profile>,
    /// Leave out what has the target profile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
    /// Chunks at least, or none; and at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<(u32, u32)>,
    /// Columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripes: Option<(u16, u16)>,
}

/// A balance: filters for each class that is to be balanced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceSpec {
    /// Data chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<BalanceFilters>,
    /// Metadata chunks, and system chunks unless these have their own filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BalanceFilters>,
    /// System chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<BalanceFilters>,
    /// Balance system chunks on their own, and convert to what protects less.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// What chunks are relocated for. One task at a time has the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// A user's balance: the chunks that its filters take.
    Balance(Box<BalanceSpec>),
    /// The devices with these numbers leave the pool: the chunks that have a column there.
    Remove(Vec<u32>),
    /// The group with this number got another kind: its chunks from before that are not as its new ones.
    Convert(u32),
    /// The pool is to use so many bytes of the device with this number: the chunks that have a column behind its new end.
    Resize {
        /// Its number.
        device: u32,
        /// Bytes that are to be used of it, labels included.
        size: u64,
    },
}

/// How large a device is to be, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// As large as it is.
    Max,
    /// So large.
    To(u64),
    /// Larger by so much, or smaller.
    By(i64),
}

/// A profile by its name.
mod profile_name {
    use geometry::Profile;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(
        profile: &Option<Profile>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(profile.map_or("", Profile::name))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Profile>, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Some).map_err(D::Error::custom)
    }
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Change nothing on the devices.
    pub read_only: bool,
    /// Import although another host used the pool last.
    pub force: bool,
    /// Go back to the newest root that opens.
    pub rewind: bool,
    /// Go back to exactly this transaction group.
    pub txg: Option<crate::types::Txg>,
    /// Go back to the pool's checkpoint; read-only, only look at it.
    pub checkpoint: bool,
    /// Devices that stay out of use as long as this import lasts, as after `offline` with `temporary`.
    pub offline: Vec<crate::types::Guid>,
    /// Another name for the pool.
    pub rename: Option<String>,
    /// This host's identity and name.
    pub host: Host,
}

/// The host that uses a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Identity, as from `/etc/machine-id`.
    pub id: u64,
    /// Name for messages.
    pub name: String,
}
