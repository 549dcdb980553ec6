//! Locks of a set: one for each stripe that is being changed.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Locks although another thread panicked while it held the lock: whatever is guarded here is meaningful at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stripes that are locked.
#[derive(Debug, Default)]
pub(super) struct StripeLocks {
    held: Mutex<HashSet<u64>>,
    released: Condvar,
}

/// Locked stripes.
pub(super) struct StripeGuard<'a> {
    locks: &'a StripeLocks,
    stripes: Vec<u64>,
}

impl StripeLocks {
    /// Waits until nobody else holds the stripe.
    pub(super) fn lock(&self, stripe: u64) -> StripeGuard<'_> {
        self.lock_list(&[stripe])
    }

    /// As [`Self::lock`], for all of a range.
    pub(super) fn lock_all(&self, stripes: Range<u64>) -> StripeGuard<'_> {
        self.lock_list(&stripes.collect::<Vec<_>>())
    }

    /// Waits until everybody who holds stripes now has let go of them.
    pub(super) fn outlast(&self) {
        let mut now: Vec<u64> = lock(&self.held).iter().copied().collect();
        now.sort_unstable();
        now.into_iter().for_each(|stripe| drop(self.lock(stripe)));
    }

    /// As [`Self::lock`], for several in rising order. Everybody takes them in that order, and nobody who holds some asks for more.
    pub(super) fn lock_list(&self, stripes: &[u64]) -> StripeGuard<'_> {
        debug_assert!(stripes.is_sorted(), "locks are taken in order");
        let mut held = lock(&self.held);
        for &stripe in stripes {
            while !held.insert(stripe) {
                held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
            }
        }
        StripeGuard { locks: self, stripes: stripes.to_vec() }
    }
}

impl Drop for StripeGuard<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.locks.held);
        self.stripes.iter().for_each(|stripe| {
            held.remove(stripe);
        });
        drop(held);
        self.locks.released.notify_all();
    }
}
