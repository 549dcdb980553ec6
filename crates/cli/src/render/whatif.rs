//! `coffer whatif`: what would be lost.

use pool::report::{AnyReport, LossReport, WhatIfReport};

use crate::sizes::short_bytes;

/// Everything that was asked.
pub(crate) fn whatif(pool: &str, report: &WhatIfReport) -> String {
    let mut text = format!("pool '{pool}', {} devices work", report.devices);
    if !report.away.is_empty() {
        text.push_str(&format!("; away already: {}", report.away.join(" ")));
    }
    text.push('\n');
    if report.now.data > 0 || report.now.metadata > 0 {
        text.push_str(&format!("lost as it is: {}\n", amount(&report.now)));
    }
    if let Some(failed) = &report.failed {
        text.push_str(&format!("\nwithout {}:\n", failed.devices.join(" ")));
        text.push_str(&loss(failed));
    }
    for any in &report.any {
        text.push('\n');
        text.push_str(&sets(any));
    }
    text
}

fn sets(any: &AnyReport) -> String {
    let what = if any.count == 1 { "device".to_owned() } else { format!("{} devices", any.count) };
    let Some((first, others)) = any.worst.split_first() else {
        return format!("any {what}: nothing would be lost\n");
    };
    let how_many = match any.fatal {
        Some(fatal) => format!("{fatal} of {} sets lose something", any.sets),
        None => format!("some of {} sets lose something, too many to try them all", any.sets),
    };
    let which = if any.exact { "the worst" } else { "the worst of those tried" };
    let mut text = format!("any {what}: {how_many}; {which}:\n  {}\n", first.devices.join(" "));
    text.push_str(&loss(first));
    for other in others {
        text.push_str(&format!("  {}\n    lost: {}\n", other.devices.join(" "), amount(other)));
    }
    text
}

fn loss(loss: &LossReport) -> String {
    let mut text = if loss.data == 0 && loss.metadata == 0 {
        "    lost: nothing\n".to_owned()
    } else {
        format!("    lost: {}\n", amount(loss))
    };
    if loss.metadata > 0 {
        text.push_str("    without this metadata the pool could not be imported\n");
    }
    if loss.bare > 0 {
        text.push_str(&format!("    would not survive any further loss: {}\n", short_bytes(loss.bare)));
    }
    for (what, names) in [("loses data", &loss.datasets), ("not known of", &loss.unknown)] {
        names.iter().for_each(|name| text.push_str(&format!("    {what}: {name}\n")));
    }
    text
}

fn amount(loss: &LossReport) -> String {
    match (loss.data, loss.metadata) {
        (data, 0) => format!("{} of data", short_bytes(data)),
        (0, metadata) => format!("{} of metadata", short_bytes(metadata)),
        (data, metadata) => {
            format!("{} of data and {} of metadata", short_bytes(data), short_bytes(metadata))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(devices: &[&str], data: u64, metadata: u64) -> LossReport {
        LossReport {
            devices: devices.iter().map(|&device| device.to_owned()).collect(),
            data,
            metadata,
            bare: 0,
            datasets: Vec::new(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn losses_and_the_worst_sets() {
        let mut first = lost(&["/d/a", "/d/b"], 5 << 20, 0);
        first.datasets.push("tank/vol".to_owned());
        first.bare = 1 << 20;
        let second = lost(&["/d/a", "/d/c"], 0, 1 << 20);
        let none = AnyReport { count: 1, sets: 3, fatal: Some(0), exact: true, worst: Vec::new() };
        let pairs =
            AnyReport { count: 2, sets: 3, fatal: Some(2), exact: true, worst: vec![first.clone(), second] };
        let mut report = WhatIfReport {
            devices: 3,
            away: vec!["/d/z".to_owned()],
            now: lost(&[], 0, 0),
            failed: None,
            any: vec![none, pairs],
        };
        let text = "pool 'tank', 3 devices work; away already: /d/z\n\nany device: nothing would be lost\n\n\
                    any 2 devices: 2 of 3 sets lose something; the worst:\n  /d/a /d/b\n    lost: 5M of data\n    \
                    would not survive any further loss: 1M\n    loses data: tank/vol\n  /d/a /d/c\n    lost: \
                    1M of metadata\n";
        assert_eq!(whatif("tank", &report), text);
        report.any.clear();
        report.failed = Some(lost(&["/d/a"], 0, 0));
        assert!(whatif("tank", &report).ends_with("\nwithout /d/a:\n    lost: nothing\n"));
    }
}
