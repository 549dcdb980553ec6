//! The extension area: what RAIDframe's labels cannot store, in protected sectors that RAIDframe does not look at.
//!
//! It has two slots that are written in turn, so that a torn write leaves the one before. Bytes of a slot:
//!
//! | byte | what |
//! |---|---|
//! | 0 | `COFRSET1` |
//! | 8 | CRC-32C of the bytes from 12 to 4096 |
//! | 12 | u16 version: 1 |
//! | 14 | u16 length of the body |
//! | 16 | u64 sequence number: the slot with the greater one counts |
//! | 24 | i32 serial number of the set |
//! | 28 | i32 modification counter that the labels have or are about to get |
//! | 32 | u8 role of this device: 0 column, 1 spare |
//! | 33 | u8 which column or spare |
//! | 48 | body: [`Known::encode`](crate::set::Known::encode) |
//!
//! It is believed only if the labels say the same serial number and their greatest counter is this one or one less: if
//! anybody who does not know the area has used the set since, the counter has moved on. Before labels get a new counter
//! it is written here, with what the set consists of then. So a power cut between two labels is no loss: see
//! [`Extension::complete`].

use device::{BlockDevice, DeviceError};

use crate::label::{Label, map_area, map_offset};
use crate::set::{Known, Status};

/// Where the first slot begins at the earliest, bytes.
const OFFSET: u64 = 24576;
/// Bytes of a slot that count.
const SLOT: usize = 4096;
const HEAD: usize = 48;
const MAGIC: &[u8; 8] = b"COFRSET1";
/// Longest body, bytes.
pub const MAX_BODY: usize = SLOT - HEAD;

/// Where a slot lies: two of them follow each other.
pub fn slot_offset(sector_size: u32, slot: u64) -> u64 {
    let after_map = map_offset(sector_size) + map_area(sector_size) as u64;
    after_map.max(OFFSET).next_multiple_of(sector_size.into()) + slot % 2 * slot_length(sector_size) as u64
}

/// Bytes that are written for a slot.
pub fn slot_length(sector_size: u32) -> usize {
    SLOT.max(sector_size as usize)
}

/// What a device is in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is, or is about to become, this column.
    Column(u8),
    /// It is this spare.
    Spare(u8),
}

/// What a device's extension area says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Counts the times it was written.
    pub sequence: u64,
    /// The set's serial number.
    pub serial_number: i32,
    /// The counter that the labels have or are about to get.
    pub mod_counter: i32,
    /// What the device is.
    pub role: Role,
    /// What is known about the set.
    pub known: Known,
}

fn quad(bytes: &[u8; SLOT], at: usize) -> [u8; 4] {
    std::array::from_fn(|index| bytes[at + index])
}

impl Extension {
    /// The bytes of a slot.
    pub fn encode(&self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        let mut body = self.known.encode();
        if body.len() > MAX_BODY {
            // A block design that does not fit is in the configuration file; everything else always fits.
            body = Known { design: None, ..self.known.clone() }.encode();
        }
        let length = body.len().min(MAX_BODY);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[12..14].copy_from_slice(&1_u16.to_le_bytes());
        bytes[14..16].copy_from_slice(&(length as u16).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.serial_number.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.mod_counter.to_le_bytes());
        let (kind, which) = match self.role {
            Role::Column(column) => (0, column),
            Role::Spare(spare) => (1, spare),
        };
        bytes[32..34].copy_from_slice(&[kind, which]);
        bytes[HEAD..HEAD + length].copy_from_slice(&body[..length]);
        let sum = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What a slot says; `None` if it is damaged or there never was one.
    pub fn decode(bytes: &[u8; SLOT]) -> Option<Self> {
        let sum = u32::from_le_bytes(quad(bytes, 8));
        let version = u16::from_le_bytes([bytes[12], bytes[13]]);
        if &bytes[..8] != MAGIC || sum != crc32c::crc32c(&bytes[12..]) || version != 1 {
            return None;
        }
        let length = usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        let role = match bytes[32] {
            0 => Role::Column(bytes[33]),
            1 => Role::Spare(bytes[33]),
            _ => return None,
        };
        Some(Self {
            sequence: u64::from_le_bytes(std::array::from_fn(|index| bytes[16 + index])),
            serial_number: i32::from_le_bytes(quad(bytes, 24)),
            mod_counter: i32::from_le_bytes(quad(bytes, 28)),
            role,
            known: Known::decode(bytes.get(HEAD..HEAD + length)?)?,
        })
    }

    /// The newer of the two slots of a device.
    ///
    /// # Errors
    /// The device fails.
    pub fn read(device: &dyn BlockDevice) -> Result<Option<Self>, DeviceError> {
        let mut newest: Option<Self> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT];
            device.read(slot_offset(device.info().logical_sector, slot), &mut bytes)?;
            if let Some(found) = Self::decode(&bytes)
                && newest.as_ref().is_none_or(|newest| newest.sequence < found.sequence)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// Writes it to the slot whose turn it is.
    ///
    /// # Errors
    /// The device fails.
    pub fn write(&self, device: &dyn BlockDevice) -> Result<(), DeviceError> {
        let sector = device.info().logical_sector;
        let mut area = vec![0; slot_length(sector)];
        area[..SLOT].copy_from_slice(&self.encode());
        device.write(slot_offset(sector, self.sequence), &area)
    }

    /// Wipes both slots of a device that leaves its set.
    ///
    /// # Errors
    /// The device fails.
    pub fn wipe(device: &dyn BlockDevice) -> Result<(), DeviceError> {
        let sector = device.info().logical_sector;
        device.write(slot_offset(sector, 0), &vec![0; 2 * slot_length(sector)])
    }

    /// The one to believe of those that the devices of a set with serial number `serial_number` have, if the greatest counter of the
    /// labels is `counter`.
    pub fn best<'a>(
        found: impl Iterator<Item = &'a Self>,
        serial_number: i32,
        counter: i32,
    ) -> Option<&'a Self> {
        found
            .filter(|extension| extension.tells_of(serial_number, counter))
            .max_by_key(|extension| extension.sequence)
    }

    /// Whether it is of the time of a label with this serial number and counter.
    pub const fn tells_of(&self, serial_number: i32, counter: i32) -> bool {
        self.serial_number == serial_number && self.mod_counter.wrapping_sub(counter) & !1 == 0
    }

    /// Whether the parity was good, and everything written since went through a journal: then it is good once that is replayed.
    pub const fn seals(&self) -> bool {
        self.known.parity_good && self.known.journal_sectors > 0
    }

    /// Whether the set had this column in use when the extension was written.
    fn in_use(&self, column: u32) -> bool {
        let column = self.known.columns.get(column as usize);
        column.is_some_and(|column| matches!(column.status, Status::Optimal | Status::Spared))
    }

    /// Gives labels that a power cut kept from getting the counter that they were to get that counter, in memory.
    pub fn complete<'a>(&self, labels: impl Iterator<Item = &'a mut Label>) {
        for label in labels {
            let one_behind = label.mod_counter.wrapping_add(1) == self.mod_counter;
            if one_behind && label.serial_number == self.serial_number && self.in_use(label.column) {
                // Left between clean and dirty, or the reverse: nothing says that the parity is good.
                label.clean = false;
                label.mod_counter = self.mod_counter;
                if label.map_mod_counter.wrapping_add(1) == self.mod_counter.cast_unsigned() {
                    label.map_mod_counter = self.mod_counter.cast_unsigned();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::{SECTOR_SIZES, data_offset};
    use device::MemoryDevice;

    fn sample(sequence: u64) -> Extension {
        let known = Known { parity_good: true, ..Known::default() };
        Extension { sequence, serial_number: 7, mod_counter: 9, role: Role::Spare(2), known }
    }

    #[test]
    fn slots_lie_between_the_map_and_the_data() {
        for sector in (9..17).map(|shift| 1_u32 << shift) {
            assert!(SECTOR_SIZES.contains(&sector));
            assert!(slot_offset(sector, 0) >= map_offset(sector) + map_area(sector) as u64);
            assert!(slot_offset(sector, 0).is_multiple_of(sector.into()));
            assert!(slot_offset(sector, 1) + slot_length(sector) as u64 <= data_offset(sector));
        }
    }

    #[test]
    fn the_newer_slot_counts_and_a_damaged_one_does_not() {
        let device = MemoryDevice::new("m", 1 << 20);
        assert_eq!(Extension::read(&device).unwrap(), None);
        for sequence in 1..5 {
            sample(sequence).write(&device).unwrap();
            assert_eq!(Extension::read(&device).unwrap(), Some(sample(sequence)));
        }
        device.write(slot_offset(512, 4) + 100, &[1]).unwrap();
        assert_eq!(Extension::read(&device).unwrap(), Some(sample(3)));
        Extension::wipe(&device).unwrap();
        assert_eq!(Extension::read(&device).unwrap(), None);
    }

    #[test]
    fn a_counter_that_moved_on_is_not_believed() {
        let all = [sample(1), sample(2)];
        for (serial, counter, believed) in
            [(7, 9, true), (7, 8, true), (7, 10, false), (7, 7, false), (8, 9, false)]
        {
            let best = Extension::best(all.iter(), serial, counter);
            assert_eq!(best, believed.then_some(&all[1]), "{serial} {counter}");
        }
    }
}
