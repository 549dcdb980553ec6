//! Every volume of a group of all kinds is read back byte by byte: each 4 KiB begin with a tag that was
//! written through the kernel's own device-mapper. What the kernel mapped where is compared as well.

use std::collections::BTreeMap;
use std::fs;

use formats::lvm::{Mapping, Place};

use crate::common::fixture;
use crate::reader::Lab;

const PAGE: usize = 4096;

fn tag(name: &str, page: usize) -> Vec<u8> {
    let mut bytes = format!("{name:<12}{page:>12}").into_bytes();
    bytes.resize(PAGE, 0);
    bytes
}

/// Asserts that each page holds the tag of this name, or zeros where there is none.
fn check(lab: &Lab, volume: &str, pages: usize, name: impl Fn(usize) -> Option<&'static str>) {
    let content = lab.content(volume);
    assert_eq!(content.len(), pages * PAGE, "{volume}");
    for (number, page) in content.chunks(PAGE).enumerate() {
        let wanted = name(number).map_or_else(|| vec![0; PAGE], |name| tag(name, number));
        assert!(page == wanted, "page {number} of {volume}");
    }
}

#[test]
fn linear_striped_mirror() {
    let lab = Lab::all_kinds();
    check(&lab, "linear", 8 * 64, |_| Some("linear"));
    check(&lab, "striped", 12 * 64, |_| Some("striped"));
    check(&lab, "mirror", 5 * 64, |_| Some("mirror"));
    assert_eq!(lab.group().volumes.physical_of(lab.find("linear")).len(), 2);
    assert_eq!(lab.group().volumes.physical_of(lab.find("striped")).len(), 3);
}

#[test]
fn raid_sets() {
    let lab = Lab::all_kinds();
    let kinds: [(&'static str, usize); 14] = [
        ("raid0", 12),
        ("raid0m", 8),
        ("raid1", 5),
        ("raid4", 12),
        ("raid5_ls", 12),
        ("raid5_la", 12),
        ("raid5_ra", 12),
        ("raid5_rs", 12),
        ("raid5_n", 12),
        ("raid6_zr", 12),
        ("raid6_nr", 12),
        ("raid6_nc", 12),
        ("raid6_ls_6", 12),
        ("raid6_n_6", 12),
    ];
    for (name, extents) in kinds {
        check(&lab, name, extents * 64, |_| Some(name));
    }
    check(&lab, "raid10", 12 * 64, |_| Some("raid10"));
}

#[test]
fn raid_superblocks_agree_with_the_text() {
    let lab = Lab::all_kinds();
    let mut seen = 0;
    for volume in &lab.group().volumes.logical {
        let Some(Mapping::Raid(set)) = volume.segments.first().map(|segment| &segment.mapping) else {
            continue;
        };
        for (slot, meta) in lab.raid_meta(set).into_iter().enumerate() {
            if set.name == "raid0" {
                assert_eq!(meta, None);
                continue;
            }
            let meta = meta.unwrap_or_else(|| panic!("{} has no superblock in slot {slot}", volume.name));
            seen += 1;
            assert_eq!(meta.slot as usize, slot);
            assert_eq!(meta.members as usize, set.members.len());
            assert_eq!((meta.failed, meta.data_offset, meta.reshape), (0, 0, None));
            assert_eq!((meta.resynced, meta.recovered), (None, None), "{}", volume.name);
            assert_eq!(meta.level, set.level, "{}", volume.name);
            if meta.level != 0 && meta.level != 1 {
                assert_eq!((meta.layout, meta.chunk), (set.layout, set.chunk), "{}", volume.name);
            }
            assert_eq!(meta.set_size, volume.size);
        }
    }
    assert!(seen > 50);
}

#[test]
fn thin_volumes() {
    let lab = Lab::all_kinds();
    // Blocks of 64 KiB are 16 pages.
    let first = |page: usize| matches!(page / 16, 3..=22 | 50 | 100..=108);
    let second = |page: usize| matches!(page / 16, 10..=14 | 200..=201);
    check(&lab, "thinsnap", 4096, |page| first(page).then_some("thin"));
    check(
        &lab,
        "thin",
        4096,
        |page| if second(page) { Some("thin2") } else { first(page).then_some("thin") },
    );
    let (device, pool, ..) = lab.pool(lab.find("pool"));
    let (devices, _) = pool.devices(&device);
    assert_eq!(devices.iter().map(|device| device.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(pool.data_blocks, 96);
    assert_eq!(pool.used_blocks, 30 + 7);
    assert!(!pool.needs_check);
    assert_eq!(pool.lookup(&device, &devices[1], 9999).unwrap(), None);
}

#[test]
fn snapshots() {
    let lab = Lab::all_kinds();
    check(&lab, "cowbase", 512, |page| {
        Some(if [5, 6, 7, 100, 301].contains(&page) { "cownew" } else { "cowbase" })
    });
    check(&lab, "cow", 512, |page| Some(if [6, 9, 10].contains(&page) { "cowsnap" } else { "cowbase" }));
}

/// `dmsetup table` as it was while the group was active.
#[test]
fn maps_are_the_kernels() {
    let lab = Lab::all_kinds();
    let group = lab.group();
    let tables = fs::read_to_string(fixture("lvm-lab.tables")).unwrap();
    let mut linear: BTreeMap<&str, Vec<(u64, u64, usize, u64)>> = BTreeMap::new();
    for line in tables.lines() {
        let (name, rest) = line.split_once(": ").unwrap();
        let name = name.strip_prefix("lab-").unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap() * 512;
        // Physical volumes are 98:0, 98:16 and so on; 253 is device-mapper itself.
        if words[2] == "linear"
            && let Some(minor) = words[3].strip_prefix("98:")
        {
            let disk = minor.parse::<usize>().unwrap() / 16;
            linear.entry(name).or_default().push((number(0), number(1), disk, number(4)));
        }
    }
    assert!(linear.len() > 100);
    for (name, parts) in linear {
        // A snapshot's store and its origin have other names there.
        let name = name.strip_suffix("-cow").or(name.strip_suffix("-real")).unwrap_or(name);
        let lv = lab.find(name);
        for (start, length, disk, offset) in parts {
            let (place, run) = group.locate(lv, start).unwrap();
            let Place::Physical { pv, offset: found } = place else { panic!("{name}: {place:?}") };
            assert_eq!((found, run), (offset, length), "{name}");
            let device = &lab.scans[group.members[pv].unwrap()].device;
            assert_eq!(*device, format!("lvm-lab-{}", ["a", "b", "c", "d", "e"][disk]), "{name}");
        }
    }
}
