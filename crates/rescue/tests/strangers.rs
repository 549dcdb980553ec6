//! Disks with a file system and nothing else are members of nothing: `COFFER_STRANGERS=N` makes that many of them (18 without), by
//! the file systems' own tools. Those that are not there are left out.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use device::Rng;
use geometry::md::Shape;
use rescue::{Image, plan, scan};

/// What is made, what it is called when it is recognised, and the least MiB of it.
const KINDS: [(&str, &str, &[&str], u64); 15] = [
    ("ext2", "ext2", &["mke2fs", "-qF", "-text2", "-b1024"], 2),
    ("ext3", "ext3", &["mke2fs", "-qF", "-text3", "-b4096"], 8),
    ("ext4", "ext4", &["mke2fs", "-qF", "-text4", "-b4096"], 8),
    ("ext4 of small blocks", "ext4", &["mke2fs", "-qF", "-text4", "-b1024"], 4),
    ("ext4 without checksums", "ext4", &["mke2fs", "-qF", "-text4", "-O^metadata_csum,^64bit"], 8),
    ("xfs", "xfs", &["mkfs.xfs", "-qf"], 300),
    ("xfs without checksums", "xfs", &["mkfs.xfs", "-qf", "-mcrc=0,finobt=0,reflink=0"], 300),
    ("btrfs", "btrfs", &["mkfs.btrfs", "-qf"], 120),
    ("mixed btrfs", "btrfs", &["mkfs.btrfs", "-qfM"], 32),
    ("ntfs", "ntfs", &["mkntfs", "-qFQ", "-s512", "-p0", "-H0", "-S0"], 4),
    ("fat12", "fat", &["mkfs.vfat", "-F12"], 1),
    ("fat16", "fat", &["mkfs.vfat", "-F16"], 16),
    ("fat32", "fat", &["mkfs.vfat", "-F32"], 40),
    ("exfat", "exfat", &["mkfs.exfat"], 4),
    ("swap", "swap", &["mkswap"], 1),
];

/// For so many of them it is looked for arrays without superblocks, too, which takes far longer.
const PLANNED: usize = 90;

/// Some files of random bytes and of text, at most so many bytes.
fn files(folder: &Path, rng: &mut Rng, most: u64) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder).unwrap();
    let mut left = most;
    for number in 0..rng.below(40) {
        let mut bytes = vec![b'x'; rng.below(1 + left.min(1 << 18)) as usize];
        if rng.chance(2, 3) {
            rng.fill(&mut bytes);
        }
        left -= bytes.len() as u64;
        fs::write(folder.join(format!("file-{number}")), bytes).unwrap();
    }
}

/// Makes one; `false` without the tool.
fn make(kind: &[&str], least: u64, image: &Path, scratch: &Path, rng: &mut Rng) -> bool {
    let size = (least << 20) + rng.below(least << 8) * 4096 + rng.below(8) * 512;
    let file = fs::File::create(image).unwrap();
    file.set_len(size).unwrap();
    let name = kind[0];
    // What is free may hold anything.
    if matches!(name, "mkfs.vfat" | "mkfs.exfat" | "mkswap") {
        let mut bytes = vec![0; 1 << 19];
        rng.fill(&mut bytes);
        file.write_all_at(&bytes, size - (1 << 19)).unwrap();
    }
    let mut command = Command::new(name);
    command.args(&kind[1..]);
    let folder = scratch.join("files");
    files(&folder, rng, size / 4);
    match name {
        "mke2fs" => command.arg("-d").arg(&folder),
        "mkfs.btrfs" => command.arg("--rootdir").arg(&folder),
        _ => &mut command,
    };
    command.arg(image).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn file_systems_are_members_of_nothing() {
    let wanted = std::env::var("COFFER_STRANGERS").ok();
    let count: usize = wanted.as_ref().map_or(18, |count| count.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(5);
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    for number in 0..count {
        let (kind, called, command, least) = KINDS[number % KINDS.len()];
        let path = scratch.path().join("disk.img");
        if !make(command, least, &path, scratch.path(), &mut rng) {
            continue;
        }
        *made.entry(kind).or_default() += 1;
        let images = [Image::open(&path).unwrap()];
        let scan = scan(&images);
        let what = format!("number {number}, {kind}");
        assert!(scan.arrays.is_empty() && scan.sets.is_empty(), "{what}: {scan:?}");
        let summary = &scan.images[0];
        assert!(summary.partitions.is_empty() && summary.problems.is_empty(), "{what}: {summary:?}");
        assert!(
            matches!(&summary.holds[..], [only] if only.to_lowercase().contains(called)),
            "{what}: {:?}",
            summary.holds
        );
        if number >= PLANNED {
            continue;
        }
        // All that it may be is a disk by itself; swap is nothing to be rescued.
        for candidate in plan(&images, &scan).candidates {
            let shape = Shape::from_codes(candidate.level, candidate.layout).unwrap();
            let alone = shape == Shape::Linear && candidate.slots.len() == 1;
            assert!(alone || candidate.score <= 50, "{what}: {candidate:?}");
        }
    }
    if wanted.is_some() {
        println!("{made:?}");
    }
}
