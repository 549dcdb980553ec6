//! Disks whose superblock or component label is gone, in the empty slots of an array that others still speak for.
//!
//! What they are is asked of the contents: parity or copies that agree where the array is whole with them, and structures of its file
//! system that come out right with them and not without. Since nothing says when such a disk dropped out, it is not sure where the array
//! does without it.

use geometry::md::Shape;

use crate::infer::TIED;
use crate::{Candidate, Image, content, score};

/// Rows of one sector whose parity is looked at.
const ROWS: u64 = 512;
/// Rows of which parity must fit to prove a member.
const ROWS_LEAST: u64 = 8;
/// Structures that must come out right with a member, and not without it or with it elsewhere.
const TELLING: u32 = 3;
/// Structures of a file system that fit, without which nothing is sure.
const STRUCTURES_LEAST: u32 = 16;
/// What it costs that nothing tells when these disks dropped out.
const DOUBT: u8 = 10;
/// Most ways to fill the slots that are tried at once.
const WAYS_MAX: usize = 120;

/// A slot, and the number of the disk in it.
type Filling = Vec<(usize, usize)>;

/// An array with some of its empty slots filled.
#[derive(Clone)]
struct Trial {
    candidate: Candidate,
    filling: Filling,
    checks: content::Checks,
    /// Rows in which parity fits, and in which it does not; none while a slot is empty.
    rows: (u64, u64),
}

/// What it takes to try disks in an array's slots.
struct Bench<'a> {
    base: &'a Candidate,
    strays: Vec<&'a Image>,
    images: &'a [&'a Image],
    /// Where data begins on each of them, and how much of them the array uses.
    offset: u64,
    size: u64,
    /// Whether parts of the array are lost as it is.
    lacking: bool,
}

impl Bench<'_> {
    fn attempt(&self, filling: &[(usize, usize)]) -> Option<Trial> {
        let mut candidate = self.base.clone();
        for (slot, stray) in filling {
            candidate.slots[*slot] = Some(self.strays[*stray].slot(self.offset, self.size));
        }
        let array = candidate.open_among(self.images).ok()?;
        let rows = array.sample_parity(ROWS).unwrap_or_default();
        // What redundancy makes up for is the same with them, if they are right.
        let checks = if self.lacking { content::check(&array) } else { content::Checks::default() };
        Some(Trial { candidate, filling: filling.to_vec(), checks, rows })
    }

    /// The best of some ways to fill slots, if it is proven and no other is as good.
    fn best(&self, known: &Trial, ways: impl Iterator<Item = Filling>) -> Option<Trial> {
        let mut found: Vec<Trial> = ways.filter_map(|way| self.attempt(&way)).collect();
        found.retain(|trial| trial.fits(known));
        found.sort_by_key(|trial| std::cmp::Reverse(trial.key()));
        let mut found = found.into_iter();
        let best = found.next()?;
        let is_tied = found.next().is_some_and(|next| {
            next.key().0 + ROWS_LEAST > best.key().0 && next.checks.right + TELLING > best.checks.right
        });
        (best.is_proven(known) && !is_tied).then_some(best)
    }
}

impl Trial {
    fn key(&self) -> (u64, u32) {
        (self.rows.0, self.checks.right)
    }

    /// Whether nothing speaks against it.
    fn fits(&self, known: &Self) -> bool {
        self.rows.1 * 20 <= self.rows.0
            && self.checks.wrong <= known.checks.wrong
            && self.checks.right >= known.checks.right
    }

    /// Whether contents say that these disks belong where they are.
    fn is_proven(&self, known: &Self) -> bool {
        self.rows.0 >= ROWS_LEAST || self.checks.right >= known.checks.right + TELLING
    }
}

/// All ways to put so many disks into these slots, each of which gets one.
fn ways(slots: &[usize], strays: usize) -> Vec<Filling> {
    let mut all: Vec<Filling> = vec![Vec::new()];
    for slot in slots {
        let longer = |way: &Filling| {
            let free = (0..strays).filter(|stray| !way.iter().any(|(_, used)| used == stray));
            free.map(|stray| [&way[..], &[(*slot, stray)]].concat()).collect::<Vec<Filling>>()
        };
        all = all.iter().flat_map(longer).collect();
        if all.len() > WAYS_MAX {
            return Vec::new();
        }
    }
    all
}

/// The array, whose candidate was not scored yet, with some of these disks that nothing speaks for in its empty slots, if contents say that
/// they belong there.
pub(crate) fn filled(base: &Candidate, strays: &[&Image], images: &[&Image]) -> Option<Candidate> {
    let shape = Shape::from_codes(base.level, base.layout).ok().filter(|shape| *shape != Shape::Linear)?;
    let there: Vec<bool> = base.slots.iter().map(Option::is_some).collect();
    let empty: Vec<usize> = (0..there.len()).filter(|slot| !there[*slot]).collect();
    if base.reshape.is_some() || empty.is_empty() || strays.is_empty() {
        return None;
    }
    let slots = || base.slots.iter().flatten();
    let begins = |slot: &crate::Slot| {
        let image = images.iter().find(|image| slot.is_on(image))?;
        Some(slot.data_offset - image.start)
    };
    let offset = slots()
        .filter_map(begins)
        .max_by_key(|offset| slots().filter(|slot| begins(slot) == Some(*offset)).count())?;
    let size = slots().map(|slot| slot.size).min()?;
    // Without redundancy each member has its own length.
    if matches!(shape, Shape::Raid0(_)) && slots().any(|slot| slot.size != size) {
        return None;
    }
    let is_long_enough = |image: &&Image| {
        let own = image.device.size().unwrap_or(0);
        own >= offset.saturating_add(size) && !slots().any(|slot| slot.is_on(image))
    };
    let strays: Vec<&Image> = strays.iter().copied().filter(is_long_enough).collect();
    let lacking = score::lost_parts(shape, base.chunk, &there) > 0;
    let bench = Bench { base, strays, images, offset, size, lacking };
    let count = bench.strays.len();
    // A RAID 0 that lacks a member is not even so long as it ought to be.
    let nothing = Trial {
        candidate: base.clone(),
        filling: Vec::new(),
        checks: content::Checks::default(),
        rows: (0, 0),
    };
    let known = bench.attempt(&[]).unwrap_or_else(|| nothing.clone());
    let mut best = bench.best(&known, ways(&empty, count).into_iter());
    if best.is_none() {
        // As many as there are, one after the other.
        let mut step = Trial { rows: (0, 0), ..known.clone() };
        loop {
            let used = step.filling.clone();
            let slots = empty.iter().filter(|slot| !used.iter().any(|(filled, _)| filled == *slot));
            let next = slots.flat_map(|slot| (0..count).map(move |stray| (*slot, stray)));
            let next = next.filter(|(_, stray)| !used.iter().any(|(_, taken)| taken == stray));
            let Some(better) = bench.best(&step, next.map(|one| [&used[..], &[one]].concat())) else { break };
            step = better;
        }
        best = Some(step).filter(|step| !step.filling.is_empty());
    }
    let best = best?;
    let whole = best.candidate.slots.iter().all(Option::is_some);
    let (mut candidate, rows) = (best.candidate, best.rows);
    for (slot, stray) in &best.filling {
        candidate.reasons.push(format!(
            "{} has neither superblock nor label: it is taken for the member in slot {slot}, since {}",
            bench.strays[*stray].name(),
            if rows.0 >= ROWS_LEAST && whole {
                format!("redundancy agrees with it in {} of {} sampled rows", rows.0, rows.0 + rows.1)
            } else {
                format!(
                    "{} structures of the file system are right with it, and {} without",
                    best.checks.right, known.checks.right
                )
            }
        ));
    }
    let mut candidate = score::scored(candidate, false, images);
    candidate.score = candidate.score.saturating_sub(DOUBT);
    if !lacking {
        candidate.score = candidate.score.min(TIED);
        candidate.reasons.push(
            "redundancy makes up for that member, and nothing tells when it dropped out: it is not sure that nothing on it is old"
                .to_owned(),
        );
    } else if rows.1 > 0 || best.checks.wrong > 0 || best.checks.right < STRUCTURES_LEAST {
        candidate.score = candidate.score.min(TIED);
        candidate
            .reasons
            .push("what it holds is not enough to be sure that nothing on that member is old".to_owned());
    } else {
        candidate.reasons.push(
            "nothing tells when that member dropped out; nothing that was looked at is old on it".to_owned(),
        );
    }
    Some(candidate)
}
