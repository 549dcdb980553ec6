//! `coffer import` without a name, in the shape of `zpool import`.

use std::fmt::Write;

use pool::report::{FoundPool, State, VdevReport};

/// Pools that could be imported.
pub(crate) fn found(pools: &[FoundPool]) -> String {
    let mut text = String::new();
    for (i, pool) in pools.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        let _ = write!(text, "   pool: {}\n     id: {}\n  state: {}\n", pool.name, pool.guid, pool.state);
        let foreign = pool
            .foreign_host
            .as_ref()
            .map(|host| format!("The pool was last used by host '{host}' and not exported."));
        for status in pool.status.iter().chain(&foreign) {
            let _ = writeln!(text, " status: {status}");
        }
        let action = match (&pool.action, &pool.foreign_host) {
            (Some(action), _) => action,
            (None, Some(_)) => "The pool can be imported using '-f', if that host does not use it any more.",
            (None, None) if pool.state == State::Online => {
                "The pool can be imported using its name or numeric identifier."
            }
            (None, None) => "The pool may be importable despite missing or damaged devices.",
        };
        let _ = write!(text, " action: {action}\n config:\n\n");
        let root = VdevReport {
            name: pool.name.clone(),
            guid: pool.guid,
            state: pool.state,
            errors: pool::report::Counters::default(),
            note: None,
            children: pool.vdevs.clone(),
        };
        let spares = pool.spares.iter().map(|spare| spare.name.chars().count() + 2).max().unwrap_or(0);
        let width = widest(&root, 0).max(10).max(spares);
        row(&mut text, &root, 0, width);
        if !pool.spares.is_empty() {
            text.push_str("\tspares\n");
        }
        for spare in &pool.spares {
            let note = spare.note.as_ref().map_or_else(String::new, |note| format!("  {note}"));
            let line = format!("\t  {:<rest$}  {:<8}{note}", spare.name, spare.state, rest = width - 2);
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// Characters that the longest name takes with its indent.
fn widest(vdev: &VdevReport, depth: usize) -> usize {
    let children = vdev.children.iter().map(|child| widest(child, depth + 2)).max().unwrap_or(0);
    children.max(depth + vdev.name.chars().count())
}

/// A line, and those of the children.
fn row(text: &mut String, vdev: &VdevReport, depth: usize, width: usize) {
    let note = vdev.note.as_ref().map_or_else(String::new, |note| format!("  {note}"));
    let line =
        format!("\t{}{:<rest$}  {:<8}{note}", " ".repeat(depth), vdev.name, vdev.state, rest = width - depth);
    text.push_str(line.trim_end());
    text.push('\n');
    for child in &vdev.children {
        row(text, child, depth + 2, width);
    }
}

#[cfg(test)]
mod tests {
    use pool::report::{Counters, SpareReport};
    use pool::types::Guid;

    use super::*;

    #[test]
    fn a_pool_that_misses_a_disk() {
        let vdev = |name: &str, state, note: Option<&str>, children| VdevReport {
            name: name.into(),
            guid: Guid(0),
            state,
            errors: Counters::default(),
            note: note.map(str::to_owned),
            children,
        };
        let pool = FoundPool {
            name: "tank".into(),
            guid: Guid(1234),
            state: State::Degraded,
            status: Some("One or more devices are missing from the system.".into()),
            action: None,
            foreign_host: None,
            vdevs: vec![vdev(
                "mirror-0",
                State::Degraded,
                None,
                vec![
                    vdev("/x/a", State::Online, None, vec![]),
                    vdev("99", State::Unavail, Some("was /x/b"), vec![]),
                ],
            )],
            spares: vec![SpareReport {
                name: "/x/c".into(),
                guid: Guid(3),
                state: "AVAIL".into(),
                note: None,
            }],
        };
        let wanted = concat!(
            "   pool: tank\n",
            "     id: 1234\n",
            "  state: DEGRADED\n",
            " status: One or more devices are missing from the system.\n",
            " action: The pool may be importable despite missing or damaged devices.\n",
            " config:\n",
            "\n",
            "\ttank        DEGRADED\n",
            "\t  mirror-0  DEGRADED\n",
            "\t    /x/a    ONLINE\n",
            "\t    99      UNAVAIL   was /x/b\n",
            "\tspares\n",
            "\t  /x/c      AVAIL\n",
        );
        assert_eq!(found(std::slice::from_ref(&pool)), wanted);
        assert!(found(&[pool.clone(), pool]).contains("AVAIL\n\n   pool: tank\n"));
    }
}
