//! The manual page of `raidctl`, walked: what each option says and does, and every example it gives, run for real.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::sets::{SIZE, all, edit_label, file, new_unit, refused, states, status};
use common::{Bench, digest, noise};
use serde_json::Value;

fn fill(bench: &Bench, unit: &str, seed: u64) -> Vec<u8> {
    let data = noise(seed, 3 << 20);
    assert_eq!(bench.feed(&format!("raid write {unit} --offset 5000"), &data).code, 0);
    data
}

fn holds(bench: &Bench, unit: &str, data: &[u8]) {
    let read = bench.bytes(&format!("raid read {unit} --offset 5000 --length {}", data.len()));
    assert!(read == data, "{unit} does not hold what was written");
}

fn label(bench: &Bench, component: &str, unit: &str) -> Value {
    bench.run(&format!("raid --json -g {component} {unit}")).data()
}

#[test]
fn autoconfiguration_and_root_flags() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = fill(&bench, "raid0", 1);
    for (word, said, flag) in [
        ("yes", "raid0: Autoconfigure: Yes\nraid0: Root: No\n", 0),
        ("forceroot", "raid0: Autoconfigure: Yes\nraid0: Root: Force\n", 1),
        ("yes", "raid0: Autoconfigure: Yes\nraid0: Root: No\n", 0),
        ("root", "raid0: Autoconfigure: Yes\nraid0: Root: Force\n", 1),
        ("softroot", "raid0: Autoconfigure: Yes\nraid0: Root: Soft\n", 2),
        ("no", "raid0: Autoconfigure: No\n", 0),
    ] {
        assert_eq!(bench.ok(&format!("raid -v -A {word} raid0")), said);
        assert_eq!(bench.ok(&format!("raid -A {word} raid0")), "");
        for disk in &d {
            let label = label(&bench, disk, "raid0");
            assert_eq!(label["root_partition"], flag, "{word}");
            assert_eq!(label["autoconfigure"], word != "no", "{word}");
        }
    }
    // Not wanted, not found.
    bench.ok("raid -u raid0");
    assert_eq!(bench.ok("raid -L raid0"), "");
    assert_eq!(bench.run("raid -s raid0").code, 1);
    // Unit 5 from the next time on; which disk is called what does not matter.
    bench.ok(&format!("raid -c {} raid0", bench.path("raid0.conf")));
    bench.ok("raid -A yes raid0");
    bench.ok("raid -U 5 raid0");
    assert!(bench.ok(&format!("raid -g {} raid0", d[0])).ends_with("Last configured as: raid5\n"));
    bench.ok("raid -u raid0");
    for (disk, new) in d.iter().zip(["z", "y", "x"]) {
        fs::rename(disk, bench.path(new)).unwrap();
    }
    assert!(bench.ok("raid -nL raid0").contains("would configure raid5"));
    bench.ok("raid -L raid0");
    assert_eq!(bench.run("raid -s raid0").code, 1);
    assert_eq!(states(&bench, "raid5"), "z: optimal, y: optimal, x: optimal");
    holds(&bench, "raid5", &data);
    // A component that is lost keeps the unit from being set.
    bench.ok(&format!("raid -f {} raid5", bench.path("y")));
    refused(&bench, "raid -U 6 raid5", &[], &["SET_LAST_UNIT", "failed"]);
}

/// Two sets that claim the root file system are both configured, first of all, and it is told.
#[test]
fn sets_for_the_root_come_first() {
    let bench = Bench::new();
    let units =
        [("raid1", 0, "no"), ("raid2", 2, "softroot"), ("raid3", 4, "forceroot"), ("raid4", 6, "root")];
    for (unit, first, _) in units {
        new_unit(&bench, unit, first, 2, '1');
        bench.ok(&format!("raid -A yes {unit}"));
        // All of them were raid0 once.
        bench.ok(&format!("raid -U 0 {unit}"));
    }
    for (unit, _, root) in units {
        bench.ok(&format!("raid -A {} {unit}", if root == "no" { "yes" } else { root }));
        bench.ok(&format!("raid -u {unit}"));
    }
    let ran = bench.run("raid -L raid0");
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("2 sets claim to hold the root file system"), "{}", ran.err);
    let serials: Vec<i64> = (0..4)
        .map(|unit| {
            let first = status(&bench, &format!("raid{unit}"))["components"][0]["name"].clone();
            label(&bench, first.as_str().unwrap(), &format!("raid{unit}"))["serial_number"].as_i64().unwrap()
        })
        .collect();
    assert_eq!(serials, [1004, 1006, 1002, 1000]);
}

#[test]
fn spares_are_added_used_and_removed() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = fill(&bench, "raid0", 2);
    let [spare, small] = [bench.disk("d3", SIZE), bench.disk("small", SIZE / 2)];
    refused(
        &bench,
        &format!("raid -F {} raid0", d[1]),
        &d,
        &["RAIDFRAME_FAIL_DISK", "no spares are available"],
    );
    bench.ok(&format!("raid -f {} raid0", d[1]));
    // Failing what has failed is no error.
    bench.ok(&format!("raid -f {} raid0", d[1]));
    assert!(bench.ok("raid -s raid0").contains("d1: failed\n"));
    assert!(bench.ok("raid -s raid0").contains("\nNo spares.\n"));
    bench.ok(&format!("raid -a {spare} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: failed, d2: optimal, d3: spare");
    for (line, why) in [
        (format!("raid -a {spare} raid0"), "it is a spare of raid0 already"),
        (format!("raid -a {} raid0", d[0]), "it is a component of raid0 already"),
        (format!("raid -a {small} raid0"), "are needed"),
        (format!("raid -a {}.gone raid0", d[0]), "d0.gone"),
    ] {
        refused(&bench, &line, &d, &["RAIDFRAME_ADD_HOT_SPARE", why]);
    }
    // It has no label before it is used.
    refused(&bench, &format!("raid -g {spare} raid0"), &d, &["has no component label"]);
    bench.ok(&format!("raid -r {spare} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: failed, d2: optimal");
    refused(
        &bench,
        &format!("raid -r {spare} raid0"),
        &d,
        &["RAIDFRAME_REMOVE_COMPONENT", "not a component"],
    );
    bench.ok(&format!("raid -a {spare} raid0"));
    // -F after -f on the same disk.
    bench.ok(&format!("raid -F {} raid0", d[1]));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: spared, d2: optimal, d3: used_spare");
    assert_eq!(label(&bench, &spare, "raid0")["column"], 1);
    refused(&bench, &format!("raid -r {spare} raid0"), &d, &["used_spare"]);
    holds(&bench, "raid0", &data);
    // The spare takes the slot in the configuration file, too.
    bench.ok("raid -u raid0");
    let conf = file(&bench, "new.conf", &[&d[0], &spare, &d[2]], &[&d[1]], '5');
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d3: optimal, d2: optimal, d1: spare");
    holds(&bench, "raid0", &data);
    assert_eq!(bench.run("raid -p raid0").code, 0);
}

/// A spare starts by itself where that was asked for, and only there.
#[test]
fn spares_may_start_by_themselves() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = fill(&bench, "raid0", 3);
    bench.ok(&format!("raid -a {} raid0", bench.disk("d3", SIZE)));
    bench.ok("raid -o autospare raid0");
    assert!(bench.ok("raid -vs raid0").contains("Spares start by themselves: on\n"));
    refused(&bench, "raid -o nonsense raid0", &d, &["nonsense"]);
    let holder = bench.start("raid hold raid0");
    bench.ok(&format!("raid -f {} raid0", d[0]));
    // Whatever runs now has begun by itself.
    for _ in 0..500 {
        if states(&bench, "raid0").contains("spared") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(states(&bench, "raid0"), "d0: spared, d1: optimal, d2: optimal, d3: used_spare");
    assert_eq!(holder.interrupt(), 0);
    holds(&bench, "raid0", &data);
    bench.ok("raid -o noautospare raid0");
    assert_eq!(status(&bench, "raid0")["autospare"], false);
}

/// A journal: made with the set, told, kept over restarts, used by a process that is killed; taken away and given back.
#[test]
fn a_set_may_have_a_journal() {
    let bench = Bench::new();
    let d: Vec<String> = (0..4).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
    let conf = file(&bench, "raid0.conf", &all(&d[..3]), &[&d[3]], '5');
    refused(&bench, &format!("raid -C {conf} -o nonsense raid0"), &d, &["nonsense"]);
    bench.ok(&format!("raid -C {conf} -o journal raid0"));
    bench.ok("raid -I 5 raid0");
    bench.ok("raid -i raid0");
    assert!(bench.ok("raid -vs raid0").contains("Journal: 768 KiB of each component\n"));
    assert!(!bench.ok("raid -s raid0").contains("Journal"), "scripts parse this");
    let data = fill(&bench, "raid0", 40);
    bench.ok(&format!("raid -F {} raid0", d[1]));
    holds(&bench, "raid0", &data);
    bench.ok("raid -B raid0");
    let holder = bench.start("raid hold raid0");
    let data = fill(&bench, "raid0", 41);
    holder.kill();
    holds(&bench, "raid0", &data);
    // What the journal held was carried out, so no stripe is half written.
    assert_eq!(bench.ok("raid -P raid0"), "/dev/rraid0d: Parity status: clean\n");
    assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
    bench.ok("raid -u raid0");
    // By force as well, for the labels agree.
    bench.ok(&format!("raid -C {conf} raid0"));
    assert_eq!(status(&bench, "raid0")["journal"], 786_432);
    bench.ok("raid -u raid0");
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(status(&bench, "raid0")["journal"], 786_432);
    holds(&bench, "raid0", &data);
    bench.ok("raid -o nojournal raid0");
    assert!(bench.ok("raid -vs raid0").contains("Journal: off\n"));
    holds(&bench, "raid0", &data);
    bench.ok("raid -o journal raid0");
    assert_eq!(status(&bench, "raid0")["journal"], 786_432);
    assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
    // Where labels disagree it is left out, and that is told.
    bench.ok("raid -u raid0");
    edit_label(&d[1], |label| label.mod_counter -= 5);
    let forced = bench.run(&format!("raid -C {conf} raid0"));
    assert!(forced.code == 0 && forced.err.contains("a journal, which is left out"), "{}", forced.err);
    assert!(status(&bench, "raid0")["journal"].is_null());
    // Without room, and where it makes no sense.
    let plain = new_unit(&bench, "raid1", 5, 3, '5');
    refused(&bench, "raid -o journal raid1", &plain, &["must be made with one"]);
    let mirror = new_unit(&bench, "raid2", 8, 2, '1');
    refused(&bench, "raid -o journal raid2", &mirror, &["has no write hole"]);
}

/// A machine that forgot its units: a file that is older than a failure still finds the spare in the place of its column.
#[test]
fn a_spare_in_use_is_found_by_an_old_file() {
    let bench = Bench::new();
    let d: Vec<String> = (0..4).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
    let conf = file(&bench, "raid0.conf", &all(&d[..3]), &[&d[3]], '5');
    bench.ok(&format!("raid -C {conf} raid0"));
    bench.ok("raid -I 5 raid0");
    bench.ok("raid -i raid0");
    bench.ok(&format!("raid -F {} raid0", d[1]));
    let data = fill(&bench, "raid0", 50);
    fs::remove_file(bench.path("state/raid/raid0.json")).unwrap();
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: spared, d2: optimal, d3: used_spare");
    holds(&bench, "raid0", &data);
    bench.ok("raid -B raid0");
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: optimal, d3: spare");
    holds(&bench, "raid0", &data);
    // Another level or stripe unit than the labels say would read everything from wrong places.
    bench.ok("raid -u raid0");
    let text = fs::read_to_string(&conf).unwrap();
    for (line, why) in [("16 1 1 4", "RAID level 5"), ("32 1 1 5", "sectPerSU 16")] {
        fs::write(&conf, text.replace("16 1 1 5", line)).unwrap();
        refused(&bench, &format!("raid -c {conf} raid0"), &d, &["RAIDFRAME_CONFIGURE", why]);
    }
}

/// Even-odd parity and the declustered levels, with the file of their block design: two losses or one, rebuilt, generated, found again.
#[test]
fn even_odd_and_declustered_sets() {
    for (level, losses) in [('E', 2), ('T', 1), ('Q', 2), ('e', 2)] {
        let bench = Bench::new();
        let d: Vec<String> = (0..5).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
        let conf = file(&bench, "raid0.conf", &all(&d), &[], level);
        if level != 'E' {
            let (text, design) = (fs::read_to_string(&conf).unwrap(), bench.path("five.design"));
            fs::write(&conf, text.replace(&format!("1 1 {level}"), &format!("1 1 {level}\n{design}")))
                .unwrap();
            refused(&bench, &format!("raid -t {conf}"), &d, &["five.design", "No such file"]);
            fs::write(&design, "5 5 4 4 3\n0 1 2 3 0 1 2 4 0 1 3 4 0 2 3 4 1 2 3 3\n").unwrap();
            refused(&bench, &format!("raid -C {conf} raid0"), &d, &["five.design: block 4 does not name 4"]);
            fs::write(&design, "5 5 4 4 3\n0 1 2 3 0 1 2 4 0 1 3 4 0 2 3 4 1 2 3 4\n").unwrap();
        }
        bench.ok(&format!("raid -C {conf} raid0"));
        bench.ok("raid -I 5 raid0");
        bench.ok("raid -i raid0");
        let data = fill(&bench, "raid0", 60);
        for disk in &d[1..=losses] {
            bench.ok(&format!("raid -f {disk} raid0"));
        }
        holds(&bench, "raid0", &data);
        let data = fill(&bench, "raid0", 61);
        refused(&bench, &format!("raid -f {} raid0", d[4]), &d, &["cannot do without"]);
        for disk in &d[1..=losses] {
            bench.ok(&format!("raid -R {disk} raid0"));
        }
        assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
        let again = bench.path("again.conf");
        fs::write(&again, bench.ok("raid -G raid0")).unwrap();
        bench.ok("raid -A yes raid0");
        bench.ok("raid -u raid0");
        bench.ok("raid -L raid0");
        holds(&bench, "raid0", &data);
        bench.ok("raid -u raid0");
        bench.ok(&format!("raid -c {again} raid0"));
        holds(&bench, "raid0", &data);
    }
}

/// A component that is not there after a restart is called componentN, and that name can be used.
#[test]
fn a_missing_component_is_called_by_its_number() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let data = fill(&bench, "raid0", 4);
    bench.ok("raid -A yes raid0");
    bench.ok("raid -u raid0");
    fs::remove_file(&d[1]).unwrap();
    bench.ok("raid -L raid0");
    let text = bench.ok("raid -s raid0");
    assert!(text.contains("          component1: failed\n"), "{text}");
    assert!(text.contains("component1 status is: failed.  Skipping label.\n"), "{text}");
    refused(&bench, "raid -R component1 raid0", &d, &["never there"]);
    let spare = bench.disk("d3", SIZE);
    bench.ok(&format!("raid -a {spare} raid0"));
    bench.ok("raid -F component1 raid0");
    assert_eq!(states(&bench, "raid0"), "d0: optimal, component1: spared, d2: optimal, d3: used_spare");
    holds(&bench, "raid0", &data);
    // By a configuration file a drive that cannot be found is failed, too, and told.
    bench.ok("raid -u raid0");
    let conf = file(&bench, "new.conf", &[&bench.path("gone"), &spare, &d[2]], &[], '5');
    let ran = bench.run(&format!("raid -c {conf} raid0"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("gone") && ran.err.contains("counts as failed"), "{}", ran.err);
    assert_eq!(states(&bench, "raid0"), "component0: failed, d3: optimal, d2: optimal");
    holds(&bench, "raid0", &data);
}

/// What `-G` prints makes the same set.
#[test]
fn the_generated_configuration_makes_the_same_set() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 4, '5');
    let spare = bench.disk("s", SIZE);
    bench.ok(&format!("raid -a {spare} raid0"));
    let data = fill(&bench, "raid0", 5);
    let text = bench.ok("raid -G raid0");
    let expected = format!(
        "# raidctl config file for /dev/rraid0d\n\nSTART array\n# numCol numSpare\n4 1\n\nSTART disks\n{}\n\nSTART spare\n{spare}\n\n\
         START layout\n# sectPerSU SUsPerParityUnit SUsPerReconUnit RAID_level_5\n16 1 1 5\n\nSTART queue\nfifo 100\n",
        d.join("\n")
    );
    assert_eq!(text, expected);
    fs::write(bench.path("again.conf"), text).unwrap();
    bench.ok("raid -u raid0");
    bench.ok(&format!("raid -c {} raid0", bench.path("again.conf")));
    assert_eq!(bench.ok("raid -G raid0"), expected);
    holds(&bench, "raid0", &data);
}

#[test]
fn the_parity_map_is_shown_and_set() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let reconfigure = || {
        bench.ok("raid -u raid0");
        bench.ok(&format!("raid -c {} raid0", bench.path("raid0.conf")));
    };
    // Without a holder every command takes the unit into use anew, so what counts from the next time on counts for the next command.
    let holder = bench.start("raid hold raid0");
    let shown = bench.ok("raid -m raid0");
    assert!(shown.starts_with("raid0: parity map enabled with 1 regions of "), "{shown}");
    assert!(shown.contains("raid0: regions marked clean after 8 intervals of 40.000s\n"), "{shown}");
    assert_eq!(
        bench.ok("raid -M set 3 20 7 raid0"),
        "raid0: parity cleaned after 3 intervals of 0.020s\nraid0: will use 7 regions on next configuration\n"
    );
    // Cooldown and tick at once, regions with the next configuration.
    let shown = bench.ok("raid -m raid0");
    assert!(shown.contains("with 1 regions") && shown.contains("after 3 intervals of 0.020s\n"), "{shown}");
    // 0 leaves a value, and trailing ones can be left out.
    assert_eq!(bench.ok("raid -M set 4 raid0"), "raid0: parity cleaned after 4 intervals\n");
    assert_eq!(bench.ok("raid -M set 0 50 raid0"), "raid0: parity cleaned after intervals of 0.050s\n");
    refused(&bench, "raid -M set 129 raid0", &d, &["PARITYMAP_SET_PARAMS", "1 to 128"]);
    assert_eq!(holder.interrupt(), 0);
    reconfigure();
    let shown = bench.ok("raid -m raid0");
    assert!(shown.contains("with 7 regions") && shown.contains("after 4 intervals of 0.050s\n"), "{shown}");
    // A region is dirty while it is written, and some ticks later no more.
    let holder = bench.start("raid hold raid0");
    fill(&bench, "raid0", 6);
    let verbose = bench.ok("raid -vm raid0");
    assert_eq!(verbose.lines().filter(|line| line.starts_with("    ")).count(), 16, "{verbose}");
    let dirty = || bench.run("raid --json -m raid0").data()["map"]["dirty"].as_array().unwrap().len();
    for _ in 0..500 {
        if dirty() == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(dirty(), 0);
    assert!(bench.ok("raid -m raid0").contains("raid0: 0 dirty regions\n"));
    // Off and on with the next configuration.
    assert_eq!(bench.ok("raid -M no raid0"), "raid0: parity map will be disabled on next configure\n");
    assert!(bench.ok("raid -m raid0").ends_with("raid0: parity map will be disabled on next configure\n"));
    assert_eq!(holder.interrupt(), 0);
    reconfigure();
    assert_eq!(
        bench.ok("raid -m raid0"),
        "raid0: parity map disabled\nraid0: parity map will remain disabled on next configure\n"
    );
    bench.ok("raid -M yes raid0");
    reconfigure();
    assert!(bench.ok("raid -m raid0").contains("enabled with 7 regions"));
    // A set without parity has none.
    new_unit(&bench, "raid1", 5, 2, '0');
    for line in ["raid -m raid1", "raid -M yes raid1", "raid -M set 3 raid1"] {
        assert_eq!(bench.ok(line), "raid1: has no parity; parity map disabled\n");
    }
}

/// `-i`, `-P` and `-F` with `-v` show the meter; the texts are the real program's.
#[test]
fn long_operations_show_a_meter() {
    let bench = Bench::new();
    let d: Vec<String> = (0..4).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
    let conf = file(&bench, "raid0.conf", &all(&d[..3]), &[&d[3]], '5');
    bench.ok(&format!("raid -C {conf} raid0"));
    assert_eq!(bench.run("raid -p raid0").code, 1);
    assert_eq!(bench.run("raid -p raid0").out, "/dev/rraid0d: Parity status: DIRTY\n");
    bench.ok("raid -I 112341 raid0");
    let meter = |text: &str, title: &str| {
        let (_, bar) = text.split_once(title).unwrap_or_else(|| panic!("no {title:?} in {text:?}"));
        let bar = bar.strip_prefix('\r').unwrap();
        assert_eq!(&bar[3..6], "% |", "{text:?}");
        assert_eq!(bar.find("| ETA: "), Some(45), "{text:?}");
    };
    let said = bench.ok("raid -iv raid0");
    assert!(said.starts_with("Initiating re-write of parity\n"), "{said}");
    meter(&said, "Parity Re-write status:\n");
    meter(&bench.ok(&format!("raid -v -F {} raid0", d[0])), "Reconstruction status:\n");
    meter(&bench.ok("raid -Bv raid0"), "Copyback status:\n");
    assert_eq!(bench.ok("raid -P raid0"), "/dev/rraid0d: Parity status: clean\n");
    assert_eq!(bench.ok("raid -P /dev/rraid0c"), "/dev/rraid0c: Parity status: clean\n");
    assert_eq!(
        bench.ok("raid -S raid0"),
        "Reconstruction is 100% complete.\nParity Re-write is 100% complete.\nCopyback is 100% complete.\n"
    );
    // A crash: somebody who had the set open for writing is gone.
    let holder = bench.start("raid hold raid0");
    let data = fill(&bench, "raid0", 7);
    holder.kill();
    let said = bench.ok("raid -Pv raid0");
    let begin = "/dev/rraid0d: Parity status: DIRTY\n/dev/rraid0d: Initiating re-write of parity\nParity Re-write status:\n";
    assert!(said.starts_with(begin) && said.ends_with("/dev/rraid0d: Parity Re-write complete\n"), "{said}");
    holds(&bench, "raid0", &data);
    // While it is open its components are not clean, the set is.
    let holder = bench.start("raid hold raid0");
    fill(&bench, "raid0", 8);
    assert_eq!(label(&bench, &d[0], "raid0")["clean"], false);
    assert_eq!(bench.run("raid -p raid0").code, 0);
    // Parity is rewritten beside everything else.
    bench.ok("raid -i raid0");
    let data = fill(&bench, "raid0", 9);
    bench.ok("raid -S raid0");
    holds(&bench, "raid0", &data);
    assert_eq!(holder.interrupt(), 0);
    assert_eq!(label(&bench, &d[0], "raid0")["clean"], true);
}

/// A mirror of one component and "absent", completed later.
#[test]
fn a_mirror_begins_with_one_component() {
    let bench = Bench::new();
    let d: Vec<String> = (0..2).map(|i| bench.disk(&format!("d{i}"), SIZE)).collect();
    let conf = file(&bench, "raid0.conf", &["absent", &d[0]], &[], '1');
    bench.ok(&format!("raid -C {conf} raid0"));
    bench.ok("raid -I 12345 raid0");
    assert_eq!(states(&bench, "raid0"), "component0: failed, d0: optimal");
    refused(&bench, "raid -i raid0", &d, &["RAIDFRAME_REWRITEPARITY", "component0 has failed"]);
    let data = fill(&bench, "raid0", 10);
    bench.ok(&format!("raid -a {} raid0", d[1]));
    bench.ok("raid -F component0 raid0");
    bench.ok("raid -i raid0");
    assert_eq!(states(&bench, "raid0"), "component0: spared, d0: optimal, d1: used_spare");
    bench.ok("raid -u raid0");
    let conf = file(&bench, "raid0.conf", &[&d[1], &d[0]], &[], '1');
    bench.ok(&format!("raid -c {conf} raid0"));
    assert_eq!(states(&bench, "raid0"), "d1: optimal, d0: optimal");
    holds(&bench, "raid0", &data);
    assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
    // A name that is only mistyped is not absent when a set is made.
    let missing = file(&bench, "typo.conf", &["/dev/no-such-disk", &d[0]], &[], '1');
    bench.ok("raid -u raid0");
    refused(&bench, &format!("raid -C {missing} raid0"), &d, &["absent"]);
}

/// Two components fail one after the other; the set is forced back without the one that failed first.
#[test]
fn a_double_failure_is_recovered_by_force() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 4, '5');
    fill(&bench, "raid0", 11);
    bench.ok("raid -A yes raid0");
    bench.ok(&format!("raid -f {} raid0", d[0]));
    let data = fill(&bench, "raid0", 12);
    // A second one cannot be failed, and the program says so and lives.
    refused(&bench, &format!("raid -f {} raid0", d[1]), &d, &["RAIDFRAME_FAIL_DISK", "cannot do without"]);
    fs::rename(&d[1], bench.path("away")).unwrap();
    let ran = bench.run("raid read raid0 --length 1M --to /dev/null");
    assert!(ran.code == 1 && ran.err.contains("cannot be used"), "{}", ran.err);
    fs::rename(bench.path("away"), &d[1]).unwrap();
    holds(&bench, "raid0", &data);
    bench.ok("raid -u raid0");
    // What RAIDframe leaves behind then: three counters.
    for disk in &d[2..] {
        edit_label(disk, |label| label.mod_counter += 3);
    }
    let before: Vec<_> = d.iter().map(|disk| digest(disk)).collect();
    let found = bench.run("raid -L raid0");
    assert!(found.err.contains("too few components"), "{}", found.err);
    assert_eq!(bench.run("raid -s raid0").code, 1);
    let conf = bench.path("raid0.conf");
    refused(&bench, &format!("raid -c {conf} raid0"), &d, &["RAIDFRAME_CONFIGURE", "modification counters"]);
    assert!(before == d.iter().map(|disk| digest(disk)).collect::<Vec<_>>());
    let recover = file(&bench, "recover_raid0.conf", &["absent", &d[1], &d[2], &d[3]], &[], '5');
    bench.ok(&format!("raid -C {recover} raid0"));
    bench.ok("raid -I 12345 raid0");
    holds(&bench, "raid0", &data);
    bench.ok(&format!("raid -a {} raid0", d[0]));
    bench.ok("raid -F component0 raid0");
    bench.ok("raid -P raid0");
    assert_eq!(
        states(&bench, "raid0"),
        "component0: spared, d1: optimal, d2: optimal, d3: optimal, d0: used_spare"
    );
    holds(&bench, "raid0", &data);
    let counters: Vec<Value> =
        d.iter().map(|disk| label(&bench, disk, "raid0")["mod_counter"].clone()).collect();
    assert!(counters.iter().all(|counter| *counter == counters[0]), "{counters:?}");
}

/// A RAID 0 over two RAID 5, and over two RAID 1: used, degraded below, unconfigured, and found again.
#[test]
fn sets_are_layered() {
    for (level, columns) in [('5', 3), ('1', 2)] {
        let bench = Bench::new();
        let d = [
            new_unit(&bench, "raid0", 0, columns, level),
            new_unit(&bench, "raid1", columns, columns, level),
        ];
        let conf = file(&bench, "raid2.conf", &["/dev/raid0e", "/dev/raid1e"], &[], '0');
        bench.ok(&format!("raid -C {conf} raid2"));
        bench.ok("raid -I 99 raid2");
        bench.ok("raid -i raid2");
        let data = fill(&bench, "raid2", 13);
        let busy = bench.run("raid -u raid0");
        assert!(busy.code == 1 && busy.err.contains("raid0 is a component of raid2"), "{}", busy.err);
        bench.ok(&format!("raid -f {} raid1", d[1][0]));
        holds(&bench, "raid2", &data);
        let holder = bench.start("raid hold raid2");
        let data = fill(&bench, "raid2", 14);
        bench.ok(&format!("raid -R {} raid1", d[1][0]));
        bench.ok("raid -S raid1");
        assert_eq!(holder.interrupt(), 0);
        holds(&bench, "raid2", &data);
        for unit in ["raid0", "raid1", "raid2"] {
            bench.ok(&format!("raid -A yes {unit}"));
        }
        for unit in ["raid2", "raid1", "raid0"] {
            bench.ok(&format!("raid -u {unit}"));
        }
        bench.ok("raid -L raid0");
        holds(&bench, "raid2", &data);
        for unit in ["raid0", "raid1"] {
            assert!(bench.ok(&format!("raid scrub {unit}")).contains("0 stripes did not match"));
        }
        let own = file(&bench, "raid7.conf", &["/dev/raid7e", "/dev/raid8e"], &[], '0');
        refused(&bench, &format!("raid -C {own} raid7"), &[], &["component of itself"]);
    }
}

/// A mirror of a set of sets and of another set. `-L` does not configure it with one half because the other comes up a round later, not
/// even if a set below has to do without a component; and what was missing for a while is not complained of.
#[test]
fn a_set_waits_for_those_that_it_is_built_of() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    new_unit(&bench, "raid1", 3, 3, '5');
    new_unit(&bench, "raid3", 6, 2, '1');
    for (unit, level, below) in
        [(2, '0', ["/dev/raid0e", "/dev/raid1e"]), (4, '1', ["/dev/raid2e", "/dev/raid3e"])]
    {
        let conf = file(&bench, &format!("raid{unit}.conf"), &below, &[], level);
        bench.ok(&format!("raid -C {conf} raid{unit}"));
        bench.ok(&format!("raid -I 9{unit} raid{unit}"));
        bench.ok(&format!("raid -i raid{unit}"));
    }
    let data = fill(&bench, "raid4", 21);
    let whole = |bench: &Bench| {
        for unit in 0..5 {
            bench.ok(&format!("raid -A yes raid{unit}"));
        }
        for unit in (0..5).rev() {
            bench.ok(&format!("raid -u raid{unit}"));
        }
        let ran = bench.run("raid -L raid0");
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert_eq!(states(bench, "raid4"), "raid2: optimal, raid3: optimal");
        assert_eq!(states(bench, "raid2"), "raid0: optimal, raid1: optimal");
        holds(bench, "raid4", &data);
    };
    whole(&bench);
    bench.ok(&format!("raid -f {} raid0", d[1]));
    whole(&bench);
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: failed, d2: optimal");
}

/// With `-n` nothing changes, and it is said what would.
#[test]
fn a_dry_run_changes_nothing() {
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 3, '5');
    let spare = bench.disk("d3", SIZE);
    bench.ok(&format!("raid -a {spare} raid0"));
    let digests = || d.iter().map(|disk| digest(disk)).collect::<Vec<_>>();
    let (before, record) = (digests(), fs::read(bench.path("state/raid/raid0.json")).unwrap());
    for (option, said) in [
        (format!("-f {}", d[0]), "would fail"),
        (format!("-F {}", d[0]), "would reconstruct it on"),
        (format!("-R {}", d[0]), "in place"),
        (format!("-r {spare}"), "would remove"),
        (format!("-a {}", bench.disk("d4", SIZE)), "would add"),
        ("-I 77".to_owned(), "serial number 77"),
        ("-i".to_owned(), "would rewrite"),
        ("-P".to_owned(), "Parity status: clean"),
        ("-A yes".to_owned(), "would change the labels"),
        ("-M no".to_owned(), "would change the labels"),
        ("-M set 3".to_owned(), "would change the labels"),
        ("-U 4".to_owned(), "would change the labels"),
        ("-u".to_owned(), "would unconfigure raid0"),
    ] {
        let told = bench.ok(&format!("raid -n {option} raid0"));
        assert!(told.contains(said), "{option}: {told}");
        assert!(digests() == before, "{option}");
        assert_eq!(fs::read(bench.path("state/raid/raid0.json")).unwrap(), record, "{option}");
    }
    bench.ok("raid -u raid0");
    let before = digests();
    let told = bench.ok(&format!("raid -n -c {} raid0", bench.path("raid0.conf")));
    assert!(told.contains("would configure raid0 as RAID level 5 over:\n"), "{told}");
    assert!(digests() == before && bench.run("raid -s raid0").code == 1);
}
