//! How well a candidate fits with what is on its members.

use device::{BlockDevice, DeviceError};
use formats::{Found, Kind};
use geometry::md::{Geometry, Place, Shape};

use crate::{ArrayDevice, Candidate, Image, content};

/// Rows of one sector whose parity is looked at.
const SAMPLES: u64 = 512;

/// By how much a candidate may be worse than the best one and still be proposed beside it.
const NEAR: u8 = 10;

/// More members that are cut short count for no more.
const CUT_MAX: usize = 4;

/// The members that end before what the array uses of them does, and how many bytes are not there.
fn cut_short(candidate: &Candidate, images: &[&Image]) -> Vec<(String, u64)> {
    let cut = |slot: &crate::Slot| {
        let image = images.iter().find(|image| image.path == slot.path)?;
        let missing = slot.data_offset.saturating_add(slot.size).saturating_sub(image.disk.size().ok()?);
        (missing > 0).then(|| (slot.path.display().to_string(), missing.min(slot.size)))
    };
    candidate.slots.iter().flatten().filter_map(cut).collect()
}

/// How much is lost with these members alone, in parts of no matter which size: nothing, if it is 0. Of RAID 10 it counts which are
/// missing, not only how many.
pub(crate) fn lost_parts(shape: Shape, chunk: u64, there: &[bool]) -> usize {
    let empty = there.iter().filter(|there| !**there).count();
    let members = there.len().min(usize::from(u16::MAX)) as u16;
    let beyond = empty.saturating_sub(usize::from(shape.tolerates(members)));
    let Shape::Raid10(copies) = shape else { return beyond };
    if beyond == 0 {
        return 0;
    }
    // All patterns of chunks and their copies occur within as many chunks as there are members.
    let size = chunk.saturating_mul(2 * u64::from(members) * u64::from(copies.far));
    let Ok(geometry) = Geometry::new(shape, chunk, &vec![size; there.len()]) else { return beyond };
    let is_lost = |number: &u64| match geometry.locate(number * chunk) {
        Some((Place::Copies(spots), _)) => !spots.iter().any(|spot| there[usize::from(spot.member)]),
        _ => true,
    };
    (0..2 * u64::from(members)).filter(is_lost).count()
}

/// Leaves the best candidates and those nearly as good; gives the best score and how many share it.
pub(crate) fn keep_best(candidates: &mut Vec<Candidate>) -> (u8, usize) {
    let best = candidates.iter().map(|candidate| candidate.score).max().unwrap_or(0);
    candidates.retain(|candidate| candidate.score + NEAR >= best);
    (best, candidates.iter().filter(|candidate| candidate.score == best).count())
}

/// The candidate, whose members are among `images`, with its score and the reasons for it. `unproven` says that its
/// superblocks were never used.
pub(crate) fn scored(mut candidate: Candidate, unproven: bool, images: &[&Image]) -> Candidate {
    let there: Vec<bool> = candidate
        .slots
        .iter()
        .map(|slot| slot.as_ref().is_some_and(|slot| slot.clean_by.is_none()))
        .collect();
    let empty = there.iter().filter(|there| !**there).count();
    let shape = Shape::from_codes(candidate.level, candidate.layout);
    let members = candidate.slots.len().min(usize::from(u16::MAX)) as u16;
    let tolerated = shape.as_ref().map_or(0, |shape| usize::from(shape.tolerates(members)));
    let beyond = match shape {
        Ok(shape) => lost_parts(shape, candidate.chunk, &there) > 0,
        Err(_) => empty > tolerated,
    };
    let mirrored = matches!(shape, Ok(Shape::Raid1 | Shape::Raid10(_)));
    candidate.shape = shape.map_or_else(|error| error.to_string(), |shape| shape.to_string());
    let mut score: i32 = if unproven { 20 } else { 60 };
    let are =
        |count: usize| if count == 1 { "1 member is".to_owned() } else { format!("{count} members are") };
    if beyond {
        score -= 40;
        let missing = are(empty);
        candidate.reasons.push(format!("{missing} missing, more than {tolerated}: parts are lost"));
    } else if empty > 0 {
        score -= 5 * i32::from(empty as u16);
        candidate.reasons.push(format!("{} missing, which its redundancy makes up for", are(empty)));
    } else {
        candidate.reasons.push("all slots have a member".to_owned());
    }
    let cut = cut_short(&candidate, images);
    let lost = !cut.is_empty() && cut.len() + empty > tolerated;
    // What one of them lacks is as much as if it were missing there, and no more.
    score -= 5 * i32::from(cut.len().min(CUT_MAX) as u8) + if lost { 20 } else { 0 };
    for (name, missing) in cut {
        let fate = if lost { "lost" } else { "read from the others" };
        candidate.reasons.push(format!(
            "{name} is cut short: the last {missing} bytes of what the array uses of it are not there; what they held is {fate}"
        ));
    }
    score -= 5 * candidate
        .reasons
        .iter()
        .filter(|reason| reason.contains("events behind"))
        .map(|_| 1)
        .sum::<i32>();
    match candidate.open_among(images) {
        Err(error) => {
            score = 0;
            candidate.reasons.push(error.to_string());
        }
        Ok(array) => {
            candidate.reasons.extend_from_slice(array.notes());
            let (gain, reason) = held(&candidate, &array, images);
            score += gain;
            candidate.reasons.push(reason);
            let checks = content::check(&array);
            let all = checks.right + checks.wrong;
            if all > 0 {
                let right = checks.right;
                candidate.reasons.push(format!("{right} of {all} structures of its file system fit"));
                // A few may have been torn by a crash.
                score += match checks.wrong {
                    0 => 5,
                    wrong if wrong * 20 <= right => 0,
                    _ => -50,
                };
            }
            if let Some((right, wrong)) =
                array.sample_parity(SAMPLES).filter(|(right, wrong)| right + wrong > 0)
            {
                let what = if mirrored { "copies are alike" } else { "parity fits" };
                candidate.reasons.push(format!("{what} in {right} of {} sampled rows", right + wrong));
                if candidate.level == 6 && wrong > 0 && wrong <= right / 4 {
                    candidate.reasons.push(
                        "a plan made with --check-parity finds which member is wrong in such rows, and reads them right"
                            .to_owned(),
                    );
                }
                // A few rows may have been torn by a crash; more than that is another geometry.
                score += if wrong == 0 && right > 0 {
                    15
                } else if wrong > right / 4 {
                    -30
                } else {
                    0
                };
            }
        }
    }
    candidate.score = score.clamp(0, 100) as u8;
    candidate
}

/// What is recognised on an array of these members. If its data begins where they do, their own component label is not something that
/// it holds.
pub(crate) fn recognised(
    candidate: &Candidate,
    array: &ArrayDevice,
    images: &[&Image],
) -> Result<Vec<Found>, DeviceError> {
    let (mut found, _) = formats::probe_damaged(array as &dyn BlockDevice)?;
    let begins =
        |slot: &crate::Slot| images.iter().any(|image| slot.is_on(image) && slot.data_offset == image.start);
    if candidate.slots.iter().flatten().any(begins) {
        found.retain(|found| found.kind != Kind::Raidframe);
    }
    Ok(found)
}

/// What the array holds: worth how much, and in words.
fn held(candidate: &Candidate, array: &ArrayDevice, images: &[&Image]) -> (i32, String) {
    match recognised(candidate, array, images) {
        Ok(found) if found.iter().any(|found| !found.damaged) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            (25, format!("it holds {}", found.join(" and ")))
        }
        Ok(found) if !found.is_empty() => (5, format!("it holds {}", found[0])),
        Ok(_) => (-20, "nothing on it is recognised".to_owned()),
        Err(error) => (0, format!("what it holds could not be read: {error}")),
    }
}
