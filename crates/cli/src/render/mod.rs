//! Reports as text, one file for each command. Nothing here asks a pool: a report goes in, a string comes out.

mod balance;
mod forecast;
mod found;
mod lists;
mod logs;
mod map;
mod status;
mod usage;
mod whatif;

pub(crate) use balance::{balance_result, balance_status};
pub(crate) use forecast::forecast;
pub(crate) use found::found;
pub(crate) use lists::{Style, datasets, everything, pools, properties};
pub(crate) use logs::{check, event_header, events, history};
pub(crate) use map::map;
pub(crate) use status::{scan_line, status};
pub(crate) use usage::{usage, usage_table};
pub(crate) use whatif::whatif;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use pool::report::Plan;
use pool::types::Millis;

/// Seconds as `00:09:00`, or `2 days 00:09:00`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days == 0 { clock } else { format!("{days} days {clock}") }
}

/// A time in the zone of the host, in a `strftime` format.
fn time(millis: Millis, format: &str) -> String {
    time_in(millis, format, TimeZone::system())
}

/// A time in a zone.
fn time_in(millis: Millis, format: &str, zone: TimeZone) -> String {
    match i64::try_from(millis.0).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()) {
        Some(timestamp) => timestamp.to_zoned(zone).strftime(format).to_string(),
        None => "an impossible time".to_owned(),
    }
}

/// As `date` prints it: `Sun Jul 25 16:07:49 2021`.
fn date(millis: Millis) -> String {
    time(millis, "%a %b %e %H:%M:%S %Y")
}

/// Which side of a column its cells are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Rows as a table with two blanks between the columns and none at the ends of lines. The first row is the header.
fn table(rows: &[Vec<String>], aligns: &[Align]) -> String {
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..aligns.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).zip(aligns).map(|((cell, &width), align)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What a command that is only planned would do.
pub(crate) fn plan(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| format!("would do: {step}\n"));
    steps.chain(plan.notices.iter().map(|notice| format!("note: {notice}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times() {
        assert_eq!(duration(0), "00:00:00");
        assert_eq!(duration(540), "00:09:00");
        assert_eq!(duration(2 * 86_400 + 3_661), "2 days 01:01:01");
        let time = |millis, format| time_in(Millis(millis), format, TimeZone::UTC);
        assert_eq!(time(1_627_229_269_000, "%a %b %e %H:%M:%S %Y"), "Sun Jul 25 16:07:49 2021");
        assert_eq!(time(u64::MAX, "%Y"), "an impossible time");
    }
}
