//! Rows of an array that lacks members, read as a whole: each member once, and what is missing computed from the rest.
//!
//! Long reads end within rows; the rows at their ends are kept for a moment, for the reads that go on there.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::sync::{Arc, Mutex, PoisonError};

use geometry::md::{Row, Spot};

use crate::array::{Section, Use};
use crate::checking::{Checking, Columns};

/// Reads of at least this many bytes are taken for parts of longer ones.
const LONG: u64 = 1 << 20;
/// Rows are read in parts of so many bytes of each member, which fit into the processor's cache.
const PART: usize = 128 << 10;
/// Longer rows are not kept, bytes.
const KEPT_MAX: usize = 32 << 20;
/// How many rows are kept.
const ROWS_MAX: usize = 4;

/// A row's bytes, once they are there; empty if it can't be read as a whole.
type Kept = Arc<Mutex<Option<Vec<u8>>>>;

/// Where rows are read, the first of them, and what did not fit if that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) section: &'a Section,
    pub(crate) row: &'a Row,
    pub(crate) checking: Option<&'a Checking>,
}

/// Rows that were read last, by their addresses.
#[derive(Debug, Default)]
pub(crate) struct WholeRows {
    kept: Mutex<VecDeque<(u64, Kept)>>,
}

impl WholeRows {
    /// Fills the beginning of `buffer` from array address `address` in the row on, no more than `most` bytes, for a read of
    /// `length` bytes in all. How many bytes were filled; `None` if the row is to be read in another way.
    pub(crate) fn read(
        &self,
        reading: Reading<'_>,
        address: u64,
        most: u64,
        buffer: &mut [u8],
        length: u64,
    ) -> Option<usize> {
        let Reading { section, row, checking } = reading;
        let width = row.data.len() as u64 * section.geometry.chunk();
        let (stripe, within) = (address / width, address % width);
        let offset = stripe * section.geometry.chunk();
        if most < width - within || length < LONG.min(width) {
            return None;
        }
        let wanted = (width - within).min(buffer.len() as u64) as usize;
        if wanted as u64 == width {
            let rows = (buffer.len() as u64).min(most) / width;
            let all = (rows * width) as usize;
            if rows > 1 && whole_rows(section, stripe, &mut buffer[..all], checking).is_some() {
                return Some(all);
            }
            return whole_row(reading, offset, &mut buffer[..wanted]).then_some(wanted);
        }
        let width = usize::try_from(width).ok().filter(|width| *width <= KEPT_MAX)?;
        let kept = {
            let mut rows = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let known = rows.iter().find(|(known, _)| *known == stripe).map(|(_, kept)| Arc::clone(kept));
            known.unwrap_or_else(|| {
                let kept = Kept::default();
                rows.push_back((stripe, Arc::clone(&kept)));
                if rows.len() > ROWS_MAX {
                    rows.pop_front();
                }
                kept
            })
        };
        let mut bytes = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes.get_or_insert_with(|| {
            let mut bytes = vec![0; width];
            if whole_row(reading, offset, &mut bytes) { bytes } else { Vec::new() }
        });
        let within = within as usize;
        buffer[..wanted].copy_from_slice(bytes.get(within..within + wanted)?);
        Some(wanted)
    }
}

/// Bytes of one member that lie behind each other, and where they go.
struct Run<'a> {
    member: u16,
    offset: u64,
    length: u64,
    parts: Vec<IoSliceMut<'a>>,
}

/// Fills `buffer` with as many rows as fit into it, from the one with this number on: what is needed of each member is read
/// in as few pieces as it can be. `None` if that does not work.
fn whole_rows(section: &Section, first: u64, buffer: &mut [u8], checking: Option<&Checking>) -> Option<()> {
    let chunk = section.geometry.chunk() as usize;
    let width = section.geometry.row(first)?.data.len() * chunk;
    let absent = |member: &u16| section.sources.get(usize::from(*member)).is_none_or(Option::is_none);
    // Which parity each row needs: all there is to check it.
    let needs = |row: &Row| {
        let lost = row.data.iter().filter(|member| absent(member)).count();
        let mut parity = [Some(row.p), row.q].into_iter().flatten().filter(|member| !absent(member));
        if checking.is_some() {
            let all: Vec<u16> = parity.collect();
            return (all.len() >= lost).then_some(all);
        }
        (0..lost).map(|_| parity.next()).collect::<Option<Vec<u16>>>()
    };
    let rows: Vec<&Row> = (first..first + (buffer.len() / width) as u64)
        .map(|stripe| section.geometry.row(stripe))
        .collect::<Option<_>>()?;
    let needed: Vec<Vec<u16>> = rows.iter().map(|row| needs(row)).collect::<Option<_>>()?;
    let mut scratch = vec![0; needed.iter().map(Vec::len).sum::<usize>() * chunk];
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut last: Vec<Option<usize>> = vec![None; section.sources.len()];
    let mut spare = scratch.chunks_exact_mut(chunk);
    for ((index, row), bytes) in rows.iter().enumerate().zip(buffer.chunks_exact_mut(width)) {
        let offset = (first + index as u64) * chunk as u64;
        let data = row.data.iter().copied().zip(bytes.chunks_exact_mut(chunk));
        for (member, part) in data.chain(needed[index].iter().copied().zip(&mut spare)) {
            if absent(&member) {
                continue;
            }
            let known =
                last[usize::from(member)].filter(|run| runs[*run].offset + runs[*run].length == offset);
            if let Some(run) = known {
                runs[run].length += chunk as u64;
                runs[run].parts.push(IoSliceMut::new(part));
            } else {
                last[usize::from(member)] = Some(runs.len());
                runs.push(Run { member, offset, length: chunk as u64, parts: vec![IoSliceMut::new(part)] });
            }
        }
    }
    for Run { member, offset, length, mut parts } in runs {
        let (device, at) = section.place(Spot { member, offset }, length, Use::Fresh)?;
        device.read_vectored(at, &mut parts).ok()?;
    }
    let mut spare = scratch.chunks_exact(chunk);
    for (((index, row), needed), bytes) in
        (first..).zip(&rows).zip(&needed).zip(buffer.chunks_exact_mut(width))
    {
        let parity: Vec<(u16, &[u8])> = needed.iter().copied().zip(&mut spare).collect();
        for start in (0..chunk).step_by(PART) {
            let part = start..chunk.min(start + PART);
            let data = bytes.chunks_exact_mut(chunk).map(|bytes| &mut bytes[part.clone()]).collect();
            let of = |member: u16| {
                parity.iter().find(|(own, _)| *own == member).map(|(_, bytes)| &bytes[part.clone()])
            };
            let lost = (0..row.data.len()).filter(|index| absent(&row.data[*index])).collect::<Vec<_>>();
            let offset = index * chunk as u64 + start as u64;
            let (p, q) = (of(row.p), row.q.and_then(of));
            let mut columns = Columns { row, offset, parts: data, lost: &lost, p, q };
            columns.rebuild()?;
            if let Some(checking) = checking {
                columns.check(checking);
            }
        }
    }
    Some(())
}

/// Fills `buffer` with the data of a row that begins at `offset` on the members; says whether that worked.
fn whole_row(reading: Reading<'_>, offset: u64, buffer: &mut [u8]) -> bool {
    let chunk = reading.section.geometry.chunk() as usize;
    let mut scratch = vec![0; 2 * PART.min(chunk)];
    (0..chunk).step_by(PART).all(|start| {
        let parts = buffer.chunks_exact_mut(chunk).map(|bytes| &mut bytes[start..chunk.min(start + PART)]);
        row_part(reading, offset + start as u64, parts.collect(), &mut scratch)
    })
}

/// The same part of each data member's chunk.
fn row_part(reading: Reading<'_>, offset: u64, mut parts: Vec<&mut [u8]>, scratch: &mut [u8]) -> bool {
    let Reading { section, row, checking } = reading;
    let fetch = |member: u16, part: &mut [u8]| section.fetch(Spot { member, offset }, 0, part, Use::Fresh);
    let length = parts.first().map_or(0, |part| part.len());
    let mut lost = Vec::new();
    for (index, (member, part)) in row.data.iter().zip(&mut parts).enumerate() {
        if !fetch(*member, part) {
            lost.push(index);
        }
    }
    let (p, rest) = scratch.split_at_mut(length);
    let q = &mut rest[..length];
    let has_p = (checking.is_some() || !lost.is_empty()) && fetch(row.p, p);
    let needs_q = checking.is_some() || lost.len() > usize::from(has_p);
    let has_q = needs_q && row.q.is_some_and(|member| fetch(member, q));
    if lost.len() > usize::from(has_p) + usize::from(has_q) {
        return false;
    }
    // What is to be checked is read sector by sector where a member that is there fails.
    let torn = |member: u16| !section.silent(member, offset);
    if checking.is_some()
        && (lost.iter().any(|index| torn(row.data[*index]))
            || !has_p && torn(row.p)
            || !has_q && row.q.is_some_and(torn))
    {
        return false;
    }
    let (p, q) = (has_p.then_some(&*p), has_q.then_some(&*q));
    let mut columns = Columns { row, offset, parts, lost: &lost, p, q };
    if columns.rebuild().is_none() {
        return false;
    }
    if let Some(checking) = checking {
        columns.check(checking);
    }
    true
}
