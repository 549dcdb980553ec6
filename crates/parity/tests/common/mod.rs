//! The naive model: one byte at a time, one bit at a time, no tables.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

/// Product in GF(2^8) modulo 0x11d by schoolbook multiplication and long division of polynomials.
pub fn multiply(a: u8, b: u8) -> u8 {
    let mut product = 0u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            product ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if product >> bit & 1 == 1 {
            product ^= 0x11d << (bit - 8);
        }
    }
    u8::try_from(product).unwrap()
}

/// Parity columns by the definition: row `r` is the sum of `(2^r)^i * D_i`.
pub fn parity(data: &[Vec<u8>], rows: usize) -> Vec<Vec<u8>> {
    let length = data.first().map_or(0, Vec::len);
    (0..rows)
        .map(|row| {
            let mut sums = vec![0; length];
            let mut power = 1;
            for column in data {
                for (sum, &byte) in sums.iter_mut().zip(column) {
                    *sum ^= multiply(power, byte);
                }
                for _ in 0..row {
                    power = multiply(power, 2);
                }
            }
            sums
        })
        .collect()
}

/// Deterministic bytes without structure.
pub struct Noise(pub u64);

impl Noise {
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.word() % bound as u64).unwrap()
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.word().to_le_bytes()[0]).collect()
    }

    pub fn columns(&mut self, count: usize, length: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.bytes(length)).collect()
    }
}

pub fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

pub fn slices_mut(columns: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    columns.iter_mut().map(Vec::as_mut_slice).collect()
}

/// Runs `f` once under each kernel that this processor has.
pub fn each_kernel(mut f: impl FnMut(parity::kernel::Kernel)) {
    for kernel in parity::kernel::available() {
        parity::kernel::with(kernel, || f(kernel)).unwrap();
    }
}

/// Lengths around every vector width and chunk, and some longer than any block.
pub const LENGTHS: [usize; 28] = [
    0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 256, 257, 511, 512, 513, 577, 1023,
    4095, 4096, 4097, 70_001,
];

/// Columns that lie exactly their length, rounded up to pages, apart in one block that starts at a page.
pub struct Arena {
    memory: Vec<u8>,
    start: usize,
    stride: usize,
    length: usize,
}

impl Arena {
    pub fn new(count: usize, length: usize) -> Self {
        const PAGE: usize = 4096;
        let stride = length.next_multiple_of(PAGE);
        let memory = vec![0xaa; count * stride + PAGE];
        Self { start: memory.as_ptr().align_offset(PAGE), memory, stride, length }
    }

    pub fn columns(&mut self) -> Vec<&mut [u8]> {
        let length = self.length;
        self.memory[self.start..].chunks_exact_mut(self.stride).map(|chunk| &mut chunk[..length]).collect()
    }
}
