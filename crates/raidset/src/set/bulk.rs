//! Many stripes at a time: long reads, rebuilding rows, comparing parity. Whatever does not go smoothly is done stripe by stripe.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use device::{BlockDevice, DeviceError, Operation};

use super::RaidSet;
use super::io::{Output, Piece, grown};
use super::locks::lock;
use super::members::{Members, Rebuild};
use super::stripe::Units;
use crate::layout::Stripe;

/// Bytes that a job reads at once: few enough to stay in the cache until they have been used.
const PART_BYTES: usize = 2 << 20;
/// Bytes that a job reads under one set of locks: enough for several workers.
const JOB_BYTES: usize = 8 << 20;
/// Stripes that a job locks at once.
const JOB_STRIPES: usize = 128;
/// Workers of a job on disks: while some wait for them, one computes.
const WORKERS: usize = 4;

impl RaidSet {
    /// Reads what can be read of a range as it stands, in one go. False: that did not work, or components have changed meanwhile.
    pub(super) fn read_smoothly(&self, offset: u64, out: &mut [u8]) -> bool {
        let members = self.members();
        let unit_bytes = self.unit_bytes() as u64;
        let stripe_bytes = unit_bytes * u64::from(self.layout().stripe_data_units());
        let mut pieces: Vec<Piece<&mut [u8]>> = Vec::new();
        let mut at = offset;
        let mut rest = out;
        let mut stripe = members.stripe(self.layout(), at / stripe_bytes);
        while !rest.is_empty() {
            if stripe.index != at / stripe_bytes {
                stripe = members.stripe(self.layout(), at / stripe_bytes);
            }
            let (unit, within) = (at % stripe_bytes / unit_bytes, at % unit_bytes);
            let length = (unit_bytes - within).min(rest.len() as u64) as usize;
            let (now, after) = std::mem::take(&mut rest).split_at_mut(length);
            let unit = self.copy_to_read(&stripe, unit as usize);
            let (column, row) = (stripe.column(unit), stripe.row(unit));
            let Some(device) = members.at(column, row) else { return false };
            let offset = self.offset(row, within as usize);
            pieces.push(Piece { column, device: device.clone(), offset, bytes: now, tag: 0 });
            rest = after;
            at += length as u64;
        }
        self.read_pieces(&mut pieces).is_empty() && self.unchanged(&members)
    }

    /// How many stripes of `reads` units each a job takes at once.
    fn job_stripes(&self, reads: usize) -> usize {
        (JOB_BYTES / (self.unit_bytes() * reads.max(1))).clamp(1, JOB_STRIPES)
    }

    /// Runs `work` on parts of some stripes of `reads` units each, which it may do on several at the same time. It gets memory that
    /// it may use.
    fn in_parts<T: Send>(
        &self,
        members: &Members,
        stripes: &[Stripe],
        reads: usize,
        work: impl Fn(&[Stripe], &mut Vec<u8>) -> T + Sync,
    ) -> Vec<T> {
        let size = (PART_BYTES / (self.unit_bytes() * reads.max(1))).max(1);
        let parts: Vec<&[Stripe]> = stripes.chunks(size).collect();
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut memory = self.memory();
            let mut results = Vec::new();
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                results.push(work(part, &mut memory));
            }
            self.keep_memory(memory);
            results
        };
        // What comes from memory is copied side by side anyway, and there is nothing to wait for.
        let waits = members.any_disk() && self.runner.parallelism() > 1;
        let workers = if waits { WORKERS.min(parts.len()) } else { 1 };
        if workers == 1 {
            return worker();
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(worker)).collect();
            let mut results = worker();
            for other in others {
                match other.join() {
                    Ok(more) => results.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            results
        })
    }

    /// Rebuilds the next rows, at most `rows` of them; returns how many were done.
    ///
    /// # Errors
    /// Something cannot be read, or the target not be written.
    pub(super) fn rebuild_rows(&self, rebuild: &Rebuild, rows: u64) -> Result<u64, DeviceError> {
        let column = rebuild.column;
        let begin = rebuild.rows.load(Ordering::Acquire);
        let reads = usize::from(self.layout().stripe_data_units());
        let mut rows = rows.min(self.layout().rows() - begin).min(self.job_stripes(reads) as u64);
        if begin < rebuild.before.rows {
            rows = rows.min(rebuild.before.rows - begin);
        }
        let end = begin + rows;
        // Nothing else than this rebuild changes which rows hold what.
        let before = self.members();
        let stripe_of = |row| before.stripe_of(self.layout(), row, column);
        let mut indices: Vec<u64> = (begin..end).filter_map(stripe_of).collect();
        indices.sort_unstable();
        let _guard = self.locks.lock_list(&indices);
        if rebuild.partial {
            indices.retain(|&stripe| self.missed(column, stripe));
        }
        if begin < rebuild.before.rows {
            let doubtful = |stripe| {
                let map = self.map.as_ref().map(lock);
                map.is_none_or(|map| rebuild.before.doubtful.get(map.region(stripe)))
            };
            indices.retain(|&stripe| doubtful(stripe));
        }
        let members = self.members();
        let stripes: Vec<Stripe> =
            indices.iter().map(|&index| members.stripe(self.layout(), index)).collect();
        let results = self.in_parts(&members, &stripes, reads, |part, memory| {
            self.rebuild_stripes(&members, part, column, &rebuild.target, memory)
        });
        results.into_iter().collect::<Result<(), _>>()?;
        rebuild.rows.store(end, Ordering::Release);
        Ok(rows)
    }

    /// Makes the units that some stripes, which are locked, have in a column, and writes them to `target`.
    fn rebuild_stripes(
        &self,
        members: &Members,
        stripes: &[Stripe],
        column: usize,
        target: &Arc<dyn BlockDevice>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), DeviceError> {
        let unit_bytes = self.unit_bytes();
        let in_column = |stripe: &Stripe| stripe.columns().position(|other| other == column);
        // A unit that is in the free unit of its row now has the same place among the others.
        let unit_of = |stripe: &Stripe| {
            let here = in_column(stripe);
            here.or_else(|| in_column(&self.layout().stripe(stripe.index))).unwrap_or(0)
        };
        // What is read of each stripe: the unit itself if it is somewhere whole, else as many others as it takes.
        let mut sources: Vec<Vec<usize>> = Vec::with_capacity(stripes.len());
        for stripe in stripes {
            let units = Units::of(members, stripe);
            let wanted = unit_of(stripe);
            let count = if self.mirrored() { 1 } else { stripe.data_columns() };
            sources.push(if units.devices[wanted].is_some() {
                vec![wanted]
            } else {
                (0..stripe.width()).filter(|&unit| units.devices[unit].is_some()).take(count).collect()
            });
        }
        let total: usize = sources.iter().map(Vec::len).sum();
        let (read, made) =
            grown(buffer, (total + stripes.len()) * unit_bytes).split_at_mut(total * unit_bytes);
        let mut pieces = Vec::with_capacity(total);
        let mut lanes = read.chunks_mut(unit_bytes);
        for (tag, (stripe, units)) in stripes.iter().zip(&sources).enumerate() {
            for (&unit, bytes) in units.iter().zip(lanes.by_ref()) {
                let (column, row) = (stripe.column(unit), stripe.row(unit));
                let Some(device) = members.at(column, row) else { continue };
                let offset = self.offset(row, 0);
                pieces.push(Piece { column, device: device.clone(), offset, bytes, tag });
            }
        }
        let mut failed: Vec<usize> = self.read_pieces(&mut pieces).into_iter().map(|(tag, _)| tag).collect();
        drop(pieces);
        failed.sort_unstable();
        let mut lanes = read.chunks(unit_bytes);
        for (tag, ((stripe, units), out)) in
            stripes.iter().zip(&sources).zip(made.chunks_mut(unit_bytes)).enumerate()
        {
            let sources: Vec<&[u8]> = lanes.by_ref().take(units.len()).collect();
            let wanted = unit_of(stripe);
            let enough = units[..] == [wanted]
                || units.len() >= if self.mirrored() { 1 } else { stripe.data_columns() };
            if failed.binary_search(&tag).is_ok() || !enough {
                self.make_unit(members, stripe, wanted, out)?;
            } else if let [one] = sources[..]
                && (units[0] == wanted || self.mirrored())
            {
                out.copy_from_slice(one);
            } else {
                let mut present: Vec<Option<&[u8]>> = vec![None; stripe.width()];
                for (&unit, bytes) in units.iter().zip(sources) {
                    present[unit] = Some(bytes);
                }
                self.reconstruct(stripe, &present, &mut [(wanted, out)])?;
            }
        }
        let mut outputs: Vec<_> = stripes
            .iter()
            .zip(made.chunks(unit_bytes))
            .map(|(stripe, bytes)| {
                let offset = self.offset(stripe.row(unit_of(stripe)), 0);
                Piece { column, device: target.clone(), offset, bytes: bytes.into(), tag: 0 }
            })
            .collect();
        self.write_pieces(&mut outputs).into_iter().next().map_or(Ok(()), |failure| Err(failure.error))
    }

    /// Compares the redundancy of some stripes with their data, and corrects it if `repair`; returns how many did not match.
    /// `cursor` moves over those that were done.
    ///
    /// # Errors
    /// A unit is lost or cannot be read: without it there is nothing to compare.
    pub(super) fn check_stripes(&self, cursor: &mut u64, end: u64, repair: bool) -> Result<u64, DeviceError> {
        let width = self.layout().stripe(*cursor).width();
        let end = end.min(*cursor + self.job_stripes(width) as u64);
        let _guard = self.locks.lock_all(*cursor..end);
        let members = self.members();
        let stripes: Vec<Stripe> = (*cursor..end).map(|index| members.stripe(self.layout(), index)).collect();
        let found = self.in_parts(&members, &stripes, width, |part, memory| {
            let (wrong, unread) = self.compare(&members, part, memory);
            if repair {
                self.put_right(&members, part, &wrong, memory)?;
            }
            Ok((wrong.len() as u64, unread))
        });
        let found = found.into_iter().collect::<Result<Vec<_>, DeviceError>>()?;
        let mut wrong = found.iter().map(|(wrong, _)| wrong).sum();
        let unread: Vec<u64> = found.into_iter().flat_map(|(_, unread)| unread).collect();
        for stripe in &stripes {
            if unread.contains(&stripe.index) {
                wrong += u64::from(!self.check_stripe(&members, stripe, repair)?);
            }
            *cursor = stripe.index + 1;
        }
        Ok(wrong)
    }

    /// The stripes of some, all locked, that do not match, and those that cannot all be read. What was read is in `buffer`, one stripe
    /// behind the other.
    fn compare(&self, members: &Members, stripes: &[Stripe], buffer: &mut Vec<u8>) -> (Vec<u64>, Vec<u64>) {
        let unit_bytes = self.unit_bytes();
        let total: usize = stripes.iter().map(Stripe::width).sum();
        let buffer = grown(buffer, total * unit_bytes);
        let mut pieces = Vec::with_capacity(total);
        let mut lanes = buffer.chunks_mut(unit_bytes);
        let mut unread = Vec::new();
        for stripe in stripes {
            for (unit, column) in stripe.columns().enumerate() {
                let (Some(bytes), Some(device)) = (lanes.next(), members.at(column, stripe.row(unit))) else {
                    unread.push(stripe.index);
                    continue;
                };
                let offset = self.offset(stripe.row(unit), 0);
                pieces.push(Piece {
                    column,
                    device: device.clone(),
                    offset,
                    bytes,
                    tag: stripe.index as usize,
                });
            }
        }
        unread.extend(self.read_pieces(&mut pieces).into_iter().map(|(tag, _)| tag as u64));
        drop(pieces);
        let mut lanes = buffer.chunks(unit_bytes);
        let mut wrong = Vec::new();
        for stripe in stripes {
            let units: Vec<&[u8]> = lanes.by_ref().take(stripe.width()).collect();
            if !unread.contains(&stripe.index) && !self.matches(stripe, &units) {
                wrong.push(stripe.index);
            }
        }
        (wrong, unread)
    }

    /// Writes the redundancy that the data of the `wrong` ones of some stripes should have; `bytes` is what [`Self::compare`] has read.
    ///
    /// # Errors
    /// A component fails that the set cannot do without.
    fn put_right(
        &self,
        members: &Members,
        stripes: &[Stripe],
        wrong: &[u64],
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        let unit_bytes = self.unit_bytes();
        let mut lanes = bytes.chunks(unit_bytes);
        let mut pieces: Vec<Output<'_>> = Vec::new();
        for stripe in stripes {
            let units: Vec<&[u8]> = lanes.by_ref().take(stripe.width()).collect();
            if wrong.binary_search(&stripe.index).is_err() {
                continue;
            }
            let (data, found) = units.split_at(stripe.data_columns());
            let mut right = vec![vec![0; unit_bytes]; found.len()];
            let mut outputs: Vec<&mut [u8]> = right.iter_mut().map(Vec::as_mut_slice).collect();
            self.generate(Operation::Write, stripe, data, &mut outputs)?;
            for (unit, (right, found)) in (data.len()..).zip(right.into_iter().zip(found)) {
                if right == *found {
                    continue;
                }
                let (column, row) = (stripe.column(unit), stripe.row(unit));
                let offset = self.offset(row, 0);
                for device in members.also(column, row).into_iter().chain(members.at(column, row)) {
                    let bytes = right.clone().into();
                    pieces.push(Piece { column, device: device.clone(), offset, bytes, tag: 0 });
                }
            }
        }
        for failure in self.write_pieces(&mut pieces) {
            if !self.device_failed(failure.column, &failure.device) {
                return Err(failure.error);
            }
        }
        Ok(())
    }
}
