//! Backing files in a folder of memory, and data to fill them with.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// A folder of our own that goes away with its contents.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder in `parent`.
    pub fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("coffer-bench.{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A new empty sparse file of `bytes`; one of that name is replaced.
    pub fn file(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.0.join(name);
        let _ = fs::remove_file(&path);
        File::create(&path)?.set_len(bytes)?;
        Ok(path)
    }

    /// Removes every file, not the folder.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let _ = fs::remove_dir(entry.path());
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Incompressible bytes, and their hash.
#[derive(Debug)]
pub struct Noise {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// XXH3 of all of them.
    pub hash: u128,
}

impl Noise {
    /// So many bytes from a seed.
    pub fn new(seed: u64, length: u64) -> Self {
        let mut bytes = vec![0; length as usize];
        device::Rng::new(seed).fill(&mut bytes);
        let hash = xxh3_128(&bytes);
        Self { bytes, hash }
    }
}

/// Writes all of `data` to a file in calls of one MiB, and makes it durable.
pub fn write_file(path: &Path, data: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    for part in data.chunks(MIB as usize) {
        file.write_all(part)?;
    }
    Ok(file.sync_all()?)
}

/// Reads a file in calls of one MiB and compares its hash.
pub fn read_file(path: &Path, noise: &Noise) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; MIB as usize];
    let mut hash = Xxh3::new();
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    ensure!(hash.digest128() == noise.hash, "{} does not hold what was written to it", path.display());
    Ok(())
}

/// Writes `total` bytes to some files in turn, in calls of one MiB, and makes them durable.
pub fn write_plainly(paths: &[PathBuf], total: u64, data: &[u8]) -> Result<()> {
    let files: Vec<File> =
        paths.iter().map(|path| File::options().write(true).open(path)).collect::<Result<_, _>>()?;
    let parts: Vec<&[u8]> = data.chunks_exact(MIB as usize).collect();
    for index in 0..total / MIB {
        let file = &files[index as usize % files.len()];
        file.write_all_at(parts[index as usize % parts.len()], index / files.len() as u64 * MIB)?;
    }
    for file in &files {
        file.sync_all()?;
    }
    Ok(())
}
