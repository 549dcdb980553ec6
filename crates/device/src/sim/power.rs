//! One power supply for several simulated disks, which fails after a chosen number of requests.

use std::sync::Mutex;

use crate::Operation;
use crate::check::lock;

/// Feeds the disks that were given it with [`super::SimDevice::set_supply`]; all of them lose power at the same
/// request, wherever in the program that is. While it is off every request fails with `Gone`.
///
/// A test harness cuts after 0, 1, 2, ... changing requests in turn, then gives each disk its
/// [`super::SimDevice::power_cut`], switches on again and looks at what is left.
#[derive(Debug)]
pub struct PowerSupply {
    state: Mutex<Supply>,
}

#[derive(Debug)]
struct Supply {
    on: bool,
    /// Changing requests until it fails.
    left: Option<u64>,
    changes: u64,
}

/// What a request finds at the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// It fails at this very request: a write may be in the cache already.
    Failing,
    Off,
}

impl Default for PowerSupply {
    fn default() -> Self {
        Self { state: Mutex::new(Supply { on: true, left: None, changes: 0 }) }
    }
}

impl PowerSupply {
    /// A supply that is on and stays on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `changes` more writes, flushes and discards pass and fails at the next one. That one itself
    /// returns an error, but if it is a write it may be found among the unflushed ones.
    pub fn cut_after(&self, changes: u64) {
        lock(&self.state).left = Some(changes);
    }

    /// Switches it off now.
    pub fn cut(&self) {
        lock(&self.state).on = false;
    }

    /// Switches it on, to stay on.
    pub fn restore(&self) {
        let mut state = lock(&self.state);
        state.on = true;
        state.left = None;
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        lock(&self.state).on
    }

    /// How many writes, flushes and discards it has let pass so far.
    pub fn changes(&self) -> u64 {
        lock(&self.state).changes
    }

    pub(super) fn draw(&self, operation: Operation) -> Power {
        let mut state = lock(&self.state);
        if !state.on {
            return Power::Off;
        }
        if matches!(operation, Operation::Write | Operation::Flush | Operation::Discard) {
            if state.left == Some(0) {
                state.on = false;
                return Power::Failing;
            }
            state.left = state.left.map(|left| left - 1);
            state.changes += 1;
        }
        Power::On
    }
}
