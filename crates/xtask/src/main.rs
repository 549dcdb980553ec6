//! The developer's front door: `cargo xtask` lists what there is to do. Every command starts other programs and
//! does nothing by itself.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

/// Develop Cofferdam.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the program as it is released: target/release/coffer
    Build,
    /// All that must pass: format, lints, tests, and the simulator for a few minutes
    Test,
    /// Check formatting and lints
    Lint,
    /// Run the simulator; without arguments its short run
    Sim {
        /// Passed on to the simulator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compare pools with btrfs, ext4, nbdkit and libfuse, or with the word `parity` the parity kernels
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on: `--help` lists them; docs/performance.md tells more
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Throw damaged bytes at every decoder, longer than `test` does
    Fuzz {
        /// For all targets without their name together, or for the one that is named
        #[arg(long, default_value_t = 300)]
        seconds: u32,
        /// One of the targets in `fuzz`, by libFuzzer: needs cargo-fuzz; without it, mutations of the corpus of all
        target: Option<String>,
    },
    /// Kill the server under load and commands at work, and look at what is left; without arguments 100 rounds
    Crash {
        /// `--rounds N`, `--seed S`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Put ext4 and xfs on exports of a pool and of RAID sets of every level, lose disks under load, and compare everything; qemu-img in and out
    Real {
        /// `--mib N`, `--from FOLDER`, `--seed S`, `--only-raid`, `--levels LETTERS`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Rescue arrays whose members are silently wrong, and kill what writes to overlays
    Rescue {
        /// `--arrays N`, `--kills N`, `--seed S`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Show what the program does, on files in a temporary folder
    Demo {
        /// Passed on to `coffer demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// What the simulator is asked for by `test`, beside seeds that nobody has tried yet.
const SIM_SHORT: [&[&str]; 4] = [
    &["--crash-states", "10000", "--jobs", "2"],
    &["--nth-faults", "1", "--jobs", "2"],
    &["--erasures", "2"],
    &["--sabotage-all", "--seed", "1", "--jobs", "2"],
];

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Build => cargo(&["build", "--release", "--bin", "coffer"]),
        Task::Lint => lint(),
        Task::Test => {
            lint()?;
            cargo(&["test", "--workspace"])?;
            sim_short()
        }
        Task::Sim { arguments } if arguments.is_empty() => sim_short(),
        Task::Sim { arguments } => sim(&strs(&arguments)),
        Task::Bench { arguments } if arguments.first().is_some_and(|word| word == "parity") => {
            cargo(&[&["bench", "-p", "parity-bench"][..], &strs(&arguments[1..])].concat())
        }
        Task::Bench { arguments } => {
            cargo(&[&["run", "--release", "-p", "bench", "--"][..], &strs(&arguments)].concat())
        }
        Task::Fuzz { seconds, target: None } => {
            let mut command = Command::new(env!("CARGO"));
            command.args(["test", "--release", "-p", "fuzzing", "--", "--nocapture"]);
            launch(command.env("FUZZ_SECONDS", seconds.to_string()))
        }
        Task::Fuzz { seconds, target: Some(target) } => {
            let mut command = Command::new(env!("CARGO"));
            // What is found while it runs goes to a folder of its own, not into the committed corpus.
            let (found, corpus) = (format!("fuzz/found/{target}"), format!("fuzz/corpus/{target}"));
            std::fs::create_dir_all(&found).with_context(|| format!("cannot make {found}"))?;
            command.args(["fuzz", "run", "--sanitizer", "none", &target, &found, &corpus, "--"]);
            command.arg(format!("-max_total_time={seconds}"));
            // libFuzzer needs flags that the stable toolchain keeps to itself otherwise.
            launch(command.args(["-rss_limit_mb=1024", "-malloc_limit_mb=256"]).env("RUSTC_BOOTSTRAP", "1"))
        }
        Task::Crash { arguments } => trial("crash", &arguments),
        Task::Real { arguments } => {
            trial("real", &arguments)?;
            linux_md()
        }
        Task::Rescue { arguments } => trial("rescue", &arguments),
        Task::Demo { arguments } => {
            cargo(&[&["run", "--release", "--bin", "coffer", "--", "demo"][..], &strs(&arguments)].concat())
        }
    }
}

/// The program under test is built first.
fn trial(name: &str, arguments: &[String]) -> anyhow::Result<()> {
    cargo(&["build", "--release", "--bin", "coffer"])?;
    cargo(&[&["run", "--release", "-p", "trials", "--", name][..], &strs(arguments)].concat())
}

/// Members of arrays that Linux made, where there are any.
fn linux_md() -> anyhow::Result<()> {
    if std::env::var_os("COFFER_LAB").is_none() {
        eprintln!("SKIPPED: members of Linux md arrays: COFFER_LAB names no folder of them");
        return Ok(());
    }
    cargo(&["test", "--release", "-p", "raidset", "--test", "linux_md", "--", "--nocapture"])
}

fn lint() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn sim(arguments: &[&str]) -> anyhow::Result<()> {
    cargo(&[&["run", "--release", "-p", "sim", "--"], arguments].concat())
}

/// The simulator's short run.
fn sim_short() -> anyhow::Result<()> {
    let first = seed_of_the_tree()?.to_string();
    sim(&["--seed", &first, "--seeds", "300", "--seconds", "300", "--jobs", "2"])?;
    sim(&["--raid", "--seed", &first, "--seeds", "300", "--jobs", "2"])?;
    SIM_SHORT.iter().try_for_each(|arguments| sim(arguments))
}

/// A seed that nobody has tried before this change of the sources, and that everybody tries who has the same ones: what
/// the test run finds, it finds again.
fn seed_of_the_tree() -> anyhow::Result<u64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![root.clone()];
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        let listed =
            std::fs::read_dir(&folder).with_context(|| format!("{} can't be listed", folder.display()))?;
        for entry in listed {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
                files.insert(path.strip_prefix(&root)?.to_owned(), text);
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    // Room for as many seeds as anybody runs; short enough to be typed.
    Ok((hasher.finish() >> 34) * 10_000)
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn cargo(arguments: &[&str]) -> anyhow::Result<()> {
    launch(Command::new(env!("CARGO")).args(arguments))
}

fn launch(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    eprintln!(
        "+ cargo {}",
        command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    );
    let status = command.status().with_context(|| format!("{name} can't be started"))?;
    if !status.success() {
        bail!("that failed ({status})");
    }
    Ok(())
}
