//! What the demo stores: real files with their hashes, one after another in a volume.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use device::Rng;

/// Objects begin at multiples of this, bytes.
const ALIGN: u64 = 4096;
/// Deepest folder of the source tree.
const DEPTH: usize = 8;

/// Where an object's bytes come from.
#[derive(Clone, Debug)]
enum Source {
    /// The beginning of a file.
    File(PathBuf),
    /// Drawn from a seed.
    Drawn(u64),
}

/// Something to store.
#[derive(Clone, Debug)]
pub(super) struct Object {
    source: Source,
    /// Where in the volume, bytes.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
    /// The hash of what was written; set when it is.
    pub(super) hash: Option<blake3::Hash>,
}

impl Object {
    /// Its bytes, from the source. A file that changed its length meanwhile is padded or cut.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.source {
            Source::File(path) => {
                // A file that can't be read any more is stored as zeros: its hash is taken of what is stored.
                if let Ok(file) = File::open(path) {
                    let _ = file.take(self.length).read_to_end(&mut bytes);
                }
                bytes.resize(self.length as usize, 0);
            }
            Source::Drawn(seed) => {
                bytes.resize(self.length as usize, 0);
                Rng::new(*seed).fill(&mut bytes);
            }
        }
        bytes
    }
}

/// A set of objects.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// In the order of their offsets.
    pub(super) objects: Vec<Object>,
    /// Where the next one goes.
    end: u64,
}

impl Set {
    /// Bytes that the set takes in the volume.
    pub(super) fn size(&self) -> u64 {
        self.end
    }

    fn push(&mut self, source: Source, length: u64) {
        self.objects.push(Object { source, offset: self.end, length, hash: None });
        self.end += length.next_multiple_of(ALIGN);
    }

    /// The running program, at most `limit` bytes of it; returns how many.
    pub(super) fn push_program(&mut self, limit: u64) -> u64 {
        let Ok(path) = std::env::current_exe() else { return 0 };
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len()).min(limit);
        if length > 0 {
            self.push(Source::File(path), length);
        }
        length
    }

    /// The program's source tree, if it lies above the program, at most `limit` bytes of it; returns how many files.
    pub(super) fn push_sources(&mut self, limit: u64) -> usize {
        let program = std::env::current_exe().unwrap_or_default();
        let is_root = |dir: &&Path| dir.join("Cargo.toml").is_file() && dir.join("crates/cli").is_dir();
        let Some(root) = program.ancestors().find(is_root) else { return 0 };
        let mut files = Vec::new();
        collect(&root.join("crates"), DEPTH, &mut files);
        files.sort();
        let mut left = limit;
        let before = self.objects.len();
        for (path, length) in files {
            if length > 0 && length <= left {
                left -= length;
                self.push(Source::File(path), length);
            }
        }
        self.objects.len() - before
    }

    /// About `bytes` bytes of generated objects of many sizes; returns how many objects.
    pub(super) fn push_drawn(&mut self, bytes: u64, rng: &mut Rng) -> usize {
        let before = self.objects.len();
        let until = self.end + bytes;
        while self.end < until {
            let power = rng.within(10..22);
            let length = rng.within(1 << power..2 << power).min(until - self.end);
            self.push(Source::Drawn(rng.next_u64()), length);
        }
        self.objects.len() - before
    }
}

/// Files below a folder; links are not followed.
fn collect(dir: &Path, depth: usize, files: &mut Vec<(PathBuf, u64)>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => collect(&entry.path(), depth, files),
            Ok(metadata) if metadata.is_file() => files.push((entry.path(), metadata.len())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_sets_that_do_not_overlap() {
        let draw = || {
            let mut set = Set::default();
            set.push_drawn(8 << 20, &mut Rng::new(3));
            set
        };
        let (one, other) = (draw(), draw());
        assert_eq!(one.objects.len(), other.objects.len());
        for (a, b) in one.objects.iter().zip(&other.objects) {
            assert_eq!(a.bytes(), b.bytes());
        }
        for pair in one.objects.windows(2) {
            assert!(pair[0].offset + pair[0].length <= pair[1].offset);
        }
        assert!(one.size() >= 8 << 20 && one.size() < 9 << 20);
    }
}
