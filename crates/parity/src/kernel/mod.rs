//! The inner loops, one set per instruction set, and the choice among them.
//!
//! [`Pass`] is the safe face: it collects columns (slices, so pointers that are valid for one common length) and hands
//! a [`Work`] order to the kernel in force. `sweep` holds the one generic loop, `scalar`, `x86` and `neon` the vector
//! types it is compiled for. The kernel in force is the widest that the processor has, unless [`with`] forces another
//! one for the calling thread.

#![allow(clippy::inline_always, reason = "vectors must not be passed through calls")]
#![allow(clippy::needless_range_loop, reason = "one index runs over several arrays of registers and memory")]

#[cfg(target_arch = "aarch64")]
mod neon;
mod pass;
mod scalar;
mod sweep;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use pass::{Pass, Rows};

use crate::field::Coefficient;
use std::cell::Cell;
use std::fmt;
use std::ptr;

/// A set of inner loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// 64-bit integers; works everywhere and is the reference for the others.
    Scalar,
    /// 128-bit vectors with byte shuffles.
    Ssse3,
    /// 256-bit vectors with byte shuffles.
    Avx2,
    /// 256-bit vectors with GF(2) affine transformations.
    Gfni256,
    /// 512-bit vectors with GF(2) affine transformations and three-operand logic.
    Gfni512,
    /// 128-bit vectors of 64-bit ARM.
    Neon,
}

impl Kernel {
    /// All kernels, the preferred ones last.
    pub const ALL: [Self; 6] =
        [Self::Scalar, Self::Neon, Self::Ssse3, Self::Avx2, Self::Gfni256, Self::Gfni512];

    /// Whether this processor can run the kernel.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Ssse3 => std::is_x86_feature_detected!("ssse3"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Gfni256 => std::is_x86_feature_detected!("gfni") && std::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Gfni512 => {
                std::is_x86_feature_detected!("gfni")
                    && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            _ => false,
        }
    }

    /// Runs an order; `true` unless it was to check for zero and something was not zero.
    fn run(self, work: &sweep::Work<'_>) -> bool {
        match self {
            // SAFETY: the kernel in force is always an available one (`current`), so the instructions exist; that the
            // pointers of `work` are valid is promised by whoever built it.
            #[cfg(target_arch = "x86_64")]
            Self::Ssse3 => unsafe { x86::ssse3(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Gfni256 => unsafe { x86::gfni256(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Gfni512 => unsafe { x86::gfni512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::neon(work) },
            // SAFETY: as above, and no special instructions.
            _ => unsafe { scalar::scalar(work) },
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Ssse3 => "ssse3",
            Self::Avx2 => "avx2",
            Self::Gfni256 => "gfni-256",
            Self::Gfni512 => "gfni-512",
            Self::Neon => "neon",
        })
    }
}

/// The kernels that this processor can run, the preferred one last.
pub fn available() -> impl Iterator<Item = Kernel> {
    Kernel::ALL.into_iter().filter(|kernel| kernel.is_available())
}

/// Copies as many bytes as both have, past the caches if `streaming` and the target is aligned for that. Until [`fence`]
/// has been called, other threads may see streamed bytes later than what this thread writes afterwards.
pub(crate) fn copy(from: &[u8], to: &mut [u8], streaming: bool) {
    let target = to.as_mut_ptr();
    current().run(&sweep::Work {
        columns: &[from.as_ptr()],
        scale: [Coefficient::of(1); 3],
        rows: 1,
        fold: [ptr::null(); 3],
        length: from.len().min(to.len()),
        streaming: streaming && target.addr().is_multiple_of(sweep::LINE),
        sink: sweep::Sink::Store([target, ptr::null_mut(), ptr::null_mut()]),
    });
}

/// Puts streamed stores into the order of the program, in which all other stores are already.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Asks the processor to fetch these bytes into its first cache.
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(sweep::LINE) {
        // SAFETY: every x86-64 has the instruction, and it never faults.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast()) }
    }
    let _ = bytes;
}

thread_local! {
    static FORCED: Cell<Option<Kernel>> = const { Cell::new(None) };
}

/// The kernel that the calling thread's operations use now.
pub fn current() -> Kernel {
    FORCED
        .get()
        .or_else(|| Kernel::ALL.into_iter().rev().find(|kernel| kernel.is_available()))
        .unwrap_or(Kernel::Scalar)
}

/// Runs `f` with `kernel` in force for this thread, for tests and benchmarks; `None`, and `f` is not called, if the
/// processor cannot run that kernel.
pub fn with<T>(kernel: Kernel, f: impl FnOnce() -> T) -> Option<T> {
    /// Puts the former choice back, also when `f` panics.
    struct Restore(Option<Kernel>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    if !kernel.is_available() {
        return None;
    }
    let _restore = Restore(FORCED.replace(Some(kernel)));
    Some(f())
}
