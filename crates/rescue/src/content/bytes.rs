//! Fields and checksums. Fields beyond the bytes read as zero, which no check takes for right.

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|field| field.try_into().ok()).map_or(0, u16::from_le_bytes)
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|field| field.try_into().ok()).map_or(0, u16::from_be_bytes)
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// CRC-32C as the kernel's function has it: from a register on, without inversions.
pub(crate) fn crc(register: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!register, bytes)
}

const REVERSE: [(u8, u32); 256] = {
    // Which entry of the forward table has this high byte, and the entry: that undoes one byte.
    let mut reverse = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let mut entry = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 { entry >> 1 ^ 0x82f6_3b78 } else { entry >> 1 };
            bit += 1;
        }
        reverse[(entry >> 24) as usize] = (byte as u8, entry);
        byte += 1;
    }
    reverse
};

/// What the register was before it took in `bytes`, which made it `register`.
pub(crate) fn crc_before(register: u32, bytes: impl DoubleEndedIterator<Item = u8>) -> u32 {
    bytes.rev().fold(register, |register, byte| {
        let (index, entry) = REVERSE[(register >> 24) as usize];
        (register ^ entry) << 8 | u32::from(index ^ byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_runs_backwards() {
        let bytes = b"not the same thing as before";
        let register = crc(0x1234_5678, bytes);
        assert_eq!(crc_before(register, bytes.iter().copied()), 0x1234_5678);
    }
}
