//! Puts files into an exFAT file system that `mkfs.exfat` has made: there is no tool that does without mounting it. `fsck.exfat` says
//! whether what was written is sound.

use std::fs;
use std::path::{Path, PathBuf};

const CLUSTER_END: u32 = u32::MAX;
/// 2024-02-29 13:02:04, two hours ahead of UTC.
const MODIFIED: (u32, u8) = (44 << 25 | 2 << 21 | 29 << 16 | 13 << 11 | 2 << 5 | 2, 0x88);

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

struct Image {
    bytes: Vec<u8>,
    fat: usize,
    heap: usize,
    cluster: usize,
    bitmap: usize,
    next: u32,
    /// How many streams were written: every other one lies in pieces.
    streams: usize,
}

impl Image {
    fn place(&self, cluster: u32) -> usize {
        self.heap + (cluster as usize - 2) * self.cluster
    }

    fn take(&mut self, cluster: u32) {
        self.bytes[self.bitmap + (cluster as usize - 2) / 8] |= 1 << ((cluster - 2) % 8);
    }

    fn chain(&mut self, cluster: u32, next: u32) {
        let at = self.fat + cluster as usize * 4;
        self.bytes[at..at + 4].copy_from_slice(&next.to_le_bytes());
    }

    /// Writes bytes into free clusters; the first of them, and whether they lie in a row.
    fn stream(&mut self, bytes: &[u8]) -> (u32, bool) {
        if bytes.is_empty() {
            return (0, false);
        }
        self.streams += 1;
        let in_a_row = self.streams.is_multiple_of(2);
        let first = self.next;
        let mut last = None;
        for piece in bytes.chunks(self.cluster) {
            let cluster = self.next;
            self.next += if in_a_row { 1 } else { 2 };
            let at = self.place(cluster);
            self.bytes[at..at + piece.len()].copy_from_slice(piece);
            self.take(cluster);
            if !in_a_row {
                last.into_iter().for_each(|last| self.chain(last, cluster));
                self.chain(cluster, CLUSTER_END);
            }
            last = Some(cluster);
        }
        (first, in_a_row)
    }

    /// The entries of everything in a folder, which is written with all below it.
    fn entries(&mut self, folder: &Path) -> Vec<u8> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let mut entries = Vec::new();
        for path in paths {
            let mut bytes = if path.is_dir() { self.entries(&path) } else { fs::read(&path).unwrap() };
            if path.is_dir() {
                bytes.resize(bytes.len().next_multiple_of(self.cluster).max(self.cluster), 0);
            }
            let (first, in_a_row) = self.stream(&bytes);
            let name: Vec<u16> = path.file_name().unwrap().to_str().unwrap().encode_utf16().collect();
            entries.extend(set(&name, path.is_dir(), first, in_a_row, bytes.len() as u64));
        }
        entries
    }
}

/// The entries of one name.
fn set(name: &[u16], folder: bool, first: u32, in_a_row: bool, length: u64) -> Vec<u8> {
    let names = name.len().div_ceil(15);
    let mut set = vec![0; 32 * (2 + names)];
    set[0] = 0x85;
    set[1] = 1 + names as u8;
    set[4] = if folder { 0x10 } else { 0x20 };
    for at in [8, 12, 16] {
        set[at..at + 4].copy_from_slice(&MODIFIED.0.to_le_bytes());
    }
    set[22..25].fill(MODIFIED.1);
    set[32] = 0xc0;
    set[33] = 1 | u8::from(in_a_row) << 1;
    set[35] = name.len() as u8;
    // Upper case of the letters that the tests use.
    let upper =
        |unit: u16| if matches!(unit, 0x61..=0x7a | 0xe0..=0xf6 | 0xf8..=0xfe) { unit - 32 } else { unit };
    let letters = name.iter().flat_map(|unit| upper(*unit).to_le_bytes());
    let hash = letters.fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(byte.into()));
    set[36..38].copy_from_slice(&hash.to_le_bytes());
    set[40..48].copy_from_slice(&length.to_le_bytes());
    set[52..56].copy_from_slice(&first.to_le_bytes());
    set[56..64].copy_from_slice(&length.to_le_bytes());
    for (index, part) in name.chunks(15).enumerate() {
        let at = 64 + 32 * index;
        set[at] = 0xc1;
        for (unit, place) in part.iter().zip((at + 2..).step_by(2)) {
            set[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
    }
    let covered = set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    let sum = covered.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
    set[2..4].copy_from_slice(&sum.to_le_bytes());
    set
}

/// Writes all that is in a folder into the image of an empty file system.
pub fn fill(path: &Path, files: &Path) {
    let bytes = fs::read(path).unwrap();
    let sector = 1_usize << bytes[108];
    let root = le32(&bytes, 96);
    let mut image = Image {
        fat: le32(&bytes, 80) as usize * sector,
        heap: le32(&bytes, 88) as usize * sector,
        cluster: sector << bytes[109],
        bitmap: 0,
        next: root + 1,
        streams: 0,
        bytes,
    };
    let at = image.place(root);
    let known = image.bytes[at..].chunks(32).take_while(|entry| entry[0] != 0).count();
    let bitmap = (0..known).map(|index| at + 32 * index).find(|at| image.bytes[*at] == 0x81).unwrap();
    image.bitmap = image.place(le32(&image.bytes, bitmap + 20));
    let entries = image.entries(files);
    assert!(32 * known + entries.len() < image.cluster, "the root has one cluster");
    image.bytes[at + 32 * known..][..entries.len()].copy_from_slice(&entries);
    fs::write(path, &image.bytes).unwrap();
}
