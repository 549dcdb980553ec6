//! CRC-32 with the polynomial of Ethernet, reflected (0xedb88320), with the start value open: LVM, DDF and
//! f2fs each begin elsewhere and leave out the final inversion.

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The register after `bytes`, not inverted.
pub(crate) fn crc32_raw(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// The common CRC-32, as zip and GPT use it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !crc32_raw(!0, bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn check_value() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
    }
}
