//! The control protocol.

use protocol::frame;
use protocol::request::{Answer, Call};

/// A frame as a holder reads it, and as a command does.
#[allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]
pub fn run(data: &[u8]) {
    let mut from = data;
    while let Ok(Some((call, payload))) = frame::read::<Call>(&mut from, frame::MAX_REQUEST) {
        let _ = (call.request.is_administrative(), call.request.takes_away(), call.request.brings_in());
        let mut again = Vec::new();
        frame::write(&mut again, &call, &payload).expect("what was a frame fits into one");
        let back = frame::read::<Call>(&mut again.as_slice(), frame::MAX_JSON).expect("a frame");
        assert_eq!(back, Some((call, payload)));
    }
    let mut from = data;
    while let Ok(Some(_)) = frame::read::<Answer>(&mut from, frame::MAX_JSON) {}
    if let Ok(call) = serde_json::from_slice::<Call>(data) {
        let _ = call.request.is_administrative();
    }
}
