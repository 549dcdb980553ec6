//! Every operation under every kernel against the naive model.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Arena, LENGTHS, Noise, each_kernel, slices, slices_mut};
use proptest::prelude::*;

#[test]
fn generate_and_verify_agree_with_the_model_at_every_length() {
    for length in LENGTHS {
        for columns in [1, 2, 3, 4, 5, 12] {
            let data = Noise(length as u64).columns(columns, length);
            let expected = common::parity(&data, 3);
            each_kernel(|kernel| {
                for rows in 1..=3 {
                    let mut parity = vec![vec![0xaa; length]; rows];
                    parity::generate(&slices(&data), &mut slices_mut(&mut parity)).unwrap();
                    assert_eq!(parity, expected[..rows], "{kernel} k={columns} p={rows} length={length}");
                    assert!(parity::verify(&slices(&data), &slices(&parity)).unwrap());
                }
            });
        }
    }
}

/// Vector instructions that every processor of a family has must have been found, or the other tests prove little.
#[test]
fn the_family_has_more_than_the_reference() {
    #[cfg(target_arch = "x86_64")]
    assert!(parity::kernel::Kernel::Ssse3.is_available());
    #[cfg(target_arch = "aarch64")]
    assert!(parity::kernel::Kernel::Neon.is_available());
}

#[test]
fn wide_stripes_agree_with_the_model() {
    for columns in [13, 64, 127, 128, 200, 254, 255] {
        let data = Noise(columns as u64).columns(columns, 333);
        let expected = common::parity(&data, 3);
        each_kernel(|kernel| {
            let mut parity = vec![vec![0xaa; 333]; 3];
            parity::generate(&slices(&data), &mut slices_mut(&mut parity)).unwrap();
            assert!(parity == expected, "{kernel} k={columns}");
        });
    }
}

/// All sets of at most `most` of the numbers below `count`.
fn subsets(count: usize, most: usize) -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for element in 0..count {
        for at in 0..all.len() {
            if all[at].len() < most {
                let mut longer = all[at].clone();
                longer.push(element);
                all.push(longer);
            }
        }
    }
    all
}

/// Loses `lost`, rebuilds those of them that `wanted` selects, and compares.
fn lose_and_rebuild(columns: &[Vec<u8>], data_columns: usize, lost: &[usize], wanted: &[usize]) {
    let present: Vec<Option<&[u8]>> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| (!lost.contains(&at)).then_some(column.as_slice()))
        .collect();
    let mut rebuilt = vec![vec![0xaa; columns[0].len()]; wanted.len()];
    let mut targets: Vec<(usize, &mut [u8])> =
        wanted.iter().copied().zip(rebuilt.iter_mut().map(Vec::as_mut_slice)).collect();
    parity::reconstruct(data_columns, &present, &mut targets).unwrap();
    for (&column, bytes) in wanted.iter().zip(&rebuilt) {
        assert!(*bytes == columns[column], "k={data_columns} lost {lost:?}, column {column} came back wrong");
    }
}

#[test]
fn every_loss_pattern_comes_back_under_every_kernel() {
    let length = 64 * 2 + 13;
    for data_columns in 1..=12 {
        for rows in 1..=3 {
            let mut columns = Noise(7).columns(data_columns, length);
            columns.extend(common::parity(&columns, rows));
            for lost in subsets(data_columns + rows, rows) {
                each_kernel(|_| lose_and_rebuild(&columns, data_columns, &lost, &lost));
            }
        }
    }
}

#[test]
fn any_part_of_the_lost_columns_can_be_wanted_in_any_order() {
    let (data_columns, rows) = (5, 3);
    let mut columns = Noise(8).columns(data_columns, 300);
    columns.extend(common::parity(&columns, rows));
    for lost in subsets(data_columns + rows, rows) {
        for mut wanted in subsets(lost.len(), lost.len()) {
            for at in &mut wanted {
                *at = lost[*at];
            }
            wanted.reverse();
            each_kernel(|_| lose_and_rebuild(&columns, data_columns, &lost, &wanted));
        }
    }
}

#[test]
fn reconstruct_at_every_length() {
    for length in LENGTHS {
        let mut columns = Noise(9).columns(6, length);
        columns.extend(common::parity(&columns, 3));
        for lost in [&[0][..], &[2, 5], &[1, 3, 4], &[0, 6], &[5, 7], &[3, 6, 8], &[6, 7, 8], &[1, 7, 2]] {
            each_kernel(|_| lose_and_rebuild(&columns, 6, lost, lost));
        }
    }
}

#[test]
fn verify_sees_every_single_flipped_bit() {
    let length = 131;
    let data = Noise(10).columns(4, length);
    for rows in 1..=3 {
        let mut columns = data.clone();
        columns.extend(common::parity(&data, rows));
        for column in 0..4 + rows {
            for bit in 0..length * 8 {
                columns[column][bit / 8] ^= 1 << (bit % 8);
                each_kernel(|kernel| {
                    let (data, parity) = columns.split_at(4);
                    let fine = parity::verify(&slices(data), &slices(parity)).unwrap();
                    assert!(!fine, "{kernel} p={rows} column {column} bit {bit}");
                });
                columns[column][bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

/// Large enough for results to bypass the caches, with a tail that cannot.
#[test]
fn large_aligned_stripes_agree_with_the_model() {
    let (data_columns, length) = (9, 180_003);
    let mut columns = Noise(12).columns(data_columns, length);
    columns.extend(common::parity(&columns, 3));
    let mut arena = Arena::new(data_columns + 3, length);
    each_kernel(|kernel| {
        let mut targets = arena.columns();
        for (target, column) in targets.iter_mut().zip(&columns[..data_columns]) {
            target.copy_from_slice(column);
        }
        let (data, parity) = targets.split_at_mut(data_columns);
        let data: Vec<&[u8]> = data.iter().map(|column| &**column).collect();
        for column in parity.iter_mut() {
            column.fill(0xaa);
        }
        parity::generate(&data, parity).unwrap();
        assert!(targets.iter().zip(&columns).all(|(target, column)| **target == **column), "{kernel}");

        for lost in [[2, 5, data_columns + 1], [0, 1, 2], [3, 4, 8]] {
            let mut targets = arena.columns();
            for &column in &lost {
                targets[column].fill(0xaa);
            }
            let mut present = vec![];
            let mut wanted = vec![];
            for (at, target) in targets.into_iter().enumerate() {
                if lost.contains(&at) {
                    present.push(None);
                    wanted.push((at, target));
                } else {
                    present.push(Some(&*target));
                }
            }
            parity::reconstruct(data_columns, &present, &mut wanted).unwrap();
            assert!(wanted.iter().all(|(at, target)| **target == *columns[*at]), "{kernel} lost {lost:?}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Anything up to the widest stripe, at any misalignment, loses anything and comes back.
    #[test]
    fn random_stripes_survive_random_losses(
        seed: u64, data_columns in 1usize..=255, rows in 1usize..=3, length in 0usize..1200, shift in 0usize..64,
    ) {
        let mut noise = Noise(seed);
        let data = noise.columns(data_columns, length);
        let mut columns = data.clone();
        columns.extend(common::parity(&data, rows));
        // The same bytes at various offsets from an aligned address, the buffers of the results as well.
        let arena: Vec<Vec<u8>> = columns.iter().enumerate()
            .map(|(at, column)| [vec![0; (shift * at) % 64], column.clone()].concat()).collect();
        let shifted = |at: usize| &arena[at][(shift * at) % 64..];
        let mut lost = vec![];
        for _ in 0..noise.below(rows + 1) {
            let column = noise.below(data_columns + rows);
            if !lost.contains(&column) {
                lost.push(column);
            }
        }
        each_kernel(|kernel| {
            let inputs: Vec<&[u8]> = (0..data_columns).map(shifted).collect();
            let mut parity = vec![vec![0xaa; length + 64]; rows];
            let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(|row| &mut row[shift..shift + length]).collect();
            parity::generate(&inputs, &mut targets).unwrap();
            for (row, bytes) in parity.iter().enumerate() {
                assert!(bytes[shift..shift + length] == columns[data_columns + row], "{kernel} row {row}");
                assert!(bytes[..shift].iter().chain(&bytes[shift + length..]).all(|&byte| byte == 0xaa));
            }
            let present: Vec<Option<&[u8]>> =
                (0..columns.len()).map(|at| (!lost.contains(&at)).then(|| shifted(at))).collect();
            let mut rebuilt = vec![vec![0xaa; length + 64]; lost.len()];
            let mut targets: Vec<(usize, &mut [u8])> =
                lost.iter().copied().zip(rebuilt.iter_mut().map(|buffer| &mut buffer[shift..shift + length])).collect();
            parity::reconstruct(data_columns, &present, &mut targets).unwrap();
            for (&column, bytes) in lost.iter().zip(&rebuilt) {
                assert!(bytes[shift..shift + length] == columns[column], "{kernel} lost {lost:?}, column {column}");
                assert!(bytes[..shift].iter().chain(&bytes[shift + length..]).all(|&byte| byte == 0xaa));
            }
        });
    }
}
