//! Linear algebra over GF(2^8): relations between vectors of bytes.

use parity::Element;

fn multiply(a: u8, b: u8) -> u8 {
    (Element(a) * Element(b)).0
}

/// Brings `length` rows of `columns` values, which `value(row, column)` gives, into steps: for each column the row that
/// begins there with a 1, if there is one.
fn steps(length: usize, columns: usize, value: impl Fn(usize, usize) -> u8) -> Vec<Option<Vec<u8>>> {
    let mut pivots: Vec<Option<Vec<u8>>> = vec![None; columns];
    let mut left = columns;
    for at in 0..length {
        // All columns have their row: whatever follows says the same again.
        if left == 0 {
            break;
        }
        let mut row: Vec<u8> = (0..columns).map(|column| value(at, column)).collect();
        for column in 0..columns {
            let lead = row[column];
            if lead == 0 {
                continue;
            }
            let Some(pivot) = &pivots[column] else {
                // It is not 0.
                let scale = Element(lead).inverse().map_or(1, |inverse| inverse.0);
                row.iter_mut().for_each(|factor| *factor = multiply(*factor, scale));
                pivots[column] = Some(row);
                left -= 1;
                break;
            };
            for (factor, pivot) in row.iter_mut().zip(pivot) {
                *factor ^= multiply(lead, *pivot);
            }
        }
    }
    pivots
}

/// Solves `sum over column < unknowns of x * value(at, column) = value(at, unknowns)` for all `at`; `None`
/// if there is no or more than one solution.
pub(super) fn eliminate(
    length: usize,
    unknowns: usize,
    value: impl Fn(usize, usize) -> u8,
) -> Option<Vec<u8>> {
    let pivots = steps(length, unknowns + 1, value);
    // A row that begins with the last column says that zero is one.
    let pivots = match &pivots[..] {
        [pivots @ .., None] => pivots.iter().map(Option::as_ref).collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    let mut solution = vec![0; unknowns];
    for column in (0..unknowns).rev() {
        let known = (column + 1..unknowns).map(|later| multiply(pivots[column][later], solution[later]));
        solution[column] = known.fold(pivots[column][unknowns], |sum, product| sum ^ product);
    }
    Some(solution)
}

/// The factors with which these vectors add up to zero, if there is just one such relation between them.
pub(super) fn relation(vectors: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut all = relations(vectors);
    if all.len() == 1 { all.pop() } else { None }
}

/// All independent ways in which these vectors, each multiplied by its factor, add up to zero. Where they fall into groups that
/// have nothing to do with each other, each way is within one of them.
pub(crate) fn relations(vectors: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let columns = vectors.len();
    let Some(first) = vectors.first() else { return Vec::new() };
    let pivots = steps(first.len(), columns, |at, column| vectors[column][at]);
    let free = (0..columns).filter(|column| pivots[*column].is_none());
    let with = |free: usize| {
        let mut factors = vec![0; columns];
        factors[free] = 1;
        for column in (0..columns).rev() {
            if let Some(pivot) = &pivots[column] {
                let known = (column + 1..columns).map(|later| multiply(pivot[later], factors[later]));
                factors[column] = known.fold(0, |sum, product| sum ^ product);
            }
        }
        factors
    };
    free.map(with).collect()
}
