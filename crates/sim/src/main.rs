//! `sim`: see `docs/testing.md`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use sim::program::Program;
use sim::run::{Tally, run};
use sim::shrink::shrink;

/// Tries to make a pool lose data, in simulation.
#[derive(Debug, Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Runs at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Steps of each run.
    #[arg(long, default_value_t = 150)]
    ops: usize,
    /// Print every event.
    #[arg(long)]
    trace: bool,
    /// Break the engine on purpose.
    #[arg(long)]
    sabotage: Option<String>,
    /// Go on with other seeds after a failure, without shrinking.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    std::panic::set_hook(Box::new(|info| {
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }));
    let next = AtomicU64::new(args.seed);
    let end = args.seed + args.seeds;
    let failed: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let tally: Mutex<Tally> = Mutex::new(Tally::default());
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end
                        || (!args.keep_going && failed.lock().is_ok_and(|failed| !failed.is_empty()))
                    {
                        return;
                    }
                    let program = Program::new(seed, args.ops);
                    let outcome = run(&program, args.sabotage.as_deref(), args.trace);
                    for line in &outcome.lines {
                        println!("{line}");
                    }
                    if let Ok(mut tally) = tally.lock() {
                        tally.merge(&outcome.tally);
                    }
                    let Some((step, failure)) = outcome.failure else { continue };
                    println!("seed {seed} step {step}: {failure}");
                    if let Ok(mut failed) = failed.lock() {
                        failed.push(seed);
                    }
                    if !args.keep_going && !args.trace {
                        let (short, (step, failure)) =
                            shrink(&program, (step, failure), args.sabotage.as_deref());
                        println!("shrunk to {} steps, fails in step {step}: {failure}", short.steps.len());
                        println!("{:?}", short.setup);
                        let outcome = run(&short, args.sabotage.as_deref(), true);
                        for line in outcome.lines.iter().filter(|line| !line.starts_with("    d")) {
                            println!("  {line}");
                        }
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_default();
    let steps = tally.counts.get("step").map_or(0, |count| count.0);
    let seconds = begun.elapsed().as_secs_f64();
    for (name, (done, refused)) in &tally.counts {
        println!("{name:32} {done:9} {refused:9}");
    }
    println!("{steps} steps in {seconds:.1} s, {:.0} a second", steps as f64 / seconds);
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed seeds: {failed:?}");
    ExitCode::FAILURE
}
