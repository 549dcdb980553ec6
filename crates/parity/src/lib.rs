//! P, P+Q and P+Q+R erasure coding over GF(2^8): generate, reconstruct any loss, verify, locate.
//!
//! The field is GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d), the generators are 1, 2 and 4. With data columns
//! `D_0 .. D_{k-1}`, byte by byte:
//!
//! ```text
//! P = sum       D_i
//! Q = sum 2^i * D_i
//! R = sum 4^i * D_i
//! ```
//!
//! Any one, two or three columns, data or parity, can be lost as long as as many parity columns were made; the powers
//! of two are distinct for up to [`MAX_DATA_COLUMNS`] columns. The algebra is that of "The mathematics of RAID-6"
//! (H. P. Anvin) with the third, Vandermonde row that raidz3 adds.
//!
//! # Whose order
//! Column `i` has the power `i`, as in Linux md and btrfs, where Q counts from the first data disk after the parity.
//! raidz evaluates its polynomials from the first column on, so there the *last* data column has the power 0. This
//! crate knows one order only: callers with another convention pass their columns permuted (for raidz: reversed).
//! A column that exists in the formula but holds nothing may be any buffer of zeroes.
//!
//! # How data flows
//! Every operation is one [`kernel`] pass or a few: a pass reads the data columns once, from last to first (Horner), keeps
//! the sums in registers and then stores them, multiplies them by a small matrix (reconstruction) or only looks
//! whether they are zero (verification). The kernel is chosen at run time. Lengths and alignments are free, and
//! nothing here allocates memory.

mod error;
mod field;
mod fused;
mod generate;
#[allow(unsafe_code, reason = "vector instructions; the module states what it relies on")]
pub mod kernel;
mod locate;
mod reconstruct;

pub use error::ParityError;
pub use field::Element;
pub use fused::{Piece, Stores, StreamHasher, copy_checksum_generate};
pub use generate::{generate, verify};
pub use locate::{Location, locate};
pub use reconstruct::reconstruct;

/// The most data columns of one stripe: the powers of the generator repeat after 255.
pub const MAX_DATA_COLUMNS: usize = 255;

/// The most parity columns of one stripe: P, Q and R.
pub const MAX_PARITY_COLUMNS: usize = 3;
