//! RAIDframe's component label: which set and which column a component belongs to, as 98 words of 32 bits.
//!
//! The flow is bytes -> words in the order found -> checks -> [`Label`] -> the same bytes. There is no magic number and
//! no checksum; a label is believed if its fields make sense. Fields that RAIDframe does not use are kept as they were.
//!
//! | what | where on the component |
//! |---|---|
//! | label | byte 16384, [`label_area`] bytes |
//! | parity map | right behind it, [`map_area`] bytes |
//! | data | sector 64 |

use device::{BlockDevice, DeviceError};

/// Where the label begins, bytes.
pub const LABEL_OFFSET: u64 = 16384;
/// Length of the label proper, bytes.
pub const LABEL_LENGTH: usize = 392;
/// Sectors in front of the data that belong to the format.
pub const PROTECTED_SECTORS: u64 = 64;
/// Sector sizes that leave room for label and map, bytes.
pub const SECTOR_SIZES: std::ops::RangeInclusive<u32> = 512..=65536;

const WORDS: usize = LABEL_LENGTH / 4;

/// Letters of the levels that RAIDframe or raidctl of this project know.
const LEVELS: &str = "01456RCITDQeELN";
/// More columns than any set has.
const COLUMNS_END: u32 = 40;

/// Bytes that are written for a label; what is behind the label proper is zeros.
pub fn label_area(sector_size: u32) -> usize {
    sector_size.max(1024) as usize
}

/// Bytes that are written for a parity map.
pub fn map_area(sector_size: u32) -> usize {
    sector_size.max(512) as usize
}

/// Where the parity map begins, bytes.
pub fn map_offset(sector_size: u32) -> u64 {
    LABEL_OFFSET + label_area(sector_size) as u64
}

/// Where the data begins, bytes.
pub fn data_offset(sector_size: u32) -> u64 {
    PROTECTED_SECTORS * u64::from(sector_size)
}

/// Which version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without autoconfiguration; RAIDframe never reads it on a machine of the other byte order.
    V1,
    /// The current one.
    V2,
}

/// The order of the bytes in each word: that of the machine that made the label. It is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

/// Whether the set may hold the root file system: the low two bits of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// No.
    No,
    /// Always.
    Force,
    /// If the machine was started from one of its components.
    Soft,
    /// A value without a meaning.
    Invalid,
}

/// Bits of `parity_map_flags`.
pub mod map_flags {
    /// The parameters beside it mean something.
    pub const VALID: u32 = 1;
    /// A map was in use when the set was last configured.
    pub const WAS_USED: u32 = 2;
    /// No map is to be used.
    pub const DISABLE: u32 = 4;
}

/// A label that makes sense. Field for field what is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Version of the format.
    pub version: Version,
    /// Byte order of the words.
    pub byte_order: ByteOrder,
    /// Chosen by the user; equal on all components of a set.
    pub serial_number: i32,
    /// Grows with each change of the set; a component that missed one has a lower number.
    pub mod_counter: i32,
    /// Always 0 in sets that can be run.
    pub row: u32,
    /// The column that this component is.
    pub column: u32,
    /// Always 1 in sets that can be run.
    pub num_rows: u32,
    /// Columns of the set.
    pub num_columns: u32,
    /// Whether the set was unconfigured with its parity right.
    pub clean: bool,
    /// A disk status; 0 in practice.
    pub status: u32,
    /// Sectors of a stripe unit.
    pub sectors_per_unit: u32,
    /// Stripe units of a parity unit.
    pub units_per_parity_unit: u32,
    /// Stripe units of a reconstruction unit.
    pub units_per_recon_unit: u32,
    /// The level's letter as a number; see [`Label::level`].
    pub parity_config: u32,
    /// Length of a component's queue.
    pub max_outstanding: u32,
    /// Sector size, bytes.
    pub block_size: u32,
    /// Sectors of the component that the set uses: whole stripe units, without the protected sectors.
    pub num_blocks: u64,
    /// Sectors of the whole component.
    pub partition_size: u64,
    /// Equal to `mod_counter` if whoever wrote the label last knew parity maps.
    pub map_mod_counter: u32,
    /// See [`map_flags`].
    pub map_flags: u32,
    /// Milliseconds of a tick of the parity map.
    pub map_tick_ms: u32,
    /// Ticks until a region that is not written any more is clean.
    pub map_cooldown: u32,
    /// Regions of the parity map.
    pub map_regions: u32,
    /// Unused.
    pub future_use: [u32; 28],
    /// 1 if the set is configured by scanning.
    pub autoconfigure: u32,
    /// See [`Label::root`].
    pub root_partition: u32,
    /// N of the unit raidN that it was last.
    pub last_unit: u32,
    /// Unused.
    pub config_order: u32,
    /// Unused.
    pub future_use2: [u32; 42],
}

/// Bytes that are no label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Fewer bytes than a label has.
    #[error("{found} bytes are too few for a component label of {LABEL_LENGTH}")]
    Short {
        /// How many there were.
        found: usize,
    },
    /// Neither version 1 nor 2 in any byte order.
    #[error("there is no component label: its version is {found:#010x}, not 1 or 2")]
    Version {
        /// The word, little-endian.
        found: u32,
    },
    /// A field that no valid label has.
    #[error(
        "the component label is unreasonable: {field} at byte {offset} is {found}, but it must be {wanted}"
    )]
    Field {
        /// RAIDframe's name of the field.
        field: &'static str,
        /// Where it is in the label, bytes.
        offset: u64,
        /// Its value.
        found: i64,
        /// What would do.
        wanted: &'static str,
    },
}

impl Label {
    /// Decodes and checks the first [`LABEL_LENGTH`] bytes.
    ///
    /// # Errors
    /// What RAIDframe would not take for a label either.
    pub fn decode(bytes: &[u8]) -> Result<Self, LabelError> {
        let Some((bytes, _)) = bytes.split_first_chunk::<LABEL_LENGTH>() else {
            return Err(LabelError::Short { found: bytes.len() });
        };
        let quads: &[[u8; 4]] = bytes.as_chunks().0;
        let first = u32::from_le_bytes(quads[0]);
        let (version, byte_order) = match (first, first.swap_bytes()) {
            (1, _) => (Version::V1, ByteOrder::Little),
            (2, _) => (Version::V2, ByteOrder::Little),
            (_, 1) => (Version::V1, ByteOrder::Big),
            (_, 2) => (Version::V2, ByteOrder::Big),
            (found, _) => return Err(LabelError::Version { found }),
        };
        let word = |index: usize| match byte_order {
            ByteOrder::Little => u32::from_le_bytes(quads[index]),
            ByteOrder::Big => u32::from_be_bytes(quads[index]),
        };
        let wide = |low: usize, high: usize| u64::from(word(low)) | u64::from(word(high)) << 32;
        let label = Self {
            version,
            byte_order,
            serial_number: word(1).cast_signed(),
            mod_counter: word(2).cast_signed(),
            row: word(3),
            column: word(4),
            num_rows: word(5),
            num_columns: word(6),
            clean: word(7) == 1,
            status: word(8),
            sectors_per_unit: word(9),
            units_per_parity_unit: word(10),
            units_per_recon_unit: word(11),
            parity_config: word(12),
            max_outstanding: word(13),
            block_size: word(14),
            num_blocks: wide(15, 54),
            partition_size: wide(16, 55),
            map_mod_counter: word(17),
            map_flags: word(18),
            map_tick_ms: word(19),
            map_cooldown: word(20),
            map_regions: word(21),
            future_use: std::array::from_fn(|index| word(22 + index)),
            autoconfigure: word(50),
            root_partition: word(51),
            last_unit: word(52),
            config_order: word(53),
            future_use2: std::array::from_fn(|index| word(56 + index)),
        };
        let signed = |index: usize| i64::from(word(index).cast_signed());
        let checks = [
            ("clean", 7, signed(7) == 0 || signed(7) == 1, "0 or 1"),
            ("row", 3, signed(3) >= 0 && signed(3) < signed(5), "less than num_rows, from 0"),
            ("column", 4, signed(4) >= 0 && signed(4) < signed(6), "less than num_columns, from 0"),
            ("num_rows", 5, signed(5) > 0, "positive"),
            ("num_columns", 6, signed(6) > 0, "positive"),
            ("blockSize", 14, signed(14) > 0, "positive"),
            ("numBlocks", 15, label.num_blocks > 0, "positive"),
        ];
        match checks.into_iter().find(|&(_, _, good, _)| !good) {
            None => Ok(label),
            Some((field, index, _, wanted)) => {
                Err(LabelError::Field { field, offset: index as u64 * 4, found: signed(index), wanted })
            }
        }
    }

    /// The label in the first [`LABEL_LENGTH`] bytes, where nobody says that there is one: more is asked of it than RAIDframe does. `None` if
    /// they are something else.
    ///
    /// # Errors
    /// They look like a label, and a field of it can't be.
    pub fn recognise(bytes: &[u8]) -> Option<Result<Self, LabelError>> {
        let (bytes, _) = bytes.split_first_chunk::<LABEL_LENGTH>()?;
        let quads: &[[u8; 4]] = bytes.as_chunks().0;
        let little = matches!(u32::from_le_bytes(quads[0]), 1 | 2);
        let word = |index: usize| {
            if little { u32::from_le_bytes(quads[index]) } else { u32::from_be_bytes(quads[index]) }
        };
        let letter = char::from_u32(word(12)).is_some_and(|letter| LEVELS.contains(letter));
        let sectors = SECTOR_SIZES.contains(&word(14)) && word(14).is_power_of_two();
        let alike = matches!(word(0), 1 | 2) && letter && sectors && word(3) == 0 && word(5) == 1;
        alike.then(|| Self::decode(bytes).and_then(Self::without_surprises))
    }

    /// The label, if also what RAIDframe does not look at is as it is in every set.
    fn without_surprises(self) -> Result<Self, LabelError> {
        let unused = |words: &[u32]| i64::from(words.iter().copied().find(|word| *word != 0).unwrap_or(0));
        let (reserved, reserved2) = (unused(&self.future_use), unused(&self.future_use2));
        let columns = i64::from(self.num_columns);
        let checks = [
            ("num_columns", 24, columns, self.num_columns < COLUMNS_END, "less than 40"),
            ("sectPerSU", 36, self.sectors_per_unit.into(), self.sectors_per_unit > 0, "positive"),
            ("autoconfigure", 200, self.autoconfigure.into(), self.autoconfigure <= 1, "0 or 1"),
            ("future_use", 88, reserved, reserved == 0, "0"),
            ("future_use2", 224, reserved2, reserved2 == 0, "0"),
        ];
        match checks.into_iter().find(|&(.., good, _)| !good) {
            None => Ok(self),
            Some((field, offset, found, _, wanted)) => {
                Err(LabelError::Field { field, offset, found, wanted })
            }
        }
    }

    /// The bytes of the label proper.
    pub fn encode(&self) -> [u8; LABEL_LENGTH] {
        let mut words = [0_u32; WORDS];
        words[0] = match self.version {
            Version::V1 => 1,
            Version::V2 => 2,
        };
        let fixed = [
            self.serial_number.cast_unsigned(),
            self.mod_counter.cast_unsigned(),
            self.row,
            self.column,
            self.num_rows,
            self.num_columns,
            self.clean.into(),
            self.status,
            self.sectors_per_unit,
            self.units_per_parity_unit,
            self.units_per_recon_unit,
            self.parity_config,
            self.max_outstanding,
            self.block_size,
            self.num_blocks as u32,
            self.partition_size as u32,
            self.map_mod_counter,
            self.map_flags,
            self.map_tick_ms,
            self.map_cooldown,
            self.map_regions,
        ];
        words[1..22].copy_from_slice(&fixed);
        words[22..50].copy_from_slice(&self.future_use);
        words[50] = self.autoconfigure;
        words[51] = self.root_partition;
        words[52] = self.last_unit;
        words[53] = self.config_order;
        words[54] = (self.num_blocks >> 32) as u32;
        words[55] = (self.partition_size >> 32) as u32;
        words[56..].copy_from_slice(&self.future_use2);
        let mut bytes = [0; LABEL_LENGTH];
        for (quad, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *quad = match self.byte_order {
                ByteOrder::Little => word.to_le_bytes(),
                ByteOrder::Big => word.to_be_bytes(),
            };
        }
        bytes
    }

    /// Forgets the high halves of the sizes on a component of `sectors` sectors that cannot need them: some old
    /// labels have garbage there.
    ///
    /// # Errors
    /// Nothing is left of `numBlocks`.
    pub fn fix_sizes(&mut self, sectors: u64) -> Result<(), LabelError> {
        if u32::try_from(sectors).is_ok() {
            self.num_blocks &= u64::from(u32::MAX);
            self.partition_size &= u64::from(u32::MAX);
        }
        if self.num_blocks == 0 {
            return Err(LabelError::Field { field: "numBlocks", offset: 60, found: 0, wanted: "positive" });
        }
        Ok(())
    }

    /// The level's letter, if it is a letter at all.
    pub fn letter(&self) -> Option<char> {
        char::from_u32(self.parity_config).filter(char::is_ascii_graphic)
    }

    /// Whether the set may hold the root file system.
    pub const fn root(&self) -> Root {
        match self.root_partition & 3 {
            0 => Root::No,
            1 => Root::Force,
            2 => Root::Soft,
            _ => Root::Invalid,
        }
    }

    /// Reads the label of a component.
    ///
    /// # Errors
    /// The device fails. `Ok(Err(_))` if there is no label.
    pub fn read(device: &dyn BlockDevice) -> Result<Result<Self, LabelError>, DeviceError> {
        let mut bytes = [0; LABEL_LENGTH];
        device.read(LABEL_OFFSET, &mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    /// Writes the label to a component, zeros behind it.
    ///
    /// # Errors
    /// The device fails.
    pub fn write(&self, device: &dyn BlockDevice) -> Result<(), DeviceError> {
        let mut area = vec![0; label_area(device.info().logical_sector)];
        area[..LABEL_LENGTH].copy_from_slice(&self.encode());
        device.write(LABEL_OFFSET, &area)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::MemoryDevice;
    use proptest::prelude::*;

    /// Column 1 of a 3-column RAID 5, as in the manual's example.
    fn sample() -> Label {
        Label {
            version: Version::V2,
            byte_order: ByteOrder::Little,
            serial_number: 13432,
            mod_counter: 65,
            row: 0,
            column: 1,
            num_rows: 1,
            num_columns: 3,
            clean: false,
            status: 0,
            sectors_per_unit: 32,
            units_per_parity_unit: 1,
            units_per_recon_unit: 1,
            parity_config: '5'.into(),
            max_outstanding: 100,
            block_size: 512,
            num_blocks: 1_799_936,
            partition_size: 1_800_000,
            map_mod_counter: 65,
            map_flags: map_flags::VALID | map_flags::WAS_USED,
            map_tick_ms: 40000,
            map_cooldown: 8,
            map_regions: 35,
            future_use: [0; 28],
            autoconfigure: 1,
            root_partition: 2,
            last_unit: 3,
            config_order: 0,
            future_use2: [0; 42],
        }
    }

    /// Every word at its documented offset, in both byte orders.
    #[test]
    fn golden_bytes() {
        let mut label = sample();
        label.num_blocks |= 7 << 32;
        label.partition_size |= 9 << 32;
        let words: &[(usize, u32)] = &[
            (0, 2),
            (4, 13432),
            (8, 65),
            (12, 0),
            (16, 1),
            (20, 1),
            (24, 3),
            (28, 0),
            (32, 0),
            (36, 32),
            (40, 1),
            (44, 1),
            (48, 0x35),
            (52, 100),
            (56, 512),
            (60, 1_799_936),
            (64, 1_800_000),
            (68, 65),
            (72, 3),
            (76, 40000),
            (80, 8),
            (84, 35),
            (200, 1),
            (204, 2),
            (208, 3),
            (212, 0),
            (216, 7),
            (220, 9),
        ];
        let mut little = [0; LABEL_LENGTH];
        let mut big = [0; LABEL_LENGTH];
        for &(offset, word) in words {
            little[offset..offset + 4].copy_from_slice(&word.to_le_bytes());
            big[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
        }
        assert_eq!(label.encode(), little);
        assert_eq!(Label::decode(&little).unwrap(), label);
        label.byte_order = ByteOrder::Big;
        assert_eq!(label.encode(), big);
        assert_eq!(Label::decode(&big).unwrap(), label);
        label.version = Version::V1;
        big[..4].copy_from_slice(&[0, 0, 0, 1]);
        assert_eq!(Label::decode(&big).unwrap(), label);
    }

    #[test]
    fn places_on_the_component() {
        assert_eq!(
            (label_area(512), map_offset(512), map_area(512), data_offset(512)),
            (1024, 17408, 512, 32768)
        );
        assert_eq!((label_area(4096), map_offset(4096), map_area(4096)), (4096, 20480, 4096));
        assert_eq!(data_offset(4096), 262_144);
        for power in 9..=16 {
            let sector = 1 << power;
            assert!(map_offset(sector) + map_area(sector) as u64 <= data_offset(sector));
        }
    }

    #[test]
    fn written_where_it_is_read_with_zeros_behind() {
        let device = MemoryDevice::from_bytes("sd0e", &vec![0xff; 40_000]);
        sample().write(&device).unwrap();
        assert_eq!(Label::read(&device).unwrap().unwrap(), sample());
        let mut bytes = vec![0; 40_000];
        device.read(0, &mut bytes).unwrap();
        assert!(bytes[..16384].iter().chain(&bytes[17408..]).all(|&byte| byte == 0xff));
        assert!(bytes[16384 + LABEL_LENGTH..17408].iter().all(|&byte| byte == 0));
        assert!(matches!(
            Label::read(&MemoryDevice::new("new", 40_000)).unwrap(),
            Err(LabelError::Version { .. })
        ));
        assert!(Label::read(&MemoryDevice::new("tiny", 400)).is_err());
    }

    #[test]
    fn unreasonable_labels_are_told_by_field() {
        for (offset, value, name) in [
            (28, 2, "clean"),
            (12, u32::MAX, "row"),
            (12, 1, "row"),
            (16, 3, "column"),
            (16, u32::MAX, "column"),
            (24, 0, "column"),
            (56, 0, "blockSize"),
            (56, 1 << 31, "blockSize"),
            (60, 0, "numBlocks"),
        ] {
            let mut bytes = sample().encode();
            bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            let error = Label::decode(&bytes).unwrap_err();
            assert!(matches!(error, LabelError::Field { field, .. } if field == name), "{error}");
        }
    }

    #[test]
    fn what_nobody_calls_a_label_must_look_like_one_in_every_field() {
        assert_eq!(Label::recognise(&sample().encode()), Some(Ok(sample())));
        assert_eq!(Label::recognise(&[0; LABEL_LENGTH]), None);
        assert_eq!(Label::recognise(&sample().encode()[1..]), None);
        for (offset, value, name) in [
            (24, 40, "num_columns"),
            (24, 1 << 30, "num_columns"),
            (16, 1 << 31, "column"),
            (36, 0, "sectPerSU"),
            (60, 0, "numBlocks"),
            (100, 7, "future_use"),
            (200, 2, "autoconfigure"),
            (388, 1, "future_use2"),
        ] {
            let mut bytes = sample().encode();
            bytes[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
            let error = Label::recognise(&bytes).unwrap().unwrap_err();
            assert!(matches!(error, LabelError::Field { field, .. } if field == name), "{error}");
        }
        // Level, sector size, rows and version are what it looks like.
        for (offset, value) in [(48, 0x33), (56, 511), (56, 768), (56, 1 << 20), (20, 2), (12, 1), (0, 3)] {
            let mut bytes = sample().encode();
            bytes[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
            assert_eq!(Label::recognise(&bytes), None, "{offset}: {value}");
        }
    }

    #[test]
    fn garbage_in_the_high_halves_goes_on_small_components_only() {
        let mut label = sample();
        label.num_blocks |= 5 << 32;
        label.fix_sizes(1 << 32).unwrap();
        assert_eq!(label.num_blocks, (5 << 32) + 1_799_936);
        label.fix_sizes((1 << 32) - 1).unwrap();
        assert_eq!(label.num_blocks, 1_799_936);
        label.num_blocks = 1 << 32;
        assert!(label.fix_sizes(1_800_000).is_err());
    }

    proptest! {
        /// Whatever decodes encodes to the same bytes; nothing panics.
        #[test]
        fn any_bytes_round_trip(
            bytes in prop::collection::vec(any::<u8>(), 0..450), version in 0..4_usize, sane in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if bytes.len() >= LABEL_LENGTH && sane {
                let order = version % 2 == 0;
                let word = |value: u32| if order { value.to_le_bytes() } else { value.to_be_bytes() };
                for (offset, value) in [(0, 1 + version as u32 / 2), (12, 0), (16, 2), (20, 1), (24, 3), (28, 1), (56, 512)] {
                    bytes[offset..offset + 4].copy_from_slice(&word(value));
                }
                bytes[60] |= 1;
                let label = Label::decode(&bytes).unwrap();
                prop_assert_eq!(&label.encode()[..], &bytes[..LABEL_LENGTH]);
            } else if let Ok(label) = Label::decode(&bytes) {
                prop_assert_eq!(&label.encode()[..], &bytes[..LABEL_LENGTH]);
            }
        }

        /// One damaged word gives a label or an error, never a panic.
        #[test]
        fn damaged_words_are_harmless(index in 0..WORDS, value: u32, big: bool) {
            let mut label = sample();
            label.byte_order = if big { ByteOrder::Big } else { ByteOrder::Little };
            let mut bytes = label.encode();
            bytes[index * 4..index * 4 + 4].copy_from_slice(&value.to_le_bytes());
            if let Ok(mut label) = Label::decode(&bytes) {
                prop_assert_eq!(label.encode(), bytes);
                let _ = (label.letter(), label.root(), label.fix_sizes(u64::from(value)));
            }
        }
    }
}
