//! Fields of on-disk structures, read without trusting anything.

use std::fmt::Write;

/// Fields at byte offsets; `None` where the bytes end before the field does.
pub(crate) trait Fields {
    fn range(&self, at: usize, length: usize) -> Option<&[u8]>;

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.range(at, N)?.try_into().ok()
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.bytes::<1>(at).map(|bytes| bytes[0])
    }

    fn le16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn le32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn le64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn be16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_be_bytes)
    }

    fn be32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn be64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_be_bytes)
    }

    /// Whether these very bytes are there.
    fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        self.range(at, bytes.len()) == Some(bytes)
    }

    /// Text of at most `length` bytes that ends at the first NUL or before padding spaces; `None` if empty.
    fn text(&self, at: usize, length: usize) -> Option<String> {
        let bytes = self.range(at, length)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(length);
        printable(&String::from_utf8_lossy(&bytes[..end]))
    }

    /// Text of at most `units` UTF-16 units, little-endian, that ends at the first NUL; `None` if empty.
    fn utf16(&self, at: usize, units: usize) -> Option<String> {
        let bytes = self.range(at, units.checked_mul(2)?)?;
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        printable(&String::from_utf16_lossy(&units))
    }

    /// A UUID in the order of its bytes; `None` if it is all zero.
    fn uuid(&self, at: usize) -> Option<String> {
        let bytes: [u8; 16] = self.bytes(at)?;
        (bytes != [0; 16]).then(|| dashed(&bytes))
    }

    /// A UUID whose first three groups are little-endian, as EFI and Microsoft write it.
    fn guid(&self, at: usize) -> Option<String> {
        let mut bytes: [u8; 16] = self.bytes(at)?;
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        (bytes != [0; 16]).then(|| dashed(&bytes))
    }
}

impl Fields for [u8] {
    fn range(&self, at: usize, length: usize) -> Option<&[u8]> {
        self.get(at..at.checked_add(length)?)
    }
}

/// The text without padding and without anything that could drive a terminal; `None` if nothing is left.
pub(crate) fn printable(text: &str) -> Option<String> {
    let text: String = text.trim().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    (!text.is_empty()).then_some(text)
}

/// Lower-case hexadecimal digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn dashed(bytes: &[u8; 16]) -> String {
    let hex = hex(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
