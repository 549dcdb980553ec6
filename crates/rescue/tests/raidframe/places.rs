//! Components on partitions, and sets of sets.

use std::fs;
use std::sync::Arc;

use device::BlockDevice;
use raidset::layout::Level;
use rescue::{VolumeState, chosen, discover, volume_name};

use crate::made::{Component, RESERVED, component_size, ext4, files, make, open, read};
use crate::{LENGTH, is_right, planned, scanned};

/// What file systems a disklabel calls RAID.
const FS_RAID: u8 = 19;

/// A disklabel of these partitions (first sector, sectors, type), in the byte order of a machine.
fn disklabel(partitions: &[(u32, u32, u8)], big: bool) -> Vec<u8> {
    let mut label = vec![0; 148 + 16 * partitions.len()];
    let four = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut put = |at: usize, bytes: &[u8]| label[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &four(0x8256_4557));
    put(132, &four(0x8256_4557));
    put(40, &four(512));
    let count = partitions.len() as u16;
    put(138, &if big { count.to_be_bytes() } else { count.to_le_bytes() });
    for (number, (first, sectors, kind)) in partitions.iter().enumerate() {
        put(148 + 16 * number, &four(*sectors));
        put(152 + 16 * number, &four(*first));
        put(160 + 16 * number, &[*kind]);
    }
    let sum = label.chunks(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]]));
    label[136..138].copy_from_slice(&sum.to_le_bytes());
    label
}

/// Disks with a disklabel whose `e` is a component, also in a slice of an MBR and with one in front, where the boot loader is.
#[test]
fn components_are_partitions_of_a_disklabel() {
    let (Some(data), Some(system)) = (ext4(20, LENGTH), ext4(21, LENGTH)) else { return };
    let size = component_size(&Level::Raid5, 3, data.len());
    let boot = component_size(&Level::Raid1, 2, system.len());
    // Where the slice begins, and where the disk counts from.
    for (slice, big) in [(0, false), (0, true), (2048 * 512, false)] {
        let folder = tempfile::tempdir().unwrap();
        let first = slice + boot.next_multiple_of(1 << 20);
        let all = first + size + (1 << 20);
        let disks = files(folder.path(), "disk", 3, all);
        let sectors = |bytes: u64| (bytes / 512) as u32;
        // `c` is the slice, `d` the disk; `a` begins where the slice does, `e` follows.
        let partitions = [
            (sectors(slice), sectors(boot), FS_RAID),
            (0, 0, 0),
            (sectors(slice), sectors(all - slice), 0),
            (0, sectors(all), 0),
            (sectors(first), sectors(size), FS_RAID),
        ];
        for disk in &disks {
            disk.overwrite(slice + 512, &disklabel(&partitions, big));
            if slice > 0 {
                let mut mbr = vec![0; 512];
                mbr[450] = 0xa9;
                mbr[454..458].copy_from_slice(&sectors(slice).to_le_bytes());
                mbr[458..462].copy_from_slice(&sectors(all - slice).to_le_bytes());
                mbr[510..].copy_from_slice(&[0x55, 0xaa]);
                disk.overwrite(0, &mbr);
                // Boot code looks like a table, too.
                disk.overwrite(slice + 510, &[0x55, 0xaa]);
            }
        }
        let part = |start, size| disks.iter().map(move |disk| Component { start, size, ..disk.clone() });
        let data_parts: Vec<Component> = part(first, size).collect();
        let system_parts: Vec<Component> = part(slice, boot).take(2).collect();
        make(1, &Level::Raid5, 32, &data_parts, &data);
        make(0, &Level::Raid1, 128, &system_parts, &system);
        let told = scanned(&disks);
        assert!(told.contains("(partition 5)") || slice > 0, "{told}");
        for left in [&disks[..], &disks[1..], &disks[..2]] {
            let mut found = planned(left);
            let name = |candidate: &rescue::Candidate| candidate.array.clone();
            found.candidates.sort_by_key(name);
            let names: Vec<String> = found.candidates.iter().map(name).collect();
            assert_eq!(names, ["raid0", "raid1"], "{slice} {told}");
            is_right(&found, &system);
            found.candidates.remove(0);
            let best = is_right(&found, &data);
            assert!(best.slots.iter().flatten().all(|slot| slot.data_offset == first + RESERVED), "{best:?}");
        }
    }
}

/// A label that whole disks were given before they were partitioned counts for nothing.
#[test]
fn an_older_label_of_the_whole_disk_is_passed_over() {
    let (Some(data), Some(old)) = (ext4(22, LENGTH), ext4(23, LENGTH)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let size = component_size(&Level::Raid5, 3, data.len());
    let disks = files(folder.path(), "disk", 3, size + (2 << 20));
    make(7, &Level::Raid5, 32, &disks, &old);
    let first = 1 << 20;
    let partitions = [((first / 512) as u32, (size / 512) as u32, FS_RAID)];
    disks.iter().for_each(|disk| disk.overwrite(512, &disklabel(&partitions, false)));
    let parts: Vec<Component> =
        disks.iter().map(|disk| Component { start: first, size, ..disk.clone() }).collect();
    make(1, &Level::Raid5, 32, &parts, &data);
    let found = planned(&disks);
    assert_eq!(is_right(&found, &data).array, "raid1");
    assert_eq!(found.candidates.len(), 1);
}

/// RAID 0 over two RAID 1, as NetBSD's handbook has it, without one disk.
#[test]
fn a_set_of_sets() {
    let Some(contents) = ext4(24, LENGTH) else { return };
    let folder = tempfile::tempdir().unwrap();
    let half = component_size(&Level::Raid0, 2, contents.len());
    let uppers = files(folder.path(), "upper", 2, half);
    make(9, &Level::Raid0, 64, &uppers, &contents);
    let mut disks = Vec::new();
    for (unit, upper) in (0..).zip(&uppers) {
        let bytes = fs::read(&upper.path).unwrap();
        let lower =
            files(folder.path(), &format!("lower{unit}"), 2, component_size(&Level::Raid1, 2, bytes.len()));
        make(unit, &Level::Raid1, 128, &lower, &bytes);
        disks.extend(lower);
    }
    disks.remove(1);
    let found = planned(&disks);
    let mut arrays: Vec<(String, Arc<dyn BlockDevice>)> = Vec::new();
    for candidate in chosen(&found, None).unwrap() {
        arrays.push((volume_name(&candidate.array, &[]), Arc::new(candidate.open().unwrap())));
    }
    assert_eq!(arrays.len(), 2);
    let volumes = discover(&arrays);
    let nested = volumes.iter().find(|volume| volume.kind == "nested array").expect("it is there");
    assert_eq!(nested.name, "raid9");
    assert!(read(&**nested.device.as_ref().unwrap(), contents.len()) == contents);
    // With one half gone that is told.
    let volumes = discover(&arrays[..1]);
    let nested = volumes.iter().find(|volume| volume.kind == "nested array").expect("it is there");
    assert_eq!(nested.state, VolumeState::Damaged, "{nested:?}");
    assert!(open(&disks).len() == 3);
}
