//! btrfs: superblocks and tree nodes know their logical address, chunk items say where that is, and checksums of data
//! lie in a tree of their own. Only file systems on one device are read.

use std::collections::{BTreeMap, BTreeSet};

use device::BlockDevice;
use formats::{BTRFS_MAGIC, BTRFS_SUPERBLOCKS};

use super::bytes::{crc, le16, le32, le64};
use super::{Checks, read};

const SUPERBLOCK: usize = 4096;
const HEADER: usize = 101;
const ITEM: usize = 25;
/// What the chunk tree says of a device: its number first, the file system's identifier last.
const DEVICE_ITEM: usize = 98;
/// Nodes are never cut into less.
pub(crate) const SECTOR: usize = 4096;
const POINTER: usize = 33;
const CHUNK_TREE: u64 = 3;
const CHECKSUM_TREE: u64 = 7;
const CHUNK_ITEM: u8 = 228;
const ROOT_ITEM: u8 = 132;
const EXTENT_CSUM: u8 = 128;
/// Chunks with striping or parity of btrfs's own.
const STRIPED: u64 = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 8;
/// Most nodes and sectors of data looked at.
const NODES_MAX: usize = 4096;
const SECTORS_MAX: usize = 4096;
const LEVELS_MAX: u8 = 8;

/// A key: object, kind, offset.
type Key = (u64, u8, u64);

fn key(bytes: &[u8], at: usize) -> Key {
    (le64(bytes, at), bytes.get(at + 8).copied().unwrap_or(0), le64(bytes, at + 9))
}

/// What a superblock says, whichever copy it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Btrfs {
    /// What nodes carry.
    pub(crate) uuid: [u8; 16],
    /// Where this copy belongs, bytes.
    pub(crate) at: u64,
    generation: u64,
    /// Bytes.
    pub(crate) size: u64,
    sector: u64,
    node: usize,
    root: u64,
    chunk_root: u64,
    /// Its number among the devices of the file system.
    device: u64,
    /// Checksums are CRC-32C; others are not computed here.
    plain_sums: bool,
    /// Where logical addresses are: first one, length, and where each copy begins on the device.
    chunks: BTreeMap<u64, (u64, Vec<u64>)>,
}

/// The chunk in these bytes, which begin behind its key: length, and where its copies on a device are; `None` if it is spread
/// over devices.
fn chunk(device: u64, bytes: &[u8]) -> Option<(u64, Vec<u64>)> {
    const STRIPE: usize = 32;
    let (length, kind, count) = (le64(bytes, 0), le64(bytes, 24), usize::from(le16(bytes, 44)));
    let stripes = bytes.get(48..48 + count * STRIPE)?.chunks_exact(STRIPE);
    let copies: Vec<u64> =
        stripes.filter(|stripe| le64(stripe, 0) == device).map(|stripe| le64(stripe, 8)).collect();
    (length > 0 && kind & STRIPED == 0 && !copies.is_empty()).then_some((length, copies))
}

impl Btrfs {
    /// The superblock in these bytes, at least 4096, if it is one that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        const ARRAY_AT: usize = 0x32b;
        let block = bytes.get(..SUPERBLOCK)?;
        if block[64..72] != *BTRFS_MAGIC {
            return None;
        }
        let plain_sums = le16(block, 0xc4) == 0;
        if plain_sums && !crc(!0, &block[32..]) != le32(block, 0) {
            return None;
        }
        // Nodes carry the older of two identifiers, if there are two.
        const METADATA_UUID: u64 = 1 << 10;
        let other = le64(block, 0xbc) & METADATA_UUID != 0;
        let uuid = if other { &block[0x23b..0x24b] } else { &block[0x20..0x30] };
        let mut this = Self {
            uuid: uuid.try_into().ok()?,
            at: le64(block, 0x30),
            generation: le64(block, 0x48),
            size: le64(block, 0xc9 + 8),
            sector: le32(block, 0x90).into(),
            node: le32(block, 0x94) as usize,
            root: le64(block, 0x50),
            chunk_root: le64(block, 0x58),
            device: le64(block, 0xc9),
            plain_sums,
            chunks: BTreeMap::new(),
        };
        let plausible = BTRFS_SUPERBLOCKS.contains(&this.at)
            && this.sector.is_power_of_two()
            && (4096..=65536).contains(&this.sector)
            && this.node.is_power_of_two()
            && (4096..=65536).contains(&this.node)
            && (1 << 20..1 << 60).contains(&this.size);
        let array = block.get(ARRAY_AT..ARRAY_AT + (le32(block, 0xa0) as usize).min(2048))?;
        let mut at = 0;
        while at + 17 + 48 <= array.len() {
            let rest = &array[at + 17..];
            if let Some(found) = chunk(this.device, rest) {
                this.chunks.insert(key(array, at).2, found);
            }
            at += 17 + 48 + 32 * usize::from(le16(rest, 44));
        }
        plausible.then_some(this)
    }

    /// Bytes of a node.
    pub(crate) fn node_size(&self) -> usize {
        self.node
    }

    /// The logical address and the generation of the node that begins with these bytes, if it is one of this file system.
    /// What lies in another chunk of an array is not needed to know.
    pub(crate) fn node_in(&self, bytes: &[u8]) -> Option<(u64, u64)> {
        let header = bytes.get(..HEADER)?;
        let (logical, generation) = (le64(header, 48), le64(header, 80));
        let sane = header[100] < LEVELS_MAX
            && logical.is_multiple_of(self.sector)
            && generation > 0
            && generation <= self.generation
            && (le32(header, 96) as usize) < self.node / ITEM;
        (header[32..48] == self.uuid && sane).then_some((logical, generation))
    }

    /// The chunks that a leaf of the chunk tree speaks of.
    pub(crate) fn chunks_in(&self, node: &[u8]) -> Vec<(u64, (u64, Vec<u64>))> {
        if node.len() < self.node || le64(node, 88) != CHUNK_TREE || !self.sum_fits(node) {
            return Vec::new();
        }
        let items = self.items(node).into_iter().filter(|((_, kind, _), _)| *kind == CHUNK_ITEM);
        items.filter_map(|((_, _, logical), data)| Some((logical, chunk(self.device, data)?))).collect()
    }

    /// The first sector of a leaf of the chunk tree that goes on elsewhere, for [`Btrfs::joined`].
    pub(crate) fn front_in<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let front = bytes.get(..SECTOR)?;
        let is_leaf = le64(front, 88) == CHUNK_TREE && front[100] == 0;
        (self.plain_sums && self.node > SECTOR && is_leaf).then_some(front)
    }

    /// Whether these bytes end with what a first leaf of the chunk tree ends with: the item of this file system's device.
    pub(crate) fn ends_front(&self, bytes: &[u8]) -> bool {
        let item = bytes.len().checked_sub(DEVICE_ITEM).and_then(|start| bytes.get(start..));
        item.is_some_and(|item| item[82..] == self.uuid && le64(item, 0) == self.device)
    }

    /// The leaf of these first and last sectors and zeros between them, which leaves with few items have there, if its checksum
    /// says so.
    pub(crate) fn joined(&self, front: &[u8], last: &[u8]) -> Option<Vec<u8>> {
        let between = self.node.checked_sub(front.len() + last.len())?;
        let node = [front, &vec![0; between], last].concat();
        (self.plain_sums && self.sum_fits(&node)).then_some(node)
    }

    /// Adds what a leaf of the chunk tree said.
    pub(crate) fn learn(&mut self, logical: u64, found: (u64, Vec<u64>)) {
        self.chunks.insert(logical, found);
    }

    /// Where the copies of a logical address are, bytes on the device.
    pub(crate) fn places(&self, logical: u64) -> Vec<u64> {
        let Some((start, (length, copies))) = self.chunks.range(..=logical).next_back() else {
            return Vec::new();
        };
        let within = logical - start;
        if within >= *length { Vec::new() } else { copies.iter().map(|copy| copy + within).collect() }
    }

    fn sum_fits(&self, node: &[u8]) -> bool {
        !self.plain_sums || node.get(32..self.node).is_some_and(|rest| !crc(!0, rest) == le32(node, 0))
    }

    /// The items of a leaf.
    fn items<'a>(&self, node: &'a [u8]) -> Vec<(Key, &'a [u8])> {
        if node.get(100) != Some(&0) {
            return Vec::new();
        }
        let count = (le32(node, 96) as usize).min(self.node / ITEM);
        let item = |index: usize| {
            let at = HEADER + ITEM * index;
            let start = HEADER.checked_add(le32(node, at + 17) as usize)?;
            let data = node.get(start..start.checked_add(le32(node, at + 21) as usize)?)?;
            Some((key(node, at), data))
        };
        (0..count).filter_map(item).collect()
    }

    /// A node, if any copy of it is right; counts each.
    fn node_at(&self, device: &dyn BlockDevice, logical: u64, checks: &mut Checks) -> Option<Vec<u8>> {
        let mut good = None;
        for at in self.places(logical) {
            let bytes = read(device, at, self.node);
            let fits = bytes.as_ref().map(|bytes| {
                self.node_in(bytes).is_some_and(|(own, _)| own == logical) && self.sum_fits(bytes)
            });
            checks.count(fits);
            good = good.or(bytes.filter(|_| fits == Some(true)));
        }
        good
    }

    /// The leaves of a tree, as many as may still be looked at.
    fn leaves(
        &self,
        device: &dyn BlockDevice,
        root: u64,
        seen: &mut BTreeSet<u64>,
        checks: &mut Checks,
    ) -> Vec<Vec<u8>> {
        let (mut waiting, mut leaves) = (vec![root], Vec::new());
        while let Some(logical) = waiting.pop() {
            if seen.len() >= NODES_MAX || !seen.insert(logical) {
                continue;
            }
            let Some(node) = self.node_at(device, logical, checks) else { continue };
            if node[100] == 0 {
                leaves.push(node);
                continue;
            }
            let count = (le32(&node, 96) as usize).min(self.node / POINTER);
            waiting.extend((0..count).map(|index| le64(&node, HEADER + POINTER * index + 17)));
        }
        leaves
    }

    /// Looks at everything that the file system says about itself.
    pub(crate) fn check(&self, device: &dyn BlockDevice, checks: &mut Checks) {
        for at in
            BTRFS_SUPERBLOCKS.into_iter().filter(|at| at + SUPERBLOCK as u64 <= self.size && *at != self.at)
        {
            let copy = read(device, at, SUPERBLOCK);
            checks.count(
                copy.map(|copy| {
                    Self::parse(&copy).is_some_and(|copy| (copy.uuid, copy.at) == (self.uuid, at))
                }),
            );
        }
        let (mut whole, mut seen) = (self.clone(), BTreeSet::new());
        for leaf in self.leaves(device, self.chunk_root, &mut seen, checks) {
            whole.chunks_in(&leaf).into_iter().for_each(|(logical, found)| whole.learn(logical, found));
        }
        let mut roots: BTreeMap<u64, u64> = BTreeMap::new();
        for leaf in whole.leaves(device, self.root, &mut seen, checks) {
            for ((object, kind, _), data) in whole.items(&leaf) {
                if kind == ROOT_ITEM {
                    // Behind an inode of 160 bytes: generation, folder, address.
                    roots.insert(object, le64(data, 176));
                }
            }
        }
        let mut left = SECTORS_MAX;
        // Checksums of data are looked at first, since there are many nodes otherwise.
        if let Some(root) = roots.remove(&CHECKSUM_TREE) {
            let leaves = whole.leaves(device, root, &mut seen, checks);
            let all: usize =
                leaves.iter().flat_map(|leaf| whole.items(leaf)).map(|(_, data)| data.len() / 4).sum();
            let step = all.div_ceil(SECTORS_MAX).max(1);
            for ((_, kind, start), sums) in leaves.iter().flat_map(|leaf| whole.items(leaf)) {
                for (index, sum) in sums.chunks_exact(4).enumerate().step_by(step) {
                    if kind != EXTENT_CSUM || !self.plain_sums || left == 0 {
                        break;
                    }
                    left -= 1;
                    let logical = start + index as u64 * self.sector;
                    for at in whole.places(logical) {
                        let bytes = read(device, at, self.sector as usize);
                        checks.count(bytes.map(|bytes| !crc(!0, &bytes) == le32(sum, 0)));
                    }
                }
            }
        }
        for root in roots.into_values().filter(|root| *root > 0) {
            whole.leaves(device, root, &mut seen, checks);
        }
    }
}
