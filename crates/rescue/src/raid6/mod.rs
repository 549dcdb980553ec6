//! RAID 6 without superblocks: who holds P and Q in a row, and in which order Q counts the others, follows
//! from the row's bytes alone, whatever they mean.
//!
//! In a whole row P makes the xor of all members but Q zero, so Q is the member that equals the xor of all.
//! `Q = sum c_i * D_i` over the others is solved for the `c_i`, up to one constant added to all of them (since
//! their own sum is zero); for the right P the constant that makes `c_P` zero makes the rest powers of two.
//! With one member missing there is one relation between the others; for the right Q and P its factors are the
//! `c_i`, or differ from them by the one of the missing member.
//!
//! `rows` says what a row may be; each layout, chunk and offset is then asked which member would have which slot in each row,
//! and where the rows agree it fits. Where P and Q stay on their members the rows don't tell the chunk, so those are left
//! to other witnesses.

mod field;
mod rows;

use device::Rng;
use geometry::md::{Geometry, Rotation6, Shape};

use crate::{Candidate, Image, infer::TIED, score};
pub(crate) use field::relations;
use rows::Roles;

/// Bytes of a row that are solved.
const SECTOR: usize = 512;
/// Places looked at.
const PLACES: u64 = 4096;
/// Half of them are in so many bytes from the beginning on.
const HEAD: u64 = 2 << 30;
/// Solved rows that are enough.
const ROWS_ENOUGH: usize = 128;
/// Full rows of which none can be solved, after which it is no RAID 6.
const TRIED_MAX: usize = 2048;
/// Solved rows without which nothing is said.
const ROWS_LEAST: usize = 12;
/// Most candidates that are proposed if nothing on them is recognised.
const BLIND_MAX: usize = 8;
/// Where data begins by default, sectors: metadata at the end, the versions of mdadm, RAIDframe with sectors
/// of 512 and of 4096 bytes.
const OFFSETS: [u64; 18] = [
    2048, 0, 264_192, 262_144, 133_120, 131_072, 67_584, 65_536, 34_816, 4096, 272, 264, 144, 64, 512, 24,
    16, 1024,
];

/// A row: where it is, and what it may be.
type Row = (u64, Vec<Roles>);

/// A geometry that fits, and which image is in which slot; the missing one has the number behind the last.
struct Fit {
    shape: Shape,
    chunk: u64,
    start: u64,
    slots: Vec<usize>,
}

/// Candidates for the RAID 6 whose members are exactly these images, all of them or all but one; empty if they are none.
pub(crate) fn infer(images: &[&Image]) -> Vec<Candidate> {
    let sizes: Vec<u64> = images.iter().filter_map(|image| image.device.size().ok()).collect();
    let size = sizes.iter().copied().min().filter(|size| sizes.len() == images.len() && *size >= 1 << 20);
    let Some(size) = size.filter(|_| (3..=64).contains(&images.len())) else { return Vec::new() };
    for lacking in [false, true] {
        let members = images.len() + usize::from(lacking);
        if members < 4 {
            continue;
        }
        let rows = solved_rows(images, size, lacking);
        if rows.len() < ROWS_LEAST {
            continue;
        }
        let fits = fits(&rows, members, size);
        if !fits.is_empty() {
            return propose(images, size, &fits, rows.len());
        }
    }
    Vec::new()
}

fn propose(images: &[&Image], size: u64, fits: &[Fit], rows: usize) -> Vec<Candidate> {
    let candidate = |fit: &Fit| {
        let slot = |member: &usize| images.get(*member).map(|image| image.slot(fit.start, size - fit.start));
        let (level, layout) = fit.shape.codes();
        Candidate {
            array: "raid6-without-superblocks".to_owned(),
            score: 0,
            reasons: vec![
                format!("{rows} rows that could be solved tell this order of members"),
                "where the array ends is not known: it may be shown a little too long".to_owned(),
            ],
            level,
            layout,
            shape: String::new(),
            chunk: fit.chunk,
            slots: fit.slots.iter().map(slot).collect(),
            left_out: Vec::new(),
            reshape: None,
            logs: None,
            check_parity: false,
            overwritten_by: None,
        }
    };
    let mut candidates: Vec<Candidate> = fits.iter().map(candidate).collect();
    // Only where something begins the array is worth a closer look.
    let begins = |candidate: &Candidate| {
        let Ok(array) = candidate.open_among(images) else { return false };
        score::recognised(candidate, &array, images)
            .is_ok_and(|found| found.iter().any(|found| !found.damaged))
    };
    let known: Vec<bool> = candidates.iter().map(begins).collect();
    let blind = known.iter().all(|known| !known);
    let all = candidates.len();
    let mut known = known.into_iter();
    candidates.retain(|_| known.next().unwrap_or(false) || blind);
    if blind {
        candidates.truncate(BLIND_MAX);
    }
    let mut candidates: Vec<Candidate> =
        candidates.into_iter().map(|candidate| score::scored(candidate, false, images)).collect();
    // The rows alone fix neither the offset nor symmetric against asymmetric: contents do.
    let (best, ties) = score::keep_best(&mut candidates);
    for candidate in candidates.iter_mut().filter(|candidate| candidate.score == best) {
        if blind {
            candidate.score = candidate.score.min(TIED - 5);
            candidate
                .reasons
                .push(format!("{all} candidates fit the parity, and nothing on any is recognised"));
        } else if ties > 1 {
            candidate.score = candidate.score.min(TIED);
            candidate.reasons.push(format!("{ties} candidates fit equally well and can't be told apart"));
        }
    }
    candidates
}

/// Rows that could be solved, with their offsets, at places all over the members.
fn solved_rows(images: &[&Image], size: u64, lacking: bool) -> Vec<Row> {
    const PAGE: u64 = 4096;
    let mut rng = Rng::new(6);
    let pages = size / PAGE;
    let places = PLACES.min(pages);
    let mut order: Vec<u64> = (0..places).collect();
    rng.shuffle(&mut order);
    let mut rows = Vec::new();
    let mut tried = 0;
    for place in order {
        // One page out of each of `places` equal parts, or of as many of the beginning: arrays fill up from there.
        let span = if rng.chance(1, 2) { pages.min(HEAD / PAGE).max(places) } else { pages };
        let part = span / places;
        let offset = (place * part + rng.below(part)) * PAGE;
        let read = |image: &&Image| {
            let mut bytes = vec![0; PAGE as usize];
            image.device.read(offset, &mut bytes).ok().map(|()| bytes)
        };
        let Some(pages) = images.iter().map(read).collect::<Option<Vec<_>>>() else { continue };
        for at in (0..PAGE as usize).step_by(SECTOR) {
            let members: Vec<Vec<u8>> = pages.iter().map(|page| page[at..at + SECTOR].to_vec()).collect();
            // Of what is mostly empty no order follows.
            if members.iter().filter(|bytes| bytes.iter().all(|byte| *byte == 0)).count() > 0 {
                continue;
            }
            tried += 1;
            let roles = if lacking { rows::lacking(&members) } else { rows::whole(&members) };
            if !roles.is_empty() {
                rows.push((offset + at as u64, roles));
                break;
            }
        }
        if rows.len() >= ROWS_ENOUGH || rows.is_empty() && tried >= TRIED_MAX {
            break;
        }
    }
    rows
}

/// All geometries in which the rows put each member always into the same slot.
fn fits(rows: &[Row], members: usize, size: u64) -> Vec<Fit> {
    let fixed = |rotation: &Rotation6| {
        let Ok(geometry) = Geometry::new(Shape::Raid6(*rotation), 4096, &vec![1 << 20; members]) else {
            return true;
        };
        (1..members as u64)
            .all(|stripe| geometry.row(stripe).map(|row| row.p) == geometry.row(0).map(|row| row.p))
    };
    let mut found = Vec::new();
    for rotation in Rotation6::all().filter(|rotation| !fixed(rotation)) {
        let shape = Shape::Raid6(rotation);
        for chunk in (12..=24).map(|shift| 1_u64 << shift) {
            let Ok(geometry) = Geometry::new(shape, chunk, &vec![size; members]) else { continue };
            for start in
                OFFSETS.map(|sectors| sectors * 512).into_iter().filter(|start| start + chunk <= size)
            {
                if let Some(slots) = agreed(&geometry, rows, start) {
                    found.push(Fit { shape, chunk, start, slots });
                }
            }
        }
    }
    // The usual beginnings first.
    found.sort_by_key(|fit| OFFSETS.iter().position(|sectors| sectors * 512 == fit.start));
    found
}

/// Which member is in which slot, if nearly all rows say so.
fn agreed(geometry: &Geometry, rows: &[Row], start: u64) -> Option<Vec<usize>> {
    let members = usize::from(geometry.members());
    let mut votes = vec![vec![0_u32; members]; members];
    let mut assigned: Vec<Vec<Vec<usize>>> = Vec::new();
    for (offset, alternatives) in rows {
        let Some(within) = offset.checked_sub(start) else { continue };
        let row = geometry.row(within / geometry.chunk())?;
        let mut all = Vec::new();
        for roles in alternatives {
            let member = |slot: usize| {
                if slot == usize::from(row.p) {
                    Some(roles.p)
                } else if row.q.map(usize::from) == Some(slot) {
                    Some(roles.q)
                } else {
                    roles.by_power.get(usize::from(row.powers[slot]?)).copied().flatten()
                }
            };
            if let Some(slots) = (0..members).map(member).collect::<Option<Vec<usize>>>() {
                slots.iter().zip(&mut votes).for_each(|(member, votes)| votes[*member] += 1);
                all.push(slots);
            }
        }
        assigned.push(all);
    }
    let most = |votes: &Vec<u32>| (0..members).max_by_key(|member| votes[*member]);
    let slots: Vec<usize> = votes.iter().filter_map(most).collect();
    let once = (0..members).all(|member| slots.contains(&member));
    let agree = assigned.iter().filter(|all| all.contains(&slots)).count();
    let enough = agree >= ROWS_LEAST && agree * 20 >= assigned.len() * 19 && assigned.len() * 2 >= rows.len();
    (once && enough).then_some(slots)
}
