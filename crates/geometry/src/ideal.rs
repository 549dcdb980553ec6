//! How many bytes a heap of devices of any sizes can hold at best.
//!
//! The answers are exact to the byte: what an allocator reaches that may cut columns anywhere. A real one,
//! whose columns are whole slots, comes close, and benches measure how close.

use crate::Profile;

/// The rule by which columns are put on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ideal {
    /// Every byte `copies` times, all on one device: single with 1, dup with 2. At least 1 device.
    OneDevice {
        /// Copies of every byte; 0 is taken as 1.
        copies: u8,
    },
    /// Every byte on `copies` different devices: raid1, raid1c3, raid1c4, mirrors. At least that many devices.
    Copies {
        /// Copies of every byte; 0 is taken as 1.
        copies: u8,
    },
    /// raid0: a chunk has a column on every device that still has room, at least 1.
    Stripe,
    /// raid10: a chunk has columns in a multiple of `copies`, all on different devices, at least one mirror
    /// (2 columns for raid10).
    StripedCopies {
        /// Copies of every byte; 0 is taken as 1.
        copies: u8,
    },
    /// raid5, raid6, raidz: a chunk has a column on every device that still has room, at least `parity` + 1.
    Parity {
        /// Parity columns of a chunk.
        parity: u8,
    },
}

impl From<Profile> for Ideal {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Single => Self::OneDevice { copies: 1 },
            Profile::Dup => Self::OneDevice { copies: 2 },
            Profile::Raid0 => Self::Stripe,
            Profile::Raid1 => Self::Copies { copies: 2 },
            Profile::Raid1c3 => Self::Copies { copies: 3 },
            Profile::Raid1c4 => Self::Copies { copies: 4 },
            Profile::Raid10 => Self::StripedCopies { copies: 2 },
            Profile::Raid5 => Self::Parity { parity: 1 },
            Profile::Raid6 => Self::Parity { parity: 2 },
        }
    }
}

/// Most bytes that devices of these sizes (bytes, any order) can hold under the rule.
pub fn usable(kind: Ideal, sizes: &[u64]) -> u64 {
    let bytes = match kind {
        Ideal::OneDevice { copies } => {
            sizes.iter().map(|size| u128::from(size / u64::from(copies.max(1)))).sum()
        }
        Ideal::Stripe => total(sizes),
        // One mirror at a time can do whatever wider chunks can, and wider chunks are mirrors side by side.
        Ideal::Copies { copies } | Ideal::StripedCopies { copies } => mirrored(copies.max(1).into(), sizes),
        Ideal::Parity { parity } => with_parity(parity.into(), sizes),
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn total(sizes: &[u64]) -> u128 {
    sizes.iter().map(|size| u128::from(*size)).sum()
}

/// x bytes fit on distinct devices exactly if the sum over all devices of min(size, x) is at least
/// copies * x, as no device can hold more than one copy of anything. Where m devices are larger than x
/// that says: the others together hold at least (copies - m) * x. Each m bounds x, and the least bound is
/// reached.
fn mirrored(copies: usize, sizes: &[u64]) -> u128 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    (0..copies).map(|m| total(sizes.get(m..).unwrap_or_default()) / (copies - m) as u128).min().unwrap_or(0)
}

/// Sweeps the devices level by level: between one size and the next larger one, every device that reaches
/// that high gives a column, `parity` of them to parity, until too few are left.
///
/// No other choice of columns holds more: with chunks of height h in all, device i gives at most
/// min(size, h) and parity takes parity * h; the difference is largest at the height where the sweep ends.
fn with_parity(parity: usize, sizes: &[u64]) -> u128 {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let mut bytes = 0;
    let mut level = 0;
    for (smaller, size) in sizes.iter().enumerate() {
        let columns = sizes.len() - smaller;
        if columns <= parity {
            break;
        }
        bytes += u128::from(size - level) * (columns - parity) as u128;
        level = *size;
    }
    bytes
}
