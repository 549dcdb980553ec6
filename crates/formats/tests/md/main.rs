//! md's superblocks, written here byte by byte from the format's description, and read back.

#![allow(clippy::unwrap_used, reason = "tests")]

use formats::MdVersion;
use formats::md::{
    Bitmap, BitmapHeader, JournalBlock, JournalPayload, PplHeader, RawSuperblock, Role, SUPERBLOCK_LENGTH,
    bad_blocks,
};
use proptest::prelude::*;

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

fn fold(sum: u64) -> u32 {
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// A superblock of version 1.x at `sector` of member 2 of 4, RAID 5; `change` edits it before it is summed.
fn version_1(sector: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0; SUPERBLOCK_LENGTH];
    put(&mut block, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut block, 4, &1_u32.to_le_bytes());
    put(&mut block, 16, &[7; 16]);
    put(&mut block, 32, b"nas:data");
    put(&mut block, 64, &(0xf_4240_u64 | 5 << 40).to_le_bytes());
    put(&mut block, 72, &5_u32.to_le_bytes());
    put(&mut block, 76, &2_u32.to_le_bytes());
    put(&mut block, 80, &20_480_u64.to_le_bytes());
    put(&mut block, 88, &128_u32.to_le_bytes());
    put(&mut block, 92, &4_u32.to_le_bytes());
    put(&mut block, 128, &2048_u64.to_le_bytes());
    put(&mut block, 136, &20_500_u64.to_le_bytes());
    put(&mut block, 144, &sector.to_le_bytes());
    put(&mut block, 160, &3_u32.to_le_bytes());
    put(&mut block, 168, &[9; 16]);
    put(&mut block, 192, &2_000_000_u64.to_le_bytes());
    put(&mut block, 200, &77_u64.to_le_bytes());
    put(&mut block, 208, &u64::MAX.to_le_bytes());
    put(&mut block, 220, &5_u32.to_le_bytes());
    for (number, role) in [0_u16, 1, 0xfffe, 2, 0xffff].into_iter().enumerate() {
        put(&mut block, 256 + 2 * number, &role.to_le_bytes());
    }
    change(&mut block);
    // Ten bytes of roles: two words and one half.
    let words = block[..264].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap())));
    let tail = u64::from(u16::from_le_bytes(block[264..266].try_into().unwrap()));
    let sum = fold(words.sum::<u64>() + tail);
    put(&mut block, 216, &sum.to_le_bytes());
    block
}

fn version_0(little: bool) -> Vec<u8> {
    let mut words = vec![0_u32; 1024];
    let fields = [(0, 0xa92b_4efc), (2, 90), (5, 0x0102_0304), (6, 1234), (7, 6), (8, 1024), (9, 4), (10, 4)];
    for (at, value) in fields {
        words[at] = value;
    }
    words[32] = 4321;
    words[33] = 1 | 1 << 8;
    words[if little { 39 } else { 40 }] = 12;
    words[64] = 2;
    words[65] = 65536;
    for (disk, state) in [6_u32, 6, 1, 6].into_iter().enumerate() {
        words[128 + 32 * disk + 3] = disk as u32;
        words[128 + 32 * disk + 4] = state;
    }
    words[992] = 3;
    words[995] = 3;
    words[996] = 6;
    words[38] = fold(words.iter().map(|word| u64::from(*word)).sum());
    words.iter().flat_map(|word| if little { word.to_le_bytes() } else { word.to_be_bytes() }).collect()
}

#[test]
fn a_superblock_of_version_1_is_understood() {
    let block = version_1(8, |block| {
        // A bad-block log, a reshape that moves the data back by 1024 sectors, a bitmap before the superblock.
        put(block, 8, &(0x1_u32 | 0x4 | 0x8 | 0x40).to_le_bytes());
        put(block, 96, &(-4_i32).to_le_bytes());
        put(block, 100, &6_u32.to_le_bytes());
        put(block, 104, &6000_u64.to_le_bytes());
        put(block, 112, &1_u32.to_le_bytes());
        put(block, 120, &256_u32.to_le_bytes());
        put(block, 124, &(-1024_i32).to_le_bytes());
        put(block, 186, &8_u16.to_le_bytes());
        put(block, 188, &72_i32.to_le_bytes());
    });
    let raw = RawSuperblock::parse(MdVersion::V1_2, &block).unwrap();
    let superblock = raw.verify(MdVersion::V1_2, "sda", 4096, 1 << 30).unwrap();
    assert_eq!((superblock.array_uuid, superblock.device_uuid), ([7; 16], Some([9; 16])));
    assert_eq!(superblock.name.as_deref(), Some("nas:data"));
    assert_eq!((superblock.created, superblock.updated, superblock.events), (1_000_000, 2_000_000, 77));
    assert_eq!(
        (superblock.level, superblock.layout, superblock.chunk, superblock.raid_disks),
        (5, 2, 65536, 4)
    );
    assert_eq!((superblock.data_offset, superblock.data_size), (2048 * 512, 20_500 * 512));
    assert_eq!((superblock.role, superblock.clean), (Role::Slot(2), true));
    assert_eq!(superblock.roles[2..], [Role::Faulty, Role::Slot(2), Role::Spare]);
    let reshape = superblock.reshape.unwrap();
    assert_eq!((reshape.position, reshape.level, reshape.chunk), (6000 * 512, 6, 256 * 512));
    assert_eq!((reshape.data_offset, reshape.backwards), (1024 * 512, false));
    assert_eq!(superblock.bitmap, Some(2048));
    assert_eq!(superblock.bad_block_log, Some((80 * 512, 4096, 0)));
}

#[test]
fn what_is_wrong_is_named() {
    let verify = |block: &[u8], offset| {
        let raw = RawSuperblock::parse(MdVersion::V1_2, block).unwrap();
        raw.verify(MdVersion::V1_2, "sda", offset, 1 << 30).unwrap_err()
    };
    let mut block = version_1(8, |_| ());
    block[70] ^= 1;
    let error = verify(&block, 4096);
    assert_eq!((error.field, error.device.as_str(), error.offset), ("sb_csum", "sda", 4096));
    // A superblock that was copied to another place along with everything else.
    let error = verify(&version_1(0, |_| ()), 4096);
    assert_eq!(error.to_string(), "md superblock at offset 4096 of sda: super_offset is 0, wanted 8");
    let error = verify(&version_1(8, |block| put(block, 128, &u64::MAX.to_le_bytes())), 4096);
    assert_eq!(error.field, "data_offset");
    let error = verify(&version_1(8, |block| put(block, 92, &0_u32.to_le_bytes())), 4096);
    assert_eq!(error.field, "raid_disks");
    assert_eq!(
        verify(&version_1(8, |block| put(block, 220, &9999_u32.to_le_bytes())), 4096).field,
        "max_dev"
    );
    assert!(RawSuperblock::parse(MdVersion::V0_90, &block).is_none());
}

#[test]
fn version_0_90_of_either_byte_order() {
    for little in [true, false] {
        let block = version_0(little);
        let raw = RawSuperblock::parse(MdVersion::V0_90, &block).unwrap();
        let superblock = raw.verify(MdVersion::V0_90, "sda", 1 << 20, 1 << 21).unwrap();
        assert_eq!((superblock.events, superblock.level, superblock.layout), (12, 6, 2));
        assert_eq!((superblock.role, superblock.number, superblock.clean), (Role::Slot(3), 3, true));
        assert_eq!(superblock.roles[..4], [Role::Slot(0), Role::Slot(1), Role::Faulty, Role::Slot(3)]);
        assert_eq!((superblock.used_size, superblock.data_offset), (1 << 20, 0));
        assert_eq!(superblock.bitmap, Some((1 << 20) + 4096));
        assert_eq!(superblock.array_uuid[..4], [1, 2, 3, 4]);
        let mut damaged = block;
        damaged[3000] ^= 4;
        let raw = RawSuperblock::parse(MdVersion::V0_90, &damaged).unwrap();
        assert_eq!(raw.verify(MdVersion::V0_90, "sda", 1 << 20, 1 << 21).unwrap_err().field, "checksum");
    }
}

#[test]
fn superblocks_lie_where_md_puts_them() {
    let size = (100 << 20) + 5000;
    let offsets = MdVersion::ALL.map(|version| version.superblock_offset(size));
    let sectors: u64 = size / 512;
    assert_eq!(offsets, [Some((100 << 20) - 65536), Some((sectors - 16) / 8 * 4096), Some(0), Some(4096)]);
    assert_eq!(MdVersion::ALL.map(|version| version.superblock_offset(255)), [None; 4]);
}

#[test]
fn a_bitmap_knows_what_is_dirty() {
    let mut header = vec![0; BitmapHeader::LENGTH];
    put(&mut header, 0, b"bitm");
    put(&mut header, 4, &4_u32.to_le_bytes());
    put(&mut header, 24, &9_u64.to_le_bytes());
    put(&mut header, 40, &100_u64.to_le_bytes());
    put(&mut header, 52, &4096_u32.to_le_bytes());
    let parsed = BitmapHeader::parse(&header, "sda", 0).unwrap().unwrap();
    assert_eq!((parsed.events, parsed.covers, parsed.bits_length()), (9, 51_200, 2));
    assert!(Bitmap::new(parsed.clone(), vec![0]).is_none());
    let bitmap = Bitmap::new(parsed, vec![0b100, 0]).unwrap();
    assert!(bitmap.dirty(8192..8193) && bitmap.dirty(0..51_200) && bitmap.dirty(51_199..51_201));
    assert!(!bitmap.dirty(0..8192) && !bitmap.dirty(12_288..51_200) && !bitmap.dirty(8192..8192));
    put(&mut header, 52, &4097_u32.to_le_bytes());
    assert_eq!(BitmapHeader::parse(&header, "sda", 0).unwrap_err().field, "chunksize");
}

#[test]
fn bad_blocks_are_listed_to_the_mark() {
    let entries = [100 << 10 | 3, 7 << 10 | 1, u64::MAX, 1 << 10 | 1];
    let log: Vec<u8> = entries.into_iter().flat_map(u64::to_le_bytes).collect();
    assert_eq!(bad_blocks(&log, 0), [51_200..52_736, 3584..4096]);
    assert_eq!(bad_blocks(&log, 3)[1], 28_672..32_768);
    assert!(bad_blocks(&log, 200).is_empty());
}

#[test]
fn a_partial_parity_log_and_a_journal_block_are_read() {
    let uuid = [3; 16];
    let mut header = vec![0xff; 512];
    header.resize(PplHeader::LENGTH, 0);
    put(&mut header, 512, &crc32c::crc32c(&uuid).to_le_bytes());
    put(&mut header, 520, &5_u64.to_le_bytes());
    put(&mut header, 528, &1_u32.to_le_bytes());
    put(&mut header, 536, &800_u64.to_le_bytes());
    put(&mut header, 536 + 16, &2_u32.to_le_bytes());
    let sum = crc32c::crc32c(&header);
    put(&mut header, 532, &sum.to_le_bytes());
    let parsed = PplHeader::parse(&header, &uuid, "sda", 0).unwrap();
    assert_eq!((parsed.generation, parsed.entries.len()), (5, 1));
    assert_eq!((parsed.entries[0].data_sector, parsed.entries[0].parity_slot), (800, 2));
    assert_eq!(PplHeader::parse(&header, &[4; 16], "sda", 0).unwrap_err().field, "signature");

    let mut block = vec![0; JournalBlock::LENGTH];
    put(&mut block, 0, &0x6433_c509_u32.to_le_bytes());
    block[8] = 1;
    put(&mut block, 12, &(32 + 20 + 16_u32).to_le_bytes());
    put(&mut block, 16, &11_u64.to_le_bytes());
    put(&mut block, 36, &8_u32.to_le_bytes());
    put(&mut block, 40, &640_u64.to_le_bytes());
    put(&mut block, 48, &0xabcd_u32.to_le_bytes());
    put(&mut block, 52, &2_u16.to_le_bytes());
    put(&mut block, 56, &8_u32.to_le_bytes());
    put(&mut block, 60, &64_u64.to_le_bytes());
    // The register after the UUID goes on with the block, and is not inverted at either end.
    let sum = !crc32c::crc32c_append(crc32c::crc32c(&uuid), &block);
    put(&mut block, 4, &sum.to_le_bytes());
    let parsed = JournalBlock::parse(&block, &uuid, "sdb", 0).unwrap().unwrap();
    let data = JournalPayload::Data { location: 640, checksums: vec![0xabcd] };
    assert_eq!(parsed.payloads, [data, JournalPayload::Flush { stripes: vec![64] }]);
    block[100] ^= 1;
    assert_eq!(JournalBlock::parse(&block, &uuid, "sdb", 0).unwrap_err().field, "checksum");
}

proptest! {
    /// Right checksums over garbage, so that garbage gets past them.
    #[test]
    fn garbage_gives_errors_only(
        garbage in prop::collection::vec(any::<u8>(), 266), cut in 0_usize..4097, at: u64, size: u64, keep: u64,
    ) {
        let mut block = version_1(8, |block| {
            for (index, byte) in garbage.iter().enumerate().skip(8) {
                // The offset and the number of roles decide whether anything further is looked at.
                if keep >> (index % 64) & 1 == 0 && !(144..152).contains(&index) && !(216..224).contains(&index) {
                    block[index] = *byte;
                }
            }
        });
        for version in MdVersion::ALL {
            let mut own = if version == MdVersion::V0_90 { version_0(keep & 1 == 0) } else { block.clone() };
            own.truncate(cut.max(300));
            for offset in [4096, at] {
                if let Some(raw) = RawSuperblock::parse(version, &own) {
                    let _ = raw.verify(version, "x", offset, size);
                }
            }
            let _ = version.superblock_offset(size);
        }
        block[..4].copy_from_slice(b"bitm");
        let header = BitmapHeader::parse(&block, "x", 0);
        if let Some(bitmap) = header.ok().flatten().and_then(|header| Bitmap::new(header, garbage.clone())) {
            let _ = bitmap.dirty(at..size);
        }
        let _ = bad_blocks(&garbage, garbage[0]);
        let _ = PplHeader::parse(&block, &[0; 16], "x", 0);
        let _ = JournalBlock::parse(&block, &[0; 16], "x", 0);
    }
}
