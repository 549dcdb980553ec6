//! `sim`: see `docs/testing.md`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use sim::nth::Faults;
use sim::program::Program;
use sim::progress::Progress;
use sim::raid;
use sim::run::{Outcome, Tally, run};
use sim::shrink::shrink;
use sim::states::{Crashes, STATES_EACH};
use sim::watch::Watch;

/// What tried crash states are counted as.
const CRASH_STATES: &str = "crash states";

/// Tries to make a pool lose data, in simulation.
#[derive(Debug, Parser)]
struct Args {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// More seeds after these, until so many seconds have passed.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
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
    /// Try crash states of short programs instead, this many.
    #[arg(long)]
    crash_states: Option<u64>,
    /// List the ways to break it.
    #[arg(long)]
    list_sabotage: bool,
    /// Break the engine in every way there is; each must be caught within 200 seeds.
    #[arg(long)]
    sabotage_all: bool,
    /// Fail every n-th device request of every command instead (each so-manieth of them).
    #[arg(long)]
    nth_faults: Option<u64>,
    /// Try patterns of lost disks instead, so many of each layout (0: all).
    #[arg(long)]
    erasures: Option<usize>,
    /// Go on where the last run with this file stopped, and keep the place and the tally there; a file is for seeds,
    /// for crash states or for n-th faults.
    #[arg(long)]
    resume: Option<std::path::PathBuf>,
    /// Programs on RAID sets instead of pools.
    #[arg(long)]
    raid: bool,
    /// Print the program of the seed as text, to be kept.
    #[arg(long)]
    print: bool,
    /// Run a program that was kept as text instead.
    #[arg(long)]
    program: Option<std::path::PathBuf>,
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
    if args.list_sabotage {
        sim::sabotage::ALL.iter().for_each(|(name, what)| println!("{name:22} {what}"));
        return ExitCode::SUCCESS;
    }
    if args.sabotage_all {
        return sabotage_all(&args);
    }
    if let Some(step) = args.nth_faults {
        return told(nth_faults(step.max(1), &args));
    }
    if let Some(sample) = args.erasures {
        return report(
            "patterns of lost disks",
            sim::erasure::all_erasures(24, (sample > 0).then_some(sample), args.seed),
        );
    }
    if let Some(wanted) = args.crash_states {
        return told(crash_states(wanted, &args));
    }
    if args.print {
        print!("{}", Program::new(args.seed, args.ops));
        return ExitCode::SUCCESS;
    }
    if let Some(path) = &args.program {
        return told(run_program(path, &args));
    }
    told(seeds(&args))
}

/// Runs the programs of seeds.
fn seeds(args: &Args) -> Result<(), String> {
    let progress = Progress::open(args.resume.as_deref(), args.seed)?;
    let first = progress.first();
    let end = first + args.seeds;
    let failed: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let unkept: Mutex<Option<String>> = Mutex::new(None);
    let (runs, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let begun = std::time::Instant::now();
    let watch = Watch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(seed) = watch.wait(args.ops) {
                println!("seed {seed} does not end");
                std::process::exit(1);
            }
        });
        let run_all = || {
            scope.spawn(|| {
                loop {
                    let seed = progress.take();
                    if (seed >= end && begun.elapsed().as_secs() >= args.seconds)
                        || (!args.keep_going && failed.lock().is_ok_and(|failed| !failed.is_empty()))
                        || unkept.lock().is_ok_and(|unkept| unkept.is_some())
                    {
                        return;
                    }
                    let subject = Subject::new(seed, args);
                    let mut outcome = watch.run(seed, || subject.run(args.trace));
                    for line in &outcome.lines {
                        println!("{line}");
                    }
                    runs.fetch_add(1, Ordering::Relaxed);
                    steps.fetch_add(
                        outcome.tally.counts.get("step").map_or(0, |count| count.0),
                        Ordering::Relaxed,
                    );
                    let Some((step, failure)) = outcome.failure else {
                        outcome.tally.add("seed", true);
                        note(&unkept, progress.done(seed, &outcome.tally).err());
                        continue;
                    };
                    println!("seed {seed} step {step}: {failure}");
                    if subject.run(args.trace).digest != outcome.digest {
                        println!(
                            "seed {seed} ran otherwise the second time: something decides that is no seed"
                        );
                    }
                    if let Ok(mut failed) = failed.lock() {
                        failed.push(seed);
                    }
                    if !args.keep_going && !args.trace {
                        let (short, (step, failure)) = subject.shrink((step, failure));
                        println!("shrunk to {} steps, fails in step {step}: {failure}", short.steps());
                        println!("{}", short.text());
                        let outcome = short.run(true);
                        for line in outcome
                            .lines
                            .iter()
                            .filter(|line| !line.starts_with("    ") || line.starts_with("    !"))
                        {
                            println!("  {line}");
                        }
                    }
                }
            })
        };
        let jobs: Vec<_> = (0..args.jobs.max(1)).map(|_| run_all()).collect();
        let ended: Vec<_> = jobs.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        watch.end();
        if let Some(panic) = ended.into_iter().find_map(Result::err) {
            std::panic::resume_unwind(panic);
        }
    });
    let kept = progress.finish();
    let seconds = begun.elapsed().as_secs_f64();
    if let Ok(tally) = &kept {
        for (name, (done, refused)) in &tally.counts {
            println!("{name:32} {done:9} {refused:9}");
        }
    }
    let steps = steps.into_inner();
    println!("{} seeds from {first} on", runs.into_inner());
    println!("{steps} steps in {seconds:.1} s, {:.0} a second", steps as f64 / seconds);
    let failed = failed.into_inner().unwrap_or_default();
    if !failed.is_empty() {
        return Err(format!("failed seeds: {failed:?}"));
    }
    kept.map(|_| ())
}

/// Keeps the first failure.
fn note(failed: &Mutex<Option<String>>, failure: Option<String>) {
    if let (Ok(mut failed), Some(failure)) = (failed.lock(), failure) {
        failed.get_or_insert(failure);
    }
}

/// What a seed stands for.
enum Subject<'a> {
    /// A pool, and how the engine is broken.
    Pool(Program, Option<&'a str>),
    /// A RAID set.
    Raid(raid::Program),
}

impl<'a> Subject<'a> {
    fn new(seed: u64, args: &'a Args) -> Self {
        if args.raid {
            return Self::Raid(raid::Program::new(seed, args.ops));
        }
        Self::Pool(Program::new(seed, args.ops), args.sabotage.as_deref())
    }

    fn run(&self, trace: bool) -> Outcome {
        match self {
            Self::Pool(program, sabotage) => run(program, *sabotage, trace),
            Self::Raid(program) => raid::run(program, trace),
        }
    }

    fn shrink(&self, failure: (usize, String)) -> (Self, (usize, String)) {
        match self {
            Self::Pool(program, sabotage) => {
                let (short, failure) = shrink(program, failure, *sabotage);
                (Self::Pool(short, *sabotage), failure)
            }
            Self::Raid(program) => {
                let (short, failure) = raid::shrink(program, failure);
                (Self::Raid(short), failure)
            }
        }
    }

    fn steps(&self) -> usize {
        match self {
            Self::Pool(program, _) => program.steps.len(),
            Self::Raid(program) => program.steps.len(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Pool(program, _) => program.to_string(),
            Self::Raid(program) => program.to_string(),
        }
    }
}

/// Tries crash states until there were `wanted` of them.
fn crash_states(wanted: u64, args: &Args) -> Result<(), String> {
    let begun = std::time::Instant::now();
    let progress = Progress::open(args.resume.as_deref(), 0)?;
    let first = progress.count();
    let crashes = Crashes::new(args.seed)?;
    // Over several sittings each program has the same share.
    let most = if args.resume.is_some() { STATES_EACH } else { crashes.states_each(wanted) };
    let states = AtomicU64::new(0);
    let failed: Mutex<Option<String>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while states.load(Ordering::Relaxed) < wanted
                    && failed.lock().is_ok_and(|failed| failed.is_none())
                {
                    let number = progress.take();
                    if number >= crashes.sequences() as u64 {
                        return;
                    }
                    let tried = crashes.try_sequence(number as usize, most).and_then(|count| {
                        states.fetch_add(count, Ordering::Relaxed);
                        progress.done(number, &Tally::of(CRASH_STATES.to_owned(), count))
                    });
                    note(&failed, tried.err());
                }
            });
        }
    });
    let (states, tried) = (states.into_inner(), progress.count());
    let seconds = begun.elapsed().as_secs_f64();
    println!("{states} crash states of {} programs in {seconds:.0} s", tried - first);
    let tally = progress.finish()?;
    if args.resume.is_some() {
        let all = tally.counts.get(CRASH_STATES).map_or(0, |count| count.0);
        println!("{all} in all, of {tried} programs of {}", crashes.sequences());
    }
    failed.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// Tries the n-th faults of every command that was not tried yet.
fn nth_faults(step: u64, args: &Args) -> Result<(), String> {
    let begun = std::time::Instant::now();
    let progress = Progress::open(args.resume.as_deref(), 0)?;
    let faults = Faults::new()?;
    let failed: Mutex<Option<String>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while failed.lock().is_ok_and(|failed| failed.is_none())
                    && (args.seconds == 0 || begun.elapsed().as_secs() < args.seconds)
                {
                    let number = progress.take();
                    if number as usize >= faults.cases() {
                        return;
                    }
                    let tried = faults.try_case(number as usize, step).and_then(|(command, count)| {
                        progress.done(number, &Tally::of(format!("fault in {command:?}"), count))
                    });
                    note(&failed, tried.err());
                }
            });
        }
    });
    let tally = progress.finish()?;
    tally.counts.iter().for_each(|(name, (count, _))| println!("{name:32} {count:9}"));
    let all: u64 = tally.counts.values().map(|count| count.0).sum();
    let (tried, seconds) = (progress.count(), begun.elapsed().as_secs());
    println!("{all} faults survived, {tried} of {} cases, {seconds} s", faults.cases());
    failed.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

fn report(what: &str, outcome: Result<u64, String>) -> ExitCode {
    match outcome {
        Ok(count) => {
            println!("{count} {what} survived");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn sabotage_all(args: &Args) -> ExitCode {
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while let Some((name, _)) =
                    sim::sabotage::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    if let Some((seed, failure)) = sim::sabotage::caught_by(name, args.seed, 200, args.ops) {
                        println!("{name:22} caught by seed {seed}, {failure:.100}")
                    } else {
                        println!("{name:22} NOT CAUGHT");
                        if let Ok(mut missed) = missed.lock() {
                            missed.push(*name);
                        }
                    }
                }
            });
        }
    });
    if missed.into_inner().is_ok_and(|missed| missed.is_empty()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a program that is kept as text.
fn run_program(path: &std::path::Path, args: &Args) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let is_raid = text.lines().any(|line| line.starts_with("raid "));
    let outcome = if is_raid {
        raid::run(&text.parse()?, args.trace)
    } else {
        run(&text.parse()?, args.sabotage.as_deref(), args.trace)
    };
    outcome.lines.iter().for_each(|line| println!("{line}"));
    outcome.failure.map_or(Ok(()), |(step, failure)| Err(format!("step {step}: {failure}")))
}

fn told(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
