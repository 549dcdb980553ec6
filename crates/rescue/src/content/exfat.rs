//! exFAT: the boot region with its copy, the table of upper case, and folders, whose entries carry checksums.

use device::BlockDevice;

use super::bytes::{le16, le32, le64};
use super::{Checks, read};

/// Bytes of an entry of a folder.
pub(crate) const ENTRY: usize = 32;
/// The first cluster has this number.
pub(crate) const FIRST: u32 = 2;
/// The numbers behind this many mean something else.
const CLUSTERS_MAX: u32 = u32::MAX - 10;
/// Sectors of the boot region, and of its copy behind it; the last of them is the sum of the others.
const REGION: u64 = 12;
/// Most bytes of upper case: every letter by itself.
const UPPER_MAX: u64 = 128 << 10;
/// Most entries and folders that are looked at.
const ENTRIES_MAX: usize = 8192;
const FOLDERS_MAX: usize = 512;

/// Types of entries.
const END: u8 = 0;
const UPPER: u8 = 0x82;
const FILE: u8 = 0x85;
const STREAM: u8 = 0xc0;
const NAME: u8 = 0xc1;

/// What the boot sector says. Sizes and places are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exfat {
    pub(crate) sector: u64,
    pub(crate) cluster: u64,
    pub(crate) clusters: u32,
    pub(crate) size: u64,
    fat: u64,
    heap: u64,
    pub(crate) root: u32,
}

/// A file or folder, as its entries have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// UTF-16.
    pub(crate) name: Vec<u16>,
    pub(crate) folder: bool,
    pub(crate) place: Stream,
    /// When it was changed: date and time of FAT, and the zone.
    pub(crate) modified: (u32, u8),
}

/// Where bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) first: u32,
    /// One cluster after the other; else the table tells which is next.
    pub(crate) in_a_row: bool,
    pub(crate) length: u64,
    /// What follows was never written, and is zeros.
    pub(crate) valid: u64,
}

/// What is found in a folder.
pub(crate) enum Item {
    Named(Named),
    /// The table of upper case, with its sum.
    Upper(Stream, u32),
    /// Entries that don't fit together.
    Damaged,
    /// The folder ends here.
    End,
}

/// The sum of bytes as exFAT has it, from one on.
fn sum(start: u32, bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(start, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(byte)))
}

/// The sum of the entries of a file, which the first of them has.
pub(crate) fn set_sum(entries: &[u8]) -> u16 {
    let covered = entries.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    covered.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

impl Exfat {
    /// The boot sector in these 512 bytes, if it is one that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(3..11)? != b"EXFAT   " || bytes.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        let (sector_shift, cluster_shift) = (bytes[108], bytes[109]);
        if !(9..=12).contains(&sector_shift) || sector_shift + cluster_shift > 25 {
            return None;
        }
        let sector = 1_u64 << sector_shift;
        let this = Self {
            sector,
            cluster: sector << cluster_shift,
            clusters: le32(bytes, 92),
            size: le64(bytes, 72).checked_mul(sector)?,
            fat: u64::from(le32(bytes, 80)) * sector,
            heap: u64::from(le32(bytes, 88)) * sector,
            root: le32(bytes, 96),
        };
        let end = this.heap + u64::from(this.clusters) * this.cluster;
        let plausible = this.fat >= 2 * REGION * sector
            && this.heap > this.fat
            && this.clusters <= CLUSTERS_MAX
            && end <= this.size
            && this.place(this.root).is_some();
        plausible.then_some(this)
    }

    /// Where a cluster lies, if there is one with this number.
    pub(crate) fn place(&self, cluster: u32) -> Option<u64> {
        let index = cluster.checked_sub(FIRST).filter(|index| *index < self.clusters)?;
        Some(self.heap + u64::from(index) * self.cluster)
    }

    /// Where the table says which cluster follows this one.
    pub(crate) fn next_at(&self, cluster: u32) -> u64 {
        self.fat + u64::from(cluster) * 4
    }

    /// What the entries from the beginning of these on are, and how many bytes they take; nothing if they go on behind the end
    /// of these bytes.
    pub(crate) fn item(&self, entries: &[u8]) -> Option<(Option<Item>, usize)> {
        let first = entries.get(..ENTRY)?;
        match first[0] {
            END => return Some((Some(Item::End), ENTRY)),
            UPPER => {
                let length = le64(first, 24);
                let place = Stream { first: le32(first, 20), in_a_row: false, length, valid: length };
                return Some((Some(Item::Upper(place, le32(first, 4))), ENTRY));
            }
            FILE => {}
            // Secondary entries come with a primary one.
            STREAM | NAME => return Some((Some(Item::Damaged), ENTRY)),
            _ => return Some((None, ENTRY)),
        }
        let length = (usize::from(first[1]) + 1) * ENTRY;
        if !(3..=19).contains(&(length / ENTRY)) {
            return Some((Some(Item::Damaged), ENTRY));
        }
        let all = entries.get(..length)?;
        let whole = set_sum(all) == le16(first, 2);
        Some(match whole.then(|| self.named(all)).flatten() {
            Some(named) => (Some(Item::Named(named)), length),
            None => (Some(Item::Damaged), ENTRY),
        })
    }

    /// A file or folder of these entries, whose sum is right.
    fn named(&self, entries: &[u8]) -> Option<Named> {
        let (file, stream) = (&entries[..ENTRY], &entries[ENTRY..2 * ENTRY]);
        let names = entries[2 * ENTRY..].chunks_exact(ENTRY).take_while(|entry| entry[0] == NAME);
        let letters = names.flat_map(|entry| entry[2..].chunks_exact(2).map(|unit| le16(unit, 0)));
        let name: Vec<u16> = letters.take(usize::from(stream[3])).collect();
        let place = Stream {
            first: le32(stream, 20),
            in_a_row: stream[1] & 2 != 0,
            length: le64(stream, 24),
            valid: le64(stream, 8),
        };
        let fits = stream[0] == STREAM
            && !name.is_empty()
            && name.len() == usize::from(stream[3])
            && place.length <= self.size
            && (place.length == 0 || self.place(place.first).is_some());
        let (folder, modified) = (le16(file, 4) & 0x10 != 0, (le32(file, 12), file[23]));
        fits.then_some(Named { name, folder, place, modified })
    }

    /// Looks at everything that the file system says about itself.
    pub(super) fn check(&self, device: &dyn BlockDevice, checks: &mut Checks) {
        for region in [0, REGION * self.sector] {
            checks.count(self.region_fits(device, region));
        }
        let root = Stream { first: self.root, in_a_row: false, length: u64::MAX, valid: u64::MAX };
        let mut folders = vec![root];
        let (mut entries, mut seen) = (0, 0);
        while let Some(folder) = folders.pop().filter(|_| entries < ENTRIES_MAX) {
            seen += 1;
            let bytes = self.bytes(device, folder);
            checks.count(bytes.as_ref().map(|bytes| {
                // Most folders begin with something, and what is no folder seldom does with one of these.
                matches!(bytes.first(), Some(&FILE | 0..=3 | 5 | 0x81..=0x83 | 0xa0))
            }));
            let mut rest = &bytes.unwrap_or_default()[..];
            while let Some((item, length)) = self.item(rest).filter(|_| entries < ENTRIES_MAX) {
                rest = &rest[length..];
                entries += 1;
                match item {
                    Some(Item::Named(named)) => {
                        checks.count(Some(true));
                        if named.folder && seen + folders.len() < FOLDERS_MAX {
                            folders.push(named.place);
                        }
                    }
                    Some(Item::Upper(place, wanted)) if place.length <= UPPER_MAX => {
                        let bytes = self.bytes(device, place);
                        checks.count(bytes.map(|bytes| sum(0, bytes.into_iter()) == wanted));
                    }
                    Some(Item::Upper(..) | Item::Damaged) => checks.count(Some(false)),
                    Some(Item::End) => break,
                    None => {}
                }
            }
        }
    }

    /// Whether a boot region has the sum that its last sector says all over.
    fn region_fits(&self, device: &dyn BlockDevice, at: u64) -> Option<bool> {
        let bytes = read(device, at, (REGION * self.sector) as usize)?;
        let (covered, sums) = bytes.split_at(((REGION - 1) * self.sector) as usize);
        // Flags and how full it is change without it.
        let kept = covered.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
        let wanted = sum(0, kept.map(|(_, byte)| *byte));
        Some(sums.chunks_exact(4).all(|sum| le32(sum, 0) == wanted))
    }

    /// The bytes of a folder or a small table, as far as clusters follow each other; `None` if the first can't be read.
    fn bytes(&self, device: &dyn BlockDevice, place: Stream) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut cluster, length) = (place.first, place.length.min((ENTRIES_MAX * ENTRY) as u64));
        while (bytes.len() as u64) < length
            && let Some(at) = self.place(cluster)
        {
            let Some(more) = read(device, at, (self.cluster.min(length)) as usize) else { break };
            bytes.extend(more);
            let next = || read(device, self.next_at(cluster), 4).map_or(0, |next| le32(&next, 0));
            cluster = if place.in_a_row { cluster + 1 } else { next() };
        }
        bytes.truncate(length as usize);
        (!bytes.is_empty()).then_some(bytes)
    }
}
