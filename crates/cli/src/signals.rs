//! Interruption by the user or the system: SIGINT, SIGTERM and SIGHUP ask for a clean end, a second SIGINT ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{Failure, Outcome};

/// Exit code of a program that was ended by SIGINT, as shells tell it.
const INTERRUPTED: i32 = 130;

/// Whether somebody asked to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches the signals from now on.
    ///
    /// # Errors
    /// The system refuses, which it doesn't.
    pub(crate) fn catch() -> Outcome<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let register = || {
            // The order matters: the first signal finds the flag unset, the second one set.
            signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&flag))?;
            for signal in [SIGINT, SIGTERM, SIGHUP] {
                signal_hook::flag::register(signal, Arc::clone(&flag))?;
            }
            Ok(())
        };
        register().map_err(Failure::io("catch signals"))?;
        Ok(Self(flag))
    }

    /// Whether it was asked for.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
