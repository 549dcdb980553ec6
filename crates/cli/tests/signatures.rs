//! Devices that hold something, or are there twice: refused by name, untouched, and taken with `-f` where that is right.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use std::process::Command;

use common::{Bench, DISK, damage, digest};

/// The least size of a disk, and what btrfs and xfs want at least.
const SMALL: u64 = 64 << 20;
const BTRFS_LEAST: u64 = 112 << 20;
const XFS_LEAST: u64 = 300 << 20;

/// Runs a program on a disk; whether it is there and did its work.
fn made(program: &str, arguments: &[&str], disk: &str) -> bool {
    let path = format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).arg(disk).env("PATH", path).output();
    let there = output.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED: {program} is not there");
    }
    there
}

/// A structure of `length` bytes with these fields.
fn fields(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fields.iter().for_each(|(at, value)| bytes[*at..at + value.len()].copy_from_slice(value));
    bytes
}

/// CRC-32, bit by bit.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The label of an LVM2 physical volume, at 512.
fn lvm(disk: &str) -> bool {
    let mut label = fields(
        512,
        &[
            (0, b"LABELONE"),
            (8, &1_u64.to_le_bytes()),
            (20, &32_u32.to_le_bytes()),
            (24, b"LVM2 001"),
            (32, b"abcdefGHIJklmnOPQRstuvWXYZ012345"),
            (64, &SMALL.to_le_bytes()),
            (72, &(1_u64 << 20).to_le_bytes()),
        ],
    );
    let crc = crc32(0xf597_a6cf, &label[20..]);
    label[16..20].copy_from_slice(&crc.to_le_bytes());
    damage(disk, 512, &label);
    true
}

/// A member of a Linux md array, with metadata 1.2 at 4096.
fn md(disk: &str) -> bool {
    let le = |value: u32| value.to_le_bytes();
    let mut block = fields(
        512,
        &[
            (0, &le(0xa92b_4efc)),
            (4, &le(1)),
            (16, b"0123456789abcdef"),
            (32, b"host:data"),
            (72, &le(5)),
            (76, &le(2)),
            (88, &le(128)),
            (92, &le(4)),
            (128, &2048_u64.to_le_bytes()),
            (136, &4096_u64.to_le_bytes()),
            (144, &8_u64.to_le_bytes()),
            (200, &7_u64.to_le_bytes()),
            (220, &le(128)),
            (256, b"\0\0\x01\0\x02\0\x03\0"),
        ],
    );
    let words = block.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let sum: u64 = words.sum();
    block[216..220].copy_from_slice(&((sum as u32).wrapping_add((sum >> 32) as u32)).to_le_bytes());
    damage(disk, 4096, &block);
    true
}

/// A GPT with one partition, its first copy alone.
fn gpt(disk: &str) -> bool {
    let last = SMALL / 512 - 1;
    let mut entries = vec![0; 128 * 128];
    let entry = fields(
        128,
        &[(0, &[0xaf; 16]), (16, &[1; 16]), (32, &2048_u64.to_le_bytes()), (40, &4095_u64.to_le_bytes())],
    );
    entries[..128].copy_from_slice(&entry);
    let mut header = fields(
        92,
        &[
            (0, b"EFI PART\0\0\x01\0"),
            (12, &92_u32.to_le_bytes()),
            (24, &1_u64.to_le_bytes()),
            (32, &last.to_le_bytes()),
            (40, &34_u64.to_le_bytes()),
            (48, &(last - 34).to_le_bytes()),
            (56, b"0123456789abcdef"),
            (72, &2_u64.to_le_bytes()),
            (80, &128_u32.to_le_bytes()),
            (84, &128_u32.to_le_bytes()),
            (88, &(!crc32(!0, &entries)).to_le_bytes()),
        ],
    );
    let crc = !crc32(!0, &header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    damage(disk, 446, b"\0\0\x02\0\xee\xff\xff\xff\x01\0\0\0\xff\x7f\0\0");
    damage(disk, 510, b"\x55\xaa");
    damage(disk, 512, &header);
    damage(disk, 1024, &entries);
    true
}

/// What is on a disk, how large that is, how it gets there, and words that must name it.
type Case = (&'static str, u64, fn(&str) -> bool, &'static [&'static str]);

const CASES: [Case; 7] = [
    ("ext4", SMALL, |disk| made("mkfs.ext4", &["-q", "-F", "-L", "photos"], disk), &["ext4", "photos"]),
    ("xfs", XFS_LEAST, |disk| made("mkfs.xfs", &["-q", "-f", "-L", "films"], disk), &["xfs", "films"]),
    (
        "btrfs",
        BTRFS_LEAST,
        |disk| made("mkfs.btrfs", &["-q", "-f", "-L", "music"], disk),
        &["btrfs", "music"],
    ),
    ("swap", SMALL, |disk| made("mkswap", &["-q", "-L", "paging"], disk), &["swap", "paging"]),
    ("lvm", SMALL, lvm, &["LVM2 physical volume"]),
    ("md", SMALL, md, &["md array member", "host:data"]),
    ("gpt", SMALL, gpt, &["GPT", "1 partition"]),
];

/// By each command that takes a new device.
#[test]
fn what_is_on_a_device_is_named_and_kept() {
    let bench = Bench::new();
    let pool = bench.disks(2);
    bench.ok(&format!("create tank {} {}", pool[0], pool[1]));
    for (what, size, make, words) in CASES {
        let (disk, other) = (bench.disk(what, size), bench.disk("other", size));
        if !make(&disk) {
            continue;
        }
        // Each way in once, with what is made quickest; the rest by the shortest.
        let ways = [
            format!("create {what} mirror {disk} {other}"),
            format!("create -n {what} mirror {other} {disk}"),
            format!("create {what} raidz1 {other} {disk} {}", bench.disk("third", size)),
            format!("create {what} {other} spare {disk}"),
            format!("add tank {disk}"),
            format!("add tank spare {disk}"),
            format!("attach tank {} {disk}", pool[0]),
            format!("replace tank {} {disk}", pool[0]),
        ];
        let ways = if what == "gpt" { &ways[..] } else { &ways[..1] };
        for line in ways {
            let said = bench.fails_untouched(line, std::slice::from_ref(&disk));
            assert!(words.iter().all(|word| said.contains(word)), "{line}: {said}");
            assert!(said.contains(&disk) && said.contains("-f"), "{line}: {said}");
        }
        // It is not cleared by mistake either.
        let said = bench.fails_untouched(&format!("labelclear -f {disk}"), std::slice::from_ref(&disk));
        assert!(said.contains("label"), "{said}");
        bench.ok(&format!("create -f {what} mirror {disk} {other}"));
        assert_eq!(bench.state(what), "ONLINE");
        bench.ok(&format!("destroy {what}"));
        // Nothing of what it was is left, nor of the pool.
        bench.ok(&format!("create -n {what} mirror {disk} {other}"));
    }
    // Another pool, whatever its state.
    let mine = bench.disk("mine", DISK);
    bench.ok(&format!("create dozer {mine}"));
    let said = bench.fails_untouched(&format!("add -f tank {mine}"), std::slice::from_ref(&mine));
    assert!(said.contains("part of pool 'dozer'"), "{said}");
    bench.ok("export dozer");
    for line in [format!("add tank {mine}"), format!("attach tank {} {mine}", pool[0])] {
        let said = bench.fails_untouched(&line, std::slice::from_ref(&mine));
        assert!(said.contains("pool 'dozer'") && said.contains("-f"), "{said}");
    }
    bench.ok(&format!("add -f tank {mine}"));
    assert_eq!(bench.state("tank"), "ONLINE");
}

/// A loop device, until it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &str) -> Option<Self> {
        let output = Command::new("losetup").args(["--find", "--show", file]).output().ok()?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Self(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_file_and_its_loop_device_are_one_device() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let Some(twin) = Loop::new(&d[0]) else {
        eprintln!("SKIPPED: no loop devices, or not for us");
        return;
    };
    // A loop device of a loop device, too.
    let again = Loop::new(&twin.0);
    for twin in [Some(&twin), again.as_ref()].into_iter().flatten() {
        for line in [
            format!("create tank mirror {} {}", d[0], twin.0),
            format!("create tank mirror {} {}", twin.0, d[0]),
            format!("create -f tank mirror {} {}", d[0], twin.0),
            format!("create tank {} spare {}", d[0], twin.0),
        ] {
            let said = bench.fails_untouched(&line, &d[..1]);
            assert!(said.contains("same device"), "{line}: {said}");
        }
    }
    bench.ok(&format!("create tank mirror {} {}", d[0], d[1]));
    for line in [
        format!("add tank {}", twin.0),
        format!("add -f tank spare {}", twin.0),
        format!("attach -f tank {} {}", d[1], twin.0),
        format!("replace -f tank {} {}", d[1], twin.0),
        format!("create -f dozer mirror {} {}", d[2], twin.0),
    ] {
        let before = digest(&d[2]);
        let said = bench.fails(&line);
        assert!(said.contains("same device") || said.contains("part of pool 'tank'"), "{line}: {said}");
        assert_eq!(digest(&d[2]), before, "{line}");
    }
    assert_eq!(bench.state("tank"), "ONLINE");
    assert!(bench.ok("check tank").contains("no problems"));
    // Both are found at an import, and taken as the one device that they are.
    bench.ok("export tank");
    bench.ok(&format!("import -d {} -d {} tank", bench.path(""), twin.0));
    assert_eq!(bench.state("tank"), "ONLINE");
}

/// What is mounted is in use, whoever overrides what.
#[test]
fn a_file_that_is_mounted_is_refused_in_spite_of_force() {
    let bench = Bench::new();
    let (disk, folder) = (bench.disk("d", DISK), bench.path("mnt"));
    std::fs::create_dir(&folder).unwrap();
    let sh =
        |line: String| Command::new("sh").args(["-c", &line]).status().is_ok_and(|status| status.success());
    if !sh(format!("mkfs.ext4 -qF {disk} && mount -o loop {disk} {folder}")) {
        eprintln!("SKIPPED: no mkfs.ext4 or no loop devices, or not for us");
        return;
    }
    let said = bench.run(&format!("create -f tank {disk}"));
    let unmounted = sh(format!("umount {folder}"));
    assert!(said.code == 1 && said.err.contains(&folder) && said.err.contains("unmount"), "{}", said.err);
    assert!(unmounted && sh(format!("fsck.ext4 -fn {disk}")));
    bench.ok(&format!("create -f tank {disk}"));
}
