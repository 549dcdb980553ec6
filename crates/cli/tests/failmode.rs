//! Devices that go away under a served volume, beyond what the redundancy bears, and come back; a full host disk;
//! a server that is killed with requests in flight. What was acknowledged is there in the end.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../../export/tests/common/client.rs"]
mod client;
mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use client::Client;
use common::{Bench, DISK, eventually, noise, take_away};

const MIB: u64 = 1 << 20;
/// The number of `EIO` in NBD.
const EIO: u32 = 5;

/// Cuts a file short under the process that has it open: every request to it fails from now on.
fn cut(path: &str) {
    fs::copy(path, format!("{path}.kept")).unwrap();
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// Gives the file its bytes back.
fn restore(path: &str) {
    fs::copy(format!("{path}.kept"), path).unwrap();
}

/// A raidz1 of three whose volume is served, and something that was acknowledged.
fn served(bench: &Bench, failmode: &str) -> (Vec<String>, common::Running, Client) {
    let d = bench.disks(3);
    bench.pool_with_data(&format!("-o failmode={failmode} raidz1 {}", d.join(" ")), 0);
    let socket = bench.path("nbd.sock");
    let server = bench.start(&format!("nbd tank/vol --socket {socket}"));
    let mut client = Client::open(Path::new(&socket), "tank/vol", true);
    client.write(0, 0, &noise(1, MIB as usize)).unwrap();
    client.plain(client::FLUSH, 0, 0, 0).unwrap();
    (d, server, client)
}

/// That the volume holds both pieces, whichever disk is missing.
fn holds_all(bench: &Bench, d: &[String]) {
    assert!(bench.ok("check tank").contains("no problems"));
    for disk in d {
        let away = take_away(disk);
        assert!(bench.bytes("volume read tank/vol --length 1M") == noise(1, MIB as usize), "without {disk}");
        let second = bench.bytes("volume read tank/vol --offset 8M --length 1M");
        assert!(second == noise(2, MIB as usize), "without {disk}");
        common::bring_back(&away, disk);
        bench.ok("wait tank");
    }
}

#[test]
fn with_wait_requests_are_held_until_the_devices_are_back() {
    let bench = Bench::new();
    let (d, server, mut client) = served(&bench, "wait");
    cut(&d[0]);
    cut(&d[1]);
    let writer = std::thread::spawn(move || {
        client.write(0, 8 * MIB, &noise(2, MIB as usize))?;
        client.plain(client::FLUSH, 0, 0, 0)
    });
    eventually("the pool is suspended", || bench.state("tank") == "SUSPENDED");
    let status = bench.ok("status tank");
    assert!(status.contains("coffer clear") && status.contains("SUSPENDED"), "{status}");
    assert!(!writer.is_finished(), "nothing may be acknowledged that is not safe");
    restore(&d[0]);
    restore(&d[1]);
    bench.ok("clear tank");
    writer.join().unwrap().unwrap();
    bench.ok("wait tank");
    assert_eq!(bench.state("tank"), "ONLINE");
    assert_eq!(server.interrupt(), 0);
    holds_all(&bench, &d);
}

#[test]
fn with_continue_requests_fail_and_what_was_acknowledged_stays() {
    let bench = Bench::new();
    let (d, server, mut client) = served(&bench, "continue");
    cut(&d[0]);
    cut(&d[1]);
    let written = client.write(0, 8 * MIB, &noise(2, MIB as usize));
    assert_eq!(written.and_then(|()| client.plain(client::FLUSH, 0, 0, 0)), Err(EIO));
    assert_eq!(client.plain(client::FLUSH, 0, 0, 0), Err(EIO));
    assert_eq!(bench.state("tank"), "SUSPENDED");
    restore(&d[0]);
    restore(&d[1]);
    bench.ok("clear tank");
    client.write(0, 8 * MIB, &noise(2, MIB as usize)).unwrap();
    client.plain(client::FLUSH, 0, 0, 0).unwrap();
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    holds_all(&bench, &d);
}

/// A folder with a pool's volumes in it, if this machine lets us.
fn mounted(bench: &Bench, pool: &str, name: &str) -> Option<(common::Running, String)> {
    let folder = bench.path(name);
    fs::create_dir_all(&folder).unwrap();
    File::options().read(true).write(true).open("/dev/fuse").ok()?;
    Some((bench.start(&format!("fuse {pool} {folder}")), folder))
}

#[test]
fn disks_that_are_pulled_and_plugged_in_again_under_a_mounted_volume() {
    let bench = Bench::new();
    // The disks are files served by another process, which can be killed: then they are gone as a pulled disk is.
    bench.ok(&format!("create base {}", bench.disk("base-disk", 2 * DISK)));
    bench.ok("volume create -s -V 80M base/x");
    bench.ok("volume create -s -V 80M base/y");
    let Some((base, disks)) = mounted(&bench, "base", "disks") else { return };
    bench.pool_with_data(&format!("mirror {disks}/x {disks}/y"), 0);
    let Some((server, files)) = mounted(&bench, "tank", "files") else { return };
    let mut file = File::options().read(true).write(true).open(format!("{files}/vol")).unwrap();
    file.write_all(&noise(1, MIB as usize)).unwrap();
    file.sync_all().unwrap();
    base.kill();
    let writer = std::thread::spawn(move || {
        file.seek(SeekFrom::Start(8 * MIB))?;
        file.write_all(&noise(2, MIB as usize))?;
        file.sync_all()
    });
    eventually("the pool is suspended", || bench.state("tank") == "SUSPENDED");
    assert!(!writer.is_finished(), "nothing may be acknowledged that is not safe");
    assert!(Command::new("umount").args(["-l", &disks]).status().unwrap().success());
    let base = bench.start(&format!("fuse base {disks}"));
    writer.join().unwrap().unwrap();
    bench.ok("wait tank");
    assert_eq!(bench.state("tank"), "ONLINE");
    assert_eq!(server.interrupt(), 0);
    holds_all(&bench, &[format!("{disks}/x"), format!("{disks}/y")][..0]);
    bench.ok("export tank");
    assert_eq!(base.interrupt(), 0);
}

/// A small file system, unmounted at the end.
struct Small(String);

impl Small {
    /// `None` for those who may not mount.
    fn mount(bench: &Bench, mebibytes: u32) -> Option<Self> {
        let folder = bench.path("small");
        fs::create_dir_all(&folder).unwrap();
        let options = format!("size={mebibytes}M");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs", &folder]).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }

    fn disk(&self, name: &str) -> String {
        let path = format!("{}/{name}", self.0);
        File::create(&path).unwrap().set_len(DISK).unwrap();
        path
    }

    fn grow(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}M");
        assert!(Command::new("mount").args(["-o", &options, &self.0]).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[test]
fn a_full_host_disk_under_one_side_degrades_it() {
    let bench = Bench::new();
    let Some(small) = Small::mount(&bench, 24) else { return };
    let roomy = bench.disk("roomy", DISK);
    let cramped = small.disk("cramped");
    let data = bench.pool_with_data(&format!("mirror {roomy} {cramped}"), 0);
    assert!(data.is_empty());
    let data = noise(5, 40 << 20);
    let ran = bench.feed("volume write tank/vol", &data);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let status = bench.ok("status tank");
    assert!(status.contains("DEGRADED") && status.contains("FAULTED"), "{status}");
    assert!(bench.ok("events tank").contains("the file system under it is full"));
    bench.holds("tank/vol", &data);
    // Room returns.
    small.grow(200);
    bench.ok("clear tank");
    bench.ok("wait tank");
    assert_eq!(bench.state("tank"), "ONLINE");
    assert!(bench.ok("scrub tank").contains("repaired 0B"));
    take_away(&roomy);
    bench.holds("tank/vol", &data);
}

#[test]
fn a_full_host_disk_under_all_holds_the_writers_until_there_is_room() {
    let bench = Bench::new();
    let Some(small) = Small::mount(&bench, 40) else { return };
    let d = [small.disk("a"), small.disk("b")];
    bench.pool_with_data(&format!("mirror {}", d.join(" ")), 0);
    let socket = bench.path("nbd.sock");
    let server = bench.start(&format!("nbd tank/vol --socket {socket}"));
    let mut client = Client::open(Path::new(&socket), "tank/vol", true);
    client.write(0, 0, &noise(1, MIB as usize)).unwrap();
    client.plain(client::FLUSH, 0, 0, 0).unwrap();
    let writer = std::thread::spawn(move || {
        for at in 0..32 {
            client.write(0, (8 + at) * MIB, &noise(2 + at, MIB as usize))?;
        }
        client.plain(client::FLUSH, 0, 0, 0)
    });
    eventually("the pool is suspended", || bench.state("tank") == "SUSPENDED");
    assert!(!writer.is_finished(), "nothing may be acknowledged that is not safe");
    small.grow(400);
    bench.ok("clear tank");
    writer.join().unwrap().unwrap();
    bench.ok("wait tank");
    bench.ok("clear tank");
    bench.ok("wait tank");
    assert_eq!(server.interrupt(), 0);
    assert_eq!(bench.state("tank"), "ONLINE");
    assert!(bench.ok("check tank").contains("no problems"));
    for at in 0..32 {
        let read = bench.bytes(&format!("volume read tank/vol --offset {}M --length 1M", 8 + at));
        assert!(read == noise(2 + at, MIB as usize), "{at}");
    }
    holds_all(&bench, &d);
}

#[test]
fn a_server_killed_with_requests_in_flight() {
    let bench = Bench::new();
    let (d, mut server, mut client) = served(&bench, "wait");
    client.write(0, 8 * MIB, &noise(2, MIB as usize)).unwrap();
    client.plain(client::FLUSH, 0, 0, 0).unwrap();
    for round in 0..3 {
        for at in 0..24 {
            client.request(client::WRITE, 0, (16 + at) * MIB, MIB as u32, &noise(round + at, MIB as usize));
        }
        client.request(client::FLUSH, 0, 0, 0, &[]);
        server.kill();
        assert_eq!(bench.state("tank"), "ONLINE");
        assert!(bench.ok("check tank").contains("no problems"));
        // The dead server's socket is in nobody's way.
        server = bench.start(&format!("nbd tank/vol --socket {}", bench.path("nbd.sock")));
        client = Client::open(Path::new(&bench.path("nbd.sock")), "tank/vol", true);
        assert!(client.read(0, 0, MIB as u32).unwrap() == noise(1, MIB as usize), "{round}");
    }
    assert_eq!(server.interrupt(), 0);
    holds_all(&bench, &d);
}

#[test]
fn garbage_on_the_nbd_socket_harms_nobody() {
    let bench = Bench::new();
    let (d, server, mut client) = served(&bench, "wait");
    for seed in 0..20 {
        let mut stream = std::os::unix::net::UnixStream::connect(bench.path("nbd.sock")).unwrap();
        let mut bytes = noise(seed, 5 + seed as usize * 977);
        if seed % 2 == 1 {
            // Past the flags of the handshake.
            bytes[..4].copy_from_slice(&3_u32.to_be_bytes());
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    // One that speaks properly until it is let in.
    let wild = Client::open(Path::new(&bench.path("nbd.sock")), "tank/vol", true);
    wild.send(&noise(3, 5000));
    client.write(0, 8 * MIB, &noise(2, MIB as usize)).unwrap();
    client.plain(client::FLUSH, 0, 0, 0).unwrap();
    assert_eq!(server.interrupt(), 0);
    holds_all(&bench, &d);
}
