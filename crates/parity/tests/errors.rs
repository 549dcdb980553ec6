//! Requests that must be refused, without a byte written.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{slices, slices_mut};
use parity::{ParityError, generate, locate, reconstruct, verify};

const NONE: &[&[u8]] = &[];

#[test]
fn numbers_of_columns() {
    let column = [0u8; 4];
    let mut target = vec![vec![0; 4]; 4];
    let too_many = vec![&column[..]; 256];
    let few = vec![&column[..]; 3];
    assert_eq!(
        generate(NONE, &mut slices_mut(&mut target[..1])).unwrap_err(),
        ParityError::DataColumns { found: 0 }
    );
    assert_eq!(
        generate(&too_many, &mut slices_mut(&mut target[..1])).unwrap_err(),
        ParityError::DataColumns { found: 256 }
    );
    assert_eq!(generate(&few, &mut []).unwrap_err(), ParityError::ParityColumns { found: 0, least: 1 });
    assert_eq!(
        generate(&few, &mut slices_mut(&mut target)).unwrap_err(),
        ParityError::ParityColumns { found: 4, least: 1 }
    );
    assert_eq!(verify(&few, NONE).unwrap_err(), ParityError::ParityColumns { found: 0, least: 1 });
    assert_eq!(locate(&few, &few[..1]).unwrap_err(), ParityError::ParityColumns { found: 1, least: 2 });
    let present = vec![Some(&column[..]); 3];
    assert_eq!(reconstruct(0, &present, &mut []).unwrap_err(), ParityError::DataColumns { found: 0 });
    assert_eq!(
        reconstruct(3, &present, &mut []).unwrap_err(),
        ParityError::ParityColumns { found: 0, least: 1 }
    );
    assert_eq!(
        reconstruct(7, &present, &mut []).unwrap_err(),
        ParityError::ParityColumns { found: 0, least: 1 }
    );
}

#[test]
fn lengths() {
    let columns = vec![vec![1; 8], vec![2; 8], vec![3; 7]];
    let mut parity = vec![vec![9; 8]];
    let error = ParityError::Length { column: 2, found: 7, expected: 8 };
    assert_eq!(generate(&slices(&columns), &mut slices_mut(&mut parity)).unwrap_err(), error);
    assert_eq!(parity, [[9; 8]]);
    assert_eq!(verify(&slices(&columns[..2]), &slices(&columns[2..])).unwrap_err(), error);
    let present = [Some(&columns[0][..]), None, Some(&columns[2])];
    let mut out = [9; 8];
    assert_eq!(reconstruct(2, &present, &mut [(1, &mut out)]).unwrap_err(), error);
    let present = [Some(&columns[0][..]), None, Some(&columns[1])];
    let error = ParityError::Length { column: 1, found: 5, expected: 8 };
    assert_eq!(reconstruct(2, &present, &mut [(1, &mut out[..5])]).unwrap_err(), error);
    assert_eq!(out, [9; 8]);
}

#[test]
fn losses() {
    let column = [0u8; 8];
    let c = Some(&column[..]);
    let (mut a, mut b) = ([9u8; 8], [9u8; 8]);
    let lost = |lost, parity| ParityError::TooManyLost { lost, parity };
    assert_eq!(reconstruct(2, &[None, None, c], &mut [(0, &mut a)]).unwrap_err(), lost(2, 1));
    assert_eq!(reconstruct(2, &[None, c, None], &mut [(0, &mut a)]).unwrap_err(), lost(1, 0));
    assert_eq!(reconstruct(5, &[None, None, None, None, None, c, c, c], &mut []).unwrap_err(), lost(5, 3));
    assert_eq!(
        reconstruct(2, &[None, c, c], &mut [(1, &mut a)]).unwrap_err(),
        ParityError::NotLost { column: 1 }
    );
    assert_eq!(
        reconstruct(2, &[None, c, c], &mut [(3, &mut a)]).unwrap_err(),
        ParityError::NoSuchColumn { column: 3, columns: 3 }
    );
    assert_eq!(
        reconstruct(2, &[None, c, c], &mut [(0, &mut a), (0, &mut b)]).unwrap_err(),
        ParityError::WantedTwice { column: 0 }
    );
    assert_eq!((a, b), ([9; 8], [9; 8]));
    reconstruct(2, &[None, c, c], &mut []).unwrap();
}

#[test]
fn messages_are_sentences_with_numbers() {
    let error = ParityError::TooManyLost { lost: 2, parity: 1 };
    assert_eq!(
        error.to_string(),
        "2 data columns are lost but only 1 parity columns are readable; find another copy of a column"
    );
}
