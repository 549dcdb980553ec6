//! A chunk as an item of the chunk tree, and as an entry of an uberblock.

use geometry::{Kind, Layout};

use super::{BitmapAnchor, COLUMNS_MAX, Chunk, Class, Column, PLACEMENTS_MAX, Placement, Stale};
use crate::codec::{DecodeError, Reader, Writer};
use crate::types::{DeviceId, GroupId, Logical, Txg};

/// What is stale of a placement: nothing, the regions that follow, everything.
const STALE_NONE: u8 = 0;
const STALE_SOME: u8 = 1;
const STALE_ALL: u8 = 2;

/// Beside the number of the bitmap's slot: the chunk is closed.
const CLOSED: u8 = 2;

/// Column length and unit beyond which no arithmetic here can overflow, bytes.
const COLUMN_BYTES_MAX: u64 = 1 << 48;

impl Chunk {
    /// The item of the chunk tree: see "Chunk item" in `docs/on-disk-format.md`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.address.0);
        w.u8(match self.class {
            Class::System => 1,
            Class::Metadata => 2,
            Class::Data => 3,
        });
        let (kind, argument) = match self.layout.kind() {
            Kind::Copies => (1, 0),
            Kind::Stripe => (2, 0),
            Kind::StripedCopies { copies } => (3, copies),
            Kind::Parity { parity } => (4, parity),
        };
        w.u8(kind);
        w.u8(argument);
        w.u8(self.bitmap.slot | if self.closed { CLOSED } else { 0 });
        w.u32(self.group.0);
        w.u32(self.layout.unit());
        w.u64(self.column_bytes);
        w.u64(self.used);
        w.u64(self.birth.0);
        w.u64(self.bitmap.txg.0);
        w.raw(&self.bitmap.checksum);
        w.u16(self.columns.len() as u16);
        for column in &self.columns {
            w.u8(column.placements.len() as u8);
            for placement in &column.placements {
                w.u32(placement.device.0);
                w.u64(placement.offset);
                w.u64(placement.generation.0);
                let stale = placement.stale.of_first(self.regions());
                if stale.is_empty() {
                    w.u8(STALE_NONE);
                } else if stale == Stale::ALL.of_first(self.regions()) {
                    w.u8(STALE_ALL);
                } else {
                    w.u8(STALE_SOME);
                    stale.0.iter().for_each(|&word| w.u64(word));
                }
            }
        }
        w.finish()
    }

    /// Undoes `encode`, refusing whatever later arithmetic could stumble over.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("chunk item", bytes);
        let address = Logical(r.u64("address")?);
        let class = match r.u8("class")? {
            1 => Class::System,
            2 => Class::Metadata,
            3 => Class::Data,
            other => return Err(r.error("class", format!("{other} is not known"))),
        };
        let kind = r.u8("layout")?;
        let argument = r.u8("layout argument")?;
        let kind = match kind {
            1 => Kind::Copies,
            2 => Kind::Stripe,
            3 => Kind::StripedCopies { copies: argument },
            4 => Kind::Parity { parity: argument },
            other => return Err(r.error("layout", format!("{other} is not known"))),
        };
        let flags = r.u8("bitmap slot")?;
        let (slot, closed) = (flags & !CLOSED, flags & CLOSED != 0);
        let group = GroupId(r.u32("group")?);
        let unit = r.u32("unit")?;
        let column_bytes = r.u64("column length")?;
        let used = r.u64("used")?;
        let birth = Txg(r.u64("birth")?);
        let bitmap_txg = Txg(r.u64("bitmap txg")?);
        let checksum = r.array("bitmap checksum")?;
        let count = r.u16("columns")?;
        if usize::from(count) > COLUMNS_MAX {
            return Err(r.error("columns", format!("is {count}, the most is {COLUMNS_MAX}")));
        }
        let layout = Layout::new(kind, count, unit)
            .map_err(|error| r.error("layout", format!("is invalid: {error}")))?;
        if column_bytes == 0 || column_bytes > COLUMN_BYTES_MAX || column_bytes % u64::from(unit) != 0 {
            return Err(r.error("column length", format!("{column_bytes} is no whole number of units")));
        }
        if slot > 1 {
            return Err(r.error("bitmap slot", format!("is {slot}, not 0 or 1")));
        }
        let mut columns = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let placements = r.u8("placements")?;
            if placements == 0 || usize::from(placements) > PLACEMENTS_MAX {
                return Err(r.error("placements", format!("is {placements}, not 1 to {PLACEMENTS_MAX}")));
            }
            let mut column = Column::default();
            for _ in 0..placements {
                let device = DeviceId(r.u32("device")?);
                let offset = r.u64("offset")?;
                let generation = Txg(r.u64("generation")?);
                let mut stale = Stale::NONE;
                match r.u8("stale")? {
                    STALE_NONE => {}
                    STALE_SOME => {
                        for word in &mut stale.0 {
                            *word = r.u64("stale regions")?;
                        }
                    }
                    STALE_ALL => stale = Stale::ALL,
                    other => return Err(r.error("stale", format!("{other} is not known"))),
                }
                if offset.checked_add(column_bytes).is_none() {
                    return Err(r.error("offset", format!("{offset} is beyond any device")));
                }
                column.placements.push(Placement { device, offset, generation, stale });
            }
            columns.push(column);
        }
        r.end()?;
        if address.0.checked_add(layout.capacity(column_bytes)).is_none() {
            return Err(DecodeError {
                record: "chunk item",
                field: "address",
                problem: format!("{address} leaves no room for the chunk"),
            });
        }
        let mut chunk = Self {
            address,
            class,
            group,
            layout,
            column_bytes,
            columns,
            used,
            birth,
            bitmap: BitmapAnchor { slot, txg: bitmap_txg, checksum },
            closed,
        };
        let regions = chunk.regions();
        for placement in chunk.columns.iter_mut().flat_map(|column| &mut column.placements) {
            placement.stale = placement.stale.of_first(regions);
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk() -> Chunk {
        let mut stale = Stale::NONE;
        stale.insert(3);
        stale.insert(255);
        let place = |device, stale| Placement {
            device: DeviceId(device),
            offset: 1 << 20,
            generation: Txg(4),
            stale,
        };
        Chunk {
            address: Logical(1 << 30),
            class: Class::Data,
            group: GroupId(2),
            layout: Layout::new(Kind::Parity { parity: 2 }, 4, 16384).unwrap(),
            column_bytes: 1 << 24,
            columns: (0..4)
                .map(|c| Column { placements: vec![place(c, Stale::NONE), place(c + 9, stale)] })
                .collect(),
            used: 77 * 4096,
            birth: Txg(4),
            bitmap: BitmapAnchor::default(),
            closed: true,
        }
    }

    #[test]
    fn a_chunk_item_comes_back_and_no_prefix_is_taken() {
        let bytes = chunk().encode();
        assert_eq!(Chunk::decode(&bytes), Ok(chunk()));
        for cut in 0..bytes.len() {
            assert!(Chunk::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn regions_cover_the_column_in_whole_units() {
        for column_bytes in [65536u64, 1 << 20, 3 << 20, (1 << 30) + 65536] {
            let chunk = Chunk { column_bytes, ..chunk() };
            assert_eq!(chunk.region_bytes() % u64::from(chunk.layout.unit()), 0);
            assert!(chunk.regions() <= REGIONS_USED_MAX);
            let rows: u64 = (0..chunk.regions()).map(|r| chunk.region_rows(r).count() as u64).sum();
            assert_eq!(rows, chunk.layout.rows(column_bytes));
        }
    }

    /// Sixty-four columns that are stale as a whole take no more room than fresh ones.
    #[test]
    fn what_is_stale_as_a_whole_is_told_in_a_byte() {
        let placement = |device, stale| Placement {
            device: DeviceId(device),
            offset: 1 << 20,
            generation: Txg(4),
            stale,
        };
        let of = |stale| Chunk {
            layout: Layout::new(Kind::Copies, 64, 65536).unwrap(),
            column_bytes: 1 << 20,
            columns: (0..64).map(|c| Column { placements: vec![placement(c, stale)] }).collect(),
            ..chunk()
        };
        let (whole, fresh) = (of(Stale::ALL), of(Stale::NONE));
        assert_eq!(whole.encode().len(), fresh.encode().len());
        let back = Chunk::decode(&whole.encode()).unwrap();
        // The column has 16 regions; the other bits mean nothing.
        assert!(back.placements().all(|(_, placement)| placement.stale.iter().eq(0..16)));
        assert_eq!(Chunk::decode(&back.encode()), Ok(back));
        assert_eq!(Chunk::decode(&fresh.encode()), Ok(fresh));
    }

    /// Of partly stale columns those become stale as a whole without which everything can still be read.
    #[test]
    fn a_coarse_chunk_can_be_read_like_before() {
        let stale = |regions: std::ops::Range<u32>| {
            let mut stale = Stale::NONE;
            regions.for_each(|region| stale.insert(region));
            stale
        };
        let mut coarse = Chunk {
            layout: Layout::new(Kind::Copies, 4, 65536).unwrap(),
            column_bytes: 1 << 20,
            columns: [stale(0..8), stale(8..16), stale(3..4), Stale::NONE]
                .into_iter()
                .enumerate()
                .map(|(c, stale)| {
                    let device = DeviceId(c as u32);
                    let placement = Placement { device, offset: 1 << 20, generation: Txg(4), stale };
                    Column { placements: vec![placement] }
                })
                .collect(),
            ..chunk()
        };
        // The fresh one is away: the first two are needed together, or the third with the first's region 3.
        coarse.coarsen(|device| device != DeviceId(3));
        let readable = (0..16).all(|region| {
            coarse.placements().any(|(_, p)| p.device != DeviceId(3) && !p.stale.contains(region))
        });
        assert!(readable, "{coarse:?}");
        let partly =
            coarse.placements().filter(|(_, p)| !p.stale.is_empty() && p.stale.of_first(16).count() < 16);
        assert!(partly.count() < 3, "{coarse:?}");
        coarse.coarsen(|_| true);
        assert!(coarse.placements().all(|(_, p)| p.stale.is_empty() || p.stale.of_first(16).count() == 16));
    }

    /// The widest mirror with a replacement coming for every side, all of them stale in part.
    #[test]
    fn a_wide_chunk_fits_into_an_item_when_it_is_coarse() {
        let mut stale = Stale::NONE;
        stale.insert(3);
        let place = |device, stale| Placement {
            device: DeviceId(device),
            offset: 1 << 20,
            generation: Txg(4),
            stale,
        };
        let mut wide = Chunk {
            layout: Layout::new(Kind::Copies, 64, 65536).unwrap(),
            column_bytes: 1 << 20,
            columns: (0..64)
                .map(|c| Column { placements: vec![place(c, stale), place(64 + c, stale)] })
                .collect(),
            ..chunk()
        };
        wide.columns[7].placements[0].stale = Stale::NONE;
        assert!(wide.encode().len() > tree::MAX_VALUE);
        wide.coarsen(|_| true);
        assert!(wide.encode().len() <= tree::MAX_VALUE, "{}", wide.encode().len());
    }

    const REGIONS_USED_MAX: u32 = super::super::REGIONS;
}
