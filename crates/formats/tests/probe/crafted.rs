//! Structures built by hand: each is recognised, libblkid agrees where it is installed, and zeroing the
//! signatures hides it from both.
#![allow(clippy::unwrap_used, dead_code)]

use formats::Kind;

use crate::common::{Image, assert_wipes, blkid, found, sentences};
use crate::samples;

#[test]
fn each_is_recognised() {
    for sample in samples::all() {
        let all = found(&sample.image);
        assert_eq!(sentences(&sample.image), [sample.sentence]);
        assert_eq!(all[0].uuid.as_deref().unwrap_or(""), sample.uuid, "{}", sample.sentence);
        assert!(!all[0].damaged);
    }
}

#[test]
fn libblkid_agrees() {
    let plain = |text: &str| text.replace(['-', ':'], "").to_lowercase();
    let mut wrong = Vec::new();
    for sample in samples::all() {
        let Some(theirs) = blkid(&sample.image) else { return };
        if let Some([kind, label]) = sample.blkid {
            let [their_kind, their_label, their_uuid] = &theirs;
            // What identifies an array of DDF or Intel is not what libblkid shows.
            let uuid = ["ddf_raid_member", "isw_raid_member"].contains(&kind)
                || plain(their_uuid) == plain(sample.uuid);
            if their_kind != kind || their_label != label || !uuid {
                wrong.push(format!("{}: {theirs:?}", sample.sentence));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0]);
}

#[test]
fn zeroing_the_signatures_hides_each() {
    for sample in samples::all() {
        let wiped = assert_wipes(&sample.image);
        if let Some(theirs) = blkid(&wiped) {
            assert_eq!(theirs, ["", "", ""], "libblkid still knows {}", sample.sentence);
        }
    }
}

/// Each sample with one bit changed that its checksum covers is damaged, not unknown.
#[test]
fn wrong_checksums_are_damage() {
    let cases: [(&str, u64); 11] = [
        ("a Linux md array member (metadata 0.90)", 8 * (1 << 20) - 65536 + 160),
        ("a Linux md array member (metadata 1.0) named 'host:data'", 8 * (1 << 20) - 8192 + 200),
        ("a Linux md array member (metadata 1.1) named 'host:data'", 300),
        ("a Linux md array member (metadata 1.2) named 'host:data'", 4096 + 200),
        ("an Intel (IMSM) array member with volume 'Volume0'", 8 * (1 << 20)),
        ("an LVM2 physical volume of volume group 'archive'", 512 + 64),
        ("a device of a Stratis pool", 512 + 20),
        ("a GPT partition table with 2 partitions", 512 + 40),
        ("an f2fs file system labelled 'phone'", 1024 + 40),
        ("an exFAT file system labelled 'Stick'", 1024),
        ("a BSD disklabel with 2 partitions named 'tapes'", 512 + 44),
    ];
    let samples = samples::all();
    for (sentence, at) in cases {
        let sample =
            samples.iter().find(|sample| sample.sentence == sentence).expect("there is such a sample");
        let byte = sample.image.get(at, 1)[0];
        let image = sample.image.clone().put(at, &[byte ^ 4]);
        let (_, noun) = sentence.split_once(' ').expect("an article and a noun");
        assert_eq!(sentences(&image), [format!("a damaged {noun}")]);
        assert_wipes(&image);
    }
}

#[test]
fn copies_are_found_without_the_original() {
    // Only the GPT at the end.
    let gpt = samples::gpt(512).zeroed(512..1024);
    assert_eq!(sentences(&gpt), ["a damaged GPT partition table with 2 partitions"]);
    assert_wipes(&gpt);
    // A device that has grown: the backup is not at the end any more, the header says where it is.
    let mut grown = samples::gpt(512);
    grown.size *= 2;
    assert_eq!(found(&grown)[0].signatures().len(), 3, "two headers and the protective MBR");
    assert_wipes(&grown);
    // Only the protective MBR.
    let lost = gpt.cut(8 << 20);
    assert_eq!(sentences(&lost), ["an MBR partition table with 1 partition"]);
    for sample in samples::all() {
        let kind = found(&sample.image)[0].kind;
        if kind == Kind::Zfs {
            let tail = sample.image.zeroed(0..1 << 20);
            assert_eq!(sentences(&tail), ["a damaged member of a ZFS pool named 'tank'"]);
            assert_wipes(&tail);
        } else if kind == Kind::Luks2 {
            let second = sample.image.zeroed(0..4096);
            assert_eq!(sentences(&second), ["a damaged LUKS2 encrypted volume labelled 'safe'"]);
        }
    }
}

/// Each magic number alone, without the fields around it, is not enough.
#[test]
fn short_magic_numbers_prove_nothing() {
    let alone: &[(u64, &[u8])] = &[
        (1024 + 0x38, b"\x53\xef"),
        (0, b"XFSB"),
        (510, b"\x55\xaa"),
        (0, b"hsqs"),
        (1024, b"\x10\x20\xf5\xf2"),
        (1024, b"H+\0\x04"),
        (32, b"NXSB"),
        (0, b"\xfc\x4e\x2b\xa9\x01"),
        (4096, b"\xfc\x4e\x2b\xa9\x01"),
        (32768, b"JFS1"),
        (65536 + 1372, b"\x19\x01\x54\x19"),
        (512, b"WEV\x82"),
        (0, b"LUKS\xba\xbe"),
        ((8 << 20) - 512, b"\xde\x11\xde\x11"),
        (16384, b"\x02\0\0\0"),
    ];
    for (at, magic) in alone {
        assert_eq!(sentences(&Image::new(8 << 20).put(*at, magic)), [] as [String; 0], "{magic:?}");
    }
}

#[test]
fn several_things_are_told_in_order() {
    let samples = samples::all();
    let one = |kind: &str| {
        samples.iter().find(|sample| sample.sentence.starts_with(kind)).map(|sample| &sample.image)
    };
    let lvm = one("an LVM2").expect("there is such a sample");
    let both = lvm.clone().put(16384, b"COFFERDAM-LABEL\0");
    let want = ["an LVM2 physical volume of volume group 'archive'", "a device of a Cofferdam pool"];
    assert_eq!(sentences(&both), want);
    assert_wipes(&both);
}

#[test]
fn labels_cannot_drive_a_terminal() {
    let evil = b"FAT\x1b[31m\x07X \x08";
    let fat =
        samples::all().into_iter().find(|sample| sample.sentence.starts_with("a FAT")).expect("there is one");
    // The root directory's second entry: 32 reserved sectors and two tables of 64 come before.
    let image = fat.image.put((32 + 2 * 64) * 512 + 32, evil);
    assert_eq!(sentences(&image), ["a FAT file system labelled 'FAT?[31m?X'"]);
}
