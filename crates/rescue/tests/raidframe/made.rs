//! Sets that the code of `raidset` makes, in files or partitions of files.

use std::fmt::Debug;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use device::{Access, BlockDevice, FileDevice, Inline, Rng, SliceDevice};
use raidset::label::Label;
use raidset::layout::Level;
use raidset::set::{Parameters, RaidSet, Slot};
use rescue::{Candidate, Image};

use crate::content;

/// What lies in front of the data of a component with sectors of 512 bytes.
pub const RESERVED: u64 = 32768;

/// Opens something: a tool that another test has just started may hold the locks of files that are closed here, until it runs.
pub fn patiently<T, E: Debug>(open: impl Fn() -> Result<T, E>) -> T {
    for _ in 0..500 {
        if let Ok(opened) = open() {
            return opened;
        }
        sleep(Duration::from_millis(10));
    }
    open().unwrap()
}

/// Where a component is.
#[derive(Clone, Debug)]
pub struct Component {
    pub path: PathBuf,
    pub start: u64,
    pub size: u64,
}

impl Component {
    /// It, for writing.
    pub fn open(&self) -> Arc<dyn BlockDevice> {
        let file = Arc::new(patiently(|| FileDevice::open(&self.path, Access::ReadWrite)));
        let name = format!("{}@{}", self.path.display(), self.start);
        Arc::new(SliceDevice::new(name, file, self.start, self.size).unwrap())
    }

    pub fn label(&self) -> Label {
        Label::read(&*self.open()).unwrap().unwrap()
    }

    /// Changes its label.
    pub fn relabel(&self, change: impl FnOnce(&mut Label)) {
        let mut label = self.label();
        change(&mut label);
        label.write(&*self.open()).unwrap();
    }

    /// Puts these bytes there.
    pub fn overwrite(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(bytes, self.start + at).unwrap();
    }
}

/// Whole files as components, whose names say nothing of their columns.
pub fn files(folder: &Path, tag: &str, columns: usize, size: u64) -> Vec<Component> {
    let component = |column: usize| {
        let path = folder.join(format!("{:02}-{tag}.img", (column * 37 + 5) % 64));
        File::create(&path).unwrap().set_len(size).unwrap();
        Component { path, start: 0, size }
    };
    (0..columns).map(component).collect()
}

/// A set of these components, new.
pub fn configure(unit: u32, level: &Level, sectors: u32, components: &[Component], force: bool) -> RaidSet {
    let parameters = Parameters {
        level: level.clone(),
        sectors_per_unit: sectors,
        units_per_parity_unit: 1,
        units_per_recon_unit: 1,
        queue_length: 100,
    };
    let slot = |component: &Component| Slot {
        name: format!("{}@{}", component.path.display(), component.start),
        device: Some(component.open()),
    };
    let slots = components.iter().map(slot).collect();
    RaidSet::configure(unit, parameters, slots, Vec::new(), force, Arc::new(Inline)).unwrap()
}

/// A set with these contents, and noise where they end; it is unconfigured.
pub fn make(unit: u32, level: &Level, sectors: u32, components: &[Component], contents: &[u8]) {
    let set = configure(unit, level, sectors, components, true);
    set.init_labels(20_261_122 + unit.cast_signed()).unwrap();
    let size = set.size().unwrap();
    assert!(size >= contents.len() as u64, "{size} bytes hold no {}", contents.len());
    set.write(0, contents).unwrap();
    let mut cursor = 0;
    while !set.rewrite_parity(&mut cursor, 1 << 20).unwrap().finished() {}
    set.unconfigure().unwrap();
}

/// Bytes that a component must have so that a set of that many holds `contents`.
pub fn component_size(level: &Level, columns: usize, contents: usize) -> u64 {
    let data = match level {
        Level::Raid0 => columns,
        Level::Raid1 => columns / 2,
        Level::Raid4 | Level::Raid5 => columns - 1,
        Level::Raid6 | Level::RotatedSparing => columns - 2,
        _ => 1,
    };
    RESERVED + (contents / data) as u64 / 65536 * 65536 + (1 << 20)
}

/// A set in files of a folder.
pub fn set_in(folder: &Path, unit: u32, level: &Level, columns: usize, contents: &[u8]) -> Vec<Component> {
    let size = component_size(level, columns, contents.len());
    let components = files(folder, &format!("set{unit}"), columns, size);
    make(unit, level, 32, &components, contents);
    components
}

/// An ext4 file system with files; `None` without `mke2fs`.
pub fn ext4(seed: u64, size: u64) -> Option<Vec<u8>> {
    Command::new("mke2fs").arg("-V").stderr(Stdio::null()).status().ok()?;
    let scratch = tempfile::tempdir().unwrap();
    Some(content::ext4(scratch.path(), &mut Rng::new(seed), size, None).unwrap())
}

/// The disks, in an order of no meaning.
pub fn open(components: &[Component]) -> Vec<Image> {
    let mut paths: Vec<&PathBuf> = components.iter().map(|component| &component.path).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().map(|path| patiently(|| Image::open(path))).collect()
}

pub fn read(device: &dyn BlockDevice, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    device.read(0, &mut bytes).unwrap();
    bytes
}

/// Whether a candidate has these contents.
pub fn holds(candidate: &Candidate, contents: &[u8]) -> bool {
    candidate.open().is_ok_and(|array| read(&array, contents.len()) == contents)
}

/// All bytes of the files, to see that none changes.
pub fn bytes(images: &[Image]) -> Vec<Vec<u8>> {
    images.iter().map(|image| fs::read(&image.path).unwrap()).collect()
}
