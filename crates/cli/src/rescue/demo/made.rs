//! The demo's array: a FAT file system in a partition, over five members as the kernel would have left them.

use std::fs;
use std::path::{Path, PathBuf};

use geometry::md::{Geometry, Holds, MdError, Rotation5, Shape, Spot};

/// Members of the array.
pub(super) const MEMBERS: u16 = 5;
/// Chunk, bytes.
const CHUNK: u64 = 64 << 10;
/// Data of each member, bytes.
const DATA: u64 = 4 << 20;
/// Where it begins, bytes.
const DATA_OFFSET: u64 = 1 << 20;
/// Where the partition begins, bytes.
const PARTITION: usize = 1 << 20;
/// Bytes of a cluster.
const CLUSTER: usize = 2048;

/// What is in the array's files.
pub(super) const FILES: [(&str, &str); 3] = [
    ("README  TXT", "This file was on an array that did not start any more.\n"),
    ("LETTERS TXT", "Dear reader, backups come first; but when there are none, read on.\n"),
    ("PHOTO   DAT", ""),
];

/// The contents of the file with this number.
pub(super) fn contents(number: usize) -> Vec<u8> {
    match FILES.get(number) {
        Some((_, "")) => {
            (0..3_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
        }
        Some((_, text)) => text.as_bytes().to_vec(),
        None => Vec::new(),
    }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// The array's bytes: an MBR with one partition, and a FAT16 file system in it.
fn array(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let sectors = ((size - PARTITION) / 512) as u32;
    put(&mut bytes, 446 + 4, &[0x06]);
    put(&mut bytes, 446 + 8, &((PARTITION / 512) as u32).to_le_bytes());
    put(&mut bytes, 446 + 12, &sectors.to_le_bytes());
    put(&mut bytes, 510, &[0x55, 0xaa]);
    let part = &mut bytes[PARTITION..];
    let (reserved, fats, roots) = (1_usize, 2_usize, 512_usize);
    let clusters = part.len() / CLUSTER;
    let fat_sectors = (clusters * 2).div_ceil(512);
    put(part, 0, &[0xeb, 0x3c, 0x90]);
    put(part, 3, b"COFFER  ");
    put(part, 11, &512_u16.to_le_bytes());
    put(part, 13, &[(CLUSTER / 512) as u8]);
    put(part, 14, &(reserved as u16).to_le_bytes());
    put(part, 16, &[fats as u8]);
    put(part, 17, &(roots as u16).to_le_bytes());
    put(part, 19, &(sectors as u16).to_le_bytes());
    put(part, 21, &[0xf8]);
    put(part, 22, &(fat_sectors as u16).to_le_bytes());
    put(part, 24, &[32, 0, 64, 0]);
    put(part, 36, &[0x80, 0, 0x29, 1, 2, 3, 4]);
    put(part, 43, b"HOLIDAYS   FAT16   ");
    put(part, 510, &[0x55, 0xaa]);
    let root = (reserved + fats * fat_sectors) * 512;
    let first_cluster = root + roots * 32;
    let mut next = 2_usize;
    let mut fat = vec![0; fat_sectors * 512];
    put(&mut fat, 0, &[0xf8, 0xff, 0xff, 0xff]);
    for (number, (name, _)) in FILES.iter().enumerate() {
        let contents = contents(number);
        let count = contents.len().div_ceil(CLUSTER);
        put(part, first_cluster + (next - 2) * CLUSTER, &contents);
        for cluster in next..next + count {
            let link = if cluster + 1 == next + count { 0xffff } else { cluster as u16 + 1 };
            put(&mut fat, cluster * 2, &link.to_le_bytes());
        }
        let entry = root + number * 32;
        put(part, entry, name.as_bytes());
        put(part, entry + 11, &[0x20]);
        put(part, entry + 26, &(next as u16).to_le_bytes());
        put(part, entry + 28, &(contents.len() as u32).to_le_bytes());
        next += count;
    }
    for copy in 0..fats {
        put(part, (reserved + copy * fat_sectors) * 512, &fat);
    }
    bytes
}

/// A superblock of version 1.2.
fn superblock(slot: u16, events: u64, updated: u64, roles: &[u16]) -> [u8; 512] {
    let mut block = [0; 512];
    put(&mut block, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut block, 4, &1_u32.to_le_bytes());
    put(&mut block, 16, b"coffer rescue :)");
    put(&mut block, 32, b"nas:holidays");
    put(&mut block, 64, &1_700_000_000_u64.to_le_bytes());
    put(&mut block, 72, &5_u32.to_le_bytes());
    put(&mut block, 76, &2_u32.to_le_bytes());
    put(&mut block, 80, &(DATA / 512).to_le_bytes());
    put(&mut block, 88, &((CHUNK / 512) as u32).to_le_bytes());
    put(&mut block, 92, &u32::from(MEMBERS).to_le_bytes());
    put(&mut block, 128, &(DATA_OFFSET / 512).to_le_bytes());
    put(&mut block, 136, &(DATA / 512).to_le_bytes());
    put(&mut block, 144, &8_u64.to_le_bytes());
    put(&mut block, 160, &u32::from(slot).to_le_bytes());
    put(&mut block, 168, &[slot as u8 + 1; 16]);
    put(&mut block, 192, &updated.to_le_bytes());
    put(&mut block, 200, &events.to_le_bytes());
    put(&mut block, 208, &u64::MAX.to_le_bytes());
    put(&mut block, 220, &128_u32.to_le_bytes());
    for number in 0..128 {
        put(&mut block, 256 + 2 * number, &roles.get(number).copied().unwrap_or(0xffff).to_le_bytes());
    }
    let words =
        block.chunks_exact(4).map(|word| u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])));
    let sum: u64 = words.sum();
    put(&mut block, 216, &(sum as u32).wrapping_add((sum >> 32) as u32).to_le_bytes());
    block
}

/// What was made.
pub(super) struct Made {
    /// The members' files.
    pub(super) members: Vec<PathBuf>,
    /// The partition's bytes.
    pub(super) partition: Vec<u8>,
}

/// Makes the members in `folder`, under names that say nothing about their places. Slot 4 dropped out first and is old;
/// slot 2 dropped out last; slot 0 has bad sectors.
pub(super) fn make(folder: &Path) -> Result<Made, Box<dyn std::error::Error>> {
    const FAULTY: u16 = 0xfffe;
    let sizes = [DATA; MEMBERS as usize];
    let geometry = Geometry::new(Shape::Raid5(Rotation5::LeftSymmetric), CHUNK, &sizes)?;
    let new = array(geometry.size() as usize);
    // When the first member dropped out, nothing was in the files yet.
    let mut old = new.clone();
    old[PARTITION + (512 << 10)..].fill(0);
    let states: [(u64, u64, [u16; 5], &[u8]); 5] = [
        (142, 1_700_900_000, [0, 1, FAULTY, 3, FAULTY], &new),
        (142, 1_700_900_000, [0, 1, FAULTY, 3, FAULTY], &new),
        (139, 1_700_890_000, [0, 1, 2, 3, FAULTY], &new),
        (142, 1_700_900_000, [0, 1, FAULTY, 3, FAULTY], &new),
        (96, 1_700_500_000, [0, 1, 2, 3, 4], &old),
    ];
    let names = ["disk-c.img", "disk-a.img", "disk-e.img", "disk-b.img", "disk-d.img"];
    let mut members = Vec::new();
    for (slot, ((events, updated, roles, bytes), name)) in (0..).zip(states.into_iter().zip(names)) {
        let mut image = vec![0; (DATA_OFFSET + DATA) as usize];
        put(&mut image, 4096, &superblock(slot, events, updated, &roles));
        fill(&geometry, slot, bytes, &mut image[DATA_OFFSET as usize..])?;
        let path = folder.join(name);
        fs::write(&path, image)?;
        members.push(path);
    }
    // Two sectors in a part that no file uses.
    let bad = DATA_OFFSET + DATA - (100 << 10);
    let map = device::BadMap::from_bad_ranges(std::iter::once(bad..bad + 1024));
    fs::write(folder.join("disk-c.img.map"), map.print(DATA_OFFSET + DATA))?;
    members.sort();
    Ok(Made { members, partition: new[PARTITION..].to_vec() })
}

/// The data of one member.
fn fill(geometry: &Geometry, member: u16, array: &[u8], data: &mut [u8]) -> Result<(), MdError> {
    for (index, chunk) in data.chunks_mut(CHUNK as usize).enumerate() {
        let offset = index as u64 * CHUNK;
        match geometry.holds(Spot { member, offset }) {
            Holds::Data(address) => chunk.copy_from_slice(&array[address as usize..][..CHUNK as usize]),
            Holds::P(stripe) => {
                let width = CHUNK * u64::from(MEMBERS - 1);
                let row = &array[(stripe * width) as usize..][..width as usize];
                for column in row.chunks_exact(CHUNK as usize) {
                    chunk.iter_mut().zip(column).for_each(|(sum, byte)| *sum ^= byte);
                }
            }
            Holds::Q(_) | Holds::Nothing => {}
        }
    }
    Ok(())
}
