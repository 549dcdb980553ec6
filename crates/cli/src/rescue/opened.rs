//! Plans put to use: arrays, overlays over them, and the volumes on them. Also `volumes` and `diff`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use device::{BlockDevice, OverlayDevice};
use rescue::{ArrayDevice, Plan, Rows, Volume, VolumeState};
use serde::Serialize;

use super::args::{Diff, UsePlan, Volumes};
use super::checkers;
use super::plans::{failure, read};
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::sizes;

/// An array of a plan.
pub(super) struct Array {
    /// Its name as a volume.
    pub(super) name: String,
    /// The members, put together.
    pub(super) device: Arc<ArrayDevice>,
    /// Whether it looks at the parity of what is read.
    pub(super) checks_parity: bool,
    /// The same as `device`.
    pub(super) base: Arc<dyn BlockDevice>,
    /// What is written over it.
    pub(super) overlay: Option<Arc<OverlayDevice>>,
}

/// A plan put to use.
pub(super) struct Opened {
    /// The plan.
    pub(super) plan: Plan,
    /// Its arrays.
    pub(super) arrays: Vec<Array>,
    /// What lies on them.
    pub(super) volumes: Vec<Volume>,
}

/// Puts the arrays of a plan together, with overlays in a folder if one is named.
///
/// # Errors
/// The plan can't be read, no array of it can be put together, or an overlay can't be made.
pub(super) fn open(args: &UsePlan, overlay: Option<&Path>) -> Outcome<Opened> {
    open_plan(read(&args.plan)?, args.candidate, overlay)
}

/// As [`open`], of a plan that was read.
///
/// # Errors
/// As there.
pub(super) fn open_plan(plan: Plan, candidate: Option<usize>, overlay: Option<&Path>) -> Outcome<Opened> {
    let mut arrays: Vec<Array> = Vec::new();
    let mut refused = Vec::new();
    for candidate in rescue::chosen(&plan, candidate).map_err(failure)? {
        let taken: Vec<String> = arrays.iter().map(|array| array.name.clone()).collect();
        let name = rescue::volume_name(&candidate.array, &taken);
        match candidate.open() {
            Ok(array) => {
                let device = Arc::new(array);
                let base: Arc<dyn BlockDevice> = Arc::clone(&device) as Arc<dyn BlockDevice>;
                let overlay = overlay.map(|folder| open_overlay(folder, &name, &base)).transpose()?;
                arrays.push(Array { name, device, checks_parity: candidate.check_parity, base, overlay });
            }
            Err(error) => refused.push(error.to_string()),
        }
    }
    if arrays.is_empty() {
        return Err(Failure::refused(refused.join("; ")));
    }
    for why in refused {
        eprintln!("coffer rescue: note: {why}");
    }
    let devices: Vec<(String, Arc<dyn BlockDevice>)> = arrays
        .iter()
        .map(|array| {
            let device: Arc<dyn BlockDevice> = match &array.overlay {
                Some(overlay) => Arc::clone(overlay) as Arc<dyn BlockDevice>,
                None => Arc::clone(&array.base),
            };
            (array.name.clone(), device)
        })
        .collect();
    let volumes = rescue::discover(&devices);
    Ok(Opened { plan, arrays, volumes })
}

impl Opened {
    /// The volume of that name.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn volume(&self, name: &str) -> Outcome<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.volumes.iter().map(|volume| volume.name.as_str()).collect();
            Failure::refused(format!("there is no volume '{name}'; there are: {}", names.join(", ")))
        })
    }

    /// Where the rows of its array begin on a volume that is an array or a partition of one.
    pub(super) fn rows(&self, volume: &Volume) -> Option<Rows> {
        let (mut volume, mut before) = (volume, 0_u64);
        while let Some((parent, start)) = &volume.within {
            before = before.checked_add(*start)?;
            volume = self.volumes.iter().find(|volume| volume.name == *parent)?;
        }
        let array = self.arrays.iter().find(|array| array.name == volume.name)?;
        Some(Rows { width: array.device.row_width()?, before })
    }

    /// Refuses a file to write that is one of the members.
    ///
    /// # Errors
    /// It is one.
    pub(super) fn refuse_member(&self, to: &Path) -> Outcome {
        // Maps of bad sectors are as dear as the disks.
        let mut candidates = self.plan.candidates.clone();
        let mut paths = candidates.iter_mut().flat_map(rescue::Candidate::paths_mut);
        if paths.any(|path| super::plans::same(path, to)) {
            return Err(Failure::refused(format!(
                "{} is one of the disks that are being rescued; nothing is ever written to those",
                to.display()
            )));
        }
        Ok(())
    }
}

/// The file that holds what is written over an array.
fn delta(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.delta"))
}

fn open_overlay(folder: &Path, name: &str, base: &Arc<dyn BlockDevice>) -> Outcome<Arc<OverlayDevice>> {
    fs::create_dir_all(folder).map_err(Failure::io(format!("make {}", folder.display())))?;
    let file = delta(folder, name);
    let base = Arc::clone(base);
    let overlay =
        if file.exists() { OverlayDevice::open(base, file) } else { OverlayDevice::create(base, file) };
    Ok(Arc::new(overlay?))
}

/// `coffer rescue volumes`.
///
/// # Errors
/// The plan can't be used.
pub(super) fn volumes(context: &Context, args: &Volumes) -> Outcome {
    let mut opened = open(&args.plan, None)?;
    if args.check {
        for (name, verdict) in checkers::run(&opened.plan, args.plan.candidate)? {
            if let Some(volume) = opened.volumes.iter_mut().find(|volume| volume.name == name) {
                volume.health = format!("{}; {}", volume.health, verdict.words);
                if !verdict.clean {
                    volume.state = VolumeState::Damaged;
                }
            }
        }
    }
    context.print(&opened.volumes, |volumes| {
        let width = volumes.iter().map(|volume| volume.name.len()).max().unwrap_or(0);
        let line = |volume: &Volume| {
            let holds = if volume.holds.is_empty() {
                "nothing recognised".to_owned()
            } else {
                volume.holds.join(" and ")
            };
            let Volume { name, health, size, .. } = volume;
            let mark = match volume.state {
                VolumeState::Ok => "ok",
                VolumeState::Unknown => "unknown",
                VolumeState::Damaged => "DAMAGED",
            };
            format!("{name:width$}  {:>7}  {mark:7}  {holds}; {health}\n", sizes::short(*size))
        };
        let of = |state| volumes.iter().filter(|volume| volume.state == state).count();
        let (bad, unknown) = (of(VolumeState::Damaged), of(VolumeState::Unknown));
        let unknown = if unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
        let plural = if volumes.len() == 1 { "" } else { "s" };
        let total = format!("{} volume{plural}, {bad} with errors{unknown}\n", volumes.len());
        volumes.iter().map(line).collect::<String>() + &total
    })
}

/// What was changed on one array.
#[derive(Debug, Serialize)]
struct Changes {
    array: String,
    /// First byte and length of each run, bytes.
    changed: Vec<(u64, u64)>,
    bytes: u64,
}

/// `coffer rescue diff`.
///
/// # Errors
/// The plan or an overlay can't be used, or there is none.
pub(super) fn diff(context: &Context, args: &Diff) -> Outcome {
    let plan = read(&args.plan.plan)?;
    let mut names: Vec<String> = Vec::new();
    for candidate in rescue::chosen(&plan, args.plan.candidate).map_err(failure)? {
        names.push(rescue::volume_name(&candidate.array, &names));
    }
    if !names.iter().any(|name| delta(&args.overlay, name).exists()) {
        return Err(Failure::refused(format!(
            "there is no overlay of this plan in {}",
            args.overlay.display()
        )));
    }
    let opened = open(&args.plan, Some(&args.overlay))?;
    let mut all = Vec::new();
    for array in &opened.arrays {
        let Some(overlay) = &array.overlay else { continue };
        let mut changed: Vec<(u64, u64)> = Vec::new();
        for range in overlay.changed() {
            let mut at = range.start;
            while at < range.end {
                let length = (range.end - at).min(4096);
                let (mut old, mut new) = (vec![0; length as usize], vec![0; length as usize]);
                overlay.read(at, &mut new)?;
                // What was lost and is there now was changed as well.
                if array.base.read(at, &mut old).is_err() || old != new {
                    match changed.last_mut() {
                        Some((start, run)) if *start + *run == at => *run += length,
                        _ => changed.push((at, length)),
                    }
                }
                at += length;
            }
        }
        let bytes = changed.iter().map(|(_, length)| length).sum();
        all.push(Changes { array: array.name.clone(), changed, bytes });
    }
    context.print(&all, |all| {
        let of = |changes: &Changes| {
            let runs = changes.changed.iter();
            let runs: String = runs.map(|(at, length)| format!("    {length} bytes at {at}\n")).collect();
            let (array, bytes, count) = (&changes.array, changes.bytes, changes.changed.len());
            format!("{array}: {bytes} bytes changed in {count} places\n{runs}")
        };
        all.iter().map(of).collect()
    })
}
