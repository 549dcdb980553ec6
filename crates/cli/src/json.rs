//! The JSON that programs read: every answer has the same head.
//!
//! `{"format":"coffer","version":1,"command":"status","data":...}`. The version rises when something that was
//! there changes its meaning or goes; what is added does not raise it.

use serde::Serialize;

/// Version of the format.
const VERSION: u32 = 1;

/// An answer.
#[derive(Debug, Serialize)]
struct Document<'a, T> {
    format: &'static str,
    version: u32,
    command: &'a str,
    data: &'a T,
}

/// One answer, on one line.
pub(crate) fn document<T: Serialize>(command: &str, data: &T) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(&Document { format: "coffer", version: VERSION, command, data })?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_fixed() {
        let text = document("list", &vec![1, 2]).unwrap();
        assert_eq!(text, "{\"format\":\"coffer\",\"version\":1,\"command\":\"list\",\"data\":[1,2]}\n");
    }
}
