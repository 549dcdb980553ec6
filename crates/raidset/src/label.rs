//! RAIDframe's component label, whose bytes `formats` knows.

pub use formats::raidframe::{
    ByteOrder, LABEL_LENGTH, LABEL_OFFSET, Label, LabelError, PROTECTED_SECTORS, Root, SECTOR_SIZES, Version,
    data_offset, label_area, map_area, map_flags, map_offset,
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Column 1 of a 3-column RAID 5, as in the manual's example.
    pub(crate) fn sample() -> Label {
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
}
