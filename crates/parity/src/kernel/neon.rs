//! The kernel of 64-bit ARM.

use super::sweep::{Vector, kernel};
use crate::field::{Coefficient, REDUCTION};
#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::aarch64::*;

/// 16 elements.
#[derive(Clone, Copy)]
struct Quad(uint8x16_t);

impl Vector for Quad {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self(vdupq_n_u8(0)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for the instruction set and the bytes; alignment is not needed.
        unsafe { Self(vld1q_u8(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for the instruction set and the bytes; alignment is not needed.
        unsafe { vst1q_u8(to, self.0) }
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
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self(veorq_u8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { Self(vorrq_u8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let overflow = vreinterpretq_u8_s8(vshrq_n_s8::<7>(vreinterpretq_s8_u8(self.0)));
            Self(veorq_u8(vshlq_n_u8::<1>(self.0), vandq_u8(overflow, vdupq_n_u8(REDUCTION))))
        }
    }

    #[inline(always)]
    unsafe fn quadruple(self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { self.double().double() }
    }

    #[inline(always)]
    unsafe fn multiply(self, factor: &Coefficient) -> Self {
        // SAFETY: the caller vouches for the instruction set; the tables have 16 bytes.
        unsafe {
            let low = vqtbl1q_u8(vld1q_u8(factor.low.as_ptr()), vandq_u8(self.0, vdupq_n_u8(0x0f)));
            let high = vqtbl1q_u8(vld1q_u8(factor.high.as_ptr()), vshrq_n_u8::<4>(self.0));
            Self(veorq_u8(low, high))
        }
    }

    #[inline(always)]
    unsafe fn is_zero(self) -> bool {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { vmaxvq_u8(self.0) == 0 }
    }
}

kernel!(
    #[target_feature(enable = "neon")]
    neon,
    Quad,
    4,
    4,
    4,
    4
);
