//! The constants and fixed headers of the NBD protocol, and nothing else.
//!
//! Source of all numbers: the protocol document of the NetworkBlockDevice project (doc/proto.md). All
//! integers on the wire are big-endian.

/// First eight bytes a server sends.
pub(super) const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Next eight bytes, and in front of every option.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// In front of every reply to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// In front of every request.
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
/// In front of a simple reply.
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// In front of a structured reply chunk.
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Largest payload of one read or write, bytes: what clients may assume if nothing is said.
pub(super) const MAX_PAYLOAD: u32 = 32 << 20;
/// Longest string of the protocol, bytes.
pub(super) const MAX_STRING: usize = 4096;

/// Handshake flags, both directions.
pub(super) mod handshake_flag {
    pub(in super::super) const FIXED_NEWSTYLE: u32 = 1 << 0;
    pub(in super::super) const NO_ZEROES: u32 = 1 << 1;
}

/// Options a client may send.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const STARTTLS: u32 = 5;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Kinds of reply to an option.
pub(super) mod option_reply {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERR_UNSUPPORTED: u32 = (1 << 31) + 1;
    pub(in super::super) const ERR_POLICY: u32 = (1 << 31) + 2;
    pub(in super::super) const ERR_INVALID: u32 = (1 << 31) + 3;
    pub(in super::super) const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub(in super::super) const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// What `option_reply::INFO` tells.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// What an export can do.
pub(super) mod transmission_flag {
    pub(in super::super) const HAS_FLAGS: u16 = 1 << 0;
    pub(in super::super) const READ_ONLY: u16 = 1 << 1;
    pub(in super::super) const SEND_FLUSH: u16 = 1 << 2;
    pub(in super::super) const SEND_FUA: u16 = 1 << 3;
    pub(in super::super) const SEND_TRIM: u16 = 1 << 5;
    pub(in super::super) const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub(in super::super) const SEND_DF: u16 = 1 << 7;
    pub(in super::super) const CAN_MULTI_CONN: u16 = 1 << 8;
    pub(in super::super) const SEND_CACHE: u16 = 1 << 10;
    pub(in super::super) const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Modifiers of a request.
pub(super) mod command_flag {
    pub(in super::super) const FUA: u16 = 1 << 0;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FAST_ZERO: u16 = 1 << 4;
}

/// What a structured reply chunk holds.
pub(super) mod chunk {
    /// Flag: the last chunk of its reply.
    pub(in super::super) const DONE: u16 = 1 << 0;
    pub(in super::super) const NONE: u16 = 0;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const OFFSET_HOLE: u16 = 2;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = (1 << 15) + 1;
}

/// The one metadata context there is.
pub(super) const BASE_ALLOCATION: &str = "base:allocation";
/// The number that stands for it on the wire.
pub(super) const BASE_ALLOCATION_ID: u32 = 1;
/// `base:allocation`: takes no space, and reads as zeros.
pub(super) const STATE_HOLE_ZERO: u32 = 3;

/// Error numbers, which are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ErrorNumber {
    NotPermitted = 1,
    Io = 5,
    Invalid = 22,
    NoSpace = 28,
    NotSupported = 95,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read,
    Write,
    Disconnect,
    Flush,
    Trim,
    Cache,
    WriteZeroes,
    BlockStatus,
    /// Anything else. Such requests have no payload as far as anyone can tell.
    Unknown(u16),
}

impl From<u16> for Command {
    fn from(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// See [`command_flag`].
    pub(super) flags: u16,
    /// What to do.
    pub(super) command: Command,
    /// Chosen by the client, repeated in the reply.
    pub(super) cookie: u64,
    /// Bytes.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u32,
}

impl Request {
    /// Bytes of the header.
    pub(super) const SIZE: usize = 28;

    /// Reads a header; `None` if it does not start with the magic number: the stream is out of step then.
    pub(super) fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let &[m0, m1, m2, m3, f0, f1, c0, c1, ref rest @ ..] = bytes;
        if u32::from_be_bytes([m0, m1, m2, m3]) != REQUEST_MAGIC {
            return None;
        }
        let &[k0, k1, k2, k3, k4, k5, k6, k7, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = rest;
        Some(Self {
            flags: u16::from_be_bytes([f0, f1]),
            command: Command::from(u16::from_be_bytes([c0, c1])),
            cookie: u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            offset: u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    /// Whether the flag is set.
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Bytes of a simple reply's header.
pub(super) const SIMPLE_HEADER: usize = 16;
/// Bytes of a structured reply chunk's header.
pub(super) const CHUNK_HEADER: usize = 20;

/// Encodes a simple reply's header; `error` 0 is success.
pub(super) fn simple_header(cookie: u64, error: u32) -> [u8; SIMPLE_HEADER] {
    let mut bytes = [0; SIMPLE_HEADER];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// Encodes a chunk's header; `length` counts the bytes after it.
pub(super) fn chunk_header(cookie: u64, kind: u16, done: bool, length: u32) -> [u8; CHUNK_HEADER] {
    let mut bytes = [0; CHUNK_HEADER];
    bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    bytes[4..6].copy_from_slice(&(if done { chunk::DONE } else { 0 }).to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..].copy_from_slice(&length.to_be_bytes());
    bytes
}
