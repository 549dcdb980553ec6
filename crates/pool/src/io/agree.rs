//! How rows whose parity does not fit are made to agree again: by changing as little as possible.
//!
//! Dead bytes rot as live ones do, and no checksum tells where. Parity that is made anew of such bytes agrees with them, and
//! protects the live ones beside them again, but takes several writes in place: if power fails between them, the
//! row protects nothing. So the units that are wrong are looked for first. What is right in a row is then never
//! written, and a crash leaves at most those units wrong that were wrong before.

use std::collections::BTreeSet;

use geometry::{ColumnSet, Kind};

use super::Rows;
use super::heal::subsets;
use crate::SECTOR;
use crate::chunk::Chunk;

/// A sector of each column of a row, in the order of the code: data, then parities.
struct Slice<'a> {
    units: Vec<&'a [u8]>,
    /// What holds live bytes, all of which are known to be right.
    live: Vec<bool>,
    /// What was rebuilt instead of read.
    unread: Vec<bool>,
}

impl Rows {
    /// Makes rows agree in which every live byte is right: as few units as possible are changed, sector by sector, and those that
    /// could not be read before others. `live`: what is live, as (offset in the chunk, length in bytes). `unread`: columns that
    /// were rebuilt. `which`: rows to look at; all columns must be there. Gives the units (row, column) that are not as they were.
    ///
    /// Where no parity is left over several choices agree: what was changed need not be what was wrong.
    pub(crate) fn agree(
        &mut self,
        chunk: &Chunk,
        live: impl Iterator<Item = (u64, u64)>,
        unread: &ColumnSet,
        which: impl Fn(u64) -> bool,
    ) -> Vec<(u64, u16)> {
        let mut changed = Vec::new();
        let layout = &chunk.layout;
        let Kind::Parity { parity } = layout.kind() else { return changed };
        let wrong: Vec<u64> =
            self.rows.clone().filter(|&row| which(row) && !self.parity_agrees(chunk, row)).collect();
        if wrong.is_empty() || !self.missing().is_empty() {
            return changed;
        }
        let live = live_sectors(chunk, live);
        for row in wrong {
            let mut columns: BTreeSet<u16> = BTreeSet::new();
            let order: Vec<u16> = (0..layout.data_units())
                .map(|i| layout.data_column(row, i))
                .chain((0..parity).map(|j| layout.parity_column(row, j)))
                .collect();
            for sector in 0..u64::from(layout.unit()) / SECTOR {
                let at = (sector * SECTOR) as usize;
                let slice = Slice {
                    units: order
                        .iter()
                        .filter_map(|&column| self.unit(row, column)?.get(at..at + SECTOR as usize))
                        .collect(),
                    live: order.iter().map(|&column| live.contains(&(row, column, sector))).collect(),
                    unread: order.iter().map(|&column| unread.contains(column)).collect(),
                };
                let Some(units) = slice.nearest(usize::from(parity)) else { continue };
                for (slot, bytes) in units {
                    let column = order[slot];
                    if self.replace(row, column, at, &bytes) {
                        columns.insert(column);
                    }
                }
            }
            changed.extend(columns.into_iter().map(|column| (row, column)));
        }
        changed
    }

    /// Whether the parity of a row is that of its data; not where something is missing.
    pub(crate) fn parity_agrees(&self, chunk: &Chunk, row: u64) -> bool {
        let layout = &chunk.layout;
        if layout.parity() == 0 {
            return true;
        }
        let data: Option<Vec<&[u8]>> =
            (0..layout.data_units()).map(|i| self.unit(row, layout.data_column(row, i))).collect();
        let parity: Option<Vec<&[u8]>> =
            (0..layout.parity()).map(|j| self.unit(row, layout.parity_column(row, j))).collect();
        match (data, parity) {
            (Some(data), Some(parity)) => parity::verify(&data, &parity).unwrap_or(false),
            _ => false,
        }
    }
}

/// Slots with the bytes that they must have.
type Units = Vec<(usize, Vec<u8>)>;

impl Slice<'_> {
    /// The smallest set of slots whose change makes the slice agree; `None` where nothing is to be done.
    fn nearest(&self, parity: usize) -> Option<Units> {
        let slots = self.units.len();
        let data = slots.checked_sub(parity)?;
        let (units, parities) = self.units.split_at(data);
        if parity::verify(units, parities).unwrap_or(true) {
            return None;
        }
        let unread: Vec<usize> = (0..slots).filter(|&slot| self.unread[slot] && !self.live[slot]).collect();
        // Where any choice agrees, parity is what follows.
        let free: Vec<usize> =
            (0..slots).rev().filter(|&slot| !self.unread[slot] && !self.live[slot]).collect();
        let choices: Vec<u16> = (0..free.len() as u16).collect();
        let sets = subsets(&choices, parity.checked_sub(unread.len())?);
        sets.iter().find_map(|set| {
            let taken = set.iter().map(|&index| free[usize::from(index)]);
            let erased: Vec<usize> = unread.iter().copied().chain(taken).collect();
            self.rebuilt(data, &erased)
        })
    }

    /// The slots rebuilt from all others; `None` if these do not agree.
    fn rebuilt(&self, data: usize, erased: &[usize]) -> Option<Units> {
        let present: Vec<Option<&[u8]>> = self
            .units
            .iter()
            .enumerate()
            .map(|(slot, &unit)| Some(unit).filter(|_| !erased.contains(&slot)))
            .collect();
        let mut built: Units = erased.iter().map(|&slot| (slot, vec![0; SECTOR as usize])).collect();
        let mut outputs: Vec<(usize, &mut [u8])> =
            built.iter_mut().map(|(slot, bytes)| (*slot, bytes.as_mut_slice())).collect();
        parity::reconstruct(data, &present, &mut outputs).ok()?;
        let mut whole = self.units.clone();
        built.iter().for_each(|(slot, bytes)| whole[*slot] = bytes);
        let (units, parities) = whole.split_at(data);
        parity::verify(units, parities).is_ok_and(|agrees| agrees).then_some(built)
    }
}

/// Sectors of units that hold something live: (row, column, sector in the unit).
fn live_sectors(chunk: &Chunk, live: impl Iterator<Item = (u64, u64)>) -> BTreeSet<(u64, u16, u64)> {
    let layout = &chunk.layout;
    live.flat_map(|(offset, length)| layout.segments(offset, length))
        .flat_map(|segment| {
            let cell = segment.cell;
            let (from, to) = (u64::from(cell.within), u64::from(cell.within + segment.length));
            let column = layout.data_column(cell.row, cell.index);
            (from / SECTOR..to.div_ceil(SECTOR)).map(move |sector| (cell.row, column, sector))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use geometry::Layout;
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::{BitmapAnchor, Class, Column};
    use crate::types::{GroupId, Logical, Txg};

    const UNIT: u32 = 16384;

    fn chunk(data: u16, parity: u8) -> Chunk {
        let columns = data + u16::from(parity);
        Chunk {
            address: Logical(0),
            class: Class::Data,
            group: GroupId(0),
            layout: Layout::new(Kind::Parity { parity }, columns, UNIT).unwrap(),
            column_bytes: 1 << 24,
            columns: (0..columns).map(|_| Column { placements: Vec::new() }).collect(),
            used: 0,
            birth: Txg(1),
            bitmap: BitmapAnchor::default(),
            closed: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Rows 5 and 6 of some chunk. In the second one sector of some columns is wrong; up to `parity` columns are wrong or
        /// unread in all, and what is live is not among the wrong ones.
        #[test]
        fn what_is_wrong_is_changed_and_nothing_else(
            data in 1u16..9,
            parity in 1u8..4,
            seed in any::<u64>(),
            sector in 0u64..u64::from(UNIT) / SECTOR,
            wrong in 0usize..4,
            unread in 0usize..3,
        ) {
            let chunk = chunk(data, parity);
            let layout = &chunk.layout;
            let columns = data + u16::from(parity);
            prop_assume!(wrong + unread <= usize::from(parity));
            let mut state = seed;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u32
            };
            let mut right = Rows::new(&chunk, 5..7);
            for column in &mut right.columns {
                *column = Some((0..2 * UNIT).map(|_| random() as u8).collect());
            }
            right.renew_parity(&chunk, |_| true);
            let mut order: Vec<u16> = (0..columns).collect();
            order.sort_by_key(|_| random());
            let (bad, good) = order.split_at(wrong + unread);
            let (rotten, unread) = bad.split_at(wrong);
            let live: Vec<(u64, u64)> = (0..data)
                .filter(|&index| good.contains(&layout.data_column(6, index)))
                .map(|index| {
                    let row = 6 * layout.row_bytes();
                    (row + u64::from(index) * u64::from(UNIT) + sector * SECTOR, SECTOR)
                })
                .collect();
            let mut rows = right.clone();
            let at = (u64::from(UNIT) + sector * SECTOR) as usize;
            // What was rebuilt was rebuilt from what was wrong.
            for &column in rotten.iter().chain(unread) {
                let unit = rows.columns[usize::from(column)].as_mut().unwrap();
                unit[at..at + 16].iter_mut().for_each(|byte| *byte = random() as u8);
            }
            let found = rows.clone();
            let unread: ColumnSet = unread.iter().copied().collect();
            let changed = rows.agree(&chunk, live.iter().copied(), &unread, |_| true);
            prop_assert!(rows.parity_agrees(&chunk, 5) && rows.parity_agrees(&chunk, 6));
            for &column in good.iter().filter(|column| live.iter().any(|&(offset, _)| {
                let cell = layout.cell(offset);
                layout.data_column(cell.row, cell.index) == **column
            })) {
                prop_assert!(rows.columns[usize::from(column)] == right.columns[usize::from(column)]);
            }
            // With a parity left over there is one way only.
            if bad.len() < usize::from(parity) && wrong > 0 {
                prop_assert!(rows.columns == right.columns);
            }
            for &(row, column) in &changed {
                prop_assert!(rows.unit(row, column) != found.unit(row, column));
            }
            prop_assert!(changed.len() <= usize::from(parity));
            prop_assert!(!bad.is_empty() || changed.is_empty());
        }
    }
}
