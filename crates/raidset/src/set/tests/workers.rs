//! Jobs with several workers, as they are on disks.

use super::*;

/// A disk, for sets that have several workers then.
#[derive(Debug)]
struct Spindle(MemoryDevice, DeviceInfo);

impl BlockDevice for Spindle {
    fn info(&self) -> &DeviceInfo {
        &self.1
    }

    fn size(&self) -> Result<u64, DeviceError> {
        self.0.size()
    }

    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.0.read_vectored(offset, buffers)
    }

    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.0.write_vectored(offset, buffers)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.0.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.0.discard(offset, length)
    }
}

#[derive(Debug)]
struct TwoProcessors;

impl Runner for TwoProcessors {
    fn run(&self, requests: &mut [Request<'_>]) {
        Inline.run(requests);
    }

    fn parallelism(&self) -> usize {
        2
    }
}

#[test]
fn several_workers_do_what_one_does() {
    let disk = |name: &str, seed: u64| -> Arc<dyn BlockDevice> {
        let disk = MemoryDevice::new(name, 3 << 20);
        let mut noise = vec![0; 3 << 20];
        Rng::new(seed).fill(&mut noise);
        disk.write(0, &noise).unwrap();
        let info = DeviceInfo { block_device: true, ..disk.info().clone() };
        Arc::new(Spindle(disk, info))
    };
    for level in [Level::Raid5, Level::Raid6, Level::EvenOdd, Level::Mirror] {
        let disks: Vec<_> = (0..4).map(|index| disk(&format!("sd{index}"), index)).collect();
        let slots =
            disks.iter().map(|disk| Slot { name: disk.info().name.clone(), device: Some(disk.clone()) });
        let parameters = Parameters { sectors_per_unit: 128, ..parameters(&level) };
        let set = RaidSet::configure(0, parameters, slots.collect(), vec![], true, Arc::new(TwoProcessors))
            .unwrap();
        set.init_labels(3).unwrap();
        let model = contents(&set);
        let stripes = set.layout().stripes();
        assert_eq!(set.check_parity(&mut 0, u64::MAX, false).unwrap(), stripes, "{level}");
        rewrite(&set);
        assert!(contents(&set) == model && mismatches(&set) == 0, "{level}");
        let new = Slot { name: "new".to_owned(), device: Some(disk("new", 9)) };
        set.reconstruct_in_place(1, Some(new), 0).unwrap();
        while set.rebuild_progress().is_some() {
            set.rebuild_step(1000).unwrap();
        }
        assert!(contents(&set) == model && mismatches(&set) == 0, "{level}");
    }
}
