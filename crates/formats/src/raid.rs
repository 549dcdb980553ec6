//! Members of RAID sets: Linux md, RAIDframe, Intel's and the DDF of hardware controllers.

use crate::crc::crc32_raw;
use crate::fields::{Fields, hex};
use crate::raidframe::{LABEL_LENGTH, LABEL_OFFSET, Label};
use crate::reader::Reader;
use crate::{Found, Kind, MdVersion};

const MD_MAGIC: u32 = 0xa92b_4efc;

/// Adds the upper half of a sum to the lower half, once, as md does.
pub(crate) fn fold(sum: u64) -> u32 {
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// An md UUID as mdadm writes it.
fn md_uuid(bytes: &[u8]) -> String {
    bytes.chunks(4).map(hex).collect::<Vec<_>>().join(":")
}

/// md 0.90: 64 KiB before the end, rounded down to 64 KiB, in the byte order of the machine.
pub(crate) fn md_0_90(reader: &Reader<'_>) -> Option<Found> {
    const ROUND: u64 = 64 << 10;
    const CHECKSUM: usize = 38;

    let at = (reader.size() / ROUND * ROUND).checked_sub(ROUND)?;
    let block = reader.at(at, 4096)?;
    let little = block.le32(0)? == MD_MAGIC;
    let word = |index: usize| if little { block.le32(index * 4) } else { block.be32(index * 4) };
    if word(0)? != MD_MAGIC || word(1)? != 0 || !(90..=91).contains(&word(2)?) {
        return None;
    }
    let mut sum = 0;
    for index in (0..1024).filter(|index| *index != CHECKSUM) {
        sum += u64::from(word(index)?);
    }
    // Old Alphas stored the sum folded once more.
    let short = |sum: u32| ((sum & 0xffff) + (sum >> 16)) as u16;
    let mut found = Found::new(Kind::Md(MdVersion::V0_90), at, at, 4);
    found.damaged = short(fold(sum)) != short(word(CHECKSUM)?);
    let words = [word(5)?, word(13)?, word(14)?, word(15)?];
    found.uuid = Some(words.map(|word| format!("{word:08x}")).join(":"));
    Some(found)
}

/// md 1.0: at least 8 KiB before the end, rounded down to 4 KiB.
pub(crate) fn md_1_0(reader: &Reader<'_>) -> Option<Found> {
    md_1(reader, (reader.size() / 512).checked_sub(16)? / 8 * 4096, MdVersion::V1_0)
}

/// md 1.1: at the beginning.
pub(crate) fn md_1_1(reader: &Reader<'_>) -> Option<Found> {
    md_1(reader, 0, MdVersion::V1_1)
}

/// md 1.2: 4 KiB from the beginning.
pub(crate) fn md_1_2(reader: &Reader<'_>) -> Option<Found> {
    md_1(reader, 4096, MdVersion::V1_2)
}

fn md_1(reader: &Reader<'_>, at: u64, version: MdVersion) -> Option<Found> {
    const CHECKSUM: usize = 216;
    /// What fits in the 4 KiB that a superblock may take.
    const ROLES_MAX: u32 = (4096 - 256) / 2;

    let block = reader.at(at, 256)?;
    let here = block.le32(0)? == MD_MAGIC && block.le32(4)? == 1 && block.le64(144)? == at / 512;
    let uuid = block.range(16, 16)?;
    if !here || uuid == [0; 16] {
        return None;
    }
    let roles = block.le32(220)?;
    let whole = reader.at(at, 256 + 2 * roles.min(ROLES_MAX) as usize)?;
    let mut sum = 0;
    for (index, bytes) in whole.chunks(4).enumerate() {
        sum += match bytes.le32(0) {
            _ if index * 4 == CHECKSUM => 0,
            Some(word) => u64::from(word),
            None => u64::from(bytes.le16(0)?),
        };
    }
    let mut found = Found::new(Kind::Md(version), at, at, 4);
    found.damaged = roles > ROLES_MAX || fold(sum) != block.le32(CHECKSUM)?;
    found.label = block.text(32, 32);
    found.uuid = Some(md_uuid(uuid));
    Some(found)
}

/// RAIDframe's component label, of either byte order. It has neither a magic number nor a checksum, so all
/// that its driver asks of it is asked, and that what is reserved is zero.
pub(crate) fn raidframe(reader: &Reader<'_>) -> Option<Found> {
    let label = Label::recognise(&reader.at(LABEL_OFFSET, LABEL_LENGTH)?)?.ok()?;
    let mut found = Found::new(Kind::Raidframe, LABEL_OFFSET, LABEL_OFFSET, LABEL_LENGTH as u64);
    found.label = Some(format!("raid{}", label.last_unit));
    found.uuid = Some(label.serial_number.cast_unsigned().to_string());
    Some(found)
}

/// Intel's metadata: the last sector but one, and what doesn't fit there just before it.
pub(crate) fn imsm(reader: &Reader<'_>) -> Option<Found> {
    const MAGIC: &[u8] = b"Intel Raid ISM Cfg Sig. ";
    const LENGTH_MAX: usize = 1 << 20;
    const DISKS_AT: usize = 0xd8;
    const DISK: usize = 48;

    let anchors = [512, 4096].into_iter().filter_map(|sector| {
        let anchor = reader.before_end(2 * sector, sector as usize)?;
        if !anchor.holds(0, MAGIC) {
            return None;
        }
        let at = reader.size() - 2 * sector;
        let mut found = Found::new(Kind::Imsm, at, at, MAGIC.len() as u64);
        found.uuid = Some(hex(&anchor.le32(0x28)?.to_be_bytes()));
        let length = anchor.le32(0x24)? as usize;
        let mut whole = anchor.to_vec();
        let more = length.saturating_sub(sector as usize).next_multiple_of(sector as usize);
        if more > 0 && more <= LENGTH_MAX {
            whole.extend_from_slice(&reader.before_end(2 * sector + more as u64, more)?);
        }
        found.damaged = match whole.get(..length) {
            Some(covered) if length.is_multiple_of(4) && length >= DISKS_AT => {
                let words = covered.chunks_exact(4).filter_map(|bytes| bytes.le32(0));
                let sum = words.fold(0, u32::wrapping_add);
                let checksum = anchor.le32(0x20)?;
                sum.wrapping_sub(checksum) != checksum
            }
            _ => true,
        };
        // The name of the first volume, where there is one.
        if anchor.u8(0x39)? > 0 {
            found.label = whole.text(DISKS_AT + DISK * usize::from(anchor.u8(0x38)?), 16);
        }
        Some(found)
    });
    anchors.reduce(Found::with)
}

/// DDF: the anchor in the last sector, and the two headers that it names.
pub(crate) fn ddf(reader: &Reader<'_>) -> Option<Found> {
    const MAGIC: [u8; 4] = 0xde11_de11_u32.to_be_bytes();

    let anchors = [512, 4096].into_iter().filter_map(|sector| {
        let at = reader.size().checked_sub(sector)?;
        let anchor = reader.at(at, 512)?;
        if !anchor.holds(0, &MAGIC) {
            return None;
        }
        let mut covered = anchor.to_vec();
        covered.get_mut(4..8)?.fill(0xff);
        // Linux begins with 0 and does not invert; some controllers use the common CRC-32.
        let stored = anchor.be32(4)?;
        if stored != crc32_raw(0, &covered) && stored != !crc32_raw(!0, &covered) {
            return None;
        }
        let mut found = Found::new(Kind::Ddf, at, at, 4);
        let guid = anchor.range(8, 24)?;
        found.uuid = Some(hex(guid));
        for header in [anchor.be64(96)?, anchor.be64(104)?] {
            let Some(at) = header.checked_mul(512) else { continue };
            if reader.at(at, 4).is_some_and(|bytes| bytes.holds(0, &MAGIC)) {
                found.signatures.push(at..at + 4);
            }
        }
        Some(found)
    });
    anchors.reduce(Found::with)
}
