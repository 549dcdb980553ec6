//! A disk or an image of one, opened to be read only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::{Access, BadMap, BadMapDevice, BlockDevice, FileDevice, Identity};

use crate::RescueError;

/// A disk or image under rescue.
#[derive(Clone, Debug)]
pub struct Image {
    /// The path it was given by.
    pub path: PathBuf,
    /// Its map of bad sectors, if there is one.
    pub map: Option<PathBuf>,
    /// The device; reads of what the map says is bad fail, and so do all writes.
    pub device: Arc<dyn BlockDevice>,
    /// Which file or disk it is, by whatever path.
    pub identity: Option<Identity>,
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
        let file = FileDevice::open(path, Access::ReadOnly)?;
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
        Ok(Self { path: path.to_owned(), map: map.map(Path::to_owned), device, identity, bad })
    }

    /// The map of its bad sectors, if it has one.
    pub fn bad_map(&self) -> Option<&BadMap> {
        self.bad.as_ref()
    }
}
