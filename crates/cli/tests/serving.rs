//! A process that holds a pool, and commands that reach it.
#![allow(clippy::unwrap_used, dead_code)]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use common::{Bench, DISK, bring_back, digest, eventually, noise, take_away};

/// The control socket of the only pool.
fn control_socket(bench: &Bench) -> String {
    let guid = bench.run("list --json").data()["pools"][0]["guid"].as_u64().expect("a number");
    bench.path(&format!("state/{guid}.sock"))
}

#[test]
fn commands_reach_the_holder() {
    let bench = Bench::new();
    let d = bench.disks(5);
    let data = bench.pool_with_data(&format!("raidz1 {}", d[..3].join(" ")), 8 << 20);
    let server = bench.start("serve");
    // Everything works as without a server, through it: the devices are locked by it.
    assert_eq!(bench.state("tank"), "ONLINE");
    bench.holds("tank/vol", &data);
    bench.ok("snapshot tank/vol@one");
    let more = noise(8, 8 << 20);
    assert_eq!(bench.feed("volume write tank/vol", &more).code, 0);
    bench.holds("tank/vol@one", &data);
    bench.ok("scrub -w tank");
    bench.ok(&format!("add tank spare {}", d[3]));
    bench.ok(&format!("replace -w tank {} {}", d[0], d[4]));
    bench.ok("wait tank");
    assert!(bench.ok("status tank").contains(&d[4]));
    bench.fails("serve tank");
    assert_eq!(server.interrupt(), 0);
    // And what was done has stayed.
    bench.holds("tank/vol", &more);
    let status = bench.ok("status tank");
    assert!(status.contains(&d[4]) && status.contains("AVAIL"), "{status}");
    assert!(bench.ok("history tank").contains("coffer replace -w tank"));
}

#[test]
fn a_pool_that_is_held_is_refused_elsewhere_with_the_holder() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let server = bench.start("serve tank");
    let output = bench
        .command(&format!("import -f -d {} tank", bench.path("")))
        .env("COFFER_STATE_DIR", bench.path("other"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&server.pid().to_string()), "{said}");
    drop(server);
}

#[test]
fn export_and_destroy_through_the_holder_end_it() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let server = bench.start("serve tank");
    bench.ok("export tank");
    assert_eq!(server.wait(), 0);
    bench.ok("import tank");
    let server = bench.start("serve tank");
    bench.ok("destroy tank");
    assert_eq!(server.wait(), 0);
    assert_eq!(bench.ok("list"), "no pools available\n");
}

#[test]
fn a_killed_holder_leaves_nothing_in_the_way() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 2 << 20);
    for round in 0..3 {
        let server = bench.start("serve tank");
        let socket = control_socket(&bench);
        let more = noise(round, 1 << 20);
        assert_eq!(bench.feed("volume write tank/vol --offset 8M", &more).code, 0);
        server.kill();
        // The socket is still there, and nobody behind it.
        assert!(std::fs::metadata(&socket).is_ok());
        assert_eq!(bench.state("tank"), "ONLINE");
        bench.holds("tank/vol", &data);
        assert!(bench.bytes("volume read tank/vol --offset 8M --length 1M") == more);
        assert!(bench.ok("check tank").contains("no problems"));
    }
}

#[test]
fn garbage_on_the_control_socket_harms_nobody() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let _server = bench.start("serve tank");
    let socket = control_socket(&bench);
    for seed in 0..20 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(&noise(seed, 1 + seed as usize * 977));
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    bench.holds("tank/vol", &data);
}

#[test]
fn devices_come_back_by_themselves() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 2 << 20);
    let away = take_away(&d[0]);
    let server = bench.start("serve tank");
    assert_eq!(bench.state("tank"), "DEGRADED");
    let more = noise(4, 4 << 20);
    assert_eq!(bench.feed("volume write tank/vol --offset 8M", &more).code, 0);
    bring_back(&away, &d[0]);
    eventually("the device is taken back", || bench.state("tank") == "ONLINE");
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    take_away(&d[1]);
    bench.holds("tank/vol", &data);
    assert!(bench.bytes("volume read tank/vol --offset 8M --length 4M") == more);
}

#[test]
fn a_spare_steps_in_while_a_server_runs() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let spare = bench.disk("spare", DISK);
    let data = bench.pool_with_data(&format!("raidz1 {} spare {spare}", d.join(" ")), 2 << 20);
    take_away(&d[2]);
    let _server = bench.start("serve tank");
    eventually("the spare is in use", || bench.ok("status tank").contains("INUSE"));
    bench.ok("wait tank");
    bench.holds("tank/vol", &data);
}

#[test]
fn interrupted_jobs_go_on() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 32 << 20);
    let new = bench.disk("new", DISK);
    let mut child = bench.command(&format!("replace tank {} {new}", d[0])).spawn().unwrap();
    // Its control socket is there once the device is in the pool and the work begins.
    let holds = || {
        let state = std::fs::read_dir(bench.path("state")).unwrap();
        state.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "sock"))
    };
    eventually("the work begins", || holds() || child.try_wait().unwrap().is_some());
    let _ = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    child.wait().unwrap();
    bench.ok("wait tank");
    let status = bench.ok("status tank");
    assert!(status.contains(&new) && status.contains("resilvered"), "{status}");
    bench.holds("tank/vol", &data);
}

#[test]
fn nbd_exports_come_and_go() {
    let bench = Bench::new();
    let d = bench.disks(3);
    let data = bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 2 << 20);
    bench.ok("volume create -s -V 8M tank/other");
    let socket = bench.path("nbd.sock");
    let server = bench.start(&format!("nbd tank/vol tank/other --socket {socket}"));
    // A second server on the held pool serves through the first.
    let second_socket = bench.path("second.sock");
    let second = bench.start(&format!("nbd tank/other --socket {second_socket}"));
    assert!(bench.fails("export tank").contains("busy"));
    assert!(bench.fails("destroy tank/other").contains("busy"));
    let have = |tool: &str| std::process::Command::new(tool).arg("--version").output().is_ok();
    if have("nbdinfo") && have("nbdcopy") {
        let uri = format!("nbd+unix:///tank/vol?socket={socket}");
        let info = std::process::Command::new("nbdinfo").args(["--size", &uri]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&info.stdout).trim(), (64 << 20).to_string());
        let list = std::process::Command::new("nbdinfo")
            .args(["--list", &format!("nbd+unix://?socket={socket}")])
            .output()
            .unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        assert!(list.contains("tank/vol") && list.contains("tank/other"), "{list}");
        let copy = bench.path("copy");
        assert!(std::process::Command::new("nbdcopy").args([&uri, &copy]).status().unwrap().success());
        assert!(std::fs::read(&copy).unwrap()[..data.len()] == data);
        let second_uri = format!("nbd+unix:///tank/other?socket={second_socket}");
        let input = bench.disk("input", 8 << 20);
        std::fs::write(&input, noise(5, 8 << 20)).unwrap();
        assert!(
            std::process::Command::new("nbdcopy")
                .args(["--flush", &input, &second_uri])
                .status()
                .unwrap()
                .success()
        );
        let output = bench.path("output");
        bench.ok(&format!("volume read tank/other --to {output}"));
        assert_eq!(digest(&input), digest(&output));
    }
    assert_eq!(second.interrupt(), 0);
    eventually("the second export is gone", || UnixStream::connect(&second_socket).is_err());
    assert_eq!(server.interrupt(), 0);
    bench.ok("destroy tank/other");
    bench.holds("tank/vol", &data);
}

#[test]
fn volumes_are_files_in_a_folder() {
    let bench = Bench::new();
    let d = bench.disks(2);
    let data = bench.pool_with_data(&format!("mirror {}", d.join(" ")), 2 << 20);
    let folder = bench.path("files");
    std::fs::create_dir(&folder).unwrap();
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return; // No FUSE on this machine, or not for us.
    }
    let server = bench.start(&format!("fuse tank {folder}"));
    let file = format!("{folder}/vol");
    assert!(std::fs::read(&file).unwrap()[..data.len()] == data);
    bench.ok("snapshot tank/vol@one");
    let more = noise(3, 1 << 20);
    common::damage(&file, 4 << 20, &more);
    assert!(
        std::fs::read(format!("{folder}/vol@one")).unwrap()[4 << 20..5 << 20].iter().all(|&byte| byte == 0)
    );
    assert!(bench.fails("export tank").contains("busy"));
    assert_eq!(server.interrupt(), 0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(bench.bytes("volume read tank/vol --offset 4M --length 1M") == more);
}

/// What looks at a new device asks about the files behind loop devices. One of them is served by the very process that asks,
/// with the pool locked: it would wait for itself. As root only.
#[test]
fn devices_are_added_while_a_volume_is_behind_a_loop_device() {
    let sh = |script: String| std::process::Command::new("sh").args(["-ec", &script]).output().unwrap();
    let able = "test $(id -u) = 0 && test -w /dev/fuse && losetup -f && command -v mkfs.ext4";
    if !sh(able.to_owned()).status.success() {
        eprintln!("SKIPPED: a volume behind a loop device needs root, /dev/fuse, loop devices and mkfs.ext4");
        return;
    }
    let bench = Bench::new();
    let d = bench.disks(4);
    bench.pool_with_data(&format!("mirror {} {}", d[0], d[1]), 1 << 20);
    let (folder, inside) = (bench.path("files"), bench.path("inside"));
    for folder in [&folder, &inside] {
        std::fs::create_dir(folder).unwrap();
    }
    let server = bench.start(&format!("fuse tank {folder}"));
    let set = sh(format!(
        "mkfs.ext4 -q -F -E nodiscard {folder}/vol; loop=$(losetup -f --show {folder}/vol); mount $loop {inside}; echo $loop"
    ));
    let loop_device = String::from_utf8_lossy(&set.stdout).trim().to_owned();
    let connection = rustix::fs::minor(std::fs::metadata(&folder).unwrap().dev());
    // What the kernel remembers of the file gets old, and is asked for again.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let mut outcomes = Vec::new();
    let lines = [
        format!("replace tank {} {}", d[1], d[2]),
        format!("add -f tank {}", d[3]),
        "status tank".to_owned(),
    ];
    for line in lines {
        let mut child = bench.command(&line).stdout(std::process::Stdio::null()).spawn().unwrap();
        let ended = (0..600).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            child.try_wait().unwrap()
        });
        if ended.is_none() {
            child.kill().unwrap();
        }
        outcomes.push((line, ended));
    }
    let hangs = outcomes.iter().any(|(_, ended)| ended.is_none());
    let mut server = Some(server);
    if hangs {
        // Killing it is not enough: it waits in the kernel, for itself.
        let control = "/sys/fs/fuse/connections";
        sh(format!(
            "test -e {control}/{connection} || mount -t fusectl none {control}; echo 1 > {control}/{connection}/abort"
        ));
        drop(server.take());
    }
    let ended = sh(format!("umount {} {inside}; losetup -d {loop_device}", if hangs { "-l" } else { "" }));
    for (line, ended) in outcomes {
        assert!(ended.is_some_and(|status| status.success()), "coffer {line}: {ended:?}");
    }
    assert!(set.status.success() && ended.status.success(), "{set:?} {ended:?}");
    bench.ok("wait tank");
    assert!(bench.ok("status tank").contains(&d[2]));
    // The loop device lets go of the file a moment after it is told to.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.map(common::Running::interrupt), Some(0));
}

/// Another process holds the pool; the folder is unmounted as any other is.
#[test]
fn a_folder_that_is_unmounted_ends_its_command() {
    let bench = Bench::new();
    bench.pool_with_data(&bench.disk("d", DISK), 1 << 20);
    let folder = bench.path("files of tank");
    let link = bench.path("files");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&folder, &link).unwrap();
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("SKIPPED: no FUSE on this machine, or not for us");
        return;
    }
    let holder = bench.start("serve tank");
    let files = bench.start(&format!("fuse tank {link}"));
    assert!(std::fs::exists(format!("{folder}/vol")).unwrap());
    assert!(std::process::Command::new("fusermount3").args(["-u", &folder]).status().unwrap().success());
    assert_eq!(files.wait(), 0);
    eventually("the pool is let go", || bench.run("export tank").code == 0);
    assert_eq!(holder.wait(), 0);
}

#[test]
fn an_export_ends_with_its_holder() {
    let bench = Bench::new();
    let d = bench.disks(2);
    bench.pool_with_data(&format!("mirror {}", d.join(" ")), 1 << 20);
    let holder = bench.start("serve tank");
    let export = bench.start(&format!("nbd tank/vol --socket {}", bench.path("nbd.sock")));
    assert_eq!(holder.interrupt(), 0);
    assert_eq!(export.wait(), 1);
}

/// A process was killed when it had cleared some of the labels of a pool to be destroyed.
#[test]
fn a_destruction_that_was_begun_is_ended() {
    let bench = Bench::new();
    let d = bench.disks(4);
    bench.pool_with_data(&format!("raidz1 {}", d.join(" ")), 1 << 20);
    let guid = bench.run("list --json").data()["pools"][0]["guid"].as_u64().unwrap();
    let record = bench.path(&format!("state/{guid}.json"));
    let noted = std::fs::read_to_string(&record).unwrap().replacen('{', "{\"destroyed\": true,", 1);
    for disk in &d[..2] {
        common::damage(disk, 0, &vec![0; 512 << 10]);
        common::damage(disk, DISK - (512 << 10), &vec![0; 512 << 10]);
    }
    assert!(bench.fails("list tank").contains("tank"));
    std::fs::write(&record, noted).unwrap();
    assert_eq!(bench.ok("list"), "no pools available\n");
    assert!(!std::fs::exists(&record).unwrap());
    assert!(bench.ok(&format!("import -d {}", bench.path(""))).contains("no pools available"));
    bench.ok(&format!("create tank raidz1 {}", d.join(" ")));
}
