//! Partition tables that sfdisk, sgdisk and fdisk wrote, whole and damaged.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

use common::{bytes, flipped, image, truncated, zeroed};
use device::{BlockDevice, MemoryDevice};
use formats::{PartitionTable, partitions};

fn table(device: &MemoryDevice) -> PartitionTable {
    partitions(device).unwrap().expect("there is a table")
}

/// Number, start and size in units of `sector`, type.
fn list(table: &PartitionTable) -> Vec<(u32, u64, u64, &str)> {
    let list = table.partitions.iter();
    list.map(|one| (one.number, one.start / table.sector, one.size / table.sector, one.kind.as_str()))
        .collect()
}

const RAID: &str = "a19d880f-05fc-4d3b-a006-743f0f84911e";
const LVM: &str = "e6d6d379-f507-44c2-a23c-238f2a3df928";
const LINUX: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

#[test]
fn gpt() {
    let table = table(&image("gpt512"));
    assert_eq!(list(&table), [(1, 2048, 2048, RAID), (2, 4096, 4096, LVM), (5, 8192, 8159, LINUX)]);
    let names: Vec<&str> = table.partitions.iter().filter_map(|one| one.name.as_deref()).collect();
    assert_eq!(names, ["raid member", "pv", "\u{fc}brig"]);
    assert_eq!(table.partitions[0].id.as_deref(), Some("aaaaaaaa-0000-0000-0000-000000000001"));
    assert_eq!(table.id.as_deref(), Some("11111111-2222-3333-4444-555555555555"));
    assert_eq!((table.kind, table.sector, table.needed, table.backup), ("gpt", 512, 8 << 20, false));
    assert_eq!(table.problems, Vec::<String>::new());
}

#[test]
fn gpt_with_large_blocks() {
    let table = table(&image("gpt4096"));
    let list: Vec<(u64, u64)> = list(&table).iter().map(|(_, start, size, _)| (*start, *size)).collect();
    assert_eq!(list, [(256, 256), (512, 989)]);
    assert_eq!((table.sector, table.problems.len()), (4096, 0));
}

#[test]
fn either_copy_of_a_gpt_is_enough() {
    for (name, block) in [("gpt512", 512), ("gpt4096", 4096)] {
        let device = image(name);
        let whole = table(&device);
        let headless = table(&zeroed(&device, 0, 6 * block));
        assert!(headless.backup);
        assert_eq!(headless.partitions, whole.partitions);
        assert_eq!(headless.problems, ["its first copy is not there"]);
        assert_eq!((headless.needed, headless.id.clone()), (whole.needed, whole.id.clone()));
        let end = device.size().unwrap();
        let tailless = table(&zeroed(&device, end - 40 * block as u64, 40 * block));
        assert!(!tailless.backup);
        assert_eq!(tailless.partitions, whole.partitions);
        assert_eq!(tailless.problems, ["its backup copy is not there"]);
        // Every byte of the first header: what is found is the same, and that something is wrong is said.
        for at in 0..92 {
            let damaged = table(&flipped(&device, block as u64 + at, 0x20));
            assert_eq!(damaged.partitions, whole.partitions, "byte {at}");
            assert!(!damaged.problems.is_empty(), "byte {at}");
        }
        let entries = table(&flipped(&device, 2 * block as u64 + 40, 1));
        assert_eq!(entries.partitions, whole.partitions);
        assert!(entries.backup);
        assert!(entries.problems[0].contains("entries CRC is 0x"), "{:?}", entries.problems);
    }
}

#[test]
fn one_damaged_copy_alone_is_used_if_one_of_its_checksums_is_right() {
    let device = image("gpt512");
    let whole = table(&device);
    let alone = zeroed(&device, (8 << 20) - 512, 512);
    let header = table(&flipped(&alone, 512 + 20, 1));
    assert_eq!(header.partitions, whole.partitions);
    assert!(header.problems[0].contains("header CRC is"), "{:?}", header.problems);
    let entries = table(&flipped(&alone, 1024 + 128 * 4 + 33, 1));
    assert_eq!(entries.partitions[2].start, 8192 * 512 + 256 * 512);
    assert!(entries.problems[0].contains("entries CRC is"), "{:?}", entries.problems);
    let neither = table(&flipped(&flipped(&alone, 512 + 20, 1), 1024, 1));
    assert!(neither.partitions.is_empty() && neither.problems.len() == 2, "{neither:?}");
}

#[test]
fn a_cut_or_grown_device() {
    let device = image("gpt512");
    let cut = table(&truncated(&device, 6 << 20));
    assert_eq!(cut.needed, 8 << 20);
    assert_eq!(cut.partitions[2].missing, 8159 * 512 - (2 << 20));
    assert_eq!(cut.partitions[2].size, 2 << 20);
    assert!(cut.problems.iter().any(|text| text.contains("it was cut off")), "{:?}", cut.problems);
    let cut = table(&truncated(&device, 3 << 20));
    assert_eq!(cut.partitions.len(), 2);
    assert!(
        cut.problems.iter().any(|text| text.contains("partition 5 begins at byte")),
        "{:?}",
        cut.problems
    );
    let grown = device.snapshot("grown");
    grown.set_size(16 << 20);
    let grown = table(&grown);
    assert_eq!(grown.problems, ["its backup copy is at block 16383, not at the device's end"]);
    assert_eq!(grown.partitions, table(&device).partitions);
}

#[test]
fn copies_that_differ() {
    let device = image("gpt512");
    let other = device.snapshot("other");
    // A backup that is right in itself, of another time.
    let at = (8 << 20) - 512_usize;
    let mut header = bytes(&device, at as u64, 512);
    header[56] ^= 1;
    header[16..20].fill(0);
    let sum = crc32(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    other.write(at as u64, &header).unwrap();
    let table = table(&other);
    assert_eq!(table.problems, ["its two copies differ; the first one is used"]);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn mbr() {
    let device = image("mbr");
    let whole = table(&device);
    let wanted = [
        (1, 63, 1000, "0xfd"),
        (3, 12288, 2000, "0x8e"),
        (5, 2100, 1000, "0x83"),
        (6, 3200, 2000, "0x83"),
        (7, 5300, 500, "0x82"),
    ];
    assert_eq!(list(&whole), wanted);
    assert_eq!((whole.id.as_deref(), whole.problems.len()), (Some("cafe1234"), 0));
    // The second link of the chain is gone.
    let links: Vec<u64> =
        (2049..16000).filter(|at| bytes(&device, at * 512 + 510, 2) == [0x55, 0xaa]).collect();
    assert_eq!(links.len(), 2, "the first is at 2048");
    let broken = table(&zeroed(&device, links[0] * 512, 512));
    assert_eq!(broken.partitions.len(), 3);
    assert!(broken.problems[0].contains("extended boot record at offset"), "{:?}", broken.problems);
    // It leads back to itself.
    let circle = device.snapshot("circle");
    circle.write(links[0] * 512 + 446 + 16 + 8, &1_u32.to_le_bytes()).unwrap();
    let circle = table(&circle);
    assert!(circle.problems.iter().any(|text| text.contains("turns back")), "{:?}", circle.problems);
    let cut = table(&truncated(&device, 12_800 * 512));
    assert_eq!(cut.partitions[1].missing, (12_288 + 2000 - 12_800) * 512);
}

#[test]
fn file_systems_are_no_tables() {
    for name in ["ntfs", "fat12", "fat16", "fat32", "exfat", "ext4", "swap"] {
        assert_eq!(partitions(&image(name)).unwrap(), None, "{name}");
    }
}

#[test]
fn disklabel_in_a_partition() {
    let device = image("bsd");
    let outer = table(&device);
    assert_eq!(list(&outer), [(1, 2048, 12288, "0xa5")]);
    let slice = MemoryDevice::from_bytes("slice", &bytes(&device, 1 << 20, 6 << 20));
    let inner = table(&slice);
    assert_eq!((inner.kind, inner.offset), ("bsd-disklabel", 512));
    let list: Vec<(&str, u64, u64)> =
        inner.partitions.iter().map(|one| (one.name.as_deref().unwrap(), one.start, one.size)).collect();
    // The label counts from the disk's beginning, and `c` and `d` are over all of the slice and the disk.
    assert_eq!(list, [("a", 16 * 512, (2 << 20) + 512), ("b", 6144 * 512, 6144 * 512)]);
    assert_eq!(inner.problems, Vec::<String>::new());
    let damaged = table(&flipped(&slice, 512 + 148 + 13, 1));
    assert!(damaged.problems.iter().any(|text| text.contains("checksum")), "{:?}", damaged.problems);
}

#[test]
fn nothing_makes_it_panic() {
    for name in ["gpt512", "gpt4096", "mbr", "bsd"] {
        let device = image(name);
        let slice = MemoryDevice::from_bytes("slice", &bytes(&device, 1 << 20, 64 << 10));
        for at in 0..1024 {
            for mask in [0xff, 0x80, 1] {
                let _ = partitions(&flipped(&device, at, mask));
                let _ = partitions(&flipped(&device, (8 << 20) - 1024 + at, mask));
                let _ = partitions(&flipped(&slice, at, mask));
            }
        }
        for size in (0..40_000).step_by(333) {
            let _ = partitions(&truncated(&device, size));
        }
    }
}
