//! XFS: headers of allocation groups, inodes, and blocks that know their own address.

use device::BlockDevice;

use super::bytes::{be16, be32, be64, le32};
use super::{Checks, read};

/// Most allocation groups looked at.
const GROUPS_MAX: u64 = 64;
/// Most inode chunks looked at in each group.
const CHUNKS_MAX: usize = 64;
/// Addresses that blocks carry count these, bytes.
const SECTOR: u64 = 512;

/// What a superblock says. All copies say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xfs {
    /// What metadata carries.
    pub(crate) uuid: [u8; 16],
    /// Bytes.
    pub(crate) block: u64,
    /// Blocks of a group.
    group_blocks: u64,
    groups: u64,
    pub(crate) sector: u64,
    pub(crate) inode_size: usize,
    inodes_per_block_log: u32,
    group_blocks_log: u32,
    /// Version 5: everything has a checksum and its own address.
    pub(crate) sums: bool,
    /// Chunk and data members of the array it was made for, as `mkfs` was told, bytes and count.
    pub(crate) hint: Option<(u64, u64)>,
}

/// Whether the CRC-32C of `bytes`, with the field at `at` as zeros, is what that field says.
fn sum_fits(bytes: &[u8], at: usize) -> bool {
    let Some(rest) = bytes.get(at + 4..) else { return false };
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&bytes[..at]), &[0; 4]), rest);
    sum == le32(bytes, at)
}

impl Xfs {
    /// The superblock in these bytes, at least 512, if it is one that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        const META_UUID: u32 = 4;
        if bytes.len() < 512 || !bytes.starts_with(b"XFSB") {
            return None;
        }
        let sums = be16(bytes, 100) & 0xf == 5;
        let own: [u8; 16] = bytes[32..48].try_into().ok()?;
        let meta: [u8; 16] = bytes[248..264].try_into().ok()?;
        let other = sums && be32(bytes, 216) & META_UUID != 0;
        let block = u64::from(be32(bytes, 4));
        let (unit, width) = (u64::from(be32(bytes, 184)), u64::from(be32(bytes, 188)));
        let this = Self {
            uuid: if other { meta } else { own },
            block,
            group_blocks: be32(bytes, 84).into(),
            groups: be32(bytes, 88).into(),
            sector: be16(bytes, 102).into(),
            inode_size: be16(bytes, 104).into(),
            inodes_per_block_log: bytes[123].into(),
            group_blocks_log: bytes[124].into(),
            sums,
            hint: (unit > 0 && width >= unit).then(|| (unit * block, width / unit)),
        };
        let plausible = block.is_power_of_two()
            && (512..=65536).contains(&block)
            && this.sector.is_power_of_two()
            && (512..=block).contains(&this.sector)
            && this.inode_size.is_power_of_two()
            && (256..=2048).contains(&this.inode_size)
            && this.inodes_per_block_log < 10
            && this.group_blocks_log < 32
            && this.group_blocks > 0
            && this.groups > 0;
        plausible.then_some(this)
    }

    fn group_start(&self, group: u64) -> u64 {
        group * self.group_blocks * self.block
    }

    /// Where a block of the file system is, bytes.
    pub(super) fn block_at(&self, number: u64) -> Option<u64> {
        let group = number.checked_shr(self.group_blocks_log)?;
        let block = number & ((1 << self.group_blocks_log) - 1);
        let inside = group < self.groups && block < self.group_blocks;
        inside.then(|| self.group_start(group) + block * self.block)
    }

    /// Bytes of the file system.
    pub(crate) fn size(&self) -> u64 {
        self.group_start(self.groups)
    }

    /// Where an inode is, bytes.
    pub(crate) fn inode_at(&self, number: u64) -> Option<u64> {
        let log = self.inodes_per_block_log;
        let group = number.checked_shr(self.group_blocks_log + log)?;
        let block = number >> log & ((1 << self.group_blocks_log) - 1);
        if group >= self.groups || block >= self.group_blocks {
            return None;
        }
        let within = (number & ((1 << log) - 1)) * self.inode_size as u64;
        Some(self.group_start(group) + block * self.block + within)
    }

    /// Where the inode in these bytes belongs, bytes, if it is one of this file system.
    pub(crate) fn inode_address(&self, bytes: &[u8]) -> Option<u64> {
        let inode = bytes.get(..self.inode_size)?;
        let ours = inode.starts_with(b"IN") && inode[4] >= 3 && inode[160..176] == self.uuid;
        (ours && sum_fits(inode, 100)).then(|| self.inode_at(be64(inode, 152)))?
    }

    /// Where the block in these bytes belongs, bytes, if it is one of this file system that knows.
    pub(crate) fn block_address(&self, bytes: &[u8]) -> Option<u64> {
        let block = bytes.get(..self.block as usize)?;
        // Address, UUID, checksum, by kind.
        let (address, uuid, sum) = match &block[..4] {
            b"XDB3" | b"XDD3" | b"XDF3" => (be64(block, 8), 24, 4),
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => (be64(block, 16), 32, 52),
            b"BMA3" => (be64(block, 24), 40, 64),
            _ if matches!(be16(block, 8), 0x3df1 | 0x3dff | 0x3ebe | 0x3bee) => (be64(block, 16), 32, 12),
            _ => return None,
        };
        let ours = block[uuid..uuid + 16] == self.uuid && sum_fits(block, sum);
        address.checked_mul(SECTOR).filter(|address| ours && *address < self.size())
    }

    /// Where the header of a group in these bytes belongs, bytes.
    pub(crate) fn header_address(&self, bytes: &[u8]) -> Option<u64> {
        let sector = bytes.get(..self.sector as usize)?;
        let (group, place, uuid, sum) = match &sector[..4] {
            b"XAGF" => (be32(sector, 8), 1, 64, 216),
            b"XAGI" => (be32(sector, 8), 2, 296, 312),
            b"XAFL" => (be32(sector, 4), 3, 8, 32),
            _ => return None,
        };
        let ours = u64::from(group) < self.groups && sector[uuid..uuid + 16] == self.uuid;
        (ours && sum_fits(sector, sum)).then(|| self.group_start(group.into()) + place * self.sector)
    }

    /// Looks at everything that the file system says about itself.
    pub(crate) fn check(&self, device: &dyn BlockDevice, checks: &mut Checks) {
        let step = self.groups.div_ceil(GROUPS_MAX).max(1);
        for group in (0..self.groups).step_by(step as usize) {
            let start = self.group_start(group);
            if group > 0 {
                let copy = read(device, start, 512);
                checks.count(copy.map(|copy| {
                    Self::parse(&copy).is_some_and(|copy| {
                        Self { hint: None, ..copy } == Self { hint: None, ..self.clone() }
                    })
                }));
            }
            if !self.sums {
                continue;
            }
            for place in 1..=3 {
                let at = start + place * self.sector;
                let header = read(device, at, self.sector as usize);
                checks.count(header.map(|header| self.header_address(&header) == Some(at)));
            }
            if let Some(header) = read(device, start + 2 * self.sector, self.sector as usize)
                && self.header_address(&header).is_some()
            {
                self.check_inodes(device, start, be32(&header, 20), be32(&header, 24), checks);
            }
        }
    }

    /// The inodes that the tree of a group speaks of.
    fn check_inodes(
        &self,
        device: &dyn BlockDevice,
        start: u64,
        root: u32,
        levels: u32,
        checks: &mut Checks,
    ) {
        const HEADER: usize = 56;
        let mut node = u64::from(root);
        for level in (0..levels.min(8)).rev() {
            let at = start + node * self.block;
            let Some(bytes) = read(device, at, self.block as usize) else {
                checks.count(None);
                return;
            };
            let fits = self.block_address(&bytes) == Some(at);
            checks.count(Some(fits));
            if !fits {
                return;
            }
            if level > 0 {
                // Down along the left edge.
                let most = (self.block as usize - HEADER) / 8;
                node = be32(&bytes, HEADER + 4 * most).into();
                continue;
            }
            let records = bytes[HEADER..].chunks_exact(16).take(usize::from(be16(&bytes, 6)).min(CHUNKS_MAX));
            for record in records {
                self.check_chunk(device, start, record, checks);
            }
        }
    }

    /// The 64 inodes of one record.
    fn check_chunk(&self, device: &dyn BlockDevice, start: u64, record: &[u8], checks: &mut Checks) {
        let first = be32(record, 0);
        let hole_mask = be16(record, 4);
        let at = start + u64::from(first >> self.inodes_per_block_log) * self.block;
        for index in 0..64_u64 {
            if hole_mask & 1 << (index / 4) != 0 {
                continue;
            }
            let at = at + index * self.inode_size as u64;
            let inode = read(device, at, self.inode_size);
            let fits = inode.as_ref().map(|inode| self.inode_address(inode) == Some(at));
            checks.count(fits);
            if let (Some(true), Some(inode)) = (fits, inode) {
                self.check_contents(device, &inode, checks);
            }
        }
    }
}
