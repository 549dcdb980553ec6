//! The journal that closes the write hole of levels 4, 5 and 6.
//!
//! A batch of stripes goes: what each component is about to get, on the journal of that same component, flushed -> the places where
//! it belongs. After a power cut every record that is whole on all components that are still there is written again; one that is not had
//! not begun to reach its stripes. So each stripe holds all of a write or nothing of it, also what a lost component makes of it.
//!
//! The journal lies behind the data of each component, bytes from there, rounded up to blocks of 4096 bytes or a sector:
//!
//! | block | what |
//! |---|---|
//! | 0, 1 | heads, written in turn: `COFRJHD1`, CRC-32C of bytes 12 to 4096, u16 version 1, u16 0, i32 serial number, u32 column, u64 epoch |
//! | 2... | the log: records one behind the other |
//!
//! A record takes as much of the log on every component, the most that any of them needs. Its first block, then the bytes:
//!
//! | byte | what |
//! |---|---|
//! | 0 | `COFRJRC1` |
//! | 8 | CRC-32C of the bytes from 12 to 4096 |
//! | 12 | u16 version: 1 |
//! | 14 | u16 number of spans |
//! | 16 | i32 serial number of the set |
//! | 20 | u32 column |
//! | 24 | u64 epoch |
//! | 32 | u64 sequence number |
//! | 40 | u64 where in the log it begins, bytes |
//! | 48 | u64 what it takes of the log, bytes |
//! | 56 | u64 columns that have a part of it, bit i for column i |
//! | 64 | u32 CRC-32C of the bytes that follow |
//! | 72 | spans of 16 bytes: u64 byte of the component, u32 length, u32 0 |
//!
//! When the log is full, everybody's writes are awaited, the components flushed, and the heads get the next epoch: older records
//! do not count any more. The greatest epoch of any head is the set's.

mod replay;

use std::io::IoSlice;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use device::{BlockDevice, DeviceError, Op, Request};

use super::RaidSet;
use super::admin::SetError;
use super::io::{Output, sort};
use super::locks::lock;
use super::members::{Members, same};
use crate::label::PROTECTED_SECTORS;
use crate::layout::Level;

/// Bytes of a head and of a record's first block that count.
const HEAD: usize = 4096;
const HEAD_MAGIC: [u8; 8] = *b"COFRJHD1";
const RECORD_MAGIC: [u8; 8] = *b"COFRJRC1";
const SPANS: usize = 72;
const SPAN: usize = 16;
/// Bytes of each component that a journal takes unless told otherwise.
pub const DEFAULT_JOURNAL: u64 = 8 << 20;

/// A set's journal.
#[derive(Debug, Default)]
pub(super) struct Journal {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the log; 0: there is no journal.
    capacity: u64,
    epoch: u64,
    sequence: u64,
    /// Where the next record goes.
    position: u64,
    /// Records whose stripes are being written.
    in_flight: u32,
}

/// The right to write what a record says to its stripes.
pub(super) struct Ticket<'a>(&'a Journal);

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).in_flight -= 1;
        self.0.idle.notify_all();
    }
}

/// No record is made as long as this is there.
pub(super) struct Joining<'a> {
    _state: MutexGuard<'a, State>,
}

/// One component's part of a record: where its bytes go.
struct Part<'p> {
    column: usize,
    device: Arc<dyn BlockDevice>,
    spans: Vec<(u64, u32)>,
    bytes: Vec<&'p [u8]>,
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn seal(block: &mut [u8]) {
    let sum = crc32c::crc32c(&block[12..HEAD]);
    put(block, 8, &sum.to_le_bytes());
}

impl RaidSet {
    /// Bytes of a block of the journal.
    fn journal_block(&self) -> u64 {
        (HEAD as u64).max(self.sector_size().into())
    }

    /// Where the journal begins on each component, bytes.
    fn journal_start(&self) -> u64 {
        let end = self.data_offset() + self.layout().column_sectors() * u64::from(self.sector_size());
        end.next_multiple_of(self.journal_block())
    }

    fn log_start(&self) -> u64 {
        self.journal_start() + 2 * self.journal_block()
    }

    /// Bytes of the log if the journal has `sectors` sectors behind the data; 0 if that is too little for two stripes.
    fn log_capacity(&self, sectors: u64) -> u64 {
        let data_end = self.data_offset() + self.layout().column_sectors() * u64::from(self.sector_size());
        let end = data_end + sectors * u64::from(self.sector_size());
        let block = self.journal_block();
        let capacity = end.saturating_sub(self.log_start()) / block * block;
        if capacity < 2 * (block + (self.unit_bytes() as u64).next_multiple_of(block)) { 0 } else { capacity }
    }

    /// Most stripes of which a record has room.
    pub(super) fn journal_stripes(&self) -> u64 {
        let capacity = lock(&self.journal.state).capacity;
        let block = self.journal_block();
        match capacity {
            0 => u64::MAX,
            capacity => ((capacity - block) / self.unit_bytes() as u64).max(1),
        }
    }

    /// Bytes of each component that the journal takes; `None` without one.
    pub fn journal(&self) -> Option<u64> {
        let sectors = lock(&self.header).journal_sectors;
        (sectors > 0).then(|| sectors * u64::from(self.sector_size()))
    }

    /// Sectors behind the data that every device in use has.
    fn room_behind(&self, members: &Members) -> Result<u64, DeviceError> {
        let used = self.layout().column_sectors() + PROTECTED_SECTORS;
        let mut room = u64::MAX;
        let spares = members.spares.iter().filter_map(|spare| spare.device.as_ref());
        let rebuild = members.rebuild.as_ref().map(|rebuild| &rebuild.target);
        for device in self.journal_devices(members).map(|(_, device)| device).chain(spares).chain(rebuild) {
            room = room.min((device.size()? / u64::from(self.sector_size())).saturating_sub(used));
        }
        Ok(room)
    }

    /// Asks what [`RaidSet::set_journal`] asks of a journal that is to be made. The sectors that it would have on each component.
    ///
    /// # Errors
    /// As there.
    pub fn may_have_journal(&self) -> Result<u64, SetError> {
        if !journalled(self.layout().level()) {
            return Err(SetError::NoJournal { level: self.layout().level().clone() });
        }
        let sector = u64::from(self.sector_size());
        let room = self.room_behind(&self.members())?;
        let sectors = room.min(DEFAULT_JOURNAL / sector);
        if self.log_capacity(sectors) == 0 {
            return Err(SetError::NoRoom { found: room * sector });
        }
        Ok(sectors)
    }

    /// Gives the set a journal, or takes it away.
    ///
    /// # Errors
    /// The level needs none; there is no room for one behind the data; a component fails.
    pub fn set_journal(&self, on: bool) -> Result<(), SetError> {
        let sector = u64::from(self.sector_size());
        let sectors = if on { self.may_have_journal()? } else { 0 };
        if self.journal() == Some(sectors * sector).filter(|bytes| *bytes > 0) {
            return Ok(());
        }
        self.open();
        self.journal_reset()?;
        let mut state = self.journal_idle();
        let capacity = self.log_capacity(sectors);
        for (_, device) in self.journal_devices(&self.members()) {
            self.wipe_log(&**device, capacity)?;
        }
        state.capacity = capacity;
        if on {
            self.next_epoch(&mut state)?;
            drop(state);
            // Whoever writes without it has begun before. What they write is durable before the components say that there is a journal.
            self.locks.outlast();
            self.flush()?;
        }
        let mut header = lock(&self.header);
        header.journal_sectors = sectors;
        let members = self.members();
        self.write_extension(&mut header, &members);
        Ok(())
    }

    /// Takes the journal of a set that is being made into use; false if there is none.
    pub(super) fn start_journal(&self) -> bool {
        let sectors = lock(&self.header).journal_sectors;
        let mut state = lock(&self.journal.state);
        state.capacity = self.log_capacity(sectors);
        if state.capacity == 0 {
            return false;
        }
        state.epoch = self.greatest_epoch();
        // The first record begins a new epoch.
        state.position = state.capacity;
        true
    }

    /// The devices that hold or are to hold columns.
    fn journal_devices<'m>(
        &self,
        members: &'m Members,
    ) -> impl Iterator<Item = (usize, &'m Arc<dyn BlockDevice>)> {
        (0..self.layout().columns()).filter_map(|column| {
            let rebuild = members.rebuild.as_ref().filter(|rebuild| rebuild.column == column);
            let whole = members.whole(column).and_then(|component| component.device.as_ref());
            Some((column, whole.or(rebuild.map(|rebuild| &rebuild.target))?))
        })
    }

    /// The state, once no record is in flight. Locked after `map` and before `header`, if several are.
    fn journal_idle(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.journal.state);
        while state.in_flight > 0 {
            state = self.journal.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Makes everything durable that records say, and forgets them.
    ///
    /// # Errors
    /// A component fails that the set cannot do without.
    pub(super) fn journal_reset(&self) -> Result<(), DeviceError> {
        self.reset(&mut self.journal_idle())
    }

    fn reset(&self, state: &mut State) -> Result<(), DeviceError> {
        // Nothing is on it after a reset, nor before the first record.
        if state.capacity == 0 || state.position == state.capacity || state.position == 0 {
            return Ok(());
        }
        self.next_epoch(state)
    }

    /// Before a device begins to take what is written to a column: nothing that is on the journal now may count for it.
    /// No record is made before the answer is dropped, which is to be when the device is part of the set.
    ///
    /// # Errors
    /// It cannot be written, or a component fails that the set cannot do without.
    pub(super) fn journal_join(
        &self,
        column: usize,
        device: &Arc<dyn BlockDevice>,
    ) -> Result<Joining<'_>, DeviceError> {
        let mut state = self.journal_idle();
        self.reset(&mut state)?;
        self.wipe_log(&**device, state.capacity)?;
        self.join(state, column, device)
    }

    /// As [`Self::journal_join`], before a device that took part in records is all there is of its column.
    ///
    /// # Errors
    /// As there.
    pub(super) fn journal_take_over(
        &self,
        column: usize,
        device: &Arc<dyn BlockDevice>,
    ) -> Result<Joining<'_>, DeviceError> {
        let mut state = self.journal_idle();
        self.reset(&mut state)?;
        self.join(state, column, device)
    }

    /// Every device has the head of the epoch in whose records it takes part: one day it may be the last that is left.
    fn join<'a>(
        &self,
        state: MutexGuard<'a, State>,
        column: usize,
        device: &Arc<dyn BlockDevice>,
    ) -> Result<Joining<'a>, DeviceError> {
        if state.capacity > 0 {
            self.write_head(state.epoch, column, &**device)?;
        }
        Ok(Joining { _state: state })
    }

    /// Forgets the log because the set gets another serial number.
    pub(super) fn journal_restart(&self) -> Result<(), DeviceError> {
        self.journal_reset()?;
        let mut state = self.journal_idle();
        state.position = state.capacity;
        Ok(())
    }

    fn next_epoch(&self, state: &mut State) -> Result<(), DeviceError> {
        self.flush()?;
        state.epoch += 1;
        let members = self.members();
        let mut result = Ok(());
        for (column, device) in self.journal_devices(&members) {
            if let Err(error) = self.write_head(state.epoch, column, &**device)
                && !self.device_failed(column, device)
            {
                result = Err(error);
            }
        }
        state.position = 0;
        result
    }

    fn write_head(&self, epoch: u64, column: usize, device: &dyn BlockDevice) -> Result<(), DeviceError> {
        let serial = lock(&self.header).serial_number;
        let mut block = vec![0; self.journal_block() as usize];
        put(&mut block, 0, &HEAD_MAGIC);
        put(&mut block, 12, &1_u16.to_le_bytes());
        put(&mut block, 16, &serial.to_le_bytes());
        put(&mut block, 20, &(column as u32).to_le_bytes());
        put(&mut block, 24, &epoch.to_le_bytes());
        seal(&mut block);
        let slot = self.journal_start() + epoch % 2 * self.journal_block();
        device.write(slot, &block)?;
        device.flush()
    }

    /// Puts what is about to be written on the journal, if there is one. Pieces of components that fail at that are dropped.
    ///
    /// # Errors
    /// A component failed that the set cannot do without. Nothing may be written then.
    pub(super) fn journal_record(
        &self,
        pieces: &mut Vec<Output<'_>>,
    ) -> Result<Option<Ticket<'_>>, DeviceError> {
        if lock(&self.journal.state).capacity == 0 || pieces.is_empty() {
            return Ok(None);
        }
        sort(pieces);
        let parts = split(pieces);
        let block = self.journal_block();
        let longest = parts.iter().map(|part| part.bytes.iter().map(|bytes| bytes.len() as u64).sum()).max();
        let length = block + longest.unwrap_or(0_u64).next_multiple_of(block);
        let (ticket, epoch, sequence, position) = {
            let mut state = lock(&self.journal.state);
            loop {
                if state.capacity == 0 {
                    return Ok(None);
                }
                if state.position + length <= state.capacity {
                    break;
                }
                if state.in_flight == 0 {
                    self.next_epoch(&mut state)?;
                } else {
                    state = self.journal.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let position = state.position;
            state.position += length;
            state.sequence += 1;
            state.in_flight += 1;
            (Ticket(&self.journal), state.epoch, state.sequence, position)
        };
        let participants = parts.iter().fold(0_u64, |bits, part| bits | 1 << part.column);
        let serial = lock(&self.header).serial_number;
        let heads: Vec<Vec<u8>> = parts
            .iter()
            .map(|part| {
                let mut head = vec![0; block as usize];
                put(&mut head, 0, &RECORD_MAGIC);
                put(&mut head, 12, &1_u16.to_le_bytes());
                put(&mut head, 14, &(part.spans.len() as u16).to_le_bytes());
                put(&mut head, 16, &serial.to_le_bytes());
                put(&mut head, 20, &(part.column as u32).to_le_bytes());
                for (at, number) in
                    [(24, epoch), (32, sequence), (40, position), (48, length), (56, participants)]
                {
                    put(&mut head, at, &number.to_le_bytes());
                }
                let sum = part.bytes.iter().fold(0, |sum, bytes| crc32c::crc32c_append(sum, bytes));
                put(&mut head, 64, &sum.to_le_bytes());
                for (index, (offset, length)) in part.spans.iter().enumerate() {
                    put(&mut head, SPANS + index * SPAN, &offset.to_le_bytes());
                    put(&mut head, SPANS + index * SPAN + 8, &length.to_le_bytes());
                }
                seal(&mut head);
                head
            })
            .collect();
        let offset = self.log_start() + position;
        let mut failed: Vec<(usize, Arc<dyn BlockDevice>, DeviceError)> = Vec::new();
        for flush in [false, true] {
            let mut requests: Vec<Request<'_>> = parts
                .iter()
                .zip(&heads)
                .map(|(part, head)| {
                    let mut buffers = vec![IoSlice::new(head)];
                    buffers.extend(part.bytes.iter().map(|bytes| IoSlice::new(bytes)));
                    let op = if flush { Op::Flush } else { Op::Write { offset, buffers } };
                    Request::new(&*part.device, op)
                })
                .collect();
            self.runner.run(&mut requests);
            let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
            failed.extend(
                parts
                    .iter()
                    .zip(results)
                    .filter_map(|(part, result)| Some((part.column, part.device.clone(), result.err()?))),
            );
        }
        drop(parts);
        for (column, device, error) in failed {
            if !self.device_failed(column, &device) {
                drop(ticket);
                self.journal_disown();
                return Err(error);
            }
            pieces.retain(|piece| piece.column != column || !same(&piece.device, &device));
        }
        Ok(Some(ticket))
    }

    /// A record was not carried out to the end: it must not be after a power cut either, when stripes have moved on.
    pub(super) fn journal_disown(&self) {
        if self.journal().is_some() {
            self.note_parity(false);
        }
        // What fails here fails the next write, too.
        let _ = self.journal_reset();
    }
}

/// Whether a level has a write hole: those with parity do.
pub(super) fn journalled(level: &Level) -> bool {
    !matches!(level, Level::Raid0) && !level.mirrored()
}

/// What each component gets. `pieces` are sorted by column, device and offset.
fn split<'p>(pieces: &'p [Output<'_>]) -> Vec<Part<'p>> {
    let mut parts: Vec<Part<'p>> = Vec::new();
    for piece in pieces {
        let same = |part: &Part<'_>| part.column == piece.column && same(&part.device, &piece.device);
        if !parts.last().is_some_and(same) {
            let device = piece.device.clone();
            parts.push(Part { column: piece.column, device, spans: Vec::new(), bytes: Vec::new() });
        }
        // There is a last one now.
        let Some(part) = parts.last_mut() else { continue };
        let length = piece.bytes.len() as u32;
        match part.spans.last_mut() {
            Some((offset, before)) if *offset + u64::from(*before) == piece.offset => *before += length,
            _ => part.spans.push((piece.offset, length)),
        }
        part.bytes.push(&piece.bytes);
    }
    parts
}
