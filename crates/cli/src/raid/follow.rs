//! Waiting for jobs: with the meter where `-v` or `-S` want it, and by doing them where nobody else does.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use protocol::raid::{Jobs, Part};
use protocol::told::{Told, Wait};
use raidset::raidctl::{Invocation, meter};
use raidset::set::Progress;
use serde_json::json;

use super::Context;
use super::unit::Reach;
use crate::commands::print_bytes;
use crate::error::{Failure, Outcome};
use crate::json;
use crate::signals::Interrupt;

/// How often the meter is drawn.
const DRAW_EVERY: Duration = Duration::from_secs(2);
/// How often a holder is asked.
const LOOK: Duration = Duration::from_millis(100);

type Select = fn(&Jobs) -> Option<Part>;

/// A kind of jobs.
struct Kind {
    title: &'static str,
    part: Select,
    /// Why the last of the kind failed.
    failed: fn(&Jobs) -> Option<&String>,
}

const ALL: [Kind; 3] = [
    Kind {
        title: "Reconstruction status:\n",
        part: |jobs| jobs.reconstruction,
        failed: |jobs| jobs.failed.reconstruction.as_ref(),
    },
    Kind {
        title: "Parity Re-write status:\n",
        part: |jobs| jobs.rewrite,
        failed: |jobs| jobs.failed.rewrite.as_ref(),
    },
    Kind {
        title: "Copyback status:\n",
        part: |jobs| jobs.copyback,
        failed: |jobs| jobs.failed.copyback.as_ref(),
    },
];

/// How what was followed ended.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Another exit code, if that changes it.
    pub(crate) code: Option<u8>,
    /// Why it failed.
    pub(crate) trouble: Option<String>,
}

/// Follows what a command has started.
///
/// # Errors
/// The connection, standard output, or an interruption: jobs that this process does are to be resumed.
pub(crate) fn follow(
    context: &Context,
    reach: &mut Reach,
    told: &Told,
    invocation: &Invocation,
) -> Outcome<End> {
    let Some(wait) = told.wait else { return Ok(End::default()) };
    let interrupt = Interrupt::catch()?;
    // Programs that read JSON get nothing else.
    let shown = (invocation.verbose && !invocation.json) || wait == Wait::All;
    if !shown && !reach.is_local() && wait != Wait::RewriteToTheEnd {
        return Ok(End::default());
    }
    let before = reach.jobs()?;
    let selected = match wait {
        Wait::Reconstruction => &ALL[..1],
        Wait::Rewrite | Wait::RewriteToTheEnd => &ALL[1..2],
        Wait::Copyback => &ALL[2..],
        Wait::All => &ALL[..],
    };
    let mut trouble = None;
    for Kind { title, part, failed } in selected {
        // What a command has started has its title even if it is done at once.
        let at_once = shown && wait != Wait::All;
        if at_once {
            print_bytes(title.as_bytes())?;
        }
        let title = if at_once { "" } else { title };
        let jobs = wait_for(reach, *part, shown.then_some(title), &interrupt)?;
        // What failed before this command has been told.
        if wait != Wait::All || part(&before).is_some() {
            trouble = failed(&jobs).cloned().or(trouble);
        }
    }
    if trouble.is_none() {
        print_bytes(told.last.as_bytes())?;
    }
    // As RAIDframe's, which starts jobs and does not learn of their end: what fails is told, and the exit code is of the start.
    // In the foreground the end is known.
    if let Some(why) = trouble.as_ref().filter(|_| !reach.is_local()) {
        eprintln!("{}: {why}", context.program);
    }
    let code = trouble.as_ref().filter(|_| reach.is_local()).map(|_| 1);
    Ok(End { code, trouble })
}

/// Waits until a job has ended; returns how all of them stand then.
fn wait_for(reach: &mut Reach, select: Select, title: Option<&str>, interrupt: &Interrupt) -> Outcome<Jobs> {
    let began = Instant::now();
    let mut first: Option<Part> = None;
    let mut drawn: Option<Instant> = None;
    let mut tick = 0;
    loop {
        let jobs = reach.progress()?;
        let Some(part) = select(&jobs) else {
            if drawn.is_some() {
                print_bytes(b"\n")?;
            }
            return Ok(jobs);
        };
        let start = *first.get_or_insert(part);
        if let Some(title) = title
            && drawn.is_none_or(|last| last.elapsed() >= DRAW_EVERY)
        {
            if drawn.is_none() {
                print_bytes(title.as_bytes())?;
            }
            let done = part.done.saturating_sub(start.done);
            let left = part.total.saturating_sub(part.done);
            let seconds = if done == 0 {
                0
            } else {
                (began.elapsed().as_secs_f64() * left as f64 / done as f64) as u64
            };
            print_bytes(meter(Progress { done: part.done, total: part.total }, seconds, tick).as_bytes())?;
            tick += 1;
            drawn = Some(Instant::now());
        }
        if interrupt.is_set() {
            let _ = std::io::stdout().flush();
            return Err(Failure::Interrupted(if reach.is_local() {
                "interrupted; the job goes on from here with -S, or while the unit is served".to_owned()
            } else {
                "interrupted; the job goes on in the process that holds the unit".to_owned()
            }));
        }
        if !reach.is_local() {
            thread::sleep(LOOK);
        }
    }
}

/// Waits for a scrub and tells how it went: 1 if something did not match.
///
/// # Errors
/// As [`follow`].
pub(crate) fn scrub(reach: &mut Reach, json: bool) -> Outcome<u8> {
    let interrupt = Interrupt::catch()?;
    let title = (!json).then_some("Scrub status:\n");
    let Jobs { trouble, mismatches, repairs, .. } = wait_for(reach, |jobs| jobs.scrub, title, &interrupt)?;
    // What was not looked at to the end has no result.
    if let Some(why) = trouble {
        return Err(Failure::refused(why));
    }
    let text = if json {
        json::document("raid scrub", &json!({ "mismatches": mismatches, "repairs": repairs }))
            .map_err(|error| Failure::refused(error.to_string()))?
    } else {
        format!("{mismatches} stripes did not match\n{repairs} unreadable places were written anew\n")
    };
    print_bytes(text.as_bytes())?;
    Ok(u8::from(mismatches > 0))
}
