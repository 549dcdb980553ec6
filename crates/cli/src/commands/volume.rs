//! `coffer volume write` and `coffer volume read`: bytes between a volume and a file or pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use protocol::request::{Reply, Request};

use super::{Context, mismatch};
use crate::args;
use crate::error::{Failure, Outcome};
use crate::names;
use crate::session::{self, Mode, Session};

/// Bytes moved at a time.
const STEP: usize = 1 << 20;

/// Whether a path means standard input or output.
fn is_standard(path: Option<&Path>) -> bool {
    path.is_none_or(|path| path.as_os_str() == "-")
}

/// Size of a volume or snapshot, bytes.
fn size_of(session: &mut Session, name: &str, context: &Context) -> Outcome<u64> {
    match session.call(&Request::VolumeInfo { name: name.to_owned() }, &context.command_line)? {
        Reply::Volume { size, .. } => Ok(size),
        other => mismatch(other),
    }
}

/// `coffer volume write`.
///
/// # Errors
/// The bytes don't fit, which is told before anything is written if it can be known, or can't be read or stored.
pub(super) fn write(context: &Context, args: &args::VolumeWrite) -> Outcome {
    let (pool, name) = names::volume(&args.name)?;
    let (mut from, length): (Box<dyn Read>, Option<u64>) = match args.from.as_deref() {
        Some(path) if !is_standard(Some(path)) => {
            let doing = || format!("read {}", path.display());
            let file = File::open(path).map_err(Failure::io(doing()))?;
            let metadata = file.metadata().map_err(Failure::io(doing()))?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        }
        _ => (Box::new(io::stdin().lock()), None),
    };
    let mut session = session::open(&context.state, &pool, Mode::Change, &context.command_line)?;
    let size = size_of(&mut session, &name, context)?;
    let fits = |length: u64| args.offset.checked_add(length).is_some_and(|end| end <= size);
    if !fits(length.unwrap_or(0)) {
        return Err(Failure::refused(format!(
            "{} bytes at {} reach beyond the end of {}, which has {size} bytes; nothing was written",
            length.unwrap_or(0),
            args.offset,
            args.name
        )));
    }
    let mut buffer = vec![0; STEP];
    let mut offset = args.offset;
    loop {
        let filled = fill(&mut *from, &mut buffer)?;
        if filled == 0 {
            break;
        }
        let data = &buffer[..filled];
        let length = filled as u64;
        if offset + length > size {
            return Err(Failure::refused(format!(
                "there is more to write than {} can hold, which has {size} bytes; {} bytes were written",
                args.name,
                offset - args.offset
            )));
        }
        let name = name.clone();
        // Zeros need no space.
        if data.iter().all(|&byte| byte == 0) {
            session.call(&Request::Discard { name, offset, length }, &context.command_line)?;
        } else {
            session.call_with(&Request::Write { name, offset }, data, &context.command_line)?;
        }
        offset += length;
    }
    session.call(&Request::Flush, &context.command_line)?;
    session.close()
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> Outcome<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("read what is to be written")(error)),
        }
    }
    Ok(filled)
}

/// Where the bytes of a volume go.
enum Sink {
    /// Every byte is written.
    Plain(Box<dyn Write>),
    /// Zeros are left out, and the length is set at the end.
    Sparse(File),
}

impl Sink {
    /// The next bytes; `None` stands for that many zeros that were not even read.
    fn put(&mut self, data: Option<&[u8]>, length: usize) -> io::Result<()> {
        match (self, data) {
            (Self::Sparse(file), data) => match data.filter(|data| data.iter().any(|&byte| byte != 0)) {
                Some(data) => file.write_all(data),
                None => file.seek(SeekFrom::Current(i64::try_from(length).unwrap_or(i64::MAX))).map(drop),
            },
            (Self::Plain(to), Some(data)) => to.write_all(data),
            (Self::Plain(to), None) => io::copy(&mut io::repeat(0).take(length as u64), to).map(drop),
        }
    }

    /// No more bytes.
    fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut to) => to.flush(),
            Self::Sparse(mut file) => {
                let end = file.stream_position()?;
                file.set_len(end)?;
                file.sync_all()
            }
        }
    }
}

/// `coffer volume read`.
///
/// # Errors
/// The range lies beyond the end, the data can't be read, or the file can't be written.
pub(super) fn read(context: &Context, args: &args::VolumeRead) -> Outcome {
    let (pool, name) = names::dataset(&args.name)?;
    // Bad copies that are met on the way are repaired, which changes the pool.
    let mut session = session::open(&context.state, &pool, Mode::Change, &context.command_line)?;
    let size = size_of(&mut session, &name, context)?;
    let end = match args.length {
        Some(length) => args.offset.checked_add(length),
        None => Some(size),
    };
    let Some(end) = end.filter(|&end| end <= size && args.offset <= size) else {
        return Err(Failure::refused(format!(
            "what is to be read reaches beyond the end of {}, which has {size} bytes",
            args.name
        )));
    };
    let mut sink = open_sink(args.to.as_deref())?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
        _ => Failure::io("write what was read")(error),
    };
    let mut offset = args.offset;
    while offset < end {
        for (length, hole) in runs(&mut session, &name, offset, end - offset, context)? {
            let run_end = end.min(offset + length);
            while offset < run_end {
                let step = STEP.min(usize::try_from(run_end - offset).unwrap_or(STEP));
                if hole {
                    sink.put(None, step).map_err(failed)?;
                } else {
                    let request = Request::Read { name: name.clone(), offset, length: step as u32 };
                    let (_, data) = session.call_with(&request, &[], &context.command_line)?;
                    if data.len() != step {
                        return mismatch(Reply::Data);
                    }
                    sink.put(Some(&data), step).map_err(failed)?;
                }
                offset += step as u64;
            }
        }
    }
    sink.finish().map_err(failed)?;
    session.close()
}

/// Where there is data; at least one byte is told of.
fn runs(
    session: &mut Session,
    name: &str,
    offset: u64,
    length: u64,
    context: &Context,
) -> Outcome<Vec<(u64, bool)>> {
    let request = Request::Runs { name: name.to_owned(), offset, length };
    match session.call(&request, &context.command_line)? {
        Reply::Runs(runs) if runs.iter().any(|(length, _)| *length > 0) => Ok(runs),
        Reply::Runs(_) => Ok(vec![(length, false)]),
        other => mismatch(other),
    }
}

/// Opens what is written to.
fn open_sink(to: Option<&Path>) -> Outcome<Sink> {
    let Some(path) = to.filter(|path| !is_standard(Some(path))) else {
        return Ok(Sink::Plain(Box::new(io::stdout().lock())));
    };
    let doing = || format!("write {}", path.display());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(Failure::io(doing()))?;
    let regular = file.metadata().map_err(Failure::io(doing()))?.is_file();
    Ok(if regular { Sink::Sparse(file) } else { Sink::Plain(Box::new(file)) })
}
