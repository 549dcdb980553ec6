//! What a plan that looks at parity found wrong: told, and written down where it is asked for.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use rescue::Misfit;
use serde::Serialize;

use super::opened::Opened;
use crate::error::{Failure, Outcome};

/// Bytes of an array whose parity did not fit.
#[derive(Debug, Serialize)]
pub(super) struct OfArray {
    /// The array.
    array: String,
    #[serde(flatten)]
    misfit: Misfit,
}

/// Refuses a place for the record that can't be one, before anything is read.
///
/// # Errors
/// It is a member, or nothing will be looked at.
pub(super) fn check(opened: &Opened, record: Option<&Path>) -> Outcome {
    let Some(record) = record else { return Ok(()) };
    opened.refuse_member(record)?;
    if opened.arrays.iter().all(|array| !array.checks_parity) {
        return Err(Failure::usage(
            "there is nothing to record: the plan does not look at parity; make it with 'plan --check-parity'",
        ));
    }
    Ok(())
}

/// What was found since the last time, added to the record if there is one.
///
/// # Errors
/// The record can't be written.
pub(super) fn news(opened: &Opened, record: Option<&Path>) -> Outcome<Vec<OfArray>> {
    let of = |array: &super::opened::Array| {
        let name = array.name.clone();
        array.device.new_misfits().into_iter().map(move |misfit| OfArray { array: name.clone(), misfit })
    };
    let news: Vec<OfArray> = opened.arrays.iter().flat_map(of).collect();
    if let (Some(path), false) = (record, news.is_empty()) {
        let mut lines = String::new();
        for one in &news {
            lines += &serde_json::to_string(one).map_err(|error| Failure::refused(error.to_string()))?;
            lines.push('\n');
        }
        let failed = |error| Failure::io(format!("write {}", path.display()))(error);
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
    }
    Ok(news)
}

/// It in words, a line for each member.
pub(super) fn words(misfits: &[OfArray]) -> String {
    // Which member, and how many bytes, by array and slot.
    let mut sums = BTreeMap::new();
    for OfArray { array, misfit } in misfits {
        let sum = sums.entry((array, misfit.slot)).or_insert((misfit.member.as_deref(), 0_u64));
        sum.1 += misfit.length;
    }
    let mut text = String::new();
    for ((array, slot), (member, bytes)) in sums {
        text += &match (slot, member) {
            (Some(slot), Some(member)) => format!(
                "{array}: {bytes} bytes of {member} (slot {slot}) are silently wrong; parity says what they must be, and \
                 that was used\n"
            ),
            _ => format!(
                "{array}: parity does not fit in {bytes} bytes of its rows, and which member is wrong can't be told; they \
                 are used as they are\n"
            ),
        };
    }
    text
}
