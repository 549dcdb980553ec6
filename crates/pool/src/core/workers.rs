//! Pure work on several processors: results do not depend on how many.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Items below which waking threads costs more than it saves.
const ITEMS_MIN: usize = 16;

/// Threads for checksums, parity and compression; none where everything is to happen on the caller's.
pub(crate) struct Workers(Option<ThreadPool>);

impl Workers {
    /// Everything on the caller's thread.
    pub(crate) const NONE: Self = Self(None);

    /// As many threads as the environment says; fewer are no error.
    pub(crate) fn new(count: usize) -> Self {
        if count < 2 {
            return Self(None);
        }
        Self(
            ThreadPoolBuilder::new()
                .num_threads(count)
                .thread_name(|index| format!("pool-{index}"))
                .build()
                .ok(),
        )
    }

    /// `f` of every item, in order.
    pub(crate) fn map<'t, T: Sync, R: Send>(&self, items: &'t [T], f: impl Fn(&'t T) -> R + Sync) -> Vec<R> {
        self.map_from(ITEMS_MIN, items, f)
    }

    /// `f` of every item, in order; on several threads from two items on.
    pub(crate) fn map_large<'t, T: Sync, R: Send>(
        &self,
        items: &'t [T],
        f: impl Fn(&'t T) -> R + Sync,
    ) -> Vec<R> {
        self.map_from(2, items, f)
    }

    /// `f` of every item, which it may keep, in order; on several threads from two items on.
    pub(crate) fn map_each<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
        match &self.0 {
            Some(threads) if items.len() >= 2 => threads.install(|| items.into_par_iter().map(&f).collect()),
            _ => items.into_iter().map(f).collect(),
        }
    }

    fn map_from<'t, T: Sync, R: Send>(
        &self,
        least: usize,
        items: &'t [T],
        f: impl Fn(&'t T) -> R + Sync,
    ) -> Vec<R> {
        match &self.0 {
            Some(threads) if items.len() >= least => threads.install(|| items.par_iter().map(&f).collect()),
            _ => items.iter().map(f).collect(),
        }
    }
}
