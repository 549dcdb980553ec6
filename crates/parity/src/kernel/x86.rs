//! The kernels of x86-64: SSSE3, AVX2, and GFNI at 256 and 512 bits.
//!
//! Without GFNI an element is doubled by adding it to itself and adding the reduction where the top bit was set, and
//! multiplied by looking up both halves of each byte. With GFNI both are one 8 by 8 bit matrix.

use super::sweep::kernel;
use crate::field::{self, Coefficient, REDUCTION, bit_matrix};
#[allow(clippy::wildcard_imports, reason = "dozens of instructions")]
use std::arch::x86_64::*;

/// Makes a vector type with the operations that differ by width in their names only.
macro_rules! vector {
    ($(#[$doc:meta])* $name:ident, $register:ty, $bytes:literal, $zero:ident, $load:ident, $store:ident, $stream:ident,
     $xor:ident, $or:ident, { $($rest:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        struct $name($register);

        // Everything in here only needs what the trait asks its callers for: the instructions and valid pointers.
        impl super::sweep::Vector for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Self($zero()) }
            }

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: the caller vouches for the instruction set and the bytes; alignment is not needed.
                unsafe { Self($load(from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: the caller vouches for the instruction set and the bytes; alignment is not needed.
                unsafe { $store(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn stream(self, to: *mut u8) {
                // SAFETY: the caller vouches for the instruction set, the bytes and the alignment.
                unsafe { $stream(to.cast(), self.0) }
            }

            #[inline(always)]
            fn prefetch(at: *const u8) {
                // SAFETY: every x86-64 has it, and it never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }

            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Self($xor(self.0, other.0)) }
            }

            #[inline(always)]
            unsafe fn or(self, other: Self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Self($or(self.0, other.0)) }
            }

            $($rest)*
        }
    };
}

/// What the top two bits of an element add when it is quadrupled.
static OVERFLOW_OF_QUADRUPLE: [u8; 16] = [
    0,
    field::multiply(4, 0x40),
    field::multiply(4, 0x80),
    field::multiply(4, 0xc0),
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
];

vector! {
    /// 16 elements, with SSSE3.
    Xmm, __m128i, 16, _mm_setzero_si128, _mm_loadu_si128, _mm_storeu_si128, _mm_stream_si128, _mm_xor_si128, _mm_or_si128, {
        #[inline(always)]
        unsafe fn double(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let overflow = _mm_cmpgt_epi8(_mm_setzero_si128(), self.0);
                let reduction = _mm_and_si128(overflow, _mm_set1_epi8(REDUCTION.cast_signed()));
                Self(_mm_xor_si128(_mm_add_epi8(self.0, self.0), reduction))
            }
        }

        #[inline(always)]
        unsafe fn quadruple(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let top = _mm_and_si128(_mm_srli_epi16::<6>(self.0), _mm_set1_epi8(3));
                let reduction = _mm_shuffle_epi8(_mm_loadu_si128(OVERFLOW_OF_QUADRUPLE.as_ptr().cast()), top);
                let double = _mm_add_epi8(self.0, self.0);
                Self(_mm_xor_si128(_mm_add_epi8(double, double), reduction))
            }
        }

        #[inline(always)]
        unsafe fn multiply(self, factor: &Coefficient) -> Self {
            // SAFETY: the caller vouches for the instruction set; the tables have 16 bytes.
            unsafe {
                let nibble = _mm_set1_epi8(0x0f);
                let low = _mm_loadu_si128(factor.low.as_ptr().cast());
                let high = _mm_loadu_si128(factor.high.as_ptr().cast());
                let low = _mm_shuffle_epi8(low, _mm_and_si128(self.0, nibble));
                let high = _mm_shuffle_epi8(high, _mm_and_si128(_mm_srli_epi16::<4>(self.0), nibble));
                Self(_mm_xor_si128(low, high))
            }
        }

        #[inline(always)]
        unsafe fn is_zero(self) -> bool {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, _mm_setzero_si128())) == 0xffff }
        }
    }
}

vector! {
    /// 32 elements, with AVX2.
    Ymm, __m256i, 32, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_stream_si256, _mm256_xor_si256,
    _mm256_or_si256, {
        #[inline(always)]
        unsafe fn double(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let overflow = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0);
                let reduction = _mm256_and_si256(overflow, _mm256_set1_epi8(REDUCTION.cast_signed()));
                Self(_mm256_xor_si256(_mm256_add_epi8(self.0, self.0), reduction))
            }
        }

        #[inline(always)]
        unsafe fn quadruple(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let top = _mm256_and_si256(_mm256_srli_epi16::<6>(self.0), _mm256_set1_epi8(3));
                let reduction = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(OVERFLOW_OF_QUADRUPLE.as_ptr().cast())), top);
                let double = _mm256_add_epi8(self.0, self.0);
                Self(_mm256_xor_si256(_mm256_add_epi8(double, double), reduction))
            }
        }

        #[inline(always)]
        unsafe fn multiply(self, factor: &Coefficient) -> Self {
            // SAFETY: the caller vouches for the instruction set; the tables have 16 bytes.
            unsafe {
                let nibble = _mm256_set1_epi8(0x0f);
                let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(factor.low.as_ptr().cast()));
                let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(factor.high.as_ptr().cast()));
                let low = _mm256_shuffle_epi8(low, _mm256_and_si256(self.0, nibble));
                let high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(self.0), nibble));
                Self(_mm256_xor_si256(low, high))
            }
        }

        #[inline(always)]
        unsafe fn is_zero(self) -> bool {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm256_testz_si256(self.0, self.0) == 1 }
        }
    }
}

vector! {
    /// 32 elements, with GFNI.
    YmmAffine, __m256i, 32, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_stream_si256, _mm256_xor_si256,
    _mm256_or_si256, {
        const ONE_STEP_PRODUCT: bool = true;

        #[inline(always)]
        unsafe fn double(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm256_set1_epi64x(const { bit_matrix(2) }.cast_signed());
                Self(_mm256_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn quadruple(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm256_set1_epi64x(const { bit_matrix(4) }.cast_signed());
                Self(_mm256_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn multiply(self, factor: &Coefficient) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm256_set1_epi64x(factor.matrix.cast_signed());
                Self(_mm256_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn is_zero(self) -> bool {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm256_testz_si256(self.0, self.0) == 1 }
        }
    }
}

/// The truth table of `a ^ b ^ c` for three-operand logic.
const XOR3: i32 = 0x96;

vector! {
    /// 64 elements, with GFNI and AVX-512.
    Zmm, __m512i, 64, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_stream_si512, _mm512_xor_si512,
    _mm512_or_si512, {
        const ONE_STEP_PRODUCT: bool = true;

        #[inline(always)]
        unsafe fn double(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm512_set1_epi64(const { bit_matrix(2) }.cast_signed());
                Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn quadruple(self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm512_set1_epi64(const { bit_matrix(4) }.cast_signed());
                Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn multiply(self, factor: &Coefficient) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm512_set1_epi64(factor.matrix.cast_signed());
                Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, matrix))
            }
        }

        #[inline(always)]
        unsafe fn is_zero(self) -> bool {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { _mm512_test_epi64_mask(self.0, self.0) == 0 }
        }

        #[inline(always)]
        unsafe fn xor3(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Self(_mm512_ternarylogic_epi64::<XOR3>(self.0, a.0, b.0)) }
        }

        // Two steps at once, as 4 * self + 2 * a + b: the chain from column to column is half as long.
        #[inline(always)]
        unsafe fn step2(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { self.quadruple().xor3(a.double(), b) }
        }

        #[inline(always)]
        unsafe fn step4(self, a: Self, b: Self) -> Self {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                let matrix = _mm512_set1_epi64(const { bit_matrix(16) }.cast_signed());
                Self(_mm512_gf2p8affine_epi64_epi8::<0>(self.0, matrix)).xor3(a.quadruple(), b)
            }
        }
    }
}

kernel!(
    #[target_feature(enable = "ssse3")]
    ssse3,
    Xmm,
    8,
    4,
    4,
    4
);
kernel!(
    #[target_feature(enable = "avx2")]
    avx2,
    Ymm,
    8,
    4,
    2,
    2
);
kernel!(
    #[target_feature(enable = "avx2,gfni")]
    gfni256,
    YmmAffine,
    8,
    4,
    4,
    4
);
kernel!(
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    gfni512,
    Zmm,
    8,
    8,
    8,
    4
);
