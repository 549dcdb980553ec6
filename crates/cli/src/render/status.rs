//! `coffer status`, in the shape of `zpool status`.

use std::fmt::Write;

use pool::report::{ScanKind, ScanReport, ScanState, State, StatusReport, VdevReport};
use pool::types::Millis;

use super::{date, duration};
use crate::sizes::{count, short_bytes};

/// Width of a text line, without the label before it.
const WIDTH: usize = 72;

/// One pool; with the damaged places if `verbose`.
pub(crate) fn status(report: &StatusReport, verbose: bool) -> String {
    status_with(report, verbose, date)
}

/// As [`status`], with its own way to print times.
fn status_with(report: &StatusReport, verbose: bool, date: fn(Millis) -> String) -> String {
    let mut text = format!("  pool: {}\n state: {}\n", report.name, report.state);
    if let Some(status) = &report.status {
        text.push_str(&labelled("status", status));
    }
    if let Some(action) = &report.action {
        text.push_str(&labelled("action", action));
    }
    text.push_str(&scan(report.scan.as_ref(), date));
    if let Some(checkpoint) = &report.checkpoint {
        let held = short_bytes(checkpoint.held);
        text.push_str(&if checkpoint.discarding {
            format!("checkpoint: being discarded, {held} are still to be freed\n")
        } else {
            format!("checkpoint: taken on {}, holds {held} back\n", date(checkpoint.taken))
        });
    }
    for job in &report.jobs {
        text.push_str(&labelled("  job", job));
    }
    text.push_str("config:\n\n");
    text.push_str(&config(report));
    text.push('\n');
    text.push_str(&errors(report, verbose));
    text
}

/// `label: text`, broken into lines that are indented by a tab.
fn labelled(label: &str, sentence: &str) -> String {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > WIDTH);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    format!("{label}: {}\n", lines.join("\n\t"))
}

/// The scan's lines.
fn scan(scan: Option<&ScanReport>, date: fn(Millis) -> String) -> String {
    let Some(scan) = scan else { return "  scan: none requested\n".to_owned() };
    let name = match scan.kind {
        ScanKind::Scrub => "scrub",
        ScanKind::Resilver => "resilver",
        ScanKind::Balance => "balance",
        ScanKind::Remove => "removal",
        ScanKind::Convert => "conversion",
        ScanKind::Resize => "resize",
    };
    let ended = scan.ended.unwrap_or(scan.started);
    let done = short_bytes(scan.repaired);
    let progress = || {
        let percent = if scan.total == 0 {
            100.0
        } else {
            scan.done.min(scan.total) as f64 * 100.0 / scan.total as f64
        };
        let verb = match scan.kind {
            ScanKind::Scrub => "repaired",
            ScanKind::Resilver => "resilvered",
            ScanKind::Balance | ScanKind::Remove | ScanKind::Convert | ScanKind::Resize => "relocated",
        };
        (percent, verb)
    };
    match scan.state {
        ScanState::Finished => {
            let took = duration(ended.0.saturating_sub(scan.started.0) / 1000);
            let what = match scan.kind {
                ScanKind::Scrub => format!("scrub repaired {done}"),
                ScanKind::Resilver => format!("resilvered {done}"),
                ScanKind::Balance => format!("balance relocated {done}"),
                ScanKind::Remove => format!("removal relocated {done}"),
                ScanKind::Convert => format!("conversion relocated {done}"),
                ScanKind::Resize => format!("resize relocated {done}"),
            };
            format!("  scan: {what} in {took} with {} errors on {}\n", scan.errors, date(ended))
        }
        ScanState::Canceled => format!("  scan: {name} canceled on {}\n", date(ended)),
        ScanState::Paused => {
            let (percent, verb) = progress();
            format!(
                "  scan: {name} paused since {}\n\t{name} started on {}\n\t{} / {} scanned\n\t{done} {verb}, \
                 {percent:.2}% done\n",
                date(ended),
                date(scan.started),
                short_bytes(scan.done),
                short_bytes(scan.total)
            )
        }
        ScanState::Running => {
            let (percent, verb) = progress();
            let left = match scan.eta_seconds {
                Some(left) => format!("{} to go", duration(left)),
                None => "no estimated completion time".to_owned(),
            };
            format!(
                "  scan: {name} in progress since {}\n\t{} / {} scanned at {}/s\n\t{done} {verb}, {percent:.2}% done, \
                 {left}\n",
                date(scan.started),
                short_bytes(scan.done),
                short_bytes(scan.total),
                short_bytes(scan.rate)
            )
        }
    }
}

/// What a scan came to, in one line, for the end of a command that waited for it.
pub(crate) fn scan_line(report: &ScanReport) -> String {
    scan(Some(report), date).trim_start_matches("  scan: ").to_owned()
}

/// The table of devices.
fn config(report: &StatusReport) -> String {
    let depths = |vdevs: &[VdevReport]| vdevs.iter().map(|vdev| widest(vdev, 2)).max().unwrap_or(0);
    let spares = report.spares.iter().map(|spare| spare.name.chars().count() + 2).max().unwrap_or(0);
    let width =
        [10, report.name.chars().count(), depths(&report.vdevs), spares].into_iter().max().unwrap_or(10);
    let mut text =
        format!("\t{:<width$}  {:<8} {:>5} {:>5} {:>5}\n", "NAME", "STATE", "READ", "WRITE", "CKSUM");
    let root = VdevReport {
        name: report.name.clone(),
        guid: report.guid,
        state: report.state,
        errors: pool::report::Counters::default(),
        note: None,
        children: report.vdevs.clone(),
    };
    row(&mut text, &root, 0, width);
    if !report.spares.is_empty() {
        text.push_str("\tspares\n");
        for spare in &report.spares {
            let note = spare.note.as_ref().map_or_else(String::new, |note| format!("  {note}"));
            let line = format!("\t  {:<rest$}  {:<8}{note}", spare.name, spare.state, rest = width - 2);
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// Characters that the longest name below takes with its indent.
fn widest(vdev: &VdevReport, depth: usize) -> usize {
    let children = vdev.children.iter().map(|child| widest(child, depth + 2)).max().unwrap_or(0);
    children.max(depth + vdev.name.chars().count())
}

/// A line, and those of the children.
fn row(text: &mut String, vdev: &VdevReport, depth: usize, width: usize) {
    let (indent, rest) = (" ".repeat(depth), width - depth);
    let counters = [vdev.errors.read, vdev.errors.write, vdev.errors.checksum].map(count);
    let [read, write, checksum] = counters;
    let note = vdev.note.as_ref().map_or_else(String::new, |note| format!("  {note}"));
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "\t{indent}{:<rest$}  {:<8} {read:>5} {write:>5} {checksum:>5}{note}",
        vdev.name, vdev.state
    );
    for child in &vdev.children {
        row(text, child, depth + 2, width);
    }
}

/// The last line, or the list of damaged places.
fn errors(report: &StatusReport, verbose: bool) -> String {
    match (report.data_errors, verbose) {
        (0, _) if report.state == State::Suspended => {
            "errors: The pool waits for devices to return\n".to_owned()
        }
        (0, _) if report.state == State::Unavail => {
            "errors: List of errors unavailable: the pool cannot be opened\n".to_owned()
        }
        (0, _) => "errors: No known data errors\n".to_owned(),
        (many, false) => {
            let plural = if many == 1 { "" } else { "s" };
            format!("errors: {} data error{plural}, use '-v' for a list\n", count(many))
        }
        (many, true) => {
            let mut text =
                "errors: Permanent errors have been detected in the following places:\n\n".to_owned();
            for place in &report.data_error_places {
                let _ = writeln!(text, "        {place}");
            }
            let told = report.data_error_places.len() as u64;
            if many > told {
                let _ = writeln!(text, "        and {} more", many - told);
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use pool::report::{CheckpointReport, Counters, SpareReport};
    use pool::types::Guid;

    use super::*;

    fn vdev(name: &str, state: State, children: Vec<VdevReport>) -> VdevReport {
        let errors = Counters::default();
        VdevReport { name: name.into(), guid: Guid(0), state, errors, note: None, children }
    }

    fn disk(name: &str) -> VdevReport {
        vdev(name, State::Online, Vec::new())
    }

    fn healthy() -> StatusReport {
        StatusReport {
            name: "tank".into(),
            guid: Guid(7),
            state: State::Online,
            status: None,
            action: None,
            scan: None,
            vdevs: vec![
                vdev("mirror-0", State::Online, vec![disk("sda"), disk("sdb")]),
                vdev("mirror-1", State::Online, vec![disk("sdc"), disk("sdd")]),
            ],
            spares: Vec::new(),
            jobs: Vec::new(),
            checkpoint: None,
            data_errors: 0,
            data_error_places: Vec::new(),
        }
    }

    fn running() -> ScanReport {
        ScanReport {
            kind: ScanKind::Scrub,
            state: ScanState::Running,
            started: Millis(0),
            ended: None,
            done: 68 << 30,
            total: 400 << 30,
            repaired: 0,
            errors: 0,
            rate: 100 << 20,
            eta_seconds: Some(540),
        }
    }

    fn day(_: Millis) -> String {
        "Sun Jul 25 16:07:49 2021".to_owned()
    }

    #[test]
    fn a_healthy_pool() {
        let wanted = concat!(
            "  pool: tank\n",
            " state: ONLINE\n",
            "  scan: none requested\n",
            "config:\n",
            "\n",
            "\tNAME        STATE     READ WRITE CKSUM\n",
            "\ttank        ONLINE       0     0     0\n",
            "\t  mirror-0  ONLINE       0     0     0\n",
            "\t    sda     ONLINE       0     0     0\n",
            "\t    sdb     ONLINE       0     0     0\n",
            "\t  mirror-1  ONLINE       0     0     0\n",
            "\t    sdc     ONLINE       0     0     0\n",
            "\t    sdd     ONLINE       0     0     0\n",
            "\n",
            "errors: No known data errors\n",
        );
        assert_eq!(status_with(&healthy(), false, day), wanted);
        let mut report = healthy();
        for (discarding, line) in [
            (false, "checkpoint: taken on Sun Jul 25 16:07:49 2021, holds 3M back\n"),
            (true, "checkpoint: being discarded, 3M are still to be freed\n"),
        ] {
            let (taken, txg) = (Millis(5), pool::types::Txg(9));
            report.checkpoint = Some(CheckpointReport { taken, txg, held: 3 << 20, discarding });
            let wanted = wanted.replace("config:\n", &format!("{line}config:\n"));
            assert_eq!(status_with(&report, false, day), wanted);
        }
    }

    #[test]
    fn a_degraded_pool_with_a_spare_in_use() {
        let mut report = healthy();
        report.state = State::Degraded;
        report.status = Some(
            "One or more devices could not be used because the label is missing or invalid. Sufficient replicas exist \
             for the pool to continue functioning in a degraded state."
                .into(),
        );
        report.action = Some("Replace the device using 'coffer replace'.".into());
        report.scan = Some(ScanReport { kind: ScanKind::Resilver, repaired: 1 << 20, ..running() });
        let mut gone = vdev("4263432348972347", State::Unavail, Vec::new());
        gone.note = Some("was /dev/sdb".into());
        gone.errors = Counters { read: 3, write: 1200, checksum: 0 };
        let mut spare = disk("/tank/files/disk-with-a-long-name");
        spare.note = Some("(resilvering)".into());
        report.vdevs = vec![vdev(
            "raidz2-0",
            State::Degraded,
            vec![disk("sda"), vdev("spare-1", State::Degraded, vec![gone, spare]), disk("sdc")],
        )];
        report.spares = vec![
            SpareReport {
                name: "/tank/files/disk-with-a-long-name".into(),
                guid: Guid(1),
                state: "INUSE".into(),
                note: Some("currently in use".into()),
            },
            SpareReport { name: "sde".into(), guid: Guid(2), state: "AVAIL".into(), note: None },
        ];
        report.data_errors = 2;
        report.data_error_places = vec!["tank/vol:<0x10000>".into()];
        let wanted = concat!(
            "  pool: tank\n",
            " state: DEGRADED\n",
            "status: One or more devices could not be used because the label is missing or\n",
            "\tinvalid. Sufficient replicas exist for the pool to continue functioning\n",
            "\tin a degraded state.\n",
            "action: Replace the device using 'coffer replace'.\n",
            "  scan: resilver in progress since Sun Jul 25 16:07:49 2021\n",
            "\t68G / 400G scanned at 100M/s\n",
            "\t1M resilvered, 17.00% done, 00:09:00 to go\n",
            "config:\n",
            "\n",
            "\tNAME                                     STATE     READ WRITE CKSUM\n",
            "\ttank                                     DEGRADED     0     0     0\n",
            "\t  raidz2-0                               DEGRADED     0     0     0\n",
            "\t    sda                                  ONLINE       0     0     0\n",
            "\t    spare-1                              DEGRADED     0     0     0\n",
            "\t      4263432348972347                   UNAVAIL      3 1.17K     0  was /dev/sdb\n",
            "\t      /tank/files/disk-with-a-long-name  ONLINE       0     0     0  (resilvering)\n",
            "\t    sdc                                  ONLINE       0     0     0\n",
            "\tspares\n",
            "\t  /tank/files/disk-with-a-long-name      INUSE     currently in use\n",
            "\t  sde                                    AVAIL\n",
            "\n",
            "errors: 2 data errors, use '-v' for a list\n",
        );
        assert_eq!(status_with(&report, false, day), wanted);
        let verbose = status_with(&report, true, day);
        let end = "errors: Permanent errors have been detected in the following places:\n\n        \
                   tank/vol:<0x10000>\n        and 1 more\n";
        assert!(verbose.ends_with(end), "{verbose}");
    }

    #[test]
    fn scans() {
        let line = |state, kind| {
            let ended = Some(Millis(3000));
            scan(Some(&ScanReport { state, kind, ended, ..running() }), day)
        };
        let on = "Sun Jul 25 16:07:49 2021";
        assert_eq!(
            line(ScanState::Finished, ScanKind::Scrub),
            format!("  scan: scrub repaired 0B in 00:00:03 with 0 errors on {on}\n")
        );
        assert_eq!(
            line(ScanState::Finished, ScanKind::Resilver),
            format!("  scan: resilvered 0B in 00:00:03 with 0 errors on {on}\n")
        );
        assert_eq!(line(ScanState::Canceled, ScanKind::Scrub), format!("  scan: scrub canceled on {on}\n"));
        assert_eq!(
            line(ScanState::Paused, ScanKind::Scrub),
            format!(
                "  scan: scrub paused since {on}\n\tscrub started on {on}\n\t68G / 400G scanned\n\t0B repaired, 17.00% done\n"
            )
        );
        let unknown = ScanReport { total: 0, done: 5, eta_seconds: None, ..running() };
        let text = scan(Some(&unknown), day);
        assert!(text.contains("100.00% done, no estimated completion time"), "{text}");
    }
}
