//! ext2, ext3 and ext4: copies of the superblock, group descriptors, bitmaps and inodes.

use device::BlockDevice;

use super::bytes::{crc, crc_before, le16, le32};
use super::{Checks, read};

const MAGIC: u16 = 0xef53;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_FLEX_BG: u32 = 0x200;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const RO_SPARSE_SUPER: u32 = 0x1;
const RO_METADATA_CSUM: u32 = 0x400;

/// Most groups whose bitmaps and inodes are looked at.
const GROUPS_MAX: u64 = 256;
/// Most inodes looked at.
const INODES_MAX: u32 = 16384;

/// What a superblock says, whichever copy it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ext {
    pub(crate) uuid: [u8; 16],
    /// Bytes.
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    /// The first block of group 0.
    first: u64,
    per_group: u64,
    pub(crate) inodes: u32,
    pub(crate) inodes_per_group: u32,
    pub(crate) inode_size: usize,
    descriptor: usize,
    /// Start of checksums; `None` without `metadata_csum`.
    pub(crate) seed: Option<u32>,
    /// The group that this copy belongs to.
    pub(crate) group: u16,
    /// Groups whose tables lie together, at least 1.
    flex: u64,
    sparse: bool,
    meta_bg: bool,
    unclean: bool,
    /// Chunk and data members of the array it was made for, as `mkfs` was told, bytes and count.
    pub(crate) hint: Option<(u64, u64)>,
}

/// A group descriptor whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
    pub(crate) flags: u16,
    pub(crate) block_sum: u32,
    pub(crate) inode_sum: u32,
    unused: u32,
}

impl Descriptor {
    pub(crate) const INODES_UNUSED: u16 = 1;
    pub(crate) const BLOCKS_UNUSED: u16 = 2;
}

impl Ext {
    /// The superblock in these 1024 bytes, if it is one that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < 1024 || le16(bytes, 0x38) != MAGIC {
            return None;
        }
        let shift = le32(bytes, 0x18);
        let (compat, incompat, ro) = (le32(bytes, 0x5c), le32(bytes, 0x60), le32(bytes, 0x64));
        let block = 1024_u64 << Some(shift).filter(|shift| *shift <= 6)?;
        let high = if incompat & INCOMPAT_64BIT != 0 { u64::from(le32(bytes, 0x150)) << 32 } else { 0 };
        let inode_size = if le32(bytes, 0x4c) == 0 { 128 } else { usize::from(le16(bytes, 0x58)) };
        let uuid: [u8; 16] = bytes[0x68..0x78].try_into().ok()?;
        let sums = ro & RO_METADATA_CSUM != 0;
        if sums && crc(!0, &bytes[..0x3fc]) != le32(bytes, 0x3fc) {
            return None;
        }
        let seed = if incompat & INCOMPAT_CSUM_SEED != 0 { le32(bytes, 0x270) } else { crc(!0, &uuid) };
        let descriptor = if incompat & INCOMPAT_64BIT != 0 { usize::from(le16(bytes, 0xfe)) } else { 32 };
        let (stride, width) = (u64::from(le16(bytes, 0x164)), u64::from(le32(bytes, 0x170)));
        let flex_shift = bytes[0x174];
        let this = Self {
            uuid,
            block,
            blocks: u64::from(le32(bytes, 4)) | high,
            first: u64::from(le32(bytes, 0x14)),
            per_group: u64::from(le32(bytes, 0x20)),
            inodes: le32(bytes, 0),
            inodes_per_group: le32(bytes, 0x28),
            inode_size,
            descriptor,
            seed: sums.then_some(seed),
            group: le16(bytes, 0x5a),
            flex: if incompat & INCOMPAT_FLEX_BG != 0 && flex_shift < 31 { 1 << flex_shift } else { 1 },
            sparse: ro & RO_SPARSE_SUPER != 0 && compat & COMPAT_SPARSE_SUPER2 == 0,
            meta_bg: incompat & INCOMPAT_META_BG != 0,
            unclean: incompat & INCOMPAT_RECOVER != 0,
            hint: (stride > 1 && width >= stride).then(|| (stride * block, width / stride)),
        };
        let plausible = this.per_group > 0
            && this.per_group <= 8 * block * 16
            && this.first <= 1
            && this.blocks > this.first
            && this.inodes > 10
            && this.inodes_per_group > 0
            && u64::from(this.inodes_per_group) <= 8 * block
            && inode_size.is_power_of_two()
            && (128..=4096).contains(&inode_size)
            && (32..=1024).contains(&descriptor);
        plausible.then_some(this)
    }

    pub(crate) fn groups(&self) -> u64 {
        (self.blocks - self.first).div_ceil(self.per_group)
    }

    /// Where group `number` begins, bytes: with the copy of the superblock, if it has one.
    pub(crate) fn group_start(&self, number: u64) -> u64 {
        (self.first + number * self.per_group) * self.block
    }

    /// Where the copy of the superblock in a group is, bytes; in group 0 of large blocks it is not at the beginning.
    pub(crate) fn copy_at(&self, number: u64) -> u64 {
        if number == 0 { 1024 } else { self.group_start(number) }
    }

    /// The groups with copies of the superblock, without group 0.
    pub(crate) fn copies(&self) -> Vec<u64> {
        if !self.sparse {
            return Vec::new();
        }
        let mut groups: Vec<u64> = [3_u64, 5, 7]
            .into_iter()
            .flat_map(|base| std::iter::successors(Some(base), move |power| power.checked_mul(base)).take(12))
            .chain([1])
            .filter(|group| *group < self.groups())
            .collect();
        groups.sort_unstable();
        groups
    }

    /// The descriptor of group `number` in these bytes, if its checksum is right.
    pub(crate) fn descriptor_in(&self, number: u64, bytes: &[u8]) -> Option<Descriptor> {
        let bytes = bytes.get(..self.descriptor)?;
        let seed = self.seed?;
        let mut covered = bytes.to_vec();
        covered[0x1e..0x20].fill(0);
        let sum = crc(crc(seed, &(number as u32).to_le_bytes()), &covered);
        if sum as u16 != le16(bytes, 0x1e) {
            return None;
        }
        let wide = |low: usize, high: usize| {
            let high = if self.descriptor >= 64 { u64::from(le32(bytes, high)) << 32 } else { 0 };
            u64::from(le32(bytes, low)) | high
        };
        let sum = |low: usize, high: usize| {
            let high = if self.descriptor >= 64 { u32::from(le16(bytes, high)) << 16 } else { 0 };
            u32::from(le16(bytes, low)) | high
        };
        Some(Descriptor {
            block_bitmap: wide(0, 0x20),
            inode_bitmap: wide(4, 0x24),
            inode_table: wide(8, 0x28),
            flags: le16(bytes, 0x12),
            block_sum: sum(0x18, 0x38),
            inode_sum: sum(0x1a, 0x3a),
            unused: sum(0x1c, 0x32),
        })
    }

    /// Bytes of one group descriptor.
    pub(crate) fn descriptor_size(&self) -> usize {
        self.descriptor
    }

    /// Whether a bitmap's bytes have the checksum that its descriptor says.
    pub(crate) fn bitmap_fits(&self, bits: u64, bytes: &[u8], sum: u32) -> Option<bool> {
        let covered = bytes.get(..(bits / 8) as usize)?;
        let own = crc(self.seed?, covered);
        Some(if self.descriptor >= 64 { own == sum } else { own as u16 == sum as u16 })
    }

    /// The checksum of a bitmap with these bytes.
    pub(crate) fn sum_of(&self, bytes: &[u8]) -> Option<u32> {
        Some(crc(self.seed?, bytes))
    }

    pub(crate) fn blocks_per_group(&self) -> u64 {
        self.per_group
    }

    /// The number of an inode by its checksum run backwards; `None` if these bytes are none of this file system's.
    pub(crate) fn inode_number(&self, inode: &[u8]) -> Option<u32> {
        let seed = self.seed?;
        let (mode, links) = (le16(inode, 0), le16(inode, 0x1a));
        let kind = mode >> 12;
        if !matches!(kind, 1 | 2 | 4 | 6 | 8 | 10 | 12) || links == 0 || inode.len() != self.inode_size {
            return None;
        }
        let wide = self.inode_size > 128 && le16(inode, 0x80) >= 4;
        if !wide {
            // Sixteen bits tell no number.
            return None;
        }
        let sum = u32::from(le16(inode, 0x7c)) | u32::from(le16(inode, 0x82)) << 16;
        let zeroed =
            |(at, byte): (usize, &u8)| if matches!(at, 0x7c | 0x7d | 0x82 | 0x83) { 0 } else { *byte };
        // Numbers come first, then the generation, then the inode.
        let register = crc_before(sum, inode.iter().enumerate().map(zeroed));
        let register = crc_before(register, inode[0x64..0x68].iter().copied());
        let number = crc_before(register, [0; 4].into_iter()) ^ seed;
        (1..=self.inodes).contains(&number).then_some(number)
    }

    /// Whether an inode's checksum is right; `None` if it was never used.
    pub(crate) fn inode_fits(&self, number: u32, inode: &[u8]) -> Option<bool> {
        if inode.iter().all(|byte| *byte == 0) {
            return None;
        }
        let seed = crc(crc(self.seed?, &number.to_le_bytes()), &inode[0x64..0x68]);
        let wide = self.inode_size > 128 && le16(inode, 0x80) >= 4;
        let mut covered = inode.to_vec();
        covered[0x7c..0x7e].fill(0);
        if wide {
            covered[0x82..0x84].fill(0);
        }
        let sum = crc(seed, &covered);
        let fits = sum as u16 == le16(inode, 0x7c) && (!wide || (sum >> 16) as u16 == le16(inode, 0x82));
        Some(fits)
    }

    /// Where an inode is, if its group's table is known, bytes.
    pub(crate) fn inode_at(&self, number: u32, table: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let index = number.checked_sub(1)?;
        let group = u64::from(index / self.inodes_per_group);
        let within = u64::from(index % self.inodes_per_group) * self.inode_size as u64;
        // Tables of groups that lie together follow each other.
        let blocks = (u64::from(self.inodes_per_group) * self.inode_size as u64).div_ceil(self.block);
        let head = group / self.flex * self.flex;
        let table = table(group).or_else(|| Some(table(head)? + (group - head) * blocks))?;
        Some(table * self.block + within)
    }

    /// Where the descriptors begin, behind a copy of the superblock in this group, bytes.
    pub(crate) fn descriptors_at(&self, group: u64) -> Option<u64> {
        (!self.meta_bg).then(|| self.group_start(group) + self.block)
    }

    /// Looks at everything that the file system says about itself.
    pub(crate) fn check(&self, device: &dyn BlockDevice, checks: &mut Checks) {
        for group in self.copies().into_iter().take(64) {
            let copy = read(device, self.copy_at(group), 1024);
            checks.count(copy.map(|copy| {
                Self::parse(&copy)
                    .is_some_and(|copy| copy.uuid == self.uuid && u64::from(copy.group) == group)
            }));
        }
        let (Some(table), Some(_)) = (self.descriptors_at(0), self.seed) else { return };
        let step = self.groups().div_ceil(GROUPS_MAX).max(1);
        let mut left = INODES_MAX;
        for group in (0..self.groups()).step_by(step as usize) {
            let Some(bytes) = read(device, table + group * self.descriptor as u64, self.descriptor) else {
                checks.count(None);
                continue;
            };
            let descriptor = self.descriptor_in(group, &bytes);
            checks.count(Some(descriptor.is_some()));
            let Some(descriptor) = descriptor else { continue };
            self.check_bitmaps(device, &descriptor, checks);
            if descriptor.flags & Descriptor::INODES_UNUSED == 0 {
                let used = self.inodes_per_group.saturating_sub(descriptor.unused).min(left);
                left -= used.min(left);
                self.check_inodes(device, group, &descriptor, used, checks);
            }
        }
    }

    fn check_bitmaps(&self, device: &dyn BlockDevice, descriptor: &Descriptor, checks: &mut Checks) {
        let bitmaps = [
            (descriptor.block_bitmap, descriptor.block_sum, Descriptor::BLOCKS_UNUSED, self.per_group),
            (
                descriptor.inode_bitmap,
                descriptor.inode_sum,
                Descriptor::INODES_UNUSED,
                u64::from(self.inodes_per_group),
            ),
        ];
        for (block, sum, unused, bits) in bitmaps {
            if descriptor.flags & unused != 0 {
                continue;
            }
            let bytes = read(device, block.saturating_mul(self.block), self.block as usize);
            let fits = bytes.map(|bytes| self.bitmap_fits(bits, &bytes, sum).unwrap_or(false));
            // Until the journal is replayed a bitmap may be newer than what the descriptor says.
            if fits != Some(false) || !self.unclean {
                checks.count(fits);
            }
        }
    }

    fn check_inodes(
        &self,
        device: &dyn BlockDevice,
        group: u64,
        descriptor: &Descriptor,
        used: u32,
        checks: &mut Checks,
    ) {
        let per_block = (self.block as usize / self.inode_size).max(1) as u32;
        for first in (0..used).step_by(per_block as usize) {
            let at = descriptor.inode_table * self.block + u64::from(first) * self.inode_size as u64;
            let Some(bytes) = read(device, at, self.block as usize) else {
                checks.count(None);
                continue;
            };
            for (index, inode) in (first..used).zip(bytes.chunks_exact(self.inode_size)) {
                let number = group as u32 * self.inodes_per_group + index + 1;
                if let Some(fits) = self.inode_fits(number, inode) {
                    checks.count(Some(fits));
                    if fits {
                        self.check_contents(device, number, inode, checks);
                    }
                }
            }
        }
    }
}
