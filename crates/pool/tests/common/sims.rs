//! Pools on simulated disks whose faults a test chooses.
#![allow(clippy::unwrap_used, dead_code)]

use std::sync::Arc;

use device::{BlockDevice, SimDevice};
use pool::Pool;
use pool::report::{State, VdevReport};
use pool::spec::{GroupKind, GroupSpec, NewDevice};

use super::MIB;

pub struct Sims(pub Vec<Arc<SimDevice>>);

impl Sims {
    pub fn new(count: usize, size_mib: u64) -> Self {
        Self(
            (0..count).map(|i| Arc::new(SimDevice::new(format!("s{i}"), size_mib * MIB, i as u64))).collect(),
        )
    }

    pub fn new_device(&self, index: usize) -> NewDevice {
        NewDevice::new(self.0[index].clone(), format!("/sims/s{index}"))
    }

    pub fn group(&self, kind: GroupKind, which: impl IntoIterator<Item = usize>) -> GroupSpec<NewDevice> {
        GroupSpec { kind, devices: which.into_iter().map(|i| self.new_device(i)).collect() }
    }

    pub fn without(&self, gone: &[usize]) -> Vec<NewDevice> {
        (0..self.0.len()).filter(|i| !gone.contains(i)).map(|i| self.new_device(i)).collect()
    }

    /// Silent damage to everything between the labels.
    pub fn spoil(&self, index: usize) {
        let size = self.0[index].size().unwrap();
        self.0[index].overwrite(2 * MIB, &vec![0x5a; (size - 4 * MIB) as usize]);
    }
}

/// The line of a device, wherever it is in the tree.
pub fn line(pool: &mut Pool, index: usize) -> VdevReport {
    fn find(lines: &[VdevReport], name: &str) -> Option<VdevReport> {
        lines.iter().find_map(|line| {
            let here = line.name == name || line.note.as_deref() == Some(&format!("was {name}"));
            if here { Some(line.clone()) } else { find(&line.children, name) }
        })
    }
    let status = pool.status();
    find(&status.vdevs, &format!("/sims/s{index}"))
        .unwrap_or_else(|| panic!("s{index} is not in {status:#?}"))
}

pub fn state(pool: &mut Pool, index: usize) -> State {
    line(pool, index).state
}
