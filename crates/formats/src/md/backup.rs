//! What `mdadm --grow` sets aside of an array while its rows change places, in a file or on added members.

use super::error::{FieldError, Site};
use crate::fields::Fields;

/// A run of the array's old contents that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupRun {
    /// Where it is in the backup file, bytes.
    pub from: u64,
    /// Where it belongs in the array, bytes.
    pub to: u64,
    /// Bytes.
    pub length: u64,
}

/// The header of a reshape's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReshapeBackup {
    /// The array's UUID as it is on the medium; of 0.90, each word in the byte order of the machine.
    pub uuid: [u8; 16],
    /// When it was written, seconds since 1970.
    pub written: u64,
    /// What was set aside; runs that are empty are left out.
    pub runs: Vec<BackupRun>,
}

impl ReshapeBackup {
    /// Bytes of the header.
    pub const LENGTH: usize = 512;

    /// The header at byte `offset` of `device`; `None` if there is none.
    ///
    /// # Errors
    /// A wrong checksum, or sizes that can't be.
    pub fn parse(bytes: &[u8], device: &str, offset: u64) -> Result<Option<Self>, FieldError> {
        let site = Site { device, offset, structure: "md reshape backup" };
        let two = bytes.holds(0, b"md_backup_data-2");
        if !two && !bytes.holds(0, b"md_backup_data-1") {
            return Ok(None);
        }
        let run = |at: usize| {
            let bytes_of = |at| bytes.le64(at)?.checked_mul(512);
            let run = BackupRun { from: bytes_of(at)?, to: bytes_of(at + 8)?, length: bytes_of(at + 16)? };
            let end = run.to.checked_add(run.length)?.max(run.from.checked_add(run.length)?);
            (end <= 1 << 60).then_some(run)
        };
        let parse = || {
            let second = if two { Some(run(72)?) } else { None };
            let runs = [Some(run(40)?), second].into_iter().flatten().filter(|run| run.length > 0);
            Some((bytes.bytes(16)?, bytes.le64(32)?, runs.collect(), bytes.le32(64)?, bytes.le32(96)?))
        };
        let Some((uuid, written, runs, first, second)) = parse() else {
            return Err(site.error("runs", "beyond 2^60 bytes, or cut off", "within the array"));
        };
        let fits = |end: usize, stored| bytes.get(..end).is_some_and(|bytes| sums(bytes).contains(&stored));
        site.require(fits(64, first), "sb_csum", first, "the sum of what is before it")?;
        site.require(!two || fits(96, second), "sb_csum2", second, "the sum of what is before it")?;
        Ok(Some(Self { uuid, written, runs }))
    }
}

/// The sum as it was meant, and as mdadm computes it: of the first byte, again and again.
fn sums(bytes: &[u8]) -> [u32; 2] {
    let add = |sum: u32, byte: u8| (sum << 3).wrapping_add(byte.into());
    let first = bytes.first().copied().unwrap_or(0);
    [bytes.iter().fold(0, |sum, byte| add(sum, *byte)), bytes.iter().fold(0, |sum, _| add(sum, first))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn headers_of_both_kinds_are_read_and_others_refused() {
        let mut bytes = vec![0; ReshapeBackup::LENGTH];
        bytes[..16].copy_from_slice(b"md_backup_data-2");
        for (at, value) in [(32, 77_u64), (40, 8), (48, 1000), (56, 128), (72, 200), (80, 1128), (88, 0)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let sum = sums(&bytes[..64])[1];
        bytes[64..68].copy_from_slice(&sum.to_le_bytes());
        bytes[96..100].fill(0x5a);
        assert_eq!(ReshapeBackup::parse(&bytes, "file", 0).unwrap_err().field, "sb_csum2");
        let sum = sums(&bytes[..96])[0];
        bytes[96..100].copy_from_slice(&sum.to_le_bytes());
        let backup = ReshapeBackup::parse(&bytes, "file", 0).unwrap().unwrap();
        assert_eq!((backup.written, backup.runs.len()), (77, 1), "an empty run is none");
        assert_eq!(backup.runs[0], BackupRun { from: 4096, to: 512_000, length: 65536 });
        bytes[40..48].fill(0xff);
        assert_eq!(ReshapeBackup::parse(&bytes, "file", 0).unwrap_err().field, "runs");
        bytes[0] = 0;
        assert_eq!(ReshapeBackup::parse(&bytes, "file", 0), Ok(None));
        for length in 0..200 {
            let _ = ReshapeBackup::parse(&b"md_backup_data-1"[..length.min(16)], "file", 0);
        }
    }
}
