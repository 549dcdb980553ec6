//! Members that hold no block that knows its address: each is tried in the slots that are empty in an array that is known without
//! it.

use std::collections::BTreeSet;

use geometry::md::Shape;

use super::fit::Fit;
use super::gather::Gathered;
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

/// The array with silent ones of these images in its empty slots, as far as it is certain that they belong there.
pub(super) fn filled(
    images: &[&Image],
    pile: &[usize],
    best: &Candidate,
    gathered: &Gathered,
) -> Option<Candidate> {
    let pile: Vec<&Image> = pile.iter().map(|image| images[*image]).collect();
    let sizes: Vec<u64> = pile.iter().map(|image| image.device.size().unwrap_or(0)).collect();
    let shape = Shape::from_codes(best.level, best.layout).ok().filter(|shape| *shape != Shape::Raid1)?;
    let place = |slot: &crate::Slot| {
        let image = pile.iter().position(|image| slot.is_on(image))?;
        Some((image, slot.data_offset - pile[image].start))
    };
    let mut fit = Fit {
        shape,
        chunk: best.chunk,
        slots: best.slots.iter().map(|slot| place(slot.as_ref()?)).collect(),
        used: best.slots.iter().flatten().map(|slot| slot.size).min(),
        explained: 0,
    };
    let addresses: BTreeSet<u64> = gathered.witnesses.iter().map(|witness| witness.address).collect();
    let witnesses = gathered.witnesses.iter().filter_map(|witness| {
        let image = pile.iter().position(|image| std::ptr::eq(*image, images[witness.image]))?;
        Some(super::gather::Witness { image, ..*witness })
    });
    let witnesses: Vec<super::gather::Witness> = witnesses.collect();
    fit.explained = super::fit::explained(&fit, &witnesses, fit.used?);
    let attempt = |fit: &Fit| Trial::of(&pile, &sizes, fit, addresses.len(), gathered);
    let mut known = attempt(&fit)?;
    let before = fit.slots.iter().flatten().count();
    while let Some((better, trial)) = next(&fit, &known, pile.len(), &attempt) {
        (fit, known) = (better, trial);
    }
    (fit.slots.iter().flatten().count() > before).then(|| score::scored(known.candidate, false, &pile))
}

/// The same with one more member, if one is certain.
fn next(
    fit: &Fit,
    known: &Trial,
    images: usize,
    attempt: &impl Fn(&Fit) -> Option<Trial>,
) -> Option<(Fit, Trial)> {
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
