//! Bad input: a clear error, the right exit code, and not a byte changed.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, DISK, bring_back, damage, digest, noise, take_away};

#[test]
fn wrong_command_lines_exit_with_2() {
    let bench = Bench::new();
    for line in [
        "",
        "frobnicate",
        "create tank",
        "create --data raid7 tank /x",
        "create tank/vol /x",
        "status --wrong",
        "scrub -p -s tank",
        "snapshot tank/vol",
        "snapshot tank",
        "rollback tank/vol@",
        "volume create -V 1x tank/vol",
        "volume create -V 1M tank",
        "volume write tank/vol@snap",
        "set compression tank",
        "import -n tank",
        "import -F",
        "import -T 7",
        "import -F -T 7 tank",
        "nbd tank/vol",
        "list -t disk",
    ] {
        let ran = bench.run(line);
        assert_eq!(ran.code, 2, "coffer {line}\n{}", ran.err);
        assert!(!ran.err.is_empty());
    }
    assert_eq!(bench.run("--help").code, 0);
    assert_eq!(bench.run("help create").code, 0);
    assert_eq!(bench.run("--version").code, 0);
}

/// What `create` refuses to make one pool of, `add` refuses to put in one, in the same words.
#[test]
fn vdevs_that_do_not_match_the_pool() {
    let bench = Bench::new();
    let d = bench.disks(5);
    bench.ok(&format!("create tank mirror {} {}", d[0], d[1]));
    let new = format!("raidz1 {} {} {}", d[2], d[3], d[4]);
    let after = |said: &str| said.split_once(": ").map(|(_, said)| said.to_owned()).unwrap();
    let refused = after(&bench.fails_untouched(&format!("add tank {new}"), &d[2..]));
    assert!(refused.contains("mismatched replication level: 2-way mirror and 3-wide raidz1"), "{refused}");
    assert_eq!(after(&bench.fails_untouched(&format!("add -n tank {new}"), &d[2..])), refused);
    bench.ok(&format!("add -n -f tank {new}"));
    bench.ok(&format!("add -f tank {new}"));
    assert!(bench.ok("status tank").contains("raidz1-1"));
    bench.ok("destroy tank");
    let created = bench.fails(&format!("create two mirror {} {} {new}", d[0], d[1]));
    assert_eq!(after(&created), refused);
}

/// Every name that `rollback` prints is whole.
#[test]
fn rollback_names_snapshots_in_full() {
    let bench = Bench::new();
    bench.pool_with_data(&bench.disks(1).join(" "), 1 << 16);
    for snapshot in ["a", "b", "c"] {
        bench.ok(&format!("snapshot tank/vol@{snapshot}"));
    }
    let said = bench.fails("rollback tank/vol@a");
    assert!(said.contains("roll back to 'tank/vol@a'"), "{said}");
    assert!(said.trim_end().ends_with("destroy them first: tank/vol@b, tank/vol@c"), "{said}");
    assert!(bench.fails("rollback tank/vol@x").contains("'tank/vol@x'"));
}

#[test]
fn vdevs_that_make_no_pool() {
    let bench = Bench::new();
    let d = bench.disks(4);
    let small = bench.disk("small", 63 << 20);
    for (vdevs, part) in [
        (format!("mirror {}", d[0]), "at least 2"),
        (format!("raidz2 {} {}", d[0], d[1]), "at least 3"),
        (format!("raidz3 {} {} {}", d[0], d[1], d[2]), "at least 4"),
        (format!("spare {}", d[0]), "beside the spares"),
        (format!("mirror raidz {} {}", d[0], d[1]), "nested"),
        (format!("raidz4 {} {} {}", d[0], d[1], d[2]), "unknown vdev type 'raidz4'"),
        (format!("mirror {} {} log {}", d[0], d[1], d[2]), "log vdevs cannot be made yet"),
        (format!("mirror {} {} raidz {} {}", d[0], d[1], d[2], d[3]), "mismatched replication level"),
        (format!("mirror {} {}", d[0], d[0]), "twice"),
        (format!("mirror {} {small}", d[0]), "small"),
        (format!("mirror {} {}", d[0], bench.path("missing")), "missing"),
        (format!("mirror {} relative", d[0]), "full path"),
        (format!("mirror {} {}", d[0], bench.path("")), "neither a regular file nor a block device"),
        (format!("--data raid1 mirror {} {}", d[0], d[1]), "plain"),
        (format!("--data raid6 {} {}", d[0], d[1]), "raid6"),
        (format!("--metadata raid1c4 {} {} {}", d[0], d[1], d[2]), "raid1c4"),
        (format!("-o no-such=1 mirror {} {}", d[0], d[1]), "no-such"),
    ] {
        let (options, words) = match vdevs.strip_prefix('-') {
            Some(rest) => {
                let mut parts = rest.splitn(3, ' ');
                (
                    format!("-{} {}", parts.next().unwrap(), parts.next().unwrap()),
                    parts.next().unwrap().to_owned(),
                )
            }
            None => (String::new(), vdevs.clone()),
        };
        let mut all = d.clone();
        all.push(small.clone());
        // What is only planned is refused for the same reason.
        for dry in ["", "-n"] {
            let said = bench.fails_untouched(&format!("create {dry} {options} tank {words}"), &all);
            assert!(said.contains(part), "{vdevs}: {said}");
        }
    }
    assert_eq!(bench.ok("list"), "no pools available\n");
}

#[test]
fn the_same_device_by_another_way() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let (soft, hard) = (bench.path("soft"), bench.path("hard"));
    std::os::unix::fs::symlink(&d[0], &soft).unwrap();
    std::fs::hard_link(&d[0], &hard).unwrap();
    for twin in [soft, hard] {
        let said = bench.fails_untouched(&format!("create tank mirror {} {twin}", d[0]), &d);
        assert!(said.contains("same device"), "{said}");
    }
}

#[test]
fn devices_that_hold_something() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let formatted =
        std::process::Command::new("mkfs.ext4").args(["-q", "-F", "-L", "photos", &d[0]]).status();
    if formatted.is_ok_and(|status| status.success()) {
        let said = bench.fails_untouched(&format!("create tank mirror {} {}", d[0], d[1]), &d);
        assert!(said.contains("ext4") && said.contains("photos") && said.contains("-f"), "{said}");
    }
    bench.ok(&format!("create -f tank mirror {} {}", d[0], d[1]));
    let said = bench.fails_untouched(&format!("create -f dozer mirror {} {}", d[1], d[2]), &d);
    assert!(said.contains("part of pool 'tank'"), "{said}");
    bench.ok("export tank");
    let said = bench.fails_untouched(&format!("create dozer mirror {} {}", d[1], d[2]), &d);
    assert!(said.contains("exported pool 'tank'") && said.contains("-f"), "{said}");
    bench.ok(&format!("create -f dozer mirror {} {}", d[1], d[2]));
}

#[test]
fn a_plan_is_what_is_done_and_does_nothing() {
    let bench = Bench::new();
    let mut d = bench.disks(3);
    d.push(bench.disk("larger", 2 * DISK));
    let before: Vec<_> = d.iter().map(|disk| digest(disk)).collect();
    let words = format!("tank raidz1 {}", d.join(" "));
    let planned = bench.run(&format!("create -n --json {words}")).data();
    assert_eq!(d.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), before);
    assert!(bench.run("list --json").data()["pools"].as_array().unwrap().is_empty());
    let done = bench.run(&format!("create --json {words}")).data();
    assert_eq!(planned, done);
    // Mixed sizes are fine, and told.
    assert!(!planned["notices"].as_array().unwrap().is_empty(), "{planned}");
}

#[test]
fn names_that_are_taken_or_wrong() {
    let bench = Bench::new();
    let d = bench.disks(4);
    bench.ok(&format!("create tank mirror {} {}", d[0], d[1]));
    let said = bench.fails_untouched(&format!("create tank mirror {} {}", d[2], d[3]), &d);
    assert!(said.contains("in use already"), "{said}");
    for name in ["mirror", "raidz2", "-tank", "9tank", "ta:nk%"] {
        let ran = bench.run(&format!("create {name} mirror {} {}", d[2], d[3]));
        assert!(ran.code == 1 || ran.code == 2, "{name}: {}", ran.err);
    }
    // Two pools of the same name: the second can be imported only under another one.
    bench.ok("export tank");
    bench.ok(&format!("create tank mirror {} {}", d[2], d[3]));
    let dir = bench.path("");
    let found = bench.run(&format!("import --json -d {dir}")).data();
    let guid = found[0]["guid"].as_u64().unwrap();
    assert!(bench.fails(&format!("import -d {dir} {guid}")).contains("in use already"));
    bench.ok(&format!("import -d {dir} {guid} dozer"));
    assert_eq!(bench.state("dozer"), "ONLINE");
}

#[test]
fn what_is_not_there() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.ok(&format!("create tank mirror {}", d.join(" ")));
    for line in [
        "status dozer",
        "scrub dozer",
        "export dozer",
        "destroy dozer",
        "destroy tank/vol",
        "destroy tank/vol@snap",
        "snapshot tank/vol@snap",
        "rollback tank/vol@snap",
        "volume read tank/vol",
        "volume resize tank/vol 1G",
        "list tank/vol",
        "get all tank/vol",
        "get no-such-property tank",
        "detach tank /no/such/device",
        "replace tank /no/such/device",
        "offline tank /no/such/device",
        "online tank /no/such/device",
        "remove tank /no/such/device",
        "clear tank /no/such/device",
        "import dozer",
        "labelclear /no/such/device",
        "check /no/such/device",
        "nbd tank/vol --socket /tmp/never",
    ] {
        bench.fails(line);
    }
    assert_eq!(bench.state("tank"), "ONLINE");
}

#[test]
fn beyond_the_end_and_no_space() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let input = bench.path("input");
    std::fs::write(&input, noise(1, 2 << 20)).unwrap();
    let said = bench.fails(&format!("volume write tank/vol --from {input} --offset 63M"));
    assert!(said.contains("beyond the end") && said.contains("nothing was written"), "{said}");
    bench.fails("volume read tank/vol --offset 65M");
    bench.fails("volume read tank/vol --offset 63M --length 2M");
    bench.holds("tank/vol", &data);
    assert!(bench.fails("volume create -V 1T tank/big").contains("reserve"));
    bench.ok("volume create -s -V 1T tank/big");
    let full = bench.feed("volume write tank/big", &noise(2, 160 << 20));
    assert_eq!(full.code, 1);
    assert!(full.err.contains("no space"), "{}", full.err);
    // A full pool still does everything else.
    bench.holds("tank/vol", &data);
    bench.ok("scrub tank");
    bench.ok("destroy tank/big");
    bench.ok("snapshot tank/vol@one");
    bench.ok("destroy tank/vol@one");
    bench.ok("export tank");
    bench.ok("import tank");
    let again = bench.feed("volume write tank/vol --offset 32M", &noise(3, 8 << 20));
    assert_eq!(again.code, 0, "{}", again.err);
}

#[test]
fn damaged_labels_one_after_the_other() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 1 << 20);
    bench.ok("export tank");
    let dir = bench.path("");
    // The two ends of a device, zeroed in turn: the other end is enough.
    let clean = std::fs::read(&d[0]).unwrap();
    for at in [0, DISK - (1 << 20)] {
        damage(&d[0], at, &vec![0; 1 << 20]);
        bench.ok(&format!("import -d {dir} tank"));
        bench.holds("tank/vol", &data);
        bench.ok("wait tank");
        bench.ok("export tank");
    }
    // Both ends: the device is as good as gone.
    damage(&d[0], 0, &noise(1, 4 << 20));
    damage(&d[0], DISK - (4 << 20), &noise(2, 4 << 20));
    bench.ok(&format!("import -d {dir} tank"));
    assert_eq!(bench.state("tank"), "DEGRADED");
    bench.holds("tank/vol", &data);
    bench.ok("export tank");
    // A device as it was some time ago does not mislead.
    std::fs::write(&d[0], &clean).unwrap();
    bench.ok(&format!("import -d {dir} tank"));
    bench.ok("wait tank");
    bench.holds("tank/vol", &data);
    bench.ok("export tank");
    // A truncated device.
    std::fs::File::options().write(true).open(&d[1]).unwrap().set_len(DISK / 2).unwrap();
    bench.ok(&format!("import -d {dir} tank"));
    bench.holds("tank/vol", &data);
}

#[test]
fn another_host_needs_force() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let there = |line: &str| {
        let mut command = bench.command(line);
        command.env("COFFER_HOST_ID", "2002").env("COFFER_STATE_DIR", bench.path("state2"));
        command.output().unwrap()
    };
    let dir = bench.path("");
    let refused = there(&format!("import -d {dir} tank"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("-f"));
    let forced = there(&format!("import -f -d {dir} tank"));
    assert_eq!(forced.status.code(), Some(0), "{}", String::from_utf8_lossy(&forced.stderr));
    let read = there(&format!("volume read tank/vol --length {}", data.len()));
    assert!(read.stdout == data);
}

#[test]
fn a_damaged_record_does_not_hide_the_others() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.ok(&format!("create tank mirror {}", d.join(" ")));
    std::fs::write(bench.path("state/77.json"), b"\x00garbage").unwrap();
    let ran = bench.run("status tank");
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("77.json"), "{}", ran.err);
}

#[test]
fn two_histories_of_one_pool() {
    let bench = Bench::new();
    let sides = ["left", "right"].map(|side| bench.path(side));
    let d: Vec<String> = sides
        .iter()
        .map(|side| {
            std::fs::create_dir(side).unwrap();
            bench.disk(&format!("{}/d", side.rsplit('/').next().unwrap()), DISK)
        })
        .collect();
    bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    bench.ok("export tank");
    // Each half is used by itself.
    for (side, other) in [(0, 1), (1, 0)] {
        let away = take_away(&d[other]);
        bench.ok(&format!("import -d {} tank", sides[side]));
        assert_eq!(bench.feed("volume write tank/vol", &noise(side as u64 + 1, 1 << 20)).code, 0);
        bench.ok("export tank");
        bring_back(&away, &d[other]);
    }
    let both = format!("-d {} -d {}", sides[0], sides[1]);
    for line in [format!("import {both} tank"), format!("import {both} -o readonly=on tank")] {
        let said = bench.fails_untouched(&line, &d);
        assert!(said.contains("apart") && d.iter().all(|disk| said.contains(disk)), "{said}");
    }
    // By force it can be looked at, the newer side, and again nothing changes.
    let before: Vec<_> = d.iter().map(|disk| digest(disk)).collect();
    bench.ok(&format!("import {both} -f -o readonly=on tank"));
    bench.bytes("volume read tank/vol --length 4K");
    bench.ok("export tank");
    assert_eq!(d.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), before);
    // Leaving one out decides; it is resilvered as a whole when it is back.
    let away = take_away(&d[1]);
    bench.ok(&format!("import -d {} tank", sides[0]));
    let server = bench.start("serve tank");
    bring_back(&away, &d[1]);
    bench.ok(&format!("online tank {}", d[1]));
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    take_away(&d[0]);
    bench.holds("tank/vol", &noise(1, 1 << 20));
}
