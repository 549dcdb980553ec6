//! The NBD server and other people's clients: libnbd's tools, QEMU's, and fio.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Server, attempt, have, noise, run, skip};
use export::testing::MemoryTarget;
use export::{ExportTable, Target};

const MIB: u64 = 1 << 20;

/// A volume with data, holes and an odd end.
fn sparse(size: u64) -> (Arc<MemoryTarget>, Vec<u8>) {
    let volume = MemoryTarget::new(size);
    let mut expected = vec![0; size as usize];
    for (seed, (at, length)) in
        [(0, 100_000), (5 * MIB + 17, 3_000_001), (size - 777, 777)].into_iter().enumerate()
    {
        let data = noise(seed as u64, length);
        volume.write(at, &data).unwrap();
        expected[at as usize..][..length].copy_from_slice(&data);
    }
    (Arc::new(volume), expected)
}

fn contents(volume: &MemoryTarget) -> Vec<u8> {
    let mut bytes = vec![0; volume.size() as usize];
    volume.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn nbdinfo() {
    if !have("nbdinfo") {
        return;
    }
    let exports = ExportTable::new();
    exports.insert("tank/vol", Arc::new(MemoryTarget::new(16 * MIB)));
    exports.insert("tank/vol@monday", Arc::new(MemoryTarget::new(8 * MIB).into_read_only()));
    let server = Server::start(Arc::new(exports));
    let list = run("nbdinfo", &["--json", "--list", &server.uri("")]);
    for expected in
        ["\"export-name\": \"tank/vol\"", "\"export-name\": \"tank/vol@monday\"", "base:allocation"]
    {
        assert!(list.contains(expected), "{expected} is missing in {list}");
    }
    let one = run("nbdinfo", &["--json", &server.uri("tank/vol")]);
    for expected in [
        "\"export-size\": 16777216",
        "\"structured\": true",
        "\"is_read_only\": false",
        "\"can_multi_conn\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"can_fast_zero\": true",
        "\"can_fua\": true",
        "\"can_df\": true",
        "\"can_cache\": true",
        "\"block_size_preferred\": 4096",
        "\"block_size_maximum\": 33554432",
    ] {
        assert!(one.contains(expected), "{expected} is missing in {one}");
    }
    assert!(attempt("nbdinfo", &["--is", "read-only", &server.uri("tank/vol%40monday")]).status.success());
    assert!(!attempt("nbdinfo", &[&server.uri("nothing")]).status.success());
    let map = run("nbdinfo", &["--map", &server.uri("tank/vol")]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "16777216", "3", "hole,zero"]);
}

#[test]
fn nbdcopy_out_and_in() {
    if !have("nbdcopy") {
        return;
    }
    let (volume, expected) = sparse(40 * MIB + 1536);
    let server = Server::with("vol", volume.clone());
    let out = server.file("out.img");
    run("nbdcopy", &[&server.uri("vol"), &out]);
    assert!(fs::read(&out).unwrap() == expected);

    let target = Arc::new(MemoryTarget::new(volume.size()));
    // Where data is overwritten by zeros, zeros must come back.
    target.write(MIB, &noise(7, 9 << 20)).unwrap();
    let other = Server::with("", target.clone());
    run("nbdcopy", &["--flush", &out, &other.uri("")]);
    assert!(contents(&target) == expected);
    assert!(target.flushes() > 0);
    assert!(target.allocated() < 10 * MIB, "holes stayed holes");

    let third = Arc::new(MemoryTarget::new(volume.size()));
    let last = Server::with("x", third.clone());
    run("nbdcopy", &["--connections=4", "--requests=32", &server.uri("vol"), &last.uri("x")]);
    assert!(contents(&third) == expected);
}

#[test]
fn qemu_img() {
    if !have("qemu-img") {
        return;
    }
    let (volume, expected) = sparse(24 * MIB);
    let server = Server::with("vol", volume.clone());
    let out = server.file("out.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &server.uri("vol"), &out]);
    assert!(run("qemu-img", &["compare", "-F", "raw", &out, &server.uri("vol")]).contains("identical"));
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &server.uri("vol")]);
    assert!(map.contains("\"zero\": true") && map.contains("\"data\": true"), "{map}");

    let target = Arc::new(MemoryTarget::new(volume.size()));
    target.write(0, &noise(8, 20 << 20)).unwrap();
    let other = Server::with("vol", target.clone());
    run("qemu-img", &["convert", "-n", "-O", "raw", &out, &other.uri("vol")]);
    assert!(contents(&target) == expected);
    assert!(
        attempt("qemu-img", &["compare", "-f", "raw", "-F", "raw", &server.uri("vol"), &other.uri("vol")])
            .status
            .success()
    );
    target.write(20 * MIB, b"different").unwrap();
    assert!(
        !attempt("qemu-img", &["compare", "-f", "raw", "-F", "raw", &server.uri("vol"), &other.uri("vol")])
            .status
            .success()
    );

    for write in [&[][..], &["-w", "--flush-interval=64", "--pattern=7"]] {
        for size in [["-c", "2000", "-s", "4096"], ["-c", "50", "-s", "262144"]] {
            run(
                "qemu-img",
                &[&["bench", "-f", "raw", "-d", "32"], write, &size, &[&other.uri("vol")]].concat(),
            );
        }
    }
    assert!(contents(&target)[..2000 * 4096].iter().all(|byte| *byte == 7));
}

#[test]
fn qemu_io() {
    if !have("qemu-io") {
        return;
    }
    let volume = Arc::new(MemoryTarget::new(16 * MIB));
    let server = Server::with("vol", volume.clone());
    let script = [
        "write -P 17 64k 1M",
        "write -f -P 18 3M 4k",
        "write -z 128k 64k",
        "write -z -u 256k 64k",
        "discard 3M 64k",
        "flush",
        "read -P 17 64k 64k",
        "read -P 0 128k 64k",
        "read -P 0 256k 64k",
        "read -P 17 320k 64k",
        "read -P 0 3M 64k",
        "read -P 0 15M 1M",
    ];
    let mut arguments = vec!["-f", "raw"];
    arguments.extend(script.iter().flat_map(|line| ["-c", *line]));
    let uri = server.uri("vol");
    arguments.push(&uri);
    let said = run("qemu-io", &arguments);
    assert!(!said.contains("failed"), "{said}");
    assert!(volume.flushes() >= 2, "flush and FUA");
    let snapshot = Server::with("vol", Arc::new(MemoryTarget::new(MIB).into_read_only()));
    assert!(!attempt("qemu-io", &["-f", "raw", "-c", "write 0 4k", &snapshot.uri("vol")]).status.success());
    run("qemu-io", &["-r", "-f", "raw", "-c", "read -P 0 0 4k", &snapshot.uri("vol")]);
}

#[test]
fn fio_verifies() {
    if !have("fio") {
        return;
    }
    if !run("fio", &["--enghelp"]).contains("nbd") {
        return skip("this fio has no NBD engine");
    }
    let server = Server::with("vol", Arc::new(MemoryTarget::new(32 * MIB)));
    let uri = format!("--uri={}", server.uri("vol"));
    for (size, pattern, depth) in
        [("4k", "randwrite", "32"), ("1m", "write", "8"), ("512-200k", "randwrite", "16")]
    {
        let (size, pattern) = (format!("--bsrange={size}"), format!("--rw={pattern}"));
        let size =
            if size.contains("k-") || size.contains("512-") { size } else { size.replace("range", "") };
        let depth = format!("--iodepth={depth}");
        let common = [
            "--name=job",
            "--ioengine=nbd",
            "--size=32m",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--randrepeat=1",
            "--verify_state_save=0",
        ];
        let more = ["--fsync=100", "--blockalign=512", &size, &pattern, &depth, &uri];
        run("fio", &[&common[..], &more].concat());
    }
}

#[test]
fn killed_clients() {
    if !have("nbdcopy") {
        return;
    }
    let volume = Arc::new(MemoryTarget::new(256 * MIB));
    let server = Server::with("vol", volume);
    for round in 0..10 {
        let mut client = Command::new("nbdcopy")
            .args(["--connections=2", "--allocated", "/dev/zero", &server.uri("vol")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3 * round));
        client.kill().unwrap();
        client.wait().unwrap();
    }
    run("nbdinfo", &["--size", &server.uri("vol")]);
    server.stop();
}
