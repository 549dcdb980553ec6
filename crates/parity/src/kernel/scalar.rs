//! The reference kernel: eight elements in a 64-bit integer, and single bytes for what is shorter.

use super::sweep::{Vector, Work, kernel};
use crate::field::{self, Coefficient, REDUCTION};

impl Vector for u64 {
    const BYTES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        0
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for 8 readable bytes; the order of bytes does not matter to the field.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for 8 writable bytes.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: passed on.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        self | other
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        let top = self & (Self::MAX / 255 * 0x80);
        // All ones in each byte whose top bit is set: 0x80 * 2 - 0x01 without borrowing between bytes.
        let overflow = (top << 1).wrapping_sub(top >> 7);
        ((self ^ top) << 1) ^ (overflow & (Self::MAX / 255 * Self::from(REDUCTION)))
    }

    #[inline(always)]
    unsafe fn quadruple(self) -> Self {
        // SAFETY: no special instructions.
        unsafe { self.double().double() }
    }

    #[inline(always)]
    unsafe fn multiply(self, factor: &Coefficient) -> Self {
        let mut product = 0u64;
        for bit in (0..8).rev() {
            // SAFETY: no special instructions.
            product = unsafe { product.double() };
            product ^= if factor.value >> bit & 1 != 0 { self } else { 0 };
        }
        product
    }

    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        self == 0
    }
}

impl Vector for u8 {
    const BYTES: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        0
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for the byte.
        unsafe { from.read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for the byte.
        unsafe { to.write(self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut u8) {
        // SAFETY: passed on.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    fn prefetch(_: *const u8) {}

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        self ^ other
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        self | other
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        field::double(self)
    }

    #[inline(always)]
    unsafe fn quadruple(self) -> Self {
        field::multiply(self, 4)
    }

    #[inline(always)]
    unsafe fn multiply(self, factor: &Coefficient) -> Self {
        field::multiply(self, factor.value)
    }

    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        self == 0
    }
}

kernel!(scalar, u64, 8, 4, 2, 2);
kernel!(bytes, u8, 1, 1, 1, 1);

/// Runs an order that is shorter than the caller's vectors.
///
/// # Safety
/// The order keeps its promise.
pub(super) unsafe fn short(work: &Work<'_>) -> bool {
    // SAFETY: passed on.
    unsafe {
        match work.length {
            0 => true,
            1..8 => bytes(work),
            _ => scalar(work),
        }
    }
}
