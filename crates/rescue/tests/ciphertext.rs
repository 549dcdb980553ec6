//! RAID 6 of random bytes without superblocks, whole and without one member: parity alone has to tell who is where.
//!
//! `COFFER_CIPHERTEXT=N` makes that many arrays of each kind (2 without) and prints what came of them.
#![allow(clippy::unwrap_used)]

use std::fs;

use device::{BlockDevice, Rng};
use geometry::md::{Geometry, Shape};
use rescue::{Image, plan, scan};

/// What is before the data on each member.
const START: u64 = 1 << 20;
/// Layouts in which parity moves; the others stay open, and that is said.
const LAYOUTS: [u32; 7] = [0, 1, 2, 3, 8, 9, 10];

/// The members of an array of these contents.
fn members(geometry: &Geometry, contents: &[u8], rows: u64) -> Vec<Vec<u8>> {
    let chunk = geometry.chunk() as usize;
    let mut members = vec![vec![0; START as usize]; usize::from(geometry.members())];
    let mut rest = contents;
    for stripe in 0..rows {
        let row = geometry.row(stripe).unwrap();
        let zeros = vec![0; chunk];
        let mut columns: Vec<&[u8]> = vec![&zeros; row.columns()];
        for (index, member) in row.data.iter().enumerate() {
            let (bytes, left) = rest.split_at(chunk);
            columns[row.column(index, *member)] = bytes;
            members[usize::from(*member)].extend_from_slice(bytes);
            rest = left;
        }
        let (mut p, mut q) = (vec![0; chunk], vec![0; chunk]);
        parity::generate(&columns, &mut [&mut p, &mut q]).unwrap();
        members[usize::from(row.p)].extend(p);
        members[usize::from(row.q.unwrap())].extend(q);
    }
    members
}

#[test]
fn order_of_ciphertext() {
    let wanted = std::env::var("COFFER_CIPHERTEXT").ok();
    let count = wanted.as_ref().map_or(2, |count| count.parse().unwrap());
    let mut rng = Rng::new(24);
    for missing in [false, true] {
        let (mut right, mut ties, mut sure) = (0, 0, 0);
        for _ in 0..count {
            let disks = rng.within(4..25);
            let layout = *rng.choose(&LAYOUTS).unwrap();
            let chunk = 4096 << rng.below(4);
            let rows = disks * 2 + rng.below(20);
            let shape = Shape::from_codes(6, layout).unwrap();
            let geometry = Geometry::new(shape, chunk, &vec![rows * chunk; disks as usize]).unwrap();
            let mut contents = vec![0; geometry.size() as usize];
            rng.fill(&mut contents);
            let folder = tempfile::tempdir().unwrap();
            let mut names: Vec<u64> = (0..disks).collect();
            rng.shuffle(&mut names);
            let gone = if missing { rng.below(disks) } else { disks };
            let mut images = Vec::new();
            for (slot, bytes) in (0..).zip(members(&geometry, &contents, rows)) {
                let path = folder.path().join(format!("{:02}", names[slot as usize]));
                fs::write(&path, bytes).unwrap();
                if slot != gone {
                    images.push(Image::open(&path).unwrap());
                }
            }
            images.sort_by(|one, other| one.path.cmp(&other.path));
            let plan = plan(&images, &scan(&images));
            sure += plan.candidates.iter().filter(|candidate| candidate.score > 50).count();
            let best = plan.candidates.first().map_or(0, |candidate| candidate.score);
            let first = plan.candidates.iter().filter(|candidate| candidate.score == best);
            let is_right = |candidate: &rescue::Candidate| {
                let mut bytes = vec![0; contents.len()];
                candidate.open().is_ok_and(|array| array.read(0, &mut bytes).is_ok()) && bytes == contents
            };
            let (all, found) = (first.clone().count(), first.filter(|candidate| is_right(candidate)).count());
            right += usize::from(found > 0);
            ties += all;
            if found == 0 && wanted.is_some() {
                println!("not found: {shape} of {disks}, chunk {chunk}, {rows} rows, without {gone}: {all}");
            }
        }
        if wanted.is_some() {
            println!(
                "missing {missing}: {right} of {count} among the first, {ties} first ones in all, {sure} sure"
            );
        }
        assert_eq!(sure, 0, "nothing on them proves anything");
        assert!(wanted.is_some() || right == count, "{right} of {count}");
    }
}
