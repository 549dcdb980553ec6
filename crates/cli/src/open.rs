//! Opening devices: by the words of a command line, by the paths of a record, or by searching folders.
//!
//! New devices are looked at before anything is written: what is in use, is given twice or holds something is refused.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{Access, BlockDevice, FileDevice, Identity, Lock, identity, stable_name};
use pool::spec::{GroupSpec, NewDevice};
use pool::{LabelInfo, Pool};

use crate::error::{Failure, Outcome};
use crate::state::{Record, State};

/// Folders in which a bare name is looked for, in this order.
const NAME_FOLDERS: [&str; 5] =
    ["/dev", "/dev/disk/by-id", "/dev/disk/by-path", "/dev/disk/by-partuuid", "/dev/mapper"];
/// Where members of pools are searched when no folder is named.
const BY_ID: &str = "/dev/disk/by-id";

/// The path that a word of the command line means: a full path, or the name of something in `/dev`.
///
/// # Errors
/// A bare name that is in none of the folders of devices.
pub(crate) fn resolve(word: &str) -> Outcome<PathBuf> {
    if word.starts_with('/') {
        return Ok(PathBuf::from(word));
    }
    let clean = !word.is_empty() && !word.split('/').any(|part| part == "." || part == "..");
    let is_device =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device());
    let places = NAME_FOLDERS.iter().map(|folder| Path::new(folder).join(word));
    if let Some(found) = places.filter(|_| clean).find(is_device) {
        return Ok(found);
    }
    let hint = match std::path::absolute(word) {
        Ok(path) if path.exists() => format!("; a file is named by its full path, here {}", path.display()),
        _ => "; a file is named by its full path".to_owned(),
    };
    Err(Failure::refused(format!("cannot open '{word}': no such device in /dev{hint}")))
}

/// Opens devices that are to become part of a pool.
///
/// # Errors
/// One can't be opened, is given twice in whatever way, belongs to a pool that is in use here, or, without
/// `force`, holds anything that is recognised.
pub(crate) fn new_groups(
    groups: &[GroupSpec<String>],
    force: bool,
    state: &State,
) -> Outcome<Vec<GroupSpec<NewDevice>>> {
    let words: Vec<&String> = groups.iter().flat_map(|group| &group.devices).collect();
    let paths = words.iter().map(|word| resolve(word)).collect::<Outcome<Vec<_>>>()?;
    distinct(&paths)?;
    let mut devices = Vec::with_capacity(paths.len());
    for path in &paths {
        devices.push(new_device(path, force, state)?);
    }
    let mut devices = devices.into_iter();
    let take = |group: &GroupSpec<String>| GroupSpec {
        kind: group.kind,
        devices: devices.by_ref().take(group.devices.len()).collect(),
    };
    Ok(groups.iter().map(take).collect())
}

/// Opens one device that is to become part of a pool, as [`new_groups`] does.
///
/// # Errors
/// As [`new_groups`].
pub(crate) fn new_word(word: &str, force: bool, state: &State) -> Outcome<NewDevice> {
    new_device(&resolve(word)?, force, state)
}

/// That no two paths lead to the same bytes, be it by links, loop devices, or as a disk and its partition.
fn distinct(paths: &[PathBuf]) -> Outcome {
    let mut seen: HashMap<Identity, &PathBuf> = HashMap::new();
    let mut whole: Vec<(Identity, &PathBuf)> = Vec::new();
    for path in paths {
        let id = identity(path)?;
        if let Some(other) = seen.insert(id, path) {
            return Err(Failure::refused(if other == path {
                format!("{} is given twice", path.display())
            } else {
                format!("{} and {} are the same device", other.display(), path.display())
            }));
        }
        whole.extend(disk_of(path).map(|disk| (disk, path)));
    }
    for (disk, partition) in whole {
        if let Some(other) = seen.get(&disk) {
            return Err(Failure::refused(format!(
                "{} is a part of {}",
                partition.display(),
                other.display()
            )));
        }
    }
    Ok(())
}

/// The disk that a partition lies on.
fn disk_of(path: &Path) -> Option<Identity> {
    let target = fs::canonicalize(path).ok()?;
    let name = target.file_name()?.to_str()?;
    let entry = fs::canonicalize(Path::new("/sys/class/block").join(name)).ok()?;
    entry.join("partition").exists().then_some(())?;
    identity(&Path::new("/dev").join(entry.parent()?.file_name()?)).ok()
}

/// Opens a device to write, and refuses it if it holds something.
fn new_device(path: &Path, force: bool, state: &State) -> Outcome<NewDevice> {
    let name = stable_name(path);
    // Of a block device the kernel says so by itself when it is opened.
    if let Some(place) = device::mounted_file(path) {
        return Err(Failure::refused(format!(
            "cannot open {name}: it is mounted at {place} through a loop device; unmount it first"
        )));
    }
    let device = FileDevice::open(path, Access::ReadWrite)?;
    let mut wipe = Vec::new();
    if let Some(label) = Pool::examine(&device)? {
        refuse_member(path, &name, &label, force, state)?;
    } else {
        let mut found = if force { formats::probe_damaged(&device)?.0 } else { formats::probe(&device)? };
        found.retain(|found| found.kind != formats::Kind::Cofferdam || found.damaged);
        if !found.is_empty() && !force {
            let all: Vec<String> = found.iter().map(ToString::to_string).collect();
            let all = all.join(" and ");
            return Err(Failure::refused(format!("{name} holds {all}; use '-f' to overwrite it")));
        }
        wipe = formats::signature_ranges(&found);
    }
    Ok(NewDevice { wipe, ..NewDevice::new(Arc::new(device), name) })
}

/// Refuses a device that a pool's label says is that pool's.
fn refuse_member(path: &Path, name: &str, label: &LabelInfo, force: bool, state: &State) -> Outcome {
    let pool = &label.pool_name;
    let record = state.in_use()?.into_iter().find(|record| record.guid == label.pool_guid);
    if let Some(record) = record {
        let id = identity(path)?;
        let is_member = record.devices.iter().any(|member| identity(member).is_ok_and(|member| member == id));
        return match (is_member, force) {
            (true, _) => Err(Failure::refused(format!("{name} is part of pool '{pool}', which is in use"))),
            (false, false) => Err(Failure::refused(format!(
                "{name} was part of pool '{pool}', which is in use; use '-f' to overwrite it"
            ))),
            (false, true) => Ok(()),
        };
    }
    if force {
        return Ok(());
    }
    Err(Failure::refused(if label.exported {
        format!("{name} is part of exported pool '{pool}'; use '-f' to overwrite it")
    } else {
        format!(
            "{name} is part of pool '{pool}', last used by host '{}' and not exported; use '-f' to overwrite it",
            label.host_name
        )
    }))
}

/// A device with a pool's label on it, opened only to look.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The path by which it was found.
    pub(crate) path: PathBuf,
    /// What it is, whatever the path.
    pub(crate) identity: Identity,
    /// The device, readable and not locked.
    pub(crate) device: NewDevice,
    /// What its label says.
    pub(crate) label: LabelInfo,
}

/// Members of pools among the files and block devices in some folders (or named directly), each once. What
/// can't be opened or read is passed over; folders within are not entered.
///
/// # Errors
/// A folder can't be read.
pub(crate) fn members_in(places: &[PathBuf]) -> Outcome<Vec<Member>> {
    let mut paths = Vec::new();
    for place in places {
        let doing = || format!("read {}", place.display());
        if !fs::metadata(place).map_err(Failure::io(doing()))?.is_dir() {
            paths.push(place.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(place).map_err(Failure::io(doing()))? {
            inside.push(entry.map_err(Failure::io(doing()))?.path());
        }
        inside.sort();
        paths.extend(inside);
    }
    let mut members: Vec<Member> = Vec::new();
    for path in paths {
        if let Some(member) = member_at(&path)
            && !members.iter().any(|other| other.identity == member.identity)
        {
            members.push(member);
        }
    }
    Ok(members)
}

/// The member of a pool at a path, if there is one that can be read.
fn member_at(path: &Path) -> Option<Member> {
    let path = std::path::absolute(path).ok()?;
    let identity = identity(&path).ok()?;
    let device = FileDevice::open_with(&path, Access::ReadOnly, Lock::None).ok()?;
    let label = Pool::examine(&device).ok()??;
    let device = NewDevice::new(Arc::new(device), stable_name(&path));
    Some(Member { path, identity, device, label })
}

/// Where to search when no folder is named: what is remembered, and the disks for those who may read them.
///
/// # Errors
/// The state folder can't be read.
pub(crate) fn usual_places(state: &State) -> Outcome<Vec<PathBuf>> {
    let (records, _) = state.records()?;
    let remembered = records.into_iter().flat_map(|record| record.devices.into_iter().chain(record.folders));
    let mut places: Vec<PathBuf> = remembered.filter(|place| place.exists()).collect();
    if rustix::process::geteuid().is_root() && Path::new(BY_ID).is_dir() {
        places.push(PathBuf::from(BY_ID));
    }
    Ok(places)
}

/// Opens a member for use, locked; `Ok(None)` if it is not there or broken.
///
/// # Errors
/// Another process holds it.
pub(crate) fn member(path: &Path, access: Access) -> Outcome<Option<NewDevice>> {
    match FileDevice::open(path, access) {
        Ok(device) => {
            let name = device.info().name.clone();
            Ok(Some(NewDevice::new(Arc::new(device), name)))
        }
        Err(error) if matches!(error.kind, device::DeviceErrorKind::Busy { .. }) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// The devices of a remembered pool, opened for use: those at the remembered paths, and, if some are not
/// there, those that are found in the remembered folders. What is missing is missing.
///
/// # Errors
/// Another process holds one.
pub(crate) fn known_members(record: &Record, access: Access) -> Outcome<Vec<NewDevice>> {
    let guid = record.guid;
    let belongs = |path: &Path| {
        let label = FileDevice::open(path, Access::ReadOnly).ok().map(|device| Pool::examine(&device));
        matches!(label, Some(Ok(Some(label))) if label.pool_guid == guid)
    };
    let mut devices = Vec::new();
    let mut identities = Vec::new();
    let mut complete = true;
    // A command that was killed may have brought these in, or not have come to it.
    let joined = record.joining.iter().filter(|path| !record.devices.contains(path) && belongs(path));
    for path in record.devices.iter().chain(joined) {
        // One that was refused because it is a member already, by another way.
        if identity(path).is_ok_and(|identity| identities.contains(&identity)) {
            continue;
        }
        match member(path, access)? {
            Some(device) => {
                complete &= Pool::examine(&*device.device)
                    .is_ok_and(|label| label.is_some_and(|label| label.pool_guid == guid));
                identities.extend(identity(path));
                devices.push(device);
            }
            None => complete = false,
        }
    }
    if complete {
        return Ok(devices);
    }
    let mut places: Vec<PathBuf> = record.folders.iter().filter(|folder| folder.is_dir()).cloned().collect();
    if rustix::process::geteuid().is_root() && Path::new(BY_ID).is_dir() {
        places.push(PathBuf::from(BY_ID));
    }
    for found in members_in(&places)? {
        if found.label.pool_guid == guid
            && !identities.contains(&found.identity)
            && let Some(device) = member(&found.path, access)?
        {
            devices.push(device);
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_full_paths_or_names_in_dev() {
        assert_eq!(resolve("/tmp/x").ok(), Some("/tmp/x".into()));
        // Whatever disk this machine has.
        for disk in fs::read_dir("/sys/class/block").into_iter().flatten().flatten() {
            let (name, path) = (disk.file_name(), Path::new("/dev").join(disk.file_name()));
            if path.exists() {
                assert_eq!(resolve(name.to_str().unwrap()).ok(), Some(path));
            }
        }
        for word in ["", "no-such-device", "./x", "../etc", "null", "mapper"] {
            let error = resolve(word).unwrap_err().to_string();
            assert!(error.contains("no such device in /dev"), "{error}");
        }
        let here = resolve("Cargo.toml").unwrap_err().to_string();
        assert!(here.contains("here /") && here.ends_with("Cargo.toml"), "{here}");
    }

    #[test]
    fn links_and_hard_links_are_the_same_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            fs::write(path(name), name).unwrap();
        }
        std::os::unix::fs::symlink(path("a"), path("soft")).unwrap();
        fs::hard_link(path("a"), path("hard")).unwrap();
        assert!(distinct(&[path("a"), path("b")]).is_ok());
        for twin in ["a", "soft", "hard"] {
            assert!(distinct(&[path("a"), path("b"), path(twin)]).is_err(), "{twin}");
        }
        assert!(distinct(&[path("a"), path("gone")]).is_err());
    }
}
