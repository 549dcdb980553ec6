//! Volumes of a group of all kinds that LVM2 and a real kernel made, each 4 KiB with a tag of its place.
#![allow(clippy::unwrap_used)]

#[path = "../../formats/tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use common::image;
use device::BlockDevice;
use rescue::{Volume, discover};

const PAGE: usize = 4096;

/// The volumes on these disks of the group.
fn volumes(disks: &str) -> Vec<Volume> {
    let arrays: Vec<(String, Arc<dyn BlockDevice>)> = disks
        .chars()
        .map(|disk| {
            (format!("disk-{disk}"), Arc::new(image(&format!("lvm-lab-{disk}"))) as Arc<dyn BlockDevice>)
        })
        .collect();
    discover(&arrays)
}

fn find<'a>(volumes: &'a [Volume], name: &str) -> &'a Volume {
    let found = volumes.iter().find(|volume| volume.name.ends_with(&format!("/{name}")));
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

/// How many pages have the tag of this name, and how many have none.
fn tagged(volume: &Volume, name: &str) -> (usize, usize) {
    let device = volume.device.as_ref().unwrap_or_else(|| panic!("{name}: {}", volume.health));
    let mut page = vec![0; PAGE];
    let (mut right, mut empty) = (0, 0);
    for number in 0..volume.size as usize / PAGE {
        device.read((number * PAGE) as u64, &mut page).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tag = format!("{name:<12}{number:>12}");
        if page.iter().all(|byte| *byte == 0) {
            empty += 1;
        } else {
            assert!(page.starts_with(tag.as_bytes()), "page {number} of {name}");
            right += 1;
        }
    }
    (right, empty)
}

const RAID: [&str; 12] = [
    "raid1",
    "raid4",
    "raid5_ls",
    "raid5_la",
    "raid5_ra",
    "raid5_rs",
    "raid5_n",
    "raid6_zr",
    "raid6_nr",
    "raid6_nc",
    "raid6_ls_6",
    "raid6_n_6",
];

#[test]
fn all_kinds_are_read() {
    let volumes = volumes("daebc");
    for name in ["linear", "striped", "mirror", "raid0", "raid0m", "raid10"].into_iter().chain(RAID) {
        let volume = find(&volumes, name);
        assert_eq!(tagged(volume, name), (volume.size as usize / PAGE, 0), "{name}");
    }
    let thin = 16 * (20 + 1 + 9);
    assert_eq!(tagged(find(&volumes, "thinsnap"), "thin"), (thin, 4096 - thin));
    // Pools and stores are no volumes of their own.
    assert!(volumes.iter().all(|volume| !volume.name.ends_with("pool")), "{volumes:?}");
}

#[test]
fn redundancy_makes_up_for_a_disk() {
    let all = volumes("abcde");
    for gone in ["bcde", "acde", "abde", "abce", "abcd"] {
        let volumes = volumes(gone);
        for name in RAID.into_iter().chain(["mirror", "raid10"]) {
            let volume = find(&volumes, name);
            assert_eq!(tagged(volume, name).0, find(&all, name).size as usize / PAGE, "{name} of {gone}");
        }
        let lost = volumes.iter().filter(|volume| volume.health.contains("is missing")).count();
        assert!(lost > 0, "{gone}");
    }
}
