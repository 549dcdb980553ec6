//! Linear algebra over GF(2^8).

/// Products and quotients in GF(2^8) by logarithms, with the polynomial 0x11d.
pub(super) struct Field {
    power: [u8; 255],
    log: [u8; 256],
}

impl Field {
    pub(super) fn new() -> Self {
        let (mut power, mut log) = ([0; 255], [0; 256]);
        let mut element: u8 = 1;
        for (slot, exponent) in power.iter_mut().zip(0..=254_u8) {
            *slot = element;
            log[usize::from(element)] = exponent;
            element = (element << 1) ^ if element & 0x80 == 0 { 0 } else { 0x1d };
        }
        Self { power, log }
    }

    fn at(&self, exponent: usize) -> u8 {
        self.power[exponent % 255]
    }

    /// Which power of two it is; `None` for 0.
    pub(super) fn logarithm(&self, element: u8) -> Option<usize> {
        (element != 0).then(|| usize::from(self.log[usize::from(element)]))
    }

    pub(super) fn multiply(&self, a: u8, b: u8) -> u8 {
        if a == 0 || b == 0 {
            return 0;
        }
        self.at(usize::from(self.log[usize::from(a)]) + usize::from(self.log[usize::from(b)]))
    }

    /// `1 / a`, for `a` that is not 0.
    pub(super) fn inverse(&self, a: u8) -> u8 {
        self.at(255 - usize::from(self.log[usize::from(a)]))
    }

    /// Brings `length` rows of `columns` values, which `value(row, column)` gives, into steps: for each column the row that
    /// begins there with a 1, if there is one.
    fn steps(
        &self,
        length: usize,
        columns: usize,
        value: impl Fn(usize, usize) -> u8,
    ) -> Vec<Option<Vec<u8>>> {
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
                    let scale = self.inverse(lead);
                    row.iter_mut().for_each(|factor| *factor = self.multiply(*factor, scale));
                    pivots[column] = Some(row);
                    left -= 1;
                    break;
                };
                for (factor, pivot) in row.iter_mut().zip(pivot) {
                    *factor ^= self.multiply(lead, *pivot);
                }
            }
        }
        pivots
    }

    /// Solves `sum over column < unknowns of x * value(at, column) = value(at, unknowns)` for all `at`; `None`
    /// if there is no or more than one solution.
    pub(super) fn eliminate(
        &self,
        length: usize,
        unknowns: usize,
        value: impl Fn(usize, usize) -> u8,
    ) -> Option<Vec<u8>> {
        let pivots = self.steps(length, unknowns + 1, value);
        // A row that begins with the last column says that zero is one.
        let pivots = match &pivots[..] {
            [pivots @ .., None] => pivots.iter().map(Option::as_ref).collect::<Option<Vec<_>>>()?,
            _ => return None,
        };
        let mut solution = vec![0; unknowns];
        for column in (0..unknowns).rev() {
            let known =
                (column + 1..unknowns).map(|later| self.multiply(pivots[column][later], solution[later]));
            solution[column] = known.fold(pivots[column][unknowns], |sum, product| sum ^ product);
        }
        Some(solution)
    }

    /// The factors with which these vectors add up to zero, if there is just one such relation between them.
    pub(super) fn relation(&self, vectors: &[Vec<u8>]) -> Option<Vec<u8>> {
        let columns = vectors.len();
        let pivots = self.steps(vectors.first()?.len(), columns, |at, column| vectors[column][at]);
        let mut free = (0..columns).filter(|column| pivots[*column].is_none());
        let (Some(free), None) = (free.next(), free.next()) else { return None };
        let mut factors = vec![0; columns];
        factors[free] = 1;
        for column in (0..columns).rev() {
            if let Some(pivot) = &pivots[column] {
                let known = (column + 1..columns).map(|later| self.multiply(pivot[later], factors[later]));
                factors[column] = known.fold(0, |sum, product| sum ^ product);
            }
        }
        Some(factors)
    }
}
