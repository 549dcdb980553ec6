//! Copy, checksum and parity in one go against the three done one after the other.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Arena, Noise, each_kernel, slices, slices_mut};
use parity::{ParityError, Piece, Stores, StreamHasher, copy_checksum_generate};
use proptest::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_three_passes(
        seed: u64, columns in 1usize..20, length in 0usize..40_000, rows in 0usize..=3, cuts in 0usize..6,
        fill in 0usize..=4,
    ) {
        let mut noise = Noise(seed);
        let room = columns * length;
        let stream = noise.bytes(room * fill / 4);
        let mut bounds: Vec<usize> = (0..cuts).map(|_| noise.below(stream.len() + 1)).collect();
        bounds.extend([0, stream.len()]);
        bounds.sort_unstable();
        // Every third piece goes unhashed, every other one shares its hasher with the piece before.
        let pieces: Vec<Piece<'_>> = bounds.windows(2).enumerate()
            .map(|(at, pair)| Piece { bytes: &stream[pair[0]..pair[1]], hasher: (at % 3 != 2).then_some(at / 2) })
            .collect();
        let hashes: Vec<u128> = (0..4).map(|hasher| {
            let all: Vec<u8> = pieces.iter().filter(|piece| piece.hasher == Some(hasher))
                .flat_map(|piece| piece.bytes).copied().collect();
            xxh3_128(&all)
        }).collect();
        let mut padded = stream.clone();
        padded.resize(room, 0);
        let expected: Vec<Vec<u8>> = (0..columns).map(|at| padded[at * length..][..length].to_vec()).collect();
        let parity = common::parity(&expected, rows);
        for stores in [Stores::Cached, Stores::Streaming] {
 each_kernel(|kernel| {
            let mut hashers = vec![Xxh3::new(); 4];
            let mut out = vec![vec![0xaa; length]; columns];
            let mut out_parity = vec![vec![0xaa; length]; rows];
            copy_checksum_generate(&pieces, &mut hashers, &mut slices_mut(&mut out), &mut slices_mut(&mut out_parity), stores)
                .unwrap();
            assert!(out == expected, "{kernel}");
            assert!(out_parity == parity, "{kernel}");
            assert_eq!(hashers.iter().map(Xxh3::digest128).collect::<Vec<_>>(), hashes);
        });
 }
    }
}

#[test]
fn aligned_columns_are_streamed_right() {
    let (count, length) = (5, 30_000);
    let stream = Noise(4).bytes(count * length - 7);
    let mut padded = stream.clone();
    padded.resize(count * length, 0);
    let mut expected: Vec<Vec<u8>> = padded.chunks(length).map(<[u8]>::to_vec).collect();
    expected.extend(common::parity(&expected, 3));
    each_kernel(|kernel| {
        let mut arena = Arena::new(count + 3, length);
        let mut columns = arena.columns();
        let (data, parity) = columns.split_at_mut(count);
        let pieces = [(0, 77_777), (77_777, stream.len())]
            .map(|(from, to)| Piece { bytes: &stream[from..to], hasher: Some(0) });
        let mut hasher = [Xxh3::new()];
        copy_checksum_generate(&pieces, &mut hasher, data, parity, Stores::Streaming).unwrap();
        assert!(columns.iter().zip(&expected).all(|(column, expected)| **column == **expected), "{kernel}");
        assert_eq!(hasher[0].digest128(), xxh3_128(&stream));
    });
}

#[test]
fn extents_go_on_in_the_next_row() {
    let stream = Noise(3).bytes(4 * 1000);
    let mut hasher = Xxh3::new();
    for row in stream.chunks(2000) {
        let mut columns = vec![vec![0; 1000]; 2];
        let mut parity = vec![vec![0; 1000]; 2];
        let piece = Piece { bytes: row, hasher: Some(0) };
        copy_checksum_generate(
            &[piece],
            &mut [&mut hasher],
            &mut slices_mut(&mut columns),
            &mut slices_mut(&mut parity),
            Stores::Cached,
        )
        .unwrap();
        assert!(parity::verify(&slices(&columns), &slices(&parity)).unwrap());
        assert_eq!(columns.concat(), row);
    }
    assert_eq!(hasher.digest128(), xxh3_128(&stream));
}

#[test]
fn bad_requests_are_refused() {
    let bytes = [1; 100];
    let none: &mut [Box<dyn StreamHasher>] = &mut [];
    let mut columns = vec![vec![9; 10]; 2];
    let mut run = |pieces: &[Piece<'_>], parity: &mut [Vec<u8>]| {
        copy_checksum_generate(
            pieces,
            none,
            &mut slices_mut(&mut columns),
            &mut slices_mut(parity),
            Stores::Cached,
        )
    };
    let piece = |length, hasher| Piece { bytes: &bytes[..length], hasher };
    assert_eq!(run(&[piece(21, None)], &mut []), Err(ParityError::StreamTooLong { room: 20 }));
    assert_eq!(run(&[piece(1, Some(2))], &mut []), Err(ParityError::NoSuchHasher { hasher: 2, hashers: 0 }));
    assert_eq!(run(&[], &mut vec![vec![0; 10]; 4]), Err(ParityError::ParityColumns { found: 4, least: 0 }));
    assert_eq!(run(&[], &mut [vec![0; 9]]), Err(ParityError::Length { column: 2, found: 9, expected: 10 }));
    assert!(columns.concat().iter().all(|&byte| byte == 9));
}
