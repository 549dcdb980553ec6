//! A sparse device in memory, and the tools of the system to compare with.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::RwLock;

use device::{BlockDevice, DeviceError, DeviceErrorKind, DeviceInfo, Operation};
use formats::{Found, probe, signature_ranges};

const PAGE: usize = 4096;

/// A device in memory that takes room only where something was written. Offsets are bytes.
#[derive(Debug)]
pub(crate) struct Image {
    info: DeviceInfo,
    pub(crate) size: u64,
    pages: RwLock<BTreeMap<u64, Vec<u8>>>,
    /// Where reads fail.
    pub(crate) broken: Range<u64>,
}

impl Clone for Image {
    fn clone(&self) -> Self {
        let pages = RwLock::new(self.pages.read().expect("no test panics holding it").clone());
        Self { info: self.info.clone(), size: self.size, pages, broken: self.broken.clone() }
    }
}

impl Image {
    /// All zero.
    pub(crate) fn new(size: u64) -> Self {
        let name = "image".to_owned();
        let info = DeviceInfo {
            name,
            logical_sector: 512,
            physical_sector: 512,
            discards: false,
            block_device: false,
        };
        Self { info, size, pages: RwLock::default(), broken: 0..0 }
    }

    /// A file's contents.
    pub(crate) fn load(path: &Path) -> Self {
        let file = File::open(path).expect("the file is there");
        let image = Self::new(file.metadata().expect("an open file has metadata").len());
        let mut bytes = vec![0; 1 << 20];
        for at in (0..image.size).step_by(bytes.len()) {
            let length = bytes.len().min((image.size - at) as usize);
            file.read_exact_at(&mut bytes[..length], at).expect("the file is not cut meanwhile");
            for (page, chunk) in bytes[..length].chunks(PAGE).enumerate() {
                if chunk.iter().any(|byte| *byte != 0) {
                    image.store(at + (page * PAGE) as u64, chunk);
                }
            }
        }
        image
    }

    /// Writes the contents to a sparse file.
    pub(crate) fn save(&self, path: &Path) {
        let file = File::create(path).expect("the folder is there");
        for (page, bytes) in self.pages.read().expect("no test panics holding it").iter() {
            file.write_all_at(bytes, page * PAGE as u64).expect("there is room");
        }
        file.set_len(self.size).expect("there is room");
    }

    fn store(&self, offset: u64, bytes: &[u8]) {
        let mut pages = self.pages.write().expect("no test panics holding it");
        for (at, byte) in (offset..).zip(bytes) {
            let page = pages.entry(at / PAGE as u64).or_insert_with(|| vec![0; PAGE]);
            page[at as usize % PAGE] = *byte;
        }
    }

    /// With these bytes there.
    pub(crate) fn put(self, offset: u64, bytes: &[u8]) -> Self {
        self.store(offset, bytes);
        self
    }

    /// With only the first bytes left.
    pub(crate) fn cut(mut self, size: u64) -> Self {
        self.size = self.size.min(size);
        self
    }

    /// With zeros there.
    pub(crate) fn zeroed(self, range: Range<u64>) -> Self {
        self.store(range.start, &vec![0; (range.end - range.start) as usize]);
        self
    }

    pub(crate) fn get(&self, offset: u64, length: usize) -> Vec<u8> {
        let pages = self.pages.read().expect("no test panics holding it");
        let byte = |at: u64| pages.get(&(at / PAGE as u64)).map_or(0, |page| page[at as usize % PAGE]);
        (offset..).take(length).map(byte).collect()
    }

    fn error(&self, offset: u64, length: u64, kind: DeviceErrorKind) -> DeviceError {
        DeviceError { device: self.info.name.clone(), operation: Operation::Read, offset, length, kind }
    }
}

impl BlockDevice for Image {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn size(&self) -> Result<u64, DeviceError> {
        Ok(self.size)
    }

    fn read_vectored(&self, mut offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        for buffer in buffers {
            let end = offset + buffer.len() as u64;
            if end > self.size {
                let kind = DeviceErrorKind::OutOfRange { size: self.size };
                return Err(self.error(offset, buffer.len() as u64, kind));
            }
            if offset < self.broken.end && self.broken.start < end {
                return Err(self.error(
                    offset,
                    buffer.len() as u64,
                    DeviceErrorKind::Io("bad sector".into()),
                ));
            }
            let pages = self.pages.read().expect("no test panics holding it");
            buffer.fill(0);
            for (page, bytes) in pages.range(offset / PAGE as u64..end.div_ceil(PAGE as u64)) {
                // The page in the buffer's coordinates: it may begin before and end after.
                let page = page * PAGE as u64;
                let (from, to) = (page.max(offset), (page + PAGE as u64).min(end));
                buffer[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - page) as usize..(to - page) as usize]);
            }
            offset = end;
        }
        Ok(())
    }

    fn write_vectored(&self, _: u64, _: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        unreachable!("a probe does not write")
    }

    fn flush(&self) -> Result<(), DeviceError> {
        unreachable!("a probe does not write")
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), DeviceError> {
        unreachable!("a probe does not write")
    }
}

/// What the image holds, which must be readable.
pub(crate) fn found(image: &Image) -> Vec<Found> {
    let found = probe(image).expect("the image has no bad sectors");
    for range in signature_ranges(&found) {
        assert!(range.start < range.end && range.end <= image.size, "{range:?} of {found:?}");
    }
    found
}

/// The sentences for what the image holds.
pub(crate) fn sentences(image: &Image) -> Vec<String> {
    found(image).iter().map(ToString::to_string).collect()
}

/// Asserts that nothing is found once the signatures are zeroed.
pub(crate) fn assert_wipes(image: &Image) -> Image {
    let wiped = signature_ranges(&found(image)).into_iter().fold(image.clone(), Image::zeroed);
    assert_eq!(sentences(&wiped), [] as [String; 0], "after zeroing the signatures");
    wiped
}

/// Where a program of the system is, if it is installed.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from).into();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let path = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if path.is_none() {
        eprintln!("{name} is not installed: what needs it is skipped");
    }
    path
}

/// Runs a program and returns what it said.
pub(crate) fn run(program: &Path, arguments: &[&str], file: &Path) -> Output {
    Command::new(program).args(arguments).arg(file).output().expect("the program can be started")
}

/// What libblkid says of the image: (type, label, UUID), empty where it says nothing. `None` without it.
pub(crate) fn blkid(image: &Image) -> Option<[String; 3]> {
    let blkid = tool("blkid")?;
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let path = folder.path().join("image");
    image.save(&path);
    let output = run(&blkid, &["-p", "-o", "export"], &path);
    let text = String::from_utf8_lossy(&output.stdout).replace('\\', "");
    let value = |names: &[&str]| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(name, _)| names.contains(name))
            .map(|(_, value)| value.to_owned())
            .next()
            .unwrap_or_default()
    };
    Some([value(&["TYPE", "PTTYPE"]), value(&["LABEL"]), value(&["UUID", "PTUUID"])])
}
