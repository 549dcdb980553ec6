//! Files of text that people name: read up to a size beyond which they are none, so that a disk named by mistake takes no memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text in a file of at most `limit` bytes.
///
/// # Errors
/// It can't be read, is longer, or is not UTF-8.
pub(crate) fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_longer_than_the_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345678").unwrap();
        assert_eq!(read(file.path(), 8).unwrap(), "12345678");
        assert_eq!(read(file.path(), 7).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read("/dev/zero", 1 << 20).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
