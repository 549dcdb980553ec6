//! What Linux md keeps on its members.

use formats::MdVersion;
use formats::md::{Bitmap, BitmapHeader, JournalBlock, PplHeader, RawSuperblock, ReshapeBackup, bad_blocks};

/// All of md's structures; the first bytes say how large the member claims to be.
#[allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]
pub fn run(data: &[u8]) {
    let Some((&[kind, shift], data)) = data.split_first_chunk::<2>() else { return };
    let size = 1_u64.checked_shl(u32::from(shift)).unwrap_or(u64::MAX);
    for version in MdVersion::ALL {
        let mut told = data.to_vec();
        for pass in 0..2 {
            let Some(raw) = RawSuperblock::parse(version, &told) else { break };
            if let Ok(superblock) =
                raw.verify(version, "fuzzed", version.superblock_offset(size).unwrap_or(0), size)
            {
                let _ = format!("{superblock:?}");
            }
            if pass == 0 {
                seal(version, &mut told);
            }
        }
    }
    match kind % 5 {
        0 => {
            if let Ok(Some(header)) = BitmapHeader::parse(data, "fuzzed", 0) {
                let length = header.bits_length();
                let bits = data.get(256..).unwrap_or(&[]).to_vec();
                let fits = bits.len() as u64 >= length;
                if let Some(bitmap) = Bitmap::new(header, bits) {
                    assert!(fits, "a bitmap without its bits");
                    let _ = (bitmap.dirty(0..1), bitmap.dirty(0..u64::MAX), bitmap.dirty(size..u64::MAX));
                }
            }
        }
        1 => drop(bad_blocks(data, shift)),
        2 => drop(ReshapeBackup::parse(data, "fuzzed", 0)),
        3 => drop(PplHeader::parse(data, &[7; 16], "fuzzed", 0)),
        _ => drop(JournalBlock::parse(data, &[7; 16], "fuzzed", 0)),
    }
}

/// Makes the checksum right, by the sums that md's header file describes.
fn seal(version: MdVersion, bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| -> u64 {
        bytes.get(at..at + 4).map_or(0, |b| b.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (at, length) = match version {
        MdVersion::V0_90 => (152, 4096),
        _ => (216, 256 + 2 * (word(bytes, 220) as usize).min(2048)),
    };
    if bytes.len() < length.max(at + 4) {
        return;
    }
    bytes[at..at + 4].fill(0);
    let mut sum: u64 = (0..length / 4).map(|index| word(bytes, index * 4)).sum();
    if length % 4 == 2 {
        sum += word(bytes, length - 2) & 0xffff;
    }
    let folded = ((sum & 0xffff_ffff) + (sum >> 32)) as u32;
    bytes[at..at + 4].copy_from_slice(&folded.to_le_bytes());
}
