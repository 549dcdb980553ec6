//! Which geometry explains where the witnesses are: each candidate is asked where every witness ought to be, and the
//! members vote for slots.

use std::collections::{BTreeMap, BTreeSet};

use geometry::md::{Copies, FarSets, Geometry, Holds, Place, Rotation5, Rotation6, Shape, Spot, ZoneOrder};

use super::gather::Witness;

/// A geometry with the places that the votes give the members.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fit {
    pub(super) shape: Shape,
    pub(super) chunk: u64,
    /// The image in each slot, and where its data begins.
    pub(super) slots: Vec<Option<(usize, u64)>>,
    /// How much of each member it uses, bytes, if that is known.
    pub(super) used: Option<u64>,
    /// Addresses of witnesses that it explains.
    pub(super) explained: usize,
}

/// Image, slot and offset, and the addresses that speak for them.
type Vote = ((usize, usize, u64), BTreeSet<u64>);

/// Offsets that are tried for all members alike.
const OFFSETS_ALIKE: usize = 2;

/// Most witnesses that are asked about each order of members.
const ASKED_MAX: usize = 1000;
/// Most geometries whose members are moved to explain more.
const CLIMBED_MAX: usize = 200;

/// What may be looked for.
fn shapes() -> Vec<Shape> {
    let copies = |near, far, offset| Shape::Raid10(Copies { near, far, offset, sets: FarSets::All });
    let mut shapes = vec![Shape::Raid0(ZoneOrder::Alternate), Shape::Raid1];
    shapes.extend(Rotation5::ALL.map(Shape::Raid5));
    shapes.extend([copies(2, 1, false), copies(1, 2, true), copies(1, 2, false), copies(3, 1, false)]);
    shapes.extend(Rotation6::all().map(Shape::Raid6));
    shapes
}

/// All geometries that explain nearly as many witnesses as the best one does, best first. `sizes` are those of the images;
/// `far` are the distances of far copies that were found.
pub(super) fn fit(witnesses: &[Witness], sizes: &[u64], far: &[u64]) -> Vec<Fit> {
    let count = sizes.len();
    let size = sizes.iter().copied().min().unwrap_or(0);
    let mut fits: Vec<Fit> = Vec::new();
    for shape in shapes() {
        for members in count..=count + usize::from(shape.tolerates(count as u16 + 1)).min(2) {
            // md makes no RAID 6 of three: that would be a mirror.
            let none = matches!(shape, Shape::Raid6(_)) && members < 4;
            if none || shape == Shape::Raid1 && members > count {
                continue;
            }
            for chunk in (10..=24).map(|shift| 1_u64 << shift).filter(|chunk| *chunk <= size) {
                if (shape == Shape::Raid1 || members == 1) && chunk > 1 << 10 {
                    continue;
                }
                fits.extend(vote(shape, chunk, members, witnesses, size, count, None));
                let is_far = matches!(shape, Shape::Raid10(Copies { far: 2, offset: false, .. }));
                for used in far.iter().filter(|far| is_far && far.is_multiple_of(chunk)).map(|far| far * 2) {
                    fits.extend(vote(shape, chunk, members, witnesses, size, count, Some(used)));
                }
            }
        }
    }
    // A part of them tells as much.
    let step = witnesses.len().div_ceil(ASKED_MAX).max(1);
    let asked: Vec<Witness> = witnesses.iter().copied().step_by(step).collect();
    for fit in &mut fits {
        fit.explained = explained(fit, &asked, size);
    }
    fits.sort_by_key(|fit| std::cmp::Reverse(fit.explained));
    let best = fits.first().map_or(0, |fit| fit.explained);
    for fit in fits.iter_mut().take(CLIMBED_MAX).filter(|fit| fit.explained * 4 >= best * 3) {
        climb(fit, &asked, size);
    }
    if step > 1 {
        for fit in &mut fits {
            fit.explained = explained(fit, witnesses, size);
        }
    }
    let best = fits.iter().map(|fit| fit.explained).max().unwrap_or(0);
    // Parity of rows that are nearly empty is a copy of what is in them: a wrong geometry may explain as many.
    fits.retain(|fit| fit.explained * 2 >= best);
    fits.sort_by_key(|fit| std::cmp::Reverse(fit.explained));
    let mut different: Vec<Fit> = Vec::new();
    for fit in fits {
        if !different.contains(&fit) {
            different.push(fit);
        }
    }
    different
}

/// How many addresses of witnesses are where a fit has them, or where it has parity that is a copy of them because the rest
/// of the row is empty. `size` is that of the members if the fit does not know.
pub(super) fn explained(fit: &Fit, witnesses: &[Witness], size: u64) -> usize {
    let used = fit.used.unwrap_or(size) / fit.chunk * fit.chunk;
    let Ok(geometry) = Geometry::new(fit.shape, fit.chunk, &vec![used; fit.slots.len()]) else { return 0 };
    let explains = |witness: &&Witness| {
        let mut slots = (0..).zip(&fit.slots);
        let place = slots.find_map(|(slot, place)| {
            place.filter(|(image, _)| *image == witness.image).map(|(_, start)| (slot, start))
        });
        let Some((member, start)) = place else { return false };
        let Some(offset) = witness.at.checked_sub(start) else { return false };
        let copied = |stripe: u64, q: bool| {
            let Some(row) = geometry.row(stripe) else { return false };
            let width = row.data.len() as u64 * fit.chunk;
            let index = (witness.address % width / fit.chunk) as usize;
            // Q is a copy only of what it counts once.
            let plain = !q || row.data.get(index).is_some_and(|member| row.column(index, *member) == 0);
            plain && witness.address / width == stripe && witness.address % fit.chunk == offset % fit.chunk
        };
        match geometry.holds(Spot { member, offset }) {
            Holds::Data(address) => address == witness.address,
            Holds::P(stripe) => copied(stripe, false),
            Holds::Q(stripe) => copied(stripe, true),
            Holds::Nothing => false,
        }
    };
    witnesses.iter().filter(explains).map(|witness| witness.address).collect::<BTreeSet<_>>().len()
}

/// Swaps members, or puts them into empty slots, as long as that explains more.
fn climb(fit: &mut Fit, witnesses: &[Witness], size: u64) {
    let count = fit.slots.len();
    let pairs = || (0..count).flat_map(|from| (from + 1..count).map(move |to| (from, to)));
    for _ in 0..count {
        let mut better = None;
        for (from, to) in pairs().filter(|(from, to)| fit.slots[*from] != fit.slots[*to]) {
            let mut other = fit.clone();
            other.slots.swap(from, to);
            other.explained = explained(&other, witnesses, size);
            if other.explained > better.as_ref().map_or(fit.explained, |better: &Fit| better.explained) {
                better = Some(other);
            }
        }
        let Some(better) = better else { return };
        *fit = better;
    }
}

/// The best places of the members under one geometry.
fn vote(
    shape: Shape,
    chunk: u64,
    members: usize,
    witnesses: &[Witness],
    size: u64,
    count: usize,
    used: Option<u64>,
) -> Vec<Fit> {
    // Only far copies depend on how long members are; they are cut to whole chunks.
    let Ok(geometry) = Geometry::new(shape, chunk, &vec![used.unwrap_or(size) / chunk * chunk; members])
    else {
        return Vec::new();
    };
    // For each image: how often which slot with which offset. An address that is found several times in one place of the
    // geometry counts once; so a file system's journal, with many copies of few blocks, outvotes nobody.
    let mut votes: BTreeMap<(usize, usize, u64), BTreeSet<u64>> = BTreeMap::new();
    for witness in witnesses {
        let Some((place, _)) = geometry.locate(witness.address) else { continue };
        let spots = match place {
            Place::Copies(spots) => spots,
            Place::Row { spot, .. } => vec![spot],
        };
        // A mirror explains all copies alike: one slot is as good as another.
        let spots = if shape == Shape::Raid1 { &spots[..1] } else { &spots[..] };
        for spot in spots {
            if let Some(offset) = witness.at.checked_sub(spot.offset)
                && offset.is_multiple_of(512)
                && offset <= size / 2
            {
                let slot = if shape == Shape::Raid1 { witness.image } else { usize::from(spot.member) };
                votes.entry((witness.image, slot, offset)).or_default().insert(witness.address);
            }
        }
    }
    // Members of one array mostly have the same offset: what most of them have breaks ties.
    let mut offsets: BTreeMap<u64, usize> = BTreeMap::new();
    for ((_, _, offset), count) in &votes {
        *offsets.entry(*offset).or_default() += count.len();
    }
    let mut ranked: Vec<Vote> = votes.into_iter().collect();
    ranked.sort_by_key(|((_, _, offset), found)| std::cmp::Reverse((found.len(), offsets[offset])));
    let mut favoured: Vec<(u64, usize)> = offsets.iter().map(|(offset, votes)| (*offset, *votes)).collect();
    favoured.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    // Copies that lie elsewhere get as many votes: each of the most common offsets is tried for all members, too.
    let alike = favoured.iter().take(OFFSETS_ALIKE).map(|(offset, _)| Some(*offset));
    let common = favoured.first().map_or(0, |(offset, _)| *offset);
    std::iter::once(None)
        .chain(alike)
        .map(|only| Fit { used, ..place(shape, chunk, members, &ranked, only, common, count) })
        .collect()
}

/// Gives members their slots, those with most votes first; if `only` is given, those alone that begin there.
fn place(
    shape: Shape,
    chunk: u64,
    members: usize,
    ranked: &[Vote],
    only: Option<u64>,
    common: u64,
    count: usize,
) -> Fit {
    let mut slots: Vec<Option<(usize, u64)>> = vec![None; members];
    let mut placed = BTreeSet::new();
    let mut explained: BTreeSet<u64> = BTreeSet::new();
    for ((image, slot, offset), found) in ranked {
        let alike = only.is_none_or(|only| only == *offset);
        if alike && slots.get(*slot) == Some(&None) && placed.insert(*image) {
            slots[*slot] = Some((*image, *offset));
            explained.extend(found);
        }
    }
    // Whoever holds no witness gets what is left, if that is only one way.
    let free: Vec<usize> = (0..members).filter(|slot| slots[*slot].is_none()).collect();
    let waiting: Vec<usize> = (0..count).filter(|image| !placed.contains(image)).collect();
    if let ([slot], [image]) = (&free[..], &waiting[..]) {
        slots[*slot] = Some((*image, only.unwrap_or(common)));
    }
    Fit { shape, chunk, slots, used: None, explained: explained.len() }
}
