//! RAID sets as other programs see them: real file systems through FUSE, real clients over NBD.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::Command;

use common::sets::{all, file, new_unit, states};
use common::{Bench, Ran, noise};

fn sh(script: &str) -> Ran {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn must(script: &str) -> String {
    let ran = sh(script);
    assert_eq!(ran.code, 0, "{script}\n{}{}", ran.out, ran.err);
    ran.out
}

/// ext4 and xfs with a file on sets of every level, whole, degraded, rebuilt under load; checked by their own tools.
#[test]
fn file_systems_on_every_level() {
    if sh("test -w /dev/fuse && command -v mkfs.ext4 debugfs e2fsck mkfs.xfs xfs_repair xfs_db").code != 0 {
        eprintln!("SKIPPED: file systems on RAID sets need /dev/fuse, e2fsprogs and xfsprogs");
        return;
    }
    for (level, columns) in [('0', 2), ('1', 2), ('1', 4), ('4', 4), ('5', 4), ('6', 5), ('N', 3)] {
        let bench = Bench::new();
        let size = if level == '5' { 128 << 20 } else { 12 << 20 };
        let d: Vec<String> = (0..columns).map(|i| bench.disk(&format!("d{i}"), size)).collect();
        let conf = file(&bench, "raid0.conf", &all(&d), &[], level);
        bench.ok(&format!("raid -C {conf} raid0"));
        bench.ok("raid -I 1 raid0");
        bench.ok("raid -i raid0");
        for name in ["mnt", "src"] {
            fs::create_dir(bench.path(name)).unwrap();
        }
        let (mnt, src) = (bench.path("mnt"), bench.path("src"));
        fs::write(format!("{src}/file"), noise(20, 2 << 20)).unwrap();
        let server = bench.start(&format!("raid fuse raid0 {mnt}"));
        must(&format!("mkfs.ext4 -q -F -d {src} {mnt}/raid0"));
        let check = || {
            must(&format!("e2fsck -fn {mnt}/raid0"));
            must(&format!("debugfs -R 'dump /file {src}/back' {mnt}/raid0; cmp {src}/file {src}/back"));
        };
        check();
        if level != '0' {
            bench.ok(&format!("raid -f {} raid0", d[1]));
            check();
            // Written while it is rebuilt.
            bench.ok(&format!("raid -R {} raid0", d[1]));
            must(&format!("mkfs.ext4 -q -F -d {src} {mnt}/raid0"));
            bench.ok("raid -S raid0");
            check();
        }
        if level == '5' {
            let image = format!("{mnt}/raid0");
            must(&format!("printf '/\\n0 0\\nd--755 0 0\\nfile ---644 0 0 {src}/file\\n$\\n' > {src}/proto"));
            must(&format!("mkfs.xfs -q -f -p {src}/proto {image}; xfs_repair -n -f {image}"));
            bench.ok(&format!("raid -f {} raid0", d[2]));
            must(&format!("xfs_repair -n -f {image}"));
        }
        assert_eq!(server.interrupt(), 0);
        if level != '0' && level != '5' {
            assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"), "level {level}");
        }
    }
}

/// Over NBD, with other people's clients, while a component is rebuilt.
#[test]
fn sets_are_served_over_nbd() {
    if sh("command -v nbdcopy nbdinfo qemu-io").code != 0 {
        eprintln!("SKIPPED: RAID sets over NBD need nbdcopy, nbdinfo and qemu-io");
        return;
    }
    let bench = Bench::new();
    let d = new_unit(&bench, "raid0", 0, 4, '5');
    let (socket, image, back) = (bench.path("sock"), bench.path("image"), bench.path("back"));
    let server = bench.start(&format!("raid nbd raid0 --socket {socket}"));
    let uri = format!("nbd+unix:///raid0?socket={socket}");
    let size: u64 = must(&format!("nbdinfo --size '{uri}'")).trim().parse().unwrap();
    fs::write(&image, noise(30, size as usize)).unwrap();
    bench.ok(&format!("raid -f {} raid0", d[3]));
    must(&format!("nbdcopy --flush {image} '{uri}'"));
    bench.ok(&format!("raid -R {} raid0", d[3]));
    must(&format!("qemu-io -f raw -c 'write -P 7 12345 70000' -c flush -c 'read -P 7 12345 70000' '{uri}'"));
    bench.ok("raid -S raid0");
    must(&format!("nbdcopy '{uri}' {back}"));
    assert_eq!(server.interrupt(), 0);
    let (mut expected, found) = (fs::read(&image).unwrap(), fs::read(&back).unwrap());
    expected[12_345..82_345].fill(7);
    assert!(expected == found);
    assert!(bench.ok("raid scrub raid0").contains("0 stripes did not match"));
    assert_eq!(states(&bench, "raid0"), "d0: optimal, d1: optimal, d2: optimal, d3: optimal");
}
