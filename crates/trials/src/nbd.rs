//! A small NBD client: one request at a time, simple replies.
//!
//! Source of all numbers: the protocol document of the NetworkBlockDevice project (doc/proto.md).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Request: write.
const WRITE: u16 = 1;
/// Flag of a request: durable when answered.
const FUA: u16 = 1;
/// Far longer than any request takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// A connection to one export.
#[derive(Debug)]
pub struct Nbd {
    stream: UnixStream,
    cookie: u64,
}

/// How a request failed.
#[derive(Debug)]
pub enum Failed {
    /// The connection broke.
    Broken,
    /// The server answered with this error number.
    Refused(u32),
}

impl From<std::io::Error> for Failed {
    fn from(_: std::io::Error) -> Self {
        Self::Broken
    }
}

fn take<const N: usize>(stream: &mut UnixStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

impl Nbd {
    /// Opens an export.
    ///
    /// # Errors
    /// Nobody listens, or there is no such export.
    pub fn open(socket: &str, export: &str) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).with_context(|| format!("connect to {socket}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let hello: [u8; 18] = take(&mut stream)?;
        ensure!(hello.starts_with(b"NBDMAGICIHAVEOPT"), "no NBD server");
        stream.write_all(&3_u32.to_be_bytes())?;
        let mut go = b"IHAVEOPT\0\0\0\x07".to_vec();
        go.extend((export.len() as u32 + 6).to_be_bytes());
        go.extend((export.len() as u32).to_be_bytes());
        go.extend(export.as_bytes());
        go.extend([0, 0]);
        stream.write_all(&go)?;
        loop {
            let head: [u8; 20] = take(&mut stream)?;
            let [.., k0, k1, k2, k3, l0, l1, l2, l3] = head;
            let mut data = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
            stream.read_exact(&mut data)?;
            match u32::from_be_bytes([k0, k1, k2, k3]) {
                1 => return Ok(Self { stream, cookie: 0 }),
                3 => {}
                other => bail!("the server refuses {export} with {other:#x}"),
            }
        }
    }

    /// One request; `data` is what a write carries or a read fills.
    fn request(
        &mut self,
        command: u16,
        flags: u16,
        range: (u64, u32),
        payload: &[u8],
        reply: &mut [u8],
    ) -> Result<(), Failed> {
        self.cookie += 1;
        let mut bytes = Vec::with_capacity(28 + payload.len());
        bytes.extend(0x2560_9513_u32.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(range.0.to_be_bytes());
        bytes.extend(range.1.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes)?;
        let head: [u8; 16] = take(&mut self.stream)?;
        let [m0, m1, m2, m3, e0, e1, e2, e3, cookie @ ..] = head;
        if u32::from_be_bytes([m0, m1, m2, m3]) != 0x6744_6698 || u64::from_be_bytes(cookie) != self.cookie {
            return Err(Failed::Broken);
        }
        match u32::from_be_bytes([e0, e1, e2, e3]) {
            0 => Ok(self.stream.read_exact(reply)?),
            error => Err(Failed::Refused(error)),
        }
    }

    /// Writes; durable when answered if `durable`.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn write(&mut self, offset: u64, data: &[u8], durable: bool) -> Result<(), Failed> {
        let flags = if durable { FUA } else { 0 };
        self.request(WRITE, flags, (offset, data.len() as u32), data, &mut [])
    }

    /// Reads.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), Failed> {
        self.request(0, 0, (offset, data.len() as u32), &[], data)
    }

    /// Makes all answered writes durable.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn flush(&mut self) -> Result<(), Failed> {
        self.request(3, 0, (0, 0), &[], &mut [])
    }

    /// Gives a range up.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn trim(&mut self, offset: u64, length: u32) -> Result<(), Failed> {
        self.request(4, 0, (offset, length), &[], &mut [])
    }

    /// Makes a range read as zeros.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn zero(&mut self, offset: u64, length: u32) -> Result<(), Failed> {
        self.request(6, 0, (offset, length), &[], &mut [])
    }
}
