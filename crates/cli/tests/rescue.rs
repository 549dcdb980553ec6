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

/// Members of a RAID 5 of three, left-symmetric with chunks of 64 KiB from 1 MiB on, without superblocks, around an ext4 file
/// system with these files; `None` without `mke2fs`.
fn bare(bench: &Bench, files: &[(String, Vec<u8>)]) -> Option<Vec<String>> {
    const CHUNK: usize = 64 << 10;
    let folder = bench.path("contents");
    for (name, bytes) in files {
        let path = std::path::Path::new(&folder).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let image = bench.path("image");
    let arguments = ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", &folder, &image, "16M"];
    let made = std::process::Command::new("mke2fs").args(arguments).output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("passed over: there is no mke2fs here");
        return None;
    }
    let contents = fs::read(&image).unwrap();
    fs::remove_file(&image).unwrap();
    let mut members = vec![vec![0; 1 << 20]; 3];
    for (stripe, row) in contents.chunks(2 * CHUNK).enumerate() {
        let parity = 2 - stripe % 3;
        let (first, second) = row.split_at(CHUNK);
        members[(parity + 1) % 3].extend_from_slice(first);
        members[(parity + 2) % 3].extend_from_slice(second);
        members[parity].extend(first.iter().zip(second).map(|(a, b)| a ^ b));
    }
    let paths: Vec<String> = [7, 3, 5].map(|number| bench.path(&format!("disk{number}"))).into();
    paths.iter().zip(members).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    Some(paths)
}

#[test]
fn an_array_without_superblocks_gives_its_files() {
    let bench = Bench::new();
    let noise = |seed: usize, length: usize| {
        let mut state = seed as u32 + 1;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect::<Vec<u8>>()
    };
    let files: Vec<(String, Vec<u8>)> = (0..90)
        .map(|number| (format!("folder-{}/file-{number}", number % 11), noise(number, 3000 + number * 997)))
        .collect();
    let Some(members) = bare(&bench, &files) else { return };
    let before = state(&members);
    // All of them, and then with one lost.
    for pile in [&members[..], &members[1..]] {
        let plan = bench.path(&format!("plan-{}", pile.len()));
        let told = bench.ok(&format!("rescue plan --save {plan} {}", pile.join(" ")));
        assert!(
            told.starts_with("1. raid5-without-superblocks: raid5 left-symmetric, chunk 64 KiB"),
            "{told}"
        );
        let listed = bench.run(&format!("--json rescue volumes --plan {plan}")).data();
        let name = listed[0]["name"].as_str().unwrap().to_owned();
        let to = bench.path(&format!("out-{}", pile.len()));
        bench.ok(&format!("rescue files --plan {plan} {name} --to {to}"));
        for (path, bytes) in &files {
            assert!(fs::read(std::path::Path::new(&to).join(path)).unwrap() == *bytes, "{path}");
        }
        let copy = bench.path(&format!("copy-{}", pile.len()));
        bench.ok(&format!("rescue copy --plan {plan} {name} --to {copy}"));
        let checked = std::process::Command::new("e2fsck").args(["-f", "-n", &copy]).output();
        assert!(checked.is_ok_and(|output| output.status.success()), "the copy is damaged");
        if !std::path::Path::new("/dev/fuse").exists() {
            continue;
        }
        let asked = bench.run(&format!("rescue volumes --check --plan {plan}"));
        if !asked.err.contains("FUSE") {
            assert!(asked.out.contains("e2fsck finds no errors"), "{}{}", asked.out, asked.err);
        }
    }
    assert_eq!(state(&members), before);
}

/// Killed before anything was saved, or with no room left: the map is there from the first byte on, and the same command goes on.
#[test]
fn a_copy_goes_on_however_early_it_was_stopped() {
    let bench = Bench::new();
    let (members, plan) = broken(&bench);
    let (to, image) = (bench.path("out"), bench.path("image"));
    let copy = format!("rescue copy --plan {plan} nas:holidays-p1 --to {to} --fill zero");
    bench.ok(&copy);
    let whole = fs::read(&to).unwrap();
    // As a kill leaves it that comes right after the output was made, or right before.
    for there in [true, false] {
        let map = fs::read_to_string(format!("{to}.map")).unwrap();
        let begun = format!("0x00000000     ?               1\n0x00000000  0x{:08X}  ?\n", whole.len());
        assert!(map.contains("  +"), "{map}");
        fs::write(format!("{to}.map"), begun).unwrap();
        fs::remove_file(&to).unwrap();
        if there {
            fs::File::create(&to).unwrap().set_len(whole.len() as u64).unwrap();
        }
        bench.ok(&copy);
        assert!(fs::read(&to).unwrap() == whole);
    }
    // A map that says what was copied is no reason to believe in an output that is gone.
    fs::remove_file(&to).unwrap();
    assert!(bench.fails(&copy).contains("says what was copied"));
    // The map is written before the output: with a folder in its place there is no output either.
    let other = bench.path("other");
    fs::create_dir(format!("{other}.map.new")).unwrap();
    bench.fails(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {other}"));
    assert!(fs::metadata(&other).is_err());
    fs::create_dir(format!("{image}.map.new")).unwrap();
    bench.fails(&format!("rescue image {} --to {image} --map {image}.map", members[0]));
    assert!(fs::metadata(&image).is_err());
}

#[test]
fn an_output_is_not_its_own_map() {
    let bench = Bench::new();
    let (members, plan) = broken(&bench);
    let link = bench.path("link");
    std::os::unix::fs::symlink(bench.path(""), &link).unwrap();
    let to = bench.path("out");
    for map in [to.clone(), format!("{link}/out")] {
        assert_eq!(
            bench.run(&format!("rescue copy --plan {plan} nas:holidays-p1 --to {to} --map {map}")).code,
            2
        );
        assert_eq!(bench.run(&format!("rescue image {} --to {to} --map {map}", members[0])).code, 2);
        assert!(fs::metadata(&to).is_err());
    }
}

/// What is no plan takes no memory, however long it is.
#[test]
fn a_plan_has_an_end() {
    let bench = Bench::new();
    let said = bench.fails("rescue volumes --plan /dev/zero");
    assert!(said.contains("cannot read /dev/zero: it has more than 268435456 bytes"), "{said}");
}

/// A plan is not saved over the map of an image, which says what of the image must not be believed.
#[test]
fn a_plan_is_not_saved_over_a_map() {
    let bench = Bench::new();
    let (members, _) = broken(&bench);
    let beside = format!("{}.map", members[2]);
    let text = fs::read_to_string(&beside).unwrap();
    let saved = bench.run(&format!("rescue plan --save {beside} {}", members.join(" ")));
    assert_eq!(saved.code, 2, "{}", saved.err);
    let map = bench.path("a.map");
    fs::write(&map, &text).unwrap();
    let line = format!("rescue plan --save {map} --map {}={map} {}", members[0], members.join(" "));
    assert_eq!(bench.run(&line).code, 2);
    assert_eq!(
        (fs::read_to_string(&beside).unwrap(), fs::read_to_string(&map).unwrap()),
        (text.clone(), text)
    );
}
