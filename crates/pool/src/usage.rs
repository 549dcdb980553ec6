//! The numbers of `btrfs filesystem usage`.

use std::collections::BTreeMap;

use geometry::Kind;

use crate::alloc::{Purpose, is_on_one};
use crate::chunk::{COLUMN_HEADER, Chunk, Class};
use crate::core::{Group, Relation};
use crate::pool::Pool;
use crate::report::{DeviceUsage, ProfileUsage, UsageReport};
use crate::spec::GroupKind;
use crate::types::{DeviceId, GroupId};

impl Pool {
    /// What a chunk's layout is called: btrfs's name on plain disks, the group's kind elsewhere.
    pub(crate) fn profile_name(&self, chunk: &Chunk) -> String {
        let kind = self.core.groups.get(&chunk.group).map(|group| group.kind);
        let copies = chunk.layout.columns();
        match (kind, chunk.layout.kind()) {
            (Some(GroupKind::Mirror | GroupKind::Raidz(_)), Kind::Parity { parity }) => {
                format!("raidz{parity}")
            }
            (Some(GroupKind::Draid(_)), Kind::Parity { parity }) => format!("draid{parity}"),
            (Some(GroupKind::Mirror), _) if !self.core.is_to_be_converted(chunk) => "mirror".to_owned(),
            // Nodes, and what is too short for a row, are kept in copies: btrfs has names for that.
            (Some(GroupKind::Mirror | GroupKind::Raidz(_) | GroupKind::Draid(_)), _) if copies == 2 => {
                "RAID1".to_owned()
            }
            (Some(GroupKind::Mirror | GroupKind::Raidz(_) | GroupKind::Draid(_)), _) => {
                format!("RAID1C{copies}")
            }
            (_, Kind::Copies) => match copies {
                1 => "single".to_owned(),
                2 if is_on_one(chunk) => "DUP".to_owned(),
                2 => "RAID1".to_owned(),
                copies => format!("RAID1C{copies}"),
            },
            (_, Kind::Stripe) => "RAID0".to_owned(),
            (_, Kind::StripedCopies { .. }) => "RAID10".to_owned(),
            (_, Kind::Parity { parity: 1 }) => "RAID5".to_owned(),
            (_, Kind::Parity { parity }) => format!("RAID{}", parity + 4),
        }
    }

    /// `coffer usage`.
    pub fn usage(&self) -> UsageReport {
        let core = &self.core;
        let mut profiles: BTreeMap<(Class, String), ProfileUsage> = BTreeMap::new();
        let (mut allocated, mut used_raw) = (0, 0);
        // Raw and logical bytes by class, for the ratios.
        let mut sums: BTreeMap<Class, (u64, u64)> = BTreeMap::new();
        for chunk in core.map.iter() {
            let used = if chunk.class == Class::Data { chunk.used } else { self.live_bytes(chunk.address) };
            let name = self.profile_name(chunk);
            let entry = profiles.entry((chunk.class, name.clone())).or_insert_with(|| ProfileUsage {
                class: chunk.class.name().to_owned(),
                profile: name,
                size: 0,
                used: 0,
                devices: Vec::new(),
            });
            entry.size += chunk.length();
            entry.used += used;
            for (_, placement) in chunk.placements() {
                let raw = chunk.column_bytes + COLUMN_HEADER;
                allocated += raw;
                match entry.devices.iter_mut().find(|(device, _)| *device == placement.device) {
                    Some((_, bytes)) => *bytes += raw,
                    None => entry.devices.push((placement.device, raw)),
                }
            }
            let (columns, units) =
                (u64::from(chunk.layout.columns()), u64::from(chunk.layout.data_units()).max(1));
            used_raw += used * columns / units;
            let sum = sums.entry(chunk.class).or_default();
            sum.0 += chunk.column_bytes * columns;
            sum.1 += chunk.length();
        }
        let members: Vec<_> =
            core.devices.values().filter(|d| !matches!(d.relation, Relation::Spare)).collect();
        let devices: Vec<DeviceUsage> = members
            .iter()
            .map(|device| DeviceUsage {
                id: device.id,
                name: if device.handle.is_some() { device.name() } else { "missing".to_owned() },
                size: device.capacity(),
                unallocated: device.unallocated(),
                missing: device.handle.is_none(),
            })
            .collect();
        let ratio = |class: Class, purpose: Purpose| {
            let (raw, logical) = sums.get(&class).copied().unwrap_or_default();
            let planned = core.groups.keys().find_map(|&group| core.plan_chunk(group, purpose, None));
            match (logical, planned) {
                (1.., _) => raw as f64 / logical as f64,
                (0, Some(plan)) => {
                    f64::from(plan.layout.columns()) / f64::from(plan.layout.data_units().max(1))
                }
                (0, None) => 1.0,
            }
        };
        let data_ratio = ratio(Class::Data, Purpose::Data);
        let metadata_ratio = ratio(Class::Metadata, Purpose::Metadata);
        let unallocated: u64 = devices.iter().map(|device| device.unallocated).sum();
        let free = self.available(None);
        let inside: u64 =
            profiles.values().filter(|p| p.class == "Data").map(|p| p.size.saturating_sub(p.used)).sum();
        let worst = data_ratio.max(metadata_ratio).max(1.0);
        let by_class = |class: Class| profiles.keys().filter(|(known, _)| *known == class).count();
        let reserve = self.global_reserve();
        UsageReport {
            pool: core.name.clone(),
            device_size: members.iter().map(|device| device.capacity()).sum(),
            device_allocated: allocated,
            device_unallocated: unallocated,
            device_missing: members
                .iter()
                .filter(|device| device.handle.is_none())
                .map(|device| device.capacity())
                .sum(),
            used: used_raw,
            free_estimated: free,
            free_min: free.min(inside + (unallocated as f64 / worst) as u64),
            free_statfs: free,
            data_ratio,
            metadata_ratio,
            global_reserve: reserve,
            global_reserve_used: 0,
            multiple_profiles: [Class::Data, Class::Metadata, Class::System].into_iter().any(|class| {
                // The mirrored remainders of a parity group belong to its profile.
                by_class(class) > 1 + usize::from(class == Class::Data && self.has_parity_groups())
            }),
            profiles: profiles.into_values().collect(),
            devices,
        }
    }

    fn has_parity_groups(&self) -> bool {
        self.core.groups.values().any(Group::has_parity)
    }

    /// Logical bytes of metadata that the slots kept free on devices come to.
    fn global_reserve(&self) -> u64 {
        let mut seen: BTreeMap<GroupId, u64> = BTreeMap::new();
        for group in self.core.groups.values() {
            let slots = group.devices.iter().filter_map(|id: &DeviceId| self.core.devices.get(id));
            let raw: u64 = slots.map(crate::alloc::reserve).sum();
            let copies = self
                .core
                .plan_chunk(group.id, Purpose::Metadata, None)
                .map_or(1, |plan| plan.layout.columns());
            seen.insert(group.id, raw / u64::from(copies.max(1)));
        }
        seen.values().sum()
    }
}
