//! One device of a pool, and the groups that devices form.

use std::collections::VecDeque;
use std::sync::Arc;

use device::BlockDevice;
use geometry::Profile;

use crate::codec::{DecodeError, Reader, Writer};
use crate::label;
use crate::report::{Counters, State};
use crate::space::{Deferred, FreeRuns};
use crate::spec::{Draid, GroupKind};
use crate::types::{DeviceId, GroupId, Guid};

/// Why a device stands beside another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// It will take its place.
    Replacement,
    /// It is a spare that stepped in by itself, and goes back by itself.
    Spare,
    /// It is a spare that somebody called, and that stays until it or the original is detached.
    Called,
}

impl StandIn {
    /// Its number on disk, as a device's relation.
    fn code(self) -> u8 {
        match self {
            Self::Replacement => 2,
            Self::Spare => 3,
            Self::Called => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Replacement, Self::Spare, Self::Called].into_iter().find(|how| how.code() == code)
    }

    /// Whether it is a spare, in whatever way it came.
    pub(crate) fn is_spare(self) -> bool {
        self != Self::Replacement
    }
}

/// What a device is to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Listed in a group.
    Member(GroupId),
    /// Holds copies of another device's columns.
    For(DeviceId, StandIn),
    /// A spare that waits.
    Spare,
}

/// A device of the pool, there or not.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) guid: Guid,
    /// Path by which to find it.
    pub(crate) path: String,
    /// Bytes that the pool uses of it, labels included.
    pub(crate) size: u64,
    pub(crate) relation: Relation,
    /// It is on the list of spares, in use or not.
    pub(crate) spare: bool,
    /// Taken out by `offline`; with `temporary` only until the next import.
    pub(crate) offline: bool,
    pub(crate) temporary: bool,
    /// Too many errors, or not what it should be.
    pub(crate) faulted: bool,
    /// More errors than acceptable, still in use.
    pub(crate) degraded: bool,
    /// Vanished while in use.
    pub(crate) removed: bool,
    /// The source of a replacement that is read only where nothing else is left (`replace -r`).
    pub(crate) avoid_reads: bool,
    /// What is on it goes elsewhere: nothing new is put there.
    pub(crate) leaving: bool,
    /// A spare was detached from it by hand: none steps in until it has worked again.
    pub(crate) spare_declined: bool,
    pub(crate) errors: Counters,
    /// Times of recent I/O and checksum errors, milliseconds.
    pub(crate) recent: (VecDeque<u64>, VecDeque<u64>),
    /// The open device; none when it is not there.
    pub(crate) handle: Option<Arc<dyn BlockDevice>>,
    /// Bytes that belong to no placement.
    pub(crate) free: FreeRuns,
    /// Where it is to end, bytes: nothing behind that is free.
    pub(crate) limit: Option<u64>,
    /// Placements that older roots still name.
    pub(crate) deferred: Deferred<(u64, u64)>,
    /// It was never opened since the import: shown by guid.
    pub(crate) never_seen: bool,
    /// It joins with the open transaction group and has no label yet.
    pub(crate) joins: bool,
}

impl Device {
    pub(crate) fn new(id: DeviceId, guid: Guid, path: String, size: u64, relation: Relation) -> Self {
        let mut free = FreeRuns::default();
        let end = label::data_end(size);
        free.insert(label::DATA_START, end.saturating_sub(label::DATA_START));
        Self {
            id,
            guid,
            path,
            size,
            relation,
            spare: relation == Relation::Spare,
            offline: false,
            temporary: false,
            faulted: false,
            degraded: false,
            removed: false,
            avoid_reads: false,
            leaving: false,
            spare_declined: false,
            errors: Counters::default(),
            recent: (VecDeque::new(), VecDeque::new()),
            handle: None,
            free,
            limit: None,
            deferred: Deferred::default(),
            never_seen: true,
            joins: false,
        }
    }

    /// Whether it can be read and written now.
    pub(crate) fn usable(&self) -> bool {
        self.handle.is_some() && !self.offline && !self.faulted
    }

    /// The open device, if it can be used now.
    pub(crate) fn open(&self) -> Option<&Arc<dyn BlockDevice>> {
        self.handle.as_ref().filter(|_| self.usable())
    }

    /// Bytes that belong to no placement any more.
    pub(crate) fn give_back(&mut self, offset: u64, length: u64) {
        self.free.insert(offset, length);
        if let Some(limit) = self.limit {
            self.limit_to(limit);
        }
    }

    /// Nothing new is put behind this byte of it.
    pub(crate) fn limit_to(&mut self, limit: u64) {
        self.limit = Some(limit);
        self.free.remove(limit, label::data_end(self.size).saturating_sub(limit));
    }

    /// Its state in `status`.
    pub(crate) fn state(&self) -> State {
        if self.offline {
            State::Offline
        } else if self.handle.is_none() {
            if self.removed { State::Removed } else { State::Unavail }
        } else if self.faulted {
            State::Faulted
        } else if self.degraded {
            State::Degraded
        } else {
            State::Online
        }
    }

    /// Its name for people: the path, or the guid when it was not there at import.
    pub(crate) fn name(&self) -> String {
        if self.handle.is_none() && self.never_seen { self.guid.to_string() } else { self.path.clone() }
    }

    /// Bytes that chunks may use in all.
    pub(crate) fn capacity(&self) -> u64 {
        label::data_end(self.size).saturating_sub(label::DATA_START)
    }

    /// Bytes that no column takes, with those that are free once no older root is kept.
    pub(crate) fn unallocated(&self) -> u64 {
        self.free.total() + self.deferred.iter().map(|(_, length)| length).sum::<u64>()
    }

    /// What it is called by: path, last part of the path, or guid.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.path == name
            || self.path.strip_prefix("/dev/") == Some(name)
            || self.path.rsplit('/').next() == Some(name)
            || self.guid.to_string() == name
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.guid.0);
        w.u64(self.size);
        let (code, number) = match self.relation {
            Relation::Member(group) => (1, group.0),
            Relation::For(device, how) => (how.code(), device.0),
            Relation::Spare => (4, 0),
        };
        w.u8(code);
        w.u32(number);
        let flags = [
            self.spare,
            self.offline && !self.temporary,
            self.faulted,
            self.degraded,
            self.avoid_reads,
            self.leaving,
            self.spare_declined,
        ];
        w.u8(flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag)));
        w.u64(self.errors.read);
        w.u64(self.errors.write);
        w.u64(self.errors.checksum);
        w.text(&self.path);
        w.finish()
    }

    pub(crate) fn decode(id: DeviceId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("device item", bytes);
        let guid = Guid(r.u64("guid")?);
        let size = r.u64("size")?;
        let code = r.u8("relation")?;
        let number = r.u32("relation")?;
        let relation = match code {
            1 => Relation::Member(GroupId(number)),
            4 => Relation::Spare,
            other => match StandIn::from_code(other) {
                Some(how) => Relation::For(DeviceId(number), how),
                None => return Err(r.error("relation", format!("{other} is not known"))),
            },
        };
        let flags = r.u8("flags")?;
        if flags >> 7 != 0 {
            return Err(r.error(
                "flags",
                format!("are {flags:#x}, not all of which are known here; use a newer coffer"),
            ));
        }
        let flag = |index: u8| flags >> index & 1 == 1;
        let errors = Counters {
            read: r.u64("read errors")?,
            write: r.u64("write errors")?,
            checksum: r.u64("checksum errors")?,
        };
        let path = r.text("path")?;
        r.end()?;
        Ok(Self {
            spare: flag(0),
            offline: flag(1),
            faulted: flag(2),
            degraded: flag(3),
            avoid_reads: flag(4),
            leaving: flag(5),
            spare_declined: flag(6),
            errors,
            ..Self::new(id, guid, path, size, relation)
        })
    }
}

/// A top-level vdev: devices from which chunks are allocated by one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) kind: GroupKind,
    /// Its members, in the order given.
    pub(crate) devices: Vec<DeviceId>,
    /// Profile of new data chunks (plain disks).
    pub(crate) data: Profile,
    /// Profile of new metadata and system chunks (plain disks).
    pub(crate) metadata: Profile,
    /// Distributed spares: for which member each is in use, and how that came.
    pub(crate) spares: Vec<Option<(DeviceId, StandIn)>>,
}

impl Group {
    /// A group without devices.
    pub(crate) fn new(id: GroupId, kind: GroupKind, data: Profile, metadata: Profile) -> Self {
        let spares = kind.draid().map_or(0, |draid| usize::from(draid.spares));
        Self { id, kind, devices: Vec::new(), data, metadata, spares: vec![None; spares] }
    }

    /// `mirror-0`, `raidz2-1`, `draid1:4d:7c:1s-2`; plain disks have no line of their own.
    pub(crate) fn name(&self) -> String {
        match self.kind {
            GroupKind::Plain => "disks".to_owned(),
            GroupKind::Mirror => format!("mirror-{}", self.id.0),
            GroupKind::Raidz(parity) => format!("raidz{parity}-{}", self.id.0),
            GroupKind::Draid(draid) => format!("{}-{}", draid.name(self.devices.len()), self.id.0),
            GroupKind::Spare => "spares".to_owned(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        let (kind, argument) = match self.kind {
            GroupKind::Plain => (1, 0),
            GroupKind::Mirror => (2, 0),
            GroupKind::Raidz(parity) => (3, parity),
            GroupKind::Spare => (4, 0),
            GroupKind::Draid(draid) => (5, draid.parity),
        };
        w.u8(kind);
        w.u8(argument);
        w.text(&self.data.to_string());
        w.text(&self.metadata.to_string());
        w.u16(self.devices.len() as u16);
        self.devices.iter().for_each(|device| w.u32(device.0));
        if let GroupKind::Draid(draid) = self.kind {
            w.u8(draid.data);
            w.u8(draid.spares);
            for spare in &self.spares {
                let (device, how) = spare.map_or((0, 0), |(device, how)| (device.0, how.code()));
                w.u32(device);
                w.u8(how);
            }
        }
        w.finish()
    }

    pub(crate) fn decode(id: GroupId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("group item", bytes);
        let code = r.u8("kind")?;
        let argument = r.u8("kind argument")?;
        let kind = match (code, argument) {
            (1, 0) => GroupKind::Plain,
            (2, 0) => GroupKind::Mirror,
            (3, 1..=3) => GroupKind::Raidz(argument),
            (5, 1..=3) => GroupKind::Draid(Draid { parity: argument, data: 1, spares: 0 }),
            _ => return Err(r.error("kind", format!("{code}/{argument} is not known"))),
        };
        let mut profile = |field| -> Result<Profile, DecodeError> {
            let text = r.text(field)?;
            text.parse().map_err(|_| r.error(field, format!("'{text}' is not known")))
        };
        let data = profile("data profile")?;
        let metadata = profile("metadata profile")?;
        let mut devices = Vec::new();
        for _ in 0..r.u16("devices")? {
            devices.push(DeviceId(r.u32("device")?));
        }
        let mut group = Self { devices, ..Self::new(id, kind, data, metadata) };
        if let GroupKind::Draid(draid) = &mut group.kind {
            (draid.data, draid.spares) = (r.u8("data columns")?, r.u8("spares")?);
            if !draid.is_valid() {
                return Err(r.error("data columns", format!("{} are too few or too many", draid.data)));
            }
            for _ in 0..draid.spares {
                let (device, code) = (r.u32("spare's device")?, r.u8("spare's use")?);
                let how = StandIn::from_code(code);
                group.spares.push(match (how, code) {
                    (Some(how), _) if how.is_spare() => Some((DeviceId(device), how)),
                    (None, 0) => None,
                    _ => return Err(r.error("spare's use", format!("{code} is not known"))),
                });
            }
        }
        r.end()?;
        Ok(group)
    }
}
