//! Wall clock and processor time of one run.

use std::fs;
use std::time::Instant;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// What was done, in the unit of its row: bytes, requests, or 1 where only `value` counts.
    pub amount: f64,
    /// Seconds by the wall clock.
    pub wall: f64,
    /// Seconds of processor time.
    pub cpu: f64,
    /// A number that is no rate (a latency, a fraction); rows that have one do not look at `amount`.
    pub value: Option<f64>,
}

impl Sample {
    /// A number that is no rate.
    pub fn of_value(value: f64) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// What is compared: the number itself, or the amount per second of wall clock.
    pub fn score(&self) -> f64 {
        self.value.unwrap_or(self.amount / self.wall)
    }

    /// Amount per second of processor time.
    pub fn per_cpu_second(&self) -> Option<f64> {
        (self.value.is_none() && self.cpu > 0.0).then(|| self.amount / self.cpu)
    }
}

/// Whose processor time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This process with all its threads, and children that it waited for.
    Process,
    /// The same and every kernel thread: what a file system or a loop device in the kernel does for us. Other
    /// users' kernel threads count too.
    ProcessAndKernel,
}

/// A run under way.
pub struct Watch {
    whose: Whose,
    cpu: f64,
    start: Instant,
}

impl Watch {
    /// Starts measuring.
    pub fn start(whose: Whose) -> Result<Self> {
        Ok(Self { whose, cpu: cpu_seconds(whose)?, start: Instant::now() })
    }

    /// Ends the run in which `amount` was done.
    pub fn stop(self, amount: f64) -> Result<Sample> {
        let wall = self.start.elapsed().as_secs_f64();
        Ok(Sample { amount, wall, cpu: cpu_seconds(self.whose)? - self.cpu, value: None })
    }
}

fn cpu_seconds(whose: Whose) -> Result<f64> {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let mut seconds = own.tv_sec as f64 + own.tv_nsec as f64 / 1e9 + children_seconds()?;
    if whose == Whose::ProcessAndKernel {
        seconds += kernel_thread_seconds()?;
    }
    Ok(seconds)
}

/// Processor time of children that were waited for; the kernel counts it in hundredths of a second.
fn children_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The fields behind the name, which may hold anything, begin with the third.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = [13, 14].iter().filter_map(|&at| fields.get(at)?.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Processor time of all kernel threads (children of process 2), to the nanosecond.
fn kernel_thread_seconds() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let is_process =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
        // Threads come and go while we look.
        let Some(stat) = is_process.then(|| fs::read_to_string(path.join("stat")).ok()).flatten() else {
            continue;
        };
        if stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1) != Some("2") {
            continue;
        }
        let Ok(schedule) = fs::read_to_string(path.join("schedstat")) else { continue };
        nanoseconds +=
            schedule.split_whitespace().next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanoseconds / 1e9)
}

/// Median of some numbers; NaN of none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
