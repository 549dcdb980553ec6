//! What lies on an array: partitions, logical volumes, arrays within them, and what is on each.
//!
//! ```text
//! Plan --assemble--> arrays --discover--> the array itself, partitions, logical volumes, nested ones: Volume, Volume, ...
//! ```
//!
//! A volume's name is made of what it is part of: `ARRAY`, `ARRAY-p1`, `GROUP/VOLUME`.

mod logical;
mod mapped;
mod snapshot;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use device::BlockDevice;
use formats::Kind;
use serde::Serialize;

use crate::{Candidate, Plan, RescueError, content};

/// How deep volumes are looked for within volumes.
const DEPTH_MAX: usize = 6;
/// Most volumes that are listed.
const VOLUMES_MAX: usize = 4096;

/// Something that can be served or copied.
#[derive(Clone, Debug, Serialize)]
pub struct Volume {
    /// Its name: unique, and fit for a path.
    pub name: String,
    /// What kind of volume it is.
    pub kind: &'static str,
    /// Its size, bytes.
    pub size: u64,
    /// What is on it, in words.
    pub holds: Vec<String>,
    /// The short name of the file system or other content, if it is one thing.
    pub content: Option<String>,
    /// How healthy it is, in words.
    pub health: String,
    /// Nothing that was looked at is wrong, and it can be read.
    pub healthy: bool,
    /// The device; `None` if it can't be put together.
    #[serde(skip)]
    pub device: Option<Arc<dyn BlockDevice>>,
}

/// The candidates that go together: the best of each array, none using a member of a better one. With `number`, counted
/// from 1, only that one.
///
/// # Errors
/// The plan is empty, or has no candidate with that number.
pub fn chosen(plan: &Plan, number: Option<usize>) -> Result<Vec<&Candidate>, RescueError> {
    if let Some(number) = number {
        let found = number.checked_sub(1).and_then(|index| plan.candidates.get(index));
        return found
            .map(|found| vec![found])
            .ok_or(RescueError::Candidate { number, count: plan.candidates.len() });
    }
    let mut taken = BTreeSet::new();
    let mut chosen = Vec::new();
    for candidate in &plan.candidates {
        let own: Vec<_> =
            candidate.slots.iter().flatten().map(|slot| (&slot.path, slot.data_offset)).collect();
        if own.is_empty() || own.iter().any(|slot| taken.contains(slot)) {
            continue;
        }
        taken.extend(own);
        chosen.push(candidate);
    }
    if chosen.is_empty() {
        return Err(RescueError::Candidate { number: 1, count: plan.candidates.len() });
    }
    Ok(chosen)
}

/// A candidate's name as the name of a volume: unlike those in `taken`.
pub fn volume_name(array: &str, taken: &[String]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.:".contains(c) { c } else { '_' };
    let base: String = array.trim_start_matches('.').chars().map(plain).collect();
    let base = if base.is_empty() { "array".to_owned() } else { base };
    let mut names = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}")));
    names.find(|name| !taken.contains(name)).unwrap_or(base)
}

/// All volumes on these arrays, which have the names that come with them.
pub fn discover(arrays: &[(String, Arc<dyn BlockDevice>)]) -> Vec<Volume> {
    let mut volumes = Vec::new();
    let mut physical = logical::Found::default();
    for (name, device) in arrays {
        look(&mut volumes, &mut physical, name, "array", device, 0);
    }
    // Volume groups may lie on physical volumes of any depth, and hold physical volumes again.
    let mut known = BTreeSet::new();
    for depth in 1..=DEPTH_MAX {
        let before = physical.scans.len();
        for group in physical.groups() {
            let missing = group.members.iter().filter(|member| member.is_none()).count();
            let name = volume_name(&group.volumes.name, &[]);
            if known.insert((group.volumes.uuid.clone(), missing)) {
                volumes.retain(|volume: &Volume| !volume.name.starts_with(&format!("{name}/")));
                volumes_of(&mut volumes, &mut physical, &group, depth);
            }
        }
        if physical.scans.len() == before {
            break;
        }
    }
    volumes
}

/// Adds the logical volumes of a group, and what is on them.
fn volumes_of(
    volumes: &mut Vec<Volume>,
    physical: &mut logical::Found,
    group: &formats::lvm::Group,
    depth: usize,
) {
    let problems = group.problems.join("; ");
    for (lv, volume) in group.volumes.logical.iter().enumerate() {
        if !logical::shown(group, lv) || volumes.len() >= VOLUMES_MAX {
            continue;
        }
        let first = volumes.len();
        let clean = |text: &str| volume_name(text, &[]);
        let name = format!("{}/{}", clean(&group.volumes.name), clean(&volume.name));
        match logical::open(group, physical, lv) {
            Ok(device) => look(volumes, physical, &name, "logical volume", &device, depth),
            Err(why) => volumes.push(Volume {
                name,
                kind: "logical volume",
                size: volume.size,
                holds: Vec::new(),
                content: None,
                health: why,
                healthy: false,
                device: None,
            }),
        }
        let whole = group.volumes.physical_of(lv).iter().all(|pv| group.members[*pv].is_some());
        for volume in volumes.iter_mut().skip(first).filter(|_| !problems.is_empty()) {
            let _ = write!(volume.health, "; of its group: {problems}");
            volume.healthy &= whole;
        }
    }
}

/// Adds a volume, and the partitions on it.
fn look(
    volumes: &mut Vec<Volume>,
    physical: &mut logical::Found,
    name: &str,
    kind: &'static str,
    device: &Arc<dyn BlockDevice>,
    depth: usize,
) {
    if depth > DEPTH_MAX || volumes.len() >= VOLUMES_MAX {
        return;
    }
    let size = device.size().unwrap_or(0);
    let (mut holds, mut content_name) = (Vec::new(), None);
    let mut problems = Vec::new();
    let mut good = Vec::new();
    match formats::probe_damaged(&**device) {
        Ok((found, missed)) => {
            problems.extend(missed.map(|error| format!("a part can't be read: {error}")));
            holds = found.iter().map(ToString::to_string).collect();
            if let [one] = &found[..] {
                content_name = Some(one.kind.name().to_owned());
            }
            if found.iter().any(|found| found.damaged) {
                problems.push("what is on it is damaged".to_owned());
            }
            for longer in found.iter().filter_map(|found| found.size).filter(|said| *said > size) {
                problems.push(format!(
                    "what is on it says that it has {longer} bytes, but there are only {size}"
                ));
            }
            // A label may be gone, and the text of the group behind it be there.
            if found.is_empty() || found.iter().any(|found| found.kind == Kind::LvmPv) {
                physical.look(device);
            }
            if found.iter().any(|found| matches!(found.kind, Kind::Luks1 | Kind::Luks2)) {
                good.push("its header is whole; open it with cryptsetup".to_owned());
            }
        }
        Err(error) => problems.push(format!("what is on it can't be read: {error}")),
    }
    let checks = content::check(&**device);
    if checks.right + checks.wrong > 0 {
        good.push(format!(
            "{} of {} structures of its file system fit",
            checks.right,
            checks.right + checks.wrong
        ));
    }
    if checks.wrong > 0 {
        problems.push(format!("{} structures are damaged", checks.wrong));
    }
    if checks.unreadable > 0 {
        problems.push(format!("{} structures can't be read", checks.unreadable));
    }
    let table = formats::partitions(&**device).ok().flatten();
    problems.extend(
        table.iter().flat_map(|table| table.problems.iter().map(|p| format!("partition table: {p}"))),
    );
    let healthy = problems.is_empty();
    good.extend(problems);
    let health = if good.is_empty() { "nothing to check".to_owned() } else { good.join("; ") };
    volumes.push(Volume {
        name: name.to_owned(),
        kind,
        size,
        holds,
        content: content_name,
        health,
        healthy,
        device: Some(Arc::clone(device)),
    });
    // Boot sectors of file systems may look like partition tables.
    let file_system = volumes.last().is_some_and(|volume| {
        volume.content.as_deref().is_some_and(|kind| !matches!(kind, "gpt" | "mbr" | "bsd-disklabel"))
    });
    for partition in table.into_iter().filter(|_| !file_system).flat_map(|table| table.partitions) {
        let name = format!("{name}-p{}", partition.number);
        if let Ok(device) = logical::slice(&name, device, partition.start, partition.size) {
            look(volumes, physical, &name, "partition", &device, depth + 1);
        }
    }
}

impl Volume {
    /// The device.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open(&self) -> Result<Arc<dyn BlockDevice>, RescueError> {
        let refuse = || RescueError::Volume { name: self.name.clone(), why: self.health.clone() };
        self.device.clone().ok_or_else(refuse)
    }
}
