//! What `raidctl` refuses, and what it makes of configuration files and components that are not what they should be.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;

use common::sets::{SIZE, edit_label, file, new_unit, refused, states};
use common::{Bench, digest, noise};

#[test]
fn wrong_command_lines_and_units_exit_with_1() {
    let bench = Bench::new();
    for line in
        ["raid", "raid -s", "raid -s -p raid0", "raid -s raid0 raid1", "raid -x raid0", "raid -I abc raid0"]
    {
        let ran = bench.run(line);
        assert_eq!(ran.code, 1, "{line}");
        assert!(ran.err.contains("usage: ") && ran.err.contains("-C config_file dev"), "{line}: {}", ran.err);
    }
    for line in ["raid -s raid0", "raid -u raid0", "raid -i raid0", "raid -G raid0", "raid -p raid0"] {
        refused(&bench, line, &[], &["failed: Device not configured"]);
    }
    refused(&bench, "raid -s /dev/sda", &[], &["Unable to open device file: /dev/sda"]);
    // The same program under its other name.
    let link = bench.path("raidctl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_coffer"), &link).unwrap();
    let output =
        Command::new(&link).args(["-s", "raid0"]).env("COFFER_STATE_DIR", bench.path("state")).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(
        said.starts_with("raidctl: ioctl (RAIDFRAME_GET_INFO) failed: Device not configured\n"),
        "{said}"
    );
    // Wrong names.
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    for option in ["-g", "-f", "-F", "-r", "-R"] {
        refused(
            &bench,
            &format!("raid {option} /dev/nothing raid0"),
            &d,
            &["/dev/nothing is not a component"],
        );
    }
    refused(&bench, "raid -B raid0", &d, &["RAIDFRAME_COPYBACK", "nothing to copy back"]);
    let taken = bench.path("raid0.conf");
    refused(&bench, &format!("raid -c {taken} raid0"), &d, &["RAIDFRAME_CONFIGURE", "configured already"]);
    for option in ["-c", "-C"] {
        let words = ["RAIDFRAME_CONFIGURE", "is a component of raid0 already"];
        refused(&bench, &format!("raid {option} {taken} raid1"), &d, &words);
    }
    new_unit(&bench, "raid1", 3, 2, '1');
    refused(&bench, &format!("raid -a {} raid1", d[0]), &d, &["is a component of raid0 already"]);
}

#[test]
fn help_names_options_and_commands() {
    let bench = Bench::new();
    for line in ["raid --help", "raid -h"] {
        let told = bench.ok(line);
        assert!(
            told.contains("-C config_file dev") && told.contains("Compare data and redundancy"),
            "{told}"
        );
    }
    assert!(bench.ok("raid scrub --help").contains("--repair"));
}

/// A file, as the argument of an option, may be called as a command is.
#[test]
fn an_argument_is_no_command() {
    let bench = Bench::new();
    new_unit(&bench, "raid0", 0, 3, '5');
    bench.ok("raid -u raid0");
    for name in ["list", "read", "scrub"] {
        fs::copy(bench.path("raid0.conf"), bench.path(name)).unwrap();
        let ran = bench.command(&format!("raid -c {name} raid0")).current_dir(bench.path("")).output();
        let ran = ran.unwrap();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
        bench.ok("raid -u raid0");
    }
}

/// Another name of a component is not another device: neither while it is in use nor when sets are looked for.
#[test]
fn a_device_with_two_names_is_found_once() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    bench.ok("raid -A yes raid0");
    fs::hard_link(&d[2], bench.path("zzz")).unwrap();
    for option in ["-n -L", "-L"] {
        let ran = bench.run(&format!("raid {option} raid0"));
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{option}");
    }
    bench.ok("raid -u raid0");
    let found = bench.ok("raid -n -L raid0");
    assert_eq!(found, format!("would configure raid0 of {}\n", d.join(" ")));
    let ran = bench.run("raid -L raid0");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: optimal");
}

/// What a scrub came to, also for programs; one that cannot begin says nothing of a result.
#[test]
fn a_scrub_tells_its_result() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = bench.run("raid scrub --json raid0").data();
    assert_eq!((&data["mismatches"], &data["repairs"]), (&0.into(), &0.into()));
    bench.ok(&format!("raid -f {} raid0", d[1]));
    for json in ["", "--json"] {
        let ran = bench.run(&format!("raid scrub {json} raid0"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert!(ran.err.contains("d1 has failed: rebuild it first"), "{}", ran.err);
    }
}

/// A component or spare of any unit, by whatever name, is nothing to read into.
#[test]
fn nothing_is_read_into_a_component() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let e = new_unit(&bench, "raid1", 3, 2, '1');
    let spare = bench.disk("spare", SIZE);
    bench.ok(&format!("raid -a {spare} raid0"));
    let link = bench.path("link");
    std::os::unix::fs::symlink(&d[1], &link).unwrap();
    let all = [d.clone(), e.clone(), vec![spare.clone()]].concat();
    for (path, unit) in [(&d[0], "raid0"), (&link, "raid0"), (&spare, "raid0"), (&e[1], "raid1")] {
        let words = [format!("is a component of {unit}")];
        refused(&bench, &format!("raid read raid0 --length 5 --to {path}"), &all, &[&words[0]]);
    }
    bench.ok(&format!("raid read raid0 --length 5 --to {}", bench.path("out")));
}

/// The grammar as the real parser takes it, and any line of a file missing or damaged: told, and nothing is touched.
#[test]
fn configuration_files() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    bench.ok("raid -u raid0");
    let good = fs::read_to_string(bench.path("raid0.conf")).unwrap();
    let path = bench.path("test.conf");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        bench.run(&format!("raid -t {path}"))
    };
    let shuffled = format!(
        "START queue\nfifo 100\nSTART layout\n16 1 1 5\n# a comment\nSTART disks\n{}\nSTART debug\nsomeVariable 0x10\nSTART array\n1 3 0\n",
        d.join("\n")
    );
    for text in [&good, &shuffled, &good.replace("fifo 100", "sstf 5")] {
        let ran = check(text);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""), "{text}");
    }
    fs::write(&path, &shuffled).unwrap();
    bench.ok(&format!("raid -c {path} raid0"));
    bench.ok("raid -u raid0");
    // A wedge that does not exist is absent.
    fs::write(&path, good.replace(&d[1], "NAME=no-such-wedge")).unwrap();
    let ran = bench.run(&format!("raid -c {path} raid0"));
    assert!(ran.code == 0 && ran.err.contains("no-such-wedge"), "{}", ran.err);
    assert_eq!(states(&bench, "raid0"), "d0: optimal, component1: failed, d2: optimal");
    bench.ok("raid -u raid0");
    let bad = |text: &str, why: &str| {
        let ran = check(text);
        assert_eq!(ran.code, 1, "{text}");
        let last = "Unable to create RAIDframe configuration structure: Invalid argument\n";
        assert!(ran.err.contains(why) && ran.err.ends_with(last), "{why}: {}", ran.err);
        refused(&bench, &format!("raid -c {path} raid0"), &d, &[why]);
        refused(&bench, &format!("raid -C {path} raid0"), &d, &[why]);
    };
    let bad_to_run = |text: &str, why: &str| {
        let ran = check(text);
        assert!(ran.code == 1 && ran.err.contains(why), "{why}: {}", ran.err);
    };
    for (from, to, why) in [
        ("START array", "START nothing", "array"),
        ("START disks", "START nothing", "disks"),
        ("START layout", "START nothing", "layout"),
        ("16 1 1 5", "16 1 1", "RAID level"),
        ("16 1 1 5", "0 1 1 5", "positive"),
        ("16 1 1 5", "16 1 1 7", "unknown parity config"),
        ("3 0", "three", "numCol"),
        ("3 0", "40 0", "from 1 to 39"),
    ] {
        bad(&good.replace(from, to), why);
    }
    // What never ends is no configuration.
    refused(&bench, "raid -t /dev/zero", &d, &["cannot read /dev/zero: it has more than 1048576 bytes"]);
    // What is odd or can't be run is told when the file is checked, not only when it is used.
    for (from, to, why) in [
        ("16 1 1 5", "16 1 1 D", "RAID level 'D' cannot be run"),
        ("16 1 1 5", "16 1 1 L", "RAID level 'L' cannot be run"),
        ("16 1 1 5", "16 1 1 1", "RAID level 1 over 3 columns is impossible"),
    ] {
        bad_to_run(&good.replace(from, to), why);
    }
    for (from, to, why) in [
        ("fifo 100", "fifo 200", "has no queue length"),
        ("START queue\nfifo 100", "", "No disk queue discipline"),
        ("3 0", "4 0", "\"START spare\" is taken for a device"),
    ] {
        let ran = check(&good.replace(from, to));
        assert!(ran.code == 0 && ran.err.contains(why), "{why}: {}", ran.err);
    }
    // Whatever line is lost or garbled: no panic, no change, unless the file still says what it must.
    let lines: Vec<&str> = good.lines().collect();
    let before: Vec<_> = d.iter().map(|disk| digest(disk)).collect();
    for gone in 0..lines.len() {
        for with in [None, Some("\u{1}~~ 7 7"), Some("START"), Some("-5 -5 -5 -5")] {
            let text: Vec<&str> = (0..lines.len())
                .filter_map(|line| if line == gone { with } else { Some(lines[line]) })
                .collect();
            let ran = check(&text.join("\n"));
            assert!(matches!(ran.code, 0 | 1) && !ran.err.contains("panicked"), "{text:?}: {}", ran.err);
            let ran = bench.run(&format!("raid -n -C {path} raid0"));
            assert!(matches!(ran.code, 0 | 1) && !ran.err.contains("panicked"), "{text:?}: {}", ran.err);
        }
    }
    assert!(before == d.iter().map(|disk| digest(disk)).collect::<Vec<_>>());
}

/// Labels that are garbage, foreign or of other sizes, and components that are swapped or too small: refused without `-C`, by name.
#[test]
fn wrong_components_are_refused() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let other = new_unit(&bench, "raid1", 3, 3, '5');
    for unit in ["raid0", "raid1"] {
        bench.ok(&format!("raid -u {unit}"));
    }
    let small = bench.disk("small", 20_000);
    let blank = bench.disk("blank", SIZE);
    let try_out = |disks: [&str; 3], words: &[&str]| {
        let conf = file(&bench, "wrong.conf", &disks, &[], '5');
        refused(
            &bench,
            &format!("raid -c {conf} raid0"),
            &[&d[..], &other[..], std::slice::from_ref(&blank)].concat(),
            words,
        );
    };
    try_out([&d[1], &d[0], &d[2]], &["column"]);
    try_out([&d[0], &other[1], &blank], &["RAIDFRAME_CONFIGURE", "blank has no component label"]);
    try_out([&blank, &blank, &d[2]], &["same device"]);
    try_out([&d[0], &d[1], &d[1]], &["same device"]);
    try_out([&d[0], &small, &bench.path("gone")], &["RAIDFRAME_CONFIGURE"]);
    // The odd one out is failed, not believed.
    let conf = file(&bench, "mixed.conf", &[&d[0], &d[1], &blank], &[], '5');
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, blank: failed");
    bench.ok("raid -u raid0");
    // Of those that the set cannot do without it is said why they do not count.
    let kept = [fs::read(&d[0]).unwrap(), fs::read(&d[2]).unwrap()];
    fs::write(&d[0], "short").unwrap();
    edit_label(&d[2], |label| label.mod_counter -= 5);
    let all = format!("cannot do without all of {}, {}; ", d[0], d[2]);
    let words = [&all, "d0 counts as failed: ", "d2 counts as failed: its label has serial number"];
    try_out([&d[0], &d[1], &d[2]], &words);
    fs::write(&d[0], &kept[0]).unwrap();
    fs::write(&d[2], &kept[1]).unwrap();
    // With garbage in place of all labels there is no set.
    for disk in &d {
        edit_label(disk, |label| label.num_columns = 9);
    }
    let conf = bench.path("raid0.conf");
    refused(&bench, &format!("raid -c {conf} raid0"), &d, &["columns"]);
}

/// The others agree on a lower counter than one component has, as RAIDframe leaves it if two cables fail at once: the majority counts, and
/// goes on doing so in every later command and by `-L`.
#[test]
fn a_majority_with_a_lower_counter_stays_one() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    bench.ok("raid -A yes raid0");
    bench.ok("raid -u raid0");
    for disk in &d[..2] {
        edit_label(disk, |label| label.mod_counter -= 4);
    }
    let conf = bench.path("raid0.conf");
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: failed");
    bench.ok("raid -u raid0");
    bench.ok("raid -L raid0");
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: failed");
    bench.ok(&format!("raid -R {} raid0", d[2]));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: optimal");
}

/// Nothing has said that the parity of a new set is right before `-i` has: labels must not be the first to.
#[test]
fn new_labels_do_not_make_the_parity_good() {
    let bench = Bench::new();
    for (unit, level) in ["5", "1", "E", "N"].into_iter().enumerate() {
        let d: Vec<String> = (0..4).map(|index| bench.disk(&format!("{level}{index}"), SIZE)).collect();
        for (seed, disk) in d.iter().enumerate() {
            fs::write(disk, noise(seed as u64, SIZE as usize)).unwrap();
        }
        let names: Vec<&str> = d.iter().map(String::as_str).collect();
        let conf = file(&bench, "new.conf", &names, &[], level.chars().next().unwrap());
        bench.ok(&format!("raid -C {conf} raid{unit}"));
        assert_eq!(bench.run(&format!("raid -p raid{unit}")).code, 1);
        bench.ok(&format!("raid -I 12 raid{unit}"));
        assert_eq!(bench.run(&format!("raid -p raid{unit}")).code, 1);
        assert!(bench.ok(&format!("raid -g {} raid{unit}", d[0])).contains("Clean: No"));
        bench.ok(&format!("raid -u raid{unit}"));
        bench.ok(&format!("raid -c {conf} raid{unit}"));
        let said = bench.ok(&format!("raid -P raid{unit}"));
        assert!(said.contains("Parity Re-write complete"), "{said}");
        bench.ok(&format!("raid scrub raid{unit}"));
        bench.ok(&format!("raid -u raid{unit}"));
    }
}

/// Every component that counts as failed is named, the one that would have been excused alone as well, and spares too.
#[test]
fn all_that_is_in_the_way_is_named() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    bench.ok("raid -u raid0");
    let kept = fs::read(&d[0]).unwrap();
    for disk in &d[..2] {
        fs::write(disk, vec![0x5a; kept.len()]).unwrap();
    }
    let conf = bench.path("raid0.conf");
    let words = [
        "0 counts as failed: it has no component label; ",
        "1 has no component label, and the set cannot do without it",
    ];
    refused(&bench, &format!("raid -c {conf} raid0"), &d, &words);
    let conf = file(&bench, "absent.conf", &["absent", "absent", &d[2]], &[], '5');
    refused(&bench, &format!("raid -c {conf} raid0"), &d, &["column 1 is not there"]);
    let small = bench.disk("small", 20_000);
    let conf = file(&bench, "spares.conf", &[&d[0], &d[1], &d[2]], &[&bench.path("gone"), &small], '5');
    let ran = bench.run(&format!("raid -C {conf} raid0"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("gone: No such file or directory"), "{}", ran.err);
    assert!(ran.err.contains("the spare counts as failed\n"), "{}", ran.err);
    assert!(ran.err.contains("small counts as failed: "), "{}", ran.err);
}
