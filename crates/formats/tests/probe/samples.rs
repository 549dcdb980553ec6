//! One image of each format that has no tool here, built by hand from its published description.
#![allow(clippy::unwrap_used, dead_code)]

use crate::common::Image;

const MB: u64 = 1 << 20;
const UUID: [u8; 16] = *b"\x5c\xa1\xab\x1e\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67";
const UUID_TEXT: &str = "5ca1ab1e-0123-4567-89ab-cdef01234567";

/// An image, the sentence it must give, and what libblkid says of it.
pub(crate) struct Sample {
    pub(crate) image: Image,
    pub(crate) sentence: &'static str,
    pub(crate) uuid: &'static str,
    /// Type and label; `None` where libblkid doesn't know the format or wants far more of it.
    pub(crate) blkid: Option<[&'static str; 2]>,
}

fn sample(image: Image, sentence: &'static str, uuid: &'static str, blkid: [&'static str; 2]) -> Sample {
    Sample { image, sentence, uuid, blkid: Some(blkid) }
}

fn unknown(image: Image, sentence: &'static str, uuid: &'static str) -> Sample {
    Sample { image, sentence, uuid, blkid: None }
}

/// A structure with these fields, each at its offset.
fn fields(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (at, value) in fields {
        bytes[*at..*at + value.len()].copy_from_slice(value);
    }
    bytes
}

/// CRC-32 bit by bit, not inverted.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn set_le32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn le(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn be(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn sum32(bytes: &[u8]) -> u64 {
    bytes.chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().expect("a whole word")))).sum()
}

/// All samples.
pub(crate) fn all() -> Vec<Sample> {
    let groups = [arrays(), raidframe(), volumes(), tables(), boot_sectors(), others()];
    let mut samples: Vec<Sample> = groups.into_iter().flatten().collect();
    samples.push(zfs());
    let label = Image::new(4 * MB).put(16384, b"COFFERDAM-LABEL\0");
    samples.push(unknown(label, "a device of a Cofferdam pool", ""));
    samples
}

fn md_1(at: u64, size: u64) -> Image {
    let mut block = fields(
        512,
        &[
            (0, &le(&[0xa92b_4efc, 1])),
            (16, &UUID),
            (32, b"host:data"),
            (72, &le(&[5, 2])),
            (88, &le(&[128, 4])),
            (128, &2048_u64.to_le_bytes()),
            (136, &4096_u64.to_le_bytes()),
            (144, &(at / 512).to_le_bytes()),
            (200, &7_u64.to_le_bytes()),
            (220, &le(&[128])),
            (256, b"\0\0\x01\0\x02\0\x03\0"),
        ],
    );
    let sum = sum32(&block);
    set_le32(&mut block, 216, (sum as u32).wrapping_add((sum >> 32) as u32));
    Image::new(size).put(at, &block)
}

fn md_0_90(to_bytes: fn(&[u32]) -> Vec<u8>) -> Image {
    let mut words = vec![0_u32; 1024];
    for (at, word) in [
        (0, 0xa92b_4efc),
        (2, 90),
        (5, 0x5ca1_ab1e),
        (7, 5),
        (10, 4),
        (13, 0x0123_4567),
        (14, 0x89ab_cdef),
        (15, 0x0123_4567),
        (40, 7),
        (65, 65536),
    ] {
        words[at] = word;
    }
    let sum: u64 = words.iter().map(|word| u64::from(*word)).sum();
    words[38] = (sum as u32).wrapping_add((sum >> 32) as u32);
    // 8 MiB and 5 KiB: the superblock is at the last multiple of 64 KiB but one.
    Image::new(8 * MB + 5120).put(8 * MB - 65536, &to_bytes(&words))
}

fn arrays() -> Vec<Sample> {
    const MD: &str = "5ca1ab1e:01234567:89abcdef:01234567";
    let md = |image, sentence, label| sample(image, sentence, MD, ["linux_raid_member", label]);
    let size = 8 * MB + 3 * 512;
    let mut imsm = fields(
        1024,
        &[
            (0, b"Intel Raid ISM Cfg Sig. 1.3.00"),
            (0x24, &le(&[544, 0x5ca1_ab1e])),
            (0x38, &[2, 1]),
            (0xd8 + 96, b"Volume0"),
            (512, &[9; 32]),
        ],
    );
    let sum = sum32(&imsm) as u32;
    set_le32(&mut imsm, 0x20, sum);
    let mut ddf = fields(
        512,
        &[
            (0, b"\xde\x11\xde\x11\xff\xff\xff\xff"),
            (8, b"Cofferdam DDF test set! "),
            (32, b"01.02.00"),
            (96, &((8 * MB - 8192) / 512).to_be_bytes()),
            (104, &u64::MAX.to_be_bytes()),
        ],
    );
    let crc = crc32(0, &ddf);
    ddf[4..8].copy_from_slice(&crc.to_be_bytes());
    vec![
        md(md_0_90(le), "a Linux md array member (metadata 0.90)", ""),
        md(md_0_90(be), "a Linux md array member (metadata 0.90)", ""),
        md(
            md_1(8 * MB - 8192, size),
            "a Linux md array member (metadata 1.0) named 'host:data'",
            "host:data",
        ),
        md(md_1(0, size), "a Linux md array member (metadata 1.1) named 'host:data'", "host:data"),
        md(md_1(4096, size), "a Linux md array member (metadata 1.2) named 'host:data'", "host:data"),
        Sample {
            // The part that doesn't fit in the anchor's sector lies before it.
            image: Image::new(size).put(size - 1024, &imsm[..512]).put(size - 1536, &imsm[512..]),
            sentence: "an Intel (IMSM) array member with volume 'Volume0'",
            uuid: "5ca1ab1e",
            blkid: Some(["isw_raid_member", ""]),
        },
        sample(
            Image::new(8 * MB).put(8 * MB - 512, &ddf).put(8 * MB - 8192, &ddf),
            "a DDF array member",
            "436f6666657264616d204444462074657374207365742120",
            ["ddf_raid_member", ""],
        ),
    ]
}

fn raidframe() -> Vec<Sample> {
    let label = |to_bytes: fn(&[u32]) -> Vec<u8>| {
        let mut words = [0; 98];
        words[..17].copy_from_slice(&[2, 2024, 9, 0, 2, 1, 3, 1, 0, 32, 1, 1, 0x35, 100, 512, 16320, 16384]);
        words[50..53].copy_from_slice(&[1, 0, 4]);
        Image::new(8 * MB).put(16384, &to_bytes(&words))
    };
    let sentence = "a RAIDframe component label of 'raid4'";
    vec![unknown(label(le), sentence, "2024"), unknown(label(be), sentence, "2024")]
}

fn lvm() -> Image {
    let mut area = fields(
        512,
        &[
            (4, b" LVM2 x[5A%r0N*>"),
            (20, &le(&[1])),
            (24, &4096_u64.to_le_bytes()),
            (32, &1_044_480_u64.to_le_bytes()),
            (40, &1024_u64.to_le_bytes()),
            (48, &700_u64.to_le_bytes()),
        ],
    );
    let crc = crc32(0xf597_a6cf, &area[4..]);
    set_le32(&mut area, 0, crc);
    let mut label = fields(
        512,
        &[
            (0, b"LABELONE"),
            (8, &1_u64.to_le_bytes()),
            (20, &le(&[32])),
            (24, b"LVM2 001"),
            (32, b"abcdefGHIJklmnOPQRstuvWXYZ012345"),
            (64, &(8 * MB).to_le_bytes()),
            (72, &MB.to_le_bytes()),
            // After the list of data areas and its end: the metadata area.
            (104, &4096_u64.to_le_bytes()),
            (112, &1_044_480_u64.to_le_bytes()),
        ],
    );
    let crc = crc32(0xf597_a6cf, &label[20..]);
    set_le32(&mut label, 16, crc);
    Image::new(8 * MB).put(512, &label).put(4096, &area).put(5120, b"archive {\nid = \"...")
}

fn volumes() -> Vec<Sample> {
    let luks = |magic: &[u8], version: u8, at: u64| {
        fields(
            512,
            &[
                (0, magic),
                (7, &[version]),
                (8, &16384_u64.to_be_bytes()),
                (24, if version == 2 { b"safe" } else { b"aes\0" }),
                (168, UUID_TEXT.as_bytes()),
                (256, &if version == 2 { at } else { 0 }.to_be_bytes()),
            ],
        )
    };
    let luks1 = Image::new(8 * MB).put(0, &luks(b"LUKS\xba\xbe", 1, 0));
    let luks2 = luks(b"LUKS\xba\xbe", 2, 0);
    let luks2 = Image::new(8 * MB).put(0, &luks2).put(16384, &luks(b"SKUL\xba\xbe", 2, 16384));
    let bcache = |magic: &[u8], sector: u64| {
        let own = fields(512, &[(8, &sector.to_le_bytes()), (24, magic), (72, b"fast")]);
        let at = if sector == 0 { 56 } else { 40 };
        Image::new(8 * MB).put(4096, &own).put(4096 + at, &UUID)
    };
    let mut stratis = fields(
        512,
        &[
            (4, b"!Stra0tis\x86\xff\x02^\x41rh"),
            (20, &16384_u64.to_le_bytes()),
            (32, b"0f0e0d0c0b0a09080706050403020100"),
            (64, b"5ca1ab1e0123456789abcdef01234567"),
        ],
    );
    let crc = crc32c::crc32c(&stratis[4..]);
    set_le32(&mut stratis, 0, crc);
    let lvm_uuid = "abcdef-GHIJ-klmn-OPQR-stuv-WXYZ-012345";
    let plain = UUID_TEXT;
    let old = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
    let new = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    vec![
        sample(lvm(), "an LVM2 physical volume of volume group 'archive'", lvm_uuid, ["LVM2_member", ""]),
        sample(luks1, "a LUKS1 encrypted volume", plain, ["crypto_LUKS", ""]),
        sample(luks2, "a LUKS2 encrypted volume labelled 'safe'", plain, ["crypto_LUKS", "safe"]),
        unknown(bcache(old, 8), "a bcache device labelled 'fast'", plain),
        unknown(bcache(new, 0), "a bcachefs file system labelled 'fast'", plain),
        sample(
            Image::new(8 * MB).put(512, &stratis).put(4608, &stratis),
            "a device of a Stratis pool",
            "5ca1ab1e0123456789abcdef01234567",
            ["stratis", ""],
        ),
    ]
}

/// A name-value pair in XDR: lengths, name, type, count, value.
fn xdr_pair(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut pair = be(&[0, 0, name.len() as u32]);
    pair.extend_from_slice(name.as_bytes());
    pair.resize(pair.len().next_multiple_of(4), 0);
    pair.extend(be(&[kind, 1]));
    pair.extend_from_slice(value);
    pair.resize(pair.len().next_multiple_of(4), 0);
    let length = pair.len() as u32;
    pair[..4].copy_from_slice(&length.to_be_bytes());
    pair[4..8].copy_from_slice(&length.to_be_bytes());
    pair
}

fn zfs() -> Sample {
    let mut pairs = b"\x01\x01\0\0\0\0\0\0\0\0\0\x01".to_vec();
    pairs.extend(xdr_pair("version", 8, &5000_u64.to_be_bytes()));
    pairs.extend(xdr_pair("name", 9, b"\0\0\0\x04tank"));
    pairs.extend(xdr_pair("pool_guid", 8, &1_234_567_890_u64.to_be_bytes()));
    pairs.extend(xdr_pair("guid", 8, &99_u64.to_be_bytes()));
    let mut image = Image::new(64 * MB + 100_000);
    for at in [0, 256 << 10, 64 * MB - (512 << 10), 64 * MB - (256 << 10)] {
        image = image.put(at + (16 << 10), &pairs);
        image = image.put(at + (128 << 10) - 40, &0x0210_da7a_b10c_7a11_u64.to_le_bytes());
        for slot in 0..8 {
            let block = [0x00ba_b10c, 5000, 40 + slot, 1, 1_700_000_000].map(u64::to_le_bytes).concat();
            image = image.put(at + (128 << 10) + slot * 1024, &block);
        }
    }
    sample(image, "a member of a ZFS pool named 'tank'", "1234567890", ["zfs_member", "tank"])
}

/// A GPT with blocks of `block` bytes and two partitions.
pub(crate) fn gpt(block: u64) -> Image {
    let size = 16 * MB;
    let last = size / block - 1;
    let entry = |first: u64| {
        fields(
            128,
            &[
                (0, &[0xaf; 16]),
                (16, &[first as u8; 16]),
                (32, &first.to_le_bytes()),
                (40, &(first + 99).to_le_bytes()),
            ],
        )
    };
    let mut entries = [entry(256), entry(512)].concat();
    entries.resize(128 * 128, 0);
    let header = |own: u64, other: u64, entries_at: u64| {
        let mut header = fields(
            92,
            &[
                (0, b"EFI PART\0\0\x01\0"),
                (12, &le(&[92])),
                (24, &own.to_le_bytes()),
                (32, &other.to_le_bytes()),
                (40, &40_u64.to_le_bytes()),
                (48, &(last - 40).to_le_bytes()),
                (56, b"\x1e\xab\xa1\x5c\x23\x01\x67\x45\x89\xab\xcd\xef\x01\x23\x45\x67"),
                (72, &entries_at.to_le_bytes()),
                (80, &le(&[128, 128, !crc32(!0, &entries)])),
            ],
        );
        let crc = !crc32(!0, &header);
        set_le32(&mut header, 16, crc);
        header
    };
    let entries_last = last - (128 * 128) / block;
    Image::new(size)
        .put(446, b"\0\0\x02\0\xee\xff\xff\xff\x01\0\0\0\xff\x7f\0\0")
        .put(510, b"\x55\xaa")
        .put(block, &header(1, last, 2))
        .put(2 * block, &entries)
        .put(last * block, &header(last, 1, entries_last))
        .put(entries_last * block, &entries)
}

fn tables() -> Vec<Sample> {
    let sentence = "a GPT partition table with 2 partitions";
    let mbr = Image::new(8 * MB)
        .put(440, &le(&[0x5ca1_ab1e]))
        .put(446, b"\x80\0\0\0\x83\0\0\0\0\x08\0\0\0\x10\0\0")
        .put(510, b"\x55\xaa");
    let mut label = fields(
        148 + 8 * 16,
        &[
            (0, &le(&[0x8256_4557])),
            (24, b"tapes"),
            (40, &le(&[512, 32, 16, 32, 512, 16384])),
            (132, &le(&[0x8256_4557])),
            (138, &[8, 0]),
            (148, &le(&[2048, 0])),
            (164, &le(&[16384, 0])),
        ],
    );
    let sum = label.chunks(2).fold(0, |sum, pair| sum ^ u16::from_le_bytes([pair[0], pair[1]]));
    label[136..138].copy_from_slice(&sum.to_le_bytes());
    vec![
        sample(gpt(512), sentence, UUID_TEXT, ["gpt", ""]),
        unknown(gpt(4096), sentence, UUID_TEXT),
        sample(mbr, "an MBR partition table with 1 partition", "5ca1ab1e", ["dos", ""]),
        // libblkid wants it within a partition of an MBR.
        unknown(Image::new(8 * MB).put(512, &label), "a BSD disklabel with 2 partitions named 'tapes'", ""),
    ]
}

fn fat(wide: bool) -> Image {
    let (sectors, table): (u32, u32) = if wide { (1 << 19, 1024) } else { (1 << 14, 64) };
    let extended = if wide { 66 } else { 38 };
    let copies = u64::from(32 + 2 * table) * 512;
    let clusters = if wide { [32, 2] } else { [0, 0] };
    let sector = fields(
        512,
        &[
            (0, b"\xeb\x3c\x90mkfs.fat\0\x02"),
            (13, &[1, 32, 0, 2]),
            (17, if wide { &[0, 0] } else { &[0, 2] }),
            (21, &[0xf8]),
            (22, &if wide { 0 } else { table as u16 }.to_le_bytes()),
            (32, &le(&[sectors])),
            (36, &le(&if wide { [table, 0] } else { [0, 0] })),
            (44, &le(&clusters[1..])),
            (extended, b"\x29\x1e\xab\xa1\x5cOLD NAME   "),
            (extended + 16, if wide { b"FAT32   " } else { b"FAT16   " }),
            (510, b"\x55\xaa"),
        ],
    );
    let directory =
        [fields(32, &[(0, b"\xe5GONE       \x08")]), fields(32, &[(0, b"CAMERA     \x08")])].concat();
    Image::new(u64::from(sectors) * 512).put(0, &sector).put(copies, &directory)
}

fn exfat() -> Image {
    let mut boot = fields(
        11 * 512,
        &[
            (0, b"\xeb\x76\x90EXFAT   "),
            (72, &16384_u64.to_le_bytes()),
            (80, &le(&[128, 64, 256, 2000, 4, 0x5ca1_ab1e])),
            (104, &[0, 1]),
            (108, &[9, 3, 1, 0x80]),
            (510, b"\x55\xaa"),
        ],
    );
    for sector in 1..9 {
        boot[sector * 512 + 510..sector * 512 + 512].copy_from_slice(b"\x55\xaa");
    }
    let mut sum = 0_u32;
    for (at, byte) in boot.iter().enumerate() {
        if ![106, 107, 112].contains(&at) {
            sum = sum.rotate_right(1).wrapping_add(u32::from(*byte));
        }
    }
    let label = fields(32, &[(0, &[0x83, 5]), (2, &utf16("Stick"))]);
    // Cluster 4 is the third: clusters are numbered from 2.
    let root = (256 + 2 * 8) * 512;
    Image::new(8 * MB).put(0, &boot).put(11 * 512, &le(&[sum; 128])).put(root, &label)
}

fn ntfs() -> Image {
    let sector = fields(
        512,
        &[
            (0, b"\xeb\x52\x90NTFS    \0\x02\x08"),
            (21, &[0xf8]),
            (36, &[0x80, 0, 0x80, 0]),
            (40, &16383_u64.to_le_bytes()),
            (48, &4_u64.to_le_bytes()),
            (56, &8_u64.to_le_bytes()),
            (64, &[0xf6, 0, 0, 0, 1]),
            (72, &0x5ca1_ab1e_0123_4567_u64.to_le_bytes()),
            (510, b"\x55\xaa"),
        ],
    );
    let record = fields(
        1024,
        &[
            (0, b"FILE0"),
            (20, &[56]),
            (24, &le(&[400, 1024])),
            // A standard attribute first, then the volume's name.
            (56, &le(&[0x10, 96])),
            (152, &le(&[0x60, 40])),
            (168, &le(&[14, 24])),
            (176, &utf16("Windows")),
            (192, &le(&[0xffff_ffff])),
        ],
    );
    Image::new(8 * MB).put(0, &sector).put(4 * 4096, &record).put(4 * 4096 + 3 * 1024, &record)
}

fn boot_sectors() -> Vec<Sample> {
    let bitlocker = fields(512, &[(0, b"\xeb\x58\x90-FVE-FS-"), (510, b"\x55\xaa")]);
    vec![
        sample(fat(false), "a FAT file system labelled 'CAMERA'", "5CA1-AB1E", ["vfat", "CAMERA"]),
        sample(fat(true), "a FAT file system labelled 'CAMERA'", "5CA1-AB1E", ["vfat", "CAMERA"]),
        sample(exfat(), "an exFAT file system labelled 'Stick'", "5CA1-AB1E", ["exfat", "Stick"]),
        sample(ntfs(), "an NTFS file system labelled 'Windows'", "5ca1ab1e01234567", ["ntfs", "Windows"]),
        unknown(Image::new(8 * MB).put(0, &bitlocker), "a BitLocker volume", ""),
    ]
}

fn others() -> Vec<Sample> {
    let mut f2fs = fields(
        3072,
        &[
            (0, &le(&[0xf2f5_2010, 1 | 16 << 16, 9, 3, 12, 9, 1, 1, 3068])),
            (36, &2048_u64.to_le_bytes()),
            (108, &UUID),
            (124, &utf16("phone")),
        ],
    );
    let crc = crc32(0xf2f5_2010, &f2fs[..3068]);
    set_le32(&mut f2fs, 3068, crc);
    let iso = fields(
        2048,
        &[
            (0, b"\x01CD001\x01"),
            (40, b"INSTALL                         "),
            (80, b"\0\x01\0\0\0\0\x01\0"),
            (120, b"\x01\0\0\x01\x01\0\0\x01\0\x08\x08\0"),
            (813, b"2024010203040500\0"),
            (830, b"2024010203040500\0"),
        ],
    );
    let iso = Image::new(8 * MB).put(32768, &iso).put(32768 + 2048, b"\xffCD001\x01");
    let squash = fields(
        96,
        &[
            (0, b"hsqs"),
            (12, &le(&[1 << 17])),
            (20, &[1, 0, 17, 0]),
            (28, &[4, 0, 0, 0]),
            (40, &4096_u64.to_le_bytes()),
        ],
    );
    let jfs =
        fields(184, &[(0, b"JFS1\x01"), (16, &le(&[4096, 0x3_000c, 512, 9])), (136, &UUID), (152, b"os2")]);
    let reiser = fields(128, &[(12, &[18]), (44, &[0, 16]), (52, b"ReIsEr2Fs"), (84, &UUID), (100, b"old")]);
    let ufs = |magic: u32, to_bytes: fn(&[u32]) -> Vec<u8>| {
        fields(
            1376,
            &[
                (48, &to_bytes(&[16384, 2048, 8])),
                (144, &to_bytes(&[0x5ca1_ab1e, 0x0123_4567])),
                (680, if magic == 0x0001_1954 { b"" } else { b"bsdroot" }),
                (1372, &to_bytes(&[magic])),
            ],
        )
    };
    let apfs = fields(
        4096,
        &[
            (8, &1_u64.to_le_bytes()),
            (24, &le(&[0x8000_0001])),
            (32, b"NXSB"),
            (36, &le(&[4096])),
            (40, &2048_u64.to_le_bytes()),
            (72, &UUID),
        ],
    );
    let hfs = fields(512, &[(0, b"H+\0\x04"), (40, &be(&[4096, 2048, 1000]))]);
    let image = |at, bytes: &[u8]| Image::new(8 * MB).put(at, bytes);
    vec![
        sample(
            image(1024, &f2fs).put(5120, &f2fs),
            "an f2fs file system labelled 'phone'",
            UUID_TEXT,
            ["f2fs", "phone"],
        ),
        sample(iso, "an ISO 9660 image labelled 'INSTALL'", "2024010203040500", ["iso9660", "INSTALL"]),
        unknown(image(32768, b"\0BEA01\x01").put(34816, b"\0NSR02\x01"), "a UDF file system", ""),
        sample(image(0, &squash), "a squashfs image", "", ["squashfs", ""]),
        sample(
            Image::new(16 * MB).put(32768, &jfs),
            "a JFS file system labelled 'os2'",
            UUID_TEXT,
            ["jfs", "os2"],
        ),
        sample(
            image(65536, &reiser),
            "a ReiserFS file system labelled 'old'",
            UUID_TEXT,
            ["reiserfs", "old"],
        ),
        sample(
            image(65536, &ufs(0x1954_0119, le)),
            "a UFS file system labelled 'bsdroot'",
            "5ca1ab1e01234567",
            ["ufs", "bsdroot"],
        ),
        sample(image(8192, &ufs(0x0001_1954, be)), "a UFS file system", "5ca1ab1e01234567", ["ufs", ""]),
        sample(image(0, &apfs), "an APFS container", UUID_TEXT, ["apfs", ""]),
        unknown(image(1024, &hfs), "an HFS+ file system", ""),
    ]
}
