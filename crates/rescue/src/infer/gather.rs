//! Finds blocks on members that know which address of the file system they belong to.
//!
//! A first pass over every member looks for superblocks, which say how the file system is made; a second one for all that
//! fits with one of them. Only parts of large members are read.

use std::ops::Range;

use device::BlockDevice;

use crate::Image;
use crate::content::btrfs::{Btrfs, SECTOR};
use crate::content::ext::{Descriptor, Ext};
use crate::content::ntfs::Ntfs;
use crate::content::xfs::Xfs;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;
/// All of this much from the beginning is read, bytes.
const HEAD: u64 = 1 << 30;
/// Further pieces, at even distances.
const SAMPLES: u64 = 256;
/// Witnesses of one member that are enough.
const WITNESSES_ENOUGH: usize = 4096;
/// Folders that are remembered.
const FOLDERS_MAX: usize = 65536;
/// File systems that are told apart.
const SYSTEMS_MAX: usize = 16;
/// Groups of ext4 whose descriptors are looked for.
const GROUPS_MAX: u64 = 4096;
/// Torn leaves whose parts are put together, and as many parts.
const TORN_MAX: usize = 64;
/// Structures begin at multiples of this, bytes.
const STEP: usize = 512;

/// A block that knows its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Witness {
    /// The image it is on.
    pub(super) image: usize,
    /// Where on it, bytes.
    pub(super) at: u64,
    /// Where in the file system, bytes.
    pub(super) address: u64,
}

/// A file system that members speak of.
#[derive(Clone, Debug)]
pub(super) enum System {
    Ext(Ext),
    Xfs(Xfs),
    Btrfs(Box<Btrfs>),
    Ntfs(Ntfs),
}

impl System {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ext(one), Self::Ext(other)) => one.uuid == other.uuid && one.block == other.block,
            (Self::Xfs(one), Self::Xfs(other)) => one.uuid == other.uuid,
            (Self::Btrfs(one), Self::Btrfs(other)) => one.uuid == other.uuid,
            (Self::Ntfs(one), Self::Ntfs(other)) => one.serial == other.serial,
            _ => false,
        }
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Ext(ext) => ext.blocks.saturating_mul(ext.block),
            Self::Xfs(xfs) => xfs.size(),
            Self::Btrfs(btrfs) => btrfs.size,
            Self::Ntfs(ntfs) => ntfs.size,
        }
    }

    /// Chunk and data members that it was told when it was made.
    pub(super) fn hint(&self) -> Option<(u64, u64)> {
        match self {
            Self::Ext(ext) => ext.hint,
            Self::Xfs(xfs) => xfs.hint,
            Self::Btrfs(_) | Self::Ntfs(_) => None,
        }
    }
}

/// The parts of a member that are read.
fn parts(size: u64) -> impl Iterator<Item = Range<u64>> {
    let head = size.min(HEAD);
    let rest = (size - head) / PIECE;
    let step = (rest / SAMPLES).max(1);
    let from_head = (0..head.div_ceil(PIECE)).map(|piece| piece * PIECE);
    let further = (0..rest).step_by(step as usize).map(move |piece| head + piece * PIECE);
    from_head.chain(further).map(move |start| start..(start + PIECE).min(size))
}

/// Reads what can be read of a part; what can't is zeros, in which nothing is found.
pub(super) fn read(device: &dyn BlockDevice, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    for lost in crate::read_around_losses(device, range.start, &mut bytes) {
        bytes[(lost.start - range.start) as usize..(lost.end - range.start) as usize].fill(0);
    }
    bytes
}

/// What is found of one file system.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    pub(super) system: System,
    pub(super) witnesses: Vec<Witness>,
}

/// The file systems on the images with their witnesses, the one with most witnesses first.
pub(super) fn gather(images: &[&Image]) -> Vec<Gathered> {
    let mut systems: Vec<(System, Vec<(usize, u64)>)> = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let size = image.device.size().unwrap_or(0);
        for part in parts(size) {
            let bytes = read(&*image.device, &part);
            for at in (0..bytes.len().saturating_sub(1023)).step_by(STEP) {
                let found = Xfs::parse(&bytes[at..at + 512])
                    .map(System::Xfs)
                    .or_else(|| Ext::parse(&bytes[at..at + 1024]).map(System::Ext))
                    .or_else(|| Ntfs::parse(&bytes[at..at + 512]).map(System::Ntfs))
                    .or_else(|| Btrfs::parse(&bytes[at..]).map(|found| System::Btrfs(Box::new(found))));
                let Some(found) = found else { continue };
                let place = (number, part.start + at as u64);
                if let Some((_, places)) = systems.iter_mut().find(|(system, _)| system.is(&found)) {
                    places.push(place);
                } else if systems.len() < SYSTEMS_MAX {
                    systems.push((found, vec![place]));
                }
            }
        }
    }
    let witnesses = |(system, places): (System, Vec<(usize, u64)>)| {
        let mut witnesses = match &system {
            System::Ext(ext) => of_ext(images, ext, &places),
            System::Xfs(xfs) => of_xfs(images, xfs),
            System::Btrfs(btrfs) => of_btrfs(images, btrfs, &places),
            System::Ntfs(ntfs) => of_ntfs(images, ntfs, &places),
        };
        witnesses.sort_unstable();
        witnesses.dedup();
        Gathered { system, witnesses }
    };
    let mut gathered: Vec<Gathered> = systems.into_iter().map(witnesses).collect();
    gathered.sort_by_key(|gathered| std::cmp::Reverse(gathered.witnesses.len()));
    gathered
}

fn of_btrfs(images: &[&Image], btrfs: &Btrfs, places: &[(usize, u64)]) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    for &(image, at) in places {
        let block = crate::content::read(&*images[image].device, at, 4096);
        let copy = block.and_then(|block| Btrfs::parse(&block));
        witnesses.extend(copy.map(|copy| Witness { image, at, address: copy.at }));
    }
    // Nodes know their logical address; the newest leaves of one tree say where that is.
    let mut nodes: Vec<(usize, u64, u64)> = Vec::new();
    let mut chunks: std::collections::BTreeMap<u64, (u64, (u64, Vec<u64>))> =
        std::collections::BTreeMap::new();
    let mut learn = |node: &[u8], generation: u64| {
        for (logical, found) in btrfs.chunks_in(node) {
            if chunks.get(&logical).is_none_or(|(known, _)| *known < generation) {
                chunks.insert(logical, (generation, found));
            }
        }
    };
    // With chunks smaller than nodes their ends are elsewhere.
    let mut fronts: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut ends: Vec<Vec<u8>> = Vec::new();
    for (image, opened) in images.iter().enumerate() {
        let before = nodes.len();
        for part in parts(opened.device.size().unwrap_or(0)) {
            let bytes = read(&*opened.device, &part);
            for at in (0..bytes.len()).step_by(STEP) {
                let step =
                    bytes.get(at..at + STEP).filter(|step| ends.len() < TORN_MAX && btrfs.ends_front(step));
                let end = step.and_then(|_| (part.start + (at + STEP) as u64).checked_sub(SECTOR as u64));
                ends.extend(end.and_then(|start| crate::content::read(&*opened.device, start, SECTOR)));
                let Some((logical, generation)) = btrfs.node_in(&bytes[at..]) else { continue };
                nodes.push((image, part.start + at as u64, logical));
                // A node may go on in the next piece.
                let node = crate::content::read(&*opened.device, part.start + at as u64, btrfs.node_size());
                node.into_iter().for_each(|node| learn(&node, generation));
                let front = btrfs.front_in(&bytes[at..]).filter(|_| fronts.len() < TORN_MAX);
                fronts.extend(front.map(|front| (generation, front.to_vec())));
            }
            if nodes.len() - before > WITNESSES_ENOUGH {
                break;
            }
        }
    }
    for (generation, front) in &fronts {
        ends.iter().filter_map(|end| btrfs.joined(front, end)).for_each(|node| learn(&node, *generation));
    }
    let mut whole = btrfs.clone();
    chunks.into_iter().for_each(|(logical, (_, found))| whole.learn(logical, found));
    // Which of its copies a node is nobody knows: each is a witness.
    witnesses.extend(nodes.into_iter().flat_map(|(image, at, logical)| {
        whole.places(logical).into_iter().map(move |address| Witness { image, at, address })
    }));
    witnesses
}

fn of_ntfs(images: &[&Image], ntfs: &Ntfs, places: &[(usize, u64)]) -> Vec<Witness> {
    // The boot sector is there at the beginning and behind the end.
    let boots = places.iter().flat_map(|&(image, at)| {
        [0, ntfs.size].into_iter().map(move |address| Witness { image, at, address })
    });
    let mut witnesses: Vec<Witness> = boots.collect();
    let mut whole = ntfs.clone();
    let mut known = false;
    let mut records: Vec<(usize, u64, u32)> = Vec::new();
    for (image, opened) in images.iter().enumerate() {
        let before = records.len();
        for part in parts(opened.device.size().unwrap_or(0)) {
            let bytes = read(&*opened.device, &part);
            for at in (0..bytes.len()).step_by(STEP) {
                let Some(number) = ntfs.number_in(&bytes[at..]) else { continue };
                records.push((image, part.start + at as u64, number));
                known = known || number == 0 && whole.learn(&bytes[at..]);
            }
            if records.len() - before > WITNESSES_ENOUGH {
                break;
            }
        }
    }
    let found = records.into_iter().filter_map(|(image, at, number)| {
        whole.record_at(number).map(|address| Witness { image, at, address })
    });
    witnesses.extend(found.filter(|_| known));
    witnesses
}

fn of_xfs(images: &[&Image], xfs: &Xfs) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    for (image, opened) in images.iter().enumerate().filter(|_| xfs.sums) {
        let size = opened.device.size().unwrap_or(0);
        let before = witnesses.len();
        for part in parts(size) {
            let bytes = read(&*opened.device, &part);
            for at in (0..bytes.len()).step_by(STEP) {
                let rest = &bytes[at..];
                let found = xfs
                    .header_address(rest)
                    .or_else(|| xfs.inode_address(rest))
                    .or_else(|| xfs.block_address(rest));
                witnesses.extend(found.map(|address| Witness { image, at: part.start + at as u64, address }));
            }
            if witnesses.len() - before > WITNESSES_ENOUGH {
                break;
            }
        }
    }
    witnesses
}

/// Looks for blocks of group descriptors that lie in other chunks than the superblocks before them. Several descriptors in a row
/// with right checksums are no chance.
fn find_descriptors(
    images: &[&Image],
    ext: &Ext,
    descriptors: &mut std::collections::BTreeMap<u64, Descriptor>,
) {
    const IN_A_ROW: u64 = 3;
    let each = ext.descriptor_size();
    let count = ext.groups().min(GROUPS_MAX);
    let per_block = (ext.block / each as u64).max(1);
    for opened in images {
        for part in parts(opened.device.size().unwrap_or(0)) {
            let bytes = read(&*opened.device, &part);
            for block in bytes.chunks_exact(ext.block as usize) {
                let of = |base: u64, index: u64| {
                    ext.descriptor_in(base + index, block.get(index as usize * each..)?.get(..each)?)
                };
                for base in (0..count).step_by(per_block as usize) {
                    let least = IN_A_ROW.min(count - base);
                    if least < 2 || (0..least).any(|index| of(base, index).is_none()) {
                        continue;
                    }
                    for index in 0..per_block.min(count - base) {
                        let Some(found) = of(base, index) else { break };
                        descriptors.entry(base + index).or_insert(found);
                    }
                }
            }
        }
    }
}

fn of_ext(images: &[&Image], ext: &Ext, places: &[(usize, u64)]) -> Vec<Witness> {
    let mut witnesses = Vec::new();
    let mut descriptors: std::collections::BTreeMap<u64, Descriptor> = std::collections::BTreeMap::new();
    for &(image, at) in places {
        let device = &images[image].device;
        let mut bytes = [0; 1024];
        let copy = device.read(at, &mut bytes).ok().and_then(|()| Ext::parse(&bytes));
        let Some(copy) = copy else { continue };
        let group = u64::from(copy.group);
        if group > 0 && !ext.copies().contains(&group) {
            continue;
        }
        witnesses.push(Witness { image, at, address: ext.copy_at(group) });
        // As much of the descriptors as follows in the same chunk.
        let Some(table) = ext.descriptors_at(group) else { continue };
        let Some(start) = (at + table).checked_sub(ext.copy_at(group)) else { continue };
        let each = ext.descriptor_size();
        for number in 0..ext.groups().min(GROUPS_MAX) {
            let here = number * each as u64;
            let mut bytes = vec![0; each];
            let known = device.read(start + here, &mut bytes).ok();
            let found = known.and_then(|()| ext.descriptor_in(number, &bytes));
            let Some(descriptor) = found else { break };
            witnesses.push(Witness { image, at: start + here, address: table + here });
            descriptors.entry(number).or_insert(descriptor);
        }
    }
    if (descriptors.len() as u64) < ext.groups().min(GROUPS_MAX) {
        find_descriptors(images, ext, &mut descriptors);
    }
    // What the bitmaps' bytes must sum up to.
    let mut bitmaps: std::collections::HashMap<u32, (u64, u64)> = std::collections::HashMap::new();
    for descriptor in descriptors.values().filter(|_| ext.descriptor_size() >= 64) {
        let inodes = u64::from(ext.inodes_per_group);
        let mut learn = |unused: u16, sum: u32, bits: u64, block: u64| {
            if descriptor.flags & unused == 0 {
                // Bitmaps of the same bits can't be told apart.
                bitmaps.entry(sum).and_modify(|known| known.0 = 0).or_insert((bits, block * ext.block));
            }
        };
        learn(
            Descriptor::BLOCKS_UNUSED,
            descriptor.block_sum,
            ext.blocks_per_group(),
            descriptor.block_bitmap,
        );
        learn(Descriptor::INODES_UNUSED, descriptor.inode_sum, inodes, descriptor.inode_bitmap);
    }
    let table = |group: u64| descriptors.get(&group).map(|descriptor| descriptor.inode_table);
    // Folders know their inode's number, and the inodes know where the folders are.
    let mut folders: Vec<(usize, u64, u32)> = Vec::new();
    let mut starts: std::collections::HashMap<u32, (u64, [u8; 4])> = std::collections::HashMap::new();
    for (image, opened) in images.iter().enumerate() {
        let size = opened.device.size().unwrap_or(0);
        let before = witnesses.len();
        for part in parts(size) {
            let bytes = read(&*opened.device, &part);
            for at in (0..bytes.len()).step_by(ext.inode_size.min(STEP)) {
                let place = part.start + at as u64;
                let inode = bytes.get(at..at + ext.inode_size);
                if let Some((number, inode)) = inode.and_then(|inode| Some((ext.inode_number(inode)?, inode)))
                {
                    let address = ext.inode_at(number, table);
                    witnesses.extend(address.map(|address| Witness { image, at: place, address }));
                    let generation = [inode[0x64], inode[0x65], inode[0x66], inode[0x67]];
                    starts.extend(ext.folder_start(inode).map(|start| (number, (start, generation))));
                }
                if !at.is_multiple_of(1024) {
                    continue;
                }
                let folder = bytes.get(at..at + 24).and_then(|block| ext.folder_number(block));
                folders.extend(
                    folder.filter(|_| folders.len() < FOLDERS_MAX).map(|number| (image, place, number)),
                );
                for bits in [ext.blocks_per_group(), u64::from(ext.inodes_per_group)] {
                    let covered = bytes.get(at..at + (bits / 8) as usize);
                    let Some(covered) = covered.filter(|covered| covered[0] != 0) else { continue };
                    let known = ext.sum_of(covered).and_then(|sum| bitmaps.get(&sum));
                    let fits = known.filter(|(own, _)| *own == bits);
                    witnesses.extend(fits.map(|&(_, address)| Witness { image, at: place, address }));
                }
            }
            if witnesses.len() - before > WITNESSES_ENOUGH {
                break;
            }
        }
    }
    let found = folders.into_iter().filter_map(|(image, at, number)| {
        let (address, generation) = *starts.get(&number)?;
        let mut block = vec![0; ext.block as usize];
        let read = images[image].device.read(at, &mut block).is_ok();
        (read && ext.folder_fits(number, generation, &block)).then_some(Witness { image, at, address })
    });
    witnesses.extend(found);
    witnesses
}
