//! `coffer balance` as its users see it.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::Bench;

const LENGTH: usize = 20 << 20;

/// A pool on plain disks with a volume of known bytes, and a snapshot of it.
fn filled(bench: &Bench) -> Vec<u8> {
    filled_on(bench, &bench.disks(4))
}

fn filled_on(bench: &Bench, d: &[String]) -> Vec<u8> {
    bench.ok(&format!("create tank {} {} {} {}", d[0], d[1], d[2], d[3]));
    bench.ok("volume create -s -V 64M tank/vol");
    let bytes: Vec<u8> = (0..LENGTH).map(|i| (i * 7919 / 4096 + i) as u8).collect();
    assert_eq!(bench.feed("volume write tank/vol", &bytes).code, 0);
    bench.ok("snapshot tank/vol@a");
    bytes
}

/// The lines of the table of `usage -T` with a class and profile are its columns: profiles of data.
fn data_profiles(bench: &Bench) -> Vec<String> {
    let usage = bench.run("usage --json tank").data();
    let profiles = usage["profiles"].as_array().unwrap().iter();
    let data = profiles.filter(|profile| profile["class"] == "Data");
    data.map(|profile| profile["profile"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_balance_converts_and_compacts_and_says_so() {
    let bench = Bench::new();
    let bytes = filled(&bench);
    assert_eq!(data_profiles(&bench), ["single"]);
    let chunks = bench.run("map --json tank").data()["chunks"].as_array().unwrap().len();
    let planned = bench.ok("balance start -n -dconvert=raid6 tank");
    assert!(
        planned.contains("20M would be relocated") && planned.contains("from single to raid6"),
        "{planned}"
    );
    assert_eq!(data_profiles(&bench), ["single"]);
    let said = bench.ok("balance start -dconvert=raid6 tank");
    let line = format!("Done, had to relocate {} out of {chunks} chunks\n", chunks - 2);
    assert_eq!(said, line);
    assert_eq!(data_profiles(&bench), ["RAID6"]);
    assert!(bench.bytes("volume read tank/vol@a --length 20M") == bytes);
    // A conversion that is there already has nothing to do, and a balance that is over is not running.
    assert!(bench.ok("balance start -dconvert=raid6,soft tank").starts_with("Done, had to relocate 0 "));
    assert_eq!(bench.ok("balance status tank"), "No balance found on 'tank'\n");
    let map = bench.ok("map tank");
    assert!(map.contains("remapped") && map.contains("20M live elsewhere"), "{map}");
    assert!(bench.ok("check tank").contains("no problems"));
    // What is half empty is packed, and the entries go with what they lead to.
    bench.ok("destroy tank/vol@a");
    assert!(bench.ok("balance start -dusage=100 tank").starts_with("Done"));
    bench.ok("destroy tank/vol");
    bench.ok("wait tank");
    assert!(!bench.ok("map tank").contains("live elsewhere"));
    assert!(bench.ok("events tank").contains("had to relocate"));
    assert!(bench.ok("history tank").contains("coffer balance start -dconvert=raid6 tank"));
    let json = bench.run("balance status --json tank").data();
    assert_eq!((json["state"].as_str(), json["errors"].as_u64()), (Some("finished"), Some(0)));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let bench = Bench::new();
    filled(&bench);
    let files: Vec<String> = (0..4).map(|i| bench.path(&format!("d{i}"))).collect();
    for (line, word) in [
        ("-dusage=60..40", "usage"),
        ("-dusage=101", "usage"),
        ("-ddevid=9", "device 9"),
        ("-ddrange=0..1G", "devid"),
        ("-dvrange=1G..1M", "vrange"),
        ("-dsoft", "convert"),
        ("-dlimit=0", "limit"),
        ("-mconvert=raid6", "metadata can't be raid6"),
        ("-mconvert=single", "-f"),
        ("-s", "-f"),
        ("-mconvert=raid1c3 -sconvert=raid1 -f", "both"),
    ] {
        let said = bench.fails_untouched(&format!("balance start {line} tank"), &files);
        assert!(said.contains(word), "{line}: {said}");
    }
    for line in ["-dusage", "-dusage=x", "-dprofiles=raid7", "-dconvert=mirror", "-dcolour=red", "-dsoft=1"] {
        assert_eq!(bench.run(&format!("balance start {line} tank")).code, 2, "{line}");
    }
    for verb in ["pause", "resume", "cancel"] {
        let ran = bench.run(&format!("balance {verb} tank"));
        assert!(ran.code == 2 && ran.err.contains("no balance is going on"), "{verb}: {}", ran.err);
    }
    // Groups have a layout of their own.
    let d: Vec<String> = (4..7).map(|i| bench.disk(&format!("d{i}"), common::DISK)).collect();
    bench.ok(&format!("create group raidz1 {} {} {}", d[0], d[1], d[2]));
    assert!(bench.fails("balance start -dconvert=raid5 group").contains("plain disks"));
    bench.ok("balance start -dusage=100 group");
    assert!(bench.ok("balance start -f -mconvert=single tank").starts_with("Done"));
}

#[test]
fn metadata_and_whole_balances_warn() {
    let bench = Bench::new();
    filled(&bench);
    let ran = bench.run("balance start -m tank");
    assert!(ran.code == 0 && ran.err.contains("balancing metadata regularly"), "{}", ran.err);
    let child =
        bench.command("balance start tank").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It is interrupted within its ten seconds, and nothing has begun.
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && begun.elapsed() < Duration::from_secs(9), "{said}");
    assert!(said.contains("Full balance without filters requested"), "{said}");
    assert!(said.contains("nothing was begun"), "{said}");
    assert_eq!(bench.ok("history tank").matches("balance").count(), 1);
    let ran = bench.run("balance start --full-balance tank");
    assert!(ran.code == 0 && !ran.err.contains("WARNING"), "{}", ran.err);
    assert!(ran.out.starts_with("Done"), "{}", ran.out);
}

#[test]
fn one_balance_at_a_time() {
    let bench = Bench::new();
    let bytes = filled(&bench);
    let ran = bench.run("balance start --background -d tank");
    assert!(ran.code == 0 && ran.err.contains("coffer wait tank"), "{}", ran.err);
    let status = bench.ok("balance status tank");
    assert!(status.starts_with("Balance on 'tank' is running\n0 out of about "), "{status}");
    assert!(bench.fails("balance start -d tank").contains("running already"));
    bench.ok("balance pause tank");
    assert!(bench.ok("balance status tank").contains("is paused"));
    assert!(bench.fails("balance start -d tank").contains("paused already"));
    bench.ok("wait tank");
    assert!(bench.ok("balance status tank").contains("is paused"));
    assert!(bench.ok("balance resume tank").starts_with("Done, had to relocate"));
    // One that is going on is waited for.
    bench.run("balance start --bg -d tank");
    assert!(bench.ok("balance start --enqueue -dlimit=1 tank").starts_with("Done, had to relocate 1 out of"));
    bench.run("balance start --bg -d tank");
    bench.ok("balance cancel tank");
    assert_eq!(bench.ok("balance status tank"), "No balance found on 'tank'\n");
    // Through a server it is all the same.
    let server = bench.start("serve tank");
    assert!(bench.ok("balance start -d tank").starts_with("Done, had to relocate"));
    assert_eq!(server.interrupt(), 0);
    assert!(bench.bytes("volume read tank/vol --length 20M") == bytes);
    assert!(bench.ok("check tank").contains("no problems"));
}

#[test]
fn a_disk_is_removed_and_what_can_t_be_is_told() {
    let bench = Bench::new();
    let d = bench.disks(4);
    let bytes = filled_on(&bench, &d);
    let planned = bench.ok(&format!("remove -n tank {}", d[1]));
    assert!(
        planned.contains(&format!("would do: remove {}", d[1])) && planned.contains("relocate"),
        "{planned}"
    );
    assert!(bench.ok("status tank").contains(&d[1]));
    bench.ok(&format!("remove tank {}", d[1]));
    let status = bench.ok("status tank");
    assert!(!status.contains(&d[1]) && status.contains(&d[0]), "{status}");
    assert!(bench.bytes("volume read tank/vol@a --length 20M") == bytes);
    assert!(bench.ok("check tank").contains("no problems"));
    // It belongs to nobody, and can come back.
    bench.ok(&format!("add tank {}", d[1]));
    let all = format!("remove tank {} {} {} {}", d[0], d[1], d[2], d[3]);
    for (command, why) in [
        (&all[..], "coffer destroy"),
        ("remove tank nothing", "no such device"),
        ("remove -s tank", "no active"),
    ] {
        let refused = bench.run(command);
        assert!(refused.code == 1 && refused.err.contains(why), "{command}: {}", refused.err);
    }
    assert_eq!(bench.run("remove tank").code, 2);
}

#[test]
fn a_mirror_becomes_a_raidz_and_gets_wider() {
    let bench = Bench::new();
    let d = bench.disks(4);
    let bytes = bench.pool_with_data(&format!("mirror {} {} {}", d[0], d[1], d[2]), 20 << 20);
    bench.ok("snapshot tank/vol@a");
    let refused = bench.fails("convert tank mirror-0 raidz1");
    assert!(refused.contains("from 2 failed devices to 1; use '-f'"), "{refused}");
    let planned = bench.ok("convert -f -n tank mirror-0 raidz1");
    assert!(planned.contains("mirror-0 becomes raidz1-0") && planned.contains("relocate"), "{planned}");
    assert!(bench.ok("status tank").contains("mirror-0"));
    bench.ok("convert -f tank mirror-0 raidz1");
    let status = bench.ok("status tank");
    assert!(status.contains("raidz1-0"), "{status}");
    assert_eq!(data_profiles(&bench), ["raidz1"]);
    bench.ok(&format!("attach tank raidz1-0 {}", d[3]));
    // In a server, too; what protects more needs no word.
    let server = bench.start("serve tank");
    bench.ok("convert tank raidz1-0 raidz2");
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    assert!(bench.ok("status tank").contains("raidz2-0"));
    for disk in &d[..2] {
        common::take_away(disk);
    }
    assert!(bench.bytes("volume read tank/vol@a --length 20M") == bytes);
    for (command, code, why) in [
        ("convert tank raidz2-0 raidz4", 1, "raidz4"),
        ("convert tank raidz2-0 draid", 1, "draid"),
        ("convert tank raidz2-0 spare", 1, "mirror, raidz1, raidz2 or raidz3"),
        ("convert tank mirror-0 raidz1", 1, "there is raidz2-0"),
        ("convert tank raidz2-0", 2, "KIND"),
    ] {
        let ran = bench.run(command);
        assert!(ran.code == code && ran.err.contains(why), "{command}: {}", ran.err);
    }
}

#[test]
fn a_disk_is_used_less_cut_and_used_as_a_whole_again() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let bytes = bench.pool_with_data(&format!("raidz1 {} {}", d[0], d[1]), 20 << 20);
    let size = std::fs::metadata(&d[0]).unwrap().len();
    let planned = bench.ok(&format!("resize -n tank {}:-20M", d[0]));
    assert!(planned.contains(&format!("from {size} to {} bytes", size - (20 << 20))), "{planned}");
    let name = d[0].rsplit('/').next().unwrap();
    bench.ok(&format!("resize tank {name}:-20M"));
    assert!(bench.ok("history tank").contains(&format!("coffer resize tank {name}:-20M")));
    assert!(bench.ok("events tank").contains("resize_finish"));
    // What the pool gave up may be cut off.
    std::fs::File::options().write(true).open(&d[0]).unwrap().set_len(size - (20 << 20)).unwrap();
    let status = bench.ok("status tank");
    assert!(status.contains("state: ONLINE") && status.contains("errors: No known data errors"), "{status}");
    assert!(bench.bytes("volume read tank/vol --length 20M") == bytes);
    std::fs::File::options().write(true).open(&d[0]).unwrap().set_len(size).unwrap();
    // In a server, too.
    let server = bench.start("serve tank");
    bench.ok(&format!("resize tank {}:max", d[0]));
    bench.ok(&format!("resize tank {}:{}", d[1], size - (20 << 20)));
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    assert!(bench.bytes("volume read tank/vol --length 20M") == bytes);
    bench.ok("check tank");
    for (word, code, why) in [
        (format!("{}:max", d[0]), 1, "already"),
        (format!("{}:1T", d[0]), 1, "are asked for"),
        (format!("{}:1M", d[0]), 1, "at least"),
        (format!("{}:-1P", d[0]), 1, "at least"),
        ("nothing:max".to_owned(), 1, "no such device"),
        (d[0].clone(), 2, "DEVICE:SIZE"),
        (format!("{}:much", d[0]), 2, "much"),
        (":max".to_owned(), 2, "DEVICE:SIZE"),
    ] {
        let ran = bench.run(&format!("resize tank {word}"));
        assert!(ran.code == code && ran.err.contains(why), "{word}: {} {}", ran.code, ran.err);
    }
}

/// `-q` leaves errors, and what was asked for.
#[test]
fn a_quiet_command_tells_errors_only() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let told = bench.run(&format!("create -q tank {} {}", d[0], d[1]));
    assert_eq!((told.code, told.out.as_str(), told.err.as_str()), (0, "", ""));
    for line in
        ["balance start --quiet -musage=5 tank", "scrub -q -w tank", "-q balance start -dusage=5 tank"]
    {
        let told = bench.run(line);
        assert_eq!((told.code, told.out.as_str(), told.err.as_str()), (0, "", ""), "{line}");
    }
    assert!(bench.run("balance start -musage=5 tank").err.contains("note:"));
    assert!(bench.ok("balance start -dusage=5 tank").contains("Done"));
    assert!(bench.ok("status -q tank").contains("ONLINE"));
    let refused = bench.run("balance start -q -dconvert=raid6 tank");
    assert!(refused.code == 1 && refused.err.contains("raid6"), "{}", refused.err);
}
