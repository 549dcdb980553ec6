//! The uberblock: the root of everything, written last in each transaction group.

use tree::NodePtr;
use twox_hash::XxHash3_128;

use super::SLOT_BYTES;
use crate::chunk::Chunk;
use crate::codec::{DecodeError, Reader, Writer};
use crate::types::{Guid, Millis, Session, Txg};

const MAGIC: &[u8; 8] = b"CDUBERBK";
const VERSION: u32 = 1;

/// The most system chunks that an uberblock can name.
pub(crate) const SYSTEM_CHUNKS_MAX: usize = 12;

/// Features without which the pool may not even be read: none so far.
const INCOMPATIBLE_KNOWN: u64 = 0;
/// Features without which it may only be read.
const READ_ONLY_COMPATIBLE_KNOWN: u64 = FEATURE_CHECKPOINT;

/// There is a checkpoint, or what one left: who does not know it would free what it holds back.
pub(crate) const FEATURE_CHECKPOINT: u64 = 1;

/// The pool was left in order by `export`.
const FLAG_EXPORTED: u32 = 1;
/// Flags that a reader must know; who does not know one of the others may only read.
const FLAGS_INCOMPATIBLE: u32 = 0xffff;

/// A root of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uberblock {
    pub(crate) pool: Guid,
    pub(crate) txg: Txg,
    pub(crate) session: Session,
    pub(crate) time: Millis,
    /// The host that wrote it.
    pub(crate) host: u64,
    pub(crate) exported: bool,
    /// The oldest root whose space has not been used again.
    pub(crate) oldest: Txg,
    /// Features that a reader must know.
    pub(crate) incompatible: u64,
    /// Features that a writer must know.
    pub(crate) read_only_compatible: u64,
    pub(crate) chunk_root: Option<NodePtr>,
    pub(crate) meta_root: Option<NodePtr>,
    pub(crate) extent_root: Option<NodePtr>,
    /// Where the chunk tree lives.
    pub(crate) system_chunks: Vec<Chunk>,
    /// (number, guid) of every device that the system chunks name.
    pub(crate) devices: Vec<(u32, Guid)>,
    /// The devices that this root is written to: it is acknowledged when all of them took it. Empty where it is not
    /// told: roots did not tell once, and there may be no room.
    pub(crate) took_part: Vec<Guid>,
    /// The root whose trees this one leads to as they are: it goes back there, away from what came after it.
    pub(crate) back_to: Option<(Session, Txg)>,
}

impl Uberblock {
    /// The slot's bytes; `None` when the system chunks do not fit into one.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(if self.exported { FLAG_EXPORTED } else { 0 });
        w.u64(self.incompatible);
        w.u64(self.read_only_compatible);
        w.u64(self.pool.0);
        w.u64(self.txg.0);
        w.u64(self.session.0);
        w.u64(self.time.0);
        w.u64(self.host);
        w.u64(self.oldest.0);
        for root in [&self.chunk_root, &self.meta_root, &self.extent_root] {
            w.raw(&NodePtr::encode_root(root.as_ref()));
        }
        w.u16(self.devices.len() as u16);
        for (id, guid) in &self.devices {
            w.u32(*id);
            w.u64(guid.0);
        }
        w.u16(self.system_chunks.len() as u16);
        for chunk in &self.system_chunks {
            let item = chunk.encode();
            w.u16(u16::try_from(item.len()).ok()?);
            w.raw(&item);
        }
        let room = (SLOT_BYTES - 16).checked_sub(w.len() + 2 + 16)?;
        if self.system_chunks.len() > SYSTEM_CHUNKS_MAX {
            return None;
        }
        let took_part = if 8 * self.took_part.len() <= room { self.took_part.as_slice() } else { &[] };
        w.u16(took_part.len() as u16);
        for guid in took_part {
            w.u64(guid.0);
        }
        let (session, txg) = self.back_to.unwrap_or_default();
        w.u64(session.0);
        w.u64(txg.0);
        let mut bytes = w.finish();
        bytes.resize(SLOT_BYTES - 16, 0);
        let checksum = XxHash3_128::oneshot(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Some(bytes)
    }

    /// Whether a slot holds an uberblock, whole or not.
    pub(crate) fn is_one(slot: &[u8]) -> bool {
        slot.starts_with(MAGIC)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("uberblock", bytes);
        let body = r.raw("body", SLOT_BYTES - 16)?;
        let checksum = r.array("checksum")?;
        let mut r = Reader::new("uberblock", body);
        if r.raw("magic", 8)? != MAGIC {
            return Err(r.error("magic", "is not there".to_owned()));
        }
        if XxHash3_128::oneshot(body).to_le_bytes() != checksum {
            return Err(r.error("checksum", "does not match".to_owned()));
        }
        let version = r.u32("version")?;
        if version != VERSION {
            return Err(r.error("version", format!("is {version}, known here is {VERSION}")));
        }
        let flags = r.u32("flags")?;
        let mut incompatible = r.u64("incompatible features")?;
        let mut read_only_compatible = r.u64("read-only compatible features")?;
        // A flag that is not known here is a feature like others, told by the highest bits of those.
        let unknown = flags & !FLAG_EXPORTED;
        incompatible |= u64::from(unknown & FLAGS_INCOMPATIBLE) << 48;
        read_only_compatible |= u64::from(unknown & !FLAGS_INCOMPATIBLE) << 32;
        let pool = Guid(r.u64("pool")?);
        let txg = Txg(r.u64("txg")?);
        let session = Session(r.u64("session")?);
        let time = Millis(r.u64("time")?);
        let host = r.u64("host")?;
        let oldest = Txg(r.u64("oldest")?);
        let mut roots = [None; 3];
        for root in &mut roots {
            let pointer = r.array("root pointer")?;
            *root =
                NodePtr::decode_root(&pointer).map_err(|error| r.error("root pointer", error.to_string()))?;
        }
        let mut devices = Vec::new();
        for _ in 0..r.u16("devices")? {
            devices.push((r.u32("device number")?, Guid(r.u64("device guid")?)));
        }
        let count = usize::from(r.u16("system chunks")?);
        if count > SYSTEM_CHUNKS_MAX {
            return Err(r.error("system chunks", format!("is {count}, the most is {SYSTEM_CHUNKS_MAX}")));
        }
        let mut system_chunks = Vec::new();
        for _ in 0..count {
            let length = usize::from(r.u16("system chunk length")?);
            system_chunks.push(Chunk::decode(r.raw("system chunk", length)?)?);
        }
        let mut took_part = Vec::new();
        for _ in 0..r.u16("devices that took part")? {
            took_part.push(Guid(r.u64("guid of a device that took part")?));
        }
        let back_to = (Session(r.u64("session gone back to")?), Txg(r.u64("txg gone back to")?));
        let [chunk_root, meta_root, extent_root] = roots;
        Ok(Self {
            pool,
            txg,
            session,
            time,
            host,
            exported: flags & FLAG_EXPORTED != 0,
            oldest,
            incompatible,
            read_only_compatible,
            chunk_root,
            meta_root,
            extent_root,
            system_chunks,
            devices,
            took_part,
            back_to: (back_to != Default::default()).then_some(back_to),
        })
    }

    /// Where it leads.
    pub(crate) fn trees(&self) -> [Option<NodePtr>; 3] {
        [self.chunk_root, self.meta_root, self.extent_root]
    }

    /// Whether every feature that a reader must know is known here.
    pub(crate) fn readable(&self) -> bool {
        self.incompatible & !INCOMPATIBLE_KNOWN == 0
    }

    /// Whether every feature that a writer must know is known here.
    pub(crate) fn writable(&self) -> bool {
        self.readable() && self.read_only_compatible & !READ_ONLY_COMPATIBLE_KNOWN == 0
    }
}
