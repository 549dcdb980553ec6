//! Arrays that were created over older ones and have run since: `mdadm --create` with another order, chunk or layout, and the
//! rebuild that follows it by itself.
//!
//! Their superblocks agree with each other and parity fits, but nothing that is known lies on them. A rebuild of RAID 4 and 5
//! changes no byte, since the sum of all members stays the same; of RAID 6 it overwrites two members of each row.

use geometry::md::Shape;

use crate::infer::{self, TIED};
use crate::{Candidate, Image, LeftOut, Newer, content, score};

/// Rows of one sector whose parity is looked at.
const ROWS: u64 = 512;

/// Most older arrays that are told without one of them being sure.
const UNSURE_MAX: usize = 4;

/// What it costs an array that nothing known is on it: however well its superblocks agree, it is not sure.
const DOUBT: u8 = 10;

/// Whether what its superblocks say gives nothing that is known and whole, or structures of a file system most of which are in other places,
/// although enough members are there.
pub(crate) fn holds_nothing(candidate: &Candidate, images: &[&Image]) -> bool {
    let members = candidate.slots.len().min(usize::from(u16::MAX)) as u16;
    let Ok(shape) = Shape::from_codes(candidate.level, candidate.layout) else { return false };
    let empty = candidate.slots.iter().filter(|slot| slot.is_none()).count();
    if candidate.reshape.is_some() || empty > usize::from(shape.tolerates(members)) {
        return false;
    }
    let Ok(array) = candidate.open_among(images) else { return false };
    // Damage is told of a file system that begins where it ought to and goes on elsewhere.
    let nothing = formats::probe_damaged(&array)
        .is_ok_and(|(found, missed)| found.iter().all(|found| found.damaged) && missed.is_none());
    let checks = content::check(&array);
    nothing || checks.wrong * 20 > checks.right
}

/// What contents tell of the members of an array that holds nothing: the older array, if there is one, or what it may have been. The newer one,
/// which is `candidates[number]`, is not sure then.
pub(crate) fn older(
    candidates: &mut [Candidate],
    number: usize,
    members: &[&Image],
    images: &[&Image],
) -> Vec<Candidate> {
    let newer = &mut candidates[number];
    newer.score = newer.score.saturating_sub(DOUBT).min(TIED);
    newer.reasons.push(
        "nothing known is where it ought to be on it: if it was created over an older array, order, chunk and offsets may \
         have been others"
            .to_owned(),
    );
    let newer = &candidates[number];
    let mut unsure: Vec<Candidate> = Vec::new();
    let mut sure = |found: Vec<Candidate>| {
        let others = found.into_iter().filter(|other| !infer::same_map(other, newer));
        let (sure, open): (Vec<_>, Vec<_>) = others.partition(|other| other.score > TIED);
        unsure.extend(open);
        sure
    };
    let mut found = Vec::new();
    if newer.level != 6 || !has_parity(newer, images) {
        found = sure(infer::infer(members, true));
    }
    if found.is_empty() {
        found = sure(below(newer, members));
    }
    let newer = &mut candidates[number];
    if let Some(best) = found.first_mut() {
        best.reasons
            .push(format!("the array {} was created over it, and nothing known is on that", newer.array));
        newer
            .reasons
            .push("an older array is found on the same members: this one was created over it".to_owned());
        newer.score = newer.score.min(TIED);
        return found;
    }
    unsure.sort_by_key(|other| std::cmp::Reverse(other.score));
    score::keep_best(&mut unsure);
    let mut told: Vec<Candidate> = Vec::new();
    for other in unsure {
        if told.len() < UNSURE_MAX && !told.iter().any(|known| infer::same_map(known, &other)) {
            told.push(other);
        }
    }
    for other in &mut told {
        other.reasons.push(format!(
            "if {} was created over an older array, this may be it; what is found of it is not enough to be sure",
            newer.array
        ));
    }
    if !told.is_empty() {
        newer.reasons.push(
            "what an older array on the same members may have been is among the candidates, but not sure either"
                .to_owned(),
        );
    }
    told
}

/// Whether the parity of an array fits nearly everywhere, as after a rebuild.
fn has_parity(candidate: &Candidate, images: &[&Image]) -> bool {
    let array = candidate.open_among(images).ok();
    let sampled = array.and_then(|array| array.sample_parity(ROWS));
    sampled.is_some_and(|(right, wrong)| right > 0 && wrong * 20 <= right)
}

/// The older array, if the rebuild of the newer one has overwritten something of it.
fn below(newer: &Candidate, members: &[&Image]) -> Vec<Candidate> {
    let newer = Newer::of(newer);
    let Ok(geometry) = newer.geometry() else { return Vec::new() };
    if geometry.shape().tolerates(geometry.members()) == 0 {
        return Vec::new();
    }
    let spared: Vec<Image> = members.iter().map(|image| newer.image(&geometry, image)).collect();
    let mut found = infer::infer(&spared.iter().collect::<Vec<_>>(), true);
    let (covered, rest): (Vec<&Image>, Vec<&Image>) =
        spared.iter().partition(|image| newer.covers(&geometry, image));
    // Of which slots they were nothing can tell, and nothing is read from them.
    if !covered.is_empty() && !found.iter().any(|candidate| candidate.score > TIED) {
        let without = infer::infer(&rest, true).into_iter().filter(|candidate| candidate.score > TIED);
        found.extend(without.map(|mut candidate| {
            candidate.left_out.extend(covered.iter().map(|image| LeftOut {
                path: image.path.clone(),
                reason: "the newer array has overwritten all of it".to_owned(),
            }));
            candidate
        }));
    }
    for candidate in &mut found {
        candidate.reasons.push(
            "what the newer array's rebuild has computed is left out, and computed from what this one has of each row"
                .to_owned(),
        );
        candidate.overwritten_by = Some(newer.clone());
    }
    found
}
