//! Where the files and folders of ext2, ext3 and ext4 lie, and whether they are there.

use device::BlockDevice;

use super::bytes::{crc, le16, le32};
use super::ext::Ext;
use super::tails::{self, Tail};
use super::{Checks, read};

const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// An extent longer than this was reserved, but never written; less this it is its length.
const UNWRITTEN: u16 = 32768;
/// Deepest tree of extents.
const DEPTH_MAX: u16 = 5;
const FOLDER: u16 = 4;
const FILE: u16 = 8;

impl Ext {
    /// Where the first block of a folder lies, bytes, if these bytes are the inode of one.
    pub(crate) fn folder_start(&self, inode: &[u8]) -> Option<u64> {
        if le16(inode, 0) >> 12 != FOLDER || le32(inode, 0x20) & INLINE != 0 {
            return None;
        }
        let block = if le32(inode, 0x20) & EXTENTS != 0 {
            let (entry, depth) = entry(inode.get(0x28..0x64)?, Which::First)?;
            (depth == 0 && entry.logical == 0 && !entry.unwritten).then_some(entry.block)?
        } else {
            u64::from(le32(inode, 0x28))
        };
        (block > 0 && block < self.blocks).then_some(block * self.block)
    }

    /// The number of the folder whose first block this is, if it looks like one.
    pub(crate) fn folder_number(&self, block: &[u8]) -> Option<u32> {
        let dot = le16(block, 4) == 12 && block.get(6) == Some(&1) && block.get(8..12) == Some(b".\0\0\0");
        let dots = block.get(18) == Some(&2) && block.get(20..24) == Some(b"..\0\0");
        let number = le32(block, 0);
        (dot && dots && (1..=self.inodes).contains(&number)).then_some(number)
    }

    /// Whether a block of a folder has the checksum of the inode with this number and generation; blocks that are the root of
    /// a hashed folder have theirs elsewhere, and don't.
    pub(crate) fn folder_fits(&self, number: u32, generation: [u8; 4], block: &[u8]) -> bool {
        const TAIL: usize = 12;
        let Some((entries, tail)) = block.len().checked_sub(TAIL).map(|at| block.split_at(at)) else {
            return false;
        };
        let Some(seed) = self.seed.filter(|_| tail[..8] == [0, 0, 0, 0, 12, 0, 0, 0xde]) else {
            return false;
        };
        crc(crc(crc(seed, &number.to_le_bytes()), &generation), entries) == le32(tail, 8)
    }

    /// Looks at what a sound inode speaks of.
    pub(super) fn check_contents(
        &self,
        device: &dyn BlockDevice,
        number: u32,
        inode: &[u8],
        checks: &mut Checks,
    ) {
        if let Some(at) = self.folder_start(inode) {
            let block = read(device, at, 24);
            checks.count(block.map(|block| self.folder_number(&block) == Some(number)));
        } else if le16(inode, 0) >> 12 == FILE
            && let Some(tail) = self.tail(device, inode, checks)
        {
            tails::check(device, self.block, tail, checks);
        }
    }

    /// The last block of a file, if all of it was written.
    fn tail(&self, device: &dyn BlockDevice, inode: &[u8], checks: &mut Checks) -> Option<Tail> {
        let size = u64::from(le32(inode, 4)) | u64::from(le32(inode, 0x6c)) << 32;
        let flags = le32(inode, 0x20);
        let last = size.checked_sub(1)? / self.block;
        let used = (size - last * self.block) as usize;
        if flags & INLINE != 0 {
            return None;
        }
        let block = if flags & EXTENTS != 0 {
            let mut node = inode.get(0x28..0x64)?.to_vec();
            let mut deepest = DEPTH_MAX;
            loop {
                let (entry, depth) = entry(&node, Which::Last)?;
                if depth == 0 {
                    let within = last.checked_sub(entry.logical)?;
                    let inside = within < entry.length && !entry.unwritten;
                    break inside.then_some(entry.block + within)?;
                }
                deepest = deepest.min(depth).checked_sub(1)?;
                let bytes = read(device, entry.block.checked_mul(self.block)?, self.block as usize);
                let fits = bytes.as_ref().map(|bytes| {
                    le16(bytes, 0) == EXTENT_MAGIC && le16(bytes, 6) + 1 == depth && le16(bytes, 2) > 0
                });
                checks.count(fits);
                node = bytes.filter(|_| fits == Some(true))?;
            }
        } else {
            // The first twelve are named in the inode itself.
            let index = usize::try_from(last).ok().filter(|index| *index < 12)?;
            u64::from(le32(inode, 0x28 + 4 * index))
        };
        (block > 0 && block < self.blocks).then_some(Tail { at: block * self.block, used })
    }
}

/// A run of blocks, or what leads to further ones.
struct Entry {
    logical: u64,
    block: u64,
    length: u64,
    unwritten: bool,
}

#[derive(Clone, Copy)]
enum Which {
    First,
    Last,
}

/// An entry of a node of an extent tree, and how deep the tree is below.
fn entry(node: &[u8], which: Which) -> Option<(Entry, u16)> {
    let (count, depth) = (usize::from(le16(node, 2)), le16(node, 6));
    if le16(node, 0) != EXTENT_MAGIC || count == 0 || count > (node.len() - 12) / 12 || depth > DEPTH_MAX {
        return None;
    }
    let at = 12 * if matches!(which, Which::First) { 1 } else { count };
    let logical = u64::from(le32(node, at));
    if depth > 0 {
        let block = u64::from(le32(node, at + 4)) | u64::from(le16(node, at + 8)) << 32;
        return Some((Entry { logical, block, length: 0, unwritten: false }, depth));
    }
    let length = le16(node, at + 4);
    let unwritten = length > UNWRITTEN;
    let length = u64::from(if unwritten { length - UNWRITTEN } else { length });
    let block = u64::from(le32(node, at + 8)) | u64::from(le16(node, at + 6)) << 32;
    Some((Entry { logical, block, length, unwritten }, 0))
}
