//! Devices formatted by the real tools, where these are installed.
#![allow(clippy::unwrap_used, dead_code)]

use crate::common::{Image, assert_wipes, blkid, found, run, sentences, tool};
use formats::Kind;

const UUID: &str = "5ca1ab1e-0123-4567-89ab-cdef01234567";

/// An image of `megabytes` that a tool has formatted; `None` if it is not installed.
fn formatted(program: &str, arguments: &[&str], megabytes: u64) -> Option<Image> {
    let program = tool(program)?;
    let file = tempfile::NamedTempFile::new().expect("there is a place for temporary files");
    file.as_file().set_len(megabytes << 20).expect("there is room");
    let output = run(&program, arguments, file.path());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(Image::load(file.path()))
}

/// Asserts that exactly one thing is found, that it is this, and that zeroing its signature suffices for us
/// and for libblkid.
fn check(image: Option<Image>, kind: Kind, label: &str) {
    let Some(image) = image else { return };
    let all = found(&image);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].kind, kind);
    assert!(!all[0].damaged, "{all:?}");
    assert_eq!(all[0].label.as_deref().unwrap_or(""), label);
    assert_eq!(all[0].uuid.as_deref(), Some(UUID));
    let says =
        |kind| !matches!(kind, Kind::ExtJournal | Kind::Luks1 | Kind::Luks2 | Kind::LvmPv | Kind::Squashfs);
    if let Some(size) = all[0].size {
        // It fills the device but for a cluster or a group that is too small.
        assert!(size <= image.size && size >= image.size * 7 / 8, "{kind}: {size} of {}", image.size);
    } else {
        assert!(!says(kind), "{kind} does not say how long it is");
    }
    let wiped = assert_wipes(&image);
    if let Some(blkid) = blkid(&wiped) {
        assert_eq!(blkid, ["", "", ""], "libblkid still recognises it");
    }
}

fn ext(arguments: &[&str], megabytes: u64) -> Option<Image> {
    let common = ["-q", "-F", "-L", "home", "-U", UUID];
    formatted("mke2fs", &[&common, arguments].concat(), megabytes)
}

#[test]
fn ext2() {
    check(ext(&["-t", "ext2"], 8), Kind::Ext2, "home");
    check(ext(&["-t", "ext2", "-r", "1", "-b", "4096"], 64), Kind::Ext2, "home");
}

#[test]
fn ext3() {
    check(ext(&["-t", "ext3"], 16), Kind::Ext3, "home");
}

#[test]
fn ext4() {
    check(ext(&["-t", "ext4"], 64), Kind::Ext4, "home");
    check(ext(&["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"], 64), Kind::Ext4, "home");
    check(ext(&["-t", "ext4", "-O", "64bit,bigalloc"], 600), Kind::Ext4, "home");
    check(ext(&["-t", "ext4", "-O", "^64bit", "-g", "8192"], 600), Kind::Ext4, "home");
}

#[test]
fn ext4_sentence() {
    let Some(image) = ext(&["-t", "ext4"], 64) else { return };
    assert_eq!(sentences(&image), ["an ext4 file system labelled 'home'"]);
    let byte = image.get(1024 + 0x40, 1)[0];
    let image = image.put(1024 + 0x40, &[byte ^ 1]);
    assert_eq!(sentences(&image), ["a damaged ext4 file system labelled 'home'"]);
}

#[test]
fn ext_journal() {
    check(ext(&["-O", "journal_dev"], 16), Kind::ExtJournal, "home");
    check(ext(&["-O", "journal_dev", "-b", "1024"], 16), Kind::ExtJournal, "home");
}

#[test]
fn xfs() {
    let make =
        |arguments: &[&str]| formatted("mkfs.xfs", &[&["-q", "-f", "-L", "home"], arguments].concat(), 320);
    let with_crc = make(&["-m", &format!("uuid={UUID}")]);
    check(with_crc.clone(), Kind::Xfs, "home");
    if let Some(image) = with_crc {
        let byte = image.get(170, 1)[0];
        let image = image.put(170, &[byte ^ 1]);
        assert_eq!(sentences(&image), ["a damaged XFS file system labelled 'home'"]);
    }
    check(make(&["-m", &format!("crc=0,uuid={UUID}")]), Kind::Xfs, "home");
    check(make(&["-s", "size=4096", "-m", &format!("uuid={UUID}")]), Kind::Xfs, "home");
}

#[test]
fn btrfs() {
    let make = |arguments: &[&str]| {
        formatted("mkfs.btrfs", &[&["-q", "-f", "-L", "home", "-U", UUID], arguments].concat(), 200)
    };
    check(make(&[]), Kind::Btrfs, "home");
    check(make(&["--csum", "xxhash"]), Kind::Btrfs, "home");
    check(make(&["--csum", "sha256", "-m", "single"]), Kind::Btrfs, "home");
    let Some(image) = make(&[]) else { return };
    assert_eq!(found(&image)[0].signatures().len(), 2, "the copy at 64 MiB");
    let headless = image.zeroed(0..1 << 20);
    assert_eq!(sentences(&headless), ["a damaged btrfs file system labelled 'home'"]);
}

#[test]
fn swap() {
    let make =
        |arguments: &[&str]| formatted("mkswap", &[&["-L", "spare", "-U", UUID], arguments].concat(), 4);
    check(make(&[]), Kind::Swap, "spare");
    check(make(&["-p", "8192"]), Kind::Swap, "spare");
    check(make(&["-p", "65536"]), Kind::Swap, "spare");
}

#[test]
fn formatting_over_each_other() {
    // What the later tool leaves of the former is found as well.
    let (Some(btrfs), Some(mke2fs)) = (formatted("mkfs.btrfs", &["-q", "-f"], 200), tool("mke2fs")) else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("there is a place for temporary files");
    btrfs.save(file.path());
    assert!(
        run(&mke2fs, &["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard"], file.path())
            .status
            .success()
    );
    let image = Image::load(file.path());
    assert!(sentences(&image).contains(&"an ext4 file system".to_owned()));
    assert_wipes(&image);
}
