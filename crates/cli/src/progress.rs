//! Progress of background work on a terminal.

use std::io::IsTerminal;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pool::report::{ScanKind, ScanReport, ScanState};

use crate::error::{Failure, Outcome};
use crate::render;
use crate::sizes;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Where background work stands.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The current or last scan.
    pub(crate) scan: Option<ScanReport>,
    /// There is work to do.
    pub(crate) busy: bool,
    /// The last step failed.
    pub(crate) trouble: Option<String>,
}

/// A bar on standard error, if that is a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that is not shown until there is progress.
    pub(crate) fn new(quiet: bool) -> Self {
        let target = if !quiet && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}%  {msg}");
        // The template is a constant; were it wrong, the library's own look would do.
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    /// Shows where a scan stands.
    pub(crate) fn show(&self, scan: &ScanReport) {
        self.0.set_prefix(match scan.kind {
            ScanKind::Scrub => "scrub",
            ScanKind::Resilver => "resilver",
            ScanKind::Balance => "balance",
            ScanKind::Remove => "removal",
            ScanKind::Convert => "conversion",
            ScanKind::Resize => "resize",
        });
        self.0.set_length(scan.total.max(1));
        self.0.set_position(scan.done.min(scan.total));
        let left =
            scan.eta_seconds.map_or_else(String::new, |left| format!(", {} to go", render::duration(left)));
        self.0.set_message(format!(
            "{} of {} at {}/s{left}",
            sizes::short_bytes(scan.done),
            sizes::short_bytes(scan.total),
            sizes::short_bytes(scan.rate)
        ));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Waits until there is no work left to do, showing how a scan goes; returns the last one.
///
/// # Errors
/// What `look` says, or a step of the work failed; [`Failure::Interrupted`] if the user wants it to end.
pub(crate) fn wait(
    quiet: bool,
    mut look: impl FnMut() -> Outcome<Progress>,
    interrupted: impl Fn() -> bool,
) -> Outcome<Option<ScanReport>> {
    let bar = Bar::new(quiet);
    loop {
        let progress = look()?;
        if let Some(scan) = progress.scan.as_ref().filter(|scan| scan.state == ScanState::Running) {
            bar.show(scan);
        }
        if let Some(why) = progress.trouble {
            return Err(Failure::refused(why));
        }
        if !progress.busy {
            return Ok(progress.scan);
        }
        if interrupted() {
            return Err(Failure::Interrupted(
                "interrupted; the work goes on where it was with 'coffer wait' or 'coffer serve'".to_owned(),
            ));
        }
        thread::sleep(LOOK);
    }
}
