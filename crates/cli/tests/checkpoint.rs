//! `coffer checkpoint` and `import --rewind-to-checkpoint` as their users see them.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, digest, noise};

/// Destroys and overwrites what `pool_with_data` made.
fn wreck(bench: &Bench) -> Vec<u8> {
    let other = noise(9, 3 << 20);
    bench.ok("destroy tank/vol");
    bench.ok("volume create -s -V 64M tank/other");
    assert_eq!(bench.feed("volume write tank/other", &other).code, 0);
    bench.ok("set comment=after tank");
    other
}

#[test]
fn a_pool_goes_back_to_its_checkpoint() {
    let bench = Bench::new();
    let d = bench.disks(4);
    let dir = bench.path("");
    let data = bench.pool_with_data(&format!("mirror {} {}", d[0], d[1]), 8 << 20);
    bench.ok("set comment=before tank");
    assert!(bench.ok("list tank").contains("CKPOINT"));
    assert_eq!(bench.ok("list -Hp tank").split('\t').nth(4), Some("-"));
    bench.ok("checkpoint tank");
    assert_eq!(bench.ok("list -Hp tank").split('\t').nth(4), Some("0"));
    let other = wreck(&bench);
    bench.ok(&format!("add tank mirror {} {}", d[2], d[3]));
    // What it holds back is told.
    let held = bench.run("list --json tank").data()["pools"][0]["checkpoint"].as_u64().unwrap();
    assert!((8 << 20..9 << 20).contains(&held), "{held}");
    let status = bench.ok("status tank");
    assert!(status.contains("checkpoint: taken on ") && status.contains("holds 8."), "{status}");
    let json = bench.run("status --json tank").data();
    let checkpoint = &json[0]["checkpoint"];
    assert_eq!((checkpoint["held"].as_u64(), checkpoint["discarding"].as_bool()), (Some(held), Some(false)));
    assert!(bench.fails("checkpoint tank").contains("has a checkpoint already"));
    bench.ok("check tank");

    // In use it can't be taken back; exported it can be looked at.
    assert!(bench.fails(&format!("import -d {dir} --rewind-to-checkpoint tank")).contains("in use"));
    bench.ok("export tank");
    let untouched: Vec<_> = d.iter().map(|disk| digest(disk)).collect();
    let said = bench.ok(&format!("import -d {dir} -n --rewind-to-checkpoint tank"));
    assert!(said.contains("going back to the checkpoint") && said.contains("is lost"), "{said}");
    bench.ok(&format!("import -d {dir} -o readonly=on --rewind-to-checkpoint tank"));
    bench.holds("tank/vol", &data);
    assert!(bench.ok("get -H comment tank").contains("before"));
    assert!(bench.ok("check tank").contains("no problems"));
    bench.ok("export tank");
    assert_eq!(d.iter().map(|disk| digest(disk)).collect::<Vec<_>>(), untouched);
    bench.ok(&format!("import -d {dir} tank"));
    bench.holds("tank/other", &other);
    bench.ok("export tank");

    let ran = bench.run(&format!("import -d {dir} --rewind-to-checkpoint tank"));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("is lost") && ran.err.contains("as of its checkpoint"), "{}", ran.err);
    bench.holds("tank/vol", &data);
    bench.fails("volume read tank/other");
    assert!(bench.ok("get -H comment tank").contains("before"));
    // Devices do not go back, and there is no checkpoint any more.
    let status = bench.ok("status tank");
    assert!(status.contains("mirror-1") && !status.contains("checkpoint: "), "{status}");
    bench.ok("wait tank");
    assert!(bench.ok("check tank").contains("no problems"));
    assert!(bench.ok("history tank").contains("--rewind-to-checkpoint tank"));
    assert!(bench.ok("events tank").contains("went back to the checkpoint"));
    bench.ok("export tank");
    for options in ["", "-o readonly=on", "-n"] {
        let said = bench.fails(&format!("import -d {dir} {options} --rewind-to-checkpoint tank"));
        assert!(said.contains("has no checkpoint to go back to"), "{said}");
    }
}

#[test]
fn a_checkpoint_is_discarded() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.pool_with_data(&format!("mirror {} {}", d[0], d[1]), 8 << 20);
    assert!(bench.fails("checkpoint -d tank").contains("has no checkpoint"));
    assert_eq!(bench.run("checkpoint -w tank").code, 2);
    assert_eq!(bench.run("import -F --rewind-to-checkpoint tank").code, 2);
    assert_eq!(bench.run("import --rewind-to-checkpoint").code, 2);
    // Without a holder, and through one.
    for served in [false, true] {
        let server = served.then(|| bench.start("serve"));
        bench.ok("checkpoint tank");
        if served {
            bench.ok("destroy tank/other");
        } else {
            wreck(&bench);
        }
        let held = |bench: &Bench| bench.run("list --json tank").data()["pools"][0]["checkpoint"].as_u64();
        common::eventually("held back", || held(&bench).unwrap() > 2 << 20);
        bench.ok("checkpoint --discard --wait tank");
        assert_eq!(held(&bench), None);
        assert!(bench.ok("check tank").contains("no problems"));
        let events = bench.ok("events tank");
        assert!(events.contains("checkpoint_discard") && events.contains("was discarded"), "{events}");
        drop(server);
    }
    assert!(bench.ok("history tank").contains("coffer checkpoint --discard --wait tank"));
    let usage = bench.run("usage --json tank").data();
    let data = usage["profiles"].as_array().unwrap().iter().filter(|profile| profile["class"] == "Data");
    assert_eq!(data.map(|profile| profile["used"].as_u64().unwrap()).sum::<u64>(), 0, "{usage}");
}
