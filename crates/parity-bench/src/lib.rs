//! What the comparison in `benches/compare.rs` is made of.
//!
//! A [`Case`] is an operation on a stripe; each [`Contender`] does it on the same [`Arena`]; [`measure`] lets them take
//! turns and keeps the rates of each by the thread's CPU clock. Rates are gigabytes of *data* per second: bytes of
//! all data columns, parity not counted, whatever the operation.

pub mod arena;
pub mod contenders;
#[allow(unsafe_code, reason = "the C library's functions and the system's clock")]
pub mod ffi;
pub mod snapraid;

use std::fmt;

pub use arena::Arena;
pub use contenders::Contender;

/// What is done to a stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Compute that many parity columns.
    Generate(usize),
    /// Rebuild that many lost data columns from as many parity columns.
    Rebuild(usize),
}

impl Operation {
    /// How many parity columns the stripe has.
    pub fn parity(self) -> usize {
        match self {
            Self::Generate(parity) | Self::Rebuild(parity) => parity,
        }
    }

    /// How it is called in the table and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate(1) => "gen-P",
            Self::Generate(2) => "gen-PQ",
            Self::Generate(_) => "gen-PQR",
            Self::Rebuild(1) => "rec-1",
            Self::Rebuild(2) => "rec-2",
            Self::Rebuild(_) => "rec-3",
        }
    }
}

/// An operation on a stripe of a given shape.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// Data columns.
    pub columns: usize,
    /// Bytes of a column.
    pub length: usize,
}

impl Case {
    /// Data columns plus parity columns.
    pub fn all_columns(&self) -> usize {
        self.columns + self.operation.parity()
    }

    /// Bytes of all data columns.
    pub fn data_bytes(&self) -> usize {
        self.columns * self.length
    }
}

/// The rates of contenders that took turns, GB/s of data: for each its samples, the same round at the same index.
pub struct Rates(Vec<Vec<f64>>);

/// A median with the least and the largest sample.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle sample.
    pub median: f64,
    /// The least sample.
    pub least: f64,
    /// The largest sample.
    pub most: f64,
}

impl Spread {
    /// Of samples, of which there is at least one; else nothing is a number.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |index: usize| samples.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(samples.len() / 2), least: at(0), most: at(samples.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2}..{:.2}]", self.median, self.least, self.most)
    }
}

impl Rates {
    /// Median rate of a contender.
    pub fn median(&self, contender: usize) -> f64 {
        Spread::of(self.0[contender].clone()).median
    }

    /// How much faster one contender was than another in the same round.
    pub fn ratio(&self, contender: usize, other: usize) -> Spread {
        Spread::of(self.0[contender].iter().zip(&self.0[other]).map(|(a, b)| a / b).collect())
    }
}

/// Lets the contenders take turns.
///
/// Each gets an iteration count that lasts about `slice_s` seconds; then all of them run `rounds` times in turn, so that
/// what the machine's other users do meets all alike.
pub fn measure(
    arena: &mut Arena,
    case: &Case,
    contenders: &mut [Contender],
    rounds: usize,
    slice_s: f64,
) -> Rates {
    let mut time = |contender: &mut Contender, count: u32| {
        let start = ffi::thread_cpu_seconds();
        contender.run(arena, case, count);
        ffi::thread_cpu_seconds() - start
    };
    let counts: Vec<u32> = contenders
        .iter_mut()
        .map(|contender| {
            time(contender, 1); // caches, page tables, detection of features
            let mut count = 1;
            loop {
                let seconds = time(contender, count);
                if seconds >= slice_s / 4.0 {
                    break ((f64::from(count) * slice_s / seconds) as u32).max(1);
                }
                count *= 2;
            }
        })
        .collect();
    let mut samples = vec![Vec::with_capacity(rounds); contenders.len()];
    for _ in 0..rounds {
        for ((contender, &count), samples) in contenders.iter_mut().zip(&counts).zip(&mut samples) {
            let seconds = time(contender, count);
            samples.push(f64::from(count) * case.data_bytes() as f64 / seconds / 1e9);
        }
    }
    Rates(samples)
}
