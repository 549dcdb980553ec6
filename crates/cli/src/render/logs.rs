//! `coffer history`, `coffer events`, `coffer check`.

use pool::report::{CheckReport, Event, HistoryEntry};

use super::time;

/// The commands of a pool, in the shape of `zpool history`.
pub(crate) fn history(pool: &str, entries: &[HistoryEntry]) -> String {
    let mut text = format!("History for '{pool}':\n");
    for entry in entries {
        text.push_str(&format!("{} {}\n", time(entry.time, "%Y-%m-%d.%H:%M:%S"), entry.command));
    }
    text
}

/// The line above events.
pub(crate) fn event_header() -> String {
    line("TIME", "CLASS", "DEVICE", "MESSAGE")
}

/// Events, a line each.
pub(crate) fn events(events: &[Event]) -> String {
    let row = |event: &Event| {
        let when = time(event.time, "%b %e %Y %H:%M:%S%.3f");
        line(&when, &event.class, event.device.as_deref().unwrap_or("-"), &event.message)
    };
    events.iter().map(row).collect()
}

/// One line of events: widths are fixed because more lines may follow later.
fn line(time: &str, class: &str, device: &str, message: &str) -> String {
    format!("{time:<25} {class:<16} {device:<20} {message}\n")
}

/// What a check found.
pub(crate) fn check(name: &str, report: &CheckReport) -> String {
    let mut text: String = report.problems.iter().map(|problem| format!("{problem}\n")).collect();
    text.push_str(&format!(
        "{name}: {} in {} chunks, {} tree nodes, {} extents and {} references\n",
        match report.problems.len() {
            0 => "no problems".to_owned(),
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        },
        report.chunks,
        report.nodes,
        report.extents,
        report.references
    ));
    text
}

#[cfg(test)]
mod tests {
    use pool::types::{Millis, Txg};

    use super::*;

    #[test]
    fn commands_and_events_are_lines() {
        let entry = HistoryEntry { time: Millis(0), txg: Txg(4), command: "coffer create tank /x/a".into() };
        let text = history("tank", &[entry]);
        assert!(text.starts_with("History for 'tank':\n19"), "{text}");
        assert!(text.ends_with(" coffer create tank /x/a\n"), "{text}");
        let event = Event {
            id: 1,
            time: Millis(0),
            class: "checksum".into(),
            device: Some("/x/a".into()),
            message: "wrong data at 4096".into(),
        };
        let text = events(&[event]);
        assert!(text.ends_with(" checksum         /x/a                 wrong data at 4096\n"), "{text}");
        assert_eq!(event_header().find("CLASS"), text.find("checksum"));
    }

    #[test]
    fn checks_end_in_a_summary() {
        let mut report = CheckReport { problems: vec![], nodes: 4, extents: 3, references: 2, chunks: 1 };
        assert_eq!(
            check("tank", &report),
            "tank: no problems in 1 chunks, 4 tree nodes, 3 extents and 2 references\n"
        );
        report.problems.push("extent 4096 has no reference".into());
        let text = check("tank", &report);
        assert!(text.starts_with("extent 4096 has no reference\ntank: 1 problem in"), "{text}");
    }
}
