//! What happened to pools, kept beyond the process that saw it: `<guid>.events` in the state folder, a JSON line each.
//!
//! Only the process that holds a pool appends, and it does so under the pool's lock. The file is a convenience: that
//! it can't be written is no reason to fail, and a line that makes no sense is passed over.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use pool::Pool;
use pool::report::Event;

use crate::state::State;

/// Largest file that is appended to, bytes; beyond it the older half is dropped.
const MAX_BYTES: u64 = 1 << 20;

/// Moves what a pool has to tell into its file.
pub(crate) fn keep(pool: &mut Pool, state: &State) {
    let news = pool.take_events();
    if news.is_empty() || pool.read_only() {
        return;
    }
    let path = state.events(pool.guid());
    let old = read(&path);
    let news = numbered(news, &old);
    let lines = |events: &[Event]| -> String {
        events.iter().filter_map(|event| serde_json::to_string(event).ok()).map(|line| line + "\n").collect()
    };
    let text = lines(&news);
    let large = fs::metadata(&path).is_ok_and(|there| there.len() + text.len() as u64 > MAX_BYTES);
    if large {
        let text = lines(&old[old.len() / 2..]) + &text;
        let temporary = path.with_extension("events-new");
        let _ = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &path));
    } else {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
    }
}

/// Events with a number above `after`, oldest first.
pub(crate) fn since(pool: &mut Pool, state: &State, after: u64) -> Vec<Event> {
    keep(pool, state);
    let mut events = read(&state.events(pool.guid()));
    // Who only looks writes nothing down.
    events.extend(numbered(pool.events(0), &events));
    events.retain(|event| event.id > after);
    events
}

/// Numbers that go on from those that are there.
fn numbered(mut news: Vec<Event>, old: &[Event]) -> Vec<Event> {
    let last = old.last().map_or(0, |event| event.id);
    for (event, id) in news.iter_mut().zip(last + 1..) {
        event.id = id;
    }
    news
}

/// What the file says.
fn read(path: &Path) -> Vec<Event> {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(8 * MAX_BYTES).read_to_end(&mut bytes));
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}
