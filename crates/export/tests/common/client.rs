//! A small NBD client that says exactly what a test tells it to.
#![allow(clippy::unwrap_used, dead_code)]

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

pub const EXPORT_NAME: u32 = 1;
pub const ABORT: u32 = 2;
pub const LIST: u32 = 3;
pub const STARTTLS: u32 = 5;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const LIST_META_CONTEXT: u32 = 9;
pub const SET_META_CONTEXT: u32 = 10;

pub const ACK: u32 = 1;
pub const SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const META_CONTEXT: u32 = 4;
pub const ERR_UNSUPPORTED: u32 = 0x8000_0001;
pub const ERR_POLICY: u32 = 0x8000_0002;
pub const ERR_INVALID: u32 = 0x8000_0003;
pub const ERR_UNKNOWN: u32 = 0x8000_0006;
pub const ERR_TOO_BIG: u32 = 0x8000_0009;

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISCONNECT: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

pub const FUA: u16 = 1;
pub const NO_HOLE: u16 = 2;
pub const DF: u16 = 4;
pub const REQ_ONE: u16 = 8;
pub const FAST_ZERO: u16 = 16;

pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;

/// One structured reply chunk, or a simple reply as a chunk of kind `SIMPLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub kind: u16,
    pub done: bool,
    pub cookie: u64,
    pub data: Vec<u8>,
}

pub const SIMPLE: u16 = 0x7fff;
pub const NONE: u16 = 0;
pub const OFFSET_DATA: u16 = 1;
pub const OFFSET_HOLE: u16 = 2;
pub const STATUS: u16 = 5;
pub const ERROR: u16 = 0x8001;

pub struct Client {
    pub stream: UnixStream,
    /// Transmission flags and size, once known.
    pub flags: u16,
    pub size: u64,
    pub structured: bool,
    cookie: u64,
}

pub fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

pub fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

fn array<const N: usize>(mut stream: &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

impl Client {
    /// Connects and exchanges flags.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        // Far more than anything takes: a test that would hang for ever fails instead.
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let hello: [u8; 18] = array(&stream).unwrap();
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        assert_eq!(hello[16..], [0, 3]);
        (&stream).write_all(&3_u32.to_be_bytes()).unwrap();
        Self { stream, flags: 0, size: 0, structured: false, cookie: 0 }
    }

    /// Connects and opens an export with `GO`.
    pub fn open(socket: &Path, name: &str, structured: bool) -> Self {
        let mut client = Self::connect(socket);
        if structured {
            assert_eq!(client.option(STRUCTURED_REPLY, &[]), [(ACK, vec![])]);
            client.structured = true;
            let replies = client.option(SET_META_CONTEXT, &contexts(name, &["base:allocation"]));
            assert_eq!(replies.last(), Some(&(ACK, vec![])));
        }
        client.go(name);
        client
    }

    pub fn go(&mut self, name: &str) {
        let replies = self.option(GO, &information(name, &[]));
        assert_eq!(replies.last(), Some(&(ACK, vec![])));
        let export = &replies.iter().find(|(kind, data)| *kind == REP_INFO && data[..2] == [0, 0]).unwrap().1;
        self.size = be64(&export[2..]);
        self.flags = u16::from_be_bytes([export[10], export[11]]);
    }

    pub fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    pub fn send_option(&self, number: u32, data: &[u8]) {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
    }

    /// Sends an option; all replies up to the last one.
    pub fn option(&self, number: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send_option(number, data);
        let mut replies = Vec::new();
        loop {
            let reply = self.option_reply(number);
            let last = reply.0 == ACK || reply.0 & (1 << 31) != 0;
            replies.push(reply);
            if last {
                return replies;
            }
        }
    }

    pub fn option_reply(&self, number: u32) -> (u32, Vec<u8>) {
        let header: [u8; 20] = array(&self.stream).unwrap();
        assert_eq!(be64(&header), 0x0003_e889_0455_65a9);
        assert_eq!(be32(&header[8..]), number);
        let mut data = vec![0; be32(&header[16..]) as usize];
        (&self.stream).read_exact(&mut data).unwrap();
        (be32(&header[12..]), data)
    }

    /// Sends a request; returns its cookie.
    pub fn request(&mut self, command: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) -> u64 {
        self.cookie += 1;
        let mut bytes = encode(command, flags, self.cookie, offset, length);
        bytes.extend(payload);
        self.send(&bytes);
        self.cookie
    }

    /// The next chunk; a simple reply to a read has `data_length` bytes of data if it succeeded.
    pub fn chunk(&self, data_length: usize) -> io::Result<Chunk> {
        let magic = be32(&array::<4>(&self.stream)?);
        if magic == 0x6744_6698 {
            let rest: [u8; 12] = array(&self.stream)?;
            let mut data = rest[..4].to_vec();
            if be32(&rest) == 0 {
                data.resize(4 + data_length, 0);
                (&self.stream).read_exact(&mut data[4..])?;
            }
            return Ok(Chunk { kind: SIMPLE, done: true, cookie: be64(&rest[4..]), data });
        }
        assert_eq!(magic, 0x668e_33ef);
        let rest: [u8; 16] = array(&self.stream)?;
        let mut data = vec![0; be32(&rest[12..]) as usize];
        (&self.stream).read_exact(&mut data)?;
        let kind = u16::from_be_bytes([rest[2], rest[3]]);
        Ok(Chunk { kind, done: rest[1] & 1 == 1, cookie: be64(&rest[4..]), data })
    }

    /// All chunks of the only request under way.
    pub fn reply(&self, cookie: u64, data_length: usize) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        loop {
            let chunk = self.chunk(data_length).unwrap();
            assert_eq!(chunk.cookie, cookie);
            chunks.push(chunk);
            if chunks.last().unwrap().done {
                return chunks;
            }
        }
    }

    /// Runs a request without data in its reply. `Err`: the error number.
    pub fn plain(&mut self, command: u16, flags: u16, offset: u64, length: u32) -> Result<(), u32> {
        let cookie = self.request(command, flags, offset, length, &[]);
        outcome(&self.reply(cookie, 0))
    }

    pub fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> Result<(), u32> {
        let cookie = self.request(WRITE, flags, offset, data.len() as u32, data);
        outcome(&self.reply(cookie, 0))
    }

    /// Reads; the chunks must cover the range exactly.
    pub fn read(&mut self, flags: u16, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        let cookie = self.request(READ, flags, offset, length, &[]);
        let chunks = self.reply(cookie, length as usize);
        outcome(&chunks)?;
        Ok(assemble(&chunks, offset, length))
    }

    /// Block status as pairs of length and flags.
    pub fn status(&mut self, flags: u16, offset: u64, length: u32) -> Result<Vec<(u32, u32)>, u32> {
        let cookie = self.request(BLOCK_STATUS, flags, offset, length, &[]);
        let chunks = self.reply(cookie, 0);
        outcome(&chunks)?;
        let [chunk] = &chunks[..] else { panic!("{chunks:?}") };
        assert_eq!((chunk.kind, be32(&chunk.data)), (STATUS, 1));
        let (pairs, rest) = chunk.data[4..].as_chunks::<8>();
        assert!(rest.is_empty());
        Ok(pairs.iter().map(|pair| (be32(pair), be32(&pair[4..]))).collect())
    }

    /// Whether the server hangs up without another word.
    pub fn hangs_up(&self) -> bool {
        matches!((&self.stream).read(&mut [0]), Ok(0))
            || matches!((&self.stream).read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

/// A request's header.
pub fn encode(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

pub fn outcome(chunks: &[Chunk]) -> Result<(), u32> {
    match chunks.iter().find(|chunk| chunk.kind == SIMPLE || chunk.kind & 0x8000 != 0) {
        Some(chunk) if be32(&chunk.data) != 0 => Err(be32(&chunk.data)),
        _ => Ok(()),
    }
}

/// The bytes that a read's chunks tell; each byte exactly once.
pub fn assemble(chunks: &[Chunk], offset: u64, length: u32) -> Vec<u8> {
    let mut bytes: Vec<Option<u8>> = vec![None; length as usize];
    let mut put = |at: u64, piece: &mut dyn Iterator<Item = u8>| {
        for (at, byte) in ((at - offset) as usize..).zip(piece) {
            assert_eq!(bytes[at].replace(byte), None, "told twice");
        }
    };
    for chunk in chunks {
        match chunk.kind {
            SIMPLE => put(offset, &mut chunk.data[4..].iter().copied()),
            OFFSET_DATA => put(be64(&chunk.data), &mut chunk.data[8..].iter().copied()),
            OFFSET_HOLE => {
                let length = be32(&chunk.data[8..]) as usize;
                put(be64(&chunk.data), &mut std::iter::repeat_n(0, length));
            }
            NONE => {}
            other => panic!("unexpected chunk {other}"),
        }
    }
    bytes.into_iter().map(|byte| byte.expect("every byte is told")).collect()
}

/// The data of `INFO` and `GO`.
pub fn information(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((wanted.len() as u16).to_be_bytes());
    data.extend(wanted.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

/// The data of the metadata context options.
pub fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend((query.len() as u32).to_be_bytes());
        data.extend(query.as_bytes());
    }
    data
}
