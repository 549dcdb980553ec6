//! Files of FAT12, FAT16 and FAT32.

use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, SystemTime};

use fatfs::{DateTime, DirEntry, FileSystem as Reader, FsOptions};

use super::bytes::Bytes;
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt};

/// Most names in a folder: what the format allows.
const ENTRIES_MAX: usize = 65536;

pub(super) struct Fat<'a>(&'a Reader<Bytes>);

pub(super) fn load(bytes: &Bytes) -> Result<Reader<Bytes>, String> {
    Reader::new(bytes.clone(), FsOptions::new()).map_err(|error| error.to_string())
}

impl<'a> Fat<'a> {
    pub(super) fn open(reader: &'a Reader<Bytes>) -> Self {
        Self(reader)
    }
}

impl<'a> FileSystem for Fat<'a> {
    /// `None` is the root.
    type Node = Option<DirEntry<'a, Bytes>>;

    fn root(&mut self) -> Self::Node {
        None
    }

    fn list(&mut self, folder: &Self::Node) -> Result<Listing<Self::Node>, String> {
        let folder = folder.as_ref().map_or_else(|| self.0.root_dir(), DirEntry::to_dir);
        let mut listing = Listing { entries: Vec::new(), cut: None };
        for entry in folder.iter() {
            match entry {
                Ok(_) if listing.entries.len() == ENTRIES_MAX => {
                    listing.cut = Some(format!("it has more than {ENTRIES_MAX} names"));
                    break;
                }
                Ok(entry) => {
                    let name = entry.file_name().into_bytes();
                    listing.entries.push(Entry { name, node: Some(entry), id: None });
                }
                Err(error) => {
                    listing.cut = Some(error.to_string());
                    break;
                }
            }
        }
        Ok(listing)
    }

    fn about(&mut self, node: &Self::Node) -> Result<About, String> {
        let entry = node.as_ref().ok_or("it is the root")?;
        let kind = if entry.is_dir() { Kind::Folder } else { Kind::File(entry.len()) };
        Ok(About { kind, modified: time(entry.modified()), mode: None })
    }

    fn link(&mut self, _: &Self::Node) -> Result<Vec<u8>, String> {
        Err("there are no links".to_owned())
    }

    fn open(&mut self, file: &Self::Node, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        let entry = file.as_ref().ok_or("it is the root")?;
        let mut file = entry.to_file();
        let mut position = 0;
        copy(&mut |at, buffer| {
            if position != at {
                file.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
            }
            // After an error nobody knows where it is.
            position = u64::MAX;
            let got = file.read(buffer).map_err(|error| error.to_string())?;
            position = at + got as u64;
            Ok(got)
        });
        Ok(())
    }
}

/// A time of FAT, which knows no zones: it is taken for UTC.
fn time(time: DateTime) -> Option<SystemTime> {
    let (year, month, day) =
        (u64::from(time.date.year), u64::from(time.date.month), u64::from(time.date.day));
    let [hour, minute, second] = [time.time.hour, time.time.min, time.time.sec].map(u64::from);
    moment((year, month, day), hour * 3600 + minute * 60 + second)
}

/// The moment of a date from 1980 on, and of a second of that day.
pub(super) fn moment((year, month, day): (u64, u64, u64), second: u64) -> Option<SystemTime> {
    if year < 1980 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let days_before_1970 = 719_468;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs((days - days_before_1970) * 86400 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |year, month, day| {
            let date = fatfs::Date { year, month, day };
            let time =
                super::time(DateTime { date, time: fatfs::Time { hour: 1, min: 2, sec: 4, millis: 0 } });
            time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
        };
        // From date(1).
        assert_eq!(at(1980, 1, 1), Some(315_532_800 + 3724));
        assert_eq!(at(2024, 2, 29), Some(1_709_164_800 + 3724));
        assert_eq!(at(2107, 12, 31), Some(4_354_732_800 + 3724));
        assert_eq!(at(0, 0, 0), None);
    }
}
