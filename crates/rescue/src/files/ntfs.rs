//! Files of NTFS. Its log is not replayed: it speaks of metadata only, and what is there is mostly whole without.

use std::io::SeekFrom;
use std::time::{Duration, SystemTime};

use ntfs::structured_values::{NtfsFileAttributeFlags, NtfsFileNamespace};
use ntfs::{KnownNtfsFileRecordNumber, Ntfs as Reader, NtfsAttributeFlags, NtfsFile, NtfsReadSeek};

use super::bytes::Bytes;
use super::walk::{About, Entry, FileSystem, Kind, Listing, ReadAt};

/// Most names in a folder.
const ENTRIES_MAX: usize = 16 << 20;
/// Records below this are those of the file system itself.
const FIRST_USER_RECORD: u64 = 16;

pub(super) struct Ntfs {
    reader: Reader,
    bytes: Bytes,
}

impl Ntfs {
    pub(super) fn open(bytes: &Bytes) -> Result<Self, String> {
        let mut bytes = bytes.clone();
        let reader = Reader::new(&mut bytes).map_err(|error| error.to_string())?;
        Ok(Self { reader, bytes })
    }

    fn file(&mut self, record: u64) -> Result<NtfsFile<'_>, String> {
        self.reader.file(&mut self.bytes, record).map_err(|error| error.to_string())
    }
}

impl FileSystem for Ntfs {
    /// The number of a record of the master file table.
    type Node = u64;

    fn root(&mut self) -> u64 {
        KnownNtfsFileRecordNumber::RootDirectory as u64
    }

    fn list(&mut self, folder: &u64) -> Result<Listing<u64>, String> {
        let mut bytes = self.bytes.clone();
        let file = self.file(*folder)?;
        let index = file.directory_index(&mut bytes).map_err(|error| error.to_string())?;
        let mut names = index.entries();
        let mut listing = Listing { entries: Vec::new(), cut: None };
        while let Some(entry) = names.next(&mut bytes) {
            let (key, record) = match entry {
                Ok(entry) => (entry.key(), entry.file_reference().file_record_number()),
                Err(error) => {
                    listing.cut = Some(error.to_string());
                    break;
                }
            };
            if listing.entries.len() == ENTRIES_MAX {
                listing.cut = Some(format!("it has more than {ENTRIES_MAX} names"));
                break;
            }
            match key {
                // What is named twice for the sake of DOS has a name of its own beside.
                Some(Ok(key)) if key.namespace() != NtfsFileNamespace::Dos && record >= FIRST_USER_RECORD => {
                    let name = key.name().to_string_lossy().into_bytes();
                    listing.entries.push(Entry { name, node: record, id: Some(record.into()) });
                }
                Some(Err(error)) => listing.cut = Some(error.to_string()),
                _ => {}
            }
        }
        Ok(listing)
    }

    fn about(&mut self, node: &u64) -> Result<About, String> {
        let mut bytes = self.bytes.clone();
        let file = self.file(*node)?;
        let info = file.info().map_err(|error| error.to_string())?;
        let modified = since_1601(info.modification_time().nt_timestamp());
        let kind = if info.file_attributes().contains(NtfsFileAttributeFlags::REPARSE_POINT) {
            Kind::Other("it is a link, or stored in a way that only Windows knows (a reparse point)")
        } else if file.is_directory() {
            Kind::Folder
        } else {
            match file.data(&mut bytes, "") {
                None => Kind::File(0),
                Some(item) => {
                    let item = item.map_err(|error| error.to_string())?;
                    Kind::File(item.to_attribute().map_err(|error| error.to_string())?.value_length())
                }
            }
        };
        Ok(About { kind, modified, mode: None })
    }

    fn link(&mut self, _: &u64) -> Result<Vec<u8>, String> {
        Err("it is no link".to_owned())
    }

    fn open(&mut self, file: &u64, copy: &mut dyn FnMut(&mut ReadAt<'_>)) -> Result<(), String> {
        let mut bytes = self.bytes.clone();
        let file = self.file(*file)?;
        let Some(item) = file.data(&mut bytes, "") else {
            copy(&mut |_, _| Ok(0));
            return Ok(());
        };
        let item = item.map_err(|error| error.to_string())?;
        let attribute = item.to_attribute().map_err(|error| error.to_string())?;
        if attribute.flags().intersects(NtfsAttributeFlags::COMPRESSED | NtfsAttributeFlags::ENCRYPTED) {
            return Err("it is compressed or encrypted by NTFS; mount the volume to read it".to_owned());
        }
        // What was set aside for a file and never written reads as zeros, whatever is there.
        let mut written = u64::MAX;
        if !attribute.is_resident()
            && let Some(at) = attribute.position().value()
        {
            written = initialized(&bytes, at.get())?;
        }
        let mut value = attribute.value(&mut bytes).map_err(|error| error.to_string())?;
        copy(&mut |at, buffer| {
            let length = value.len().saturating_sub(at).min(buffer.len() as u64);
            let there = length.min(written.saturating_sub(at)) as usize;
            buffer[there..length as usize].fill(0);
            if there == 0 {
                return Ok(length as usize);
            }
            if value.stream_position() != at {
                value.seek(&mut bytes, SeekFrom::Start(at)).map_err(|error| error.to_string())?;
            }
            let got = value.read(&mut bytes, &mut buffer[..there]).map_err(|error| error.to_string())?;
            Ok(if got == there { length as usize } else { got })
        });
        Ok(())
    }
}

/// How many bytes were written of a value whose attribute begins at byte `at` of the volume.
fn initialized(bytes: &Bytes, at: u64) -> Result<u64, String> {
    const FIELD: u64 = 0x38;
    const SECTOR: u64 = 512;
    let mut field = [0; 8];
    bytes.fetch(at + FIELD, &mut field).map_err(|error| error.to_string())?;
    // The last two bytes of each sector are kept elsewhere; there they would be zero in any file below 256 TiB.
    if (at + FIELD) % SECTOR == SECTOR - 8 {
        field[6..].fill(0);
    }
    Ok(u64::from_le_bytes(field))
}

/// A time in units of 100 ns since 1601.
fn since_1601(time: u64) -> Option<SystemTime> {
    const SECONDS_TO_1970: u64 = 11_644_473_600;
    let seconds = (time / 10_000_000).checked_sub(SECONDS_TO_1970)?;
    let nanoseconds = (time % 10_000_000) as u32 * 100;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}
