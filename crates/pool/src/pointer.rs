//! The records that say where a block is and what an extent holds.

use crate::checksum::{Checksum, ChecksumKind};
use crate::codec::{DecodeError, Reader, Writer};
use crate::compress::Compression;
use crate::types::{Logical, Txg};

/// What a volume's tree holds for a block: where it is, since when, and how to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPtr {
    /// Where the extent begins.
    pub address: Logical,
    /// Stored bytes, a whole number of sectors.
    pub stored: u32,
    /// Bytes of the block when it is read.
    pub length: u32,
    /// Birth of this reference: what deadlists and incremental sends go by.
    pub birth: Txg,
    /// Birth of the extent: with its address, its identity.
    pub extent_birth: Txg,
    /// How the stored bytes are compressed.
    pub compression: Compression,
    /// Checksum of the stored bytes.
    pub checksum: Checksum,
}

impl BlockPtr {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.address.0);
        w.u64(self.birth.0);
        w.u64(self.extent_birth.0);
        w.u32(self.stored);
        w.u32(self.length);
        w.u8(self.compression.code());
        w.u8(self.checksum.kind.code());
        w.u16(0); // flags, kept free for encryption
        w.raw(&self.checksum.bytes[..self.checksum.kind.length()]);
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("block pointer", bytes);
        let address = Logical(r.u64("address")?);
        let birth = Txg(r.u64("birth")?);
        let extent_birth = Txg(r.u64("extent birth")?);
        let stored = r.u32("stored length")?;
        let length = r.u32("length")?;
        let compression = read_compression(&mut r)?;
        let kind = read_checksum_kind(&mut r)?;
        if r.u16("flags")? != 0 {
            return Err(r.error("flags", "has bits that are not known here".to_owned()));
        }
        let checksum = read_checksum(&mut r, kind)?;
        check_stored(&r, stored)?;
        r.end()?;
        Ok(Self { address, stored, length, birth, extent_birth, compression, checksum })
    }

    /// What the extents tree holds for the extent that this is the first reference to.
    pub(crate) fn extent(&self) -> Extent {
        Extent { stored: self.stored, birth: self.extent_birth, references: 1, checksum: self.checksum }
    }
}

/// What the extents tree holds for the extent at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Stored bytes, a whole number of sectors.
    pub stored: u32,
    /// When it was written.
    pub birth: Txg,
    /// References to it, snapshots not counted.
    pub references: u32,
    /// Checksum of the stored bytes.
    pub checksum: Checksum,
}

impl Extent {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.birth.0);
        w.u32(self.stored);
        w.u32(self.references);
        w.u8(self.checksum.kind.code());
        w.raw(&self.checksum.bytes[..self.checksum.kind.length()]);
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("extent", bytes);
        let birth = Txg(r.u64("birth")?);
        let stored = r.u32("stored length")?;
        let references = r.u32("references")?;
        let kind = read_checksum_kind(&mut r)?;
        let checksum = read_checksum(&mut r, kind)?;
        check_stored(&r, stored)?;
        r.end()?;
        Ok(Self { stored, birth, references, checksum })
    }
}

/// The largest stored extent, bytes: the largest block.
pub(crate) const STORED_MAX: u32 = 1 << 20;

fn check_stored(r: &Reader<'_>, stored: u32) -> Result<(), DecodeError> {
    if stored == 0 || stored > STORED_MAX || u64::from(stored) % crate::SECTOR != 0 {
        return Err(
            r.error("stored length", format!("is {stored}, not a number of sectors up to {STORED_MAX}"))
        );
    }
    Ok(())
}

fn read_compression(r: &mut Reader<'_>) -> Result<Compression, DecodeError> {
    let code = r.u8("compression")?;
    Compression::from_code(code).ok_or_else(|| r.error("compression", format!("{code} is not known")))
}

fn read_checksum_kind(r: &mut Reader<'_>) -> Result<ChecksumKind, DecodeError> {
    let code = r.u8("checksum kind")?;
    ChecksumKind::from_code(code).ok_or_else(|| r.error("checksum kind", format!("{code} is not known")))
}

fn read_checksum(r: &mut Reader<'_>, kind: ChecksumKind) -> Result<Checksum, DecodeError> {
    let mut bytes = [0; crate::checksum::CHECKSUM_BYTES];
    let length = kind.length();
    bytes[..length].copy_from_slice(r.raw("checksum", length)?);
    Ok(Checksum { kind, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_damaged_ones_are_refused() {
        for kind in [ChecksumKind::Xxh3, ChecksumKind::Blake3] {
            let pointer = BlockPtr {
                address: Logical(0x1234_5000),
                stored: 8192,
                length: 16384,
                birth: Txg(9),
                extent_birth: Txg(7),
                compression: Compression::Lz4,
                checksum: kind.of(b"some bytes"),
            };
            let bytes = pointer.encode();
            assert_eq!(BlockPtr::decode(&bytes), Ok(pointer));
            let extent = pointer.extent();
            assert_eq!(Extent::decode(&extent.encode()), Ok(extent));
            for cut in 0..bytes.len() {
                assert!(BlockPtr::decode(&bytes[..cut]).is_err());
            }
        }
    }
}
