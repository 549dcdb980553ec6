//! What a crash leaves of an overlay, and what damage to its file does.

use super::*;
use crate::rng::Rng;
use crate::sim::{Cut, Effect, SimDevice};

impl Growing for SimDevice {
    fn grow(&self, size: u64) -> Result<(), DeviceError> {
        self.set_size(size);
        Ok(())
    }
}

/// Shared, so that the test keeps a hand on the disk under the overlay.
impl Growing for Arc<SimDevice> {
    fn grow(&self, size: u64) -> Result<(), DeviceError> {
        self.as_ref().grow(size)
    }
}

impl BlockDevice for Arc<SimDevice> {
    fn info(&self) -> &DeviceInfo {
        self.as_ref().info()
    }
    fn size(&self) -> Result<u64, DeviceError> {
        self.as_ref().size()
    }
    fn read_vectored(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> Result<(), DeviceError> {
        self.as_ref().read_vectored(offset, buffers)
    }
    fn write_vectored(&self, offset: u64, buffers: &[IoSlice<'_>]) -> Result<(), DeviceError> {
        self.as_ref().write_vectored(offset, buffers)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.as_ref().flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), DeviceError> {
        self.as_ref().discard(offset, length)
    }
}

/// More than one segment, and not a whole number of blocks.
const SIZE: u64 = 40 * 1024 * 1024 + 512;
/// The test looks at this many sectors, spread so that their units fill more than one segment.
const SECTORS: u64 = 300;
const STRIDE: u64 = SIZE / SECTORS / 512 * 512;

fn base() -> Arc<dyn BlockDevice> {
    let base = SimDevice::new("base", SIZE, 1);
    for sector in 0..SECTORS {
        base.write(sector * STRIDE, &[255; 512]).unwrap();
    }
    base.set_read_only(true);
    Arc::new(base)
}

/// Writes and flushes at random, cuts the power at every kind of moment and reopens: every sector holds what
/// it held at the last finished flush or something written since.
#[test]
fn a_crash_leaves_the_last_flush_or_something_newer() {
    let base = base();
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let disk = Arc::new(SimDevice::new("delta", format::file_size(0), seed));
        let mut overlay = OverlayDevice::create_on(base.clone(), Box::new(disk.clone())).unwrap();
        let mut possible = vec![vec![255_u8]; SECTORS as usize];
        for step in 1..200_u8 {
            let sector = rng.below(SECTORS);
            overlay.write(sector * STRIDE, &[step; 512]).unwrap();
            possible[sector as usize].push(step);
            if rng.chance(1, 20) {
                // Sometimes the cut comes in the middle of the flush, after its first writes.
                let whole = rng.chance(2, 3);
                if !whole {
                    disk.plan(1 + rng.below(3), None, Effect::Gone);
                }
                if overlay.flush().is_ok() {
                    for values in &mut possible {
                        values.drain(..values.len() - 1);
                    }
                }
                disk.clear_plans();
                if rng.chance(1, 3) || !disk.is_present() {
                    disk.plug_in();
                    disk.power_cut(Cut::Random(rng.next_u64()));
                    overlay = OverlayDevice::open_on(base.clone(), Box::new(disk.clone())).unwrap();
                    for (sector, values) in (0..).zip(&mut possible) {
                        let mut bytes = [0; 512];
                        overlay.read(sector * STRIDE, &mut bytes).unwrap();
                        // The pieces of a request may be of different age, but each is one that was written.
                        assert!(
                            bytes.iter().all(|byte| values.contains(byte)),
                            "seed {seed}, sector {sector}"
                        );
                        *values = vec![bytes[0]];
                    }
                }
            }
        }
    }
}

#[test]
fn damage_to_the_delta_is_refused_or_harmless_and_never_a_panic() {
    let base = base();
    let disk = Arc::new(SimDevice::new("delta", format::file_size(0), 1));
    let overlay = OverlayDevice::create_on(base.clone(), Box::new(disk.clone())).unwrap();
    for round in 1..4 {
        for sector in 0..SECTORS {
            overlay.write(sector * STRIDE, &[round; 512]).unwrap();
        }
        overlay.flush().unwrap();
    }
    drop(overlay);
    let mut refused = 0;
    for _ in 0..200 {
        let damaged = disk.fork();
        damaged.corrupt(0..3 * TABLE, 3);
        match OverlayDevice::open_on(base.clone(), Box::new(damaged)) {
            Ok(overlay) => {
                let mut bytes = vec![0; SIZE as usize];
                overlay.read(0, &mut bytes).unwrap();
            }
            Err(error) => {
                assert!(matches!(error.kind, DeviceErrorKind::Unopenable(_)), "{error}");
                refused += 1;
            }
        }
        // Each fork has its own copy of the generator, so the original must move on.
        disk.corrupt(format::unit_offset(0)..format::unit_offset(1), 1);
    }
    assert!(refused > 50, "{refused}");
    let other: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new("other", SIZE - 1));
    assert!(OverlayDevice::open_on(other, Box::new(disk)).is_err());
}
