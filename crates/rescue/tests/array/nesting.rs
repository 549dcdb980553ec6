//! Members that are partitions, and arrays of arrays.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use device::BlockDevice;
use geometry::md::Shape;
use rescue::{Image, chosen, discover, plan, render_scan, scan, volume_name};

use crate::made::{Made, fill, make, random};
use crate::plans::superblock;

const DATA: usize = 65536;

/// A member with its superblock in front, and `uuid` as that of its array.
fn member(made: &Made, slot: usize, shape: Shape, chunk: u64, uuid: u8, sectors: u64) -> Vec<u8> {
    let count = made.members.len() as u16;
    let roles: Vec<u16> = (0..count).collect();
    let mut block = superblock(shape, chunk, count, slot as u16, 50, &roles);
    block[16..32].fill(uuid);
    block[32..40].copy_from_slice(&format!("nas:{uuid:04}").into_bytes()[..8]);
    let (level, _) = shape.codes();
    block[80..88].copy_from_slice(&(if level == 0 { 0 } else { sectors }).to_le_bytes());
    block[136..144].copy_from_slice(&sectors.to_le_bytes());
    block[216..220].fill(0);
    let sum: u64 = block.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let sum = (sum as u32).wrapping_add((sum >> 32) as u32);
    block[216..220].copy_from_slice(&sum.to_le_bytes());
    let mut image = vec![0; DATA];
    image[4096..4608].copy_from_slice(&block);
    image.extend_from_slice(&made.members[slot]);
    image
}

/// A disk with these partitions, from 1 MiB on.
fn partitioned(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    for (number, part) in parts.iter().enumerate() {
        let (start, length) = ((disk.len() / 512) as u32, (part.len() / 512) as u32);
        let entry = &mut disk[446 + 16 * number..462 + 16 * number];
        entry[4] = 0xfd;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&length.to_le_bytes());
        disk.extend_from_slice(part);
    }
    disk[440..444].copy_from_slice(&[1, 2, 3, 4]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    // Behind the last partition there is a little left.
    disk.resize(disk.len() + (1 << 20), 0);
    disk
}

fn open(folder: &tempfile::TempDir, disks: Vec<Vec<u8>>) -> Vec<Image> {
    let write = |(number, bytes): (usize, Vec<u8>)| {
        let path: PathBuf = folder.path().join(format!("disk-{:02x}", (number * 57 + 11) % 256));
        fs::write(&path, bytes).unwrap();
        Image::open(path).unwrap()
    };
    disks.into_iter().enumerate().map(write).collect()
}

fn contents(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; device.size().unwrap() as usize];
    device.read(0, &mut bytes).unwrap();
    bytes
}

/// What boxes with several disks have: each disk with a mirrored and a striped partition.
#[test]
fn members_on_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let (mirror, parity) = (Shape::from_codes(1, 0).unwrap(), Shape::from_codes(5, 2).unwrap());
    let system = make(mirror, 0, &[1 << 20; 4], 1).unwrap();
    let data = make(parity, 16384, &[2 << 20; 4], 2).unwrap();
    let disk = |slot: usize| {
        let system = member(&system, slot, mirror, 0, 1, 2048);
        let data = member(&data, slot, parity, 16384, 2, 4096);
        partitioned(&[system, data])
    };
    // One of them is gone.
    let images = open(&folder, [2, 0, 3].map(disk).into());
    let scan = scan(&images);
    assert_eq!(scan.arrays.len(), 2, "{}", render_scan(&scan));
    assert!(scan.images.iter().all(|image| image.partitions.len() == 2));
    assert!(render_scan(&scan).contains("(partition 2)"));
    let plan = plan(&images, &scan);
    let arrays: Vec<Vec<u8>> =
        chosen(&plan, None).unwrap().iter().map(|candidate| contents(&candidate.open().unwrap())).collect();
    assert_eq!(arrays.len(), 2);
    assert!(arrays.contains(&system.contents) && arrays.contains(&data.contents));
}

/// A RAID 0 of two RAID 1 is found on them.
#[test]
fn an_array_of_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let (stripes, mirror) = (Shape::from_codes(0, 2).unwrap(), Shape::from_codes(1, 0).unwrap());
    let upper = make(stripes, 16384, &[1 << 20; 2], 7).unwrap();
    let mut disks = Vec::new();
    for leg in 0..2 {
        let bytes = member(&upper, leg, stripes, 16384, 9, 2048);
        let size = bytes.len() as u64;
        let mut lower = make(mirror, 0, &[size; 2], 3).unwrap();
        lower.members = fill(&lower.geometry, &bytes, &[size; 2]);
        for slot in 0..2 {
            disks.push(member(&lower, slot, mirror, 0, leg as u8 + 1, size / 512));
        }
    }
    disks.remove(2);
    let images = open(&folder, disks);
    let plan = plan(&images, &scan(&images));
    let mut arrays: Vec<(String, Arc<dyn BlockDevice>)> = Vec::new();
    for candidate in chosen(&plan, None).unwrap() {
        arrays.push((volume_name(&candidate.array, &[]), Arc::new(candidate.open().unwrap())));
    }
    assert_eq!(arrays.len(), 2);
    let volumes = discover(&arrays);
    let nested = volumes.iter().find(|volume| volume.kind == "nested array").expect("it is there");
    assert!(contents(&**nested.device.as_ref().unwrap()) == upper.contents);
    // With one leg gone it is told, and is no device.
    let volumes = discover(&arrays[..1]);
    let nested = volumes.iter().find(|volume| volume.kind == "nested array").expect("it is there");
    assert!(nested.device.is_none() && nested.state == rescue::VolumeState::Damaged, "{nested:?}");
}

/// A disk by itself is taken for itself, with the file system's own claim about its size.
#[test]
fn a_disk_without_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = random(5, 4 << 20);
    // A swap area of 4 MiB.
    disk[1024..1032].copy_from_slice(&[1, 0, 0, 0, 255, 3, 0, 0]);
    disk[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let images = open(&folder, vec![disk.clone()]);
    let found = plan(&images, &scan(&images));
    assert_eq!(found.candidates.len(), 1);
    assert!(contents(&found.candidates[0].open().unwrap()) == disk);
    // Of one that is half as long as it says nothing can be made.
    let images = open(&folder, vec![disk[..2 << 20].to_vec()]);
    assert!(plan(&images, &scan(&images)).candidates.is_empty());
}
