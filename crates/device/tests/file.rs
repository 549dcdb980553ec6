//! Files and block devices: locks and who holds them, links and loops, files that change underneath.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::Loop;
use device::{Access, BlockDevice, DeviceErrorKind, FileDevice, Lock, Operation, identity};

const CHILD: &str = "COFFERDAM_TEST_HOLD";

/// Not a test of its own: what the child process of the lock tests does. It holds the file until its input ends.
#[test]
fn child_that_holds_a_file() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let device = FileDevice::open(path, Access::ReadWrite);
    println!("\nopened: {}", device.is_ok());
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn hold(path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_a_file", "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "opened: true"));
    child
}

fn release(mut child: Child) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
}

fn check_busy(path: &Path) {
    let child = hold(path);
    for (access, lock) in [
        (Access::ReadWrite, Lock::Exclusive),
        (Access::ReadOnly, Lock::Exclusive),
        (Access::ReadOnly, Lock::Shared),
    ] {
        let error = FileDevice::open_with(path, access, lock).unwrap_err();
        assert_eq!(error.kind, DeviceErrorKind::Busy { holder: Some(child.id()) }, "{error}");
        assert_eq!(error.operation, Operation::Open);
    }
    FileDevice::open_with(path, Access::ReadOnly, Lock::None).unwrap();
    release(child);
    FileDevice::open(path, Access::ReadWrite).unwrap();
}

#[test]
fn a_file_in_use_names_its_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    drop(FileDevice::create(&path, 4096).unwrap());
    check_busy(&path);
    let shared = FileDevice::open(&path, Access::ReadOnly).unwrap();
    let _second = FileDevice::open(&path, Access::ReadOnly).unwrap();
    assert!(FileDevice::open(&path, Access::ReadWrite).is_err());
    drop(shared);
}

#[test]
fn a_block_device_in_use_names_its_holder_and_has_the_identity_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let Some(disk) = Loop::over(&path) else { return };
    check_busy(Path::new(&disk.path));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&disk.path, &link).unwrap();
    assert_eq!(identity(&link).unwrap(), identity(&path).unwrap());
    let device = FileDevice::open(&link, Access::ReadWrite).unwrap();
    assert_eq!(device.identity(), Some(identity(&path).unwrap()));
    assert_eq!(device.size().unwrap(), 1 << 20);
    assert!(device.raw_alignment() >= 4, "a loop device takes direct I/O");
}

#[test]
fn a_mounted_block_device_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    if !Command::new("mkfs.ext4")
        .args(["-q", "-F", "-O", "^has_journal"])
        .arg(&path)
        .status()
        .is_ok_and(|s| s.success())
    {
        println!("skipped: no mkfs.ext4");
        return;
    }
    let Some(disk) = Loop::over(&path) else { return };
    let place = folder.path().join("mnt");
    std::fs::create_dir(&place).unwrap();
    if !Command::new("mount").arg(&disk.path).arg(&place).status().is_ok_and(|s| s.success()) {
        println!("skipped: cannot mount");
        return;
    }
    let result = FileDevice::open(&disk.path, Access::ReadWrite);
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    let error = result.unwrap_err();
    let place = place.to_string_lossy();
    assert!(matches!(&error.kind, DeviceErrorKind::Unopenable(why) if why.contains(&*place)), "{error}");
    FileDevice::open(&disk.path, Access::ReadWrite).unwrap();
}

#[test]
fn a_file_cut_short_gives_errors_and_neither_zeros_nor_growth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let device = FileDevice::create(&path, 1 << 20).unwrap();
    device.write(0, &vec![7; 1 << 20]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    let out_of_range = DeviceErrorKind::OutOfRange { size: 100_000 };
    let mut buffer = vec![0; 4096];
    assert_eq!(device.read(99_000, &mut buffer).unwrap_err().kind, out_of_range);
    assert_eq!(device.read(500_000, &mut buffer).unwrap_err().kind, out_of_range);
    assert_eq!(device.write(500_000, &buffer).unwrap_err().kind, out_of_range);
    assert_eq!(device.size().unwrap(), 100_000);
    device.read(0, &mut buffer).unwrap();
    device.set_size(200_000).unwrap();
    assert_eq!(device.size().unwrap(), 200_000);
}

#[test]
fn what_was_opened_for_reading_is_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [9; 5000]).unwrap();
    let device = FileDevice::open(&path, Access::ReadOnly).unwrap();
    assert_eq!(device.write(0, &[1]).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert_eq!(device.discard(0, 4096).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    assert_eq!(device.set_size(1).unwrap_err().kind, DeviceErrorKind::ReadOnly);
    device.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [9; 5000]);
}

#[test]
fn discarding_gives_the_space_back() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let device = FileDevice::create(&path, 1 << 20).unwrap();
    device.write(0, &vec![7; 1 << 20]).unwrap();
    device.flush().unwrap();
    let before = path.metadata().unwrap().blocks();
    match device.discard(0, 1 << 20) {
        Ok(()) => assert!(path.metadata().unwrap().blocks() < before),
        Err(error) => println!("skipped: {error}"),
    }
    assert_eq!(device.size().unwrap(), 1 << 20);
}

#[test]
fn a_full_file_system_says_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(folder.path()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: cannot mount a small tmpfs");
        return;
    }
    let device = FileDevice::create(folder.path().join("disk"), 1 << 20);
    let outcome = device.map(|device| device.write(0, &vec![7; 1 << 20]));
    assert!(Command::new("umount").arg(folder.path()).status().unwrap().success());
    assert_eq!(outcome.unwrap().unwrap_err().kind, DeviceErrorKind::NoSpace);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "x").unwrap();
    let outcomes = [
        FileDevice::open(folder.path(), Access::ReadOnly),
        FileDevice::open(folder.path().join("missing"), Access::ReadWrite),
        FileDevice::open("/dev/null", Access::ReadWrite),
        FileDevice::create(&taken, 10),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error.kind, DeviceErrorKind::Unopenable(_)), "{error}");
    }
    assert_eq!(std::fs::read(&taken).unwrap(), b"x");
}
