//! NTFS: records of the master file table know their number, and the table's first record says where all of them are.

use device::BlockDevice;
use formats::NtfsBoot;

use super::bytes::{le16, le32};
use super::{Checks, read};

/// Sequence numbers replace the last two bytes of every such unit.
const SECTOR: usize = 512;
/// Most records looked at.
const RECORDS_MAX: u64 = 16384;
/// Most runs of the table that are followed.
const RUNS_MAX: usize = 4096;
const DATA: u32 = 0x80;

/// What a boot sector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ntfs {
    /// The volume's serial number.
    pub(crate) serial: u64,
    /// Bytes, without the copy of the boot sector that follows.
    pub(crate) size: u64,
    /// Bytes.
    cluster: u64,
    /// Where the table begins, bytes.
    table: u64,
    /// Where the copy of its first records is, bytes.
    mirror: u64,
    /// Bytes.
    pub(crate) record: usize,
    /// The table's runs, bytes: where each begins and how long it is.
    runs: Vec<(u64, u64)>,
}

impl Ntfs {
    /// The boot sector in these bytes, at least 512, if it is one that can be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let boot = NtfsBoot::parse(bytes).filter(|boot| boot.signed && boot.sector >= SECTOR as u64)?;
        let size = boot.sectors.checked_mul(boot.sector).filter(|size| *size <= 1 << 60)?;
        let place = |cluster: u64| cluster.checked_mul(boot.cluster).filter(|place| *place < size);
        Some(Self {
            serial: boot.serial,
            size,
            cluster: boot.cluster,
            table: place(boot.table)?,
            mirror: place(boot.mirror)?,
            record: boot.record? as usize,
            runs: Vec::new(),
        })
    }

    /// The record in these bytes, with its sectors' ends put back; `None` if it is none or torn.
    fn record_in(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut record = bytes.get(..self.record)?.to_vec();
        let (at, count) = (usize::from(le16(&record, 4)), usize::from(le16(&record, 6)));
        if !record.starts_with(b"FILE") || count != self.record / SECTOR + 1 || at + 2 * count > SECTOR - 2 {
            return None;
        }
        let number = [record[at], record[at + 1]];
        for index in 1..count {
            let end = index * SECTOR - 2;
            if record[end..end + 2] != number {
                return None;
            }
            record.copy_within(at + 2 * index..at + 2 * index + 2, end);
        }
        Some(record)
    }

    /// The number of the record in these bytes, if it is one. Its first sector is enough.
    pub(crate) fn number_in(&self, bytes: &[u8]) -> Option<u32> {
        let sector = bytes.get(..SECTOR)?;
        let (at, count) = (usize::from(le16(sector, 4)), usize::from(le16(sector, 6)));
        // Before version 3.1 the number was not there, and the list of replaced bytes began in its place.
        let fits = sector.starts_with(b"FILE")
            && count == self.record / SECTOR + 1
            && (0x30..=SECTOR - 2 - 2 * count).contains(&at)
            && sector[SECTOR - 2..] == sector[at..at + 2];
        fits.then(|| le32(sector, 0x2c))
    }

    /// Learns from the table's first record, which is in these bytes, where the table is; says whether it did.
    pub(crate) fn learn(&mut self, bytes: &[u8]) -> bool {
        let runs = self
            .record_in(bytes)
            .filter(|record| le32(record, 0x2c) == 0)
            .and_then(|record| self.runs_of(&record));
        let found = runs.filter(|runs| runs.first().is_some_and(|(start, _)| *start == self.table));
        let Some(runs) = found else { return false };
        self.runs = runs;
        true
    }

    /// The runs of a record's unnamed data, bytes.
    fn runs_of(&self, record: &[u8]) -> Option<Vec<(u64, u64)>> {
        let mut at = usize::from(le16(record, 20));
        loop {
            let (kind, length) = (le32(record, at), le32(record, at + 4) as usize);
            let attribute = record.get(at..at.checked_add(length)?).filter(|bytes| bytes.len() >= 24)?;
            if kind == DATA && attribute[8] == 1 && attribute[9] == 0 {
                return self.decode(attribute.get(usize::from(le16(attribute, 32))..)?);
            }
            at += length;
        }
    }

    /// Runs as they are stored: a byte with two lengths, then the count, then the step from the last place.
    fn decode(&self, mut bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
        let (mut runs, mut place) = (Vec::new(), 0_i64);
        while let Some((&lengths, rest)) = bytes.split_first().filter(|(lengths, _)| **lengths != 0) {
            let (count, step) = (usize::from(lengths & 15), usize::from(lengths >> 4));
            if count == 0 || count > 8 || step == 0 || step > 8 || runs.len() >= RUNS_MAX {
                return None;
            }
            let fields = rest.get(..count + step)?;
            let number =
                |field: &[u8]| field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            let shift = 64 - 8 * step as u32;
            // The step has a sign.
            let signed = (number(&fields[count..]) << shift).cast_signed() >> shift;
            place = place.checked_add(signed)?;
            let start = u64::try_from(place).ok()?.checked_mul(self.cluster)?;
            let length = number(&fields[..count]).checked_mul(self.cluster)?;
            (start.checked_add(length)? <= self.size).then_some(())?;
            runs.push((start, length));
            bytes = &rest[count + step..];
        }
        Some(runs)
    }

    /// Where a record is, bytes.
    pub(crate) fn record_at(&self, number: u32) -> Option<u64> {
        let mut within = u64::from(number) * self.record as u64;
        for (start, length) in &self.runs {
            if within < *length {
                return Some(start + within);
            }
            within -= length;
        }
        None
    }

    /// Looks at everything that the file system says about itself.
    pub(crate) fn check(&self, device: &dyn BlockDevice, checks: &mut Checks) {
        let boot = read(device, self.size, SECTOR);
        checks.count(boot.map(|boot| Self::parse(&boot).is_some_and(|boot| boot.serial == self.serial)));
        let mut whole = self.clone();
        let known = [self.table, self.mirror].into_iter().any(|at| {
            let first = read(device, at, self.record);
            checks.count(first.as_ref().map(|first| whole.number_in(first) == Some(0)));
            first.is_some_and(|first| whole.learn(&first))
        });
        if !known {
            return;
        }
        let records = whole.runs.iter().map(|(_, length)| length).sum::<u64>() / self.record as u64;
        let step = records.div_ceil(RECORDS_MAX).max(1);
        for number in (0..records.min(u64::from(u32::MAX))).step_by(step as usize) {
            let Some(at) = whole.record_at(number as u32) else { continue };
            match read(device, at, self.record) {
                // Records that were never used are empty.
                Some(bytes) if bytes.iter().all(|byte| *byte == 0) => {}
                Some(bytes) => {
                    let fits =
                        whole.record_in(&bytes).is_some_and(|record| le32(&record, 0x2c) == number as u32);
                    checks.count(Some(fits));
                }
                None => checks.count(None),
            }
        }
    }
}
