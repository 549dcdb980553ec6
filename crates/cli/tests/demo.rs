//! `coffer demo` tells its story and keeps its promises.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::Bench;

#[test]
fn the_demo_ends_well_and_leaves_nothing() {
    let bench = Bench::new();
    let temporary = bench.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let output = bench.command("demo --seed 5").env("TMPDIR", &temporary).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["pulled", "Corrupted", "INUSE", "resilvered", "scrub repaired", "BLAKE3", "OK"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(!std::path::Path::new(&bench.path("state")).exists());
}

#[test]
fn the_disks_of_a_demo_can_be_kept_and_imported() {
    let bench = Bench::new();
    let dir = bench.path("disks");
    let story = bench.run(&format!("demo --json --size 96M --dir {dir}")).data();
    assert_eq!(story["ok"], true);
    assert_eq!(story["wrong"], 0);
    bench.ok(&format!("import -d {dir} demo"));
    assert!(bench.ok("check demo").contains("no problems"));
}
