//! Every kind of device against the same model.

mod common;

use common::{Loop, Model, conforms, refuses_what_is_out_of_range, steps, takes_thousands_of_buffers};
use device::sim::Discarded;
use device::{Access, BlockDevice, FileDevice, MemoryDevice, SimDevice};
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
