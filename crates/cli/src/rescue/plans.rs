//! `coffer rescue scan` and `coffer rescue plan`.

use std::fs;
use std::path::Path;

use rescue::{Image, Plan, render_plan, render_scan};
use serde::Serialize;

use super::args::{MakePlan, Pile};
use super::checkers;
use super::copy::map_beside;
use crate::commands::Context;
use crate::error::{Failure, Outcome};
use crate::texts;

/// Longest file that is taken for a plan, bytes: more than one with a bitmap of every member takes.
const LONGEST_PLAN: u64 = 256 << 20;

/// A path that could not be used.
#[derive(Debug, Serialize)]
struct Refused {
    path: String,
    why: String,
}

/// Opens what can be opened of a pile.
///
/// # Errors
/// Nothing could be.
fn open(pile: &Pile) -> Outcome<(Vec<Image>, Vec<Refused>)> {
    let (mut images, mut refused) = (Vec::new(), Vec::new());
    for path in pile.path.iter().chain(&pile.backup_file) {
        let map = pile.maps.iter().find(|map| map.image == *path);
        let opened = match map {
            Some(map) => Image::open_with(path, Some(&map.map)),
            None => Image::open(path),
        };
        match opened {
            Ok(image) => images.push(image),
            Err(error) => refused.push(Refused { path: path.display().to_string(), why: why(path, &error) }),
        }
    }
    if let Some(unused) = pile.maps.iter().find(|map| !pile.path.contains(&map.image)) {
        return Err(Failure::usage(format!("a map is given for {}, which is not", unused.image.display())));
    }
    if images.is_empty() {
        let all: Vec<String> = refused.into_iter().map(|refused| refused.why).collect();
        return Err(Failure::refused(all.join("; ")));
    }
    Ok((images, refused))
}

/// Why a path can't be used, with what to do about the usual mistake.
fn why(path: &Path, error: &rescue::RescueError) -> String {
    if path.is_dir() {
        let path = path.display();
        return format!("{path} is a folder; name the images in it, such as {path}/*.img");
    }
    error.to_string()
}

/// `coffer rescue scan`.
///
/// # Errors
/// No path could be opened.
pub(super) fn scan(context: &Context, args: &Pile) -> Outcome {
    #[derive(Serialize)]
    struct Answer {
        #[serde(flatten)]
        scan: rescue::Scan,
        refused: Vec<Refused>,
    }
    let (images, refused) = open(args)?;
    let scan = rescue::scan(&images);
    context.print(&Answer { scan, refused }, |answer| {
        let refused = answer.refused.iter().map(|refused| format!("problem: {}\n", refused.why));
        refused.collect::<String>() + &render_scan(&answer.scan)
    })
}

/// `coffer rescue plan`.
///
/// # Errors
/// No path could be opened, no candidate was found, or the file can't be written.
pub(super) fn plan(context: &Context, args: &MakePlan) -> Outcome {
    let (images, refused) = open(&args.pile)?;
    for refused in &refused {
        eprintln!("coffer {}: note: {}", context.command, refused.why);
    }
    let mut plan = rescue::plan(&images, &rescue::scan(&images));
    // The plan is used from other folders as well.
    let whole = |path: &mut std::path::PathBuf| {
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    };
    plan.candidates.iter_mut().flat_map(rescue::Candidate::paths_mut).for_each(whole);
    if args.check_parity {
        plan.candidates
            .iter_mut()
            .filter(|candidate| candidate.has_parity())
            .for_each(|candidate| candidate.check_parity = true);
    }
    if args.check {
        checkers::rank(&mut plan)?;
    }
    if let Some(save) = &args.save {
        if args.pile.path.iter().chain(&args.pile.backup_file).any(|path| same(path, save)) {
            return Err(Failure::usage("the plan would overwrite one of the images"));
        }
        let beside = args.pile.path.iter().map(|path| map_beside(path));
        let mut maps = beside.chain(args.pile.maps.iter().map(|map| map.map.clone()));
        if save.exists() && maps.any(|map| same(&map, save)) {
            return Err(Failure::usage("the plan would overwrite the map of one of the images"));
        }
        let text = plan.to_text().map_err(failure)?;
        if !args.force {
            refuse_other(save, &text)?;
        }
        fs::write(save, text).map_err(Failure::io(format!("write {}", save.display())))?;
    }
    context.print(&plan, render_plan)?;
    if plan.candidates.is_empty() { Err(Failure::Told) } else { Ok(()) }
}

/// Refuses to write a plan over a file that holds something else: it may have been edited.
///
/// # Errors
/// It does.
fn refuse_other(save: &Path, text: &str) -> Outcome {
    if !save.is_file() || texts::read(save, LONGEST_PLAN).is_ok_and(|old| old == text) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{} exists and is not this plan: it may have been edited; use another name, or -f to overwrite it",
        save.display()
    )))
}

/// Whether two paths lead to the same file or disk, or would if it were made.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    // Of a file that is not there the folder can be told.
    let place = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        Some((path.parent()?.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    match (device::identity(one), device::identity(other)) {
        (Ok(one), Ok(other)) => one == other,
        (Err(_), Err(_)) => place(one).is_some_and(|place_of_one| Some(place_of_one) == place(other)),
        _ => false,
    }
}

/// The plan in a file.
///
/// # Errors
/// It can't be read or is no plan.
pub(super) fn read(path: &Path) -> Outcome<Plan> {
    let text = texts::read(path, LONGEST_PLAN).map_err(Failure::io(format!("read {}", path.display())))?;
    Plan::from_text(&text).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))
}

/// A rescue error as the failure of a command.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn failure(error: rescue::RescueError) -> Failure {
    Failure::refused(error.to_string())
}
