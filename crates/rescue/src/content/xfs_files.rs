//! Where the files and folders of XFS lie, and whether they are there.

use device::BlockDevice;

use super::bytes::{be16, be32, be64};
use super::tails::{self, Tail};
use super::xfs::Xfs;
use super::{Checks, read};

/// Where the map of a file begins in inodes of version 3.
const FORK: usize = 176;
/// The map is a list of extents in the inode.
const EXTENTS: u8 = 2;
/// Counts of extents have 64 bits.
const WIDE_COUNTS: u64 = 1 << 4;
/// Its data lies on the realtime device.
const REALTIME: u16 = 1;
const FOLDER: u16 = 4;
const FILE: u16 = 8;

/// A run of blocks of a file.
struct Extent {
    unwritten: bool,
    logical: u64,
    block: u64,
    length: u64,
}

/// 1 bit, 54 bits, 52 bits, 21 bits.
fn extent(record: &[u8]) -> Extent {
    let (high, low) = (be64(record, 0), be64(record, 8));
    Extent {
        unwritten: high >> 63 != 0,
        logical: high << 1 >> 10,
        block: (high & 0x1ff) << 43 | low >> 21,
        length: low & 0x1f_ffff,
    }
}

impl Xfs {
    /// Looks at what a sound inode speaks of, if all of that stands in the inode.
    pub(super) fn check_contents(&self, device: &dyn BlockDevice, inode: &[u8], checks: &mut Checks) {
        let kind = be16(inode, 2) >> 12;
        if inode.get(5) != Some(&EXTENTS) || be16(inode, 90) & REALTIME != 0 {
            return;
        }
        let wide = be64(inode, 120) & WIDE_COUNTS != 0;
        let count = if wide { be64(inode, 24) } else { u64::from(be32(inode, 76)) };
        let Some(records) = inode.get(FORK..).filter(|fork| count > 0 && count <= fork.len() as u64 / 16)
        else {
            return;
        };
        if kind == FOLDER {
            let first = extent(records);
            if let Some(at) = self.block_at(first.block).filter(|_| first.logical == 0) {
                let block = read(device, at, self.block as usize);
                // Those of several blocks have a checksum over all of them.
                checks.count(block.map(|block| {
                    matches!(&block[..4], b"XDB3" | b"XDD3") && be64(&block, 8).checked_mul(512) == Some(at)
                }));
            }
        } else if kind == FILE {
            let size = be64(inode, 56);
            let last = extent(&records[(count as usize - 1) * 16..]);
            let Some(end) = size.checked_sub(1).map(|end| end / self.block) else { return };
            let within = end.checked_sub(last.logical).filter(|within| *within < last.length);
            let block = within.and_then(|within| last.block.checked_add(within)).filter(|_| !last.unwritten);
            if let Some(at) = block.and_then(|block| self.block_at(block)) {
                let used = (size - end * self.block) as usize;
                tails::check(device, self.block, Tail { at, used }, checks);
            }
        }
    }
}
