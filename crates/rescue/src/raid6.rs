//! RAID 6 without superblocks: who holds P and Q in a row, and in which order Q counts the others, follows
//! from the row's bytes alone, whatever they mean.
//!
//! In a whole row P makes the xor of all members but Q zero, so Q is the member that equals the xor of all.
//! `Q = sum c_i * D_i` over the others is solved for the `c_i`, up to one constant added to all of them (since
//! their own sum is zero); for the right P the constant that makes `c_P` zero makes the rest `1, 2, 4, ...`.
//! From row to row P walks through the members, and the length of its steps is the chunk.
//!
//! Complete sets with the rotations 0 to 3 are found. Where P stays on one member the rows don't tell the chunk.

use std::collections::BTreeMap;

use device::Rng;
use geometry::md::{Rotation5, Rotation6, Shape};

use crate::{Candidate, Image, score};

/// Bytes of a row that are solved.
const SECTOR: usize = 512;
/// Places looked at.
const PLACES: u64 = 4096;
/// Solved rows that are enough.
const ROWS_ENOUGH: usize = 128;
/// Solved rows without which nothing is said.
const ROWS_LEAST: usize = 12;
/// Where data begins by default, sectors: metadata at the end, then the versions of mdadm.
const OFFSETS: [u64; 16] =
    [2048, 0, 264_192, 262_144, 133_120, 131_072, 67_584, 65_536, 34_816, 4096, 272, 264, 144, 24, 16, 1024];

/// One solved row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Solved {
    p: usize,
    q: usize,
    /// The members with data, by their power in Q.
    order: Vec<usize>,
}

/// Products and quotients in GF(2^8) by logarithms.
struct Field {
    power: [u8; 255],
    log: [u8; 256],
}

impl Field {
    fn new() -> Self {
        let (mut power, mut log) = ([0; 255], [0; 256]);
        let mut element: u8 = 1;
        for (slot, exponent) in power.iter_mut().zip(0..=254_u8) {
            *slot = element;
            log[usize::from(element)] = exponent;
            element = (element << 1) ^ if element & 0x80 == 0 { 0 } else { 0x1d };
        }
        Self { power, log }
    }

    fn at(&self, exponent: usize) -> u8 {
        self.power[exponent % 255]
    }

    fn multiply(&self, a: u8, b: u8) -> u8 {
        if a == 0 || b == 0 {
            return 0;
        }
        self.at(usize::from(self.log[usize::from(a)]) + usize::from(self.log[usize::from(b)]))
    }

    /// `1 / a`, for `a` that is not 0.
    fn inverse(&self, a: u8) -> u8 {
        self.at(255 - usize::from(self.log[usize::from(a)]))
    }

    /// Who is who in a row with all its members.
    fn solve(&self, members: &[Vec<u8>]) -> Option<Solved> {
        let count = members.len();
        let length = members.first()?.len();
        let sum: Vec<u8> =
            (0..length).map(|at| members.iter().fold(0, |sum, member| sum ^ member[at])).collect();
        if sum.iter().all(|byte| *byte == 0) {
            return None;
        }
        let mut equal = (0..count).filter(|member| members[*member] == sum);
        let (Some(q), None) = (equal.next(), equal.next()) else { return None };
        let others: Vec<usize> = (0..count).filter(|member| *member != q).collect();
        // The first of them gets the coefficient 0, which fixes the free constant.
        let unknown = &others[1..];
        let solution = self.eliminate(length, unknown.len(), |at, column| {
            members[unknown.get(column).copied().unwrap_or(q)][at]
        })?;
        let coefficients: Vec<u8> = std::iter::once(0).chain(solution).collect();
        let mut found = None;
        for (p, shift) in others.iter().zip(&coefficients) {
            let mut order = vec![None; count - 2];
            for (member, coefficient) in others.iter().zip(&coefficients).filter(|(member, _)| *member != p) {
                let power = match coefficient ^ shift {
                    0 => usize::MAX,
                    element => usize::from(self.log[usize::from(element)]),
                };
                if let Some(place) = order.get_mut(power) {
                    *place = Some(*member);
                }
            }
            // As many places as members, so that if all are taken none was taken twice.
            if let Some(order) = order.into_iter().collect::<Option<Vec<usize>>>() {
                if found.is_some() {
                    return None;
                }
                found = Some(Solved { p: *p, q, order });
            }
        }
        found
    }

    /// Solves `sum over column < unknowns of x * value(at, column) = value(at, unknowns)` for all `at`; `None`
    /// if there is no or more than one solution.
    fn eliminate(
        &self,
        length: usize,
        unknowns: usize,
        value: impl Fn(usize, usize) -> u8,
    ) -> Option<Vec<u8>> {
        let mut pivots: Vec<Option<Vec<u8>>> = vec![None; unknowns];
        for at in 0..length {
            let mut equation: Vec<u8> = (0..=unknowns).map(|column| value(at, column)).collect();
            for column in 0..unknowns {
                let lead = equation[column];
                if lead == 0 {
                    continue;
                }
                let Some(pivot) = &pivots[column] else {
                    let scale = self.inverse(lead);
                    equation.iter_mut().for_each(|factor| *factor = self.multiply(*factor, scale));
                    pivots[column] = Some(std::mem::take(&mut equation));
                    break;
                };
                for (factor, pivot) in equation.iter_mut().zip(pivot) {
                    *factor ^= self.multiply(lead, *pivot);
                }
            }
            // What has no unknowns left must say that zero is zero.
            if equation.last().is_some_and(|rest| *rest != 0) {
                return None;
            }
        }
        let pivots = pivots.into_iter().collect::<Option<Vec<_>>>()?;
        let mut solution = vec![0; unknowns];
        for column in (0..unknowns).rev() {
            let known =
                (column + 1..unknowns).map(|later| self.multiply(pivots[column][later], solution[later]));
            solution[column] = known.fold(pivots[column][unknowns], |sum, product| sum ^ product);
        }
        Some(solution)
    }
}

/// Candidates for the RAID 6 whose members are exactly these images, all of them; empty if they are none.
pub(crate) fn infer(images: &[&Image]) -> Vec<Candidate> {
    let count = images.len();
    let sizes: Vec<u64> = images.iter().filter_map(|image| image.device.size().ok()).collect();
    let Some(size) = sizes.iter().copied().min().filter(|_| sizes.len() == count) else { return Vec::new() };
    if !(4..=64).contains(&count) || size < 1 << 20 {
        return Vec::new();
    }
    let rows = solved_rows(images, size);
    // All rows must tell the same order round the members: P, Q, then by powers.
    let mut orders: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for (_, row) in &rows {
        *orders.entry(round(row)).or_default() += 1;
    }
    let Some((order, votes)) = orders.into_iter().max_by_key(|(_, votes)| *votes) else { return Vec::new() };
    if votes < ROWS_LEAST || votes * 10 < rows.len() * 9 {
        return Vec::new();
    }
    // Where P is in that order, in each row.
    let place = |row: &Solved| order.iter().position(|member| *member == row.p);
    let walk: Vec<(u64, u64)> = rows
        .iter()
        .filter(|(_, row)| round(row) == order)
        .filter_map(|(offset, row)| Some((*offset, place(row)? as u64)))
        .collect();
    let mut candidates = Vec::new();
    for (chunk, start, left, first) in steps(&walk, count as u64, size) {
        let rotations = if left {
            [Rotation5::LeftSymmetric, Rotation5::LeftAsymmetric]
        } else {
            [Rotation5::RightSymmetric, Rotation5::RightAsymmetric]
        };
        let slots = (0..count).map(|slot| {
            let image = images[order[(first as usize + slot) % count]];
            Some(image.slot(start, size - start))
        });
        let slots: Vec<_> = slots.collect();
        for rotation in rotations {
            let (level, layout) = Shape::Raid6(Rotation6::Md(rotation)).codes();
            let reasons = vec![
                format!("{votes} of {} rows that could be solved tell this order of members", rows.len()),
                "where the array ends is not known: it may be shown a little too long".to_owned(),
            ];
            candidates.push(score::scored(
                Candidate {
                    array: "raid6 without superblocks".to_owned(),
                    score: 0,
                    reasons,
                    level,
                    layout,
                    shape: String::new(),
                    chunk,
                    slots: slots.clone(),
                    left_out: Vec::new(),
                    reshape: None,
                },
                false,
                images,
            ));
        }
    }
    let best = candidates.iter().map(|candidate| candidate.score).max().unwrap_or(0);
    // The rows alone fix neither the offset nor symmetric against asymmetric: contents do.
    candidates.retain(|candidate| candidate.score + 10 >= best);
    let ties = candidates.iter().filter(|candidate| candidate.score == best).count();
    if ties > 1 {
        for candidate in candidates.iter_mut().filter(|candidate| candidate.score == best) {
            candidate.score = candidate.score.min(50);
            candidate.reasons.push(format!("{ties} candidates fit equally well and can't be told apart"));
        }
    }
    candidates
}

/// The members of a row in the order P, Q, powers, turned so that the first image comes first.
fn round(row: &Solved) -> Vec<usize> {
    let mut order: Vec<usize> = [row.p, row.q].into_iter().chain(row.order.iter().copied()).collect();
    let first = order.iter().position(|member| *member == 0).unwrap_or(0);
    order.rotate_left(first);
    order
}

/// Rows that could be solved, with their offsets, at places all over the members.
fn solved_rows(images: &[&Image], size: u64) -> Vec<(u64, Solved)> {
    const PAGE: u64 = 4096;
    let field = Field::new();
    let mut rng = Rng::new(6);
    let pages = size / PAGE;
    let places = PLACES.min(pages);
    let mut order: Vec<u64> = (0..places).collect();
    rng.shuffle(&mut order);
    let mut rows = Vec::new();
    for place in order {
        // One page out of each of `places` equal parts.
        let part = pages / places;
        let offset = (place * part + rng.below(part)) * PAGE;
        let read = |image: &&Image| {
            let mut bytes = vec![0; PAGE as usize];
            image.device.read(offset, &mut bytes).ok().map(|()| bytes)
        };
        let Some(pages) = images.iter().map(read).collect::<Option<Vec<_>>>() else { continue };
        for at in (0..PAGE as usize).step_by(SECTOR) {
            let members: Vec<Vec<u8>> = pages.iter().map(|page| page[at..at + SECTOR].to_vec()).collect();
            if let Some(row) = field.solve(&members) {
                rows.push((offset + at as u64, row));
                break;
            }
        }
        if rows.len() >= ROWS_ENOUGH {
            break;
        }
    }
    rows
}

/// Chunk, data offset, whether P walks to the left, and which place in the order is slot 0, for all that fit.
fn steps(walk: &[(u64, u64)], count: u64, size: u64) -> Vec<(u64, u64, bool, u64)> {
    let mut fits = Vec::new();
    for chunk in (12..=24).map(|shift| 1_u64 << shift) {
        for start in OFFSETS.map(|sectors| sectors * 512).into_iter().filter(|start| start + chunk <= size) {
            for left in [true, false] {
                // If P's slot in stripe s is known, so is slot 0's place.
                let first = |(offset, place): &(u64, u64)| {
                    let stripe = offset.checked_sub(start)? / chunk % count;
                    let slot = if left { count - 1 - stripe } else { stripe };
                    Some((place + count - slot) % count)
                };
                let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
                for first in walk.iter().filter_map(first) {
                    *votes.entry(first).or_default() += 1;
                }
                let all: usize = votes.values().sum();
                let Some((first, most)) = votes.into_iter().max_by_key(|(_, votes)| *votes) else { continue };
                if most >= ROWS_LEAST && most * 20 >= all * 19 {
                    fits.push((chunk, start, left, first));
                }
            }
        }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_solved_from_random_bytes_alone() {
        let mut rng = Rng::new(1);
        for count in 4..30 {
            let mut bytes = || (0..SECTOR).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
            let data: Vec<Vec<u8>> = (2..count).map(|_| bytes()).collect();
            let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let (mut p, mut q) = (vec![0; SECTOR], vec![0; SECTOR]);
            parity::generate(&columns, &mut [&mut p, &mut q]).unwrap();
            // Members in the order D1, P, D2, ..., Q, D0.
            let mut members = data[1..].to_vec();
            members.insert(1, p);
            members.push(q);
            members.push(data[0].clone());
            let order = [count - 1, 0].into_iter().chain(2..count - 2).collect();
            let solved = Field::new().solve(&members);
            assert_eq!(solved, Some(Solved { p: 1, q: count - 2, order }), "{count} members");
            members[0][3] ^= 1;
            assert_eq!(Field::new().solve(&members), None);
        }
    }
}
