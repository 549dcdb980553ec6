//! Sessions of the manual page's examples, run for real and compared with what they printed before: `raidctl_session.txt`.
//!
//! In the text `$ ` begins a line for the shell, which goes on in lines that begin with `> `; what follows is what it prints, standard
//! error behind standard output, and `exit N` if it does not end with 0. `== ` begins a session: it has a folder of its own, and
//! a state folder. `COFFER_BLESS=1` writes the text anew; then look at the difference.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/raidctl_session.txt");

/// What every session can use: disks, patterns, checksums of components.
const TOOLS: &str = r#"
disks() { for name in "$@"; do truncate -s 4M "$name"; done; }
conf() {
    name=$1 level=$2 unit=$3 spares=$4; shift 4
    { echo START array; echo "$# $(echo $spares | wc -w)"; echo START disks; printf '%s\n' "$@"
      if [ -n "$spares" ]; then echo START spare; printf '%s\n' $spares; fi
      echo START layout; echo "$unit 1 1 $level"; echo START queue; echo fifo 100; } > "$name"
}
fill() { seq 1 150000 > data; coffer raid write "$1" --from data; }
holds() { coffer raid read "$1" --length "$(stat -c %s data)" | cmp - data && echo as written; }
unchanged() { sha256sum sd* > before; "$@"; code=$?; sha256sum --quiet --check before && echo nothing was changed; return $code; }
# Bytes of a component's label, from a place on, in the little-endian words of the label: 8 is the modification counter.
label_word() { printf "$3" | dd of="$1" bs=1 seek=$((16384 + $2)) conv=notrunc status=none; }
"#;

/// One command and what it is known to print.
struct Step {
    script: String,
    printed: String,
}

struct Session {
    title: String,
    steps: Vec<Step>,
}

fn parse(text: &str) -> (String, Vec<Session>) {
    let mut preface = String::new();
    let mut sessions: Vec<Session> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            sessions.push(Session { title: title.to_owned(), steps: Vec::new() });
            continue;
        }
        let Some(session) = sessions.last_mut() else {
            writeln!(preface, "{line}").unwrap();
            continue;
        };
        let (begins, goes_on) =
            (line.strip_prefix("$ "), line.strip_prefix("> ").or((line == ">").then_some("")));
        match (begins, goes_on, session.steps.last_mut()) {
            (Some(script), ..) => {
                session.steps.push(Step { script: script.to_owned(), printed: String::new() });
            }
            (None, Some(more), Some(step)) if step.printed.is_empty() => {
                write!(step.script, "\n{more}").unwrap();
            }
            (None, _, Some(step)) => writeln!(step.printed, "{line}").unwrap(),
            (None, _, None) => assert!(line.is_empty(), "{line:?} belongs to no command"),
        }
    }
    // Blank lines set commands apart.
    for step in sessions.iter_mut().flat_map(|session| &mut session.steps) {
        step.printed = step.printed.trim_end_matches('\n').to_owned();
    }
    (preface, sessions)
}

fn run(script: &str, folder: &Path) -> String {
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-c", &format!("{TOOLS}\n{script}")])
        .current_dir(folder.join("dev"))
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("COFFER_STATE_DIR", folder.join("state"))
        .output()
        .unwrap();
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed += &String::from_utf8_lossy(&output.stderr);
    // Each time another folder, and a meter goes over itself.
    printed = printed.replace(&*folder.join("dev").to_string_lossy(), "DEV").replace('\r', "\\r");
    match output.status.code() {
        Some(0) => {}
        code => {
            if !printed.is_empty() && !printed.ends_with('\n') {
                printed.push('\n');
            }
            writeln!(printed, "exit {}", code.unwrap_or(-1)).unwrap();
        }
    }
    printed.trim_end_matches('\n').to_owned()
}

/// What the commands of a session print.
fn play(session: &Session) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bin", "dev", "state"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["coffer", "raidctl"] {
        symlink(env!("CARGO_BIN_EXE_coffer"), folder.path().join("bin").join(name)).unwrap();
    }
    session.steps.iter().map(|step| run(&step.script, folder.path())).collect()
}

#[test]
fn the_manuals_examples() {
    let text = fs::read_to_string(TEXT).unwrap();
    let (preface, sessions) = parse(&text);
    assert!(sessions.len() > 8, "sessions are missing");
    let mut now = preface;
    let mut wrong = String::new();
    let played: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter().map(|session| scope.spawn(|| play(session))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (session, played) in sessions.iter().zip(played) {
        writeln!(now, "== {}\n", session.title).unwrap();
        for (step, printed) in session.steps.iter().zip(played) {
            let script = step.script.replace('\n', "\n> ").replace("\n> \n", "\n>\n");
            writeln!(now, "$ {script}").unwrap();
            if !printed.is_empty() {
                writeln!(now, "{printed}").unwrap();
            }
            now.push('\n');
            if printed != step.printed {
                let (title, script) = (&session.title, &step.script);
                writeln!(wrong, "== {title}\n$ {script}\nprinted:\n{printed}\nnot:\n{}\n", step.printed)
                    .unwrap();
            }
        }
    }
    if std::env::var_os("COFFER_BLESS").is_some() {
        fs::write(TEXT, now.trim_end().to_owned() + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}
