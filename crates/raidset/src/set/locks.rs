//! Locks of a set: one for each stripe that is being changed.

use std::collections::HashSet;
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

/// A locked stripe.
pub(super) struct StripeGuard<'a> {
    locks: &'a StripeLocks,
    stripe: u64,
}

impl StripeLocks {
    /// Waits until nobody else holds the stripe. Nobody ever holds two.
    pub(super) fn lock(&self, stripe: u64) -> StripeGuard<'_> {
        let mut held = lock(&self.held);
        while !held.insert(stripe) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        StripeGuard { locks: self, stripe }
    }
}

impl Drop for StripeGuard<'_> {
    fn drop(&mut self) {
        lock(&self.locks.held).remove(&self.stripe);
        self.locks.released.notify_all();
    }
}
