//! Piles of disks: the members of four arrays without superblocks, some of which lack one, and four disks that belong to none of them.
//! In half of the piles all disks are of one size. `COFFER_RESCUE_PILES=N` makes that many (2 without), `COFFER_RESCUE_SEED=S`
//! others, `COFFER_RESCUE_PILE=N` only one, whose files are kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use device::Rng;
use rescue::{Candidate, plan, scan};

use crate::arrays::Made;
use crate::{SURE, Verdict, content, images, make, verdict};

const ARRAYS: [&str; 4] = ["a", "b", "c", "d"];

/// How well the disks of piles were told apart.
#[derive(Debug, Default)]
struct Told {
    disks: usize,
    /// They are with all that is theirs, or by themselves, and with nothing else.
    right: usize,
    /// Candidates of disks that don't belong together, and which call themselves right.
    merged: usize,
    arrays: usize,
    /// Right and first, in every byte.
    whole: usize,
    wrong: usize,
}

/// Disks that are members of nothing that is there; `None` without `mke2fs`.
fn strays(folder: &Path, rng: &mut Rng) -> Option<Vec<PathBuf>> {
    let path = |name: &str| folder.join(format!("{name}-stray.img"));
    let size = rng.within(4..12) << 20;
    let mut noise = vec![0; size as usize];
    rng.fill(&mut noise);
    fs::write(path("noise"), noise).unwrap();
    fs::write(path("empty"), vec![0; size as usize]).unwrap();
    fs::write(path("alone"), content::ext4(folder, rng, 16 << 20, None)?).unwrap();
    let lost = make(folder, rng, "e", true)?;
    fs::rename(&lost.paths[0], path("lonely")).unwrap();
    lost.paths[1..].iter().for_each(|path| fs::remove_file(path).unwrap());
    Some(["noise", "empty", "alone", "lonely"].map(path).to_vec())
}

fn paths(candidate: &Candidate) -> BTreeSet<PathBuf> {
    candidate.slots.iter().flatten().map(|slot| slot.path.clone()).collect()
}

/// One pile; `None` if it can't be made.
fn run(seed: u64, keep: bool, told: &mut Told) -> Option<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed);
    let mut arrays: Vec<Made> = Vec::new();
    for tag in ARRAYS {
        let made = make(folder.path(), &mut rng, tag, false)?;
        let tolerated = made.shape.tolerates(made.paths.len() as u16);
        if tolerated > 0 && made.paths.len() > 2 && rng.chance(1, 3) {
            fs::remove_file(&made.paths[rng.below(made.paths.len() as u64) as usize]).unwrap();
        }
        arrays.push(made);
    }
    let strays = strays(folder.path(), &mut rng)?;
    let images = |path: &Path| images(path);
    if rng.chance(1, 2) {
        let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
        let all: Vec<PathBuf> = images(folder.path()).into_iter().map(|image| image.path).collect();
        let most = all.iter().map(size).max().unwrap_or(0);
        for path in &all {
            fs::File::options().write(true).open(path).unwrap().set_len(most).unwrap();
        }
    }
    let images = images(folder.path());
    let start = std::time::Instant::now();
    let plan = plan(&images, &scan(&images));
    let took = start.elapsed().as_secs_f32();
    let there = |made: &Made| -> BTreeSet<PathBuf> {
        made.paths.iter().filter(|path| path.exists()).cloned().collect()
    };
    let origins: Vec<BTreeSet<PathBuf>> =
        arrays.iter().map(there).chain(strays.iter().map(|path| BTreeSet::from([path.clone()]))).collect();
    let merged = |candidate: &&Candidate| !origins.iter().any(|origin| paths(candidate).is_subset(origin));
    let wrong: Vec<&Candidate> =
        plan.candidates.iter().filter(|candidate| candidate.score > SURE).filter(merged).collect();
    let mut odd = Vec::new();
    for (number, origin) in origins.iter().enumerate() {
        let first = plan.candidates.iter().find(|candidate| !paths(candidate).is_disjoint(origin));
        let first = first.map(paths).unwrap_or_default();
        let own = if first.is_subset(origin) { first.len() } else { 0 };
        // What is by itself need not be anything.
        let right = if origin.len() == 1 && first.len() < 2 { 1 } else { own };
        told.right += right;
        told.disks += origin.len();
        let Some(made) = arrays.get(number) else {
            if right == 0 {
                odd.push(format!("{} is taken for a member", strays[number - arrays.len()].display()));
            }
            continue;
        };
        let verdict = verdict(&plan, made, made, &[]);
        told.arrays += 1;
        told.whole += usize::from(verdict == Verdict::Right);
        told.wrong += usize::from(verdict == Verdict::Wrong);
        if right < origin.len() || verdict != Verdict::Right {
            let (shape, members, chunk) = (made.shape, made.paths.len(), made.chunk >> 10);
            odd.push(format!(
                "{} ({shape} of {members}, chunk {chunk} KiB): {right} of {}, {verdict:?}",
                ARRAYS[number],
                origin.len()
            ));
        }
    }
    told.merged += wrong.len();
    println!("seed {seed}: {} disks, {took:.1} s; {}", images.len(), odd.join("; "));
    for candidate in wrong {
        println!("    wrong and sure: {:?}", paths(candidate));
    }
    if keep {
        for made in &arrays {
            println!("{made:?}");
        }
        println!("kept in {}\n{}", folder.keep().display(), rescue::render_plan(&plan));
    }
    Some(())
}

#[test]
fn piles_are_told_apart() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let single = setting("COFFER_RESCUE_PILE");
    let count = setting("COFFER_RESCUE_PILES").unwrap_or(2);
    let base = setting("COFFER_RESCUE_SEED").unwrap_or(1);
    let mut told = Told::default();
    for number in (0..count).filter(|number| single.is_none_or(|single| single == *number)) {
        if run(base * 1_000_000 + 900_000 + number, single.is_some(), &mut told).is_none() {
            println!("without mke2fs there is nothing to make piles of");
            return;
        }
    }
    println!("{told:?}");
    assert_eq!(told.merged, 0, "disks that don't belong together are called right");
    assert!(told.right * 100 >= told.disks * 99 || count < 10 && told.right + 3 >= told.disks, "{told:?}");
}
