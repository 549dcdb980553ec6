//! House rules that a compiler does not know: walks the sources and fails on what breaks them.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be, lines.
const LINES_MAX: usize = 800;

/// Longer files: (path, lines, why).
const LONGER: [(&str, usize, &str); 0] = [];

/// Words that are never merged.
const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];

/// The engine and what is below it get time and randomness from outside.
const PURE: [&str; 7] = ["parity", "geometry", "device", "formats", "tree", "pool", "sim"];

/// Where they would come from.
const IMPURE: [&str; 5] = ["SystemTime::now", "Instant::now", "rand::", "getrandom", "thread_rng"];

/// Uses that are meant: (file, word, why).
const MEANT: [(&str, &str, &str); 3] = [
    ("crates/sim/src/main.rs", "Instant::now", "tells the user how long the runs took"),
    ("crates/sim/src/progress.rs", "Instant::now", "keeps the progress of long runs every few seconds"),
    ("crates/sim/src/watch.rs", "Instant::now", "names a program that does not end"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every source of the workspace: (path from the root, contents).
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("crates"), &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            (name, String::from_utf8(fs::read(path).unwrap()).unwrap())
        })
        .filter(|(name, _)| name != "crates/xtask/tests/tidy.rs")
        .collect()
}

/// A source without comments and without the tests at its end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_module = |at: usize| {
        let behind = text[at..].lines().skip(1).find(|line| !line.trim_start().starts_with("#["));
        behind.is_some_and(|line| {
            line.trim_start_matches("pub(crate) ").starts_with("mod ") && line.ends_with('{')
        })
    };
    let end =
        text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|&at| is_module(at)).unwrap_or(text.len());
    let lines = text[..end].lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_ascii() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        let most = LONGER.iter().find(|(path, ..)| *path == name).map_or(LINES_MAX, |(_, lines, _)| *lines);
        if lines > most {
            wrong.push(format!("{name} has {lines} lines, {most} are allowed: split it by subject"));
        }
        if let Some((index, _)) = text.lines().enumerate().find(|(_, line)| !line.is_ascii()) {
            wrong.push(format!("{name}:{} is not ASCII", index + 1));
        }
        if text.lines().any(|line| line.ends_with([' ', '\t'])) || !(text.is_empty() || text.ends_with('\n'))
        {
            wrong.push(format!("{name} has blanks at the end of a line, or no end of the last line"));
        }
    }
    report(&wrong);
}

#[test]
fn nothing_is_unfinished() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (line, source) in code(&text) {
            wrong.extend(
                UNFINISHED
                    .iter()
                    .filter(|word| source.contains(**word))
                    .map(|word| format!("{name}:{line} has {word}")),
            );
        }
    }
    report(&wrong);
}

#[test]
fn time_and_randomness_come_from_outside() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let pure = PURE.iter().any(|of| name.starts_with(&format!("crates/{of}/src/")));
        if !pure {
            continue;
        }
        for (line, source) in code(&text) {
            for word in IMPURE.iter().filter(|word| source.contains(**word)) {
                if !MEANT.iter().any(|(path, meant, _)| *path == name && meant == word) {
                    wrong.push(format!("{name}:{line} has {word}: take it as an argument"));
                }
            }
        }
    }
    report(&wrong);
}

/// Clippy warns of `unwrap`; this finds it where the warning is switched off.
#[test]
fn libraries_do_not_unwrap() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let tests =
            ["/tests.rs", "golden.rs"].iter().any(|end| name.ends_with(end)) || name.contains("/tests/");
        let library = name.contains("/src/") && !tests;
        let tool = ["xtask", "sim", "bench", "parity-bench"]
            .iter()
            .any(|of| name.starts_with(&format!("crates/{of}/")));
        if !library || tool || name.contains("/benches/") {
            continue;
        }
        for (line, source) in code(&text).filter(|(_, source)| source.contains(".unwrap()")) {
            wrong.push(format!("{name}:{line}: {}", source.trim()));
        }
    }
    report(&wrong);
}

/// Whoever allows unsafe code says why, and only where it is allowed at all.
#[test]
fn unsafe_code_stays_where_it_belongs() {
    let allowed =
        ["crates/parity/", "crates/parity-bench/", "crates/device/src/sys/", "crates/device/src/lib.rs"];
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if allowed.iter().any(|path| name.starts_with(path)) {
            continue;
        }
        for (line, source) in code(&text) {
            if source.contains("unsafe {")
                || source.contains("unsafe fn")
                || source.contains("allow(unsafe_code")
            {
                wrong.push(format!("{name}:{line}: {}", source.trim()));
            }
        }
    }
    report(&wrong);
}
