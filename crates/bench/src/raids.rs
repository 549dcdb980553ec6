//! RAID sets and a plain file through the same export: any block device, served by our NBD server, fio before it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use device::{Access, BlockDevice, DeviceError, DeviceErrorKind, FileDevice, best_runner};
use export::{ExportTable, Listen, NbdServer, Run, Target, TargetError};
use raidset::layout::Level;
use raidset::set::{Parameters, RaidSet, Slot};

use crate::lives::{Samples, Setting};
use crate::served::jobs_on;

/// Rows, with what fio does.
pub const JOBS: [(&str, &str, &str, u32); 4] = [
    ("raid-read-4k", "randread", "4k", 32),
    ("raid-write-4k", "randwrite", "4k", 32),
    ("raid-read-1m", "read", "1m", 8),
    ("raid-write-1m", "write", "1m", 8),
];

/// Data columns of the set.
const DATA: u64 = 4;

#[derive(Debug)]
struct Served(Arc<dyn BlockDevice>);

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: DeviceError) -> TargetError {
    match error.kind {
        DeviceErrorKind::OutOfRange { .. } => TargetError::Invalid(error.to_string()),
        _ => TargetError::Io(error.to_string()),
    }
}

impl Target for Served {
    fn size(&self) -> u64 {
        self.0.size().unwrap_or(0)
    }

    fn block_size(&self) -> u32 {
        4096
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.0.read(offset, buffer).map_err(failed)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.0.write(offset, data).map_err(failed)
    }

    fn flush(&self) -> Result<(), TargetError> {
        self.0.flush().map_err(failed)
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<(), TargetError> {
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _keep_allocated: bool) -> Result<(), TargetError> {
        self.write(offset, &vec![0; length as usize])
    }

    fn runs(&self, _offset: u64, length: u64, _limit: usize) -> Result<Vec<Run>, TargetError> {
        Ok(vec![Run { length, hole: false }])
    }
}

/// A level 5 set over five files, written over once.
///
/// # Errors
/// A file, the server or fio fails.
pub fn level_5(s: &Setting<'_>) -> Result<Samples> {
    s.folder.clear()?;
    let column = s.noise.bytes.len() as u64 / DATA + (1 << 20);
    let files: Vec<PathBuf> =
        (0..=DATA).map(|index| s.folder.file(&format!("d{index}"), column)).collect::<Result<_>>()?;
    let slots = files.iter().map(|path| {
        let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(path, Access::ReadWrite)?);
        Ok(Slot { name: path.display().to_string(), device: Some(device) })
    });
    let parameters = Parameters {
        level: Level::Raid5,
        sectors_per_unit: 128,
        units_per_parity_unit: 1,
        units_per_recon_unit: 1,
        queue_length: 100,
    };
    let slots = slots.collect::<Result<_, DeviceError>>()?;
    let set = RaidSet::configure(0, parameters, slots, vec![], true, best_runner()?.into())?;
    set.init_labels(1)?;
    let mut cursor = 0;
    while !set.rewrite_parity(&mut cursor, 1000)?.finished() {}
    serve(s, Arc::new(set))
}

/// A plain file.
///
/// # Errors
/// As [`level_5`].
pub fn plain(s: &Setting<'_>) -> Result<Samples> {
    s.folder.clear()?;
    let path = s.folder.file("plain", s.noise.bytes.len() as u64)?;
    serve(s, Arc::new(FileDevice::open(&path, Access::ReadWrite)?))
}

fn serve(s: &Setting<'_>, device: Arc<dyn BlockDevice>) -> Result<Samples> {
    device.write(0, &s.noise.bytes)?;
    let table = ExportTable::new();
    table.insert("data", Arc::new(Served(device)));
    let socket = s.folder.path().join("socket");
    let server = NbdServer::bind(Listen::Unix(socket.clone()), Arc::new(table))?;
    let stop = server.handle();
    let samples = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.serve());
        let samples = jobs_on(s, &JOBS, &socket, "data");
        stop.stop();
        let _ = running.join();
        samples
    })
    .context("fio on the export")?;
    drop(server);
    s.folder.clear()?;
    Ok(samples)
}
