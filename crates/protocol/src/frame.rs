//! Frames: magic, two lengths, JSON, bytes. Lengths are little-endian.
//!
//! ```text
//! 0  "CFR1"
//! 4  u32  length of the JSON
//! 8  u32  length of the payload
//! 12 JSON, payload
//! ```

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::MAX_TRANSFER;

const MAGIC: [u8; 4] = *b"CFR1";
/// Largest JSON of a frame, bytes: a map of a pool of many chunks is the longest there is.
pub const MAX_JSON: usize = 256 << 20;
/// Largest JSON of a request, bytes.
pub const MAX_REQUEST: usize = 1 << 20;

/// Writes one frame.
pub fn write<T: Serialize>(to: &mut impl Write, message: &T, payload: &[u8]) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_JSON || payload.len() > MAX_TRANSFER {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long for the control socket",
        ));
    }
    let mut head = [0; 12];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&(json.len() as u32).to_le_bytes());
    head[8..].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(&json)?;
    to.write_all(payload)?;
    to.flush()
}

/// Reads one frame; `None` at a clean end. Memory is taken only as bytes arrive.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, max_json: usize) -> io::Result<Option<(T, Vec<u8>)>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; 12];
    if from.read(&mut head[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut head[1..])?;
    if head[..4] != MAGIC {
        return Err(bad("it is not a frame of the control protocol"));
    }
    let length =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
    let (json, payload) = (length(4), length(8));
    if json > max_json || payload > MAX_TRANSFER {
        return Err(bad("a frame is too long"));
    }
    let mut take = |length: usize| {
        let mut bytes = Vec::new();
        from.take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() == length { Ok(bytes) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
    };
    let (json, payload) = (take(json)?, take(payload)?);
    Ok(Some((serde_json::from_slice(&json)?, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Call, Request};

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let call =
            Call { version: 1, command: "coffer status".into(), request: Request::Events { after: 3 } };
        let mut bytes = Vec::new();
        write(&mut bytes, &call, b"payload").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from, MAX_REQUEST).unwrap(), Some((call, b"payload".to_vec())));
        assert!(read::<Call>(&mut from, MAX_REQUEST).unwrap().is_none());
        for end in 1..bytes.len() {
            assert!(read::<Call>(&mut &bytes[..end], MAX_REQUEST).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn long_and_foreign_frames_are_refused() {
        for head in [*b"GET / HTTP/1", *b"CFR1\xff\xff\xff\xff\0\0\0\0", *b"CFR1\x02\0\0\0\xff\xff\xff\xff"] {
            let error = read::<Call>(&mut head.as_slice(), MAX_REQUEST).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
