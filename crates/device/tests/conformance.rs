//! Every kind of device against the same model.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Loop, Model, conforms, refuses_what_is_out_of_range, steps, takes_thousands_of_buffers};
use std::sync::Arc;

use device::sim::{Discarded, Effect};
use device::{
    Access, BadMap, BadMapDevice, BlockDevice, FileDevice, MemoryDevice, Operation, OverlayDevice, RangeSet,
    Rng, SimDevice, SliceDevice,
};
use proptest::prelude::*;

const SIZE: u64 = 300 * 1024 + 512;

fn fixed_checks(device: &dyn BlockDevice) {
    takes_thousands_of_buffers(device);
    refuses_what_is_out_of_range(device);
}

#[test]
fn fixed_requests_on_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    fixed_checks(&MemoryDevice::new("memory", SIZE));
    fixed_checks(&SimDevice::new("sim", SIZE, 1));
    fixed_checks(&FileDevice::create(folder.path().join("file"), SIZE).unwrap());
}

#[test]
fn a_loop_device_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; SIZE as usize]).unwrap();
    let Some(disk) = Loop::over(&path) else { return };
    let device = FileDevice::open(&disk.path, Access::ReadWrite).unwrap();
    assert!(device.info().block_device);
    fixed_checks(&device);
    let mut bytes = vec![0; SIZE as usize];
    device.read(0, &mut bytes).unwrap();
    let mut model = Model::of(&bytes);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(24));
    let all = std::cell::RefCell::new(&mut model);
    runner
        .run(&steps(), |steps| {
            conforms(&device, &steps, &mut all.borrow_mut());
            Ok(())
        })
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory(steps in steps()) {
        conforms(&MemoryDevice::new("memory", SIZE), &steps, &mut Model::zeros(SIZE));
    }

    #[test]
    fn file(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let device = FileDevice::create(folder.path().join("file"), SIZE).unwrap();
        conforms(&device, &steps, &mut Model::zeros(SIZE));
    }

    #[test]
    fn simulated(steps in steps(), cached in any::<bool>(), which in 0..3) {
        let device = SimDevice::new("sim", SIZE, 1);
        device.set_write_cache(cached);
        device.set_discarded([Discarded::Zeros, Discarded::Kept, Discarded::Garbage][which as usize]);
        conforms(&device, &steps, &mut Model::zeros(SIZE));
        // A flush leaves nothing for a power cut to take.
        let seen = device.digest();
        device.flush().unwrap();
        device.power_cut(device::sim::Cut::DropAll);
        prop_assert_eq!(device.digest(), seen);
        prop_assert_eq!(device.durable_digest(), seen);
    }
}

/// Bytes that are not zero, so that reading the wrong place shows.
fn noise() -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    Rng::new(99).fill(&mut bytes);
    bytes
}

/// A base that fails everything but reads, and its contents.
fn base() -> (Arc<dyn BlockDevice>, Vec<u8>) {
    let base = SimDevice::new("base", SIZE, 1);
    base.overwrite(0, &noise());
    base.set_read_only(true);
    base.plan(1, Some(Operation::Flush), Effect::Gone);
    (Arc::new(base), noise())
}

#[test]
fn fixed_requests_on_devices_over_devices() {
    let folder = tempfile::tempdir().unwrap();
    let memory = || Arc::new(MemoryDevice::new("memory", SIZE));
    fixed_checks(&OverlayDevice::in_memory(base().0).unwrap());
    fixed_checks(&OverlayDevice::create(base().0, folder.path().join("delta")).unwrap());
    fixed_checks(&BadMapDevice::new(memory(), BadMap::default()));
    fixed_checks(&SliceDevice::new("slice", memory(), 700, 200_000).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn slice(steps in steps()) {
        let disk = Arc::new(MemoryDevice::from_bytes("disk", &noise()));
        let device = SliceDevice::new("slice", disk.clone(), 1000, 200_000).unwrap();
        conforms(&device, &steps, &mut Model::of(&noise()[1000..201_000]));
        let mut outside = vec![0; SIZE as usize];
        disk.read(0, &mut outside).unwrap();
        prop_assert_eq!(&outside[..1000], &noise()[..1000]);
        prop_assert_eq!(&outside[201_000..], &noise()[201_000..]);
    }

    #[test]
    fn bad_map(steps in steps()) {
        let disk = Arc::new(MemoryDevice::from_bytes("disk", &noise()));
        conforms(&BadMapDevice::new(disk, BadMap::default()), &steps, &mut Model::of(&noise()));
    }

    #[test]
    fn overlay_in_memory(steps in steps()) {
        let (base, bytes) = base();
        let device = OverlayDevice::in_memory(base.clone()).unwrap();
        conforms(&device, &steps, &mut Model::of(&bytes));
        Model::of(&bytes).check_all(&*base);
    }

    /// Reopened between the parts; the base stays as it was; what is not listed as changed reads as the base.
    #[test]
    fn overlay_in_a_file(parts in prop::collection::vec(steps(), 1..4)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("delta");
        let (base, bytes) = base();
        let mut model = Model::of(&bytes);
        drop(OverlayDevice::create(base.clone(), &path).unwrap());
        for steps in parts {
            let device = OverlayDevice::open(base.clone(), &path).unwrap();
            model.check_all(&device);
            conforms(&device, &steps, &mut model);
            device.flush().unwrap();
        }
        let device = OverlayDevice::open(base.clone(), &path).unwrap();
        model.check_all(&device);
        let mut now = vec![0; SIZE as usize];
        device.read(0, &mut now).unwrap();
        let changed: RangeSet = device.changed().into_iter().collect();
        for (offset, (now, before)) in (0..).zip(now.iter().zip(&bytes)) {
            prop_assert!(now == before || changed.first_overlap(offset..offset + 1).is_some());
        }
        Model::of(&bytes).check_all(&*base);
        prop_assert!(OverlayDevice::create(base, &path).is_err(), "an existing file is not overwritten");
    }
}
