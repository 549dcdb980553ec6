//! What happened, in the order in which it did.

use std::collections::VecDeque;

use crate::report::Event;
use crate::types::Millis;

/// Events that are kept.
const EVENTS_MAX: usize = 4096;

/// The last events since the import.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    next: u64,
}

impl EventLog {
    pub(crate) fn push(&mut self, time: Millis, class: &str, device: Option<&str>, message: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.next += 1;
        let device = device.map(str::to_owned);
        self.events.push_back(Event { id: self.next, time, class: class.to_owned(), device, message });
    }

    /// All events; they are forgotten here.
    pub(crate) fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events).into()
    }

    /// Events with a number above `after`.
    pub(crate) fn after(&self, after: u64) -> Vec<Event> {
        self.events.iter().filter(|event| event.id > after).cloned().collect()
    }
}
