//! A metadata area: a header, and a ring of texts of which the header names the newest.
//!
//! Older texts stay in the ring until they are overwritten, so they are searched for, too.

use device::BlockDevice;

use super::CRC_START;
use super::group::GroupMetadata;
use super::label::AreaRange;
use crate::crc::crc32_raw;
use crate::fields::Fields;
use crate::input::read_up_to;
use crate::md::error::Site;
use crate::{FieldError, ReadError};

/// Length of the header, bytes; texts never lie there.
const HEADER: u64 = 512;
/// Texts begin at multiples of this.
const STEP: usize = 512;
/// Only so much of a ring is looked at, bytes. LVM makes 1 MiB unless it is told otherwise.
const RING_MAX: u64 = 16 << 20;
/// What can't be read in one piece is read in pieces of this.
const PIECE: usize = 4096;
/// How many times the ring's length may be parsed while looking for old texts.
const EFFORT: usize = 2;

/// Where a text lies in its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawLocation {
    /// Bytes from the area's beginning.
    pub offset: u64,
    /// Bytes; the text goes on behind the area's header where the area ends.
    pub size: u64,
    /// Checksum of the text.
    pub crc: u32,
    /// Bit 0: the area's text is not to be used.
    pub flags: u32,
}

/// The header of a metadata area, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAreaHeader {
    /// Checksum stored.
    pub crc: u32,
    /// Checksum of what is there.
    pub computed_crc: u32,
    /// 1.
    pub version: u32,
    /// Where the area says it begins, bytes.
    pub start: u64,
    /// Its size, bytes.
    pub size: u64,
    /// The committed text, and one that was about to be committed.
    pub locations: [RawLocation; 2],
}

impl RawAreaHeader {
    /// Reads a header; `None` if there is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER as usize)?;
        if !bytes.holds(4, b" LVM2 x[5A%r0N*>") {
            return None;
        }
        let location = |at: usize| {
            Some(RawLocation {
                offset: bytes.le64(at)?,
                size: bytes.le64(at + 8)?,
                crc: bytes.le32(at + 16)?,
                flags: bytes.le32(at + 20)?,
            })
        };
        Some(Self {
            crc: bytes.le32(0)?,
            computed_crc: crc32_raw(CRC_START, &bytes[4..]),
            version: bytes.le32(20)?,
            start: bytes.le64(24)?,
            size: bytes.le64(32)?,
            locations: [location(40)?, location(64)?],
        })
    }

    /// The area, if the header at byte `offset` of `device` deserves belief.
    ///
    /// # Errors
    /// Which field can't be what it is.
    pub fn verify(&self, device: &str, offset: u64) -> Result<AreaRange, FieldError> {
        let site = Site { device, offset, structure: "LVM2 metadata area" };
        let hex = |crc: u32| format!("{crc:#010x}");
        site.require(self.crc == self.computed_crc, "crc", hex(self.crc), hex(self.computed_crc))?;
        site.require(self.version == 1, "version", self.version, 1)?;
        site.require(self.start == offset, "start", self.start, offset)?;
        let fits = self.size > HEADER && offset.checked_add(self.size).is_some_and(|end| end <= 1 << 60);
        site.require(fits, "size", self.size, "more than its header, and within a device")?;
        Ok(AreaRange { offset, size: self.size })
    }
}

/// What a text is to its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Left over from earlier; without a checksum of its own.
    Old,
    /// Written, but not made valid any more.
    Precommitted,
    /// The valid one by the header, but its checksum is wrong.
    Damaged,
    /// The valid one.
    Committed,
}

/// One version of a volume group's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Where its text begins, bytes on the device.
    pub offset: u64,
    /// What it is to its area.
    pub standing: Standing,
    /// The text itself, as `vgcfgrestore` takes it.
    pub text: String,
    /// What it says.
    pub group: GroupMetadata,
}

/// All that was found in a metadata area.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataArea {
    /// Where it begins, bytes on the device.
    pub offset: u64,
    /// Its size, bytes.
    pub size: u64,
    /// Whether its header says that it is not to be used (LVM keeps only some copies on large groups).
    pub ignored: bool,
    /// The texts in it: the valid one first, then by falling sequence number.
    pub generations: Vec<Generation>,
    /// What is wrong with it.
    pub problems: Vec<ReadError>,
}

impl MetadataArea {
    /// Reads the area whose header lies at `offset`; `size` is what the label says, and is used if the header
    /// is damaged. `None` if there is no trace of a header and `size` is 0.
    pub fn read(device: &dyn BlockDevice, offset: u64, size: u64) -> Option<Self> {
        let name = device.info().name.as_str();
        let mut area = Self { offset, size, ..Self::default() };
        let header = match read_up_to(device, offset, HEADER as usize) {
            Ok(bytes) => RawAreaHeader::parse(&bytes),
            Err(error) => {
                area.problems.push(error.into());
                None
            }
        };
        let mut locations = Vec::new();
        match header.as_ref().map(|header| header.verify(name, offset)) {
            Some(Ok(found)) => {
                area.size = found.size;
                locations = header.map_or_else(Vec::new, |header| header.locations.to_vec());
            }
            Some(Err(error)) => area.problems.push(error.into()),
            None if area.problems.is_empty() && size == 0 => return None,
            None if area.problems.is_empty() => {
                let site = Site { device: name, offset, structure: "LVM2 metadata area" };
                area.problems.push(site.error("magic", "something else", "\" LVM2 x[5A%r0N*>\"").into());
            }
            None => {}
        }
        let ring = area.ring(device);
        if ring.is_empty() {
            return Some(area);
        }
        let standings = [Standing::Committed, Standing::Precommitted];
        for (location, standing) in locations.into_iter().zip(standings).filter(|(at, _)| at.offset != 0) {
            area.ignored |= location.flags & 1 != 0;
            match area.located(name, &ring, location, standing) {
                Ok(generation) => area.generations.push(generation),
                Err(error) => area.problems.push(error.into()),
            }
        }
        area.search(name, &ring);
        area.generations.sort_by_key(|text| std::cmp::Reverse((text.standing, text.group.seqno)));
        Some(area)
    }

    /// The ring's bytes twice, so that every text in it is in one piece. What can't be read is zeros.
    fn ring(&mut self, device: &dyn BlockDevice) -> Vec<u8> {
        let start = self.offset.saturating_add(HEADER);
        let length = self.size.saturating_sub(HEADER).min(RING_MAX) as usize;
        let ring = read_up_to(device, start, length);
        let mut ring = ring.unwrap_or_else(|error| {
            self.problems.push(error.into());
            let mut ring = Vec::new();
            while ring.len() < length {
                let piece = PIECE.min(length - ring.len());
                let mut bytes = vec![0; piece];
                if device.read(start + ring.len() as u64, &mut bytes).is_err() {
                    bytes.fill(0);
                }
                ring.extend_from_slice(&bytes);
            }
            ring
        });
        ring.extend_from_within(..);
        ring
    }

    /// The text that the header names.
    fn located(
        &self,
        device: &str,
        ring: &[u8],
        location: RawLocation,
        standing: Standing,
    ) -> Result<Generation, FieldError> {
        let site = Site { device, offset: self.offset, structure: "LVM2 metadata area" };
        let length = ring.len() as u64 / 2;
        let start = location.offset.checked_sub(HEADER).filter(|start| *start < length);
        let start = start.ok_or_else(|| site.error("text offset", location.offset, "within the area"))?;
        site.require(location.size <= length, "text size", location.size, format!("at most {length}"))?;
        // The ring is there twice, and neither start nor size is beyond its length.
        let text = ring.get(start as usize..(start + location.size) as usize).unwrap_or_default();
        let crc = crc32_raw(CRC_START, text);
        let offset = self.offset + location.offset;
        let group = GroupMetadata::parse(text, device, offset)?;
        let standing = match standing {
            Standing::Committed if crc != location.crc => Standing::Damaged,
            standing => {
                let hex = |crc: u32| format!("{crc:#010x}");
                site.require(crc == location.crc, "text crc", hex(location.crc), hex(crc))?;
                standing
            }
        };
        Ok(Generation { offset, standing, text: as_text(text), group })
    }

    /// Looks for texts that the header does not name.
    fn search(&mut self, device: &str, ring: &[u8]) {
        let length = ring.len() / 2;
        let mut effort = length.saturating_mul(EFFORT);
        for start in (0..length).step_by(STEP) {
            let text = &ring[start..start + length];
            let offset = self.offset + HEADER + start as u64;
            let known = self.generations.iter().any(|generation| generation.offset == offset);
            if known || !begins_like_a_text(text) {
                continue;
            }
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(length);
            let Some(left) = effort.checked_sub(end) else { return };
            effort = left;
            // Most of what fails here was overwritten in part: that is no damage.
            if let Ok(group) = GroupMetadata::parse(&text[..end], device, offset) {
                let text = as_text(&text[..end]);
                self.generations.push(Generation { offset, standing: Standing::Old, text, group });
            }
        }
    }
}

/// A text that was parsed, up to its end: names and strings in it are UTF-8, and comments may be anything.
fn as_text(text: &[u8]) -> String {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end]).into_owned()
}

/// Whether a volume group's name, a brace and its ID are there.
fn begins_like_a_text(text: &[u8]) -> bool {
    let Some(end) = text.iter().take(130).position(|byte| *byte == b' ') else { return false };
    end > 0
        && text[..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(byte))
        && text.get(end..).and_then(|rest| rest.strip_prefix(b" {\n")).is_some_and(|rest| {
            // Old versions indent.
            rest.trim_ascii_start().starts_with(b"id = \"")
        })
}
