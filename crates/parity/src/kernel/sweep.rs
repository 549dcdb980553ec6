//! The one loop behind all kernels, generic over the vector type.
//!
//! For each chunk of a few vectors, all columns are read from last to first, and each row's sum is multiplied by the
//! row's generator before a column is added. So the sums never leave the registers and no tables of powers are needed.
//!
//! A chunk is whole cache lines where columns are aligned, and all vectors of a column's chunk are loaded before the next
//! column's. So a line may go as soon as it has been used, and columns whose lines all compete for the same few ways of
//! the first cache, as those of page-aligned columns do, lose little. The same columns also compete for the few entries
//! that the first translation buffer has for their pages (six where there are 16 sets of them and columns are a multiple
//! of 64 KiB apart): each change of column then costs a look into the second one. That is why chunks are as long as the
//! registers allow. Traversing columns in groups that fit, with the sums kept in memory between the groups, loses almost
//! nothing by alignment and yet is slower than this.

use crate::field::Coefficient;

/// Bytes of a cache line, and the widest vector.
pub(super) const LINE: usize = 64;

/// How far ahead the lines of results are fetched, bytes. Stores that miss the first cache fill the store buffer, and
/// a few hundred bytes are too late.
const AHEAD: usize = 1024;

/// Up to how many columns the lines of results are fetched: with more of them stores have the time to wait, and fetching
/// only evicts.
const FEW_COLUMNS: usize = 4;

/// What becomes of the sums.
pub(super) enum Sink<'a> {
    /// Each row goes to the target of its number.
    Store([*mut u8; 3]),
    /// Target `i` gets the sum over the rows of `matrix[i][row] * sum`.
    Combine {
        /// One to three targets.
        targets: &'a [*mut u8],
        /// Factors by target and row.
        matrix: &'a [[&'static Coefficient; 3]; 3],
        /// Whether the last target is also what is left of P's sum when the other targets are taken from it.
        rest: bool,
    },
    /// Nothing is stored; the result says whether all sums were zero.
    Check,
}

/// An order for a kernel.
///
/// Whoever builds one promises that all pointers but null ones are valid for `length` bytes: readable in `columns`
/// and `fold`, writable and not overlapping anything else in the targets. In `Store`, the targets of all rows are
/// valid.
pub(super) struct Work<'a> {
    /// Data columns in the order of their powers; null is a column of zeroes.
    pub(super) columns: &'a [*const u8],
    /// What each row's sum of the columns is multiplied by: the powers of columns that were left out before the first.
    pub(super) scale: [&'static Coefficient; 3],
    /// Bit set of the rows to sum.
    pub(super) rows: u8,
    /// Stored parity to add to a row's sum, or null.
    pub(super) fold: [*const u8; 3],
    /// Bytes of each column.
    pub(super) length: usize,
    /// Whether results bypass the caches. Then all targets are multiples of [`LINE`], and whoever builds the order
    /// has to `fence` afterwards.
    pub(super) streaming: bool,
    pub(super) sink: Sink<'a>,
}

/// A handful of field elements in a register.
///
/// # Safety
/// All but `prefetch` need the instruction set that the implementing type names; loads and stores need `BYTES` valid
/// bytes at the pointer, of any alignment.
pub(super) trait Vector: Copy {
    const BYTES: usize;
    /// Whether a product is one instruction, so that saving some is not worth the registers.
    const ONE_STEP_PRODUCT: bool = false;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const u8) -> Self;
    unsafe fn store(self, to: *mut u8);
    /// Stores past the caches; `to` must be a multiple of `BYTES`.
    unsafe fn stream(self, to: *mut u8);
    /// Asks for a cache line; any address will do.
    fn prefetch(at: *const u8);
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    /// Each element times 2.
    unsafe fn double(self) -> Self;
    /// Each element times 4.
    unsafe fn quadruple(self) -> Self;
    unsafe fn multiply(self, factor: &Coefficient) -> Self;
    unsafe fn is_zero(self) -> bool;

    /// `self + a + b`.
    #[inline(always)]
    unsafe fn xor3(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { self.xor(a).xor(b) }
    }

    /// `(self * 2 + a) * 2 + b`.
    #[inline(always)]
    unsafe fn step2(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { self.double().xor(a).double().xor(b) }
    }

    /// `(self * 4 + a) * 4 + b`.
    #[inline(always)]
    unsafe fn step4(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        unsafe { self.quadruple().xor(a).quadruple().xor(b) }
    }
}

/// How the sink is told to the compiler.
pub(super) const STORE: u8 = 0;
pub(super) const COMBINE: u8 = 1;
pub(super) const CHECK: u8 = 2;

/// Runs an order of at least one vector, `UNROLL` vectors at a time. The last chunk overlaps the one before.
///
/// # Safety
/// `work` keeps the promise of [`Work`], its rows are `ROWS` and its sink is `SINK`; the processor has the
/// instructions of `V`.
#[inline(always)]
pub(super) unsafe fn sweep<V: Vector, const UNROLL: usize, const ROWS: u8, const SINK: u8>(
    work: &Work<'_>,
) -> bool {
    let chunk = UNROLL * V::BYTES;
    let Some(last) = work.length.checked_sub(chunk) else { return true };
    let mut at = 0;
    // SAFETY: `at + chunk <= length` throughout, and the caller's promises.
    unsafe {
        let mut seen = V::zero();
        loop {
            seen = one_chunk::<V, UNROLL, ROWS, SINK>(work, at, seen);
            if at == last {
                break;
            }
            at = last.min(at + chunk);
        }
        SINK != CHECK || seen.is_zero()
    }
}

/// Adds columns `a` (the later one) and `b` to the sums.
///
/// # Safety
/// As [`sweep`].
#[inline(always)]
unsafe fn add_two<V: Vector, const U: usize, const ROWS: u8>(
    sums: &mut [[V; U]; 3],
    a: *const u8,
    b: *const u8,
    at: usize,
) {
    // SAFETY: passed on.
    unsafe {
        for u in 0..U {
            let offset = at + u * V::BYTES;
            let a = V::load(a.add(offset));
            let b = V::load(b.add(offset));
            if ROWS & 1 != 0 {
                sums[0][u] = sums[0][u].xor3(a, b);
            }
            if ROWS & 2 != 0 {
                sums[1][u] = sums[1][u].step2(a, b);
            }
            if ROWS & 4 != 0 {
                sums[2][u] = sums[2][u].step4(a, b);
            }
        }
    }
}

/// Adds one column, of zeroes if null, to the sums.
///
/// # Safety
/// As [`sweep`].
#[inline(always)]
unsafe fn add_one<V: Vector, const U: usize, const ROWS: u8>(
    sums: &mut [[V; U]; 3],
    column: *const u8,
    at: usize,
) {
    // SAFETY: passed on.
    unsafe {
        for u in 0..U {
            let data = if column.is_null() { V::zero() } else { V::load(column.add(at + u * V::BYTES)) };
            if ROWS & 1 != 0 {
                sums[0][u] = sums[0][u].xor(data);
            }
            if ROWS & 2 != 0 {
                sums[1][u] = sums[1][u].double().xor(data);
            }
            if ROWS & 4 != 0 {
                sums[2][u] = sums[2][u].quadruple().xor(data);
            }
        }
    }
}

/// Stores results and fetches the lines of later ones.
///
/// # Safety
/// As [`sweep`], and `at` plus the vectors is within the target.
#[inline(always)]
unsafe fn put<V: Vector, const U: usize>(work: &Work<'_>, target: *mut u8, at: usize, results: &[V; U]) {
    // SAFETY: passed on. The last chunk may start anywhere, so it is not streamed unless it is aligned. Parts of lines
    // never are: that is ten times slower than not streaming at all.
    unsafe {
        if work.streaming && (U * V::BYTES).is_multiple_of(LINE) && at.is_multiple_of(LINE) {
            for u in 0..U {
                results[u].stream(target.add(at + u * V::BYTES));
            }
        } else {
            for u in 0..U {
                if work.columns.len() <= FEW_COLUMNS && (u * V::BYTES).is_multiple_of(LINE) {
                    V::prefetch(target.wrapping_add(at + u * V::BYTES + AHEAD));
                }
                results[u].store(target.add(at + u * V::BYTES));
            }
        }
    }
}

/// Sums a chunk and gives it to the sink; returns `seen` with the bits of the sums added.
///
/// # Safety
/// As [`sweep`], and `at` plus the chunk is within the columns.
#[inline(always)]
unsafe fn one_chunk<V: Vector, const U: usize, const ROWS: u8, const SINK: u8>(
    work: &Work<'_>,
    at: usize,
    mut seen: V,
) -> V {
    // SAFETY: passed on; targets and folds are as long as the columns.
    unsafe {
        let mut sums = [[V::zero(); U]; 3];
        let mut rest = work.columns;
        if rest.len() % 2 == 1
            && let [head @ .., column] = rest
        {
            rest = head;
            add_one::<V, U, ROWS>(&mut sums, *column, at);
        }
        while let [head @ .., b, a] = rest {
            rest = head;
            if a.is_null() || b.is_null() {
                add_one::<V, U, ROWS>(&mut sums, *a, at);
                add_one::<V, U, ROWS>(&mut sums, *b, at);
            } else {
                add_two::<V, U, ROWS>(&mut sums, *a, *b, at);
            }
        }
        for row in 1..3 {
            if ROWS >> row & 1 != 0 && work.scale[row].value != 1 {
                for u in 0..U {
                    sums[row][u] = sums[row][u].multiply(work.scale[row]);
                }
            }
        }
        for row in 0..3 {
            if ROWS >> row & 1 != 0 && !work.fold[row].is_null() {
                for u in 0..U {
                    sums[row][u] = sums[row][u].xor(V::load(work.fold[row].add(at + u * V::BYTES)));
                }
            }
        }
        match &work.sink {
            Sink::Store(targets) if SINK == STORE => {
                for row in 0..3 {
                    if ROWS >> row & 1 != 0 {
                        put(work, targets[row], at, &sums[row]);
                    }
                }
            }
            Sink::Combine { targets, matrix, rest } if SINK == COMBINE => {
                let (last, targets) = match targets {
                    [targets @ .., last] if *rest && !V::ONE_STEP_PRODUCT => (Some(*last), targets),
                    _ => (None, *targets),
                };
                let mut left = sums[0];
                for (target, factors) in targets.iter().zip(matrix.iter()) {
                    let mut output = [V::zero(); U];
                    for row in 0..3 {
                        if ROWS >> row & 1 != 0 && factors[row].value != 0 {
                            for u in 0..U {
                                output[u] = output[u].xor(if factors[row].value == 1 {
                                    sums[row][u]
                                } else {
                                    sums[row][u].multiply(factors[row])
                                });
                            }
                        }
                    }
                    put(work, *target, at, &output);
                    if last.is_some() {
                        for u in 0..U {
                            left[u] = left[u].xor(output[u]);
                        }
                    }
                }
                if let Some(target) = last {
                    put(work, target, at, &left);
                }
            }
            _ => {
                for row in 0..3 {
                    if ROWS >> row & 1 != 0 {
                        for u in 0..U {
                            seen = seen.or(sums[row][u]);
                        }
                    }
                }
            }
        }
        seen
    }
}

/// Makes the entry point of a kernel: picks the compiled loop for the rows and the sink.
///
/// The attributes enable the instructions. The numbers say how many vectors are in flight with P alone, with one or two other
/// rows, with three rows, and with three rows whose sums are combined.
macro_rules! kernel {
    ($(#[$attribute:meta])* $name:ident, $vector:ty, $one:literal, $two:literal, $three:literal, $solve:literal) => {
        /// Runs an order.
        ///
        /// # Safety
        /// The order keeps its promise, and the processor has the kernel's instructions.
        pub(super) unsafe fn $name(work: &crate::kernel::sweep::Work<'_>) -> bool {
            use crate::kernel::sweep::{self, CHECK, COMBINE, STORE, Sink, Vector};

            $(#[$attribute])*
            unsafe fn rows<const ROWS: u8, const SINK: u8>(work: &sweep::Work<'_>) -> bool {
                // SAFETY: passed on.
                unsafe {
                    if ROWS == 1 && work.length >= $one * <$vector>::BYTES {
                        sweep::sweep::<$vector, $one, ROWS, SINK>(work)
                    } else if ROWS != 1 && ROWS != 7 && work.length >= $two * <$vector>::BYTES {
                        sweep::sweep::<$vector, $two, ROWS, SINK>(work)
                    } else if ROWS == 7 && SINK != COMBINE && work.length >= $three * <$vector>::BYTES {
                        sweep::sweep::<$vector, $three, ROWS, SINK>(work)
                    } else if ROWS == 7 && SINK == COMBINE && work.length >= $solve * <$vector>::BYTES {
                        sweep::sweep::<$vector, $solve, ROWS, SINK>(work)
                    } else {
                        sweep::sweep::<$vector, 1, ROWS, SINK>(work)
                    }
                }
            }

            // SAFETY: passed on; each arm names its own rows and sink.
            unsafe {
                if work.length < <$vector>::BYTES {
                    return crate::kernel::scalar::short(work);
                }
                match (&work.sink, work.rows) {
                    (Sink::Store(_), 1) => rows::<1, STORE>(work),
                    (Sink::Store(_), 2) => rows::<2, STORE>(work),
                    (Sink::Store(_), 3) => rows::<3, STORE>(work),
                    (Sink::Store(_), 4) => rows::<4, STORE>(work),
                    (Sink::Store(_), 5) => rows::<5, STORE>(work),
                    (Sink::Store(_), 6) => rows::<6, STORE>(work),
                    (Sink::Store(_), 7) => rows::<7, STORE>(work),
                    (Sink::Combine { .. }, 1) => rows::<1, COMBINE>(work),
                    (Sink::Combine { .. }, 2) => rows::<2, COMBINE>(work),
                    (Sink::Combine { .. }, 3) => rows::<3, COMBINE>(work),
                    (Sink::Combine { .. }, 4) => rows::<4, COMBINE>(work),
                    (Sink::Combine { .. }, 5) => rows::<5, COMBINE>(work),
                    (Sink::Combine { .. }, 6) => rows::<6, COMBINE>(work),
                    (Sink::Combine { .. }, 7) => rows::<7, COMBINE>(work),
                    (Sink::Check, 1) => rows::<1, CHECK>(work),
                    (Sink::Check, 3) => rows::<3, CHECK>(work),
                    (Sink::Check, 7) => rows::<7, CHECK>(work),
                    _ => true,
                }
            }
        }
    };
}
pub(super) use kernel;
