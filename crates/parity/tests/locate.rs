//! Finding the silently wrong column.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{Noise, each_kernel, slices};
use parity::Location;

fn locate(columns: &[Vec<u8>], data_columns: usize) -> Location {
    let (data, parity) = columns.split_at(data_columns);
    parity::locate(&slices(data), &slices(parity)).unwrap()
}

fn stripe(data_columns: usize, rows: usize, length: usize) -> Vec<Vec<u8>> {
    let mut columns = Noise(11).columns(data_columns, length);
    columns.extend(common::parity(&columns, rows));
    columns
}

#[test]
fn every_single_wrong_column_is_found() {
    for data_columns in [1, 2, 3, 8, 12, 255] {
        for rows in 2..=3 {
            let mut columns = stripe(data_columns, rows, 9000);
            each_kernel(|_| assert_eq!(locate(&columns, data_columns), Location::Clean));
            for column in 0..columns.len() {
                let good = columns[column].clone();
                // One bit somewhere, then bytes in several blocks.
                columns[column][(column * 97) % 9000] ^= 1 << (column % 8);
                each_kernel(|kernel| {
                    assert_eq!(locate(&columns, data_columns), Location::Column(column), "{kernel}");
                });
                for at in [0, 1, 4095, 4096, 8999] {
                    columns[column][at] ^= 0x5a;
                }
                assert_eq!(locate(&columns, data_columns), Location::Column(column));
                columns[column] = good;
            }
        }
    }
}

#[test]
fn two_wrong_columns_at_different_places_are_ambiguous() {
    for rows in 2..=3 {
        let mut columns = stripe(6, rows, 5000);
        columns[1][3] ^= 1;
        columns[4][4900] ^= 1;
        each_kernel(|_| assert_eq!(locate(&columns, 6), Location::Ambiguous));
    }
}

#[test]
fn three_parities_expose_two_wrong_columns_at_one_place() {
    let mut columns = stripe(6, 3, 100);
    columns[1][50] ^= 3;
    columns[4][50] ^= 9;
    assert_eq!(locate(&columns, 6), Location::Ambiguous);
    let mut columns = stripe(6, 3, 100);
    columns[6][50] ^= 3;
    columns[7][50] ^= 9;
    assert_eq!(locate(&columns, 6), Location::Ambiguous);
}

#[test]
fn a_column_beyond_the_stripe_is_ambiguous() {
    // Syndromes as of an error in data column 5 of a stripe that has only 3.
    let mut columns = stripe(3, 2, 10);
    columns[3][0] ^= 1;
    columns[4][0] ^= 32;
    assert_eq!(locate(&columns, 3), Location::Ambiguous);
}
