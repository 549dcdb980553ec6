//! Against real arrays: `COFFER_LAB=DIR` names a folder with a folder for each case, with `disk-*.img`, what the array
//! really is in `truth.json`, and what is on it in `MANIFEST.sha256`. `COFFER_LAB_CASE=PART,PART`
//! takes only the cases with one of these in their names. A table is printed; it fails if an original changes, if a wrong answer is called sure, or if a
//! file is copied out with other contents than it had.
//!
//! Whether an answer is right is asked of the bytes: the best candidate's array and the array put together from the
//! truth must be the same, wherever they can be read.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use device::BlockDevice;
use geometry::md::Shape;
use rescue::{ArrayDevice, Candidate, Image, Slot, copy_files, discover, plan, scan};
use serde_json::Value;

/// Candidates with more than this call themselves right.
const SURE: u8 = 50;

/// What came of one case.
struct Row {
    case: String,
    truth: String,
    first: String,
    score: u8,
    tied: usize,
    verdict: &'static str,
    files: String,
    lost: String,
}

/// SHA-256 of files, by the system's own program.
fn sums(files: &[PathBuf]) -> Vec<String> {
    let out = Command::new("sha256sum").args(files).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(|line| line[..64].to_owned()).collect()
}

fn times(files: &[PathBuf]) -> Vec<std::time::SystemTime> {
    files.iter().map(|file| fs::metadata(file).unwrap().modified().unwrap()).collect()
}

/// The array as the truth has it; `None` for a reshape, which the truth tells otherwise.
fn true_candidate(case: &Path, truth: &Value) -> Option<Candidate> {
    if truth["done"].to_string().contains("--grow") {
        return None;
    }
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let level = match truth["level"].as_str()? {
        "linear" => -1,
        text => text.trim_start_matches("raid").parse().ok()?,
    };
    let mut layout = number(&truth["md_sysfs"]["layout"]).unwrap_or(0) as u32;
    if level == 0 && truth["layout"] == "original" {
        layout = 1;
    }
    let mut slots = vec![None; number(&truth["raid_disks"])? as usize];
    for member in truth["members"].as_array()? {
        let path = case.join(member["file"].as_str()?);
        let stale = member["state"].as_str().is_some_and(|state| state.contains("stale"));
        let (Some(role), false, true) = (number(&member["role"]), stale, path.exists()) else { continue };
        let map = PathBuf::from(format!("{}.map", path.display()));
        let map = map.exists().then_some(map);
        let used = number(&truth["md_sysfs"]["component_size"]).filter(|size| *size > 0 && level > 0);
        slots[role as usize] = Some(Slot {
            path,
            map,
            data_offset: number(&member["data_offset"])?,
            size: used.map_or(number(&member["data_size"])?, |kib| kib * 1024),
            valid: None,
            new_data_offset: None,
            clean_by: None,
            doubtful: Vec::new(),
        });
    }
    Some(Candidate {
        array: "truth".to_owned(),
        score: 0,
        reasons: Vec::new(),
        level,
        layout,
        shape: String::new(),
        chunk: number(&truth["chunk_bytes"]).unwrap_or(0),
        slots,
        left_out: Vec::new(),
        reshape: None,
        logs: None,
        check_parity: false,
        overwritten_by: None,
    })
}

/// Bytes that differ, bytes lost of the second, and whether it is no shorter.
fn compare(truth: &ArrayDevice, other: &ArrayDevice) -> (u64, u64, bool) {
    let (size, own) = (truth.size().unwrap(), other.size().unwrap());
    let (mut wrong, mut lost) = (0, 0);
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for at in (0..size.min(own)).step_by(1 << 20) {
        let length = (size.min(own) - at).min(1 << 20) as usize;
        for (device, bytes) in [(truth, &mut a), (other, &mut b)] {
            let gone = device.read_around_losses(at, &mut bytes[..length]).unwrap();
            for range in gone {
                bytes[(range.start - at) as usize..(range.end - at) as usize].fill(0);
                lost += if std::ptr::eq(device, other) { range.end - range.start } else { 0 };
            }
        }
        wrong += a[..length].iter().zip(&b[..length]).filter(|(a, b)| a != b).count() as u64;
    }
    (wrong, lost, own >= size)
}

/// Copies the files of all file systems out; how many are right, wrong, lost, and the names of those lost.
fn files(case: &Path, name: &str, array: ArrayDevice) -> Option<(usize, Vec<String>, usize)> {
    let manifest = fs::read_to_string(case.join("MANIFEST.sha256")).ok()?;
    let wanted: BTreeMap<String, String> = manifest
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (path.trim_start_matches("./").to_owned(), sum.to_owned()))
        .collect();
    let device: Arc<dyn BlockDevice> = Arc::new(array);
    let (mut right, mut wrong) = (0, Vec::new());
    let mut read = false;
    for volume in discover(&[(name.to_owned(), device)]) {
        let Some(device) = &volume.device else { continue };
        let to = tempfile::tempdir().unwrap();
        let Ok(_) = copy_files(device, to.path(), false, |_| true) else { continue };
        read = true;
        for (path, sum) in &wanted {
            let copy = to.path().join(path);
            if copy.is_file() {
                if sums(&[copy]) == [sum.clone()] { right += 1 } else { wrong.push(path.clone()) }
            }
        }
    }
    read.then_some((right, wrong, wanted.len() - right.min(wanted.len())))
}

fn run(case: &Path) -> Row {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    let mut paths: Vec<PathBuf> = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "img"));
    paths.sort();
    let before = (sums(&paths), times(&paths));
    let truth: Value = serde_json::from_str(&fs::read_to_string(case.join("truth.json")).unwrap()).unwrap();
    let images: Vec<Image> = paths.iter().map(|path| Image::open(path).unwrap()).collect();
    let plan = plan(&images, &scan(&images));
    let wanted = true_candidate(case, &truth);
    let shape = |candidate: &Candidate| {
        let shape = Shape::from_codes(candidate.level, candidate.layout).unwrap();
        format!("{shape} {}K", candidate.chunk >> 10)
    };
    let mut row = Row {
        case: name.clone(),
        truth: wanted.as_ref().map_or_else(|| "a reshape".to_owned(), shape),
        first: "none".to_owned(),
        score: 0,
        tied: 0,
        verdict: "NONE",
        files: String::new(),
        lost: String::new(),
    };
    if let Some(best) = plan.candidates.first() {
        row.first = shape(best);
        row.score = best.score;
        row.tied = plan.candidates.iter().filter(|other| other.score == best.score).count();
        let right = |candidate: &Candidate| {
            let wanted = wanted.as_ref()?;
            let (wrong, lost, long) = compare(&wanted.open().unwrap(), &candidate.open().unwrap());
            Some((wrong == 0 && long, lost))
        };
        row.verdict = match right(best) {
            Some((true, lost)) => {
                row.lost = lost.to_string();
                if best.score > SURE { "right" } else { "right, not sure" }
            }
            None => "right by files",
            Some(_) if best.score > SURE => "WRONG",
            Some(_) => {
                let among =
                    plan.candidates[1..].iter().any(|other| right(other).is_some_and(|(right, _)| right));
                if among { "open, among them" } else { "OPEN, NOT AMONG THEM" }
            }
        };
        row.files = match files(case, &name, best.open().unwrap()) {
            Some((right, wrong, lost)) => {
                // What a crash tore the kernel gets wrong as well.
                let torn = truth["check"]["files_wrong_or_unreadable"].to_string();
                let known = truth["check"]["files_wrong_or_unreadable"].as_array().map_or(0, Vec::len);
                let new: Vec<&String> = wrong.iter().filter(|path| !torn.contains(path.as_str())).collect();
                assert!(new.is_empty() || row.score <= SURE, "{name}: came out wrong: {new:?}");
                format!("{right} right, {} wrong, {lost} lost; the kernel loses {known}", wrong.len())
            }
            None => "no reader".to_owned(),
        };
    }
    assert_eq!(before, (sums(&paths), times(&paths)), "{name}: an original changed");
    row
}

#[test]
fn real_arrays() {
    let Some(lab) = std::env::var_os("COFFER_LAB").map(PathBuf::from) else { return };
    let parts = std::env::var("COFFER_LAB_CASE").unwrap_or_default();
    let wanted = |case: &Path| parts.split(',').any(|part| case.to_string_lossy().contains(part));
    let mut cases: Vec<PathBuf> = fs::read_dir(lab).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("truth.json").exists() && wanted(case));
    cases.sort();
    println!("| case | truth | first candidate | score (tied) | verdict | lost bytes | files |");
    println!("|---|---|---|---|---|---|---|");
    let rows: Vec<Row> = cases
        .iter()
        .map(|case| {
            let row = run(case);
            let Row { case, truth, first, score, tied, verdict, lost, files } = &row;
            println!("| {case} | {truth} | {first} | {score} ({tied}) | {verdict} | {lost} | {files} |");
            row
        })
        .collect();
    let right = rows.iter().filter(|row| row.verdict.starts_with("right")).count();
    println!("{right} of {} right and first", rows.len());
    assert!(rows.iter().all(|row| row.verdict != "WRONG"), "a wrong answer is called sure");
}

/// Every layout that a real kernel made (`tests/kernel/layouts`, `COFFER_MD_LAYOUTS=FOLDER`) is read back byte for byte, whole
/// and without any members that its redundancy makes up for.
#[test]
fn layouts_of_the_kernel() {
    let Some(folder) = std::env::var_os("COFFER_MD_LAYOUTS").map(PathBuf::from) else { return };
    let pattern = fs::read(folder.join("in/pattern")).unwrap();
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("sectors").exists());
    cases.sort();
    let mut failed = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let sectors: u64 = fs::read_to_string(case.join("sectors")).unwrap().trim().parse().unwrap();
        let mut paths: Vec<PathBuf> =
            fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "img"));
        paths.sort();
        let images: Vec<Image> = paths.iter().map(|path| Image::open(path).unwrap()).collect();
        let plan = plan(&images, &scan(&images));
        // Without a layout in its superblock a RAID 0 has two candidates; the kernel wrote which.
        let best = plan.candidates.first().unwrap_or_else(|| panic!("{name}: no candidate"));
        let shape = Shape::from_codes(best.level, best.layout).unwrap();
        let tolerated = usize::from(shape.tolerates(best.slots.len() as u16)).min(2);
        let (mut tried, mut wrong) = (0, Vec::new());
        for first in 0..=best.slots.len() {
            for second in first..=best.slots.len() {
                let gone: Vec<usize> =
                    [first, second].into_iter().filter(|slot| *slot < best.slots.len()).collect();
                let different = gone.len() < 2 || first != second;
                if !different || gone.len() > tolerated {
                    continue;
                }
                let mut candidate = best.clone();
                gone.iter().for_each(|slot| candidate.slots[*slot] = None);
                let array = candidate.open().unwrap();
                let mut bytes = vec![0; array.size().unwrap() as usize];
                let lost = array.read_around_losses(0, &mut bytes).unwrap();
                tried += 1;
                let length = bytes.len().min(pattern.len());
                if bytes.len() as u64 != sectors * 512
                    || !lost.is_empty()
                    || bytes[..length] != pattern[..length]
                {
                    wrong.push(gone);
                }
            }
        }
        println!(
            "{name}: {shape}, {} members, {} wrong of {tried} ways to read it",
            best.slots.len(),
            wrong.len()
        );
        if !wrong.is_empty() {
            failed.push((name, wrong));
        }
    }
    assert!(!cases.is_empty() && failed.is_empty(), "of {} cases wrong: {failed:?}", cases.len());
}
