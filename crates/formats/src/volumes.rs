//! What lies between disks and file systems: volume managers, encryption, caches, swap, and our own label.

use crate::crc::crc32_raw;
use crate::fields::{Fields, printable};
use crate::reader::Reader;
use crate::{Found, Kind};

/// A device of one of our own pools.
pub(crate) fn cofferdam(reader: &Reader<'_>) -> Option<Found> {
    const AT: u64 = 16 << 10;

    reader.at(AT, 16)?.holds(0, b"COFFERDAM-LABEL\0").then(|| Found::new(Kind::Cofferdam, AT, AT, 16))
}

/// Where LVM's checksums start; they are not inverted at the end.
const LVM_CRC: u32 = 0xf597_a6cf;

/// An LVM2 physical volume: its label is in one of the first four sectors.
pub(crate) fn lvm(reader: &Reader<'_>) -> Option<Found> {
    const PLACES: [u64; 4] = [0, 512, 1024, 1536];

    let labels = PLACES.into_iter().filter_map(|at| {
        let sector = reader.at(at, 512)?;
        if !sector.holds(0, b"LABELONE") || sector.le64(8)? != at / 512 || !sector.holds(24, b"LVM2 001") {
            return None;
        }
        let mut found = Found::new(Kind::LvmPv, at, at, 8);
        found.damaged = crc32_raw(LVM_CRC, sector.get(20..)?) != sector.le32(16)?;
        let header = sector.get(sector.le32(20)? as usize..)?;
        found.uuid = header.text(0, 32).filter(|id| id.len() == 32 && id.is_ascii()).map(|id| {
            [&id[..6], &id[6..10], &id[10..14], &id[14..18], &id[18..22], &id[22..26], &id[26..]].join("-")
        });
        found.label = volume_group(reader, header);
        Some(found)
    });
    Found::merge(&PLACES, labels)
}

/// The volume group's name, from the metadata that a physical volume's header leads to. `None` if it
/// belongs to none, or keeps no metadata itself.
fn volume_group(reader: &Reader<'_>, header: &[u8]) -> Option<String> {
    // Two lists of (offset, size), each ended by zeros: data areas, then metadata areas.
    let mut pairs = header.get(40..)?.chunks_exact(16);
    pairs.by_ref().find(|pair| pair.le64(0) == Some(0))?;
    let area = pairs.next()?.le64(0).filter(|area| *area != 0)?;
    let header = reader.at(area, 512)?;
    if crc32_raw(LVM_CRC, header.get(4..)?) != header.le32(0)? {
        return None;
    }
    let (text, length) = (header.le64(40)?, header.le64(48)?);
    let text = reader.at(area.checked_add(text)?, length.min(256) as usize)?;
    let end = text.windows(2).position(|pair| pair == b" {")?;
    printable(&String::from_utf8_lossy(&text[..end])).filter(|name| name.is_ascii())
}

/// LUKS1 and LUKS2, and the second header of the latter, which is at a power of two from 16 KiB to 4 MiB.
pub(crate) fn luks(reader: &Reader<'_>) -> Option<Found> {
    let header = |at: u64, magic: &[u8]| {
        let header = reader.at(at, 512)?;
        let kind = match header.be16(6)? {
            1 => Kind::Luks1,
            2 => Kind::Luks2,
            _ => return None,
        };
        let uuid = header.text(168, 40)?;
        let plausible = uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if !header.holds(0, magic) || !plausible || kind == Kind::Luks2 && header.be64(256)? != at {
            return None;
        }
        let mut found = Found::new(kind, at, at, 6);
        found.uuid = Some(uuid);
        if kind == Kind::Luks2 {
            found.label = header.text(24, 48);
        }
        Some(found)
    };
    let seconds = (14..=22).filter_map(|log| header(1 << log, b"SKUL\xba\xbe"));
    Found::merge(&[0], header(0, b"LUKS\xba\xbe").into_iter().chain(seconds))
}

/// bcache and bcachefs, whose superblocks are alike.
pub(crate) fn bcache(reader: &Reader<'_>) -> Option<Found> {
    const AT: u64 = 4096;
    const SECTOR: u64 = AT / 512;
    const BCACHE: &[u8; 16] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
    const BCACHEFS: &[u8; 16] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";

    let block = reader.at(AT, 512)?;
    let old = block.holds(24, BCACHE);
    if !old && !block.holds(24, BCACHEFS) || old && block.le64(8)? != SECTOR {
        return None;
    }
    let kind = if old { Kind::Bcache } else { Kind::Bcachefs };
    let mut found = Found::new(kind, AT, AT + 24, 16);
    // The device's own for bcache, the one that users see for bcachefs.
    found.uuid = block.uuid(if old { 40 } else { 56 });
    found.label = block.text(72, 32);
    Some(found)
}

/// A device of a Stratis pool, by either of its signature blocks.
pub(crate) fn stratis(reader: &Reader<'_>) -> Option<Found> {
    const PLACES: [u64; 2] = [512, 9 * 512];

    let blocks = PLACES.into_iter().filter_map(|at| {
        let block = reader.at(at, 512)?;
        if !block.holds(4, b"!Stra0tis\x86\xff\x02^\x41rh") {
            return None;
        }
        let mut found = Found::new(Kind::Stratis, at, at + 4, 16);
        found.uuid = block.text(64, 32);
        found.damaged = crc32c::crc32c(block.get(4..)?) != block.le32(0)?;
        Some(found)
    });
    Found::merge(&PLACES, blocks)
}

/// Swap space of Linux, also while it holds a hibernated system. Its signature ends the first page, whose
/// size depends on the machine.
pub(crate) fn swap(reader: &Reader<'_>) -> Option<Found> {
    const SIGNATURES: [&[u8; 10]; 6] =
        [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"];

    let pages = (12..=16).map(|log| (1 << log) - 10).filter_map(|at| {
        let signature = reader.at(at, 10)?;
        if !SIGNATURES.iter().any(|known| signature.holds(0, *known)) {
            return None;
        }
        let mut found = Found::new(Kind::Swap, 0, at, 10);
        let header = reader.at(1024, 44)?;
        // The first version had nothing but a bitmap here.
        if !signature.holds(0, b"SWAP-SPACE") && (header.le32(0)? == 1 || header.be32(0)? == 1) {
            found.uuid = header.uuid(12);
            found.label = header.text(28, 16);
            // The number of the last page, in the byte order of the machine that made it.
            let last = if header.le32(0)? == 1 { header.le32(4)? } else { header.be32(4)? };
            found.size = (u64::from(last) + 1).checked_mul(at + 10);
        }
        Some(found)
    });
    Found::merge(&[0], pages)
}
