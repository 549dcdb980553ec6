//! Extents that can be read as they were written: planned with the pool at hand, read and checked without it.
//!
//! What is asked for is cut into pieces. Several threads take them one after another, and each reads a piece, checks it
//! and hands it on while it is in its processor's cache.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::sync::Arc;

use device::{BlockDevice, DeviceError, Op, Request, Runner};

use super::Want;
use crate::core::{Core, Workers};
use crate::types::DeviceId;

/// Stored bytes of a piece: they stay in a processor's own cache beside where they are copied to.
pub(super) const PIECE_BYTES: u64 = 256 << 10;

/// Buffers of one request.
const BUFFERS_MAX: usize = 512;

/// A request of a [`Piece`]: contiguous on its device.
struct Run {
    device: DeviceId,
    handle: Arc<dyn BlockDevice>,
    offset: u64,
    length: u64,
    buffers: usize,
}

/// A part of an extent, and the run that brings it, if any device can.
struct Segment {
    want: usize,
    run: Option<usize>,
    length: usize,
}

/// What one thread reads and checks.
#[derive(Default)]
struct Piece {
    bytes: u64,
    wants: Vec<Want>,
    /// Memory for the extents; empty where there is none yet.
    buffers: Vec<Vec<u8>>,
    runs: Vec<Run>,
    /// In order of extents, and within them of bytes.
    segments: Vec<Segment>,
    /// The open run of each device: requests to it that touch are made one.
    open: BTreeMap<DeviceId, usize>,
}

/// How extents are read whose every unit has a fresh copy: needs nothing of the pool, and can go on beside it.
#[derive(Default)]
pub(crate) struct Straight {
    pieces: Vec<Piece>,
    /// Checksums are not looked at: a defect for the simulator.
    trusts: bool,
}

/// What became of a batch of extents: for each what was made of it, or else its context, and what devices failed.
pub(crate) struct Read<R, C> {
    pub(crate) extents: Vec<Result<R, C>>,
    pub(crate) failed: Vec<(DeviceId, DeviceError)>,
}

impl Piece {
    /// Fills the buffers; those of extents that do not come as a whole are zeros, which shows by their checksums.
    fn read(&mut self, run: impl FnOnce(&mut [Request<'_>])) -> Vec<(DeviceId, DeviceError)> {
        for (buffer, want) in self.buffers.iter_mut().zip(&self.wants) {
            if buffer.is_empty() {
                // Not before: fresh memory is made where it is used.
                *buffer = vec![0; want.length as usize];
            }
        }
        let mut parts: Vec<Vec<IoSliceMut<'_>>> =
            self.runs.iter().map(|run| Vec::with_capacity(run.buffers)).collect();
        let mut segments = self.segments.iter().peekable();
        for (index, buffer) in self.buffers.iter_mut().enumerate() {
            let mut rest: &mut [u8] = buffer;
            while let Some(segment) = segments.next_if(|segment| segment.want == index) {
                let (head, tail) = rest.split_at_mut(segment.length);
                rest = tail;
                if let Some(run) = segment.run {
                    parts[run].push(IoSliceMut::new(head));
                }
            }
        }
        let runs = self.runs.iter().zip(parts);
        let mut requests: Vec<Request<'_>> = runs
            .map(|(run, buffers)| Request::new(&*run.handle, Op::Read { offset: run.offset, buffers }))
            .collect();
        run(&mut requests);
        let results: Vec<_> = requests.into_iter().map(|request| request.result).collect();
        // Memory is used again: what was there before must not pass for what did not come.
        let came = |run: Option<usize>| run.is_some_and(|run| results[run].is_ok());
        for segment in self.segments.iter().filter(|segment| !came(segment.run)) {
            self.buffers[segment.want].fill(0);
        }
        let results = self.runs.iter().zip(results);
        results.filter_map(|(run, result)| Some((run.device, result.err()?))).collect()
    }
}

impl Straight {
    /// Reads and checks. `take` is given each extent that is right with its context, on the thread that checked it.
    pub(crate) fn read<C: Send, R: Send>(
        self,
        runner: &dyn Runner,
        workers: &Workers,
        contexts: Vec<C>,
        take: impl Fn(C, Vec<u8>) -> R + Sync,
    ) -> Read<R, C> {
        let trusts = self.trusts;
        let check = |((want, bytes), context): ((Want, Vec<u8>), C)| {
            if trusts || want.checksum.matches(&bytes) { Ok(take(context, bytes)) } else { Err(context) }
        };
        let mut contexts = contexts.into_iter();
        let mut parts: Vec<(Piece, Vec<C>)> = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            let own = contexts.by_ref().take(piece.wants.len()).collect();
            parts.push((piece, own));
        }
        let alone = parts.len() == 1;
        let read = workers.share(parts, |(mut piece, contexts)| {
            let failed =
                piece.read(|requests| if alone { runner.run(requests) } else { runner.run_here(requests) });
            let items = piece.wants.into_iter().zip(piece.buffers).zip(contexts);
            let checked: Vec<Result<R, C>> = if alone && piece.bytes > PIECE_BYTES {
                workers.map_each(items.collect(), check)
            } else {
                items.map(check).collect()
            };
            (checked, failed)
        });
        let mut all = Read { extents: Vec::new(), failed: Vec::new() };
        for (extents, failed) in read {
            all.extents.extend(extents);
            all.failed.extend(failed);
        }
        all
    }
}

impl Core {
    /// How to read extents that are [straight](Core::is_straight), given by their places.
    pub(crate) fn plan_straight(&mut self, wants: &[Want]) -> Straight {
        // Disks do best with all requests at once; what comes from memory is best read by whoever checks it.
        let most = if self.on_disks() { u64::MAX } else { PIECE_BYTES };
        let trusts = self.is_sabotaged("ignore-checksum");
        let mut plan = Straight { pieces: Vec::new(), trusts };
        for want in wants {
            let length = u64::from(want.length);
            let buffer = self.cache.idle_memory(want.length as usize);
            let mut piece = plan.pieces.pop().unwrap_or_default();
            if piece.bytes > 0 && piece.bytes + length > most {
                plan.pieces.push(std::mem::take(&mut piece));
            }
            self.add_to_piece(want, &mut piece);
            piece.bytes += length;
            piece.wants.push(*want);
            piece.buffers.push(buffer);
            plan.pieces.push(piece);
        }
        plan
    }

    /// Whether any device is a disk, and not a file or memory.
    pub(crate) fn on_disks(&self) -> bool {
        self.devices.values().any(|device| device.open().is_some_and(|handle| handle.info().block_device))
    }

    fn add_to_piece(&self, want: &Want, piece: &mut Piece) {
        let index = piece.wants.len();
        let Ok(chunk) = self.chunk_of(want.address, u64::from(want.length)) else {
            piece.segments.push(Segment { want: index, run: None, length: want.length as usize });
            return;
        };
        let unit = u64::from(chunk.layout.unit());
        for segment in chunk.layout.segments(want.address.0 - chunk.address.0, u64::from(want.length)) {
            let cell = segment.cell;
            let copies = chunk.layout.columns_of(cell.row, cell.index);
            // Spread reads over the copies by address, so that every disk works.
            let turn = (want.address.0 >> 20) as usize % copies.len().max(1);
            let mut in_turn = copies.clone().skip(turn).chain(copies.take(turn));
            let place = in_turn.find_map(|column| self.fresh_placement(chunk, column, cell.row * unit));
            let length = u64::from(segment.length);
            let run = place.and_then(|(device, base)| {
                let offset = base + cell.row * unit + u64::from(cell.within);
                let touching = piece.open.get(&device).copied().filter(|&run| {
                    let run = &piece.runs[run];
                    run.offset + run.length == offset && run.buffers < BUFFERS_MAX
                });
                let run = if let Some(run) = touching {
                    run
                } else {
                    let handle = Arc::clone(self.devices.get(&device)?.open()?);
                    piece.runs.push(Run { device, handle, offset, length: 0, buffers: 0 });
                    piece.open.insert(device, piece.runs.len() - 1);
                    piece.runs.len() - 1
                };
                piece.runs[run].length += length;
                piece.runs[run].buffers += 1;
                Some(run)
            });
            piece.segments.push(Segment { want: index, run, length: segment.length as usize });
        }
    }
}
