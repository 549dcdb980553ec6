//! The life of a pool at the command line: made, used, given up, taken back, destroyed.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use common::{Bench, DISK, noise};

#[test]
fn a_pool_is_made_listed_and_shown() {
    let bench = Bench::new();
    assert_eq!(bench.ok("list"), "no pools available\n");
    assert_eq!(bench.ok("status"), "no pools available\n");
    let disks = bench.disks(3);
    assert_eq!(bench.ok(&format!("create tank mirror {} {} spare {}", disks[0], disks[1], disks[2])), "");
    let listed = bench.ok("list");
    let mut lines = listed.lines();
    assert!(lines.next().is_some_and(|head| head.starts_with("NAME")), "{listed}");
    assert!(lines.next().is_some_and(|row| row.starts_with("tank ") && row.ends_with("ONLINE")), "{listed}");
    let status = bench.ok("status tank");
    for part in [
        "  pool: tank\n",
        " state: ONLINE\n",
        "mirror-0",
        &disks[0],
        "spares",
        "AVAIL",
        "No known data errors",
    ] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    assert_eq!(bench.ok("status -x"), "all pools are healthy\n");
    assert_eq!(bench.ok("status -x tank"), "pool 'tank' is healthy\n");
    assert!(bench.ok("history tank").contains("coffer create tank mirror"));
    let json = bench.run("status --json").data();
    assert_eq!(json[0]["name"], "tank");
    assert_eq!(json[0]["state"], "ONLINE");
    assert_eq!(bench.run("list --json").data()["pools"][0]["health"], "ONLINE");
}

#[test]
fn usage_tells_the_numbers_of_btrfs() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    bench.ok(&format!("create --data raid1 --metadata raid1c3 tank {}", disks.join(" ")));
    bench.ok("volume create -s -V 64M tank/vol");
    bench.feed("volume write tank/vol", &noise(1, 8 << 20));
    let text = bench.ok("usage tank");
    for part in [
        "Device size:",
        "Device allocated:",
        "Device unallocated:",
        "Device missing:\t\t     0.00B",
        "Used:",
        "Free (estimated):",
        "(min: ",
        "Free (statfs, df):",
        "Data ratio:\t\t\t      2.00",
        "Metadata ratio:\t\t      3.00",
        "Global reserve:",
        "(used: ",
        "Multiple profiles:",
        "Data,RAID1: Size:",
        "Metadata,RAID1C3: Size:",
        "Unallocated:",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let table = bench.ok("usage -T tank");
    for part in ["Id Path", "Data", "RAID1", "Unallocated", &disks[2], "Total", "Used"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    let json = bench.run("usage --json tank").data();
    let size = json["device_size"].as_u64().unwrap();
    assert!((3 * DISK - (6 << 20)..=3 * DISK).contains(&size), "{size}");
    assert!(!bench.ok("map tank").is_empty());
}

#[test]
fn volumes_hold_what_is_written_and_snapshots_what_was() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    let first = bench.pool_with_data(&format!("raidz1 {}", disks.join(" ")), 5_000_001);
    bench.holds("tank/vol", &first);
    bench.ok("snapshot tank/vol@one");
    let second = noise(8, 3_000_000);
    let input = bench.path("input");
    std::fs::write(&input, &second).unwrap();
    bench.ok(&format!("volume write tank/vol --from {input} --offset 1M"));
    bench.holds("tank/vol@one", &first);
    let read = bench.bytes("volume read tank/vol --offset 1M --length 3000000");
    assert!(read == second);
    let output = bench.path("output");
    bench.ok(&format!("volume read tank/vol@one --to {output}"));
    let read = std::fs::read(&output).unwrap();
    assert_eq!(read.len(), 64 << 20);
    assert!(read[..first.len()] == first && read[first.len()..].iter().all(|&byte| byte == 0));
    let listed = bench.ok("list -t all");
    for part in ["tank/vol ", "tank/vol@one ", "snapshot", "volume", "pool"] {
        assert!(listed.contains(part), "{listed}");
    }
    bench.ok("rollback tank/vol@one");
    bench.holds("tank/vol", &first);
    let said = bench.fails("destroy tank/vol");
    assert!(said.contains("tank/vol@one"), "{said}");
    bench.ok("destroy tank/vol@one");
    bench.ok("destroy tank/vol");
    assert_eq!(bench.ok("list -t volume"), "no datasets available\n");
    assert!(bench.ok("check tank").starts_with("tank: no problems"));
    let history = bench.ok("history tank");
    for part in [
        "volume create -s -V 64M tank/vol",
        "snapshot tank/vol@one",
        "rollback tank/vol@one",
        "destroy tank/vol",
    ] {
        assert!(history.contains(part), "{history}");
    }
}

#[test]
fn volumes_are_resized_and_have_properties() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    bench.ok(&format!("create -o failmode=continue tank mirror {}", disks.join(" ")));
    assert_eq!(bench.ok("get -H failmode tank"), "tank\tfailmode\tcontinue\tlocal\n");
    bench.ok("volume create -V 16M -b 8K -o compression=off tank/vol");
    bench.ok("volume resize tank/vol 24M");
    assert_eq!(bench.run("list -p --json -t volume").data()["datasets"][0]["volsize"], 24 << 20);
    assert_eq!(bench.ok("get -H compression tank/vol"), "tank/vol\tcompression\toff\tlocal\n");
    bench.ok("set compression=zstd tank/vol");
    assert!(bench.ok("get all tank/vol").contains("zstd"));
    bench.ok("set volsize=32M tank/vol");
    bench.ok("set scan_rate=1.5M tank");
    assert_eq!(bench.ok("get -H scan_rate tank"), "tank\tscan_rate\t1.50M\tlocal\n");
    assert_eq!(bench.ok("get -Hp volsize tank/vol"), "tank/vol\tvolsize\t33554432\tlocal\n");
    bench.fails("set compression=maybe tank/vol");
    bench.fails("set no-such-thing=1 tank");
}

#[test]
fn an_exported_pool_is_found_and_imported_again() {
    let bench = Bench::new();
    let disks = bench.disks(4);
    let data = bench.pool_with_data(&format!("raidz2 {}", disks.join(" ")), 2 << 20);
    bench.ok("export tank");
    bench.fails("status tank");
    let dir = bench.path("");
    let found = bench.ok(&format!("import -d {dir}"));
    for part in ["   pool: tank\n", "  state: ONLINE\n", "raidz2-0", &disks[3]] {
        assert!(found.contains(part), "{found}");
    }
    bench.ok(&format!("import -d {dir} tank"));
    bench.holds("tank/vol", &data);
    assert!(bench.fails(&format!("import -d {dir} tank")).contains("in use"));
    // Its devices are remembered, so that the next time no folder need be named.
    bench.ok("export tank");
    bench.ok("import tank");
    bench.holds("tank/vol", &data);
    // Another name.
    bench.ok("export tank");
    bench.ok(&format!("import -d {dir} tank dozer"));
    bench.holds("dozer/vol", &data);
}

#[test]
fn devices_that_moved_are_found_by_their_labels() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let other = bench.path("elsewhere");
    std::fs::create_dir(&other).unwrap();
    for (i, disk) in disks.iter().enumerate() {
        std::fs::rename(disk, format!("{other}/renamed{i}")).unwrap();
    }
    bench.ok(&format!("import -d {other} tank"));
    assert_eq!(bench.state("tank"), "ONLINE");
    bench.holds("tank/vol", &data);
    // And again while it is in use: the folder is remembered.
    std::fs::rename(format!("{other}/renamed0"), format!("{other}/renamed9")).unwrap();
    assert_eq!(bench.state("tank"), "ONLINE");
    bench.holds("tank/vol", &data);
}

#[test]
fn a_read_only_import_changes_no_byte() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 1 << 20);
    bench.ok("export tank");
    let before: Vec<_> = disks.iter().map(|disk| common::digest(disk)).collect();
    bench.ok(&format!("import -o readonly=on -d {} tank", bench.path("")));
    bench.holds("tank/vol", &data);
    bench.fails("snapshot tank/vol@no");
    assert_eq!(bench.feed("volume write tank/vol", b"no").code, 1);
    bench.ok("export tank");
    let after: Vec<_> = disks.iter().map(|disk| common::digest(disk)).collect();
    assert_eq!(before, after);
}

#[test]
fn looking_changes_no_byte() {
    let bench = Bench::new();
    let disks = bench.disks(3);
    bench.pool_with_data(&format!("raidz {}", disks.join(" ")), 1 << 20);
    let before: Vec<_> = disks.iter().map(|disk| common::digest(disk)).collect();
    for line in [
        "status",
        "list -t all",
        "usage tank",
        "map tank",
        "history tank",
        "events tank",
        "get all tank",
        "check tank",
    ] {
        bench.ok(line);
    }
    let after: Vec<_> = disks.iter().map(|disk| common::digest(disk)).collect();
    assert_eq!(before, after);
}

#[test]
fn destroyed_pools_and_cleared_labels_are_gone() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    let line = format!("create tank mirror {}", disks.join(" "));
    bench.ok(&line);
    assert!(bench.fails(&format!("labelclear -f {}", disks[0])).contains("in use"));
    bench.ok("destroy tank");
    assert_eq!(bench.ok("list"), "no pools available\n");
    assert_eq!(bench.ok(&format!("import -d {}", bench.path(""))), "no pools available to import\n");
    bench.ok(&format!("create -f tank mirror {}", disks.join(" ")));
    bench.ok("export tank");
    bench.fails(&line);
    for disk in &disks {
        bench.ok(&format!("labelclear {disk}"));
    }
    bench.ok(&line);
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let bench = Bench::new();
    let disks = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", disks.join(" ")), 32 << 20);
    let mut child = bench
        .command("volume read tank/vol")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn completions_and_pages_are_generated() {
    let bench = Bench::new();
    assert!(bench.ok("completions bash").contains("labelclear"));
    let dir = bench.path("man");
    bench.ok(&format!("man {dir}"));
    for page in ["coffer.1", "coffer-status.1", "coffer-volume-create.1"] {
        let text = std::fs::read_to_string(format!("{dir}/{page}")).unwrap();
        assert!(text.contains(".TH") && text.contains("coffer"), "{page}");
    }
}
