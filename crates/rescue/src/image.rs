//! A disk or an image of one, or a partition of it, opened to be read only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::md::ReshapeBackup;

use device::{BadMap, BadMapDevice, BlockDevice, FileDevice, Identity, SliceDevice};

use crate::{RescueError, Slot};

/// Partitions shorter than this are no members of anything, bytes.
const PARTITION_LEAST: u64 = 1 << 20;
/// Types of an MBR's partitions that have a disklabel in them: FreeBSD's, OpenBSD's and NetBSD's.
const BSD_SLICES: [&str; 3] = ["0xa5", "0xa6", "0xa9"];
/// The number of the first partition that an MBR itself has no room for.
const LOGICAL_FIRST: u32 = 5;

/// A disk or image under rescue, or a partition of one.
#[derive(Clone, Debug)]
pub struct Image {
    /// The path it was given by.
    pub path: PathBuf,
    /// Its map of bad sectors, if there is one.
    pub map: Option<PathBuf>,
    /// Number of the partition, if not the whole disk is meant.
    pub partition: Option<u32>,
    /// Where it begins on the disk, bytes: 0 but for partitions.
    pub start: u64,
    /// The device; reads of what the map says is bad fail, and so do all writes.
    pub device: Arc<dyn BlockDevice>,
    /// Which file or disk it is, by whatever path.
    pub identity: Option<Identity>,
    /// The whole disk.
    pub(crate) disk: Arc<dyn BlockDevice>,
    bad: Option<BadMap>,
}

impl Image {
    /// Opens `path`, with the ddrescue map beside it (`PATH.map`) if there is one.
    ///
    /// # Errors
    /// It can't be opened, is in use, or its map can't be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RescueError> {
        let path = path.as_ref();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".map");
        let beside = PathBuf::from(beside);
        let map = beside.exists().then_some(beside);
        Self::open_with(path, map.as_deref())
    }

    /// Opens `path` with this ddrescue map, or none.
    ///
    /// # Errors
    /// As [`Image::open`].
    pub fn open_with(path: impl AsRef<Path>, map: Option<&Path>) -> Result<Self, RescueError> {
        let path = path.as_ref();
        let file = FileDevice::open_idle(path)?;
        let identity = file.identity();
        let mut device: Arc<dyn BlockDevice> = Arc::new(file);
        let mut bad = None;
        if let Some(map) = map {
            let refuse = |why: String| RescueError::Map { path: map.to_string_lossy().into_owned(), why };
            let text = fs::read_to_string(map).map_err(|error| refuse(error.to_string()))?;
            let parsed = BadMap::parse(&text).map_err(|error| refuse(error.to_string()))?;
            bad = Some(parsed.clone());
            device = Arc::new(BadMapDevice::new(device, parsed));
        }
        Ok(Self { map: map.map(Path::to_owned), identity, bad, ..Self::of_device(path.to_owned(), device) })
    }

    /// A device that is open already, known by `path`.
    pub(crate) fn of_device(path: PathBuf, device: Arc<dyn BlockDevice>) -> Self {
        let disk = Arc::clone(&device);
        Self { path, map: None, partition: None, start: 0, device, identity: None, disk, bad: None }
    }

    /// The same image or partition on another view of its disk.
    pub(crate) fn on_disk(&self, disk: Arc<dyn BlockDevice>) -> Self {
        let part = self.partition.and_then(|_| {
            let (name, size) = (self.device.info().name.clone(), self.device.size().ok()?);
            let slice = SliceDevice::new(name, Arc::clone(&disk), self.start, size).ok()?;
            Some(Arc::new(slice) as Arc<dyn BlockDevice>)
        });
        Self { device: part.unwrap_or_else(|| Arc::clone(&disk)), disk, ..self.clone() }
    }

    /// The map of its bad sectors, if it has one.
    pub fn bad_map(&self) -> Option<&BadMap> {
        self.bad.as_ref()
    }

    /// What it is called: its path, and which partition of it is meant.
    pub fn name(&self) -> String {
        let path = self.path.display();
        self.partition.map_or_else(|| path.to_string(), |number| format!("{path} (partition {number})"))
    }

    /// Its partitions, and whether each has others in it. Whether all of them lie on it, as they ought to.
    ///
    /// What a BSD disklabel has in a partition of an MBR is counted on behind the MBR's own, as Linux does.
    pub(crate) fn partitions(&self) -> (Vec<(Self, bool)>, bool) {
        let table = formats::partitions(&*self.device).ok().flatten();
        let Some(table) = table else { return (Vec::new(), true) };
        let mut inside = table.partitions.iter().all(|partition| partition.missing == 0);
        let mut next = table.partitions.iter().map(|partition| partition.number + 1).max().unwrap_or(0);
        next = next.max(LOGICAL_FIRST);
        let mut found = Vec::new();
        for partition in &table.partitions {
            let Some(own) = self.part(partition, partition.number) else { continue };
            let is_slice = table.kind == "mbr" && BSD_SLICES.contains(&&*partition.kind);
            let label = formats::disklabel(&*own.device).ok().flatten().filter(|_| is_slice);
            let before = found.len();
            for nested in label.iter().flat_map(|label| &label.partitions) {
                inside &= nested.missing == 0;
                found.extend(own.part(nested, next).map(|part| (part, false)));
                next += 1;
            }
            found.insert(before, (own, found.len() > before));
        }
        (found, inside)
    }

    /// A partition of it, unless it is too short.
    fn part(&self, partition: &formats::Partition, number: u32) -> Option<Self> {
        if partition.size < PARTITION_LEAST {
            return None;
        }
        let name = format!("{} (partition {number})", self.path.display());
        let slice = SliceDevice::new(name, Arc::clone(&self.device), partition.start, partition.size).ok()?;
        Some(Self {
            partition: Some(number),
            start: self.start + partition.start,
            device: Arc::new(slice),
            ..self.clone()
        })
    }

    /// What a reshape set aside, if it is a file that begins with that.
    pub(crate) fn backup(&self) -> Option<ReshapeBackup> {
        let mut head = [0; ReshapeBackup::LENGTH];
        self.device.read(0, &mut head).ok()?;
        ReshapeBackup::parse(&head, &self.device.info().name, 0).ok().flatten()
    }

    /// Its place in an array: data from `offset` on, `size` bytes of it.
    pub(crate) fn slot(&self, offset: u64, size: u64) -> Slot {
        Slot {
            path: self.path.clone(),
            map: self.map.clone(),
            data_offset: self.start.saturating_add(offset),
            size,
            valid: None,
            new_data_offset: None,
            clean_by: None,
            doubtful: Vec::new(),
        }
    }
}
