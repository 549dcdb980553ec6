//! The segments of a logical volume: what a run of its bytes is made of.

use std::collections::HashMap;

use super::group::{SIZE_MAX, shown};
use super::text::{Section, Value};
use crate::FieldError;

const SECTOR: u64 = 512;
/// More members no RAID of device-mapper has; more stripes or copies neither.
const MEMBERS_MAX: usize = 253;

/// Where a run of bytes lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// On a physical volume of the group.
    Physical {
        /// Its number in the group.
        pv: usize,
        /// Bytes from the device's beginning.
        offset: u64,
    },
    /// On another logical volume of the group.
    Logical {
        /// Its number in the group.
        lv: usize,
        /// Bytes from its beginning.
        offset: u64,
    },
    /// Nowhere: the metadata name something that is not there.
    Unknown {
        /// The name.
        name: String,
    },
}

/// A RAID set of device-mapper: md's levels over hidden logical volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaidSet {
    /// The segment type's name, `raid6_zr`.
    pub name: String,
    /// md's code of the level.
    pub level: i32,
    /// md's code of the layout.
    pub layout: u32,
    /// Bytes; 0 where the level has none.
    pub chunk: u64,
    /// What the write-intent bitmap counts in, bytes; 0 if unknown.
    pub region: u64,
    /// The members, by slot.
    pub members: Vec<RaidImage>,
    /// Bytes of each data image that are reserved for a reshape: its data begin at what the metadata images
    /// say, or else at this or at 0.
    pub reshape_space: u64,
}

/// One member of a [`RaidSet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaidImage {
    /// The logical volume with data and parity; `None` if it was taken away.
    pub data: Option<usize>,
    /// The logical volume that begins with a [`super::RaidMeta`].
    pub meta: Option<usize>,
}

/// What a segment does with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Chunks go round the stripes; linear with one stripe.
    Striped {
        /// Bytes; the whole segment with one stripe.
        chunk: u64,
        /// Where each stripe begins.
        stripes: Vec<Extent>,
    },
    /// Equal copies, without metadata of their own (the old mirror, and `pvmove`).
    Mirror {
        /// Where each copy begins.
        copies: Vec<Extent>,
        /// The logical volume that notes which regions are in sync.
        log: Option<usize>,
        /// What the log counts in, bytes.
        region: u64,
    },
    /// A RAID set; the segment's address 0 is the set's.
    Raid(RaidSet),
    /// A thin pool. Its own addresses mean nothing; volumes of type [`Mapping::Thin`] live in it.
    ThinPool {
        /// Logical volume with the data.
        data: usize,
        /// Logical volume with a [`super::ThinMetadata`].
        metadata: usize,
        /// Block size, bytes.
        chunk: u64,
        /// Counts changes of LVM's view of the pool.
        transaction: u64,
    },
    /// A volume in a thin pool; the segment's address 0 is the thin device's.
    Thin {
        /// The pool's logical volume.
        pool: usize,
        /// The device's number in the pool's metadata.
        device: u32,
        /// What unmapped blocks are read from, if not zeros.
        external: Option<usize>,
    },
    /// Says that `store` holds a snapshot of `origin`; a segment of a hidden volume.
    Snapshot {
        /// What it is a snapshot of.
        origin: usize,
        /// Logical volume with a [`super::SnapshotStore`]; people call the snapshot by its name.
        store: usize,
        /// Bytes.
        chunk: u64,
        /// Whether the snapshot was being merged back.
        merging: bool,
    },
    /// Content is on another volume at the same addresses, but newer data may be in a cache.
    Cached {
        /// The slow volume.
        origin: usize,
        /// The fast one: a cache pool or a plain volume.
        cache: Option<usize>,
        /// Whether data may be in the cache only.
        dirty: bool,
    },
    /// A pool of cache blocks. Its own addresses mean nothing.
    CachePool {
        /// Logical volume with the data.
        data: usize,
        /// Logical volume with the metadata.
        metadata: usize,
    },
    /// Content is on another volume at the same addresses; checksums lie elsewhere.
    Integrity {
        /// The volume with the data.
        origin: usize,
    },
    /// Reads as zeros.
    Zero,
    /// Nothing can be read there.
    Error,
    /// A type that is not known here.
    Other {
        /// Its name.
        name: String,
    },
}

/// A run of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSegment {
    /// Bytes from the volume's beginning.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What it is made of.
    pub mapping: Mapping,
}

/// What names stand for.
#[derive(Debug, Default)]
pub(super) struct Names<'a> {
    pub(super) extent_size: u64,
    /// Number, where extents start, how many there are.
    pub(super) physical: HashMap<&'a str, (usize, u64, u64)>,
    pub(super) logical: HashMap<&'a str, usize>,
}

/// Makes an error of a field, what was found, and what was wanted.
pub(super) type Refuse<'a> = &'a dyn Fn(&'static str, String, &'static str) -> FieldError;

impl VolumeSegment {
    pub(super) fn parse(
        section: &Section,
        names: &Names<'_>,
        refuse: Refuse<'_>,
    ) -> Result<Self, FieldError> {
        let extents = |field: &'static str| {
            let count = section.number(field);
            let bytes = count.and_then(|count| count.checked_mul(names.extent_size));
            bytes.filter(|bytes| *bytes < SIZE_MAX / 2).ok_or_else(|| {
                let found = count.map_or_else(|| "nothing".to_owned(), |count| count.to_string());
                refuse(field, found, "a number of extents that a volume can have")
            })
        };
        let (start, length) = (extents("start_extent")?, extents("extent_count")?);
        if length == 0 {
            return Err(refuse("extent_count", "0".to_owned(), "at least 1"));
        }
        let fields = Fields { section, names, refuse };
        Ok(Self { start, length, mapping: fields.mapping(length)? })
    }
}

/// A segment's section, with what is needed to understand it.
struct Fields<'a> {
    section: &'a Section,
    names: &'a Names<'a>,
    refuse: Refuse<'a>,
}

impl Fields<'_> {
    fn missing(&self, field: &'static str, wanted: &'static str) -> FieldError {
        (self.refuse)(field, "nothing".to_owned(), wanted)
    }

    fn mapping(&self, length: u64) -> Result<Mapping, FieldError> {
        let kind = self.section.text("type").ok_or_else(|| self.missing("type", "a segment type"))?;
        // Newer LVM adds flags to the type so that older ones leave it alone.
        let kind = kind.split('+').next().unwrap_or_default();
        match kind {
            "striped" | "linear" => self.striped(length),
            "mirror" => Ok(Mapping::Mirror {
                copies: self.extents("mirrors", 0)?,
                log: self.section.text("mirror_log").map(|_| self.volume("mirror_log")).transpose()?,
                region: self.sectors("region_size").unwrap_or(0),
            }),
            "thin-pool" => Ok(Mapping::ThinPool {
                data: self.volume("pool")?,
                metadata: self.volume("metadata")?,
                chunk: self.size("chunk_size")?,
                transaction: self.section.number("transaction_id").unwrap_or(0),
            }),
            "thin" => Ok(Mapping::Thin {
                pool: self.volume("thin_pool")?,
                device: self
                    .section
                    .number("device_id")
                    .and_then(|device| u32::try_from(device).ok())
                    .ok_or_else(|| self.missing("device_id", "a number of 24 bits"))?,
                external: self
                    .section
                    .text("external_origin")
                    .map(|_| self.volume("external_origin"))
                    .transpose()?,
            }),
            "snapshot" => {
                let merging = self.section.text("merging_store").is_some();
                Ok(Mapping::Snapshot {
                    origin: self.volume("origin")?,
                    store: self.volume(if merging { "merging_store" } else { "cow_store" })?,
                    chunk: self.size("chunk_size")?,
                    merging,
                })
            }
            "cache" => Ok(Mapping::Cached {
                origin: self.volume("origin")?,
                cache: self.volume("cache_pool").ok(),
                dirty: self.section.text("cache_mode") != Some("writethrough"),
            }),
            "writecache" => {
                let cache = self.volume("writecache").ok();
                Ok(Mapping::Cached { origin: self.volume("origin")?, cache, dirty: true })
            }
            "cache-pool" => {
                Ok(Mapping::CachePool { data: self.volume("data")?, metadata: self.volume("metadata")? })
            }
            "integrity" => Ok(Mapping::Integrity { origin: self.volume("origin")? }),
            "zero" => Ok(Mapping::Zero),
            "error" => Ok(Mapping::Error),
            _ => match raid_codes(kind, self.section.number("data_copies")) {
                Some((level, layout)) => self.raid(kind, level, layout),
                None => Ok(Mapping::Other { name: kind.to_owned() }),
            },
        }
    }

    fn striped(&self, length: u64) -> Result<Mapping, FieldError> {
        let count = self.section.list("stripes").map_or(0, |list| list.len() / 2) as u64;
        let stated = self.section.number("stripe_count").unwrap_or(count);
        if count == 0 || stated != count || !length.is_multiple_of(count) {
            return Err((self.refuse)(
                "stripe_count",
                stated.to_string(),
                "the number of stripes, a factor of the extents",
            ));
        }
        let stripes = self.extents("stripes", length / count)?;
        let chunk = if count == 1 { length } else { self.size("stripe_size")? };
        if !(length / count).is_multiple_of(chunk) {
            return Err((self.refuse)("stripe_size", chunk.to_string(), "a factor of each stripe's length"));
        }
        Ok(Mapping::Striped { chunk, stripes })
    }

    fn raid(&self, kind: &str, level: i32, layout: u32) -> Result<Mapping, FieldError> {
        let plain = self.section.get("raid0_lvs").is_some();
        let field = if plain { "raid0_lvs" } else { "raids" };
        let list: Vec<&str> = self.section.texts(field).collect();
        let step = if plain { 1 } else { 2 };
        let count = list.len() / step;
        let stated = self.section.number("device_count").or(self.section.number("stripe_count"));
        let fits = (1..=MEMBERS_MAX).contains(&count)
            && list.len().is_multiple_of(step)
            && stated.is_none_or(|stated| stated == count as u64);
        if !fits {
            return Err((self.refuse)(field, format!("{} names", list.len()), "one or two for each device"));
        }
        let find = |name: &str| self.names.logical.get(name).copied();
        let members = list.chunks(step).map(|names| RaidImage {
            data: names.last().and_then(|name| find(name)),
            meta: names.first().filter(|_| !plain).and_then(|name| find(name)),
        });
        let chunk = if level == 1 { 0 } else { self.size("stripe_size")? };
        let reshape = self.section.number("reshape_count").unwrap_or(0);
        Ok(Mapping::Raid(RaidSet {
            name: kind.to_owned(),
            level,
            layout,
            chunk,
            region: self.sectors("region_size").unwrap_or(0),
            members: members.collect(),
            reshape_space: reshape.saturating_mul(self.names.extent_size) / count as u64,
        }))
    }

    /// Pairs of a name and an extent. On physical volumes `length` bytes must be there.
    fn extents(&self, field: &'static str, length: u64) -> Result<Vec<Extent>, FieldError> {
        let list = self.section.list(field).ok_or_else(|| self.missing(field, "a list"))?;
        if list.is_empty() || !list.len().is_multiple_of(2) || list.len() / 2 > MEMBERS_MAX {
            return Err((self.refuse)(
                field,
                format!("{} items", list.len()),
                "pairs of a name and an extent",
            ));
        }
        let extents = list.chunks_exact(2).map(|pair| {
            let [Value::Text(name), Value::Number(extent)] = pair else {
                let found = pair.iter().map(shown).collect::<Vec<_>>().join(", ");
                return Err((self.refuse)(field, found, "a name and an extent"));
            };
            let bytes =
                u64::try_from(*extent).ok().and_then(|extent| extent.checked_mul(self.names.extent_size));
            let Some(bytes) = bytes.filter(|bytes| *bytes < SIZE_MAX / 2) else {
                return Err((self.refuse)(field, extent.to_string(), "an extent that a volume can have"));
            };
            if let Some((pv, start, count)) = self.names.physical.get(name.as_str()) {
                // The group's extents were checked to fit into a device.
                if bytes + length > count * self.names.extent_size {
                    let found = format!("extent {extent} of {name}, which has {count}");
                    return Err((self.refuse)(field, found, "extents that the physical volume has"));
                }
                return Ok(Extent::Physical { pv: *pv, offset: start + bytes });
            }
            Ok(match self.names.logical.get(name.as_str()) {
                Some(lv) => Extent::Logical { lv: *lv, offset: bytes },
                None => Extent::Unknown { name: name.clone() },
            })
        });
        extents.collect()
    }

    /// The logical volume that a field names.
    fn volume(&self, field: &'static str) -> Result<usize, FieldError> {
        let name = self.section.text(field).unwrap_or("nothing");
        let volume = self.names.logical.get(name).copied();
        volume.ok_or_else(|| (self.refuse)(field, name.to_owned(), "a logical volume of the group"))
    }

    fn sectors(&self, field: &str) -> Option<u64> {
        self.section.number(field)?.checked_mul(SECTOR).filter(|bytes| *bytes <= SIZE_MAX)
    }

    /// A size that is not 0, given in sectors.
    fn size(&self, field: &'static str) -> Result<u64, FieldError> {
        self.sectors(field).filter(|size| *size > 0).ok_or_else(|| self.missing(field, "a number of sectors"))
    }
}

/// md's codes of level and layout for a RAID segment type of LVM.
fn raid_codes(kind: &str, copies: Option<u64>) -> Option<(i32, u32)> {
    let copies =
        copies.and_then(|copies| u32::try_from(copies).ok()).filter(|copies| (1..256).contains(copies));
    let copies = copies.unwrap_or(2);
    Some(match kind {
        "raid0" | "raid0_meta" => (0, 2),
        "raid1" => (1, 0),
        // Device-mapper's RAID 4 has its parity on the first member.
        "raid4" => (5, 4),
        "raid5_la" => (5, 0),
        "raid5_ra" => (5, 1),
        "raid5" | "raid5_ls" => (5, 2),
        "raid5_rs" => (5, 3),
        "raid5_n" => (5, 5),
        "raid6" | "raid6_zr" => (6, 8),
        "raid6_nr" => (6, 9),
        "raid6_nc" => (6, 10),
        "raid6_n_6" => (6, 5),
        "raid6_la_6" => (6, 16),
        "raid6_ra_6" => (6, 17),
        "raid6_ls_6" => (6, 18),
        "raid6_rs_6" => (6, 19),
        "raid6_0_6" => (6, 20),
        "raid10" | "raid10_near" => (10, 0x100 | copies),
        "raid10_far" => (10, 0x2_0001 | copies << 8),
        "raid10_offset" => (10, 0x3_0001 | copies << 8),
        _ => return None,
    })
}
