//! Arrays that crashed with something in their journal or partial parity log.
//!
//! `COFFER_MD_LOGS=DIR` compares arrays that a real kernel made and crashed (`tests/kernel/logs`): in each folder of it are
//! the members as `disk-N.img`, and what the kernel read after it had replayed the log as `out/truth`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use device::BlockDevice;
use rescue::{Candidate, Image, Plan, plan, scan};

fn planned(paths: &[PathBuf]) -> Plan {
    let images: Vec<Image> = paths.iter().map(|path| Image::open(path).unwrap()).collect();
    plan(&images, &scan(&images))
}

/// Sectors that differ and sectors that are lost, and the first few that differ.
fn compare(candidate: &Candidate, truth: &[u8]) -> (usize, usize, Vec<usize>) {
    const STEP: usize = 64 << 10;
    let array = candidate.open().unwrap();
    assert!(array.size().unwrap() >= truth.len() as u64);
    let (mut wrong, mut gone) = (Vec::new(), 0);
    let mut bytes = vec![0; STEP];
    for at in (0..truth.len()).step_by(STEP) {
        let wanted = &truth[at..truth.len().min(at + STEP)];
        let lost = array.read_around_losses(at as u64, &mut bytes[..wanted.len()]).unwrap();
        let is_lost = |place: usize| lost.iter().any(|range| range.contains(&(place as u64)));
        for (index, (got, wanted)) in bytes.chunks(512).zip(wanted.chunks(512)).enumerate() {
            let place = at + index * 512;
            if is_lost(place) {
                gone += 1;
            } else if got != wanted {
                wrong.push(place / 512);
            }
        }
    }
    (wrong.len(), gone, wrong.into_iter().take(8).collect())
}

fn members(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "img"));
    paths.sort();
    paths
}

#[test]
fn logs_of_the_kernel() {
    let Some(folder) = std::env::var_os("COFFER_MD_LOGS") else { return };
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("out/truth").exists());
    cases.sort();
    let mut bad = 0;
    for case in cases {
        let truth = fs::read(case.join("out/truth")).unwrap();
        let paths = members(&case);
        let all = planned(&paths);
        let best = &all.candidates[0];
        println!("{}: {} {:?}", case.display(), best.score, best.reasons);
        let mut look = |name: &str, candidate: &Candidate, torn: bool| {
            let (wrong, lost, some) = compare(candidate, &truth);
            println!("  {name}: {wrong} sectors wrong {some:?}, {lost} lost");
            bad += usize::from((wrong > 0 && !torn) || lost > 0);
        };
        look("all", best, false);
        let mut plain = best.clone();
        plain.logs = None;
        println!("  without its log: {} sectors wrong", compare(&plain, &truth).0);
        // Without each member: the log has what parity does not.
        for gone in 0..best.slots.len() {
            let left: Vec<PathBuf> = paths
                .iter()
                .filter(|path| best.slots[gone].as_ref().unwrap().path != **path)
                .cloned()
                .collect();
            let without = planned(&left);
            let mut plain = without.candidates[0].clone();
            plain.logs = None;
            // What was being written on the missing member itself is in no partial parity log.
            let torn = best.logs.as_ref().is_some_and(|logs| logs.journal.is_none());
            look(&format!("without slot {gone}"), &without.candidates[0], torn);
            println!("    without its log: {} sectors wrong", compare(&plain, &truth).0);
        }
    }
    assert_eq!(bad, 0);
}
