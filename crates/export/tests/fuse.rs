//! The file system as programs see it: attributes, reads and writes, holes, errors, and loop devices on it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use common::{Cleanup, attempt, have, noise, patiently, run, skip, text};
use export::testing::{MemoryTarget, PAGE};
use export::{ExportTable, FuseOptions, FuseSession, Run, ServeError, Target, TargetError};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Mounts, or says why the test can't run here.
fn mounted(exports: &Arc<ExportTable>, options: &FuseOptions) -> Option<(TempDir, FuseSession)> {
    let directory = tempfile::tempdir().unwrap();
    match export::mount(directory.path(), exports.clone(), options) {
        Ok(session) => Some((directory, session)),
        Err(error @ ServeError::Mount { .. }) => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn writable(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn number(error: &io::Error) -> Option<i32> {
    error.raw_os_error()
}

#[test]
fn volumes_are_files() {
    let exports = Arc::new(ExportTable::new());
    let volume = Arc::new(MemoryTarget::new(4 * MIB));
    exports.insert("vol", volume.clone());
    let snapshot = MemoryTarget::new(2 * MIB);
    snapshot.write(5, b"old").unwrap();
    exports.insert("vol@monday", Arc::new(snapshot.into_read_only()));
    exports.insert("tank/deep/disk", Arc::new(MemoryTarget::new(12345)));
    let Some((directory, mut session)) = mounted(&exports, &FuseOptions::default()) else { return };
    let root = directory.path();

    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["tank", "vol", "vol@monday"]);
    let deep = fs::metadata(root.join("tank/deep/disk")).unwrap();
    assert_eq!((deep.len(), deep.blocks()), (12345, 0));
    assert!(fs::metadata(root.join("tank/deep")).unwrap().is_dir());
    assert_eq!(fs::metadata(root.join("nothing")).unwrap_err().kind(), io::ErrorKind::NotFound);
    // The end of an odd size, and nothing behind it.
    assert_eq!(fs::read(root.join("tank/deep/disk")).unwrap(), vec![0; 12345]);

    let found = fs::metadata(root.join("vol@monday")).unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o7777), (2 * MIB, 0o400));
    let old = File::open(root.join("vol@monday")).unwrap();
    let mut bytes = [0; 3];
    old.read_exact_at(&mut bytes, 5).unwrap();
    assert_eq!(&bytes, b"old");
    assert!(OpenOptions::new().write(true).open(root.join("vol@monday")).is_err());

    let path = root.join("vol");
    let file = writable(&path);
    let found = file.metadata().unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o7777), (4 * MIB, 0o600));
    let data = noise(1, 300_001);
    file.write_all_at(&data, 70_003).unwrap();
    let mut back = vec![0; data.len()];
    volume.read(70_003, &mut back).unwrap();
    assert!(back == data, "written through at once");
    file.read_exact_at(&mut back, 70_003).unwrap();
    assert!(back == data);
    let flushes = volume.flushes();
    file.sync_all().unwrap();
    assert_eq!(volume.flushes(), flushes + 1);

    // A volume does not grow, and is not cut.
    assert_eq!(number(&file.write_at(b"x", 4 * MIB).unwrap_err()), Some(libc::EFBIG));
    assert_eq!(number(&file.write_at(b"x", 1 << 40).unwrap_err()), Some(libc::EFBIG));
    assert_eq!(number(&file.set_len(0).unwrap_err()), Some(libc::EPERM));
    file.set_len(4 * MIB).unwrap();
    assert_eq!(number(&File::create(&path).unwrap_err()), Some(libc::EPERM));
    assert_eq!(number(&fs::remove_file(&path).unwrap_err()), Some(libc::EPERM));
    assert_eq!(number(&fs::rename(&path, root.join("other")).unwrap_err()), Some(libc::EPERM));
    assert_eq!(number(&File::create(root.join("new")).unwrap_err()), Some(libc::EPERM));
    assert_eq!(number(&fs::create_dir(root.join("new")).unwrap_err()), Some(libc::EPERM));

    // Exports come and go; what is open stays.
    exports.insert("late", Arc::new(MemoryTarget::new(MIB)));
    assert_eq!(fs::metadata(root.join("late")).unwrap().len(), MIB);
    exports.remove("vol");
    file.read_exact_at(&mut back, 70_003).unwrap();

    // In use: refused, and everything goes on.
    let refusal = session.stop().unwrap_err();
    assert!(matches!(refusal, ServeError::Unmount { .. }), "{refusal}");
    file.read_exact_at(&mut back, 70_003).unwrap();
    drop((file, old));
    patiently(|| session.stop().is_ok());
    assert!(session.has_ended());
    assert_eq!(fs::read_dir(root).unwrap().count(), 0);
}

#[test]
fn holes_are_made_found_and_counted() {
    let exports = Arc::new(ExportTable::new());
    let volume = Arc::new(MemoryTarget::new(64 * PAGE));
    exports.insert("vol", volume.clone());
    let Some((directory, _session)) = mounted(&exports, &FuseOptions::default()) else { return };
    let path = directory.path().join("vol");
    volume.write(0, &vec![7; 8 * PAGE as usize]).unwrap();
    volume.write(32 * PAGE, &vec![7; PAGE as usize]).unwrap();
    let file = writable(&path);
    assert_eq!(file.metadata().unwrap().blocks() * 512, 9 * PAGE);

    let at = |position| seek(&file, position).map_err(rustix::io::Errno::raw_os_error);
    assert_eq!(at(SeekFrom::Hole(0)), Ok(8 * PAGE));
    assert_eq!(at(SeekFrom::Data(8 * PAGE)), Ok(32 * PAGE));
    assert_eq!(at(SeekFrom::Data(40 * PAGE)), Err(libc::ENXIO));

    let mut page = vec![1; PAGE as usize];
    file.read_exact_at(&mut page, 2 * PAGE).unwrap();
    assert!(page.iter().all(|byte| *byte == 7));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&file, punch, 2 * PAGE, 3 * PAGE).unwrap();
    file.read_exact_at(&mut page, 2 * PAGE).unwrap();
    assert!(page.iter().all(|byte| *byte == 0), "the kernel's cache knows too");
    assert_eq!(at(SeekFrom::Hole(0)), Ok(2 * PAGE));
    assert_eq!(at(SeekFrom::Data(2 * PAGE)), Ok(5 * PAGE));
    assert_eq!(volume.allocated(), 6 * PAGE);

    fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 5 * PAGE, PAGE).unwrap();
    file.read_exact_at(&mut page, 5 * PAGE).unwrap();
    assert!(page.iter().all(|byte| *byte == 0));
    assert_eq!(volume.allocated(), 6 * PAGE, "zeroed in place");
    let error = fallocate(&file, FallocateFlags::empty(), 0, PAGE).unwrap_err();
    assert_eq!(error.raw_os_error(), libc::EOPNOTSUPP);
    let error = fallocate(&file, FallocateFlags::ZERO_RANGE, 63 * PAGE, 2 * PAGE).unwrap_err();
    assert_eq!(error.raw_os_error(), libc::EFBIG);
}

/// A volume whose every operation fails.
#[derive(Debug)]
struct Failing(TargetError);

impl Target for Failing {
    fn size(&self) -> u64 {
        MIB
    }
    fn block_size(&self) -> u32 {
        4096
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), TargetError> {
        Err(self.0.clone())
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<(), TargetError> {
        Err(self.0.clone())
    }
    fn flush(&self) -> Result<(), TargetError> {
        Err(self.0.clone())
    }
    fn discard(&self, _: u64, _: u64) -> Result<(), TargetError> {
        Err(self.0.clone())
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), TargetError> {
        Err(self.0.clone())
    }
    fn runs(&self, _: u64, _: u64, _: usize) -> Result<Vec<Run>, TargetError> {
        Err(self.0.clone())
    }
}

#[test]
fn errors_reach_the_program() {
    let exports = Arc::new(ExportTable::new());
    for (name, error, expected) in [
        ("invalid", TargetError::Invalid("no".into()), libc::EINVAL),
        ("full", TargetError::NoSpace, libc::ENOSPC),
        ("broken", TargetError::Io("no".into()), libc::EIO),
        ("frozen", TargetError::ReadOnly, libc::EROFS),
    ] {
        exports.insert(name, Arc::new(Failing(error)));
        let Some((directory, _session)) =
            mounted(&exports, &FuseOptions { direct_io: true, ..Default::default() })
        else {
            return;
        };
        let file = writable(&directory.path().join(name));
        assert_eq!(file.metadata().unwrap().blocks() * 512, MIB, "unknown counts as allocated");
        assert_eq!(number(&file.write_at(b"x", 0).unwrap_err()), Some(expected));
        assert_eq!(number(&file.read_at(&mut [0; 512], 0).unwrap_err()), Some(expected));
        assert_eq!(number(&file.sync_data().unwrap_err()), Some(expected));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(fallocate(&file, punch, 0, 4096).unwrap_err().raw_os_error(), expected);
    }
}

#[test]
fn many_threads_read_and_write() {
    let exports = Arc::new(ExportTable::new());
    exports.insert("vol", Arc::new(MemoryTarget::new(16 * MIB)));
    for direct_io in [false, true] {
        let options = FuseOptions { direct_io, ..Default::default() };
        let Some((directory, _session)) = mounted(&exports, &options) else { return };
        let path = directory.path().join("vol");
        std::thread::scope(|scope| {
            for part in 0..8_u64 {
                let path = &path;
                scope.spawn(move || {
                    let file = writable(path);
                    for round in 0..16 {
                        let at = part * 2 * MIB + round * 65_537;
                        let data = noise(part * 100 + round, 50_000);
                        file.write_all_at(&data, at).unwrap();
                        let mut back = vec![0; data.len()];
                        file.read_exact_at(&mut back, at).unwrap();
                        assert!(back == data);
                    }
                    file.sync_all().unwrap();
                });
            }
        });
    }
}

#[test]
fn unaligned_direct_reads_by_o_direct() {
    let exports = Arc::new(ExportTable::new());
    let volume = Arc::new(MemoryTarget::new(4 * MIB));
    let data = noise(9, 4 * MIB as usize);
    volume.write(0, &data).unwrap();
    exports.insert("vol", volume);
    let Some((directory, _session)) = mounted(&exports, &FuseOptions::default()) else { return };
    let path = directory.path().join("vol");
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut back = vec![0; 2 * MIB as usize];
    file.read_exact_at(&mut back, MIB + 512).unwrap();
    assert!(back == data[MIB as usize + 512..][..back.len()]);
    assert!(file.as_fd().try_clone_to_owned().is_ok());
}

/// A file system on a loop device on a volume: made, mounted, filled, trimmed, unmounted and checked.
fn loop_mount(direct_io: bool, loop_direct: &str) {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can set up loop devices");
    }
    if !["losetup", "mkfs.ext4", "e2fsck", "mount", "umount"].iter().all(|tool| have(tool)) {
        return;
    }
    let exports = Arc::new(ExportTable::new());
    let volume = Arc::new(MemoryTarget::new(96 * MIB));
    exports.insert("vol", volume.clone());
    let options = FuseOptions { direct_io, ..Default::default() };
    let Some((directory, mut session)) = mounted(&exports, &options) else { return };
    let file = directory.path().join("vol");

    let attached = attempt("losetup", &["--find", "--show", loop_direct, text(&file)]);
    if !attached.status.success() {
        return skip(&format!("no loop device: {}", String::from_utf8_lossy(&attached.stderr).trim()));
    }
    let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    let detach = Cleanup(vec!["losetup".into(), "-d".into(), device.clone()]);
    run("mkfs.ext4", &["-q", "-F", &device]);
    assert!(volume.flushes() > 0, "mkfs made its work durable");
    let inside = tempfile::tempdir().unwrap();
    run("mount", &["-t", "ext4", &device, text(inside.path())]);
    let unmount = Cleanup(vec!["umount".into(), text(inside.path()).into()]);
    let data = noise(3, 20 << 20);
    let kept = inside.path().join("kept");
    fs::write(&kept, &data).unwrap();
    fs::write(inside.path().join("gone"), &data).unwrap();
    run("sync", &["-f", text(&kept)]);
    let full = volume.allocated();
    assert!(full >= 40 << 20);
    fs::remove_file(inside.path().join("gone")).unwrap();
    run("sync", &["-f", text(&kept)]);
    if have("fstrim") && attempt("fstrim", &[text(inside.path())]).status.success() {
        assert!(volume.allocated() + (10 << 20) < full, "what fstrim freed is given back");
    }
    drop(unmount);
    run("e2fsck", &["-f", "-n", &device]);
    run("mount", &["-t", "ext4", &device, text(inside.path())]);
    let unmount = Cleanup(vec!["umount".into(), text(inside.path()).into()]);
    assert!(fs::read(&kept).unwrap() == data);
    drop(unmount);
    drop(detach);
    // The loop device closes the file a moment after `losetup -d` returns.
    patiently(|| session.stop().is_ok());
    assert!(session.has_ended());
}

#[test]
fn loop_device() {
    loop_mount(false, "--direct-io=off");
}

#[test]
fn loop_device_with_direct_io() {
    loop_mount(false, "--direct-io=on");
}

#[test]
fn loop_device_on_uncached_file() {
    loop_mount(true, "--direct-io=off");
}
