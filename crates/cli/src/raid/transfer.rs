//! `coffer raid read` and `write`: the contents of a unit from and to files, standard input and output.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use protocol::raid::{RaidReply, RaidRequest};

use super::unit::Reach;
use super::{Context, parts, size};
use crate::commands::print_bytes;
use crate::error::{Failure, Outcome};

/// Bytes of one request.
const PIECE: usize = 4 << 20;

/// `coffer raid read`.
#[derive(Debug, Args)]
pub(crate) struct Read {
    /// Where to begin
    #[arg(long, value_parser = size, default_value = "0")]
    offset: u64,
    /// How much to read; to the end unless given
    #[arg(long, value_parser = size)]
    length: Option<u64>,
    /// Write it to this file instead of to standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// The unit
    pub(super) unit: String,
}

/// `coffer raid write`.
#[derive(Debug, Args)]
pub(crate) struct Write {
    /// Where to begin
    #[arg(long, value_parser = size, default_value = "0")]
    offset: u64,
    /// How much to write; all there is unless given
    #[arg(long, value_parser = size)]
    length: Option<u64>,
    /// Read it from this file instead of from standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The unit
    pub(super) unit: String,
}

fn total(reach: &mut Reach) -> Outcome<u64> {
    match reach.call(&RaidRequest::Size, &[])?.0 {
        RaidReply::Size(size) => Ok(size),
        _ => Err(Failure::refused("the process that holds the unit gave an answer to another question")),
    }
}

/// Reads.
///
/// # Errors
/// The range is not all there, the file is a component of a unit, or something can't be read or written.
pub(crate) fn read(context: &Context, number: u32, args: &Read) -> Outcome<u8> {
    let mut reach = context.reach(number)?;
    let size = total(&mut reach)?;
    let length = args.length.unwrap_or(size.saturating_sub(args.offset));
    let end = args.offset.checked_add(length).filter(|end| *end <= size);
    let Some(end) = end else {
        return Err(Failure::refused(format!("raid{number} has {size} bytes: the range is beyond its end")));
    };
    // What is read would be written over the labels and the data that it is read from.
    if let Some(path) = &args.to
        && let Some(user) = parts::user(&context.units, path, None)?
    {
        return Err(Failure::refused(format!(
            "{} is a component of raid{user}: read into another file",
            path.display()
        )));
    }
    let mut to = match &args.to {
        Some(path) => Some(File::create(path).map_err(Failure::io(format!("create {}", path.display())))?),
        None => None,
    };
    let mut at = args.offset;
    while at < end {
        let length = (end - at).min(PIECE as u64) as u32;
        let (_, data) = reach.call(&RaidRequest::Read { offset: at, length }, &[])?;
        match &mut to {
            Some(file) => file.write_all(&data).map_err(Failure::io("write the file"))?,
            None => print_bytes(&data)?,
        }
        at += u64::from(length);
    }
    reach.close().map(|()| 0)
}

/// Writes.
///
/// # Errors
/// As [`read`].
pub(crate) fn write(context: &Context, number: u32, args: &Write) -> Outcome<u8> {
    let mut reach = context.reach(number)?;
    let size = total(&mut reach)?;
    let mut from: Box<dyn io::Read> = match &args.from {
        Some(path) => Box::new(File::open(path).map_err(Failure::io(format!("open {}", path.display())))?),
        None => Box::new(io::stdin()),
    };
    let mut left = args.length.unwrap_or(u64::MAX);
    let mut at = args.offset;
    while left > 0 {
        let mut piece = Vec::new();
        let limit = left.min(PIECE as u64);
        (&mut from).take(limit).read_to_end(&mut piece).map_err(Failure::io("read what to write"))?;
        if piece.is_empty() {
            break;
        }
        if at.checked_add(piece.len() as u64).is_none_or(|end| end > size) {
            let done = reach.close();
            return done.and(Err(Failure::refused(format!(
                "raid{number} has {size} bytes: no more can be written"
            ))));
        }
        reach.call(&RaidRequest::Write { offset: at }, &piece)?;
        at += piece.len() as u64;
        left -= piece.len() as u64;
    }
    reach.call(&RaidRequest::Flush, &[])?;
    reach.close().map(|()| 0)
}
