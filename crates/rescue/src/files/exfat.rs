//! Files of exFAT. The crates for it are not kept up or made for small devices, so this one is our own.

use std::time::{Duration, SystemTime};

use super::bytes::{Bytes, SECTOR};
use super::fat::moment;
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt};
use crate::content::exfat::{ENTRY, Exfat as Boot, FIRST, Item, Named, Stream};

/// The largest folder that the format allows, bytes.
const FOLDER_MAX: u64 = 256 << 20;
/// Where a copy of the boot sector is, sectors.
const COPY: u64 = 12;
/// An entry that is not in use, in place of one that can't be read.
const UNUSED: u8 = 5;

pub(super) struct Exfat<'a> {
    boot: Boot,
    bytes: &'a Bytes,
}

/// Clusters one after the other.
struct Run {
    first: u32,
    count: u32,
}

impl<'a> Exfat<'a> {
    pub(super) fn open(bytes: &'a Bytes) -> Result<Self, String> {
        let mut sector = [0; SECTOR];
        let places = std::iter::once(0).chain((9..=12).map(|shift| COPY << shift));
        for at in places {
            if bytes.fetch(at, &mut sector).is_ok()
                && let Some(boot) = Boot::parse(&sector)
                && (at == 0 || at == COPY * boot.sector)
            {
                return Ok(Self { boot, bytes });
            }
        }
        Err("neither its boot sector nor the copy of that can be had".to_owned())
    }

    /// The cluster that the table has behind this one; `None` at the end.
    fn next(&self, cluster: u32) -> Result<Option<u32>, String> {
        let mut next = [0; 4];
        self.bytes.fetch(self.boot.next_at(cluster), &mut next).map_err(|error| error.to_string())?;
        let next = u32::from_le_bytes(next);
        Ok(self.boot.place(next).map(|_| next))
    }

    /// Where the clusters of a stream lie, and why there are no more of them.
    fn runs(&self, stream: Stream) -> (Vec<Run>, String) {
        let wanted = stream.length.div_ceil(self.boot.cluster).min(u64::from(self.boot.clusters)) as u32;
        let early = "its clusters end early".to_owned();
        let mut runs: Vec<Run> = Vec::new();
        if self.boot.place(stream.first).is_none() {
            return (runs, early);
        }
        if stream.in_a_row {
            let count = wanted.min(self.boot.clusters - (stream.first - FIRST));
            return (vec![Run { first: stream.first, count }], early);
        }
        let mut cluster = stream.first;
        for _ in 0..wanted {
            match runs.last_mut() {
                Some(run) if run.first + run.count == cluster => run.count += 1,
                _ => runs.push(Run { first: cluster, count: 1 }),
            }
            cluster = match self.next(cluster) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(why) => return (runs, why),
            };
        }
        (runs, early)
    }

    /// Reads from one place in the clusters on; how much.
    fn read(&self, runs: &[Run], at: u64, buffer: &mut [u8]) -> Result<Option<usize>, String> {
        let mut before = 0;
        for run in runs {
            let length = u64::from(run.count) * self.boot.cluster;
            if at < before + length {
                let place = self.boot.place(run.first).ok_or("there is no such cluster")? + (at - before);
                let most = (before + length - at).min(buffer.len() as u64) as usize;
                self.bytes.fetch(place, &mut buffer[..most]).map_err(|error| error.to_string())?;
                return Ok(Some(most));
            }
            before += length;
        }
        Ok(None)
    }

    /// The entries of a folder; what can't be read is as if it were not in use, and why it can't.
    fn entries(&self, folder: Stream) -> (Vec<u8>, Option<String>) {
        let (runs, why) = self.runs(folder);
        let (mut bytes, mut cut) = (Vec::new(), None);
        let mut piece = vec![0; (self.boot.cluster as usize).min(64 << 10)];
        while (bytes.len() as u64) < folder.length {
            match self.read(&runs, bytes.len() as u64, &mut piece) {
                Ok(None) => break,
                Ok(Some(_)) => bytes.extend_from_slice(&piece),
                Err(_) => {
                    for sector in piece.chunks_mut(SECTOR) {
                        if let Err(why) = self.read(&runs, bytes.len() as u64, sector) {
                            sector.fill(UNUSED);
                            cut.get_or_insert(why);
                        }
                        bytes.extend_from_slice(sector);
                    }
                }
            }
            // A folder ends where its entries do, whatever room there is behind them.
            if bytes[bytes.len() - ENTRY..][0] == 0 {
                return (bytes, cut);
            }
        }
        let short = folder.length != FOLDER_MAX && (bytes.len() as u64) < folder.length;
        (bytes, cut.or(short.then_some(why)))
    }
}

impl FileSystem for Exfat<'_> {
    /// `None` is the root.
    type Node = Option<Named>;

    fn root(&mut self) -> Self::Node {
        None
    }

    fn list(&mut self, folder: &Self::Node) -> Result<Listing<Self::Node>, String> {
        // How long the root is only the table tells.
        let root = Stream { first: self.boot.root, in_a_row: false, length: FOLDER_MAX, valid: FOLDER_MAX };
        let place = folder.as_ref().map_or(root, |folder| folder.place);
        let (bytes, mut cut) = self.entries(Stream { length: place.length.min(FOLDER_MAX), ..place });
        let mut entries = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let damaged = || "entries of it don't fit together".to_owned();
            let Some((item, length)) = self.boot.item(rest) else {
                cut.get_or_insert_with(damaged);
                break;
            };
            rest = &rest[length..];
            match item {
                Some(Item::Named(named)) => {
                    let name = String::from_utf16_lossy(&named.name).into_bytes();
                    let id = named.folder.then(|| u128::from(named.place.first));
                    entries.push(Entry { name, node: Some(named), id });
                }
                Some(Item::Damaged) => drop(cut.get_or_insert_with(damaged)),
                Some(Item::End) => break,
                Some(Item::Upper(..)) | None => {}
            }
        }
        if entries.is_empty() && bytes.is_empty() && place.length > 0 {
            return Err(cut.unwrap_or_else(|| "it has no clusters".to_owned()));
        }
        Ok(Listing { entries, cut })
    }

    fn about(&mut self, node: &Self::Node) -> Result<About, String> {
        let named = node.as_ref().ok_or("it is the root")?;
        let kind = if named.folder { Kind::Folder } else { Kind::File(named.place.length) };
        Ok(About { kind, modified: time(named.modified), mode: None })
    }

    fn link(&mut self, _: &Self::Node) -> Result<Vec<u8>, String> {
        Err("there are no links".to_owned())
    }

    fn open(&mut self, file: &Self::Node, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        let place = file.as_ref().ok_or("it is the root")?.place;
        let (runs, why) = self.runs(place);
        copy(&mut |at, buffer| {
            let most = (place.length.saturating_sub(at)).min(buffer.len() as u64) as usize;
            let written = place.valid.saturating_sub(at).min(most as u64) as usize;
            if written == 0 {
                buffer[..most].fill(0);
                return Ok(most);
            }
            self.read(&runs, at, &mut buffer[..written])?.ok_or_else(|| why.clone())
        });
        Ok(())
    }
}

/// A time as FAT has it, with the quarters of an hour by which its zone is ahead, if they are known.
fn time((at, zone): (u32, u8)) -> Option<SystemTime> {
    let bits = |from: u32, count: u32| u64::from(at >> from & ((1 << count) - 1));
    let second = bits(11, 5) * 3600 + bits(5, 6) * 60 + bits(0, 5) * 2;
    let local = moment((1980 + bits(25, 7), bits(21, 4), bits(16, 5)), second)?;
    // Seven bits with a sign, if the eighth says so.
    let quarters = if zone & 0x80 == 0 { 0 } else { i64::from((zone << 1).cast_signed() >> 1) };
    let ahead = Duration::from_secs(quarters.unsigned_abs() * 900);
    if quarters < 0 { local.checked_add(ahead) } else { local.checked_sub(ahead) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_know_their_zones() {
        // 2024-02-29 13:02:04, two hours ahead of UTC, three behind it, and nobody knows.
        let at = 44 << 25 | 2 << 21 | 29 << 16 | 13 << 11 | 2 << 5 | 2;
        let seconds = |zone| {
            let since = time((at, zone))?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(since.as_secs())
        };
        // From date(1).
        let utc = 1_709_211_724;
        assert_eq!(seconds(0x80 | 8), Some(utc - 7200));
        assert_eq!(seconds(0x80 | (0x80 - 12)), Some(utc + 10800));
        assert_eq!(seconds(0), Some(utc));
    }
}
