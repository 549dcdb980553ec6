//! A pool's volumes as things that can be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use export::{Run, Target, TargetError};
use pool::types::DatasetId;
use pool::{Pool, PoolError};

use crate::error::Outcome;
use crate::execute::is_suspended;
use crate::holder::{Served, Shared};

/// Pause between two tries of a request that waits for devices to return.
const RETRY: Duration = Duration::from_millis(100);

/// A volume or snapshot of a held pool.
#[derive(Debug)]
pub(crate) struct Volume {
    shared: Arc<Shared>,
    id: DatasetId,
    block_size: u32,
    read_only: bool,
    size: AtomicU64,
    /// The count of changes for which `size` is right.
    size_as_of: AtomicU64,
    _served: Served,
}

impl Volume {
    /// Opens `vol` or `vol@snap`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(shared: &Arc<Shared>, dataset: &str) -> Outcome<Self> {
        let changes = shared.changes();
        let (id, info) = shared.with(|pool| {
            let id = pool.open(dataset)?;
            Ok((id, pool.volume_info(id)?))
        })?;
        Ok(Self {
            shared: Arc::clone(shared),
            id,
            block_size: info.block_size,
            read_only: info.read_only || dataset.contains('@'),
            size: AtomicU64::new(info.size),
            size_as_of: AtomicU64::new(changes),
            _served: shared.note_served(dataset),
        })
    }

    /// Does something with the pool. While it is suspended, waits for devices to return if `failmode` says so.
    fn run<T>(&self, mut step: impl FnMut(&mut Pool) -> Result<T, PoolError>) -> Result<T, TargetError> {
        self.try_on(|| self.shared.engine(&mut step))
    }

    /// As [`Self::run`] for what takes the lock by itself.
    fn try_on<T>(&self, mut step: impl FnMut() -> Option<Result<T, PoolError>>) -> Result<T, TargetError> {
        loop {
            match step() {
                None => return Err(TargetError::Io("the pool is no longer in use".to_owned())),
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) if is_suspended(&error) && self.waits() && !self.shared.has_ended() => {
                    thread::sleep(RETRY);
                }
                Some(Err(error)) => return Err(translate(&error)),
            }
        }
    }

    /// Whether requests wait while the pool is suspended.
    fn waits(&self) -> bool {
        let rows = self.shared.engine(|pool| pool.get("", Some("failmode")));
        matches!(rows, Some(Ok(rows)) if rows.iter().any(|row| row.value == "wait"))
    }

    /// That the range lies within the volume.
    fn check(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        let size = self.size();
        if offset.checked_add(length).is_some_and(|end| end <= size) {
            return Ok(());
        }
        Err(TargetError::Invalid(format!(
            "{length} bytes at {offset} reach beyond the volume's end at {size}"
        )))
    }
}

/// The engine's error in the terms of servers.
fn translate(error: &PoolError) -> TargetError {
    match error {
        PoolError::NoSpace => TargetError::NoSpace,
        PoolError::ReadOnly => TargetError::ReadOnly,
        PoolError::Refused(why) => TargetError::Invalid(why.clone()),
        other => TargetError::Io(other.to_string()),
    }
}

impl Target for Volume {
    fn size(&self) -> u64 {
        let changes = self.shared.changes();
        if self.size_as_of.load(Ordering::Acquire) != changes
            && let Some(Ok(info)) = self.shared.engine(|pool| pool.volume_info(self.id))
        {
            self.size.store(info.size, Ordering::Release);
            self.size_as_of.store(changes, Ordering::Release);
        }
        self.size.load(Ordering::Acquire)
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), TargetError> {
        self.check(offset, buffer.len() as u64)?;
        self.try_on(|| self.shared.read(self.id, offset, buffer))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), TargetError> {
        self.check(offset, data.len() as u64)?;
        if self.read_only {
            return Err(TargetError::ReadOnly);
        }
        self.try_on(|| self.shared.write(self.id, offset, data))
    }

    fn flush(&self) -> Result<(), TargetError> {
        if self.read_only {
            return Ok(());
        }
        self.try_on(|| self.shared.flush())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.check(offset, length)?;
        if self.read_only {
            return Err(TargetError::ReadOnly);
        }
        self.run(|pool| pool.discard(self.id, offset, length))
    }

    fn write_zeroes(&self, offset: u64, length: u64, _keep_allocated: bool) -> Result<(), TargetError> {
        // Reserved space stays reserved whether or not blocks of zeros are stored.
        self.discard(offset, length)
    }

    fn runs(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<Run>, TargetError> {
        self.check(offset, length)?;
        let runs = self.run(|pool| pool.runs(self.id, offset, length, limit))?;
        Ok(runs.into_iter().map(|(length, hole)| Run { length, hole }).collect())
    }

    fn cheap_zeroes(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use device::BlockDevice;
    use pool::spec::{CreateSpec, GroupKind, GroupSpec, NewDevice, VolumeSpec};

    use super::*;
    use crate::demo::disk::Disk;
    use crate::holder::Holder;
    use crate::host;
    use crate::session::LocalPool;
    use crate::state::{Record, State};

    /// A held mirror on disks that can be pulled, and its volume.
    struct Bench {
        disks: Vec<Arc<Disk>>,
        holder: Holder,
        volume: Arc<Volume>,
        _dir: tempfile::TempDir,
    }

    fn device(disk: &Arc<Disk>) -> NewDevice {
        let path = disk.path().to_string_lossy().into_owned();
        NewDevice::new(Arc::clone(disk) as Arc<dyn BlockDevice>, path)
    }

    fn bench(failmode: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let disks: Vec<_> =
            (0..2).map(|i| Disk::create(&dir.path().join(format!("d{i}")), 96 << 20).unwrap()).collect();
        let spec = CreateSpec {
            name: "tank".into(),
            groups: vec![GroupSpec { kind: GroupKind::Mirror, devices: disks.iter().map(device).collect() }],
            data: None,
            metadata: None,
            properties: vec![("failmode".into(), failmode.into())],
            command: "test".into(),
        };
        let (mut pool, _) = Pool::create(&host::env(host::CACHE_BYTES), &spec, &host::host()).unwrap();
        let spec = VolumeSpec { size: 16 << 20, block_size: 16 << 10, sparse: true, properties: Vec::new() };
        pool.volume_create("vol", &spec).unwrap();
        let state = State::at(dir.path().join("state"));
        let lock = state.lock_pool(pool.guid()).unwrap().unwrap();
        let record = Record::new("tank", pool.guid(), Vec::new());
        let holder = Holder::start(LocalPool::new(pool, lock, record, state), true).unwrap();
        let volume = Arc::new(Volume::open(holder.shared(), "vol").unwrap());
        Bench { disks, holder, volume, _dir: dir }
    }

    #[test]
    fn a_volume_is_read_and_written_within_its_bounds() {
        let bench = bench("wait");
        let volume = &bench.volume;
        assert_eq!((volume.size(), volume.block_size(), volume.read_only()), (16 << 20, 16 << 10, false));
        volume.write(5000, &[7; 3000]).unwrap();
        volume.flush().unwrap();
        let mut read = vec![0; 3002];
        volume.read(4999, &mut read).unwrap();
        assert!(read[0] == 0 && read[3001] == 0 && read[1..3001].iter().all(|&byte| byte == 7));
        assert_eq!(volume.runs(0, 16 << 20, 16).unwrap().iter().map(|run| run.length).sum::<u64>(), 16 << 20);
        for (offset, length) in [(16 << 20, 1), (u64::MAX, 1), ((16 << 20) - 1, 2)] {
            assert!(matches!(volume.write(offset, &vec![1; length]), Err(TargetError::Invalid(_))));
            assert!(matches!(volume.read(offset, &mut vec![1; length]), Err(TargetError::Invalid(_))));
            assert!(matches!(volume.discard(offset, length as u64), Err(TargetError::Invalid(_))));
        }
        volume.discard(0, 16 << 20).unwrap();
        volume.read(4999, &mut read).unwrap();
        assert!(read.iter().all(|&byte| byte == 0));
        bench.holder.stop().unwrap();
        assert!(matches!(volume.read(0, &mut read), Err(TargetError::Io(_))));
    }

    #[test]
    fn a_resize_is_seen_by_who_has_it_open() {
        let bench = bench("wait");
        let request = protocol::request::Request::VolumeResize { name: "vol".into(), size: 32 << 20 };
        bench.holder.shared().call(&request, &[], "test").unwrap();
        assert_eq!(bench.volume.size(), 32 << 20);
    }

    #[test]
    fn with_failmode_continue_requests_fail() {
        let bench = bench("continue");
        bench.disks.iter().for_each(|disk| disk.pull());
        let outcome = bench.volume.write(0, &[1; 4096]).and_then(|()| bench.volume.flush());
        assert!(matches!(outcome, Err(TargetError::Io(_))), "{outcome:?}");
    }

    #[test]
    fn with_failmode_wait_requests_wait_for_the_devices() {
        let bench = bench("wait");
        let (volume, shared) = (&bench.volume, bench.holder.shared());
        bench.disks.iter().for_each(|disk| disk.pull());
        let writer = {
            let volume = Arc::clone(volume);
            thread::spawn(move || volume.write(0, &[1; 4096]).and_then(|()| volume.flush()))
        };
        while shared.engine(|pool| pool.suspended()) == Some(false) {
            thread::yield_now();
        }
        assert!(!writer.is_finished(), "nothing may be acknowledged that is not safe");
        bench.disks.iter().for_each(|disk| disk.put_back());
        // What the holder does with disks that it can open again.
        for disk in &bench.disks {
            shared.engine(|pool| pool.device_returned(&device(disk))).unwrap().unwrap();
        }
        shared.engine(|pool| pool.clear(None)).unwrap().unwrap();
        writer.join().unwrap().unwrap();
        let mut read = vec![0; 4096];
        volume.read(0, &mut read).unwrap();
        assert_eq!(read, [1; 4096]);
    }
}
