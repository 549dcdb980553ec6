//! Arithmetic in GF(2^8) modulo 0x11d, one element at a time, and the constants the kernels multiply by.

/// x^8 without the x^8: what is added when a product overflows.
pub(crate) const REDUCTION: u8 = 0x1d;

/// The product of two elements, bit by bit.
pub(crate) const fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// `2 * a`.
pub(crate) const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 != 0 { REDUCTION } else { 0 }
}

/// `a` to the power `exponent`.
pub(crate) const fn power(mut a: u8, mut exponent: usize) -> u8 {
    let mut result = 1;
    while exponent != 0 {
        if exponent & 1 != 0 {
            result = multiply(result, a);
        }
        a = multiply(a, a);
        exponent >>= 1;
    }
    result
}

/// `1 / a`; 0 for 0, which no caller divides by.
pub(crate) const fn inverse(a: u8) -> u8 {
    power(a, 254) // the multiplicative group has 255 elements
}

/// Powers of two and logarithms to the base of two, for those who look elements up one by one.
static POWERS: [u8; 255] = {
    let mut powers = [1; 255];
    let mut exponent = 1;
    while exponent < 255 {
        powers[exponent] = double(powers[exponent - 1]);
        exponent += 1;
    }
    powers
};
static LOGARITHMS: [u8; 256] = {
    let mut logarithms = [0; 256];
    let mut exponent = 0;
    while exponent < 255 {
        logarithms[POWERS[exponent as usize] as usize] = exponent;
        exponent += 1;
    }
    logarithms
};

/// An element of GF(2^8), for linear algebra on single bytes. Whole columns are what [`generate`](crate::generate) and
/// [`reconstruct`](crate::reconstruct) are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element(pub u8);

impl Element {
    /// Which power of two it is, below 255; `None` for 0.
    pub fn logarithm(self) -> Option<usize> {
        (self.0 != 0).then(|| usize::from(LOGARITHMS[usize::from(self.0)]))
    }

    /// `1 / self`; `None` for 0.
    pub fn inverse(self) -> Option<Self> {
        self.logarithm().map(|logarithm| Self(POWERS[(255 - logarithm) % 255]))
    }
}

impl std::ops::Mul for Element {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        match (self.logarithm(), other.logarithm()) {
            (Some(one), Some(two)) => Self(POWERS[(one + two) % 255]),
            _ => Self(0),
        }
    }
}

/// The generator of parity row 0 (P), 1 (Q) or 2 (R).
pub(crate) const GENERATORS: [u8; 3] = [1, 2, 4];

/// A constant factor in every shape that some kernel wants.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct Coefficient {
    /// Products with 0x00 to 0x0f, for a byte shuffle.
    pub(crate) low: [u8; 16],
    /// Products with 0x00 to 0xf0 in steps of 0x10.
    pub(crate) high: [u8; 16],
    /// The multiplication as a bit matrix, as `gf2p8affineqb` takes it.
    pub(crate) matrix: u64,
    /// The factor itself.
    pub(crate) value: u8,
}

impl Coefficient {
    /// The factor `value`.
    pub(crate) fn of(value: u8) -> &'static Self {
        &COEFFICIENTS[usize::from(value)]
    }

    const fn new(value: u8) -> Self {
        let mut low = [0; 16];
        let mut high = [0; 16];
        let mut nibble = 0;
        while nibble < 16 {
            low[nibble as usize] = multiply(value, nibble);
            high[nibble as usize] = multiply(value, nibble << 4);
            nibble += 1;
        }
        Self { low, high, matrix: bit_matrix(value), value }
    }
}

/// Row for output bit `i` is byte `7 - i`; its bit `j` says whether input bit `j` goes into that output bit.
pub(crate) const fn bit_matrix(value: u8) -> u64 {
    let mut matrix = 0u64;
    let mut j = 0;
    while j < 8 {
        let column = multiply(value, 1 << j);
        let mut i = 0;
        while i < 8 {
            if column >> i & 1 != 0 {
                matrix |= 1 << (8 * (7 - i) + j);
            }
            i += 1;
        }
        j += 1;
    }
    matrix
}

static COEFFICIENTS: [Coefficient; 256] = {
    let mut all = [const { Coefficient::new(0) }; 256];
    let mut value = 0;
    while value < 256 {
        all[value] = Coefficient::new(value as u8);
        value += 1;
    }
    all
};

/// Inverts the upper left `n` by `n` part of a matrix; `None` if it is singular.
pub(crate) fn invert(mut matrix: [[u8; 3]; 3], n: usize) -> Option<[[u8; 3]; 3]> {
    let mut result = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    for column in 0..n {
        let pivot = (column..n).find(|&row| matrix[row][column] != 0)?;
        matrix.swap(column, pivot);
        result.swap(column, pivot);
        let scale = inverse(matrix[column][column]);
        for i in 0..n {
            matrix[column][i] = multiply(matrix[column][i], scale);
            result[column][i] = multiply(result[column][i], scale);
        }
        for row in 0..n {
            let factor = matrix[row][column];
            if row != column && factor != 0 {
                for i in 0..n {
                    matrix[row][i] ^= multiply(factor, matrix[column][i]);
                    result[row][i] ^= multiply(factor, result[column][i]);
                }
            }
        }
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_generates_the_group() {
        let mut seen = [false; 256];
        for exponent in 0..255 {
            let element = power(2, exponent);
            assert!(!std::mem::replace(&mut seen[usize::from(element)], true));
            assert_eq!(multiply(element, inverse(element)), 1);
        }
        assert!(!seen[0]);
    }

    #[test]
    fn tables_agree_with_the_products_bit_by_bit() {
        for a in 0..=255u8 {
            assert_eq!(Element(a).inverse(), (a != 0).then(|| Element(inverse(a))));
            assert_eq!(Element(a).logarithm().map(|exponent| power(2, exponent)), (a != 0).then_some(a));
            for b in 0..=255u8 {
                assert_eq!(Element(a) * Element(b), Element(multiply(a, b)));
            }
        }
    }

    #[test]
    fn coefficient_shapes_agree() {
        for a in 0..=255u8 {
            let c = Coefficient::of(a);
            for b in 0..=255u8 {
                let product = multiply(a, b);
                assert_eq!(c.low[usize::from(b & 15)] ^ c.high[usize::from(b >> 4)], product);
                let affine = (0..8u8).fold(0, |sum, i| {
                    let row = c.matrix.to_le_bytes()[usize::from(7 - i)];
                    sum | (((row & b).count_ones() & 1) as u8) << i
                });
                assert_eq!(affine, product);
            }
        }
    }
}
