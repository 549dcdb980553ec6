//! Members that hold no block that knows its address: each is tried in the slots that are empty in an array that is known without
//! it.

use std::collections::BTreeSet;

use geometry::md::Shape;

use super::fit::{self, Fit};
use super::gather::{Gathered, Witness};
use super::{ROWS, rank};
use crate::{Candidate, Image, content, score};

/// Structures that must come out right with a member, or wrong with something else in its place.
const TELLING: u32 = 3;
/// Rows of which parity must fit to prove a member.
const ROWS_LEAST: u64 = 8;
/// Something that is surely not the member: another one from so many bytes further on.
const ASIDE: u64 = 4096;

/// How an array does with some members in its slots.
struct Trial {
    candidate: Candidate,
    checks: content::Checks,
    /// Rows in which parity fits, and in which it does not.
    rows: (u64, u64),
}

impl Trial {
    fn of(pile: &[&Image], sizes: &[u64], fit: &Fit, addresses: usize, gathered: &Gathered) -> Option<Self> {
        let candidate = rank(pile, sizes, fit, addresses, gathered)?.candidate;
        let array = candidate.open_among(pile).ok()?;
        let rows = array.sample_parity(ROWS).unwrap_or_default();
        Some(Self { candidate, checks: content::check(&array), rows })
    }
}

/// What it takes to try other members in a candidate's slots.
struct Bench<'a> {
    pile: Vec<&'a Image>,
    sizes: Vec<u64>,
    witnesses: Vec<Witness>,
    addresses: usize,
    gathered: &'a Gathered,
}

impl<'a> Bench<'a> {
    /// For a candidate whose members are among these images; it comes with the fit that the candidate is.
    fn of(
        images: &[&'a Image],
        pile: &[usize],
        best: &Candidate,
        gathered: &'a Gathered,
    ) -> Option<(Self, Fit)> {
        let opened: Vec<&Image> = pile.iter().map(|image| images[*image]).collect();
        let shape = Shape::from_codes(best.level, best.layout).ok().filter(|shape| *shape != Shape::Raid1)?;
        let place = |slot: &crate::Slot| {
            let image = opened.iter().position(|image| slot.is_on(image))?;
            Some((image, slot.data_offset - opened[image].start))
        };
        let mut fit = Fit {
            shape,
            chunk: best.chunk,
            slots: best.slots.iter().map(|slot| place(slot.as_ref()?)).collect(),
            used: best.slots.iter().flatten().map(|slot| slot.size).min(),
            explained: 0,
        };
        let witnesses = gathered.witnesses.iter().filter_map(|witness| {
            let image = pile.iter().position(|image| *image == witness.image)?;
            Some(Witness { image, ..*witness })
        });
        let witnesses: Vec<Witness> = witnesses.collect();
        fit.explained = fit::explained(&fit, &witnesses, fit.used?);
        let addresses = witnesses.iter().map(|witness| witness.address).collect::<BTreeSet<u64>>().len();
        let sizes = opened.iter().map(|image| image.device.size().unwrap_or(0)).collect();
        Some((Self { pile: opened, sizes, witnesses, addresses, gathered }, fit))
    }

    fn attempt(&self, fit: &Fit) -> Option<Trial> {
        Trial::of(&self.pile, &self.sizes, fit, self.addresses, self.gathered)
    }
}

/// The array with silent ones of these images in its empty slots, as far as it is certain that they belong there.
pub(super) fn filled(
    images: &[&Image],
    pile: &[usize],
    best: &Candidate,
    gathered: &Gathered,
) -> Option<Candidate> {
    let (bench, mut fit) = Bench::of(images, pile, best, gathered)?;
    let mut known = bench.attempt(&fit)?;
    let before = fit.slots.iter().flatten().count();
    while let Some((better, trial)) = next(&fit, &known, &bench) {
        (fit, known) = (better, trial);
    }
    (fit.slots.iter().flatten().count() > before).then(|| score::scored(known.candidate, false, &bench.pile))
}

/// The members of an array that nothing speaks for: no block that knows its address lies on them where it ought to, redundancy
/// does not prove them, and with something else in their place all would be as right.
pub(super) fn strangers(
    images: &[&Image],
    pile: &[usize],
    best: &Candidate,
    gathered: &Gathered,
) -> Vec<usize> {
    let Some((bench, fit)) = Bench::of(images, pile, best, gathered) else { return Vec::new() };
    let Some(known) = bench.attempt(&fit) else { return Vec::new() };
    if known.rows.0 >= ROWS_LEAST && known.rows.1 * 20 <= known.rows.0 {
        return Vec::new();
    }
    let speaks_for = |image: usize| {
        let own: Vec<Witness> = bench.witnesses.iter().copied().filter(|own| own.image == image).collect();
        fit::explained(&fit, &own, fit.used.unwrap_or(0)) > 0
    };
    let is_strange = |slot: usize| {
        let (image, offset) = fit.slots[slot]?;
        if speaks_for(image) {
            return None;
        }
        let mut other = fit.clone();
        other.slots[slot] = Some((image, offset + ASIDE));
        let trial = bench.attempt(&other)?;
        let same = trial.checks.right >= known.checks.right && trial.checks.wrong <= known.checks.wrong;
        same.then_some(pile[image])
    };
    (0..fit.slots.len()).filter_map(is_strange).collect()
}

/// The same with one more member, if one is certain.
fn next(fit: &Fit, known: &Trial, bench: &Bench<'_>) -> Option<(Fit, Trial)> {
    let (images, attempt) = (bench.pile.len(), |fit: &Fit| bench.attempt(fit));
    let empty: Vec<usize> = (0..fit.slots.len()).filter(|slot| fit.slots[*slot].is_none()).collect();
    let placed: BTreeSet<usize> = fit.slots.iter().flatten().map(|(image, _)| *image).collect();
    let (_, offset) = fit.slots.iter().flatten().next().copied()?;
    let with = |slot: usize, place: (usize, u64)| {
        let mut fit = fit.clone();
        fit.slots[slot] = Some(place);
        fit
    };
    let mut found: Vec<(Fit, Trial)> = Vec::new();
    for slot in empty {
        let silent = (0..images).filter(|image| !placed.contains(image));
        let trials = silent.filter_map(|image| {
            let fit = with(slot, (image, offset));
            attempt(&fit).map(|trial| (fit, trial))
        });
        let trials: Vec<(Fit, Trial)> = trials.filter(|(_, trial)| trial.fits(known)).collect();
        if trials.is_empty() {
            continue;
        }
        let proven =
            |trial: &Trial| trial.rows.0 >= ROWS_LEAST || trial.checks.right >= known.checks.right + TELLING;
        // Whether what lies in this slot makes a difference at all.
        let other = placed.iter().next().and_then(|image| attempt(&with(slot, (*image, offset + ASIDE))));
        let matters = other.is_none_or(|other| other.checks.wrong >= known.checks.wrong + TELLING);
        found.extend(trials.into_iter().filter(|(_, trial)| matters || proven(trial)));
    }
    let key = |trial: &Trial| (trial.rows.0, trial.checks.right);
    found.sort_by_key(|(_, trial)| std::cmp::Reverse(key(trial)));
    let mut found = found.into_iter();
    let (fit, trial) = found.next()?;
    // Two that do equally well are none.
    let tied = found.next().is_some_and(|(_, other)| key(&other) == key(&trial));
    (!tied).then_some((fit, trial))
}

impl Trial {
    /// Whether nothing speaks against it that did not speak against the array without one more member.
    fn fits(&self, known: &Self) -> bool {
        self.checks.wrong <= known.checks.wrong
            && self.checks.right >= known.checks.right
            && self.rows.1 * 20 <= self.rows.0
    }
}
