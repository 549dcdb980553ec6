//! `-n` refuses what the command would refuse, in the same words; copies of components; damaged records; JSON of what changes labels.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::sets::{SIZE, all, edit_label, file, new_unit, refused, states};
use common::{Bench, digest};

/// That a command and its `-n` fail alike, and that both leave the disks as they are.
fn refused_alike(bench: &Bench, line: &str, disks: &[String], word: &str) {
    refused(bench, &format!("raid {line}"), disks, &[word]);
    refused(bench, &format!("raid -n {line}"), disks, &[word]);
    let (real, plan) = (bench.run(&format!("raid {line}")), bench.run(&format!("raid -n {line}")));
    assert_eq!((plan.code, &plan.err, plan.out.as_str()), (real.code, &real.err, ""), "{line}");
}

#[test]
fn what_is_refused_is_refused_with_n_too() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let mirror = new_unit(&bench, "raid1", 5, 2, '1');
    let small = bench.disk("small", SIZE / 2);
    let spare = bench.disk("spare", SIZE);
    let alike = |line: &str, word: &str| refused_alike(&bench, line, &d, word);
    let on = |option: &str, disk: &str| format!("{option} {disk} raid0");
    let raid_on = |option: &str, disk: &str| format!("raid {}", on(option, disk));
    alike(&on("-f", "nothing"), "nothing is not a component of this device: -s lists them");
    alike(&on("-F", &d[1]), "no spares are available");
    alike(&on("-a", &small), "are needed");
    alike(&on("-a", &d[0]), "it is a component of raid0 already");
    alike(&on("-a", &mirror[0]), "is a component of raid1 already");
    alike(&on("-a", "/dev/null"), "neither a regular file nor a block device");
    alike(&on("-r", &d[0]), "d0 is a component, not a spare");
    alike(&on("-r", "nothing"), "nothing is not a component");
    alike("-B raid0", "nothing to copy back");
    alike("-M set 3 5 raid0", "10 ms or more");
    alike("-M set 3 500 9999 raid0", "1 to 4096");
    alike("-o jornal raid0", "there is no option -o jornal");
    alike("-o journal raid1", "needs no journal");
    bench.ok(&raid_on("-f", &d[0]));
    let needed =
        format!("the set cannot do without {} as long as {} is lost: rebuild that first", d[1], d[0]);
    alike(&on("-f", &d[1]), &needed);
    alike(&on("-R", &d[1]), &needed);
    alike("-i raid0", "d0 has failed: rebuild it first");
    alike(
        "-U 7 raid0",
        "d0 is failed, so this cannot be done: rebuild it first, with -R in place or with -F",
    );
    bench.ok(&raid_on("-a", &spare));
    alike(&on("-F", &d[1]), &needed);
    bench.ok(&raid_on("-F", &d[0]));
    alike(&on("-r", &spare), "spare is used_spare, so this cannot be done: -B copies it back first");
    alike(&on("-R", &d[0]), "d0 is spared, so this cannot be done: -B copies it back first");
    let kept = fs::read(&d[0]).unwrap();
    fs::write(&d[0], "short").unwrap();
    alike("-B raid0", "are needed");
    fs::write(&d[0], kept).unwrap();
    bench.ok("raid -B raid0");
    // What can be done is done by -n in nothing but words.
    let said = bench.run("raid -n --json -A yes raid0").data();
    assert_eq!(said["would"][0], "would change the labels of raid0");
    let said = bench.run("raid -n -o autospare raid0");
    assert_eq!((said.code, said.out.as_str()), (0, "would set autospare\n"));
    assert!(!bench.ok("raid -vs raid0").contains("by themselves: on"));
}

/// `-n` with a file tells what would be told, whatever stands against the set.
#[test]
fn configurations_are_refused_with_n_too() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let other = new_unit(&bench, "raid1", 3, 3, '5');
    bench.ok("raid -u raid0");
    let small = bench.disk("small", 20_000);
    let blank = bench.disk("blank", SIZE);
    let names = |disks: [&String; 3], spares: &[&str], level: char| {
        file(&bench, "some.conf", &disks.map(String::as_str), spares, level)
    };
    let alike = |option: &str, path: &str, word: &str| {
        refused_alike(&bench, &format!("{option} {path} raid0"), &d, word);
    };
    alike("-c", &names([&d[1], &d[0], &d[2]], &[], '5'), "column");
    alike("-c", &names([&d[0], &d[1], &d[2]], &[], '4'), "RAID level 5, not 4");
    alike("-C", &names([&d[0], &d[1], &other[0]], &[], '5'), "is a component of raid1 already");
    alike("-c", &names([&d[0], &blank, &small], &[], '5'), "fewer than labels take");
    alike(
        "-C",
        &names([&d[0], &d[1], &small], &[], '5'),
        "small has 39 sectors, fewer than labels take; write \"absent\"",
    );
    let stripes = names([&d[0], &d[1], &d[2]], &[], '0');
    alike("-o journal -C", &stripes, "needs no journal");
    alike("-c", &names([&d[0], &d[1], &bench.path("gone")], &[], 'N'), "RAID level 5, not N");
    edit_label(&d[1], |label| label.mod_counter -= 3);
    edit_label(&d[2], |label| label.mod_counter -= 5);
    alike("-c", &names([&d[0], &d[1], &d[2]], &[], '5'), "different modification counters");
    // What would be made, with spares; and nothing is remembered of it.
    let before: Vec<_> = d.iter().chain([&blank]).map(|disk| digest(disk)).collect();
    let path = names([&d[0], &d[1], &d[2]], &[&blank], '5');
    let told = bench.ok(&format!("raid -n -C {path} raid0"));
    assert!(told.contains("blank: spare\nParity status: DIRTY\n"), "{told}");
    assert!(before == d.iter().chain([&blank]).map(|disk| digest(disk)).collect::<Vec<_>>());
    assert_eq!(bench.run("raid -s raid0").code, 1);
}

/// A byte-wise copy beside a component: nothing tells which is the one. Once the set has been used without it, it is old.
#[test]
fn copies_of_components_are_not_taken() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let m = new_unit(&bench, "raid1", 3, 2, '1');
    let spare = bench.disk("spare", SIZE);
    for line in [&format!("raid -a {spare} raid0"), "raid -A yes raid0", "raid -A yes raid1"] {
        bench.ok(line);
    }
    // Half of a mirror that is in use.
    let half = bench.path("half");
    fs::copy(&m[1], &half).unwrap();
    let words = [half.as_str(), "which is configured without it"];
    refused(&bench, "raid -L raid0", &m, &words);
    refused(&bench, "raid -n -L raid0", &m, &words);
    assert_eq!(bench.ok("raid list").lines().count(), 2);
    fs::remove_file(&half).unwrap();
    bench.ok("raid -u raid0");
    for (one, name) in [(&d[1], "component"), (&spare, "spare")] {
        let copy = bench.path("a-copy");
        fs::copy(one, &copy).unwrap();
        let why = format!("{copy} and {one} are copies of one {name}: take one of them away");
        let why = [why.as_str()];
        refused(&bench, "raid -L raid0", &[&d[..], std::slice::from_ref(&copy)].concat(), &why);
        refused(&bench, "raid -n -L raid0", &d, &why);
        fs::remove_file(&copy).unwrap();
    }
    let copy = bench.path("a-copy");
    fs::copy(&d[1], &copy).unwrap();
    // The file says which.
    let path = file(&bench, "which.conf", &all(&d), &[&spare], '5');
    bench.ok(&format!("raid -c {path} raid0"));
    bench.ok("raid -u raid0");
    let told = bench.run("raid --json -L raid0");
    assert_eq!((told.code, told.data()["configured"][0].as_str()), (0, Some("raid0")));
    assert!(
        told.err.contains("a-copy: the label says raid0") && told.err.lines().count() == 1,
        "{}",
        told.err
    );
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: optimal, spare: spare");
}

/// Of a unit that can't be used any more it is said why each component does not count.
#[test]
fn a_unit_that_cannot_be_used_says_why() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let kept = d.iter().map(|disk| fs::read(disk).unwrap()).collect::<Vec<_>>();
    edit_label(&d[0], |label| label.mod_counter -= 2);
    edit_label(&d[1], |label| label.column = 2);
    let words = [
        "raid0 cannot be used",
        "d0 counts as failed: its label has serial number 1000 and modification counter",
    ];
    refused(&bench, "raid -s raid0", &d, &words);
    refused(&bench, "raid -s raid0", &d, &["d1 counts as failed: its label says column 2, not 1"]);
    fs::write(&d[0], vec![0; SIZE as usize]).unwrap();
    refused(&bench, "raid -s raid0", &d, &["d0 counts as failed: it has no component label"]);
    assert!(bench.ok("raid -n -u raid0").starts_with("would forget raid0 as it is: raid0 cannot be used"));
    fs::write(&d[0], &kept[0]).unwrap();
    bench.ok("raid -s raid0");
}

#[test]
fn one_damaged_record_does_not_hide_the_others() {
    let bench = Bench::new();
    new_unit(&bench, "raid0", 0, 3, '5');
    new_unit(&bench, "raid1", 3, 2, '1');
    fs::write(bench.path("state/raid/raid1.json"), "{ \"unit\":").unwrap();
    let ran = bench.run("raid list");
    assert!(ran.code == 1 && ran.out.starts_with("raid0: RAID Level 5:"), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("raid1.json is not a record of a unit") && ran.err.contains("remove it"));
    let ran = bench.run("raid --json list");
    let data = ran.data();
    assert_eq!(
        (ran.code, data[0]["level"].as_str(), data[1]["unit"].as_str()),
        (1, Some("5"), Some("raid1"))
    );
    assert!(data[1]["damaged"].as_str().unwrap().contains("raid1.json"));
    // Without knowing what its components are, none can be given to another unit; but raid0 goes on.
    let disks = [bench.disk("x", SIZE), bench.disk("y", SIZE)];
    let path = file(&bench, "new.conf", &all(&disks), &[], '1');
    refused(&bench, &format!("raid -C {path} raid2"), &disks, &["raid1.json is not a record"]);
    bench.ok("raid -s raid0");
    bench.ok("raid -u raid0");
}

#[test]
fn what_changes_labels_answers_in_json() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = |line: &str| bench.run(&format!("raid --json {line} raid0")).data();
    let told = data("-A root");
    assert_eq!((told["autoconfigure"].as_bool(), told["root"].as_str()), (Some(true), Some("Force")));
    assert_eq!(data("-v -A no")["root"], "No");
    assert_eq!(data("-M no")["enabled_next"], false);
    assert_eq!(data("-M yes")["enabled_next"], true);
    let told = data("-M set 3 2000");
    assert_eq!((told["cooldown"].as_u64(), told["tick_ms"].as_u64()), (Some(3), Some(2000)));
    let told = data("-G");
    assert_eq!((&told["level"], &told["components"][1]), (&"5".into(), &d[1].as_str().into()));
    assert_eq!(told["file"].as_str(), Some(bench.ok("raid -G raid0").as_str()));
    assert_eq!(data("-v -i")["rewrite"], "done");
    assert_eq!(data("-P")["parity"], "clean");
    bench.start("raid hold raid0").kill();
    new_unit(&bench, "raid1", 3, 2, '0');
    assert_eq!(bench.run("raid --json -M yes raid1").data()["redundant"], false);
    bench.ok("raid -u raid0");
    assert_eq!(data(&format!("-c {}", bench.path("raid0.conf")))["configured"][0], "raid0");
}

/// Level R has room for a lost component in the free units of the others, and goes on over any restart and another loss.
#[test]
fn rotated_sparing_needs_no_spare() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 5, 'R');
    let data = common::noise(5, 3 << 20);
    assert_eq!(bench.feed("raid write raid0", &data).code, 0);
    let holds = || bench.bytes(&format!("raid read raid0 --length {}", data.len())) == data;
    bench.ok("raid -A yes raid0");
    let told = bench.ok(&format!("raid -n -F {} raid0", d[1]));
    assert!(told.ends_with("would reconstruct it on the free units of the others\n"), "{told}");
    bench.ok(&format!("raid -F {} raid0", d[1]));
    let spared = "d0: optimal, d1: spared, d2: optimal, d3: optimal, d4: optimal";
    assert_eq!((states(&bench, "raid0").as_str(), holds()), (spared, true));
    assert_eq!(common::sets::status(&bench, "raid0")["in_free_units"].as_str(), Some(d[1].as_str()));
    refused_alike(&bench, &format!("-F {} raid0", d[2]), &d, "no spares are available");
    // Without the component, by a file and by its labels.
    fs::rename(&d[1], bench.path("away")).unwrap();
    for option in [format!("-c {}", bench.path("raid0.conf")), "-L".to_owned()] {
        bench.ok("raid -u raid0");
        assert_eq!(bench.run(&format!("raid {option} raid0")).code, 0, "{option}");
        let told = states(&bench, "raid0");
        assert!(told.contains("spared") && !told.contains("failed") && holds(), "{option}: {told}");
    }
    bench.ok(&format!("raid -f {} raid0", d[3]));
    assert!(holds());
    bench.ok(&format!("raid -R {} raid0", d[3]));
    bench.ok("raid -u raid0");
    fs::rename(bench.path("away"), &d[1]).unwrap();
    bench.ok(&format!("raid -c {} raid0", bench.path("raid0.conf")));
    assert_eq!((states(&bench, "raid0").as_str(), holds()), (spared, true));
    bench.ok("raid -B raid0");
    assert!(!states(&bench, "raid0").contains("spared") && holds());
    assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
}
