//! Reading stored extents, many at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use geometry::ColumnSet;

use super::straight::PIECE_BYTES;
use super::{Reading, Rows};
use crate::checksum::Checksum;
use crate::chunk::Chunk;
use crate::core::{Core, Workers};
use crate::error::{PoolError, Result};
use crate::types::{DeviceId, Logical};

/// An extent to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) address: Logical,
    /// Stored bytes.
    pub(crate) length: u32,
    pub(crate) checksum: Checksum,
}

/// Rows that are read at once, at most, where columns are gone.
const ROWS_MAX: u64 = 256;

/// Extents of a piece: which, what, memory for it, and its context.
type Extents<'w, C> = Vec<(usize, &'w Want, Vec<u8>, C)>;

/// How far one extent of a batch has come.
enum State<R, C> {
    /// Not there, or not right yet.
    Wanted(C),
    /// Somebody else has its context.
    Away,
    /// Nothing remains to be done.
    Done(Result<R>),
}

impl<R, C> State<R, C> {
    /// The context, of an extent that is still wanted.
    fn context(&mut self) -> Option<C> {
        match std::mem::replace(self, Self::Away) {
            Self::Wanted(context) => Some(context),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<R, C> From<std::result::Result<R, C>> for State<R, C> {
    fn from(outcome: std::result::Result<R, C>) -> Self {
        outcome.map_or_else(Self::Wanted, |made| Self::Done(Ok(made)))
    }
}

impl Core {
    /// Reads one extent, healing what is found damaged.
    ///
    /// # Errors
    /// [`PoolError::Unreadable`] when no combination of what is left matches the checksum.
    pub(crate) fn read_extent(&mut self, want: Want) -> Result<Vec<u8>> {
        self.read_extents(&[want]).pop().unwrap_or(Err(PoolError::NoSpace))
    }

    /// Reads extents (in rising order of address for the best speed), each with its own outcome.
    ///
    /// Their addresses are homes; that of a place where nothing has its home stands for itself.
    pub(crate) fn read_extents(&mut self, wants: &[Want]) -> Vec<Result<Vec<u8>>> {
        self.read_extents_with(wants, vec![(); wants.len()], |(), bytes| bytes)
    }

    /// As [`Core::read_extents`]; what is right is given to `take` with its context, on any thread, and what that makes
    /// of it is the outcome.
    pub(crate) fn read_extents_with<C: Send, R: Send>(
        &mut self,
        wants: &[Want],
        contexts: Vec<C>,
        take: impl Fn(C, Vec<u8>) -> R + Sync,
    ) -> Vec<Result<R>> {
        self.charged.clear();
        let placed: Vec<Want>;
        let wants = if self.remaps.len() == 0 {
            wants
        } else {
            let at_place = |want: &Want| Want { address: self.remaps.place_of(want.address), ..*want };
            placed = wants.iter().map(at_place).collect();
            &placed
        };
        let mut states: Vec<State<R, C>> = contexts.into_iter().map(State::Wanted).collect();
        let mut degraded: BTreeMap<Logical, Vec<usize>> = BTreeMap::new();
        let mut straight = vec![false; wants.len()];
        for (index, (want, state)) in wants.iter().zip(&mut states).enumerate() {
            if let Some(bytes) = self.unwritten_extents.get(&want.address) {
                if bytes.len() == want.length as usize
                    && let Some(context) = state.context()
                {
                    *state = State::Done(Ok(take(context, bytes.to_vec())));
                }
                continue;
            }
            match self.chunk_of(want.address, u64::from(want.length)) {
                Ok(chunk) => {
                    if chunk.has_parity() && !self.all_fresh(chunk, want) {
                        degraded.entry(chunk.address).or_default().push(index);
                    } else {
                        straight[index] = true;
                    }
                }
                Err(error) => *state = State::Done(Err(error)),
            }
        }
        // Where an extent of a parity chunk is degraded, its neighbours in the same batch ride along with its rows.
        for (index, want) in wants.iter().enumerate() {
            if straight[index]
                && let Ok(chunk) = self.chunk_of(want.address, u64::from(want.length))
                && let Some(list) = degraded.get_mut(&chunk.address)
            {
                straight[index] = false;
                list.push(index);
            }
        }
        let straight: Vec<usize> = (0..wants.len()).filter(|&index| straight[index]).collect();
        if !straight.is_empty() {
            let plan = self.plan_straight(&straight.iter().map(|&index| wants[index]).collect::<Vec<_>>());
            let contexts = straight.iter().filter_map(|&index| states[index].context()).collect();
            let read = plan.read(&*self.runner, &self.workers, contexts, &take);
            for (index, outcome) in straight.into_iter().zip(read.extents) {
                states[index] = State::from(outcome);
            }
            for (device, error) in read.failed {
                self.device_failed(device, &error);
            }
        }
        for (chunk, mut indexes) in degraded {
            indexes.sort_by_key(|&index| wants[index].address);
            self.read_degraded(chunk, wants, &indexes, &mut states, &take);
        }
        states
            .into_iter()
            .zip(wants)
            .map(|(state, want)| match state {
                State::Done(outcome) => outcome,
                State::Wanted(context) => self.heal(want).map(|bytes| take(context, bytes)),
                State::Away => Err(PoolError::NoSpace),
            })
            .collect()
    }

    /// The chunk that holds all of a range.
    pub(crate) fn chunk_of(&self, address: Logical, length: u64) -> Result<&Chunk> {
        self.map.at(address).filter(|chunk| address.0 + length <= chunk.end().0).ok_or_else(|| {
            PoolError::Corrupt(format!("{length} bytes at logical address {address} are in no chunk"))
        })
    }

    fn all_fresh(&self, chunk: &Chunk, want: &Want) -> bool {
        let unit = u64::from(chunk.layout.unit());
        chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)).all(|segment| {
            let column = chunk.layout.data_column(segment.cell.row, segment.cell.index);
            self.fresh_placement(chunk, column, segment.cell.row * unit).is_some()
        })
    }

    /// The first usable placement of a column that is fresh at an offset of it.
    pub(super) fn fresh_placement(&self, chunk: &Chunk, column: u16, offset: u64) -> Option<(DeviceId, u64)> {
        let region = (offset / chunk.region_bytes()) as u32;
        let placements = &chunk.columns[usize::from(column)].placements;
        let mut found = None;
        for placement in placements {
            if !placement.stale.contains(region)
                && let Some(device) = self.devices.get(&placement.device)
                && device.usable()
            {
                let place = (placement.device, super::on_device(placement, 0));
                if !device.avoid_reads {
                    return Some(place);
                }
                found.get_or_insert(place);
            }
        }
        found
    }

    /// Whether all of an extent can be read as it was written, from copies that are fresh.
    pub(crate) fn is_straight(&self, want: &Want) -> bool {
        self.chunk_of(want.address, u64::from(want.length))
            .is_ok_and(|chunk| !chunk.has_parity() || self.all_fresh(chunk, want))
    }

    /// Reads extents of one parity chunk by reading whole rows and rebuilding what is gone; those that did not become
    /// right are still wanted afterwards.
    fn read_degraded<C: Send, R: Send>(
        &mut self,
        chunk: Logical,
        wants: &[Want],
        indexes: &[usize],
        states: &mut [State<R, C>],
        take: impl Fn(C, Vec<u8>) -> R + Sync,
    ) {
        let Some(chunk) = self.map.get(chunk).cloned() else { return };
        let all: ColumnSet = ColumnSet::first(chunk.columns.len() as u16);
        let rows_most = if self.on_disks() { ROWS_MAX } else { PIECE_BYTES / chunk.layout.row_bytes() };
        let mut pieces: Vec<(Reading, Extents<'_, C>)> = Vec::new();
        let mut at = 0;
        while at < indexes.len() {
            let rows_of = |index: usize| {
                let want = &wants[index];
                chunk.layout.rows_of(want.address.0 - chunk.address.0, u64::from(want.length))
            };
            let mut rows = rows_of(indexes[at]);
            let mut end = at + 1;
            while end < indexes.len() {
                let next = rows_of(indexes[end]);
                let rows_after = next.end - rows.start;
                // Extents that share a row stay together where they can: it would be read twice.
                if next.start > rows.end
                    || (next.start == rows.end && rows_after > rows_most)
                    || rows_after > ROWS_MAX
                {
                    break;
                }
                rows.end = rows.end.max(next.end);
                end += 1;
            }
            let extents = indexes[at..end].iter().filter_map(|&index| {
                Some((
                    index,
                    &wants[index],
                    self.cache.idle_memory(wants[index].length as usize),
                    states[index].context()?,
                ))
            });
            let extents = extents.collect();
            pieces.push((self.begin_rows(&chunk, rows, &all), extents));
            at = end;
        }
        let trusts = self.is_sabotaged("ignore-checksum");
        let (runner, workers) = (Arc::clone(&self.runner), Arc::clone(&self.workers));
        let spare = Arc::clone(&self.spare);
        // Each thread reads rows, rebuilds and checks them while they are in its processor's cache.
        let alone = pieces.len() == 1;
        let finish = |mut rows: Rows, extents: Extents<'_, C>, workers: &Workers| {
            let missing = rows.missing();
            let whole = missing.is_empty() || rows.rebuild(&chunk, &missing, workers, &spare);
            let outcome: Vec<(usize, State<R, C>)> = extents
                .into_iter()
                .map(|(index, want, buffer, context)| {
                    let offset = want.address.0 - chunk.address.0;
                    let bytes = rows.logical(&chunk, offset, u64::from(want.length)).filter(|_| whole);
                    let bytes = bytes.filter(|bytes| trusts || want.checksum.matches(bytes));
                    let state = match bytes {
                        Some(Cow::Owned(bytes)) => State::Done(Ok(take(context, bytes))),
                        Some(Cow::Borrowed(bytes)) => {
                            let mut own = buffer;
                            own.clear();
                            own.extend_from_slice(bytes);
                            State::Done(Ok(take(context, own)))
                        }
                        None => State::Wanted(context),
                    };
                    (index, state)
                })
                .collect();
            rows.recycle(&spare);
            outcome
        };
        let read = workers.share(pieces, |(mut reading, extents)| {
            reading
                .run(|requests| if alone { runner.run(requests) } else { runner.run_here(requests) }, &spare);
            match reading.rows() {
                Ok(rows) => Ok(finish(rows, extents, if alone { &workers } else { &Workers::NONE })),
                Err(reading) => Err((reading, extents)),
            }
        });
        for piece in read {
            // Where a device failed, other placements are asked.
            let done = piece.unwrap_or_else(|(reading, extents)| {
                let rows = self.end_rows(&chunk, reading);
                finish(rows, extents, &workers)
            });
            done.into_iter().for_each(|(index, state)| states[index] = state);
        }
    }
}
