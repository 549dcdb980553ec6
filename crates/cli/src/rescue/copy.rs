//! `coffer rescue copy` and `coffer rescue files`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use device::{Access, BadMap, BlockDevice, DeviceError, DeviceErrorKind, FileDevice, Operation, Rescue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rescue::{Copied, CopyOptions};
use serde::Serialize;

use super::args::{CopyOut, Files};
use super::mapfile::{self, Saver};
use super::misfits::{self, OfArray};
use super::opened::open;
use super::plans::same;
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::signals::Interrupt;
use crate::sizes;

/// A bar on standard error, if that is a terminal.
pub(super) fn bar(size: u64) -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(size), target);
    let template =
        "{prefix} [{bar:30}] {percent:>3}%  {bytes} of {total_bytes} at {bytes_per_sec}, {eta} to go  {msg}";
    // The template is a constant; were it wrong, the library's own look would do.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// `FILE.map`.
pub(super) fn map_beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".map");
    beside.into()
}

/// The file or disk to write to, and whether it is new.
///
/// # Errors
/// It is there and `known` is false: nobody has said that it is a copy to go on with; or it is too small.
fn output(path: &Path, size: u64, known: bool) -> Outcome<(FileDevice, bool)> {
    if !path.exists() {
        return Ok((FileDevice::create(path, size)?, true));
    }
    let device = FileDevice::open(path, Access::ReadWrite)?;
    if device.info().block_device {
        let room = device.size()?;
        if room < size {
            return Err(Failure::refused(format!(
                "{} has {room} bytes, and {size} are needed",
                path.display()
            )));
        }
        return Ok((device, false));
    }
    if !known {
        return Err(Failure::refused(format!(
            "{} exists already, and no map says that it is a copy to go on with; remove it or name its map",
            path.display()
        )));
    }
    if device.size()? != size {
        device.set_size(size)?;
    }
    Ok((device, false))
}

/// Output and map of work that can be gone on with: the output, whether it is new, and what is done already. The map is on disk
/// before the output is, so that the same command goes on after whatever interrupts it.
///
/// # Errors
/// Both are the same file; or as [`output`]; or there is only a map, which says that something was copied.
pub(super) fn begin(to: &Path, map_path: &Path, size: u64) -> Outcome<(FileDevice, bool, BadMap)> {
    if same(to, map_path) {
        return Err(Failure::usage(format!("{} can't be the output and its map as well", to.display())));
    }
    let known = map_path.exists();
    let map = mapfile::read(map_path)?;
    let untouched = map.runs(0..size).all(|(_, status)| status == Rescue::NonTried);
    if !to.exists() && !untouched {
        return Err(Failure::refused(format!(
            "{} says what was copied, but {} is not there; remove the map to begin anew",
            map_path.display(),
            to.display()
        )));
    }
    if !to.exists() {
        mapfile::write(map_path, &map, size)?;
    }
    let (output, new) = output(to, size, known)?;
    Ok((output, new, map))
}

/// A failure of the command as one of a device, to end work from within.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn stopped(failure: Failure) -> DeviceError {
    let kind = DeviceErrorKind::Io(failure.to_string());
    DeviceError { device: "the map file".to_owned(), operation: Operation::Write, offset: 0, length: 0, kind }
}

/// `coffer rescue copy`.
///
/// # Errors
/// The plan can't be used, the output can't be written, bytes are lost (without `--fill`), or it was interrupted.
pub(super) fn copy(context: &Context, args: &CopyOut) -> Outcome {
    #[derive(Serialize)]
    struct Answer<'a> {
        volume: &'a str,
        to: String,
        map: String,
        size: u64,
        lost: u64,
        /// First byte and length of what is lost.
        ranges: Vec<(u64, u64)>,
        /// Where parity did not fit, if the plan looks at that.
        misfits: Vec<OfArray>,
    }
    let interrupt = Interrupt::catch()?;
    let opened = open(&args.plan, None)?;
    let volume = opened.volume(&args.volume)?;
    let from = volume.open().map_err(super::plans::failure)?;
    opened.refuse_member(&args.to)?;
    let map_path = args.map.clone().unwrap_or_else(|| map_beside(&args.to));
    opened.refuse_member(&map_path)?;
    let record = args.record.record.as_deref();
    misfits::check(&opened, record)?;
    if record.is_some_and(|record| same(record, &args.to) || same(record, &map_path)) {
        return Err(Failure::usage("the record can't be the output or its map as well"));
    }
    let size = from.size()?;
    let (to, sparse, mut map) = begin(&args.to, &map_path, size)?;
    let bar = bar(size);
    bar.set_prefix("copy");
    let mut saver = Saver::new(&map_path, size);
    let options = CopyOptions { sparse, fill_zero: args.fill.is_some(), rows: opened.rows(volume) };
    let mut ended = false;
    let copied = rescue::copy_out(&*from, &to, &mut map, options, |map, progress| {
        bar.set_position(progress.position);
        saver.now_and_then(map, || Ok(to.flush()?)).map_err(stopped)?;
        ended = interrupt.is_set();
        Ok(!ended)
    });
    bar.finish_and_clear();
    let saved = to.flush().map_err(Failure::from).and_then(|()| mapfile::write(&map_path, &map, size));
    let misfits = misfits::news(&opened, record);
    copied?;
    saved?;
    let misfits = misfits?;
    if ended {
        return Err(Failure::Interrupted("interrupted; the same command goes on where it was".to_owned()));
    }
    let ranges: Vec<(u64, u64)> =
        map.bad(0..size).map(|(range, _)| (range.start, range.end - range.start)).collect();
    let lost = ranges.iter().map(|(_, length)| length).sum();
    let (to, map) = (args.to.display().to_string(), map_path.display().to_string());
    let answer = Answer { volume: &volume.name, to, map, size, lost, ranges, misfits };
    context.print(&answer, |answer| {
        let Answer { volume, to, map, size, lost, misfits, .. } = answer;
        let size = sizes::short(*size);
        let told = if *lost == 0 {
            format!("copied {volume} to {to}: {size}, nothing lost\n")
        } else {
            format!("copied {volume} to {to}: {size}, {lost} bytes of it are lost; {map} says which\n")
        };
        told + &misfits::words(misfits)
    })?;
    if lost > 0 && args.fill.is_none() { Err(Failure::Told) } else { Ok(()) }
}

/// `coffer rescue files`.
///
/// # Errors
/// The plan can't be used, there is no reader for the file system, or files are lost.
pub(super) fn files(context: &Context, args: &Files) -> Outcome {
    #[derive(Serialize)]
    struct Answer {
        #[serde(flatten)]
        copied: Copied,
        /// Where parity did not fit, if the plan looks at that.
        misfits: Vec<OfArray>,
    }
    let interrupt = Interrupt::catch()?;
    let opened = open(&args.plan, None)?;
    let record = args.record.record.as_deref();
    misfits::check(&opened, record)?;
    let device = opened.volume(&args.volume)?.open().map_err(super::plans::failure)?;
    if args.to.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::refused(format!("{} is not empty", args.to.display())));
    }
    let copied = rescue::copy_files(&device, &args.to, args.fill.is_some(), |_| !interrupt.is_set());
    let copied = copied.map_err(|error| Failure::refused(error.to_string()))?;
    let answer = Answer { copied, misfits: misfits::news(&opened, record)? };
    context.print(&answer, |answer| {
        let Copied { files, bytes, folders, links, lost, skipped, notes } = &answer.copied;
        let mut text = format!(
            "copied {files} files ({}), {folders} folders and {links} links to {}\n",
            sizes::short(*bytes),
            args.to.display()
        );
        for note in notes {
            text += &format!("note: {note}\n");
        }
        for file in skipped {
            text += &format!("left out: {}: {}\n", file.path, file.why);
        }
        for file in lost {
            text += &format!("LOST: {}: {}\n", file.path, file.why);
        }
        text + &misfits::words(&answer.misfits)
    })?;
    if interrupt.is_set() {
        return Err(Failure::Interrupted("interrupted; what was copied until then is whole".to_owned()));
    }
    if answer.copied.lost.is_empty() { Ok(()) } else { Err(Failure::Told) }
}
