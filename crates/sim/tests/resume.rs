//! A run that is killed goes on where it was.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn sim(arguments: &[&str], file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(arguments).arg("--resume").arg(file).stdout(Stdio::null());
    command
}

/// Kills a run once it has kept something, lets it go on, and compares its file with that of a run of one sitting: no
/// number is left out and none counts twice.
fn is_as_one_sitting(name: &str, endless: &[&str], some: &[&str], whole: impl Fn(&str) -> Vec<String>) {
    let folder = std::env::temp_dir().join(format!("coffer-resume-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (killed, straight) = (folder.join("killed"), folder.join("straight"));
    let mut run = sim(endless, &killed).spawn().unwrap();
    while !killed.exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ends before it is killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(sim(some, &killed).status().unwrap().success());
    let kept = std::fs::read_to_string(&killed).unwrap();
    let arguments = whole(kept.lines().next().unwrap());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(sim(&arguments, &straight).status().unwrap().success());
    assert_eq!(kept, std::fs::read_to_string(&straight).unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn seeds_go_on_after_a_kill() {
    let program = ["--seed", "9000000", "--ops", "10", "--jobs", "2", "--seeds"];
    let seeds = |count: &'static str| [&program[..], &[count]].concat();
    is_as_one_sitting("seeds", &seeds("1000000"), &seeds("12"), |first_line| {
        let next: u64 = first_line.parse().expect("nothing was left out");
        let count = (next - 9_000_000).to_string();
        program.iter().map(|word| (*word).to_owned()).chain([count]).collect()
    });
}

/// Every fault is tried in the end, so the run of one sitting needs no other bounds.
#[test]
fn nth_faults_go_on_after_a_kill() {
    let all = ["--nth-faults", "40", "--jobs", "2"];
    is_as_one_sitting("faults", &all, &all, |_| all.map(str::to_owned).to_vec());
}
