//! The names people give to layouts.

use std::fmt;
use std::str::FromStr;

use crate::{Kind, Layout, LayoutError, MAX_COLUMNS, MAX_DATA_UNITS};

/// A redundancy profile, named as btrfs names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// One copy on one device.
    Single,
    /// Two copies on one device: survives bad sectors, not the loss of the device.
    Dup,
    /// One copy striped over all devices.
    Raid0,
    /// Copies on two devices.
    Raid1,
    /// Copies on three devices.
    Raid1c3,
    /// Copies on four devices.
    Raid1c4,
    /// Copies on two devices each, striped over all devices.
    Raid10,
    /// One parity, over all devices.
    Raid5,
    /// Two parities, over all devices.
    Raid6,
}

/// No profile has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no profile {name:?}: choose one of {}", Profile::ALL.map(Profile::name).join(", "))]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

/// A profile that some devices can't be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Too few devices.
    #[error("{profile} takes at least {} devices, and there are {available}", profile.min_devices())]
    Devices {
        /// What was asked for.
        profile: Profile,
        /// Devices there are.
        available: u16,
    },
    /// The unit is impossible.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Profile {
    /// All profiles, from the least redundant on.
    pub const ALL: [Self; 9] = [
        Self::Single,
        Self::Dup,
        Self::Raid0,
        Self::Raid1,
        Self::Raid1c3,
        Self::Raid1c4,
        Self::Raid10,
        Self::Raid5,
        Self::Raid6,
    ];

    /// The name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Dup => "dup",
            Self::Raid0 => "raid0",
            Self::Raid1 => "raid1",
            Self::Raid1c3 => "raid1c3",
            Self::Raid1c4 => "raid1c4",
            Self::Raid10 => "raid10",
            Self::Raid5 => "raid5",
            Self::Raid6 => "raid6",
        }
    }

    /// Fewest devices that a chunk of this profile can be put on.
    pub const fn min_devices(self) -> u16 {
        match self {
            Self::Single | Self::Dup | Self::Raid0 => 1,
            Self::Raid1 | Self::Raid10 | Self::Raid5 => 2,
            Self::Raid1c3 | Self::Raid6 => 3,
            Self::Raid1c4 => 4,
        }
    }

    /// The widest layout that this profile can have on so many devices, in units of `unit` bytes. Every
    /// column goes to a device of its own, but for `dup`, whose two columns go to the same one.
    ///
    /// # Errors
    /// There are too few devices, or the unit is impossible.
    pub fn layout(self, devices_available: u16, unit: u32) -> Result<Layout, ProfileError> {
        if devices_available < self.min_devices() {
            return Err(ProfileError::Devices { profile: self, available: devices_available });
        }
        let (kind, columns) = match self {
            Self::Single => (Kind::Copies, 1),
            Self::Dup | Self::Raid1 => (Kind::Copies, 2),
            Self::Raid1c3 => (Kind::Copies, 3),
            Self::Raid1c4 => (Kind::Copies, 4),
            Self::Raid0 => (Kind::Stripe, devices_available.min(MAX_DATA_UNITS)),
            Self::Raid10 => (Kind::StripedCopies { copies: 2 }, devices_available.min(MAX_COLUMNS) / 2 * 2),
            Self::Raid5 => (Kind::Parity { parity: 1 }, devices_available.min(MAX_DATA_UNITS + 1)),
            Self::Raid6 => (Kind::Parity { parity: 2 }, devices_available.min(MAX_DATA_UNITS + 2)),
        };
        Ok(Layout::new(kind, columns, unit)?)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == name);
        known.ok_or_else(|| UnknownProfile { name: name.to_owned() })
    }
}
