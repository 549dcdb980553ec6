//! After a power cut: finding the records that are whole, and writing what they say once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::{BlockDevice, DeviceError};

use super::{HEAD, HEAD_MAGIC, RECORD_MAGIC, SPAN, SPANS};
use crate::set::RaidSet;
use crate::set::locks::lock;

/// A component's part of a record as it is found.
struct Found {
    column: usize,
    device: Arc<dyn BlockDevice>,
    spans: Vec<(u64, u32)>,
    /// Where its bytes are, on the component.
    from: u64,
}

/// The parts of one record.
#[derive(Default)]
struct Record {
    participants: u64,
    parts: Vec<Found>,
}

fn number<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| block[at + index])
}

fn quad(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(block, at))
}

fn long(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(block, at))
}

/// Whether a block begins with `magic`, is whole, and is of this set and column.
fn is_valid(block: &[u8], magic: [u8; 8], serial: i32, column: usize) -> bool {
    block.len() >= HEAD
        && block[..8] == magic
        && block[12..14] == 1_u16.to_le_bytes()
        && quad(block, 16) == serial.cast_unsigned()
        && quad(block, 20) as usize == column
        && quad(block, 8) == crc32c::crc32c(&block[12..HEAD])
}

impl RaidSet {
    /// The greatest epoch of any component's heads.
    pub(super) fn greatest_epoch(&self) -> u64 {
        let members = self.members();
        let serial = lock(&self.header).serial_number;
        let mut block = vec![0; self.journal_block() as usize];
        let mut greatest = 0;
        for (column, device) in self.journal_devices(&members) {
            for slot in 0..2 {
                let read = device.read(self.journal_start() + slot * self.journal_block(), &mut block);
                if read.is_ok() && is_valid(&block, HEAD_MAGIC, serial, column) {
                    greatest = greatest.max(long(&block, 24));
                }
            }
        }
        greatest
    }

    /// Carries out the records of the journal that are whole. Columns whose journal cannot be read are failed.
    ///
    /// # Errors
    /// A component fails that the set cannot do without.
    pub(in crate::set) fn replay(&self) -> Result<(), DeviceError> {
        let epoch = {
            let state = lock(&self.journal.state);
            if state.capacity == 0 {
                return Ok(());
            }
            state.epoch
        };
        let members = self.members();
        let mut records: BTreeMap<u64, Record> = BTreeMap::new();
        let (mut there, mut unreadable) = (0_u64, Vec::new());
        for (column, device) in self.journal_devices(&members) {
            match self.scan(column, device, epoch, &mut records) {
                Ok(()) => there |= 1 << column,
                Err(error) => unreadable.push((column, device.clone(), error)),
            }
        }
        let last = records.keys().last().copied().unwrap_or(0);
        for record in records.values() {
            let has = record.parts.iter().fold(0_u64, |bits, part| bits | 1 << part.column);
            if record.participants & there & !has == 0 {
                for part in &record.parts {
                    self.carry_out(part)?;
                }
            }
        }
        for (column, device, error) in unreadable {
            if !self.device_failed(column, &device) {
                return Err(error);
            }
        }
        let mut state = lock(&self.journal.state);
        state.sequence = last;
        // Also what was not carried out must be forgotten: once a component is lost that has no part of it, it would look whole.
        if records.is_empty() { Ok(()) } else { self.next_epoch(&mut state) }
    }

    /// Adds what a component's log holds of an epoch.
    fn scan(
        &self,
        column: usize,
        device: &Arc<dyn BlockDevice>,
        epoch: u64,
        records: &mut BTreeMap<u64, Record>,
    ) -> Result<(), DeviceError> {
        let capacity = lock(&self.journal.state).capacity;
        let serial = lock(&self.header).serial_number;
        let block_length = self.journal_block();
        let mut log = vec![0; capacity as usize];
        device.read(self.log_start(), &mut log)?;
        let mut at = 0;
        while at < capacity {
            let block = &log[at as usize..(at + block_length) as usize];
            let (here, begin) = (at, at + block_length);
            at = begin;
            if !is_valid(block, RECORD_MAGIC, serial, column)
                || long(block, 24) != epoch
                || long(block, 40) != here
            {
                continue;
            }
            let count = usize::from(u16::from_le_bytes(number(block, 14)));
            let Some(spans) = block[..HEAD].get(SPANS..SPANS + count * SPAN) else { continue };
            let spans: Vec<(u64, u32)> =
                spans.chunks_exact(SPAN).map(|span| (long(span, 0), quad(span, 8))).collect();
            let data = self.data_offset()..self.journal_start();
            let within = spans.iter().all(|&(offset, length)| {
                let end = offset.checked_add(length.into());
                data.contains(&offset) && end.is_some_and(|end| end <= data.end)
            });
            let length: u64 = spans.iter().map(|span| u64::from(span.1)).sum();
            let Some(bytes) = log.get(begin as usize..).and_then(|rest| rest.get(..length as usize)) else {
                continue;
            };
            if !within || crc32c::crc32c(bytes) != quad(block, 64) {
                continue;
            }
            let record = records.entry(long(block, 32)).or_default();
            record.participants |= long(block, 56);
            let from = self.log_start() + begin;
            record.parts.push(Found { column, device: device.clone(), spans, from });
            // What it holds may look like a record, but is none.
            at = at.max(here.saturating_add(long(block, 48)));
        }
        Ok(())
    }

    /// Writes a component's part where it belongs.
    fn carry_out(&self, part: &Found) -> Result<(), DeviceError> {
        let members = self.members();
        let mut from = part.from;
        for &(offset, length) in &part.spans {
            let mut bytes = vec![0; length as usize];
            // It was read a moment ago.
            part.device.read(from, &mut bytes)?;
            from += u64::from(length);
            // The target of a copyback has rows of this column, too.
            let target = members.rebuild.as_ref().filter(|rebuild| rebuild.column == part.column);
            for device in std::iter::once(&part.device).chain(target.map(|rebuild| &rebuild.target)) {
                if let Err(error) = device.write(offset, &bytes)
                    && !self.device_failed(part.column, device)
                {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Wipes the journal of a device that becomes part of the set: what it holds is of another life.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn wipe_log(&self, device: &dyn BlockDevice, capacity: u64) -> Result<(), DeviceError> {
        if capacity == 0 {
            return Ok(());
        }
        let end = self.log_start() + capacity;
        let zeros = vec![0; (1 << 20).min(end - self.journal_start()) as usize];
        let mut at = self.journal_start();
        while at < end {
            let length = (end - at).min(zeros.len() as u64);
            device.write(at, &zeros[..length as usize])?;
            at += length;
        }
        device.flush()
    }
}
