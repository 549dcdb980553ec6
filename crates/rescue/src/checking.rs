//! Looking at the parity of whatever is read: which member is silently wrong in a row is told by two parities, and what is
//! handed on is right.
//!
//! ```text
//! columns of a row -- check: all fit --> as they are
//!                          one is wrong, and P and Q say which --> computed from the others; noted
//!                          can't be told (a member lacks, more than one is wrong, no Q) --> as they are; noted
//! ```
//!
//! Sectors are judged one by one: two members that are wrong in different sectors of a row are both found.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use device::RangeSet;
use geometry::md::{Holds, Place, Row, Spot};
use parity::Location;
use serde::Serialize;

use crate::array::{SECTOR, Section, Use, lose};

/// More ranges than this are counted and not listed: a member may be wrong all over.
const LISTED_MAX: usize = 1 << 16;
/// Among so many that were noted last it is looked for one that goes on: threads read several places at a time.
const NEAR: usize = 16;

/// Bytes whose parity did not fit when they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// The member that is wrong; `None` if that can't be told.
    pub member: Option<String>,
    /// Its slot.
    pub slot: Option<u16>,
    /// First byte on the member; if there is none, from the beginning of the array's data on all of them.
    pub at: u64,
    /// How many bytes.
    pub length: u64,
    /// Where the array has these bytes; of parity nowhere, and if it can't be told which, those of the row's first data member.
    pub address: Option<u64>,
}

/// What is known of the rows of one geometry.
#[derive(Debug, Default)]
struct Found {
    /// For each slot what is wrong of it, bytes of its data.
    wrong: Vec<RangeSet>,
    /// Where it can't be told which.
    unclear: RangeSet,
    /// Ranges that were added.
    count: usize,
    /// What was added since it was last asked for.
    new: Vec<(Option<u16>, Range<u64>)>,
}

/// The rows that were looked at, and what did not fit.
#[derive(Debug, Default)]
pub(crate) struct Checking(Mutex<Found>);

impl Checking {
    fn found(&self) -> MutexGuard<'_, Found> {
        // Nothing is left half done in it by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes bytes of the members' data, of which this member is wrong.
    fn note(&self, member: Option<u16>, range: Range<u64>) {
        let mut found = self.found();
        let Found { wrong, unclear, count, new } = &mut *found;
        let set = match member.map(usize::from) {
            Some(slot) => {
                if wrong.len() <= slot {
                    wrong.resize(slot + 1, RangeSet::new());
                }
                &mut wrong[slot]
            }
            None => unclear,
        };
        if set.first_overlap(range.clone()) == Some(range.clone()) {
            return;
        }
        // What goes on where another one ended takes no room.
        let grows = set.first_overlap(range.start.saturating_sub(1)..range.end.saturating_add(1)).is_some();
        if !grows && *count >= LISTED_MAX {
            return;
        }
        *count += usize::from(!grows);
        set.insert(range.clone());
        let goes_on = |(of, last): &&mut (_, Range<u64>)| *of == member && last.end == range.start;
        if let Some((_, last)) = new.iter_mut().rev().take(NEAR).find(goes_on) {
            last.end = range.end;
        } else if new.len() < LISTED_MAX {
            new.push((member, range));
        }
    }

    /// All that did not fit until now, member by member.
    pub(crate) fn misfits(&self, section: &Section) -> Vec<Misfit> {
        let found = self.found();
        let members = (0_u16..).map(Some).zip(&found.wrong).chain([(None, &found.unclear)]);
        members
            .flat_map(|(member, set)| set.iter().flat_map(move |range| told(section, member, range)))
            .collect()
    }

    /// What did not fit since this was last asked.
    pub(crate) fn news(&self, section: &Section) -> Vec<Misfit> {
        let new = std::mem::take(&mut self.found().new);
        new.into_iter().flat_map(|(member, range)| told(section, member, range)).collect()
    }
}

/// Bytes of the members' data that don't fit: what lies behind each other on a member does not in the array.
fn told(section: &Section, slot: Option<u16>, range: Range<u64>) -> impl Iterator<Item = Misfit> {
    let geometry = &section.geometry;
    let chunk = geometry.chunk().max(1);
    let source = slot.and_then(|slot| section.sources.get(usize::from(slot))?.as_ref());
    let (member, start) = match source {
        Some(source) => (Some(source.device.info().name.clone()), source.start),
        None => (None, 0),
    };
    pieces(range, chunk).map(move |range| {
        let first = || geometry.row(range.start / chunk)?.data.first().copied();
        let address = slot.or_else(first).and_then(|member| {
            match geometry.holds(Spot { member, offset: range.start }) {
                Holds::Data(address) => Some(address),
                _ => None,
            }
        });
        let (at, length) = (start + range.start, range.end - range.start);
        Misfit { member: member.clone(), slot, at, length, address }
    })
}

/// A range in pieces that end at multiples of a size.
fn pieces(range: Range<u64>, size: u64) -> impl Iterator<Item = Range<u64>> {
    (range.start / size..range.end.div_ceil(size))
        .map(move |piece| range.start.max(piece * size)..range.end.min((piece + 1) * size))
}

/// The bytes of one row that lie at the same place of all members.
pub(crate) struct Columns<'a, 'b> {
    pub(crate) row: &'a Row,
    /// Where on the members, bytes of their data.
    pub(crate) offset: u64,
    /// Of each data member, in the order of the array's addresses.
    pub(crate) parts: Vec<&'b mut [u8]>,
    /// Which of these were not read, by their index.
    pub(crate) lost: &'a [usize],
    pub(crate) p: Option<&'a [u8]>,
    pub(crate) q: Option<&'a [u8]>,
}

impl Columns<'_, '_> {
    /// All columns that Q counts, and P and Q; those that hold nothing are zeros, and parts that are taken out are not there.
    fn present<'c>(&'c self, zeros: &'c [u8], range: &Range<usize>) -> Vec<Option<&'c [u8]>> {
        let columns = self.row.columns();
        let mut present: Vec<Option<&[u8]>> = vec![Some(&zeros[range.clone()]); columns];
        for (index, (member, part)) in self.row.data.iter().zip(&self.parts).enumerate() {
            present[self.row.column(index, *member)] = part.get(range.clone());
        }
        present.push(self.p.map(|p| &p[range.clone()]));
        if self.row.q.is_some() {
            present.push(self.q.map(|q| &q[range.clone()]));
        }
        present
    }

    fn zeros(&self) -> Vec<u8> {
        vec![0; self.parts.first().map_or(0, |part| part.len())]
    }

    /// Computes the lost parts from the others and parity.
    pub(crate) fn rebuild(&mut self) -> Option<()> {
        if self.lost.is_empty() {
            return Some(());
        }
        let zeros = self.zeros();
        let take = |index: &usize| {
            let column = self.row.column(*index, self.row.data[*index]);
            (column, std::mem::take(&mut self.parts[*index]))
        };
        let mut wanted: Vec<(usize, &mut [u8])> = self.lost.iter().map(take).collect();
        let present = self.present(&zeros, &(0..zeros.len()));
        let rebuilt = parity::reconstruct(self.row.columns(), &present, &mut wanted);
        for (index, (_, part)) in self.lost.iter().zip(wanted) {
            self.parts[*index] = part;
        }
        rebuilt.ok()
    }

    /// Looks at the parity of what was read or rebuilt; what is wrong is noted, and made right if it can be.
    pub(crate) fn check(&mut self, checking: &Checking) {
        let zeros = self.zeros();
        if self.verdict(&zeros, 0..zeros.len()) == Location::Clean {
            return;
        }
        for start in (0..zeros.len()).step_by(SECTOR as usize) {
            let sector = start..zeros.len().min(start + SECTOR as usize);
            let verdict = self.verdict(&zeros, sector.clone());
            let place = self.offset + start as u64..self.offset + sector.end as u64;
            let columns = self.row.columns();
            match verdict {
                Location::Clean => {}
                Location::Column(column) if column < columns => {
                    let data = (0..self.parts.len())
                        .find(|index| self.row.column(*index, self.row.data[*index]) == column);
                    // A column that holds nothing can't be wrong: it is more than one of the others.
                    let right = data.and_then(|index| Some((index, self.computed(&zeros, column, &sector)?)));
                    if let Some((index, right)) = right {
                        self.parts[index][sector].copy_from_slice(&right);
                        checking.note(Some(self.row.data[index]), place);
                    } else {
                        checking.note(None, place);
                    }
                }
                Location::Column(column) => {
                    let parity = if column == columns { Some(self.row.p) } else { self.row.q };
                    checking.note(parity, place);
                }
                Location::Ambiguous => checking.note(None, place),
            }
        }
    }

    /// What the parity of a part of it says; clean where there is too little of it to say anything.
    fn verdict(&self, zeros: &[u8], range: Range<usize>) -> Location {
        let present = self.present(zeros, &range);
        let columns = self.row.columns();
        let data: Vec<&[u8]> = present[..columns].iter().copied().flatten().collect();
        let fits = |right: Result<bool, parity::ParityError>| match right {
            Ok(false) => Location::Ambiguous,
            _ => Location::Clean,
        };
        match (&present[columns..], self.lost.len()) {
            ([Some(p), Some(q)], 0) => parity::locate(&data, &[p, q]).unwrap_or(Location::Clean),
            // What was rebuilt with P alone is told by Q.
            ([Some(p), Some(q)], 1) => fits(parity::verify(&data, &[p, q])),
            ([Some(p)] | [Some(p), None], 0) => fits(parity::verify(&data, &[p])),
            ([None, Some(q)], 0) => {
                let mut p = vec![0; range.len()];
                let made = parity::generate(&data, &mut [&mut p]);
                fits(made.and_then(|()| parity::verify(&data, &[&p, q])))
            }
            _ => Location::Clean,
        }
    }

    /// What a column must be by P and the others.
    fn computed(&self, zeros: &[u8], column: usize, range: &Range<usize>) -> Option<Vec<u8>> {
        let mut present = self.present(zeros, range);
        present[column] = None;
        let mut right = vec![0; range.len()];
        parity::reconstruct(self.row.columns(), &present, &mut [(column, &mut right)]).ok()?;
        Some(right)
    }
}

impl Section {
    /// Whether a member has nothing to say of this place and what follows.
    pub(crate) fn silent(&self, member: u16, offset: u64) -> bool {
        let source = self.sources.get(usize::from(member)).and_then(Option::as_ref);
        source.is_none_or(|source| source.clean.is_some() || offset >= source.valid)
    }

    /// Fills `buffer` with what is `skip` bytes into `place`, which is array address `address`, and checks the parity of its
    /// sectors; what can't be had is added to `lost`.
    pub(crate) fn recover_checked(
        &self,
        (spot, row): (Spot, &Row),
        address: u64,
        buffer: &mut [u8],
        lost: &mut Vec<Range<u64>>,
        checking: &Checking,
    ) {
        let before = spot.offset % SECTOR;
        let end = (spot.offset + buffer.len() as u64).next_multiple_of(SECTOR);
        let mut wide = vec![0; (end - (spot.offset - before)) as usize];
        let first = Spot { offset: spot.offset - before, ..spot };
        let mut gone = Vec::new();
        // The sector lies within its chunk, and so does what precedes these bytes in it.
        self.sectors((first, row), address - before, &mut wide, &mut gone, checking);
        buffer.copy_from_slice(&wide[before as usize..][..buffer.len()]);
        let own = address..address + buffer.len() as u64;
        for range in gone {
            let range = range.start.max(own.start)..range.end.min(own.end);
            if !range.is_empty() {
                lose(lost, range);
            }
        }
    }

    /// The same for whole sectors.
    fn sectors(
        &self,
        (spot, row): (Spot, &Row),
        address: u64,
        buffer: &mut [u8],
        lost: &mut Vec<Range<u64>>,
        checking: &Checking,
    ) {
        let mut torn = false;
        let mut fetch = |member: u16, bytes: &mut Vec<u8>| {
            bytes.resize(buffer.len(), 0);
            let silent = self.silent(member, spot.offset);
            let there = !silent && self.fetch(Spot { member, ..spot }, 0, bytes, Use::Fresh);
            torn |= !there && !silent;
            there
        };
        let mut data = vec![Vec::new(); row.data.len()];
        let mut gone = Vec::new();
        for (index, (member, bytes)) in row.data.iter().zip(&mut data).enumerate() {
            if !fetch(*member, bytes) {
                gone.push(index);
            }
        }
        let (mut p, mut q) = (Vec::new(), Vec::new());
        let p = fetch(row.p, &mut p).then_some(p);
        let q = row.q.and_then(|member| fetch(member, &mut q).then_some(q));
        let sectors = buffer.len() as u64 / SECTOR;
        if torn && sectors > 1 {
            // Somewhere in it a member can't be read: only there it does not take part.
            let middle = sectors / 2 * SECTOR;
            let (left, right) = buffer.split_at_mut(middle as usize);
            self.sectors((spot, row), address, left, lost, checking);
            let behind = Spot { offset: spot.offset + middle, ..spot };
            self.sectors((behind, row), address + middle, right, lost, checking);
            return;
        }
        let wanted = row.data.iter().position(|member| *member == spot.member);
        let parts = data.iter_mut().map(Vec::as_mut_slice).collect();
        let mut columns =
            Columns { row, offset: spot.offset, parts, lost: &gone, p: p.as_deref(), q: q.as_deref() };
        if let (Some(wanted), Some(())) = (wanted, columns.rebuild()) {
            columns.check(checking);
            buffer.copy_from_slice(&data[wanted]);
        } else {
            self.recover(&Place::Row { spot, row }, 0, address, buffer, lost);
        }
    }
}
