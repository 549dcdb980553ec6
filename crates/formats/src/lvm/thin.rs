//! The metadata of device-mapper's thin pools: which block of the pool holds which block of which device.
//!
//! All is kept in blocks of 4 KiB, each with a checksum of its kind. Block 0 is the superblock. It names two
//! B-trees: device number -> root of that device's own tree (thin block -> block of the pool), and device
//! number -> details.

use std::ops::Range;

use device::BlockDevice;

use crate::fields::Fields;
use crate::md::error::Site;
use crate::{FieldError, ReadError};

const BLOCK: u64 = 4096;
const SECTOR: u64 = 512;
const SUPERBLOCK_XOR: u32 = 0x2_7406;
const NODE_XOR: u32 = 0x1_d913;
const NODE_HEADER: usize = 32;
/// A tree of more levels would not fit on any device.
const DEPTH_MAX: u32 = 16;
/// The kernel lets metadata grow to just below this.
const METADATA_MAX: u64 = 16 << 30;
/// Block numbers share 64 bits with a time of 24.
const TIME_BITS: u32 = 24;

/// The superblock of a pool's metadata, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinMetadata {
    /// Counts changes as LVM sees them.
    pub transaction: u64,
    /// Counts snapshots.
    pub time: u32,
    /// Block size of the pool, bytes.
    pub chunk: u64,
    /// How many blocks the pool has room for in its data volume.
    pub data_blocks: u64,
    /// How many of them were in use.
    pub used_blocks: u64,
    /// Whether the pool asks for a check.
    pub needs_check: bool,
    /// Blocks of 4 KiB that the metadata have.
    pub metadata_blocks: u64,
    mapping_root: u64,
    details_root: u64,
}

/// A device of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinDevice {
    /// Its number.
    pub number: u32,
    /// Block of the metadata where its own tree begins.
    pub root: u64,
    /// How many blocks it has mapped, by its details; `None` if these are lost.
    pub mapped_blocks: Option<u64>,
    /// The transaction that made it.
    pub transaction: Option<u64>,
}

/// Blocks of a device that lie one behind the other in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThinRun {
    /// First block of the device.
    pub block: u64,
    /// Where it lies, blocks of the pool's data.
    pub data: u64,
    /// How many.
    pub count: u64,
}

/// Keys that can't be had because a node of a tree is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinDamage {
    /// Blocks of a device, or numbers of devices. The range reaches to the end where nothing bounds it.
    pub keys: Range<u64>,
    /// What is wrong with the node.
    pub error: ReadError,
}

/// One node, verified: keys in order within their range.
struct Node {
    leaf: bool,
    keys: Vec<u64>,
    block: Vec<u8>,
    /// Where values begin, and how long each is.
    values: usize,
    value_size: usize,
}

impl Node {
    fn value(&self, index: usize) -> &[u8] {
        let at = self.values + index * self.value_size;
        self.block.get(at..at + self.value_size).unwrap_or_default()
    }
}

fn checksum(block: &[u8], xor: u32) -> u32 {
    !crc32c::crc32c(block.get(4..).unwrap_or_default()) ^ xor
}

impl ThinMetadata {
    /// Reads the superblock of a metadata volume.
    ///
    /// # Errors
    /// Which field can't be what it is, or it can't be read.
    pub fn open(device: &dyn BlockDevice) -> Result<Self, ReadError> {
        const MAGIC: u64 = 27_022_010;
        let site = Site { device: &device.info().name, offset: 0, structure: "thin pool superblock" };
        let size = device.size()?;
        site.require(size >= BLOCK, "size", size, format!("at least {BLOCK}"))?;
        let mut block = vec![0; BLOCK as usize];
        device.read(0, &mut block)?;
        let long = |at| block.le32(at).unwrap_or(0);
        let wide = |at| block.le64(at).unwrap_or(0);
        site.require(wide(32) == MAGIC, "magic", wide(32), MAGIC)?;
        let sum = checksum(&block, SUPERBLOCK_XOR);
        site.require(long(0) == sum, "csum", format!("{:#x}", long(0)), format!("{sum:#x}"))?;
        site.require(wide(8) == 0, "blocknr", wide(8), 0)?;
        site.require((1..=2).contains(&long(40)), "version", long(40), "1 or 2")?;
        let chunk = u64::from(long(336)) * SECTOR;
        let sane = (64 << 10..=1 << 30).contains(&chunk) && chunk.is_multiple_of(64 << 10);
        site.require(sane, "data_block_size", long(336), "a multiple of 128 sectors, at most 1 GiB")?;
        let blocks = size.min(METADATA_MAX) / BLOCK;
        for (field, root) in [("data_mapping_root", wide(320)), ("device_details_root", wide(328))] {
            site.require(
                (1..blocks).contains(&root),
                field,
                root,
                format!("a block from 1 to {}", blocks - 1),
            )?;
        }
        let data_blocks = wide(64);
        let fits = data_blocks.checked_mul(chunk).is_some_and(|bytes| bytes <= 1 << 60);
        site.require(fits, "data blocks", data_blocks, "what a device can have")?;
        Ok(Self {
            transaction: wide(48),
            time: long(44),
            chunk,
            data_blocks,
            used_blocks: wide(72),
            needs_check: long(4) & 1 != 0,
            metadata_blocks: blocks,
            mapping_root: wide(320),
            details_root: wide(328),
        })
    }

    /// All devices of the pool, by their numbers, and which could not be had.
    pub fn devices(&self, device: &dyn BlockDevice) -> (Vec<ThinDevice>, Vec<ThinDamage>) {
        let mut devices: Vec<ThinDevice> = Vec::new();
        let numbers = 0..1 << 24;
        let mut damage = self.walk(device, self.mapping_root, 8, &numbers, &mut |number, value| {
            let root = value.le64(0).unwrap_or(0);
            let unknown = ThinDevice { number: number as u32, root, mapped_blocks: None, transaction: None };
            devices.push(unknown);
        });
        let lost = self.walk(device, self.details_root, 24, &numbers, &mut |number, value| {
            if let Ok(index) = devices.binary_search_by_key(&(number as u32), |device| device.number) {
                devices[index].mapped_blocks = value.le64(0);
                devices[index].transaction = value.le64(8);
            }
        });
        damage.extend(lost);
        (devices, damage)
    }

    /// Hands on all blocks of a device within a range of its blocks, in order, as runs. Returns what could not
    /// be had: reads there must fail, not give zeros.
    pub fn mappings(
        &self,
        device: &dyn BlockDevice,
        thin: &ThinDevice,
        blocks: Range<u64>,
        found: &mut dyn FnMut(ThinRun),
    ) -> Vec<ThinDamage> {
        let mut run: Option<ThinRun> = None;
        let mut outside = Vec::new();
        let name = device.info().name.as_str();
        let mut damage = self.walk(device, thin.root, 8, &blocks, &mut |block, value| {
            let data = value.le64(0).unwrap_or(u64::MAX) >> TIME_BITS;
            if data >= self.data_blocks {
                let site = Site { device: name, offset: thin.root * BLOCK, structure: "thin device's tree" };
                let error = site.error("data block", data, format!("less than {}", self.data_blocks));
                // One entry stands for all: they may be very many.
                if outside.is_empty() {
                    outside.push(ThinDamage { keys: block..block + 1, error: error.into() });
                } else if let Some(first) = outside.first_mut() {
                    first.keys.end = block + 1;
                }
                return;
            }
            match &mut run {
                Some(run) if run.block + run.count == block && run.data + run.count == data => run.count += 1,
                _ => {
                    if let Some(done) = run.replace(ThinRun { block, data, count: 1 }) {
                        found(done);
                    }
                }
            }
        });
        if let Some(run) = run {
            found(run);
        }
        damage.extend(outside);
        damage
    }

    /// Where a block of a device lies, blocks of the pool's data; `None` if it was never written.
    ///
    /// # Errors
    /// A node on the way can't be read or believed.
    pub fn lookup(
        &self,
        device: &dyn BlockDevice,
        thin: &ThinDevice,
        block: u64,
    ) -> Result<Option<u64>, ReadError> {
        let mut result = None;
        let end = block.saturating_add(1);
        let mut damage = self.mappings(device, thin, block..end, &mut |run| result = Some(run.data));
        match damage.pop() {
            Some(damage) => Err(damage.error),
            None => Ok(result),
        }
    }

    /// Visits a tree's entries with keys in `range`, in order.
    fn walk(
        &self,
        device: &dyn BlockDevice,
        root: u64,
        value_size: usize,
        range: &Range<u64>,
        visit: &mut dyn FnMut(u64, &[u8]),
    ) -> Vec<ThinDamage> {
        // A healthy tree has each block once, so this many nodes are enough, whatever the pointers say.
        let mut walk = Walk {
            metadata: self,
            device,
            value_size,
            range,
            nodes: self.metadata_blocks,
            damage: Vec::new(),
        };
        walk.node(root, 0..u64::MAX, 0, visit);
        walk.damage
    }
}

struct Walk<'a> {
    metadata: &'a ThinMetadata,
    device: &'a dyn BlockDevice,
    value_size: usize,
    range: &'a Range<u64>,
    nodes: u64,
    damage: Vec<ThinDamage>,
}

impl Walk<'_> {
    fn node(&mut self, block: u64, keys: Range<u64>, depth: u32, visit: &mut dyn FnMut(u64, &[u8])) {
        let node = match self.read(block, &keys, depth) {
            Ok(node) => node,
            Err(error) => {
                let lost = keys.start.max(self.range.start)..keys.end.min(self.range.end);
                match self.damage.last_mut() {
                    // The first error stands for all that follow it at once.
                    Some(last) if last.keys.end == lost.start => last.keys.end = lost.end,
                    _ => self.damage.push(ThinDamage { keys: lost, error }),
                }
                return;
            }
        };
        for (index, &key) in node.keys.iter().enumerate() {
            let next = node.keys.get(index + 1).copied().unwrap_or(keys.end);
            if node.leaf {
                if self.range.contains(&key) {
                    visit(key, node.value(index));
                }
            } else if key < self.range.end && next > self.range.start {
                let child = node.value(index).le64(0).unwrap_or(0);
                self.node(child, key..next, depth + 1, visit);
            }
        }
    }

    fn read(&mut self, number: u64, keys: &Range<u64>, depth: u32) -> Result<Node, ReadError> {
        let blocks = self.metadata.metadata_blocks;
        let name = self.device.info().name.as_str();
        let site =
            Site { device: name, offset: number.saturating_mul(BLOCK), structure: "thin pool B-tree node" };
        site.require(depth < DEPTH_MAX, "depth", depth, format!("less than {DEPTH_MAX}"))?;
        site.require(self.nodes > 0, "nodes", "more than there are blocks", "a tree")?;
        self.nodes -= 1;
        site.require((1..blocks).contains(&number), "block", number, format!("1 to {}", blocks - 1))?;
        let mut block = vec![0; BLOCK as usize];
        self.device.read(number * BLOCK, &mut block)?;
        Ok(Self::verify(block, number, self.value_size, keys, site)?)
    }

    fn verify(
        block: Vec<u8>,
        number: u64,
        value_size: usize,
        keys: &Range<u64>,
        site: Site<'_>,
    ) -> Result<Node, FieldError> {
        let long = |at| block.le32(at).unwrap_or(0);
        let sum = checksum(&block, NODE_XOR);
        site.require(long(0) == sum, "csum", format!("{:#x}", long(0)), format!("{sum:#x}"))?;
        let own = block.le64(8).unwrap_or(0);
        site.require(own == number, "blocknr", own, number)?;
        let leaf = match long(4) {
            1 => false,
            2 => true,
            flags => return Err(site.error("flags", flags, "1 or 2")),
        };
        let (count, most) = (long(16) as usize, long(20) as usize);
        let size = if leaf { value_size } else { 8 };
        site.require(long(24) as usize == size, "value_size", long(24), size)?;
        let room = (BLOCK as usize - NODE_HEADER) / (8 + size);
        site.require(
            count <= most && most <= room,
            "nr_entries",
            count,
            format!("at most {most}, at most {room}"),
        )?;
        let mut list = Vec::with_capacity(count);
        for index in 0..count {
            let key = block.le64(NODE_HEADER + 8 * index).unwrap_or(0);
            let after = list.last().is_none_or(|last| key > *last);
            site.require(
                after && keys.contains(&key),
                "key",
                key,
                format!("more than the last, within {keys:?}"),
            )?;
            list.push(key);
        }
        Ok(Node { leaf, keys: list, values: NODE_HEADER + 8 * most, value_size: size, block })
    }
}
