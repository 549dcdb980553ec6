//! Who is who in a row of RAID 6, from its bytes alone.

use parity::Element;

use super::field;

/// What the members of a row may be. Members are numbered as they are given; the one that is missing, if any, has the
/// number behind the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) p: usize,
    pub(super) q: usize,
    /// The members with data, by their power in Q; as many places as members, of which P and Q take two or the last two
    /// are empty.
    pub(super) by_power: Vec<Option<usize>>,
}

/// All that can be in a row with all its members.
pub(super) fn whole(members: &[Vec<u8>]) -> Vec<Roles> {
    let count = members.len();
    let Some(length) = members.first().map(Vec::len) else { return Vec::new() };
    let sum: Vec<u8> = (0..length).map(|at| members.iter().fold(0, |sum, member| sum ^ member[at])).collect();
    let mut equal = (0..count).filter(|member| members[*member] == sum);
    let (Some(q), None, true) = (equal.next(), equal.next(), sum.iter().any(|byte| *byte != 0)) else {
        return Vec::new();
    };
    let others: Vec<usize> = (0..count).filter(|member| *member != q).collect();
    // P is the sum of the data, so that one constant may be added to all coefficients: the first of them gets 0.
    let unknown = &others[1..];
    let value = |at: usize, column: usize| members[unknown.get(column).copied().unwrap_or(q)][at];
    let Some(solution) = field::eliminate(length, unknown.len(), value) else { return Vec::new() };
    let coefficients: Vec<u8> = std::iter::once(0).chain(solution).collect();
    let roles = |(&p, &shift): (&usize, &u8)| {
        let data = others.iter().zip(&coefficients).filter(|(member, _)| **member != p);
        let data = data.map(|(member, coefficient)| (*member, coefficient ^ shift));
        Some(Roles { p, q, by_power: by_power(count, data)? })
    };
    others.iter().zip(&coefficients).filter_map(roles).collect()
}

/// All that can be in a row that lacks one of its members.
pub(super) fn lacking(members: &[Vec<u8>]) -> Vec<Roles> {
    let (count, absent) = (members.len() + 1, members.len());
    let Some(relation) = field::relation(members) else { return Vec::new() };
    if relation.iter().all(|factor| *factor == relation[0]) {
        // Q is missing: the rest says nothing of the order.
        return Vec::new();
    }
    let mut found = Vec::new();
    for q in (0..absent).filter(|member| relation[*member] != 0) {
        let Some(scale) = Element(relation[q]).inverse() else { continue };
        let factor = |member: usize| (Element(relation[member]) * scale).0;
        let others = || (0..absent).filter(move |member| *member != q);
        // Without P the factors are the coefficients themselves.
        let data = others().map(|member| (member, factor(member)));
        if let Some(by_power) = by_power(count, data) {
            found.push(Roles { p: absent, q, by_power });
        }
        // Otherwise P and the rest stand for a member with data.
        for p in others() {
            let own = factor(p);
            let data = others().filter(|member| *member != p).map(|member| (member, factor(member) ^ own));
            if let Some(by_power) = by_power(count, data.chain([(absent, own)])) {
                found.push(Roles { p, q, by_power });
            }
        }
    }
    found
}

/// The members by their powers, if the coefficients are different powers of two below `count`.
fn by_power(count: usize, data: impl Iterator<Item = (usize, u8)>) -> Option<Vec<Option<usize>>> {
    let mut places = vec![None; count];
    for (member, coefficient) in data {
        let place = places.get_mut(Element(coefficient).logarithm()?)?;
        if place.replace(member).is_some() {
            return None;
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use device::Rng;

    use super::*;

    #[test]
    fn a_row_is_solved_from_random_bytes_alone() {
        let mut rng = Rng::new(1);
        for count in 4..30 {
            let mut bytes = || (0..512).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>();
            let data: Vec<Vec<u8>> = (2..count).map(|_| bytes()).collect();
            let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let (mut p, mut q) = (vec![0; 512], vec![0; 512]);
            parity::generate(&columns, &mut [&mut p, &mut q]).unwrap();
            // Members in the order D1, P, D2, ..., Q, D0.
            let mut members = data[1..].to_vec();
            members.insert(1, p);
            members.push(q);
            members.push(data[0].clone());
            let powers = [count - 1, 0].into_iter().chain(2..count - 2).map(Some);
            let by_power: Vec<Option<usize>> = powers.chain([None, None]).collect();
            let wanted = Roles { p: 1, q: count - 2, by_power };
            assert_eq!(whole(&members), std::slice::from_ref(&wanted), "{count} members");
            // Any one of them may be missing, but for Q.
            for gone in (0..count).filter(|gone| *gone != count - 2) {
                let mut rest = members.clone();
                rest.remove(gone);
                let moved = |member: usize| match member.cmp(&gone) {
                    std::cmp::Ordering::Less => member,
                    std::cmp::Ordering::Equal => count - 1,
                    std::cmp::Ordering::Greater => member - 1,
                };
                let left = Roles {
                    p: moved(wanted.p),
                    q: moved(wanted.q),
                    by_power: wanted.by_power.iter().map(|member| member.map(moved)).collect(),
                };
                assert!(lacking(&rest).contains(&left), "{count} members without {gone}");
            }
            members[0][3] ^= 1;
            assert!(whole(&members).is_empty());
        }
    }
}
