//! Arrays without superblocks, from file systems whose blocks know their own address.
//!
//! ```text
//! images --gather--> witnesses: (image, place on it, address in the file system)
//!     --fit--> geometries that explain them, with the members in their slots by votes
//!     --rank--> candidates: what the file system says of itself, and parity, on each of them
//! ```
//!
//! No orders of members are tried, except where some hold no witness at all.

mod far;
mod fit;
mod gather;
mod mates;
mod silent;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use device::BlockDevice;
use geometry::md::Shape;

use crate::{Candidate, Image, LeftOut, content, raid6, score};
use fit::Fit;
use gather::Gathered;

/// Most file systems whose arrays are looked for.
const SYSTEMS_MAX: usize = 8;
/// Witnesses without which nothing is said.
const WITNESSES_LEAST: usize = 8;
/// Most fits that are put together and looked at.
const FITS_MAX: usize = 256;
/// Most members without witnesses whose orders are all tried.
const FREE_MAX: usize = 4;
/// Rows of one sector whose parity is looked at.
const ROWS: u64 = 512;
/// Most candidates that are proposed for one array.
const PROPOSED_MAX: usize = 6;
/// Structures of a file system that fit, without which nothing is sure.
const STRUCTURES_LEAST: i64 = 16;
/// Tenths of the witnesses that an answer must explain to be sure.
const EXPLAINED_LEAST: usize = 7;
/// From this score on what parity alone tells needs no other witnesses.
pub(crate) const SOLVED: u8 = 80;
/// The score of candidates that can't be told apart.
pub(crate) const TIED: u8 = 50;

/// Fits by each criterion whose orders are improved.
const SEEDS_MAX: usize = 16;
/// Most orders that are tried to improve fits.
const TRIES_MAX: usize = 3000;

/// Answers that differ by no more structures than this are not told apart.
const NEAR: i64 = 2;
/// What it is worth if nothing of the file system is found.
const NOTHING: i64 = -1 << 40;
/// Most places at which two maps are compared.
const COMPARED_MAX: usize = 1 << 16;
/// All orders of no more members than this are tried.
const ORDERED_MAX: usize = 4;

/// A candidate, and what speaks for it: more is better, field by field.
struct Ranked {
    candidate: Candidate,
    fit: Fit,
    key: Key,
    /// Parity or copies don't fit in many rows.
    contradicted: bool,
}

/// Structures that fit, parity and odd things, addresses explained, whether the file system was told of it.
type Key = (i64, i64, usize, bool);

/// Candidates for the arrays that these images are members of, as far as file systems on them tell. `one` says that all are of one
/// array.
pub(crate) fn infer(images: &[&Image], one: bool) -> Vec<Candidate> {
    let mut taken: BTreeSet<(PathBuf, u64)> = BTreeSet::new();
    if images.is_empty() {
        return Vec::new();
    }
    let all = gather::gather(images);
    let mates = mates::mates(images);
    // One alone may be chance.
    let members_of = |gathered: &Gathered| {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        gathered.witnesses.iter().for_each(|witness| *counts.entry(witness.image).or_default() += 1);
        counts.into_iter().filter(|(_, count)| *count > 1).map(|(image, _)| image).collect::<Vec<_>>()
    };
    let of_any: BTreeSet<usize> = all.iter().flat_map(members_of).collect();
    let size = |image: usize| images[image].device.size().unwrap_or(0);
    // What was not clear may be, once members that others are sure of are out of the way.
    let systems = all.len().min(SYSTEMS_MAX);
    let mut found: Vec<Vec<Candidate>> = vec![Vec::new(); systems];
    let mut known: Vec<Option<usize>> = vec![None; systems];
    for (number, gathered) in (0..2).flat_map(|_| all[..systems].iter().enumerate()) {
        let sure = found[number].first().is_some_and(|best| best.score > TIED);
        if sure || known[number] == Some(taken.len()) {
            continue;
        }
        known[number] = Some(taken.len());
        let is_free = |image: &usize| {
            let Image { path, start, .. } = images[*image];
            !taken.iter().any(|(other, at)| other == path && (*start..start + size(*image)).contains(at))
        };
        let known_by = members_of(gathered);
        // Whoever is in one relation with them is one of them.
        let is_mate = |image: &usize| {
            known_by.contains(image)
                || !of_any.contains(image) && known_by.iter().any(|own| mates[*own] == mates[*image])
        };
        let own: Vec<usize> = (0..images.len()).filter(is_mate).filter(is_free).collect();
        if gathered.witnesses.len() < WITNESSES_LEAST || own.is_empty() {
            continue;
        }
        // Whoever says nothing may be a member as well, if it is of the right size.
        let is_paired = |image: usize| mates.iter().filter(|mate| **mate == mates[image]).count() > 1;
        let silent = (0..images.len()).filter(|image| {
            let bare = !of_any.contains(image) && !is_paired(*image) && !own.contains(image);
            bare && is_free(image) && own.iter().any(|own| size(*own) == size(*image))
        });
        let with_silent: Vec<usize> = own.iter().copied().chain(silent).collect();
        let mut candidates: Vec<Candidate> = Vec::new();
        for pile in [&own, &with_silent] {
            // What is whole and sure lacks nobody.
            let whole = |best: &Candidate| best.score > TIED && best.slots.iter().all(Option::is_some);
            if pile.len() == own.len() && !candidates.is_empty() || candidates.first().is_some_and(whole) {
                continue;
            }
            let members: Vec<&Image> = pile.iter().map(|image| images[*image]).collect();
            let mut found = raid6::infer(&members);
            if pile.len() > own.len() {
                // What is sure without them says more of where they are than they do.
                let best = candidates.first().filter(|best: &&Candidate| best.score > TIED);
                found.extend(best.and_then(|best| silent::filled(images, pile, best, gathered)));
            }
            let solved = found.iter().any(|candidate| candidate.score >= SOLVED);
            if !solved && pile.len() <= own.len() + FREE_MAX {
                found.extend(if one {
                    of_system(images, pile, gathered)
                } else {
                    without_strangers(images, pile, gathered)
                });
            }
            found.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
            let best = |candidates: &[Candidate]| candidates.first().map_or(0, |best| best.score);
            // Strangers fit in somewhere, but not well.
            let doubtful = pile.len() > own.len() && best(&found) < TIED;
            if !doubtful && (best(&found) > best(&candidates) || candidates.is_empty()) {
                candidates = found;
            }
        }
        if let Some(best) = candidates.first().filter(|best| best.score > TIED) {
            taken.extend(best.slots.iter().flatten().map(|slot| (slot.path.clone(), slot.data_offset)));
        }
        let better = |candidates: &[Candidate]| candidates.first().map_or(0, |best| best.score);
        if better(&candidates) >= better(&found[number]) {
            found[number] = candidates;
        }
    }
    // A disk whose file system begins where it does is no array, but one by itself.
    let single = |candidate: &Candidate| match &candidate.slots[..] {
        [Some(slot)] => images.iter().any(|image| slot.is_on(image) && slot.data_offset == image.start),
        _ => false,
    };
    found.retain(|candidates| !candidates.first().is_some_and(single));
    found.into_iter().flatten().filter(|candidate| !single(candidate)).collect()
}

/// As [`of_system`]; what is sure of members that nothing speaks for is not, and without them it may be.
fn without_strangers(images: &[&Image], pile: &[usize], gathered: &Gathered) -> Vec<Candidate> {
    let mut found = of_system(images, pile, gathered);
    let Some(best) = found.first_mut().filter(|best| best.score > TIED) else { return found };
    let strangers = silent::strangers(images, pile, best, gathered);
    if strangers.is_empty() {
        return found;
    }
    best.score = TIED;
    let names: Vec<String> = strangers.iter().map(|image| images[*image].name()).collect();
    best.reasons.push(format!("nothing tells that these are members: {}", names.join(", ")));
    let rest: Vec<usize> = pile.iter().copied().filter(|image| !strangers.contains(image)).collect();
    if !rest.is_empty() {
        found.extend(without_strangers(images, &rest, gathered));
        found.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    }
    found
}

fn of_system(images: &[&Image], free: &[usize], gathered: &Gathered) -> Vec<Candidate> {
    let numbers: Vec<usize> = free.to_vec();
    let witnesses: Vec<gather::Witness> = gathered
        .witnesses
        .iter()
        .filter_map(|witness| {
            let image = numbers.iter().position(|number| *number == witness.image)?;
            Some(gather::Witness { image, ..*witness })
        })
        .collect();
    let pile: Vec<&Image> = numbers.iter().map(|number| images[*number]).collect();
    let sizes: Vec<u64> = pile.iter().map(|image| image.device.size().unwrap_or(0)).collect();
    let addresses = witnesses.iter().map(|witness| witness.address).collect::<BTreeSet<_>>().len();
    // Each node of btrfs speaks for all places where its copies may be, so that half of them are wrong.
    let twofold = matches!(gathered.system, gather::System::Btrfs(_));
    let explained_least = if twofold { EXPLAINED_LEAST / 2 } else { EXPLAINED_LEAST };
    let even = is_even(&pile, &sizes);
    let mut fits = fit::fit(&witnesses, &sizes, &far::distances(&pile));
    if even {
        fits.retain(|fit| can_be_even(fit, pile.len()));
    }
    let mut ranked: Vec<Ranked> = fits
        .iter()
        .filter(|fit| fit.explained >= WITNESSES_LEAST)
        .flat_map(|fit| completions(fit, pile.len()))
        .take(FITS_MAX)
        .filter_map(|fit| rank(&pile, &sizes, &fit, addresses, gathered))
        .collect();
    let size = sizes.iter().copied().min().unwrap_or(0);
    let mut tries = TRIES_MAX;
    for seed in seeds(&ranked) {
        let better = improve(&seed, &mut tries, |fit| {
            let mut fit = fit.clone();
            fit.explained = fit::explained(&fit, &witnesses, size);
            // What explains so much less is not looked at more closely.
            let hopeful = fit.explained * 2 >= seed.explained;
            hopeful.then(|| rank(&pile, &sizes, &fit, addresses, gathered))?
        });
        ranked.extend(better);
    }
    ranked.sort_by_key(|ranked| std::cmp::Reverse(ranked.key));
    let mut kept: Vec<Ranked> = Vec::new();
    for candidate in ranked {
        if !kept.iter().any(|known| same_map(&known.candidate, &candidate.candidate)) {
            kept.push(candidate);
        }
    }
    drop_partial(&mut kept);
    let Some(best) = kept.first().map(|best| best.key) else { return Vec::new() };
    let ties = kept.iter().filter(|ranked| is_near(&best, &ranked.key)).count();
    let scored = kept.into_iter().take(PROPOSED_MAX.max(ties.min(24))).map(|ranked| {
        let mut candidate = score::scored(ranked.candidate, false, &pile);
        if !is_near(&best, &ranked.key) {
            candidate.score = candidate.score.min(TIED - 5);
            candidate.reasons.push("another geometry fits better".to_owned());
        } else if ties > 1 {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push(format!("{ties} candidates fit equally well and can't be told apart"));
        } else if ranked.key.0 < STRUCTURES_LEAST {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push("too few structures of its file system were found to be sure".to_owned());
        } else if ranked.contradicted {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push("its redundancy does not agree with what it holds".to_owned());
        } else if ranked.fit.explained * 10 < addresses * explained_least {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push("too many blocks that know their address are elsewhere".to_owned());
        }
        candidate
    });
    scored.collect()
}

/// Drops what is no other array than one with more copies, which are alike: a RAID 10 whose only chunk is as long as its members.
fn drop_partial(kept: &mut Vec<Ranked>) {
    let Some(best) = kept.first().map(|best| best.key) else { return };
    let near: Vec<usize> = (0..kept.len()).filter(|number| is_near(&best, &kept[*number].key)).collect();
    let is_in = |own: usize, other: usize| {
        let (own, other) = (&kept[own], &kept[other]);
        let has_copies = matches!(other.fit.shape, Shape::Raid1 | Shape::Raid10(_)) && !other.contradicted;
        has_copies && other.key.0 >= own.key.0 && holds_map(&other.candidate, &own.candidate)
    };
    let partial = |own: &usize| near.iter().any(|other| other != own && is_in(*own, *other));
    let gone: Vec<usize> = near.iter().copied().filter(partial).collect();
    gone.into_iter().rev().for_each(|number| drop(kept.remove(number)));
}

/// Whether the members add up to zero everywhere: then they are all members of a RAID 5, or pairs of copies.
fn is_even(pile: &[&Image], sizes: &[u64]) -> bool {
    const BLOCK: u64 = 4096;
    const PLACES: u64 = 512;
    let blocks = sizes.iter().copied().min().unwrap_or(0) / BLOCK;
    let (mut even, mut odd) = (0_u64, 0_u64);
    for place in (0..blocks).step_by((blocks / PLACES).max(1) as usize) {
        let mut sum = vec![0; BLOCK as usize];
        let mut filled = 0;
        for image in pile {
            let Some(bytes) = content::read(&*image.device, place * BLOCK, BLOCK as usize) else { break };
            filled += usize::from(bytes.iter().any(|byte| *byte != 0));
            sum.iter_mut().zip(&bytes).for_each(|(sum, byte)| *sum ^= byte);
        }
        if filled > 1 {
            let zero = sum.iter().all(|byte| *byte == 0);
            (even, odd) = (even + u64::from(zero), odd + u64::from(!zero));
        }
    }
    even >= 16 && even >= odd * 19
}

/// Whether all rows of a geometry over so many members add up to zero.
fn can_be_even(fit: &Fit, members: usize) -> bool {
    let even = match fit.shape {
        Shape::Raid1 => members.is_multiple_of(2),
        Shape::Raid10(copies) => {
            copies.far == 1 && copies.near.is_multiple_of(2) && members.is_multiple_of(copies.near.into())
        }
        Shape::Raid4 | Shape::Raid5(_) => true,
        _ => false,
    };
    let offsets: BTreeSet<u64> = fit.slots.iter().flatten().map(|(_, offset)| *offset).collect();
    even && offsets.len() == 1 && fit.slots.len() == members
}

/// The fits that are worth improving: the best by what the file system says, by witnesses, and by what it was told.
fn seeds(ranked: &[Ranked]) -> Vec<Fit> {
    let mut seeds: Vec<Fit> = Vec::new();
    let mut best = |key: &dyn Fn(&Ranked) -> (i64, i64, usize)| {
        let mut order: Vec<&Ranked> = ranked.iter().collect();
        order.sort_by_key(|ranked| std::cmp::Reverse(key(ranked)));
        let mut kinds: Vec<(Shape, u64, usize)> = Vec::new();
        for ranked in order {
            let kind = (ranked.fit.shape, ranked.fit.chunk, ranked.fit.slots.len());
            if kinds.len() < SEEDS_MAX && !kinds.contains(&kind) {
                kinds.push(kind);
                if !seeds.contains(&ranked.fit) {
                    seeds.push(ranked.fit.clone());
                }
            }
        }
    };
    best(&|ranked| (ranked.key.0, ranked.key.1, ranked.key.2));
    // However many members are missing.
    best(&|ranked| (ranked.key.2.cast_signed() as i64, ranked.key.1, 0));
    best(&|ranked| (i64::from(ranked.key.3), ranked.key.2.cast_signed() as i64, 0));
    best(&|ranked| (i64::from(ranked.key.3), ranked.key.1, ranked.key.2));
    best(&|ranked| (ranked.key.1.min(0), ranked.key.2.cast_signed() as i64, 0));
    seeds
}

/// Moves members as long as that makes it better: where parity is a copy of data, votes may be for either.
/// Those that are nearly as good as the best come with it.
fn improve(seed: &Fit, tries: &mut usize, rank: impl Fn(&Fit) -> Option<Ranked>) -> Vec<Ranked> {
    let Some(mut best) = rank(seed) else { return Vec::new() };
    let count = seed.slots.len();
    let mut near: Vec<Ranked> = Vec::new();
    let mut attempt = |fit: Fit, best: &mut Ranked| {
        let ranked = if *tries > 0 { rank(&fit) } else { None };
        *tries = tries.saturating_sub(usize::from(ranked.is_some()));
        match ranked {
            Some(ranked) if ranked.key > best.key => {
                near.push(std::mem::replace(best, ranked));
                true
            }
            Some(ranked) => {
                near.push(ranked);
                false
            }
            None => false,
        }
    };
    let pairs = || (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    if count <= ORDERED_MAX {
        for order in orders(count) {
            let slots = order.iter().map(|slot| seed.slots[*slot]).collect();
            attempt(Fit { slots, ..seed.clone() }, &mut best);
        }
    }
    'again: loop {
        if count <= ORDERED_MAX {
            break;
        }
        for (from, to) in pairs().filter(|(from, to)| from < to) {
            let mut fit = best.fit.clone();
            fit.slots.swap(from, to);
            if attempt(fit, &mut best) {
                continue 'again;
            }
        }
        for (from, to) in pairs().filter(|(from, to)| from.abs_diff(*to) > 1) {
            let mut fit = best.fit.clone();
            let slot = fit.slots.remove(from);
            fit.slots.insert(to, slot);
            if attempt(fit, &mut best) {
                continue 'again;
            }
        }
        break;
    }
    near.retain(|other| is_near(&best.key, &other.key));
    near.push(best);
    near
}

/// Whether the better of two is no better than chance may make it.
fn is_near(best: &Key, other: &Key) -> bool {
    best.1 == other.1 && best.0 - other.0 + best.2.cast_signed() as i64 - other.2.cast_signed() as i64 <= NEAR
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..count {
        let longer = |order: &Vec<usize>| {
            (0..=order.len())
                .map(|at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
                .collect::<Vec<_>>()
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

/// A fit with all orders of the members that no witness gave a place.
fn completions(fit: &Fit, images: usize) -> Vec<Fit> {
    let placed: BTreeSet<usize> = fit.slots.iter().flatten().map(|(image, _)| *image).collect();
    let empty: Vec<usize> = (0..fit.slots.len()).filter(|slot| fit.slots[*slot].is_none()).collect();
    let waiting: Vec<usize> = (0..images).filter(|image| !placed.contains(image)).collect();
    let offset = fit.slots.iter().flatten().map(|(_, offset)| *offset).next();
    if waiting.is_empty() || empty.is_empty() || empty.len() > FREE_MAX || waiting.len() > empty.len() {
        return vec![fit.clone()];
    }
    let mut all = vec![(fit.clone(), waiting)];
    for &slot in &empty {
        let step = |(fit, waiting): (Fit, Vec<usize>)| {
            let mut next = Vec::new();
            for (index, image) in waiting.iter().enumerate() {
                let (mut fit, mut waiting) = (fit.clone(), waiting.clone());
                fit.slots[slot] = offset.map(|offset| (*image, offset));
                waiting.remove(index);
                next.push((fit, waiting));
            }
            if waiting.len() < empty.iter().filter(|other| **other >= slot).count() {
                // One of the members may be missing here.
                next.push((fit, waiting));
            }
            next
        };
        all = all.into_iter().flat_map(step).collect();
    }
    all.into_iter().filter(|(_, waiting)| waiting.is_empty()).map(|(fit, _)| fit).collect()
}

/// Puts a fit together, and looks how well the file system is with it.
fn rank(pile: &[&Image], sizes: &[u64], fit: &Fit, addresses: usize, gathered: &Gathered) -> Option<Ranked> {
    let size =
        fit.slots.iter().flatten().filter_map(|(image, offset)| sizes[*image].checked_sub(*offset)).min()?;
    let size = fit.used.filter(|used| *used <= size).unwrap_or(size);
    let (level, layout) = fit.shape.codes();
    let slot = |place: &Option<(usize, u64)>| {
        let (image, data_offset) = (*place)?;
        let all = sizes[image] - data_offset;
        Some(pile[image].slot(data_offset, if matches!(fit.shape, Shape::Raid0(_)) { all } else { size }))
    };
    let placed: BTreeSet<usize> = fit.slots.iter().flatten().map(|(image, _)| *image).collect();
    let out = (0..pile.len()).filter(|image| !placed.contains(image));
    let left_out = out
        .map(|image| LeftOut {
            path: pile[image].path.clone(),
            reason: "no place in this array fits it".to_owned(),
        })
        .collect();
    let hint = gathered.system.hint();
    let data = match fit.shape {
        Shape::Raid10(copies) => fit.slots.len() / usize::from(copies.near).max(1),
        shape => fit.slots.len() - usize::from(shape.tolerates(fit.slots.len() as u16)).min(2),
    } as u64;
    let hinted = hint == Some((fit.chunk, data));
    let mut reasons = vec![
        format!(
            "{} of {addresses} blocks that know their address are where this geometry has them; the others may be \
             copies in a journal",
            fit.explained
        ),
        "where the array ends is not known: it may be shown a little too long".to_owned(),
    ];
    if hinted {
        reasons.push(
            "the file system was told this chunk size and number of data members when it was made".to_owned(),
        );
    }
    let candidate = Candidate {
        array: format!("{}-without-superblocks", fit.shape.to_string().split(' ').next().unwrap_or("array")),
        score: 0,
        reasons,
        level,
        layout,
        shape: String::new(),
        chunk: if fit.shape == Shape::Raid1 { 0 } else { fit.chunk },
        slots: fit.slots.iter().map(slot).collect(),
        left_out,
        reshape: None,
        logs: None,
        check_parity: false,
        overwritten_by: None,
    };
    let array = candidate.open_among(pile).ok()?;
    if array.size().ok()? < gathered.system.size() {
        return None;
    }
    let checks = content::check(&array);
    let parity = array.sample_parity(ROWS);
    // Rows that agree prove redundancy; rows that don't, disprove it.
    let contradicted = parity.is_some_and(|(right, wrong)| wrong > right / 4);
    let rows = i64::from(parity.is_some_and(|(right, _)| right > 0)) - 20 * i64::from(contradicted);
    let missing = candidate.slots.iter().filter(|slot| slot.is_none()).count().cast_signed() as i64;
    let structures =
        if checks.right == 0 { NOTHING } else { i64::from(checks.right) - 10 * i64::from(checks.wrong) };
    // Members mostly begin alike.
    let offsets: BTreeSet<u64> = fit.slots.iter().flatten().map(|(_, offset)| *offset).collect();
    let odd = candidate.left_out.len() + offsets.len().saturating_sub(1);
    let order = rows * 100 - missing * 50 - 30 * odd.cast_signed() as i64;
    Some(Ranked {
        key: (structures, order, fit.explained, hinted),
        fit: fit.clone(),
        candidate,
        contradicted,
    })
}

/// Whether two candidates give the same array, whatever they call it.
pub(crate) fn same_map(one: &Candidate, other: &Candidate) -> bool {
    maps_agree(one, other, |left, right| left == right)
}

/// Whether all that the second candidate has is in the first one, with copies besides: if these are alike, it tells the same bytes.
fn holds_map(one: &Candidate, other: &Candidate) -> bool {
    let size = |candidate: &Candidate| {
        candidate.assemble(&vec![None; candidate.slots.len()]).ok().and_then(|array| array.size().ok())
    };
    size(one) >= size(other)
        && maps_agree(one, other, |left, right| right.iter().all(|spot| left.contains(spot)))
}

/// Where bytes may be had: paths and offsets.
type Spots = [Option<(PathBuf, u64)>];

/// Whether the places where two candidates have an address agree, for all addresses until their layouts repeat.
fn maps_agree(one: &Candidate, other: &Candidate, agree: impl Fn(&Spots, &Spots) -> bool) -> bool {
    let (Ok(a), Ok(b)) =
        (one.assemble(&vec![None; one.slots.len()]), other.assemble(&vec![None; other.slots.len()]))
    else {
        return false;
    };
    let place = |candidate: &Candidate, array: &crate::ArrayDevice, address: u64| {
        let (place, run) = array.geometry().locate(address)?;
        let of = |member: u16, offset: u64| {
            let slot = candidate.slots.get(usize::from(member))?.as_ref()?;
            Some((slot.path.clone(), slot.data_offset + offset))
        };
        let mut spots = match place {
            geometry::md::Place::Copies(spots) => {
                spots.iter().map(|spot| of(spot.member, spot.offset)).collect()
            }
            // Parity of one member's data is a copy of it.
            geometry::md::Place::Row { spot, row } if row.data.len() == 1 && row.q.is_none() => {
                vec![of(spot.member, spot.offset), of(row.p, spot.offset)]
            }
            geometry::md::Place::Row { spot, row } => match (of(spot.member, spot.offset), row.q) {
                // What is missing is made of all others, wherever they are; only Q needs to know.
                (None, Some(q)) => {
                    let columns = row.data.iter().map(|member| of(*member, spot.offset));
                    return Some((
                        columns.chain([of(row.p, spot.offset), of(q, spot.offset)]).collect(),
                        run,
                    ));
                }
                (found, _) => vec![found],
            },
        };
        // One copy is as good as another.
        spots.sort();
        Some((spots, run))
    };
    // Layouts repeat after as many rows as there are members.
    let mut address = 0;
    let chunk = a.geometry().chunk().max(b.geometry().chunk()).max(4096);
    let period = chunk * (one.slots.len() * one.slots.len() * 2) as u64;
    let end = period.min(a.geometry().size()).min(b.geometry().size());
    for _ in 0..COMPARED_MAX {
        if address >= end {
            return true;
        }
        let (Some((left, run)), Some((right, other_run))) =
            (place(one, &a, address), place(other, &b, address))
        else {
            return false;
        };
        if !agree(&left, &right) {
            return false;
        }
        address += run.min(other_run);
    }
    false
}
