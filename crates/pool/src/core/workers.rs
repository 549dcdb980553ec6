//! Pure work on several processors: results do not depend on how many.

use std::sync::{Mutex, PoisonError};

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

    /// `f` of every item, in order: the caller and the threads take items as they come to them. For few and large items:
    /// the caller begins at once, so that little is lost where nobody wakes soon.
    pub(crate) fn share<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
        let Some(threads) = self.0.as_ref().filter(|_| items.len() >= 2) else {
            return items.into_iter().map(f).collect();
        };
        let helpers = (threads.current_num_threads() - 1).min(items.len() - 1);
        let results = Mutex::new(Vec::with_capacity(items.len()));
        let items = Mutex::new(items.into_iter().enumerate());
        let work = || {
            loop {
                let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((index, item)) = next else { break };
                let result = f(item);
                results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
            }
        };
        threads.in_place_scope(|scope| {
            (0..helpers).for_each(|_| scope.spawn(|_| work()));
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_unstable_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_work_is_done_once_and_told_in_order() {
        for threads in [1, 2, 5] {
            let workers = Workers::new(threads);
            for count in [0, 1, 2, 3, 40] {
                let items: Vec<Box<usize>> = (0..count).map(Box::new).collect();
                let done = workers.share(items, |item| *item * 2);
                assert_eq!(done, (0..count).map(|item| item * 2).collect::<Vec<_>>());
            }
        }
    }
}
