//! The label that makes a device a physical volume, and the header that follows it in the same sector.

use crate::FieldError;
use crate::crc::crc32_raw;
use crate::fields::Fields;
use crate::md::error::Site;

use super::CRC_START;

const SECTOR: usize = 512;
/// Lists of areas end with a zero pair; a sector has room for fewer than this.
const AREAS_MAX: usize = 32;
/// No device has more bytes.
const DEVICE_MAX: u64 = 1 << 60;

/// A range of a physical volume, bytes. A size of 0 means: up to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaRange {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub size: u64,
}

/// A label as it is in its sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLabel {
    /// In which sector it says it is.
    pub sector: u64,
    /// Checksum stored.
    pub crc: u32,
    /// Checksum of what is there.
    pub computed_crc: u32,
    /// Where the header begins in the sector.
    pub content: u32,
    /// "LVM2 001".
    pub format: [u8; 8],
    /// The volume's UUID, without dashes.
    pub uuid: Option<[u8; 32]>,
    /// The device's size, bytes.
    pub device_size: Option<u64>,
    /// Where extents lie.
    pub data_areas: Vec<AreaRange>,
    /// Where metadata lie.
    pub metadata_areas: Vec<AreaRange>,
    /// Version and flags of the header's extension.
    pub extension: Option<(u32, u32)>,
}

/// The label of a physical volume, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvLabel {
    /// Where the label lies, bytes.
    pub offset: u64,
    /// The volume's UUID, with dashes as LVM shows it.
    pub uuid: String,
    /// The device's size when it was made a physical volume, bytes; 0 if that was not noted.
    pub device_size: u64,
    /// Where extents lie. The volume group's own `pe_start` counts.
    pub data_areas: Vec<AreaRange>,
    /// Where metadata lie: none to two.
    pub metadata_areas: Vec<AreaRange>,
    /// Whether the header says that a volume group uses it; `None` where old LVM did not note that.
    pub used: Option<bool>,
}

/// An LVM UUID with the dashes that its tools show.
pub(super) fn dashed(uuid: &str) -> String {
    if uuid.len() != 32 || !uuid.is_ascii() {
        return uuid.to_owned();
    }
    [&uuid[..6], &uuid[6..10], &uuid[10..14], &uuid[14..18], &uuid[18..22], &uuid[22..26], &uuid[26..]]
        .join("-")
}

/// Reads pairs up to the one that ends the list; returns them and where the next thing begins.
fn areas(header: &[u8], mut at: usize) -> Option<(Vec<AreaRange>, usize)> {
    let mut areas = Vec::new();
    while areas.len() < AREAS_MAX {
        let area = AreaRange { offset: header.le64(at)?, size: header.le64(at + 8)? };
        at += 16;
        if area.offset == 0 {
            return Some((areas, at));
        }
        areas.push(area);
    }
    None
}

impl RawLabel {
    /// Reads a sector; `None` if it has no label.
    pub fn parse(sector: &[u8]) -> Option<Self> {
        let sector = sector.get(..SECTOR)?;
        if !sector.holds(0, b"LABELONE") {
            return None;
        }
        let content = sector.le32(20)?;
        let header = sector.get(content as usize..).unwrap_or_default();
        let data = areas(header, 40);
        let metadata = data.as_ref().and_then(|(_, next)| areas(header, *next));
        let extension = metadata.as_ref().and_then(|(_, at)| Some((header.le32(*at)?, header.le32(at + 4)?)));
        Some(Self {
            sector: sector.le64(8)?,
            crc: sector.le32(16)?,
            computed_crc: crc32_raw(CRC_START, &sector[20..]),
            content,
            format: sector.bytes(24)?,
            uuid: header.bytes(0),
            device_size: header.le64(32),
            data_areas: data.map(|(areas, _)| areas).unwrap_or_default(),
            metadata_areas: metadata.map(|(areas, _)| areas).unwrap_or_default(),
            extension: extension.filter(|(version, _)| *version > 0),
        })
    }

    /// Believes it, if it deserves that: found at byte `offset` of `device`.
    ///
    /// # Errors
    /// Which field can't be what it is.
    pub fn verify(&self, device: &str, offset: u64) -> Result<PvLabel, FieldError> {
        let site = Site { device, offset, structure: "LVM2 label" };
        let hex = |crc: u32| format!("{crc:#010x}");
        site.require(self.crc == self.computed_crc, "crc", hex(self.crc), hex(self.computed_crc))?;
        site.require(self.sector == offset / SECTOR as u64, "sector", self.sector, offset / SECTOR as u64)?;
        let format = String::from_utf8_lossy(&self.format);
        site.require(&self.format == b"LVM2 001", "type", format.escape_debug(), "LVM2 001")?;
        let uuid = self.uuid.and_then(|uuid| String::from_utf8(uuid.to_vec()).ok());
        let uuid = uuid.filter(|uuid| uuid.bytes().all(|byte| byte.is_ascii_graphic()));
        let uuid = uuid.ok_or_else(|| site.error("pv_uuid", "not text", "32 letters and digits"))?;
        for area in self.data_areas.iter().chain(&self.metadata_areas) {
            let end = area.offset.checked_add(area.size).filter(|end| *end <= DEVICE_MAX);
            site.require(end.is_some(), "area", format!("{area:?}"), "a range of a device")?;
        }
        Ok(PvLabel {
            offset,
            uuid: dashed(&uuid),
            device_size: self.device_size.unwrap_or(0),
            data_areas: self.data_areas.clone(),
            metadata_areas: self.metadata_areas.clone(),
            used: self.extension.map(|(_, flags)| flags & 1 != 0),
        })
    }
}
