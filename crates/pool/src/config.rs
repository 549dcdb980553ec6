//! The configuration as readable text in every label, and what labels tell without an import.

use std::collections::BTreeMap;

use device::BlockDevice;
use serde::{Deserialize, Serialize};

use crate::core::{Group, Relation};
use crate::error::{PoolError, Result};
use crate::label::{self, CONFIG_BYTES_MAX, Label};
use crate::pool::Pool;
use crate::report::{Counters, SpareReport, State, VdevReport};
use crate::spec::GroupKind;
use crate::types::{DeviceId, Guid, Session, Txg};

/// The text in the labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) guid: Guid,
    pub(crate) txg: Txg,
    pub(crate) host_id: u64,
    pub(crate) host_name: String,
    pub(crate) vdevs: Vec<ConfigVdev>,
    pub(crate) spares: Vec<ConfigVdev>,
}

/// The kind of a distributed spare; its child is the disk that it is in use for.
const DISTRIBUTED: &str = "distributed";

/// A line of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConfigVdev {
    pub(crate) name: String,
    pub(crate) kind: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) guid: Guid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) children: Vec<ConfigVdev>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(guid: &Guid) -> bool {
    guid.0 == 0
}

/// What a device's labels say about the pool it belongs to.
#[derive(Clone, Debug)]
pub struct LabelInfo {
    /// Name of the pool; empty when the configuration is damaged.
    pub pool_name: String,
    /// Identity of the pool.
    pub pool_guid: Guid,
    /// Identity of the device.
    pub device_guid: Guid,
    /// The last transaction group that the device knows.
    pub txg: Txg,
    /// The session in which the device was used last; 0 where it has no root.
    pub session: Session,
    /// The host that used the pool last.
    pub host_name: String,
    /// Identity of that host.
    pub host_id: u64,
    /// The pool was exported.
    pub exported: bool,
    /// How many of the four labels are damaged.
    pub damaged_labels: usize,
    /// The configuration, by the label.
    pub vdevs: Vec<VdevReport>,
}

/// A device of the pool and how to find it.
#[derive(Clone, Debug)]
pub struct DevicePath {
    /// Number within the pool.
    pub id: DeviceId,
    /// Identity.
    pub guid: Guid,
    /// Path.
    pub path: String,
    /// Health.
    pub state: State,
    /// It is open.
    pub is_open: bool,
    /// It was taken offline until the next import.
    pub temporary: bool,
}

impl Config {
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The text for labels. Where it would be too long it tells less: names without folders, then no names of disks,
    /// at last no disks.
    pub(crate) fn text(&self) -> String {
        let text = |config: &Self| serde_json::to_string(config).unwrap_or_default();
        let with = |change: &dyn Fn(&mut String)| {
            let mut less = self.clone();
            less.vdevs.iter_mut().chain(&mut less.spares).for_each(|vdev| vdev.rename(change));
            text(&less)
        };
        let in_steps: [&dyn Fn() -> String; 4] = [
            &|| text(self),
            &|| with(&|name| *name = name.rsplit('/').next().unwrap_or_default().to_owned()),
            &|| with(&String::clear),
            &|| text(&Self { vdevs: Vec::new(), spares: Vec::new(), ..self.clone() }),
        ];
        in_steps
            .into_iter()
            .map(|step| step())
            .find(|text| text.len() <= CONFIG_BYTES_MAX)
            .unwrap_or_default()
    }

    /// The configuration as a status tree; every device that `there` does not know is missing.
    pub(crate) fn report(&self, there: &dyn Fn(Guid) -> bool) -> Vec<VdevReport> {
        self.vdevs.iter().map(|vdev| vdev.report(there)).collect()
    }
}

impl ConfigVdev {
    /// Says where devices are now instead of where they were when the text was written.
    pub(crate) fn relocate(&mut self, paths: &BTreeMap<Guid, String>) {
        if let Some(path) = paths.get(&self.guid) {
            self.name.clone_from(path);
        }
        self.children.iter_mut().for_each(|child| child.relocate(paths));
    }

    /// Changes the names of disks.
    fn rename(&mut self, change: &dyn Fn(&mut String)) {
        if self.children.is_empty() {
            change(&mut self.name);
        }
        self.children.iter_mut().for_each(|child| child.rename(change));
    }

    /// Calls `each` for every disk.
    pub(crate) fn leaves(&self, each: &mut dyn FnMut(&Self)) {
        if self.children.is_empty() {
            return each(self);
        }
        self.children.iter().for_each(|child| child.leaves(each));
    }

    /// How many children of a mirror or raidz may be missing.
    pub(crate) fn tolerance(&self) -> Option<usize> {
        let raid = self.kind.strip_prefix("raidz").or_else(|| self.kind.strip_prefix("draid"));
        match (self.kind.as_str(), raid) {
            ("mirror", _) => Some(self.children.len().saturating_sub(1)),
            (_, Some(parity)) => Some(parity.get(..1).and_then(|digit| digit.parse().ok()).unwrap_or(1)),
            _ => None,
        }
    }

    /// The line of a spare.
    pub(crate) fn spare(&self, there: &BTreeMap<Guid, String>, config: &Config) -> SpareReport {
        if self.kind == DISTRIBUTED {
            let in_use = !self.children.is_empty();
            return SpareReport {
                name: self.name.clone(),
                guid: self.guid,
                state: if in_use { "INUSE" } else { "AVAIL" }.to_owned(),
                note: in_use.then(|| "currently in use".to_owned()),
            };
        }
        let mut in_use = false;
        config.vdevs.iter().for_each(|vdev| vdev.leaves(&mut |disk| in_use |= disk.guid == self.guid));
        let is_there = there.contains_key(&self.guid);
        let state = match (in_use, is_there) {
            (true, _) => "INUSE",
            (_, true) => "AVAIL",
            _ => "UNAVAIL",
        };
        SpareReport {
            name: if is_there { self.name.clone() } else { self.guid.to_string() },
            guid: self.guid,
            state: state.to_owned(),
            note: if is_there {
                in_use.then(|| "currently in use".to_owned())
            } else {
                Some(format!("was {}", self.name))
            },
        }
    }

    pub(crate) fn report(&self, there: &dyn Fn(Guid) -> bool) -> VdevReport {
        let children: Vec<VdevReport> = self.children.iter().map(|child| child.report(there)).collect();
        let state = if children.is_empty() {
            if there(self.guid) { State::Online } else { State::Unavail }
        } else {
            let tolerance = self.tolerance().unwrap_or(children.len() - 1);
            let gone = children.iter().filter(|child| child.state == State::Unavail).count();
            match children.iter().all(|child| child.state == State::Online) {
                true => State::Online,
                false if gone <= tolerance => State::Degraded,
                false => State::Unavail,
            }
        };
        let missing = children.is_empty() && state == State::Unavail;
        VdevReport {
            name: if missing { self.guid.to_string() } else { self.name.clone() },
            guid: self.guid,
            state,
            errors: Counters::default(),
            note: missing.then(|| format!("was {}", self.name)),
            children,
        }
    }
}

impl Pool {
    /// What the labels on a device say; `None` when it carries none of ours.
    ///
    /// # Errors
    /// The device can't tell its size.
    pub fn examine(device: &dyn BlockDevice) -> Result<Option<LabelInfo>> {
        let labels = label::read(device)?;
        let Some(label) = labels.label else { return Ok(None) };
        let config = Config::parse(&label.config);
        let newest = labels.uberblocks.first();
        Ok(Some(LabelInfo {
            pool_name: config.name.clone(),
            pool_guid: label.pool,
            device_guid: label.device,
            txg: newest.map_or(label.txg, |uberblock| uberblock.txg),
            session: newest.map_or(Session(0), |uberblock| uberblock.session),
            host_name: config.host_name.clone(),
            host_id: newest.map_or(config.host_id, |uberblock| uberblock.host),
            exported: newest.is_some_and(|uberblock| uberblock.exported),
            damaged_labels: labels.damaged.len(),
            vdevs: config.report(&|_| true),
        }))
    }

    /// Removes a pool's labels from a device that was part of it; nothing else is touched.
    ///
    /// # Errors
    /// It carries no label of ours (`force` clears damaged ones, too), belongs to a pool that was not exported
    /// (without `force`), or can't be written.
    pub fn label_clear(device: &dyn BlockDevice, force: bool) -> Result<()> {
        let name = &device.info().name;
        let none = || PoolError::refused(format!("{name} carries no label of a pool"));
        match Self::examine(device)? {
            None if !force => return Err(none()),
            Some(info) if !info.exported && !force => {
                return Err(PoolError::refused(format!(
                    "{name} belongs to pool '{}', which was not exported; use -f to clear it all the same",
                    info.pool_name
                )));
            }
            _ => {}
        }
        if label::clear_ours(device)? == 0 { Err(none()) } else { Ok(()) }
    }

    /// The configuration now.
    pub(crate) fn config(&self) -> Config {
        let core = &self.core;
        let leaf = |id: DeviceId| {
            let device = core.devices.get(&id);
            ConfigVdev {
                name: device.map(|device| device.path.clone()).unwrap_or_default(),
                kind: "disk".to_owned(),
                guid: device.map_or(Guid(0), |device| device.guid),
                children: Vec::new(),
            }
        };
        let member = |(index, &id): (usize, &DeviceId)| {
            let stand_ins = core.stand_ins(id);
            if stand_ins.is_empty() {
                return leaf(id);
            }
            let spare = stand_ins.iter().any(|other| {
                core.devices
                    .get(other)
                    .is_some_and(|d| matches!(d.relation, Relation::For(_, how) if how.is_spare()))
            });
            let kind = if spare { "spare" } else { "replacing" };
            let children = std::iter::once(id).chain(stand_ins).map(leaf).collect();
            ConfigVdev { name: format!("{kind}-{index}"), kind: kind.to_owned(), guid: Guid(0), children }
        };
        let mut vdevs = Vec::new();
        for group in core.groups.values() {
            let children: Vec<ConfigVdev> = group.devices.iter().enumerate().map(member).collect();
            if group.kind == GroupKind::Plain {
                vdevs.extend(children);
            } else {
                let kind = group.name().split('-').next().unwrap_or_default().to_owned();
                vdevs.push(ConfigVdev { name: group.name(), kind, guid: Guid(0), children });
            }
        }
        let distributed = core.groups.values().flat_map(Group::distributed).map(|(name, used)| ConfigVdev {
            name,
            kind: DISTRIBUTED.to_owned(),
            guid: Guid(0),
            children: used.into_iter().map(|(of, _)| leaf(of)).collect(),
        });
        Config {
            format: "cofferdam pool".to_owned(),
            version: 1,
            name: core.name.clone(),
            guid: core.guid,
            txg: core.txg,
            host_id: self.host.id,
            host_name: self.host.name.clone(),
            vdevs,
            spares: core
                .devices
                .values()
                .filter(|device| device.spare)
                .map(|device| leaf(device.id))
                .chain(distributed)
                .collect(),
        }
    }

    /// Writes the configuration into the labels of every open device: two labels of each, flush, the other two.
    pub(crate) fn write_labels(&mut self) {
        self.core.labels_dirty = false;
        let text = self.config().text();
        let open: Vec<_> = self
            .core
            .devices
            .values()
            .filter_map(|device| Some((device.id, device.guid, device.size, device.open()?.clone())))
            .collect();
        for which in [[0, 2], [1, 3]] {
            for (id, guid, size, handle) in &open {
                let label = Label {
                    pool: self.core.guid,
                    device: *guid,
                    id: *id,
                    size: *size,
                    txg: self.core.txg,
                    config: text.clone(),
                };
                if let Err(error) = label::write(&**handle, &label, &which) {
                    self.core.device_failed(*id, &error);
                }
            }
            self.core.flush_these(&open.iter().map(|(id, ..)| *id).collect());
        }
    }

    /// Labels the devices that join with the open transaction group, before any root names them: without a label
    /// such a device would be missing after a crash. Until a root names it, nobody misses it.
    pub(crate) fn write_first_labels(&mut self) {
        let joining: Vec<_> =
            self.core.devices.values().filter(|device| device.joins).map(|device| device.id).collect();
        if joining.is_empty() {
            return;
        }
        let config = self.config().text();
        for &id in &joining {
            let Some(device) = self.core.devices.get_mut(&id) else { continue };
            device.joins = false;
            let Some(handle) = device.open().cloned() else { continue };
            let label = Label {
                pool: self.core.guid,
                device: device.guid,
                id,
                txg: self.core.txg,
                size: device.size,
                config: config.clone(),
            };
            if let Err(error) = label::write(&*handle, &label, &[0, 1, 2, 3]) {
                self.core.device_failed(id, &error);
            }
        }
        self.core.flush_these(&joining.into_iter().collect());
    }

    /// Every device of the pool and where it was last seen.
    pub fn device_paths(&self) -> Vec<DevicePath> {
        self.core
            .devices
            .values()
            .map(|device| DevicePath {
                id: device.id,
                guid: device.guid,
                path: device.path.clone(),
                state: device.state(),
                is_open: device.handle.is_some(),
                temporary: device.offline && device.temporary,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(disks: u64, path: &str) -> Config {
        let disk = |number| ConfigVdev {
            name: format!("{path}{number:04}"),
            kind: "disk".to_owned(),
            guid: Guid(u64::MAX - number),
            children: Vec::new(),
        };
        Config { name: "tank".to_owned(), vdevs: (0..disks).map(disk).collect(), ..Config::default() }
    }

    /// The text of a pool of very many disks leaves out what it must, never its name.
    #[test]
    fn a_long_configuration_tells_less() {
        let path = "/dev/disk/by-id/ata-A_DISK_WITH_A_VERY_LONG_MODEL_NAME_AND_A_LONG_SERIAL_NUMBER-";
        let told = |disks| {
            let text = config(disks, path).text();
            assert!(text.len() <= CONFIG_BYTES_MAX);
            let back = Config::parse(&text);
            assert_eq!(back.name, "tank");
            (back.vdevs.len(), back.vdevs.first().map(|disk| disk.name.clone()))
        };
        let short = path.rsplit('/').next().map(|name| format!("{name}0000"));
        assert_eq!(told(10), (10, Some(format!("{path}0000"))));
        assert_eq!(told(900), (900, short));
        assert_eq!(told(2000), (2000, Some(String::new())));
        assert_eq!(told(5000), (0, None));
    }
}
