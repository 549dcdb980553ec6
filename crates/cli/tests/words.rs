//! Words on the command line: help for every command, and a typo in every kind of argument.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, digest};

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or("");
    let lines = list.lines().take_while(|line| line.starts_with("  "));
    let names =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_help() {
    let bench = Bench::new();
    let top = bench.ok("--help");
    for part in ["Usage: coffer", "Exit codes: 0 done, 1 error, 2 wrong usage", "COFFER_STATE_DIR", "--json"]
    {
        assert!(top.contains(part), "{top}");
    }
    let names = commands(&top);
    for name in [
        "create",
        "list",
        "status",
        "usage",
        "map",
        "history",
        "events",
        "import",
        "export",
        "destroy",
        "labelclear",
        "add",
        "attach",
        "detach",
        "remove",
        "replace",
        "offline",
        "online",
        "clear",
        "checkpoint",
        "scrub",
        "wait",
        "get",
        "set",
        "volume",
        "snapshot",
        "rollback",
        "nbd",
        "fuse",
        "serve",
        "check",
        "demo",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
    }
    let mut all = names.clone();
    all.extend(commands(&bench.ok("help volume")).iter().map(|name| format!("volume {name}")));
    assert!(all.contains(&"volume read".to_owned()), "{all:?}");
    for name in all {
        let help = bench.ok(&format!("help {name}"));
        assert!(help.contains(&format!("Usage: coffer {name}")), "{help}");
        assert!(help.starts_with(|c: char| c.is_ascii_uppercase()), "{help}");
        // `raid` has an answer of its own, raidctl's.
        if name != "raid" {
            assert!(bench.ok(&format!("{name} --help")).contains("Usage: coffer "));
            assert!(bench.ok(&format!("{name} -h")).contains("Usage: coffer "));
            // Each argument and option says what it is.
            for line in help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("    ")) {
                let words = line.trim().split("  ").filter(|part| !part.is_empty()).count();
                let next_line = help.split(line).nth(1).is_some_and(|rest| rest.starts_with("\n        "));
                assert!(words > 1 || next_line, "coffer help {name}: '{line}' is not explained");
            }
        }
    }
}

/// A command line, its exit code, and what must be in the answer. `{0}` to `{3}` are disks: 0 and 1 the mirror `tank`,
/// 2 and 3 blank; `{dir}` is their folder.
const TYPOS: &[(&str, i32, &str)] = &[
    // Commands and options.
    ("craete tank {2}", 2, "'create'"),
    ("volume craete -V 1M tank/a", 2, "'create'"),
    ("create --dat single t2 {2}", 2, "'--data'"),
    ("scrub -x tank", 2, "'-x'"),
    ("list -t pools", 2, "'pool'"),
    ("completions tcsh", 2, "zsh"),
    // Pools.
    ("status tnak", 1, "no such pool 'tnak'"),
    ("status tank/vol", 2, "not the name of a pool"),
    ("scrub tnak", 1, "no such pool"),
    ("wait tnak", 1, "no such pool"),
    ("usage tnak", 1, "no such pool"),
    ("map tnak", 1, "no such pool"),
    ("history tnak", 1, "no such pool"),
    ("events tnak", 1, "no such pool"),
    ("export tnak", 1, "no such pool"),
    ("destroy tnak", 1, "no such pool"),
    ("serve tnak", 1, "no such pool"),
    ("fuse tnak {dir}", 1, "no such pool"),
    ("check tnak", 1, "tnak"),
    ("import tnak", 1, "no pool 'tnak' was found"),
    ("import 123", 1, "no pool '123' was found"),
    ("offline tnak {0}", 1, "no such pool"),
    ("create 2tank {2}", 1, "begins with a letter"),
    ("create ta/nk {2}", 2, "name"),
    // Volumes and snapshots.
    ("get all tank/vlo", 1, "no such volume: 'tank/vlo'"),
    ("volume read tank/vlo", 1, "no such volume"),
    ("volume write tank/vlo --from /dev/null", 1, "no such volume"),
    ("volume resize tank/vlo 1G", 1, "no such volume"),
    ("destroy tank/vlo", 1, "no such volume"),
    ("snapshot tank/vlo@a", 1, "no such volume"),
    ("nbd tank/vlo --socket {dir}/s", 1, "no such volume"),
    ("destroy tank/vol@nope", 1, "no such snapshot"),
    ("rollback tank/vol@nope", 1, "no such snapshot"),
    ("snapshot tank/vol@", 2, "empty"),
    ("snapshot tank/vol@a@b", 2, "more than one '@'"),
    ("snapshot tank@a", 2, "of a volume"),
    ("volume create -V 1M tank/", 2, "empty"),
    ("volume create -V 1M tank/a@b", 2, "snapshot"),
    ("volume create -s -V 1M tank/vol", 1, "already exists"),
    // Vdevs and profiles.
    ("create t2 mirrir {2} {3}", 1, "mirrir"),
    ("create t2 mirror {2} {3}x", 1, "No such file"),
    ("create t2 mirror d2 d3", 1, "full path"),
    ("create t2 mirror ./d2 ./d3", 1, "No such file"),
    ("create t2 draid:3c {2} {3}", 1, "3c"),
    ("create t2 draid4 {2} {3}", 1, "draid4"),
    ("create t2 draid:1d:1s {2} {3}", 1, "at least"),
    ("create --data raid8 t2 {2}", 2, "raid10"),
    ("create --metadata raid-1 t2 {2} {3}", 2, "raid10"),
    ("add tank mirorr {2} {3}", 1, "mirorr"),
    // Devices.
    ("offline tank {2}", 1, "no such device in pool"),
    ("online tank 12345", 1, "no such device in pool"),
    ("detach tank {2}", 1, "no such device in pool"),
    ("remove tank {2}", 1, "no such device in pool"),
    ("remove tank {0}", 1, "coffer detach"),
    ("clear tank {2}", 1, "no such device in pool"),
    ("attach tank {2} {3}", 1, "no such device in pool"),
    ("attach tank {0} {3}x", 1, "No such file"),
    ("replace tank {2} {3}", 1, "no such device in pool"),
    ("replace tank {0} {3}x", 1, "No such file"),
    ("labelclear {2}", 1, "no label"),
    ("labelclear -f {2}", 1, "no label"),
    ("check {2}", 1, ""),
    // Properties.
    ("create -o compresion=lz4 t2 {2}", 1, "those that can be set"),
    ("create -o failmode=panik t2 {2}", 1, "wait, continue"),
    ("create -o failmode t2 {2}", 2, "PROPERTY=VALUE"),
    ("get compresion tank/vol", 1, "no such property: 'compresion'"),
    ("get volsize,comprssion tank/vol", 1, "no such property: 'comprssion'"),
    ("set compression=lz5 tank/vol", 1, "zstd"),
    ("set compresion=lz4 tank/vol", 1, "compression"),
    ("set compression=lz4 tank", 1, "those that can be set"),
    ("set failmode=waitt tank", 1, "wait, continue"),
    ("set autoexpand=maybe tank", 1, "on, off"),
    ("set scan_rate=fast tank", 1, "bytes per second"),
    ("set volsize=12q tank/vol", 1, "'12q'"),
    ("set refreservation=lots tank/vol", 1, "'lots'"),
    ("set checksum=md5 tank/vol", 1, "blake3"),
    ("set size=1G tank", 1, "those that can be set"),
    ("set =1 tank", 2, "PROPERTY=VALUE"),
    ("volume create -V 1M -o compression=lzz tank/a", 1, "zstd"),
    ("import -o readonly=yes -d {dir} other", 2, "on or off"),
    // Sizes and numbers.
    ("volume create -V 12X tank/a", 2, "unit"),
    ("volume create -V 0 tank/a", 1, "not 0"),
    ("volume create -V 1M -b 5000 tank/a", 1, "power of two"),
    ("volume create -V 1M -b 2M tank/a", 1, "power of two"),
    ("volume resize tank/vol lots", 2, "unit"),
    ("volume read tank/vol --length 1Z", 2, "unit"),
    ("volume read tank/vol --offset -1", 2, "-1"),
    ("import -T new tank", 2, "new"),
    ("demo --size lots", 2, "unit"),
    ("demo --seed x", 2, "x"),
    // Files, folders and addresses.
    ("volume read tank/vol --to /no/such/folder/x", 1, "/no/such/folder/x"),
    ("volume write tank/vol --from /no/such/file", 1, "/no/such/file"),
    ("import -d /no/such/folder tank", 1, "/no/such/folder"),
    ("nbd tank/vol --socket /no/such/folder/s", 1, "/no/such/folder/s"),
    ("nbd tank/vol --listen nowhere", 2, "address"),
    ("nbd tank/vol --listen 127.0.0.1", 2, "address"),
    ("nbd tank/vol --socket /a --listen 127.0.0.1:1", 2, "cannot be used with"),
    ("fuse tank /no/such/folder", 1, "/no/such/folder"),
    ("fuse tank {2}", 1, "not a directory"),
    ("man {2}", 1, "{2}"),
];

#[test]
fn a_typo_gets_a_clear_answer_and_changes_nothing() {
    let bench = Bench::new();
    let d: Vec<String> = (0..4).map(|index| bench.disk(&format!("d{index}"), 64 << 20)).collect();
    bench.ok(&format!("create tank mirror {} {}", d[0], d[1]));
    bench.ok("volume create -s -V 16M tank/vol");
    let other = bench.disk("other", 64 << 20);
    bench.ok(&format!("create other {other}"));
    bench.ok("export other");
    let fill = |text: &str| {
        let text = text.replace("{dir}", &bench.path(""));
        d.iter().enumerate().fold(text, |text, (index, disk)| text.replace(&format!("{{{index}}}"), disk))
    };
    let blank: Vec<_> = d[2..].iter().chain([&other]).map(|disk| digest(disk)).collect();
    let before = bench.ok("list -t all");
    let mut wrong = Vec::new();
    for (line, code, part) in TYPOS {
        let (line, part) = (fill(line), fill(part));
        let ran = bench.run(&line);
        let told = ran.err.contains(&part) && !ran.err.is_empty();
        let mine = *code == 2 || ran.err.starts_with("coffer ");
        if ran.code != *code || !told || !mine || ran.err.contains("panicked") {
            wrong.push(format!(
                "coffer {line}\n  {} instead of {code}, '{part}': {}",
                ran.code,
                ran.err.trim()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(d[2..].iter().chain([&other]).map(|disk| digest(disk)).collect::<Vec<_>>(), blank);
    assert_eq!(bench.ok("list -t all"), before);
    assert!(bench.ok("check tank").contains("no problems"));
}
