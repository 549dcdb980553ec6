//! What `raidctl` tells: to programs about every option, before it is done about sets of sets, and afterwards about jobs that failed.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::thread;
use std::time::Duration;

use common::sets::{SIZE, all, file, new_unit, refused, states};
use common::{Bench, digest, noise};
use serde_json::{Value, json};

/// The answer to a command with `--json`, whose exit code must be 0.
fn answer(bench: &Bench, line: &str) -> Value {
    let ran = bench.run(&format!("raid --json {line}"));
    assert_eq!(ran.code, 0, "{line}: {}", ran.err);
    assert_eq!(ran.out.lines().count(), 1, "{line}: {}", ran.out);
    ran.data()
}

#[test]
fn every_option_answers_programs() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let spare = bench.disk("spare", SIZE);
    let conf = bench.path("raid0.conf");
    let of = |action: &str, component: &str, outcome: &str| json!({ "action": action, "unit": "raid0", "component": component, "outcome": outcome });
    let told = answer(&bench, &format!("-t {conf}"));
    assert_eq!(told, json!({ "action": "check_file", "file": conf, "outcome": "valid", "warnings": [] }));
    let told = answer(&bench, "-I 77 raid0");
    assert_eq!(
        told,
        json!({ "action": "init_labels", "unit": "raid0", "serial_number": 77, "outcome": "done" })
    );
    bench.ok("raid -i raid0");
    // What each would do, then what it did.
    for (line, component, action, outcome) in [
        (format!("-a {spare}"), &spare, "add_spare", "done"),
        (format!("-f {}", d[1]), &d[1], "fail", "done"),
        (format!("-f {}", d[1]), &d[1], "fail", "unchanged"),
        (format!("-F {}", d[1]), &d[1], "reconstruct", "done"),
        ("-B".to_owned(), &d[1], "copyback", "done"),
        (format!("-R {}", d[2]), &d[2], "reconstruct_in_place", "done"),
        (format!("-r {spare}"), &spare, "remove_spare", "done"),
    ] {
        let plan = answer(&bench, &format!("-n {line} raid0"));
        assert_eq!((&plan["action"], &plan["unit"]), (&action.into(), &"raid0".into()), "{line}: {plan}");
        assert!(plan["would"][0].is_string() && plan.get("outcome").is_none(), "{line}: {plan}");
        assert_eq!(answer(&bench, &format!("{line} raid0")), of(action, component, outcome), "{line}");
    }
    let told = answer(&bench, "-U 3 raid0");
    assert_eq!(told, json!({ "action": "set_unit", "unit": "raid0", "last_unit": 3, "outcome": "done" }));
    let told = answer(&bench, "-o autospare raid0");
    assert_eq!(
        told,
        json!({ "action": "none", "unit": "raid0", "options": ["autospare"], "outcome": "done" })
    );
    for (line, action, outcome) in [
        ("-i", "rewrite_parity", "done"),
        ("-P", "check_and_rewrite_parity", "unchanged"),
        ("-A yes", "set_autoconfigure", "done"),
        ("-M yes", "set_map", "done"),
        ("-M set 3 2000", "set_map", "done"),
        ("", "none", "done"),
        ("-u", "unconfigure", "done"),
        ("", "none", "not_configured"),
        (&format!("-c {conf}"), "configure", "done"),
    ] {
        let told = answer(&bench, &format!("{line} raid0"));
        let seen = (&told["action"], &told["unit"], &told["outcome"]);
        assert_eq!(seen, (&action.into(), &"raid0".into(), &outcome.into()), "{line}: {told}");
    }
    let plan = answer(&bench, "-n -u raid0");
    assert_eq!(
        (&plan["action"], &plan["would"][0]),
        (&"unconfigure".into(), &"would unconfigure raid0".into())
    );
    bench.ok("raid -u raid0");
    let told = answer(&bench, "-L raid0");
    assert_eq!(told, json!({ "action": "rescan", "configured": ["raid0"], "outcome": "done" }));
    // While another process has it, what takes long is begun, and that is said.
    bench.ok(&format!("raid -a {spare} raid0"));
    let holder = bench.start("raid hold raid0");
    for (line, outcome) in [
        (format!("-F {} raid0", d[0]), "started"),
        ("-B raid0".to_owned(), "started"),
        ("-i raid0".to_owned(), "started"),
    ] {
        assert_eq!(answer(&bench, &line)["outcome"], outcome, "{line}");
        bench.ok("raid -S raid0");
    }
    holder.kill();
    let told = answer(&bench, "-P raid0");
    assert_eq!((&told["parity"], &told["outcome"]), (&"clean".into(), &told["outcome"]));
    // What fails says so on standard error alone, as everywhere in `coffer`.
    for line in
        ["-f nothing raid0", "-c nothing raid0", "-t nothing", "-B raid0", "-u raid9", "-o autospare raid9"]
    {
        let ran = bench.run(&format!("raid --json {line}"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{line}");
        assert!(!ran.err.is_empty(), "{line}");
    }
    // A setting is not taken and lost.
    for (line, option) in [("-L raid0", "-L"), ("-u raid0", "-u"), (&format!("-t {conf}"), "-t")] {
        refused(&bench, &format!("raid -o autospare {line}"), &d, &["-o does not go with", option]);
    }
}

/// Sets over sets, over plain disks, in the folder of their own: `-n -L` says all that `-L` then does, and leaves every byte as it is.
#[test]
fn sets_of_sets_are_foretold() {
    let bench = Bench::new();
    let lower = [new_unit(&bench, "raid0", 0, 3, '5'), new_unit(&bench, "raid1", 3, 2, '1')];
    let upper = |unit: &str, below: &[&str], level: char, serial: u32| {
        let conf = file(&bench, &format!("{unit}.conf"), below, &[], level);
        bench.ok(&format!("raid -C {conf} {unit}"));
        bench.ok(&format!("raid -I {serial} {unit}"));
        bench.ok(&format!("raid -i {unit}"));
    };
    let beside = bench.disk("d9", SIZE);
    upper("raid2", &["/dev/raid0", "/dev/raid1"], '0', 2000);
    upper("raid3", &["/dev/raid2", &beside], '1', 3000);
    for unit in ["raid0", "raid1", "raid2", "raid3"] {
        bench.ok(&format!("raid -A yes {unit}"));
    }
    for unit in ["raid3", "raid2", "raid1", "raid0"] {
        bench.ok(&format!("raid -u {unit}"));
    }
    let disks: Vec<String> = [lower.concat(), vec![beside.clone()]].concat();
    let digests = || disks.iter().map(|disk| digest(disk)).collect::<Vec<_>>();
    let before = digests();
    let told = bench.ok("raid -n -L raid0");
    let expected = format!(
        "would configure raid0 of {}\nwould configure raid1 of {}\nwould configure raid2 of /dev/raid0 /dev/raid1\n\
         would configure raid3 of {beside} /dev/raid2\n",
        lower[0].join(" "),
        lower[1].join(" ")
    );
    assert_eq!(told, expected);
    assert_eq!(answer(&bench, "-n -L raid0")["would"].as_array().unwrap().len(), 4);
    assert!(before == digests(), "-n has written");
    assert_eq!(bench.ok("raid list"), "no units are configured\n");
    assert_eq!(answer(&bench, "-L raid0")["configured"], json!(["raid0", "raid1", "raid2", "raid3"]));
    assert_eq!(states(&bench, "raid3"), "raid2: optimal, d9: optimal");
    for unit in ["raid3", "raid2", "raid1", "raid0"] {
        bench.ok(&format!("raid -u {unit}"));
    }
    // Without a component of the lowest, and without one half of another: what is left is foretold as it would come.
    fs::rename(&lower[0][1], bench.path("away")).unwrap();
    fs::rename(bench.path("away"), bench.path("state/away")).unwrap();
    let told = bench.ok("raid -n -L raid0");
    let said: Vec<&str> = told.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
    let real = answer(&bench, "-L raid0");
    assert_eq!(json!(said), real["configured"], "{told}");
    assert_eq!(said.len(), 4);
}

/// While a unit is held, what fails is told by its holder, to a terminal that nobody may look at; and by `-s` and `-S`, until it is begun again.
#[test]
fn a_job_that_failed_is_told() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let spare = bench.disk("spare", SIZE);
    bench.ok(&format!("raid -a {spare} raid0"));
    let data = noise(3, 2 << 20);
    assert_eq!(bench.feed("raid write raid0", &data).code, 0);
    let quiet = bench.ok("raid -S raid0");
    let kept = fs::read(&d[2]).unwrap();
    let holder = bench.start("raid hold raid0");
    // The end of a component cannot be read any more.
    fs::OpenOptions::new().write(true).open(&d[2]).unwrap().set_len(SIZE / 2).unwrap();
    bench.ok(&format!("raid -F {} raid0", d[0]));
    let ran = bench.run("raid -S raid0");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line = format!("Reconstruction failed: {}: ", d[0]);
    for _ in 0..50 {
        if bench.ok("raid -S raid0").contains(&line) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let told = bench.ok("raid -S raid0");
    let rest = told.strip_prefix(&quiet).unwrap_or_else(|| panic!("{told}"));
    assert!(rest.starts_with(&line) && rest.lines().count() == 1 && rest.contains("too many"), "{rest}");
    assert!(bench.ok("raid -s raid0").ends_with(rest));
    for option in ["-S", "-s"] {
        let told = answer(&bench, &format!("{option} raid0"));
        let jobs = if option == "-s" { &told["jobs"] } else { &told };
        let why = jobs["failed"]["reconstruction"].as_str().unwrap();
        assert_eq!(format!("Reconstruction failed: {why}\n"), rest);
        assert_eq!((&jobs["failed"]["rewrite"], &jobs["failed"]["copyback"]), (&Value::Null, &Value::Null));
    }
    // The next process knows it, too.
    holder.kill();
    let mend = |disk: &str, kept: &[u8]| {
        let mut whole = fs::read(disk).unwrap();
        whole.extend_from_slice(&kept[whole.len()..]);
        fs::write(disk, whole).unwrap();
    };
    // A component that is smaller now does not make the set smaller.
    refused(&bench, "raid -S raid0", &d, &["d2 counts as failed: it has 6144 sectors, but its label needs"]);
    mend(&d[2], &kept);
    assert!(bench.ok("raid -S raid0").ends_with(rest));
    // In the foreground it is the command that fails, and nothing says that it was done.
    let limited = |line: &str| {
        // No file may be written beyond 2 MiB.
        let script = format!("trap '' XFSZ; ulimit -f 2048; exec {} {line}", env!("CARGO_BIN_EXE_coffer"));
        let mut bash = std::process::Command::new("bash");
        let ran = bash.args(["-c", &script]).env("COFFER_STATE_DIR", bench.path("state")).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.code(), text(&ran.stdout), text(&ran.stderr))
    };
    let (code, out, err) = limited(&format!("raid --json -F {} raid0", d[0]));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("raid0: reconstruction failed: ") && err.contains("spare"), "{err}");
    assert!(bench.ok("raid -S raid0").contains("spare"));
    // Once it can be done, and is, there is nothing to tell.
    bench.ok(&format!("raid -F {} raid0", d[0]));
    assert_eq!(bench.ok("raid -S raid0"), quiet);
    assert!(bench.bytes(&format!("raid read raid0 --length {}", data.len())) == data);
    // A copyback whose target cannot be written, and a rewrite.
    let (code, _, err) = limited("raid -B raid0");
    assert!(code == Some(1) && err.contains("raid0: copyback failed: ") && err.contains("d0: "), "{err}");
    let told = bench.ok("raid -S raid0");
    assert!(told.strip_prefix(&quiet).unwrap().starts_with("Copyback failed: "), "{told}");
    bench.ok("raid -B raid0");
    bench.ok("raid -M no raid0");
    let mut bytes = fs::read(&d[1]).unwrap();
    let end = bytes.len() - (1 << 20);
    bytes[end - 4096..end].fill(7);
    fs::write(&d[1], bytes).unwrap();
    let (code, out, err) = limited("raid -i raid0");
    assert_eq!((code, out.as_str()), (Some(1), "Initiating re-write of parity\n"), "{err}");
    let told = bench.ok("raid -S raid0");
    let rest = told.strip_prefix(&quiet).unwrap();
    assert!(
        rest.starts_with("Parity Re-write failed: ") && rest.contains("has failed: rebuild it first"),
        "{rest}"
    );
    let lost = states(&bench, "raid0").split(", ").position(|state| state.ends_with("failed")).unwrap();
    bench.ok(&format!("raid -R {} raid0", d[lost]));
    bench.ok("raid -i raid0");
    assert_eq!(bench.ok("raid -S raid0"), quiet);
}

/// Words that would lead astray.
#[test]
fn refusals_name_what_stands_against() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let spare = bench.disk("spare", SIZE);
    let all_of = |line: &str, words: &[&str]| {
        refused(&bench, &format!("raid {line}"), &d, words);
        refused(&bench, &format!("raid -n {line}"), &d, words);
    };
    for unit in ["raid0x", "raid00", "raid", "raid4294967296", "/dev/rraid0z"] {
        for option in ["-s", "-L"] {
            let words =
                [format!("Unable to open device file: {unit}"), format!("'{unit}' is no unit: write raid0")];
            all_of(&format!("{option} {unit}"), &[&words[0], &words[1]]);
        }
    }
    bench.ok("raid -s raid0e");
    bench.ok(&format!("raid -a {spare} raid0"));
    let why = |what: &str| format!("it is {what} of raid0 already: name another device");
    all_of(&format!("-a {} raid0", d[0]), &["d0 cannot be used", &why("a component")]);
    all_of(&format!("-a {spare} raid0"), &["spare cannot be used", &why("a spare")]);
    let link = bench.path("link");
    std::os::unix::fs::symlink(&d[1], &link).unwrap();
    all_of(
        &format!("-a {link} raid0"),
        &["link cannot be used", &format!("a component of raid0 already, called {}", d[1])],
    );
    // A spare is no component, and a unit no spare of itself.
    all_of(&format!("-f {spare} raid0"), &["spare is a spare, not a component: -r removes it"]);
    bench.ok(&format!("raid -F {} raid0", d[1]));
    for option in ["-f", "-F", "-R"] {
        let why = format!("spare is a spare, not a component: name {}, which it replaces", d[1]);
        all_of(&format!("{option} {spare} raid0"), &[&why]);
    }
    bench.ok("raid -B raid0");
    all_of("-a raid0 raid0", &["raid0 cannot be a component of itself"]);
    // Every component that cannot be used is named, once, and is not said to count as failed where it does not.
    let conf = file(&bench, "dead.conf", &["/dev/null", &d[1], &bench.path("gone")], &[], '5');
    let ran = bench.run(&format!("raid -C {conf} raid5"));
    assert_eq!((ran.code, ran.err.lines().count()), (1, 2), "{}", ran.err);
    bench.ok("raid -u raid0");
    let ran = bench.run(&format!("raid -C {conf} raid5"));
    let why = format!(
        "cannot open /dev/null: it is neither a regular file nor a block device; cannot open {}: No such file or directory (os error 2); \
         write \"absent\" in its place",
        bench.path("gone")
    );
    assert!(ran.code == 1 && ran.err.lines().count() == 2 && ran.err.contains(&why), "{}", ran.err);
    // A rebuild that is under way, not its spare, is what another has to wait for.
    let large: Vec<String> = (0..4).map(|i| bench.disk(&format!("large{i}"), 64 << 20)).collect();
    let conf = file(&bench, "large.conf", &all(&large[..3]), &[&large[3]], '5');
    bench.ok(&format!("raid -C {conf} raid1"));
    bench.ok("raid -I 5 raid1");
    let holder = bench.start("raid hold raid1");
    bench.ok(&format!("raid -F {} raid1", large[1]));
    let ran = bench.run(&format!("raid -F {} raid1", large[0]));
    let why = format!("{} is being reconstructed: one at a time, and -S follows it to its end", large[1]);
    assert!(ran.code == 1 && ran.err.contains(&why), "{}", ran.err);
    bench.ok("raid -S raid1");
    holder.kill();
}
