//! Which geometry explains where the witnesses are: each candidate is asked where every witness ought to be, and the
//! members vote for slots.

use std::collections::{BTreeMap, BTreeSet};

use geometry::md::{Copies, FarSets, Geometry, Place, Rotation5, Rotation6, Shape, ZoneOrder};

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
            if shape == Shape::Raid1 && members > count {
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
