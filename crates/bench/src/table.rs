//! What was measured, as text.

use std::collections::BTreeMap;

use crate::capacity::{self, Full};
use crate::measure::{Sample, median};

/// What a ratio is called good by.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Row.
    pub row: &'static str,
    /// Whom it is compared with; another row of ours with a leading `@`.
    pub peer: &'static str,
    /// The ratio that it must reach first.
    pub first: Option<f64>,
    /// The ratio to go on to.
    pub goal: Option<f64>,
    /// Less is better: the ratio is the peer's number by ours.
    pub less: bool,
}

/// All samples: by row and contender.
#[derive(Debug, Default)]
pub struct Results {
    samples: BTreeMap<(&'static str, &'static str), Vec<Sample>>,
    /// Why something was not measured.
    pub skipped: Vec<String>,
    /// What else there is to say.
    pub notes: Vec<String>,
    /// Full pools.
    pub full: Vec<Full>,
}

/// Unit of a row's number and by what a score is divided for it.
fn unit(row: &str) -> (&'static str, f64) {
    match row {
        "flush" => ("us", 1.0),
        row if row.starts_with("random") || row.ends_with("4k") => ("/s", 1.0),
        _ => ("MB/s", 1e6),
    }
}

impl Results {
    /// Notes one sample.
    pub fn add(&mut self, row: &'static str, who: &'static str, sample: Sample) {
        self.samples.entry((row, who)).or_default().push(sample);
    }

    fn scores(&self, row: &str, who: &str) -> Vec<f64> {
        let found = self.samples.iter().find(|((r, w), _)| *r == row && *w == who);
        found.map_or_else(Vec::new, |(_, samples)| samples.iter().map(Sample::score).collect())
    }

    /// Every row of numbers: median, spread, and what a second of processor time brought.
    pub fn print_numbers(&self) {
        println!(
            "{:<16} {:<12} {:>10} {:>23} {:>5} {:>12}",
            "row", "who", "median", "spread", "n", "per cpu-s"
        );
        for ((row, who), samples) in &self.samples {
            let (name, scale) = unit(row);
            let scores = self.scores(row, who);
            let least = scores.iter().copied().fold(f64::INFINITY, f64::min) / scale;
            let most = scores.iter().copied().fold(0.0, f64::max) / scale;
            let cpu: Vec<f64> = samples.iter().filter_map(Sample::per_cpu_second).collect();
            let cpu = if cpu.is_empty() { String::from("-") } else { format!("{:.0}", median(&cpu) / scale) };
            println!(
                "{row:<16} {who:<12} {:>10} {:>23} {:>5} {cpu:>12}",
                format!("{:.0} {name}", median(&scores) / scale),
                format!("[{least:.0}..{most:.0}]"),
                scores.len(),
            );
        }
    }

    /// The rows of goals that were measured, with their ratios (medians of the ratios of pairs).
    pub fn print_goals(&self, goals: &[Goal]) {
        println!();
        println!(
            "{:<16} {:<12} {:>7} {:>15} {:>6} {:>6} {:>9} {:>7}",
            "row", "against", "ratio", "spread", "first", "goal", "by cpu", "met"
        );
        for goal in goals {
            let (row, who) = goal.peer.strip_prefix('@').map_or((goal.row, goal.peer), |row| (row, "ours"));
            let pairs: Vec<f64> = self
                .scores(goal.row, "ours")
                .iter()
                .zip(self.scores(row, who))
                .map(|(ours, peer)| if goal.less { peer / ours } else { ours / peer })
                .collect();
            if pairs.is_empty() {
                continue;
            }
            let ratio = median(&pairs);
            let spread = format!(
                "[{:.2}..{:.2}]",
                pairs.iter().copied().fold(f64::INFINITY, f64::min),
                pairs.iter().copied().fold(0.0, f64::max)
            );
            let met = match (goal.first, goal.goal) {
                (_, Some(goal)) if ratio >= goal => "goal",
                (Some(first), _) if ratio >= first => "first",
                (None, None) => "-",
                (None, Some(_)) => "below",
                (Some(_), _) => "no",
            };
            let show =
                |number: Option<f64>| number.map_or(String::from("-"), |number| format!("{number:.2}"));
            let cpu = self.cpu_ratio(goal.row, row, who);
            println!(
                "{:<16} {:<12} {ratio:>7.2} {spread:>15} {:>6} {:>6} {:>9} {met:>7}",
                goal.row,
                goal.peer,
                show(goal.first),
                show(goal.goal),
                show(cpu),
            );
        }
        if !self.full.is_empty() {
            capacity::print(&self.full);
        }
        for text in self.notes.iter().map(|text| format!("note: {text}")) {
            println!("{text}");
        }
        for text in &self.skipped {
            println!("skipped: {text}");
        }
    }

    /// Ratio of what a second of processor time brings.
    fn cpu_ratio(&self, ours: &str, row: &str, who: &str) -> Option<f64> {
        let of = |row: &str, who: &str| {
            let found = self.samples.iter().find(|((r, w), _)| *r == row && *w == who)?;
            let numbers: Vec<f64> = found.1.iter().filter_map(Sample::per_cpu_second).collect();
            (!numbers.is_empty()).then(|| median(&numbers))
        };
        Some(of(ours, "ours")? / of(row, who)?)
    }
}
