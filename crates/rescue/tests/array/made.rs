//! Makes members of an array from its contents, slowly and plainly.
#![allow(clippy::unwrap_used, dead_code)]

use device::Rng;
use geometry::md::{Geometry, Holds, Shape, Spot};

/// An array of random bytes, and its members' data.
#[derive(Debug)]
pub struct Made {
    pub geometry: Geometry,
    pub contents: Vec<u8>,
    pub members: Vec<Vec<u8>>,
}

/// The product in GF(2^8), bit by bit.
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = (a << 1) ^ if a & 0x80 == 0 { 0 } else { 0x1d };
        b >>= 1;
    }
    product
}

pub fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

pub fn make(shape: Shape, chunk: u64, sizes: &[u64], seed: u64) -> Option<Made> {
    let geometry = Geometry::new(shape, chunk, sizes).ok()?;
    let contents = random(seed, geometry.size() as usize);
    let members = fill(&geometry, &contents, sizes);
    Some(Made { geometry, contents, members })
}

/// The members of an array with these contents.
pub fn fill(geometry: &Geometry, contents: &[u8], sizes: &[u64]) -> Vec<Vec<u8>> {
    let mut members: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xee; *size as usize]).collect();
    let data_at = |member: u16, offset: u64| match geometry.holds(Spot { member, offset }) {
        Holds::Data(address) => contents[address as usize],
        other => panic!("{other:?} where data ought to be"),
    };
    for (member, bytes) in (0..).zip(&mut members) {
        for (offset, byte) in (0..).zip(bytes) {
            match geometry.holds(Spot { member, offset }) {
                Holds::Data(address) => *byte = contents[address as usize],
                Holds::P(stripe) => {
                    let row = geometry.row(stripe).unwrap();
                    *byte = row.data.iter().fold(0, |sum, member| sum ^ data_at(*member, offset));
                }
                Holds::Q(stripe) => {
                    let row = geometry.row(stripe).unwrap();
                    *byte = row.data.iter().fold(0, |sum, member| {
                        let power = row.powers[usize::from(*member)].unwrap();
                        let factor = (0..power).fold(1, |factor, _| multiply(factor, 2));
                        sum ^ multiply(factor, data_at(*member, offset))
                    });
                }
                Holds::Nothing => {}
            }
        }
    }
    members
}
