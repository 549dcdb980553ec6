//! Which device a path really names, whatever links and loop devices lead there.

use std::fs;
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

/// What is behind loop devices, one after the other.
fn behind_loops(mut found: Identity) -> Identity {
    for _ in 0..DEPTH_MAX {
        let Identity::Block { device } = found else { break };
        let Some(behind) = loop_backing(device) else { break };
        let Some(next) = fs::metadata(behind).ok().as_ref().and_then(of_inode) else { break };
        found = next;
    }
    found
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
    let number = format!("{}:{}", major(device), minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // Fields: mount id, parent id, device number, root, mount point, ...
    table.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next() == Some(&number)).then(|| fields.nth(1).map(str::to_owned))?
    })
}

/// Where a regular file is mounted through a loop device, if it is.
///
/// The files behind loop devices are compared by the names that the kernel gives them: to ask a file itself may be to ask the
/// file system that this process serves, which waits for who asks.
pub fn mounted_file(path: &Path) -> Option<String> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let wanted = fs::canonicalize(path).ok()?;
    let entries = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    let mut loops = entries.map(|entry| entry.path()).filter(|entry| entry.join("loop").is_dir());
    loops.find_map(|entry| {
        let number = fs::read_to_string(entry.join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        let number = makedev(major.parse().ok()?, minor.parse().ok()?);
        (loop_backing(number)? == wanted).then(|| mount_point(number))?
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
