//! Nothing that is damaged may panic, take long, or be believed where a checksum says otherwise.

use device::{BlockDevice, MemoryDevice};
use formats::lvm::{GroupMetadata, Lvm, PvScan, RaidMeta, Section, SnapshotStore, ThinMetadata};
use proptest::prelude::*;

use crate::common::{bytes, flipped, image, truncated};
use crate::reader::Lab;

/// A device of one small piece, as most of what follows looks at little.
fn small(device: &MemoryDevice, length: usize) -> MemoryDevice {
    MemoryDevice::from_bytes("small", &bytes(device, 0, length))
}

#[test]
fn every_bit_of_label_and_area_header() {
    let device = small(&image("lvm-wrap-a"), 16 << 10);
    let whole = PvScan::read(&device).unwrap().unwrap();
    for at in (512..1024).chain(4096..4608) {
        for bit in 0..8 {
            let scan = PvScan::read(&flipped(&device, at, 1 << bit)).unwrap();
            if let Some(scan) = scan {
                // All of both sectors is under a checksum, the magic numbers aside.
                let believed = scan.label == whole.label
                    && scan.areas.iter().all(|area| area.problems == whole.areas[0].problems);
                assert!(!believed, "bit {bit} of byte {at}");
                let _ = Lvm::assemble(&[scan]);
            }
        }
    }
}

#[test]
fn every_truncation() {
    let device = small(&image("lvm-wrap-a"), 12 << 10);
    for size in (0..12 << 10).step_by(7).chain(500..1100) {
        if let Some(scan) = PvScan::read(&truncated(&device, size)).unwrap() {
            let _ = Lvm::assemble(&[scan]);
        }
    }
}

#[test]
fn every_byte_of_a_text() {
    let text = std::fs::read(crate::common::fixture("lvm-wrap.vg")).unwrap();
    for at in 0..text.len() {
        for byte in [0, b'"', b'}', b'{', b'9', b'-', b'\\', 0xff, text[at] ^ 1] {
            let mut text = text.clone();
            text[at] = byte;
            use_group(&text);
        }
        use_group(&text[..at]);
    }
}

/// Does with a text all that can be done.
fn use_group(text: &[u8]) {
    let Ok(group) = GroupMetadata::parse(text, "damaged", 0) else { return };
    for lv in 0..group.logical.len() {
        let size = group.logical[lv].size;
        for at in [0, size / 2, size.saturating_sub(1), size, u64::MAX] {
            let _ = group.locate(lv, at);
        }
        assert!(group.map(lv, 0..u64::MAX).take(100).all(|run| run.length > 0));
        let _ = group.physical_of(lv);
    }
}

#[test]
fn volumes_within_themselves() {
    let lv = |name: &str, inner: &str| {
        format!(
            "{name} {{ id = \"x\" segment_count = 1 segment1 {{ start_extent = 0 extent_count = 4 \
             type = \"striped\" stripe_count = 1 stripes = [\"{inner}\", 0] }} }}"
        )
    };
    let text = format!(
        "vg {{ id = \"u\" seqno = 1 extent_size = 8 logical_volumes {{ {} {} {} }} }} \
         contents = \"Text Format Volume Group\"",
        lv("one", "two"),
        lv("two", "one"),
        lv("three", "nobody")
    );
    let group = GroupMetadata::parse(text.as_bytes(), "x", 0).unwrap();
    assert_eq!(group.problems, []);
    for lv in 0..3 {
        assert_eq!(group.locate(lv, 0), Some((formats::lvm::Place::Nothing, 4 * 4096)));
        assert_eq!(group.physical_of(lv), [0; 0]);
    }
}

#[test]
fn faults_in_segments_are_named() {
    let lab = Lab::all_kinds();
    let area = &lab.scans[0].areas[0].generations[0];
    let text = bytes(&lab.devices[0], area.offset, 64 << 10);
    let text = String::from_utf8(text[..text.iter().position(|byte| *byte == 0).unwrap()].to_vec()).unwrap();
    let problem = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let group = GroupMetadata::parse(text.replacen(from, to, 1).as_bytes(), "disk", 7).unwrap();
        group.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(problem("extent_count = 12", "extent_count = 12"), "");
    let found = problem("\"pv0\", 0\n", "\"pv0\", 99999\n");
    assert!(found.contains("stripes is extent 99999 of pv0, which has 255 in segment1 of linear"), "{found}");
    let found = problem("stripe_count = 3", "stripe_count = 4");
    assert!(
        found.starts_with("LVM2 metadata text at offset 7 of disk: stripe_count is 4 in segment1"),
        "{found}"
    );
    let found = problem("start_extent = 0", "start_extent = 1");
    assert!(found.contains("start_extent is"), "{found}");
    let found = problem("extent_count = 12", "extent_count = 99999999999999");
    assert!(found.contains("extent_count is 99999999999999"), "{found}");
}

#[test]
fn thin_metadata() {
    let lab = Lab::all_kinds();
    let (device, pool, ..) = lab.pool(lab.find("pool"));
    let whole = pool.devices(&device);
    for at in 0..4096 {
        assert!(ThinMetadata::open(&flipped(&device, at, 0x10)).is_err(), "byte {at} of the superblock");
    }
    // Every node that the devices need: a flipped byte anywhere is noticed, and the other device is not hurt.
    let root = whole.0[0].root;
    for at in (root * 4096..(root + 1) * 4096).step_by(5) {
        let broken = flipped(&device, at, 4);
        let mut found = 0;
        let damage = pool.mappings(&broken, &whole.0[0], 0..256, &mut |_| found += 1);
        assert_eq!((damage.len(), damage[0].keys.clone(), found), (1, 0..256, 0));
        assert!(pool.lookup(&broken, &whole.0[0], 3).is_err());
        assert!(pool.mappings(&broken, &whole.0[1], 0..256, &mut |_| found += 1).is_empty());
        assert!(found > 0);
    }
    for size in (0..40 * 4096).step_by(1000) {
        let short = truncated(&device, size);
        if let Ok(pool) = ThinMetadata::open(&short) {
            let _ = pool.devices(&short);
        }
    }
}

/// Nodes whose checksums are right, but which lead back to themselves.
#[test]
fn thin_trees_with_cycles() {
    let lab = Lab::all_kinds();
    let (device, pool, ..) = lab.pool(lab.find("pool"));
    let (devices, _) = pool.devices(&device);
    let root = devices[0].root;
    let mut node = vec![0; 4096];
    let put = |node: &mut Vec<u8>, at: usize, value: &[u8]| node[at..at + value.len()].copy_from_slice(value);
    put(&mut node, 4, &1_u32.to_le_bytes());
    put(&mut node, 8, &root.to_le_bytes());
    put(&mut node, 16, &1_u32.to_le_bytes());
    put(&mut node, 20, &252_u32.to_le_bytes());
    put(&mut node, 24, &8_u32.to_le_bytes());
    put(&mut node, 32 + 252 * 8, &root.to_le_bytes());
    let sum = !crc32c::crc32c(&node[4..]) ^ 0x1_d913;
    put(&mut node, 0, &sum.to_le_bytes());
    device.write(root * 4096, &node).unwrap();
    let damage = pool.mappings(&device, &devices[0], 0..u64::MAX, &mut |_| panic!("there are no leaves"));
    assert!(damage[0].error.to_string().contains("depth is 16"), "{damage:?}");
}

#[test]
fn snapshot_stores() {
    let lab = Lab::all_kinds();
    let store = lab.find("cow");
    let (place, _) = lab.group().locate(store, 0).unwrap();
    let formats::lvm::Place::Physical { pv, offset } = place else { panic!("{place:?}") };
    let disk = &lab.devices[lab.group().members[pv].unwrap()];
    let device = MemoryDevice::from_bytes("store", &bytes(disk, offset, 1 << 20));
    let whole = SnapshotStore::read(&device).unwrap();
    assert_eq!(whole.exceptions.len(), 7);
    for at in (0..16).chain(4096..4096 + 8 * 16) {
        for bit in 0..8 {
            let Ok(store) = SnapshotStore::read(&flipped(&device, at, 1 << bit)) else { continue };
            for offset in [0, 5 << 12, 1 << 40, u64::MAX] {
                let (stored, run) = store.locate(offset);
                assert!(run > 0 || offset == u64::MAX);
                assert!(stored.is_none_or(|at| at < 1 << 20));
            }
        }
    }
    for size in (0..32 << 10).step_by(100) {
        let _ = SnapshotStore::read(&truncated(&device, size));
    }
}

proptest! {
    #[test]
    fn any_text(text in "[a-z{}\\[\\]=\", 0-9#\n]{0,200}") {
        let _ = Section::parse(text.as_bytes());
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Section::parse(&bytes);
        let _ = RaidMeta::parse(&bytes, "x", 0);
        let mut bytes = bytes;
        bytes.splice(..bytes.len().min(4), *b"DmRd");
        let _ = RaidMeta::parse(&bytes, "x", 0);
    }
}
