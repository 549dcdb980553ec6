//! What a caller asks for: devices, groups, volumes, options.

use std::ops::Range;
use std::sync::Arc;

use device::BlockDevice;
use geometry::Profile;

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
    /// Hot spares.
    Spare,
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
