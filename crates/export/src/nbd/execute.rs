//! Carries out one request on the volume and encodes its reply.

use super::handshake::Session;
use super::protocol::{Command, ErrorNumber, MAX_PAYLOAD, Request, command_flag};
use super::reply::Replies;
use crate::{Run, Target, TargetError};

/// From this many bytes on a read asks first where the holes are, and does not send them.
const SPARSE_READ_MIN: u32 = 32 * 1024;
/// A hole shorter than this is sent as data: a chunk of its own would not pay.
const SPARSE_HOLE_MIN: u64 = 4096;
/// Pieces of one read.
const READ_RUNS_MAX: usize = 256;
/// Runs in one answer about block status.
const STATUS_RUNS_MAX: usize = 4096;

/// Why a request is refused: the number for programs, the words for people.
type Refusal = (ErrorNumber, String);

impl From<TargetError> for ErrorNumber {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Invalid(_) => Self::Invalid,
            TargetError::NoSpace => Self::NoSpace,
            TargetError::Io(_) => Self::Io,
            TargetError::ReadOnly => Self::NotPermitted,
        }
    }
}

fn refused(error: TargetError) -> Refusal {
    let why = error.to_string();
    (error.into(), why)
}

/// Runs `request`, whose payload, if it is a write, is `payload`, and appends the whole reply to `replies`.
pub(super) fn execute(session: &Session, request: &Request, payload: &[u8], replies: &mut Replies) {
    let mark = replies.len();
    let outcome = check(session, request).and_then(|()| perform(session, request, payload, replies));
    if let Err((number, why)) = outcome {
        replies.rewind(mark);
        replies.error(request.cookie, session.structured, number, &why);
    }
}

/// Appends a refusal of the request.
pub(super) fn refuse(session: &Session, request: &Request, why: &str, replies: &mut Replies) {
    replies.error(request.cookie, session.structured, ErrorNumber::Invalid, why);
}

/// Everything that can be said about a request without touching data.
fn check(session: &Session, request: &Request) -> Result<(), Refusal> {
    use command_flag as flag;
    let invalid = |why: &str| Err((ErrorNumber::Invalid, why.to_owned()));
    let target = &session.target;
    let allowed = match request.command {
        Command::Read if session.structured => flag::DF,
        Command::WriteZeroes => flag::NO_HOLE | flag::FAST_ZERO,
        Command::BlockStatus => flag::REQ_ONE,
        Command::Unknown(_) => return invalid("unknown command"),
        _ => 0,
    };
    if request.flags & !(allowed | flag::FUA) != 0 {
        return invalid("a flag that this command does not take");
    }
    let writes = matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
    if writes && target.read_only() {
        return Err(refused(TargetError::ReadOnly));
    }
    if request.command == Command::Flush || request.command == Command::Disconnect {
        return Ok(());
    }
    let size = target.size();
    if request.offset.checked_add(u64::from(request.length)).is_none_or(|end| end > size) {
        let grows = matches!(request.command, Command::Write | Command::WriteZeroes);
        let number = if grows { ErrorNumber::NoSpace } else { ErrorNumber::Invalid };
        return Err((number, format!("beyond the end of the volume, which is at {size}")));
    }
    match request.command {
        Command::Read if request.length > MAX_PAYLOAD => invalid("more than 32 MiB in one read"),
        Command::BlockStatus if !session.allocation => invalid("no metadata context was negotiated"),
        Command::BlockStatus if request.length == 0 => invalid("block status of an empty range"),
        _ => Ok(()),
    }
}

fn perform(
    session: &Session,
    request: &Request,
    payload: &[u8],
    replies: &mut Replies,
) -> Result<(), Refusal> {
    let target = &*session.target;
    let (offset, length) = (request.offset, u64::from(request.length));
    match request.command {
        Command::Read => return read(session, request, replies),
        Command::BlockStatus => return block_status(target, request, replies),
        Command::Write => target.write(offset, payload),
        Command::Flush => target.flush(),
        Command::Trim => target.discard(offset, length),
        Command::WriteZeroes => {
            let keep_allocated = request.has(command_flag::NO_HOLE);
            if request.has(command_flag::FAST_ZERO) && (keep_allocated || !target.cheap_zeroes()) {
                return Err((ErrorNumber::NotSupported, "zeroing is not faster than writing here".into()));
            }
            target.write_zeroes(offset, length, keep_allocated)
        }
        Command::Cache | Command::Disconnect | Command::Unknown(_) => Ok(()),
    }
    .map_err(refused)?;
    let writes = matches!(request.command, Command::Write | Command::Trim | Command::WriteZeroes);
    if writes && request.has(command_flag::FUA) {
        target.flush().map_err(refused)?;
    }
    replies.done(request.cookie);
    Ok(())
}

fn read(session: &Session, request: &Request, replies: &mut Replies) -> Result<(), Refusal> {
    let target = &*session.target;
    let &Request { cookie, offset, length, .. } = request;
    if !session.structured {
        return target.read(offset, replies.simple_data(cookie, length)).map_err(refused);
    }
    if length == 0 {
        replies.nothing(cookie);
        return Ok(());
    }
    // If the map can't be had, the read itself will tell whether anything is wrong.
    let sparse = length >= SPARSE_READ_MIN && !request.has(command_flag::DF);
    let runs = if sparse { target.runs(offset, u64::from(length), READ_RUNS_MAX) } else { Ok(Vec::new()) };
    let runs = runs.unwrap_or_default();
    if !runs.iter().any(|run| run.hole) {
        return target.read(offset, replies.data(cookie, offset, length, true)).map_err(refused);
    }
    let mut at = offset;
    let mut pieces = coalesced(&runs, length).into_iter().peekable();
    while let Some(piece) = pieces.next() {
        let (done, length) = (pieces.peek().is_none(), piece.length as u32);
        if piece.hole {
            replies.hole(cookie, at, length, done);
        } else {
            target.read(at, replies.data(cookie, at, length, done)).map_err(refused)?;
        }
        at += piece.length;
    }
    Ok(())
}

/// Runs that cover `length` bytes exactly, alternate in kind, and have no hole too short to pay.
fn coalesced(runs: &[Run], length: u32) -> Vec<Run> {
    let mut pieces: Vec<Run> = Vec::with_capacity(runs.len() + 1);
    let mut rest = u64::from(length);
    let tail = Run { length: rest, hole: false }; // what the map does not cover is read
    for run in runs.iter().chain([&tail]) {
        let length = run.length.min(rest);
        rest -= length;
        let hole = run.hole && length >= SPARSE_HOLE_MIN;
        match pieces.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.hole == hole => last.length += length,
            _ => pieces.push(Run { length, hole }),
        }
    }
    pieces
}

fn block_status(target: &dyn Target, request: &Request, replies: &mut Replies) -> Result<(), Refusal> {
    let limit = if request.has(command_flag::REQ_ONE) { 1 } else { STATUS_RUNS_MAX };
    let found = target.runs(request.offset, u64::from(request.length), limit).map_err(refused)?;
    let mut runs: Vec<Run> = Vec::with_capacity(found.len().min(limit));
    let mut rest = u64::from(request.length);
    for run in found {
        let length = run.length.min(rest);
        rest -= length;
        let full = runs.len() == limit;
        match runs.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.hole == run.hole => last.length += length,
            _ if full => break,
            _ => runs.push(Run { length, hole: run.hole }),
        }
    }
    if runs.is_empty() {
        // Always true, and the client gets on.
        runs.push(Run { length: u64::from(request.length), hole: false });
    }
    replies.block_status(request.cookie, &runs);
    Ok(())
}
