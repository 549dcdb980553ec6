//! Components by name: devices, files, other units.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{Access, BlockDevice, DeviceError, FileDevice, Identity, OverlayDevice, identity};
use raidset::config::ABSENT;
use raidset::set::Slot;

use super::record::{Part, Units, unit_number};
use super::unit::Unit;
use crate::error::{Failure, Outcome};

/// Where partitions are found by their labels.
const WEDGES: &str = "/dev/disk/by-partlabel";

/// The unit that a component is, if it is one: a name such as `/dev/raid0a` behind which this host has no device.
pub(crate) fn unit_below(path: &Path) -> Option<u32> {
    if path.exists() {
        return None;
    }
    unit_number(path.to_str()?)
}

/// The device of a `NAME=...`.
pub(crate) fn wedge(label: &str) -> Option<String> {
    let path = Path::new(WEDGES).join(label);
    path.exists().then(|| path.to_string_lossy().into_owned())
}

/// A component as a configuration names it, with the place that the name means.
///
/// # Errors
/// The folder that this command runs in is gone.
pub(crate) fn part(name: &str) -> Outcome<Part> {
    if name == ABSENT {
        return Ok(Part { name: name.to_owned(), path: None });
    }
    let path = if unit_number(name).is_some() {
        PathBuf::from(name)
    } else {
        std::path::absolute(name).map_err(Failure::io(format!("find {name}")))?
    };
    Ok(Part { name: name.to_owned(), path: Some(path) })
}

/// Opens a component. `below` are the units that this process holds.
///
/// # Errors
/// It is there and cannot be opened, or not there: in one sentence.
pub(crate) fn open(part: &Part, below: &[Arc<Unit>]) -> Result<Arc<dyn BlockDevice>, String> {
    let Some(path) = &part.path else { return Err(format!("{} is not there", part.name)) };
    if let Some(number) = unit_below(path) {
        let unit = below.iter().find(|unit| unit.number() == number);
        let set = unit.map(|unit| Arc::clone(unit.set()) as Arc<dyn BlockDevice>);
        return set.ok_or_else(|| format!("{} is not configured", part.name));
    }
    match FileDevice::open(path, Access::ReadWrite) {
        Ok(device) => Ok(Arc::new(device)),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens components; those that cannot be opened are absent, with a sentence each.
pub(crate) fn slots(parts: &[Part], below: &[Arc<Unit>]) -> (Vec<Slot>, Vec<String>) {
    let mut problems = Vec::new();
    let slots = parts
        .iter()
        .map(|part| {
            let device = part.path.as_ref().and_then(|_| match open(part, below) {
                Ok(device) => Some(device),
                Err(why) => {
                    problems.push(why);
                    None
                }
            });
            Slot { name: part.name.clone(), device }
        })
        .collect();
    (slots, problems)
}

/// Puts an overlay over each device: what is written to it ends with it.
///
/// # Errors
/// A device does not tell its size.
pub(crate) fn over(slots: &mut [Slot]) -> Result<(), DeviceError> {
    for device in slots.iter_mut().filter_map(|slot| slot.device.as_mut()) {
        *device = Arc::new(OverlayDevice::in_memory(Arc::clone(device))?);
    }
    Ok(())
}

/// That no two components are the same device.
///
/// # Errors
/// Two are.
pub(crate) fn distinct(parts: &[Part]) -> Result<(), String> {
    let mut seen: HashMap<Identity, &str> = HashMap::new();
    for part in parts {
        let Some(path) = part.path.as_deref().filter(|path| path.exists()) else { continue };
        if let Ok(id) = identity(path)
            && let Some(other) = seen.insert(id, &part.name)
        {
            return Err(format!("{other} and {} are the same device", part.name));
        }
    }
    Ok(())
}

/// That no component belongs to a unit other than `unit` already.
///
/// # Errors
/// One does, or the state folder can't be read.
pub(crate) fn free(units: &Units, unit: u32, parts: &[Part]) -> Outcome<Result<(), String>> {
    for part in parts {
        let Some(path) = &part.path else { continue };
        if let Some(other) = user(units, path, Some(unit))? {
            return Ok(Err(format!("{} is a component of raid{other} already", part.name)));
        }
    }
    Ok(Ok(()))
}

/// The unit, other than `but`, that has the device at `path` as a component or spare.
///
/// # Errors
/// The state folder can't be read.
pub(crate) fn user(units: &Units, path: &Path, but: Option<u32>) -> Outcome<Option<u32>> {
    let key = |path: &Path| (identity(path).ok().filter(|_| path.exists()), unit_below(path));
    let mine = key(path);
    if mine == (None, None) {
        return Ok(None);
    }
    let using = units.all()?.into_iter().filter(|record| Some(record.unit) != but).find(|record| {
        let mut parts = record.columns.iter().chain(&record.spares);
        parts.any(|part| part.path.as_deref().is_some_and(|other| key(other) == mine))
    });
    Ok(using.map(|record| record.unit))
}

/// Devices and files that may be components: all of the kernel's disks and partitions, and the files in `folders`.
pub(crate) fn everything(folders: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
    if rustix::process::geteuid().is_root() {
        let names = partitions.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3));
        found.extend(names.map(|name| Path::new("/dev").join(name)).filter(|path| path.exists()));
    }
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .filter(|entry| entry.metadata().is_ok_and(|found| found.is_file() && found.len() >= 64 * 512))
            .map(|entry| entry.path())
            .collect();
        files.sort();
        found.extend(files);
    }
    found
}
