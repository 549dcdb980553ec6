//! `coffer rescue image`.

use std::ops::Range;

use device::{Access, BlockDevice, FileDevice, Lock};
use rescue::ImageProgress;
use serde::Serialize;

use super::args::TakeImage;
use super::copy::{bar, begin, stopped};
use super::mapfile::{self, Saver};
use super::plans::{failure, read, same};
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::signals::Interrupt;
use crate::sizes;

/// `coffer rescue image`.
///
/// # Errors
/// The disk is in use, the image or its map can't be written, or it was interrupted. Bad sectors are no failure.
pub(super) fn image(context: &Context, args: &TakeImage) -> Outcome {
    #[derive(Serialize)]
    struct Answer {
        to: String,
        map: String,
        wanted: u64,
        rescued: u64,
        bad: u64,
    }
    let interrupt = Interrupt::catch()?;
    if same(&args.device, &args.to) || same(&args.device, &args.map) {
        return Err(Failure::usage("the image and its map can't be the disk itself"));
    }
    let lock = if args.device.is_file() { Lock::Shared } else { Lock::Exclusive };
    let from = FileDevice::open_with(&args.device, Access::ReadOnly, lock)?;
    let size = from.size()?;
    let wanted = wanted(args, size)?;
    let (to, _, mut map) = begin(&args.to, &args.map, size)?;
    let bar = bar(wanted.iter().map(|range| range.end - range.start).sum());
    let mut saver = Saver::new(&args.map, size);
    let mut ended = false;
    let done = rescue::image_disk(&from, &to, &mut map, wanted, |map, progress| {
        bar.set_prefix(progress.phase);
        bar.set_position(progress.rescued);
        bar.set_message(format!("{} bad", sizes::short_bytes(progress.bad)));
        saver.now_and_then(map, || Ok(to.flush()?)).map_err(stopped)?;
        ended = interrupt.is_set();
        Ok(!ended)
    });
    bar.finish_and_clear();
    let saved = to.flush().map_err(Failure::from).and_then(|()| mapfile::write(&args.map, &map, size));
    let ImageProgress { rescued, bad, size: wanted, .. } = done?;
    saved?;
    if ended {
        return Err(Failure::Interrupted("interrupted; the same command goes on where it was".to_owned()));
    }
    let (to, map) = (args.to.display().to_string(), args.map.display().to_string());
    context.print(&Answer { to, map, wanted, rescued, bad }, |answer| {
        let Answer { to, map, wanted, rescued, bad } = answer;
        let (wanted, rescued) = (sizes::short_bytes(*wanted), sizes::short_bytes(*rescued));
        format!("imaged {rescued} of {wanted} to {to}; {bad} bytes are bad, {map} says which\n")
    })
}

/// The whole disk, or what a plan still lacks of it.
fn wanted(args: &TakeImage, size: u64) -> Outcome<Vec<Range<u64>>> {
    let Some(path) = &args.needed_for else {
        let all = 0..size;
        return Ok(vec![all]);
    };
    let plan = read(path)?;
    for candidate in rescue::chosen(&plan, None).map_err(failure)? {
        if let Some(ranges) = rescue::needed(candidate, &args.device).map_err(failure)? {
            let inside = ranges.into_iter().filter(|range| range.start < size);
            return Ok(inside.map(|range| range.start..range.end.min(size)).collect());
        }
    }
    Err(Failure::refused(format!(
        "no candidate of the plan that would be used has {}",
        args.device.display()
    )))
}
