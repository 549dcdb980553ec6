//! The smallest client of a network block device.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Reads `length` bytes at `offset` of an export.
///
/// # Errors
/// The server hangs up or answers with an error.
pub(super) fn read(socket: &Path, export: &str, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    const OPTION: &[u8; 8] = b"IHAVEOPT";
    const EXPORT_NAME: u32 = 1;
    const FIXED_NO_ZEROES: u32 = 3;
    const REQUEST: u32 = 0x2560_9513;
    const DISCONNECT: u16 = 2;
    let mut stream = UnixStream::connect(socket)?;
    stream.read_exact(&mut [0; 18])?;
    stream.write_all(&FIXED_NO_ZEROES.to_be_bytes())?;
    stream.write_all(OPTION)?;
    stream.write_all(&EXPORT_NAME.to_be_bytes())?;
    stream.write_all(&(export.len() as u32).to_be_bytes())?;
    stream.write_all(export.as_bytes())?;
    stream.read_exact(&mut [0; 10])?;
    let request = |stream: &mut UnixStream, command: u16, length: u32| {
        let mut bytes = REQUEST.to_be_bytes().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(command.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        stream.write_all(&bytes)
    };
    request(&mut stream, 0, length)?;
    let mut reply = [0; 16];
    stream.read_exact(&mut reply)?;
    if reply[4..8] != [0; 4] {
        return Err(io::Error::other("the server can't read there"));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    request(&mut stream, DISCONNECT, 0)?;
    Ok(bytes)
}
