//! Files copied out of file systems that the system's own tools made: all of them, around what is lost, and of images that are
//! damaged at random (`COFFER_FILES_DAMAGED=N` of them, 6 without). What a tool is missing for is passed over.
#![allow(clippy::unwrap_used)]

mod exfat;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use device::{BlockDevice, Rng};
use rescue::{Copied, FilesError, Image, copy_files};

/// Length of the file that is damaged.
const BIG: usize = 3 << 20;

fn ran(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("LC_ALL", "C.UTF-8");
    command.env("PATH", format!("{}:/sbin:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

/// Files and folders of all kinds.
fn tree(folder: &Path, kind: &str) {
    let links = !matches!(kind, "vfat" | "ntfs" | "exfat");
    let mut rng = Rng::new(9);
    let random = |rng: &mut Rng, length: usize| {
        let mut bytes = vec![0; length];
        rng.fill(&mut bytes);
        bytes
    };
    fs::create_dir_all(folder.join("deep/er/deeper")).unwrap();
    fs::create_dir_all(folder.join("many")).unwrap();
    fs::write(folder.join("empty"), b"").unwrap();
    fs::write(folder.join("small.txt"), b"a few words\n").unwrap();
    fs::write(folder.join("deep/er/deeper/big.bin"), random(&mut rng, BIG)).unwrap();
    for number in 0..400 {
        let name = format!("many/a-file-with-a-name-that-is-not-short-number-{number}.bin");
        let length = (number * 37) % 9000;
        fs::write(folder.join(name), random(&mut rng, length)).unwrap();
    }
    if links {
        symlink("deep/er", folder.join("link")).unwrap();
    }
    // What copies files into FAT here knows no letters but those of English.
    let name = if kind == "vfat" { "greetings.txt" } else { "gr\u{fc}\u{df}e.txt" };
    fs::write(folder.join(name), b"in another language").unwrap();
}

/// What is below a folder: files with their bytes, links with where they lead, folders with nothing.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            let bytes = if kind.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if kind.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
        }
    }
    found.retain(|path, _| !path.starts_with("lost+found"));
    found
}

/// A file for `mkfs.xfs -p` that names everything below a folder.
fn prototype(folder: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_symlink() {
            writeln!(text, "{name} l--777 0 0 {}", fs::read_link(&path).unwrap().display()).unwrap();
        } else if path.is_dir() {
            writeln!(text, "{name} d--755 0 0").unwrap();
            prototype(&path, text);
            *text += "$\n";
        } else {
            writeln!(text, "{name} ---644 0 0 {}", path.display()).unwrap();
        }
    }
}

/// Makes a file system with these files in an image.
fn made(kind: &str, files: &Path, image: &Path) -> bool {
    let size = if kind == "xfs" { 320 << 20 } else { 128 << 20 };
    fs::File::create(image).unwrap().set_len(size).unwrap();
    match kind {
        "ext4" => ran(tool("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(files).arg(image)),
        "btrfs" => ran(tool("mkfs.btrfs").args(["-q", "--rootdir"]).arg(files).arg(image)),
        "xfs" => {
            let mut text = "/none\n0 0\nd--755 0 0\n".to_owned();
            prototype(files, &mut text);
            let list = image.with_extension("proto");
            fs::write(&list, text + "$\n").unwrap();
            ran(tool("mkfs.xfs").args(["-q", "-p"]).arg(list).arg(image))
        }
        "vfat" => {
            let all = || fs::read_dir(files).unwrap().map(|entry| entry.unwrap().path());
            ran(tool("mkfs.vfat").args(["-F", "32"]).arg(image))
                && ran(tool("mcopy").args(["-s", "-i"]).arg(image).args(all()).arg("::"))
        }
        "ntfs" => {
            let folder = image.with_extension("mounted");
            fs::create_dir_all(&folder).unwrap();
            let mounted = ran(tool("mkntfs").args(["-F", "-Q", "-q"]).arg(image))
                && ran(tool("ntfs-3g").arg(image).arg(&folder));
            let copied = mounted && ran(tool("cp").arg("-r").arg(files.join(".")).arg(&folder));
            mounted && ran(tool("umount").arg(&folder)) && copied
        }
        "exfat" => {
            let made = ran(tool("mkfs.exfat").arg(image));
            if made {
                exfat::fill(image, files);
                assert!(ran(tool("fsck.exfat").arg("-n").arg(image)), "what was put into it is not sound");
            }
            made
        }
        _ => unreachable!(),
    }
}

fn copied(image: &Path, to: &Path, fill_zero: bool) -> Result<Copied, FilesError> {
    let image = Image::open(image).unwrap();
    copy_files(&image.device, to, fill_zero, |_| true)
}

/// For each kind of file system that can be made here, the folder of files and the image.
fn each(test: impl Fn(&str, &Path, &Path, &Path)) {
    for kind in ["ext4", "xfs", "btrfs", "vfat", "ntfs", "exfat"] {
        let scratch = tempfile::tempdir().unwrap();
        let files = scratch.path().join("files");
        let image = scratch.path().join("image");
        tree(&files, kind);
        if made(kind, &files, &image) {
            test(kind, scratch.path(), &files, &image);
        } else {
            eprintln!("passed over: no tools for {kind}, or they fail");
        }
    }
}

#[test]
fn all_files_are_copied_out_of_every_file_system() {
    each(|kind, scratch, files, image| {
        let to = scratch.join("to");
        let told = copied(image, &to, false).unwrap();
        assert_eq!(told.lost, [], "{kind}");
        assert_eq!(told.files, 404, "{kind}");
        let (got, wanted) = (contents(&to), contents(files));
        let all = got.keys().chain(wanted.keys());
        let unlike: Vec<_> = all.filter(|path| got.get(*path) != wanted.get(*path)).take(5).collect();
        assert!(unlike.is_empty(), "{kind}: {unlike:?} and maybe more");
    });
}

#[test]
fn what_is_lost_of_a_file_is_told_and_no_more_than_that() {
    each(|kind, scratch, files, image| {
        let big = fs::read(files.join("deep/er/deeper/big.bin")).unwrap();
        let middle = &big[BIG / 2..BIG / 2 + 512];
        let all = fs::read(image).unwrap();
        let at = all.chunks_exact(512).position(|sector| sector == middle).unwrap() * 512;
        let map = format!(
            "0 + 1\n0 {at:#x} +\n{at:#x} 0x400 -\n{:#x} {:#x} +\n",
            at + 0x400,
            all.len() - at - 0x400
        );
        fs::write(image.with_extension("map"), map).unwrap();
        let map = image.with_extension("map");
        let device = || Image::open_with(image, Some(&map)).unwrap().device;
        let to = scratch.join("to");
        let told = copy_files(&device(), &to, false, |_| true).unwrap();
        let lost: Vec<&str> = told.lost.iter().map(|lost| &lost.path[..]).collect();
        assert_eq!(lost, ["/deep/er/deeper/big.bin"], "{kind}");
        assert!(
            told.lost[0].why.starts_with("1024 of its 3145728 bytes are lost: "),
            "{kind}: {:?}",
            told.lost
        );
        assert_eq!(told.files, 403, "{kind}");
        assert!(!to.join("deep/er/deeper/big.bin").exists());
        let filled = scratch.join("filled");
        copy_files(&device(), &filled, true, |_| true).unwrap();
        let got = fs::read(filled.join("deep/er/deeper/big.bin")).unwrap();
        let wrong: Vec<usize> = (0..BIG).filter(|at| got[*at] != big[*at]).map(|at| at / 1024).collect();
        assert!(got.len() == BIG && wrong.iter().all(|at| *at == BIG / 2 / 1024), "{kind}");
    });
}

#[test]
fn images_damaged_at_random_are_told_about_in_the_end() {
    let times = std::env::var("COFFER_FILES_DAMAGED").map_or(6, |times| times.parse().unwrap());
    each(|kind, scratch, _, image| {
        let sound = fs::read(image).unwrap();
        let filled: Vec<usize> = (0..sound.len() / 4096)
            .filter(|page| sound[page * 4096..][..4096].iter().any(|byte| *byte != 0))
            .collect();
        // Most of what is not in the file of random bytes is metadata.
        let mut rng = Rng::new(5);
        for time in 0..times {
            let file = fs::File::options().write(true).open(image).unwrap();
            let mut touched = Vec::new();
            for _ in 0..rng.within(1..30) {
                let page = *rng.choose(&filled[..filled.len().min(256)]).unwrap() * 4096;
                let at = page + rng.below(4096) as usize;
                let length = rng.within(1..16) as usize;
                let mut bytes = vec![0; length.min(sound.len() - at)];
                rng.fill(&mut bytes);
                file.write_all_at(&bytes, at as u64).unwrap();
                touched.push((at, bytes.len()));
            }
            let to = scratch.join(format!("to-{time}"));
            match copied(image, &to, rng.chance(1, 2)) {
                Ok(told) => assert!(told.files <= 100_000, "{kind} {time}"),
                Err(FilesError::Output { path, error }) => {
                    panic!("{kind} {time}: {}: {error}", path.display())
                }
                Err(error) => assert!(!error.to_string().is_empty()),
            }
            let _ = fs::remove_dir_all(&to);
            for (at, length) in touched {
                file.write_all_at(&sound[at..at + length], at as u64).unwrap();
            }
        }
    });
}

#[test]
fn exfat_is_checked_and_its_times_know_their_zone() {
    let scratch = tempfile::tempdir().unwrap();
    let (files, image) = (scratch.path().join("files"), scratch.path().join("image"));
    tree(&files, "exfat");
    if !made("exfat", &files, &image) {
        eprintln!("passed over: no tools for exfat");
        return;
    }
    let device = Image::open(&image).unwrap().device;
    let checks = rescue::check(&*device);
    assert!(checks.right > 400 && checks.wrong == 0, "{checks:?}");
    let to = scratch.path().join("to");
    copied(&image, &to, false).unwrap();
    let since = fs::metadata(to.join("small.txt")).unwrap().modified().unwrap();
    let since = since.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    // 2024-02-29 11:02:04 UTC, from date(1).
    assert_eq!(since, 1_709_204_524);
    // Folders that are torn are told, and so is what does not fit.
    let mut bytes = fs::read(&image).unwrap();
    let name: Vec<u8> = "er".encode_utf16().flat_map(u16::to_le_bytes).chain([0; 8]).collect();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at] ^= 1;
    fs::write(&image, bytes).unwrap();
    let device = Image::open(&image).unwrap().device;
    assert!(rescue::check(&*device).wrong > 0);
    let told = copied(&image, &scratch.path().join("torn"), false).unwrap();
    assert!(told.lost.iter().any(|lost| lost.path == "/deep/er"), "{:?}", told.lost);
    assert_eq!(told.files, 403);
}

#[test]
fn what_has_no_reader_is_told_how_to_mount() {
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    // A superblock of ReiserFS, as far as it is looked at.
    let mut bytes = vec![0; 1 << 20];
    bytes[65536 + 44..65536 + 46].copy_from_slice(&4096_u16.to_le_bytes());
    bytes[65536 + 52..65536 + 61].copy_from_slice(b"ReIsEr2Fs");
    fs::write(&image, bytes).unwrap();
    let device: Arc<dyn BlockDevice> = Image::open(&image).unwrap().device;
    let to = scratch.path().join("to");
    let error = copy_files(&device, &to, false, |_| true).unwrap_err().to_string();
    assert!(error.contains("ReiserFS") && error.contains("mount -o ro,loop"), "{error}");
    assert!(!to.exists());
}

/// The last byte of a file may be what stands for a lost sector: it is not lost for that, and is if it can't be read.
#[test]
fn the_ends_of_files_are_not_taken_for_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (files, image) = (folder.path().join("files"), folder.path().join("image"));
    fs::create_dir(&files).unwrap();
    let mut rng = Rng::new(21);
    // Whatever byte the mark begins with, one of them ends with it.
    for last in 0xf0..=0xff {
        let mut bytes = vec![last; 513];
        rng.fill(&mut bytes[..512]);
        fs::write(files.join(format!("{last:02x}")), bytes).unwrap();
    }
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    if !ran(tool("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(&files).arg(&image)) {
        return;
    }
    let device = Image::open(&image).unwrap().device;
    let told = copy_files(&device, &folder.path().join("whole"), false, |_| true).unwrap();
    assert_eq!((told.files, told.lost), (16, Vec::new()));
    // The last sector of one of them is bad, and no other is lost with it.
    let bytes = fs::read(&image).unwrap();
    let first = &fs::read(files.join("f7")).unwrap()[..512];
    let at = bytes.chunks(512).position(|sector| sector == first).unwrap() * 512 + 512;
    let rest = bytes.len() - at - 512;
    fs::write(
        folder.path().join("image.map"),
        format!("0 + 1\n0 {at:#x} +\n{at:#x} 0x200 -\n{:#x} {rest:#x} +\n", at + 512),
    )
    .unwrap();
    let device = Image::open(&image).unwrap().device;
    let told = copy_files(&device, &folder.path().join("around"), false, |_| true).unwrap();
    assert_eq!(told.lost.iter().map(|lost| &*lost.path).collect::<Vec<_>>(), ["/f7"]);
}
