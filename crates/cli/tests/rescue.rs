//! `coffer rescue`, on members that the demo makes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::{Bench, digest};

/// The demo's members, and a plan for them.
fn broken(bench: &Bench) -> (Vec<String>, String) {
    let folder = bench.path("demo");
    bench.ok(&format!("rescue demo --dir {folder}"));
    let members: Vec<String> = "abcde".chars().map(|c| format!("{folder}/disk-{c}.img")).collect();
    let plan = bench.path("plan");
    bench.ok(&format!("rescue plan --save {plan} {}", members.join(" ")));
    (members, plan)
}

/// Bytes, times and sizes of the members.
fn state(members: &[String]) -> Vec<(String, i64, i64, u64)> {
    let of = |path: &String| {
        let metadata = fs::metadata(path).unwrap();
        (digest(path), metadata.mtime_nsec(), metadata.ctime_nsec(), metadata.size())
    };
    members.iter().map(of).collect()
}

#[test]
fn from_a_pile_of_disks_to_a_copy_without_touching_them() {
    let bench = Bench::new();
    let (members, plan) = broken(&bench);
    let before = state(&members);
    let scan = bench.ok(&format!("rescue scan {}", members.join(" ")));
    assert!(scan.contains("nas:holidays") && scan.contains("stale"), "{scan}");
    let json = bench.run(&format!("--json rescue scan {}", members.join(" "))).data();
    assert_eq!(json["arrays"][0]["raid_disks"], 5);
    let text = bench.ok(&format!("rescue volumes --plan {plan}"));
    assert!(
        text.contains("nas:holidays-p1") && text.contains("FAT file system labelled 'HOLIDAYS'"),
        "{text}"
    );
    // What is lost makes it fail, and is told.
    let to = bench.path("out.img");
    let ran = bench.run(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {to}"));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("2048 bytes of it are lost"), "{}", ran.out);
    let map = fs::read_to_string(format!("{to}.map")).unwrap();
    assert!(map.contains("  -"), "{map}");
    // Once more it tries only what is left; with zeros asked for it is content.
    bench.ok(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {to} --fill zero"));
    let copy = fs::read(&to).unwrap();
    assert!(copy.windows(24).any(|window| window == b"Dear reader, backups com"));
    bench.fails(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {} --map {to}.2", members[0]));
    bench.fails(&format!("rescue copy --plan {plan} nothing --to {to}.3"));
    assert_eq!(state(&members), before);
}

#[test]
fn a_copy_that_is_there_without_a_map_is_not_overwritten() {
    let bench = Bench::new();
    let (_, plan) = broken(&bench);
    let to = bench.path("precious");
    fs::write(&to, b"precious").unwrap();
    bench.fails(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {to}"));
    assert_eq!(fs::read(&to).unwrap(), b"precious");
}

#[test]
fn served_with_an_overlay_it_can_be_written_and_thrown_away() {
    let bench = Bench::new();
    let (members, plan) = broken(&bench);
    let before = state(&members);
    let mount = bench.path("mount");
    let overlay = bench.path("overlay");
    fs::create_dir(&mount).unwrap();
    if !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("passed over: there is no FUSE here");
        return;
    }
    let server = bench.start(&format!("rescue serve --plan {plan} --fuse {mount} --overlay {overlay}"));
    let file = format!("{mount}/nas:holidays-p1");
    let there = |_: u32| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs::metadata(&file).is_ok()
    };
    if !(0..400).any(there) {
        eprintln!("passed over: FUSE is not permitted here");
        return;
    }
    let handle = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    let mut boot = [0; 512];
    std::os::unix::fs::FileExt::read_exact_at(&handle, &mut boot, 0).unwrap();
    assert_eq!(&boot[43..51], b"HOLIDAYS");
    std::os::unix::fs::FileExt::write_all_at(&handle, b"REPAIRED", 43).unwrap();
    drop(handle);
    assert_eq!(server.interrupt(), 0);
    let diff = bench.ok(&format!("rescue diff --plan {plan} --overlay {overlay}"));
    assert!(diff.contains("4096 bytes changed in 1 places"), "{diff}");
    assert_eq!(state(&members), before);
}

#[test]
fn a_disk_is_imaged_again_where_it_was_left() {
    let bench = Bench::new();
    let (members, plan) = broken(&bench);
    let (to, map) = (bench.path("image"), bench.path("image.map"));
    bench.ok(&format!("rescue image {} --to {to} --map {map}", members[0]));
    assert!(fs::read(&to).unwrap() == fs::read(&members[0]).unwrap());
    bench.ok(&format!("rescue image {} --to {to} --map {map}", members[0]));
    // Of a member without which too few are left everything is needed; one that is not in the plan is refused.
    let part = bench.path("part");
    let line = format!("--json rescue image {} --to {part} --map {part}.map --needed-for {plan}", members[0]);
    assert_eq!(bench.run(&line).data()["wanted"], 4 << 20);
    bench.fails(&format!(
        "rescue image {} --to {part}.2 --map {part}.2.map --needed-for {plan}",
        bench.path("image")
    ));
}

#[test]
fn bad_input_is_told_and_the_rest_goes_on() {
    let bench = Bench::new();
    let (members, _) = broken(&bench);
    let empty = bench.disk("empty", 0);
    let short = bench.path("short");
    fs::write(&short, &fs::read(&members[0]).unwrap()[..5000]).unwrap();
    let folder = bench.path("");
    let scan = bench.ok(&format!("rescue scan {folder} {empty} {short} {} {0} /nowhere", members[1]));
    for said in ["is a folder", "it is empty", "the same file or disk", "/nowhere"] {
        assert!(scan.contains(said), "{said} not in: {scan}");
    }
    bench.fails(&format!("rescue scan {folder}"));
    assert_eq!(bench.run(&format!("rescue plan {empty}")).code, 1);
    let garbage = bench.path("garbage");
    for text in ["", "{}", "{\"candidates\": 1}", "{\"candidates\": []}"] {
        fs::write(&garbage, text).unwrap();
        bench.fails(&format!("rescue volumes --plan {garbage}"));
    }
}
