//! Sets of DDF and of Intel's metadata, made by mdadm and tagged through the kernel.
#![allow(clippy::unwrap_used)]

#[path = "../../formats/tests/common/mod.rs"]
mod common;

use std::fs;

use common::image;
use device::BlockDevice;
use rescue::{Candidate, Image, plan, render_scan, scan};

/// The disks of these fixtures as files in a folder.
fn disks(folder: &tempfile::TempDir, names: &[&str]) -> Vec<Image> {
    let write = |name: &&str| {
        let device = image(name);
        let mut bytes = vec![0; device.size().unwrap() as usize];
        device.read(0, &mut bytes).unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Image::open(path).unwrap()
    };
    names.iter().map(write).collect()
}

/// How many of the pages with tags are in their places.
fn tagged(candidate: &Candidate, name: &str) -> (usize, usize) {
    let array = candidate.open().unwrap();
    let (mut right, mut wrong) = (0, 0);
    let mut page = vec![0; 4096];
    for number in 0..(2 << 20) / 4096_u64 {
        if array.read(number * 4096, &mut page).is_err() {
            continue;
        }
        let text = String::from_utf8_lossy(&page[..24]).into_owned();
        if text.starts_with(name) {
            if text[12..].trim() == number.to_string() { right += 1 } else { wrong += 1 }
        }
    }
    (right, wrong)
}

#[test]
fn ddf_disks_know_their_slots() {
    let folder = tempfile::tempdir().unwrap();
    let images = disks(&folder, &["ddf-d", "ddf-e", "ddf-f", "ddf-g"]);
    for gone in [None, Some(0), Some(2)] {
        let left: Vec<Image> = images
            .iter()
            .enumerate()
            .filter(|(number, _)| Some(*number) != gone)
            .map(|(_, image)| image.clone())
            .collect();
        let scan = scan(&left);
        assert!(render_scan(&scan).contains("volume dvol0: raid5"), "{}", render_scan(&scan));
        let plan = plan(&left, &scan);
        for name in ["dvol0", "dvol1"] {
            let best = plan.candidates.iter().find(|candidate| candidate.array == name).unwrap();
            let (right, wrong) = tagged(best, name);
            assert!(right > 250 && wrong == 0, "{name} without {gone:?}: {right} right, {wrong} wrong");
        }
    }
}

#[test]
fn intel_volumes_are_put_together_in_every_order() {
    let folder = tempfile::tempdir().unwrap();
    let images = disks(&folder, &["imsm-a", "imsm-b", "imsm-c"]);
    let plan = plan(&images, &scan(&images));
    for name in ["vol0", "vol1"] {
        let all: Vec<&Candidate> =
            plan.candidates.iter().filter(|candidate| candidate.array == name).collect();
        // Tags are no file system, so nothing says which order is right, and that is told.
        assert!(all.iter().all(|candidate| candidate.score <= 50));
        let right = all.iter().filter(|candidate| {
            let (right, wrong) = tagged(candidate, name);
            right > 250 && wrong == 0
        });
        assert_eq!(right.count(), 1, "{name}");
    }
}
