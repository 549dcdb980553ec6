//! Files of the machine to be stored: chosen, copied aside (the machine may change its own meanwhile), and hashed.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use device::Rng;

use super::SYSTEMS;
use crate::lab::Lab;

/// Parts of the files of each file system: two halves, and what the load copies over and over.
const PARTS: usize = 3;
/// The part of the load.
pub const LOAD: usize = 2;
/// Its size, bytes.
const LOAD_BYTES: u64 = 16 << 20;

/// Where a part is kept aside.
pub fn part(lab: &Lab, name: &str, part: usize) -> String {
    lab.path(&format!("aside/{name}.{part}"))
}

/// The list of hashes of a part, as sha256sum writes it.
fn sums(lab: &Lab, name: &str, part: usize) -> String {
    lab.path(&format!("aside/{name}.{part}.sums"))
}

/// Chooses files for both file systems at random, `bytes` for each, copies them aside and hashes them.
///
/// # Errors
/// They can't be read, or there are too few.
pub fn take(lab: &Lab, from: &str, bytes: u64, seed: u64) -> Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(from)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() || kind.is_symlink() {
                let size = if kind.is_file() { entry.metadata()?.len() } else { 0 };
                files.push((entry.path(), size));
            }
        }
    }
    files.sort();
    let mut rng = Rng::new(seed);
    let (mut count, mut taken) = (0, 0);
    for name in SYSTEMS {
        for index in (1..files.len()).rev() {
            files.swap(index, rng.below(index as u64 + 1) as usize);
        }
        let mut rest = files.iter();
        for index in 0..PARTS {
            let mut room = if index == LOAD { LOAD_BYTES } else { bytes / 2 };
            let (list, aside) = (lab.path("list"), part(lab, name, index));
            let mut chosen = fs::File::create(&list)?;
            // Large files come as they come, as long as they leave room for others.
            for (path, size) in rest.by_ref() {
                if *size > room.max(1 << 20) / 2 {
                    continue;
                }
                chosen.write_all(Path::strip_prefix(path, from)?.as_os_str().as_bytes())?;
                chosen.write_all(&[0])?;
                (count, taken) = (count + 1, taken + size);
                room = room.saturating_sub(*size);
                if room < 1 << 16 {
                    break;
                }
            }
            fs::create_dir_all(&aside)?;
            lab.shell(&format!(
                "tar -C '{from}' --null --verbatim-files-from -T '{list}' -cf - | tar -C '{aside}' -xpf -"
            ))?;
            let sums = sums(lab, name, index);
            lab.shell(&format!(
                "cd '{aside}'; find . -type f -print0 | sort -z | xargs -0 sha256sum > '{sums}'"
            ))?;
        }
    }
    ensure!(count > 0, "there are no files in {from}");
    Ok(format!("{count} files, {} MiB", taken >> 20))
}

/// Copies a part into a mounted file system and makes it durable; returns its size in bytes.
///
/// # Errors
/// The file system's.
pub fn copy(lab: &Lab, name: &str, index: usize, mounted: &str) -> Result<u64> {
    let aside = part(lab, name, index);
    lab.shell(&format!("cp -a '{aside}' '{mounted}/part{index}'; sync -f '{mounted}'"))?;
    let said = lab.tool("du", &["-s", "-b", &aside])?;
    said.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).context("du prints no number")
}

/// Compares the hashes of a part's files in a mounted file system; returns how many there are.
///
/// # Errors
/// Some differ, or can't be read.
pub fn compare(lab: &Lab, name: &str, index: usize, mounted: &str) -> Result<usize> {
    let sums = sums(lab, name, index);
    lab.shell(&format!("cd '{mounted}/part{index}'; sha256sum --check --quiet --strict '{sums}'"))?;
    let files = fs::read_to_string(&sums)?.lines().count();
    let there = lab.shell(&format!("find '{mounted}/part{index}' -type f -print0 | tr -cd '\\0' | wc -c"))?;
    ensure!(there.trim() == files.to_string(), "{name}: {} files instead of {files}", there.trim());
    Ok(files)
}

/// Removes a part from a mounted file system.
///
/// # Errors
/// The file system's.
pub fn remove(lab: &Lab, index: usize, mounted: &str) -> Result<()> {
    lab.shell(&format!("rm -r '{mounted}/part{index}'")).map(drop)
}
