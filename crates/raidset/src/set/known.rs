//! What is known about a set beyond its labels: names, spares, how far a rebuild has come, what lost columns missed.
//!
//! Labels have no room for it. It is kept in the extension area of the components ([`crate::extension`]) and by
//! whoever remembers the set; both hold the bytes that [`Known::encode`] makes.
//!
//! ```text
//! u8 columns; each: u8 status, u8 1 if labelled, i32 serial, u32 label's column, u8 length, name
//! u8 spares;  each: u8 status, u8 column + 1 that it replaces or 0, u8 length, name
//! u8 rebuild (0 none, 1 reconstruction, 2 copyback, 3 reconstruction in the free units); u8 column; u8 spare + 1 or 0; u8 partial; u64 rows done
//! u8 flags (1 parity good, 2 spares start by themselves)
//! u64 sectors of the journal behind the data of each component, 0 for none
//! u8 lost columns that are known; each: u8 column, i32 counter of its label, 512 bytes of regions
//! with a block design: u8 columns, u8 columns of a block, u8 1 if the parity rotates, u16 length, the columns of all blocks
//! ```
//! Numbers are little-endian.

use std::sync::Arc;

use super::members::{RebuildKind, Status};
use crate::config::{MAX_NAME, MAX_SPARES};
use crate::design::Design;
use crate::layout::MAX_COLUMNS;
use crate::paritymap::{Bits, MAP_LENGTH};

/// Lost columns of which it is remembered what they missed; there is no room for more.
pub const MAX_MISSED: usize = 2;

/// What is known about a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownColumn {
    /// The name of its component.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// Serial number and column of its label, if it has one.
    pub stamp: Option<(i32, u32)>,
}

/// What is known about a spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSpare {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// The column that it replaces.
    pub column: Option<usize>,
}

/// What is known about a rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRebuild {
    /// What it does.
    pub kind: RebuildKind,
    /// The column.
    pub column: usize,
    /// The spare that it fills, if it is not in place.
    pub spare: Option<usize>,
    /// It fills the free units of the other columns.
    pub free_units: bool,
    /// Only what the column missed is done.
    pub partial: bool,
    /// Rows that are done and durable.
    pub rows: u64,
}

/// What a lost column missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The column.
    pub column: usize,
    /// The counter of the label that its component was left with.
    pub counter: i32,
    /// Regions that were written since.
    pub regions: Bits,
}

/// What is known about a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its columns.
    pub columns: Vec<KnownColumn>,
    /// Its spares.
    pub spares: Vec<KnownSpare>,
    /// The rebuild that runs or was interrupted.
    pub rebuild: Option<KnownRebuild>,
    /// Whether the parity is good, as far as there are no labels to tell.
    pub parity_good: bool,
    /// Whether free spares take the place of lost columns by themselves.
    pub autospare: bool,
    /// Sectors of the journal behind the data of each component; 0 without one.
    pub journal_sectors: u64,
    /// What lost columns missed.
    pub missed: Vec<Missed>,
    /// The block design of a declustered level.
    pub design: Option<Arc<Design>>,
}

const STATUSES: [Status; 6] = [
    Status::Optimal,
    Status::Failed,
    Status::Reconstructing,
    Status::Spared,
    Status::Spare,
    Status::UsedSpare,
];

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    let cut = (0..=name.len().min(MAX_NAME)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    bytes.push(cut as u8);
    bytes.extend_from_slice(&name.as_bytes()[..cut]);
}

fn number(status: Status) -> u8 {
    STATUSES.iter().position(|other| *other == status).unwrap_or(0) as u8
}

/// A position plus one, 0 for none.
fn one_up(position: Option<usize>) -> u8 {
    position.map_or(0, |position| position as u8 + 1)
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (now, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(now)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn status(&mut self) -> Option<Status> {
        STATUSES.get(usize::from(self.byte()?)).copied()
    }

    fn name(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> Option<usize> {
        Some(usize::from(self.byte()?)).filter(|&number| number < bound)
    }

    /// What [`one_up`] made, below `bound`: none or one position.
    fn one_down(&mut self, bound: usize) -> Option<[Option<usize>; 1]> {
        let number = usize::from(self.byte()?);
        (number <= bound).then(|| [number.checked_sub(1)])
    }
}

impl Known {
    /// The bytes of it. Names are cut to what RAIDframe takes, and more lost columns than fit are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.columns.len() as u8];
        for column in &self.columns {
            let (serial, of) = column.stamp.unwrap_or_default();
            bytes.extend([number(column.status), column.stamp.is_some().into()]);
            bytes.extend(serial.to_le_bytes());
            bytes.extend(of.to_le_bytes());
            put_name(&mut bytes, &column.name);
        }
        bytes.push(self.spares.len() as u8);
        for spare in &self.spares {
            bytes.extend([number(spare.status), one_up(spare.column)]);
            put_name(&mut bytes, &spare.name);
        }
        match self.rebuild {
            None => bytes.extend([0; 12]),
            Some(rebuild) => {
                let kind = match rebuild.kind {
                    RebuildKind::Reconstruction if rebuild.free_units => 3,
                    RebuildKind::Reconstruction => 1,
                    RebuildKind::Copyback => 2,
                };
                let column = rebuild.column as u8;
                bytes.extend([kind, column, one_up(rebuild.spare), rebuild.partial.into()]);
                bytes.extend(rebuild.rows.to_le_bytes());
            }
        }
        bytes.push(u8::from(self.parity_good) | u8::from(self.autospare) << 1);
        bytes.extend(self.journal_sectors.to_le_bytes());
        let missed = &self.missed[..self.missed.len().min(MAX_MISSED)];
        bytes.push(missed.len() as u8);
        for missed in missed {
            bytes.push(missed.column as u8);
            bytes.extend(missed.counter.to_le_bytes());
            bytes.extend(missed.regions.encode());
        }
        bytes.extend(self.design.as_deref().map(Design::encode).unwrap_or_default());
        bytes
    }

    /// What [`Known::encode`] made; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let mut known = Self::default();
        for _ in 0..from.below(usize::from(MAX_COLUMNS) + 1)? {
            let status = from.status()?;
            let labelled = from.byte()? == 1;
            let stamp = (i32::from_le_bytes(from.array()?), u32::from_le_bytes(from.array()?));
            known.columns.push(KnownColumn { name: from.name()?, status, stamp: labelled.then_some(stamp) });
        }
        let columns = known.columns.len();
        for _ in 0..from.below(usize::from(MAX_SPARES) + 1)? {
            let (status, [column]) = (from.status()?, from.one_down(columns)?);
            known.spares.push(KnownSpare { name: from.name()?, status, column });
        }
        let (kind, column) = (from.byte()?, usize::from(from.byte()?));
        let ([spare], partial) = (from.one_down(known.spares.len())?, from.byte()? == 1);
        let rows = u64::from_le_bytes(from.array()?);
        let free_units = kind == 3;
        let kind = match kind {
            1 | 3 => Some(RebuildKind::Reconstruction),
            2 => Some(RebuildKind::Copyback),
            _ => None,
        };
        known.rebuild = kind.filter(|_| column < columns).map(|kind| KnownRebuild {
            kind,
            column,
            spare,
            free_units,
            partial,
            rows,
        });
        let flags = from.byte()?;
        (known.parity_good, known.autospare) = (flags & 1 != 0, flags & 2 != 0);
        known.journal_sectors = u64::from_le_bytes(from.array()?);
        for _ in 0..from.below(MAX_MISSED + 1)? {
            let column = from.below(columns)?;
            let counter = i32::from_le_bytes(from.array()?);
            let regions = Bits::decode(&from.array::<MAP_LENGTH>()?);
            known.missed.push(Missed { column, counter, regions });
        }
        known.design = Design::decode(from.0).map(Arc::new);
        Some(known)
    }

    /// What is known when the components know `newer`. Where that names other devices (a spare came or went, and a power cut
    /// before it was remembered) these are kept as they are remembered; but what columns missed since, and which of them are
    /// whole, is as the components tell: a column that is filled by an older list keeps what is stale.
    #[must_use]
    pub(super) fn brought_up_to_date(&self, newer: &Self) -> Self {
        if newer.same_names(self) {
            return newer.clone();
        }
        let mut known = Self { missed: newer.missed.clone(), ..self.clone() };
        known.rebuild = self
            .rebuild
            .filter(|old| newer.rebuild.is_some_and(|now| (now.kind, now.column) == (old.kind, old.column)));
        let same_column = |&column: &usize| {
            let name = |known: &Self| known.columns.get(column).map(|column| column.name.clone());
            name(self) == name(newer)
        };
        for spare in &mut known.spares {
            let Some(now) = newer.spares.iter().find(|now| now.name == spare.name) else { continue };
            if now.column.is_none_or(|column| same_column(&column)) {
                (spare.status, spare.column) = (now.status, now.column);
            }
        }
        for (index, (column, now)) in known.columns.iter_mut().zip(&newer.columns).enumerate() {
            let on_spare = || known.spares.iter().any(|spare| spare.column == Some(index));
            let told = match now.status {
                Status::Optimal | Status::Failed => true,
                Status::Spared => on_spare(),
                _ => false,
            };
            if column.name == now.name && told {
                (column.status, column.stamp) = (now.status, now.stamp);
            }
        }
        known
    }

    /// Whether a column was, as a whole, in the free units of the others.
    pub(super) fn in_free_units(&self, column: usize) -> bool {
        let spared = self.columns.get(column).is_some_and(|column| column.status == Status::Spared);
        spared && self.spares.iter().all(|spare| spare.column != Some(column))
    }

    /// The column that was in the free units of the others.
    pub fn column_in_free_units(&self) -> Option<usize> {
        (0..self.columns.len()).find(|&column| self.in_free_units(column))
    }

    /// Whether both name the same components and spares in the same order.
    pub fn same_names(&self, other: &Self) -> bool {
        let columns =
            |known: &Self| known.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let spares = |known: &Self| known.spares.iter().map(|spare| spare.name.clone()).collect::<Vec<_>>();
        columns(self) == columns(other) && spares(self) == spares(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status() -> impl Strategy<Value = Status> {
        (0..STATUSES.len()).prop_map(|at| STATUSES[at])
    }

    fn known() -> impl Strategy<Value = Known> {
        let column = ("[a-z/0-9]{0,49}", status(), any::<Option<(i32, u32)>>())
            .prop_map(|(name, status, stamp)| KnownColumn { name, status, stamp });
        let spare = ("[a-z/0-9]{0,49}", status(), 0..2_usize).prop_map(|(name, status, column)| KnownSpare {
            name,
            status,
            column: column.checked_sub(1),
        });
        let missed = (any::<i32>(), 0..4096_u32).prop_map(|(counter, region)| {
            let mut regions = Bits::clean();
            regions.set(region, true);
            Missed { column: 0, counter, regions }
        });
        let rebuild =
            proptest::option::of((any::<bool>(), any::<u64>()).prop_map(|(partial, rows)| KnownRebuild {
                kind: RebuildKind::Reconstruction,
                column: 0,
                spare: None,
                free_units: rows % 2 == 0,
                partial,
                rows,
            }));
        (
            prop::collection::vec(column, 1..39),
            prop::collection::vec(spare, 0..9),
            rebuild,
            any::<(bool, bool)>(),
            prop::collection::vec(missed, 0..=MAX_MISSED),
        )
            .prop_map(|(columns, spares, rebuild, (parity_good, autospare), missed)| Known {
                columns,
                spares,
                rebuild,
                parity_good,
                autospare,
                journal_sectors: 77,
                missed,
                design: None,
            })
    }

    proptest! {
        #[test]
        fn it_comes_back_and_fits(known in known()) {
            let bytes = known.encode();
            prop_assert!(bytes.len() <= crate::extension::MAX_BODY);
            prop_assert_eq!(Known::decode(&bytes), Some(known));
            for end in 0..bytes.len() {
                prop_assert_eq!(Known::decode(&bytes[..end]), None);
            }
        }

        #[test]
        fn a_design_comes_back(known in known()) {
            let design = Design::parse(crate::design::tests::SEVEN).ok().map(Arc::new);
            let known = Known { design, ..known };
            prop_assert_eq!(Known::decode(&known.encode()), Some(known));
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Known::decode(&bytes);
        }
    }
}
