//! Devices that are lost, damaged, replaced, attached, spared.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, DISK, bring_back, damage, noise, take_away};

#[test]
fn missing_devices_degrade_and_return() {
    let bench = Bench::new();
    let disks = bench.disks(5);
    let data = bench.pool_with_data(&format!("raidz2 {}", disks.join(" ")), 8 << 20);
    let away: Vec<_> = disks[..2].iter().map(|disk| take_away(disk)).collect();
    assert_eq!(bench.state("tank"), "DEGRADED");
    let status = bench.ok("status tank");
    assert!(
        status.contains("UNAVAIL") && status.contains("status:") && status.contains("action:"),
        "{status}"
    );
    bench.holds("tank/vol", &data);
    let more = noise(9, 4 << 20);
    assert_eq!(bench.feed("volume write tank/vol --offset 16M", &more).code, 0);
    for (away, disk) in away.iter().zip(&disks) {
        bring_back(away, disk);
    }
    bench.ok(&format!("online tank {} {}", disks[0], disks[1]));
    bench.ok("wait tank");
    assert_eq!(bench.state("tank"), "ONLINE");
    // What they missed was brought up to date: now the others may go.
    for disk in &disks[2..4] {
        take_away(disk);
    }
    bench.holds("tank/vol", &data);
    assert!(bench.bytes("volume read tank/vol --offset 16M --length 4M") == more);
}

#[test]
fn too_many_missing_devices_are_told_by_name() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let away: Vec<_> = disks[..2].iter().map(|disk| take_away(disk)).collect();
    let keep = bench.path("keep");
    std::fs::create_dir(&keep).unwrap();
    let left = format!("{keep}/left");
    std::fs::rename(&disks[2], &left).unwrap();
    let said = bench.fails_untouched(&format!("import -d {keep} tank"), &[left]);
    assert!(said.contains(&disks[0]) && said.contains(&disks[1]), "{said}");
    // One of them is enough.
    std::fs::rename(&away[0], format!("{keep}/one")).unwrap();
    bench.ok(&format!("import -d {keep} tank"));
    assert_eq!(bench.state("tank"), "DEGRADED");
}

#[test]
fn a_damaged_device_is_found_out_and_repaired() {
    let bench = Bench::new();
    let disks = bench.disks(4);
    let data = bench.pool_with_data(&format!("raidz2 {}", disks.join(" ")), 16 << 20);
    damage(&disks[1], 2 << 20, &noise(3, 100 << 20));
    bench.holds("tank/vol", &data);
    let said = bench.ok("scrub tank");
    assert!(said.contains("scrub repaired") && said.contains("with 0 errors"), "{said}");
    let json = bench.run("status --json tank").data();
    let children = json[0]["vdevs"][0]["children"].as_array().unwrap();
    let wrong: Vec<u64> = children.iter().map(|disk| disk["errors"]["checksum"].as_u64().unwrap()).collect();
    assert!(wrong[1] > 0 && wrong[0] == 0 && wrong[2] == 0 && wrong[3] == 0, "{wrong:?}");
    bench.ok("clear tank");
    let said = bench.ok("scrub tank");
    assert!(said.contains("repaired 0B"), "{said}");
    assert_eq!(bench.ok("status -x"), "all pools are healthy\n");
}

#[test]
fn a_device_is_replaced_in_use_and_gone() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 8 << 20);
    let new = bench.disk("new", DISK);
    assert!(bench.ok(&format!("replace tank {} {new}", disks[0])).contains("resilvered"));
    assert!(!bench.ok("status tank").contains(&disks[0]));
    take_away(&disks[1]);
    let newer = bench.disk("newer", 2 * DISK);
    bench.ok(&format!("replace -r tank {} {newer}", disks[1]));
    assert_eq!(bench.state("tank"), "ONLINE");
    take_away(&disks[2]);
    bench.holds("tank/vol", &data);
}

#[test]
fn a_smaller_device_is_taken_only_if_everything_fits() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 4 << 20);
    let small = bench.disk("small", 64 << 20);
    let ran = bench.run(&format!("replace tank {} {small}", disks[0]));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("smaller"), "{}", ran.err);
    let normal = bench.disk("normal", DISK);
    bench.ok(&format!("replace tank {small} {normal}"));
    assert_eq!(
        bench.feed("volume write tank/vol", &noise(1, 64 << 20)).code,
        1,
        "no more than before is used"
    );
    bench.ok(&format!("online -e tank {normal}"));
    assert_eq!(bench.feed("volume write tank/vol", &noise(1, 64 << 20)).code, 0);
    let smaller = bench.disk("smaller", 64 << 20);
    let said = bench
        .fails_untouched(&format!("replace tank {} {smaller}", disks[1]), std::slice::from_ref(&smaller));
    assert!(said.contains(&smaller), "{said}");
    assert_eq!(bench.state("tank"), "ONLINE");
}

#[test]
fn mirrors_grow_and_shrink() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let data = bench.pool_with_data(&disks[0], 4 << 20);
    bench.ok(&format!("attach tank {} {}", disks[0], disks[1]));
    assert!(bench.ok("status tank").contains("mirror-0"));
    bench.ok(&format!("attach tank {} {}", disks[1], disks[2]));
    bench.ok(&format!("detach tank {}", disks[0]));
    take_away(&disks[1]);
    bench.holds("tank/vol", &data);
    bring_back(std::path::Path::new(&format!("{}.away", disks[1])), &disks[1]);
    bench.ok(&format!("detach tank {}", disks[1]));
    let said = bench.fails(&format!("detach tank {}", disks[2]));
    assert!(said.contains(&disks[2]) || said.contains("last"), "{said}");
    bench.holds("tank/vol", &data);
}

#[test]
fn the_last_good_copy_cannot_be_taken_away() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok(&format!("offline tank {}", disks[0]));
    assert_eq!(bench.state("tank"), "DEGRADED");
    bench.fails(&format!("offline tank {}", disks[1]));
    bench.fails(&format!("detach tank {}", disks[1]));
    bench.holds("tank/vol", &data);
    bench.ok(&format!("online tank {}", disks[0]));
    assert_eq!(bench.state("tank"), "ONLINE");
}

#[test]
fn a_spare_steps_in_and_goes_back() {
    let bench = Bench::new();
    let disks = bench.disks(4);
    let spare = bench.disk("spare", DISK);
    let data = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 4 << 20);
    bench.ok(&format!("add tank spare {spare}"));
    take_away(&disks[0]);
    bench.ok("wait tank");
    let status = bench.ok("status tank");
    assert!(status.contains("spare-0") && status.contains("INUSE"), "{status}");
    take_away(&disks[1]);
    bench.holds("tank/vol", &data);
    bring_back(std::path::Path::new(&format!("{}.away", disks[1])), &disks[1]);
    // The lost disk is replaced for good, and the spare is free again.
    let new = bench.disk("new", DISK);
    bench.ok(&format!("replace tank {} {new}", disks[0]));
    bench.ok("wait tank");
    let status = bench.ok("status tank");
    assert!(status.contains("AVAIL") && !status.contains("INUSE"), "{status}");
    bench.ok(&format!("remove tank {spare}"));
    assert!(!bench.ok("status tank").contains("spares"));
    // A member is removed, too, after what is on it went to the others.
    bench.ok(&format!("remove tank {new}"));
    assert!(!bench.ok("status tank").contains(&new));
    bench.holds("tank/vol", &data);
}

#[test]
fn a_spare_becomes_permanent() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let spare = bench.disk("spare", DISK);
    let data = bench.pool_with_data(&format!("raidz1 {} spare {spare}", disks.join(" ")), 4 << 20);
    take_away(&disks[0]);
    bench.ok("wait tank");
    bench.ok(&format!("detach tank {}", disks[0]));
    let status = bench.ok("status tank");
    assert!(!status.contains("spares") && status.contains(&spare), "{status}");
    assert_eq!(bench.state("tank"), "ONLINE");
    bench.holds("tank/vol", &data);
}

#[test]
fn vdevs_are_added_as_planned() {
    let bench = Bench::new();
    let disks = bench.disks(4);
    let data = bench.pool_with_data(&format!("mirror {} {}", disks[0], disks[1]), 1 << 20);
    let new = || disks[2..].iter().map(|disk| common::digest(disk)).collect::<Vec<_>>();
    let before = new();
    let add = format!("tank mirror {} {}", disks[2], disks[3]);
    assert!(bench.ok(&format!("add -n {add}")).contains("would do"));
    assert_eq!(new(), before);
    assert!(!bench.ok("status tank").contains("mirror-1"));
    bench.ok(&format!("add {add}"));
    assert!(bench.ok("status tank").contains("mirror-1"));
    bench.holds("tank/vol", &data);
}

/// A command was killed after its change was committed and before it was noted where the new device is.
#[test]
fn a_device_that_a_killed_command_brought_in_is_found() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("mirror {} {}", d[0], d[1]), 1 << 20);
    let guid = bench.run("list --json").data()["pools"][0]["guid"].as_u64().unwrap();
    let record = bench.path(&format!("state/{guid}.json"));
    let before = std::fs::read_to_string(&record).unwrap();
    bench.ok(&format!("attach -w tank {} {}", d[0], d[2]));
    std::fs::write(&record, &before).unwrap();
    assert_eq!(bench.state("tank"), "DEGRADED");
    let noted = before.replacen('{', &format!("{{\"joining\": [\"{}\"],", d[2]), 1);
    std::fs::write(&record, noted).unwrap();
    assert_eq!(bench.state("tank"), "ONLINE");
    // From now on it is one of them.
    bench.ok(&format!("detach tank {}", d[0]));
    bench.ok(&format!("detach tank {}", d[1]));
    bench.holds("tank/vol", &data);
    assert!(!std::fs::read_to_string(&record).unwrap().contains("joining"));
}

/// Killed between the commit in which the pool let a device go and the clearing of its labels and of the record.
#[test]
fn a_device_that_a_killed_command_let_go_is_free() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    bench.pool_with_data(&format!("mirror {} {}", disks[0], disks[1]), 1 << 20);
    bench.ok("list");
    let is_record = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let states = std::fs::read_dir(bench.path("state")).unwrap().map(|entry| entry.unwrap().path());
    let record = states.into_iter().find(is_record).unwrap();
    let (said, labels) = (std::fs::read(&record).unwrap(), std::fs::read(&disks[1]).unwrap());
    bench.ok(&format!("replace -w tank {} {}", disks[1], disks[2]));
    std::fs::write(&record, said).unwrap();
    std::fs::write(&disks[1], labels).unwrap();
    let again = format!("tank {} {}", disks[2], disks[1]);
    let refused = bench.fails(&format!("replace {again}"));
    assert!(refused.contains("was part of pool 'tank'") && refused.contains("'-f'"), "{refused}");
    bench.ok(&format!("replace -f -w {again}"));
    assert_eq!(bench.state("tank"), "ONLINE");
    assert!(!bench.ok("status tank").contains(&disks[2]));
}

#[test]
fn a_device_taken_out_for_a_while_stays_out_until_the_next_import() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 2 << 20);
    bench.ok(&format!("offline -t tank {}", disks[0]));
    // Each command opens the pool anew, which must not bring it back.
    assert_eq!(bench.state("tank"), "DEGRADED");
    assert_eq!(bench.feed("volume write tank/vol --offset 8M", &noise(3, 4 << 20)).code, 0);
    assert!(bench.ok("status tank").contains("OFFLINE"));
    bench.ok("export tank");
    bench.ok("import tank");
    bench.ok("wait tank");
    assert_eq!(bench.state("tank"), "ONLINE");
    take_away(&disks[1]);
    bench.holds("tank/vol", &data);
}

#[test]
fn what_happened_is_told_to_later_commands() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 4 << 20);
    damage(&disks[1], 2 << 20, &noise(3, 100 << 20));
    bench.holds("tank/vol", &data);
    let told = bench.ok("events tank");
    assert!(told.contains("checksum") && told.contains(&disks[1]), "{told}");
    bench.ok("scrub tank");
    let events = bench.run("events --json tank").data();
    let events = events.as_array().unwrap();
    assert!(events.iter().any(|event| event["class"] == "scrub_finish"), "{events:?}");
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    // Somebody who follows sees the old ones, and the new ones as they come.
    let server = bench.start("serve tank");
    let mut follower = bench.command("events -f tank").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = follower.stdout.take().unwrap();
    std::io::Read::read_exact(&mut out, &mut [0]).unwrap();
    // It goes on when the process that it asked ends.
    assert_eq!(server.interrupt(), 0);
    let holds = |path: std::path::PathBuf| {
        path.extension().is_some_and(|extension| extension == "lock")
            && std::fs::read_to_string(path).is_ok_and(|pid| pid.trim() == follower.id().to_string())
    };
    let holds = || std::fs::read_dir(bench.path("state")).unwrap().any(|entry| holds(entry.unwrap().path()));
    common::eventually("the follower holds the pool", holds);
    bench.ok(&format!("offline tank {}", disks[0]));
    common::eventually("it is noted", || bench.ok("events tank").contains("taken offline"));
    std::thread::sleep(std::time::Duration::from_millis(400));
    let _ = std::process::Command::new("kill").args(["-INT", &follower.id().to_string()]).status();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut out, &mut text).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    assert!(text.contains("checksum") && text.contains("taken offline"), "{text}");
}

#[test]
fn a_program_gets_one_answer() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 4 << 20);
    let new = bench.disk("new", DISK);
    let answer = bench.run(&format!("replace --json tank {} {new}", disks[0])).data();
    assert_eq!(answer["scan"]["state"], "finished");
    assert_eq!(answer["steps"][0], format!("replace {} by {new}", disks[0]));
    bench.ok(&format!("offline tank {new}"));
    assert_eq!(bench.feed("volume write tank/vol", &noise(3, 4 << 20)).code, 0);
    let answer = bench.run(&format!("online --json tank {new}")).data();
    assert_eq!(answer["scan"]["state"], "finished", "{answer}");
    let said = bench.fails(&format!("replace tank {} {new}", disks[1]));
    assert!(said.contains("part of pool 'tank' already"), "{said}");
}

#[test]
fn a_plan_says_what_a_change_comes_to_and_changes_nothing() {
    let bench = Bench::new();
    let d = bench.disks(8);
    let told = bench.ok(&format!("plan create tank raidz1 {} {} {}", d[0], d[1], d[2]));
    assert!(told.contains("survives any") && told.contains("1 of 3"), "{told}");
    assert!(bench.ok("list").contains("no pools available"));
    bench.ok(&format!("create tank raidz1 {} {} {} {}", d[0], d[1], d[2], d[3]));
    bench.ok("volume create -V 24M tank/vol");
    assert_eq!(bench.feed("volume write tank/vol", &noise(3, 24 << 20)).code, 0);
    let usage = bench.ok("--json usage tank");
    let add = format!("tank raidz1 {} {} {} {}", d[4], d[5], d[6], d[7]);
    let remove = format!("tank {}", d[1]);
    let replace = format!("tank {} {}", d[1], d[4]);
    let told = bench.ok(&format!("plan add {add}"));
    assert!(told.contains("now") && told.contains("then") && told.contains("raidz1-1"), "{told}");
    let told = bench.ok(&format!("plan --rate 1M remove {remove}"));
    assert!(told.contains("1. relocate") && told.contains("1M/s a device; until then any one"), "{told}");
    let told = bench.run(&format!("--json plan replace {replace}")).data();
    assert_eq!((&told["now"]["survives"], &told["then"]["survives"]), (&1.into(), &1.into()), "{told}");
    assert!(told["steps"][0]["busiest"].as_u64().unwrap() > 8 << 20, "{told}");
    assert_eq!(bench.ok("--json usage tank"), usage);
    // What the command refuses is refused here in the same words.
    for words in [format!("add tank mirror {} {}", d[4], d[5]), format!("remove tank {}", d[4])] {
        assert_eq!(
            bench.fails(&format!("plan {words}")),
            bench.fails(&words).replacen("coffer", "coffer plan", 1)
        );
    }
    assert!(bench.fails(&format!("plan --rate 0 add {add}")).contains("--rate 0"));
    assert_eq!(bench.run("plan").code, 2);
}

#[test]
fn what_if_says_what_would_be_lost() {
    let bench = Bench::new();
    let d = bench.disks(5);
    bench.ok(&format!("create -f tank raidz1 {} {} {} mirror {} {}", d[0], d[1], d[2], d[3], d[4]));
    bench.ok("volume create -V 24M tank/large");
    bench.ok("volume create -V 1M tank/empty");
    assert_eq!(bench.feed("volume write tank/large", &noise(3, 24 << 20)).code, 0);
    bench.ok("snapshot tank/large@a");
    let told = bench.ok("whatif tank");
    assert!(told.contains("any device: nothing would be lost"), "{told}");
    assert!(told.contains("4 of 10 sets lose something"), "{told}");
    let apart = bench.ok(&format!("whatif tank --fail {} --fail {}", d[0], d[3]));
    assert!(apart.contains("lost: nothing"), "{apart}");
    let json = bench.ok(&format!("--json whatif tank --fail {} --fail {}", d[1], d[2]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let lost = &json["data"]["failed"];
    assert!(lost["data"].as_u64().unwrap() > 1 << 20, "{json}");
    assert_eq!(lost["datasets"], serde_json::json!(["tank/large", "tank/large@a"]), "{json}");
    assert!(bench.fails("whatif tank --any 6").contains("6 of 5 devices"));
    assert!(bench.fails("whatif tank --fail nothing").contains("no such device"));
    assert_eq!(bench.run("whatif").code, 2);
    // And so it is.
    bench.ok("export tank");
    let keep = bench.path("keep");
    std::fs::create_dir(&keep).unwrap();
    for number in [0, 3, 4] {
        std::fs::rename(&d[number], format!("{keep}/{number}")).unwrap();
    }
    assert!(bench.fails(&format!("import -d {keep} tank")).contains("too many devices are missing"));
}
