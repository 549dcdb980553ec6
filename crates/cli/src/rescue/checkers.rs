//! The file systems' own checkers, run on what a plan makes of the members: through files of a mount, over changes that are
//! thrown away afterwards.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use device::BlockDevice;
use export::{ExportTable, FuseOptions};
use rescue::Plan;

use super::opened::{Opened, open_plan};
use super::targets::Served;
use crate::error::{Failure, Outcome};

/// Candidates that are checked to rank them.
const CANDIDATES_MAX: usize = 4;
/// What a candidate loses if a checker finds errors.
const ERRORS_COST: u8 = 30;

/// What a checker says.
pub(super) struct Verdict {
    /// No errors.
    pub(super) clean: bool,
    /// For people.
    pub(super) words: String,
}

/// A checker: how it is called, first to get the journal replayed.
fn commands(content: &str) -> Option<(&'static str, Vec<Vec<&'static str>>)> {
    match content {
        "ext2" => Some(("e2fsck", vec![vec!["-f", "-n"]])),
        "ext3" | "ext4" => Some(("e2fsck", vec![vec!["-E", "journal_only", "-y"], vec!["-f", "-n"]])),
        "xfs" => Some(("xfs_repair", vec![vec!["-n", "-f"]])),
        "btrfs" => Some(("btrfs", vec![vec!["check", "--readonly"]])),
        _ => None,
    }
}

/// Runs the checkers on the volumes of a plan; volumes without one are left out.
///
/// # Errors
/// The plan can't be used, or nothing can be mounted here.
pub(super) fn run(plan: &Plan, candidate: Option<usize>) -> Outcome<Vec<(String, Verdict)>> {
    let scratch = tempfile::tempdir().map_err(Failure::io("make a temporary folder"))?;
    let (overlays, mount) = (scratch.path().join("overlays"), scratch.path().join("mount"));
    std::fs::create_dir(&mount).map_err(Failure::io("make a temporary folder"))?;
    let opened = open_plan(plan.clone(), candidate, Some(&overlays))?;
    let table = ExportTable::new();
    for volume in &opened.volumes {
        if let Some(device) = &volume.device {
            let device: Arc<dyn BlockDevice> = Arc::clone(device);
            table.insert(&*volume.name, Arc::new(Served::new(device, false)?));
        }
    }
    let options = FuseOptions {
        read_only: false,
        direct_io: true,
        source: "rescue".to_owned(),
        ..FuseOptions::default()
    };
    let mut session = export::mount(&mount, Arc::new(table), &options)
        .map_err(|error| Failure::refused(format!("the checkers need FUSE: {error}")))?;
    let verdicts = ask(&opened, &mount);
    session.stop().map_err(|error| Failure::refused(error.to_string()))?;
    Ok(verdicts)
}

fn ask(opened: &Opened, mount: &Path) -> Vec<(String, Verdict)> {
    let checked = opened.volumes.iter().filter_map(|volume| {
        let (tool, calls) = commands(volume.content.as_deref()?)?;
        volume.device.as_ref()?;
        let file = mount.join(&volume.name);
        let mut verdict = None;
        for arguments in calls {
            let ran = Command::new(tool)
                .args(arguments)
                .arg(&file)
                .stdin(Stdio::null())
                .env("LC_ALL", "C")
                .output();
            verdict = Some(match ran {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
                Err(error) => Verdict { clean: false, words: format!("{tool} can't be run: {error}") },
                Ok(output) if output.status.success() => {
                    Verdict { clean: true, words: format!("{tool} finds no errors") }
                }
                Ok(output) => {
                    let text = [output.stdout, output.stderr].concat();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    // Without a replay the errors are those that the replay would mend.
                    if text.contains("log which is being ignored") {
                        let words = format!(
                            "{tool} can't tell: the log is to be replayed by mounting it on an overlay"
                        );
                        Verdict { clean: true, words }
                    } else {
                        // The first lines tell the version and what is done.
                        let line = text
                            .lines()
                            .rev()
                            .map(str::trim)
                            .find(|line| !line.is_empty())
                            .unwrap_or("no reason");
                        Verdict { clean: false, words: format!("{tool} finds errors: {line}") }
                    }
                }
            });
        }
        Some((volume.name.clone(), verdict?))
    });
    checked.collect()
}

/// Asks the checkers about the best candidates, and ranks them anew.
///
/// # Errors
/// Nothing can be mounted here.
pub(super) fn rank(plan: &mut Plan) -> Outcome {
    for index in 0..plan.candidates.len().min(CANDIDATES_MAX) {
        let verdicts = match run(plan, Some(index + 1)) {
            Ok(verdicts) => verdicts,
            // What can't be put together has no score to lose.
            Err(_) if plan.candidates[index].score == 0 => continue,
            Err(failure) => return Err(failure),
        };
        let candidate = &mut plan.candidates[index];
        if verdicts.iter().any(|(_, verdict)| !verdict.clean) {
            candidate.score = candidate.score.saturating_sub(ERRORS_COST);
        }
        let words = verdicts.into_iter().map(|(name, verdict)| format!("{name}: {}", verdict.words));
        candidate.reasons.extend(words);
    }
    plan.candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    Ok(())
}
