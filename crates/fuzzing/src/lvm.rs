//! What LVM2 keeps on physical volumes, and what is in partition tables.

use device::{BlockDevice, MemoryDevice};
use formats::lvm::{
    GroupMetadata, Lvm, MetadataArea, PvScan, RaidMeta, RawLabel, Section, SnapshotStore, ThinMetadata,
};

/// Most volumes whose maps are looked at, and places on each.
const LOOK_MAX: usize = 16;

/// The bytes as each structure, and as the beginning of a device.
#[allow(clippy::missing_panics_doc, reason = "a panic is how a failure is told")]
pub fn run(data: &[u8]) {
    if let Some(label) = RawLabel::parse(data) {
        let _ = label.verify("fuzzed", 512);
    }
    let _ = RaidMeta::parse(data, "fuzzed", 0);
    let _ = Section::parse(data);
    if let Ok(group) = GroupMetadata::parse(data, "fuzzed", 0) {
        let _ = group.find("root");
    }
    // Room behind for what the bytes point at.
    let size = (data.len() as u64).next_multiple_of(4096) + (1 << 20);
    let device = MemoryDevice::new("fuzzed", size);
    let mut padded = data.to_vec();
    padded.resize(data.len().next_multiple_of(4096), 0);
    if !padded.is_empty() {
        device.write(0, &padded).expect("within the device");
    }
    let _ = MetadataArea::read(&device, 0, size);
    if let Ok(Some(scan)) = PvScan::read(&device) {
        let lvm = Lvm::assemble(&[scan]);
        for group in &lvm.groups {
            for volume in 0..group.volumes.logical.len().min(LOOK_MAX) {
                let _ = (group.locate(volume, 0), group.volumes.physical_of(volume));
                let _ = group.volumes.map(volume, 0..size).take(LOOK_MAX).count();
            }
        }
    }
    if let Ok(store) = SnapshotStore::read(&device) {
        let _ = (store.locate(0), store.locate(size));
    }
    if let Ok(thin) = ThinMetadata::open(&device) {
        let _ = thin.devices(&device);
    }
    if let Ok(Some(table)) = formats::partitions(&device) {
        for partition in table.partitions {
            assert!(!format!("{partition:?}").is_empty());
        }
    }
}
