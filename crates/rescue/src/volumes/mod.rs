//! What lies on an array: partitions, logical volumes, arrays within them, and what is on each.
//!
//! ```text
//! Plan --assemble--> arrays --discover--> the array itself, partitions, logical volumes, nested ones: Volume, Volume, ...
//! ```
//!
//! A volume's name is made of what it is part of: `ARRAY`, `ARRAY-p1`, `GROUP/VOLUME`.

mod logical;
mod mapped;
mod nested;
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
    /// The same in a word.
    pub state: VolumeState,
    /// The volume that it is a partition of, and its first byte there.
    #[serde(skip)]
    pub within: Option<(String, u64)>,
    /// The device; `None` if it can't be put together.
    #[serde(skip)]
    pub device: Option<Arc<dyn BlockDevice>>,
}

/// How a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    /// What is on it was recognised, nothing that was looked at is wrong, and it can be read.
    Ok,
    /// Nothing on it was recognised, so that nothing could be looked at.
    Unknown,
    /// Something is wrong.
    Damaged,
}

/// The candidates that go together: the best of each array, none using a member of a better one. With `number`, counted
/// from 1, only that one.
///
/// # Errors
/// No candidate names a member, or there is none with that number.
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
        return Err(RescueError::Members { count: plan.candidates.len() });
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
    let mut finding = Finding::default();
    for (name, device) in arrays {
        finding.look(name, "array", device, 0);
    }
    // Volume groups and arrays may lie on volumes of any depth, and hold volumes again.
    let mut known = BTreeSet::new();
    for depth in 1..=DEPTH_MAX {
        let before = (finding.physical.scans.len(), finding.members.count());
        for array in finding.members.arrays() {
            if known.insert((array.id.clone(), array.found)) {
                finding.array(array, depth);
            }
        }
        for group in finding.physical.groups() {
            let there = group.members.iter().filter(|member| member.is_some()).count();
            if known.insert((group.volumes.uuid.clone().into_bytes(), there)) {
                finding.group(&group, depth);
            }
        }
        if (finding.physical.scans.len(), finding.members.count()) == before {
            break;
        }
    }
    finding.volumes
}

/// What was found until now.
#[derive(Default)]
struct Finding {
    volumes: Vec<Volume>,
    /// Physical volumes of LVM2.
    physical: logical::Found,
    /// Members of arrays.
    members: nested::Members,
}

impl Finding {
    fn absent(&mut self, name: String, kind: &'static str, size: u64, why: String) {
        self.volumes.push(Volume {
            name,
            kind,
            size,
            holds: Vec::new(),
            content: None,
            health: why,
            state: VolumeState::Damaged,
            within: None,
            device: None,
        });
    }

    /// Adds an array whose members are volumes; of one that was found with fewer members before, nothing is left.
    fn array(&mut self, array: nested::Nested, depth: usize) {
        let plain = volume_name(&array.name, &[]);
        let of_it = |volume: &Volume| {
            volume.kind == "nested array" && volume.name == plain
                || volume.name.starts_with(&format!("{plain}-p"))
        };
        if self.volumes.iter().any(|volume| volume.kind == "nested array" && of_it(volume)) {
            self.volumes.retain(|volume| !of_it(volume));
        }
        let taken: Vec<String> = self.volumes.iter().map(|volume| volume.name.clone()).collect();
        let name = volume_name(&array.name, &taken);
        let first = self.volumes.len();
        match array.device {
            Ok(device) => self.look(&name, "nested array", &device, depth),
            Err(why) => self.absent(name, "nested array", 0, why),
        }
        if let Some(volume) = self.volumes.get_mut(first).filter(|_| !array.problems.is_empty()) {
            let _ = write!(volume.health, "; {}", array.problems.join("; "));
        }
    }

    /// Adds the logical volumes of a group, and what is on them.
    fn group(&mut self, group: &formats::lvm::Group, depth: usize) {
        let clean = |text: &str| volume_name(text, &[]);
        let prefix = format!("{}/", clean(&group.volumes.name));
        self.volumes.retain(|volume: &Volume| !volume.name.starts_with(&prefix));
        let problems = group.problems.join("; ");
        for (lv, volume) in group.volumes.logical.iter().enumerate() {
            if !logical::shown(group, lv) || self.volumes.len() >= VOLUMES_MAX {
                continue;
            }
            let first = self.volumes.len();
            let name = format!("{prefix}{}", clean(&volume.name));
            match logical::open(group, &self.physical, lv) {
                Ok(device) => self.look(&name, "logical volume", &device, depth),
                Err(why) => self.absent(name, "logical volume", volume.size, why),
            }
            let whole = group.volumes.physical_of(lv).iter().all(|pv| group.members[*pv].is_some());
            for volume in self.volumes.iter_mut().skip(first).filter(|_| !problems.is_empty()) {
                let _ = write!(volume.health, "; of its group: {problems}");
                if !whole {
                    volume.state = VolumeState::Damaged;
                }
            }
        }
    }

    /// Adds a volume, and the partitions on it.
    fn look(&mut self, name: &str, kind: &'static str, device: &Arc<dyn BlockDevice>, depth: usize) {
        if depth > DEPTH_MAX || self.volumes.len() >= VOLUMES_MAX {
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
                    self.physical.look(device);
                }
                if found.iter().any(|found| matches!(found.kind, Kind::Md(_))) {
                    self.members.look(name, device);
                }
                if found.iter().any(|found| found.kind == Kind::Raidframe) {
                    self.members.look_for_label(name, device);
                }
                if found.iter().any(|found| matches!(found.kind, Kind::Luks1 | Kind::Luks2)) {
                    good.push("its header is whole; open it with cryptsetup".to_owned());
                }
            }
            Err(error) => problems.push(format!("what is on it can't be read: {error}")),
        }
        let checks = content::check(&**device);
        let all = checks.right + checks.wrong;
        if all > 0 {
            good.push(format!("{} of {all} structures of its file system fit", checks.right));
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
        let state = match (problems.is_empty(), holds.is_empty()) {
            (false, _) => VolumeState::Damaged,
            (true, true) => VolumeState::Unknown,
            (true, false) => VolumeState::Ok,
        };
        good.extend(problems);
        let health = if good.is_empty() { "nothing to check".to_owned() } else { good.join("; ") };
        // Boot sectors of file systems may look like partition tables.
        let tables = ["gpt", "mbr", "bsd-disklabel"];
        let file_system = content_name.as_deref().is_some_and(|kind| !tables.contains(&kind));
        self.volumes.push(Volume {
            name: name.to_owned(),
            kind,
            size,
            holds,
            content: content_name,
            health,
            state,
            within: None,
            device: Some(Arc::clone(device)),
        });
        for partition in table.into_iter().filter(|_| !file_system).flat_map(|table| table.partitions) {
            let own = format!("{name}-p{}", partition.number);
            if let Ok(device) = logical::slice(&own, device, partition.start, partition.size) {
                let number = self.volumes.len();
                self.look(&own, "partition", &device, depth + 1);
                if let Some(volume) = self.volumes.get_mut(number) {
                    volume.within = Some((name.to_owned(), partition.start));
                }
            }
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
