//! What can be asked of a pool, and what it answers: the same values are executed in this process or sent to
//! the process that holds the pool.

#![allow(missing_docs, reason = "the comment of a variant says what its fields are")]

use std::net::SocketAddr;
use std::path::PathBuf;

use pool::BalanceAction;
use pool::report::{
    BalancePlan, BalanceReport, CheckReport, ChunkReport, DatasetRow, Event, Forecast, HistoryEntry, Plan,
    PoolRow, PropertyRow, RemappedReport, ScanReport, StatusReport, UsageReport, WhatIfReport,
};
use pool::spec::{BalanceSpec, Resize};
use serde::{Deserialize, Serialize};

use crate::raid::{RaidReply, RaidRequest};

/// What to do with a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scrub {
    /// Begin, or go on with a paused one.
    Start,
    /// Pause.
    Pause,
    /// Stop.
    Stop,
}

/// Where a holder is to serve volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// NBD on a unix socket.
    NbdSocket(PathBuf),
    /// NBD on a TCP port.
    NbdListen(SocketAddr),
    /// Files in a folder.
    Fuse(PathBuf),
}

/// A change that is only looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// As [`Request::Add`].
    Add { vdevs: Vec<String>, force: bool },
    /// As [`Request::Remove`].
    Remove { devices: Vec<String> },
    /// As [`Request::Convert`].
    Convert { vdev: String, kind: String, force: bool },
    /// As [`Request::Replace`].
    Replace { device: String, new: Option<String>, force: bool },
}

/// A request to a pool. Names of volumes and snapshots are without the pool: `vol`, `vol@snap`; the pool itself is "".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Health.
    Status,
    /// Space.
    Usage,
    /// A line of `list`.
    Row,
    /// Volumes and snapshots.
    Datasets,
    /// Chunks.
    Map,
    /// Commands.
    History,
    /// Events younger than number `after`.
    Events { after: u64 },
    /// What would be lost without these devices, or any so many.
    WhatIf { failed: Vec<String>, any: Option<usize> },
    /// What a change would come to.
    Forecast { change: Change },
    /// Prove that the structures agree.
    Check,
    /// Progress of a scrub or resilver.
    Scan,
    /// Properties; all if none is named.
    Get { name: String, property: Option<String> },
    /// Set a property.
    Set { name: String, property: String, value: String },
    /// Make a volume.
    VolumeCreate { name: String, size: u64, block_size: u32, sparse: bool, settings: Vec<(String, String)> },
    /// Resize a volume.
    VolumeResize { name: String, size: u64 },
    /// Destroy a volume or a snapshot.
    DatasetDestroy { name: String },
    /// Make a snapshot.
    Snapshot { name: String },
    /// Back to a snapshot.
    Rollback { name: String },
    /// Size of a volume.
    VolumeInfo { name: String },
    /// Read; the bytes come as the payload.
    Read { name: String, offset: u64, length: u32 },
    /// Write the payload.
    Write { name: String, offset: u64 },
    /// Make a range read as zeros.
    Discard { name: String, offset: u64, length: u64 },
    /// Where data is and where holes are.
    Runs { name: String, offset: u64, length: u64 },
    /// Make all writes durable.
    Flush,
    /// Add vdevs, as on the command line.
    Add { vdevs: Vec<String>, force: bool, dry_run: bool },
    /// Attach a device.
    Attach { device: String, new: String, force: bool },
    /// Detach a device.
    Detach { device: String },
    /// Remove devices, or groups by their names.
    Remove { devices: Vec<String>, dry_run: bool },
    /// Make a vdev another kind: `mirror`, `raidz1`, `raidz2` or `raidz3`.
    Convert { vdev: String, kind: String, force: bool, dry_run: bool },
    /// Use less of a device, or more.
    Resize { device: String, to: Resize, dry_run: bool },
    /// Replace a device.
    Replace { device: String, new: Option<String>, force: bool, source_last: bool },
    /// Take devices out.
    Offline { devices: Vec<String>, temporary: bool },
    /// Take devices back.
    Online { devices: Vec<String>, expand: bool },
    /// Clear counters.
    Clear { device: Option<String> },
    /// Keep the pool's state as it is now.
    Checkpoint,
    /// Give the checkpoint up.
    CheckpointDiscard,
    /// Start, pause or stop a scrub.
    Scrub { action: Scrub },
    /// Progress of the current or last balance.
    Balance,
    /// Begin a balance, or only say what it would do.
    BalanceStart { spec: Box<BalanceSpec>, dry_run: bool },
    /// Pause, go on with or cancel a balance.
    BalanceControl { action: BalanceAction },
    /// Give the pool up. Asked of a holder, it ends.
    Export,
    /// Destroy the pool.
    Destroy { force: bool },
    /// Serve volumes as long as the connection lasts. Only a holder that was started to serve does so.
    Serve { volumes: Vec<String>, place: Place },
    /// To the holder of a RAID unit.
    Raid { ask: RaidRequest },
}

impl Request {
    /// Whether it goes into the pool's history.
    pub fn is_administrative(&self) -> bool {
        match self {
            Self::Status
            | Self::Usage
            | Self::Row
            | Self::Datasets
            | Self::Map
            | Self::History
            | Self::Events { .. }
            | Self::WhatIf { .. }
            | Self::Forecast { .. }
            | Self::Check
            | Self::Scan
            | Self::Balance
            | Self::Get { .. }
            | Self::VolumeInfo { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Discard { .. }
            | Self::Runs { .. }
            | Self::Flush
            | Self::Export
            | Self::Destroy { .. }
            | Self::Serve { .. }
            | Self::Raid { .. } => false,
            Self::Add { dry_run, .. }
            | Self::BalanceStart { dry_run, .. }
            | Self::Convert { dry_run, .. }
            | Self::Resize { dry_run, .. }
            | Self::Remove { dry_run, .. } => !dry_run,
            _ => true,
        }
    }

    /// Words that name the devices which come into the pool, and perhaps keywords.
    pub fn brings_in(&self) -> &[String] {
        match self {
            Self::Add { vdevs, dry_run: false, .. } => vdevs,
            Self::Attach { new, .. } | Self::Replace { new: Some(new), .. } => std::slice::from_ref(new),
            _ => &[],
        }
    }

    /// A volume or snapshot that must not be served while this is done.
    pub fn takes_away(&self) -> Option<&str> {
        match self {
            Self::DatasetDestroy { name } => Some(name),
            // Rolling back changes the volume under its clients.
            Self::Rollback { name } => name.split('@').next(),
            _ => None,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done,
    /// It is done, or would be done so.
    Plan(Plan),
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Usage`].
    Usage(Box<UsageReport>),
    /// To [`Request::Row`].
    Row(PoolRow),
    /// To [`Request::Datasets`].
    Datasets(Vec<DatasetRow>),
    /// To [`Request::Map`].
    Map {
        /// Every chunk.
        chunks: Vec<ChunkReport>,
        /// What was relocated out of chunks.
        remapped: Vec<RemappedReport>,
    },
    /// To [`Request::Balance`], and to [`Request::BalanceStart`] once it has begun.
    Balance(Option<Box<BalanceReport>>),
    /// To [`Request::BalanceStart`] with `dry_run`.
    BalancePlan(BalancePlan),
    /// To [`Request::WhatIf`].
    WhatIf(Box<WhatIfReport>),
    /// To [`Request::Forecast`].
    Forecast(Box<Forecast>),
    /// To [`Request::History`].
    History(Vec<HistoryEntry>),
    /// To [`Request::Events`].
    Events(Vec<Event>),
    /// To [`Request::Check`].
    Check(CheckReport),
    /// To [`Request::Scan`].
    Scan {
        /// The current or last scan.
        scan: Option<ScanReport>,
        /// There is background work to do.
        busy: bool,
        /// Too many devices are gone for it to be done.
        suspended: bool,
    },
    /// To [`Request::Get`].
    Properties(Vec<PropertyRow>),
    /// To [`Request::VolumeInfo`].
    Volume {
        /// Bytes.
        size: u64,
        /// Bytes.
        block_size: u32,
        /// Whether it can't be written.
        read_only: bool,
    },
    /// To [`Request::Runs`]: bytes, and whether they are a hole.
    Runs(Vec<(u64, bool)>),
    /// To [`Request::Read`]; the bytes are the payload.
    Data,
    /// To [`Request::Serve`]: the exports are there; a sentence each.
    Serving(Vec<String>),
    /// To [`Request::Raid`].
    Raid(RaidReply),
}

/// A request in its envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Version of the protocol.
    pub version: u32,
    /// The command line it comes from, for the history.
    pub command: String,
    /// The request.
    pub request: Request,
}

/// An answer in its envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It worked.
    Ok(Reply),
    /// It did not, and why.
    Failed(String),
}
