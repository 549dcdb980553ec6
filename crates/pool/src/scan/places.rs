//! Where everything live is on the devices, for a tester that compares the devices' own bytes.

use geometry::{ColumnSet, Kind};
use tree::NODE_SIZE;

use crate::chunk::{Chunk, Class};
use crate::error::Result;
use crate::io::on_device;
use crate::pool::Pool;
use crate::types::DeviceId;

/// Places that hold the same bytes: device and offset.
pub type Copies = Vec<(DeviceId, u64)>;

/// Bytes on devices that belong together.
#[derive(Clone, Debug)]
pub struct Places {
    /// Bytes of each place.
    pub length: u64,
    /// The data units of a row in their order; one where there is no parity.
    pub data: Vec<Copies>,
    /// P, Q and R of the row, as far as the layout has them.
    pub parity: Vec<Copies>,
}

impl Pool {
    /// The places of everything live that are up to date, on devices that are open.
    ///
    /// # Errors
    /// The extents can't be read.
    pub fn places(&mut self) -> Result<Vec<Places>> {
        let mut all = Vec::new();
        for address in self.core.map.addresses() {
            let Some(chunk) = self.core.map.get(address).cloned() else { continue };
            let rows = 0..chunk.layout.rows(chunk.column_bytes);
            let live: Vec<(u64, u64)> = if chunk.class == Class::Data {
                let extents = self.extents_in(&chunk, &rows)?;
                extents.iter().map(|(offset, extent)| (*offset, u64::from(extent.stored))).collect()
            } else {
                let nodes = self.core.nodes.get(&address).map(|space| space.iter_live().collect::<Vec<_>>());
                let nodes = nodes.unwrap_or_default().into_iter();
                nodes.map(|index| (index * NODE_SIZE as u64, NODE_SIZE as u64)).collect()
            };
            if let Kind::Parity { parity } = chunk.layout.kind() {
                let mut rows: Vec<u64> =
                    live.iter().flat_map(|&(at, length)| chunk.layout.rows_of(at, length)).collect();
                rows.dedup();
                all.extend(rows.into_iter().map(|row| self.row_places(&chunk, row, parity)));
                continue;
            }
            let segments = live.iter().flat_map(|&(at, length)| chunk.layout.segments(at, length));
            all.extend(segments.map(|segment| {
                let cell = segment.cell;
                let offset = cell.row * u64::from(chunk.layout.unit()) + u64::from(cell.within);
                let columns = chunk.layout.columns_of(cell.row, cell.index).collect();
                let length = u64::from(segment.length);
                let data = vec![self.copies(&chunk, &columns, offset, length)];
                Places { length, data, parity: Vec::new() }
            }));
        }
        Ok(all)
    }

    fn row_places(&self, chunk: &Chunk, row: u64, parity: u8) -> Places {
        let length = u64::from(chunk.layout.unit());
        let of = |column| self.copies(chunk, &std::iter::once(column).collect(), row * length, length);
        Places {
            length,
            data: (0..chunk.layout.data_units()).map(|i| of(chunk.layout.data_column(row, i))).collect(),
            parity: (0..parity).map(|j| of(chunk.layout.parity_column(row, j))).collect(),
        }
    }

    fn copies(&self, chunk: &Chunk, columns: &ColumnSet, offset: u64, length: u64) -> Copies {
        let regions = chunk.regions_of(offset, length);
        let is_fresh = |placement: &&crate::chunk::Placement| {
            self.core.usable(placement.device)
                && !regions.clone().any(|region| placement.stale.contains(region))
        };
        let placements = columns.iter().flat_map(|column| &chunk.columns[usize::from(column)].placements);
        placements.filter(is_fresh).map(|p| (p.device, on_device(p, offset))).collect()
    }
}
