//! File systems with files on them, made by the system's own tools.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use device::Rng;

fn ran(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A folder of files of random bytes, text and zeros, in folders of folders; about `total` bytes.
fn files(folder: &Path, rng: &mut Rng, total: u64) {
    let mut left = total;
    let mut place = folder.to_owned();
    for number in 0..10_000 {
        if rng.chance(1, 8) {
            let base = if rng.chance(1, 2) { folder } else { &*place };
            place = base.join(format!("folder-{number}"));
            fs::create_dir_all(&place).unwrap();
        }
        let length = if rng.chance(1, 10) { rng.below(1 << 20) } else { rng.below(60_000) }.min(left);
        let mut bytes = vec![0; length as usize];
        match rng.below(3) {
            0 => bytes
                .iter_mut()
                .enumerate()
                .for_each(|(at, byte)| *byte = b"the quick brown fox, "[(at + number) % 21]),
            _ => rng.fill(&mut bytes),
        }
        fs::write(place.join(format!("file-{number}.bin")), bytes).unwrap();
        left -= length;
        if left == 0 {
            return;
        }
    }
}

/// A file system of `size` bytes with files on it: mostly ext4, some btrfs where it can be made; NTFS if it is asked for, since
/// of so small a one little is known. `None` without `mke2fs`.
pub fn any(scratch: &Path, rng: &mut Rng, size: u64, told: Option<(u64, u64)>) -> Option<Vec<u8>> {
    let wanted = std::env::var("COFFER_RESCUE_CONTENT").unwrap_or_default();
    let kind = rng.below(8);
    let other = match wanted.as_str() {
        "ext4" => None,
        "btrfs" => btrfs(scratch, rng, size, None),
        "ntfs" => ntfs(scratch, rng, size),
        _ if kind == 0 => btrfs(scratch, rng, size.max(32 << 20), None),
        _ => None,
    };
    other.or_else(|| ext4(scratch, rng, size, told))
}

/// A btrfs file system, if `mkfs.btrfs` is there.
pub fn btrfs(scratch: &Path, rng: &mut Rng, size: u64, profile: Option<&[&str]>) -> Option<Vec<u8>> {
    let (folder, image) = fresh(scratch);
    let share = rng.within(20..50);
    files(&folder, rng, size / 100 * share);
    fs::File::create(&image).and_then(|file| file.set_len(size)).ok()?;
    let mut command = Command::new("mkfs.btrfs");
    let profiles: &[&str] = rng.choose(&[&["-M"][..], &["-m", "single"], &["-m", "dup"]]).unwrap();
    command.arg("-q").args(profile.unwrap_or(profiles)).arg("--rootdir").arg(&folder).arg(&image);
    let made = ran(&mut command);
    let _ = fs::remove_dir_all(&folder);
    if made { fs::read(&image).ok() } else { None }
}

/// An NTFS file system, if `mkntfs` and `ntfscp` are there.
fn ntfs(scratch: &Path, rng: &mut Rng, size: u64) -> Option<Vec<u8>> {
    let (folder, image) = fresh(scratch);
    let share = rng.within(20..60);
    files(&folder, rng, size / 100 * share);
    fs::File::create(&image).and_then(|file| file.set_len(size)).ok()?;
    let mut command = Command::new("mkntfs");
    command.args(["-q", "-F", "-Q", "-s", "512", "-p", "0", "-H", "0", "-S", "0"]).arg(&image);
    let mut made = ran(&mut command);
    let mut waiting = vec![folder.clone()];
    let mut number = 0;
    while let Some(next) = waiting.pop().filter(|_| made) {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                waiting.push(entry);
            } else {
                number += 1;
                made &=
                    ran(Command::new("ntfscp").arg("-f").arg(&image).arg(&entry).arg(format!("/f{number}")));
            }
        }
    }
    let _ = fs::remove_dir_all(&folder);
    if made { fs::read(&image).ok() } else { None }
}

/// Paths for files and an image of them, with nothing there but the empty folder.
fn fresh(scratch: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let (folder, image) = (scratch.join("files"), scratch.join("image"));
    let _ = fs::remove_dir_all(&folder);
    let _ = fs::remove_file(&image);
    fs::create_dir_all(&folder).unwrap();
    (folder, image)
}

/// An ext4 file system of `size` bytes, told of its stripes if `told`: bytes of a chunk and data members. `None` without
/// `mke2fs`.
pub fn ext4(scratch: &Path, rng: &mut Rng, size: u64, told: Option<(u64, u64)>) -> Option<Vec<u8>> {
    let (folder, image) = fresh(scratch);
    let share = rng.within(20..80);
    files(&folder, rng, size / 100 * share * 7 / 10);
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096"]);
    // As many groups as large file systems have, each with a copy of the superblock or none.
    command.args(["-g", "1024"]);
    if let Some((chunk, members)) = told.filter(|(chunk, _)| *chunk >= 4096) {
        command.args(["-E", &format!("stride={},stripe-width={}", chunk / 4096, chunk / 4096 * members)]);
    }
    command.arg("-d").arg(&folder).arg(&image).arg(format!("{}k", size >> 10));
    let made = ran(&mut command);
    let _ = fs::remove_dir_all(&folder);
    if made { fs::read(&image).ok() } else { None }
}
