//! `coffer balance status`, and the line at the end of a balance.

use pool::report::{BalanceReport, ScanState};
use pool::spec::Task;

use super::duration;

/// How it ended.
pub(crate) fn balance_result(report: &BalanceReport) -> String {
    let (done, all) = (report.completed, report.chunks);
    match report.state {
        ScanState::Canceled => format!("Canceled, had relocated {done} out of {all} chunks\n"),
        ScanState::Paused => format!("Paused, had relocated {done} out of {all} chunks\n"),
        _ => format!("Done, had to relocate {done} out of {all} chunks\n"),
    }
}

/// Where it stands.
pub(crate) fn balance_status(pool: &str, report: Option<&BalanceReport>) -> String {
    let none = format!("No balance found on '{pool}'\n");
    let Some(report) = report else { return none };
    let how = match report.state {
        ScanState::Running => "running",
        ScanState::Paused => "paused",
        ScanState::Finished | ScanState::Canceled => return none,
    };
    let what = match report.task {
        Task::Balance(_) => "Balance",
        Task::Remove(_) => "Removal",
        Task::Convert(_) => "Conversion",
        Task::Resize { .. } => "Resize",
    };
    let percent =
        (report.total - report.done).checked_mul(100).and_then(|left| left.checked_div(report.total));
    let left = report.eta_seconds.map_or_else(String::new, |left| format!(", {} to go", duration(left)));
    format!(
        "{what} on '{pool}' is {how}\n{} out of about {} chunks balanced ({} considered), {:>3}% left{left}\n",
        report.completed,
        report.expected,
        report.considered,
        percent.unwrap_or(0)
    )
}

#[cfg(test)]
mod tests {
    use pool::types::Millis;

    use super::*;

    #[test]
    fn a_balance_is_told_as_btrfs_tells_it() {
        let mut report = BalanceReport {
            state: ScanState::Running,
            started: Millis(0),
            ended: None,
            expected: 3,
            chunks: 68,
            considered: 12,
            completed: 1,
            done: 1 << 20,
            total: 4 << 20,
            errors: 0,
            rate: 1 << 20,
            eta_seconds: Some(3),
            trouble: None,
            task: Task::Balance(Box::default()),
        };
        let running = "Balance on 'tank' is running\n\
                       1 out of about 3 chunks balanced (12 considered),  75% left, 00:00:03 to go\n";
        assert_eq!(balance_status("tank", Some(&report)), running);
        report.state = ScanState::Finished;
        assert_eq!(balance_status("tank", Some(&report)), "No balance found on 'tank'\n");
        assert_eq!(balance_result(&report), "Done, had to relocate 1 out of 68 chunks\n");
    }
}
