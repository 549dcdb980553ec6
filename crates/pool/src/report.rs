//! What the pool tells about itself: plain data that a command line, a daemon or a test renders.
//!
//! Sizes are bytes, times are [`Millis`]. The same values stand behind the text and the JSON output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::Task;
use crate::types::{DeviceId, Guid, Logical, Millis, Txg};

/// Health of a pool, vdev or device, from best to worst, with the words of `zpool status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Working.
    Online,
    /// Working with less redundancy, or with more errors than is acceptable.
    Degraded,
    /// Taken out by `coffer offline`.
    Offline,
    /// Could not be opened.
    Unavail,
    /// Pulled while in use.
    Removed,
    /// Too many errors, or contents that are not what was expected.
    Faulted,
    /// The pool waits for devices to return: requests are held or failed (property `failmode`).
    Suspended,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Online => "ONLINE",
            Self::Degraded => "DEGRADED",
            Self::Offline => "OFFLINE",
            Self::Unavail => "UNAVAIL",
            Self::Removed => "REMOVED",
            Self::Faulted => "FAULTED",
            Self::Suspended => "SUSPENDED",
        })
    }
}

/// Error counters of a device, since the last `clear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Reads that failed.
    pub read: u64,
    /// Writes and flushes that failed.
    pub write: u64,
    /// Reads that returned wrong data.
    pub checksum: u64,
}

/// One line of the config section of `status`, with the lines below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdevReport {
    /// `raidz2-0`, `mirror-1`, `replacing-0`, `spare-0`, or a device's name (its guid when it could not be opened at import).
    pub name: String,
    /// Identity; 0 for vdevs that are no device.
    pub guid: Guid,
    /// Health.
    pub state: State,
    /// Error counters; a group's are those that could not be blamed on one child.
    pub errors: Counters,
    /// Shown at the end of the line, such as `was /dev/sdb1` or `(resilvering)`.
    pub note: Option<String>,
    /// Lines below.
    pub children: Vec<VdevReport>,
}

/// A spare of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareReport {
    /// Device name.
    pub name: String,
    /// Identity.
    pub guid: Guid,
    /// `AVAIL`, `INUSE`, `UNAVAIL`.
    pub state: String,
    /// Shown at the end of the line, such as `currently in use`.
    pub note: Option<String>,
}

/// What a scan is doing or did last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanKind {
    /// Verify everything.
    Scrub,
    /// Bring devices up to date.
    Resilver,
    /// Relocate what is in chunks.
    Balance,
    /// Relocate what is on devices that leave.
    Remove,
    /// Relocate what a group of another kind now has in its former layout.
    Convert,
    /// Relocate what lies behind the new end of a device.
    Resize,
}

/// Where a scan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanState {
    /// Going on.
    Running,
    /// Paused by the user.
    Paused,
    /// Came to its end.
    Finished,
    /// Stopped by the user.
    Canceled,
}

impl ScanState {
    /// Its number on disk.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Running => 1,
            Self::Paused => 2,
            Self::Finished => 3,
            Self::Canceled => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Running, Self::Paused, Self::Finished, Self::Canceled]
            .into_iter()
            .find(|state| state.code() == code)
    }
}

/// A balance, going on or past.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceReport {
    /// Where it stands.
    pub state: ScanState,
    /// When it began.
    pub started: Millis,
    /// When it ended or was paused.
    pub ended: Option<Millis>,
    /// Chunks that passed the filters when it began.
    pub expected: u64,
    /// Chunks that there were then.
    pub chunks: u64,
    /// Chunks that were looked at.
    pub considered: u64,
    /// Chunks that were relocated.
    pub completed: u64,
    /// Bytes relocated, never more than `total`.
    pub done: u64,
    /// Bytes to relocate in all.
    pub total: u64,
    /// Extents and nodes that can't be read: they stay where they are.
    pub errors: u64,
    /// Bytes per second, over the time that it ran.
    pub rate: u64,
    /// Seconds left at that rate; none when nothing can be said.
    pub eta_seconds: Option<u64>,
    /// Why it stopped early.
    pub trouble: Option<String>,
    /// What was asked for.
    pub task: Task,
}

/// What a balance would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancePlan {
    /// Each class that is to be balanced.
    pub classes: Vec<BalanceClass>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A class's part of a balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceClass {
    /// Its name.
    pub class: String,
    /// Chunks to be relocated.
    pub chunks: u64,
    /// Bytes that live in them.
    pub bytes: u64,
}

/// Progress of a scrub or resilver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// What it is.
    pub kind: ScanKind,
    /// Where it stands.
    pub state: ScanState,
    /// When it began.
    pub started: Millis,
    /// When it ended or was paused.
    pub ended: Option<Millis>,
    /// Bytes done, never more than `total`.
    pub done: u64,
    /// Bytes to do in all.
    pub total: u64,
    /// Bytes repaired or resilvered.
    pub repaired: u64,
    /// Errors that could not be repaired.
    pub errors: u64,
    /// Bytes per second, over the time that it ran.
    pub rate: u64,
    /// Seconds left at that rate; none when nothing can be said.
    pub eta_seconds: Option<u64>,
}

/// `coffer status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Pool name.
    pub name: String,
    /// Pool identity.
    pub guid: Guid,
    /// Health of the whole.
    pub state: State,
    /// What is wrong, in a sentence.
    pub status: Option<String>,
    /// What to do about it.
    pub action: Option<String>,
    /// Current or last scan.
    pub scan: Option<ScanReport>,
    /// Top-level vdevs.
    pub vdevs: Vec<VdevReport>,
    /// Spares.
    pub spares: Vec<SpareReport>,
    /// Other jobs that are running (destroy and the like), one sentence each.
    pub jobs: Vec<String>,
    /// The checkpoint, if there is one.
    pub checkpoint: Option<CheckpointReport>,
    /// Number of places with permanent errors.
    pub data_errors: u64,
    /// Those places, as `pool/volume@snapshot:<offset>` (at most some hundreds are kept).
    pub data_error_places: Vec<String>,
}

/// A checkpoint in `coffer status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// When it was taken.
    pub taken: Millis,
    /// The last transaction group that is in it.
    pub txg: Txg,
    /// Bytes that only it knows, nodes of volumes included: about what discarding it frees.
    pub held: u64,
    /// It is being discarded, and can't be gone back to.
    pub discarding: bool,
}

/// One combination of class and profile in `coffer usage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileUsage {
    /// `Data`, `Metadata` or `System`.
    pub class: String,
    /// `single`, `DUP`, `RAID1`, ..., `mirror`, `raidz2`.
    pub profile: String,
    /// Logical bytes that its chunks can hold.
    pub size: u64,
    /// Logical bytes in use.
    pub used: u64,
    /// Raw bytes on each device, by device number.
    pub devices: Vec<(DeviceId, u64)>,
}

/// One device in `coffer usage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUsage {
    /// Device number.
    pub id: DeviceId,
    /// Name, or `missing`.
    pub name: String,
    /// Size, bytes.
    pub size: u64,
    /// Bytes that belong to no chunk.
    pub unallocated: u64,
    /// It is not there.
    pub missing: bool,
}

/// `coffer usage`, the numbers of `btrfs filesystem usage`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// Pool name.
    pub pool: String,
    /// Sum of device sizes.
    pub device_size: u64,
    /// Raw bytes that belong to chunks.
    pub device_allocated: u64,
    /// Raw bytes that belong to none.
    pub device_unallocated: u64,
    /// Raw bytes on devices that are missing.
    pub device_missing: u64,
    /// Raw bytes in use inside chunks.
    pub used: u64,
    /// Logical bytes that can still be written, estimated with the profile that new chunks get.
    pub free_estimated: u64,
    /// The same if the rest were allocated with the most expensive profile in use.
    pub free_min: u64,
    /// What `df` would show.
    pub free_statfs: u64,
    /// Raw bytes per logical byte of data.
    pub data_ratio: f64,
    /// Raw bytes per logical byte of metadata.
    pub metadata_ratio: f64,
    /// Bytes kept back so that a full pool can still delete.
    pub global_reserve: u64,
    /// How much of that is in use.
    pub global_reserve_used: u64,
    /// More than one profile within a class.
    pub multiple_profiles: bool,
    /// By class and profile.
    pub profiles: Vec<ProfileUsage>,
    /// By device.
    pub devices: Vec<DeviceUsage>,
}

/// A pool in `coffer list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// Name.
    pub name: String,
    /// Identity.
    pub guid: Guid,
    /// Raw size; of mirrors one side counts, here and below.
    pub size: u64,
    /// Raw bytes in use.
    pub alloc: u64,
    /// Raw bytes free.
    pub free: u64,
    /// Bytes that the checkpoint holds back; none without one.
    pub checkpoint: Option<u64>,
    /// Per cent of the free space inside chunks that is fragmented.
    pub fragmentation: u8,
    /// Per cent in use.
    pub capacity: u8,
    /// Health.
    pub health: State,
}

/// A volume or snapshot in `coffer list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRow {
    /// `pool/vol` or `pool/vol@snap`.
    pub name: String,
    /// `volume` or `snapshot`.
    pub kind: String,
    /// Bytes that destroying it would free (a volume: with its snapshots and reservation).
    pub used: u64,
    /// Bytes that can still be written to it.
    pub available: u64,
    /// Bytes it refers to.
    pub referenced: u64,
    /// Size of the volume.
    pub volsize: u64,
    /// When it was made.
    pub created: Millis,
}

/// One placement of a column in `coffer map`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementReport {
    /// Which column of the chunk.
    pub column: u16,
    /// Device number.
    pub device: DeviceId,
    /// Device name.
    pub name: String,
    /// Where on it, bytes.
    pub offset: u64,
    /// Regions not up to date.
    pub stale_regions: u32,
    /// Regions in all.
    pub regions: u32,
}

/// One chunk in `coffer map`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkReport {
    /// Logical address.
    pub address: Logical,
    /// Logical bytes it can hold.
    pub length: u64,
    /// `Data`, `Metadata` or `System`.
    pub class: String,
    /// Profile, as in `usage`.
    pub profile: String,
    /// It is being emptied, or will be: it takes nothing new.
    pub closed: bool,
    /// Top-level vdev it belongs to.
    pub group: String,
    /// Logical bytes in use.
    pub used: u64,
    /// Bytes of each column.
    pub column_length: u64,
    /// Where its columns are.
    pub placements: Vec<PlacementReport>,
}

/// Addresses whose contents were relocated: no chunk is there any more, or one that is being emptied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemappedReport {
    /// The first home.
    pub address: Logical,
    /// Behind the last one.
    pub end: Logical,
    /// Class of the chunks that they lead to.
    pub class: String,
    /// Entries of the remap table.
    pub entries: u64,
    /// Bytes that live elsewhere.
    pub bytes: u64,
}

/// One administrative command in `coffer history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub time: Millis,
    /// In which transaction group.
    pub txg: Txg,
    /// The command as it was given.
    pub command: String,
}

/// One event in `coffer events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rising number.
    pub id: u64,
    /// When.
    pub time: Millis,
    /// Such as `checksum`, `io`, `statechange`, `resilver_start`, `scrub_finish`, `config_sync`.
    pub class: String,
    /// Device it is about.
    pub device: Option<String>,
    /// One sentence.
    pub message: String,
}

/// A property of the pool or a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropertyRow {
    /// Pool or dataset.
    pub name: String,
    /// Property.
    pub property: String,
    /// Value as text.
    pub value: String,
    /// `default`, `local` or `-` (read-only).
    pub source: String,
}

/// `coffer check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// What is wrong, a sentence each; empty when all is well.
    pub problems: Vec<String>,
    /// Tree nodes visited.
    pub nodes: u64,
    /// Extents visited.
    pub extents: u64,
    /// References from datasets and snapshots to extents.
    pub references: u64,
    /// Chunks.
    pub chunks: u64,
}

/// What a planned or finished administrative step means, for `-n` and for the one-line notices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What will be (or was) done, a sentence each.
    pub steps: Vec<String>,
    /// What the user should know, a sentence each.
    pub notices: Vec<String>,
}

/// What a change would come to: `coffer plan`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// What will be done.
    pub plan: Plan,
    /// The pool as it is; `None` where it is to be made.
    pub now: Option<PoolShape>,
    /// The pool when all is done.
    pub then: PoolShape,
    /// What happens on the way, in order.
    pub steps: Vec<ForecastStep>,
}

/// Room and redundancy of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolShape {
    /// Logical bytes of data in use.
    pub used: u64,
    /// Logical bytes of data that still fit.
    pub available: u64,
    /// Failures of devices, whichever they are, that everything survives; `None` if something is lost.
    pub survives: Option<u16>,
    /// The top-level vdevs, all plain disks as one.
    pub vdevs: Vec<VdevShape>,
}

/// Redundancy of a top-level vdev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdevShape {
    /// `raidz2-0`, or `disks`.
    pub name: String,
    /// Devices in it.
    pub devices: u64,
    /// As [`PoolShape::survives`], of its devices.
    pub survives: Option<u16>,
}

/// A step of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastStep {
    /// What is done.
    pub what: String,
    /// Logical bytes moved, or bytes written to the one new device.
    pub bytes: u64,
    /// Bytes that the busiest device reads or writes for it.
    pub busiest: u64,
    /// As [`PoolShape::survives`], until it is done.
    pub survives: Option<u16>,
}

/// What would be lost if devices failed: `coffer whatif`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIfReport {
    /// Devices that work now, spares among them.
    pub devices: u64,
    /// Names of the others.
    pub away: Vec<String>,
    /// What is lost already.
    pub now: LossReport,
    /// What would be lost without the devices that were named.
    pub failed: Option<LossReport>,
    /// What would be lost without any so many devices, for one number or several.
    pub any: Vec<AnyReport>,
}

/// What would be lost without some devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// Their names.
    pub devices: Vec<String>,
    /// Bytes of data.
    pub data: u64,
    /// Bytes of metadata: without all of it nothing may be found any more.
    pub metadata: u64,
    /// Bytes that could be read, but would not survive any further loss.
    pub bare: u64,
    /// Names of the volumes and snapshots that would lose data. Told for what was asked for and for the worst set.
    pub datasets: Vec<String>,
    /// Names of those of which that is not known: they can't be read now, or would take too long.
    pub unknown: Vec<String>,
}

/// What would be lost without any so many devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnyReport {
    /// How many devices fail at once.
    pub count: u64,
    /// How many sets of so many devices there are, 2^64-1 if more.
    pub sets: u64,
    /// Of these, how many lose something; none if they are too many to be tried.
    pub fatal: Option<u64>,
    /// Whether no other set can be worse than those that are named.
    pub exact: bool,
    /// The worst, worst first.
    pub worst: Vec<LossReport>,
}

/// A pool found by looking at labels, in `coffer import` without a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundPool {
    /// Name.
    pub name: String,
    /// Identity.
    pub guid: Guid,
    /// Health it would have.
    pub state: State,
    /// What is wrong.
    pub status: Option<String>,
    /// What to do.
    pub action: Option<String>,
    /// Last used by another host and not exported.
    pub foreign_host: Option<String>,
    /// The configuration as the labels tell it.
    pub vdevs: Vec<VdevReport>,
    /// Its spares.
    pub spares: Vec<SpareReport>,
}
