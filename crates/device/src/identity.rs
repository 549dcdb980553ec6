//! Which device a path really names, whatever links and loop devices lead there.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, makedev, minor};

use crate::check::Target;
use crate::{DeviceError, DeviceErrorKind, Operation};

/// Loop devices on block devices on loop devices: deeper than this nobody stacks them.
const DEPTH_MAX: usize = 8;

/// What two paths have in common if they lead to the same bytes. A partition is not its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A regular file: the number of its file system and its inode there.
    File {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
    /// A block device by its number; a loop device counts as the file behind it.
    Block {
        /// `st_rdev`.
        device: u64,
    },
}

/// What `path` leads to, through symbolic links and loop devices.
///
/// # Errors
/// `Unopenable` if there is nothing, or neither a regular file nor a block device.
pub fn identity(path: &Path) -> Result<Identity, DeviceError> {
    let fail = |why: String| {
        let name = path.to_string_lossy();
        Target { device: &name, operation: Operation::Open, offset: 0, length: 0 }
            .error(DeviceErrorKind::Unopenable(why))
    };
    let metadata = fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    of_metadata(&metadata).ok_or_else(|| fail("it is neither a regular file nor a block device".to_owned()))
}

/// As [`identity`], for something already looked up.
pub(crate) fn of_metadata(metadata: &fs::Metadata) -> Option<Identity> {
    of_inode(metadata).map(behind_loops)
}

/// What is behind loop devices, one after the other, as far as it can be asked.
fn behind_loops(mut found: Identity) -> Identity {
    for _ in 0..DEPTH_MAX {
        let Identity::Block { device } = found else { break };
        let Some(next) = loop_backing(device).and_then(|path| of_backing(&path)) else { break };
        found = next;
    }
    found
}

/// The file behind a loop device; nothing if a process serves it. That process may be this one, and would wait for itself:
/// what asks may hold what the answer needs.
fn of_backing(path: &Path) -> Option<Identity> {
    let mounts = mounts();
    let holds = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Of two on the same place the later one covers the earlier one.
    let holder = holds.max_by_key(|mount| mount.point.as_os_str().len())?;
    if holder.kind.starts_with(b"fuse") {
        return None;
    }
    fs::metadata(path).ok().as_ref().and_then(of_inode)
}

fn of_inode(metadata: &fs::Metadata) -> Option<Identity> {
    if metadata.file_type().is_block_device() {
        Some(Identity::Block { device: metadata.rdev() })
    } else if metadata.is_file() {
        Some(Identity::File { device: metadata.dev(), inode: metadata.ino() })
    } else {
        None
    }
}

/// The kernel's directory about a block device.
pub(crate) fn sysfs(device: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)))
}

/// The file behind a loop device; nothing for any other device.
fn loop_backing(device: u64) -> Option<PathBuf> {
    let text = fs::read_to_string(sysfs(device).join("loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// Where a block device is mounted, if it is.
pub(crate) fn mount_point(device: u64) -> Option<String> {
    let found = mounts().into_iter().find(|mount| mount.device == device)?;
    Some(found.point.to_string_lossy().into_owned())
}

/// One line of the kernel's table of mounts.
struct Mount {
    device: u64,
    point: PathBuf,
    /// Name of the file system.
    kind: Vec<u8>,
}

/// What this process sees mounted, in the kernel's order.
fn mounts() -> Vec<Mount> {
    fs::read("/proc/self/mountinfo")
        .unwrap_or_default()
        .split(|&byte| byte == b'\n')
        .filter_map(mount)
        .collect()
}

/// Reads a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): mount id, parent id, device number, root, mount point,
/// options, any number of optional fields, a hyphen, kind of file system, source, options.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ').skip(2);
    let device = device_number(str::from_utf8(fields.next()?).ok()?)?;
    let point = PathBuf::from(OsString::from_vec(unescaped(fields.nth(1)?)));
    let kind = fields.skip_while(|&field| field != b"-").nth(1)?.to_vec();
    Some(Mount { device, point, kind })
}

/// Blanks, tabs, line feeds and backslashes stand there as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

/// A device's number as the kernel writes it, `MAJOR:MINOR`.
fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Where a regular file is mounted through a loop device, if it is.
pub fn mounted_file(path: &Path) -> Option<String> {
    let wanted = of_inode(&fs::metadata(path).ok().filter(fs::Metadata::is_file)?)?;
    let name = fs::canonicalize(path).ok()?;
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    let mut loops = entries.map(|entry| entry.path()).filter(|entry| entry.join("loop").is_dir());
    loops.find_map(|entry| {
        let number = device_number(&fs::read_to_string(entry.join("dev")).ok()?)?;
        let is_it = match behind_loops(Identity::Block { device: number }) {
            Identity::Block { .. } => loop_backing(number)? == name,
            behind @ Identity::File { .. } => behind == wanted,
        };
        is_it.then(|| mount_point(number))?
    })
}

/// The name to show for `path`: for a block device the `/dev/disk/by-id` link that stays the same across
/// boots and says model and serial number where there is one, for anything else the path as given.
pub fn stable_name(path: &Path) -> String {
    let given = || path.to_string_lossy().into_owned();
    let Ok(target) = fs::canonicalize(path) else { return given() };
    if !fs::metadata(&target).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
        return given();
    }
    let links = fs::read_dir("/dev/disk/by-id").into_iter().flatten().flatten();
    let same = links.filter(|link| fs::canonicalize(link.path()).is_ok_and(|to| to == target));
    let best = same.map(|link| link.path().to_string_lossy().into_owned()).min_by_key(|link| rank(link));
    best.unwrap_or_else(given)
}

/// Names that tell model and serial number come before bare numbers, then in alphabetical order.
fn rank(link: &str) -> (bool, String) {
    let name = link.rsplit('/').next().unwrap_or(link);
    let bare = ["wwn-", "nvme-eui.", "nvme-nvme.", "lvm-pv-uuid-", "dm-uuid-", "md-uuid-"];
    (bare.iter().any(|prefix| name.starts_with(prefix)), link.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_of_mounts_are_read() {
        let line = br"36 35 98:5 / /mnt/my\040disk\134\9 rw,noatime shared:1 master:2 - fuse.coffer tank rw";
        let found = mount(line).unwrap();
        assert_eq!((found.device, found.kind.as_slice()), (makedev(98, 5), b"fuse.coffer".as_slice()));
        assert_eq!(found.point, Path::new(r"/mnt/my disk\\9"));
        assert!(mount(b"36 35 98:5 / /mnt rw").is_none() && mount(b"").is_none());
        assert!(mounts().iter().any(|mount| mount.point == Path::new("/")));
    }

    #[test]
    fn links_lead_to_the_same_identity_and_copies_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "x").unwrap();
        fs::copy(path("a"), path("b")).unwrap();
        fs::hard_link(path("a"), path("hard")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("soft")).unwrap();
        let a = identity(&path("a")).unwrap();
        assert_eq!(identity(&path("hard")).unwrap(), a);
        assert_eq!(identity(&path("soft")).unwrap(), a);
        assert_ne!(identity(&path("b")).unwrap(), a);
        assert_eq!(of_backing(&path("hard")), Some(a));
        assert_eq!(stable_name(&path("soft")), path("soft").to_string_lossy());
        for refused in [folder.path().to_owned(), path("missing"), PathBuf::from("/dev/null")] {
            let error = identity(&refused).unwrap_err();
            assert!(matches!(error.kind, DeviceErrorKind::Unopenable(_)), "{error}");
        }
    }

    #[test]
    fn names_with_a_serial_number_come_first() {
        let mut links = ["wwn-0x5000", "ata-WDC_WD40_123", "nvme-eui.0025"].map(|n| format!("/x/{n}"));
        links.sort_by_key(|link| rank(link));
        assert_eq!(links[0], "/x/ata-WDC_WD40_123");
    }
}
